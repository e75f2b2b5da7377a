//! Code written once over vectors of eight blocks, compiled for every kind of processor.

use bytemuck::{Pod, cast};

use super::{Chunk, LANES};
use crate::Block;

/// Vectors of [`LANES`] blocks under one AES key.
///
/// A value exists only where its instructions were detected: [`FixedKey::run`](super::FixedKey::run) makes
/// it and lends it to a [`Kernel`]. Every kind gives the same bytes, and none of these functions branches on
/// data or looks it up in a table.
pub trait Engine {
    /// Eight blocks; as bytes, one after the other.
    type Lanes: Pod;

    /// `block` in every lane.
    fn splat(&self, block: Block) -> Self::Lanes;

    /// `a ^ b`.
    fn xor(&self, a: Self::Lanes, b: Self::Lanes) -> Self::Lanes;

    /// `x` in the lanes whose bit is one (lane 0 has the lowest), zero in the others.
    fn select(&self, bits: u8, x: Self::Lanes) -> Self::Lanes;

    /// The lowest bit of every lane, that of lane 0 lowest.
    fn low_bits(&self, x: Self::Lanes) -> u8;

    /// `π` of every lane. All `N` vectors are in flight together where registers allow.
    fn permute<const N: usize>(&self, x: [Self::Lanes; N]) -> [Self::Lanes; N];

    /// Second half of the hash: `H(x, t) = π(p ^ t) ^ p` where `p = π(x)`.
    #[inline(always)]
    fn hash<const N: usize>(&self, p: [Self::Lanes; N], tweaks: [Self::Lanes; N]) -> [Self::Lanes; N] {
        let mut masked = p;
        for (x, t) in masked.iter_mut().zip(tweaks) {
            *x = self.xor(*x, t);
        }
        let mut hash = self.permute(masked);
        for (x, p) in hash.iter_mut().zip(p) {
            *x = self.xor(*x, p);
        }
        hash
    }

    /// The eight blocks of `chunk`.
    #[inline(always)]
    fn load(&self, chunk: &Chunk) -> Self::Lanes {
        cast(*chunk)
    }

    /// Writes the eight blocks to `chunk`.
    #[inline(always)]
    fn store(&self, x: Self::Lanes, chunk: &mut Chunk) {
        *chunk = cast(x);
    }

    /// Eight blocks that lie anywhere in a message.
    #[inline(always)]
    fn load_bytes(&self, bytes: &[u8; 16 * LANES]) -> Self::Lanes {
        cast(*bytes)
    }

    /// Tells the processor that these blocks, a vector of them or what there is, will be read soon. Streams of a
    /// few kilobytes end before it notices them by itself.
    #[inline(always)]
    fn prefetch(&self, _blocks: &[[u8; 16]]) {}

    /// Writes the eight blocks anywhere into a message.
    #[inline(always)]
    fn store_bytes(&self, x: Self::Lanes, bytes: &mut [u8; 16 * LANES]) {
        *bytes = cast(x);
    }

    /// As [`Engine::store_bytes`], past the caches where the processor can: for what is larger than they are
    /// and is read much later. An ordinary store reads the memory that it overwrites, which takes as long again.
    #[inline(always)]
    fn stream_bytes(&self, x: Self::Lanes, bytes: &mut [u8; 16 * LANES]) {
        self.store_bytes(x, bytes);
    }

    /// `first`, `first + 1`, … in the lanes, for a `first` whose low 64 bits do not carry on the way.
    #[inline(always)]
    fn tweaks(&self, first: u128) -> Self::Lanes {
        self.count(first)
    }

    /// `first`, `first + 1`, … in the lanes.
    #[inline(always)]
    fn count(&self, first: u128) -> Self::Lanes {
        let lanes: Chunk = core::array::from_fn(|lane| Block(first.wrapping_add(lane as u128)));
        cast(lanes)
    }
}

/// A computation over any [`Engine`].
///
/// Mark [`Kernel::run`], and whatever it calls with the engine, `#[inline(always)]`: only code inlined there
/// is compiled with the engine's instructions.
pub trait Kernel {
    /// Its result.
    type Output;

    /// Computes with `engine`.
    fn run<E: Engine>(self, engine: &E) -> Self::Output;
}

/// `dst[i] = π(src[i] ^ offset)`.
pub(super) struct PermuteXor<'a> {
    pub(super) src: &'a [Chunk],
    pub(super) offset: Block,
    pub(super) dst: &'a mut [Chunk],
}

impl Kernel for PermuteXor<'_> {
    type Output = ();

    #[inline(always)]
    fn run<E: Engine>(self, engine: &E) {
        let offset = engine.splat(self.offset);
        for (src, dst) in self.src.iter().zip(self.dst) {
            let [y] = engine.permute([engine.xor(engine.load(src), offset)]);
            engine.store(y, dst);
        }
    }
}

/// `acc[i] ^= π(p[i] ^ (tweak + i)) ^ p[i]`.
pub(super) struct HashXor<'a> {
    pub(super) p: &'a [Chunk],
    pub(super) tweak: u128,
    pub(super) acc: &'a mut [Chunk],
}

impl Kernel for HashXor<'_> {
    type Output = ();

    #[inline(always)]
    fn run<E: Engine>(self, engine: &E) {
        let mut tweak = self.tweak;
        for (p, acc) in self.p.iter().zip(self.acc) {
            let [hash] = engine.hash([engine.load(p)], [engine.count(tweak)]);
            engine.store(engine.xor(engine.load(acc), hash), acc);
            tweak = tweak.wrapping_add(LANES as u128);
        }
    }
}
