//! Tokens of devices at the gateway: who may open sessions, for how long, and for how many requests.
//!
//! `seco token` writes them to a file, which has their hashes alone, and the gateway reads it again whenever it has
//! changed. What was used, in all and of the present hour, is counted in memory and written to the state directory every
//! few seconds and at the end: a gateway that is killed forgives the requests of the last seconds. A token counts on the gateway only; the other
//! servers never see one.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use seco_core::{Refusal, Token, TokenId};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

use super::bucket::{Bucket, HOUR};
use crate::{Error, keys, private};

/// File in the state directory that says what was used.
const USED: &str = "tokens.used";
/// Most tokens of a gateway.
pub const MAX_TOKENS: usize = 1_000_000;
/// Longest label, in characters.
pub const MAX_LABEL: usize = 100;

/// What a gateway knows of a token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// Its name, hexadecimal.
    pub id: String,
    /// Hash of all of it, hexadecimal.
    pub hash: String,
    /// For the operator.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub label: String,
    /// Seconds since 1970.
    pub created: u64,
    /// The same; without it, never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<u64>,
    /// Requests that it is good for in all; without it, any number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requests: Option<u64>,
    /// Requests in an hour: so many at once, and then as they come again; without it, any number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requests_hour: Option<u32>,
    /// Not taken any more.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub revoked: bool,
}

/// The file of a gateway's tokens.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenFile {
    /// All of them, the oldest first.
    #[serde(default)]
    pub tokens: Vec<Entry>,
}

impl TokenFile {
    /// Reads and checks it; one that is not there has none.
    pub fn load(path: &Path) -> Result<TokenFile, Error> {
        let text = match fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(TokenFile::default()),
            Err(error) => return Err(Error::read(path, error)),
        };
        let bad = |what: String| Error::Config { path: path.to_owned(), what };
        let file: TokenFile = toml::from_str(&text).map_err(|e| bad(e.message().replace('\n', " ")))?;
        if file.tokens.len() > MAX_TOKENS {
            return Err(bad(format!("has {} tokens, at most {MAX_TOKENS}", file.tokens.len())));
        }
        let mut names = std::collections::HashSet::new();
        for entry in &file.tokens {
            let id = entry.name().ok_or_else(|| bad(format!("id = {:?} is no token's", entry.id)))?;
            if entry.requests_hour == Some(0) {
                return Err(bad(format!("token {id}: requests_hour = 0 is no number of requests")));
            }
            if entry.digest().is_none() {
                return Err(bad(format!("token {id}: hash is not 64 hexadecimal digits")));
            }
            if !names.insert(id) {
                return Err(bad(format!("token {id} is there twice")));
            }
        }
        Ok(file)
    }

    /// Writes it whole: a gateway that reads meanwhile sees what was or what is.
    pub fn save(&self, path: &Path) -> Result<(), Error> {
        let text = toml::to_string(self)
            .map_err(|e| Error::Config { path: path.to_owned(), what: e.to_string().replace('\n', " ") })?;
        private::replace(path, text.as_bytes()).map_err(|e| Error::write(path, e))
    }
}

impl Entry {
    /// An entry for a token, without limits.
    #[must_use]
    pub fn new(token: &Token, label: String) -> Entry {
        Entry {
            id: token.id().to_string(),
            hash: keys::to_hex(&digest(token)),
            label,
            created: now(),
            expires: None,
            requests: None,
            requests_hour: None,
            revoked: false,
        }
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> Option<TokenId> {
        name(&self.id)
    }

    fn digest(&self) -> Option<[u8; 32]> {
        let mut hash = [0; 32];
        keys::from_hex(&self.hash, &mut hash).map(|_| hash)
    }

    /// Whether it may be used now.
    fn check(&self) -> Result<(), Refusal> {
        if self.revoked {
            return Err(Refusal::TokenInvalid);
        }
        if self.expires.is_some_and(|expires| now() >= expires) {
            return Err(Refusal::TokenExpired);
        }
        Ok(())
    }
}

fn name(id: &str) -> Option<TokenId> {
    let mut bytes = [0; 8];
    keys::from_hex(id, &mut bytes).map(|_| TokenId(bytes))
}

/// Seconds since 1970.
#[must_use]
pub fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs())
}

/// A token's secret has 128 random bits: nothing slower is needed.
fn digest(token: &Token) -> [u8; 32] {
    Sha256::new().chain_update(b"seco token v1").chain_update(token.as_bytes()).finalize().into()
}

