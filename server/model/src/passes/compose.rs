//! A gather of a gather is one.

use crate::graph::Gather;
use crate::real::{Real, RealOp, RealTerm};

/// Most runs of a gather that is put together.
const MAX_RUNS: usize = 1 << 16;

/// The network with every public sum reading what a gather in front of it read.
pub(super) fn run(mut real: Real) -> Real {
    let uses = super::uses(&real);
    for number in 0..real.nodes.len() {
        let (before, rest) = real.nodes.split_at_mut(number);
        let Some(RealOp::Public { terms, len, .. }) = rest.first_mut().map(|node| &mut node.op) else {
            continue;
        };
        for term in terms.iter_mut() {
            let Some(inner) = term.value.checked_sub(1).and_then(|n| before.get(n)) else { continue };
            let RealOp::Public { terms: inner, offset, len: inner_len } = &inner.op else { continue };
            let ([inner], true) = (inner.as_slice(), *offset == 0.0) else { continue };
            // A gather that others read too stays, so that sums over windows are made once.
            if matches!(inner.gather, Gather::Window(_)) && uses[term.value] > 1 {
                continue;
            }
            if let Some(gather) = composed(&term.gather, *len, &inner.gather, *inner_len) {
                *term = RealTerm { value: inner.value, factor: term.factor * inner.factor, gather };
            }
        }
    }
    real
}

/// `outer(inner(·))`, if that is one gather.
fn composed(outer: &Gather, len: usize, inner: &Gather, inner_len: usize) -> Option<Gather> {
    match (outer, inner) {
        (Gather::All, inner) => Some(inner.clone()),
        (outer, Gather::All) => Some(outer.clone()),
        (Gather::Runs(outer), Gather::Runs(inner)) if outer.len().max(inner.len()) <= MAX_RUNS => {
            let mut from = vec![None; inner_len];
            Gather::Runs(inner.clone()).each(inner_len, |at, place| from[at] = Some(place));
            let mut places: Vec<Option<usize>> = vec![None; len];
            Gather::Runs(outer.clone()).each(len, |at, place| places[at] = from[place]);
            match Gather::from_places(places) {
                Gather::Runs(runs) if runs.len() <= MAX_RUNS => Some(Gather::Runs(runs)),
                _ => None,
            }
        }
        _ => None,
    }
}
