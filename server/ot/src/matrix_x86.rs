//! The portable matrix kernels compiled for wide vectors of x86-64, and the transposition written out for the widest.
#![allow(unsafe_code)] // Code for wide vectors may only be called where they were detected.

use core::arch::x86_64::{
    __m512i, _mm512_and_si512, _mm512_set1_epi64, _mm512_slli_epi64, _mm512_srli_epi64,
    _mm512_unpackhi_epi64, _mm512_unpacklo_epi64, _mm512_xor_si512,
};

use crate::matrix::{self, Row, Tile};

/// Vector width to compile for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Width {
    Bits256,
    Bits512,
}

/// The widths of this processor, narrowest first.
pub(crate) fn available() -> Vec<Width> {
    let mut found = Vec::new();
    if is_x86_feature_detected!("avx2") {
        found.push(Width::Bits256);
    }
    if is_x86_feature_detected!("avx512f") {
        found.push(Width::Bits512);
    }
    found
}

// SAFETY of the calls below: `Kernel::available` makes widths from `available` only, hence from detected
// ones.
impl Width {
    /// As [`matrix::transpose`].
    pub(crate) fn transpose(self, tile: &mut Tile) {
        match self {
            // SAFETY: detected.
            Self::Bits256 => unsafe { transpose_avx2(tile) },
            // SAFETY: detected.
            Self::Bits512 => unsafe { transpose_avx512(tile) },
        }
    }

    /// As [`matrix::fold`].
    pub(crate) fn fold(self, streams: &mut [Row], rows: &mut [Row]) {
        match self {
            // SAFETY: detected.
            Self::Bits256 => unsafe { fold_avx2(streams, rows) },
            // SAFETY: detected.
            Self::Bits512 => unsafe { fold_avx512(streams, rows) },
        }
    }
}

#[target_feature(enable = "avx2")]
fn transpose_avx2(tile: &mut Tile) {
    matrix::transpose(tile);
}

/// The scales of [`matrix::transpose`], at the same visits. From that one's source the compiler makes vectors of words
/// that lie apart, which takes more than four times as long.
#[target_feature(enable = "avx512f")]
fn transpose_avx512(tile: &mut Tile) {
    let tile: &mut [[__m512i; 2]; 128] = bytemuck::cast_mut(tile);
    for part in 0..2 {
        for first in 0..8 {
            let mut rows = [_mm512_set1_epi64(0); 16];
            for (i, row) in rows.iter_mut().enumerate() {
                *row = tile[first + 8 * i][part];
            }
            halves(&mut rows);
            scale::<32, 4>(&mut rows);
            scale::<16, 2>(&mut rows);
            scale::<8, 1>(&mut rows);
            for (i, row) in rows.iter().enumerate() {
                tile[first + 8 * i][part] = *row;
            }
        }
        for rows_of_tile in tile.as_chunks_mut::<8>().0 {
            let mut rows = [_mm512_set1_epi64(0); 8];
            for (row, of_tile) in rows.iter_mut().zip(&*rows_of_tile) {
                *row = of_tile[part];
            }
            scale::<4, 4>(&mut rows);
            scale::<2, 2>(&mut rows);
            scale::<1, 1>(&mut rows);
            for (row, of_tile) in rows.iter().zip(rows_of_tile) {
                of_tile[part] = *row;
            }
        }
    }
}

/// The scale of 64 columns, of rows that are eight apart.
#[inline]
#[target_feature(enable = "avx512f")]
fn halves(rows: &mut [__m512i; 16]) {
    let (upper, lower) = rows.split_at_mut(8);
    for (a, b) in upper.iter_mut().zip(lower) {
        (*a, *b) = (_mm512_unpacklo_epi64(*a, *b), _mm512_unpackhi_epi64(*a, *b));
    }
}

/// The scale of `S` columns, of rows that are `D` apart.
#[inline]
#[target_feature(enable = "avx512f")]
fn scale<const S: u32, const D: usize>(rows: &mut [__m512i]) {
    // The columns whose number has bit `S` clear.
    let low = _mm512_set1_epi64((u64::MAX / ((1 << S) + 1)).cast_signed());
    for group in rows.chunks_exact_mut(2 * D) {
        let (upper, lower) = group.split_at_mut(D);
        for (a, b) in upper.iter_mut().zip(lower) {
            let difference = _mm512_and_si512(_mm512_xor_si512(_mm512_srli_epi64::<S>(*a), *b), low);
            *a = _mm512_xor_si512(*a, _mm512_slli_epi64::<S>(difference));
            *b = _mm512_xor_si512(*b, difference);
        }
    }
}

#[target_feature(enable = "avx2")]
fn fold_avx2(streams: &mut [Row], rows: &mut [Row]) {
    matrix::fold(streams, rows);
}

#[target_feature(enable = "avx512f")]
fn fold_avx512(streams: &mut [Row], rows: &mut [Row]) {
    matrix::fold(streams, rows);
}
