//! What an operator does with a model and a cluster besides running a server: keys and settings, checking and
//! splitting a network, the device's file, and asking as a device does.

pub mod admin;
pub mod check;
pub mod doctor;
mod error;
pub mod infer;
pub mod init;
pub mod interrupt;
#[doc(hidden)]
pub mod placement;
pub mod process;
pub mod samples;
pub mod split;
pub mod terminal;
pub mod token;

pub use error::Error;
