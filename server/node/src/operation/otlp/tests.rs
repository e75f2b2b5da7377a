use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use prometheus_client::metrics::counter::Counter;
use prost::Message as _;
use tracing::field::Empty;
use tracing::{info_span, warn};
use tracing_subscriber::Layer as _;
use tracing_subscriber::layer::SubscriberExt as _;

use super::layer::{Jobs, Slot, Spans};
use super::message::{Answer, KeyValue, Request, Resource, ResourceSpans, Scope, ScopeSpans, Span, Status};
use super::queue::{BATCH, Counts, QUEUE, Queue, Sending, Times};
use super::{Collector, message};
use crate::failure::{Broken, Failure};
use crate::service::within;

const LIMIT: Duration = Duration::from_secs(60);

/// So short that a test need not wait, but for what it is about.
const TIMES: Times = Times {
    pause: Duration::from_millis(5),
    longest: Duration::from_millis(20),
    post: LIMIT,
    flush: LIMIT,
    lines: LIMIT,
};

fn span() -> Span {
    Span {
        trace_id: (1..17).collect(),
        span_id: vec![9; 8],
        parent_span_id: vec![8; 8],
        name: "bundle".to_owned(),
        kind: message::KIND_SERVER,
        start_time_unix_nano: 1_000_000_007,
        end_time_unix_nano: 2_000_000_009,
        attributes: vec![KeyValue::text("seco.model", "88198ac4"), KeyValue::number("seco.peer", 2)],
        status: Some(Status { message: "gave up".to_owned(), code: message::STATUS_ERROR }),
    }
}

/// The bytes are those that Python's package `opentelemetry-proto` 1.45.2 makes of the same.
#[test]
fn messages_are_as_the_schema_says() {
    let resource = Resource { attributes: vec![KeyValue::text("service.name", "seco")] };
    let scope = Scope { name: "seco".to_owned(), version: "0.1.0".to_owned() };
    let scope_spans = vec![ScopeSpans { scope: Some(scope), spans: vec![span()] }];
    let request = Request { resource_spans: vec![ResourceSpans { resource: Some(resource), scope_spans }] };
    let bytes = "0aa8010a180a160a0c736572766963652e6e616d6512060a047365636f128b010a0d0a047365636f1205302e312e30127a\
                 0a100102030405060708090a0b0c0d0e0f1012080909090909090909220808080808080808082a0662756e646c653002\
                 3907ca9a3b000000004109943577000000004a180a0a7365636f2e6d6f64656c120a0a0838383139386163344a0f0a09\
                 7365636f2e70656572120218027a0b1207676176652075701802";
    assert_eq!(crate::keys::to_hex(&request.encode_to_vec()), bytes);
    let answer = Answer::decode(&[0x0a, 6, 8, 3, 0x12, 2, b'n', b'o'][..]).unwrap();
    assert_eq!(answer.partial_success.unwrap().rejected_spans, 3);
}

#[test]
fn a_job_is_told_by_known_fields_alone() {
    let slot = Slot::default();
    let (queue, mut spans) = Queue::new(2, Counter::default());
    assert!(slot.set(queue).is_ok());
    let log = tracing_subscriber::registry().with(Spans(slot.clone()).with_filter(Jobs(slot)));
    tracing::subscriber::with_default(log, || {
        let job = info_span!(
            "job",
            phase = "inference",
            job = u64::MAX,
            bundle = Some("01020304"),
            model = "88198ac4",
            peer = Empty,
            error = Empty,
            session = "5e551",
            token = 0x5e551_u64,
            key = ?["5e551"],
            input = Empty
        );
        job.in_scope(|| {
            warn!(session = "5e551", error = "5e551", "5e551");
            drop(info_span!("device", session = "5e551"));
        });
        job.record("input", "5e551");
        job.record("error", "gave up");
        job.record("peer", 1_usize);
        drop(job);
        drop(info_span!("job", phase = "bundle", job = 7_u64, bundle = None::<String>, model = "88198ac4"));
        drop(info_span!("device", session = "5e551"));
        // Some other library's.
        drop(info_span!("job", job = "5e551"));
    });
    let (failed, made) = (spans.try_recv().unwrap(), spans.try_recv().unwrap());
    assert!(spans.try_recv().is_err());
    assert!(failed.start_time_unix_nano > 0 && failed.start_time_unix_nano <= failed.end_time_unix_nano);
    let ids = |span: &Span| [span.trace_id.len(), span.span_id.len(), span.parent_span_id.len()];
    assert_eq!((ids(&failed), ids(&made)), ([16, 8, 8], [16, 8, 8]));
    assert!(failed.trace_id != made.trace_id && failed.span_id != failed.parent_span_id);
    let expected = Span {
        trace_id: failed.trace_id.clone(),
        span_id: failed.span_id.clone(),
        parent_span_id: failed.parent_span_id.clone(),
        name: "inference".to_owned(),
        kind: message::KIND_SERVER,
        start_time_unix_nano: failed.start_time_unix_nano,
        end_time_unix_nano: failed.end_time_unix_nano,
        attributes: vec![
            KeyValue::text("seco.job", u64::MAX.to_string()),
            KeyValue::text("seco.bundle", "01020304"),
            KeyValue::text("seco.model", "88198ac4"),
            KeyValue::number("seco.peer", 1),
        ],
        status: Some(Status { message: "gave up".to_owned(), code: message::STATUS_ERROR }),
    };
    assert_eq!(failed, expected);
    assert_eq!((made.name.as_str(), made.attributes.len(), made.status), ("bundle", 2, None));
}

