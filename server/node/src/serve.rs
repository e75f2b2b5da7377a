//! `seco serve`: one start-up path for gateway and remotes.

use std::io::Read as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use seco_core::{ModelId, SealingKeyHash};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinHandle;
use tracing::{info, warn};

use crate::Error;
use crate::access::opening::OpeningKeys;
use crate::access::tokens::Tokens;
use crate::cluster::jobs::Jobs;
use crate::cluster::{Cluster, obey};
use crate::config::Config;
use crate::device::{Gateway, offers};
use crate::keys;
use crate::memory;
use crate::mesh::{Mesh, Server, Settings, Started};
use crate::node::{Node, Obeys, Orders};
use crate::operation::admin::Admin;
use crate::operation::drain::Drain;
use crate::operation::events::{Event, Events};
use crate::operation::log::Log;
use crate::operation::metrics::Metrics;
use crate::operation::otlp;
use crate::priority;
use crate::reset::ResetKey;
use crate::service::leases;
use crate::service::models::{Loaded, Models};
use crate::store;
use crate::store::ledger::{FileLedger, Heads};
use crate::store::records::Ledgers;
use crate::versions::Versions;

/// Pause between two looks whether the ledger is still there. What is spent looks by itself.
const WATCH: Duration = Duration::from_secs(1);

/// What `seco serve` is asked for.
#[derive(Clone, Debug)]
pub struct ServeOptions {
    /// The server's settings.
    pub config: PathBuf,
    /// Print [`Event`]s on standard output.
    pub events: bool,
    /// The process' log, where its filter may be changed while the server runs, and its spans sent to a collector.
    pub log: Option<Log>,
    /// Versions that it speaks with the other servers: [`Versions::OURS`], but for tests of upgrades.
    pub versions: Versions,
    /// Stop when standard input ends: a server started by another program must not outlive it.
    pub with_parent: bool,
}

/// Runs a server until it is told to stop (Ctrl-C, SIGTERM), or cannot start. Blocking.
pub fn serve(options: &ServeOptions) -> Result<(), Error> {
    let config = Config::load(&options.config)?;
    memory::lock();
    priority::compute_behind()?;
    let runtime =
        tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(|_| Error::NoRuntime)?;
    let result = runtime.block_on(async {
        let stop = stop(options.with_parent)?;
        run(&config, options, stop).await
    });
    // A job's thread may be in the middle of a long computation; the process ends all the same.
    runtime.shutdown_background();
    result
}

async fn run(config: &Config, options: &ServeOptions, stop: watch::Receiver<Stop>) -> Result<(), Error> {
    let (events, log) = (Events::new(options.events), options.log.clone());
    let metrics: Arc<Metrics> = Arc::default();
    let spans = config.log.zip(log.as_ref()).and_then(|(told, log)| {
        otlp::start(told.otlp, log, (config.index, config.name.as_str()), metrics.spans())
    });
    let loaded = Loaded::read_all(config)?;
    let ids: Vec<ModelId> = loaded.iter().map(|loaded| loaded.info.id).collect();
    let opening_keys = OpeningKeys::load(&config.identity)?;
    let heads: Vec<Heads> = ids.iter().map(|id| config.ledger_heads(&id.0)).collect();
    let ledger = Arc::new(FileLedger::open_all(&config.state, &heads)?);
    let reset = ResetKey::load(&config.state)?;
    let mut settings = settings(config, options.versions, ids.clone(), opening_keys.hashes(), reset.clone())?;
    let cluster = settings.cluster();
    let ledgers = Arc::new(Ledgers::open(&config.state, ledger.clone(), &settings.servers)?);
    let mut models = Vec::new();
    for loaded in loaded {
        let store = loaded.store(config, (cluster, options.versions), &ledgers)?;
        models.push((loaded, store));
    }
    store::sweep(&config.state, &ids)?;
    settings.records = Some(ledgers.clone());
    let request_limit =
        models.iter().map(|(loaded, _)| loaded.info.request_limit()).max().unwrap_or_default();
    let Started { mesh, commands, mut mistakes } = Mesh::start(settings)?;
    let gateway = match config.listen.device {
        Some(address) => {
            let Config { listen, identity, limits, .. } = config;
            Some(Gateway::bind(address, listen.device_tcp, identity, request_limit, limits, &reset).await?)
        }
        None => None,
    };
    let device = gateway.as_ref().map(Gateway::address).transpose()?;
    let port = match config.admin {
        Some(admin) => Some(Admin::bind(admin.listen).await?),
        None => None,
    };
    offers::check(&config.deployments);
    let access = config.access.as_ref();
    let tokens =
        access.map(|access| Tokens::open(&access.tokens, access.required, &config.state)).transpose()?;
    let node = Arc::new(Node {
        mesh: mesh.clone(),
        jobs: Arc::new(Jobs::default()),
        ledgers: ledgers.clone(),
        deployments: config.deployments.as_slice().into(),
        tokens: tokens.clone(),
        opening_keys,
        device: device.map(|address| (address, if config.listen.device_tcp { "UDP and TCP" } else { "UDP" })),
        limits: config.limits,
        ot_parameters: (0..config.servers()).map(|index| config.ot_parameter(index)).collect(),
        events,
        metrics,
        drain: Drain::default(),
        leases: Arc::new(Semaphore::new(leases::MOST)),
        orders: Orders::new(&config.limits)?,
        obeys: Obeys::new(&config.limits),
    });
    let (models, mut hopeless) = Models::new(node.clone(), config.clone(), cluster, models);
    let admin = Admin::new(node.clone(), models.clone(), &config.name, log);
    let addresses = mesh.address()?;
    info!(name = config.name, index = config.index, mesh = %addresses, "listening");
    let admin_address = port.as_ref().and_then(|port| port.local_addr().ok());
    events.emit(&Event::Listening { server: config.index, mesh: addresses, device, admin: admin_address });
    let administered = port.map(|port| tokio::spawn(admin.clone().serve(port)));
    let kept = tokens.clone().map(|tokens| tokio::spawn(tokens.keep()));

    let (closing, served) = (gateway.clone(), models.clone());
    let work = async {
        let all = mesh.wait_for_all(&mut mistakes, config.limits.connect());
        match gateway {
            Some(gateway) => {
                let cluster = Cluster::new(node.clone(), served.clone());
                // From the start: devices are told who is missing.
                let devices = tokio::spawn(gateway.serve(cluster));
                let result = match all.await {
                    Ok(()) => {
                        served.supervise().await;
                        hopeless.recv().await.map_or(Ok(()), Err)
                    }
                    Err(error) => Err(error),
                };
                devices.abort();
                result
            }
            None => {
                all.await?;
                obey(served, commands).await;
                Ok(())
            }
        }
    };
    let result = tokio::select! {
        result = work => result,
        error = lost(&ledger) => Err(error),
        () = drained(&node, stop) => Ok(()),
    };
    administered.iter().chain(&kept).for_each(JoinHandle::abort);
    if let Some(gateway) = closing {
        gateway.close().await;
    }
    mesh.close().await;
    if let Some(tokens) = tokens {
        tokens.store();
    }
    models.close();
    let result = result.and(ledgers.close());
    if let Some(spans) = spans {
        spans.flush().await;
    }
    result
}

