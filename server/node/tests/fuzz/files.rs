//! Files that a server or a tool reads: its operator's settings, deployment files, tokens and keys, and what it left in
//! its state folder itself. As they are, and with the checksums or signatures that belong to them, so that what is
//! behind those is reached too.

use std::fs;
use std::path::PathBuf;
use std::sync::LazyLock;

use ring::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use seco_core::{Refusal, ServerOpeningKey};
use seco_node::Config;
use seco_node::access::tokens::{self, TokenFile};
use seco_node::keys::{self, OwnerKey};
use seco_node::store::bundle_file::{self, Memory, Origin};
use seco_node::store::ledger::{FileLedger, Head, Heads};
use seco_node::store::peers::Peers;
use seco_node::untrusted;
use seco_protocol::{Bundle, BundleId, Ledger as _, MemorySpool, Spool as _, Use};
use seco_sdk::Deployment;
use sha2::{Digest as _, Sha256};

use crate::cluster;

thread_local! {
    /// A target has its thread. In memory where the system has a folder there: much here waits for the disk.
    static FOLDER: tempfile::TempDir =
        tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
}

/// Writes a file to the target's folder.
fn put(name: &str, bytes: &[u8]) -> PathBuf {
    let path = FOLDER.with(|folder| folder.path().join(name));
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    // With a mode that nobody has to be warned of.
    let _ = fs::remove_file(&path);
    seco_node::private::create(&path, bytes, seco_node::private::SECRET).unwrap();
    path
}

/// What is accepted is written and read again as the same.
pub fn settings(bytes: &[u8]) -> bool {
    let Ok(config) = Config::load(&put("server.toml", bytes)) else { return false };
    let again = put("again.toml", b"");
    config.save(&again).unwrap();
    assert_eq!(Config::load(&again).unwrap(), config);
    let _ = (config.all_models(), config.ledger_heads(&[1; 32]));
    true
}

pub fn all_settings() -> Vec<Vec<u8>> {
    let samples = [
        &include_bytes!("../../../data/sample-gateway.toml")[..],
        include_bytes!("../../../data/sample-remote.toml"),
        include_bytes!("../../../deploy/kubernetes/cell-a/gateway/server.toml"),
    ];
    samples.map(<[u8]>::to_vec).to_vec()
}

/// The owner of deployment files.
static OWNER: LazyLock<OwnerKey> =
    LazyLock::new(|| OwnerKey::load(&put("test.owner.key", "05".repeat(32).as_bytes())).unwrap());

fn deployment(serial: u64) -> String {
    let file = include_str!("corpus/deployment/good-0");
    format!("{file}\n[update]\nowner = \"{}\"\nserial = {serial}\n", keys::to_hex(&OWNER.public()))
}

fn signed(text: &str) -> String {
    Deployment::signed(text, |message| OWNER.sign(message))
}

/// The next deployment file as a gateway passes it on, and the same with its owner's signature.
pub fn update(bytes: &[u8]) -> bool {
    static PRESENT: LazyLock<Deployment> =
        LazyLock::new(|| Deployment::from_toml(&deployment(1 << 20)).unwrap());
    let Ok(text) = str::from_utf8(bytes) else { return false };
    let rest = text.split_once("\"\n").map_or(text, |(_, rest)| rest);
    let accepted = [text.to_owned(), signed(rest)].map(|text| match PRESENT.successor(&text) {
        Ok(next) => {
            let update = next.update.unwrap();
            assert!(next.is_signed(&text) && update.serial > 1 << 20 && update.owner == OWNER.public());
            true
        }
        Err(_) => false,
    });
    accepted.contains(&true)
}

pub fn updates() -> Vec<Vec<u8>> {
    vec![signed(&deployment(1 << 21)).into_bytes()]
}

/// The devices' tokens, as `seco token` writes them. What is accepted is written and read again as the same.
pub fn token_file(bytes: &[u8]) -> bool {
    let Ok(file) = TokenFile::load(&put("tokens.toml", bytes)) else { return false };
    let again = put("again.toml", b"");
    file.save(&again).unwrap();
    assert_eq!(TokenFile::load(&again).unwrap(), file);
    true
}

pub fn token_files() -> Vec<Vec<u8>> {
    let entry = |seed: u8| tokens::Entry {
        created: 1_700_000_000,
        expires: (seed > 1).then_some(1_800_000_000),
        requests: (seed > 1).then_some(1000),
        requests_hour: (seed > 1).then_some(60),
        revoked: seed > 2,
        ..tokens::Entry::new(&seco_core::Token::new([seed; 24]), format!("device {seed}"))
    };
    let file = TokenFile { tokens: (1..=3).map(entry).collect() };
    let path = put("sample.toml", b"");
    file.save(&path).unwrap();
    vec![fs::read(path).unwrap()]
}

