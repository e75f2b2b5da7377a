//! What a server keeps on disk: the ledger of what was used, and bundles (`server/PROTOCOL.md`, section 7).
//!
//! A bundle is put here when it was made and taken out once, by [`Store::spend`], which records it in the ledger first:
//! there is no other way to its material. Bundles outlive the process, the set-up they came from, and links. Which of
//! them may still be used is the ledger's decision: a file that comes back, from a backup or after a crash between the
//! record and the removal, is not.
//!
//! Files are in the folder `bundles` of the state directory, in a folder for each model, one a bundle ([`bundle_file`]).
//! Those that are unfinished, damaged, of another cluster, model, split or server, of a version that the server does not
//! speak, or spent, are destroyed when the
//! store is opened; those of models that are not served by [`sweep`].

pub mod bundle_file;
pub mod ledger;
pub mod peers;
pub(crate) mod records;

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak, mpsc};
use std::thread::JoinHandle;
use std::time::SystemTime;

use seco_core::{ModelId, SessionKey};
use seco_protocol::{Bundle, BundleId, PlannedModel, SpentBundle, Use};
use sha2::{Digest as _, Sha256};

use self::bundle_file::{Draft, FileSpool, Memory, Origin, erase};
use self::ledger::{FileLedger, OfSession};
use crate::failure::Failure;
use crate::versions::Versions;
use crate::{Error, keys, private};

/// The disk must have this much left after a bundle, for ledgers and logs.
pub const RESERVE: u64 = 64 << 20;

/// Settings of a store.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The state directory.
    pub folder: PathBuf,
    /// Hash of who makes the bundles: all servers in their order.
    pub cluster: [u8; 32],
    /// Versions that the server speaks: it can use no bundles of others.
    pub versions: Versions,
    /// Bytes of bundles that are kept in memory too.
    pub memory: usize,
    /// Bytes that all bundles may take on disk.
    pub disk: u64,
}

/// Bytes of a model's id that name its folder, in hexadecimal.
const TAG: usize = 8;

/// Where all models' bundles are.
fn all_bundles(state: &Path) -> PathBuf {
    state.join("bundles")
}

/// Where a model's bundles are.
fn of_model(state: &Path, model: &ModelId) -> PathBuf {
    all_bundles(state).join(keys::to_hex(model.0.get(..TAG).unwrap_or_default()))
}

/// Whether a file is a bundle's, finished or not.
fn is_bundle(path: &Path) -> bool {
    path.extension().is_some_and(|e| e == "bundle" || e == "part") && path.is_file()
}

/// Destroys the bundles of all models but these.
pub fn sweep(state: &Path, models: &[ModelId]) -> Result<(), Error> {
    let served: Vec<PathBuf> = models.iter().map(|model| of_model(state, model)).collect();
    let folder = all_bundles(state);
    let mut destroyed = 0;
    let mut destroy = |path: &Path| {
        destroyed += 1;
        if let Err(error) = erase(path) {
            tracing::warn!(%error, "{}: cannot be destroyed", path.display());
        }
    };
    let list = |folder: &Path| -> Result<Vec<PathBuf>, Error> {
        let read = |e| Error::read(folder, e);
        fs::read_dir(folder).map_err(read)?.map(|entry| Ok(entry.map_err(read)?.path())).collect()
    };
    for path in list(&folder)? {
        if is_bundle(&path) {
            destroy(&path);
        }
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let ours = path.is_dir() && keys::from_hex(name, &mut [0; TAG]).is_some();
        if ours && !served.contains(&path) {
            list(&path)?.iter().filter(|path| is_bundle(path)).for_each(|path| destroy(path));
            // What else somebody put there stays.
            let _ = fs::remove_dir(&path);
        }
    }
    if destroyed > 0 {
        tracing::info!(destroyed, "bundles of models that are not served");
    }
    Ok(())
}

/// The bundles of one server, for one model.
pub struct Store {
    folder: PathBuf,
    planned: Arc<PlannedModel>,
    ledger: Arc<FileLedger>,
    context: [u8; 32],
    versions: Versions,
    memory: Arc<Memory>,
    disk: u64,
    /// Bytes of one bundle, roughly.
    bundle: u64,
    /// Held by every bundle that is being made.
    places: Arc<()>,
    stock: Mutex<Stock>,
    /// Bundles spent, and destroyed unused, since the start.
    spent: AtomicU64,
    discarded: AtomicU64,
    eraser: Eraser,
}

