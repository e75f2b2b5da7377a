use super::*;
use crate::gates::{Clear, Count};

/// All pairs of words of `width` bits, in planes of 64 lanes.
fn all_pairs(width: usize) -> Vec<[Vec<u64>; 2]> {
    let pairs: Vec<[u32; 2]> =
        (0..1u32 << width).flat_map(|a| (0..1u32 << width).map(move |b| [a, b])).collect();
    let planes = |lanes: &[[u32; 2]], which: usize| {
        (0..width)
            .map(|bit| {
                let set = |(lane, words): (usize, &[u32; 2])| u64::from(words[which] >> bit & 1) << lane;
                lanes.iter().enumerate().map(set).sum()
            })
            .collect()
    };
    pairs.chunks(64).map(|lanes| [planes(lanes, 0), planes(lanes, 1)]).collect()
}

/// The same, lane by lane in clear.
fn lanes(width: usize, chunk: usize) -> impl Iterator<Item = (usize, u32, u32)> {
    let total = 1usize << (2 * width);
    (0..64).filter(move |lane| chunk * 64 + lane < total).map(move |lane| {
        let index = (chunk * 64 + lane) as u32;
        (lane, index >> width, index & ((1 << width) - 1))
    })
}

fn signed(value: u32, width: usize) -> i32 {
    ((value << (32 - width)) as i32) >> (32 - width)
}

#[test]
fn comparisons_and_selections_exhaustively() {
    for width in 1..=5 {
        for (chunk, [a, b]) in all_pairs(width).iter().enumerate() {
            let unsigned = less(&mut Clear, a, b).unwrap();
            let by_sign = less_signed(&mut Clear, a, b).unwrap();
            let smaller = select(&mut Clear, unsigned, a, b);
            let kept = keep(&mut Clear, by_sign, a);
            for (lane, x, y) in lanes(width, chunk) {
                let word = |planes: &[u64]| {
                    planes.iter().enumerate().map(|(i, p)| ((p >> lane & 1) as u32) << i).sum::<u32>()
                };
                assert_eq!(unsigned >> lane & 1 == 1, x < y, "{x} < {y}");
                assert_eq!(
                    by_sign >> lane & 1 == 1,
                    signed(x, width) < signed(y, width),
                    "{x} < {y}, signed"
                );
                assert_eq!(word(&smaller), x.min(y));
                assert_eq!(word(&kept), if signed(x, width) < signed(y, width) { x } else { 0 });
            }
        }
    }
}

/// The bits of a ReLU for every value, mask and shift: `u` gives the sign of `z`, `b_f` the borrow into bit `f`.
#[test]
fn relu_bits_exhaustively() {
    for width in 2..=5 {
        for shift in 0..width {
            for (chunk, [m, rho]) in all_pairs(width).iter().enumerate() {
                let (u, borrow) = relu(&mut Clear, &m[..width - 1], rho, shift).unwrap();
                assert_eq!(borrow.is_some(), shift > 0);
                for (lane, m, rho) in lanes(width, chunk) {
                    let z = m.wrapping_sub(rho) & ((1 << width) - 1);
                    let not_negative = (u >> lane ^ u64::from(m >> (width - 1)) ^ 1) & 1 == 1;
                    assert_eq!(not_negative, signed(z, width) >= 0);
                    if let Some(borrow) = borrow {
                        let low = (1 << shift) - 1;
                        assert_eq!(borrow >> lane & 1 == 1, m & low < rho & low);
                    }
                }
            }
        }
    }
}

/// `k - 1` AND for every width and shift; the first has a public operand and no cross terms.
#[test]
fn relu_gate_counts() {
    for width in 2..=32 {
        for shift in 0..width {
            let program = relu_program(width, shift);
            assert_eq!(program.ands, width - 1);
            assert_eq!(program.crossed, (1..width - 1).collect::<Vec<_>>());
            assert_eq!(program.outputs.len(), 1 + usize::from(shift > 0));
            assert!(program.slots <= 8, "{} slots", program.slots);
            let mut count = Count::default();
            relu(&mut count, &vec![(); width - 1], &vec![(); width], shift);
            assert_eq!(count.ands, width - 1);
        }
    }
}
