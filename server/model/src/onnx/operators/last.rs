//! What stands at the end of a network and is left out of it: whoever reads the answer does it instead.

use super::super::call::Call;
use super::super::context::{Context, Secret, Value};
use super::super::node::axis;
use super::super::tensor::{Element, Tensor};
use super::moving;
use crate::Error;
use crate::graph::Last;

/// What a node does to values, as far as it matters behind something left out.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Behind {
    /// They stay as they are.
    Stays,
    /// They stay in their order, whatever becomes of their shape.
    Relabels,
    /// Axes change places.
    Turns,
    /// They go to other places.
    Moves,
    /// A difference, which may be `1 - value`.
    Complement,
    /// All else.
    Computes,
}

/// Whether something is done value by value, wherever that is.
fn is_by_value(last: Last) -> bool {
    matches!(last, Last::Sigmoid | Last::Tanh)
}

/// Refuses what is behind something left out, unless that can as well be done behind the node.
pub(super) fn check(call: &Call<'_>, behind: Behind) -> Result<(), Error> {
    for input in call.inputs.iter().flatten() {
        if let Value::Secret(Secret { last, over, shape, .. }) = input
            && *last != Last::Nothing
        {
            // An ArgMax says itself which axis it may have.
            let fits = matches!(behind, Behind::Turns | Behind::Stays) || call.node.op_type == "ArgMax";
            if over.is_some() && !fits {
                return Err(call.error(wrong_axis(*last, shape)));
            }
            let fits = match behind {
                Behind::Stays | Behind::Relabels => true,
                Behind::Turns => is_by_value(*last) || matches!(last, Last::Softmax | Last::LogSoftmax),
                Behind::Moves => is_by_value(*last),
                Behind::Complement => *last == Last::Sigmoid && is_complement(call),
                Behind::Computes => false,
            };
            if fits {
                continue;
            }
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

/// What a function that is done value by value, at the end, is left out of.
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
    over_axis(call, Last::Softmax)
}

pub(super) fn log_softmax(_: &mut Context, call: &Call<'_>) -> Result<Vec<Value>, Error> {
    over_axis(call, Last::LogSoftmax)
}

fn over_axis(call: &Call<'_>, last: Last) -> Result<Vec<Value>, Error> {
    let over = running_axis(call)?;
    Ok(vec![Secret { last, over, ..call.secret(0)?.clone() }.into()])
}

/// Why a softmax cannot be left out that does not end over the last axis.
pub(crate) fn wrong_axis(last: Last, shape: &[usize]) -> String {
    format!(
        "{} runs over another axis of shape {shape:?} than the last of more than one value, and only that is supported, \
         for whoever reads the answer does it: end the network in front of it, or put a Transpose behind it",
        name(last)
    )
}

/// A value of which a softmax is left out, or something that is done value by value, with its axes in another order.
pub(super) fn transpose(context: &mut Context, call: &Call<'_>) -> Result<Vec<Value>, Error> {
    let x = call.any_secret(0)?;
    let softmax = matches!(x.last, Last::Softmax | Last::LogSoftmax);
    let mut made = moving::moved_anywhere(context, call)?;
    if let (true, Some(Value::Secret(turned))) = (softmax, made.first_mut()) {
        let axis = x.over.unwrap_or_else(|| last_axis(&x.shape));
        let rank = x.shape.len();
        let order = match call.node.ints("perm")? {
            Some(order) => order.to_vec(),
            None => (0..rank as i64).rev().collect(),
        };
        let now = order.iter().position(|&from| super::super::node::axis(from, rank) == Some(axis));
        turned.over = now.filter(|&now| now != last_axis(&turned.shape) && turned.len() > 1);
    }
    Ok(made)
}

/// Whether a node is `1 - value`.
fn is_complement(call: &Call<'_>) -> bool {
    matches!((call.input(0), call.input(1)), (Some(Value::Constant(one)), Some(Value::Secret(_)))
        if one.reals().iter().all(|&one| one == 1.0))
}

/// `1 - sigmoid(x)`, which is `sigmoid(-x)`; nothing for other differences.
pub(super) fn complement(context: &mut Context, call: &Call<'_>) -> Result<Option<Vec<Value>>, Error> {
    if !matches!(call.input(1), Some(Value::Secret(Secret { last: Last::Sigmoid, .. }))) {
        return Ok(None);
    }
    // Of integers in its place it is another one.
    let x = call.secret(1)?;
    let turned = context.sum(&call.origin, &[(-1.0, x.id)], 0.0)?;
    let shape = super::arithmetic::common_shape(call)?;
    let value = context.broadcast(&call.origin, &x.with(turned, x.shape.clone()), &shape)?;
    Ok(Some(vec![value.into()]))
}

/// What is left out behind all values that are joined, if that is done value by value.
pub(super) fn joint(call: &Call<'_>) -> Result<Last, Error> {
    let of = |input: &Value| match input {
        Value::Secret(secret) => secret.last,
        Value::Constant(_) => Last::Nothing,
    };
    let mut lasts = call.inputs.iter().flatten().map(of);
    let first = lasts.next().unwrap_or(Last::Nothing);
    match lasts.all(|last| last == first) {
        true => Ok(first),
        false => Err(call.error(
            "of some of what it joins the end is left out (Sigmoid, Tanh) and of some not, and whoever reads the answer \
             would have to do it to a part: give them as outputs of their own",
        )),
    }
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

/// The axis that a softmax runs over, if there is more than one value in axes behind it: a Transpose may follow.
fn running_axis(call: &Call<'_>) -> Result<Option<usize>, Error> {
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
        true => Ok(None),
        false if call.opset >= 13 && shape.get(found).is_some_and(|&size| size > 1) => Ok(Some(found)),
        false => Err(call.error(format!(
            "axis = {given} is not supported for shape {shape:?}, only the last axis of more than one value is, for \
             whoever reads the answer does it: end the network in front of it"
        ))),
    }
}

/// The index of the largest. What is left out in front of it does not change that.
pub(super) fn arg_max(context: &mut Context, call: &Call<'_>) -> Result<Vec<Value>, Error> {
    call.only(&["axis", "keepdims", "select_last_index"])?;
    if call.node.flag("select_last_index", false)? {
        return Err(call.error(
            "select_last_index = 1 is not supported, the first of equals is taken: export it with 0",
        ));
    }
    let x = call.secret(0)?;
    let given = call.node.int("axis")?.unwrap_or(0);
    let found = axis(given, x.shape.len()).ok_or_else(|| call.node.damaged(format!("axis = {given}")))?;
    let own = x.over.unwrap_or_else(|| last_axis(&x.shape));
    // A softmax keeps the order of what it runs over, and of nothing else.
    let other = matches!(x.last, Last::Softmax | Last::LogSoftmax) && own != found;
    if x.last == Last::ArgMax || other || x.shape[found] == 1 && found != last_axis(&x.shape) {
        return Err(call.error(format!(
            "axis = {given} is not supported for shape {:?}, only one of more than one value is, and behind a softmax its \
             own, for whoever reads the answer does it: end the network in front of it",
            x.shape
        )));
    }
    let keep = call.node.flag("keepdims", true)?;
    let sizes = x.shape.iter().enumerate().filter(|&(axis, _)| keep || axis != found);
    let indices = sizes.map(|(axis, &size)| if axis == found { 1 } else { size }).collect();
    // The indices have no such axis any more, so that it may be the last of the values that they are of.
    let order = (0..x.shape.len()).filter(|&axis| axis != found).chain([found]).collect::<Vec<_>>();
    let turned = match found == last_axis(&x.shape) {
        true => x.clone(),
        false => context.transpose(&call.origin, x, &order)?,
    };
    Ok(vec![Secret { last: Last::ArgMax, over: None, indices: Some(indices), ..turned }.into()])
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
        // Real numbers, but for what stands for them and for indices.
        (None, Some(Value::Secret(like))) => {
            (like.quantised.is_none() && like.last != Last::ArgMax).then_some(Element::Float)
        }
        (None, None) => return Err(call.node.lacks("type to cast to")),
    };
    match to {
        // What an ArgMax gives are integers already.
        Some(element) if x.last == Last::ArgMax => {
            let classes = x.shape.get(last_axis(&x.shape)).copied().unwrap_or(1);
            match element.counts_to(classes.saturating_sub(1) as i64) {
                true => Ok(vec![x.clone().into()]),
                false => Err(call.error(format!(
                    "its type does not hold the indices of {classes} values, and others would come of it: cast to INT64, \
                     or leave it out"
                ))),
            }
        }
        Some(element) if element.is_float() && !element.is_small() => Ok(vec![x.clone().into()]),
        _ => Err(call.error(
            "it makes integers, or floats of eight bits, of secret real numbers, and rounding is not supported: leave it \
             out, or end the network in front of it",
        )),
    }
}
