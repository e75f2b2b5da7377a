//! What servers have on disk: what was spent, and which bundles are ready.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

/// The bundles and their uses (session, incarnation, counter) that a ledger says were spent, in order.
fn records(state: &Path) -> Vec<Vec<u8>> {
    const RECORD: usize = 65;
    const SPENT: u8 = 3;
    let bytes = std::fs::read(state.join("ledger")).unwrap();
    let records = bytes[16..].chunks_exact(RECORD).filter(|record| record[0] == SPENT);
    records.map(|record| record[1..57].to_vec()).collect()
}

/// The bundles that any server has spent, by the names of their files.
pub fn spent(states: &[PathBuf]) -> HashSet<String> {
    let all = states.iter().flat_map(|state| records(state));
    all.map(|record| record[..16].iter().map(|byte| format!("{byte:02x}")).collect()).collect()
}

/// The bundles whose files every server has.
pub fn ready(states: &[PathBuf]) -> HashSet<String> {
    let of = |state: &PathBuf| -> HashSet<String> {
        let folders = std::fs::read_dir(state.join("bundles")).unwrap();
        let files = folders.flat_map(|folder| std::fs::read_dir(folder.unwrap().path()).unwrap());
        let names = files.map(|file| PathBuf::from(file.unwrap().file_name()));
        let bundles = names.filter(|name| name.extension().is_some_and(|end| end == "bundle"));
        bundles.map(|name| name.file_stem().unwrap().to_string_lossy().into_owned()).collect()
    };
    let each = states.iter().map(of);
    each.reduce(|common, these| common.intersection(&these).cloned().collect()).unwrap()
}

/// No bundle and no request is twice in a ledger, and none is spent for something else elsewhere.
pub fn nothing_is_used_twice(states: &[PathBuf]) {
    let mut uses = HashMap::new();
    for state in states {
        let ledger = records(state);
        assert_eq!(ledger.iter().collect::<HashSet<_>>().len(), ledger.len());
        for record in ledger {
            let (bundle, usage) = record.split_at(16);
            let known = uses.entry(bundle.to_vec()).or_insert_with(|| usage.to_vec());
            assert_eq!(*known, usage, "a bundle was spent for two requests");
        }
    }
    let distinct: HashSet<_> = uses.values().collect();
    assert_eq!(distinct.len(), uses.len(), "a request was answered with two bundles");
}
