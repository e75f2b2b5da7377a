//! One garbler of one batch: the steps of `protocol.md` section 5 as types, each consumed by the
//! next, so that no step can be repeated and none left out.
//!
//! [`Garbler::new`] draws masks, [`Garbler::choices`] are the choice bits of the correlated OTs
//! with the other garblers, [`Garbler::correlate`] takes their results, [`Correlated::cross`] and
//! [`Crossed::correct`] exchange one bit per AND and ordered pair each, [`Corrected::garble`] gives
//! the tables. With a single garbler nothing is exchanged and this is half-gates garbling.

use rand_core::CryptoRng;
use rayon::prelude::*;
use seco_ot::{Bits, Block, Delta, Prg};
use zeroize::{Zeroize, Zeroizing};

use crate::batch::{Batch, Planes, Slots, TILE, Tile, expand, low_bits, owns, pack, ranks, tile_plane};
use crate::error::Error;
use crate::hash::{Hash, Tweak};
use crate::program::{Op, Source};
use crate::slices::{clear_tail, from_lanes};

pub use crate::online::OnlineGarbler;

/// Masks are drawn; waiting for the correlations.
pub struct Garbler {
    state: State,
}

/// What all steps share.
struct State {
    batch: Batch,
    position: usize,
    /// Planes of `λ^j` for every input wire, zero where this garbler has no share.
    inputs: Zeroizing<Vec<u64>>,
    /// Planes of `λ_c^j` for every AND.
    lambda: Zeroizing<Vec<u64>>,
    /// Planes of the second choice bit of every AND, whose correlation becomes that of `ρ^j`.
    second: Zeroizing<Vec<u64>>,
    /// `received[i]`: `M` towards garbler `i`; empty for this garbler.
    received: Vec<Zeroizing<Vec<Block>>>,
    /// `keys[i]`: `K` for garbler `i`'s choice bits; empty for this garbler.
    keys: Vec<Zeroizing<Vec<Block>>>,
    /// Zero labels of the evaluator's random bits.
    choice_labels: Zeroizing<Vec<Block>>,
}

impl State {
    fn ands(&self) -> usize {
        self.batch.circuit.program.ands
    }

    fn others(&self) -> impl Iterator<Item = usize> + use<> {
        let me = self.position;
        (0..self.batch.garblers()).filter(move |&i| i != me)
    }

    /// Row of the correlated OTs of an input wire, per receiving garbler.
    fn correlation_rows(&self) -> Vec<Vec<Option<usize>>> {
        let sources: Vec<Source> = self.batch.circuit.program.sources().collect();
        (0..self.batch.garblers()).map(|j| ranks(&sources, |s| owns(s, j))).collect()
    }

    /// Number of input wires that a garbler has a share of: the rows before its ANDs'.
    fn owned(&self, position: usize) -> usize {
        self.batch.circuit.program.count(|s| owns(s, position))
    }

    /// One row of correlated OTs, the tile's lanes.
    fn correlation<'a>(&self, blocks: &'a [Block], row: usize, tile: Tile) -> &'a [Block] {
        let start = row * self.batch.stride() + tile.start;
        &blocks[start..start + tile.width]
    }
}

impl Garbler {
    /// Draws the masks. `ahead` are this garbler's words that are random and known ahead, in the
    /// order of [`crate::circuits::Circuit`]'s input words: one value per lane each.
    pub fn new(
        batch: Batch,
        position: usize,
        ahead: &[&[u32]],
        rng: &mut impl CryptoRng,
    ) -> Result<Garbler, Error> {
        let (words, lanes) = (batch.words(), batch.lanes);
        let program = &batch.circuit.program;
        let mut ahead = ahead.iter();
        let mut inputs = Zeroizing::new(Vec::with_capacity(words * program.sources().count()));
        for word in &program.words {
            match word.source {
                Source::Ahead(owner) if owner == position => {
                    let values = ahead.next().filter(|v| v.len() == lanes);
                    inputs.extend(from_lanes(values.ok_or(Error::Shape("garbler inputs"))?, word.width));
                }
                source if owns(source, position) => {
                    inputs.extend(random_planes(word.width, lanes, rng).iter());
                }
                _ => inputs.extend(std::iter::repeat_n(0, words * word.width)),
            }
        }
        if ahead.next().is_some() {
            return Err(Error::Shape("garbler inputs"));
        }
        // A single garbler's masks of AND outputs follow from the garbling.
        let drawn = if batch.garblers() > 1 { program.ands } else { 0 };
        let lambda = random_planes(drawn, lanes, rng);
        let second = random_planes(drawn, lanes, rng);
        let none = || (0..batch.garblers()).map(|_| Zeroizing::new(Vec::new())).collect();
        let (received, keys) = (none(), none());
        let choice_labels = Zeroizing::new(Vec::new());
        Ok(Garbler {
            state: State { batch, position, inputs, lambda, second, received, keys, choice_labels },
        })
    }

