//! What makes every connection's pads new (`server/PROTOCOL.md`, section 3).
//!
//! A session's keys may exist twice: a copied memory card, a restored backup, an application beside its
//! extension. Pads that depended on the session key and a counter alone would then repeat. So they come from
//! a key that is derived once per connection, from the session key and the connection's [`Incarnation`]:
//! 16 bytes that the device draws, and a value that the TLS handshake yields at both ends (RFC 5705, RFC 9266).
//! The drawn bytes differ between devices that share a file; the exported value differs even between copies
//! of one device's memory, random generator included, since the gateway's randomness is in it.
//!
//! An incarnation ends with its connection, and with it the memory of its counters. A copy of a device's memory
//! that was taken while a connection was open has that connection's keys and counter: whoever wakes from one
//! must connect anew before the next request.

use crate::write_hex;
use core::fmt;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// Label under which both ends of a connection export [`EXPORTER_LEN`] bytes from their TLS session, without
/// a context (RFC 5705).
pub const EXPORTER_LABEL: &[u8] = b"EXPORTER-SECO-incarnation";

/// Bytes exported from the TLS session.
pub const EXPORTER_LEN: usize = 32;

const ID_LABEL: &[u8; 22] = b"SECO incarnation id v1";

/// `I` with the connection's exporter value. Public among the servers; the gateway passes it on.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Incarnation {
    /// Drawn by the device for this connection.
    pub nonce: [u8; 16],
    /// The connection's TLS exporter value under [`EXPORTER_LABEL`].
    pub exporter: [u8; EXPORTER_LEN],
}

impl Incarnation {
    /// The short name under which servers keep keys and record what was spent: the first half of SHA-256 over
    /// a label and both parts.
    #[must_use]
    pub fn id(&self) -> IncarnationId {
        let digest = Sha256::new()
            .chain_update(ID_LABEL)
            .chain_update(self.nonce)
            .chain_update(self.exporter)
            .finalize();
        let mut id = [0; 16];
        for (to, from) in id.iter_mut().zip(digest) {
            *to = from;
        }
        IncarnationId(id)
    }
}

/// Names an incarnation of a session. Public.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct IncarnationId(pub [u8; 16]);

impl fmt::Debug for IncarnationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_hex(f, &self.0)
    }
}

/// Shows the id alone.
impl fmt::Debug for Incarnation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Incarnation({:?})", self.id())
    }
}
