//! Servers that are killed at any time, under devices that keep asking: no wrong answer, no error, nothing used twice, and
//! service again soon after the restart. 20 kills; 200 with `SECO_SLOW=1`.
#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use std::collections::HashSet;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use chacha20::rand_core::Rng as _;
use common::{Server, Site, digits, rng};
use seco_node::config::Pool;
use seco_node::operation::events::Event;
use seco_sdk::{Client, Deployment, Transport};

const DEVICES: usize = 4;
/// A device is served again so soon after the restart of a server; the machine may be slow.
const SOON: Duration = Duration::from_secs(3);
const MARGIN: Duration = Duration::from_secs(5);
/// The time limit of a request: longer than a server is ever away.
const PATIENCE: Duration = Duration::from_secs(20);

/// When each device was answered last, in microseconds since the start, and how many answers it had.
struct Answers {
    start: Instant,
    last: [AtomicU64; DEVICES],
    count: [AtomicU64; DEVICES],
    errors: Mutex<Vec<String>>,
}

impl Answers {
    fn now(&self) -> u64 {
        self.start.elapsed().as_micros() as u64
    }
}

async fn device(
    number: usize,
    deployment: Deployment,
    site: Arc<Site>,
    answers: Arc<Answers>,
    stop: Arc<AtomicBool>,
) {
    let via = [Transport::Quic, Transport::Tcp, Transport::Auto, Transport::Quic][number % 4];
    let builder = || {
        Client::builder(deployment.clone())
            .transport(via)
            .connect_timeout(Duration::from_secs(2))
            .request_timeout(PATIENCE)
    };
    let mut client = None;
    let digits = digits();
    let mut round = number;
    while !stop.load(Ordering::Relaxed) {
        let Some(connected) = &client else {
            match builder().connect().await {
                Ok(connected) => client = Some(connected),
                Err(error) => {
                    assert!(error.is_temporary(), "{error}");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }
            continue;
        };
        round += 1;
        let digit = &digits[round % digits.len()];
        match Client::infer(connected, digit).await {
            Ok(prediction) => {
                assert_eq!(prediction.logits, site.expected(digit), "device {number}");
                answers.last[number].store(answers.now(), Ordering::Relaxed);
                answers.count[number].fetch_add(1, Ordering::Relaxed);
            }
            Err(error) => {
                assert!(error.is_temporary(), "{error}");
                answers.errors.lock().unwrap().push(error.to_string());
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

/// What the ledger of a server says was spent.
fn spent(state: &Path) -> Vec<Vec<u8>> {
    const RECORD: usize = 65;
    let bytes = std::fs::read(state.join("ledger")).unwrap();
    let records = bytes[16..].chunks_exact(RECORD).filter(|record| record[0] == 3);
    records.map(|record| record[1..57].to_vec()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_at_any_time() {
    let rounds = if std::env::var_os("SECO_SLOW").is_some() { 200 } else { 20 };
    let mut site = Site::new(3);
    site.pool = Pool { size: 40, low: 30, ..Pool::default() };
    let (mut servers, address) = site.start_all();
    servers[0].wait_bundle();
    let deployment = site.deployment(address);
    let configs: Vec<_> = (0..3)
        .map(|index| {
            let mut config = site.config(index);
            config.listen.device = (index == 0).then_some(address);
            site.write(&config)
        })
        .collect();
    let states: Vec<_> = (0..3).map(|index| site.config(index).state).collect();
    let site = Arc::new(site);
    let answers = Arc::new(Answers {
        start: Instant::now(),
        last: Default::default(),
        count: Default::default(),
        errors: Mutex::default(),
    });
    let stop = Arc::new(AtomicBool::new(false));
    let devices: Vec<_> = (0..DEVICES)
        .map(|number| {
            tokio::spawn(device(number, deployment.clone(), site.clone(), answers.clone(), stop.clone()))
        })
        .collect();
    let mut random = rng(77);
    let mut slowest = Duration::ZERO;
    let mut waits = Vec::new();
    for round in 0..rounds {
        let victim = (random.next_u32() % 3) as usize;
        tokio::time::sleep(Duration::from_millis(u64::from(random.next_u32() % 400))).await;
        servers[victim].signal("-KILL");
        servers[victim].ended(Duration::from_secs(10));
        tokio::time::sleep(Duration::from_millis(u64::from(random.next_u32() % 300))).await;
        let mut started = Server::start(&configs[victim], &[]);
        started.wait("sockets", |event| matches!(event, Event::Listening { .. }).then_some(()));
        servers[victim] = started;
        let (restarted, from) = (Instant::now(), answers.now());
        let served = |number: &usize| answers.last[*number].load(Ordering::Relaxed) > from;
        while !(0..DEVICES).all(|number| served(&number)) {
            let waiting: Vec<_> = (0..DEVICES).filter(|number| !served(number)).collect();
            if restarted.elapsed() > SOON + MARGIN {
                let errors = answers.errors.lock().unwrap();
                let last = &errors[errors.len().saturating_sub(8)..];
                panic!(
                    "round {round}, server {victim}: devices {waiting:?} wait for {:?}: {last:?}",
                    SOON + MARGIN
                );
            }
            assert!(devices.iter().all(|device| !device.is_finished()), "a device gave up");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        waits.push((restarted.elapsed(), victim));
        slowest = slowest.max(restarted.elapsed());
    }
    stop.store(true, Ordering::Relaxed);
    for device in devices {
        device.await.unwrap();
    }
    waits.sort();
    println!(
        "{rounds} kills: waits {:?} (median), {slowest:?} (longest, {:?})",
        waits[rounds / 2],
        waits.last()
    );
    for server in 0..3 {
        let longest = waits.iter().rfind(|(_, victim)| *victim == server);
        println!("server {server}: {:?} at most", longest.map(|(wait, _)| wait));
    }
    let count = |number: usize| answers.count[number].load(Ordering::Relaxed);
    let errors = std::mem::take(&mut *answers.errors.lock().unwrap());
    println!("answers {:?}, errors {}", [0, 1, 2, 3].map(count), errors.len());
    assert!(errors.is_empty(), "restarts are not the application's business: {errors:?}");
    for server in &mut servers {
        server.signal("-KILL");
        let _ = server.process.wait();
    }
    // No bundle and no request is twice in a ledger, and none is spent for something else elsewhere.
    let mut uses = std::collections::HashMap::new();
    for state in &states {
        let ledger = spent(state);
        assert_eq!(ledger.iter().collect::<HashSet<_>>().len(), ledger.len());
        for record in ledger {
            let (bundle, usage) = record.split_at(16);
            let known = uses.entry(bundle.to_vec()).or_insert_with(|| usage.to_vec());
            assert_eq!(*known, usage, "a bundle was spent for two requests");
        }
    }
    let distinct: HashSet<_> = uses.values().collect();
    assert_eq!(distinct.len(), uses.len(), "a request was answered with two bundles");
}
