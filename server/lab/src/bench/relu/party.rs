//! One server of the layer, as a process of its own.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use chacha20::ChaCha20Rng;
use rand_core::SeedableRng as _;
use rustls::pki_types::PrivatePkcs8KeyDer;
use seco_core::{ModelId, SealingKeyHash};
use seco_node::keys;
use seco_node::mesh::Clock;
use seco_node::mesh::{Mesh, QuicChannel, Server, Settings, Started};
use seco_node::reset::ResetKey;
use seco_node::store::bundle_file::{Draft, Memory, Origin};
use seco_node::versions::Versions;
use seco_protocol::{BundleId, Channel, ChannelError, Layer, ReluLayer, SpoolError};
use serde::{Deserialize, Serialize};

use crate::Error;
use crate::bench::child::{self, failed};
use crate::bench::process;

/// A server that is silent for so long is taken for dead.
const LIMIT: Duration = Duration::from_secs(3600);

/// A server's certificate and key, DER.
pub struct Identity {
    pub certificate: Vec<u8>,
    pub key: Vec<u8>,
}

/// What a server is to do, on its standard input.
#[derive(Serialize, Deserialize)]
pub struct Job {
    /// Its number.
    pub me: usize,
    /// Of all servers, DER.
    pub certificates: Vec<Vec<u8>>,
    /// Its own, PKCS#8.
    pub key: Vec<u8>,
    /// Of the servers with a higher number.
    pub addresses: Vec<Option<SocketAddr>>,
    /// ReLUs, bits, bits dropped.
    pub layer: (usize, u32, u32),
    /// SoftSpokenOT's, on every link.
    pub ot_parameter: usize,
    /// The first bundle.
    pub bundle: [u8; 16],
    /// For files.
    pub directory: PathBuf,
    /// Bytes of tables in memory.
    pub memory: usize,
    /// How many to make, of which the last is used.
    pub bundles: u8,
}

/// What it says once it did.
#[derive(Serialize, Deserialize)]
pub enum Word {
    /// It waits for the others here.
    Listening(SocketAddr),
    /// The layer is done.
    Done(Outcome),
}

/// What the layer cost a server, all bundles together.
#[derive(Serialize, Deserialize)]
pub struct Outcome {
    pub preprocessing: Spent,
    pub online: Spent,
    /// The most memory the process had, in bytes.
    pub peak_memory: u64,
    /// Whether all values are right; the evaluator knows.
    pub exact: Option<bool>,
}

/// What a phase took.
#[derive(Clone, Copy, Serialize, Deserialize)]
pub struct Spent {
    /// CPU time of all threads.
    pub cpu: Duration,
    /// Until all servers were done.
    pub wall: Duration,
    /// Bytes of messages sent.
    pub sent: u64,
    /// Bytes of UDP payload sent.
    pub udp: u64,
}

/// Reads the job, does it, and says so on standard output.
pub fn run() -> Result<(), Error> {
    let job: Job = child::job()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    runtime.map_err(|_| Error::no_runtime())?.block_on(work(job))
}

async fn work(job: Job) -> Result<(), Error> {
    let what = "the layer";
    let server = |(i, certificate): (usize, &Vec<u8>)| Server {
        name: format!("server {i}"),
        address: job.addresses.get(i).copied().flatten().map(|address| address.to_string()),
        certificates: vec![certificate.clone().into()],
        known_as: certificate.clone().into(),
        ot_parameter: job.ot_parameter,
    };
    let Started { mesh, commands: _commands, mut mistakes } = Mesh::start(Settings {
        versions: Versions::OURS,
        me: job.me,
        servers: job.certificates.iter().enumerate().map(server).collect(),
        key: PrivatePkcs8KeyDer::from(job.key.clone()).into(),
        listen: SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0),
        models: vec![ModelId([0; 32])],
        sealing_keys: vec![SealingKeyHash([0; 32])],
        reset: ResetKey::random()?,
        records: None,
    })?;
    child::say(&Word::Listening(mesh.address()?));
    mesh.start_up(&mut mistakes, LIMIT).await?;
    let channel = mesh.channel(1, 0, 0, &Clock::new(LIMIT)).await.map_err(|e| failed(what, e))?;
    let counting = Counting { channel, mesh: mesh.clone(), sent: 0 };
    let done = tokio::task::spawn_blocking(move || layer(&job, counting)).await;
    let (outcome, counting) = done.map_err(|e| failed(what, e))?.map_err(|e| failed(what, e))?;
    for (_, writer) in counting.channel.finish() {
        let _ = writer.await;
    }
    child::say(&Word::Done(outcome));
    mesh.close().await;
    Ok(())
}

