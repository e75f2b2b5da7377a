//! One running server of a SECO cluster: the gateway that devices talk to, or a remote.
//!
//! Sockets, files, clocks and threads are here; the protocol itself is `seco-protocol`, which runs
//! over [`mesh`] on threads that may block.

pub mod access;
pub mod cluster;
pub mod config;
mod device;
mod error;
pub mod failure;
pub mod fingerprint;
pub mod keys;
pub mod memory;
pub mod mesh;
mod node;
pub mod operation;
pub mod priority;
pub mod private;
pub mod reset;
pub mod serve;
pub mod service;
pub mod store;
#[doc(hidden)]
pub mod untrusted;
pub mod versions;

pub use config::Config;
pub use error::Error;
