//! One axis of a convolution, cut into tiles.
//!
//! Whatever stride and dilation a convolution has, its axis is brought to a form in which a tile of the padded input is
//! a row of *places* and a window slides over it by `step` places, a whole number of which its `extent` covers. There
//! are four such forms ([`Form`]), all of them mere relabellings of the input, of which [`forms`](Form::all) gives
//! those that make sense:
//!
//! - **whole**: places are the input's own, but those between two windows that neither reads;
//! - **apart**: a window of dilation `d` and stride `s` reads one residue modulo `d` only, and windows `d/gcd(d, s)`
//!   apart the same one: so many convolutions without dilation, in tiles of their own;
//! - **strided**: the residues modulo the stride are channels of their own, and the stride is 1;
//! - **taps**: each place of the kernel is a channel of its own, and a window is one place.

use seco_model::Conv;

/// How an axis is read.
#[derive(Clone, Copy, Debug)]
pub(super) struct Form {
    /// Stride of the convolution.
    stride: usize,
    /// Outputs along the axis.
    outputs: usize,
    /// Every so many outputs make a convolution of their own.
    phases: usize,
    /// Distance in the padded input of neighbouring places of a window.
    unit: usize,
    /// Distance of neighbouring windows in the padded input, in units.
    stride_units: usize,
    /// The same in places.
    pub(super) step: usize,
    /// Places of a window.
    pub(super) extent: usize,
    /// Number of channels that each channel of the input is split into.
    pub(super) moves: usize,
    /// The split ones differ by multiples of this in where their places are, modulo `modulus`.
    dilation: usize,
    modulus: usize,
    /// A place of the kernel is at this fraction of it in the window, rounded down.
    place: [usize; 2],
}

impl Form {
    /// The forms of an axis, 0 for rows and 1 for columns.
    pub(super) fn all(conv: &Conv, axis: usize) -> Vec<Form> {
        let (kernel, stride, dilation) = (conv.kernel[axis], conv.stride[axis], conv.dilation[axis]);
        let common = gcd(dilation, stride);
        let (extent, outputs) = (conv.extent()[axis], conv.output()[axis + 1]);
        let whole = Form {
            stride,
            outputs,
            phases: 1,
            unit: 1,
            stride_units: stride,
            step: stride.min(extent),
            extent,
            moves: 1,
            dilation,
            modulus: usize::MAX,
            place: [dilation, 1],
        };
        let apart = Form {
            phases: (dilation / common).min(outputs),
            unit: dilation,
            stride_units: stride / common,
            step: (stride / common).min(kernel),
            extent: kernel,
            place: [1, 1],
            ..whole
        };
        let strided = Form {
            unit: stride,
            stride_units: 1,
            step: 1,
            extent: (kernel - 1) * dilation / stride + 1,
            moves: kernel.min(stride / common),
            modulus: stride,
            place: [dilation, stride],
            ..whole
        };
        let taps = Form { extent: 1, moves: kernel, modulus: usize::MAX, place: [0, 1], ..strided };
        let slides = kernel > 1;
        let sensible = [true, slides && dilation > 1, slides && stride > 1, slides];
        let forms = [whole, apart, strided, taps].into_iter().zip(sensible);
        forms.filter_map(|(form, sensible)| sensible.then_some(form)).collect()
    }

    /// How far the places of a split channel are from those of the first.
    fn moved(&self, split: usize) -> usize {
        split * self.dilation % self.modulus
    }

    /// For each place of a kernel of that size the split channel and the place in the window.
    pub(super) fn taps(&self, kernel: usize) -> impl Iterator<Item = (usize, usize)> + Clone + use<> {
        let (moves, [factor, divisor]) = (self.moves, self.place);
        (0..kernel).map(move |k| (k % moves, k * factor / divisor))
    }

    /// The ways to cut it into tiles, fewest tiles first.
    pub(super) fn cuts(&self) -> impl Iterator<Item = Axis<'_>> {
        let longest = self.outputs.div_ceil(self.phases);
        pieces(longest, 1).map(|(tiles, count)| Axis { form: self, tiles: tiles * self.phases, count })
    }
}

/// The ways to cut `all` into at least so many equal pieces: their number and the largest's size. Only one for each size.
pub(super) fn pieces(all: usize, fewest: usize) -> impl Iterator<Item = (usize, usize)> {
    let cut = move |number: usize| {
        let size = all.div_ceil(number.max(1));
        (all.div_ceil(size.max(1)), size)
    };
    std::iter::successors(Some(cut(fewest)), move |&(_, size)| {
        (size > 1).then(|| cut(all.div_ceil(size - 1)))
    })
}

