//! The noise bound: how much the noise of a product ciphertext can be, in the worst case, and what hides it.
//!
//! Everything below is a bound on the infinity norm that holds for *every* outcome of the random choices, not a
//! bound that holds with high probability: only a certain bound can be compared with a statistical distance, and
//! `t·noise < q/2` then never fails. `n` servers, degree `N`, `q` the ciphertext modulus, `t = 2^32`.
//!
//! **Noise** of a ciphertext `(c0, c1)` of `m` is `v = c0 + s·c1 - (q/t)·m`, centred modulo `q`, where `s = Σ_j s_j`
//! is the key nobody has. It is a rational number, since `(q/t)·m` is.
//!
//! 1. *Public key.* `p0 = -a·s + e` with `e = Σ_j e_j`. Shares `s_j` are ternary and errors are centred binomial with
//!    values in `±η`, `η = 21`, so `|s| <= n` and `|e| <= nη`.
//! 2. *Fresh encryption* of `m`: `c0 = p0·u + e' + floor(q·m/t)`, `c1 = a·u + e''`, `u` ternary. The noise is
//!    `e·u + e' + s·e'' - ε` with `0 <= ε < 1` for the floor. A product of polynomials of degree below `N` has
//!    coefficients that are sums of `N` products, so `E = N·nη + η + N·nη + 1 = η(2Nn + 1) + 1`.
//! 3. *Sum* over the `n` servers' parts of the mask: `n·E`. (That `Σ_j r^j` wraps modulo `t` costs nothing: `q·k` is
//!    0 modulo `q`. The rational form of the noise absorbs `q mod t`.)
//! 4. *Product* with weight polynomials `w_g`, one for each channel group, summed: `Σ_g |w_g|_1 · n·E`. Weights are
//!    centred, at most `2^(k-1)` for width `k`, and the polynomials of one output ciphertext together have
//!    `block · fan_in` coefficients that are not zero (module `packing`).
//! 5. *Fresh encryption of zero*, without the floor: `+ η(2Nn + 1)`, counted as another `E`.
//!
//! Hence **`B = (block · fan_in · 2^(k-1) · n + 1) · E`**: [`noise_bound`]. Every server can compute it, for no
//! weight enters.
//!
//! **Smudging** `e_j` is uniform in `±2^84·B`, endpoints included: [`smudging_bound`]. The holder sees
//! `v + Σ_{j≠h} e_j`; with one honest `j` that is within statistical distance `|v| / (2·2^84·B + 1) < 2^-85` of noise
//! that does not depend on `v`, for each coefficient. Over a key's lifetime the losses add up: 10^6 inferences of
//! 10^7 coefficients leave about `2^-40`.
//!
//! **Answers** are `h_j = s_j·c1 + e_j - floor(q·s^j/t)`, then switched from `q` to its first prime `q_1`, which makes
//! them three to four times shorter. The switch is a public function of `h_j` and hence costs no security. (Taking
//! `Δ·s^j` off *after* the switch would: its rounding error depends on `s^j` and is not small against what smudging
//! is left there.) It adds an error below `2(p-1)` units of `q/q_1`, `p` the number of primes (module `ring`).
//!
//! **Correctness**: decoding is exact if
//! `B + (n-1)·(2^84·B + 1) + (q/q_1)·(2n(p-1) + 1) <= q/2t`, the last unit for the fixed-point division of the
//! decoder. A model for which that fails is refused.

use num_bigint::BigUint;

use crate::packing::Packing;
use crate::parameters::{DEGREE, LayerShape, ModulusSet, PLAINTEXT_BITS};
use crate::sample::ERROR_BOUND;
use crate::{Error, MODULUS_LIMIT};

/// By how many bits the smudging noise is wider than the worst-case noise it hides.
pub const SMUDGING_BITS: u32 = 84;

/// The worst-case noise `B` of a layer's product ciphertext, its re-randomisation included: see the head of this
/// module's source for the derivation. `servers` is `n`.
///
/// # Errors
/// [`Error::Width`], [`Error::Model`] or [`Error::Band`] if the layer is no layer.
pub fn noise_bound(layer: LayerShape, servers: usize) -> Result<BigUint, Error> {
    if !(1..=32).contains(&layer.width) {
        return Err(Error::Width(layer.width));
    }
    let nonzero = Packing::new(layer.geometry)?.weights_per_output();
    Ok(product_bound(nonzero, layer.width, servers))
}

