//! A remote: does what the gateway orders, for each model.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use seco_core::{IncarnationId, SessionId};
use seco_protocol::{BundleId, Use};
use tokio::sync::{RwLock, RwLockReadGuard, mpsc};
use tokio::time::timeout;

use crate::cluster::commands::{self, Command, Done, Order, Reply};
use crate::failure::{Broken, Failure};
use crate::mesh::Incoming;
use crate::node::Node;
use crate::service::models::Models;
use crate::service::turns;
use crate::service::{Epoch, Service};

/// The gateway's number.
const GATEWAY: usize = 0;
/// After a loss the remotes find each other again about when the gateway does.
const RECONNECT: Duration = Duration::from_secs(10);

/// What a remote server does for one model.
pub(crate) struct Worker {
    node: Arc<Node>,
    service: Arc<Service>,
    state: Mutex<State>,
    /// Bundles it may hold: those of the gateway's pool, those on their way to a request, and those
    /// that the gateway counts as used slightly before this server does.
    room: usize,
    /// Shared by those who make keys or a bundle.
    making: RwLock<()>,
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

/// Takes commands until the mesh ends.
pub(crate) async fn obey(models: Arc<Models>, mut incoming: mpsc::Receiver<Incoming>) {
    while let Some(mut stream) = incoming.recv().await {
        if stream.from != GATEWAY {
            let from = stream.from;
            commands::reply(stream, Err(Failure::Misbehaved(from))).await;
            continue;
        }
        let models = models.clone();
        tokio::spawn(async move {
            // A job goes on when its command's stream breaks; the other servers may be fine.
            let Some(Order { model, command }) = commands::receive(&mut stream).await else { return };
            let reply = match models.worker(&model) {
                Some(worker) => worker.obey(command).await,
                None => Err(Failure::LacksModel),
            };
            commands::reply(stream, reply).await;
        });
    }
}

impl Worker {
    pub(crate) fn new(service: Arc<Service>) -> Arc<Self> {
        let node = service.node.clone();
        let room = service.pool.size + 2 * node.limits.parallel;
        Arc::new(Self { node, service, state: Mutex::default(), room, making: RwLock::default() })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends what is made ahead: the model is removed.
    pub(crate) async fn leave(&self) {
        *self.state() = State::default();
        self.node.jobs.cancel_making(&self.service.info.id);
        // Over when it has noticed.
        let _ = self.making.write().await;
    }

    /// Keys or a bundle are begun, until this is dropped; not of a model that is being removed.
    async fn begins(&self) -> Result<RwLockReadGuard<'_, ()>, Failure> {
        let making = self.making.read().await;
        if self.service.drain.has_begun() { Err(Failure::LacksModel) } else { Ok(making) }
    }

    async fn obey(&self, command: Command) -> Reply {
        let result = match command {
            Command::SetUp { job, epoch, version } => {
                self.set_up(job, epoch, version).await.map_err(|e| ("set-up", e))
            }
            Command::Preprocess { job, epoch, bundle, index } => {
                self.preprocess(job, epoch, (bundle, index)).await.map_err(|e| ("bundle", e))
            }
            Command::Infer { job, bundle, usage } => {
                self.infer(job, bundle, usage).await.map_err(|e| ("inference", e))
            }
            Command::Open(_) | Command::Resume(_) if self.service.drain.has_begun() => {
                return Err(Failure::LacksModel);
            }
            Command::Open(session) => return self.service.open(&session).map(|()| Done::Plain),
            Command::Resume(session) => return self.service.resume(&session).map(|()| Done::Plain),
            Command::Knows(connected) => {
                let known = self.service.sessions().knows(&connected);
                return if known { Ok(Done::Plain) } else { Err(Failure::UnknownSession) };
            }
            Command::End(ended) => {
                let mut sessions = self.service.sessions();
                ended.iter().for_each(|connected| sessions.end(connected));
                return Ok(Done::Plain);
            }
            Command::Discard { bundle } => {
                self.service.store.discard(&bundle);
                return Ok(Done::Plain);
            }
            Command::Cancel { job } => {
                self.node.jobs.cancel(job);
                return Ok(Done::Plain);
            }
            Command::Room => {
                return if self.service.store.has_room() { Ok(Done::Plain) } else { Err(Failure::Disk) };
            }
            Command::AtOnce => {
                return Ok(Done::AtOnce(u32::try_from(self.service.at_once).unwrap_or(1)));
            }
            Command::Inventory => return Ok(Done::Bundles(self.service.store.list())),
            Command::Keep(bundles) => {
                let gone = self.service.store.keep(&bundles);
                if gone > 0 {
                    tracing::info!(gone, "bundles that not all servers have");
                }
                return Ok(Done::Plain);
            }
        };
        result.map(|()| Done::Plain).map_err(|(what, broken)| {
            // Caused by a device or by an operator: nothing to act on.
            use Failure::{CounterUsed, LacksModel, Stopping, UnknownSession};
            if matches!(broken.failure, UnknownSession | CounterUsed | Stopping | LacksModel) {
                return broken.failure;
            }
            let cause = broken.cause.map_or_else(|| broken.failure.to_string(), |c| c.to_string());
            let culprit = broken.failure.server().unwrap_or(self.node.me());
            self.node.report_failure(what, culprit, &self.service.model(), format!("{what}: {cause}"));
            broken.failure
        })
    }

