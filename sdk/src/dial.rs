//! Reaching the gateway: over QUIC, over TCP, or over whichever works.

use crate::builder::{Settings, Transport};
use crate::tls::{PinVerifier, quic_config, tls_config};
use crate::transport::{self, Connection, QuicConnection};
use crate::{Deployment, Error, Loss, Result, TransportKind, lock};
use quinn::{ConnectError, Endpoint, VarInt};
use rustls::pki_types::ServerName;
use seco_core::mux;
use std::future::poll_fn;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Poll, ready};
use std::time::Duration;
use tokio::runtime::{Handle, RuntimeFlavor};

/// How long to tell the gateway goodbye.
const CLOSE_LIMIT: Duration = Duration::from_secs(1);

/// Pause before TCP is tried again, as QUIC does by itself: a gateway that restarts is back soon.
const RETRY: Duration = Duration::from_millis(500);

/// Makes connections.
pub(crate) struct Dialer {
    gateway: SocketAddr,
    server_name: String,
    connect_timeout: Duration,
    fallback_delay: Duration,
    verifier: Arc<PinVerifier>,
    /// `None` if QUIC is not to be used.
    quic: Option<Endpoint>,
    /// `None` if TCP is not to be used.
    tcp: Option<Arc<rustls::ClientConfig>>,
    /// Longest message that comes down, in bytes.
    limit: usize,
    /// Which transport came first the last time; forgotten when the network changes.
    winner: Mutex<Option<TransportKind>>,
    closed: AtomicBool,
    /// Timers and tasks are made on it, so that any executor may poll requests.
    runtime: Handle,
}

impl Dialer {
    pub(crate) fn new(
        deployment: &Deployment,
        settings: &Settings,
        limit: usize,
        runtime: Handle,
    ) -> Result<Self> {
        let gateway = &deployment.gateway;
        let verifier = PinVerifier::new(gateway.pins.clone());
        let quic = if settings.transport == Transport::Tcp {
            None
        } else {
            let mut endpoint = Endpoint::client(local_address(gateway.address)).map_err(Error::setup)?;
            endpoint.set_default_client_config(quic_config(&verifier, settings.request_timeout)?);
            Some(endpoint)
        };
        let tcp = if settings.transport == Transport::Quic {
            None
        } else {
            Some(Arc::new(tls_config(&verifier, mux::ALPN)?))
        };
        Ok(Self {
            gateway: gateway.address,
            server_name: gateway.server_name.clone(),
            connect_timeout: settings.connect_timeout,
            fallback_delay: settings.fallback_delay,
            verifier,
            quic,
            tcp,
            limit,
            winner: Mutex::default(),
            closed: AtomicBool::new(false),
            runtime,
        })
    }

    /// Shakes hands with the gateway.
    pub(crate) async fn connect(&self) -> Result<Connection> {
        if self.closed.load(Ordering::Relaxed) {
            return Err(Error::Closed(Loss::Local));
        }
        // Left by a handshake that was dropped.
        self.verifier.take_mismatch();
        let mut seen = None;
        let result = self.bounded("connection", self.connect_timeout, self.first_to_answer(&mut seen)).await;
        *lock(&self.winner) = result.as_ref().ok().map(Connection::kind);
        let connection = result.map_err(|error| match error {
            // Silence from an address is the address's matter, and the message should name it.
            Error::Timeout { .. } => seen.unwrap_or_else(|| self.failed(Loss::Silence)),
            other => other,
        })?;
        if self.closed.load(Ordering::Relaxed) {
            connection.give_up(Loss::Local);
            return Err(Error::Closed(Loss::Local));
        }
        Ok(connection)
    }

    /// Whichever transport is there first. `seen` is what went wrong on one while there is hope.
    async fn first_to_answer(&self, seen: &mut Option<Error>) -> Result<Connection> {
        let tcp_works = *lock(&self.winner) == Some(TransportKind::Tcp);
        let quic = self.quic.as_ref().filter(|_| !tcp_works);
        match (quic, &self.tcp) {
            (Some(endpoint), Some(tls)) => self.race(endpoint, tls, seen).await,
            (Some(endpoint), None) => self.dial_quic(endpoint).await,
            (None, Some(tls)) => {
                let mut pause = Duration::ZERO;
                loop {
                    match self.dial_tcp(tls, pause).await {
                        // Refused, or accepted by a gateway that is just ending.
                        Err(error @ Error::Connect { reason: Loss::NobodyThere | Loss::ByGateway, .. }) => {
                            *seen = Some(error);
                        }
                        result => return result,
                    }
                    pause = RETRY;
                }
            }
            (None, None) => Err(self.failed(Loss::Transport)),
        }
    }

