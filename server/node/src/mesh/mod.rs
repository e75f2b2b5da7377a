//! QUIC between the servers: one connection for each pair, dialled by the server with the lower
//! number and dialled again when it is lost.
//!
//! Over it run, each on a bidirectional stream of its own that starts with a short header: the
//! messages of jobs ([`QuicChannel`]) and the gateway's commands. Peers are authenticated, and
//! trusted to follow the protocol (section 1 of PROTOCOL.md), but whatever they send is bounded and
//! checked all the same.

mod channel;
mod clock;
pub(crate) mod frame;
pub(crate) mod hello;
mod link;
pub(crate) mod models;
pub mod probe;
mod registry;
pub mod tls;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use quinn::{Endpoint, RecvStream, SendStream, VarInt};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use seco_core::{KeyId, ModelId, SealingKeyHash};
use seco_protocol::ChannelError;
use sha2::{Digest as _, Sha256};
use tokio::sync::{mpsc, watch};
use tokio::task::AbortHandle;

pub use self::channel::QuicChannel;
pub use self::clock::Clock;
use self::hello::Hello;
use self::link::{Links, Shared};
pub use self::models::MAX_MODELS;
use self::models::Offer;
use self::registry::{Key, Pair, Registry};
use crate::Error;
use crate::failure::Failure;
use crate::reset::ResetKey;
use crate::store::ledger::Head;
use crate::versions::Versions;

/// First byte of a stream: a channel, followed by job and lane.
const CHANNEL: u8 = 1;
/// First byte of a stream: a command of the gateway.
const COMMAND: u8 = 2;
/// First byte of a stream: the models that the server has now.
const MODELS: u8 = 3;
/// How often it is said that servers are missing.
const REMINDER: Duration = Duration::from_secs(60);
/// Commands that wait for the server to take them.
const MAX_COMMANDS: usize = 64;
/// Bytes the system is asked to hold for the socket, in each direction.
const SOCKET_BUFFER: usize = 4 << 20;
/// Code with which a server that stops closes its connections.
const STOPPING: VarInt = VarInt::from_u32(0);

/// One server as the others know it.
#[derive(Clone, Debug)]
pub struct Server {
    /// Name for messages.
    pub name: String,
    /// `host:port`; needed for those this server dials.
    pub address: Option<String>,
    /// Certificates of which it may show any, while it changes from one to the next; this server itself shows the first.
    pub certificates: Vec<CertificateDer<'static>>,
    /// The certificate by which the cluster knows it for ever: what others pinned first. It opens nothing.
    pub known_as: CertificateDer<'static>,
    /// SoftSpokenOT's parameter on the link with it; at this server itself it says nothing.
    pub ot_parameter: usize,
}

impl Server {
    /// Whether both have a certificate in common.
    fn shares(&self, other: &Server) -> bool {
        self.known_as == other.known_as
            || self.certificates.iter().any(|one| other.certificates.contains(one))
    }
}

/// What the mesh needs to know.
pub struct Settings {
    /// Versions that this server speaks with the others: [`Versions::OURS`], but for tests of upgrades.
    pub versions: Versions,
    /// This server's number.
    pub me: usize,
    /// All servers, this one included.
    pub servers: Vec<Server>,
    /// This server's TLS key.
    pub key: PrivateKeyDer<'static>,
    /// Where to listen.
    pub listen: SocketAddr,
    /// The models that this server has; one of them at least the others must have too.
    pub models: Vec<ModelId>,
    /// Of the keys to which devices seal this server's session keys, the present one first; the others
    /// need them to tell what a device bound its keys to.
    pub sealing_keys: Vec<SealingKeyHash>,
    /// Lets peers notice at once that this server was restarted.
    pub reset: ResetKey,
    /// Remembers where the others' ledgers end.
    pub records: Option<Arc<dyn Records>>,
}

/// What servers tell each other about their ledgers before they use a link.
pub trait Records: Send + Sync {
    /// Where this server's ends.
    fn head(&self) -> Head;
    /// Another's ends here, with which this server has these models in common.
    fn meet(&self, peer: usize, head: Head, common: &[ModelId]);
}

/// The connections of one server with all others. Clones share them.
#[derive(Clone)]
pub struct Mesh {
    shared: Arc<Shared>,
    tasks: Arc<Vec<AbortHandle>>,
}

/// What a started mesh hands out once.
pub struct Started {
    /// The mesh.
    pub mesh: Mesh,
    /// Commands from other servers.
    pub commands: mpsc::Receiver<Incoming>,
    /// Mistakes that no retry mends, for the start-up.
    pub mistakes: mpsc::Receiver<Mistake>,
}

/// A mistake in some server's settings or files.
pub struct Mistake {
    pub(crate) error: Error,
    /// Whether this server ran into it itself. One that dials us with the wrong model is not a
    /// reason to stop: it is told, and comes back corrected.
    pub(crate) own: bool,
}

