//! Circuits over a trait and n-party garbling (`protocol.md` section 5).
//!
//! One server evaluates, the other `n - 1` garble together, so that no `n - 1` of the `n` servers
//! can read a wire. Constant rounds, free XOR, passive security. With `n = 2` it is half-gates
//! garbling (Zahur, Rosulek, Evans 2015, eprint 2014/756); for more garblers it follows semi-honest
//! BMR with free XOR (Ben-Efraim, Lindell, Omri, CCS 2016) with the hash terms of half gates.
//! Nothing here does I/O: [`Garbler`] and [`Evaluator`] take and give messages, step by step.
//!
//! # Why a wire stays hidden
//!
//! Wire `w` carries `z_w`; the evaluator sees `ẑ_w = z_w ^ λ_w` with `λ_w` the XOR of all garblers'
//! shares. Passive adversary, static corruption, `π` an ideal permutation.
//!
//! *The evaluator is honest.* The garblers see tables they made, correlated OT messages (uniform to
//! them), one bit per cross term (masked by the low bit of a hash of a correlation key of which the
//! receiver knows one of two), one correction bit per AND (masked by a fresh choice bit), and the
//! published masked values of online inputs. Each of those has a mask that someone honest drew: an
//! honest garbler's own `λ`, everyone's (circuit `input`), or the honest evaluator's `ρ`. They never
//! see another `ẑ`.
//!
//! *The evaluator is corrupt, garbler `j` is honest.* The coalition holds one label of each of `j`'s
//! wires. Without `Δ_j` the inactive label of every wire is unknown, so the two terms
//! `H(L^j_{a,1 ^ ẑ_a})` and `H(L^j_{b,1 ^ ẑ_b})` of every gate and target are uniform to it, by
//! circular correlation robustness with tweaks that never repeat, and hide what `j` added to rows it
//! cannot open. What it can open gives `ẑ_c` and labels. `ẑ_c` contains `λ_c^j`, which is fresh,
//! uniform and used nowhere but in correlations whose keys and MACs are uniform to the coalition. So
//! a simulator that knows no wire can draw every `ẑ_c` itself. Outputs leave masked by random words
//! that the servers feed in, so revealing their `λ` reveals nothing but those masked words.
//!
//! *Inputs after the tables.* Online inputs are chosen after the tables are out. Nothing in the
//! tables depends on them: an input's masked value is uniform given everything sent before, for its
//! mask is used only in correlations. In the ideal-permutation model the simulator programs nothing
//! (the active path is garbled as in the real run, inactive hashes are replaced by uniform strings
//! and the adversary finds out only by querying `π` at an inactive label, probability about
//! `2^-127` a query, since `Δ` has one fixed bit), so choosing inputs adaptively gains nothing.
//!
//! *Reuse.* A wire feeds many gates. Every use of a label or correlation in a hash has its own
//! [`Tweak`]; a repeated one would give away the XOR of two masks, hence of two activation bits.

mod batch;
pub mod circuits;
mod error;
mod evaluator;
mod garbler;
pub mod gates;
mod hash;
mod online;
pub mod program;
pub mod slices;

pub use batch::{Batch, TILE, owns};
pub use error::Error;
pub use evaluator::{Evaluator, Folding, Material, MaterialSize, OnlineEvaluator};
pub use garbler::{Corrected, Correlated, Crossed, Garbler};
pub use hash::{Hash, Tweak};
pub use online::OnlineGarbler;

#[cfg(test)]
mod tests;
