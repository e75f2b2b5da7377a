//! The record of what was used (section 7 of PROTOCOL.md), on disk before the first message that
//! depends on an input.
//!
//! One append-only file, `ledger` in the state directory ([`format`]). A spent bundle with the session,
//! incarnation and inference number it was spent for is one record; it is on disk when [`seco_protocol::Ledger::spend`]
//! returns. Only the last record can be torn by a crash, for records are written one at a time; it is then
//! dropped, and rightly: `spend` had not returned, so nothing was sent. Damage anywhere else stops the server.
//!
//! **Set back, removed, replaced.** Records are chained by a hash. How many there are and the chain's end, the
//! [`Head`], are written to a small file beside the server's keys: when the ledger is made, every
//! `HEAD_EVERY` spends, at compaction and at a clean end. A ledger that does not reach that head, or whose
//! chain is another there, is refused, as is one without a head. So losing one folder, or restoring one from a
//! copy, is noticed; who sets back both must be noticed by the other servers. Which file that is: `heads`.
//!
//! **Numbers** count within an incarnation of a session, which lives in memory only, so no record of them is
//! needed after a restart. A number repeated among the last `RECENT` spends is refused here too; the window
//! of all numbers is the sessions' table's.
//!
//! **Sessions**: the ledger tells whether it has ever seen one, so that nobody can open an old one with keys
//! of his own. Of at most `MAX_SESSIONS` that is remembered, those used last.
//!
//! **Bundles** are files that may come back, from a copy or after a crash between the record and the removal. The
//! ids of spent ones are in the file since its compaction. What was spent before that is known by what was not: a
//! compaction begins a new *era*, named by the chain there, and notes the bundles that are ready then. So a bundle may
//! be used if it is not among the spent ones and was made in this era or noted at its beginning
//! ([`FileLedger::may_use`]).
//!
//! Compaction writes head, sessions and ready bundles to a new file, makes it durable, and renames it into place; a
//! crash leaves one of the two files whole.
//!
//! **A full disk**: a record that could not be written is cut off again, nothing is sent, and the next spend tries anew.
//! A compaction that fails is tried again later.

mod file;
mod format;
mod head;
mod heads;
pub mod inspect;
mod spend;
mod state;

#[cfg(test)]
mod tests;

