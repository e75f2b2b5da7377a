//! A gateway that misbehaves, or is not the gateway at all: errors say so, nothing panics, nothing hangs.

use crate::common::{Action, FakeGateway, certificate, host, image, reference, resolver};
use seco_core::Error as Core;
use seco_core::{Refusal, Response};
use seco_sdk::{CertificatePin, Client, Error, Loss, Transport, Violation};
use std::time::{Duration, Instant};

async fn failure(gateway: &FakeGateway) -> Error {
    gateway.client().connect().await.expect_err("connecting fails")
}

/// What an inference says when the gateway does `action`.
async fn answered(via: Transport, action: Action) -> Error {
    let gateway = FakeGateway::start(via);
    let client = gateway.impatient().connect().await.unwrap();
    gateway.answer([action]);
    let error = client.infer(&image()).await.unwrap_err();
    assert!(!error.to_string().contains(['\n', '\r']), "one line: {error}");
    assert!(!error.to_string().contains("text of a peer"), "{error}");
    // Whatever happened to one request, the next one works.
    assert_eq!(client.infer(&image()).await.unwrap().logits, reference(&image()));
    error
}

async fn a_certificate_that_is_not_pinned(via: Transport) {
    let mut gateway = FakeGateway::start(via);
    gateway.deployment.gateway.pins =
        vec![CertificatePin::of(b"another"), CertificatePin::of(b"certificate")];
    let error = failure(&gateway).await;
    assert!(matches!(error, Error::PinMismatch { .. }), "{error}");
}

/// The pinned certificate is public: without its key it must be worth nothing.
async fn a_stolen_certificate_without_its_key(via: Transport) {
    let (pinned, other) = (certificate(), certificate());
    let gateway = FakeGateway::start_with("127.0.0.1:0", via, b"", resolver(&pinned, &other), &pinned);
    let error = failure(&gateway).await;
    assert!(matches!(error, Error::Connect { reason: Loss::Transport, .. }), "{error}");
}

async fn another_application_protocol(via: Transport) {
    let own = certificate();
    let gateway = FakeGateway::start_with("127.0.0.1:0", via, b"h3", resolver(&own, &own), &own);
    let error = failure(&gateway).await;
    assert!(matches!(error, Error::Connect { .. }), "{error}");
}

async fn nobody_there(via: Transport) {
    let gateway = FakeGateway::start(via);
    let silent = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let mut deployment = gateway.deployment.clone();
    deployment.gateway.address = host(silent.local_addr().unwrap());
    let start = Instant::now();
    for (via, expected) in [
        (via, if via == Transport::Tcp { Loss::NobodyThere } else { Loss::Silence }),
        (Transport::Auto, Loss::NobodyThere),
    ] {
        let builder = Client::builder(deployment.clone()).connect_timeout(Duration::from_millis(200));
        let builder = builder.transport(via).fallback_delay(Duration::from_millis(50));
        let error = builder.connect().await.unwrap_err();
        assert!(matches!(error, Error::Connect { reason, .. } if reason == expected), "{error}");
    }
    assert!(start.elapsed() < Duration::from_secs(5));
}

async fn a_wrong_input_size_is_not_sent(via: Transport) {
    let gateway = FakeGateway::start(via);
    let client = gateway.client().connect().await.unwrap();
    for got in [0, 783, 785] {
        let error = client.infer(&vec![0; got]).await.unwrap_err();
        assert!(matches!(error, Error::WrongInputSize { expected: 784, got: g, .. } if g == got), "{error}");
        assert!(error.to_string().contains("(1 x 28 x 28)"), "{error}");
    }
    assert_eq!(gateway.shared.seen.lock().unwrap().len(), 0);
}

async fn opening_can_fail(via: Transport) {
    let gateway = FakeGateway::start(via);
    gateway.open([
        Action::Send(Response::Refused { reason: Refusal::SealRejected { server: 2 } }),
        Action::Send(Response::Busy { retry_after_ms: 1500 }),
        Action::Send(Response::Logits { masked: &[0; 28] }),
        Action::Hang,
        Action::Close,
    ]);
    let mut errors = Vec::new();
    for _ in 0..5 {
        let builder = gateway.impatient().connect_timeout(Duration::from_millis(300));
        errors.push(builder.fallback_delay(Duration::ZERO).connect().await.unwrap_err());
    }
    assert!(matches!(errors[0], Error::Refused(Refusal::SealRejected { server: 2 })), "{errors:?}");
    assert!(
        matches!(errors[1], Error::Busy { retry_after } if retry_after.as_millis() == 1500),
        "{errors:?}"
    );
    assert!(matches!(errors[2], Error::Protocol(Violation::WrongKind)), "{errors:?}");
    assert!(matches!(errors[3], Error::Timeout { step: "session", .. }), "{errors:?}");
    assert!(matches!(errors[4], Error::Closed(Loss::ByGateway)), "{errors:?}");
}

