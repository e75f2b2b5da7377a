//! The gateway's TCP side: a real cluster, devices that follow the rules and devices that do not.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::common::{LIMIT, Site, digits, rng};
use seco_core::mux::{ALPN, MAX_OPEN, decode_record, encode_id};
use seco_core::{EXPORTER_LABEL, EXPORTER_LEN, Request, Response};
use seco_sdk::{Client, Transport, TransportKind};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;
use tokio_rustls::client::TlsStream;

/// A device that writes what it likes.
struct Raw {
    stream: TlsStream<TcpStream>,
    received: Vec<u8>,
    limit: usize,
}

impl Raw {
    async fn connect(site: &Site, address: SocketAddr, alpn: &[&[u8]]) -> Raw {
        let stream = TcpStream::connect(address).await.unwrap();
        let connector = tokio_rustls::TlsConnector::from(Arc::new(site.tls(alpn)));
        let stream = connector.connect("seco".try_into().unwrap(), stream).await.unwrap();
        Raw { stream, received: Vec::new(), limit: site.info().response_limit() }
    }

    /// A gateway that has hung up already is fine.
    async fn write(&mut self, bytes: &[u8]) {
        let _ = self.stream.write_all(bytes).await;
        let _ = self.stream.flush().await;
    }

    async fn ask(&mut self, id: u32, request: &Request<'_>) {
        self.write(&record(id, &frame(request))).await;
    }

    /// The next record: id and message; `None` once the gateway has hung up.
    async fn next(&mut self) -> Option<(u32, Vec<u8>)> {
        loop {
            if let Some(record) = decode_record(&self.received, self.limit).unwrap()
                && let Some(message) = record.message(&self.received)
            {
                let message = message.to_vec();
                self.received.drain(..record.len());
                return Some((record.id, message));
            }
            let read = timeout(LIMIT, self.stream.read_buf(&mut self.received)).await.unwrap();
            if !matches!(read, Ok(1..)) {
                return None;
            }
        }
    }

    /// Opens a session under id 1; gives its handle.
    async fn open(&mut self, site: &Site, seed: u8) -> u32 {
        let (session, keys) = (site.session(seed), site.sealing_keys());
        let mut buffer = vec![0; keys.len() * seco_core::SEALED_LEN];
        let mut exporter = [0; EXPORTER_LEN];
        self.stream.get_ref().1.export_keying_material(&mut exporter, EXPORTER_LABEL, None).unwrap();
        let requester = session.start(&exporter, &mut rng(200));
        let request = session.open_message(&requester, &keys, &mut rng(201), &mut buffer).unwrap();
        self.ask(1, &request).await;
        let (id, message) = self.next().await.unwrap();
        let Response::Opened { handle } = Response::decode(&message).unwrap() else { panic!() };
        assert_eq!(id, 1);
        handle
    }
}

fn frame(request: &Request<'_>) -> Vec<u8> {
    let mut buffer = vec![0; request.frame_bound()];
    request.encode_frame(&mut buffer).unwrap().to_vec()
}

fn record(id: u32, frame: &[u8]) -> Vec<u8> {
    let mut bytes = [0; 4];
    let len = encode_id(id, &mut bytes).unwrap();
    [&bytes[..len], frame].concat()
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_over_tcp_equal_the_plaintext_network() {
    let mut site = Site::new(2);
    let (mut servers, address) = site.start_all();
    servers[0].wait_ready();
    let deployment = site.deployment(address);
    let digits = digits();
    for via in [Transport::Tcp, Transport::Auto] {
        let client = Client::builder(deployment.clone()).transport(via).connect().await.unwrap();
        let kind = if via == Transport::Tcp { TransportKind::Tcp } else { TransportKind::Quic };
        assert_eq!(client.transport(), kind);
        let results = client.infer_many(&digits[..4]).await;
        for (digit, result) in digits.iter().zip(results) {
            assert_eq!(result.unwrap().logits, site.expected(digit));
        }
        client.probe(784, 28).await.unwrap();
        // A wait for a bundle is told, and survives giving up.
        let abandoned = timeout(Duration::from_millis(1), client.infer(&digits[5])).await;
        drop(abandoned);
        assert_eq!(client.infer(&digits[6]).await.unwrap().logits, site.expected(&digits[6]));
        client.close().await;
    }

    let client = Client::builder(deployment).transport(Transport::Tcp).connect().await.unwrap();
    client.infer(&digits[0]).await.unwrap();
    assert!(client.total_cost().datagrams_up == 0 && client.total_cost().bytes_up > 2000);
}

/// UDP at the gateway's address is swallowed; TCP goes through.
#[tokio::test(flavor = "multi_thread")]
async fn a_network_that_blocks_udp() {
    let mut site = Site::new(2);
    let (mut servers, address) = site.start_all();
    servers[0].wait_ready();
    let (swallowing, listener) = loop {
        let udp = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        if let Ok(tcp) = tokio::net::TcpListener::bind(udp.local_addr().unwrap()).await {
            break (udp, tcp);
        }
    };
    let deployment = site.deployment(swallowing.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((mut device, _)) = listener.accept().await {
            let mut gateway = TcpStream::connect(address).await.unwrap();
            tokio::spawn(async move { tokio::io::copy_bidirectional(&mut device, &mut gateway).await });
        }
    });
    let client = Client::connect(deployment).await.unwrap();
    assert_eq!(client.transport(), TransportKind::Tcp);
    let digit = &digits()[3];
    assert_eq!(client.infer(digit).await.unwrap().logits, site.expected(digit));
}

