//! A remote: does what the gateway orders, for each model.

use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use seco_core::{IncarnationId, SessionId};
use seco_protocol::{BundleId, Use};
use tokio::sync::{RwLock, RwLockReadGuard, mpsc};
use tokio::time::{sleep, timeout};

use crate::access::sessions::Pads;
use crate::cluster::commands::{self, Command, Done, Order, Reply};
use crate::failure::{Broken, Failure};
use crate::mesh::Incoming;
use crate::node::Node;
use crate::operation::drain::UnderWay;
use crate::service::leases::{self, Coming, Ended};
use crate::service::models::Models;
use crate::service::turns;
use crate::service::{Epoch, Service};

/// The gateway's number.
const GATEWAY: usize = 0;
/// After a loss the remotes find each other again about when the gateway does.
const RECONNECT: Duration = Duration::from_secs(10);
/// A lease is given up whose request has not come: the gateway does so much earlier.
const LEASE_AGE: Duration = Duration::from_secs(600);

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
            Command::Lease { job, bundle, usage } => match self.lease(job, bundle, usage).await {
                Ok(None) => Ok(()),
                // Its end is no failure.
                Ok(Some(why)) => return Err(why),
                Err(broken) => Err(("lease", broken)),
            },
            Command::Leases => {
                let limit = self.service.pool.leases.min(leases::MOST);
                return Ok(Done::Leases(u16::try_from(limit).unwrap_or(u16::MAX)));
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
            use Failure::{CounterUsed, LacksModel, NoLease, Stopping, UnknownSession};
            if matches!(broken.failure, UnknownSession | CounterUsed | Stopping | LacksModel | NoLease) {
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

    /// Uses the number of a request; gives what this server's pads for it come from.
    fn number(&self, usage: &Use) -> Result<Pads, Failure> {
        let connected = (SessionId(usage.session), IncarnationId(usage.incarnation));
        self.service.take(&connected, usage.counter)
    }

    /// What is under way from now on, on the server and for its model, until this is dropped.
    fn enter(&self) -> Result<[UnderWay; 2], Failure> {
        let on_server = self.node.drain.enter().ok_or(Failure::Stopping)?;
        Ok([on_server, self.service.drain.enter().ok_or(Failure::LacksModel)?])
    }

    async fn infer(&self, job: u64, bundle: BundleId, usage: Use) -> Result<(), Broken> {
        let start = Instant::now();
        let _under_way = self.enter()?;
        // The gateway orders no more at a time, so those in the way were cancelled and have not noticed yet.
        let permit = timeout(self.node.limits.infer(), self.node.obeys.online.acquire()).await;
        let _permit = permit.map_err(|_| Failure::TimedOut(self.node.me()))?;
        let pads = self.number(&usage)?;
        self.service.infer(job, bundle, usage, pads, None).await?;
        self.service.report_inference(start, self.service.store.len());
        Ok(())
    }

    /// Does an inference that is begun ahead of its request; says why, if that does not come. It has places of its own, so
    /// that it waits for nobody and nobody for it.
    async fn lease(&self, job: u64, bundle: BundleId, usage: Use) -> Result<Option<Failure>, Broken> {
        let _place = self.service.leases.place(usize::MAX).ok_or(Failure::NoLease)?;
        let making = self.enter()?;
        // Of these, all are needed. A lost one between two remotes would not be noticed before the request comes.
        let mesh = &self.node.mesh;
        let (mut changes, links) = (mesh.changes(), mesh.generations());
        let mut lost_link = pin!(async {
            loop {
                if let Some(peer) = mesh.generations().iter().zip(&links).position(|(now, then)| now != then)
                {
                    return peer;
                }
                if changes.changed().await.is_err() {
                    std::future::pending::<()>().await;
                }
            }
        });
        let pads = self.number(&usage)?;
        let request = Arc::new(Mutex::new(Awaited::Waits));
        let takes_up = {
            let (node, service, request) = (self.node.clone(), self.service.clone(), request.clone());
            move || {
                let enters = || Some([node.drain.enter()?, service.drain.enter()?]);
                request.lock().unwrap_or_else(PoisonError::into_inner).comes(enters)
            }
        };
        let limit = LEASE_AGE + self.node.limits.infer();
        let what = (bundle, usage, pads);
        let coming = Coming::Published(Box::new(takes_up));
        let mut ended = pin!(self.service.lease((job, limit), what, move || drop(making), coming));
        let why = tokio::select! {
            biased;
            result = &mut ended => return Ok(self.answered(&result?, &request, Failure::Unavailable(GATEWAY))),
            () = self.node.drain.begun() => Failure::Stopping,
            () = self.service.drain.begun() => Failure::LacksModel,
            peer = &mut lost_link => Failure::Unavailable(peer),
            () = sleep(LEASE_AGE) => Failure::TimedOut(GATEWAY),
        };
        let given_up = request.lock().unwrap_or_else(PoisonError::into_inner).ends();
        if given_up {
            self.node.jobs.cancel(job);
        }
        match ended.await {
            Err(_) if given_up => Ok(Some(why)),
            ended => Ok(self.answered(&ended?, &request, why)),
        }
    }

    /// Says that the request was answered, or else gives back why there was none.
    fn answered(&self, ended: &Ended, request: &Mutex<Awaited>, why: Failure) -> Option<Failure> {
        match (ended, &*request.lock().unwrap_or_else(PoisonError::into_inner)) {
            (Ended::Used(_), Awaited::Came { start, .. }) => {
                self.service.report_inference(*start, self.service.store.len());
                None
            }
            _ => Some(why),
        }
    }
}

/// The request of an inference that was begun ahead, at a remote.
enum Awaited {
    Waits,
    /// Since then it is under way, until this is dropped.
    Came {
        start: Instant,
        _under_way: [UnderWay; 2],
    },
    /// It is not waited for any more.
    Ended,
}

impl Awaited {
    /// The request comes; says whether it is taken up, which it is if it `enters`.
    fn comes(&mut self, enters: impl FnOnce() -> Option<[UnderWay; 2]>) -> bool {
        if !matches!(self, Awaited::Waits) {
            return false;
        }
        let Some(under_way) = enters() else { return false };
        *self = Awaited::Came { start: Instant::now(), _under_way: under_way };
        true
    }

    /// It is not waited for any more; says whether that is so, for it may have come.
    fn ends(&mut self) -> bool {
        let waits = matches!(self, Awaited::Waits);
        if waits {
            *self = Awaited::Ended;
        }
        waits
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::operation::drain::Drain;

    #[test]
    fn a_request_is_taken_up_or_the_lease_ends_never_both() {
        let drain = Drain::default();
        let enters = || Some([drain.enter()?, drain.enter()?]);
        let (mut came, mut ended, mut late) = (Awaited::Waits, Awaited::Waits, Awaited::Waits);
        assert!(came.comes(enters) && !came.ends());
        assert_eq!(drain.under_way(), 2);
        assert!(ended.ends() && !ended.comes(enters));
        drain.begin();
        assert!(!late.comes(enters) && late.ends(), "the server has begun to drain");
        assert_eq!(drain.under_way(), 2, "the one that came is waited for");
        drop(came);
        assert_eq!(drain.under_way(), 0);
    }
}
