//! Systems of others, beside ours: what the scripts of `server/lab/peers` measured, read and checked.
//!
//! A file is an object for one system and network. Nothing in it is trusted: a file that is too long, cut, of another
//! shape or with figures that cannot be is refused with its name, and nothing of it is in the report.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::{Value, json};

use super::figures::{Cost, Network, Sample, System};
use super::models;
use super::runs::Run;
use crate::Error;

/// What a file begins with.
const FORMAT: &str = "seco-peers/1";
/// Longest file.
const MAX_BYTES: u64 = 1 << 20;
/// Files in a folder, and repetitions in a file.
const MAX_FILES: usize = 100;
/// Servers of a system.
const MAX_SERVERS: usize = 16;
/// Answers of a repetition.
const MAX_COUNT: usize = 1_000_000;
/// Largest figure, seconds or bytes.
const MAX_FIGURE: f64 = 1e15;
/// Longest text, in bytes, and how many of a kind.
const MAX_TEXT: usize = 1000;
const MAX_TEXTS: usize = 50;

/// All files.
#[derive(Clone, Debug, Default)]
pub struct Peers {
    pub all: Vec<Peer>,
    /// What could not be measured, and why: in the report's `left_out`.
    pub skipped: Vec<String>,
}

/// One system with one network, as a script measured it.
#[derive(Clone, Debug)]
pub struct Peer {
    pub run: Run,
    /// What it was measured with.
    pub command: String,
    pub machine: String,
    /// Packages and their versions.
    pub versions: BTreeMap<String, String>,
    /// What `equal` means.
    pub compared: String,
    /// How far a logit was from onnxruntime's at most, in its unit.
    pub largest_error: Option<f64>,
    /// What the figures hold and lack.
    pub notes: Vec<String>,
}

/// A file, as a script writes it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    format: String,
    system: System,
    model: String,
    network: Network,
    server_count: Option<usize>,
    command: Option<String>,
    machine: Option<String>,
    versions: BTreeMap<String, String>,
    notes: Vec<String>,
    compared: Option<String>,
    runs: Vec<Repetition>,
    skipped: Option<String>,
}

/// One of its repetitions.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Repetition {
    user: Cost,
    servers: Vec<Cost>,
    waiting_s: f64,
    preprocessing_s: Option<f64>,
    setup_s: Option<f64>,
    equal: usize,
    count: usize,
    largest_error: Option<f64>,
    load_at_start: Option<f64>,
}

impl Peers {
    /// Reads a file, or all `.json` files of a folder.
    pub fn read(path: &Path) -> Result<Peers, Error> {
        let mut peers = Peers::default();
        for path in files(path)? {
            let refused = |what: String| Error::Usage(format!("--peers {}: {what}", path.display()));
            let file = parse(&text(&path)?).map_err(refused)?;
            let known = peers.all.iter().any(|peer| {
                let run = &peer.run;
                (run.system, &run.model, run.network) == (file.system, &file.model, file.network)
            });
            if known {
                return Err(refused("another file has the same system and network".to_owned()));
            }
            if let Some(why) = &file.skipped {
                let (title, name) = (models::title(&file.model), file.system.name());
                peers.skipped.push(format!("{title} {name}, by its script: SKIPPED: {why}"));
            }
            peers.all.extend(file.peer());
        }
        Ok(peers)
    }

    /// Objects of `runs`.
    pub fn json(&self) -> impl Iterator<Item = Value> {
        self.all.iter().map(Peer::json)
    }
}

impl Peer {
    /// As ours, with `measured_by` (`command`, `machine`, `versions`), `compared`, `largest_error` and `notes`.
    pub fn json(&self) -> Value {
        let mut run = self.run.json();
        run["gateway_layers"] = Value::Null;
        run["measured_by"] =
            json!({"command": self.command, "machine": self.machine, "versions": self.versions});
        run["compared"] = self.compared.as_str().into();
        run["largest_error"] = self.largest_error.into();
        run["notes"] = self.notes.as_slice().into();
        run
    }
}

