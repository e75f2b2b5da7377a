//! ReLU and what is made of it.

use super::super::call::Call;
use super::super::context::{Context, Secret, Value};
use super::super::tensor::{Tensor, broadcast_places};
use super::arithmetic::{room, spread};
use crate::Error;
use crate::graph::{Gather, ValueId};
use crate::real::RealTerm;

pub(super) fn relu(context: &mut Context, call: &Call<'_>) -> Result<Vec<Value>, Error> {
    call.only(&[])?;
    one(call, |x| context.relu(&call.origin, x.id))
}

/// A value for each of the first input's.
fn one(call: &Call<'_>, make: impl FnOnce(&Secret) -> Result<ValueId, Error>) -> Result<Vec<Value>, Error> {
    let x = call.secret(0)?;
    Ok(vec![x.with(make(x)?, x.shape.clone()).into()])
}

/// `|x| = max(0, x) + max(0, -x)`.
pub(super) fn abs(context: &mut Context, call: &Call<'_>) -> Result<Vec<Value>, Error> {
    call.only(&[])?;
    one(call, |x| size(context, call, x.id))
}

pub(super) fn size(context: &mut Context, call: &Call<'_>, x: ValueId) -> Result<ValueId, Error> {
    let origin = &call.origin;
    let above = context.relu(origin, x)?;
    let negative = context.sum(origin, &[(-1.0, x)], 0.0)?;
    let below = context.relu(origin, negative)?;
    context.sum(origin, &[(1.0, above), (1.0, below)], 0.0)
}

/// `max(0, x - l) - max(0, -x - l)`: nearer to zero by as much as what is taken for zero.
pub(super) fn shrink(context: &mut Context, call: &Call<'_>) -> Result<Vec<Value>, Error> {
    call.only(&["bias", "lambd"])?;
    let (less, bound) = (call.node.float("bias")?.unwrap_or(0.0), call.node.float("lambd")?.unwrap_or(0.5));
    if less != bound || !(0.0..f64::INFINITY).contains(&bound) {
        return Err(call.error(format!(
            "with lambd = {bound} and bias = {less} it jumps, and only lambd = bias is supported, which does not: train \
             the network with that (Softshrink)"
        )));
    }
    one(call, |x| {
        let origin = &call.origin;
        if bound == 0.0 {
            return Ok(x.id);
        }
        let mut beyond = |sign: f64| {
            let less = context.sum(origin, &[(sign, x.id)], -bound)?;
            context.relu(origin, less)
        };
        let (above, below) = (beyond(1.0)?, beyond(-1.0)?);
        context.sum(origin, &[(1.0, above), (-1.0, below)], 0.0)
    })
}

/// `max(0, x) - max(0, -slope · x)`, or plus that for a negative slope.
pub(super) fn leaky_relu(context: &mut Context, call: &Call<'_>) -> Result<Vec<Value>, Error> {
    call.only(&["alpha"])?;
    let slope = call.node.float("alpha")?.unwrap_or(0.01);
    if !slope.is_finite() {
        return Err(call.node.damaged(format!("alpha = {slope}")));
    }
    one(call, |x| {
        let origin = &call.origin;
        if slope == 1.0 {
            return Ok(x.id);
        }
        let above = context.relu(origin, x.id)?;
        if slope == 0.0 {
            return Ok(above);
        }
        let turned = context.sum(origin, &[(-slope.abs(), x.id)], 0.0)?;
        let below = context.relu(origin, turned)?;
        context.sum(origin, &[(1.0, above), (-slope.signum(), below)], 0.0)
    })
}

/// As [`leaky_relu`], with slopes that are weights.
pub(super) fn prelu(context: &mut Context, call: &Call<'_>) -> Result<Vec<Value>, Error> {
    call.only(&[])?;
    let slopes = call.constant(1, "slopes")?.ok_or_else(|| call.node.lacks("slopes"))?;
    let x = call.secret(0)?;
    let slopes = slopes_of(call, slopes, &x.shape)?;
    let origin = &call.origin;
    let mut terms = vec![(1.0, context.relu(origin, x.id)?)];
    for sign in [1.0, -1.0] {
        // What is below zero, for slopes of this sign.
        if slopes.iter().all(|slope| slope * sign <= 0.0) {
            continue;
        }
        let gain: Vec<f64> = slopes.iter().map(|slope| -(slope * sign).max(0.0)).collect();
        let scaled = context.scale(origin, x.id, gain, vec![0.0; slopes.len()])?;
        terms.push((-sign, context.relu(origin, scaled)?));
    }
    let id = context.sum(origin, &terms, 0.0)?;
    Ok(vec![x.with(id, x.shape.clone()).into()])
}

/// Slopes for every value. By channel they have the shape that is broadcast, or, as some exporters write, one axis.
fn slopes_of(call: &Call<'_>, slopes: &Tensor, shape: &[usize]) -> Result<Vec<f64>, Error> {
    let broadcasts = broadcast_places(&slopes.shape, shape).is_some();
    match shape {
        [_, channels, rest @ ..] if !broadcasts && slopes.shape == [*channels] => {
            let column = [vec![*channels], vec![1; rest.len()]].concat();
            spread(call, &slopes.clone().reshaped(column), shape)
        }
        _ => spread(call, slopes, shape),
    }
}

/// `clip(alpha · x + beta, 0, 1)`.
pub(super) fn hard_sigmoid(context: &mut Context, call: &Call<'_>) -> Result<Vec<Value>, Error> {
    call.only(&["alpha", "beta"])?;
    let alpha = call.node.float("alpha")?.unwrap_or(0.2);
    let beta = call.node.float("beta")?.unwrap_or(0.5);
    if !alpha.is_finite() || !beta.is_finite() {
        return Err(call.node.damaged(format!("alpha = {alpha} with beta = {beta}")));
    }
    one(call, |x| {
        let line = context.sum(&call.origin, &[(alpha, x.id)], beta)?;
        clipped(context, call, line, Some(0.0), Some(1.0))
    })
}

