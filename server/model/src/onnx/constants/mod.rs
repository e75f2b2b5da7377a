//! Operators on constants: evaluated once, when the file is read.
//!
//! Exporters leave shape arithmetic, casts of weights and paddings computed from other paddings in a file. All of it goes
//! away here. Numbers are rounded to their type after every operator, as whoever runs the file would.

mod arithmetic;
mod make;
mod matrix;
mod quantised;
mod reduce;

use super::node::Known;
use super::places::{Moved, OUTSIDE, fill, moved};
use super::proto::NodeProto;
use super::tensor::{Data, Element, Tensor, broadcast};
use crate::{Error, MAX_VALUES};

pub(crate) use make::{large, of_shape};

/// Most values that are read and made while constants are folded, unless a file has so many itself that these need more.
const MAX_WORK: usize = 4 * MAX_VALUES;

/// Folds the constants of one file, within limits of time and memory for all of them together.
#[derive(Default)]
pub(crate) struct Folding {
    /// Values read and made so far.
    work: usize,
    /// Values that the file itself has.
    stored: usize,
}

/// How often every value that a file has may be read or made: a cast, a scale and a transposition of all weights.
const PASSES: usize = 6;

impl Folding {
    /// Of a file that has so many values in constants.
    pub(crate) fn new(stored: usize) -> Folding {
        Folding { work: 0, stored }
    }

    /// Evaluates a node of ONNX's own domain all of whose inputs are constants (nothing for an input that is left out): its
    /// outputs, or nothing if the operator is not one that is known here.
    ///
    /// # Errors
    /// [`Error::Node`] for an operator that contradicts its definition or makes too many values.
    pub(crate) fn fold(
        &mut self,
        node: &NodeProto,
        inputs: &[Option<&Tensor>],
        opset: i64,
    ) -> Result<Option<Vec<Tensor>>, Error> {
        let known = Known { node, inputs, opset };
        let lengths = |tensors: &mut dyn Iterator<Item = &Tensor>| {
            tensors.fold(0, |sum, t| t.len().saturating_add(sum))
        };
        self.take(node, lengths(&mut inputs.iter().copied().flatten()))?;
        if let "Max" | "Mean" | "Min" | "Sum" = node.op_type.as_str() {
            // One after the other, each time as many values as all inputs together are broadcast to at most.
            let mut shapes = inputs.iter().copied().flatten().map(|tensor| tensor.shape.as_slice());
            let all = shapes.try_fold(vec![], |all, shape| broadcast(&all, shape));
            let len = all.map_or(0, |shape| shape.iter().product());
            self.take(node, inputs.len().saturating_sub(1).saturating_mul(len))?;
        }
        let Some(result) = evaluate(known)? else { return Ok(None) };
        if node.op_type == "Constant" {
            self.stored = self.stored.saturating_add(lengths(&mut result.iter()));
            return Ok(Some(result));
        }
        self.take(node, lengths(&mut result.iter()))?;
        if let ("MatMul" | "Gemm", Some(Some(first)), [product]) =
            (node.op_type.as_str(), inputs.first(), result.as_slice())
        {
            // As many multiplications for each value; eight take about the time that moving a value takes.
            let long = if node.flag("transA", false)? { first.shape.first() } else { first.shape.last() };
            self.take(node, product.len().saturating_mul(long.copied().unwrap_or(1)) / 8)?;
        }
        Ok(Some(result))
    }

    /// Counts values.
    pub(crate) fn take(&mut self, node: &NodeProto, values: usize) -> Result<(), Error> {
        self.work = self.work.saturating_add(values);
        let most = MAX_WORK.max(self.stored.saturating_mul(PASSES));
        match self.work <= most {
            true => Ok(()),
            false => Err(node.error(format!(
                "up to it more than {most} values of constants are computed, which is too much: simplify the file, say \
                 with onnxsim"
            ))),
        }
    }
}

fn evaluate(known: Known<'_>) -> Result<Option<Vec<Tensor>>, Error> {
    let node = known.node;
    let result = match node.op_type.as_str() {
        "Constant" => make::constant(known)?,
        "ConstantOfShape" => make::filled(known)?,
        "Range" => make::range(known)?,
        "Shape" | "Size" => of_shape(node, &known.needed(0, "input")?.shape)?,
        "NonZero" => make::non_zero(known)?,
        "Concat" => make::concat(known)?,
        "Cast" | "CastLike" => cast(known)?,
        "MatMul" => matrix::mat_mul(known)?,
        "Gemm" => matrix::gemm(known)?,
        "QuantizeLinear" => quantised::quantise(known)?,
        "DequantizeLinear" => quantised::dequantise(known)?,
        op => {
            if let Some(result) = arithmetic::evaluate(known, op)? {
                result
            } else if let Some(result) = reduce::evaluate(known, op)? {
                result
            } else if let Some(first) = known.inputs.first().copied().flatten() {
                return moved_constants(known, first);
            } else {
                return Ok(None);
            }
        }
    };
    Ok(Some(vec![result]))
}

/// Outputs of an operator that only moves values.
fn moved_constants(known: Known<'_>, first: &Tensor) -> Result<Option<Vec<Tensor>>, Error> {
    let Some(outputs) = moved(known.node, &first.shape, known.inputs, known.opset)? else { return Ok(None) };
    let fill = if known.node.op_type == "Pad" { fill(known)? } else { 0.0 };
    let value = |Moved { shape, places }: Moved| {
        let Some(places) = places else { return first.clone().reshaped(shape) };
        let mut tensor = first.gather(shape, places.iter().copied());
        if fill != 0.0 {
            let outside = places.iter().enumerate().filter(|(_, p)| **p == OUTSIDE).map(|(i, _)| i);
            match &mut tensor.data {
                Data::Float(values) => outside.for_each(|i| values[i] = fill),
                Data::Int(values) => outside.for_each(|i| values[i] = fill as i64),
            }
        }
        tensor
    };
    let mut tensors: Vec<Tensor> = outputs.into_iter().map(value).collect();
    if known.node.op_type == "Dropout" && known.node.output.len() > 1 {
        // What was kept: everything.
        let ones = vec![1; first.len()];
        tensors.push(Tensor::from_ints(Element::Bool, first.shape.clone(), ones));
    }
    Ok(Some(tensors))
}

fn cast(known: Known<'_>) -> Result<Tensor, Error> {
    let from = known.needed(0, "input")?;
    let to = match known.node.op_type.as_str() {
        "CastLike" => known.needed(1, "input that tells the type")?.element,
        _ => known.element("to")?.ok_or_else(|| known.node.lacks("type to cast to"))?,
    };
    if to.is_small() && to.is_float() && !known.node.flag("saturate", true)? {
        return Err(known.node.error(
            "saturate = 0 is not supported, what is beyond the type becomes its largest number: export it with 1",
        ));
    }
    let is_cut = |value: &f64| value.fract() != 0.0;
    if to.is_small() && !to.is_float() && from.reals().iter().any(is_cut) {
        return Err(known.node.error(
            "it makes integers of fewer than eight bits of numbers with fractions, which runtimes round and ONNX cuts off: \
             put Round or Floor in front of it, or QuantizeLinear in its place",
        ));
    }
    Ok(from.cast(to))
}
