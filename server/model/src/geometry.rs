//! Shapes of linear layers, public to every server.
//!
//! Two kinds cover every affine map with weights of the supported networks: a convolution and a dense matrix. Sums over
//! windows have no weights and are public ([`crate::Gather`]).

use serde::{Deserialize, Serialize};

use crate::Error;

/// Largest number of values in any tensor of a model; bounds memory before anything is allocated.
pub const MAX_TENSOR: usize = 1 << 26;
/// Largest number of weights of one layer: a matrix of VGG-16 and VGG-19 has 103 million.
pub const MAX_LAYER_WEIGHTS: usize = 1 << 27;

/// A two-dimensional convolution, batch size 1, from which every affine map of a network is made but matrices. Weights
/// are `O I H W`, row-major, `I` the input channels of one group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Conv {
    /// Input shape: channels, height, width.
    pub input: [usize; 3],
    /// Output channels.
    pub channels: usize,
    /// Kernel height and width.
    pub kernel: [usize; 2],
    /// Vertical and horizontal stride.
    pub stride: [usize; 2],
    /// Distance of the kernel's places, vertical and horizontal.
    pub dilation: [usize; 2],
    /// Zero padding: top, left, bottom, right.
    pub pads: [usize; 4],
    /// Groups of channels: output channel `o` reads the input channels of group `o / (channels / groups)` only.
    pub groups: usize,
}

impl Conv {
    /// Height and width of the input with its padding.
    pub fn padded(&self) -> [usize; 2] {
        [self.input[1] + self.pads[0] + self.pads[2], self.input[2] + self.pads[1] + self.pads[3]]
    }

    /// Height and width that a kernel covers.
    pub fn extent(&self) -> [usize; 2] {
        let of = |axis: usize| (self.kernel[axis].max(1) - 1).saturating_mul(self.dilation[axis]) + 1;
        [of(0), of(1)]
    }

    /// Output shape: channels, height, width.
    pub fn output(&self) -> [usize; 3] {
        let ([h, w], [high, wide]) = (self.padded(), self.extent());
        [
            self.channels,
            (h.saturating_sub(high)) / self.stride[0].max(1) + 1,
            (w.saturating_sub(wide)) / self.stride[1].max(1) + 1,
        ]
    }

    /// Input channels of one group.
    pub fn group_inputs(&self) -> usize {
        self.input[0] / self.groups.max(1)
    }

    /// Output channels of one group.
    pub fn group_outputs(&self) -> usize {
        self.channels / self.groups.max(1)
    }
}

/// A matrix-vector product. Weights are `outputs x inputs`, row-major.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dense {
    /// Columns of the matrix.
    pub inputs: usize,
    /// Rows of the matrix.
    pub outputs: usize,
}

/// The shape of a linear layer. Tensors are flat, row-major (`C H W` for convolutions).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Geometry {
    /// Convolution.
    Conv(Conv),
    /// Fully connected.
    Dense(Dense),
}

impl Geometry {
    /// Number of input values.
    pub fn inputs(&self) -> usize {
        match self {
            Geometry::Conv(c) => c.input.iter().product(),
            Geometry::Dense(d) => d.inputs,
        }
    }

    /// Number of output values; also the length of the bias tensor.
    pub fn outputs(&self) -> usize {
        match self {
            Geometry::Conv(c) => c.output().iter().product(),
            Geometry::Dense(d) => d.outputs,
        }
    }

    /// Number of weights.
    pub fn weights(&self) -> usize {
        match self {
            Geometry::Conv(c) => c.channels * c.group_inputs() * c.kernel[0] * c.kernel[1],
            Geometry::Dense(d) => d.inputs * d.outputs,
        }
    }

    /// Number of products that are summed for one output value, padding included.
    pub fn fan_in(&self) -> usize {
        match self {
            Geometry::Conv(c) => c.group_inputs() * c.kernel[0] * c.kernel[1],
            Geometry::Dense(d) => d.inputs,
        }
    }

    /// Number of products of a weight and a value, padding included; as many as there are words if there are more.
    pub fn products(&self) -> usize {
        self.outputs().saturating_mul(self.fan_in())
    }

    /// Checks that the shape is usable: nothing is zero, the kernel fits, no value is larger than [`MAX_TENSOR`] and
    /// there are no more than [`MAX_LAYER_WEIGHTS`]. Call it on everything that comes from a file or a peer.
    pub fn check(&self) -> Result<(), Error> {
        let up_to = |most: usize, dims: &[usize]| {
            dims.iter().try_fold(1usize, |a, &d| a.checked_mul(d)).filter(|&p| p > 0 && p <= most)
        };
        let product = |dims: &[usize]| up_to(MAX_TENSOR, dims);
        let bad = |what: &str| Err(Error::Shape(what.to_owned()));
        match self {
            Geometry::Conv(c) => {
                let shapes = [&c.input[..], &c.kernel, &c.stride, &c.dilation, &[c.channels], &[c.groups]];
                if shapes.iter().any(|shape| product(shape).is_none()) {
                    return bad("convolution with an empty or too large shape");
                }
                if !c.input[0].is_multiple_of(c.groups) || !c.channels.is_multiple_of(c.groups) {
                    return bad("convolution whose groups do not divide its channels");
                }
                if c.pads.iter().any(|&p| p >= MAX_TENSOR)
                    || product(&[c.input[0], c.padded()[0], c.padded()[1]]).is_none()
                {
                    return bad("convolution with too large a padding");
                }
                if c.extent()[0] > c.padded()[0] || c.extent()[1] > c.padded()[1] {
                    return bad("convolution kernel larger than its padded input");
                }
                let weights = [c.channels, c.group_inputs(), c.kernel[0], c.kernel[1]];
                if up_to(MAX_LAYER_WEIGHTS, &weights).is_none() || product(&c.output()).is_none() {
                    return bad("convolution with too many weights or outputs");
                }
            }
            Geometry::Dense(d) => {
                let sides = [product(&[d.inputs]), product(&[d.outputs])];
                if sides.contains(&None) || up_to(MAX_LAYER_WEIGHTS, &[d.inputs, d.outputs]).is_none() {
                    return bad("matrix with an empty or too large shape");
                }
            }
        }
        Ok(())
    }
}
