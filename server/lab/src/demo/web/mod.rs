//! `seco demo --web`: a page on this machine on which anybody draws a digit and sees what becomes of it.
//!
//! The page talks to this process, which is the device: `seco-sdk` with its session. It is plain HTML with a script and
//! a style sheet of its own, and loads nothing from elsewhere.
//!
//! It listens on a loopback address only. Whatever changes something must come with a header that a page from elsewhere
//! cannot send, and requests under another host's name are refused, so that no web site can use a visitor's browser to
//! ask the cluster.

mod live;
mod serve;

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;

use seco_model::{Executor, FixedModel};
use seco_node::config::Pool;
use seco_sdk::{Client, Deployment, Kind, Token, Transport, UdpBytes};
use seco_tools::samples::Samples;
use seco_tools::split::Split;
use serde::Serialize;
use tokio::net::TcpListener;
use tokio::sync::{Mutex, watch};
use tokio::task::spawn_blocking;
use tokio::time::{Duration, Instant, sleep, timeout};

use self::live::Live;
use super::cluster::{Cluster, Progress, name};
use crate::Error;

/// Time that acknowledgements take to come after what they belong to.
const QUIET: Duration = Duration::from_millis(60);
/// After an answer, servers have this long to say that they gave it.
const REPORTS: Duration = Duration::from_secs(2);
/// Plain requests before the page is shown: the first ones warm code and connection up, and the median tells what one
/// takes.
const PROBES: usize = 7;

/// Enough for a few predictions in a row; what is used is made again beside them.
pub(super) const POOL: Pool =
    Pool { size: 8, low: 5, memory_mib: 64, disk_mib: 64 << 10, priority: 0, making: 0, leases: 0 };

/// What the page is made of.
pub(super) struct Site {
    pub deployment: Deployment,
    pub token: Option<Token>,
    pub picture: Picture,
    /// A folder with a report to show (`seco bench paper`).
    pub report: Option<PathBuf>,
}

/// A network that takes pictures, and what is drawn for it.
pub(super) struct Picture {
    /// The network as the servers compute it, to compare with.
    model: Arc<FixedModel>,
    /// Height and width.
    sides: [usize; 2],
    /// The network sees `byte / scale`: that is the strongest ink.
    ink: u8,
    /// Inputs that can be chosen instead of drawing, one of each label.
    samples: Vec<(usize, Vec<u8>)>,
    /// What the page says of the network.
    title: String,
}

impl Picture {
    /// Takes networks for grey pictures alone.
    pub(super) fn new(samples: &Samples, split: Split) -> Result<Picture, Error> {
        let model = split.imported.chosen.model;
        let shape = &model.graph.input.shape;
        let sides = match *shape.as_slice() {
            [height, width] | [1, height, width] => Some([height, width]),
            // Rows one after the other.
            [values] if values.isqrt().pow(2) == values => Some([values.isqrt(); 2]),
            _ => None,
        };
        let Some(sides) = sides.filter(|sides| sides.iter().all(|side| (4..=SIDE).contains(side))) else {
            return Err(Error::Usage(format!(
                "--web draws grey pictures of at most {SIDE} x {SIDE}, but {} takes {shape:?}",
                samples.name
            )));
        };
        let mut chosen: Vec<(usize, Vec<u8>)> = Vec::new();
        for index in 0..samples.count {
            let Some(label) = samples.label(index) else { break };
            if chosen.len() < CHOICE && chosen.iter().all(|(other, _)| *other != label) {
                chosen.push((label, samples.get(index).to_vec()));
            }
        }
        chosen.sort_unstable_by_key(|(label, _)| *label);
        let title = format!(
            "The network {} is split over {} servers, which are processes of this machine; in earnest each belongs to \
             somebody else.",
            samples.name, split.architecture.servers
        );
        let model = Arc::new(model);
        Ok(Picture { model, sides, ink: samples.scale.clamp(1.0, 255.0) as u8, samples: chosen, title })
    }
}

/// Largest picture that is drawn, in pixels a side.
const SIDE: usize = 64;
/// Most pictures to choose from.
const CHOICE: usize = 10;

/// The page's device, and what it needs for an answer to the page.
struct Agent {
    client: Client,
    picture: Picture,
    report: Option<PathBuf>,
    plain: Plain,
    live: watch::Receiver<Vec<Progress>>,
    /// One request at a time, so that what it cost can be told.
    turn: Mutex<()>,
}

/// What a request without privacy costs: the same bytes, without meaning. The wait is the median of several.
#[derive(Clone, Copy, Debug, Serialize)]
struct Plain {
    bytes_up: u64,
    bytes_down: u64,
    waited_ms: f64,
}

/// What one prediction was, and cost.
#[derive(Debug, Serialize)]
struct Told {
    label: usize,
    /// What was answered in words, where the numbers are no classes.
    value: Option<String>,
    logits: Vec<i32>,
    /// Class by class, if the network's numbers mean that.
    probabilities: Option<Vec<f64>>,
    /// Whether the same network computed in clear gives the same integers.
    equal: bool,
    outside_calibration: bool,
    /// What left the device: the input under its pads.
    sent: Vec<u8>,
    bytes_up: u64,
    bytes_down: u64,
    waited_ms: f64,
    plain: Plain,
    servers: Vec<ServerTold>,
}

