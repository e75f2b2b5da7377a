//! Arithmetic on words of wires, mod 2^width.

use crate::gates::Gates;

/// Bitwise XOR of two words of the same width.
pub fn xor<G: Gates>(gates: &mut G, a: &[G::Wire], b: &[G::Wire]) -> Vec<G::Wire> {
    a.iter().zip(b).map(|(&a, &b)| gates.xor(a, b)).collect()
}

/// Carry of a full adder with one AND: `maj(a, b, c) = c ^ ((a ^ c)(b ^ c))`.
fn majority<G: Gates>(gates: &mut G, a: G::Wire, b: G::Wire, c: G::Wire) -> G::Wire {
    let x = gates.xor(a, c);
    let y = gates.xor(b, c);
    let both = gates.and(x, y);
    gates.xor(c, both)
}

/// `a + b` mod `2^k` by a ripple of carries: `k - 1` AND. Depth costs nothing in garbling, so no
/// faster adder is worth its gates.
pub fn add<G: Gates>(gates: &mut G, a: &[G::Wire], b: &[G::Wire]) -> Vec<G::Wire> {
    let width = a.len().min(b.len());
    let mut carry = None;
    let mut sum = Vec::with_capacity(width);
    for (i, (&a, &b)) in a.iter().zip(b).enumerate() {
        let half = gates.xor(a, b);
        sum.push(match carry {
            None => half,
            Some(c) => gates.xor(half, c),
        });
        if i + 1 < width {
            carry = Some(match carry {
                None => gates.and(a, b),
                Some(c) => majority(gates, a, b, c),
            });
        }
    }
    sum
}

/// Sum of words of the same width, mod 2^width, from the left.
pub fn sum<G: Gates>(gates: &mut G, words: &[Vec<G::Wire>]) -> Vec<G::Wire> {
    let Some((first, rest)) = words.split_first() else { return Vec::new() };
    rest.iter().fold(first.clone(), |total, word| add(gates, &total, word))
}

/// `a - b` mod `2^κ`, `κ` the width of `b`; `a` is unsigned and may be shorter (zeros follow) or
/// longer (high bits do not matter). The borrow is `maj(¬a, b, borrow)`: `κ - 1` AND.
pub fn subtract_from_unsigned<G: Gates>(gates: &mut G, a: &[G::Wire], b: &[G::Wire]) -> Vec<G::Wire> {
    let mut borrow = None;
    let mut difference = Vec::with_capacity(b.len());
    for (i, &b_bit) in b.iter().enumerate() {
        let a_bit = a.get(i).copied();
        let half = match a_bit {
            Some(a) => gates.xor(a, b_bit),
            None => b_bit,
        };
        difference.push(match borrow {
            None => half,
            Some(c) => gates.xor(half, c),
        });
        if i + 1 == b.len() {
            break;
        }
        borrow = Some(match (a_bit, borrow) {
            (Some(a), None) => {
                let inverted = gates.not(a);
                gates.and(inverted, b_bit)
            }
            (Some(a), Some(c)) => {
                let inverted = gates.not(a);
                majority(gates, inverted, b_bit, c)
            }
            (None, None) => b_bit,
            // maj(1, b, c) = b | c
            (None, Some(c)) => {
                let both = gates.and(b_bit, c);
                let either = gates.xor(b_bit, c);
                gates.xor(either, both)
            }
        });
    }
    difference
}
