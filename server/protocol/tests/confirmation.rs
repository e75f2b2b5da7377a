//! No server lets out a word that depends on an input before all have confirmed that they spent the bundle
//! for this very request.
#![allow(clippy::unwrap_used)]

mod common;

use std::time::Duration;

use common::{Messages, Refusing, Tap, all, bundle_id, cluster, input, model, seed, session, usage};
use seco_model::paper_placements;
use seco_protocol::{BundleId, Error, InsecureMemoryLedger, Ledger, MemorySpool, Party, Use, memory};
use sha2::{Digest as _, Sha256};

const SHORT: Duration = Duration::from_millis(300);
const SERVERS: usize = 3;

/// What a server says of a bundle spent for a request: nothing but what all know.
fn confirmation(bundle: &BundleId, request: &Use) -> Vec<u8> {
    Sha256::new()
        .chain_update(b"seco spent v1")
        .chain_update(bundle.0)
        .chain_update(request.session)
        .chain_update(request.incarnation)
        .chain_update(request.counter.to_le_bytes())
        .finalize()
        .to_vec()
}

/// What every server sent online, and how it ended, where server `odd` spends bundle `number` for `other`
/// instead, or is refused by its ledger if that is `None`.
fn attempt(
    parties: &[Party],
    number: u64,
    odd: usize,
    other: Option<Use>,
    x: &[u8],
) -> Vec<(Messages, Error)> {
    let keys = session(SERVERS, 1);
    let mut masked = x.to_vec();
    for key in &keys {
        key.apply_input_pad(number, &mut masked).unwrap();
    }
    let lanes: Vec<_> = memory::network(SERVERS, common::LIMIT)
        .into_iter()
        .zip(memory::network(SERVERS, common::LIMIT))
        .collect();
    let index = parties[0].next_bundle();
    let bundles = all(parties.iter().zip(lanes).collect(), |i, (party, (mut a, mut b))| {
        let spool = Box::new(MemorySpool::default());
        party.preprocess(bundle_id(number), index, &mut a, &mut b, seed(number, i), spool).unwrap()
    });
    let channels = memory::network(SERVERS, SHORT);
    all(parties.iter().zip(bundles).zip(channels).collect(), |i, ((party, bundle), channel)| {
        let (mut channel, sent) = Tap::new(channel);
        let memory = InsecureMemoryLedger::default();
        let (ledger, request): (&dyn Ledger, _) = match other {
            None if i == odd => (&Refusing, usage(1, number)),
            Some(other) if i == odd => (&memory, other),
            _ => (&memory, usage(1, number)),
        };
        let result = bundle.spend(ledger, &request).and_then(|spent| {
            spent.infer(party.planned(), &mut channel, &keys[i], (i == 0).then_some(masked.as_slice()))
        });
        let sent = std::mem::take(&mut *sent.lock().unwrap());
        (sent, result.map(|_| ()).unwrap_err())
    })
}

#[test]
fn one_server_that_does_not_confirm_keeps_every_word_back() {
    let model = model(1);
    let parties = cluster(&model, SERVERS, &paper_placements(4, SERVERS, 1), 3);
    let x = input(&model, 1);
    let right = usage(1, 0);
    let others = [
        None,
        Some(Use { session: [7; 16], ..right }),
        Some(Use { incarnation: [7; 16], ..right }),
        Some(Use { counter: 7, ..right }),
    ];
    let mut number = 0;
    for odd in 0..SERVERS {
        for other in others {
            number += 1;
            // Another number in each round, but for the request that differs on purpose.
            let other = other.map(|other| Use { counter: number + u64::from(other.counter == 7), ..other });
            for (server, (sent, error)) in attempt(&parties, number, odd, other, &x).into_iter().enumerate() {
                let spent_for = if server == odd { other.unwrap_or(right) } else { usage(1, number) };
                let words = confirmation(&bundle_id(number), &spent_for);
                assert!(sent.len() < SERVERS, "server {server} sent more");
                assert!(sent.iter().all(|(_, sent)| *sent == words), "server {server} said more");
                if server == odd && other.is_none() {
                    assert!(matches!(error, Error::Ledger(_)), "{error}");
                } else if other.is_some() && server != odd {
                    let blamed = matches!(error, Error::Peer { peer, .. } if peer == odd);
                    assert!(blamed || matches!(error, Error::Channel(_)), "{error}");
                }
            }
        }
    }
}
