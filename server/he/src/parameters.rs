//! Ciphertext moduli that were vetted, and the choice among them.
//!
//! The degree is fixed at 8192 and the plaintext modulus at `2^32`; only the ciphertext modulus varies, because it
//! decides the length of every message. `Q = p_1·p_2·p_3`, the largest prime first:
//!
//! - `q' = p_1·p_2` carries the answer. Smudging, and with it the number of servers, decides its size: two primes of
//!   59 bits do for 2 and 3 servers, of 60 for 4 and 5, of 61 for 6 to 8.
//! - `p_3` is dropped after the product and takes the product's noise with it. The widest layer decides its size: 34
//!   bits do for layers of about 20 bits, 42 for most of 32, 50 for wider sums. Weights are below it in absolute
//!   value, which 34 bits leave room for.
//!
//! Three primes always, since each costs a transform of every polynomial. `fhe-math` needs primes below `2^62` that
//! are 1 modulo `2N`.
//!
//! **Security.** The HomomorphicEncryption.org standard (Albrecht et al., version 1.1, 2018; eprint 2019/939) gives
//! for dimension 8192, ternary secret and 128-bit security at most 218 bits of modulus against classical and **202
//! against quantum attack**. The limit relied on is 202 ([`MODULUS_LIMIT`]), and the largest set has 172. The table
//! assumes errors of standard deviation 3.19; ours is `sqrt(21/2) = 3.24`. Later attacks (the hybrid dual attack;
//! see Bossuat et al., *Security Guidelines for Implementing Homomorphic Encryption*, eprint 2024/463) take some
//! bits off the classical column, the other reason to stay well below 218.

use std::sync::Arc;

use seco_model::{Geometry, MAX_SERVERS};

use crate::noise::{check_budget, noise_bound};
use crate::packing::Packing;
use crate::ring::Ring;
use crate::{Error, LinearPlan, wire};

/// Degree `N` of the polynomials: coefficients in a ciphertext.
pub const DEGREE: usize = 8192;

/// The plaintext modulus is `t = 2^32`, whatever a layer's width.
pub const PLAINTEXT_BITS: u32 = 32;

/// Most bits a ciphertext modulus may have at degree 8192 for 128-bit security against quantum attack with ternary
/// secrets (HomomorphicEncryption.org standard 1.1).
pub const MODULUS_LIMIT: u32 = 202;

/// A ciphertext modulus: `p_1`, `p_2` and `p_3`, distinct, each 1 modulo `2N`.
pub(crate) struct ModulusSet {
    pub(crate) primes: [u64; 3],
}

/// Pairs of primes for `q'`, of 59, 60 and 61 bits.
const KEPT: [[u64; 2]; 3] = [
    [0x07ff_ffff_fffc_c001, 0x07ff_ffff_fffa_4001],
    [0x0fff_ffff_ffff_c001, 0x0fff_ffff_fffe_8001],
    [0x1fff_ffff_fffa_4001, 0x1fff_ffff_fff7_4001],
];

/// Primes to drop, of 34, 42 and 50 bits.
const DROPPED: [u64; 3] = [0x3_fffe_4001, 0x03ff_fffa_8001, 0x0003_ffff_ffff_c001];

/// The vetted sets, smallest `Q` first. The last leaves the most room: enough for the largest layer that a model file may
/// have, with weights of 32 bits and eight servers.
pub(crate) const SETS: [ModulusSet; 9] = {
    const fn set(kept: usize, dropped: usize) -> ModulusSet {
        ModulusSet { primes: [KEPT[kept][0], KEPT[kept][1], DROPPED[dropped]] }
    }
    [set(0, 0), set(1, 0), set(2, 0), set(0, 1), set(1, 1), set(2, 1), set(0, 2), set(1, 2), set(2, 2)]
};

/// Bits of a prime, and of a packed residue.
pub(crate) const fn bits(prime: u64) -> u32 {
    u64::BITS - prime.leading_zeros()
}

/// Answers are switched to the modulus `2^answer_bits`: wide enough for `n` roundings by a half, and a multiple of
/// `t`, so that a share of the result can be taken off exactly.
pub(crate) const fn answer_bits(servers: usize) -> u32 {
    if servers <= 4 { 36 } else { 37 }
}

/// A linear layer as all servers know it.
#[derive(Clone, Copy, Debug)]
pub struct LayerShape<'a> {
    /// Shape of the layer.
    pub geometry: &'a Geometry,
    /// Weights, or their shares, are uniform or smaller modulo `2^width`; 1 to 32 bits.
    pub width: u32,
}

