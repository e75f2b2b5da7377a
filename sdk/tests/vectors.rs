//! Deployment files, good and bad ones, that the packages' tests read too: `core/tests/vectors/README.md`.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests are tests")]

use seco_sdk::{Deployment, Error};
use serde::Deserialize;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(rename = "about")]
    _about: String,
    good: Vec<Good>,
    bad: Vec<Bad>,
    successors: Vec<Successor>,
}

/// A text of its own, or another one's with the first of each pair replaced by the second, once.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Good {
    name: String,
    text: Option<Vec<String>>,
    of: Option<String>,
    edits: Option<Vec<[String; 2]>>,
    version: u8,
    input_len: usize,
    values: usize,
    width: u32,
    error: u32,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Bad {
    name: String,
    text: Option<Vec<String>>,
    of: Option<String>,
    edits: Option<Vec<[String; 2]>>,
    at: String,
    problem: String,
    error: u32,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Successor {
    name: String,
    present: String,
    of: String,
    edits: Vec<[String; 2]>,
    signature: String,
    signed_edits: Vec<[String; 2]>,
    at: Option<String>,
    error: Option<u32>,
}

fn file() -> File {
    serde_json::from_str(include_str!("../core/tests/vectors/wire-2/deployment.json")).unwrap()
}

fn edited(mut text: String, edits: &[[String; 2]]) -> String {
    for [from, to] in edits {
        assert!(text.contains(from), "{from:.80}");
        text = text.replacen(from, to, 1);
    }
    text
}

impl File {
    fn good(&self, name: &str) -> String {
        let entry = self.good.iter().find(|entry| entry.name == name).unwrap();
        self.text(entry.text.as_deref(), entry.of.as_deref(), entry.edits.as_deref())
    }

    fn text(&self, own: Option<&[String]>, of: Option<&str>, edits: Option<&[[String; 2]]>) -> String {
        match (own, of, edits) {
            (Some(lines), None, None) => lines.join("\n"),
            (None, Some(of), Some(edits)) => edited(self.good(of), edits),
            _ => panic!("a text, or another's and edits"),
        }
    }
}

fn refused(result: Result<Deployment, Error>, name: &str) -> (String, String) {
    match result {
        Err(Error::Deployment { at, problem }) => (at, problem),
        other => panic!("{name}: {:?}", other.map(|_| "read")),
    }
}

#[test]
fn good_deployment_files_are_read_and_written() {
    let file = file();
    for entry in &file.good {
        let (text, name) = (file.good(&entry.name), &entry.name);
        let deployment = Deployment::from_toml(&text).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(deployment.to_toml().unwrap(), text, "{name}");
        let info = deployment.model_info().unwrap();
        let told = (deployment.version, info.input_len, info.values, info.width);
        assert_eq!(told, (entry.version, entry.input_len, entry.values, entry.width), "{name}");
        // The packages' tests: nobody is at its address, or one of several models is to be chosen first.
        assert_eq!(entry.error, if deployment.others.is_empty() { 3 } else { 1 }, "{name}");
    }
}

#[test]
fn bad_deployment_files_are_refused_where_they_are_wrong() {
    let file = file();
    for entry in &file.bad {
        let text = file.text(entry.text.as_deref(), entry.of.as_deref(), entry.edits.as_deref());
        let (at, problem) = refused(Deployment::from_toml(&text), &entry.name);
        assert_eq!(at, entry.at, "{}: {problem}", entry.name);
        assert!(problem.contains(&entry.problem) && !problem.contains('\n'), "{}: {problem}", entry.name);
        assert_eq!(entry.error, 1, "a mistake of the application: the packages' tests");
    }
    assert!(file.bad.len() > 60);
}

#[test]
fn files_that_are_to_take_anothers_place_are_told_apart() {
    let file = file();
    for entry in &file.successors {
        let present = Deployment::from_toml(&file.good(&entry.present)).unwrap();
        let text = edited(file.good(&entry.of), &entry.edits);
        let signed = format!("signature = \"{}\"\n{text}", entry.signature);
        let result = present.successor(&edited(signed, &entry.signed_edits));
        match (&entry.at, entry.error) {
            (None, None) => assert_eq!(result.unwrap(), Deployment::from_toml(&text).unwrap()),
            (Some(at), Some(1)) => assert_eq!(refused(result, &entry.name).0, *at, "{}", entry.name),
            _ => panic!("{}: at and error, or none", entry.name),
        }
    }
}
