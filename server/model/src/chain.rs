//! From an ONNX graph to a chain of floating-point operations.
//!
//! Every node must consume the output of the node before it; whatever else it reads must be a constant. Tensors are
//! flat and row-major throughout, so `Flatten` and `Reshape` change the shape that is tracked and leave no operation.

use std::collections::HashMap;

use crate::compose::Pool;
use crate::geometry::MAX_TENSOR;
use crate::onnx::{
    AttributeProto, FLOAT, GraphProto, NodeProto, TensorProto, Values, attribute_type, is_default_domain,
    printable, volume,
};
use crate::{Conv, Dense, Error, Geometry, MAX_VALUES};

/// Operators the importer knows, for messages.
const SUPPORTED: &str = "Conv, Gemm, AveragePool, Relu, Flatten and Reshape are supported";

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
    fn new(node: &NodeProto) -> Origin {
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

type Constants<'a> = HashMap<&'a str, &'a TensorProto>;

/// Follows the graph from its input to its output.
pub(crate) fn chain(graph: &GraphProto) -> Result<Chain, Error> {
    let mut constants: Constants<'_> = graph.initializer.iter().map(|t| (t.name.as_str(), t)).collect();
    for node in graph.node.iter().filter(|n| n.op_type == "Constant") {
        let attributes = Attributes { node, origin: Origin::new(node) };
        attributes.only(&["value"])?;
        let (Some(value), [output]) = (attributes.tensor("value")?, node.output.as_slice()) else {
            return Err(attributes.origin.error("has no attribute value"));
        };
        constants.insert(output, value);
    }
    let (mut current, input) = graph_input(graph, &constants)?;
    let mut shape = input.clone();
    let mut ops = Vec::new();
    for node in graph.node.iter().filter(|n| n.op_type != "Constant") {
        let origin = Origin::new(node);
        if !is_default_domain(&node.domain) {
            return Err(origin.error(format!("operator domain {} is not supported", printable(&node.domain))));
        }
        if node.input.first().map(String::as_str) != Some(current) {
            return Err(origin.error(format!(
                "its data input is not {}, the output of the node before it; only a single chain is supported",
                printable(current)
            )));
        }
        let [output] = node.output.as_slice() else {
            return Err(origin.error("has more than one output, or none"));
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
            _ => return Err(origin.error(format!("this operator is not supported; {SUPPORTED}"))),
        };
        shape = next;
        current = output;
        ops.extend(kind.map(|kind| Op { origin, kind }));
    }
    match graph.output.as_slice() {
        [output] if output.name == current => Ok(Chain { name: printable(&graph.name), input, ops }),
        _ => Err(Error::Onnx("its one output must be that of the last node".to_owned())),
    }
}

/// Name and shape of the only input that is not a constant.
fn graph_input<'a>(graph: &'a GraphProto, constants: &Constants<'_>) -> Result<(&'a str, Vec<usize>), Error> {
    let bad = |what: &str| Error::Onnx(format!("input: {what}"));
    let mut inputs = graph.input.iter().filter(|i| !constants.contains_key(i.name.as_str()));
    let (Some(input), None) = (inputs.next(), inputs.next()) else {
        return Err(bad("there must be exactly one"));
    };
    let tensor = input.r#type.as_ref().and_then(|t| t.tensor_type.as_ref());
    let tensor = tensor.ok_or_else(|| bad("is not a tensor"))?;
    if tensor.elem_type != FLOAT {
        return Err(bad("only FLOAT (1) is supported"));
    }
    let dims = tensor.shape.as_ref().map_or(&[][..], |s| &s.dim);
    // One inference is one sample, so a batch size that is left open is 1.
    let [batch, rest @ ..] = dims else { return Err(bad("has no shape")) };
    if batch.dim_value.is_some_and(|d| d != 1) {
        return Err(bad("batch size must be 1"));
    }
    let shape: Option<Vec<usize>> =
        rest.iter().map(|d| d.dim_value.and_then(|v| usize::try_from(v).ok()).filter(|&v| v > 0)).collect();
    let shape = shape.ok_or_else(|| bad("every axis but the first needs a fixed size"))?;
    if shape.is_empty() || shape.len() > 4 || volume(&shape).is_none_or(|n| n > MAX_VALUES) {
        return Err(bad("one to four axes after the batch are supported, and not that many values"));
    }
    Ok((&input.name, shape))
}

