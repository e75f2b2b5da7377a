//! Shares of the product of an XOR-shared bit and shared numbers.
//!
//! For `μ = b^0 ^ … ^ b^{g-1}`, the garblers' bits, and a number `Y` of which every server has an additive share, the
//! garblers join one after the other: from shares of `μY`, joining `b` makes `μ'Y = μY + b(Y - 2μY)`. Each other
//! server `i` brings `(Y - 2μY)_i` into a product with `b` ([`super::product`]), the joiner multiplies its own part
//! itself. So every pair of servers with a correlated OT for `b` does one product.

use super::choose::add_where;
use super::pads::{ReceiverPads, SenderPads};
use super::{Share, product};
use crate::slices::packed_len;

/// One server's part in multiplying a bit with several numbers of the same width.
pub struct Chain {
    width: u32,
    lanes: usize,
    /// Plane of this server's `b`; zeros where it has none.
    bits: zeroize::Zeroizing<Vec<u64>>,
    /// Numbers: which word of the pads is theirs, this server's share of `Y`, and of `μY` so far.
    numbers: Vec<(usize, Share, Share)>,
}

impl Chain {
    /// For the numbers `y`, each with the word of the pads that is its own.
    pub fn new(bits: zeroize::Zeroizing<Vec<u64>>, y: Vec<(usize, Share)>, width: u32, lanes: usize) -> Self {
        let numbers = y.into_iter().map(|(word, y)| (word, y, Share::zeros(lanes))).collect();
        Self { width, lanes, bits, numbers }
    }

    /// Bytes of a message about `numbers` numbers.
    pub fn message_len(lanes: usize, width: u32, numbers: usize) -> usize {
        numbers * packed_len(lanes, width)
    }

    /// The message for the garbler that joins now; `pads` are towards it.
    pub fn send(&mut self, pads: &SenderPads, message: &mut Vec<u8>) {
        for (word, y, product) in &mut self.numbers {
            let mut a = y.clone();
            a.add(2u32.wrapping_neg(), product);
            product::send(&a, pads.get(0, *word), self.width, message, 1, product);
        }
    }

    /// Joins, with the messages of all other servers, this one's pads towards them and how many of the numbers, from
    /// the first on, each brings.
    pub fn join(&mut self, from: &mut [(&ReceiverPads, &[u8], usize)]) {
        for (number, (word, y, product)) in self.numbers.iter_mut().enumerate() {
            let mut own = y.clone();
            own.add(2u32.wrapping_neg(), product);
            add_where(&self.bits, own.slice(), product.slice_mut());
            for (pads, message, _) in from.iter_mut().filter(|(_, _, numbers)| number < *numbers) {
                product::receive(&self.bits, pads.get(0, *word), self.width, message, product);
            }
        }
        debug_assert_eq!(self.numbers.first().map_or(self.lanes, |(_, y, _)| y.len()), self.lanes);
    }

    /// This server's shares of the products, in the order of the numbers.
    pub fn finish(self) -> Vec<Share> {
        self.numbers.into_iter().map(|(_, _, product)| product).collect()
    }
}
