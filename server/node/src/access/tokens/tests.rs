//! Files of tokens, and what is paid with them.

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
    // Who merely looks takes nothing.
    assert!((0..9).all(|_| tokens.may_pay(slow.id())));
    assert!(![few.id(), old.id(), TokenId([9; 8])].map(|id| tokens.may_pay(id)).contains(&true));
    (0..2).for_each(|_| tokens.pay(slow.id()).unwrap().used());
    assert!(!tokens.may_pay(slow.id()));
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
        let Some(Refusal::TokenExhausted { retry_after_s }) = tokens.pay(token.id()).err() else { panic!() };
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
