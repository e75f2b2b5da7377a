//! The largest value of windows along an axis, as a tree of comparisons: `max(a, b) = b + max(0, a - b)`.

use std::collections::BTreeSet;

use super::super::context::Context;
use crate::Error;
use crate::graph::{Gather, ValueId};
use crate::real::{Origin, RealTerm};

/// Windows along the middle axis of `outer x length x inner` values.
pub(super) struct Rows {
    pub outer: usize,
    pub length: usize,
    pub inner: usize,
    /// Distance of a window's places.
    pub step: usize,
    /// First place and number of places of each, at least one and all within the axis.
    pub windows: Vec<(usize, usize)>,
}

/// Most windows and parts of windows along an axis.
const MAX_PARTS: usize = 1 << 21;
/// How many values are looked at in the time that a part takes.
const PER_PART: usize = 64;

fn too_many(origin: &Origin) -> Error {
    origin.error(format!(
        "its windows have more than {MAX_PARTS} parts to be compared, which are too many: pool in steps, with smaller windows"
    ))
}

/// How a window is cut in two.
#[derive(Clone, Copy)]
enum Cut {
    /// The largest power of two below its size, and the rest.
    Power,
    /// In halves.
    Half,
    /// Two of the largest power of two, which overlap.
    Overlap,
}

/// For every level of comparisons what there is behind it: places of the axis at which windows begin, and their sizes.
type Levels = Vec<BTreeSet<(usize, usize)>>;

/// A way to cut the windows, and how many comparisons that takes for a row of the axis.
struct Plan {
    cut: Cut,
    levels: Levels,
    comparisons: usize,
}

impl Rows {
    /// The two parts of a window that is too large for a level of sizes up to `most`.
    fn parts(&self, (start, count): (usize, usize), most: usize, cut: Cut) -> [(usize, usize); 2] {
        let first = match cut {
            Cut::Half => count.div_ceil(2),
            _ => most,
        };
        match cut {
            Cut::Overlap => [(start, first), (start + (count - first) * self.step, first)],
            _ => [(start, first), (start + first * self.step, count - first)],
        }
    }

    /// What has to be there before every level, from the windows back to single values. The parts that were looked at are
    /// added to `seen`.
    fn plan(&self, cut: Cut, seen: &mut usize) -> Option<Plan> {
        let mut needed: BTreeSet<(usize, usize)> = self.windows.iter().copied().collect();
        let mut levels = vec![needed.clone()];
        let (mut comparisons, mut all) = (0usize, 0usize);
        while let Some(largest) = needed.iter().map(|&(_, count)| count).max().filter(|&largest| largest > 1)
        {
            let most = largest.next_power_of_two() / 2;
            let mut before = BTreeSet::new();
            for &window in &needed {
                all += 1;
                *seen += 1;
                if window.1 <= most {
                    before.insert(window);
                } else {
                    comparisons += 1;
                    before.extend(self.parts(window, most, cut));
                }
                if all.saturating_add(before.len()) > MAX_PARTS {
                    return None;
                }
            }
            needed = before;
            levels.push(needed.clone());
        }
        levels.reverse();
        Some(Plan { cut, levels, comparisons })
    }

    /// The cheapest way to cut the windows, unless there are too many.
    fn best(&self, context: &mut Context, origin: &Origin) -> Result<Plan, Error> {
        if self.windows.len() > MAX_PARTS {
            return Err(too_many(origin));
        }
        let (mut best, mut seen) = (None::<Plan>, self.windows.len());
        for cut in [Cut::Power, Cut::Half, Cut::Overlap] {
            let plan = self.plan(cut, &mut seen).ok_or_else(|| too_many(origin))?;
            if best.as_ref().is_none_or(|best| plan.comparisons < best.comparisons) {
                best = Some(plan);
            }
        }
        context.walk(origin, PER_PART * seen)?;
        best.ok_or_else(|| too_many(origin))
    }

