//! Secret bits of all lanes, as planes, typed by what they are.
//!
//! What compiles, and what must not:
//!
//! ```
//! use seco_garble::{LambdaBits, RhoBits};
//! fn needs_rho(rho: RhoBits) {}
//! fn right(bits: RhoBits) {
//!     needs_rho(bits);
//! }
//! ```
//!
//! ```compile_fail,E0308
//! use seco_garble::{LambdaBits, RhoBits};
//! fn needs_rho(rho: RhoBits) {}
//! fn wrong(bits: LambdaBits) {
//!     needs_rho(bits); // What masks a wire is no mask of a value.
//! }
//! ```
//!
//! ```compile_fail,E0277
//! fn wrong(bits: &seco_garble::RhoBits) {
//!     println!("{bits:?}");
//! }
//! ```

use std::marker::PhantomData;

use seco_ot::Bits;
use zeroize::Zeroizing;

/// Marks a server's bits of the random wires.
pub enum Rho {}
/// Marks a garbler's shares of the outputs' masks.
pub enum Lambda {}
/// Marks a server's masks of the input.
pub enum InputMask {}
/// Marks what the evaluator sees of the outputs.
pub enum MaskedOutput {}

/// Planes of bits ([`crate::slices`]). They have no `Debug` and no comparison, and are zeroized on drop.
pub struct SecretBits<K> {
    planes: Zeroizing<Vec<u64>>,
    kind: PhantomData<K>,
}

/// A server's bits `ρ_i^j` of the random wires.
pub type RhoBits = SecretBits<Rho>;
/// A garbler's shares `λ^j` of the outputs' masks; none at the evaluator.
pub type LambdaBits = SecretBits<Lambda>;
/// A server's `d^j`, which mask what it publishes of the input.
pub type InputBits = SecretBits<InputMask>;
/// The masked values `ẑ` of a batch's outputs.
pub type MaskedBits = SecretBits<MaskedOutput>;

impl RhoBits {
    /// From planes that were stored.
    pub fn stored(planes: Zeroizing<Vec<u64>>) -> Self {
        Self::new(planes)
    }
}

impl InputBits {
    /// From planes that were drawn or stored.
    pub fn drawn(planes: Zeroizing<Vec<u64>>) -> Self {
        Self::new(planes)
    }
}

impl<K> SecretBits<K> {
    pub(crate) fn new(planes: Zeroizing<Vec<u64>>) -> Self {
        Self { planes, kind: PhantomData }
    }

    /// The planes, to be stored or computed with.
    pub fn planes(&self) -> &[u64] {
        &self.planes
    }

    pub(crate) fn into_planes(self) -> Zeroizing<Vec<u64>> {
        self.planes
    }

    /// As choice bits of correlated OTs, planes padded to whole words.
    pub fn choices(&self) -> Bits {
        Bits::from_words(self.planes.to_vec(), self.planes.len() * 64)
    }
}

// For the conversion and for what is published; the others are used once.
impl Clone for InputBits {
    fn clone(&self) -> Self {
        Self::new(self.planes.clone())
    }
}

/// Of no bits: the evaluator's.
impl Default for LambdaBits {
    fn default() -> Self {
        Self::new(Zeroizing::default())
    }
}
