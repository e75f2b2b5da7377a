//! The gateway towards devices: sessions and inferences over QUIC (protocol.md sections 3 and 7).
//!
//! Devices are not authenticated, so everything they can make the gateway hold is bounded:
//! connections, requests on each, their size, sessions, and the queue for bundles. What they send
//! is masked; it goes to the protocol and nowhere else.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use quinn::crypto::rustls::QuicServerConfig;
use quinn::{Endpoint, IdleTimeout, Incoming, RecvStream, SendStream, ServerConfig, TransportConfig, VarInt};
use seco_core::message::{MAX_HEADER, decode_header, sealed_keys};
use seco_core::{ModelInfo, Refusal, Request, Response, SessionId, WIRE_VERSION, pack};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tracing::debug;

use crate::Error;
use crate::cluster::{Blame, Cluster, Ready};
use crate::commands::OpenSession;
use crate::config::{Identity, Limits};
use crate::jobs::Failure;
use crate::keys;
use crate::node::Node;
use crate::pool::Take;

/// Protocol between device and gateway.
const ALPN: &[u8] = b"seco/1";
/// Connections at the same time.
const MAX_CONNECTIONS: usize = 1024;
/// From this many on, a device must show that it receives at the address it sends from.
const VALIDATE_FROM: usize = 256;
/// Requests at the same time on one connection.
const MAX_REQUESTS: u32 = 16;
/// Sessions one connection may use at a time; more push out the oldest.
const MAX_HANDLES: usize = 64;
/// Time for a handshake, for a request to arrive, and for an answer to be taken.
const TRANSFER: Duration = Duration::from_secs(30);
/// A connection without traffic ends when no request can be under way any more and this long has
/// passed. Nothing keeps it alive on purpose: that would cost devices their battery.
const IDLE: Duration = Duration::from_secs(15);
/// Code with which connections and streams are closed.
const CLOSED: VarInt = VarInt::from_u32(0);

/// The socket for devices.
#[derive(Clone)]
pub(crate) struct Gateway {
    endpoint: Endpoint,
}

impl Gateway {
    /// Opens the socket. Call it inside a runtime.
    pub fn bind(
        address: SocketAddr,
        identity: &Identity,
        model: &ModelInfo,
        limits: &Limits,
    ) -> Result<Self, Error> {
        let certificate = keys::certificate(&identity.certificate)?;
        let key = keys::tls_key(&identity.key)?;
        let unusable = || Error::Key {
            path: identity.key.clone(),
            what: "does not belong to the certificate of [identity]".to_owned(),
        };
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut tls = rustls::ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(|_| unusable())?
            .with_no_client_auth()
            .with_single_cert(vec![certificate], key)
            .map_err(|_| unusable())?;
        tls.alpn_protocols = vec![ALPN.to_vec()];
        // Devices do not use them.
        tls.send_tls13_tickets = 0;
        let crypto = QuicServerConfig::try_from(tls).map_err(|_| unusable())?;
        let mut config = ServerConfig::with_crypto(Arc::new(crypto));
        config.transport_config(Arc::new(transport(model, limits)));
        let endpoint = Endpoint::server(config, address).map_err(|e| Error::bind(address, e))?;
        Ok(Self { endpoint })
    }

    /// The socket's address.
    pub fn address(&self) -> Result<SocketAddr, Error> {
        self.endpoint.local_addr().map_err(|_| Error::NoRuntime)
    }

    /// Serves devices until the socket is closed.
    pub async fn serve(self, cluster: Arc<Cluster>, node: Arc<Node>) {
        while let Some(incoming) = self.endpoint.accept().await {
            let open = self.endpoint.open_connections();
            if open >= MAX_CONNECTIONS {
                incoming.refuse();
            } else if open >= VALIDATE_FROM && incoming.may_retry() && !incoming.remote_address_validated() {
                // Fails only for what was validated before.
                let _ = incoming.retry();
            } else {
                let handles = Mutex::default();
                let device = Device { cluster: cluster.clone(), node: node.clone(), handles };
                tokio::spawn(Arc::new(device).serve(incoming));
            }
        }
    }

    /// Closes all connections and waits, briefly, until the devices were told.
    pub async fn close(&self) {
        self.endpoint.close(CLOSED, b"stopping");
        let _ = timeout(Duration::from_millis(500), self.endpoint.wait_idle()).await;
    }
}

fn transport(model: &ModelInfo, limits: &Limits) -> TransportConfig {
    let request = u32::try_from(model.request_limit() + MAX_HEADER).unwrap_or(u32::MAX);
    let mut config = TransportConfig::default();
    config
        .max_concurrent_bidi_streams(MAX_REQUESTS.into())
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        .datagram_receive_buffer_size(None)
        // What a device can make the gateway hold before anybody reads it.
        .stream_receive_window(request.into())
        .receive_window(request.saturating_mul(4).into())
        // Answers are short: searching for larger packets would cost devices more than it saves.
        .mtu_discovery_config(None)
        // A request may wait for its bundle, and then for its answer.
        .max_idle_timeout(IdleTimeout::try_from(limits.infer() * 2 + IDLE).ok());
    config
}