    /// Comparisons that the windows take.
    pub(super) fn comparisons(&self, context: &mut Context, origin: &Origin) -> Result<usize, Error> {
        let one = self.best(context, origin)?.comparisons;
        Ok(one.saturating_mul(self.outer).saturating_mul(self.inner))
    }

    /// The largest of every window: `outer x windows x inner` values.
    pub(super) fn largest(
        &self,
        context: &mut Context,
        origin: &Origin,
        value: ValueId,
    ) -> Result<ValueId, Error> {
        let Plan { cut, levels, .. } = self.best(context, origin)?;
        let mut value = value;
        // What the value's middle axis has now.
        let mut there: Vec<(usize, usize)> = (0..self.length).map(|place| (place, 1)).collect();
        for level in levels.iter().skip(1) {
            let most = level.iter().map(|&(_, count)| count).max().unwrap_or(1).next_power_of_two() / 2;
            let now: Vec<(usize, usize)> = level.iter().copied().collect();
            let at = |window: (usize, usize)| there.binary_search(&window).unwrap_or(0);
            // Of every window its second part, and of those that are compared the first.
            let (mut pairs, mut kept) = (Vec::new(), Vec::new());
            for &window in &now {
                if window.1 <= most {
                    kept.push(at(window));
                } else {
                    let [first, second] = self.parts(window, most, cut).map(at);
                    pairs.push((first, second));
                    kept.push(second);
                }
            }
            let compared = pairs.len() * self.outer * self.inner;
            let mut slabs =
                |from: &[usize]| self.slabs(context, origin, there.len(), from.iter().map(|&at| Some(at)));
            let firsts = slabs(&pairs.iter().map(|pair| pair.0).collect::<Vec<_>>())?;
            let seconds = slabs(&pairs.iter().map(|pair| pair.1).collect::<Vec<_>>())?;
            let kept = slabs(&kept)?;
            let term = |value, factor, gather| RealTerm { value, factor, gather };
            let difference = context.public(
                origin,
                vec![term(value, 1.0, firsts), term(value, -1.0, seconds)],
                0.0,
                compared,
            )?;
            let more = context.relu(origin, difference)?;
            let mut next = 0;
            let places = now.iter().map(|&(_, count)| {
                (count > most).then(|| {
                    next += 1;
                    next - 1
                })
            });
            let places: Vec<Option<usize>> = places.collect();
            let more_at = self.slabs(context, origin, pairs.len(), places.into_iter())?;
            let len = now.len() * self.outer * self.inner;
            let kept = context.simple(kept, value, len);
            let more_at = context.simple(more_at, more, len);
            value =
                context.public(origin, vec![term(value, 1.0, kept), term(more, 1.0, more_at)], 0.0, len)?;
            there = now;
        }
        // Windows in their order, of which several may be the same.
        let order: Vec<Option<usize>> =
            self.windows.iter().map(|window| there.binary_search(window).ok()).collect();
        if order.iter().enumerate().all(|(i, &at)| at == Some(i)) && order.len() == there.len() {
            return Ok(value);
        }
        let len = order.len() * self.outer * self.inner;
        let gather = self.slabs(context, origin, there.len(), order.into_iter())?;
        context.public(origin, vec![RealTerm { value, factor: 1.0, gather }], 0.0, len)
    }

    /// A gather of places of the middle axis, which has `length` now.
    fn slabs(
        &self,
        context: &mut Context,
        origin: &Origin,
        length: usize,
        places: impl Iterator<Item = Option<usize>> + Clone,
    ) -> Result<Gather, Error> {
        let count = places.clone().count();
        let (outer, inner) = (self.outer, self.inner);
        let all = (0..outer).flat_map(move |o| {
            places.clone().flat_map(move |place| {
                (0..inner).map(move |i| place.map(|place| (o * length + place) * inner + i))
            })
        });
        context.places(origin, count * outer * inner, all)
    }
}
