//! Words from correlated OTs: `H(K, τ)` and `H(K ^ Δ, τ)` at the sender, `H(M, τ)` at the receiver, which is one of
//! the two. The hash has 128 bits, so it gives up to four words, each for one product ([`super::product`]).

use rayon::prelude::*;
use seco_ot::{Block, Chunk, Delta, Engine, Kernel, Keys, LANES, Macs};
use zeroize::Zeroizing;

use crate::batch::{Batch, TILE, Tile};
use crate::evaluator::Folding;
use crate::garbler::{Crossed, OutputCorrelations};
use crate::hash::{Hash, Tweak};

/// Words of a hash for several wires, all lanes.
pub(crate) struct HashedWords {
    each: usize,
    lanes: usize,
    /// By wire, by word, by lane.
    words: Zeroizing<Vec<u32>>,
}

impl HashedWords {
    /// One word of a wire for every lane.
    pub(crate) fn get(&self, wire: usize, word: usize) -> &[u32] {
        let start = (wire * self.each + word) * self.lanes;
        &self.words[start..start + self.lanes]
    }

    /// From words by wire, by word (`each` of them), by lane.
    #[cfg(test)]
    pub(crate) fn ideal(words: Vec<u32>, each: usize, lanes: usize) -> Self {
        Self { each, lanes, words: Zeroizing::new(words) }
    }
}

/// The sender's words for both choices: `H(K, τ)` and `H(K ^ Δ, τ)`.
pub struct SenderPads {
    zero: HashedWords,
    one: HashedWords,
}

/// The receiver's words: `H(M, τ)`.
pub struct ReceiverPads(HashedWords);

/// A sender's pads of one product.
#[derive(Clone, Copy)]
pub struct SenderPad<'a> {
    /// `h_0`, for choice 0.
    pub(super) zero: &'a [u32],
    /// `h_1`, for choice 1.
    pub(super) one: &'a [u32],
}

/// A receiver's pads of one product: `h_b`.
#[derive(Clone, Copy)]
pub struct ReceiverPad<'a>(pub(super) &'a [u32]);

impl SenderPads {
    #[cfg(test)]
    pub(crate) fn ideal(zero: HashedWords, one: HashedWords) -> Self {
        Self { zero, one }
    }

    /// One word of a wire for every lane.
    pub(crate) fn get(&self, wire: usize, word: usize) -> SenderPad<'_> {
        SenderPad { zero: self.zero.get(wire, word), one: self.one.get(wire, word) }
    }
}

impl ReceiverPads {
    #[cfg(test)]
    pub(crate) fn ideal(words: HashedWords) -> Self {
        Self(words)
    }

    /// One word of a wire for every lane.
    pub(crate) fn get(&self, wire: usize, word: usize) -> ReceiverPad<'_> {
        ReceiverPad(self.0.get(wire, word))
    }
}

/// The first words of the hashes of a row of blocks, XORed with `offset`.
struct HashWords<'a> {
    blocks: &'a [Chunk],
    offset: Block,
    tweak: Tweak,
    out: Vec<&'a mut [u32]>,
}

impl Kernel for HashWords<'_> {
    type Output = ();

    #[inline(always)]
    fn run<E: Engine>(mut self, engine: &E) {
        let offset = engine.splat(self.offset);
        for (c, chunk) in self.blocks.iter().enumerate() {
            let p = engine.permute([engine.xor(engine.load(chunk), offset)]);
            let [hash] = engine.hash(p, [engine.tweaks(self.tweak.vector(c))]);
            let mut blocks = [Block::ZERO; LANES];
            engine.store(hash, &mut blocks);
            for (word, out) in self.out.iter_mut().enumerate() {
                for (to, block) in out[c * LANES..].iter_mut().zip(&blocks) {
                    *to = (block.0 >> (32 * word)) as u32;
                }
            }
        }
    }
}

