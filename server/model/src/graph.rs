//! What all servers know of a model: values, and the nodes that make them, in topological order (section 1 of
//! PROTOCOL.md).
//!
//! Value 0 is the device's input, value `i + 1` what node `i` makes. There are three kinds of node and no fourth:
//!
//! | kind | is | costs |
//! |---|---|---|
//! | [`Op::Secret`] | an affine map with weights | ciphertexts |
//! | [`Op::Public`] | a sum of relabelled values with public integer factors | nothing |
//! | [`Op::Relu`] | `max(0, z >> shift)` | garbled circuits |
//!
//! Everything else is made of them: a larger of two values is `b + max(0, a - b)`, a value cut to `0..c` is
//! `max(0, z) - max(0, z - c)`, and a shift of any value is that of a ReLU between two public constants.
//!
//! # Two forms of a value
//!
//! A value is **masked** or **shared**. Of a masked one, `x = (x - r) + Σ r^j`, every server has its part of the mask,
//! and some know `x - r` in clear: the input, what a ReLU makes, and public maps of nothing else. Every other value is
//! shared: every server has an offline share, and some (the *online* servers) an online part; all of them add up to it.
//! An affine map with weights needs a masked value.
//!
//! # Widths
//!
//! All arithmetic is in `Z_{2^32}` and hence in every narrower ring, so only three things need a width: what a ReLU
//! reads (which has a sign), the answer, and, for economy, everything else: a value is kept mod `2^width` with the
//! least width that its consumers need.

mod gather;

use serde::{Deserialize, Serialize};

use gather::MAX_STEPS;
pub use gather::{Gather, Run, Window};

use crate::geometry::MAX_TENSOR;
use crate::{Error, Geometry, InputSpec, MAX_INPUT_BITS, MAX_LAYERS, MAX_VALUES, MAX_WEIGHTS};

/// Most nodes of a graph.
pub const MAX_NODES: usize = 1 << 14;
/// Most terms of a public node.
pub(crate) const MAX_TERMS: usize = 4096;

/// Number of a value: 0 is the input, `i + 1` is what node `i` makes.
pub type ValueId = usize;

/// A graph, as public to all servers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Graph {
    /// Name for people.
    pub name: String,
    /// The device's input.
    pub input: InputSpec,
    /// The nodes; each reads values of earlier ones.
    pub nodes: Vec<Node>,
    /// What the last value means, part by part: it is the answer.
    pub outputs: Vec<Output>,
}

/// A node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Node {
    /// Name of the ONNX node it came from.
    pub name: String,
    /// Width in bits of the ring of its value, from 2 to 32. Of a ReLU it is the width `κ` of the mask.
    pub width: u32,
    /// What it does.
    pub op: Op,
}

/// What a node does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Op {
    /// An affine map with weights: a layer. Its bias has a value for every output.
    Secret {
        /// A masked value.
        input: ValueId,
        /// Shape of the map.
        geometry: Geometry,
    },
    /// `constant + Σ factor · gather(value)`.
    Public {
        /// The sum.
        terms: Vec<Term>,
        /// Added to every value.
        constant: i32,
        /// Number of values.
        len: usize,
    },
    /// `max(0, z >> shift)`, an arithmetic shift, of `z` in two's complement of its own width.
    Relu {
        /// What it reads.
        input: ValueId,
        /// Bits dropped, at most the width of its input less 2.
        shift: u32,
    },
}

/// A term of a public sum.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Term {
    /// What it reads.
    pub value: ValueId,
    /// What it is multiplied by.
    pub factor: i32,
    /// Which of its values go where.
    pub gather: Gather,
}

/// What a part of the answer means.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Output {
    /// Name in the ONNX file.
    pub name: String,
    /// Shape without the batch axis.
    pub shape: Vec<usize>,
    /// What an integer of the answer is multiplied by to be the network's number: `2^-fraction`, the same for all
    /// outputs, with at most 31 fractional bits.
    pub scale: f64,
    /// What the network does with it last, and whoever reads the answer does instead.
    pub last: Last,
}

// A scale is a number (checked), so equality is an equivalence.
impl Eq for Output {}

impl Output {
    /// Values that one label is chosen from: the last axis of more than one.
    pub(crate) fn row(&self) -> usize {
        labelled_row(&self.shape)
    }
}

