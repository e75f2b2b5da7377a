//! Servers that stand still at any time and go on: a machine that sleeps, is moved, or swaps. One of two seconds; with
//! `SECO_SLOW=1` several of 5, 15 and 60 seconds of every server. No request fails whose time limit is some seconds longer.
//! Those who wait for it notice one that is away for longer than eight seconds, and the links are made anew.

use std::time::{Duration, Instant};

use chacha20::rand_core::Rng as _;

use crate::common::{LIMIT, rng};
use crate::devices::PATIENCE;
use crate::{MARGIN, Outages, ledgers};

/// Rounds of each server, by length in seconds.
const SLOW: [(u64, usize); 3] = [(5, 4), (15, 4), (60, 2)];
/// Of the bundles that were ready so many may be lost: those of requests that were under way, or tried again before
/// the link was given up.
const UNDER_WAY: usize = 8;
/// So many are ready before a server stops.
const READY: usize = 20;
/// The longest time under load until then, in milliseconds; the half of it at the next try, if nearly all were used.
const LOAD: u64 = 150;
/// So often a server is stopped until more bundles are ready than may be lost.
const TRIES: u32 = 8;

#[tokio::test(flavor = "multi_thread")]
async fn stopped_at_any_time() {
    let mut random = rng(78);
    let mut rounds: Vec<(u64, usize)> = match std::env::var_os("SECO_SLOW") {
        Some(_) => {
            let each = SLOW.iter().flat_map(|&(length, count)| std::iter::repeat_n(length, count));
            each.flat_map(|length| (0..3).map(move |server| (length, server))).collect()
        }
        None => vec![(2, (random.next_u32() % 3) as usize)],
    };
    // In any order.
    for last in (1..rounds.len()).rev() {
        rounds.swap(last, random.next_u32() as usize % (last + 1));
    }
    let outages = Outages::start();
    outages.devices.served("before the first").await;
    let mut waits: Vec<((u64, usize), Duration)> = Vec::new();
    for (round, &(length, victim)) in rounds.iter().enumerate() {
        let told = format!("round {round}, server {victim} for {length} s");
        outages.devices.errors();
        let mut tries = 0;
        let ready = loop {
            outages.devices.rest(true);
            let begin = Instant::now();
            while ledgers::ready(&outages.states).len() < READY {
                assert!(begin.elapsed() < LIMIT, "bundles are not made");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            outages.devices.rest(false);
            let load = random.next_u64() % ((LOAD >> tries) + 1);
            tokio::time::sleep(Duration::from_millis(load)).await;
            outages.servers[victim].signal("-STOP");
            let spent_before = ledgers::spent(&outages.states);
            let mut ready = ledgers::ready(&outages.states);
            ready.retain(|bundle| !spent_before.contains(bundle));
            if ready.len() > UNDER_WAY {
                break ready;
            }
            // On a fast machine devices may have used nearly all until then: that would show nothing.
            outages.servers[victim].signal("-CONT");
            outages.devices.served(&told).await;
            tries += 1;
            assert!(tries < TRIES, "{told}: {} bundles are ready at the stop", ready.len());
        };
        tokio::time::sleep(Duration::from_secs(length)).await;
        outages.devices.go_on();
        let meanwhile = ledgers::spent(&outages.states);
        outages.servers[victim].signal("-CONT");
        let wait = outages.devices.served(&told).await;
        waits.push(((length, victim), wait));
        // What was ready is there still, or was used, and that for answers after the stop.
        tokio::time::sleep(Duration::from_millis(300)).await;
        let left = ledgers::ready(&outages.states);
        let spent = ledgers::spent(&outages.states);
        let after: Vec<_> =
            ready.iter().filter(|&bundle| spent.contains(bundle) && !meanwhile.contains(bundle)).collect();
        let lost: Vec<_> = ready.iter().filter(|&b| !left.contains(b) && !after.contains(&b)).collect();
        println!(
            "{told}: {wait:.2?}; of {} bundles {} used after it, {} lost",
            ready.len(),
            after.len(),
            lost.len()
        );
        assert!(!after.is_empty(), "{told}: no bundle of before was used");
        assert!(lost.len() <= UNDER_WAY, "{told}: {} of {} bundles are lost", lost.len(), ready.len());
        // A request waits for what passes, as long as its limit allows.
        let errors = outages.devices.errors();
        let patient = Duration::from_secs(length) + MARGIN <= PATIENCE;
        assert!(!patient || errors.is_empty(), "{told}: {errors:?}");
        errors.iter().for_each(|error| println!("{told}: {error}"));
    }
    waits.sort();
    for of_one in waits.chunk_by(|(a, _), (b, _)| a == b) {
        let ((length, server), longest) = of_one[of_one.len() - 1];
        println!("server {server}, {length} s: {} rounds, {longest:.2?} at most", of_one.len());
    }
    outages.end().await;
}
