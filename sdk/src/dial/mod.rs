//! Reaching the gateway: over QUIC, over TCP, or over whichever works.

mod addresses;
mod quic;
mod race;
#[cfg(test)]
mod tests;

use crate::builder::{Settings, Transport};
use crate::log::{Event, Logger};
use crate::tls::{PinVerifier, quic_config, tls_config};
use crate::transport::{self, Connection, QuicConnection};
use crate::trouble::jittered;
use crate::{Address, Deployment, Error, Loss, Result, TransportKind, lock};
use addresses::in_turn;
use quic::Quic;
use rustls::pki_types::ServerName;
use seco_core::mux;
use std::future::poll_fn;
use std::net::{SocketAddr, UdpSocket};
use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::sync::Semaphore;
use tokio::time::Instant;

/// How long to tell the gateway goodbye.
const CLOSE_LIMIT: Duration = Duration::from_secs(1);

/// Longest pause before TCP is tried again where it was refused: a gateway that restarts is back soon.
const RETRY: Duration = Duration::from_millis(500);

/// Makes connections.
pub(crate) struct Dialer {
    gateway: Address,
    server_name: String,
    connect_timeout: Duration,
    fallback_delay: Duration,
    verifier: Arc<PinVerifier>,
    /// `None` if QUIC is not to be used.
    quic: Option<Quic>,
    /// `None` if TCP is not to be used.
    tcp: Option<Arc<rustls::ClientConfig>>,
    /// Longest message that comes down, in bytes.
    limit: usize,
    /// Which transport serves on this network, as far as is known; forgotten when the network changes.
    winner: Mutex<Option<TransportKind>>,
    /// Which address answered last; forgotten likewise.
    answered: Mutex<Option<SocketAddr>>,
    /// Without permits. Closed with the client.
    closed: Semaphore,
    /// Timers and tasks are made on it, so that any executor may poll requests.
    runtime: Handle,
    pub(crate) log: Logger,
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
            let config = quic_config(&verifier, settings.request_timeout)?;
            Some(Quic { config, endpoints: Mutex::default() })
        };
        let tcp = if settings.transport == Transport::Quic {
            None
        } else {
            Some(Arc::new(tls_config(&verifier, mux::ALPN)?))
        };
        Ok(Self {
            gateway: gateway.address.clone(),
            server_name: gateway.server_name.clone(),
            connect_timeout: settings.connect_timeout,
            fallback_delay: settings.fallback_delay,
            verifier,
            quic,
            tcp,
            limit,
            winner: Mutex::default(),
            answered: Mutex::default(),
            closed: Semaphore::const_new(0),
            runtime,
            log: settings.log.clone(),
        })
    }

    /// Shakes hands with the gateway.
    pub(crate) async fn connect(&self) -> Result<Connection> {
        let start = Instant::now();
        let result = self.reach().await;
        self.log.tell(|| match &result {
            Ok(connection) => Event::Connected { transport: connection.kind(), wall: start.elapsed() },
            Err(error) => Event::NotConnected { error },
        });
        result
    }

    async fn reach(&self) -> Result<Connection> {
        if self.is_closed() {
            return Err(Error::Closed(Loss::Local));
        }
        // Left by a handshake that was dropped.
        self.verifier.take_mismatch();
        let mut seen = None;
        let result = {
            let mut answer = pin!(self.first_to_answer(&mut seen));
            // Sockets, timers and look-ups are registered with the runtime when they are first polled.
            let answer = poll_fn(|context| {
                let _context = self.runtime.enter();
                answer.as_mut().poll(context)
            });
            self.bounded("connection", self.connect_timeout, answer).await
        };
        self.remember(result.as_ref().ok().map(Connection::kind), seen.is_some());
        if result.is_err() {
            *lock(&self.answered) = None;
        }
        let connection = result.map_err(|error| match error {
            // Silence from an address is the address's matter, and the message should name it.
            Error::Timeout { .. } => seen.unwrap_or_else(|| self.failed(Loss::Silence)),
            other => other,
        })?;
        if self.is_closed() {
            connection.give_up(Loss::Local);
            return Err(Error::Closed(Loss::Local));
        }
        Ok(connection)
    }

    /// Remembers which transport came first, if one did. TCP only where QUIC is blocked as it seems: not if it has
    /// served on this network, and not of a gateway that `refused` something, for it is just starting or ending.
    fn remember(&self, first: Option<TransportKind>, refused: bool) {
        let mut winner = lock(&self.winner);
        let by_chance = refused || *winner == Some(TransportKind::Quic);
        if first != Some(TransportKind::Tcp) || !by_chance {
            *winner = first;
        }
    }

    /// Whichever transport is there first. `seen` is what went wrong on one while there is hope.
    async fn first_to_answer(&self, seen: &mut Option<Error>) -> Result<Connection> {
        *seen = Some(self.unresolved());
        let addresses = self.resolve().await?;
        *seen = None;
        let tcp_works = *lock(&self.winner) == Some(TransportKind::Tcp);
        let quic = self.quic.as_ref().filter(|_| !tcp_works);
        match (quic, &self.tcp) {
            (Some(quic), Some(tls)) => self.race(quic, tls, &addresses, seen).await,
            (Some(quic), None) => self.dial(Over::Quic(quic), &addresses, Duration::ZERO).await,
            (None, Some(tls)) => {
                let mut pause = Duration::ZERO;
                loop {
                    match self.dial(Over::Tcp(tls), &addresses, pause).await {
                        // Refused, or accepted by a gateway that is just ending.
                        Err(error @ Error::Connect { reason: Loss::NobodyThere | Loss::ByGateway, .. }) => {
                            *seen = Some(error);
                        }
                        result => return result,
                    }
                    pause = jittered(RETRY);
                }
            }
            (None, None) => Err(self.failed(Loss::Transport)),
        }
    }

    /// The gateway's addresses, the most promising first.
    async fn resolve(&self) -> Result<Vec<SocketAddr>> {
        let found = tokio::net::lookup_host(self.gateway.as_str()).await;
        let answered = *lock(&self.answered);
        let addresses = in_turn(found.map_err(|_| self.unresolved())?.collect(), answered);
        if addresses.is_empty() { Err(self.unresolved()) } else { Ok(addresses) }
    }

    async fn shake_hands(&self, over: Over<'_>, address: SocketAddr) -> Result<Connection> {
        let connection = self.connect_to(over, address).await?;
        *lock(&self.answered) = Some(address);
        Ok(connection)
    }

    async fn connect_to(&self, over: Over<'_>, address: SocketAddr) -> Result<Connection> {
        match over {
            Over::Quic(quic) => {
                let connection = quic.shake_hands(address, &self.server_name).await?;
                let connection = connection.map_err(|error| self.failed(Loss::from(&error)))?;
                Ok(Connection::Quic(QuicConnection::new(connection)))
            }
            Over::Tcp(tls) => {
                let name = ServerName::try_from(self.server_name.clone()).map_err(Error::setup)?;
                let dialed = transport::dial(address, name, tls.clone(), self.limit, &self.runtime).await;
                dialed.map(Connection::Tcp).map_err(|loss| self.failed(loss))
            }
        }
    }

    fn unresolved(&self) -> Error {
        Error::Connect { gateway: self.gateway.clone(), reason: Loss::Unresolved }
    }

    /// What a failed handshake is. The transports' errors do not tell a wrong certificate from others.
    fn failed(&self, reason: Loss) -> Error {
        let gateway = self.gateway.clone();
        if self.verifier.take_mismatch() {
            Error::PinMismatch { gateway }
        } else {
            Error::Connect { gateway, reason }
        }
    }

    /// Moves to a new socket, and with it to whatever network is current; where `connection` cannot move, it
    /// ends, and another one is made for the next request.
    pub(crate) fn network_changed(&self, connection: &Connection) -> Result<()> {
        self.log.tell(|| Event::NetworkChanged);
        *lock(&self.winner) = None;
        *lock(&self.answered) = None;
        if let Connection::Tcp(connection) = connection
            && connection.lost().is_none()
        {
            connection.give_up(Loss::NetworkChanged);
        }
        let Some(quic) = &self.quic else { return Ok(()) };
        let _context = self.runtime.enter();
        // An idle family's sockets may fail: the network has only the other.
        let own = match connection {
            Connection::Quic(connection) => Some(connection.remote().is_ipv6()),
            Connection::Tcp(_) => None,
        };
        quic.rebind(own, UdpSocket::bind).map_err(Error::setup)
    }

    /// Ends `connection`, and lets no new ones be.
    pub(crate) async fn close(&self, connection: &Connection) {
        self.closed.close();
        let endpoints = self.quic.as_ref().map(Quic::close).unwrap_or_default();
        // Late or lost, the goodbye is a courtesy: the gateway also notices silence.
        let goodbye = async {
            if let Connection::Tcp(connection) = connection {
                connection.close().await;
            } else {
                for endpoint in endpoints.iter().flatten() {
                    endpoint.wait_idle().await;
                }
            }
            Ok(())
        };
        let _ = self.bounded("close", CLOSE_LIMIT, goodbye).await;
        connection.give_up(Loss::Local);
    }

    /// Whether the client is closed.
    pub(crate) fn is_closed(&self) -> bool {
        self.closed.is_closed()
    }

    /// Ready once the client is closed.
    pub(crate) async fn closed(&self) {
        // Only closing ends the wait for a permit.
        let _ = self.closed.acquire().await;
    }

    /// Whether all work is done on one thread.
    pub(crate) fn current_thread(&self) -> bool {
        self.runtime.runtime_flavor() == RuntimeFlavor::CurrentThread
    }

    /// Does nothing for so long.
    pub(crate) async fn sleep(&self, pause: Duration) {
        if !pause.is_zero() {
            let pause = {
                let _context = self.runtime.enter();
                tokio::time::sleep(pause)
            };
            pause.await;
        }
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

/// A transport to dial with.
#[derive(Clone, Copy)]
enum Over<'a> {
    Quic(&'a Quic),
    Tcp(&'a Arc<rustls::ClientConfig>),
}
