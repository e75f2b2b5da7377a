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
    Nonce = 6,
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
/// Draws are numbers `x` in `0 ..= 2·bound`; the noise is `x - bound`.
pub(crate) struct Smudging {
    /// `2·bound`.
    largest: u128,
    /// Ones up to the highest bit of `largest`.
    mask: u128,
    /// `-bound` modulo both primes of `q'`.
    offset: [u64; 2],
}

impl Smudging {
    /// The noise that hides ciphertext noise up to `noise`, modulo the primes of `q'`.
    pub(crate) fn new(noise: &BigUint, moduli: &[Modulus]) -> Result<Self, Error> {
        let bound = smudging_bound(noise);
        let largest: BigUint = &bound << 1;
        // `2^70·B` is below `q'/2t < 2^89`, or the budget was not checked.
        let small = |x: &BigUint| u128::try_from(x).ok().filter(|x| x >> 96 == 0);
        let (Some(bound), Some(largest)) = (small(&bound), small(&largest)) else {
            return Err(Error::NoiseBudget { needed: largest.bits() + 32, available: 128 });
        };
        let [first, second] = moduli else { return Err(Error::Mismatch) };
        let offset = [first, second].map(|m| m.neg(m.reduce_u128(bound)));
        Ok(Self { largest, mask: u128::MAX >> largest.leading_zeros(), offset })
    }

    /// One draw, as `x = noise + bound`.
    pub(crate) fn draw(&self, rng: &mut ChaCha20Rng) -> Zeroizing<u128> {
        loop {
            let words = Zeroizing::new([rng.next_u64(), rng.next_u64()]);
            let x = Zeroizing::new((u128::from(words[1]) << 64 | u128::from(words[0])) & self.mask);
            if *x <= self.largest {
                return x;
            }
        }
    }

    /// A draw's noise modulo prime number `index` of `q'`, which is `modulus`.
    pub(crate) fn residue(&self, draw: u128, index: usize, modulus: &Modulus) -> u64 {
        modulus.add(modulus.reduce_u128(draw), self.offset[index])
    }
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
        let moduli = [0x1fff_ffff_fffa_4001, 0x1fff_ffff_fff7_4001].map(|p| Modulus::new(p).unwrap());
        for noise in [BigUint::from(3u32), BigUint::from(0x1_2345u32)] {
            let smudging = Smudging::new(&noise, &moduli).unwrap();
            let bound = u128::try_from(smudging_bound(&noise)).unwrap();
            assert_eq!(bound, u128::try_from(&noise).unwrap() << 70);
            let mut rng = stream(&[2; 32], Purpose::Smudging, 0);
            let mut counts = [0u32; 16];
            let mut farthest = [0; 2];
            for _ in 0..16_000 {
                let x = *smudging.draw(&mut rng);
                assert!(x <= 2 * bound);
                for (i, m) in moduli.iter().enumerate() {
                    let p = u128::from(**m);
                    let residue = (x % p + p - bound % p) % p;
                    assert_eq!(u128::from(smudging.residue(x, i, m)), residue);
                }
                counts[(x / (bound / 8 + 1)) as usize] += 1;
                farthest =
                    [farthest[0].max(bound.saturating_sub(x)), farthest[1].max(x.saturating_sub(bound))];
            }
            // 1000 each, standard deviation 31.
            assert!(counts.iter().all(|c| (840..1160).contains(c)), "{counts:?}");
            assert!(farthest.iter().all(|f| f * 1000 > bound * 995));
        }
        let unchecked = BigUint::from(1u32) << 30;
        assert!(matches!(Smudging::new(&unchecked, &moduli), Err(Error::NoiseBudget { .. })));
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
