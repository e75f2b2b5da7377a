//! Quantised operators, taken for what they approximate: the real numbers are kept, and the file's rounding of them is left
//! out.
//!
//! What a quantised type cannot hold is cut off. Converters rely on that where they leave out a ReLU or a Clip: a type whose
//! least number stands for 0 is a ReLU, and a layer's result with a round number at an end of its type is one that was cut
//! there (ReLU6, Hardtanh). Other ends are where the calibration's values ended, and are taken to be beyond all values.

use std::collections::BTreeSet;

use super::super::call::Call;
use super::super::context::{Context, Quantised, Secret, Value};
use super::super::tensor::{Element, Tensor};
use super::{activation, convolution, matrix};
use crate::Error;
use crate::graph::{Gather, Last, ValueId};
use crate::real::{RealOp, RealTerm};

/// Scale and zero point, both inputs of the node, of a value.
pub(super) fn of_value(call: &Call<'_>, scale: usize, zero: usize) -> Result<(Quantised, Element), Error> {
    let tensor = call.constant(scale, "scale")?.ok_or_else(|| call.node.lacks("scale"))?;
    let single = |tensor: &Tensor| {
        let values = tensor.reals();
        let first = values.first().copied();
        first.filter(|first| first.is_finite() && values.iter().all(|value| value == first))
    };
    let several = || {
        call.error("its scale or zero point differs by channel, and for values one is supported: quantise per tensor")
    };
    let scale = single(tensor).ok_or_else(several)?;
    let (zero, element) = match call.constant(zero, "zero point")? {
        Some(tensor) => (single(tensor).ok_or_else(several)?, tensor.element),
        None => (0.0, Element::Uint8),
    };
    if element.is_small() {
        return Err(call.error(
            "it quantises what depends on the input to a type of a few values, which real numbers are not a good \
             replacement for: quantise the weights alone so, and values to eight bits",
        ));
    }
    match scale > 0.0 && !element.is_float() {
        true => Ok((Quantised { scale, zero }, element)),
        false => {
            Err(call
                .error("its scale is not positive or its zero point no integer: quantise the network again"))
        }
    }
}

/// Scale and zero point of a result. Without the latter its type would be a guess, and so would what that cuts off.
pub(super) fn of_result(call: &Call<'_>, scale: usize, zero: usize) -> Result<(Quantised, Element), Error> {
    match call.input(zero) {
        Some(_) => of_value(call, scale, zero),
        None => {
            Err(call.error("its result has no zero point, which tells its type: quantise the network again"))
        }
    }
}

pub(super) fn quantize(context: &mut Context, call: &Call<'_>) -> Result<Vec<Value>, Error> {
    call.only(&["axis", "block_size", "output_dtype", "precision", "saturate"])?;
    let (quantised, mut element) = of_value(call, 1, 2)?;
    if call.input(2).is_none()
        && let Some(kind) = call.node.int("output_dtype")?.filter(|&kind| kind != 0)
    {
        let known = i32::try_from(kind).ok().and_then(Element::from_onnx);
        let known = known.filter(|known| !known.is_float() && !known.is_small());
        element =
            known.ok_or_else(|| call.error("its output_dtype is no integer: quantise the network again"))?;
    }
    let x = call.any_secret(0)?;
    if matches!(x.last, Last::ArgMax | Last::Index) {
        return Err(
            call.error("it quantises what an ArgMax gives, and indices stay as they are: leave it out")
        );
    }
    if matches!(x.last, Last::Sigmoid | Last::Tanh | Last::Softmax | Last::LogSoftmax)
        && x.quantised.is_none()
    {
        // Whoever does what is done last does it in real numbers.
        return Ok(vec![Secret { quantised: Some(quantised), ..x.clone() }.into()]);
    }
    Ok(vec![cut(context, call, call.secret(0)?, quantised, element)?.into()])
}

/// A value as this type holds it.
pub(super) fn cut(
    context: &mut Context,
    call: &Call<'_>,
    x: &Secret,
    quantised: Quantised,
    element: Element,
) -> Result<Secret, Error> {
    let (least, most) = element.range();
    let [low, high] = [least, most].map(|end| (end as f64 - quantised.zero) * quantised.scale);
    let round = |end: f64| round_bound(end, quantised.scale);
    let mut id = x.id;
    if quantised.zero == least as f64 {
        if !never_negative(context, id) {
            let six = ((high - 6.0).abs() < 0.05).then_some(6.0);
            let most = six.or_else(|| round(high).filter(|_| is_computed(context, id)));
            id = activation::clipped(context, call, id, Some(0.0), most)?;
        }
    } else if is_computed(context, id) && (round(low).is_some() || round(high).is_some()) {
        id = activation::clipped(context, call, id, round(low), round(high))?;
    }
    Ok(Secret { quantised: Some(quantised), ..x.with(id, x.shape.clone()) })
}

