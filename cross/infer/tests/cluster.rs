//! The program against a real cluster. With `SECO_INFER` set it is one for another processor, under emulation.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests are tests")]

mod common;

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;

use common::{Cluster, LIMIT, data, fails, logits, number, rows, succeeds, wait};

fn picture(digit: &[u8; 784]) -> Vec<u8> {
    [b"P5\n28 28\n255\n", digit.as_slice()].concat()
}

/// Ends it with the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn digits_are_answered_as_natively_computed() {
    let mut cluster = Cluster::start();
    let (digits, labels) = (rows::<784>("minionn-digits-20.npy"), rows::<1>("minionn-labels-20.npy"));
    let array = data("minionn-digits-20.npy");

    // All digits, over QUIC, with a session that is kept.
    let session = cluster.path("session");
    let quic = |cluster: &Cluster| {
        let mut command = cluster.infer();
        command.args(["--transport", "quic", "--json", "--session"]).arg(&session);
        command
    };
    let printed = succeeds(quic(&cluster).arg(&array));
    let lines: Vec<&str> = printed.lines().collect();
    assert_eq!(lines.len(), 20);
    // The command-line client of the servers' machine, which the demo holds against the plaintext.
    let mut native = Command::new(common::seco());
    native.args(["infer", "--json", "--deployment"]).arg(&cluster.deployment).arg("--input").arg(&array);
    let native = succeeds(&mut native);
    let expected: Vec<Vec<i32>> = native.split("\"index\"").skip(1).map(logits).collect();
    assert_eq!(expected.len(), 20);
    for (index, line) in lines.iter().enumerate() {
        assert_eq!(number(line, "index"), index as u64);
        assert_eq!(logits(line), expected[index], "digit {index}");
        assert_eq!(number(line, "label"), u64::from(labels[index][0]), "digit {index}");
        // The input's bytes, and little more.
        assert!((784..2000).contains(&number(line, "bytes_up")), "{line}");
    }

    // The kept session goes on: nothing is sealed, which takes 3 keys of 1,120 bytes and more.
    use std::os::unix::fs::PermissionsExt as _;
    assert_eq!(fs::metadata(&session).unwrap().permissions().mode() & 0o777, 0o600);
    let kept = fs::read(&session).unwrap();
    let up = |printed: &str| -> u64 {
        let (_, all) = printed.split_once("in all: ").unwrap();
        all.split(' ').next().unwrap().parse().unwrap()
    };
    let picture_file = cluster.path("digit.pgm");
    fs::write(&picture_file, picture(&digits[3])).unwrap();
    let one = |command: &mut Command| succeeds(command.args(["--logits", "--cost"]).arg(&picture_file));
    let again = one(cluster.infer().arg("--session").arg(&session));
    let fresh = one(&mut cluster.infer());
    assert!(up(&again) + 3000 < up(&fresh), "{again}{fresh}");
    assert_ne!(fs::read(&session).unwrap(), kept, "numbers are reserved before use");
    assert!(
        again.starts_with(&format!("{}: {}\n  logits ", picture_file.display(), labels[3][0])),
        "{again}"
    );

    // Bytes as they are from standard input, and over TCP.
    let mut tcp = cluster.infer();
    tcp.args(["--transport=tcp", "--json", "-"]).stdin(Stdio::piped());
    let mut process = tcp.spawn().unwrap();
    process.stdin.take().unwrap().write_all(&digits[7]).unwrap();
    let output = process.wait_with_output().unwrap();
    let line = String::from_utf8(output.stdout).unwrap();
    assert_eq!(logits(&line), expected[7]);
    assert_eq!(number(&line, "datagrams_up"), 0);

    // One input of several that cannot be used.
    let output = cluster.infer().args(["none.npy"]).arg(&picture_file).output().unwrap();
    fails(&output, 3, "none.npy");
    assert!(String::from_utf8(output.stdout).unwrap().ends_with(&format!(": {}\n", labels[3][0])));

    // Another certificate than the pinned one.
    let text = fs::read_to_string(&cluster.deployment).unwrap();
    let pin = text.split_once("pins = [").unwrap().1.split('"').nth(1).unwrap();
    let stranger = cluster.path("stranger.toml");
    fs::write(&stranger, text.replace(pin, &"0".repeat(64))).unwrap();
    let output = common::infer().arg("--deployment").arg(&stranger).arg(&picture_file).output().unwrap();
    fails(&output, 6, "not pinned");

    // Nobody there.
    cluster.stop();
    fails(&quic(&cluster).arg(&picture_file).output().unwrap(), 5, "cannot connect");
}

#[test]
fn a_folder_is_watched() {
    let cluster = Cluster::start();
    let (digits, labels) = (rows::<784>("minionn-digits-20.npy"), rows::<1>("minionn-labels-20.npy"));
    let folder = cluster.path("in");
    fs::create_dir(&folder).unwrap();
    fs::write(folder.join("before.pgm"), picture(&digits[0])).unwrap();

    let errors = cluster.path("errors");
    let mut command = cluster.infer();
    command.arg("--watch").arg(&folder).stderr(fs::File::create(&errors).unwrap());
    let mut running = Running(command.spawn().unwrap());
    let lines = BufReader::new(running.0.stdout.take().unwrap()).lines();
    let (sender, printed) = mpsc::channel();
    std::thread::spawn(move || {
        for line in lines.map_while(Result::ok) {
            let _ = sender.send(line);
        }
    });
    let expect = |name: &str, digit: usize| {
        let line = printed
            .recv_timeout(LIMIT)
            .unwrap_or_else(|_| panic!("{}", fs::read_to_string(&errors).unwrap()));
        assert_eq!(line, format!("{}: {}", folder.join(name).display(), labels[digit][0]));
    };

    // It takes a while until it looks: written until it was seen.
    let start = folder.join("start.pgm");
    wait("the first file to be seen", || {
        fs::write(&start, picture(&digits[1])).unwrap();
        printed.recv_timeout(std::time::Duration::from_secs(2)).is_ok()
    });
    while printed.recv_timeout(std::time::Duration::from_secs(2)).is_ok() {}

    // Written in two halves, with longer between them than a file has to rest.
    let whole = picture(&digits[2]);
    let mut slow = fs::File::create(folder.join("slow.pgm")).unwrap();
    slow.write_all(&whole[..400]).unwrap();
    std::thread::sleep(std::time::Duration::from_millis(1200));
    slow.write_all(&whole[400..]).unwrap();
    expect("slow.pgm", 2);

    // Moved there, among what is no input or not a usable one.
    fs::write(folder.join("note.txt"), "x").unwrap();
    fs::write(folder.join("broken.pgm"), "P5 9 9 255\n").unwrap();
    fs::write(folder.join(".hidden.pgm"), picture(&digits[4])).unwrap();
    fs::rename(folder.join(".hidden.pgm"), folder.join("moved.pgm")).unwrap();
    expect("moved.pgm", 4);
    wait("the complaint", || fs::read_to_string(&errors).unwrap().contains("broken.pgm"));

    // A name that is used again; bytes as they are.
    fs::write(folder.join("latest.raw"), digits[5]).unwrap();
    expect("latest.raw", 5);
    fs::write(folder.join("latest.raw"), digits[6]).unwrap();
    expect("latest.raw", 6);
    assert_eq!(fs::read_to_string(&errors).unwrap().lines().count(), 1);

    // The folder is gone: told at once, and by the exit code.
    fs::remove_dir_all(&folder).unwrap();
    assert_eq!(running.0.wait().unwrap().code(), Some(3));
    assert!(printed.recv().is_err(), "nothing was classified twice");
}
