//! `k`-bit words packed without gaps, little-endian: bit `b` of word `i` is bit `i·k + b` of the string, and
//! bit `j` of the string is bit `j mod 8` of byte `j / 8`. Unused bits of the last byte are zero.
//!
//! Logits travel this way: `k` bits per class (`server/PROTOCOL.md`, section 3).

use crate::{Error, Result};

/// The low `width` bits set. `width` must be in `1..=32`.
pub(crate) fn mask(width: u32) -> Result<u32> {
    match width {
        1..=32 => Ok(u32::MAX >> (32 - width)),
        got => Err(Error::Width { got }),
    }
}

/// Bytes that `count` words of `width` bits take. Saturates where that exceeds `usize`.
#[must_use]
pub const fn packed_len(count: usize, width: u32) -> usize {
    // Whole groups of eight words take `width` bytes, so the product cannot overflow before the length does.
    let whole = (count / 8).saturating_mul(width as usize);
    whole.saturating_add(((count % 8) * width as usize).div_ceil(8))
}

/// Packs the low `width` bits of every word into `out`; higher bits are dropped, as in reduction mod `2^width`.
///
/// # Errors
/// [`Error::Width`] unless `1 <= width <= 32`; [`Error::WrongLength`] unless `out` has exactly
/// [`packed_len`]`(words.len(), width)` bytes.
pub fn pack(words: &[u32], width: u32, out: &mut [u8]) -> Result<()> {
    let mask = mask(width)?;
    check_len(packed_len(words.len(), width), out.len())?;
    // At most 7 bits are left over from the word before, so 39 bits are in use.
    let (mut pending, mut bits, mut out) = (0u64, 0, out.iter_mut());
    for word in words {
        pending |= u64::from(word & mask) << bits;
        bits += width;
        while bits >= 8 {
            put_byte(&mut out, pending);
            pending >>= 8;
            bits -= 8;
        }
    }
    if bits > 0 {
        put_byte(&mut out, pending);
    }
    Ok(())
}

/// Unpacks `out.len()` words of `width` bits.
///
/// # Errors
/// [`Error::Width`] unless `1 <= width <= 32`; [`Error::WrongLength`] unless `packed` has exactly
/// [`packed_len`]`(out.len(), width)` bytes; [`Error::Malformed`] if unused bits are set.
pub fn unpack(packed: &[u8], width: u32, out: &mut [u32]) -> Result<()> {
    unpack_with(packed, width, out, |to, word| *to = word)
}

/// [`unpack`] into items of any type.
pub(crate) fn unpack_with<T>(
    packed: &[u8],
    width: u32,
    out: &mut [T],
    put: impl Fn(&mut T, u32),
) -> Result<()> {
    let mask = mask(width)?;
    check_len(packed_len(out.len(), width), packed.len())?;
    let (mut pending, mut bits, mut packed) = (0u64, 0, packed.iter());
    for item in out {
        while bits < width {
            pending |= u64::from(packed.next().copied().unwrap_or_default()) << bits;
            bits += 8;
        }
        put(item, low_word(pending) & mask);
        pending >>= width;
        bits -= width;
    }
    if pending == 0 { Ok(()) } else { Err(Error::Malformed) }
}

fn put_byte<'a>(out: &mut impl Iterator<Item = &'a mut u8>, pending: u64) {
    if let Some(byte) = out.next() {
        *byte = (pending & 0xff) as u8;
    }
}

fn low_word(bits: u64) -> u32 {
    (bits & u64::from(u32::MAX)) as u32
}

pub(crate) fn check_len(expected: usize, got: usize) -> Result<()> {
    if expected == got { Ok(()) } else { Err(Error::WrongLength { expected, got }) }
}
