//! Opening a session on a connection, or taking one up there.

use crate::builder::Settings;
use crate::deployment::{Update, problem};
use crate::dial::Dialer;
use crate::log::{Event, Opening};
use crate::store::{self, SessionStore};
use crate::transport::Connection;
use crate::wire::Caller;
use crate::{Deployment, Error, Loss, Result, Violation, lock};
use bytes::Bytes;
use chacha20::ChaCha20Rng;
use rand_core::SeedableRng;
use seco_core::{
    MAX_SERVERS, ModelInfo, Pending, Refusal, Request, Requester, Response, SEALED_LEN, ServerSealingKey,
    ServerSetId, Session, SessionId, Token, message::FRAME_OVERHEAD, pad::TAG_LEN,
};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::runtime::Handle;
use zeroize::Zeroizing;

/// How far ahead of the clock a session's date may be: the clock was set meanwhile. Beyond that it is no date.
const SKEW: Duration = Duration::from_secs(24 * 3600);

/// A session opened on a connection: one incarnation.
pub(crate) struct Link {
    pub(crate) connection: Connection,
    pub(crate) handle: u32,
    session: Arc<Session>,
    requester: Mutex<Requester>,
}

impl Link {
    pub(crate) fn session(&self) -> SessionId {
        self.session.id()
    }

    /// Takes a number and masks `input`.
    pub(crate) fn request(&self, input: &mut [u8]) -> Result<Pending> {
        lock(&self.requester).request(input).map_err(Error::Session)
    }

    /// Reads the answer to a request of this link.
    pub(crate) fn unmask_logits(&self, pending: Pending, masked: &[u8], out: &mut [i32]) -> Result<()> {
        let unmasked = lock(&self.requester).unmask_logits(pending, masked, out);
        unmasked.map_err(|error| Violation::Message(error).into())
    }
}

/// All that is needed to make a [`Link`], and another one later.
pub(crate) struct Linker {
    pub(crate) dialer: Dialer,
    servers: Vec<ServerSealingKey>,
    pub(crate) model: ModelInfo,
    connect_timeout: Duration,
    pub(crate) request_timeout: Duration,
    pub(crate) caller: Caller,
    /// Where sessions are kept, if they are.
    store: Option<Arc<dyn SessionStore>>,
    session_max_age: Duration,
    /// Shown with every session.
    token: Option<Token>,
}

impl Linker {
    pub(crate) fn new(deployment: &Deployment, settings: Settings) -> Result<Self> {
        deployment.validate()?;
        let runtime = Handle::try_current().map_err(|_| Error::NoRuntime)?;
        let (model, servers) = (deployment.model_info()?, deployment.sealing_keys());
        let limit = model.response_limit();
        let dialer = Dialer::new(deployment, &settings, limit, runtime.clone())?;
        let Settings { connect_timeout, request_timeout, store, session_max_age, token, .. } = settings;
        let caller = Caller { limit, time: request_timeout, runtime };
        Ok(Self {
            dialer,
            servers,
            model,
            connect_timeout,
            request_timeout,
            caller,
            store,
            session_max_age,
            token,
        })
    }

    /// Whether a link's session is too old to go on with.
    pub(crate) fn is_too_old(&self, link: &Link) -> bool {
        is_too_old(link.session.created(), now(), self.session_max_age)
    }

    /// Takes up the stored session, or opens a new one if there is none.
    pub(crate) async fn stored_or_new_session(&self, connection: Connection) -> Result<Link> {
        let stored = match &self.store {
            Some(store) => {
                let servers = ServerSetId::new(&self.servers).map_err(Error::Session)?;
                store::load(store.as_ref(), &self.model, servers)?
            }
            None => None,
        };
        match stored {
            Some(session) => self.resume_session(connection, Arc::new(session)).await,
            None => self.open_session(connection, Opening::None).await,
        }
    }

    /// Goes on with the session of `link`, whose connection has ended, on a new one.
    pub(crate) async fn resume(&self, connection: Connection, link: &Link) -> Result<Link> {
        self.resume_session(connection, link.session.clone()).await
    }

    /// Goes on with `session` on a new connection, or with a new one where it is too old or the gateway does
    /// not know it. Nothing is sealed for the former.
    async fn resume_session(&self, connection: Connection, session: Arc<Session>) -> Result<Link> {
        if is_too_old(session.created(), now(), self.session_max_age) {
            return self.open_session(connection, Opening::TooOld).await;
        }
        let requester = session.start(&connection.exporter()?, &mut system_rng()?);
        let mut tags = [0; MAX_SERVERS * TAG_LEN];
        let request = requester.resume_message(&mut tags).map_err(Error::Session)?;
        match self.handle(&connection, &request).await {
            Ok(handle) => {
                self.dialer.log.tell(|| Event::SessionResumed);
                Ok(Link { connection, handle, session, requester: Mutex::new(requester) })
            }
            Err(Error::Refused(Refusal::UnknownSession)) => {
                self.open_session(connection, Opening::Forgotten).await
            }
            Err(error) => Err(error),
        }
    }

