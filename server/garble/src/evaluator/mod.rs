//! The evaluator of one batch.
//!
//! [`Evaluator::choices`] are its choice bits of correlated OTs (its random bits), whose results
//! are the labels; [`Folding::tables`] takes every garbler's contributions; [`Folding::prefix`] adds
//! them up to one table and evaluates what needs no online value; [`OnlineEvaluator::evaluate`] the
//! rest, from the [`Material`] that the caller kept meanwhile.

mod contributions;
mod run;

use rayon::prelude::*;
use seco_ot::{Bits, Block, Prg};
use zeroize::{Zeroize, Zeroizing};

use self::contributions::{AddUp, Contributions};
use self::run::{Execute, Input, Run, Tables};
use crate::batch::{Batch, TILE, Tile, scatter, tile_plane, tiles_together};
use crate::error::Error;
use crate::hash::Hash;
use crate::program::{Operand, Source};
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
        batch.circuit.program.check()?;
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
        let messages = vec![None; batch.garblers()];
        Ok(Folding { batch, choices: self.choices, labels, messages })
    }
}

impl Batch {
    /// Blocks stored per AND and lane: three for every garbler; two where there is only one, for
    /// then the third is zero.
    pub(crate) fn rows_stored(&self) -> usize {
        if self.garblers() == 1 { 2 } else { 3 * self.garblers() }
    }

    /// Labels that the evaluator keeps per lane between the prefix and the rest.
    fn labels_kept(&self) -> usize {
        self.garblers() * self.circuit.program.live.len()
    }

    /// Blocks of tables that the evaluator keeps per lane.
    fn tables_kept(&self) -> usize {
        self.rows_stored() * (self.circuit.program.ands - self.circuit.program.prefix_ands)
    }

    /// Size of an evaluator's [`Material`].
    pub fn material_size(&self) -> MaterialSize {
        MaterialSize { labels: self.labels_kept() * self.lanes, tables: self.tables_kept() * self.lanes }
    }
}

/// Labels are there; tables come in.
pub struct Folding {
    batch: Batch,
    choices: Zeroizing<Vec<u64>>,
    labels: Vec<Zeroizing<Vec<Block>>>,
    /// Tables messages, by garbler.
    messages: Vec<Option<Vec<u8>>>,
}

/// Labels and tables that the online phase needs, most of what a batch leaves. Separate from
/// [`OnlineEvaluator`], so that the caller can keep it elsewhere than in memory.
#[derive(Default)]
pub struct Material {
    /// By tile: labels by garbler and live slot; then by tile: tables.
    blocks: Vec<Block>,
    labels: usize,
}

/// Size of a [`Material`], in blocks of 16 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MaterialSize {
    /// Labels.
    pub labels: usize,
    /// Tables.
    pub tables: usize,
}

impl Material {
    /// Memory to load a material into: zeros, to be overwritten through [`Material::bytes_mut`].
    pub fn zeros(size: MaterialSize) -> Material {
        Material { blocks: vec![Block::ZERO; size.labels + size.tables], labels: size.labels }
    }

    /// Memory of this size, reused where it suffices; its content means nothing.
    fn resized(mut self, size: MaterialSize) -> Material {
        let mut blocks = std::mem::take(&mut self.blocks);
        blocks.resize(size.labels + size.tables, Block::ZERO);
        Material { blocks, labels: size.labels }
    }

    /// How much it is.
    pub fn size(&self) -> MaterialSize {
        MaterialSize { labels: self.labels, tables: self.blocks.len() - self.labels }
    }

    /// What to store.
    pub fn bytes(&self) -> &[u8] {
        bytemuck::cast_slice(&self.blocks)
    }

    /// Where to load it.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        bytemuck::cast_slice_mut(&mut self.blocks)
    }
}

impl Drop for Material {
    fn drop(&mut self) {
        self.blocks.iter_mut().take(self.labels).for_each(Zeroize::zeroize);
    }
}

