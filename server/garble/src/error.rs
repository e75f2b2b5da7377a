//! What can be wrong with a peer's garbling message.

/// A message that does not fit the circuit. Which peer sent it is the caller's knowledge.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Wrong number of bytes.
    #[error("{what}: {got} bytes, expected {expected}")]
    Length {
        /// Which message.
        what: &'static str,
        /// Bytes received.
        got: usize,
        /// Bytes the circuit asks for.
        expected: usize,
    },
    /// A step was given values of the wrong shape: a caller's mistake.
    #[error("wrong shape of {0}")]
    Shape(&'static str),
}
