//! Coefficient packing: which input value, weight and output value sits at which power of `X`.
//!
//! After Cheetah (Huang, Lu, Hong, Ding 2022, eprint 2022/207, section 3): a polynomial product computes
//! convolutions without rotations, if inputs are laid out in ascending and weights in descending order. A matrix is
//! the case of one-by-one planes and kernels, with inputs as input channels and outputs as output channels, so
//! there is one layout for all layers.
//!
//! # One group
//!
//! The padded input is cut into **tiles**, rectangles in which a window of `e_v` by `e_h` places slides by `s_v` rows and
//! `s_h` columns (module `axis`), its channels into **parts**, the output channels into **blocks**. With `P` values in
//! the plane of a tile of width `W`, `C` channels in a part and `M` in a block, `P·C·M <= N`,
//! `E = (e_v - 1)W + e_h - 1` and `O = P(CM - 1) + E`:
//!
//! - input ciphertext (tile, part): value `(c, y, x)` at `c·P + y·W + x`;
//! - weight polynomial (block, part): weight `(m, c, y, x)` at `O - m·C·P - c·P - y·W - x`;
//! - output ciphertext (tile, block), the sum over parts: value `(m, y, x)` at `O - m·C·P + s_v·y·W + s_h·x`.
//!
//! Why that is exact: an output coefficient collects products with equal index sums, and the index
//! `c·P + y·W + x` is unique inside a part. The product's terms beyond `X^(N-1)` come back negated at positions
//! up to `CP - 1 + O - N < P(C - 1) + E`, just below the lowest output. The other coefficients hold
//! partial sums; they are neither answered nor decoded.
//!
//! For one group that is the best there is of its kind: if the inputs are at `s ∈ S` and the outputs at `w ∈ W`, a
//! weight polynomial has terms at all `w - s`, and `w - s + s'` must be no output for `s' ≠ s`; so the sums `w' + s`
//! are all different, and `|W|·|S| <= N`.
//!
//! # Many groups
//!
//! Groups are put in **batches** whose inputs share a ciphertext. The product above has terms from 0 to
//! `D + P(C - 1) + E - 1`, with `D = P·C·M`, and its outputs are among those from `P(C - 1) + E` to `D - 1`. So let the
//! inputs of a batch's member `g` begin at `σ_g·D` and its weights at `α_g·D`. The product of `g`'s inputs with the
//! weights of `h` then has terms in **slot** `σ_g + α_h`, that is from `(σ_g + α_h)D` to `(σ_g + α_h + 1)D - 1`, and in
//! the next one below the first output of that; those beyond `X^(N-1)` come back below the first output of slot 0, if
//! the highest slot ends within `N`. Hence outputs are exact if no other pair has a sum of `σ_g + α_g`. Two ways:
//!
//! - *alone*: one member in a weight polynomial and an output ciphertext, `α = 0`, `σ_g = g`. As many members as slots.
//! - *shared*: all members in one polynomial, `α_g = σ_g`, the outputs of `g` in slot `2σ_g`. Nothing else is there if
//!   no `σ_g` is the mean of two other members': numbers without the digit 2 to base 3. So there are `2^d` members in
//!   `3^d` slots: 2 in 3, 4 in 9, 8 in 27, 16 in 81.
//!
//! A polynomial of weights multiplies all inputs of its ciphertext, whichever group they are for: `I` members' inputs
//! times `J` members' weights are `I·J` terms, of which `J` are outputs and must have slots of their own, while a slot
//! of the others takes at most one term of each member on either side. So with `I` at least 2 outputs never fill more
//! than two thirds of the slots, and with all slots filled by inputs `J` is 1.
//!
//! # Which cut
//!
//! Of all cuts the one with the fewest ciphertexts, in and out together, is taken: an input costs every server an
//! encryption, an output costs an encryption of zero and an answer by every other server, and both a polynomial on
//! every link. Thirty-two weight polynomials count as a ciphertext: where they are not kept in NTT form each costs a
//! transform, and where they are, memory. A tie goes to the fewest inputs. The number of products hardly depends on
//! the cut: about as many as there are pairs of an input value and an output channel, divided by `N`.

mod axis;
mod cut;
#[cfg(test)]
mod tests;

use std::ops::Range;

use seco_model::{Conv, Dense, Geometry};
use zeroize::Zeroizing;

use crate::Error;
use crate::parameters::DEGREE;
use cut::{Cut, MAX_CIPHERTEXTS, MAX_STEPS, Sizes, cheapest, slot};

/// The layout of one layer.
pub(crate) struct Packing {
    conv: Conv,
    cut: Cut,
    /// Values in one channel of a tile, `P`.
    plane: usize,
}

/// Where the parts of an output ciphertext come from.
#[derive(Clone, Copy)]
struct Output {
    /// Row and column of the tile.
    tile: [usize; 2],
    /// Number of the batch or, where outputs are not shared, of the group.
    unit: usize,
    block: usize,
}

