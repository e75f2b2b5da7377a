//! What the front door for devices asks the cluster besides its work.

use std::path::PathBuf;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use seco_core::{IncarnationKey, ModelInfo, SessionId};

use tokio::sync::mpsc;

use super::commands::Command;
use super::coordinator::{Cluster, Links};
use crate::access::sessions::Connected;
use crate::access::tokens::Tokens;
use crate::failure::Failure;
use crate::operation::drain::Drain;
use crate::operation::metrics::Metrics;

/// Ended incarnations that one command names at most.
const ENDED: usize = 1024;

/// Tells the remotes what has ended, all of it that has since the last time: thousands of connections may end at once,
/// and remotes refuse what comes too fast. One that does not hear of it forgets it in time.
pub(super) async fn tell_ends(cluster: Weak<Cluster>, mut gone: mpsc::UnboundedReceiver<Vec<Connected>>) {
    while let Some(mut ended) = gone.recv().await {
        while ended.len() < ENDED
            && let Ok(more) = gone.try_recv()
        {
            ended.extend(more);
        }
        let Some(cluster) = cluster.upgrade() else { return };
        let _ = cluster.tell(&Command::End(ended)).await;
    }
}

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

    /// What is counted.
    pub fn metrics(&self) -> &Metrics {
        &self.node.metrics
    }

    /// Whether requests are still taken.
    pub fn drain(&self) -> &Drain {
        &self.node.drain
    }

    /// Deployment files for devices whose own is older.
    pub fn deployments(&self) -> Arc<[PathBuf]> {
        self.node.deployments.clone()
    }

    /// Who may use the gateway, if not anybody.
    pub fn tokens(&self) -> Option<&Arc<Tokens>> {
        self.node.tokens.as_ref()
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

    /// A device's connection has ended: nobody needs to remember it.
    pub fn end(&self, ended: Vec<Connected>) {
        {
            let mut sessions = self.node.sessions();
            ended.iter().for_each(|connected| sessions.end(connected));
        }
        // Fails when the gateway stops.
        let _ = self.ended.send(ended);
    }

    /// Says that a request was answered whose first byte was awaited at `start`.
    pub fn answered(&self, start: Instant) {
        self.node.report_inference(start, self.ready());
    }
}
