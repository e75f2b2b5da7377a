//! Fills a model's pool: bundles are made ahead, several at the same time, so that links and processors are not idle while
//! one of them waits.
//!
//! How many: what all servers make at the same time ([`Service::at_once`](crate::service::Service)), each of which says
//! so and holds the gateway to it. Every one takes its share of a turn ([`Turns`](crate::service::turns)), so with several
//! models it is no more. The first of a set-up is made alone, and a second one is not begun beside another while requests
//! are answered, unless others wait for bundles or soon will.
//!
//! Bundles under way are independent of each other: each has a number of its own, hence seeds of oblivious transfer and
//! keys, and jobs, streams and randomness of its own on every server (section 8 of PROTOCOL.md). One that fails ends the
//! set-up, and those beside it are finished first, unless that takes much longer than usual.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use seco_protocol::BundleId;
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::blame::Blame;
use super::commands::{Command, Done};
use super::coordinator::Coordinator;
use super::stock::Ready;
use crate::failure::Failure;
use crate::keys;
use crate::service::Epoch;
use crate::service::pool::{Begun, Pool};
use crate::service::turns::{self, Making, Need};

/// A server that did not say how many bundles it makes is asked again after so long.
const AGAIN: Duration = Duration::from_secs(60);
/// After a failure those under way have, beside twice the usual time, this long to end.
const SLACK: Duration = Duration::from_secs(5);

/// How many bundles all servers make at the same time.
struct Most {
    number: usize,
    /// When to ask again, for one does not say.
    again: Option<Instant>,
}

/// Bundles that are being made.
#[derive(Default)]
struct UnderWay {
    /// Their numbers.
    numbers: BTreeSet<u64>,
    /// The job of each.
    jobs: BTreeMap<u64, u64>,
    /// What makes them.
    tasks: JoinSet<(u64, Result<(), Blame>)>,
}

impl UnderWay {
    /// Begins one, by a job.
    fn begin(
        &mut self,
        (number, job): (u64, u64),
        made: impl Future<Output = Result<(), Blame>> + Send + 'static,
    ) {
        self.numbers.insert(number);
        self.jobs.insert(number, job);
        self.tasks.spawn(async move { (number, made.await) });
    }

    /// Waits until one ends; for ever if there is none. `None` is one that was broken off.
    async fn ended(&mut self) -> Option<Result<(), Blame>> {
        match self.tasks.join_next().await {
            Some(Ok((number, made))) => {
                self.numbers.remove(&number);
                self.jobs.remove(&number);
                Some(made)
            }
            Some(Err(_)) => None,
            None => std::future::pending().await,
        }
    }
}

impl Coordinator {
    /// How much the pool needs another bundle.
    fn need(pool: &Pool<Ready>) -> Need {
        Need { priority: pool.settings().priority, empty: pool.empty() }
    }

    /// Waits for this model's turn to make something ahead, which takes so much of all there is.
    pub(super) async fn turn(self: &Arc<Self>, share: usize) -> Making {
        let cluster = Arc::downgrade(self);
        let none = Need { priority: 0, empty: 0 };
        let need = move || cluster.upgrade().map_or(none, |cluster| Self::need(&cluster.pool));
        self.node.orders.turns.turn(share, need).await
    }

    /// Makes bundles as the pool wants them, until one fails or a connection is lost, and all that were begun have ended.
    pub(super) async fn fill(
        self: &Arc<Self>,
        epoch: &Arc<Epoch>,
        generations: &[Option<u64>],
    ) -> Result<(), Blame> {
        let mut under_way = UnderWay::default();
        let mut result = self.make(epoch, generations, &mut under_way).await;
        // Whoever hangs in one of them must not keep the cluster from being set up anew.
        let limit = self.node.limits.preprocess();
        let patience = sleep(self.pool.usual().map_or(limit, |usual| 2 * usual).min(limit) + SLACK);
        let (mut patience, mut waits) = (std::pin::pin!(patience), true);
        while !under_way.tasks.is_empty() {
            tokio::select! {
                ended = under_way.ended() => result = telling(result, self.outcome(ended)),
                () = &mut patience, if waits => {
                    self.node.jobs.cancel_making(&self.service.info.id);
                    // Of some this server may have done its part.
                    for job in under_way.jobs.values() {
                        let _ = self.tell(&Command::Cancel { job: *job }).await;
                    }
                    waits = false;
                }
            }
        }
        result
    }

