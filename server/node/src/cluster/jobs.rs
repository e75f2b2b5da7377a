//! Jobs: set-ups, bundles and inferences that all servers do together. The gateway gives each a
//! number; every server runs its part on a thread that may block, under a time limit, and can be
//! told to give it up.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use seco_protocol::{ChannelError, LedgerError};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::mesh::{Mesh, QuicChannel};

/// Numbers of cancelled jobs that are remembered. The order to cancel can overtake the order to
/// start, for each has its own stream.
const MAX_CANCELLED: usize = 64;

/// Until when a job may wait, and whether it was cancelled.
#[derive(Clone)]
pub struct Clock {
    deadline: Instant,
    cancelled: watch::Receiver<bool>,
}

impl Clock {
    /// A time limit from now, for what nobody cancels.
    pub fn new(limit: Duration) -> Self {
        // A sender that is gone would mean "cancelled"; this one is never asked.
        static NEVER: std::sync::LazyLock<watch::Sender<bool>> =
            std::sync::LazyLock::new(|| watch::Sender::new(false));
        Self { deadline: Instant::now() + limit, cancelled: NEVER.subscribe() }
    }

    /// Waits for `peer`, but not longer than the job may.
    pub(crate) async fn limit<T>(
        &self,
        peer: usize,
        wait: impl Future<Output = T>,
    ) -> Result<T, ChannelError> {
        let mut cancelled = self.cancelled.clone();
        tokio::select! {
            // What is there already counts even when time is up.
            biased;
            value = wait => Ok(value),
            _ = cancelled.wait_for(|&c| c) => Err(ChannelError::Closed { peer }),
            () = tokio::time::sleep_until(self.deadline) => Err(ChannelError::TimedOut { peer }),
        }
    }
}

/// The jobs of one server that are running.
#[derive(Default)]
pub struct Jobs {
    table: Mutex<Table>,
}

#[derive(Default)]
struct Table {
    running: HashMap<u64, watch::Sender<bool>>,
    cancelled: VecDeque<u64>,
}

/// A running job; dropped, it is over.
pub struct Job {
    id: u64,
    clock: Clock,
    jobs: Arc<Jobs>,
}

impl Jobs {
    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts a job that may take as long as `limit`.
    pub fn start(self: &Arc<Self>, id: u64, limit: Duration) -> Result<Job, Failure> {
        let mut table = self.table();
        let sender = watch::Sender::new(table.cancelled.contains(&id));
        let clock = Clock { deadline: Instant::now() + limit, cancelled: sender.subscribe() };
        if table.running.contains_key(&id) {
            return Err(Failure::Internal);
        }
        table.running.insert(id, sender);
        Ok(Job { id, clock, jobs: self.clone() })
    }

    /// Cancels a job: what waits in it fails now.
    pub fn cancel(&self, id: u64) {
        let mut table = self.table();
        if let Some(job) = table.running.get(&id) {
            job.send_replace(true);
        } else if !table.cancelled.contains(&id) {
            table.cancelled.truncate(MAX_CANCELLED - 1);
            table.cancelled.push_front(id);
        }
    }

    /// Cancels all jobs: the cluster is set up anew.
    pub fn cancel_all(&self) {
        for job in self.table().running.values() {
            job.send_replace(true);
        }
    }
}

impl Job {
    /// Opens `LANES` lanes, runs `work` on a thread that may block, and ends the lanes: properly,
    /// or, when it failed, so that the other servers notice at once. With `drain`, it is done when
    /// the other servers have all that was sent.
    pub async fn run<const LANES: usize, T: Send + 'static>(
        &self,
        mesh: &Mesh,
        priority: i32,
        drain: bool,
        work: impl FnOnce(&mut [QuicChannel; LANES]) -> Result<T, seco_protocol::Error> + Send + 'static,
    ) -> Result<T, Broken> {
        let mut lanes = Vec::with_capacity(LANES);
        for lane in 0..LANES {
            let lane = u8::try_from(lane).map_err(|_| Failure::Internal)?;
            lanes.push(mesh.channel(self.id, lane, priority, &self.clock).await?);
        }
        let mut lanes: [QuicChannel; LANES] = lanes.try_into().map_err(|_| Failure::Internal)?;
        let thread = tokio::task::spawn_blocking(move || {
            let value = work(&mut lanes)?;
            Ok((value, lanes.map(QuicChannel::finish)))
        });
        let (value, writers) =
            thread.await.map_err(|_| Failure::Internal)?.map_err(|error: seco_protocol::Error| {
                tracing::warn!(job = self.id, %error, "job failed");
                Broken { failure: Failure::from(&error), cause: Some(error) }
            })?;
        if drain {
            for (peer, writer) in writers.into_iter().flatten() {
                // A writer that failed has a peer that failed, which says so itself.
                let _ = self.clock.limit(peer, writer).await?;
            }
        }
        Ok(value)
    }
}