    /// Choice bits of the correlated OTs towards every other garbler, the same for each.
    pub fn choices(&self) -> Bits {
        let state = &self.state;
        if state.batch.garblers() < 2 {
            return Bits::zeros(0);
        }
        let words = state.batch.words();
        let mut out = Zeroizing::new(Vec::new());
        for (source, plane) in state.batch.circuit.program.sources().zip(state.inputs.chunks(words)) {
            if owns(source, state.position) {
                out.extend_from_slice(plane);
            }
        }
        out.extend_from_slice(&state.lambda);
        out.extend_from_slice(&state.second);
        let bits = out.len() * 64;
        Bits::from_words(std::mem::take(&mut *out), bits)
    }

    /// Takes the correlations: towards (`received`) and from (`keys`) every garbler by position, an
    /// empty vector at this garbler's own; and the zero labels of the evaluator's random bits.
    pub fn correlate(
        mut self,
        received: Vec<Zeroizing<Vec<Block>>>,
        keys: Vec<Zeroizing<Vec<Block>>>,
        choice_labels: Zeroizing<Vec<Block>>,
    ) -> Result<Correlated, Error> {
        let state = &mut self.state;
        let (batch, me) = (&state.batch, state.position);
        let fits = |vectors: &[Zeroizing<Vec<Block>>], expected: &dyn Fn(usize) -> usize| {
            vectors.len() == batch.garblers()
                && vectors.iter().enumerate().all(|(i, v)| v.len() == if i == me { 0 } else { expected(i) })
        };
        if !fits(&received, &|_| batch.garbler_correlations(me))
            || !fits(&keys, &|i| batch.garbler_correlations(i))
            || choice_labels.len() != batch.evaluator_correlations()
        {
            return Err(Error::Shape("correlations"));
        }
        state.received = received;
        state.keys = keys;
        state.choice_labels = choice_labels;
        Ok(Correlated { state: self.state })
    }
}

/// Correlations are there; the cross terms of `λ_a λ_b` come next.
pub struct Correlated {
    state: State,
}

/// What the pass over cross terms leaves behind for one tile.
struct CrossTile {
    tile: Tile,
    /// Per AND: this garbler's share of `λ_a λ_b` so far.
    share: Vec<[u64; TILE / 64]>,
    /// Per AND: `λ_a^j`, which the others' bits are multiplied by.
    left: Vec<[u64; TILE / 64]>,
    /// Per other garbler, per AND: the bit to send.
    send: Vec<Vec<[u64; TILE / 64]>>,
    /// Per output: `λ^j`.
    outputs: Vec<[u64; TILE / 64]>,
}

impl Correlated {
    /// Computes the local part of the cross terms and the bits for every other garbler (by position;
    /// empty for this one). `hash` has the batch's key.
    pub fn cross(self, delta: &Delta, hash: &impl Hash) -> (Crossed, Vec<Vec<u8>>) {
        let state = self.state;
        let (words, ands) = (state.batch.words(), state.ands());
        let garblers = state.batch.garblers();
        let mut crossed =
            Crossed { share: Vec::new(), left: Vec::new(), outputs: Zeroizing::new(Vec::new()), state };
        if garblers < 2 {
            return (crossed, vec![Vec::new()]);
        }
        let state = &crossed.state;
        let rows = state.correlation_rows();
        let tiles: Vec<Tile> = state.batch.tiles().collect();
        let done: Vec<CrossTile> =
            tiles.into_par_iter().map(|tile| cross_tile(state, &rows, tile, delta, hash)).collect();
        let mut share = vec![0u64; ands * words];
        let mut left = vec![0u64; ands * words];
        let mut outputs = vec![0u64; state.batch.circuit.program.outputs.len() * words];
        let mut messages = vec![Zeroizing::new(vec![0u64; ands * words]); garblers];
        for part in &done {
            scatter(&part.share, part.tile, words, &mut share);
            scatter(&part.left, part.tile, words, &mut left);
            scatter(&part.outputs, part.tile, words, &mut outputs);
            for (i, bits) in state.others().zip(&part.send) {
                scatter(bits, part.tile, words, &mut messages[i]);
            }
        }
        let messages = messages
            .iter()
            .enumerate()
            .map(|(i, m)| if i == state.position { Vec::new() } else { to_bytes(m) })
            .collect();
        (crossed.share, crossed.left, crossed.outputs) = (share, left, Zeroizing::new(outputs));
        (crossed, messages)
    }
}

