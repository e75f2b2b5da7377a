//! The garbling pass: tables from labels, shares of masks and hashes.

use seco_ot::{Block, Delta, Engine, Kernel, LANES};

use super::{RowPair, State};
use crate::batch::{MAX_GARBLERS, Slots, TILE, Tile, byte, load, low_bits, set_byte, tile_plane};
use crate::error::Error;
use crate::hash::Tweak;
use crate::program::{Op, Operand, Source};
use crate::slices::from_bytes;

/// Zero labels of input wires, by class.
pub(super) struct ZeroLabels<'a> {
    rows: Vec<(&'a [Block], usize)>,
}

impl<'a> ZeroLabels<'a> {
    pub(super) fn new(state: &'a State, ahead: &'a [Block], online: &'a [Block]) -> Self {
        let lanes = state.batch.lanes;
        let (mut a, mut c, mut o) = (0, 0, 0);
        let next = |counter: &mut usize, stride: usize| {
            *counter += stride;
            *counter - stride
        };
        let rows = state
            .batch
            .circuit
            .program
            .sources()
            .map(|source| match source {
                Source::Ahead(_) => (ahead, next(&mut a, lanes)),
                Source::Choice => (state.choice_labels.as_slice(), next(&mut c, state.batch.stride())),
                Source::Online(_) => (online, next(&mut o, lanes)),
            })
            .collect();
        ZeroLabels { rows }
    }

    fn tile(&self, input: usize, tile: Tile) -> &[Block] {
        let (blocks, start) = self.rows[input];
        &blocks[start + tile.start..start + tile.start + tile.width]
    }
}

/// What all tiles of the garbling pass share.
pub(super) struct Pass<'a> {
    pub(super) state: &'a State,
    pub(super) rho: &'a [u64],
    pub(super) delta: &'a Delta,
    pub(super) rows: Vec<Vec<Option<usize>>>,
    /// [`State::owned`] of every garbler.
    owned: Vec<usize>,
    others: Vec<usize>,
    /// Planes of `d`, by which garbler `i`'s second choice bit of every AND differs from its `ρ`; empty for this
    /// garbler.
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
        let owned = (0..state.batch.garblers()).map(|i| state.owned(i)).collect();
        let others: Vec<usize> = state.others().collect();
        let mut corrections = vec![Vec::new(); state.batch.garblers()];
        for &i in &others {
            let bits = incoming.get(i).map_or(&[][..], Vec::as_slice);
            corrections[i] = from_bytes(bits, state.batch.bit_bytes(), "corrections")?;
        }
        Ok(Pass { state, rho, delta, rows: state.correlation_rows(), owned, others, corrections })
    }
}

/// Working memory: labels, and by garbler `i` this garbler's share of `λ_w Δ_i`.
pub(super) struct TableSlots {
    labels: Slots,
    shares: Vec<Slots>,
}

impl TableSlots {
    pub(super) fn new(state: &State) -> Self {
        let slots = state.batch.circuit.program.slots;
        let shares = (0..state.batch.garblers()).map(|_| Slots::new(slots)).collect();
        TableSlots { labels: Slots::new(slots), shares }
    }
}

/// What a tile leaves besides its tables.
pub(super) struct TileEnds {
    pub(super) permutation: Vec<[u64; TILE / 64]>,
    pub(super) outputs: Vec<[u64; TILE / 64]>,
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
        let program = &state.batch.circuit.program;
        let per_and = state.batch.rows_sent() * tile.width;
        let mut ends = TileEnds { permutation: Vec::new(), outputs: Vec::new() };
        let mut gate = 0;
        for op in &program.ops {
            match *op {
                Op::Input { dst, input } => pass.input(engine, dst, input as usize, tile, zero_labels, slots),
                Op::Xor { dst, a, b } => {
                    slots.labels.xor(engine, dst, a, b);
                    slots.shares.iter_mut().for_each(|share| share.xor(engine, dst, a, b));
                }
                Op::And { dst, a, b } => {
                    let (table, rest) = std::mem::take(&mut tables).split_at_mut(per_and);
                    tables = rest;
                    let permutation = pass.and(engine, gate, dst, a, b, tile, table, slots);
                    if state.batch.sends_permutation(state.position) {
                        ends.permutation.push(permutation);
                    }
                    gate += 1;
                }
            }
        }
        if state.batch.garblers() == 1 {
            // λ Δ has λ as its low bit.
            let share = &slots.shares[state.position];
            let output = |o: &Operand| low_bits(&share.row(o.slot).lanes()[..tile.width]);
            ends.outputs = program.outputs.iter().map(output).collect();
        }
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
        slots.labels.row_mut(dst).lanes_mut()[..width].copy_from_slice(zero_labels.tile(input, tile));
        let lambda = tile_plane(&state.inputs, state.batch.words(), input, tile);
        let delta = engine.splat(self.delta.block());
        for c in 0..width.div_ceil(LANES) {
            let mut own = engine.select(byte(&lambda, c), delta);
            for &i in &self.others {
                if let Some(row) = self.rows[i][input] {
                    own = engine.xor(own, state.keys(i, row, tile).load(engine, c));
                }
            }
            engine.store(own, &mut slots.shares[me].row_mut(dst).0[c]);
        }
        for &i in &self.others {
            let row = slots.shares[i].row_mut(dst);
            load(row, self.rows[me][input], |row| state.received(i, row, tile).row);
        }
    }

    /// One AND for all lanes of a tile. Gives the low bits of the result's zero labels.
    #[inline(always)]
    #[allow(clippy::too_many_arguments)]
    fn and<E: Engine>(
        &self,
        engine: &E,
        gate: usize,
        dst: u32,
        a: Operand,
        b: Operand,
        tile: Tile,
        table: &mut [[u8; 16]],
        slots: &mut TableSlots,
    ) -> [u64; TILE / 64] {
        let state = self.state;
        let (me, width, words) = (state.position, tile.width, state.batch.words());
        let single = self.others.is_empty();
        let ands = state.batch.circuit.program.ands;
        let first_lane = state.batch.first_lane + tile.start as u32;
        let tweaks = |target| {
            let side = |side| Tweak::garble(state.batch.layer, gate, first_lane, side, target);
            (side(0), side(1))
        };
        let block = self.delta.block();
        let delta = engine.splat(block);
        let flip = |operand: Operand| engine.splat(if operand.negated { block } else { Block::ZERO });
        let (flip_a, flip_b) = (flip(a), flip(b));
        let (rho, lambda) = if single {
            Default::default()
        } else {
            (tile_plane(self.rho, words, gate, tile), tile_plane(&state.lambda, words, gate, tile))
        };
        let mut sources = [Correlations::default(); MAX_GARBLERS];
        for (source, &i) in sources.iter_mut().zip(&self.others) {
            let (theirs, mine) = (self.owned[i] + gate, self.owned[me] + gate);
            *source = Correlations {
                keys: [state.keys(i, theirs, tile), state.keys(i, theirs + ands, tile)],
                received: [state.received(i, mine, tile), state.received(i, mine + ands, tile)],
                correction: tile_plane(&self.corrections[i], words, gate, tile),
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
            let (rho, lambda) = if single {
                // `ρ` is the low bit of `h2`: then every zero label of an AND's output has low bit 0, and `ẑ` is the
                // low bit of the active label (Zahur, Rosulek, Evans 2015).
                let rho = engine.low_bits(h2);
                (rho, rho ^ (engine.low_bits(share_a) & engine.low_bits(share_b)))
            } else {
                (byte(&rho, c), byte(&lambda, c))
            };
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
