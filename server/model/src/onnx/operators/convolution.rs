//! Conv and ConvTranspose.

use super::super::call::Call;
use super::super::context::{Context, Secret, Value};
use super::super::tensor::Tensor;
use super::window::{AutoPad, Sliding, auto_pad, channels_and_space, extent, sizes};
use crate::geometry::{Conv, MAX_TENSOR};
use crate::real::Linear;
use crate::{Error, Geometry};

/// A convolution over one or two spatial axes.
pub(super) fn conv(context: &mut Context, call: &Call<'_>) -> Result<Vec<Value>, Error> {
    let x = call.secret(0)?;
    let weights = call.constant(1, "weights")?.ok_or_else(|| call.node.lacks("weights"))?;
    let bias = call.constant(2, "bias")?;
    Ok(vec![convolve(context, call, x, weights, bias)?.into()])
}

/// A convolution with these weights.
pub(super) fn convolve(
    context: &mut Context,
    call: &Call<'_>,
    x: &Secret,
    weights: &Tensor,
    bias: Option<&Tensor>,
) -> Result<Secret, Error> {
    call.only(&["auto_pad", "dilations", "group", "kernel_shape", "pads", "strides"])?;
    let (inputs, space) = planar(call, &x.shape)?;
    let [channels, per_group, kernel @ ..] = weights.shape.as_slice() else {
        return Err(unfit(call, &weights.shape, space));
    };
    if kernel.len() != space.len() {
        return Err(unfit(call, &weights.shape, space));
    }
    kernel_shape(call, kernel)?;
    let groups = groups(call)?;
    if per_group.saturating_mul(groups) != inputs {
        return Err(call.error(format!(
            "its weights are for {} input channels, and its input has {inputs}: are the axes in the order channels, \
             height, width?",
            per_group.saturating_mul(groups)
        )));
    }
    let sliding = Sliding::new(call, space, kernel, false)?;
    let shape = [&[1, *channels], sliding.output.as_slice()].concat();
    let (sliding, space) = flat(sliding, space);
    let conv = Conv {
        input: [inputs, space[0], space[1]],
        channels: *channels,
        kernel: [sliding.kernel[0], sliding.kernel[1]],
        stride: [sliding.stride[0], sliding.stride[1]],
        dilation: [sliding.dilation[0], sliding.dilation[1]],
        pads: [sliding.begin[0], sliding.begin[1], sliding.end[0], sliding.end[1]],
        groups,
    };
    layer(context, call, x, conv, call.numbers(weights)?.into_owned(), bias, shape)
}

/// Adds the layer. The bias has a value for each channel.
fn layer(
    context: &mut Context,
    call: &Call<'_>,
    x: &Secret,
    conv: Conv,
    weights: Vec<f64>,
    bias: Option<&Tensor>,
    shape: Vec<usize>,
) -> Result<Secret, Error> {
    let (channels, geometry) = (conv.channels, Geometry::Conv(conv));
    context.room(&call.origin, &geometry)?;
    let positions = geometry.outputs() / channels.max(1);
    let bias = match bias {
        None => vec![0.0; geometry.outputs()],
        Some(bias) if bias.len() == channels => {
            call.numbers(bias)?.iter().flat_map(|&b| core::iter::repeat_n(b, positions)).collect()
        }
        Some(bias) => {
            return Err(call.error(format!(
                "its bias has shape {:?}, and [{channels}] is needed, a value for each output channel: export it so",
                bias.shape
            )));
        }
    };
    let id = context.linear(&call.origin, Linear { input: x.id, geometry, weights, bias })?;
    Ok(Secret::new(id, shape))
}

fn unfit(call: &Call<'_>, weights: &[usize], space: &[usize]) -> Error {
    call.error(format!(
        "its weights have shape {weights:?}, which is not one for the input's {} spatial axes: change the layer or its \
         input",
        space.len()
    ))
}

/// Refuses a kernel_shape that is not the weights'.
fn kernel_shape(call: &Call<'_>, kernel: &[usize]) -> Result<(), Error> {
    let given = sizes(call, "kernel_shape", kernel.len(), 1, 1)?;
    match call.node.ints("kernel_shape")? {
        Some(_) if given != kernel => Err(call.error(format!(
            "kernel_shape = {given:?} is not its weights', which have kernels of {kernel:?}: the file is damaged, so \
             export it again"
        ))),
        _ => Ok(()),
    }
}

fn groups(call: &Call<'_>) -> Result<usize, Error> {
    let groups = call.node.int("group")?.unwrap_or(1);
    usize::try_from(groups)
        .ok()
        .filter(|groups| (1..MAX_TENSOR).contains(groups))
        .ok_or_else(|| call.node.damaged(format!("group = {groups}")))
}

