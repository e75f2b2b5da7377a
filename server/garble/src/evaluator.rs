//! The evaluator of one batch.
//!
//! [`Evaluator::choices`] are its choice bits of correlated OTs (its random bits), whose results
//! are the labels; [`Folding::tables`] folds every garbler's contributions into one table;
//! [`Folding::prefix`] evaluates what needs no online value; [`OnlineEvaluator::evaluate`] the rest.

use rayon::prelude::*;
use seco_ot::{Bits, Block, Engine, Kernel, LANES, Prg};
use zeroize::Zeroizing;

use crate::batch::{Batch, Planes, Slots, TILE, Tile, byte, set_byte, tile_plane, tiles_together};
use crate::error::Error;
use crate::hash::{Hash, Tweak};
use crate::program::{Op, Operand, Source};
use crate::slices::{from_bytes, from_lanes, to_lanes};

/// Random bits are chosen; waiting for their labels.
pub struct Evaluator {
    batch: Batch,
    choices: Zeroizing<Vec<u64>>,
}

impl Evaluator {
    /// `random` are the evaluator's words that are known ahead, in the order of
    /// [`crate::circuits::Circuit`]'s input words: uniform, one value per lane each.
    pub fn new(batch: Batch, random: &[&[u32]]) -> Result<Evaluator, Error> {
        let mut random = random.iter();
        let mut choices = Zeroizing::new(Vec::new());
        for word in batch.circuit.program.words.iter().filter(|w| w.source == Source::Choice) {
            let values = random.next().filter(|v| v.len() == batch.lanes);
            choices.extend(from_lanes(values.ok_or(Error::Shape("evaluator inputs"))?, word.width));
        }
        if random.next().is_some() {
            return Err(Error::Shape("evaluator inputs"));
        }
        Ok(Evaluator { batch, choices })
    }

    /// Choice bits of the correlated OTs towards every garbler.
    pub fn choices(&self) -> Bits {
        Bits::from_words(self.choices.to_vec(), self.choices.len() * 64)
    }

    /// Takes the active labels of the random bits from every garbler, by position.
    pub fn receive(self, labels: Vec<Zeroizing<Vec<Block>>>) -> Result<Folding, Error> {
        let batch = self.batch;
        let expected = batch.evaluator_correlations();
        if labels.len() != batch.garblers() || labels.iter().any(|l| l.len() != expected) {
            return Err(Error::Shape("evaluator labels"));
        }
        let program = &batch.circuit.program;
        let rows = batch.rows_stored();
        let tables = vec![Block::ZERO; rows * program.ands * batch.lanes];
        let ahead = (0..batch.garblers()).map(|_| Zeroizing::new(Vec::new())).collect();
        let permutation = vec![0; program.ands * batch.words()];
        let outputs = vec![0; program.outputs.len() * batch.words()];
        Ok(Folding { batch, choices: self.choices, labels, ahead, tables, permutation, outputs })
    }
}

impl Batch {
    /// Blocks stored per AND and lane: three for every garbler; two where there is only one, for
    /// then the third is zero.
    pub(crate) fn rows_stored(&self) -> usize {
        if self.garblers() == 1 { 2 } else { 3 * self.garblers() }
    }
}

/// Labels are there; tables come in.
pub struct Folding {
    batch: Batch,
    choices: Zeroizing<Vec<u64>>,
    labels: Vec<Zeroizing<Vec<Block>>>,
    /// Active labels of wires known ahead, by garbler; empty until its tables came.
    ahead: Vec<Zeroizing<Vec<Block>>>,
    /// Tile by tile, AND by AND: `G_0`, `G_1`, `G_2` for every target.
    tables: Vec<Block>,
    permutation: Vec<u64>,
    outputs: Vec<u64>,
}

