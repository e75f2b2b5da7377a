//! Why a server did not do its part of a job.

use seco_protocol::{ChannelError, LedgerError};
use serde::{Deserialize, Serialize};

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
    /// The server ends when what is under way has ended.
    #[error("it is stopping")]
    Stopping,
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
    /// The server does not have the model, or no longer.
    #[error("it does not have this model: add it there too (seco admin models add)")]
    LacksModel,
    /// The sealed session key cannot be opened.
    #[error(
        "the sealed session key does not open: it was altered, or made for another session or connection"
    )]
    SealedKey,
    /// The server keeps as many bundles as its settings allow.
    #[error("has as many bundles as its settings allow: give all servers the same [pool] size")]
    Full,
    /// A bundle's file cannot be written or read.
    #[error(
        "has no room for another bundle (on its disk, or by [pool] disk_mib), or cannot read one: see its log"
    )]
    Disk,
    /// The ledger cannot be written.
    #[error("the ledger cannot be written: see that server's log")]
    Ledger,
    /// Something else, told in that server's log.
    #[error("something that its own log tells")]
    Internal,
    /// The set-up is of a version that the server does not speak (any more).
    #[error("it does not speak this version of the protocol between servers")]
    OtherVersion,
    /// The server holds as many leases as its settings allow.
    #[error("has as many bundles leased as its [pool] leases allows")]
    NoLease,
}

impl Failure {
    /// The other server that it is about, if it is about one.
    pub fn server(self) -> Option<usize> {
        match self {
            Failure::Unavailable(server) | Failure::TimedOut(server) | Failure::Misbehaved(server) => {
                Some(server)
            }
            _ => None,
        }
    }
}

impl From<&seco_protocol::Error> for Failure {
    fn from(error: &seco_protocol::Error) -> Self {
        use seco_protocol::Error as E;
        match error {
            E::Channel(e) => e.into(),
            E::Ledger(LedgerError::BundleSpent) => Failure::BundleSpent,
            E::Ledger(LedgerError::CounterUsed) => Failure::CounterUsed,
            E::Ledger(LedgerError::SessionForgotten) => Failure::UnknownSession,
            E::Ledger(_) => Failure::Ledger,
            E::Bundle(_) => Failure::UnknownBundle,
            E::Spool(_) => Failure::Disk,
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
