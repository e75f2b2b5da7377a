//! Who asks: sessions of devices, the keys that open them, their tokens, and where they come from.

pub(crate) mod bucket;
pub(crate) mod opening;
pub(crate) mod sessions;
pub(crate) mod source;
pub mod tokens;
