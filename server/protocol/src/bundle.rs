//! Bundles: everything one server holds for one inference (`protocol.md` section 6).
//!
//! A bundle is consumed by [`Bundle::spend`], which records it durably, and what that gives is
//! consumed by [`SpentBundle::infer`]: using one twice does not compile, and after a crash the
//! ledger refuses.

use seco_ot::Delta;
use zeroize::Zeroizing;

use crate::error::Error;
use crate::nonlinear::Role;
use crate::plan::GarblingKeys;
use crate::spool::Spool;
use crate::{BundleId, Ledger, Use};

/// Material for one inference, the same id on every server.
pub struct Bundle {
    pub(crate) id: BundleId,
    pub(crate) setup: [u8; 32],
    pub(crate) keys: GarblingKeys,
    /// `r^me` by activation; the evaluator of a step subtracts its own in clear.
    pub(crate) masks: Vec<Zeroizing<Vec<u32>>>,
    /// This server's offline word by layer.
    pub(crate) words: Vec<Zeroizing<Vec<u32>>>,
    pub(crate) delta: Delta,
    /// By step, by batch.
    pub(crate) roles: Vec<Vec<Role>>,
    /// Material of the batches that this server evaluates, in that order.
    pub(crate) spool: Box<dyn Spool>,
}

impl Bundle {
    /// The bundle's name.
    pub fn id(&self) -> BundleId {
        self.id
    }

    /// Marks the bundle spent and binds it to the request it is for, durably, before any message that depends
    /// on an input.
    pub fn spend(self, ledger: &dyn Ledger, usage: &Use) -> Result<SpentBundle, Error> {
        ledger.spend(&self.id, usage)?;
        Ok(SpentBundle { bundle: self, usage: *usage })
    }
}

/// A bundle that may be used for exactly one inference.
pub struct SpentBundle {
    pub(crate) bundle: Bundle,
    /// What it was spent for.
    pub(crate) usage: Use,
}
