//! Opening a session on a connection, or taking one up there.

use crate::builder::Settings;
use crate::dial::Dialer;
use crate::store::{KeptSession, SessionStore};
use crate::transport::Connection;
use crate::wire::Caller;
use crate::{Deployment, Error, Result, Violation};
use bytes::Bytes;
use chacha20::ChaCha20Rng;
use rand_core::SeedableRng;
use seco_core::{ModelInfo, Refusal, Request, Response, SEALED_LEN, ServerSealingKey, ServerSetId, Session};
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::Handle;
use zeroize::Zeroizing;

/// A session opened on a connection.
pub(crate) struct Link {
    pub(crate) connection: Connection,
    pub(crate) handle: u32,
    pub(crate) session: Arc<KeptSession>,
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
}

impl Linker {
    pub(crate) fn new(deployment: &Deployment, settings: Settings) -> Result<Self> {
        deployment.validate()?;
        let runtime = Handle::try_current().map_err(|_| Error::NoRuntime)?;
        let (model, servers) = (deployment.model_info()?, deployment.sealing_keys());
        let limit = model.response_limit();
        let dialer = Dialer::new(deployment, &settings, limit, runtime.clone())?;
        let Settings { connect_timeout, request_timeout, store, .. } = settings;
        let caller = Caller::new(limit, request_timeout, runtime);
        Ok(Self { dialer, servers, model, connect_timeout, request_timeout, caller, store })
    }

    /// Takes up the stored session, or opens a new one if there is none.
    pub(crate) async fn stored_or_new_session(&self, connection: Connection) -> Result<Link> {
        let stored = match &self.store {
            Some(store) => {
                let servers = ServerSetId::new(&self.servers).map_err(Error::Session)?;
                KeptSession::load(store, &self.model, servers)?
            }
            None => None,
        };
        match stored {
            Some(session) => self.resume(connection, Arc::new(session)).await,
            None => self.open_session(connection).await,
        }
    }

    /// Goes on with `session` on a new connection, or with a new one where the gateway does not know it.
    /// Nothing is sealed for the former.
    pub(crate) async fn resume(&self, connection: Connection, session: Arc<KeptSession>) -> Result<Link> {
        let request = Request::Resume { session: session.lock().id() };
        let mut buffer = vec![0; request.frame_bound()];
        let frame = request.encode_frame(&mut buffer).map_err(Error::Session)?;
        match self.handle(&connection, Bytes::copy_from_slice(frame)).await {
            Ok(handle) => Ok(Link { connection, handle, session }),
            // A gateway of an earlier version cannot read the request.
            Err(Error::Refused(Refusal::UnknownSession | Refusal::Malformed)) => {
                self.open_session(connection).await
            }
            Err(error) => Err(error),
        }
    }

    /// Opens a new session with new keys.
    pub(crate) async fn open_session(&self, connection: Connection) -> Result<Link> {
        let mut rng = system_rng()?;
        let session = Session::new(self.model, &self.servers, &mut rng).map_err(Error::Session)?;
        let mut sealed = vec![0; self.servers.len() * SEALED_LEN];
        let request = session.open_message(&self.servers, &mut rng, &mut sealed).map_err(Error::Session)?;
        let mut frame = vec![0; request.frame_bound()];
        let frame = request.encode_frame(&mut frame).map_err(Error::Session)?;
        let handle = self.handle(&connection, Bytes::copy_from_slice(frame)).await?;
        let session = Arc::new(KeptSession::new(session, self.store.as_ref())?);
        Ok(Link { connection, handle, session })
    }

    /// What the gateway calls the session that the request in `frame` opens or resumes.
    async fn handle(&self, connection: &Connection, frame: Bytes) -> Result<u32> {
        let mut message = Vec::new();
        let call = self.caller.call(connection, frame, |_| {}, &mut message);
        match self.dialer.bounded("session", self.connect_timeout, call).await? {
            Response::Opened { handle } => Ok(handle),
            _ => Err(Violation::WrongKind.into()),
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
