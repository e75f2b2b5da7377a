//! A gather of a gather is one.

use crate::graph::Gather;
use crate::real::{self, Real, RealOp, RealTerm};

/// Most runs of a gather that is put together.
const MAX_RUNS: usize = 1 << 16;
/// Most pieces of gathers that are looked at in a network, and most runs of all gathers that are put together.
const MAX_STEPS: usize = 1 << 27;
const MAX_ALL: usize = 1 << 24;

/// The network with every public sum reading what a gather in front of it read.
pub(super) fn run(mut real: Real) -> Real {
    let uses = super::uses(&real);
    let (mut steps, mut left) = (MAX_STEPS, MAX_ALL);
    for number in 0..real.nodes.len() {
        let (before, rest) = real.nodes.split_at_mut(number);
        let Some(RealOp::Public { terms, .. }) = rest.first_mut().map(|node| &mut node.op) else {
            continue;
        };
        for term in terms.iter_mut() {
            let Some(inner) = term.value.checked_sub(1).and_then(|n| before.get(n)) else { continue };
            let RealOp::Public { terms: inner, offset, .. } = &inner.op else { continue };
            let ([inner], true) = (inner.as_slice(), *offset == 0.0) else { continue };
            // A gather that others read too stays, so that sums over windows are made once.
            if matches!(inner.gather, Gather::Window(_)) && uses[term.value] > 1 {
                continue;
            }
            let made = composed(&term.gather, &inner.gather, &mut steps);
            let count = made.as_ref().map_or(0, real::runs);
            if let (Some(gather), Some(rest)) = (made, left.checked_sub(count)) {
                left = rest;
                *term = RealTerm { value: inner.value, factor: term.factor * inner.factor, gather };
            }
        }
    }
    real
}

/// `outer(inner(·))`, if that is one gather.
fn composed(outer: &Gather, inner: &Gather, steps: &mut usize) -> Option<Gather> {
    match (outer, inner) {
        (Gather::All, Gather::Runs(inner)) => {
            // A copy, which takes as long.
            *steps = steps.checked_sub(inner.len())?;
            Some(Gather::Runs(inner.clone()))
        }
        (Gather::All, inner) => Some(inner.clone()),
        (outer, Gather::All) => Some(outer.clone()),
        (Gather::Runs(outer), Gather::Runs(inner)) if outer.len().max(inner.len()) <= MAX_RUNS => {
            real::composed(outer, inner, MAX_RUNS, steps).map(Gather::Runs)
        }
        _ => None,
    }
}