/// What was used of the tokens, by a gateway that starts with it, takes a request with each, and ends. Nobody waits for
/// longer than an hour, and nothing that was used is forgotten.
pub fn tokens_used(bytes: &[u8]) -> bool {
    let state = put("used/tokens.used", bytes).parent().unwrap().to_owned();
    let before = tokens::used(&state);
    let limits = [None, Some(1), Some(60), Some(u32::MAX)];
    let token = |seed| seco_core::Token::new([seed; 24]);
    let entry = |(seed, requests_hour)| tokens::Entry {
        requests_hour,
        created: 0,
        ..tokens::Entry::new(&token(seed), String::new())
    };
    let file = put("tokens.toml", b"");
    TokenFile { tokens: (1..).zip(limits).map(entry).collect() }.save(&file).unwrap();
    let ids = [1, 2, 3, 4].map(|seed| token(seed).id());
    for (id, paid) in ids.iter().zip(untrusted::use_tokens(&file, &state, &ids).unwrap()) {
        let (id, after) = (id.to_string(), tokens::used(&state));
        let (before, after) = (before.get(&id).copied(), after.get(&id).copied());
        match paid {
            Ok(()) => assert_eq!(after, Some(before.unwrap_or(0).saturating_add(1))),
            Err(Refusal::TokenExhausted { retry_after_s }) => {
                assert!((1..=3601).contains(&retry_after_s) && after == before);
            }
            Err(other) => panic!("{other:?}"),
        }
    }
    let after = tokens::used(&state);
    assert!(before.iter().all(|(id, count)| after.get(id).is_some_and(|after| after >= count)));
    !before.is_empty()
}

/// As an earlier release wrote it; with what was used of an hour; and with more than any limit, by a clock that is ahead.
pub fn all_tokens_used() -> Vec<Vec<u8>> {
    let id = |seed: u8| format!("{seed:02x}").repeat(8);
    let files: [&[&str]; 3] = [
        &["17", "18446744073709551615"],
        &["17 0 1700000000", "18 1 1700000000", "2000 59 1700000000", "5 4 1700000000"],
        &[
            "18446744073709551615 4294967295 18446744073709551615",
            "3 1 4000000000",
            "3600 3600 4000000000",
            "9 4294967295 4000000000",
        ],
    ];
    let file =
        |lines: &[&str]| (1..).zip(lines).map(|(seed, line)| format!("{} {line}\n", id(seed))).collect();
    files.map(|lines| -> String { file(lines) }).map(String::into_bytes).to_vec()
}

/// Key files: whatever is in one, each of their readers may be given it.
pub fn key_files(bytes: &[u8]) -> bool {
    let path = put("s.key", bytes);
    let opening = keys::opening_key(&path).map(|key| keys::public_half(&key, &path).is_ok());
    let read = [
        keys::certificate(&path).is_ok(),
        keys::tls_key(&path).is_ok(),
        keys::sealing_key(&path).is_ok(),
        OwnerKey::load(&path).is_ok(),
        opening.unwrap_or_default(),
    ];
    read.contains(&true)
}

/// A certificate, and keys that nobody has a use for.
pub fn all_key_files() -> Vec<Vec<u8>> {
    // PKCS #8 of an Ed25519 key whose bytes are zero.
    let key = format!(
        "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEI{}\n-----END PRIVATE KEY-----\n",
        "A".repeat(43)
    );
    let pair = rcgen::KeyPair::from_pem(&key).unwrap();
    let parameters = rcgen::CertificateParams::new(vec![keys::TLS_NAME.to_owned()]).unwrap();
    let certificate = parameters.self_signed(&pair).unwrap().pem();
    let sealing = keys::to_hex(ServerOpeningKey::from_seed([1; 32]).sealing_key().unwrap().as_bytes());
    [certificate, key, sealing, "07".repeat(32)].map(String::into_bytes).to_vec()
}

/// What is known of the other servers' ledgers. A file that cannot be read says nothing of the one that is asked for.
pub fn peers(bytes: &[u8]) -> bool {
    let path = put("peers/peers", bytes);
    let peers = Peers::open(path.parent().unwrap()).unwrap();
    // It was set back, if anything was known.
    let known = peers.meet([3; 32], Head { count: 0, chain: [0; 32] }).is_err();
    peers.confirmed(|| vec![vec![[3; 32]], vec![[4; 32], [5; 32]]]);
    peers.flush().unwrap();
    let again = Peers::open(path.parent().unwrap()).unwrap();
    assert!(again.meet([3; 32], Head { count: 0, chain: [0; 32] }).is_err(), "what is written is read");
    known
}

