//! Every conversion against ideal correlations, and the ReLU's algebra, exhaustively where that is possible.

use chacha20::ChaCha20Rng;
use rand_core::{Rng as _, SeedableRng as _};
use zeroize::Zeroizing;

use super::chain::Chain;
use super::pads::{HashedWords, ReceiverPads, SenderPads};
use super::relu::{ReluShape, ReluShares};
use super::sum::SumOfBits;
use super::{Share, product};
use crate::slices::from_lanes;

fn low(width: u32) -> u32 {
    u32::MAX >> (32 - width)
}

fn random(count: usize, rng: &mut ChaCha20Rng) -> Vec<u32> {
    (0..count).map(|_| rng.next_u32()).collect()
}

/// Words of ideal correlated OTs: uniform for both choices at the sender, and the chosen ones. `bits` are planes, one
/// for each wire.
fn ideal(bits: &[u64], each: usize, lanes: usize, rng: &mut ChaCha20Rng) -> (SenderPads, ReceiverPads) {
    let words = lanes.div_ceil(64);
    let count = bits.len() / words * each * lanes;
    let (zero, one) = (random(count, rng), random(count, rng));
    let chosen = (0..count).map(|i| {
        let (wire, lane) = (i / (each * lanes), i % lanes);
        if super::bit(&bits[wire * words..], lane) == 0 { zero[i] } else { one[i] }
    });
    let [zero, one, chosen] =
        [zero.clone(), one.clone(), chosen.collect()].map(|words| HashedWords::ideal(words, each, lanes));
    (SenderPads::ideal(zero, one), ReceiverPads::ideal(chosen))
}

fn total(shares: &[&Share], lane: usize) -> u32 {
    shares.iter().fold(0, |sum, share| sum.wrapping_add(share.slice()[lane]))
}

/// All `2^servers` combinations of the servers' bits, one in each lane; by server one plane.
fn all_bits(servers: usize) -> Vec<Vec<u32>> {
    (0..servers).map(|s| (0..1u32 << servers).map(|lane| lane >> s & 1).collect()).collect()
}

#[test]
fn product_of_a_number_and_a_bit() {
    let rng = &mut ChaCha20Rng::seed_from_u64(1);
    for width in 1..=32 {
        let lanes = 100;
        let (a, bits) = (random(lanes, rng), random(lanes, rng).iter().map(|b| b & 1).collect::<Vec<_>>());
        let planes = from_lanes(&bits, 1);
        let (pads, chosen) = ideal(&planes, 1, lanes, rng);
        let (mut message, mut mine, mut theirs) = (Vec::new(), Share::zeros(lanes), Share::zeros(lanes));
        let number = Share::new(Zeroizing::new(a.clone()));
        product::send(&number, pads.get(0, 0), width, &mut message, 1, &mut mine);
        assert_eq!(message.len(), (lanes * width as usize).div_ceil(8), "one correction of w bits");
        product::receive(&planes, chosen.get(0, 0), width, &mut &message[..], &mut theirs);
        for lane in 0..lanes {
            let sum = total(&[&mine, &theirs], lane) & low(width);
            assert_eq!(sum, (a[lane] * bits[lane]) & low(width));
        }
    }
}

/// Every combination of bits, for 2 to 5 servers and all widths.
#[test]
fn xor_shared_bits_to_additive_shares() {
    let rng = &mut ChaCha20Rng::seed_from_u64(2);
    for servers in 2..=5 {
        for width in 1..=32 {
            let bits = all_bits(servers);
            let lanes = bits[0].len();
            let planes: Vec<Vec<u64>> = bits.iter().map(|bits| from_lanes(bits, 1)).collect();
            let mut all: Vec<SumOfBits> = (0..servers)
                .map(|s| SumOfBits::new(Zeroizing::new(planes[s].clone()), vec![width], lanes, s == 0))
                .collect();
            for joiner in 1..servers {
                let mut incoming = Vec::new();
                for earlier in all.iter_mut().take(joiner) {
                    let (pads, chosen) = ideal(&planes[joiner], 1, lanes, rng);
                    let mut message = Vec::new();
                    earlier.send(&pads, &mut message);
                    assert_eq!(message.len(), earlier.message_len());
                    incoming.push((chosen, message));
                }
                let mut from: Vec<_> = incoming.iter().map(|(pads, message)| (pads, &message[..])).collect();
                all[joiner].join(&mut from);
            }
            let shares: Vec<&Share> = all.iter().map(|sum| &sum.shares()[0]).collect();
            for lane in 0..lanes {
                let x = bits.iter().fold(0, |x, bits| x ^ bits[lane]);
                assert_eq!(total(&shares, lane) & low(width), x, "n = {servers}, width {width}");
            }
        }
    }
}

