//! Whole clusters on one machine, for people who want to see or measure one: the demo, benches, a slow network.

pub mod bench;
pub mod demo;
pub mod onnx;
mod progress;
mod relay;

// Demos and benches are made of tools, and fail as they do.
pub use seco_tools::Error;
