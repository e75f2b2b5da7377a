//! Kernels for the ARMv8 cryptography extension.
#![allow(unsafe_code)] // A vector kernel may only be called where its instructions were detected.

use core::arch::aarch64::{
    uint8x16_t, uint64x2_t, vaddq_u64, vaeseq_u8, vaesmcq_u8, vandq_u8, vdupq_n_u8, veorq_u8, vgetq_lane_u8,
    vreinterpretq_u8_u64, vtstq_u8,
};
use core::ops::Range;

use bytemuck::cast;

use super::{Chunk, Engine, Kernel, LANES, RCON, RoundKeys, chunks_each};
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

/// Round keys for vectors of one block.
struct Narrow([uint8x16_t; 11]);

// SAFETY of every call below: `run` alone makes a `Narrow`, and it may be called only where these
// instructions were detected.
impl Engine for Narrow {
    type Lanes = [uint8x16_t; LANES];

    #[inline(always)]
    fn splat(&self, block: Block) -> Self::Lanes {
        [cast(block); LANES]
    }

    #[inline(always)]
    fn xor(&self, mut a: Self::Lanes, b: Self::Lanes) -> Self::Lanes {
        for (a, b) in a.iter_mut().zip(b) {
            // SAFETY: see above.
            *a = unsafe { veorq_u8(*a, b) };
        }
        a
    }

    #[inline(always)]
    fn select(&self, bits: u8, mut x: Self::Lanes) -> Self::Lanes {
        // Behind the barrier nobody knows that all its bytes are the same, and what follows stays a vector's.
        // SAFETY: see above.
        let bits = core::hint::black_box(unsafe { vdupq_n_u8(bits) });
        for (lane, x) in x.iter_mut().enumerate() {
            // SAFETY: see above.
            *x = unsafe { vandq_u8(*x, vtstq_u8(bits, vdupq_n_u8(1 << lane))) };
        }
        x
    }

    #[inline(always)]
    fn low_bits(&self, x: Self::Lanes) -> u8 {
        let mut bits = 0;
        for (lane, x) in x.iter().enumerate() {
            // SAFETY: see above.
            bits |= (unsafe { vgetq_lane_u8::<0>(*x) } & 1) << lane;
        }
        bits
    }

    #[inline(always)]
    fn tweaks(&self, first: u128) -> Self::Lanes {
        // SAFETY: see above.
        unsafe { count(cast(Block(first))) }
    }

    #[inline(always)]
    fn permute<const N: usize>(&self, mut x: [Self::Lanes; N]) -> [Self::Lanes; N] {
        for x in &mut x {
            // SAFETY: see above.
            *x = unsafe { encrypt(&self.0, *x) };
        }
        x
    }
}

#[target_feature(enable = "neon,aes")]
pub(super) fn run<K: Kernel>(keys: &RoundKeys, kernel: K) -> K::Output {
    kernel.run(&Narrow(cast(keys.0)))
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