/// Also work that fails before it waits for anything, and work that nobody waits for any more.
#[tokio::test]
async fn a_job_tells_how_it_ended() {
    let slot = Slot::default();
    let (queue, mut spans) = Queue::new(0, Counter::default());
    assert!(slot.set(queue).is_ok());
    let log = tracing_subscriber::registry().with(Spans(slot.clone()).with_filter(Jobs(slot)));
    let _log = tracing::subscriber::set_default(log);
    let job = || info_span!("job", phase = "bundle", job = 7_u64, peer = Empty, error = Empty);
    assert_eq!(within(job(), async { Ok(3) }).await.ok(), Some(3));
    let failed = within(job(), async { Err::<(), _>(Failure::TimedOut(2).into()) }).await;
    assert!(failed.is_err());
    let mut abandoned = Box::pin(within(job(), std::future::pending::<Result<(), Broken>>()));
    assert!(waits(abandoned.as_mut()).await);
    drop(abandoned);
    let ended = [(); 3].map(|()| spans.try_recv().unwrap());
    let told = ended.map(|span| (span.attributes.len(), span.status.map(|status| status.message)));
    let timed_out = Failure::TimedOut(2).to_string();
    assert_eq!(told, [(1, None), (2, Some(timed_out)), (1, Some("it was given up".to_owned()))]);
}

/// Whether it waits.
async fn waits<F: Future>(mut future: std::pin::Pin<&mut F>) -> bool {
    std::future::poll_fn(|context| std::task::Poll::Ready(future.as_mut().poll(context).is_pending())).await
}

#[test]
fn without_a_collector_nothing_is_kept() {
    let slot = Slot::default();
    let log = tracing_subscriber::registry().with(Spans(slot.clone()).with_filter(Jobs(slot)));
    tracing::subscriber::with_default(log, || {
        assert!(info_span!("job", phase = "bundle", job = 7_u64).is_disabled());
    });
}

