//! Which files remember where a ledger ends: one for each model that a server's keys are used with.
//!
//! A session belongs to a model, so a model's ledger can go back unnoticed only if the head of that model does. Its
//! file is called after the opening key and the model, `NAME.TAG.ledger.head`, wherever the state folder is: a ledger
//! that was copied elsewhere, or begun anew there, is refused; another model may begin one in a folder of its own.

use std::fs;
use std::path::{Path, PathBuf};

use super::head::Head;
use crate::Error;
use crate::keys::to_hex;

/// How the names of such files end.
const ENDING: &str = ".ledger.head";
/// Bytes of the model's id that are in the name, in hexadecimal.
const TAG: usize = 8;

/// The files of one server and model.
#[derive(Clone, Debug)]
pub struct Heads {
    /// Where this model's head is.
    pub own: PathBuf,
    /// Where it may be under an earlier name: of a retired opening key, or without a model, as the first release
    /// wrote it. What is found there is taken over.
    pub earlier: Vec<PathBuf>,
    /// Other models', with which the ledger may have begun: the same folder may serve one after the other.
    pub others: Vec<PathBuf>,
}

/// A head that was found.
pub(super) struct Found {
    pub path: PathBuf,
    pub head: Head,
    /// Whether a ledger of this model must reach it: not another model's.
    pub binding: bool,
    /// Whether its name is an earlier one.
    pub earlier: bool,
}

impl Heads {
    /// Those beside the opening key, for a model.
    pub fn new(opening_key: &Path, retired: &[PathBuf], model: &[u8; 32]) -> Heads {
        let own = of_model(opening_key, model);
        let mut earlier = vec![untagged(opening_key)];
        earlier.extend(retired.iter().flat_map(|key| [of_model(key, model), untagged(key)]));
        let stem = stem(opening_key);
        let of_others = |path: &PathBuf| *path != own && is_tagged(path, &stem);
        let folder = own.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        // A folder that cannot be listed only means that none of them is known.
        let entries = fs::read_dir(folder).into_iter().flatten();
        let paths = entries.filter_map(|entry| Some(own.with_file_name(entry.ok()?.file_name())));
        let mut others: Vec<PathBuf> = paths.filter(of_others).collect();
        others.sort();
        Heads { own, earlier, others }
    }

    /// A ledger's only head.
    pub fn only(path: &Path) -> Heads {
        Heads { own: path.to_owned(), earlier: Vec::new(), others: Vec::new() }
    }

    /// Whether there is a ledger of the model somewhere, which no other may be begun for. One that cannot be read is
    /// for whoever opens it to complain about.
    pub(super) fn bind(&self) -> bool {
        self.load().map_or(true, |found| found.iter().any(|found| found.binding))
    }

    /// What a ledger may have to reach, the most binding first: the model's own, or else those under earlier names,
    /// and then those of other models.
    pub(super) fn load(&self) -> Result<Vec<Found>, Error> {
        if let Some(head) = Head::load(&self.own)? {
            return Ok(vec![Found { path: self.own.clone(), head, binding: true, earlier: false }]);
        }
        let mut found = Vec::new();
        for path in &self.earlier {
            let head = Head::load(path)?;
            found.extend(head.map(|head| Found { path: path.clone(), head, binding: true, earlier: true }));
        }
        for path in &self.others {
            // One that is damaged is for its own model to complain about.
            let head = Head::load(path).ok().flatten();
            found.extend(head.map(|head| Found { path: path.clone(), head, binding: false, earlier: false }));
        }
        Ok(found)
    }
}

/// Whether a file is a head of the server with this name.
pub fn is_head(path: &Path, name: &str) -> bool {
    is_tagged(path, name) || path.file_name().is_some_and(|file| *file == *format!("{name}{ENDING}"))
}

fn stem(opening_key: &Path) -> String {
    let name = opening_key.file_name().unwrap_or_default().to_string_lossy();
    name.strip_suffix(".opening.key").unwrap_or(&name).to_owned()
}

fn of_model(opening_key: &Path, model: &[u8; 32]) -> PathBuf {
    let tag = to_hex(model.get(..TAG).unwrap_or_default());
    opening_key.with_file_name(format!("{}.{tag}{ENDING}", stem(opening_key)))
}

fn untagged(opening_key: &Path) -> PathBuf {
    opening_key.with_file_name(format!("{}{ENDING}", stem(opening_key)))
}

