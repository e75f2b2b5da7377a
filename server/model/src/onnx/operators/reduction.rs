//! Sums, means and extremes over axes.

use super::super::call::Call;
use super::super::context::{Context, Secret, Value};
use super::super::node::axis;
use super::activation::size;
use super::maximum::Rows;
use super::pooling::behind_relu;
use crate::Error;
use crate::graph::Window;

pub(super) fn sum(context: &mut Context, call: &Call<'_>) -> Result<Vec<Value>, Error> {
    let (x, outer, count, inner, shape) = block(context, call)?;
    total(context, call, &x, [outer, count, inner], 1.0, shape)
}

pub(super) fn mean(context: &mut Context, call: &Call<'_>) -> Result<Vec<Value>, Error> {
    let (x, outer, count, inner, shape) = block(context, call)?;
    total(context, call, &x, [outer, count, inner], count as f64, shape)
}

/// Sums of sizes.
pub(super) fn sum_of_sizes(context: &mut Context, call: &Call<'_>) -> Result<Vec<Value>, Error> {
    let (x, outer, count, inner, shape) = block(context, call)?;
    let sizes = size(context, call, x.id)?;
    total(context, call, &x.with(sizes, x.shape.clone()), [outer, count, inner], 1.0, shape)
}

/// Sums of all values up to each, along an axis: of two, of twice as many, and so on until they reach the end.
pub(super) fn running(context: &mut Context, call: &Call<'_>) -> Result<Vec<Value>, Error> {
    call.only(&["exclusive", "reverse"])?;
    let x = call.secret(0)?;
    let given = call.constant(1, "axis")?.and_then(|tensor| tensor.scalar());
    let given = given.filter(|axis| axis.fract() == 0.0).ok_or_else(|| call.node.lacks("axis"))? as i64;
    let along = axis(given, x.shape.len()).ok_or_else(|| call.node.damaged(format!("axis {given}")))?;
    let (outer, inner): (usize, usize) =
        (x.shape.iter().take(along).product(), x.shape.iter().skip(along + 1).product());
    let count = x.shape[along];
    let reverse = call.node.flag("reverse", false)?;
    let (mut id, mut reach) = (x.id, 1);
    while reach < count {
        // Each sum and the one that begins where it ends.
        let window = Window {
            input: [outer, count, inner],
            kernel: [2, 1],
            stride: [1; 2],
            dilation: [reach, 1],
            pads: [if reverse { 0 } else { reach }, 0],
            output: [count, inner],
        };
        id = context.window(&call.origin, id, window, 1.0)?;
        reach *= 2;
    }
    if call.node.flag("exclusive", false)? {
        id = context.sum(&call.origin, &[(1.0, id), (-1.0, x.id)], 0.0)?;
    }
    Ok(vec![x.with(id, x.shape.clone()).into()])
}

/// Sums over the middle of three axes, divided.
pub(super) fn total(
    context: &mut Context,
    call: &Call<'_>,
    x: &Secret,
    [outer, count, inner]: [usize; 3],
    divisor: f64,
    shape: Vec<usize>,
) -> Result<Vec<Value>, Error> {
    if count == 1 {
        return Ok(vec![x.with(x.id, shape).into()]);
    }
    let window = Window {
        input: [outer, count, inner],
        kernel: [count, 1],
        stride: [1; 2],
        dilation: [1; 2],
        pads: [0; 2],
        output: [1, inner],
    };
    let id = context.window(&call.origin, x.id, window, divisor)?;
    Ok(vec![x.with(id, shape).into()])
}

pub(super) fn max(context: &mut Context, call: &Call<'_>) -> Result<Vec<Value>, Error> {
    extreme(context, call, 1.0)
}

pub(super) fn min(context: &mut Context, call: &Call<'_>) -> Result<Vec<Value>, Error> {
    extreme(context, call, -1.0)
}

fn extreme(context: &mut Context, call: &Call<'_>, sign: f64) -> Result<Vec<Value>, Error> {
    let (x, outer, count, inner, shape) = block(context, call)?;
    let rows = Rows { outer, length: count, inner, step: 1, windows: vec![(0, count)] };
    behind_relu(context, call, &x, shape, |context, value| {
        let turned = context.sum(&call.origin, &[(sign, value)], 0.0)?;
        let largest = rows.largest(context, &call.origin, turned)?;
        context.sum(&call.origin, &[(sign, largest)], 0.0)
    })
}

/// The input as `outer x count x inner` values, the middle to be reduced, and the shape of the result.
fn block(context: &mut Context, call: &Call<'_>) -> Result<(Secret, usize, usize, usize, Vec<usize>), Error> {
    call.only(&["axes", "keepdims", "noop_with_empty_axes"])?;
    let x = call.secret(0)?;
    let rank = x.shape.len();
    let given = match (call.node.ints("axes")?, call.constant(1, "axes")?) {
        (Some(axes), _) => axes.to_vec(),
        (None, Some(axes)) => {
            let axes = axes.integers().ok_or_else(|| call.node.damaged("its axes are no integers"))?;
            axes.to_vec()
        }
        (None, None) => vec![],
    };
    let mut reduced = vec![false; rank];
    if given.is_empty() && !call.node.flag("noop_with_empty_axes", false)? {
        reduced.fill(true);
    }
    for given in given {
        let axis = axis(given, rank).ok_or_else(|| call.node.damaged(format!("axis {given} of {rank}")))?;
        reduced[axis] = true;
    }
    let keep = call.node.flag("keepdims", true)?;
    let sizes = x.shape.iter().zip(&reduced);
    let shape = sizes
        .filter(|(_, reduced)| keep || !**reduced)
        .map(|(&size, &reduced)| if reduced { 1 } else { size });
    let shape: Vec<usize> = shape.collect();
    // Axes of 1 are in nobody's way.
    let (wanted, rest): (Vec<usize>, Vec<usize>) =
        (0..rank).filter(|&axis| x.shape[axis] > 1).partition(|&axis| reduced[axis]);
    let Some((&first, &last)) = wanted.first().zip(wanted.last()) else {
        return Ok((x.clone(), 1, 1, x.len(), shape));
    };
    let size = |axes: &mut dyn Iterator<Item = usize>| axes.map(|axis| x.shape[axis]).product::<usize>();
    let count = size(&mut wanted.iter().copied());
    if rest.iter().any(|axis| (first..=last).contains(axis)) {
        let order: Vec<usize> =
            (0..rank).filter(|axis| !wanted.contains(axis)).chain(wanted.iter().copied()).collect();
        let moved = context.transpose(&call.origin, x, &order)?;
        return Ok((moved, x.len() / count, count, 1, shape));
    }
    let (outer, inner) = (size(&mut (0..first)), size(&mut (last + 1..rank)));
    Ok((x.clone(), outer, count, inner, shape))
}
