//! What only moves values about or joins them.

use super::super::call::Call;
use super::super::constants::of_shape;
use super::super::context::{Context, Quantised, Secret, Value, place};
use super::super::node::{Known, axis};
use super::super::places::{self, OUTSIDE};
use super::super::tensor::{Tensor, strides};
use super::quantised::never_negative;
use super::{last, pooling};
use crate::Error;
use crate::real::RealTerm;

/// Every operator that `places` knows, but Transpose.
pub(super) fn moved(context: &mut Context, call: &Call<'_>) -> Result<Vec<Value>, Error> {
    moved_with(context, call, last::relabelled)
}

/// As [`moved`], with zeros in some places, which stand for 0 in real numbers alone.
pub(super) fn moved_among_zeros(context: &mut Context, call: &Call<'_>) -> Result<Vec<Value>, Error> {
    call.secret(0)?;
    moved(context, call)
}

/// As [`moved`], whatever is left out behind the value.
pub(super) fn moved_anywhere(context: &mut Context, call: &Call<'_>) -> Result<Vec<Value>, Error> {
    moved_with(context, call, |_, x, shape| Ok(x.with(x.id, shape)))
}

fn moved_with(
    context: &mut Context,
    call: &Call<'_>,
    relabel: fn(&Call<'_>, &Secret, Vec<usize>) -> Result<Secret, Error>,
) -> Result<Vec<Value>, Error> {
    let x = call.any_secret(0)?;
    let mut made = Vec::new();
    for moved in places_of(call, x)? {
        let value = match moved.places {
            None => relabel(call, x, moved.shape)?,
            Some(places) => {
                let len = places.len();
                let id = context.gather(&call.origin, x.id, len, places.into_iter().map(place))?;
                x.with(id, moved.shape)
            }
        };
        made.push(value.into());
    }
    Ok(made)
}

/// What an operator that moves values may say of itself.
fn attributes(op: &str) -> &'static [&'static str] {
    match op {
        "Reshape" => &["allowzero"],
        "Flatten" | "Gather" => &["axis"],
        "GatherND" => &["batch_dims"],
        "Squeeze" | "Unsqueeze" => &["axes"],
        "Transpose" => &["perm"],
        "Slice" => &["axes", "starts", "ends"],
        "Pad" => &["mode", "pads", "value"],
        "DepthToSpace" | "SpaceToDepth" => &["blocksize", "mode"],
        "Split" => &["axis", "num_outputs", "split"],
        "CenterCropPad" => &["axes"],
        "Compress" | "GatherElements" => &["axis"],
        "ReverseSequence" => &["batch_axis", "time_axis"],
        "Trilu" => &["upper"],
        _ => &[],
    }
}

fn places_of(call: &Call<'_>, x: &Secret) -> Result<Vec<places::Moved>, Error> {
    call.only(attributes(&call.node.op_type))?;
    for index in 1..call.inputs.len() {
        call.constant(index, "shapes and places")?;
    }
    let moved = places::moved(call.node, x.seen(), &call.constants(), call.opset)?;
    let moved =
        moved.ok_or_else(|| call.error("this operator is not supported: export the network without it"))?;
    match moved.iter().all(|moved| moved.shape.iter().all(|&size| size > 0)) {
        true => Ok(moved),
        false => Err(call.error("its result is empty: change its attributes")),
    }
}

pub(super) fn identity(_: &mut Context, call: &Call<'_>) -> Result<Vec<Value>, Error> {
    call.only(&[])?;
    Ok(vec![call.any_secret(0)?.clone().into()])
}

