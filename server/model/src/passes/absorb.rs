//! Taking a gain and an offset up into the layer that makes a value, through sums, gathers, means and ReLUs on the way.

use super::scales::{Affine, Scales, channels};
use crate::graph::{Gather, ValueId};
use crate::real::{RealNode, RealOp, runs};
use crate::{Geometry, Window};

/// Nodes on the way from a layer to a value, at most.
const DEPTH: usize = 32;

/// What is to be done with a value and those it is made of.
pub(super) enum Plan {
    /// A layer's outputs, each with its gain and offset.
    Layer { value: ValueId, affine: Affine },
    /// A sum without its offset, of values that change.
    Sum { value: ValueId, terms: Vec<Plan> },
    /// A ReLU of a value that changes.
    Relu { value: ValueId, input: Box<Plan> },
}

impl Scales {
    /// How `gain · value + offset` can be made by changing what makes the value. Without `copies` nothing is changed that
    /// others read too; with them only a layer and gathers are copied.
    pub(super) fn plan(&self, value: ValueId, affine: &Affine, copies: bool, depth: usize) -> Option<Plan> {
        if depth > DEPTH || !(copies || self.alone(value)) {
            return None;
        }
        match &self.nodes.get(value.checked_sub(1)?)?.op {
            RealOp::Linear(layer) => {
                let affine = match &layer.geometry {
                    Geometry::Dense(_) => affine.filled(),
                    Geometry::Conv(conv) => affine.uniform(conv.channels)?,
                };
                Some(Plan::Layer { value, affine })
            }
            RealOp::Public { terms, offset, .. } => {
                // What all terms together have to be.
                let wanted = affine.with_offset(*offset);
                let inner = match terms.as_slice() {
                    [term] => vec![wanted.behind(&term.gather, term.factor, self.lens[term.value])?],
                    _ if copies => return None,
                    terms => {
                        let sources: Vec<_> = terms
                            .iter()
                            .map(|term| (&term.gather, term.factor, self.lens[term.value]))
                            .collect();
                        wanted.behind_all(&sources)?
                    }
                };
                let parts = terms.iter().zip(&inner);
                let terms = parts
                    .map(|(term, affine)| self.plan(term.value, affine, copies, depth + 1))
                    .collect::<Option<_>>()?;
                Some(Plan::Sum { value, terms })
            }
            RealOp::Relu { input } if !copies && affine.is_positive_gain() => {
                let input = Box::new(self.plan(*input, affine, copies, depth + 1)?);
                Some(Plan::Relu { value, input })
            }
            _ => None,
        }
    }

    /// Whether one node reads a value and nothing else does.
    fn alone(&self, value: ValueId) -> bool {
        self.single.get(value).copied().unwrap_or(false)
    }

    /// What a copy of a plan's nodes takes: numbers of layers and runs of gathers.
    pub(super) fn size(&self, plan: &Plan) -> usize {
        let of = |value: ValueId| match self.op(value) {
            Some(RealOp::Public { terms, .. }) => terms.iter().map(|term| runs(&term.gather)).sum(),
            op => op.map_or(0, RealOp::numbers),
        };
        match plan {
            Plan::Layer { value, .. } => of(*value),
            Plan::Sum { value, terms } => {
                terms.iter().map(|term| self.size(term)).fold(of(*value), usize::saturating_add)
            }
            Plan::Relu { input, .. } => self.size(input),
        }
    }

    /// Does what was planned. With `copies` everything is made anew.
    pub(super) fn carry_out(&mut self, plan: Plan, copies: bool) -> Option<ValueId> {
        match plan {
            Plan::Layer { value, affine } => {
                let number = value.checked_sub(1)?;
                if copies {
                    let mut node = self.nodes.get(number)?.clone();
                    rescale(&mut node, &affine)?;
                    return Some(self.push(node, false));
                }
                rescale(self.nodes.get_mut(number)?, &affine)?;
                Some(value)
            }
            Plan::Sum { value, terms } => {
                let mut made = Vec::with_capacity(terms.len());
                for plan in terms {
                    made.push(self.carry_out(plan, copies)?);
                }
                let number = value.checked_sub(1)?;
                let change = |node: &mut RealNode| {
                    if let RealOp::Public { terms, offset, .. } = &mut node.op {
                        *offset = 0.0;
                        terms.iter_mut().zip(made).for_each(|(term, made)| term.value = made);
                    }
                };
                if copies {
                    let mut node = self.nodes.get(number)?.clone();
                    change(&mut node);
                    return Some(self.push(node, false));
                }
                change(self.nodes.get_mut(number)?);
                Some(value)
            }
            Plan::Relu { value, input } => {
                self.carry_out(*input, copies)?;
                Some(value)
            }
        }
    }
}

/// Multiplies a layer's outputs and adds to them. A convolution's gains are the same for each channel.
fn rescale(node: &mut RealNode, affine: &Affine) -> Option<()> {
    let RealOp::Linear(layer) = &mut node.op else { return None };
    let rows = match &layer.geometry {
        Geometry::Dense(dense) => dense.outputs,
        Geometry::Conv(conv) => conv.channels,
    };
    let positions = layer.bias.len() / rows.max(1);
    let columns = layer.weights.len() / rows.max(1);
    for (row, weights) in layer.weights.chunks_mut(columns.max(1)).enumerate() {
        let gain = *affine.gain.get(row * positions)?;
        weights.iter_mut().for_each(|weight| *weight *= gain);
    }
    for ((bias, gain), offset) in layer.bias.iter_mut().zip(&affine.gain).zip(&affine.offset) {
        *bias = *bias * gain + offset;
    }
    Some(())
}

