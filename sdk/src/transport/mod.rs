//! Connections: requests go up, answers come down, whatever is in between.

mod counted;
mod quic;
mod tcp;

use crate::cost::Cost;
use crate::watch::Signs;
use crate::{Loss, Result, TransportKind};
use bytes::Bytes;
use seco_core::EXPORTER_LEN;

pub(crate) use quic::{QuicConnection, RECEIVE_WINDOW};
pub(crate) use tcp::{TcpConnection, dial};

/// A connection to the gateway. Clones are the same connection.
#[derive(Clone)]
pub(crate) enum Connection {
    Quic(QuicConnection),
    Tcp(TcpConnection),
}

/// A request under way. Dropped before [`Exchange::finish`], it tells the gateway that nobody listens any
/// more.
pub(crate) enum Exchange {
    Quic(quic::Exchange),
    Tcp(tcp::Exchange),
}

impl Connection {
    pub(crate) fn kind(&self) -> TransportKind {
        match self {
            Self::Quic(_) => TransportKind::Quic,
            Self::Tcp(_) => TransportKind::Tcp,
        }
    }

    /// What the TLS session yields at both ends for this connection's incarnation.
    pub(crate) fn exporter(&self) -> Result<[u8; EXPORTER_LEN]> {
        match self {
            Self::Quic(connection) => connection.exporter(),
            Self::Tcp(connection) => Ok(connection.exporter()),
        }
    }

    /// How the connection ended, if it has.
    pub(crate) fn lost(&self) -> Option<Loss> {
        match self {
            Self::Quic(connection) => connection.lost(),
            Self::Tcp(connection) => connection.lost(),
        }
    }

    /// Gives the connection up, because of `loss`.
    pub(crate) fn give_up(&self, loss: Loss) {
        match self {
            Self::Quic(connection) => connection.give_up(loss),
            Self::Tcp(connection) => connection.give_up(loss),
        }
    }

    /// What was sent and received so far; nothing else.
    pub(crate) fn traffic(&self) -> Cost {
        match self {
            Self::Quic(connection) => connection.traffic(),
            Self::Tcp(connection) => connection.traffic(),
        }
    }

    /// What can be told of its way.
    pub(crate) fn signs(&self) -> Signs {
        match self {
            Self::Quic(connection) => Signs { round_trip: connection.round_trip(), acknowledged: true },
            Self::Tcp(connection) => Signs { round_trip: connection.round_trip(), acknowledged: false },
        }
    }

    /// Ready when the connection has ended.
    pub(crate) async fn ended(&self) {
        match self {
            Self::Quic(connection) => connection.ended().await,
            Self::Tcp(connection) => connection.ended().await,
        }
    }

    /// Sends the shortest thing that makes the gateway send something back.
    pub(crate) fn ping(&self) {
        match self {
            Self::Quic(connection) => connection.ping(),
            Self::Tcp(connection) => connection.ping(),
        }
    }

    /// Sends a request; returns once the transport has taken all of it.
    pub(crate) async fn send(&self, frame: Bytes) -> Result<Exchange> {
        match self {
            Self::Quic(connection) => connection.send(frame).await.map(Exchange::Quic),
            Self::Tcp(connection) => connection.send(frame).await.map(Exchange::Tcp),
        }
    }
}

impl Exchange {
    /// The next message that comes down, of at most `limit` bytes.
    pub(crate) async fn next(&mut self, limit: usize) -> Result<Vec<u8>> {
        match self {
            Self::Quic(exchange) => exchange.next(limit).await,
            // Its connection knows the limit.
            Self::Tcp(exchange) => exchange.next().await,
        }
    }

    /// The last message has come.
    pub(crate) fn finish(self) {
        match self {
            Self::Quic(exchange) => exchange.finish(),
            // Ended with its answer.
            Self::Tcp(_) => {}
        }
    }
}
