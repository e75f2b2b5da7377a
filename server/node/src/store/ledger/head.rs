//! Where a ledger ends, and the file beside the server's keys that remembers it: a ledger that was set back,
//! removed or replaced is noticed by it.

use std::fs;
use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::REMEDY;
use crate::keys::{from_hex, to_hex};
use crate::{Error, private};

const TITLE: &str = "seco ledger head v1";
/// The file has less than 150 bytes; whatever is larger was mistaken for one.
const MAX_FILE: usize = 256;

/// How many bundles were ever spent, and the hash that depends on each of them in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// Number of spends.
    pub count: u64,
    /// Random where the ledger begins; then the SHA-256 of the one before and the record.
    pub chain: [u8; 32],
}

impl Head {
    /// The head after one more record.
    pub(super) fn after(&self, record: &[u8]) -> Head {
        let chain = Sha256::new().chain_update(self.chain).chain_update(record).finalize();
        Head { count: self.count + 1, chain: chain.into() }
    }

    /// Reads the file; `None` if there is none.
    pub(super) fn load(path: &Path) -> Result<Option<Head>, Error> {
        let bytes = match fs::read(path) {
            Ok(bytes) => bytes,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(Error::read(path, e)),
        };
        private::close(path)?;
        let head = (bytes.len() <= MAX_FILE).then(|| Head::parse(&bytes)).flatten();
        head.map(Some).ok_or_else(|| Error::Ledger {
            path: path.to_owned(),
            what: format!("is not the record of where the ledger ends that stood there: {REMEDY}"),
        })
    }

    fn parse(bytes: &[u8]) -> Option<Head> {
        let mut lines = std::str::from_utf8(bytes).ok()?.strip_suffix('\n')?.split('\n');
        let (title, count, hash) = (lines.next()?, lines.next()?, lines.next()?);
        let mut chain = [0; 32];
        from_hex(hash, &mut chain)?;
        let count = count.parse().ok()?;
        (title == TITLE && lines.next().is_none()).then_some(Head { count, chain })
    }

    /// Writes the file, durably; after a crash it is the old or the new one.
    pub(super) fn store(&self, path: &Path) -> io::Result<()> {
        private::replace(path, format!("{TITLE}\n{}\n{}\n", self.count, to_hex(&self.chain)).as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("head");
        assert_eq!(Head::load(&path).unwrap(), None);
        let head = Head { count: 77, chain: [9; 32] };
        head.store(&path).unwrap();
        assert_eq!(Head::load(&path).unwrap(), Some(head));
        assert!(head.after(b"a") != head.after(b"b"));
        assert_eq!(head.after(b"a").count, 78);
        let whole = fs::read(&path).unwrap();
        for cut in 0..whole.len() {
            fs::write(&path, &whole[..cut]).unwrap();
            let error = Head::load(&path).unwrap_err().to_string();
            assert!(error.contains("head") && error.contains("seco keygen"), "{error}");
        }
        for other in [[&whole[..], b"\n"].concat(), vec![0xff; 40], vec![b'1'; 1 << 20]] {
            fs::write(&path, other).unwrap();
            assert!(Head::load(&path).is_err());
        }
    }
}
