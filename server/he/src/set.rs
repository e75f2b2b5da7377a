//! A set of keys: how the servers agree on one, what it may be used for, and how often.
//!
//! A set is agreed on in two messages of every server to all others:
//!
//! 1. a nonce, and a hash that commits to the server's public share ([`KeyDraft::opening`]);
//! 2. the share ([`KeyDraft::share`]), checked against the hash ([`KeyDraft::check`]).
//!
//! So nobody can choose its share after having seen the others', and with it the common key. The polynomial of the
//! common key must be known before the first message, since the shares depend on it; it comes from the cluster's set-up
//! and the set's number. The polynomials under which masks are encrypted come from the set's id, in which the nonces
//! are, and where each is used.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use fhe_math::rq::Poly;
use rand_chacha09::rand_core::RngCore;
use rayon::prelude::*;
use sha2::{Digest, Sha256};

use crate::keys::{PublicKey, SecretShare};
use crate::layer::LinearPlan;
use crate::sample::{Purpose, error, stream};
use crate::{Error, Parameters, wire};

/// Most bundles that one key set serves.
pub const KEY_BUNDLES: u64 = 64;

/// Most coefficients that a server answers under one key set: what hides the noise of each leaves a loss of `2^-71`, and
/// all together `2^-40` (module `noise`).
pub const KEY_COEFFICIENTS: u64 = 1 << 30;

/// Bytes of a nonce and of a commitment.
const HASH: usize = 32;

/// Which key set of a cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeySetName {
    /// The cluster's set-up: the same on all servers and out of any single one's control.
    pub setup: [u8; 32],
    /// Counted from 0 within the set-up.
    pub number: u64,
}

impl KeySetName {
    fn hash(&self, purpose: &[u8]) -> Sha256 {
        let tagged = Sha256::new().chain_update(b"seco key set v2 ").chain_update(purpose);
        tagged.chain_update(self.setup).chain_update(self.number.to_le_bytes())
    }

    /// The common polynomial of the public key.
    fn common(&self, parameters: &Parameters) -> Result<Poly, Error> {
        parameters.ring().whole().common(&self.hash(b"public key").finalize().into())
    }

    fn commitment(&self, server: usize, nonce: &[u8], share: &[u8]) -> [u8; HASH] {
        let hash = self.hash(b"commitment").chain_update((server as u64).to_le_bytes());
        hash.chain_update(nonce).chain_update(share).finalize().into()
    }
}

/// What an encryption, a product and its answers are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Occasion {
    /// The bundle's id.
    pub bundle: [u8; 16],
    /// The layer's index.
    pub layer: u32,
}

/// This server's part of a key set on which the servers are agreeing.
pub struct KeyDraft {
    parameters: Parameters,
    name: KeySetName,
    secret: SecretShare,
    opening: Vec<u8>,
    share: Vec<u8>,
}

impl KeyDraft {
    /// Bytes of an opening: nonce and commitment.
    pub const OPENING_LEN: usize = 2 * HASH;

    /// Fresh keys of server number `server`. `seed` is secret, uniform and used for nothing else.
    ///
    /// # Errors
    /// None on any input; [`Error::Ring`] tells of a defect.
    pub fn new(
        parameters: &Parameters,
        name: KeySetName,
        server: usize,
        seed: &[u8; 32],
    ) -> Result<Self, Error> {
        let ring = parameters.ring();
        let secret = SecretShare::random(ring, seed)?;
        let share = secret.public_share(ring, name.common(parameters)?, seed)?;
        let mut opening = vec![0; HASH];
        stream(seed, Purpose::Nonce, 0).fill_bytes(&mut opening);
        let commitment = name.commitment(server, &opening, &share);
        opening.extend(commitment);
        Ok(Self { parameters: parameters.clone(), name, secret, opening, share })
    }

    /// The first message to all servers: [`KeyDraft::OPENING_LEN`] bytes, a nonce and the commitment to the share.
    pub fn opening(&self) -> &[u8] {
        &self.opening
    }

    /// The second message, [`Parameters::polynomial_len`] bytes, **only after all openings have come**.
    pub fn share(&self) -> &[u8] {
        &self.share
    }

    /// Checks another server's second message against its first.
    ///
    /// # Errors
    /// [`Error::Length`] if one has the wrong length; [`Error::Commitment`] if the share is another than the one that
    /// the opening commits to; [`Error::Residue`] if it is no polynomial.
    pub fn check(&self, server: usize, opening: &[u8], share: &[u8]) -> Result<(), Error> {
        Error::check_length("key opening", opening.len(), Self::OPENING_LEN)?;
        let (nonce, commitment) = opening.split_at(HASH);
        Error::check_length("public key share", share.len(), self.parameters.polynomial_len())?;
        // Both are public.
        if self.name.commitment(server, nonce, share) != commitment {
            return Err(Error::Commitment);
        }
        wire::read_polynomial("public key share", self.parameters.ring().whole(), share).map(|_| ())
    }

