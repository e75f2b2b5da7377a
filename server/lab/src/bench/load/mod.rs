//! `seco bench load`: many devices at a cluster, each with a connection and a session of its own, every answer compared
//! with the plaintext network's bit for bit.
//!
//! The devices are clients of `seco-sdk`, tasks of this process; the servers are processes, started as the demo starts
//! them or found by a deployment file. Each device has one request open at a time and all together make `--requests` of
//! them (or as many as there is time for, with `--seconds`); with `--open` requests come at a steady rate instead,
//! however long answers take, and latency counts from the moment at which they should have been made.
//!
//! With `--json` the report is one object. Times are in milliseconds, memory in bytes; what is not known is `null`.
//!
//! | field | |
//! |---|---|
//! | `model`, `servers`, `devices`, `transport`, `greedy`, `pool` | as asked for |
//! | `leases` | bundles that may be spent ahead, as asked for |
//! | `making` | bundles that servers make at the same time, as asked for |
//! | `net_ms` | delay between servers one way, as asked for; `null`: none was added |
//! | `open` | requests a second that came however long answers took; `null`: every device asks when it has its answer |
//! | `checked` | whether answers were compared |
//! | `requests`, `answers`, `wrong` | made; answered; answered otherwise than the plaintext network |
//! | `refusals` | requests that failed, by kind: `busy`, `unavailable`, `connection_lost`, ... |
//! | `asked_again` | times that the SDK waited and asked again by itself |
//! | `seconds`, `answers_per_s` | from the first request to the last answer |
//! | `latency_ms` | `p50`, `p90`, `p99`, `max` of answered requests |
//! | `waits` | requests that were told to wait: `count`, `position_max`, `told_ms` and `actual_ms` (both as `latency_ms`), `within_factor_two` (part of them for which the wait was between half and twice of what was told) |
//! | `fairness` | answers by device: `min`, `max`, `jain` (1: all alike; 1/n: one has all), of all but the greedy one, which is `greedy` |
//! | `ready_ms` | for bundles: how long filling the pool took, for each |
//! | `device_cpu_ms_per_answer` | CPU time of this process |
//! | `cpu_ms_per_answer` | CPU time of all servers, bundles that they made meanwhile included |
//! | `processes` | for each server: `server`, `cpu_ms_per_answer`, `memory_before`, `memory_after`, `memory_peak`, `handles` |
//! | `idle` | with `--idle`: `sessions` (opened), `refusals`, `seconds`, `memory_per_session` (by server), `newcomer_ms` (a new device's first answer after all others were idle; `null`: it got none), `newcomer_error` |
//! | `abandoned` | with `--abandoned`: `sessions`, `refusals`, `seconds`, `memory_before`, `memory_after` (by server) |

mod crowd;
mod report;

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use seco_node::config::{Limits, Pool};
use seco_sdk::{Deployment, Transport};
use seco_tools::process::cpu_time;
use seco_tools::samples::{Network, Samples};
use seco_tools::{interrupt, terminal};
use tokio::time::sleep;

use self::crowd::{Crowd, Opened, Questions};
use self::report::{Abandoned, Idle, Report};
use super::watch::{self, Usage};
use crate::Error;
use crate::demo::cluster::Cluster;
use crate::demo::{self, Prepared};

/// Servers that make no bundle give memory back after ten seconds.
const SETTLE: Duration = Duration::from_secs(12);
/// What is told to the servers' connections and sessions takes so long to have its effects.
const SHORTLY: Duration = Duration::from_secs(2);

/// How devices reach the gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Via {
    /// UDP.
    Quic,
    /// TLS over TCP.
    Tcp,
    /// As applications do: QUIC, or TCP where it does not answer.
    Auto,
    /// Devices take turns with QUIC and TCP.
    Mixed,
}

impl Via {
    fn of(self, device: usize) -> Transport {
        match self {
            Via::Quic => Transport::Quic,
            Via::Tcp => Transport::Tcp,
            Via::Auto => Transport::Auto,
            Via::Mixed if device.is_multiple_of(2) => Transport::Quic,
            Via::Mixed => Transport::Tcp,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Via::Quic => "quic",
            Via::Tcp => "tcp",
            Via::Auto => "auto",
            Via::Mixed => "mixed",
        }
    }
}

