//! A cluster as a new user makes it: by the commands that `seco init` prints.

use std::net::{TcpListener, UdpSocket};
use std::path::Path;
use std::process::{Command, Output};

use crate::common::{Server, data};
use seco_node::operation::events::Event;

fn seco(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_seco")).args(arguments).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// Runs a command that must go well; gives what it prints.
fn well(arguments: &[&str]) -> String {
    let output = seco(arguments);
    assert!(output.status.success(), "{arguments:?}: {}", text(&output.stderr));
    text(&output.stdout)
}

/// Runs a command that must be refused; gives the one line that says why.
fn refused(arguments: &[&str]) -> String {
    let output = seco(arguments);
    let told = text(&output.stderr);
    assert!(!output.status.success() && told.lines().count() == 1, "{arguments:?}: {told}");
    told
}

/// The first of four ports that nobody uses now: three for UDP, and one for both.
fn ports() -> u16 {
    (20_000..60_000)
        .step_by(4)
        .cycle()
        .skip(std::process::id() as usize % 10_000)
        .take(10_000)
        .find(|&first| {
            (first..first + 4).all(|port| UdpSocket::bind(("127.0.0.1", port)).is_ok())
                && TcpListener::bind(("127.0.0.1", first + 3)).is_ok()
        })
        .unwrap()
}

#[test]
fn from_init_to_a_prediction_by_the_printed_commands() {
    let folder = tempfile::tempdir().unwrap();
    let cluster = folder.path().join("cluster");
    let out = cluster.to_str().unwrap();
    let first = ports();
    let (mesh, device) = (first.to_string(), (first + 3).to_string());
    let init = ["init", "--servers", "3", "--out", out, "--mesh-port", &mesh, "--device-port", &device];
    let next = well(&init);
    assert!(refused(&init).contains("gateway: exists already: choose another --out"));

    // What it prints, word by word: the lines that begin with two spaces, with the user's own files.
    let (model, inputs) = (data("mlp-digits.onnx"), data("mlp-digits-20.npy"));
    let next = next
        .replace("MODEL.onnx", model.to_str().unwrap())
        .replace("INPUTS.npy", inputs.to_str().unwrap())
        .replace(" \\\n", " ");
    let commands: Vec<Vec<&str>> = next
        .lines()
        .filter_map(|line| Some(line.strip_prefix("  seco ")?.split_whitespace().collect()))
        .collect();
    let names: Vec<&str> = commands.iter().map(|command| command[0]).collect();
    assert_eq!(names, ["split", "serve", "serve", "serve", "deployment", "infer"], "{next}");

    let split = [&commands[0][..], &["--scale", "16"]].concat();
    well(&split);
    assert!(refused(&split).contains("server-0.seco: exists already"));
    for (index, name) in ["gateway", "remote-1", "remote-2"].iter().enumerate() {
        let parts: Vec<_> = std::fs::read_dir(cluster.join(name))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| name.ends_with(".seco"))
            .collect();
        assert_eq!(parts, [format!("server-{index}.seco")], "each has its own part alone");
    }
    let mut servers: Vec<Server> =
        commands[1..4].iter().map(|command| Server::start(Path::new(command[2]), &[])).collect();
    let (address, devices) = servers[0].wait("readiness", |event| match event {
        Event::Ready { device, devices, .. } => Some((device.unwrap(), devices.unwrap())),
        _ => None,
    });
    assert_eq!((address.to_string(), devices), (format!("127.0.0.1:{device}"), 10_000));
    let told = well(&commands[4]);
    assert!(told.contains(&format!("deployment.toml: for devices, which reach the gateway at {address}")));
    assert!(refused(&commands[4]).contains("deployment.toml: exists already"));
    well(&[&commands[4][..], &["--force"]].concat());
    servers[0].wait_bundle();
    let answer = well(&[&commands[5][..], &["--json"]].concat());
    let answer: serde_json::Value = serde_json::from_str(&answer).unwrap();
    assert_eq!(answer["predictions"][0]["logits"].as_array().unwrap().len(), 10, "{answer}");
    let log = servers[0].stderr();
    let ready: Vec<&str> = log.lines().filter(|line| line.contains("ready: ")).collect();
    let expected = format!("serves up to 10000 devices at {address} over UDP and TCP");
    assert!(ready.len() == 1 && ready[0].contains(&expected), "{log}");
}

