//! Sessions that outlive the process (`protocol.md`, section 3: request numbers are reserved durably before
//! they are used).

use crate::{Error, Result, lock};
use seco_core::{MAX_SESSION_BLOB, ModelInfo, Pending, ServerSetId, Session, SessionId};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard};
use zeroize::Zeroizing;

mod file;

pub use file::FileStore;

/// Request numbers reserved at a time: one write for so many requests, and so many lost by a restart. Numbers
/// travel in 7-bit groups, so losing them costs a byte per request after 2^14, 2^21, ….
const BLOCK: u64 = 64;

/// The application's place for one session: an item of the platform's key store.
///
/// The bytes are opaque, of at most [`MAX_SESSION_BLOB`], and **secret**: with them, inputs and answers can be
/// read from recorded traffic. Wipe copies after use. What the application guarantees:
/// - What was saved last is what is loaded, also after a crash: [`SessionStore::save`] returns when the bytes
///   are durable, and replaces as a whole.
/// - Bytes never go back to earlier ones: the item is excluded from backups and from synchronisation between
///   devices (on iOS `…ThisDeviceOnly`). Otherwise pads repeat, and the servers can compare two inputs.
/// - One process uses the item at a time. Within a process the library sees to it.
///
/// Both methods are called while a client connects or a request starts, on its thread; saving once in 64
/// requests. They must not use a client. Loss of the item costs one sealing, no more.
pub trait SessionStore: Send + Sync {
    /// What was saved last; `None` if nothing was, or the item is gone.
    ///
    /// # Errors
    /// Where it cannot be known, say because the device is locked.
    fn load(&self) -> io::Result<Option<Vec<u8>>>;

    /// Replaces what was saved before, durably.
    ///
    /// # Errors
    /// Where that is not certain. The request then fails, and its number is not used.
    fn save(&self, session: &[u8]) -> io::Result<()>;
}

/// A session, and where it is kept.
pub(crate) struct KeptSession {
    session: Mutex<Session>,
    kept: Option<(Arc<dyn SessionStore>, Claim)>,
}

impl KeptSession {
    /// A new session. Saved at once, if it has a place, so that no number is used that is not reserved.
    pub(crate) fn new(session: Session, store: Option<&Arc<dyn SessionStore>>) -> Result<Self> {
        let id = session.id();
        let kept = store.map(|store| (store.clone(), Claim::new(&mut lock(&LIVE), id)));
        let new = Self { session: Mutex::new(session), kept };
        new.reserve(&mut new.lock())?;
        Ok(new)
    }

    /// The stored session, if there is one for these servers and this model that nobody else uses.
    pub(crate) fn load(
        store: &Arc<dyn SessionStore>,
        model: &ModelInfo,
        servers: ServerSetId,
    ) -> Result<Option<Self>> {
        // Held from loading to claiming: a session that ends in between may have been saved in between, and
        // these bytes would be old.
        let mut live = lock(&LIVE);
        let Some(blob) = store.load().map_err(Error::Storage)? else { return Ok(None) };
        // Damaged, or of another version: a new session takes its place.
        let Ok(session) = Session::restore(&mut Zeroizing::new(blob)) else { return Ok(None) };
        let fits = session.model() == model && session.server_set() == servers;
        if !fits || live.contains(&session.id()) {
            return Ok(None);
        }
        let claim = Claim::new(&mut live, session.id());
        Ok(Some(Self { session: Mutex::new(session), kept: Some((store.clone(), claim)) }))
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, Session> {
        lock(&self.session)
    }

    /// Takes a number and masks `input`, after saving the session where that is due.
    pub(crate) fn request(&self, input: &mut [u8]) -> Result<Pending> {
        let mut session = self.lock();
        match session.request(input) {
            Err(seco_core::Error::ReservationUsedUp) => {
                self.reserve(&mut session)?;
                session.request(input).map_err(Error::Session)
            }
            result => result.map_err(Error::Session),
        }
    }

    fn reserve(&self, session: &mut Session) -> Result<()> {
        let Some((store, _)) = &self.kept else { return Ok(()) };
        let mut buffer = Zeroizing::new([0; MAX_SESSION_BLOB]);
        let (blob, reservation) = session.save(BLOCK, buffer.as_mut_slice()).map_err(Error::Session)?;
        store.save(blob).map_err(Error::Storage)?;
        session.confirm(reservation).map_err(Error::Session)
    }
}

/// Stored sessions in use in this process. A second client on the same store must not go on with the session
/// of the first: both would use the same pads.
static LIVE: Mutex<Vec<SessionId>> = Mutex::new(Vec::new());

/// An entry of [`LIVE`].
struct Claim(SessionId);

impl Claim {
    fn new(live: &mut Vec<SessionId>, id: SessionId) -> Self {
        live.push(id);
        Self(id)
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        lock(&LIVE).retain(|id| *id != self.0);
    }
}
