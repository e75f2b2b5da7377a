//! Small and wide noise, drawn from seeded generators.
//!
//! Every call gets a 32-byte seed and derives one ChaCha20 stream for each purpose and polynomial, so that results
//! do not depend on how work is spread over threads, and a seed that is used for two purposes still gives
//! independent streams. Timing depends on how many candidates are rejected, never on a value that is kept.

use num_bigint::BigUint;
use rand_chacha09::ChaCha20Rng;
use rand_chacha09::rand_core::{RngCore, SeedableRng};
use zeroize::Zeroizing;

use fhe_math::zq::Modulus;

use crate::Error;
use crate::noise::smudging_bound;
use crate::parameters::DEGREE;

/// Errors are centred binomial: the difference of the sums of 21 bits each. `η` in the noise bound. The standard
/// deviation is `sqrt(21/2) = 3.24`, just above the 3.19 that the security tables assume.
pub(crate) const ERROR_BOUND: u32 = 21;

/// What a stream is for.
#[derive(Clone, Copy)]
pub(crate) enum Purpose {
    KeyShare = 1,
    PublicShare = 2,
    Mask = 3,
    Zero = 4,
    Smudging = 5,
}

/// The generator for polynomial `index` of one purpose.
pub(crate) fn stream(seed: &[u8; 32], purpose: Purpose, index: usize) -> ChaCha20Rng {
    let mut rng = ChaCha20Rng::from_seed(*seed);
    rng.set_stream((purpose as u64) << 56 | index as u64);
    rng
}

/// `DEGREE` coefficients, uniform in `{-1, 0, 1}`.
pub(crate) fn ternary(rng: &mut ChaCha20Rng) -> Zeroizing<Vec<i64>> {
    let mut out = Zeroizing::new(Vec::with_capacity(DEGREE));
    while out.len() < DEGREE {
        let word = rng.next_u64();
        let pairs = (0..32).map(|k| (word >> (2 * k) & 3) as i64).filter(|&pair| pair != 3);
        let missing = DEGREE - out.len();
        out.extend(pairs.take(missing).map(|pair| pair - 1));
    }
    out
}

/// `DEGREE` coefficients, centred binomial in `±ERROR_BOUND`.
pub(crate) fn error(rng: &mut ChaCha20Rng) -> Zeroizing<Vec<i64>> {
    let ones = |bits: u64| (bits & ((1 << ERROR_BOUND) - 1)).count_ones() as i64;
    let one = |word: u64| ones(word) - ones(word >> ERROR_BOUND);
    Zeroizing::new((0..DEGREE).map(|_| one(rng.next_u64())).collect())
}

/// Smudging noise: uniform in `-bound ..= bound`, exactly, by rejection.
///
/// Draws are three little-endian limbs `x` in `0 ..= 2·bound`; the noise is `x - bound`.
pub(crate) struct Smudging {
    /// `2·bound`.
    largest: [u64; LIMBS],
    /// Ones up to the highest bit of `largest`.
    mask: [u64; LIMBS],
    /// `-bound` modulo every prime.
    offset: Vec<u64>,
}

/// `2^84·B` is below `q/2t < 2^168`.
const LIMBS: usize = 3;

impl Smudging {
    /// The noise that hides ciphertext noise up to `noise`.
    pub(crate) fn new(noise: &BigUint, moduli: &[Modulus]) -> Result<Self, Error> {
        let bound = smudging_bound(noise);
        let limbs = |x: &BigUint| {
            let mut limbs = [0; LIMBS];
            limbs.iter_mut().zip(x.iter_u64_digits()).for_each(|(limb, digit)| *limb = digit);
            limbs
        };
        let largest: BigUint = &bound << 1;
        if largest.bits() > 64 * LIMBS as u64 {
            return Err(Error::NoiseBudget { needed: largest.bits(), available: 64 * LIMBS as u64 });
        }
        let mask = (BigUint::from(1u32) << largest.bits()) - 1u32;
        let bound = limbs(&bound);
        let offset = moduli.iter().map(|m| m.neg(reduce(&bound, m))).collect();
        Ok(Self { largest: limbs(&largest), mask: limbs(&mask), offset })
    }

