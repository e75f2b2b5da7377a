//! A client against an honest gateway.

use crate::common::network::Network;
use crate::common::{Action, FakeGateway, image, output, reference};
use seco_core::message::FRAME_OVERHEAD;
use seco_core::{MAX_SERVERS, Response, SEALED_LEN};
use seco_sdk::{
    Client, Deployment, Error, Kind, Last, Loss, Progress, Quantise, Refusal, Transport, UdpBytes,
};
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;
use std::time::{Duration, Instant};

fn label(logits: &[i32]) -> usize {
    logits.iter().position(|logit| Some(logit) == logits.iter().max()).unwrap()
}

async fn predictions_are_exact(via: Transport) {
    let gateway = FakeGateway::start(via);
    let client = gateway.client().connect().await.unwrap();
    for input in [image(), vec![0; 784], vec![255; 784]] {
        let prediction = client.infer(&input).await.unwrap();
        assert_eq!(prediction.logits, reference(&input));
        assert_eq!(prediction.label, label(&prediction.logits));
        let values: Vec<_> = reference(&input).into_iter().map(|logit| f64::from(logit) * 0.1).collect();
        assert_eq!(prediction.values(), [values]);
        assert_ne!(gateway.shared.inputs.lock().unwrap().last(), Some(&input), "travels masked");
    }
    assert_eq!(*gateway.shared.seen.lock().unwrap(), [(0, 0), (0, 1), (0, 2)]);
    client.close().await;
    assert!(matches!(client.infer(&image()).await, Err(Error::Closed(Loss::Local))));
}

/// The gateway, which gets the same bytes as ever, cannot tell.
async fn inputs_beyond_the_calibrated_range_are_told(via: Transport) {
    let gateway = FakeGateway::start(via);
    let mut deployment = gateway.deployment.clone();
    for (range, least, most) in [(Some([3, 200]), 3, 200), (Some([0, 255]), 0, 255), (None, 0, 255)] {
        deployment.model.calibrated = range;
        let client = Client::builder(deployment.clone()).transport(via).connect().await.unwrap();
        for value in [0, 2, 3, 100, 200, 201, 255] {
            let mut input = vec![100; 784];
            input[783] = value;
            let prediction = client.infer(&input).await.unwrap();
            let outside = !(least..=most).contains(&value);
            assert_eq!(prediction.outside_calibration, outside, "{value} of {range:?}");
            assert_eq!(prediction.logits, reference(&input));
        }
        let outside = client.infer(&[255; 784]).await.unwrap().outside_calibration;
        assert_eq!(outside, most < 255);
    }
}

/// Values of more than 8 bits travel as two bytes each, masked; other lengths and values are told before anything is sent.
async fn values_of_two_bytes_are_asked_about(via: Transport) {
    let gateway = FakeGateway::start(via);
    let mut deployment = gateway.deployment.clone();
    // As many bytes as the gateway's model takes.
    deployment.version = Deployment::VERSION_ABOVE_8_BITS;
    (deployment.model.input_shape, deployment.model.input_bits) = (vec![1, 28, 14], 12);
    deployment.model.calibrated = Some([3, 4000]);
    deployment.model.quantise = Some(Quantise { scale: vec![0.5], offset: vec![-1.0] });
    let client = Client::builder(deployment).transport(via).connect().await.unwrap();
    assert_eq!(client.model().input_len, 784);
    for (value, outside) in
        [(0, true), (2, true), (3, false), (255, false), (4000, false), (4001, true), (4095, true)]
    {
        let mut values = [300u16; 392];
        values[391] = value;
        let input = values.map(u16::to_le_bytes).as_flattened().to_vec();
        let prediction = client.infer(&input).await.unwrap();
        assert_eq!(prediction.logits, reference(&input));
        assert_eq!(prediction.outside_calibration, outside, "{value}");
        assert_ne!(gateway.shared.inputs.lock().unwrap().last(), Some(&input), "travels masked");
        // The same as a real number.
        let reals = values.map(|value| f64::from(value) / 2.0 - 1.0);
        let prediction = client.infer_reals(&reals).await.unwrap();
        assert_eq!((prediction.logits, prediction.outside_calibration), (reference(&input), outside));
    }
    let asked = gateway.shared.inputs.lock().unwrap().len();
    let cut = client.quantised(&[1e9f32; 392]).unwrap();
    assert!(cut.cut && *cut.bytes == [255, 15].repeat(392));
    for wrong in [0, 1, 392, 783, 785, 786, 1568] {
        let error = client.infer(&vec![0; wrong]).await.unwrap_err();
        let Error::WrongInputBytes { expected: 784, got, .. } = error else { panic!("{error}") };
        assert_eq!(got, wrong);
    }
    let mut input = vec![0; 784];
    input[101] = 16;
    let error = client.infer(&input).await.unwrap_err();
    assert!(matches!(error, Error::InputValue { index: 50, .. }), "{error}");
    let error = client.infer_reals(&[0.0f32; 784]).await.unwrap_err();
    assert!(matches!(error, Error::WrongInputSize { expected: 392, got: 784, .. }), "{error}");
    assert_eq!(gateway.shared.inputs.lock().unwrap().len(), asked);
}

