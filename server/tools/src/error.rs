//! What a command tells its user: one line that says which and what to do.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

/// Anything that ends a command.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file, key or setting of a server.
    #[error(transparent)]
    Node(#[from] seco_node::Error),
    /// A file or folder that would be overwritten.
    #[error("{}: exists already: {remedy}", path.display())]
    Exists {
        /// The file or folder.
        path: PathBuf,
        /// What to do.
        remedy: &'static str,
    },
    /// A model, model file or input that cannot be used.
    #[error("{}: {what}", path.display())]
    Model {
        /// The file.
        path: PathBuf,
        /// The mistake.
        what: String,
    },
    /// A command was asked for something impossible.
    #[error("{0}")]
    Usage(String),
    /// A command could not go on.
    #[error("{0}")]
    Failed(String),
    /// Ctrl-C or SIGTERM.
    #[error("interrupted")]
    Interrupted,
}

impl Error {
    /// A file that cannot be read.
    pub fn read(path: &Path, source: io::Error) -> Self {
        seco_node::Error::read(path, source).into()
    }

    /// A file that cannot be written.
    pub fn write(path: &Path, source: io::Error) -> Self {
        seco_node::Error::write(path, source).into()
    }

    /// A socket that cannot be opened.
    pub fn bind(protocol: &'static str, address: SocketAddr, source: io::Error) -> Self {
        seco_node::Error::bind(protocol, address, source).into()
    }

    /// The operating system denies threads, timers or sockets.
    pub fn no_runtime() -> Self {
        seco_node::Error::NoRuntime.into()
    }
}
