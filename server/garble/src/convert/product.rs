//! Product of a number and a bit.
//!
//! Server `i` holds a number `a`, server `j` is the receiver of a correlated OT with choice bit `b` towards `i` (key
//! `K`, `M = K ^ bΔ_i`). With `h_0 = H(K, τ)`, `h_1 = H(K ^ Δ_i, τ)` and `h_b = H(M, τ)`, cut to `w` bits, `i` sends
//! `d = a + h_0 - h_1` and keeps `-h_0`; `j` keeps `h_b + b·d`. The sum is `a·b` mod `2^w`: for `b = 0`, `-h_0 + h_0`;
//! for `b = 1`, `-h_0 + h_1 + a + h_0 - h_1`.
//!
//! *Why it is safe.* `j` lacks `h_{1-b}`, which is uniform to it without `Δ_i` and masks `d`. `i` receives nothing.
//! Each pair of pads serves one product.

use super::Share;
use super::choose::add_where;
use super::pads::{ReceiverPad, SenderPad};
use crate::slices::{pack, unpack};

/// The sender's side: appends `d = a + h_0 - h_1`, `width` bits a lane, to its message, and adds `factor` times its
/// share `-h_0` of the product to `share`. `pads` are its `(h_0, h_1)`.
pub fn send(a: &Share, pads: SenderPad, width: u32, message: &mut Vec<u8>, factor: u32, share: &mut Share) {
    let SenderPad { zero, one } = pads;
    let d = a.slice().iter().zip(zero).zip(one).map(|((a, h0), h1)| a.wrapping_add(*h0).wrapping_sub(*h1));
    pack(d, width, message);
    let shares = share.slice_mut().iter_mut().zip(zero);
    shares.for_each(|(share, h0)| *share = share.wrapping_sub(factor.wrapping_mul(*h0)));
}

/// The receiver's side: takes `d` from the message and adds its share `h_b + b·d` of the product to `sum`. `bits` is
/// the plane of its choice bits, `pad` its `h_b`.
pub fn receive(bits: &[u64], pad: ReceiverPad, width: u32, message: &mut &[u8], sum: &mut Share) {
    let sum = sum.slice_mut();
    let d = unpack(message, width, sum.len());
    sum.iter_mut().zip(pad.0).for_each(|(sum, pad)| *sum = sum.wrapping_add(*pad));
    add_where(bits, &d, sum);
}
