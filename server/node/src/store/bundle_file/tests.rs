use super::*;

fn material(blocks: usize, fill: u8) -> Material {
    let mut material = Material::zeros(MaterialSize { tables: blocks });
    material.bytes_mut().iter_mut().enumerate().for_each(|(i, byte)| *byte = fill ^ i as u8);
    material
}

/// Sizes around the chunk's, in blocks of 16 bytes.
const SIZES: [usize; 6] = [0, 1, CHUNK / 16 - 1, CHUNK / 16, CHUNK / 16 + 1, 3 * CHUNK / 16 + 7];
const ORIGIN: Origin = Origin { context: [1; 32], era: [2; 32], version: 7 };
const ID: BundleId = BundleId([7; 16]);

fn written(folder: &Path, memory: &Arc<Memory>) -> (Draft, FileSpool) {
    let (draft, mut spool) = Draft::begin(folder, ID, &ORIGIN, memory).unwrap();
    for (i, &blocks) in SIZES.iter().enumerate() {
        spool.put(material(blocks, i as u8)).unwrap();
    }
    // The last one is large.
    assert!(locked(&draft.0).flusher.thread.is_some());
    (draft, spool)
}

/// The file of a finished bundle, whose maker is gone.
fn stored(folder: &Path) -> PathBuf {
    let (draft, _) = written(folder, &Memory::new(0));
    let bytes = draft.finish(&mut vec![5; 70_000]).unwrap();
    let path = draft.path();
    assert_eq!(origin(&path), Some((ORIGIN, bytes)));
    path
}

fn all_of(spool: &mut FileSpool) -> Result<(), SpoolError> {
    for (i, &blocks) in SIZES.iter().enumerate() {
        let taken = spool.take()?;
        assert!(taken.bytes() == material(blocks, i as u8).bytes(), "{i}");
        // What is in it does not come again, whatever the next one's size.
        spool.give_back(taken);
    }
    assert!(spool.take().is_err());
    Ok(())
}

#[test]
fn what_was_put_comes_back_in_order_wherever_it_was() {
    for limit in [0, CHUNK, 3 * CHUNK, usize::MAX] {
        let folder = tempfile::tempdir().unwrap();
        let memory = Memory::new(limit);
        let (draft, mut spool) = written(folder.path(), &memory);
        draft.finish(&mut [1, 2, 3]).unwrap();
        // It reads although the file has gone: it was spent.
        erase(&draft.path()).unwrap();
        all_of(&mut spool).unwrap();
        assert!(locked(&spool.given_back).len() <= AHEAD);
        drop(spool);
        assert_eq!(memory.used.load(Ordering::Relaxed), 0);
    }
}

#[test]
fn of_a_bundle_that_does_not_fit_nothing_is_kept() {
    let memory = Memory::new(100);
    let is_itself = |bytes| Arc::ptr_eq(&memory.for_bundle(bytes), &memory);
    assert!(is_itself(100) && !is_itself(101));
    assert!(memory.take(1));
    assert!(is_itself(99) && !is_itself(100) && !is_itself(u64::MAX));
    let folder = tempfile::tempdir().unwrap();
    let (draft, mut spool) = written(folder.path(), &memory.for_bundle(100));
    assert!(!draft.is_in_memory() && spool.kept.iter().all(|kept| kept.bytes().is_empty()));
    draft.finish(&mut [1, 2, 3]).unwrap();
    all_of(&mut spool).unwrap();
    assert_eq!(memory.used.load(Ordering::Relaxed), 1);
}

#[test]
fn another_process_finds_it_whole() {
    let folder = tempfile::tempdir().unwrap();
    let path = stored(folder.path());
    let (bytes, mut spool) = open(&path, ID, &ORIGIN, &Memory::new(0)).unwrap();
    assert_eq!(*bytes, vec![5; 70_000]);
    erase(&path).unwrap();
    all_of(&mut spool).unwrap();
    assert!(open(&path, ID, &ORIGIN, &Memory::new(0)).is_err());
    erase(&path).unwrap();
}

