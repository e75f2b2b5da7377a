//! What garbler and evaluator of one batch share: shape, numbering of wires, tiles of lanes.

use std::marker::PhantomData;
use std::sync::Arc;

use seco_ot::{Block, Chunk, Engine, LANES};
use zeroize::Zeroizing;

use crate::program::{Program, Source};
use crate::slices::plane_words;

/// Lanes garbled together: large enough for the AES pipeline, small enough that all slots of a ReLU
/// stay in the second-level cache (a multiple of 64).
pub const TILE: usize = 128;

/// Garblers of the largest cluster.
pub(crate) const MAX_GARBLERS: usize = 7;

/// One batch: `lanes` instances of a program, garbled by `garblers` servers for one that evaluates.
#[derive(Clone)]
pub struct Batch {
    /// The circuit.
    pub program: Arc<Program>,
    /// Number of garblers, from 1 to 7.
    pub garblers: usize,
    /// Number of instances.
    pub lanes: usize,
    /// Number of the step within the model; part of every tweak.
    pub step: u32,
    /// Number of the first lane within the step; part of every tweak.
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

    /// Wires of the random word: bits of which every server draws one.
    pub fn random_wires(&self) -> usize {
        self.program.count(Source::Random)
    }

    /// Wires of the public word: a garbler sends their labels online.
    pub fn public_wires(&self) -> usize {
        self.program.count(Source::Public)
    }

    /// Rows of the correlated OTs in which a garbler is the receiver, towards each other garbler: its bits of the
    /// random wires, its `λ_c` of every AND, and the second choices of the ANDs with cross terms. None with a single
    /// garbler.
    pub(crate) fn correlation_rows(&self) -> usize {
        let program = &self.program;
        if self.garblers < 2 { 0 } else { self.random_wires() + program.ands + program.crossed.len() }
    }

    /// The same in correlated OTs: one for each row and lane, lanes padded to whole words.
    pub fn garbler_correlations(&self) -> usize {
        self.correlation_rows() * self.stride()
    }

    /// Correlated OTs in which the evaluator is the receiver, towards each garbler: the labels of the random wires.
    pub fn evaluator_correlations(&self) -> usize {
        self.random_wires() * self.stride()
    }

    /// Bytes of the label message of one garbler, online.
    pub fn label_bytes(&self) -> usize {
        self.public_wires() * self.lanes * 16
    }

    /// Bytes of the bits that one garbler sends another for the cross terms, and of the corrections that follow.
    pub fn bit_bytes(&self) -> usize {
        if self.garblers < 2 { 0 } else { self.program.crossed.len() * self.words() * 8 }
    }

    /// Blocks that one garbler sends per AND and lane: two for itself, three for every other target
    /// (section 5 of PROTOCOL.md).
    pub(crate) fn rows_sent(&self) -> usize {
        2 + 3 * (self.garblers - 1)
    }

    /// Blocks stored per AND and lane: three for every garbler; two where there is only one, for then the third is
    /// zero.
    pub(crate) fn rows_stored(&self) -> usize {
        if self.garblers == 1 { 2 } else { 3 * self.garblers }
    }

    /// Bytes of the tables message of the garbler at `position`: rows and, from the first, permutation bits.
    pub fn table_bytes(&self, position: usize) -> usize {
        let permutation = if position == 0 { self.program.ands * self.words() * 8 } else { 0 };
        self.rows_sent() * self.program.ands * self.lanes * 16 + permutation
    }
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

/// Marks a garbler's labels of zero, `L_{w,0}`.
pub enum Zero {}

/// Marks the evaluator's labels, `L_{w,ẑ}`.
pub enum Active {}

/// One garbler's labels of several wires: its own zero labels ([`Zero`]), or the active ones that the evaluator has of it
/// ([`Active`]). What the garbler does with both labels of a wire and the evaluator with its one differs, and the one's
/// labels given for the other's do not compile. The labels of random wires are ends of correlated OTs: the garbler's
/// [`seco_ot::Keys`] are the zero labels, the evaluator's [`seco_ot::Macs`] the active ones. Zeroized on drop.
pub struct Labels<L> {
    stride: usize,
    blocks: Zeroizing<Vec<Block>>,
    which: PhantomData<L>,
}

impl<L> Labels<L> {
    /// Rows of zeros, to be overwritten.
    pub(crate) fn zeros(wires: usize, stride: usize) -> Self {
        Self { stride, blocks: Zeroizing::new(vec![Block::ZERO; wires * stride]), which: PhantomData }
    }

    /// For a batch's outputs: rows of [`Batch::stride`].
    pub(crate) fn of_outputs(batch: &Batch) -> Self {
        Self::zeros(batch.program.outputs.len(), batch.stride())
    }

    pub(crate) fn put(&mut self, wire: usize, tile: Tile, row: &Row) {
        let start = wire * self.stride + tile.start;
        self.blocks[start..start + tile.padded()].copy_from_slice(&row.lanes()[..tile.padded()]);
    }

    /// A row of labels for each wire.
    pub(crate) fn rows(&self) -> &[Block] {
        &self.blocks
    }

    pub(crate) fn rows_mut(&mut self) -> &mut [Block] {
        &mut self.blocks
    }
}