/// What `seco bench load` is asked for.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// The network and its inputs: with --deployment, what the cluster was split from.
    #[command(flatten)]
    pub network: Network,
    /// Devices, each with a connection and a session of its own.
    #[arg(long, value_name = "D", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub devices: u32,
    /// Requests of all devices together.
    #[arg(long, value_name = "R", default_value_t = 100)]
    pub requests: u64,
    /// Instead of a number of requests: for so long.
    #[arg(long, value_name = "S", conflicts_with = "requests")]
    pub seconds: Option<u64>,
    /// A running cluster, by its deployment file; otherwise one is started.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["pool", "servers"])]
    pub deployment: Option<PathBuf>,
    /// Does not compare answers: the network is not here, and the inputs are zeros.
    #[arg(long, requires = "deployment")]
    pub unchecked: bool,
    /// Number of servers to start, the gateway included.
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u8).range(2..=4))]
    pub servers: u8,
    /// How devices reach the gateway.
    #[arg(long, value_enum, default_value_t = Via::Auto)]
    pub transport: Via,
    /// Requests come at this rate, however long answers take [60 if not given].
    #[arg(long, value_name = "PER_SECOND", num_args = 0..=1, default_missing_value = "60", conflicts_with = "greedy",
        value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub open: Option<u32>,
    /// One device more, which keeps N requests open.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub greedy: u32,
    /// Bundles to be ready before the first request, and none to be made before they are used up; 0: bundles are made
    /// as a server usually does, and nobody waits for them.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub pool: u32,
    /// Bundles that may be spent ahead for the next requests of connections (`leases` of all servers): while more than half
    /// of those of --pool are left.
    #[arg(long, value_name = "N", default_value_t = 0, conflicts_with = "deployment")]
    pub leases: u32,
    /// Bundles that servers make at the same time; 0: as cores and memory allow.
    #[arg(long, value_name = "N", default_value_t = 0, conflicts_with = "deployment")]
    pub making: u32,
    /// Imitates a network between servers, not to devices: wan or wan:MS, the delay one way (20 ms if not said).
    #[arg(long, value_name = "wan[:MS]", conflicts_with = "deployment")]
    pub net: Option<demo::Net>,
    /// Sessions that are opened first and do nothing: their memory, and whether a new device gets in.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub idle: u32,
    /// Sessions that are opened and left before anything else: whether memory of the servers grows.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub abandoned: u32,
    /// Time limit of a request at the device.
    #[arg(long, value_name = "S", default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub request_timeout: u64,
    /// Prints the results as one JSON object and nothing else.
    #[arg(long)]
    pub json: bool,
}

/// Runs the measurement.
pub fn run(options: &Options) -> Result<(), Error> {
    watch::allow_handles();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(|_| Error::no_runtime())?;
    let result = runtime.block_on(until_interrupted(options));
    runtime.shutdown_timeout(Duration::from_secs(1));
    let report = result?;
    terminal::print(&if options.json { report.json() } else { report.table() });
    if report.wrong > 0 {
        return Err(Error::Failed(format!(
            "{} answers differ from the plaintext computation: please report this",
            report.wrong
        )));
    }
    Ok(())
}

async fn until_interrupted(options: &Options) -> Result<Report, Error> {
    let mut interrupted = interrupt::listen()?;
    let folder = tempfile::Builder::new()
        .prefix("seco-load-")
        .tempdir()
        .map_err(|e| Error::write(&std::env::temp_dir(), e))?;
    let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let mut cluster =
        Cluster::new(folder.path(), usize::from(options.servers), any, options.net.map(|net| net.delay));
    let result = tokio::select! {
        result = measure(options, folder.path(), &mut cluster) => result,
        () = interrupted.wait() => Err(Error::Interrupted),
    };
    cluster.stop().await;
    result
}

async fn measure(options: &Options, folder: &Path, cluster: &mut Cluster) -> Result<Report, Error> {
    let Some(path) = &options.deployment else {
        let servers = usize::from(options.servers);
        let (questions, files) = prepare(options, servers, folder).await?;
        let (deployment, ready_ms) = start(options, folder, cluster, files).await?;
        let crowd = Crowd::new(options, deployment, questions);
        let processes = cluster.processes();
        let report = cluster.during(questioned(options, &crowd, &processes)).await??;
        return Ok(Report { servers, ready_ms, ..report });
    };
    let bad = |what: String| Error::Usage(format!("--deployment {}: {what}", path.display()));
    let deployment = Deployment::from_file(path).map_err(|e| bad(e.to_string()))?;
    let servers = deployment.servers.len();
    let takes = deployment.model_info().map_err(|e| bad(e.to_string()))?.input_len;
    let questions = if options.unchecked {
        Questions { inputs: vec![vec![0; takes]], expected: Vec::new() }
    } else {
        prepare(options, servers, folder).await?.0
    };
    let gives = questions.inputs.first().map_or(0, Vec::len);
    if gives != takes {
        return Err(bad(format!(
            "its model takes {takes} bytes, --model {} {gives}: give the cluster's, or --unchecked",
            options.network.model.display()
        )));
    }
    let report = questioned(options, &Crowd::new(options, deployment, questions), &[]).await?;
    Ok(Report { servers, ..report })
}

