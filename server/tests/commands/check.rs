//! `seco check`: what it says to people, to programs and on a page, and what it refuses.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::files::{named, network, npy, refused, values};
use serde_json::Value;
use tempfile::TempDir;

fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("data").join(name)
}

/// Standard output, standard error and success, with times from another machine.
fn check(model: &Path, input: &Path, arguments: &[&str]) -> (String, String, bool) {
    let output = Command::new(env!("CARGO_BIN_EXE_seco"))
        .arg("check")
        .arg(model)
        .arg("--input")
        .arg(input)
        .arg("--no-bench")
        .args(arguments)
        .output()
        .unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (text(output.stdout), text(output.stderr), output.status.success())
}

/// The perceptron for digits.
fn digits(arguments: &[&str]) -> (String, String, bool) {
    let labels = data("mlp-labels-20.npy");
    let own = ["--scale", "16", "--labels", labels.to_str().unwrap()];
    check(&data("mlp-digits.onnx"), &data("mlp-digits-20.npy"), &[&own[..], arguments].concat())
}

#[test]
fn people_are_told_in_eighty_columns() {
    let (told, errors, good) = digits(&[]);
    assert!(good && errors.is_empty(), "{errors}");
    assert!(told.lines().all(|line| line.chars().count() <= 80), "{told}");
    for part in [
        "It works",
        "for 20 of 20 inputs",
        "right labels, float and private",
        "sums that wrapped or were cut off",
        "ahead: bytes between servers",
        "messages in sequence",
        "Bytes and messages are those of the protocol's plan",
        " --servers 3 ",
    ] {
        assert!(told.contains(part), "{part}: {told}");
    }
    let next = told.split("\nNext\n").nth(1).unwrap();
    assert!(next.trim_start().starts_with("seco split --model "), "{next}");
}

/// The command at the end does what was checked, and its part files cost what was said.
#[test]
fn the_next_command_works() {
    let folder = TempDir::new().unwrap();
    let placement = folder.path().join("who has what.toml");
    std::fs::write(&placement, "\"1\" = [\"gateway\", \"remote-1\"]").unwrap();
    let placement = placement.to_str().unwrap();
    next_works(&["--servers", "2", "--width", "calibrated"], "--width calibrated --servers 2 ");
    next_works(
        &["--output", "label", "--placement", placement],
        &format!("--output label --servers 3 --placement '{placement}' "),
    );
    next_works(&["--shared", "gateway,remote-2"], "--servers 3 --shared gateway,remote-2 ");
}

fn next_works(arguments: &[&str], part: &str) {
    let (told, errors, good) = digits(&[arguments, &["--json"]].concat());
    assert!(good, "{errors}");
    let report: Value = serde_json::from_str(&told).unwrap();
    let folder = TempDir::new().unwrap();
    let next = report["next"].as_str().unwrap().to_owned();
    let line = next.replacen("seco", env!("CARGO_BIN_EXE_seco"), 1);
    let output = Command::new("sh").args(["-c", &line]).current_dir(folder.path()).output().unwrap();
    assert!(output.status.success(), "{next}: {}", String::from_utf8_lossy(&output.stderr));
    assert!(next.contains(part), "{next}");
    let part = std::fs::read(folder.path().join("cluster/server-1.seco")).unwrap();
    let part = seco_model::PartyModel::from_bytes(&part).unwrap();
    let cost =
        seco_protocol::cost::Cost::of(part.architecture(), |_, _| seco_protocol::OT_PARAMETER).unwrap();
    let servers = part.architecture().servers as u64;
    let totals =
        report["totals"].as_array().unwrap().iter().find(|totals| totals["servers"] == servers).unwrap();
    let said = |phase: &str| totals[phase]["bytes"].as_u64().unwrap();
    let traffic = &cost.traffic;
    assert_eq!([said("preprocessing"), said("online")], [traffic.total(false), traffic.total(true)]);
    assert_eq!(report["and_gates"].as_u64(), Some(cost.counts.and_gates));
}

