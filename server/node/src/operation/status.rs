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
    /// Start of the model's id.
    pub model: String,
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
    /// Bundles for requests; on the gateway.
    pub pool: Option<Pool>,
    /// Bundles of this server.
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

/// Bundles of one server.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Bundles {
    /// On its disk.
    pub stored: usize,
    /// Made since the start.
    pub made: u64,
    /// Spent for requests since the start.
    pub spent: u64,
    /// Destroyed unused since the start.
    pub discarded: u64,
    /// Bytes on disk.
    pub disk_bytes: u64,
    /// Bytes that the disk has left, where the system tells.
    pub free_bytes: Option<u64>,
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
