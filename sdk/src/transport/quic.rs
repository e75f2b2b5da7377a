//! Requests over QUIC: each on a bidirectional stream of its own.

use crate::cost::Cost;
use crate::{Error, Loss, Result, Violation};
use bytes::Bytes;
use quinn::{Connection, ReadError, RecvStream, SendStream, VarInt, WriteError};
use seco_core::message::decode_header;
use seco_core::{EXPORTER_LABEL, EXPORTER_LEN};
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Waker};
use std::time::Duration;

/// Bytes read at once. An answer of ten logits has thirty.
const CHUNK: usize = 1024;

/// Code with which streams and connections are given up.
const CANCELLED: VarInt = VarInt::from_u32(0);

/// Bytes that the gateway may send ahead of being read. Answers are short.
pub(crate) const RECEIVE_WINDOW: u32 = 1 << 20;

#[derive(Clone)]
pub(crate) struct QuicConnection {
    connection: Connection,
    /// The receive window as it was announced last.
    window: Arc<AtomicU32>,
    given_up: Arc<OnceLock<Loss>>,
}

impl QuicConnection {
    pub(crate) fn new(connection: Connection) -> Self {
        let window = Arc::new(AtomicU32::new(RECEIVE_WINDOW));
        Self { connection, window, given_up: Arc::default() }
    }

    pub(crate) fn exporter(&self) -> Result<[u8; EXPORTER_LEN]> {
        let mut exporter = [0; EXPORTER_LEN];
        // Fails before the handshake is done, or for megabytes. An empty context is none in TLS 1.3.
        match self.connection.export_keying_material(&mut exporter, EXPORTER_LABEL, b"") {
            Ok(()) => Ok(exporter),
            Err(_) => Err(Error::Closed(Loss::Transport)),
        }
    }

    pub(crate) fn remote(&self) -> SocketAddr {
        self.connection.remote_address()
    }

    pub(crate) fn lost(&self) -> Option<Loss> {
        let reason = self.connection.close_reason()?;
        Some(self.given_up.get().copied().unwrap_or(Loss::from(&reason)))
    }

    pub(crate) async fn ended(&self) {
        self.connection.closed().await;
    }

    /// As measured by what was acknowledged.
    pub(crate) fn round_trip(&self) -> Duration {
        self.connection.rtt()
    }

    pub(crate) fn give_up(&self, loss: Loss) {
        // A connection is given up once; whoever comes later means the same.
        let _ = self.given_up.set(loss);
        self.connection.close(CANCELLED, b"");
    }

    pub(crate) fn traffic(&self) -> Cost {
        let stats = self.connection.stats();
        Cost {
            bytes_up: stats.udp_tx.bytes,
            bytes_down: stats.udp_rx.bytes,
            datagrams_up: stats.udp_tx.datagrams,
            datagrams_down: stats.udp_rx.datagrams,
            ..Cost::default()
        }
    }

    /// quinn sends pings at a fixed interval or never. A receive window that is a byte larger has to be
    /// announced, and is acknowledged, like a ping.
    pub(crate) fn ping(&self) {
        let window = self.window.fetch_add(1, Ordering::Relaxed).wrapping_add(1);
        self.connection.set_receive_window(window.into());
    }

    pub(crate) async fn send(&self, frame: Bytes) -> Result<Exchange> {
        let (up, down) = self.connection.open_bi().await.map_err(|error| self.closed(&error))?;
        let connection = self.clone();
        let mut exchange = Exchange { connection, up, down, received: Vec::new(), answered: false };
        match exchange.up.write_chunk(frame).await {
            // A gateway that stops reading has decided already: its response says why.
            Ok(()) | Err(WriteError::Stopped(_)) => {}
            Err(WriteError::ConnectionLost(error)) => return Err(self.closed(&error)),
            Err(_) => return Err(Violation::Dropped.into()),
        }
        // Fails only where the gateway stopped reading.
        let _ = exchange.up.finish();
        Ok(exchange)
    }

    fn closed(&self, error: &quinn::ConnectionError) -> Error {
        Error::Closed(self.given_up.get().copied().unwrap_or(Loss::from(error)))
    }
}

/// A request's stream. Without a reset, quinn would end a half-sent request as if it were whole.
pub(crate) struct Exchange {
    connection: QuicConnection,
    up: SendStream,
    down: RecvStream,
    received: Vec<u8>,
    answered: bool,
}

impl Exchange {
    pub(crate) async fn next(&mut self, limit: usize) -> Result<Vec<u8>> {
        loop {
            if let Some(header) = decode_header(&self.received, limit).map_err(Violation::Message)?
                && let end = header.header_len + header.message_len
                && self.received.len() >= end
            {
                let rest = self.received.split_off(end);
                let mut message = std::mem::replace(&mut self.received, rest);
                message.drain(..header.header_len);
                return Ok(message);
            }
            match self.down.read_chunk(CHUNK, true).await {
                Ok(Some(chunk)) => self.received.extend_from_slice(&chunk.bytes),
                Ok(None) => return Err(Violation::Truncated.into()),
                Err(ReadError::ConnectionLost(error)) => return Err(self.connection.closed(&error)),
                Err(_) => return Err(Violation::Dropped.into()),
            }
        }
    }

    pub(crate) fn finish(mut self) {
        self.answered = true;
        // The stream's end comes with the answer. Unless it is read, quinn asks the gateway to stop sending,
        // which costs a packet each way.
        let end = pin!(self.down.read_chunk(CHUNK, true));
        let _ = end.poll(&mut Context::from_waker(Waker::noop()));
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        if !self.answered {
            // Fails where that direction has ended already.
            let _ = self.up.reset(CANCELLED);
            let _ = self.down.stop(CANCELLED);
        }
    }
}
