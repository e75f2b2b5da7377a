//! The client against gateways that answer by script, well or badly. One program, for each takes long to build.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "helpers of tests are tests")]

#[path = "../common/cases.rs"]
mod cases;
#[macro_use]
#[path = "../common/mod.rs"]
mod common;

mod answers;
mod deployment;
mod hostile;
mod hostile_tcp;
mod log;
mod requests;
mod resume;
mod settings;
mod table;
mod transport;
