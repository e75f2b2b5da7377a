//! Operators that pick values by constant indices, lengths or conditions: which place goes to which, as in `places`.

use super::node::{Known, axis};
use super::places::{Moved, OUTSIDE, product};
use super::tensor::{Tensor, strides};
use crate::Error;

/// What one of these operators makes; nothing for others.
pub(super) fn picked(known: Known<'_>, shape: &[usize]) -> Result<Option<Moved>, Error> {
    Ok(Some(match known.node.op_type.as_str() {
        "CenterCropPad" => center(known, shape)?,
        "Compress" => compress(known, shape)?,
        "GatherElements" => gather_elements(known, shape)?,
        "ReverseSequence" => reverse(known, shape)?,
        "Trilu" => triangle(known, shape)?,
        _ => return Ok(None),
    }))
}

/// One triangle of every matrix, zeros in the other.
fn triangle(known: Known<'_>, shape: &[usize]) -> Result<Moved, Error> {
    let above = match known.integers(1)? {
        None => 0,
        Some([above]) => *above,
        Some(_) => return Err(known.node.damaged("its diagonal is not a single number")),
    };
    let upper = known.node.flag("upper", true)?;
    let [.., rows, columns] = *shape else {
        return Err(known.node.damaged(format!("a triangle is to be taken of shape {shape:?}")));
    };
    let result = known.possible(shape.to_vec())?;
    let place = |place: usize| {
        let (row, column) = (place / columns % rows, place % columns);
        let behind = (column as i64 - row as i64).saturating_sub(above);
        let keeps = if upper { behind >= 0 } else { behind <= 0 };
        if keeps { place } else { OUTSIDE }
    };
    let count: usize = result.iter().product();
    Ok(Moved { shape: result, places: Some((0..count).map(place).collect()) })
}

/// Along an axis the place that an index says, for every place of the indices.
fn gather_elements(known: Known<'_>, shape: &[usize]) -> Result<Moved, Error> {
    let along = known.axis(0, shape.len())?;
    let indices = known.needed(1, "indices")?;
    let places = elements(indices, shape, along).ok_or_else(|| {
        known.node.damaged(format!("indices of shape {:?} are for shape {shape:?}", indices.shape))
    })?;
    Ok(Moved { shape: known.possible(indices.shape.clone())?, places: Some(places) })
}

/// The place in a shape that each index along an axis means, if all are in it.
pub(super) fn elements(indices: &Tensor, shape: &[usize], along: usize) -> Option<Vec<usize>> {
    let fits = indices.rank() == shape.len()
        && indices.shape.iter().zip(shape).enumerate().all(|(i, (a, b))| i == along || a <= b);
    let values = indices.integers().filter(|_| fits)?;
    let (own, steps) = (strides(&indices.shape), strides(shape));
    let place = |(number, &index): (usize, &i64)| {
        let index = axis(index, shape[along])?;
        let at = |i: usize| if i == along { index } else { number / own[i] % indices.shape[i].max(1) };
        Some((0..shape.len()).map(|i| at(i) * steps[i]).sum::<usize>())
    };
    values.iter().enumerate().map(place).collect()
}

/// Where in a shape the block begins that a tuple of indices of its first axes means, if it is in it.
pub(super) fn start(tuple: &[i64], shape: &[usize], steps: &[usize]) -> Option<usize> {
    tuple.iter().zip(shape).zip(steps).map(|((&at, &size), &step)| Some(axis(at, size)? * step)).sum()
}

/// The first values of every sequence backwards.
fn reverse(known: Known<'_>, shape: &[usize]) -> Result<Moved, Error> {
    let along = |name: &str, default: i64| {
        let given = known.node.int(name)?.unwrap_or(default);
        axis(given, shape.len()).ok_or_else(|| known.node.damaged(format!("{name} = {given}")))
    };
    let (batch, time) = (along("batch_axis", 1)?, along("time_axis", 0)?);
    let lengths = known.integers(1)?.ok_or_else(|| known.node.lacks("lengths"))?;
    let limit = shape[time] as i64;
    if batch == time
        || lengths.len() != shape[batch]
        || lengths.iter().any(|length| !(0..=limit).contains(length))
    {
        return Err(known.node.damaged(format!("its lengths do not fit shape {shape:?}")));
    }
    let steps = strides(shape);
    let step = steps[time];
    let at = |place: usize, axis: usize| place / steps[axis] % shape[axis].max(1);
    let turned = |place: usize| match (at(place, time), lengths[at(place, batch)] as usize) {
        (now, length) if now < length => place - now * step + (length - 1 - now) * step,
        _ => place,
    };
    let result = known.possible(shape.to_vec())?;
    let count: usize = result.iter().product();
    Ok(Moved { shape: result, places: Some((0..count).map(turned).collect()) })
}

/// Those along an axis, or of all values, for which a condition holds.
fn compress(known: Known<'_>, shape: &[usize]) -> Result<Moved, Error> {
    let holds = known.integers(1)?.ok_or_else(|| known.node.lacks("condition"))?;
    let all = [shape.iter().product()];
    let (shape, along) = match known.node.has("axis") {
        true => (shape, known.axis(0, shape.len())?),
        false => (&all[..], 0),
    };
    if holds.len() > shape[along] {
        return Err(known.node.damaged(format!("{} conditions are for shape {shape:?}", holds.len())));
    }
    let chosen = (0..shape.len()).map(|i| match i == along {
        true => holds.iter().enumerate().filter(|(_, holds)| **holds != 0).map(|(i, _)| i).collect(),
        false => (0..shape[i]).collect(),
    });
    chosen_along(known, shape, chosen.collect())
}

/// Cut off or padded with zeros on both sides.
fn center(known: Known<'_>, shape: &[usize]) -> Result<Moved, Error> {
    let wanted = known.integers(1)?.ok_or_else(|| known.node.lacks("shape"))?;
    let all: Vec<i64> = (0..shape.len() as i64).collect();
    let axes = known.axes(known.node.ints("axes")?.unwrap_or(&all), shape.len())?;
    let mut sizes = shape.to_vec();
    for (&axis, &size) in axes.iter().zip(wanted) {
        let size = usize::try_from(size).ok().filter(|_| wanted.len() == axes.len());
        sizes[axis] =
            size.ok_or_else(|| known.node.damaged("it has sizes that are not one for each axis"))?;
    }
    let sizes = known.possible(sizes)?;
    let chosen = shape.iter().zip(&sizes).map(|(&from, &to)| {
        let (cut, before) = (from.saturating_sub(to) / 2, to.saturating_sub(from) / 2);
        let place = |at: usize| at.checked_sub(before).map(|at| at + cut).filter(|&at| at < from);
        (0..to).map(|at| place(at).unwrap_or(OUTSIDE)).collect()
    });
    chosen_along(known, shape, chosen.collect())
}

/// All combinations of the places that were chosen along the axes.
fn chosen_along(known: Known<'_>, shape: &[usize], chosen: Vec<Vec<usize>>) -> Result<Moved, Error> {
    let result = known.possible(chosen.iter().map(Vec::len).collect())?;
    let places = if result.contains(&0) { Vec::new() } else { product(shape, &chosen) };
    Ok(Moved { shape: result, places: Some(places) })
}
