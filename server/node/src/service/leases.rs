//! Inferences that are begun ahead of their requests, on one server (`server/PROTOCOL.md`, section 7).
//!
//! A bundle is leased to a device's connection: spent for the connection's next request, and confirmed by all servers,
//! in a job that then waits for this request. It is a job like any other: it ends on all servers where one ends it, its
//! link is lost or its time is up, and then the lease is lost. Nothing of it is kept anywhere else.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use seco_protocol::{BundleId, Request, Use};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use super::{Service, within};
use crate::access::sessions::Pads;
use crate::failure::{Broken, Failure};
use crate::mesh::QuicChannel;
use crate::operation::drain::UnderWay;
use crate::operation::metrics::Phase;

/// Leases of a server at most, of all its models: each has a thread that waits, and streams on every link.
pub const MOST: usize = 32;

/// The leases of a model: how many may be held, and what became of them.
pub(crate) struct Leases {
    limit: usize,
    places: Arc<Semaphore>,
    /// Those of all models.
    all: Arc<Semaphore>,
    held: AtomicU64,
    used: AtomicU64,
    lost: AtomicU64,
}

/// A lease's place among those of its model and of all models, until this is dropped.
pub(crate) struct Place {
    _own: OwnedSemaphorePermit,
    _all: OwnedSemaphorePermit,
}

/// What became of leases since the start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Counts {
    /// Those that wait for their request, or answer it.
    pub held: usize,
    /// Those by which it was answered.
    pub used: u64,
    /// All others.
    pub lost: u64,
}

impl Leases {
    /// None, and as many may be held; of all models as many as `all` has.
    pub fn new(limit: usize, all: &Arc<Semaphore>) -> Arc<Self> {
        let [held, used, lost] = [0; 3].map(AtomicU64::new);
        Arc::new(Self { limit, places: Arc::new(Semaphore::new(limit)), all: all.clone(), held, used, lost })
    }

    /// A place for one, if one is free and fewer than `limit` are taken. Without it nothing is spent.
    pub fn place(&self, limit: usize) -> Option<Place> {
        if self.limit.saturating_sub(self.places.available_permits()) >= limit {
            return None;
        }
        let take = |places: &Arc<Semaphore>| places.clone().try_acquire_owned().ok();
        Some(Place { _own: take(&self.places)?, _all: take(&self.all)? })
    }

    /// What became of them.
    pub fn counts(&self) -> Counts {
        let held = usize::try_from(self.held.load(Ordering::Relaxed)).unwrap_or(usize::MAX);
        Counts { held, used: self.used.load(Ordering::Relaxed), lost: self.lost.load(Ordering::Relaxed) }
    }
}

/// A spent bundle. Dropped, it is lost, unless it was used.
struct Held {
    leases: Arc<Leases>,
    used: bool,
}

