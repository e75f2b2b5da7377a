//! Session keys sealed to the servers (`server/PROTOCOL.md`, section 3).
//!
//! HPKE (RFC 9180) in base mode with the X-Wing KEM (X25519 with ML-KEM-768, draft-ietf-hpke-pq), SHAKE256 as
//! KDF and ChaCha20-Poly1305. Recorded traffic stays closed while either half of the KEM holds. The gateway
//! forwards the blobs of the other servers and can neither open nor swap them: `info` binds session, model,
//! connection and the keys of all servers in order, the associated data binds the receiver's place in that
//! order. A blob that is sent again on another connection does not open.
//!
//! ```text
//! blob = key id (8) || encapsulated key (1120) || ciphertext of K_j (32) || tag (16)
//! info = "SECO session key v2" || session id (16) || model id (32) || server set id (32) || incarnation id (16)
//! aad  = index of the server (1)
//! ```
//!
//! The key id, the first bytes of the sealing key's SHA-256, says which key the device has of a server. So
//! servers can name the one whose key is wrong in a deployment file, and a server can replace its key while
//! it still opens what is sealed to the one before.
//!
//! Base mode does not authenticate the device; who may use the cluster is another layer's question.

use crate::{
    Error, IncarnationId, MAX_SERVERS, ModelId, Result, SessionId, SessionKey, check_servers, write_hex,
};
use core::fmt;
use hpke::aead::{AeadTag, ChaCha20Poly1305};
use hpke::inout::InOutBuf;
use hpke::kdf::KdfShake256;
use hpke::kem::XWing;
use hpke::{Deserializable, Kem, OpModeR, OpModeS, Serializable};
use rand_core::CryptoRng;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

/// Bytes of a server's public sealing key (X-Wing).
pub const SEALING_KEY_LEN: usize = 1216;

/// Bytes of one sealed session key.
pub const SEALED_LEN: usize = KEY_ID_LEN + ENCAPSULATED_LEN + KEY_LEN + TAG_LEN;

const KEY_ID_LEN: usize = 8;

pub(crate) const ENCAPSULATED_LEN: usize = 1120;
const KEY_LEN: usize = 32;
const TAG_LEN: usize = 16;

const SEAL_LABEL: &[u8; 19] = b"SECO session key v2";
const SET_LABEL: &[u8; 18] = b"SECO server set v2";

/// The KEM as a device makes it. Servers open with the portable one.
#[cfg(feature = "ring")]
type SealingKem = crate::kem::RingXWing;
#[cfg(not(feature = "ring"))]
type SealingKem = XWing;

type PublicKey = <SealingKem as Kem>::PublicKey;
type PrivateKey = <XWing as Kem>::PrivateKey;
type EncappedKey = <XWing as Kem>::EncappedKey;

/// A server's public key, to which devices seal. With its hash, which sessions ask for again and again, and with the
/// feature `ring` as it was read, for reading it once more costs a sealing a tenth to a third. A smaller device has
/// the bytes alone: what is read takes 2 kB.
#[derive(Clone, PartialEq, Eq)]
pub struct ServerSealingKey {
    bytes: [u8; SEALING_KEY_LEN],
    hash: SealingKeyHash,
    #[cfg(feature = "ring")]
    read: PublicKey,
}

impl ServerSealingKey {
    /// Takes an encoded X-Wing public key.
    ///
    /// # Errors
    /// [`Error::SealingKey`] unless `bytes` is a canonical encoding of [`SEALING_KEY_LEN`] bytes.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self> {
        let bytes: &[u8; SEALING_KEY_LEN] = bytes.try_into().map_err(|_| Error::SealingKey)?;
        #[cfg_attr(not(feature = "ring"), expect(unused_variables, reason = "it is checked"))]
        let read = PublicKey::from_bytes(bytes).map_err(|_| Error::SealingKey)?;
        Ok(Self {
            bytes: *bytes,
            hash: SealingKeyHash(Sha256::digest(bytes).into()),
            #[cfg(feature = "ring")]
            read,
        })
    }

    /// The encoded key.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; SEALING_KEY_LEN] {
        &self.bytes
    }

    /// The key's SHA-256.
    #[must_use]
    pub const fn hash(&self) -> SealingKeyHash {
        self.hash
    }
}

/// SHA-256 of a sealing key. Public.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct SealingKeyHash(pub [u8; 32]);

