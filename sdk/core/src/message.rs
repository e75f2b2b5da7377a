//! What travels between device and gateway, and how it is framed (`server/PROTOCOL.md`, sections 3 and 8).
//!
//! ```text
//! frame    = length || message        length: LEB128, at most 4 bytes, counts the message only
//! message  = version || body          version: one byte; body: postcard encoding of Request or Response
//! ```
//!
//! Every request has a bidirectional stream of its own: one [`Request`] up; then any number of
//! [`Response::Queued`] and one other [`Response`] down. The enums are append-only: a variant is never
//! removed, moved or changed, because its position is its tag on the wire.
//!
//! Decoding borrows from the received bytes and never allocates. A receiver states its limit before it
//! buffers a frame ([`decode_header`]); [`ModelInfo::request_limit`] and [`ModelInfo::response_limit`]
//! compute it.
//!
//! [`ModelInfo::request_limit`]: crate::ModelInfo::request_limit
//! [`ModelInfo::response_limit`]: crate::ModelInfo::response_limit

use crate::pad::TAG_LEN;
use crate::seal::SEALED_LEN;
use crate::token::{TOKEN_LEN, Token};
use crate::{Error, ModelId, Result, SessionId, check_servers};
use core::fmt;
use serde::{Deserialize, Serialize, Serializer};

/// First byte of every message. A peer that reads another value answers, if at all, in its own version.
pub const WIRE_VERSION: u8 = 2;

/// Longest length prefix, in bytes.
pub const MAX_HEADER: usize = 4;

/// Longest message that a length prefix can announce, in bytes.
const MAX_MESSAGE: usize = (1 << (7 * MAX_HEADER)) - 1;

/// Upper bound for everything in a frame but its last byte string: header, version, tag, numbers, token.
pub const FRAME_OVERHEAD: usize = 80;

/// What a [`Request::Admit`] adds to a message, at most: version, tag, and two byte strings' lengths.
pub(crate) const ADMIT_OVERHEAD: usize = 1 + 1 + 1 + TOKEN_LEN + MAX_HEADER;

/// Device to gateway.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Request<'a> {
    /// Opens a session; answered by [`Response::Opened`].
    Open {
        /// The session's name, drawn by the device.
        session: SessionId,
        /// The model it is for.
        model: ModelId,
        /// Drawn for this connection: the first part of its [`Incarnation`](crate::Incarnation).
        nonce: [u8; 16],
        /// One sealed key of [`SEALED_LEN`] bytes per server, in the order of the deployment, the gateway's
        /// first. [`sealed_keys`] takes it apart.
        #[serde(serialize_with = "as_bytes")]
        sealed: &'a [u8],
    },
    /// A private inference; answered by [`Response::Logits`].
    Infer {
        /// From [`Response::Opened`] on this connection.
        handle: u32,
        /// `c`: names the pads. Counts the requests of an incarnation from 0, and is never sent twice in it.
        counter: u64,
        /// `x ^ P_0 ^ … ^ P_{n-1}`, one byte per value, or two of more than 8 bits, the lower one first.
        #[serde(serialize_with = "as_bytes")]
        input: &'a [u8],
    },
    /// As many bytes as a plain request would take, to compare costs; answered by [`Response::Probe`].
    Probe {
        /// Length of the answer's noise in bytes.
        down: u16,
        /// Random bytes, without meaning.
        #[serde(serialize_with = "as_bytes")]
        noise: &'a [u8],
    },
    /// Names a session that was opened before, and proves to every server that the device has its key;
    /// answered by [`Response::Opened`], or refused as [`Refusal::UnknownSession`]: the device then opens a
    /// new one.
    Resume {
        /// The session's name.
        session: SessionId,
        /// Drawn for this connection: the first part of its [`Incarnation`](crate::Incarnation).
        nonce: [u8; 16],
        /// One tag of [`TAG_LEN`] bytes per server, in the order of the deployment.
        /// [`resume_tags`] takes it apart.
        #[serde(serialize_with = "as_bytes")]
        tags: &'a [u8],
    },
    /// A [`Request::Open`] or [`Request::Resume`] of a device with a token, which counts for what follows on the
    /// connection; answered as the request that is in it, or refused as [`Refusal::TokenInvalid`] and the like.
    Admit {
        /// The token's bytes.
        #[serde(serialize_with = "as_bytes")]
        token: &'a [u8],
        /// The request's message, with its version. [`Request::admitted`] reads it.
        #[serde(serialize_with = "as_bytes")]
        request: &'a [u8],
    },
    /// Asks for a newer deployment file; answered by [`Response::Update`].
    Update {
        /// The number of the device's own.
        serial: u64,
        /// The owner's public key.
        #[serde(serialize_with = "as_bytes")]
        owner: &'a [u8],
    },
}

