//! Many requests at a time, requests given up, and what requests cost.

use crate::common::{
    Action, FakeGateway, certificate, deployment, image, impatient, reference, resolver, tls,
};
use quinn::Endpoint;
use seco_core::{Response, ServerOpeningKey};
use seco_sdk::{CertificatePin, Cost, Error, Refusal, Transport};
use std::time::{Duration, Instant};

async fn many_results_come_in_order(via: Transport) {
    let gateway = FakeGateway::start(via);
    let client = gateway.impatient().connect().await.unwrap();
    assert!(client.infer_many::<Vec<u8>>(&[]).await.is_empty());
    // Early ones are answered late.
    gateway.answer([Action::Queue(10), Action::Logits, Action::Queue(3)]);
    let inputs: Vec<_> = (0..50u8).map(|i| vec![i; 784]).collect();
    let results = client.infer_many(&inputs).await;
    assert_eq!(results.len(), 50);
    for (input, result) in inputs.iter().zip(results) {
        assert_eq!(result.unwrap().logits, reference(input));
    }
    let mut counters: Vec<_> = gateway.shared.seen.lock().unwrap().iter().map(|(_, c)| *c).collect();
    counters.sort_unstable();
    assert_eq!(counters, (0..50).collect::<Vec<_>>());
}

async fn every_request_of_many_fails_alone(via: Transport) {
    let gateway = FakeGateway::start(via);
    let client = gateway.impatient().connect().await.unwrap();
    gateway.answer([
        Action::Logits,
        Action::Hang,
        Action::Send(Response::Busy { retry_after_ms: 7000 }),
        Action::Send(Response::Refused { reason: Refusal::TimedOut }),
        Action::Reset,
    ]);
    let mut inputs = vec![image(); 6];
    inputs.push(vec![0; 3]);
    inputs.extend(vec![image(); 13]);
    let results = client.infer_many(&inputs).await;
    assert!(matches!(results[6], Err(Error::WrongInputSize { .. })), "{:?}", results[6]);
    // The gateway may meet streams in another order than they were opened in.
    let errors: Vec<_> = results.iter().filter_map(|result| result.as_ref().err()).collect();
    assert_eq!((results.len(), errors.len()), (20, 5), "{errors:?}");
    let has = |found: fn(&Error) -> bool| errors.iter().any(|error| found(error));
    assert!(has(|error| matches!(error, Error::Timeout { .. })), "{errors:?}");
    assert!(has(|error| matches!(error, Error::Busy { .. })), "{errors:?}");
    assert!(has(|error| matches!(error, Error::Refused(Refusal::TimedOut))), "{errors:?}");
    assert!(has(|error| matches!(error, Error::Protocol(_))), "{errors:?}");
    for result in results.into_iter().flatten() {
        assert_eq!(result.logits, reference(&image()));
    }
}

async fn no_more_than_a_window_is_under_way(via: Transport) {
    let gateway = FakeGateway::start(via);
    let client = gateway.impatient().connect().await.unwrap();
    gateway.answer(vec![Action::Hang; 100]);
    let inputs = vec![image(); 100];
    let settled = async {
        wait_for(|| gateway.shared.seen.lock().unwrap().len() >= 8).await;
        // Time for a ninth, if there were one.
        tokio::time::sleep(Duration::from_millis(100)).await;
    };
    tokio::select! {
        results = client.infer_many(&inputs) => panic!("{results:?}"),
        () = settled => {}
    }
    assert_eq!(gateway.shared.seen.lock().unwrap().len(), 8);
    wait_for(|| gateway.shared.cancelled.lock().unwrap().len() == 8).await;
}

async fn wait_for(condition: impl Fn() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < Duration::from_secs(5), "waited too long");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// The gateway learns at once that nobody waits, and the next call works, under a number of its own.
async fn dropping_a_request_cancels_it(via: Transport) {
    let gateway = FakeGateway::start(via);
    let client = gateway.impatient().connect().await.unwrap();
    for round in 0..3 {
        gateway.answer([Action::Hang]);
        let arrived = wait_for(|| gateway.shared.seen.lock().unwrap().len() == 2 * round + 1);
        let input = image();
        tokio::select! {
            result = client.infer(&input) => panic!("{result:?}"),
            () = arrived => {}
        }
        wait_for(|| gateway.shared.cancelled.lock().unwrap().len() == round + 1).await;
        assert_eq!(client.infer(&image()).await.unwrap().logits, reference(&image()));
    }
    assert_eq!(*gateway.shared.cancelled.lock().unwrap(), [Some(0); 3], "told by the client");
    let counters: Vec<_> = gateway.shared.seen.lock().unwrap().iter().map(|(_, c)| *c).collect();
    assert_eq!(counters, [0, 1, 2, 3, 4, 5]);
}

