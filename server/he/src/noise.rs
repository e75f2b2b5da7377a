//! The noise bound: how much the noise of a product ciphertext can be, in the worst case, and what hides it.
//!
//! Everything below is a bound on the infinity norm that holds for *every* outcome of the random choices, not a
//! bound that holds with high probability: only a certain bound can be compared with a statistical distance, and
//! decoding then never fails. `n` servers, degree `N`, `t = 2^32`, `Q = p_1·p_2·p_3` and `q' = p_1·p_2`.
//!
//! **Noise** of a ciphertext `(c0, c1)` of `m` modulo `q` is `v = c0 + s·c1 - (q/t)·m`, centred modulo `q`, where
//! `s = Σ_j s_j` is the key nobody has. It is a rational number, since `(q/t)·m` is.
//!
//! 1. *Encrypted mask*: `c0 = Σ_j (-a·s_j + e_j + round(Q·r_j/t))`, `c1 = a`. Errors are centred binomial with values
//!    in `±η`, `η = 21`, and a rounding is off by a half at most: the noise is at most `n(η + 1/2)`. (That `Σ_j r_j`
//!    wraps modulo `t` costs nothing: `Q·k` is 0 modulo `Q`. The rational form of the noise absorbs `Q mod t`.)
//! 2. *Product* with weight polynomials `w_p`, one for each part of the channels, summed: `Σ_p |w_p|_1 · n(η + 1/2)`.
//!    Weights are centred, at most `2^(k-1)` for width `k`, and the polynomials of one output ciphertext together
//!    have `members·block·fan_in` coefficients that are not zero, with as many members as groups of channels that
//!    share the ciphertext (module `packing`).
//! 3. *Encryption of zero* under the public key `(p0, a') = (e - a'·s, a')`, `e = Σ_j e_j`: `(p0·u + e', a'·u + e'')`
//!    with `u` and every `s_j` ternary has the noise `e·u + e' + s·e''`. A product of polynomials of degree below `N`
//!    has coefficients that are sums of `N` products, so that is at most `N·nη + η + N·nη = η(2Nn + 1)`.
//! 4. *Switch* from `Q` to `q'`: both polynomials are divided by `p_3` and rounded to nearest, each coefficient off by
//!    `1/2` at most, so the noise is divided by `p_3` and `1/2 + |s|_1/2 <= (1 + nN)/2` is added.
//!
//! Hence **`B = (members·block·fan_in·2^(k-1)·n(η + 1/2) + η(2Nn + 1))/p_3 + (1 + nN)/2`**: `noise_bound`. Every
//! server can compute it, for no weight enters. With `p_3` chosen for the layer the last term is nearly all of it:
//! 13.0 bits for two servers, 13.6 for three, 15 for eight.
//!
//! **Smudging** `e'_j` is uniform in `±2^70·B`, endpoints included: [`smudging_bound`]. The holder sees
//! `v + Σ_{j≠h} e'_j`; with one honest `j` that is within statistical distance `|v| / (2·2^70·B + 1) < 2^-71` of noise
//! that does not depend on `v`, for each coefficient. Over a key set's life the losses add up: `2^30` coefficients,
//! after which every server refuses (module `set`), leave less than `2^-40`.
//!
//! **Answers** are `h_j = s_j·c1 + e'_j - (q'/t)·s^j`, switched to the modulus `2^a` ([`answer_bits`]): five to ten
//! times shorter than modulo `q'`. The switch is a public function of `h_j` and hence costs no security. As `t`
//! divides `2^a`, `(q'/t)·s^j` becomes exactly `2^(a-32)·s^j`, so it makes no difference that the code takes it off
//! after the switch; before it, it would have to be rounded to a multiple of `1/q'`. Every switched number is off by
//! `1/2 + 2^-20` at most (module `ring`).
//!
//! **Correctness**: decoding is exact if `(B + (n-1)·2^70·B)·2^a/q' + n(1/2 + 2^-20) < 2^a/2t`. A model for which that
//! fails is refused.

use num_bigint::BigUint;

