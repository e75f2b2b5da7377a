//! Jobs: set-ups, bundles and inferences that all servers do together. The gateway gives each a
//! number; every server runs its part on a thread that may block, under a time limit, and can be
//! told to give it up.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use seco_core::ModelId;
use tokio::sync::watch;

use crate::failure::{Broken, Failure};
use crate::mesh::{Clock, Mesh, QuicChannel};
use crate::operation::metrics::{Metrics, Phase};
use crate::priority;

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
    phase: Phase,
    model: ModelId,
}

/// A running job; dropped, it is over.
pub struct Job {
    id: u64,
    phase: Phase,
    clock: Clock,
    jobs: Arc<Jobs>,
}

impl Jobs {
    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts a job for a model that may take as long as `limit`. A set-up or a bundle is cancelled by the model's next
    /// set-up.
    pub fn start(
        self: &Arc<Self>,
        id: u64,
        model: &ModelId,
        limit: Duration,
        phase: Phase,
    ) -> Result<Job, Failure> {
        let mut table = self.table();
        let sender = watch::Sender::new(table.cancelled.contains(&id));
        let clock = Clock::of_job(limit, &sender);
        if table.running.contains_key(&id) {
            return Err(Failure::Internal);
        }
        table.running.insert(id, Running { cancel: sender, phase, model: *model });
        Ok(Job { id, phase, clock, jobs: self.clone() })
    }

    /// Jobs that are running.
    pub fn running(&self) -> usize {
        self.table().running.len()
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

    /// Cancels what belongs to a model's set-up: the cluster is set up anew for it. Inferences go on.
    pub fn cancel_making(&self, model: &ModelId) {
        let making = |job: &&Running| job.phase != Phase::Inference && job.model == *model;
        for job in self.table().running.values().filter(making) {
            job.cancel.send_replace(true);
        }
    }
}

impl Job {
    /// Opens `LANES` lanes, runs `work` on a thread that may block (a bundle's gives way to others), and
    /// ends the lanes: properly, or, when it failed, so that the other servers notice at once. With
    /// `drain`, it is done when the other servers have all that was sent.
    pub async fn run<const LANES: usize, T: Send + 'static>(
        &self,
        mesh: &Mesh,
        metrics: &Arc<Metrics>,
        drain: bool,
        work: impl FnOnce(&mut [QuicChannel; LANES]) -> Result<T, seco_protocol::Error> + Send + 'static,
    ) -> Result<T, Broken> {
        // Inferences go first: a device waits for them.
        let priority = i32::from(self.phase == Phase::Inference);
        let mut lanes = Vec::with_capacity(LANES);
        for lane in 0..LANES {
            let lane = u8::try_from(lane).map_err(|_| Failure::Internal)?;
            lanes.push(mesh.channel(self.id, lane, priority, &self.clock).await?);
        }
        let mut lanes: [QuicChannel; LANES] = lanes.try_into().map_err(|_| Failure::Internal)?;
        let (span, metrics, phase) = (tracing::Span::current(), metrics.clone(), self.phase);
        let work = move || {
            let result = span.in_scope(|| work(&mut lanes));
            lanes.iter().for_each(|lane| metrics.exchanged(phase, lane.traffic()));
            Ok((result?, lanes.map(QuicChannel::finish)))
        };
        let done = match phase {
            Phase::Bundle => priority::behind(work).await,
            Phase::SetUp | Phase::Inference => tokio::task::spawn_blocking(work).await.ok(),
        };
        let (value, writers) = done.ok_or(Failure::Internal)?.map_err(|error: seco_protocol::Error| {
            let failure = Failure::from(&error);
            tracing::warn!(peer = failure.server(), %error, "job failed");
            Broken { failure, cause: Some(error) }
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
