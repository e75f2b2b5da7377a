//! One garbler of one batch: the steps of `protocol.md` section 5 as types, each consumed by the
//! next, so that no step can be repeated and none left out.
//!
//! [`Garbler::new`] draws masks, [`Garbler::choices`] are the choice bits of the correlated OTs
//! with the other garblers, [`Garbler::correlate`] takes their results, [`Correlated::cross`] and
//! [`Crossed::correct`] exchange one bit per AND and ordered pair each, [`Corrected::garble`] gives
//! the tables. With a single garbler nothing is exchanged and this is half-gates garbling.

mod cross;
mod tables;

use rand_core::CryptoRng;
use rayon::prelude::*;
use seco_ot::{Bits, Block, Chunk, Delta, Engine, LANES, Prg};
use zeroize::Zeroizing;

use self::cross::{Cross, CrossSlots, CrossTile};
use self::tables::{Pass, TableSlots, Tables, TileEnds, ZeroLabels};
use crate::batch::{Batch, TILE, Tile, owns, ranks, scatter, tiles_together};
use crate::error::Error;
use crate::hash::Hash;
use crate::online::OnlineGarbler;
use crate::program::Source;
use crate::slices::{clear_tail, from_bytes, from_lanes, to_bytes};

/// Masks are drawn; waiting for the correlations.
pub struct Garbler {
    state: State,
}

/// What all steps share.
struct State {
    batch: Batch,
    position: usize,
    /// Rows of every garbler's correlated OTs: its input wires, its ANDs' `λ_c`, and their second choice bits.
    rows: Vec<usize>,
    /// Planes of `λ^j` for every input wire, zero where this garbler has no share.
    inputs: Zeroizing<Vec<u64>>,
    /// Planes of `λ_c^j` for every AND.
    lambda: Zeroizing<Vec<u64>>,
    /// Planes of the second choice bit of every AND, whose correlation becomes that of `ρ^j`.
    second: Zeroizing<Vec<u64>>,
    /// `received[i]`: `M` towards garbler `i`; empty for this garbler. By tile, then by row, so that each
    /// pass reads them from one end to the other.
    received: Vec<Zeroizing<Vec<Block>>>,
    /// `keys[i]`: `K` for garbler `i`'s choice bits; empty for this garbler. In the same order.
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

    /// A tile's `K` for row `row` of garbler `i`'s choice bits.
    #[inline(always)]
    fn keys(&self, i: usize, row: usize, tile: Tile) -> RowPair<'_> {
        tile_row(&self.keys[i], self.rows[i], row, tile)
    }

    /// A tile's `M` towards garbler `i` for row `row` of this garbler's choice bits.
    #[inline(always)]
    fn received(&self, i: usize, row: usize, tile: Tile) -> RowPair<'_> {
        tile_row(&self.received[i], self.rows[self.position], row, tile)
    }
}

/// A tile's part of a row of correlated OTs, padded to whole vectors, and the row that comes next.
#[derive(Clone, Copy, Default)]
struct RowPair<'a> {
    row: &'a [Chunk],
    next: &'a [Chunk],
}

impl<'a> RowPair<'a> {
    /// Vector `c`; fetches that of the next row.
    #[inline(always)]
    fn load<E: Engine>(&self, engine: &E, c: usize) -> E::Lanes {
        if let Some(next) = self.next.get(c) {
            engine.prefetch(bytemuck::cast_ref::<Chunk, [[u8; 16]; LANES]>(next));
        }
        engine.load(&self.row[c])
    }
}

