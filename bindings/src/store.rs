//! Sessions that the application keeps.

use std::io;
use std::sync::Arc;

use crate::StoreError;

/// The application's place for one session, so that a restart opens no new one: an item of the platform's key
/// store.
///
/// The bytes are opaque, less than 512, and **secret**: whoever gets them can read inputs and answers from
/// recorded traffic. So leave the item out of backups and of synchronisation between devices. Nothing else is
/// asked: an application and its extension may share it, and it may be copied or come back from a backup, as
/// every connection masks with pads of its own. Both methods are called on the library's thread and must not
/// call a client.
#[uniffi::export(with_foreign)]
pub trait SessionStore: Send + Sync {
    /// What was saved last; nothing if nothing was, or if it is gone.
    ///
    /// # Errors
    /// Where that cannot be known now, say because the device is locked.
    fn load(&self) -> Result<Option<Vec<u8>>, StoreError>;

    /// Replaces what was saved before, as a whole, and returns when that is durable. Called once per session,
    /// when it is opened.
    ///
    /// # Errors
    /// Where it is not certain. The session is then not used.
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