    /// The key set, from the messages of all servers, this one's included, in the servers' order and all checked.
    ///
    /// # Errors
    /// [`Error::Count`] unless there is one of each for every server; as [`KeyDraft::check`] for a malformed one.
    pub fn finish(self, openings: &[impl AsRef<[u8]>], shares: &[impl AsRef<[u8]>]) -> Result<KeySet, Error> {
        Error::check_count("key openings", openings.len(), self.parameters.servers())?;
        let public = PublicKey::combine(&self.parameters, self.name.common(&self.parameters)?, shares)?;
        let mut id = self.name.hash(b"id");
        for opening in openings {
            Error::check_length("key opening", opening.as_ref().len(), Self::OPENING_LEN)?;
            id.update(opening.as_ref());
        }
        let id = id.finalize().into();
        let Self { parameters, secret, .. } = self;
        Ok(KeySet { parameters, id, secret, public, record: Mutex::default() })
    }
}

/// The cluster's keys as one server has them: its share of the secret key, the common public key, and the record of
/// what they were used for. It lives in memory only; dropping it wipes the secret.
pub struct KeySet {
    parameters: Parameters,
    id: [u8; 32],
    secret: SecretShare,
    public: PublicKey,
    record: Mutex<Record>,
}

/// What a key set was used for.
#[derive(Default)]
struct Record {
    /// Layers of which a mask was encrypted, by bundle.
    encrypted: HashMap<[u8; 16], HashSet<u32>>,
    /// Bundle, layer and holder of every answer.
    answered: HashSet<([u8; 16], u32, usize)>,
    /// Coefficients in all answers.
    coefficients: u64,
}

impl KeySet {
    /// Step 1: this server's part of a layer's input mask, encrypted for the layer's holders:
    /// `c0_j = e_j + round(Q·r_j/t) - a·sk_j` for every input ciphertext.
    ///
    /// `mask` has one value for each input of the layer (flat, `C H W`), taken modulo `2^32`. `seed` is secret,
    /// uniform and fresh for every call. The result has [`LinearPlan::encrypted_len`] bytes; zero padding of a
    /// convolution is part of it.
    ///
    /// # Errors
    /// [`Error::Repeated`] for a second encryption on one occasion, which would use the same `a`;
    /// [`Error::Exhausted`] if the set has served [`KEY_BUNDLES`] other bundles; [`Error::Count`] if `mask` has not one
    /// value per input; [`Error::Mismatch`] for another set's plan.
    pub fn encrypt(
        &self,
        plan: &LinearPlan,
        occasion: &Occasion,
        mask: &[u32],
        seed: &[u8; 32],
    ) -> Result<Vec<u8>, Error> {
        self.parameters.check_same(plan.parameters())?;
        Error::check_count("mask values", mask.len(), plan.inputs())?;
        self.record_encryption(occasion)?;
        let ring = self.parameters.ring();
        let parts = (0..plan.input_ciphertexts()).into_par_iter().map(|index| {
            let message = plan.packing().input(index, mask);
            let noise = error(&mut stream(seed, Purpose::Mask, index));
            let mut c0 = ring.encoded(&noise, &message)?;
            self.secret.mask(&mut c0, self.common(occasion, index)?);
            let mut out = Vec::with_capacity(self.parameters.polynomial_len());
            wire::write_polynomial(ring.whole(), &c0, &mut out)?;
            Ok(out)
        });
        Ok(parts.collect::<Result<Vec<_>, Error>>()?.concat())
    }

    /// The polynomial `a` of one input ciphertext: public, the same on all servers.
    pub(crate) fn common(&self, occasion: &Occasion, index: usize) -> Result<Poly, Error> {
        let digest = Sha256::new()
            .chain_update(b"seco key set v2 encrypted mask")
            .chain_update(self.id)
            .chain_update(occasion.bundle)
            .chain_update(occasion.layer.to_le_bytes())
            .chain_update((index as u64).to_le_bytes());
        self.parameters.ring().whole().common(&digest.finalize().into())
    }

    fn record(&self) -> MutexGuard<'_, Record> {
        self.record.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn record_encryption(&self, occasion: &Occasion) -> Result<(), Error> {
        let bundles = &mut self.record().encrypted;
        if !bundles.contains_key(&occasion.bundle) && bundles.len() as u64 >= KEY_BUNDLES {
            return Err(Error::Exhausted { what: "bundles", limit: KEY_BUNDLES });
        }
        let new = bundles.entry(occasion.bundle).or_default().insert(occasion.layer);
        if new { Ok(()) } else { Err(Error::Repeated("encryption")) }
    }

    /// Notes an answer to `holder` with so many coefficients, before it is made.
    pub(crate) fn record_answer(
        &self,
        occasion: &Occasion,
        holder: usize,
        coefficients: usize,
    ) -> Result<(), Error> {
        let record = &mut *self.record();
        let sum = record.coefficients.saturating_add(coefficients as u64);
        if sum > KEY_COEFFICIENTS {
            return Err(Error::Exhausted { what: "coefficients", limit: KEY_COEFFICIENTS });
        }
        if !record.answered.insert((occasion.bundle, occasion.layer, holder)) {
            return Err(Error::Repeated("answer"));
        }
        record.coefficients = sum;
        Ok(())
    }

    pub(crate) fn parameters(&self) -> &Parameters {
        &self.parameters
    }

    pub(crate) fn secret(&self) -> &SecretShare {
        &self.secret
    }

    pub(crate) fn public(&self) -> &PublicKey {
        &self.public
    }
}

#[cfg(test)]
impl KeySet {
    pub(crate) fn id(&self) -> [u8; 32] {
        self.id
    }
}
