//! The network that is being built, and what the names of the file stand for.

mod moving;

use std::collections::HashMap;
use std::rc::Rc;

use super::proto::{NodeProto, volume};
use super::tensor::{MAX_AXES, Tensor};
use crate::geometry::MAX_TENSOR;
use crate::graph::{Gather, Last, MAX_NODES, Run, ValueId, Window};
use crate::real::{Linear, MAX_NUMBERS, Origin, RealNode, RealOp, RealTerm};
use crate::{Error, Geometry, MAX_LAYERS, MAX_VALUES, MAX_WEIGHTS};

pub(crate) use moving::place;

/// Most values of all nodes together.
const MAX_ALL: usize = 8 * MAX_VALUES;
/// Most values that are looked at while all nodes are made, which takes time even where nothing new comes of it: several
/// times what a network of as many values as are possible takes.
const MAX_WALKED: usize = 2 * MAX_ALL;

/// How many values are looked at in the time that one takes which is scaled.
const PER_SCALED: usize = 8;
/// How many values of a window are added in the time that one takes which is looked at.
const PER_ADDED: usize = 2;

/// What a name of the file stands for.
#[derive(Clone, Debug)]
pub(crate) enum Value {
    /// What is known before the input comes.
    Constant(Rc<Tensor>),
    /// What depends on the input.
    Secret(Secret),
}

/// A constant of many values that all are the same number, which a file of a few bytes may have: made when a layer reads it.
#[derive(Clone, Debug)]
pub(crate) struct Filled {
    shape: Vec<usize>,
    len: usize,
    /// The number, with its type.
    one: Tensor,
}

impl Filled {
    /// Of a shape with so many values.
    pub(crate) fn new(shape: Vec<usize>, len: usize, one: Tensor) -> Filled {
        Filled { shape, len, one }
    }

    fn tensor(&self) -> Tensor {
        self.one.gather(self.shape.clone(), std::iter::repeat_n(0, self.len))
    }
}

/// A value that depends on the input.
#[derive(Clone, Debug)]
pub(crate) struct Secret {
    /// Where its numbers are, row-major.
    pub id: ValueId,
    /// Its shape with the batch axis.
    pub shape: Vec<usize>,
    /// What is left out behind it.
    pub last: Last,
    /// The axis that a softmax runs over, if it is not yet the last of more than one value.
    pub over: Option<usize>,
    /// Behind an ArgMax the shape of its indices, `shape` being that of the values they are of.
    pub indices: Option<Vec<usize>>,
    /// Scale and zero point of what the file has in place of the real numbers that are kept here.
    pub quantised: Option<Quantised>,
}

/// Integers `q` in place of real numbers `scale · (q - zero)`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Quantised {
    pub scale: f64,
    pub zero: f64,
}

impl Secret {
    /// A real value.
    pub(crate) fn new(id: ValueId, shape: Vec<usize>) -> Secret {
        Secret { id, shape, last: Last::Nothing, over: None, indices: None, quantised: None }
    }

    /// Other values that mean the same kind of thing.
    pub(crate) fn with(&self, id: ValueId, shape: Vec<usize>) -> Secret {
        Secret { id, shape, ..self.clone() }
    }

    /// Number of values.
    pub(crate) fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// The shape that the file's next node sees.
    pub(crate) fn seen(&self) -> &[usize] {
        self.indices.as_ref().unwrap_or(&self.shape)
    }
}

impl Value {
    /// Number of values.
    pub(crate) fn len(&self) -> usize {
        match self {
            Value::Constant(tensor) => tensor.len(),
            Value::Secret(secret) => secret.len(),
        }
    }
}

impl From<Tensor> for Value {
    fn from(tensor: Tensor) -> Value {
        Value::Constant(Rc::new(tensor))
    }
}

impl From<Secret> for Value {
    fn from(secret: Secret) -> Value {
        Value::Secret(secret)
    }
}

