//! A garbler's online phase: labels of the public word.

use seco_ot::{Block, Chunk, Delta, Engine, Kernel, LANES, Prg};
use zeroize::Zeroizing;

use crate::batch::{Batch, CHUNKS, Labels, TILE, Zero, byte, tile_plane};
use crate::error::Error;
use crate::hash::Hash;

/// What a garbler keeps of a batch's circuit for the online phase: a seed. Consumed by [`OnlineGarbler::labels`],
/// for both labels of a wire would give the evaluator everything.
pub struct OnlineGarbler {
    batch: Batch,
    /// Of the zero labels of the public wires.
    seed: Zeroizing<Block>,
}

impl OnlineGarbler {
    /// From the seed of [`OnlineGarbler::seed`].
    pub fn new(batch: Batch, seed: Block) -> Self {
        OnlineGarbler { batch, seed: Zeroizing::new(seed) }
    }

    /// The seed of the public wires' zero labels: with the batch, all there is to store.
    pub fn seed(&self) -> Block {
        *self.seed
    }

    /// Zero labels of the public wires, one row of lanes each.
    pub(crate) fn zero_labels(&self) -> Labels<Zero> {
        let mut labels = Labels::zeros(self.batch.public_wires(), self.batch.lanes);
        Prg::new(*self.seed).fill(labels.rows_mut());
        labels
    }

    /// The batch this belongs to.
    pub fn batch(&self) -> &Batch {
        &self.batch
    }

    /// Appends the active labels of the public word, given as planes, at least one for each wire:
    /// [`Batch::label_bytes`] bytes. `hash` is any, and lends its vectors.
    pub fn labels(
        self,
        delta: &Delta,
        public: &[u64],
        hash: &impl Hash,
        message: &mut Vec<u8>,
    ) -> Result<(), Error> {
        let (words, wires) = (self.batch.words(), self.batch.public_wires());
        if public.len() < wires * words {
            return Err(Error::Shape("public word"));
        }
        message.reserve(self.batch.label_bytes());
        let mut stream = Prg::new(*self.seed);
        // Little at a time, which stays in the first-level cache between its steps.
        let mut labels = Zeroizing::new([[Block::ZERO; LANES]; CHUNKS]);
        for wire in 0..wires {
            for tile in self.batch.tiles() {
                stream.fill(&mut labels.as_flattened_mut()[..tile.width]);
                let plane = tile_plane(public, words, wire, tile);
                hash.run(Activate { labels: &mut labels, offset: delta.block(), plane });
                message.extend_from_slice(bytemuck::cast_slice(&labels.as_flattened()[..tile.width]));
            }
        }
        Ok(())
    }
}

/// From zero labels to active ones: `labels[i] ^= offset` where bit `i` of the plane is set.
struct Activate<'a> {
    labels: &'a mut [Chunk; CHUNKS],
    offset: Block,
    plane: [u64; TILE / 64],
}

impl Kernel for Activate<'_> {
    type Output = ();

    #[inline(always)]
    fn run<E: Engine>(self, engine: &E) {
        let offset = engine.splat(self.offset);
        for (c, labels) in self.labels.iter_mut().enumerate() {
            let active = engine.xor(engine.load(labels), engine.select(byte(&self.plane, c), offset));
            engine.store(active, labels);
        }
    }
}
