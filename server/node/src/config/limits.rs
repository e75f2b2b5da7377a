//! Limits of time and number: the section `[limits]`.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Limits of time and number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Seconds for the cluster's set-up (keys, base OTs).
    pub setup_s: u64,
    /// Seconds for one bundle.
    pub preprocess_s: u64,
    /// Seconds for one inference, and for a request's wait for a bundle.
    pub infer_s: u64,
    /// Seconds after which a server that starts says who is missing; it waits on.
    pub connect_s: u64,
    /// Device sessions remembered; the one unused for longest makes place for a new one.
    pub sessions: usize,
    /// Requests that may wait for a bundle.
    pub queue: usize,
    /// Inferences that may run at the same time.
    pub parallel: usize,
    /// Connections of devices at the same time, over QUIC and again over TCP. For a new one the one that is idle for
    /// longest makes place.
    pub connections: usize,
    /// Seconds after which a connection goes that has no session and asks for nothing.
    pub idle_s: u64,
    /// Connections from one address (IPv6: from one /64 network); 0, here and below: no limit.
    pub address_connections: usize,
    /// Handshakes and sessions that are opened, in a minute, from one address.
    pub address_handshakes: usize,
    /// Sessions in use at the same time from one address.
    pub address_sessions: usize,
    /// Requests that wait or run at the same time from one address.
    pub address_requests: usize,
    /// Requests in an hour from one address; so many at once, and then as they come again.
    pub address_requests_hour: usize,
    /// Bundles leased to connections from one address at the same time.
    pub address_leases: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            setup_s: 120,
            preprocess_s: 600,
            infer_s: 60,
            connect_s: 60,
            sessions: 10_000,
            queue: 64,
            parallel: 4,
            connections: 1024,
            idle_s: 15,
            address_connections: 256,
            address_handshakes: 600,
            address_sessions: 1024,
            address_requests: 256,
            address_requests_hour: 0,
            address_leases: 4,
        }
    }
}

impl Limits {
    /// Time for the set-up.
    pub fn setup(&self) -> Duration {
        Duration::from_secs(self.setup_s)
    }

    /// Time for one bundle.
    pub fn preprocess(&self) -> Duration {
        Duration::from_secs(self.preprocess_s)
    }

    /// Time for one inference, or for a request's wait.
    pub fn infer(&self) -> Duration {
        Duration::from_secs(self.infer_s)
    }

    /// Time after which a connection without a session goes.
    pub fn idle(&self) -> Duration {
        Duration::from_secs(self.idle_s)
    }

    /// Time for the first connection to all servers.
    pub fn connect(&self) -> Duration {
        Duration::from_secs(self.connect_s)
    }
}
