//! Oblivious transfer: base OT over Ristretto, correlated OT extension, AES kernels.
//!
//! Section 5 of the protocol rests on three primitives, all of them here and all of them sans-IO:
//!
//! - [`FixedKey`]: the public AES-128 permutation `π` and the hash `H(x, t) = π(π(x) ^ t) ^ π(x)` built on it
//!   (Guo, Katz, Wang, Yu 2020, eprint 2019/074), and [`Prg`], AES-128 in counter mode under a secret seed;
//! - [`BaseSender`] and [`base_receive`]: Chou-Orlandi OT over Ristretto255 (eprint 2015/267), once per pair
//!   of servers;
//! - [`CotSender`] and [`CotReceiver`]: SoftSpokenOT (Roy 2022, eprint 2022/192), which stretches 128 base
//!   OTs into as many correlated OTs as wanted, whose ends are [`Keys`] and [`Macs`]; [`ReceiverSeeds`] and [`SenderSeeds`] give one such pair after
//!   the other from the same base OTs, and forget what they gave.
//!
//! Everything is secure against passive (semi-honest) adversaries only. Malformed messages are refused with
//! an [`Error`], but a peer that sends well-formed lies is outside the model.

#[cfg(target_endian = "big")]
compile_error!("blocks and packed bits are viewed as bytes in place, which needs a little-endian target");

mod aes;
mod base;
mod bits;
mod block;
mod ends;
mod error;
mod extension;
mod mask;
mod matrix;
#[cfg(target_arch = "x86_64")]
mod matrix_x86;
mod tree;

pub use aes::{Chunk, Engine, FixedKey, Kernel, LANES, Prg};
pub use base::{BaseSender, base_receive};
pub use bits::Bits;
pub use block::{Block, Delta};
pub use ends::{Ends, Keys, Macs, Receiver, Sender};
pub use error::{Error, Result};
pub use extension::{
    CotReceiver, CotSender, PARAMETERS, ReceiverSeeds, Replay, Replaying, SenderSeeds, WINDOW, message_len,
    setup_len,
};
pub use mask::Mask;

/// Lower-case hex, for frozen answers.
#[cfg(test)]
fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}
