//! Key shares, the common public key, and encryption with either.

use fhe_math::rq::{Poly, Representation};
use rand_chacha09::ChaCha20Rng;
use zeroize::Zeroizing;

use crate::ring::{Basis, Ring};
use crate::sample::{Purpose, error, stream, ternary};
use crate::{Error, Parameters, wire};

/// One server's share `sk_j` of the cluster's secret key: ternary, wiped on drop.
///
/// `n`-of-`n`: nothing can be decrypted without every server's share.
pub(crate) struct SecretShare {
    /// Modulo `Q`, prepared for products.
    whole: Zeroizing<Poly>,
    /// Modulo `q'`, prepared for products.
    kept: Zeroizing<Poly>,
}

impl SecretShare {
    /// A fresh share. `seed` is secret and uniform.
    pub(crate) fn random(ring: &Ring, seed: &[u8; 32]) -> Result<Self, Error> {
        let coefficients = ternary(&mut stream(seed, Purpose::KeyShare, 0));
        let prepared = |basis: &Basis| {
            let mut key = basis.transformed(&coefficients)?;
            key.change_representation(Representation::NttShoup);
            Ok::<_, Error>(key)
        };
        Ok(Self { whole: prepared(ring.whole())?, kept: prepared(ring.kept())? })
    }

    /// `m - a·sk_j`, of polynomials modulo `Q` in NTT form. `noisy` has the error in it that makes this an encryption
    /// of what else it holds.
    pub(crate) fn mask(&self, noisy: &mut Poly, a: Poly) {
        let mut product = Zeroizing::new(a);
        *product *= &*self.whole;
        *noisy -= &*product;
    }

    /// This server's public share `e_j - a·sk_j`, packed, for the common polynomial `a`.
    pub(crate) fn public_share(&self, ring: &Ring, a: Poly, seed: &[u8; 32]) -> Result<Vec<u8>, Error> {
        let mut share = ring.whole().transformed(&error(&mut stream(seed, Purpose::PublicShare, 0)))?;
        self.mask(&mut share, a);
        let mut out = Vec::with_capacity(wire::polynomial_len(ring.whole()));
        wire::write_polynomial(ring.whole(), &share, &mut out)?;
        Ok(out)
    }

    /// `sk_j·c1` modulo `q'`, as coefficients. Secret: with `c1` it gives the key.
    pub(crate) fn apply(&self, c1: &Poly) -> Zeroizing<Poly> {
        let mut product = Zeroizing::new(c1.clone());
        *product *= &*self.kept;
        product.change_representation(Representation::PowerBasis);
        product
    }
}

/// The cluster's common public key: a BFV encryption key for `Σ_j sk_j`.
pub(crate) struct PublicKey {
    /// `e - a·s`, prepared for products.
    p0: Poly,
    /// `a`, prepared for products.
    p1: Poly,
}

/// An encryption of zero, in the parts of which it is the sum.
pub(crate) struct Zero {
    /// `p0·u` and `a·u`, in NTT form.
    pub(crate) products: [Poly; 2],
    /// `e'` and `e''`, as coefficients.
    pub(crate) errors: [Zeroizing<Poly>; 2],
}

impl PublicKey {
    /// The common key from the common polynomial and the public shares of all servers, in any order.
    pub(crate) fn combine(
        parameters: &Parameters,
        a: Poly,
        shares: &[impl AsRef<[u8]>],
    ) -> Result<Self, Error> {
        Error::check_count("public key shares", shares.len(), parameters.servers())?;
        let whole = parameters.ring().whole();
        let mut p0 = whole.zero();
        for share in shares {
            p0 += &wire::read_polynomial("public key share", whole, share.as_ref())?;
        }
        let mut p1 = a;
        p0.change_representation(Representation::NttShoup);
        p1.change_representation(Representation::NttShoup);
        Ok(Self { p0, p1 })
    }

    /// `(p0·u + e', a·u + e'')`, whose sums are left to the caller: it wants them as coefficients, and a transform
    /// there is one that errors need not go through.
    pub(crate) fn encrypt_zero(&self, basis: &Basis, rng: &mut ChaCha20Rng) -> Result<Zero, Error> {
        let u = basis.transformed(&ternary(rng))?;
        let product = |key: &Poly| {
            let mut product = Poly::clone(&u);
            product *= key;
            product
        };
        let products = [product(&self.p0), product(&self.p1)];
        Ok(Zero { products, errors: [basis.small(&error(rng))?, basis.small(&error(rng))?] })
    }
}

#[cfg(test)]
impl PublicKey {
    pub(crate) fn polynomials(&self) -> [&Poly; 2] {
        [&self.p0, &self.p1]
    }
}
