//! SECO: servers that are processes of their own, and users that reach the gateway over one network after the other.
//! The servers and their bundles are the same for all of them.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::{Duration, Instant};

use seco_core::pack;
use seco_node::config::{Limits, Pool};
use seco_node::operation::status::Status;
use seco_tools::admin;
use tokio::time::sleep;

use super::figures::{Cost, Sample};
use super::models::Model;
use super::plan::Part;
use super::user::{Asked, Server};
use super::user_link;
use crate::Error;
use crate::bench::watch::Usage;
use crate::demo::cluster::Cluster;
use crate::demo::{fill, filled_once};

/// QUIC's last acknowledgements between servers are counted with what they acknowledge.
const QUIET: Duration = Duration::from_millis(150);

/// A cluster from start to end.
pub async fn measure(model: &Model, part: &Part, folder: &Path) -> Result<Vec<Sample>, Error> {
    let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let mut cluster = Cluster::new(folder, part.servers, any, None).with_admin();
    let result = all(model, part, folder, &mut cluster).await;
    cluster.stop().await;
    result
}

/// Counters of one server at one moment.
struct Reading {
    cpu: Option<f64>,
    memory_peak: Option<u64>,
    sent: u64,
    received: u64,
    disk: u64,
}

async fn read(cluster: &Cluster) -> Result<Vec<Reading>, Error> {
    let mut readings = Vec::new();
    let usages = Usage::of(&cluster.processes());
    for (progress, usage) in cluster.progress().iter().zip(usages) {
        let port = progress.admin.ok_or_else(|| Error::Failed("a server has no admin port".to_owned()))?;
        let Status { peers, bundles, .. } = admin::status(port).await?;
        readings.push(Reading {
            cpu: usage.cpu,
            memory_peak: usage.memory_peak,
            sent: peers.iter().map(|peer| peer.sent_bytes).sum(),
            received: peers.iter().map(|peer| peer.received_bytes).sum(),
            disk: bundles.disk_bytes,
        });
    }
    Ok(readings)
}

async fn all(model: &Model, part: &Part, folder: &Path, cluster: &mut Cluster) -> Result<Vec<Sample>, Error> {
    let split = model.deal(part.servers, part.gateway_layers, &folder.join("model"))?;
    let graph = &split.architecture.graph;
    let answer = pack::packed_len(graph.answer_len(), graph.answer_width());
    // One more than is used: an empty pool would be filled again beside the requests.
    let bundles = part.requests * part.networks.len() + 1;
    cluster.make_keys()?;
    // Four parties may share two cores with others.
    let limits = Limits { preprocess_s: 3600, infer_s: 600, setup_s: 600, ..Limits::default() };
    // One after the other: what is measured is the time that one takes.
    cluster.start(split.files, Pool { making: 1, ..filled_once(bundles) }, limits).await?;
    let start = Instant::now();
    let ready = read(cluster).await?;
    fill(cluster, bundles, false).await?;
    let preprocessing_s = start.elapsed().as_secs_f64() / bundles as f64;
    sleep(QUIET).await;
    let filled = read(cluster).await?;
    let setup_s = cluster.progress().iter().map(|p| p.setup_s).fold(0.0, f64::max);

    let mut samples: Vec<Sample> = Vec::new();
    for (place, &network) in part.networks.iter().enumerate() {
        let deployment = folder.join(format!("{}.toml", network.word()));
        cluster.deployment_over(&deployment, user_link(network)).await?;
        let first = (part.repetition * part.networks.len() + place) * part.requests;
        let server = Server::Seco(deployment);
        let asked = cluster.during(Asked::start(model, part.requests, first, server, answer)).await?;
        let mut user = match asked {
            Ok(user) => user,
            Err(error) => return Err(cluster.blame(error).await),
        };
        let before = read(cluster).await?;
        let asked = match cluster.during(user.answers()).await? {
            Ok(answered) => answered,
            Err(error) => return Err(cluster.blame(error).await),
        };
        let after = read(cluster).await?;
        cluster.during(user.leave()).await??;
        let mut servers = Vec::new();
        for (index, ((ready, filled), (before, after))) in
            ready.iter().zip(&filled).zip(before.iter().zip(&after)).enumerate()
        {
            let (each, request) = (bundles as f64, part.requests as f64);
            let bytes = |before: u64, after: u64, of: f64| Some(after.saturating_sub(before) as f64 / of);
            let cpu =
                |before: Option<f64>, after: Option<f64>, of: f64| Some((after? - before?).max(0.0) / of);
            // The gateway exchanges with the user what the user exchanges with it.
            let device = |theirs: Option<f64>| if index == 0 { theirs } else { Some(0.0) };
            let sum = |a: Option<f64>, b: Option<f64>| Some(a? + b?);
            servers.push(Cost {
                online_cpu_s: cpu(before.cpu, after.cpu, request),
                preprocessing_cpu_s: cpu(ready.cpu, filled.cpu, each),
                online_bytes_up: sum(
                    bytes(before.sent, after.sent, request),
                    device(asked.user.online_bytes_down),
                ),
                online_bytes_down: sum(
                    bytes(before.received, after.received, request),
                    device(asked.user.online_bytes_up),
                ),
                preprocessing_bytes_up: bytes(ready.sent, filled.sent, each),
                preprocessing_bytes_down: bytes(ready.received, filled.received, each),
                peak_memory_bytes: after.memory_peak.map(|bytes| bytes as f64),
                storage_bytes: Some(filled.disk as f64 / each),
                setup_cpu_s: ready.cpu,
                setup_bytes_up: Some(ready.sent as f64),
                setup_bytes_down: Some(ready.received as f64),
            });
        }
        samples.push(Sample {
            network,
            user: asked.user,
            servers,
            waiting_s: asked.waiting_s,
            preprocessing_s: Some(preprocessing_s),
            setup_s: Some(setup_s),
            equal: asked.equal,
            count: asked.count,
            load_at_start: None,
        });
    }
    Ok(samples)
}
