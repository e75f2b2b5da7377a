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
    /// By value, how many values had to be rounded for it when it was pushed.
    costs: Vec<usize>,
}

/// Most sums behind each other that are made anew of masked values.
const MAX_DEPTH: usize = 8;

/// The network with every layer's input masked.
pub(super) fn run(mut real: Real) -> Result<Real, Error> {
    let old = core::mem::take(&mut real.nodes);
    let mut rounds = Rounds {
        nodes: Vec::with_capacity(old.len()),
        lens: vec![real.input.iter().product()],
        masked: vec![true],
        made: vec![None],
        costs: vec![0],
    };
    let mut name: Vec<ValueId> = vec![0];
    for mut node in old {
        node.op.rename(|value| name[value]);
        if let RealOp::Linear(layer) = &mut node.op {
            layer.input = rounds.mask(layer.input, 0);
        }
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
        self.lens.push(node.op.len(&self.lens));
        self.masked.push(node.op.masked(&self.masked));
        self.made.push(None);
        self.costs.push(0);
        self.nodes.push(node);
        let value = self.nodes.len();
        self.costs[value] = self.cost(value, self.parts(value).as_deref());
        value
    }

    /// How many values have to be rounded for a value to be masked. What its parts cost was counted when they were pushed,
    /// but for those that are masked by now.
    fn cost(&self, value: ValueId, parts: Option<&[ValueId]>) -> usize {
        let of_part = |part: &ValueId| if self.made[*part].is_some() { 0 } else { self.costs[*part] };
        match parts {
            _ if self.masked[value] || self.made[value].is_some() => 0,
            Some(parts) => parts.iter().map(of_part).fold(0, usize::saturating_add).min(self.lens[value]),
            None => self.lens[value],
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

    /// The value, masked, behind `depth` sums that are made anew.
    fn mask(&mut self, value: ValueId, depth: usize) -> ValueId {
        if self.masked[value] {
            return value;
        }
        if let Some(made) = self.made[value] {
            return made;
        }
        let origin = value.checked_sub(1).and_then(|n| self.nodes.get(n)).map(|node| node.origin.clone());
        // Deep sums of sums are rounded as they are.
        let parts = self.parts(value).filter(|_| depth < MAX_DEPTH);
        let cost = self.cost(value, parts.as_deref());
        let made = match parts {
            // With as many values a sum is better rounded once than its parts.
            Some(parts) if cost < self.lens[value] => {
                let masked: Vec<(ValueId, ValueId)> =
                    parts.iter().map(|&part| (part, self.mask(part, depth + 1))).collect();
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
