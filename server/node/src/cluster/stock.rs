//! Bundles that the gateway holds: in its pool, on their way to a request, or in use.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use seco_protocol::BundleId;
use tokio::sync::{Notify, mpsc};

/// A bundle ready on all servers. Dropped unused, it is in the pool again; dropped in use, it is destroyed.
pub(crate) struct Ready {
    pub(super) bundle: BundleId,
    pub(super) state: Progress,
    stock: Arc<Stock>,
}

/// How far a request got with its bundle.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Progress {
    Unused,
    /// Servers were told to use it.
    Started,
    /// It is used, or destroyed.
    Over,
}

/// Bundles that are in the pool, on their way to a request, or in use.
pub(super) struct Stock {
    held: Mutex<HashSet<BundleId>>,
    /// Told whenever there is one less.
    pub(super) taken: Notify,
    /// What becomes of those that are let go.
    events: mpsc::UnboundedSender<Released>,
}

pub(super) enum Released {
    /// Nobody used it.
    Unused(BundleId),
    /// A request failed with it: not every server may have got as far as using it up.
    Failed(BundleId),
}

impl Stock {
    /// Holds nothing. Whoever reads `events` decides what becomes of what is let go.
    pub(super) fn new(events: mpsc::UnboundedSender<Released>) -> Arc<Stock> {
        Arc::new(Stock { held: Mutex::default(), taken: Notify::new(), events })
    }

    pub(super) fn held(&self) -> MutexGuard<'_, HashSet<BundleId>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A bundle that nobody holds yet.
    pub(super) fn hold(self: &Arc<Self>, bundle: BundleId) -> Option<Ready> {
        let new = self.held().insert(bundle);
        new.then(|| Ready { bundle, state: Progress::Unused, stock: self.clone() })
    }

    pub(super) fn release(&self, bundle: &BundleId) {
        self.held().remove(bundle);
        self.taken.notify_one();
    }
}

impl Ready {
    /// It is used up, or destroyed.
    pub(super) fn used(&mut self) {
        self.state = Progress::Over;
        self.stock.release(&self.bundle);
    }
}

impl Drop for Ready {
    fn drop(&mut self) {
        let event = match self.state {
            Progress::Unused => Released::Unused(self.bundle),
            Progress::Started => Released::Failed(self.bundle),
            Progress::Over => return,
        };
        // Fails when the gateway stops.
        let _ = self.stock.events.send(event);
    }
}
