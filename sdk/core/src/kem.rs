//! X-Wing with ring's X25519, for a device that has ring for TLS anyway: no second implementation of the curve in its
//! library, and fewer instructions (`cross/cost` counts them: `session_instructions`). What it makes, the portable one
//! opens: a test compares them.
//!
//! ```text
//! ct = ct_M || ct_X,  ss = SHA3-256(ss_M || ss_X || ct_X || pk_X || label)    (draft-connolly-cfrg-xwing-kem)
//! ```
//!
//! Neither library wipes all that it works with, nor gives others the means to: ring's scalar and point, ml-kem's coins
//! and noise stay on the stack until it is used again, as TLS's own do. What they lead to is the session's key, which
//! the device keeps anyway.

use core::fmt;
use hpke::hybrid_array::Array;
use hpke::kem::{SharedSecret, XWing};
use hpke::{Deserializable, HpkeError, Kem, Serializable};
use ml_kem::kem::{KeyExport, KeySizeUser};
use ml_kem::ml_kem_768::EncapsulationKey;
use rand_core::CryptoRng;
use ring::agreement::{EphemeralPrivateKey, UnparsedPublicKey, X25519, agree_ephemeral};
use ring::rand::SystemRandom;
use sha3::{Digest, Sha3_256};
use zeroize::Zeroize;

const LABEL: &[u8; 6] = br"\.//^\";

/// Bytes of the lattice's part of a public key, and of what is encapsulated to it.
const LATTICE_KEY_LEN: usize = 1184;
const LATTICE_LEN: usize = 1088;

/// The KEM. Encapsulates by itself; all else is the portable one's.
pub(crate) struct RingXWing;

/// The key, its lattice part checked and hashed: nine of a sealing's 47 permutations of Keccak, if that were done there.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct PublicKey {
    /// There in every key that was read; [`Kem`] leaves no other way to say that an encoding of X-Wing's own is none.
    lattice: Option<EncapsulationKey>,
    curve: [u8; 32],
}

/// A key that the portable KEM made.
fn of(portable: &<XWing as Kem>::PublicKey) -> PublicKey {
    PublicKey::from_bytes(&portable.to_bytes()).unwrap_or(PublicKey { lattice: None, curve: [0; 32] })
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PublicKey(..)")
    }
}

impl Serializable for PublicKey {
    type OutputSize = <<XWing as Kem>::PublicKey as Serializable>::OutputSize;

    fn write_exact(&self, buffer: &mut [u8]) {
        let (lattice, curve) = buffer.split_at_mut(LATTICE_KEY_LEN);
        match &self.lattice {
            Some(key) => lattice.copy_from_slice(&key.to_bytes()),
            None => lattice.fill(0),
        }
        curve.copy_from_slice(&self.curve);
    }
}

impl Deserializable for PublicKey {
    fn from_bytes(encoded: &[u8]) -> Result<Self, HpkeError> {
        let invalid = HpkeError::ValidationError;
        let (lattice, curve) = encoded.split_at_checked(LATTICE_KEY_LEN).ok_or(invalid)?;
        let lattice: &Array<u8, <EncapsulationKey as KeySizeUser>::KeySize> =
            lattice.try_into().map_err(|_| invalid)?;
        Ok(Self {
            lattice: Some(EncapsulationKey::new(lattice).map_err(|_| invalid)?),
            curve: curve.try_into().map_err(|_| invalid)?,
        })
    }
}

impl Kem for RingXWing {
    const KEM_ID: u16 = XWing::KEM_ID;
    type PublicKey = PublicKey;
    type PrivateKey = <XWing as Kem>::PrivateKey;
    type EncappedKey = <XWing as Kem>::EncappedKey;
    type NSecret = <XWing as Kem>::NSecret;

    fn sk_to_pk(sk: &Self::PrivateKey) -> PublicKey {
        of(&XWing::sk_to_pk(sk))
    }

    fn derive_keypair(ikm: &[u8]) -> (Self::PrivateKey, PublicKey) {
        let (private, public) = XWing::derive_keypair(ikm);
        (private, of(&public))
    }

    fn decap(
        private: &Self::PrivateKey,
        _: Option<&PublicKey>,
        encapped: &Self::EncappedKey,
    ) -> Result<SharedSecret<Self>, HpkeError> {
        XWing::decap(private, None, encapped).map(|secret| SharedSecret(secret.0))
    }

    /// The X25519 half is the system's randomness, which ring asks for itself; the other is `rng`'s.
    fn encap_with_rng(
        public: &PublicKey,
        _: Option<(&Self::PrivateKey, &PublicKey)>,
        rng: &mut impl CryptoRng,
    ) -> Result<(SharedSecret<Self>, Self::EncappedKey), HpkeError> {
        let PublicKey { lattice: Some(lattice), curve } = public else { return Err(HpkeError::EncapError) };
        let mut drawn = Array::default();
        rng.fill_bytes(&mut drawn);
        let (sealed, mut lattice_secret) = lattice.encapsulate_deterministic(&drawn);
        drawn.zeroize();
        // At once, for what follows may fail; and in one place, for a hash that is moved leaves copies.
        let mut hash = Sha3_256::new();
        hash.update(lattice_secret.as_slice());
        lattice_secret.zeroize();

        let ephemeral = EphemeralPrivateKey::generate(&X25519, &SystemRandom::new())
            .map_err(|_| HpkeError::EncapError)?;
        let point = ephemeral.compute_public_key().map_err(|_| HpkeError::EncapError)?;
        agree_ephemeral(ephemeral, &UnparsedPublicKey::new(&X25519, curve), |secret| hash.update(secret))
            .map_err(|_| HpkeError::EncapError)?;
        hash.update(&point);
        hash.update(curve);
        hash.update(LABEL);

        let mut encapped = [0; crate::seal::ENCAPSULATED_LEN];
        let (lattice_out, curve_out) = encapped.split_at_mut(LATTICE_LEN);
        lattice_out.copy_from_slice(&sealed);
        curve_out.copy_from_slice(point.as_ref());
        Ok((SharedSecret(hash.finalize_reset()), Self::EncappedKey::from_bytes(&encapped)?))
    }
}
