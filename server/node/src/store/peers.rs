//! What this server knows of the other servers' ledgers (`server/PROTOCOL.md`, section 7).
//!
//! Servers tell each other where their ledgers end whenever they connect, before the link is used. This one remembers it,
//! and counts the spends that the others have confirmed since. A ledger that ends before that was set back, with the
//! machine it is on or by whoever restored a copy: its server would use bundles again, and sessions. So all bundles are
//! destroyed here, and with them everywhere, and the operator is told which server it is. (That no bundle is used twice
//! does not rest on it: a server whose ledger is intact refuses.)
//!
//! The file is text: a title, then a line for each server, `NAME COUNT CHAIN`. `NAME` is the hash of its certificate and
//! the model; `CHAIN` is `-` where the count was carried on by confirmations.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::ledger::Head;
use crate::keys::{from_hex, to_hex};
use crate::{Error, private};

const FILE: &str = "peers";
const TITLE: &str = "seco peers' ledgers v1";
/// A file of more bytes is none of ours.
const MAX_FILE: u64 = 1 << 20;
/// Confirmations between two recordings.
const EVERY: u64 = 64;

/// Names a ledger of another server: hash of the certificate by which it is known, and the model.
pub type LedgerName = [u8; 32];

/// Where a ledger ended at least.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Known {
    count: u64,
    chain: Option<[u8; 32]>,
}

/// A ledger that was set back or replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SetBack {
    /// Entries it had at least.
    pub had: u64,
    /// Entries it has.
    pub has: u64,
}

/// The file, and what it says.
pub struct Peers {
    path: PathBuf,
    state: Mutex<State>,
}

struct State {
    known: BTreeMap<LedgerName, Known>,
    unrecorded: u64,
}

impl Peers {
    /// Reads the file of a state directory. A damaged one says nothing: it is begun anew.
    pub fn open(folder: &Path) -> Result<Peers, Error> {
        let path = folder.join(FILE);
        let found = fs::metadata(&path).ok();
        let text = match &found {
            Some(found) if found.len() <= MAX_FILE => {
                private::close(&path)?;
                fs::read_to_string(&path).unwrap_or_default()
            }
            _ => String::new(),
        };
        let known = parse(&text);
        if known.is_none() && found.is_some() {
            tracing::warn!(
                "{}: cannot be read and is begun anew: a server that was set back is not noticed",
                path.display()
            );
        }
        let known = known.unwrap_or_default();
        Ok(Peers { path, state: Mutex::new(State { known, unrecorded: 0 }) })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Another server says where its ledger ends. Remembers it, unless it went back.
    ///
    /// # Errors
    /// [`SetBack`] if it did. It is remembered as it was: whoever is told does what has to be done, and then
    /// [accepts](Peers::accept) where it ends now. If that does not happen, it is noticed again.
    pub fn meet(&self, name: LedgerName, head: Head) -> Result<(), SetBack> {
        let before = self.state().known.get(&name).copied();
        let set_back = before.filter(|before| {
            let replaced = before.chain.is_some_and(|chain| chain != head.chain);
            head.count < before.count || head.count == before.count && replaced
        });
        if let Some(before) = set_back {
            return Err(SetBack { had: before.count, has: head.count });
        }
        self.accept(name, head);
        Ok(())
    }

    /// Remembers where a ledger ends.
    pub fn accept(&self, name: LedgerName, head: Head) {
        let mut state = self.state();
        state.known.insert(name, Known { count: head.count, chain: Some(head.chain) });
        self.record_or_tell(&mut state);
    }

    /// Servers have confirmed a spend, every one of them: each of these groups is one ledger's names. A name that is
    /// new is known as its others are. Who they are is asked while none of them is met: what a server says of its
    /// ledger on a new link has the spend already, and counting it once more would make it seem set back later.
    pub fn confirmed(&self, ledgers: impl FnOnce() -> Vec<Vec<LedgerName>>) {
        let mut state = self.state();
        for names in &ledgers() {
            let counts = names.iter().filter_map(|name| state.known.get(name)).map(|known| known.count);
            if let Some(count) = counts.max() {
                let known = Known { count: count.saturating_add(1), chain: None };
                state.known.extend(names.iter().map(|name| (*name, known)));
            }
        }
        state.unrecorded += 1;
        if state.unrecorded >= EVERY {
            self.record_or_tell(&mut state);
        }
    }

    /// On a full disk it is told, and tried again with the next.
    fn record_or_tell(&self, state: &mut State) {
        if let Err(error) = self.record(state) {
            tracing::warn!(%error, "{}: cannot be written", self.path.display());
        }
    }

    /// Writes what was confirmed: at a clean end.
    pub fn flush(&self) -> Result<(), Error> {
        self.record(&mut self.state()).map_err(|e| Error::write(&self.path, e))
    }

    fn record(&self, state: &mut State) -> io::Result<()> {
        let mut text = format!("{TITLE}\n");
        for (name, Known { count, chain }) in &state.known {
            let chain = chain.map_or_else(|| "-".to_owned(), |chain| to_hex(&chain));
            text += &format!("{} {count} {chain}\n", to_hex(name));
        }
        private::replace(&self.path, text.as_bytes())?;
        state.unrecorded = 0;
        Ok(())
    }
}

fn parse(text: &str) -> Option<BTreeMap<LedgerName, Known>> {
    let lines = text.strip_prefix(TITLE)?.strip_prefix('\n')?.lines();
    let line = |line: &str| {
        let (name_hex, rest) = line.split_once(' ')?;
        let (count, chain_hex) = rest.split_once(' ')?;
        let mut name = [0; 32];
        from_hex(name_hex, &mut name)?;
        let chain = match chain_hex {
            "-" => None,
            digits => {
                let mut chain = [0; 32];
                from_hex(digits, &mut chain)?;
                Some(chain)
            }
        };
        Some((name, Known { count: count.parse().ok()?, chain }))
    };
    lines.map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAME: LedgerName = [3; 32];

    fn head(count: u64, chain: u8) -> Head {
        Head { count, chain: [chain; 32] }
    }

    #[test]
    fn a_ledger_that_goes_back_is_noticed_also_after_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let open = || Peers::open(folder.path()).unwrap();
        let meet = |head| open().meet(NAME, head);
        assert_eq!(meet(head(5, 1)), Ok(()));
        assert_eq!(meet(head(5, 1)), Ok(()));
        assert_eq!(meet(head(9, 2)), Ok(()));
        // As often as it comes, until somebody has done something about it.
        for _ in 0..2 {
            assert_eq!(meet(head(8, 3)), Err(SetBack { had: 9, has: 8 }));
        }
        open().accept(NAME, head(8, 3));
        assert_eq!(meet(head(8, 3)), Ok(()));
        assert_eq!(meet(head(8, 4)), Err(SetBack { had: 8, has: 8 }), "another ledger");
        assert_eq!(open().meet([4; 32], head(0, 1)), Ok(()), "another server");
    }