/// Gateway to device.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Response<'a> {
    /// The session is open.
    Opened {
        /// Stands for the session in requests on this connection.
        handle: u32,
    },
    /// The sum of all output shares and pads: one word of `k` bits per value, packed ([`crate::pack`]).
    Logits {
        /// `Σ_j (share_j + Q_j) mod 2^k`.
        #[serde(serialize_with = "as_bytes")]
        masked: &'a [u8],
    },
    /// Keeps a tag that no server sends any more, so that those behind it stay what they are.
    #[doc(hidden)]
    Retired,
    /// The request waits for a bundle, or has it. More responses follow.
    Queued {
        /// Place in the queue, 1 is the next. 0: the request had to wait, and runs now.
        position: u32,
        /// Estimated wait in milliseconds.
        wait_ms: u32,
    },
    /// The queue is full; nothing was used up but the counter.
    Busy {
        /// When to try again, in milliseconds.
        retry_after_ms: u32,
    },
    /// The request was not carried out.
    Refused {
        /// Why.
        reason: Refusal,
    },
    /// Answer to [`Request::Probe`].
    Probe {
        /// Random bytes, without meaning.
        #[serde(serialize_with = "as_bytes")]
        noise: &'a [u8],
    },
    /// Answer to [`Request::Update`].
    Update {
        /// A deployment file signed by its owner, at most 65,535 bytes; none where there is no newer one.
        #[serde(serialize_with = "as_bytes")]
        text: &'a [u8],
    },
}

/// Why the gateway does not carry out a request. `Display` says it in one line, with what to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// No open session has this handle or name, or the device did not show that it has its key.
    #[error("the session is not known any more; open a new one")]
    UnknownSession,
    /// The servers hold another model.
    #[error("the servers run another model; fetch their current deployment file")]
    WrongModel,
    /// The input has another length than the model's.
    #[error("the model takes {expected} input bytes; fetch the current deployment file")]
    WrongInputSize {
        /// Length that the model takes, in bytes.
        expected: u32,
    },
    /// This counter was used before in this incarnation, or is further ahead than requests may overtake each other.
    #[error("the request number was used before or is too far ahead; connect anew")]
    CounterUsed,
    /// A server cannot be reached.
    #[error("server {server} cannot be reached; try again later")]
    Unavailable {
        /// Index in the deployment, the gateway is 0.
        server: u8,
    },
    /// The inference did not finish in the servers' time limit.
    #[error("the servers did not finish in time; try again")]
    TimedOut,
    /// The request does not follow the wire format.
    #[error("the gateway cannot read the request; update the application")]
    Malformed,
    /// The gateway does not speak this wire version.
    #[error("the gateway speaks wire version {supported}; update the application")]
    VersionUnsupported {
        /// Newest version that the gateway speaks.
        supported: u8,
    },
    /// A server failed; its log has the details.
    #[error("a server failed; try again, then tell the operator")]
    Internal,
    /// The sealed keys are not one for each server.
    #[error("the servers are not those of this deployment file; fetch the current one")]
    WrongServers,
    /// A server could not open its sealed key: what was sealed is for another key than its own.
    #[error("server {server} has other keys than the deployment file says; fetch the current one")]
    SealRejected {
        /// Index in the deployment, the gateway is 0.
        server: u8,
    },
    /// The servers are stopping.
    #[error("the servers are shutting down; try again later")]
    ShuttingDown,
    /// The gateway serves only devices that show a token.
    #[error("the gateway asks for a token; get one from its operator")]
    TokenMissing,
    /// The gateway does not know the token, or does not take it any more.
    #[error("the gateway does not take the token: it is unknown or was revoked; get another one")]
    TokenInvalid,
    /// The token's time is over.
    #[error("the token has expired; get another one")]
    TokenExpired,
    /// All requests that the token is good for were made.
    #[error("the token is used up{}", Again(*retry_after_s))]
    TokenExhausted {
        /// Seconds until there is another one; 0: never.
        retry_after_s: u32,
    },
}

