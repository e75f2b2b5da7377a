//! A gateway that misbehaves on its TLS stream: it has the right certificate, and sends what it likes.

use crate::common::tcp::{read_record, record};
use crate::common::{certificate, deployment, image, mux_tls};
use seco_core::Error as Core;
use seco_core::{Response, ServerOpeningKey};
use seco_sdk::{CertificatePin, Client, Deployment, Error, Loss, Refusal, Transport, Violation};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::io::{AsyncWriteExt, WriteHalf};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

type Write = WriteHalf<crate::common::tcp::Stream>;

fn frame(response: Response<'_>) -> Vec<u8> {
    let mut buffer = vec![0; response.frame_bound()];
    response.encode_frame(&mut buffer).unwrap().to_vec()
}

/// Opens sessions honestly, and answers every inference with what `script` makes of its id.
async fn gateway(script: impl Fn(u32) -> Vec<u8> + Send + Sync + 'static, pause: Duration) -> Deployment {
    let own = certificate();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let servers = [1, 2].map(|seed| ServerOpeningKey::from_seed([seed; 32]));
    let pin = CertificatePin::of(&own.der);
    let deployment = deployment(listener.local_addr().unwrap(), pin, &servers);
    let acceptor = TlsAcceptor::from(Arc::new(mux_tls(&own)));
    let script = Arc::new(script);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (acceptor, script) = (acceptor.clone(), script.clone());
            tokio::spawn(async move {
                let stream = acceptor.accept(stream).await.unwrap();
                let (mut read, mut write) = tokio::io::split(stream);
                let mut buffer = Vec::new();
                let mut first = true;
                while let Some((id, message)) = read_record(&mut read, &mut buffer).await {
                    if std::mem::take(&mut first) {
                        send(&mut write, &record(id, &frame(Response::Opened { handle: 0 })), Duration::ZERO)
                            .await;
                    } else if id > 0 && !message.is_empty() {
                        send(&mut write, &script(id), pause).await;
                    }
                }
            });
        }
    });
    deployment
}

/// One byte at a time, if there is a pause.
async fn send(write: &mut Write, bytes: &[u8], pause: Duration) {
    for part in bytes.chunks(if pause.is_zero() { bytes.len().max(1) } else { 1 }) {
        let _ = write.write_all(part).await;
        let _ = write.flush().await;
        tokio::time::sleep(pause).await;
    }
}

async fn connect(deployment: &Deployment) -> Client {
    let builder = Client::builder(deployment.clone()).transport(Transport::Tcp);
    builder.request_timeout(Duration::from_secs(1)).connect().await.unwrap()
}

async fn answered(script: impl Fn(u32) -> Vec<u8> + Send + Sync + 'static) -> Error {
    let client = connect(&gateway(script, Duration::ZERO).await).await;
    client.infer(&image()).await.unwrap_err()
}

#[tokio::test]
async fn what_is_no_record_breaks_the_connection() {
    let core = Violation::Message;
    let logits = || frame(Response::Logits { masked: &[0; 28] });
    type Script = Box<dyn Fn(u32) -> Vec<u8> + Send + Sync>;
    let cases: Vec<(&str, Script, Violation)> = vec![
        ("id too long", Box::new(|_| vec![0xff; 9]), core(Core::Malformed)),
        ("id with needless zeros", Box::new(|_| vec![0x80, 0, 0]), core(Core::Malformed)),
        ("message under id 0", Box::new(move |_| record(0, &logits())), core(Core::Malformed)),
        (
            "too long",
            Box::new(|id| record(id, &[0xff, 0xff, 0xff, 0x7f])),
            core(Core::TooLong { len: (1 << 28) - 1, limit: 65_615 }),
        ),
        ("unknown id", Box::new(move |id| record(id + 1, &logits())), Violation::UnknownRequest),
        ("ended id", Box::new(move |id| record(id - 1, &logits())), Violation::UnknownRequest),
        ("end of another", Box::new(|id| record(id + 7, &[0])), Violation::UnknownRequest),
        ("no answer", Box::new(|id| record(id, &[0])), Violation::Dropped),
        ("undecodable", Box::new(|id| record(id, &[2, 2, 200])), core(Core::Malformed)),
    ];
    for (name, script, expected) in cases {
        let error = answered(script).await;
        assert!(matches!(error, Error::Protocol(violation) if violation == expected), "{name}: {error:?}");
    }
}

