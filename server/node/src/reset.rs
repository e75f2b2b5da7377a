//! The key of QUIC's stateless resets (RFC 9000, section 10.3). It is on disk, so that a server that was restarted tells
//! whoever still speaks to its former self that the connection is gone: at once, instead of after a time-out.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use quinn::crypto::HmacKey;
use quinn::{ConnectionId, ConnectionIdGenerator, EndpointConfig};
use ring::hmac;
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use crate::{Error, keys, private};

/// The file in the state directory. Who has it can end connections, no more.
const FILE: &str = "reset.key";
/// Bytes of a connection's name.
const NAME: usize = 8;

/// Tells a socket's connections of before from strangers'.
#[derive(Clone)]
pub struct ResetKey(Zeroizing<[u8; 32]>);

impl ResetKey {
    /// Reads the key of a state directory, which is there, or makes it.
    pub fn load(state: &Path) -> Result<ResetKey, Error> {
        let path = state.join(FILE);
        if path.exists()
            && let Ok(text) = keys::read_secret(&path)
        {
            let mut key = Zeroizing::new([0; 32]);
            if keys::from_hex(text.trim(), key.as_mut_slice()).is_some() {
                return Ok(ResetKey(key));
            }
        }
        // Damaged, it is of no use to anybody.
        let key = ResetKey::random()?;
        private::replace(&path, Zeroizing::new(keys::to_hex(&*key.0)).as_bytes())
            .map_err(|e| Error::write(&path, e))?;
        Ok(key)
    }

    /// A key for a socket that is not opened again.
    pub fn random() -> Result<ResetKey, Error> {
        Ok(ResetKey(keys::secret()?))
    }

    /// Settings of the socket called `label`.
    pub(crate) fn endpoint(&self, label: &str) -> EndpointConfig {
        let key: Zeroizing<[u8; 32]> = Zeroizing::new(
            Sha256::new().chain_update(self.0.as_slice()).chain_update(label).finalize().into(),
        );
        let reset: Arc<dyn HmacKey> = Arc::new(hmac::Key::new(hmac::HMAC_SHA256, &*key));
        let mut config = EndpointConfig::new(reset);
        config.cid_generator(|| Box::new(Names));
        config
    }
}

/// Names of connections: random, so that a successor answers those of before as it answers any that it does not know.
struct Names;

impl ConnectionIdGenerator for Names {
    fn generate_cid(&mut self) -> ConnectionId {
        let mut name = [0; NAME];
        // Without random bytes there is no handshake either; the name then is one that others may have.
        let _ = keys::random(&mut name);
        ConnectionId::new(&name)
    }

    fn cid_len(&self) -> usize {
        NAME
    }

    fn cid_lifetime(&self) -> Option<Duration> {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_stays_unless_it_is_damaged() {
        let folder = tempfile::tempdir().unwrap();
        let state = folder.path().join("state");
        private::folder(&state).unwrap();
        let first = ResetKey::load(&state).unwrap();
        assert_eq!(*first.0, *ResetKey::load(&state).unwrap().0);
        std::fs::write(state.join(FILE), "no key").unwrap();
        assert_ne!(*first.0, *ResetKey::load(&state).unwrap().0);
    }
}