/// `B` when the weight polynomials of one output ciphertext have `nonzero` coefficients in all.
fn product_bound(nonzero: usize, width: u32, servers: usize) -> BigUint {
    let fresh = ERROR_BOUND as usize * (2 * DEGREE * servers + 1) + 1;
    ((BigUint::from(nonzero) << (width - 1)) * servers + 1u32) * fresh
}

/// Half the width of the smudging noise that hides ciphertext noise up to `noise`: `2^84·noise`.
pub fn smudging_bound(noise: &BigUint) -> BigUint {
    noise << SMUDGING_BITS
}

/// `Ok` if a layer with worst-case noise `noise` decodes exactly under the modulus `set`.
pub(crate) fn check_budget(noise: &BigUint, servers: usize, set: &ModulusSet) -> Result<(), Error> {
    let others: BigUint = set.primes.iter().skip(1).product();
    let modulus: BigUint = set.primes.iter().product();
    let total = noise + (smudging_bound(noise) + 1u32) * (servers - 1);
    let switching = others * (2 * servers * (set.primes.len() - 1) + 1);
    let needed: BigUint = (total + switching) << (PLAINTEXT_BITS + 1);
    if needed <= modulus && modulus.bits() <= MODULUS_LIMIT.into() {
        Ok(())
    } else {
        Err(Error::NoiseBudget { needed: needed.bits(), available: modulus.bits() })
    }
}

#[cfg(test)]
mod tests {
    use seco_model::{Conv, Dense, Geometry};

    use super::*;
    use crate::parameters::{Parameters, SETS};

    #[test]
    fn bound_is_the_formula() {
        // One weight of one bit, two servers: (1·1·2 + 1) · (21·(4·8192 + 1) + 1).
        assert_eq!(product_bound(1, 1, 2), BigUint::from(3u32 * (21 * (4 * 8192 + 1) + 1)));
        // Doubling the width's range doubles all but the re-randomisation.
        let (narrow, wide) = (product_bound(900, 20, 3), product_bound(900, 21, 3));
        assert_eq!(&narrow * 2u32 - &wide, product_bound(1, 1, 3) / 4u32);
    }

    #[test]
    fn the_smallest_sufficient_set_is_chosen() {
        let small = Geometry::Conv(Conv {
            input: [1, 12, 12],
            channels: 4,
            kernel: [3, 3],
            stride: [1, 1],
            pads: [0; 4],
        });
        let wide = Geometry::Dense(Dense { inputs: 800, outputs: 500 });
        let wider = Geometry::Dense(Dense { inputs: 4000, outputs: 500 });
        let bits = |geometry, width| {
            Parameters::select(&[LayerShape { geometry, width }], 3).map(|p| p.modulus_bits()).ok()
        };
        assert_eq!(bits(&small, 16), Some(174));
        assert_eq!(bits(&wide, 26), Some(186));
        assert_eq!(bits(&wide, 32), Some(186));
        assert_eq!(bits(&wider, 32), Some(200));
        let both = [LayerShape { geometry: &small, width: 16 }, LayerShape { geometry: &wide, width: 26 }];
        assert_eq!(Parameters::select(&both, 3).ok().map(|p| p.modulus_bits()), Some(186));
    }

    #[test]
    fn a_layer_that_does_not_fit_is_named() {
        let small = Geometry::Dense(Dense { inputs: 16, outputs: 16 });
        let huge = Geometry::Dense(Dense { inputs: 1 << 25, outputs: 2 });
        let layers = [LayerShape { geometry: &small, width: 8 }, LayerShape { geometry: &huge, width: 32 }];
        let Err(Error::Layer { layer: 1, source }) = Parameters::select(&layers, 8) else {
            panic!("a layer too wide was accepted")
        };
        let Error::NoiseBudget { needed, available } = *source else { panic!("wrong reason: {source}") };
        assert!(needed > 200 && available == 200, "{needed} {available}");
    }

    #[test]
    fn budget_is_tight() {
        // The largest noise that passes decodes; one more is refused.
        for set in &SETS {
            let (mut low, mut high) = (BigUint::from(0u32), BigUint::from(1u32) << 100);
            while &high - &low > BigUint::from(1u32) {
                let middle: BigUint = (&low + &high) >> 1;
                if check_budget(&middle, 3, set).is_ok() { low = middle } else { high = middle }
            }
            let modulus: BigUint = set.primes.iter().product();
            let left = modulus.bits() as i64 - (33 + 84 + 1) - low.bits() as i64;
            assert!((-1..=1).contains(&left), "{left} bits of {} are unused", modulus.bits());
        }
    }
}
