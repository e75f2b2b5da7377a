//! The one error type of this crate. Every message is one line that says what to do.

use crate::Address;
use crate::shape::Axes;
use seco_core::Refusal;
use std::path::PathBuf;
use std::time::Duration;

/// What went wrong. No variant carries secrets or text from a peer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The deployment file cannot be read.
    #[error("cannot read the deployment file {}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The deployment is not usable as it is.
    #[error("deployment, {at}: {problem}")]
    Deployment {
        /// The line or field.
        at: String,
        /// What to correct.
        problem: String,
    },
    /// A setting of [`ClientBuilder`](crate::ClientBuilder) is not possible.
    #[error("setting {setting} {problem}")]
    Setting {
        /// Its name.
        setting: &'static str,
        /// What to correct.
        problem: &'static str,
    },
    /// [`Client::connect`](crate::Client::connect) was called outside a tokio runtime.
    #[error("no tokio runtime is running; connect from within one")]
    NoRuntime,
    /// The operating system gave no randomness.
    #[error("the operating system gives no randomness; try again later")]
    NoRandomness,
    /// No socket, or TLS could not be configured.
    #[error("cannot set up the connection: {0}")]
    Setup(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The gateway does not answer, or not as a SECO gateway.
    #[error("cannot connect to {gateway}: {reason}; check the network and the gateway's address")]
    Connect {
        /// Where it should be.
        gateway: Address,
        /// What happened.
        reason: Loss,
    },
    /// The gateway showed a certificate that the deployment does not pin: it was replaced, or someone is in
    /// between.
    #[error(
        "{gateway} showed a certificate that is not pinned; fetch the current deployment file from its source"
    )]
    PinMismatch {
        /// Who showed it.
        gateway: Address,
    },
    /// The input is not as long as the model's.
    #[error("the model takes {expected} input values ({}), got {got}: give one for each", Axes(shape, " x "))]
    WrongInputSize {
        /// Values that the model takes.
        expected: usize,
        /// Values given.
        got: usize,
        /// The model's axes, whose product is `expected`.
        shape: Vec<usize>,
    },
    /// The input is not as long as the model's, whose values have two bytes each.
    #[error(
        "the model takes {expected} bytes of input, two for each of {} values, got {got}: give both of each, the lower \
         first",
        Axes(shape, " x ")
    )]
    WrongInputBytes {
        /// Bytes that the model takes.
        expected: usize,
        /// Bytes given.
        got: usize,
        /// The model's axes, whose product is half of `expected`.
        shape: Vec<usize>,
    },
    /// A value of the input cannot be used.
    #[error("value {index} of the input {problem}")]
    InputValue {
        /// Its place, from 0.
        index: usize,
        /// What to correct.
        problem: &'static str,
    },
    /// A probe is longer than a request or an answer may be.
    #[error("a probe of {got} bytes exceeds {limit}; use a shorter one")]
    ProbeTooLong {
        /// Most bytes.
        limit: usize,
        /// Bytes asked for.
        got: usize,
    },
    /// All bundles and places in the queue are taken.
    #[error("the servers are busy; try again in {} ms", retry_after.as_millis())]
    Busy {
        /// How long to wait before the next try.
        retry_after: Duration,
    },
    /// The gateway refused the request.
    #[error("refused: {0}")]
    Refused(Refusal),
    /// A step did not finish in the time that the settings allow.
    #[error("no {step} within {} ms; try again, or allow more time", limit.as_millis())]
    Timeout {
        /// What was awaited.
        step: &'static str,
        /// The limit.
        limit: Duration,
    },
    /// The connection ended during a request, which may or may not have been carried out, and no time is left to make
    /// it again.
    #[error("connection lost: {0}; try again")]
    Closed(Loss),
    /// The gateway does not follow the protocol.
    #[error("the gateway broke the protocol: {0}; check that application and servers have matching versions")]
    Protocol(Violation),
    /// The session cannot serve the request.
    #[error("session: {0}; connect again")]
    Session(#[source] seco_core::Error),
    /// The application's [`SessionStore`](crate::SessionStore) failed. Nothing was sent under the session.
    #[error("cannot load or save the session: {0}; try again when its store is available")]
    Storage(#[source] std::io::Error),
}

/// How a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Loss {
    /// The gateway's host name has no address here, or nobody says which.
    #[error("its name cannot be resolved")]
    Unresolved,
    /// Nothing came for too long.
    #[error("no sign of the gateway for too long")]
    Silence,
    /// Nothing accepts connections at the gateway's address.
    #[error("nobody accepts connections there")]
    NobodyThere,
    /// The gateway closed it.
    #[error("the gateway closed the connection")]
    ByGateway,
    /// The gateway does not know the connection; it restarted.
    #[error("the gateway restarted")]
    Restart,
    /// [`Client::close`](crate::Client::close) was called.
    #[error("the client is closed")]
    Local,
    /// [`Client::network_changed`](crate::Client::network_changed) was called, and the connection cannot move.
    #[error("the network changed")]
    NetworkChanged,
    /// The QUIC, TCP or TLS layer gave up.
    #[error("the handshake or transport failed")]
    Transport,
}

