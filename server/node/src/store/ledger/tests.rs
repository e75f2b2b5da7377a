use std::io::Write as _;

use seco_protocol::LedgerError;

use super::format::RECORD;
use super::*;

const SESSION: [u8; 16] = [7; 16];

/// A state directory, and a head beside it.
struct Site {
    dir: tempfile::TempDir,
}

impl Site {
    fn new() -> Site {
        Site { dir: tempfile::tempdir().unwrap() }
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("state/ledger")
    }

    fn head(&self) -> PathBuf {
        self.dir.path().join("s.ledger.head")
    }

    fn try_open(&self, compact_at: u64) -> Result<FileLedger, Error> {
        FileLedger::open_with(&self.dir.path().join("state"), &Heads::only(&self.head()), compact_at)
    }

    fn open(&self) -> FileLedger {
        self.try_open(COMPACT_AT).unwrap()
    }

    /// It is told which file, what, and what to do.
    fn refused(&self, parts: &[&str]) {
        let text = self.try_open(COMPACT_AT).err().expect("refused").to_string();
        for part in parts.iter().chain(&["ledger", "seco keygen"]) {
            assert!(text.contains(part), "{text:?} lacks {part:?}");
        }
        assert_eq!(text.lines().count(), 1);
    }
}

fn id(n: u64) -> BundleId {
    let mut id = [0; 16];
    id[..8].copy_from_slice(&n.to_le_bytes());
    BundleId(id)
}

fn usage(counter: u64) -> Use {
    Use { session: SESSION, incarnation: [1; 16], counter }
}

fn spend(ledger: &FileLedger, bundle: u64, counter: u64) -> &'static str {
    match ledger.spend(&id(bundle), &usage(counter)) {
        Ok(()) => "ok",
        Err(LedgerError::BundleSpent) => "bundle",
        Err(LedgerError::CounterUsed) => "counter",
        Err(_) => "other",
    }
}

/// The bytes of a ledger with spends `0..count`, which is left as it is after a clean end.
fn filled(site: &Site, count: u64) -> Vec<u8> {
    let ledger = site.open();
    (0..count).for_each(|n| assert_eq!(spend(&ledger, n, n), "ok"));
    ledger.record_head().unwrap();
    fs::read(site.path()).unwrap()
}

#[test]
fn refuses_what_was_used() {
    let site = Site::new();
    let head = {
        let ledger = site.open();
        assert_eq!(ledger.head().count, 0);
        assert!(!ledger.knows(&SESSION));
        assert_eq!(spend(&ledger, 1, 10), "ok");
        assert_eq!(spend(&ledger, 1, 11), "bundle");
        assert_eq!(spend(&ledger, 2, 10), "counter");
        // A refused attempt uses nothing up; the same number of another session or incarnation is another.
        assert_eq!(spend(&ledger, 2, 11), "ok");
        let other = [Use { session: [8; 16], ..usage(10) }, Use { incarnation: [9; 16], ..usage(10) }];
        for (bundle, usage) in (3..).zip(other) {
            assert!(ledger.spend(&id(bundle), &usage).is_ok());
        }
        ledger.head()
    };
    assert_eq!(head.count, 4);
    let ledger = site.open();
    assert_eq!(ledger.head(), head);
    assert_eq!(spend(&ledger, 1, 12), "bundle");
    assert_eq!(spend(&ledger, 5, 12), "ok");
    assert!(ledger.knows(&SESSION) && ledger.knows(&[8; 16]) && !ledger.knows(&[9; 16]));
}

/// A number that was taken before its session was forgotten is in no record: nothing is spent for it.
#[test]
fn nothing_is_spent_for_a_session_that_was_forgotten() {
    let site = Site::new();
    let ledger = site.open();
    let key = std::sync::Arc::new(seco_core::SessionKey::from_bytes([3; 32]));
    let session = &std::sync::Arc::downgrade(&key);
    let of_session = OfSession { ledger: &ledger, session };
    assert!(of_session.spend(&id(1), &usage(0)).is_ok());
    let head = ledger.head();
    drop(key);
    assert!(matches!(of_session.spend(&id(2), &usage(1)), Err(LedgerError::SessionForgotten)));
    assert_eq!(ledger.head(), head);
    // The bundle and the number are as they were.
    assert_eq!(spend(&ledger, 2, 1), "ok");
}

