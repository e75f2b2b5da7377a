//! One garbler of one batch: the steps of section 5 of PROTOCOL.md as types, each consumed by the
//! next, so that no step can be repeated and none left out.
//!
//! [`Garbler::new`] draws masks, [`Garbler::choices`] are the choice bits of the correlated OTs
//! with the other garblers, [`Garbler::correlate`] takes their results, [`Correlated::cross`] and
//! [`Crossed::correct`] exchange one bit per AND and ordered pair each, [`Corrected::garble`] gives
//! the tables. With a single garbler nothing is exchanged and this is half-gates garbling.

mod cross;
#[cfg(test)]
pub(crate) mod reference;
mod tables;

use rand_core::CryptoRng;
use rayon::prelude::*;
use seco_ot::{Bits, Block, Chunk, Delta, Engine, Keys, LANES, Macs};
use zeroize::Zeroizing;

use self::cross::{Cross, CrossSlots, CrossTile};
use self::tables::{Pass, TableSlots, Tables, TileEnds, ZeroLabels};
use crate::batch::{Batch, Labels, Row, TILE, Tile, Zero, scatter, tiles_together};
use crate::bits::{LambdaBits, RhoBits};
use crate::error::Error;
use crate::hash::Hash;
use crate::online::OnlineGarbler;
use crate::program::{Input, Op, Source};
use crate::slices::{clear_tail, from_bytes, random_planes, to_bytes};

/// Masks are drawn; waiting for the correlations.
pub struct Garbler {
    state: State,
}

/// What all steps share.
struct State {
    batch: Batch,
    position: usize,
    /// Planes of this garbler's bits of the random wires, its shares of their masks.
    random: Zeroizing<Vec<u64>>,
    /// Planes of `λ_c^j` for every AND.
    lambda: Zeroizing<Vec<u64>>,
    /// Planes of the second choice bit of every AND with cross terms, whose correlation becomes that of `ρ^j`.
    second: Zeroizing<Vec<u64>>,
    /// Planes of `λ^j` for every output.
    outputs: Zeroizing<Vec<u64>>,
    /// `received[i]`: `M` towards garbler `i`; empty for this garbler. By tile, then by row, so that each
    /// pass reads them from one end to the other.
    received: Vec<Macs>,
    /// `keys[i]`: `K` for garbler `i`'s choice bits; empty for this garbler. In the same order.
    keys: Vec<Keys>,
    /// Zero labels of the random wires: `K` for the evaluator's bits.
    choice_labels: Keys,
}

impl State {
    fn others(&self) -> impl Iterator<Item = usize> + use<> {
        let me = self.position;
        (0..self.batch.garblers).filter(move |&i| i != me)
    }

