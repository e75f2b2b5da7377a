//! The servers of a SECO cluster: the gateway that devices talk to, the remotes, and what an
//! operator needs to set them up. The `seco` binary is a thin command line over this library.
//!
//! Sockets, files, clocks and threads are here; the protocol itself is `seco-protocol`, which runs
//! over [`mesh`] on threads that may block.

pub mod bench;
pub mod check;
mod cluster;
mod commands;
pub mod config;
pub mod demo;
mod error;
pub mod events;
mod gateway;
pub mod infer;
pub mod init;
mod interrupt;
pub mod jobs;
pub mod keys;
mod ledger;
pub mod memory;
pub mod mesh;
mod node;
mod opening;
mod placement;
mod pool;
mod private;
mod relay;
mod remote;
pub mod serve;
mod sessions;
pub mod split;
mod spool;
mod terminal;

pub use config::Config;
pub use error::Error;
