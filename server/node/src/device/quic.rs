//! Devices over QUIC: every request has a bidirectional stream of its own.

use std::sync::Arc;
use std::time::{Duration, Instant};

use quinn::crypto::rustls::QuicServerConfig;
use quinn::{IdleTimeout, Incoming, RecvStream, SendStream, ServerConfig, TransportConfig, VarInt};
use seco_core::message::{MAX_HEADER, decode_header};
use seco_core::{EXPORTER_LABEL, EXPORTER_LEN, Refusal};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tracing::debug;

use super::door::Place;
use super::request::{Device, End, Responder};
use super::{MAX_REQUESTS, TRANSFER, idle};
use crate::cluster::Cluster;
use crate::config::Limits;

/// Time for a device to acknowledge the end of an answer, on a slow link.
const ACKNOWLEDGED: Duration = Duration::from_secs(2);
/// Code with which connections and streams are closed.
pub(super) const CLOSED: VarInt = VarInt::from_u32(0);

/// The endpoint's settings. `tls` says who the gateway is.
pub(super) fn config(
    tls: rustls::ServerConfig,
    request_limit: usize,
    limits: &Limits,
) -> Result<ServerConfig, rustls::Error> {
    let crypto = QuicServerConfig::try_from(tls)
        .map_err(|_| rustls::Error::General("no cipher suite for QUIC".to_owned()))?;
    let mut config = ServerConfig::with_crypto(Arc::new(crypto));
    config.transport_config(Arc::new(transport(request_limit, limits)));
    Ok(config)
}

pub(super) fn transport(request_limit: usize, limits: &Limits) -> TransportConfig {
    let request = u32::try_from(request_limit + MAX_HEADER).unwrap_or(u32::MAX);
    let mut config = TransportConfig::default();
    config
        .max_concurrent_bidi_streams(VarInt::from(MAX_REQUESTS))
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        .datagram_receive_buffer_size(None)
        // What a device can make the gateway hold before anybody reads it.
        .stream_receive_window(request.into())
        .receive_window(request.saturating_mul(4).into())
        // Answers are short: searching for larger packets would cost devices more than it saves.
        .mtu_discovery_config(None)
        // A request may wait for its bundle, and then for its answer.
        .max_idle_timeout(IdleTimeout::try_from(idle(limits.infer())).ok());
    config
}

/// Shakes hands with a device and serves it, in its place.
pub(super) async fn serve(cluster: Arc<Cluster>, place: Place, incoming: Incoming) {
    let connection = tokio::select! {
        connection = timeout(TRANSFER, incoming) => connection,
        _ = place.ended() => return,
    };
    let Ok(Ok(connection)) = connection else { return };
    let mut exporter = [0; EXPORTER_LEN];
    if connection.export_keying_material(&mut exporter, EXPORTER_LABEL, &[]).is_err() {
        return;
    }
    let device = Device::new(cluster, place, false, exporter);
    // Requests end with their connection: nobody would read the answers.
    let mut requests = JoinSet::new();
    let mut ended = std::pin::pin!(device.place.ended());
    let reason = loop {
        tokio::select! {
            stream = connection.accept_bi() => match stream {
                Ok((send, receive)) => {
                    requests.spawn(request(device.clone(), send, receive));
                }
                Err(reason) => break reason.to_string(),
            },
            Some(_) = requests.join_next() => {}
            reason = &mut ended => {
                connection.close(CLOSED, reason.as_bytes());
                break reason.to_owned();
            }
        }
    };
    debug!(address = %connection.remote_address(), reason, "device left");
}

async fn request(device: Arc<Device>, send: SendStream, mut receive: RecvStream) {
    let start = Instant::now();
    let limit = device.cluster.request_limit();
    let message = timeout(TRANSFER, read(&mut receive, limit)).await.unwrap_or(Err(End::Gone));
    device.request(message, Reply { send, finished: false }, start).await;
}

/// The stream's other direction. Dropped before the end, it resets its stream.
struct Reply {
    send: SendStream,
    finished: bool,
}

impl Responder for Reply {
    async fn send(&mut self, frame: &[u8]) -> Result<(), End> {
        self.send.write_all(frame).await.map_err(|_| End::Gone)
    }

    async fn given_up(&mut self) {
        // An error says that the connection has ended.
        let _ = self.send.stopped().await;
    }

    async fn finish(mut self, frame: Option<&[u8]>) {
        if let Some(frame) = frame
            && self.send(frame).await.is_ok()
        {
            let _ = self.send.finish();
            self.finished = true;
            // Done when the device has all of it; one that is gone without a word is not waited for.
            let _ = timeout(ACKNOWLEDGED, self.send.stopped()).await;
        }
    }
}

impl Drop for Reply {
    fn drop(&mut self) {
        if !self.finished {
            // Fails where the device has stopped the stream already.
            let _ = self.send.reset(CLOSED);
        }
    }
}

/// Reads the one message of a request's stream, of at most `limit` bytes.
async fn read(receive: &mut RecvStream, limit: usize) -> Result<Vec<u8>, End> {
    let mut bytes = Vec::new();
    // The length first, so that nothing is held for a message that is too long.
    let length = loop {
        match decode_header(&bytes, limit) {
            Ok(Some(header)) => break header.message_len,
            Ok(None) => {}
            Err(_) => return Err(Refusal::Malformed.into()),
        }
        let mut byte = [0];
        receive.read_exact(&mut byte).await.map_err(|_| End::Gone)?;
        bytes.push(byte[0]);
    };
    bytes.clear();
    bytes.resize(length, 0);
    receive.read_exact(&mut bytes).await.map_err(|_| End::Gone)?;
    Ok(bytes)
}