/// One device's connection.
struct Device {
    cluster: Arc<Cluster>,
    node: Arc<Node>,
    handles: Mutex<Handles>,
}

/// Short names of sessions on one connection.
#[derive(Default)]
struct Handles {
    next: u32,
    open: VecDeque<(u32, SessionId)>,
}

impl Handles {
    fn get(&self, handle: u32) -> Option<SessionId> {
        self.open.iter().find(|(h, _)| *h == handle).map(|(_, session)| *session)
    }

    fn add(&mut self, session: SessionId) -> u32 {
        if let Some((handle, _)) = self.open.iter().find(|(_, s)| *s == session) {
            return *handle;
        }
        if self.open.len() == MAX_HANDLES {
            self.open.pop_front();
        }
        let handle = self.next;
        self.next = self.next.wrapping_add(1);
        self.open.push_back((handle, session));
        handle
    }
}

/// How a request ends other than by its answer.
enum End {
    Refused(Refusal),
    Busy(Duration),
    /// The device is gone.
    Gone,
}

impl From<Refusal> for End {
    fn from(reason: Refusal) -> Self {
        End::Refused(reason)
    }
}

impl Device {
    async fn serve(self: Arc<Self>, incoming: Incoming) {
        let Ok(Ok(connection)) = timeout(TRANSFER, incoming).await else { return };
        // Requests end with their connection: nobody would read the answers.
        let mut requests = JoinSet::new();
        loop {
            tokio::select! {
                stream = connection.accept_bi() => match stream {
                    Ok((send, receive)) => {
                        let device = self.clone();
                        requests.spawn(async move { device.request(send, receive).await });
                    }
                    Err(reason) => {
                        debug!(address = %connection.remote_address(), %reason, "device left");
                        return;
                    }
                },
                Some(_) = requests.join_next() => {}
            }
        }
    }

    /// One request and its answer.
    async fn request(&self, mut send: SendStream, mut receive: RecvStream) {
        let start = Instant::now();
        let result = match timeout(TRANSFER, read(&mut receive, self.node.info.request_limit())).await {
            Ok(Ok(message)) => match Request::decode(&message) {
                Ok(request) => self.answer(&mut send, request, start).await,
                Err(seco_core::Error::Version { .. }) => {
                    Err(Refusal::VersionUnsupported { supported: WIRE_VERSION }.into())
                }
                Err(_) => Err(Refusal::Malformed.into()),
            },
            Ok(Err(end)) => Err(end),
            Err(_) => Err(End::Gone),
        };
        let frame = match result {
            Ok(frame) => frame,
            Err(End::Refused(reason)) => encode(&Response::Refused { reason }),
            Err(End::Busy(pause)) => encode(&Response::Busy { retry_after_ms: millis(pause) }),
            Err(End::Gone) => {
                let _ = send.reset(CLOSED);
                return;
            }
        };
        if let Ok(Ok(())) = timeout(TRANSFER, send.write_all(&frame)).await {
            let _ = send.finish();
        } else {
            let _ = send.reset(CLOSED);
        }
    }

    async fn answer(
        &self,
        send: &mut SendStream,
        request: Request<'_>,
        start: Instant,
    ) -> Result<Vec<u8>, End> {
        match request {
            Request::Open { session, model, sealed } => {
                if model != self.node.info.id {
                    return Err(Refusal::WrongModel.into());
                }
                let sealed = sealed_keys(sealed).map_err(|_| Refusal::WrongServers)?;
                if sealed.len() != self.node.mesh.servers() {
                    return Err(Refusal::WrongServers.into());
                }
                let opening = OpenSession { session, model, sealed: Vec::new() };
                let sealed = sealed.iter().map(|blob| blob.to_vec()).collect();
                self.cluster
                    .open(&opening, sealed)
                    .await
                    .map_err(|b| self.refusal("opening a session", &b))?;
                let handle = self.handles().add(session);
                Ok(encode(&Response::Opened { handle }))
            }
            Request::Resume { session } => {
                // Knowing a session's id is no harm: answers leave under pads that only its device has.
                let sessions =
                    self.node.sessions.lock().unwrap_or_else(PoisonError::into_inner).get(&session);
                sessions.ok_or(Refusal::UnknownSession)?;
                Ok(encode(&Response::Opened { handle: self.handles().add(session) }))
            }
            Request::Infer { handle, counter, input } => {
                let session = self.handles().get(handle).ok_or(Refusal::UnknownSession)?;
                self.infer(send, session, counter, input, start).await
            }
            Request::Probe { down, noise } => {
                let echo: Vec<u8> = noise.iter().copied().cycle().take(down.into()).collect();
                Ok(encode(&Response::Probe { noise: &echo }))
            }
            // A request of a later version that this one does not know does not decode.
            _ => Err(Refusal::Malformed.into()),
        }
    }

