//! Values that go to other places of a value.

use super::super::places::{OUTSIDE, turned};
use super::super::tensor::broadcast_places;
use super::{Context, Secret};
use crate::Error;
use crate::graph::{Gather, Run, ValueId};
use crate::real::{Origin, RealTerm, join};

/// Most runs of gathered values, which take memory that a file does not.
const MAX_RUNS: usize = 1 << 24;

impl Context {
    /// A value run by run, with the number of runs bounded.
    pub(crate) fn places(
        &mut self,
        origin: &Origin,
        len: usize,
        places: impl IntoIterator<Item = Option<usize>>,
    ) -> Result<Gather, Error> {
        self.fits(origin, &[len])?;
        self.walk(origin, len)?;
        let left = MAX_RUNS.saturating_sub(self.runs);
        // In parts, so that memory stays bounded; what begins a part could have been joined to the one before, which costs a
        // run, never correctness.
        let (mut part, mut runs) = (Vec::with_capacity(len.min(PART)), Vec::new());
        let mut places = places.into_iter();
        loop {
            part.clear();
            part.extend(places.by_ref().take(PART));
            if part.is_empty() {
                break;
            }
            if let Gather::Runs(more) = Gather::from_places(part.iter().copied()) {
                for run in more {
                    join(&mut runs, run);
                }
            }
            if runs.len() > left {
                return Err(too_many(origin));
            }
        }
        self.runs += runs.len();
        Ok(Gather::Runs(runs))
    }

    /// Runs that are put together already, with their number bounded.
    pub(crate) fn pieces(
        &mut self,
        origin: &Origin,
        pieces: impl IntoIterator<Item = Run>,
    ) -> Result<Gather, Error> {
        let left = MAX_RUNS.saturating_sub(self.runs);
        let mut runs = Vec::new();
        for piece in pieces {
            join(&mut runs, piece);
            if runs.len() > left {
                return Err(too_many(origin));
            }
        }
        self.runs += runs.len();
        Ok(Gather::Runs(runs))
    }

    /// Blocks of `own` values each, `before` zeros in front of every one and zeros behind it up to `row`: what joins values
    /// along an axis. `len` values in all, of which only the runs are looked at.
    pub(crate) fn blocks(
        &mut self,
        origin: &Origin,
        len: usize,
        [before, own, row]: [usize; 3],
    ) -> Result<Gather, Error> {
        self.fits(origin, &[len])?;
        let count = len / row.max(1);
        self.walk(origin, 3 * count)?;
        // All fit 32 bits, for a value does.
        let block = |number: usize| Run::Values { start: (number * own) as u32, step: 1, count: own as u32 };
        let zeros = |count: usize| Run::Zeros(count as u32);
        let row = |number| [zeros(before), block(number), zeros(row.saturating_sub(before + own))];
        self.pieces(origin, (0..count).flat_map(row).filter(|piece| piece.count() > 0))
    }

    /// Values of a value in other places; the value itself if they are all in place.
    pub(crate) fn gather(
        &mut self,
        origin: &Origin,
        value: ValueId,
        len: usize,
        places: impl IntoIterator<Item = Option<usize>>,
    ) -> Result<ValueId, Error> {
        let gather = self.places(origin, len, places)?;
        let gather = self.simple(gather, value, len);
        self.public(origin, vec![RealTerm { value, factor: 1.0, gather }], 0.0, len)
    }

    /// [`Gather::All`] where a gather is that.
    pub(crate) fn simple(&self, gather: Gather, value: ValueId, len: usize) -> Gather {
        let all = self.len(value) == len
            && match &gather {
                Gather::Runs(runs) => match runs.as_slice() {
                    [Run::Values { start: 0, step, count }] => {
                        (*step == 1 || *count == 1) && *count as usize == len
                    }
                    _ => false,
                },
                _ => false,
            };
        if all { Gather::All } else { gather }
    }

    /// A value with its axes in another order.
    pub(crate) fn transpose(
        &mut self,
        origin: &Origin,
        value: &Secret,
        order: &[usize],
    ) -> Result<Secret, Error> {
        let (shape, walk) = turned(&value.shape, order);
        let id = self.gather(origin, value.id, value.len(), walk.map(Some))?;
        Ok(value.with(id, shape))
    }

    /// A value broadcast to a shape.
    pub(crate) fn broadcast(
        &mut self,
        origin: &Origin,
        value: &Secret,
        shape: &[usize],
    ) -> Result<Secret, Error> {
        let len = self.fits(origin, shape)?;
        if value.shape == shape {
            return Ok(value.clone());
        }
        let walk = broadcast_places(&value.shape, shape).ok_or_else(|| {
            origin.error(format!("shape {:?} cannot be broadcast to {shape:?}: change it", value.shape))
        })?;
        let id = self.gather(origin, value.id, len, walk.map(Some))?;
        Ok(value.with(id, shape.to_vec()))
    }
}

fn too_many(origin: &Origin) -> Error {
    origin.error(format!(
        "with it values are moved about in more than {MAX_RUNS} pieces, which is too many: use a smaller network"
    ))
}

/// Places looked at together.
const PART: usize = 1 << 16;

/// Places of moved values, as gathers take them.
pub(crate) fn place(place: usize) -> Option<usize> {
    (place != OUTSIDE).then_some(place)
}
