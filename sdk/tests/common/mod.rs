//! A gateway for tests: it holds every server's opening key, so it can do in clear what the cluster does
//! privately. What it answers is scripted, well or badly.
#![allow(dead_code, reason = "every test binary uses a part of it")]

pub mod ledger;
pub mod network;
pub mod tcp;

use network::Network;
use quinn::crypto::rustls::QuicServerConfig;
use quinn::{Connection, Endpoint, ServerConfig};
use rustls::crypto::ring;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use seco_core::message::{decode_header, resume_tags, sealed_keys};
use seco_core::{
    Binding, EXPORTER_LABEL, EXPORTER_LEN, Incarnation, IncarnationKey, ModelInfo, Refusal, Request,
    Response, ServerOpeningKey, ServerSetId, SessionId, SessionKey, mux, pack,
};
use seco_sdk::{
    CertificatePin, Client, ClientBuilder, Deployment, Gateway, Last, Model, ModelId, Output, Server,
    Transport,
};
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// What the gateway does with the next request.
#[derive(Clone, Debug)]
pub enum Action {
    /// Answers with masked logits.
    Logits,
    /// Announces so many places in the queue, then answers with logits.
    Queue(u32),
    /// Sends this response.
    Send(Response<'static>),
    /// Sends these bytes, framed or not.
    Bytes(Vec<u8>),
    /// Stops reading at once, then sends this response.
    Stop(Response<'static>),
    /// Refuses, and forgets all sessions.
    Forget,
    /// Keeps the stream open without a word until the client gives it up.
    Hang,
    /// Resets the stream.
    Reset,
    /// Closes the connection.
    Close,
    /// Refuses, for it is shutting down, and closes the connection a little later.
    Drain,
}

/// Every test of `$name(via: Transport)` over QUIC and over TCP.
#[macro_export]
macro_rules! over_both {
    ($($name:ident),* $(,)?) => {
        mod over_quic {
            $(#[tokio::test] async fn $name() { super::$name(seco_sdk::Transport::Quic).await })*
        }
        mod over_tcp {
            $(#[tokio::test] async fn $name() { super::$name(seco_sdk::Transport::Tcp).await })*
        }
    };
}

pub struct FakeGateway {
    /// How its clients connect.
    pub via: Transport,
    pub deployment: Deployment,
    pub shared: Arc<Shared>,
    pub endpoint: Endpoint,
}

pub struct Shared {
    servers: Vec<ServerOpeningKey>,
    set: ServerSetId,
    model: ModelInfo,
    sessions: Mutex<Vec<KnownSession>>,
    /// The name of session `i`.
    pub names: Mutex<Vec<SessionId>>,
    /// Incarnation `i` has handle `i`.
    incarnations: Mutex<Vec<KnownIncarnation>>,
    resumptions: Mutex<VecDeque<Action>>,
    /// Codes of streams that clients gave up.
    pub cancelled: Mutex<Vec<Option<u64>>>,
    opens: Mutex<VecDeque<Action>>,
    answers: Mutex<VecDeque<Action>>,
    /// Handle and counter of every inference, in order of arrival.
    pub seen: Mutex<Vec<(u32, u64)>>,
    /// What travelled as input.
    pub inputs: Mutex<Vec<Vec<u8>>>,
}

struct KnownSession {
    keys: Vec<SessionKey>,
    /// For the devices. The ledger goes back to the start.
    forgotten: bool,
}

struct KnownIncarnation {
    /// Index of its session.
    session: usize,
    incarnation: Incarnation,
    keys: Vec<IncarnationKey>,
}

pub struct Certificate {
    pub der: CertificateDer<'static>,
    pub key: PrivateKeyDer<'static>,
}

pub fn certificate() -> Certificate {
    let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
    let made = rcgen::CertificateParams::new(vec!["gateway.test".into()]).unwrap().self_signed(&key).unwrap();
    Certificate { der: made.der().clone(), key: PrivatePkcs8KeyDer::from(key.serialize_der()).into() }
}

pub type Resolver = Arc<dyn rustls::server::ResolvesServerCert>;

/// The same settings for every test gateway.
pub fn tls(alpn: &[u8], resolver: Resolver) -> ServerConfig {
    ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(plain_tls(alpn, resolver)).unwrap()))
}

pub fn plain_tls(alpn: &[u8], resolver: Resolver) -> rustls::ServerConfig {
    let mut tls = rustls::ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_cert_resolver(resolver);
    tls.alpn_protocols = vec![alpn.to_vec()];
    tls
}

/// For the TCP side of a gateway.
pub fn mux_tls(own: &Certificate) -> rustls::ServerConfig {
    plain_tls(mux::ALPN, resolver(own, own))
}

/// Shows `shown`, signs with `key`.
pub fn resolver(shown: &Certificate, key: &Certificate) -> Resolver {
    let key = ring::sign::any_supported_type(&key.key).unwrap();
    let pair = rustls::sign::CertifiedKey::new(vec![shown.der.clone()], key);
    Arc::new(rustls::sign::SingleCertAndKey::from(pair))
}

/// An address as deployment files have it.
pub fn host(address: SocketAddr) -> seco_sdk::Address {
    address.to_string().parse().unwrap()
}

pub fn deployment(address: SocketAddr, pin: CertificatePin, servers: &[ServerOpeningKey]) -> Deployment {
    Deployment {
        version: Deployment::VERSION,
        gateway: Gateway { address: host(address), server_name: "gateway.test".into(), pins: vec![pin] },
        others: Vec::new(),
        model: Model {
            name: None,
            id: ModelId([7; 32]),
            input_shape: vec![1, 28, 28],
            input_bits: 8,
            calibrated: Some([0, 254]),
            output_width: 22,
            fraction: None,
            quantise: None,
            outputs: vec![output("scores", &[10])],
        },
        update: None,
        servers: (1..)
            .zip(servers)
            .map(|(i, key)| Server { name: format!("server {i}"), sealing_key: key.sealing_key().unwrap() })
            .collect(),
    }
}

/// An output whose scale is no power of two.
pub fn output(name: &str, shape: &[usize]) -> Output {
    Output { name: name.into(), shape: shape.into(), scale: 0.1, last: Last::None, classes: Vec::new() }
}

/// Stands in for the model: its logits fit 22 bits.
pub fn reference(input: &[u8]) -> Vec<i32> {
    let weight = |class: usize, i: usize| i32::try_from((class * 31 + i * 17) % 13).unwrap() - 6;
    (0..10)
        .map(|class| input.iter().enumerate().map(|(i, x)| i32::from(*x) * weight(class, i)).sum())
        .collect()
}

pub fn image() -> Vec<u8> {
    (0..784u32).map(|i| (i * i % 251) as u8).collect()
}

/// A folder in memory, where the system has such a place: what is to be durable is not waited for there.
pub fn temporary() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

/// A client that waits for a second.
pub fn impatient(deployment: &Deployment) -> ClientBuilder {
    Client::builder(deployment.clone())
        .connect_timeout(Duration::from_secs(5))
        .request_timeout(Duration::from_secs(1))
}

impl FakeGateway {
    pub fn start(via: Transport) -> Self {
        Self::start_at("127.0.0.1:0", via)
    }

    pub fn start_at(address: &str, via: Transport) -> Self {
        let own = certificate();
        Self::start_with(address, via, b"", resolver(&own, &own), &own)
    }

    /// With an application protocol of its own, if `alpn` is not empty.
    pub fn start_with(
        address: &str,
        via: Transport,
        alpn: &[u8],
        resolver: Resolver,
        pinned: &Certificate,
    ) -> Self {
        let or = |own: &[u8]| if alpn.is_empty() { own.to_vec() } else { alpn.to_vec() };
        let (endpoint, listener) = loop {
            let config = tls(&or(b"seco/1"), resolver.clone());
            let endpoint = Endpoint::server(config, address.parse().unwrap()).unwrap();
            // Another program may have this port over TCP.
            if let Ok(listener) = std::net::TcpListener::bind(endpoint.local_addr().unwrap()) {
                break (endpoint, listener);
            }
        };
        let servers: Vec<_> = (1..=3).map(|seed| ServerOpeningKey::from_seed([seed; 32])).collect();
        let pin = CertificatePin::of(&pinned.der);
        let deployment = deployment(endpoint.local_addr().unwrap(), pin, &servers);
        let shared = Arc::new(Shared {
            set: ServerSetId::new(&deployment.sealing_keys()).unwrap(),
            model: deployment.model_info().unwrap(),
            servers,
            sessions: Mutex::default(),
            names: Mutex::default(),
            incarnations: Mutex::default(),
            resumptions: Mutex::default(),
            cancelled: Mutex::default(),
            opens: Mutex::default(),
            answers: Mutex::default(),
            seen: Mutex::default(),
            inputs: Mutex::default(),
        });
        tokio::spawn(accept(endpoint.clone(), shared.clone()));
        listener.set_nonblocking(true).unwrap();
        let listener = tokio::net::TcpListener::from_std(listener).unwrap();
        tokio::spawn(tcp::accept(listener, plain_tls(&or(mux::ALPN), resolver), shared.clone()));
        Self { via, deployment, shared, endpoint }
    }

    /// Where it is, or the network before it.
    pub fn address(&self) -> SocketAddr {
        self.deployment.gateway.address.as_str().parse().unwrap()
    }

    /// A client that connects the way the test is about.
    pub fn client(&self) -> ClientBuilder {
        Client::builder(self.deployment.clone()).transport(self.via)
    }

    /// The same, waiting for a second.
    pub fn impatient(&self) -> ClientBuilder {
        impatient(&self.deployment).transport(self.via)
    }

    /// The next inferences or probes are answered like this, later ones honestly.
    pub fn answer(&self, actions: impl IntoIterator<Item = Action>) {
        self.shared.answers.lock().unwrap().extend(actions);
    }

    /// All further ones are answered honestly. Says how many answers were left.
    pub fn answer_honestly(&self) -> usize {
        std::mem::take(&mut *self.shared.answers.lock().unwrap()).len()
    }

    /// Sessions are resumed like this first, later honestly.
    pub fn resume(&self, actions: impl IntoIterator<Item = Action>) {
        self.shared.resumptions.lock().unwrap().extend(actions);
    }

    /// The next openings are answered like this, later ones honestly.
    pub fn open(&self, actions: impl IntoIterator<Item = Action>) {
        self.shared.opens.lock().unwrap().extend(actions);
    }
}

impl Network {
    /// Puts itself before the gateway. UDP goes to `quic`.
    pub async fn before(gateway: &mut FakeGateway, quic: SocketAddr) -> Arc<Self> {
        let network = Self::start(quic, gateway.address()).await;
        gateway.deployment.gateway.address = host(network.address);
        network
    }
}

async fn accept(endpoint: Endpoint, shared: Arc<Shared>) {
    while let Some(incoming) = endpoint.accept().await {
        let shared = shared.clone();
        tokio::spawn(async move {
            let Ok(connection) = incoming.await else { return };
            let mut exporter = [0; EXPORTER_LEN];
            connection.export_keying_material(&mut exporter, EXPORTER_LABEL, b"").unwrap();
            while let Ok((send, recv)) = connection.accept_bi().await {
                tokio::spawn(serve(connection.clone(), exporter, send, recv, shared.clone()));
            }
        });
    }
}

/// One request's way back.
enum Wire {
    Quic { connection: Connection, send: quinn::SendStream, recv: quinn::RecvStream },
    Tcp(tcp::Wire),
}

async fn serve(
    connection: Connection,
    exporter: [u8; EXPORTER_LEN],
    send: quinn::SendStream,
    mut recv: quinn::RecvStream,
    shared: Arc<Shared>,
) {
    let Ok(frame) = recv.read_to_end(shared.model.request_limit() + 4).await else { return };
    let header = decode_header(&frame, shared.model.request_limit()).unwrap().unwrap();
    let wire = Wire::Quic { connection, send, recv };
    answer(wire, &exporter, header.message(&frame).unwrap(), shared).await;
}

/// `exporter` is the connection's.
async fn answer(mut wire: Wire, exporter: &[u8; EXPORTER_LEN], message: &[u8], shared: Arc<Shared>) {
    let request = match Request::decode(message).unwrap() {
        // Every token is good here.
        Request::Admit { request, .. } => Request::decode(request).unwrap(),
        request => request,
    };
    let script = match request {
        Request::Open { .. } => &shared.opens,
        Request::Resume { .. } => &shared.resumptions,
        _ => &shared.answers,
    };
    let action = script.lock().unwrap().pop_front().unwrap_or(Action::Logits);
    if let Request::Infer { handle, counter, input } = request {
        // In the same order in both.
        let mut seen = shared.seen.lock().unwrap();
        seen.push((handle, counter));
        shared.inputs.lock().unwrap().push(input.to_vec());
    }
    match action {
        Action::Logits => shared.respond(&mut wire, exporter, request).await,
        Action::Queue(places) => {
            for position in (0..places).rev() {
                wire.reply(Response::Queued { position, wait_ms: 20 }).await;
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            shared.respond(&mut wire, exporter, request).await;
        }
        Action::Send(response) => wire.reply(response).await,
        Action::Stop(response) => {
            if let Wire::Quic { recv, .. } = &mut wire {
                let _ = recv.stop(1u32.into());
            }
            wire.reply(response).await;
        }
        Action::Bytes(bytes) => wire.write(&bytes).await,
        Action::Forget => {
            shared.sessions.lock().unwrap().iter_mut().for_each(|session| session.forgotten = true);
            wire.reply(Response::Refused { reason: Refusal::UnknownSession }).await;
        }
        Action::Hang => {
            let code = wire.given_up().await;
            shared.cancelled.lock().unwrap().push(code);
        }
        Action::Reset => wire.reset(),
        Action::Close => wire.close(),
        Action::Drain => {
            wire.reply(Response::Refused { reason: Refusal::ShuttingDown }).await;
            tokio::time::sleep(Duration::from_millis(250)).await;
            wire.close();
        }
    }
    wire.finish();
}

impl Wire {
    async fn reply(&mut self, response: Response<'_>) {
        let mut buffer = vec![0; response.frame_bound()];
        self.write(response.encode_frame(&mut buffer).unwrap()).await;
    }

    async fn write(&mut self, bytes: &[u8]) {
        match self {
            // The client may have gone.
            Self::Quic { send, .. } => drop(send.write_all(bytes).await),
            Self::Tcp(wire) => wire.write(bytes),
        }
    }

    async fn given_up(&mut self) -> Option<u64> {
        match self {
            Self::Quic { send, .. } => send.stopped().await.ok().flatten().map(|code| code.into_inner()),
            Self::Tcp(wire) => wire.given_up().await,
        }
    }

    fn reset(&mut self) {
        match self {
            Self::Quic { send, .. } => send.reset(1u32.into()).unwrap(),
            Self::Tcp(wire) => wire.end(),
        }
    }

    fn close(&mut self) {
        match self {
            Self::Quic { connection, .. } => connection.close(1u32.into(), b"text of a peer"),
            Self::Tcp(wire) => wire.close(),
        }
    }

    fn finish(mut self) {
        if let Self::Quic { send, .. } = &mut self {
            let _ = send.finish();
        }
    }
}

impl Shared {
    async fn respond(&self, wire: &mut Wire, exporter: &[u8; EXPORTER_LEN], request: Request<'_>) {
        match request {
            Request::Open { session, model, nonce, sealed } => {
                let incarnation = Incarnation { nonce, exporter: *exporter };
                let binding = Binding { session, model, servers: self.set, incarnation: incarnation.id() };
                let blobs = sealed_keys(sealed).unwrap();
                let keys = (0u8..)
                    .zip(self.servers.iter().zip(blobs))
                    .map(|(i, (server, blob))| server.open(blob, &binding, i).unwrap())
                    .collect();
                let session = {
                    let mut sessions = self.sessions.lock().unwrap();
                    sessions.push(KnownSession { keys, forgotten: false });
                    self.names.lock().unwrap().push(session);
                    sessions.len() - 1
                };
                let handle = self.start(session, incarnation, None).unwrap();
                wire.reply(Response::Opened { handle }).await;
            }
            Request::Infer { handle, counter, input } => {
                let Some(masked) = self.infer(handle, exporter, counter, input) else {
                    return wire.reply(Response::Refused { reason: Refusal::UnknownSession }).await;
                };
                wire.reply(Response::Logits { masked: &masked }).await;
            }
            Request::Probe { down, .. } => {
                wire.reply(Response::Probe { noise: &vec![0xa5; down.into()] }).await
            }
            Request::Resume { session, nonce, tags } => {
                let known = self.names.lock().unwrap().iter().position(|name| *name == session);
                let known = known.filter(|session| !self.sessions.lock().unwrap()[*session].forgotten);
                let incarnation = Incarnation { nonce, exporter: *exporter };
                let response = match known.and_then(|session| self.start(session, incarnation, Some(tags))) {
                    Some(handle) => Response::Opened { handle },
                    None => Response::Refused { reason: Refusal::UnknownSession },
                };
                wire.reply(response).await;
            }
            _ => panic!("unknown request"),
        }
    }

    /// The handle of an incarnation, if `tags` show that the device has every key.
    fn start(&self, session: usize, incarnation: Incarnation, tags: Option<&[u8]>) -> Option<u32> {
        let sessions = self.sessions.lock().unwrap();
        let keys: Vec<_> =
            sessions[session].keys.iter().map(|key| key.for_connection(&incarnation)).collect();
        if let Some(tags) = tags.map(|tags| resume_tags(tags).unwrap()) {
            assert_eq!(tags.len(), keys.len());
            if !keys.iter().zip(tags).all(|(key, tag)| key.accepts(tag)) {
                return None;
            }
        }
        let mut incarnations = self.incarnations.lock().unwrap();
        incarnations.push(KnownIncarnation { session, incarnation, keys });
        Some((incarnations.len() - 1) as u32)
    }

    fn infer(
        &self,
        handle: u32,
        exporter: &[u8; EXPORTER_LEN],
        counter: u64,
        input: &[u8],
    ) -> Option<Vec<u8>> {
        let (sessions, incarnations) = (self.sessions.lock().unwrap(), self.incarnations.lock().unwrap());
        let KnownIncarnation { session, incarnation, keys } = incarnations.get(handle as usize)?;
        assert_eq!(incarnation.exporter, *exporter, "a handle is of its connection");
        if sessions[*session].forgotten {
            return None;
        }
        let mut input = input.to_vec();
        keys.iter().for_each(|key| key.apply_input_pad(counter, &mut input).unwrap());
        let mut words: Vec<u32> = reference(&input).into_iter().map(i32::cast_unsigned).collect();
        let width = self.model.width;
        for key in keys {
            let mut pad = vec![0; words.len()];
            key.output_pad(counter, width, &mut pad).unwrap();
            words.iter_mut().zip(pad).for_each(|(word, pad)| *word = word.wrapping_add(pad));
        }
        let mut masked = vec![0; pack::packed_len(words.len(), width)];
        pack::pack(&words, width, &mut masked).unwrap();
        Some(masked)
    }
}
