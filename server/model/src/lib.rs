//! ONNX models as fixed-point layers: import, plaintext execution, split among servers.
//!
//! [`import()`] reads an ONNX file into a [`FixedModel`]: convolutions and matrices over the integers, average
//! pooling and input normalisation folded in (`protocol.md` section 2). [`FixedModel::calibrate`] chooses the ring
//! width of every layer. [`Executor`] runs it in clear, with exactly the arithmetic that the servers perform on
//! shares. [`split()`] deals it out: one [`PartyModel`] for each server, with the weights or shares of weights that
//! this server may know and nothing else.
//!
//! What the model's owner holds ([`FixedModel`]) is the whole model in clear. What a server holds ([`PartyModel`])
//! is secret towards the other servers and is wiped when dropped.

mod architecture;
mod attributes;
mod calibration;
mod chain;
mod compose;
mod error;
mod execute;
mod fixed;
pub mod geometry;
pub mod graph;
mod import;
mod linear;
pub mod npy;
pub mod numbers;
mod onnx;
mod party;
mod quantise;
#[allow(missing_docs)]
pub mod real;
mod split;
mod supported;
mod width;

#[cfg(test)]
mod tests;
mod wide;

pub use architecture::{Architecture, InputSpec, MAX_LAYERS, MAX_SERVERS, MAX_VALUES, Placement};
pub use calibration::{AFFORDABLE_BITS, Calibration, FEW_INPUTS, SumWidth, Warning, WidthRule};
pub use error::Error;
pub use execute::{Execution, Executor};
pub use fixed::{FixedLayer, FixedModel};
pub use geometry::{Conv, Dense, Geometry};
pub use graph::{Gather, Graph, Node, Op, Term};
pub use import::{ImportOptions, import};
pub use linear::linear;
pub use party::{LayerWeights, PartyModel};
pub use quantise::{Normalisation, Scales};
pub use split::{paper_placements, split};
