//! The cluster's keys: renewal beside the bundles, commitments before public shares, and who is blamed.
#![allow(clippy::unwrap_used)]

mod common;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::{LIMIT, Tap, all, bundle_id, cluster, input, model, parts, plain, run, seed};
use seco_model::{FixedModel, Placement, paper_placements};
use seco_protocol::{Bundle, Channel, ChannelError, Error, MemorySpool, Party, PlannedModel, memory};

const OPENING: usize = 64;
const COMMITMENT: &str = "key commitment";
const SHARE: &str = "public key share, which must match its commitment";

/// A convolution of server 0 and a matrix of servers 1 and 2.
fn small() -> (FixedModel, Vec<Placement>) {
    (common::small(), paper_placements(2, 3, 1))
}

/// One bundle of every server, or its error. `linear` wraps every server's linear channel.
fn preprocess<C: Channel>(
    parties: &[Party],
    number: u64,
    linear: impl Fn(usize, memory::MemoryChannel) -> C + Sync,
) -> Vec<Result<Bundle, Error>> {
    let servers = parties.len();
    let lanes = memory::network(servers, LIMIT).into_iter().zip(memory::network(servers, LIMIT));
    let index = parties[0].next_bundle();
    all(parties.iter().zip(lanes).collect(), |i, (party, (channel, mut nonlinear))| {
        let (id, spool) = (bundle_id(number), Box::new(MemorySpool::default()));
        party.preprocess(id, index, &mut linear(i, channel), &mut nonlinear, seed(number, i), spool)
    })
}

/// Keys are renewed after one, two or three bundles, with layers in one wave or each in its own; all results are
/// exact, and the exchange travels with a set's last bundle and no other.
#[test]
fn keys_are_renewed_with_a_sets_last_bundle() {
    let model = model(1);
    for (servers, life, waves) in [(2, 2, 32 << 20), (3, 2, 0), (3, 1, 32 << 20), (4, 3, 1 << 20)] {
        let placements = paper_placements(model.layers.len(), servers, 1);
        let parties = cluster(&model, servers, &placements, 5);
        let parties: Vec<_> =
            parties.into_iter().map(|party| party.with_key_life(life).with_waves(waves)).collect();
        for number in 1..=5 {
            let x = input(&model, number);
            let (logits, sent) = run(&parties, number, &x);
            assert_eq!(logits, plain(&model, &x), "n={servers}, {life} bundles, #{number}");
            for messages in &sent.preprocessing {
                let openings = messages.iter().filter(|(_, message)| message.len() == OPENING).count();
                let due = if number % life == 0 { servers - 1 } else { 0 };
                assert_eq!(openings, due, "n={servers}, {life} bundles, #{number}");
            }
        }
    }
}

#[test]
fn a_bundle_is_not_made_twice_under_one_key_set() {
    let (model, placements) = small();
    let parties = cluster(&model, 3, &placements, 3);
    let untouched = |_, channel| channel;
    assert!(preprocess(&parties, 1, untouched).iter().all(Result::is_ok));
    let texts: Vec<_> =
        preprocess(&parties, 1, untouched).into_iter().map(|made| made.err().unwrap().to_string()).collect();
    assert!(texts.iter().any(|text| text.contains("second encryption")), "{texts:?}");
}

/// Who sent how much to whom, in the order of sending, by all servers.
type Log = Arc<Mutex<Vec<(usize, usize, usize)>>>;

/// Logs what is sent, and is late with message number `late`.
struct Logged<C> {
    inner: C,
    log: Log,
    sent: usize,
    late: usize,
}

impl<C: Channel> Channel for Logged<C> {
    fn me(&self) -> usize {
        self.inner.me()
    }

    fn parties(&self) -> usize {
        self.inner.parties()
    }

    fn send(&mut self, to: usize, message: Vec<u8>) -> Result<(), ChannelError> {
        if self.sent == self.late {
            std::thread::sleep(Duration::from_millis(500));
        }
        self.sent += 1;
        self.log.lock().unwrap().push((self.inner.me(), to, message.len()));
        self.inner.send(to, message)
    }

    fn recv(&mut self, from: usize, max: usize) -> Result<Vec<u8>, ChannelError> {
        self.inner.recv(from, max)
    }
}

