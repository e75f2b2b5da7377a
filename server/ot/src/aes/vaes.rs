//! AES kernels with 512-bit vectors: four blocks to an instruction, two vectors to a chunk.
#![allow(unsafe_code)] // A vector kernel may only be called where its instructions were detected.

use core::arch::x86_64::{
    __m512i, _mm512_add_epi64, _mm512_aesenc_epi128, _mm512_aesenclast_epi128, _mm512_broadcast_i32x4,
    _mm512_maskz_mov_epi64, _mm512_permutex2var_epi64, _mm512_set_epi64, _mm512_set1_epi64,
    _mm512_setzero_si512, _mm512_test_epi64_mask, _mm512_xor_si512,
};
use core::ops::Range;

use bytemuck::cast;

use super::{Chunk, Engine, Kernel, LANES, RoundKeys, aesni, chunks_each};
use crate::Block;

/// A chunk in two vectors.
type Pair = [__m512i; 2];

/// Whether this processor has the instructions of this module (the key schedule is that of [`aesni`]).
pub(super) fn available() -> bool {
    aesni::available() && is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("vaes")
}

#[inline]
#[target_feature(enable = "avx512f,vaes")]
fn broadcast(keys: &RoundKeys) -> [__m512i; 11] {
    let mut wide = [_mm512_setzero_si512(); 11];
    for (wide, key) in wide.iter_mut().zip(&keys.0) {
        *wide = _mm512_broadcast_i32x4(cast(*key));
    }
    wide
}

#[inline]
#[target_feature(enable = "avx512f,vaes")]
fn encrypt(keys: &[__m512i; 11], [mut x, mut y]: Pair) -> Pair {
    x = _mm512_xor_si512(x, keys[0]);
    y = _mm512_xor_si512(y, keys[0]);
    for key in &keys[1..10] {
        x = _mm512_aesenc_epi128(x, *key);
        y = _mm512_aesenc_epi128(y, *key);
    }
    [_mm512_aesenclast_epi128(x, keys[10]), _mm512_aesenclast_epi128(y, keys[10])]
}

/// `start + 0 … start + 7`, without carry into the high halves: see [`super::Cipher`].
#[inline]
#[target_feature(enable = "avx512f")]
fn count(start: u128) -> Pair {
    let start = _mm512_broadcast_i32x4(cast(Block(start)));
    [
        _mm512_add_epi64(start, _mm512_set_epi64(0, 3, 0, 2, 0, 1, 0, 0)),
        _mm512_add_epi64(start, _mm512_set_epi64(0, 7, 0, 6, 0, 5, 0, 4)),
    ]
}

/// The counters of the following chunk.
#[inline]
#[target_feature(enable = "avx512f")]
fn advance([x, y]: Pair) -> Pair {
    let step = _mm512_set_epi64(0, 8, 0, 8, 0, 8, 0, 8);
    [_mm512_add_epi64(x, step), _mm512_add_epi64(y, step)]
}

/// Round keys in every 128-bit part.
struct Wide([__m512i; 11]);

// SAFETY of every call below: `run` alone makes a `Wide`, and it may be called only where these instructions
// were detected.
impl Engine for Wide {
    type Lanes = Pair;

    #[inline(always)]
    fn splat(&self, block: Block) -> Pair {
        // SAFETY: see above.
        [unsafe { _mm512_broadcast_i32x4(cast(block)) }; 2]
    }

    #[inline(always)]
    fn xor(&self, a: Pair, b: Pair) -> Pair {
        // SAFETY: see above.
        unsafe { [_mm512_xor_si512(a[0], b[0]), _mm512_xor_si512(a[1], b[1])] }
    }

    #[inline(always)]
    fn select(&self, bits: u8, x: Pair) -> Pair {
        // SAFETY: see above.
        unsafe {
            let bits = _mm512_set1_epi64(i64::from(bits));
            let lower = _mm512_test_epi64_mask(bits, _mm512_set_epi64(8, 8, 4, 4, 2, 2, 1, 1));
            let upper = _mm512_test_epi64_mask(bits, _mm512_set_epi64(128, 128, 64, 64, 32, 32, 16, 16));
            [_mm512_maskz_mov_epi64(lower, x[0]), _mm512_maskz_mov_epi64(upper, x[1])]
        }
    }

    #[inline(always)]
    fn low_bits(&self, x: Pair) -> u8 {
        // SAFETY: see above.
        unsafe {
            // The low half of every block, of both vectors.
            let low_halves = _mm512_set_epi64(14, 12, 10, 8, 6, 4, 2, 0);
            let halves = _mm512_permutex2var_epi64(x[0], low_halves, x[1]);
            _mm512_test_epi64_mask(halves, _mm512_set1_epi64(1))
        }
    }

    #[inline(always)]
    fn tweaks(&self, first: u128) -> Pair {
        // SAFETY: see above.
        unsafe { count(first) }
    }

    #[inline(always)]
    fn prefetch(&self, blocks: &[[u8; 16]]) {
        aesni::prefetch(blocks);
    }

    #[inline(always)]
    fn stream_bytes(&self, x: Pair, bytes: &mut [u8; 16 * LANES]) {
        aesni::stream(cast(x), bytes);
    }

    #[inline(always)]
    fn permute<const N: usize>(&self, mut x: [Pair; N]) -> [Pair; N] {
        // SAFETY: see above.
        unsafe {
            for x in x.as_flattened_mut() {
                *x = _mm512_xor_si512(*x, self.0[0]);
            }
            for key in &self.0[1..10] {
                for x in x.as_flattened_mut() {
                    *x = _mm512_aesenc_epi128(*x, *key);
                }
            }
            for x in x.as_flattened_mut() {
                *x = _mm512_aesenclast_epi128(*x, self.0[10]);
            }
        }
        x
    }
}

#[target_feature(enable = "avx512f,vaes")]
pub(super) fn run<K: Kernel>(keys: &RoundKeys, kernel: K) -> K::Output {
    let _fence = aesni::Fence;
    kernel.run(&Wide(broadcast(keys)))
}

#[target_feature(enable = "avx512f,vaes")]
pub(super) fn keystreams(keys: &[RoundKeys], range: Range<usize>, counter: u128, dst: &mut [Chunk]) {
    let first = count(counter);
    for (keys, dst) in keys[range.clone()].iter().zip(dst.chunks_exact_mut(chunks_each(&range, dst.len()))) {
        let keys = broadcast(keys);
        let mut counters = first;
        for dst in dst {
            *dst = cast(encrypt(&keys, counters));
            counters = advance(counters);
        }
    }
}
