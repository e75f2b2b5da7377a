//! Multiparty BFV and linear layers on ciphertexts.
//!
//! Protocol.md section 4, steps 1 to 4, for one linear layer `F` whose input mask is `r = Σ_j r^j`: the servers
//! end with additive shares of `F·r`, and no server learns `r`, `F·r` or another's weights.
//!
//! | step | server | call | message |
//! |---|---|---|---|
//! | once | all | [`SecretShare::random`], [`SecretShare::public_share`], [`PublicKey::combine`] | public shares, to all |
//! | 1 | all | [`PublicKey::encrypt`] | `Enc(r^j)`, to the holders |
//! | 2 | holder | [`Weights::multiply`] | `c1` of `F·Enc(r) + Enc(0)`, to all |
//! | 3 | others | [`SecretShare::answer`] | `h_j = sk_j·c1 + e_j - Δ·s^j`, to the holder |
//! | 4 | holder | [`Product::finish`] | none: its share is `F·r - Σ_j s^j` |
//!
//! The scheme is BFV with `N = 8192`, plaintext modulus `t = 2^32` and coefficient packing; the key is shared
//! `n`-of-`n`: it is the sum of every server's ternary share and exists nowhere (Mouchet, Troncoso-Pastoriza,
//! Bossuat, Hubaux 2021, eprint 2020/304). Parameter sets and ring arithmetic come from `fhe` and
//! `fhe-math`. Encryption itself is ours: that
//! of `fhe` 0.1 draws `u` from `±20` where ternary will do (4 bits more of worst-case noise) and transforms four
//! polynomials where three will do; a test shows that we decrypt what it encrypts. Its threshold decryption has no
//! flooding noise and is not used.
//!
//! # Security
//!
//! Against a passive adversary that holds any `n - 1` servers.
//!
//! - **Fresh encryption of zero.** A product alone has `c1_out = w·c1_in` with both polynomials known, so one
//!   division would give the weights. [`Weights::multiply`] cannot be asked to leave it out.
//! - **Smudging.** The noise of the product ciphertext depends on the weights and on every server's `r^j`. Each
//!   answer hides it under noise [`SMUDGING_BITS`] bits wider than its worst case ([`noise_bound`]).
//! - **One answer for each `c1`.** A second answer to the same `c1` averages the smudging out and, with another
//!   `s^j`, opens the difference. *The caller* answers once per layer and bundle and binds that to the bundle's id;
//!   it also draws every seed fresh, and renews the keys after 10^6 inferences at the latest.
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
#[cfg(test)]
mod tests;
mod wire;

pub use error::Error;
pub use keys::{PublicKey, SecretShare};
pub use layer::{LinearPlan, Product, Weights};
pub use noise::{SMUDGING_BITS, noise_bound, smudging_bound};
pub use parameters::{DEGREE, LayerShape, MODULUS_LIMIT, PLAINTEXT_BITS, Parameters};