#[test]
fn help_tells_how_to_hear_a_server() {
    let help = well(&["serve", "--help"]);
    for part in ["SECO_LOG", "--events", "listening", "ready", "bundle", "inference", "failed"] {
        assert!(help.contains(part), "{part}: {help}");
    }
}

#[test]
fn no_file_is_overwritten_silently() {
    let folder = tempfile::tempdir().unwrap();
    let (out, file) = (folder.path().to_str().unwrap(), folder.path().join("deployment.toml"));
    well(&["keygen", "--out", out, "--name", "a"]);
    assert!(refused(&["keygen", "--out", out, "--name", "a"]).contains("exists already"));
    std::fs::write(&file, "another cluster's").unwrap();
    let demo = ["demo", "--model", "mlp", "--count", "1", "--deployment", file.to_str().unwrap()];
    assert!(refused(&demo).contains("deployment.toml: exists already: choose another, or overwrite it"));
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "another cluster's");
}

/// What two operators read to each other is the same on both sides, and another for whatever was swapped on the way.
#[test]
fn fingerprints_are_compared_by_voice() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    for (folder, name) in [("own", "s"), ("other", "s")] {
        well(&["keygen", "--out", &path(folder), "--name", name]);
    }
    let of = |folder: &str| {
        let files = ["s.cert.pem", "s.sealing.pub"].map(|file| path(&format!("{folder}/{file}")));
        let told = well(&["fingerprint", &files[0], &files[1]]);
        let lines: Vec<String> = told.lines().map(str::to_owned).collect();
        assert_eq!((lines.len(), &lines[0], &lines[2]), (4, &files[0], &files[1]), "{told}");
        [lines[1].clone(), lines[3].clone()]
    };
    let own = of("own");
    for (line, kind) in own.iter().zip(["  certificate  ", "  sealing key  "]) {
        let groups: Vec<&str> = line.strip_prefix(kind).unwrap().split(' ').collect();
        let digits = |group: &&str| group.len() == 5 && group.bytes().all(|byte| byte.is_ascii_digit());
        assert!(groups.len() == 8 && groups.iter().all(digits), "{line}");
    }
    // Sent, with the line ends of another system.
    std::fs::create_dir(folder.path().join("sent")).unwrap();
    for file in ["s.cert.pem", "s.sealing.pub"] {
        let text = std::fs::read_to_string(path(&format!("own/{file}"))).unwrap();
        std::fs::write(path(&format!("sent/{file}")), text.replace('\n', "\r\n")).unwrap();
    }
    assert_eq!(of("sent"), own);
    // A certificate that somebody added is not read out by its owner, so it is counted.
    let both = ["own", "other"].map(|of| std::fs::read_to_string(path(&format!("{of}/s.cert.pem"))).unwrap());
    std::fs::write(path("both.cert.pem"), both.concat()).unwrap();
    let told = well(&["fingerprint", &path("both.cert.pem")]);
    assert!(told.lines().next().unwrap().ends_with("both.cert.pem: 2 certificates"), "{told}");
    assert!(told.lines().count() == 3 && told.lines().nth(1) == Some(&own[0]), "{told}");
    let other = of("other");
    assert!(other[0] != own[0] && other[1] != own[1]);
    let told = refused(&["fingerprint", &path("own/s.cert.pem"), &path("own/s.opening.key")]);
    assert!(told.contains("neither a certificate nor a sealing key"), "{told}");
}
