//! Operators that only move values about (Reshape, Transpose, Slice, ...): which place of the input goes to which of the
//! output. They serve constants and the values of the network alike.

use super::node::Known;
use super::picks::{picked, start};
use super::proto::NodeProto;
use super::tensor::{Tensor, Walk, broadcast, broadcast_places, strides};
use crate::Error;

/// The place of a value that comes from nowhere: the padding of a Pad.
pub(crate) const OUTSIDE: usize = usize::MAX;

/// An output of such an operator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Moved {
    /// Shape of the output.
    pub shape: Vec<usize>,
    /// For every value of the output its place in the input, or [`OUTSIDE`]; nothing if all stay where they are.
    pub places: Option<Vec<usize>>,
}

/// What an operator that only moves values makes of a first input with this shape: one entry for each output, in order.
/// Nothing for other operators. The first input itself is not looked at; the others must be constants. Shapes include the
/// batch axis. The value that a Pad puts at [`OUTSIDE`] is the caller's business, and so is the second output of a Dropout.
///
/// # Errors
/// [`Error::Node`] for an operator that contradicts its definition or makes too many values.
pub(crate) fn moved(
    node: &NodeProto,
    shape: &[usize],
    inputs: &[Option<&Tensor>],
    opset: i64,
) -> Result<Option<Vec<Moved>>, Error> {
    let known = Known { node, inputs, opset };
    Ok(Some(vec![match node.op_type.as_str() {
        "Identity" | "Dropout" => stay(shape.to_vec()),
        "Reshape" => stay(reshape(known, shape)?),
        "Flatten" => stay(flatten(known, shape)?),
        "Squeeze" => stay(squeeze(known, shape)?),
        "Unsqueeze" => stay(unsqueeze(known, shape)?),
        "Transpose" => transpose(known, shape)?,
        "Slice" => slice(known, shape)?,
        "Expand" => expand(known, shape)?,
        "Tile" => tile(known, shape)?,
        "Pad" => pad(known, shape)?,
        "Gather" => gather(known, shape)?,
        "GatherND" => gather_nd(known, shape)?,
        "DepthToSpace" => depth_to_space(known, shape)?,
        "SpaceToDepth" => space_to_depth(known, shape)?,
        "Split" => return split(known, shape).map(Some),
        _ => return Ok(picked(known, shape)?.map(|moved| vec![moved])),
    }]))
}

fn stay(shape: Vec<usize>) -> Moved {
    Moved { shape, places: None }
}

fn walk(shape: Vec<usize>, walk: Walk) -> Moved {
    Moved { shape, places: Some(walk.collect()) }
}

fn reshape(known: Known<'_>, shape: &[usize]) -> Result<Vec<usize>, Error> {
    let wanted = known.integers(1)?.ok_or_else(|| known.node.lacks("shape"))?;
    let keep_zero = known.node.flag("allowzero", false)?;
    let shown = &wanted[..wanted.len().min(8)];
    let wrong = || known.node.damaged(format!("a value of shape {shape:?} is to have shape {shown:?}"));
    let mut open = None;
    let mut result = Vec::with_capacity(wanted.len());
    for (i, &size) in wanted.iter().enumerate() {
        result.push(match size {
            -1 if open.is_none() => {
                open = Some(i);
                1
            }
            0 if !keep_zero => *shape.get(i).ok_or_else(wrong)?,
            size => usize::try_from(size).map_err(|_| wrong())?,
        });
    }
    let result = known.possible(result)?;
    let (len, have): (usize, usize) = (shape.iter().product(), result.iter().product());
    match open {
        None if len == have => Ok(result),
        Some(i) if have > 0 && len.is_multiple_of(have) => {
            let mut result = result;
            result[i] = len / have;
            Ok(result)
        }
        _ => Err(wrong()),
    }
}

fn flatten(known: Known<'_>, shape: &[usize]) -> Result<Vec<usize>, Error> {
    let given = known.node.int("axis")?.unwrap_or(1);
    let at = if given < 0 { given.checked_add(shape.len() as i64) } else { Some(given) };
    let at = at.and_then(|a| usize::try_from(a).ok()).and_then(|a| shape.split_at_checked(a));
    let (front, back) =
        at.ok_or_else(|| known.node.damaged(format!("axis = {given} of {} axes", shape.len())))?;
    Ok(vec![front.iter().product(), back.iter().product()])
}