/// When there are requests again.
struct Again(u32);

impl fmt::Display for Again {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            0 => f.write_str("; get another one"),
            seconds => write!(f, " for now; try again in {seconds} s"),
        }
    }
}

impl<'a> Request<'a> {
    /// Writes the request as a frame into `out`, which needs [`Request::frame_bound`] bytes, and returns the
    /// part of `out` that is to be sent.
    ///
    /// # Errors
    /// [`Error::BufferTooSmall`], or [`Error::TooLong`] for 256 MiB and more.
    pub fn encode_frame<'o>(&self, out: &'o mut [u8]) -> Result<&'o [u8]> {
        encode_frame(self, out)
    }

    /// Writes the frame of this request around a byte string that lies at
    /// `buffer[`[`FRAME_OVERHEAD`]`..]` already, to its end; the request's own is left empty, as `&[]`. So an
    /// input can be masked where it is sent from. Returns where in `buffer` the frame starts; what lies before
    /// is undefined.
    ///
    /// # Errors
    /// [`Error::BufferTooSmall`], [`Error::TooLong`] for 256 MiB and more, and [`Error::Malformed`] if the
    /// request has a byte string of its own.
    pub fn encode_frame_around(&self, buffer: &mut [u8]) -> Result<usize> {
        if self.frame_bound() > FRAME_OVERHEAD {
            return Err(Error::Malformed);
        }
        let payload = buffer.len().checked_sub(FRAME_OVERHEAD).ok_or(Error::BufferTooSmall)?;
        let mut scratch = [0; FRAME_OVERHEAD];
        // Byte strings come last. So an empty one is the last byte, its length of 0; the true length takes
        // its place.
        let fields = postcard::to_slice(self, &mut scratch).map_err(|_| Error::BufferTooSmall)?;
        let (_, fields) = fields.split_last().ok_or(Error::Malformed)?;
        let mut length = [0; 5];
        let length = postcard::to_slice(&payload, &mut length)
            .map_err(|_| Error::TooLong { len: payload, limit: MAX_MESSAGE })?;
        let (header, header_len) = encode_length(1 + fields.len() + length.len() + payload)?;
        let header = header.get(..header_len).unwrap_or_default();
        let start = FRAME_OVERHEAD - header.len() - 1 - fields.len() - length.len();
        let prefix = header.iter().chain(&[WIRE_VERSION]).chain(fields).chain(&*length);
        for (to, from) in buffer.iter_mut().skip(start).zip(prefix) {
            *to = *from;
        }
        Ok(start)
    }

    /// Writes the frame of a [`Request::Admit`] with this request in it into `out`, which needs
    /// [`Request::frame_bound`] and [`FRAME_OVERHEAD`] bytes; otherwise as [`Request::encode_frame`].
    ///
    /// # Errors
    /// [`Error::BufferTooSmall`], or [`Error::TooLong`] for 256 MiB and more.
    pub fn encode_frame_with<'o>(&self, token: &Token, out: &'o mut [u8]) -> Result<&'o [u8]> {
        // Its message begins where that of the other leaves room for it.
        let inner = out.get_mut(FRAME_OVERHEAD - MAX_HEADER..).ok_or(Error::BufferTooSmall)?;
        let (_, len) = write_message(self, inner)?;
        let end = FRAME_OVERHEAD + len;
        let admit = Request::Admit { token: token.as_bytes(), request: &[] };
        let start = admit.encode_frame_around(out.get_mut(..end).ok_or(Error::BufferTooSmall)?)?;
        out.get(start..end).ok_or(Error::BufferTooSmall)
    }

    /// The request in a [`Request::Admit`].
    ///
    /// # Errors
    /// As [`Request::decode`]; another than [`Request::Open`] and [`Request::Resume`] is malformed.
    pub fn admitted(request: &'a [u8]) -> Result<Self> {
        match decode(request)? {
            request @ (Self::Open { .. } | Self::Resume { .. }) => Ok(request),
            _ => Err(Error::Malformed),
        }
    }

    /// Reads a message: a frame without its header.
    ///
    /// # Errors
    /// [`Error::Version`] or [`Error::Malformed`]; unknown variants and trailing bytes are malformed.
    pub fn decode(message: &'a [u8]) -> Result<Self> {
        decode(message)
    }

    /// Enough bytes for [`Request::encode_frame`].
    #[must_use]
    pub const fn frame_bound(&self) -> usize {
        match self {
            // The token is a part of what comes around the bytes.
            Self::Admit { request: bytes, .. } => bytes.len().saturating_add(FRAME_OVERHEAD),
            Self::Open { sealed: bytes, .. }
            | Self::Infer { input: bytes, .. }
            | Self::Probe { noise: bytes, .. }
            | Self::Update { owner: bytes, .. }
            | Self::Resume { tags: bytes, .. } => bytes.len().saturating_add(FRAME_OVERHEAD),
        }
    }
}

