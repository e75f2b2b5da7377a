//! Gateways at addresses that lead somewhere or nowhere.

use super::quic::ANY;
use super::*;
use crate::CertificatePin;
use crate::tls::ALPN;
use quinn::Endpoint;
use rustls::pki_types::PrivatePkcs8KeyDer;
use std::io;
use tokio::net::TcpListener;
use tokio::time::Instant;

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
        closed: Semaphore::const_new(0),
        runtime: Handle::current(),
        log: crate::log::Logger::default(),
    }
}

/// How it ends over QUIC and over TCP, with the addresses in this order.
async fn dial(pin: CertificatePin, addresses: &[SocketAddr]) -> [Result<Connection>; 2] {
    let dialer = dialer(pin);
    let (quic, tls) = (dialer.quic.as_ref().unwrap(), dialer.tcp.as_ref().unwrap());
    let over =
        |over| dialer.bounded("test", Duration::from_secs(4), dialer.dial(over, addresses, Duration::ZERO));
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

/// A gateway that starts late is not waited for at ever longer distances.
#[tokio::test]
async fn a_handshake_that_nobody_answers_is_started_anew() {
    let silent = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address = silent.local_addr().unwrap();
    let dialer = dialer(CertificatePin::of(b"nobody's"));
    let quic = dialer.quic.as_ref().unwrap();
    let mut names = std::collections::HashSet::new();
    let asked = async {
        let mut packet = [0; 1500];
        while names.len() < 3 {
            let (len, _) = silent.recv_from(&mut packet).await.unwrap();
            // The handshake's own name for the gateway, after flags and version.
            let name = &packet[6..6 + usize::from(packet[5])];
            assert_eq!(len, 1200);
            names.insert(name.to_vec());
        }
    };
    tokio::select! {
        ended = quic.shake_hands(address, "gateway.test") => panic!("{:?}", ended.map(drop)),
        asked = tokio::time::timeout(Duration::from_secs(20), asked) => asked.unwrap(),
    }
}

/// What a gateway that restarts refuses says nothing of the network.
#[tokio::test]
async fn tcp_is_remembered_where_quic_seems_blocked() {
    use TransportKind::{Quic, Tcp};
    let (_, pin) = gateway().await;
    let dialer = dialer(pin);
    for (first, refused, remembered) in [
        (Some(Tcp), true, None),
        (Some(Tcp), false, Some(Tcp)),
        (Some(Tcp), true, Some(Tcp)),
        (None, false, None),
        (Some(Quic), true, Some(Quic)),
        (Some(Tcp), false, Some(Quic)),
        (None, true, None),
    ] {
        dialer.remember(first, refused);
        assert_eq!(*lock(&dialer.winner), remembered, "{first:?} {refused}");
    }
}