fn is_tagged(path: &Path, name: &str) -> bool {
    let file = path.file_name().unwrap_or_default().to_string_lossy();
    let tag = file.strip_prefix(name).and_then(|rest| rest.strip_suffix(ENDING)?.strip_prefix('.'));
    tag.is_some_and(|tag| tag.len() == 2 * TAG && tag.bytes().all(|digit| digit.is_ascii_hexdigit()))
}

#[cfg(test)]
mod tests {
    use seco_protocol::{BundleId, Ledger as _, Use};

    use super::*;
    use crate::store::ledger::FileLedger;

    const A: [u8; 32] = [0xa1; 32];
    const B: [u8; 32] = [0xb2; 32];

    struct Site(tempfile::TempDir);

    impl Site {
        fn path(&self, name: &str) -> PathBuf {
            self.0.path().join(name)
        }

        fn heads(&self, model: &[u8; 32]) -> Heads {
            Heads::new(&self.path("s.opening.key"), &[self.path("old.opening.key")], model)
        }

        fn open(&self, state: &str, model: &[u8; 32]) -> Result<FileLedger, Error> {
            FileLedger::open(&self.path(state), &self.heads(model))
        }

        /// Starts, spends some bundles and ends; gives the number of all.
        fn serve(&self, state: &str, model: &[u8; 32], bundles: std::ops::Range<u8>) -> u64 {
            let ledger = self.open(state, model).unwrap();
            for n in bundles {
                let usage =
                    Use { session: model[..16].try_into().unwrap(), incarnation: [1; 16], counter: n.into() };
                ledger.spend(&BundleId([n; 16]), &usage).unwrap();
            }
            ledger.record_head().unwrap();
            ledger.head().count
        }

        fn refused(&self, state: &str, model: &[u8; 32], part: &str) {
            let text = self.open(state, model).err().expect(part).to_string();
            assert!(text.contains(part) && text.contains("seco keygen"), "{text}");
        }
    }

    fn site() -> Site {
        Site(tempfile::tempdir().unwrap())
    }

    #[test]
    fn a_model_has_one_ledger_wherever_it_is() {
        let site = site();
        assert_eq!(site.serve("state", &A, 0..3), 3);
        site.refused("other", &A, "is missing, but had 3 entries");
        assert!(!site.path("other/ledger").exists());
        // Another model's in a folder of its own, and each goes on.
        assert_eq!((site.serve("other", &B, 0..2), site.serve("state", &A, 3..5)), (2, 5));
        site.refused("other", &A, "has 2 entries, but had 5");
        site.refused("state", &B, "is not the one");
        // A folder that is moved is the same ledger.
        fs::rename(site.path("state"), site.path("moved")).unwrap();
        assert_eq!(site.serve("moved", &A, 5..6), 6);
        assert!(site.path("s.a1a1a1a1a1a1a1a1.ledger.head").exists());
    }

    /// A model that was away while the ledger was compacted comes back.
    #[test]
    fn a_model_comes_back_after_a_compaction_without_it() {
        let site = site();
        assert_eq!(site.serve("state", &A, 0..3), 3);
        assert_eq!(site.serve("state", &B, 3..5), 5);
        let alone = site.open("state", &B).unwrap();
        alone.renounce_bundles().unwrap();
        drop(alone);
        assert_eq!(site.serve("state", &A, 6..7), 7);
        assert_eq!(site.serve("state", &B, 7..8), 8);
    }

    #[test]
    fn a_folder_may_serve_another_model_next() {
        let site = site();
        assert_eq!(site.serve("state", &A, 0..3), 3);
        let early = fs::read(site.path("state/ledger")).unwrap();
        assert_eq!(site.serve("state", &A, 3..5), 5);
        let late = fs::read(site.path("state/ledger")).unwrap();
        // Not one that was set back.
        fs::write(site.path("state/ledger"), early).unwrap();
        site.refused("state", &B, "has 3 entries, but");
        fs::write(site.path("state/ledger"), late).unwrap();
        assert_eq!(site.serve("state", &B, 5..7), 7);
        let ledger = site.open("state", &B).unwrap();
        assert!([A, B].iter().all(|model| ledger.knows(model[..16].try_into().unwrap())));
        drop(ledger);
        // The first still cannot begin elsewhere, and goes on here.
        site.refused("new", &A, "is missing, but had 7 entries");
        assert_eq!(site.serve("state", &A, 7..8), 8);
        // Nothing that another model left is in the way of one with a folder of its own.
        fs::write(site.path("s.0000000000000000.ledger.head"), "damaged").unwrap();
        assert_eq!(site.serve("fresh", &[7; 32], 0..1), 1);
    }

