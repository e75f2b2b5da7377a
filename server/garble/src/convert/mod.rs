//! From shares to wires and back (section 6 of PROTOCOL.md): arithmetic on additive shares over the correlations
//! that garbling has anyway. Nothing here does I/O; every module has its formula, why it is safe, and a test against
//! ideal correlations.
//!
//! - [`product`]: shares of the product of one server's number and another's bit;
//! - [`sum`]: a bit that is the XOR of all servers' bits becomes additive shares;
//! - [`chain`]: shares of the product of such a bit and a shared number;
//! - [`relu`]: what a ReLU prepares with those three, in rounds, and its algebra;
//! - [`projection`]: a share leaves the circuit under the labels of its outputs;
//! - [`input`]: the device's input under masks, without a circuit;
//! - [`Words`]: what is handed on, by what it is: shares, masks, masked and opened values.
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
mod words;

use zeroize::Zeroizing;

pub use words::{
    Answer, InputPad, Lanes, Mask, Masked, Online, Opened, Opening, OutputPad, Part, Published, Share, Words,
    kind,
};

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
