//! What a collector on the same machine is told of jobs, and that no collector is in the way.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::common::admin::{http, metrics, start, start_all};
use crate::common::{LIMIT, Site, digits};
use crate::tokens::{add, settings};
use seco_node::config::{Access, Log};
use seco_node::keys;

/// Where servers send spans.
fn to(address: SocketAddr) -> Log {
    Log { otlp: format!("http://{address}").try_into().unwrap() }
}

/// One that takes everything, and keeps it.
struct Collector {
    address: SocketAddr,
    requests: Arc<Mutex<Vec<Vec<u8>>>>,
}

impl Collector {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (address, requests) = (listener.local_addr().unwrap(), Arc::new(Mutex::new(Vec::new())));
        let kept = requests.clone();
        std::thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                let body = receive(&mut stream);
                kept.lock().unwrap().push(body);
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n");
            }
        });
        Self { address, requests }
    }

    fn requests(&self) -> Vec<Vec<u8>> {
        self.requests.lock().unwrap().clone()
    }

    fn spans(&self) -> Vec<Span> {
        self.requests().iter().flat_map(|request| Span::all(request)).collect()
    }

    /// Waits for so many spans of requests.
    async fn wait(&self, inferences: usize) -> Vec<Span> {
        let deadline = Instant::now() + LIMIT;
        loop {
            let spans = self.spans();
            if spans.iter().filter(|span| span.name == "inference").count() >= inferences {
                return spans;
            }
            assert!(Instant::now() < deadline, "{spans:?}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

/// The body of an HTTP request.
fn receive(stream: &mut TcpStream) -> Vec<u8> {
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte).unwrap();
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).unwrap().to_lowercase();
    assert!(head.starts_with("post /v1/traces http/1.1\r\n"), "{head}");
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap();
    let mut body = vec![0; length.parse().unwrap()];
    stream.read_exact(&mut body).unwrap();
    body
}

/// A field of a protobuf message.
enum Part<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

impl<'a> Part<'a> {
    fn bytes(&self) -> &'a [u8] {
        let Part::Bytes(bytes) = self else { panic!("a number") };
        bytes
    }

    fn text(&self) -> String {
        String::from_utf8(self.bytes().to_vec()).unwrap()
    }

    fn number(&self) -> u64 {
        let Part::Number(number) = self else { panic!("no number") };
        *number
    }
}

/// The fields of a protobuf message with their numbers, read without the server's own definitions.
fn parts(mut rest: &[u8]) -> Vec<(u64, Part<'_>)> {
    fn take<'a>(rest: &mut &'a [u8], count: usize) -> &'a [u8] {
        let (taken, left) = rest.split_at(count);
        *rest = left;
        taken
    }
    fn varint(rest: &mut &[u8]) -> u64 {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = take(rest, 1)[0];
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                break;
            }
        }
        value
    }
    let mut found = Vec::new();
    while !rest.is_empty() {
        let key = varint(&mut rest);
        let part = match key & 7 {
            0 => Part::Number(varint(&mut rest)),
            1 => Part::Number(u64::from_le_bytes(take(&mut rest, 8).try_into().unwrap())),
            2 => {
                let length = usize::try_from(varint(&mut rest)).unwrap();
                Part::Bytes(take(&mut rest, length))
            }
            kind => panic!("kind {kind}"),
        };
        found.push((key >> 3, part));
    }
    found
}

/// The parts with a number, read as messages.
fn messages<'a>(of: &[(u64, Part<'a>)], number: u64) -> Vec<Vec<(u64, Part<'a>)>> {
    of.iter().filter(|(found, _)| *found == number).map(|(_, part)| parts(part.bytes())).collect()
}

