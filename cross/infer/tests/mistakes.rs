//! What can be told without a network: in one line, with an exit code that says what to do.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests are tests")]

mod common;

use std::fs;
use std::net::UdpSocket;
use std::path::{Path, PathBuf};

use common::{fails, infer, succeeds};

/// A deployment of a 2 x 3 model, grey or in colours, whose gateway takes no connection.
fn deployment(folder: &Path, channels: usize) -> PathBuf {
    let nobody = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    // An X-Wing public key: an ML-KEM one, of which zeros are one, and an X25519 one.
    let servers: String = (1..=2)
        .map(|i| {
            format!("[[servers]]\nname = \"{i}\"\nsealing_key = \"{}\"\n", format!("{i:02x}").repeat(1216))
        })
        .collect();
    let text = format!(
        "version = 1\n[gateway]\naddress = \"{nobody}\"\nserver_name = \"gateway\"\npins = [\"{}\"]\n\
         [model]\nid = \"{}\"\ninput_shape = [{channels}, 2, 3]\ninput_bits = 8\nclasses = 10\n\
         output_width = 20\nfraction = 8\n{servers}",
        "0".repeat(64),
        "1".repeat(64)
    );
    let path = folder.join(format!("deployment-{channels}.toml"));
    fs::write(&path, text).unwrap();
    path
}

#[test]
fn help_and_version_are_printed() {
    assert!(succeeds(infer().arg("--help")).contains("usage: seco-infer"));
    assert_eq!(succeeds(infer().arg("-V")), format!("seco-infer {}\n", env!("CARGO_PKG_VERSION")));
}

#[test]
fn mistakes_have_their_own_codes() {
    let folder = tempfile::tempdir().unwrap();
    let good = deployment(folder.path(), 1);
    fails(&infer().output().unwrap(), 2, "--help");
    fails(&infer().args(["--deployment", "none.toml", "a.npy"]).output().unwrap(), 4, "none.toml");
    let broken = folder.path().join("broken.toml");
    fs::write(&broken, "version = \"x\"\n").unwrap();
    fails(&infer().arg("--deployment").arg(&broken).arg("a").output().unwrap(), 4, "line 1");
    let none = folder.path().join("none");
    fails(&infer().arg("--deployment").arg(&good).arg("--watch").arg(&none).output().unwrap(), 3, "none");

    // A usable input, and nobody to send it to: within the ten seconds of connecting.
    let input = folder.path().join("input.raw");
    fs::write(&input, [1; 6]).unwrap();
    fails(&infer().arg("--deployment").arg(&good).arg(&input).output().unwrap(), 5, "cannot connect");
}

#[test]
fn hostile_files_are_refused_before_anything_is_sent() {
    let folder = tempfile::tempdir().unwrap();
    let (grey, colour) = (deployment(folder.path(), 1), deployment(folder.path(), 3));
    let array = |kind: &str, shape: &str, values: usize| {
        let header = format!("{{'descr': '{kind}', 'fortran_order': False, 'shape': {shape}, }}\n");
        let length = u16::try_from(header.len()).unwrap().to_le_bytes();
        [b"\x93NUMPY\x01\x00", length.as_slice(), header.as_bytes(), &vec![0; values]].concat()
    };
    let cases: [(&str, Vec<u8>, &Path, &str); 13] = [
        ("empty.raw", vec![], &grey, "0 bytes"),
        ("long.raw", vec![0; 7], &grey, "7 bytes"),
        ("unknown", b"GIF89a....".to_vec(), &grey, "10 bytes"),
        ("empty.npy", vec![], &grey, "header"),
        ("cut.npy", array("|u1", "(6,)", 5), &grey, "5 values"),
        ("more.npy", array("|u1", "(6,)", 7), &grey, "7 values"),
        ("float.npy", array("<f4", "(6,)", 24), &grey, "uint8"),
        ("shape.npy", array("|u1", "(3, 2)", 6), &grey, "[1, 2, 3]"),
        ("huge.npy", array("|u1", "(4294967295, 4294967295, 6)", 6), &grey, "has shape"),
        ("large.pgm", b"P5 4000 3000 255\n".to_vec(), &grey, "4000 x 3000"),
        ("colour.ppm", b"P6 3 2 255\n......".to_vec(), &grey, "3 channels"),
        ("grey.pgm", b"P5 3 2 255\n......".to_vec(), &colour, "1 channels"),
        ("deep.ppm", b"P6 3 2 65535\n....".to_vec(), &colour, "65535"),
    ];
    for (name, bytes, deployment, part) in cases {
        let file = folder.path().join(name);
        fs::write(&file, bytes).unwrap();
        let output = infer().arg("--deployment").arg(deployment).arg(&file).output().unwrap();
        fails(&output, 3, part);
        fails(&output, 3, name);
        assert!(output.stdout.is_empty());
    }
    fails(&infer().arg("--deployment").arg(&grey).arg(folder.path()).output().unwrap(), 3, "directory");
    fails(&infer().arg("--deployment").arg(&grey).arg("/dev/zero").output().unwrap(), 3, "longer");
    // Standard input is empty here.
    fails(&infer().arg("--deployment").arg(&grey).arg("-").output().unwrap(), 3, "-: has 0 bytes");
}
