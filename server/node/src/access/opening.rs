//! The keys with which a server opens what devices seal to it: the present one, and earlier ones for as long
//! as deployment files that name them are about.
//!
//! A blob says which key it is sealed to, and the other servers know the hashes of all of them from the
//! greeting. So a key can be replaced without a pause: the new one goes into `opening_key`, the old one into
//! `retired_opening_keys` until no device has it any more.

use seco_core::{Binding, KeyId, SEALED_LEN, SealingKeyHash, ServerOpeningKey, SessionKey};

use crate::Error;
use crate::config::Identity;
use crate::failure::Failure;
use crate::keys;

/// Keys of one server, the present one first.
pub struct OpeningKeys {
    keys: Vec<(SealingKeyHash, ServerOpeningKey)>,
}

impl OpeningKeys {
    /// Reads all that the settings name.
    ///
    /// # Errors
    /// [`Error::Key`] or [`Error::Read`] with the file's name.
    pub fn load(identity: &Identity) -> Result<Self, Error> {
        let files = std::iter::once(&identity.opening_key).chain(&identity.retired_opening_keys);
        let keys = files.map(|path| {
            let key = keys::opening_key(path)?;
            Ok((keys::public_half(&key, path)?.hash(), key))
        });
        Ok(Self { keys: keys.collect::<Result<_, Error>>()? })
    }

    /// The hashes of their public halves.
    pub fn hashes(&self) -> Vec<SealingKeyHash> {
        self.keys.iter().map(|(hash, _)| *hash).collect()
    }

    /// Opens the session key that was sealed to this server, number `index`.
    ///
    /// # Errors
    /// [`Failure::OtherKey`] if it is sealed to none of its keys, [`Failure::SealedKey`] if it does not open.
    pub fn open(&self, sealed: &[u8], binding: &Binding, index: usize) -> Result<SessionKey, Failure> {
        let sealed: &[u8; SEALED_LEN] = sealed.try_into().map_err(|_| Failure::SealedKey)?;
        let id = KeyId::of(sealed);
        let (_, key) = self.keys.iter().find(|(hash, _)| hash.id() == id).ok_or(Failure::OtherKey(index))?;
        let place = u8::try_from(index).map_err(|_| Failure::Internal)?;
        key.open(sealed, binding, place).map_err(|_| Failure::SealedKey)
    }
}