/// What was used of a token, as the file in the state directory has it: a line `ID COUNT HOUR TIME`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Uses {
    /// Requests in all.
    count: u64,
    /// Of those that may be made in an hour, at `time` (seconds since 1970). Earlier releases wrote neither.
    hour: u32,
    time: u64,
}

impl Uses {
    fn read(state: &Path) -> HashMap<String, Uses> {
        let text = fs::read_to_string(state.join(USED)).unwrap_or_default();
        let line = |line: &str| {
            let mut words = line.split(' ');
            let (id, count) = (words.next()?, words.next()?.parse().ok()?);
            let hour = words.next().map_or(Ok(0), str::parse).ok()?;
            let time = words.next().map_or(Ok(0), str::parse).ok()?;
            Some((id.to_owned(), Uses { count, hour, time }))
        };
        text.lines().filter_map(line).collect()
    }

    fn bucket(&self, limit: Option<u32>) -> Bucket {
        // A clock that was set back makes nobody wait longer than what was used then.
        let age = Duration::from_secs(now().saturating_sub(self.time));
        Bucket::restored(self.hour, limit.unwrap_or(0) as usize, HOUR, age)
    }
}

/// Requests that were made with each token, from a gateway's state directory.
pub fn used(state: &Path) -> HashMap<String, u64> {
    Uses::read(state).into_iter().map(|(id, uses)| (id, uses.count)).collect()
}

/// The tokens of a running gateway.
pub(crate) struct Tokens {
    path: PathBuf,
    used_path: PathBuf,
    required: bool,
    state: Mutex<State>,
    /// Held while what was used is written.
    storing: Mutex<()>,
}

struct State {
    /// What the file looked like when it was read last.
    seen: Option<Stamp>,
    tokens: HashMap<TokenId, Known>,
    /// Whether something was used that is not on disk.
    dirty: bool,
    /// Whether the file could not be read the last time.
    unread: bool,
}

struct Known {
    entry: Entry,
    hash: [u8; 32],
    /// Requests in all.
    used: u64,
    hour: Bucket,
}

/// Enough of a file's properties to tell that it is another one.
type Stamp = (Option<SystemTime>, u64, u64);

fn stamp(path: &Path) -> Option<Stamp> {
    let data = fs::metadata(path).ok()?;
    #[cfg(unix)]
    let number = std::os::unix::fs::MetadataExt::ino(&data);
    #[cfg(not(unix))]
    let number = 0;
    Some((data.modified().ok(), data.len(), number))
}

/// A request that a token pays for; given back unless a bundle was used for it.
pub(crate) struct Paid {
    tokens: Arc<Tokens>,
    id: TokenId,
    spent: bool,
}

