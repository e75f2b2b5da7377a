//! The gateway's view of the cluster for one model: it orders set-ups, bundles and inferences, and keeps the pool
//! filled. Models take turns in what is made ahead, whichever needs it most.
//!
//! A set-up is an epoch. Its bundles are numbered, since every server must take the same seeds of the long-lived OT
//! extension for one, and several are made at the same time (`filling`); after a failure, or when the connection with a
//! remote was lost (it may have restarted), there is a new epoch. Bundles that are ready depend on none: whenever all
//! servers are connected and have the model, the gateway asks which ones they have, keeps those that all have, and serves
//! from them. Inferences run beside that and beside each other; a lost link costs those under way and nothing else.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use seco_core::pad::TAG_LEN;
use seco_protocol::{BundleId, Use};
use tokio::sync::{Notify, RwLock, mpsc};
use tokio::task::AbortHandle;
use tokio::time::{sleep, timeout};

use super::blame::{Blame, lasting};
use super::front;
use super::leasing::Leasing;
use super::stock::{Progress, Ready, Released, Stock};
use crate::Error;
use crate::access::sessions::{Connected, Pads};
use crate::access::source::Who;
use crate::cluster::commands::{Command, Done, OpenSession, ResumeSession};
use crate::config;
use crate::failure::Failure;
use crate::keys;
use crate::node::Node;
use crate::operation::status;
use crate::service::pool::{Busy, Pool, Take, Turn};
use crate::service::{Epoch, Service, turns};

/// Pause after a set-up that failed.
const PAUSE: Duration = Duration::from_secs(1);
/// The same where a server's disk was full.
const DISK_PAUSE: Duration = Duration::from_secs(10);
/// The same where the servers did not get as far.
const BRIEF: Duration = Duration::from_millis(100);

/// A model that is removed waits so long for what is being made before that is cancelled.
const LEAVING: Duration = Duration::from_secs(5);

/// Links with all servers that have the model, by generation.
pub(crate) type Links = Vec<Option<u64>>;

/// The cluster and one model, seen from the gateway.
pub(crate) struct Coordinator {
    pub(super) node: Arc<Node>,
    pub(crate) service: Arc<Service>,
    pub(super) pool: Pool<Ready>,
    pub(super) stock: Arc<Stock>,
    pub(super) leasing: Leasing,
    /// Most bundles held: a full pool, those that are leased, and one for each inference that may start.
    pub(super) room: usize,
    /// Shared by bundles that are being made: some servers have one then, and some not yet. Whoever takes stock of them, or
    /// makes keys, has it alone.
    pub(super) making: RwLock<()>,
    /// Whether bundles can be made: the cluster is set up, and the last one did not fail.
    makes: AtomicBool,
    /// Whether the cluster was ever set up since the start.
    was_set_up: AtomicBool,
    /// No bundles are made, for a disk is full.
    paused: AtomicBool,
    /// Told when servers turn out to have other bundles than the gateway believes.
    pub(super) doubts: Notify,
    /// Incarnations of which the remotes have to be told that they have ended.
    pub(super) ended: mpsc::UnboundedSender<Connected>,
}

impl Coordinator {
    /// Nothing is set up yet. Call it inside the runtime.
    pub fn new(service: Arc<Service>) -> Arc<Self> {
        let (node, pool) = (service.node.clone(), service.pool);
        let (events, mut released) = mpsc::unbounded_channel();
        let (ended, gone) = mpsc::unbounded_channel();
        let cluster = Arc::new(Self {
            pool: Pool::new(pool, node.limits.queue, &node.orders.places),
            stock: Stock::new(events),
            leasing: Leasing::default(),
            room: pool.size + pool.leases + node.limits.parallel,
            making: RwLock::default(),
            makes: AtomicBool::new(false),
            was_set_up: AtomicBool::new(false),
            paused: AtomicBool::new(false),
            doubts: Notify::new(),
            ended,
            service,
            node,
        });
        tokio::spawn(front::tell_ends(Arc::downgrade(&cluster), gone));
        let weak = Arc::downgrade(&cluster);
        tokio::spawn(async move {
            while let Some(event) = released.recv().await {
                let Some(cluster) = weak.upgrade() else { return };
                match event {
                    Released::Unused(bundle) => {
                        cluster.stock.release(&bundle);
                        cluster.offer(bundle);
                    }
                    Released::Failed(bundle) => {
                        // A remote that does not answer must not keep others waiting.
                        tokio::spawn(async move {
                            cluster.service.store.discard(&bundle);
                            // One that does not hear of it is told when it is back.
                            let _ = cluster.tell(&Command::Discard { bundle }).await;
                            cluster.stock.release(&bundle);
                        });
                    }
                }
            }
        });
        cluster
    }