#[test]
fn few_uses_are_remembered_and_the_last_ones() {
    let site = Site::new();
    let ledger = site.open();
    let mut state = ledger.memory();
    (0..2 * RECENT as u64).for_each(|n| state.used(&usage(n)));
    assert_eq!((state.recent.len(), state.recent_order.len()), (RECENT, RECENT));
    drop(state);
    assert_eq!(spend(&ledger, 1, RECENT as u64), "counter");
    assert_eq!(spend(&ledger, 1, RECENT as u64 - 1), "ok");
}

#[test]
fn a_torn_last_record_is_dropped() {
    let site = Site::new();
    let ledger = site.open();
    assert_eq!((spend(&ledger, 1, 1), spend(&ledger, 2, 2)), ("ok", "ok"));
    drop(ledger);
    let whole = fs::read(site.path()).unwrap();
    let full = HEADER.len() + 3 * RECORD;
    assert_eq!(whole.len(), full);

    // Cut short at every byte, or of full length with zeros that were never overwritten.
    for cut in full - RECORD..full {
        for zeros in [0, full - cut] {
            let mut torn = whole[..cut].to_vec();
            torn.resize(cut + zeros, 0);
            fs::write(site.path(), torn).unwrap();
            // The head as it was before.
            let start = format::read(&mut &whole[HEADER.len()..], full as u64, Some(0)).ok().unwrap();
            Head { count: 0, chain: start.chain_there.unwrap() }.store(&site.head()).unwrap();
            let ledger = site.open();
            assert_eq!((spend(&ledger, 1, 3), ledger.head().count), ("bundle", 1));
            assert_eq!(spend(&ledger, 2, 2), "ok", "cut at {cut}");
            drop(ledger);
            assert_eq!(fs::read(site.path()).unwrap(), whole);
        }
    }
}

#[test]
fn damage_elsewhere_stops_the_server() {
    let site = Site::new();
    let whole = filled(&site, 3);
    for at in [0, HEADER.len(), HEADER.len() + RECORD + 20, HEADER.len() + 3 * RECORD - 1] {
        let mut damaged = whole.clone();
        damaged[at] ^= 1;
        fs::write(site.path(), damaged).unwrap();
        site.refused(&[]);
    }
    // A record less in the middle, and two in the wrong order: each whole by itself.
    let at = |n: usize| HEADER.len() + n * RECORD;
    let mut swapped = whole.clone();
    swapped[at(1)..at(3)].rotate_left(RECORD);
    fs::write(site.path(), [&whole[..at(1)], &whole[at(2)..]].concat()).unwrap();
    site.refused(&["damaged at byte 81"]);
    fs::write(site.path(), swapped).unwrap();
    site.refused(&["damaged at byte 81"]);
    fs::write(site.path(), &whole).unwrap();
    assert_eq!(site.open().head().count, 3);
}

