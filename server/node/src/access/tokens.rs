//! Tokens of devices at the gateway: who may open sessions, for how long, and for how many requests.
//!
//! `seco token` writes them to a file, which has their hashes alone, and the gateway reads it again whenever it has
//! changed. What was used, in all and of the present hour, is counted in memory and written to the state directory every
//! few seconds and at the end: a gateway that is killed forgives the requests of the last seconds. A token counts on the
//! gateway only; the other servers never see one.

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
        let now = Instant::now();
        known.may_pay(now)?;
        // There is one, as was just found.
        let _ = known.hour.take(known.hour_limit(), HOUR, now);
        // The file may say anything.
        known.used = known.used.saturating_add(1);
        state.dirty = true;
        Ok(Paid { tokens: self.clone(), id, spent: false })
    }

    /// Whether a request would be counted now. None is.
    pub fn may_pay(&self, id: TokenId) -> bool {
        self.state().tokens.get_mut(&id).is_some_and(|known| known.may_pay(Instant::now()).is_ok())
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

    /// Whether it is good for a request now.
    fn may_pay(&mut self, now: Instant) -> Result<(), Refusal> {
        self.entry.check()?;
        self.left()?;
        self.hour.has(self.hour_limit(), HOUR, now).map_err(|pause| Refusal::TokenExhausted {
            retry_after_s: u32::try_from(pause.as_secs()).unwrap_or(u32::MAX).saturating_add(1),
        })
    }

    fn hour_limit(&self) -> usize {
        self.entry.requests_hour.map_or(0, |limit| limit as usize)
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
mod tests;
