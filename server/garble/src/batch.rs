//! What garbler and evaluator of one batch share: shape, numbering of wires, tiles of lanes.

use std::sync::Arc;

use seco_ot::{Block, Chunk, Engine, LANES};

use crate::circuits::Circuit;
use crate::program::{Mask, Source};
use crate::slices::plane_words;

/// Lanes garbled together: large enough for the AES pipeline, small enough that all slots of a ReLU
/// stay in the second-level cache (a multiple of 64).
pub const TILE: usize = 128;

/// Garblers of the largest cluster.
pub(crate) const MAX_GARBLERS: usize = 7;

/// One batch: `lanes` instances of a circuit.
#[derive(Clone)]
pub struct Batch {
    /// The circuit, with its evaluator.
    pub circuit: Arc<Circuit>,
    /// Number of instances.
    pub lanes: usize,
    /// Number of the circuit within the model; part of every tweak.
    pub layer: u32,
    /// Number of the first lane within the layer; part of every tweak.
    pub first_lane: u32,
}

/// A run of lanes that is processed together.
#[derive(Clone, Copy)]
pub(crate) struct Tile {
    pub start: usize,
    pub width: usize,
}

impl Tile {
    /// Words of a plane of this tile.
    pub fn words(&self) -> usize {
        plane_words(self.width)
    }

    /// Lanes with padding to whole words.
    pub fn padded(&self) -> usize {
        self.words() * 64
    }

    /// Range of this tile's words within a plane of the whole batch.
    pub fn word_range(&self) -> std::ops::Range<usize> {
        self.start / 64..self.start / 64 + self.words()
    }
}

impl Batch {
    /// 64-bit words of one plane.
    pub fn words(&self) -> usize {
        plane_words(self.lanes)
    }

    /// Lanes with padding to whole words: the stride of correlated OTs of one wire.
    pub fn stride(&self) -> usize {
        self.words() * 64
    }

    pub(crate) fn tiles(&self) -> impl Iterator<Item = Tile> + use<> {
        let lanes = self.lanes;
        (0..lanes.div_ceil(TILE))
            .map(move |index| Tile { start: index * TILE, width: TILE.min(lanes - index * TILE) })
    }

    /// Number of garblers.
    pub fn garblers(&self) -> usize {
        self.circuit.garblers()
    }

    /// Correlated OTs in which the garbler at `position` is the receiver, towards each other
    /// garbler: its input masks, then two for every AND. None with a single garbler.
    pub fn garbler_correlations(&self, position: usize) -> usize {
        self.correlation_rows(position) * self.stride()
    }

    /// The same by lane.
    pub(crate) fn correlation_rows(&self, position: usize) -> usize {
        if self.garblers() < 2 {
            return 0;
        }
        self.circuit.program.count(|s| owns(s, position)) + 2 * self.circuit.program.ands
    }

    /// Correlated OTs in which the evaluator is the receiver, towards each garbler: the labels of
    /// its random bits.
    pub fn evaluator_correlations(&self) -> usize {
        self.circuit.program.count(|s| s == Source::Choice) * self.stride()
    }

    /// Input wires whose values become known online.
    pub fn online_inputs(&self) -> usize {
        self.circuit.program.count(|s| matches!(s, Source::Online(_)))
    }

    /// Bytes of the label message of one garbler, online.
    pub fn label_bytes(&self) -> usize {
        self.online_inputs() * self.lanes * 16
    }

    /// Bytes of the bits that one garbler sends another for the cross terms, and of the corrections
    /// that follow.
    pub fn bit_bytes(&self) -> usize {
        self.circuit.program.ands * self.words() * 8
    }

    /// Blocks that one garbler sends per AND and lane: two for itself, three for every other target
    /// (`protocol.md` section 5).
    pub(crate) fn rows_sent(&self) -> usize {
        2 + 3 * (self.garblers() - 1)
    }

    /// Whether this garbler sends the permutation bits: the first does, where there are several. A
    /// single garbler chooses its masks so that they are all zero.
    pub(crate) fn sends_permutation(&self, position: usize) -> bool {
        position == 0 && self.garblers() > 1
    }

    /// Bytes of the tables message of the garbler at `position`: seed, rows, permutation bits,
    /// masks of the outputs.
    pub fn table_bytes(&self, position: usize) -> usize {
        let program = &self.circuit.program;
        let permutation = if self.sends_permutation(position) { program.ands * self.words() * 8 } else { 0 };
        16 + self.rows_sent() * program.ands * self.lanes * 16
            + permutation
            + program.outputs.len() * self.words() * 8
    }
}

/// Whether the garbler at `position` has a share of this wire's mask.
pub fn owns(source: Source, position: usize) -> bool {
    match source {
        Source::Ahead(owner) | Source::Online(Mask::One(owner)) => owner == position,
        Source::Online(Mask::All) => true,
        Source::Choice | Source::Online(Mask::None) => false,
    }
}

/// Rank of every input wire among those that satisfy `which`.
pub(crate) fn ranks(sources: &[Source], which: impl Fn(Source) -> bool) -> Vec<Option<usize>> {
    let mut next = 0;
    sources
        .iter()
        .map(|&s| {
            which(s).then(|| {
                next += 1;
                next - 1
            })
        })
        .collect()
}

/// Vectors of a row.
pub(crate) const CHUNKS: usize = TILE / LANES;

