//! An ONNX file: its frame, its constants and its nodes in order.

use std::collections::HashMap;
use std::path::Path;

use super::proto::NodeProto;
use super::tensor::{Element, Tensor};
use crate::Error;

/// A file as it is read.
pub(crate) struct Parsed {
    /// Name of the graph.
    pub name: String,
    /// Version of ONNX's operators.
    pub opset: i64,
    /// The nodes that an output depends on, each behind those it reads.
    pub nodes: Vec<NodeProto>,
    /// The initialisers that these nodes or an output read.
    pub constants: HashMap<String, Tensor>,
    /// The one input that is no constant.
    pub input: Input,
    /// Names of the outputs, at least one, and their shapes as far as the file says; each is made by a node, a constant or the
    /// input.
    pub outputs: Vec<(String, Vec<Option<usize>>)>,
}

/// The network's input.
pub(crate) struct Input {
    pub name: String,
    /// Sizes of its axes, nothing for one that is open; nothing if the file does not say.
    pub dims: Option<Vec<Option<usize>>>,
    pub element: Element,
}

impl Input {
    /// The shape with the batch axis of 1 in front, `given` being what the user says of it, with that axis or without.
    pub(crate) fn shape(&self, given: Option<&[usize]>) -> Result<Vec<usize>, Error> {
        let _ = given;
        Err(Error::Onnx(String::new()))
    }
}

/// Reads a file. `folder` is where tensors may be that are kept in files of their own.
pub(crate) fn parse(bytes: &[u8], folder: Option<&Path>) -> Result<Parsed, Error> {
    let _ = (bytes, folder);
    Err(Error::Onnx(String::new()))
}