/// What is to be read, in order.
fn files(path: &Path) -> Result<Vec<PathBuf>, Error> {
    if !path.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let mut all = Vec::new();
    for entry in fs::read_dir(path).map_err(|e| Error::read(path, e))? {
        let path = entry.map_err(|e| Error::read(path, e))?.path();
        if path.extension().is_some_and(|ending| ending == "json") {
            all.push(path);
        }
    }
    match all.len() {
        0 => Err(Error::Usage(format!("--peers {}: there is no .json file in it", path.display()))),
        MAX_FILES.. => {
            Err(Error::Usage(format!("--peers {}: more files than {}", path.display(), MAX_FILES - 1)))
        }
        _ => {
            all.sort();
            Ok(all)
        }
    }
}

fn text(path: &Path) -> Result<Vec<u8>, Error> {
    let mut text = Vec::new();
    let refused = |what: &str| Error::Usage(format!("--peers {}: {what}", path.display()));
    // A pipe would be waited for.
    if !fs::metadata(path).map_err(|e| Error::read(path, e))?.is_file() {
        return Err(refused("not a file"));
    }
    let file = fs::File::open(path).map_err(|e| Error::read(path, e))?;
    file.take(MAX_BYTES + 1).read_to_end(&mut text).map_err(|e| Error::read(path, e))?;
    if text.len() as u64 > MAX_BYTES {
        return Err(refused("longer than 1 MiB"));
    }
    Ok(text)
}

/// A file's content, checked; or what is wrong with it.
fn parse(text: &[u8]) -> Result<File, String> {
    let file: File = serde_json::from_slice(text).map_err(|e| format!("not as the scripts write it: {e}"))?;
    if file.format != FORMAT {
        return Err(format!("its format is not {FORMAT}"));
    }
    if !file.system.is_peer() {
        return Err(format!("{} is measured by this program itself", file.system.word()));
    }
    if !models::is_known(&file.model) {
        return Err(format!("its model is none of {}", models::names()));
    }
    let texts = [&file.command, &file.machine, &file.compared, &file.skipped].into_iter().flatten();
    let texts: Vec<&String> =
        texts.chain(&file.notes).chain(file.versions.keys()).chain(file.versions.values()).collect();
    if file.notes.len().max(file.versions.len()) > MAX_TEXTS {
        return Err("too many notes or versions".to_owned());
    }
    if texts.iter().any(|text| text.len() > MAX_TEXT || text.chars().any(char::is_control)) {
        return Err(format!("a text is longer than {MAX_TEXT} bytes or has control characters"));
    }
    if file.runs.is_empty() && file.skipped.is_none() {
        return Err("no runs, and no reason why".to_owned());
    }
    if file.runs.len() >= MAX_FILES {
        return Err("too many runs".to_owned());
    }
    let told = [&file.command, &file.machine, &file.compared].into_iter().all(Option::is_some);
    if !file.runs.is_empty() && (!told || file.versions.is_empty()) {
        return Err("runs without command, machine, versions or what was compared".to_owned());
    }
    for (number, run) in (1..).zip(&file.runs) {
        run.check(file.server_count).map_err(|what| format!("run {number}: {what}"))?;
    }
    Ok(file)
}

impl Repetition {
    fn check(&self, servers: Option<usize>) -> Result<(), String> {
        if servers != Some(self.servers.len()) || !(1..=MAX_SERVERS).contains(&self.servers.len()) {
            return Err("its servers are not as many as server_count, or none, or too many".to_owned());
        }
        if self.count == 0 || self.count > MAX_COUNT || self.equal > self.count {
            return Err(format!("{} of {} answers", self.equal, self.count));
        }
        let own = [
            ("waiting_s", Some(self.waiting_s)),
            ("preprocessing_s", self.preprocessing_s),
            ("setup_s", self.setup_s),
            ("largest_error", self.largest_error),
            ("load_at_start", self.load_at_start),
        ];
        let parties = self.servers.iter().chain([&self.user]).flat_map(Cost::fields);
        match own.into_iter().chain(parties).find(|(_, figure)| {
            // Not a number is in no range.
            figure.is_some_and(|figure| !(0.0..=MAX_FIGURE).contains(&figure))
        }) {
            Some((name, _)) => Err(format!("{name} is negative or too large")),
            None => Ok(()),
        }
    }
}