    /// QUIC, and TCP after a delay or once QUIC has failed. A certificate that is not pinned ends the race:
    /// somebody is in between, and may block the other transport only.
    async fn race(
        &self,
        endpoint: &Endpoint,
        tls: &Arc<rustls::ClientConfig>,
        seen: &mut Option<Error>,
    ) -> Result<Connection> {
        let goes_on = |error: &Error| matches!(error, Error::Connect { .. });
        let mut quic = pin!(self.dial_quic(endpoint));
        let mut tcp = pin!(self.dial_tcp(tls, self.fallback_delay));
        let mut quic_error = None;
        poll_fn(|context| {
            loop {
                if quic_error.is_none()
                    && let Poll::Ready(result) = quic.as_mut().poll(context)
                {
                    match result {
                        Err(error) if goes_on(&error) => {
                            quic_error = Some(error);
                            tcp.set(self.dial_tcp(tls, Duration::ZERO));
                        }
                        result => return Poll::Ready(result),
                    }
                }
                match ready!(tcp.as_mut().poll(context)) {
                    Err(error) if goes_on(&error) => match quic_error.take() {
                        Some(first) => return Poll::Ready(Err(first)),
                        None => {
                            *seen = Some(error);
                            tcp.set(self.dial_tcp(tls, RETRY));
                        }
                    },
                    result => return Poll::Ready(result),
                }
            }
        })
        .await
    }

    async fn dial_quic(&self, endpoint: &Endpoint) -> Result<Connection> {
        let connecting = endpoint.connect(self.gateway, &self.server_name).map_err(|error| match error {
            ConnectError::EndpointStopping => Error::Closed(Loss::Local),
            other => Error::setup(other),
        })?;
        let connection = connecting.await.map_err(|error| self.failed(Loss::from(&error)))?;
        Ok(Connection::Quic(QuicConnection::new(connection)))
    }

    /// Waits for `pause` first.
    async fn dial_tcp(&self, tls: &Arc<rustls::ClientConfig>, pause: Duration) -> Result<Connection> {
        if !pause.is_zero() {
            let sleep = {
                let _context = self.runtime.enter();
                tokio::time::sleep(pause)
            };
            sleep.await;
        }
        let name = ServerName::try_from(self.server_name.clone()).map_err(Error::setup)?;
        let mut dialing = pin!(transport::dial(self.gateway, name, tls.clone(), self.limit, &self.runtime));
        // The socket is registered with the runtime when it is first polled.
        let dialed = poll_fn(|context| {
            let _context = self.runtime.enter();
            dialing.as_mut().poll(context)
        });
        dialed.await.map(Connection::Tcp).map_err(|loss| self.failed(loss))
    }

    /// What a failed handshake is. The transports' errors do not tell a wrong certificate from others.
    fn failed(&self, reason: Loss) -> Error {
        let gateway = self.gateway;
        if self.verifier.take_mismatch() {
            Error::PinMismatch { gateway }
        } else {
            Error::Connect { gateway, reason }
        }
    }

    /// Moves to a new socket, and with it to whatever network is current; where `connection` cannot move, it
    /// ends, and another one is made for the next request.
    pub(crate) fn network_changed(&self, connection: &Connection) -> Result<()> {
        *lock(&self.winner) = None;
        if let Connection::Tcp(connection) = connection
            && connection.lost().is_none()
        {
            connection.give_up(Loss::NetworkChanged);
        }
        let Some(endpoint) = &self.quic else { return Ok(()) };
        let _context = self.runtime.enter();
        let socket = UdpSocket::bind(local_address(self.gateway)).map_err(Error::setup)?;
        endpoint.rebind(socket).map_err(Error::setup)
    }

    /// Ends `connection`, and lets no new ones be.
    pub(crate) async fn close(&self, connection: &Connection) {
        self.closed.store(true, Ordering::Relaxed);
        if let Some(endpoint) = &self.quic {
            endpoint.close(VarInt::from_u32(0), b"");
        }
        // Late or lost, the goodbye is a courtesy: the gateway also notices silence.
        let goodbye = async {
            match (connection, &self.quic) {
                (Connection::Tcp(connection), _) => connection.close().await,
                (_, Some(endpoint)) => endpoint.wait_idle().await,
                _ => {}
            }
            Ok(())
        };
        let _ = self.bounded("close", CLOSE_LIMIT, goodbye).await;
        connection.give_up(Loss::Local);
    }

    /// Whether all work is done on one thread.
    pub(crate) fn current_thread(&self) -> bool {
        self.runtime.runtime_flavor() == RuntimeFlavor::CurrentThread
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