/// A command's stream, its body not yet read.
pub struct Incoming {
    /// Who sends it.
    pub from: usize,
    /// For the answer.
    pub send: SendStream,
    /// For the command.
    pub receive: RecvStream,
}

impl Settings {
    /// Hash of all servers in their order: two that know a third by different certificates would fail much later.
    pub fn cluster(&self) -> [u8; 32] {
        let mut cluster = Sha256::new();
        for server in &self.servers {
            cluster.update(Sha256::digest(&server.known_as));
        }
        cluster.finalize().into()
    }
}

impl Mesh {
    /// Opens the socket and starts to connect. Call it inside a runtime.
    pub fn start(settings: Settings) -> Result<Started, Error> {
        let Settings { me, servers, key, listen, .. } = &settings;
        let own = servers.get(*me).ok_or_else(|| {
            Error::Usage(
                "index is not that of a server of the cluster: correct index or [[peers]]".to_owned(),
            )
        })?;
        for (a, server) in servers.iter().enumerate() {
            if let Some(b) = servers[..a].iter().position(|other| other.shares(server)) {
                return Err(Error::SameCertificate { a: b, b: a });
            }
        }
        let lower = servers[..*me].iter().flat_map(|s| s.certificates.clone()).collect();
        let socket = std::net::UdpSocket::bind(listen).map_err(|e| Error::bind("UDP", *listen, e))?;
        enlarge_buffers(&socket);
        let shown = own.certificates.first().unwrap_or(&own.known_as);
        let server = tls::server(shown, key, lower)?;
        let runtime = quinn::default_runtime().ok_or(Error::NoRuntime)?;
        let endpoint = Endpoint::new(tls::endpoint(&settings.reset), Some(server), socket, runtime)
            .map_err(|e| Error::bind("UDP", *listen, e))?;

        let mut dials = Vec::new();
        for (peer, server) in servers.iter().enumerate().skip(me + 1) {
            let address = server.address.clone();
            let address = address.ok_or_else(|| {
                Error::Usage(format!("[[peers]] {peer}: address is missing (this server dials it)"))
            })?;
            dials.push((peer, address, tls::client(shown, key, server.certificates.clone())?));
        }

        let (commands_in, commands) = mpsc::channel(MAX_COMMANDS);
        let (mistakes_in, mistakes) = mpsc::channel(16);
        let hello = Hello::new(&settings);
        let offer = Offer { number: 0, models: settings.models };
        let shared = Arc::new(Shared {
            me: settings.me,
            versions: settings.versions,
            servers: settings.servers,
            endpoint,
            hello,
            sealing_keys: settings.sealing_keys,
            records: settings.records,
            links: Links::default(),
            registry: Registry::default(),
            offer: watch::Sender::new(offer),
            changed: watch::Sender::new(()),
            commands: commands_in,
            mistakes: mistakes_in,
        });
        let mut tasks = vec![tokio::spawn(link::accept(shared.clone())).abort_handle()];
        for (peer, address, config) in dials {
            tasks.push(tokio::spawn(link::dial(shared.clone(), peer, address, config)).abort_handle());
        }
        Ok(Started { mesh: Mesh { shared, tasks: Arc::new(tasks) }, commands, mistakes })
    }

    /// This server's number.
    pub fn me(&self) -> usize {
        self.shared.me
    }

    /// Number of servers.
    pub fn servers(&self) -> usize {
        self.shared.servers.len()
    }

    /// The name of a server, for messages.
    pub fn name(&self, index: usize) -> &str {
        self.shared.servers.get(index).map_or("unknown", |s| &s.name)
    }

    /// The address of the socket.
    pub fn address(&self) -> Result<SocketAddr, Error> {
        self.shared.endpoint.local_addr().map_err(|_| Error::NoRuntime)
    }

    /// UDP payload sent to other servers since the start.
    pub fn bytes_sent(&self) -> u64 {
        self.shared.links.bytes_sent()
    }

    /// UDP payload sent to a server and received from it since the start.
    pub fn bytes(&self, server: usize) -> (u64, u64) {
        self.shared.links.bytes(server)
    }

    /// Whether there is a connection with a server.
    pub fn is_connected(&self, server: usize) -> bool {
        self.shared.links.current(server).is_some()
    }

    /// The first server that is not connected.
    pub fn missing(&self) -> Option<usize> {
        (0..self.servers()).filter(|&i| i != self.me()).find(|&i| !self.is_connected(i))
    }

    /// Names the present connections: equal as long as none was lost, replaced or added.
    pub fn generations(&self) -> Vec<Option<u64>> {
        (0..self.servers()).map(|i| self.shared.links.generation(i)).collect()
    }

