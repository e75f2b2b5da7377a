//! The evaluator of one batch.
//!
//! [`Evaluator::choices`] are its choice bits of correlated OTs (its bits of the random wires), whose results are
//! the active labels of those wires; [`Folding::tables`] takes every garbler's contributions; [`Folding::fold`] adds
//! them up to one table; [`OnlineEvaluator::evaluate`] evaluates, from the [`Material`] that the caller kept
//! meanwhile.

mod contributions;
mod run;

use rand_core::CryptoRng;
use rayon::prelude::*;
use seco_ot::{Bits, Block, Macs};
use zeroize::{Zeroize as _, Zeroizing};

use self::contributions::{AddUp, Contributions};
use self::run::{Execute, Run};
use crate::batch::{Active, Batch, Labels, Row, TILE, Tile, scatter, tile_plane, tiles_together};
use crate::bits::{MaskedBits, RhoBits};
use crate::error::Error;
use crate::hash::Hash;
use crate::program::{Input, Operand, Source};
use crate::slices::{clear_tail, from_bytes, random_planes};

/// Random bits are drawn; waiting for their labels.
pub struct Evaluator {
    batch: Batch,
    random: Zeroizing<Vec<u64>>,
}

impl Evaluator {
    /// Draws the evaluator's bits of the random wires.
    pub fn new(batch: Batch, rng: &mut impl CryptoRng) -> Result<Evaluator, Error> {
        batch.program.check()?;
        let random = random_planes(batch.random_wires(), batch.lanes, rng);
        Ok(Evaluator { batch, random })
    }

    /// Planes of the evaluator's bits of the random wires.
    pub fn random(&self) -> RhoBits {
        RhoBits::new(self.random.clone())
    }

    /// Choice bits of the correlated OTs towards every garbler.
    pub fn choices(&self) -> Bits {
        Bits::from_words(self.random.to_vec(), self.random.len() * 64)
    }

    /// Takes the active labels of the random wires from every garbler, by position: rows of [`Batch::stride`].
    pub fn receive(self, labels: Vec<Macs>) -> Result<Folding, Error> {
        let batch = self.batch;
        let expected = batch.evaluator_correlations();
        if labels.len() != batch.garblers || labels.iter().any(|l| l.len() != expected) {
            return Err(Error::Shape("evaluator labels"));
        }
        let messages = vec![None; batch.garblers];
        Ok(Folding { batch, random: self.random, labels, messages })
    }
}

impl Batch {
    /// Size of an evaluator's [`Material`].
    pub fn material_size(&self) -> MaterialSize {
        MaterialSize { tables: self.rows_stored() * self.program.ands * self.lanes }
    }
}

/// Labels are there; tables come in.
pub struct Folding {
    batch: Batch,
    random: Zeroizing<Vec<u64>>,
    labels: Vec<Macs>,
    /// Tables messages, by garbler.
    messages: Vec<Option<Vec<u8>>>,
}

/// Tables that the online phase needs, most of what a batch leaves. Separate from [`OnlineEvaluator`], so that the
/// caller can keep it elsewhere than in memory. They are no secret of the evaluator's; the labels of the random wires,
/// which are, come again from the seeds of its correlated OTs ([`seco_ot::Replay`]).
#[derive(Default)]
pub struct Material {
    /// By tile.
    blocks: Vec<Block>,
}

/// Size of a [`Material`], in blocks of 16 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MaterialSize {
    /// Tables.
    pub tables: usize,
}

impl MaterialSize {
    /// In bytes.
    pub fn bytes(&self) -> usize {
        self.tables * size_of::<Block>()
    }
}

impl Material {
    /// Memory to load a material into: zeros, to be overwritten through [`Material::bytes_mut`].
    pub fn zeros(size: MaterialSize) -> Material {
        Material { blocks: vec![Block::ZERO; size.tables] }
    }

    /// Memory of this size, reused where it suffices; its content means nothing.
    #[must_use]
    pub fn resized(mut self, size: MaterialSize) -> Material {
        self.blocks.resize(size.tables, Block::ZERO);
        self
    }

