//! The circuits of `protocol.md` section 5, written once over [`Gates`].
//!
//! Words are slices of wires, least significant bit first, two's complement.

mod spec;
mod word;

pub use spec::{Circuit, Spec};

use crate::gates::Gates;

/// ReLU with truncation and masking.
///
/// `shares` are the words (all of the same width `k`) whose sum mod `2^k` is the accumulator; those
/// known ahead should come first, so that their sum needs no online value. Returns
/// `relu(sum >> shift) - Σ masks` mod `2^κ`, where `κ` is the masks' width.
/// `(shares + masks - 1)(k - 1) + (k - shift - 1)` AND for `κ = k`.
pub fn relu<G: Gates>(
    gates: &mut G,
    shares: &[Vec<G::Wire>],
    masks: &[Vec<G::Wire>],
    shift: usize,
) -> Vec<G::Wire> {
    let sum = word::sum(gates, shares);
    let shifted = sum.get(shift..).unwrap_or(&[]);
    let Some((&sign, magnitude)) = shifted.split_last() else { return Vec::new() };
    let positive = gates.not(sign);
    let rectified: Vec<_> = magnitude.iter().map(|&bit| gates.and(bit, positive)).collect();
    let mask = word::sum(gates, masks);
    word::subtract_from_unsigned(gates, &rectified, &mask)
}

/// The device's input under new masks: `x = folded ^ random`, an unsigned word, minus `Σ masks`
/// mod `2^κ`. `masks · (κ - 1)` AND.
pub fn input<G: Gates>(
    gates: &mut G,
    folded: &[G::Wire],
    random: &[G::Wire],
    masks: &[Vec<G::Wire>],
) -> Vec<G::Wire> {
    let mask = word::sum(gates, masks);
    let x = word::xor(gates, folded, random);
    word::subtract_from_unsigned(gates, &x, &mask)
}

#[cfg(test)]
mod tests;
