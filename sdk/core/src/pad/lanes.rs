//! ChaCha12 for processors for which the `chacha20` crate has no fast code, or none that adds up the keystreams of several
//! keys in one pass over the data: a keystream's blocks side by side in lanes of vectors, or one after the other in
//! registers. Compared with that crate by a test.
//!
//! `cross/cost` counts the instructions of a request. What the rounds leave in registers and on the stack is not wiped,
//! as that crate does not either.
#![allow(clippy::indexing_slicing, reason = "indices are constants once loops over words are unrolled")]

#[cfg(any(test, target_arch = "x86_64"))]
use crate::MAX_SERVERS;
use zeroize::{Zeroize, ZeroizeOnDrop};

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(all(target_arch = "aarch64", target_feature = "neon", target_endian = "little"))]
mod neon;

/// Words of a block.
const WORDS: usize = 16;
const ROUNDS: usize = 12;

/// Bytes of a block.
const BLOCK: usize = 64;

/// The most blocks side by side.
const MOST: usize = if cfg!(target_arch = "x86_64") {
    8
} else if cfg!(target_arch = "aarch64") {
    4
} else {
    1
};

/// A word of each of some blocks.
trait Lanes: Copy {
    /// Blocks side by side.
    const COUNT: usize;
    /// The same word in all.
    fn splat(word: u32) -> Self;
    /// The numbers of blocks that follow each other.
    fn numbers(first: u32) -> Self;
    fn add(self, other: Self) -> Self;
    fn xor(self, other: Self) -> Self;
    /// The XOR of both, turned left.
    fn mix<const LEFT: u32>(self, other: Self) -> Self;
    /// XORs blocks into `COUNT * BLOCK` bytes.
    fn xor_into(blocks: &[Self; WORDS], to: &mut [u8]);
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
    fn xor(self, other: u32) -> u32 {
        self ^ other
    }

    #[inline(always)]
    fn mix<const LEFT: u32>(self, other: u32) -> u32 {
        (self ^ other).rotate_left(LEFT)
    }

    #[inline(always)]
    fn xor_into(block: &[u32; WORDS], to: &mut [u8]) {
        for (bytes, word) in to.as_chunks_mut::<4>().0.iter_mut().zip(block) {
            *bytes = (u32::from_le_bytes(*bytes) ^ word).to_le_bytes();
        }
    }
}

/// A keystream's state for block 0, and the same with the first half round done but for its first quarter: the other three
/// do not depend on the block's number.
#[derive(Zeroize, ZeroizeOnDrop)]
struct Stream {
    state: [u32; WORDS],
    first: [u32; WORDS],
}

impl Stream {
    /// "expand 32-byte k", and nothing yet.
    const EMPTY: Self = {
        let state = [0x6170_7865, 0x3320_646e, 0x7962_2d32, 0x6b20_6574, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        Self { state, first: [0; WORDS] }
    };

    /// In its place, for what is moved leaves copies.
    fn set(&mut self, key: &[u8; 32], nonce: &[u8; 12]) {
        for (word, bytes) in self.state[4..12].iter_mut().zip(key.as_chunks::<4>().0) {
            *word = u32::from_le_bytes(*bytes);
        }
        for (word, bytes) in self.state[13..].iter_mut().zip(nonce.as_chunks::<4>().0) {
            *word = u32::from_le_bytes(*bytes);
        }
        self.first = self.state;
        for i in 1..4 {
            quarter(&mut self.first, i, 4 + i, 8 + i, 12 + i);
        }
    }

    /// The `COUNT` blocks from number `at` on.
    #[inline(always)]
    fn blocks<L: Lanes>(&self, at: u32) -> [L; WORDS] {
        let numbers = L::numbers(at);
        let mut x = [numbers; WORDS];
        for (i, (x, first)) in x.iter_mut().zip(&self.first).enumerate() {
            if i != 12 {
                *x = L::splat(*first);
            }
        }
        quarter(&mut x, 0, 4, 8, 12);
        diagonals(&mut x);
        for _ in 1..ROUNDS / 2 {
            for i in 0..4 {
                quarter(&mut x, i, 4 + i, 8 + i, 12 + i);
            }
            diagonals(&mut x);
        }
        for (i, (x, state)) in x.iter_mut().zip(&self.state).enumerate() {
            *x = x.add(if i == 12 { numbers } else { L::splat(*state) });
        }
        x
    }
}

/// XORs the keystreams of all `keys` under one nonce into `values` from block 0 on: at most `2^32` blocks, or they repeat, as
/// the caller sees to. `false` if there is no fast code for that on this processor; nothing is done then.
pub(super) fn apply<'k>(
    keys: impl Iterator<Item = &'k [u8; 32]>,
    nonce: &[u8; 12],
    values: &mut [u8],
) -> bool {
    #[cfg(target_arch = "x86_64")]
    {
        let Some(summed) = avx2::summed() else { return false };
        let mut streams = heapless::Vec::<Stream, MAX_SERVERS>::new();
        for key in keys {
            // The library takes any number of keys.
            if streams.push(Stream::EMPTY).is_err() {
                return false;
            }
            streams.iter_mut().next_back().into_iter().for_each(|stream| stream.set(key, nonce));
        }
        summed(&streams, values);
        !streams.is_empty()
    }
    #[cfg(all(target_arch = "aarch64", target_feature = "neon", target_endian = "little"))]
    {
        one_by_one::<neon::Vector>(keys, nonce, values);
        true
    }
    #[cfg(not(any(
        target_arch = "x86_64",
        all(target_arch = "aarch64", target_feature = "neon", target_endian = "little")
    )))]
    {
        one_by_one::<u32>(keys, nonce, values);
        true
    }
}

