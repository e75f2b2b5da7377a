//! Commands as their users run them: the real binary, real files, real servers. One program, for each takes long to build.
#![cfg(unix)]
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests are tests")]

#[path = "../../../sdk/tests/common/cases.rs"]
mod cases;
#[path = "../common/mod.rs"]
mod common;
#[path = "../common/files.rs"]
mod files;

mod check;
mod demo;
mod infer;
mod init;
mod inputs;
#[cfg(target_os = "linux")]
mod slow_server;
mod split;
mod table;
