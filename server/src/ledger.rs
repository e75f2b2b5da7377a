//! The record of what was used (protocol.md section 6), on disk before the first message that
//! depends on an input.
//!
//! One append-only file, `ledger` in the state directory: a header, then records of equal length,
//! each with a checksum. A spent bundle with its session and inference number is one record; it is
//! on disk when [`Ledger::spend`] returns. Only the last record can be torn by a crash, for records
//! are written one at a time; it is then dropped, and rightly: `spend` had not returned, so nothing
//! was sent. Damage anywhere else stops the server.
//!
//! **Inference numbers.** For each session the file tells the highest number used and which of the
//! 127 below were: requests on one connection may overtake each other, older ones are refused.
//! Pads depend on session and number alone, so these marks are kept across restarts.
//!
//! **Bundles** need no such memory. They live in a server's memory and have random ids of 128 bits;
//! after a restart or a new set-up no server has an old bundle, and its id does not come again. So
//! compaction drops their records, and a new set-up forgets their ids.
//!
//! Compaction writes the marks to a new file, makes it durable, and renames it into place; a crash
//! leaves one of the two files whole. Marks of at most [`MAX_SESSIONS`] sessions are kept, those
//! used last. A session dropped from so long a list could be used again only by replaying its
//! sealed keys together with its old requests, which the adversary of the threat model (passive)
//! does not do.

use std::collections::{HashMap, HashSet};
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, BufReader, BufWriter, Read as _, Seek as _, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use seco_protocol::{BundleId, Ledger, LedgerError, Use};
use sha2::{Digest as _, Sha256};

use crate::Error;

const HEADER: &[u8; 16] = b"seco ledger v1\n\0";
const BODY: usize = 40;
const RECORD: usize = 1 + BODY + 8;
/// Kinds of records: a bundle, session and number that were used; a session's mark.
const SPENT: u8 = 1;
const MARK: u8 = 2;

/// A file smaller than this is not compacted (85,000 inferences).
const COMPACT_AT: u64 = 4 << 20;
/// Sessions whose marks are kept.
const MAX_SESSIONS: usize = 1 << 20;
/// Numbers below the highest that may still be used, once.
const WINDOW: u64 = 128;

/// Which inference numbers of a session were used.
#[derive(Clone, Copy)]
struct Mark {
    high: u64,
    /// Bit `i`: number `high - i` was used.
    window: u128,
    /// Order of last use among all sessions.
    order: u64,
}

impl Mark {
    fn is_used(&self, counter: u64) -> bool {
        match self.high.checked_sub(counter) {
            None => false,
            Some(below) => below >= WINDOW || self.window >> below & 1 == 1,
        }
    }

    fn set(&mut self, counter: u64) {
        if let Some(below) = self.high.checked_sub(counter) {
            if below < WINDOW {
                self.window |= 1 << below;
            }
            return;
        }
        let above = counter - self.high;
        self.window = if above < WINDOW { self.window << above } else { 0 } | 1;
        self.high = counter;
    }
}

struct State {
    file: File,
    length: u64,
    bundles: HashSet<BundleId>,
    marks: HashMap<[u8; 16], Mark>,
    order: u64,
    /// After a failed write nobody knows what is on disk: nothing more is spent.
    broken: bool,
}

/// A ledger in a directory that belongs to one running server.
pub struct FileLedger {
    directory: PathBuf,
    compact_at: u64,
    state: Mutex<State>,
    /// Holds the directory's lock.
    _lock: File,
}

impl FileLedger {
    /// Opens or creates the ledger of a state directory.
    pub fn open(directory: &Path) -> Result<Self, Error> {
        Self::open_with(directory, COMPACT_AT)
    }

