//! AES-NI kernels for x86-64: eight independent blocks in flight hide the latency of the round instruction.
#![allow(unsafe_code)] // A vector kernel may only be called where its instructions were detected.

use core::arch::x86_64::{
    __m128i, _MM_HINT_T1, _mm_add_epi64, _mm_aesenc_si128, _mm_aesenclast_si128, _mm_and_si128,
    _mm_cmpeq_epi32, _mm_cvtsi128_si32, _mm_prefetch, _mm_set_epi64x, _mm_set1_epi32, _mm_sfence,
    _mm_shuffle_epi8, _mm_slli_si128, _mm_stream_si128, _mm_xor_si128,
};
use core::ops::Range;

use bytemuck::{cast, cast_ref};

use super::{Chunk, Engine, Kernel, LANES, RCON, RoundKeys, chunks_each};
use crate::Block;

/// Whether this processor has the instructions of this module.
pub(super) fn available() -> bool {
    is_x86_feature_detected!("aes") && is_x86_feature_detected!("ssse3")
}

/// Key schedule of FIPS 197. `aesenclast` on a vector of four equal words is SubWord, since ShiftRows does
/// nothing there; it is faster than `aeskeygenassist` and runs in constant time.
#[target_feature(enable = "aes,ssse3")]
pub(super) fn expand(key: Block) -> RoundKeys {
    let rotate_last_word = _mm_set1_epi32(0x0c0f_0e0d);
    let mut round_key: __m128i = cast(key);
    let mut keys = [key; 11];
    for (slot, rcon) in keys[1..].iter_mut().zip(RCON) {
        let word = _mm_shuffle_epi8(round_key, rotate_last_word);
        let word = _mm_aesenclast_si128(word, _mm_set1_epi32(rcon));
        round_key = _mm_xor_si128(round_key, _mm_slli_si128::<4>(round_key));
        round_key = _mm_xor_si128(round_key, _mm_slli_si128::<8>(round_key));
        round_key = _mm_xor_si128(round_key, word);
        *slot = cast(round_key);
    }
    RoundKeys(keys)
}

#[inline]
#[target_feature(enable = "aes")]
fn encrypt(keys: &[__m128i; 11], mut state: [__m128i; LANES]) -> [__m128i; LANES] {
    for x in &mut state {
        *x = _mm_xor_si128(*x, keys[0]);
    }
    for key in &keys[1..10] {
        for x in &mut state {
            *x = _mm_aesenc_si128(*x, *key);
        }
    }
    for x in &mut state {
        *x = _mm_aesenclast_si128(*x, keys[10]);
    }
    state
}

/// `start + 0 … start + 7`, without carry into the high half: see [`super::Cipher`].
#[inline]
#[target_feature(enable = "sse2")]
fn count(start: __m128i) -> [__m128i; LANES] {
    let mut lanes = [start; LANES];
    for (i, lane) in lanes.iter_mut().enumerate() {
        *lane = _mm_add_epi64(*lane, _mm_set_epi64x(0, i as i64));
    }
    lanes
}

/// The first line of every four blocks, of eight at most, to the second-level cache.
#[inline(always)]
pub(super) fn prefetch(blocks: &[[u8; 16]]) {
    for line in blocks.iter().take(LANES).step_by(4) {
        // SAFETY: a hint, which reads nothing; part of x86-64.
        unsafe { _mm_prefetch::<_MM_HINT_T1>(line.as_ptr().cast()) };
    }
}

/// Writes past the caches, where the address allows it. Whoever calls this holds a [`Fence`].
#[inline(always)]
pub(super) fn stream(blocks: [__m128i; LANES], bytes: &mut [u8; 16 * LANES]) {
    let target = bytes.as_mut_ptr().cast::<__m128i>();
    if !target.is_aligned() {
        *bytes = cast(blocks);
        return;
    }
    for (i, block) in blocks.into_iter().enumerate() {
        // SAFETY: aligned, and within `bytes`, of which there are 16 for each block. SSE2 is part of x86-64.
        unsafe { _mm_stream_si128(target.add(i), block) };
    }
}