#[test]
fn a_ledger_that_was_set_back_or_removed_is_noticed() {
    let site = Site::new();
    let early = filled(&site, 3);
    let early_head = fs::read(site.head()).unwrap();
    let ledger = site.open();
    (3..9).for_each(|n| assert_eq!(spend(&ledger, n, n), "ok"));
    ledger.record_head().unwrap();
    drop(ledger);
    let (late, late_head) = (fs::read(site.path()).unwrap(), fs::read(site.head()).unwrap());

    fs::write(site.path(), &early).unwrap();
    site.refused(&["has 3 entries, but had 9", "s.ledger.head"]);
    fs::write(site.path(), &late[..late.len() - RECORD]).unwrap();
    site.refused(&["has 8 entries, but had 9"]);
    fs::write(site.path(), "").unwrap();
    site.refused(&["is empty"]);
    fs::remove_file(site.path()).unwrap();
    site.refused(&["is missing, but had 9 entries"]);
    fs::remove_dir_all(site.dir.path().join("state")).unwrap();
    site.refused(&["is missing, but had 9 entries"]);
    assert!(!site.path().exists(), "no new one");
    // Another one, as long, by other spends; and one that begins anew.
    let other = Site::new();
    fs::write(site.path(), filled(&other, 9)).unwrap();
    site.refused(&["is not the one", "entry 9 differs"]);
    // A head that was lost, and one that lags behind, as after a crash.
    fs::write(site.path(), &late).unwrap();
    fs::remove_file(site.head()).unwrap();
    site.refused(&["has 9 entries, but", "is missing"]);
    for head in [early_head, late_head] {
        fs::write(site.head(), head).unwrap();
        assert_eq!(site.open().head().count, 9);
    }
    // What the remedy says: remove both.
    fs::remove_file(site.path()).unwrap();
    fs::remove_file(site.head()).unwrap();
    assert_eq!(site.open().head().count, 0);
    // Creation was interrupted between the two files.
    fs::remove_file(site.head()).unwrap();
    assert_eq!(site.open().head().count, 0);
    assert!(site.head().exists());
}

#[test]
fn the_head_is_recorded_now_and_then() {
    let site = Site::new();
    let ledger = site.open();
    for n in 0..3 * HEAD_EVERY {
        assert_eq!(spend(&ledger, n, n), "ok");
        let recorded = Head::load(&site.head()).unwrap().unwrap().count;
        assert_eq!(recorded, (n + 1) / HEAD_EVERY * HEAD_EVERY);
    }
    // One that cannot be recorded does not undo the spend, and is tried again; if it stays so, spending ends.
    let obstacle = site.dir.path().join("s.ledger.head.new");
    fs::create_dir(&obstacle).unwrap();
    for n in 0..MAX_OWED {
        assert_eq!(spend(&ledger, 1_000 + n, 1_000 + n), "ok");
    }
    assert_eq!(spend(&ledger, 9_000, 9_000), "other");
    fs::remove_dir(obstacle).unwrap();
    assert_eq!(spend(&ledger, 9_001, 9_001), "ok");
    assert_eq!(Head::load(&site.head()).unwrap().unwrap().count, 3 * HEAD_EVERY + MAX_OWED);
}

/// A bundle's file that comes back from a copy: whenever it was spent, it is known.
#[test]
fn a_bundle_that_comes_back_may_not_be_used() {
    let site = Site::new();
    let limit = 40 * RECORD as u64;
    let ledger = site.try_open(limit).unwrap();
    let first = ledger.era();
    ledger.holds([id(1), id(2), id(3)]);
    assert_eq!(spend(&ledger, 1, 1), "ok");
    let may = |ledger: &FileLedger, n, era| ledger.may_use(&id(n), era);
    assert!(!may(&ledger, 1, &first) && may(&ledger, 2, &first));
    drop(ledger);
    let ledger = site.try_open(limit).unwrap();
    assert_eq!(ledger.era(), first);
    assert!(!may(&ledger, 1, &first) && may(&ledger, 2, &first));
    // Past compactions, after which the file does not name what was spent before.
    ledger.holds([id(2), id(3)]);
    (100..300).for_each(|n| assert_eq!(spend(&ledger, n, n), "ok"));
    assert_ne!(ledger.era(), first);
    drop(ledger);
    let ledger = site.try_open(limit).unwrap();
    assert!(!may(&ledger, 1, &first), "spent in an earlier era");
    assert!(may(&ledger, 2, &first), "ready all the time");
    let era = ledger.era();
    assert!(may(&ledger, 4, &era) && !may(&ledger, 4, &first), "made in another era");
    // The spend that begins an era is not noted as ready in it.
    let (mut eras, mut n) = (0, 1_000);
    while eras < 3 {
        let before = ledger.era();
        ledger.holds([id(n)]);
        assert_eq!(spend(&ledger, n, n), "ok");
        eras += usize::from(ledger.era() != before);
        let reopened = format::read(
            &mut BufReader::new(&mut open_file(&site.path()).unwrap().0),
            fs::metadata(site.path()).unwrap().len(),
            None,
        );
        assert!(reopened.is_ok_and(|contents| !contents.ready.contains(&id(n))), "{n}");
        n += 1;
    }
    // Without being spent, one that was given up is not to be used either, from the next era on.
    ledger.holds([id(2)]);
    ledger.releases(&id(2));
    (300..500).for_each(|n| assert_eq!(spend(&ledger, n, n), "ok"));
    assert!(!may(&ledger, 2, &first) && !may(&ledger, 3, &first));
    // All are renounced.
    ledger.holds([id(5)]);
    let before = ledger.era();
    ledger.renounce_bundles().unwrap();
    assert!(!may(&ledger, 5, &before));
    drop(ledger);
    let ledger = site.try_open(limit).unwrap();
    assert!(!may(&ledger, 5, &before) && may(&ledger, 6, &ledger.era().clone()));
}

