//! The receiver's ends of correlated OTs, made again from its seeds.
//!
//! `M_i` does not depend on the choices: it is a column of the rows `v_b = Σ_x x_b P_x`, the receiver's own streams. So
//! who keeps the seeds and the position, a few kilobytes for any number of transfers, need not keep what came of them.

use zeroize::Zeroizing;

use super::{BASE, CotReceiver, Streams, check_arguments, check_parameter};
use crate::aes::LANES;
use crate::{Block, Macs, Result};

/// A receiver's seeds, which can make its ends again and nothing new. Zeroized on drop.
pub struct Replay {
    parameter: usize,
    seeds: Zeroizing<Vec<Block>>,
}

/// A [`Replay`] at work.
pub struct Replaying(Streams);

impl CotReceiver {
    /// Where the next call of [`CotReceiver::extend`] begins.
    pub fn position(&self) -> u64 {
        self.0.position
    }

    /// No more transfers: what is needed to make the ends of those that were done again.
    pub fn into_replay(mut self) -> Replay {
        Replay { parameter: self.0.parameter, seeds: std::mem::take(&mut self.0.seeds) }
    }
}

impl Replay {
    /// From [`Replay::parameter`] and [`Replay::seeds`].
    ///
    /// # Errors
    /// [`Error::Parameter`](crate::Error::Parameter) or, for the number of seeds,
    /// [`Error::Arguments`](crate::Error::Arguments).
    pub fn new(parameter: usize, seeds: Zeroizing<Vec<Block>>) -> Result<Self> {
        check_arguments("seeds of an extension", Self::count(parameter)?, seeds.len())?;
        Ok(Self { parameter, seeds })
    }

    /// Seeds of an extension with this parameter.
    ///
    /// # Errors
    /// [`Error::Parameter`](crate::Error::Parameter).
    pub fn count(parameter: usize) -> Result<usize> {
        check_parameter(parameter)?;
        Ok((BASE / parameter) << parameter)
    }

    /// The extension's parameter.
    pub fn parameter(&self) -> usize {
        self.parameter
    }

    /// The seeds, to be stored.
    pub fn seeds(&self) -> &[Block] {
        &self.seeds
    }

    /// Ready to make ends.
    pub fn start(&self) -> Replaying {
        Replaying(Streams::new(self.parameter, &self.seeds))
    }
}

impl Replaying {
    /// `M_i` again of the transfers that began at `position`, as many as `out` has.
    pub fn macs(&mut self, position: u64, out: &mut Macs) {
        let Self(streams) = self;
        streams.position = position;
        for out in out.blocks_mut().chunks_mut(128 * LANES) {
            for tree in 0..streams.trees() {
                streams.fold(tree, 0);
            }
            streams.emit(out);
        }
    }
}