/// Ends when the server was told to end, by a signal or through the admin port, and what it had begun has ended.
async fn drained(node: &Node, mut stop: watch::Receiver<Stop>) {
    tokio::select! {
        _ = stop.wait_for(|stop| *stop != Stop::No) => node.drain.begin(),
        () = node.drain.begun() => {}
    }
    let under_way = node.drain.under_way();
    info!(under_way, "stopping: no new requests are taken");
    let limit = node.limits.infer();
    tokio::select! {
        () = node.drain.ended() => {}
        () = tokio::time::sleep(limit) => {
            warn!(under_way = node.drain.under_way(), "stopping: [limits] infer_s is over");
        }
        _ = stop.wait_for(|stop| *stop == Stop::AtOnce) => info!("stopping at once"),
    }
}

/// Ends when the ledger is no longer where it was.
async fn lost(ledger: &Arc<FileLedger>) -> Error {
    loop {
        tokio::time::sleep(WATCH).await;
        let ledger = ledger.clone();
        if let Ok(Err(error)) = tokio::task::spawn_blocking(move || ledger.check_place()).await {
            return error;
        }
    }
}

fn settings(
    config: &Config,
    versions: Versions,
    models: Vec<ModelId>,
    sealing_keys: Vec<SealingKeyHash>,
    reset: ResetKey,
) -> Result<Settings, Error> {
    let mut servers = Vec::with_capacity(config.servers());
    for index in 0..config.servers() {
        let (name, address) = match config.peer(index) {
            Some(peer) => (&peer.name, peer.address.clone()),
            None => (&config.name, None),
        };
        let (certificates, known_as) = match config.peer(index) {
            Some(peer) => (keys::certificates(&peer.certificate)?, &peer.known_as),
            None => (vec![keys::certificate(&config.identity.certificate)?], &config.identity.known_as),
        };
        let known_as = match (known_as, certificates.first()) {
            (None, Some(first)) => first.clone(),
            (Some(path), _) => keys::certificate(path)?,
            (None, None) => continue,
        };
        let ot_parameter = config.ot_parameter(index);
        servers.push(Server { name: name.clone(), address, certificates, known_as, ot_parameter });
    }
    let key = keys::tls_key(&config.identity.key)?;
    Ok(Settings {
        versions,
        me: config.index,
        servers,
        key,
        listen: config.listen.mesh,
        models,
        sealing_keys,
        reset,
        records: None,
    })
}

/// Whether the server was told to stop.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Stop {
    No,
    /// When what it has begun is done.
    Gently,
    /// Told twice, or left by its parent.
    AtOnce,
}

/// Hears of it.
fn stop(with_parent: bool) -> Result<watch::Receiver<Stop>, Error> {
    #[cfg(unix)]
    let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())
        .map_err(|_| Error::NoRuntime)?;
    let (sender, receiver) = watch::channel(Stop::No);
    if with_parent {
        // Not tokio's standard input, which would keep the runtime from ending.
        let orphaned = sender.clone();
        std::thread::spawn(move || {
            let mut input = std::io::stdin().lock();
            let mut bytes = [0; 64];
            while matches!(input.read(&mut bytes), Ok(1..)) {}
            orphaned.send_replace(Stop::AtOnce);
        });
    }
    tokio::spawn(async move {
        loop {
            let terminated = async {
                #[cfg(unix)]
                terminate.recv().await;
                #[cfg(not(unix))]
                std::future::pending::<()>().await;
            };
            tokio::select! {
                _ = tokio::signal::ctrl_c() => {}
                () = terminated => {}
            }
            sender.send_modify(|stop| *stop = if *stop == Stop::No { Stop::Gently } else { Stop::AtOnce });
        }
    });
    Ok(receiver)
}