    #[test]
    fn several_models_have_one_ledger_and_each_notices_where_it_goes_back() {
        const C: [u8; 32] = [0xc3; 32];
        let site = site();
        let all = |state: &str, models: &[&[u8; 32]]| {
            let heads: Vec<Heads> = models.iter().map(|model| site.heads(model)).collect();
            FileLedger::open_all(&site.path(state), &heads)
        };
        let spend = |ledger: &FileLedger, n: u8| {
            let usage = Use { session: [n; 16], incarnation: [1; 16], counter: 0 };
            ledger.spend(&BundleId([n; 16]), &usage).unwrap();
        };
        assert_eq!(site.serve("state", &A, 0..3), 3);
        let ledger = all("state", &[&A, &B]).unwrap();
        spend(&ledger, 3);
        // Another while it runs.
        ledger.serves(&site.heads(&C)).unwrap();
        spend(&ledger, 4);
        ledger.record_head().unwrap();
        drop(ledger);
        let early = fs::read(site.path("state/ledger")).unwrap();
        let ledger = all("state", &[&C, &A]).unwrap();
        (5..8).for_each(|n| spend(&ledger, n));
        ledger.record_head().unwrap();
        drop(ledger);
        let late = fs::read(site.path("state/ledger")).unwrap();
        // Set back, each of the two notices, whichever else is served with it.
        fs::write(site.path("state/ledger"), early).unwrap();
        for models in [&[&A, &B][..], &[&B, &A], &[&B, &C], &[&C]] {
            let told = all("state", models).err().unwrap().to_string();
            assert!(told.contains("has 5 entries, but had 8"), "{told}");
        }
        fs::write(site.path("state/ledger"), late).unwrap();
        drop(all("state", &[&A, &B, &C]).unwrap());
        // One that has a ledger elsewhere: begun with others or not, and added later.
        let told = all("new", &[&[7; 32], &B]).err().unwrap().to_string();
        assert!(
            told.contains("is missing, but had 8 entries") && !site.path("new/ledger").exists(),
            "{told}"
        );
        assert_eq!(site.serve("other", &[8; 32], 0..1), 1);
        for refused in [
            all("other", &[&[8; 32], &B]).err(),
            all("other", &[&[8; 32]]).unwrap().serves(&site.heads(&B)).err(),
        ] {
            let told = refused.unwrap().to_string();
            assert!(told.contains("has 1 entries, but had 8") && told.contains("s.b2b2"), "{told}");
        }
    }

    #[test]
    fn what_an_earlier_name_has_is_taken_over() {
        for name in ["s.ledger.head", "old.ledger.head", "old.a1a1a1a1a1a1a1a1.ledger.head"] {
            let site = site();
            assert_eq!(site.serve("state", &A, 0..3), 3);
            let (own, old) = (site.heads(&A).own, site.path(name));
            fs::rename(&own, &old).unwrap();
            // Not for a ledger that is another one, and then it is not lost.
            site.refused("new", &A, "is missing, but had 3 entries");
            fs::rename(site.path("state"), site.path("kept")).unwrap();
            let other = self::site();
            other.serve("state", &A, 0..4);
            fs::rename(other.path("state"), site.path("state")).unwrap();
            site.refused("state", &A, "is not the one");
            assert!(old.exists() && !own.exists(), "{name}");
            assert_eq!(site.serve("kept", &A, 3..4), 4);
            assert!(own.exists() && !old.exists(), "{name}");
            site.refused("new", &A, "is missing, but had 4 entries");
        }
    }

    #[test]
    fn heads_are_told_by_their_names() {
        for (file, is) in [
            ("s.ledger.head", true),
            ("s.0123456789abcdef.ledger.head", true),
            ("s.t.ledger.head", false),
            ("s1.ledger.head", false),
            ("s.opening.key", false),
        ] {
            assert_eq!(is_head(&Path::new("keys").join(file), "s"), is, "{file}");
        }
        let heads = Heads::new(Path::new("s.opening.key"), &[], &A);
        assert_eq!(heads.own, Path::new("s.a1a1a1a1a1a1a1a1.ledger.head"));
    }
}
