//! AES-NI kernels for x86-64: eight independent blocks in flight hide the latency of the round instruction.
#![allow(unsafe_code)] // A vector kernel may only be called where its instructions were detected.

use core::arch::x86_64::{
    __m128i, _mm_add_epi64, _mm_aesenc_si128, _mm_aesenclast_si128, _mm_cvtsi128_si32, _mm_set_epi64x,
    _mm_set1_epi32, _mm_shuffle_epi8, _mm_slli_si128, _mm_xor_si128,
};
use core::ops::Range;

use bytemuck::{cast, cast_ref};

use super::{Chunk, LANES, RCON, RoundKeys, chunks_each};
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

#[target_feature(enable = "aes")]
pub(super) fn permute_xor(keys: &RoundKeys, src: &[Chunk], offset: Block, dst: &mut [Chunk]) {
    let mut keys: [__m128i; 11] = cast(keys.0);
    keys[0] = _mm_xor_si128(keys[0], cast(offset));
    for (src, dst) in src.iter().zip(dst) {
        *dst = cast(encrypt(&keys, cast(*src)));
    }
}

/// `π(p ^ tweaks) ^ p` for one chunk.
#[inline]
#[target_feature(enable = "aes")]
fn hash(keys: &[__m128i; 11], p: &[__m128i; LANES], tweak: __m128i) -> [__m128i; LANES] {
    let mut state = count(tweak);
    for (x, p) in state.iter_mut().zip(p) {
        *x = _mm_xor_si128(*x, *p);
    }
    let mut state = encrypt(keys, state);
    for (x, p) in state.iter_mut().zip(p) {
        *x = _mm_xor_si128(*x, *p);
    }
    state
}

#[target_feature(enable = "aes")]
pub(super) fn hash_xor(keys: &RoundKeys, p: &[Chunk], tweak: u128, acc: &mut [Chunk]) {
    let mut tweak: __m128i = cast(Block(tweak));
    for (p, acc) in p.iter().zip(acc) {
        let mut state = hash(cast_ref(&keys.0), cast_ref(p), tweak);
        for (x, acc) in state.iter_mut().zip(acc.iter()) {
            *x = _mm_xor_si128(*x, cast(*acc));
        }
        *acc = cast(state);
        tweak = _mm_add_epi64(tweak, _mm_set_epi64x(0, LANES as i64));
    }
}

#[target_feature(enable = "aes")]
pub(super) fn hash_lsb(keys: &RoundKeys, p: &[Chunk], tweak: u128, out: &mut [[u8; LANES]]) {
    let mut tweak: __m128i = cast(Block(tweak));
    for (p, out) in p.iter().zip(out) {
        let state = hash(cast_ref(&keys.0), cast_ref(p), tweak);
        for (x, out) in state.iter().zip(out) {
            *out = _mm_cvtsi128_si32(*x) as u8 & 1;
        }
        tweak = _mm_add_epi64(tweak, _mm_set_epi64x(0, LANES as i64));
    }
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
