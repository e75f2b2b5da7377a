//! Which transport is used, what keeps a connection alive, and what a request survives.

use crate::common::network::Network;
use crate::common::{Action, FakeGateway, image, reference};
use seco_sdk::{CertificatePin, Client, Cost, Error, Progress, Transport, TransportKind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

async fn check(client: &Client) {
    assert_eq!(client.infer(&image()).await.unwrap().logits, reference(&image()));
}

/// A gateway, and the network before it.
async fn behind_a_network() -> (FakeGateway, Arc<Network>) {
    let mut gateway = FakeGateway::start(Transport::Auto);
    let quic = gateway.address();
    let network = Network::before(&mut gateway, quic).await;
    (gateway, network)
}

async fn arrived(gateway: &FakeGateway) {
    while gateway.shared.seen.lock().unwrap().is_empty() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn no_pad_twice(gateway: &FakeGateway) {
    gateway.shared.audit(&[image()]).unwrap();
}

#[tokio::test]
async fn quic_is_preferred_and_tcp_serves_where_udp_is_blocked() {
    let (gateway, network) = behind_a_network().await;
    let builder = || gateway.client().fallback_delay(Duration::from_millis(300));
    let client = builder().connect().await.unwrap();
    assert_eq!(client.transport(), TransportKind::Quic);
    check(&client).await;
    client.close().await;

    network.blocks_udp.store(true, Ordering::Relaxed);
    let start = Instant::now();
    let client = builder().connect().await.unwrap();
    assert_eq!(client.transport(), TransportKind::Tcp);
    assert!(start.elapsed() >= Duration::from_millis(300), "QUIC comes first");
    check(&client).await;

    // Remembered: QUIC is not asked again, and nothing is waited for. The handshake that lost the race is
    // given up.
    tokio::time::sleep(Duration::from_millis(300)).await;
    let packets = network.packets.load(Ordering::Relaxed);
    gateway.answer([Action::Close]);
    check(&client).await;
    assert_eq!(client.transport(), TransportKind::Tcp);
    assert_eq!(network.packets.load(Ordering::Relaxed), packets);

    // Another network, which does not block it.
    network.blocks_udp.store(false, Ordering::Relaxed);
    client.network_changed().unwrap();
    check(&client).await;
    assert_eq!(client.transport(), TransportKind::Quic);
    no_pad_twice(&gateway);
    assert_eq!(gateway.shared.names.lock().unwrap().len(), 2, "each client kept its session");
}

#[tokio::test]
async fn a_path_that_dies_in_mid_request_is_replaced() {
    let (gateway, network) = behind_a_network().await;
    let client = gateway.client().connect().await.unwrap();
    gateway.answer([Action::Hang]);
    let input = image();
    let blocked = async {
        arrived(&gateway).await;
        network.blocks_udp.store(true, Ordering::Relaxed);
    };
    let (result, ()) = tokio::join!(client.infer(&input), blocked);
    assert_eq!(result.unwrap().logits, reference(&input));
    assert_eq!(client.transport(), TransportKind::Tcp);
    assert_eq!(*gateway.shared.seen.lock().unwrap(), [(0, 0), (1, 0)]);
    // QUIC had served here, so that TCP came first by chance.
    network.blocks_udp.store(false, Ordering::Relaxed);
    gateway.answer([Action::Close]);
    check(&client).await;
    assert_eq!(client.transport(), TransportKind::Quic);
}

#[tokio::test]
async fn tcp_requests_under_way_survive_a_change_of_network() {
    let gateway = FakeGateway::start(Transport::Tcp);
    let client = gateway.client().connect().await.unwrap();
    gateway.answer([Action::Hang]);
    let input = image();
    let moved = async {
        arrived(&gateway).await;
        client.network_changed().unwrap();
    };
    let (result, ()) = tokio::join!(client.infer(&input), moved);
    assert_eq!(result.unwrap().logits, reference(&input));
    assert_eq!(*gateway.shared.seen.lock().unwrap(), [(0, 0), (1, 0)]);
}

/// Somebody in between who answers on one transport, and lets the other one through.
#[tokio::test]
async fn a_wrong_certificate_on_one_transport_is_not_masked_by_the_other() {
    // TCP has the wrong certificate, QUIC is silent.
    let (mut gateway, network) = behind_a_network().await;
    network.blocks_udp.store(true, Ordering::Relaxed);
    gateway.deployment.gateway.pins = vec![CertificatePin::of(b"another")];
    let start = Instant::now();
    let error = gateway.client().fallback_delay(Duration::from_millis(50)).connect().await.unwrap_err();
    assert!(matches!(error, Error::PinMismatch { .. }), "{error}");
    assert!(start.elapsed() < Duration::from_secs(5), "final at once");
    // QUIC has the wrong one, and TCP the right one.
    let (mut gateway, other) = (FakeGateway::start(Transport::Auto), FakeGateway::start(Transport::Auto));
    Network::before(&mut gateway, other.address()).await;
    let error = gateway.client().connect().await.unwrap_err();
    assert!(matches!(error, Error::PinMismatch { .. }), "{error}");
    gateway.client().transport(Transport::Tcp).connect().await.unwrap();
}

async fn silence_while_idle_and_signs_of_life_in_a_request(via: Transport) {
    let gateway = FakeGateway::start(via);
    let client = gateway.client().connect().await.unwrap();
    check(&client).await;
    let traffic = |cost: Cost| (cost.bytes_up, cost.bytes_down, cost.datagrams_up);
    tokio::time::sleep(Duration::from_millis(500)).await;
    let before = traffic(client.total_cost());
    tokio::time::sleep(Duration::from_secs(4)).await;
    assert_eq!(traffic(client.total_cost()), before, "an idle connection is silent");

    gateway.answer([Action::Hang]);
    let input = image();
    let mut sent = None;
    let waiting = async {
        tokio::time::sleep(Duration::from_millis(500)).await;
        sent = Some(client.total_cost());
        tokio::time::sleep(Duration::from_millis(4500)).await;
    };
    tokio::select! {
        result = client.infer(&input) => panic!("{result:?}"),
        () = waiting => {}
    }
    let alive = client.total_cost() - sent.unwrap();
    println!("5 s of waiting: {alive:?}");
    assert!((40..400).contains(&alive.bytes_up) && (40..400).contains(&alive.bytes_down), "{alive:?}");
    if via == Transport::Quic {
        assert!((2..9).contains(&alive.datagrams_up), "{alive:?}");
    }
    check(&client).await;
}

async fn progress_is_told(via: Transport) {
    let gateway = FakeGateway::start(via);
    let client = gateway.client().keep_sent(true).connect().await.unwrap();
    assert_eq!(client.last_sent(), None);
    assert_eq!((client.model().input_len, client.model().values), (784, 10));
    gateway.answer([Action::Queue(3)]);
    let mut told = Vec::new();
    client.infer_with(&image(), |progress| told.push(progress)).await.unwrap();
    let wait = Duration::from_millis(20);
    let queued = |position| Progress::Queued { position, wait };
    assert_eq!(told, [Progress::Sent, queued(2), queued(1), Progress::Running]);
    assert_eq!(client.last_sent().as_ref(), gateway.shared.inputs.lock().unwrap().last());
    told.clear();
    gateway.answer([Action::Close]);
    client.infer_with(&image(), |progress| told.push(progress)).await.unwrap();
    let again = [Progress::Sent, Progress::Waiting { server: 0 }, Progress::Sent];
    assert!(told == again || told == again[1..], "{told:?}");
    assert_eq!(client.last_sent().as_ref(), gateway.shared.inputs.lock().unwrap().last());
}

/// Neither a slow way nor one that loses packets is taken for a gateway that is gone.
async fn a_slow_network_is_waited_for(via: Transport) {
    let mut gateway = FakeGateway::start(via);
    let quic = gateway.address();
    let network = Network::before(&mut gateway, quic).await;
    network.delay(Duration::from_millis(150));
    network.lose(100);
    let client = gateway.client().connect().await.unwrap();
    gateway.answer([Action::Hang]);
    let input = image();
    let waiting = tokio::time::timeout(Duration::from_secs(7), client.infer(&input)).await;
    assert!(waiting.is_err(), "{waiting:?}");
    check(&client).await;
    assert_eq!(gateway.shared.incarnations(), 1, "one connection all the time");
}

over_both!(a_slow_network_is_waited_for, silence_while_idle_and_signs_of_life_in_a_request, progress_is_told);