#[test]
fn programs_are_told_by_stable_names() {
    let (told, errors, good) = digits(&["--json"]);
    assert!(good && errors.is_empty(), "{errors}");
    let report: Value = serde_json::from_str(&told).unwrap();
    let keys = |value: &Value| {
        let mut keys: Vec<String> = value.as_object().unwrap().keys().cloned().collect();
        keys.sort();
        keys.join(" ")
    };
    assert_eq!(
        keys(&report),
        "and_gates confusion fidelity file gateway_layers input layers macs model next precision rates refused relus servers \
         totals version warnings works"
    );
    assert_eq!(report["refused"], serde_json::json!([]));
    assert_eq!((&report["version"], &report["works"]), (&1.into(), &true.into()));
    assert_eq!(
        keys(&report["fidelity"]),
        "agreement agreement_at_least fixed_accuracy float_accuracy largest_error same wrapped"
    );
    assert_eq!(
        report["input"],
        serde_json::json!({
            "shape": [64], "bits": 8, "available": 20, "samples": 20, "fewest_bits": null, "real_numbers": null
        })
    );
    assert!(report["fidelity"]["float_accuracy"].as_f64().unwrap() >= 0.9);
    assert_eq!(
        keys(&report["layers"][0]),
        "and_gates bytes ciphertexts_in ciphertexts_out clamped headroom_bits kind largest least macs name online_bytes products \
         relus rounding scale shape used_bits width worst_bits"
    );
    let sum = |field: &str| -> u64 {
        report["layers"].as_array().unwrap().iter().filter_map(|layer| layer[field].as_u64()).sum()
    };
    assert_eq!(
        (report["and_gates"].as_u64(), report["macs"].as_u64()),
        (Some(sum("and_gates")), Some(sum("macs")))
    );
    assert_eq!(report["relus"].as_u64(), Some(sum("relus")));
    for layer in report["layers"].as_array().unwrap() {
        let field = |name: &str| layer[name].as_i64().unwrap();
        if layer["kind"] != "linear" {
            assert!(
                field("least") >= -(1 << (field("width") - 1))
                    && field("largest") < 1 << (field("width") - 1)
            );
            assert_eq!(field("used_bits") + field("headroom_bits"), field("width"));
        }
        assert!(layer["scale"].as_f64().unwrap() > 0.0, "{layer}");
    }
    let totals = report["totals"].as_array().unwrap();
    let servers: Vec<u64> = totals.iter().map(|totals| totals["servers"].as_u64().unwrap()).collect();
    assert_eq!(servers, [2, 3, 4]);
    for total in totals {
        assert_eq!(
            keys(total),
            "memory_bytes networks online preprocessing servers setup_bytes stored_bytes"
        );
        for phase in ["preprocessing", "online"] {
            let phase = &total[phase];
            assert_eq!(keys(phase), "bytes bytes_by_kind bytes_sent cpu_s rounds");
            let kinds: u64 =
                phase["bytes_by_kind"].as_object().unwrap().values().filter_map(Value::as_u64).sum();
            let sent: u64 = phase["bytes_sent"].as_array().unwrap().iter().filter_map(Value::as_u64).sum();
            assert!(kinds == sent && Some(sent) == phase["bytes"].as_u64() && sent > 0, "{phase}");
        }
        let names: Vec<&str> =
            total["networks"].as_array().unwrap().iter().map(|n| n["name"].as_str().unwrap()).collect();
        assert_eq!(names, ["lan", "wan", "loopback"]);
        let wan = &total["networks"][1];
        // Every message in sequence waits for the one before.
        let latency = total["online"]["rounds"].as_f64().unwrap() * 0.02;
        assert!(wan["online_s"].as_f64().unwrap() >= latency, "{wan}");
    }
    let counts: u64 = report["confusion"]["counts"]
        .as_array()
        .unwrap()
        .iter()
        .flat_map(|row| row.as_array().unwrap())
        .filter_map(Value::as_u64)
        .sum();
    assert_eq!(counts, 20);
}

#[test]
fn a_page_needs_nothing_else_and_obeys_nobody() {
    let folder = TempDir::new().unwrap();
    let [model, array, classes, page] =
        ["model.onnx", "array.npy", "classes.txt", "page.html"].map(|name| folder.path().join(name));
    std::fs::write(&model, named("<script>alert(1)</script>", [3, 6, 8], 3)).unwrap();
    std::fs::write(&array, npy(&[20, 144], &values(20 * 144, 255))).unwrap();
    std::fs::write(&classes, "cat & dog\n<img src=x onerror=alert(2)>\n\"bird\"\n").unwrap();
    let arguments =
        ["--report", page.to_str().unwrap(), "--classes", classes.to_str().unwrap(), "--agreement", "0"];
    let (told, errors, good) = check(&model, &array, &arguments);
    assert!(good, "{errors}");
    assert!(told.contains("Pictures are in "), "{told}");
    let html = std::fs::read_to_string(&page).unwrap();
    for part in ["<script", "<img", "http://", "https://", "src=\"", "href", "@import", "url("] {
        assert!(!html.contains(part), "{part}");
    }
    for part in [
        "&lt;script&gt;alert(1)&lt;/script&gt;",
        "cat &amp; dog",
        "&quot;bird&quot;",
        "prefers-color-scheme: dark",
        "Cost by layer",
        "Values and headroom",
        "What an inference costs",
    ] {
        assert!(html.contains(part), "{part}");
    }
    assert_eq!(html.matches("<svg").count(), 3);
    assert_eq!(html.matches("<svg").count(), html.matches("</svg>").count());
}

