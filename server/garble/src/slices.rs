//! Integers of many lanes as bit planes and back.
//!
//! A plane is one bit of every lane, packed in 64-bit words, lane 0 in bit 0; a word of width `w` is
//! `w` planes one after the other, least significant first. Bits past the last lane are zero.

use rand_core::CryptoRng;
use zeroize::Zeroizing;

use crate::Error;

/// 64-bit words of one plane.
pub fn plane_words(lanes: usize) -> usize {
    lanes.div_ceil(64)
}

/// Two bit matrices of 32 by 32 side by side, in the low and the high halves of 32 words: both transposed. Bit `j` of
/// row `i` changes places with bit `i` of row `j`, at one scale after the other (Eklundh 1972).
#[inline(always)]
fn transpose(rows: &mut [u64; 32]) {
    swap::<16>(rows);
    swap::<8>(rows);
    swap::<4>(rows);
    swap::<2>(rows);
    swap::<1>(rows);
}

/// The scale of `S` rows and columns.
#[inline(always)]
fn swap<const S: usize>(rows: &mut [u64; 32]) {
    // The columns whose number has bit `S` clear, in both halves.
    let low = u64::MAX / ((1 << S) + 1);
    for group in rows.chunks_exact_mut(2 * S) {
        let (upper, lower) = group.split_at_mut(S);
        for (a, b) in upper.iter_mut().zip(lower) {
            let difference = (*a >> S ^ *b) & low;
            *a ^= difference << S;
            *b ^= difference;
        }
    }
}

/// Bit planes of `values`, `width` of them.
pub fn from_lanes(values: &[u32], width: usize) -> Vec<u64> {
    let words = plane_words(values.len());
    let mut planes = vec![0u64; words * width.min(32)];
    for (index, values) in values.chunks(64).enumerate() {
        let mut rows = [0; 32];
        for (half, values) in values.chunks(32).enumerate() {
            rows.iter_mut().zip(values).for_each(|(row, value)| *row |= u64::from(*value) << (32 * half));
        }
        transpose(&mut rows);
        planes.chunks_mut(words).zip(rows).for_each(|(plane, row)| plane[index] = row);
    }
    planes
}

/// Values of the first `lanes` lanes; `planes` holds at most 32 planes.
pub fn to_lanes(planes: &[u64], lanes: usize) -> Vec<u32> {
    let words = plane_words(lanes).max(1);
    let mut values = vec![0u32; lanes];
    // They may be a secret mask's.
    let mut rows = Zeroizing::new([0; 32]);
    for (index, values) in values.chunks_mut(64).enumerate() {
        rows.fill(0);
        rows.iter_mut().zip(planes.chunks(words)).for_each(|(row, plane)| *row = plane[index]);
        transpose(&mut rows);
        for (half, values) in values.chunks_mut(32).enumerate() {
            values.iter_mut().zip(rows.iter()).for_each(|(value, row)| *value = (*row >> (32 * half)) as u32);
        }
    }
    values
}

/// Bytes of `count` words of `width` bits, packed.
pub fn packed_len(count: usize, width: u32) -> usize {
    (count * width as usize).div_ceil(8)
}

/// Appends the low `width` bits (at most 32) of every word, packed, [`packed_len`] bytes.
pub fn pack(words: impl IntoIterator<Item = u32>, width: u32, out: &mut Vec<u8>) {
    let Some(unused) = 32u32.checked_sub(width).filter(|&unused| unused < 32) else { return };
    let (mut bits, mut held) = (0u64, 0u32);
    for word in words {
        bits |= u64::from(word << unused >> unused) << held;
        held += width;
        if held >= 32 {
            out.extend_from_slice(&(bits as u32).to_le_bytes());
            bits >>= 32;
            held -= 32;
        }
    }
    out.extend_from_slice(&bits.to_le_bytes()[..held.div_ceil(8) as usize]);
}

/// The next `count` packed words of `width` bits; `bytes` moves past them. Missing bytes count as zeros: the caller
/// has checked the length of a message.
pub fn unpack(bytes: &mut &[u8], width: u32, count: usize) -> Vec<u32> {
    let (mine, rest) = bytes.split_at(packed_len(count, width).min(bytes.len()));
    *bytes = rest;
    let Some(unused) = 32u32.checked_sub(width).filter(|&unused| unused < 32) else { return vec![0; count] };
    let mut mine = mine.chunks(4);
    let (mut bits, mut held) = (0u64, 0u32);
    (0..count)
        .map(|_| {
            if held < width {
                let mut word = [0; 4];
                let chunk = mine.next().unwrap_or_default();
                word[..chunk.len()].copy_from_slice(chunk);
                bits |= u64::from(u32::from_le_bytes(word)) << held;
                held += 32;
            }
            let word = (bits as u32) << unused >> unused;
            bits >>= width;
            held -= width;
            word
        })
        .collect()
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

/// `count` uniform planes; bits past the last lane are zero.
pub fn random_planes(count: usize, lanes: usize, rng: &mut impl CryptoRng) -> Zeroizing<Vec<u64>> {
    let mut planes = Zeroizing::new(vec![0u64; count * plane_words(lanes)]);
    rng.fill_bytes(bytemuck::cast_slice_mut(&mut planes));
    clear_tail(&mut planes, lanes);
    planes
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
