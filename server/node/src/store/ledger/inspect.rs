//! Whether a ledger and its heads agree, told without touching either: for `seco doctor`, beside a running server too.

use std::fs;
use std::path::{Path, PathBuf};

use super::{FileLedger, Heads};
use crate::{Error, private};

/// Opens a copy, for opening writes. Gives the number of entries, or nothing if the ledger has not been begun.
///
/// # Errors
/// Those of [`FileLedger::open`], and what cannot be read or copied.
pub fn inspect(directory: &Path, heads: &Heads) -> Result<Option<u64>, Error> {
    let path = directory.join("ledger");
    let scratch = tempfile::tempdir().map_err(|e| Error::write(&std::env::temp_dir(), e))?;
    let (keys, state) = (scratch.path().join("keys"), scratch.path().join("state"));
    for folder in [&keys, &state] {
        private::folder(folder)?;
    }
    // The heads first: a running server's ledger is never behind them.
    let mut found = false;
    let mut copy = |from: &PathBuf| {
        let to = keys.join(from.file_name().unwrap_or_default());
        if from.exists() {
            found = true;
            fs::copy(from, &to).map_err(|e| Error::read(from, e))?;
        }
        Ok::<PathBuf, Error>(to)
    };
    let copies = Heads {
        own: copy(&heads.own)?,
        earlier: heads.earlier.iter().map(&mut copy).collect::<Result<_, _>>()?,
        others: heads.others.iter().map(&mut copy).collect::<Result<_, _>>()?,
    };
    match fs::copy(&path, state.join("ledger")) {
        Ok(_) => {}
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && !found => return Ok(None),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(Error::read(&path, error)),
    }
    match FileLedger::open(&state, &copies) {
        Ok(ledger) => Ok(Some(ledger.entries())),
        // Said of the files themselves.
        Err(Error::Ledger { what, .. }) => {
            let here = heads.own.parent().unwrap_or(Path::new("")).display().to_string();
            Err(Error::Ledger { path, what: what.replace(&keys.display().to_string(), &here) })
        }
        Err(other) => Err(other),
    }
}

#[cfg(test)]
mod tests {
    use seco_protocol::{BundleId, Ledger as _, Use};

    use super::*;

    #[test]
    fn a_ledger_is_judged_and_left_as_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let (state, head) = (folder.path().join("state"), folder.path().join("s0.ledger.head"));
        let heads = Heads::only(&head);
        assert_eq!(inspect(&state, &heads).unwrap(), None);
        assert!(!state.exists() && !head.exists());
        let ledger = FileLedger::open(&state, &heads).unwrap();
        for counter in 0..3 {
            let usage = Use { session: [1; 16], incarnation: [2; 16], counter };
            ledger.spend(&BundleId([counter as u8; 16]), &usage).unwrap();
        }
        // Beside the running server, whose head is behind.
        assert_eq!(inspect(&state, &heads).unwrap(), Some(3));
        ledger.record_head().unwrap();
        drop(ledger);
        let files = |path: &Path| fs::read(path).unwrap();
        let before = (files(&head), files(&state.join("ledger")));
        assert_eq!(inspect(&state, &heads).unwrap(), Some(3));
        assert_eq!((files(&head), files(&state.join("ledger"))), before);
        // Cut short, and then gone.
        let ledger = before.1.get(..before.1.len() - 60).unwrap();
        fs::write(state.join("ledger"), ledger).unwrap();
        let told = inspect(&state, &heads).unwrap_err().to_string();
        let (path, shown) = (state.join("ledger").display().to_string(), head.display().to_string());
        assert!(told.starts_with(&path) && told.contains(&shown) && told.contains("set back"), "{told}");
        fs::remove_file(state.join("ledger")).unwrap();
        let told = inspect(&state, &heads).unwrap_err().to_string();
        assert!(told.contains("is missing, but had 3 entries"), "{told}");
        assert!(!state.join("ledger").exists());
    }
}