impl Packing {
    /// The cheapest layout of a layer: a search of at most [`MAX_STEPS`].
    pub(crate) fn new(geometry: &Geometry) -> Result<Self, Error> {
        geometry.check()?;
        let conv = match geometry {
            Geometry::Conv(conv) => conv.clone(),
            &Geometry::Dense(Dense { inputs, outputs }) => Conv {
                input: [inputs, 1, 1],
                channels: outputs,
                kernel: [1, 1],
                stride: [1, 1],
                pads: [0; 4],
                dilation: [1; 2],
                groups: 1,
            },
        };
        let cut = cheapest(&conv, MAX_STEPS).0.ok_or(Error::Ciphertexts(MAX_CIPHERTEXTS))?;
        Ok(Self { plane: cut.y.places * cut.x.places, conv, cut })
    }

    /// Output ciphertext `k` is of tile `k / rows` and of row `k % rows`.
    pub(crate) fn tiles(&self) -> usize {
        self.cut.y.tiles * self.cut.x.tiles
    }

    /// Number of output ciphertexts of a tile: one for each unit and block, in that order. Those of all tiles with the
    /// same number, a row, have the same weights.
    pub(crate) fn rows(&self) -> usize {
        self.cut.sizes.units(self.conv.groups) * self.cut.sizes.blocks
    }

    pub(crate) fn input_ciphertexts(&self) -> usize {
        self.tiles() * self.cut.sizes.batches * self.cut.sizes.parts
    }

    pub(crate) fn output_ciphertexts(&self) -> usize {
        self.tiles() * self.rows()
    }

    /// Weight polynomials: one for each unit, block and part, in that order.
    pub(crate) fn weight_polynomials(&self) -> usize {
        self.rows() * self.cut.sizes.parts
    }

    /// Products that add up to an output ciphertext.
    pub(crate) fn products_per_output(&self) -> usize {
        self.cut.sizes.parts
    }

    /// Largest number of weights that enter one output ciphertext; bounds `Σ |w|_1` over its polynomials by width.
    pub(crate) fn weights_per_output(&self) -> usize {
        let [height, width] = self.conv.kernel;
        self.cut.sizes.per_unit() * self.cut.sizes.block * self.conv.group_inputs() * height * width
    }

    /// The input ciphertexts of an output ciphertext. Their products with the weight polynomials of its row, pair by
    /// pair, add up to it.
    pub(crate) fn inputs_of(&self, ciphertext: usize) -> Range<usize> {
        let Output { tile: [y, x], unit, .. } = self.output(ciphertext);
        let Sizes { parts, batch, batches, .. } = self.cut.sizes;
        let batch = unit * self.cut.sizes.per_unit() / batch;
        let first = ((y * self.cut.x.tiles + x) * batches + batch) * parts;
        first..first + parts
    }

    /// The weight polynomials of a row of output ciphertexts.
    pub(crate) fn weights_of(&self, row: usize) -> Range<usize> {
        row * self.cut.sizes.parts..(row + 1) * self.cut.sizes.parts
    }

    fn output(&self, ciphertext: usize) -> Output {
        let (columns, blocks) = (self.cut.x.tiles, self.cut.sizes.blocks);
        let (tile, row) = (ciphertext / self.rows(), ciphertext % self.rows());
        Output { tile: [tile / columns, tile % columns], unit: row / blocks, block: row % blocks }
    }

    /// The groups of a batch.
    fn batch(&self, batch: usize) -> Range<usize> {
        part_of(self.conv.groups, self.cut.sizes.batch, batch)
    }

    /// The groups of a unit.
    fn groups(&self, unit: usize) -> Range<usize> {
        part_of(self.conv.groups, self.cut.sizes.per_unit(), unit)
    }

    /// `D`.
    fn slot_len(&self) -> usize {
        self.plane * self.cut.sizes.part * self.cut.sizes.block
    }

    /// `σ_g·D` and `α_g·D` of a group.
    fn slots(&self, group: usize) -> [usize; 2] {
        let member = group % self.cut.sizes.batch;
        let [inputs, weights] = if self.cut.sizes.shared { [slot(member); 2] } else { [member, 0] };
        [inputs * self.slot_len(), weights * self.slot_len()]
    }

    /// `O - m·C·P`: where the first output of channel `m` of a block is, in slot 0.
    fn top(&self, m: usize) -> usize {
        let Sizes { part, block, .. } = self.cut.sizes;
        let [rows, columns] = [&self.cut.y, &self.cut.x].map(|axis| axis.form().extent - 1);
        self.plane * part * (block - m) - self.plane + rows * self.cut.x.places + columns
    }

