//! Sessions that outlive the process (`server/PROTOCOL.md`, section 3).

use crate::{Error, Result};
use seco_core::{MAX_SESSION_BLOB, ModelInfo, ServerSetId, Session};
use std::io;
use zeroize::Zeroizing;

mod file;

pub use file::FileStore;

/// The application's place for one session: an item of the platform's key store.
///
/// The bytes are opaque, of at most [`MAX_SESSION_BLOB`], and **secret**: whoever gets them can read inputs and
/// answers from recorded traffic. Wipe copies after use, and exclude the item from backups and from
/// synchronisation between devices (on iOS `…ThisDeviceOnly`), so that there are no more places to guard.
///
/// Nothing else is asked. The item may be used by several processes at a time, say an application and its
/// extension, be copied with a memory card, or come back from a backup or a snapshot: every connection masks
/// with pads of its own, whatever the state it started from.
///
/// A session is loaded once, while its client connects, and saved once, when it is opened: while a client
/// connects, or a request starts that needs a new session. Both are called on the thread that polls. They must
/// not use a client. Loss of the item costs one sealing, no more.
pub trait SessionStore: Send + Sync {
    /// What was saved last; `None` if nothing was, or the item is gone.
    ///
    /// # Errors
    /// Where it cannot be known, say because the device is locked.
    fn load(&self) -> io::Result<Option<Vec<u8>>>;

    /// Replaces what was saved before, as a whole, and returns when the bytes are durable. Where several save
    /// at the same time, the bytes of one of them remain.
    ///
    /// # Errors
    /// Where that is not certain. The session is then not used.
    fn save(&self, session: &[u8]) -> io::Result<()>;
}

/// The stored session, if there is one for these servers and this model.
pub(crate) fn load(
    store: &dyn SessionStore,
    model: &ModelInfo,
    servers: ServerSetId,
) -> Result<Option<Session>> {
    let Some(blob) = store.load().map_err(Error::Storage)? else { return Ok(None) };
    // Damaged, or of another version: a new session takes its place.
    let Ok(session) = Session::restore(&mut Zeroizing::new(blob)) else { return Ok(None) };
    Ok((session.model() == model && session.server_set() == servers).then_some(session))
}

/// Stores a new session.
pub(crate) fn save(store: &dyn SessionStore, session: &Session) -> Result<()> {
    let mut buffer = Zeroizing::new([0; MAX_SESSION_BLOB]);
    let blob = session.save(buffer.as_mut_slice()).map_err(Error::Session)?;
    store.save(blob).map_err(Error::Storage)
}
