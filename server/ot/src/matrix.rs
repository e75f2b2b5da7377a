//! Bit matrices of OT extension: folding the streams of a tree into rows, and the transposition from 128 long
//! rows to the 128-bit block of each transfer.
//!
//! Plain integer arithmetic on whole rows, which the compiler turns into whatever vectors it may use: the
//! same source is compiled once portably and once for each vector width.

use zeroize::DefaultIsZeroes;

use crate::Block;
use crate::aes::{Backend, Chunk, LANES};
#[cfg(target_arch = "x86_64")]
use crate::matrix_x86;

/// A row across the matrices of a tile, aligned for the widest loads.
#[repr(C, align(64))]
#[derive(Clone, Copy, Default, bytemuck::Pod, bytemuck::Zeroable)]
pub(crate) struct Row(pub(crate) Chunk);

impl DefaultIsZeroes for Row {}

impl Row {
    pub(crate) const ZERO: Self = Self([Block::ZERO; LANES]);

    /// As 64-bit words, lowest first.
    #[inline(always)]
    pub(crate) fn words(&mut self) -> &mut [u64; 2 * LANES] {
        bytemuck::cast_mut(&mut self.0)
    }

    /// `self` if `bit`, else zero, without a branch.
    pub(crate) fn select(self, bit: bool) -> Self {
        Self(self.0.map(|block| block.select(bit)))
    }

    /// `self ^= other`.
    #[inline(always)]
    pub(crate) fn xor(&mut self, mut other: Self) {
        self.words().iter_mut().zip(other.words()).for_each(|(a, b)| *a ^= *b);
    }
}

/// Eight bit matrices of 128 by 128 side by side: block `t` of row `r` is row `r` of matrix `t`, its bit `j`
/// column `j`.
pub(crate) type Tile = [Row; 128];

/// The kernels of this module for one kind of vectors.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kernel {
    Portable,
    #[cfg(target_arch = "x86_64")]
    X86(matrix_x86::Width),
}

impl Kernel {
    /// Every kind that this processor can run, the fastest last.
    pub(crate) fn available() -> Vec<Self> {
        let found = core::iter::once(Self::Portable);
        #[cfg(target_arch = "x86_64")]
        let found = found.chain(matrix_x86::available().into_iter().map(Self::X86));
        found.collect()
    }

    /// The fastest kind, or the portable one where [`Backend::best`] is the portable one.
    pub(crate) fn best() -> Self {
        match Backend::best() {
            Backend::Portable => Self::Portable,
            _ => Self::available().last().copied().unwrap_or(Self::Portable),
        }
    }

    /// Transposes every matrix of the tile in place.
    pub(crate) fn transpose(self, tile: &mut Tile) {
        match self {
            Self::Portable => transpose(tile),
            #[cfg(target_arch = "x86_64")]
            Self::X86(width) => width.transpose(tile),
        }
    }

    /// From `2^k` streams, their sum into the first of them, and into row `b` the sum of those whose number
    /// has bit `b` set. Leaves the other streams changed.
    pub(crate) fn fold(self, streams: &mut [Row], rows: &mut [Row]) {
        match self {
            Self::Portable => fold(streams, rows),
            #[cfg(target_arch = "x86_64")]
            Self::X86(width) => width.fold(streams, rows),
        }
    }
}

/// Writes columns as they belong to the transfers: after [`Kernel::transpose`], block `t` of row `j` is
/// transfer `128 t + j`. At most `out.len()` are written.
pub(crate) fn scatter(tile: &Tile, out: &mut [Block]) {
    for (t, out) in out.chunks_mut(128).enumerate().take(LANES) {
        for (out, row) in out.iter_mut().zip(tile) {
            *out = row.0[t];
        }
    }
}

/// See [`Kernel::fold`]. Adding neighbours halves the numbers each time, so all rows together cost two
/// additions per stream.
#[inline(always)]
pub(crate) fn fold(streams: &mut [Row], rows: &mut [Row]) {
    let mut n = streams.len();
    for row in rows {
        n /= 2;
        let mut sum = Row::ZERO;
        for i in 0..n {
            let (mut even, odd) = (streams[2 * i], streams[2 * i + 1]);
            sum.xor(odd);
            even.xor(odd);
            streams[i] = even;
        }
        *row = sum;
    }
}

