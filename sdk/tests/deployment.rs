//! The deployment file.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "helpers of tests are tests")]

mod common;

use common::deployment;
use seco_core::ServerOpeningKey;
use seco_sdk::{CertificatePin, Deployment, Error};

fn example() -> Deployment {
    let servers: Vec<_> = (1..=3).map(|seed| ServerOpeningKey::from_seed([seed; 32])).collect();
    deployment("192.0.2.7:4433".parse().unwrap(), CertificatePin::of(b"certificate"), &servers)
}

fn refused(text: &str) -> (String, String) {
    match Deployment::from_toml(text).expect_err("refused") {
        Error::Deployment { at, problem } => {
            assert!(!problem.contains('\n'), "one line: {problem}");
            (at, problem)
        }
        other => panic!("{other}"),
    }
}

#[test]
fn writes_and_reads_back() {
    let text = example().to_toml().unwrap();
    assert_eq!(Deployment::from_toml(&text).unwrap(), example());
    for line in [
        "version = 2",
        "address = \"192.0.2.7:4433\"",
        "server_name = \"gateway.test\"",
        "input_shape = [1, 28, 28]",
        "calibrated = [0, 254]",
        "[[servers]]",
        "name = \"server 2\"",
        &format!("id = \"{}\"", "07".repeat(32)),
    ] {
        assert!(text.lines().any(|other| other == line), "{line} in\n{text}");
    }
    let info = example().model_info().unwrap();
    assert_eq!((info.input_len, info.classes, info.width, info.fraction), (784, 10, 22, 16));
}

#[test]
fn files_of_earlier_versions_are_read() {
    let text = example().to_toml().unwrap();
    let older = text.replace("calibrated = [0, 254]\n", "");
    assert_ne!(older, text);
    let mut expected = example();
    expected.model.calibrated = None;
    assert_eq!(Deployment::from_toml(&older).unwrap(), expected);
    assert_eq!(expected.to_toml().unwrap(), older);
    for wrong in ["[0]", "[0, 1, 2]", "[]"] {
        let (at, problem) = refused(&text.replace("[0, 254]", wrong));
        assert!(at.starts_with("line ") && problem.contains("list of two numbers"), "{at}: {problem}");
    }
}

#[test]
fn reads_files() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), example().to_toml().unwrap()).unwrap();
    assert_eq!(Deployment::from_file(file.path()).unwrap(), example());
    let missing = file.path().with_extension("missing");
    let error = Deployment::from_file(&missing).unwrap_err();
    assert!(matches!(&error, Error::File { path, .. } if *path == missing), "{error}");
}

#[test]
fn unknown_and_missing_keys_are_refused() {
    let text = example().to_toml().unwrap();
    let (at, problem) = refused(&text.replace("version = 2\n", "version = 2\nverison = 2\n"));
    assert_eq!(at, "line 2");
    assert!(problem.contains("verison"), "{problem}");
    for key in ["server_name = ", "classes = ", "id = "] {
        let without: Vec<_> = text.lines().filter(|line| !line.starts_with(key)).collect();
        let (_, problem) = refused(&without.join("\n"));
        assert!(problem.contains(key.trim_end_matches(" = ")), "{problem}");
    }
    for (table, extra) in [("[gateway]", "port = 1"), ("[model]", "name = \"x\""), ("[[servers]]", "key = 1")]
    {
        refused(&text.replace(table, &format!("{table}\n{extra}")));
    }
    refused("");
    refused("version = ");
}

