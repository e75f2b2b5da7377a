//! What can go wrong in one server's part of the protocol.

use crate::{ChannelError, LedgerError, SpoolError};

/// Who did what wrong. Peers are named by their index in the cluster.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The network.
    #[error(transparent)]
    Channel(#[from] ChannelError),
    /// The bundle or the inference number was used before, or the ledger cannot be written.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// A bundle's tables could not be kept.
    #[error("keeping a bundle: {0}")]
    Spool(#[from] SpoolError),
    /// A peer's message does not fit the protocol.
    #[error("server {peer} sent an invalid message ({phase})")]
    Peer {
        /// The peer's index.
        peer: usize,
        /// Where in the protocol.
        phase: &'static str,
    },
    /// The model cannot be served.
    #[error(transparent)]
    Model(#[from] seco_model::Error),
    /// Homomorphic encryption: mostly a noise budget that does not suffice for the model.
    #[error(transparent)]
    He(#[from] seco_he::Error),
    /// Garbling was called with values of the wrong shape.
    #[error("garbling: {0}")]
    Garble(#[from] seco_garble::Error),
    /// Oblivious transfer failed locally.
    #[error("oblivious transfer: {0}")]
    Ot(#[from] seco_ot::Error),
    /// The device's pads.
    #[error(transparent)]
    Pads(#[from] seco_core::Error),
    /// Stored bytes are not those of a bundle that this server can use.
    #[error("the stored bundle cannot be used ({0}): make a new one")]
    Bundle(&'static str),
    /// The bundle belongs to another model, or a value has the wrong size.
    #[error("{0}")]
    Misuse(&'static str),
    /// A protocol thread died.
    #[error("a protocol thread ended unexpectedly")]
    Thread,
}

/// Names the peer behind a failure to use its message.
pub(crate) fn from_peer<T, E>(result: Result<T, E>, peer: usize, phase: &'static str) -> Result<T, Error> {
    result.map_err(|_| Error::Peer { peer, phase })
}