/// A node's attributes, checked for their types.
struct Attributes<'a> {
    node: &'a NodeProto,
    origin: Origin,
}

impl<'a> Attributes<'a> {
    /// Refuses attributes of other names: they may change what the operator means.
    fn only(&self, names: &[&str]) -> Result<(), Error> {
        match self.node.attribute.iter().find(|a| !names.contains(&a.name.as_str())) {
            Some(a) => Err(self.origin.error(format!("attribute {} is not supported", printable(&a.name)))),
            None => Ok(()),
        }
    }

    fn get(&self, name: &str, kind: i32) -> Result<Option<&'a AttributeProto>, Error> {
        match self.node.attribute.iter().find(|a| a.name == name) {
            Some(a) if a.r#type != kind => {
                Err(self.origin.error(format!("attribute {name} is of the wrong type")))
            }
            found => Ok(found),
        }
    }

    fn tensor(&self, name: &str) -> Result<Option<&'a TensorProto>, Error> {
        Ok(self.get(name, attribute_type::TENSOR)?.and_then(|a| a.t.as_ref()))
    }

    /// An integer that must be one of `allowed`, the first being the default.
    fn int(&self, name: &str, allowed: &[i64]) -> Result<i64, Error> {
        let value = self.get(name, attribute_type::INT)?.map(|a| a.i);
        let value = value.or(allowed.first().copied()).unwrap_or_default();
        match allowed.contains(&value) {
            true => Ok(value),
            false => Err(self.origin.error(format!("{name} = {value} is not supported; {allowed:?} is"))),
        }
    }

    /// A float that must be 1.
    fn one(&self, name: &str) -> Result<(), Error> {
        match self.get(name, attribute_type::FLOAT)?.map_or(1.0, |a| a.f) {
            1.0 => Ok(()),
            value => Err(self.origin.error(format!("{name} = {value} is not supported; 1 is"))),
        }
    }

    /// `N` numbers of at least `least`, or `default`.
    fn sizes<const N: usize>(
        &self,
        name: &str,
        least: usize,
        default: [usize; N],
    ) -> Result<[usize; N], Error> {
        let Some(attribute) = self.get(name, attribute_type::INTS)? else { return Ok(default) };
        let sizes: Option<Vec<usize>> = attribute
            .ints
            .iter()
            .map(|&v| usize::try_from(v).ok().filter(|v| (least..MAX_TENSOR).contains(v)))
            .collect();
        sizes.and_then(|s| s.try_into().ok()).ok_or_else(|| {
            self.origin.error(format!(
                "{name} must be {N} numbers, each at least {least}: two spatial axes are supported"
            ))
        })
    }

    /// Padding of a node with two spatial axes: top, left, bottom, right.
    fn pads(&self) -> Result<[usize; 4], Error> {
        let auto = self.get("auto_pad", attribute_type::STRING)?.map_or(&b""[..], |a| &a.s);
        let pads = self.sizes("pads", 0, [0; 4])?;
        match auto {
            b"" | b"NOTSET" => Ok(pads),
            b"VALID" if pads == [0; 4] => Ok(pads),
            _ => Err(self.origin.error("this auto_pad is not supported; NOTSET and VALID are")),
        }
    }

    /// Refuses dilation.
    fn undilated(&self) -> Result<(), Error> {
        match self.sizes("dilations", 1, [1; 2])? {
            [1, 1] => Ok(()),
            _ => Err(self.origin.error("dilations other than 1 are not supported")),
        }
    }
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
                None => Err(self.error(format!("input {} is not a constant", printable(name)))),
            },
        }
    }

    fn floats(&self, index: usize) -> Result<Option<Values<f64>>, Error> {
        self.constant(index)?.map(|t| t.floats().map_err(|e| self.error(e))).transpose()
    }

    fn weights(&self) -> Result<Values<f64>, Error> {
        self.floats(1)?.ok_or_else(|| self.error("has no weights"))
    }

    /// The bias, zero if it is left out.
    fn bias(&self, channels: usize) -> Result<Vec<f64>, Error> {
        match self.floats(2)? {
            None => Ok(vec![0.0; channels]),
            Some((dims, bias)) if dims == [channels] || dims == [1, channels] => Ok(bias),
            Some((dims, _)) => Err(self.error(format!("bias of shape {dims:?}; [{channels}] is supported"))),
        }
    }

    fn image(&self, shape: &[usize]) -> Result<[usize; 3], Error> {
        shape.try_into().map_err(|_| {
            self.error(format!(
                "input of shape {shape:?} after the batch; channels, height, width are supported"
            ))
        })
    }

    fn linear(&self, geometry: Geometry, weights: Vec<f64>, bias: Vec<f64>) -> Result<Kind, Error> {
        geometry.check().map_err(|e| self.error(e.to_string()))?;
        if geometry.outputs() > MAX_VALUES {
            return Err(self.error(format!("more than {MAX_VALUES} outputs")));
        }
        Ok(Kind::Linear(Linear { geometry, weights, bias }))
    }

    fn conv(&self, shape: &[usize]) -> Result<(Kind, Vec<usize>), Error> {
        let a = &self.attributes;
        a.only(&["auto_pad", "dilations", "group", "kernel_shape", "pads", "strides"])?;
        a.int("group", &[1])?;
        a.undilated()?;
        let input = self.image(shape)?;
        let (dims, weights) = self.weights()?;
        let &[channels, inputs, height, width] = dims.as_slice() else {
            return Err(self.error(format!("weights of shape {dims:?}; two spatial axes are supported")));
        };
        let kernel = [height, width];
        if inputs != input[0] || a.sizes("kernel_shape", 1, kernel)? != kernel {
            return Err(self.error("weights that do not fit the input channels or kernel_shape"));
        }
        let stride = a.sizes("strides", 1, [1; 2])?;
        let conv = Conv { input, channels, kernel, stride, pads: a.pads()? };
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
            return Err(self.error("input and weights must be matrices; put a Flatten in front"));
        };
        let (inputs_of_weights, outputs) = if transposed { (columns, rows) } else { (rows, columns) };
        if inputs_of_weights != inputs {
            return Err(self.error(format!("weights for {inputs_of_weights} inputs, but there are {inputs}")));
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
        a.int("ceil_mode", &[0])?;
        a.undilated()?;
        if a.pads()? != [0; 4] {
            return Err(self.error("padded pooling is not supported"));
        }
        let input = self.image(shape)?;
        let kernel = a.sizes("kernel_shape", 1, [0; 2])?;
        let stride = a.sizes("strides", 1, [1; 2])?;
        if kernel.contains(&0) || kernel[0] > input[1] || kernel[1] > input[2] {
            return Err(self.error("kernel_shape is missing or larger than the input"));
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
        let target = self.constant(1)?.ok_or_else(|| self.error("has no target shape"))?;
        let (_, target) = target.integers().map_err(|e| self.error(e))?;
        let full: Vec<usize> = core::iter::once(1).chain(shape.iter().copied()).collect();
        let flat: usize = shape.iter().product();
        match resolve(&target, &full) {
            Some(to) if to == [1, flat] => Ok(vec![flat]),
            Some(to) if to == full => Ok(shape.to_vec()),
            _ => Err(self.error(format!("its target is not supported; a flattening to [1, {flat}] is"))),
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