/// Whether a value is what a layer or a sum makes, and nothing that was cut before.
fn is_computed(context: &Context, value: ValueId) -> bool {
    match context.op(value) {
        Some(RealOp::Linear(_)) => true,
        Some(RealOp::Scale { input, .. }) => matches!(context.op(*input), Some(RealOp::Linear(_))),
        Some(RealOp::Public { terms, .. }) => terms.iter().all(|term| {
            term.gather == Gather::All
                && matches!(context.op(term.value), Some(RealOp::Linear(_) | RealOp::Scale { .. }))
        }),
        _ => false,
    }
}

/// The round number that an end of a type stands for, if it does as nearly as its steps can. A calibration's own end is as
/// near to one now and then, and a cut there changes nothing but the cost.
fn round_bound(end: f64, scale: f64) -> Option<f64> {
    let near = 0.51 * scale;
    let units = [1.0, 0.5, 0.1].into_iter().filter(|unit| near <= 0.03 * unit);
    units.map(|unit| (end / unit).round() * unit).find(|round| *round != 0.0 && (end - round).abs() <= near)
}

/// Most steps, and summands of them, that are looked at for one value.
const MAX_LOOKED_AT: usize = 256;

/// Whether a value is made so that it cannot be below 0, as far as a few steps show: of what ReLUs made, sums with positive
/// factors, and bounds that it is cut at.
pub(super) fn never_negative(context: &Context, value: ValueId) -> bool {
    // All of these have to be.
    let (mut left, mut open, mut seen) = (MAX_LOOKED_AT, vec![value], BTreeSet::from([value]));
    while let Some(value) = open.pop() {
        let terms = match context.op(value) {
            Some(RealOp::Relu { .. }) => continue,
            Some(RealOp::Public { terms, offset, .. }) if *offset >= 0.0 && terms.len() <= left => terms,
            _ => return false,
        };
        left -= terms.len();
        if let [first, second] = terms.as_slice()
            && is_cut(context, first, second)
        {
            continue;
        }
        if !terms.iter().all(|term| term.factor >= 0.0) {
            return false;
        }
        open.extend(terms.iter().map(|term| term.value).filter(|&value| seen.insert(value)));
    }
    true
}

/// Whether a difference of two ReLUs is a value cut at a bound, `max(0, x + a) - max(0, x + b)` with `b` at most `a`. Of
/// other ReLUs the second may be the larger.
fn is_cut(context: &Context, first: &RealTerm, second: &RealTerm) -> bool {
    let in_place = [first, second].iter().all(|term| term.gather == Gather::All);
    let factors = (first.factor, second.factor) == (1.0, -1.0);
    let (Some(a), Some(b)) = (shifted(context, first.value), shifted(context, second.value)) else {
        return false;
    };
    // Cut from above is also what a ReLU made.
    in_place && factors && (a.0 == b.0 && b.1 <= a.1 || b.0 == first.value && b.1 <= 0.0)
}

/// `x` and `a` of a ReLU of `x + a`.
fn shifted(context: &Context, relu: ValueId) -> Option<(ValueId, f64)> {
    let Some(&RealOp::Relu { input }) = context.op(relu) else { return None };
    Some(match context.op(input) {
        Some(RealOp::Public { terms, offset, .. }) => match terms.as_slice() {
            [RealTerm { value, factor: 1.0, gather: Gather::All }] => (*value, *offset),
            _ => (input, 0.0),
        },
        _ => (input, 0.0),
    })
}

/// The real numbers of a value, of which the node says how they are quantised.
pub(super) fn real(
    context: &mut Context,
    call: &Call<'_>,
    x: &Secret,
    said: Quantised,
) -> Result<Secret, Error> {
    let had = x.quantised.unwrap_or(Quantised { scale: 1.0, zero: 0.0 });
    let id = if had == said {
        x.id
    } else {
        let gain = said.scale / had.scale;
        let offset = (had.zero - said.zero) * said.scale;
        context.scale(&call.origin, x.id, vec![gain; x.len()], vec![offset; x.len()])?
    };
    Ok(Secret::new(id, x.shape.clone()))
}