impl Folding {
    /// Folds in the message of the garbler at `position`; each exactly once.
    pub fn tables(&mut self, position: usize, message: &[u8]) -> Result<(), Error> {
        let batch = &self.batch;
        let expected = batch.table_bytes(position);
        if position >= batch.garblers() || message.len() != expected {
            return Err(Error::Length { what: "garbled tables", got: message.len(), expected });
        }
        let program = &batch.circuit.program;
        let ahead = program.count(|s| matches!(s, Source::Ahead(_))) * batch.lanes;
        let (seed, rest) = message.split_at(16);
        let slot = self.ahead.get_mut(position).filter(|a| a.is_empty());
        let slot = slot.ok_or(Error::Shape("garbled tables: sent twice"))?;
        *slot = Zeroizing::new(vec![Block::ZERO; ahead]);
        Prg::new(Block::from_bytes(std::array::from_fn(|i| seed[i]))).fill(slot);

        let (rows, stored) = (batch.rows_sent(), batch.rows_stored());
        let (tables, rest) = rest.split_at(rows * program.ands * batch.lanes * 16);
        for tile in batch.tiles() {
            let per_and = tile.width * 16;
            let from = tile.start * rows * program.ands * 16;
            let to = tile.start * stored * program.ands;
            for gate in 0..program.ands {
                let mut incoming = tables[from + gate * rows * per_and..].chunks_exact(per_and);
                let table = &mut self.tables[to + gate * stored * tile.width..][..stored * tile.width];
                // Own rows first, then three for every other target in order.
                for row in own_rows_first(position, batch.garblers()) {
                    let Some(bytes) = incoming.next() else { break };
                    let row = &mut table[row * tile.width..][..tile.width];
                    for (block, bytes) in row.iter_mut().zip(bytes.chunks_exact(16)) {
                        *block ^= Block::from_bytes(std::array::from_fn(|i| bytes[i]));
                    }
                }
            }
        }
        let output_bytes = self.outputs.len() * 8;
        let (permutation, outputs) = rest.split_at(rest.len() - output_bytes);
        if batch.sends_permutation(position) {
            self.permutation = from_bytes(permutation, permutation.len(), "permutation bits")?;
        }
        for (sum, bits) in self.outputs.iter_mut().zip(from_bytes(outputs, output_bytes, "output masks")?) {
            *sum ^= bits;
        }
        Ok(())
    }

    /// Evaluates what needs no online value, for all garblers' tables are there, and drops its part
    /// of the tables.
    pub fn prefix(self, hash: &impl Hash) -> Result<OnlineEvaluator, Error> {
        let program = &self.batch.circuit.program;
        let ahead = program.count(|s| matches!(s, Source::Ahead(_))) * self.batch.lanes;
        if self.ahead.iter().any(|a| a.len() != ahead) || ahead == 0 {
            return Err(Error::Shape("garbled tables: not all there"));
        }
        let stored = self.batch.rows_stored();
        let tiles: Vec<Tile> = self.batch.tiles().collect();
        let parts: Vec<Saved> = tiles
            .par_chunks(tiles_together(tiles.len()))
            .flat_map_iter(|tiles| {
                let mut run = Run::new(&self.batch);
                let evaluate = |&tile: &Tile| {
                    let per_and = stored * tile.width;
                    let tables = &self.tables[tile.start * stored * program.ands..][..per_and * program.ands];
                    run.begin(tile, 0);
                    hash.run(Execute {
                        run: &mut run,
                        ops: &program.ops[..program.prefix],
                        tables,
                        permutation: &self.permutation,
                        load: |input: Input, run: &mut Run, dst: u32| self.load(input, run, dst),
                    });
                    let mut labels = Zeroizing::new(Vec::new());
                    labels.reserve_exact(run.labels.len() * program.live.len() * tile.width);
                    for slots in &run.labels {
                        for &slot in &program.live {
                            labels.extend_from_slice(&slots.row(slot).lanes()[..tile.width]);
                        }
                    }
                    let bits = program.live.iter().map(|&slot| run.bits.get(slot)).collect();
                    Saved { labels, bits, tables: tables[program.prefix_ands * per_and..].to_vec() }
                };
                tiles.iter().map(evaluate).collect::<Vec<_>>()
            })
            .collect();
        let Folding { batch, choices, permutation, outputs, .. } = self;
        Ok(OnlineEvaluator { batch, choices, tiles: parts, permutation, outputs })
    }

    /// Loads an input wire that is known ahead.
    fn load(&self, input: Input, run: &mut Run, dst: u32) {
        let tile = run.tile;
        match input.source {
            Source::Ahead(_) => {
                for (slots, labels) in run.labels.iter_mut().zip(&self.ahead) {
                    let start = input.rank * self.batch.lanes + tile.start;
                    let row = &mut slots.row_mut(dst).lanes_mut()[..tile.width];
                    row.copy_from_slice(&labels[start..start + tile.width]);
                }
                run.bits.set(dst, [0; TILE / 64]);
            }
            Source::Choice => {
                for (slots, labels) in run.labels.iter_mut().zip(&self.labels) {
                    let start = input.rank * self.batch.stride() + tile.start;
                    let row = &mut slots.row_mut(dst).lanes_mut()[..tile.width];
                    row.copy_from_slice(&labels[start..start + tile.width]);
                }
                run.bits.set(dst, tile_plane(&self.choices, self.batch.words(), input.rank, tile));
            }
            Source::Online(_) => {}
        }
    }
}

