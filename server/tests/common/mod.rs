//! A cluster of real `seco serve` processes, and a device made of `seco-core` and quinn alone, so
//! that the gateway is tested against the wire format and not against the SDK.
// Each test file uses a part of it.
#![allow(dead_code)]

pub mod admin;
pub mod asking;
pub mod ledgers;
pub mod links;
pub mod usage;

use std::io::{BufRead as _, BufReader};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use quinn::crypto::rustls::QuicClientConfig;
use quinn::{ClientConfig, Connection, ConnectionError, Endpoint};
use seco_core::message::{FRAME_OVERHEAD, decode_header};
use seco_core::{
    EXPORTER_LABEL, EXPORTER_LEN, ModelId, ModelInfo, Pending, Request, Requester, Response,
    ServerSealingKey, Session, Token,
};
use seco_model::FixedModel;
use seco_node::config::{Access, Admin, Config, Identity, Limits, Listen, Log, Peer, Pool};
use seco_node::keys::{self, KeyFiles};
use seco_node::operation::events::Event;
use seco_tools::split::{self, DeploymentOptions, SplitOptions};

pub const LIMIT: Duration = Duration::from_secs(120);
const LOOPBACK: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

/// The small bundled network.
pub fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("data").join(name)
}

/// One running server.
pub struct Server {
    pub process: Child,
    events: mpsc::Receiver<Event>,
    /// Standard error so far. Read all the time: a server that says much must not wait for a reader.
    told: Arc<Mutex<String>>,
    errors: Option<JoinHandle<()>>,
}

impl Server {
    pub fn start(config: &Path, arguments: &[&str]) -> Server {
        let mut command = Command::new(env!("CARGO_BIN_EXE_seco"));
        command.args(["serve", "--events", "--config"]).arg(config).args(arguments);
        Server::spawn(command)
    }