/// Destroys files on a thread of its own, for it waits for the disk.
struct Eraser {
    paths: Mutex<Option<mpsc::Sender<PathBuf>>>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Eraser {
    fn start() -> Result<Eraser, Error> {
        let (sender, paths) = mpsc::channel::<PathBuf>();
        let work = move || {
            // What could not be destroyed, on a full disk perhaps, is tried again with the next.
            let mut left: Vec<PathBuf> = Vec::new();
            for path in paths {
                left.push(path);
                left.retain(|path| match erase(path) {
                    Ok(()) => false,
                    Err(error) => {
                        tracing::warn!(%error, "{}: cannot be destroyed yet", path.display());
                        true
                    }
                });
            }
            left.iter().for_each(|path| drop(erase(path)));
        };
        let thread = std::thread::Builder::new().name("eraser".to_owned()).spawn(work);
        let thread = thread.map_err(|_| Error::NoRuntime)?;
        Ok(Eraser { paths: Mutex::new(Some(sender)), thread: Mutex::new(Some(thread)) })
    }

    fn destroy(&self, path: PathBuf) {
        let paths = self.paths.lock().unwrap_or_else(PoisonError::into_inner);
        // After the end, the next start does it.
        let _ = paths.as_ref().map(|paths| paths.send(path));
    }

    /// Waits until all is done.
    fn finish(&self) {
        self.paths.lock().unwrap_or_else(PoisonError::into_inner).take();
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        let _ = thread.map(JoinHandle::join);
    }
}

#[derive(Default)]
struct Stock {
    bundles: HashMap<BundleId, Stored>,
    bytes: u64,
}

/// A bundle that is ready on this server.
struct Stored {
    path: PathBuf,
    origin: Origin,
    bytes: u64,
    made: SystemTime,
    /// Where it fits in memory.
    kept: Option<(Bundle, Room)>,
}

/// Memory that is taken, beside a bundle's spool.
struct Room(Arc<Memory>, usize);

impl Drop for Room {
    fn drop(&mut self) {
        self.0.give_back(self.1);
    }
}

/// What a store holds and has done.
#[derive(Clone, Copy, Debug)]
pub struct Usage {
    /// Bundles that are ready here.
    pub bundles: usize,
    /// Their bytes on disk.
    pub bytes: u64,
    /// Bytes that the disk has left, where the system tells.
    pub free: Option<u64>,
    /// Bundles spent since the start.
    pub spent: u64,
    /// Bundles destroyed unused since the start.
    pub discarded: u64,
}

/// A bundle that is being made.
pub struct Making {
    id: BundleId,
    origin: Origin,
    draft: Draft,
    /// Its place on the disk, of which it has less so far.
    _place: Arc<()>,
}

impl Store {
    /// Opens the store of a state directory and destroys what cannot be used.
    pub fn open(
        settings: &Settings,
        planned: Arc<PlannedModel>,
        ledger: Arc<FileLedger>,
    ) -> Result<Store, Error> {
        let folder = of_model(&settings.folder, &ModelId(*planned.part().id()));
        // Those that are there were looked after with the state directory.
        for missing in [&all_bundles(&settings.folder), &folder].into_iter().filter(|folder| !folder.is_dir())
        {
            private::folder(missing)?;
        }
        let context = Sha256::new()
            .chain_update(b"seco bundles v1")
            .chain_update(settings.cluster)
            .chain_update(planned.part().id())
            .chain_update((planned.index() as u64).to_le_bytes())
            .finalize()
            .into();
        let eraser = Eraser::start()?;
        let bundle = seco_protocol::Part::of(planned.architecture(), planned.index()).storage_bytes;
        let store = Store {
            planned,
            ledger,
            context,
            versions: settings.versions,
            memory: Memory::new(settings.memory),
            disk: settings.disk,
            bundle,
            places: Arc::default(),
            stock: Mutex::default(),
            spent: AtomicU64::new(0),
            discarded: AtomicU64::new(0),
            eraser,
            folder,
        };
        store.take_over(&all_bundles(&settings.folder))?;
        store.load()?;
        Ok(store)
    }

    fn stock(&self) -> MutexGuard<'_, Stock> {
        self.stock.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes over its bundles of before there were several models, which were in the folder above.
    fn take_over(&self, above: &Path) -> Result<(), Error> {
        let read = |e| Error::read(above, e);
        for entry in fs::read_dir(above).map_err(read)? {
            let path = entry.map_err(read)?.path();
            if is_bundle(&path) && self.usable(&path).is_some() {
                let here = self.folder.join(path.file_name().unwrap_or_default());
                fs::rename(&path, &here).map_err(|e| Error::write(&here, e))?;
            }
        }
        Ok(())
    }