async fn refusals(via: Transport) {
    let refuse = |reason| Action::Send(Response::Refused { reason });
    let error = answered(via, refuse(Refusal::WrongModel)).await;
    assert!(matches!(error, Error::Refused(Refusal::WrongModel)), "{error}");
    let error = answered(via, Action::Stop(Response::Refused { reason: Refusal::Malformed })).await;
    assert!(matches!(error, Error::Refused(Refusal::Malformed)), "{error}");
    let error = answered(via, Action::Send(Response::Busy { retry_after_ms: 1250 })).await;
    assert_eq!(error.to_string(), "the servers are busy; try again in 1250 ms");
}

async fn silence(via: Transport) {
    let error = answered(via, Action::Hang).await;
    assert!(matches!(error, Error::Timeout { step: "answer", limit } if limit.as_secs() == 1), "{error}");
    // Queue messages do not extend the limit.
    let error = answered(via, Action::Queue(200)).await;
    assert!(matches!(error, Error::Timeout { .. }), "{error}");
}

#[tokio::test]
async fn unreadable_answers() {
    for (bytes, expected) in [
        (vec![], Violation::Truncated),
        (vec![0x85], Violation::Truncated),
        (vec![5, 2, 1, 28, 0], Violation::Truncated),
        (vec![0], Violation::Message(Core::Malformed)),
        (vec![0xff; 64], Violation::Message(Core::Malformed)),
        (vec![2, 2, 200], Violation::Message(Core::Malformed)),
        (vec![3, 2, 1, 9], Violation::Message(Core::Malformed)),
        (vec![3, 9, 0, 0], Violation::Message(Core::Version { got: 9 })),
        (
            vec![0xff, 0xff, 0xff, 0x7f],
            Violation::Message(Core::TooLong { len: (1 << 28) - 1, limit: 65_615 }),
        ),
    ] {
        let error = answered(Transport::Quic, Action::Bytes(bytes.clone())).await;
        assert!(matches!(error, Error::Protocol(violation) if violation == expected), "{bytes:?}: {error:?}");
    }
}

async fn wrong_answers(via: Transport) {
    for (response, expected) in [
        (Response::Opened { handle: 3 }, Violation::WrongKind),
        (Response::Probe { noise: &[0; 28] }, Violation::WrongKind),
        (
            Response::Logits { masked: &[0; 27] },
            Violation::Message(Core::WrongLength { expected: 28, got: 27 }),
        ),
        (Response::Logits { masked: &[0xff; 28] }, Violation::Message(Core::Malformed)),
        (Response::Retired, Violation::WrongKind),
    ] {
        let error = answered(via, Action::Send(response)).await;
        assert!(matches!(error, Error::Protocol(violation) if violation == expected), "{error:?}");
    }
    let error = answered(via, Action::Reset).await;
    assert!(matches!(error, Error::Protocol(Violation::Dropped)), "{error}");
}

async fn probe_answers_are_checked(via: Transport) {
    let gateway = FakeGateway::start(via);
    let client = gateway.client().connect().await.unwrap();
    gateway.answer([
        Action::Send(Response::Probe { noise: &[0; 9] }),
        Action::Send(Response::Logits { masked: &[0; 10] }),
    ]);
    let error = client.probe(5, 10).await.unwrap_err();
    assert!(matches!(error, Error::Protocol(Violation::ProbeSize { expected: 10, got: 9 })), "{error}");
    let error = client.probe(5, 10).await.unwrap_err();
    assert!(matches!(error, Error::Protocol(Violation::WrongKind)), "{error}");
}

over_both!(
    a_certificate_that_is_not_pinned,
    a_stolen_certificate_without_its_key,
    another_application_protocol,
    nobody_there,
    a_wrong_input_size_is_not_sent,
    opening_can_fail,
    refusals,
    silence,
    wrong_answers,
    probe_answers_are_checked,
);
