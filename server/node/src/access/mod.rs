//! Who asks: sessions of devices, and the keys that open them.

pub(crate) mod opening;
pub(crate) mod sessions;
