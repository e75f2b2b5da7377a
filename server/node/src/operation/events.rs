//! What a server tells whoever started it: one JSON object a line on standard output, with
//! `seco serve --events`. The demo and tests read them; they hold nothing secret.

use std::io::Write as _;
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

/// One event. `mesh_bytes_sent` is the server's total UDP payload sent to other servers so far,
/// from the statistics of its QUIC connections.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// Sockets are open.
    Listening {
        /// Index of the server.
        server: usize,
        /// Address for other servers.
        mesh: SocketAddr,
        /// Address for devices, on the gateway.
        device: Option<SocketAddr>,
        /// Address of the admin port, if there is one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        admin: Option<SocketAddr>,
    },
    /// The cluster's keys and base OTs are made: requests are served, once there is a bundle.
    Ready {
        /// Index of the server.
        server: usize,
        /// Where devices are served, on the gateway.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        device: Option<SocketAddr>,
        /// Sessions of devices that the server keeps at most (`[limits] sessions`).
        #[serde(default, skip_serializing_if = "Option::is_none")]
        devices: Option<usize>,
        /// Start of the model's id.
        #[serde(default)]
        model: String,
        /// Seconds the set-up took.
        seconds: f64,
        /// Total so far.
        mesh_bytes_sent: u64,
    },
    /// A bundle was made.
    Bundle {
        /// Index of the server.
        server: usize,
        /// Start of the model's id.
        #[serde(default)]
        model: String,
        /// Bundles now in the pool.
        pool: usize,
        /// Seconds it took.
        seconds: f64,
        /// Total so far.
        mesh_bytes_sent: u64,
    },
    /// An inference ended well.
    Inference {
        /// Index of the server.
        server: usize,
        /// Start of the model's id.
        #[serde(default)]
        model: String,
        /// Bundles now in the pool.
        pool: usize,
        /// Seconds from the request's arrival to the answer.
        seconds: f64,
        /// Total so far.
        mesh_bytes_sent: u64,
    },
    /// Something failed; the server goes on unless it says so on standard error and exits.
    Failed {
        /// Index of the server.
        server: usize,
        /// One line.
        what: String,
    },
}

/// Where events go: to standard output, or nowhere.
#[derive(Clone, Copy, Debug)]
pub struct Events {
    enabled: bool,
}

impl Events {
    /// Prints events if `enabled`.
    pub fn new(enabled: bool) -> Self {
        Self { enabled }
    }

    /// Prints one event. Whether anybody reads it does not matter.
    pub fn emit(&self, event: &Event) {
        if !self.enabled {
            return;
        }
        if let Ok(mut line) = serde_json::to_string(event) {
            line.push('\n');
            let mut output = std::io::stdout().lock();
            let _ = output.write_all(line.as_bytes()).and_then(|()| output.flush());
        }
    }
}
