//! What a server tells its operator: one line that says which and what to do.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use crate::versions::Versions;

/// Anything that keeps a server from running, or is reported about a running one.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file that cannot be read.
    #[error("{}: cannot be read: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file that cannot be written.
    #[error("{}: cannot be written: {source}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A secret that others can read, and that cannot be closed to them.
    #[error(
        "{}: other users of this machine can read this secret, and its mode cannot be changed ({source}): \
         give it to the user who runs seco, with mode 600 (a folder: 700)",
        path.display()
    )]
    Exposed {
        /// The file or folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file or folder that would be overwritten.
    #[error("{}: exists already: {remedy}", path.display())]
    Exists {
        /// The file or folder.
        path: PathBuf,
        /// What to do.
        remedy: &'static str,
    },
    /// A mistake in a server's settings.
    #[error("{}: {what}", path.display())]
    Config {
        /// The settings file.
        path: PathBuf,
        /// The mistake.
        what: String,
    },
    /// A key, certificate or sealing key file with the wrong content.
    #[error("{}: {what}", path.display())]
    Key {
        /// The file.
        path: PathBuf,
        /// The mistake.
        what: String,
    },
    /// A model, model file or calibration input that cannot be used.
    #[error("{}: {what}", path.display())]
    Model {
        /// The file.
        path: PathBuf,
        /// The mistake.
        what: String,
    },
    /// The ledger cannot be used.
    #[error("{}: {what}", path.display())]
    Ledger {
        /// The ledger or its directory.
        path: PathBuf,
        /// The mistake.
        what: String,
    },
    /// A command was asked for something impossible.
    #[error("{0}")]
    Usage(String),
    /// The operating system gives no random bytes.
    #[error("the operating system gives no random bytes, which keys are made of: try again later")]
    NoRandomness,
    /// The operating system denies threads, timers or sockets.
    #[error(
        "the operating system denies threads, sockets or signal handlers: raise this user's limits (ulimit -u, -n)"
    )]
    NoRuntime,
    /// A socket that cannot be opened.
    #[error(
        "{protocol} address {address} cannot be opened ({source}): stop what uses it, or choose an address of this \
         machine and a free port ([listen] in a server's settings)"
    )]
    Bind {
        /// UDP or TCP.
        protocol: &'static str,
        /// The address.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// Certificates identify servers, so each needs its own.
    #[error("servers {a} and {b} have the same certificate: make one for each with `seco keygen`")]
    SameCertificate {
        /// One of them.
        a: usize,
        /// The other.
        b: usize,
    },
    /// A server that this one dials is not there.
    #[error("server {index} ({name}) at {address} does not answer: is it running?")]
    NoAnswer {
        /// Its number.
        index: usize,
        /// Its name.
        name: String,
        /// Where it should be.
        address: String,
    },
    /// A server's host name that is not known.
    #[error(
        "server {index} ({name}): its address {address} cannot be resolved ({why}): correct address in [[peers]] \
         {index}, or give an IP address"
    )]
    Unresolved {
        /// Its number.
        index: usize,
        /// Its name.
        name: String,
        /// Where it should be.
        address: String,
        /// What the system says.
        why: String,
    },
    /// A server that dials this one did not.
    #[error(
        "server {index} ({name}) did not connect: is it running, with this server's address in its [[peers]]?"
    )]
    NotDialled {
        /// Its number.
        index: usize,
        /// Its name.
        name: String,
    },
    /// Several servers are not connected.
    #[error("{0}")]
    Absent(String),
    /// A server showed another certificate than the pinned one.
    #[error(
        "server {index} ({name}) at {address} shows another certificate than this server's [[peers]] \
         {index} pins: copy its present one, or correct the address"
    )]
    WrongCertificate {
        /// Its number.
        index: usize,
        /// Its name.
        name: String,
        /// Where it is.
        address: String,
    },
    /// A server does not accept this one's certificate.
    #[error(
        "server {index} ({name}) refuses this server's certificate: copy [identity] certificate to its [[peers]]"
    )]
    OwnCertificate {
        /// Its number.
        index: usize,
        /// Its name.
        name: String,
    },
    /// A server with which no version of the protocol between servers is common.
    #[error(
        "server {index} ({name}) speaks {theirs} of the protocol between servers, this one {ours}: install a release \
         that speaks version {} on {}", ours.lacks(*theirs).or(theirs.lacks(*ours)).unwrap_or_default(),
        if ours.lacks(*theirs).is_some() { "this server" } else { "that server" }
    )]
    NoCommonVersion {
        /// Its number.
        index: usize,
        /// Its name.
        name: String,
        /// What it speaks.
        theirs: Versions,
        /// What this one speaks.
        ours: Versions,
    },
    /// A server whose first messages are none.
    #[error(
        "server {index} ({name}) sent something that is no {what}: it does not run seco as it was released; install a \
         release there"
    )]
    Unintelligible {
        /// Its number.
        index: usize,
        /// Its name.
        name: String,
        /// What should have been there.
        what: &'static str,
    },
    /// A server that was set up with other peers.
    #[error(
        "server {index} ({name}) was set up for another cluster: compare index and [[peers]] of both files"
    )]
    DifferentCluster {
        /// Its number.
        index: usize,
        /// Its name.
        name: String,
    },
    /// A server with another model.
    #[error(
        "server {index} ({name}) runs model {theirs}, this one {ours}: give all servers the files of one `seco split`"
    )]
    DifferentModel {
        /// Its number.
        index: usize,
        /// Its name.
        name: String,
        /// The start of its model id.
        theirs: String,
        /// The start of ours.
        ours: String,
    },
    /// A server whose settings have another parameter of oblivious transfer for the link with this one.
    #[error(
        "server {index} ({name}) has ot_parameter = {theirs} for the link with this server, which has {ours}: write the same into both files"
    )]
    DifferentOtParameter {
        /// Its number.
        index: usize,
        /// Its name.
        name: String,
        /// What it says.
        theirs: usize,
        /// What this one's settings say.
        ours: usize,
    },
    /// The cluster could not be set up.
    #[error("the set-up failed: {0}")]
    SetUp(String),
}

impl Error {
    /// A file that cannot be read.
    pub fn read(path: &Path, source: io::Error) -> Self {
        Error::Read { path: path.to_owned(), source }
    }

    /// A file that cannot be written.
    pub fn write(path: &Path, source: io::Error) -> Self {
        Error::Write { path: path.to_owned(), source }
    }

    /// A socket that cannot be opened.
    pub fn bind(protocol: &'static str, address: SocketAddr, source: io::Error) -> Self {
        Error::Bind { protocol, address, source }
    }
}