#[tokio::test(flavor = "multi_thread")]
async fn rules_are_kept() {
    let mut site = Site::new(2);
    let (mut servers, address) = site.start_all();
    servers[0].wait_ready();
    let probe = Request::Probe { down: 3, noise: &[7; 10] };
    let answer = frame(&probe);

    // Many at a time, byte by byte, pings among them; ids may be left out.
    let mut device = Raw::connect(&site, address, &[ALPN]).await;
    let handle = device.open(&site, 1).await;
    for byte in [record(5, &answer), record(0, &[0]), record(300, &answer)].concat() {
        device.write(&[byte]).await;
    }
    let mut ids = Vec::new();
    for _ in 0..3 {
        ids.push(device.next().await.unwrap().0);
    }
    ids.sort_unstable();
    assert_eq!(ids, [0, 5, 300]);
    // A message that cannot be read ends its request alone, and so does another version's.
    for (id, bytes) in [(301, &[2, 1, 200]), (302, &[2, 9, 0])] {
        device.write(&record(id, bytes)).await;
        let (same, message) = device.next().await.unwrap();
        assert_eq!(same, id);
        assert!(matches!(Response::decode(&message).unwrap(), Response::Refused { .. }));
    }
    // Giving up what has ended is no mistake. What waits in the queue is ended without an answer, or has
    // been answered by then; each exactly once.
    device.write(&record(300, &[0])).await;
    let input = &digits()[0];
    let requests: Vec<u32> = (400..400 + MAX_OPEN as u32).collect();
    for id in &requests {
        device.ask(*id, &Request::Infer { handle, counter: (*id).into(), input }).await;
    }
    for id in &requests {
        device.write(&record(*id, &[0])).await;
    }
    let mut ended = Vec::new();
    while ended.len() < requests.len() {
        let (id, message) = device.next().await.unwrap();
        if !matches!(Response::decode(&message), Ok(Response::Queued { .. })) {
            ended.push(id);
        }
    }
    ended.sort_unstable();
    assert_eq!(ended, requests);
    // And now there is room again.
    device.ask(1000, &probe).await;
    assert_eq!(device.next().await.unwrap().0, 1000);

    // Whoever breaks the rules loses the connection, and nobody else does.
    let too_long = record(1, &[0xff, 0xff, 0xff, 0x7f]);
    let noise: Vec<u8> = (0..5000u32).map(|i| ((i * i * 31) >> 3) as u8).collect();
    for (name, bytes) in [
        ("an id again", [record(2, &answer), record(2, &answer)].concat()),
        ("an earlier id", [record(2, &answer), record(1, &answer)].concat()),
        ("giving up what never was", record(9, &[0])),
        ("a message under id 0", record(0, &answer)),
        ("too long", too_long),
        ("a bad id", vec![0x80, 0x80, 0x80, 0x80]),
        ("noise", noise),
    ] {
        let mut bad = Raw::connect(&site, address, &[ALPN]).await;
        bad.write(&bytes).await;
        let hung_up = async { while bad.next().await.is_some() {} };
        assert!(timeout(Duration::from_secs(10), hung_up).await.is_ok(), "{name}");
    }
    // More requests at a time than are allowed: bundles are not made that fast.
    let mut greedy = Raw::connect(&site, address, &[ALPN]).await;
    let handle = greedy.open(&site, 2).await;
    let infer = |id: u32| record(id, &frame(&Request::Infer { handle, counter: id.into(), input }));
    greedy.write(&(2..60).flat_map(infer).collect::<Vec<u8>>()).await;
    while let Some((id, _)) = greedy.next().await {
        assert!(id < 50, "served beyond the limit");
    }
    // Without a protocol name, or in mid-record: nothing is served, nothing breaks.
    let mut nameless = Raw::connect(&site, address, &[]).await;
    nameless.write(&record(1, &answer)).await;
    assert!(nameless.next().await.is_none());
    let mut half = Raw::connect(&site, address, &[ALPN]).await;
    half.write(&record(1, &answer)[..5]).await;
    drop(half);
    let _half_open = TcpStream::connect(address).await.unwrap();
    device.ask(1001, &probe).await;
    assert_eq!(device.next().await.unwrap().0, 1001);
    assert!(servers[0].process.try_wait().unwrap().is_none());
    assert!(!servers[0].stderr().contains("panicked"));
}

/// `device_tcp = false`: UDP alone.
#[tokio::test(flavor = "multi_thread")]
async fn tcp_can_be_turned_off() {
    let mut site = Site::new(2);
    site.tcp = false;
    let (mut servers, address) = site.start_all();
    servers[0].wait_ready();
    assert!(TcpStream::connect(address).await.is_err());
    let client = Client::connect(site.deployment(address)).await.unwrap();
    assert_eq!(client.transport(), TransportKind::Quic);
}
