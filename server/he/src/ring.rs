//! The rings `R_q = Z_q[X]/(X^N + 1)` for `q = Q` and `q = q'`, and the maps between them and `Z_t`, on top of
//! `fhe-math`.
//!
//! A number modulo `q` is its residues modulo the primes of `q`. Four maps, all in constant time; the second is
//! `fhe-math`'s, the others are ours:
//!
//! - *scaling* `v -> round(Q·v/t)`. With `c` the remainder of `Q·v` modulo `t` that is nearest to zero, `Q·v - c` is
//!   divisible by `t`, so the residue modulo `p_i` is `-c/t`; the `Q·v` itself vanishes. With `c + t/2 = ρ`, a number
//!   from `0` up, that is `ρ·(-1/t) + 1/2`.
//! - *dropping* `x mod Q -> round(x/p_3) mod q'`.
//! - *switching* `x mod q' -> round(x·2^a/q') mod 2^a` (Bajard et al. 2016, eprint 2016/510, in fixed point): with
//!   `y_1 = x/p_2 mod p_1` and `y_2 = x/p_1 mod p_2`, `x/q' = y_1/p_1 + y_2/p_2` modulo 1. Fractions are taken with 128
//!   bits, `y_i·floor(2^128/p_i)`, too small by less than `p_i·2^-128`, both together by less than `2^-29` of the result.
//! - *decoding* `x -> round(t·x/2^a) mod t`, a rounded shift.

use std::sync::Arc;

use fhe::bfv::BfvParametersBuilder;
use fhe_math::rq::traits::TryConvertFrom;
use fhe_math::rq::{Context, Poly, Representation};
use fhe_math::zq::Modulus;
use rand_chacha09::ChaCha12Rng;
use rand_chacha09::rand_core::{RngCore, SeedableRng};
use zeroize::Zeroizing;

use crate::Error;
use crate::parameters::{DEGREE, ModulusSet, PLAINTEXT_BITS, answer_bits};

/// A ring, by the primes of its modulus.
pub(crate) struct Basis(Arc<Context>);

impl Basis {
    pub(crate) fn moduli(&self) -> &[Modulus] {
        self.0.moduli_operators()
    }

    /// The polynomial with these residues: `DEGREE` for each prime, in NTT form or as coefficients.
    pub(crate) fn polynomial(&self, residues: Vec<u64>, form: Representation) -> Result<Poly, Error> {
        Ok(Poly::try_convert_from(residues, &self.0, false, form)?)
    }

    /// The polynomial with these coefficients (`DEGREE` of them, absolute values below every prime), as coefficients.
    pub(crate) fn small(&self, coefficients: &[i64]) -> Result<Zeroizing<Poly>, Error> {
        let mut residues = Vec::with_capacity(self.moduli().len() * coefficients.len());
        for m in self.moduli() {
            residues.extend(coefficients.iter().map(|&x| lift(x, m)));
        }
        Ok(Zeroizing::new(self.polynomial(residues, Representation::PowerBasis)?))
    }

    /// As [`Basis::small`], in NTT form.
    pub(crate) fn transformed(&self, coefficients: &[i64]) -> Result<Zeroizing<Poly>, Error> {
        let mut polynomial = self.small(coefficients)?;
        polynomial.change_representation(Representation::Ntt);
        Ok(polynomial)
    }

    /// The uniform polynomial, in NTT form, that every server expands from the same public seed: for each prime words
    /// of one stream, cut to the prime's bits, of which those below the prime count.
    pub(crate) fn common(&self, seed: &[u8; 32]) -> Result<Poly, Error> {
        let mut out = Vec::with_capacity(self.moduli().len() * DEGREE);
        let mut bytes = [0; 4096];
        for (index, m) in self.moduli().iter().enumerate() {
            let (mut rng, mask) = (ChaCha12Rng::from_seed(*seed), u64::MAX >> m.leading_zeros());
            rng.set_stream(index as u64);
            let end = (index + 1) * DEGREE;
            while out.len() < end {
                rng.fill_bytes(&mut bytes);
                let words = bytes.as_chunks().0.iter().map(|word| u64::from_le_bytes(*word) & mask);
                let missing = end - out.len();
                out.extend(words.filter(|word| *word < **m).take(missing));
            }
        }
        self.polynomial(out, Representation::Ntt)
    }

