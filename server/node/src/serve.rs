//! `seco serve`: one start-up path for gateway and remotes.

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use seco_core::SealingKeyHash;
use seco_model::PartyModel;
use seco_protocol::PlannedModel;
use tracing::info;

use crate::Error;
use crate::access::opening::OpeningKeys;
use crate::access::sessions::Sessions;
use crate::cluster::Cluster;
use crate::cluster::Worker;
use crate::cluster::jobs::Jobs;
use crate::config::Config;
use crate::device::Gateway;
use crate::keys;
use crate::memory;
use crate::mesh::{Mesh, Server, Settings, Started};
use crate::node::Node;
use crate::operation::events::{Event, Events};
use crate::reset::ResetKey;
use crate::service::part::{model_info, read_part};
use crate::store::ledger::FileLedger;
use crate::store::{self, Store};

/// Pause between two looks whether the ledger is still there. What is spent looks by itself.
const WATCH: Duration = Duration::from_secs(1);

/// What `seco serve` is asked for.
#[derive(Clone, Debug)]
pub struct ServeOptions {
    /// The server's settings.
    pub config: PathBuf,
    /// Print [`Event`]s on standard output.
    pub events: bool,
    /// Stop when standard input ends: a server started by another program must not outlive it.
    pub with_parent: bool,
}

/// Runs a server until it is told to stop (Ctrl-C, SIGTERM), or cannot start. Blocking.
pub fn serve(options: &ServeOptions) -> Result<(), Error> {
    let config = Config::load(&options.config)?;
    memory::lock();
    let runtime =
        tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(|_| Error::NoRuntime)?;
    let result = runtime.block_on(async {
        let stop = stop(options.with_parent)?;
        run(&config, Events::new(options.events), stop).await
    });
    // A job's thread may be in the middle of a long computation; the process ends all the same.
    runtime.shutdown_background();
    result
}

async fn run(config: &Config, events: Events, stop: impl Future<Output = ()>) -> Result<(), Error> {
    let model = Arc::new(load_model(config)?);
    let info = model_info(&model);
    let bad = |e: seco_protocol::Error| Error::Model { path: config.model.clone(), what: e.to_string() };
    let planned = PlannedModel::new(model).map_err(bad)?;
    let opening_keys = OpeningKeys::load(&config.identity)?;
    let ledger = Arc::new(FileLedger::open(&config.state, &config.ledger_heads(&info.id.0))?);
    let reset = ResetKey::load(&config.state)?;
    let settings = settings(config, info.id.0, opening_keys.hashes(), reset.clone())?;
    let storage = store::Settings {
        folder: config.state.clone(),
        cluster: settings.cluster(),
        memory: config.pool.memory_mib << 20,
        disk: (config.pool.disk_mib as u64).saturating_mul(1 << 20),
    };
    let store = Arc::new(Store::open(&storage, planned.clone(), ledger.clone())?);
    let Started { mesh, commands, mut mistakes } = Mesh::start(settings)?;
    let gateway = match config.listen.device {
        Some(address) => {
            let Config { listen, identity, limits, .. } = config;
            Some(Gateway::bind(address, listen.device_tcp, identity, &info, limits, &reset).await?)
        }
        None => None,
    };
    let device = gateway.as_ref().map(Gateway::address).transpose()?;
    let node = Arc::new(Node {
        mesh: mesh.clone(),
        planned,
        info,
        jobs: Arc::new(Jobs::default()),
        ledger: ledger.clone(),
        store,
        sessions: Mutex::new(Sessions::new(config.limits.sessions)),
        opening_keys,
        device: device.map(|address| (address, if config.listen.device_tcp { "UDP and TCP" } else { "UDP" })),
        limits: config.limits,
        ot_parameters: (0..config.servers()).map(|index| config.ot_parameter(index)).collect(),
        events,
        resting: Mutex::new(None),
    });
    let addresses = mesh.address()?;
    info!(name = config.name, index = config.index, mesh = %addresses, "listening");
    events.emit(&Event::Listening { server: config.index, mesh: addresses, device });

    let closing = gateway.clone();
    let work = async {
        mesh.wait_for_all(&mut mistakes, config.limits.connect()).await?;
        match gateway {
            Some(gateway) => {
                let cluster = Cluster::new(node.clone(), config.pool)?;
                let devices = tokio::spawn(gateway.serve(cluster.clone()));
                let result = cluster.supervise().await;
                devices.abort();
                result
            }
            None => {
                Arc::new(Worker::new(node.clone(), config.pool)).run(commands).await;
                Ok(())
            }
        }
    };
    let result = tokio::select! {
        result = work => result,
        error = lost(&ledger) => Err(error),
        () = stop => {
            info!("stopping");
            Ok(())
        }
    };
    if let Some(gateway) = closing {
        gateway.close().await;
    }
    mesh.close().await;
    result.and(ledger.record_head())
}