/// Of correlated OTs of `rows` rows.
#[inline(always)]
fn tile_row(blocks: &[Block], rows: usize, row: usize, tile: Tile) -> RowPair<'_> {
    let (start, vectors) = (rows * tile.start + row * tile.padded(), tile.padded() / LANES);
    let (row, next) = blocks[start..].as_chunks().0.split_at(vectors);
    RowPair { row, next: next.get(..vectors).unwrap_or_default() }
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
        program.check()?;
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
        let rows = (0..batch.garblers()).map(|i| batch.correlation_rows(i)).collect();
        Ok(Garbler {
            state: State { batch, position, rows, inputs, lambda, second, received, keys, choice_labels },
        })
    }

    /// Choice bits of the correlated OTs towards every other garbler, the same for each: tile by tile, the rows
    /// of the input wires' masks, the ANDs' masks and the ANDs' second choices.
    pub fn choices(&self) -> Bits {
        let state = &self.state;
        if state.batch.garblers() < 2 {
            return Bits::zeros(0);
        }
        let words = state.batch.words();
        let inputs = state.batch.circuit.program.sources().zip(state.inputs.chunks(words));
        let inputs = inputs.filter(|&(source, _)| owns(source, state.position)).map(|(_, plane)| plane);
        let planes: Vec<&[u64]> =
            inputs.chain(state.lambda.chunks(words)).chain(state.second.chunks(words)).collect();
        let mut out = Zeroizing::new(Vec::with_capacity(planes.len() * words));
        for tile in state.batch.tiles() {
            planes.iter().for_each(|plane| out.extend_from_slice(&plane[tile.word_range()]));
        }
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

impl Correlated {
    /// Computes the local part of the cross terms and the bits for every other garbler (by position;
    /// empty for this one). `hash` has the batch's key.
    pub fn cross(self, delta: &Delta, hash: &impl Hash) -> (Crossed, Vec<Vec<u8>>) {
        let state = self.state;
        let (words, ands) = (state.batch.words(), state.ands());
        let garblers = state.batch.garblers();
        let (share, left, outputs) = Default::default();
        let mut crossed = Crossed { share, left, outputs, state };
        if garblers < 2 {
            return (crossed, vec![Vec::new()]);
        }
        let state = &crossed.state;
        let rows = state.correlation_rows();
        let tiles: Vec<Tile> = state.batch.tiles().collect();
        let done: Vec<CrossTile> = tiles
            .par_chunks(tiles_together(tiles.len()))
            .flat_map_iter(|tiles| {
                let mut slots = CrossSlots::new(state);
                let pass = |&tile| hash.run(Cross { state, rows: &rows, tile, delta, slots: &mut slots });
                tiles.iter().map(pass).collect::<Vec<_>>()
            })
            .collect();
        let mut share = Zeroizing::new(vec![0u64; ands * words]);
        let mut left = Zeroizing::new(vec![0u64; ands * words]);
        let mut outputs = Zeroizing::new(vec![0u64; state.batch.circuit.program.outputs.len() * words]);
        let mut messages = vec![Zeroizing::new(vec![0u64; ands * words]); garblers];
        for part in &done {
            scatter(&part.share, part.tile, words, &mut share);
            scatter(&part.left, part.tile, words, &mut left);
            scatter(&part.outputs, part.tile, words, &mut outputs);
            for (i, bits) in state.others().zip(&part.send) {
                scatter(bits, part.tile, words, &mut messages[i]);
            }
        }
        // Past the last lane the passes leave whatever lay in their memory.
        messages.iter_mut().for_each(|planes| clear_tail(planes, state.batch.lanes));
        let messages = messages
            .iter()
            .enumerate()
            .map(|(i, m)| if i == state.position { Vec::new() } else { to_bytes(m) })
            .collect();
        (crossed.share, crossed.left, crossed.outputs) = (share, left, outputs);
        (crossed, messages)
    }
}

/// Cross bits are out; the others' come in.
pub struct Crossed {
    state: State,
    share: Zeroizing<Vec<u64>>,
    left: Zeroizing<Vec<u64>>,
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
                for ((share, left), bit) in self.share.iter_mut().zip(self.left.iter()).zip(bits) {
                    *share ^= left & bit;
                }
            }
            // share becomes ρ^j = (share of λ_a λ_b) ^ λ_c^j, `second` the correction ρ^j ^ choice.
            for ((share, lambda), second) in
                self.share.iter_mut().zip(state.lambda.iter()).zip(state.second.iter_mut())
            {
                *share ^= lambda;
                *second ^= *share;
            }
            clear_tail(&mut state.second, state.batch.lanes);
            message = to_bytes(&state.second);
        }
        Ok((Corrected { state: self.state, rho: self.share, outputs: self.outputs }, message))
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
    /// online phase and the message for the evaluator, of [`Batch::table_bytes`]. `buffer` is memory
    /// for the message: all of it is overwritten.
    pub fn garble(
        self,
        delta: &Delta,
        incoming: &[Vec<u8>],
        hash: &impl Hash,
        rng: &mut impl CryptoRng,
        buffer: Vec<u8>,
    ) -> Result<(OnlineGarbler, Vec<u8>), Error> {
        let Corrected { state, rho, mut outputs } = self;
        let batch = &state.batch;
        let program = &batch.circuit.program;
        let (lanes, words, garblers) = (batch.lanes, batch.words(), batch.garblers());
        let seed = Block::random(rng);
        let mut ahead =
            Zeroizing::new(vec![Block::ZERO; program.count(|s| matches!(s, Source::Ahead(_))) * lanes]);
        Prg::new(seed).fill(&mut ahead);
        let online_seed = Block::random(rng);
        let online = OnlineGarbler::zero_labels(batch, online_seed);

        let pass = Pass::new(&state, &rho, delta, incoming)?;
        let zero_labels = ZeroLabels::new(&state, &ahead, &online);
        let table_bytes = batch.rows_sent() * program.ands * lanes * 16;
        let mut message = buffer;
        message.resize(batch.table_bytes(state.position), 0);
        let (head, rest) = message.split_at_mut(16);
        head.copy_from_slice(&seed.to_bytes());
        let (tables, tail) = rest.split_at_mut(table_bytes);
        let (tables, _) = tables.as_chunks_mut();
        let tiles: Vec<Tile> = batch.tiles().collect();
        let (together, per_tile) = (tiles_together(tiles.len()), batch.rows_sent() * program.ands * TILE);
        // Even a circuit without ANDs, which has no tables, has outputs.
        let mut parts = tables.chunks_mut((together * per_tile).max(1)).collect::<Vec<_>>();
        parts.resize_with(tiles.len().div_ceil(together), Default::default);
        let ends: Vec<TileEnds> = parts
            .into_par_iter()
            .zip(tiles.par_chunks(together))
            .flat_map_iter(|(mut tables, tiles)| {
                let mut slots = TableSlots::new(&state);
                let (pass, zero_labels) = (&pass, &zero_labels);
                let garble = |&tile: &Tile| {
                    let part = batch.rows_sent() * program.ands * tile.width;
                    let (part, rest) = std::mem::take(&mut tables).split_at_mut(part);
                    tables = rest;
                    hash.run(Tables { pass, tile, zero_labels, slots: &mut slots, tables: part })
                };
                tiles.iter().map(garble).collect::<Vec<_>>()
            })
            .collect();
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
        clear_tail(&mut outputs, lanes);
        clear_tail(&mut permutation, lanes);
        let permutation = if batch.sends_permutation(state.position) { permutation } else { Vec::new() };
        let words = permutation.iter().chain(outputs.iter());
        for (bytes, word) in tail.chunks_exact_mut(8).zip(words) {
            bytes.copy_from_slice(&word.to_le_bytes());
        }
        let online = OnlineGarbler::new(state.batch.clone(), state.position, online_seed, &state.inputs);
        Ok((online, message))
    }
}

/// Random planes; bits past the last lane are zero.
fn random_planes(count: usize, lanes: usize, rng: &mut impl CryptoRng) -> Zeroizing<Vec<u64>> {
    let mut planes = Zeroizing::new(vec![0u64; count * crate::slices::plane_words(lanes)]);
    rng.fill_bytes(bytemuck::cast_slice_mut(&mut planes));
    clear_tail(&mut planes, lanes);
    planes
}