impl SealingKeyHash {
    /// The short name that stands in what is sealed to the key.
    #[must_use]
    pub fn id(&self) -> KeyId {
        KeyId(*self.0.first_chunk().unwrap_or(&[0; KEY_ID_LEN]))
    }
}

impl fmt::Debug for SealingKeyHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_hex(f, &self.0)
    }
}

/// Names a sealing key: the first bytes of its hash. Public.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct KeyId(pub [u8; KEY_ID_LEN]);

impl KeyId {
    /// Which key a blob says that it is sealed to.
    #[must_use]
    pub fn of(sealed: &[u8; SEALED_LEN]) -> Self {
        Self(*sealed.first_chunk().unwrap_or(&[0; KEY_ID_LEN]))
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_hex(f, &self.0)
    }
}

/// Shows the first bytes, enough to tell keys apart.
impl fmt::Debug for ServerSealingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ServerSealingKey(")?;
        write_hex(f, self.bytes.first_chunk::<8>().map_or(&[], |head| head.as_slice()))?;
        f.write_str("..)")
    }
}

/// A server's secret key: the 32-byte seed of an X-Wing key pair. Zeroized on drop.
#[derive(Zeroize, ZeroizeOnDrop)]
pub struct ServerOpeningKey([u8; 32]);

impl ServerOpeningKey {
    /// Draws a key.
    #[must_use]
    pub fn generate(rng: &mut impl CryptoRng) -> Self {
        let mut seed = Self([0; 32]);
        rng.fill_bytes(&mut seed.0);
        seed
    }

    /// Takes a uniformly random seed, or one from storage.
    #[must_use]
    pub const fn from_seed(seed: [u8; 32]) -> Self {
        Self(seed)
    }

    /// The seed, for storage. Secret.
    #[must_use]
    pub const fn expose_seed(&self) -> &[u8; 32] {
        &self.0
    }

    /// The public key of this pair.
    ///
    /// # Errors
    /// None in practice; [`Error::SealingKey`] stands for an impossible failure of the expansion.
    pub fn sealing_key(&self) -> Result<ServerSealingKey> {
        ServerSealingKey::from_bytes(&XWing::sk_to_pk(&self.expand()?).to_bytes())
    }

    /// Opens the blob that was sealed to this server as number `index` of the set.
    ///
    /// # Errors
    /// [`Error::Unsealable`] if the blob was altered, or sealed with another binding, index or key.
    pub fn open(&self, sealed: &[u8; SEALED_LEN], binding: &Binding, index: u8) -> Result<SessionKey> {
        let (_, rest) = sealed.split_at(KEY_ID_LEN);
        let (encapped, rest) = rest.split_at(ENCAPSULATED_LEN);
        let (ciphertext, tag) = rest.split_at(KEY_LEN);
        let encapped = EncappedKey::from_bytes(encapped).map_err(|_| Error::Unsealable)?;
        let tag = AeadTag::<ChaCha20Poly1305>::from_bytes(tag).map_err(|_| Error::Unsealable)?;
        let mut key = Zeroizing::new([0; KEY_LEN]);
        key.copy_from_slice(ciphertext);
        hpke::single_shot_open_inout_detached::<ChaCha20Poly1305, KdfShake256, XWing>(
            &OpModeR::Base,
            &self.expand()?,
            &encapped,
            &binding.info(),
            InOutBuf::from(key.as_mut_slice()),
            &[index],
            &tag,
        )
        .map_err(|_| Error::Unsealable)?;
        Ok(SessionKey::from_bytes(*key))
    }

    fn expand(&self) -> Result<PrivateKey> {
        PrivateKey::from_bytes(&self.0).map_err(|_| Error::SealingKey)
    }
}

impl fmt::Debug for ServerOpeningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ServerOpeningKey(..)")
    }
}

/// Identity of the servers of a deployment: SHA-256 over a label, their number, and the hashes of their
/// sealing keys in order.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct ServerSetId(pub [u8; 32]);

impl ServerSetId {
    /// Computes it from all sealing keys, the gateway's first.
    ///
    /// # Errors
    /// [`Error::Servers`] for an impossible number of servers.
    pub fn new(servers: &[ServerSealingKey]) -> Result<Self> {
        check_servers(servers.len())?;
        let hashes: heapless::Vec<_, MAX_SERVERS> = servers.iter().map(ServerSealingKey::hash).collect();
        Self::from_hashes(&hashes)
    }

