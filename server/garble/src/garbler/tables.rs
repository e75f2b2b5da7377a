//! The garbling pass: tables from labels, shares of masks and hashes.

use seco_ot::{Block, Delta, Engine, Kernel, Keys, LANES};
use zeroize::Zeroize;

use super::{RowPair, State};
use crate::batch::{Labels, MAX_GARBLERS, Row, Slots, TILE, Tile, Zero, byte, set_byte, tile_plane};
use crate::error::Error;
use crate::hash::Tweak;
use crate::program::{Input, Op, Operand, Source};
use crate::slices::from_bytes;

/// Zero labels of input wires.
pub(super) struct ZeroLabels<'a> {
    inputs: &'a [Input],
    random: &'a Keys,
    stride: usize,
    public: &'a Labels<Zero>,
    lanes: usize,
}

impl<'a> ZeroLabels<'a> {
    pub(super) fn new(state: &'a State, inputs: &'a [Input], public: &'a Labels<Zero>) -> Self {
        let (stride, lanes) = (state.batch.stride(), state.batch.lanes);
        ZeroLabels { inputs, random: &state.choice_labels, stride, public, lanes }
    }

    fn tile(&self, Input { source, rank }: Input, tile: Tile) -> &[Block] {
        let (blocks, start) = match source {
            Source::Random => (self.random.blocks(), rank * self.stride),
            Source::Public => (self.public.rows(), rank * self.lanes),
        };
        &blocks[start + tile.start..start + tile.start + tile.width]
    }
}

/// What all tiles of the garbling pass share.
pub(super) struct Pass<'a> {
    pub(super) state: &'a State,
    pub(super) rho: &'a [u64],
    pub(super) delta: &'a Delta,
    others: Vec<usize>,
    /// Planes of `d`, by which garbler `i`'s second choice bit of every AND with cross terms differs from its `ρ`;
    /// empty for this garbler.
    corrections: Vec<Vec<u64>>,
}

impl<'a> Pass<'a> {
    /// `incoming` are the other garblers' corrections by position.
    pub(super) fn new(
        state: &'a State,
        rho: &'a [u64],
        delta: &'a Delta,
        incoming: &[Vec<u8>],
    ) -> Result<Self, Error> {
        let others: Vec<usize> = state.others().collect();
        let mut corrections = vec![Vec::new(); state.batch.garblers];
        for &i in &others {
            let bits = incoming.get(i).map_or(&[][..], Vec::as_slice);
            corrections[i] = from_bytes(bits, state.batch.bit_bytes(), "corrections")?;
        }
        Ok(Pass { state, rho, delta, others, corrections })
    }
}

/// Working memory: labels, and by garbler `i` this garbler's share of `λ_w Δ_i`.
pub(super) struct TableSlots {
    labels: Slots,
    shares: Vec<Slots>,
}

impl TableSlots {
    pub(super) fn new(state: &State) -> Self {
        let slots = state.batch.program.slots;
        let shares = (0..state.batch.garblers).map(|_| Slots::new(slots)).collect();
        TableSlots { labels: Slots::new(slots), shares }
    }
}

/// What a tile leaves besides its tables.
pub(super) struct TileEnds {
    pub(super) permutation: Vec<[u64; TILE / 64]>,
    /// Zero labels of the output wires.
    pub(super) outputs: Vec<Row>,
}

impl Drop for TileEnds {
    fn drop(&mut self) {
        self.outputs.iter_mut().for_each(|row| row.lanes_mut().zeroize());
    }
}

/// Garbles one tile: per AND, first this garbler's own `G_0`, `G_1`, then `G_0`, `G_1`, `G_2` for every other target,
/// straight into the message.
pub(super) struct Tables<'a> {
    pub(super) pass: &'a Pass<'a>,
    pub(super) tile: Tile,
    pub(super) zero_labels: &'a ZeroLabels<'a>,
    pub(super) slots: &'a mut TableSlots,
    pub(super) tables: &'a mut [[u8; 16]],
}