/// Channels and one or two spatial axes.
fn planar<'s>(call: &Call<'_>, shape: &'s [usize]) -> Result<(usize, &'s [usize]), Error> {
    let (channels, space) = channels_and_space(call, shape)?;
    match space.len() {
        1 | 2 => Ok((channels, space)),
        axes => Err(call.error(format!(
            "it has {axes} spatial axes, and one and two are supported: use a two-dimensional convolution"
        ))),
    }
}

/// Two spatial axes, the first being 1 where there is one.
fn flat(sliding: Sliding, space: &[usize]) -> (Sliding, [usize; 2]) {
    match *space {
        [height, width] => (sliding, [height, width]),
        _ => (sliding.lifted(), [1, space.iter().product()]),
    }
}

/// The transpose of a convolution, which is a convolution with a turned kernel over the input with zeros between its values.
pub(super) fn transposed(context: &mut Context, call: &Call<'_>) -> Result<Vec<Value>, Error> {
    call.only(&[
        "auto_pad",
        "dilations",
        "group",
        "kernel_shape",
        "output_padding",
        "output_shape",
        "pads",
        "strides",
    ])?;
    let x = call.secret(0)?;
    let weights = call.constant(1, "weights")?.ok_or_else(|| call.node.lacks("weights"))?;
    let bias = call.constant(2, "bias")?;
    let (inputs, space) = planar(call, &x.shape)?;
    let [w_inputs, per_group, kernel @ ..] = weights.shape.as_slice() else {
        return Err(unfit(call, &weights.shape, space));
    };
    let groups = groups(call)?;
    if kernel.len() != space.len() || *w_inputs != inputs || !inputs.is_multiple_of(groups) {
        return Err(unfit(call, &weights.shape, space));
    }
    kernel_shape(call, kernel)?;
    let axes = along(call, space, kernel)?;
    let channels = per_group.saturating_mul(groups);
    let shape: Vec<usize> = [1, channels].into_iter().chain(axes.iter().map(|axis| axis.output)).collect();
    let [rows, columns] = match axes.as_slice() {
        [rows, columns] => [*rows, *columns],
        [columns] => [Axis::ONE, *columns],
        _ => return Err(unfit(call, &weights.shape, space)),
    };
    // Which place of the input is at a place of the convolution's input.
    let stuffed = [inputs, rows.stuffed(), columns.stuffed()];
    let len = context.fits(&call.origin, &stuffed)?;
    let places = (0..inputs).flat_map(|channel| {
        (0..stuffed[1]).flat_map(move |y| {
            (0..stuffed[2]).map(move |x| {
                let (y, x) = (rows.source(y)?, columns.source(x)?);
                Some((channel * rows.input + y) * columns.input + x)
            })
        })
    });
    let id = context.gather(&call.origin, x.id, len, places)?;
    let conv = Conv {
        input: stuffed,
        channels,
        kernel: [rows.kernel, columns.kernel],
        stride: [1; 2],
        dilation: [rows.dilation, columns.dilation],
        pads: [rows.pads().0, columns.pads().0, rows.pads().1, columns.pads().1],
        groups,
    };
    let id = Secret::new(id, shape.clone());
    let turned = turned(&call.numbers(weights)?, [inputs, *per_group, rows.kernel * columns.kernel], groups);
    Ok(vec![layer(context, call, &id, conv, turned, bias, shape)?.into()])
}

/// A transposed convolution along one axis.
#[derive(Clone, Copy)]
struct Axis {
    input: usize,
    kernel: usize,
    stride: usize,
    dilation: usize,
    /// Places cut off in front of the full result; zeros more than it has if negative.
    begin: i64,
    output: usize,
}

impl Axis {
    const ONE: Axis = Axis { input: 1, kernel: 1, stride: 1, dilation: 1, begin: 0, output: 1 };

    /// Place of the convolution's padded input where the first value is; negative if it is cut off.
    fn front(&self) -> i64 {
        extent(self.kernel, self.dilation) as i64 - 1 - self.begin
    }

    /// Length of the convolution's padded input.
    fn padded(&self) -> usize {
        self.output + extent(self.kernel, self.dilation) - 1
    }

    /// Values in the convolution's input: zeros between the values, none in front and behind.
    fn stuffed(&self) -> usize {
        let (front, back) = self.pads();
        self.padded() - front - back
    }

    /// Padding of the convolution.
    fn pads(&self) -> (usize, usize) {
        let front = (self.front().max(0) as usize).min(self.padded() - 1);
        let end = (self.front() + ((self.input - 1) * self.stride) as i64 + 1).max(front as i64 + 1) as usize;
        (front, self.padded().saturating_sub(end))
    }

