//! Security tests that fail when the security goes: `list.toml` has changes to the source that each break
//! a property, and for each the test that has to fail then. With `SECO_SLOW=1` every change is made to a
//! copy of the sources and its test run there; `SECO_MUTANTS=text` picks those whose property contains the
//! text. The copy and what is built from it stay in `target/tmp/mutants`, so that a second run builds only
//! what changes. Without `SECO_SLOW` the list is checked against the sources: every change still applies,
//! every test is still there.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde::Deserialize;

/// Longer than the slowest build and the slowest test.
const LIMIT: Duration = Duration::from_secs(1200);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct List {
    mutant: Vec<Mutant>,
}

/// One change and what it breaks.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Mutant {
    /// The property; the entry's name.
    breaks: String,
    /// What an adversary gets. For the reader.
    #[allow(dead_code)]
    harm: String,
    /// Where: relative to the repository.
    file: String,
    /// What is replaced: it occurs once.
    find: String,
    replace: String,
    /// The test that has to fail: its package, its target ("lib", or an integration test), its full name.
    package: String,
    target: String,
    test: String,
}

impl Mutant {
    /// The source with the change made.
    fn apply(&self, source: &str) -> Result<String, String> {
        match source.matches(&self.find).count() {
            1 if self.find != self.replace => Ok(source.replacen(&self.find, &self.replace, 1)),
            1 => Err(format!("{}: the change changes nothing", self.breaks)),
            count => Err(format!(
                "{}: the text to be replaced occurs {count} times in {} and has to occur once: adapt the entry of \
                 server/tests/mutants/list.toml to what now gives that property",
                self.breaks, self.file
            )),
        }
    }
}

fn list() -> Vec<Mutant> {
    toml::from_str::<List>(include_str!("list.toml")).unwrap().mutant
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// All source files: those that git knows and those that it would take.
fn sources() -> Vec<String> {
    let output = Command::new("git")
        .args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"])
        .current_dir(root())
        .output()
        .unwrap();
    assert!(output.status.success(), "git ls-files: {}", String::from_utf8_lossy(&output.stderr));
    let names = String::from_utf8(output.stdout).unwrap();
    names.split('\0').filter(|n| !n.is_empty() && root().join(n).is_file()).map(str::to_owned).collect()
}

/// The copy of the sources in which changes are made.
struct Copy {
    tree: PathBuf,
    target: PathBuf,
}

impl Copy {
    /// Brings the copy up to date. What did not change is not touched, so that it is not built again.
    fn new() -> Copy {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("mutants");
        let copy = Copy { tree: folder.join("tree"), target: folder.join("target") };
        let wanted: BTreeSet<String> = sources().into_iter().collect();
        for name in &wanted {
            copy.write(name, &fs::read(root().join(name)).unwrap());
        }
        let mut folders = vec![copy.tree.clone()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    folders.push(path);
                } else if !wanted.contains(path.strip_prefix(&copy.tree).unwrap().to_str().unwrap()) {
                    fs::remove_file(path).unwrap();
                }
            }
        }
        copy
    }

    fn write(&self, name: &str, content: &[u8]) {
        let path = self.tree.join(name);
        if fs::read(&path).is_ok_and(|old| old == content) {
            return;
        }
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    /// Runs `cargo test`; whether it succeeded, and all it said.
    fn cargo(&self, package: &str, target: &str, options: &[&str]) -> (bool, String) {
        let log = self.target.with_extension("log");
        let output = fs::File::create(&log).unwrap();
        let mut command = Command::new(std::env::var_os("CARGO").unwrap_or("cargo".into()));
        command.args(["test", "--release", "--locked", "-p", package]);
        match target {
            "lib" => command.arg("--lib"),
            test => command.args(["--test", test]),
        };
        let mut child = command
            .args(options)
            .current_dir(&self.tree)
            .env("CARGO_TARGET_DIR", &self.target)
            // What a change does not touch is not compiled again.
            .env("CARGO_INCREMENTAL", "1")
            .env("RUST_BACKTRACE", "0")
            .env_remove("SECO_SLOW")
            .stdin(Stdio::null())
            .stdout(output.try_clone().unwrap())
            .stderr(output)
            .spawn()
            .unwrap();
        let start = Instant::now();
        let status = loop {
            if let Some(status) = child.try_wait().unwrap() {
                break status;
            }
            if start.elapsed() > LIMIT {
                let _ = child.kill();
                let _ = child.wait();
                panic!("cargo test -p {package} does not end: see {}", log.display());
            }
            std::thread::sleep(Duration::from_millis(50));
        };
        (status.success(), String::from_utf8_lossy(&fs::read(log).unwrap()).into_owned())
    }

    /// Makes the change, and gives what is wrong if its test does not fail as it should.
    fn check(&self, mutant: &Mutant) -> Result<(), String> {
        let Mutant { breaks, file, package, target, test, .. } = mutant;
        let original = fs::read_to_string(root().join(file)).unwrap();
        self.write(file, mutant.apply(&original)?.as_bytes());
        let (passed, output) = self.cargo(package, target, &["--", "--exact", test]);
        // An assertion, not a failure to compile and not a test that is not there.
        let failed = output.contains(&format!("test {test} ... FAILED")) && output.contains("panicked at");
        let result = if !passed && failed {
            Ok(())
        } else {
            let what =
                if output.contains("could not compile") { "the change does not compile" } else { "passes" };
            Err(format!("{breaks}: {test} of {package}: {what}:\n{}", end(&output)))
        };
        self.write(file, original.as_bytes());
        result
    }
}

