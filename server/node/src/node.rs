//! What every server does, gateway or remote: its part of a set-up, a bundle, a session, an
//! inference.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use seco_core::{Binding, IncarnationKey, ModelInfo, ServerSetId};
use seco_protocol::{BundleId, Party, PlannedModel, SpoolError, Use};
use tokio::task::AbortHandle;
use tracing::{Instrument as _, Span};

use crate::access::opening::OpeningKeys;
use crate::access::sessions::{Connected, Sessions};
use crate::access::tokens::Tokens;
use crate::cluster::commands::{OpenSession, ResumeSession};
use crate::cluster::jobs::Jobs;
use crate::config::Limits;
use crate::failure::{Broken, Failure};
use crate::keys;
use crate::memory;
use crate::mesh::{Mesh, QuicChannel};
use crate::operation::drain::Drain;
use crate::operation::events::{Event, Events};
use crate::operation::metrics::{Metrics, Phase};
use crate::store::Store;
use crate::store::ledger::FileLedger;

/// So long after a bundle, if no other was begun, what was kept for the next is freed.
const REST: Duration = Duration::from_secs(10);

/// One set-up of the cluster: keys and base OTs, and what hangs on them. Its random number tells
/// whether servers speak of the same.
pub(crate) struct Epoch {
    pub id: u64,
    pub party: Party,
}

/// One server.
pub(crate) struct Node {
    pub mesh: Mesh,
    pub planned: Arc<PlannedModel>,
    pub info: ModelInfo,
    pub jobs: Arc<Jobs>,
    pub ledger: Arc<FileLedger>,
    pub store: Arc<Store>,
    pub sessions: Mutex<Sessions>,
    /// Deployment files for devices whose own is older.
    pub deployments: Arc<[PathBuf]>,
    /// Of devices, where the gateway knows any.
    pub tokens: Option<Arc<Tokens>>,
    pub opening_keys: OpeningKeys,
    /// Where devices are served and over what, on the gateway.
    pub device: Option<(SocketAddr, &'static str)>,
    pub limits: Limits,
    /// SoftSpokenOT's, by server.
    pub ot_parameters: Vec<usize>,
    pub events: Events,
    /// The only one that waits to free what bundles leave.
    pub resting: Mutex<Option<AbortHandle>>,
    pub metrics: Arc<Metrics>,
    pub drain: Drain,
}

impl Node {
    /// This server's number.
    pub fn me(&self) -> usize {
        self.mesh.me()
    }

    /// The start of the model's id, for logs and metrics.
    pub fn model(&self) -> String {
        keys::to_hex(self.info.id.0.get(..4).unwrap_or_default())
    }

    /// What lines of the log about a job have in common.
    fn span(&self, phase: Phase, job: u64, bundle: Option<&BundleId>) -> Span {
        let bundle = bundle.map(|bundle| keys::to_hex(bundle.0.get(..4).unwrap_or_default()));
        tracing::info_span!("job", phase = phase.name(), job, bundle, model = self.model())
    }

    /// Sets up the cluster anew, for bundles to come. Bundles that are ready are not touched.
    pub async fn set_up(&self, job: u64, epoch: u64) -> Result<Arc<Epoch>, Broken> {
        let start = Instant::now();
        let span = self.span(Phase::SetUp, job, None);
        let job = self.jobs.start(job, self.limits.setup(), Phase::SetUp)?;
        let (planned, seed) = (self.planned.clone(), keys::secret().map_err(|_| Failure::Internal)?);
        let parameters = self.ot_parameters.clone();
        let work = move |[channel]: &mut [QuicChannel; 1]| Party::setup(planned, channel, &parameters, *seed);
        let party = job.run(&self.mesh, &self.metrics, true, work).instrument(span).await?;
        let sessions = self.limits.sessions;
        match self.device {
            Some((device, over)) => {
                tracing::info!("ready: serves up to {sessions} devices at {device} over {over}");
            }
            None => tracing::info!("ready: serves up to {sessions} devices, through the gateway"),
        }
        self.events.emit(&Event::Ready {
            server: self.me(),
            device: self.device.map(|(address, _)| address),
            devices: Some(sessions),
            seconds: start.elapsed().as_secs_f64(),
            mesh_bytes_sent: self.mesh.bytes_sent(),
        });
        Ok(Arc::new(Epoch { id: epoch, party }))
    }

