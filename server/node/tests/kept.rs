//! Files that earlier releases wrote, kept as they were: each is read as what it is, or refused as such. In `kept`, a folder
//! for each kind and in it a file for each version of the format, or the release where it has no number. Whoever changes a format
//! adds a file of the new version here and leaves the old ones. (Stored sessions of devices: `sdk/core/tests/vectors`.)
#![allow(clippy::unwrap_used, clippy::panic)]

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use seco_core::ModelId;
use seco_model::PartyModel;
use seco_node::access::tokens::{self, TokenFile};
use seco_node::config::Config;
use seco_node::keys;
use seco_node::store::bundle_file::{self, Memory, Origin};
use seco_node::store::ledger::{FileLedger, Head, Heads};
use seco_node::store::peers::Peers;
use seco_protocol::{Bundle, BundleId, Ledger as _, MemorySpool, PlannedModel, Spool as _, Use};
use seco_sdk::Deployment;

/// The versions that there are of a kind, in order.
fn versions(kind: &str) -> Vec<String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/kept").join(kind);
    let mut names: Vec<String> = (fs::read_dir(folder).unwrap())
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

fn kept(kind: &str, name: &str) -> Vec<u8> {
    fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/kept").join(kind).join(name)).unwrap()
}

/// A copy: what is read may be closed to others, rewritten or destroyed.
fn copy(kind: &str, name: &str, to: &Path) -> PathBuf {
    fs::create_dir_all(to.parent().unwrap()).unwrap();
    fs::write(to, kept(kind, name)).unwrap();
    to.to_owned()
}

#[test]
fn ledgers() {
    let id = |n: u8| BundleId([n; 16]);
    let all = versions("ledger");
    assert_eq!(all, ["v1", "v2", "v3"]);
    for version in &all {
        let folder = tempfile::tempdir().unwrap();
        let heads = Heads::only(&folder.path().join("s.ledger.head"));
        let state = folder.path().join("state");
        copy("ledger", version, &state.join("ledger"));
        // The first release had no heads.
        let numbered = version != "v1";
        if numbered {
            copy("ledger_head", "v1", &heads.own);
        }
        let open = || FileLedger::open(&state, &heads).unwrap();
        let check = |ledger: &FileLedger, entries: u64| {
            assert_eq!(ledger.entries(), entries, "{version}");
            // Sessions and bundles that were used are not used again, whoever wrote that they were.
            match numbered {
                true => {
                    assert!([1, 2, 3, 8].iter().all(|&n| ledger.knows(&[n; 16])), "{version}");
                    assert!((1..=3).all(|n| !ledger.may_use(&id(n), &ledger.era())), "{version}");
                    assert!(ledger.may_use(&id(9), &ledger.era()), "{version}");
                }
                false => assert!(ledger.knows(&[1; 16]) && ledger.knows(&[2; 16])),
            }
            assert!(!ledger.knows(&[7; 16]), "{version}");
        };
        let (ledger, entries) = (open(), if numbered { 73 } else { 0 });
        check(&ledger, entries);
        let usage = Use { session: [6; 16], incarnation: [6; 16], counter: 1 };
        ledger.spend(&id(0x66), &usage).unwrap();
        ledger.record_head().unwrap();
        drop(ledger);
        // It is gone on with, and forgets nothing.
        let ledger = open();
        check(&ledger, entries + 1);
        assert!(ledger.knows(&[6; 16]) && ledger.spend(&id(0x66), &usage).is_err(), "{version}");
    }
}

#[test]
fn parts_and_what_bundles_hold() {
    assert_eq!(versions("part"), ["v3-server-0", "v3-server-1", "v3-server-2"]);
    assert_eq!(versions("bundle"), versions("part"));
    let mut ids = Vec::new();
    for (index, name) in versions("part").iter().enumerate() {
        let part = PartyModel::from_bytes(&kept("part", name)).unwrap();
        assert!(*part.to_bytes().unwrap() == kept("part", name), "{name}");
        assert_eq!(part.index(), index);
        ids.push(keys::to_hex(part.id()));
        let planned = PlannedModel::new(Arc::new(part)).unwrap();
        let bytes = kept("bundle", name);
        let bundle = Bundle::decode(&bytes, &planned, Box::new(MemorySpool::default())).unwrap();
        assert!(*bundle.encode() == bytes, "{name}");
    }
    // Devices and ledgers' heads know a model by its id, so that it has to stay what it is.
    assert_eq!(ids, vec![MODEL; 3]);
}

const MODEL: &str = "1c8f1587c4d9093b46ce6c9d4941f9295a5fdfc982901743116a0de664549d53";