/// One server's part of it.
#[derive(Debug, Serialize)]
struct ServerTold {
    name: String,
    /// Bytes of messages sent to the other servers.
    sent_bytes: Option<u64>,
    /// From the request's arrival to its part of the answer.
    ms: Option<f64>,
}

/// Serves the page until Ctrl-C, or until a server ends. `told` is given its address.
pub(super) async fn run(
    cluster: &mut Cluster,
    site: Site,
    address: Option<SocketAddr>,
    told: impl FnOnce(SocketAddr),
) -> Result<(), Error> {
    let address = address.unwrap_or_else(|| SocketAddr::from((Ipv4Addr::LOCALHOST, 0)));
    if !address.ip().is_loopback() {
        return Err(Error::Usage(format!("--web {address}: the page is for this machine: give 127.0.0.1")));
    }
    let listener = TcpListener::bind(address).await.map_err(|e| Error::bind("TCP", address, e))?;
    let shown = listener.local_addr().map_err(|_| Error::no_runtime())?;
    let (progress, live) = watch::channel(cluster.progress().to_vec());
    let agent = cluster.during(Agent::start(site, live)).await??;
    progress.send_replace(cluster.progress().to_vec());
    told(shown);
    let served = serve::serve(listener, Arc::new(agent));
    cluster.watched(served, |now| drop(progress.send_replace(now.to_vec()))).await
}

impl Agent {
    /// Connects, and measures what a plain request costs.
    async fn start(site: Site, live: watch::Receiver<Vec<Progress>>) -> Result<Agent, Error> {
        let Site { deployment, token, picture, report } = site;
        let mut builder = Client::builder(deployment).transport(Transport::Quic).keep_sent(true);
        if let Some(token) = token {
            builder = builder.token(token);
        }
        let failed = |e: seco_sdk::Error| Error::Failed(e.to_string());
        let client = builder.connect().await.map_err(failed)?;
        let info = client.model();
        let mut plain = Plain { bytes_up: 0, bytes_down: 0, waited_ms: 0.0 };
        let mut waits = Vec::new();
        for _ in 0..PROBES {
            sleep(QUIET).await;
            let (before, start) = (client.udp_bytes(), Instant::now());
            client.probe(info.input_len, info.logits_len()).await.map_err(failed)?;
            waits.push(milliseconds(start.elapsed()));
            sleep(QUIET).await;
            let UdpBytes { up, down } = client.udp_bytes();
            plain = Plain { bytes_up: up - before.up, bytes_down: down - before.down, ..plain };
        }
        waits.sort_by(f64::total_cmp);
        plain.waited_ms = waits.get(PROBES / 2).copied().unwrap_or_default();
        Ok(Agent { client, picture, report, plain, live, turn: Mutex::default() })
    }

    /// One prediction for the page.
    ///
    /// # Errors
    /// One line for the page.
    async fn predict(&self, input: &[u8]) -> Result<Told, String> {
        let _turn = self.turn.lock().await;
        let mut live = self.live.clone();
        let before = live.borrow_and_update().clone();
        let sent_before = live::sent(&before).await;
        let bytes = self.client.udp_bytes();
        let start = Instant::now();
        let prediction = self.client.infer(input).await.map_err(|e| e.to_string())?;
        let waited_ms = milliseconds(start.elapsed());
        let sent = self.client.last_sent().unwrap_or_default();
        // The network in clear keeps a core busy: beside what follows, and not beside the servers, whose time counts.
        let (model, same) = (self.picture.model.clone(), input.to_vec());
        let clear = spawn_blocking(move || Executor::new(&model)?.run(&same).map(|run| run.logits));
        // All servers say so, and the last acknowledgement leaves.
        let answered = |now: &Vec<Progress>| {
            now.iter().zip(&before).all(|(now, before)| now.inferences > before.inferences)
        };
        let after = match timeout(REPORTS, live.wait_for(answered)).await {
            Ok(Ok(now)) => Some(now.clone()),
            _ => None,
        };
        sleep(QUIET).await;
        let UdpBytes { up, down } = self.client.udp_bytes();
        let sent_after = live::sent(&before).await;
        let servers = (0..before.len()).map(|index| ServerTold {
            name: name(index),
            sent_bytes: sent_after[index].zip(sent_before[index]).map(|(now, then)| now.saturating_sub(then)),
            ms: after.as_ref().and_then(|now| now.get(index)?.last_s).map(|seconds| 1000.0 * seconds),
        });
        let clear = clear.await.map_err(|e| e.to_string())?.map_err(|e| e.to_string())?;
        Ok(Told {
            label: prediction.label,
            value: (prediction.kind() == Kind::Values).then(|| prediction.to_string()),
            probabilities: prediction.probabilities(),
            equal: clear == prediction.logits,
            outside_calibration: prediction.outside_calibration,
            logits: prediction.logits,
            sent,
            bytes_up: up - bytes.up,
            bytes_down: down - bytes.down,
            waited_ms,
            plain: self.plain,
            servers: servers.collect(),
        })
    }

    /// What the page shows all the time.
    fn live(&self) -> Live {
        Live::of(&self.live.borrow())
    }
}

fn milliseconds(time: Duration) -> f64 {
    1000.0 * time.as_secs_f64()
}
