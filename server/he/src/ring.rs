//! The ring `R_q = Z_q[X]/(X^N + 1)` and the maps between it and `Z_t`, on top of `fhe-math`.
//!
//! With `q = q_1 ⋯ q_p`, a number modulo `q` is its `p` residues. Three maps are ours, each in constant time:
//!
//! - *scaling* `v -> floor(q·v/t)`. As `q·v - (q·v mod t)` is divisible by `t`, the residue modulo `q_i` is
//!   `(q·v mod t) · (-1/t)`; the `q·v` itself vanishes.
//! - *switching* `x mod q -> x·q_1/q mod q_1` (Bajard et al. 2016, eprint 2016/510, in fixed point): with
//!   `y_i = x·(q/q_i)^-1 mod q_i`, `x = Σ_i y_i·q/q_i` modulo `q`, hence `x·q_1/q = y_1 + Σ_{i>1} y_i·q_1/q_i` modulo
//!   `q_1`. Each fraction is taken as `floor(2^62·q_1/q_i)/2^62` and the product rounded down: the result is too
//!   small by less than 2 for each of the `p - 1` terms.
//! - *decoding* `x -> round(t·x/q_1) mod t`, as a multiplication with `floor(2^127/q_1)`; off by less than `2^-33`.

use std::sync::Arc;

use fhe::bfv::BfvParametersBuilder;
use fhe_math::rq::traits::TryConvertFrom;
use fhe_math::rq::{Context, Poly, Representation};
use fhe_math::zq::Modulus;
use zeroize::Zeroizing;

use crate::Error;
use crate::parameters::{DEGREE, ModulusSet, PLAINTEXT_BITS};

/// Most primes in any modulus set.
pub(crate) const MAX_PRIMES: usize = 4;

/// Fraction bits of the ratios in modulus switching.
const RATIO_BITS: u32 = 62;

/// One modulus set with what its maps precompute.
pub(crate) struct Ring {
    context: Arc<Context>,
    prime_bits: u32,
    /// `q mod t`.
    modulus_low: u32,
    /// `-1/t mod q_i`.
    negative_inverse: Vec<u64>,
    /// `(q/q_i)^-1 mod q_i`.
    punctured_inverse: Vec<u64>,
    /// `floor(2^62·q_1/q_i)`, from the second prime on. Below `2^63`: the primes have the same size.
    ratios: Vec<u128>,
    /// `floor(2^127/q_1)`.
    reciprocal: u128,
}

impl Ring {
    pub(crate) fn new(set: &ModulusSet) -> Result<Self, Error> {
        // `fhe` checks the set (degree, coprime plaintext modulus, primes fit for the transform) and makes its
        // contexts, so that its ciphertexts and ours are the same polynomials.
        let bfv = BfvParametersBuilder::new()
            .set_degree(DEGREE)
            .set_plaintext_modulus(1 << PLAINTEXT_BITS)
            .set_moduli(set.primes)
            .build()?;
        let context = bfv.context_at_level(0)?.clone();
        let moduli = context.moduli_operators();
        let inverse = |m: &Modulus, x: u64| m.inv(x).ok_or(fhe_math::Error::InvalidModulus(**m));
        let (mut negative_inverse, mut punctured_inverse) = (Vec::new(), Vec::new());
        for m in moduli {
            negative_inverse.push(inverse(m, m.neg(m.reduce(1 << PLAINTEXT_BITS)))?);
            let others = set.primes.iter().filter(|&&p| p != **m);
            punctured_inverse.push(inverse(m, others.fold(1, |x, &p| m.mul(x, m.reduce(p))))?);
        }
        let first = u128::from(set.primes[0]);
        Ok(Self {
            modulus_low: set.primes.iter().fold(1u32, |x, &p| x.wrapping_mul(p as u32)),
            negative_inverse,
            punctured_inverse,
            ratios: set.primes.iter().skip(1).map(|&p| (first << RATIO_BITS) / u128::from(p)).collect(),
            reciprocal: (1u128 << 127) / first,
            prime_bits: set.prime_bits,
            context,
        })
    }

    pub(crate) fn moduli(&self) -> &[Modulus] {
        self.context.moduli_operators()
    }

    /// Bits of every prime, hence of a packed residue.
    pub(crate) fn prime_bits(&self) -> u32 {
        self.prime_bits
    }

    /// The polynomial with these residues: `DEGREE` for each prime, in NTT form or as coefficients.
    pub(crate) fn polynomial(&self, residues: Vec<u64>, form: Representation) -> Result<Poly, Error> {
        Ok(Poly::try_convert_from(residues, &self.context, false, form)?)
    }

    /// The polynomial with these coefficients (`DEGREE` of them, absolute values below every prime), in NTT form.
    pub(crate) fn small(&self, coefficients: &[i64]) -> Result<Zeroizing<Poly>, Error> {
        self.encoded(coefficients, None)
    }

    /// As [`Ring::small`], with `floor(q·m/t)` added to every coefficient.
    pub(crate) fn encoded(&self, noise: &[i64], message: Option<&[u32]>) -> Result<Zeroizing<Poly>, Error> {
        let mut residues = Vec::with_capacity(self.moduli().len() * noise.len());
        for (i, m) in self.moduli().iter().enumerate() {
            // Adds the prime to negative numbers, without a branch.
            let lift = |&x: &i64| (x as u64).wrapping_add(**m & (x >> 63) as u64);
            match message {
                None => residues.extend(noise.iter().map(lift)),
                Some(message) => residues.extend(
                    noise.iter().zip(message).map(|(x, &value)| m.add(lift(x), self.scaled(value, i))),
                ),
            }
        }
        let mut polynomial = Zeroizing::new(self.polynomial(residues, Representation::PowerBasis)?);
        polynomial.change_representation(Representation::Ntt);
        Ok(polynomial)
    }

