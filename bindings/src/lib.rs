//! The device's client for Kotlin, Swift and Python: private neural-network inference, by way of UniFFI.
//!
//! A thin layer over `seco-sdk`, whose documentation says what each call does and guarantees. Applications use
//! the packages in `bindings/kotlin`, `bindings/swift` and `bindings/python`.
//!
//! All work is done on one thread of the library's own. Exported futures only wait for it, so that they may be
//! polled by any executor; dropping one cancels its request. Sizes are in bytes, times in the unit that the
//! name ends in.

#[cfg(feature = "array")]
mod array;
mod client;
mod error;
mod log;
mod runtime;
mod store;
mod types;

pub use client::{SecoClient, fetch_deployment_update};
pub use error::{SecoError, StoreError, TokenProblem};
pub use log::{ClientLog, LogLevel};
pub use runtime::Cancellation;
#[cfg(feature = "array")]
pub use runtime::rest;
pub use store::SessionStore;
pub use types::{
    Answer, AnswerKind, ClientConfig, Cost, InputForm, LastOperator, ModelInfo, Prediction, ProgressListener,
    RequestProgress, Transport, rgb_planes,
};

uniffi::setup_scaffolding!("seco");