/// `λ·Y` for every combination of the garblers' bits and random `Y`, one of them without a share at the evaluator.
#[test]
fn products_of_a_shared_bit() {
    let rng = &mut ChaCha20Rng::seed_from_u64(3);
    for garblers in 1..=4 {
        for width in [1, 2, 7, 20, 31, 32] {
            let bits = all_bits(garblers);
            let lanes = bits[0].len();
            let words = lanes.div_ceil(64);
            let planes: Vec<Vec<u64>> = bits.iter().map(|bits| from_lanes(bits, 1)).collect();
            let y: Vec<[Share; 2]> = (0..=garblers)
                .map(|_| {
                    [random(lanes, rng), random(lanes, rng)].map(|words| Share::new(Zeroizing::new(words)))
                })
                .collect();
            let mut all: Vec<Chain> = (0..=garblers)
                .map(|s| {
                    let plane = planes.get(s).cloned().unwrap_or_else(|| vec![0; words]);
                    // The evaluator has the first number only.
                    let numbers = if s < garblers { 2 } else { 1 };
                    let numbers = y[s].iter().take(numbers).cloned().enumerate().collect();
                    Chain::new(Zeroizing::new(plane), numbers, width, lanes)
                })
                .collect();
            for joiner in 0..garblers {
                let mut incoming = Vec::new();
                for (s, other) in all.iter_mut().enumerate().filter(|&(s, _)| s != joiner) {
                    let (pads, chosen) = ideal(&planes[joiner], 2, lanes, rng);
                    let mut message = Vec::new();
                    other.send(&pads, &mut message);
                    let numbers = if s < garblers { 2 } else { 1 };
                    assert_eq!(message.len(), Chain::message_len(lanes, width, numbers));
                    incoming.push((chosen, message, numbers));
                }
                let mut from: Vec<_> = incoming.iter().map(|(p, m, n)| (p, &m[..], *n)).collect();
                all[joiner].join(&mut from);
            }
            let products: Vec<Vec<Share>> = all.into_iter().map(Chain::finish).collect();
            for number in 0..2 {
                let holders = if number == 0 { garblers + 1 } else { garblers };
                let of = |lane| total(&y[..holders].iter().map(|y| &y[number]).collect::<Vec<_>>(), lane);
                let shares: Vec<&Share> = products[..holders].iter().map(|p| &p[number]).collect();
                for lane in 0..lanes {
                    let x = bits.iter().fold(0, |x, bits| x ^ bits[lane]);
                    assert_eq!(total(&shares, lane) & low(width), (x * of(lane)) & low(width));
                }
            }
        }
    }
}

/// `max(0, z >> f) = t·(M - R' - b_f)` for every value, mask, shift, width of the next mask and masks of the bits.
#[test]
fn algebra_exhaustively() {
    for width in 2..=5u32 {
        for shift in 0..width {
            for mask_width in 1..=width + 3 {
                let shape = ReluShape { width, shift, mask_width };
                for z in 0..1u32 << width {
                    for rho in 0..1u32 << width {
                        algebra(shape, z, rho);
                    }
                }
            }
        }
    }
}

