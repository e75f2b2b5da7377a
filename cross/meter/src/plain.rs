//! A plain client: a request of as many bytes as a private one, and an answer of as many, over the same QUIC
//! with the same settings (`sdk/src/tls.rs`), and nothing else. It has no session, masks nothing and copies
//! nothing that it need not.
//!
//! The gateway answers its requests as cost probes. What a server that sees the input would do with it is
//! nothing that a device could notice.

use crate::phase::{HeapWatch, Phases, Traffic, print_peak_memory};
use crate::{Error, Result, arguments, input, number};
use quinn::crypto::rustls::QuicClientConfig;
use quinn::{Connection, Endpoint, VarInt};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{ClientConfig, Resumption};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, DigitallySignedStruct, SignatureScheme};
use sha2::{Digest, Sha256};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

/// What to do.
pub struct Options {
    /// The gateway.
    pub address: SocketAddr,
    /// Its name in the handshake.
    pub name: String,
    /// SHA-256 of its certificate.
    pub pin: [u8; 32],
    /// Bytes of a request's payload.
    pub up: usize,
    /// Bytes of an answer's payload.
    pub down: u16,
    /// How many requests.
    pub requests: usize,
    /// How long each phase lasts beyond its work.
    pub quiet: Duration,
}

impl Options {
    /// From the program's arguments after the first `skip`.
    ///
    /// # Errors
    /// With the usage, or the argument that is wrong.
    pub fn from_arguments(skip: usize) -> Result<Self> {
        let [address, name, pin, up, down, requests, quiet_ms] =
            arguments(skip, ["ADDRESS", "NAME", "PIN", "UP", "DOWN", "REQUESTS", "QUIET_MS"])?;
        Ok(Self {
            address: address.parse().map_err(|e| Error::new(&address, e))?,
            name,
            pin: hash(&pin)?,
            up: number(&up)?,
            down: down.parse().map_err(|e| Error::new(&down, e))?,
            requests: number(&requests)?,
            quiet: Duration::from_millis(number(&quiet_ms)? as u64),
        })
    }
}

/// 64 hexadecimal digits.
fn hash(text: &str) -> Result<[u8; 32]> {
    let digits = |i| text.get(2 * i..2 * i + 2).and_then(|digits| u8::from_str_radix(digits, 16).ok());
    let bytes: Option<Vec<u8>> = (0..text.len().div_ceil(2)).map(digits).collect();
    bytes.and_then(|bytes| bytes.try_into().ok()).ok_or_else(|| Error::new(text, "is no SHA-256"))
}

/// Connects and sends requests: the phases `connect` and `request`.
///
/// # Errors
/// Whatever goes wrong.
pub fn run(options: &Options, heap: HeapWatch) -> Result<()> {
    let phases = Phases::new(options.quiet, heap)?;
    let payload = input(options.up);
    let (endpoint, connection) =
        phases.run("connect", connect(options), |(_, connection)| traffic(connection))?;
    for _ in 0..options.requests {
        phases.run("request", request(&connection, &payload, options.down), |()| traffic(&connection))?;
    }
    print_peak_memory()?;
    endpoint.close(VarInt::from_u32(0), b"");
    Ok(())
}

async fn connect(options: &Options) -> Result<(Endpoint, Connection)> {
    let mut endpoint = Endpoint::client(SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)))
        .map_err(|e| Error::new("opening a socket", e))?;
    endpoint.set_default_client_config(config(options.pin)?);
    let connecting =
        endpoint.connect(options.address, &options.name).map_err(|e| Error::new("connecting", e))?;
    let connection = connecting.await.map_err(|e| Error::new("connecting", e))?;
    Ok((endpoint, connection))
}

async fn request(connection: &Connection, payload: &[u8], down: u16) -> Result<()> {
    let failed = |e: &dyn std::fmt::Display| Error::new("a plain request", e);
    let (mut send, mut receive) = connection.open_bi().await.map_err(|e| failed(&e))?;
    send.write_all(&head(payload.len(), down)).await.map_err(|e| failed(&e))?;
    send.write_all(payload).await.map_err(|e| failed(&e))?;
    send.finish().map_err(|e| failed(&e))?;
    let answer = receive.read_to_end(usize::from(down) + 16).await.map_err(|e| failed(&e))?;
    if is_answer(&answer, down) { Ok(()) } else { Err(failed(&"the gateway answered something else")) }
}

