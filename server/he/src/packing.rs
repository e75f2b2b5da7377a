//! Coefficient packing: which input value, weight and output value sits at which power of `X`.
//!
//! After Cheetah (Huang, Lu, Hong, Ding 2022, eprint 2022/207, section 3): a polynomial product computes
//! convolutions without rotations, if inputs are laid out in ascending and weights in descending order. A matrix is
//! the case of one-by-one planes and kernels, with inputs as input channels and outputs as output channels, so
//! there is one layout for all layers.
//!
//! The padded input is cut into horizontal **bands** and into **groups** of channels, the output channels into
//! **blocks**. With `P` values in the plane of a band (full padded width `W`), `C` channels in a group and `M` in
//! a block, `P·C·M <= N`, and `O = P(CM - 1) + (k_h - 1)W + k_w - 1`:
//!
//! - input ciphertext (band, group): value `(c, y, x)` at `c·P + y·W + x`;
//! - weight polynomial (block, group): weight `(m, c, y, x)` at `O - m·C·P - c·P - y·W - x`;
//! - output ciphertext (band, block), the sum over groups: value `(m, y, x)` at `O - m·C·P + s_v·y·W + s_h·x`.
//!
//! Why that is exact: an output coefficient collects products with equal index sums, and the index
//! `c·P + y·W + x` is unique inside a group. The product's terms beyond `X^(N-1)` come back negated at positions
//! up to `CP - 1 + O - N < P(C-1) + (k_h - 1)W + k_w - 1`, just below the lowest output. The other coefficients hold
//! partial sums; they are neither answered nor decoded.
//!
//! Bands overlap by the kernel's height, so a plane larger than a polynomial is possible as long as one output
//! row's worth fits. Of all cuts the one with the fewest ciphertexts, in and out together, is taken: an input costs
//! every server an encryption, an output costs an encryption of zero and an answer by every other server. A tie goes
//! to the fewest inputs, because an input is two polynomials on every link and an output one.

use seco_model::{Conv, Dense, Geometry};
use zeroize::Zeroizing;

use crate::Error;
use crate::parameters::DEGREE;

/// The layout of one layer; sizes in values, channels or rows.
pub(crate) struct Packing {
    conv: Conv,
    /// Output channels, height and width.
    output: [usize; 3],
    /// Padded input width, `W`.
    row: usize,
    /// Output rows of a band; the last band may have fewer.
    band_rows: usize,
    bands: usize,
    /// Values in one channel of a band, `P`.
    plane: usize,
    /// Input channels of a group; the last group may have fewer.
    group: usize,
    groups: usize,
    /// Output channels of a block; the last block may have fewer.
    block: usize,
    blocks: usize,
}

