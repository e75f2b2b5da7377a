//! Bit matrices of OT extension: folding the streams of a tree into rows, and the transposition from 128 long
//! rows to the 128-bit block of each transfer.
//!
//! Plain integer arithmetic on whole rows, which the compiler turns into whatever vectors it may use: the
//! same source is compiled once portably and once for each vector width.

use zeroize::DefaultIsZeroes;

use crate::aes::{Backend, Chunk, LANES};
#[cfg(target_arch = "x86_64")]
use crate::matrix_x86;
use crate::{Block, Mask};

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

    /// `self ^= other` if the mask is of a one, without a branch. On its own, so that its instructions can be
    /// looked at.
    #[inline(never)]
    pub(crate) fn xor_selected(&mut self, other: &Self, mask: Mask) {
        let other: &[u64; 2 * LANES] = bytemuck::cast_ref(&other.0);
        self.words().iter_mut().zip(other).for_each(|(a, b)| *a ^= b & mask.word());
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

/// Four blocks of a row: the widest vector.
type Part = [u64; 8];

/// Recursive block swap (Eklundh 1972): at each of seven scales, the upper right quarter changes places with
/// the lower left. Four scales, then three, at one visit of the rows, which stay in registers meanwhile.
#[inline(always)]
pub(crate) fn transpose(tile: &mut Tile) {
    for part in 0..2 {
        for first in 0..8 {
            let mut rows: [Part; 16] = core::array::from_fn(|i| part_of(&tile[first + 8 * i], part));
            pairs::<8, 16>(&mut rows, swap_halves);
            pairs::<4, 16>(&mut rows, swap::<32>);
            pairs::<2, 16>(&mut rows, swap::<16>);
            pairs::<1, 16>(&mut rows, swap::<8>);
            for (i, row) in rows.into_iter().enumerate() {
                *part_mut(&mut tile[first + 8 * i], part) = row;
            }
        }
        for rows_of_tile in tile.as_chunks_mut::<8>().0 {
            let mut rows: [Part; 8] = core::array::from_fn(|i| part_of(&rows_of_tile[i], part));
            pairs::<4, 8>(&mut rows, swap::<4>);
            pairs::<2, 8>(&mut rows, swap::<2>);
            pairs::<1, 8>(&mut rows, swap::<1>);
            for (row, of_tile) in rows.into_iter().zip(rows_of_tile) {
                *part_mut(of_tile, part) = row;
            }
        }
    }
}

#[inline(always)]
fn part_of(row: &Row, part: usize) -> Part {
    bytemuck::cast_ref::<Chunk, [Part; 2]>(&row.0)[part]
}

#[inline(always)]
fn part_mut(row: &mut Row, part: usize) -> &mut Part {
    &mut bytemuck::cast_mut::<Chunk, [Part; 2]>(&mut row.0)[part]
}

/// Applies `swap` to all pairs of rows that are `D` apart.
#[inline(always)]
fn pairs<const D: usize, const N: usize>(rows: &mut [Part; N], swap: impl Fn(&mut Part, &mut Part)) {
    for group in rows.chunks_exact_mut(2 * D) {
        let (upper, lower) = group.split_at_mut(D);
        upper.iter_mut().zip(lower).for_each(|(a, b)| swap(a, b));
    }
}

/// The scale of 64 columns: whole 64-bit halves.
#[inline(always)]
fn swap_halves(a: &mut Part, b: &mut Part) {
    let (upper, lower) = (*a, *b);
    *a = core::array::from_fn(|i| if i % 2 == 0 { upper[i] } else { lower[i - 1] });
    *b = core::array::from_fn(|i| if i % 2 == 0 { upper[i + 1] } else { lower[i] });
}

/// The scale of `S < 64` columns, among those of each 64-bit half.
#[inline(always)]
fn swap<const S: usize>(a: &mut Part, b: &mut Part) {
    // The columns whose number has bit `S` clear.
    let low = u64::MAX / ((1 << S) + 1);
    for (a, b) in a.iter_mut().zip(b) {
        let difference = (*a >> S ^ *b) & low;
        *a ^= difference << S;
        *b ^= difference;
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
