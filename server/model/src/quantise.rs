//! From real weights to fixed point (`protocol.md` section 2).
//!
//! An activation is `a·2^f_a`, a weight `w·2^f_w`, so an accumulator and its bias are at `2^(f_a + f_w)`. The first
//! layer takes the device's integers `x` and does the normalisation `(x/D - mean)/std` on the way: its weights are
//! `w/(D·std)·2^f_1`, its accumulator is at `2^f_1`. Rounding is to nearest, ties to even, once for each value.

use crate::compose::{IntegerConv, sum_after};
use crate::graph::Output;
use crate::import::{ImportOptions, Stage};
use crate::{Conv, Error, FixedLayer, FixedModel, Geometry, Graph, InputSpec, MAX_VALUES, Node, Op};

/// Fractional bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scales {
    /// `f_w`: of the weights of all layers but the first.
    pub weight_bits: u32,
    /// `f_a`: of every activation after a ReLU.
    pub activation_bits: u32,
    /// `f_1`: of the first layer's weights, and so of its accumulator; `f_a` to 30.
    pub first_bits: u32,
}

impl Scales {
    /// The given bits, and `f_1 = f_w + 8`: about as fine as the other layers, for inputs are divided by up to 255.
    pub fn new(weight_bits: u32, activation_bits: u32) -> Scales {
        Scales { weight_bits, activation_bits, first_bits: weight_bits.saturating_add(8) }
    }
}

impl Default for Scales {
    /// `f_w = 8`, `f_a = 8`.
    fn default() -> Self {
        Scales::new(8, 8)
    }
}

/// The network's input in terms of the device's values: `(x/scale - mean)/std`.
#[derive(Clone, Debug, PartialEq)]
pub struct Normalisation {
    /// `D`, positive: 255 makes 0 to 1 of a byte.
    pub scale: f64,
    /// For each channel (first axis of the input), one for all, or none for 0.
    pub mean: Vec<f64>,
    /// For each channel, one for all, or none for 1; positive.
    pub std: Vec<f64>,
}

impl Default for Normalisation {
    fn default() -> Self {
        Normalisation { scale: 255.0, mean: Vec::new(), std: Vec::new() }
    }
}

/// What normalisation does to one channel: `x·gain - offset`.
struct Channel {
    gain: f64,
    offset: f64,
}

impl Normalisation {
    /// One entry for each channel of the input.
    fn channels(&self, count: usize) -> Result<Vec<Channel>, Error> {
        let pick = |values: &[f64], c: usize, default: f64| match values {
            [] => Some(default),
            [all] => Some(*all),
            each if each.len() == count => each.get(c).copied(),
            _ => None,
        };
        let positive = |v: f64| v.is_finite() && v > 0.0;
        (0..count)
            .map(|c| match (pick(&self.mean, c, 0.0), pick(&self.std, c, 1.0)) {
                (Some(mean), Some(std)) if mean.is_finite() && positive(std) && positive(self.scale) => {
                    Ok(Channel { gain: 1.0 / (self.scale * std), offset: mean / std })
                }
                (None, _) | (_, None) => Err(Error::Options(format!(
                    "mean and std have {} and {} values, and need none, one, or one for each of the {count} channels",
                    self.mean.len(),
                    self.std.len()
                ))),
                _ => Err(Error::Options("scale and std must be positive numbers, and mean a finite one".to_owned())),
            })
            .collect()
    }
}

const LARGE_BIAS: &str = "a bias is too large: with its fractional bits it must fit 32; give weights fewer of them \
                          (--weight-bits)";
const LARGE_WEIGHT: &str = "a weight is too large: with its fractional bits it must fit 31; give weights fewer of \
                            them (--weight-bits)";

/// How one layer is scaled.
struct Scaling {
    /// Factor of the weights, apart from normalisation.
    weights: f64,
    /// Factor of the bias.
    bias: f64,
    /// Normalisation of the input, in the first layer.
    channels: Option<Vec<Channel>>,
}

