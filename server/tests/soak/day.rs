//! A working day of eight hours: devices that come and go, a server that stands still now and then, and all that servers
//! do by the clock. Servers and devices are real processes with real sockets; the clocks they ask, and the times they
//! wait, run faster (`clock.c`), so that the machine seems slower to them by as much.
//!
//! `SECO_SLOW=1` runs it; `SECO_SOAK_HOURS` says how long a day is, `SECO_SOAK_RATE` how many of its seconds pass in one.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use chacha20::ChaCha20Rng;
use chacha20::rand_core::{Rng as _, SeedableRng as _};
use seco_node::config::{Access, Limits, Pool};
use seco_sdk::{Client, Deployment, Error, Refusal, Token, Transport};
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::common::admin::{metrics, seco, start, sum, text};
use crate::common::usage::{Use, has_not_grown};
use crate::common::{Site, digits, ledgers, rng};

const MINUTE: Duration = Duration::from_secs(60);
/// A device comes, on average, so often.
const ARRIVALS: Duration = Duration::from_secs(45);
/// What a device does between two requests takes up to so long.
const THINKING: Duration = Duration::from_secs(40);
/// Most requests of one device.
const REQUESTS: u64 = 24;
/// Requests an hour of the token whose owner asks more often than that.
const QUOTA: usize = 60;

/// Of a day.
fn hours() -> f64 {
    std::env::var("SECO_SOAK_HOURS").map_or(8.0, |hours| hours.parse().unwrap())
}

/// Compiles the clock; says why if that cannot be.
fn clock(folder: &Path) -> Result<PathBuf, String> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/soak/clock.c");
    let library = folder.join("clock.so");
    let mut compiler = Command::new("cc");
    compiler.args(["-O2", "-shared", "-fPIC", "-o"]).arg(&library).arg(source).arg("-ldl");
    match compiler.output() {
        Ok(output) if output.status.success() => Ok(library),
        Ok(output) => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
        Err(error) => Err(format!("cc: {error}")),
    }
}

#[test]
fn nothing_grows_in_a_working_day() {
    if std::env::var_os("SECO_SLOW").is_none() {
        println!("SKIPPED: it takes twenty minutes; SECO_SLOW=1 runs it");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let clock = match clock(folder.path()) {
        Ok(clock) => clock,
        Err(why) => {
            println!("SKIPPED: no compiler for the clock: {why}");
            return;
        }
    };
    let rate = std::env::var("SECO_SOAK_RATE").unwrap_or_else(|_| "24".to_owned());
    let start = Instant::now();
    let status = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "day::working_day", "--ignored", "--nocapture"])
        .env("LD_PRELOAD", clock)
        .env("SECO_CLOCK_RATE", &rate)
        .status()
        .unwrap();
    assert!(status.success());
    let took = start.elapsed();
    println!("{rate} seconds in one; it took {:.0} s", took.as_secs_f64());
    // It was run, and not by the system's clock.
    let least = hours() * 3600.0 / rate.parse::<f64>().unwrap();
    assert!((least..2.0 * least + 60.0).contains(&took.as_secs_f64()), "expected {least} s, and little more");
}

/// What happened to devices.
#[derive(Default)]
struct Seen {
    devices: AtomicUsize,
    answers: AtomicUsize,
    /// Requests without an answer, by what the device was told.
    failed: Mutex<BTreeMap<String, usize>>,
    /// Of the token with a quota: answers, and requests beyond it.
    within: AtomicUsize,
    beyond: AtomicUsize,
    closing: AtomicBool,
}

impl Seen {
    fn fails(&self, error: &Error) {
        *self.failed.lock().unwrap().entry(error.to_string()).or_default() += 1;
    }
}

/// The servers' world, for devices.
struct World {
    deployment: Deployment,
    /// Numbers that the model gives for each digit.
    expected: Vec<Vec<i32>>,
    token: Token,
    quota: Token,
    seen: Seen,
}

fn below(random: &mut ChaCha20Rng, limit: u64) -> u64 {
    random.next_u64() % limit
}

impl World {
    fn client(&self, token: &Token, random: &mut ChaCha20Rng) -> seco_sdk::ClientBuilder {
        let transport = [Transport::Auto, Transport::Quic, Transport::Tcp][below(random, 3) as usize];
        let builder = Client::builder(self.deployment.clone()).token(token.clone()).transport(transport);
        builder.connect_timeout(MINUTE).request_timeout(3 * MINUTE)
    }

    fn check(&self, number: usize, logits: &[i32]) {
        assert_eq!(logits, self.expected[number], "digit {number}");
        self.seen.answers.fetch_add(1, Ordering::Relaxed);
    }