    /// Computes it from the hashes of all sealing keys, the gateway's first.
    ///
    /// # Errors
    /// [`Error::Servers`] for an impossible number of servers.
    pub fn from_hashes(servers: &[SealingKeyHash]) -> Result<Self> {
        let count = check_servers(servers.len())?;
        let hash = Sha256::new().chain_update(SET_LABEL).chain_update([count as u8]);
        Ok(Self(servers.iter().fold(hash, |hash, key| hash.chain_update(key.0)).finalize().into()))
    }
}

impl fmt::Debug for ServerSetId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_hex(f, &self.0)
    }
}

/// What a sealed key is bound to. Device and servers compute it on their own; it never travels as such.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Binding {
    /// The session.
    pub session: SessionId,
    /// The model.
    pub model: ModelId,
    /// The servers, in order.
    pub servers: ServerSetId,
    /// The connection that the session is opened on.
    pub incarnation: IncarnationId,
}

impl Binding {
    fn info(&self) -> [u8; 115] {
        let mut info = [0; 115];
        let parts: [&[u8]; 5] =
            [SEAL_LABEL, &self.session.0, &self.model.0, &self.servers.0, &self.incarnation.0];
        for (to, from) in info.iter_mut().zip(parts.into_iter().flatten()) {
            *to = *from;
        }
        info
    }
}

/// Seals `keys[j]` to `servers[j]` for all `j` and returns the filled part of `out`: one blob of
/// [`SEALED_LEN`] bytes per server, the payload of [`Request::Open`](crate::Request::Open).
///
/// # Errors
/// [`Error::Servers`] for an impossible number of servers, [`Error::WrongLength`] if there is not one key per
/// server, [`Error::BufferTooSmall`] if `out` has fewer than `servers.len() · SEALED_LEN` bytes. With the feature `ring`
/// [`Error::SealingKey`] if a key's point has a small order, or if the system gives no randomness.
pub fn seal_session_keys<'o>(
    keys: &[SessionKey],
    servers: &[ServerSealingKey],
    binding: &Binding,
    rng: &mut impl CryptoRng,
    out: &'o mut [u8],
) -> Result<&'o [u8]> {
    let count = check_servers(servers.len())?;
    crate::pack::check_len(count, keys.len())?;
    let out = out.get_mut(..count * SEALED_LEN).ok_or(Error::BufferTooSmall)?;
    let blobs = out.as_chunks_mut::<SEALED_LEN>().0;
    for (index, ((key, server), blob)) in (0u8..).zip(keys.iter().zip(servers).zip(blobs)) {
        seal(key, server, binding, index, rng, blob)?;
    }
    Ok(out)
}

/// Bytes of [`Request::Open`](crate::Request::Open)'s payload for the largest deployment.
pub(crate) const MAX_SEALED: usize = MAX_SERVERS * SEALED_LEN;

fn seal(
    key: &SessionKey,
    server: &ServerSealingKey,
    binding: &Binding,
    index: u8,
    rng: &mut impl CryptoRng,
    blob: &mut [u8; SEALED_LEN],
) -> Result<()> {
    let (id_out, rest) = blob.split_at_mut(KEY_ID_LEN);
    id_out.copy_from_slice(&server.hash.id().0);
    #[cfg(feature = "ring")]
    let public = &server.read;
    #[cfg(not(feature = "ring"))]
    let public = &PublicKey::from_bytes(&server.bytes).map_err(|_| Error::SealingKey)?;
    let (encapped_out, rest) = rest.split_at_mut(ENCAPSULATED_LEN);
    let (ciphertext, tag_out) = rest.split_at_mut(KEY_LEN);
    let input = key.expose().as_slice();
    let buffer = InOutBuf::new(input, ciphertext).map_err(|_| Error::BufferTooSmall)?;
    let (encapped, tag) = hpke::single_shot_seal_inout_detached_with_rng::<
        ChaCha20Poly1305,
        KdfShake256,
        SealingKem,
    >(&OpModeS::Base, public, &binding.info(), buffer, &[index], rng)
    .map_err(|_| Error::SealingKey)?;
    encapped.write_exact(encapped_out);
    tag.write_exact(tag_out);
    Ok(())
}
