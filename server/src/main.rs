//! The `seco` binary.
fn main() {}
