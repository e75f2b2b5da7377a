//! A plain client: a request of as many bytes as a private one, and an answer of as many, over the same QUIC
//! with the SDK's own settings, and nothing else. It has no session, masks nothing and copies
//! nothing that it need not.
//!
//! The gateway answers its requests as cost probes. What a server that sees the input would do with it is
//! nothing that a device could notice.

use crate::phase::{HeapWatch, Phases, Traffic, print_peak_memory};
use crate::{Error, Result, arguments, input, number};
use quinn::{Connection, Endpoint, VarInt};
use seco_sdk::CertificatePin;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

/// What to do.
pub struct Options {
    /// The gateway.
    pub address: SocketAddr,
    /// Its name in the handshake.
    pub name: String,
    /// Of its certificate.
    pub pin: CertificatePin,
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
            pin: CertificatePin::try_from(pin).map_err(|e| Error::new("PIN", e))?,
            up: number(&up)?,
            down: down.parse().map_err(|e| Error::new(&down, e))?,
            requests: number(&requests)?,
            quiet: Duration::from_millis(number(&quiet_ms)? as u64),
        })
    }
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
    let config = seco_sdk::plain_config(options.pin, Duration::from_secs(60));
    endpoint.set_default_client_config(config.map_err(|e| Error::new("TLS", e))?);
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
    let mut message = vec![2, 2];
    varint(usize::from(down), &mut message);
    varint(payload, &mut message);
    let mut frame = Vec::with_capacity(4 + message.len());
    varint(message.len() + payload, &mut frame);
    frame.extend_from_slice(&message);
    frame
}

/// Length, version 2, tag 6, length of the bytes, bytes.
fn is_answer(frame: &[u8], down: u16) -> bool {
    let down = usize::from(down);
    let (mut message, mut head) = (vec![2, 6], Vec::new());
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
}
