//! A server that stands still, or is slow, while a large layer is garbled: `seco bench relu`, whose servers are
//! processes. The others wait for it with bounded memory and go on when it does, or end with an error that
//! names it.

use std::fs::read_to_string;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use serde_json::Value;

/// 5.2 million AND gates: several waves (`seco-protocol`, module `nonlinear`).
const COUNT: &str = "60000";
/// What a server may have in memory: five waves, tables up to `--memory`, code.
const MOST: u64 = 600 << 20;

fn start(more: &[&str]) -> Child {
    let arguments = ["bench", "relu", "--servers", "3", "--count", COUNT, "--memory", "64", "--json"];
    let mut command = Command::new(env!("CARGO_BIN_EXE_seco"));
    command.args(arguments).args(more).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.spawn().unwrap()
}

/// Processes of servers 0, 1 (the evaluator) and 2; the last is started first.
fn servers(parent: &Child) -> [u32; 3] {
    let begin = Instant::now();
    loop {
        let threads = std::fs::read_dir(format!("/proc/{}/task", parent.id())).unwrap();
        let children = threads.filter_map(|t| read_to_string(t.ok()?.path().join("children")).ok());
        let mut found: Vec<u32> = children
            .flat_map(|c| c.split_whitespace().map(|p| p.parse().unwrap()).collect::<Vec<_>>())
            .collect();
        found.sort_unstable();
        if let [two, one, zero] = found[..] {
            return [zero, one, two];
        }
        assert!(begin.elapsed() < Duration::from_secs(30), "{found:?}");
        sleep(Duration::from_millis(10));
    }
}

fn signal(process: u32, signal: &str) {
    assert!(Command::new("kill").args([signal, &process.to_string()]).status().unwrap().success());
}

/// Bytes resident now.
fn resident(process: u32) -> u64 {
    let status = read_to_string(format!("/proc/{process}/status")).unwrap();
    let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:")).unwrap();
    line.trim().strip_suffix(" kB").unwrap().trim().parse::<u64>().unwrap() * 1024
}

/// Waits until a server has begun to garble: it has more than code in memory.
fn busy(process: u32) {
    let begin = Instant::now();
    while resident(process) < 60 << 20 {
        assert!(begin.elapsed() < Duration::from_secs(60), "does not begin");
        sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_server_that_stands_still_for_five_seconds_costs_five_seconds() {
    // The evaluator, which everybody sends to, and a garbler.
    for paused in [1, 0] {
        let begin = Instant::now();
        let parent = start(&[]);
        let servers = servers(&parent);
        busy(servers[paused]);
        signal(servers[paused], "-STOP");
        sleep(Duration::from_secs(5));
        let memory = servers.map(resident);
        signal(servers[paused], "-CONT");
        check(parent);
        assert!(begin.elapsed() > Duration::from_secs(5));
        assert!(memory.iter().all(|&bytes| bytes < MOST), "{memory:?}");
    }
}

/// From a finished measurement: all values right, no server's memory beyond the limit.
fn check(parent: Child) -> Value {
    let output = parent.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["exact"], true, "{report}");
    let mut peak = report["peak_memory_bytes"].as_array().unwrap().iter().map(|b| b.as_u64().unwrap());
    assert!(peak.all(|bytes| bytes < MOST), "{report}");
    report
}

#[test]
fn a_slow_link_slows_everybody_and_fills_nobody() {
    let report = check(start(&["--slow-link", "20"]));
    // At least the rounds: twice 20 ms for each of OT, bits, corrections and tables.
    assert!(report["preprocessing_s"][0].as_f64().unwrap() > 0.16, "{report}");
}

#[test]
fn a_server_that_stands_still_for_too_long_is_named_by_the_others() {
    let parent = start(&[]);
    let servers = servers(&parent);
    busy(servers[1]);
    signal(servers[1], "-STOP");
    let stopped = Instant::now();
    // Dead or not: the process that was started ends all.
    let output = parent.wait_with_output().unwrap();
    assert!(stopped.elapsed() < Duration::from_secs(40), "{:?}", stopped.elapsed());
    assert!(!output.status.success() && output.stdout.is_empty());
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(text.contains("server 1 ended the exchange"), "{text}");
    assert!(!text.contains("panicked"), "{text}");
}
