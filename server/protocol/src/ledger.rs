//! What was used must never be used again, also after a crash (`protocol.md` sections 3 and 6).

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};

use serde::{Deserialize, Serialize};

/// A bundle's name, the same on every server; random.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct BundleId(pub [u8; 16]);

/// Why a bundle or an inference number may not be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LedgerError {
    /// The bundle was used before.
    #[error("this bundle was already used; it is gone, send the request again")]
    BundleSpent,
    /// The session's inference number was used before.
    #[error("this session's inference number was already used; a retry needs a new one")]
    CounterUsed,
    /// The record could not be made durable.
    #[error("the ledger cannot be written: {0}")]
    Io(#[from] std::io::Error),
}

/// Durable record of spent bundles and inference numbers. [`Ledger::spend`] returns only after the
/// record is on disk, and refuses what was recorded before.
pub trait Ledger: Send + Sync {
    /// Binds `(session, counter)` to `bundle`, once and for ever.
    fn spend(&self, bundle: &BundleId, session: &[u8; 16], counter: u64) -> Result<(), LedgerError>;
}

/// A ledger that forgets when the process ends: for tests only.
#[derive(Default)]
pub struct InsecureMemoryLedger {
    seen: Mutex<Seen>,
}

#[derive(Default)]
struct Seen {
    bundles: HashSet<BundleId>,
    numbers: HashSet<([u8; 16], u64)>,
}

impl Ledger for InsecureMemoryLedger {
    fn spend(&self, bundle: &BundleId, session: &[u8; 16], counter: u64) -> Result<(), LedgerError> {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if !seen.bundles.insert(*bundle) {
            return Err(LedgerError::BundleSpent);
        }
        if !seen.numbers.insert((*session, counter)) {
            return Err(LedgerError::CounterUsed);
        }
        Ok(())
    }
}
