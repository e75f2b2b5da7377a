//! Chains of ReLUs on one value become fewer.
//!
//! What exporters write as several nodes (a leaky ReLU and a bound behind it, a ReLU of a ReLU6) is one function of one
//! number that is linear between a few points. Such an `f` is a constant and one ReLU for every point where its slope
//! changes, and one more if it is flat nowhere:
//!
//! `f(x) = f(p) + Σ (change of slope at t) · max(0, x - t) + Σ (the same) · max(0, t - x)`,
//!
//! the first sum over the points right of `p` and the second over those left of it, `f` being flat at `p`. (Where it is flat
//! nowhere `p` is one of the points, and both of its ReLUs take the slope to their side.) All ReLUs read `x` itself: one
//! round of the protocol where there were several, nothing is rounded in between, and slopes meet in one sum.

mod function;

use std::collections::BinaryHeap;

use crate::graph::{Gather, ValueId};
use crate::real::{Real, RealNode, RealOp, RealTerm};
use function::{Function, Ramp};

/// A value as a function of another one, number by number.
struct Of {
    base: ValueId,
    function: Function,
}

/// Most values and readers that are looked at in a network.
const MAX_STEPS: usize = 1 << 24;

/// The network with chains of ReLUs written anew where that takes fewer of them. What was there before may be left.
pub(super) fn run(mut real: Real) -> Real {
    let known = functions(&real);
    let masked = real.masked();
    let below = relus_below(&real, &known);
    let readers = readers(&real);
    let mut chains = Chains { member: vec![0; real.nodes.len() + 1], steps: MAX_STEPS };
    // From the last value to the first, so that a chain is taken whole.
    let mut taken = vec![false; real.nodes.len() + 1];
    let mut anew: Vec<Option<Vec<RealNode>>> = vec![None; real.nodes.len() + 1];
    for value in (1..=real.nodes.len()).rev() {
        let Some(Of { base, function }) = known[value].as_ref().filter(|_| masked[value] && !taken[value])
        else {
            continue;
        };
        let (constant, ramps) = function.ramps();
        if !(1..below[value]).contains(&ramps.len()) {
            continue;
        }
        let Some(chain) = chains.find(&real, &known, &readers, value, *base) else { break };
        let relus = |value: &&ValueId| matches!(op(&real, **value), Some(RealOp::Relu { .. }));
        if ramps.len() < chain.iter().filter(relus).count() {
            chain.iter().for_each(|&value| taken[value] = true);
            let origin = real.nodes[value - 1].origin.clone();
            let node = |op| RealNode { origin: origin.clone(), op };
            anew[value] = Some(nodes(real.len(*base), constant, &ramps).into_iter().map(node).collect());
        }
    }
    if anew.iter().all(Option::is_none) {
        return real;
    }
    let old = core::mem::take(&mut real.nodes);
    let mut name: Vec<ValueId> = vec![0];
    for (number, mut node) in old.into_iter().enumerate() {
        match anew[number + 1].take() {
            None => {
                node.op.rename(|value| name[value]);
                real.nodes.push(node);
            }
            Some(made) => {
                // Numbers within count on from the base.
                let (first, base) = (real.nodes.len(), known[number + 1].as_ref().map_or(0, |of| of.base));
                for mut node in made {
                    node.op.rename(|value| if value == 0 { name[base] } else { first + value });
                    real.nodes.push(node);
                }
            }
        }
        name.push(real.nodes.len());
    }
    real.outputs.iter_mut().for_each(|output| output.value = name[output.value]);
    real
}

fn op(real: &Real, value: ValueId) -> Option<&RealOp> {
    Some(&real.nodes.get(value.checked_sub(1)?)?.op)
}

