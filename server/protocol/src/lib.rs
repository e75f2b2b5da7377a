//! Preprocessing and online phase of one SECO server over a Channel trait.

mod bundle;
mod channel;
mod draws;
mod error;
mod ledger;
mod linear;
mod links;
mod nonlinear;
mod online;
mod party;
mod plan;
mod seeds;

pub use bundle::{Bundle, SpentBundle};
pub use channel::{Channel, ChannelError, memory};
pub use error::Error;
pub use ledger::{BundleId, InsecureMemoryLedger, Ledger, LedgerError};
pub use party::Party;
pub use plan::Counts;
