//! The models of a server: those of its settings, and what is added and removed while it runs.
//!
//! Each operator does that on his own server. A server tells the others what it has, and the gateway serves what all
//! have; what is added while it runs is forgotten at a restart unless the settings name it.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use seco_core::{ModelId, ModelInfo};
use seco_protocol::PlannedModel;
use tokio::sync::mpsc;
use tokio::task::AbortHandle;
use tokio::time::timeout;
use tracing::{info, warn};

use super::Service;
use super::at_once::at_once;
use super::leases::Leases;
use super::part::{model_info, read_part};
use crate::access::sessions::Sessions;
use crate::cluster::{Coordinator, Worker};
use crate::config::{self, Config};
use crate::mesh::MAX_MODELS;
use crate::node::Node;
use crate::operation::drain::Drain;
use crate::operation::status;
use crate::store::records::Ledgers;
use crate::store::{self, Store};
use crate::versions::Versions;
use crate::{Error, keys};

/// A model's part that was read, and is this server's.
pub(crate) struct Loaded {
    model: config::Model,
    pub planned: Arc<PlannedModel>,
    pub info: ModelInfo,
    at_once: usize,
}

impl Loaded {
    /// Reads a part and checks that it is this server's. Blocking.
    pub fn read(config: &Config, model: &config::Model) -> Result<Self, Error> {
        let path = &model.part;
        let bad = |what: String| Error::Model { path: path.clone(), what };
        let part = read_part(path)?;
        let (index, servers) = (part.index(), part.architecture().servers);
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
        let part = Arc::new(part);
        let info = model_info(&part);
        let planned = PlannedModel::new(part).map_err(|e| bad(e.to_string()))?;
        let at_once = at_once(config, &model.pool, &planned);
        Ok(Self { model: model.clone(), planned, info, at_once })
    }

    /// Reads those of the settings, which must differ.
    pub fn read_all(config: &Config) -> Result<Vec<Self>, Error> {
        let mut all: Vec<Self> = Vec::new();
        for model in config.all_models() {
            let loaded = Self::read(config, &model)?;
            loaded.differs(all.iter().map(|other| (&other.info.id, other.model.name.as_deref())))?;
            all.push(loaded);
        }
        Ok(all)
    }

    /// Whether it is none of these.
    fn differs<'a>(
        &self,
        mut others: impl Iterator<Item = (&'a ModelId, Option<&'a str>)>,
    ) -> Result<(), Error> {
        let bad = |what: String| Error::Model { path: self.model.part.clone(), what };
        let own = self.model.name.as_deref();
        match others.find(|(id, name)| **id == self.info.id || own.is_some() && *name == own) {
            None => Ok(()),
            Some((id, _)) if *id == self.info.id => {
                Err(bad(format!("is model {}, which this server has already", keys::short(id))))
            }
            Some((id, _)) => Err(bad(format!(
                "is called {:?}, as model {} is: give it another name",
                own.unwrap_or_default(),
                keys::short(id)
            ))),
        }
    }

    /// Opens the store of its bundles. Blocking.
    pub fn store(
        &self,
        config: &Config,
        (cluster, versions): ([u8; 32], Versions),
        ledgers: &Ledgers,
    ) -> Result<Arc<Store>, Error> {
        let settings = store::Settings {
            versions,
            folder: config.state.clone(),
            cluster,
            memory: self.model.pool.memory_mib << 20,
            disk: self.model.pool.disk_mib.saturating_mul(1 << 20),
        };
        let store = Arc::new(Store::open(&settings, self.planned.clone(), ledgers.own().clone())?);
        ledgers.add(&store);
        Ok(store)
    }
}

/// One of the models, and this server's part in serving it.
pub(crate) struct Served {
    pub service: Arc<Service>,
    role: Role,
    /// Whoever keeps its pool filled, on the gateway.
    supervising: Mutex<Option<AbortHandle>>,
    /// Why it cannot be served, if no retry mends that.
    hopeless: Mutex<Option<String>>,
}

enum Role {
    Gateway(Arc<Coordinator>),
    Remote(Arc<Worker>),
}

/// All models of a server.
pub(crate) struct Models {
    node: Arc<Node>,
    config: Config,
    cluster: [u8; 32],
    list: RwLock<Vec<Arc<Served>>>,
    /// Held while one is added or removed.
    changing: tokio::sync::Mutex<()>,
    /// Whether pools are filled: once all servers were connected.
    supervises: AtomicBool,
    /// Told when the only model turns out to be one that cannot be served.
    hopeless: mpsc::Sender<Error>,
}

impl Models {
    /// Those of the settings. Whoever reads what this gives too ends the server. Call it inside the runtime.
    pub fn new(
        node: Arc<Node>,
        config: Config,
        cluster: [u8; 32],
        loaded: Vec<(Loaded, Arc<Store>)>,
    ) -> (Arc<Self>, mpsc::Receiver<Error>) {
        let (hopeless, end) = mpsc::channel(1);
        let list = loaded.into_iter().map(|(loaded, store)| Served::new(&node, loaded, store)).collect();
        let models = Self {
            node,
            config,
            cluster,
            list: RwLock::new(list),
            changing: tokio::sync::Mutex::default(),
            supervises: AtomicBool::new(false),
            hopeless,
        };
        (Arc::new(models), end)
    }

