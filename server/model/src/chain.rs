//! From an ONNX graph to a chain of floating-point operations.
//!
//! Every node must consume the output of the node before it; whatever else it reads must be a constant. Tensors are
//! flat and row-major throughout, so `Flatten` and `Reshape` change the shape that is tracked and leave no operation.

use std::collections::HashMap;

use crate::attributes::Attributes;
use crate::compose::Pool;
use crate::onnx::{
    FLOAT, GraphProto, NodeProto, TensorProto, Values, is_default_domain, printable, type_name, volume,
};
use crate::supported::{all_supported, off_the_chain};
use crate::{Conv, Dense, Error, Geometry, MAX_VALUES};

/// What a node does.
pub(crate) enum Kind {
    /// An affine map.
    Linear(Linear),
    /// Average pooling.
    Pool(Pool),
    /// ReLU.
    Relu,
}

/// An affine map over the reals.
pub(crate) struct Linear {
    /// Its shape.
    pub geometry: Geometry,
    /// Weights in the layout of `geometry`.
    pub weights: Vec<f64>,
    /// One value for each output channel or row.
    pub bias: Vec<f64>,
}

/// A node of the chain.
pub(crate) struct Op {
    /// Where it came from.
    pub origin: Origin,
    /// What it does.
    pub kind: Kind,
}

/// Which node something came from, for messages and as a layer's name.
#[derive(Clone)]
pub(crate) struct Origin {
    pub name: String,
    pub op: String,
}

impl Origin {
    pub(crate) fn new(node: &NodeProto) -> Origin {
        let name = if node.name.is_empty() { node.output.first() } else { Some(&node.name) };
        Origin { name: name.map_or_else(String::new, |n| printable(n)), op: printable(&node.op_type) }
    }

    /// An error about this node.
    pub(crate) fn error(&self, what: impl Into<String>) -> Error {
        Error::Node { name: self.name.clone(), op: self.op.clone(), what: what.into() }
    }
}

/// A graph as a chain.
pub(crate) struct Chain {
    /// Name of the graph.
    pub name: String,
    /// Shape of the input without the batch axis.
    pub input: Vec<usize>,
    /// The nodes in order.
    pub ops: Vec<Op>,
}

/// Constants by name.
pub(crate) type Constants<'a> = HashMap<&'a str, &'a TensorProto>;

/// Follows the graph from its input to its output.
pub(crate) fn chain(graph: &GraphProto) -> Result<Chain, Error> {
    all_supported(graph)?;
    let mut constants: Constants<'_> = graph.initializer.iter().map(|t| (t.name.as_str(), t)).collect();
    for node in graph.node.iter().filter(|n| n.op_type == "Constant") {
        let attributes = Attributes { node, origin: Origin::new(node) };
        attributes.only(&["value"])?;
        let (Some(value), [output]) = (attributes.tensor("value")?, node.output.as_slice()) else {
            return Err(attributes
                .origin
                .error("it has no attribute value: the file is damaged, so export it again"));
        };
        constants.insert(output, value);
    }
    let (mut current, input) = graph_input(graph, &constants)?;
    let mut shape = input.clone();
    let mut ops = Vec::new();
    for node in graph.node.iter().filter(|n| n.op_type != "Constant") {
        let origin = Origin::new(node);
        if !is_default_domain(&node.domain) {
            return Err(origin.error(format!(
                "operator domain {} is not supported, only ONNX's own operators are: export without extensions",
                printable(&node.domain)
            )));
        }
        if node.input.first().map(String::as_str) != Some(current) {
            return Err(origin.error(off_the_chain(graph, node, &constants)));
        }
        let [output] = node.output.as_slice() else {
            let count = node.output.len();
            return Err(
                origin.error(format!("it has {count} outputs, and one is supported: export for inference"))
            );
        };
        let reader =
            Reader { attributes: Attributes { node, origin: origin.clone() }, constants: &constants };
        let (kind, next) = match node.op_type.as_str() {
            "Conv" => reader.conv(&shape).map(|(k, s)| (Some(k), s))?,
            "Gemm" => reader.gemm(&shape).map(|(k, s)| (Some(k), s))?,
            "AveragePool" => reader.pool(&shape).map(|(k, s)| (Some(k), s))?,
            "Relu" => {
                reader.attributes.only(&[])?;
                (Some(Kind::Relu), shape)
            }
            "Flatten" => (None, reader.flatten(&shape)?),
            "Reshape" => (None, reader.reshape(&shape)?),
            _ => return Err(origin.error("this operator is not supported")),
        };
        shape = next;
        current = output;
        ops.extend(kind.map(|kind| Op { origin, kind }));
    }
    match graph.output.as_slice() {
        [output] if output.name == current => Ok(Chain { name: printable(&graph.name), input, ops }),
        outputs => {
            let names: Vec<String> = outputs.iter().take(8).map(|o| printable(&o.name)).collect();
            Err(Error::Onnx(format!(
                "it has {} outputs ({}), and there must be one, the last node's ({}): export the network with its \
                 logits as its only output",
                outputs.len(),
                names.join(", "),
                printable(current)
            )))
        }
    }
}

