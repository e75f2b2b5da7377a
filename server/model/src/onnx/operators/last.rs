//! What stands at the end of a network and is left out of it: whoever reads the answer does it instead.

use super::super::call::Call;
use super::super::context::{Context, Secret, Value};
use super::super::node::axis;
use super::super::tensor::{Element, Tensor};
use crate::Error;
use crate::graph::Last;

/// Refuses what is behind something left out, unless the node only relabels.
pub(super) fn check(call: &Call<'_>, relabels: bool) -> Result<(), Error> {
    for input in call.inputs.iter().flatten() {
        if let Value::Secret(Secret { last, .. }) = input
            && *last != Last::Nothing
            && !relabels
        {
            return Err(call.error(format!(
                "it reads the result of {}, which is supported only as the last step of a network: {}",
                name(*last),
                match last {
                    Last::Sigmoid | Last::Tanh =>
                        "end the network in front of that and do the rest where the answer is read, or train it with \
                         HardSigmoid or Clip in its place",
                    _ => "end the network in front of that and do the rest where the answer is read",
                }
            )));
        }
    }
    Ok(())
}

fn name(last: Last) -> &'static str {
    match last {
        Last::Nothing => "nothing",
        Last::Softmax => "a Softmax",
        Last::LogSoftmax => "a LogSoftmax",
        Last::Sigmoid => "a Sigmoid",
        Last::Tanh => "a Tanh",
        Last::ArgMax | Last::Index => "an ArgMax",
    }
}

fn left_out(call: &Call<'_>, last: Last) -> Result<Vec<Value>, Error> {
    let x = call.secret(0)?;
    Ok(vec![Secret { last, ..x.clone() }.into()])
}

pub(super) fn sigmoid(_: &mut Context, call: &Call<'_>) -> Result<Vec<Value>, Error> {
    call.only(&[])?;
    left_out(call, Last::Sigmoid)
}

pub(super) fn tanh(_: &mut Context, call: &Call<'_>) -> Result<Vec<Value>, Error> {
    call.only(&[])?;
    left_out(call, Last::Tanh)
}

pub(super) fn softmax(_: &mut Context, call: &Call<'_>) -> Result<Vec<Value>, Error> {
    over_last_axis(call)?;
    left_out(call, Last::Softmax)
}

pub(super) fn log_softmax(_: &mut Context, call: &Call<'_>) -> Result<Vec<Value>, Error> {
    over_last_axis(call)?;
    left_out(call, Last::LogSoftmax)
}

/// The value in another shape, if what is left out behind it is still done to the same rows.
pub(super) fn relabelled(call: &Call<'_>, x: &Secret, shape: Vec<usize>) -> Result<Secret, Error> {
    let row = |shape: &[usize]| shape.get(last_axis(shape)).copied().unwrap_or(1);
    match x.last {
        // The values stay as they are, whatever becomes of the shape of the indices.
        Last::ArgMax | Last::Index => Ok(Secret { indices: Some(shape), ..x.clone() }),
        Last::Softmax | Last::LogSoftmax if row(&x.shape) != row(&shape) => Err(call.error(format!(
            "it makes shape {shape:?} of {:?} behind {}, and whoever reads the answer would take other rows together \
             than the network does: end the network in front of it, or keep the last axis of more than one value",
            x.shape,
            name(x.last)
        ))),
        _ => Ok(x.with(x.id, shape)),
    }
}

/// The last axis of more than one value.
fn last_axis(shape: &[usize]) -> usize {
    shape.iter().rposition(|&size| size > 1).unwrap_or(0)
}

/// Checks that a softmax runs over the last axis of more than one value.
fn over_last_axis(call: &Call<'_>) -> Result<(), Error> {
    call.only(&["axis"])?;
    let shape = &call.secret(0)?.shape;
    let default = if call.opset < 13 { 1 } else { -1 };
    let given = call.node.int("axis")?.unwrap_or(default);
    let found = axis(given, shape.len()).ok_or_else(|| call.node.damaged(format!("axis = {given}")))?;
    // Before opset 13 everything from the axis on counts together.
    let together = if call.opset < 13 { shape.len() } else { found + 1 };
    let last = last_axis(shape);
    let fits = found <= last
        && last < together
        && shape
            .iter()
            .take(together)
            .skip(found)
            .enumerate()
            .all(|(i, &size)| size == 1 || found + i == last);
    match fits || shape.iter().all(|&size| size == 1) {
        true => Ok(()),
        false => Err(call.error(format!(
            "axis = {given} is not supported for shape {shape:?}, only the last axis of more than one value is, for \
             whoever reads the answer does it: end the network in front of it"
        ))),
    }
}

/// The index of the largest. What is left out in front of it does not change that.
pub(super) fn arg_max(_: &mut Context, call: &Call<'_>) -> Result<Vec<Value>, Error> {
    call.only(&["axis", "keepdims", "select_last_index"])?;
    if call.node.flag("select_last_index", false)? {
        return Err(call.error(
            "select_last_index = 1 is not supported, the first of equals is taken: export it with 0",
        ));
    }
    let x = call.secret(0)?;
    let given = call.node.int("axis")?.unwrap_or(0);
    let found = axis(given, x.shape.len()).ok_or_else(|| call.node.damaged(format!("axis = {given}")))?;
    if found != last_axis(&x.shape) || x.last == Last::ArgMax {
        return Err(call.error(format!(
            "axis = {given} is not supported for shape {:?}, only the last axis of more than one value is, for whoever \
             reads the answer does it: end the network in front of it",
            x.shape
        )));
    }
    let keep = call.node.flag("keepdims", true)?;
    let sizes = x.shape.iter().enumerate().filter(|&(axis, _)| keep || axis != found);
    let indices = sizes.map(|(axis, &size)| if axis == found { 1 } else { size }).collect();
    Ok(vec![Secret { last: Last::ArgMax, indices: Some(indices), ..x.clone() }.into()])
}

/// Of a kind of real numbers into another, or of the device's integers into real numbers: the numbers stay.
pub(super) fn cast(_: &mut Context, call: &Call<'_>) -> Result<Vec<Value>, Error> {
    call.only(&["to", "saturate", "round_mode"])?;
    if let Some(constant @ Value::Constant(tensor)) = call.input(0) {
        // A constant is to be like a value, which is real.
        return Ok(vec![match tensor.element.is_float() {
            true => constant.clone(),
            false => Tensor::floats(tensor.shape.clone(), tensor.reals().into_owned()).into(),
        }]);
    }
    let x = call.secret(0)?;
    let to = match (call.node.int("to")?, call.input(1)) {
        (Some(to), _) => i32::try_from(to).ok().and_then(Element::from_onnx),
        (None, Some(Value::Constant(like))) => Some(like.element),
        (None, _) => Some(Element::Float),
    };
    match to {
        Some(element) if element.is_float() || x.last == Last::ArgMax => Ok(vec![x.clone().into()]),
        // What an ArgMax gives are integers already.
        _ => Err(call.error(
            "it makes integers of secret real numbers, and rounding is not supported: leave it out, or end the network \
             in front of it",
        )),
    }
}
