//! One model on one server: its part of set-ups, bundles, sessions and inferences; bundles that are ready, and requests
//! that wait for them. A server has many (`models`).

mod at_once;
pub(crate) mod leases;
pub(crate) mod models;
mod pace;
pub mod part;
pub(crate) mod places;
pub(crate) mod pool;
mod queue;
pub(crate) mod turns;

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use seco_core::{Binding, ModelInfo, ServerSetId};
use seco_protocol::{BundleId, Party, PlannedModel, SpoolError, Use};
use tokio::task::AbortHandle;
use tracing::{Instrument as _, Span, field};

use crate::access::sessions::{Connected, Pads, Sessions};
use crate::cluster::commands::{OpenSession, ResumeSession};
use crate::config;
use crate::failure::{Broken, Failure};
use crate::keys;
use crate::memory;
use crate::mesh::QuicChannel;
use crate::node::Node;
use crate::operation::drain::Drain;
use crate::operation::events::Event;
use crate::operation::metrics::Phase;
use crate::store::Store;

use self::leases::Leases;

/// So long after a bundle, if no other was begun, what was kept for the next is freed.
const REST: Duration = Duration::from_secs(10);

/// One set-up of the cluster for a model: keys and base OTs, and what hangs on them. Its random number tells whether
/// servers speak of the same.
pub(crate) struct Epoch {
    pub id: u64,
    /// In which servers make it and its bundles.
    pub version: u16,
    pub party: Party,
}

/// One model on one server.
pub(crate) struct Service {
    pub node: Arc<Node>,
    /// What people call it.
    pub name: Option<String>,
    /// Its file.
    pub part: PathBuf,
    pub pool: config::Pool,
    /// Bundles that this server makes at the same time.
    pub at_once: usize,
    pub planned: Arc<PlannedModel>,
    pub info: ModelInfo,
    pub store: Arc<Store>,
    pub sessions: Mutex<Sessions>,
    /// Of bundles that are spent for requests to come.
    pub leases: Arc<Leases>,
    /// The only one that waits to free what bundles leave.
    pub resting: Mutex<Option<AbortHandle>>,
    /// Held by every bundle that is being made.
    pub under_way: Arc<()>,
    /// Ends before the server does when the model is removed.
    pub drain: Drain,
}

impl Service {
    /// The start of the model's id, for logs and metrics.
    pub fn model(&self) -> String {
        keys::short(&self.info.id)
    }

    /// What people know it by: its id, and its name if it has one.
    pub fn title(&self) -> String {
        self.name.as_ref().map_or_else(|| self.model(), |name| format!("{} ({name})", self.model()))
    }

    /// Other servers that are connected and do not have the model.
    pub fn lacking(&self) -> Vec<usize> {
        let mesh = &self.node.mesh;
        let lacks = |&server: &usize| {
            server != mesh.me() && mesh.is_connected(server) && !mesh.has(server, &self.info.id)
        };
        (0..mesh.servers()).filter(lacks).collect()
    }

    /// What lines of the log about a job have in common; what a collector of spans is told of it.
    fn span(&self, phase: &str, job: u64, bundle: Option<&BundleId>) -> Span {
        let bundle = bundle.map(|bundle| keys::to_hex(bundle.0.get(..4).unwrap_or_default()));
        tracing::info_span!(
            "job",
            phase,
            job,
            bundle,
            model = self.model(),
            peer = field::Empty,
            error = field::Empty
        )
    }

    /// Sets up the cluster anew, for bundles to come. Bundles that are ready are not touched.
    pub async fn set_up(&self, job: u64, epoch: u64, version: u16) -> Result<Arc<Epoch>, Broken> {
        let start = Instant::now();
        let span = self.span(Phase::SetUp.name(), job, None);
        let work = async {
            let job = self.node.jobs.start(job, &self.info.id, self.node.limits.setup(), Phase::SetUp)?;
            let (planned, seed) = (self.planned.clone(), keys::secret().map_err(|_| Failure::Internal)?);
            let parameters = self.node.ot_parameters.clone();
            let work =
                move |[channel]: &mut [QuicChannel; 1]| Party::setup(planned, channel, &parameters, *seed);
            job.run(&self.node.mesh, &self.node.metrics, true, work).await
        };
        let party = within(span, work).await?;
        let (sessions, model) = (self.node.limits.sessions, self.model());
        match self.node.device {
            Some((device, over)) => {
                tracing::info!(
                    model,
                    version,
                    "ready: serves up to {sessions} devices at {device} over {over}"
                );
            }
            None => {
                tracing::info!(model, version, "ready: serves up to {sessions} devices, through the gateway");
            }
        }
        self.node.events.emit(&Event::Ready {
            server: self.node.me(),
            device: self.node.device.map(|(address, _)| address),
            devices: Some(sessions),
            model,
            seconds: start.elapsed().as_secs_f64(),
            mesh_bytes_sent: self.node.mesh.bytes_sent(),
        });
        Ok(Arc::new(Epoch { id: epoch, version, party }))
    }

    /// Makes a bundle, number `index` of the set-up, and stores it.
    pub async fn preprocess(
        &self,
        job: u64,
        epoch: Arc<Epoch>,
        (bundle, index): (BundleId, u64),
    ) -> Result<(), Broken> {
        let span = self.span(Phase::Bundle.name(), job, Some(&bundle));
        within(span, self.make(job, epoch, (bundle, index))).await
    }