    /// One device, from its coming to its going.
    async fn device(self: Arc<Self>, mut random: ChaCha20Rng) {
        self.seen.devices.fetch_add(1, Ordering::Relaxed);
        let client = match self.client(&self.token, &mut random).connect().await {
            Ok(client) => client,
            Err(error) => return self.seen.fails(&error),
        };
        for _ in 0..below(&mut random, REQUESTS) {
            let (number, pair) = (below(&mut random, 20) as usize, below(&mut random, 20) as usize);
            let digits = digits();
            // Sometimes two at a time, sometimes one that is given up.
            match below(&mut random, 8) {
                0 => {
                    let both = client.infer_many(&[&digits[number], &digits[pair]]).await;
                    for (number, result) in [number, pair].into_iter().zip(both) {
                        match result {
                            Ok(answer) => self.check(number, &answer.logits),
                            Err(error) => self.seen.fails(&error),
                        }
                    }
                }
                1 => {
                    let patience = Duration::from_millis(below(&mut random, 3000));
                    let given_up = tokio::time::timeout(patience, client.infer(&digits[number])).await;
                    match given_up {
                        Ok(Ok(answer)) => self.check(number, &answer.logits),
                        Ok(Err(error)) => self.seen.fails(&error),
                        Err(_) => {}
                    }
                }
                _ => match client.infer(&digits[number]).await {
                    Ok(answer) => self.check(number, &answer.logits),
                    Err(error) => self.seen.fails(&error),
                },
            }
            sleep(THINKING.mul_f64(below(&mut random, 1000) as f64 / 1000.0)).await;
        }
        // It may stay for long without a word, or be gone without one.
        match below(&mut random, 3) {
            0 => sleep(MINUTE * below(&mut random, 20) as u32).await,
            1 => client.close().await,
            _ => {}
        }
    }

    /// Asks four times as often as its token is good for.
    async fn greedy(self: Arc<Self>) {
        let (mut random, digits) = (rng(77), digits());
        let client = self.client(&self.quota, &mut random).connect().await.unwrap();
        while !self.seen.closing.load(Ordering::Relaxed) {
            match client.infer(&digits[3]).await {
                Ok(answer) => {
                    self.check(3, &answer.logits);
                    self.seen.within.fetch_add(1, Ordering::Relaxed);
                }
                Err(Error::Refused(Refusal::TokenExhausted { .. })) => {
                    self.seen.beyond.fetch_add(1, Ordering::Relaxed);
                }
                Err(error) => self.seen.fails(&error),
            }
            sleep(MINUTE / 4).await;
        }
    }

    /// Devices come until the day is over, and the last ones go.
    async fn devices(self: Arc<Self>) {
        let (mut random, mut here) = (rng(9), JoinSet::new());
        let greedy = tokio::spawn(self.clone().greedy());
        while !self.seen.closing.load(Ordering::Relaxed) {
            let device = ChaCha20Rng::from_rng(&mut random);
            here.spawn(self.clone().device(device));
            while let Some(done) = here.try_join_next() {
                done.unwrap();
            }
            sleep(ARRIVALS.mul_f64(2.0 * below(&mut random, 1000) as f64 / 1000.0)).await;
        }
        while let Some(done) = here.join_next().await {
            done.unwrap();
        }
        greedy.await.unwrap();
    }
}

fn token(config: &Path, arguments: &[&str]) -> Token {
    let made = seco(&[&["token", "--json", "--config", config.to_str().unwrap(), "add"], arguments].concat());
    assert!(made.status.success(), "{}", text(&made.stderr));
    let made: serde_json::Value = serde_json::from_slice(&made.stdout).unwrap();
    made["token"].as_str().unwrap().parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "the day, which is started with other clocks"]