/// Hashes `wires` rows of blocks, `each` words of each. `row` gives a tile's part of a wire's row, padded to whole
/// vectors; `tweak` that of a wire and a first lane.
pub(crate) fn words<'a>(
    hash: &impl Hash,
    [wires, each, lanes]: [usize; 3],
    offset: Block,
    row: impl Fn(usize, Tile) -> &'a [Chunk] + Sync,
    tweak: impl Fn(usize, u32) -> Tweak + Sync,
) -> HashedWords {
    let mut words = Zeroizing::new(vec![0u32; wires * each * lanes]);
    words.par_chunks_mut((each * lanes).max(1)).enumerate().for_each(|(wire, out)| {
        let mut out: Vec<&mut [u32]> = out.chunks_mut(lanes.max(1)).collect();
        for start in (0..lanes).step_by(TILE) {
            let tile = Tile { start, width: TILE.min(lanes - start) };
            let blocks = &row(wire, tile)[..tile.width.div_ceil(LANES)];
            let parts = out.iter_mut().map(|out| &mut out[start..start + tile.width]).collect();
            hash.run(HashWords { blocks, offset, tweak: tweak(wire, start as u32), out: parts });
        }
    });
    HashedWords { each, lanes, words }
}

/// A tile's part of row `wire` of rows of `stride` blocks.
pub(crate) fn strided<'a>(blocks: &'a [Block], stride: usize) -> impl Fn(usize, Tile) -> &'a [Chunk] + Sync {
    move |wire, tile| {
        let start = wire * stride + tile.start;
        blocks[start..start + tile.padded()].as_chunks().0
    }
}

/// A sender's words, from rows of its keys.
fn sender<'a>(
    hash: &impl Hash,
    shape: [usize; 3],
    delta: &Delta,
    keys: impl Fn(usize, Tile) -> &'a [Chunk] + Sync,
    tweak: impl Fn(usize, u32) -> Tweak + Sync,
) -> SenderPads {
    let zero = words(hash, shape, Block::ZERO, &keys, &tweak);
    SenderPads { zero, one: words(hash, shape, delta.block(), keys, tweak) }
}

/// The same for keys in rows of `stride`.
pub(crate) fn sender_of(
    hash: &impl Hash,
    shape: [usize; 3],
    delta: &Delta,
    (keys, stride): (&Keys, usize),
    tweak: impl Fn(usize, u32) -> Tweak + Sync,
) -> SenderPads {
    sender(hash, shape, delta, strided(keys.blocks(), stride), tweak)
}

/// A receiver's words, from rows of its MACs.
fn receiver<'a>(
    hash: &impl Hash,
    shape: [usize; 3],
    macs: impl Fn(usize, Tile) -> &'a [Chunk] + Sync,
    tweak: impl Fn(usize, u32) -> Tweak + Sync,
) -> ReceiverPads {
    ReceiverPads(words(hash, shape, Block::ZERO, macs, tweak))
}

/// The same for MACs in rows of `stride`.
pub(crate) fn receiver_of(
    hash: &impl Hash,
    shape: [usize; 3],
    (macs, stride): (&Macs, usize),
    tweak: impl Fn(usize, u32) -> Tweak + Sync,
) -> ReceiverPads {
    receiver(hash, shape, strided(macs.blocks(), stride), tweak)
}

/// Words of one output's mask: for its conversion (0) and for three products of a chain.
pub(crate) const MASK_WORDS: usize = 4;

/// One server's pads in a step's conversions, by seat; none at its own seat and where it is on the other side.
pub struct SeatPads {
    /// Towards later seats, for the bits of `ρ`: one word for each.
    pub(super) rho_to: Vec<Option<SenderPads>>,
    /// From earlier seats.
    pub(super) rho_from: Vec<Option<ReceiverPads>>,
    /// Towards every garbler, for its shares of the outputs' masks: four words of each output; the evaluator, of
    /// output 0 alone.
    pub(super) masks_to: Vec<Option<SenderPads>>,
    /// At a garbler, from every other seat.
    pub(super) masks_from: Vec<Option<ReceiverPads>>,
}

