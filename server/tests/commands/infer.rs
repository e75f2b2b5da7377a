//! What the person with a device sees when something is wrong: `seco infer` ends in time with one
//! line that says which and what to do, and an exit code that is not 0.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use crate::common::{Site, data};
use seco_node::config::Pool;
use seco_node::operation::events::Event;
use seco_tools::split::deployment;

/// How long `seco infer` may take to fail.
const IN_TIME: Duration = Duration::from_secs(20);

fn deploy(site: &Site, address: SocketAddr, name: &str) -> PathBuf {
    deploy_reals(site, address, name, &[])
}

fn deploy_reals(site: &Site, address: SocketAddr, name: &str, scale: &[f64]) -> PathBuf {
    let mut options = site.deployment_options(address, name);
    options.real_scale = scale.to_vec();
    deployment(&options).unwrap();
    options.file.out
}

fn infer(deployment: &Path, input: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_seco"));
    command.args(["infer", "--json", "--deployment"]).arg(deployment).arg("--input").arg(input);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// It failed in time, with one line that contains `part`.
fn refused(start: Instant, output: &Output, part: &str) {
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(start.elapsed() < IN_TIME, "{:?}: {errors}", start.elapsed());
    assert!(!output.status.success(), "{part}: it succeeded");
    assert!(output.status.code().is_some(), "{part}: ended by a signal");
    assert!(errors.contains(part), "expected {part}: {errors}");
    assert_eq!(errors.trim_end().lines().count(), 1, "{errors}");
    assert!(!errors.contains("panicked"), "{errors}");
}

#[test]
fn mistakes_are_told_in_one_line_and_in_time() {
    let mut site = Site::new(3);
    let (mut servers, address) = site.start_all();
    servers[0].wait_bundle();
    let digits = data("mlp-digits-20.npy");
    let good = deploy(&site, address, "good.toml");
    assert!(infer(&good, &digits).arg("--count=2").output().unwrap().status.success());

    let start = Instant::now();
    let output = infer(&good, &data("minionn-digits-20.npy")).output().unwrap();
    refused(start, &output, "the array has shape (20, 1, 28, 28), the model takes (N, 64)");

    // As many values, but a sample's end where the next one begins; and pictures of another brightness.
    let array = |shape: &[usize], value: u8| {
        let path = site.folder.path().join(format!("{value}.npy"));
        std::fs::write(&path, crate::files::npy(shape, &vec![value; shape.iter().product()])).unwrap();
        path
    };
    let start = Instant::now();
    refused(start, &infer(&good, &array(&[4, 32], 3)).output().unwrap(), "axis 1 is 32 instead of 64");
    for (value, outside) in [(16, false), (17, true)] {
        let output = infer(&good, &array(&[1, 64], value)).output().unwrap();
        let told: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(told["predictions"][0]["outside_calibration"], outside, "{told}");
    }

    // Real numbers become bytes by the deployment file, and only by it.
    let reals = site.folder.path().join("reals.npy");
    let floats = |values: &[f32; 64]| {
        let header = b"{'descr': '<f4', 'fortran_order': False, 'shape': (1, 64), }\n";
        let mut file = b"\x93NUMPY\x01\x00".to_vec();
        file.extend((header.len() as u16).to_le_bytes());
        file.extend(header);
        file.extend(values.iter().flat_map(|value| value.to_le_bytes()));
        std::fs::write(&reals, file).unwrap();
    };
    let quarters = deploy_reals(&site, address, "quarters.toml", &[0.25]);
    let logits = |deployment: &Path, input: &Path| {
        let output = infer(deployment, input).output().unwrap();
        let told: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        (told["predictions"][0]["logits"].clone(), told["predictions"][0]["outside_calibration"].clone())
    };
    floats(&[3.5; 64]);
    assert_eq!(logits(&quarters, &reals), logits(&good, &array(&[1, 64], 14)));
    let start = Instant::now();
    refused(start, &infer(&good, &reals).output().unwrap(), "no `quantise` of the model");
    // Below what a byte can hold: cut, and told.
    floats(&[-1.0; 64]);
    let (cut, outside) = logits(&quarters, &reals);
    assert_eq!((cut, outside), (logits(&good, &array(&[1, 64], 0)).0, true.into()));

    // Bytes are values there too, which is said once, unless it is plainly meant.
    let fourteen = array(&[1, 64], 14);
    let said = |more: &[&str]| {
        let output = infer(&quarters, &fourteen).args(more).output().unwrap();
        assert!(output.status.success());
        String::from_utf8(output.stderr).unwrap()
    };
    let warned = said(&[]);
    assert!(warned.contains("which stand for real numbers (0 to 63.75)"), "{warned}");
    assert!(warned.contains("--values") && warned.trim_end().lines().count() == 1, "{warned}");
    assert_eq!(said(&["--values"]), "");

    // Another split of the same network is another model: shares of one do not fit the other's.
    let mut other = Site::new(3);
    other.keys.clone_from(&site.keys);
    let start = Instant::now();
    let output = infer(&deploy(&other, address, "other.toml"), &digits).output().unwrap();
    refused(start, &output, "model");

    // Another cluster's keys, and a gateway that is not there.
    let stranger = Site::new(3);
    let start = Instant::now();
    refused(
        start,
        &infer(&deploy(&stranger, address, "stranger.toml"), &digits).output().unwrap(),
        "certificate",
    );
    let nobody = std::net::UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let start = Instant::now();
    let output = infer(&deploy(&site, nobody, "nobody.toml"), &digits).output().unwrap();
    refused(start, &output, &nobody.to_string());

    // A remote that is down.
    servers[2].signal("-KILL");
    servers[2].ended(Duration::from_secs(4));
    let start = Instant::now();
    // It is waited for as long as a request may take, and then named.
    refused(start, &infer(&good, &digits).arg("--timeout=6").output().unwrap(), "server 2");
    // One that is back in time is no error, though it was away when the session was to be opened.
    let mut asking = infer(&good, &digits).args(["--count=1", "--timeout=100"]).spawn().unwrap();
    std::thread::sleep(Duration::from_secs(1));
    assert!(asking.try_wait().unwrap().is_none(), "it did not wait");
    let (_back, _) = site.start(2, &[]);
    let output = asking.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// A network that answers with labels alone: they are the integers' and nothing else comes.
#[test]
fn devices_get_labels_alone() {
    let mut site = Site::with(3, |options| options.labels_only = true);
    site.pool = Pool { size: 4, low: 1, ..Pool::default() };
    let (mut servers, address) = site.start_all();
    servers[0].wait_bundle();
    let digits = data("mlp-digits-20.npy");
    let output = infer(&deploy(&site, address, "good.toml"), &digits).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let told: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let (_, inputs) = seco_model::npy::read_u8(&std::fs::read(digits).unwrap()).unwrap();
    let (_, labels) = seco_model::npy::read_u8(&std::fs::read(data("mlp-labels-20.npy")).unwrap()).unwrap();
    let predictions = told["predictions"].as_array().unwrap();
    assert_eq!(predictions.len(), 20);
    let mut right = 0;
    for ((prediction, input), label) in predictions.iter().zip(inputs.chunks(64)).zip(labels) {
        let expected = site.model.execute(input).unwrap();
        assert_eq!(expected.wrapped, 0);
        // One integer is all that there is of an answer.
        let scale = site.model.graph.outputs[0].scale;
        assert_eq!(prediction["logits"], serde_json::json!(expected.logits), "{prediction}");
        assert_eq!(expected.logits.len(), 1);
        assert_eq!(prediction["label"], (f64::from(expected.logits[0]) * scale) as u64, "{prediction}");
        right += usize::from(prediction["label"] == label);
    }
    assert!(right >= 18, "{right} of 20");
}

/// A remote is killed while inferences run: the device is told, and no server panics.
#[test]
fn a_remote_killed_in_mid_inference_is_told() {
    for victim in [1, 2] {
        let mut site = Site::new(3);
        site.pool = Pool { size: 16, low: 0, ..Pool::default() };
        let (mut servers, address) = site.start_all();
        servers[0].wait("a full pool", |e| matches!(e, Event::Bundle { pool: 16, .. }).then_some(()));
        let good = deploy(&site, address, "good.toml");
        // Longer than silence takes to be noticed.
        let child = infer(&good, &data("mlp-digits-20.npy")).arg("--timeout=14").spawn().unwrap();
        servers[victim].wait("inference", |e| matches!(e, Event::Inference { .. }).then_some(()));
        servers[victim].signal("-KILL");
        let start = Instant::now();
        refused(start, &child.wait_with_output().unwrap(), &format!("server {victim}"));
        for (index, server) in servers.iter_mut().enumerate().filter(|(i, _)| *i != victim) {
            server.signal("-TERM");
            assert!(server.ended(Duration::from_secs(4)).success(), "server {index}");
            assert!(!server.stderr().contains("panicked"));
        }
    }
}