#[test]
fn what_was_erased_or_is_another_bundles_does_not_open() {
    let folder = tempfile::tempdir().unwrap();
    let path = stored(folder.path());
    let copy = folder.path().join("copy");
    fs::copy(&path, &copy).unwrap();
    let memory = Memory::new(0);
    assert!(open(&copy, BundleId([8; 16]), &ORIGIN, &memory).is_err(), "another name");
    let newer = Origin { version: 8, ..ORIGIN };
    for other in [Origin { context: [9; 32], ..ORIGIN }, Origin { era: [9; 32], ..ORIGIN }, newer] {
        assert!(open(&copy, ID, &other, &memory).is_err(), "another cluster, era or version");
    }
    // Written into the file it is no better: what a file says of itself is authenticated.
    let forged = folder.path().join("forged");
    let mut bytes = fs::read(&path).unwrap();
    bytes[START - 2..START].copy_from_slice(&newer.version.to_le_bytes());
    fs::write(&forged, bytes).unwrap();
    assert!(origin(&forged).is_some_and(|(found, _)| found == newer));
    assert!(open(&forged, ID, &newer, &memory).is_err());
    let mut file = File::options().write(true).open(&copy).unwrap();
    file.seek(SeekFrom::Start(HEADER.len() as u64)).unwrap();
    file.write_all(&[0; KEY]).unwrap();
    assert_eq!(origin(&copy), None);
    assert!(open(&copy, ID, &ORIGIN, &memory).is_err());
}

/// Every part of the file, changed, and the file cut short anywhere.
#[test]
fn a_file_that_was_changed_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let whole = fs::read(stored(folder.path())).unwrap();
    let path = folder.path().join("changed");
    let usable = |bytes: &[u8]| {
        fs::write(&path, bytes).unwrap();
        let opened = open(&path, ID, &ORIGIN, &Memory::new(0));
        opened.and_then(|(_, mut spool)| all_of(&mut spool)).is_ok()
    };
    assert!(usable(&whole));
    let mut places: Vec<usize> = (0..START).collect();
    places.extend((START..whole.len()).step_by(whole.len() / 40));
    places.extend(whole.len() - 120..whole.len());
    for place in places {
        let mut changed = whole.clone();
        changed[place] ^= 1;
        assert!(!usable(&changed), "byte {place}");
    }
    for length in [0, 1, 15, 16, START - 1, START, START + 9, whole.len() / 2, whole.len() - 1] {
        assert!(!usable(&whole[..length]), "{length} bytes");
    }
    assert!(!usable(&[&whole[..], &[0]].concat()), "longer");
    // Chunks in another order.
    let mut turned = whole.clone();
    turned[START + 32..].rotate_left(CHUNK + TAG);
    assert!(!usable(&turned));
}

/// Whoever kept a handle, or finds the blocks again, finds no key.
#[test]
fn erasing_destroys_the_key_before_the_name() {
    let folder = tempfile::tempdir().unwrap();
    let path = stored(folder.path());
    let other = folder.path().join("other name");
    fs::hard_link(&path, &other).unwrap();
    assert_ne!(fs::read(&other).unwrap()[HEADER.len()..][..KEY], [0; KEY]);
    erase(&path).unwrap();
    assert!(!path.exists());
    assert_eq!(fs::read(&other).unwrap()[HEADER.len()..][..KEY], [0; KEY]);
    // What only has the name of a bundle is left alone.
    #[cfg(unix)]
    {
        std::os::unix::fs::symlink(&other, &path).unwrap();
        assert!(erase(&path).is_err());
        assert!(other.exists() && path.exists());
    }
}

#[test]
fn nothing_readable_is_on_disk_and_no_unfinished_file_is_left() {
    let folder = tempfile::tempdir().unwrap();
    let (draft, mut spool) = Draft::begin(folder.path(), ID, &ORIGIN, &Memory::new(0)).unwrap();
    // A chunk, and part of another.
    spool.put(Material::zeros(MaterialSize { tables: CHUNK / 16 + 100 })).unwrap();
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        assert_eq!(fs::metadata(draft.path()).unwrap().permissions().mode() & 0o777, 0o600);
    }
    let bytes = fs::read(draft.path()).unwrap();
    assert_eq!(bytes.len(), START + 1600 + CHUNK + 2 * TAG);
    let zeros = bytes[START..].iter().filter(|&&b| b == 0).count();
    assert!((CHUNK / 512..CHUNK / 128).contains(&zeros), "{zeros}");
    // Who finds the blocks of a file that was given up finds no key either.
    let other = folder.path().join("other name");
    fs::hard_link(draft.path(), &other).unwrap();
    drop((draft, spool));
    let left = fs::read(&other).unwrap();
    assert_eq!((left.len(), &left[HEADER.len()..][..KEY]), (START, &[0; KEY][..]));
    fs::remove_file(&other).unwrap();
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    assert!(Draft::begin(&folder.path().join("absent"), ID, &ORIGIN, &Memory::new(0)).is_err());
}