/// By value, what it is a function of: none for those that are of several values or of other places.
fn functions(real: &Real) -> Vec<Option<Of>> {
    let mut known: Vec<Option<Of>> = vec![None];
    for node in &real.nodes {
        let of = |value: ValueId| match &known[value] {
            Some(of) => (of.base, of.function.clone()),
            None => (value, Function::identity()),
        };
        let made = match &node.op {
            RealOp::Relu { input } => {
                let (base, function) = of(*input);
                function.relu().map(|function| Of { base, function })
            }
            RealOp::Public { terms, offset, .. } if terms.iter().all(|term| term.gather == Gather::All) => {
                let parts: Vec<_> = terms.iter().map(|term| (term.factor, of(term.value))).collect();
                let base = parts.first().map(|(_, (base, _))| *base);
                base.filter(|&base| parts.iter().all(|(_, (other, _))| *other == base)).and_then(|base| {
                    let parts: Vec<_> =
                        parts.iter().map(|(factor, (_, function))| (*factor, function)).collect();
                    Function::sum(&parts, *offset).map(|function| Of { base, function })
                })
            }
            _ => None,
        };
        known.push(made);
    }
    known
}

/// By value, what reads it; an output is one more value behind all others.
fn readers(real: &Real) -> Vec<Vec<ValueId>> {
    let mut readers = vec![Vec::new(); real.nodes.len() + 1];
    let behind = real.nodes.len() + 1;
    let read = real
        .nodes
        .iter()
        .enumerate()
        .flat_map(|(number, node)| node.op.inputs().map(move |value| (value, number + 1)));
    for (value, reader) in read.chain(real.outputs.iter().map(|output| (output.value, behind))) {
        readers[value].push(reader);
    }
    readers
}

/// By value, how many ReLUs are between it and what it is a function of: those of several ways count for each.
fn relus_below(real: &Real, known: &[Option<Of>]) -> Vec<usize> {
    let mut below = vec![0usize; real.nodes.len() + 1];
    for (number, node) in real.nodes.iter().enumerate() {
        if known[number + 1].is_some() {
            let own = usize::from(matches!(node.op, RealOp::Relu { .. }));
            below[number + 1] = node.op.inputs().fold(own, |all, input| all.saturating_add(below[input]));
        }
    }
    below
}

/// What finds chains, in so many steps for all of them.
struct Chains {
    /// By value, the last chain that it is in, by the value at its end.
    member: Vec<ValueId>,
    steps: usize,
}

impl Chains {
    /// A value and those between it and its base that nothing else needs; nothing when steps have run out.
    fn find(
        &mut self,
        real: &Real,
        known: &[Option<Of>],
        readers: &[Vec<ValueId>],
        value: ValueId,
        base: ValueId,
    ) -> Option<Vec<ValueId>> {
        let mut chain = Vec::new();
        // The largest first: every reader of a value comes behind it and was looked at before.
        let mut next = BinaryHeap::from([value]);
        while let Some(at) = next.pop() {
            if self.member[at] == value {
                continue;
            }
            self.steps = self.steps.checked_sub(1 + readers[at].len())?;
            if at != value && !readers[at].iter().all(|&reader| self.member.get(reader) == Some(&value)) {
                continue;
            }
            self.member[at] = value;
            chain.push(at);
            let between =
                |input: &ValueId| *input != base && known[*input].as_ref().is_some_and(|of| of.base == base);
            let inputs = op(real, at).into_iter().flat_map(RealOp::inputs).filter(between);
            next.extend(inputs);
            self.steps = self.steps.checked_sub(next.len())?;
        }
        Some(chain)
    }
}

/// The nodes of a sum of ramps of value 0, which has `len` numbers.
fn nodes(len: usize, constant: f64, ramps: &[Ramp]) -> Vec<RealOp> {
    let term = |value, factor| RealTerm { value, factor, gather: Gather::All };
    let mut made = Vec::new();
    let mut sum = Vec::new();
    for ramp in ramps {
        let input = if ramp.turned || ramp.at != 0.0 {
            let (sign, offset) = if ramp.turned { (-1.0, ramp.at) } else { (1.0, -ramp.at) };
            made.push(RealOp::Public { terms: vec![term(0, sign)], offset, len });
            made.len()
        } else {
            0
        };
        made.push(RealOp::Relu { input });
        sum.push(term(made.len(), ramp.factor));
    }
    if constant != 0.0 || ramps.len() != 1 || ramps.iter().any(|ramp| ramp.factor != 1.0) {
        made.push(RealOp::Public { terms: sum, offset: constant, len });
    }
    made
}

#[cfg(test)]
mod tests;