    /// All of them, the first of the settings first.
    pub fn list(&self) -> Vec<Arc<Served>> {
        self.list.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Those that devices may use, on the gateway.
    pub fn coordinators(&self) -> Vec<Arc<Coordinator>> {
        let list = self.list.read().unwrap_or_else(PoisonError::into_inner);
        list.iter().filter_map(|served| served.coordinator().filter(|_| !served.leaves()).cloned()).collect()
    }

    /// One that devices may use.
    pub fn coordinator(&self, id: &ModelId) -> Option<Arc<Coordinator>> {
        self.coordinators().into_iter().find(|coordinator| coordinator.service.info.id == *id)
    }

    /// One that the gateway gives orders about; one that is being removed too, for what is under way.
    pub fn worker(&self, id: &ModelId) -> Option<Arc<Worker>> {
        let list = self.list.read().unwrap_or_else(PoisonError::into_inner);
        let found = list.iter().find(|served| served.service.info.id == *id)?;
        match &found.role {
            Role::Remote(worker) => Some(worker.clone()),
            Role::Gateway(_) => None,
        }
    }

    /// Longest request of a device, for whichever model.
    pub fn request_limit(&self) -> usize {
        let list = self.list.read().unwrap_or_else(PoisonError::into_inner);
        list.iter().map(|served| served.service.info.request_limit()).max().unwrap_or_default()
    }

    /// Keeps pools filled from now on.
    pub async fn supervise(self: &Arc<Self>) {
        let _changing = self.changing.lock().await;
        self.supervises.store(true, Ordering::Relaxed);
        self.list().iter().for_each(|served| self.fill(served));
    }

    fn fill(self: &Arc<Self>, served: &Arc<Served>) {
        let Role::Gateway(coordinator) = &served.role else { return };
        let (models, weak) = (Arc::downgrade(self), Arc::downgrade(served));
        let coordinator = coordinator.clone();
        let task = tokio::spawn(async move {
            let Err(error) = coordinator.supervise().await else { return };
            let (Some(models), Some(served)) = (models.upgrade(), weak.upgrade()) else { return };
            if models.list().len() == 1 {
                // Fails when the server ends already.
                let _ = models.hopeless.send(error).await;
                return;
            }
            warn!("model {} cannot be served: {error}", served.service.title());
            *served.hopeless.lock().unwrap_or_else(PoisonError::into_inner) = Some(error.to_string());
        });
        *served.supervising.lock().unwrap_or_else(PoisonError::into_inner) = Some(task.abort_handle());
    }

    /// Serves another model; begins with it at once where all other servers have it.
    pub async fn add(self: &Arc<Self>, model: config::Model) -> Result<Arc<Served>, Error> {
        let _changing = self.changing.lock().await;
        if self.list().len() >= MAX_MODELS {
            return Err(Error::Usage(format!("a server has at most {MAX_MODELS} models: remove one first")));
        }
        let models = self.clone();
        let load = move || {
            let Models { config, node, .. } = &*models;
            let loaded = Loaded::read(config, &model)?;
            let list = models.list();
            let others = list.iter().map(|other| (&other.service.info.id, other.service.name.as_deref()));
            loaded.differs(others)?;
            node.ledgers.own().serves(&config.ledger_heads(&loaded.info.id.0))?;
            let store = loaded.store(config, (models.cluster, node.mesh.versions()), &node.ledgers)?;
            Ok((loaded, store))
        };
        let loaded = tokio::task::spawn_blocking(load).await;
        let (loaded, store) = loaded.map_err(|_| Error::NoRuntime)??;
        let served = Served::new(&self.node, loaded, store);
        self.list.write().unwrap_or_else(PoisonError::into_inner).push(served.clone());
        self.offer();
        if self.supervises.load(Ordering::Relaxed) {
            self.fill(&served);
        }
        info!("model {} was added", served.service.title());
        Ok(served)
    }

    /// Serves a model no longer, which is named by its id's start or its name: what is under way for it ends, and its
    /// bundles are destroyed. Gives how many were, and the model's part.
    pub async fn remove(&self, name: &str) -> Result<(usize, Arc<Served>), Error> {
        let _changing = self.changing.lock().await;
        let served = self.named(name)?;
        let Served { service, role, supervising, .. } = &*served;
        if self.list().len() == 1 {
            return Err(Error::Usage(format!(
                "model {} is the only one: add another first, or end the server (seco admin drain)",
                service.title()
            )));
        }
        info!("model {} is being removed", service.title());
        service.drain.begin();
        self.offer();
        if timeout(self.node.limits.infer(), service.drain.ended()).await.is_err() {
            warn!("model {}: [limits] infer_s is over", service.title());
        }
        match role {
            Role::Gateway(coordinator) => {
                let supervising = supervising.lock().unwrap_or_else(PoisonError::into_inner).clone();
                coordinator.leave(supervising.as_ref()).await;
                coordinator.renounce().await;
            }
            Role::Remote(worker) => worker.leave().await,
        }
        let store = service.store.clone();
        let destroyed = tokio::task::spawn_blocking(move || store.destroy()).await.unwrap_or_default();
        let same = |other: &Arc<Served>| Arc::ptr_eq(other, &served);
        self.list.write().unwrap_or_else(PoisonError::into_inner).retain(|other| !same(other));
        self.node.metrics.forget(&service.model());
        info!(destroyed, "model {} was removed", service.title());
        Ok((destroyed, served))
    }

    fn named(&self, name: &str) -> Result<Arc<Served>, Error> {
        let list = self.list();
        if let Some(found) = list.iter().find(|served| served.service.name.as_deref() == Some(name)) {
            return Ok(found.clone());
        }
        let starts = |served: &&Arc<Served>| keys::to_hex(&served.service.info.id.0).starts_with(name);
        let mut found = list.iter().filter(starts);
        match (found.next(), found.next()) {
            (Some(one), None) => Ok(one.clone()),
            (None, _) => {
                Err(Error::Usage(format!("this server has no model {name:?}: see seco admin models")))
            }
            _ => Err(Error::Usage(format!("several models begin with {name:?}: give more of the id"))),
        }
    }

    /// Tells the other servers what this one has.
    fn offer(&self) {
        let list = self.list();
        let here = list.iter().filter(|served| !served.leaves());
        self.node.mesh.offer(here.map(|served| served.service.info.id).collect());
    }

    /// Whether the settings name a part.
    pub fn in_settings(&self, part: &Path) -> bool {
        let whole = |path: &Path| std::path::absolute(path).ok();
        self.config.all_models().iter().any(|model| whole(&model.part) == whole(part))
    }

    /// Destroys what is still to be destroyed.
    pub fn close(&self) {
        self.list().iter().for_each(|served| served.service.store.close());
    }
}

impl Served {
    fn new(node: &Arc<Node>, loaded: Loaded, store: Arc<Store>) -> Arc<Self> {
        let Loaded { model: config::Model { part, name, pool }, planned, info, at_once } = loaded;
        let service = Arc::new(Service {
            node: node.clone(),
            name,
            part,
            pool,
            at_once,
            planned,
            info,
            store,
            sessions: Mutex::new(Sessions::new(node.limits.sessions)),
            leases: Leases::new(pool.leases, &node.leases),
            resting: Mutex::default(),
            under_way: Arc::default(),
            drain: Drain::default(),
        });
        node.metrics.serves(&service.model());
        let role = match node.me() {
            0 => Role::Gateway(Coordinator::new(service.clone())),
            _ => Role::Remote(Worker::new(service.clone())),
        };
        Arc::new(Self { service, role, supervising: Mutex::default(), hopeless: Mutex::default() })
    }