impl Kernel for Tables<'_> {
    type Output = TileEnds;

    #[inline(always)]
    fn run<E: Engine>(self, engine: &E) -> TileEnds {
        let Tables { pass, tile, zero_labels, slots, mut tables } = self;
        let state = pass.state;
        let program = &state.batch.program;
        let per_and = state.batch.rows_sent() * tile.width;
        let mut ends = TileEnds { permutation: Vec::new(), outputs: Vec::new() };
        let (mut gate, mut crossed_gate) = (0, 0);
        for op in &program.ops {
            match *op {
                Op::Input { dst, input } => pass.input(engine, dst, input as usize, tile, zero_labels, slots),
                Op::Xor { dst, a, b } => {
                    slots.labels.xor(engine, dst, a, b);
                    slots.shares.iter_mut().for_each(|share| share.xor(engine, dst, a, b));
                }
                Op::And { dst, a, b, crossed } => {
                    let (table, rest) = std::mem::take(&mut tables).split_at_mut(per_and);
                    tables = rest;
                    let second = crossed.then_some(crossed_gate);
                    ends.permutation.push(pass.and(engine, gate, second, dst, a, b, tile, table, slots));
                    gate += 1;
                    crossed_gate += usize::from(crossed);
                }
            }
        }
        let delta = engine.splat(pass.delta.block());
        let output = |o: &Operand| {
            let mut row = *slots.labels.row(o.slot);
            let flip = engine.select(if o.negated { 0xff } else { 0 }, delta);
            for chunk in &mut row.0 {
                engine.store(engine.xor(engine.load(chunk), flip), chunk);
            }
            row
        };
        ends.outputs = program.outputs.iter().map(output).collect();
        ends
    }
}

