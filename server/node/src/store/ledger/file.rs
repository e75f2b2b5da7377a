//! A ledger's file: opened, begun anew, and told from another of the same name.

use std::fs::{self, File, TryLockError};
use std::io::{self, BufWriter, Read as _, Write as _};
use std::path::{Path, PathBuf};

use seco_protocol::BundleId;

use super::format::{self, HEADER};
use super::head::Head;
use crate::{Error, private};

/// Which file it is, whatever its name.
#[derive(PartialEq, Eq)]
pub(super) struct Place(#[cfg(unix)] (u64, u64));

impl Place {
    #[cfg(unix)]
    pub(super) fn of(metadata: &fs::Metadata) -> Place {
        use std::os::unix::fs::MetadataExt as _;
        Place((metadata.dev(), metadata.ino()))
    }

    #[cfg(not(unix))]
    pub(super) fn of(_: &fs::Metadata) -> Place {
        Place()
    }
}

/// Takes the directory for this process.
pub(super) fn lock(directory: &Path) -> Result<File, Error> {
    let path = directory.join("lock");
    let open = private::options().write(true).create(true).truncate(false).open(&path);
    let lock = open.map_err(|e| Error::write(&path, e))?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(TryLockError::WouldBlock) => Err(Error::Ledger {
            path: directory.to_owned(),
            what: "is in use by another server: give each its own [state] directory".to_owned(),
        }),
        Err(TryLockError::Error(e)) => Err(Error::write(&path, e)),
    }
}

/// Opens a ledger and reads its first bytes, as many as there are.
pub(super) fn open_file(path: &Path) -> io::Result<(File, Vec<u8>)> {
    let mut file = private::options().read(true).write(true).open(path)?;
    let mut header = Vec::new();
    (&mut file).take(HEADER.len() as u64).read_to_end(&mut header)?;
    Ok((file, header))
}

/// Writes a ledger without spends and puts it in place, durably.
pub(super) fn write_new(
    path: &Path,
    head: &Head,
    sessions: &[[u8; 16]],
    ready: &[BundleId],
) -> io::Result<File> {
    let file = New::write(path, head, sessions, ready)?.put()?;
    path.parent().map_or(Ok(()), private::sync_folder)?;
    Ok(file)
}

/// A ledger without spends that is on disk and has another name yet.
pub(super) struct New<'a> {
    path: &'a Path,
    new: PathBuf,
    file: File,
}

impl<'a> New<'a> {
    pub(super) fn write(
        path: &'a Path,
        head: &Head,
        sessions: &[[u8; 16]],
        ready: &[BundleId],
    ) -> io::Result<New<'a>> {
        let new = path.with_extension("new");
        let file = private::options().write(true).create(true).truncate(true).open(&new)?;
        let mut output = BufWriter::new(file);
        output.write_all(HEADER)?;
        output.write_all(&format::base(head, sessions.len(), ready.len()))?;
        sessions.iter().try_for_each(|session| output.write_all(&format::session(session)))?;
        ready.iter().try_for_each(|bundle| output.write_all(&format::ready(bundle)))?;
        let file = output.into_inner().map_err(io::IntoInnerError::into_error)?;
        file.sync_all()?;
        Ok(New { path, new, file })
    }

    /// Gives it its name. That is durable when the folder is.
    pub(super) fn put(self) -> io::Result<File> {
        fs::rename(&self.new, self.path)?;
        Ok(self.file)
    }
}
