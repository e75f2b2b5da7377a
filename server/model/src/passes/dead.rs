//! What nothing reads goes.

use crate::real::Real;

/// The network without nodes that no output depends on.
pub(super) fn run(mut real: Real) -> Real {
    let mut read = vec![false; real.nodes.len() + 1];
    real.outputs.iter().for_each(|output| read[output.value] = true);
    for (number, node) in real.nodes.iter().enumerate().rev() {
        if read[number + 1] {
            node.op.inputs().for_each(|value| read[value] = true);
        }
    }
    let mut name = vec![0; real.nodes.len() + 1];
    let mut nodes = Vec::with_capacity(real.nodes.len());
    for (number, mut node) in real.nodes.into_iter().enumerate() {
        if read[number + 1] {
            node.op.rename(|value| name[value]);
            nodes.push(node);
            name[number + 1] = nodes.len();
        }
    }
    real.outputs.iter_mut().for_each(|output| output.value = name[output.value]);
    real.nodes = nodes;
    real
}
