//! Average pooling composed into the linear layer next to it (`protocol.md` section 2), so that convolutions and
//! matrices are all that is left.
//!
//! Pooling is a sum over a window and a division. The sum composes exactly: a convolution followed by it is a
//! convolution with a larger kernel, a layer behind it reads a block of the unpooled map for every pooled value.
//! The division goes into the next shift or into the weights; that is the caller's business.

use core::ops::AddAssign;

use crate::chain::Linear;
use crate::onnx::volume;
use crate::{Conv, Dense, Geometry, MAX_VALUES};

/// Pooling over windows, without padding.
#[derive(Clone)]
pub(crate) struct Pool {
    /// Input shape: channels, height, width. The window fits.
    pub input: [usize; 3],
    /// Height and width of the window.
    pub kernel: [usize; 2],
    /// Vertical and horizontal stride.
    pub stride: [usize; 2],
}

impl Pool {
    /// Output shape: channels, height, width.
    pub(crate) fn output(&self) -> [usize; 3] {
        let [c, h, w] = self.input;
        [c, (h - self.kernel[0]) / self.stride[0] + 1, (w - self.kernel[1]) / self.stride[1] + 1]
    }

    /// Number of values in a window.
    pub(crate) fn window(&self) -> usize {
        self.kernel[0] * self.kernel[1]
    }
}

/// Replaces every value of every plane by a window of copies of it; what overlaps adds up. Value `(y, x)` goes to
/// `(y·step + dy·gap, x·step + dx·gap)` for all `(dy, dx)` in the window.
struct Spread {
    from: [usize; 2],
    to: [usize; 2],
    step: [usize; 2],
    window: [usize; 2],
    gap: [usize; 2],
}

impl Spread {
    /// `None` if the result would be larger than a model may be.
    fn apply<T: Copy + Default + AddAssign>(&self, planes: &[T]) -> Option<Vec<T>> {
        let (from, to) = (volume(&self.from)?, volume(&self.to)?);
        let count = planes.len().checked_div(from)?;
        let size = to.checked_mul(count).filter(|&n| n <= MAX_VALUES)?;
        let mut out = vec![T::default(); size];
        for (source, target) in planes.chunks_exact(from).zip(out.chunks_exact_mut(to)) {
            for (y, row) in source.chunks_exact(self.from[1]).enumerate() {
                for dy in 0..self.window[0] {
                    let start = (y * self.step[0] + dy * self.gap[0]) * self.to[1];
                    let target = target.get_mut(start..start + self.to[1])?;
                    for (x, &value) in row.iter().enumerate() {
                        let places = target.iter_mut().skip(x * self.step[1]).step_by(self.gap[1]);
                        places.take(self.window[1]).for_each(|place| *place += value);
                    }
                }
            }
        }
        Some(out)
    }
}

/// Kernel of `kernel` blocks that start `step` apart, each `window` positions with distance `gap`.
fn dilated(kernel: [usize; 2], step: [usize; 2], window: [usize; 2], gap: [usize; 2]) -> Option<[usize; 2]> {
    let axis = |i: usize| {
        let blocks = (kernel[i] - 1).checked_mul(step[i])?;
        (window[i] - 1).checked_mul(gap[i])?.checked_add(blocks)?.checked_add(1)
    };
    Some([axis(0)?, axis(1)?])
}