    /// The input's place at a place of the convolution's input.
    fn source(&self, place: usize) -> Option<usize> {
        let place = usize::try_from((place + self.pads().0) as i64 - self.front()).ok()?;
        place.is_multiple_of(self.stride).then_some(place / self.stride).filter(|&p| p < self.input)
    }
}

/// What is cut off in front of every axis, then behind. Negative numbers add zeros, as Keras writes what it calls output
/// padding.
fn cut_off(call: &Call<'_>, axes: usize) -> Result<Vec<i64>, Error> {
    let Some(given) = call.node.ints("pads")? else { return Ok(vec![0; 2 * axes]) };
    let possible = |pad: &i64| pad.unsigned_abs() < MAX_TENSOR as u64;
    match given.len() == 2 * axes && given.iter().all(possible) {
        true => Ok(given.to_vec()),
        false => {
            let shown = given.iter().take(8).collect::<Vec<_>>();
            Err(call.node.damaged(format!("pads = {shown:?} for {axes} spatial axes")))
        }
    }
}

/// Every spatial axis as the attributes say.
fn along(call: &Call<'_>, space: &[usize], kernel: &[usize]) -> Result<Vec<Axis>, Error> {
    let count = space.len();
    let said = sizes(call, "kernel_shape", count, 1, 1)?;
    if call.node.has("kernel_shape") && said != kernel {
        return Err(call
            .node
            .damaged(format!("its kernel_shape is {said:?}, and its weights are {kernel:?}")));
    }
    let strides = sizes(call, "strides", count, 1, 1)?;
    let dilations = sizes(call, "dilations", count, 1, 1)?;
    let pads = cut_off(call, count)?;
    let more = sizes(call, "output_padding", count, 0, 0)?;
    let given = match call.node.ints("output_shape")? {
        // Some exporters write batch and channels too.
        Some(given) if given.len() == count + 2 => {
            let size = |&v: &i64| usize::try_from(v).ok().filter(|v| (1..MAX_TENSOR).contains(v));
            given.iter().skip(2).map(size).collect::<Option<Vec<_>>>()
        }
        Some(_) => Some(sizes(call, "output_shape", count, 1, 1)?),
        None => None,
    };
    let auto = auto_pad(call)?;
    let gaps = (0..count).any(|axis| extent(kernel[axis], dilations[axis]) + more[axis] < strides[axis]);
    if gaps && given.is_none() && matches!(auto, AutoPad::Upper | AutoPad::Lower) {
        return Err(call.error(
            "auto_pad is SAME with a kernel smaller than its steps, for which runtimes give different sizes: export it \
             with output_shape or the padding as numbers (pads)",
        ));
    }
    let axis =
        |axis: usize| {
            let (input, kernel) = (space[axis], kernel[axis]);
            let (stride, dilation) = (strides[axis], dilations[axis]);
            let full = stride
                .checked_mul(input.saturating_sub(1))?
                .checked_add(more[axis])?
                .checked_add(extent(kernel, dilation))?;
            let wanted = match (&given, auto) {
                (Some(given), _) => Some(given[axis]),
                (None, AutoPad::Upper | AutoPad::Lower) => Some(input.checked_mul(stride)?),
                (None, _) => None,
            };
            let (begin, output) = match wanted {
                Some(output) => {
                    let total = full.saturating_sub(output);
                    let begin = if auto == AutoPad::Upper { total / 2 } else { total - total / 2 };
                    (begin as i64, output)
                }
                None => {
                    let (begin, end) = (pads[axis], pads[count + axis]);
                    let (begin, end) = if auto == AutoPad::Valid { (0, 0) } else { (begin, end) };
                    (begin, usize::try_from(i64::try_from(full).ok()? - begin - end).ok()?)
                }
            };
            (kernel > 0 && input > 0 && output > 0 && full < MAX_TENSOR && output < MAX_TENSOR)
                .then_some(Axis { input, kernel, stride, dilation, begin, output })
        };
    (0..count).map(axis).collect::<Option<_>>().ok_or_else(|| {
        call.error("its kernel, stride and padding leave nothing or far too much: change the layer's shape")
    })
}

/// Weights `I O/groups k` of a transposed convolution as those of a convolution, `O I/groups k`, each kernel from its end.
fn turned(weights: &[f64], [inputs, outputs, kernel]: [usize; 3], groups: usize) -> Vec<f64> {
    let per_group = inputs / groups;
    let mut turned = Vec::with_capacity(weights.len());
    for group in 0..groups {
        for output in 0..outputs {
            for input in group * per_group..(group + 1) * per_group {
                let start = (input * outputs + output) * kernel;
                turned.extend(weights.iter().skip(start).take(kernel).rev());
            }
        }
    }
    turned
}
