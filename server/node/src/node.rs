//! One server: what all models that it serves share.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::Semaphore;

use crate::access::opening::OpeningKeys;
use crate::access::tokens::Tokens;
use crate::cluster::jobs::Jobs;
use crate::config::Limits;
use crate::mesh::Mesh;
use crate::operation::drain::Drain;
use crate::operation::events::{Event, Events};
use crate::operation::metrics::Metrics;
use crate::service::places::Places;
use crate::service::turns::{self, Turns};
use crate::store::records::Ledgers;
use crate::{Error, keys};

/// Sessions that are told to the remotes at the same time: these refuse what comes too fast.
const TELLING: usize = 16;

/// One server.
pub(crate) struct Node {
    pub mesh: Mesh,
    pub jobs: Arc<Jobs>,
    pub ledgers: Arc<Ledgers>,
    /// Deployment files for devices whose own is older.
    pub deployments: Arc<[PathBuf]>,
    /// Of devices, where the gateway knows any.
    pub tokens: Option<Arc<Tokens>>,
    pub opening_keys: OpeningKeys,
    /// Where devices are served and over what, on the gateway.
    pub device: Option<(SocketAddr, &'static str)>,
    pub limits: Limits,
    /// SoftSpokenOT's, by server.
    pub ot_parameters: Vec<usize>,
    pub events: Events,
    pub metrics: Arc<Metrics>,
    pub drain: Drain,
    /// Inferences begun ahead, of all models.
    pub leases: Arc<Semaphore>,
    pub orders: Orders,
    pub obeys: Obeys,
}

/// What the models share of the gateway's work.
pub(crate) struct Orders {
    next_job: AtomicU64,
    /// Whose turn it is to make keys or a bundle.
    pub turns: Turns,
    /// Requests at the same time.
    pub places: Arc<Places>,
    /// Sessions that are told at the same time.
    pub telling: Semaphore,
    /// Bundles that are being leased at the same time.
    pub leasing: Arc<Semaphore>,
}

impl Orders {
    pub fn new(limits: &Limits) -> Result<Self, Error> {
        let mut first = [0; 8];
        keys::random(&mut first)?;
        Ok(Self {
            // Random, so that the streams of an earlier run of this gateway are not taken for new.
            next_job: AtomicU64::new(u64::from_le_bytes(first)),
            turns: Turns::default(),
            places: Places::new(limits.parallel),
            telling: Semaphore::new(TELLING),
            leasing: Arc::new(Semaphore::new(limits.parallel)),
        })
    }

    /// A new job's number.
    pub fn job(&self) -> u64 {
        self.next_job.fetch_add(1, Ordering::Relaxed)
    }
}

/// What the models share of a remote's work.
pub(crate) struct Obeys {
    /// Inferences at the same time, with slack: the gateway counts them as ended slightly before this server does.
    pub online: Semaphore,
    /// Bundles at the same time, in [`shares`](crate::service::turns::share) of all there is.
    pub offline: Semaphore,
}

impl Obeys {
    pub fn new(limits: &Limits) -> Self {
        Self { online: Semaphore::new(2 * limits.parallel), offline: Semaphore::new(turns::ALL) }
    }
}

impl Node {
    /// This server's number.
    pub fn me(&self) -> usize {
        self.mesh.me()
    }

    /// Says that a part of the service failed by a server's fault, and why.
    pub fn report_failure(&self, part: &str, culprit: usize, model: &str, what: String) {
        self.metrics.failed(part, culprit);
        tracing::warn!(model, "{what}");
        self.events.emit(&Event::Failed { server: self.me(), what });
    }
}
