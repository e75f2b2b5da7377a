//! A garbler's online phase: labels of the public word.

use seco_ot::{Block, Delta, Mask, Prg};
use zeroize::Zeroizing;

use crate::batch::Batch;
use crate::error::Error;

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
    pub(crate) fn zero_labels(&self) -> Zeroizing<Vec<Block>> {
        let mut labels = Zeroizing::new(vec![Block::ZERO; self.batch.public_wires() * self.batch.lanes]);
        Prg::new(*self.seed).fill(&mut labels);
        labels
    }

    /// The batch this belongs to.
    pub fn batch(&self) -> &Batch {
        &self.batch
    }

    /// The active labels of the public word, given as planes, at least one for each wire. [`Batch::label_bytes`]
    /// bytes.
    pub fn labels(self, delta: &Delta, public: &[u64]) -> Result<Vec<u8>, Error> {
        let (words, lanes) = (self.batch.words(), self.batch.lanes);
        if public.len() < self.batch.public_wires() * words {
            return Err(Error::Shape("public word"));
        }
        let mut labels = self.zero_labels();
        for (plane, row) in public.chunks(words.max(1)).zip(labels.chunks_mut(lanes.max(1))) {
            for (lane, label) in row.iter_mut().enumerate() {
                *label ^= delta.block().select(Mask::of_bit(plane[lane / 64], lane));
            }
        }
        Ok(bytemuck::cast_slice(&labels).to_vec())
    }
}
