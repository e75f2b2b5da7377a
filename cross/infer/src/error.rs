//! What can go wrong, and the exit code that tells a script or systemd what to do about it.

use std::fmt;
use std::io;
use std::process::ExitCode;

use seco_sdk::{Error as Sdk, Refusal};

/// Why the program, or one of its inputs, failed.
#[derive(Debug)]
pub enum Error {
    /// The command line.
    Usage(String),
    /// An input; says which.
    Input { name: String, what: String },
    /// The client.
    Client(Sdk),
    /// Standard output.
    Output(io::Error),
}

impl Error {
    /// Listed in `--help`.
    pub fn code(&self) -> u8 {
        match self {
            Self::Usage(_) => 2,
            Self::Input { .. } | Self::Client(Sdk::WrongInputSize { .. }) => 3,
            Self::Output(_)
            | Self::Client(
                Sdk::File { .. }
                | Sdk::Deployment { .. }
                | Sdk::Setting { .. }
                | Sdk::Session(_)
                | Sdk::Storage(_),
            ) => 4,
            Self::Client(error) if passing(error) => 5,
            Self::Client(_) => 6,
        }
    }

    pub fn exit_code(&self) -> ExitCode {
        ExitCode::from(self.code())
    }

    /// Whether the same request may succeed later.
    pub fn is_passing(&self) -> bool {
        matches!(self, Self::Client(error) if passing(error))
    }
}

fn passing(error: &Sdk) -> bool {
    match error {
        Sdk::NoRandomness
        | Sdk::Setup(_)
        | Sdk::Connect { .. }
        | Sdk::Busy { .. }
        | Sdk::Timeout { .. }
        | Sdk::Closed(_) => true,
        Sdk::Refused(refusal) => {
            matches!(refusal, Refusal::Unavailable { .. } | Refusal::TimedOut | Refusal::Internal)
        }
        _ => false,
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Usage(what) => write!(f, "{what}; see seco-infer --help"),
            Self::Input { name, what } => write!(f, "{name}: {what}"),
            Self::Client(error) => error.fmt(f),
            Self::Output(error) => write!(f, "cannot write to standard output: {error}"),
        }
    }
}

impl From<Sdk> for Error {
    fn from(error: Sdk) -> Self {
        Self::Client(error)
    }
}

impl From<lexopt::Error> for Error {
    fn from(error: lexopt::Error) -> Self {
        Self::Usage(error.to_string())
    }
}
