//! Pooling: sums over windows with public divisors, and trees of comparisons.

use super::super::call::Call;
use super::super::context::{Context, Secret, Value};
use super::activation::size;
use super::maximum::Rows;
use super::reduction::total;
use super::window::{AutoPad, Sliding, auto_pad, channels_and_space, extent, sizes};
use crate::Error;
use crate::graph::{Gather, ValueId, Window};
use crate::real::{RealOp, RealTerm};

const ATTRIBUTES: &[&str] = &[
    "auto_pad",
    "ceil_mode",
    "count_include_pad",
    "dilations",
    "kernel_shape",
    "pads",
    "storage_order",
    "strides",
];

fn sliding(call: &Call<'_>, space: &[usize]) -> Result<Sliding, Error> {
    call.only(ATTRIBUTES)?;
    windows(call, space)
}

fn windows(call: &Call<'_>, space: &[usize]) -> Result<Sliding, Error> {
    if !call.node.has("kernel_shape") {
        return Err(call.node.lacks("kernel_shape"));
    }
    let kernel = sizes(call, "kernel_shape", space.len(), 1, 1)?;
    let sliding = Sliding::new(call, space, &kernel, call.node.flag("ceil_mode", false)?)?;
    if matches!(auto_pad(call)?, AutoPad::Upper | AutoPad::Lower) {
        let differs = space.iter().enumerate().any(|(axis, &size)| {
            let (stride, dilation) = (sliding.stride[axis], sliding.dilation[axis]);
            let covered = (size.div_ceil(stride) - 1) * stride + extent(kernel[axis], dilation);
            // One value behind the last window is left out by all.
            kernel[axis] > 1 && dilation > 1 || covered + 1 < size
        });
        if differs {
            return Err(call.error(
                "auto_pad is SAME with windows that have gaps or do not reach each other, for which runtimes pad \
                 differently: export it with the padding as numbers (pads)",
            ));
        }
    }
    Ok(sliding)
}

impl Sliding {
    /// Of the window at a place of an axis of this size the first place that lies in the input, and how many do.
    fn inside(&self, axis: usize, at: usize, size: usize) -> (usize, usize) {
        let (start, step, begin) = (at * self.stride[axis], self.dilation[axis], self.begin[axis]);
        let first = begin.saturating_sub(start).div_ceil(step);
        let behind = (size + begin).saturating_sub(start).div_ceil(step).min(self.kernel[axis]);
        ((start + first * step).saturating_sub(begin), behind.saturating_sub(first))
    }

    /// How many places of the window at a place of an axis lie in the input or its padding.
    fn padded(&self, axis: usize, at: usize, size: usize) -> usize {
        let all = size + self.begin[axis] + self.end[axis];
        all.saturating_sub(at * self.stride[axis]).div_ceil(self.dilation[axis]).min(self.kernel[axis])
    }
}

pub(super) fn average(context: &mut Context, call: &Call<'_>) -> Result<Vec<Value>, Error> {
    let x = call.secret(0)?;
    let (channels, space) = channels_and_space(call, &x.shape)?;
    let sliding = sliding(call, space)?;
    let shape = [&[1, channels], sliding.output.as_slice()].concat();
    let len = context.fits(&call.origin, &shape)?;
    let counts = counts(call, &sliding, space)?;
    let common = counts.first().copied().filter(|first| counts.iter().all(|count| count == first));
    let sums = sums(context, call, x.id, channels, space, &sliding, common.unwrap_or(1) as f64)?;
    if common.is_some() {
        return Ok(vec![x.with(sums, shape).into()]);
    }
    // Windows at the border have fewer places: a term for every number of them.
    let mut distinct = counts.clone();
    distinct.sort_unstable();
    distinct.dedup();
    context.walk(&call.origin, len.saturating_mul(distinct.len()))?;
    let mut terms = Vec::with_capacity(distinct.len());
    for count in distinct {
        let places = (0..len).map(|at| counts.get(at % counts.len()).filter(|&&c| c == count).map(|_| at));
        let gather = context.places(&call.origin, len, places)?;
        terms.push(RealTerm { value: sums, factor: 1.0 / count as f64, gather });
    }
    let id = context.public(&call.origin, terms, 0.0, len)?;
    Ok(vec![x.with(id, shape).into()])
}

/// What the sum of every window of a channel is divided by.
fn counts(call: &Call<'_>, sliding: &Sliding, space: &[usize]) -> Result<Vec<usize>, Error> {
    let with_padding = call.node.flag("count_include_pad", false)?;
    let mut counts = vec![1usize];
    for (axis, &size) in space.iter().enumerate() {
        let along: Vec<usize> =
            (0..sliding.output[axis])
                .map(|at| {
                    if with_padding {
                        sliding.padded(axis, at, size)
                    } else {
                        sliding.inside(axis, at, size).1
                    }
                })
                .collect();
        counts = counts.iter().flat_map(|count| along.iter().map(move |more| count * more)).collect();
    }
    match counts.contains(&0) {
        true => Err(wholly_padding(call)),
        false => Ok(counts),
    }
}

