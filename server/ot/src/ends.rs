//! The two ends of correlated OTs.
//!
//! The sender has `K`, the receiver `M = K ^ cΔ`. Both are blocks, and one given where the other belongs would garble
//! noise without a word; so each has a type. [`CotSender`](crate::CotSender) makes the one and
//! [`CotReceiver`](crate::CotReceiver) the other, and garblers what are XORs of those; [`Ends::from_blocks`] is for a dealer.
//!
//! What compiles, and what must not:
//!
//! ```
//! # fn needs_keys(keys: &seco_ot::Keys) {}
//! let keys = seco_ot::Keys::zeros(1);
//! needs_keys(&keys);
//! println!("{:?}", keys.len());
//! let _ = keys.len() == seco_ot::Keys::zeros(1).len();
//! ```
//!
//! ```compile_fail,E0308
//! # fn needs_keys(keys: &seco_ot::Keys) {}
//! let keys = seco_ot::Macs::zeros(1);
//! needs_keys(&keys); // A receiver's ends are no sender's.
//! ```
//!
//! Neither can be printed or compared:
//!
//! ```compile_fail,E0277
//! println!("{:?}", seco_ot::Keys::zeros(1));
//! ```
//!
//! ```compile_fail,E0369
//! let _ = seco_ot::Keys::zeros(1) == seco_ot::Keys::zeros(1);
//! ```

use core::marker::PhantomData;

use zeroize::Zeroizing;

use crate::Block;

/// Marks the ends of the side with `Δ`.
pub enum Sender {}

/// Marks the ends of the side with the choice bits.
pub enum Receiver {}

/// One side's ends of correlated OTs, in the order in which they were made. Zeroized on drop.
pub struct Ends<S> {
    blocks: Zeroizing<Vec<Block>>,
    side: PhantomData<S>,
}

/// The sender's ends: `K`.
pub type Keys = Ends<Sender>;

/// The receiver's ends: `M = K ^ cΔ`.
pub type Macs = Ends<Receiver>;

impl<S> Ends<S> {
    /// `count` blocks of zeros, to be overwritten.
    pub fn zeros(count: usize) -> Self {
        Self::from_blocks(vec![Block::ZERO; count])
    }

    /// Ends that no extension made: for a dealer in a test or a measurement.
    pub fn from_blocks(blocks: Vec<Block>) -> Self {
        Self { blocks: Zeroizing::new(blocks), side: PhantomData }
    }

    /// Number of transfers.
    pub fn len(&self) -> usize {
        self.blocks.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.blocks.is_empty()
    }

    /// The blocks, for whoever computes with them.
    pub fn blocks(&self) -> &[Block] {
        &self.blocks
    }

    /// The same, to be overwritten.
    pub fn blocks_mut(&mut self) -> &mut [Block] {
        &mut self.blocks
    }
}

/// Of no transfers.
impl<S> Default for Ends<S> {
    fn default() -> Self {
        Self::zeros(0)
    }
}