/// A request that is given up while it is being sent must not look like a shorter one that is complete.
#[tokio::test]
async fn a_half_sent_request_is_reset() {
    let own = certificate();
    let config = tls(b"seco/1", resolver(&own, &own));
    let endpoint = Endpoint::server(config, "127.0.0.1:0".parse().unwrap()).unwrap();
    let servers = [1, 2].map(|seed| ServerOpeningKey::from_seed([seed; 32]));
    let pin = CertificatePin::of(&own.der);
    let mut deployment = deployment(endpoint.local_addr().unwrap(), pin, &servers);
    // More than the gateway's end takes without reading.
    deployment.model.input_shape = vec![8 << 20];
    let gateway = tokio::spawn(async move {
        let connection = endpoint.accept().await.unwrap().await.unwrap();
        let (mut send, mut opening) = connection.accept_bi().await.unwrap();
        opening.read_to_end(10_000).await.unwrap();
        let mut buffer = [0; 100];
        let opened = Response::Opened { handle: 0 };
        send.write_all(opened.encode_frame(&mut buffer).unwrap()).await.unwrap();
        send.finish().unwrap();
        let (_send, mut unread) = connection.accept_bi().await.unwrap();
        unread.received_reset().await.unwrap().map(|code| code.into_inner())
    });
    let client = impatient(&deployment).connect().await.unwrap();
    let input = vec![0; 8 << 20];
    let abandoned = tokio::time::timeout(Duration::from_millis(500), client.infer(&input)).await;
    assert!(abandoned.is_err());
    assert_eq!(gateway.await.unwrap(), Some(0));
}

async fn costs_add_up(via: Transport) {
    let gateway = FakeGateway::start(via);
    let client = gateway.impatient().connect().await.unwrap();
    let connected = client.total_cost();
    assert_eq!(client.last_cost(), Cost::default());
    assert!(connected.bytes_up > 3 * 1168 + 300, "{connected:?}");
    // Over TCP the operating system makes packets, and does not say how many.
    let datagrams = if via == Transport::Quic { 1 } else { 0 };
    assert_eq!(connected.datagrams_up.min(1), datagrams, "{connected:?}");
    assert!(connected.cpu.unwrap() > Duration::ZERO);
    assert!(connected.wall > Duration::ZERO);

    // What the gateway sends after the handshake, probes for larger packets among it, is no request's.
    tokio::time::sleep(Duration::from_millis(200)).await;
    let connected = client.total_cost();
    gateway.answer([Action::Queue(5)]);
    client.infer(&image()).await.unwrap();
    let (last, total) = (client.last_cost(), client.total_cost());
    println!("{last:?}");
    assert!((784..1500).contains(&last.bytes_up) && (28..1500).contains(&last.bytes_down), "{last:?}");
    assert_eq!((last.datagrams_up.min(1), last.datagrams_down.min(1)), (datagrams, datagrams), "{last:?}");
    assert!(last.cpu.unwrap() > Duration::ZERO && last.cpu.unwrap() < last.wall, "{last:?}");
    assert_eq!(total.cpu.unwrap(), connected.cpu.unwrap() + last.cpu.unwrap());
    assert!(last.wall >= Duration::from_millis(80), "{last:?}");
    assert_eq!(total.wall, connected.wall + last.wall);
    assert!(total.bytes_up >= connected.bytes_up + last.bytes_up, "{total:?}");
    assert_eq!(client.udp_bytes().up, client.total_cost().bytes_up);

    gateway.answer([Action::Hang]);
    client.infer(&image()).await.unwrap_err();
    assert!(client.last_cost().wall >= Duration::from_secs(1), "failures cost too");

    // A refused input touches no network and is no request.
    let before = client.last_cost();
    client.infer(&[]).await.unwrap_err();
    assert_eq!(client.last_cost(), before);
    // Over a lost connection the sum goes on.
    let total = client.total_cost();
    gateway.answer(vec![Action::Close; 2]);
    client.infer(&image()).await.unwrap();
    assert!(client.total_cost().bytes_up > total.bytes_up + 3 * 784 + 2 * 300);
}

over_both!(
    many_results_come_in_order,
    every_request_of_many_fails_alone,
    no_more_than_a_window_is_under_way,
    dropping_a_request_cancels_it,
    costs_add_up,
);