/// What precedes the payload of a probe: length, version 1, tag 2, length of the answer, length of the bytes.
fn head(payload: usize, down: u16) -> Vec<u8> {
    let mut message = vec![1, 2];
    varint(usize::from(down), &mut message);
    varint(payload, &mut message);
    let mut frame = Vec::with_capacity(4 + message.len());
    varint(message.len() + payload, &mut frame);
    frame.extend_from_slice(&message);
    frame
}

/// Length, version 1, tag 6, length of the bytes, bytes.
fn is_answer(frame: &[u8], down: u16) -> bool {
    let down = usize::from(down);
    let (mut message, mut head) = (vec![1, 6], Vec::new());
    varint(down, &mut message);
    varint(message.len() + down, &mut head);
    head.extend_from_slice(&message);
    frame.starts_with(&head) && frame.len() == head.len() + down
}

/// Groups of seven bits, the lowest first.
fn varint(mut number: usize, out: &mut Vec<u8>) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

fn traffic(connection: &Connection) -> Traffic {
    let stats = connection.stats();
    Traffic {
        up: stats.udp_tx.bytes,
        down: stats.udp_rx.bytes,
        packets_up: stats.udp_tx.datagrams,
        packets_down: stats.udp_rx.datagrams,
    }
}

fn config(pin: [u8; 32]) -> Result<quinn::ClientConfig> {
    let failed = |e: &dyn std::fmt::Display| Error::new("TLS", e);
    let provider = Arc::new(ring::default_provider());
    let mut tls = ClientConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|e| failed(&e))?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Pinned { pin, provider }))
        .with_no_client_auth();
    tls.alpn_protocols = vec![b"seco/1".to_vec()];
    tls.resumption = Resumption::disabled();
    let mut config =
        quinn::ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls).map_err(|e| failed(&e))?));
    let mut transport = quinn::TransportConfig::default();
    transport
        .keep_alive_interval(None)
        .max_idle_timeout(Some(VarInt::from_u32(75_000).into()))
        .mtu_discovery_config(None)
        .max_concurrent_bidi_streams(0u32.into())
        .max_concurrent_uni_streams(0u32.into())
        .datagram_receive_buffer_size(None);
    config.transport_config(Arc::new(transport));
    Ok(config)
}

/// Accepts one certificate.
#[derive(Debug)]
struct Pinned {
    pin: [u8; 32],
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> std::result::Result<ServerCertVerified, rustls::Error> {
        let shown: [u8; 32] = Sha256::digest(end_entity).into();
        if shown == self.pin {
            Ok(ServerCertVerified::assertion())
        } else {
            Err(CertificateError::ApplicationVerificationFailure.into())
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
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

#[cfg(test)]
mod tests {
    use super::*;
    use seco_core::{Request, Response};

    /// Byte for byte what the core writes and the gateway reads.
    #[test]
    fn a_plain_request_is_a_probe() {
        for (up, down) in [(0, 0), (1, 127), (784, 23), (3072, 128), (150_528, 65_535)] {
            let payload = input(up);
            let probe = Request::Probe { down, noise: &payload };
            let mut buffer = vec![0; probe.frame_bound()];
            let mut plain = head(up, down);
            plain.extend_from_slice(&payload);
            assert_eq!(plain, probe.encode_frame(&mut buffer).unwrap());

            let noise = input(down.into());
            let answer = Response::Probe { noise: &noise };
            let mut buffer = vec![0; answer.frame_bound()];
            let answer = answer.encode_frame(&mut buffer).unwrap();
            assert!(is_answer(answer, down));
            assert!(!is_answer(&answer[1..], down) && !is_answer(answer, down ^ 1));
        }
        let refused = Response::Refused { reason: seco_core::Refusal::Malformed };
        let mut buffer = vec![0; refused.frame_bound()];
        assert!(!is_answer(refused.encode_frame(&mut buffer).unwrap(), 23));
    }

    #[test]
    fn pins_are_64_hexadecimal_digits() {
        assert_eq!(hash(&"0f".repeat(32)).unwrap(), [15; 32]);
        for wrong in ["", "0f", &"0g".repeat(32), &"0f".repeat(33), &"0".repeat(63), "é"] {
            assert!(hash(wrong).is_err(), "{wrong}");
        }
    }
}