    /// Makes a bundle, number `index` of the set-up, and stores it.
    pub async fn preprocess(
        &self,
        job: u64,
        epoch: Arc<Epoch>,
        (bundle, index): (BundleId, u64),
    ) -> Result<(), Broken> {
        self.rest_after(None);
        let span = self.span(Phase::Bundle, job, Some(&bundle));
        let job = self.jobs.start(job, self.limits.preprocess(), Phase::Bundle)?;
        let seed = keys::secret().map_err(|_| Failure::Internal)?;
        let store = self.store.clone();
        let begun = tokio::task::spawn_blocking(move || store.begin(bundle)).await;
        let (making, spool) = begun.map_err(|_| Failure::Internal)??;
        let store = self.store.clone();
        // Gone with this future: a thread cannot be stopped, but then it need not store what it made.
        let asking = Arc::new(());
        let asked = Arc::downgrade(&asking);
        let party = Arc::downgrade(&epoch);
        let work = move |[linear, nonlinear]: &mut [QuicChannel; 2]| {
            let made = epoch.party.preprocess(bundle, index, linear, nonlinear, *seed, Box::new(spool))?;
            if asked.strong_count() == 0 {
                return Err(seco_protocol::Error::Misuse("nobody waits for the bundle any more"));
            }
            let stored = store.finish(making, made);
            stored.map_err(|failure| SpoolError(failure.to_string()).into())
        };
        // A bundle counts as made when all servers have all of it.
        let made = job.run(&self.mesh, &self.metrics, true, work).instrument(span).await;
        drop(asking);
        if made.is_err() {
            self.store.discard(&bundle);
        }
        let rest = tokio::spawn(async move {
            tokio::time::sleep(REST).await;
            // Unless another one was begun, or the cluster set up anew.
            if let Some(epoch) = party.upgrade().filter(|epoch| epoch.party.next_bundle() == index + 1) {
                // The system may take long for what it gets back.
                let free = move || {
                    epoch.party.rest();
                    memory::give_back();
                };
                let _ = tokio::task::spawn_blocking(free).await;
            }
        });
        self.rest_after(Some(rest.abort_handle()));
        made
    }

    /// What waits for a rest after the last bundle, in place of what waited after the one before.
    fn rest_after(&self, next: Option<AbortHandle>) {
        let mut resting = self.resting.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(before) = std::mem::replace(&mut *resting, next) {
            before.abort();
        }
    }

    /// Says that a bundle was added, leaving `pool`.
    pub fn report_bundle(&self, start: Instant, pool: usize) {
        self.metrics.made(start.elapsed());
        self.events.emit(&Event::Bundle {
            server: self.me(),
            pool,
            seconds: start.elapsed().as_secs_f64(),
            mesh_bytes_sent: self.mesh.bytes_sent(),
        });
    }

    /// Opens this server's session key and remembers it.
    pub fn open(&self, session: &OpenSession) -> Result<(), Failure> {
        if session.model != self.info.id {
            return Err(Failure::WrongModel);
        }
        if session.keys.len() != self.mesh.servers() {
            return Err(Failure::SealedKey);
        }
        let hashes = session.keys.iter().enumerate().map(|(server, id)| self.mesh.sealing_key(server, *id));
        let hashes = hashes.collect::<Result<Vec<_>, _>>()?;
        let binding = Binding {
            session: session.session,
            model: session.model,
            servers: ServerSetId::from_hashes(&hashes).map_err(|_| Failure::Internal)?,
            incarnation: session.incarnation.id(),
        };
        let key = self.opening_keys.open(&session.sealed, &binding, self.me())?;
        let spent_before = self.ledger.knows(&session.session.0);
        self.sessions().open(session.session, key, &session.incarnation, spent_before)
    }

    /// Takes up a session on another connection.
    pub fn resume(&self, session: &ResumeSession) -> Result<(), Failure> {
        self.sessions().resume(session.session, &session.incarnation, &session.tag)
    }

    /// Uses a request's number; gives this server's key for its pads.
    pub fn take(&self, connected: &Connected, counter: u64) -> Result<Arc<IncarnationKey>, Failure> {
        self.sessions().take(connected, counter)
    }

    /// Sessions of devices, and their connections.
    pub fn sessions(&self) -> MutexGuard<'_, Sessions> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Uses a bundle for one request, with this server's key for it. The gateway passes the masked input and
    /// gets the masked logits.
    pub async fn infer(
        &self,
        job: u64,
        bundle: BundleId,
        usage: Use,
        key: Arc<IncarnationKey>,
        masked_input: Option<Vec<u8>>,
    ) -> Result<Option<Vec<u32>>, Broken> {
        let span = self.span(Phase::Inference, job, Some(&bundle));
        let job = self.jobs.start(job, self.limits.infer(), Phase::Inference)?;
        let (store, planned) = (self.store.clone(), self.planned.clone());
        let (mesh, links) = (self.mesh.clone(), self.mesh.generations());
        let work = move |[channel]: &mut [QuicChannel; 1]| {
            let spent = store.spend(&bundle, &usage)?;
            let answer = spent.infer(&planned, channel, &key, masked_input.as_deref())?;
            let now = mesh.generations();
            let stands = |index: &usize| {
                now.get(*index).is_some_and(|link| link.is_some() && links.get(*index) == Some(link))
            };
            store.confirmed((0..now.len()).filter(stands));
            Ok(answer)
        };
        job.run(&self.mesh, &self.metrics, false, work).instrument(span).await
    }

    /// Says that an inference ended well, leaving `pool`.
    pub fn report_inference(&self, start: Instant, pool: usize) {
        self.metrics.inferred(start.elapsed());
        self.events.emit(&Event::Inference {
            server: self.me(),
            pool,
            seconds: start.elapsed().as_secs_f64(),
            mesh_bytes_sent: self.mesh.bytes_sent(),
        });
    }

    /// Says that a part of the service failed by a server's fault, and why.
    pub fn report_failure(&self, part: &str, culprit: usize, what: String) {
        self.metrics.failed(part, culprit);
        tracing::warn!("{what}");
        self.events.emit(&Event::Failed { server: self.me(), what });
    }
}
