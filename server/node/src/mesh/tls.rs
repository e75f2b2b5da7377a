//! TLS 1.3 between servers. Both sides show a certificate and accept only the pinned one, compared
//! byte by byte; names, authorities and dates inside certificates mean nothing here.

use std::sync::Arc;
use std::time::Duration;

use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn::{
    ClientConfig, EndpointConfig, IdleTimeout, MtuDiscoveryConfig, ServerConfig, TransportConfig, VarInt,
};
use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, SignatureScheme};
use seco_protocol::BUNDLES_AT_ONCE;

use crate::Error;
use crate::reset::ResetKey;

/// Names the protocol between servers, in all its versions: they are agreed on behind the handshake ([`crate::versions`]).
/// Under another name servers of two releases would not meet at all.
const ALPN: &[u8] = b"seco-mesh/1";

/// A server that is gone is noticed after this long without a packet. One that stands still for five
/// seconds is not gone.
const IDLE: Duration = Duration::from_secs(8);
/// So a live one sends something more often.
const KEEP_ALIVE: Duration = Duration::from_millis(500);
/// Unread bytes a stream may hold. Streams are few (two for each bundle that is being made, one for an inference), and
/// every one must be able to go on while another is not read: so the connection has no limit of
/// its own below the sum.
const STREAM_WINDOW: u32 = 8 << 20;
/// Bytes of a connection that are not acknowledged: more than the streams of all bundles made at the same time may have
/// on their way, and as much for others. Once it is full no stream is written, whatever goes first: requests, which go
/// first only of what is here, would wait in line with bundles. It is no memory of its own: what is here are the jobs'
/// messages, which wait somewhere.
const SEND_WINDOW: u64 = 4 * BUNDLES_AT_ONCE as u64 * STREAM_WINDOW as u64;
/// Streams a peer may have open.
const MAX_STREAMS: u32 = 256;
/// Largest UDP payload, for links that carry it (loopback, jumbo frames); path MTU discovery settles
/// on less elsewhere. quinn hands the kernel up to ten packets at once, and the kernel takes no more
/// than 65,507 bytes at once: with larger packets than this, bulk stalls.
const MAX_UDP_PAYLOAD: u16 = 6_400;

/// Accepts exactly the certificates it was given.
#[derive(Debug)]
struct Pinned {
    certificates: Vec<CertificateDer<'static>>,
    provider: Arc<CryptoProvider>,
}

impl Pinned {
    fn check(&self, shown: &CertificateDer<'_>, chain: &[CertificateDer<'_>]) -> Result<(), rustls::Error> {
        if chain.is_empty() && self.certificates.iter().any(|c| c.as_ref() == shown.as_ref()) {
            return Ok(());
        }
        Err(rustls::Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure))
    }

    fn signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signed, &self.provider.signature_verification_algorithms)
    }

    fn schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// QUIC has no TLS 1.2; this is never reached.
fn no_tls12() -> Result<HandshakeSignatureValid, rustls::Error> {
    Err(rustls::Error::PeerIncompatible(rustls::PeerIncompatible::Tls12NotOffered))
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        self.check(end_entity, intermediates).map(|()| ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        no_tls12()
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.schemes()
    }
}

impl ClientCertVerifier for Pinned {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        self.check(end_entity, intermediates).map(|()| ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        no_tls12()
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.schemes()
    }
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// Own certificate and key do not fit, or the library refuses them.
fn unusable<E>(_: E) -> Error {
    Error::Usage("the TLS certificate and key of [identity] do not belong together: use both files of one `seco keygen`".to_owned())
}

fn transport() -> Arc<TransportConfig> {
    let mut config = TransportConfig::default();
    let mut discovery = MtuDiscoveryConfig::default();
    discovery.upper_bound(MAX_UDP_PAYLOAD);
    config
        .max_concurrent_bidi_streams(MAX_STREAMS.into())
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        .datagram_receive_buffer_size(None)
        .stream_receive_window(STREAM_WINDOW.into())
        .receive_window(VarInt::MAX)
        .send_window(SEND_WINDOW)
        .keep_alive_interval(Some(KEEP_ALIVE))
        .max_idle_timeout(IdleTimeout::try_from(IDLE).ok())
        // Servers are started in any order: ask again soon.
        .initial_rtt(Duration::from_millis(100))
        .mtu_discovery_config(Some(discovery));
    Arc::new(config)
}

/// Settings of the socket itself.
pub(super) fn endpoint(reset: &ResetKey) -> EndpointConfig {
    let mut config = reset.endpoint("mesh");
    // Cannot fail: the limit is above the protocol's minimum of 1200.
    let _ = config.max_udp_payload_size(MAX_UDP_PAYLOAD);
    config
}

/// For the side that is dialled; it accepts the certificates of those who dial it.
pub(super) fn server(
    own: &CertificateDer<'static>,
    key: &PrivateKeyDer<'static>,
    pinned: Vec<CertificateDer<'static>>,
) -> Result<ServerConfig, Error> {
    let tls = server_tls(own, key, pinned)?;
    let mut config = ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(tls).map_err(unusable)?));
    config.transport_config(transport());
    Ok(config)
}

/// The same without QUIC.
pub fn server_tls(
    own: &CertificateDer<'static>,
    key: &PrivateKeyDer<'static>,
    pinned: Vec<CertificateDer<'static>>,
) -> Result<rustls::ServerConfig, Error> {
    let provider = provider();
    let verifier = Pinned { certificates: pinned, provider: provider.clone() };
    let mut tls = rustls::ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(unusable)?
        .with_client_cert_verifier(Arc::new(verifier))
        .with_single_cert(vec![own.clone()], key.clone_key())
        .map_err(unusable)?;
    tls.alpn_protocols = vec![ALPN.to_vec()];
    // Connections live for weeks; every one of them shows its certificate.
    tls.send_tls13_tickets = 0;
    Ok(tls)
}

/// For the side that dials the server with one of the certificates `pinned`.
pub(super) fn client(
    own: &CertificateDer<'static>,
    key: &PrivateKeyDer<'static>,
    pinned: Vec<CertificateDer<'static>>,
) -> Result<ClientConfig, Error> {
    let tls = client_tls(own, key, pinned)?;
    let mut config = ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls).map_err(unusable)?));
    config.transport_config(transport());
    Ok(config)
}

/// The same without QUIC.
pub fn client_tls(
    own: &CertificateDer<'static>,
    key: &PrivateKeyDer<'static>,
    pinned: Vec<CertificateDer<'static>>,
) -> Result<rustls::ClientConfig, Error> {
    let provider = provider();
    let verifier = Pinned { certificates: pinned, provider: provider.clone() };
    let mut tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(unusable)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_client_auth_cert(vec![own.clone()], key.clone_key())
        .map_err(unusable)?;
    tls.alpn_protocols = vec![ALPN.to_vec()];
    tls.resumption = Resumption::disabled();
    Ok(tls)
}