/// Name and shape of the only input that is not a constant.
fn graph_input<'a>(graph: &'a GraphProto, constants: &Constants<'_>) -> Result<(&'a str, Vec<usize>), Error> {
    let bad = |what: &str| Error::Onnx(format!("input: {what}"));
    let mut inputs = graph.input.iter().filter(|i| !constants.contains_key(i.name.as_str()));
    let (Some(input), None) = (inputs.next(), inputs.next()) else {
        let names: Vec<String> = graph.input.iter().take(8).map(|i| printable(&i.name)).collect();
        return Err(bad(&format!(
            "there must be exactly one that is no constant, and there are {}: export the network with its picture or \
             features as its only input",
            if names.is_empty() { "none".to_owned() } else { names.join(", ") }
        )));
    };
    let tensor = input.r#type.as_ref().and_then(|t| t.tensor_type.as_ref());
    let name = printable(&input.name);
    let tensor = tensor
        .ok_or_else(|| bad(&format!("{name} is not a tensor: export the network with one as input")))?;
    if tensor.elem_type != FLOAT {
        return Err(bad(&format!(
            "{name} is of type {}, and FLOAT is needed: export in float32 (devices send bytes all the same)",
            type_name(tensor.elem_type)
        )));
    }
    let dims = tensor.shape.as_ref().map_or(&[][..], |s| &s.dim);
    // One inference is one sample, so a batch size that is left open is 1.
    let [batch, rest @ ..] = dims else {
        return Err(bad(&format!("{name} has no shape: export the network with an example input")));
    };
    if let Some(batch) = batch.dim_value.filter(|&d| d != 1) {
        return Err(bad(&format!(
            "{name} has batch size {batch}, and batch size must be 1 or left open: export with one example input"
        )));
    }
    let shape: Option<Vec<usize>> =
        rest.iter().map(|d| d.dim_value.and_then(|v| usize::try_from(v).ok()).filter(|&v| v > 0)).collect();
    let shape = shape.ok_or_else(|| {
        bad(&format!("{name} has an axis without a fixed size: only the first, the batch, may be left open"))
    })?;
    if shape.is_empty() || shape.len() > 4 || volume(&shape).is_none_or(|n| n > MAX_VALUES) {
        return Err(bad(&format!(
            "{name} has shape {shape:?} behind the batch; one to four axes and {MAX_VALUES} values are supported"
        )));
    }
    Ok((&input.name, shape))
}

/// Reads one node.
struct Reader<'a> {
    attributes: Attributes<'a>,
    constants: &'a Constants<'a>,
}