#[test]
fn every_field_is_checked() {
    type Edit = fn(&mut Deployment);
    let cases: [(&str, Edit); 18] = [
        ("version", |d| d.version = 3),
        ("gateway.address", |d| d.gateway.address.set_port(0)),
        ("gateway.server_name", |d| d.gateway.server_name = "not a name".into()),
        ("gateway.pins", |d| d.gateway.pins.clear()),
        ("gateway.pins", |d| d.gateway.pins = vec![d.gateway.pins[0]; 3]),
        ("servers", |d| d.servers.truncate(1)),
        ("servers", |d| d.servers = vec![d.servers[0].clone(); 9]),
        ("servers[1]", |d| d.servers[1].name = " ".into()),
        ("servers[2]", |d| d.servers[2].name = d.servers[0].name.clone()),
        ("servers[2]", |d| d.servers[2].sealing_key = d.servers[0].sealing_key.clone()),
        ("model.input_shape", |d| d.model.input_shape = vec![28, 0]),
        ("model.input_shape", |d| d.model.input_shape = vec![usize::MAX, 2]),
        ("model.input_bits", |d| d.model.input_bits = 5),
        ("model.calibrated", |d| d.model.calibrated = Some([9, 8])),
        ("model.classes", |d| d.model.classes = 0),
        ("model.output_width", |d| d.model.output_width = 1),
        ("model.output_width", |d| d.model.output_width = 33),
        ("model.fraction", |d| d.model.fraction = 32),
    ];
    for (field, edit) in cases {
        let mut deployment = example();
        edit(&mut deployment);
        for result in [deployment.to_toml().map(drop), deployment.validate()] {
            let error = result.unwrap_err();
            assert!(matches!(&error, Error::Deployment { at, .. } if at == field), "{field}: {error}");
        }
    }
}

#[test]
fn encodings_are_checked() {
    let text = example().to_toml().unwrap();
    let pin = format!("{:?}", example().gateway.pins[0]);
    for (from, to) in [
        (pin.as_str(), &pin[1..]),
        (&pin, &pin.replace(&pin[..1], "g")),
        ("192.0.2.7:4433", "gateway.example:4433"),
        ("192.0.2.7:4433", "192.0.2.7"),
        (&"07".repeat(32), &"07".repeat(31)),
    ] {
        let changed = text.replace(from, to);
        assert_ne!(changed, text);
        assert!(refused(&changed).0.starts_with("line "));
    }
    let key = text.lines().find(|line| line.starts_with("sealing_key")).unwrap();
    let (at, problem) = refused(&text.replace(key, "sealing_key = \"00\""));
    assert!(at.starts_with("line ") && problem.contains("2432"), "{at}: {problem}");
}

#[test]
fn values_of_other_types_are_refused_at_their_line() {
    let text = example().to_toml().unwrap();
    for (from, to) in [
        ("version = 2", "version = \"2\""),
        ("version = 2", "version = 2.0"),
        ("version = 2", "version = 256"),
        ("[1, 28, 28]", "[1, 28, \"28\"]"),
        ("[1, 28, 28]", "[1, 28, -28]"),
        ("[1, 28, 28]", "784"),
        ("calibrated = [0, 254]", "calibrated = [0, 256]"),
        ("calibrated = [0, 254]", "calibrated = 254"),
        ("classes = 10", "classes = true"),
        ("classes = 10", "classes = [10]"),
        ("\"gateway.test\"", "7"),
        ("\"gateway.test\"", "{ name = \"gateway.test\" }"),
        ("\"server 2\"", "1979-05-27T07:32:00Z"),
    ] {
        let changed = text.replacen(from, to, 1);
        assert_ne!(changed, text, "{from}");
        let (at, problem) = refused(&changed);
        let line = text[..text.find(from).unwrap()].matches('\n').count() + 1;
        assert_eq!(at, format!("line {line}"), "{to}: {problem}");
    }
    for (table, other) in [("[gateway]", "[[gateway]]"), ("[[servers]]", "[servers]")] {
        refused(&text.replace(table, other));
    }
    let (at, problem) = refused(&format!("{text}\n[servers]\n"));
    assert!(at.starts_with("line "), "{at}: {problem}");
    // Cut anywhere, it is an error or lacks something; never a panic.
    for end in (0..text.len()).step_by(7) {
        let _ = Deployment::from_toml(&text[..end]);
    }
}
