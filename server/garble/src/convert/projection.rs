//! Projection: a share that depends on masked outputs leaves under their labels.
//!
//! Garbler `j` has a share `s(û, b̂)` of the answer for each of the four values of the masked outputs. It sends, for
//! each, `s(x, y) - r^j + H(L^j_{u,x}, τ)[y] + H(L^j_{b,y}, τ')[x]` mod `2^κ`, where `[0]` and `[1]` are two words of the
//! hash. The evaluator has the labels of `(û, b̂)` and opens that entry.
//!
//! *Why it is safe.* Of each other entry it lacks a pad of its own: `(1-û, b̂)` and `(û, 1-b̂)` are under a word of a
//! hash of an inactive label, or under the other word of an active one together with an inactive one; and of
//! `(1-û, 1-b̂)` it lacks both. Word `[y]` of `H(L_{u,x})` occurs in entry `(x, y)` alone, and so does word `[x]` of
//! `H(L_{b,y})`: no pad is used twice. What it opens is uniform by `r^j`.

use seco_ot::{Block, Delta};
use zeroize::Zeroizing;

use super::choose::add_where;
use super::pads::{strided, words};
use crate::batch::{Batch, OutputLabels};
use crate::hash::{Hash, Tweak};
use crate::slices::{pack, packed_len, unpack};

/// Words of a label's hash: for each value of the other output.
const WORDS: usize = 2;

/// A garbler's pads: by entry `û + 2b̂`, by lane.
pub fn garbler_pads(
    batch: &Batch,
    garbler: usize,
    labels: &OutputLabels,
    delta: &Delta,
    hash: &impl Hash,
) -> Zeroizing<Vec<u32>> {
    let Batch { lanes, step, first_lane, .. } = *batch;
    let outputs = batch.program.outputs.len();
    let tweak = |output: usize, lane: u32| Tweak::project(step, output, first_lane + lane, garbler);
    let rows = strided(labels.rows(), batch.stride());
    let of =
        [Block::ZERO, delta.block()].map(|offset| words(hash, [outputs, WORDS, lanes], offset, &rows, tweak));
    let mut pads = Zeroizing::new(vec![0u32; lanes << outputs]);
    for (entry, pads) in pads.chunks_mut(lanes.max(1)).enumerate() {
        let (u, b) = (entry & 1, entry >> 1);
        pads.copy_from_slice(of[u].get(0, b));
        if outputs > 1 {
            pads.iter_mut().zip(of[b].get(1, u)).for_each(|(pad, word)| *pad = pad.wrapping_add(*word));
        }
    }
    pads
}

/// The evaluator's pads, of the entries that it opens. `masked` are the planes of the outputs' masked values.
pub fn evaluator_pads(
    batch: &Batch,
    garbler: usize,
    labels: &OutputLabels,
    masked: &[u64],
    hash: &impl Hash,
) -> Zeroizing<Vec<u32>> {
    let Batch { lanes, step, first_lane, .. } = *batch;
    let outputs = batch.program.outputs.len();
    let tweak = |output: usize, lane: u32| Tweak::project(step, output, first_lane + lane, garbler);
    let rows = strided(labels.rows(), batch.stride());
    let of = words(hash, [outputs, WORDS, lanes], Block::ZERO, rows, tweak);
    let (u, b) = masked.split_at(batch.words().min(masked.len()));
    let mut pads = Zeroizing::new(of.get(0, 0).to_vec());
    if outputs > 1 {
        pads.iter_mut().zip(of.get(1, 0)).for_each(|(sum, word)| *sum = sum.wrapping_add(*word));
        // The masked values are the evaluator's alone: the words are chosen without a jump.
        for (output, other) in [(0, b), (1, u)] {
            let more =
                of.get(output, 1).iter().zip(of.get(output, 0)).map(|(one, zero)| one.wrapping_sub(*zero));
            add_where(other, &Zeroizing::new(more.collect::<Vec<_>>()), &mut pads);
        }
    }
    pads
}

/// Bytes of a garbler's message for `entries` entries of `width` bits.
pub fn message_len(lanes: usize, entries: usize, width: u32) -> usize {
    entries * packed_len(lanes, width)
}

/// A garbler's message: `answers` under `pads`, both by entry, by lane.
pub fn close(answers: &[u32], pads: &[u32], lanes: usize, width: u32) -> Vec<u8> {
    let mut message = Vec::with_capacity(answers.len() * width as usize / 8 + 8);
    for (answers, pads) in answers.chunks(lanes.max(1)).zip(pads.chunks(lanes.max(1))) {
        pack(answers.iter().zip(pads).map(|(answer, pad)| answer.wrapping_add(*pad)), width, &mut message);
    }
    message
}

/// The evaluator adds the entries that it opens to `sum`: `masked` as in [`evaluator_pads`].
pub fn open(mut message: &[u8], masked: &[u64], outputs: usize, pads: &[u32], width: u32, sum: &mut [u32]) {
    let lanes = sum.len();
    let (u, b) = masked.split_at(lanes.div_ceil(64).min(masked.len()));
    sum.iter_mut().zip(pads).for_each(|(sum, pad)| *sum = sum.wrapping_sub(*pad));
    // By bits of `u` and `b`, without a jump: `e_00 + u(e_10 - e_00) + b(e_01 - e_00) + ub(e_11 - e_10 - e_01 + e_00)`.
    let both = Zeroizing::new(u.iter().zip(b).map(|(u, b)| u & b).collect::<Vec<u64>>());
    let everywhere = vec![u64::MAX; u.len()];
    let mut entries: Vec<Vec<u32>> = (0..1 << outputs).map(|_| unpack(&mut message, width, lanes)).collect();
    // Differences along the one bit, then along the other.
    for distance in (0..outputs).map(|output| 1 << output) {
        for entry in (0..entries.len()).filter(|entry| entry & distance != 0) {
            let (lower, upper) = entries.split_at_mut(entry);
            let less = &lower[entry - distance];
            upper[0].iter_mut().zip(less).for_each(|(entry, less)| *entry = entry.wrapping_sub(*less));
        }
    }
    for (plane, entry) in [everywhere.as_slice(), u, b, &both].into_iter().zip(&entries) {
        add_where(plane, entry, sum);
    }
}
