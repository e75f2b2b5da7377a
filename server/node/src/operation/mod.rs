//! What a server tells those who run it, and what they can tell it.

pub mod admin;
pub(crate) mod drain;
pub mod events;
pub mod log;
pub mod metrics;
pub mod otlp;
pub mod status;
