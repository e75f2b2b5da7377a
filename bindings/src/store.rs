//! Sessions that the application keeps.

use std::io;
use std::sync::Arc;

use crate::StoreError;

/// The application's place for one session, so that a restart opens no new one: an item of the platform's key
/// store.
///
/// The bytes are opaque, less than 512, and **secret**: with them, inputs and answers can be read from recorded
/// traffic. The application guarantees that what was saved last is loaded, also after a crash; that the bytes
/// never go back to earlier ones (no backups, no synchronisation between devices); and that one process uses
/// them at a time. Both methods are called on the library's thread and must not call a client.
#[uniffi::export(with_foreign)]
pub trait SessionStore: Send + Sync {
    /// What was saved last; nothing if nothing was, or if it is gone.
    ///
    /// # Errors
    /// Where that cannot be known now, say because the device is locked.
    fn load(&self) -> Result<Option<Vec<u8>>, StoreError>;

    /// Replaces what was saved before, as a whole, and returns when that is durable. Called once in 64
    /// requests.
    ///
    /// # Errors
    /// Where it is not certain. The request then fails, and nothing is sent.
    fn save(&self, session: Vec<u8>) -> Result<(), StoreError>;
}

/// A [`SessionStore`] as the SDK wants it.
pub struct Adapter(pub Arc<dyn SessionStore>);

impl seco_sdk::SessionStore for Adapter {
    fn load(&self) -> io::Result<Option<Vec<u8>>> {
        self.0.load().map_err(io::Error::other)
    }

    fn save(&self, session: &[u8]) -> io::Result<()> {
        self.0.save(session.to_vec()).map_err(io::Error::other)
    }
}
