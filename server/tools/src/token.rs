//! `seco token`: who may use a gateway. Adds, lists and revokes in the file that its settings name; a running gateway
//! reads it again within a second.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::Duration;

use seco_core::{Token, TokenId, token};
use seco_node::access::tokens::{self, Entry, MAX_LABEL, MAX_TOKENS, TokenFile};
use seco_node::{Config, keys, private};
use zeroize::Zeroizing;

use crate::{Error, terminal};

/// What `seco token` is asked for.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// The gateway's settings, with `[access] tokens`.
    #[arg(long, value_name = "FILE", global = true, required = false)]
    config: Option<PathBuf>,
    /// Prints JSON.
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    order: Order,
}

#[derive(Clone, Debug, clap::Subcommand)]
enum Order {
    /// Make a token. It is printed once, and cannot be shown again.
    Add {
        /// For whom or what; for you alone.
        #[arg(long, default_value = "")]
        label: String,
        /// When it ends: so many seconds, minutes, hours or days from now (90s, 30m, 12h, 30d). Without it, never.
        #[arg(long, value_name = "TIME", value_parser = duration)]
        expires: Option<Duration>,
        /// Requests that it is good for in all. Without it, any number.
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
        requests: Option<u64>,
        /// Requests in an hour. Without it, any number.
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
        requests_hour: Option<u32>,
        /// Writes it to a new file that only you can read, instead of printing it.
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
    },
    /// Show all tokens, without their secrets, and what was used of them.
    List,
    /// Take tokens no more, at once: requests of connections that showed them are refused.
    Revoke {
        /// Their names, from `seco token list`; or whole tokens.
        #[arg(required = true, value_name = "ID")]
        ids: Vec<String>,
    },
}

/// Does it and prints the result.
pub fn run(options: &Options) -> Result<(), Error> {
    let path = options.config.as_deref().ok_or_else(|| Error::Usage("give --config FILE".to_owned()))?;
    let config = Config::load(path)?;
    let access = config.access.as_ref().ok_or_else(|| {
        let what = "has no tokens: give the gateway's settings an [access] tokens = \"tokens.toml\"";
        Error::Usage(format!("{}: {what}", path.display()))
    })?;
    let told = match &options.order {
        Order::Add { label, expires, requests, requests_hour, out } => {
            check_label(label)?;
            let new = random()?;
            let entry = Entry {
                expires: expires.map(|time| tokens::now().saturating_add(time.as_secs())),
                requests: *requests,
                requests_hour: *requests_hour,
                ..Entry::new(&new, label.clone())
            };
            let shown = text(&new);
            // First, for a token that is nowhere written down is of no use to anybody.
            if let Some(out) = out {
                write(out, &shown)?;
            }
            insert(&access.tokens, entry)?;
            let id = new.id();
            match (out, options.json) {
                (Some(out), true) => serde_json::json!({ "id": id.to_string(), "file": out }).to_string(),
                (Some(out), false) => format!("{id}: written to {}", out.display()),
                (None, true) => serde_json::json!({ "id": id.to_string(), "token": *shown }).to_string(),
                (None, false) => shown.to_string(),
            }
        }
        Order::List => {
            let file = TokenFile::load(&access.tokens)?;
            let used = tokens::used(&config.state);
            if options.json { json(&file, &used) } else { table(&file, &used) }
        }
        Order::Revoke { ids } => {
            let ids = ids.iter().map(|id| name(id)).collect::<Result<Vec<_>, _>>()?;
            change(&access.tokens, |file| {
                for id in &ids {
                    let found = file.tokens.iter_mut().find(|entry| entry.name() == Some(*id));
                    found.ok_or_else(|| Error::Usage(format!("{id}: there is no such token")))?.revoked =
                        true;
                }
                Ok(())
            })?;
            let ids: Vec<String> = ids.iter().map(ToString::to_string).collect();
            match options.json {
                true => serde_json::json!({ "revoked": ids }).to_string(),
                false => format!("revoked: {}", ids.join(", ")),
            }
        }
    };
    terminal::print(&told);
    Ok(())
}