pub(super) fn dequantize(context: &mut Context, call: &Call<'_>) -> Result<Vec<Value>, Error> {
    call.only(&["axis", "block_size", "output_dtype"])?;
    let (said, _) = of_value(call, 1, 2)?;
    let x = call.any_secret(0)?;
    if x.last != Last::Nothing {
        // What is done last is quantised in the file, and is not here.
        return match x.quantised == Some(said) {
            true => Ok(vec![Secret { quantised: None, ..x.clone() }.into()]),
            false => {
                Err(call
                    .error("its scale is not that of the QuantizeLinear or Sigmoid in front of it: quantise the network again"))
            }
        };
    }
    Ok(vec![real(context, call, x, said)?.into()])
}

/// The integers of an answer of a network, for which `x` has the real numbers.
pub(crate) fn integers(
    context: &mut Context,
    origin: &crate::real::Origin,
    x: &Secret,
) -> Result<Secret, Error> {
    let Some(Quantised { scale, zero }) = x.quantised else { return Ok(x.clone()) };
    let id = context.scale(origin, x.id, vec![1.0 / scale; x.len()], vec![zero; x.len()])?;
    Ok(Secret { quantised: None, ..x.with(id, x.shape.clone()) })
}

/// Weights as real numbers; scale and zero point for all or for each place of an axis.
pub(super) fn weights(call: &Call<'_>, at: usize, axis: usize) -> Result<(Tensor, Vec<f64>), Error> {
    let tensor = call.constant(at, "weights")?.ok_or_else(|| call.node.lacks("weights"))?;
    let scales = call.constant(at + 1, "scale")?.ok_or_else(|| call.node.lacks("scale of its weights"))?;
    let scales = call.numbers(scales)?.into_owned();
    let zeros = match call.constant(at + 2, "zero point")? {
        Some(zeros) => zeros.reals().into_owned(),
        None => vec![0.0],
    };
    let size = tensor.shape.get(axis).copied().unwrap_or(1);
    let fits = |values: &[f64]| values.len() == 1 || values.len() == size;
    if !fits(&scales) || !fits(&zeros) {
        return Err(call.node.damaged("scales of weights that do not fit them"));
    }
    let run: usize = tensor.shape.iter().skip(axis + 1).product();
    let pick = |values: &[f64], place: usize| {
        let at = if values.len() == 1 { 0 } else { place / run.max(1) % size.max(1) };
        values.get(at).copied().unwrap_or(0.0)
    };
    let values = tensor.reals();
    let real = values.iter().enumerate().map(|(place, q)| (q - pick(&zeros, place)) * pick(&scales, place));
    Ok((Tensor::floats(tensor.shape.clone(), real.collect()), scales))
}

/// `x, x_scale, x_zero, w, w_scale, w_zero, y_scale, y_zero, bias`.
pub(super) fn conv(context: &mut Context, call: &Call<'_>) -> Result<Vec<Value>, Error> {
    let (said, _) = of_value(call, 1, 2)?;
    let x = real(context, call, call.any_secret(0)?, said)?;
    let (weights, scales) = weights(call, 3, 0)?;
    let bias = match call.constant(8, "bias")? {
        None => None,
        Some(bias) => {
            let scale = |i: usize| {
                said.scale * scales.get(if scales.len() == 1 { 0 } else { i }).copied().unwrap_or(0.0)
            };
            let values = bias.reals().iter().enumerate().map(|(i, b)| b * scale(i)).collect();
            Some(Tensor::floats(bias.shape.clone(), values))
        }
    };
    let made = convolution::convolve(context, call, &x, &weights, bias.as_ref())?;
    let (quantised, element) = of_result(call, 6, 7)?;
    Ok(vec![cut(context, call, &made, quantised, element)?.into()])
}

/// `a, a_scale, a_zero, b, b_scale, b_zero, y_scale, y_zero` with a or b constant.
pub(super) fn matmul(context: &mut Context, call: &Call<'_>) -> Result<Vec<Value>, Error> {
    call.only(&[])?;
    let mut factors: Vec<Value> = Vec::new();
    for at in [0, 3] {
        factors.push(match call.input(at) {
            Some(Value::Secret(x)) => {
                let (said, _) = of_value(call, at + 1, at + 2)?;
                real(context, call, x, said)?.into()
            }
            Some(Value::Constant(tensor)) => {
                // By row on the left, by column on the right.
                let rank = tensor.shape.len();
                let axis = if at == 0 { rank.saturating_sub(2) } else { rank.saturating_sub(1) };
                weights(call, at, axis)?.0.into()
            }
            None => return Err(call.node.lacks(&format!("input {at}"))),
        });
    }
    let [a, b] = factors.as_slice() else { return Err(call.node.lacks("factors")) };
    let made = matrix::multiply(context, call, a, b, 1.0)?;
    let (quantised, element) = of_result(call, 6, 7)?;
    Ok(vec![cut(context, call, &made, quantised, element)?.into()])
}