use crate::parameters::{DEGREE, ModulusSet, PLAINTEXT_BITS, answer_bits};
use crate::sample::ERROR_BOUND;
use crate::{Error, MODULUS_LIMIT};

/// By how many bits the smudging noise is wider than the worst-case noise it hides.
pub const SMUDGING_BITS: u32 = 70;

/// `2^-SLACK_BITS` bounds what fixed-point arithmetic adds to the rounding of a switched number.
pub(crate) const SLACK_BITS: u32 = 20;

/// The worst-case noise `B` of a layer's product ciphertext modulo `q'`, its re-randomisation and the switch included:
/// see the head of this module's source for the derivation. From the number of weights that enter one output ciphertext,
/// their width, the number of servers, and the prime that the switch drops.
pub(crate) fn noise_bound(nonzero: usize, width: u32, servers: usize, dropped: u64) -> BigUint {
    switched_bound(&product_bound(nonzero, width, servers), servers, dropped)
}

/// Twice the worst-case noise modulo `Q` when the weight polynomials of one output ciphertext have `nonzero`
/// coefficients in all, encryption of zero included.
pub(crate) fn product_bound(nonzero: usize, width: u32, servers: usize) -> BigUint {
    let mask = servers * (2 * ERROR_BOUND as usize + 1);
    let zero = ERROR_BOUND as usize * (2 * DEGREE * servers + 1);
    (BigUint::from(nonzero) << (width - 1)) * mask + 2 * zero
}

/// `B`, rounded up, from twice the noise before the switch that drops a prime.
fn switched_bound(twice: &BigUint, servers: usize, dropped: u64) -> BigUint {
    let rounding = BigUint::from(1 + servers * DEGREE) * dropped;
    (twice + rounding + 2 * dropped - 1u32) / (2 * dropped)
}

/// Half the width of the smudging noise that hides ciphertext noise up to `noise`: `2^70·noise`.
pub fn smudging_bound(noise: &BigUint) -> BigUint {
    noise << SMUDGING_BITS
}

/// `Ok` if a layer with worst-case noise `noise` decodes exactly under the modulus `set`.
pub(crate) fn check_budget(noise: &BigUint, servers: usize, set: &ModulusSet) -> Result<(), Error> {
    let whole: BigUint = set.primes.iter().product();
    let kept: BigUint = set.primes[..2].iter().product();
    // Units of 2^-SLACK_BITS/2 of an answer: what decoding allows less the roundings.
    let bits = answer_bits(servers);
    let rounding = servers as u64 * ((1 << SLACK_BITS) + 2);
    let room = (1u64 << (bits - PLAINTEXT_BITS + SLACK_BITS)) - rounding;
    let noise = (noise + smudging_bound(noise) * (servers - 1)) << (bits + SLACK_BITS + 1);
    let needed: BigUint = noise / room + 1u32;
    if needed <= kept && whole.bits() <= MODULUS_LIMIT.into() {
        Ok(())
    } else {
        Err(Error::NoiseBudget { needed: needed.bits(), available: kept.bits() })
    }
}

#[cfg(test)]
mod tests {
    use seco_model::{Conv, Dense, Geometry};

    use super::*;
    use crate::parameters::{LayerShape, Parameters, SETS, bits};

    #[test]
    fn bound_is_the_formula() {
        // One weight of one bit, two servers: twice 1·1·2·(21 + 1/2) + 21·(4·8192 + 1).
        assert_eq!(product_bound(1, 1, 2), BigUint::from(2u32 * 43 + 2 * 21 * (4 * 8192 + 1)));
        // Doubling the width's range doubles all but the re-randomisation.
        let (narrow, wide) = (product_bound(900, 20, 3), product_bound(900, 21, 3));
        assert_eq!(&narrow * 2u32 - &wide, BigUint::from(2u32 * 21 * (6 * 8192 + 1)));
        // A prime larger than all noise leaves the rounding alone, which is a half more than a whole number, and
        // what is left of the noise; rounded up.
        assert_eq!(switched_bound(&BigUint::from(5u32), 2, 1009), BigUint::from(8193u32));
        assert_eq!(switched_bound(&BigUint::from(1009u32), 2, 1009), BigUint::from(8193u32));
        assert_eq!(switched_bound(&BigUint::from(1010u32), 2, 1009), BigUint::from(8194u32));
        // 2^13.0, 2^13.6, 2^14 and 2^15 in the specification.
        for (servers, log) in [(2, 13.0), (3, 13.6), (4, 14.0), (8, 15.0)] {
            let all = product_bound(8192, 32, servers);
            let bound: u64 = switched_bound(&all, servers, SETS[8].primes[2]).try_into().unwrap();
            assert!(((bound as f64).log2() - log).abs() < 0.05, "{servers}: {bound}");
        }
    }