impl Tokens {
    /// Reads the tokens in `path`, and what was used of them from the state directory.
    pub fn open(path: &Path, required: bool, state: &Path) -> Result<Arc<Tokens>, Error> {
        let seen = stamp(path);
        let file = TokenFile::load(path)?;
        let tokens = Tokens {
            path: path.to_owned(),
            used_path: state.join(USED),
            required,
            state: Mutex::new(State { seen, tokens: HashMap::new(), dirty: false, unread: false }),
            storing: Mutex::default(),
        };
        tokens.take_over(file, &Uses::read(state));
        Ok(Arc::new(tokens))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether nobody is served without one.
    pub fn required(&self) -> bool {
        self.required
    }

    fn take_over(&self, file: TokenFile, used: &HashMap<String, Uses>) {
        let mut state = self.state();
        let mut before = std::mem::take(&mut state.tokens);
        for entry in file.tokens {
            let (Some(id), Some(hash)) = (entry.name(), entry.digest()) else { continue };
            let known = match before.remove(&id) {
                Some(known) => Known { entry, hash, ..known },
                None => {
                    let uses = used.get(&id.to_string()).copied().unwrap_or_default();
                    Known { hash, used: uses.count, hour: uses.bucket(entry.requests_hour), entry }
                }
            };
            state.tokens.insert(id, known);
        }
    }

    /// Reads the file again if it has changed. Blocking. One that cannot be read leaves all as it was.
    pub fn refresh(&self) {
        let seen = stamp(&self.path);
        if seen == self.state().seen {
            return;
        }
        match TokenFile::load(&self.path) {
            Ok(file) => {
                let count = file.tokens.len();
                let used = self.used_path.parent().map(Uses::read).unwrap_or_default();
                self.take_over(file, &used);
                tracing::info!(count, "tokens were read again");
            }
            Err(error @ Error::Config { .. }) => tracing::error!("the tokens stay as they were: {error}"),
            // It may be readable the next time, without being another: it is tried again.
            Err(error) => {
                if !std::mem::replace(&mut self.state().unread, true) {
                    tracing::error!("the tokens stay as they were until they can be read: {error}");
                }
                return;
            }
        }
        let mut state = self.state();
        (state.seen, state.unread) = (seen, false);
    }

    /// Writes what was used, if that has changed. Blocking.
    pub fn store(&self) {
        let _storing = self.storing.lock().unwrap_or_else(PoisonError::into_inner);
        if !self.state().dirty {
            return;
        }
        let time = now();
        // Of those that are not in the tokens' file for the moment, what was used stays.
        let mut all = self.used_path.parent().map(Uses::read).unwrap_or_default();
        let now: Vec<(TokenId, Uses)> = {
            let mut state = self.state();
            state.dirty = false;
            // What was given back since it was written.
            let unused =
                |id: &str| name(id).and_then(|id| state.tokens.get(&id)).is_some_and(Known::is_unused);
            all.retain(|id, _| !unused(id));
            state
                .tokens
                .iter()
                .filter(|(_, known)| !known.is_unused())
                .map(|(id, known)| {
                    let (hour, age) = known.hour.last();
                    (*id, Uses { count: known.used, hour, time: time.saturating_sub(age.as_secs()) })
                })
                .collect()
        };
        all.extend(now.into_iter().map(|(id, uses)| (id.to_string(), uses)));
        let line =
            |(id, Uses { count, hour, time }): (&String, &Uses)| format!("{id} {count} {hour} {time}\n");
        let text: String = all.iter().map(line).collect();
        if let Err(error) = private::replace(&self.used_path, text.as_bytes()) {
            tracing::warn!(%error, "{}: cannot be written", self.used_path.display());
            self.state().dirty = true;
        }
    }

    /// Whether a session may be opened with this token; its name.
    ///
    /// # Errors
    /// [`Refusal::TokenInvalid`], [`Refusal::TokenExpired`], [`Refusal::TokenExhausted`].
    pub fn admit(&self, token: &Token) -> Result<TokenId, Refusal> {
        let (id, hash) = (token.id(), digest(token));
        let state = self.state();
        let known = state.tokens.get(&id).ok_or(Refusal::TokenInvalid)?;
        if !bool::from(known.hash.ct_eq(&hash)) {
            return Err(Refusal::TokenInvalid);
        }
        known.entry.check()?;
        known.left()?;
        Ok(id)
    }

    /// Counts a request. It is given back unless a bundle is used for it.
    ///
    /// # Errors
    /// As [`Tokens::admit`].
    pub fn pay(self: &Arc<Self>, id: TokenId) -> Result<Paid, Refusal> {
        let mut state = self.state();
        let known = state.tokens.get_mut(&id).ok_or(Refusal::TokenInvalid)?;
        known.entry.check()?;
        known.left()?;
        let hour = known.entry.requests_hour.map_or(0, |limit| limit as usize);
        known.hour.take(hour, HOUR, Instant::now()).map_err(|pause| Refusal::TokenExhausted {
            retry_after_s: u32::try_from(pause.as_secs()).unwrap_or(u32::MAX).saturating_add(1),
        })?;
        // The file may say anything.
        known.used = known.used.saturating_add(1);
        state.dirty = true;
        Ok(Paid { tokens: self.clone(), id, spent: false })
    }

    /// Reads and writes from time to time, for ever.
    pub async fn keep(self: Arc<Self>) {
        for round in 1_u64.. {
            tokio::time::sleep(REFRESH).await;
            let tokens = self.clone();
            let work = move || {
                tokens.refresh();
                if round.is_multiple_of(STORE) {
                    tokens.store();
                }
            };
            let _ = tokio::task::spawn_blocking(work).await;
        }
    }
}

/// How often it is looked whether the file has changed.
const REFRESH: Duration = Duration::from_secs(1);
/// As many times later what was used is written.
const STORE: u64 = 5;

impl Known {
    /// Whether there is nothing to write.
    fn is_unused(&self) -> bool {
        self.used == 0 && self.hour.last().0 == 0
    }