impl Drop for Job {
    fn drop(&mut self) {
        self.jobs.table().running.remove(&self.id);
    }
}

/// A job that failed on this server: what the gateway is told, and more where more is known.
#[derive(Debug)]
pub struct Broken {
    /// In a word.
    pub failure: Failure,
    /// The protocol's own error.
    pub cause: Option<seco_protocol::Error>,
}

impl From<Failure> for Broken {
    fn from(failure: Failure) -> Self {
        Self { failure, cause: None }
    }
}

impl From<ChannelError> for Broken {
    fn from(error: ChannelError) -> Self {
        Failure::from(&error).into()
    }
}

/// Why a server did not do its part, as it tells the gateway. Servers are named by their number,
/// as seen by the one that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum Failure {
    /// A server is not connected, or ended the job.
    #[error("server {0} is not reachable or gave up")]
    Unavailable(usize),
    /// A server did not answer in time.
    #[error("server {0} did not answer in time")]
    TimedOut(usize),
    /// A server sent something that the protocol does not allow.
    #[error("server {0} sent an invalid message")]
    Misbehaved(usize),
    /// The cluster has been set up anew since, or not at all yet.
    #[error("the cluster was set up anew meanwhile")]
    OtherEpoch,
    /// A bundle the server does not have.
    #[error("it does not have the bundle (any more)")]
    UnknownBundle,
    /// The bundle was used before.
    #[error("the bundle was already used")]
    BundleSpent,
    /// The inference number was used before.
    #[error("the inference number was already used")]
    CounterUsed,
    /// A device sealed a session key to a key that this server does not have.
    #[error("the device has another key of server {0} than that server")]
    OtherKey(usize),
    /// A session the server does not know (any more).
    #[error("the session is not known")]
    UnknownSession,
    /// The session is for another model.
    #[error("the session is for another model")]
    WrongModel,
    /// The sealed session key cannot be opened.
    #[error(
        "the sealed session key does not open: it was altered, or made for another session or connection"
    )]
    SealedKey,
    /// The server keeps as many bundles as its settings allow.
    #[error("has as many bundles as its settings allow: give all servers the same [pool] size")]
    Full,
    /// The ledger cannot be written.
    #[error("the ledger cannot be written: see that server's log")]
    Ledger,
    /// Something else, told in that server's log.
    #[error("something that its own log tells")]
    Internal,
}

impl From<&seco_protocol::Error> for Failure {
    fn from(error: &seco_protocol::Error) -> Self {
        use seco_protocol::Error as E;
        match error {
            E::Channel(e) => e.into(),
            E::Ledger(LedgerError::BundleSpent) => Failure::BundleSpent,
            E::Ledger(LedgerError::CounterUsed) => Failure::CounterUsed,
            E::Ledger(_) => Failure::Ledger,
            E::Peer { peer, .. } => Failure::Misbehaved(*peer),
            _ => Failure::Internal,
        }
    }
}

impl From<&ChannelError> for Failure {
    fn from(error: &ChannelError) -> Self {
        match error {
            ChannelError::Closed { peer } => Failure::Unavailable(*peer),
            ChannelError::TimedOut { peer } => Failure::TimedOut(*peer),
            ChannelError::TooLarge { peer, .. } => Failure::Misbehaved(*peer),
            _ => Failure::Internal,
        }
    }
}