/// Two outputs with their own scales share one answer; the label is the first one's.
async fn outputs_are_read_by_their_meaning(via: Transport) {
    let gateway = FakeGateway::start(via);
    let mut deployment = gateway.deployment.clone();
    let (mut scores, mut places) = (output("scores", &[4]), output("places", &[3, 2]));
    (scores.last, scores.scale) = (Last::Softmax, 1e-5);
    scores.classes = ["ant", "bee", "cat", "dog"].map(String::from).into();
    places.scale = 0.3;
    deployment.model.outputs = vec![scores, places];
    let client = Client::builder(deployment).transport(via).connect().await.unwrap();
    assert_eq!((client.model().values, client.outputs().len()), (10, 2));
    let prediction = client.infer(&image()).await.unwrap();
    let expected = reference(&image());
    assert_eq!((prediction.label, prediction.kind()), (label(&expected[..4]), Kind::Classes));
    assert_eq!(prediction.class_name(), Some(["ant", "bee", "cat", "dog"][prediction.label]));
    let probabilities = prediction.probabilities().unwrap();
    assert!((probabilities.iter().sum::<f64>() - 1.0).abs() < 1e-12, "{probabilities:?}");
    let real = |scale: f64, part: &[i32]| part.iter().map(|x| f64::from(*x) * scale).collect::<Vec<_>>();
    assert_eq!(prediction.values(), [real(1e-5, &expected[..4]), real(0.3, &expected[4..])]);
    assert_eq!(prediction.logits, expected);
}

/// Numbers become the bytes that the deployment file says, and travel masked as any others.
async fn real_numbers_are_asked_about(via: Transport) {
    let gateway = FakeGateway::start(via);
    let mut deployment = gateway.deployment.clone();
    let whole: Vec<f32> = image().into_iter().map(f32::from).collect();
    let client = gateway.client().connect().await.unwrap();
    assert_eq!(client.infer_reals(&whole).await.unwrap().logits, reference(&image()));
    let error = client.infer_reals(&[0.5f32; 784]).await.unwrap_err();
    assert!(matches!(error, Error::InputValue { index: 0, .. }), "{error}");

    deployment.model.quantise = Some(Quantise { scale: vec![1.0 / 128.0], offset: vec![-1.0] });
    let client = Client::builder(deployment.clone()).transport(via).connect().await.unwrap();
    let before = gateway.shared.inputs.lock().unwrap().len();
    let reals: Vec<f32> = image().into_iter().map(|byte| f32::from(byte) / 128.0 - 1.0).collect();
    let prediction = client.infer_reals(&reals).await.unwrap();
    assert_eq!(prediction.logits, reference(&image()));
    // 254 is the largest calibrated value.
    assert_eq!(prediction.outside_calibration, image().contains(&255));
    let doubles: Vec<f64> = reals.iter().copied().map(f64::from).collect();
    assert_eq!(client.infer_reals(&doubles).await.unwrap().logits, reference(&image()));
    let mut cut = vec![0.0f32; 784];
    assert!(!client.infer_reals(&cut).await.unwrap().outside_calibration);
    cut[700] = -1.1;
    let prediction = client.infer_reals(&cut).await.unwrap();
    assert!(prediction.outside_calibration);
    let mut bytes = vec![128; 784];
    bytes[700] = 0;
    assert_eq!(prediction.logits, reference(&bytes));
    let asked = gateway.shared.inputs.lock().unwrap()[before..].to_vec();
    assert_eq!(asked.len(), 4);
    assert!(asked.iter().all(|sent| *sent != image() && *sent != bytes), "travels masked");
    cut[0] = f32::NAN;
    assert!(matches!(client.infer_reals(&cut).await, Err(Error::InputValue { index: 0, .. })));
    assert!(matches!(client.infer_reals(&cut[1..]).await, Err(Error::WrongInputSize { got: 783, .. })));

    // Values of fewer bits, given as they are.
    deployment.model.input_bits = 3;
    let client = Client::builder(deployment).transport(via).connect().await.unwrap();
    assert_eq!(client.infer(&[7; 784]).await.unwrap().logits, reference(&[7; 784]));
    let mut input = vec![7; 784];
    input[9] = 8;
    assert!(matches!(client.infer(&input).await, Err(Error::InputValue { index: 9, .. })));
}

