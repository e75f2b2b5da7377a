//! Values put in the places of others, at constant indices.

use super::super::call::Call;
use super::super::context::{Context, Secret, Value};
use super::super::node::axis;
use super::super::picks;
use super::super::tensor::strides;
use crate::Error;
use crate::real::RealTerm;

fn shape(call: &Call<'_>, index: usize) -> Result<Vec<usize>, Error> {
    match call.input(index) {
        Some(Value::Constant(tensor)) => Ok(tensor.shape.clone()),
        Some(Value::Secret(_)) => Ok(call.secret(index)?.shape.clone()),
        None => Err(call.node.lacks(&format!("input {index}"))),
    }
}

fn only_replaced(call: &Call<'_>, attributes: &[&str]) -> Result<(), Error> {
    call.only(attributes)?;
    match call.node.string("reduction")?.unwrap_or(b"none") {
        b"none" => Ok(()),
        _ => Err(call.error("only reduction = none is supported, where values are replaced: export it so")),
    }
}

fn misfit(call: &Call<'_>, shape: &[usize]) -> Error {
    call.node.damaged(format!("its indices or updates do not fit shape {shape:?}"))
}

/// ScatterElements, and Scatter as it was called before.
pub(super) fn elements(context: &mut Context, call: &Call<'_>) -> Result<Vec<Value>, Error> {
    only_replaced(call, &["axis", "reduction"])?;
    let (data, updates) = (shape(call, 0)?, shape(call, 2)?);
    let indices = call.constant(1, "indices")?.ok_or_else(|| call.node.lacks("indices"))?;
    let given = call.node.int("axis")?.unwrap_or(0);
    let along = axis(given, data.len()).ok_or_else(|| call.node.damaged(format!("axis = {given}")))?;
    let targets = picks::elements(indices, &data, along).filter(|_| indices.shape == updates);
    replaced(context, call, &data, &targets.ok_or_else(|| misfit(call, &data))?)
}

/// ScatterND: blocks at tuples of indices.
pub(super) fn blocks(context: &mut Context, call: &Call<'_>) -> Result<Vec<Value>, Error> {
    only_replaced(call, &["reduction"])?;
    let (data, updates) = (shape(call, 0)?, shape(call, 2)?);
    let indices = call.constant(1, "indices")?.ok_or_else(|| call.node.lacks("indices"))?;
    let wrong = || misfit(call, &data);
    let (&size, front) = indices.shape.split_last().filter(|(size, _)| **size > 0).ok_or_else(wrong)?;
    let block = data.get(size..).ok_or_else(wrong)?;
    let values = indices.integers().filter(|_| updates == [front, block].concat()).ok_or_else(wrong)?;
    let (steps, inner) = (strides(&data), block.iter().product::<usize>());
    let starts = values.chunks_exact(size).map(|tuple| picks::start(tuple, &data, &steps));
    let starts = starts.collect::<Option<Vec<usize>>>().ok_or_else(wrong)?;
    let targets: Vec<usize> = starts.into_iter().flat_map(|start| start..start + inner).collect();
    replaced(context, call, &data, &targets)
}

/// The first input with the third one's values at these places of it; the last one counts.
fn replaced(
    context: &mut Context,
    call: &Call<'_>,
    shape: &[usize],
    targets: &[usize],
) -> Result<Vec<Value>, Error> {
    let origin = &call.origin;
    let len = context.fits(origin, shape)?;
    let mut from = vec![None; len];
    for (number, &target) in targets.iter().enumerate() {
        *from.get_mut(target).ok_or_else(|| misfit(call, shape))? = Some(number);
    }
    let (mut terms, mut offset) = (Vec::new(), vec![0.0; len]);
    for index in [0, 2] {
        let place = |(at, from): (usize, &Option<usize>)| match index {
            0 => Some(at).filter(|_| from.is_none()),
            _ => *from,
        };
        match call.input(index) {
            Some(Value::Secret(value)) => {
                let gather = context.places(origin, len, from.iter().enumerate().map(place))?;
                let gather = context.simple(gather, value.id, len);
                terms.push(RealTerm { value: value.id, factor: 1.0, gather });
            }
            Some(Value::Constant(tensor)) => {
                let values = call.numbers(tensor)?;
                for (offset, place) in offset.iter_mut().zip(from.iter().enumerate().map(place)) {
                    *offset += place.and_then(|place| values.get(place)).copied().unwrap_or(0.0);
                }
            }
            None => return Err(call.node.lacks(&format!("input {index}"))),
        }
    }
    let id = context.public(origin, terms, 0.0, len)?;
    let id = context.scale(origin, id, vec![1.0; len], offset)?;
    Ok(vec![Secret::new(id, shape.to_vec()).into()])
}