fn squeeze(known: Known<'_>, shape: &[usize]) -> Result<Vec<usize>, Error> {
    let Some(axes) = known.list("axes", 1, 13)? else {
        return Ok(shape.iter().copied().filter(|&d| d != 1).collect());
    };
    let axes = known.axes(axes, shape.len())?;
    if let Some(&axis) = axes.iter().find(|&&a| shape[a] != 1) {
        return Err(known.node.damaged(format!("axis {axis} of shape {shape:?} is to be left out")));
    }
    Ok(shape.iter().enumerate().filter(|(i, _)| !axes.contains(i)).map(|(_, &d)| d).collect())
}

fn unsqueeze(known: Known<'_>, shape: &[usize]) -> Result<Vec<usize>, Error> {
    let axes = known.list("axes", 1, 13)?.ok_or_else(|| known.node.lacks("axes"))?;
    let rank = known.possible(vec![1; shape.len().saturating_add(axes.len())])?.len();
    let axes = known.axes(axes, rank)?;
    let mut sizes = shape.iter().copied();
    let result = (0..rank).map(|i| if axes.contains(&i) { 1 } else { sizes.next().unwrap_or(1) }).collect();
    known.possible(result)
}

/// A view of a value with its axes in another order.
pub(crate) fn turned(shape: &[usize], order: &[usize]) -> (Vec<usize>, Walk) {
    let steps = strides(shape);
    let turned: Vec<usize> = order.iter().map(|&a| shape[a]).collect();
    let walk = Walk::new(&turned, order.iter().map(|&a| steps[a] as isize).collect(), 0);
    (turned, walk)
}

fn transpose(known: Known<'_>, shape: &[usize]) -> Result<Moved, Error> {
    let order = match known.node.ints("perm")? {
        None => (0..shape.len()).rev().collect(),
        Some(order) if order.len() == shape.len() => known.axes(order, shape.len())?,
        Some(order) => {
            let shown = &order[..order.len().min(8)];
            return Err(known.node.damaged(format!("perm = {shown:?} for {} axes", shape.len())));
        }
    };
    // Moving axes of size 1 moves no value.
    let wide: Vec<usize> = order.iter().copied().filter(|&a| shape[a] != 1).collect();
    let (shape, moves) = turned(shape, &order);
    Ok(if wide.is_sorted() { stay(shape) } else { walk(shape, moves) })
}

fn slice(known: Known<'_>, shape: &[usize]) -> Result<Moved, Error> {
    let node = known.node;
    let starts = known.list("starts", 1, 10)?.ok_or_else(|| node.lacks("starts"))?;
    let ends = known.list("ends", 2, 10)?.ok_or_else(|| node.lacks("ends"))?;
    let all: Vec<i64> = (0..starts.len().min(shape.len()) as i64).collect();
    let axes = known.list("axes", 3, 10)?.unwrap_or(&all);
    let steps = if known.opset < 10 { None } else { known.integers(4)? };
    let axes = known.axes(axes, shape.len())?;
    let count = axes.len();
    if starts.len() != count || ends.len() != count || steps.is_some_and(|s| s.len() != count) {
        return Err(node.damaged("it has not as many starts, ends, axes and steps"));
    }
    let (mut sizes, mut moves, mut first) = (shape.to_vec(), strides(shape), 0isize);
    let mut signed: Vec<isize> = moves.drain(..).map(|s| s as isize).collect();
    for (i, &axis) in axes.iter().enumerate() {
        let (size, step) = (shape[axis] as i128, steps.map_or(1, |s| s[i]));
        let (low, high) = if step > 0 { (0, size) } else { (-1, size - 1) };
        let place = |at: i64| if at < 0 { i128::from(at) + size } else { at.into() };
        let (start, end) = (
            place(starts[i]).clamp(if step > 0 { 0 } else { 0.min(high) }, high.max(0)),
            place(ends[i]).clamp(low, high.max(low)),
        );
        let step = i128::from(step);
        let count = match step {
            0 => return Err(node.damaged("a step is 0")),
            _ if size == 0 => 0,
            1.. if end > start => (end - start - 1) / step + 1,
            ..0 if start > end => (start - end - 1) / -step + 1,
            _ => 0,
        };
        sizes[axis] = count as usize;
        if count > 0 {
            first += start as isize * signed[axis];
            // With one value left the step, which may be huge, is not taken.
            signed[axis] = if count > 1 { step as isize * signed[axis] } else { 0 };
        }
    }
    Ok(if sizes == shape && first == 0 {
        stay(sizes)
    } else {
        let moves = Walk::new(&sizes, signed, first);
        walk(sizes, moves)
    })
}

