//! Sums of values and constants, and products with constants.

use super::super::call::Call;
use super::super::context::{Context, Secret, Value};
use super::super::tensor::{Tensor, broadcast, broadcast_places};
use super::{last, refused};
use crate::Error;
use crate::graph::{Gather, Run};
use crate::real::RealTerm;

pub(super) fn add(context: &mut Context, call: &Call<'_>) -> Result<Vec<Value>, Error> {
    call.only(&[])?;
    weighted(context, call, &[1.0, 1.0])
}

pub(super) fn subtract(context: &mut Context, call: &Call<'_>) -> Result<Vec<Value>, Error> {
    call.only(&[])?;
    match last::complement(context, call)? {
        Some(made) => Ok(made),
        None => weighted(context, call, &[1.0, -1.0]),
    }
}

/// The sum of any number of inputs.
pub(super) fn sum(context: &mut Context, call: &Call<'_>) -> Result<Vec<Value>, Error> {
    call.only(&[])?;
    weighted(context, call, &vec![1.0; call.inputs.len()])
}

/// The mean of any number of inputs.
pub(super) fn mean(context: &mut Context, call: &Call<'_>) -> Result<Vec<Value>, Error> {
    call.only(&[])?;
    let count = call.inputs.len();
    weighted(context, call, &vec![1.0 / count as f64; count])
}

pub(super) fn negate(context: &mut Context, call: &Call<'_>) -> Result<Vec<Value>, Error> {
    call.only(&[])?;
    weighted(context, call, &[-1.0])
}

/// The shape that all inputs are broadcast to.
pub(super) fn common_shape(call: &Call<'_>) -> Result<Vec<usize>, Error> {
    let mut shape = Vec::new();
    for input in call.inputs.iter().flatten() {
        let other = match input {
            Value::Constant(tensor) => &tensor.shape,
            Value::Secret(secret) => &secret.shape,
        };
        shape = broadcast(&shape, other).ok_or_else(|| {
            call.error(format!(
                "shapes {shape:?} and {other:?} cannot be brought together: reshape one, so that axes are the same or 1"
            ))
        })?;
    }
    Ok(shape)
}

/// A constant's numbers in a larger shape.
pub(super) fn spread(call: &Call<'_>, tensor: &Tensor, shape: &[usize]) -> Result<Vec<f64>, Error> {
    let values = call.numbers(tensor)?;
    let places = broadcast_places(&tensor.shape, shape).ok_or_else(|| {
        call.error(format!("a constant of shape {:?} does not fit {shape:?}: reshape it", tensor.shape))
    })?;
    Ok(places.map(|p| values.get(p).copied().unwrap_or(0.0)).collect())
}

/// The shape that all inputs are broadcast to, and its number of values. Each of the inputs may be looked at that often.
pub(super) fn room(context: &mut Context, call: &Call<'_>) -> Result<(Vec<usize>, usize), Error> {
    let shape = common_shape(call)?;
    let len = context.fits(&call.origin, &shape)?;
    context.walk(&call.origin, len.saturating_mul(call.inputs.len()))?;
    Ok((shape, len))
}

/// `Σ factor · input`.
fn weighted(context: &mut Context, call: &Call<'_>, factors: &[f64]) -> Result<Vec<Value>, Error> {
    let (shape, len) = room(context, call)?;
    let (mut terms, mut offset) = (Vec::new(), None::<Vec<f64>>);
    for (index, &factor) in factors.iter().enumerate() {
        match call.input(index) {
            None => return Err(call.node.lacks(&format!("input {index}"))),
            Some(Value::Constant(tensor)) => {
                let offset = offset.get_or_insert_with(|| vec![0.0; len]);
                let values = spread(call, tensor, &shape)?;
                offset.iter_mut().zip(values).for_each(|(offset, value)| *offset += factor * value);
            }
            Some(Value::Secret(_)) => {
                let secret = context.broadcast(&call.origin, call.secret(index)?, &shape)?;
                terms.push(RealTerm { value: secret.id, factor, gather: Gather::All });
            }
        }
    }
    let mut id = context.public(&call.origin, terms, 0.0, len)?;
    if let Some(offset) = offset {
        id = context.scale(&call.origin, id, vec![1.0; len], offset)?;
    }
    Ok(vec![Secret::new(id, shape).into()])
}