    /// Says what models this server has from now on.
    pub fn offer(&self, models: Vec<ModelId>) {
        self.shared.offer.send_modify(|offer| *offer = Offer { number: offer.number + 1, models });
    }

    /// Whether another server is connected and has a model.
    pub fn has(&self, server: usize, model: &ModelId) -> bool {
        self.shared.links.model(server, model).is_some()
    }

    /// The first other server that is not connected, or does not have a model.
    pub fn lacking(&self, model: &ModelId) -> Option<usize> {
        (0..self.servers()).filter(|&i| i != self.me()).find(|&i| !self.has(i, model))
    }

    /// Names the present connections for a model: equal as long as none was lost, replaced or added, and no server
    /// gave the model away or got it.
    pub fn links(&self, model: &ModelId) -> Vec<Option<u64>> {
        (0..self.servers()).map(|i| self.shared.links.model(i, model)).collect()
    }

    /// The models that this server and another have.
    pub fn common(&self, server: usize) -> Vec<ModelId> {
        let offer = self.shared.offer.borrow();
        offer.models.iter().filter(|model| self.has(server, model)).copied().collect()
    }

    /// Versions that this server speaks with the others.
    pub fn versions(&self) -> Versions {
        self.shared.versions
    }

    /// The version in which all servers work together: the highest that all speak. `None` if there is none, or a server was
    /// never connected.
    pub fn version(&self) -> Option<u16> {
        common(&self.all_versions()?).map(Versions::highest)
    }

    /// What every server speaks, as it said when it was last connected; `None` if one never was.
    fn all_versions(&self) -> Option<Vec<Versions>> {
        let of = |server: usize| match server == self.me() {
            true => Some(self.versions()),
            false => self.shared.links.versions(server),
        };
        (0..self.servers()).map(of).collect()
    }

    /// Whether all servers are connected with this one, and yet speak no version that all know: the one that has to be
    /// upgraded first, and what to tell the operator.
    pub fn apart(&self) -> Option<(usize, String)> {
        let all = self.all_versions().filter(|_| self.missing().is_none())?;
        if common(&all).is_some() {
            return None;
        }
        let (oldest, _) = all.iter().enumerate().min_by_key(|(_, versions)| versions.highest())?;
        let said = |(server, versions): (usize, &Versions)| {
            format!("server {server} ({}) {versions}", self.name(server))
        };
        let said: Vec<String> = all.iter().enumerate().map(said).collect();
        let name = self.name(oldest);
        Some((
            oldest,
            format!(
                "no version of the protocol between servers is spoken by all ({}): upgrade server {oldest} ({name}) first",
                said.join(", ")
            ),
        ))
    }

    /// The sealing key of a server that a device has, if it is one of that server's.
    ///
    /// # Errors
    /// [`Failure::OtherKey`] if it is not, [`Failure::Unavailable`] while the server was never connected.
    pub fn sealing_key(&self, server: usize, id: KeyId) -> Result<SealingKeyHash, Failure> {
        let keys = match server == self.me() {
            true => Some(self.shared.sealing_keys.clone()),
            false => self.shared.links.sealing_keys(server),
        };
        let keys = keys.ok_or(Failure::Unavailable(server))?;
        keys.into_iter().find(|key| key.id() == id).ok_or(Failure::OtherKey(server))
    }

    /// Wakes up when a connection is made or lost, or another server's models change.
    pub fn changes(&self) -> watch::Receiver<()> {
        self.shared.changed.subscribe()
    }