    /// How much it is.
    pub fn size(&self) -> MaterialSize {
        MaterialSize { tables: self.blocks.len() }
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

impl Folding {
    /// The active labels of the random wires, by garbler: rows of [`Batch::stride`], MACs of the evaluator's bits.
    pub(crate) fn macs(&self) -> &[Macs] {
        &self.labels
    }

    /// Forgets the labels of the random wires: once there are pads of them, nothing reads them before the online
    /// phase makes them again, and of all batches under way they are more than the rest.
    pub fn forget_labels(&mut self) {
        self.labels = Vec::new();
    }

    /// The batch.
    pub(crate) fn batch(&self) -> &Batch {
        &self.batch
    }

    /// Takes the message of the garbler at `position`; each exactly once.
    pub fn tables(&mut self, position: usize, message: Vec<u8>) -> Result<(), Error> {
        let expected = self.batch.table_bytes(position);
        if position >= self.batch.garblers || message.len() != expected {
            return Err(Error::Length { what: "garbled tables", got: message.len(), expected });
        }
        let slot = self.messages.get_mut(position).filter(|m| m.is_none());
        *slot.ok_or(Error::Shape("garbled tables: sent twice"))? = Some(message);
        Ok(())
    }

    /// Adds up all garblers' tables, which are there. `blank` is memory for the material, of any size: all of it is
    /// overwritten.
    pub fn fold(self, hash: &impl Hash, blank: Material) -> Result<(OnlineEvaluator, Material), Error> {
        let batch = &self.batch;
        let ands = batch.program.ands;
        let messages: Option<Vec<&[u8]>> = self.messages.iter().map(Option::as_deref).collect();
        let messages = messages.ok_or(Error::Shape("garbled tables: not all there"))?;
        let mut tables = Vec::with_capacity(messages.len());
        let mut permutation = Vec::new();
        for (position, message) in messages.into_iter().enumerate() {
            let (own, bits) = message.split_at(batch.rows_sent() * ands * batch.lanes * 16);
            tables.push(own.as_chunks().0);
            if position == 0 {
                permutation = from_bytes(bits, bits.len(), "permutation bits")?;
            }
        }
        clear_tail(&mut permutation, batch.lanes);
        let contributions = Contributions { batch, tables };
        let mut material = blank.resized(batch.material_size());
        let folded = &mut material.blocks;
        let tiles: Vec<Tile> = batch.tiles().collect();
        let together = tiles_together(tiles.len());
        let per_lane = batch.rows_stored() * ands;
        folded.par_chunks_mut((together * TILE * per_lane).max(1)).zip(tiles.par_chunks(together)).for_each(
            |(mut folded, tiles)| {
                for &tile in tiles {
                    let (out, rest) = std::mem::take(&mut folded).split_at_mut(per_lane * tile.width);
                    folded = rest;
                    hash.run(AddUp { contributions: &contributions, tile, out });
                }
            },
        );
        let Folding { batch, random, .. } = self;
        Ok((OnlineEvaluator { batch, random, permutation }, material))
    }
}

/// What the evaluator keeps of a batch for the online phase besides its [`Material`]; used once.
pub struct OnlineEvaluator {
    batch: Batch,
    random: Zeroizing<Vec<u64>>,
    permutation: Vec<u64>,
}

/// What an evaluation gives.
pub struct Evaluated {
    /// The masked values `ẑ` of the outputs.
    pub masked: MaskedBits,
    /// The outputs' active labels, by garbler.
    pub labels: Vec<Labels<Active>>,
}

/// What comes out of a tile: masked values by output; labels by garbler, by output.
struct TileEnds {
    masked: Vec<[u64; TILE / 64]>,
    labels: Vec<Vec<Row>>,
}

impl Drop for TileEnds {
    fn drop(&mut self) {
        self.masked.zeroize();
        self.labels.iter_mut().flatten().for_each(|row| row.lanes_mut().zeroize());
    }
}

impl OnlineEvaluator {
    /// From what [`OnlineEvaluator::planes`] gave.
    pub fn new(batch: Batch, random: RhoBits, permutation: Vec<u64>) -> Result<Self, Error> {
        let random = random.into_planes();
        let words = batch.words();
        if random.len() != batch.random_wires() * words || permutation.len() != batch.program.ands * words {
            return Err(Error::Shape("evaluator's bits"));
        }
        Ok(OnlineEvaluator { batch, random, permutation })
    }

    /// The evaluator's bits of the random wires and the permutation bits: with the batch, all there is to store.
    pub fn planes(&self) -> [&[u64]; 2] {
        [&self.random, &self.permutation]
    }

    /// The batch this belongs to.
    pub fn batch(&self) -> &Batch {
        &self.batch
    }

    /// Evaluates. `public` are planes of the public word, at least one for each wire, `labels` the garblers'
    /// messages by position, `random` the active labels of the random wires as [`Evaluator::receive`] took them,
    /// `material` what [`Folding::fold`] gave with this.
    pub fn evaluate(
        self,
        material: &Material,
        public: &[u64],
        labels: &[impl AsRef<[u8]>],
        random: &[Macs],
        hash: &impl Hash,
    ) -> Result<Evaluated, Error> {
        let batch = &self.batch;
        let program = &batch.program;
        let (words, lanes, stride) = (batch.words(), batch.lanes, batch.stride());
        if public.len() < batch.public_wires() * words || labels.len() != batch.garblers {
            return Err(Error::Shape("public word"));
        }
        let expected = batch.label_bytes();
        let labels: Vec<&[u8]> = labels.iter().map(AsRef::as_ref).collect();
        if let Some(bad) = labels.iter().find(|l| l.len() != expected) {
            return Err(Error::Length { what: "labels", got: bad.len(), expected });
        }
        if material.size() != batch.material_size() {
            return Err(Error::Shape("material of another batch"));
        }
        let expected = batch.evaluator_correlations();
        if random.len() != batch.garblers || random.iter().any(|labels| labels.len() != expected) {
            return Err(Error::Shape("evaluator labels"));
        }
        let tables = &material.blocks;
        let load = |input: Input, run: &mut Run, dst: u32| {
            let Input { source, rank } = input;
            let tile = run.tile;
            for (garbler, slots) in run.labels.iter_mut().enumerate() {
                let row = &mut slots.row_mut(dst).lanes_mut()[..tile.width];
                if source == Source::Random {
                    let start = rank * stride + tile.start;
                    row.copy_from_slice(&random[garbler].blocks()[start..start + tile.width]);
                } else {
                    let start = (rank * lanes + tile.start) * 16;
                    let (bytes, _) = labels[garbler][start..start + tile.width * 16].as_chunks();
                    row.iter_mut().zip(bytes).for_each(|(to, from)| *to = Block::from_bytes(*from));
                }
            }
            let planes = if source == Source::Random { &self.random[..] } else { public };
            run.bits.set(dst, tile_plane(planes, words, rank, tile));
        };
        let tiles: Vec<Tile> = batch.tiles().collect();
        let ends: Vec<TileEnds> = tiles
            .par_chunks(tiles_together(tiles.len()))
            .flat_map_iter(|tiles| {
                let mut run = Run::new(batch);
                let evaluate = |&tile: &Tile| {
                    run.begin(tile);
                    let tables = &tables[tile.start * batch.rows_stored() * program.ands..];
                    hash.run(Execute { run: &mut run, tables, permutation: &self.permutation, load });
                    let masked = program.outputs.iter().map(|o| run.operand_bits(*o)).collect();
                    let row = |o: &Operand, slots: &crate::batch::Slots| *slots.row(o.slot);
                    let of_garbler = |slots| program.outputs.iter().map(|o| row(o, slots)).collect();
                    TileEnds { masked, labels: run.labels.iter().map(of_garbler).collect() }
                };
                tiles.iter().map(evaluate).collect::<Vec<_>>()
            })
            .collect();
        let mut masked = Zeroizing::new(vec![0u64; program.outputs.len() * words]);
        let mut labels: Vec<_> = (0..batch.garblers).map(|_| Labels::of_outputs(batch)).collect();
        for (ends, &tile) in ends.iter().zip(&tiles) {
            scatter(&ends.masked, tile, words, &mut masked);
            for (labels, rows) in labels.iter_mut().zip(&ends.labels) {
                rows.iter().enumerate().for_each(|(output, row)| labels.put(output, tile, row));
            }
        }
        clear_tail(&mut masked, lanes);
        Ok(Evaluated { masked: MaskedBits::new(masked), labels })
    }
}