impl<'a> Response<'a> {
    /// Writes the response as a frame into `out`, which needs [`Response::frame_bound`] bytes, and returns
    /// the part of `out` that is to be sent.
    ///
    /// # Errors
    /// [`Error::BufferTooSmall`], or [`Error::TooLong`] for 256 MiB and more.
    pub fn encode_frame<'o>(&self, out: &'o mut [u8]) -> Result<&'o [u8]> {
        encode_frame(self, out)
    }

    /// Reads a message: a frame without its header.
    ///
    /// # Errors
    /// [`Error::Version`] or [`Error::Malformed`]; unknown variants and trailing bytes are malformed.
    pub fn decode(message: &'a [u8]) -> Result<Self> {
        decode(message)
    }

    /// Enough bytes for [`Response::encode_frame`].
    #[must_use]
    pub const fn frame_bound(&self) -> usize {
        match self {
            Self::Logits { masked: bytes } | Self::Probe { noise: bytes } | Self::Update { text: bytes } => {
                bytes.len().saturating_add(FRAME_OVERHEAD)
            }
            Self::Opened { .. }
            | Self::Retired
            | Self::Queued { .. }
            | Self::Busy { .. }
            | Self::Refused { .. } => FRAME_OVERHEAD,
        }
    }
}

/// Takes `sealed` of [`Request::Open`] apart: one blob per server, in order.
///
/// # Errors
/// [`Error::Servers`] if that is no possible number of servers, [`Error::Malformed`] if bytes are left over.
pub fn sealed_keys(sealed: &[u8]) -> Result<&[[u8; SEALED_LEN]]> {
    let (keys, rest) = sealed.as_chunks();
    if !rest.is_empty() {
        return Err(Error::Malformed);
    }
    check_servers(keys.len())?;
    Ok(keys)
}

/// Takes `tags` of [`Request::Resume`] apart: one per server, in order.
///
/// # Errors
/// [`Error::Servers`] if that is no possible number of servers, [`Error::Malformed`] if bytes are left over.
pub fn resume_tags(tags: &[u8]) -> Result<&[[u8; TAG_LEN]]> {
    let (tags, rest) = tags.as_chunks();
    if !rest.is_empty() {
        return Err(Error::Malformed);
    }
    check_servers(tags.len())?;
    Ok(tags)
}

/// Where the message lies in a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Bytes of the length prefix; the message follows.
    pub header_len: usize,
    /// Bytes of the message.
    pub message_len: usize,
}

impl Header {
    /// The message of a frame that starts at `bytes`, or `None` while bytes are missing.
    #[must_use]
    pub fn message<'b>(&self, bytes: &'b [u8]) -> Option<&'b [u8]> {
        bytes.get(self.header_len..)?.get(..self.message_len)
    }
}

/// Reads the length prefix at the start of `bytes`; `None` while it is incomplete. Call it before buffering
/// the message: `limit`, in bytes, is what the receiver is ready to hold.
///
/// # Errors
/// [`Error::TooLong`] above `limit`, [`Error::Malformed`] for a prefix of more than [`MAX_HEADER`] bytes or
/// one with needless zeros, so that every frame has one encoding.
pub fn decode_header(bytes: &[u8], limit: usize) -> Result<Option<Header>> {
    let mut len = 0usize;
    for (i, byte) in bytes.iter().take(MAX_HEADER).enumerate() {
        len |= usize::from(byte & 0x7f) << (7 * i);
        if byte & 0x80 == 0 {
            return match (*byte, i) {
                (0, 1..) => Err(Error::Malformed),
                _ if len > limit => Err(Error::TooLong { len, limit }),
                _ => Ok(Some(Header { header_len: i + 1, message_len: len })),
            };
        }
    }
    if bytes.len() < MAX_HEADER { Ok(None) } else { Err(Error::Malformed) }
}

