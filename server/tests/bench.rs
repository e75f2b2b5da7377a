//! `seco bench` as its user runs it: the real binary, real processes.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::process::{Command, Output, Stdio};

use serde_json::Value;

fn seco(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_seco")).args(arguments).stdin(Stdio::null()).output().unwrap()
}

#[test]
fn a_two_party_device_computes_the_same_and_its_cost_is_told() {
    let output = seco(&["bench", "device", "--model", "mlp", "--count", "2", "--json"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["model"], "mlp");
    assert_eq!(report["inferences"], 2);
    assert_eq!(report["equal"], true, "{report}");
    assert_eq!(report["relus"], 32);
    let number = |path: &str| {
        report.pointer(path).and_then(Value::as_f64).unwrap_or_else(|| panic!("{path}: {report}"))
    };
    for field in ["setup_cpu_s", "preprocessing_cpu_s", "online_cpu_s", "peak_memory_bytes", "storage_bytes"]
    {
        assert!(number(&format!("/device/{field}")) > 0.0, "{field}: {report}");
        assert!(number(&format!("/server/{field}")) > 0.0, "{field}: {report}");
    }
    assert!(number("/device/preprocessing_wall_s") > 0.0 && number("/device/online_wall_s") > 0.0);
    // The only ReLU layer is the device's to evaluate, and the server's to garble.
    assert_eq!(number("/device/relus_evaluated"), 32.0);
    assert_eq!(number("/device/and_gates_garbled"), number("/server/and_gates_evaluated"));
    let gates = number("/device/and_gates_evaluated") + number("/device/and_gates_garbled");
    assert_eq!(gates, number("/and_gates"));
    // Two ciphertexts for every gate, towards its evaluator; among other things.
    assert!(number("/device/preprocessing_bytes_down") > 32.0 * number("/device/and_gates_evaluated"));
    assert!(number("/device/preprocessing_bytes_up") > 32.0 * number("/device/and_gates_garbled"));
    // The masked input, the device's own word for the input step, and its confirmation.
    assert!(number("/device/online_bytes_up") > (64 + 64 + 32) as f64);
    assert!(number("/device/online_bytes_down") > number("/seco_device/answer_frame_bytes_down"));
    // The device has no bundle without a word for every input and output of both layers.
    assert!(number("/device/storage_bytes") > (4 * (64 + 32 + 32 + 10)) as f64);
    // Frame, version, tag, handle, counter and length around 64 bytes.
    assert_eq!(number("/seco_device/request_frame_bytes_up"), 70.0);
}

#[test]
fn garbling_is_exact_and_its_rates_are_told() {
    for (servers, least) in [("2", 32.0), ("3", 160.0)] {
        // Not a multiple of a vector's lanes.
        let output = seco(&["bench", "garble", "--servers", servers, "--count", "203", "--json"]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let report: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(report["exact"], true, "{report}");
        for field in ["garble_and_per_cpu_s", "eval_and_per_cpu_s", "garble_with_cross_and_per_cpu_s"] {
            assert!(report[field].as_f64().unwrap() > 0.0, "{field}: {report}");
        }
        for field in ["garble_and_per_s", "eval_and_per_s", "peak_memory_bytes"] {
            assert!(report[field].as_f64().unwrap() > 0.0, "{field}: {report}");
        }
        assert!(report["bytes_per_and"].as_f64().unwrap() >= least, "{report}");
        assert!(report["calibration"]["aes_blocks_per_s"].as_f64().unwrap() > 0.0, "{report}");
    }
}

#[test]
fn transfers_are_exact_and_as_short_as_their_parameter_says() {
    let output = seco(&["bench", "ot", "--parameter", "4", "--count", "4096", "--json"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&report["exact"], &report["parameter"]), (&true.into(), &4.into()), "{report}");
    assert_eq!(report["bytes_per_ot"].as_f64(), Some(4.0), "{report}");
    for figures in report["all"].as_array().unwrap() {
        assert!(figures["ot_per_cpu_s"].as_f64().unwrap() > 0.0, "{report}");
        let parameter = figures["parameter"].as_f64().unwrap();
        assert_eq!(figures["bytes_per_ot"].as_f64(), Some(16.0 / parameter), "{report}");
    }
    let output = seco(&["bench", "ot", "--parameter", "3"]);
    assert!(!output.status.success() && output.stdout.is_empty());
}

#[test]
fn homomorphic_steps_are_exact_and_told_by_ciphertext() {
    let output = seco(&["bench", "he", "--servers", "2", "--json"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["exact"], true, "{report}");
    for layer in report["layers"].as_array().unwrap() {
        for step in ["weights", "encrypt", "multiply", "answer", "decode"] {
            assert!(layer[format!("{step}_cpu_ms")].as_f64().unwrap() > 0.0, "{step}: {report}");
        }
        // Residues are packed without gaps.
        for (bits, bytes) in
            [("q_bits", "bytes_in_per_ciphertext"), ("q_prime_bits", "bytes_c1_per_ciphertext")]
        {
            let bits = layer[bits].as_u64().unwrap();
            assert!(bits <= 202 && layer[bytes] == bits * 8192 / 8, "{report}");
        }
    }
}

#[test]
fn a_relu_layer_between_processes_is_exact_with_and_without_files() {
    for (servers, memory, parameter) in [("2", "0", "2"), ("3", "1", "2"), ("3", "256", "8"), ("4", "0", "1")]
    {
        // More than two batches, the last of them short.
        let arguments = ["bench", "relu", "--count", "2100", "--json", "--servers", servers];
        let output = seco(&[&arguments[..], &["--memory", memory, "--ot-parameter", parameter]].concat());
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let report: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(report["exact"], true, "{report}");
        assert_eq!(report["and_gates_per_relu"].as_f64(), Some(19.0), "{report}");
        assert_eq!(report["peak_memory_bytes"].as_array().unwrap().len().to_string(), servers);
        for field in ["cpu_us_per_relu", "online_cpu_us_per_relu", "and_per_cpu_s", "eval_and_per_cpu_s"] {
            assert!(report[field].as_f64().unwrap() > 0.0, "{field}: {report}");
        }
        // All links, by hand: tables; correlated OTs of random wires, of masks of ANDs (twice but for the first) and
        // of signs; bits of cross terms; conversions of the bits of ρ, of λ_t and λ_b, products with λ_t; openings.
        let (n, per_ot) = (servers.parse::<f64>().unwrap(), 16.0 / parameter.parse::<f64>().unwrap());
        let g = n - 1.0;
        let tables = 19.0 * 16.0 * g * (3.0 * n - 4.0);
        let ots = 21.0 * g + (20.0 + 19.0 + 18.0) * g * (n - 2.0);
        let rho: f64 = (0..20).map(|i| f64::from(if i < 8 || i == 19 { 20 - i % 19 } else { 28 - i })).sum();
        let conversions = rho * n * g / 2.0 + 40.0 * g * (g - 1.0) / 2.0 + g * (60.0 * (g - 1.0) + 40.0);
        let bits = 2.0 * 18.0 * g * (n - 2.0) + conversions + 20.0 * g;
        let preprocessing = tables + ots * per_ot + bits / 8.0;
        let measured = report["bytes_per_relu"].as_f64().unwrap();
        assert!((preprocessing..preprocessing * 1.03).contains(&measured), "{preprocessing}: {report}");
        // Labels, projections, the opening to all and the answer to nobody else.
        let online = 16.0 * 19.0 * g + (80.0 * g + 20.0 * g) / 8.0;
        let measured = report["online_bytes_per_relu"].as_f64().unwrap();
        assert!((online..online * 1.02).contains(&measured), "{online}: {report}");
        assert!(report["stored_bytes_per_relu"].as_f64().unwrap() > 16.0 * 3.0 * g, "{report}");
    }
}

#[test]
fn both_transports_between_servers_are_measured() {
    let output = seco(&["bench", "net", "--megabytes", "40", "--transport", "tcp", "--json"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["transport"], "tcp", "{report}");
    for figures in report["all"].as_array().unwrap().iter().chain([&report]) {
        assert!(figures["cpu_s_per_gb"].as_f64().unwrap() > 0.0, "{report}");
    }
}

#[test]
fn the_table_is_for_people_and_mistakes_are_one_line() {
    let output = seco(&["bench", "device", "--model", "mlp", "--count", "1"]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success() && text.contains("equal, bit for bit"), "{text}");
    assert!(text.contains("32 of 32") && text.contains("peak memory"), "{text}");
    for arguments in [&["--model", "none"][..], &["--model", "mlp", "--count", "0"]] {
        let output = seco(&[&["bench", "device"], arguments].concat());
        let text = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success() && text.lines().count() == 1, "{text}");
    }
}

#[test]
fn devices_load_a_cluster_and_every_answer_is_checked() {
    let arguments =
        ["--model", "mlp", "--devices", "6", "--requests", "30", "--pool", "24", "--transport", "mixed"];
    let more = ["--greedy", "4", "--idle", "8", "--abandoned", "8", "--json"];
    let output = seco(&[&["bench", "load"], &arguments[..], &more].concat());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&report["checked"], &report["wrong"]), (&true.into(), &0.into()), "{report}");
    assert_eq!((&report["requests"], &report["answers"]), (&30.into(), &30.into()), "{report}");
    let number = |path: &str| {
        report.pointer(path).and_then(Value::as_f64).unwrap_or_else(|| panic!("{path}: {report}"))
    };
    let latency = ["p50", "p90", "p99", "max"].map(|point| number(&format!("/latency_ms/{point}")));
    assert!(latency[0] > 0.0 && latency.is_sorted(), "{report}");
    // More requests than bundles: some had to wait, and were told.
    assert!(number("/waits/count") > 0.0 && number("/waits/told_ms/max") > 0.0, "{report}");
    assert!(number("/fairness/jain") > 0.0 && number("/fairness/greedy") > 0.0, "{report}");
    for server in 0..3 {
        for field in ["memory_before", "memory_after", "memory_peak", "handles"] {
            assert!(number(&format!("/processes/{server}/{field}")) > 0.0, "{field}: {report}");
        }
    }
    assert!(number("/cpu_ms_per_answer") > 0.0 && number("/answers_per_s") > 0.0, "{report}");
    assert_eq!((number("/idle/sessions"), number("/abandoned/sessions")), (8.0, 8.0));
    assert!(number("/idle/newcomer_ms") > 0.0);
}

#[test]
fn load_that_cannot_be_is_refused_in_one_line() {
    for (arguments, part) in [
        (&["--deployment", "missing.toml"][..], "missing.toml"),
        (&["--requests", "5", "--seconds", "5"], "cannot be used with"),
        (&["--unchecked"], "--deployment"),
    ] {
        let output = seco(&[&["bench", "load"], arguments].concat());
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && said.contains(part), "{arguments:?}: {said}");
    }
}