/// Nothing, in inference. The mask, if anybody reads it, is of ones.
pub(super) fn dropout(context: &mut Context, call: &Call<'_>) -> Result<Vec<Value>, Error> {
    call.only(&["ratio", "seed"])?;
    let training = call.constant(2, "mode")?.and_then(Tensor::scalar);
    let ratio = match call.constant(1, "ratio")? {
        Some(ratio) => ratio.scalar(),
        None => Some(0.5),
    };
    if training.is_some_and(|training| training != 0.0) && ratio != Some(0.0) {
        return Err(call.error(
            "training_mode is on, and values are dropped at random: export the network for inference",
        ));
    }
    let x = call.any_secret(0)?;
    let mut made = vec![x.clone().into()];
    if call.node.output.get(1).is_some_and(|name| context.uses.contains_key(name)) {
        let ones = vec![1; x.seen().iter().product()];
        made.push(Tensor::ints(x.seen().to_vec(), ones).into());
    }
    Ok(made)
}

/// Shape and Size of a value, which are known.
pub(super) fn shape(_: &mut Context, call: &Call<'_>) -> Result<Vec<Value>, Error> {
    call.only(if call.node.op_type == "Size" { &[] } else { &["start", "end"] })?;
    Ok(vec![of_shape(call.node, call.any_secret(0)?.seen())?.into()])
}

/// Padding of this size and above is meant as infinite.
const INFINITE: f64 = 1e30;
/// Padding from here down is meant as what is below all values: the least number of half precision.
const LEAST: f64 = -65504.0;

/// Padding with a constant or with the value's own.
pub(super) fn pad(context: &mut Context, call: &Call<'_>) -> Result<Vec<Value>, Error> {
    let x = call.any_secret(0)?;
    let inputs = call.constants();
    let mut fill = places::fill(Known { node: call.node, inputs: &inputs, opset: call.opset })?;
    if let Some(Quantised { scale, zero }) = x.quantised {
        fill = (fill - zero) * scale;
    }
    let all = places_of(call, x)?;
    if fill <= LEAST
        && never_negative(context, x.id)
        && let [places::Moved { shape, places: Some(places) }] = all.as_slice()
        && pooled_with_more(context, call, shape, places)?
    {
        // What is below everything else never is the largest, and neither is 0 among what a ReLU made.
        fill = 0.0;
    }
    if fill.is_nan() || fill.abs() > INFINITE {
        return Err(call.error(
            "it pads with infinity or next to it, and only a MaxPool behind a ReLU may read that, with a value in each of \
             its windows: use the padding of the pooling itself",
        ));
    }
    let mut made = Vec::new();
    for moved in all {
        let Some(places) = moved.places else {
            made.push(x.with(x.id, moved.shape).into());
            continue;
        };
        let len = places.len();
        let mut id = context.gather(&call.origin, x.id, len, places.iter().copied().map(place))?;
        if fill != 0.0 && places.contains(&OUTSIDE) {
            let offset = places.iter().map(|&place| if place == OUTSIDE { fill } else { 0.0 }).collect();
            id = context.scale(&call.origin, id, vec![1.0; len], offset)?;
        }
        made.push(x.with(id, moved.shape).into());
    }
    Ok(made)
}

/// Whether nothing but MaxPools read what a Pad makes, and each of their windows has a value that is no padding.
fn pooled_with_more(
    context: &mut Context,
    call: &Call<'_>,
    shape: &[usize],
    places: &[usize],
) -> Result<bool, Error> {
    // What makes it is asked once.
    let pools = call.node.output.first().and_then(|name| context.pooled.remove(name)).unwrap_or_default();
    let is_value = |place: &usize| *place != OUTSIDE;
    let (Some(first), Some(last)) = (places.iter().position(is_value), places.iter().rposition(is_value))
    else {
        return Ok(false);
    };
    let at =
        |place: usize| strides(shape).into_iter().zip(shape).map(move |(step, &size)| place / step % size);
    let box_of_values: Vec<(usize, usize)> = at(first).zip(at(last)).collect();
    for pool in &pools {
        let pool = Call { node: pool, origin: pool.origin(), opset: call.opset, inputs: vec![] };
        if !pooling::reach(context, &pool, shape, &box_of_values)? {
            return Ok(false);
        }
    }
    Ok(!pools.is_empty())
}