/// Files of bundles: those of the present version are read, and of others the key is destroyed with the file.
#[test]
fn files_of_bundles() {
    let id = BundleId([7; 16]);
    let all = versions("bundle_file");
    assert_eq!(all, ["v1", "v2"]);
    for version in &all {
        let folder = tempfile::tempdir().unwrap();
        let path =
            copy("bundle_file", version, &folder.path().join("07070707070707070707070707070707.bundle"));
        let origin = Origin { context: [1; 32], era: [2; 32], version: 7 };
        let opened = bundle_file::open(&path, id, &origin, &Memory::new(0));
        match version.as_str() {
            "v2" => {
                let length = kept("bundle_file", version).len() as u64;
                assert_eq!(bundle_file::origin(&path), Some((origin, length)));
                let (encoded, mut spool) = opened.unwrap();
                let sizes = [2, 0, 5].map(|blocks| {
                    let material = spool.take().unwrap();
                    assert_eq!(material.bytes().len(), 16 * blocks);
                    material.bytes().to_vec()
                });
                let body: Vec<u8> = (0..7 * 16 + 40).collect();
                assert_eq!([sizes.concat().as_slice(), &encoded].concat(), body);
            }
            _ => assert!(bundle_file::origin(&path).is_none() && opened.is_err(), "{version}"),
        }
        // Another name for the same blocks.
        let seen = folder.path().join("seen");
        fs::hard_link(&path, &seen).unwrap();
        bundle_file::erase(&path).unwrap();
        assert!(!path.exists());
        assert_eq!(fs::read(seen).unwrap()[16..48], [0; 32], "{version}: its key");
    }
}

#[test]
fn deployment_files() {
    assert_eq!(versions("deployment"), [format!("v{}.toml", Deployment::VERSION)]);
    let text = String::from_utf8(kept("deployment", "v3.toml")).unwrap();
    let read = Deployment::from_toml(&text).unwrap();
    assert_eq!((read.gateway.address.as_str(), read.gateway.pins.len()), ("192.0.2.7:4433", 1));
    assert_eq!((read.model.id, read.model.output_width), (ModelId([7; 32]), 22));
}

#[test]
fn settings() {
    for name in versions("settings") {
        let folder = tempfile::tempdir().unwrap();
        let config = Config::load(&copy("settings", &name, &folder.path().join("server.toml"))).unwrap();
        assert_eq!((config.index == 0, config.servers()), (name.contains("gateway"), 3), "{name}");
    }
}

#[test]
fn tokens_and_what_was_used() {
    let folder = tempfile::tempdir().unwrap();
    let file = TokenFile::load(&copy("tokens", "0.1.0.toml", &folder.path().join("tokens.toml"))).unwrap();
    let token = seco_core::Token::new([2; 24]);
    let entry = tokens::Entry {
        created: 1_700_000_000,
        expires: Some(1_800_000_000),
        requests: Some(1000),
        requests_hour: Some(60),
        ..tokens::Entry::new(&token, "device 2".to_owned())
    };
    assert_eq!((file.tokens.len(), &file.tokens[1]), (3, &entry));
    for name in versions("tokens_used") {
        copy("tokens_used", &name, &folder.path().join("tokens.used"));
        assert_eq!(tokens::used(folder.path()).get(&"01".repeat(8)), Some(&17), "{name}");
    }
}

#[test]
fn what_is_known_of_other_ledgers() {
    let folder = tempfile::tempdir().unwrap();
    copy("peers", "v1", &folder.path().join("peers"));
    let peers = Peers::open(folder.path()).unwrap();
    for server in 3..6 {
        assert!(peers.meet([server; 32], Head { count: 0, chain: [0; 32] }).is_err(), "it was set back");
    }
    assert!(peers.meet([6; 32], Head { count: 0, chain: [0; 32] }).is_ok());
}

#[test]
fn key_files() {
    let folder = tempfile::tempdir().unwrap();
    let [certificate, key, opening, sealing] = ["s.cert.pem", "s.key.pem", "s.opening.key", "s.sealing.pub"]
        .map(|name| copy("keys", name, &folder.path().join(name)));
    let (certificate, key) = (keys::certificate(&certificate).unwrap(), keys::tls_key(&key).unwrap());
    // Refuses a key that is another certificate's.
    seco_node::mesh::tls::client_tls(&certificate, &key, Vec::new()).unwrap();
    let opened = keys::opening_key(&opening).unwrap().sealing_key().unwrap();
    assert_eq!(opened.as_bytes(), keys::sealing_key(&sealing).unwrap().as_bytes());
}
