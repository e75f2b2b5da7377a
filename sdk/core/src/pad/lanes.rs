//! ChaCha12 for processors for which the `chacha20` crate has no fast code: a keystream's blocks side by side in lanes of
//! vectors, or one after the other in registers. Compared with that crate by a test.
//!
//! `cross/cost` counts the instructions of a request.

use zeroize::Zeroize;

/// Words of a block.
const WORDS: usize = 16;
const ROUNDS: usize = 12;

/// A word of each of some blocks.
trait Lanes: Copy {
    /// Blocks side by side.
    const COUNT: usize;
    /// The same word in all.
    fn splat(word: u32) -> Self;
    /// The numbers of blocks that follow each other.
    fn numbers(first: u32) -> Self;
    fn add(self, other: Self) -> Self;
    /// The XOR of both, turned left.
    fn mix<const LEFT: u32>(self, other: Self) -> Self;
    /// XORs blocks into `COUNT * 64` bytes.
    fn xor_into(blocks: &[Self; WORDS], bytes: &mut [u8]);
}

impl Lanes for u32 {
    const COUNT: usize = 1;

    #[inline(always)]
    fn splat(word: u32) -> u32 {
        word
    }

    #[inline(always)]
    fn numbers(first: u32) -> u32 {
        first
    }

    #[inline(always)]
    fn add(self, other: u32) -> u32 {
        self.wrapping_add(other)
    }

    #[inline(always)]
    fn mix<const LEFT: u32>(self, other: u32) -> u32 {
        (self ^ other).rotate_left(LEFT)
    }

    #[inline(always)]
    fn xor_into(block: &[u32; WORDS], bytes: &mut [u8]) {
        for (bytes, word) in bytes.as_chunks_mut::<4>().0.iter_mut().zip(block) {
            *bytes = (u32::from_le_bytes(*bytes) ^ word).to_le_bytes();
        }
    }
}

/// XORs the keystream of `key` and `nonce` into `bytes`, from block 0 on. At most `2^32` blocks, or it repeats: the
/// caller sees to it.
pub(super) fn apply(key: &[u8; 32], nonce: &[u8; 12], bytes: &mut [u8]) {
    #[cfg(all(target_arch = "aarch64", target_feature = "neon", target_endian = "little"))]
    of::<neon::Vector>(key, nonce, bytes);
    #[cfg(not(all(target_arch = "aarch64", target_feature = "neon", target_endian = "little")))]
    of::<u32>(key, nonce, bytes);
}

fn of<L: Lanes>(key: &[u8; 32], nonce: &[u8; 12], bytes: &mut [u8]) {
    let mut state = [0; WORDS];
    // "expand 32-byte k".
    state[..4].copy_from_slice(&[0x6170_7865, 0x3320_646e, 0x7962_2d32, 0x6b20_6574]);
    for (word, bytes) in state[4..12].iter_mut().zip(key.as_chunks::<4>().0) {
        *word = u32::from_le_bytes(*bytes);
    }
    for (word, bytes) in state[13..].iter_mut().zip(nonce.as_chunks::<4>().0) {
        *word = u32::from_le_bytes(*bytes);
    }
    // Three quarters of the first half round do not depend on the block's number.
    let mut first = state;
    for i in 1..4 {
        quarter(&mut first, i, 4 + i, 8 + i, 12 + i);
    }
    let mut chunks = bytes.chunks_exact_mut(64 * L::COUNT);
    for chunk in &mut chunks {
        blocks::<L>(&state, &first, chunk);
        state[12] = state[12].wrapping_add(L::COUNT as u32);
    }
    let rest = chunks.into_remainder();
    if !rest.is_empty() {
        let mut last = [0; 64 * 4];
        blocks::<L>(&state, &first, &mut last[..64 * L::COUNT]);
        rest.iter_mut().zip(&last).for_each(|(byte, pad)| *byte ^= pad);
        // What is behind it hides nothing.
        last[..rest.len()].zeroize();
    }
    first.zeroize();
    state.zeroize();
}

/// XORs the `COUNT` blocks from the state's on into `bytes`. `first` is the state with the first half round done but for
/// its first quarter.
#[inline(always)]
fn blocks<L: Lanes>(state: &[u32; WORDS], first: &[u32; WORDS], bytes: &mut [u8]) {
    let numbers = L::numbers(state[12]);
    let mut x = first.map(L::splat);
    x[12] = numbers;
    quarter(&mut x, 0, 4, 8, 12);
    diagonals(&mut x);
    for _ in 1..ROUNDS / 2 {
        for i in 0..4 {
            quarter(&mut x, i, 4 + i, 8 + i, 12 + i);
        }
        diagonals(&mut x);
    }
    for (i, word) in x.iter_mut().enumerate() {
        *word = word.add(if i == 12 { numbers } else { L::splat(state[i]) });
    }
    L::xor_into(&x, bytes);
}

#[inline(always)]
fn diagonals<L: Lanes>(x: &mut [L; WORDS]) {
    for i in 0..4 {
        quarter(x, i, 4 + (i + 1) % 4, 8 + (i + 2) % 4, 12 + (i + 3) % 4);
    }
}

