//! The gateway's front door: who is let in, who has to go, and whose turn it is. Loopback has many addresses, each
//! of which is another household.
//! A program of its own: it measures who waits how long.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests are tests")]

mod abandoned;
#[path = "../common/mod.rs"]
mod common;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use common::{Device, LIMIT, Opened, Server, Site, digits};
use seco_core::message::decode_header;
use seco_core::{Request, Response, Session};
use seco_node::config::{Limits, Pool};
use tokio::io::AsyncReadExt as _;
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::{sleep, timeout};
use tokio_rustls::client::TlsStream;

/// Soon: what is done at once, on a busy machine.
const SOON: Duration = Duration::from_secs(10);

fn home(number: u8) -> IpAddr {
    Ipv4Addr::new(127, 0, 1, number).into()
}

async fn tcp(from: IpAddr, to: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(SocketAddr::new(from, 0)).unwrap();
    socket.connect(to).await.unwrap()
}

async fn tls(site: &Site, stream: TcpStream) -> std::io::Result<TlsStream<TcpStream>> {
    let connector = tokio_rustls::TlsConnector::from(Arc::new(site.tls(&[seco_core::mux::ALPN])));
    connector.connect("seco".try_into().unwrap(), stream).await
}

/// Whether the gateway hangs up soon.
async fn hung_up(stream: &mut (impl tokio::io::AsyncRead + Unpin)) -> bool {
    let mut bytes = [0; 64];
    let end = async { while matches!(stream.read(&mut bytes).await, Ok(1..)) {} };
    timeout(SOON, end).await.is_ok()
}

async fn closed(device: &Device) -> bool {
    timeout(SOON, device.connection.closed()).await.is_ok()
}

