//! Files and folders that nobody else on the machine may read: keys, a server's part of the model, its
//! state. What others can read is closed to them, with a warning, for it may have been read already; what
//! cannot be closed is not used.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::path::Path;

use crate::Error;

/// Mode of a file that its owner alone may read.
pub const SECRET: u32 = 0o600;
/// Mode of a file that everybody may read.
pub const PUBLIC: u32 = 0o644;

/// Takes a file or folder away from other users.
pub fn close(path: &Path) -> Result<(), Error> {
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        let metadata = fs::metadata(path).map_err(|e| Error::read(path, e))?;
        let mode = metadata.permissions().mode();
        if mode & 0o077 != 0 {
            let closed = mode & if metadata.is_dir() { 0o700 } else { 0o600 };
            fs::set_permissions(path, fs::Permissions::from_mode(closed))
                .map_err(|source| Error::Exposed { path: path.to_owned(), source })?;
            tracing::warn!(
                "{}: other users of this machine could read this secret until now (mode {:03o}, now {closed:03o})",
                path.display(),
                mode & 0o777
            );
        }
    }
    #[cfg(not(unix))]
    let _ = path;
    Ok(())
}

/// Makes a folder that nobody else may look into, or takes it and every file in it away from others.
pub fn folder(path: &Path) -> Result<(), Error> {
    if !path.is_dir() {
        make(path).map_err(|e| Error::write(path, e))?;
    }
    close(path)?;
    for entry in fs::read_dir(path).map_err(|e| Error::read(path, e))? {
        let entry = entry.map_err(|e| Error::read(path, e))?;
        // What a link points to is not in the folder.
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => folder(&entry.path())?,
            Ok(kind) if kind.is_file() => close(&entry.path())?,
            _ => {}
        }
    }
    Ok(())
}

/// Whether a file can be written, which is not a secret: found out before the work that it is the result of. What is
/// there stays as it is.
pub fn writable(path: &Path) -> Result<(), Error> {
    let there = path.exists();
    let tried = OpenOptions::new().append(true).create(true).open(path);
    tried.and_then(|_| if there { Ok(()) } else { fs::remove_file(path) }).map_err(|e| Error::write(path, e))
}

fn make(path: &Path) -> io::Result<()> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    let mut builder = fs::DirBuilder::new();
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(path)
}

/// Options for opening a file that, if they create it, is readable by its owner alone.
pub fn options() -> OpenOptions {
    with_mode(SECRET)
}

fn with_mode(mode: u32) -> OpenOptions {
    let mut options = OpenOptions::new();
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, mode);
    #[cfg(not(unix))]
    let _ = mode;
    options
}

/// Takes an open file, which may have no name, away from other users.
pub fn close_file(file: &File) -> io::Result<()> {
    #[cfg(unix)]
    file.set_permissions(std::os::unix::fs::PermissionsExt::from_mode(SECRET))?;
    #[cfg(not(unix))]
    let _ = file;
    Ok(())
}

/// Creates a file with its final mode, so that a secret is never readable by others. Fails if it exists.
pub fn create(path: &Path, content: &[u8], mode: u32) -> Result<(), Error> {
    let mut file =
        with_mode(mode).write(true).create_new(true).open(path).map_err(|e| Error::write(path, e))?;
    file.write_all(content).and_then(|()| file.sync_all()).map_err(|e| Error::write(path, e))
}

/// Puts a secret file in place of the one that is there, if any: after a crash it is the old one or the new
/// one, whole.
pub fn replace(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut name = path.as_os_str().to_owned();
    name.push(".new");
    let new = Path::new(&name);
    // Left by a crash, perhaps with other permissions.
    let _ = fs::remove_file(new);
    let mut file = options().write(true).create_new(true).open(new)?;
    file.write_all(content)?;
    file.sync_all()?;
    fs::rename(new, path)?;
    match path.parent() {
        Some(folder) if folder != Path::new("") => sync_folder(folder),
        _ => sync_folder(Path::new(".")),
    }
}

/// Makes a folder's entries durable.
pub fn sync_folder(folder: &Path) -> io::Result<()> {
    #[cfg(unix)]
    File::open(folder)?.sync_all()?;
    #[cfg(not(unix))]
    let _ = folder;
    Ok(())
}

#[cfg(unix)]
#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    fn set_mode(path: &Path, mode: u32) {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn what_others_can_read_is_closed_to_them() {
        let dir = tempfile::tempdir().unwrap();
        let state = dir.path().join("state");
        folder(&state).unwrap();
        assert_eq!(mode(&state), 0o700);
        let (open, inner, outside) = (state.join("ledger"), state.join("old"), dir.path().join("other"));
        for path in [&open, &outside] {
            fs::write(path, "x").unwrap();
            set_mode(path, 0o644);
        }
        fs::create_dir(&inner).unwrap();
        fs::write(inner.join("f"), "x").unwrap();
        set_mode(&inner.join("f"), 0o666);
        std::os::unix::fs::symlink(&outside, state.join("link")).unwrap();
        set_mode(&state, 0o755);
        folder(&state).unwrap();
        let modes = [&state, &open, &inner, &inner.join("f"), &outside].map(|p| mode(p));
        assert_eq!(modes, [0o700, 0o600, 0o700, 0o600, 0o644], "a link leads out of it");
        set_mode(&open, 0o400);
        close(&open).unwrap();
        assert_eq!(mode(&open), 0o400, "nobody else can read it: it stays");
        assert!(close(&dir.path().join("absent")).is_err());
    }

    #[test]
    fn a_file_is_replaced_whole() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("head");
        // Left by a crash.
        fs::write(dir.path().join("head.new"), "long and open to all").unwrap();
        for content in ["one", "two"] {
            replace(&path, content.as_bytes()).unwrap();
            assert_eq!((fs::read_to_string(&path).unwrap().as_str(), mode(&path)), (content, 0o600));
        }
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
        assert!(create(&path, b"three", SECRET).is_err(), "it exists");
    }
}