    fn open_with(directory: &Path, compact_at: u64) -> Result<Self, Error> {
        let damaged = |what: String| Error::Ledger { path: directory.join("ledger"), what };
        fs::create_dir_all(directory).map_err(|e| Error::write(directory, e))?;
        let lock_path = directory.join("lock");
        let lock = File::create(&lock_path).map_err(|e| Error::write(&lock_path, e))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(Error::Ledger {
                    path: directory.to_owned(),
                    what: "is in use by another server: give each its own [state] directory".to_owned(),
                });
            }
            Err(TryLockError::Error(e)) => return Err(Error::write(&lock_path, e)),
        }
        let path = directory.join("ledger");
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(|e| Error::write(&path, e))?;
        let read = |e| Error::read(&path, e);
        let size = file.metadata().map_err(read)?.len();
        let mut state = State {
            length: HEADER.len() as u64,
            bundles: HashSet::new(),
            marks: HashMap::new(),
            order: 0,
            broken: false,
            file: file.try_clone().map_err(read)?,
        };

        let mut input = BufReader::new(&mut file);
        let mut header = Vec::new();
        input.by_ref().take(HEADER.len() as u64).read_to_end(&mut header).map_err(read)?;
        if !HEADER.starts_with(&header) {
            return Err(damaged("is not a ledger".to_owned()));
        }
        let mut record = [0u8; RECORD];
        while state.length + RECORD as u64 <= size {
            input.read_exact(&mut record).map_err(read)?;
            if !state.replay(&record) {
                if state.length + (RECORD as u64) < size {
                    return Err(damaged(format!(
                        "is damaged at byte {}: restore it, or remove it and make new keys (seco keygen) so \
                         that old sessions cannot be used again",
                        state.length
                    )));
                }
                break;
            }
            state.length += RECORD as u64;
        }
        let write = |e| Error::write(&path, e);
        if header.len() < HEADER.len() {
            // New, or its creation was interrupted.
            state.file.seek(SeekFrom::Start(0)).map_err(write)?;
            state.file.write_all(HEADER).map_err(write)?;
        }
        state.file.set_len(state.length).map_err(write)?;
        state.file.seek(SeekFrom::Start(state.length)).map_err(write)?;
        state.file.sync_all().and_then(|()| sync_directory(directory)).map_err(write)?;
        Ok(Self { directory: directory.to_owned(), compact_at, state: Mutex::new(state), _lock: lock })
    }

    /// Whether a bundle was ever spent for a session.
    pub fn knows(&self, session: &[u8; 16]) -> bool {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).marks.contains_key(session)
    }

    /// Whether a session's inference number can no longer be used. For turning a request away
    /// before a bundle is taken for it; `spend` decides.
    pub fn is_used(&self, session: &[u8; 16], counter: u64) -> bool {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.marks.get(session).is_some_and(|m| m.is_used(counter))
    }

    /// The cluster was set up anew: no server has a bundle of before, and their ids do not return.
    pub fn forget_bundles(&self) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).bundles.clear();
    }

    /// Rewrites the file with the marks alone.
    fn compact(&self, state: &mut State) -> io::Result<()> {
        let mut marks: Vec<_> = state.marks.iter().map(|(session, mark)| (*session, *mark)).collect();
        marks.sort_unstable_by_key(|(_, mark)| mark.order);
        let path = self.directory.join("ledger.new");
        let mut file = BufWriter::new(File::create(&path)?);
        file.write_all(HEADER)?;
        for (session, mark) in &marks {
            let mut body = [0u8; BODY];
            body[..16].copy_from_slice(session);
            body[16..24].copy_from_slice(&mark.high.to_le_bytes());
            body[24..].copy_from_slice(&mark.window.to_le_bytes());
            file.write_all(&seal(MARK, &body))?;
        }
        let file = file.into_inner().map_err(io::IntoInnerError::into_error)?;
        file.sync_all()?;
        fs::rename(&path, self.directory.join("ledger"))?;
        sync_directory(&self.directory)?;
        state.length = (HEADER.len() + marks.len() * RECORD) as u64;
        state.file = file;
        Ok(())
    }
}

impl State {
    /// Takes a record from the file; `false` if it is not whole.
    fn replay(&mut self, record: &[u8; RECORD]) -> bool {
        let (kind, mut body) = (record[0], [0u8; BODY]);
        body.copy_from_slice(&record[1..=BODY]);
        if seal(kind, &body) != *record {
            return false;
        }
        let (mut session, mut number) = ([0u8; 16], [0u8; 8]);
        match kind {
            SPENT => {
                let mut bundle = [0u8; 16];
                bundle.copy_from_slice(&body[..16]);
                session.copy_from_slice(&body[16..32]);
                number.copy_from_slice(&body[32..]);
                self.bundles.insert(BundleId(bundle));
                self.mark(session, u64::from_le_bytes(number));
            }
            MARK => {
                let mut window = [0u8; 16];
                session.copy_from_slice(&body[..16]);
                number.copy_from_slice(&body[16..24]);
                window.copy_from_slice(&body[24..]);
                self.order += 1;
                let mark = Mark {
                    high: u64::from_le_bytes(number),
                    window: u128::from_le_bytes(window),
                    order: self.order,
                };
                self.marks.insert(session, mark);
            }
            _ => return false,
        }
        true
    }