    /// Asks how many bundles all servers make at the same time; says it where it is news.
    async fn most(&self, before: Option<Most>) -> Most {
        let own = self.service.at_once;
        if own == 1 {
            return Most { number: own, again: None };
        }
        let number = |answer: &Done| match answer {
            Done::AtOnce(number) => usize::try_from(*number).unwrap_or(own).max(1),
            _ => 1,
        };
        let answers = self.ask(&Command::AtOnce).await;
        let model = self.service.model();
        let silent = before.is_some();
        match answers {
            Ok(answers) => {
                let most = answers.iter().map(number).fold(own, usize::min);
                if most < own {
                    let told = "bundles at the same time: another server makes fewer than this one";
                    tracing::info!(model, most, own, "{told}");
                }
                Most { number: most, again: None }
            }
            // A server of before this question does not answer it, and makes one.
            Err(Blame { server, .. }) => {
                if !silent {
                    let told = "bundles are made one at a time: a server does not say how many it makes, for it is of \
                                an older release or was not reached; it is asked again";
                    tracing::info!(model, server, own, "{told}");
                }
                Most { number: 1, again: Some(Instant::now() + AGAIN) }
            }
        }
    }

    async fn make(
        self: &Arc<Self>,
        epoch: &Arc<Epoch>,
        generations: &[Option<u64>],
        under_way: &mut UnderWay,
    ) -> Result<(), Blame> {
        let mut changes = self.node.mesh.changes();
        let mut next = epoch.party.next_bundle();
        let mut all = self.most(None).await;
        while self.links() == generations {
            if all.again.is_some_and(|again| again <= Instant::now()) {
                all = self.most(Some(all)).await;
            }
            let most = all.number;
            // From before anybody looks whether requests are answered.
            let freed = self.node.orders.places.freed();
            let begins = self.begins(epoch, next, most, &under_way.numbers);
            tokio::select! {
                turn = self.turn(turns::share(most)), if begins => {
                    // Other models may have had theirs meanwhile.
                    if self.begins(epoch, next, most, &under_way.numbers) {
                        let (begun, cluster, job) = (self.pool.begin(), self.clone(), self.job());
                        under_way.begin((next, job), cluster.one(epoch.clone(), (next, job), begun, turn));
                        next += 1;
                    }
                }
                ended = under_way.ended() => self.outcome(ended)?,
                // Who waits for a turn keeps its place.
                () = self.stock.taken.notified(), if !begins => {}
                () = freed, if !begins => {}
                () = self.doubts.notified() => {
                    let _alone = self.making.write().await;
                    self.take_stock().await?;
                }
                _ = changes.changed() => {}
            }
        }
        Ok(())
    }

    /// Whether bundle number `next` is begun beside those under way.
    fn begins(&self, epoch: &Epoch, next: u64, most: usize, under_way: &BTreeSet<u64>) -> bool {
        let places = &self.node.orders.places;
        // Requests that are answered go first; but where others wait for bundles, or would soon, these are what they need.
        let yields = places.free() < places.limit() && !self.pool.lacks();
        // The first of a set-up is made alone: somebody may wait for it, and it brings weights to the form that all use.
        let yields = yields || under_way.contains(&0);
        let beside = under_way.len();
        !self.service.drain.has_begun()
            && self.pool.wants()
            && self.stock.held().len() + beside < self.room
            && (beside == 0
                || beside < most
                    && !yields
                    && epoch.party.may_begin(next, under_way)
                    && self.service.store.has_room())
    }

    /// Makes bundle number `index` of the set-up, by a job.
    async fn one(
        self: Arc<Self>,
        epoch: Arc<Epoch>,
        (index, job): (u64, u64),
        begun: Begun<Ready>,
        turn: Making,
    ) -> Result<(), Blame> {
        let making = self.making.read().await;
        // Whoever removes the model has waited for those that are begun, or cancelled them, and for no others.
        if self.service.drain.has_begun() {
            return Ok(());
        }
        let start = Instant::now();
        let mut id = [0; 16];
        keys::random(&mut id).map_err(|_| self.own(Failure::Internal.into()))?;
        let bundle = BundleId(id);
        let command = Command::Preprocess { job, epoch: epoch.id, bundle, index };
        let own = self.service.preprocess(job, epoch, (bundle, index));
        self.order(job, command, self.node.limits.preprocess(), true, own).await?;
        // Counted as ready before it no longer is as one to come.
        self.offer(bundle);
        begun.made();
        drop((making, turn));
        self.service.report_bundle(start, self.ready());
        Ok(())
    }

    fn outcome(&self, ended: Option<Result<(), Blame>>) -> Result<(), Blame> {
        ended.unwrap_or_else(|| Err(self.own(Failure::Internal.into())))
    }
}

/// The first failure; but one that came too late for its set-up tells less than that which ended the set-up.
fn telling(first: Result<(), Blame>, next: Result<(), Blame>) -> Result<(), Blame> {
    match first {
        Err(Blame { failure: Failure::OtherEpoch, .. }) if next.is_err() => next,
        _ => first.and(next),
    }
}