/// Makes what was [`stream`]ed visible to other threads before anything that follows: such stores are not
/// ordered otherwise.
pub(super) struct Fence;

impl Drop for Fence {
    #[inline(always)]
    fn drop(&mut self) {
        // SAFETY: part of x86-64.
        unsafe { _mm_sfence() };
    }
}

/// Round keys for vectors of one block.
struct Narrow([__m128i; 11]);

// SAFETY of every call below: `run` alone makes a `Narrow`, and it may be called only where these
// instructions were detected.
impl Engine for Narrow {
    type Lanes = [__m128i; LANES];

    #[inline(always)]
    fn splat(&self, block: Block) -> Self::Lanes {
        [cast(block); LANES]
    }

    #[inline(always)]
    fn xor(&self, mut a: Self::Lanes, b: Self::Lanes) -> Self::Lanes {
        for (a, b) in a.iter_mut().zip(b) {
            // SAFETY: see above.
            *a = unsafe { _mm_xor_si128(*a, b) };
        }
        a
    }

    #[inline(always)]
    fn select(&self, bits: u8, mut x: Self::Lanes) -> Self::Lanes {
        // Behind the barrier nobody knows that all its words are the same, and what follows stays a vector's.
        // SAFETY: see above.
        let bits = core::hint::black_box(unsafe { _mm_set1_epi32(i32::from(bits)) });
        for (lane, x) in x.iter_mut().enumerate() {
            // SAFETY: see above.
            unsafe {
                let bit = _mm_set1_epi32(1 << lane);
                let set = _mm_cmpeq_epi32(_mm_and_si128(bits, bit), bit);
                *x = _mm_and_si128(*x, set);
            }
        }
        x
    }

    #[inline(always)]
    fn low_bits(&self, x: Self::Lanes) -> u8 {
        let mut bits = 0;
        for (lane, x) in x.iter().enumerate() {
            // SAFETY: see above.
            bits |= (unsafe { _mm_cvtsi128_si32(*x) } as u8 & 1) << lane;
        }
        bits
    }

    #[inline(always)]
    fn tweaks(&self, first: u128) -> Self::Lanes {
        // SAFETY: see above.
        unsafe { count(cast(Block(first))) }
    }

    #[inline(always)]
    fn prefetch(&self, blocks: &[[u8; 16]]) {
        prefetch(blocks);
    }

    #[inline(always)]
    fn stream_bytes(&self, x: Self::Lanes, bytes: &mut [u8; 16 * LANES]) {
        stream(x, bytes);
    }

    #[inline(always)]
    fn permute<const N: usize>(&self, mut x: [Self::Lanes; N]) -> [Self::Lanes; N] {
        // Eight blocks keep the unit busy; more would not fit the registers.
        for x in &mut x {
            // SAFETY: see above.
            *x = unsafe { encrypt(&self.0, *x) };
        }
        x
    }
}

#[target_feature(enable = "aes")]
pub(super) fn run<K: Kernel>(keys: &RoundKeys, kernel: K) -> K::Output {
    let _fence = Fence;
    kernel.run(&Narrow(cast(keys.0)))
}

#[target_feature(enable = "aes")]
pub(super) fn keystreams(keys: &[RoundKeys], range: Range<usize>, counter: u128, dst: &mut [Chunk]) {
    for (keys, dst) in keys[range.clone()].iter().zip(dst.chunks_exact_mut(chunks_each(&range, dst.len()))) {
        let mut counter: __m128i = cast(Block(counter));
        for dst in dst {
            *dst = cast(encrypt(cast_ref(&keys.0), count(counter)));
            counter = _mm_add_epi64(counter, _mm_set_epi64x(0, LANES as i64));
        }
    }
}
