//! The user's process: a session and requests, over the SDK or without privacy, and what they cost it.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use quinn::{Connection, Endpoint, VarInt};
use seco_core::pack;
use seco_sdk::{CertificatePin, Client, Deployment, Transport, UdpBytes};
use seco_tools::process;
use serde::{Deserialize, Serialize};
use tokio::time::sleep;

use super::figures::Cost;
use super::models::Model;
use super::plain::{MAX_ANSWER, Shape};
use crate::Error;
use crate::bench::child::{self, Process, failed};

/// Requests may take long where four parties share two cores.
const LIMIT: Duration = Duration::from_secs(600);
/// QUIC acknowledges up to 25 ms late; after this long, and the delays of the link, nothing more belongs to what was
/// done.
const QUIET: Duration = Duration::from_millis(250);
/// Exchanges of the same size before what is measured, so that code and connection are warm.
const PROBES: usize = 3;

/// What the user is to do.
#[derive(Serialize, Deserialize)]
pub struct Job {
    pub server: Server,
    pub inputs: Vec<Vec<u8>>,
    /// Bytes of an answer, for probes.
    pub answer: usize,
}

/// Whom to ask.
#[derive(Serialize, Deserialize)]
pub enum Server {
    /// A gateway, by a deployment file.
    Seco(PathBuf),
    /// A server without privacy.
    Plain { address: SocketAddr, certificate: Vec<u8>, shape: Shape },
}

/// What it says.
#[derive(Serialize, Deserialize)]
pub enum Word {
    /// The session is open, and it is quiet. The first request follows once it is told to go on.
    Connected,
    /// The last answer is there, and it is quiet again. It closes once it is told to go on.
    Done(Outcome),
}

/// What it cost, all requests together.
#[derive(Serialize, Deserialize)]
pub struct Outcome {
    pub setup: Spent,
    pub online: Spent,
    /// By request, in seconds.
    pub waits: Vec<f64>,
    pub logits: Vec<Vec<i32>>,
    pub peak_memory: u64,
}

/// What a phase took.
#[derive(Clone, Copy, Default, Serialize, Deserialize)]
pub struct Spent {
    pub cpu_s: f64,
    pub wall_s: f64,
    pub up: u64,
    pub down: u64,
}

/// Reads the job, does it, and says so.
pub fn run() -> Result<(), Error> {
    let job: Job = child::job()?;
    // One thread, as on a small device.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(|_| Error::no_runtime())?.block_on(work(job))
}

/// An open way to the answers.
enum Asker {
    Seco(Box<Client>),
    Plain(Endpoint, Connection, Shape),
}

impl Asker {
    async fn connect(server: &Server) -> Result<Asker, Error> {
        let what = "connecting";
        match server {
            Server::Seco(path) => {
                let deployment = Deployment::from_file(path).map_err(|e| failed("the deployment file", e))?;
                let builder = Client::builder(deployment).transport(Transport::Quic).request_timeout(LIMIT);
                Ok(Asker::Seco(Box::new(builder.connect().await.map_err(|e| failed(what, e))?)))
            }
            Server::Plain { address, certificate, shape } => {
                let pin = CertificatePin::of(certificate);
                let config = seco_sdk::plain_config(pin, LIMIT).map_err(|e| failed(what, e))?;
                let local = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
                let endpoint = Endpoint::client(local).map_err(|e| failed(what, e))?;
                let connecting = endpoint.connect_with(config, *address, seco_node::keys::TLS_NAME);
                let connection =
                    connecting.map_err(|e| failed(what, e))?.await.map_err(|e| failed(what, e))?;
                Ok(Asker::Plain(endpoint, connection, *shape))
            }
        }
    }

    fn bytes(&self) -> UdpBytes {
        match self {
            Asker::Seco(client) => client.udp_bytes(),
            Asker::Plain(_, connection, _) => {
                let stats = connection.stats();
                UdpBytes { up: stats.udp_tx.bytes, down: stats.udp_rx.bytes }
            }
        }
    }

    async fn ask(&self, input: &[u8]) -> Result<Vec<i32>, Error> {
        match self {
            Asker::Seco(client) => {
                let prediction = client.infer(input).await.map_err(|e| failed("the inference", e))?;
                Ok(prediction.logits)
            }
            Asker::Plain(_, connection, shape) => plain(connection, *shape, input).await,
        }
    }

    /// Says goodbye, so that the server need not wait for silence to be noticed.
    async fn close(self) {
        match self {
            Asker::Seco(client) => client.close().await,
            Asker::Plain(endpoint, connection, _) => {
                connection.close(VarInt::from_u32(0), b"");
                endpoint.wait_idle().await;
            }
        }
    }

    /// An exchange of the same size, which computes nothing.
    async fn probe(&self, input: &[u8], answer: usize) -> Result<(), Error> {
        match self {
            Asker::Seco(client) => client.probe(input.len(), answer).await.map_err(|e| failed("a probe", e)),
            Asker::Plain(..) => self.ask(input).await.map(drop),
        }
    }
}

