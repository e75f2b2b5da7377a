//! Windows that slide over the spatial axes: what convolutions and pooling have in common.

use super::super::context::Call;
use crate::Error;
use crate::geometry::MAX_TENSOR;

/// Windows along every spatial axis.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Sliding {
    pub kernel: Vec<usize>,
    pub stride: Vec<usize>,
    pub dilation: Vec<usize>,
    /// Padding in front and behind.
    pub begin: Vec<usize>,
    pub end: Vec<usize>,
    /// Number of windows.
    pub output: Vec<usize>,
}

/// What `auto_pad` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AutoPad {
    Explicit,
    Upper,
    Lower,
    Valid,
}

pub(super) fn auto_pad(call: &Call<'_>) -> Result<AutoPad, Error> {
    match call.node.string("auto_pad")?.unwrap_or(b"NOTSET") {
        b"" | b"NOTSET" => Ok(AutoPad::Explicit),
        b"SAME_UPPER" => Ok(AutoPad::Upper),
        b"SAME_LOWER" => Ok(AutoPad::Lower),
        b"VALID" => Ok(AutoPad::Valid),
        other => Err(call.error(format!(
            "auto_pad = {} is unknown: export it with the padding as numbers (pads)",
            super::super::proto::printable(&String::from_utf8_lossy(other))
        ))),
    }
}

/// `count` numbers of at least `least`, or all `default`.
pub(super) fn sizes(
    call: &Call<'_>,
    name: &str,
    count: usize,
    least: usize,
    default: usize,
) -> Result<Vec<usize>, Error> {
    let Some(given) = call.node.ints(name)? else { return Ok(vec![default; count]) };
    let shown = given.iter().take(8).collect::<Vec<_>>();
    if given.len() != count {
        return Err(call.error(format!(
            "{name} = {shown:?} must have {count} numbers for its input: the file is damaged, so export it again"
        )));
    }
    let size = |&v: &i64| usize::try_from(v).ok().filter(|v| (least..MAX_TENSOR).contains(v));
    given.iter().map(size).collect::<Option<Vec<_>>>().ok_or_else(|| {
        call.error(format!("{name} = {shown:?} is not possible here: each number must be at least {least}"))
    })
}

/// Rows that a dilated kernel covers.
pub(super) fn extent(kernel: usize, dilation: usize) -> usize {
    kernel.saturating_sub(1).saturating_mul(dilation).saturating_add(1)
}

/// The channels and the spatial axes of a node's input, whose batch must be 1.
pub(super) fn channels_and_space<'s>(
    call: &Call<'_>,
    shape: &'s [usize],
) -> Result<(usize, &'s [usize]), Error> {
    match shape {
        [1, channels, space @ ..] if !space.is_empty() => Ok((*channels, space)),
        [batch, _, _, ..] => Err(call.error(format!(
            "its input has {batch} samples (shape {shape:?}), and one is possible: export with a batch size of 1"
        ))),
        _ => Err(call.error(format!(
            "its input has shape {shape:?}, and batch, channels and at least one more axis are needed: reshape it"
        ))),
    }
}

impl Sliding {
    /// Windows of a kernel over spatial axes, as the node's attributes say.
    pub(super) fn new(
        call: &Call<'_>,
        space: &[usize],
        kernel: &[usize],
        ceil: bool,
    ) -> Result<Sliding, Error> {
        let axes = space.len();
        let stride = sizes(call, "strides", axes, 1, 1)?;
        let dilation = sizes(call, "dilations", axes, 1, 1)?;
        let pads = sizes(call, "pads", 2 * axes, 0, 0)?;
        let auto = auto_pad(call)?;
        let mut made =
            Sliding { kernel: kernel.to_vec(), stride, dilation, begin: vec![], end: vec![], output: vec![] };
        for (axis, &size) in space.iter().enumerate() {
            let (stride, extent) = (made.stride[axis], extent(made.kernel[axis], made.dilation[axis]));
            let same =
                (size.div_ceil(stride).saturating_sub(1)).saturating_mul(stride).saturating_add(extent);
            let same = same.saturating_sub(size);
            let (begin, end) = match auto {
                AutoPad::Explicit => (pads[axis], pads[axes + axis]),
                AutoPad::Upper => (same / 2, same - same / 2),
                AutoPad::Lower => (same - same / 2, same / 2),
                AutoPad::Valid => (0, 0),
            };
            let padded = size.saturating_add(begin).saturating_add(end);
            let Some(room) = padded.checked_sub(extent).filter(|_| padded < MAX_TENSOR) else {
                return Err(call.error(format!(
                    "its window covers {extent} places, and its input with its padding has {padded}: use a smaller \
                     window or a larger input"
                )));
            };
            let mut output = room / stride + 1;
            // A window that would begin behind the input is left out.
            if ceil && !room.is_multiple_of(stride) && output * stride < size + begin {
                output += 1;
            }
            made.begin.push(begin);
            made.end.push(end);
            made.output.push(output);
        }
        Ok(made)
    }

    /// The same with a spatial axis of 1 in front.
    pub(super) fn lifted(mut self) -> Sliding {
        for (sizes, one) in [
            (&mut self.kernel, 1),
            (&mut self.stride, 1),
            (&mut self.dilation, 1),
            (&mut self.begin, 0),
            (&mut self.end, 0),
            (&mut self.output, 1),
        ] {
            sizes.insert(0, one);
        }
        self
    }
}