pub(super) fn clip(context: &mut Context, call: &Call<'_>) -> Result<Vec<Value>, Error> {
    call.only(&["min", "max"])?;
    let mut bounds = [call.node.float("min")?, call.node.float("max")?];
    for (index, bound) in bounds.iter_mut().enumerate() {
        if let Some(tensor) = call.constant(index + 1, "bounds")? {
            let value = tensor.scalar();
            *bound = Some(value.ok_or_else(|| {
                call.error(format!("a bound has shape {:?}, and a single number is needed", tensor.shape))
            })?);
        }
    }
    let [low, high] = bounds;
    if bounds.iter().flatten().any(|bound| bound.is_nan()) {
        return Err(call.error("a bound is not a number: export the network again"));
    }
    // What no number in 32 bits is beyond is no bound.
    let most = f64::from(f32::MAX) * 0.99;
    let (low, high) = (low.filter(|&low| low > -most), high.filter(|&high| high < most));
    let x = call.secret(0)?;
    if let (Some(low), Some(high)) = (low, high)
        && low >= high
    {
        return Ok(vec![Tensor::floats(x.shape.clone(), vec![high; x.len()]).into()]);
    }
    one(call, |x| clipped(context, call, x.id, low, high))
}

/// `low + max(0, x - low) - max(0, x - high)`.
pub(super) fn clipped(
    context: &mut Context,
    call: &Call<'_>,
    x: ValueId,
    low: Option<f64>,
    high: Option<f64>,
) -> Result<ValueId, Error> {
    let origin = &call.origin;
    let mut above = |bound: f64| {
        let less = context.sum(origin, &[(1.0, x)], -bound)?;
        context.relu(origin, less)
    };
    match (low, high) {
        (None, None) => Ok(x),
        (Some(low), None) => {
            let cut = above(low)?;
            context.sum(origin, &[(1.0, cut)], low)
        }
        (None, Some(high)) => {
            let less = context.sum(origin, &[(-1.0, x)], high)?;
            let cut = context.relu(origin, less)?;
            context.sum(origin, &[(-1.0, cut)], high)
        }
        (Some(low), Some(high)) => {
            let (first, second) = (above(low)?, above(high)?);
            context.sum(origin, &[(1.0, first), (-1.0, second)], low)
        }
    }
}

pub(super) fn max(context: &mut Context, call: &Call<'_>) -> Result<Vec<Value>, Error> {
    extreme(context, call, 1.0)
}

pub(super) fn min(context: &mut Context, call: &Call<'_>) -> Result<Vec<Value>, Error> {
    extreme(context, call, -1.0)
}

/// The largest (`sign` 1) or least (-1) of any number of values and constants: `a + sign · max(0, sign · (b - a))`, by pairs.
fn extreme(context: &mut Context, call: &Call<'_>, sign: f64) -> Result<Vec<Value>, Error> {
    call.only(&[])?;
    let origin = &call.origin;
    let (shape, len) = room(context, call)?;
    let mut values = Vec::new();
    let mut bound = None::<Vec<f64>>;
    for (index, input) in call.inputs.iter().enumerate() {
        match input {
            None => return Err(call.node.lacks(&format!("input {index}"))),
            Some(Value::Secret(_)) => values.push(context.broadcast(origin, call.secret(index)?, &shape)?.id),
            Some(Value::Constant(tensor)) => {
                // An infinite bound is none.
                if tensor.reals().iter().all(|&v| v == f64::NEG_INFINITY * sign) {
                    continue;
                }
                let more = spread(call, tensor, &shape)?;
                let larger = |(a, b): (f64, f64)| sign * (sign * a).max(sign * b);
                bound = Some(match bound {
                    None => more,
                    Some(bound) => bound.into_iter().zip(more).map(larger).collect(),
                });
            }
        }
    }
    while values.len() > 1 {
        let mut larger = Vec::new();
        for pair in values.chunks(2) {
            larger.push(match *pair {
                [a, b] if a != b => {
                    let difference = context.sum(origin, &[(sign, b), (-sign, a)], 0.0)?;
                    let more = context.relu(origin, difference)?;
                    context.sum(origin, &[(1.0, a), (sign, more)], 0.0)?
                }
                [a, ..] => a,
                [] => continue,
            });
        }
        values = larger;
    }
    let mut id = values.first().copied().ok_or_else(|| call.node.lacks("input 0"))?;
    if let Some(bound) = bound {
        id = match bound.first().copied().filter(|first| bound.iter().all(|value| value == first)) {
            // One bound for all belongs to the network's shape.
            Some(all) => {
                let less = context.sum(origin, &[(sign, id)], -sign * all)?;
                let more = context.relu(origin, less)?;
                context.sum(origin, &[(sign, more)], all)?
            }
            None => {
                let less = bound.iter().map(|b| -sign * b).collect();
                let turned = context.sum(origin, &[(sign, id)], 0.0)?;
                let less = context.scale(origin, turned, vec![1.0; len], less)?;
                let more = context.relu(origin, less)?;
                let term = RealTerm { value: more, factor: sign, gather: Gather::All };
                let more = context.public(origin, vec![term], 0.0, len)?;
                context.scale(origin, more, vec![1.0; len], bound)?
            }
        };
    }
    Ok(vec![Secret::new(id, shape).into()])
}