impl Pass<'_> {
    /// Loads an input wire: its zero label, and the shares of its mask's products.
    #[inline(always)]
    fn input<E: Engine>(
        &self,
        engine: &E,
        dst: u32,
        input: usize,
        tile: Tile,
        zero_labels: &ZeroLabels,
        slots: &mut TableSlots,
    ) {
        let (state, me, width) = (self.state, self.state.position, tile.width);
        let input = zero_labels.inputs[input];
        slots.labels.row_mut(dst).lanes_mut()[..width].copy_from_slice(zero_labels.tile(input, tile));
        if input.source == Source::Public {
            slots.shares.iter_mut().for_each(|share| share.row_mut(dst).lanes_mut().fill(Block::ZERO));
            return;
        }
        let lambda = tile_plane(&state.random, state.batch.words(), input.rank, tile);
        let delta = engine.splat(self.delta.block());
        for c in 0..width.div_ceil(LANES) {
            let mut own = engine.select(byte(&lambda, c), delta);
            for &i in &self.others {
                own = engine.xor(own, state.keys(i, input.rank, tile).load(engine, c));
            }
            engine.store(own, &mut slots.shares[me].row_mut(dst).0[c]);
        }
        for &i in &self.others {
            slots.shares[i].row_mut(dst).set(state.received(i, input.rank, tile).row);
        }
    }

    /// One AND for all lanes of a tile; `second` is its rank among those with cross terms. Gives the low bits of the
    /// result's zero labels.
    #[inline(always)]
    #[allow(clippy::too_many_arguments)]
    fn and<E: Engine>(
        &self,
        engine: &E,
        gate: usize,
        second: Option<usize>,
        dst: u32,
        a: Operand,
        b: Operand,
        tile: Tile,
        table: &mut [[u8; 16]],
        slots: &mut TableSlots,
    ) -> [u64; TILE / 64] {
        let state = self.state;
        let (me, width, words) = (state.position, tile.width, state.batch.words());
        let (random, ands) = (state.batch.random_wires(), state.batch.program.ands);
        let first_lane = state.batch.first_lane + tile.start as u32;
        let tweaks = |target| {
            let side = |side| Tweak::garble(state.batch.step, gate, first_lane, side, target);
            (side(0), side(1))
        };
        let block = self.delta.block();
        let delta = engine.splat(block);
        let flip = |operand: Operand| engine.splat(if operand.negated { block } else { Block::ZERO });
        let (flip_a, flip_b) = (flip(a), flip(b));
        let (rho, lambda) =
            (tile_plane(self.rho, words, gate, tile), tile_plane(&state.lambda, words, gate, tile));
        // Without cross terms `ρ` is `λ_c`, and its correlations serve for both.
        let rows = [random + gate, second.map_or(random + gate, |rank| random + ands + rank)];
        let mut sources = [Correlations::default(); MAX_GARBLERS];
        for (source, &i) in sources.iter_mut().zip(&self.others) {
            *source = Correlations {
                keys: rows.map(|row| state.keys(i, row, tile)),
                received: rows.map(|row| state.received(i, row, tile)),
                correction: second
                    .map_or([0; TILE / 64], |rank| tile_plane(&self.corrections[i], words, rank, tile)),
            };
        }
        let mut permutation = [0; TILE / 64];
        let (own, for_others) = table.split_at_mut(2 * width);
        let (g0, g1) = own.split_at_mut(width);
        for c in 0..width.div_ceil(LANES) {
            let a0 = engine.xor(engine.load(&slots.labels.row(a.slot).0[c]), flip_a);
            let b0 = engine.xor(engine.load(&slots.labels.row(b.slot).0[c]), flip_b);
            let p = engine.permute([a0, engine.xor(a0, delta), b0, engine.xor(b0, delta)]);
            let (ta, tb) = tweaks(me);
            let (ta, tb) = (engine.tweaks(ta.vector(c)), engine.tweaks(tb.vector(c)));
            let [ha0, ha1, hb0, hb1] = engine.hash(p, [ta, ta, tb, tb]);
            let share_a = engine.load(&slots.shares[me].row(a.slot).0[c]);
            let share_b = engine.load(&slots.shares[me].row(b.slot).0[c]);
            put(engine, engine.xor(engine.xor(ha0, ha1), share_b), g0, c);
            put(engine, engine.xor(engine.xor(hb0, hb1), engine.xor(share_a, a0)), g1, c);
            // The output's zero label makes this garbler's own G_2 zero.
            let h2 = engine.xor(ha0, hb0);
            let (rho, lambda) = (byte(&rho, c), byte(&lambda, c));
            let mut label = engine.xor(engine.select(rho, delta), h2);
            let mut share = engine.select(lambda, delta);
            for source in sources.iter().take(self.others.len()) {
                // `K' = K ^ d Δ`: the second correlation becomes that of the other's `ρ`.
                let second = source.keys[1].load(engine, c);
                let correction = engine.select(byte(&source.correction, c), delta);
                label = engine.xor(label, engine.xor(second, correction));
                share = engine.xor(share, source.keys[0].load(engine, c));
            }
            set_byte(&mut permutation, c, engine.low_bits(label));
            engine.store(label, &mut slots.labels.row_mut(dst).0[c]);
            engine.store(share, &mut slots.shares[me].row_mut(dst).0[c]);
            let tables = for_others.chunks_exact_mut(3 * width);
            for ((&i, source), table) in self.others.iter().zip(&sources).zip(tables) {
                let (ta, tb) = tweaks(i);
                let (ta, tb) = (engine.tweaks(ta.vector(c)), engine.tweaks(tb.vector(c)));
                let [ha0, ha1, hb0, hb1] = engine.hash(p, [ta, ta, tb, tb]);
                let share_a = engine.load(&slots.shares[i].row(a.slot).0[c]);
                let share_b = engine.load(&slots.shares[i].row(b.slot).0[c]);
                let second = source.received[1].load(engine, c);
                let (g0, rest) = table.split_at_mut(width);
                let (g1, g2) = rest.split_at_mut(width);
                put(engine, engine.xor(engine.xor(ha0, ha1), share_b), g0, c);
                put(engine, engine.xor(engine.xor(hb0, hb1), share_a), g1, c);
                put(engine, engine.xor(engine.xor(ha0, hb0), second), g2, c);
                engine.store(source.received[0].load(engine, c), &mut slots.shares[i].row_mut(dst).0[c]);
            }
        }
        permutation
    }
}

/// What a tile has of an AND's correlated OTs with one other garbler: those of `λ_c`, and the second ones.
#[derive(Clone, Copy, Default)]
struct Correlations<'a> {
    keys: [RowPair<'a>; 2],
    received: [RowPair<'a>; 2],
    correction: [u64; TILE / 64],
}

/// Writes vector `c` of a row of a table; of the last one, the lanes that there are.
#[inline(always)]
fn put<E: Engine>(engine: &E, x: E::Lanes, row: &mut [[u8; 16]], c: usize) {
    let rest = row.get_mut(c * LANES..).unwrap_or_default().as_flattened_mut();
    if let Some(whole) = rest.first_chunk_mut() {
        engine.stream_bytes(x, whole);
    } else {
        let mut bytes = [0; 16 * LANES];
        engine.store_bytes(x, &mut bytes);
        rest.copy_from_slice(&bytes[..rest.len()]);
    }
}
