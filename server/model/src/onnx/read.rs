//! Walking through the nodes of a file: what is constant is computed, what is not becomes a network.

use std::rc::Rc;

use super::call::Call;
use super::constants::{self, Folding};
use super::context::{Context, Secret, Value};
use super::file::{Parsed, parse};
use super::node::Known;
use super::operators::{self, last, quantised};
use super::proto::{NodeProto, is_default_domain, printable};
use super::tensor::Tensor;
use crate::graph::Last;
use crate::real::{Origin, Real, RealOutput};
use crate::{Error, ImportOptions, MAX_VALUES, Normalisation, passes};

/// What may read constants of so many values that they are made only then.
const LAYERS: [&str; 3] = ["Conv", "Gemm", "MatMul"];

/// Reads an ONNX file as a network over the reals, as the passes leave it: no scales, every layer's input masked.
///
/// # Errors
/// [`Error::Onnx`] for bytes that are no such file, [`Error::Node`] for a node that is not supported, naming it,
/// [`Error::Options`] for a shape or normalisation that does not fit the network.
pub fn read(onnx: &[u8], options: &ImportOptions) -> Result<Real, Error> {
    passes::run(walk(onnx, options)?)
}

/// A network that is not supported whole, for what all else of it costs.
#[derive(Debug)]
pub struct Survey {
    /// The network with something of the same shape in place of what is not supported.
    pub real: Real,
    /// What is not, in the file's order: at least one of [`Error::Node`].
    pub refused: Vec<Error>,
}

/// Reads a file that [`read`] refuses, with something of the same shape in place of every operator that has one: an LRN, a
/// GELU or a gate stands for its first input.
///
/// # Errors
/// That of the first node which nothing can stand for, and all others of [`read`].
pub fn survey(onnx: &[u8], options: &ImportOptions) -> Result<Survey, Error> {
    let mut refused = Vec::new();
    let real = passes::run(walk_over(onnx, options, Some(&mut refused))?)?;
    Ok(Survey { real, refused })
}

/// [`read`] without the passes.
pub(crate) fn walk(onnx: &[u8], options: &ImportOptions) -> Result<Real, Error> {
    walk_over(onnx, options, None)
}

