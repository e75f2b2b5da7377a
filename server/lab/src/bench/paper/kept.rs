//! Finished parts, kept beside the report: a command that was interrupted goes on where it was.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use seco_node::keys;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::figures::Sample;
use super::machine::Machine;
use super::models::Facts;
use super::plan::Part;
use crate::Error;

/// The folder of parts. Those of another program, commit, machine or folder of models are not seen.
pub struct Kept {
    folder: PathBuf,
    fingerprint: String,
}

/// A file of it.
#[derive(Serialize, Deserialize)]
struct Entry<T> {
    fingerprint: String,
    seconds: f64,
    content: T,
}

impl Kept {
    /// Makes the folder; if `fresh`, without the parts that are in it. `models` are where networks come from.
    pub fn open(out: &Path, machine: &Machine, models: Option<&Path>, fresh: bool) -> Result<Kept, Error> {
        let folder = out.join("parts");
        fs::create_dir_all(&folder).map_err(|e| Error::write(&folder, e))?;
        let entries = fs::read_dir(&folder).map_err(|e| Error::read(&folder, e))?;
        // Parts alone: the folder may have been somebody's.
        let paths =
            entries.filter_map(|entry| Some(entry.ok()?.path())).filter(|path| fresh && is_part(path));
        for path in paths {
            fs::remove_file(&path).map_err(|e| Error::write(&path, e))?;
        }
        Ok(Kept { folder, fingerprint: format!("{}, {}", machine.fingerprint(), listing(models)) })
    }

    /// A part's samples and how long they took, if they are there.
    pub fn samples(&self, part: &Part) -> Option<(Vec<Sample>, f64)> {
        self.read(&part.name())
    }

    /// Keeps them.
    pub fn keep(&self, part: &Part, samples: &Vec<Sample>, seconds: f64) -> Result<(), Error> {
        self.write(&part.name(), samples, seconds)
    }

    /// What is told of a network.
    pub fn facts(&self, model: &str) -> Option<Facts> {
        self.read(&format!("{model}-facts")).map(|(facts, _)| facts)
    }

    /// Keeps it.
    pub fn keep_facts(&self, facts: &Facts) -> Result<(), Error> {
        self.write(&format!("{}-facts", facts.name), facts, 0.0)
    }

    fn read<T: DeserializeOwned>(&self, name: &str) -> Option<(T, f64)> {
        let text = fs::read(self.folder.join(format!("{name}.json"))).ok()?;
        // Half a file is none.
        let entry: Entry<T> = serde_json::from_slice(&text).ok()?;
        (entry.fingerprint == self.fingerprint).then_some((entry.content, entry.seconds))
    }

    fn write<T: Serialize>(&self, name: &str, content: T, seconds: f64) -> Result<(), Error> {
        let path = self.folder.join(format!("{name}.json"));
        let entry = Entry { fingerprint: self.fingerprint.clone(), seconds, content };
        let text =
            serde_json::to_vec(&entry).map_err(|e| Error::Failed(format!("{}: {e}", path.display())))?;
        fs::write(&path, text).map_err(|e| Error::write(&path, e))
    }
}

/// Whether a file is one of ours, whoever wrote it.
fn is_part(path: &Path) -> bool {
    let read = |path| serde_json::from_slice::<Entry<serde_json::Value>>(&fs::read(path).ok()?).ok();
    path.extension().is_some_and(|ending| ending == "json") && read(path).is_some()
}

/// Names and sizes of a folder's files and when they were written: enough to tell networks from others.
fn listing(models: Option<&Path>) -> String {
    let Some(models) = models else { return "no models".to_owned() };
    let entries = fs::read_dir(models).into_iter().flatten().flatten();
    let mut files: Vec<String> = entries
        .filter_map(|entry| {
            let data = entry.metadata().ok()?;
            let written = data.modified().ok()?.duration_since(UNIX_EPOCH).ok()?.as_secs();
            Some(format!("{} {} {written}", entry.file_name().to_string_lossy(), data.len()))
        })
        .collect();
    files.sort();
    keys::to_hex(&Sha256::digest(files.join("\n")))
}

#[cfg(test)]
mod tests {
    use super::super::figures::{Cost, Network, System};
    use super::*;

    #[test]
    fn parts_are_found_again_by_the_same_program_and_machine_only() {
        let folder = tempfile::tempdir().unwrap();
        let machine = Machine::look().unwrap();
        let part = Part {
            system: System::Seco,
            model: "mlp".to_owned(),
            servers: 3,
            gateway_layers: 1,
            networks: vec![Network::Lan],
            requests: 2,
            repetition: 0,
        };
        let user = Cost { online_cpu_s: Some(0.1 + 0.2), ..Cost::default() };
        let sample = Sample {
            network: Network::Lan,
            user,
            servers: Vec::new(),
            waiting_s: 1.5,
            preprocessing_s: Some(0.0),
            setup_s: Some(0.0),
            equal: 2,
            count: 2,
            load_at_start: Some(0.5),
        };
        let open = |machine: &Machine, models: Option<&Path>, fresh: bool| {
            Kept::open(folder.path(), machine, models, fresh).unwrap()
        };
        let kept = open(&machine, None, false);
        assert!(kept.samples(&part).is_none());
        kept.keep(&part, &vec![sample.clone()], 7.0).unwrap();
        let again = open(&machine, None, false);
        assert_eq!(again.samples(&part), Some((vec![sample], 7.0)));
        assert!(again.samples(&Part { repetition: 1, ..part.clone() }).is_none());
        let other = Machine { folder_commit: Some("another".to_owned()), ..machine.clone() };
        assert!(open(&other, None, false).samples(&part).is_none());
        let models = tempfile::tempdir().unwrap();
        let with = open(&machine, Some(models.path()), false);
        assert!(with.samples(&part).is_none(), "of other networks");
        fs::write(models.path().join("lenet.onnx"), "trained").unwrap();
        assert_ne!(with.fingerprint, open(&machine, Some(models.path()), false).fingerprint);
        // Half a file, as a machine that lost its power leaves it.
        let path = folder.path().join("parts").join(format!("{}.json", part.name()));
        let text = fs::read(&path).unwrap();
        fs::write(&path, &text[..text.len() / 2]).unwrap();
        assert!(again.samples(&part).is_none());
        fs::write(&path, &text).unwrap();
        let own = folder.path().join("parts/notes.json");
        fs::write(&own, "{}").unwrap();
        assert!(open(&machine, None, true).samples(&part).is_none());
        assert!(own.exists() && !path.exists(), "what is no part stays");
    }
}