/// How a gateway broke the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Violation {
    /// A message cannot be read.
    #[error("{0}")]
    Message(seco_core::Error),
    /// The stream ended before the answer did.
    #[error("the answer is incomplete")]
    Truncated,
    /// The gateway reset the stream.
    #[error("the request was dropped")]
    Dropped,
    /// A response to no request that is open.
    #[error("an answer belongs to no request")]
    UnknownRequest,
    /// A response of another kind than the request asks for.
    #[error("the answer is of the wrong kind")]
    WrongKind,
    /// A probe's answer has another length than asked for.
    #[error("the probe's answer has {got} bytes instead of {expected}")]
    ProbeSize {
        /// Bytes asked for.
        expected: usize,
        /// Bytes received.
        got: usize,
    },
}

/// Result of this crate.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// Whether the same call may succeed later although nothing was changed: the network, the servers or the
    /// session store were in the way.
    ///
    /// Of a request: it was made again as long as its time limit allowed, unless the servers told
    /// [`Refusal::TimedOut`] or [`Refusal::Internal`]. Of connecting: try again after some seconds, or after
    /// [`Error::Busy::retry_after`].
    #[must_use]
    pub fn is_temporary(&self) -> bool {
        match self {
            Self::NoRandomness
            | Self::Connect { .. }
            | Self::Busy { .. }
            | Self::Timeout { .. }
            | Self::Storage(_) => true,
            Self::Closed(loss) => *loss != Loss::Local,
            Self::Refused(refusal) => matches!(
                refusal,
                Refusal::Unavailable { .. }
                    | Refusal::TimedOut
                    | Refusal::Internal
                    | Refusal::ShuttingDown
                    | Refusal::TokenExhausted { retry_after_s: 1.. }
            ),
            Self::File { .. }
            | Self::Deployment { .. }
            | Self::Setting { .. }
            | Self::NoRuntime
            | Self::Setup(_)
            | Self::PinMismatch { .. }
            | Self::WrongInputSize { .. }
            | Self::WrongInputBytes { .. }
            | Self::InputValue { .. }
            | Self::ProbeTooLong { .. }
            | Self::Protocol(_)
            | Self::Session(_) => false,
        }
    }

    pub(crate) fn setup(error: impl std::error::Error + Send + Sync + 'static) -> Self {
        Self::Setup(Box::new(error))
    }
}

impl From<&quinn::ConnectionError> for Loss {
    fn from(error: &quinn::ConnectionError) -> Self {
        use quinn::ConnectionError as E;
        match error {
            E::TimedOut => Self::Silence,
            E::ConnectionClosed(_) | E::ApplicationClosed(_) => Self::ByGateway,
            E::Reset => Self::Restart,
            E::LocallyClosed => Self::Local,
            E::VersionMismatch | E::TransportError(_) | E::CidsExhausted => Self::Transport,
        }
    }
}

impl From<quinn::ConnectionError> for Error {
    fn from(error: quinn::ConnectionError) -> Self {
        Self::Closed(Loss::from(&error))
    }
}

impl From<Violation> for Error {
    fn from(violation: Violation) -> Self {
        Self::Protocol(violation)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_passes_is_told_from_what_needs_a_change() {
        for refusal in [Refusal::Unavailable { server: 2 }, Refusal::TimedOut, Refusal::ShuttingDown] {
            assert!(Error::Refused(refusal).is_temporary(), "{refusal}");
        }
        for refusal in [Refusal::WrongModel, Refusal::Malformed, Refusal::SealRejected { server: 1 }] {
            assert!(!Error::Refused(refusal).is_temporary(), "{refusal}");
        }
        assert!(Error::Closed(Loss::Restart).is_temporary());
        assert!(!Error::Closed(Loss::Local).is_temporary());
        assert!(!Error::WrongInputSize { expected: 784, got: 783, shape: vec![1, 28, 28] }.is_temporary());
    }
}