    /// The uniform polynomial, in NTT form, that every server expands from the same seed.
    pub(crate) fn common(&self, seed: &[u8; 32]) -> Poly {
        Poly::random_from_seed(&self.context, Representation::Ntt, *seed)
    }

    /// `floor(q·value/t)` modulo prime number `index`.
    pub(crate) fn scaled(&self, value: u32, index: usize) -> u64 {
        let rest = self.modulus_low.wrapping_mul(value);
        self.moduli()[index].mul(rest.into(), self.negative_inverse[index])
    }

    /// `x·q_1/q` modulo `q_1`, too small by less than `2(p-1)`, of `x` given by its residues.
    pub(crate) fn switch(&self, residues: &[u64]) -> u64 {
        let scaled = |i: usize| self.moduli()[i].mul(residues[i], self.punctured_inverse[i]);
        let first = &self.moduli()[0];
        self.ratios.iter().enumerate().fold(scaled(0), |sum, (i, ratio)| {
            first.add(sum, first.reduce(((u128::from(scaled(i + 1)) * ratio) >> RATIO_BITS) as u64))
        })
    }

    /// `round(t·x/q_1)` modulo `t`, of `x` below `q_1`.
    pub(crate) fn decode(&self, x: u64) -> u32 {
        const SHIFT: u32 = 127 - PLAINTEXT_BITS;
        ((u128::from(x) * self.reciprocal + (1 << (SHIFT - 1))) >> SHIFT) as u32
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
    use crate::parameters::SETS;
    use crate::sample::{Purpose, stream};
    use rand_chacha09::rand_core::RngCore;

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
            assert!(set.primes.len() <= MAX_PRIMES && set.prime_bits <= 62);
            assert!(set.primes.windows(2).all(|pair| pair[0] > pair[1]), "distinct, largest first");
            for &p in set.primes {
                assert!(is_prime(p) && p % (2 * DEGREE as u64) == 1 && p.ilog2() + 1 == set.prime_bits);
            }
            let bits = set.primes.iter().product::<BigUint>().bits();
            assert!(bits == u64::from(set.prime_bits) * set.primes.len() as u64);
            assert!(bits <= MODULUS_LIMIT.into() && bits > previous);
            previous = bits;
        }
    }

    #[test]
    fn maps_agree_with_big_integers() {
        for set in &SETS {
            let ring = Ring::new(set).unwrap();
            let q: BigUint = set.primes.iter().product();
            let first = set.primes[0];
            let mut rng = stream(&[7; 32], Purpose::Mask, 0);
            for round in 0..2000 {
                let value = if round == 0 { u32::MAX } else { rng.next_u32() };
                let exact: BigUint = (&q * value) >> 32;
                for (i, &p) in set.primes.iter().enumerate() {
                    assert_eq!(BigUint::from(ring.scaled(value, i)), &exact % p);
                }

                let x = (0..4).fold(BigUint::from(0u32), |x, _| (x << 64) + rng.next_u64()) % &q;
                let x = if round == 1 { &q - 1u32 } else { x };
                let split: Vec<u64> = set.primes.iter().map(|&p| (&x % p).try_into().unwrap()).collect();
                let exact: u64 = (&x * first / &q).try_into().unwrap();
                let below = (exact + first - ring.switch(&split)) % first;
                assert!(below < 2 * set.primes.len() as u64 - 1, "{below}");

                let y = rng.next_u64() % first;
                let rounded: BigUint = ((BigUint::from(y) << 33) + first) / (BigUint::from(first) << 1);
                assert_eq!(u64::from(ring.decode(y)), u64::try_from(rounded).unwrap() & 0xffff_ffff);
            }
        }
    }

    /// The noise that the budget allows, in shares of eight servers, decodes; on either side.
    #[test]
    fn noise_within_the_budget_decodes() {
        const SERVERS: usize = 8;
        for set in &SETS {
            let ring = Ring::new(set).unwrap();
            let q: BigUint = set.primes.iter().product();
            let first = &ring.moduli()[0];
            let split = |x: &BigUint| -> Vec<u64> {
                set.primes.iter().map(|&p| (x % p).try_into().unwrap()).collect()
            };
            let switching = (&q / **first) * (2 * SERVERS * (set.primes.len() - 1) + 1);
            let noise: BigUint = (&q >> (PLAINTEXT_BITS + 1)) - switching - 2u32;
            let mut rng = stream(&[8; 32], Purpose::Mask, 0);
            for round in 0..2000 {
                let value = rng.next_u32();
                let exact = (&q * value) >> PLAINTEXT_BITS;
                let mut rest = if round % 2 == 0 { exact + &noise } else { exact + &q - &noise } % &q;
                let mut sum = 0;
                for _ in 1..SERVERS {
                    let part = (0..4).fold(BigUint::from(0u32), |x, _| (x << 64) + rng.next_u64()) % &q;
                    sum = first.add(sum, ring.switch(&split(&part)));
                    rest = (rest + &q - part) % &q;
                }
                assert_eq!(ring.decode(first.add(sum, ring.switch(&split(&rest)))), value);
            }
        }
    }
}