impl LayerShape<'_> {
    /// How it is packed: a search, done once for a layer.
    pub(crate) fn packing(&self) -> Result<Packing, Error> {
        if !(1..=32).contains(&self.width) {
            return Err(Error::Width(self.width));
        }
        Packing::new(self.geometry)
    }
}

/// Degree, moduli and number of servers, with what arithmetic precomputes for them. Clones share the same data.
///
/// Everything made under one `Parameters` (keys, plans, weights) works with everything made under another one that
/// selected the same set for as many servers.
#[derive(Clone)]
pub struct Parameters(Arc<Inner>);

struct Inner {
    set: usize,
    servers: usize,
    ring: Ring,
}

impl Parameters {
    /// The smallest vetted set in which the worst-case noise of every layer fits, smudging included; with the plans of
    /// the layers under it.
    ///
    /// All servers call it with the same layers and hence select the same set. `servers` is `n`.
    ///
    /// # Errors
    /// [`Error::Servers`]; [`Error::Layer`] around [`Error::NoiseBudget`], [`Error::Model`], [`Error::Width`] or
    /// [`Error::Ciphertexts`] for the first layer that cannot be served.
    pub fn select(layers: &[LayerShape], servers: usize) -> Result<(Self, Vec<LinearPlan>), Error> {
        Self::select_from(&SETS, layers, servers)
    }

    /// As [`Parameters::select`], from the first of the vetted sets.
    pub(crate) fn select_from(
        sets: &[ModulusSet],
        layers: &[LayerShape],
        servers: usize,
    ) -> Result<(Self, Vec<LinearPlan>), Error> {
        if !(2..=MAX_SERVERS).contains(&servers) {
            return Err(Error::Servers(servers));
        }
        let of_layer = |layer: usize| move |source| Error::Layer { layer, source: Box::new(source) };
        let packings =
            layers.iter().enumerate().map(|(layer, shape)| shape.packing().map_err(of_layer(layer)));
        let packings = packings.collect::<Result<Vec<_>, _>>()?;
        let nonzero: Vec<usize> = packings.iter().map(Packing::weights_per_output).collect();
        // The last set tells whether there is room at all, the first that has enough is taken.
        let mut result = Err(Error::Mismatch);
        for (number, set) in sets.iter().enumerate().rev() {
            let fit = layers.iter().zip(&nonzero).enumerate().try_for_each(|(layer, (shape, &nonzero))| {
                let bound = noise_bound(nonzero, shape.width, servers, set.primes[2]);
                check_budget(&bound, servers, set).map_err(of_layer(layer))
            });
            match fit {
                Ok(()) => result = Ok(number),
                Err(error) if number + 1 == sets.len() => return Err(error),
                Err(_) => {}
            }
        }
        let parameters = Self::of(result?, servers)?;
        let plans =
            layers.iter().zip(packings).map(|(shape, packing)| LinearPlan::new(&parameters, *shape, packing));
        let plans = plans.collect::<Result<_, _>>()?;
        Ok((parameters, plans))
    }

    /// Set number `set`, whatever the layers.
    pub(crate) fn of(set: usize, servers: usize) -> Result<Self, Error> {
        let primes = SETS.get(set).ok_or(Error::Mismatch)?;
        Ok(Self(Arc::new(Inner { set, servers, ring: Ring::new(primes, servers)? })))
    }

    /// Number of servers, `n`.
    pub fn servers(&self) -> usize {
        self.0.servers
    }

    /// Bits of the ciphertext modulus `Q`, under which masks are encrypted and products computed.
    pub fn modulus_bits(&self) -> u32 {
        self.set().primes.iter().map(|&p| bits(p)).sum()
    }

    /// Bits of the ciphertext modulus `q'`, to which products are switched before they are answered.
    pub fn answered_modulus_bits(&self) -> u32 {
        self.set().primes[..2].iter().map(|&p| bits(p)).sum()
    }

    /// Bytes of one polynomial modulo `Q` in a message; also the length of a public share.
    pub fn polynomial_len(&self) -> usize {
        wire::polynomial_len(self.ring().whole())
    }

    pub(crate) fn set(&self) -> &'static ModulusSet {
        &SETS[self.0.set]
    }

    pub(crate) fn ring(&self) -> &Ring {
        &self.0.ring
    }

    /// `Ok` if `other` selected the same set for as many servers.
    pub(crate) fn check_same(&self, other: &Self) -> Result<(), Error> {
        let same = self.0.set == other.0.set && self.0.servers == other.0.servers;
        if same { Ok(()) } else { Err(Error::Mismatch) }
    }
}