    /// Opens a new session with new keys, and stores it if sessions are kept.
    pub(crate) async fn open_session(&self, connection: Connection, because: Opening) -> Result<Link> {
        let mut rng = system_rng()?;
        // 0 would say that nobody knows.
        let created = now().max(1);
        let session = Session::new(self.model, &self.servers, created, &mut rng).map_err(Error::Session)?;
        let requester = session.start(&connection.exporter()?, &mut rng);
        let mut sealed = vec![0; self.servers.len() * SEALED_LEN];
        let request = session.open_message(&requester, &self.servers, &mut rng, &mut sealed);
        let handle = self.handle(&connection, &request.map_err(Error::Session)?).await?;
        if let Some(store) = &self.store {
            store::save(store.as_ref(), &session)?;
        }
        self.dialer.log.tell(|| Event::SessionOpened { because });
        let (session, requester) = (Arc::new(session), Mutex::new(requester));
        Ok(Link { connection, handle, session, requester })
    }

    /// The text of a newer deployment file, if the gateway has one; not checked yet.
    pub(crate) async fn fetch_update(&self, update: &Update) -> Result<Option<String>> {
        let connection = self.dialer.connect().await?;
        let request = Request::Update { serial: update.serial, owner: &update.owner };
        let mut frame = vec![0; request.frame_bound()];
        let frame = Bytes::copy_from_slice(request.encode_frame(&mut frame).map_err(Error::Session)?);
        let (mut message, mut untold) = (Vec::new(), |_| {});
        let call = self.caller.call(&connection, frame, &mut untold, &mut message);
        let text = match self.dialer.bounded("deployment file", self.connect_timeout, call).await? {
            Response::Update { text: [] } => None,
            Response::Update { text } => {
                let text = std::str::from_utf8(text).map_err(|_| problem("file", "is not text"))?;
                Some(text.to_owned())
            }
            _ => return Err(Violation::WrongKind.into()),
        };
        self.dialer.close(&connection).await;
        Ok(text)
    }

    /// What the gateway calls the session that `request` opens or resumes.
    async fn handle(&self, connection: &Connection, request: &Request<'_>) -> Result<u32> {
        // It may have a token in it.
        let mut buffer = Zeroizing::new(vec![0; request.frame_bound() + FRAME_OVERHEAD]);
        let frame = match &self.token {
            Some(token) => request.encode_frame_with(token, &mut buffer),
            None => request.encode_frame(&mut buffer),
        };
        let frame = Bytes::from_owner(Zeroizing::new(frame.map_err(Error::Session)?.to_vec()));
        let mut message = Vec::new();
        let mut untold = |_| {};
        let call = self.caller.call(connection, frame, &mut untold, &mut message);
        match self.dialer.bounded("session", self.connect_timeout, call).await {
            Ok(Response::Opened { handle }) => Ok(handle),
            Ok(_) => Err(Violation::WrongKind.into()),
            Err(error) => {
                if matches!(error, Error::Timeout { .. }) {
                    // Another connection may do better.
                    connection.give_up(Loss::Silence);
                }
                Err(error)
            }
        }
    }
}

/// A generator seeded by the operating system. Not the system's own: that one can fail at every call, which
/// sealing could answer only by a panic.
fn system_rng() -> Result<ChaCha20Rng> {
    let mut seed = Zeroizing::new([0; 32]);
    getrandom::fill(seed.as_mut_slice()).map_err(|_| Error::NoRandomness)?;
    Ok(ChaCha20Rng::from_seed(*seed))
}

/// Seconds since 1970; 0 for a clock that is before that.
fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// Whether a session that was made at `created` is not to be used any more at `now`, both in seconds since
/// 1970. One whose age is not known is.
fn is_too_old(created: u64, now: u64, max_age: Duration) -> bool {
    created == 0
        || Duration::from_secs(now.saturating_sub(created)) > max_age
        || Duration::from_secs(created.saturating_sub(now)) > SKEW
}

#[cfg(test)]
mod tests {
    use super::is_too_old;
    use std::time::Duration;

    #[test]
    fn sessions_age() {
        const DAY: u64 = 24 * 3600;
        let (now, max) = (20_000 * DAY, Duration::from_secs(30 * DAY));
        for created in [now, now - 30 * DAY, now + 1, now + DAY] {
            assert!(!is_too_old(created, now, max), "{created}");
        }
        for created in [0, 1, now - 30 * DAY - 1, now + DAY + 1, u64::MAX] {
            assert!(is_too_old(created, now, max), "{created}");
        }
        // Where the clock starts with 1970, a session of the same start goes on.
        assert!(!is_too_old(1, 0, max));
        assert!(!is_too_old(1, u64::MAX, Duration::MAX));
    }
}