    #[test]
    fn what_was_confirmed_counts() {
        let folder = tempfile::tempdir().unwrap();
        let peers = Peers::open(folder.path()).unwrap();
        peers.meet(NAME, head(100, 1)).unwrap();
        // A server that was never met is not made up.
        (0..EVERY).for_each(|_| peers.confirmed(|| vec![vec![NAME], vec![[9; 32]]]));
        drop(peers);
        let peers = Peers::open(folder.path()).unwrap();
        let set_back = Err(SetBack { had: 100 + EVERY, has: 100 });
        assert_eq!(peers.meet(NAME, head(100, 1)), set_back, "recorded in between");
        peers.meet(NAME, head(200, 2)).unwrap();
        // A model that both have since: its name is another of the same ledger.
        peers.confirmed(|| vec![vec![[5; 32], NAME]]);
        assert_eq!(peers.meet([5; 32], head(200, 2)), Err(SetBack { had: 201, has: 200 }));
        assert_eq!(peers.meet(NAME, head(201, 7)), Ok(()), "no chain is known of that count");
        peers.confirmed(|| vec![vec![NAME]]);
        peers.flush().unwrap();
        drop(peers);
        let peers = Peers::open(folder.path()).unwrap();
        assert_eq!(peers.meet(NAME, head(201, 7)), Err(SetBack { had: 202, has: 201 }));
    }

    /// A link is lost and made anew while a request that used it comes to its end.
    #[test]
    fn what_is_confirmed_is_not_counted_on_top_of_what_is_said_then() {
        use std::sync::Barrier;
        use std::sync::atomic::{AtomicBool, Ordering};
        let folder = tempfile::tempdir().unwrap();
        let peers = Peers::open(folder.path()).unwrap();
        peers.meet(NAME, head(5, 1)).unwrap();
        let (stands, asked) = (AtomicBool::new(true), Barrier::new(2));
        std::thread::scope(|scope| {
            scope.spawn(|| {
                peers.confirmed(|| {
                    let stands = stands.load(Ordering::SeqCst);
                    asked.wait();
                    std::thread::sleep(std::time::Duration::from_millis(100));
                    if stands { vec![vec![NAME]] } else { Vec::new() }
                });
            });
            asked.wait();
            stands.store(false, Ordering::SeqCst);
            // With the spend.
            peers.meet(NAME, head(6, 2)).unwrap();
        });
        assert_eq!(peers.meet(NAME, head(6, 2)), Ok(()));
    }

    #[test]
    fn damaged_files_say_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(FILE);
        let peers = Peers::open(folder.path()).unwrap();
        peers.meet(NAME, head(5, 1)).unwrap();
        let whole = fs::read(&path).unwrap();
        for content in [&whole[..whole.len() / 2], b"", b"seco peers' ledgers v1", &[0xff; 100]] {
            fs::write(&path, content).unwrap();
            assert_eq!(Peers::open(folder.path()).unwrap().meet(NAME, head(1, 1)), Ok(()));
        }
    }
}