impl File {
    /// `None` where nothing was measured.
    fn peer(self) -> Option<Peer> {
        let servers = self.server_count.filter(|_| !self.runs.is_empty())?;
        let largest_error = self.runs.iter().filter_map(|run| run.largest_error).reduce(f64::max);
        let sample = |run: Repetition| Sample {
            network: self.network,
            user: run.user,
            servers: run.servers,
            waiting_s: run.waiting_s,
            preprocessing_s: run.preprocessing_s,
            setup_s: run.setup_s,
            equal: run.equal,
            count: run.count,
            load_at_start: run.load_at_start,
        };
        Some(Peer {
            run: Run {
                system: self.system,
                model: self.model,
                servers,
                // There is no gateway.
                gateway_layers: 0,
                network: self.network,
                samples: self.runs.into_iter().map(sample).collect(),
            },
            command: self.command?,
            machine: self.machine?,
            versions: self.versions,
            compared: self.compared?,
            largest_error,
            notes: self.notes,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn good() -> Value {
        let cost =
            |cpu: f64| json!({"online_cpu_s": cpu, "online_bytes_up": 10, "preprocessing_cpu_s": null});
        let run = |cpu: f64| {
            json!({
                "user": cost(cpu), "servers": [cost(1.0)], "waiting_s": 0.5, "preprocessing_s": null,
                "setup_s": 2.0, "equal": 4, "count": 5, "largest_error": 0.01, "load_at_start": 0.5,
            })
        };
        json!({
            "format": FORMAT, "system": "spu-cheetah", "model": "minionn", "network": "lan", "server_count": 1,
            "command": "run --runs 2", "machine": "a machine", "versions": {"spu": "0.9.5"},
            "notes": ["not exact"], "compared": "label", "runs": [run(0.25), run(0.75)], "skipped": null,
        })
    }

    /// The scripts and this have one format. Without packages one of them can say what it could not measure.
    #[test]
    fn what_a_script_writes_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("peers/run");
        let mut command = std::process::Command::new(script);
        command.args(["--system", "mp-spdz", "--cache"]).arg(folder.path().join("cache"));
        let Ok(output) = command.arg("--out").arg(folder.path()).output() else {
            eprintln!("SKIPPED the scripts of peers: python3 is not installed");
            return;
        };
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let peers = Peers::read(folder.path()).unwrap();
        assert_eq!((peers.all.len(), peers.skipped.len()), (0, 2));
    }

    fn refused(change: impl Fn(&mut Value)) -> String {
        let mut file = good();
        change(&mut file);
        parse(file.to_string().as_bytes()).err().unwrap()
    }

    #[test]
    fn what_a_script_measured_stands_among_the_runs() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("a.json"), good().to_string()).unwrap();
        let mut none = good();
        (none["system"], none["runs"], none["skipped"]) = ("crypten".into(), json!([]), "no wheel".into());
        fs::write(folder.path().join("b.json"), none.to_string()).unwrap();
        fs::write(folder.path().join("a.log"), "no object").unwrap();
        let peers = Peers::read(folder.path()).unwrap();
        let runs: Vec<Value> = peers.json().collect();
        assert_eq!(runs.len(), 1);
        let run = &runs[0];
        assert_eq!((&run["system"], &run["server_count"]), (&"spu-cheetah".into(), &1.into()));
        // Honest: not all were equal, and it says by which measure.
        assert_eq!(
            (&run["equal"], &run["count"], &run["compared"]),
            (&8.into(), &10.into(), &"label".into())
        );
        assert_eq!((&run["user"]["online_cpu_s"], &run["repetitions"]), (&0.5.into(), &2.into()));
        assert_eq!(run["spread"]["user"]["online_cpu_s"]["max"], 0.75);
        for empty in [&run["preprocessing_s"], &run["user"]["storage_bytes"], &run["gateway_layers"]] {
            assert!(empty.is_null(), "what was not measured is empty: {run}");
        }
        assert_eq!(run["measured_by"]["versions"]["spu"], "0.9.5");
        let [skipped] = peers.skipped.as_slice() else { panic!("{:?}", peers.skipped) };
        assert!(skipped.contains("CrypTen") && skipped.ends_with("SKIPPED: no wheel"), "{skipped}");
        // The same once more.
        fs::write(folder.path().join("c.json"), good().to_string()).unwrap();
        let twice = Peers::read(folder.path()).err().unwrap().to_string();
        assert!(twice.contains("c.json") && twice.contains("another file"), "{twice}");
    }

