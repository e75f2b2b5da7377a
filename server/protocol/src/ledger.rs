//! What was used must never be used again, also after a crash (sections 3 and 7 of PROTOCOL.md).

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};

use serde::{Deserialize, Serialize};

/// A bundle's name, the same on every server; random.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct BundleId(pub [u8; 16]);

/// What a bundle is spent for: one request of one connection of one session.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct Use {
    /// The session's id.
    pub session: [u8; 16],
    /// The incarnation of the session, drawn by the device for this connection.
    pub incarnation: [u8; 16],
    /// The request's number in this incarnation.
    pub counter: u64,
}

/// Why a bundle or an inference number may not be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LedgerError {
    /// The bundle was used before.
    #[error("this bundle was already used; it is gone, send the request again")]
    BundleSpent,
    /// The incarnation's inference number was used before.
    #[error("this session's inference number was already used; a retry needs a new one")]
    CounterUsed,
    /// The session was forgotten since the number was taken, and with it which numbers were used.
    #[error("the session is not known any more")]
    SessionForgotten,
    /// The record could not be made durable.
    #[error("the ledger cannot be written: {0}")]
    Io(#[from] std::io::Error),
}

/// Durable record of spent bundles and of what each was spent for. [`Ledger::spend`] returns only after the
/// record is on disk, and refuses a bundle that was recorded before.
///
/// Numbers count within an incarnation, which lives in memory only: whoever keeps the incarnations refuses a
/// number that was used. A ledger may refuse it too.
pub trait Ledger: Send + Sync {
    /// Binds `bundle` to `usage`, once and for ever.
    fn spend(&self, bundle: &BundleId, usage: &Use) -> Result<(), LedgerError>;
}

/// A ledger that forgets when the process ends: for tests only.
#[derive(Default)]
pub struct InsecureMemoryLedger {
    seen: Mutex<Seen>,
}

#[derive(Default)]
struct Seen {
    bundles: HashSet<BundleId>,
    uses: HashSet<Use>,
}

impl Ledger for InsecureMemoryLedger {
    fn spend(&self, bundle: &BundleId, usage: &Use) -> Result<(), LedgerError> {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if !seen.bundles.insert(*bundle) {
            return Err(LedgerError::BundleSpent);
        }
        if !seen.uses.insert(*usage) {
            return Err(LedgerError::CounterUsed);
        }
        Ok(())
    }
}
