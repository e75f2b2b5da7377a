//! Many requests at a time on one byte stream: how the messages of [`message`](crate::message) travel over
//! TLS and TCP, where networks block QUIC's UDP (`server/PROTOCOL.md`, section 8, gives requests streams of their
//! own, which TCP does not have).
//!
//! ```text
//! stream = record*
//! record = id || frame          id: LEB128, at most 4 bytes, no needless zeros: 0 to 2^28 - 1
//! frame  = length || message    as in `message`; length 0 (the empty frame) has no message
//! ```
//!
//! | record | device to gateway | gateway to device |
//! |---|---|---|
//! | id 0, empty frame | ping: answer it | answer to a ping |
//! | id 0, message | forbidden | forbidden |
//! | id > 0, message | a request: `id` is larger than all before | a response to request `id` |
//! | id > 0, empty frame | nobody waits for request `id` any more | request `id` ends without an answer |
//!
//! A request is open from its message until the gateway ends it: by the one response other than `Queued`, or
//! by an empty frame. The gateway ends every request exactly once, also one that the device gave up; giving
//! up an ended one has no effect. At most [`MAX_OPEN`] requests are open at a time.
//!
//! Whoever receives anything else closes the connection: the two sides do not agree any more on what is open.
//! A message that cannot be decoded ends its request alone. Neither side resumes TLS sessions or sends early
//! data.

use crate::message::{Header, MAX_HEADER, decode_header, encode_length};
use crate::{Error, Result};

/// Protocol name in the TLS handshake (ALPN). Another one than QUIC's, so that nobody can pass the bytes of
/// one transport to the other.
pub const ALPN: &[u8] = b"seco-tcp/1";

/// Requests open at a time on one connection.
pub const MAX_OPEN: usize = 16;

/// The largest id of a request. A connection that has used it up is replaced by another one.
pub const MAX_ID: u32 = (1 << (7 * MAX_HEADER)) - 1;

/// The longest empty record, in bytes.
pub const MAX_EMPTY: usize = MAX_HEADER + 1;

/// Where the parts of a record lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record {
    /// Which request it belongs to; 0 for pings.
    pub id: u32,
    /// Bytes before the message.
    pub header_len: usize,
    /// Bytes of the message; 0 for an empty frame.
    pub message_len: usize,
}

impl Record {
    /// Bytes of the whole record.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.header_len + self.message_len
    }

    /// Whether the frame is the empty one.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.message_len == 0
    }

    /// The message of a record that starts at `bytes`, or `None` while bytes are missing.
    #[must_use]
    pub fn message<'b>(&self, bytes: &'b [u8]) -> Option<&'b [u8]> {
        bytes.get(self.header_len..self.len())
    }
}

/// Reads id and length at the start of `bytes`; `None` while they are incomplete. Call it before buffering the
/// message: `limit`, in bytes, is what the receiver is ready to hold.
///
/// # Errors
/// [`Error::TooLong`] for a message above `limit`; [`Error::Malformed`] if id or length are not as described
/// above, or for a message under id 0.
pub fn decode_record(bytes: &[u8], limit: usize) -> Result<Option<Record>> {
    let Some(Header { header_len: id_len, message_len: id }) = decode_header(bytes, usize::MAX)? else {
        return Ok(None);
    };
    let id = u32::try_from(id).map_err(|_| Error::Malformed)?;
    let Some(frame) = decode_header(bytes.get(id_len..).unwrap_or_default(), limit)? else {
        return Ok(None);
    };
    if id == 0 && frame.message_len > 0 {
        return Err(Error::Malformed);
    }
    Ok(Some(Record { id, header_len: id_len + frame.header_len, message_len: frame.message_len }))
}

/// Writes an id to the start of `out`, where a frame is to follow, and returns how many bytes it takes.
///
/// # Errors
/// [`Error::TooLong`] above [`MAX_ID`].
pub fn encode_id(id: u32, out: &mut [u8; MAX_HEADER]) -> Result<usize> {
    // Saturating where addresses have 16 bits: refused, as it is larger than any id there.
    let (bytes, len) = encode_length(usize::try_from(id).unwrap_or(usize::MAX))?;
    *out = bytes;
    Ok(len)
}

/// A record with the empty frame, and how many bytes of the array it takes.
///
/// # Errors
/// [`Error::TooLong`] above [`MAX_ID`].
pub fn empty_record(id: u32) -> Result<([u8; MAX_EMPTY], usize)> {
    let mut bytes = [0; MAX_HEADER];
    let len = encode_id(id, &mut bytes)?;
    let mut record = [0; MAX_EMPTY];
    for (to, from) in record.iter_mut().zip(bytes.iter().take(len)) {
        *to = *from;
    }
    Ok((record, len + 1))
}
