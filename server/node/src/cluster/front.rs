//! What the front door for devices asks the cluster besides its work.

use std::path::PathBuf;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use seco_core::pad::TAG_LEN;
use seco_core::{ModelId, ModelInfo, SessionId};
use tokio::sync::mpsc;

use super::commands::{Command, ResumeSession};
use super::coordinator::Coordinator;
use crate::access::sessions::{Connected, Pads};
use crate::access::tokens::Tokens;
use crate::failure::Failure;
use crate::node::Node;
use crate::operation::drain::{Drain, UnderWay};
use crate::operation::metrics::Metrics;
use crate::service::models::Models;

/// Ended incarnations that one command names at most.
const ENDED: usize = 1024;
/// The pause where nobody knows how long one should be.
const PAUSE: Duration = Duration::from_secs(1);

/// The cluster with all its models, seen from the gateway.
pub(crate) struct Cluster {
    node: Arc<Node>,
    models: Arc<Models>,
}

impl Cluster {
    pub fn new(node: Arc<Node>, models: Arc<Models>) -> Arc<Self> {
        Arc::new(Self { node, models })
    }

    /// Number of servers.
    pub fn servers(&self) -> usize {
        self.node.mesh.servers()
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

    /// How long a request may wait for its turn.
    pub fn patience(&self) -> Duration {
        self.node.limits.infer()
    }

    /// Longest request, of whichever model.
    pub fn request_limit(&self) -> usize {
        self.models.request_limit()
    }

    /// A model that devices may use.
    pub fn model(&self, id: &ModelId) -> Option<Arc<Coordinator>> {
        self.models.coordinator(id)
    }

    /// When a device may ask again that has too many requests open, whatever they are for.
    pub fn busy(&self) -> Duration {
        let pauses = self.models.coordinators().into_iter().map(|model| model.busy().retry_after);
        pauses.max().unwrap_or(PAUSE)
    }

    /// Takes up a session on another connection, here alone: the one of whichever model whose key the device has, for
    /// ids are no secret. `tags[i]` is for server `i`. Gives the model.
    pub fn resumed(&self, session: &ResumeSession, tags: &[[u8; TAG_LEN]]) -> Option<Arc<Coordinator>> {
        let own = ResumeSession { tag: tags.first().copied()?, ..session.clone() };
        self.models.coordinators().into_iter().find(|model| model.service.resume(&own).is_ok())
    }
}

/// Tells the remotes what has ended, all of it that has since the last time: thousands of connections may end at once,
/// and remotes refuse what comes too fast. One that does not hear of it forgets it in time.
pub(super) async fn tell_ends(cluster: Weak<Coordinator>, mut gone: mpsc::UnboundedReceiver<Connected>) {
    let mut ended = Vec::new();
    while gone.recv_many(&mut ended, ENDED).await > 0 {
        let Some(cluster) = cluster.upgrade() else { return };
        let _ = cluster.tell(&Command::End(std::mem::take(&mut ended))).await;
    }
}

impl Coordinator {
    /// What devices know of the model.
    pub fn info(&self) -> &ModelInfo {
        &self.service.info
    }

    /// Counts a request; nothing once the model is being removed.
    pub fn enter(&self) -> Option<UnderWay> {
        self.service.drain.enter()
    }

    /// Uses a request's number; gives what this server's pads for it come from.
    ///
    /// # Errors
    /// [`Failure::UnknownSession`] or [`Failure::CounterUsed`].
    pub fn number(&self, connected: &Connected, counter: u64) -> Result<Pads, Failure> {
        self.service.take(connected, counter)
    }

    /// Forgets a session here, as another server has: its device opens it anew.
    pub fn forget(&self, session: &SessionId) {
        self.service.sessions().remove(session);
    }

    /// A device's connection has ended: nobody needs to remember it.
    pub fn end(&self, ended: Connected) {
        self.service.sessions().end(&ended);
        // Fails when the gateway stops.
        let _ = self.ended.send(ended);
    }

    /// Says that a request was answered whose first byte was awaited at `start`.
    pub fn answered(&self, start: Instant) {
        self.service.report_inference(start, self.ready());
    }
}