async fn a_queued_request_waits(via: Transport) {
    let gateway = FakeGateway::start(via);
    let client = gateway.client().connect().await.unwrap();
    gateway.answer([Action::Queue(5)]);
    assert_eq!(client.infer(&image()).await.unwrap().logits, reference(&image()));
}

async fn requests_run_side_by_side(via: Transport) {
    let gateway = FakeGateway::start(via);
    let client = Arc::new(gateway.client().connect().await.unwrap());
    gateway.answer([Action::Queue(10)]);
    let tasks: Vec<_> = (0..8u8)
        .map(|i| {
            let client = client.clone();
            tokio::spawn(async move { (i, client.infer(&[i; 784]).await) })
        })
        .collect();
    for task in tasks {
        let (i, prediction) = task.await.unwrap();
        assert_eq!(prediction.unwrap().logits, reference(&[i; 784]));
    }
    let mut seen = gateway.shared.seen.lock().unwrap().clone();
    seen.sort_unstable();
    assert_eq!(seen, (0..8).map(|counter| (0, counter)).collect::<Vec<_>>());
}

async fn a_forgotten_session_is_opened_anew_by_all_together_and_not_for_ever(via: Transport) {
    let gateway = FakeGateway::start(via);
    let client = Arc::new(gateway.client().connect().await.unwrap());
    client.infer(&image()).await.unwrap();
    gateway.answer([Action::Forget]);
    // All requests of the lost session share the new one.
    let tasks: Vec<_> = (0..4)
        .map(|_| {
            let client = client.clone();
            tokio::spawn(async move { client.infer(&image()).await })
        })
        .collect();
    for task in tasks {
        assert_eq!(task.await.unwrap().unwrap().logits, reference(&image()));
    }
    let seen = gateway.shared.seen.lock().unwrap().clone();
    assert!(seen.iter().all(|(handle, _)| *handle <= 1), "{seen:?}");
    let mut unique = seen.clone();
    unique.sort_unstable();
    unique.dedup();
    assert_eq!(unique.len(), seen.len(), "a retry takes a new counter: {seen:?}");

    // Again and again, as restarts one after the other would, but not for ever.
    gateway.answer(vec![Action::Forget; 4]);
    client.infer(&image()).await.unwrap();
    gateway.answer(vec![Action::Forget; 5]);
    let error = client.infer(&image()).await.unwrap_err();
    assert!(matches!(error, Error::Refused(Refusal::UnknownSession)), "{error}");
    assert_eq!(gateway.answer_honestly(), 0);
}

async fn a_request_whose_connection_is_lost_is_sent_again(via: Transport) {
    let gateway = FakeGateway::start(via);
    let client = gateway.client().connect().await.unwrap();
    let before = client.udp_bytes();
    gateway.answer([Action::Close]);
    assert_eq!(client.infer(&image()).await.unwrap().logits, reference(&image()));
    let after = client.udp_bytes();
    assert!(after.up > before.up + 2 * 784, "counted over both connections");
    gateway.answer(vec![Action::Close; 4]);
    client.infer(&image()).await.unwrap();
    gateway.answer([Action::Close]);
    client.probe(5, 5).await.unwrap();
    let client = gateway.impatient().connect().await.unwrap();
    gateway.answer(vec![Action::Close; 100]);
    let error = client.infer(&image()).await.unwrap_err();
    assert!(matches!(error, Error::Closed(Loss::ByGateway) | Error::Connect { .. }), "{error}");
}