    /// What keeps its pool filled, on the gateway.
    pub fn coordinator(&self) -> Option<&Arc<Coordinator>> {
        match &self.role {
            Role::Gateway(coordinator) => Some(coordinator),
            Role::Remote(_) => None,
        }
    }

    /// Whether it is being removed.
    fn leaves(&self) -> bool {
        self.service.drain.has_begun()
    }

    /// Why requests for it would not be served now, apart from servers that are not connected.
    pub fn reasons(&self) -> Vec<String> {
        if self.leaves() {
            return vec!["it is being removed".to_owned()];
        }
        if let Some(why) = self.hopeless.lock().unwrap_or_else(PoisonError::into_inner).clone() {
            return vec![why];
        }
        let mesh = &self.service.node.mesh;
        let lacking = self.service.lacking().into_iter();
        let mut reasons: Vec<String> = lacking
            .map(|server| format!("server {server} ({}) does not have it", mesh.name(server)))
            .collect();
        reasons.extend(mesh.apart().map(|(_, why)| why));
        if let (Some(coordinator), None, true) = (self.coordinator(), mesh.missing(), reasons.is_empty()) {
            let pool = coordinator.status();
            if pool.ready == 0 && !pool.making {
                reasons.push(match coordinator.was_set_up() {
                    true => "no bundle is ready, and none can be made: see the log".to_owned(),
                    false => "the cluster has not been set up yet".to_owned(),
                });
            }
        }
        reasons
    }

    /// The model as it is now. Waits for the disk.
    pub fn status(&self) -> status::Model {
        let Service { node, info, name, store, .. } = &*self.service;
        let (usage, leases) = (store.usage(), self.service.leases.counts());
        status::Model {
            id: keys::to_hex(&info.id.0),
            name: name.clone(),
            reasons: self.reasons(),
            pool: self.coordinator().map(|coordinator| coordinator.status()),
            bundles: status::Bundles {
                stored: usage.bundles,
                made: node.metrics.bundles_made(&self.service.model()),
                spent: usage.spent,
                discarded: usage.discarded,
                leased: leases.held,
                leases_used: leases.used,
                leases_lost: leases.lost,
                disk_bytes: usage.bytes,
                free_bytes: usage.free,
            },
        }
    }
}
