//! A remote: does what the gateway orders.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use seco_core::{IncarnationId, SessionId};
use seco_protocol::{BundleId, Use};
use tokio::sync::{Semaphore, mpsc};
use tokio::time::timeout;

use crate::cluster::commands::{self, Command, Done, Reply};
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

#[derive(Default)]
struct State {
    /// Number of the set-up that was ordered last.
    ordered: u64,
    epoch: Option<Arc<Epoch>>,
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

    async fn obey(&self, command: Command) -> Reply {
        let result = match command {
            Command::SetUp { job, epoch } => self.set_up(job, epoch).await.map_err(|e| ("set-up", e)),
            Command::Preprocess { job, epoch, bundle, index } => {
                self.preprocess(job, epoch, (bundle, index)).await.map_err(|e| ("bundle", e))
            }
            Command::Infer { job, bundle, usage } => {
                self.infer(job, bundle, usage).await.map_err(|e| ("inference", e))
            }
            Command::Open(session) => return self.node.open(&session).map(|()| Done::Done),
            Command::Resume(session) => return self.node.resume(&session).map(|()| Done::Done),
            Command::Knows(connected) => {
                let known = self.node.sessions().knows(&connected);
                return if known { Ok(Done::Done) } else { Err(Failure::UnknownSession) };
            }
            Command::End(ended) => {
                let mut sessions = self.node.sessions();
                ended.iter().for_each(|connected| sessions.end(connected));
                return Ok(Done::Done);
            }
            Command::Discard { bundle } => {
                self.node.store.discard(&bundle);
                return Ok(Done::Done);
            }
            Command::Cancel { job } => {
                self.node.jobs.cancel(job);
                return Ok(Done::Done);
            }
            Command::Room => {
                return if self.node.store.has_room() { Ok(Done::Done) } else { Err(Failure::Disk) };
            }
            Command::Inventory => return Ok(Done::Bundles(self.node.store.list())),
            Command::Keep(bundles) => {
                let gone = self.node.store.keep(&bundles);
                if gone > 0 {
                    tracing::info!(gone, "bundles that not all servers have");
                }
                return Ok(Done::Done);
            }
        };
        result.map(|()| Done::Done).map_err(|(what, broken)| {
            // Caused by a device or by an operator: nothing to act on.
            if matches!(broken.failure, Failure::UnknownSession | Failure::CounterUsed | Failure::Stopping) {
                return broken.failure;
            }
            let cause = broken.cause.map_or_else(|| broken.failure.to_string(), |c| c.to_string());
            let culprit = broken.failure.server().unwrap_or(self.node.me());
            self.node.report_failure(what, culprit, format!("{what}: {cause}"));
            broken.failure
        })
    }

    async fn set_up(&self, job: u64, epoch: u64) -> Result<(), Broken> {
        {
            let mut state = self.state();
            *state = State { ordered: epoch, epoch: None };
            self.node.jobs.cancel_making();
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
            if self.node.store.len() >= self.room {
                return Err(Failure::Full.into());
            }
            self.state().epoch(epoch)?
        };
        let made = self.node.preprocess(job, current, (bundle, index)).await;
        let mut state = self.state();
        if let Err(failure) = state.epoch(epoch) {
            self.node.store.discard(&bundle);
            return Err(failure.into());
        }
        if made.is_err() {
            // The OT extension may be out of step: nothing more is made from this set-up.
            *state = State { ordered: state.ordered, epoch: None };
        }
        drop(state);
        made?;
        self.node.report_bundle(start, self.node.store.len());
        Ok(())
    }

    async fn infer(&self, job: u64, bundle: BundleId, usage: Use) -> Result<(), Broken> {
        let start = Instant::now();
        let Some(_under_way) = self.node.drain.enter() else {
            return Err(Failure::Stopping.into());
        };
        // The gateway orders no more at a time, so those in the way were cancelled and have not noticed yet.
        let permit = timeout(self.node.limits.infer(), self.online.acquire()).await;
        let _permit = permit.map_err(|_| Failure::TimedOut(self.node.me()))?;
        let Use { session, incarnation, counter } = usage;
        let key = self.node.take(&(SessionId(session), IncarnationId(incarnation)), counter)?;
        self.node.infer(job, bundle, usage, key, None).await?;
        self.node.report_inference(start, self.node.store.len());
        Ok(())
    }
}
