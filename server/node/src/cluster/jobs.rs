//! Jobs: set-ups, bundles and inferences that all servers do together. The gateway gives each a
//! number; every server runs its part on a thread that may block, under a time limit, and can be
//! told to give it up.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;

use crate::failure::{Broken, Failure};
use crate::mesh::{Clock, Mesh, QuicChannel};

/// Numbers of cancelled jobs that are remembered. The order to cancel can overtake the order to
/// start, for each has its own stream.
const MAX_CANCELLED: usize = 64;

/// The jobs of one server that are running.
#[derive(Default)]
pub struct Jobs {
    table: Mutex<Table>,
}

#[derive(Default)]
struct Table {
    running: HashMap<u64, Running>,
    cancelled: VecDeque<u64>,
}

struct Running {
    cancel: watch::Sender<bool>,
    /// Whether it belongs to a set-up, and ends with it.
    making: bool,
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
        self.start_as(id, limit, false)
    }

    /// Starts a set-up or a bundle, which the next set-up cancels.
    pub fn start_making(self: &Arc<Self>, id: u64, limit: Duration) -> Result<Job, Failure> {
        self.start_as(id, limit, true)
    }

    fn start_as(self: &Arc<Self>, id: u64, limit: Duration, making: bool) -> Result<Job, Failure> {
        let mut table = self.table();
        let sender = watch::Sender::new(table.cancelled.contains(&id));
        let clock = Clock::of_job(limit, &sender);
        if table.running.contains_key(&id) {
            return Err(Failure::Internal);
        }
        table.running.insert(id, Running { cancel: sender, making });
        Ok(Job { id, clock, jobs: self.clone() })
    }

    /// Cancels a job: what waits in it fails now.
    pub fn cancel(&self, id: u64) {
        let mut table = self.table();
        if let Some(job) = table.running.get(&id) {
            job.cancel.send_replace(true);
        } else if !table.cancelled.contains(&id) {
            table.cancelled.truncate(MAX_CANCELLED - 1);
            table.cancelled.push_front(id);
        }
    }

    /// Cancels what belongs to a set-up: the cluster is set up anew. Inferences go on.
    pub fn cancel_making(&self) {
        for job in self.table().running.values().filter(|job| job.making) {
            job.cancel.send_replace(true);
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
