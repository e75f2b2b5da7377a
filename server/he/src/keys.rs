//! Key shares, the common public key, and encryption under it.

use fhe_math::rq::{Poly, Representation};
use rand_chacha09::ChaCha20Rng;
use rayon::prelude::*;
use zeroize::Zeroizing;

use crate::layer::LinearPlan;
use crate::sample::{Purpose, error, stream, ternary};
use crate::{Error, Parameters, wire};

/// One server's share `sk_j` of the cluster's secret key: ternary, in NTT form, wiped on drop.
///
/// `n`-of-`n`: nothing can be decrypted without every server's share.
pub struct SecretShare {
    parameters: Parameters,
    key: Zeroizing<Poly>,
}

impl SecretShare {
    /// A fresh share. `seed` is secret, uniform, and must be used for nothing else but the matching
    /// [`SecretShare::public_share`].
    ///
    /// # Errors
    /// None on any input; [`Error::Ring`] tells of a defect.
    pub fn random(parameters: &Parameters, seed: &[u8; 32]) -> Result<Self, Error> {
        let coefficients = ternary(&mut stream(seed, Purpose::KeyShare, 0));
        Ok(Self { parameters: parameters.clone(), key: parameters.ring().small(&coefficients)? })
    }

    /// This server's public share `e_j - a·sk_j`, [`Parameters::polynomial_len`] bytes, for all servers.
    ///
    /// `common` is the seed of the common polynomial `a`: public, the same on all servers and out of any single
    /// one's control (a hash over every server's contribution to the key set-up). `seed` is secret. Calling it
    /// again with the same `common` needs the same `seed`: two errors under one `a` would help an attacker.
    ///
    /// # Errors
    /// None on any input; [`Error::Ring`] tells of a defect.
    pub fn public_share(&self, common: &[u8; 32], seed: &[u8; 32]) -> Result<Vec<u8>, Error> {
        let ring = self.parameters.ring();
        let mut share = ring.small(&error(&mut stream(seed, Purpose::PublicShare, 0)))?;
        let mut product = Zeroizing::new(ring.common(common));
        *product *= &*self.key;
        *share -= &*product;
        let mut out = Vec::with_capacity(self.parameters.polynomial_len());
        wire::write_polynomial(ring, &share, &mut out)?;
        Ok(out)
    }

    pub(crate) fn parameters(&self) -> &Parameters {
        &self.parameters
    }

    /// `sk_j·c1` (and `+ c0`, where given) as coefficients. Secret: with `c1` it gives the key.
    pub(crate) fn apply(&self, c1: &Poly, c0: Option<&Poly>) -> Zeroizing<Poly> {
        let mut product = Zeroizing::new(c1.clone());
        *product *= &*self.key;
        if let Some(c0) = c0 {
            *product += c0;
        }
        product.change_representation(Representation::PowerBasis);
        product
    }
}

/// The cluster's common public key: a BFV encryption key for `Σ_j sk_j`.
pub struct PublicKey {
    parameters: Parameters,
    /// `e - a·s`, prepared for products.
    p0: Poly,
    /// `a`, prepared for products.
    p1: Poly,
}

impl PublicKey {
    /// The common key from the public shares of all servers, in any order.
    ///
    /// `common` is the seed that all shares were made with.
    ///
    /// # Errors
    /// [`Error::Count`] unless there is one share for each server; [`Error::Length`] or [`Error::Residue`] if one is
    /// malformed.
    pub fn combine(
        parameters: &Parameters,
        common: &[u8; 32],
        shares: &[impl AsRef<[u8]>],
    ) -> Result<Self, Error> {
        const WHAT: &str = "public key share";
        Error::check_count("public key shares", shares.len(), parameters.servers())?;
        let ring = parameters.ring();
        let mut p1 = ring.common(common);
        let mut p0 = Poly::zero(p1.ctx(), Representation::Ntt);
        for share in shares {
            p0 += &wire::read_polynomial(WHAT, ring, share.as_ref())?;
        }
        p0.change_representation(Representation::NttShoup);
        p1.change_representation(Representation::NttShoup);
        Ok(Self { parameters: parameters.clone(), p0, p1 })
    }

    /// Step 1: this server's part of a layer's input mask, encrypted for the layer's holders.
    ///
    /// `mask` has one value for each input of the layer (flat, `C H W`), taken modulo `2^32`. `seed` is secret,
    /// uniform and fresh for every call. The result has [`LinearPlan::encrypted_len`] bytes; zero padding of a
    /// convolution is part of it.
    ///
    /// # Errors
    /// [`Error::Count`] if `mask` has not one value per input; [`Error::Mismatch`] for another set's plan.
    pub fn encrypt(&self, plan: &LinearPlan, mask: &[u32], seed: &[u8; 32]) -> Result<Vec<u8>, Error> {
        self.parameters.check_same(plan.parameters())?;
        Error::check_count("mask values", mask.len(), plan.inputs())?;
        let parts = (0..plan.input_ciphertexts()).into_par_iter().map(|index| {
            let message = plan.packing().input(index, mask);
            let mut rng = stream(seed, Purpose::Mask, index);
            let mut out = Vec::with_capacity(2 * self.parameters.polynomial_len());
            for polynomial in self.encrypt_coefficients(Some(&message), &mut rng)? {
                wire::write_polynomial(self.parameters.ring(), &polynomial, &mut out)?;
            }
            Ok(out)
        });
        Ok(parts.collect::<Result<Vec<_>, Error>>()?.concat())
    }

    /// `(p0·u + e' + floor(q·m/t), p1·u + e'')` in NTT form; `m` is zero if there is no message.
    pub(crate) fn encrypt_coefficients(
        &self,
        message: Option<&[u32]>,
        rng: &mut ChaCha20Rng,
    ) -> Result<[Poly; 2], Error> {
        let ring = self.parameters.ring();
        let u = ring.small(&ternary(rng))?;
        let noise = ring.encoded(&error(rng), message)?;
        let mut c0 = Poly::clone(&u);
        c0 *= &self.p0;
        c0 += &*noise;
        let mut c1 = Poly::clone(&u);
        c1 *= &self.p1;
        c1 += &*ring.small(&error(rng))?;
        Ok([c0, c1])
    }

    pub(crate) fn parameters(&self) -> &Parameters {
        &self.parameters
    }
}

#[cfg(test)]
impl PublicKey {
    pub(crate) fn polynomials(&self) -> [&Poly; 2] {
        [&self.p0, &self.p1]
    }
}