    /// Coefficients of one input ciphertext: its part of `values` (flat, `C H W`), zeros for padding.
    pub(crate) fn input(&self, ciphertext: usize, values: &[u32]) -> Zeroizing<Vec<u32>> {
        let mut out = Zeroizing::new(vec![0; DEGREE]);
        let Cut { y, x, sizes } = &self.cut;
        let [_, height, width] = self.conv.input;
        let [top, left, ..] = self.conv.pads;
        let (rest, part) = (ciphertext / sizes.parts, ciphertext % sizes.parts);
        let (tile, batch) = (rest / sizes.batches, rest % sizes.batches);
        let inputs = self.conv.group_inputs();
        let [y_moves, x_moves] = [y, x].map(|axis| axis.form().moves);
        for group in self.batch(batch) {
            let channels = part_of(inputs * y_moves * x_moves, sizes.part, part);
            let planes = out[self.slots(group)[0]..].chunks_mut(self.plane);
            for (channel, plane) in channels.zip(planes) {
                let (channel, moved) = (channel / (y_moves * x_moves), channel % (y_moves * x_moves));
                let channel = &values[(group * inputs + channel) * height * width..][..height * width];
                let rows = y.sources(tile / x.tiles, moved / x_moves).map(|row| row.checked_sub(top));
                for (row, places) in rows.zip(plane.chunks_mut(x.places)) {
                    let Some(row) = row.filter(|&row| row < height) else { continue };
                    let row = &channel[row * width..][..width];
                    for (column, place) in x.sources(tile % x.tiles, moved % x_moves).zip(places) {
                        if let Some(value) = column.checked_sub(left).and_then(|column| row.get(column)) {
                            *place = *value;
                        }
                    }
                }
            }
        }
        out
    }

    /// Coefficients of one weight polynomial, from `weights` (flat, `O I H W`, `I` of one group), each lifted by
    /// `lift`.
    pub(crate) fn weights(
        &self,
        polynomial: usize,
        weights: &[u32],
        lift: impl Fn(u32) -> i64,
    ) -> Zeroizing<Vec<i64>> {
        let mut out = Zeroizing::new(vec![0; DEGREE]);
        let Cut { y, x, sizes } = &self.cut;
        let [inputs, outputs] = [self.conv.group_inputs(), self.conv.group_outputs()];
        let [height, width] = self.conv.kernel;
        let (rest, part) = (polynomial / sizes.parts, polynomial % sizes.parts);
        let (unit, block) = (rest / sizes.blocks, rest % sizes.blocks);
        let [y_moves, x_moves] = [y, x].map(|axis| axis.form().moves);
        let channels = part_of(inputs * y_moves * x_moves, sizes.part, part);
        let (rows, columns) = (y.form().taps(height), x.form().taps(width));
        let taps = rows.flat_map(|row| columns.clone().map(move |column| (row, column)));
        // Place in the kernel; the split channel beside the first of its channel; how far below the top.
        let taps: Vec<(usize, usize, usize)> = taps
            .enumerate()
            .map(|(tap, ((y_move, row), (x_move, column)))| {
                (tap, y_move * x_moves + x_move, row * x.places + column)
            })
            .collect();
        for group in self.groups(unit) {
            let slot = self.slots(group)[1];
            for (m, output) in part_of(outputs, sizes.block, block).enumerate() {
                let kernels = &weights[(group * outputs + output) * inputs * height * width..];
                let first = channels.start / (y_moves * x_moves);
                let last = channels.end.div_ceil(y_moves * x_moves);
                for (c, kernel) in (first..last).zip(kernels[first * height * width..].chunks(height * width))
                {
                    for &(tap, moved, below) in &taps {
                        let channel = c * y_moves * x_moves + moved;
                        if channels.contains(&channel) {
                            let down = (channel - channels.start) * self.plane + below;
                            out[slot + self.top(m) - down] = lift(kernel[tap]);
                        }
                    }
                }
            }
        }
        out
    }

    /// The outputs of one output ciphertext, in the order in which answers carry them: index of the output (flat,
    /// `C H W`) and coefficient that holds it.
    pub(crate) fn outputs(&self, ciphertext: usize) -> impl Iterator<Item = (usize, usize)> + '_ {
        let [_, height, width] = self.conv.output();
        let channels = self.conv.group_outputs();
        let Output { tile, unit, block } = self.output(ciphertext);
        let rows = self.cut.y.outputs(tile[0]);
        let columns = self.cut.x.outputs(tile[1]);
        self.groups(unit).flat_map(move |group| {
            let slot = self.slots(group).iter().sum::<usize>();
            let (rows, columns) = (rows.clone(), columns.clone());
            part_of(channels, self.cut.sizes.block, block).enumerate().flat_map(move |(m, channel)| {
                let (top, channel) = (slot + self.top(m), group * channels + channel);
                let columns = columns.clone();
                rows.clone().flat_map(move |(y, row)| {
                    let from = top + row * self.cut.x.places;
                    columns
                        .clone()
                        .map(move |(x, column)| ((channel * height + y) * width + x, from + column))
                })
            })
        })
    }

    /// Number of outputs of one output ciphertext.
    pub(crate) fn output_count(&self, ciphertext: usize) -> usize {
        let Output { tile: [y, x], unit, block } = self.output(ciphertext);
        let channels = part_of(self.conv.group_outputs(), self.cut.sizes.block, block).len();
        self.groups(unit).len() * channels * self.cut.y.count(y) * self.cut.x.count(x)
    }
}

/// Piece number `index` of `all`, in pieces of `size`.
fn part_of(all: usize, size: usize, index: usize) -> Range<usize> {
    let end = |index: usize| all.min(index * size);
    end(index)..end(index + 1)
}
