//! Circuits over a trait and n-party garbling (section 5 of PROTOCOL.md).
//!
//! One server evaluates, the other `n - 1` garble together, so that no `n - 1` of the `n` servers
//! can read a wire. Constant rounds, free XOR, passive security. With `n = 2` it is half-gates
//! garbling (Zahur, Rosulek, Evans 2015, eprint 2014/756); for more garblers it follows semi-honest
//! BMR with free XOR (Ben-Efraim, Lindell, Omri, CCS 2016) with the hash terms of half gates.
//! Nothing here does I/O: [`Garbler`] and [`Evaluator`] take and give messages, step by step, and so do the conversions
//! between shares and wires ([`convert`]). It knows words, lanes and seats, no servers and no holders of weights.
//!
//! # Why a wire stays hidden
//!
//! Wire `w` carries `z_w`; the evaluator sees `ẑ_w = z_w ^ λ_w` with `λ_w` the XOR of all garblers'
//! shares. Passive adversary, static corruption, `π` an ideal permutation.
//!
//! *The evaluator is honest.* The garblers see tables they made, correlated OT messages (uniform to
//! them), one bit per cross term (masked by the low bit of a hash of a correlation key of which the
//! receiver knows one of two), one correction bit per AND (masked by a fresh choice bit), corrections of
//! conversions (masked by words of such hashes), and the opened values `m = z + ρ`, which are uniform by the
//! evaluator's own bits of `ρ`: choices of correlated OTs, and otherwise only in additive shares that are uniform
//! to the others. They never see a `ẑ`.
//!
//! *The evaluator is corrupt, garbler `j` is honest.* The coalition holds one label of each of `j`'s
//! wires. Without `Δ_j` the inactive label of every wire is unknown, so the two terms
//! `H(L^j_{a,1 ^ ẑ_a})` and `H(L^j_{b,1 ^ ẑ_b})` of every gate and target are uniform to it, by
//! circular correlation robustness with tweaks that never repeat, and hide what `j` added to rows it
//! cannot open. What it can open gives `ẑ_c` and labels. `ẑ_c` contains `λ_c^j`, which is fresh,
//! uniform and used nowhere but in correlations whose keys and MACs are uniform to the coalition. So
//! a simulator that knows no wire can draw every `ẑ_c` itself. Outputs leave by projection, each entry under pads of
//! labels of which the coalition has those of one entry; that one is `j`'s share less `r^j`, uniform
//! ([`convert::projection`]).
//!
//! *Inputs after the tables.* The public word is known after the tables are out. Nothing in the
//! tables depends on it: `m` is uniform given everything sent before, and its wires have no mask and fresh
//! labels. In the ideal-permutation model the simulator programs nothing
//! (the active path is garbled as in the real run, inactive hashes are replaced by uniform strings
//! and the adversary finds out only by querying `π` at an inactive label, probability about
//! `2^-127` a query, since `Δ` has one fixed bit), so choosing inputs adaptively gains nothing.
//!
//! *Reuse.* A wire feeds many gates and conversions. Every use of a label or correlation in a hash has its own
//! [`Tweak`]; a repeated one would give away the XOR of two masks, hence of two activation bits.

mod batch;
mod bits;
pub mod circuits;
pub mod convert;
mod error;
mod evaluator;
mod garbler;
pub mod gates;
mod hash;
mod online;
pub mod program;
pub mod slices;

pub use batch::{Active, Batch, Labels, TILE, Zero};
pub use bits::{
    InputBits, InputMask, Lambda, LambdaBits, MaskedBits, MaskedOutput, Rho, RhoBits, SecretBits,
};
pub use error::Error;
pub use evaluator::{Evaluated, Evaluator, Folding, Material, MaterialSize, OnlineEvaluator};
pub use garbler::{Corrected, Correlated, Crossed, Garbler, OutputCorrelations};
pub use hash::{Hash, Tweak};
pub use online::OnlineGarbler;

#[cfg(test)]
mod tests;
