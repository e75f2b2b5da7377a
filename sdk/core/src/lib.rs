//! The device's side of SECO without I/O: messages, pads, sealed session keys.
//!
//! Nothing here opens a socket, reads a clock, allocates or draws randomness of its own: bytes and a
//! generator come in, bytes go out. Phones, boards without an operating system and the servers share it.
//! Section numbers refer to `server/PROTOCOL.md`.
//!
//! | module | what | section |
//! |---|---|---|
//! | [`message`] | what travels between device and gateway, and its framing | 8 |
//! | [`mux`] | the same over one byte stream, for TCP | 8 |
//! | [`incarnation`] | what makes every connection's pads new | 3 |
//! | [`pad`] | session keys and the pads they expand to | 3 |
//! | [`pack`] | `k`-bit words packed without gaps | 3 |
//! | [`seal`] | session keys sealed to the servers, hybrid post-quantum | 3 |
//! | [`session`] | the device's keys, to be kept | 3 |
//! | [`requester`] | one connection's requests: counter, masking and unmasking | 3 |
//! | [`token`] | who may use a gateway | 3 |
//! | [`blob`] | a session as bytes for storage | 3 |
//! | [`input`] | pixels in the order that models take | 3 |
//!
//! Adversary: the device link may be recorded by anyone; the user or any `n - 1` servers may collude,
//! passively (section 1). Public are session, model and incarnation identifiers, counters and all lengths. Secret are
//! session keys, pads, inputs and outputs; no branch and no memory address depends on keys, pads or inputs.
//!
//! Nothing here authenticates: that the device talks to the right gateway is the transport's task, and that
//! the servers answer truthfully is assumed (they are passive).
#![no_std]
#![cfg_attr(not(test), deny(clippy::indexing_slicing))]

pub mod blob;
pub mod error;
pub mod incarnation;
pub mod input;
#[cfg(feature = "ring")]
mod kem;
pub mod message;
pub mod mux;
pub mod pack;
pub mod pad;
pub mod requester;
pub mod seal;
pub mod session;
pub mod token;

pub use blob::{MAX_SESSION_BLOB, SESSION_BLOB_VERSION};
pub use error::{Error, Result};
pub use incarnation::{EXPORTER_LABEL, EXPORTER_LEN, Incarnation, IncarnationId};
pub use message::{Refusal, Request, Response, WIRE_VERSION};
pub use pad::{IncarnationKey, SessionKey};
pub use requester::{Pending, Requester};
pub use seal::{
    Binding, KeyId, SEALED_LEN, SEALING_KEY_LEN, SealingKeyHash, ServerOpeningKey, ServerSealingKey,
    ServerSetId,
};
pub use session::{ModelInfo, Session};
pub use token::{Token, TokenId};

use core::fmt;
use serde::{Deserialize, Serialize};

/// Fewest servers of a deployment: with one there is nobody to hide anything from (section 1).
pub const MIN_SERVERS: usize = 2;

/// Most servers of a deployment. Fixes the size of a [`Session`], which holds one key for each.
pub const MAX_SERVERS: usize = 8;

/// Returns `count` if a deployment may have that many servers.
pub(crate) fn check_servers(count: usize) -> Result<usize> {
    if (MIN_SERVERS..=MAX_SERVERS).contains(&count) { Ok(count) } else { Err(Error::Servers { got: count }) }
}

/// Names a session towards the servers. Random and public.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct SessionId(pub [u8; 16]);

/// Names a model and how it is split among servers. Public.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ModelId(pub [u8; 32]);

impl fmt::Debug for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_hex(f, &self.0)
    }
}

impl fmt::Debug for ModelId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_hex(f, &self.0)
    }
}

pub(crate) fn write_hex(f: &mut fmt::Formatter<'_>, bytes: &[u8]) -> fmt::Result {
    bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
}
