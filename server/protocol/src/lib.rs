//! Preprocessing and online phase of one SECO server over a Channel trait.
//!
//! Every server of a cluster runs the same calls side by side; nothing here opens a socket, reads a
//! clock or asks the system for randomness (seeds come from the caller). Passive adversary, static
//! corruption of the user or of any `n - 1` servers (section 1 of PROTOCOL.md).
//!
//! | call | messages, in rounds |
//! |---|---|
//! | [`Party::setup`] | nonces; commitments to public key shares; the shares; base OT (3) |
//! | [`Party::preprocess`], linear lane | parts of `Enc(r)` to the holders; `c1` to all; decryption shares back |
//! | the same, a key set's last bundle | beside these, commitments and public key shares of the next |
//! | [`Party::preprocess`], other lane | bundle OT (2), nonces with the first; choices; cross bits; corrections; tables; beside them conversions, and openings to the first opener |
//! | [`SpentBundle::infer`], input | confirmations; masked input; shares of `x - r` to those who need it |
//! | [`SpentBundle::infer`], ReLUs of a depth | masked openings; labels and projections to the evaluator; `x - r` to those who need it |
//! | [`SpentBundle::infer`], answer | its masked parts to the gateway |
//!
//! An inference can be begun ahead of its request: [`SpentBundle::confirm`], and [`ConfirmedBundle::infer`], which waits
//! for it. The messages are the same.
//!
//! Rounds of preprocessing do not depend on the model's depth: all layers share each message's round
//! (in waves that follow each other, where a model is too large for memory).
//!
//! Who has which part of which value of a model's graph is worked out once, in module `flow`. The bias of a shared layer
//! is shared like its weights, each holder adding its share, so that no server learns it.

mod bundle;
mod channel;
pub mod cost;
mod draws;
mod error;
mod flow;
mod keys;
mod ledger;
mod linear;
mod links;
mod material;
mod nonlinear;
mod online;
mod party;
mod plan;
mod planned;
mod relu;
mod seeds;
mod spool;
mod values;

pub use bundle::{Bundle, SpentBundle};
pub use channel::{Channel, ChannelError, memory};
pub use error::Error;
pub use ledger::{BundleId, InsecureMemoryLedger, Ledger, LedgerError, Use};
pub use links::OT_PARAMETER;
pub use online::{ConfirmedBundle, Request};
pub use party::{BUNDLES_AT_ONCE, Party};
pub use plan::{Counts, Part, WAVE_BYTES};
pub use planned::PlannedModel;
pub use relu::{Layer, ReluBundle, ReluLayer, ReluOutcome};
pub use seco_garble::{Material, MaterialSize};
pub use spool::{MemorySpool, Spool, SpoolError};

// What the tests share names the crate as everyone does.
#[cfg(test)]
extern crate self as seco_protocol;
#[cfg(test)]
mod tests;