/// The network so far.
pub(crate) struct Context {
    pub nodes: Vec<RealNode>,
    /// Number of values of every value.
    pub lens: Vec<usize>,
    /// What is known of names.
    pub names: HashMap<String, Value>,
    /// Names that nothing but MaxPool reads, and those that do.
    pub pooled: HashMap<String, Vec<NodeProto>>,
    /// How many nodes and outputs read a name.
    pub uses: HashMap<String, usize>,
    /// A scale at the end that only the node at hand reads: what it adds goes into the same.
    pub lone: Option<ValueId>,
    /// Large constants of one number that no node has read yet.
    pub filled: HashMap<String, Filled>,
    all: usize,
    /// Weights of layers.
    weights: usize,
    /// Their biases, and gains and offsets.
    numbers: usize,
    /// Values of large constants that were made.
    made: usize,
    runs: usize,
    layers: usize,
    walked: usize,
    /// How many values all nodes read.
    reads: usize,
}

impl Context {
    /// A network of an input of so many values.
    pub(crate) fn new(input: usize) -> Context {
        Context {
            nodes: Vec::new(),
            lens: vec![input],
            names: HashMap::new(),
            pooled: HashMap::new(),
            uses: HashMap::new(),
            lone: None,
            filled: HashMap::new(),
            all: input,
            weights: 0,
            numbers: 0,
            made: 0,
            runs: 0,
            layers: 0,
            walked: 0,
            reads: 0,
        }
    }

    /// Whether a name of the file stands for something.
    pub(crate) fn is_known(&self, name: &str) -> bool {
        self.names.contains_key(name) || self.filled.contains_key(name)
    }

    /// Number of values of a value.
    pub(crate) fn len(&self, value: ValueId) -> usize {
        self.lens.get(value).copied().unwrap_or(0)
    }

    /// What makes a value, if it is not the input.
    pub(crate) fn op(&self, value: ValueId) -> Option<&RealOp> {
        value.checked_sub(1).and_then(|number| self.nodes.get(number)).map(|node| &node.op)
    }

    /// What [`Context::is_read_once`] looks at, in values.
    pub(crate) fn readers(&self) -> usize {
        self.names.len() + self.nodes.len() + self.reads
    }

    /// Whether one step reads a value, and nothing in the file will any more.
    pub(crate) fn is_read_once(&self, value: ValueId) -> bool {
        let later = self.nodes.iter().skip(value);
        let readers = later.flat_map(|node| node.op.inputs()).filter(|&read| read == value).take(2).count();
        let is_named = |named: &Value| matches!(named, Value::Secret(secret) if secret.id == value);
        readers == 1 && !self.names.values().any(is_named)
    }

    /// Checks that a shape is one that a value may have, before anything is made for it.
    pub(crate) fn fits(&self, origin: &Origin, shape: &[usize]) -> Result<usize, Error> {
        let len = volume(shape).filter(|&len| len > 0 && len <= MAX_TENSOR && shape.len() <= MAX_AXES);
        let len = len.ok_or_else(|| {
            origin.error(format!(
                "its result has shape {shape:?}, which is empty or too large ({MAX_AXES} axes and {MAX_TENSOR} values \
                 are possible): use a smaller network"
            ))
        })?;
        match self.all.saturating_add(len) <= MAX_ALL && self.nodes.len() < MAX_NODES {
            true => Ok(len),
            false => Err(origin.error(format!(
                "with it the network is too large, {MAX_NODES} steps and {MAX_ALL} values are possible: use a smaller \
                 network"
            ))),
        }
    }

    /// Counts values that are about to be looked at. A file of a few bytes may name a large value a thousand times, or a
    /// thousand nodes that each look at it and change nothing.
    pub(crate) fn walk(&mut self, origin: &Origin, values: usize) -> Result<(), Error> {
        self.walked = self.walked.saturating_add(values);
        match self.walked <= MAX_WALKED {
            true => Ok(()),
            false => Err(origin.error(format!(
                "up to it more than {MAX_WALKED} values are looked at to make the network, which is too much: simplify the \
                 file, say with onnxsim, or use a smaller network"
            ))),
        }
    }

    fn push(&mut self, origin: &Origin, op: RealOp, len: usize) -> Result<ValueId, Error> {
        self.fits(origin, &[len])?;
        self.all += len;
        self.reads += op.inputs().count();
        self.lens.push(len);
        self.nodes.push(RealNode { origin: origin.clone(), op });
        Ok(self.nodes.len())
    }

