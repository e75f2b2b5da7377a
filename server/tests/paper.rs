//! `seco bench paper` as its user runs it: real processes of a small network, and the report they make.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};

fn paper(out: &Path, more: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_seco"));
    command.args(["bench", "paper", "--model", "mlp", "--gateway-layers", "1", "--requests", "2", "--json"]);
    command.args(more).arg("--out").arg(out).stdin(Stdio::null()).output().unwrap()
}

fn report(output: &Output) -> Value {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// What a script of `server/lab/peers` writes.
fn peer() -> Value {
    let cost = json!({"online_cpu_s": 0.5, "online_bytes_up": 1000.0, "online_bytes_down": 2000.0});
    let run = json!({
        "user": cost, "servers": [cost, cost], "waiting_s": 0.25, "preprocessing_s": null, "setup_s": 3.0,
        "equal": 4, "count": 5, "largest_error": 0.01, "load_at_start": 0.1,
    });
    json!({
        "format": "seco-peers/1", "system": "crypten", "model": "mlp", "network": "lan", "server_count": 2,
        "command": "server/lab/peers/run --runs 1", "machine": "a machine", "versions": {"crypten": "0.4.1"},
        "notes": ["a note"], "compared": "label", "runs": [run], "skipped": null,
    })
}

const FIGURES: [&str; 8] = [
    "online_cpu_s",
    "preprocessing_cpu_s",
    "online_bytes_up",
    "online_bytes_down",
    "preprocessing_bytes_up",
    "preprocessing_bytes_down",
    "peak_memory_bytes",
    "storage_bytes",
];

#[test]
fn every_system_is_measured_reported_and_kept() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("report");
    let first = report(&paper(&out, &["--runs", "1"]));
    let runs = first["runs"].as_array().unwrap();
    let of = |system: &str, network: &str| {
        let mut found = runs.iter().filter(|run| run["system"] == system && run["network"] == network);
        found.next().unwrap_or_else(|| panic!("{system} {network}: {first}"))
    };
    assert_eq!(runs.len(), 6, "{first}");
    for run in runs {
        assert_eq!((&run["equal"], &run["count"]), (&2.into(), &2.into()), "{run}");
        assert!(run["waiting_s"].as_f64().unwrap() > 0.0, "{run}");
        // Of the command that measured it.
        #[cfg(target_os = "linux")]
        assert_eq!(run["load_at_start"], first["machine"]["load_at_start"], "{run}");
        assert!(
            run["preprocessing_s"].as_f64().is_some() && run["gateway_layers"].as_u64().is_some(),
            "{run}"
        );
        let servers = run["servers"].as_array().unwrap();
        assert_eq!(servers.len() as u64, run["server_count"].as_u64().unwrap(), "{run}");
        for party in servers.iter().chain([&run["user"]]) {
            for figure in FIGURES {
                assert!(party[figure].as_f64().is_some_and(|value| value >= 0.0), "{figure}: {run}");
            }
        }
    }
    let number = |run: &Value, path: &str| run.pointer(path).and_then(Value::as_f64).unwrap();
    for network in ["lan", "wan"] {
        let (seco, delphi, plain) = (of("seco", network), of("delphi", network), of("plain", network));
        // SECO's user takes no part ahead and keeps nothing; DELPHI's does both.
        for figure in ["preprocessing_cpu_s", "preprocessing_bytes_up", "storage_bytes"] {
            assert_eq!(number(seco, &format!("/user/{figure}")), 0.0);
            assert!(number(delphi, &format!("/user/{figure}")) > 0.0);
        }
        // 64 bytes of input and what carries them; the plain request has as many.
        for run in [seco, plain] {
            assert!((64.0..400.0).contains(&number(run, "/user/online_bytes_up")), "{run}");
        }
        assert!(number(delphi, "/user/online_bytes_down") > 5_000.0);
        assert!(number(seco, "/servers/2/storage_bytes") > 0.0);
        assert!(number(seco, "/servers/1/preprocessing_bytes_up") > 10_000.0);
        // One repetition says nothing of how far others are.
        assert!(seco["spread"]["waiting_s"]["within"].is_null());
    }
    // There and back over the link.
    for system in ["seco", "delphi", "plain"] {
        assert!(number(of(system, "wan"), "/waiting_s") >= 0.04);
    }
    assert_eq!(first["paper"]["resnet32_setup"].as_array().unwrap().len(), 15);
    assert!(first["machine"]["cores"].as_u64().is_some());

    let page = fs::read_to_string(out.join("index.html")).unwrap();
    // It needs nothing from anywhere; the one address in it names SVG.
    let rest = page.replace("xmlns=\"http://www.w3.org/2000/svg\"", "");
    for outside in ["http:", "https:", "src=", "<script", "<link", "url(", "@import"] {
        assert!(!rest.contains(outside), "{outside}");
    }
    assert!(page.contains("<svg") && page.contains("prefers-color-scheme:dark") && page.contains("<desc>"));
    let kept: Value = serde_json::from_slice(&fs::read(out.join("report.json")).unwrap()).unwrap();
    assert_eq!(kept["runs"], first["runs"]);
    assert!(fs::read_to_string(out.join("report.md")).unwrap().contains("figures/user-cpu.svg"));

    // Once more, with a repetition more and what a script measured: the first ones are as they were, and new are only
    // the others.
    let peers = folder.path().join("peers.json");
    fs::write(&peers, peer().to_string()).unwrap();
    let files = || fs::read_dir(out.join("parts")).unwrap().count();
    let before = files();
    let second = report(&paper(&out, &["--runs", "2", "--peers", peers.to_str().unwrap()]));
    #[cfg(target_os = "linux")]
    for run in second["runs"].as_array().unwrap().iter().filter(|run| run["measured_by"].is_null()) {
        let load = &run["spread"]["load_at_start"];
        for report in [&first, &second] {
            let then = &report["machine"]["load_at_start"];
            assert!(then.is_number() && [&load["min"], &load["max"]].contains(&then), "{run}");
        }
    }
    assert_eq!(files(), before + 4, "four parts more");
    let (theirs, runs): (Vec<&Value>, Vec<&Value>) =
        second["runs"].as_array().unwrap().iter().partition(|run| run["measured_by"].is_object());
    let [run] = theirs.as_slice() else { panic!("{theirs:?}") };
    assert_eq!((&run["system"], &run["equal"], &run["count"]), (&"crypten".into(), &4.into(), &5.into()));
    assert!(run["preprocessing_s"].is_null() && run["user"]["storage_bytes"].is_null(), "{run}");
    for file in ["index.html", "report.md"] {
        let text = fs::read_to_string(out.join(file)).unwrap();
        for words in [
            "CrypTen, LAN: server 2",
            "4 of 5",
            "measured with crypten 0.4.1",
            "peers/run --runs 1",
            "a note",
        ] {
            assert!(text.contains(words), "{file}: {words}");
        }
    }
    for run in runs {
        assert_eq!((&run["count"], &run["repetitions"]), (&4.into(), &2.into()), "{run}");
        let spread = &run["spread"]["waiting_s"];
        assert!(
            spread["min"].as_f64() < spread["max"].as_f64() && spread["within"].as_f64() > Some(0.0),
            "{run}"
        );
        let earlier = of(run["system"].as_str().unwrap(), run["network"].as_str().unwrap());
        let waited = earlier["waiting_s"].as_f64();
        assert!([&spread["min"], &spread["max"]].iter().any(|end| end.as_f64() == waited), "{run}");
    }
}

