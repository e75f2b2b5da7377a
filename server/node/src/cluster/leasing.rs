//! The gateway leases bundles ahead to connections of devices: servers begin the inference of a connection's next request
//! before it is there, so that it waits for no order, no disk and no confirmation.
//!
//! That costs a bundle whenever the request does not come. So there is a limit for all connections together, which every
//! server sets for itself, a lease has an age, and none is made of what others may need soon (`Pool::spare`).

use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use seco_protocol::{BundleId, Use};
use tokio::sync::{oneshot, watch};
use tokio::time::{sleep, timeout};

use super::blame::Blame;
use super::commands::{Command, Done};
use super::coordinator::Coordinator;
use super::stock::Progress;
use crate::access::sessions::{Connected, Pads};
use crate::failure::Failure;
use crate::service::leases::{Asked, Coming, Ended, Leases, Place};

/// After a lease could not be made there is none for so long: the request that it was for failed with it. As long passes
/// until servers are asked again what they allow.
const PAUSE: Duration = Duration::from_secs(60);
/// A lease is given up when its request has not come.
const AGE: Duration = Duration::from_secs(120);

/// How many bundles of a model are leased at a time.
#[derive(Default)]
pub(super) struct Leasing {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// What the other servers allow, once they have said so.
    limit: Option<usize>,
    /// When the last one could not be made, or a server did not say how many it allows.
    failed: Option<Instant>,
}

/// A bundle that is leased to a connection, or about to be. Dropped, it is given up.
pub(crate) struct Lease {
    ask: oneshot::Sender<Asked>,
    ended: oneshot::Receiver<Result<Ended, Blame>>,
}

impl Lease {
    /// Whether it is of no use any more.
    pub fn is_over(&self) -> bool {
        self.ask.is_closed()
    }

    /// The request has come. Gives the masked logits.
    ///
    /// # Errors
    /// Who failed; nobody where the lease had ended before.
    pub async fn ask(self, asked: Asked) -> Result<Vec<u32>, Option<Blame>> {
        // Fails where it has ended, which says why.
        let _ = self.ask.send(asked);
        match self.ended.await {
            Ok(Ok(Ended::Used(Some(logits)))) => Ok(logits),
            Ok(Err(blame)) => Err(Some(blame)),
            Ok(Ok(_)) | Err(_) => Err(None),
        }
    }
}

impl Leasing {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place for one, if there may be one now; `Err` where the servers have to be asked first how many they allow.
    fn place(&self, leases: &Leases) -> Result<Option<Place>, ()> {
        let mut state = self.state();
        if state.failed.is_some_and(|failed| failed.elapsed() < PAUSE) {
            return Ok(None);
        }
        let Some(limit) = state.limit else {
            state.failed = Some(Instant::now());
            return Err(());
        };
        Ok(leases.place(limit))
    }
}

impl Coordinator {
    /// Finds out how many leases the other servers allow. One of an earlier release does not know what that is.
    pub(super) async fn ask_about_leases(&self) {
        let own = self.service.pool.leases;
        if own == 0 {
            return;
        }
        let allowed = |done: &Done| match done {
            Done::Leases(allowed) => usize::from(*allowed),
            _ => 0,
        };
        let told = self.ask(&Command::Leases).await;
        if let Err(Blame { failure: Failure::TimedOut(_), .. }) = &told {
            // It may know the order, and say so later.
            let mut state = self.leasing.state();
            (state.limit, state.failed) = (None, Some(Instant::now()));
            return;
        }
        let limit = told.as_ref().map_or(Some(0), |told| told.iter().map(allowed).min()).unwrap_or_default();
        let before = self.leasing.state().limit.replace(limit);
        if limit >= own || before == Some(limit) {
            return;
        }
        match told {
            Ok(_) => tracing::info!(
                "at most {limit} bundles are leased at a time, not {own}: another server's [pool] leases allows no more"
            ),
            Err(Blame { server, .. }) => {
                let name = self.node.mesh.name(server);
                tracing::info!(
                    "no bundles are leased: server {server} ({name}) does not say that it allows any"
                );
            }
        }
    }

    /// Whether bundles of the model are leased at all.
    pub fn leases(&self) -> bool {
        self.service.pool.leases > 0
    }

