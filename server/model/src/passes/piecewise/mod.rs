//! Chains of ReLUs on one value become as few as can be.
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

use crate::graph::{Gather, ValueId};
use crate::real::{Real, RealNode, RealOp, RealTerm};
use function::{Function, Ramp};

/// A value as a function of another one, number by number.
struct Of {
    base: ValueId,
    function: Function,
}

/// The network with chains of ReLUs written anew where that takes fewer of them. What was there before may be left.
pub(super) fn run(mut real: Real) -> Real {
    let known = functions(&real);
    let masked = real.masked();
    let readers = readers(&real);
    // From the last value to the first, so that a chain is taken whole.
    let mut taken = vec![false; real.nodes.len() + 1];
    let mut anew: Vec<Option<Vec<RealNode>>> = vec![None; real.nodes.len() + 1];
    for value in (1..=real.nodes.len()).rev() {
        let Some(Of { base, function }) = known[value].as_ref().filter(|_| masked[value] && !taken[value])
        else {
            continue;
        };
        let chain = chain(&real, &known, &readers, value, *base);
        let relus = |value: &&ValueId| matches!(op(&real, **value), Some(RealOp::Relu { .. }));
        let had = chain.iter().filter(relus).count();
        let (constant, ramps) = function.ramps();
        if (1..had).contains(&ramps.len()) {
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

/// A value and those between it and its base that nothing else needs.
fn chain(
    real: &Real,
    known: &[Option<Of>],
    readers: &[Vec<ValueId>],
    value: ValueId,
    base: ValueId,
) -> Vec<ValueId> {
    let mut chain = vec![value];
    let mut at = 0;
    while let Some(&member) = chain.get(at) {
        at += 1;
        for input in op(real, member).into_iter().flat_map(RealOp::inputs) {
            let between = input != base && known[input].as_ref().is_some_and(|of| of.base == base);
            // Every reader comes behind it and was looked at, for members are found from the last to the first.
            if between
                && !chain.contains(&input)
                && readers[input].iter().all(|reader| chain.contains(reader))
            {
                chain.push(input);
            }
        }
        chain.get_mut(at..).into_iter().for_each(|rest| rest.sort_unstable_by(|a, b| b.cmp(a)));
    }
    chain
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