    /// Takes stock of the folder.
    fn load(&self) -> Result<(), Error> {
        let read = |e| Error::read(&self.folder, e);
        let (mut destroyed, mut unspoken) = (0, 0);
        for entry in fs::read_dir(&self.folder).map_err(read)? {
            let path = entry.map_err(read)?.path();
            if !is_bundle(&path) {
                continue;
            }
            match self.usable(&path) {
                Some((id, stored)) => {
                    let mut stock = self.stock();
                    stock.bytes += stored.bytes;
                    stock.bundles.insert(id, stored);
                }
                None => {
                    destroyed += 1;
                    let version = bundle_file::origin(&path).map(|(origin, _)| origin.version);
                    unspoken += usize::from(version.is_some_and(|version| !self.versions.speaks(version)));
                    self.discarded.fetch_add(1, Ordering::Relaxed);
                    if let Err(error) = erase(&path) {
                        tracing::warn!(%error, "{}: cannot be destroyed", path.display());
                    }
                }
            }
        }
        self.ledger.holds(self.stock().bundles.keys().copied());
        let ready = self.stock().bundles.len();
        if ready + destroyed > 0 {
            let model = keys::short(&ModelId(*self.planned.part().id()));
            tracing::info!(ready, destroyed, model, "bundles of before");
            if unspoken > 0 {
                let what = "of them of a version that this server does not speak, destroyed";
                tracing::info!(unspoken, speaks = %self.versions, model, "{what}");
            }
        }
        Ok(())
    }

    /// A file's bundle, if it can be used.
    fn usable(&self, path: &Path) -> Option<(BundleId, Stored)> {
        let name = path.file_stem()?.to_str().filter(|_| path.extension().is_some_and(|e| e == "bundle"))?;
        let mut id = BundleId([0; 16]);
        keys::from_hex(name, &mut id.0)?;
        let (origin, bytes) = bundle_file::origin(path)?;
        if origin.context != self.context
            || !self.versions.speaks(origin.version)
            || !self.ledger.may_use(&id, &origin.era)
        {
            return None;
        }
        let made = fs::metadata(path).and_then(|m| m.modified()).unwrap_or(SystemTime::UNIX_EPOCH);
        Some((id, Stored { path: path.to_owned(), origin, bytes, made, kept: None }))
    }