    async fn set_up(&self, job: u64, epoch: u64, version: u16) -> Result<(), Broken> {
        if !self.node.mesh.versions().speaks(version) {
            return Err(Failure::OtherVersion.into());
        }
        {
            let mut state = self.state();
            *state = State { ordered: epoch, epoch: None };
            self.node.jobs.cancel_making(&self.service.info.id);
        }
        if timeout(RECONNECT, self.node.mesh.connected()).await.is_err() {
            return Err(Failure::Unavailable(self.node.mesh.missing().unwrap_or_default()).into());
        }
        let _making = self.begins().await?;
        let made = self.service.set_up(job, epoch, version).await?;
        let mut state = self.state();
        if state.ordered != epoch {
            return Err(Failure::OtherEpoch.into());
        }
        state.epoch = Some(made);
        Ok(())
    }

    async fn preprocess(&self, job: u64, epoch: u64, (bundle, index): (BundleId, u64)) -> Result<(), Broken> {
        let start = Instant::now();
        // This server said how many it makes, so only those that were cancelled, and have not noticed yet, can be in the
        // way of an honest gateway's; whatever else is ordered waits, and its streams with it.
        let share = u32::try_from(turns::share(self.service.at_once)).unwrap_or(u32::MAX);
        let permit = self.node.obeys.offline.acquire_many(share);
        let permit = timeout(self.node.limits.preprocess(), permit).await;
        let _permit = permit.map_err(|_| Failure::TimedOut(self.node.me()))?;
        let current = {
            if self.service.store.len() >= self.room {
                return Err(Failure::Full.into());
            }
            self.state().epoch(epoch)?
        };
        let _making = self.begins().await?;
        let made = self.service.preprocess(job, current, (bundle, index)).await;
        let mut state = self.state();
        if state.ordered != epoch {
            drop(state);
            self.service.store.discard(&bundle);
            return Err(Failure::OtherEpoch.into());
        }
        if made.is_err() {
            // Nothing more is begun from this set-up, whatever the gateway orders: a link's seeds are good for one try.
            // What is made beside it shares nothing with it that is used up, has the keys, and ends as if it were alone.
            state.epoch = None;
        }
        drop(state);
        made?;
        self.service.report_bundle(start, self.service.store.len());
        Ok(())
    }

    async fn infer(&self, job: u64, bundle: BundleId, usage: Use) -> Result<(), Broken> {
        let start = Instant::now();
        let Some(_under_way) = self.node.drain.enter() else {
            return Err(Failure::Stopping.into());
        };
        let Some(_of_model) = self.service.drain.enter() else {
            return Err(Failure::LacksModel.into());
        };
        // The gateway orders no more at a time, so those in the way were cancelled and have not noticed yet.
        let permit = timeout(self.node.limits.infer(), self.node.obeys.online.acquire()).await;
        let _permit = permit.map_err(|_| Failure::TimedOut(self.node.me()))?;
        let Use { session, incarnation, counter } = usage;
        let pads = self.service.take(&(SessionId(session), IncarnationId(incarnation)), counter)?;
        self.service.infer(job, bundle, usage, pads, None).await?;
        self.service.report_inference(start, self.service.store.len());
        Ok(())
    }
}