fn wholly_padding(call: &Call<'_>) -> Error {
    call.error("a window lies wholly in the padding: use less padding")
}

/// Sums over windows, divided.
fn sums(
    context: &mut Context,
    call: &Call<'_>,
    mut value: ValueId,
    channels: usize,
    space: &[usize],
    sliding: &Sliding,
    divisor: f64,
) -> Result<ValueId, Error> {
    // The last two axes together, those in front one by one.
    let mut outer = channels;
    let (front, planes) = space.split_at(space.len().saturating_sub(2));
    for (axis, &size) in front.iter().enumerate() {
        let inner: usize = space.iter().skip(axis + 1).product();
        let window = Window {
            input: [outer, size, inner],
            kernel: [sliding.kernel[axis], 1],
            stride: [sliding.stride[axis], 1],
            dilation: [sliding.dilation[axis], 1],
            pads: [sliding.begin[axis], 0],
            output: [sliding.output[axis], inner],
        };
        value = context.window(&call.origin, value, window, 1.0)?;
        outer *= sliding.output[axis];
    }
    let of = |sizes: &[usize], one: usize| match sizes.split_at(front.len()).1 {
        [height, width] => [*height, *width],
        [width] => [one, *width],
        _ => [one, one],
    };
    let [height, width] = match planes {
        [height, width] => [*height, *width],
        [width] => [1, *width],
        _ => [1, 1],
    };
    let window = Window {
        input: [outer, height, width],
        kernel: of(&sliding.kernel, 1),
        stride: of(&sliding.stride, 1),
        dilation: of(&sliding.dilation, 1),
        pads: of(&sliding.begin, 0),
        output: of(&sliding.output, 1),
    };
    context.window(&call.origin, value, window, divisor)
}

/// Refuses powers of secret values: of sizes there are sums.
fn sizes_only(call: &Call<'_>) -> Result<(), Error> {
    match call.node.int("p")?.unwrap_or(2) {
        1 => Ok(()),
        p => Err(call.error(format!(
            "p = {p} makes powers of secret values, and only sums of their sizes (p = 1) are supported: use AveragePool or \
             p = 1"
        ))),
    }
}

/// Sums of sizes over windows.
pub(super) fn sizes_in_windows(context: &mut Context, call: &Call<'_>) -> Result<Vec<Value>, Error> {
    call.only(&["auto_pad", "ceil_mode", "dilations", "kernel_shape", "p", "pads", "strides"])?;
    sizes_only(call)?;
    let x = call.secret(0)?;
    let (channels, space) = channels_and_space(call, &x.shape)?;
    let sliding = windows(call, space)?;
    let shape = [&[1, channels], sliding.output.as_slice()].concat();
    context.fits(&call.origin, &shape)?;
    let sizes = size(context, call, x.id)?;
    let id = sums(context, call, sizes, channels, space, &sliding, 1.0)?;
    Ok(vec![x.with(id, shape).into()])
}

/// The sum of the sizes of every channel.
pub(super) fn all_sizes(context: &mut Context, call: &Call<'_>) -> Result<Vec<Value>, Error> {
    call.only(&["p"])?;
    sizes_only(call)?;
    let x = call.secret(0)?;
    let (channels, space) = channels_and_space(call, &x.shape)?;
    let count: usize = space.iter().product();
    let shape = [vec![1, channels], vec![1; space.len()]].concat();
    let sizes = size(context, call, x.id)?;
    total(context, call, &x.with(sizes, x.shape.clone()), [channels, count, 1], 1.0, shape)
}

pub(super) fn global_average(context: &mut Context, call: &Call<'_>) -> Result<Vec<Value>, Error> {
    call.only(&[])?;
    let x = call.secret(0)?;
    let (channels, space) = channels_and_space(call, &x.shape)?;
    let count: usize = space.iter().product();
    let shape = [vec![1, channels], vec![1; space.len()]].concat();
    total(context, call, x, [channels, count, 1], count as f64, shape)
}

pub(super) fn global_max(context: &mut Context, call: &Call<'_>) -> Result<Vec<Value>, Error> {
    call.only(&[])?;
    let x = call.secret(0)?;
    let (channels, space) = channels_and_space(call, &x.shape)?;
    let count: usize = space.iter().product();
    let shape = [vec![1, channels], vec![1; space.len()]].concat();
    let rows = Rows { outer: channels, length: count, inner: 1, step: 1, windows: vec![(0, count)] };
    behind_relu(context, call, x, shape, |context, value| rows.largest(context, &call.origin, value))
}