    /// Starts what prints a server's events.
    pub fn spawn(mut command: Command) -> Server {
        let mut process =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let (sender, events) = mpsc::channel();
        let output = BufReader::new(process.stdout.take().unwrap());
        std::thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                let _ = sender.send(serde_json::from_str(&line).unwrap());
            }
        });
        let told = Arc::new(Mutex::new(String::new()));
        let (mut stderr, text) = (BufReader::new(process.stderr.take().unwrap()), told.clone());
        let errors = std::thread::spawn(move || {
            let mut line = Vec::new();
            while stderr.read_until(b'\n', &mut line).is_ok_and(|read| read > 0) {
                text.lock().unwrap().push_str(&String::from_utf8_lossy(&line));
                line.clear();
            }
        });
        Server { process, events, told, errors: Some(errors) }
    }

    /// Waits for the first event for which `pick` gives something.
    pub fn wait<T>(&mut self, what: &str, mut pick: impl FnMut(Event) -> Option<T>) -> T {
        let deadline = Instant::now() + LIMIT;
        loop {
            match self.events.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(event) => {
                    if let Some(found) = pick(event) {
                        return found;
                    }
                }
                Err(_) => panic!("no {what}; standard error: {}", self.stderr()),
            }
        }
    }

    pub fn wait_ready(&mut self) {
        self.wait("set-up", |e| matches!(e, Event::Ready { .. }).then_some(()));
    }

    pub fn wait_bundle(&mut self) {
        self.wait("bundle", |e| matches!(e, Event::Bundle { .. }).then_some(()));
    }

    /// How many inferences it says that it did, once it has ended.
    pub fn inferences(&self) -> usize {
        self.events.iter().filter(|event| matches!(event, Event::Inference { .. })).count()
    }

    pub fn signal(&self, name: &str) {
        signal(&self.process, name);
    }

    /// Waits for the end; fails when it takes too long.
    pub fn ended(&mut self, limit: Duration) -> ExitStatus {
        ended(&mut self.process, limit)
    }

    /// Waits until it has said this on standard error.
    pub fn wait_told(&self, part: &str) {
        let deadline = Instant::now() + LIMIT;
        while !self.told.lock().unwrap().contains(part) {
            assert!(Instant::now() < deadline, "{part} is not told: {}", self.told.lock().unwrap());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Standard error so far.
    pub fn said(&self) -> String {
        self.told.lock().unwrap().clone()
    }

    /// All of standard error, once the server has ended.
    pub fn stderr(&mut self) -> String {
        let _ = self.process.kill();
        self.errors.take().unwrap().join().unwrap();
        std::mem::take(&mut *self.told.lock().unwrap())
    }

    /// Ends it as an operator does; gives what it said on standard error.
    pub fn stop(&mut self) -> String {
        self.signal("-TERM");
        assert!(self.ended(Duration::from_secs(20)).success());
        self.stderr()
    }
}

/// Sends a signal, by its name with a minus.
pub fn signal(process: &Child, name: &str) {
    assert!(Command::new("kill").args([name, &process.id().to_string()]).status().unwrap().success());
}

/// Waits for a process's end; fails when it takes too long.
pub fn ended(process: &mut Child, limit: Duration) -> ExitStatus {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(status) = process.try_wait().unwrap() {
            return status;
        }
        assert!(Instant::now() < deadline, "still running after {limit:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Keys, model parts and settings of a cluster in a folder.
pub struct Site {
    pub folder: tempfile::TempDir,
    pub model: FixedModel,
    pub keys: Vec<KeyFiles>,
    /// What the others pin of a server, and the certificate by which it is known, by server.
    pub pinned: Vec<PathBuf>,
    pub known_as: Vec<Option<PathBuf>>,
    /// Opening keys of before, by server.
    pub retired: Vec<Vec<PathBuf>>,
    pub parts: Vec<PathBuf>,
    pub model_id: [u8; 32],
    pub pool: Pool,
    pub limits: Limits,
    /// Whether the gateway serves devices over TCP too.
    pub tcp: bool,
    /// Deployment files that the gateway offers.
    pub deployments: Vec<PathBuf>,
    /// The gateway's tokens.
    pub access: Option<Access>,
    /// Whether servers have an admin port.
    pub admin: bool,
    /// Where servers send spans of jobs.
    pub log: Option<Log>,
    /// Models beside the first.
    pub models: Vec<More>,
    mesh: Vec<Option<SocketAddr>>,
}

impl Site {
    pub fn new(servers: usize) -> Site {
        Site::with(servers, |_| ())
    }

    /// With a split that is otherwise than usual.
    pub fn with(servers: usize, change: impl FnOnce(&mut SplitOptions)) -> Site {
        let folder = tempfile::tempdir().unwrap();
        let (model, digits) = (data("mlp-digits.onnx"), data("mlp-digits-20.npy"));
        let usual = SplitOptions::new(model, digits, servers, folder.path().join("model"));
        let mut options = SplitOptions { scale: Some(16.0), ..usual };
        change(&mut options);
        let split = split::split(&options).unwrap();
        let model = split.imported.chosen.model;
        let keys: Vec<KeyFiles> = (0..servers)
            .map(|i| keys::generate(&folder.path().join("keys"), &format!("s{i}")).unwrap())
            .collect();
        Site {
            folder,
            model,
            pinned: keys.iter().map(|keys| keys.certificate.clone()).collect(),
            known_as: vec![None; servers],
            keys,
            retired: vec![Vec::new(); servers],
            parts: split.files,
            model_id: split.model_id,
            pool: Pool { size: 2, low: 1, ..Pool::default() },
            limits: Limits { infer_s: 30, ..Limits::default() },
            tcp: true,
            deployments: Vec::new(),
            access: None,
            admin: false,
            log: None,
            models: Vec::new(),
            mesh: vec![None; servers],
        }
    }

    /// The settings of a server, for what is known of the others' addresses.
    pub fn config(&self, index: usize) -> Config {
        let peers = (0..self.keys.len()).filter(|&i| i != index).map(|i| Peer {
            index: i,
            name: format!("s{i}"),
            address: self.mesh[i].map(|a| a.to_string()),
            ot_parameter: 2,
            certificate: self.pinned[i].clone(),
            known_as: self.known_as[i].clone(),
        });
        let KeyFiles { certificate, key, opening_key, .. } = self.keys[index].clone();
        Config {
            index,
            name: format!("s{index}"),
            model: self.parts[index].clone(),
            state: self.folder.path().join(format!("state-{index}")),
            deployments: if index == 0 { self.deployments.clone() } else { Vec::new() },
            identity: Identity {
                certificate,
                known_as: self.known_as[index].clone(),
                key,
                opening_key,
                retired_opening_keys: self.retired[index].clone(),
            },
            listen: Listen {
                mesh: self.mesh[index].unwrap_or(LOOPBACK),
                device: (index == 0).then_some(LOOPBACK),
                device_tcp: self.tcp,
            },
            peers: peers.collect(),
            pool: self.pool,
            limits: self.limits,
            access: (index == 0).then(|| self.access.clone()).flatten(),
            admin: self.admin.then_some(Admin { listen: LOOPBACK, public: false }),
            log: self.log,
            models: self.models.iter().map(|model| model.settings(index)).collect(),
        }
    }

    pub fn write(&self, config: &Config) -> PathBuf {
        let path = self.folder.path().join(format!("server-{}.toml", config.index));
        config.save(&path).unwrap();
        path
    }

    /// Server 1 does not start with these changes of its settings, and says why in its last line.
    pub fn refuses(&self, change: &dyn Fn(&mut Config), part: &str) {
        let mut config = self.config(1);
        config.limits = Limits { connect_s: 1, ..Limits::default() };
        change(&mut config);
        let mut server = Server::start(&self.write(&config), &[]);
        let status = server.ended(Duration::from_secs(20));
        let text = server.stderr();
        let last = text.lines().last().unwrap_or_default();
        assert!(!status.success() && last.starts_with("seco: ") && last.contains(part), "{part}: {text}");
        assert!(!text.contains("panicked"), "{text}");
    }

    /// Starts a server; a later start uses the same address.
    pub fn start(&mut self, index: usize, arguments: &[&str]) -> (Server, Option<SocketAddr>) {
        let mut server = Server::start(&self.write(&self.config(index)), arguments);
        let (mesh, device) = server.wait("sockets", |event| match event {
            Event::Listening { mesh, device, .. } => Some((mesh, device)),
            _ => None,
        });
        self.mesh[index] = Some(mesh);
        (server, device)
    }

    /// A server's address is known from now on.
    pub fn listens(&mut self, index: usize, mesh: SocketAddr) {
        self.mesh[index] = Some(mesh);
    }

    /// Starts all servers, the last first; gives them in order, and the address for devices.
    pub fn start_all(&mut self) -> (Vec<Server>, SocketAddr) {
        let mut servers = Vec::new();
        let mut address = None;
        for index in (0..self.keys.len()).rev() {
            let (server, device) = self.start(index, &[]);
            servers.insert(0, server);
            address = device;
        }
        (servers, address.unwrap())
    }

    pub fn sealing_keys(&self) -> Vec<ServerSealingKey> {
        self.keys.iter().map(|k| keys::sealing_key(&k.sealing_key).unwrap()).collect()
    }

    pub fn info(&self) -> ModelInfo {
        info(&self.model, self.model_id)
    }

    /// Another split of the bundled network, whose inputs are divided by another number, so that it answers differently.
    pub fn split_more(&self, name: &str, scale: f32) -> More {
        let (model, digits) = (data("mlp-digits.onnx"), data("mlp-digits-20.npy"));
        let usual = SplitOptions::new(model, digits, self.keys.len(), self.folder.path().join(name));
        let split = split::split(&SplitOptions { scale: Some(scale.into()), ..usual }).unwrap();
        let model = split.imported.chosen.model;
        More { name: name.to_owned(), model, parts: split.files, id: split.model_id, pool: self.pool }
    }

    /// A session of a device.
    pub fn session(&self, seed: u8) -> Session {
        Session::new(self.info(), &self.sealing_keys(), 0, &mut rng(seed)).unwrap()
    }

    /// What a device's TLS needs: the gateway's certificate, and a protocol's name.
    pub fn tls(&self, alpn: &[&[u8]]) -> rustls::ClientConfig {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(keys::certificate(&self.keys[0].certificate).unwrap()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut tls = rustls::ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        tls.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
        tls
    }

    pub async fn connect(&self, address: SocketAddr) -> Device {
        self.connect_from(LOOPBACK.ip(), address).await.unwrap()
    }

    /// From another address of this machine.
    pub async fn connect_from(&self, local: IpAddr, address: SocketAddr) -> Result<Device, ConnectionError> {
        self.connect_over(&Endpoint::client(SocketAddr::new(local, 0)).unwrap(), address).await
    }

    /// Over a socket that other connections use too.
    pub async fn connect_over(
        &self,
        endpoint: &Endpoint,
        address: SocketAddr,
    ) -> Result<Device, ConnectionError> {
        self.connect_with(endpoint, self.quic(), address).await
    }

    /// With settings that are [`Site::quic`]'s, or nearly.
    pub async fn connect_with(
        &self,
        endpoint: &Endpoint,
        config: ClientConfig,
        address: SocketAddr,
    ) -> Result<Device, ConnectionError> {
        let connection = endpoint.connect_with(config, address, "seco").unwrap().await?;
        Ok(Device { connection, token: None, limit: self.info().response_limit() })
    }

    /// What a device's connections over QUIC need.
    pub fn quic(&self) -> ClientConfig {
        ClientConfig::new(Arc::new(QuicClientConfig::try_from(self.tls(&[b"seco/1"])).unwrap()))
    }

    /// What the deployment file `name` is made of, for a gateway that devices reach at `address`.
    pub fn deployment_options(&self, address: SocketAddr, name: &str) -> DeploymentOptions {
        let out = self.folder.path().join(name);
        DeploymentOptions::new(address.to_string(), &self.keys, self.parts[0].clone(), out)
    }

    /// Writes it.
    pub fn deployment(&self, address: SocketAddr) -> seco_sdk::Deployment {
        split::deployment(&self.deployment_options(address, "deployment.toml")).unwrap()
    }

    /// The plaintext fixed-point network's logits.
    pub fn expected(&self, input: &[u8]) -> Vec<i32> {
        expected(&self.model, input)
    }
}

/// A model beside the first of a site.
pub struct More {
    pub name: String,
    pub model: FixedModel,
    pub parts: Vec<PathBuf>,
    pub id: [u8; 32],
    pub pool: Pool,
}

impl More {
    /// A server's settings for it.
    pub fn settings(&self, index: usize) -> seco_node::config::Model {
        let (part, name) = (self.parts[index].clone(), Some(self.name.clone()));
        seco_node::config::Model { part, name, pool: self.pool }
    }

    /// A session of a device.
    pub fn session(&self, site: &Site, seed: u8) -> Session {
        Session::new(info(&self.model, self.id), &site.sealing_keys(), 0, &mut rng(seed)).unwrap()
    }

    pub fn expected(&self, input: &[u8]) -> Vec<i32> {
        expected(&self.model, input)
    }
}

fn info(model: &FixedModel, id: [u8; 32]) -> ModelInfo {
    let graph = &model.graph;
    ModelInfo {
        id: ModelId(id),
        input_len: graph.input.byte_len(),
        values: graph.answer_len(),
        width: graph.answer_width(),
    }
}

fn expected(model: &FixedModel, input: &[u8]) -> Vec<i32> {
    seco_model::Executor::new(model).unwrap().run(input).unwrap().logits
}

/// A copy of a folder with all in it.
pub fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let there = to.join(path.file_name().unwrap());
        if path.is_dir() {
            copy(&path, &there);
        } else {
            std::fs::copy(&path, &there).unwrap();
        }
    }
}

pub fn rng(seed: u8) -> chacha20::ChaCha20Rng {
    use chacha20::rand_core::SeedableRng as _;
    chacha20::ChaCha20Rng::from_seed([seed; 32])
}

/// The bundled digits, one after the other.
pub fn digits() -> Vec<Vec<u8>> {
    let (shape, values) =
        seco_model::npy::read_u8(&std::fs::read(data("mlp-digits-20.npy")).unwrap()).unwrap();
    values.chunks_exact(shape[1..].iter().product()).map(<[u8]>::to_vec).collect()
}

/// A device's connection with the gateway.
pub struct Device {
    pub connection: Connection,
    /// Shown with every session that it opens or takes up.
    pub token: Option<Token>,
    limit: usize,
}

impl Device {
    /// Sends a request; gives the messages of the answer.
    pub async fn ask(&self, request: &Request<'_>) -> Vec<Vec<u8>> {
        let mut buffer = vec![0; request.frame_bound()];
        self.ask_raw(request.encode_frame(&mut buffer).unwrap()).await
    }

    pub async fn ask_raw(&self, frame: &[u8]) -> Vec<Vec<u8>> {
        self.try_ask(frame).await.unwrap()
    }

    /// The same, or how the connection ended.
    async fn try_ask(&self, frame: &[u8]) -> Result<Vec<Vec<u8>>, String> {
        let exchange = async {
            let (mut send, mut receive) = self.connection.open_bi().await.map_err(|e| e.to_string())?;
            send.write_all(frame).await.map_err(|e| e.to_string())?;
            send.finish().map_err(|e| e.to_string())?;
            receive.read_to_end(4 * self.limit).await.map_err(|e| e.to_string())
        };
        let bytes = tokio::time::timeout(LIMIT, exchange).await.unwrap()?;
        let (mut rest, mut messages) = (bytes.as_slice(), Vec::new());
        while !rest.is_empty() {
            let header = decode_header(rest, self.limit).unwrap().unwrap();
            messages.push(header.message(rest).unwrap().to_vec());
            rest = &rest[header.header_len + header.message_len..];
        }
        Ok(messages)
    }

    /// What the connection's TLS session yields.
    pub fn exporter(&self) -> [u8; EXPORTER_LEN] {
        let mut exporter = [0; EXPORTER_LEN];
        self.connection.export_keying_material(&mut exporter, EXPORTER_LABEL, &[]).unwrap();
        exporter
    }

    /// Opens the session, or says what else was answered. The nonce is always the same: the connection differs.
    pub async fn open(&self, session: &Session, servers: &[ServerSealingKey]) -> Result<Opened, String> {
        let requester = session.start(&self.exporter(), &mut rng(200));
        let mut buffer = vec![0; servers.len() * seco_core::SEALED_LEN];
        let request = session.open_message(&requester, servers, &mut rng(201), &mut buffer).unwrap();
        self.opened(&request).await.map(|handle| Opened { handle, requester })
    }

    /// Takes the session up, or says what else was answered.
    pub async fn resume(&self, session: &Session) -> Result<Opened, String> {
        let requester = session.start(&self.exporter(), &mut rng(202));
        let mut buffer = [0; 128];
        let request = requester.resume_message(&mut buffer).unwrap();
        self.opened(&request).await.map(|handle| Opened { handle, requester })
    }

    /// The handle that the answer gives.
    pub async fn opened(&self, request: &Request<'_>) -> Result<u32, String> {
        let messages = match &self.token {
            Some(token) => {
                let mut buffer = vec![0; request.frame_bound() + FRAME_OVERHEAD];
                self.ask_raw(request.encode_frame_with(token, &mut buffer).unwrap()).await
            }
            None => self.ask(request).await,
        };
        match Response::decode(messages.last().unwrap()).unwrap() {
            Response::Opened { handle } => Ok(handle),
            other => Err(format!("{other:?}")),
        }
    }

    /// One inference; gives the logits, or what else was answered, or how the connection ended.
    pub async fn infer(&self, opened: &mut Opened, input: &[u8]) -> Result<Vec<i32>, String> {
        let mut input = input.to_vec();
        let pending = opened.requester.request(&mut input).unwrap();
        let request = Request::Infer { handle: opened.handle, counter: pending.counter(), input: &input };
        let mut buffer = vec![0; request.frame_bound()];
        let messages = self.try_ask(request.encode_frame(&mut buffer).unwrap()).await?;
        opened.read(pending, messages.last().unwrap())
    }
}

/// A session on a connection.
pub struct Opened {
    pub handle: u32,
    pub requester: Requester,
}

impl Opened {
    /// The logits of an answer, or what else it is.
    pub fn read(&self, pending: Pending, message: &[u8]) -> Result<Vec<i32>, String> {
        match Response::decode(message).unwrap() {
            Response::Logits { masked } => {
                let mut logits = vec![0; self.requester.model().values];
                self.requester.unmask_logits(pending, masked, &mut logits).unwrap();
                Ok(logits)
            }
            other => Err(format!("{other:?}")),
        }
    }
}