/// The last axis of more than one, in an output of this shape.
pub(crate) fn labelled_row(shape: &[usize]) -> usize {
    shape.iter().rev().copied().find(|&size| size > 1).unwrap_or(1)
}

/// The operator that was left out at the end of a network.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Last {
    /// None.
    #[default]
    Nothing,
    /// Softmax over the last axis of size above 1.
    Softmax,
    /// Its logarithm.
    LogSoftmax,
    /// The logistic function of every value.
    Sigmoid,
    /// Hyperbolic tangent of every value.
    Tanh,
    /// The index of the largest.
    ArgMax,
    /// Not left out: the answer is the index of the largest, and nothing of the values.
    Index,
}

/// A secret layer of a graph, with what is around it.
#[derive(Clone, Copy, Debug)]
pub struct Layer<'a> {
    /// Number among the secret layers.
    pub index: usize,
    /// Number of its node.
    pub node: usize,
    /// Name of the ONNX node it came from.
    pub name: &'a str,
    /// What it reads.
    pub input: ValueId,
    /// Shape of the map.
    pub geometry: &'a Geometry,
    /// Ring width `k` in bits.
    pub width: u32,
}

/// A ReLU of a graph.
#[derive(Clone, Copy, Debug)]
pub struct Activation<'a> {
    /// Number among the ReLUs, from 0.
    pub index: usize,
    /// Number of its node.
    pub node: usize,
    /// Name of the ONNX node it came from.
    pub name: &'a str,
    /// What it reads.
    pub input: ValueId,
    /// Width `k` of what it reads.
    pub width: u32,
    /// Bits dropped.
    pub shift: u32,
    /// Width `κ` of its mask.
    pub mask_width: u32,
    /// Number of values.
    pub len: usize,
}

impl Activation<'_> {
    /// AND gates of its circuits: one for each bit of what it reads but the sign.
    pub fn and_gates(&self) -> u64 {
        self.len as u64 * u64::from(self.width.saturating_sub(1))
    }
}

impl Graph {
    /// Number of values of a value.
    pub fn len(&self, value: ValueId) -> usize {
        let mut value = value;
        loop {
            let Some(node) = value.checked_sub(1) else { return self.input.len() };
            match self.nodes.get(node).map(|node| &node.op) {
                None => return 0,
                Some(Op::Secret { geometry, .. }) => return geometry.outputs(),
                Some(Op::Public { len, .. }) => return *len,
                // It reads an earlier one, or the graph is refused.
                Some(Op::Relu { input, .. }) if *input < value => value = *input,
                Some(Op::Relu { .. }) => return 0,
            }
        }
    }

    /// Width of the ring of a value. The input's is what its consumers need.
    pub fn width(&self, value: ValueId) -> u32 {
        match value.checked_sub(1) {
            Some(node) => self.nodes.get(node).map_or(0, |node| node.width),
            None => self.input_width(),
        }
    }

    /// Width `κ` of the input's mask: what its consumers need.
    fn input_width(&self) -> u32 {
        // A ReLU may read it, and its values are not negative.
        let needs = self.nodes.iter().flat_map(Node::needs_by_value).filter(|(value, _)| *value == 0);
        needs.map(|(_, need)| need).max().unwrap_or(0).max(self.input.bits + 1)
    }

    /// Name of the node that makes a value.
    pub fn maker(&self, value: ValueId) -> &str {
        match value.checked_sub(1) {
            Some(node) => self.nodes.get(node).map_or("", |node| &node.name),
            None => "input",
        }
    }

    /// The answer: the last value.
    pub fn answer(&self) -> ValueId {
        self.nodes.len()
    }

    /// Number of values in the answer.
    pub fn answer_len(&self) -> usize {
        self.len(self.answer())
    }

    /// Width in bits of a value of the answer.
    pub fn answer_width(&self) -> u32 {
        self.width(self.answer())
    }

    /// Fractional bits of the answer: all its scales are `2^-fraction`.
    pub fn fraction(&self) -> u32 {
        self.outputs.first().map_or(0, |output| (-output.scale.log2()).round().clamp(0.0, 31.0) as u32)
    }