/// Rows of the stored table in the order in which the garbler at `position` sends its blocks.
fn own_rows_first(position: usize, garblers: usize) -> impl Iterator<Item = usize> {
    let others = (0..garblers).filter(move |&i| i != position);
    [3 * position, 3 * position + 1].into_iter().chain(others.flat_map(|i| 3 * i..3 * i + 3))
}

/// A tile between prefix and the rest.
struct Saved {
    /// By garbler, by live slot.
    labels: Zeroizing<Vec<Block>>,
    bits: Vec<[u64; TILE / 64]>,
    tables: Vec<Block>,
}

/// What the evaluator keeps of a batch for the online phase; used once.
pub struct OnlineEvaluator {
    batch: Batch,
    choices: Zeroizing<Vec<u64>>,
    tiles: Vec<Saved>,
    permutation: Vec<u64>,
    outputs: Vec<u64>,
}

impl OnlineEvaluator {
    /// The batch this belongs to.
    pub fn batch(&self) -> &Batch {
        &self.batch
    }

    /// `v ^ ρ`: the public correction of the evaluator's online word, as planes to publish. Where it
    /// has one, the circuits have a single random word. Call it once per batch.
    pub fn correct(&self, values: &[u32]) -> Result<Vec<u64>, Error> {
        let words = self.batch.words();
        let width = self.choices.len() / words.max(1);
        if values.len() != self.batch.lanes || width > 32 {
            return Err(Error::Shape("online word"));
        }
        Ok(from_lanes(values, width).iter().zip(self.choices.iter()).map(|(v, r)| v ^ r).collect())
    }

    /// Evaluates. `masked` are the masked values of all online inputs as planes in the order of the
    /// circuit's input words, `labels` the garblers' messages by position. Gives one output word per
    /// lane.
    pub fn evaluate(self, masked: &[u64], labels: &[Vec<u8>], hash: &impl Hash) -> Result<Vec<u32>, Error> {
        let batch = &self.batch;
        let program = &batch.circuit.program;
        let (words, lanes) = (batch.words(), batch.lanes);
        if masked.len() != batch.online_inputs() * words || labels.len() != batch.garblers() {
            return Err(Error::Shape("masked values"));
        }
        let expected = batch.label_bytes();
        if let Some(bad) = labels.iter().find(|l| l.len() != expected) {
            return Err(Error::Length { what: "input labels", got: bad.len(), expected });
        }
        let tiles: Vec<Tile> = batch.tiles().collect();
        let parts: Vec<Vec<[u64; TILE / 64]>> = tiles
            .par_chunks(tiles_together(tiles.len()))
            .zip(self.tiles.par_chunks(tiles_together(tiles.len())))
            .flat_map_iter(|(tiles, saved)| {
                let mut run = Run::new(batch);
                let evaluate = |(&tile, saved): (&Tile, &Saved)| {
                    run.begin(tile, program.prefix_ands);
                    let per_garbler = program.live.len() * tile.width;
                    for (g, slots) in run.labels.iter_mut().enumerate() {
                        let rows = &saved.labels[g * per_garbler..(g + 1) * per_garbler];
                        for (&slot, row) in program.live.iter().zip(rows.chunks(tile.width)) {
                            slots.row_mut(slot).lanes_mut()[..tile.width].copy_from_slice(row);
                        }
                    }
                    for (&slot, &bits) in program.live.iter().zip(&saved.bits) {
                        run.bits.set(slot, bits);
                    }
                    hash.run(Execute {
                        run: &mut run,
                        ops: &program.ops[program.prefix..],
                        tables: &saved.tables,
                        permutation: &self.permutation,
                        load: |input: Input, run: &mut Run, dst: u32| {
                            for (slots, labels) in run.labels.iter_mut().zip(labels) {
                                let start = (input.rank * lanes + tile.start) * 16;
                                let (bytes, _) = labels[start..start + tile.width * 16].as_chunks();
                                for (label, bytes) in slots.row_mut(dst).lanes_mut().iter_mut().zip(bytes) {
                                    *label = Block::from_bytes(*bytes);
                                }
                            }
                            run.bits.set(dst, tile_plane(masked, words, input.rank, tile));
                        },
                    });
                    let value = |(row, o): (usize, &Operand)| {
                        let mask = tile_plane(&self.outputs, words, row, tile);
                        let masked = run.operand_bits(*o);
                        std::array::from_fn(|w| masked[w] ^ mask[w])
                    };
                    program.outputs.iter().enumerate().map(value).collect::<Vec<_>>()
                };
                tiles.iter().zip(saved).map(evaluate).collect::<Vec<_>>()
            })
            .collect();
        let mut values = Vec::with_capacity(lanes);
        for (part, tile) in parts.iter().zip(&tiles) {
            let planes: Vec<u64> =
                part.iter().flat_map(|plane| plane[..tile.words()].iter().copied()).collect();
            values.extend(to_lanes(&planes, tile.width));
        }
        Ok(values)
    }
}