pub(super) fn max(context: &mut Context, call: &Call<'_>) -> Result<Vec<Value>, Error> {
    let x = call.any_secret(0)?;
    let (channels, space) = channels_and_space(call, &x.shape)?;
    let sliding = sliding(call, space)?;
    let shape = [&[1, channels], sliding.output.as_slice()].concat();
    context.fits(&call.origin, &shape)?;
    for (axis, &size) in space.iter().enumerate() {
        if (0..sliding.output[axis]).any(|at| sliding.inside(axis, at, size).1 == 0) {
            return Err(wholly_padding(call));
        }
    }
    // One axis after the other, in the order that takes fewer comparisons.
    let forwards: Vec<usize> = (0..space.len()).collect();
    let backwards: Vec<usize> = forwards.iter().rev().copied().collect();
    let passes = |order: &[usize]| {
        let mut now = space.to_vec();
        let mut passes = Vec::new();
        for &axis in order {
            let size = now[axis];
            passes.push(Rows {
                outer: channels * now.iter().take(axis).product::<usize>(),
                length: size,
                inner: now.iter().skip(axis + 1).product(),
                step: sliding.dilation[axis],
                windows: (0..sliding.output[axis]).map(|at| sliding.inside(axis, at, size)).collect(),
            });
            now[axis] = sliding.output[axis];
        }
        passes
    };
    let mut cost = |passes: &[Rows]| {
        passes.iter().try_fold(0usize, |all, rows| {
            Ok::<_, Error>(all.saturating_add(rows.comparisons(context, &call.origin)?))
        })
    };
    let (forwards, backwards) = (passes(&forwards), passes(&backwards));
    // Of one axis there is one order.
    let order = match space {
        [_] => forwards,
        _ if cost(&backwards)? <= cost(&forwards)? => backwards,
        _ => forwards,
    };
    behind_relu(context, call, x, shape, |context, mut value| {
        for rows in &order {
            value = rows.largest(context, &call.origin, value)?;
        }
        Ok(value)
    })
}

/// Whether every window of a pool over a value of this shape has something of a box in it, which is from one place to
/// another along each axis.
pub(super) fn reach(
    context: &mut Context,
    pool: &Call<'_>,
    shape: &[usize],
    values: &[(usize, usize)],
) -> Result<bool, Error> {
    let (channels, space) = channels_and_space(pool, shape)?;
    let mut sliding = sliding(pool, space)?;
    context.walk(&pool.origin, sliding.output.iter().fold(0, |all, &windows| all.saturating_add(windows)))?;
    let all_channels = values.get(1) == Some(&(0, channels - 1));
    Ok(all_channels
        && values.iter().skip(2).enumerate().all(|(axis, &(first, last))| {
            // What is in front of the box is as padding is.
            sliding.begin[axis] += first;
            (0..sliding.output[axis]).all(|at| sliding.inside(axis, at, last + 1 - first).1 > 0)
        }))
}

/// A maximum, or minimum, of what a ReLU made, which nobody else reads, is the ReLU of that: fewer of them, and the result
/// can be read by a layer. Values that were only moved about in between are moved in front of the maximum.
pub(super) fn behind_relu(
    context: &mut Context,
    call: &Call<'_>,
    x: &Secret,
    shape: Vec<usize>,
    extreme: impl FnOnce(&mut Context, ValueId) -> Result<ValueId, Error>,
) -> Result<Vec<Value>, Error> {
    context.walk(&call.origin, MAX_MOVES.saturating_mul(context.readers()))?;
    let readers = call.node.input.first().and_then(|name| context.uses.get(name)).copied();
    let id = match relu_in_front(context, x.id).filter(|_| readers == Some(1)) {
        Some((mut value, moves)) => {
            for (term, len) in moves.into_iter().rev() {
                value = context.public(&call.origin, vec![RealTerm { value, ..term }], 0.0, len)?;
            }
            let extreme = extreme(context, value)?;
            context.relu(&call.origin, extreme)?
        }
        None => extreme(context, x.id)?,
    };
    Ok(vec![x.with(id, shape).into()])
}

/// Most moves that are looked through for a ReLU.
const MAX_MOVES: usize = 4;

/// What the ReLU reads that made a value, and how that was moved about since, from the last move to the first.
fn relu_in_front(context: &Context, mut value: ValueId) -> Option<(ValueId, Vec<(RealTerm, usize)>)> {
    let mut moves = Vec::new();
    loop {
        match context.op(value)? {
            RealOp::Relu { input } => return Some((*input, moves)),
            RealOp::Public { terms, offset: 0.0, len } if moves.len() < MAX_MOVES => {
                let [term] = terms.as_slice() else { return None };
                let moved = term.factor == 1.0 && !matches!(term.gather, Gather::Window(_));
                if !moved || !context.is_read_once(term.value) {
                    return None;
                }
                value = term.value;
                moves.push((term.clone(), *len));
            }
            _ => return None,
        }
    }
}