    pub(crate) fn zero(&self) -> Poly {
        Poly::zero(&self.0, Representation::Ntt)
    }
}

/// A small number modulo a prime: adds the prime to a negative one, without a branch.
fn lift(x: i64, m: &Modulus) -> u64 {
    (x as u64).wrapping_add(**m & (x >> 63) as u64)
}

/// A constant factor modulo a prime, with what makes products fast (Shoup).
struct Factor {
    value: u64,
    shoup: u64,
}

impl Factor {
    fn new(m: &Modulus, value: u64) -> Self {
        Self { value, shoup: m.shoup(value) }
    }
}

/// One modulus set with what its maps precompute.
pub(crate) struct Ring {
    /// Modulo `Q`.
    whole: Basis,
    /// Modulo `q'`.
    kept: Basis,
    /// `Q mod t`.
    modulus_low: u32,
    /// `-1/t` and `1/2` modulo every prime.
    scaling: Vec<(Factor, u64)>,
    /// For both primes of `q'`, the inverse of the other and `floor(2^128/p_i)`.
    switching: [(u64, u128); 2],
    /// `a`.
    answer_bits: u32,
}

impl Ring {
    pub(crate) fn new(set: &ModulusSet, servers: usize) -> Result<Self, Error> {
        // `fhe` checks the set (degree, coprime plaintext modulus, primes fit for the transform) and makes its
        // contexts, so that its ciphertexts and ours are the same polynomials.
        let bfv = BfvParametersBuilder::new()
            .set_degree(DEGREE)
            .set_plaintext_modulus(1 << PLAINTEXT_BITS)
            .set_moduli(&set.primes)
            .build()?;
        // `q'` is one level down the chain, without the last prime.
        let whole = Basis(bfv.context_at_level(0)?.clone());
        let kept = Basis(bfv.context_at_level(1)?.clone());
        let inverse = |m: &Modulus, x: u64| m.inv(x).ok_or(fhe_math::Error::InvalidModulus(**m));
        let mut scaling = Vec::new();
        for m in whole.moduli() {
            let factor = Factor::new(m, inverse(m, m.neg(m.reduce(1 << PLAINTEXT_BITS)))?);
            scaling.push((factor, inverse(m, 2)?));
        }
        let [m1, m2] = [0, 1].map(|i| &whole.moduli()[i]);
        let switching = [(m1, **m2), (m2, **m1)]
            .map(|(m, other)| Ok::<_, Error>((inverse(m, m.reduce(other))?, (u128::MAX / u128::from(**m)))));
        let [first, second] = switching;
        Ok(Self {
            modulus_low: set.primes.iter().fold(1u32, |x, &p| x.wrapping_mul(p as u32)),
            switching: [first?, second?],
            answer_bits: answer_bits(servers),
            scaling,
            whole,
            kept,
        })
    }

    /// The ring modulo `Q`.
    pub(crate) fn whole(&self) -> &Basis {
        &self.whole
    }

    /// The ring modulo `q'`.
    pub(crate) fn kept(&self) -> &Basis {
        &self.kept
    }

    /// Bits of the modulus of answers, `a`.
    pub(crate) fn answer_bits(&self) -> u32 {
        self.answer_bits
    }

    /// `noise + round(Q·m/t)`, in NTT form modulo `Q`.
    pub(crate) fn encoded(&self, noise: &[i64], message: &[u32]) -> Result<Zeroizing<Poly>, Error> {
        let mut residues = Vec::with_capacity(self.whole.moduli().len() * noise.len());
        for (i, m) in self.whole.moduli().iter().enumerate() {
            let values = noise.iter().zip(message);
            residues.extend(values.map(|(&x, &value)| m.add(lift(x, m), self.scaled(value, i))));
        }
        let mut polynomial = Zeroizing::new(self.whole.polynomial(residues, Representation::PowerBasis)?);
        polynomial.change_representation(Representation::Ntt);
        Ok(polynomial)
    }

    /// `round(Q·value/t)` modulo prime number `index`.
    fn scaled(&self, value: u32, index: usize) -> u64 {
        let (m, (factor, half)) = (&self.whole.moduli()[index], &self.scaling[index]);
        let rest = self.modulus_low.wrapping_mul(value).wrapping_add(1 << (PLAINTEXT_BITS - 1));
        m.add(m.mul_shoup(rest.into(), factor.value, factor.shoup), *half)
    }

