//! `seco demo`: a whole cluster on this machine, and a device that asks it for predictions.
//!
//! Nothing is simulated: the servers are processes of their own, which talk QUIC as they would
//! between machines, and the device is `seco-sdk`.

pub(crate) mod cluster;
mod device;
mod report;
mod web;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use seco_model::{Architecture, Executor};
use seco_node::config::{Limits, Pool};
use seco_protocol::Counts;
use seco_tools::samples::{Network, Samples};
use seco_tools::split::{self, Split};
use seco_tools::terminal::{self, Ink};
use seco_tools::{check, infer, interrupt, token};
use tokio::time::Instant;

use self::cluster::Cluster;
use self::device::Device;
use self::report::{Report, ServersBytes, Spread};
use crate::Error;
use crate::progress;

/// Inferences between two fillings of the pool.
const STRETCH: usize = 10;

/// Memory that the bundles of all servers together may take.
const POOL_BYTES: u64 = 1 << 30;

/// After an answer, the servers have this long to report the inference.
const REPORT_LIMIT: Duration = Duration::from_secs(30);

/// What `seco demo` is asked for.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// The network and its inputs.
    #[command(flatten)]
    pub network: Network,
    /// Labels of the inputs: uint8, one axis.
    #[arg(long, value_name = "FILE.npy")]
    pub labels: Option<PathBuf>,
    /// Number of servers, the gateway included.
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u8).range(2..=4))]
    pub servers: u8,
    /// Number of predictions [default: 20, or as many as there are samples].
    #[arg(long, value_name = "M")]
    pub count: Option<usize>,
    /// Delays everything between all parties by MS milliseconds one way (20 if not given).
    #[arg(long, value_name = "wan[:MS]")]
    pub net: Option<Net>,
    /// Leaves the servers running afterwards, until Ctrl-C, for `seco infer` and the demo apps.
    #[arg(long)]
    pub keep: bool,
    /// Where the gateway listens for devices, UDP and TCP: an address of this machine that the
    /// device reaches [default: 127.0.0.1, any free port].
    #[arg(long, value_name = "IP[:PORT]", value_parser = address, conflicts_with = "net")]
    pub listen: Option<SocketAddr>,
    /// Writes the deployment file here, for devices; otherwise it lies in a temporary folder.
    #[arg(long, value_name = "FILE.toml")]
    pub deployment: Option<PathBuf>,
    /// Overwrites the file of --deployment.
    #[arg(long, requires = "deployment")]
    pub force: bool,
    /// Serves a page on this machine, on which anybody draws and sees what becomes of it, until Ctrl-C; at this address
    /// [default: 127.0.0.1, any free port].
    #[arg(long, value_name = "IP:PORT", num_args = 0..=1, conflicts_with_all = ["json", "net", "count"])]
    pub web: Option<Option<SocketAddr>>,
    /// Shows a report of `seco bench paper` on that page.
    #[arg(long, value_name = "FOLDER", requires = "web")]
    pub report: Option<PathBuf>,
    /// Serves only devices that show a token; one is made, and written to this new file.
    #[arg(long, value_name = "FILE")]
    pub token: Option<PathBuf>,
    /// Prints the results as one JSON object and nothing else.
    #[arg(long)]
    pub json: bool,
}

/// The network between the parties.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Net {
    /// One-way delay.
    pub delay: Duration,
}

impl FromStr for Net {
    type Err = String;

    fn from_str(text: &str) -> Result<Net, String> {
        let ms = match text.strip_prefix("wan") {
            Some("") => Some(20),
            Some(rest) => {
                rest.strip_prefix(':').and_then(|ms| ms.parse().ok()).filter(|ms| (1..=2000).contains(ms))
            }
            None => None,
        };
        let ms = ms.ok_or("give wan, or wan:MS with 1 to 2000 milliseconds one way")?;
        Ok(Net { delay: Duration::from_millis(ms) })
    }
}