/// The first answer serves; the second is to nothing, and ends the connection. Another one takes its place.
#[tokio::test]
async fn a_duplicate_answer_does_not_serve_another_request() {
    let twice = |id| record(id, &frame(Response::Logits { masked: &[0; 28] })).repeat(2);
    let client = connect(&gateway(twice, Duration::ZERO).await).await;
    for _ in 0..5 {
        client.infer(&image()).await.unwrap();
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn answers_in_any_order_reach_their_requests() {
    let waiting = std::sync::Mutex::new(Vec::new());
    let reversed = move |id| {
        let mut waiting = waiting.lock().unwrap();
        waiting.push(id);
        if waiting.len() < 8 {
            return Vec::new();
        }
        // A refusal tells which is which.
        let answer =
            |id| record(id, &frame(Response::Refused { reason: Refusal::WrongInputSize { expected: id } }));
        waiting.drain(..).rev().flat_map(answer).collect()
    };
    let client = connect(&gateway(reversed, Duration::ZERO).await).await;
    let results = client.infer_many(&vec![image(); 8]).await;
    let told = results.into_iter().map(|result| match result {
        Err(Error::Refused(Refusal::WrongInputSize { expected })) => expected,
        other => panic!("{other:?}"),
    });
    // Session first, so the requests are 2 to 9.
    assert_eq!(told.collect::<Vec<_>>(), (2..10).collect::<Vec<_>>());
}

#[tokio::test]
async fn an_answer_may_come_byte_by_byte() {
    let honest = |id| record(id, &frame(Response::Logits { masked: &[0; 28] }));
    let client = connect(&gateway(honest, Duration::from_millis(5)).await).await;
    client.infer(&image()).await.unwrap();
}

/// Nothing that never ends holds a request beyond its time, or fills the memory.
#[tokio::test]
async fn floods_and_silence_end_in_time() {
    for (name, script) in [
        (
            "announcements",
            Box::new(|id| record(id, &frame(Response::Queued { position: 3, wait_ms: 9 })).repeat(100_000))
                as Box<dyn Fn(u32) -> Vec<u8> + Send + Sync>,
        ),
        ("pongs", Box::new(|_| vec![0; 500_000])),
        ("half a record", Box::new(|id| record(id, &[100, 1, 2]))),
        ("silence", Box::new(|_| Vec::new())),
    ] {
        let start = Instant::now();
        let error = answered(script).await;
        let lost = matches!(error, Error::Timeout { .. } | Error::Closed(Loss::Silence));
        assert!(lost, "{name}: {error:?}");
        assert!(start.elapsed() < Duration::from_secs(5), "{name}");
    }
}

#[tokio::test]
async fn random_bytes() {
    for seed in 0..60u32 {
        let noise = move |id: u32| {
            let mut state = seed * 0x9e37 + id;
            let mut next = || {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (state >> 24) as u8
            };
            // Every other time under the right id, so that deeper layers see it too.
            let bytes: Vec<u8> = (0..200).map(|_| next()).collect();
            if seed % 2 == 0 {
                bytes
            } else {
                record(id, &[&[150, 1, 1, (seed % 8) as u8], &bytes[..]].concat())
            }
        };
        let error = answered(noise).await;
        assert!(!error.to_string().contains('\n'), "{error}");
    }
}

/// Requests that are given up and never ended by the gateway: their places are not lost for ever.
#[tokio::test]
async fn a_gateway_that_ends_nothing_is_left() {
    let client = connect(&gateway(|_| Vec::new(), Duration::ZERO).await).await;
    for _ in 0..40 {
        let input = image();
        let _ = tokio::time::timeout(Duration::from_millis(30), client.infer(&input)).await;
    }
    let error = client.infer(&image()).await.unwrap_err();
    assert!(matches!(error, Error::Timeout { .. } | Error::Closed(_)), "{error}");
}