    fn count_numbers(&mut self, origin: &Origin, count: usize) -> Result<(), Error> {
        self.numbers = self.numbers.saturating_add(count);
        match self.numbers <= MAX_NUMBERS {
            true => Ok(()),
            false => Err(origin.error(format!(
                "with it the network has more than {MAX_NUMBERS} biases and scales (one counts for every value of a \
                 result): use a smaller network"
            ))),
        }
    }

    /// A large constant of one number, made: each reader is to be done with it before the next has it.
    pub(crate) fn fill(&mut self, node: &NodeProto, filled: &Filled) -> Result<Tensor, Error> {
        self.made = self.made.saturating_add(filled.len);
        match self.made <= MAX_WEIGHTS {
            true => Ok(filled.tensor()),
            false => Err(node.error(format!(
                "up to it more than {MAX_WEIGHTS} weights are filled with one number each: use a smaller network"
            ))),
        }
    }

    /// Checks a layer's shape and that there is room for it, before its weights are made.
    pub(crate) fn room(&self, origin: &Origin, geometry: &Geometry) -> Result<(), Error> {
        geometry.check().map_err(|e| match e {
            Error::Shape(what) => origin.error(format!("it is a {what}: change its shape")),
            e => e,
        })?;
        let weights = self.weights.saturating_add(geometry.weights());
        let numbers = self.numbers.saturating_add(geometry.outputs());
        if weights > MAX_WEIGHTS || numbers > MAX_NUMBERS || self.layers >= MAX_LAYERS {
            return Err(origin.error(format!(
                "with it the network is too large, {MAX_LAYERS} layers, {MAX_WEIGHTS} weights and {MAX_NUMBERS} biases \
                 (one for every value of a result) are possible: use a smaller network"
            )));
        }
        self.fits(origin, &[geometry.outputs()]).map(|_| ())
    }

    /// An affine map with weights. There is a bias for every output value.
    pub(crate) fn linear(&mut self, origin: &Origin, linear: Linear) -> Result<ValueId, Error> {
        let geometry = &linear.geometry;
        self.room(origin, geometry)?;
        let (weights, outputs) = (geometry.weights(), geometry.outputs());
        if geometry.inputs() != self.len(linear.input)
            || linear.weights.len() != weights
            || linear.bias.len() != outputs
        {
            return Err(origin.error(format!(
                "its weights are for {} values, and its input has {}: change the layer or its input",
                geometry.inputs(),
                self.len(linear.input)
            )));
        }
        self.count_numbers(origin, outputs)?;
        self.weights += weights;
        self.layers += 1;
        self.push(origin, RealOp::Linear(linear), outputs)
    }

    /// Notes whether the last step is a scale that nobody but a node with these inputs reads.
    pub(crate) fn note_lone(&mut self, origin: &Origin, inputs: &[String]) -> Result<(), Error> {
        let last = self.nodes.len();
        self.lone = None;
        if !matches!(self.nodes.last().map(|node| &node.op), Some(RealOp::Scale { .. })) {
            return Ok(());
        }
        self.walk(origin, self.names.len())?;
        let is_last = |value: &Value| matches!(value, Value::Secret(secret) if secret.id == last);
        let mut named = self.names.iter().filter(|(_, value)| is_last(value)).map(|(name, _)| name);
        if let (Some(name), None) = (named.next(), named.next())
            && self.uses.get(name) == Some(&1)
            && inputs.contains(name)
        {
            self.lone = Some(last);
        }
        Ok(())
    }

    /// `gain · value + offset`, value by value; the value itself if that is what it is.
    pub(crate) fn scale(
        &mut self,
        origin: &Origin,
        input: ValueId,
        gain: Vec<f64>,
        offset: Vec<f64>,
    ) -> Result<ValueId, Error> {
        let len = self.len(input);
        if gain.len() != len || offset.len() != len {
            return Err(origin.error("its constant does not fit its input: export the network again"));
        }
        // Gains and offsets are made, looked at and kept.
        self.walk(origin, len.saturating_mul(PER_SCALED))?;
        if gain.iter().all(|&g| g == 1.0) && offset.iter().all(|&o| o == 0.0) {
            return Ok(input);
        }
        if self.lone == Some(input)
            && input == self.nodes.len()
            && let Some(RealOp::Scale { gain: first, offset: more, .. }) =
                self.nodes.last_mut().map(|n| &mut n.op)
        {
            let own = gain.iter().zip(&offset);
            for ((first, more), (gain, offset)) in first.iter_mut().zip(more).zip(own) {
                (*first, *more) = (*first * gain, *more * gain + offset);
            }
            return Ok(input);
        }
        self.count_numbers(origin, 2 * len)?;
        self.push(origin, RealOp::Scale { input, gain, offset }, len)
    }