/// One block for every lane of a tile. Lanes past its width hold anything.
#[derive(Clone, Copy)]
#[repr(align(64))]
pub(crate) struct Row(pub [Chunk; CHUNKS]);

impl Row {
    /// The lanes one by one.
    pub fn lanes(&self) -> &[Block] {
        self.0.as_flattened()
    }

    /// As [`Row::lanes`].
    pub fn lanes_mut(&mut self) -> &mut [Block] {
        self.0.as_flattened_mut()
    }

    /// Takes a tile's part of a row of correlated OTs.
    pub fn set(&mut self, row: &[Chunk]) {
        self.0[..row.len()].copy_from_slice(row);
    }
}

/// Working memory of one tile: a row of blocks for every slot. What an earlier tile left is overwritten, for no slot is
/// read before it is written.
pub(crate) struct Slots {
    rows: Vec<Row>,
}

impl Slots {
    pub fn new(slots: usize) -> Slots {
        Slots { rows: vec![Row([[Block::ZERO; LANES]; CHUNKS]); slots] }
    }

    #[inline(always)]
    pub fn row(&self, slot: u32) -> &Row {
        &self.rows[slot as usize]
    }

    #[inline(always)]
    pub fn row_mut(&mut self, slot: u32) -> &mut Row {
        &mut self.rows[slot as usize]
    }

    /// `dst = a ^ b`, right even where slots are shared.
    #[inline(always)]
    pub fn xor<E: Engine>(&mut self, engine: &E, dst: u32, a: u32, b: u32) {
        let [dst, a, b] = [dst as usize, a as usize, b as usize];
        for c in 0..CHUNKS {
            let sum = engine.xor(engine.load(&self.rows[a].0[c]), engine.load(&self.rows[b].0[c]));
            engine.store(sum, &mut self.rows[dst].0[c]);
        }
    }
}

impl Drop for Slots {
    fn drop(&mut self) {
        for row in &mut self.rows {
            zeroize::Zeroize::zeroize(row.lanes_mut());
        }
    }
}

/// How many tiles share their working memory, one after the other: all threads have work, and memory is not got and
/// wiped for each tile.
pub(crate) fn tiles_together(tiles: usize) -> usize {
    (tiles / (2 * rayon::current_num_threads())).clamp(1, 16)
}

/// The byte of a plane that belongs to vector `chunk`.
#[inline(always)]
pub(crate) fn byte(plane: &[u64; TILE / 64], chunk: usize) -> u8 {
    (plane[chunk / 8] >> (8 * (chunk % 8))) as u8
}

/// Sets that byte, which was zero.
#[inline(always)]
pub(crate) fn set_byte(plane: &mut [u64; TILE / 64], chunk: usize, bits: u8) {
    plane[chunk / 8] |= u64::from(bits) << (8 * (chunk % 8));
}

/// Working memory of one tile: a plane of bits for every slot.
pub(crate) struct Planes {
    pub bits: Vec<[u64; TILE / 64]>,
}

impl Planes {
    pub fn new(slots: usize) -> Planes {
        Planes { bits: vec![[0; TILE / 64]; slots] }
    }

    pub fn get(&self, slot: u32) -> [u64; TILE / 64] {
        self.bits[slot as usize]
    }

    pub fn set(&mut self, slot: u32, plane: [u64; TILE / 64]) {
        self.bits[slot as usize] = plane;
    }

    #[inline(always)]
    pub fn xor(&mut self, dst: u32, a: u32, b: u32) {
        let (a, b) = (self.get(a), self.get(b));
        self.set(dst, std::array::from_fn(|i| a[i] ^ b[i]));
    }
}

impl Drop for Planes {
    fn drop(&mut self) {
        zeroize::Zeroize::zeroize(&mut self.bits);
    }
}

/// The tile's part of plane `row` of `planes`, padded with zeros.
pub(crate) fn tile_plane(planes: &[u64], words: usize, row: usize, tile: Tile) -> [u64; TILE / 64] {
    let mut out = [0; TILE / 64];
    let range = tile.word_range();
    let plane = &planes[row * words..(row + 1) * words];
    for (out, word) in out.iter_mut().zip(&plane[range]) {
        *out = *word;
    }
    out
}

/// Low bits of blocks as a plane.
pub(crate) fn low_bits(blocks: &[Block]) -> [u64; TILE / 64] {
    let mut plane = [0; TILE / 64];
    for (lane, block) in blocks.iter().enumerate() {
        plane[lane / 64] |= ((block.0 & 1) as u64) << (lane % 64);
    }
    plane
}

/// Copies the row that `find` gives, or zeros where there is none.
pub(crate) fn load<'a>(dst: &mut Row, row: Option<usize>, find: impl FnOnce(usize) -> &'a [Chunk]) {
    match row {
        Some(row) => dst.set(find(row)),
        None => dst.lanes_mut().fill(Block::ZERO),
    }
}

/// Puts a tile's planes where they belong in those of the whole batch.
pub(crate) fn scatter(parts: &[[u64; TILE / 64]], tile: Tile, words: usize, out: &mut [u64]) {
    for (row, part) in parts.iter().enumerate() {
        let range = tile.word_range();
        out[row * words + range.start..row * words + range.end].copy_from_slice(&part[..tile.words()]);
    }
}
