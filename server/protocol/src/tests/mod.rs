//! Tests that look into a server's state.

#[path = "../../tests/common/mod.rs"]
mod common;
mod openings;
mod views;
