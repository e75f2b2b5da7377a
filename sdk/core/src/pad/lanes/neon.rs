//! Four blocks side by side in NEON's vectors.
#![allow(unsafe_code, reason = "vector instructions, and vectors read from and written to arrays")]

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
    fn xor(self, other: Self) -> Self {
        Self(unsafe { veorq_u32(self.0, other.0) })
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
    fn xor_into(blocks: &[Self; WORDS], to: &mut [u8]) {
        let (to, _) = to.as_chunks_mut::<16>();
        let mut columns = [[blocks[0]; 4]; 4];
        for (columns, words) in columns.iter_mut().zip(blocks.as_chunks::<4>().0) {
            *columns = transposed(*words);
        }
        // Block by block, so that neighbours are read and written by one instruction.
        for block in 0..4 {
            for (group, columns) in columns.iter().enumerate() {
                let Some(to) = to.get_mut(4 * block + group) else { continue };
                unsafe {
                    let there = vreinterpretq_u32_u8(vld1q_u8(to.as_ptr()));
                    let made = veorq_u32(there, columns[block].0);
                    vst1q_u8(to.as_mut_ptr(), vreinterpretq_u8_u32(made));
                }
            }
        }
    }
}

/// Rows become columns: four words of each block.
#[inline(always)]
fn transposed(words: [Vector; 4]) -> [Vector; 4] {
    let [a, b, c, d] = words.map(|word| word.0);
    unsafe {
        let wide = |x| vreinterpretq_u64_u32(x);
        let (low, high) = (wide(vtrn1q_u32(a, b)), wide(vtrn2q_u32(a, b)));
        let (low_2, high_2) = (wide(vtrn1q_u32(c, d)), wide(vtrn2q_u32(c, d)));
        [vtrn1q_u64(low, low_2), vtrn1q_u64(high, high_2), vtrn2q_u64(low, low_2), vtrn2q_u64(high, high_2)]
            .map(|column| Vector(vreinterpretq_u32_u64(column)))
    }
}