    /// Waits until all servers are connected.
    pub async fn connected(&self) {
        let mut changes = self.changes();
        while self.missing().is_some() {
            if changes.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    /// Waits for all servers when this one starts: until the limit, or a mistake that no retry
    /// mends.
    pub async fn start_up(
        &self,
        mistakes: &mut mpsc::Receiver<Mistake>,
        limit: Duration,
    ) -> Result<(), Error> {
        self.try_start(mistakes, limit).await.map_err(|Mistake { error, .. }| error)
    }

    /// Waits for all servers for as long as it takes: operators start theirs when they like. After `first`, and then every
    /// minute, a line says who is missing. Fails only for a mistake of this server's own.
    pub async fn wait_for_all(
        &self,
        mistakes: &mut mpsc::Receiver<Mistake>,
        first: Duration,
    ) -> Result<(), Error> {
        let mut limit = first;
        loop {
            match self.try_start(mistakes, limit).await {
                Ok(()) => return Ok(()),
                Err(Mistake { error, own: true }) => return Err(error),
                Err(Mistake { error, own: false }) => tracing::warn!("waiting: {error}"),
            }
            limit = REMINDER;
        }
    }

    async fn try_start(
        &self,
        mistakes: &mut mpsc::Receiver<Mistake>,
        limit: Duration,
    ) -> Result<(), Mistake> {
        let mut others = None;
        let deadline = tokio::time::sleep(limit);
        tokio::pin!(deadline);
        loop {
            tokio::select! {
                () = self.connected() => return Ok(()),
                Some(mistake) = mistakes.recv() => match mistake {
                    Mistake { error, own: true } => return Err(Mistake { error, own: true }),
                    Mistake { error, own: false } => others = Some(error),
                },
                () = &mut deadline => {
                    let error = others.unwrap_or_else(|| self.absent());
                    return Err(Mistake { error, own: false });
                }
            }
        }
    }

    /// Says which servers are not connected.
    fn absent(&self) -> Error {
        let missing = |&i: &usize| i != self.me() && !self.is_connected(i);
        let mut errors: Vec<Error> = (0..self.servers())
            .filter(missing)
            .map(|index| {
                let name = self.name(index).to_owned();
                let address = self.shared.servers.get(index).and_then(|s| s.address.clone());
                if let Some(theirs) = self.shared.links.apart(index) {
                    return Error::NoCommonVersion { index, name, theirs, ours: self.versions() };
                }
                match (address, self.shared.links.unresolved(index)) {
                    (Some(address), Some(why)) => Error::Unresolved { index, name, address, why },
                    (Some(address), None) if index > self.me() => Error::NoAnswer { index, name, address },
                    _ => Error::NotDialled { index, name },
                }
            })
            .collect();
        match errors.pop() {
            Some(only) if errors.is_empty() => only,
            last => {
                let all: Vec<String> = errors.iter().chain(&last).map(Error::to_string).collect();
                Error::Absent(all.join("; "))
            }
        }
    }

    /// Opens the streams of one lane of a job with all other servers, which must do the same.
    /// Streams with a higher `priority` go first where bandwidth is short.
    pub async fn channel(
        &self,
        job: u64,
        lane: u8,
        priority: i32,
        clock: &Clock,
    ) -> Result<QuicChannel, ChannelError> {
        let me = self.me();
        let mut pairs: Vec<Option<Pair>> = (0..self.servers()).map(|_| None).collect();
        // First open, then wait: all servers do both, in whatever order they start.
        for (peer, pair) in pairs.iter_mut().enumerate().skip(me + 1) {
            let open = async {
                let connection = self.shared.links.current(peer)?;
                let (mut send, receive) = connection.open_bi().await.ok()?;
                let mut header = [CHANNEL; 10];
                header[1..9].copy_from_slice(&job.to_le_bytes());
                header[9] = lane;
                send.write_all(&header).await.ok()?;
                Some((send, receive))
            };
            *pair = Some(clock.limit(peer, open).await?.ok_or(ChannelError::Closed { peer })?);
        }
        for (peer, pair) in pairs.iter_mut().enumerate().take(me) {
            let wanted = self.shared.registry.want(Key { peer, job, lane });
            // Asked after the registry knows: whoever loses the link now also ends the wait.
            if self.shared.links.current(peer).is_none() {
                return Err(ChannelError::Closed { peer });
            }
            *pair = Some(clock.limit(peer, wanted).await?.map_err(|_| ChannelError::Closed { peer })?);
        }
        for (send, _) in pairs.iter().flatten() {
            let _ = send.set_priority(priority);
        }
        Ok(QuicChannel::new(me, pairs, clock.clone()))
    }

    /// Opens a stream for one command to another server.
    pub async fn command(&self, peer: usize) -> Option<(SendStream, RecvStream)> {
        let connection = self.shared.links.current(peer)?;
        let (mut send, receive) = connection.open_bi().await.ok()?;
        let _ = send.set_priority(i32::MAX);
        send.write_all(&[COMMAND]).await.ok()?;
        Some((send, receive))
    }

    /// Closes all connections and waits, briefly, until the others were told.
    pub async fn close(&self) {
        for task in self.tasks.iter() {
            task.abort();
        }
        self.shared.endpoint.close(STOPPING, b"stopping");
        let _ = tokio::time::timeout(Duration::from_secs(1), self.shared.endpoint.wait_idle()).await;
    }
}

/// The versions that all speak.
fn common(all: &[Versions]) -> Option<Versions> {
    let (first, others) = all.split_first()?;
    others.iter().copied().try_fold(*first, Versions::common)
}

/// Labels and tables arrive in bursts of megabytes; what a socket's buffer does not hold is lost and
/// sent again, tens of milliseconds later. The system may grant less (on Linux up to
/// `net.core.rmem_max`), which costs time and nothing else.
fn enlarge_buffers(socket: &std::net::UdpSocket) {
    if let Ok(state) = quinn::udp::UdpSocketState::new(socket.into()) {
        let _ = state.set_recv_buffer_size(socket.into(), SOCKET_BUFFER);
        let _ = state.set_send_buffer_size(socket.into(), SOCKET_BUFFER);
    }
}
