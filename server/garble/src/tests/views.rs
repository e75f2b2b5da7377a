//! What garblers draw and tell (section 5 of PROTOCOL.md).

use std::collections::HashSet;

use super::*;
use crate::batch::TILE;
use crate::convert::pads;
use crate::hash::Tweak;

/// Whole tiles, so that rows of choice bits have no padding.
const LANES: usize = 80 * TILE;

/// Plane number `row` of a garbler's choice bits, of which there are `rows`, stored tile by tile.
fn plane(choices: &[u64], rows: usize, row: usize) -> Vec<u64> {
    let words = TILE / 64;
    choices.chunks(rows * words).flat_map(|tile| tile[row * words..][..words].to_vec()).collect()
}

fn agreement(a: &[u64], b: &[u64]) -> f64 {
    let equal: u32 = a.iter().zip(b).map(|(a, b)| (a ^ b).count_zeros()).sum();
    f64::from(equal) / (a.len() * 64) as f64
}

/// Every choice bit is a fair coin, and no two wires or gates have the same: masks of inputs, masks of
/// ANDs, second choice bits.
#[test]
fn choice_bits_are_fair_and_independent() {
    let hash = FixedKey::new([4; 16]);
    for servers in [3, 4] {
        let shape = ReluShape { width: 6, shift: 2, mask_width: 6 };
        let run = prepare(shape, batch(shape, servers - 1, LANES), 31, &hash);
        let mut planes = Vec::new();
        for choices in &run.choices {
            let rows = run.batch.correlation_rows();
            assert_eq!(choices.len(), rows * LANES / 64);
            planes.extend((0..rows).map(|row| plane(choices, rows, row)));
        }
        assert!(planes.len() > 2 * run.batch.garblers * run.batch.program.ands);
        // Six standard deviations.
        let slack = 6.0 * 0.5 / (LANES as f64).sqrt();
        let zero = vec![0; LANES / 64];
        for (i, plane) in planes.iter().enumerate() {
            for (j, other) in planes[..i].iter().chain([&zero]).enumerate() {
                let rate = agreement(plane, other);
                assert!((rate - 0.5).abs() < slack, "n={servers}: rows {i} and {j} agree in {rate}");
            }
        }
    }
}

/// Whether every bit of the words is a fair coin over the lanes.
fn is_fair(words: impl Iterator<Item = u32>) -> bool {
    let (mut ones, mut count) = ([0u32; 32], 0u32);
    for word in words {
        (0..32).for_each(|bit| ones[bit] += word >> bit & 1);
        count += 1;
    }
    let slack = 7.0 * 0.5 * f64::from(count).sqrt();
    ones.iter().all(|&ones| (f64::from(ones) - f64::from(count) / 2.0).abs() < slack)
}

/// Every signed sum of a projection's pads is noise in all of its bits: no word serves two entries, and none is
/// narrower than an entry. So the differences of entries that stay closed show nothing.
#[test]
fn entries_of_a_projection_are_under_pads_of_their_own() {
    let hash = FixedKey::new([4; 16]);
    for servers in [2, 3] {
        let shape = ReluShape { width: 6, shift: 2, mask_width: 6 };
        let run = prepare(shape, batch(shape, servers - 1, LANES), 32, &hash);
        for pads in &run.projection {
            let entries: Vec<&[u32]> = pads.slice().chunks(LANES).collect();
            assert_eq!(entries.len(), 4);
            for combination in 1..81u32 {
                let factors: Vec<u32> =
                    (0..4).map(|entry| (combination / 3u32.pow(entry) % 3).wrapping_sub(1)).collect();
                if factors.iter().all(|&factor| factor == 0) {
                    continue;
                }
                let sum = |lane: usize| {
                    let terms = factors.iter().zip(&entries).map(|(f, entry)| f.wrapping_mul(entry[lane]));
                    terms.fold(0, u32::wrapping_add)
                };
                assert!(is_fair((0..LANES).map(sum)), "n={servers}: {factors:?}");
            }
        }
    }
}

/// The words of a hash are whole and independent: what is sent under one shows nothing of what is under another.
#[test]
fn words_of_a_hash_are_whole_and_independent() {
    let rng = &mut ChaCha20Rng::seed_from_u64(33);
    let blocks: Vec<Block> = (0..3 * LANES).map(|_| Block::random(rng)).collect();
    let row = pads::strided(&blocks, LANES);
    let tweak = |wire: usize, lane: u32| Tweak::convert_mask(2, wire, lane, 0, 1);
    let words = pads::words(&FixedKey::new([4; 16]), [3, pads::MASK_WORDS, LANES], Block::ZERO, row, tweak);
    let all: Vec<&[u32]> = (0..3)
        .flat_map(|wire| (0..pads::MASK_WORDS).map(move |word| (wire, word)))
        .map(|(wire, word)| words.get(wire, word))
        .collect();
    for (i, a) in all.iter().enumerate() {
        assert!(is_fair(a.iter().copied()), "{i}");
        for (j, b) in all[..i].iter().enumerate() {
            assert!(is_fair(a.iter().zip(*b).map(|(a, b)| a.wrapping_sub(*b))), "{i}, {j}");
        }
    }
}

/// Products of one hash take a word each.
#[test]
fn products_of_one_hash_take_words_of_their_own() {
    let mut words = crate::convert::relu::WORDS_OF_PRODUCTS.to_vec();
    words.sort_unstable();
    words.dedup();
    assert_eq!(words.len(), crate::convert::relu::WORDS_OF_PRODUCTS.len());
    // The first is the conversion's.
    assert!(words.iter().all(|word| (1..pads::MASK_WORDS).contains(word)));
}

/// Tweaks of the input step differ by bit, lane and ordered pair, and from those of all other domains.
#[test]
fn tweaks_of_the_input_do_not_repeat() {
    let mut seen = HashSet::new();
    for bit in 0..16 {
        for lane in 0..40 {
            for (from, to) in (0..4).flat_map(|from| (0..4).map(move |to| (from, to))).filter(|(a, b)| a != b)
            {
                assert!(seen.insert(Tweak::input(bit, lane, from, to).vector(0)), "{bit} {lane} {from} {to}");
                for other in [
                    Tweak::convert(0, bit, lane, from, to),
                    Tweak::convert_mask(0, bit, lane, from, to),
                    Tweak::cross(0, bit, lane, from, to),
                    Tweak::garble(0, bit, lane, from % 2, to),
                    Tweak::project(0, bit, lane, from),
                ] {
                    assert!(!seen.contains(&other.vector(0)));
                }
            }
        }
    }
}
