//! `seco bench paper` as its user runs it: real processes of a small network, and the report they make.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::Value;

fn paper(out: &Path, more: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_seco"));
    command.args(["bench", "paper", "--model", "mlp", "--gateway-layers", "1", "--requests", "2", "--json"]);
    command.args(more).arg("--out").arg(out).stdin(Stdio::null()).output().unwrap()
}

fn report(output: &Output) -> Value {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
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

    // Once more, with a repetition more: the first ones are as they were, and new are only the others.
    let files = || fs::read_dir(out.join("parts")).unwrap().count();
    let before = files();
    let second = report(&paper(&out, &["--runs", "2"]));
    #[cfg(target_os = "linux")]
    for run in second["runs"].as_array().unwrap() {
        let load = &run["spread"]["load_at_start"];
        for report in [&first, &second] {
            let then = &report["machine"]["load_at_start"];
            assert!(then.is_number() && [&load["min"], &load["max"]].contains(&then), "{run}");
        }
    }
    assert_eq!(files(), before + 4, "four parts more");
    for run in second["runs"].as_array().unwrap() {
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