/// Makes a token without limits in the file `tokens`, and writes it to the new file `out`.
pub fn add(tokens: &Path, out: &Path, label: &str) -> Result<(), Error> {
    let new = random()?;
    write(out, &text(&new))?;
    insert(tokens, Entry::new(&new, label.to_owned()))
}

fn random() -> Result<Token, Error> {
    let mut secret = Zeroizing::new([0; token::TOKEN_LEN]);
    keys::random(secret.as_mut_slice())?;
    Ok(Token::new(*secret))
}

/// As people pass it on.
fn text(token: &Token) -> Zeroizing<String> {
    let digits = Zeroizing::new(keys::to_hex(token.as_bytes()));
    Zeroizing::new(format!("{}{}", token::PREFIX, *digits))
}

fn write(out: &Path, text: &str) -> Result<(), Error> {
    Ok(private::create(out, Zeroizing::new(format!("{text}\n")).as_bytes(), private::SECRET)?)
}

fn insert(tokens: &Path, entry: Entry) -> Result<(), Error> {
    change(tokens, |file| {
        if file.tokens.len() >= MAX_TOKENS {
            return Err(Error::Usage(format!("there are {MAX_TOKENS} tokens already")));
        }
        file.tokens.push(entry);
        Ok(())
    })
}

/// Reads a device's token from a file, which `seco token add --out` wrote.
pub fn read(path: &Path) -> Result<Token, Error> {
    let text = Zeroizing::new(std::fs::read_to_string(path).map_err(|e| Error::read(path, e))?);
    text.parse().map_err(|e| Error::Usage(format!("{}: {e}", path.display())))
}

/// Changes the file under a lock, so that of two commands at the same time none undoes the other.
fn change(path: &Path, change: impl FnOnce(&mut TokenFile) -> Result<(), Error>) -> Result<(), Error> {
    let mut lock = path.as_os_str().to_owned();
    lock.push(".lock");
    let lock = PathBuf::from(lock);
    let held = private::options().write(true).create(true).truncate(false).open(&lock);
    let held: File = held.map_err(|e| Error::write(&lock, e))?;
    held.lock().map_err(|e| Error::write(&lock, e))?;
    let mut file = TokenFile::load(path)?;
    change(&mut file)?;
    let owner = owner(path);
    file.save(path)?;
    give(path, owner)
}

/// Whose the file is, or will be: a gateway need not be the user who makes tokens.
fn owner(path: &Path) -> Option<(u32, u32)> {
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt as _;
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let found = std::fs::metadata(path).or_else(|_| std::fs::metadata(folder)).ok()?;
        Some((found.uid(), found.gid()))
    }
    #[cfg(not(unix))]
    None
}

/// Leaves the file with its owner, who could not read it any more otherwise.
fn give(path: &Path, owner: Option<(u32, u32)>) -> Result<(), Error> {
    #[cfg(unix)]
    if let Some((user, group)) = owner
        && self::owner(path) != Some((user, group))
    {
        std::os::unix::fs::chown(path, Some(user), Some(group)).map_err(|e| {
            let shown = path.display();
            Error::Failed(format!(
                "{shown}: was changed, but cannot be given back to its owner ({e}): run this as that user or as root"
            ))
        })?;
    }
    #[cfg(not(unix))]
    let _ = (path, owner);
    Ok(())
}

/// A token's name, or that of a whole one.
fn name(text: &str) -> Result<TokenId, Error> {
    if let Ok(token) = text.parse::<Token>() {
        return Ok(token.id());
    }
    let mut id = TokenId([0; 8]);
    let read = keys::from_hex(text, &mut id.0);
    // Not shown: it may be a secret that was not copied whole.
    read.map(|()| id).ok_or_else(|| Error::Usage("a token's name has 16 hexadecimal digits".to_owned()))
}

