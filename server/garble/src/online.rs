//! A garbler's online phase: its own masked word, and labels once all masked values are known.

use seco_ot::{Block, Delta};
use zeroize::Zeroizing;

use crate::batch::{Batch, owns};
use crate::error::Error;
use crate::program::Source;
use crate::slices::from_lanes;

/// What a garbler keeps of a batch for the online phase. Consumed by [`OnlineGarbler::labels`], for
/// both labels of a wire would give the evaluator everything.
pub struct OnlineGarbler {
    batch: Batch,
    position: usize,
    /// Zero labels of the online inputs, one row of lanes each.
    zero_labels: Zeroizing<Vec<Block>>,
    /// Planes of `λ^j` for every input wire.
    inputs: Zeroizing<Vec<u64>>,
}

impl OnlineGarbler {
    pub(crate) fn new(
        batch: Batch,
        position: usize,
        zero_labels: Zeroizing<Vec<Block>>,
        inputs: Zeroizing<Vec<u64>>,
    ) -> Self {
        OnlineGarbler { batch, position, zero_labels, inputs }
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
        let words = self.batch.words();
        let mut start = 0;
        for word in &self.batch.circuit.program.words {
            let planes = word.width * words;
            if matches!(word.source, Source::Online(_)) && owns(word.source, self.position) {
                let mut masked = from_lanes(values, word.width);
                for (plane, mask) in masked.iter_mut().zip(&self.inputs[start..start + planes]) {
                    *plane ^= mask;
                }
                return Ok(masked);
            }
            start += planes;
        }
        Err(Error::Shape("online word"))
    }

    /// The active labels of all online inputs, given their masked values as planes in the order of
    /// the circuit's input words. [`Batch::label_bytes`] bytes.
    pub fn labels(self, delta: &Delta, masked: &[u64]) -> Result<Vec<u8>, Error> {
        let (words, lanes) = (self.batch.words(), self.batch.lanes);
        if masked.len() != self.batch.online_inputs() * words {
            return Err(Error::Shape("masked values"));
        }
        let mut labels = Vec::with_capacity(self.batch.label_bytes());
        for (plane, row) in masked.chunks(words.max(1)).zip(self.zero_labels.chunks(lanes.max(1))) {
            for (lane, label) in row.iter().enumerate() {
                let active = *label ^ delta.block().select(plane[lane / 64] >> (lane % 64) & 1 == 1);
                labels.extend_from_slice(&active.to_bytes());
            }
        }
        Ok(labels)
    }
}
