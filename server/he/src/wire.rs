//! Messages: residues packed without gaps, little-endian, and unpacked with every check.
//!
//! A polynomial is its residues in NTT form, `DEGREE` for each prime of its basis in order, packed at that prime's own
//! width. Answers are numbers modulo a power of two. Lengths follow from the layer, so there are no headers; a residue
//! that is not below its prime, or padding that is not zero, is refused, so that every value has exactly one encoding.

use fhe_math::rq::{Poly, Representation};

use crate::Error;
use crate::parameters::{DEGREE, bits};
use crate::ring::{Basis, residues};

/// Bytes of `count` values of `bits` bits.
pub(crate) fn packed_len(count: usize, bits: u32) -> usize {
    (count * bits as usize).div_ceil(8)
}

/// Bytes of one polynomial.
pub(crate) fn polynomial_len(basis: &Basis) -> usize {
    basis.moduli().iter().map(|m| packed_len(DEGREE, bits(**m))).sum()
}

/// Appends values below `2^bits`, padded with zeros to whole bytes.
pub(crate) fn pack(values: impl Iterator<Item = u64>, bits: u32, out: &mut Vec<u8>) {
    let (mut pool, mut held) = (0u128, 0);
    for value in values {
        pool |= u128::from(value) << held;
        held += bits;
        if held >= 64 {
            out.extend_from_slice(&(pool as u64).to_le_bytes());
            pool >>= 64;
            held -= 64;
        }
    }
    let rest = held.div_ceil(8) as usize;
    out.extend_from_slice(&(pool as u64).to_le_bytes()[..rest]);
}

/// Reads `count` values of `bits` bits, all below `modulus`, appending them to `out`. `bytes` must have
/// [`packed_len`] bytes; `what` names the message in errors.
pub(crate) fn unpack(
    what: &'static str,
    bytes: &[u8],
    (count, bits, modulus): (usize, u32, u64),
    out: &mut Vec<u64>,
) -> Result<(), Error> {
    Error::check_length(what, bytes.len(), packed_len(count, bits))?;
    let (mut pool, mut held) = (0u128, 0);
    let mut words = bytes.chunks(8);
    let mut canonical = true;
    for _ in 0..count {
        if held < bits {
            let chunk = words.next().unwrap_or(&[]);
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            pool |= u128::from(u64::from_le_bytes(word)) << held;
            held += 64;
        }
        let value = pool as u64 & (u64::MAX >> (64 - bits));
        pool >>= bits;
        held -= bits;
        canonical &= value < modulus;
        out.push(value);
    }
    if canonical && pool == 0 { Ok(()) } else { Err(Error::Residue(what)) }
}

/// Appends a polynomial in NTT form.
pub(crate) fn write_polynomial(basis: &Basis, polynomial: &Poly, out: &mut Vec<u8>) -> Result<(), Error> {
    for (row, m) in residues(polynomial)?.chunks_exact(DEGREE).zip(basis.moduli()) {
        pack(row.iter().copied(), bits(**m), out);
    }
    Ok(())
}

/// Reads a polynomial of exactly [`polynomial_len`] bytes, in NTT form.
pub(crate) fn read_polynomial(what: &'static str, basis: &Basis, mut bytes: &[u8]) -> Result<Poly, Error> {
    let wrong = Error::Length { what, got: bytes.len(), expected: polynomial_len(basis) };
    let mut out = Vec::with_capacity(basis.moduli().len() * DEGREE);
    for m in basis.moduli() {
        let Some((row, rest)) = bytes.split_at_checked(packed_len(DEGREE, bits(**m))) else {
            return Err(wrong);
        };
        bytes = rest;
        unpack(what, row, (DEGREE, bits(**m), **m), &mut out)?;
    }
    if !bytes.is_empty() {
        return Err(wrong);
    }
    basis.polynomial(out, Representation::Ntt)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn values_come_back(
            (bits, values) in (1u32..=62).prop_flat_map(|bits| {
                (Just(bits), prop::collection::vec(0..1u64 << bits, 0..70))
            })
        ) {
            let mut bytes = Vec::new();
            pack(values.iter().copied(), bits, &mut bytes);
            prop_assert_eq!(bytes.len(), packed_len(values.len(), bits));
            let mut out = Vec::new();
            unpack("test", &bytes, (values.len(), bits, 1 << bits), &mut out).unwrap();
            prop_assert_eq!(out, values);
        }

        #[test]
        fn every_encoding_is_canonical(bits in 1u32..=62, count in 1usize..40, noise: Vec<u8>, modulus: u64) {
            let modulus = 1 + modulus % (1 << bits);
            let mut bytes = noise;
            bytes.resize(packed_len(count, bits), 0xa5);
            let mut values = Vec::new();
            if unpack("test", &bytes, (count, bits, modulus), &mut values).is_ok() {
                let mut again = Vec::new();
                pack(values.iter().copied(), bits, &mut again);
                prop_assert_eq!(again, bytes);
                prop_assert!(values.iter().all(|&value| value < modulus));
            }
        }
    }

    #[test]
    fn padding_and_large_residues_are_refused() {
        let read = |bytes: &[u8], modulus| unpack("test", bytes, (1, 5, modulus), &mut Vec::new());
        assert!(read(&[0b0001_0110], 23).is_ok());
        assert!(matches!(read(&[0b0001_0111], 23), Err(Error::Residue("test"))));
        assert!(matches!(read(&[0b0011_0110], 23), Err(Error::Residue("test"))));
        assert!(matches!(read(&[0, 0], 23), Err(Error::Length { got: 2, expected: 1, .. })));
        assert!(matches!(read(&[], 23), Err(Error::Length { got: 0, expected: 1, .. })));
    }
}
