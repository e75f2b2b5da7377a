//! Kernels for the ARMv8 cryptography extension.
#![allow(unsafe_code)] // A vector kernel may only be called where its instructions were detected.

use core::arch::aarch64::{
    uint8x16_t, uint64x2_t, vaddq_u64, vaeseq_u8, vaesmcq_u8, vdupq_n_u8, veorq_u8, vgetq_lane_u8,
    vreinterpretq_u8_u64,
};
use core::ops::Range;

use bytemuck::cast;

use super::{Chunk, LANES, RCON, RoundKeys, chunks_each};
use crate::Block;

/// Whether this processor has the instructions of this module.
pub(super) fn available() -> bool {
    std::arch::is_aarch64_feature_detected!("aes")
}

/// Key schedule of FIPS 197. `aese` with a zero key on a vector of four equal words is SubWord, since
/// ShiftRows does nothing there.
#[target_feature(enable = "neon,aes")]
pub(super) fn expand(key: Block) -> RoundKeys {
    let mut keys = [key; 11];
    let mut round_key = key.0;
    for (slot, rcon) in keys[1..].iter_mut().zip(RCON) {
        let last = ((round_key >> 96) as u32).rotate_right(8);
        let words: uint8x16_t = cast([last; 4]);
        let substituted: [u32; 4] = cast(vaeseq_u8(words, vdupq_n_u8(0)));
        round_key ^= round_key << 32;
        round_key ^= round_key << 64;
        let word = u128::from(substituted[0] ^ rcon as u32);
        round_key ^= word | word << 32 | word << 64 | word << 96;
        *slot = Block(round_key);
    }
    RoundKeys(keys)
}

#[inline]
#[target_feature(enable = "neon,aes")]
fn encrypt(keys: &[uint8x16_t; 11], mut state: [uint8x16_t; LANES]) -> [uint8x16_t; LANES] {
    for key in &keys[..9] {
        for x in &mut state {
            *x = vaesmcq_u8(vaeseq_u8(*x, *key));
        }
    }
    for x in &mut state {
        *x = veorq_u8(vaeseq_u8(*x, keys[9]), keys[10]);
    }
    state
}

/// `start + 0 … start + 7`, without carry into the high half: see [`super::Cipher`].
#[inline]
#[target_feature(enable = "neon")]
fn count(start: uint64x2_t) -> [uint8x16_t; LANES] {
    let mut lanes = [vdupq_n_u8(0); LANES];
    for (i, lane) in lanes.iter_mut().enumerate() {
        *lane = vreinterpretq_u8_u64(vaddq_u64(start, cast([i as u64, 0])));
    }
    lanes
}

#[target_feature(enable = "neon,aes")]
pub(super) fn permute_xor(keys: &RoundKeys, src: &[Chunk], offset: Block, dst: &mut [Chunk]) {
    let mut keys: [uint8x16_t; 11] = cast(keys.0);
    keys[0] = veorq_u8(keys[0], cast(offset));
    for (src, dst) in src.iter().zip(dst) {
        *dst = cast(encrypt(&keys, cast(*src)));
    }
}

/// `π(p ^ tweaks) ^ p` for one chunk.
#[inline]
#[target_feature(enable = "neon,aes")]
fn hash(keys: &[uint8x16_t; 11], p: &[uint8x16_t; LANES], tweak: uint64x2_t) -> [uint8x16_t; LANES] {
    let mut state = count(tweak);
    for (x, p) in state.iter_mut().zip(p) {
        *x = veorq_u8(*x, *p);
    }
    let mut state = encrypt(keys, state);
    for (x, p) in state.iter_mut().zip(p) {
        *x = veorq_u8(*x, *p);
    }
    state
}

#[target_feature(enable = "neon,aes")]
pub(super) fn hash_xor(keys: &RoundKeys, p: &[Chunk], tweak: u128, acc: &mut [Chunk]) {
    let keys: [uint8x16_t; 11] = cast(keys.0);
    let mut tweak: uint64x2_t = cast(Block(tweak));
    for (p, acc) in p.iter().zip(acc) {
        let mut state = hash(&keys, &cast(*p), tweak);
        for (x, acc) in state.iter_mut().zip(acc.iter()) {
            *x = veorq_u8(*x, cast(*acc));
        }
        *acc = cast(state);
        tweak = vaddq_u64(tweak, cast([LANES as u64, 0]));
    }
}

#[target_feature(enable = "neon,aes")]
pub(super) fn hash_lsb(keys: &RoundKeys, p: &[Chunk], tweak: u128, out: &mut [[u8; LANES]]) {
    let keys: [uint8x16_t; 11] = cast(keys.0);
    let mut tweak: uint64x2_t = cast(Block(tweak));
    for (p, out) in p.iter().zip(out) {
        let state = hash(&keys, &cast(*p), tweak);
        for (x, out) in state.iter().zip(out) {
            *out = vgetq_lane_u8::<0>(*x) & 1;
        }
        tweak = vaddq_u64(tweak, cast([LANES as u64, 0]));
    }
}

#[target_feature(enable = "neon,aes")]
pub(super) fn keystreams(keys: &[RoundKeys], range: Range<usize>, counter: u128, dst: &mut [Chunk]) {
    for (keys, dst) in keys[range.clone()].iter().zip(dst.chunks_exact_mut(chunks_each(&range, dst.len()))) {
        let keys: [uint8x16_t; 11] = cast(keys.0);
        let mut counter: uint64x2_t = cast(Block(counter));
        for dst in dst {
            *dst = cast(encrypt(&keys, count(counter)));
            counter = vaddq_u64(counter, cast([LANES as u64, 0]));
        }
    }
}
