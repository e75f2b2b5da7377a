//! Bundles as data: stored, carried over a restart and into a cluster that was set up anew; damaged ones are refused.
#![allow(clippy::unwrap_used)]

#[path = "bundles/at_once.rs"]
mod at_once;
mod common;

use common::{LIMIT, all, bundle_id, cluster, infer, input, model, plain, seed, session, usage};
use seco_model::paper_placements;
use seco_protocol::{Bundle, Error, InsecureMemoryLedger, MemorySpool, Party, Spool, memory};

/// One bundle on every server, as bytes and the spool with its tables.
fn encoded(parties: &[Party], number: u64) -> Vec<(Vec<u8>, Box<dyn Spool>)> {
    let (servers, index) = (parties.len(), parties[0].next_bundle());
    let lanes = memory::network(servers, LIMIT).into_iter().zip(memory::network(servers, LIMIT));
    all(parties.iter().zip(lanes).collect(), |i, (party, (mut a, mut b))| {
        let spool = Box::new(MemorySpool::default());
        let bundle =
            party.preprocess(bundle_id(number), index, &mut a, &mut b, seed(number, i), spool).unwrap();
        (bundle.encode().to_vec(), bundle.into_spool())
    })
}

#[test]
fn a_bundle_outlives_its_cluster() {
    let models = [model(1), common::graphs::random(5, 17), common::graphs::random(9, 13)];
    for (model, servers) in models.iter().flat_map(|model| (2..=4).map(move |servers| (model, servers))) {
        let placements = paper_placements(model.layers.len(), servers, 1);
        let make = || cluster(model, servers, &placements, 3);
        let stored = encoded(&make(), 7);
        // Keys, extensions and connections are gone; the model files are the same.
        let parties = make();
        let ledger = InsecureMemoryLedger::default;
        let spent = parties.iter().zip(stored).map(|(party, (bytes, spool))| {
            let bundle = Bundle::decode(&bytes, party.planned(), spool).unwrap();
            assert_eq!(bundle.id(), bundle_id(7));
            bundle.spend(&ledger(), &usage(9, 4)).unwrap()
        });
        let x = input(model, 5);
        let (logits, _) = infer(&parties, spent.collect(), &session(servers, 7), 4, &x);
        assert_eq!(logits, plain(model, &x), "{} of {servers}", model.graph.nodes.len());
    }
}

#[test]
fn damaged_bundles_are_refused() {
    let model = model(1);
    let placements = paper_placements(model.layers.len(), 3, 1);
    let parties = cluster(&model, 3, &placements, 3);
    let stored = encoded(&parties, 1);
    let decode = |bytes: &[u8], party: &Party| {
        Bundle::decode(bytes, party.planned(), Box::new(MemorySpool::default())).map(|_| ())
    };
    for (party, (bytes, _)) in parties.iter().zip(&stored) {
        decode(bytes, party).unwrap();
        for length in [0, 1, 15, 16, 31, 63, 64, 79, 80, bytes.len() / 2, bytes.len() - 1] {
            assert!(matches!(decode(&bytes[..length], party), Err(Error::Bundle(_))), "{length} bytes");
        }
        assert!(matches!(decode(&[&bytes[..], &[0]].concat(), party), Err(Error::Bundle(_))), "longer");
        for place in [0, 15, 32, 63, 64, 65] {
            let mut changed = bytes.clone();
            changed[place] ^= 1;
            assert!(matches!(decode(&changed, party), Err(Error::Bundle(_))), "byte {place} changed");
        }
        for noise in [vec![0; bytes.len()], vec![0xff; bytes.len()], vec![7; 3]] {
            assert!(matches!(decode(&noise, party), Err(Error::Bundle(_))));
        }
    }
    // Another server's, and another split's.
    assert!(decode(&stored[1].0, &parties[0]).is_err());
    let other = cluster(&model, 3, &placements, 4);
    assert!(matches!(decode(&stored[0].0, &other[0]), Err(Error::Bundle(_))));
}
