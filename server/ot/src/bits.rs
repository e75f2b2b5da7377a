//! Packed bit strings: choice bits, mask shares.

use rand_core::CryptoRng;
use zeroize::Zeroize;

use crate::{Error, Mask, Result};

/// A string of secret bits, 64 to a word, bit `i` in word `i / 64` at place `i % 64`.
///
/// Bits of the last word beyond the end are always zero. Zeroized on drop.
#[derive(Default)]
pub struct Bits {
    words: Vec<u64>,
    len: usize,
}

impl Bits {
    /// `len` zeros.
    pub fn zeros(len: usize) -> Self {
        Self { words: vec![0; len.div_ceil(64)], len }
    }

    /// `len` uniform bits.
    pub fn random(len: usize, rng: &mut impl CryptoRng) -> Self {
        let mut bits = Self::zeros(len);
        rng.fill_bytes(bytemuck::cast_slice_mut(&mut bits.words));
        bits.clear_padding();
        bits
    }

    /// From booleans, first to last.
    pub fn from_bools(bools: &[bool]) -> Self {
        let mut bits = Self::zeros(bools.len());
        for (word, chunk) in bits.words.iter_mut().zip(bools.chunks(64)) {
            *word = chunk.iter().enumerate().fold(0, |w, (i, &bit)| w | u64::from(bit) << i);
        }
        bits
    }

    /// From packed words. Bits beyond the end are cleared; missing words are zero, surplus ones dropped.
    pub fn from_words(mut words: Vec<u64>, len: usize) -> Self {
        // Resizing may move the content: then the old place would keep it.
        if words.len() != len.div_ceil(64) {
            let mut exact = vec![0; len.div_ceil(64)];
            exact.iter_mut().zip(&words).for_each(|(to, from)| *to = *from);
            words.zeroize();
            words = exact;
        }
        let mut bits = Self { words, len };
        bits.clear_padding();
        bits
    }

    /// From the `ceil(len / 8)` bytes of [`Bits::as_bytes`].
    ///
    /// # Errors
    /// [`Error::Length`] for any other number of bytes, [`Error::Padding`] if a bit beyond the end is set.
    pub fn from_bytes(bytes: &[u8], len: usize) -> Result<Self> {
        if bytes.len() != len.div_ceil(8) {
            return Err(Error::Length { what: "packed bits", expected: len.div_ceil(8), got: bytes.len() });
        }
        if !len.is_multiple_of(8) && bytes.last().is_some_and(|last| last >> (len % 8) != 0) {
            return Err(Error::Padding);
        }
        let mut bits = Self::zeros(len);
        bytemuck::cast_slice_mut::<u64, u8>(&mut bits.words)[..bytes.len()].copy_from_slice(bytes);
        Ok(bits)
    }

    /// The bits as `ceil(len / 8)` bytes, lowest bit first, unused bits zero.
    pub fn as_bytes(&self) -> &[u8] {
        &bytemuck::cast_slice(&self.words)[..self.len.div_ceil(8)]
    }

    /// The packed words, `ceil(len / 64)` of them, unused bits zero.
    pub fn words(&self) -> &[u64] {
        &self.words
    }

    /// Number of bits.
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether there is no bit.
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Bit `i` as a mask: how to choose by it without a branch.
    ///
    /// # Panics
    /// If `i` is not below the length.
    #[inline]
    pub fn mask(&self, i: usize) -> Mask {
        assert!(i < self.len, "bit {i} of {}", self.len);
        Mask::of_bit(self.words[i / 64], i)
    }

    /// Bit `i`, for code that may branch on it: tests, and bits that are no secret. Else [`Bits::mask`].
    ///
    /// # Panics
    /// If `i` is not below the length.
    #[inline]
    pub fn get(&self, i: usize) -> bool {
        assert!(i < self.len, "bit {i} of {}", self.len);
        self.words[i / 64] >> (i % 64) & 1 == 1
    }