use std::collections::{HashMap, HashSet, VecDeque};
use std::fs::{self, File};
use std::io::{self, BufReader, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use seco_protocol::{BundleId, Ledger as _, Use};

use self::file::{New, Place, lock, open_file, write_new};
use self::format::{Damage, HEADER, HEADER_V1, HEADER_V2};
pub use self::head::Head;
use self::heads::Found;
pub use self::heads::{Heads, is_head};
pub use self::spend::OfSession;
use self::state::{Disk, Memory, live};
use crate::{Error, keys, private};

/// A file smaller than this is not compacted (64,000 inferences).
const COMPACT_AT: u64 = 4 << 20;
/// Sessions that are remembered.
const MAX_SESSIONS: usize = 1 << 20;
/// Last spends whose use is refused a second time.
const RECENT: usize = 4096;
/// Disk space that is set aside at a time: 16,000 inferences.
const RESERVE: u64 = 1 << 20;
/// Spends between two recordings of the head.
const HEAD_EVERY: u64 = 64;
/// As many spends without a recording, because the disk is full, are the most.
const MAX_OWED: u64 = 1024;
/// Ids of spent bundles that are remembered in memory beyond the file's.
const MAX_BUNDLES: usize = 1 << 20;

/// What to do when records of the past are lost.
pub(crate) const REMEDY: &str = "never restore one from a copy; remove the ledger and its head (beside the \
                                 keys) and make new keys with `seco keygen`, so that old sessions \
                                 cannot be used again";

/// A ledger in a directory that belongs to one running server.
pub struct FileLedger {
    directory: PathBuf,
    path: PathBuf,
    /// Where its end is remembered: a file for each model. Taken after `disk` by who needs both.
    heads: Mutex<Vec<PathBuf>>,
    compact_at: u64,
    /// Taken before `memory` by who needs both; threads that must not wait for a disk take `memory` alone.
    disk: Mutex<Disk>,
    memory: Mutex<Memory>,
    /// Which file has the ledger's name, if nobody removes it.
    place: Mutex<Place>,
    /// Holds the directory's lock.
    _lock: File,
}

impl FileLedger {
    /// Opens or creates the ledger of a state directory. `heads` are the files that remember where it ends.
    pub fn open(directory: &Path, heads: &Heads) -> Result<Self, Error> {
        Self::open_with(directory, heads, COMPACT_AT)
    }

    /// The same for several models, with the files of each.
    ///
    /// # Errors
    /// Those of [`FileLedger::open`], for any of them.
    pub fn open_all(directory: &Path, heads: &[Heads]) -> Result<Self, Error> {
        let (first, others) = heads.split_first().ok_or_else(|| Error::Usage("no model".to_owned()))?;
        // One that must exist for any of them is not begun anew for another.
        let mut bound = others.iter();
        let first = match bound.find(|heads| !directory.join("ledger").exists() && heads.bind()) {
            Some(bound) => bound,
            None => first,
        };
        let ledger = Self::open(directory, first)?;
        heads.iter().filter(|heads| heads.own != first.own).try_for_each(|heads| ledger.serves(heads))?;
        Ok(ledger)
    }

    /// From now on it is another model's ledger too, with these files.
    ///
    /// # Errors
    /// [`Error::Ledger`] if the model has another ledger, or this one was set back for it. Blocking.
    pub fn serves(&self, heads: &Heads) -> Result<(), Error> {
        let broken = |what: String| Error::Ledger { path: self.path.clone(), what };
        // At one time: a compaction begins a file that is later than the heads of before it.
        let (mut found, mut file, length) = {
            let disk = self.disk();
            let found = heads.load()?;
            (found, open_file(&self.path).map_err(|e| Error::read(&self.path, e))?.0, disk.length)
        };
        found.retain(|found| found.binding);
        let mut taken_over = None;
        for (number, Found { head, path: shown, earlier, .. }) in found.iter().enumerate() {
            // Read without the lock, for spends must not wait for a million sessions: what a ledger has once reached
            // it has reached, whatever is appended meanwhile, and a compaction leaves this file as it is.
            file.seek(SeekFrom::Start(HEADER.len() as u64)).map_err(|e| Error::read(&self.path, e))?;
            let contents = format::read(&mut BufReader::new(&mut file), length, Some(head.count));
            let contents = contents.map_err(|damage| match damage {
                Damage::At(byte) => broken(format!("is damaged at byte {byte}: {REMEDY}")),
                Damage::Io(error) => Error::read(&self.path, error),
            })?;
            if contents.chain_there == Some(head.chain) {
                taken_over = Some((shown, *earlier));
                break;
            }
            if number + 1 == found.len() {
                return Err(broken(not_reached(contents.head.count, head, shown)));
            }
        }
        let mut disk = self.disk();
        self.head().store(&heads.own).map_err(|e| Error::write(&heads.own, e))?;
        if let Some((old, true)) = taken_over {
            fs::remove_file(old).map_err(|e| Error::write(old, e))?;
        }
        let mut all = self.heads.lock().unwrap_or_else(PoisonError::into_inner);
        if !all.contains(&heads.own) {
            all.push(heads.own.clone());
        }
        drop(all);
        // What the others' files say may be older.
        disk.recorded = disk.recorded.min(self.head().count);
        Ok(())
    }

    fn open_with(directory: &Path, heads: &Heads, compact_at: u64) -> Result<Self, Error> {
        private::folder(directory)?;
        let lock = lock(directory)?;
        let path = directory.join("ledger");
        let broken = |what: String| Error::Ledger { path: path.clone(), what };
        let found = heads.load()?;
        let binding = found.iter().find(|found| found.binding);
        if !path.exists() {
            if let Some(Found { head, path: shown, .. }) = binding {
                return Err(broken(format!(
                    "is missing, but had {} entries by {}: {REMEDY}",
                    head.count,
                    shown.display()
                )));
            }
            let mut chain = [0; 32];
            keys::random(&mut chain)?;
            write_new(&path, &Head { count: 0, chain }, &[], &[]).map_err(|e| Error::write(&path, e))?;
        }

        let read = |e| Error::read(&path, e);
        let write = |e| Error::write(&path, e);
        let damaged = |damage| match damage {
            Damage::At(byte) => broken(format!("is damaged at byte {byte}: {REMEDY}")),
            Damage::Io(error) => Error::read(&path, error),
        };
        let (mut file, header) = open_file(&path).map_err(read)?;
        if header == *HEADER_V1 {
            if let Some(Found { head, path: shown, .. }) = binding {
                return Err(broken(format!(
                    "is one of an earlier release, older than {}, by which it had {} entries: {REMEDY}",
                    shown.display(),
                    head.count
                )));
            }
            let size = file.metadata().map_err(read)?.len();
            let sessions = format::read_v1(&mut BufReader::new(&mut file), size).map_err(damaged)?;
            let mut chain = [0; 32];
            keys::random(&mut chain)?;
            write_new(&path, &Head { count: 0, chain }, &last_uses(sessions), &[]).map_err(write)?;
            tracing::info!("{}: an earlier release's ledger was taken over", path.display());
            file = open_file(&path).map_err(read)?.0;
        } else if header.is_empty() {
            return Err(broken(format!("is empty: {REMEDY}")));
        } else if header != *HEADER && header != *HEADER_V2 {
            return Err(broken(format!("is not a ledger: {REMEDY}")));
        }
        let size = file.metadata().map_err(read)?.len();
        let mut at = |count| {
            file.seek(SeekFrom::Start(HEADER.len() as u64)).map_err(read)?;
            format::read(&mut BufReader::new(&mut file), size, count).map_err(damaged)
        };
        // Where a head binds, one that does not cannot stand for it.
        let counts = |found: &&Found| found.binding || binding.is_none();
        let mut contents = at(found.iter().find(counts).map(|found| found.head.count))?;
        let mut reached = None;
        for (number, found) in found.iter().filter(counts).enumerate() {
            if number > 0 {
                contents = at(Some(found.head.count))?;
            }
            if contents.chain_there == Some(found.head.chain) {
                reached = Some(found);
                break;
            }
        }
        if reached.is_none() {
            let entries = contents.head.count;
            if let Some(Found { head, path: shown, .. }) = binding {
                return Err(broken(not_reached(entries, head, shown)));
            }
            // Without entries, its creation was interrupted.
            if entries > 0 {
                return Err(broken(format!(
                    "has {entries} entries, but {}, which says where it ends, is missing: {REMEDY}",
                    heads.own.display()
                )));
            }
        }
        // Of models that are not served now, but were by this ledger: a compaction must not leave their heads behind.
        let mut all = vec![heads.own.clone()];
        for path in &heads.others {
            if let Ok(Some(head)) = Head::load(path)
                && at(Some(head.count))?.chain_there == Some(head.chain)
            {
                all.push(path.clone());
            }
        }
        file.set_len(contents.length).map_err(write)?;
        file.seek(SeekFrom::Start(contents.length)).map_err(write)?;
        file.sync_all().and_then(|()| private::sync_folder(directory)).map_err(write)?;
        contents.head.store(&heads.own).map_err(|e| Error::write(&heads.own, e))?;
        if let Some(Found { path: old, earlier: true, .. }) = reached {
            fs::remove_file(old).map_err(|e| Error::write(old, e))?;
            tracing::info!("{}: was taken over as {}", old.display(), heads.own.display());
        }

        let place = Place::of(&file.metadata().map_err(read)?);
        let mut memory = Memory {
            head: contents.head,
            bundles: contents.bundles.into_iter().collect(),
            era: contents.era,
            noted: contents.ready.into_iter().collect(),
            ready: HashSet::new(),
            sessions: HashMap::new(),
            order: 0,
            recent: HashSet::new(),
            recent_order: VecDeque::new(),
        };
        contents.sessions.into_iter().for_each(|session| memory.saw(session));
        let disk = Disk {
            file,
            length: contents.length,
            torn: false,
            reserved: 0,
            recorded: contents.head.count,
            compact_again: 0,
            unsynced: false,
        };
        Ok(Self {
            directory: directory.to_owned(),
            path,
            heads: Mutex::new(all),
            compact_at,
            disk: Mutex::new(disk),
            memory: Mutex::new(memory),
            place: Mutex::new(place),
            _lock: lock,
        })
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn disk(&self) -> MutexGuard<'_, Disk> {
        self.disk.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a bundle was ever spent for this session.
    pub fn knows(&self, session: &[u8; 16]) -> bool {
        self.memory().sessions.contains_key(session)
    }

    /// Entries since it was begun.
    pub fn entries(&self) -> u64 {
        self.memory().head.count
    }

    /// Where the ledger ends.
    pub fn head(&self) -> Head {
        self.memory().head
    }

    /// Records where the ledger ends, for the next start: at a clean end.
    pub fn record_head(&self) -> Result<(), Error> {
        // Held meanwhile: a spend that is under way must not compact, and store its own, in between.
        let _disk = self.disk();
        let (head, paths) = (self.head(), self.heads());
        paths.iter().try_for_each(|path| head.store(path).map_err(|e| Error::write(path, e)))
    }

    fn heads(&self) -> Vec<PathBuf> {
        self.heads.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Names the present era, for bundles that are made in it.
    pub fn era(&self) -> [u8; 32] {
        self.memory().era
    }

    /// Whether a bundle of this era may still be used.
    pub fn may_use(&self, bundle: &BundleId, era: &[u8; 32]) -> bool {
        let memory = self.memory();
        !memory.bundles.contains(bundle) && (*era == memory.era || memory.noted.contains(bundle))
    }

    /// Begins an era in which no bundle is ready: none of before may be used, whatever becomes of its file. The era gets
    /// its name from an entry of its own, a spend of no bundle.
    pub fn renounce_bundles(&self) -> io::Result<()> {
        let mut nothing = [0; 32];
        keys::random(&mut nothing).map_err(io::Error::other)?;
        let (mut bundle, mut incarnation) = (BundleId([0; 16]), [0; 16]);
        bundle.0.copy_from_slice(&nothing[..16]);
        incarnation.copy_from_slice(&nothing[16..]);
        let usage = Use { session: [0; 16], incarnation, counter: 0 };
        self.spend(&bundle, &usage).map_err(io::Error::other)?;
        let mut disk = self.disk();
        self.memory().ready.clear();
        self.compact(&mut disk)
    }

    /// These bundles are ready: the next era must know them. Blocking, for one may be about to begin.
    pub fn holds(&self, bundles: impl IntoIterator<Item = BundleId>) {
        let _disk = self.disk();
        self.memory().ready.extend(bundles);
    }

    /// This one is not, whether it was spent or not.
    pub fn releases(&self, bundle: &BundleId) {
        self.memory().ready.remove(bundle);
    }

    /// Fails if the ledger is not where it was: then nothing more may be spent, for the next start would not
    /// know of it.
    pub fn check_place(&self) -> Result<(), Error> {
        // Held while a compaction changes it.
        let place = self.place.lock().unwrap_or_else(PoisonError::into_inner);
        if fs::metadata(&self.path).is_ok_and(|found| Place::of(&found) == *place) {
            return Ok(());
        }
        Err(Error::Ledger {
            path: self.path.clone(),
            what: format!("was removed or replaced while the server ran, which therefore stops: {REMEDY}"),
        })
    }

    /// Rewrites the file with head, sessions and ready bundles alone: a new era.
    fn compact(&self, disk: &mut Disk) -> io::Result<()> {
        let (head, mut sessions, ready) = {
            let memory = self.memory();
            let sessions: Vec<_> =
                memory.sessions.iter().map(|(session, order)| (*order, *session)).collect();
            (memory.head, sessions, memory.ready.iter().copied().collect::<Vec<BundleId>>())
        };
        // First: the new file does not have the entries before its own.
        disk.record(&head, &self.heads())?;
        sessions.sort_unstable();
        let sessions: Vec<_> = sessions.into_iter().map(|(_, session)| session).collect();
        let new = New::write(&self.path, &head, &sessions, &ready)?;
        disk.file = {
            let mut place = self.place.lock().unwrap_or_else(PoisonError::into_inner);
            let file = new.put()?;
            *place = Place::of(&file.metadata()?);
            file
        };
        disk.length = live(sessions.len(), ready.len());
        disk.reserved = 0;
        {
            let mut memory = self.memory();
            memory.era = head.chain;
            memory.noted = ready.into_iter().collect();
            if memory.bundles.len() > MAX_BUNDLES {
                memory.bundles.clear();
            }
        }
        disk.unsynced = true;
        self.sync_folder(disk)
    }

    /// Makes the file's name durable: without it, what is spent could be forgotten with the file.
    fn sync_folder(&self, disk: &mut Disk) -> io::Result<()> {
        if disk.unsynced {
            private::sync_folder(&self.directory)?;
            disk.unsynced = false;
        }
        Ok(())
    }
}

/// Says why a ledger with so many entries does not reach a head that binds it.
fn not_reached(entries: u64, head: &Head, shown: &Path) -> String {
    let shown = shown.display();
    if entries < head.count {
        format!(
            "has {entries} entries, but had {} by {shown}: it was set back or cut short: {REMEDY}",
            head.count
        )
    } else {
        format!("is not the one that {shown} belongs to (entry {} differs): {REMEDY}", head.count)
    }
}

/// Sessions in order of their last use, each once, as many as are remembered.
fn last_uses(mut sessions: Vec<[u8; 16]>) -> Vec<[u8; 16]> {
    let mut seen = HashSet::new();
    sessions.reverse();
    sessions.retain(|session| seen.len() < MAX_SESSIONS && seen.insert(*session));
    sessions.reverse();
    sessions
}
