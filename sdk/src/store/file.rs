//! A session in a file, for systems where files of one user are safe from others.

use super::SessionStore;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;
use zeroize::Zeroize as _;

/// Age from which a temporary file has been left behind by a writer that crashed: writing takes far less.
const LEFT_BEHIND: Duration = Duration::from_secs(3600);

/// Random bytes in the name of a temporary file.
const RANDOM: usize = 8;

/// How often writing is tried in all. Once, but for a clock that is set forward by an hour while somebody
/// writes, so that another writer takes the temporary file for one that was left behind.
const TRIES: usize = 3;

/// Keeps a session in a file, readable by its owner alone (mode 0600 where there are modes). For devices
/// without a key store, say a Raspberry Pi; on phones, use the platform's.
///
/// Saving writes a new file beside it, waits until that is on the disk, and puts it in place of the old one:
/// after a crash there is one or the other, whole. Any number of threads and processes may load and save at
/// the same time. The new file has a name that no other writer has, the file's with `.PID-RANDOM.new` added;
/// saving removes those that were left by a crash more than an hour ago.
#[derive(Clone, Debug)]
pub struct FileStore {
    path: PathBuf,
}

impl FileStore {
    /// A store in the file `path`, whose directory exists. Nothing is read or written yet.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }

    fn directory(&self) -> &Path {
        let parent = self.path.parent().filter(|parent| !parent.as_os_str().is_empty());
        parent.unwrap_or(Path::new("."))
    }

    /// A name of this writer's own.
    fn temporary(&self) -> io::Result<PathBuf> {
        let mut random = [0; RANDOM];
        getrandom::fill(&mut random).map_err(|_| io::Error::other("the system gives no randomness"))?;
        let mut name = self.path.clone().into_os_string();
        name.push(format!(".{}-{:016x}.new", std::process::id(), u64::from_le_bytes(random)));
        Ok(name.into())
    }

    /// Whether `name` is one that [`FileStore::temporary`] gives.
    fn is_temporary(&self, name: &OsStr) -> bool {
        let prefix = self.path.file_name().map(OsString::from).unwrap_or_default();
        let middle = name.as_encoded_bytes().strip_prefix(prefix.as_encoded_bytes());
        let middle = middle.and_then(|rest| rest.strip_prefix(b".")?.strip_suffix(b".new"));
        let Some((pid, random)) = middle.and_then(|middle| {
            let dash = middle.iter().position(|byte| *byte == b'-')?;
            Some((middle.get(..dash)?, middle.get(dash + 1..)?))
        }) else {
            return false;
        };
        !pid.is_empty()
            && pid.iter().all(u8::is_ascii_digit)
            && random.len() == 2 * RANDOM
            && random.iter().all(u8::is_ascii_hexdigit)
    }

    /// Removes what crashed writers left. Nothing depends on it, so errors are passed over.
    fn clean_up(&self) {
        let Ok(entries) = fs::read_dir(self.directory()) else { return };
        for entry in entries.flatten().filter(|entry| self.is_temporary(&entry.file_name())) {
            // Not of what a symbolic link leads to. A time in the future has no age.
            let written = entry.metadata().and_then(|metadata| metadata.modified());
            let age = written.ok().and_then(|written| written.elapsed().ok());
            if age.is_some_and(|age| age > LEFT_BEHIND) {
                let _ = fs::remove_file(entry.path());
            }
        }
    }

    fn replace(&self, session: &[u8]) -> io::Result<()> {
        let temporary = self.temporary()?;
        let written = write(&temporary, session).and_then(|()| fs::rename(&temporary, &self.path));
        if written.is_err() {
            let _ = fs::remove_file(&temporary);
        }
        written
    }
}

impl SessionStore for FileStore {
    fn load(&self) -> io::Result<Option<Vec<u8>>> {
        let file = match File::open(&self.path) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        // A file that is longer is no session, whatever it is. Reserved at once: growing would leave copies.
        let most = super::MAX_SESSION_BLOB + 1;
        let mut session = Vec::with_capacity(most + 1);
        match file.take(most as u64).read_to_end(&mut session) {
            Ok(_) => Ok(Some(session)),
            Err(error) => {
                session.zeroize();
                Err(error)
            }
        }
    }

    fn save(&self, session: &[u8]) -> io::Result<()> {
        self.clean_up();
        let mut replaced = self.replace(session);
        for _ in 1..TRIES {
            match &replaced {
                Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::AlreadyExists) => {
                    replaced = self.replace(session);
                }
                _ => break,
            }
        }
        replaced?;
        sync_directory(self.directory())
    }
}

fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

/// The new name is durable once its directory is.
#[cfg(unix)]
fn sync_directory(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

#[cfg(not(unix))]
fn sync_directory(_: &Path) -> io::Result<()> {
    Ok(())
}