fn expand(known: Known<'_>, shape: &[usize]) -> Result<Moved, Error> {
    let wanted = known.integers(1)?.ok_or_else(|| known.node.lacks("shape"))?;
    let sizes: Option<Vec<usize>> = wanted.iter().map(|&d| usize::try_from(d).ok()).collect();
    let result = sizes.and_then(|sizes| broadcast(shape, &sizes));
    let places = result.as_ref().and_then(|result| broadcast_places(shape, result));
    let (Some(result), Some(places)) = (result, places) else {
        let shown = &wanted[..wanted.len().min(8)];
        return Err(known.node.error(format!(
            "shape {shape:?} cannot be expanded to {shown:?}, or that has too many values: use a smaller network"
        )));
    };
    let same = result.iter().product::<usize>() == shape.iter().product();
    Ok(if same { stay(result) } else { walk(result, places) })
}

fn tile(known: Known<'_>, shape: &[usize]) -> Result<Moved, Error> {
    let repeats = known.integers(1)?.ok_or_else(|| known.node.lacks("repeats"))?;
    let repeats: Option<Vec<usize>> = repeats.iter().map(|&r| usize::try_from(r).ok()).collect();
    let repeats = repeats.filter(|r| r.len() == shape.len());
    let repeats =
        repeats.ok_or_else(|| known.node.damaged("its repeats are negative or not one for each axis"))?;
    let result = known.possible(shape.iter().zip(&repeats).map(|(d, &r)| d.saturating_mul(r)).collect())?;
    if result == shape {
        return Ok(stay(result));
    }
    let view: Vec<usize> = repeats.iter().zip(shape).flat_map(|(&r, &d)| [r, d]).collect();
    let steps = strides(shape).iter().flat_map(|&s| [0, s as isize]).collect();
    Ok(walk(result, Walk::new(&view, steps, 0)))
}

/// Places of all combinations of places along the axes; outside if one of them is.
pub(crate) fn product(shape: &[usize], axes: &[Vec<usize>]) -> Vec<usize> {
    let mut places = vec![0];
    for ((axis, chosen), stride) in axes.iter().enumerate().zip(strides(shape)) {
        let last = axis + 1 == axes.len();
        debug_assert!(!last || stride == 1);
        let add =
            |&p: &usize, &c: &usize| if p == OUTSIDE || c == OUTSIDE { OUTSIDE } else { p + c * stride };
        places = places.iter().flat_map(|p| chosen.iter().map(move |c| add(p, c))).collect();
    }
    places
}

fn pad(known: Known<'_>, shape: &[usize]) -> Result<Moved, Error> {
    let (node, rank) = (known.node, shape.len());
    let pads = known.list("pads", 1, 11)?.ok_or_else(|| node.lacks("pads"))?;
    let all: Vec<i64> = (0..rank as i64).collect();
    let axes = known.axes(if known.opset < 18 { None } else { known.integers(3)? }.unwrap_or(&all), rank)?;
    if pads.len() != 2 * axes.len() {
        return Err(node.damaged(format!(
            "it has {} numbers of padding for {} axes",
            pads.len(),
            axes.len()
        )));
    }
    let mode = node.string("mode")?.unwrap_or(b"constant");
    if !matches!(mode, b"constant" | b"reflect" | b"edge" | b"wrap") {
        return Err(node.damaged("mode is none of constant, reflect, edge and wrap"));
    }
    let (mut sizes, mut before) = (shape.to_vec(), vec![0i64; rank]);
    for (i, &axis) in axes.iter().enumerate() {
        let size =
            (shape[axis] as i64).checked_add(pads[i]).and_then(|s| s.checked_add(pads[axes.len() + i]));
        let size = size.and_then(|s| usize::try_from(s).ok());
        let size = size.filter(|&s| s == 0 || shape[axis] > 0 || mode == b"constant");
        sizes[axis] = size.ok_or_else(|| {
            node.damaged(format!("shape {shape:?} has padding {:?}", &pads[..pads.len().min(16)]))
        })?;
        before[axis] = pads[i];
    }
    let result = known.possible(sizes)?;
    let chosen: Vec<Vec<usize>> = (0..rank)
        .map(|axis| {
            let size = shape[axis] as i64;
            let place = |i: usize| {
                // No overflow: the sizes are at most 2^25, and what is padded negatively is at most as much.
                let at = (i as i64).saturating_sub(before[axis]);
                let at = match mode {
                    b"edge" => at.clamp(0, size - 1),
                    b"wrap" => at.rem_euclid(size),
                    b"reflect" if size == 1 => 0,
                    b"reflect" => {
                        let round = at.rem_euclid(2 * (size - 1));
                        round.min(2 * (size - 1) - round)
                    }
                    _ => at,
                };
                if (0..size).contains(&at) { at as usize } else { OUTSIDE }
            };
            (0..result[axis]).map(place).collect()
        })
        .collect();
    if result == shape && before.iter().all(|&b| b == 0) {
        return Ok(stay(result));
    }
    let places = if result.contains(&0) { Vec::new() } else { product(shape, &chosen) };
    Ok(Moved { shape: result, places: Some(places) })
}

