//! A network over the reals: what an ONNX file becomes before its numbers are chosen.
//!
//! It has the nodes of [`crate::graph`] and one more, [`RealOp::Scale`], which the passes take away. Everything that a
//! network does is written with them by the operators in `onnx/`.

mod execute;
mod runs;
mod usual;

pub(crate) use execute::add;
pub(crate) use runs::{composed, join, runs};

use crate::graph::{Gather, Last, ValueId};
use crate::{Error, Geometry, MAX_VALUES};

/// Most numbers that belong to a network's nodes beside the weights that its file has: biases, gains and offsets. A bias
/// counts for every value of a result, so that a file of a few bytes may ask for many.
pub(crate) const MAX_NUMBERS: usize = 2 * MAX_VALUES;

/// Which node of the file something came from, for messages and as a layer's name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Origin {
    /// Name of the node, or of its first output.
    pub name: String,
    /// Its operator.
    pub op: String,
}

impl Origin {
    /// An error about this node: what is wrong, why and what could replace it.
    pub fn error(&self, what: impl Into<String>) -> Error {
        Error::Node { name: self.name.clone(), op: self.op.clone(), what: what.into() }
    }
}

/// A network. Value 0 is its input, value `i + 1` what node `i` makes.
#[derive(Clone, Debug, PartialEq)]
pub struct Real {
    /// Name of the ONNX graph.
    pub name: String,
    /// Shape of the input without the batch axis.
    pub input: Vec<usize>,
    /// The nodes; each reads values of earlier ones.
    pub nodes: Vec<RealNode>,
    /// The answers in order.
    pub outputs: Vec<RealOutput>,
}

impl Real {
    /// Number of values of a value.
    pub fn len(&self, value: ValueId) -> usize {
        let mut value = value;
        loop {
            let Some(node) = value.checked_sub(1) else { return self.input.iter().product() };
            value = match self.nodes.get(node).map(|node| node.op.own_len()) {
                Some(Ok(len)) => return len,
                // Of an earlier value, so that this ends.
                Some(Err(input)) if input < value => input,
                _ => return 0,
            };
        }
    }

    /// Number of values of every value.
    pub(crate) fn lens(&self) -> Vec<usize> {
        let mut lens = vec![self.input.iter().product()];
        for node in &self.nodes {
            lens.push(node.op.len(&lens));
        }
        lens
    }

    /// Whether a value is masked: the input, what a ReLU makes, and public sums of such (see [`crate::graph`]).
    pub fn masked(&self) -> Vec<bool> {
        let mut masked = vec![true];
        for node in &self.nodes {
            masked.push(node.op.masked(&masked));
        }
        masked
    }

    /// Numbers of layers and scales, and layers.
    pub(crate) fn numbers(&self) -> (usize, usize) {
        let layers = self.nodes.iter().filter(|node| matches!(node.op, RealOp::Linear(_))).count();
        (self.nodes.iter().map(|node| node.op.numbers()).fold(0, usize::saturating_add), layers)
    }

    /// Additions of an inference beside its products: terms of sums, and one for every other value.
    pub(crate) fn additions(&self) -> usize {
        let lens = self.lens();
        let of = |(node, &len): (&RealNode, &usize)| match &node.op {
            RealOp::Public { terms, .. } => {
                terms.iter().map(|term| term.gather.steps(len)).fold(0, usize::saturating_add)
            }
            _ => len,
        };
        self.nodes.iter().zip(lens.iter().skip(1)).map(of).fold(0, usize::saturating_add)
    }

    /// Products of an inference.
    pub fn macs(&self) -> usize {
        let of = |node: &RealNode| match &node.op {
            RealOp::Linear(layer) => layer.geometry.products(),
            _ => 0,
        };
        self.nodes.iter().map(of).fold(0, usize::saturating_add)
    }
}

/// A node of a network.
#[derive(Clone, Debug, PartialEq)]
pub struct RealNode {
    /// Where it came from.
    pub origin: Origin,
    /// What it does.
    pub op: RealOp,
}

/// An answer of a network.
#[derive(Clone, Debug, PartialEq)]
pub struct RealOutput {
    /// Name in the file.
    pub name: String,
    /// Its value.
    pub value: ValueId,
    /// Shape without the batch axis.
    pub shape: Vec<usize>,
    /// What was left out behind it.
    pub last: Last,
}