impl Packing {
    /// The cheapest layout of a layer.
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
        let (output, row) = (conv.output(), conv.padded()[1]);
        let plane = |rows: usize| ((rows - 1) * conv.stride[0] + conv.kernel[0]).saturating_mul(row);
        if plane(1) > DEGREE {
            return Err(Error::Band { needed: plane(1), available: DEGREE });
        }
        // Cost, inputs among it, then the layout; a cut with as many inputs as the best has ciphertexts cannot win.
        let (mut cost, mut layout) = ((usize::MAX, 0), [0; 6]);
        for bands in 1..=output[1] {
            let band_rows = output[1].div_ceil(bands);
            let plane = plane(band_rows);
            if plane > DEGREE {
                continue;
            }
            if bands >= cost.0 {
                break;
            }
            let fewest = conv.input[0].div_ceil(DEGREE / plane);
            for groups in fewest..=conv.input[0] {
                if bands * groups >= cost.0 {
                    break;
                }
                let group = conv.input[0].div_ceil(groups);
                let blocks = output[0].div_ceil(DEGREE / (plane * group));
                let new = (bands * (groups + blocks), bands * groups);
                if new < cost {
                    (cost, layout) = (new, [band_rows, bands, plane, group, groups, blocks]);
                }
            }
        }
        let [band_rows, bands, plane, group, groups, blocks] = layout;
        // Even blocks: fewer weights in a polynomial, hence less noise.
        let block = output[0].div_ceil(blocks);
        Ok(Self { conv, output, row, band_rows, bands, plane, group, groups, block, blocks })
    }

    pub(crate) fn input_ciphertexts(&self) -> usize {
        self.bands * self.groups
    }

    pub(crate) fn output_ciphertexts(&self) -> usize {
        self.bands * self.blocks
    }

    /// Weight polynomials: one for each block and group, in that order.
    pub(crate) fn weight_polynomials(&self) -> usize {
        self.blocks * self.groups
    }

    pub(crate) fn groups(&self) -> usize {
        self.groups
    }

    /// The band and the block of an output ciphertext.
    pub(crate) fn band_and_block(&self, ciphertext: usize) -> (usize, usize) {
        (ciphertext / self.blocks, ciphertext % self.blocks)
    }

    /// Largest number of weights that enter one output ciphertext; bounds `Σ_g |w_g|_1` by width.
    pub(crate) fn weights_per_output(&self) -> usize {
        self.block * self.conv.input[0] * self.conv.kernel[0] * self.conv.kernel[1]
    }

    /// Coefficients of one input ciphertext: its part of `values` (flat, `C H W`), zeros for padding.
    pub(crate) fn input(&self, ciphertext: usize, values: &[u32]) -> Zeroizing<Vec<u32>> {
        let mut out = Zeroizing::new(vec![0; DEGREE]);
        let [channels, height, width] = self.conv.input;
        let [top, left, ..] = self.conv.pads;
        let (band, group) = (ciphertext / self.groups, ciphertext % self.groups);
        let start = band * self.band_rows * self.conv.stride[0];
        let first = group * self.group;
        for channel in first..channels.min(first + self.group) {
            for y in 0..self.plane / self.row {
                let Some(source) = (start + y).checked_sub(top).filter(|&y| y < height) else { continue };
                let from = (channel * height + source) * width;
                let to = (channel - first) * self.plane + y * self.row + left;
                out[to..to + width].copy_from_slice(&values[from..from + width]);
            }
        }
        out
    }

    /// Coefficients of one weight polynomial, from `weights` (flat, `O I H W`), each lifted by `lift`.
    pub(crate) fn weights(
        &self,
        polynomial: usize,
        weights: &[u32],
        lift: impl Fn(u32) -> i64,
    ) -> Zeroizing<Vec<i64>> {
        let mut out = Zeroizing::new(vec![0; DEGREE]);
        let [channels, ..] = self.conv.input;
        let [height, width] = self.conv.kernel;
        let (block, group) = (polynomial / self.groups, polynomial % self.groups);
        let (first_out, first_in) = (block * self.block, group * self.group);
        for m in first_out..self.output[0].min(first_out + self.block) {
            for c in first_in..channels.min(first_in + self.group) {
                let top = self.top(m - first_out) - (c - first_in) * self.plane;
                for y in 0..height {
                    for x in 0..width {
                        let weight = weights[((m * channels + c) * height + y) * width + x];
                        out[top - y * self.row - x] = lift(weight);
                    }
                }
            }
        }
        out
    }

    /// The outputs of one output ciphertext, in the order in which answers carry them: index of the output (flat,
    /// `C H W`) and coefficient that holds it.
    pub(crate) fn outputs(&self, ciphertext: usize) -> impl Iterator<Item = (usize, usize)> + '_ {
        let [channels, height, width] = self.output;
        let [stride_y, stride_x] = self.conv.stride;
        let (band, block) = self.band_and_block(ciphertext);
        let (first, start) = (block * self.block, band * self.band_rows);
        (first..channels.min(first + self.block)).flat_map(move |m| {
            (start..height.min(start + self.band_rows)).flat_map(move |y| {
                let from = self.top(m - first) + (y - start) * stride_y * self.row;
                (0..width).map(move |x| ((m * height + y) * width + x, from + x * stride_x))
            })
        })
    }

    /// Number of outputs of one output ciphertext.
    pub(crate) fn output_count(&self, ciphertext: usize) -> usize {
        let (band, block) = self.band_and_block(ciphertext);
        let part = |all: usize, size: usize, index: usize| size.min(all.saturating_sub(index * size));
        part(self.output[0], self.block, block) * part(self.output[1], self.band_rows, band) * self.output[2]
    }

    /// `O - m·C·P`: where the first output of channel `m` of a block sits.
    fn top(&self, m: usize) -> usize {
        let [height, width] = self.conv.kernel;
        let below = self.plane * self.group * (self.block - m) - self.plane;
        below + (height - 1) * self.row + width - 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dense(inputs: usize, outputs: usize) -> Packing {
        Packing::new(&Geometry::Dense(Dense { inputs, outputs })).unwrap()
    }

    fn conv(input: [usize; 3], channels: usize, kernel: usize, pad: usize) -> Result<Packing, Error> {
        Packing::new(&Geometry::Conv(Conv {
            input,
            channels,
            kernel: [kernel; 2],
            stride: [1; 2],
            pads: [pad; 4],
            dilation: [1; 2],
            groups: 1,
        }))
    }

    fn ciphertexts(packing: &Packing) -> (usize, usize) {
        (packing.input_ciphertexts(), packing.output_ciphertexts())
    }

    #[test]
    fn cuts() {
        assert_eq!(ciphertexts(&dense(800, 500)), (5, 10));
        assert_eq!(ciphertexts(&dense(256, 10)), (1, 1));
        assert_eq!(ciphertexts(&dense(256, 100)), (2, 2));
        assert_eq!(ciphertexts(&dense(1, 8192)), (1, 1));
        // MiniONN's convolutions.
        assert_eq!(ciphertexts(&conv([1, 28, 28], 16, 5, 0).unwrap()), (1, 2));
        assert_eq!(ciphertexts(&conv([16, 12, 12], 16, 5, 0).unwrap()), (2, 3));
        // Three planes of 66 x 66: two bands rather than three groups. Of 226 x 226, at most 36 rows fit.
        assert_eq!(ciphertexts(&conv([3, 64, 64], 1, 3, 1).unwrap()), (2, 2));
        assert_eq!(conv([3, 224, 224], 64, 3, 1).unwrap().plane % 226, 0);
        assert!(matches!(
            conv([1, 3, 4000], 1, 3, 0),
            Err(Error::Band { needed: 12_000, available: DEGREE })
        ));
    }

    #[test]
    fn every_output_has_one_coefficient() {
        for packing in [
            dense(800, 500),
            dense(3, 9000),
            dense(20_000, 3),
            conv([3, 200, 200], 5, 3, 1).unwrap(),
            conv([64, 18, 18], 7, 3, 0).unwrap(),
        ] {
            let mut seen = vec![false; packing.output.iter().product()];
            for ciphertext in 0..packing.output_ciphertexts() {
                assert_eq!(packing.outputs(ciphertext).count(), packing.output_count(ciphertext));
                let mut used = vec![false; DEGREE];
                for (output, coefficient) in packing.outputs(ciphertext) {
                    assert!(!std::mem::replace(&mut seen[output], true));
                    assert!(!std::mem::replace(&mut used[coefficient], true));
                }
            }
            assert!(seen.iter().all(|&s| s));
        }
    }

    #[test]
    fn odd_shapes_are_refused_not_packed() {
        assert!(matches!(
            Packing::new(&Geometry::Dense(Dense { inputs: 0, outputs: 4 })),
            Err(Error::Model(_))
        ));
        assert!(matches!(conv([1, 4, 4], 1, 5, 0), Err(Error::Model(_))));
    }
}
