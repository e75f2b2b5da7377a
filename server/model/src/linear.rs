//! The product of a layer's weights with an input, in wrapping arithmetic.
//!
//! Convolutions gather [`LANES`] output positions at a time into a panel, a block of the kernel deep, and multiply
//! the panel with every row of weights. The inner loop is contiguous and of fixed length, so that it becomes vector
//! instructions, and a panel stays in the first-level cache while all output channels use it.

use ndarray::{Array3, ArrayView3, s};

use crate::{Conv, Geometry, wide};

/// Output positions computed together.
const LANES: usize = 16;
/// Kernel places gathered at a time: a panel of 32-bit words is then 32 KiB.
const DEPTH: usize = 512;
/// Output channels computed together: what is read from a panel serves them all.
const ROWS: usize = 4;

/// Integers that wrap around.
pub(crate) trait Word: Copy {
    /// Zero.
    const ZERO: Self;
    /// One.
    const ONE: Self;
    /// `self + a·b`.
    fn add_product(self, a: Self, b: Self) -> Self;
}

impl Word for u32 {
    const ZERO: u32 = 0;
    const ONE: u32 = 1;
    #[inline(always)]
    fn add_product(self, a: u32, b: u32) -> u32 {
        self.wrapping_add(a.wrapping_mul(b))
    }
}

impl Word for i64 {
    const ZERO: i64 = 0;
    const ONE: i64 = 1;
    #[inline(always)]
    fn add_product(self, a: i64, b: i64) -> i64 {
        self.wrapping_add(a.wrapping_mul(b))
    }
}

/// A layer's affine map without its bias, mod `2^32` and hence mod `2^k` for every width `k`: `out = W·x`. What
/// servers compute on `x - r` with their weights or shares of weights (`protocol.md` section 7).
///
/// `weights`, `x` and `out` have the sizes and layouts of `geometry`, which must have passed [`Geometry::check`].
/// Takes the same time for all values.
///
/// # Panics
/// If a size differs. Sizes come from the checked architecture and never from what a peer says.
pub fn linear(geometry: &Geometry, weights: &[u32], x: &[u32], out: &mut [u32]) {
    wide::multiply(geometry, weights, x, out);
}

/// [`linear`] for any word. Always inlined, so that it is compiled for every kind of processor (module `wide`).
#[inline(always)]
pub(crate) fn multiply<T: Word>(geometry: &Geometry, weights: &[T], x: &[T], out: &mut [T]) {
    let sizes = [weights.len(), x.len(), out.len()];
    assert_eq!(sizes, [geometry.weights(), geometry.inputs(), geometry.outputs()], "sizes of a linear layer");
    match geometry {
        Geometry::Conv(conv) => convolve(conv, weights, x, out),
        Geometry::Dense(dense) => {
            for (row, out) in weights.chunks_exact(dense.inputs).zip(out) {
                *out = dot(row, x);
            }
        }
    }
}

/// The scalar product of a row of weights with the input.
#[inline(always)]
fn dot<T: Word>(row: &[T], x: &[T]) -> T {
    // More than a vector at a time, for a product takes longer than the next one's begin.
    const WIDTH: usize = 4 * LANES;
    let mut sums = [T::ZERO; WIDTH];
    let (row, row_end) = row.as_chunks::<WIDTH>();
    let (x, x_end) = x.as_chunks::<WIDTH>();
    for (weights, words) in row.iter().zip(x) {
        for ((sum, &weight), &word) in sums.iter_mut().zip(weights).zip(words) {
            *sum = sum.add_product(weight, word);
        }
    }
    let end = row_end.iter().zip(x_end).fold(T::ZERO, |sum, (&w, &x)| sum.add_product(w, x));
    sums.iter().fold(end, |total, &sum| total.add_product(sum, T::ONE))
}