/// What a node does. Values are flat, row-major, without the batch axis.
#[derive(Clone, Debug, PartialEq)]
pub enum RealOp {
    /// An affine map with weights.
    Linear(Linear),
    /// `gain · value + offset`, value by value: batch norm, additions of constants, normalisation. Both are as long as the
    /// value.
    Scale {
        /// What it reads.
        input: ValueId,
        /// By value.
        gain: Vec<f64>,
        /// By value.
        offset: Vec<f64>,
    },
    /// `offset + Σ factor · gather(value)`. All servers know it: factors and offsets are what an operator says of itself
    /// (a window's divisor, the bounds of a Clip, the slope of a leaky ReLU), also where training chose them.
    Public {
        /// The sum.
        terms: Vec<RealTerm>,
        /// Added to every value.
        offset: f64,
        /// Number of values.
        len: usize,
    },
    /// `max(0, value)`.
    Relu {
        /// What it reads.
        input: ValueId,
    },
    /// The value as it is, made readable for a layer: where two layers follow each other.
    Round {
        /// What it reads.
        input: ValueId,
    },
}

impl RealOp {
    /// The values that it reads.
    pub fn inputs(&self) -> impl Iterator<Item = ValueId> + '_ {
        let (one, terms) = match self {
            RealOp::Linear(Linear { input, .. })
            | RealOp::Scale { input, .. }
            | RealOp::Relu { input }
            | RealOp::Round { input } => (Some(*input), &[][..]),
            RealOp::Public { terms, .. } => (None, terms.as_slice()),
        };
        one.into_iter().chain(terms.iter().map(|term| term.value))
    }

    /// Number of values that it makes, with those of all earlier values given.
    pub(crate) fn len(&self, lens: &[usize]) -> usize {
        self.own_len().unwrap_or_else(|input| lens.get(input).copied().unwrap_or(0))
    }

    /// Number of values that it makes, or the value that has as many.
    fn own_len(&self) -> Result<usize, ValueId> {
        match self {
            RealOp::Linear(layer) => Ok(layer.geometry.outputs()),
            RealOp::Public { len, .. } => Ok(*len),
            RealOp::Scale { input, .. } | RealOp::Relu { input } | RealOp::Round { input } => Err(*input),
        }
    }

    /// Whether what it makes is masked, with that of all earlier values given.
    pub(crate) fn masked(&self, masked: &[bool]) -> bool {
        match self {
            RealOp::Linear(_) | RealOp::Scale { .. } => false,
            RealOp::Relu { .. } | RealOp::Round { .. } => true,
            RealOp::Public { terms, .. } => terms.iter().all(|term| masked[term.value]),
        }
    }

    /// Weights, biases, gains and offsets.
    pub(crate) fn numbers(&self) -> usize {
        match self {
            RealOp::Linear(layer) => layer.weights.len() + layer.bias.len(),
            RealOp::Scale { gain, offset, .. } => gain.len() + offset.len(),
            RealOp::Public { .. } | RealOp::Relu { .. } | RealOp::Round { .. } => 0,
        }
    }

    /// Puts other values in place of those that it reads.
    pub(crate) fn rename(&mut self, name: impl Fn(ValueId) -> ValueId) {
        match self {
            RealOp::Linear(Linear { input, .. })
            | RealOp::Scale { input, .. }
            | RealOp::Relu { input }
            | RealOp::Round { input } => *input = name(*input),
            RealOp::Public { terms, .. } => terms.iter_mut().for_each(|term| term.value = name(term.value)),
        }
    }
}

/// An affine map over the reals.
#[derive(Clone, Debug, PartialEq)]
pub struct Linear {
    /// What it reads.
    pub input: ValueId,
    /// Its shape.
    pub geometry: Geometry,
    /// Weights in the layout of `geometry`.
    pub weights: Vec<f64>,
    /// One for every output *value*.
    pub bias: Vec<f64>,
}

/// A term of a sum.
#[derive(Clone, Debug, PartialEq)]
pub struct RealTerm {
    /// What it reads.
    pub value: ValueId,
    /// What it is multiplied by.
    pub factor: f64,
    /// Which of its values go where.
    pub gather: Gather,
}