/// A form with a number of tiles.
#[derive(Clone, Copy, Debug)]
pub(super) struct Axis<'a> {
    form: &'a Form,
    pub(super) tiles: usize,
    /// Outputs of a tile; the last ones of a phase may have fewer.
    count: usize,
}

impl Axis<'_> {
    /// Places of a tile.
    pub(super) fn places(&self) -> usize {
        (self.count - 1).saturating_mul(self.form.step).saturating_add(self.form.extent)
    }

    /// Number of channels that each channel of the input is split into.
    pub(super) fn moves(&self) -> usize {
        self.form.moves
    }

    pub(super) fn owned(&self) -> Tiles {
        Tiles { form: *self.form, tiles: self.tiles, count: self.count, places: self.places() }
    }
}

/// An axis that was chosen.
#[derive(Clone, Debug)]
pub(super) struct Tiles {
    form: Form,
    pub(super) tiles: usize,
    count: usize,
    /// Places of a tile.
    pub(super) places: usize,
}

impl Tiles {
    pub(super) fn form(&self) -> &Form {
        &self.form
    }

    /// The first output of a tile, and the number of its outputs.
    fn outputs_of(&self, tile: usize) -> (usize, usize) {
        let each = self.tiles / self.form.phases;
        let (phase, index) = (tile / each, tile % each);
        let first = phase + self.form.phases * index * self.count;
        let left = self.form.outputs.saturating_sub(first).div_ceil(self.form.phases);
        (first, left.min(self.count))
    }

    /// Number of outputs of a tile.
    pub(super) fn count(&self, tile: usize) -> usize {
        self.outputs_of(tile).1
    }

    /// The outputs of a tile, each with the place of the window's beginning.
    pub(super) fn outputs(&self, tile: usize) -> impl Iterator<Item = (usize, usize)> + Clone + use<> {
        let ((first, count), phases, step) = (self.outputs_of(tile), self.form.phases, self.form.step);
        (0..count).map(move |k| (first + k * phases, k * step))
    }

    /// Where every place of a tile is in the padded input, for that split channel.
    pub(super) fn sources(&self, tile: usize, split: usize) -> impl Iterator<Item = usize> + '_ {
        let Form { stride, unit, stride_units, step, .. } = self.form;
        let origin = self.outputs_of(tile).0 * stride + self.form.moved(split);
        (0..self.places).map(move |place| origin + unit * (place / step * stride_units + place % step))
    }
}

fn gcd(a: usize, b: usize) -> usize {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_read_what_they_must() {
        let mut forms = 0;
        for (kernel, stride, dilation) in
            (1..5).flat_map(|k| (1..6).flat_map(move |s| (1..7).map(move |d| (k, s, d))))
        {
            let conv = Conv {
                input: [1, 1, 40],
                channels: 1,
                kernel: [1, kernel],
                stride: [1, stride],
                dilation: [1, dilation],
                pads: [0, 1, 0, 2],
                groups: 1,
            };
            let outputs = conv.output()[2];
            for form in Form::all(&conv, 1) {
                forms += 1;
                for axis in form.cuts() {
                    let tiles = axis.owned();
                    let mut seen = vec![0; outputs];
                    for tile in 0..tiles.tiles {
                        assert_eq!(tiles.outputs(tile).count(), tiles.count(tile));
                        let sources: Vec<Vec<usize>> =
                            (0..axis.moves()).map(|split| tiles.sources(tile, split).collect()).collect();
                        for (output, window) in tiles.outputs(tile) {
                            seen[output] += 1;
                            for (k, (split, place)) in form.taps(kernel).enumerate() {
                                assert!(place < form.extent);
                                assert_eq!(sources[split][window + place], output * stride + k * dilation);
                            }
                        }
                    }
                    assert!(seen.iter().all(|&count| count == 1), "{form:?}");
                }
            }
        }
        assert!(forms > 300);
    }

    #[test]
    fn pieces_are_of_all_sizes() {
        let all: Vec<_> = pieces(10, 1).collect();
        assert_eq!(all, [(1, 10), (2, 5), (3, 4), (4, 3), (5, 2), (10, 1)]);
        assert_eq!(pieces(10, 4).collect::<Vec<_>>(), [(4, 3), (5, 2), (10, 1)]);
        assert_eq!(pieces(1, 1).collect::<Vec<_>>(), [(1, 1)]);
    }
}
