//! From shares to wires and back (section 6 of PROTOCOL.md): arithmetic on additive shares over the correlations
//! that garbling has anyway. Nothing here does I/O; every module has its formula, why it is safe, and a test against
//! ideal correlations.
//!
//! - [`product`]: shares of the product of one server's number and another's bit;
//! - [`sum`]: a bit that is the XOR of all servers' bits becomes additive shares;
//! - [`chain`]: shares of the product of such a bit and a shared number;
//! - [`relu`]: what a ReLU prepares with those three, in rounds, and its algebra;
//! - [`projection`]: a share leaves the circuit under the labels of its outputs;
//! - [`input`]: the device's input under masks, without a circuit.
//!
//! Numbers are 32-bit words that wrap around; only the low bits that a width names mean anything, and only they are
//! sent. *Seats* are the servers of a step in the order in which they join: garblers by position, then the
//! evaluator.

pub mod chain;
mod choose;
pub mod input;
pub mod pads;
pub mod product;
pub mod projection;
pub mod relu;
pub mod sum;

use zeroize::Zeroizing;

/// This server's additive shares of a number for every lane. It has no `Debug` and no comparison; what leaves it is
/// [`Share::add_to`] or [`Share::words`], where the protocol says so.
#[derive(Clone, Default)]
pub struct Share(Zeroizing<Vec<u32>>);

impl Share {
    /// From words, one for every lane.
    pub fn new(words: Zeroizing<Vec<u32>>) -> Self {
        Self(words)
    }

    /// Shares of zero.
    pub fn zeros(lanes: usize) -> Self {
        Self(Zeroizing::new(vec![0; lanes]))
    }

    /// Adds a multiple of another number's shares.
    pub fn add(&mut self, factor: u32, other: &Share) {
        self.add_words(factor, &other.0);
    }

    pub(crate) fn add_words(&mut self, factor: u32, words: &[u32]) {
        self.0
            .iter_mut()
            .zip(words)
            .for_each(|(sum, word)| *sum = sum.wrapping_add(factor.wrapping_mul(*word)));
    }

    /// Adds these shares to words.
    pub fn add_to(&self, words: &mut [u32]) {
        words.iter_mut().zip(self.0.iter()).for_each(|(word, share)| *word = word.wrapping_add(*share));
    }

    /// The words, to be stored or sent under a mask.
    pub fn words(&self) -> &[u32] {
        &self.0
    }

    pub(crate) fn words_mut(&mut self) -> &mut [u32] {
        &mut self.0
    }
}

/// Bit `lane` of a plane.
#[inline(always)]
pub(crate) fn bit(plane: &[u64], lane: usize) -> u32 {
    (plane[lane / 64] >> (lane % 64)) as u32 & 1
}

/// The bits of a plane as words 0 and 1.
pub(crate) fn bits_of(plane: &[u64], lanes: usize) -> Zeroizing<Vec<u32>> {
    Zeroizing::new((0..lanes).map(|lane| bit(plane, lane)).collect())
}

#[cfg(test)]
mod tests;