/// One pass over a tile: spreads masks and correlations through the circuit and, for every AND,
/// turns the correlation of `λ_a` into shares of `λ_a^j λ_b^i` (`protocol.md` section 5, "AND gate").
fn cross_tile(
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
    out
}

/// Cross bits are out; the others' come in.
pub struct Crossed {
    state: State,
    share: Vec<u64>,
    left: Vec<u64>,
    outputs: Zeroizing<Vec<u64>>,
}

impl Crossed {
    /// Takes the other garblers' bits (by position; this garbler's own is ignored) and gives the one
    /// message for all of them: by how much each second choice bit differs from `ρ^j`.
    pub fn correct(mut self, incoming: &[Vec<u8>]) -> Result<(Corrected, Vec<u8>), Error> {
        let state = &mut self.state;
        let expected = state.batch.bit_bytes();
        let mut message = Vec::new();
        if state.batch.garblers() > 1 {
            for i in state.others() {
                let bits = incoming.get(i).map_or(&[][..], Vec::as_slice);
                let bits = from_bytes(bits, expected, "cross bits")?;
                for ((share, left), bit) in self.share.iter_mut().zip(&self.left).zip(bits) {
                    *share ^= left & bit;
                }
            }
            let ands = state.ands();
            // share becomes ρ^j = (share of λ_a λ_b) ^ λ_c^j, `second` the correction ρ^j ^ choice.
            for ((share, lambda), second) in
                self.share.iter_mut().zip(state.lambda.iter()).zip(state.second.iter_mut())
            {
                *share ^= lambda;
                *second ^= *share;
            }
            if ands > 0 {
                clear_tail(&mut state.second, state.batch.lanes);
            }
            message = to_bytes(&state.second);
        }
        self.left.zeroize();
        Ok((Corrected { state: self.state, rho: Zeroizing::new(self.share), outputs: self.outputs }, message))
    }
}

/// Everything is known that the tables need.
pub struct Corrected {
    state: State,
    rho: Zeroizing<Vec<u64>>,
    outputs: Zeroizing<Vec<u64>>,
}

impl Corrected {
    /// Garbles. `incoming` are the other garblers' corrections by position. Gives what stays for the
    /// online phase and the message for the evaluator, of [`Batch::table_bytes`].
    pub fn garble(
        mut self,
        delta: &Delta,
        incoming: &[Vec<u8>],
        hash: &impl Hash,
        rng: &mut impl CryptoRng,
    ) -> Result<(OnlineGarbler, Vec<u8>), Error> {
        self.apply_corrections(delta, incoming)?;
        let Corrected { state, rho, mut outputs } = self;
        let batch = &state.batch;
        let program = &batch.circuit.program;
        let (lanes, words, garblers) = (batch.lanes, batch.words(), batch.garblers());
        let seed = Block::random(rng);
        let mut ahead =
            Zeroizing::new(vec![Block::ZERO; program.count(|s| matches!(s, Source::Ahead(_))) * lanes]);
        Prg::new(seed).fill(&mut ahead);
        let mut online = Zeroizing::new(vec![Block::ZERO; batch.online_inputs() * lanes]);
        Prg::new(Block::random(rng)).fill(&mut online);

        let pass = Pass { state: &state, rho: &rho, delta, hash, rows: state.correlation_rows() };
        let zero_labels = ZeroLabels::new(&state, &ahead, &online);
        let per_tile = batch.rows_sent() * program.ands * TILE;
        let mut tables = vec![Block::ZERO; batch.rows_sent() * program.ands * lanes];
        let tiles: Vec<Tile> = batch.tiles().collect();
        let ends: Vec<TileEnds> = if per_tile == 0 {
            tiles.iter().map(|&tile| pass.tile(tile, &zero_labels, &mut [])).collect()
        } else {
            tables
                .par_chunks_mut(per_tile)
                .zip(&tiles)
                .map(|(tables, &tile)| pass.tile(tile, &zero_labels, tables))
                .collect()
        };
        let mut permutation = vec![0u64; program.ands * words];
        if garblers == 1 {
            *outputs = vec![0u64; program.outputs.len() * words];
        }
        for (end, &tile) in ends.iter().zip(&tiles) {
            scatter(&end.permutation, tile, words, &mut permutation);
            if garblers == 1 {
                scatter(&end.outputs, tile, words, &mut outputs);
            }
        }
        let mut message = Vec::with_capacity(batch.table_bytes(state.position));
        message.extend_from_slice(&seed.to_bytes());
        message.extend_from_slice(bytemuck::cast_slice(&tables));
        if batch.sends_permutation(state.position) {
            message.extend_from_slice(&to_bytes(&permutation));
        }
        clear_tail(&mut outputs, lanes);
        message.extend_from_slice(&to_bytes(&outputs));
        let inputs = state.inputs.clone();
        let online = OnlineGarbler::new(state.batch.clone(), state.position, online, inputs);
        Ok((online, message))
    }

