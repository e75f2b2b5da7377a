//! The garblers' contributions to the tables, added up.

use seco_ot::{Block, Engine, Kernel, LANES};

use crate::batch::{Batch, MAX_GARBLERS, Tile};

/// What the garblers sent.
pub(super) struct Contributions<'a> {
    pub(super) batch: &'a Batch,
    /// By garbler: tile by tile and AND by AND, its own rows, then three for every other target.
    pub(super) tables: Vec<&'a [[u8; 16]]>,
}

/// What a garbler sent of one row of an AND, and what it sent from the same row of the next AND on.
#[derive(Clone, Copy, Default)]
struct RowPair<'a> {
    row: &'a [[u8; 16]],
    next: &'a [[u8; 16]],
}

impl Contributions<'_> {
    /// The tables of all ANDs of a tile: `G_0`, `G_1`, `G_2` for every target, all garblers'
    /// contributions added up.
    #[inline(always)]
    pub(super) fn add<E: Engine>(&self, engine: &E, tile: Tile, out: &mut [Block]) {
        let (batch, garblers) = (self.batch, self.batch.garblers);
        let (sent, stored) = (batch.rows_sent(), batch.rows_stored());
        let start = tile.start * batch.program.ands * sent;
        for (gate, table) in out.chunks_exact_mut(stored * tile.width).enumerate() {
            for (row, out) in table.chunks_exact_mut(tile.width).enumerate() {
                let (target, row) = (row / 3, row % 3);
                // A target's own G_2 is zero and not sent.
                let mut rows: [RowPair; MAX_GARBLERS] = Default::default();
                let senders = (0..garblers).filter(|&from| from != target || row < 2);
                let mut count = 0;
                for (slot, from) in rows.iter_mut().zip(senders) {
                    let before =
                        if from == target { 0 } else { 2 + 3 * (target - usize::from(target > from)) };
                    let at = start + (gate * sent + before + row) * tile.width;
                    let (row, rest) = self.tables[from][at..].split_at(tile.width);
                    *slot = RowPair { row, next: rest.get((sent - 1) * tile.width..).unwrap_or_default() };
                    count += 1;
                }
                let (chunks, rest) = out.as_chunks_mut::<LANES>();
                for (c, out) in chunks.iter_mut().enumerate() {
                    let mut sum = engine.splat(Block::ZERO);
                    for RowPair { row, next } in &rows[..count] {
                        engine.prefetch(next.get(c * LANES..).unwrap_or_default());
                        if let Some(bytes) = row[c * LANES..].as_flattened().first_chunk() {
                            sum = engine.xor(sum, engine.load_bytes(bytes));
                        }
                    }
                    engine.stream_bytes(sum, bytemuck::cast_mut(out));
                }
                let done = chunks.len() * LANES;
                for (lane, out) in rest.iter_mut().enumerate() {
                    let blocks = rows[..count].iter().map(|pair| Block::from_bytes(pair.row[done + lane]));
                    *out = blocks.fold(Block::ZERO, |sum, block| sum ^ block);
                }
            }
        }
    }
}

/// Adds up a tile's tables, which are not needed soon.
pub(super) struct AddUp<'a> {
    pub(super) contributions: &'a Contributions<'a>,
    pub(super) tile: Tile,
    pub(super) out: &'a mut [Block],
}

impl Kernel for AddUp<'_> {
    type Output = ();

    #[inline(always)]
    fn run<E: Engine>(self, engine: &E) {
        let AddUp { contributions, tile, out } = self;
        contributions.add(engine, tile, out);
    }
}