    /// Leases a bundle for the next request of a connection, if there is one to spare; gives the request's number, which is
    /// used then. `counted` is dropped when the lease has ended.
    pub fn lease(
        self: &Arc<Self>,
        connected: &Connected,
        counted: impl Send + 'static,
    ) -> Option<(u64, Lease)> {
        if self.lacking().is_some() {
            return None;
        }
        // Until it is made. Then it waits for its request, and nobody for it.
        let making = (
            self.node.drain.enter()?,
            self.service.drain.enter()?,
            self.node.orders.leasing.clone().try_acquire_owned().ok()?,
        );
        let place = self.leasing.place(&self.service.leases);
        // Taking stock asks too.
        let place = place.inspect_err(|()| self.doubts.notify_one()).ok()??;
        let number = self.service.sessions().next(connected)?;
        // Dropped unused, it is in the pool again.
        let mut ready = self.pool.spare()?;
        self.stock.taken.notify_one();
        let pads = self.number(connected, number).ok()?;
        ready.state = Progress::Started;
        let usage = Use { session: connected.0.0, incarnation: connected.1.0, counter: number };
        let ((ask, asked), (sender, ended)) = (oneshot::channel(), oneshot::channel());
        let cluster = self.clone();
        tokio::spawn(async move {
            let result = cluster.leased((ready.bundle, usage, pads), making, place, asked).await;
            if result.is_ok() {
                // All servers have spent it.
                ready.used();
            }
            drop((ready, counted));
            // Where the device is gone, nobody wants to know.
            let _ = sender.send(result);
        });
        Some((number, Lease { ask, ended }))
    }

    /// A lease from its beginning to its end. `making` is dropped when all servers have confirmed, and `place` when all have
    /// ended it: one that still holds it would refuse the next.
    async fn leased(
        &self,
        (bundle, usage, pads): (BundleId, Use, Pads),
        making: impl Send + 'static,
        place: Place,
        asked: oneshot::Receiver<Asked>,
    ) -> Result<Ended, Blame> {
        let (job, infer) = (self.job(), self.node.limits.infer());
        // To make it, to wait, and to answer.
        let limit = infer + AGE + infer;
        let (confirm, made) = watch::channel(false);
        let came = AtomicBool::new(false);
        let confirmed = move || {
            confirm.send_replace(true);
            drop(making);
        };
        let (hand_on, handed) = oneshot::channel();
        let own = self.service.lease((job, limit), (bundle, usage, pads), confirmed, Coming::Asked(handed));
        let command = Command::Lease { job, bundle, usage };
        let mut ended = pin!(self.order_while(job, command, limit, Arc::new(place), own));
        // With this `hand_on` goes, and the thread that waits for it.
        let request = async {
            if timeout(infer, made.clone().wait_for(|made| *made)).await.is_err() {
                self.node.jobs.cancel(job);
                return;
            }
            let asked = tokio::select! {
                // A request that is there counts.
                biased;
                asked = asked => asked.ok(),
                () = sleep(AGE) => None,
                () = self.service.drain.ended() => None,
            };
            let Some(asked) = asked else { return };
            came.store(true, Ordering::Relaxed);
            if hand_on.send(asked).is_ok() {
                sleep(infer).await;
                self.node.jobs.cancel(job);
            }
        };
        let result = tokio::select! {
            result = &mut ended => result,
            () = request => ended.await,
        };
        if let Err(blame) = &result {
            self.lease_failed(blame, *made.borrow(), came.load(Ordering::Relaxed));
        }
        self.doubt(&result);
        result
    }

    fn lease_failed(&self, blame: &Blame, made: bool, came: bool) {
        use Failure::{CounterUsed, LacksModel, NoLease, Stopping, TimedOut, Unavailable, UnknownSession};
        match blame.failure {
            // Caused by a device or by an operator: nothing to act on.
            UnknownSession | CounterUsed | Stopping | LacksModel | NoLease => return,
            // One that waited is lost, as its link may be.
            Unavailable(_) | TimedOut(_) if made && !came => return,
            _ => {}
        }
        self.leasing.state().failed = Some(Instant::now());
        self.report("a lease", blame);
    }
}