    /// Bundles that are ready here.
    pub fn len(&self) -> usize {
        self.stock().bundles.len()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether this one is ready here.
    pub fn has(&self, id: &BundleId) -> bool {
        self.stock().bundles.contains_key(id)
    }

    /// The bundles that are ready here, the oldest first.
    pub fn list(&self) -> Vec<BundleId> {
        let mut bundles: Vec<_> =
            self.stock().bundles.iter().map(|(id, stored)| (stored.made, *id)).collect();
        bundles.sort_unstable_by_key(|(made, id)| (*made, id.0));
        bundles.into_iter().map(|(_, id)| id).collect()
    }

    /// Begins the file of a bundle that is made in a version.
    ///
    /// # Errors
    /// [`Failure::Disk`] where there is no room for it, by the settings or on the disk; this passes.
    pub fn begin(&self, id: BundleId, version: u16) -> Result<(Making, FileSpool), Failure> {
        // Taken before it is asked for, so that of several that begin now none counts without the others.
        let place = self.places.clone();
        if !self.fit(self.making()) || self.has(&id) {
            return Err(Failure::Disk);
        }
        let origin = Origin { context: self.context, era: self.ledger.era(), version };
        let memory = self.memory.for_bundle(self.bundle);
        let (draft, spool) = Draft::begin(&self.folder, id, &origin, &memory).map_err(|error| {
            tracing::warn!("{error}");
            Failure::Disk
        })?;
        Ok((Making { id, origin, draft, _place: place }, spool))
    }

    /// Bundles that are being made.
    fn making(&self) -> u64 {
        // One is the store's own.
        Arc::strong_count(&self.places) as u64 - 1
    }

    /// Whether another bundle has room on the disk, beside those that are being made.
    pub fn has_room(&self) -> bool {
        self.fit(self.making() + 1)
    }

    /// Whether so many bundles that are not ready have room. What is written of them already is not counted as there: so
    /// on a disk that is nearly full fewer are made at the same time than would fit.
    fn fit(&self, bundles: u64) -> bool {
        let bytes = self.bundle.saturating_mul(bundles);
        let within = self.stock().bytes.saturating_add(bytes) <= self.disk;
        within && free(&self.folder).is_none_or(|free| free >= bytes.saturating_add(RESERVE))
    }

    /// Stores a bundle: from now on it is ready on this server.
    pub fn finish(&self, making: Making, bundle: Bundle) -> Result<(), Failure> {
        let Making { id, origin, draft, _place } = making;
        let mut encoded = bundle.encode();
        let length = encoded.len();
        let bytes = draft.finish(&mut encoded).map_err(|error| {
            tracing::warn!("{error}");
            Failure::Disk
        })?;
        let kept = (draft.is_in_memory() && self.memory.take(length))
            .then(|| (bundle, Room(self.memory.clone(), length)));
        let stored = Stored { path: draft.path(), origin, bytes, made: SystemTime::now(), kept };
        // Known to the ledger first: a compaction in between must not forget it.
        self.ledger.holds([id]);
        let mut stock = self.stock();
        stock.bytes += bytes;
        stock.bundles.insert(id, stored);
        Ok(())
    }

    /// Takes a bundle out and destroys its file.
    fn remove(&self, id: &BundleId) -> Option<Stored> {
        let mut stock = self.stock();
        let stored = stock.bundles.remove(id)?;
        stock.bytes = stock.bytes.saturating_sub(stored.bytes);
        Some(stored)
    }

    /// Destroys a bundle that will not be used.
    pub fn discard(&self, id: &BundleId) {
        if let Some(stored) = self.remove(id) {
            self.discarded.fetch_add(1, Ordering::Relaxed);
            self.ledger.releases(id);
            self.eraser.destroy(stored.path);
        }
    }

    /// Destroys what is still to be destroyed.
    pub fn close(&self) {
        self.eraser.finish();
    }

    /// Destroys all bundles, and the folder: the model is served no longer. Blocking.
    pub fn destroy(&self) -> usize {
        let destroyed = self.keep(&[]);
        self.eraser.finish();
        // What else somebody put there stays.
        let _ = fs::remove_dir(&self.folder);
        destroyed
    }

    /// What it holds and has done.
    pub fn usage(&self) -> Usage {
        let (bundles, bytes) = {
            let stock = self.stock();
            (stock.bundles.len(), stock.bytes)
        };
        Usage {
            bundles,
            bytes,
            free: free(&self.folder),
            spent: self.spent.load(Ordering::Relaxed),
            discarded: self.discarded.load(Ordering::Relaxed),
        }
    }

    /// Destroys all bundles but these, which all servers have.
    pub fn keep(&self, ids: &[BundleId]) -> usize {
        let kept: std::collections::HashSet<&BundleId> = ids.iter().collect();
        let others: Vec<BundleId> = self.list().into_iter().filter(|id| !kept.contains(id)).collect();
        others.iter().for_each(|id| self.discard(id));
        others.len()
    }

    /// Spends a bundle for a request: durably, before this returns (`server/PROTOCOL.md`, section 7); whatever happens
    /// then, it is not there again. `session` is the request's, dead once that was forgotten. Blocking.
    ///
    /// # Errors
    /// [`seco_protocol::Error::Ledger`] if it may not be spent or that cannot be recorded;
    /// [`seco_protocol::Error::Bundle`] if there is none, [`seco_protocol::Error::Spool`] if its file is damaged.
    pub fn spend(
        &self,
        id: &BundleId,
        usage: &Use,
        session: &Weak<SessionKey>,
    ) -> Result<SpentBundle, seco_protocol::Error> {
        let stored = self.remove(id).ok_or(seco_protocol::Error::Bundle("it is not there (any more)"))?;
        let Stored { path, origin, kept, .. } = stored;
        let bundle = match kept {
            Some((bundle, _)) => Ok(bundle),
            None => bundle_file::open(&path, *id, &origin, &self.memory)
                .map_err(seco_protocol::Error::from)
                .and_then(|(bytes, spool)| Bundle::decode(&bytes, &self.planned, Box::new(spool))),
        };
        let spent =
            bundle.and_then(|bundle| bundle.spend(&OfSession { ledger: &self.ledger, session }, usage));
        let count = if spent.is_ok() { &self.spent } else { &self.discarded };
        count.fetch_add(1, Ordering::Relaxed);
        self.ledger.releases(id);
        self.eraser.destroy(path);
        spent
    }
}

/// Bytes that the disk has left; nothing where the system does not tell.
#[cfg(unix)]
pub fn free(folder: &Path) -> Option<u64> {
    let found = rustix::fs::statvfs(folder).ok()?;
    Some(found.f_bavail.saturating_mul(found.f_frsize))
}

/// Bytes that the disk has left; nothing where the system does not tell.
#[cfg(not(unix))]
pub fn free(_: &Path) -> Option<u64> {
    None
}
