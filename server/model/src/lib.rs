//! ONNX models as fixed-point layers: import, plaintext execution, split among servers.

mod architecture;
mod error;
pub mod geometry;

pub use architecture::{Activation, Architecture, InputSpec, Layer, MAX_LAYERS, MAX_SERVERS, Placement};
pub use error::Error;
pub use geometry::{Conv, Dense, Geometry};