/// An input wire and its rank within its class (ahead, choice or online).
#[derive(Clone, Copy)]
struct Input {
    source: Source,
    rank: usize,
}

/// The evaluation of one tile after the other.
struct Run<'a> {
    batch: &'a Batch,
    tile: Tile,
    /// Active labels, by garbler.
    labels: Vec<Slots>,
    /// Masked values `ẑ`.
    bits: Planes,
    /// Number of the next AND.
    gate: usize,
    /// Source of every input wire, and its rank within its class.
    inputs: Vec<Input>,
}

impl<'a> Run<'a> {
    fn new(batch: &'a Batch) -> Self {
        let program = &batch.circuit.program;
        let mut next = [0usize; 3];
        let inputs = program
            .sources()
            .map(|source| {
                let class = match source {
                    Source::Ahead(_) => 0,
                    Source::Choice => 1,
                    Source::Online(_) => 2,
                };
                next[class] += 1;
                Input { source, rank: next[class] - 1 }
            })
            .collect();
        Run {
            batch,
            tile: Tile { start: 0, width: 0 },
            labels: (0..batch.garblers()).map(|_| Slots::new(program.slots)).collect(),
            bits: Planes::new(program.slots),
            gate: 0,
            inputs,
        }
    }

    /// The next tile, from AND `gate` on.
    fn begin(&mut self, tile: Tile, gate: usize) {
        (self.tile, self.gate) = (tile, gate);
    }

    #[inline(always)]
    fn operand_bits(&self, operand: Operand) -> [u64; TILE / 64] {
        let flip = if operand.negated { u64::MAX } else { 0 };
        self.bits.get(operand.slot).map(|w| w ^ flip)
    }

    /// `L^i_c = XOR_j [H(L^j_a) ^ H(L^j_b)] ^ G^i_2 ^ ẑ_a·G^i_0 ^ ẑ_b·(G^i_1 ^ L^i_a)` for every
    /// target `i` (`protocol.md` section 5, "Evaluation").
    #[inline(always)]
    fn and<E: Engine>(
        &mut self,
        engine: &E,
        dst: u32,
        a: Operand,
        b: Operand,
        table: &[Block],
        permutation: &[u64],
    ) {
        let (width, layer) = (self.tile.width, self.batch.layer);
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
            for (i, table) in table.chunks_exact(rows * width).enumerate() {
                let side =
                    |side| engine.tweaks(Tweak::garble(layer, self.gate, first_lane, side, i).vector(c));
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

/// Garblers of the largest cluster.
const MAX_GARBLERS: usize = 7;

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

/// Runs `ops`; `tables` begins with the table of the current gate.
struct Execute<'r, 'a, F> {
    run: &'r mut Run<'a>,
    ops: &'r [Op],
    tables: &'r [Block],
    permutation: &'r [u64],
    load: F,
}

impl<'a, F: Fn(Input, &mut Run<'a>, u32)> Kernel for Execute<'_, 'a, F> {
    type Output = ();

    #[inline(always)]
    fn run<E: Engine>(self, engine: &E) {
        let Execute { run, ops, tables, permutation, load } = self;
        let mut tables = tables.chunks_exact(run.batch.rows_stored() * run.tile.width);
        for op in ops {
            match *op {
                Op::Input { dst, input } => load(run.inputs[input as usize], run, dst),
                Op::Xor { dst, a, b } => {
                    run.bits.xor(dst, a, b);
                    run.labels.iter_mut().for_each(|slots| slots.xor(engine, dst, a, b));
                }
                Op::And { dst, a, b } => {
                    let Some(table) = tables.next() else { return };
                    run.and(engine, dst, a, b, table, permutation);
                }
            }
        }
    }
}
