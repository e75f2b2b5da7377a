//! What can go wrong in an oblivious transfer.

/// Why an oblivious transfer failed.
///
/// [`Error::Length`], [`Error::Point`] and [`Error::Padding`] are the peer's doing (a broken or truncated
/// message), the others are misuse by the caller. None carries secret content.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A message from the peer has the wrong length.
    #[error("{what}: {got} bytes where {expected} are due")]
    Length {
        /// Which message.
        what: &'static str,
        /// Bytes that the protocol prescribes.
        expected: usize,
        /// Bytes that came.
        got: usize,
    },
    /// A group element from the peer is no canonical encoding, or is the identity.
    #[error("group element {index} is invalid")]
    Point {
        /// Position in the message, from 0.
        index: usize,
    },
    /// Bits beyond the end of a packed bit string are set.
    #[error("bits beyond the end are set")]
    Padding,
    /// The extension parameter `k` is not 1, 2, 4 or 8.
    #[error("extension parameter {0} is not 1, 2, 4 or 8")]
    Parameter(usize),
    /// Seeds for this number were given out, are forgotten, or lie further ahead than is kept in memory.
    #[error(
        "seeds number {index} are used up or too far from the next, {next}: number them one after the other"
    )]
    Index {
        /// The number asked for.
        index: u64,
        /// The first that was not reached yet.
        next: u64,
    },
    /// Two arguments that belong together differ in length.
    #[error("{what}: {got} elements where {expected} are due")]
    Arguments {
        /// Which argument.
        what: &'static str,
        /// Elements that the call needs.
        expected: usize,
        /// Elements that were given.
        got: usize,
    },
}

/// Result with this crate's [`Error`].
pub type Result<T> = core::result::Result<T, Error>;
