//! Who asks: sessions of devices, the keys that open them, and where they come from.

pub(crate) mod opening;
pub(crate) mod sessions;
pub(crate) mod source;