/// Brings all stages to fixed point.
pub(crate) fn quantise(
    name: String,
    input: InputSpec,
    stages: Vec<Stage>,
    options: &ImportOptions,
) -> Result<FixedModel, Error> {
    let Scales { weight_bits, activation_bits, first_bits } = options.scales;
    if weight_bits > 24 || activation_bits > 24 || !(activation_bits..=30).contains(&first_bits) {
        return Err(Error::Options(
            "weights and activations have at most 24 fractional bits, the first layer's weights from the activations' \
             to 30: choose fewer"
                .to_owned(),
        ));
    }
    if !(1..=8).contains(&input.bits) {
        return Err(Error::Options("an input value has 1 to 8 bits".to_owned()));
    }
    let last = stages.len().saturating_sub(1);
    let mut layers = Vec::with_capacity(stages.len());
    let (mut nodes, mut outputs) = (Vec::new(), Vec::new());
    let mut values = 0usize;
    for (i, stage) in stages.into_iter().enumerate() {
        let first = i == 0;
        let channels = match first {
            true => Some(options.normalisation.channels(input.shape.first().copied().unwrap_or(1))?),
            false => None,
        };
        let (weight_scale, accumulator) =
            if first { (first_bits, first_bits) } else { (weight_bits, weight_bits + activation_bits) };
        // A power of two is exact as further bits of the next shift; any other window goes into the weights.
        let (mut pool_bits, mut divisor) = (0, 1.0);
        for (_, pool) in &stage.pools {
            match pool.window() {
                window if window.is_power_of_two() => pool_bits += window.ilog2(),
                window => divisor *= window as f64,
            }
        }
        let scaling = Scaling {
            weights: 2f64.powi(weight_scale as i32) / divisor,
            bias: 2f64.powi(accumulator as i32) / divisor,
            channels,
        };
        let fraction = accumulator + pool_bits;
        let shift = fraction - activation_bits;
        if i != last && shift > 30 {
            return Err(stage.origin.error(
                "the pooling window behind it is too large for so many fractional bits: choose fewer, or smaller windows",
            ));
        }
        let (name, geometry, layer) = quantise_stage(stage, &scaling)?;
        let shape = vec![geometry.outputs()];
        let op = Op::Secret { input: nodes.len(), geometry };
        nodes.push(Node { name: name.clone(), width: 32, op });
        if i == last {
            let scale = 2f64.powi(-(fraction as i32));
            outputs.push(Output { name, shape, scale, last: Default::default() });
        } else {
            let op = Op::Relu { input: nodes.len(), shift };
            nodes.push(Node { name, width: 32, op });
        }
        values = values.saturating_add(layer.weights.len()).saturating_add(layer.bias.len());
        if values > MAX_VALUES {
            return Err(Error::Shape(format!(
                "more than {MAX_VALUES} weights and biases: use a smaller network"
            )));
        }
        layers.push(layer);
    }
    let model = FixedModel { graph: Graph { name, input, nodes, outputs }, layers };
    model.check()?;
    Ok(model)
}

fn quantise_stage(stage: Stage, scaling: &Scaling) -> Result<(String, Geometry, FixedLayer), Error> {
    let Stage { origin, linear, pools } = stage;
    let bias = bias_tensor(&linear.geometry, &linear.weights, &linear.bias, scaling);
    let bias = bias.ok_or_else(|| origin.error(LARGE_BIAS))?;
    let too_large = || origin.error(LARGE_WEIGHT);
    // In the first layer every weight is multiplied by the gain of the channel that it reads.
    let run = channel_run(&linear.geometry, scaling.channels.as_deref());
    let mut weights = Vec::with_capacity(linear.weights.len());
    for row in linear.weights.chunks_exact(linear.geometry.fan_in()) {
        for (j, w) in row.iter().enumerate() {
            let gain = scaling.channels.as_ref().and_then(|c| c.get(j / run)).map_or(1.0, |c| c.gain);
            weights.push(round(w * gain * scaling.weights, 31).ok_or_else(too_large)?);
        }
    }
    let (geometry, weights, bias) = match linear.geometry {
        Geometry::Conv(conv) => {
            let mut layer = IntegerConv { conv, weights, bias };
            for (origin, pool) in &pools {
                layer = sum_after(&layer, pool).map_err(|e| origin.error(e))?;
                if layer.weights.iter().any(|w| w.unsigned_abs() >= 1 << 31) {
                    return Err(too_large());
                }
                if layer.bias.iter().any(|b| b.unsigned_abs() >= 1 << 32) {
                    return Err(origin.error(LARGE_BIAS));
                }
            }
            (Geometry::Conv(layer.conv), layer.weights, layer.bias)
        }
        dense => (dense, weights, bias),
    };
    let weights: Vec<i32> =
        weights.into_iter().map(i32::try_from).collect::<Result<_, _>>().map_err(|_| too_large())?;
    Ok((origin.name, geometry, FixedLayer { weights, bias }))
}

