//! What a server tells those who run it.

pub mod events;