    /// Puts a bundle that all servers have into the pool, unless it is there or under way already.
    pub(super) fn offer(&self, bundle: BundleId) {
        if !self.service.store.has(&bundle) {
            return;
        }
        if let Some(ready) = self.stock.hold(bundle) {
            self.pool.put(ready);
        }
    }

    /// A server that is not connected, does not have the model, or does not speak what the others do.
    pub fn lacking(&self) -> Option<usize> {
        let mesh = &self.node.mesh;
        mesh.lacking(&self.service.info.id).or_else(|| mesh.apart().map(|(oldest, _)| oldest))
    }

    /// The links of now.
    pub fn links(&self) -> Links {
        self.node.mesh.links(&self.service.info.id)
    }

    /// Waits until all servers are connected and have the model. Says who does not have it.
    async fn complete(&self) {
        let (mesh, mut changes) = (&self.node.mesh, self.node.mesh.changes());
        let (mut told, mut apart) = (Vec::new(), None);
        while self.lacking().is_some() {
            let lacking = self.service.lacking();
            if lacking != told {
                for &server in &lacking {
                    let (name, model) = (mesh.name(server), self.service.title());
                    tracing::warn!("model {model} is not served: server {server} ({name}) does not have it");
                }
                told = lacking;
            }
            let now = mesh.apart().map(|(_, why)| why);
            if let Some(why) = now.as_ref().filter(|_| now != apart) {
                tracing::warn!("model {} is not served: {why}", self.service.title());
            }
            apart = now;
            if changes.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    /// Keeps the pool filled, for ever. Fails only when the very first set-up shows that this model cannot be served.
    pub async fn supervise(self: &Arc<Self>) -> Result<(), Error> {
        let mut brief = BRIEF;
        loop {
            self.complete().await;
            let generations = self.links();
            if let Err(blame) = self.take_stock().await {
                self.report("taking stock", &blame);
                self.turn_away_if_incomplete();
                sleep(brief).await;
                brief = (brief * 2).min(PAUSE);
                continue;
            }
            brief = BRIEF;
            let mut pause = PAUSE;
            match self.set_up().await {
                Ok(epoch) => {
                    self.was_set_up.store(true, Ordering::Relaxed);
                    self.makes.store(true, Ordering::Relaxed);
                    let filled = self.fill(&epoch, &generations).await;
                    self.makes.store(false, Ordering::Relaxed);
                    match filled {
                        Ok(()) => pause = Duration::ZERO,
                        Err(blame) => {
                            self.report("making a bundle", &blame);
                            if blame.failure == Failure::Disk {
                                self.wait_for_room(&generations).await;
                                // Not all that keeps a file from being written shows before it is tried.
                                pause = DISK_PAUSE;
                            }
                        }
                    }
                }
                Err(blame) => {
                    if let (false, Some(cause)) = (self.was_set_up(), lasting(&blame)) {
                        return Err(Error::SetUp(cause.to_string()));
                    }
                    self.report("the set-up", &blame);
                }
            }
            self.turn_away_if_incomplete();
            // A link that is back ends the pause: there are bundles to serve from.
            let mut changes = self.node.mesh.changes();
            let _ = timeout(pause, async {
                while self.links() == generations && changes.changed().await.is_ok() {}
            })
            .await;
        }
    }

    /// Waits until every server has room for another bundle, or a link is lost. Bundles that are ready are used meanwhile.
    async fn wait_for_room(&self, generations: &[Option<u64>]) {
        self.paused.store(true, Ordering::Relaxed);
        // Whoever waits for a bundle is told to come again later.
        self.pool.turn_away();
        while self.links() == generations {
            let _ = timeout(DISK_PAUSE, self.stock.taken.notified()).await;
            if self.service.store.has_room() && self.tell(&Command::Room).await.is_ok() {
                tracing::info!("there is room for bundles again");
                break;
            }
            sleep(PAUSE).await;
        }
        self.paused.store(false, Ordering::Relaxed);
    }

    /// Asks all servers for the bundles that they have, and keeps those that all have: what was half-made, lost, or
    /// used on some of them only is destroyed.
    ///
    /// Gives how many were destroyed here.
    pub(super) async fn take_stock(&self) -> Result<usize, Blame> {
        let mut common = self.service.store.list();
        for reply in self.ask(&Command::Inventory).await? {
            let Done::Bundles(theirs) = reply else { return Err(self.own(Failure::Internal.into())) };
            let theirs: HashSet<BundleId> = theirs.into_iter().collect();
            common.retain(|bundle| theirs.contains(bundle));
        }
        let ours: HashSet<BundleId> = common.iter().copied().collect();
        let gone = |ready: &Ready| !ours.contains(&ready.bundle);
        self.pool.remove(gone).iter_mut().for_each(Ready::used);
        // Bundles in use stay as they are: each server decides by its own record.
        let in_use: Vec<BundleId> =
            self.stock.held().iter().filter(|id| !ours.contains(id)).copied().collect();
        let keep: Vec<BundleId> = common.iter().copied().chain(in_use).collect();
        let destroyed = self.service.store.keep(&keep);
        self.tell(&Command::Keep(keep)).await?;
        self.ask_about_leases().await;
        self.pool.remove(gone).iter_mut().for_each(Ready::used);
        common.into_iter().for_each(|bundle| self.offer(bundle));
        if destroyed > 0 {
            tracing::info!(destroyed, "bundles that not all servers have");
        }
        Ok(destroyed)
    }

    /// Takes stock while no bundle is being made; requests go on. Gives how many bundles were destroyed here, or why it
    /// could not.
    pub async fn collect(&self) -> Result<usize, String> {
        let _alone = self.making.write().await;
        self.take_stock().await.map_err(|blame| {
            self.report("taking stock", &blame);
            format!("server {} ({}): {}", blame.server, self.node.mesh.name(blame.server), blame.failure)
        })
    }

    /// Stops whoever supervises, and what is made ahead: the model is removed.
    pub async fn leave(&self, supervising: Option<&AbortHandle>) {
        let _nothing_made = match timeout(LEAVING, self.making.write()).await {
            Ok(making) => making,
            Err(_) => {
                self.node.jobs.cancel_making(&self.service.info.id);
                self.making.write().await
            }
        };
        supervising.inspect(|task| task.abort());
        self.pool.turn_away();
        self.pool.remove(|_| true).iter_mut().for_each(Ready::used);
    }

    /// Tells the remotes that no bundle of the model is used any more.
    pub async fn renounce(&self) {
        // Whoever does not hear of it finds out when it is asked what it has, or at its next start.
        let _ = self.tell(&Command::Keep(Vec::new())).await;
    }

    /// Whether the cluster was set up since the start.
    pub fn was_set_up(&self) -> bool {
        self.was_set_up.load(Ordering::Relaxed)
    }

    /// The pool as it is now.
    pub fn status(&self) -> status::Pool {
        let pool = &self.pool;
        let config::Pool { size, low, .. } = pool.settings();
        status::Pool {
            ready: pool.ready(),
            target: size,
            low,
            queue: pool.waiting(),
            queue_limit: self.node.limits.queue,
            making: self.makes.load(Ordering::Relaxed),
        }
    }

    /// Nobody knows when a server that is gone comes back: requests must not wait for it.
    fn turn_away_if_incomplete(&self) {
        if self.lacking().is_some() {
            self.pool.turn_away();
        }
    }

    async fn set_up(self: &Arc<Self>) -> Result<Arc<Epoch>, Blame> {
        let _turn = self.turn(turns::ALL).await;
        let _alone = self.making.write().await;
        let mut epoch = [0; 8];
        keys::random(&mut epoch).map_err(|_| self.own(Failure::Internal.into()))?;
        let (job, epoch) = (self.job(), u64::from_le_bytes(epoch));
        // Of the links of now: another set-up follows when one of them is lost. One may have changed since stock was taken.
        let version = self.node.mesh.version().ok_or_else(|| {
            self.own(self.lacking().map_or(Failure::OtherVersion, Failure::Unavailable).into())
        })?;
        let command = Command::SetUp { job, epoch, version };
        self.order(job, command, self.node.limits.setup(), true, self.service.set_up(job, epoch, version))
            .await
    }

    /// Remembers a session here and on all remotes. `sealed[i]` is for server `i`.
    pub async fn open(&self, session: &OpenSession, sealed: Vec<Vec<u8>>) -> Result<(), Blame> {
        let mut sealed = sealed.into_iter();
        let own = OpenSession { sealed: sealed.next().unwrap_or_default(), ..session.clone() };
        // A wrong key is found here, whichever server's it is.
        self.service.open(&own).map_err(|f| self.own(f.into()))?;
        let _permit = self.node.orders.telling.acquire().await;
        self.tell_each(sealed.map(|sealed| Command::Open(OpenSession { sealed, ..session.clone() }))).await
    }

    /// Takes up a session on another connection, here and on all remotes. `tags[i]` is for server `i`.
    pub async fn resume(&self, session: &ResumeSession, tags: &[[u8; TAG_LEN]]) -> Result<(), Blame> {
        let each = |tag: &[u8; TAG_LEN]| ResumeSession { tag: *tag, ..session.clone() };
        let (own, others) = tags.split_first().ok_or_else(|| self.own(Failure::Internal.into()))?;
        self.service.resume(&each(own)).map_err(|f| self.own(f.into()))?;
        let _permit = self.node.orders.telling.acquire().await;
        self.tell_each(others.iter().map(|tag| Command::Resume(each(tag)))).await
    }

    /// Whether all remotes know the session on a device's connection. `seen` are the links over which they were told;
    /// as long as these stand there is nothing to ask.
    pub async fn still_knows(&self, connected: Connected, seen: &[Option<u64>]) -> Result<Links, Blame> {
        let links = self.links();
        if links != seen {
            let _permit = self.node.orders.telling.acquire().await;
            self.tell(&Command::Knows(connected)).await?;
        }
        Ok(links)
    }

    /// Takes a ready bundle or a place in the queue for one. `Err` names a server that is missing.
    pub fn take(&self, who: Who) -> Result<Take<Ready>, usize> {
        if let Some(lacking) = self.lacking() {
            return Err(lacking);
        }
        // None is made for those who would have to wait.
        if self.paused.load(Ordering::Relaxed) && self.pool.waiting() >= self.pool.ready() {
            return Ok(Take::Full(Busy { retry_after: DISK_PAUSE }));
        }
        let take = self.pool.take(who);
        // Somebody waits, or there is one less ready.
        self.stock.taken.notify_one();
        Ok(take)
    }

    /// When a device may ask again that has too many requests open, or for whom there is no bundle.
    pub fn busy(&self) -> Busy {
        match self.paused.load(Ordering::Relaxed) {
            true => Busy { retry_after: DISK_PAUSE },
            false => self.pool.busy(),
        }
    }

    /// Uses a bundle for a request; gives the masked logits.
    pub async fn infer(
        &self,
        mut turn: Turn<Ready>,
        usage: Use,
        pads: Pads,
        masked_input: Vec<u8>,
    ) -> Result<Vec<u32>, Blame> {
        let limit = self.node.limits.infer();
        let (job, bundle) = (self.job(), turn.item.bundle);
        turn.item.state = Progress::Started;
        let command = Command::Infer { job, bundle, usage };
        let own = self.service.infer(job, bundle, usage, pads, Some(masked_input));
        // The answer depends on every remote's part, so nobody needs to be waited for after it.
        let result = self.order(job, command, limit, false, own).await;
        if result.is_ok() {
            turn.item.used();
            turn.answered();
        }
        self.doubt(&result);
        result?.ok_or_else(|| self.own(Failure::Internal.into()))
    }

    /// Where a server does not have what the gateway believed, or does not allow it, stock is taken.
    pub(super) fn doubt<T>(&self, result: &Result<T, Blame>) {
        if let Err(blame) = result
            && matches!(blame.failure, Failure::UnknownBundle | Failure::NoLease)
        {
            self.doubts.notify_one();
        }
    }

    /// Bundles that are ready.
    pub fn ready(&self) -> usize {
        self.pool.ready()
    }
}
