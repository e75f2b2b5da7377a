//! Evaluating a tile.

use seco_ot::{Block, Engine, Kernel, LANES};

use crate::batch::{Batch, MAX_GARBLERS, Planes, Slots, TILE, Tile, byte, set_byte, tile_plane};
use crate::hash::Tweak;
use crate::program::{Input, Op, Operand};

/// The evaluation of one tile after the other.
pub(super) struct Run<'a> {
    batch: &'a Batch,
    pub(super) tile: Tile,
    /// Active labels, by garbler.
    pub(super) labels: Vec<Slots>,
    /// Masked values `ẑ`.
    pub(super) bits: Planes,
    /// Number of the next AND.
    gate: usize,
    inputs: Vec<Input>,
}

impl<'a> Run<'a> {
    pub(super) fn new(batch: &'a Batch) -> Self {
        let program = &batch.program;
        Run {
            batch,
            tile: Tile { start: 0, width: 0 },
            labels: (0..batch.garblers).map(|_| Slots::new(program.slots)).collect(),
            bits: Planes::new(program.slots),
            gate: 0,
            inputs: program.inputs(),
        }
    }

    /// The next tile.
    pub(super) fn begin(&mut self, tile: Tile) {
        (self.tile, self.gate) = (tile, 0);
    }

    #[inline(always)]
    pub(super) fn operand_bits(&self, operand: Operand) -> [u64; TILE / 64] {
        let flip = if operand.negated { u64::MAX } else { 0 };
        self.bits.get(operand.slot).map(|w| w ^ flip)
    }

    /// `L^i_c = XOR_j [H(L^j_a) ^ H(L^j_b)] ^ G^i_2 ^ ẑ_a·G^i_0 ^ ẑ_b·(G^i_1 ^ L^i_a)` for every
    /// target `i` (section 5 of PROTOCOL.md, "AND gate", step 4). `next` is the table of the next AND, where it is not
    /// in the caches yet.
    #[inline(always)]
    #[allow(clippy::too_many_arguments)]
    fn and<E: Engine>(
        &mut self,
        engine: &E,
        dst: u32,
        a: Operand,
        b: Operand,
        table: &[Block],
        next: &[Block],
        permutation: &[u64],
    ) {
        let (width, step) = (self.tile.width, self.batch.step);
        let first_lane = self.batch.first_lane + self.tile.start as u32;
        let (bits_a, bits_b) = (self.operand_bits(a), self.operand_bits(b));
        let rows = if self.labels.len() == 1 { 2 } else { 3 };
        let mut low = [0; TILE / 64];
        for c in 0..width.div_ceil(LANES) {
            let (bits_a, bits_b) = (byte(&bits_a, c), byte(&bits_b, c));
            let mut p = [[engine.splat(Block::ZERO); 2]; MAX_GARBLERS];
            for (p, slots) in p.iter_mut().zip(&self.labels) {
                let (a, b) = (&slots.row(a.slot).0[c], &slots.row(b.slot).0[c]);
                *p = engine.permute([engine.load(a), engine.load(b)]);
            }
            for row in next.chunks_exact(width) {
                engine.prefetch(bytemuck::cast_slice(&row[c * LANES..]));
            }
            for (i, table) in table.chunks_exact(rows * width).enumerate() {
                let side =
                    |side| engine.tweaks(Tweak::garble(step, self.gate, first_lane, side, i).vector(c));
                let tweaks = [side(0), side(1)];
                let mut out = match table.get(2 * width..) {
                    Some(g2) if rows == 3 => lanes(engine, g2, c),
                    _ => engine.splat(Block::ZERO),
                };
                for p in p.iter().take(self.labels.len()) {
                    let [ha, hb] = engine.hash(*p, tweaks);
                    out = engine.xor(out, engine.xor(ha, hb));
                }
                let (g0, g1) =
                    (lanes(engine, &table[..width], c), lanes(engine, &table[width..2 * width], c));
                let label = engine.load(&self.labels[i].row(a.slot).0[c]);
                out = engine.xor(out, engine.select(bits_a, g0));
                out = engine.xor(out, engine.select(bits_b, engine.xor(g1, label)));
                engine.store(out, &mut self.labels[i].row_mut(dst).0[c]);
                if i == 0 {
                    set_byte(&mut low, c, engine.low_bits(out));
                }
            }
        }
        let permuted = tile_plane(permutation, self.batch.words(), self.gate, self.tile);
        self.bits.set(dst, std::array::from_fn(|w| low[w] ^ permuted[w]));
        self.gate += 1;
    }
}

/// Vector `c` of a row of a table; zeros past its end.
#[inline(always)]
fn lanes<E: Engine>(engine: &E, row: &[Block], c: usize) -> E::Lanes {
    let rest = row.get(c * LANES..).unwrap_or_default();
    if let Some(whole) = rest.first_chunk() {
        return engine.load(whole);
    }
    let mut padded = [Block::ZERO; LANES];
    padded[..rest.len()].copy_from_slice(rest);
    engine.load(&padded)
}

/// Evaluates a tile, whose tables `tables` begins with.
pub(super) struct Execute<'r, 'a, F> {
    pub(super) run: &'r mut Run<'a>,
    pub(super) tables: &'r [Block],
    pub(super) permutation: &'r [u64],
    pub(super) load: F,
}

impl<'a, F: Fn(Input, &mut Run<'a>, u32)> Kernel for Execute<'_, 'a, F> {
    type Output = ();

    #[inline(always)]
    fn run<E: Engine>(self, engine: &E) {
        let Execute { run, mut tables, permutation, load } = self;
        let per_and = run.batch.rows_stored() * run.tile.width;
        for op in &run.batch.program.ops {
            match *op {
                Op::Input { dst, input } => load(run.inputs[input as usize], run, dst),
                Op::Xor { dst, a, b } => {
                    run.bits.xor(dst, a, b);
                    run.labels.iter_mut().for_each(|slots| slots.xor(engine, dst, a, b));
                }
                Op::And { dst, a, b, .. } => {
                    let (table, rest) = tables.split_at(per_and);
                    tables = rest;
                    run.and(engine, dst, a, b, table, rest.get(..per_and).unwrap_or_default(), permutation);
                }
            }
        }
    }
}
