//! What the gateway tells the remotes, each command on a stream of its own, and their answers.

use std::time::Duration;

use seco_core::pad::TAG_LEN;
use seco_core::{Incarnation, KeyId, ModelId, SessionId};
use seco_protocol::{BundleId, Use};
use serde::{Deserialize, Serialize};
use tokio::time::timeout;

use crate::access::sessions::Connected;
use crate::failure::Failure;
use crate::mesh::{Incoming, Mesh, frame};

/// Largest command or answer: the names of all bundles of a server, of which there are not more than a full pool and
/// those under way.
pub(crate) const MAX_MESSAGE: usize = 1 << 20;
/// A command is small; whoever sends it does so at once.
const READ: Duration = Duration::from_secs(10);

/// A session as one server is told of it.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct OpenSession {
    /// The session's id.
    pub session: SessionId,
    /// The model it is for.
    pub model: ModelId,
    /// The device's connection.
    pub incarnation: Incarnation,
    /// Which sealing key the device has of every server.
    pub keys: Vec<KeyId>,
    /// The session key for this server, sealed to it.
    pub sealed: Vec<u8>,
}

/// A session that a device takes up on another connection.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct ResumeSession {
    /// The session's id.
    pub session: SessionId,
    /// The device's connection.
    pub incarnation: Incarnation,
    /// Shows this server that the device has the session's key.
    pub tag: [u8; TAG_LEN],
}

/// An order of the gateway, about one of the models.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct Order {
    pub model: ModelId,
    pub command: Command,
}

/// What it orders. `epoch` names the set-up it relies on, `job` the streams to use. Inferences rely on none.
///
/// On a stream a command is known by its place here, to servers of other releases too: others are added at the end.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) enum Command {
    /// Make new keys and base OTs, in a version that all servers speak; bundles made from them are of that version too.
    SetUp { job: u64, epoch: u64, version: u16 },
    /// Make a bundle, number `index` of the set-up.
    Preprocess { job: u64, epoch: u64, bundle: BundleId, index: u64 },
    /// Remember a session.
    Open(OpenSession),
    /// Know a session on another connection.
    Resume(ResumeSession),
    /// Say whether the session is known on a device's connection.
    Knows(Connected),
    /// A device's connection has ended, and with it its incarnations.
    End(Vec<Connected>),
    /// Use a bundle for a request.
    Infer { job: u64, bundle: BundleId, usage: Use },
    /// Drop a bundle that will not be used.
    Discard { bundle: BundleId },
    /// Give up a job.
    Cancel { job: u64 },
    /// Say whether there is room for another bundle.
    Room,
    /// Name the bundles that are ready.
    Inventory,
    /// Destroy all bundles of the model but these, which all servers have.
    Keep(Vec<BundleId>),
    /// Say how many bundles of the model the server makes at the same time. A server of before this question ends the
    /// stream: it makes one.
    AtOnce,
    /// Say how many leases may be held. Releases that do not know the next order do not answer, and are ordered none.
    Leases,
    /// As `Infer`, of a request that is still to come.
    Lease { job: u64, bundle: BundleId, usage: Use },
}

/// What a command gives; known by its place too.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Done {
    /// Nothing more than that it is done.
    Plain,
    /// Bundles.
    Bundles(Vec<BundleId>),
    /// A number of bundles.
    AtOnce(u32),
    /// As many leases may be held.
    Leases(u16),
}

/// The answer: done, or why not.
pub(crate) type Reply = Result<Done, Failure>;

/// Sends an order and waits for its answer.
pub(crate) async fn send(mesh: &Mesh, to: usize, order: &Order, limit: Duration) -> Reply {
    let exchange = async {
        let (mut send, mut receive) = mesh.command(to).await?;
        frame::write_value(&mut send, order).await.ok()?;
        frame::read_value::<Reply>(&mut receive, MAX_MESSAGE).await.ok()
    };
    match timeout(limit, exchange).await {
        Ok(Some(reply)) => reply,
        Ok(None) => Err(Failure::Unavailable(to)),
        Err(_) => Err(Failure::TimedOut(to)),
    }
}

/// Reads the order of a stream.
pub(crate) async fn receive(incoming: &mut Incoming) -> Option<Order> {
    timeout(READ, frame::read_value(&mut incoming.receive, MAX_MESSAGE)).await.ok()?.ok()
}

/// Answers a command. Whether the gateway still listens does not matter.
pub(crate) async fn reply(mut incoming: Incoming, reply: Reply) {
    if timeout(READ, frame::write_value(&mut incoming.send, &reply)).await.is_ok() {
        let _ = incoming.send.finish();
    }
}
