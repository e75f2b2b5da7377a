//! 128-bit blocks: labels, keys of correlated OT, seeds.

use core::ops::{BitAnd, BitXor, BitXorAssign};

use rand_core::CryptoRng;
use subtle::{Choice, ConstantTimeEq};
use zeroize::{DefaultIsZeroes, Zeroize};

use crate::Mask;

/// A 128-bit block: a wire label, a seed or one end of a correlated OT.
///
/// As bytes it is little-endian. It has no `Debug` and no `PartialEq`, because it nearly always holds a
/// secret; compare with [`ConstantTimeEq`]. It is `Copy` for speed: whoever stores blocks zeroizes them.
#[repr(transparent)]
#[derive(Clone, Copy, Default, bytemuck::Pod, bytemuck::Zeroable)]
pub struct Block(pub u128);

// Gives `Zeroize` to the block and to slices and vectors of it.
impl DefaultIsZeroes for Block {}

impl Block {
    /// The zero block.
    pub const ZERO: Self = Self(0);

    /// A uniform block.
    pub fn random(rng: &mut impl CryptoRng) -> Self {
        Self(u128::from(rng.next_u64()) | u128::from(rng.next_u64()) << 64)
    }

    /// Lowest bit: the point-and-permute bit of a label.
    #[inline]
    pub const fn lsb(self) -> bool {
        self.0 & 1 == 1
    }

    /// `self` if the mask is of a one, else zero, without a branch.
    #[inline(always)]
    pub const fn select(self, mask: Mask) -> Self {
        let word = mask.word() as u128;
        Self(self.0 & (word | word << 64))
    }

    /// Exchanges the two blocks if the mask is of a one. On its own, so that its instructions can be looked at.
    #[inline(never)]
    pub(crate) fn exchange([a, b]: &mut [Self; 2], mask: Mask) {
        let difference = (*a ^ *b).select(mask);
        *a ^= difference;
        *b ^= difference;
    }

    /// From 16 bytes, little-endian.
    #[inline]
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(u128::from_le_bytes(bytes))
    }

    /// To 16 bytes, little-endian.
    #[inline]
    pub const fn to_bytes(self) -> [u8; 16] {
        self.0.to_le_bytes()
    }
}

impl BitXor for Block {
    type Output = Self;
    #[inline]
    fn bitxor(self, other: Self) -> Self {
        Self(self.0 ^ other.0)
    }
}

impl BitXorAssign for Block {
    #[inline]
    fn bitxor_assign(&mut self, other: Self) {
        self.0 ^= other.0;
    }
}

impl BitAnd for Block {
    type Output = Self;
    #[inline]
    fn bitand(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }
}

impl ConstantTimeEq for Block {
    fn ct_eq(&self, other: &Self) -> Choice {
        let difference = self.0 ^ other.0;
        (difference as u64).ct_eq(&0) & ((difference >> 64) as u64).ct_eq(&0)
    }
}

/// Global offset `Δ` of free XOR (Kolesnikov and Schneider 2008): low bit 1, so that the low bits of a pair
/// of labels differ. Zeroized on drop.
pub struct Delta(Block);

impl Delta {
    /// Uniform among the blocks with low bit 1.
    pub fn random(rng: &mut impl CryptoRng) -> Self {
        Self(Block(Block::random(rng).0 | 1))
    }

    /// One that was stored, as [`Delta::block`] gave it; none if the block is no offset.
    pub fn from_block(block: Block) -> Option<Self> {
        block.lsb().then_some(Self(block))
    }

    /// The offset as a block.
    #[inline]
    pub const fn block(&self) -> Block {
        self.0
    }

    /// The 128 bits of `Δ`, lowest first: the choices of the base OTs that seed a
    /// [`CotSender`](crate::CotSender).
    ///
    /// The first is always 1. That costs nothing: the seed chosen by it is as secret as the others, and the
    /// one bit of `Δ` that the peer knows is known to everyone by the definition of `Δ`.
    pub fn choices(&self) -> crate::Bits {
        crate::Bits::from_words(vec![self.0.0 as u64, (self.0.0 >> 64) as u64], 128)
    }
}

impl Drop for Delta {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use chacha20::ChaCha20Rng;
    use rand_core::SeedableRng;

    #[test]
    fn bytes_are_little_endian() {
        let bytes: [u8; 16] = core::array::from_fn(|i| i as u8);
        assert_eq!(Block::from_bytes(bytes).0 & 0xff, 0);
        assert_eq!(Block::from_bytes(bytes).0 >> 120, 15);
        assert_eq!(Block::from_bytes(bytes).to_bytes(), bytes);
        assert_eq!(bytemuck::cast::<Block, [u8; 16]>(Block::from_bytes(bytes)), bytes);
    }

    #[test]
    fn select_and_compare() {
        let mut rng = ChaCha20Rng::from_seed([1; 32]);
        let x = Block::random(&mut rng);
        let (one, zero) = (Mask::of_bit(2, 1), Mask::of_bit(2, 0));
        assert!(bool::from(x.select(one).ct_eq(&x)));
        assert!(bool::from(x.select(zero).ct_eq(&Block::ZERO)));
        let mut pair = [x, Block(1)];
        Block::exchange(&mut pair, zero);
        assert!(pair[0].0 == x.0 && pair[1].0 == 1);
        Block::exchange(&mut pair, one);
        assert!(pair[0].0 == 1 && pair[1].0 == x.0);
        assert!(!bool::from(x.ct_eq(&(x ^ Block(1 << 127)))));
    }

    #[test]
    fn delta_is_odd_and_its_choices_are_its_bits() {
        let mut rng = ChaCha20Rng::from_seed([2; 32]);
        let mut ones = 0;
        for _ in 0..1000 {
            let delta = Delta::random(&mut rng);
            assert!(delta.block().lsb());
            let choices = delta.choices();
            assert_eq!(choices.len(), 128);
            assert!((0..128).all(|i| choices.get(i) == (delta.block().0 >> i & 1 == 1)));
            ones += delta.block().0.count_ones();
        }
        // 127 fair bits and one fixed: mean 64,500, standard deviation 178.
        assert!(ones.abs_diff(64_500) < 6 * 178, "{ones}");
    }
}
