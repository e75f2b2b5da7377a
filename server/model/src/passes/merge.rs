//! Two layers in a row are one, where that is cheaper than rounding the values between them.
//!
//! A rounded value costs as much as a ReLU, some kilobytes and tens of microseconds of preparation. Weights cost far less:
//! a convolution takes about as many ciphertexts whether its kernel has one place or nine. So a depthwise convolution goes
//! into the pointwise one behind it.

use crate::onnx::places::turned;
use crate::real::{Linear, Real, RealOp};
use crate::{Conv, Dense, Geometry, MAX_VALUES};

/// How many more weights may spare the rounding of a value.
const WEIGHTS_FOR_VALUE: usize = 64;
/// Most products for the weights of two layers put together.
const MAX_WORK: usize = 1 << 28;
/// Most products for all layers of a network that are put together, their biases included.
pub(crate) const MAX_ALL: usize = 16 * MAX_WORK;
/// Most weights of two layers put together.
const MAX_WEIGHTS: usize = MAX_VALUES / 16;

/// The network with layers merged that follow each other, which takes at most `left` products.
pub(crate) fn run(mut real: Real, mut left: usize) -> Real {
    let uses = super::uses(&real);
    for number in 0..real.nodes.len() {
        let (before, rest) = real.nodes.split_at_mut(number);
        let Some(RealOp::Linear(second)) = rest.first_mut().map(|node| &mut node.op) else { continue };
        if uses[second.input] != 1 {
            continue;
        }
        let first = second.input.checked_sub(1).and_then(|n| before.get(n)).map(|node| &node.op);
        if let Some(RealOp::Linear(first)) = first
            && let Some(merged) = merged(first, second, &mut left)
        {
            *second = merged;
        }
    }
    real
}

/// Takes products of those that are left.
fn take(left: &mut usize, products: usize) -> Option<()> {
    *left = left.checked_sub(products)?;
    Some(())
}

/// Takes the products of two layers' weights, if these are not too many by themselves.
fn affordable(left: &mut usize, sizes: &[usize]) -> Option<()> {
    let products = sizes.iter().fold(1usize, |all, &size| all.saturating_mul(size));
    take(left, Some(products).filter(|&products| products <= MAX_WORK)?)
}

/// Both as one, if that is cheaper. `left` is how many products it may take.
fn merged(first: &Linear, second: &Linear, left: &mut usize) -> Option<Linear> {
    let geometry = match (&first.geometry, &second.geometry) {
        // The same values, but channels of another kind.
        (Geometry::Conv(a), Geometry::Conv(b)) if a.output() != b.input => return None,
        (Geometry::Conv(a), Geometry::Conv(b)) if pointwise(b) => {
            let groups = if a.groups.is_multiple_of(b.groups) { b.groups } else { 1 };
            Geometry::Conv(Conv { channels: b.channels, groups, ..a.clone() })
        }
        (Geometry::Conv(a), Geometry::Conv(b)) if pointwise(a) && a.groups == 1 && b.groups == 1 => {
            let [_, height, width] = b.input;
            Geometry::Conv(Conv { input: [a.input[0], height, width], ..b.clone() })
        }
        (a, Geometry::Dense(b)) => Geometry::Dense(Dense { inputs: a.inputs(), outputs: b.outputs }),
        _ => return None,
    };
    geometry.check().ok()?;
    let work = second.geometry.products();
    let spared = WEIGHTS_FOR_VALUE.saturating_mul(first.bias.len());
    let had = first.weights.len().saturating_add(second.weights.len());
    let (weights, most) = (geometry.weights(), had.saturating_add(spared).min(MAX_WEIGHTS));
    if weights > most.max(had) {
        return None;
    }
    take(left, work)?;
    let weights = match (&first.geometry, &second.geometry, &geometry) {
        (Geometry::Conv(a), Geometry::Conv(b), Geometry::Conv(both)) if pointwise(b) => {
            behind_pointwise(&first.weights, a, &second.weights, b, both, left)?
        }
        (Geometry::Conv(a), Geometry::Conv(b), _) => {
            // Every place of the kernel by itself: rows of the second, turned so that channels are last.
            let places = b.kernel[0] * b.kernel[1];
            let turned = transposed(&second.weights, b.channels, b.input[0], places);
            let made = product(&turned, &first.weights, a.channels, left)?;
            transposed(&made, b.channels, places, a.input[0])
        }
        (Geometry::Dense(a), ..) => product(&second.weights, &first.weights, a.outputs, left)?,
        (Geometry::Conv(a), ..) => rows_through(&second.weights, first, a, left)?,
    };
    let mut bias = second.product(&first.bias)?;
    bias.iter_mut().zip(&second.bias).for_each(|(bias, more)| *bias += more);
    Some(Linear { input: first.input, geometry, weights, bias })
}