/// A network that is refused is refused as `seco split` refuses it, in one line.
#[test]
fn what_is_wrong_is_said_in_one_line() {
    let folder = TempDir::new().unwrap();
    let [model, array, other] = ["model.onnx", "array.npy", "other.npy"].map(|name| folder.path().join(name));
    std::fs::write(&model, network([3, 6, 8], 3)).unwrap();
    std::fs::write(&array, npy(&[10, 144], &values(1440, 255))).unwrap();
    std::fs::write(&other, npy(&[10], &[7; 10])).unwrap();
    let text = folder.path().join("text.onnx");
    std::fs::write(&text, "no model").unwrap();
    let refused = |model: &Path, input: &Path, arguments: &[&str], part: &str| {
        let (told, errors, good) = check(model, input, arguments);
        assert!(!good && told.is_empty() && errors.lines().count() == 1, "{arguments:?}: {told} {errors}");
        assert!(errors.contains(part), "{part}: {errors}");
        errors
    };
    let split = Command::new(env!("CARGO_BIN_EXE_seco"))
        .args(["split", "--servers", "3", "--out", "nowhere", "--model"])
        .args([&text, Path::new("--calibrate"), &array])
        .current_dir(folder.path())
        .output()
        .unwrap();
    assert_eq!(refused(&text, &array, &[], "text.onnx").as_bytes(), split.stderr);
    refused(Path::new("missing.onnx"), &array, &[], "missing.onnx: cannot be read");
    refused(&model, &text, &[], "text.onnx");
    refused(&model, &other, &[], "the model takes (N, 3, 6, 8)");
    refused(&model, &array, &["--labels", array.to_str().unwrap()], "10 inputs need 10 labels");
    refused(&model, &array, &["--classes", text.to_str().unwrap()], "has 1 names");
    refused(&model, &array, &["--gateway-layers", "9"], "the gateway cannot hold 9");
    refused(&model, &array, &["--agreement", "2"], "give a part from 0 to 1");
    // Before anything else is looked at.
    refused(&text, &other, &["--report", "/no/such/folder/page.html"], "cannot be written");
    let page = folder.path().join("page.html");
    refused(&text, &array, &["--report", page.to_str().unwrap()], "text.onnx");
    assert!(!page.exists());
    // Labels alone have no difference that could be told.
    let (told, errors, good) = check(&model, &array, &["--output", "label", "--json"]);
    let report: Value = serde_json::from_str(&told).unwrap();
    assert!(good && report["fidelity"]["largest_error"].is_null(), "{told} {errors}");
    assert_eq!(report["confusion"]["classes"].as_array().unwrap().len(), 3);
    let (told, errors, good) = check(&model, &array, &["--output", "label"]);
    assert!(good && !told.contains("largest difference of an answer"), "{told} {errors}");
    // Labels that no output has are no reason to refuse.
    let (told, errors, good) =
        check(&model, &array, &["--labels", other.to_str().unwrap(), "--agreement", "0"]);
    assert!(good && told.contains("labels beyond the 3 classes"), "{told} {errors}");
}

/// A network that is refused is refused in one line, and what all the rest costs is told all the same, with everything that
/// is refused.
#[test]
fn a_refused_network_has_its_costs() {
    let folder = TempDir::new().unwrap();
    let [model, array, page] = ["model.onnx", "array.npy", "page.html"].map(|name| folder.path().join(name));
    std::fs::write(&model, refused([3, 6, 8], 3)).unwrap();
    std::fs::write(&array, npy(&[10, 144], &values(1440, 255))).unwrap();
    let (told, errors, good) = check(&model, &array, &["--json", "--report", page.to_str().unwrap()]);
    assert!(!good && errors.lines().count() == 1 && errors.contains("n (LRN)"), "{errors}");
    let report: Value = serde_json::from_str(&told).unwrap();
    let lines: Vec<&str> = report["refused"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
    assert!(
        lines.len() == 2 && lines[0].contains("n (LRN)") && lines[1].contains("s (Softplus)"),
        "{lines:?}"
    );
    assert_eq!(report["works"], false);
    for field in ["fidelity", "confusion", "next"] {
        assert!(report[field].is_null(), "{field}");
    }
    // What the same network costs without them.
    std::fs::write(&model, network([3, 6, 8], 3)).unwrap();
    let arguments = ["--json", "--weight-bits", "7", "--activation-bits", "7"];
    let (whole, errors, good) = check(&model, &array, &arguments);
    assert!(good, "{errors}");
    let whole: Value = serde_json::from_str(&whole).unwrap();
    for field in ["macs", "relus"] {
        assert_eq!(report[field], whole[field], "{field}");
    }
    let bytes = |report: &Value| report["totals"][1]["preprocessing"]["bytes"].as_f64().unwrap();
    let part = bytes(&report) / bytes(&whole);
    assert!((0.8..1.25).contains(&part), "{part}");
    let html = std::fs::read_to_string(&page).unwrap();
    assert!(html.contains("refused</span>") && html.contains("s (Softplus)"), "{html}");

    std::fs::write(&model, refused([3, 6, 8], 3)).unwrap();
    let (told, errors, good) = check(&model, &array, &[]);
    assert!(!good && errors.lines().count() == 1, "{errors}");
    assert!(told.lines().all(|line| line.chars().count() <= 80), "{told}");
    for part in ["It is refused", "refused: ONNX node s (Softplus)", "What an inference costs"] {
        assert!(told.contains(part), "{part}: {told}");
    }
    assert!(!told.contains("Next") && !told.contains("How exact"), "{told}");
}
