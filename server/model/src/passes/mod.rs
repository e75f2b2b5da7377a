//! Rewriting a network over the reals until the protocol can run it: no scales are left, and every layer reads a masked
//! value.

mod absorb;
mod compose;
mod dead;
pub(crate) mod merge;
mod names;
mod piecewise;
mod round;
mod scales;

use crate::Error;
use crate::real::Real;

/// All passes, in the order in which they serve each other.
///
/// # Errors
/// [`Error::Node`] for a network that becomes too large.
pub(crate) fn run(real: Real) -> Result<Real, Error> {
    let (real, names) = names::run(dead::run(real));
    let real = scales::run(real, names)?;
    let real = dead::run(piecewise::run(dead::run(real)));
    let real = merge::run(real, merge::MAX_ALL);
    let real = compose::run(dead::run(real));
    let real = round::run(dead::run(real))?;
    Ok(dead::run(real))
}

/// How many nodes and outputs read every value.
fn uses(real: &Real) -> Vec<usize> {
    let mut uses = vec![0; real.nodes.len() + 1];
    let read = real.nodes.iter().flat_map(|node| node.op.inputs());
    for value in read.chain(real.outputs.iter().map(|output| output.value)) {
        if let Some(uses) = uses.get_mut(value) {
            *uses += 1;
        }
    }
    uses
}