#[inline(always)]
fn convolve<T: Word>(conv: &Conv, weights: &[T], x: &[T], out: &mut [T]) {
    out.fill(T::ZERO);
    let padded = pad(conv, x);
    let [_, height, width] = conv.output();
    let [padded_height, padded_width] = conv.padded();
    let [kernel_height, kernel_width] = conv.kernel;
    let (positions, fan_in) = (height * width, conv.input[0] * kernel_height * kernel_width);

    let mut panel = vec![[T::ZERO; LANES]; DEPTH.min(fan_in)];
    let mut places = Vec::with_capacity(panel.len());
    for first in (0..fan_in).step_by(DEPTH) {
        let depth = DEPTH.min(fan_in - first);
        // Where each place of this block of the kernel reads when the kernel is at output (0, 0).
        places.clear();
        places.extend((first..first + depth).map(|place| {
            let (row, column) = (place / kernel_width, place % kernel_width);
            let (channel, row) = (row / kernel_height, row % kernel_height);
            (channel * padded_height + row) * padded_width + column
        }));
        for start in (0..positions).step_by(LANES) {
            let lanes = LANES.min(positions - start);
            let mut origins = [0; LANES];
            for (lane, origin) in origins.iter_mut().take(lanes).enumerate() {
                let (y, x) = ((start + lane) / width, (start + lane) % width);
                *origin = y * conv.stride[0] * padded_width + x * conv.stride[1];
            }
            // Lanes beyond the last position repeat what the first reads; they are not stored.
            for (words, place) in panel.iter_mut().zip(&places) {
                for (word, origin) in words.iter_mut().zip(&origins) {
                    *word = padded[place + origin];
                }
            }
            let mut rows = weights.chunks_exact(fan_in * ROWS);
            let mut outs = out.chunks_exact_mut(positions * ROWS);
            for (rows, outs) in rows.by_ref().zip(outs.by_ref()) {
                let row = |k: usize| &rows[k * fan_in + first..][..depth];
                let mut sums = [[T::ZERO; LANES]; ROWS];
                for (sums, out) in sums.iter_mut().zip(outs.chunks_exact(positions)) {
                    sums[..lanes].copy_from_slice(&out[start..start + lanes]);
                }
                let sums = add_products(sums, [row(0), row(1), row(2), row(3)], &panel);
                for (sums, out) in sums.iter().zip(outs.chunks_exact_mut(positions)) {
                    out[start..start + lanes].copy_from_slice(&sums[..lanes]);
                }
            }
            let rest = rows.remainder().chunks_exact(fan_in);
            for (row, out) in rest.zip(outs.into_remainder().chunks_exact_mut(positions)) {
                let out = &mut out[start..start + lanes];
                let mut sums = [[T::ZERO; LANES]];
                sums[0][..lanes].copy_from_slice(out);
                let [sums] = add_products(sums, [&row[first..first + depth]], &panel);
                out.copy_from_slice(&sums[..lanes]);
            }
        }
    }
}

/// `sums` and the products of rows of weights, as deep as the panel's used part, with a panel.
#[inline(always)]
fn add_products<T: Word, const N: usize>(
    mut sums: [[T; LANES]; N],
    rows: [&[T]; N],
    panel: &[[T; LANES]],
) -> [[T; LANES]; N] {
    let depth = rows[0].len().min(panel.len());
    let rows = rows.map(|row| &row[..depth]);
    for (place, words) in panel[..depth].iter().enumerate() {
        for (sums, row) in sums.iter_mut().zip(rows) {
            let weight = row[place];
            for (sum, &word) in sums.iter_mut().zip(words) {
                *sum = sum.add_product(weight, word);
            }
        }
    }
    sums
}

/// The input with its zero padding, row-major.
#[inline(always)]
fn pad<T: Word>(conv: &Conv, x: &[T]) -> Vec<T> {
    let [channels, height, width] = conv.input;
    let [padded_height, padded_width] = conv.padded();
    let [top, left, ..] = conv.pads;
    let mut padded = Array3::from_elem((channels, padded_height, padded_width), T::ZERO);
    if let Ok(x) = ArrayView3::from_shape((channels, height, width), x) {
        padded.slice_mut(s![.., top..top + height, left..left + width]).assign(&x);
    }
    padded.into_raw_vec_and_offset().0
}