async fn working_day() {
    assert!(std::env::var_os("SECO_CLOCK_RATE").is_some(), "it is started by the test beside it");
    let mapped = std::fs::read_to_string("/proc/self/maps").unwrap();
    assert!(mapped.contains("clock.so"), "the system did not load the clock");
    let day = (MINUTE * 60).mul_f64(hours());
    let mut site = Site::new(3);
    site.admin = true;
    site.pool = Pool { size: 8, low: 6, ..Pool::default() };
    site.limits = Limits::default();
    site.access = Some(Access { tokens: site.folder.path().join("tokens.toml"), required: true });
    // The others are not known yet; one who makes tokens does not need them.
    let mut alone = site.config(0);
    alone.peers.iter_mut().for_each(|peer| peer.address = Some("127.0.0.1:9".to_owned()));
    let operator = site.folder.path().join("operator.toml");
    alone.save(&operator).unwrap();
    let quota = QUOTA.to_string();
    let usual = token(&operator, &["--label", "app"]);
    let limited = token(&operator, &["--label", "limited", "--requests-hour", &quota]);
    let short = token(&operator, &["--label", "short", "--expires", "1h"]);

    let begin = Instant::now();
    let (two, port_two, _) = start(&mut site, 2, &[]);
    let (one, port_one, _) = start(&mut site, 1, &[]);
    // The gateway comes later: the others say so once a minute.
    sleep(5 * MINUTE).await;
    let (gateway, port, device) = start(&mut site, 0, &[]);
    let mut servers = [gateway, one, two];
    servers[0].wait_bundle();
    for server in &servers[1..] {
        let said = server.said().lines().filter(|line| line.contains("waiting: server 0")).count();
        assert!((4..=5).contains(&said), "{}", server.said());
    }
    let states: Vec<PathBuf> = (0..3).map(|index| site.config(index).state).collect();
    let world = Arc::new(World {
        deployment: site.deployment(device.unwrap()),
        expected: digits().iter().map(|digit| site.expected(digit)).collect(),
        token: usual,
        quota: limited,
        seen: Seen::default(),
    });
    let short = Client::builder(world.deployment.clone()).token(short).connect().await.unwrap();
    short.infer(&digits()[0]).await.unwrap();
    let devices = tokio::spawn(world.clone().devices());

    let (start, mut uses, mut stops) = (Instant::now(), Vec::new(), 0);
    let mut random = rng(5);
    while start.elapsed() < day {
        let quarter = Instant::now();
        // Shorter than links last, and longer.
        let (server, pause) = (below(&mut random, 3) as usize, [3, 20, 40][stops % 3]);
        sleep(MINUTE * below(&mut random, 9) as u32).await;
        servers[server].signal("-STOP");
        sleep(Duration::from_secs(pause)).await;
        servers[server].signal("-CONT");
        stops += 1;
        sleep((15 * MINUTE).saturating_sub(quarter.elapsed())).await;
        let now = Use::of_all(&servers, &states);
        let answers = world.seen.answers.load(Ordering::Relaxed);
        println!("{:>6.2} h, {answers:>5} answers: {now:?}", start.elapsed().as_secs_f64() / 3600.0);
        uses.push((answers, now));
        if uses.len() == 5 {
            // An hour is over, by the clock of the system too.
            let told = short.infer(&digits()[0]).await.unwrap_err();
            assert!(matches!(told, Error::Refused(Refusal::TokenExpired)), "{told}");
        }
    }
    world.seen.closing.store(true, Ordering::Relaxed);
    devices.await.unwrap();
    short.close().await;
    // Connections of those who left without a word end, too.
    sleep(5 * MINUTE).await;

    let seen = &world.seen;
    let [devices, answers, within, beyond] =
        [&seen.devices, &seen.answers, &seen.within, &seen.beyond].map(|count| count.load(Ordering::Relaxed));
    println!(
        "{:.2} h by these clocks: {devices} devices, {answers} answers, {within} of the token with a quota and {beyond} \
         beyond it, a server stood still {stops} times; failed {:?}",
        begin.elapsed().as_secs_f64() / 3600.0,
        seen.failed.lock().unwrap()
    );
    for (server, port) in [port, port_one, port_two].into_iter().enumerate() {
        let found = tokio::task::spawn_blocking(move || metrics(port)).await.unwrap();
        if server == 0 {
            assert_eq!(sum(&found, "seco_connections"), 0.0);
            assert_eq!(sum(&found, "seco_queue_length"), 0.0);
        }
        let lines = servers[server].said().lines().filter(|line| line.contains("connection lost")).count();
        println!(
            "server {server}: {lines} links were lost, {} bundles stored",
            sum(&found, "seco_bundles_stored")
        );
    }
    let last = Use::of_all(&servers, &states);
    // An hour in, servers have what they need.
    let (answers_warm, warm) = &uses[uses.len().min(4) - 1];
    let since = (answers - answers_warm) as u64;
    println!("after an hour {warm:?}, in the end {last:?}");
    let disk = crate::DISK + crate::DISK_PER_ANSWER * since;
    let most = Use { memory: crate::MEMORY, handles: crate::HANDLES, threads: crate::THREADS, disk };
    has_not_grown(warm, &last, most);
    // A server that stands still costs time, not answers. But for a machine that is slower by as much, and shared, a request
    // may take longer than it may.
    let failed = seen.failed.lock().unwrap();
    let late = Error::Refused(Refusal::TimedOut).to_string();
    assert!(failed.keys().all(|told| *told == late), "{failed:?}");
    assert!(failed.values().sum::<usize>() * 1000 <= answers, "{failed:?}");
    drop(failed);
    // An hour's at once, and then as they come again.
    let quota = QUOTA as f64 * (1.0 + start.elapsed().as_secs_f64() / 3600.0);
    let within = within as f64;
    assert!((quota * 0.8..=quota).contains(&within) && beyond > 0, "{within} of {quota}, {beyond} beyond");
    drop(servers.map(|mut server| server.stop()));
    ledgers::nothing_is_used_twice(&states);
}
