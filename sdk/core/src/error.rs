//! The one error type of this crate.

/// What went wrong. No variant carries secrets or text from a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The caller's buffer is too small for what is to be written.
    #[error("the output buffer is too small")]
    BufferTooSmall,
    /// A message announces more bytes than the receiver takes.
    #[error("a message of {len} bytes exceeds the limit of {limit}")]
    TooLong {
        /// Length announced by the peer, or needed by the caller, in bytes.
        len: usize,
        /// Limit in bytes.
        limit: usize,
    },
    /// The peer speaks another version of the wire format.
    #[error("the peer speaks wire version {got}, this is version {}", crate::WIRE_VERSION)]
    Version {
        /// First byte of the peer's message.
        got: u8,
    },
    /// A message does not follow the wire format.
    #[error("malformed message")]
    Malformed,
    /// An input, answer or buffer has another length than the model or format fixes.
    #[error("expected a length of {expected}, got {got}")]
    WrongLength {
        /// Length that fits.
        expected: usize,
        /// Length given.
        got: usize,
    },
    /// The number of servers is outside [`MIN_SERVERS`](crate::MIN_SERVERS)`..=`[`MAX_SERVERS`](crate::MAX_SERVERS).
    #[error("{got} servers, expected {} to {}", crate::MIN_SERVERS, crate::MAX_SERVERS)]
    Servers {
        /// Number given.
        got: usize,
    },
    /// A word width is outside `1..=32` bits.
    #[error("a width of {got} bits, expected 1 to 32")]
    Width {
        /// Width given, in bits.
        got: u32,
    },
    /// A description of a model is not usable; says which field.
    #[error("model description: {0} is out of range")]
    Model(&'static str),
    /// Bytes are not an X-Wing public key.
    #[error("not an X-Wing public key")]
    SealingKey,
    /// A sealed session key was altered, or made for another session, model, server or set of servers.
    #[error("the sealed session key does not open")]
    Unsealable,
    /// The servers given are not those the session was made for.
    #[error("the session belongs to another set of servers")]
    OtherServers,
    /// A pending request or an incarnation is of another session or connection.
    #[error("the pending request belongs to another session or connection")]
    OtherSession,
    /// All counters of the incarnation are used: connect anew.
    #[error("the connection has no request numbers left; connect anew")]
    Exhausted,
    /// Bytes are not a session blob, or were damaged.
    #[error("not a session blob, or a damaged one")]
    SessionBlob,
    /// Text is no token.
    #[error("not a token, which is seco_ and 48 hexadecimal digits")]
    Token,
    /// A session blob was written by another version.
    #[error("a session blob of version {got}, this is version {}", crate::SESSION_BLOB_VERSION)]
    SessionBlobVersion {
        /// Version of the blob.
        got: u8,
    },
}

/// Result of this crate.
pub type Result<T> = core::result::Result<T, Error>;
