//! The pass over a circuit that turns correlated OTs into shares of `λ_a λ_b`.

use seco_ot::{Block, Delta};
use zeroize::Zeroize;

use super::State;
use crate::batch::{Planes, Slots, TILE, Tile, load, pack, tile_plane};
use crate::hash::{Hash, Tweak};
use crate::program::Op;

/// What the pass over cross terms leaves behind for one tile.
pub(super) struct CrossTile {
    pub(super) tile: Tile,
    /// Per AND: this garbler's share of `λ_a λ_b` so far.
    pub(super) share: Vec<[u64; TILE / 64]>,
    /// Per AND: `λ_a^j`, which the others' bits are multiplied by.
    pub(super) left: Vec<[u64; TILE / 64]>,
    /// Per other garbler, per AND: the bit to send.
    pub(super) send: Vec<Vec<[u64; TILE / 64]>>,
    /// Per output: `λ^j`.
    pub(super) outputs: Vec<[u64; TILE / 64]>,
}

impl Drop for CrossTile {
    fn drop(&mut self) {
        self.share.zeroize();
        self.left.zeroize();
        self.outputs.zeroize();
    }
}

/// One pass over a tile: spreads masks and correlations through the circuit and, for every AND,
/// turns the correlation of `λ_a` into shares of `λ_a^j λ_b^i` (`protocol.md` section 5, "AND gate").
pub(super) fn cross_tile(
    state: &State,
    rows: &[Vec<Option<usize>>],
    tile: Tile,
    delta: &Delta,
    hash: &impl Hash,
) -> CrossTile {
    let program = &state.batch.circuit.program;
    let (me, width, words) = (state.position, tile.width, state.batch.words());
    let others: Vec<usize> = state.others().collect();
    let first_lane = state.batch.first_lane + tile.start as u32;
    let mut lambda = Planes::new(program.slots);
    let mut keys: Vec<Slots> = others.iter().map(|_| Slots::new(program.slots)).collect();
    let mut macs: Vec<Slots> = others.iter().map(|_| Slots::new(program.slots)).collect();
    let mut p = [Block::ZERO; TILE];
    let (mut low0, mut low1) = ([0u8; TILE], [0u8; TILE]);
    let mut out = CrossTile {
        tile,
        share: Vec::with_capacity(program.ands),
        left: Vec::with_capacity(program.ands),
        send: others.iter().map(|_| Vec::with_capacity(program.ands)).collect(),
        outputs: Vec::new(),
    };
    let mut gate = 0;
    for op in &program.ops {
        match *op {
            Op::Input { dst, input } => {
                let input = input as usize;
                lambda.set(dst, tile_plane(&state.inputs, words, input, tile));
                for (n, &i) in others.iter().enumerate() {
                    load(keys[n].row_mut(dst, width), rows[i][input], |r| {
                        state.correlation(&state.keys[i], r, tile)
                    });
                    load(macs[n].row_mut(dst, width), rows[me][input], |r| {
                        state.correlation(&state.received[i], r, tile)
                    });
                }
            }
            Op::Xor { dst, a, b } => {
                lambda.xor(dst, a, b);
                for slots in keys.iter_mut().chain(&mut macs) {
                    slots.xor(dst, a, b, width);
                }
            }
            Op::And { dst, a, b } => {
                let (left, right) = (lambda.get(a.slot), lambda.get(b.slot));
                let mut share: [u64; TILE / 64] = std::array::from_fn(|w| left[w] & right[w]);
                for (n, &i) in others.iter().enumerate() {
                    // As sender: garbler i's bit of `a` times this garbler's bit of `b`.
                    let tweak = Tweak::cross(state.batch.layer, gate, first_lane, me, i);
                    hash.permute(keys[n].row(a.slot, width), &mut p[..width]);
                    hash.hash_lsb(&p[..width], tweak, &mut low0[..width]);
                    hash.permute_xor(keys[n].row(a.slot, width), delta.block(), &mut p[..width]);
                    hash.hash_lsb(&p[..width], tweak, &mut low1[..width]);
                    let (zero, one) = (pack(&low0[..width]), pack(&low1[..width]));
                    out.send[n].push(std::array::from_fn(|w| zero[w] ^ one[w] ^ right[w]));
                    // As receiver: this garbler's bit of `a` times garbler i's bit of `b`.
                    let tweak = Tweak::cross(state.batch.layer, gate, first_lane, i, me);
                    hash.permute(macs[n].row(a.slot, width), &mut p[..width]);
                    hash.hash_lsb(&p[..width], tweak, &mut low0[..width]);
                    let mac = pack(&low0[..width]);
                    for w in 0..TILE / 64 {
                        share[w] ^= zero[w] ^ mac[w];
                    }
                    let row = state.owned(i) + gate;
                    let key = state.correlation(&state.keys[i], row, tile);
                    keys[n].row_mut(dst, width).copy_from_slice(key);
                    let mac = state.correlation(&state.received[i], state.owned(me) + gate, tile);
                    macs[n].row_mut(dst, width).copy_from_slice(mac);
                }
                lambda.set(dst, tile_plane(&state.lambda, words, gate, tile));
                out.share.push(share);
                out.left.push(left);
                gate += 1;
            }
        }
    }
    out.outputs = program.outputs.iter().map(|o| lambda.get(o.slot)).collect();
    p.zeroize();
    low0.zeroize();
    low1.zeroize();
    out
}
