//! Portable kernels over the `aes` crate: the reference for the vector kernels, and what runs where no AES
//! instructions are found. (The crate is constant-time on every platform.)

use core::ops::Range;

use ::aes::Aes128;
use ::aes::cipher::{Array, BlockCipherEncrypt, KeyInit};

use super::{Chunk, LANES, chunks_each};
use crate::Block;

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

fn xor(a: Chunk, b: &Chunk) -> Chunk {
    core::array::from_fn(|lane| a[lane] ^ b[lane])
}

pub(super) fn permute_xor(key: &Portable, src: &[Chunk], offset: Block, dst: &mut [Chunk]) {
    for (src, dst) in src.iter().zip(dst) {
        *dst = key.encrypt(src.map(|x| x ^ offset));
    }
}

/// `π(p ^ tweaks) ^ p`, chunk by chunk.
fn hash<'a>(key: &'a Portable, p: &'a [Chunk], tweak: u128) -> impl Iterator<Item = Chunk> + 'a {
    let tweaks = (0..).map(move |i: u128| count(tweak.wrapping_add(i * LANES as u128)));
    p.iter().zip(tweaks).map(|(p, tweaks)| xor(key.encrypt(xor(tweaks, p)), p))
}

pub(super) fn hash_xor(key: &Portable, p: &[Chunk], tweak: u128, acc: &mut [Chunk]) {
    for (acc, hash) in acc.iter_mut().zip(hash(key, p, tweak)) {
        *acc = xor(*acc, &hash);
    }
}

pub(super) fn hash_lsb(key: &Portable, p: &[Chunk], tweak: u128, out: &mut [[u8; LANES]]) {
    for (out, hash) in out.iter_mut().zip(hash(key, p, tweak)) {
        *out = hash.map(|h| u8::from(h.lsb()));
    }
}

pub(super) fn keystreams(keys: &[Portable], range: Range<usize>, counter: u128, dst: &mut [Chunk]) {
    for (key, dst) in keys[range.clone()].iter().zip(dst.chunks_exact_mut(chunks_each(&range, dst.len()))) {
        for (dst, i) in dst.iter_mut().zip(0_u128..) {
            *dst = key.encrypt(count(counter.wrapping_add(i * LANES as u128)));
        }
    }
}
