//! From an ONNX file to a network over the reals.

#[allow(dead_code)]
pub(crate) mod constants;
#[allow(dead_code)]
pub(crate) mod file;
#[allow(dead_code)]
pub(crate) mod node;
mod old;
#[allow(dead_code)]
pub(crate) mod places;
mod proto;
#[allow(dead_code)]
mod scan;
#[allow(dead_code)]
mod stored;
#[allow(dead_code)]
pub(crate) mod tensor;

pub(crate) use old::*;
pub(crate) use proto::*;