#[test]
fn an_unknown_network_is_refused_before_anything_starts() {
    let folder = tempfile::tempdir().unwrap();
    let output = paper(&folder.path().join("report"), &["--model", "alexnet"]);
    let words = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && words.contains("alexnet") && words.contains("resnet32"), "{words}");
    assert!(!folder.path().join("report").exists());
}

#[test]
fn a_peers_file_that_is_cut_is_refused_before_anything_starts() {
    let folder = tempfile::tempdir().unwrap();
    let (out, peers) = (folder.path().join("report"), folder.path().join("peers.json"));
    let text = peer().to_string();
    fs::write(&peers, &text[..text.len() - 1]).unwrap();
    let output = paper(&out, &["--peers", peers.to_str().unwrap()]);
    let words = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && words.contains("peers.json"), "{words}");
    assert!(!out.exists());
}

/// Installs other systems from package registries, and measures them. What cannot be had is told, and is no failure.
#[test]
fn peers_are_measured_by_their_scripts_and_shown() {
    if std::env::var_os("SECO_SLOW").is_none() {
        eprintln!("SKIPPED: installs gigabytes and takes minutes; set SECO_SLOW=1");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let (out, peers) = (folder.path().join("report"), folder.path().join("peers"));
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("lab/peers/run");
    let mut command = Command::new(&script);
    command.args(["--model", "minionn", "--runs", "2", "--requests", "2", "--out"]).arg(&peers);
    let output = match command.output() {
        Ok(output) => output,
        Err(error) => {
            eprintln!("SKIPPED: {} does not start: {error}", script.display());
            return;
        }
    };
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    eprintln!("{said}");
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    let report = report(&paper(&out, &["--runs", "1", "--peers", peers.to_str().unwrap()]));
    let left_out = report["left_out"].to_string();
    let named = [
        ("onnxruntime", "onnxruntime,"),
        ("spu-cheetah", "Cheetah"),
        ("spu-semi2k", "SEMI2K"),
        ("crypten", "CrypTen"),
        ("mp-spdz", "MP-SPDZ"),
    ];
    for (system, name) in named {
        let Some(run) = report["runs"].as_array().unwrap().iter().find(|run| run["system"] == system) else {
            // Said where it was tried, and in the report.
            assert!(
                said.contains(&format!("SKIPPED {system}")) && left_out.contains(name),
                "{system}: {said}"
            );
            continue;
        };
        assert_eq!(
            (&run["model"], &run["count"], &run["repetitions"]),
            (&"minionn".into(), &4.into(), &2.into())
        );
        assert!(run["equal"].as_u64().unwrap() >= 3, "labels are hardly equal: {run}");
        let figure =
            |path: &str| run.pointer(path).and_then(Value::as_f64).unwrap_or_else(|| panic!("{path}: {run}"));
        // What the user sends, the servers receive: in full where there is one server.
        let (up, down) = (figure("/user/online_bytes_up"), figure("/servers/0/online_bytes_down"));
        assert!(up >= 28.0 * 28.0, "{run}");
        if run["server_count"] == 1 {
            assert!((up / down - 1.0).abs() < 0.01, "{run}");
        }
        assert!(figure("/user/online_cpu_s") > 0.0 && figure("/waiting_s") > 0.0, "{run}");
        assert!(run["measured_by"]["versions"].as_object().unwrap().len() > 1, "{run}");
    }
}
