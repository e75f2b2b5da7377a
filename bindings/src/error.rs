//! Errors, by what an application can do about them.

use seco_sdk::{Error, Loss, Refusal};
use std::time::Duration;

/// What went wrong. The numbers are stable: an application may store or report them.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, uniffi::Error)]
pub enum SecoError {
    /// 1: the deployment file, a setting or a value of the input cannot be used. A mistake of the application or its
    /// data.
    #[error("{reason}")]
    InvalidConfiguration {
        /// What to correct.
        reason: String,
    },
    /// 2: the input has not as many values as the model takes; or bytes, where each value has two.
    #[error("{reason}")]
    WrongInputSize {
        /// Values, or bytes, that the model takes.
        expected: u32,
        /// Those given.
        got: u32,
        /// Both, and the model's axes.
        reason: String,
    },
    /// 3: the servers cannot be reached, or the connection was lost, and the request's time limit left no time for
    /// another try. Try again later, or with a network.
    #[error("{reason}")]
    Network {
        /// What happened.
        reason: String,
    },
    /// 4: not finished within the time that the settings allow.
    #[error("{reason}")]
    Timeout {
        /// What was awaited.
        reason: String,
    },
    /// 5: the servers have no capacity now.
    #[error("the servers are busy; try again in {retry_after_ms} ms")]
    Busy {
        /// When to try again, in milliseconds.
        retry_after_ms: u32,
    },
    /// 6: the servers refused the request, which trying again seldom changes.
    #[error("{reason}")]
    Refused {
        /// The servers' reason.
        reason: String,
    },
    /// 7: the gateway is not the one that the deployment file names. Get the current file where this one came from:
    /// `fetch_deployment_update` asks the same gateway, and trusts no other either.
    #[error("{reason}")]
    UntrustedServer {
        /// Who it was.
        reason: String,
    },
    /// 8: the gateway does not speak this version of the protocol.
    #[error("{reason}")]
    IncompatibleServer {
        /// What it did.
        reason: String,
    },
    /// 9: the application's session store failed, or the system has no randomness. Nothing was sent.
    #[error("{reason}")]
    Storage {
        /// What failed.
        reason: String,
    },
    /// 10: the client was shut down, or the request cancelled.
    #[error("{reason}")]
    Closed {
        /// Which of both.
        reason: String,
    },
    /// 11: the gateway serves only who shows a token, or does not take this one. Its operator gives them away.
    #[error("{reason}")]
    TokenRefused {
        /// What is wrong with it.
        problem: TokenProblem,
        /// Where it is exhausted for now, seconds until it is good again; otherwise 0.
        retry_after_s: u32,
        /// What to do.
        reason: String,
    },
}

/// What is wrong with a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, uniffi::Enum)]
pub enum TokenProblem {
    /// None was shown.
    Missing,
    /// It is unknown, or was revoked.
    Invalid,
    /// Its time is over.
    Expired,
    /// All requests that it is good for were made.
    Exhausted,
}

impl SecoError {
    /// The stable number of this kind of error: `1..=11`.
    #[must_use]
    pub const fn code(&self) -> u32 {
        match self {
            Self::InvalidConfiguration { .. } => 1,
            Self::WrongInputSize { .. } => 2,
            Self::Network { .. } => 3,
            Self::Timeout { .. } => 4,
            Self::Busy { .. } => 5,
            Self::Refused { .. } => 6,
            Self::UntrustedServer { .. } => 7,
            Self::IncompatibleServer { .. } => 8,
            Self::Storage { .. } => 9,
            Self::Closed { .. } => 10,
            Self::TokenRefused { .. } => 11,
        }
    }

    pub(crate) fn no_token() -> Self {
        Self::InvalidConfiguration { reason: "the token is not seco_ and 48 hexadecimal digits".to_owned() }
    }

    pub(crate) fn cancelled() -> Self {
        Self::Closed { reason: "the request was cancelled".to_owned() }
    }
}

impl From<Error> for SecoError {
    fn from(error: Error) -> Self {
        let reason = error.to_string();
        match error {
            Error::WrongInputSize { expected, got, .. } | Error::WrongInputBytes { expected, got, .. } => {
                Self::WrongInputSize { expected: length(expected), got: length(got), reason }
            }
            Error::ProbeTooLong { .. }
            | Error::InputValue { .. }
            | Error::File { .. }
            | Error::Deployment { .. }
            | Error::Setting { .. } => Self::InvalidConfiguration { reason },
            Error::Busy { retry_after } => Self::Busy { retry_after_ms: milliseconds(retry_after) },
            Error::Refused(Refusal::Malformed) | Error::Protocol(_) => Self::IncompatibleServer { reason },
            Error::Timeout { .. } | Error::Refused(Refusal::TimedOut) => Self::Timeout { reason },
            Error::Refused(Refusal::Unavailable { .. } | Refusal::ShuttingDown) => Self::Network { reason },
            Error::Refused(refusal) => match token_problem(refusal) {
                Some((problem, retry_after_s)) => Self::TokenRefused { problem, retry_after_s, reason },
                None => Self::Refused { reason },
            },
            Error::PinMismatch { .. } => Self::UntrustedServer { reason },
            Error::Storage(_) | Error::NoRandomness => Self::Storage { reason },
            Error::Closed(Loss::Local) | Error::Session(_) => Self::Closed { reason },
            // Of what later versions add, trying again is the best guess.
            _ => Self::Network { reason },
        }
    }
}

/// What a refusal says of the token, and when to try again.
fn token_problem(refusal: Refusal) -> Option<(TokenProblem, u32)> {
    match refusal {
        Refusal::TokenMissing => Some((TokenProblem::Missing, 0)),
        Refusal::TokenInvalid => Some((TokenProblem::Invalid, 0)),
        Refusal::TokenExpired => Some((TokenProblem::Expired, 0)),
        Refusal::TokenExhausted { retry_after_s } => Some((TokenProblem::Exhausted, retry_after_s)),
        _ => None,
    }
}

/// Why an application's [`SessionStore`](crate::SessionStore) failed. Any other exception that it throws means
/// the same.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, uniffi::Error)]
pub enum StoreError {
    /// It cannot be read or written now.
    #[error("{reason}")]
    Unavailable {
        /// For the log. Not the session.
        reason: String,
    },
}

impl From<uniffi::UnexpectedUniFFICallbackError> for StoreError {
    fn from(error: uniffi::UnexpectedUniFFICallbackError) -> Self {
        Self::Unavailable { reason: error.reason }
    }
}

/// As a number for the foreign languages: what is longer is not told apart.
pub(crate) fn length(bytes: usize) -> u32 {
    u32::try_from(bytes).unwrap_or(u32::MAX)
}

pub(crate) fn milliseconds(time: Duration) -> u32 {
    u32::try_from(time.as_millis()).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_that_passes_is_not_told_as_final() {
        for (refusal, code) in [
            (Refusal::Unavailable { server: 1 }, 3),
            (Refusal::ShuttingDown, 3),
            (Refusal::TimedOut, 4),
            (Refusal::WrongModel, 6),
            (Refusal::Malformed, 8),
            (Refusal::TokenMissing, 11),
            (Refusal::TokenExhausted { retry_after_s: 5 }, 11),
        ] {
            assert_eq!(SecoError::from(Error::Refused(refusal)).code(), code, "{refusal}");
        }
    }
}