    /// One draw, as `x = noise + bound`.
    pub(crate) fn draw(&self, rng: &mut ChaCha20Rng) -> Zeroizing<[u64; LIMBS]> {
        loop {
            let x = Zeroizing::new(self.mask.map(|mask| rng.next_u64() & mask));
            // Accepted if `largest - x` does not borrow; all limbs are read, so time tells only the verdict.
            let borrow = self.largest.iter().zip(x.iter()).fold(false, |borrow, (&bound, &limb)| {
                let (difference, first) = bound.overflowing_sub(limb);
                first | difference.overflowing_sub(borrow.into()).1
            });
            if !borrow {
                return x;
            }
        }
    }

    /// A draw's noise modulo prime number `index`, which is `modulus`.
    pub(crate) fn residue(&self, draw: &[u64; LIMBS], index: usize, modulus: &Modulus) -> u64 {
        modulus.add(reduce(draw, modulus), self.offset[index])
    }
}

/// A three-limb number modulo a prime.
fn reduce(limbs: &[u64; LIMBS], modulus: &Modulus) -> u64 {
    limbs.iter().rev().fold(0, |rest, &limb| modulus.reduce_u128(u128::from(rest) << 64 | u128::from(limb)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_distributions() {
        let mut rng = stream(&[1; 32], Purpose::Mask, 0);
        let counts = ternary(&mut rng).iter().fold([0u32; 3], |mut counts, &x| {
            counts[(x + 1) as usize] += 1;
            counts
        });
        // 8192/3 with a standard deviation of 43.
        assert!(counts.iter().all(|&c| (2500..2960).contains(&c)), "{counts:?}");

        let errors = error(&mut rng);
        assert!(errors.iter().all(|&e| e.unsigned_abs() <= ERROR_BOUND.into()));
        let mean = errors.iter().sum::<i64>() as f64 / DEGREE as f64;
        let variance = errors.iter().map(|&e| (e * e) as f64).sum::<f64>() / DEGREE as f64;
        assert!(mean.abs() < 0.2 && (variance - 10.5).abs() < 0.8, "{mean} {variance}");
    }

    #[test]
    fn smudging_is_uniform_and_reaches_its_bound() {
        // 2^84·3 + … in three limbs; draws are compared with the bound as big integers.
        let moduli = [Modulus::new(0x3fff_ffff_ffff_0001).unwrap()];
        for noise in [BigUint::from(3u32), BigUint::from(0x1234_5678_9abc_def1u64) << 17] {
            let smudging = Smudging::new(&noise, &moduli).unwrap();
            let bound = smudging_bound(&noise);
            let mut rng = stream(&[2; 32], Purpose::Smudging, 0);
            let mut counts = [0u32; 16];
            for _ in 0..16_000 {
                let draw = smudging.draw(&mut rng);
                let x = draw.iter().rev().fold(BigUint::from(0u32), |x, &limb| (x << 64) + limb);
                assert!(x <= &bound << 1);
                let residue = (&x + &moduli[0].to_owned() as &u64 - &bound % *moduli[0]) % *moduli[0];
                assert_eq!(BigUint::from(smudging.residue(&draw, 0, &moduli[0])), residue);
                let bin: BigUint = x * 16u32 / ((&bound << 1) + 1u32);
                counts[bin.iter_u32_digits().next().unwrap_or(0) as usize] += 1;
            }
            // 1000 each, standard deviation 31.
            assert!(counts.iter().all(|c| (840..1160).contains(c)), "{counts:?}");
        }
    }

    #[test]
    fn streams_differ() {
        let word = |purpose, index| stream(&[3; 32], purpose, index).next_u64();
        let words = [
            word(Purpose::Mask, 0),
            word(Purpose::Mask, 1),
            word(Purpose::Zero, 0),
            word(Purpose::Smudging, 1),
        ];
        assert!((1..4).all(|k| !words[..k].contains(&words[k])));
    }
}