/// A record that does not fit on the disk is cut off, and the next one does not need a restart.
#[test]
fn a_write_that_fails_is_not_for_ever() {
    let site = Site::new();
    let ledger = site.open();
    assert_eq!(spend(&ledger, 1, 1), "ok");
    let length = fs::metadata(site.path()).unwrap().len();
    // A handle that cannot be written, as a disk that takes part of a record and then no more.
    let writable = std::mem::replace(&mut ledger.disk().file, File::open(site.path()).unwrap());
    assert_eq!(spend(&ledger, 2, 2), "other");
    assert_eq!(spend(&ledger, 3, 3), "other", "cannot be cut either");
    (&writable).write_all(&[3; 20]).unwrap();
    ledger.disk().file = writable;
    assert_eq!(spend(&ledger, 4, 4), "ok");
    assert_eq!(fs::metadata(site.path()).unwrap().len(), length + RECORD as u64);
    // What was refused is not used after all.
    assert_eq!(spend(&ledger, 2, 5), "bundle");
    drop(ledger);
    assert_eq!(site.open().head().count, 2);
}

#[test]
fn compaction_keeps_head_and_sessions() {
    let site = Site::new();
    let limit = 40 * RECORD as u64;
    let ledger = site.try_open(limit).unwrap();
    assert!(ledger.spend(&id(100_000), &Use { session: [8; 16], ..usage(0) }).is_ok());
    let mut all_heads = vec![ledger.head()];
    for n in 0..500 {
        assert_eq!(spend(&ledger, n, 2 * n), "ok");
        assert!(fs::metadata(site.path()).unwrap().len() <= limit + RECORD as u64);
        all_heads.push(ledger.head());
    }
    // Ids of this set-up are still known, though no longer on disk.
    assert_eq!(spend(&ledger, 0, 5_000), "bundle");
    drop(ledger);
    let ledger = site.try_open(limit).unwrap();
    assert_eq!(ledger.head(), all_heads[500]);
    assert!(ledger.knows(&SESSION) && ledger.knows(&[8; 16]));
    assert_eq!(spend(&ledger, 1_000, 3), "ok");
    drop(ledger);
    // Cut within what compaction wrote: nothing of it can be torn. And a head from before it.
    let whole = fs::read(site.path()).unwrap();
    fs::write(site.path(), &whole[..HEADER.len() + 2 * RECORD - 1]).unwrap();
    site.refused(&["is damaged at byte"]);
    fs::write(site.path(), &whole).unwrap();
    all_heads[2].store(&site.head()).unwrap();
    site.refused(&["is not the one"]);
}

#[test]
fn a_ledger_that_is_gone_ends_the_spending() {
    for fault in 0..3 {
        let site = Site::new();
        let ledger = site.open();
        assert_eq!(spend(&ledger, 1, 1), "ok");
        ledger.check_place().unwrap();
        match fault {
            0 => fs::remove_dir_all(site.dir.path().join("state")).unwrap(),
            1 => fs::rename(site.dir.path().join("state"), site.dir.path().join("moved")).unwrap(),
            // A copy, put in its place.
            _ => {
                fs::copy(site.path(), site.dir.path().join("copy")).unwrap();
                fs::rename(site.dir.path().join("copy"), site.path()).unwrap();
            }
        }
        let text = ledger.check_place().unwrap_err().to_string();
        assert!(text.contains("state/ledger: was removed or replaced"), "{text}");
        assert_eq!(spend(&ledger, 2, 2), "other");
    }
}

