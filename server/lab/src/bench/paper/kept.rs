//! Finished parts, kept beside the report: a command that was interrupted goes on where it was.

use std::fs;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::figures::Sample;
use super::machine::Machine;
use super::models::Facts;
use super::plan::Part;
use crate::Error;

/// The folder of parts. Those of another program, commit or machine are not seen.
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
    /// Makes the folder; if `fresh`, without what is in it.
    pub fn open(out: &Path, machine: &Machine, fresh: bool) -> Result<Kept, Error> {
        let folder = out.join("parts");
        if fresh && folder.exists() {
            fs::remove_dir_all(&folder).map_err(|e| Error::write(&folder, e))?;
        }
        fs::create_dir_all(&folder).map_err(|e| Error::write(&folder, e))?;
        Ok(Kept { folder, fingerprint: machine.fingerprint() })
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
            preprocessing_s: 0.0,
            setup_s: 0.0,
            equal: 2,
            count: 2,
        };
        let kept = Kept::open(folder.path(), &machine, false).unwrap();
        assert!(kept.samples(&part).is_none());
        kept.keep(&part, &vec![sample.clone()], 7.0).unwrap();
        let again = Kept::open(folder.path(), &machine, false).unwrap();
        assert_eq!(again.samples(&part), Some((vec![sample], 7.0)));
        assert!(again.samples(&Part { repetition: 1, ..part.clone() }).is_none());
        let other = Machine { commit: Some("another".to_owned()), ..machine.clone() };
        assert!(Kept::open(folder.path(), &other, false).unwrap().samples(&part).is_none());
        // Half a file, as a machine that lost its power leaves it.
        let path = folder.path().join("parts").join(format!("{}.json", part.name()));
        let text = fs::read(&path).unwrap();
        fs::write(&path, &text[..text.len() / 2]).unwrap();
        assert!(again.samples(&part).is_none());
        fs::write(&path, &text).unwrap();
        let fresh = Kept::open(folder.path(), &machine, true).unwrap();
        assert!(fresh.samples(&part).is_none());
    }
}