/// The same for all widths, at the edges of the ring and at random.
#[test]
fn algebra_at_all_widths() {
    let rng = &mut ChaCha20Rng::seed_from_u64(4);
    for width in 2..=32u32 {
        for shift in 0..width {
            for mask_width in [1, width.saturating_sub(shift).max(1), width, (width + 1).min(32), 32] {
                let shape = ReluShape { width, shift, mask_width };
                let half = 1 << (width - 1);
                for z in [0, 1, half - 1, half, half + 1, low(width), rng.next_u32() & low(width)] {
                    for rho in [0, 1, half, low(width), rng.next_u32() & low(width)] {
                        algebra(shape, z & low(width), rho);
                    }
                }
            }
        }
    }
}

fn algebra(shape: ReluShape, z: u32, rho: u32) {
    let ReluShape { width, shift, mask_width } = shape;
    let m = z.wrapping_add(rho) & low(width);
    let under = |bits: u32| if bits == 0 { 0 } else { low(bits) };
    let borrow_into = |bit: u32| u32::from(m & under(bit) < rho & under(bit));
    let top = rho >> (width - 1) & 1;
    let (u, b) = (top ^ borrow_into(width - 1), borrow_into(shift));
    let shifted = rho >> shift;
    let signed = ((z << (32 - width)) as i32) >> (32 - width);
    let expected = (signed >> shift).max(0) as u32 & low(mask_width);
    for masks in 0..4 {
        // Without a shift there is no borrow and no mask of one.
        let (sign_mask, borrow_mask) = (masks & 1, if shift > 0 { masks >> 1 } else { 0 });
        let of_top = if shape.has_top() { top } else { 0 };
        let shares = [
            sign_mask,
            borrow_mask,
            sign_mask * borrow_mask,
            shifted,
            of_top,
            sign_mask * shifted,
            sign_mask * of_top,
        ];
        let shares = ReluShares::new(shape, shares.map(|word| Share::new(Zeroizing::new(vec![word]))));
        let answer = shares.answer_at(0, m, u ^ sign_mask, b ^ borrow_mask);
        assert_eq!(answer & low(mask_width), expected, "{shape:?} z = {z}, ρ = {rho}, masks {masks}");
    }
}

#[test]
fn planes_are_bits_of_lanes() {
    use crate::slices::{plane_words, to_lanes};
    let rng = &mut ChaCha20Rng::seed_from_u64(6);
    for lanes in [0, 1, 31, 32, 33, 63, 64, 65, 200] {
        let values = random(lanes, rng);
        for width in [0, 1, 20, 31, 32, 40] {
            let planes = from_lanes(&values, width);
            let words = plane_words(lanes);
            assert_eq!(planes.len(), words * width.min(32));
            for (bit, plane) in planes.chunks(words.max(1)).enumerate() {
                let right = |lane| u64::from(values[lane] >> bit & 1) == plane[lane / 64] >> (lane % 64) & 1;
                assert!((0..lanes).all(right), "{lanes} lanes, bit {bit}");
                let after = plane.last().filter(|_| lanes % 64 > 0).map_or(0, |last| last >> (lanes % 64));
                assert_eq!(after, 0, "past the last lane");
            }
            let kept = u32::MAX.checked_shr(32 - width.min(32) as u32).unwrap_or(0);
            let back = to_lanes(&planes, lanes);
            assert_eq!(back.len(), lanes);
            assert!(back.iter().zip(&values).all(|(back, value)| *back == value & kept));
        }
    }
}

#[test]
fn packing() {
    use crate::slices::{pack, packed_len, unpack};
    let rng = &mut ChaCha20Rng::seed_from_u64(5);
    for count in [0, 1, 7, 8, 31, 32, 33, 100] {
        for width in 0..=32 {
            let values = random(count, rng);
            let mut bytes = Vec::new();
            pack(values.iter().copied(), width, &mut bytes);
            assert_eq!(bytes.len(), packed_len(count, width));
            bytes.push(7);
            let mut rest = &bytes[..];
            let got = unpack(&mut rest, width, count);
            assert_eq!(rest, [7]);
            let mask = if width == 0 { 0 } else { low(width) };
            assert!(got.iter().zip(&values).all(|(got, value)| *got == value & mask));
            assert_eq!(unpack(&mut &[][..], width, count).len(), count, "missing bytes are zeros");
        }
    }
}
