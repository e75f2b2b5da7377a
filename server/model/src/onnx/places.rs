//! Operators that only move values about (Reshape, Transpose, Slice, ...): which place of the input goes to which of the
//! output. They serve constants and the values of the network alike.

use super::proto::NodeProto;
use super::tensor::Tensor;
use crate::Error;

/// The place of a value that comes from nowhere: the padding of a Pad.
pub(crate) const OUTSIDE: usize = usize::MAX;

/// An output of such an operator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Moved {
    /// Shape of the output.
    pub shape: Vec<usize>,
    /// For every value of the output its place in the input, or [`OUTSIDE`]; nothing if all stay where they are.
    pub places: Option<Vec<usize>>,
}

/// What an operator that only moves values makes of a first input with this shape: one entry for each output, in order.
/// `inputs` are all of the node's inputs, constants where they are known; the first is not looked at. Nothing for other
/// operators. Shapes include the batch axis. A Pad's fill value is the caller's business.
pub(crate) fn moved(
    node: &NodeProto,
    shape: &[usize],
    inputs: &[Option<&Tensor>],
    opset: i64,
) -> Result<Option<Vec<Moved>>, Error> {
    let _ = (node, shape, inputs, opset);
    Ok(None)
}
