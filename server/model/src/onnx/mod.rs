//! From an ONNX file to a network over the reals.
//!
//! [`read()`] parses the file (`proto`, `file`), computes what is constant (`constants`), and makes steps of the network
//! of everything that depends on its input (`operators`).

pub(crate) mod call;
pub(crate) mod constants;
pub(crate) mod context;
pub(crate) mod file;
mod functions;
mod input;
pub(crate) mod node;
mod operators;
mod picks;
pub(crate) mod places;
mod proto;
mod read;
mod scan;
mod small;
mod stored;
pub(crate) mod tensor;

pub(crate) use proto::*;
#[cfg(test)]
pub(crate) use read::walk;
pub use read::{Survey, read, survey};