#[test]
fn sessions_of_an_earlier_release_are_kept() {
    let record = |kind: u8, body: [u8; 40]| {
        use sha2::Digest as _;
        let start = [&[kind][..], &body].concat();
        [&start[..], &sha2::Sha256::digest(&start)[..8]].concat()
    };
    let (mut spent, mut mark) = ([3; 40], [4; 40]);
    spent[16..32].copy_from_slice(&SESSION);
    mark[..16].copy_from_slice(&[5; 16]);
    let old = [&HEADER_V1[..], &record(2, mark), &record(1, spent), &record(1, spent)].concat();
    let site = Site::new();
    fs::create_dir(site.dir.path().join("state")).unwrap();
    // Its last record may be torn, others not.
    for cut in [0, 1, 48] {
        fs::write(site.path(), &old[..old.len() - cut]).unwrap();
        let ledger = site.open();
        assert!(ledger.knows(&SESSION) && ledger.knows(&[5; 16]) && !ledger.knows(&[3; 16]));
        assert_eq!((ledger.head().count, spend(&ledger, 1, 1)), (0, "ok"));
        drop(ledger);
        assert!(site.open().knows(&[5; 16]), "in the new format");
        fs::remove_file(site.head()).unwrap();
    }
    let mut damaged = old.clone();
    damaged[20] ^= 1;
    fs::write(site.path(), damaged).unwrap();
    site.refused(&["is damaged at byte 16"]);
    fs::write(site.path(), &old).unwrap();
    Head { count: 1, chain: [0; 32] }.store(&site.head()).unwrap();
    site.refused(&["of an earlier release, older than"]);
}

#[test]
fn hostile_files_are_refused() {
    let site = Site::new();
    let whole = filled(&site, 2);
    let mut bytes = whole.clone();
    // A base that promises more sessions or bundles than there are.
    for huge in [[usize::MAX, 0], [0, usize::MAX]] {
        let base = format::base(&Head { count: 0, chain: [0; 32] }, huge[0], huge[1]);
        bytes[HEADER.len()..HEADER.len() + RECORD].copy_from_slice(&base);
        fs::write(site.path(), &bytes).unwrap();
        site.refused(&["is damaged at byte 81"]);
    }
    for content in [&b"seco ledger"[..], &[0; 4096], &whole[..HEADER.len()], &whole[..HEADER.len() + 9]] {
        fs::write(site.path(), content).unwrap();
        site.refused(&[]);
    }
}

#[cfg(unix)]
#[test]
fn nobody_else_reads_it() {
    use std::os::unix::fs::PermissionsExt as _;
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    let site = Site::new();
    let state = site.dir.path().join("state");
    filled(&site, 1);
    let all = [site.path(), state.join("lock"), site.head()];
    for _ in 0..2 {
        assert_eq!((mode(&state), all.each_ref().map(|p| mode(p))), (0o700, [0o600; 3]));
        for path in all.iter().chain([&state]) {
            fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
        }
        site.open();
    }
}

#[test]
fn two_servers_cannot_share_a_directory() {
    let site = Site::new();
    let _first = site.open();
    let error = site.try_open(COMPACT_AT).err().unwrap().to_string();
    assert!(error.contains("in use by another server"), "{error}");
}

/// A model is added while the ledger is compacted.
#[test]
fn a_model_may_be_added_at_any_time() {
    let site = Site::new();
    let ledger = site.open();
    spend(&ledger, 0, 0);
    std::thread::scope(|scope| {
        let compacting = scope.spawn(|| (0..50).for_each(|_| ledger.renounce_bundles().unwrap()));
        while !compacting.is_finished() {
            ledger.serves(&Heads::only(&site.head())).unwrap();
        }
    });
}