    async fn infer(
        &self,
        send: &mut SendStream,
        session: SessionId,
        counter: u64,
        input: &[u8],
        start: Instant,
    ) -> Result<Vec<u8>, End> {
        let info = &self.node.info;
        if input.len() != info.input_len {
            let expected = u32::try_from(info.input_len).unwrap_or(u32::MAX);
            return Err(Refusal::WrongInputSize { expected }.into());
        }
        let known = self.node.sessions.lock().unwrap_or_else(PoisonError::into_inner).get(&session);
        if known.is_none() {
            return Err(Refusal::UnknownSession.into());
        }
        // Before a bundle is taken: repeating one request must not use up the pool.
        if self.node.ledger.is_used(&session.0, counter) {
            return Err(Refusal::CounterUsed.into());
        }
        let ready = self.bundle(send).await?;
        // On its own task: a device that leaves now must not stop the other servers in mid-job.
        let (cluster, input) = (self.cluster.clone(), input.to_vec());
        let job = tokio::spawn(async move { cluster.infer(ready, (session, counter), input).await });
        let logits = job.await.map_err(|_| Refusal::Internal)?.map_err(|blame| {
            if blame.failure == Failure::UnknownSession {
                // A remote restarted: the device has to open the session there too.
                self.node.sessions.lock().unwrap_or_else(PoisonError::into_inner).remove(&session);
            }
            self.refusal("an inference", &blame)
        })?;
        let mut masked = vec![0; info.logits_len()];
        pack::pack(&logits, info.width, &mut masked).map_err(|_| Refusal::Internal)?;
        self.node.report_inference(start, self.cluster.ready());
        Ok(encode(&Response::Logits { masked: &masked }))
    }

    /// A bundle, at once or after a wait that the device is told of.
    async fn bundle(&self, send: &mut SendStream) -> Result<Ready, End> {
        let unavailable = |server| Refusal::Unavailable { server: u8::try_from(server).unwrap_or(u8::MAX) };
        match self.cluster.take().map_err(unavailable)? {
            Take::Ready(ready) => Ok(ready),
            Take::Full => Err(End::Busy(self.cluster.wait(self.node.limits.queue))),
            Take::Queued { position, ticket } => {
                let wait_ms = millis(self.cluster.wait(position));
                let position = u32::try_from(position).unwrap_or(u32::MAX);
                let frame = encode(&Response::Queued { position, wait_ms });
                send.write_all(&frame).await.map_err(|_| End::Gone)?;
                let stopped = send.stopped();
                tokio::select! {
                    ready = timeout(self.node.limits.infer(), ticket) => match ready {
                        Ok(Ok(ready)) => Ok(ready),
                        Ok(Err(_)) => Err(unavailable(self.node.mesh.missing().unwrap_or_default()).into()),
                        Err(_) => Err(Refusal::TimedOut.into()),
                    },
                    _ = stopped => Err(End::Gone),
                }
            }
        }
    }

    /// What the device is told of a failure; the details stay in the log.
    fn refusal(&self, what: &str, blame: &Blame) -> Refusal {
        self.cluster.report(what, blame);
        let server = |index: usize| u8::try_from(index).unwrap_or(u8::MAX);
        match blame.failure {
            Failure::Unavailable(index) => Refusal::Unavailable { server: server(index) },
            Failure::TimedOut(_) => Refusal::TimedOut,
            Failure::CounterUsed => Refusal::CounterUsed,
            Failure::UnknownSession => Refusal::UnknownSession,
            Failure::WrongModel => Refusal::WrongModel,
            Failure::SealedKey => Refusal::SealRejected { server: server(blame.server) },
            _ => Refusal::Internal,
        }
    }

    fn handles(&self) -> std::sync::MutexGuard<'_, Handles> {
        self.handles.lock().unwrap_or_else(PoisonError::into_inner)
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

/// A response as it goes on the wire.
fn encode(response: &Response<'_>) -> Vec<u8> {
    let mut buffer = vec![0; response.frame_bound()];
    // The buffer has the size asked for, and answers are far below 256 MiB.
    response.encode_frame(&mut buffer).map(<[u8]>::to_vec).unwrap_or_default()
}

fn millis(time: Duration) -> u32 {
    u32::try_from(time.as_millis()).unwrap_or(u32::MAX)
}