/// An address with or without a port.
fn address(text: &str) -> Result<SocketAddr, String> {
    let address = text.parse().or_else(|_| text.parse::<IpAddr>().map(|ip| SocketAddr::new(ip, 0)));
    match address {
        // Devices are told this address, and nobody can send to "any".
        Ok(address) if !address.ip().is_unspecified() => Ok(address),
        _ => Err("give an address of this machine, such as 192.168.1.20 or 192.168.1.20:7443".to_owned()),
    }
}

/// Runs the demo.
pub fn run(options: &Options) -> Result<(), Error> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(|_| Error::no_runtime())?;
    let result = runtime.block_on(until_interrupted(options));
    // A calculation that Ctrl-C interrupted need not end first.
    runtime.shutdown_timeout(Duration::from_secs(1));
    result
}

/// The demo from its temporary folder to the end of its servers, whatever happens in between.
async fn until_interrupted(options: &Options) -> Result<(), Error> {
    // Said now, not after minutes of work.
    options.deployment.as_ref().map_or(Ok(()), |file| split::check_new(file, options.force))?;
    let mut interrupted = interrupt::listen()?;
    let folder = tempfile::Builder::new()
        .prefix("seco-demo-")
        .tempdir()
        .map_err(|e| Error::write(&std::env::temp_dir(), e))?;
    let delay = options.net.map(|net| net.delay);
    let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let device = options.listen.unwrap_or(any);
    let mut cluster = Cluster::new(folder.path(), usize::from(options.servers), device, delay);
    if let Some(file) = &options.token {
        cluster.ask_for_tokens(file)?;
    }
    if options.web.is_some() {
        cluster = cluster.with_admin();
    }
    let result = tokio::select! {
        result = predict(options, folder.path(), &mut cluster) => result,
        () = interrupted.wait() => Err(Error::Interrupted),
    };
    let result = match result {
        Ok(()) if options.keep => tokio::select! {
            result = cluster.during(std::future::pending()) => result,
            () = interrupted.wait() => Ok(()),
        },
        other => other,
    };
    cluster.stop().await;
    result
}

/// Where the demo's words go: nowhere with `--json`, for standard output is the program's then.
#[derive(Clone, Copy)]
struct Voice {
    silent: bool,
}

impl Voice {
    fn say(self, text: &str) {
        if !self.silent {
            terminal::print(text);
        }
    }
}

/// What is known before a server runs.
pub(crate) struct Prepared {
    pub samples: Samples,
    pub split: Split,
    /// Logits of the plaintext fixed-point executor.
    pub expected: Vec<Vec<i32>>,
}

/// Splits the network of some samples for so many servers, and computes what the answers must be.
pub(crate) fn prepare(mut samples: Samples, servers: usize, folder: &Path) -> Result<Prepared, Error> {
    // As the paper does: a layer is the gateway's, and the rest is shared by the remotes.
    let task = samples.task(servers, folder.join("model"));
    let split = split::split(&task)?;
    let model = &split.imported.chosen.model;
    samples.serve(&model.graph.input.shape, model.graph.answer_len());
    let expected = Executor::new(model).and_then(|executor| {
        (0..samples.count).map(|i| executor.run(samples.get(i)).map(|result| result.logits)).collect()
    });
    let expected = expected.map_err(|e| Error::Model { path: samples.input.clone(), what: e.to_string() })?;
    Ok(Prepared { samples, split, expected })
}

/// What the demo needs, in a folder.
fn prepared(options: &Options, folder: &Path) -> Result<Prepared, Error> {
    let samples = Samples::load(&options.network, options.labels.as_deref(), options.count, folder)?;
    prepare(samples, usize::from(options.servers), folder)
}

