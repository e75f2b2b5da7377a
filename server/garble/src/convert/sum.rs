//! A bit that is the XOR of all servers' bits becomes additive shares.
//!
//! For `x = b^0 ^ … ^ b^{m-1}` the servers join one after the other: with additive shares of `x` so far, joining `b`
//! makes `x' = x + b - 2xb`. Server `i`, which has a share `x_i`, and the joiner, which has `b`, get shares of
//! `x_i·b` ([`super::product`]); `i` then has `x_i - 2[x_i b]_i`, the joiner `b - 2 Σ_i [x_i b]`. `m(m-1)/2` products a
//! bit, and `m - 1` rounds, all bits together.
//!
//! A server's share after a later one has joined is known to it before that one does anything, for its share of the
//! product is its own pad.

use super::pads::{ReceiverPads, SenderPads};
use super::{Share, bits_of, product};
use crate::slices::packed_len;

/// One server's part in converting several bits of every lane, each with a width of its own.
pub struct SumOfBits {
    widths: Vec<u32>,
    lanes: usize,
    words: usize,
    /// Planes of this server's bits.
    bits: zeroize::Zeroizing<Vec<u64>>,
    /// By bit, once this server has joined.
    shares: Vec<Share>,
}

impl SumOfBits {
    /// For bits of which `bits` are this server's planes, shared mod 2 to the power of `widths`. `first` if it is the
    /// first to join: its shares are its bits.
    pub fn new(bits: zeroize::Zeroizing<Vec<u64>>, widths: Vec<u32>, lanes: usize, first: bool) -> Self {
        let words = lanes.div_ceil(64);
        let share = |bit: usize| Share::new(bits_of(bits.get(bit * words..).unwrap_or_default(), lanes));
        let shares = if first { (0..widths.len()).map(share).collect() } else { Vec::new() };
        Self { widths, lanes, words, bits, shares }
    }

    /// Bytes of a message.
    pub fn message_len(&self) -> usize {
        self.widths.iter().map(|&width| packed_len(self.lanes, width)).sum()
    }

    /// The message for the server that joins now, which this one is before. `pads` are towards it, by bit.
    pub fn send(&mut self, pads: &SenderPads, message: &mut Vec<u8>) {
        for (bit, (share, &width)) in self.shares.iter_mut().zip(&self.widths).enumerate() {
            let a = share.clone();
            product::send(&a, pads.get(bit, 0), width, message, 2u32.wrapping_neg(), share);
        }
    }

    /// Joins, with the messages of all servers before this one and its pads towards them.
    pub fn join(&mut self, from: &mut [(&ReceiverPads, &[u8])]) {
        for (bit, &width) in self.widths.iter().enumerate() {
            let plane = &self.bits[bit * self.words..(bit + 1) * self.words];
            let mut products = Share::zeros(self.lanes);
            for (pads, message) in from.iter_mut() {
                product::receive(plane, pads.get(bit, 0), width, message, &mut products);
            }
            let mut share = Share::new(bits_of(plane, self.lanes));
            share.add(2u32.wrapping_neg(), &products);
            self.shares.push(share);
        }
    }

    /// This server's share of every bit.
    pub fn shares(&self) -> &[Share] {
        &self.shares
    }
}
