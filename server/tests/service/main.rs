//! Servers as operators and devices have them: real processes of the real binary. One program, for each takes long to build.
#![cfg(unix)]
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests are tests")]

#[path = "../common/mod.rs"]
mod common;

mod leases;
mod models;
mod operation;
mod rotation;
mod serve;
mod sessions;
mod several;
mod spans;
mod store;
mod tcp;
mod tokens;
mod updates;
mod upgrades;
#[cfg(target_os = "linux")]
mod walk;
