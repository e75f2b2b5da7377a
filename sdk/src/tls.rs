//! TLS and QUIC as a device needs them: a pinned certificate, and no packet that carries no request.
//!
//! The handshake is classical (X25519): only masked bytes and keys sealed post-quantum travel inside it
//! (`server/PROTOCOL.md`, section 3).

use crate::deployment::CertificatePin;
use crate::transport::RECEIVE_WINDOW;
use crate::{Error, Result};
use quinn::crypto::rustls::QuicClientConfig;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{ClientConfig, Resumption};
use rustls::crypto::ring::{cipher_suite, kx_group};
use rustls::crypto::{
    CryptoProvider, GetRandomFailed, KeyProvider, SecureRandom, WebPkiSupportedAlgorithms,
    verify_tls13_signature,
};
use rustls::pki_types::{
    CertificateDer, PrivateKeyDer, ServerName, SignatureVerificationAlgorithm, UnixTime,
};
use rustls::sign::SigningKey;
use rustls::{CertificateError, DigitallySignedStruct, PeerIncompatible, SignatureScheme};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Protocol name in QUIC's handshake.
pub(crate) const ALPN: &[u8] = b"seco/1";

/// How much longer than a request the connection outlives silence.
const IDLE_MARGIN: Duration = Duration::from_secs(15);

/// Accepts exactly the pinned certificates. Names, dates and issuers are not looked at: the deployment file
/// says which certificate is the gateway's, and stops saying so when it is replaced.
#[derive(Debug)]
pub(crate) struct PinVerifier {
    pins: Vec<CertificatePin>,
    provider: Arc<CryptoProvider>,
    mismatch: AtomicBool,
}

impl PinVerifier {
    pub(crate) fn new(pins: Vec<CertificatePin>) -> Arc<Self> {
        let provider = Arc::new(provider());
        Arc::new(Self { pins, provider, mismatch: AtomicBool::new(false) })
    }

    /// Whether a certificate was turned down since the last call. The transport's own error does not tell it
    /// from other failed handshakes.
    pub(crate) fn take_mismatch(&self) -> bool {
        self.mismatch.swap(false, Ordering::Relaxed)
    }
}

impl ServerCertVerifier for PinVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> std::result::Result<ServerCertVerified, rustls::Error> {
        let shown = CertificatePin::of(end_entity);
        // No early exit: every pin is compared in full.
        if self.pins.iter().fold(false, |found, pin| found | pin.matches(&shown)) {
            Ok(ServerCertVerified::assertion())
        } else {
            self.mismatch.store(true, Ordering::Relaxed);
            Err(CertificateError::ApplicationVerificationFailure.into())
        }
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, rustls::Error> {
        Err(PeerIncompatible::Tls13RequiredForQuic.into())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

const ED25519: &[&dyn SignatureVerificationAlgorithm] = &[webpki::ring::ED25519];

/// Whether a certificate can be read and holds an Ed25519 key.
pub(crate) fn is_ed25519(certificate_der: &[u8]) -> bool {
    // Only a key of another kind is turned down before its signature is looked at.
    let certificate = CertificateDer::from(certificate_der);
    webpki::EndEntityCert::try_from(&certificate).is_ok_and(|certificate| {
        matches!(
            certificate.verify_signature(webpki::ring::ED25519, b"", b""),
            Err(webpki::Error::InvalidSignatureForPublicKey)
        )
    })
}

/// What gateways use and no more: X25519, certificates with Ed25519, the ciphers of TLS 1.3. The other curves and RSA
/// are a sixth of the library's size.
fn provider() -> CryptoProvider {
    CryptoProvider {
        cipher_suites: vec![
            cipher_suite::TLS13_AES_128_GCM_SHA256,
            cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
        ],
        kx_groups: vec![kx_group::X25519],
        signature_verification_algorithms: WebPkiSupportedAlgorithms {
            all: ED25519,
            mapping: &[(SignatureScheme::ED25519, ED25519)],
        },
        secure_random: &Random,
        key_provider: &NoKeys,
    }
}

/// The operating system's generator.
#[derive(Debug)]
struct Random;

impl SecureRandom for Random {
    fn fill(&self, out: &mut [u8]) -> std::result::Result<(), GetRandomFailed> {
        getrandom::fill(out).map_err(|_| GetRandomFailed)
    }
}

/// Devices have no certificate.
#[derive(Debug)]
struct NoKeys;

impl KeyProvider for NoKeys {
    fn load_private_key(
        &self,
        _key: PrivateKeyDer<'static>,
    ) -> std::result::Result<Arc<dyn SigningKey>, rustls::Error> {
        Err(rustls::Error::General("devices have no certificate".into()))
    }
}

/// TLS 1.3 with `verifier`, for the application protocol `alpn`.
pub(crate) fn tls_config(verifier: &Arc<PinVerifier>, alpn: &[u8]) -> Result<ClientConfig> {
    let mut tls = ClientConfig::builder_with_provider(verifier.provider.clone())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(Error::setup)?
        .dangerous()
        .with_custom_certificate_verifier(verifier.clone())
        .with_no_client_auth();
    tls.alpn_protocols = vec![alpn.to_vec()];
    // A ticket would let observers link connections, and would stand in for the pin.
    tls.resumption = Resumption::disabled();
    Ok(tls)
}

/// The same TLS and QUIC as a client's, for `cross/meter` to send plain requests over.
///
/// # Errors
/// Where TLS cannot be set up.
#[doc(hidden)]
pub fn plain_config(pin: CertificatePin, request_timeout: Duration) -> Result<quinn::ClientConfig> {
    quic_config(&PinVerifier::new(vec![pin]), request_timeout)
}

/// QUIC on top of that, with a quiet transport.
pub(crate) fn quic_config(
    verifier: &Arc<PinVerifier>,
    request_timeout: Duration,
) -> Result<quinn::ClientConfig> {
    let tls = tls_config(verifier, ALPN)?;
    let mut config =
        quinn::ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls).map_err(Error::setup)?));
    config.transport_config(Arc::new(transport(request_timeout)));
    Ok(config)
}

fn transport(request_timeout: Duration) -> quinn::TransportConfig {
    let mut transport = quinn::TransportConfig::default();
    transport
        // Pings drain batteries: while a request runs, it sees to them itself.
        .keep_alive_interval(None)
        .max_idle_timeout(Some(idle_timeout(request_timeout)))
        .receive_window(RECEIVE_WINDOW.into())
        .stream_receive_window(RECEIVE_WINDOW.into())
        // Probing for larger packets would send padding, and a request rarely fills two of the 1200 bytes
        // that every path carries.
        .mtu_discovery_config(None)
        // Only the device opens streams.
        .max_concurrent_bidi_streams(0u32.into())
        .max_concurrent_uni_streams(0u32.into())
        .datagram_receive_buffer_size(None);
    transport
}

fn idle_timeout(request_timeout: Duration) -> quinn::IdleTimeout {
    let wanted = request_timeout.saturating_add(IDLE_MARGIN).as_millis();
    quinn::VarInt::from_u32(u32::try_from(wanted).unwrap_or(u32::MAX)).into()
}