async fn predict(options: &Options, folder: &Path, cluster: &mut Cluster) -> Result<(), Error> {
    let voice = Voice { silent: options.json };
    let (task, place) = (options.clone(), folder.to_owned());
    let prepared = tokio::task::spawn_blocking(move || prepared(&task, &place)).await;
    let Prepared { samples, split, expected } = prepared.map_err(|_| Error::no_runtime())??;
    let counts = Counts::of(&split.architecture);
    voice.say(&introduction(&samples, &split.architecture));
    if let Some(warning) = split.warning() {
        terminal::note(&format!("seco: warning: {warning}"));
    }

    if let Some(address) = options.web {
        let (files, picture) = (split.files.clone(), web::Picture::new(&samples, split)?);
        cluster.make_keys()?;
        cluster.start(files, web::POOL, Limits::default()).await?;
        let file = options.deployment.clone().unwrap_or_else(|| folder.join("deployment.toml"));
        let site = web::Site {
            deployment: cluster.deployment(&file).await?,
            token: options.token.as_deref().map(token::read).transpose()?,
            picture,
            report: options.report.clone(),
        };
        return web::run(cluster, site, address, |address| {
            voice.say(&format!("Open http://{address}/ in a browser of this machine. Ctrl-C ends it."));
        })
        .await;
    }

    let stretch = samples.count.min(STRETCH).min(affordable(counts.and_gates, options.servers));
    // One more than a stretch takes: a pool that is never empty is not refilled beside the
    // inferences that are measured.
    let pool = stretch + 1;
    cluster.make_keys()?;
    cluster.start(split.files, filled_once(pool), Limits::default()).await?;
    voice.say("Keys are made and servers connected. Preprocessing, before any input is known:");

    let show_bar = !options.json;
    let (start, sent) = (Instant::now(), cluster.sent());
    fill(cluster, pool, show_bar).await?;
    let preprocessing_s_per_bundle = start.elapsed().as_secs_f64() / pool as f64;
    let preprocessing_per_bundle = (cluster.sent() - sent) / pool as u64;
    voice.say(&format!(
        "{pool} bundles are ready, {preprocessing_s_per_bundle:.2} s each. Every prediction uses one up.\n"
    ));

    let file = options.deployment.clone().unwrap_or_else(|| folder.join("deployment.toml"));
    let deployment = cluster.deployment(&file).await?;
    let delay = options.net.map(|net| net.delay);
    let token = options.token.as_deref().map(token::read).transpose()?;
    let connected = cluster.during(Device::connect(deployment, delay, token)).await?;
    let mut device = match connected {
        Ok(device) => device,
        Err(error) => return Err(cluster.blame(error).await),
    };

    let ink = Ink::detect();
    let (mut equal, mut right, mut waits) = (0, 0, Vec::new());
    let sent = cluster.sent();
    let mut online_per_inference = 0;
    for (i, expected) in expected.iter().enumerate() {
        let last_bundle = gateway(cluster).pool <= 1;
        let measured = i + device::MEASURED >= samples.count;
        let answer = match cluster.during(device.infer(samples.get(i), measured)).await? {
            Ok(answer) => answer,
            Err(error) => return Err(cluster.blame(error).await),
        };
        cluster
            .wait("the servers to report an inference", REPORT_LIMIT, |p| p.iter().all(|p| p.inferences > i))
            .await?;
        let same = answer.prediction.logits == *expected;
        let label = samples.label(i);
        equal += usize::from(same);
        right += usize::from(label == Some(answer.prediction.label));
        waits.push(answer.waited.as_secs_f64() * 1000.0);
        voice.say(&page(&samples, i, &answer, same, ink));
        if i + 1 == stretch {
            online_per_inference = (cluster.sent() - sent) / stretch as u64;
        }
        if last_bundle && i + 1 < samples.count {
            fill(cluster, pool, show_bar).await?;
        }
    }
    let (up, down) = (samples.get(0).len(), answer_bytes(&split.architecture));
    let device = match cluster.during(device.bytes(up, down)).await? {
        Ok(bytes) => bytes,
        Err(error) => return Err(cluster.blame(error).await),
    };

    let report = Report {
        model: samples.name.clone(),
        servers: usize::from(options.servers),
        count: samples.count,
        equal,
        correct: samples.label(0).map(|_| right),
        value: split.architecture.graph.answer_len() == 1,
        online_ms: Spread::of(waits),
        preprocessing_s_per_bundle,
        device,
        servers_bytes: ServersBytes { preprocessing_per_bundle, online_per_inference },
        and_gates: counts.and_gates,
        relus: counts.relus,
    };
    terminal::print(&if options.json { report.json() } else { report.table(samples.paper) });
    if equal < samples.count {
        let wrong = samples.count - equal;
        return Err(Error::Failed(format!(
            "{wrong} results differ from the plaintext computation: please report this"
        )));
    }
    if options.keep {
        let text = format!(
            "The servers go on until Ctrl-C. Try, in another terminal:\n  seco infer --deployment {} --input {}",
            file.display(),
            samples.input.display()
        );
        // Standard output is for the JSON object alone.
        if options.json { terminal::note(&text) } else { terminal::print(&text) }
    }
    Ok(())
}