    #[test]
    fn files_that_are_cut_or_of_another_kind_are_refused() {
        let text = good().to_string();
        for length in 0..text.len() {
            assert!(parse(&text.as_bytes()[..length]).is_err(), "{length}");
        }
        parse(text.as_bytes()).unwrap();
        for (path, value, told) in [
            ("/format", json!("seco-peers/2"), "format"),
            ("/system", json!("seco"), "this program"),
            ("/system", json!("other"), "unknown variant"),
            ("/system", json!(7), "not as the scripts"),
            ("/model", json!("../minionn"), "minionn, lenet"),
            ("/network", json!("moon"), "unknown variant"),
            ("/server_count", json!(2), "server_count"),
            ("/server_count", json!(-1), "not as the scripts"),
            ("/runs", json!({}), "not as the scripts"),
            ("/runs", json!([]), "no reason"),
            ("/runs/0/servers", json!([]), "server_count"),
            ("/runs/1/equal", json!(6), "run 2: 6 of 5"),
            ("/runs/0/count", json!(0), "run 1: 4 of 0"),
            ("/runs/0/count", json!(u64::MAX), "answers"),
            ("/runs/0/waiting_s", json!(-0.1), "waiting_s"),
            ("/runs/0/waiting_s", json!(null), "not as the scripts"),
            ("/runs/0/setup_s", json!("2"), "not as the scripts"),
            ("/runs/0/setup_s", json!(1e300), "setup_s"),
            ("/runs/0/user/online_bytes_up", json!(-5), "online_bytes_up"),
            ("/runs/0/servers/0/online_cpu_s", json!([1]), "not as the scripts"),
            ("/command", json!(null), "command"),
            ("/command", json!("\u{1b}[2J"), "control"),
            ("/notes/0", json!("x".repeat(MAX_TEXT + 1)), "longer"),
            ("/notes", json!(vec!["x"; MAX_TEXTS + 1]), "too many"),
            ("/versions", json!({}), "versions"),
        ] {
            let what = refused(|file| *file.pointer_mut(path).unwrap() = value.clone());
            assert!(what.contains(told), "{path} {value}: {what}");
        }
        // A field that nobody knows would be a figure that is lost.
        assert!(refused(|file| file["runs"][0]["user"]["cpu"] = 1.into()).contains("unknown field"));
        assert!(refused(|file| file["more"] = 1.into()).contains("unknown field"));
        assert!(
            refused(|file| file["runs"] = vec![file["runs"][0].clone(); MAX_FILES].into())
                .contains("too many")
        );
        let infinite = text.replacen("0.5", "1e999", 1);
        assert!(parse(infinite.as_bytes()).is_err());
        assert!(parse("[".repeat(100_000).as_bytes()).is_err(), "deep");
    }

    #[test]
    fn what_is_no_file_or_a_huge_one_is_refused_by_name() {
        let folder = tempfile::tempdir().unwrap();
        let said = |path: &Path| Peers::read(path).err().unwrap().to_string();
        assert!(said(&folder.path().join("nothing.json")).contains("nothing.json"));
        assert!(said(folder.path()).contains("no .json file"));
        let huge = folder.path().join("huge.json");
        // It takes no room, and is not read to its end.
        fs::File::create(&huge).unwrap().set_len(1 << 32).unwrap();
        assert!(said(&huge).contains("longer than 1 MiB"));
        fs::remove_file(&huge).unwrap();
        fs::create_dir(&huge).unwrap();
        assert!(said(folder.path()).contains("not a file"));
        fs::remove_dir(&huge).unwrap();
        for number in 0..MAX_FILES {
            fs::write(folder.path().join(format!("{number}.json")), "{}").unwrap();
        }
        assert!(said(folder.path()).contains("more files"));
    }
}