/// The last lines.
fn end(output: &str) -> String {
    let lines: Vec<&str> = output.lines().collect();
    lines[lines.len().saturating_sub(25)..].join("\n")
}

/// No entry is out of date: checked without building anything.
#[test]
fn every_change_applies_and_every_test_exists() {
    let (list, sources) = (list(), sources());
    let names: BTreeSet<&str> = list.iter().map(|m| m.breaks.as_str()).collect();
    assert!(names.len() == list.len(), "two entries for one property");
    assert!(list.len() >= 15, "{}", list.len());
    for mutant in &list {
        let path = root().join(&mutant.file);
        let source =
            fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {}: {e}", mutant.breaks, mutant.file));
        mutant.apply(&source).unwrap_or_else(|error| panic!("{error}"));
        let name = format!("fn {}(", mutant.test.rsplit("::").next().unwrap());
        let package = format!("name = \"{}\"\n", mutant.package);
        let contains = |file: &String, text: &str| {
            fs::read_to_string(root().join(file)).is_ok_and(|found| found.contains(text))
        };
        let manifest = sources.iter().find(|file| file.ends_with("Cargo.toml") && contains(file, &package));
        let manifest = manifest.unwrap_or_else(|| panic!("{}: there is no {package}", mutant.breaks));
        let folder = manifest.strip_suffix("Cargo.toml").unwrap();
        let home = match mutant.target.as_str() {
            "lib" => format!("{folder}src/"),
            target => format!("{folder}tests/{target}"),
        };
        let has = |file: &&String| file.starts_with(&home) && file.ends_with(".rs") && contains(file, &name);
        assert!(sources.iter().any(|file| has(&file)), "{}: there is no {name}) in {home}", mutant.breaks);
    }
}

#[test]
fn every_change_is_noticed_by_its_test() {
    if std::env::var_os("SECO_SLOW").is_none() {
        eprintln!("SKIPPED: builds the sources once for every change of list.toml; set SECO_SLOW=1");
        return;
    }
    let pick = std::env::var("SECO_MUTANTS").unwrap_or_default();
    let list: Vec<Mutant> = list().into_iter().filter(|m| m.breaks.contains(&pick)).collect();
    assert!(!list.is_empty(), "no property of list.toml contains {pick:?}");
    let copy = Copy::new();

    // Without a change all of them pass.
    let mut tests: BTreeMap<(&str, &str), BTreeSet<&str>> = BTreeMap::new();
    for mutant in &list {
        tests.entry((&mutant.package, &mutant.target)).or_default().insert(&mutant.test);
    }
    for ((package, target), tests) in tests {
        let options: Vec<&str> = ["--", "--exact"].into_iter().chain(tests.iter().copied()).collect();
        let (passed, output) = copy.cargo(package, target, &options);
        let all = tests.iter().all(|test| output.contains(&format!("test {test} ... ok")));
        assert!(passed && all, "without any change, {package}:\n{}", end(&output));
        println!("{package} {target}: {} tests pass without a change", tests.len());
    }

    let mut wrong = Vec::new();
    for mutant in &list {
        let start = Instant::now();
        match copy.check(mutant) {
            Ok(()) => println!("{}: {} fails ({:.0?})", mutant.breaks, mutant.test, start.elapsed()),
            Err(error) => {
                println!("NOT NOTICED: {error}");
                wrong.push(error);
            }
        }
    }
    assert!(wrong.is_empty(), "{} of {} are not noticed:\n{}", wrong.len(), list.len(), wrong.join("\n\n"));
}
