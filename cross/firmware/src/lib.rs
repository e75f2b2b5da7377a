//! A device's sessions on a board without an operating system: `seco-core` between three things that a
//! board brings, a sensor, a link to the gateway and a random number generator.
//!
//! [`device`] is the application. It runs unchanged on the board, under emulation and on the host, where
//! `examples/servers.rs` answers it as servers would. [`board`] is the emulated one, [`stack`] measures.
#![no_std]

pub mod device;

#[cfg(target_os = "none")]
pub mod board;
#[cfg(target_os = "none")]
pub mod stack;

/// Servers of the deployment.
pub const SERVERS: usize = 3;

/// The deployment's sealing keys, as they lie in flash beside the program. `build.rs` makes them from
/// [`opening_seed`].
pub static SEALING_KEYS: &[[u8; seco_core::SEALING_KEY_LEN]; SERVERS] =
    include!(concat!(env!("OUT_DIR"), "/sealing_keys.rs"));

/// The seed of server `index`'s sealing key pair. Known to all, so for tests only.
#[must_use]
pub const fn opening_seed(index: u8) -> [u8; 32] {
    [index + 1; 32]
}
