//! What servers tell each other of their ledgers, and what follows where one was set back
//! (`server/PROTOCOL.md`, section 7): for all models, whose bundles are spent in one ledger.

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use seco_core::ModelId;
use sha2::{Digest as _, Sha256};

use super::Store;
use super::ledger::{FileLedger, Head};
use super::peers::{LedgerName, Peers, SetBack};
use crate::Error;
use crate::mesh::{Records, Server};

/// This server's ledger, what is known of the others', and the bundles that hang on both.
pub(crate) struct Ledgers {
    own: Arc<FileLedger>,
    peers: Peers,
    /// All servers: name for messages, and hash of the certificate by which they are known.
    servers: Vec<(String, [u8; 32])>,
    stores: Mutex<Vec<Weak<Store>>>,
}

impl Ledgers {
    /// Reads what is known in a state directory.
    pub fn open(state: &Path, own: Arc<FileLedger>, servers: &[Server]) -> Result<Self, Error> {
        let name = |server: &Server| (server.name.clone(), Sha256::digest(&server.known_as).into());
        let servers = servers.iter().map(name).collect();
        Ok(Self { own, peers: Peers::open(state)?, servers, stores: Mutex::default() })
    }

    /// This server's ledger.
    pub fn own(&self) -> &Arc<FileLedger> {
        &self.own
    }

    fn stores(&self) -> MutexGuard<'_, Vec<Weak<Store>>> {
        self.stores.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A store whose bundles are destroyed where a ledger was set back.
    pub fn add(&self, store: &Arc<Store>) {
        let mut stores = self.stores();
        stores.retain(|store| store.strong_count() > 0);
        stores.push(Arc::downgrade(store));
    }

    /// The names of a server's ledger: one for each model, for a server may keep one for each.
    fn names(&self, server: usize, models: &[ModelId]) -> Vec<LedgerName> {
        let Some((_, certificate)) = self.servers.get(server) else { return Vec::new() };
        let hash =
            |model: &ModelId| Sha256::new().chain_update(certificate).chain_update(model.0).finalize().into();
        models.iter().map(hash).collect()
    }

    /// These servers have confirmed that they spent a bundle, over links that still stand: what they said of their
    /// ledgers since does not have it yet. Each with the models that this server has too. `servers` is asked while
    /// nobody is met; a link stands no longer when what is said on the next one is taken down.
    pub fn confirmed(&self, servers: impl FnOnce() -> Vec<(usize, Vec<ModelId>)>) {
        let names = |(server, models): (usize, Vec<ModelId>)| self.names(server, &models);
        self.peers.confirmed(|| servers().into_iter().map(names).collect());
    }

    /// Writes what is to be known at the next start.
    pub fn close(&self) -> Result<(), Error> {
        let flushed = self.peers.flush();
        self.own.record_head().and(flushed)
    }
}

impl Records for Ledgers {
    fn head(&self) -> Head {
        self.own.head()
    }

    fn meet(&self, peer: usize, head: Head, common: &[ModelId]) {
        let names = self.names(peer, common);
        let met = names.iter().filter_map(|ledger| self.peers.meet(*ledger, head).err());
        // By the model that knows most.
        let Some(SetBack { had, has }) = met.max_by_key(|set_back| set_back.had) else { return };
        let stores: Vec<_> = self.stores().iter().filter_map(Weak::upgrade).collect();
        let destroyed: usize = stores.iter().map(|store| store.keep(&[])).sum();
        // Also those whose files come back, or are not destroyed yet when this server crashes.
        match self.own.renounce_bundles() {
            Ok(()) => names.iter().for_each(|ledger| self.peers.accept(*ledger, head)),
            Err(error) => tracing::warn!(%error, "the ledger cannot be written: it will be noticed again"),
        }
        let name = self.servers.get(peer).map_or("unknown", |(name, _)| name);
        tracing::error!(
            "server {peer} ({name}) was set back: its ledger had {had} entries and has {has}; {destroyed} bundles \
                 are destroyed here, and with them everywhere; its operator must find out who restored a copy"
        );
    }
}
