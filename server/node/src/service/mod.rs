//! One model on one server: its part, and bundles that are ready.

pub mod part;
pub(crate) mod pool;