    fn mark(&mut self, session: [u8; 16], counter: u64) {
        self.order += 1;
        let mark = self.marks.entry(session).or_insert(Mark { high: counter, window: 1, order: 0 });
        mark.set(counter);
        mark.order = self.order;
        if self.marks.len() > MAX_SESSIONS {
            // An eighth at once, so that the sorting is rare.
            let mut orders: Vec<u64> = self.marks.values().map(|m| m.order).collect();
            let (_, &mut limit, _) = orders.select_nth_unstable(MAX_SESSIONS / 8);
            self.marks.retain(|_, m| m.order >= limit);
        }
    }
}

impl Ledger for FileLedger {
    fn spend(&self, bundle: &BundleId, usage: &Use) -> Result<(), LedgerError> {
        let Use { session, counter, .. } = usage;
        let counter = *counter;
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.broken {
            return Err(LedgerError::Io(io::Error::other("an earlier write failed; restart the server")));
        }
        if state.bundles.contains(bundle) {
            return Err(LedgerError::BundleSpent);
        }
        // In memory first: whatever becomes of the write, neither is used again.
        state.bundles.insert(*bundle);
        state.mark(*session, counter);
        let mut body = [0u8; BODY];
        body[..16].copy_from_slice(&bundle.0);
        body[16..32].copy_from_slice(session);
        body[32..].copy_from_slice(&counter.to_le_bytes());
        let written = state.file.write_all(&seal(SPENT, &body)).and_then(|()| state.file.sync_data());
        if let Err(error) = written {
            state.broken = true;
            return Err(LedgerError::Io(error));
        }
        state.length += RECORD as u64;
        let live = (HEADER.len() + state.marks.len() * RECORD) as u64;
        if state.length > self.compact_at.max(2 * live) {
            // The spend itself is on disk. If the new file did not come into place, the old one
            // goes on; if it may have, later records could go to a file that is no more.
            if let Err(error) = self.compact(&mut state) {
                tracing::warn!(%error, "the ledger could not be compacted");
                state.broken = true;
            }
        }
        Ok(())
    }
}

/// A record with its checksum.
fn seal(kind: u8, body: &[u8; BODY]) -> [u8; RECORD] {
    let mut record = [0u8; RECORD];
    record[0] = kind;
    record[1..=BODY].copy_from_slice(body);
    let digest = Sha256::digest(&record[..=BODY]);
    record[1 + BODY..].copy_from_slice(&digest[..8]);
    record
}