    async fn make(
        &self,
        job: u64,
        epoch: Arc<Epoch>,
        (bundle, index): (BundleId, u64),
    ) -> Result<(), Broken> {
        self.rest_after(None);
        let _under_way = self.under_way.clone();
        let job = self.node.jobs.start(job, &self.info.id, self.node.limits.preprocess(), Phase::Bundle)?;
        let seed = keys::secret().map_err(|_| Failure::Internal)?;
        let (store, version) = (self.store.clone(), epoch.version);
        let begun = tokio::task::spawn_blocking(move || store.begin(bundle, version)).await;
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
        let made = job.run(&self.node.mesh, &self.node.metrics, true, work).await;
        drop(asking);
        if made.is_err() {
            self.store.discard(&bundle);
        }
        let others = Arc::downgrade(&self.under_way);
        let rest = tokio::spawn(async move {
            tokio::time::sleep(REST).await;
            // Unless the cluster was set up anew, or others are still being made; one that is begun ends this wait.
            if let Some(epoch) = party.upgrade().filter(|_| others.strong_count() <= 1) {
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
        self.node.metrics.made(&self.model(), start.elapsed());
        self.node.events.emit(&Event::Bundle {
            server: self.node.me(),
            model: self.model(),
            pool,
            seconds: start.elapsed().as_secs_f64(),
            mesh_bytes_sent: self.node.mesh.bytes_sent(),
        });
    }

    /// Opens this server's session key and remembers it.
    pub fn open(&self, session: &OpenSession) -> Result<(), Failure> {
        if session.model != self.info.id {
            return Err(Failure::WrongModel);
        }
        if session.keys.len() != self.node.mesh.servers() {
            return Err(Failure::SealedKey);
        }
        let hashes =
            session.keys.iter().enumerate().map(|(server, id)| self.node.mesh.sealing_key(server, *id));
        let hashes = hashes.collect::<Result<Vec<_>, _>>()?;
        let binding = Binding {
            session: session.session,
            model: session.model,
            servers: ServerSetId::from_hashes(&hashes).map_err(|_| Failure::Internal)?,
            incarnation: session.incarnation.id(),
        };
        let key = self.node.opening_keys.open(&session.sealed, &binding, self.node.me())?;
        // Asked once the table is locked: what is forgotten there was recorded before.
        let mut sessions = self.sessions();
        let spent_before = self.node.ledgers.own().knows(&session.session.0);
        sessions.open(session.session, key, &session.incarnation, spent_before)
    }

    /// Takes up a session on another connection.
    pub fn resume(&self, session: &ResumeSession) -> Result<(), Failure> {
        self.sessions().resume(session.session, &session.incarnation, &session.tag)
    }

    /// Uses a request's number; gives what this server's pads for it come from.
    pub fn take(&self, connected: &Connected, counter: u64) -> Result<Pads, Failure> {
        self.sessions().take(connected, counter)
    }

    /// Sessions of devices, and their connections.
    pub fn sessions(&self) -> MutexGuard<'_, Sessions> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Uses a bundle for one request, with this server's pads for it. The gateway passes the masked input and
    /// gets the masked logits.
    pub async fn infer(
        &self,
        job: u64,
        bundle: BundleId,
        usage: Use,
        pads: Pads,
        masked_input: Option<Vec<u8>>,
    ) -> Result<Option<Vec<u32>>, Broken> {
        let span = self.span(Phase::Inference.name(), job, Some(&bundle));
        let infer = async {
            let job = self.node.jobs.start(job, &self.info.id, self.node.limits.infer(), Phase::Inference)?;
            let (store, planned) = (self.store.clone(), self.planned.clone());
            let count_on = self.count_on();
            let work = move |[channel]: &mut [QuicChannel; 1]| {
                let spent = store.spend(&bundle, &usage, &pads.session)?;
                let answer = spent.infer(&planned, channel, &pads.key, masked_input.as_deref())?;
                count_on();
                Ok(answer)
            };
            job.run(&self.node.mesh, &self.node.metrics, false, work).await
        };
        within(span, infer).await
    }

    /// What counts the others' ledgers on, once they have confirmed that they spent a bundle: over the links of now.
    fn count_on(&self) -> impl FnOnce() + Send + 'static + use<> {
        let (mesh, links) = (self.node.mesh.clone(), self.node.mesh.generations());
        let ledgers = self.node.ledgers.clone();
        move || {
            ledgers.confirmed(|| {
                let now = mesh.generations();
                let stands = |index: &usize| {
                    now.get(*index).is_some_and(|link| link.is_some() && links.get(*index) == Some(link))
                };
                (0..now.len()).filter(stands).map(|server| (server, mesh.common(server))).collect()
            });
        }
    }

    /// Says that an inference ended well, leaving `pool`.
    pub fn report_inference(&self, start: Instant, pool: usize) {
        self.node.metrics.inferred(&self.model(), start.elapsed());
        self.node.events.emit(&Event::Inference {
            server: self.node.me(),
            model: self.model(),
            pool,
            seconds: start.elapsed().as_secs_f64(),
            mesh_bytes_sent: self.node.mesh.bytes_sent(),
        });
    }
}

/// Does a job's work in its span, which tells then how it failed: as other servers are told, no more.
pub(crate) async fn within<T>(
    span: Span,
    work: impl Future<Output = Result<T, Broken>>,
) -> Result<T, Broken> {
    let mut ends = Ends { span: span.clone(), given_up: true };
    let result = work.instrument(span.clone()).await;
    ends.given_up = false;
    if let Err(Broken { failure, .. }) = &result {
        span.record("error", failure.to_string().as_str());
        if let Some(peer) = failure.server() {
            span.record("peer", peer);
        }
    }
    result
}

/// A job's work, until this is dropped. The gateway does not wait for its own where another server failed.
struct Ends {
    span: Span,
    given_up: bool,
}

impl Drop for Ends {
    fn drop(&mut self) {
        if self.given_up {
            self.span.record("error", "it was given up");
        }
    }
}
