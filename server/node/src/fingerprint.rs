//! Fingerprints of public keys, for two people on the telephone: forty digits in groups of five, which both compute of
//! what they have, the sender of his file and the receiver of what came.
//!
//! A fingerprint is of the key and not of its file: line ends and what else a mail changes do not matter. It is SHA-256
//! over a label for the kind of key and its bytes; the eight words of four bytes (big-endian), each modulo 100,000, are the
//! groups. That is 132 bits: who wants a key of his own to be taken for another one has to try some 2^132.

use std::fmt;
use std::path::Path;

use sha2::{Digest as _, Sha256};

use crate::{Error, keys};

/// Groups of five digits.
const GROUPS: usize = 8;
/// One more than the largest group.
const GROUP: u32 = 100_000;

/// What a key is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// By which servers, and devices the gateway, know a server.
    Certificate,
    /// To which devices seal what only one server may read.
    SealingKey,
}

/// A key's fingerprint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fingerprint {
    kind: Kind,
    groups: [u32; GROUPS],
}

impl Fingerprint {
    /// Of a certificate in DER, or of a sealing key's bytes.
    pub fn new(kind: Kind, key: &[u8]) -> Fingerprint {
        let label: &[u8] = match kind {
            Kind::Certificate => b"SECO certificate fingerprint v1",
            Kind::SealingKey => b"SECO sealing key fingerprint v1",
        };
        let hash = Sha256::new().chain_update(label).chain_update(key).finalize();
        let mut groups = [0; GROUPS];
        for (group, word) in groups.iter_mut().zip(hash.as_chunks::<4>().0) {
            *group = u32::from_be_bytes(*word) % GROUP;
        }
        Fingerprint { kind, groups }
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.kind {
            Kind::Certificate => "certificate",
            Kind::SealingKey => "sealing key",
        };
        write!(f, "{kind} ")?;
        self.groups.iter().try_for_each(|group| write!(f, " {group:05}"))
    }
}

/// The fingerprints of a public file of `seco keygen`: a sealing key's, or those of all certificates in it.
///
/// # Errors
/// Those of the file, and a file that is neither.
pub fn of_file(path: &Path) -> Result<Vec<Fingerprint>, Error> {
    let certificate = match keys::certificates(path) {
        Ok(all) => return Ok(all.iter().map(|one| Fingerprint::new(Kind::Certificate, one)).collect()),
        Err(error @ Error::Key { .. }) => error,
        Err(error) => return Err(error),
    };
    match keys::sealing_key(path) {
        Ok(key) => Ok(vec![Fingerprint::new(Kind::SealingKey, key.as_bytes())]),
        // Of a PEM file the certificate's error says more.
        Err(_) if path.extension().is_some_and(|end| end == "pem") => Err(certificate),
        Err(_) => Err(Error::Key {
            path: path.to_owned(),
            what: "is neither a certificate nor a sealing key: give NAME.cert.pem or NAME.sealing.pub"
                .to_owned(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// Operators may have different releases: these digits stay what they are.
    #[test]
    fn digits_are_the_same_in_every_release() {
        let certificate = Fingerprint::new(Kind::Certificate, b"certificate").to_string();
        let sealing = Fingerprint::new(Kind::SealingKey, b"certificate").to_string();
        assert_eq!(certificate, "certificate  16157 83817 51419 64725 47887 08396 06125 10361");
        assert_eq!(sealing, "sealing key  38667 38446 66814 06141 99032 97168 37704 00260");
    }

    #[test]
    fn the_key_counts_and_not_its_file() {
        let folder = tempfile::tempdir().unwrap();
        let files = keys::generate(folder.path(), "s").unwrap();
        let other = keys::generate(folder.path(), "t").unwrap();
        let of = |path: &Path| of_file(path).unwrap();
        let path = folder.path().join("came");
        for (own, others) in
            [(&files.certificate, &other.certificate), (&files.sealing_key, &other.sealing_key)]
        {
            let text = fs::read_to_string(own).unwrap();
            fs::write(&path, format!("{}\r\n", text.trim_end().replace('\n', "\r\n"))).unwrap();
            assert_eq!(of(&path), of(own));
            assert_ne!(of(others), of(own));
            assert_eq!(of(own).len(), 1);
        }
        // While a certificate changes, its file has two.
        let both = [&files.certificate, &other.certificate].map(|path| fs::read_to_string(path).unwrap());
        fs::write(&path, both.concat()).unwrap();
        assert_eq!(of(&path), [of(&files.certificate), of(&other.certificate)].concat());
    }

    #[test]
    fn secrets_and_other_files_have_none() {
        let folder = tempfile::tempdir().unwrap();
        let files = keys::generate(folder.path(), "s").unwrap();
        for (path, told) in [
            (&files.key, "holds no PEM certificate"),
            (&files.opening_key, "neither a certificate nor a sealing key"),
            (&folder.path().join("absent"), "cannot be read"),
        ] {
            let error = of_file(path).unwrap_err().to_string();
            assert!(error.contains(told), "{error}");
        }
    }
}