/// The gateway's progress.
fn gateway(cluster: &Cluster) -> cluster::Progress {
    cluster.progress().first().cloned().unwrap_or_default()
}

/// Bundles that fit the memory the demo takes. All servers together store 48 bytes for each AND
/// gate and garbler, 32 when there is one (section 5 of PROTOCOL.md).
fn affordable(and_gates: u64, servers: u8) -> usize {
    let per_gate = if servers == 2 { 32 } else { 48 * (u64::from(servers) - 1) };
    let bundles = POOL_BYTES / and_gates.saturating_mul(per_gate).max(1);
    usize::try_from(bundles).unwrap_or(usize::MAX).max(1)
}

/// Bytes of the packed logits: what a plain answer would take.
fn answer_bytes(architecture: &Architecture) -> usize {
    seco_core::pack::packed_len(architecture.graph.answer_len(), architecture.graph.answer_width())
}

/// The whole pool is made in one go, and nothing beside it until it is empty.
pub(crate) fn filled_once(size: usize) -> Pool {
    Pool { size, low: 0, ..Pool::default() }
}

/// Waits until the pool is full.
pub(crate) async fn fill(cluster: &mut Cluster, pool: usize, shown: bool) -> Result<(), Error> {
    let bar = progress::progress(pool, "bundles", shown);
    let limits = Limits::default();
    let result = cluster
        .wait("a bundle", limits.preprocess() + limits.setup(), |servers| {
            let (ready, made) = servers.first().map_or((0, 0), |gateway| (gateway.pool, gateway.bundles));
            bar.set_position(ready as u64);
            // The remotes' events tell the bytes they sent for the last one.
            ready >= pool && servers.iter().all(|server| server.bundles >= made)
        })
        .await;
    bar.finish_and_clear();
    result
}

fn introduction(samples: &Samples, architecture: &Architecture) -> String {
    let remotes = match architecture.servers {
        2 => "one remote".to_owned(),
        n => format!("{} remotes", n - 1),
    };
    let mut text = format!("SECO: {} as a private service of a gateway and {remotes}.\n", samples.name);
    for layer in architecture.graph.layers() {
        let holders: Vec<String> =
            architecture.holders(layer.index).iter().map(|&h| cluster::name(h)).collect();
        let whose = match holders.as_slice() {
            [one] => format!("weights held by {one}"),
            many => format!("weights shared by {}, known to none", many.join(", ")),
        };
        text.push_str(&format!("  {}: {} outputs, {whose}\n", layer.name, layer.geometry.outputs()));
    }
    if let Some(cost) = check::short(architecture) {
        text.push_str(&format!("{cost}\n"));
    }
    text
}

/// What is shown for one prediction.
fn page(samples: &Samples, index: usize, answer: &device::Answer, same: bool, ink: Ink) -> String {
    let mut text =
        vec![format!("sample {} of {}", index + 1, samples.count), infer::conclusion(&answer.prediction)];
    if let Some(label) = samples.label(index) {
        let mark = if label == answer.prediction.label { "" } else { "   (the network errs)" };
        text.push(format!("true label  {label}{mark}"));
    }
    let verdict = if same {
        "equal the plaintext computation bit for bit"
    } else {
        "DIFFER from the plaintext computation"
    };
    text.push(format!("logits      {verdict}"));
    text.push(format!("online      {:.1} ms", answer.waited.as_secs_f64() * 1000.0));
    terminal::beside(&terminal::picture(&samples.shape, samples.get(index), ink).unwrap_or_default(), &text)
}

#[cfg(test)]
mod tests;
