//! AES kernels with 512-bit vectors: four blocks to an instruction, two vectors to a chunk.
#![allow(unsafe_code)] // A vector kernel may only be called where its instructions were detected.

use core::arch::x86_64::{
    __m512i, _mm_cvtsi128_si64, _mm512_add_epi64, _mm512_aesenc_epi128, _mm512_aesenclast_epi128,
    _mm512_and_si512, _mm512_broadcast_i32x4, _mm512_cvtepi64_epi8, _mm512_permutex2var_epi64,
    _mm512_set_epi64, _mm512_set1_epi64, _mm512_setzero_si512, _mm512_xor_si512,
};
use core::ops::Range;

use bytemuck::cast;

use super::{Chunk, LANES, RoundKeys, aesni, chunks_each};
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

#[inline]
#[target_feature(enable = "avx512f")]
fn xor(a: Pair, b: Pair) -> Pair {
    [_mm512_xor_si512(a[0], b[0]), _mm512_xor_si512(a[1], b[1])]
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

#[target_feature(enable = "avx512f,vaes")]
pub(super) fn permute_xor(keys: &RoundKeys, src: &[Chunk], offset: Block, dst: &mut [Chunk]) {
    let mut keys = broadcast(keys);
    keys[0] = _mm512_xor_si512(keys[0], _mm512_broadcast_i32x4(cast(offset)));
    for (src, dst) in src.iter().zip(dst) {
        *dst = cast(encrypt(&keys, cast(*src)));
    }
}

#[target_feature(enable = "avx512f,vaes")]
pub(super) fn hash_xor(keys: &RoundKeys, p: &[Chunk], tweak: u128, acc: &mut [Chunk]) {
    let keys = broadcast(keys);
    let mut tweaks = count(tweak);
    for (p, acc) in p.iter().zip(acc) {
        let p: Pair = cast(*p);
        let hash = xor(encrypt(&keys, xor(p, tweaks)), p);
        *acc = cast(xor(hash, cast(*acc)));
        tweaks = advance(tweaks);
    }
}

#[target_feature(enable = "avx512f,vaes")]
pub(super) fn hash_lsb(keys: &RoundKeys, p: &[Chunk], tweak: u128, out: &mut [[u8; LANES]]) {
    let keys = broadcast(keys);
    let mut tweaks = count(tweak);
    // The low half of every block, of both vectors.
    let low_halves = _mm512_set_epi64(14, 12, 10, 8, 6, 4, 2, 0);
    for (p, out) in p.iter().zip(out) {
        let p: Pair = cast(*p);
        let [x, y] = xor(encrypt(&keys, xor(p, tweaks)), p);
        let halves = _mm512_permutex2var_epi64(x, low_halves, y);
        let bits = _mm512_cvtepi64_epi8(_mm512_and_si512(halves, _mm512_set1_epi64(1)));
        *out = _mm_cvtsi128_si64(bits).to_le_bytes();
        tweaks = advance(tweaks);
    }
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
