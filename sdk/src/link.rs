//! Connecting to the gateway and opening a session on the connection, or taking one up there.

use crate::client::{ClientOptions, Timeouts};
use crate::store::{KeptSession, SessionStore};
use crate::tls::{PinVerifier, client_config};
use crate::{Deployment, Error, Loss, Result, Violation, wire};
use chacha20::ChaCha20Rng;
use quinn::{ConnectError, Connection, Endpoint};
use rand_core::SeedableRng;
use seco_core::{ModelInfo, Refusal, Request, Response, SEALED_LEN, ServerSealingKey, ServerSetId, Session};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
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
pub(crate) struct Dialer {
    gateway: SocketAddr,
    server_name: String,
    servers: Vec<ServerSealingKey>,
    pub(crate) model: ModelInfo,
    pub(crate) timeouts: Timeouts,
    /// Where sessions are kept, if they are.
    store: Option<Arc<dyn SessionStore>>,
    verifier: Arc<PinVerifier>,
    pub(crate) endpoint: Endpoint,
    /// Timers are made on it, so that any executor may poll requests.
    runtime: Handle,
}

impl Dialer {
    pub(crate) fn new(
        deployment: Deployment,
        options: ClientOptions,
        store: Option<Arc<dyn SessionStore>>,
    ) -> Result<Self> {
        deployment.validate()?;
        let runtime = Handle::try_current().map_err(|_| Error::NoRuntime)?;
        let (model, servers) = (deployment.model_info()?, deployment.sealing_keys());
        let Deployment { gateway, .. } = deployment;
        let verifier = PinVerifier::new(gateway.pins);
        let mut endpoint = Endpoint::client(local_address(gateway.address)).map_err(Error::setup)?;
        endpoint.set_default_client_config(client_config(&verifier, &options.timeouts)?);
        Ok(Self {
            gateway: gateway.address,
            server_name: gateway.server_name,
            servers,
            model,
            timeouts: options.timeouts,
            store,
            verifier,
            endpoint,
            runtime,
        })
    }

    /// Shakes hands with the gateway.
    pub(crate) async fn connect(&self) -> Result<Connection> {
        let connecting =
            self.endpoint.connect(self.gateway, &self.server_name).map_err(|error| match error {
                ConnectError::EndpointStopping => Error::Closed(Loss::Local),
                other => Error::setup(other),
            })?;
        let connected = self
            .bounded("connection", self.timeouts.connect, async {
                connecting.await.map_err(|error| {
                    // The transport's error does not tell a wrong certificate from other failed handshakes.
                    if self.verifier.take_mismatch() {
                        Error::PinMismatch { gateway: self.gateway }
                    } else {
                        Error::Connect { gateway: self.gateway, reason: Loss::from(&error) }
                    }
                })
            })
            .await;
        // Silence from an address is the address's matter, and the message should name it.
        connected.map_err(|error| match error {
            Error::Timeout { .. } => Error::Connect { gateway: self.gateway, reason: Loss::Silence },
            other => other,
        })
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
        match self.handle(&connection, &request).await {
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
        let handle = self.handle(&connection, &request).await?;
        let session = Arc::new(KeptSession::new(session, self.store.as_ref())?);
        Ok(Link { connection, handle, session })
    }

    /// What the gateway calls the session that `request` opens or resumes.
    async fn handle(&self, connection: &Connection, request: &Request<'_>) -> Result<u32> {
        let mut buffer = Vec::new();
        let call = wire::call(connection, request, self.model.response_limit(), &mut buffer);
        match self.bounded("session", self.timeouts.connect, call).await? {
            Response::Opened { handle } => Ok(handle),
            _ => Err(Violation::WrongKind.into()),
        }
    }

    /// Moves to a new socket, and with it to whatever network is current.
    pub(crate) fn rebind(&self) -> Result<()> {
        let _context = self.runtime.enter();
        let socket = UdpSocket::bind(local_address(self.gateway)).map_err(Error::setup)?;
        self.endpoint.rebind(socket).map_err(Error::setup)
    }

    /// Gives `future` at most `limit`.
    pub(crate) async fn bounded<T>(
        &self,
        step: &'static str,
        limit: Duration,
        future: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        let bounded = {
            let _context = self.runtime.enter();
            tokio::time::timeout(limit, future)
        };
        bounded.await.unwrap_or(Err(Error::Timeout { step, limit }))
    }
}

/// Any free port, in the address family of `gateway`.
fn local_address(gateway: SocketAddr) -> SocketAddr {
    let any: IpAddr = match gateway {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    SocketAddr::new(any, 0)
}

/// A generator seeded by the operating system. Not the system's own: that one can fail at every call, which
/// sealing could answer only by a panic.
fn system_rng() -> Result<ChaCha20Rng> {
    let mut seed = Zeroizing::new([0; 32]);
    getrandom::fill(seed.as_mut_slice()).map_err(|_| Error::NoRandomness)?;
    Ok(ChaCha20Rng::from_seed(*seed))
}
