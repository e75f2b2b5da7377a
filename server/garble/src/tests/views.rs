//! What a coalition of the evaluator and all garblers but one has in its full view: every message
//! that its members sent and received, their choice bits, offsets and seeds (`protocol.md` section 5).

use core::convert::Infallible;

use rand_core::{TryCryptoRng, TryRng};

use super::collusion::{circuit, clear_output_masks};
use super::*;
use crate::batch::TILE;

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

fn bit(plane: &[u64], lane: usize) -> bool {
    plane[lane / 64] >> (lane % 64) & 1 == 1
}

/// Every choice bit is a fair coin, and no two wires or gates have the same: masks of inputs, masks of
/// ANDs, second choice bits.
#[test]
fn choice_bits_are_fair_and_independent() {
    let hash = FixedKey::new([4; 16]);
    for servers in [3, 4] {
        let spec = Spec::Relu { width: 6, shift: 2, mask_width: 6, holders: vec![0, servers - 1] };
        let run = prepare(&spec, servers, 1, LANES, 31, &hash);
        let mut planes = Vec::new();
        for (position, choices) in run.choices.iter().enumerate() {
            let rows = run.batch.correlation_rows(position);
            assert_eq!(choices.len(), rows * LANES / 64);
            planes.extend((0..rows).map(|row| plane(choices, rows, row)));
        }
        assert!(planes.len() > 2 * run.batch.garblers() * run.batch.circuit.program.ands);
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

/// The attack on corrections: who knows all `ρ^j` of `a = v & s` and sees `ẑ` reads `s` wherever `ẑ_v`
/// is 1, for `ρ = ẑ_a ^ ẑ_v·s` there (`ẑ_s` is 0, as `s` is known ahead to its garbler). The coalition
/// knows its own `ρ^j`, and of the honest garbler's a correction, under the second choice bit.
#[test]
fn corrections_tell_nothing_of_a_wire() {
    let hash = FixedKey::new([4; 16]);
    for servers in [3, 4] {
        let batch = Batch {
            circuit: Arc::new(circuit(servers, 0, Mask::One(0))),
            lanes: LANES,
            layer: 0,
            first_lane: 0,
        };
        let run = prepare_batch(batch, 29, &hash, |batch, _, tables| clear_output_masks(batch, tables));
        let (ands, garblers) = (run.batch.circuit.program.ands, run.batch.garblers());
        let online = words(LANES, 1, &mut ChaCha20Rng::seed_from_u64(5));
        let masked = run.garblers[0].mask(&online).unwrap();
        let secret = run.ahead[0][0].clone();
        // The first AND's part of a message of one plane for each AND.
        let correction = |i: usize| -> Vec<u64> {
            let plane = &run.corrections[i][..LANES / 8];
            plane.as_chunks().0.iter().map(|bytes| u64::from_le_bytes(*bytes)).collect()
        };
        let mut rho = correction(0);
        for i in 1..garblers {
            let rows = run.batch.correlation_rows(i);
            let second = plane(&run.choices[i], rows, rows - ands);
            for ((rho, d), second) in rho.iter_mut().zip(correction(i)).zip(second) {
                *rho ^= d ^ second;
            }
        }
        let honest =
            plane(&run.choices[0], run.batch.correlation_rows(0), run.batch.correlation_rows(0) - ands);
        let wires = finish(run, &[online], &hash);
        let open: Vec<usize> = (0..LANES).filter(|&lane| bit(&masked, lane)).collect();
        let rate = |rho: &[u64]| {
            // Output 2 of the circuit is `a`, without any mask taken off: `ẑ_a`.
            let right = open
                .iter()
                .filter(|&&lane| (wires[lane] >> 2 & 1 == 1) ^ bit(rho, lane) == (secret[lane] == 1));
            right.count() as f64 / open.len() as f64
        };
        let guessed = rate(&rho);
        assert!((0.48..=0.52).contains(&guessed), "n={servers}: {guessed}");
        // The attack works where the honest garbler's second choice bits are known.
        rho.iter_mut().zip(&honest).for_each(|(rho, second)| *rho ^= second);
        assert!(rate(&rho) == 1.0, "n={servers}");
    }
}

/// A generator whose first 16 bytes are the same whatever its seed.
struct Forked {
    same: ChaCha20Rng,
    own: ChaCha20Rng,
    left: usize,
}

impl TryRng for Forked {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        let mut bytes = [0; 4];
        self.try_fill_bytes(&mut bytes).map(|()| u32::from_le_bytes(bytes))
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        let mut bytes = [0; 8];
        self.try_fill_bytes(&mut bytes).map(|()| u64::from_le_bytes(bytes))
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Infallible> {
        let (first, rest) = bytes.split_at_mut(self.left.min(bytes.len()));
        self.left -= first.len();
        self.same.fill_bytes(first);
        self.own.fill_bytes(rest);
        Ok(())
    }
}

impl TryCryptoRng for Forked {}

/// The evaluator has the seed of the labels known ahead. Labels of online inputs do not follow from it,
/// nor from anything else but a draw of their own: with the zero label of a wire whose active label it
/// gets, the evaluator would have `Δ`. Two runs differ in that draw alone.
#[test]
fn online_labels_do_not_follow_from_the_seed_that_the_evaluator_has() {
    let hash = FixedKey::new([4; 16]);
    let spec = Spec::Relu { width: 9, shift: 3, mask_width: 9, holders: vec![0] };
    let circuit = Arc::new(Circuit::compile(&spec, 2, 1));
    let batch = Batch { circuit, lanes: 64, layer: 1, first_lane: 0 };
    let run = |own: u64| {
        let mut rng = ChaCha20Rng::seed_from_u64(1);
        let delta = Delta::random(&mut rng);
        let ahead = words(64, 9, &mut rng);
        let garbler = Garbler::new(batch.clone(), 0, &[&ahead], &mut rng).unwrap();
        let labels: Vec<Block> =
            (0..batch.evaluator_correlations()).map(|_| Block::random(&mut rng)).collect();
        let none = || vec![Zeroizing::new(Vec::new())];
        let correlated = garbler.correlate(none(), none(), Zeroizing::new(labels)).unwrap();
        let (corrected, _) = correlated.cross(&delta, &hash).0.correct(&[]).unwrap();
        let mut forked =
            Forked { same: ChaCha20Rng::seed_from_u64(2), own: ChaCha20Rng::seed_from_u64(own), left: 16 };
        let (online, tables) = corrected.garble(&delta, &[], &hash, &mut forked, Vec::new()).unwrap();
        let labels = online.labels(&delta, &vec![0; batch.online_inputs()]).unwrap();
        (tables, labels)
    };
    let ((tables, labels), (other_tables, other_labels)) = (run(3), run(4));
    assert_eq!(tables[..16], other_tables[..16], "the seed of the labels known ahead is drawn first");
    assert_eq!(labels.len(), 64 * 9 * 16);
    let pairs = labels.as_chunks::<16>().0.iter().zip(other_labels.as_chunks::<16>().0);
    assert_eq!(pairs.filter(|(a, b)| a == b).count(), 0);
    assert!(run(3).1 == labels, "all else is the same");
}