    /// `K' = K ^ d Δ`: the second correlation of every AND becomes that of the sender's `ρ`.
    fn apply_corrections(&mut self, delta: &Delta, incoming: &[Vec<u8>]) -> Result<(), Error> {
        let state = &mut self.state;
        if state.batch.garblers() < 2 {
            return Ok(());
        }
        let (expected, ands) = (state.batch.bit_bytes(), state.ands());
        let (words, stride) = (state.batch.words(), state.batch.stride());
        for i in state.others() {
            let bits = incoming.get(i).map_or(&[][..], Vec::as_slice);
            let bits = from_bytes(bits, expected, "corrections")?;
            let start = (state.owned(i) + ands) * stride;
            let keys = &mut state.keys[i][start..];
            for (plane, keys) in bits.chunks(words).zip(keys.chunks_mut(stride)) {
                for (lane, key) in keys.iter_mut().enumerate() {
                    *key ^= delta.block().select(plane[lane / 64] >> (lane % 64) & 1 == 1);
                }
            }
        }
        Ok(())
    }
}

/// Zero labels of input wires, by class.
struct ZeroLabels<'a> {
    rows: Vec<(&'a [Block], usize)>,
}

impl<'a> ZeroLabels<'a> {
    fn new(state: &'a State, ahead: &'a [Block], online: &'a [Block]) -> Self {
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
struct Pass<'a, H> {
    state: &'a State,
    rho: &'a [u64],
    delta: &'a Delta,
    hash: &'a H,
    rows: Vec<Vec<Option<usize>>>,
}

/// What a tile leaves besides its tables.
struct TileEnds {
    permutation: Vec<[u64; TILE / 64]>,
    outputs: Vec<[u64; TILE / 64]>,
}

impl<H: Hash> Pass<'_, H> {
    /// Garbles one tile: per AND, first this garbler's own `G_0`, `G_1`, then `G_0`, `G_1`, `G_2`
    /// for every other target.
    fn tile(&self, tile: Tile, zero_labels: &ZeroLabels, mut tables: &mut [Block]) -> TileEnds {
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
                    let offset = |negated: bool| delta.select(negated);
                    let s = &mut scratch;
                    for lane in 0..width {
                        s.a[lane] = labels.row(a.slot, width)[lane] ^ offset(a.negated);
                        s.b[lane] = labels.row(b.slot, width)[lane] ^ offset(b.negated);
                    }
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

impl Drop for Scratch {
    fn drop(&mut self) {
        for row in [
            &mut self.a,
            &mut self.b,
            &mut self.c,
            &mut self.pa0,
            &mut self.pa1,
            &mut self.pb0,
            &mut self.pb1,
            &mut self.ha,
            &mut self.hb,
            &mut self.h2,
        ] {
            row.zeroize();
        }
    }
}

fn xor3(out: &mut [Block], a: &[Block], b: &[Block]) {
    for ((out, a), b) in out.iter_mut().zip(a).zip(b) {
        *out = *a ^ *b;
    }
}

/// Copies the row that `find` gives, or zeros where there is none.
fn load<'a>(dst: &mut [Block], row: Option<usize>, find: impl FnOnce(usize) -> &'a [Block]) {
    match row {
        Some(row) => dst.copy_from_slice(find(row)),
        None => dst.fill(Block::ZERO),
    }
}

fn scatter(parts: &[[u64; TILE / 64]], tile: Tile, words: usize, out: &mut [u64]) {
    for (row, part) in parts.iter().enumerate() {
        let range = tile.word_range();
        out[row * words + range.start..row * words + range.end].copy_from_slice(&part[..tile.words()]);
    }
}

/// Random planes; bits past the last lane are zero.
fn random_planes(count: usize, lanes: usize, rng: &mut impl CryptoRng) -> Zeroizing<Vec<u64>> {
    let mut planes = Zeroizing::new(vec![0u64; count * crate::slices::plane_words(lanes)]);
    rng.fill_bytes(bytemuck::cast_slice_mut(&mut planes));
    clear_tail(&mut planes, lanes);
    planes
}

pub(crate) fn to_bytes(words: &[u64]) -> Vec<u8> {
    words.iter().flat_map(|w| w.to_le_bytes()).collect()
}

pub(crate) fn from_bytes(bytes: &[u8], expected: usize, what: &'static str) -> Result<Vec<u64>, Error> {
    if bytes.len() != expected || !expected.is_multiple_of(8) {
        return Err(Error::Length { what, got: bytes.len(), expected });
    }
    Ok(bytes.chunks_exact(8).map(|c| u64::from_le_bytes(std::array::from_fn(|i| c[i]))).collect())
}
