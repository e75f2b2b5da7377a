//! What a server is doing, in numbers: for `seco admin`, and the source of most metrics. No session, device or
//! user is told apart.

use serde::{Deserialize, Serialize};

/// A server at one moment.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Status {
    /// Release of seco.
    pub version: String,
    /// The server's name.
    pub name: String,
    /// Its number; 0 is the gateway.
    pub index: usize,
    /// Its models.
    pub models: Vec<Model>,
    /// Seconds since it started.
    pub seconds: u64,
    /// Why requests would not be served now, one line each; none if they would.
    pub reasons: Vec<String>,
    /// Whether it takes no new requests because it is about to end.
    pub draining: bool,
    /// Requests that it has taken and not ended.
    pub under_way: usize,
    /// The other servers.
    pub peers: Vec<Peer>,
    /// Bundles for requests, of all models together; on the gateway.
    pub pool: Option<Pool>,
    /// Bundles of this server, of all models together.
    pub bundles: Bundles,
    /// Devices.
    pub sessions: Sessions,
    /// Jobs that run: set-ups, bundles, inferences.
    pub jobs: usize,
    /// Entries of the ledger since it was begun.
    pub ledger_entries: u64,
    /// Which lines the log has, if it can be changed.
    pub log_filter: Option<String>,
}

/// One of a server's models.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Model {
    /// Its id in hexadecimal.
    pub id: String,
    /// What people call it, if they do.
    pub name: Option<String>,
    /// Why requests for it would not be served now, one line each; none if they would.
    pub reasons: Vec<String>,
    /// Bundles for requests; on the gateway.
    pub pool: Option<Pool>,
    /// Bundles of this server.
    pub bundles: Bundles,
}

impl Model {
    /// The start of its id, as logs and metrics have it.
    pub fn short(&self) -> &str {
        self.id.get(..8).unwrap_or(&self.id)
    }

    /// What people know it by.
    pub fn title(&self) -> String {
        self.name
            .as_ref()
            .map_or_else(|| self.short().to_owned(), |name| format!("{} ({name})", self.short()))
    }
}

/// Another server.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Peer {
    /// Its number.
    pub index: usize,
    /// Its name.
    pub name: String,
    /// Whether there is a connection with it.
    pub connected: bool,
    /// UDP payload sent to it since the start.
    pub sent_bytes: u64,
    /// UDP payload that came from it since the start.
    pub received_bytes: u64,
}

/// Bundles for requests.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Pool {
    /// Ready on all servers.
    pub ready: usize,
    /// As many are kept ready.
    pub target: usize,
    /// Making more begins here.
    pub low: usize,
    /// Requests that wait for one.
    pub queue: usize,
    /// As many may wait.
    pub queue_limit: usize,
    /// Whether more can be made now.
    pub making: bool,
}

impl Pool {
    /// Both together. Either makes bundles if one of them does.
    pub(crate) fn and(self, other: Pool) -> Pool {
        Pool {
            ready: self.ready + other.ready,
            target: self.target + other.target,
            low: self.low + other.low,
            queue: self.queue + other.queue,
            queue_limit: self.queue_limit + other.queue_limit,
            making: self.making || other.making,
        }
    }
}

/// Bundles of one server.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Bundles {
    /// On its disk.
    pub stored: usize,
    /// Made since the start.
    pub made: u64,
    /// Spent for requests since the start.
    pub spent: u64,
    /// Destroyed unused since the start.
    pub discarded: u64,
    /// Of those spent: leased to a connection, and waiting for its request.
    #[serde(default)]
    pub leased: usize,
    /// Leased since the start, and used by their request.
    #[serde(default)]
    pub leases_used: u64,
    /// Leased since the start, and thrown away, for no request came.
    #[serde(default)]
    pub leases_lost: u64,
    /// Bytes on disk.
    pub disk_bytes: u64,
    /// Bytes that the disk has left, where the system tells.
    pub free_bytes: Option<u64>,
}

impl Bundles {
    /// Both together, on one disk.
    pub(crate) fn and(self, other: &Bundles) -> Bundles {
        Bundles {
            stored: self.stored + other.stored,
            made: self.made + other.made,
            spent: self.spent + other.spent,
            discarded: self.discarded + other.discarded,
            leased: self.leased + other.leased,
            leases_used: self.leases_used + other.leases_used,
            leases_lost: self.leases_lost + other.leases_lost,
            disk_bytes: self.disk_bytes + other.disk_bytes,
            free_bytes: self.free_bytes.or(other.free_bytes),
        }
    }
}

/// Devices.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Sessions {
    /// Sessions that are remembered.
    pub remembered: usize,
    /// As many are at most.
    pub limit: usize,
    /// Connections over QUIC; on the gateway.
    pub quic: usize,
    /// The same over TCP.
    pub tcp: usize,
}
