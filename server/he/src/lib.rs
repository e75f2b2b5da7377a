//! Multiparty BFV and linear layers on ciphertexts.
//!
//! Section 4 of PROTOCOL.md, steps 1 to 4, for one linear layer `F` whose input mask is `r = Σ_j r^j`: the servers
//! end with additive shares of `F·r`, and no server learns `r`, `F·r` or another's weights.
//!
//! | step | server | call | message |
//! |---|---|---|---|
//! | keys | all | [`KeyDraft::new`], [`KeyDraft::check`], [`KeyDraft::finish`] | commitments, then public shares, to all |
//! | 1 | all | [`KeySet::encrypt`] | `c0_j = e_j + round(Q·r^j/t) - a·sk_j`, to the holders |
//! | 2 | holder | [`Weights::multiply`] | `c1` of `F·Enc(r) + Enc(0)` modulo `q'`, to all |
//! | 3 | others | [`KeySet::answer`] | `h_j = sk_j·c1 + e'_j - (q'/t)·s^j`, to the holder |
//! | 4 | holder | [`Product::finish`] | none: its share is `F·r - Σ_j s^j` |
//!
//! The scheme is BFV with `N = 8192`, plaintext modulus `t = 2^32` and coefficient packing; the key is shared
//! `n`-of-`n`: it is the sum of every server's ternary share and exists nowhere (Mouchet, Troncoso-Pastoriza,
//! Bossuat, Hubaux 2021, eprint 2020/304). Masks are encrypted by all servers together: every server encrypts its part
//! with its own share of the key over a polynomial `a` common to all, which is derived and not sent, so that the parts'
//! sum is a ciphertext. Products are computed modulo `Q` and switched to `q'` before anything of them leaves.
//! Parameter sets and ring arithmetic come from `fhe` and `fhe-math`. Encryption itself is ours: that
//! of `fhe` 0.1 draws `u` from `±20` where ternary will do (4 bits more of worst-case noise) and transforms four
//! polynomials where three will do; a test shows that we decrypt what it encrypts. Its threshold decryption has no
//! flooding noise and is not used.
//!
//! # Security
//!
//! Against a passive adversary that holds any `n - 1` servers. For an honest server `j`, with `w` the weights, `u` and
//! `e''` the holder's and `p_j` the server's share of the public key, `sk_j·c1 = -w·c0_j - u·p_j + w·round(Q·r^j/t) +
//! (w·e_j + u·e + e''·sk_j)` modulo `Q`: smudging hides the bracket, the rest follows from what is known and the uniform
//! share `s^j`, and both switches of the modulus are functions of what was sent.
//!
//! - **One encryption under each `a`.** Two would give the difference of two masks. `a` comes from key set, bundle,
//!   layer and index, and [`KeySet::encrypt`] refuses a second time.
//! - **Fresh encryption of zero.** A product alone has `c1_out = w·a` with both polynomials known, so one
//!   division would give the weights. [`Weights::multiply`] cannot be asked to leave it out.
//! - **Smudging.** The noise of the product ciphertext depends on the weights and on every server's `r^j`. Each
//!   answer hides it under noise [`SMUDGING_BITS`] bits wider than its worst case after the switch ([`LinearPlan::noise_bound`]).
//! - **One answer for each `c1`.** A second answer to the same `c1` averages the smudging out and, with another
//!   `s^j`, opens the difference. [`KeySet::answer`] answers a holder once for each bundle and layer.
//! - **Keys are short-lived**: [`KEY_BUNDLES`] bundles and [`KEY_COEFFICIENTS`] coefficients answered. *The caller*
//!   renews them, and draws every seed fresh. They live in memory only, and so does the record of their use: after a
//!   restart there are new ones.
//! - **Well-formed lies** (a `c1` that is no product ciphertext) are outside the model. Malformed bytes are refused
//!   with an [`Error`]; nothing here panics on them.
//!
//! # Secrets in memory
//!
//! Key shares, weights, masks and noise are wiped on drop and have no `Debug`. Not wiped, because the crates below
//! offer no way: the state of the ChaCha20 generators, and temporaries inside `fhe-math`'s transforms. All
//! arithmetic on secrets is branch-free in this crate and uses `fhe-math`'s constant-time routines only.

mod error;
mod keys;
mod layer;
mod noise;
mod packing;
mod parameters;
mod ring;
mod sample;
mod set;
#[cfg(test)]
mod tests;
mod wire;

pub use error::Error;
pub use layer::{LinearPlan, Product, Weights, Words};
pub use noise::{SMUDGING_BITS, smudging_bound};
pub use parameters::{DEGREE, LayerShape, MODULUS_LIMIT, PLAINTEXT_BITS, Parameters};
pub use set::{KEY_BUNDLES, KEY_COEFFICIENTS, KeyDraft, KeySet, KeySetName, Occasion};
