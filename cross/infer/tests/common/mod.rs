//! A real cluster on this machine, and the program as its user starts it.
// Each test file uses a part of it.
#![allow(dead_code)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

/// For what takes a while on a busy machine.
pub const LIMIT: Duration = Duration::from_secs(120);

/// Gateway and two remotes with the bundled network for 28 x 28 digits; `seco demo` runs them.
pub struct Cluster {
    pub folder: tempfile::TempDir,
    pub deployment: PathBuf,
    process: Child,
}

impl Cluster {
    pub fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (deployment, log) = (folder.path().join("deployment.toml"), folder.path().join("log"));
        let output = fs::File::create(&log).unwrap();
        let process = Command::new(seco())
            .args(["demo", "--keep", "--count", "1", "--listen", "127.0.0.1", "--deployment"])
            .arg(&deployment)
            .stdin(Stdio::null())
            .stdout(output.try_clone().unwrap())
            .stderr(output)
            .spawn()
            .unwrap();
        let mut cluster = Self { folder, deployment, process };
        wait("the cluster to start", || {
            let log = fs::read_to_string(&log).unwrap();
            assert!(cluster.process.try_wait().unwrap().is_none(), "the cluster ended: {log}");
            // Printed last, and then the servers stay.
            log.contains("--deployment")
        });
        cluster
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The program, on this cluster.
    pub fn infer(&self) -> Command {
        let mut command = infer();
        command.arg("--deployment").arg(&self.deployment);
        command
    }

    pub fn stop(&mut self) {
        if self.process.try_wait().unwrap().is_none() {
            let id = self.process.id().to_string();
            assert!(Command::new("kill").args(["-INT", &id]).status().unwrap().success());
            self.process.wait().unwrap();
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.stop();
    }
}

/// The server binary: `$SECO_SERVER`, or this profile's, which is built where it is missing.
pub fn seco() -> PathBuf {
    if let Some(path) = std::env::var_os("SECO_SERVER") {
        return path.into();
    }
    let test = std::env::current_exe().unwrap();
    let path = test.parent().and_then(Path::parent).unwrap().join("seco");
    if !path.exists() {
        let release: &[&str] = if cfg!(debug_assertions) { &[] } else { &["--release"] };
        let mut build = Command::new(env!("CARGO"));
        build.current_dir(env!("CARGO_MANIFEST_DIR")).args([
            "build",
            "-q",
            "-p",
            "seco-server",
            "--bin",
            "seco",
        ]);
        assert!(build.args(release).status().unwrap().success());
    }
    path
}

/// The program: what cargo built, or `$SECO_INFER`, words of a command line, for one that was built for
/// another processor.
pub fn infer() -> Command {
    let words = std::env::var("SECO_INFER").unwrap_or_else(|_| env!("CARGO_BIN_EXE_seco-infer").to_owned());
    let mut words = words.split_whitespace();
    let mut command = Command::new(words.next().unwrap());
    command.args(words).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Runs it, and returns what it printed.
pub fn succeeds(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {errors}", output.status);
    assert_eq!(errors, "");
    String::from_utf8(output.stdout).unwrap()
}

/// It ended with `code`, and one line on standard error that contains `part`.
pub fn fails(output: &Output, code: i32, part: &str) {
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{errors}");
    assert!(errors.contains(part), "expected {part}: {errors}");
    assert_eq!(errors.trim_end().lines().count(), 1, "{errors}");
}

pub fn wait(what: &str, mut done: impl FnMut() -> bool) {
    let end = Instant::now() + LIMIT;
    while !done() {
        assert!(Instant::now() < end, "waited for {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Data that comes with the servers.
pub fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../server/data").join(name)
}

/// The rows of an array of bytes of so many.
pub fn rows<const LENGTH: usize>(name: &str) -> Vec<[u8; LENGTH]> {
    let file = fs::read(data(name)).unwrap();
    let start = 10 + usize::from(u16::from_le_bytes([file[8], file[9]]));
    file[start..].as_chunks().0.to_vec()
}

/// A number in a line of JSON.
pub fn number(line: &str, field: &str) -> u64 {
    let (_, rest) = line.split_once(&format!("\"{field}\":")).unwrap_or_else(|| panic!("{field}: {line}"));
    rest.split([',', '}']).next().unwrap().parse().unwrap()
}

/// The logits in a line of JSON.
pub fn logits(line: &str) -> Vec<i32> {
    let (_, rest) = line.split_once("\"logits\":[").unwrap_or_else(|| panic!("no logits: {line}"));
    rest.split(']').next().unwrap().split(',').map(|logit| logit.trim().parse().unwrap()).collect()
}