/// A layer's life on this server.
fn layer(job: &Job, mut channel: Counting) -> Result<(Outcome, Counting), seco_protocol::Error> {
    let secret = || keys::secret().map_err(|_| seco_protocol::Error::Misuse("no random numbers"));
    let (count, width, shift) = job.layer;
    let servers = job.certificates.len();
    let layer = Layer { count, width, mask_width: width, shift, servers, ot_parameter: job.ot_parameter };
    let memory = Memory::new(job.memory);
    // All servers have the same bundles, and each has a file of its own for it.
    let folder = job.directory.join(job.me.to_string());
    std::fs::create_dir(&folder).map_err(|e| SpoolError(e.to_string()))?;
    let mut relus = ReluLayer::setup(layer, &mut channel, *secret()?)?;
    let mut rng = ChaCha20Rng::from_seed(*secret()?);
    let (mut made, preprocessing) = channel.measure(|channel| {
        let one = |number: u8| {
            let mut id = job.bundle;
            id[0] ^= number;
            let id = BundleId(id);
            let begun =
                Draft::begin(&folder, id, &Origin { context: [0; 32], era: [0; 32], version: 0 }, &memory);
            let (_, spool) = begun.map_err(|e| SpoolError(e.to_string()))?;
            relus.preprocess(id, channel, *secret()?, Box::new(spool))
        };
        (0..job.bundles).map(one).collect::<Result<Vec<_>, _>>()
    })?;
    let bundle = made.pop().ok_or(seco_protocol::Error::Misuse("no bundle"))?;
    let (outcome, online) = channel.measure(|channel| relus.evaluate(bundle, channel, &mut rng))?;
    let peak_memory = process::peak_memory().unwrap_or_default();
    let exact = relus.check(outcome, &mut channel)?;
    Ok((Outcome { preprocessing, online, peak_memory, exact }, channel))
}

/// A channel that counts what it sends.
struct Counting {
    channel: QuicChannel,
    mesh: Mesh,
    sent: u64,
}

impl Counting {
    /// What `phase` costs this server; all begin and end together.
    fn measure<T>(
        &mut self,
        phase: impl FnOnce(&mut Self) -> Result<T, seco_protocol::Error>,
    ) -> Result<(T, Spent), seco_protocol::Error> {
        let now = || process::cpu_time().unwrap_or_default();
        self.meet()?;
        let (cpu, wall, sent, udp) = (now(), Instant::now(), self.sent, self.mesh.bytes_sent());
        let value = phase(self)?;
        let sent = self.sent - sent;
        self.meet()?;
        // Now all of it has arrived.
        let udp = self.mesh.bytes_sent() - udp;
        Ok((value, Spent { cpu: now().saturating_sub(cpu), wall: wall.elapsed(), sent, udp }))
    }

    /// Waits until all servers are here.
    fn meet(&mut self) -> Result<(), ChannelError> {
        let others: Vec<usize> = (0..self.parties()).filter(|&i| i != self.me()).collect();
        for &peer in &others {
            self.channel.send(peer, Vec::new())?;
        }
        others.iter().try_for_each(|&peer| self.channel.recv(peer, 0).map(|_| ()))
    }
}

impl Channel for Counting {
    fn me(&self) -> usize {
        self.channel.me()
    }

    fn parties(&self) -> usize {
        self.channel.parties()
    }

    fn blank(&mut self) -> Vec<u8> {
        self.channel.blank()
    }

    fn send(&mut self, to: usize, message: Vec<u8>) -> Result<(), ChannelError> {
        self.sent += message.len() as u64;
        self.channel.send(to, message)
    }

    fn wait_sent(&mut self, to: usize, bytes: usize) -> Result<(), ChannelError> {
        self.channel.wait_sent(to, bytes)
    }

    fn recv(&mut self, from: usize, max: usize) -> Result<Vec<u8>, ChannelError> {
        self.channel.recv(from, max)
    }
}
