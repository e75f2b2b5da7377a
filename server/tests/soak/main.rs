//! Real load for a long time: no server grows in memory, open handles or disk, and every answer is right. 12 seconds; 20
//! minutes with `SECO_SLOW=1`, or so many seconds as `SECO_SOAK_S` says. And a working day, by clocks that run faster.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "../common/mod.rs"]
mod common;
#[cfg(target_os = "linux")]
mod day;

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use common::Site;
use common::usage::{Use, has_not_grown};
use seco_node::config::Limits;
use serde_json::Value;

/// Rounds of load, fewer in a run of less than a minute; each opens sessions anew, and leaves them at its end.
const ROUNDS: u64 = 10;
const FEW_ROUNDS: u64 = 6;
/// After so many of them, servers have what they need.
const WARM: usize = 3;
/// Memory that may come and go: buffers of the allocator, of connections, of bundles.
const MEMORY: u64 = 24 << 20;
/// Sockets and files that may be open for a moment: a bundle that is being made, a connection that is ending.
const HANDLES: u64 = 24;
/// Threads that compute come and go.
const THREADS: u64 = 8;
/// A spent bundle's record in the ledger is 65 bytes, one that is made and one that is ready as much at most; every
/// device leaves a session.
const DISK_PER_ANSWER: u64 = 256;
const DISK: u64 = 4 << 20;

/// Load for a while; what `seco bench load` reports.
fn load(deployment: &Path, seconds: u64) -> Value {
    let output = Command::new(env!("CARGO_BIN_EXE_seco"))
        .args([
            "bench",
            "load",
            "--model",
            "mlp",
            "--devices",
            "12",
            "--greedy",
            "20",
            "--transport",
            "mixed",
        ])
        .args(["--abandoned", "100", "--json", "--seconds", &seconds.to_string(), "--deployment"])
        .arg(deployment)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn nothing_grows() {
    if !cfg!(target_os = "linux") {
        println!("skipped: what processes use is known on Linux alone");
        return;
    }
    let slow = std::env::var_os("SECO_SLOW").is_some();
    let given = std::env::var("SECO_SOAK_S").ok().map(|seconds| seconds.parse().expect("seconds"));
    let seconds: u64 = given.unwrap_or(if slow { 1200 } else { 12 });
    let rounds = if seconds < 60 { FEW_ROUNDS } else { ROUNDS };
    let mut site = Site::new(3);
    // All devices are at one address.
    site.limits = Limits { address_handshakes: 0, ..site.limits };
    let (mut servers, address) = site.start_all();
    servers[0].wait_bundle();
    let file = site.folder.path().join("deployment.toml");
    site.deployment(address);
    let states: Vec<_> = (0..3).map(|index| site.config(index).state).collect();
    let start = Instant::now();
    let mut answers = Vec::new();
    let mut uses: Vec<Vec<Use>> = Vec::new();
    for round in 0..rounds {
        let report = load(&file, (seconds / rounds).max(1));
        assert_eq!(report["checked"], true);
        assert_eq!(report["wrong"], 0, "{report}");
        // None but the greedy one's are too many at a time.
        let refusals = report["refusals"].as_object().unwrap();
        assert!(refusals.keys().all(|kind| kind == "busy"), "{report}");
        assert!(report["fairness"]["min"].as_u64().unwrap() > 0, "{report}");
        answers.push(report["answers"].as_u64().unwrap());
        // Connections end, and what was making for them.
        std::thread::sleep(Duration::from_secs(1));
        let now = Use::of_all(&servers, &states);
        println!(
            "{:>5} s, round {round}: {} answers, {now:?}",
            start.elapsed().as_secs(),
            answers[round as usize]
        );
        uses.push(now);
    }
    let since: u64 = answers[WARM..].iter().sum();
    let (warm, last) = (&uses[WARM - 1], &uses[uses.len() - 1]);
    // As much for each round as a long run's have.
    let part = |most: u64| most * (uses.len() - WARM) as u64 / (ROUNDS as usize - WARM) as u64;
    let disk = part(DISK) + DISK_PER_ANSWER * since;
    let most = Use { memory: part(MEMORY), handles: part(HANDLES), threads: THREADS, disk };
    has_not_grown(warm, last, most);
}