    /// A tile's `K` for row `row` of garbler `i`'s choice bits.
    #[inline(always)]
    fn keys(&self, i: usize, row: usize, tile: Tile) -> RowPair<'_> {
        tile_row(self.keys[i].blocks(), self.batch.correlation_rows(), row, tile)
    }

    /// A tile's `M` towards garbler `i` for row `row` of this garbler's choice bits.
    #[inline(always)]
    fn received(&self, i: usize, row: usize, tile: Tile) -> RowPair<'_> {
        tile_row(self.received[i].blocks(), self.batch.correlation_rows(), row, tile)
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
    /// Draws this garbler's bits of the random wires and the masks.
    pub fn new(batch: Batch, position: usize, rng: &mut impl CryptoRng) -> Result<Garbler, Error> {
        let (lanes, program) = (batch.lanes, &batch.program);
        program.check()?;
        let random = random_planes(batch.random_wires(), lanes, rng);
        let lambda = random_planes(program.ands, lanes, rng);
        let drawn = if batch.garblers > 1 { program.crossed.len() } else { 0 };
        let second = random_planes(drawn, lanes, rng);
        let outputs = output_masks(&batch, &random, &lambda);
        let (received, keys, choice_labels) = (Vec::new(), Vec::new(), Keys::default());
        Ok(Garbler {
            state: State { batch, position, random, lambda, second, outputs, received, keys, choice_labels },
        })
    }

    /// Planes of this garbler's bits of the random wires.
    pub fn random(&self) -> RhoBits {
        RhoBits::new(self.state.random.clone())
    }

    /// Planes of `λ^j` of the outputs. Those of output 0 are the choice bits of the one correlated OT towards the
    /// evaluator.
    pub fn output_masks(&self) -> LambdaBits {
        LambdaBits::new(self.state.outputs.clone())
    }

    /// Choice bits of the correlated OTs towards every other garbler, the same for each: tile by tile, the rows
    /// of the random wires, of the ANDs' masks and of the second choices.
    pub fn choices(&self) -> Bits {
        let state = &self.state;
        if state.batch.garblers < 2 {
            return Bits::zeros(0);
        }
        let words = state.batch.words();
        let parts = [&state.random, &state.lambda, &state.second];
        let planes: Vec<&[u64]> = parts.iter().flat_map(|part| part.chunks(words)).collect();
        let mut out = Zeroizing::new(Vec::with_capacity(planes.len() * words));
        for tile in state.batch.tiles() {
            planes.iter().for_each(|plane| out.extend_from_slice(&plane[tile.word_range()]));
        }
        let bits = out.len() * 64;
        Bits::from_words(std::mem::take(&mut *out), bits)
    }

    /// Takes the correlations: towards (`received`) and from (`keys`) every garbler by position, none
    /// at this garbler's own; and the zero labels of the random wires, keys towards the evaluator.
    pub fn correlate(
        mut self,
        received: Vec<Macs>,
        keys: Vec<Keys>,
        choice_labels: Keys,
    ) -> Result<Correlated, Error> {
        let state = &mut self.state;
        let (batch, me) = (&state.batch, state.position);
        let expected = |i: usize| if i == me { 0 } else { batch.garbler_correlations() };
        let fits = received.len() == batch.garblers
            && keys.len() == batch.garblers
            && received.iter().enumerate().all(|(i, macs)| macs.len() == expected(i))
            && keys.iter().enumerate().all(|(i, keys)| keys.len() == expected(i));
        if !fits || choice_labels.len() != batch.evaluator_correlations() {
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
    /// Computes the local part of the cross terms and the bits for every other garbler ([`Crossed::message`]), and
    /// spreads the correlations to the outputs. `hash` has the batch's key.
    pub fn cross(self, delta: &Delta, hash: &impl Hash) -> (Crossed, OutputCorrelations) {
        let state = &self.state;
        let (batch, words) = (&state.batch, state.batch.words());
        let crossed = batch.program.crossed.len();
        let inputs = batch.program.inputs();
        let tiles: Vec<Tile> = batch.tiles().collect();
        let done: Vec<CrossTile> = tiles
            .par_chunks(tiles_together(tiles.len()))
            .flat_map_iter(|tiles| {
                let mut slots = CrossSlots::new(state);
                let pass = |&tile| hash.run(Cross { state, inputs: &inputs, tile, delta, slots: &mut slots });
                tiles.iter().map(pass).collect::<Vec<_>>()
            })
            .collect();
        let mut share = Zeroizing::new(vec![0u64; crossed * words]);
        let mut left = Zeroizing::new(vec![0u64; crossed * words]);
        let mut messages = vec![Zeroizing::new(vec![0u64; crossed * words]); batch.garblers];
        let mut outputs = OutputCorrelations::zeros(batch);
        for part in &done {
            scatter(&part.share, part.tile, words, &mut share);
            scatter(&part.left, part.tile, words, &mut left);
            for ((i, bits), rows) in state.others().zip(&part.send).zip(&part.outputs) {
                scatter(bits, part.tile, words, &mut messages[i]);
                for (output, [key, mac]) in rows.iter().enumerate() {
                    outputs.put(i, output, part.tile, key, mac);
                }
            }
        }
        // Past the last lane the passes leave whatever lay in their memory.
        messages.iter_mut().for_each(|planes| clear_tail(planes, batch.lanes));
        let messages = messages
            .iter()
            .enumerate()
            .map(|(i, m)| if i == state.position { Vec::new() } else { to_bytes(m) })
            .collect();
        (Crossed { share, left, messages, state: self.state }, outputs)
    }
}

/// The correlations of the outputs' masks `λ^j` between this garbler and every other: sums of those of inputs and
/// ANDs, for correlations are XOR-linear.
pub struct OutputCorrelations {
    stride: usize,
    /// By garbler, by output: rows of `stride`.
    keys: Vec<Keys>,
    macs: Vec<Macs>,
}

impl OutputCorrelations {
    fn zeros(batch: &Batch) -> Self {
        let (garblers, stride) = (0..batch.garblers, batch.stride());
        let count = batch.program.outputs.len() * stride;
        let keys = garblers.clone().map(|_| Keys::zeros(count)).collect();
        Self { stride, keys, macs: garblers.map(|_| Macs::zeros(count)).collect() }
    }

    fn put(&mut self, other: usize, output: usize, tile: Tile, key: &Row, mac: &Row) {
        let start = output * self.stride + tile.start;
        for (blocks, row) in [(self.keys[other].blocks_mut(), key), (self.macs[other].blocks_mut(), mac)] {
            blocks[start..start + tile.padded()].copy_from_slice(&row.lanes()[..tile.padded()]);
        }
    }

    /// Keys of all outputs for another garbler's bits.
    pub(crate) fn keys(&self, other: usize) -> &Keys {
        &self.keys[other]
    }

    /// MACs of all outputs towards another garbler.
    pub(crate) fn macs(&self, other: usize) -> &Macs {
        &self.macs[other]
    }
}

/// Cross bits are out; the others' come in.
pub struct Crossed {
    state: State,
    share: Zeroizing<Vec<u64>>,
    left: Zeroizing<Vec<u64>>,
    messages: Vec<Vec<u8>>,
}

impl Crossed {
    /// The bits for the garbler at `position`; once.
    pub fn message(&mut self, position: usize) -> Vec<u8> {
        self.messages.get_mut(position).map(std::mem::take).unwrap_or_default()
    }

    /// The zero labels of the random wires, one row of [`Batch::stride`] each: keys towards the evaluator.
    pub fn evaluator_keys(&self) -> &Keys {
        &self.state.choice_labels
    }

    /// Row of the keys for another garbler's bits of a random wire.
    pub(crate) fn key_row(&self, other: usize, wire: usize, tile: Tile) -> &[Chunk] {
        self.state.keys(other, wire, tile).row
    }

    /// Row of the MACs towards another garbler for a random wire.
    pub(crate) fn mac_row(&self, other: usize, wire: usize, tile: Tile) -> &[Chunk] {
        self.state.received(other, wire, tile).row
    }

    /// The batch.
    pub(crate) fn batch(&self) -> &Batch {
        &self.state.batch
    }

    /// This garbler's position.
    pub(crate) fn position(&self) -> usize {
        self.state.position
    }

    /// Takes the other garblers' bits (by position; this garbler's own is ignored) and gives the one
    /// message for all of them: by how much each second choice bit differs from `ρ^j`.
    pub fn correct(mut self, incoming: &[Vec<u8>]) -> Result<(Corrected, Vec<u8>), Error> {
        let state = &mut self.state;
        let words = state.batch.words();
        for i in state.others() {
            let bits = incoming.get(i).map_or(&[][..], Vec::as_slice);
            let bits = from_bytes(bits, state.batch.bit_bytes(), "cross bits")?;
            for ((share, left), bit) in self.share.iter_mut().zip(self.left.iter()).zip(bits) {
                *share ^= left & bit;
            }
        }
        // ρ^j = (share of λ_a λ_b) ^ λ_c^j; `second` becomes the correction ρ^j ^ choice.
        let mut rho = state.lambda.clone();
        for (share, &gate) in self.share.chunks(words).zip(&state.batch.program.crossed) {
            rho[gate * words..(gate + 1) * words]
                .iter_mut()
                .zip(share)
                .for_each(|(rho, share)| *rho ^= share);
        }
        for (second, &gate) in state.second.chunks_mut(words).zip(&state.batch.program.crossed) {
            second.iter_mut().zip(&rho[gate * words..]).for_each(|(second, rho)| *second ^= rho);
        }
        clear_tail(&mut state.second, state.batch.lanes);
        let message = to_bytes(&state.second);
        Ok((Corrected { state: self.state, rho }, message))
    }
}

/// Everything is known that the tables need.
pub struct Corrected {
    state: State,
    rho: Zeroizing<Vec<u64>>,
}

impl Corrected {
    /// Garbles. `incoming` are the other garblers' corrections by position. Gives what stays for the
    /// online phase, the outputs' zero labels (rows of [`Batch::stride`]) and the message for the evaluator, of
    /// [`Batch::table_bytes`]. `buffer` is memory for the message: all of it is overwritten.
    pub fn garble(
        self,
        delta: &Delta,
        incoming: &[Vec<u8>],
        hash: &impl Hash,
        rng: &mut impl CryptoRng,
        buffer: Vec<u8>,
    ) -> Result<(OnlineGarbler, Labels<Zero>, Vec<u8>), Error> {
        let Corrected { state, rho } = self;
        let batch = &state.batch;
        let program = &batch.program;
        let (lanes, words) = (batch.lanes, batch.words());
        let online = OnlineGarbler::new(batch.clone(), Block::random(rng));
        let public = online.zero_labels();
        let inputs = program.inputs();
        let pass = Pass::new(&state, &rho, delta, incoming)?;
        let zero_labels = ZeroLabels::new(&state, &inputs, &public);
        let table_bytes = batch.rows_sent() * program.ands * lanes * 16;
        let mut message = buffer;
        message.resize(batch.table_bytes(state.position), 0);
        let (tables, tail) = message.split_at_mut(table_bytes);
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
        let mut outputs = Labels::of_outputs(batch);
        for (end, &tile) in ends.iter().zip(&tiles) {
            scatter(&end.permutation, tile, words, &mut permutation);
            end.outputs.iter().enumerate().for_each(|(output, row)| outputs.put(output, tile, row));
        }
        clear_tail(&mut permutation, lanes);
        // `ẑ_c` is the low bit of the first garbler's label XOR this bit, that of its zero label.
        for (bytes, word) in tail.chunks_exact_mut(8).zip(permutation) {
            bytes.copy_from_slice(&word.to_le_bytes());
        }
        Ok((online, outputs, message))
    }
}

/// Shares of the outputs' masks, for the masks of XORs are the XORs of masks.
fn output_masks(batch: &Batch, random: &[u64], lambda: &[u64]) -> Zeroizing<Vec<u64>> {
    let (program, words) = (&batch.program, batch.words());
    let inputs = program.inputs();
    let mut slots = vec![Zeroizing::new(vec![0u64; words]); program.slots];
    let mut gate = 0;
    for op in &program.ops {
        match *op {
            Op::Input { dst, input } => match inputs[input as usize] {
                Input { source: Source::Random, rank } => {
                    slots[dst as usize].copy_from_slice(&random[rank * words..(rank + 1) * words]);
                }
                Input { source: Source::Public, .. } => slots[dst as usize].fill(0),
            },
            Op::Xor { dst, a, b } => {
                let sum = slots[a as usize].iter().zip(slots[b as usize].iter()).map(|(a, b)| a ^ b);
                let sum = Zeroizing::new(sum.collect::<Vec<u64>>());
                slots[dst as usize].copy_from_slice(&sum);
            }
            Op::And { dst, .. } => {
                slots[dst as usize].copy_from_slice(&lambda[gate * words..(gate + 1) * words]);
                gate += 1;
            }
        }
    }
    let outputs = program.outputs.iter().flat_map(|o| slots[o.slot as usize].iter().copied());
    Zeroizing::new(outputs.collect())
}