impl Reader<'_> {
    fn error(&self, what: impl Into<String>) -> Error {
        self.attributes.origin.error(what)
    }

    /// The constant that is input `index`; nothing if that input is left out.
    fn constant(&self, index: usize) -> Result<Option<&TensorProto>, Error> {
        match self.attributes.node.input.get(index).map(String::as_str) {
            None | Some("") => Ok(None),
            Some(name) => match self.constants.get(name) {
                Some(tensor) => Ok(Some(tensor)),
                None => Err(self.error(format!(
                    "input {} is not a constant, as weights, biases and shapes must be: simplify the file, say with \
                     onnxsim",
                    printable(name)
                ))),
            },
        }
    }

    fn floats(&self, index: usize) -> Result<Option<Values<f64>>, Error> {
        self.constant(index)?.map(|t| t.floats().map_err(|e| self.error(e))).transpose()
    }

    fn weights(&self) -> Result<Values<f64>, Error> {
        self.floats(1)?
            .ok_or_else(|| self.error("it has no weights: the file is damaged, so export it again"))
    }

    /// The bias, zero if it is left out.
    fn bias(&self, channels: usize) -> Result<Vec<f64>, Error> {
        match self.floats(2)? {
            None => Ok(vec![0.0; channels]),
            Some((dims, bias)) if dims == [channels] || dims == [1, channels] => Ok(bias),
            Some((dims, _)) => Err(self.error(format!(
                "its bias has shape {dims:?}, and [{channels}] is needed, a value for each output: export it so"
            ))),
        }
    }

    fn image(&self, shape: &[usize]) -> Result<[usize; 3], Error> {
        shape.try_into().map_err(|_| {
            let remedy = match shape.len() {
                1 => "reshape the network's input to those, or use Gemm",
                2 => "one spatial axis is not enough; make the network two-dimensional with a height of 1",
                _ => "use a two-dimensional network",
            };
            self.error(format!(
                "its input has shape {shape:?} behind the batch, and three axes are needed (channels, height, width): \
                 {remedy}"
            ))
        })
    }

    fn linear(&self, geometry: Geometry, weights: Vec<f64>, bias: Vec<f64>) -> Result<Kind, Error> {
        geometry.check().map_err(|e| match e {
            Error::Shape(what) => self.error(what),
            e => e,
        })?;
        if geometry.outputs() > MAX_VALUES {
            let outputs = geometry.outputs();
            return Err(self.error(format!(
                "it has {outputs} outputs, and {MAX_VALUES} are possible: use a smaller network"
            )));
        }
        Ok(Kind::Linear(Linear { geometry, weights, bias }))
    }

    fn conv(&self, shape: &[usize]) -> Result<(Kind, Vec<usize>), Error> {
        let a = &self.attributes;
        a.only(&["auto_pad", "dilations", "group", "kernel_shape", "pads", "strides"])?;
        // First what makes it one of another dimension: that explains attributes of other lengths.
        let input = self.image(shape)?;
        let (dims, weights) = self.weights()?;
        let &[channels, inputs, height, width] = dims.as_slice() else {
            return Err(self.error(format!(
                "its weights have shape {dims:?}, and four axes are needed (outputs, inputs, height, width): use a \
                 two-dimensional convolution"
            )));
        };
        a.int("group", &[1])?;
        a.undilated()?;
        let kernel = [height, width];
        if inputs != input[0] {
            let found = input[0];
            return Err(self.error(format!(
                "its weights are for {inputs} input channels, and its input has {found}: are the axes in the order \
                 channels, height, width?"
            )));
        }
        let said = a.sizes("kernel_shape", 1, kernel)?;
        if said != kernel {
            return Err(self.error(format!(
                "its kernel_shape is {said:?}, and its weights are {kernel:?}: the file is damaged, so export it again"
            )));
        }
        let stride = a.sizes("strides", 1, [1; 2])?;
        let conv = Conv { input, channels, kernel, stride, pads: a.pads()?, dilation: [1; 2], groups: 1 };
        let kind = self.linear(Geometry::Conv(conv.clone()), weights, self.bias(channels)?)?;
        Ok((kind, conv.output().to_vec()))
    }

    fn gemm(&self, shape: &[usize]) -> Result<(Kind, Vec<usize>), Error> {
        let a = &self.attributes;
        a.only(&["alpha", "beta", "transA", "transB"])?;
        a.one("alpha")?;
        a.one("beta")?;
        a.int("transA", &[0])?;
        let (dims, weights) = self.weights()?;
        let transposed = a.int("transB", &[0, 1])? == 1;
        let (&[rows, columns], &[inputs]) = (dims.as_slice(), shape) else {
            return Err(self.error(match shape {
                [_] => format!(
                    "its weights have shape {dims:?}, and a matrix is needed: export it as a linear layer"
                ),
                _ => format!(
                    "its input has shape {shape:?} behind the batch, and must be flat: put a Flatten in front"
                ),
            }));
        };
        let (inputs_of_weights, outputs) = if transposed { (columns, rows) } else { (rows, columns) };
        if inputs_of_weights != inputs {
            return Err(self.error(format!(
                "its weights are for {inputs_of_weights} inputs, and there are {inputs}: change the layer or its input"
            )));
        }
        let weights = if transposed { weights } else { transpose(&weights, columns) };
        let geometry = Geometry::Dense(Dense { inputs, outputs });
        Ok((self.linear(geometry, weights, self.bias(outputs)?)?, vec![outputs]))
    }

    fn pool(&self, shape: &[usize]) -> Result<(Kind, Vec<usize>), Error> {
        let a = &self.attributes;
        a.only(&[
            "auto_pad",
            "ceil_mode",
            "count_include_pad",
            "dilations",
            "kernel_shape",
            "pads",
            "strides",
        ])?;
        let input = self.image(shape)?;
        a.int("ceil_mode", &[0])?;
        a.undilated()?;
        if a.pads()? != [0; 4] {
            return Err(self.error("padding is not supported in pooling: pool without it"));
        }
        let kernel = a.sizes("kernel_shape", 1, [0; 2])?;
        let stride = a.sizes("strides", 1, [1; 2])?;
        if kernel.contains(&0) {
            return Err(self.error("its kernel_shape is missing: the file is damaged, so export it again"));
        }
        if kernel[0] > input[1] || kernel[1] > input[2] {
            let [_, height, width] = input;
            return Err(self.error(format!(
                "its kernel_shape {kernel:?} is larger than its input, {height} x {width}: use a smaller window"
            )));
        }
        let pool = Pool { input, kernel, stride };
        let output = pool.output().to_vec();
        Ok((Kind::Pool(pool), output))
    }

    fn flatten(&self, shape: &[usize]) -> Result<Vec<usize>, Error> {
        self.attributes.only(&["axis"])?;
        self.attributes.int("axis", &[1])?;
        Ok(vec![shape.iter().product()])
    }

    fn reshape(&self, shape: &[usize]) -> Result<Vec<usize>, Error> {
        self.attributes.only(&["allowzero"])?;
        self.attributes.int("allowzero", &[0])?;
        let target = self
            .constant(1)?
            .ok_or_else(|| self.error("it has no target shape: the file is damaged, so export it again"))?;
        let (_, target) = target.integers().map_err(|e| self.error(e))?;
        let full: Vec<usize> = core::iter::once(1).chain(shape.iter().copied()).collect();
        let flat: usize = shape.iter().product();
        match resolve(&target, &full) {
            Some(to) if to == [1, flat] => Ok(vec![flat]),
            Some(to) if to == full => Ok(shape.to_vec()),
            _ => Err(self.error(format!(
                "its target {:?} is not supported, only flattening to [1, {flat}] is: use Flatten",
                target.iter().take(8).collect::<Vec<_>>()
            ))),
        }
    }
}

/// A `Reshape` target with its 0 (keep this axis) and -1 (whatever is left) replaced.
fn resolve(target: &[i64], from: &[usize]) -> Option<Vec<usize>> {
    let mut open = None;
    let mut to = Vec::new();
    for (i, &axis) in target.iter().enumerate() {
        to.push(match axis {
            0 => *from.get(i)?,
            -1 if open.is_none() => {
                open = Some(i);
                1
            }
            _ => usize::try_from(axis).ok()?,
        });
    }
    let (all, known) = (volume(from)?, volume(&to)?);
    if let Some(axis) = open.and_then(|i| to.get_mut(i)) {
        *axis = all.checked_div(known)?;
    }
    (volume(&to)? == all).then_some(to)
}

/// Turns a row-major matrix with `columns` columns around.
fn transpose(values: &[f64], columns: usize) -> Vec<f64> {
    (0..columns).flat_map(|c| values.iter().skip(c).step_by(columns.max(1)).copied()).collect()
}
