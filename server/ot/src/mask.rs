//! Choosing by a secret bit without a jump.

use core::hint::black_box;

use subtle::Choice;

/// A secret bit, spread over a word: all ones or all zeros.
///
/// A mask made of a bit in the open is recognised by the compiler, which may turn `x & mask` into a jump on the bit;
/// [`Block::select`](crate::Block::select) once was one, for every bit of `Δ`. So the mask passes through a barrier
/// behind which nothing is known of it but that it is a word. The barrier is no promise of the language:
/// `server/tests/constant-time` looks for jumps in what was built.
#[derive(Clone, Copy)]
pub struct Mask(u64);

impl Mask {
    /// Of bit `place` (mod 64) of `word`.
    #[inline(always)]
    pub fn of_bit(word: u64, place: usize) -> Self {
        Self(black_box((word >> (place % 64) & 1).wrapping_neg()))
    }

    /// The mask as a word.
    #[inline(always)]
    pub const fn word(self) -> u64 {
        self.0
    }

    /// The bit for functions of `subtle`.
    #[inline(always)]
    pub(crate) fn choice(self) -> Choice {
        Choice::from((self.0 & 1) as u8)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masks_are_all_ones_or_zeros() {
        for place in 0..64 {
            let one = Mask::of_bit(1 << place, place);
            assert_eq!(one.word(), u64::MAX);
            assert!(bool::from(one.choice()));
            let zero = Mask::of_bit(!(1 << place), place);
            assert_eq!(zero.word(), 0);
            assert!(!bool::from(zero.choice()));
        }
    }
}