pub fn all_peers() -> Vec<Vec<u8>> {
    let folder = tempfile::tempdir().unwrap();
    let peers = Peers::open(folder.path()).unwrap();
    for server in 3..6 {
        peers.meet([server; 32], Head { count: 5, chain: [server; 32] }).unwrap();
    }
    peers.confirmed(|| vec![vec![[4; 32]]]);
    peers.flush().unwrap();
    vec![fs::read(folder.path().join("peers")).unwrap()]
}

const HEADER: usize = 16;
const RECORD: usize = 65;
const CHECK: usize = 8;
const BASE: u8 = 1;
const SPENT: u8 = 3;

/// The same records with the checks that belong to them, and the head where they end.
fn resealed(ledger: &[u8]) -> (Vec<u8>, Option<Head>) {
    let mut ledger = ledger.to_vec();
    let mut head: Option<Head> = None;
    for record in ledger.get_mut(HEADER..).unwrap_or_default().chunks_exact_mut(RECORD) {
        let (content, check) = record.split_at_mut(RECORD - CHECK);
        let digest: [u8; 32] = match &mut head {
            Some(head) if content[0] == SPENT => {
                let chain = Sha256::new().chain_update(head.chain).chain_update(&*content).finalize().into();
                *head = Head { count: head.count.wrapping_add(1), chain };
                chain
            }
            _ => Sha256::digest(&*content).into(),
        };
        if head.is_none() && content[0] == BASE {
            let count = u64::from_le_bytes(content[1..9].try_into().unwrap());
            head = Some(Head { count, chain: content[9..41].try_into().unwrap() });
        }
        check.copy_from_slice(&digest[..CHECK]);
    }
    (ledger, head)
}

fn head_file(head: &Head) -> Vec<u8> {
    format!("seco ledger head v1\n{}\n{}\n", head.count, keys::to_hex(&head.chain)).into_bytes()
}

/// Opens a ledger; one that is accepted is gone on with, and holds what was added.
fn opens(ledger: &[u8], head: Option<&[u8]>) -> bool {
    let state = put("state/ledger", ledger).parent().unwrap().to_owned();
    let heads = match head {
        Some(head) => Heads::only(&put("keys/s.ledger.head", head)),
        None => {
            let heads = Heads::only(&put("keys/s.ledger.head", b""));
            fs::remove_file(&heads.own).unwrap();
            heads
        }
    };
    let Ok(ledger) = FileLedger::open(&state, &heads) else { return false };
    let (entries, bundle) = (ledger.entries(), BundleId([0xee; 16]));
    let usage = Use { session: [0xee; 16], incarnation: [0xee; 16], counter: 1 };
    // It may be there already.
    let spent = u64::from(ledger.spend(&bundle, &usage).is_ok());
    ledger.record_head().unwrap();
    drop(ledger);
    let ledger = FileLedger::open(&state, &heads).unwrap();
    assert_eq!(Some(ledger.entries()), entries.checked_add(spent));
    assert!(spent == 0 || !ledger.may_use(&bundle, &ledger.era()));
    true
}

/// A ledger with a head that it reaches: with the checks as they are, and with those that belong to it.
pub fn ledger(bytes: &[u8]) -> bool {
    let head = LEDGER.1.as_slice();
    // One of the first release has none.
    let plain = opens(bytes, (!bytes.starts_with(b"seco ledger v1")).then_some(head));
    let (resealed, end) = resealed(bytes);
    opens(&resealed, Some(&end.map_or_else(|| head.to_vec(), |end| head_file(&end)))) || plain
}

/// A ledger and the file of its head.
static LEDGER: LazyLock<(Vec<u8>, Vec<u8>)> = LazyLock::new(|| {
    let record = |kind: u8, bytes: &[u8]| {
        let mut record = [0; RECORD];
        record[0] = kind;
        record[1..=bytes.len()].copy_from_slice(bytes);
        record
    };
    const SESSION: u8 = 2;
    const READY: u8 = 4;
    let numbers = [2u64, 1].map(u64::to_le_bytes).concat();
    let base = record(BASE, &[&70u64.to_le_bytes()[..], &[9; 32], &numbers].concat());
    let spends = (1..4u8)
        .map(|i| record(SPENT, &[&[i; 16][..], &[i; 16], &[i; 16], &[i, 0, 0, 0, 0, 0, 0, 0]].concat()));
    let known = [record(SESSION, &[1; 16]), record(SESSION, &[8; 16]), record(READY, &[2; 16])];
    let records: Vec<_> = [base].into_iter().chain(known).chain(spends).collect();
    let (ledger, head) = resealed(&[b"seco ledger v3\n\0", records.concat().as_slice()].concat());
    (ledger, head_file(&head.unwrap()))
});

