//! Sums, means, products and extremes of constants along axes.

use crate::Error;
use crate::onnx::node::Known;
use crate::onnx::tensor::{Data, Tensor, Walk, strides};

/// Evaluates a reduction; nothing for other operators.
pub(super) fn evaluate(known: Known<'_>, op: &str) -> Result<Option<Tensor>, Error> {
    let since = match op {
        "ReduceSum" => 13,
        "ReduceMean" | "ReduceProd" | "ReduceMax" | "ReduceMin" | "ReduceL1" | "ReduceL2"
        | "ReduceSumSquare" => 18,
        _ => return Ok(None),
    };
    let tensor = known.needed(0, "input")?;
    let rank = tensor.rank();
    let axes = match known.list("axes", 1, since)?.filter(|a| !a.is_empty()) {
        Some(axes) => known.axes(axes, rank)?,
        // Each value for itself, of which a norm is still its size.
        None if known.node.flag("noop_with_empty_axes", false)? => vec![],
        None => (0..rank).collect(),
    };
    let keep = known.node.flag("keepdims", true)?;
    let steps = strides(&tensor.shape);
    let view = |inner: bool| -> (Vec<usize>, Vec<isize>) {
        let chosen = (0..rank).filter(|a| axes.contains(a) == inner);
        chosen.map(|a| (tensor.shape[a], steps[a] as isize)).unzip()
    };
    let ((outer, outer_steps), (inner, inner_steps)) = (view(false), view(true));
    let offsets: Vec<usize> = Walk::new(&inner, inner_steps, 0).collect();
    let starts = Walk::new(&outer, outer_steps, 0);
    let shape = if keep {
        tensor.shape.iter().enumerate().map(|(a, &d)| if axes.contains(&a) { 1 } else { d }).collect()
    } else {
        outer
    };
    let offsets = &offsets;
    Ok(Some(match &tensor.data {
        Data::Float(values) => {
            let of = |start: usize| real(op, offsets.iter().map(|o| values[start + o]), offsets.len());
            Tensor::from_floats(tensor.element, shape, starts.map(of).collect())
        }
        Data::Int(values) => {
            let range = tensor.element.range();
            let of =
                |start: usize| integer(op, offsets.iter().map(|o| values[start + o]), offsets.len(), range);
            Tensor::from_ints(tensor.element, shape, starts.map(of).collect())
        }
    }))
}

fn real(op: &str, values: impl Iterator<Item = f64>, count: usize) -> f64 {
    match op {
        "ReduceMean" => values.sum::<f64>() / count as f64,
        "ReduceProd" => values.product(),
        "ReduceMax" => values.fold(f64::NEG_INFINITY, f64::max),
        "ReduceMin" => values.fold(f64::INFINITY, f64::min),
        "ReduceL1" => values.map(f64::abs).sum(),
        "ReduceL2" => values.map(|v| v * v).sum::<f64>().sqrt(),
        "ReduceSumSquare" => values.map(|v| v * v).sum(),
        _ => values.sum(),
    }
}

fn integer(op: &str, values: impl Iterator<Item = i64>, count: usize, range: (i64, i64)) -> i64 {
    let sum = |values: &mut dyn Iterator<Item = i64>| values.fold(0, i64::wrapping_add);
    let mut values = values;
    match op {
        "ReduceMean" => sum(&mut values).checked_div(count as i64).unwrap_or(0),
        "ReduceProd" => values.fold(1, i64::wrapping_mul),
        "ReduceMax" => values.max().unwrap_or(range.0),
        "ReduceMin" => values.min().unwrap_or(range.1),
        "ReduceL1" => sum(&mut values.map(i64::wrapping_abs)),
        "ReduceL2" => (sum(&mut values.map(|v| v.wrapping_mul(v))) as f64).sqrt() as i64,
        "ReduceSumSquare" => sum(&mut values.map(|v| v.wrapping_mul(v))),
        _ => sum(&mut values),
    }
}