/// Makes a directory's entries durable.
fn sync_directory(directory: &Path) -> io::Result<()> {
    #[cfg(unix)]
    File::open(directory)?.sync_all()?;
    #[cfg(not(unix))]
    let _ = directory;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SESSION: [u8; 16] = [7; 16];

    fn id(n: u64) -> BundleId {
        let mut id = [0; 16];
        id[..8].copy_from_slice(&n.to_le_bytes());
        BundleId(id)
    }

    fn spend(ledger: &FileLedger, bundle: u64, counter: u64) -> &'static str {
        match ledger.spend(&id(bundle), &SESSION, counter) {
            Ok(()) => "ok",
            Err(LedgerError::BundleSpent) => "bundle",
            Err(LedgerError::CounterUsed) => "counter",
            Err(_) => "other",
        }
    }

    #[test]
    fn refuses_what_was_used_also_after_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        {
            let ledger = FileLedger::open(dir.path()).unwrap();
            assert_eq!(spend(&ledger, 1, 10), "ok");
            assert_eq!(spend(&ledger, 1, 11), "bundle");
            assert_eq!(spend(&ledger, 2, 10), "counter");
            // A refused attempt uses nothing up.
            assert_eq!(spend(&ledger, 2, 11), "ok");
        }
        let ledger = FileLedger::open(dir.path()).unwrap();
        assert_eq!(spend(&ledger, 1, 12), "bundle");
        assert_eq!(spend(&ledger, 3, 10), "counter");
        assert_eq!(spend(&ledger, 3, 11), "counter");
        assert_eq!(spend(&ledger, 3, 12), "ok");
        assert_eq!(ledger.spend(&id(4), &[8; 16], 10).ok(), Some(()), "another session");
    }

    #[test]
    fn numbers_may_overtake_each_other_within_the_window() {
        let dir = tempfile::tempdir().unwrap();
        let ledger = FileLedger::open(dir.path()).unwrap();
        for (bundle, counter, expected) in [
            (1, 500, "ok"),
            (2, 373, "ok"),      // 127 below
            (3, 372, "counter"), // 128 below
            (4, 373, "counter"),
            (5, 501, "ok"),
            (6, 374, "ok"),
            (7, 373, "counter"),
            (8, 500, "counter"),
            (9, 10_000, "ok"),
            (10, 501, "counter"),
            (11, 9_999, "ok"),
            (12, u64::MAX, "ok"),
            (13, u64::MAX, "counter"),
            (14, 0, "counter"),
        ] {
            assert_eq!(ledger.is_used(&SESSION, counter), expected == "counter", "{counter}");
            assert_eq!(spend(&ledger, bundle, counter), expected, "{counter}");
        }
    }

    #[test]
    fn a_torn_last_record_is_dropped() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ledger");
        let ledger = FileLedger::open(dir.path()).unwrap();
        assert_eq!((spend(&ledger, 1, 1), spend(&ledger, 2, 2)), ("ok", "ok"));
        drop(ledger);
        let whole = fs::read(&path).unwrap();
        let full = HEADER.len() + 2 * RECORD;
        assert_eq!(whole.len(), full);

        // Cut short at every byte, or of full length with zeros that were never overwritten.
        for cut in HEADER.len() + RECORD..full {
            for zeros in [0, full - cut] {
                let mut torn = whole[..cut].to_vec();
                torn.resize(cut + zeros, 0);
                fs::write(&path, torn).unwrap();
                let ledger = FileLedger::open(dir.path()).unwrap();
                assert_eq!(spend(&ledger, 1, 3), "bundle");
                assert_eq!(spend(&ledger, 3, 1), "counter");
                assert_eq!(spend(&ledger, 2, 2), "ok", "cut at {cut}");
                drop(ledger);
                assert_eq!(fs::read(&path).unwrap(), whole);
            }
        }
        // Creation cut short.
        for cut in 0..HEADER.len() {
            fs::write(&path, &whole[..cut]).unwrap();
            assert_eq!(spend(&FileLedger::open(dir.path()).unwrap(), 1, 1), "ok");
        }
    }

    #[test]
    fn damage_elsewhere_stops_the_server() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ledger");
        let ledger = FileLedger::open(dir.path()).unwrap();
        for n in 0..3 {
            assert_eq!(spend(&ledger, n, n), "ok");
        }
        drop(ledger);
        let whole = fs::read(&path).unwrap();
        for at in [0, HEADER.len(), HEADER.len() + RECORD + 20, HEADER.len() + 2 * RECORD - 1] {
            let mut damaged = whole.clone();
            damaged[at] ^= 1;
            fs::write(&path, damaged).unwrap();
            assert!(matches!(FileLedger::open(dir.path()), Err(Error::Ledger { .. })), "byte {at}");
        }
    }

    #[test]
    fn compaction_keeps_the_marks() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ledger");
        let limit = 40 * RECORD as u64;
        let ledger = FileLedger::open_with(dir.path(), limit).unwrap();
        for n in 0..500 {
            assert_eq!(spend(&ledger, n, 2 * n), "ok");
            assert!(fs::metadata(&path).unwrap().len() <= limit + RECORD as u64);
        }
        // Ids of this set-up are still known, though no longer on disk.
        assert_eq!(spend(&ledger, 0, 5_000), "bundle");
        drop(ledger);
        let ledger = FileLedger::open_with(dir.path(), limit).unwrap();
        assert_eq!(spend(&ledger, 1_000, 998), "counter");
        assert_eq!(spend(&ledger, 1_000, 3), "counter");
        assert_eq!(spend(&ledger, 1_000, 997), "ok");
    }

    #[test]
    fn two_servers_cannot_share_a_directory() {
        let dir = tempfile::tempdir().unwrap();
        let _first = FileLedger::open(dir.path()).unwrap();
        assert!(matches!(FileLedger::open(dir.path()), Err(Error::Ledger { .. })));
    }
}
