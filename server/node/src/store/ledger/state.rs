//! What a running ledger knows, and what it knows of its file.

use std::collections::{HashMap, HashSet, VecDeque};
use std::fs::File;
use std::io::{self, Seek as _, SeekFrom};
use std::path::PathBuf;

use seco_protocol::{BundleId, Use};

use super::format::{HEADER, RECORD};
use super::head::Head;
use super::{MAX_SESSIONS, RECENT, RESERVE};

/// What the ledger says. Whoever has this lock waits for nothing.
pub(super) struct Memory {
    pub(super) head: Head,
    /// Spent since the era began, at least.
    pub(super) bundles: HashSet<BundleId>,
    /// Where the era began.
    pub(super) era: [u8; 32],
    /// Ready at its beginning.
    pub(super) noted: HashSet<BundleId>,
    /// Ready now.
    pub(super) ready: HashSet<BundleId>,
    /// When each session was used last.
    pub(super) sessions: HashMap<[u8; 16], u64>,
    pub(super) order: u64,
    pub(super) recent: HashSet<Use>,
    /// The same in order.
    pub(super) recent_order: VecDeque<Use>,
}

/// Its file. Whoever has this lock may wait for the disk.
pub(super) struct Disk {
    pub(super) file: File,
    pub(super) length: u64,
    /// After a failed write nobody knows what is behind `length`: it is cut off before anything is spent.
    pub(super) torn: bool,
    /// Bytes that the disk has set aside for the file.
    pub(super) reserved: u64,
    /// Spends at the last recording of the head.
    pub(super) recorded: u64,
    /// Spends from which on a compaction that failed is tried again.
    pub(super) compact_again: u64,
    /// Whether the folder may still have the name of a file that was replaced.
    pub(super) unsynced: bool,
}

impl Memory {
    pub(super) fn saw(&mut self, session: [u8; 16]) {
        self.order += 1;
        self.sessions.insert(session, self.order);
        if self.sessions.len() > MAX_SESSIONS {
            // An eighth at once, so that the sorting is rare.
            let mut orders: Vec<u64> = self.sessions.values().copied().collect();
            let (_, &mut limit, _) = orders.select_nth_unstable(MAX_SESSIONS / 8);
            self.sessions.retain(|_, order| *order >= limit);
        }
    }

    pub(super) fn used(&mut self, usage: &Use) {
        if self.recent_order.len() == RECENT
            && let Some(oldest) = self.recent_order.pop_front()
        {
            self.recent.remove(&oldest);
        }
        self.recent.insert(*usage);
        self.recent_order.push_back(*usage);
    }

    /// Bytes of the file after a compaction.
    pub(super) fn live(&self) -> u64 {
        live(self.sessions.len(), self.noted.len())
    }
}

impl Disk {
    /// Records where the ledger ends.
    pub(super) fn record(&mut self, head: &Head, paths: &[PathBuf]) -> io::Result<()> {
        paths.iter().try_for_each(|path| head.store(path))?;
        self.recorded = head.count;
        Ok(())
    }

    /// Cuts off what is behind the last whole record.
    pub(super) fn cut(&mut self) -> io::Result<()> {
        self.reserved = 0;
        self.file.set_len(self.length)?;
        self.file.seek(SeekFrom::Start(self.length))?;
        self.file.sync_all()?;
        self.torn = false;
        Ok(())
    }

    /// Sets disk space aside, so that spends still fit when bundles, or somebody else, have filled the disk.
    pub(super) fn reserve(&mut self) {
        if self.length + RECORD as u64 <= self.reserved {
            return;
        }
        #[cfg(target_os = "linux")]
        {
            use rustix::fs::{FallocateFlags, fallocate};
            // Not all file systems can.
            let _ = fallocate(&self.file, FallocateFlags::KEEP_SIZE, self.length, RESERVE);
        }
        self.reserved = self.length + RESERVE;
    }
}

/// Bytes of a file without spends.
pub(super) fn live(sessions: usize, ready: usize) -> u64 {
    (HEADER.len() + (1 + sessions + ready) * RECORD) as u64
}
