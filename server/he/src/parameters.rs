//! Ciphertext moduli that were vetted, and the choice among them.
//!
//! The degree is fixed at 8192 and the plaintext modulus at `2^32`; only the ciphertext modulus `q` varies, because
//! it decides the length of every message and, by its number of primes, the time of every operation. Three sets:
//!
//! | bits of `q` | primes | what it is for |
//! |---|---|---|
//! | 174 | 3 of 58 bits | layers of about 20 bits |
//! | 186 | 3 of 62 bits | layers of 26 bits, most layers of 32; the most that three primes can give |
//! | 200 | 4 of 50 bits | very wide layers, many servers; a third slower |
//!
//! **Security.** The HomomorphicEncryption.org standard (Albrecht et al., version 1.1, 2018; eprint 2019/939) gives
//! for dimension 8192, ternary secret and 128-bit security at most 218 bits of modulus against classical and **202
//! against quantum attack**. The limit relied on is 202 ([`MODULUS_LIMIT`]), and every set is below it. The table
//! assumes errors of standard deviation 3.19; ours is `sqrt(21/2) = 3.24`. Later attacks (the hybrid dual attack;
//! see Bossuat et al., *Security Guidelines for Implementing Homomorphic Encryption*, eprint 2024/463) take some
//! bits off the classical column, the other reason to stay well below 218.

use std::sync::Arc;

use seco_model::{Geometry, MAX_SERVERS};

use crate::noise::{self, noise_bound};
use crate::ring::Ring;
use crate::{Error, wire};

/// Degree `N` of the polynomials: coefficients in a ciphertext.
pub const DEGREE: usize = 8192;

/// The plaintext modulus is `t = 2^32`, whatever a layer's width.
pub const PLAINTEXT_BITS: u32 = 32;

/// Most bits a ciphertext modulus may have at degree 8192 for 128-bit security against quantum attack with ternary
/// secrets (HomomorphicEncryption.org standard 1.1).
pub const MODULUS_LIMIT: u32 = 202;

/// A ciphertext modulus: the product of primes of the same size, each 1 modulo `2N`, largest first.
pub(crate) struct ModulusSet {
    /// Bits of every prime.
    pub(crate) prime_bits: u32,
    pub(crate) primes: &'static [u64],
}

/// The vetted sets, smallest first.
pub(crate) const SETS: [ModulusSet; 3] = [
    ModulusSet {
        prime_bits: 58,
        primes: &[0x3ff_ffff_fff3_4001, 0x3ff_ffff_fff0_c001, 0x3ff_ffff_ffef_8001],
    },
    ModulusSet {
        prime_bits: 62,
        primes: &[0x3fff_ffff_ffff_0001, 0x3fff_ffff_fffe_8001, 0x3fff_ffff_fff1_c001],
    },
    ModulusSet {
        prime_bits: 50,
        primes: &[0x3_ffff_ffff_c001, 0x3_ffff_fffc_c001, 0x3_ffff_ffef_4001, 0x3_ffff_ffe9_4001],
    },
];

/// A linear layer as all servers know it.
#[derive(Clone, Copy, Debug)]
pub struct LayerShape<'a> {
    /// Shape of the layer.
    pub geometry: &'a Geometry,
    /// Weights, or their shares, are uniform or smaller modulo `2^width`; 1 to 32 bits.
    pub width: u32,
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
    /// The smallest vetted set in which the worst-case noise of every layer fits, smudging included.
    ///
    /// All servers call it with the same layers and hence select the same set. `servers` is `n`.
    ///
    /// # Errors
    /// [`Error::Servers`]; [`Error::Layer`] around [`Error::NoiseBudget`], [`Error::Model`], [`Error::Width`] or
    /// [`Error::Band`] for the first layer that cannot be served.
    pub fn select(layers: &[LayerShape], servers: usize) -> Result<Self, Error> {
        if !(2..=MAX_SERVERS).contains(&servers) {
            return Err(Error::Servers(servers));
        }
        let named = |layer, source| Error::Layer { layer, source: Box::new(source) };
        let mut set = 0;
        for (layer, shape) in layers.iter().enumerate() {
            let bound = noise_bound(*shape, servers).map_err(|e| named(layer, e))?;
            while let Err(e) = noise::check_budget(&bound, servers, &SETS[set]) {
                set += 1;
                if set == SETS.len() {
                    return Err(named(layer, e));
                }
            }
        }
        Ok(Self(Arc::new(Inner { set, servers, ring: Ring::new(&SETS[set])? })))
    }

    /// Number of servers, `n`.
    pub fn servers(&self) -> usize {
        self.0.servers
    }

    /// Bits of the ciphertext modulus `q`.
    pub fn modulus_bits(&self) -> u32 {
        self.set().prime_bits * self.set().primes.len() as u32
    }

    /// Bytes of one polynomial in a message; also the length of a public share.
    pub fn polynomial_len(&self) -> usize {
        wire::polynomial_len(self.ring())
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