/// Recursive block swap (Eklundh 1972): at each of seven scales, the upper right quarter changes places with
/// the lower left.
#[inline(always)]
pub(crate) fn transpose(tile: &mut Tile) {
    swap_halves(tile);
    swap::<32>(tile, 0x0000_0000_ffff_ffff);
    swap::<16>(tile, 0x0000_ffff_0000_ffff);
    swap::<8>(tile, 0x00ff_00ff_00ff_00ff);
    swap::<4>(tile, 0x0f0f_0f0f_0f0f_0f0f);
    swap::<2>(tile, 0x3333_3333_3333_3333);
    swap::<1>(tile, 0x5555_5555_5555_5555);
}

/// The scale of 64 columns: whole 64-bit halves.
#[inline(always)]
fn swap_halves(tile: &mut Tile) {
    let (upper, lower) = tile.split_at_mut(64);
    for (a, b) in upper.iter_mut().zip(lower) {
        let (upper, lower) = (*a.words(), *b.words());
        for (i, (a, b)) in a.words().iter_mut().zip(b.words()).enumerate() {
            *a = if i % 2 == 0 { upper[i] } else { lower[i - 1] };
            *b = if i % 2 == 0 { upper[i + 1] } else { lower[i] };
        }
    }
}

/// The scale of `S < 64` columns; `low` marks the columns whose number has bit `S` clear.
#[inline(always)]
fn swap<const S: usize>(tile: &mut Tile, low: u64) {
    for pair in tile.chunks_exact_mut(2 * S) {
        let (upper, lower) = pair.split_at_mut(S);
        for (a, b) in upper.iter_mut().zip(lower) {
            for (a, b) in a.words().iter_mut().zip(b.words()) {
                let difference = (*a >> S ^ *b) & low;
                *a ^= difference << S;
                *b ^= difference;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use chacha20::ChaCha20Rng;
    use rand_core::{Rng, SeedableRng};

    fn random_rows(seed: u8, n: usize) -> Vec<Row> {
        let mut rows = vec![Row::ZERO; n];
        ChaCha20Rng::from_seed([seed; 32]).fill_bytes(bytemuck::cast_slice_mut(&mut rows));
        rows
    }

    fn random_tile(seed: u8) -> Box<Tile> {
        random_rows(seed, 128).into_boxed_slice().try_into().ok().unwrap()
    }

    fn same(a: &[Row], b: &[Row]) -> bool {
        bytemuck::cast_slice::<_, u8>(a) == bytemuck::cast_slice::<_, u8>(b)
    }

    #[test]
    fn rows_become_columns() {
        let tile = random_tile(12);
        for kernel in Kernel::available() {
            let mut turned = tile.clone();
            kernel.transpose(&mut turned);
            for (r, row) in tile.iter().enumerate() {
                for (t, block) in row.0.iter().enumerate() {
                    for (j, column) in turned.iter().enumerate() {
                        assert_eq!(block.0 >> j & 1, column.0[t].0 >> r & 1, "{kernel:?} {r} {t} {j}");
                    }
                }
            }
        }
    }

    #[test]
    fn kernels_agree() {
        for seed in 13..33 {
            let mut portable = random_tile(seed);
            Kernel::Portable.transpose(&mut portable);
            for kernel in Kernel::available() {
                let mut tile = random_tile(seed);
                kernel.transpose(&mut tile);
                assert!(same(&tile[..], &portable[..]), "{kernel:?}");
            }
        }
    }

    #[test]
    fn fold_adds_by_bits() {
        for (kernel, k) in
            Kernel::available().into_iter().flat_map(|kernel| [1, 2, 4, 8].map(|k| (kernel, k)))
        {
            let streams = random_rows(36, 1 << k);
            let sum = |included: &dyn Fn(usize) -> bool| {
                let mut sum = Row::ZERO;
                (0..1 << k).filter(|x| included(*x)).for_each(|x| sum.xor(streams[x]));
                sum
            };
            let (mut folded, mut rows) = (streams.clone(), random_rows(37, k));
            kernel.fold(&mut folded, &mut rows);
            assert!(same(&folded[..1], &[sum(&|_| true)]), "{kernel:?} {k}");
            assert!((0..k).all(|b| same(&rows[b..=b], &[sum(&|x| x >> b & 1 == 1)])), "{kernel:?} {k}");
        }
    }

    #[test]
    fn scatter_follows_the_transfers() {
        let tile = random_tile(34);
        for n in [0, 1, 127, 128, 129, 1023, 1024] {
            let mut out = vec![Block::ZERO; n];
            scatter(&tile, &mut out);
            assert!(out.iter().enumerate().all(|(i, b)| b.0 == tile[i % 128].0[i / 128].0));
        }
    }
}