/// How many consecutive weights of a row read the same channel.
fn channel_run(geometry: &Geometry, channels: Option<&[Channel]>) -> usize {
    let count = channels.map_or(1, <[Channel]>::len).max(1);
    (geometry.fan_in() / count).max(1)
}

/// Nearest integer, ties to even, if its magnitude is below `2^bits`.
fn round(value: f64, bits: i32) -> Option<i64> {
    let rounded = value.round_ties_even();
    (rounded.abs() < 2f64.powi(bits)).then_some(rounded as i64)
}

/// The bias of every output value. In the first layer the means go in: `bias - Σ w·mean/std` over the weights that
/// read a pixel and not the padding, which is zero *after* normalisation.
fn bias_tensor(geometry: &Geometry, weights: &[f64], bias: &[f64], scaling: &Scaling) -> Option<Vec<i64>> {
    let rounded = |value: f64| round(value * scaling.bias, 32);
    let offsets = scaling.channels.as_deref().filter(|c| c.iter().any(|c| c.offset != 0.0));
    let positions = geometry.outputs() / bias.len().max(1);
    let Some(offsets) = offsets else {
        let mut tensor = Vec::with_capacity(geometry.outputs());
        for &b in bias {
            tensor.extend(core::iter::repeat_n(rounded(b)?, positions));
        }
        return Some(tensor);
    };
    let run = channel_run(geometry, Some(offsets));
    let rows = weights.chunks_exact(geometry.fan_in()).zip(bias);
    match geometry {
        Geometry::Dense(_) => rows
            .map(|(row, b)| {
                let mean = row.chunks(run).zip(offsets).map(|(w, c)| w.iter().sum::<f64>() * c.offset);
                rounded(b - mean.sum::<f64>())
            })
            .collect(),
        Geometry::Conv(conv) => {
            let mut tensor = Vec::with_capacity(geometry.outputs());
            for (row, b) in rows {
                // What the means contribute at each place of the kernel, all channels together.
                let mut plane = vec![0.0; run];
                for (kernel, channel) in row.chunks_exact(run).zip(offsets) {
                    plane.iter_mut().zip(kernel).for_each(|(p, w)| *p += w * channel.offset);
                }
                let [_, height, width] = conv.output();
                for y in 0..height {
                    for x in 0..width {
                        tensor.push(rounded(b - covered(conv, &plane, y, x))?);
                    }
                }
            }
            Some(tensor)
        }
    }
}

/// Sum of `plane`, one value for each place of the kernel, over the places that lie on the input when the kernel is
/// at output `(y, x)`.
fn covered(conv: &Conv, plane: &[f64], y: usize, x: usize) -> f64 {
    let range = |axis: usize, at: usize| {
        let start = at * conv.stride[axis];
        let first = conv.pads[axis].saturating_sub(start);
        let end = (conv.pads[axis] + conv.input[axis + 1]).saturating_sub(start).min(conv.kernel[axis]);
        (first, end.saturating_sub(first))
    };
    let ((top, rows), (left, columns)) = (range(0, y), range(1, x));
    let rows = plane.chunks_exact(conv.kernel[1]).skip(top).take(rows);
    rows.flat_map(|row| row.iter().skip(left).take(columns)).sum()
}