    /// `x -> round(x/p_3)`, of coefficients modulo `Q` to coefficients modulo `q'`.
    pub(crate) fn drop_prime(&self, polynomial: &mut Poly) -> Result<(), Error> {
        Ok(polynomial.switch_down()?)
    }

    /// `x·2^a/q'` modulo `2^a`, rounded, of `x` given by its residues modulo the primes of `q'`.
    pub(crate) fn switch(&self, residues: [u64; 2]) -> u64 {
        let parts = residues.iter().zip(&self.switching).zip(self.kept.moduli());
        // Modulo 1, which is 2^128.
        let fraction = parts.fold(0u128, |sum, ((&x, &(inverse, reciprocal)), m)| {
            sum.wrapping_add(u128::from(m.mul(x, inverse)).wrapping_mul(reciprocal))
        });
        let bits = self.answer_bits;
        (fraction.wrapping_add(1 << (127 - bits)) >> (128 - bits)) as u64
    }

    /// An answer's form of `value` modulo `t`: `2^(a-32)·value`.
    pub(crate) fn answer_scaled(&self, value: u32) -> u64 {
        u64::from(value) << (self.answer_bits - PLAINTEXT_BITS)
    }

    /// A number modulo `2^a`.
    pub(crate) fn answer_reduced(&self, x: u64) -> u64 {
        x & ((1 << self.answer_bits) - 1)
    }

    /// `round(t·x/2^a)` modulo `t`.
    pub(crate) fn decode(&self, x: u64) -> u32 {
        let shift = self.answer_bits - PLAINTEXT_BITS;
        (x.wrapping_add(1 << (shift - 1)) >> shift) as u32
    }
}

/// A polynomial's residues, `DEGREE` for each prime.
pub(crate) fn residues(polynomial: &Poly) -> Result<&[u64], Error> {
    let view = polynomial.coefficients().to_slice();
    view.ok_or_else(|| Error::Ring(fhe_math::Error::Default("a polynomial is not contiguous".to_owned())))
}

#[cfg(test)]
mod tests {
    use num_bigint::BigUint;

    use super::*;
    use crate::MODULUS_LIMIT;
    use crate::parameters::{SETS, bits};
    use crate::sample::{Purpose, stream};

    /// Deterministic Miller-Rabin: these bases decide every number below 2^64.
    fn is_prime(p: u64) -> bool {
        let power = |mut base: u128, mut exponent: u64| {
            let mut result = 1u128;
            while exponent > 0 {
                if exponent & 1 == 1 {
                    result = result * base % u128::from(p);
                }
                base = base * base % u128::from(p);
                exponent >>= 1;
            }
            result
        };
        let twos = (p - 1).trailing_zeros();
        [2u128, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37].iter().all(|&base| {
            let mut x = power(base, (p - 1) >> twos);
            x == 1
                || (0..twos).any(|_| {
                    let hit = x == u128::from(p - 1);
                    x = x * x % u128::from(p);
                    hit
                })
        })
    }

    #[test]
    fn sets_are_what_they_say() {
        let mut previous = 0;
        for set in &SETS {
            let [p1, p2, p3] = set.primes;
            assert!(p1 > p2 && p2 > p3 && bits(p1) == bits(p2) && bits(p1) <= 61);
            // Weights of 32 bits are below every prime in absolute value.
            assert!(p3 > 1 << 32);
            for p in set.primes {
                assert!(is_prime(p) && p % (2 * DEGREE as u64) == 1);
            }
            let bits: u64 = set.primes.iter().map(|&p| u64::from(bits(p))).sum();
            assert_eq!(set.primes.iter().product::<BigUint>().bits(), bits);
            assert!(bits <= MODULUS_LIMIT.into() && bits > previous);
            previous = bits;
        }
    }

    /// A number of 256 random bits, modulo `q`.
    fn below(q: &BigUint, rng: &mut impl RngCore) -> BigUint {
        (0..4).fold(BigUint::from(0u32), |x, _| (x << 64) + rng.next_u64()) % q
    }

    fn residue(x: &BigUint, p: u64) -> u64 {
        (x % p).try_into().unwrap()
    }