/// One of two values for each place, as a constant says.
pub(super) fn choose(context: &mut Context, call: &Call<'_>) -> Result<Vec<Value>, Error> {
    call.only(&[])?;
    let Some(Value::Constant(condition)) = call.input(0) else {
        return Err(call.error(refused::reason("Greater", "")));
    };
    let (shape, len) = room(context, call)?;
    let condition = spread(call, condition, &shape)?;
    let (mut terms, mut offset) = (Vec::new(), vec![0.0; len]);
    for (index, chosen) in [(1, true), (2, false)] {
        let is_taken = |condition: &f64| (*condition != 0.0) == chosen;
        match call.input(index) {
            None => return Err(call.node.lacks(&format!("input {index}"))),
            Some(Value::Constant(tensor)) => {
                let values = tensor.reals();
                let places = broadcast_places(&tensor.shape, &shape).into_iter().flatten();
                for ((offset, place), condition) in offset.iter_mut().zip(places).zip(&condition) {
                    if is_taken(condition) {
                        *offset = values.get(place).copied().unwrap_or(0.0);
                    }
                }
            }
            Some(Value::Secret(_)) => {
                let secret = call.secret(index)?;
                let places = broadcast_places(&secret.shape, &shape).into_iter().flatten().zip(&condition);
                let places = places.map(|(place, condition)| is_taken(condition).then_some(place));
                let gather = context.places(&call.origin, len, places)?;
                let gather = context.simple(gather, secret.id, len);
                terms.push(RealTerm { value: secret.id, factor: 1.0, gather });
            }
        }
    }
    if !offset.iter().all(|value| value.is_finite()) {
        return Err(call.error("it chooses values that are not finite: export the network without them"));
    }
    // Of which nothing is taken, unless nothing is of any.
    let is_taken =
        |term: &RealTerm| !matches!(&term.gather, Gather::Runs(runs) if matches!(**runs, [Run::Zeros(_)]));
    if terms.iter().any(is_taken) {
        terms.retain(is_taken);
    }
    let id = context.public(&call.origin, terms, 0.0, len)?;
    let id = context.scale(&call.origin, id, vec![1.0; len], offset)?;
    Ok(vec![Secret::new(id, shape).into()])
}

/// A value multiplied by a constant, in either order.
pub(super) fn multiply(context: &mut Context, call: &Call<'_>) -> Result<Vec<Value>, Error> {
    call.only(&[])?;
    let (secret, constant) = match (call.input(0), call.input(1)) {
        (Some(Value::Secret(_)), Some(Value::Constant(constant))) => (call.secret(0)?, constant),
        (Some(Value::Constant(constant)), Some(Value::Secret(_))) => (call.secret(1)?, constant),
        (Some(Value::Secret(_)), Some(Value::Secret(_))) => {
            return Err(call.error(
                "both its factors depend on the input, and products of two secret values (squeeze-and-excite, SiLU, \
                 attention) are not supported: train the network without gates, with Relu or LeakyRelu in place of \
                 SiLU and HardSwish",
            ));
        }
        _ => return Err(call.node.lacks("two factors")),
    };
    scaled(context, call, secret, constant, |gain| gain)
}

/// A value divided by a constant.
pub(super) fn divide(context: &mut Context, call: &Call<'_>) -> Result<Vec<Value>, Error> {
    call.only(&[])?;
    match (call.input(0), call.input(1)) {
        (Some(Value::Secret(_)), Some(Value::Constant(constant))) => {
            if call.numbers(constant)?.contains(&0.0) {
                return Err(call.error("it divides by zero: export the network again"));
            }
            scaled(context, call, call.secret(0)?, constant, |divisor| 1.0 / divisor)
        }
        (_, Some(Value::Secret(_))) => Err(call.error(
            "it divides by a value that depends on the input, and divisors must be constant: train the network with \
             BatchNormalization in place of what normalises each input by itself",
        )),
        _ => Err(call.node.lacks("divisor")),
    }
}

/// A value times what `gain` makes of a constant.
fn scaled(
    context: &mut Context,
    call: &Call<'_>,
    secret: &Secret,
    constant: &Tensor,
    gain: impl Fn(f64) -> f64,
) -> Result<Vec<Value>, Error> {
    let (shape, len) = room(context, call)?;
    let mut gains = spread(call, constant, &shape)?;
    gains.iter_mut().for_each(|value| *value = gain(*value));
    let wide = context.broadcast(&call.origin, secret, &shape)?;
    let id = context.scale(&call.origin, wide.id, gains, vec![0.0; len])?;
    Ok(vec![Secret::new(id, shape).into()])
}