/// Servers that are away come back, or the request is told what is in the way.
async fn a_request_is_made_again_until_its_time_is_up(via: Transport) {
    let gateway = FakeGateway::start(via);
    let client = gateway.client().connect().await.unwrap();
    let refuse = |reason| Action::Send(Response::Refused { reason });
    let away = refuse(Refusal::Unavailable { server: 2 });
    gateway.answer([
        away.clone(),
        Action::Close,
        away.clone(),
        refuse(Refusal::ShuttingDown),
        Action::Forget,
    ]);
    let mut told = Vec::new();
    let prediction = client.infer_with(&image(), |progress| told.push(progress)).await.unwrap();
    assert_eq!(prediction.logits, reference(&image()));
    let waits = |server| [Progress::Sent, Progress::Waiting { server }];
    // A session that was forgotten is nobody's absence.
    let forgotten = [Progress::Sent; 2];
    assert_eq!(told, [waits(2), waits(0), waits(2), waits(0), forgotten].concat());
    gateway.answer([away.clone(), Action::Close, away.clone()]);
    client.probe(5, 5).await.unwrap();

    let client = gateway.impatient().connect().await.unwrap();
    gateway.answer(vec![away; 100]);
    let start = Instant::now();
    let error = client.infer(&image()).await.unwrap_err();
    assert!(matches!(error, Error::Refused(Refusal::Unavailable { server: 2 })), "{error}");
    assert!(start.elapsed() < Duration::from_secs(2));
    // Few tries, at growing distances.
    let tries = 100 - gateway.answer_honestly();
    assert!((3..9).contains(&tries), "{tries}");
    client.infer(&image()).await.unwrap();
    // Whatever happened, no pad served twice, and every number once.
    gateway.shared.audit(&[image()]).unwrap();
}

/// It is not asked again while it takes others' requests to their end, and its successor at once.
async fn a_gateway_that_shuts_down_is_left_when_it_has(via: Transport) {
    let gateway = FakeGateway::start(via);
    let client = gateway.client().connect().await.unwrap();
    gateway.answer([Action::Drain]);
    let mut told = Vec::new();
    let prediction = client.infer_with(&image(), |progress| told.push(progress)).await.unwrap();
    assert_eq!(prediction.logits, reference(&image()));
    assert_eq!(told, [Progress::Sent, Progress::Waiting { server: 0 }, Progress::Sent]);
    assert_eq!(*gateway.shared.seen.lock().unwrap(), [(0, 0), (1, 0)], "on another connection");
}

/// What passes is waited for when a session is opened too, as long as a request may take; all else is told at once.
async fn connecting_waits_for_servers_that_are_away(via: Transport) {
    let gateway = FakeGateway::start(via);
    let refused = |reason| Action::Send(Response::Refused { reason });
    let away = [
        refused(Refusal::Unavailable { server: 2 }),
        Action::Send(Response::Busy { retry_after_ms: 10 }),
        refused(Refusal::ShuttingDown),
    ];
    gateway.open(away);
    let client = gateway.client().connect().await.unwrap();
    assert_eq!(client.infer(&image()).await.unwrap().logits, reference(&image()));
    gateway.open([refused(Refusal::TokenMissing)]);
    let told = gateway.client().connect().await.err().unwrap();
    assert!(matches!(told, Error::Refused(Refusal::TokenMissing)), "{told}");
    // What is still in the way when the time is up is told.
    gateway.open((0..200).map(|_| refused(Refusal::Unavailable { server: 1 })));
    let hurried = gateway.client().request_timeout(Duration::from_millis(700));
    let start = tokio::time::Instant::now();
    let told = hurried.connect().await.err().unwrap();
    assert!(matches!(told, Error::Refused(Refusal::Unavailable { server: 1 })), "{told}");
    assert!(start.elapsed() < Duration::from_secs(20));
}

/// Whatever a request waits for.
async fn closing_reaches_requests_that_wait(via: Transport) {
    let mut gateway = FakeGateway::start(via);
    let quic = gateway.address();
    let network = Network::before(&mut gateway, quic).await;
    let busy = || gateway.answer([Action::Send(Response::Busy { retry_after_ms: 30_000 })]);
    let lost = || {
        network.block(true, true);
        network.cut_tcp();
    };
    let waits: [&dyn Fn(); 2] = [&busy, &lost];
    for wait in waits {
        let client = gateway.client().connect().await.unwrap();
        wait();
        let input = image();
        let closing = async {
            tokio::time::sleep(Duration::from_millis(500)).await;
            client.close().await;
        };
        let both = async { tokio::join!(client.infer(&input), closing).0 };
        let result = tokio::time::timeout(Duration::from_secs(20), both).await.unwrap();
        assert!(matches!(result, Err(Error::Closed(Loss::Local))), "{result:?}");
        assert!(matches!(client.infer(&input).await, Err(Error::Closed(Loss::Local))));
    }
}