/// Nobody's share leaves before all commitments have come, however late one is: in the set-up and in a renewal.
#[test]
fn shares_wait_for_all_commitments() {
    let (model, placements) = small();
    let check = |log: &Log, share: usize| {
        let log = log.lock().unwrap();
        for server in 0..3 {
            let first_share =
                log.iter().position(|&(from, _, bytes)| from == server && bytes == share).unwrap();
            let to_it = |&(_, to, bytes): &(usize, usize, usize)| to == server && bytes == OPENING;
            assert_eq!(log.iter().filter(|entry| to_it(entry)).count(), 2);
            assert!(log.iter().rposition(to_it).unwrap() < first_share, "server {server}");
        }
    };
    let log = Log::default();
    let parts = parts(&model, 3, &placements, 1);
    let channels = memory::network(3, LIMIT);
    // Server 2 sends two nonces, then its first commitment.
    let parties = all(parts.into_iter().zip(channels).collect(), |i, (part, inner)| {
        let late = if i == 2 { 2 } else { usize::MAX };
        let mut channel = Logged { inner, log: log.clone(), sent: 0, late };
        Party::setup(PlannedModel::new(part).unwrap(), &mut channel, &[2; 3], seed(2, i))
            .unwrap()
            .with_key_life(1)
    });
    let share = log.lock().unwrap().iter().map(|entry| entry.2).max().unwrap();
    assert!(share > 150_000, "a polynomial: {share}");
    check(&log, share);
    let log = Log::default();
    let made = preprocess(&parties, 1, |i, inner| {
        let late = if i == 2 { 0 } else { usize::MAX };
        Logged { inner, log: log.clone(), sent: 0, late }
    });
    assert!(made.iter().all(Result::is_ok));
    // Encrypted masks are as long as shares; they go first, and do not wait.
    let only = Log::default();
    for server in 0..3 {
        let log = log.lock().unwrap();
        let own = log.iter().enumerate().filter(|(_, entry)| entry.0 == server && entry.2 == share);
        // Of a server's messages of that length the last two are its shares.
        let own: Vec<_> = own.map(|(at, _)| at).collect();
        let shares = &own[own.len() - 2..];
        let openings = log.iter().rposition(|&(_, to, bytes)| to == server && bytes == OPENING).unwrap();
        assert!(openings < shares[0], "server {server}: {log:?}");
        only.lock().unwrap().extend(own.iter().map(|&at| log[at]));
    }
    assert_eq!(only.lock().unwrap().len(), 6 + 6, "shares, and masks of two layers to their other holders");
}

/// Spoils message number `number` of server 2.
fn spoiled(
    number: usize,
    spoil: impl Fn(Vec<u8>) -> Vec<u8> + Send + Clone + 'static,
) -> impl Fn(usize, memory::MemoryChannel) -> Tap<memory::MemoryChannel> {
    move |i, channel| {
        let (mut sent, spoil) = (0, spoil.clone());
        Tap::tampering(channel, move |_, message| {
            sent += 1;
            if i == 2 && sent == number + 1 { spoil(message) } else { message }
        })
    }
}

fn blames<T>(result: &Result<T, Error>, phase: &str) -> bool {
    matches!(result, Err(Error::Peer { peer: 2, phase: named }) if *named == phase)
}

/// Server 2, last, sends another share than the one that it committed to, well-formed: whoever gets it names server 2,
/// in the set-up and in a renewal. (All zero is a polynomial.)
#[test]
fn a_share_changed_after_the_others_were_seen_is_blamed() {
    let (model, placements) = small();
    let other = |message: Vec<u8>| vec![0; message.len()];
    for to in [0, 1] {
        let channels = memory::network(3, LIMIT);
        let tampering = spoiled(4 + to, other);
        let results = all(
            parts(&model, 3, &placements, 1).into_iter().zip(channels).collect(),
            |i, (part, channel)| {
                Party::setup(
                    PlannedModel::new(part).unwrap(),
                    &mut tampering(i, channel),
                    &[2; 3],
                    seed(2, i),
                )
                .map(|_| ())
            },
        );
        assert!(blames(&results[to], SHARE), "{results:?}");

        let parties = cluster(&model, 3, &placements, 3);
        let parties: Vec<_> = parties.into_iter().map(|party| party.with_key_life(1)).collect();
        // Two commitments, two masks, two shares.
        let made = preprocess(&parties, 1, spoiled(4 + to, other));
        assert!(blames(&made[to], SHARE), "{:?}", made[to].as_ref().err());
    }
}

/// Every message of the linear lane, empty, truncated, longer and huge: the error names server 2 and the phase. Random
/// bytes and zeros may be what they claim to be, so they may be accepted, except where a commitment tells.
#[test]
fn malformed_messages_name_the_peer_and_the_phase() {
    let (model, placements) = small();
    type Spoil = fn(Vec<u8>) -> Vec<u8>;
    let structural: [Spoil; 4] = [
        |_| Vec::new(),
        |mut m| {
            m.pop();
            m
        },
        |mut m| {
            m.push(0);
            m
        },
        |_| vec![7; 8 << 20],
    ];
    let content: [Spoil; 2] =
        [|m| vec![0; m.len()], |m| (0..m.len()).map(|k| (k * 167 + k / 251) as u8).collect()];
    let make = |life: u64, number: usize, spoil: Spoil| {
        let parties = cluster(&model, 3, &placements, 3);
        let parties: Vec<_> = parties.into_iter().map(|party| party.with_key_life(life)).collect();
        preprocess(&parties, 1, spoiled(number, spoil))
    };
    let (mask, product, answer) = ("encrypted mask", "product to be decrypted", "decryption share");
    // Server 2 sends its commitment, its masks (of layer 0 to server 0, of layer 1 to server 1), its share, its c1 of
    // layer 1, its answers; half of each to server 0 and half to server 1.
    let renewing = [COMMITMENT, mask, SHARE, product, answer];
    for (place, phase) in renewing.into_iter().enumerate() {
        for spoil in structural {
            for to in [0, 1] {
                let made = make(1, 2 * place + to, spoil);
                assert!(blames(&made[to], phase), "{phase} to {to}: {:?}", made[to].as_ref().err());
            }
        }
        for spoil in content {
            let made = make(1, 2 * place, spoil);
            match (phase, &made[0]) {
                // What was committed to is no share.
                (COMMITMENT | SHARE, made) => assert!(blames(made, SHARE), "{:?}", made.as_ref().err()),
                (_, Ok(_)) => {}
                (_, made) => assert!(blames(made, phase), "{phase}: {:?}", made.as_ref().err()),
            }
        }
    }
}
