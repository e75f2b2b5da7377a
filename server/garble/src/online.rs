//! A garbler's online phase: its own masked word, and labels once all masked values are known.

use seco_ot::{Block, Delta, Mask, Prg};
use zeroize::Zeroizing;

use crate::batch::{Batch, owns};
use crate::error::Error;
use crate::program::Source;
use crate::slices::from_lanes;

/// What a garbler keeps of a batch for the online phase: a seed and one word of masks. Consumed by
/// [`OnlineGarbler::labels`], for both labels of a wire would give the evaluator everything.
pub struct OnlineGarbler {
    batch: Batch,
    /// Of the zero labels of the online inputs.
    seed: Zeroizing<Block>,
    /// Planes of `λ^j` of the online word on which this garbler has a share of the masks, if any.
    masks: Zeroizing<Vec<u64>>,
}

impl OnlineGarbler {
    /// `inputs` are the planes of `λ^j` for every input wire.
    pub(crate) fn new(batch: Batch, position: usize, seed: Block, inputs: &[u64]) -> Self {
        let mut masks = Zeroizing::new(Vec::new());
        let mut start = 0;
        for word in &batch.circuit.program.words {
            let planes = word.width * batch.words();
            if matches!(word.source, Source::Online(_)) && owns(word.source, position) {
                *masks = inputs[start..start + planes].to_vec();
            }
            start += planes;
        }
        OnlineGarbler { batch, seed: Zeroizing::new(seed), masks }
    }

    /// Zero labels of the online inputs of `batch`, one row of lanes each.
    pub(crate) fn zero_labels(batch: &Batch, seed: Block) -> Zeroizing<Vec<Block>> {
        let mut labels = Zeroizing::new(vec![Block::ZERO; batch.online_inputs() * batch.lanes]);
        Prg::new(seed).fill(&mut labels);
        labels
    }

    /// The batch this belongs to.
    pub fn batch(&self) -> &Batch {
        &self.batch
    }

    /// `v ^ λ^j`: this garbler's online word under its masks, as planes to publish. The circuits
    /// have at most one such word for each garbler. Call it once per batch: two values under one
    /// mask give away their difference.
    pub fn mask(&self, values: &[u32]) -> Result<Vec<u64>, Error> {
        if values.len() != self.batch.lanes {
            return Err(Error::Shape("online word"));
        }
        let width = self.masks.len() / self.batch.words().max(1);
        if !(1..=32).contains(&width) {
            return Err(Error::Shape("online word"));
        }
        Ok(from_lanes(values, width).iter().zip(self.masks.iter()).map(|(v, mask)| v ^ mask).collect())
    }

    /// The active labels of all online inputs, given their masked values as planes in the order of
    /// the circuit's input words. [`Batch::label_bytes`] bytes.
    pub fn labels(self, delta: &Delta, masked: &[u64]) -> Result<Vec<u8>, Error> {
        let (words, lanes) = (self.batch.words(), self.batch.lanes);
        if masked.len() != self.batch.online_inputs() * words {
            return Err(Error::Shape("masked values"));
        }
        let mut labels = Vec::with_capacity(self.batch.label_bytes());
        let zero_labels = Self::zero_labels(&self.batch, *self.seed);
        for (plane, row) in masked.chunks(words.max(1)).zip(zero_labels.chunks(lanes.max(1))) {
            for (lane, label) in row.iter().enumerate() {
                let active = *label ^ delta.block().select(Mask::of_bit(plane[lane / 64], lane));
                labels.extend_from_slice(&active.to_bytes());
            }
        }
        Ok(labels)
    }
}