/// Keys and values in the parts with a number.
fn attributes(of: &[(u64, Part<'_>)], number: u64) -> BTreeMap<String, String> {
    let pairs = messages(of, number).into_iter().map(|pair| {
        let value = match &messages(&pair, 2)[0][..] {
            [(1, text)] => text.text(),
            [(3, number)] => number.number().to_string(),
            _ => panic!("a value of another kind"),
        };
        (pair[0].1.text(), value)
    });
    pairs.collect()
}

#[derive(Debug)]
struct Span {
    server: BTreeMap<String, String>,
    trace: Vec<u8>,
    id: Vec<u8>,
    parent: Vec<u8>,
    name: String,
    times: (u64, u64),
    attributes: BTreeMap<String, String>,
    failed: bool,
}

impl Span {
    fn all(request: &[u8]) -> Vec<Span> {
        let mut all = Vec::new();
        for of_server in messages(&parts(request), 1) {
            let server = attributes(&messages(&of_server, 1)[0], 1);
            for scope in messages(&of_server, 2) {
                all.extend(messages(&scope, 2).iter().map(|span| Span::read(span, &server)));
            }
        }
        all
    }

    fn read(span: &[(u64, Part<'_>)], server: &BTreeMap<String, String>) -> Span {
        let field = |number: u64| span.iter().find(|(found, _)| *found == number).map(|(_, part)| part);
        Span {
            server: server.clone(),
            trace: field(1).unwrap().bytes().to_vec(),
            id: field(2).unwrap().bytes().to_vec(),
            parent: field(4).map(|part| part.bytes().to_vec()).unwrap_or_default(),
            name: field(5).unwrap().text(),
            times: (field(7).unwrap().number(), field(8).unwrap().number()),
            attributes: attributes(span, 9),
            failed: field(15).is_some(),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_is_one_trace_of_all_servers_and_has_nothing_of_its_device() {
    let collector = Collector::start();
    let mut site = Site::new(3);
    (site.admin, site.log) = (true, Some(to(collector.address)));
    site.access = Some(Access { tokens: site.folder.path().join("tokens.toml"), required: true });
    let token = add(&settings(&site, 0), &["--label", "somebody"]);
    let (mut servers, ports, address) = start_all(&mut site, &[]);
    // Fewer lines are not fewer spans.
    assert_eq!(http(ports[1], "PUT", "/log", "x-seco-admin: 1\r\n", "error").0, 200);
    (0..2).for_each(|_| servers[0].wait_bundle());

    let mut device = site.connect(address).await;
    device.token = Some(token.clone());
    let session = site.session(1);
    let mut opened = device.open(&session, &site.sealing_keys()).await.unwrap();
    for digit in digits().iter().take(2) {
        assert_eq!(device.infer(&mut opened, digit).await.unwrap(), site.expected(digit));
    }
    let spans = collector.wait(6).await;
    let inferences: Vec<&Span> = spans.iter().filter(|span| span.name == "inference").collect();
    let traces: BTreeSet<&Vec<u8>> = inferences.iter().map(|span| &span.trace).collect();
    assert_eq!((inferences.len(), traces.len()), (6, 2), "{spans:?}");
    for trace in traces {
        let of: BTreeMap<&str, &Span> = inferences
            .iter()
            .filter(|span| span.trace == *trace)
            .map(|span| (span.server["service.instance.id"].as_str(), *span))
            .collect();
        let [("s0", gateway), ("s1", one), ("s2", two)] = of.into_iter().collect::<Vec<_>>()[..] else {
            panic!("{spans:?}")
        };
        assert!(gateway.parent.is_empty() && one.parent == gateway.id && two.parent == gateway.id);
        assert!(one.id != two.id && trace.len() == 16 && [gateway, one, two].iter().all(|s| s.id.len() == 8));
        assert!(gateway.attributes == one.attributes && one.attributes == two.attributes, "{spans:?}");
        assert_eq!(gateway.attributes["seco.model"], keys::to_hex(&site.model_id[..4]));
    }
    for server in ["0", "1", "2"] {
        for name in ["set-up", "bundle"] {
            let mut of = spans.iter().filter(|span| span.server["seco.server"] == server);
            assert!(of.any(|span| span.name == name), "{server}: {spans:?}");
        }
    }
    for port in &ports {
        let deadline = Instant::now() + LIMIT;
        // A set-up, bundles and two requests. It counts what it was told is taken.
        while metrics(*port)["seco_spans_sent_total"] < 5.0 {
            assert!(Instant::now() < deadline);
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        assert_eq!(metrics(*port)["seco_spans_dropped_total"], 0.0);
    }

    // What has just ended is told by a server that ends.
    assert_eq!(device.infer(&mut opened, &digits()[2]).await.unwrap(), site.expected(&digits()[2]));
    servers.iter_mut().for_each(|server| drop(server.stop()));
    let spans = collector.spans();
    let inferences: Vec<&Span> = spans.iter().filter(|span| span.name == "inference").collect();
    assert!(inferences.len() == 9 && inferences.iter().all(|span| !span.failed), "{spans:?}");
    let ids: BTreeSet<(&Vec<u8>, &Vec<u8>)> = spans.iter().map(|span| (&span.trace, &span.id)).collect();
    assert_eq!(ids.len(), spans.len(), "one was told twice: {spans:?}");
    for span in &spans {
        assert!(0 < span.times.0 && span.times.0 <= span.times.1, "{span:?}");
        let known = ["seco.bundle", "seco.job", "seco.model", "seco.peer"];
        assert!(span.attributes.keys().all(|key| known.contains(&key.as_str())), "{span:?}");
        let known = ["seco.server", "service.instance.id", "service.name", "service.version"];
        assert!(span.server.keys().eq(known), "{span:?}");
    }

    // Nothing of who asked, in bytes or as text.
    let opening = std::fs::read_to_string(&site.keys[0].opening_key).unwrap();
    let told = collector.requests().concat();
    let id = session.id().0;
    for secret in [&id[..], token.as_bytes(), &token.as_bytes()[8..], opening.as_bytes(), b"somebody"] {
        for secret in [secret, keys::to_hex(secret).as_bytes()] {
            let start = &secret[..8];
            assert!(!told.windows(start.len()).any(|part| part == start), "{start:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_hangs_or_is_absent_is_in_nobodys_way() {
    // The system takes connections, and nobody reads.
    let hanging = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut site = Site::new(3);
    site.admin = true;
    let (mut two, _, _) = start(&mut site, 2, &[]);
    site.log = Some(to("127.0.0.1:9".parse().unwrap()));
    let (mut one, remote, _) = start(&mut site, 1, &[]);
    site.log = Some(to(hanging.local_addr().unwrap()));
    let began = Instant::now();
    let (mut gateway, port, address) = start(&mut site, 0, &[]);
    gateway.wait_bundle();
    let device = site.connect(address.unwrap()).await;
    let mut opened = device.open(&site.session(1), &site.sealing_keys()).await.unwrap();
    for digit in digits().iter().take(3) {
        assert_eq!(device.infer(&mut opened, digit).await.unwrap(), site.expected(digit));
    }
    one.wait_told("spans for http://127.0.0.1:9 ([log] otlp): ");
    assert_eq!(metrics(port)["seco_spans_sent_total"], 0.0);
    // They wait for it.
    assert_eq!(metrics(remote)["seco_spans_dropped_total"], 0.0);

    let told = gateway.stop();
    assert!(told.contains("the collector of [log] otlp did not take all spans before the end"), "{told}");
    let told = one.stop();
    let lines = told.matches("([log] otlp)").count() as u64;
    assert!((1..=1 + began.elapsed().as_secs() / 60).contains(&lines), "{told}");
    let told = two.stop();
    assert!(!told.contains("otlp"), "{told}");
}