/// Inlined, so that the indices are constants and the words stay in registers.
#[inline(always)]
fn quarter<L: Lanes>(x: &mut [L; WORDS], a: usize, b: usize, c: usize, d: usize) {
    x[a] = x[a].add(x[b]);
    x[d] = x[d].mix::<16>(x[a]);
    x[c] = x[c].add(x[d]);
    x[b] = x[b].mix::<12>(x[c]);
    x[a] = x[a].add(x[b]);
    x[d] = x[d].mix::<8>(x[a]);
    x[c] = x[c].add(x[d]);
    x[b] = x[b].mix::<7>(x[c]);
}

#[cfg(all(target_arch = "aarch64", target_feature = "neon", target_endian = "little"))]
#[allow(unsafe_code, reason = "vector instructions, and vectors read from and written to arrays")]
mod neon {
    use super::{Lanes, WORDS};
    use core::arch::aarch64::{
        uint32x4_t, vaddq_u32, vdupq_n_u32, veorq_u32, vld1q_u8, vld1q_u32, vqtbl1q_u8, vreinterpretq_u8_u32,
        vreinterpretq_u16_u32, vreinterpretq_u32_u8, vreinterpretq_u32_u16, vreinterpretq_u32_u64,
        vreinterpretq_u64_u32, vrev32q_u16, vshlq_n_u32, vsriq_n_u32, vst1q_u8, vtrn1q_u32, vtrn1q_u64,
        vtrn2q_u32, vtrn2q_u64,
    };

    /// Four blocks, a word of each.
    #[derive(Clone, Copy)]
    pub(super) struct Vector(uint32x4_t);

    /// Turns each word left by a byte.
    const BYTE: [u8; 16] = [3, 0, 1, 2, 7, 4, 5, 6, 11, 8, 9, 10, 15, 12, 13, 14];
    const FOUR: [u32; 4] = [0, 1, 2, 3];

    // SAFETY, of all below: the module is compiled only where NEON is there, and all pointers are those of arrays of 16
    // bytes.
    impl Lanes for Vector {
        const COUNT: usize = 4;

        #[inline(always)]
        fn splat(word: u32) -> Self {
            Self(unsafe { vdupq_n_u32(word) })
        }

        #[inline(always)]
        fn numbers(first: u32) -> Self {
            Self(unsafe { vaddq_u32(vdupq_n_u32(first), vld1q_u32(FOUR.as_ptr())) })
        }

        #[inline(always)]
        fn add(self, other: Self) -> Self {
            Self(unsafe { vaddq_u32(self.0, other.0) })
        }

        #[inline(always)]
        fn mix<const LEFT: u32>(self, other: Self) -> Self {
            Self(unsafe {
                let x = veorq_u32(self.0, other.0);
                match LEFT {
                    16 => vreinterpretq_u32_u16(vrev32q_u16(vreinterpretq_u16_u32(x))),
                    12 => vsriq_n_u32::<20>(vshlq_n_u32::<12>(x), x),
                    8 => vreinterpretq_u32_u8(vqtbl1q_u8(vreinterpretq_u8_u32(x), vld1q_u8(BYTE.as_ptr()))),
                    _ => {
                        const { assert!(LEFT == 16 || LEFT == 12 || LEFT == 8 || LEFT == 7) }
                        vsriq_n_u32::<25>(vshlq_n_u32::<7>(x), x)
                    }
                }
            })
        }

        #[inline(always)]
        fn xor_into(blocks: &[Self; WORDS], bytes: &mut [u8]) {
            let (parts, _) = bytes.as_chunks_mut::<16>();
            for (group, words) in blocks.as_chunks::<4>().0.iter().enumerate() {
                let [a, b, c, d] = words.map(|word| word.0);
                // Rows become columns.
                let columns = unsafe {
                    let wide = |x| vreinterpretq_u64_u32(x);
                    let (low, high) = (wide(vtrn1q_u32(a, b)), wide(vtrn2q_u32(a, b)));
                    let (low_2, high_2) = (wide(vtrn1q_u32(c, d)), wide(vtrn2q_u32(c, d)));
                    [
                        vtrn1q_u64(low, low_2),
                        vtrn1q_u64(high, high_2),
                        vtrn2q_u64(low, low_2),
                        vtrn2q_u64(high, high_2),
                    ]
                };
                for (block, column) in columns.into_iter().enumerate() {
                    if let Some(part) = parts.get_mut(4 * block + group) {
                        unsafe {
                            let there = vreinterpretq_u32_u8(vld1q_u8(part.as_ptr()));
                            let made = veorq_u32(there, vreinterpretq_u32_u64(column));
                            vst1q_u8(part.as_mut_ptr(), vreinterpretq_u8_u32(made));
                        }
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use chacha20::ChaCha12;
    use chacha20::cipher::{KeyIvInit, StreamCipher};

    /// Of all lengths around the edges of blocks and vectors, also by the code of processors without vectors.
    #[test]
    fn the_keystream_is_the_library_s() {
        let key: [u8; 32] = core::array::from_fn(|i| (i * 7) as u8);
        let nonce: [u8; 12] = core::array::from_fn(|i| (i * 29 + 1) as u8);
        for len in (0..600).chain([784, 3072, 4095, 4096, 4097]) {
            let given: [u8; 4097] = core::array::from_fn(|i| (i * 31) as u8);
            let mut right = given;
            ChaCha12::new((&key).into(), (&nonce).into()).apply_keystream(&mut right[..len]);
            let (mut made, mut plain) = (given, given);
            super::apply(&key, &nonce, &mut made[..len]);
            super::of::<u32>(&key, &nonce, &mut plain[..len]);
            assert_eq!((made, plain), (right, right), "{len}");
        }
    }
}