#[tokio::test(flavor = "multi_thread")]
async fn idle_connections_keep_nobody_out() {
    let mut site = Site::new(2);
    site.limits = Limits { connections: 8, address_connections: 0, idle_s: 3600, ..site.limits };
    let (mut servers, address) = site.start_all();
    servers[0].wait_bundle();
    let (keys, digit) = (site.sealing_keys(), &digits()[0]);

    let mut idle = Vec::new();
    for _ in 0..8 {
        idle.push(site.connect_from(home(1), address).await.unwrap());
    }
    // The first has asked for something since.
    idle[0].ask(&Request::Probe { down: 1, noise: &[1; 4] }).await;
    let device = site.connect_from(home(2), address).await.unwrap();
    let mut opened = device.open(&site.session(1), &keys).await.unwrap();
    assert_eq!(device.infer(&mut opened, digit).await.unwrap(), site.expected(digit));
    assert!(closed(&idle[1]).await, "the one that was idle for longest");
    assert!([0, 2, 7].iter().all(|&n| idle[n].connection.close_reason().is_none()));

    // Over TCP they have not even begun to shake hands.
    let mut waiting = Vec::new();
    for _ in 0..8 {
        waiting.push(tcp(home(1), address).await);
    }
    let device = tls(&site, tcp(home(2), address).await).await.unwrap();
    assert!(hung_up(&mut waiting[0]).await);
    // Places over QUIC are others.
    assert!(idle[0].connection.close_reason().is_none());
    drop(device);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_without_a_session_goes() {
    let mut site = Site::new(2);
    site.limits.idle_s = 1;
    let (mut servers, address) = site.start_all();
    servers[0].wait_bundle();
    let (keys, digit) = (site.sealing_keys(), &digits()[0]);
    let served = site.connect(address).await;
    let mut opened = served.open(&site.session(1), &keys).await.unwrap();

    let start = Instant::now();
    let idle = site.connect(address).await;
    let mut bare = tcp(home(1), address).await;
    let mut shaken = tls(&site, tcp(home(1), address).await).await.unwrap();
    // A request that never becomes whole keeps nothing open.
    let (mut half, _answer) = idle.connection.open_bi().await.unwrap();
    half.write_all(&[2]).await.unwrap();
    assert!(closed(&idle).await && hung_up(&mut bare).await && hung_up(&mut shaken).await);
    assert!(start.elapsed() >= Duration::from_secs(1), "{:?}", start.elapsed());
    sleep(Duration::from_secs(2)).await;
    assert_eq!(served.infer(&mut opened, digit).await.unwrap(), site.expected(digit));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_keeps_to_its_limits() {
    let mut site = Site::new(2);
    site.limits = Limits {
        address_connections: 4,
        address_sessions: 2,
        address_requests_hour: 6,
        address_handshakes: 12,
        ..site.limits
    };
    let (mut servers, address) = site.start_all();
    servers[0].wait_bundle();
    let (keys, digit) = (site.sealing_keys(), &digits()[0]);
    let mut devices = Vec::new();
    for _ in 0..6 {
        devices.push(site.connect_from(home(1), address).await.unwrap());
    }
    // Connections: the address's own oldest ones made place.
    assert!(closed(&devices[0]).await && closed(&devices[1]).await);
    assert!(devices[2..].iter().all(|device| device.connection.close_reason().is_none()));
    // Sessions.
    let mut opened = devices[2].open(&site.session(1), &keys).await.unwrap();
    devices[2].open(&site.session(2), &keys).await.unwrap();
    let refused = devices[3].open(&site.session(3), &keys).await.err().unwrap();
    assert!(refused.starts_with("Busy"), "{refused}");
    // Requests: six in all.
    for _ in 0..3 {
        devices[2].infer(&mut opened, digit).await.unwrap();
    }
    let refused = devices[2].infer(&mut opened, digit).await.unwrap_err();
    assert!(refused.starts_with("Busy"), "{refused}");
    let pause: u64 = refused.chars().filter(char::is_ascii_digit).collect::<String>().parse().unwrap();
    assert!((590_000..=600_000).contains(&pause), "{refused}");
    // Handshakes: 6 connections and 2 sessions were 8, so that 4 more are left.
    let mut more = 0;
    while more < 9 && site.connect_from(home(1), address).await.is_ok() {
        more += 1;
    }
    assert!((4..9).contains(&more), "{more}");
    // Nobody else notices.
    let other = site.connect_from(home(2), address).await.unwrap();
    let mut opened = other.open(&site.session(4), &keys).await.unwrap();
    assert_eq!(other.infer(&mut opened, digit).await.unwrap(), site.expected(digit));
}

/// What a device was told, and what came of it.
#[derive(Default)]
struct Told {
    /// When a wait was told, the told and the real one.
    waits: Vec<(Instant, Duration, Duration)>,
    /// When it was sent away, and for how long.
    busy: Vec<(Instant, Duration)>,
}

impl Told {
    /// Told by real wait: the three quarters of all. Short waits are noise.
    fn ratios(&self) -> [f64; 3] {
        let long = self.waits.iter().filter(|(_, told, real)| *told.max(real) > Duration::from_millis(40));
        let mut ratios: Vec<f64> =
            long.map(|(_, told, real)| told.as_secs_f64() / real.as_secs_f64()).collect();
        ratios.sort_by(f64::total_cmp);
        [1, 2, 3].map(|quarter| ratios.get(ratios.len() * quarter / 4).copied().unwrap_or(1.0))
    }
}

/// One request; says whether it was answered. The answer must be right.
async fn ask(site: &Site, device: &Device, opened: &Mutex<Opened>, input: &[u8], told: &mut Told) -> bool {
    let mut masked = input.to_vec();
    let (pending, handle) = {
        let mut opened = opened.lock().unwrap();
        (opened.requester.request(&mut masked).unwrap(), opened.handle)
    };
    let request = Request::Infer { handle, counter: pending.counter(), input: &masked };
    let mut buffer = vec![0; request.frame_bound()];
    let frame = request.encode_frame(&mut buffer).unwrap();
    let (mut send, mut receive) = device.connection.open_bi().await.unwrap();
    send.write_all(frame).await.unwrap();
    let mut bytes = Vec::new();
    let mut queued = None;
    loop {
        let message = loop {
            if let Some(header) = decode_header(&bytes, 4096).unwrap()
                && let Some(message) = header.message(&bytes)
            {
                let message = message.to_vec();
                bytes.drain(..header.header_len + header.message_len);
                break message;
            }
            let chunk = timeout(LIMIT, receive.read_chunk(4096, true)).await.unwrap().unwrap().unwrap();
            bytes.extend_from_slice(&chunk.bytes);
        };
        match Response::decode(&message).unwrap() {
            Response::Queued { position: 0, .. } => {
                let (since, wait): (Instant, Duration) = queued.take().unwrap();
                told.waits.push((since, wait, since.elapsed()));
            }
            Response::Queued { wait_ms, .. } => {
                queued = Some((Instant::now(), Duration::from_millis(wait_ms.into())));
            }
            Response::Busy { retry_after_ms } => {
                told.busy.push((Instant::now(), Duration::from_millis(retry_after_ms.into())));
                return false;
            }
            _ => {
                let logits = opened.lock().unwrap().read(pending, &message);
                assert_eq!(logits.unwrap(), site.expected(input));
                return true;
            }
        }
    }
}

/// Answers of a device in the time that is looked at, and what it was told.
type Served = (usize, usize, Told);

/// Asks one request after the other until `to`, and for as long as others still `wait`; `number` of the device.
async fn keep_asking(
    (site, device, opened): (Arc<Site>, Arc<Device>, Arc<Mutex<Opened>>),
    number: usize,
    (from, to): (Instant, Instant),
    wait: impl Fn() -> bool,
) -> Served {
    let (mut answers, mut told, digit) = (0, Told::default(), digits()[number].clone());
    while Instant::now() < to || wait() {
        if ask(&site, &device, &opened, &digit, &mut told).await {
            let now = Instant::now();
            answers += usize::from(now >= from && now < to);
        } else {
            sleep(told.busy.last().unwrap().1.min(Duration::from_secs(1))).await;
        }
    }
    // What was told while not all asked says nothing of them, however long it took.
    told.waits.retain(|(since, ..)| *since >= from && *since < to);
    (number, answers, told)
}

/// Four devices, at `homes`, that ask one request after the other, beside one at home 9 with 400 open over 25
/// connections.
async fn beside_a_greedy_one(pool: Pool, homes: [u8; 4]) {
    // Waits are foretold from what they were, and another's load that comes and goes is in them.
    static ALONE: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());
    let _alone = ALONE.lock().await;
    let mut site = Site::new(2);
    site.pool = pool;
    site.limits = Limits { address_handshakes: 0, address_requests: 0, parallel: 2, ..site.limits };
    let (mut servers, address) = site.start_all();
    for _ in 0..pool.size.min(400) {
        servers[0].wait_bundle();
    }
    let (keys, greedy) = (site.sealing_keys(), site.session(100));
    let site = Arc::new(site);
    let mut connections = Vec::new();
    for k in 0..25 {
        let device = site.connect_from(home(9), address).await.unwrap();
        let opened = match k {
            0 => device.open(&greedy, &keys).await,
            _ => device.resume(&greedy).await,
        };
        connections.push((Arc::new(device), Arc::new(Mutex::new(opened.unwrap()))));
    }
    let mut honest = Vec::new();
    for (home_number, seed) in homes.into_iter().zip(1..) {
        let device = site.connect_from(home(home_number), address).await.unwrap();
        let opened = device.open(&site.session(seed), &keys).await.unwrap();
        honest.push((Arc::new(device), Arc::new(Mutex::new(opened))));
    }
    let from = Instant::now() + Duration::from_secs(2);
    let time = (from, from + Duration::from_secs(10));
    let mut tasks = tokio::task::JoinSet::new();
    for (device, opened) in connections.iter().flat_map(|connection| std::iter::repeat_n(connection, 16)) {
        tasks.spawn(keep_asking((site.clone(), device.clone(), opened.clone()), 4, time, || false));
    }
    sleep(Duration::from_secs(1)).await;
    // What the greedy one was told is true while these go on.
    let waits = Arc::new(AtomicBool::new(true));
    let honest: tokio::task::JoinSet<Served> = (honest.into_iter().zip(0..))
        .map(|((device, opened), number)| {
            let waits = waits.clone();
            keep_asking((site.clone(), device, opened), number, time, move || waits.load(Ordering::Relaxed))
        })
        .collect();
    let mut all = tasks.join_all().await;
    waits.store(false, Ordering::Relaxed);
    all.extend(honest.join_all().await);
    let mut served = [0; 5];
    let mut told: [Told; 5] = Default::default();
    for (number, answers, more) in all {
        served[number] += answers;
        told[number].waits.extend(more.waits);
        told[number].busy.extend(more.busy);
    }
    let all: usize = served.iter().sum();
    let ratios = told.each_ref().map(Told::ratios);
    let waits: Vec<usize> = told.iter().map(|told| told.waits.len()).collect();
    let busy: Vec<usize> = told.iter().map(|told| told.busy.len()).collect();
    println!("answers {served:?} of {all}, waits {waits:?} told by real {ratios:.2?}, sent away {busy:?}");
    assert!(all >= 50, "too few to tell: {served:?}");
    assert!(served[..4].iter().all(|&answers| answers * 100 >= all * 15), "{served:?}");
    assert_eq!(busy[..4], [0; 4], "who asks for little is not sent away");
    assert!(busy[4] > 0);
    assert!(waits.iter().all(|&waits| waits > 0), "nobody was told how long it takes: {waits:?}");
    // In the middle, whatever else the machine does meanwhile.
    assert!(ratios.iter().all(|[_, middle, _]| (0.5..=2.0).contains(middle)), "{ratios:.2?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn four_devices_have_their_share_beside_a_greedy_one_as_bundles_are_made() {
    let pool = Pool { size: 2, low: 1, ..Pool::default() };
    beside_a_greedy_one(pool, [1, 2, 3, 4]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn four_devices_at_one_address_have_their_share_beside_a_greedy_one_there() {
    let pool = Pool { size: 2, low: 1, ..Pool::default() };
    beside_a_greedy_one(pool, [9, 9, 9, 9]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn four_devices_have_their_share_of_bundles_that_are_ready() {
    let pool = Pool { size: 400, low: 399, ..Pool::default() };
    beside_a_greedy_one(pool, [1, 2, 3, 4]).await;
}

/// Bytes that a server has in memory.
fn resident(server: &Server) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", server.process.id())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().strip_suffix(" kB").unwrap().trim().parse::<u64>().unwrap() * 1024
}

/// A session of its own for every number.
fn session(site: &Site, number: u32) -> Session {
    use chacha20::rand_core::SeedableRng as _;
    let mut seed = [7; 32];
    seed[..4].copy_from_slice(&number.to_le_bytes());
    let mut rng = chacha20::ChaCha20Rng::from_seed(seed);
    Session::new(site.info(), &site.sealing_keys(), 0, &mut rng).unwrap()
}

/// Connections with a session each, over one socket.
async fn sessions(site: &Site, address: SocketAddr, seeds: std::ops::Range<u32>) -> Vec<Device> {
    let keys = site.sealing_keys();
    let mut connections = Vec::new();
    let endpoint = quinn::Endpoint::client(SocketAddr::new(home(1), 0)).unwrap();
    for seed in seeds {
        let device = site.connect_over(&endpoint, address).await.unwrap();
        device.open(&session(site, seed), &keys).await.unwrap();
        connections.push(device);
    }
    connections
}

#[tokio::test(flavor = "multi_thread")]
async fn idle_sessions_cost_little_and_abandoned_ones_nothing() {
    let (idle, abandoned) = if std::env::var_os("SECO_SLOW").is_some() { (2000, 5000) } else { (400, 600) };
    let mut site = Site::new(2);
    site.pool = Pool { size: 1, low: 0, ..Pool::default() };
    site.limits = Limits {
        connections: 4000,
        sessions: 300,
        address_connections: 0,
        address_handshakes: 0,
        address_sessions: 0,
        ..site.limits
    };
    let (mut servers, address) = site.start_all();
    servers[0].wait_bundle();
    // Abandoned ones first, so that tables are as large as they get.
    for first in (0..1000).step_by(100) {
        drop(sessions(&site, address, first..first + 100).await);
    }
    // Connections that have ended are remembered for a moment.
    sleep(Duration::from_secs(3)).await;
    let before: Vec<u64> = servers.iter().map(resident).collect();
    for first in (10_000..10_000 + abandoned).step_by(100) {
        drop(sessions(&site, address, first..first + 100).await);
    }
    sleep(Duration::from_secs(3)).await;
    let after: Vec<u64> = servers.iter().map(resident).collect();
    let growth: Vec<i64> = before.iter().zip(&after).map(|(a, b)| *b as i64 - *a as i64).collect();
    println!("{abandoned} abandoned sessions: {growth:?} bytes more");
    assert!(growth.iter().all(|&bytes| bytes < 2 << 20), "{growth:?}");

    let connections = sessions(&site, address, 100_000..100_000 + idle).await;
    sleep(Duration::from_secs(3)).await;
    let each = resident(&servers[0]).saturating_sub(after[0]) / u64::from(idle);
    println!("{idle} idle sessions: {each} bytes each");
    assert!(connections.iter().all(|device| device.connection.close_reason().is_none()));
    assert!(each <= 32 << 10, "{each} bytes");
}