async fn who_is_busy_is_asked_again_when_they_said(via: Transport) {
    let gateway = FakeGateway::start(via);
    let client = gateway.impatient().connect().await.unwrap();
    let busy = |retry_after_ms| Action::Send(Response::Busy { retry_after_ms });
    gateway.answer([busy(300)]);
    let start = Instant::now();
    client.infer(&image()).await.unwrap();
    let took = start.elapsed();
    assert!((Duration::from_millis(300)..Duration::from_millis(900)).contains(&took), "{took:?}");
    // What does not fit is told at once, and nothing is sent meanwhile.
    gateway.answer([busy(1000)]);
    let start = Instant::now();
    let error = client.infer(&image()).await.unwrap_err();
    assert!(matches!(error, Error::Busy { retry_after } if retry_after.as_millis() == 1000), "{error}");
    assert!(start.elapsed() < Duration::from_millis(500));
    gateway.shared.audit(&[image()]).unwrap();
}

async fn what_does_not_pass_is_told_at_once(via: Transport) {
    let gateway = FakeGateway::start(via);
    let client = gateway.client().connect().await.unwrap();
    for reason in [Refusal::WrongModel, Refusal::TimedOut, Refusal::Internal] {
        gateway.answer([Action::Send(Response::Refused { reason })]);
        let error = client.infer(&image()).await.unwrap_err();
        assert!(matches!(error, Error::Refused(told) if told == reason), "{error}");
    }
    assert_eq!(gateway.shared.seen.lock().unwrap().len(), 3);
}

/// The measured promise: a private request costs at most 3 % more than a plain one of the same size.
async fn a_private_request_is_as_small_as_a_plain_one(via: Transport) {
    let gateway = FakeGateway::start(via);
    let client = gateway.client().connect().await.unwrap();
    // Lets acknowledgements of the handshake and of the requests before settle.
    let settled = async || {
        tokio::time::sleep(Duration::from_millis(100)).await;
        client.udp_bytes()
    };
    let (mut private, mut plain) = (UdpBytes::default(), UdpBytes::default());
    for _ in 0..8 {
        let start = settled().await;
        client.infer(&image()).await.unwrap();
        let middle = settled().await;
        client.probe(784, 28).await.unwrap();
        let end = settled().await;
        private = private + UdpBytes { up: middle.up - start.up, down: middle.down - start.down };
        plain = plain + UdpBytes { up: end.up - middle.up, down: end.down - middle.down };
    }
    println!("8 private requests {private:?}, 8 plain ones {plain:?}");
    assert!(private.up as f64 <= 1.03 * plain.up as f64, "{private:?} {plain:?}");
    assert!(private.up / 8 < 900, "{private:?}");
}

async fn probes(via: Transport) {
    let gateway = FakeGateway::start(via);
    let client = gateway.client().connect().await.unwrap();
    // What opens a session with a token at the largest number of servers is longer than this model's inputs.
    let longest = client.model().request_limit() - FRAME_OVERHEAD;
    assert!(longest > MAX_SERVERS * SEALED_LEN);
    for (up, down) in [(0, 0), (1, 1), (784, 40), (longest, 65_535)] {
        client.probe(up, down).await.unwrap();
    }
    for (up, down) in [(longest + 1, 0), (0, 65_536)] {
        assert!(matches!(client.probe(up, down).await, Err(Error::ProbeTooLong { .. })));
    }
}

async fn ipv6_and_a_change_of_network(via: Transport) {
    let gateway = FakeGateway::start_at("[::1]:0", via);
    let client = gateway.client().connect().await.unwrap();
    client.infer(&image()).await.unwrap();
    client.network_changed().unwrap();
    assert_eq!(client.infer(&image()).await.unwrap().logits, reference(&image()));
}