    /// Whether a value is masked: known as `x - r` to somebody. See the module's text.
    pub fn masked(&self) -> Vec<bool> {
        let mut masked = vec![true];
        for node in &self.nodes {
            masked.push(match &node.op {
                Op::Secret { .. } => false,
                Op::Relu { .. } => true,
                Op::Public { terms, .. } => {
                    terms.iter().all(|term| masked.get(term.value).copied().unwrap_or(false))
                }
            });
        }
        masked
    }

    /// The secret layers in order.
    pub fn layers(&self) -> impl Iterator<Item = Layer<'_>> {
        let secret = self.nodes.iter().enumerate().filter_map(|(number, node)| match &node.op {
            Op::Secret { input, geometry } => Some((number, node, *input, geometry)),
            _ => None,
        });
        secret.enumerate().map(|(index, (number, node, input, geometry))| Layer {
            index,
            node: number,
            name: &node.name,
            input,
            geometry,
            width: node.width,
        })
    }

    /// The ReLUs in order.
    pub fn activations(&self) -> impl Iterator<Item = Activation<'_>> {
        let relus = self.nodes.iter().enumerate().filter_map(|(number, node)| match node.op {
            Op::Relu { input, shift } => Some((number, node, input, shift)),
            _ => None,
        });
        relus.enumerate().map(|(index, (number, node, input, shift))| Activation {
            index,
            node: number,
            name: &node.name,
            input,
            width: self.width(input),
            shift,
            mask_width: node.width,
            len: self.len(input),
        })
    }

    /// Number of ReLUs, lane by lane.
    pub fn relus(&self) -> usize {
        self.activations().map(|activation| activation.len).sum()
    }

    /// Sets every width but those that mean something: of what ReLUs read and of the answer they are taken from
    /// `decided` (by value; others there are ignored), and all others become what their consumers need.
    pub fn set_widths(&mut self, decided: &[u32]) {
        let mut needed = vec![2u32; self.nodes.len() + 1];
        let decide = |needed: &mut [u32], value: ValueId| {
            let width = decided.get(value).copied().unwrap_or(32).clamp(2, 32);
            if let Some(needed) = needed.get_mut(value) {
                *needed = (*needed).max(width);
            }
        };
        decide(&mut needed, self.answer());
        // Consumers come later, so from the last to the first everything is known when it is needed. A ReLU may get a
        // wider value than it needs where another consumer wants it so, and is right there too.
        for number in (0..self.nodes.len()).rev() {
            let Some(node) = self.nodes.get_mut(number) else { continue };
            node.width = needed.get(number + 1).copied().unwrap_or(2);
            for (value, width) in node.needs_by_value() {
                if let Some(needed) = needed.get_mut(value) {
                    *needed = (*needed).max(width);
                }
            }
            if let Op::Relu { input, .. } = node.op {
                decide(&mut needed, input);
            }
        }
    }

    /// Checks everything the protocol relies on. Call it on what comes from a file.
    ///
    /// # Errors
    /// [`Error::Shape`] that names the node.
    pub fn check(&self) -> Result<(), Error> {
        let bad = |what: String| Err(Error::Shape(what));
        let input = &self.input;
        if input.shape.len() > 6 || !(1..=MAX_INPUT_BITS).contains(&input.bits) {
            return bad(format!("input of more than six axes, or not of 1 to {MAX_INPUT_BITS} bits"));
        }
        // In bytes, of which a device sends no more.
        let size = input.shape.iter().try_fold(input.value_bytes(), |a, &d| a.checked_mul(d));
        if size.is_none_or(|size| size == 0 || size > MAX_TENSOR) {
            return bad("empty or too large an input".to_owned());
        }
        if input.calibrated.is_some_and(|[least, most]| least > most || u32::from(most) >> input.bits != 0) {
            return bad("calibrated input range that no inputs can have".to_owned());
        }
        if input.reals.as_ref().is_some_and(|reals| !reals.fits(&input.shape)) {
            return bad("real numbers of inputs that do not fit them, or are no numbers".to_owned());
        }
        if self.nodes.is_empty() || self.nodes.len() > MAX_NODES || self.layers().count() > MAX_LAYERS {
            return bad(format!(
                "{} nodes with {} layers; from 1 to {MAX_NODES} with {MAX_LAYERS} are possible",
                self.nodes.len(),
                self.layers().count()
            ));
        }
        let masked = self.masked();
        let (mut weights, mut values, mut terms_in_all, mut steps) = (0usize, 0usize, 0usize, 0usize);
        for (number, node) in self.nodes.iter().enumerate() {
            let name = &node.name;
            let wrong = |what: &str| bad(format!("node {name}: {what}"));
            if !(2..=32).contains(&node.width) {
                return wrong(&format!("width {} is not from 2 to 32", node.width));
            }
            // Before anything is read of them.
            if node.inputs().any(|value| value > number) {
                return wrong("reads what comes later");
            }
            match &node.op {
                Op::Secret { input, geometry } => {
                    geometry.check()?;
                    if geometry.inputs() != self.len(*input) {
                        return wrong(&format!("{} inputs, got {}", geometry.inputs(), self.len(*input)));
                    }
                    if !masked.get(*input).copied().unwrap_or(false) {
                        return wrong("a layer that reads a shared value");
                    }
                    weights = weights.saturating_add(geometry.weights()).saturating_add(geometry.outputs());
                }
                Op::Public { terms, len, .. } => {
                    terms_in_all = terms_in_all.saturating_add(terms.len());
                    if terms.is_empty() || terms.len() > MAX_TERMS || *len == 0 || *len > MAX_TENSOR {
                        return wrong("a sum of nothing or of too much");
                    }
                    if !terms.iter().all(|term| term.gather.check(self.len(term.value), *len)) {
                        return wrong("a sum of values that do not fit");
                    }
                    let more = terms.iter().map(|term| term.gather.steps(*len));
                    steps = more.fold(steps, usize::saturating_add);
                }
                Op::Relu { input, shift } => {
                    if shift.saturating_add(2) > self.width(*input) {
                        return wrong("too large a shift");
                    }
                }
            }
            let narrow = |(value, need): (ValueId, u32)| value > 0 && self.width(value) < need;
            if node.needs_by_value().any(narrow) {
                return wrong("reads a value that is too narrow");
            }
            values = values.saturating_add(self.len(number + 1));
            // Before the next node is looked at: a graph that is too large must not take long to be refused.
            if weights > MAX_WEIGHTS || values > 8 * MAX_VALUES || terms_in_all > 4 * MAX_NODES {
                return bad(format!("more than {MAX_WEIGHTS} weights and biases, or too many values"));
            }
            if steps > MAX_STEPS {
                return wrong("with it the graph adds up too many values");
            }
        }
        let outputs: Option<usize> = self.outputs.iter().try_fold(0usize, |sum, output| {
            let size = output.shape.iter().try_fold(1usize, |a, &d| a.checked_mul(d))?;
            sum.checked_add(size)
        });
        let scale = 2f64.powi(-(self.fraction() as i32));
        if outputs != Some(self.answer_len()) || self.outputs.iter().any(|output| output.scale != scale) {
            return bad(
                "outputs that are not the answer's, or have no power of two as their scale".to_owned()
            );
        }
        Ok(())
    }
}

impl Term {
    /// Width that the term's value must have for a sum mod `2^width`: a power of two in the factor needs less.
    pub fn needs(&self, width: u32) -> u32 {
        width.saturating_sub(self.factor.trailing_zeros().min(31)).max(2)
    }
}

impl Node {
    /// The values that it reads.
    pub fn inputs(&self) -> impl Iterator<Item = ValueId> + '_ {
        let (one, terms) = match &self.op {
            Op::Secret { input, .. } | Op::Relu { input, .. } => (Some(*input), &[][..]),
            Op::Public { terms, .. } => (None, &terms[..]),
        };
        one.into_iter().chain(terms.iter().map(|term| term.value))
    }

    /// The values that it reads, with the width that each must have for this node.
    fn needs_by_value(&self) -> impl Iterator<Item = (ValueId, u32)> + '_ {
        let (one, terms) = match &self.op {
            Op::Secret { input, .. } => (Some((*input, self.width)), &[][..]),
            // The sign is read at the value's own width, whatever it is.
            Op::Relu { input, .. } => (Some((*input, 2)), &[][..]),
            Op::Public { terms, .. } => (None, &terms[..]),
        };
        one.into_iter().chain(terms.iter().map(|term| (term.value, term.needs(self.width))))
    }
}