/// Each in a pass of its own. Where vectors are short or there are none, what the sum takes in registers and memory costs
/// more than another pass.
#[cfg(any(test, not(target_arch = "x86_64")))]
fn one_by_one<'k, L: Lanes>(keys: impl Iterator<Item = &'k [u8; 32]>, nonce: &[u8; 12], values: &mut [u8]) {
    let mut stream = [Stream::EMPTY];
    for key in keys {
        stream[0].set(key, nonce);
        passed::<L, false>(&stream, values);
    }
}

/// XORs the streams, or the only one, in one pass.
#[inline(always)]
fn passed<L: Lanes, const MANY: bool>(streams: &[Stream], values: &mut [u8]) {
    let group = BLOCK * L::COUNT;
    const { assert!(L::COUNT <= MOST) }
    if streams.is_empty() {
        return;
    }
    let mut at = 0u32;
    let mut chunks = values.chunks_exact_mut(group);
    for chunk in &mut chunks {
        blocks::<L, MANY>(streams, at, chunk);
        at = at.wrapping_add(L::COUNT as u32);
    }
    let rest = chunks.into_remainder();
    if rest.is_empty() {
        return;
    }
    let mut last = [0; BLOCK * MOST];
    last[..rest.len()].copy_from_slice(rest);
    blocks::<L, MANY>(streams, at, &mut last[..group]);
    rest.copy_from_slice(&last[..rest.len()]);
    // What was in clear may be again.
    last[..rest.len()].zeroize();
}

/// XORs the `COUNT` blocks of all streams from number `at` on.
#[inline(always)]
fn blocks<L: Lanes, const MANY: bool>(streams: &[Stream], at: u32, values: &mut [u8]) {
    let Some((first, others)) = streams.split_first() else { return };
    if !MANY {
        return L::xor_into(&first.blocks::<L>(at), values);
    }
    // One place for the rounds: they are long.
    let mut sum = [L::splat(0); WORDS];
    let (mut stream, mut others, mut begun) = (first, others.iter(), false);
    loop {
        let x = stream.blocks::<L>(at);
        for (sum, x) in sum.iter_mut().zip(x) {
            *sum = if begun { sum.xor(x) } else { x };
        }
        begun = true;
        match others.next() {
            Some(other) => stream = other,
            None => break,
        }
    }
    L::xor_into(&sum, values);
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

#[cfg(test)]
mod tests {
    #[cfg(target_arch = "x86_64")]
    extern crate std;

    use super::{MAX_SERVERS, apply, one_by_one};
    use chacha20::ChaCha12;
    use chacha20::cipher::{KeyIvInit, StreamCipher};

    /// Of all lengths around the edges of blocks and vectors, of one key and of several, also by the code of processors
    /// without vectors.
    #[test]
    fn the_keystreams_are_the_library_s() {
        let nonce: [u8; 12] = core::array::from_fn(|i| (i * 29 + 1) as u8);
        let keys: [[u8; 32]; MAX_SERVERS] =
            core::array::from_fn(|key| core::array::from_fn(|i| (i * 7 + key * 91) as u8));
        let given: [u8; 4130] = core::array::from_fn(|i| (i * 31) as u8);
        let mut fast = 0;
        for len in (0..1100).chain([3072, 4095, 4096, 4097]) {
            for count in [1, 2, 3, MAX_SERVERS] {
                // Of any alignment.
                let (keys, place) = (&keys[..count], len % 33..len % 33 + len);
                let mut right = given;
                for key in keys {
                    ChaCha12::new(key.into(), (&nonce).into()).apply_keystream(&mut right[place.clone()]);
                }
                let (mut made, mut plain) = (given, given);
                one_by_one::<u32>(keys.iter(), &nonce, &mut plain[place.clone()]);
                assert_eq!(plain, right, "{count} keys, {len} bytes");
                if apply(keys.iter(), &nonce, &mut made[place]) {
                    assert_eq!(made, right, "{count} keys, {len} bytes");
                    fast += 1;
                } else {
                    assert_eq!(made, given);
                }
            }
        }
        // So that it is seen what was tested.
        #[cfg(target_arch = "x86_64")]
        let has = std::is_x86_feature_detected!("avx2");
        #[cfg(not(target_arch = "x86_64"))]
        let has = true;
        assert_eq!(fast, if has { 4 * 1104 } else { 0 });
    }
}