/// A collector that answers so, one request after the other, and passes on what it got.
fn collector(answers: &[&'static [u8]]) -> (Collector, mpsc::Receiver<Request>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (address, answers, (sender, receiver)) =
        (listener.local_addr().unwrap(), answers.to_vec(), mpsc::channel());
    std::thread::spawn(move || {
        for answer in answers {
            let mut stream = listener.accept().unwrap().0;
            sender.send(request(&mut stream)).unwrap();
            stream.write_all(answer).unwrap();
        }
    });
    (at(address), receiver)
}

fn at(address: SocketAddr) -> Collector {
    Collector::try_from(format!("http://{address}")).unwrap()
}

fn request(stream: &mut TcpStream) -> Request {
    let (mut bytes, mut part) = (Vec::new(), [0; 4096]);
    loop {
        let text = String::from_utf8_lossy(&bytes).to_lowercase();
        let head = bytes.windows(4).position(|end| end == b"\r\n\r\n").map(|at| at + 4);
        let length = text.lines().find_map(|line| line.strip_prefix("content-length: "));
        if let (Some(head), Some(length)) = (head, length)
            && bytes.len() - head == length.parse::<usize>().unwrap()
        {
            assert!(text.starts_with("post /v1/traces http/1.1\r\n"), "{text}");
            assert!(text.contains("\ncontent-type: application/x-protobuf\r\n"), "{text}");
            return Request::decode(&bytes[head..]).unwrap();
        }
        let read = stream.read(&mut part).unwrap();
        assert!(read > 0, "{text}");
        bytes.extend_from_slice(&part[..read]);
    }
}

fn start(collector: Collector, times: Times) -> (Queue, Sending, Counts) {
    let counts = Counts::default();
    let resource = Resource { attributes: vec![KeyValue::text("service.name", "seco")] };
    let (queue, sending) = Sending::start(collector, (1, resource), &counts, times);
    (queue, sending, counts)
}

async fn until(what: impl Fn() -> bool) {
    let deadline = Instant::now() + LIMIT;
    while !what() {
        assert!(Instant::now() < deadline);
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

const TAKEN: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
const BUSY: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n";

#[tokio::test]
async fn what_is_not_taken_comes_again_and_what_is_refused_does_not() {
    let some: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\n\x0a\x02\x08\x01";
    let bad: &[u8] = b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n";
    let nonsense: &[u8] = b"whatever";
    // Ends too early, as a proxy's page may: what the status says counts.
    let cut: &[u8] = b"HTTP/1.1 413 Payload Too Large\r\ncontent-length: 900\r\n\r\n<html>";
    let taken_and_cut: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 900\r\n\r\n<html>";
    let (to, requests) = collector(&[BUSY, nonsense, some, bad, cut, taken_and_cut, TAKEN]);
    let (queue, sending, counts) = start(to, TIMES);
    (0..3).for_each(|_| queue.put(span()));
    until(|| counts.sent.get() + counts.dropped.get() == 3).await;
    assert_eq!((counts.sent.get(), counts.dropped.get()), (2, 1));
    queue.put(span());
    until(|| counts.dropped.get() == 2).await;
    queue.put(span());
    until(|| counts.dropped.get() == 3).await;
    queue.put(span());
    until(|| counts.sent.get() == 3).await;
    // The last go when the server ends.
    queue.put(span());
    sending.flush().await;
    assert_eq!((counts.sent.get(), counts.dropped.get()), (4, 3));
    let sizes: Vec<usize> = requests
        .iter()
        .map(|request| {
            let [of_server] = &request.resource_spans[..] else { panic!("{request:?}") };
            let [scope] = &of_server.scope_spans[..] else { panic!("{request:?}") };
            assert!(scope.spans.iter().all(|got| *got == span()));
            scope.spans.len()
        })
        .collect();
    assert_eq!(sizes, [3, 3, 3, 1, 1, 1, 1]);
}

#[tokio::test]
async fn a_collector_that_hangs_costs_spans_and_no_time() {
    // The system takes the connection.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let times = Times { flush: Duration::from_millis(50), ..TIMES };
    let (queue, sending, counts) = start(at(silent.local_addr().unwrap()), times);
    let more = 100;
    (0..QUEUE + BATCH + more).for_each(|_| queue.put(span()));
    // What does not fit, and what the task had not taken yet.
    let dropped = counts.dropped.get();
    assert!((more as u64..=(BATCH + more) as u64).contains(&dropped), "{dropped}");
    assert_eq!(counts.sent.get(), 0);
    tokio::time::timeout(LIMIT / 2, sending.flush()).await.unwrap();
}

#[tokio::test]
async fn nobody_there_costs_spans_and_no_time() {
    // What no machine has.
    let absent = SocketAddr::from(([127, 0, 0, 1], 9));
    let (queue, sending, counts) = start(at(absent), TIMES);
    (0..3).for_each(|_| queue.put(span()));
    tokio::time::timeout(LIMIT / 2, sending.flush()).await.unwrap();
    assert_eq!((counts.sent.get(), counts.dropped.get()), (0, 3));
    // Whoever ends a span later does not notice.
    queue.put(span());
    assert_eq!(counts.dropped.get(), 4);
}

#[tokio::test]
async fn many_are_sent_in_batches() {
    let (to, requests) = collector(&[TAKEN; 3]);
    let (queue, sending, counts) = start(to, TIMES);
    (0..2 * BATCH + 1).for_each(|_| queue.put(span()));
    sending.flush().await;
    assert_eq!((counts.sent.get(), counts.dropped.get()), (2 * BATCH as u64 + 1, 0));
    let sizes = requests.iter().map(|request| request.resource_spans[0].scope_spans[0].spans.len());
    assert_eq!(sizes.collect::<Vec<_>>(), [BATCH, BATCH, 1]);
}