    /// Whether there are requests left in all.
    fn left(&self) -> Result<(), Refusal> {
        match self.entry.requests {
            Some(limit) if self.used >= limit => Err(Refusal::TokenExhausted { retry_after_s: 0 }),
            _ => Ok(()),
        }
    }
}

impl Paid {
    /// A bundle is used for it.
    pub fn used(mut self) {
        self.spent = true;
    }
}

impl Drop for Paid {
    fn drop(&mut self) {
        if self.spent {
            return;
        }
        let mut state = self.tokens.state();
        if let Some(known) = state.tokens.get_mut(&self.id) {
            known.used = known.used.saturating_sub(1);
            known.hour.give_back();
            state.dirty = true;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Site {
        folder: tempfile::TempDir,
        file: TokenFile,
    }

    impl Site {
        fn new() -> Self {
            Self { folder: tempfile::tempdir().unwrap(), file: TokenFile::default() }
        }

        fn path(&self) -> PathBuf {
            self.folder.path().join("tokens.toml")
        }

        fn open(&self) -> Arc<Tokens> {
            self.file.save(&self.path()).unwrap();
            Tokens::open(&self.path(), true, self.folder.path()).unwrap()
        }

        fn add(&mut self, seed: u8) -> (Token, &mut Entry) {
            let token = Token::new([seed; 24]);
            self.file.tokens.push(Entry::new(&token, format!("number {seed}")));
            (token, self.file.tokens.last_mut().unwrap())
        }
    }

    #[test]
    fn a_token_must_be_known_in_all_its_bytes() {
        let mut site = Site::new();
        let (token, _) = site.add(1);
        let tokens = site.open();
        assert_eq!(tokens.admit(&token), Ok(token.id()));
        for at in 0..24 {
            let mut bytes = *token.as_bytes();
            bytes[at] ^= 1;
            assert_eq!(tokens.admit(&Token::new(bytes)), Err(Refusal::TokenInvalid), "byte {at}");
        }
        let text = fs::read_to_string(site.path()).unwrap();
        assert!(!text.contains(&keys::to_hex(&token.as_bytes()[8..])), "the secret is not kept");
    }

    #[test]
    fn time_revocation_and_quota_are_told_apart() {
        let mut site = Site::new();
        let (old, entry) = site.add(1);
        entry.expires = Some(now() - 1);
        let (gone, entry) = site.add(2);
        entry.revoked = true;
        let (few, entry) = site.add(3);
        (entry.requests, entry.expires) = (Some(2), Some(now() + 1000));
        let (slow, entry) = site.add(4);
        entry.requests_hour = Some(2);
        let tokens = site.open();
        assert_eq!(tokens.admit(&old), Err(Refusal::TokenExpired));
        assert_eq!(tokens.pay(old.id()).err(), Some(Refusal::TokenExpired));
        assert_eq!(tokens.admit(&gone), Err(Refusal::TokenInvalid));
        assert_eq!(tokens.pay(TokenId([9; 8])).err(), Some(Refusal::TokenInvalid));
        // One that got no bundle costs nothing.
        drop(tokens.pay(few.id()).unwrap());
        let one = tokens.pay(few.id()).unwrap();
        let two = tokens.pay(few.id()).unwrap();
        let over = Refusal::TokenExhausted { retry_after_s: 0 };
        assert_eq!(tokens.pay(few.id()).err(), Some(over), "while both are under way");
        drop(one);
        two.used();
        tokens.pay(few.id()).unwrap().used();
        assert_eq!((tokens.pay(few.id()).err(), tokens.admit(&few)), (Some(over), Err(over)));
        drop(tokens.pay(slow.id()).unwrap());
        (0..2).for_each(|_| tokens.pay(slow.id()).unwrap().used());
        let Some(Refusal::TokenExhausted { retry_after_s }) = tokens.pay(slow.id()).err() else { panic!() };
        assert!((1790..=1801).contains(&retry_after_s), "{retry_after_s}");
        assert_eq!(tokens.admit(&slow), Ok(slow.id()), "a session may be opened meanwhile");
    }

    #[test]
    fn changes_are_seen_and_uses_are_kept() {
        let mut site = Site::new();
        let (token, entry) = site.add(1);
        entry.requests = Some(3);
        let tokens = site.open();
        (0..2).for_each(|_| tokens.pay(token.id()).unwrap().used());
        tokens.store();
        assert_eq!(used(site.folder.path()).get(&token.id().to_string()), Some(&2));
        let again = site.open();
        again.pay(token.id()).unwrap().used();
        assert!(again.pay(token.id()).is_err(), "two were used before");
        // More are granted, another is added, then the first is revoked.
        site.file.tokens[0].requests = Some(4);
        let (other, _) = site.add(2);
        site.file.save(&site.path()).unwrap();
        again.refresh();
        again.pay(token.id()).unwrap().used();
        assert_eq!(again.admit(&other), Ok(other.id()));
        site.file.tokens[0].revoked = true;
        site.file.save(&site.path()).unwrap();
        again.refresh();
        assert_eq!(again.pay(token.id()).err(), Some(Refusal::TokenInvalid));
        // What cannot be read changes nothing.
        fs::write(site.path(), "tokens = 3").unwrap();
        again.refresh();
        assert_eq!(again.admit(&other), Ok(other.id()));
        fs::remove_file(site.path()).unwrap();
        again.refresh();
        assert_eq!(again.admit(&other), Err(Refusal::TokenInvalid), "without the file there are none");
    }

    #[test]
    fn the_hour_goes_on_after_a_restart() {
        let mut site = Site::new();
        let (token, entry) = site.add(1);
        entry.requests_hour = Some(4);
        let tokens = site.open();
        (0..3).for_each(|_| tokens.pay(token.id()).unwrap().used());
        tokens.store();
        drop(tokens);
        let tokens = site.open();
        tokens.pay(token.id()).unwrap().used();
        let Some(Refusal::TokenExhausted { retry_after_s }) = tokens.pay(token.id()).err() else { panic!() };
        assert!((890..=901).contains(&retry_after_s), "{retry_after_s}");
        drop(tokens);
        let write = |text: String| fs::write(site.folder.path().join(USED), text).unwrap();
        let left = || {
            let tokens = site.open();
            (0..9).take_while(|_| tokens.pay(token.id()).map(Paid::used).is_ok()).count()
        };
        // Half an hour ago, an hour ago, in the future, by an earlier release, and what nobody wrote.
        let id = token.id();
        for (uses, expected) in [
            (format!("{id} 9 4 {}", now() - 1800), 2),
            (format!("{id} 9 4 {}", now() - 3600), 4),
            (format!("{id} 9 4 {}", now() + 9000), 0),
            (format!("{id} 9"), 4),
            (format!("{id} 9 {} {}", u32::MAX, u64::MAX), 0),
            (format!("{id} 9 {} 0", u32::MAX), 4),
            // More than the limit, which was lowered meanwhile.
            (format!("{id} 9 3600 {}", now() - 1800), 2),
            (format!("{id} 9 -1 0"), 4),
        ] {
            write(uses.clone());
            assert_eq!(left(), expected, "{uses}");
        }
    }

    #[test]
    fn a_limit_that_is_lowered_counts_at_once() {
        let mut site = Site::new();
        let (token, entry) = site.add(1);
        entry.requests_hour = Some(3600);
        let tokens = site.open();
        (0..3600).for_each(|_| tokens.pay(token.id()).unwrap().used());
        tokens.store();
        site.file.tokens[0].requests_hour = Some(60);
        site.file.save(&site.path()).unwrap();
        tokens.refresh();
        for tokens in [tokens, site.open()] {
            let Some(Refusal::TokenExhausted { retry_after_s }) = tokens.pay(token.id()).err() else {
                panic!()
            };
            assert!((50..=61).contains(&retry_after_s), "{retry_after_s}");
        }
    }

    #[test]
    fn what_is_given_back_is_stored() {
        let mut site = Site::new();
        let (token, entry) = site.add(1);
        (entry.requests, entry.requests_hour) = (Some(2), Some(2));
        let tokens = site.open();
        let stored = || used(site.folder.path()).get(&token.id().to_string()).copied();
        for (kept, expected) in [(false, None), (true, Some(1))] {
            if kept {
                tokens.pay(token.id()).unwrap().used();
            }
            let paid = tokens.pay(token.id()).unwrap();
            tokens.store();
            assert_eq!(stored(), Some(expected.unwrap_or(0) + 1));
            drop(paid);
            tokens.store();
            assert_eq!(stored(), expected);
        }
        // One is left, in all and of the hour.
        let tokens = site.open();
        tokens.pay(token.id()).unwrap().used();
        assert!(tokens.pay(token.id()).is_err());
    }

    #[test]
    fn mistakes_in_the_file_are_told() {
        let mut site = Site::new();
        site.add(1);
        site.add(1);
        let load = |file: &TokenFile| {
            file.save(&site.path()).unwrap();
            TokenFile::load(&site.path()).unwrap_err().to_string()
        };
        assert!(load(&site.file).contains("twice"));
        let mut file = site.file.clone();
        file.tokens[0].hash.pop();
        assert!(load(&file).contains("64 hexadecimal"));
        file.tokens[0].requests_hour = Some(0);
        assert!(load(&file).contains("requests_hour = 0"));
        file.tokens[0].id.push('0');
        assert!(load(&file).contains("is no token's"));
    }
}
