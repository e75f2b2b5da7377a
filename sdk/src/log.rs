//! What a client tells of its work, for whoever looks for a fault. Off unless [`ClientBuilder::log`] was called.
//!
//! [`ClientBuilder::log`]: crate::ClientBuilder::log

use crate::{Error, Loss, TransportKind};
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

/// Where a client's events go: a logging framework, a file, a bug report.
pub trait Log: Send + Sync {
    /// Called on the thread that polls the client, while it waits, or that calls [`Client::network_changed`]: should return
    /// at once, and must not use a client. A panic ends here.
    ///
    /// [`Client::network_changed`]: crate::Client::network_changed
    fn log(&self, event: &Event<'_>);
}

impl<F: Fn(&Event<'_>) + Send + Sync> Log for F {
    fn log(&self, event: &Event<'_>) {
        self(event);
    }
}

/// How much an event matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Level {
    /// Of every request, or the application's own doing.
    Debug,
    /// Of connections and sessions.
    Info,
    /// Something is in the way, and mended or returned as an error.
    Warning,
}

/// Why a session was opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Opening {
    /// None was kept, or none that can be read or is for these servers and this model.
    None,
    /// The one before is older than [`ClientBuilder::session_max_age`](crate::ClientBuilder::session_max_age), or from
    /// the future.
    TooOld,
    /// The servers do not know the one before, or do not go on with it.
    Forgotten,
}

/// What happened. Its [`Display`](fmt::Display) is one line for a log, and so is its `Debug`.
///
/// No event has in it, in whatever form: inputs, answers, sessions' names, keys, tokens, or text from a peer. Errors name
/// the gateway as the deployment file does. Log the event and not its error, which has what an application's own session
/// store says of itself.
#[non_exhaustive]
pub enum Event<'a> {
    /// There is a connection to the gateway.
    Connected {
        /// What carries it.
        transport: TransportKind,
        /// Time from the first step to the end of the handshake.
        wall: Duration,
    },
    /// There is none, within the time limit or at all.
    NotConnected {
        /// Why.
        error: &'a Error,
    },
    /// A connection ended, and there will be another one.
    ConnectionLost {
        /// How.
        loss: Loss,
    },
    /// A session was opened: keys were drawn and sealed.
    SessionOpened {
        /// Why there had to be one.
        because: Opening,
    },
    /// A session goes on, on a new connection.
    SessionResumed,
    /// Something passes that is in a request's way, or in that of a client that starts: it is tried again.
    Again {
        /// What.
        error: &'a Error,
        /// Time before the next try.
        pause: Duration,
    },
    /// A request came to its result: an inference or a probe.
    Answered {
        /// Time from call to result.
        wall: Duration,
        /// Bytes from the device meanwhile, other requests' included.
        bytes_up: u64,
        /// Bytes to the device.
        bytes_down: u64,
    },
    /// A request that was made, or a client that starts, came to an error.
    Failed {
        /// Which.
        error: &'a Error,
        /// Time from call to error.
        wall: Duration,
    },
    /// The application said that the network changed.
    NetworkChanged,
    /// The application closed the client.
    Closed,
}

impl Event<'_> {
    /// How much it matters.
    #[must_use]
    pub const fn level(&self) -> Level {
        match self {
            Self::Answered { .. } | Self::NetworkChanged | Self::Closed => Level::Debug,
            Self::Connected { .. } | Self::SessionOpened { .. } | Self::SessionResumed => Level::Info,
            Self::NotConnected { .. }
            | Self::ConnectionLost { .. }
            | Self::Again { .. }
            | Self::Failed { .. } => Level::Warning,
        }
    }

    /// Its name, for filters: `connected`, `not_connected`, `connection_lost`, `session_opened`, `session_resumed`,
    /// `again`, `answered`, `failed`, `network_changed` or `closed`. Names stay what they are.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Connected { .. } => "connected",
            Self::NotConnected { .. } => "not_connected",
            Self::ConnectionLost { .. } => "connection_lost",
            Self::SessionOpened { .. } => "session_opened",
            Self::SessionResumed => "session_resumed",
            Self::Again { .. } => "again",
            Self::Answered { .. } => "answered",
            Self::Failed { .. } => "failed",
            Self::NetworkChanged => "network_changed",
            Self::Closed => "closed",
        }
    }
}

impl fmt::Debug for Event<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {self}", self.name())
    }
}

impl fmt::Display for Event<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connected { transport, wall } => {
                let transport = match transport {
                    TransportKind::Quic => "QUIC",
                    TransportKind::Tcp => "TCP",
                };
                write!(f, "connected over {transport} in {} ms", wall.as_millis())
            }
            Self::NotConnected { error } => write!(f, "not connected: {}", Told(error)),
            Self::ConnectionLost { loss } => write!(f, "connection lost: {loss}"),
            Self::SessionOpened { because } => f.write_str(match because {
                Opening::None => "session opened: none was kept for these servers",
                Opening::TooOld => "session opened: the one before is too old",
                Opening::Forgotten => "session opened: the servers do not know the one before",
            }),
            Self::SessionResumed => f.write_str("session resumed"),
            Self::Again { error, pause } => {
                write!(f, "trying again in {} ms: {}", pause.as_millis(), Told(error))
            }
            Self::Answered { wall, bytes_up, bytes_down } => {
                write!(f, "answered in {} ms, {bytes_up} bytes up, {bytes_down} down", wall.as_millis())
            }
            Self::Failed { error, wall } => {
                write!(f, "failed after {} ms: {}", wall.as_millis(), Told(error))
            }
            Self::NetworkChanged => f.write_str("the network changed"),
            Self::Closed => f.write_str("closed"),
        }
    }
}

/// An error without what others put into it: an application's session store may say anything.
struct Told<'a>(&'a Error);

impl fmt::Display for Told<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Error::Storage(_) => f.write_str("the session cannot be loaded or saved"),
            error => error.fmt(f),
        }
    }
}

/// A client's log, if it has one. Without one an event is not even made.
#[derive(Clone, Default)]
pub(crate) struct Logger(pub(crate) Option<Arc<dyn Log>>);

impl Logger {
    pub(crate) fn tell<'a>(&self, event: impl FnOnce() -> Event<'a>) {
        if let Some(log) = &self.0 {
            // What an application does there must not end its request.
            let _ = catch_unwind(AssertUnwindSafe(|| log.log(&event())));
        }
    }
}