/// [`walk`]. What is refused is left out, where that is possible and there is a list for it.
fn walk_over(
    onnx: &[u8],
    options: &ImportOptions,
    mut refused: Option<&mut Vec<Error>>,
) -> Result<Real, Error> {
    let mut parsed = parse(onnx, options.folder.as_deref())?;
    let shape = parsed.input.shape(options.shape.as_deref())?;
    let len = shape.iter().product();
    let mut context = Context::new(len);
    let read_names = parsed.nodes.iter().flat_map(|node| &node.input);
    // An input that is left out has no name.
    let read_names = read_names.filter(|name| !name.is_empty());
    for name in read_names.chain(parsed.outputs.iter().map(|(name, _)| name)) {
        *context.uses.entry(name.clone()).or_default() += 1;
    }
    let (pools, others): (Vec<_>, Vec<_>) = parsed.nodes.iter().partition(|node| node.op_type == "MaxPool");
    for node in pools {
        if let Some(name) = node.input.first() {
            context.pooled.entry(name.clone()).or_default().push(node.clone());
        }
    }
    let read = others.iter().flat_map(|node| &node.input).chain(parsed.outputs.iter().map(|(name, _)| name));
    for name in read {
        context.pooled.remove(name);
    }
    // How many readers of each name are still to come.
    let mut left = context.uses.clone();
    let input = Origin { name: printable(&parsed.input.name), op: "input".to_owned() };
    let real_input = shape.get(1..).unwrap_or_default().to_vec();
    let axis = channel_axis(&parsed, &shape, &options.normalisation);
    let (gain, offset) = options.normalisation.values(&real_input, axis)?;
    if let (Some(_), Some((_, found))) = (&options.reals, &parsed.input.integers) {
        let how = match found.as_str() {
            "INT8" => "uint8 with 128 added, and --scale 1 --mean 128 --std 1",
            _ => "uint8 or uint16, and --scale 1",
        };
        return Err(Error::Options(format!(
            "input {} is of integers ({found}): give inputs as {how}, instead of real numbers",
            input.name
        )));
    }
    let (gain, offset) = of_values(options, &real_input, gain, offset)?;
    parsed.input.check_integers(options.input_bits, &gain, &offset)?;
    let id = context.normalise(&input, gain, offset)?;
    context.names.insert(parsed.input.name.clone(), Secret::new(id, shape).into());
    let stored = std::mem::take(&mut parsed.constants);
    let mut folding = Folding::new(stored.values().map(Tensor::len).fold(0, usize::saturating_add));
    context.names.extend(stored.into_iter().map(|(name, tensor)| (name, tensor.into())));
    for (node, &opset) in parsed.nodes.iter().zip(&parsed.opsets) {
        let call = Call { node, origin: node.origin(), opset, inputs: inputs(&mut context, node)? };
        let known = call.inputs.iter().flatten().all(|value| matches!(value, Value::Constant(_)));
        // ONNX Runtime writes these two in its own domain as well, for weights too.
        let foldable = is_default_domain(&node.domain)
            || node.domain == "com.microsoft"
                && matches!(node.op_type.as_str(), "DequantizeLinear" | "QuantizeLinear");
        let large = match known && foldable {
            true => constants::large(Known { node, inputs: &call.constants(), opset })?,
            false => None,
        };
        let made = if let Some(large) = large {
            let name = node.output.first().filter(|name| context.uses.contains_key(*name));
            name.into_iter().for_each(|name| drop(context.filled.insert(name.clone(), large.clone())));
            Vec::new()
        } else if known && foldable {
            let folded = folding.fold(node, &call.constants(), opset)?;
            let folded = folded.ok_or_else(|| call.of_constants())?;
            folded.into_iter().map(Value::from).collect()
        } else {
            context.note_lone(&call.origin, &node.input)?;
            let lens = call.constants().into_iter().flatten().map(Tensor::len);
            context.walk(&call.origin, lens.fold(0, usize::saturating_add))?;
            let made = match (operators::apply(&mut context, &call), refused.as_deref_mut()) {
                (Ok(made), _) => made,
                (Err(error @ Error::Node { .. }), Some(refused)) => {
                    let Some(made) = operators::stand_in(&mut context, &call)? else { return Err(error) };
                    refused.push(error);
                    made
                }
                (Err(error), _) => return Err(error),
            };
            // What is constant in the end takes memory that is counted with that of other constants.
            for value in &made {
                if let Value::Constant(new) = value
                    && Rc::strong_count(new) == 1
                {
                    folding.take(node, new.len())?;
                }
            }
            made
        };
        drop(call);
        for (name, value) in node.output.iter().zip(made) {
            if context.uses.contains_key(name) {
                context.names.insert(name.clone(), value);
            }
        }
        if let Some(name) =
            node.output.iter().find(|name| context.uses.contains_key(*name) && !context.is_known(name))
        {
            return Err(node.error(format!(
                "its output {} is read, and only the first is supported: export the network without what reads it",
                printable(name)
            )));
        }
        for name in &node.input {
            if let Some(count) = left.get_mut(name) {
                *count = count.saturating_sub(1);
                if *count == 0 {
                    context.filled.remove(name);
                    context.names.remove(name);
                }
            }
        }
    }
    context.lone = None;
    let mut outputs = Vec::new();
    for (name, _) in &parsed.outputs {
        let origin = Origin { name: printable(name), op: "output".to_owned() };
        let missing =
            || Error::Onnx(format!("nothing makes its output {}: export it again", printable(name)));
        let mut value = context.names.get(name).cloned().ok_or_else(missing)?;
        if let (Value::Secret(x), Some(refused)) = (&mut value, refused.as_deref_mut())
            && x.over.is_some()
        {
            let origin = softmax(&parsed.nodes, name).map_or_else(|| origin.clone(), NodeProto::origin);
            refused.push(origin.error(last::wrong_axis(x.last, &x.shape)));
            (x.over, x.last) = (None, Last::Nothing);
        }
        let secret = match value {
            Value::Constant(tensor) => context.constant(&origin, &tensor)?,
            Value::Secret(secret) if secret.over.is_some() => {
                // Named as what it is, not as the output that it has come to.
                let origin = softmax(&parsed.nodes, name).map_or(origin, NodeProto::origin);
                return Err(origin.error(last::wrong_axis(secret.last, &secret.shape)));
            }
            Value::Secret(secret) if secret.last != Last::Nothing && secret.quantised.is_some() => {
                return Err(origin.error(
                    "it has integers in place of what a Sigmoid, Tanh or Softmax gives: add a DequantizeLinear to the end"
                        .to_owned(),
                ));
            }
            Value::Secret(secret) => quantised::integers(&mut context, &origin, &secret)?,
        };
        let shape = match secret.shape.as_slice() {
            [1, rest @ ..] => rest.to_vec(),
            shape => shape.to_vec(),
        };
        outputs.push(RealOutput { name: printable(name), value: secret.id, shape, last: secret.last });
    }
    Ok(Real { name: printable(&parsed.name), input: real_input, nodes: context.nodes, outputs })
}

