//! AES-128 as a fixed-key permutation and as a counter-mode generator.
//!
//! The kernels are chosen at run time: AES-NI or its 512-bit form (VAES) on x86-64, the ARMv8 cryptography
//! extension on AArch64, else the `aes` crate. The environment variable `SECO_PORTABLE=1`, read once, forces
//! the last. All give the same bytes.

#[cfg(target_arch = "x86_64")]
mod aesni;
#[cfg(target_arch = "aarch64")]
mod armv8;
mod cipher;
mod engine;
mod portable;
#[cfg(test)]
mod tests;
#[cfg(target_arch = "x86_64")]
mod vaes;

use core::ops::Range;

use zeroize::{Zeroize, Zeroizing};

use crate::Block;
pub(crate) use cipher::{Backend, Cipher, Keystreams};
pub use engine::{Engine, Kernel};
use engine::{HashXor, PermuteXor};

/// Blocks in a vector of an [`Engine`].
pub const LANES: usize = 8;

/// A vector of an [`Engine`] in memory: [`LANES`] blocks.
pub type Chunk = [Block; LANES];

/// Round constants of the AES-128 key schedule (FIPS 197, section 5.2).
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
const RCON: [i32; 10] = [0x01, 0x02, 0x04, 0x08, 0x10, 0x20, 0x40, 0x80, 0x1b, 0x36];

/// Expanded key of the vector kernels, zeroized on drop.
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
#[derive(Clone, zeroize::ZeroizeOnDrop)]
struct RoundKeys([Block; 11]);

/// Fixed-key AES-128: the public permutation `π` and the hash `H(x, t) = π(π(x) ^ t) ^ π(x)`, tweakable
/// circular-correlation robust (TCCR) in the ideal-permutation model (TMMO of Guo, Katz, Wang, Yu 2020,
/// eprint 2019/074).
///
/// The key is public; draw it at random and afresh for every bundle and chunk, because the hash loses
/// security with the number of calls under one key (Guo et al., eprint 2019/1168). No tweak may be used twice
/// with one `x`.
///
/// Where two slices are taken, the shorter one bounds the work.
#[derive(Clone)]
pub struct FixedKey(Cipher);

impl FixedKey {
    /// The permutation under a public `key`, with the fastest kernels found.
    pub fn new(key: [u8; 16]) -> Self {
        Self(Cipher::new(Block::from_bytes(key), Backend::best()))
    }

    /// The same with the portable kernels, to compare against.
    pub fn portable(key: [u8; 16]) -> Self {
        Self(Cipher::new(Block::from_bytes(key), Backend::Portable))
    }

    /// Runs `kernel` with the vectors of this processor.
    pub fn run<K: Kernel>(&self, kernel: K) -> K::Output {
        self.0.run(kernel)
    }

    /// `dst[i] = π(src[i])`.
    pub fn permute(&self, src: &[Block], dst: &mut [Block]) {
        self.permute_xor(src, Block::ZERO, dst);
    }

    /// `dst[i] = π(src[i] ^ offset)`.
    pub fn permute_xor(&self, src: &[Block], offset: Block, dst: &mut [Block]) {
        let n = src.len().min(dst.len());
        let (src, rest) = src[..n].as_chunks();
        let (dst, rest_out) = dst[..n].as_chunks_mut();
        self.run(PermuteXor { src, offset, dst });
        if !rest.is_empty() {
            let mut out = [[Block::ZERO; LANES]];
            self.run(PermuteXor { src: &[padded(rest)], offset, dst: &mut out });
            rest_out.copy_from_slice(&out[0][..rest.len()]);
        }
    }

    /// Second half of the hash, given `p[i] = π(x[i])`: `acc[i] ^= H(x[i], tweak + i)`.
    pub fn hash_xor(&self, p: &[Block], tweak: u128, acc: &mut [Block]) {
        let n = p.len().min(acc.len());
        let (p, rest) = p[..n].as_chunks();
        let (acc, rest_acc) = acc[..n].as_chunks_mut();
        self.run(HashXor { p, tweak, acc });
        if !rest.is_empty() {
            let mut out = [padded(rest_acc)];
            let tweak = tweak.wrapping_add((n - rest.len()) as u128);
            self.run(HashXor { p: &[padded(rest)], tweak, acc: &mut out });
            rest_acc.copy_from_slice(&out[0][..rest.len()]);
        }
    }
}

/// Chunks of output for each of a range of keys; 1 where there is nothing to do.
fn chunks_each(keys: &Range<usize>, chunks: usize) -> usize {
    chunks.checked_div(keys.len()).unwrap_or(1).max(1)
}

/// Fewer than [`LANES`] blocks, filled up with zeros.
fn padded(rest: &[Block]) -> Chunk {
    let mut chunk = [Block::ZERO; LANES];
    chunk[..rest.len()].copy_from_slice(rest);
    chunk
}

/// AES-128 in counter mode under a secret seed: bulk labels and masks. Block `i` of the stream is
/// `AES_seed(i)`, `i` as 16 bytes little-endian. Zeroized on drop.
pub struct Prg {
    stream: Keystreams,
    counter: u128,
}

impl Prg {
    /// The stream of `seed`, from its beginning. Use a seed for one generator and nothing else.
    pub fn new(seed: Block) -> Self {
        Self { stream: Keystreams::new(&[seed], Backend::best()), counter: 0 }
    }

    /// The next `dst.len()` blocks.
    pub fn fill(&mut self, dst: &mut [Block]) {
        // The counter starts at 0 and never reaches 2^64, so the kernels need no carry.
        let (chunks, rest) = dst.as_chunks_mut();
        self.stream.fill(0..1, self.counter, chunks);
        self.counter += (chunks.len() * LANES) as u128;
        if !rest.is_empty() {
            let mut chunk = Zeroizing::new([[Block::ZERO; LANES]]);
            self.stream.fill(0..1, self.counter, chunk.as_mut());
            rest.copy_from_slice(&chunk[0][..rest.len()]);
            self.counter += rest.len() as u128;
        }
    }

    /// The next `ceil(dst.len() / 16)` blocks as bytes; the end of the last one is thrown away.
    pub fn fill_bytes(&mut self, dst: &mut [u8]) {
        let mut blocks = Zeroizing::new([Block::ZERO; 4 * LANES]);
        for part in dst.chunks_mut(size_of_val(&*blocks)) {
            let used = &mut blocks[..part.len().div_ceil(16)];
            self.fill(used);
            part.copy_from_slice(&bytemuck::cast_slice(used)[..part.len()]);
        }
    }
}

impl Drop for Prg {
    fn drop(&mut self) {
        self.counter.zeroize();
    }
}
