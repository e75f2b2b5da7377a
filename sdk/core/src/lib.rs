//! The device's side of SECO without I/O: messages, pads, sealed session keys.
