//! The portable matrix kernels compiled for wide vectors of x86-64.
#![allow(unsafe_code)] // Code for wide vectors may only be called where they were detected.

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

#[target_feature(enable = "avx512f")]
fn transpose_avx512(tile: &mut Tile) {
    matrix::transpose(tile);
}

#[target_feature(enable = "avx2")]
fn fold_avx2(streams: &mut [Row], rows: &mut [Row]) {
    matrix::fold(streams, rows);
}

#[target_feature(enable = "avx512f")]
fn fold_avx512(streams: &mut [Row], rows: &mut [Row]) {
    matrix::fold(streams, rows);
}
