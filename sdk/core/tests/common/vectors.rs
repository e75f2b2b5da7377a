//! Reads `vectors/wire-2`: whatever an entry has and its test does not ask for is a mistake in one of both.

use super::unhex;
use seco_core::Error;
use serde_json::{Map, Value};
use std::fmt::Debug;

pub struct Entry(Map<String, Value>);

/// Hands every entry of a list in a file to `check`, and sees that it took all of it.
pub fn each(file: &str, list: &str, mut check: impl FnMut(&mut Entry)) {
    let entries = section(file, list);
    let entries = entries.as_array().unwrap_or_else(|| panic!("{list} is no list"));
    assert!(!entries.is_empty(), "{list}");
    for entry in entries {
        one(entry, &mut check);
    }
}

/// [`each`] for what is one object.
pub fn only(file: &str, name: &str, mut check: impl FnMut(&mut Entry)) {
    one(&section(file, name), &mut check);
}

fn one(entry: &Value, check: &mut impl FnMut(&mut Entry)) {
    // Shown by the test's failure, and by no other.
    println!("{:.200}", entry.to_string());
    let mut rest = Entry(entry.as_object().unwrap().clone());
    check(&mut rest);
    rest.0.remove("name");
    assert!(rest.0.is_empty(), "unknown: {:?}", rest.0.keys());
}

pub fn section(file: &str, name: &str) -> Value {
    let mut file: Map<String, Value> = serde_json::from_str(file).unwrap();
    file.remove(name).unwrap_or_else(|| panic!("{name} is missing"))
}

/// The sections of a file, without what it says of itself.
pub fn sections(file: &str) -> Vec<String> {
    let file: Map<String, Value> = serde_json::from_str(file).unwrap();
    file.into_iter().map(|(name, _)| name).filter(|name| name != "about").collect()
}

/// Digits of bytes, and nothing else.
pub fn strict(text: &str) -> Vec<u8> {
    assert!(text.len().is_multiple_of(2) && text.chars().all(|c| c.is_ascii_hexdigit()), "{text:.80}");
    unhex(text)
}

impl Entry {
    pub fn has(&self, key: &str) -> bool {
        self.0.contains_key(key)
    }

    pub fn value(&mut self, key: &str) -> Value {
        self.0.remove(key).unwrap_or_else(|| panic!("{key} is missing"))
    }

    pub fn text(&mut self, key: &str) -> String {
        self.value(key).as_str().unwrap_or_else(|| panic!("{key} is no text")).to_owned()
    }

    pub fn bytes(&mut self, key: &str) -> Vec<u8> {
        strict(&self.text(key))
    }

    pub fn array<const N: usize>(&mut self, key: &str) -> [u8; N] {
        self.bytes(key).try_into().unwrap_or_else(|bytes: Vec<u8>| panic!("{key} has {} bytes", bytes.len()))
    }

    pub fn number<T: TryFrom<u64>>(&mut self, key: &str) -> T {
        let number = self.value(key).as_u64().unwrap_or_else(|| panic!("{key} is no number"));
        T::try_from(number).unwrap_or_else(|_| panic!("{key} is out of range"))
    }

    /// What may exceed 2^53 is text, for JSON's readers differ there.
    pub fn long(&mut self, key: &str) -> u64 {
        self.text(key).parse().unwrap()
    }

    pub fn list<T>(&mut self, key: &str, read: impl Fn(&Value) -> T) -> Vec<T> {
        self.value(key).as_array().unwrap_or_else(|| panic!("{key} is no list")).iter().map(read).collect()
    }

    pub fn words(&mut self, key: &str) -> Vec<u32> {
        self.list(key, |word| word.as_u64().and_then(|word| word.try_into().ok()).unwrap())
    }

    /// Compares an error's name and numbers with the entry's `error` and whatever is left of it.
    pub fn fails<T: Debug>(&mut self, result: Result<T, Error>) {
        let error = result.map(|got| format!("{got:?}")).expect_err("an error");
        let (name, numbers) = named(&error);
        assert_eq!(self.text("error"), name);
        for (key, value) in numbers {
            // What the device's own sizes say is in the entry already, if it is of use.
            if self.has(key) {
                assert_eq!(self.number::<usize>(key), value, "{key}");
            } else {
                assert_eq!((name, key), ("TooLong", "limit"), "{error}");
            }
        }
    }
}

/// An error's name and numbers. Not by `Debug`, which builds for devices have without its contents.
fn named(error: &Error) -> (&'static str, Vec<(&'static str, usize)>) {
    match *error {
        Error::TooLong { len, limit } => ("TooLong", vec![("len", len), ("limit", limit)]),
        Error::Version { got } => ("Version", vec![("got", got.into())]),
        Error::Malformed => ("Malformed", vec![]),
        Error::WrongLength { expected, got } => ("WrongLength", vec![("expected", expected), ("got", got)]),
        Error::Servers { got } => ("Servers", vec![("got", got)]),
        Error::Width { got } => ("Width", vec![("got", got as usize)]),
        Error::Unsealable => ("Unsealable", vec![]),
        Error::SessionBlob => ("SessionBlob", vec![]),
        Error::SessionBlobVersion { got } => ("SessionBlobVersion", vec![("got", got.into())]),
        ref other => panic!("no vector has {other}"),
    }
}
