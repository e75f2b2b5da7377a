//! Portable kernels over the `aes` crate: the reference for the vector kernels, and what runs where no AES
//! instructions are found. (The crate is constant-time on every platform.)

use core::ops::Range;

use ::aes::Aes128;
use ::aes::cipher::{Array, BlockCipherEncrypt, KeyInit};

use super::{Chunk, Engine, Kernel, LANES, chunks_each};
use crate::{Block, Mask};

/// Expanded key; the crate zeroizes it on drop.
#[derive(Clone)]
pub(super) struct Portable(Box<Aes128>);

impl Portable {
    pub(super) fn new(key: Block) -> Self {
        Self(Box::new(Aes128::new(&Array::from(key.to_bytes()))))
    }

    fn encrypt(&self, mut chunk: Chunk) -> Chunk {
        let bytes: &mut [[u8; 16]; LANES] = bytemuck::cast_mut(&mut chunk);
        self.0.encrypt_blocks(Array::cast_slice_from_core_mut(bytes));
        chunk
    }
}

/// `start + 0 … start + 7`.
fn count(start: u128) -> Chunk {
    core::array::from_fn(|lane| Block(start.wrapping_add(lane as u128)))
}

impl Engine for Portable {
    type Lanes = Chunk;

    #[inline(always)]
    fn splat(&self, block: Block) -> Chunk {
        [block; LANES]
    }

    #[inline(always)]
    fn xor(&self, mut a: Chunk, b: Chunk) -> Chunk {
        for (a, b) in a.iter_mut().zip(b) {
            *a ^= b;
        }
        a
    }

    #[inline(always)]
    fn select(&self, bits: u8, mut x: Chunk) -> Chunk {
        for (lane, x) in x.iter_mut().enumerate() {
            *x = x.select(Mask::of_bit(u64::from(bits), lane));
        }
        x
    }

    #[inline(always)]
    fn low_bits(&self, x: Chunk) -> u8 {
        x.iter().enumerate().fold(0, |bits, (lane, x)| bits | u8::from(x.lsb()) << lane)
    }

    #[inline(always)]
    fn permute<const N: usize>(&self, mut x: [Chunk; N]) -> [Chunk; N] {
        for x in &mut x {
            *x = self.encrypt(*x);
        }
        x
    }
}

// Not within its caller, whose choice of a backend is a jump: see `server/tests/constant-time`.
#[inline(never)]
pub(super) fn run<K: Kernel>(key: &Portable, kernel: K) -> K::Output {
    kernel.run(key)
}

pub(super) fn keystreams(keys: &[Portable], range: Range<usize>, counter: u128, dst: &mut [Chunk]) {
    for (key, dst) in keys[range.clone()].iter().zip(dst.chunks_exact_mut(chunks_each(&range, dst.len()))) {
        for (dst, i) in dst.iter_mut().zip(0_u128..) {
            *dst = key.encrypt(count(counter.wrapping_add(i * LANES as u128)));
        }
    }
}
