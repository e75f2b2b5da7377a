//! Integers of many lanes as bit planes and back.
//!
//! A plane is one bit of every lane, packed in 64-bit words, lane 0 in bit 0; a word of width `w` is
//! `w` planes one after the other, least significant first. Bits past the last lane are zero.

use crate::Error;

/// 64-bit words of one plane.
pub fn plane_words(lanes: usize) -> usize {
    lanes.div_ceil(64)
}

/// Bit planes of `values`, `width` of them.
pub fn from_lanes(values: &[u32], width: usize) -> Vec<u64> {
    let words = plane_words(values.len());
    let mut planes = vec![0u64; words * width];
    for (lane, &value) in values.iter().enumerate() {
        for bit in 0..width {
            planes[bit * words + lane / 64] |= u64::from(value >> bit & 1) << (lane % 64);
        }
    }
    planes
}

/// Values of the first `lanes` lanes; `planes` holds at most 32 planes.
pub fn to_lanes(planes: &[u64], lanes: usize) -> Vec<u32> {
    let words = plane_words(lanes).max(1);
    let mut values = vec![0u32; lanes];
    for (bit, plane) in planes.chunks(words).enumerate().take(32) {
        for (lane, value) in values.iter_mut().enumerate() {
            *value |= ((plane[lane / 64] >> (lane % 64) & 1) as u32) << bit;
        }
    }
    values
}

/// Clears the bits past the last lane of every plane.
pub fn clear_tail(planes: &mut [u64], lanes: usize) {
    if !lanes.is_multiple_of(64) {
        let words = plane_words(lanes);
        for plane in planes.chunks_mut(words) {
            if let Some(last) = plane.last_mut() {
                *last &= u64::MAX >> (64 - lanes % 64);
            }
        }
    }
}

/// Planes as they go on the wire: words, least significant byte first.
pub(crate) fn to_bytes(words: &[u64]) -> Vec<u8> {
    words.iter().flat_map(|w| w.to_le_bytes()).collect()
}

/// Planes from the wire, of exactly `expected` bytes.
pub(crate) fn from_bytes(bytes: &[u8], expected: usize, what: &'static str) -> Result<Vec<u64>, Error> {
    if bytes.len() != expected || !expected.is_multiple_of(8) {
        return Err(Error::Length { what, got: bytes.len(), expected });
    }
    Ok(bytes.chunks_exact(8).map(|c| u64::from_le_bytes(std::array::from_fn(|i| c[i]))).collect())
}