/// The number that a Pad puts at [`OUTSIDE`].
pub(crate) fn fill(known: Known<'_>) -> Result<f64, Error> {
    if known.opset < 11 {
        return Ok(known.node.float("value")?.unwrap_or(0.0));
    }
    let Some(value) = known.constant(2)? else { return Ok(0.0) };
    value.scalar().ok_or_else(|| known.node.damaged("its value is not a single number"))
}

fn gather(known: Known<'_>, shape: &[usize]) -> Result<Moved, Error> {
    let axis = known.axis(0, shape.len())?;
    let indices = known.needed(1, "indices")?;
    let (front, back) = (&shape[..axis], &shape[axis + 1..]);
    let result = known.possible([front, &indices.shape, back].concat())?;
    let size = shape[axis] as i64;
    let place = |&i: &i64| {
        usize::try_from(if i < 0 { i.checked_add(size)? } else { i }).ok().filter(|&i| i < shape[axis])
    };
    let chosen: Option<Vec<usize>> = indices.integers().and_then(|i| i.iter().map(place).collect());
    let chosen = chosen
        .ok_or_else(|| known.node.damaged(format!("an index is none of the {size} along axis {axis}")))?;
    let (outer, inner): (usize, usize) = (front.iter().product(), back.iter().product());
    let block = |o: usize, &c: &usize| (o * shape[axis] + c) * inner..(o * shape[axis] + c + 1) * inner;
    let block = &block;
    let places: Vec<usize> = match result.contains(&0) {
        true => Vec::new(),
        false => (0..outer).flat_map(|o| chosen.iter().flat_map(move |c| block(o, c))).collect(),
    };
    Ok(Moved { shape: result, places: Some(places) })
}

/// Blocks at tuples of indices, apart for every place of the batch axes.
fn gather_nd(known: Known<'_>, shape: &[usize]) -> Result<Moved, Error> {
    let batch = usize::try_from(known.node.int("batch_dims")?.unwrap_or(0)).unwrap_or(usize::MAX);
    let indices = known.needed(1, "indices")?;
    let wrong =
        || known.node.damaged(format!("indices of shape {:?} are for shape {shape:?}", indices.shape));
    let (&size, front) = indices.shape.split_last().filter(|(size, _)| **size > 0).ok_or_else(wrong)?;
    let block = batch.checked_add(size).and_then(|axes| shape.get(axes..)).ok_or_else(wrong)?;
    if front.get(..batch) != shape.get(..batch) {
        return Err(wrong());
    }
    let result = known.possible([front, block].concat())?;
    let steps = strides(shape);
    let (inner, of_batch): (usize, usize) = (block.iter().product(), shape.iter().skip(batch).product());
    let tuples = front.iter().skip(batch).product::<usize>().max(1);
    let place = |(number, tuple): (usize, &[i64])| {
        Some(number / tuples * of_batch + start(tuple, &shape[batch..], &steps[batch..])?)
    };
    let starts = indices.integers().ok_or_else(wrong)?.chunks_exact(size).enumerate().map(place);
    let starts = starts.collect::<Option<Vec<usize>>>().ok_or_else(wrong)?;
    let places = match result.contains(&0) {
        true => Vec::new(),
        false => starts.into_iter().flat_map(|start| start..start + inner).collect(),
    };
    Ok(Moved { shape: result, places: Some(places) })
}

