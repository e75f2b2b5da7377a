//! Spending: a bundle is bound to a request, durably, before anything that depends on an input leaves.

use std::io::{self, Write as _};
use std::sync::Weak;

use seco_core::SessionKey;
use seco_protocol::{BundleId, Ledger, LedgerError, Use};

use super::format::{self, RECORD};
use super::{FileLedger, HEAD_EVERY, MAX_OWED};

impl Ledger for FileLedger {
    fn spend(&self, bundle: &BundleId, usage: &Use) -> Result<(), LedgerError> {
        self.spend_if(bundle, usage, || true)
    }
}

/// Spends for requests of one session, as long as it is remembered.
pub struct OfSession<'a> {
    /// Where they are recorded.
    pub ledger: &'a FileLedger,
    /// The session's key, dead once it was forgotten.
    pub session: &'a Weak<SessionKey>,
}

impl Ledger for OfSession<'_> {
    fn spend(&self, bundle: &BundleId, usage: &Use) -> Result<(), LedgerError> {
        self.ledger.spend_if(bundle, usage, || self.session.strong_count() > 0)
    }
}

impl FileLedger {
    /// Spends if the session stands once it is certain that whoever opens it from then on is told of this spend: both
    /// ask under one lock.
    fn spend_if(&self, bundle: &BundleId, usage: &Use, stands: impl Fn() -> bool) -> Result<(), LedgerError> {
        // Spends are one after the other: only they change the head.
        let mut disk = self.disk();
        let head = self.head();
        if disk.torn {
            disk.cut()?;
        }
        self.sync_folder(&mut disk)?;
        // A ledger that is set back must be noticed: its end may be owed for some time, not for ever.
        if head.count - disk.recorded >= MAX_OWED {
            disk.record(&head, &self.heads())?;
        }
        if let Err(error) = self.check_place() {
            return Err(LedgerError::Io(io::Error::other(error.to_string())));
        }
        {
            let mut memory = self.memory();
            if memory.bundles.contains(bundle) {
                return Err(LedgerError::BundleSpent);
            }
            if memory.recent.contains(usage) {
                return Err(LedgerError::CounterUsed);
            }
            if !stands() {
                return Err(LedgerError::SessionForgotten);
            }
            // In memory first: whatever becomes of the write, neither is used again.
            memory.bundles.insert(*bundle);
            memory.ready.remove(bundle);
            memory.used(usage);
            memory.saw(usage.session);
        }
        let (record, head) = format::spend(&head, bundle, usage);
        disk.reserve();
        let written = disk.file.write_all(&record).and_then(|()| disk.file.sync_data());
        if let Err(error) = written {
            // Nothing was sent, so the record need not stay.
            disk.torn = true;
            let _ = disk.cut();
            return Err(LedgerError::Io(error));
        }
        disk.length += RECORD as u64;
        let live = {
            let mut memory = self.memory();
            memory.head = head;
            memory.live()
        };
        // The spend itself is on disk. What follows may fail, on a full disk, and is tried again.
        if disk.length > self.compact_at.max(2 * live) && head.count >= disk.compact_again {
            if let Err(error) = self.compact(&mut disk) {
                tracing::warn!(%error, directory = %self.directory.display(), "the ledger cannot be compacted");
                disk.compact_again = head.count + HEAD_EVERY;
            }
        } else if head.count.is_multiple_of(HEAD_EVERY)
            && let Err(error) = disk.record(&head, &self.heads())
        {
            tracing::warn!(%error, directory = %self.directory.display(), "the ledger's end cannot be recorded");
        }
        Ok(())
    }
}