impl Affine {
    /// For a value that is `factor · gather(x)` with this affine map behind it: the one of `x`, if there is one.
    fn behind(&self, gather: &Gather, factor: f64, len: usize) -> Option<Affine> {
        if factor == 0.0 {
            return None;
        }
        match gather {
            Gather::All => Some(Affine {
                gain: self.gain.clone(),
                offset: self.offset.iter().map(|offset| offset / factor).collect(),
            }),
            Gather::Window(window) => self.behind_window(window, factor),
            Gather::Runs(_) => {
                let mut inner = Affine::anything(len);
                let (mut set, mut covered) = (vec![false; len], vec![false; self.gain.len()]);
                let mut fits = true;
                gather.each(self.gain.len(), |at, from| {
                    let (gain, offset) = (self.gain[at], self.offset[at] / factor);
                    covered[at] = true;
                    if !set[from] {
                        set[from] = true;
                        (inner.gain[from], inner.offset[from]) = (gain, offset);
                    }
                    if inner.gain[from].is_nan() {
                        inner.gain[from] = gain;
                    }
                    fits &= inner.offset[from] == offset && (gain.is_nan() || inner.gain[from] == gain);
                });
                // A zero stays one.
                let zeros =
                    covered.iter().zip(&self.offset).all(|(covered, &offset)| *covered || offset == 0.0);
                (fits && zeros).then_some(inner)
            }
        }
    }

    /// The same where sums over windows are between: gains by channel, offsets by channel if all windows are full.
    fn behind_window(&self, window: &Window, factor: f64) -> Option<Affine> {
        let outer = self.uniform(window.input[0])?;
        let positions = window.output[0] * window.output[1];
        let inside = window.input[1] * window.input[2];
        let mut count = vec![0usize; positions];
        window.each(|at, _| {
            if let Some(count) = count.get_mut(at) {
                *count += 1;
            }
        });
        let first = *count.first()?;
        let mut inner = Affine { gain: Vec::new(), offset: Vec::new() };
        for (gains, offsets) in outer.gain.chunks(positions).zip(outer.offset.chunks(positions)) {
            let (gain, offset) = (*gains.first()?, *offsets.first()?);
            let even = offsets.iter().all(|o| *o == offset) && count.iter().all(|c| *c == first) && first > 0;
            if offsets.iter().any(|&o| o != 0.0) && !even {
                return None;
            }
            let offset = if offset == 0.0 { 0.0 } else { offset / (factor * first as f64) };
            inner.gain.extend(core::iter::repeat_n(gain, inside));
            inner.offset.extend(core::iter::repeat_n(offset, inside));
        }
        Some(inner)
    }

    /// For a sum of several values: gains for all, and every offset in the first of them that can take it.
    fn behind_all(&self, terms: &[(&Gather, f64, usize)]) -> Option<Vec<Affine>> {
        let mut left = self.offset.clone();
        let mut made = Vec::with_capacity(terms.len());
        for (gather, factor, len) in terms {
            let own = Affine { gain: self.gain.clone(), offset: left.clone() };
            // Places that this term does not reach are another's business.
            let mut reached = vec![matches!(gather, Gather::All | Gather::Window(_)); left.len()];
            gather.each(left.len(), |at, _| {
                if let Some(reached) = reached.get_mut(at) {
                    *reached = true;
                }
            });
            let part = |values: &[f64]| {
                values.iter().zip(&reached).map(|(v, r)| if *r { *v } else { 0.0 }).collect()
            };
            let own = Affine { offset: part(&own.offset), gain: own.gain };
            match own.behind(gather, *factor, *len) {
                Some(inner) => {
                    made.push(inner);
                    left.iter_mut()
                        .zip(&reached)
                        .filter(|(_, reached)| **reached)
                        .for_each(|(left, _)| *left = 0.0);
                }
                None => {
                    let bare = Affine { gain: self.gain.clone(), offset: vec![0.0; left.len()] };
                    made.push(bare.behind(gather, *factor, *len)?);
                }
            }
        }
        left.iter().all(|&offset| offset == 0.0).then_some(made)
    }

    /// The same gain for all places of each of `count` channels, whatever is free being whatever fits.
    pub(super) fn uniform(&self, count: usize) -> Option<Affine> {
        let positions = self.gain.len() / count.max(1);
        let mut made = self.clone();
        for gains in made.gain.chunks_mut(positions.max(1)) {
            let gain = channels::common(gains)?;
            gains.fill(gain);
        }
        Some(made)
    }

    /// The same with 1 for what is free.
    fn filled(&self) -> Affine {
        let mut made = self.clone();
        made.gain.iter_mut().filter(|gain| gain.is_nan()).for_each(|gain| *gain = 1.0);
        made
    }

    /// The map behind adding a number.
    fn with_offset(&self, offset: f64) -> Affine {
        let mut made = self.clone();
        if offset != 0.0 {
            made.offset.iter_mut().zip(&self.gain).for_each(|(own, gain)| {
                *own += if gain.is_nan() { 0.0 } else { gain * offset };
            });
        }
        made
    }
}
