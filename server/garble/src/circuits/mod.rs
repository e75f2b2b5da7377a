//! Gadgets on words of wires, written once over [`Gates`] (sections 5 and 6 of PROTOCOL.md).
//!
//! Words are slices of wires, least significant bit first, two's complement.

use crate::gates::Gates;
use crate::program::{Compiler, Program, Source};

/// `maj(a, b, c) = c ^ ((a ^ c)(b ^ c))`: one AND.
fn majority<G: Gates>(gates: &mut G, a: G::Wire, b: G::Wire, c: G::Wire) -> G::Wire {
    let x = gates.xor(a, c);
    let y = gates.xor(b, c);
    let both = gates.and(x, y);
    gates.xor(c, both)
}

/// Borrows `b_1 … b_w` of `a - b` for words of `w` bits: `b_0 = 0`, `b_{i+1} = maj(¬a_i, b_i, borrow_i)`. `w` AND.
pub fn borrows<G: Gates>(gates: &mut G, a: &[G::Wire], b: &[G::Wire]) -> Vec<G::Wire> {
    let mut borrows: Vec<G::Wire> = Vec::with_capacity(a.len());
    for (&a, &b) in a.iter().zip(b) {
        let inverted = gates.not(a);
        let next = match borrows.last() {
            None => gates.and(inverted, b),
            Some(&borrow) => majority(gates, inverted, b, borrow),
        };
        borrows.push(next);
    }
    borrows
}

/// The bits of a ReLU: `u = ρ_{k-1} ^ b_{k-1}`, of which `t = ¬(m_{k-1} ^ u)` says whether `z = m - ρ` is not
/// negative, and for a shift `f > 0` the borrow `b_f`. `m` are the low `k - 1` wires of the public word, `rho` all
/// `k` of the random one. `k - 1` AND.
///
/// The public `m_{k-1}` is no wire: who knows `û` and `m` knows `t̂`, and the labels of `u` are those of `t`, in
/// this order or the other. That saves its labels.
pub fn relu<G: Gates>(
    gates: &mut G,
    m: &[G::Wire],
    rho: &[G::Wire],
    shift: usize,
) -> Option<(G::Wire, Option<G::Wire>)> {
    let (&top, low) = rho.split_last()?;
    let borrows = borrows(gates, m, low);
    let &last = borrows.last()?;
    let sign = gates.xor(top, last);
    Some((sign, shift.checked_sub(1).and_then(|index| borrows.get(index).copied())))
}

/// Whether `a < b`, unsigned words of the same width. `w` AND.
pub fn less<G: Gates>(gates: &mut G, a: &[G::Wire], b: &[G::Wire]) -> Option<G::Wire> {
    borrows(gates, a, b).last().copied()
}

/// Whether `a < b` in two's complement: the top bits change places. `w` AND.
pub fn less_signed<G: Gates>(gates: &mut G, a: &[G::Wire], b: &[G::Wire]) -> Option<G::Wire> {
    let (mut left, mut right) = (a.to_vec(), b.to_vec());
    if let (Some(x), Some(y)) = (left.last_mut(), right.last_mut()) {
        std::mem::swap(x, y);
    }
    less(gates, &left, &right)
}

/// `a` where `condition`, else `b`: one AND a bit.
pub fn select<G: Gates>(gates: &mut G, condition: G::Wire, a: &[G::Wire], b: &[G::Wire]) -> Vec<G::Wire> {
    let one = |(&a, &b): (&G::Wire, &G::Wire)| {
        let difference = gates.xor(a, b);
        let change = gates.and(difference, condition);
        gates.xor(b, change)
    };
    a.iter().zip(b).map(one).collect()
}

/// A word where `condition`, else 0 (a ReLU's sign mask): one AND a bit.
pub fn keep<G: Gates>(gates: &mut G, condition: G::Wire, a: &[G::Wire]) -> Vec<G::Wire> {
    a.iter().map(|&bit| gates.and(bit, condition)).collect()
}

/// The program of a ReLU of `width` bits with a floor shift. Its ports: the low `width - 1` bits of `m` (public),
/// `ρ` (random); its outputs: `u` and, for `shift > 0`, `b_f`. `2 <= width <= 32`, `shift < width`.
pub fn relu_program(width: usize, shift: usize) -> Program {
    let mut compiler = Compiler::default();
    let m = compiler.word(Source::Public, width.saturating_sub(1));
    let rho = compiler.word(Source::Random, width);
    let outputs = relu(&mut compiler, &m, &rho, shift);
    let outputs: Vec<_> =
        outputs.into_iter().flat_map(|(sign, borrow)| [Some(sign), borrow]).flatten().collect();
    compiler.finish(&outputs)
}

#[cfg(test)]
mod tests;