impl Folding {
    /// Takes the message of the garbler at `position`; each exactly once.
    pub fn tables(&mut self, position: usize, message: Vec<u8>) -> Result<(), Error> {
        let expected = self.batch.table_bytes(position);
        if position >= self.batch.garblers() || message.len() != expected {
            return Err(Error::Length { what: "garbled tables", got: message.len(), expected });
        }
        let slot = self.messages.get_mut(position).filter(|m| m.is_none());
        *slot.ok_or(Error::Shape("garbled tables: sent twice"))? = Some(message);
        Ok(())
    }

    /// Adds up all garblers' tables, which are there, and evaluates what needs no online value. `blank`
    /// is memory for the material, of any size: all of it is overwritten.
    pub fn prefix(self, hash: &impl Hash, blank: Material) -> Result<(OnlineEvaluator, Material), Error> {
        let batch = &self.batch;
        let program = &batch.circuit.program;
        let (words, suffix) = (batch.words(), program.ands - program.prefix_ands);
        let messages: Option<Vec<&[u8]>> = self.messages.iter().map(Option::as_deref).collect();
        let messages = messages.ok_or(Error::Shape("garbled tables: not all there"))?;
        let count = program.count(|s| matches!(s, Source::Ahead(_))) * batch.lanes;
        let mut ahead = Vec::with_capacity(messages.len());
        let mut tables = Vec::with_capacity(messages.len());
        let mut permutation = Vec::new();
        let mut outputs = vec![0; program.outputs.len() * words];
        for (position, message) in messages.into_iter().enumerate() {
            let (seed, rest) = message.split_at(16);
            let mut labels = Zeroizing::new(vec![Block::ZERO; count]);
            Prg::new(Block::from_bytes(std::array::from_fn(|i| seed[i]))).fill(&mut labels);
            ahead.push(labels);
            let (own, rest) = rest.split_at(batch.rows_sent() * program.ands * batch.lanes * 16);
            tables.push(own.as_chunks().0);
            let (bits, masks) = rest.split_at(rest.len() - outputs.len() * 8);
            if batch.sends_permutation(position) {
                permutation = from_bytes(bits, bits.len(), "permutation bits")?;
            }
            for (sum, bits) in outputs.iter_mut().zip(from_bytes(masks, masks.len(), "output masks")?) {
                *sum ^= bits;
            }
        }
        permutation.resize(program.ands * words, 0);
        let inputs = Prefix { folding: &self, ahead };
        let contributions = Contributions { batch, tables };

        let mut material = blank.resized(batch.material_size());
        let (labels, suffixes) = material.blocks.split_at_mut(batch.material_size().labels);
        let tiles: Vec<Tile> = batch.tiles().collect();
        let together = tiles_together(tiles.len());
        let groups = tiles.len().div_ceil(together);
        let kept: Vec<Vec<[u64; TILE / 64]>> = parts(labels, together * TILE * batch.labels_kept(), groups)
            .into_par_iter()
            .zip(parts(suffixes, together * TILE * batch.tables_kept(), groups))
            .zip(tiles.par_chunks(together))
            .flat_map_iter(|((mut labels, mut suffixes), tiles)| {
                let mut run = Run::new(batch);
                let mut table = vec![Block::ZERO; batch.rows_stored() * TILE];
                let evaluate = |&tile: &Tile| {
                    let per_and = batch.rows_stored() * tile.width;
                    let (suffix, rest) = std::mem::take(&mut suffixes).split_at_mut(per_and * suffix);
                    suffixes = rest;
                    hash.run(AddUp { contributions: &contributions, tile, out: suffix });
                    run.begin(tile, 0);
                    hash.run(Execute {
                        run: &mut run,
                        ops: &program.ops[..program.prefix],
                        tables: Tables::Sent(&contributions, &mut table[..per_and]),
                        permutation: &permutation,
                        load: |input: Input, run: &mut Run, dst: u32| inputs.load(input, run, dst),
                    });
                    for slots in &run.labels {
                        for &slot in &program.live {
                            let (row, rest) = std::mem::take(&mut labels).split_at_mut(tile.width);
                            labels = rest;
                            row.copy_from_slice(&slots.row(slot).lanes()[..tile.width]);
                        }
                    }
                    program.live.iter().map(|&slot| run.bits.get(slot)).collect()
                };
                tiles.iter().map(evaluate).collect::<Vec<_>>()
            })
            .collect();
        let mut bits = vec![0; program.live.len() * words];
        for (kept, &tile) in kept.iter().zip(&tiles) {
            scatter(kept, tile, words, &mut bits);
        }
        permutation.drain(..program.prefix_ands * words);
        let Folding { batch, choices, .. } = self;
        Ok((OnlineEvaluator { batch, choices, bits, permutation, outputs }, material))
    }
}

