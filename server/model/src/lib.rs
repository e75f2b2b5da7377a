//! ONNX networks in fixed point: import, plaintext execution, split among servers.
//!
//! [`read()`] makes a network over the reals ([`real`]) of an ONNX file. [`numbers`] chooses how fine its numbers are and
//! makes a [`FixedModel`] of it: a [`graph`] over the integers, and weights (section 2 of PROTOCOL.md).
//! [`FixedModel::calibrate`] chooses the width of every ring. [`Executor`] runs it in clear, with exactly the arithmetic
//! that the servers perform on shares. [`split()`] deals it out: one [`PartyModel`] for each server, with the weights or
//! shares of weights that this server may know and nothing else.
//!
//! What the model's owner holds ([`FixedModel`]) is the whole model in clear. What a server holds ([`PartyModel`])
//! is secret towards the other servers and is wiped when dropped.

mod architecture;
mod calibration;
mod error;
mod execute;
mod fixed;
pub mod geometry;
pub mod graph;
mod import;
mod linear;
mod normalisation;
pub mod npy;
pub mod numbers;
mod onnx;
mod parallel;
mod party;
mod passes;
pub mod real;
mod split;
mod width;

#[cfg(test)]
mod tests;
mod wide;

pub use architecture::{
    Architecture, InputSpec, MAX_INPUT_BITS, MAX_LAYERS, MAX_SERVERS, MAX_VALUES, MAX_WEIGHTS, Placement,
    Reals, largest,
};
pub use calibration::{AFFORDABLE_BITS, Calibration, FEW_INPUTS, SumWidth, Warning, WidthRule};
pub use error::Error;
pub use execute::{Execution, Executor, Range};
pub use fixed::{FixedLayer, FixedModel, Known};
pub use geometry::{Conv, Dense, Geometry};
pub use graph::{Gather, Graph, Node, Op, Term, Window};
pub use import::{ImportOptions, Imported, import};
pub use linear::linear;
pub use normalisation::Normalisation;
pub use onnx::{Survey, read, survey};
pub use party::{LayerWeights, PartyModel};
pub use split::{paper_placements, split};
pub use width::signed_width;
