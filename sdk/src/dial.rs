//! Reaching the gateway: over QUIC, over TCP, or over whichever works.

use crate::builder::{Settings, Transport};
use crate::tls::{PinVerifier, quic_config, tls_config};
use crate::transport::{self, Connection, QuicConnection};
use crate::{Address, Deployment, Error, Loss, Result, TransportKind, lock};
use quinn::{ConnectError, Endpoint, VarInt};
use rustls::pki_types::ServerName;
use seco_core::mux;
use std::future::poll_fn;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6, UdpSocket};
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Poll, ready};
use std::time::Duration;
use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::time::Instant;

/// How long to tell the gateway goodbye.
const CLOSE_LIMIT: Duration = Duration::from_secs(1);

/// Pause before TCP is tried again, as QUIC does by itself: a gateway that restarts is back soon.
const RETRY: Duration = Duration::from_millis(500);

/// How long an address has to answer before the next one is tried as well: of the two families, one may lead nowhere.
const STAGGER: Duration = Duration::from_millis(250);

/// Most addresses that are tried. Whoever answers look-ups is not trusted.
const MAX_ADDRESSES: usize = 6;

/// Any free port, over IPv4 and over IPv6.
const ANY: [SocketAddr; 2] = [
    SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 0)),
    SocketAddr::V6(SocketAddrV6::new(Ipv6Addr::UNSPECIFIED, 0, 0, 0)),
];

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
    /// Which transport came first the last time; forgotten when the network changes.
    winner: Mutex<Option<TransportKind>>,
    /// Which address answered last; forgotten likewise.
    answered: Mutex<Option<SocketAddr>>,
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
        let result = {
            let mut answer = pin!(self.first_to_answer(&mut seen));
            // Sockets, timers and look-ups are registered with the runtime when they are first polled.
            let answer = poll_fn(|context| {
                let _context = self.runtime.enter();
                answer.as_mut().poll(context)
            });
            self.bounded("connection", self.connect_timeout, answer).await
        };
        *lock(&self.winner) = result.as_ref().ok().map(Connection::kind);
        if result.is_err() {
            *lock(&self.answered) = None;
        }
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
                    pause = RETRY;
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

    /// QUIC, and TCP after a delay or once QUIC has failed. A certificate that is not pinned ends the race:
    /// somebody is in between, and may block the other transport only.
    async fn race(
        &self,
        quic: &Quic,
        tls: &Arc<rustls::ClientConfig>,
        addresses: &[SocketAddr],
        seen: &mut Option<Error>,
    ) -> Result<Connection> {
        let over_tcp = |pause| self.dial(Over::Tcp(tls), addresses, pause);
        let mut quic = pin!(self.dial(Over::Quic(quic), addresses, Duration::ZERO));
        let mut tcp = pin!(over_tcp(self.fallback_delay));
        let mut quic_error = None;
        poll_fn(|context| {
            loop {
                if quic_error.is_none()
                    && let Poll::Ready(result) = quic.as_mut().poll(context)
                {
                    match result {
                        Err(error) if goes_on(&error) => {
                            quic_error = Some(error);
                            tcp.set(over_tcp(Duration::ZERO));
                        }
                        result => return Poll::Ready(result),
                    }
                }
                match ready!(tcp.as_mut().poll(context)) {
                    Err(error) if goes_on(&error) => match quic_error.take() {
                        Some(first) => return Poll::Ready(Err(telling(Some(first), error))),
                        None => {
                            *seen = Some(error);
                            tcp.set(over_tcp(RETRY));
                        }
                    },
                    result => return Poll::Ready(result),
                }
            }
        })
        .await
    }

    /// Waits for `pause`, then shakes hands at each of the addresses, at the next one after [`STAGGER`] or once
    /// all before have failed; whichever is there first. Like [`Dialer::race`], a certificate that is not pinned
    /// ends it.
    async fn dial(&self, over: Over<'_>, addresses: &[SocketAddr], pause: Duration) -> Result<Connection> {
        if !pause.is_zero() {
            tokio::time::sleep(pause).await;
        }
        let mut rest = addresses.iter();
        let start = |address: &SocketAddr| Box::pin(self.shake_hands(over, *address));
        let mut under_way = Vec::from_iter(rest.next().map(start));
        let mut stagger = pin!(tokio::time::sleep(STAGGER));
        let mut failure = None;
        poll_fn(|context| {
            loop {
                let mut i = 0;
                while let Some(attempt) = under_way.get_mut(i) {
                    match attempt.as_mut().poll(context) {
                        Poll::Pending => i += 1,
                        Poll::Ready(Err(error)) if goes_on(&error) => {
                            drop(under_way.remove(i));
                            failure = Some(telling(failure.take(), error));
                        }
                        Poll::Ready(result) => return Poll::Ready(result),
                    }
                }
                if !under_way.is_empty() && (rest.len() == 0 || stagger.as_mut().poll(context).is_pending()) {
                    return Poll::Pending;
                }
                let Some(address) = rest.next() else {
                    return Poll::Ready(Err(failure.take().unwrap_or_else(|| self.unresolved())));
                };
                under_way.push(start(address));
                stagger.as_mut().reset(Instant::now() + STAGGER);
            }
        })
        .await
    }

    async fn shake_hands(&self, over: Over<'_>, address: SocketAddr) -> Result<Connection> {
        let connection = self.connect_to(over, address).await?;
        *lock(&self.answered) = Some(address);
        Ok(connection)
    }

    async fn connect_to(&self, over: Over<'_>, address: SocketAddr) -> Result<Connection> {
        match over {
            Over::Quic(quic) => {
                let connecting = quic.endpoint(address)?.connect(address, &self.server_name);
                let connecting = connecting.map_err(|error| match error {
                    ConnectError::EndpointStopping => Error::Closed(Loss::Local),
                    other => Error::setup(other),
                })?;
                let connection = connecting.await.map_err(|error| self.failed(Loss::from(&error)))?;
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
        self.closed.store(true, Ordering::Relaxed);
        let endpoints = self.quic.as_ref().map(|quic| lock(&quic.endpoints).clone()).unwrap_or_default();
        for endpoint in endpoints.iter().flatten() {
            endpoint.close(VarInt::from_u32(0), b"");
        }
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

/// QUIC's side of a device.
struct Quic {
    config: quinn::ClientConfig,
    /// One for each of [`ANY`], made when an address needs it: a system may lack either family.
    endpoints: Mutex<[Option<Endpoint>; 2]>,
}

impl Quic {
    fn endpoint(&self, address: SocketAddr) -> Result<Endpoint> {
        let mut endpoints = lock(&self.endpoints);
        let [v4, v6] = &mut *endpoints;
        let [any_v4, any_v6] = ANY;
        let (endpoint, any) = if address.is_ipv6() { (v6, any_v6) } else { (v4, any_v4) };
        if let Some(endpoint) = endpoint {
            return Ok(endpoint.clone());
        }
        let mut made = Endpoint::client(any).map_err(Error::setup)?;
        made.set_default_client_config(self.config.clone());
        Ok(endpoint.insert(made).clone())
    }

    /// Moves every endpoint to a new socket, and says what failed where it matters: for the family of `own`, whether
    /// that is IPv6; for none, nothing does.
    fn rebind<F>(&self, own: Option<bool>, bind: F) -> io::Result<()>
    where
        F: Fn(SocketAddr) -> io::Result<UdpSocket>,
    {
        let mut result = Ok(());
        for (endpoint, any) in lock(&self.endpoints).iter().zip(ANY) {
            let Some(endpoint) = endpoint else { continue };
            let moved = bind(any).and_then(|socket| endpoint.rebind(socket));
            if own == Some(any.is_ipv6()) {
                result = moved;
            }
        }
        result
    }
}

/// A transport to dial with.
#[derive(Clone, Copy)]
enum Over<'a> {
    Quic(&'a Quic),
    Tcp(&'a Arc<rustls::ClientConfig>),
}

/// Whether another address or transport may do better.
fn goes_on(error: &Error) -> bool {
    matches!(error, Error::Connect { .. } | Error::Setup(_))
}

/// Of two failures, the one that says more. Where a family is missing, its sockets or their routes are.
fn telling(first: Option<Error>, second: Error) -> Error {
    let says = |error: &Error| match error {
        Error::Setup(_) => 0,
        Error::Connect { reason: Loss::Transport, .. } => 1,
        _ => 2,
    };
    first.filter(|first| says(first) >= says(&second)).unwrap_or(second)
}

/// Addresses in the system's order, but the one that `answered` last comes first, and the second is of the other family
/// than the first, if there is such a one.
fn in_turn(mut addresses: Vec<SocketAddr>, answered: Option<SocketAddr>) -> Vec<SocketAddr> {
    if let Some(known) = answered.and_then(|known| addresses.iter().position(|address| *address == known)) {
        let known = addresses.remove(known);
        addresses.insert(0, known);
    }
    if let Some(first) = addresses.first().copied()
        && let Some(other) = addresses.iter().position(|address| address.is_ipv6() != first.is_ipv6())
    {
        let other = addresses.remove(other);
        addresses.insert(1, other);
    }
    addresses.truncate(MAX_ADDRESSES);
    addresses
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::CertificatePin;
    use crate::tls::ALPN;
    use rustls::pki_types::PrivatePkcs8KeyDer;
    use tokio::net::TcpListener;

    /// What answers handshakes on both transports, with the pin of its certificate.
    async fn gateway() -> (SocketAddr, CertificatePin) {
        let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
        let certificate = rcgen::CertificateParams::default().self_signed(&key).unwrap().der().clone();
        let pin = CertificatePin::of(&certificate);
        let tls = |alpn: &[u8]| {
            let provider = Arc::new(rustls::crypto::ring::default_provider());
            let key = PrivatePkcs8KeyDer::from(key.serialize_der()).into();
            let tls = rustls::ServerConfig::builder_with_provider(provider)
                .with_protocol_versions(&[&rustls::version::TLS13])
                .unwrap();
            let mut tls = tls.with_no_client_auth().with_single_cert(vec![certificate.clone()], key).unwrap();
            tls.alpn_protocols = vec![alpn.to_vec()];
            tls
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let crypto = quinn::crypto::rustls::QuicServerConfig::try_from(tls(ALPN)).unwrap();
        let endpoint = Endpoint::server(quinn::ServerConfig::with_crypto(Arc::new(crypto)), address).unwrap();
        tokio::spawn(async move {
            let mut kept = Vec::new();
            while let Some(incoming) = endpoint.accept().await {
                kept.push(incoming.await);
            }
        });
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(tls(mux::ALPN)));
        tokio::spawn(async move {
            let mut kept = Vec::new();
            while let Ok((stream, _)) = listener.accept().await {
                kept.push(acceptor.accept(stream).await);
            }
        });
        (address, pin)
    }

    fn dialer(pin: CertificatePin) -> Dialer {
        let verifier = PinVerifier::new(vec![pin]);
        let config = quic_config(&verifier, Duration::from_secs(4)).unwrap();
        Dialer {
            gateway: "gateway.test:7443".parse().unwrap(),
            server_name: "gateway.test".into(),
            connect_timeout: Duration::from_secs(4),
            fallback_delay: Duration::ZERO,
            quic: Some(Quic { config, endpoints: Mutex::default() }),
            tcp: Some(Arc::new(tls_config(&verifier, mux::ALPN).unwrap())),
            verifier,
            limit: 1000,
            winner: Mutex::default(),
            answered: Mutex::default(),
            closed: AtomicBool::new(false),
            runtime: Handle::current(),
        }
    }

    /// How it ends over QUIC and over TCP, with the addresses in this order.
    async fn dial(pin: CertificatePin, addresses: &[SocketAddr]) -> [Result<Connection>; 2] {
        let dialer = dialer(pin);
        let (quic, tls) = (dialer.quic.as_ref().unwrap(), dialer.tcp.as_ref().unwrap());
        let over = |over| {
            dialer.bounded("test", Duration::from_secs(4), dialer.dial(over, addresses, Duration::ZERO))
        };
        [over(Over::Quic(quic)).await, over(Over::Tcp(tls)).await]
    }

    #[tokio::test]
    async fn addresses_that_lead_nowhere_are_passed_by() {
        let (there, pin) = gateway().await;
        // Nobody answers on either transport: UDP is swallowed, and the system alone accepts what comes over TCP.
        let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let silent_udp = UdpSocket::bind(silent.local_addr().unwrap()).unwrap();
        let silent = silent.local_addr().unwrap();
        let refusing = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let unreachable = "[2001:db8::1]:7443".parse().unwrap();
        for dead in [&[silent][..], &[refusing], &[unreachable], &[unreachable, silent, refusing]] {
            for (before, after) in [(dead, &[][..]), (&[], dead)] {
                let addresses = [before, &[there], after].concat();
                let start = Instant::now();
                for (connected, kind) in
                    dial(pin, &addresses).await.into_iter().zip([TransportKind::Quic, TransportKind::Tcp])
                {
                    let connection = connected.unwrap_or_else(|error| panic!("{addresses:?}: {error}"));
                    assert_eq!(connection.kind(), kind);
                }
                assert!(start.elapsed() < Duration::from_secs(3), "{addresses:?}");
            }
        }
        // What is known best is told, in any order.
        for addresses in [[unreachable, refusing], [refusing, unreachable]] {
            let dialer = dialer(pin);
            let tcp = dialer.dial(Over::Tcp(dialer.tcp.as_ref().unwrap()), &addresses, Duration::ZERO);
            let error = dialer.bounded("test", Duration::from_secs(1), tcp).await.err().unwrap();
            assert!(
                matches!(error, Error::Connect { reason: Loss::NobodyThere, .. } | Error::Timeout { .. }),
                "{error}"
            );
        }
        drop(silent_udp);
    }

    /// Whoever answers look-ups can send a device elsewhere, and it then says so.
    #[tokio::test]
    async fn a_wrong_certificate_at_any_address_is_told() {
        let ((there, pin), (other, _)) = (gateway().await, gateway().await);
        for result in dial(pin, &[other, there]).await.into_iter().chain(dial(pin, &[other]).await) {
            let error = result.err().unwrap();
            assert!(matches!(error, Error::PinMismatch { .. }), "{error}");
            assert!(error.to_string().starts_with("gateway.test:7443 showed"), "{error}");
        }
    }

    #[test]
    fn both_families_come_first_and_few_addresses_at_all() {
        let parse = |text: &str| -> Vec<SocketAddr> {
            text.split(' ').map(|ip| SocketAddr::new(ip.parse().unwrap(), 7443)).collect()
        };
        for (found, tried) in [
            ("::1 ::2 10.0.0.1 ::3 10.0.0.2", "::1 10.0.0.1 ::2 ::3 10.0.0.2"),
            ("10.0.0.1 ::1", "10.0.0.1 ::1"),
            ("10.0.0.1 10.0.0.2", "10.0.0.1 10.0.0.2"),
            ("::1 ::2 ::3 ::4 ::5 ::6 ::7 10.0.0.1", "::1 10.0.0.1 ::2 ::3 ::4 ::5"),
        ] {
            assert_eq!(in_turn(parse(found), None), parse(tried), "{found}");
        }
        assert_eq!(in_turn(Vec::new(), None), []);
        for (known, tried) in [
            ("10.0.0.2", "10.0.0.2 ::1 ::2 10.0.0.1 ::3"),
            ("::3", "::3 10.0.0.1 ::1 ::2 10.0.0.2"),
            ("10.0.0.9", "::1 10.0.0.1 ::2 ::3 10.0.0.2"),
        ] {
            let found = parse("::1 ::2 10.0.0.1 ::3 10.0.0.2");
            assert_eq!(in_turn(found, parse(known).first().copied()), parse(tried), "{known}");
        }
    }

    /// The other family's silence is waited for once.
    #[tokio::test]
    async fn the_address_that_answered_is_remembered_until_the_network_changes() {
        let (there, pin) = gateway().await;
        let mut dialer = dialer(pin);
        dialer.gateway = there.to_string().parse().unwrap();
        assert_eq!(*lock(&dialer.answered), None);
        let connection = dialer.connect().await.unwrap();
        assert_eq!(*lock(&dialer.answered), Some(there));
        dialer.network_changed(&connection).unwrap();
        assert_eq!(*lock(&dialer.answered), None);
        dialer.connect().await.unwrap();
        // Gone: whatever is found is tried in its order again.
        let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        dialer.gateway = nobody.to_string().parse().unwrap();
        dialer.connect_timeout = Duration::from_millis(300);
        assert!(dialer.connect().await.is_err());
        assert_eq!(*lock(&dialer.answered), None);
    }

    /// One that cannot move does not keep the other where it was.
    #[tokio::test]
    async fn both_families_move_to_a_new_network() {
        let (_, pin) = gateway().await;
        let dialer = dialer(pin);
        let quic = dialer.quic.as_ref().unwrap();
        let local = |any: SocketAddr| quic.endpoint(any).unwrap().local_addr().unwrap();
        let no_v4 = |any: SocketAddr| {
            if any.is_ipv4() { Err(io::ErrorKind::Unsupported.into()) } else { UdpSocket::bind(any) }
        };
        let before = ANY.map(local);
        quic.rebind(Some(true), no_v4).unwrap();
        let after = ANY.map(local);
        assert_eq!(after[0], before[0]);
        assert_ne!(after[1], before[1]);
        quic.rebind(None, no_v4).unwrap();
        assert_eq!(quic.rebind(Some(false), no_v4).unwrap_err().kind(), io::ErrorKind::Unsupported);
        assert_ne!(ANY.map(local)[1], after[1]);
    }
}
