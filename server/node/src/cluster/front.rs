//! What the front door for devices asks the cluster besides its work.

use std::sync::Arc;
use std::time::{Duration, Instant};

use seco_core::{IncarnationKey, ModelInfo, SessionId};

use super::coordinator::{Cluster, Links};
use crate::access::sessions::Connected;
use crate::failure::Failure;

impl Cluster {
    /// What devices know of the model.
    pub fn info(&self) -> &ModelInfo {
        &self.node.info
    }

    /// Number of servers.
    pub fn servers(&self) -> usize {
        self.node.mesh.servers()
    }

    /// The links of now.
    pub fn links(&self) -> Links {
        self.node.mesh.generations()
    }

    /// A server that is not connected.
    pub fn missing(&self) -> Option<usize> {
        self.node.mesh.missing()
    }

    /// How long a request may wait for its turn.
    pub fn patience(&self) -> Duration {
        self.node.limits.infer()
    }

    /// Uses a request's number; gives this server's key for its pads.
    ///
    /// # Errors
    /// [`Failure::UnknownSession`] or [`Failure::CounterUsed`].
    pub fn number(&self, connected: &Connected, counter: u64) -> Result<Arc<IncarnationKey>, Failure> {
        self.node.take(connected, counter)
    }

    /// Forgets a session here, as another server has: its device opens it anew.
    pub fn forget(&self, session: &SessionId) {
        self.node.sessions().remove(session);
    }

    /// Says that a request was answered whose first byte was awaited at `start`.
    pub fn answered(&self, start: Instant) {
        self.node.report_inference(start, self.ready());
    }
}