/// Block size, and batch, channels, height and width.
fn blocks(known: Known<'_>, shape: &[usize]) -> Result<(usize, [usize; 4]), Error> {
    let size = known.node.int("blocksize")?.unwrap_or(0);
    match (usize::try_from(size), shape.try_into()) {
        (Ok(size @ 1..=4096), Ok(shape)) => Ok((size, shape)),
        _ => Err(known.node.damaged(format!("blocksize = {size} for shape {shape:?}"))),
    }
}

fn depth_to_space(known: Known<'_>, shape: &[usize]) -> Result<Moved, Error> {
    let (size, [n, c, h, w]) = blocks(known, shape)?;
    // At most 2^24: no overflow.
    let deep = c / (size * size);
    if deep * size * size != c {
        return Err(known.node.damaged(format!("{c} channels are to become blocks of {size} by {size}")));
    }
    let (view, order) = match known.node.string("mode")?.unwrap_or(b"DCR") {
        b"DCR" => ([n, size, size, deep, h, w], [0, 3, 4, 1, 5, 2]),
        b"CRD" => ([n, deep, size, size, h, w], [0, 1, 4, 2, 5, 3]),
        _ => return Err(known.node.damaged("mode is neither DCR nor CRD")),
    };
    Ok(walk(
        known.possible(vec![n, deep, h.saturating_mul(size), w.saturating_mul(size)])?,
        turned(&view, &order).1,
    ))
}

fn space_to_depth(known: Known<'_>, shape: &[usize]) -> Result<Moved, Error> {
    let (size, [n, c, h, w]) = blocks(known, shape)?;
    if !h.is_multiple_of(size) || !w.is_multiple_of(size) {
        return Err(known
            .node
            .damaged(format!("blocks of {size} by {size} are to be taken from {h} by {w}")));
    }
    let order = match known.node.string("mode")?.unwrap_or(b"DCR") {
        b"DCR" => [0, 3, 5, 1, 2, 4],
        b"CRD" => [0, 1, 3, 5, 2, 4],
        _ => return Err(known.node.damaged("mode is neither DCR nor CRD")),
    };
    let (_, places) = turned(&[n, c, h / size, size, w / size, size], &order);
    Ok(walk(known.possible(vec![n, c * size * size, h / size, w / size])?, places))
}

fn split(known: Known<'_>, shape: &[usize]) -> Result<Vec<Moved>, Error> {
    let (node, axis) = (known.node, known.axis(0, shape.len())?);
    let (size, outputs) = (shape[axis], node.output.len());
    let sizes = match known.list("split", 1, 13)? {
        Some(sizes) => sizes.iter().map(|&s| usize::try_from(s).ok()).collect::<Option<Vec<_>>>(),
        None => {
            let count = node.int("num_outputs")?.map_or(Some(outputs), |n| usize::try_from(n).ok());
            // From version 18 on the last part may be smaller.
            let count =
                count.filter(|&n| n > 0 && n == outputs && (known.opset >= 18 || size.is_multiple_of(n)));
            count.map(|n| {
                (0..n).map(|i| size.div_ceil(n).min(size.saturating_sub(i * size.div_ceil(n)))).collect()
            })
        }
    };
    let fits = |s: &Vec<usize>| {
        s.len() == outputs && s.iter().try_fold(0usize, |a, &s| a.checked_add(s)) == Some(size)
    };
    let sizes = sizes.filter(fits).ok_or_else(|| {
        node.damaged(format!("{outputs} parts are to be made of the {size} values along axis {axis}"))
    })?;
    let steps: Vec<isize> = strides(shape).iter().map(|&s| s as isize).collect();
    let mut start = 0;
    let part = |&size: &usize| {
        let mut part = shape.to_vec();
        part[axis] = size;
        let moves = Walk::new(&part, steps.clone(), start * steps[axis]);
        start += size as isize;
        if part == shape { stay(part) } else { walk(part, moves) }
    };
    Ok(sizes.iter().map(part).collect())
}