/// Whether a convolution looks at each place by itself.
fn pointwise(conv: &Conv) -> bool {
    conv.kernel == [1; 2] && conv.stride == [1; 2] && conv.pads == [0; 4]
}

/// Weights of a convolution `a` with a pointwise `b` behind it, in the groups of `both`.
fn behind_pointwise(
    a_weights: &[f64],
    a: &Conv,
    b_weights: &[f64],
    b: &Conv,
    both: &Conv,
    left: &mut usize,
) -> Option<Vec<f64>> {
    let places = a.kernel[0] * a.kernel[1];
    let kernel = a.group_inputs() * places;
    affordable(left, &[b_weights.len(), kernel])?;
    let row = both.group_inputs() * places;
    let mut made = vec![0.0; b.channels * row];
    for ((channel, row), factors) in
        made.chunks_exact_mut(row).enumerate().zip(b_weights.chunks_exact(b.group_inputs()))
    {
        let group = channel / b.group_outputs();
        let first = if both.groups == 1 { 0 } else { group * both.group_inputs() };
        for (between, factor) in factors.iter().enumerate() {
            let between = group * b.group_inputs() + between;
            let from = between / a.group_outputs() * a.group_inputs() - first;
            let weights = a_weights.get(between * kernel..(between + 1) * kernel)?;
            let row = row.get_mut(from * places..from * places + kernel)?;
            row.iter_mut().zip(weights).for_each(|(sum, weight)| *sum += factor * weight);
        }
    }
    Some(made)
}

/// `a · b`, row-major, `inner` being the columns of `a` and the rows of `b`.
fn product(a: &[f64], b: &[f64], inner: usize, left: &mut usize) -> Option<Vec<f64>> {
    let columns = b.len() / inner.max(1);
    let rows = a.len() / inner.max(1);
    affordable(left, &[rows, inner, columns])?;
    if columns == 0 {
        return None;
    }
    let mut out = vec![0.0; rows * columns];
    for (row, out) in a.chunks_exact(inner).zip(out.chunks_exact_mut(columns)) {
        for (factor, b) in row.iter().zip(b.chunks_exact(columns)) {
            out.iter_mut().zip(b).for_each(|(out, b)| *out += factor * b);
        }
    }
    Some(out)
}

/// `outer x a x b` as `outer x b x a`.
fn transposed(values: &[f64], outer: usize, a: usize, b: usize) -> Vec<f64> {
    let (_, places) = turned(&[outer, a, b], &[0, 2, 1]);
    places.map(|place| values.get(place).copied().unwrap_or(0.0)).collect()
}

/// Every row of a matrix that is applied to a convolution's output, as a row that is applied to its input.
fn rows_through(rows: &[f64], layer: &Linear, conv: &Conv, left: &mut usize) -> Option<Vec<f64>> {
    let (outputs, inputs) = (layer.geometry.outputs(), layer.geometry.inputs());
    let count = rows.len() / outputs.max(1);
    affordable(left, &[count, outputs, layer.geometry.fan_in()])?;
    let [_, high, wide] = conv.output();
    let [_, height, width] = conv.input;
    let per_group = conv.group_inputs();
    let mut made = vec![0.0; count * inputs];
    let place = |axis: usize, at: usize, tap: usize, size: usize| {
        (at * conv.stride[axis] + tap * conv.dilation[axis])
            .checked_sub(conv.pads[axis])
            .filter(|&p| p < size)
    };
    for (row, made) in rows.chunks_exact(outputs).zip(made.chunks_exact_mut(inputs)) {
        for (at, &factor) in row.iter().enumerate().filter(|(_, factor)| **factor != 0.0) {
            let (channel, y, x) = (at / (high * wide), at / wide % high, at % wide);
            let first = channel / conv.group_outputs().max(1) * per_group;
            let kernel = layer.weights.chunks_exact(layer.geometry.fan_in()).nth(channel)?;
            for (tap, weight) in kernel.iter().enumerate() {
                let (ky, kx) = (tap / conv.kernel[1] % conv.kernel[0], tap % conv.kernel[1]);
                let from = first + tap / (conv.kernel[0] * conv.kernel[1]);
                let (Some(y), Some(x)) = (place(0, y, ky, height), place(1, x, kx, width)) else { continue };
                *made.get_mut((from * height + y) * width + x)? += factor * weight;
            }
        }
    }
    Some(made)
}