fn check_label(label: &str) -> Result<(), Error> {
    if label.chars().count() > MAX_LABEL || label.chars().any(char::is_control) {
        return Err(Error::Usage(format!("--label is one line of at most {MAX_LABEL} characters")));
    }
    Ok(())
}

fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || "such as 90s, 30m, 12h or 30d".to_owned();
    let unit = match text.chars().last() {
        Some('s') => 1,
        Some('m') => 60,
        Some('h') => 3600,
        Some('d') => 86_400,
        _ => return Err(wrong()),
    };
    let count: u64 = text[..text.len() - 1].parse().map_err(|_| wrong())?;
    count.checked_mul(unit).filter(|time| *time > 0).map(Duration::from_secs).ok_or_else(wrong)
}

fn state(entry: &Entry, used: u64) -> &'static str {
    if entry.revoked {
        "revoked"
    } else if entry.expires.is_some_and(|expires| tokens::now() >= expires) {
        "expired"
    } else if entry.requests.is_some_and(|limit| used >= limit) {
        "used up"
    } else {
        "valid"
    }
}

fn json(file: &TokenFile, used: &HashMap<String, u64>) -> String {
    let each = file.tokens.iter().map(|entry| {
        let used = used.get(&entry.id).copied().unwrap_or(0);
        serde_json::json!({
            "id": entry.id, "label": entry.label, "state": state(entry, used), "created": entry.created,
            "expires": entry.expires, "requests": entry.requests, "requests_hour": entry.requests_hour, "used": used,
        })
    });
    serde_json::json!({ "tokens": each.collect::<Vec<_>>() }).to_string()
}

fn table(file: &TokenFile, used: &HashMap<String, u64>) -> String {
    let mut text = format!(
        "{:<16}  {:<8}  {:>10}  {:>10}  {:>8}  {:<9}  label",
        "id", "state", "used", "of", "an hour", "ends in"
    );
    let number = |limit: Option<u64>| limit.map_or_else(|| "-".to_owned(), |limit| limit.to_string());
    for entry in &file.tokens {
        let used = used.get(&entry.id).copied().unwrap_or(0);
        let left = entry.expires.map(|expires| expires.saturating_sub(tokens::now()));
        let left = left.map_or_else(|| "never".to_owned(), ends);
        let (of, hour) = (number(entry.requests), number(entry.requests_hour.map(u64::from)));
        // Writing to a string does not fail.
        let _ = write!(
            text,
            "\n{:<16}  {:<8}  {used:>10}  {of:>10}  {hour:>8}  {left:<9}  {}",
            entry.id,
            state(entry, used),
            entry.label
        );
    }
    text
}

/// Time that is left, in its largest unit.
fn ends(seconds: u64) -> String {
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7200 => format!("{} min", seconds / 60),
        7200..172_800 => format!("{} h", seconds / 3600),
        _ => format!("{} d", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times() {
        let seconds = |text| duration(text).map(|time| time.as_secs());
        assert_eq!(["90s", "30m", "12h", "30d"].map(seconds), [Ok(90), Ok(1800), Ok(43_200), Ok(2_592_000)]);
        for wrong in ["", "d", "3", "-1d", "0s", "1.5h", "1y", "99999999999999999999d", "3\u{e9}"] {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
        assert_eq!([0, 119, 120, 7200, 172_800].map(ends), ["0 s", "119 s", "2 min", "2 h", "2 d"]);
    }

    #[test]
    fn names() {
        let whole = format!("{}{}", token::PREFIX, "0a".repeat(24));
        assert_eq!(name(&whole).unwrap(), TokenId([10; 8]));
        assert_eq!(name(&"0a".repeat(8)).unwrap(), TokenId([10; 8]));
        let told = name(&whole[..40]).unwrap_err().to_string();
        assert!(!told.contains("0a0a"), "{told}");
    }
}