    #[test]
    fn maps_agree_with_big_integers() {
        for (number, set) in SETS.iter().enumerate() {
            let ring = Ring::new(set, 2 + number % 7).unwrap();
            let [p1, p2, p3] = set.primes;
            let whole: BigUint = set.primes.iter().product();
            let kept = BigUint::from(p1) * p2;
            let a = ring.answer_bits();
            let mut rng = stream(&[7; 32], Purpose::Mask, 0);
            let mut dropped = Vec::new();
            for round in 0..DEGREE {
                let value = [0, 1, u32::MAX, 1 << 31].get(round).copied().unwrap_or(rng.next_u32());
                let exact: BigUint = (&whole * value + (1u32 << 31)) >> 32;
                for (i, &p) in set.primes.iter().enumerate() {
                    assert_eq!(ring.scaled(value, i), residue(&exact, p));
                }

                let x = below(&kept, &mut rng);
                let x = if round == 1 { &kept - 1u32 } else { x };
                // In units of 2^-20: what is switched is off by a half and the slack at most.
                let exact: BigUint = (&x << (a + 20)) / &kept;
                let exact = u64::try_from(exact).unwrap();
                let got = ring.switch([residue(&x, p1), residue(&x, p2)]);
                assert!(got < 1 << a);
                let off = (got << 20).wrapping_sub(exact) & ((1 << (a + 20)) - 1);
                assert!(off.min((1 << (a + 20)) - off) <= (1 << 19) + 2, "{off}");

                let y = rng.next_u64() >> (64 - a);
                let rounded = (u128::from(y) + (1 << (a - 33))) >> (a - 32);
                assert_eq!(u128::from(ring.decode(y)), rounded & 0xffff_ffff);

                let x = below(&whole, &mut rng);
                dropped.push(if round == 0 { &whole - 1u32 } else { x });
            }
            let flat = set.primes.iter().flat_map(|&p| dropped.iter().map(move |x| residue(x, p)));
            let mut polynomial = ring.whole().polynomial(flat.collect(), Representation::PowerBasis).unwrap();
            ring.drop_prime(&mut polynomial).unwrap();
            let got = residues(&polynomial).unwrap();
            for (k, x) in dropped.iter().enumerate() {
                let exact: BigUint = (x + p3 / 2) / p3;
                assert_eq!([got[k], got[DEGREE + k]], [residue(&exact, p1), residue(&exact, p2)]);
            }
        }
    }

    #[test]
    fn common_polynomials_are_uniform() {
        for set in &SETS {
            let ring = Ring::new(set, 3).unwrap();
            let one = ring.whole().common(&[1; 32]).unwrap();
            assert_eq!(one, ring.whole().common(&[1; 32]).unwrap());
            assert_ne!(one, ring.whole().common(&[2; 32]).unwrap());
            for (row, p) in residues(&one).unwrap().chunks(DEGREE).zip(set.primes) {
                let mut counts = [0u32; 8];
                row.iter().for_each(|&x| counts[(u128::from(x) * 8 / u128::from(p)) as usize] += 1);
                // 1024 each, standard deviation 30. A residue that is too large would be out of the array.
                assert!(counts.iter().all(|c| (864..1184).contains(c)), "{counts:?}");
            }
        }
    }

    /// The noise that the budget allows, in shares of as many servers, decodes; on either side.
    #[test]
    fn noise_within_the_budget_decodes() {
        for (set, servers) in SETS.iter().flat_map(|set| (2..=8).map(move |n| (set, n))) {
            let ring = Ring::new(set, servers).unwrap();
            let [p1, p2, _] = set.primes;
            let kept = BigUint::from(p1) * p2;
            let split = |x: &BigUint| [residue(x, p1), residue(x, p2)];
            let a = ring.answer_bits();
            // What decoding allows, in numbers modulo q', less the roundings and what `exact` rounds.
            let room = (1u64 << (a - 12)) - servers as u64 * ((1 << 20) + 2);
            let noise: BigUint = ((&kept * room) >> (a + 21)) - 2u32;
            let mut rng = stream(&[8; 32], Purpose::Mask, 0);
            for round in 0..500 {
                let value = rng.next_u32();
                let exact = (&kept * value) >> PLAINTEXT_BITS;
                let mut rest = if round % 2 == 0 { exact + &noise } else { exact + &kept - &noise } % &kept;
                let mut sum = 0;
                for _ in 1..servers {
                    let part = below(&kept, &mut rng);
                    sum += ring.switch(split(&part));
                    rest = (rest + &kept - part) % &kept;
                }
                assert_eq!(ring.decode(sum + ring.switch(split(&rest))), value);
            }
        }
    }
}
