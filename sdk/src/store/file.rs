//! A session in a file, for systems where files of one user are safe from others.

use super::SessionStore;
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::path::{Path, PathBuf};
use zeroize::Zeroize as _;

/// Keeps a session in a file, readable by its owner alone (mode 0600 where there are modes). For devices
/// without a key store, say a Raspberry Pi; on phones, use the platform's.
///
/// Saving writes a new file beside it, waits until that is on the disk, and puts it in place of the old one:
/// after a crash there is one or the other, whole. The name of the new file is the file's with `.new` added.
/// What [`SessionStore`] asks of the application stays to be seen to: no backup of the file, and one process.
#[derive(Clone, Debug)]
pub struct FileStore {
    path: PathBuf,
}

impl FileStore {
    /// A store in the file `path`, whose directory exists. Nothing is read or written yet.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }

    fn temporary(&self) -> PathBuf {
        let mut name = self.path.clone().into_os_string();
        name.push(".new");
        name.into()
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
        let temporary = self.temporary();
        // Left by a crash, perhaps with other permissions.
        match fs::remove_file(&temporary) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let written = write(&temporary, session).and_then(|()| fs::rename(&temporary, &self.path));
        if written.is_err() {
            let _ = fs::remove_file(&temporary);
        }
        written?;
        sync_directory(&self.path)
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
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    File::open(parent.unwrap_or(Path::new(".")))?.sync_all()
}

#[cfg(not(unix))]
fn sync_directory(_: &Path) -> io::Result<()> {
    Ok(())
}
