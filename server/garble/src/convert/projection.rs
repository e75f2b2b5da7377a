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

use seco_ot::{Block, Chunk, Delta, Engine, Kernel, LANES};
use zeroize::Zeroizing;

use super::choose::{TOGETHER, masks};
use super::pads::{strided, words};
use super::words::{Part, Words, kind};
use crate::batch::{Active, Batch, Labels, Zero};
use crate::bits::MaskedBits;
use crate::hash::{Hash, Tweak};
use crate::slices::{pack, packed_len, plane_words, unpack};

/// Words of a label's hash: for each value of the other output.
const WORDS: usize = 2;

/// A garbler's pads: by entry `û + 2b̂`, by lane.
pub type Pads = Words<kind::ProjectionPads>;

/// The evaluator's pads, of the entries that it opens.
pub type EntryPads = Words<kind::EntryPads>;

/// A garbler's [`Pads`], from both labels of its outputs.
pub fn garbler_pads(
    batch: &Batch,
    garbler: usize,
    labels: &Labels<Zero>,
    delta: &Delta,
    hash: &impl Hash,
) -> Pads {
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
    Pads::new(pads)
}

/// Which entries the evaluator opens: those of its masked outputs, by masks of their bits (all ones for 1).
pub struct Chosen {
    width: u32,
    /// By output, by lane.
    masks: Vec<Zeroizing<Vec<u32>>>,
    /// The same, packed as the entries of a message are.
    packed: Vec<Zeroizing<Vec<u8>>>,
}

impl Chosen {
    /// From the outputs' masked values, for entries of `width` bits.
    pub fn new(masked: &MaskedBits, outputs: usize, lanes: usize, width: u32) -> Self {
        let words = plane_words(lanes);
        let of_output = |output: usize| {
            let plane = masked.planes().get(output * words..).unwrap_or_default();
            let mut all = Zeroizing::new(vec![0; lanes]);
            let mut some = Zeroizing::new([0; TOGETHER]);
            for (number, all) in all.chunks_mut(TOGETHER).enumerate() {
                masks(plane, number * TOGETHER, &mut some);
                all.copy_from_slice(&some[..all.len()]);
            }
            all
        };
        let masks: Vec<_> = (0..outputs).map(of_output).collect();
        let packed = masks.iter().map(|masks| {
            let mut packed = Zeroizing::new(Vec::with_capacity(packed_len(lanes, width)));
            pack(masks.iter().copied(), width, &mut packed);
            packed
        });
        Self { width, packed: packed.collect(), masks }
    }
}

/// The evaluator's pads, from the active labels of one garbler's outputs.
pub fn evaluator_pads(
    batch: &Batch,
    garbler: usize,
    labels: &Labels<Active>,
    chosen: &Chosen,
    hash: &impl Hash,
) -> EntryPads {
    let Batch { lanes, step, first_lane, .. } = *batch;
    let mut pads = Zeroizing::new(vec![0; lanes]);
    for (output, labels) in labels.rows().chunks(batch.stride().max(1)).enumerate() {
        let tweak = Tweak::project(step, output, first_lane, garbler);
        // The words of one output are for the values of the other, if there is one.
        let others = chosen.masks.get(1 - output.min(1)).map_or(&[][..], |masks| masks);
        hash.run(ChosenWords { labels: labels.as_chunks().0, tweak, others, sums: &mut pads });
    }
    Words::of(pads)
}

/// Adds one of the first two words of the hashes of a row of labels: the second where a mask says so.
struct ChosenWords<'a> {
    labels: &'a [Chunk],
    tweak: Tweak,
    others: &'a [u32],
    sums: &'a mut [u32],
}

impl Kernel for ChosenWords<'_> {
    type Output = ();

    #[inline(always)]
    fn run<E: Engine>(self, engine: &E) {
        for ((c, labels), sums) in self.labels.iter().enumerate().zip(self.sums.chunks_mut(LANES)) {
            let p = engine.permute([engine.load(labels)]);
            let [hash] = engine.hash(p, [engine.tweaks(self.tweak.vector(c))]);
            let mut blocks = Zeroizing::new([Block::ZERO; LANES]);
            engine.store(hash, &mut blocks);
            let mut masks = Zeroizing::new([0; LANES]);
            masks.iter_mut().zip(self.others.get(c * LANES..).unwrap_or_default()).for_each(|(m, o)| *m = *o);
            let words = blocks.map(|block| [0, 1].map(|word| (block.0 >> (32 * word)) as u32));
            for ((sum, [zero, one]), mask) in sums.iter_mut().zip(words).zip(masks.iter()) {
                *sum = sum.wrapping_add(zero ^ (zero ^ one) & *mask);
            }
        }
    }
}

/// Bytes of a garbler's message for `entries` entries of `width` bits.
pub fn message_len(lanes: usize, entries: usize, width: u32) -> usize {
    entries * packed_len(lanes, width)
}

/// Appends a garbler's message: `answers` under `pads`, both by entry, by lane.
pub fn close(answers: &Words<kind::Entries>, pads: &Pads, lanes: usize, width: u32, message: &mut Vec<u8>) {
    for (answers, pads) in answers.slice().chunks(lanes.max(1)).zip(pads.slice().chunks(lanes.max(1))) {
        pack(answers.iter().zip(pads).map(|(answer, pad)| answer.wrapping_add(*pad)), width, message);
    }
}

/// The evaluator adds the entries that it opens, a garbler's part of `x - r`, to `sum`.
pub fn open(message: &[u8], chosen: &Chosen, pads: &EntryPads, sum: &mut Part<kind::Masked>) {
    let sum = sum.slice_mut();
    let length = packed_len(sum.len(), chosen.width);
    let entry = |entry: usize| message.get(entry * length..(entry + 1) * length).unwrap_or_default();
    // Chosen while all are packed, by masks that are packed alike, and without a jump.
    let select = |mask: &u8, zero: &u8, one: &u8| zero ^ (zero ^ one) & mask;
    let mut opened = Zeroizing::new(entry(0).to_vec());
    if let [u, rest @ ..] = &chosen.packed[..] {
        let of_sign = opened.iter_mut().zip(entry(1)).zip(u.iter());
        of_sign.for_each(|((opened, one), u)| *opened = select(u, opened, one));
        if let [b, ..] = rest {
            let of_borrow = opened.iter_mut().zip(entry(2)).zip(entry(3)).zip(u.iter().zip(b.iter()));
            of_borrow
                .for_each(|(((opened, e2), e3), (u, b))| *opened = select(b, opened, &select(u, e2, e3)));
        }
    }
    let opened = Zeroizing::new(unpack(&mut &opened[..], chosen.width, sum.len()));
    for ((sum, opened), pad) in sum.iter_mut().zip(opened.iter()).zip(pads.slice()) {
        *sum = sum.wrapping_add(opened.wrapping_sub(*pad));
    }
}