/// The first `groups` parts of `blocks`, each of `size` but for the last; empty ones where there are
/// no blocks.
fn parts(blocks: &mut [Block], size: usize, groups: usize) -> Vec<&mut [Block]> {
    let mut parts: Vec<&mut [Block]> = blocks.chunks_mut(size.max(1)).collect();
    parts.resize_with(groups, Default::default);
    parts
}

/// Input wires that are known ahead.
struct Prefix<'a> {
    folding: &'a Folding,
    /// Their active labels, by garbler.
    ahead: Vec<Zeroizing<Vec<Block>>>,
}

impl Prefix<'_> {
    fn load(&self, input: Input, run: &mut Run, dst: u32) {
        let (tile, batch) = (run.tile, &self.folding.batch);
        let (labels, stride, bits) = match input.source {
            Source::Ahead(_) => (&self.ahead, batch.lanes, [0; TILE / 64]),
            Source::Choice => {
                let bits = tile_plane(&self.folding.choices, batch.words(), input.rank, tile);
                (&self.folding.labels, batch.stride(), bits)
            }
            Source::Online(_) => return,
        };
        for (slots, labels) in run.labels.iter_mut().zip(labels) {
            let start = input.rank * stride + tile.start;
            let row = &mut slots.row_mut(dst).lanes_mut()[..tile.width];
            row.copy_from_slice(&labels[start..start + tile.width]);
        }
        run.bits.set(dst, bits);
    }
}

/// What the evaluator keeps of a batch for the online phase besides its [`Material`]; used once.
pub struct OnlineEvaluator {
    batch: Batch,
    choices: Zeroizing<Vec<u64>>,
    /// Planes of `ẑ` of the live slots.
    bits: Vec<u64>,
    /// Permutation bits of the ANDs past the prefix.
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
    /// circuit's input words, `labels` the garblers' messages by position, `material` what
    /// [`Folding::prefix`] gave with this. Gives one output word per lane.
    pub fn evaluate(
        self,
        material: &Material,
        masked: &[u64],
        labels: &[Vec<u8>],
        hash: &impl Hash,
    ) -> Result<Vec<u32>, Error> {
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
        if material.size() != batch.material_size() {
            return Err(Error::Shape("material of another batch"));
        }
        let (kept, tables) = material.blocks.split_at(material.labels);
        let tiles: Vec<Tile> = batch.tiles().collect();
        let parts: Vec<Vec<[u64; TILE / 64]>> = tiles
            .par_chunks(tiles_together(tiles.len()))
            .flat_map_iter(|tiles| {
                let mut run = Run::new(batch);
                let evaluate = |&tile: &Tile| {
                    run.begin(tile, program.prefix_ands);
                    let mut rows = kept[tile.start * batch.labels_kept()..].chunks_exact(tile.width);
                    for slots in &mut run.labels {
                        for (&slot, row) in program.live.iter().zip(&mut rows) {
                            slots.row_mut(slot).lanes_mut()[..tile.width].copy_from_slice(row);
                        }
                    }
                    for (row, &slot) in program.live.iter().enumerate() {
                        run.bits.set(slot, tile_plane(&self.bits, words, row, tile));
                    }
                    hash.run(Execute {
                        run: &mut run,
                        ops: &program.ops[program.prefix..],
                        tables: Tables::Kept(&tables[tile.start * batch.tables_kept()..]),
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
                tiles.iter().map(evaluate).collect::<Vec<_>>()
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