/// A request without privacy: the input there, the packed answer back, on a stream of its own.
async fn plain(connection: &Connection, shape: Shape, input: &[u8]) -> Result<Vec<i32>, Error> {
    let what = "a request without privacy";
    let (mut send, mut receive) = connection.open_bi().await.map_err(|e| failed(what, e))?;
    send.write_all(input).await.map_err(|e| failed(what, e))?;
    send.finish().map_err(|e| failed(what, e))?;
    let packed = receive.read_to_end(MAX_ANSWER).await.map_err(|e| failed(what, e))?;
    let mut words = vec![0; shape.values];
    pack::unpack(&packed, shape.width, &mut words).map_err(|e| failed(what, e))?;
    let unused = u32::BITS - shape.width.clamp(1, u32::BITS);
    Ok(words.iter().map(|&word| (word << unused).cast_signed() >> unused).collect())
}

/// Readings at the start of a phase.
struct Clock {
    cpu: Duration,
    wall: Instant,
    bytes: UdpBytes,
}

impl Clock {
    fn start(bytes: UdpBytes) -> Result<Clock, Error> {
        Ok(Clock { cpu: process::cpu_time()?, wall: Instant::now(), bytes })
    }

    fn stop(&self, bytes: UdpBytes) -> Result<Spent, Error> {
        Ok(Spent {
            cpu_s: process::cpu_time()?.saturating_sub(self.cpu).as_secs_f64(),
            wall_s: self.wall.elapsed().as_secs_f64(),
            up: bytes.up.saturating_sub(self.bytes.up),
            down: bytes.down.saturating_sub(self.bytes.down),
        })
    }
}

async fn work(job: Job) -> Result<(), Error> {
    let clock = Clock::start(UdpBytes::default())?;
    let asker = Asker::connect(&job.server).await?;
    let wall_s = clock.wall.elapsed().as_secs_f64();
    sleep(QUIET).await;
    let setup = Spent { wall_s, ..clock.stop(asker.bytes())? };
    let first = job.inputs.first().map(Vec::as_slice).unwrap_or_default();
    for _ in 0..PROBES {
        asker.probe(first, job.answer).await?;
    }
    sleep(QUIET).await;
    child::say(&Word::Connected);
    // The servers' counters are read meanwhile, however long that takes.
    child::wait_for_go().await?;
    let clock = Clock::start(asker.bytes())?;
    let (mut waits, mut logits) = (Vec::new(), Vec::new());
    for input in &job.inputs {
        let start = Instant::now();
        logits.push(asker.ask(input).await?);
        waits.push(start.elapsed().as_secs_f64());
    }
    let wall_s = clock.wall.elapsed().as_secs_f64();
    // The last acknowledgements belong to it.
    sleep(QUIET).await;
    let online = Spent { wall_s, ..clock.stop(asker.bytes())? };
    let peak_memory = process::peak_memory()?;
    child::say(&Word::Done(Outcome { setup, online, waits, logits, peak_memory }));
    // And again, before closing costs them something.
    child::wait_for_go().await?;
    asker.close().await;
    Ok(())
}

/// A user's process that is connected and waits to be told to ask: what is read before and after [`Asked::answers`]
/// has all requests in between, and nothing else of the user's.
pub struct Asked {
    process: Process<Word>,
    expected: Vec<Vec<i32>>,
}

/// How it went: the user's cost by request.
pub struct Answered {
    pub user: Cost,
    pub waiting_s: f64,
    pub setup_s: f64,
    pub equal: usize,
    pub count: usize,
}

impl Asked {
    /// Starts a user with so many requests, the first with input number `first`, and waits until it is connected.
    pub async fn start(
        model: &Model,
        requests: usize,
        first: usize,
        server: Server,
        answer: usize,
    ) -> Result<Asked, Error> {
        let chosen = || (first..first + requests).map(|i| i % model.inputs.len().max(1));
        let inputs = chosen().filter_map(|i| model.inputs.get(i).cloned()).collect();
        let expected = chosen().filter_map(|i| model.expected.get(i).cloned()).collect();
        let job = Job { server, inputs, answer };
        let mut process = Process::start("the user".to_owned(), "paper-user", &job).await?;
        let Word::Connected = process.word().await? else { return Err(process.confused()) };
        Ok(Asked { process, expected })
    }

    /// Lets it ask, and waits for the last answer.
    pub async fn answers(&mut self) -> Result<Answered, Error> {
        self.process.go().await?;
        let Word::Done(outcome) = self.process.word().await? else { return Err(self.process.confused()) };
        let Outcome { setup, online, waits, logits, peak_memory } = outcome;
        let count = self.expected.len();
        let each = count.max(1) as f64;
        Ok(Answered {
            user: Cost {
                online_cpu_s: Some(online.cpu_s / each),
                online_bytes_up: Some(online.up as f64 / each),
                online_bytes_down: Some(online.down as f64 / each),
                // Its process does not exist yet while servers prepare, and it leaves nothing behind.
                preprocessing_cpu_s: Some(0.0),
                preprocessing_bytes_up: Some(0.0),
                preprocessing_bytes_down: Some(0.0),
                storage_bytes: Some(0.0),
                peak_memory_bytes: Some(peak_memory as f64),
                setup_cpu_s: Some(setup.cpu_s),
                setup_bytes_up: Some(setup.up as f64),
                setup_bytes_down: Some(setup.down as f64),
            },
            waiting_s: waits.iter().sum::<f64>() / each,
            setup_s: setup.wall_s,
            equal: logits.iter().zip(&self.expected).filter(|(got, expected)| got == expected).count(),
            count,
        })
    }

    /// Lets it say goodbye, and waits for its end.
    pub async fn leave(mut self) -> Result<(), Error> {
        self.process.go().await?;
        self.process.end().await
    }
}