    /// `offset + Σ factor · gather(value)`; the value itself if that is what it is.
    pub(crate) fn public(
        &mut self,
        origin: &Origin,
        terms: Vec<RealTerm>,
        offset: f64,
        len: usize,
    ) -> Result<ValueId, Error> {
        if let [RealTerm { value, factor: 1.0, gather: Gather::All }] = *terms.as_slice()
            && offset == 0.0
        {
            return Ok(value);
        }
        self.fits(origin, &[len])?;
        if terms.len() > crate::graph::MAX_TERMS {
            return Err(origin.error(format!("it is a sum of {} values, which are too many", terms.len())));
        }
        for term in &terms {
            let from = self.len(term.value);
            if !term.gather.check(from, len) {
                return Err(origin.error(match &term.gather {
                    Gather::Window(window) if window.inputs() == from && window.outputs() == len => {
                        "its windows are too large for so many of them: use smaller ones, or a smaller input"
                    }
                    _ => "its window does not fit its input: change the window or the input",
                }));
            }
            if let Gather::Window(_) = term.gather {
                // Whoever runs the network makes these sums again and again.
                self.walk(origin, term.gather.steps(len) / PER_ADDED)?;
            }
        }
        self.push(origin, RealOp::Public { terms, offset, len }, len)
    }

    /// `max(0, value)`.
    pub(crate) fn relu(&mut self, origin: &Origin, input: ValueId) -> Result<ValueId, Error> {
        // Twice is once.
        if let Some(RealOp::Relu { .. }) = self.op(input) {
            return Ok(input);
        }
        let len = self.len(input);
        self.push(origin, RealOp::Relu { input }, len)
    }

    /// `Σ factor · value + offset` of values of the same length.
    pub(crate) fn sum(
        &mut self,
        origin: &Origin,
        terms: &[(f64, ValueId)],
        offset: f64,
    ) -> Result<ValueId, Error> {
        let len = terms.first().map_or(0, |&(_, value)| self.len(value));
        let term = |&(factor, value): &(f64, ValueId)| RealTerm { value, factor, gather: Gather::All };
        self.public(origin, terms.iter().map(term).collect(), offset, len)
    }

    /// Sums over windows, each divided by `divisor`.
    pub(crate) fn window(
        &mut self,
        origin: &Origin,
        value: ValueId,
        window: Window,
        divisor: f64,
    ) -> Result<ValueId, Error> {
        let len = volume(&[window.input[0], window.output[0], window.output[1]]).unwrap_or(usize::MAX);
        self.fits(origin, &[len])?;
        let term = RealTerm { value, factor: 1.0 / divisor, gather: Gather::Window(window) };
        self.public(origin, vec![term], 0.0, len)
    }

    /// The input as the network wants it: a factor for all belongs to the network's shape, others are weights.
    pub(crate) fn normalise(
        &mut self,
        origin: &Origin,
        gain: Vec<f64>,
        offset: Vec<f64>,
    ) -> Result<ValueId, Error> {
        match gain.first().copied() {
            Some(first) if gain.iter().all(|&g| g == first) && offset.iter().all(|&o| o == 0.0) => {
                self.sum(origin, &[(first, 0)], 0.0)
            }
            _ => self.scale(origin, 0, gain, offset),
        }
    }

    /// A constant as a value: nothing of the input and the constant added.
    pub(crate) fn constant(&mut self, origin: &Origin, tensor: &Tensor) -> Result<Secret, Error> {
        let len = self.fits(origin, &tensor.shape)?;
        let values = tensor.weights().map_err(|what| origin.error(what))?.into_owned();
        let zeros = RealTerm { value: 0, factor: 1.0, gather: Gather::Runs(vec![Run::Zeros(len as u32)]) };
        let zeros = self.public(origin, vec![zeros], 0.0, len)?;
        let id = self.scale(origin, zeros, vec![1.0; len], values)?;
        Ok(Secret::new(id, tensor.shape.clone()))
    }
}
