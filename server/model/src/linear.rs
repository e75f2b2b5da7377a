//! The product of a layer's weights with an input, in wrapping arithmetic.
//!
//! Convolutions gather [`LANES`] output positions at a time into a panel, a block of the kernel deep, and multiply
//! the panel with every row of weights. The inner loop is contiguous and of fixed length, so that it becomes vector
//! instructions, and a panel stays in the first-level cache while all output channels use it. Where a group has few
//! output channels, as in a depthwise convolution, there is no panel: the input itself is read, whole planes at a time.

use crate::{Conv, Geometry, wide};

/// Output positions computed together.
const LANES: usize = 16;
/// Kernel places gathered at a time: a panel of 32-bit words is then 32 KiB.
const DEPTH: usize = 512;
/// Output channels computed together: what is read from a panel serves them all.
const ROWS: usize = 4;

/// Integers that wrap around, and real numbers.
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

impl Word for f64 {
    const ZERO: f64 = 0.0;
    const ONE: f64 = 1.0;
    #[inline(always)]
    fn add_product(self, a: f64, b: f64) -> f64 {
        self + a * b
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
/// servers compute on `x - r` with their weights or shares of weights (section 2 of PROTOCOL.md).
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

/// Group by group, on an input cut into phases (see [`Phases`]), in which every place of the kernel reads consecutive
/// values for consecutive outputs of a row.
#[inline(always)]
fn convolve<T: Word>(conv: &Conv, weights: &[T], x: &[T], out: &mut [T]) {
    out.fill(T::ZERO);
    let phases = Phases::new(conv);
    let [_, height, width] = conv.output();
    let [inputs, outputs] = [conv.group_inputs(), conv.group_outputs()];
    let plane: usize = conv.input[1..].iter().product();
    let places = phases.places(conv);
    let mut cut = vec![T::ZERO; inputs * phases.channel()];
    let mut sums = Vec::new();
    let groups = weights.chunks_exact(outputs * places.len()).zip(x.chunks_exact(inputs * plane));
    for ((weights, x), out) in groups.zip(out.chunks_exact_mut(outputs * height * width)) {
        phases.cut(conv, x, &mut cut);
        if outputs < ROWS {
            convolve_rows(&phases, [height, width], &places, weights, &cut, &mut sums, out);
        } else {
            convolve_panels(&phases, [height, width], &places, weights, &cut, out);
        }
    }
}

/// One output channel after the other, all its positions together, for each place of the kernel: for so few channels
/// that a panel would cost more than what it serves.
#[inline(always)]
fn convolve_rows<T: Word>(
    phases: &Phases,
    [height, width]: [usize; 2],
    places: &[usize],
    weights: &[T],
    x: &[T],
    sums: &mut Vec<T>,
    out: &mut [T],
) {
    // Rows of outputs as far apart as those of the input; what is between them is not used.
    let row = phases.width;
    let count = (height - 1) * row + width;
    for (weights, out) in weights.chunks_exact(places.len()).zip(out.chunks_exact_mut(height * width)) {
        sums.clear();
        sums.resize(count, T::ZERO);
        for (&weight, &place) in weights.iter().zip(places) {
            for (sum, &word) in sums.iter_mut().zip(&x[place..place + count]) {
                *sum = sum.add_product(weight, word);
            }
        }
        for (out, sums) in out.chunks_exact_mut(width).zip(sums.chunks(row)) {
            out.copy_from_slice(&sums[..width]);
        }
    }
}

/// Panels of [`LANES`] positions.
#[inline(always)]
fn convolve_panels<T: Word>(
    phases: &Phases,
    [height, width]: [usize; 2],
    all_places: &[usize],
    weights: &[T],
    x: &[T],
    out: &mut [T],
) {
    let (positions, fan_in) = (height * width, all_places.len());
    let mut panel = vec![[T::ZERO; LANES]; DEPTH.min(fan_in)];
    for (block, places) in all_places.chunks(DEPTH).enumerate() {
        let (first, depth) = (block * DEPTH, places.len());
        for start in (0..positions).step_by(LANES) {
            let lanes = LANES.min(positions - start);
            let mut origins = [0; LANES];
            for (lane, origin) in origins.iter_mut().take(lanes).enumerate() {
                *origin = (start + lane) / width * phases.width + (start + lane) % width;
            }
            // Lanes beyond the last position repeat what the first reads; they are not stored.
            for (words, place) in panel.iter_mut().zip(places) {
                for (word, origin) in words.iter_mut().zip(&origins) {
                    *word = x[place + origin];
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

/// How a padded channel is cut: phase `(i, j)` has its rows `i`, `i + s_v`, `i + 2·s_v`, … and of these the columns
/// `j`, `j + s_h`, …, so that a convolution of any stride and dilation is, in each place of its kernel, one of stride 1
/// in one of the phases.
struct Phases {
    /// Vertical and horizontal stride, at most the padded input's height and width.
    stride: [usize; 2],
    /// Rows of a phase.
    height: usize,
    /// Columns of a phase.
    width: usize,
}

impl Phases {
    fn new(conv: &Conv) -> Phases {
        let [height, width] = conv.padded();
        let stride = [conv.stride[0].min(height), conv.stride[1].min(width)];
        Phases { stride, height: height.div_ceil(stride[0]), width: width.div_ceil(stride[1]) }
    }

    /// Number of values of a channel.
    fn channel(&self) -> usize {
        self.stride[0] * self.stride[1] * self.height * self.width
    }

    /// Where a row and a column of a padded channel are.
    #[inline(always)]
    fn place(&self, y: usize, x: usize) -> usize {
        let [vertical, horizontal] = self.stride;
        let phase = y % vertical * horizontal + x % horizontal;
        (phase * self.height + y / vertical) * self.width + x / horizontal
    }

    /// Where each place of a kernel reads for output (0, 0), all input channels of a group.
    fn places(&self, conv: &Conv) -> Vec<usize> {
        let [height, width] = conv.kernel;
        let taps = (0..height).flat_map(|y| (0..width).map(move |x| (y, x)));
        let taps = taps.map(|(y, x)| self.place(y * conv.dilation[0], x * conv.dilation[1]));
        let taps: Vec<usize> = taps.collect();
        let channels = (0..conv.group_inputs()).map(|channel| channel * self.channel());
        channels.flat_map(|first| taps.iter().map(move |tap| first + tap)).collect()
    }

    /// Writes the values of a group's channels to their places. What is padding is never written.
    #[inline(always)]
    fn cut<T: Word>(&self, conv: &Conv, x: &[T], out: &mut [T]) {
        let [_, height, width] = conv.input;
        let [top, left, ..] = conv.pads;
        let step = self.stride[1];
        for (x, out) in x.chunks_exact(height * width).zip(out.chunks_exact_mut(self.channel())) {
            for (y, row) in x.chunks_exact(width).enumerate() {
                for first in 0..step.min(width) {
                    let from = row[first..].iter().step_by(step);
                    let to = self.place(top + y, left + first);
                    out[to..][..from.len()].iter_mut().zip(from).for_each(|(out, &word)| *out = word);
                }
            }
        }
    }
}