/// A name is looked up whenever a connection is made, wherever requests are polled.
async fn by_name(via: Transport) {
    let mut gateway = FakeGateway::start(via);
    let name = format!("localhost:{}", gateway.address().port());
    gateway.deployment.gateway.address = name.parse().unwrap();
    let client = gateway.client().connect().await.unwrap();
    client.infer(&image()).await.unwrap();
    client.network_changed().unwrap();
    gateway.answer([Action::Close]);
    assert_eq!(client.infer(&image()).await.unwrap().logits, reference(&image()));
    client.close().await;
    // Nobody has it: said in time, with the name, and worth another try.
    gateway.deployment.gateway.address = "nowhere.invalid:7443".parse().unwrap();
    let start = Instant::now();
    let error = gateway.client().connect_timeout(Duration::from_secs(2)).connect().await.unwrap_err();
    assert!(matches!(error, Error::Connect { reason: Loss::Unresolved, .. }), "{error}");
    assert!(error.is_temporary());
    let expected = "cannot connect to nowhere.invalid:7443: its name cannot be resolved; ";
    assert!(error.to_string().starts_with(expected), "{error}");
    assert!(start.elapsed() < Duration::from_secs(4));
}

async fn the_second_pin_serves_during_a_rotation(via: Transport) {
    let gateway = FakeGateway::start(via);
    let mut deployment = gateway.deployment.clone();
    deployment.gateway.pins.insert(0, seco_sdk::CertificatePin::of(b"another certificate"));
    Client::builder(deployment).transport(via).connect().await.unwrap().infer(&image()).await.unwrap();
}

async fn an_abandoned_request_leaves_the_client_usable(via: Transport) {
    let gateway = FakeGateway::start(via);
    let client = gateway.client().connect().await.unwrap();
    gateway.answer([Action::Hang]);
    let abandoned = tokio::time::timeout(Duration::from_millis(100), client.infer(&image())).await;
    assert!(abandoned.is_err());
    assert_eq!(client.infer(&image()).await.unwrap().logits, reference(&image()));
}

/// Bindings poll from executors of their own.
#[test]
fn requests_need_no_tokio_context() {
    for via in [Transport::Quic, Transport::Tcp] {
        without_context(via);
    }
}

fn without_context(via: Transport) {
    struct Unpark(Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let (gateway, client) = runtime.block_on(async {
        let gateway = FakeGateway::start(via);
        let client = gateway.impatient().connect().await.unwrap();
        (gateway, client)
    });
    let wait = || {
        let input = image();
        let mut request = pin!(client.infer(&input));
        let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
        loop {
            match request.as_mut().poll(&mut Context::from_waker(&waker)) {
                Poll::Ready(result) => return result,
                Poll::Pending => std::thread::park(),
            }
        }
    };
    gateway.answer([Action::Forget, Action::Logits, Action::Hang]);
    assert_eq!(wait().unwrap().logits, reference(&image()));
    assert!(matches!(wait(), Err(Error::Timeout { .. })));
    client.network_changed().unwrap();
    assert_eq!(wait().unwrap().logits, reference(&image()));
}

#[test]
fn without_a_runtime_connecting_is_an_error() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let gateway = runtime.block_on(async { FakeGateway::start(Transport::Auto) });
    let mut connecting = pin!(gateway.client().connect());
    let poll = connecting.as_mut().poll(&mut Context::from_waker(Waker::noop()));
    assert!(matches!(poll, Poll::Ready(Err(Error::NoRuntime))));
}

over_both!(
    predictions_are_exact,
    inputs_beyond_the_calibrated_range_are_told,
    outputs_are_read_by_their_meaning,
    real_numbers_are_asked_about,
    values_of_two_bytes_are_asked_about,
    a_queued_request_waits,
    requests_run_side_by_side,
    a_forgotten_session_is_opened_anew_by_all_together_and_not_for_ever,
    a_request_whose_connection_is_lost_is_sent_again,
    a_request_is_made_again_until_its_time_is_up,
    a_gateway_that_shuts_down_is_left_when_it_has,
    closing_reaches_requests_that_wait,
    connecting_waits_for_servers_that_are_away,
    who_is_busy_is_asked_again_when_they_said,
    what_does_not_pass_is_told_at_once,
    a_private_request_is_as_small_as_a_plain_one,
    probes,
    ipv6_and_a_change_of_network,
    by_name,
    the_second_pin_serves_during_a_rotation,
    an_abandoned_request_leaves_the_client_usable,
);
