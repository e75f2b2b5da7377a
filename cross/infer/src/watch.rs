//! Files that come to a folder, say from a camera.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use crate::Result;

/// How often to look. Asking the system works on every file system, network ones included.
const PAUSE: Duration = Duration::from_millis(200);

/// How long to leave a file alone that got no answer.
const RETRY: Duration = Duration::from_millis(if cfg!(test) { 500 } else { 5000 });

/// A file as it was seen.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Seen {
    size: u64,
    changed: Option<SystemTime>,
}

enum State {
    /// It may still be written to.
    Growing(Seen),
    Unanswered(Seen, Instant),
    Done(Seen),
}

/// Hands every file of `folder` to `handle`, again when it changes, oldest name first; not those that are there
/// at the start, hidden ones, and folders. A file is taken when it stayed the same between two looks, and again
/// some seconds later if `handle` says that it is not done.
pub async fn watch(folder: &Path, mut handle: impl AsyncFnMut(&Path) -> Result<bool>) -> Result<()> {
    let mut known: HashMap<PathBuf, State> =
        files(folder)?.into_iter().map(|(path, seen)| (path, State::Done(seen))).collect();
    loop {
        tokio::time::sleep(PAUSE).await;
        let mut files = files(folder)?;
        files.sort_by(|(one, _), (other, _)| one.cmp(other));
        known.retain(|path, _| files.iter().any(|(file, _)| file == path));
        for (path, seen) in files {
            match known.get(&path) {
                Some(State::Done(before)) if *before == seen => {}
                Some(State::Unanswered(before, when)) if *before == seen && when.elapsed() < RETRY => {}
                Some(State::Growing(before) | State::Unanswered(before, _))
                    if *before == seen && seen.size > 0 =>
                {
                    let done = handle(&path).await?;
                    let state =
                        if done { State::Done(seen) } else { State::Unanswered(seen, Instant::now()) };
                    known.insert(path, state);
                }
                _ => drop(known.insert(path, State::Growing(seen))),
            }
        }
    }
}

fn files(folder: &Path) -> Result<Vec<(PathBuf, Seen)>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        // Gone again already: none of ours.
        let Ok(about) = entry.metadata() else { continue };
        if about.is_file() && !entry.file_name().as_encoded_bytes().starts_with(b".") {
            let seen = Seen { size: about.len(), changed: about.modified().ok() };
            files.push((entry.path(), seen));
        }
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    #[test]
    fn only_what_got_no_answer_or_changed_is_asked_about_again() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, content: &str| fs::write(folder.path().join(name), content).unwrap();
        write("old", "there before");
        write(".hidden", "no input");
        let mut asked = Vec::new();
        let watching = watch(folder.path(), async |path: &Path| {
            asked.push((path.file_name().unwrap().to_owned(), Instant::now()));
            match asked.len() {
                1 => Ok(false),
                2 | 3 => Ok(true),
                _ => Err("enough".into()),
            }
        });
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        thread::scope(|scope| {
            scope.spawn(|| {
                thread::sleep(PAUSE / 2);
                write("first", "1");
                thread::sleep(4 * RETRY);
                write("second", "2");
                thread::sleep(4 * PAUSE);
                write("old", "changed");
            });
            let end = runtime.block_on(async { tokio::time::timeout(60 * RETRY, watching).await });
            assert_eq!(end.expect("asked too rarely").unwrap_err().to_string(), "enough");
        });
        let names: Vec<_> = asked.iter().map(|(name, _)| name.to_str().unwrap()).collect();
        assert_eq!(names, ["first", "first", "second", "old"]);
        assert!(asked[1].1 - asked[0].1 >= RETRY);
    }
}
