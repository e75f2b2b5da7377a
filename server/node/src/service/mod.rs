//! One model on one server: its part, bundles that are ready, and requests that wait for them.

mod pace;
pub mod part;
pub(crate) mod pool;
mod queue;