    #[test]
    fn the_smallest_sufficient_set_is_chosen() {
        let small = Geometry::Conv(Conv {
            input: [1, 12, 12],
            channels: 4,
            kernel: [3, 3],
            stride: [1, 1],
            pads: [0; 4],
            dilation: [1; 2],
            groups: 1,
        });
        let wide = Geometry::Dense(Dense { inputs: 800, outputs: 500 });
        let widest = Geometry::Dense(Dense { inputs: 1 << 25, outputs: 1 });
        let select = |layers: &[LayerShape], servers| {
            let (p, _) = Parameters::select(layers, servers).unwrap();
            (p.modulus_bits(), p.answered_modulus_bits())
        };
        let one = |geometry, width, servers| select(&[LayerShape { geometry, width }], servers);
        assert_eq!(one(&small, 16, 2), (152, 118));
        assert_eq!(one(&small, 16, 3), (152, 118));
        assert_eq!(one(&small, 16, 4), (154, 120));
        assert_eq!(one(&small, 16, 5), (154, 120));
        assert_eq!(one(&small, 16, 6), (156, 122));
        assert_eq!(one(&small, 16, 8), (156, 122));
        assert_eq!(one(&wide, 20, 3), (152, 118));
        assert_eq!(one(&wide, 32, 2), (156, 122));
        assert_eq!(one(&wide, 32, 3), (162, 120));
        assert_eq!(one(&widest, 32, 2), (168, 118));
        assert_eq!(one(&widest, 32, 3), (170, 120));
        let both = [LayerShape { geometry: &small, width: 16 }, LayerShape { geometry: &wide, width: 32 }];
        assert_eq!(select(&both, 8), (164, 122));
        assert_eq!(select(&[], 8), (152, 118));
    }

    #[test]
    fn a_layer_that_does_not_fit_is_named() {
        let small = Geometry::Dense(Dense { inputs: 16, outputs: 16 });
        let huge = Geometry::Dense(Dense { inputs: 1 << 25, outputs: 2 });
        let layers = [LayerShape { geometry: &small, width: 8 }, LayerShape { geometry: &huge, width: 32 }];
        let Err(error @ Error::Layer { layer: 1, .. }) = Parameters::select_from(&SETS[..3], &layers, 8)
        else {
            panic!("a layer too wide was accepted")
        };
        let text = error.to_string();
        assert!(text.contains("layer 1") && text.contains("where 122") && text.contains("width"), "{text}");
        // No model file has a larger layer, so there is room for all.
        assert_eq!(Parameters::select(&layers, 8).unwrap().0.modulus_bits(), 172);
    }

    #[test]
    fn budget_is_tight() {
        // The largest noise that passes decodes; one more is refused.
        for set in &SETS {
            for servers in 2..=8 {
                let (mut low, mut high) = (BigUint::from(0u32), BigUint::from(1u32) << 100);
                while &high - &low > BigUint::from(1u32) {
                    let middle: BigUint = (&low + &high) >> 1;
                    if check_budget(&middle, servers, set).is_ok() { low = middle } else { high = middle }
                }
                let kept = 2.0 * f64::from(bits(set.primes[0]));
                let low = low.to_string().parse::<f64>().unwrap().log2();
                let left = kept - (33.0 + 70.0 + (servers as f64 - 1.0).log2()) - low;
                // Between 1/16 and a quarter goes to roundings.
                assert!((0.05..0.45).contains(&left), "{left} bits of {kept} are unused, n = {servers}");
            }
        }
    }
}