fn encode_frame<'o>(body: &impl Serialize, out: &'o mut [u8]) -> Result<&'o [u8]> {
    // The length is known only after encoding: leave room for the longest prefix and put the prefix right
    // before the message, so that nothing has to move.
    let (start, len) = write_message(body, out)?;
    out.get(start..MAX_HEADER + len).ok_or(Error::BufferTooSmall)
}

/// Writes a message at `out[MAX_HEADER..]` and its length before it; where the frame starts, and the message's length.
fn write_message(body: &impl Serialize, out: &mut [u8]) -> Result<(usize, usize)> {
    let (version, rest) =
        out.get_mut(MAX_HEADER..).and_then(<[u8]>::split_first_mut).ok_or(Error::BufferTooSmall)?;
    *version = WIRE_VERSION;
    let len = 1 + postcard::to_slice(body, rest).map_err(|_| Error::BufferTooSmall)?.len();
    let (header, header_len) = encode_length(len)?;
    let start = MAX_HEADER - header_len;
    for (to, from) in out.iter_mut().skip(start).zip(header.iter().take(header_len)) {
        *to = *from;
    }
    Ok((start, len))
}

/// The length prefix of a message, and how many bytes of the array it takes.
pub(crate) fn encode_length(len: usize) -> Result<([u8; MAX_HEADER], usize)> {
    if len > MAX_MESSAGE {
        return Err(Error::TooLong { len, limit: MAX_MESSAGE });
    }
    let header_len = (1..MAX_HEADER).find(|n| len >> (7 * n) == 0).unwrap_or(MAX_HEADER);
    let mut header = [0; MAX_HEADER];
    for (i, byte) in header.iter_mut().take(header_len).enumerate() {
        let more = if i + 1 < header_len { 0x80 } else { 0 };
        *byte = ((len >> (7 * i)) & 0x7f) as u8 | more;
    }
    Ok((header, header_len))
}

fn decode<'a, T: Deserialize<'a>>(message: &'a [u8]) -> Result<T> {
    match message.split_first() {
        None => Err(Error::Malformed),
        Some((&WIRE_VERSION, body)) => match postcard::take_from_bytes(body) {
            Ok((message, [])) => Ok(message),
            _ => Err(Error::Malformed),
        },
        Some((&got, _)) => Err(Error::Version { got }),
    }
}

/// One copy instead of serde's element by element.
fn as_bytes<S: Serializer>(bytes: &[u8], serializer: S) -> core::result::Result<S::Ok, S::Error> {
    serializer.serialize_bytes(bytes)
}

/// Shows lengths in place of payloads: those are long, and say nothing while masked.
impl fmt::Debug for Request<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Open { session, model, sealed, .. } => {
                write!(f, "Open({session:?}, model {model:?}, {} B)", sealed.len())
            }
            Self::Infer { handle, counter, input } => {
                write!(f, "Infer({handle}, counter {counter}, {} B)", input.len())
            }
            Self::Probe { down, noise } => write!(f, "Probe({} B up, {down} B down)", noise.len()),
            Self::Resume { session, .. } => write!(f, "Resume({session:?})"),
            Self::Admit { request, .. } => write!(f, "Admit({} B)", request.len()),
            Self::Update { serial, .. } => write!(f, "Update(after {serial})"),
        }
    }
}

/// Shows lengths in place of payloads.
impl fmt::Debug for Response<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Opened { handle } => write!(f, "Opened({handle})"),
            Self::Logits { masked } => write!(f, "Logits({} B)", masked.len()),
            Self::Retired => f.write_str("Retired"),
            Self::Queued { position, wait_ms } => write!(f, "Queued({position} ahead, {wait_ms} ms)"),
            Self::Busy { retry_after_ms } => write!(f, "Busy({retry_after_ms} ms)"),
            Self::Refused { reason } => write!(f, "Refused({reason:?})"),
            Self::Probe { noise } => write!(f, "Probe({} B)", noise.len()),
            Self::Update { text } => write!(f, "Update({} B)", text.len()),
        }
    }
}