impl SeatPads {
    fn none(seats: usize) -> Self {
        Self {
            rho_to: (0..seats).map(|_| None).collect(),
            rho_from: (0..seats).map(|_| None).collect(),
            masks_to: (0..seats).map(|_| None).collect(),
            masks_from: (0..seats).map(|_| None).collect(),
        }
    }

    /// A garbler's. `outputs` are its correlations with the other garblers for the outputs' masks, `reverse` its MACs
    /// towards the evaluator for output 0.
    pub fn garbler(
        crossed: &Crossed,
        outputs: &OutputCorrelations,
        reverse: &Macs,
        delta: &Delta,
        hash: &impl Hash,
    ) -> Self {
        let (batch, me) = (crossed.batch(), crossed.position());
        let Batch { garblers: evaluator, lanes, step, first_lane, .. } = *batch;
        let (stride, wires, masks) = (batch.stride(), batch.random_wires(), batch.program.outputs.len());
        let mut pads = Self::none(evaluator + 1);
        for other in (0..evaluator).filter(|&other| other != me) {
            let tweak = |from, to| {
                move |wire: usize, lane: u32| Tweak::convert(step, wire, first_lane + lane, from, to)
            };
            let mask_tweak = |from, to| {
                move |output: usize, lane: u32| Tweak::convert_mask(step, output, first_lane + lane, from, to)
            };
            if other > me {
                let keys = |wire, tile| crossed.key_row(other, wire, tile);
                pads.rho_to[other] = Some(sender(hash, [wires, 1, lanes], delta, keys, tweak(me, other)));
            } else {
                let macs = |wire, tile| crossed.mac_row(other, wire, tile);
                pads.rho_from[other] = Some(receiver(hash, [wires, 1, lanes], macs, tweak(other, me)));
            }
            let shape = [masks, MASK_WORDS, lanes];
            let (keys, macs) = ((outputs.keys(other), stride), (outputs.macs(other), stride));
            pads.masks_to[other] = Some(sender_of(hash, shape, delta, keys, mask_tweak(me, other)));
            pads.masks_from[other] = Some(receiver_of(hash, shape, macs, mask_tweak(other, me)));
        }
        let tweak = |wire: usize, lane: u32| Tweak::convert(step, wire, first_lane + lane, me, evaluator);
        let keys = (crossed.evaluator_keys(), stride);
        pads.rho_to[evaluator] = Some(sender_of(hash, [wires, 1, lanes], delta, keys, tweak));
        let tweak =
            |output: usize, lane: u32| Tweak::convert_mask(step, output, first_lane + lane, evaluator, me);
        let shape = [1, MASK_WORDS, lanes];
        pads.masks_from[evaluator] = Some(receiver_of(hash, shape, (reverse, stride), tweak));
        pads
    }

    /// The evaluator's. `keys` are those towards each garbler for output 0, under the evaluator's own `delta`.
    pub fn evaluator(folding: &Folding, keys: &[Keys], delta: &Delta, hash: &impl Hash) -> Self {
        let (batch, macs) = (folding.batch(), folding.macs());
        let Batch { garblers: me, lanes, step, first_lane, .. } = *batch;
        let (stride, wires) = (batch.stride(), batch.random_wires());
        let mut pads = Self::none(me + 1);
        for (garbler, (macs, keys)) in macs.iter().zip(keys).enumerate() {
            let tweak = |wire: usize, lane: u32| Tweak::convert(step, wire, first_lane + lane, garbler, me);
            pads.rho_from[garbler] = Some(receiver_of(hash, [wires, 1, lanes], (macs, stride), tweak));
            let tweak =
                |output: usize, lane: u32| Tweak::convert_mask(step, output, first_lane + lane, me, garbler);
            let shape = [1, MASK_WORDS, lanes];
            pads.masks_to[garbler] = Some(sender_of(hash, shape, delta, (keys, stride), tweak));
        }
        pads
    }
}