/// The layer `linear` with `pool` in front of it, as one layer on the unpooled input. Real weights: those of the
/// layer divided by the window.
pub(crate) fn fold_before(linear: Linear, pool: &Pool) -> Result<Linear, String> {
    let too_large = || {
        format!(
            "pooling is merged into the layer behind it, which then has more than {MAX_VALUES} weights: pool less at a time"
        )
    };
    let window = pool.window() as f64;
    let scaled: Vec<f64> = linear.weights.iter().map(|w| w / window).collect();
    let [_, height, width] = pool.input;
    let [_, pooled_height, pooled_width] = pool.output();
    let (geometry, from, to) = match linear.geometry {
        Geometry::Dense(d) => {
            let inputs = volume(&pool.input).ok_or_else(too_large)?;
            let geometry = Geometry::Dense(Dense { inputs, outputs: d.outputs });
            (geometry, [pooled_height, pooled_width], [height, width])
        }
        Geometry::Conv(c) => {
            // What the convolution reads as padding must lie outside the unpooled map as well.
            let overlaps = (0..2).any(|i| pool.kernel[i] > pool.stride[i]);
            let uneven = |i: usize| pool.output()[i + 1] * pool.stride[i] < pool.input[i + 1];
            let behind = (0..2).any(|i| c.pads[i + 2] > 0 && uneven(i));
            if c.pads != [0; 4] && (overlaps || behind) {
                return Err(
                    "pooling in front of a padded convolution needs windows that do not overlap and divide the input evenly: \
                     change the window, or leave out the padding"
                        .to_owned(),
                );
            }
            let kernel = dilated(c.kernel, pool.stride, pool.kernel, [1; 2]).ok_or_else(too_large)?;
            let grow = |a: usize, i: usize| a.checked_mul(pool.stride[i % 2]).ok_or_else(too_large);
            let conv = Conv {
                input: pool.input,
                channels: c.channels,
                kernel,
                stride: [grow(c.stride[0], 0)?, grow(c.stride[1], 1)?],
                pads: [grow(c.pads[0], 0)?, grow(c.pads[1], 1)?, grow(c.pads[2], 2)?, grow(c.pads[3], 3)?],
                dilation: [1; 2],
                groups: 1,
            };
            (Geometry::Conv(conv), c.kernel, kernel)
        }
    };
    geometry.check().map_err(|_| too_large())?;
    let spread = Spread { from, to, step: pool.stride, window: pool.kernel, gap: [1; 2] };
    let weights = spread.apply(&scaled).ok_or_else(too_large)?;
    Ok(Linear { geometry, weights, bias: linear.bias })
}

/// A convolution over the integers with a bias for each output position.
pub(crate) struct IntegerConv {
    pub conv: Conv,
    pub weights: Vec<i64>,
    pub bias: Vec<i64>,
}

/// The convolution followed by the *sum* over `pool`'s windows, as one convolution: exactly, in integers.
///
/// Needs `|weight| < 2^31` and `|bias| < 2^32`, which leave room for any window a model may have.
pub(crate) fn sum_after(layer: &IntegerConv, pool: &Pool) -> Result<IntegerConv, String> {
    let too_large = || {
        format!(
            "pooling is merged into the layer in front of it, which then has more than {MAX_VALUES} weights: pool less \
             at a time"
        )
    };
    let c = &layer.conv;
    let kernel = dilated(c.kernel, [1; 2], pool.kernel, c.stride).ok_or_else(too_large)?;
    let grow = |i: usize| c.stride[i].checked_mul(pool.stride[i]).ok_or_else(too_large);
    let conv = Conv { kernel, stride: [grow(0)?, grow(1)?], ..c.clone() };
    Geometry::Conv(conv.clone()).check().map_err(|_| too_large())?;
    let spread = Spread { from: c.kernel, to: kernel, step: [1; 2], window: pool.kernel, gap: c.stride };
    let weights = spread.apply(&layer.weights).ok_or_else(too_large)?;
    let bias = sum_windows(&layer.bias, pool);
    Ok(IntegerConv { conv, weights, bias })
}

/// The sums over the windows of all planes.
fn sum_windows(planes: &[i64], pool: &Pool) -> Vec<i64> {
    let [_, height, width] = pool.input;
    let [_, rows, columns] = pool.output();
    let mut sums = Vec::with_capacity(pool.output().iter().product());
    for plane in planes.chunks_exact(height * width) {
        for y in 0..rows {
            let window_rows = plane.chunks_exact(width).skip(y * pool.stride[0]).take(pool.kernel[0]);
            for x in 0..columns {
                let part =
                    |row: &[i64]| row.iter().skip(x * pool.stride[1]).take(pool.kernel[1]).sum::<i64>();
                sums.push(window_rows.clone().map(part).sum());
            }
        }
    }
    sums
}