    /// Sets bit `i`.
    ///
    /// # Panics
    /// If `i` is not below the length.
    #[inline]
    pub fn set(&mut self, i: usize, bit: bool) {
        assert!(i < self.len, "bit {i} of {}", self.len);
        let word = &mut self.words[i / 64];
        *word = *word & !(1 << (i % 64)) | u64::from(bit) << (i % 64);
    }

    /// Appends a bit.
    pub fn push(&mut self, bit: bool) {
        if self.len.is_multiple_of(64) {
            if self.words.len() == self.words.capacity() {
                // Grown by hand, so that no copy of the secret stays behind in freed memory.
                let mut grown = Vec::with_capacity((2 * self.words.len()).max(4));
                grown.extend_from_slice(&self.words);
                self.words.zeroize();
                self.words = grown;
            }
            self.words.push(0);
        }
        self.len += 1;
        self.set(self.len - 1, bit);
    }

    /// `self ^= other`, bit by bit.
    ///
    /// # Panics
    /// If the lengths differ.
    pub fn xor_assign(&mut self, other: &Self) {
        assert_eq!(self.len, other.len, "bit strings of different lengths");
        self.words.iter_mut().zip(&other.words).for_each(|(a, b)| *a ^= b);
    }

    fn clear_padding(&mut self) {
        if let (Some(last), used @ 1..) = (self.words.last_mut(), self.len % 64) {
            *last &= (1 << used) - 1;
        }
    }
}

impl Drop for Bits {
    fn drop(&mut self) {
        self.words.zeroize();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use chacha20::ChaCha20Rng;
    use proptest::prelude::*;
    use rand_core::SeedableRng;

    proptest! {
        #[test]
        fn all_constructors_agree(bools in proptest::collection::vec(any::<bool>(), 0..300)) {
            let bits = Bits::from_bools(&bools);
            prop_assert_eq!(bits.len(), bools.len());
            prop_assert!(bools.iter().enumerate().all(|(i, &b)| bits.get(i) == b));

            let (mut pushed, mut assigned) = (Bits::default(), Bits::zeros(bools.len()));
            for (i, &b) in bools.iter().enumerate() {
                pushed.push(b);
                assigned.set(i, !b);
                assigned.set(i, b);
            }
            prop_assert_eq!(pushed.words(), bits.words());
            prop_assert_eq!(assigned.words(), bits.words());
            let read = Bits::from_bytes(bits.as_bytes(), bits.len()).unwrap();
            prop_assert_eq!(read.words(), bits.words());
            let words = Bits::from_words(bits.words().to_vec(), bits.len());
            prop_assert_eq!(words.words(), bits.words());

            pushed.xor_assign(&bits);
            prop_assert!(pushed.words().iter().all(|&w| w == 0));
        }
    }

    #[test]
    fn foreign_bytes_are_checked() {
        for len in [0_usize, 1, 7, 8, 9, 63, 64, 65, 130] {
            let good = vec![0; len.div_ceil(8)];
            assert!(Bits::from_bytes(&good, len).is_ok());
            assert!(matches!(Bits::from_bytes(&[&good[..], &[0]].concat(), len), Err(Error::Length { .. })));
            if len > 0 {
                assert!(matches!(Bits::from_bytes(&good[1..], len), Err(Error::Length { .. })));
            }
            if len % 8 != 0 {
                let mut bad = good.clone();
                bad[len / 8] = 1 << (len % 8);
                assert!(matches!(Bits::from_bytes(&bad, len), Err(Error::Padding)));
            }
        }
    }

    #[test]
    fn unused_bits_stay_zero() {
        let mut rng = ChaCha20Rng::from_seed([3; 32]);
        for len in [1_usize, 63, 64, 65, 127] {
            let random = Bits::random(len, &mut rng);
            let cut = Bits::from_words(vec![u64::MAX; 3], len);
            for bits in [random, cut] {
                assert_eq!(bits.words().len(), len.div_ceil(64));
                assert!(len % 64 == 0 || bits.words()[len / 64] >> (len % 64) == 0);
            }
        }
    }
}
