//! The garbling pass: tables from labels, shares of masks and hashes.

use seco_ot::{Block, Delta};
use zeroize::{Zeroize, ZeroizeOnDrop};

use super::State;
use crate::batch::{Slots, TILE, Tile, expand, load, low_bits, tile_plane};
use crate::hash::{Hash, Tweak};
use crate::program::{Op, Source};

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

/// The garbling pass.
pub(super) struct Pass<'a, H> {
    pub(super) state: &'a State,
    pub(super) rho: &'a [u64],
    pub(super) delta: &'a Delta,
    pub(super) hash: &'a H,
    pub(super) rows: Vec<Vec<Option<usize>>>,
}

/// What a tile leaves besides its tables.
pub(super) struct TileEnds {
    pub(super) permutation: Vec<[u64; TILE / 64]>,
    pub(super) outputs: Vec<[u64; TILE / 64]>,
}

impl<H: Hash> Pass<'_, H> {
    /// Garbles one tile: per AND, first this garbler's own `G_0`, `G_1`, then `G_0`, `G_1`, `G_2`
    /// for every other target.
    pub(super) fn tile(&self, tile: Tile, zero_labels: &ZeroLabels, mut tables: &mut [Block]) -> TileEnds {
        let state = self.state;
        let program = &state.batch.circuit.program;
        let (me, width, words) = (state.position, tile.width, state.batch.words());
        let single = state.batch.garblers() == 1;
        let delta = self.delta.block();
        let first_lane = state.batch.first_lane + tile.start as u32;
        let mut labels = Slots::new(program.slots);
        // shares[i]: this garbler's share of λ_w Δ_i.
        let mut shares: Vec<Slots> = (0..state.batch.garblers()).map(|_| Slots::new(program.slots)).collect();
        let mut scratch = Scratch::default();
        let mut ends = TileEnds { permutation: Vec::new(), outputs: Vec::new() };
        let mut gate = 0;
        for op in &program.ops {
            match *op {
                Op::Input { dst, input } => {
                    let input = input as usize;
                    labels.row_mut(dst, width).copy_from_slice(zero_labels.tile(input, tile));
                    let own = tile_plane(&state.inputs, words, input, tile);
                    self.own_share(&own, |i| self.rows[i][input], tile, shares[me].row_mut(dst, width));
                    for i in state.others() {
                        load(shares[i].row_mut(dst, width), self.rows[me][input], |r| {
                            state.correlation(&state.received[i], r, tile)
                        });
                    }
                }
                Op::Xor { dst, a, b } => {
                    labels.xor(dst, a, b, width);
                    shares.iter_mut().for_each(|s| s.xor(dst, a, b, width));
                }
                Op::And { dst, a, b } => {
                    let s = &mut scratch;
                    offset(&mut s.a, labels.row(a.slot, width), delta.select(a.negated));
                    offset(&mut s.b, labels.row(b.slot, width), delta.select(b.negated));
                    self.hash.permute(&s.a[..width], &mut s.pa0[..width]);
                    self.hash.permute_xor(&s.a[..width], delta, &mut s.pa1[..width]);
                    self.hash.permute(&s.b[..width], &mut s.pb0[..width]);
                    self.hash.permute_xor(&s.b[..width], delta, &mut s.pb1[..width]);

                    self.halves(s, gate, first_lane, me, width);
                    let (g0, rest) = std::mem::take(&mut tables).split_at_mut(width);
                    let (g1, rest) = rest.split_at_mut(width);
                    tables = rest;
                    xor3(g0, &s.ha, shares[me].row(b.slot, width));
                    xor3(g1, &s.hb, shares[me].row(a.slot, width));
                    for (g1, a) in g1.iter_mut().zip(&s.a) {
                        *g1 ^= *a;
                    }
                    // h2 = H(a0) ^ H(b0); the output's zero label makes this garbler's own G_2 zero.
                    let output = if single {
                        self.single_output(s, &shares[me], a.slot, b.slot, width)
                    } else {
                        let rho = tile_plane(self.rho, words, gate, tile);
                        let second = |i| Some(state.owned(i) + program.ands + gate);
                        self.own_share(&rho, second, tile, &mut s.c[..width]);
                        tile_plane(&state.lambda, words, gate, tile)
                    };
                    for (c, h2) in s.c[..width].iter_mut().zip(&s.h2) {
                        *c ^= *h2;
                    }
                    labels.row_mut(dst, width).copy_from_slice(&s.c[..width]);
                    if state.batch.sends_permutation(me) {
                        ends.permutation.push(low_bits(&s.c[..width]));
                    }
                    for i in state.others() {
                        self.halves(s, gate, first_lane, i, width);
                        let (g0, rest) = std::mem::take(&mut tables).split_at_mut(width);
                        let (g1, rest) = rest.split_at_mut(width);
                        let (g2, rest) = rest.split_at_mut(width);
                        tables = rest;
                        xor3(g0, &s.ha, shares[i].row(b.slot, width));
                        xor3(g1, &s.hb, shares[i].row(a.slot, width));
                        let row = state.owned(me) + program.ands + gate;
                        xor3(g2, &s.h2, state.correlation(&state.received[i], row, tile));
                    }
                    let own = |i| Some(state.owned(i) + gate);
                    self.own_share(&output, own, tile, shares[me].row_mut(dst, width));
                    for i in state.others() {
                        let mac = state.correlation(&state.received[i], state.owned(me) + gate, tile);
                        shares[i].row_mut(dst, width).copy_from_slice(mac);
                    }
                    gate += 1;
                }
            }
        }
        if single {
            // λ Δ has λ as its low bit.
            let output = |o: &crate::program::Operand| low_bits(shares[me].row(o.slot, width));
            ends.outputs = program.outputs.iter().map(output).collect();
        }
        ends
    }

    /// `λ^me Δ_me ^ XOR_i K_i`: this garbler's share of `λ Δ_me`. `row(i)` finds the keys.
    fn own_share(
        &self,
        lambda: &[u64; TILE / 64],
        row: impl Fn(usize) -> Option<usize>,
        tile: Tile,
        out: &mut [Block],
    ) {
        expand(lambda, out);
        for block in out.iter_mut() {
            *block = *block & self.delta.block();
        }
        for i in self.state.others() {
            if let Some(row) = row(i) {
                let keys = self.state.correlation(&self.state.keys[i], row, tile);
                for (out, key) in out.iter_mut().zip(keys) {
                    *out ^= *key;
                }
            }
        }
    }

    /// The hashes of one gate for one target: `ha = H(a0) ^ H(a1)`, `hb` likewise,
    /// `h2 = H(a0) ^ H(b0)`.
    fn halves(&self, s: &mut Scratch, gate: usize, first_lane: u32, target: usize, width: usize) {
        let layer = self.state.batch.layer;
        let side_a = Tweak::garble(layer, gate, first_lane, 0, target);
        let side_b = Tweak::garble(layer, gate, first_lane, 1, target);
        s.ha[..width].fill(Block::ZERO);
        s.hb[..width].fill(Block::ZERO);
        self.hash.hash_xor(&s.pa0[..width], side_a, &mut s.ha[..width]);
        self.hash.hash_xor(&s.pb0[..width], side_b, &mut s.hb[..width]);
        for ((h2, ha), hb) in s.h2[..width].iter_mut().zip(&s.ha).zip(&s.hb) {
            *h2 = *ha ^ *hb;
        }
        self.hash.hash_xor(&s.pa1[..width], side_a, &mut s.ha[..width]);
        self.hash.hash_xor(&s.pb1[..width], side_b, &mut s.hb[..width]);
    }

    /// With a single garbler, `ρ` is the low bit of `h2`: then every zero label of an AND's output
    /// has low bit 0, and `ẑ` is the low bit of the active label (Zahur, Rosulek, Evans 2015).
    /// Writes `ρ Δ` to `c` and gives `λ_c = ρ ^ λ_a λ_b`.
    fn single_output(
        &self,
        s: &mut Scratch,
        share: &Slots,
        a: u32,
        b: u32,
        width: usize,
    ) -> [u64; TILE / 64] {
        let rho = low_bits(&s.h2[..width]);
        expand(&rho, &mut s.c[..width]);
        for block in &mut s.c[..width] {
            *block = *block & self.delta.block();
        }
        let (left, right) = (low_bits(share.row(a, width)), low_bits(share.row(b, width)));
        std::array::from_fn(|w| rho[w] ^ (left[w] & right[w]))
    }
}

/// Rows of one gate.
#[derive(Zeroize, ZeroizeOnDrop)]
struct Scratch {
    a: [Block; TILE],
    b: [Block; TILE],
    c: [Block; TILE],
    pa0: [Block; TILE],
    pa1: [Block; TILE],
    pb0: [Block; TILE],
    pb1: [Block; TILE],
    ha: [Block; TILE],
    hb: [Block; TILE],
    h2: [Block; TILE],
}

impl Default for Scratch {
    fn default() -> Self {
        let row = [Block::ZERO; TILE];
        Scratch { a: row, b: row, c: row, pa0: row, pa1: row, pb0: row, pb1: row, ha: row, hb: row, h2: row }
    }
}

/// `out = row ^ by`.
fn offset(out: &mut [Block], row: &[Block], by: Block) {
    for (out, block) in out.iter_mut().zip(row) {
        *out = *block ^ by;
    }
}

fn xor3(out: &mut [Block], a: &[Block], b: &[Block]) {
    for ((out, a), b) in out.iter_mut().zip(a).zip(b) {
        *out = *a ^ *b;
    }
}
