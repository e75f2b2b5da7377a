//! The next deployment file: who may write it, and how a device tells (`server/PROTOCOL.md`, section 8).
//!
//! An owner has an Ed25519 key, whose public half stands in the file that an application ships. What takes that file's
//! place begins with a line `signature = "…"` over all the bytes behind it, names the same owner, and has a larger number.
//! So whoever runs the gateway may pass it on, and can neither change it nor bring an old one back. It can keep it to
//! itself: nothing here tells a device that there is a newer one.

use super::{Deployment, problem};
use crate::{Error, Result, hex};
use serde::{Serialize, Serializer};

/// What stands before the signed bytes.
const CONTEXT: &[u8] = b"SECO deployment v1\0";
/// How a signed file begins.
const FIRST: &str = "signature = \"";

/// Who may write the file that takes this one's place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Update {
    /// The owner's Ed25519 key, public: 64 hexadecimal digits.
    #[serde(serialize_with = "write_key")]
    pub owner: [u8; 32],
    /// Grows from file to file.
    pub serial: u64,
}

fn write_key<S: Serializer>(key: &[u8; 32], to: S) -> std::result::Result<S::Ok, S::Error> {
    to.serialize_str(&hex::encode(key))
}

impl Update {
    /// Longest text of a file that a gateway can pass on, in bytes: what a device takes of an answer.
    pub const MAX_TEXT: usize = 65_535;
}

impl Deployment {
    /// A file's text with its signature, which `sign` makes of the bytes that it is given.
    #[must_use]
    pub fn signed(text: &str, sign: impl FnOnce(&[u8]) -> [u8; 64]) -> String {
        let signature = sign(&[CONTEXT, text.as_bytes()].concat());
        format!("{FIRST}{}\"\n{text}", hex::encode(&signature))
    }

    /// Whether `text`, this file's, is signed by the owner whom it names: for whoever passes it on.
    #[must_use]
    pub fn is_signed(&self, text: &str) -> bool {
        self.update.is_some_and(|update| verify(&update.owner, text))
    }

    /// Reads the text that is to take this file's place: whoever passed it on need not be trusted.
    ///
    /// # Errors
    /// [`Error::Deployment`] if this file names no owner, or the text is not signed by that owner, names another, is
    /// not newer, or is none that can be used.
    pub fn successor(&self, text: &str) -> Result<Deployment> {
        let ours =
            self.update.ok_or_else(|| problem("update", "is missing: nobody may replace this file"))?;
        let unsigned =
            || problem("signature", "is not the owner's: the file was altered, or somebody else's");
        if !verify(&ours.owner, text) {
            return Err(unsigned());
        }
        let next = Deployment::from_toml(text)?;
        match next.update {
            Some(theirs) if theirs.owner != ours.owner => Err(problem("update.owner", "is another")),
            Some(theirs) if theirs.serial > ours.serial => Ok(next),
            Some(_) => Err(problem("update.serial", "is not larger than that of the present file")),
            None => Err(problem("update", "is missing")),
        }
    }
}

/// Whether a text begins with this owner's signature of what follows.
fn verify(owner: &[u8; 32], text: &str) -> bool {
    let signed = text.strip_prefix(FIRST).and_then(|rest| rest.split_once("\"\n"));
    let Some((signature, rest)) = signed else { return false };
    let Some(signature) = hex::decode_array::<64>(signature) else { return false };
    let message = [CONTEXT, rest.as_bytes()].concat();
    webpki::ring::ED25519.verify_signature(owner, &message, &signature).is_ok()
}

/// A setting that an update needs.
pub(crate) fn no_owner() -> Error {
    Error::Setting { setting: "deployment", problem: "names no owner, so that nobody may replace it" }
}