/// Ends when the ledger is no longer where it was.
async fn lost(ledger: &FileLedger) -> Error {
    loop {
        tokio::time::sleep(WATCH).await;
        if let Err(error) = ledger.check_place() {
            return error;
        }
    }
}

/// Reads this server's part of the model and checks that it is this server's.
fn load_model(config: &Config) -> Result<PartyModel, Error> {
    let path = &config.model;
    let bad = |what: String| Error::Model { path: path.clone(), what };
    let model = read_part(path)?;
    let (index, servers) = (model.index(), model.architecture().servers);
    if index != config.index {
        return Err(bad(format!(
            "is the part of server {index}, but this is server {}: use server-{}.seco",
            config.index, config.index
        )));
    }
    if servers != config.servers() {
        return Err(bad(format!(
            "was split among {servers} servers, but index and [[peers]] make {}: split it again or correct them",
            config.servers()
        )));
    }
    Ok(model)
}

fn settings(
    config: &Config,
    model_id: [u8; 32],
    sealing_keys: Vec<SealingKeyHash>,
    reset: ResetKey,
) -> Result<Settings, Error> {
    let mut servers = Vec::with_capacity(config.servers());
    for index in 0..config.servers() {
        let (name, address, certificate): (_, _, &Path) = match config.peer(index) {
            Some(peer) => (&peer.name, peer.address.clone(), &peer.certificate),
            None => (&config.name, None, &config.identity.certificate),
        };
        let certificate = keys::certificate(certificate)?;
        let ot_parameter = config.ot_parameter(index);
        servers.push(Server { name: name.clone(), address, certificate, ot_parameter });
    }
    let key = keys::tls_key(&config.identity.key)?;
    Ok(Settings { me: config.index, servers, key, listen: config.listen.mesh, model_id, sealing_keys, reset })
}

/// Ends when the server is told to stop.
fn stop(with_parent: bool) -> Result<impl Future<Output = ()>, Error> {
    #[cfg(unix)]
    let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())
        .map_err(|_| Error::NoRuntime)?;
    let (orphan, mut orphaned) = tokio::sync::watch::channel(false);
    if with_parent {
        // Not tokio's standard input, which would keep the runtime from ending.
        let orphan = orphan.clone();
        std::thread::spawn(move || {
            let mut input = std::io::stdin().lock();
            let mut bytes = [0; 64];
            while matches!(input.read(&mut bytes), Ok(1..)) {}
            orphan.send_replace(true);
        });
    }
    Ok(async move {
        let terminated = async {
            #[cfg(unix)]
            terminate.recv().await;
            #[cfg(not(unix))]
            std::future::pending::<()>().await;
        };
        tokio::select! {
            _ = tokio::signal::ctrl_c() => {}
            () = terminated => {}
            _ = orphaned.wait_for(|&o| o) => {}
        }
        drop(orphan);
    })
}