/// The network's inputs and what the answers must be, and its parts for so many servers.
async fn prepare(
    options: &Options,
    servers: usize,
    folder: &Path,
) -> Result<(Questions, Vec<PathBuf>), Error> {
    let (network, place) = (options.network.clone(), folder.to_owned());
    let prepared = tokio::task::spawn_blocking(move || {
        demo::prepare(Samples::load(&network, None, None, &place)?, servers, &place)
    });
    let Prepared { samples, split, expected } = prepared.await.map_err(|_| Error::no_runtime())??;
    let inputs = (0..samples.count).map(|i| samples.get(i).to_vec()).collect();
    Ok((Questions { inputs, expected }, split.files))
}

/// Starts a cluster with the pool that was asked for; also how long that took for each bundle.
async fn start(
    options: &Options,
    folder: &Path,
    cluster: &mut Cluster,
    files: Vec<PathBuf>,
) -> Result<(Deployment, Option<f64>), Error> {
    let bundles = usize::try_from(options.pool).unwrap_or(usize::MAX);
    let pool = if bundles == 0 { Pool::default() } else { demo::filled_once(bundles) };
    let leases = usize::try_from(options.leases).unwrap_or(usize::MAX);
    if leases > pool.size {
        return Err(Error::Usage(format!("--leases {leases} must not be more than --pool {}", pool.size)));
    }
    let pool = Pool { leases, making: usize::try_from(options.making).unwrap_or(usize::MAX), ..pool };
    cluster.make_keys()?;
    // All devices are at one address, and as many as were asked for.
    let limits = Limits {
        connections: 65_536,
        address_connections: 0,
        address_handshakes: 0,
        address_sessions: 0,
        address_requests: 0,
        address_leases: 0,
        ..Limits::default()
    };
    cluster.start(files, pool, limits).await?;
    let start = Instant::now();
    // Where memory is to be told, nothing else should change it.
    if bundles > 0 || options.idle > 0 || options.abandoned > 0 {
        demo::fill(cluster, pool.size, !options.json).await?;
    }
    let ready_ms = (bundles > 0).then(|| start.elapsed().as_secs_f64() * 1e3 / bundles as f64);
    // Devices stay near the gateway.
    Ok((cluster.deployment_over(&folder.join("deployment.toml"), None).await?, ready_ms))
}

/// Everything that is asked of a cluster. `processes` are its servers, where they are known.
async fn questioned(options: &Options, crowd: &Crowd, processes: &[u32]) -> Result<Report, Error> {
    let (mut abandoned, mut idle, mut held) = (None, None, Vec::new());
    if options.abandoned > 0 || options.idle > 0 {
        // What the first sessions of all need is not theirs.
        drop(crowd.open(64, false).await);
        if !processes.is_empty() {
            sleep(SETTLE).await;
        }
    }
    if options.abandoned > 0 {
        let before = watch::memory(processes);
        let start = Instant::now();
        let Opened { count, errors, .. } = crowd.open(options.abandoned, false).await;
        let seconds = start.elapsed().as_secs_f64();
        sleep(SHORTLY).await;
        let after = watch::memory(processes);
        abandoned = Some(Abandoned {
            sessions: count,
            refusals: errors,
            seconds,
            memory_before: before,
            memory_after: after,
        });
    }
    if options.idle > 0 {
        let before = watch::memory(processes);
        let start = Instant::now();
        let opened = crowd.open(options.idle, true).await;
        let seconds = start.elapsed().as_secs_f64();
        sleep(SHORTLY).await;
        let after = watch::memory(processes);
        let newcomer = crowd.newcomer().await;
        let each = |(before, after): (&Option<u64>, &Option<u64>)| {
            Some((after.as_ref()? - before.as_ref()?.min(after.as_ref()?)) / opened.count.max(1))
        };
        idle = Some(Idle {
            sessions: opened.count,
            refusals: opened.errors,
            seconds,
            memory_per_session: before.iter().zip(&after).map(each).collect(),
            newcomer_ms: newcomer.as_ref().ok().map(|time| time.as_secs_f64() * 1e3),
            newcomer_error: newcomer.err(),
        });
        held = opened.clients;
    }
    let connected = crowd.connect().await?;
    let before = Usage::of(processes);
    let own = cpu_time().unwrap_or_default();
    let tally = crowd.ask(connected).await;
    let own = cpu_time().unwrap_or_default().saturating_sub(own);
    let after = Usage::of(processes);
    drop(held);
    Ok(Report {
        model: options.network.model.display().to_string(),
        devices: options.devices,
        transport: options.transport.name(),
        open: options.open,
        greedy: options.greedy,
        pool: options.pool,
        leases: options.leases,
        making: options.making,
        net_ms: options.net.map(|net| net.delay.as_secs_f64() * 1e3),
        checked: !options.unchecked,
        idle,
        abandoned,
        ..Report::new(&tally, &before, &after, own)
    })
}
