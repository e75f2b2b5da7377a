//! The pass over a circuit that turns correlated OTs into shares of `λ_a λ_b`.

use seco_ot::{Delta, Engine, Kernel, LANES};
use zeroize::Zeroize;

use super::State;
use crate::batch::{Planes, Row, Slots, TILE, Tile, load, set_byte, tile_plane};
use crate::hash::Tweak;
use crate::program::{Input, Op, Operand, Source};

/// What the pass over cross terms leaves behind for one tile.
pub(super) struct CrossTile {
    pub(super) tile: Tile,
    /// Per AND with cross terms: this garbler's share of `λ_a λ_b` so far.
    pub(super) share: Vec<[u64; TILE / 64]>,
    /// Per AND with cross terms: `λ_a^j`, which the others' bits are multiplied by.
    pub(super) left: Vec<[u64; TILE / 64]>,
    /// Per other garbler, per AND with cross terms: the bit to send.
    pub(super) send: Vec<Vec<[u64; TILE / 64]>>,
    /// Per other garbler, per output: `K` and `M` of the output's mask.
    pub(super) outputs: Vec<Vec<[Row; 2]>>,
}

impl Drop for CrossTile {
    fn drop(&mut self) {
        self.share.zeroize();
        self.left.zeroize();
        for row in self.outputs.iter_mut().flatten().flatten() {
            row.lanes_mut().zeroize();
        }
    }
}

/// Working memory of [`Cross`], by other garbler.
pub(super) struct CrossSlots {
    lambda: Planes,
    keys: Vec<Slots>,
    macs: Vec<Slots>,
}

impl CrossSlots {
    pub(super) fn new(state: &State) -> Self {
        let slots = state.batch.program.slots;
        let rows = || state.others().map(|_| Slots::new(slots)).collect();
        CrossSlots { lambda: Planes::new(slots), keys: rows(), macs: rows() }
    }
}

/// One pass over a tile: spreads masks and correlations through the circuit and, for every AND,
/// turns the correlation of `λ_a` into shares of `λ_a^j λ_b^i` (section 5 of PROTOCOL.md, "AND gate", step 1).
pub(super) struct Cross<'a> {
    pub(super) state: &'a State,
    pub(super) inputs: &'a [Input],
    pub(super) tile: Tile,
    pub(super) delta: &'a Delta,
    pub(super) slots: &'a mut CrossSlots,
}

impl Kernel for Cross<'_> {
    type Output = CrossTile;

    #[inline(always)]
    fn run<E: Engine>(self, engine: &E) -> CrossTile {
        let Cross { state, inputs, tile, delta, slots: CrossSlots { lambda, keys, macs } } = self;
        let program = &state.batch.program;
        let (me, width, words) = (state.position, tile.width, state.batch.words());
        let others: Vec<usize> = state.others().collect();
        let random = state.batch.random_wires();
        let first_lane = state.batch.first_lane + tile.start as u32;
        let delta = engine.splat(delta.block());
        let mut out = CrossTile {
            tile,
            share: Vec::with_capacity(program.crossed.len()),
            left: Vec::with_capacity(program.crossed.len()),
            send: others.iter().map(|_| Vec::with_capacity(program.crossed.len())).collect(),
            outputs: Vec::new(),
        };
        let mut gate = 0;
        for op in &program.ops {
            match *op {
                Op::Input { dst, input } => {
                    let Input { source, rank } = inputs[input as usize];
                    let row = (source == Source::Random).then_some(rank);
                    lambda.set(
                        dst,
                        row.map_or([0; TILE / 64], |row| tile_plane(&state.random, words, row, tile)),
                    );
                    for (n, &i) in others.iter().enumerate() {
                        load(keys[n].row_mut(dst), row, |row| state.keys(i, row, tile).row);
                        load(macs[n].row_mut(dst), row, |row| state.received(i, row, tile).row);
                    }
                }
                Op::Xor { dst, a, b } => {
                    lambda.xor(dst, a, b);
                    for slots in keys.iter_mut().chain(macs.iter_mut()) {
                        slots.xor(engine, dst, a, b);
                    }
                }
                Op::And { dst, a, b, crossed } => {
                    if crossed {
                        let (left, right) = (lambda.get(a.slot), lambda.get(b.slot));
                        let mut share: [u64; TILE / 64] = std::array::from_fn(|w| left[w] & right[w]);
                        for (n, &i) in others.iter().enumerate() {
                            // As sender: garbler i's bit of `a` times this garbler's bit of `b`.
                            let sending = Tweak::cross(state.batch.step, gate, first_lane, me, i);
                            // As receiver: this garbler's bit of `a` times garbler i's bit of `b`.
                            let receiving = Tweak::cross(state.batch.step, gate, first_lane, i, me);
                            let [mut zero, mut one, mut mine] = [[0; TILE / 64]; 3];
                            let rows = keys[n].row(a.slot).0.iter().zip(&macs[n].row(a.slot).0);
                            for (c, (key, mac)) in rows.take(width.div_ceil(LANES)).enumerate() {
                                let key = engine.load(key);
                                let p = engine.permute([key, engine.xor(key, delta), engine.load(mac)]);
                                let tweak = engine.tweaks(sending.vector(c));
                                let tweaks = [tweak, tweak, engine.tweaks(receiving.vector(c))];
                                let [h0, h1, h] = engine.hash(p, tweaks);
                                set_byte(&mut zero, c, engine.low_bits(h0));
                                set_byte(&mut one, c, engine.low_bits(h1));
                                set_byte(&mut mine, c, engine.low_bits(h));
                            }
                            out.send[n].push(std::array::from_fn(|w| zero[w] ^ one[w] ^ right[w]));
                            for w in 0..TILE / 64 {
                                share[w] ^= zero[w] ^ mine[w];
                            }
                        }
                        out.share.push(share);
                        out.left.push(left);
                    }
                    for (n, &i) in others.iter().enumerate() {
                        keys[n].row_mut(dst).set(state.keys(i, random + gate, tile).row);
                        macs[n].row_mut(dst).set(state.received(i, random + gate, tile).row);
                    }
                    lambda.set(dst, tile_plane(&state.lambda, words, gate, tile));
                    gate += 1;
                }
            }
        }
        let output = |n: usize, o: &Operand| [*keys[n].row(o.slot), *macs[n].row(o.slot)];
        let of_garbler = |n| program.outputs.iter().map(|o| output(n, o)).collect();
        out.outputs = (0..others.len()).map(of_garbler).collect();
        out
    }
}