impl Held {
    fn new(leases: &Arc<Leases>) -> Self {
        leases.held.fetch_add(1, Ordering::Relaxed);
        Self { leases: leases.clone(), used: false }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let count = if self.used { &self.leases.used } else { &self.leases.lost };
        count.fetch_add(1, Ordering::Relaxed);
        self.leases.held.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The request of a lease, as it comes to the gateway.
pub(crate) struct Asked {
    /// The device's masked input.
    pub input: Vec<u8>,
    /// The request is under way until it is answered, whether or not its device waits.
    pub under_way: [UnderWay; 2],
}

/// How the request comes to this server.
pub(crate) enum Coming {
    /// To the gateway, from the device; it does not if the other end is dropped.
    Asked(oneshot::Receiver<Asked>),
    /// To the others, with the gateway's publication. Says whether it may be taken up still.
    Published(Box<dyn FnOnce() -> bool + Send>),
}

/// How a lease ended.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    /// No request came.
    Lost,
    /// The request was answered; the masked logits, at the gateway.
    Used(Option<Vec<u32>>),
}

impl Service {
    /// Begins an inference ahead of its request, whose number must have been taken, and does it when this comes. As
    /// [`Service::infer`]; `confirmed` is told when all servers have confirmed that they spent the bundle.
    pub async fn lease(
        &self,
        (job, limit): (u64, Duration),
        (bundle, usage, pads): (BundleId, Use, Pads),
        confirmed: impl FnOnce() + Send + 'static,
        coming: Coming,
    ) -> Result<Ended, Broken> {
        // Not an inference's: most of it is a wait.
        let span = self.span("lease", job, Some(&bundle));
        let lease = async {
            let job = self.node.jobs.start(job, &self.info.id, limit, Phase::Inference)?;
            let (store, planned, leases) = (self.store.clone(), self.planned.clone(), self.leases.clone());
            let count_on = self.count_on();
            let work = move |[channel]: &mut [QuicChannel; 1]| {
                let spent = store.spend(&bundle, &usage, &pads.session)?;
                let mut held = Held::new(&leases);
                let ready = spent.confirm(&planned, channel)?;
                count_on();
                confirmed();
                // Whether the request came, once that is known.
                let (mut came, mut under_way) = (None, None);
                let answer = match coming {
                    Coming::Asked(asked) => {
                        let mut asked = Some(asked);
                        let mut input = || -> Result<Vec<u8>, seco_protocol::Error> {
                            let asked = asked.take().and_then(|asked| asked.blocking_recv().ok());
                            came = Some(asked.is_some());
                            let Asked { input, under_way: asked } = asked.ok_or(NONE)?;
                            under_way = Some(asked);
                            Ok(input)
                        };
                        ready.infer(&planned, channel, &pads.key, Request::Input(&mut input))
                    }
                    Coming::Published(takes_up) => {
                        let mut takes_up = Some(takes_up);
                        let mut told = || {
                            let taken = takes_up.take().is_some_and(|takes_up| takes_up());
                            came = Some(taken);
                            if taken { Ok(()) } else { Err(NONE) }
                        };
                        ready.infer(&planned, channel, &pads.key, Request::Told(&mut told))
                    }
                };
                drop(under_way);
                match answer {
                    Ok(answer) => {
                        held.used = true;
                        Ok(Ended::Used(answer))
                    }
                    Err(error) if is_lost(came, &error) => {
                        tracing::debug!(%error, "a lease is lost");
                        Ok(Ended::Lost)
                    }
                    Err(error) => Err(error),
                }
            };
            job.run(&self.node.mesh, &self.node.metrics, false, work).await
        };
        within(span, lease).await
    }
}

/// Whether an inference that was begun ahead failed because no request came: the gateway gave it up, or is gone. All else is
/// a failure, of whom the error names: the others publish without waiting for the request.
fn is_lost(came: Option<bool>, error: &seco_protocol::Error) -> bool {
    let gone = || matches!(Failure::from(error), Failure::Unavailable(GATEWAY) | Failure::TimedOut(GATEWAY));
    came.map_or_else(gone, |came| !came)
}

/// The gateway's number.
const GATEWAY: usize = 0;
const NONE: seco_protocol::Error = seco_protocol::Error::Misuse("no request came");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_are_held_than_each_limit_says() {
        let all = Arc::new(Semaphore::new(3));
        let (one, other) = (Leases::new(2, &all), Leases::new(2, &all));
        let first = one.place(1).unwrap();
        assert!(one.place(1).is_none(), "another server allows one");
        let _second = one.place(2).unwrap();
        assert!(one.place(9).is_none(), "this server allows two");
        let _third = other.place(2).unwrap();
        assert!(other.place(2).is_none(), "three of all models");
        drop(first);
        assert!(other.place(2).is_some() && one.place(2).is_some());
        assert!(Leases::new(0, &all).place(9).is_none());
    }

    /// What another than the gateway does wrong is told, though no request came yet.
    #[test]
    fn a_lease_is_lost_where_no_request_came() {
        use seco_protocol::{ChannelError, Error};
        let closed = |peer| Error::Channel(ChannelError::Closed { peer });
        let late = |peer| Error::Channel(ChannelError::TimedOut { peer });
        let [gone, silent] = [closed(GATEWAY), late(GATEWAY)];
        assert!(is_lost(None, &gone) && is_lost(None, &silent) && is_lost(Some(false), &NONE));
        let large = Error::Channel(ChannelError::TooLarge { peer: GATEWAY, got: 2, max: 1 });
        for error in [closed(2), late(2), large, NONE] {
            assert!(!is_lost(None, &error), "{error}");
        }
        assert!(!is_lost(Some(true), &gone), "its request came");
    }

    #[test]
    fn what_is_not_used_is_lost() {
        let leases = Leases::new(2, &Arc::new(Semaphore::new(MOST)));
        let (mut one, two) = (Held::new(&leases), Held::new(&leases));
        assert_eq!(leases.counts(), Counts { held: 2, used: 0, lost: 0 });
        one.used = true;
        drop((one, two));
        assert_eq!(leases.counts(), Counts { held: 0, used: 1, lost: 1 });
    }
}