/// The softmax that a value is, through what it stayed as it was in.
fn softmax<'n>(nodes: &'n [NodeProto], mut name: &'n str) -> Option<&'n NodeProto> {
    for node in nodes.iter().rev() {
        if node.output.iter().any(|made| made == name) {
            if node.op_type.ends_with("Softmax") {
                return Some(node);
            }
            name = node.input.first()?;
        }
    }
    None
}

/// What a node reads.
fn inputs(context: &mut Context, node: &NodeProto) -> Result<Vec<Option<Value>>, Error> {
    let mut value = |name: &String| {
        match name.as_str() {
        "" => Ok(None),
        name => match context.filled.get(name).cloned() {
            Some(filled) if LAYERS.contains(&node.op_type.as_str()) => {
                Ok(Some(context.fill(node, &filled)?.into()))
            }
            Some(_) => Err(node.error(format!(
                "its input {} has more than {MAX_VALUES} values, all the same number, and only a layer's weights may: use \
                 a smaller network",
                printable(name)
            ))),
            None => context.names.get(name).cloned().map(Some).ok_or_else(|| {
                node.error(format!("nothing makes its input {}: export the network again", printable(name)))
            }),
        },
    }
    };
    let mut inputs: Vec<_> = node.input.iter().map(&mut value).collect::<Result<_, _>>()?;
    // Inputs that are left out at the end are as if they were not there.
    while matches!(inputs.last(), Some(None)) {
        inputs.pop();
    }
    Ok(inputs)
}

/// Factor and summand of every input value, from those of what it stands for.
fn of_values(
    options: &ImportOptions,
    shape: &[usize],
    mut gain: Vec<f64>,
    mut offset: Vec<f64>,
) -> Result<(Vec<f64>, Vec<f64>), Error> {
    if let Some(reals) = &options.reals {
        if !reals.fits(shape) {
            return Err(Error::Options(
                "scales and offsets of the inputs' real numbers are not one, or one for each place of the first axis"
                    .to_owned(),
            ));
        }
        let both = gain.iter_mut().zip(&mut offset);
        for ((gain, offset), (scale, start)) in both.zip(reals.by_value(shape)) {
            (*gain, *offset) = (*gain * scale, *gain * start + *offset);
        }
    }
    Ok((gain, offset))
}

/// The axis of the input, without the batch, whose places have means of their own: the first, or the last where a network
/// with channels last begins by bringing them to the front.
fn channel_axis(parsed: &Parsed, shape: &[usize], normalisation: &Normalisation) -> usize {
    let count = normalisation.mean.len().max(normalisation.std.len());
    let readers = parsed.nodes.iter().filter(|node| node.input.contains(&parsed.input.name));
    let turned = readers.map(|node| node.op_type.as_str()).all(|op| op == "Transpose");
    match shape {
        [_, first, .., last] if turned && *first != count && *last == count => shape.len() - 2,
        _ => 0,
    }
}