/// One of every version.
pub fn ledgers() -> Vec<Vec<u8>> {
    let mut second = LEDGER.0.clone();
    second[..HEADER].copy_from_slice(b"seco ledger v2\n\0");
    // Without bundles that are ready.
    second.drain(HEADER + 3 * RECORD..HEADER + 4 * RECORD);
    second[HEADER + 49] = 0;
    let first = [[1; 41], [2; 41]].map(|content| [&content[..], &Sha256::digest(content)[..CHECK]].concat());
    let first = [b"seco ledger v1\n\0", first.concat().as_slice()].concat();
    vec![LEDGER.0.clone(), resealed(&second).0, first]
}

/// Where a ledger ends.
pub fn ledger_head(bytes: &[u8]) -> bool {
    opens(&LEDGER.0, Some(bytes))
}

pub fn ledger_heads() -> Vec<Vec<u8>> {
    vec![LEDGER.1.clone()]
}

const BUNDLE: BundleId = BundleId([7; 16]);
const ORIGIN: Origin = Origin { context: [1; 32], era: [2; 32], version: 7 };
const KEY: [u8; 32] = [3; 32];

/// A bundle's file: its materials and what is encoded, as the index says, which is given as it is.
fn sealed_file(index: &[u8], mut body: &[u8]) -> Vec<u8> {
    let start = b"SECO stored\0\0\0\0\x02";
    let version = ORIGIN.version.to_le_bytes();
    let key = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &KEY).unwrap());
    let bound = Sha256::new().chain_update(start).chain_update(ORIGIN.context).chain_update(ORIGIN.era);
    let bound: [u8; 32] = bound.chain_update(version).chain_update(BUNDLE.0).finalize().into();
    let mut file = [&start[..], &KEY, &ORIGIN.context, &ORIGIN.era, &version].concat();
    let mut number = 0;
    let seal = |file: &mut Vec<u8>, number: u64, bytes: &[u8]| {
        let mut nonce = [0; 12];
        nonce[..8].copy_from_slice(&number.to_le_bytes());
        let mut bytes = bytes.to_vec();
        key.seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), Aad::from(&bound), &mut bytes)
            .unwrap();
        file.extend(bytes);
    };
    let words: Vec<u64> = index.as_chunks().0.iter().map(|word| u64::from_le_bytes(*word)).collect();
    let sizes = words.get(1..).unwrap_or_default();
    for (at, size) in sizes.iter().enumerate() {
        let bytes = if at + 1 < sizes.len() { size.saturating_mul(16) } else { *size };
        let (chunk, rest) = body.split_at(body.len().min(usize::try_from(bytes).unwrap()));
        body = rest;
        // None for no bytes.
        if !chunk.is_empty() {
            seal(&mut file, number, chunk);
            number += 1;
        }
    }
    file.extend_from_slice(body);
    if !index.is_empty() {
        seal(&mut file, 1 << 63, index);
    }
    file.extend((index.len() as u64).to_le_bytes());
    file
}

/// A bundle's file: with an even first byte it is the rest, else the rest is what it holds: bytes of the index, the
/// index, materials and what is encoded.
pub fn bundle_file(bytes: &[u8]) -> bool {
    let file = match bytes {
        [mode, file @ ..] if mode.is_multiple_of(2) => file.to_vec(),
        [_, length, rest @ ..] => {
            let (index, body) = rest.split_at(rest.len().min(usize::from(*length)));
            sealed_file(index, body)
        }
        _ => return false,
    };
    let path = put("07070707070707070707070707070707.bundle", &file);
    let whole = bundle_file::origin(&path);
    let opened = bundle_file::open(&path, BUNDLE, &ORIGIN, &Memory::new(0));
    let Ok((_, mut spool)) = opened else { return false };
    assert_eq!(whole, Some((ORIGIN, file.len() as u64)));
    // To its end, or to what is wrong.
    while spool.take().is_ok() {}
    bundle_file::erase(&path).unwrap();
    true
}

pub fn bundle_files() -> Vec<Vec<u8>> {
    let index = [3u64, 2, 0, 5, 40].map(u64::to_le_bytes).concat();
    let body: Vec<u8> = (0..7 * 16 + 40).collect();
    let file = sealed_file(&index, &body);
    vec![[&[0], file.as_slice()].concat(), [&[1, index.len() as u8], index.as_slice(), &body].concat()]
}

/// What is encoded in a bundle's file, on the server that the first byte says. What is accepted is that bundle.
pub fn bundle(bytes: &[u8]) -> bool {
    let Some((server, encoded)) = bytes.split_first() else { return false };
    let planned = cluster::planned_part(usize::from(server % 3));
    match Bundle::decode(encoded, planned, Box::new(MemorySpool::default())) {
        Ok(bundle) => {
            assert!(*bundle.encode() == encoded);
            true
        }
        Err(_) => false,
    }
}

pub fn bundles() -> Vec<Vec<u8>> {
    let encoded = cluster::stored().iter().map(|stored| stored.encoded.clone());
    (0..).zip(encoded).map(|(server, encoded)| [&[server], encoded.as_slice()].concat()).collect()
}