/// Refuses what joins more values than a sum can have, before each of them is looked at.
pub(super) fn joins_few(call: &Call<'_>, count: usize) -> Result<(), Error> {
    let most = crate::graph::MAX_TERMS;
    match count <= most {
        true => Ok(()),
        false => Err(call.error(format!("it joins {count} values, and {most} are supported"))),
    }
}

/// Values and constants side by side along an axis.
pub(super) fn concat(context: &mut Context, call: &Call<'_>) -> Result<Vec<Value>, Error> {
    call.only(&["axis"])?;
    let origin = &call.origin;
    joins_few(call, call.inputs.len())?;
    let shapes: Vec<&[usize]> = call
        .inputs
        .iter()
        .map(|input| match input {
            Some(Value::Constant(tensor)) => Ok(tensor.shape.as_slice()),
            Some(Value::Secret(secret)) => Ok(secret.shape.as_slice()),
            None => Err(call.node.lacks("input")),
        })
        .collect::<Result<_, _>>()?;
    let first = shapes.first().ok_or_else(|| call.node.lacks("input 0"))?;
    let given = call.node.int("axis")?.unwrap_or(1);
    let axis = axis(given, first.len()).ok_or_else(|| call.node.damaged(format!("axis = {given}")))?;
    let mut shape = first.to_vec();
    let mut sizes = Vec::new();
    for other in &shapes {
        let same = other.len() == shape.len()
            && other.iter().zip(&shape).enumerate().all(|(i, (a, b))| i == axis || a == b);
        if !same {
            return Err(call.error(format!(
                "shapes {first:?} and {other:?} differ in more than axis {axis}: change one of them"
            )));
        }
        sizes.push(other[axis]);
    }
    shape[axis] = sizes.iter().try_fold(0usize, |sum, &size| sum.checked_add(size)).unwrap_or(usize::MAX);
    let len = context.fits(origin, &shape)?;
    // Of constants, the rest as they are joined.
    context.walk(origin, len)?;
    let (kind, last) = (joint_kind(call)?, last::joint(call)?);
    let inner = shape.iter().skip(axis + 1).product::<usize>();
    let row = shape[axis] * inner;
    let (mut terms, mut offset) = (Vec::new(), None::<Vec<f64>>);
    let mut start = 0;
    for (input, &size) in call.inputs.iter().flatten().zip(&sizes) {
        let (before, own) = (start * inner, size * inner);
        start += size;
        match input {
            Value::Secret(secret) if size > 0 => {
                let gather = context.blocks(origin, len, [before, own, row])?;
                let gather = context.simple(gather, secret.id, len);
                terms.push(RealTerm { value: secret.id, factor: 1.0, gather });
            }
            Value::Secret(_) => {}
            Value::Constant(tensor) => {
                let values = call.numbers(tensor)?;
                let offset = offset.get_or_insert_with(|| vec![0.0; len]);
                for (row, values) in offset.chunks_mut(row).zip(values.chunks(own.max(1))) {
                    row.iter_mut().skip(before).zip(values).for_each(|(offset, value)| *offset = *value);
                }
            }
        }
    }
    let mut id = context.public(origin, terms, 0.0, len)?;
    if let Some(offset) = offset.filter(|offset| offset.iter().any(|&o| o != 0.0)) {
        id = context.scale(origin, id, vec![1.0; len], offset)?;
    }
    Ok(vec![Secret { quantised: kind, last, ..Secret::new(id, shape) }.into()])
}

/// Whether what is joined is quantised: all of it or nothing.
fn joint_kind(call: &Call<'_>) -> Result<Option<Quantised>, Error> {
    let kinds = call.inputs.iter().flatten().map(|input| match input {
        Value::Secret(secret) => secret.quantised,
        Value::Constant(_) => None,
    });
    let kinds: Vec<Option<Quantised>> = kinds.collect();
    let first = kinds.first().copied().flatten();
    match kinds.iter().all(|kind| *kind == first) {
        true => Ok(first),
        false => Err(call.error(
            "its inputs are quantised in different ways: put DequantizeLinear in front, or export the network before it \
             was quantised",
        )),
    }
}
