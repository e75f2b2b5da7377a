//! A session in a file: whole at any moment, whoever writes at the same time and wherever a writer dies.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "helpers of tests are tests")]

use seco_sdk::{FileStore, MAX_SESSION_BLOB, SessionStore};
use std::fs::{self, File};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

/// Set for a process that only writes: the file.
const CHILD: &str = "SECO_FILE_STORE_CHILD";

const THREADS: u8 = 4;
const ROUNDS: u8 = 25;

/// What a writer saves: whole if it is of one byte, as long as that says.
fn session(writer: u8) -> Vec<u8> {
    vec![writer; 100 + usize::from(writer)]
}

fn is_whole(session: &[u8]) -> bool {
    session.first().is_some_and(|first| session == self::session(*first))
}

/// Loads and saves, as `THREADS` threads from `first` on.
fn write(path: &Path, first: u8) {
    std::thread::scope(|scope| {
        for writer in first..first + THREADS {
            scope.spawn(move || {
                let store = FileStore::new(path);
                for _ in 0..ROUNDS {
                    store.save(&session(writer)).unwrap();
                    assert!(is_whole(&store.load().unwrap().expect("never missing")));
                }
            });
        }
    });
}

/// The other process: this test program again, with this test alone.
#[test]
fn writing_process() {
    let Some(path) = std::env::var_os(CHILD) else { return };
    write(Path::new(&path), 100);
}

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn threads_and_processes_write_at_the_same_time() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("session");
    let spawn = || {
        Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "writing_process"])
            .env(CHILD, &path)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .unwrap()
    };
    let children = [spawn(), spawn()];
    write(&path, 1);
    for mut child in children {
        assert!(child.wait().unwrap().success(), "a writer failed in the other process");
    }
    assert!(is_whole(&FileStore::new(&path).load().unwrap().unwrap()));
    assert_eq!(names(folder.path()), ["session"], "nothing is left over");
}

/// Somebody who cleans up as if the clock had gone forward by hours: no writer may fail for it.
#[test]
fn a_writer_whose_file_is_taken_away_writes_again() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("session");
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            // Every other file that is seen: if all were, nothing would help.
            let (mut last, mut spare) = (String::new(), false);
            while !done.load(Ordering::Relaxed) {
                let temporary = names(folder.path()).into_iter().find(|name| name.ends_with(".new"));
                if let Some(name) = temporary.filter(|name| *name != last) {
                    if !spare {
                        let _ = fs::remove_file(folder.path().join(&name));
                    }
                    (last, spare) = (name, !spare);
                }
            }
        });
        let store = FileStore::new(&path);
        let rounds = (0..40).map(|round| {
            store.save(&session(round))?;
            store.load().map(|loaded| loaded == Some(session(round)))
        });
        let rounds: Vec<std::io::Result<bool>> = rounds.collect();
        // Before anything panics: the other thread has to end.
        done.store(true, Ordering::Relaxed);
        assert!(rounds.iter().all(|round| matches!(round, Ok(true))), "{rounds:?}");
    });
}

#[test]
fn what_crashed_writers_left_is_removed_in_time() {
    let folder = tempfile::tempdir().unwrap();
    let old = SystemTime::now() - Duration::from_secs(3700);
    let file = |name: &str, time| {
        let file = File::create(folder.path().join(name)).unwrap();
        file.set_modified(time).unwrap();
    };
    file("session.4711-0123456789abcdef.new", old);
    file("session.1-ffffffffffffffff.new", old);
    let kept = [
        // Others' work: of a writer that is at it, of another store, of nobody that is known here.
        ("session.4711-0123456789abcdee.new", SystemTime::now() - Duration::from_secs(3500)),
        ("session.4711-0123456789abcded.new", SystemTime::now() + Duration::from_secs(3700)),
        ("session2.4711-0123456789abcdef.new", old),
        ("session.2.4711-0123456789abcdef.new", old),
        ("session.4711-0123456789abcde.new", old),
        ("session.-0123456789abcdef.new", old),
        ("session.4711-0123456789abcdef.neu", old),
        ("session.new", old),
        ("session.", old),
        ("notes", old),
    ];
    kept.iter().for_each(|(name, time)| file(name, *time));
    FileStore::new(folder.path().join("session")).save(&session(7)).unwrap();
    let mut expected: Vec<_> = kept.iter().map(|(name, _)| *name).chain(["session"]).collect();
    expected.sort();
    assert_eq!(names(folder.path()), expected);
}

#[cfg(unix)]
#[test]
fn nobody_else_can_read_it() {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("session");
    fs::write(&path, "as it was").unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    FileStore::new(&path).save(&session(1)).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
}

#[test]
fn errors_are_told() {
    let folder = tempfile::tempdir().unwrap();
    let nowhere = FileStore::new(folder.path().join("missing").join("session"));
    assert!(nowhere.load().unwrap().is_none());
    assert!(nowhere.save(&session(1)).is_err());
    // A folder is in the way.
    let path = folder.path().join("session");
    fs::create_dir(&path).unwrap();
    let store = FileStore::new(&path);
    assert!(store.load().is_err() && store.save(&session(1)).is_err());
    assert_eq!(names(folder.path()), ["session"]);
    // Whatever is longer than a session is told as such, not read to its end.
    fs::remove_dir(&path).unwrap();
    fs::write(&path, vec![1; 1 << 20]).unwrap();
    assert_eq!(store.load().unwrap().unwrap().len(), MAX_SESSION_BLOB + 1);
}
