//! Rounds where a layer would read a shared value: as few values as possible, and each once.

use crate::Error;
use crate::graph::{MAX_NODES, ValueId};
use crate::real::{Real, RealNode, RealOp};

struct Rounds {
    nodes: Vec<RealNode>,
    lens: Vec<usize>,
    masked: Vec<bool>,
    /// By value, what it is when it is masked, where that was made.
    made: Vec<Option<ValueId>>,
}

/// The network with every layer's input masked.
pub(super) fn run(mut real: Real) -> Result<Real, Error> {
    let old = core::mem::take(&mut real.nodes);
    let mut rounds = Rounds {
        nodes: Vec::with_capacity(old.len()),
        lens: vec![real.input.iter().product()],
        masked: vec![true],
        made: vec![None],
    };
    let mut name: Vec<ValueId> = vec![0];
    for mut node in old {
        node.op.rename(|value| name[value]);
        if let RealOp::Linear(layer) = &mut node.op {
            layer.input = rounds.mask(layer.input);
        }
        // Another ReLU on a sum costs nothing more where its own rounding is there already.
        let value = rounds.push(node);
        if rounds.nodes.len() > MAX_NODES {
            return Err(Error::Shape(format!("a network of more than {MAX_NODES} steps: use a smaller one")));
        }
        name.push(value);
    }
    real.outputs.iter_mut().for_each(|output| output.value = name[output.value]);
    real.nodes = rounds.nodes;
    Ok(real)
}

impl Rounds {
    fn push(&mut self, node: RealNode) -> ValueId {
        let masked = match &node.op {
            RealOp::Linear(_) | RealOp::Scale { .. } => false,
            RealOp::Relu { .. } | RealOp::Round { .. } => true,
            RealOp::Public { terms, .. } => terms.iter().all(|term| self.masked[term.value]),
        };
        self.lens.push(node.op.len(&self.lens));
        self.masked.push(masked);
        self.made.push(None);
        self.nodes.push(node);
        self.nodes.len()
    }

    /// How many values have to be rounded for a value to be masked.
    fn cost(&self, value: ValueId) -> usize {
        self.costs(value, 0)
    }

    fn costs(&self, value: ValueId, depth: usize) -> usize {
        if self.masked[value] || self.made[value].is_some() {
            return 0;
        }
        match (self.parts(value), depth) {
            // Deep sums of sums are rounded as they are.
            (Some(parts), 0..8) => {
                let parts =
                    parts.iter().map(|&part| self.costs(part, depth + 1)).fold(0, usize::saturating_add);
                parts.min(self.lens[value])
            }
            _ => self.lens[value],
        }
    }

    /// The shared values that a sum reads, if they can be rounded in its place.
    fn parts(&self, value: ValueId) -> Option<Vec<ValueId>> {
        let node = self.nodes.get(value.checked_sub(1)?)?;
        let RealOp::Public { terms, .. } = &node.op else { return None };
        let mut shared: Vec<ValueId> =
            terms.iter().map(|term| term.value).filter(|&v| !self.masked[v]).collect();
        shared.sort_unstable();
        shared.dedup();
        (shared.len() <= 64).then_some(shared)
    }

    /// The value, masked.
    fn mask(&mut self, value: ValueId) -> ValueId {
        if self.masked[value] {
            return value;
        }
        if let Some(made) = self.made[value] {
            return made;
        }
        let origin = value.checked_sub(1).and_then(|n| self.nodes.get(n)).map(|node| node.origin.clone());
        let cost = self.cost(value);
        let made = match self.parts(value) {
            // With as many values a sum is better rounded once than its parts.
            Some(parts) if cost < self.lens[value] => {
                let masked: Vec<(ValueId, ValueId)> =
                    parts.iter().map(|&part| (part, self.mask(part))).collect();
                let Some(mut node) = value.checked_sub(1).and_then(|n| self.nodes.get(n)).cloned() else {
                    return value;
                };
                let name = |value| {
                    masked.iter().find(|(part, _)| *part == value).map_or(value, |(_, masked)| *masked)
                };
                node.op.rename(name);
                self.push(node)
            }
            _ => {
                self.push(RealNode { origin: origin.unwrap_or_default(), op: RealOp::Round { input: value } })
            }
        };
        self.made[value] = Some(made);
        made
    }
}
