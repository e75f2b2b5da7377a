//! A remote: does what the gateway orders.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use seco_core::{IncarnationId, SessionId};
use seco_protocol::{Bundle, BundleId, Use};
use tokio::sync::{Semaphore, mpsc};
use tokio::time::timeout;

use crate::cluster::commands::{self, Command};
use crate::config;
use crate::failure::{Broken, Failure};
use crate::mesh::Incoming;
use crate::node::{Epoch, Node};

/// The gateway's number.
const GATEWAY: usize = 0;
/// After a loss the remotes find each other again about when the gateway does.
const RECONNECT: Duration = Duration::from_secs(10);

/// What a remote server does.
pub(crate) struct Worker {
    node: Arc<Node>,
    state: Mutex<State>,
    /// Bundles it may hold: those of the gateway's pool, those on their way to a request, and those
    /// that the gateway counts as used slightly before this server does.
    room: usize,
    /// Inferences at the same time, with slack for the same reason.
    online: Semaphore,
    /// Bundles are made one at a time.
    offline: Semaphore,
}

/// Bundles belong to a set-up and go with it.
#[derive(Default)]
struct State {
    /// Number of the set-up that was ordered last.
    ordered: u64,
    epoch: Option<Arc<Epoch>>,
    bundles: HashMap<BundleId, Bundle>,
}

impl State {
    fn epoch(&self, id: u64) -> Result<Arc<Epoch>, Failure> {
        self.epoch.as_ref().filter(|e| e.id == id).cloned().ok_or(Failure::OtherEpoch)
    }
}

impl Worker {
    pub(crate) fn new(node: Arc<Node>, pool: config::Pool) -> Self {
        let parallel = node.limits.parallel;
        Self {
            node,
            state: Mutex::default(),
            room: pool.size + 2 * parallel,
            online: Semaphore::new(2 * parallel),
            offline: Semaphore::new(1),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes commands until the mesh ends.
    pub(crate) async fn run(self: Arc<Self>, mut incoming: mpsc::Receiver<Incoming>) {
        while let Some(mut stream) = incoming.recv().await {
            if stream.from != GATEWAY {
                let from = stream.from;
                commands::reply(stream, Err(Failure::Misbehaved(from))).await;
                continue;
            }
            let remote = self.clone();
            tokio::spawn(async move {
                // A job goes on when its command's stream breaks; the other servers may be fine.
                let Some(command) = commands::receive(&mut stream).await else { return };
                let reply = remote.obey(command).await;
                commands::reply(stream, reply).await;
            });
        }
    }

    async fn obey(&self, command: Command) -> Result<(), Failure> {
        let result = match command {
            Command::SetUp { job, epoch } => self.set_up(job, epoch).await.map_err(|e| ("set-up", e)),
            Command::Preprocess { job, epoch, bundle, index } => {
                self.preprocess(job, epoch, (bundle, index)).await.map_err(|e| ("preprocessing", e))
            }
            Command::Infer { job, epoch, bundle, usage } => {
                self.infer(job, epoch, bundle, usage).await.map_err(|e| ("inference", e))
            }
            Command::Open(session) => return self.node.open(&session),
            Command::Resume(session) => return self.node.resume(&session),
            Command::End(ended) => {
                let mut sessions = self.node.sessions();
                ended.iter().for_each(|connected| sessions.end(connected));
                return Ok(());
            }
            Command::Discard { bundle } => {
                self.state().bundles.remove(&bundle);
                return Ok(());
            }
            Command::Cancel { job } => {
                self.node.jobs.cancel(job);
                return Ok(());
            }
        };
        result.map_err(|(what, broken)| {
            // Caused by a device, not by a server: nothing for an operator to act on.
            if matches!(broken.failure, Failure::UnknownSession | Failure::CounterUsed) {
                return broken.failure;
            }
            let cause = broken.cause.map_or_else(|| broken.failure.to_string(), |c| c.to_string());
            self.node.report_failure(format!("{what}: {cause}"));
            broken.failure
        })
    }

    async fn set_up(&self, job: u64, epoch: u64) -> Result<(), Broken> {
        {
            let mut state = self.state();
            *state = State { ordered: epoch, ..State::default() };
            self.node.jobs.cancel_all();
        }
        if timeout(RECONNECT, self.node.mesh.connected()).await.is_err() {
            return Err(Failure::Unavailable(self.node.mesh.missing().unwrap_or_default()).into());
        }
        let made = self.node.set_up(job, epoch).await?;
        let mut state = self.state();
        if state.ordered != epoch {
            return Err(Failure::OtherEpoch.into());
        }
        state.epoch = Some(made);
        Ok(())
    }

    async fn preprocess(&self, job: u64, epoch: u64, (bundle, index): (BundleId, u64)) -> Result<(), Broken> {
        let start = Instant::now();
        // Only one that was cancelled, and has not noticed yet, can be in the way.
        let permit = timeout(self.node.limits.preprocess(), self.offline.acquire()).await;
        let _permit = permit.map_err(|_| Failure::TimedOut(self.node.me()))?;
        let current = {
            let state = self.state();
            if state.bundles.len() >= self.room {
                return Err(Failure::Full.into());
            }
            state.epoch(epoch)?
        };
        let made = self.node.preprocess(job, current, (bundle, index)).await;
        let mut state = self.state();
        state.epoch(epoch)?;
        match made {
            Ok(made) => {
                state.bundles.insert(bundle, made);
                let pool = state.bundles.len();
                drop(state);
                self.node.report_bundle(start, pool);
                Ok(())
            }
            Err(broken) => {
                // The OT extension may be out of step: nothing more is made from this set-up.
                *state = State { ordered: state.ordered, ..State::default() };
                Err(broken)
            }
        }
    }

    async fn infer(&self, job: u64, epoch: u64, bundle: BundleId, usage: Use) -> Result<(), Broken> {
        let start = Instant::now();
        // The gateway orders no more at a time, so those in the way were cancelled and have not noticed yet.
        let permit = timeout(self.node.limits.infer(), self.online.acquire()).await;
        let _permit = permit.map_err(|_| Failure::TimedOut(self.node.me()))?;
        let Use { session, incarnation, counter } = usage;
        let key = self.node.take(&(SessionId(session), IncarnationId(incarnation)), counter)?;
        let (current, bundle) = {
            let mut state = self.state();
            let current = state.epoch(epoch)?;
            (current, state.bundles.remove(&bundle).ok_or(Failure::UnknownBundle)?)
        };
        self.node.infer(job, current, bundle, usage, key, None).await?;
        let pool = self.state().bundles.len();
        self.node.report_inference(start, pool);
        Ok(())
    }
}
