//! Several bundles made at the same time, which every server begins in an order of its own: each is exact, has nothing of
//! another's, and fails alone.

use std::collections::{BTreeSet, HashSet};
use std::time::Duration;

use seco_model::{FixedModel, paper_placements};
use seco_protocol::{
    BUNDLES_AT_ONCE, Bundle, BundleId, Channel, ChannelError, Error, InsecureMemoryLedger, MemorySpool,
    Party, memory,
};

use crate::common::{
    LIMIT, Messages, Tap, bundle_id, cluster, infer, input, model, plain, seed, session, small, usage,
};

/// A server's part of a bundle, or why it has none, and what it sent for it.
type Made = (Result<Bundle, Error>, Messages);

/// Makes bundles with these numbers at the same time; gives them by bundle and server. `late` says how much later than
/// others a server begins one, by server and place, and `wrap` changes its channel for linear layers.
fn at_once<C: Channel>(
    parties: &[Party],
    numbers: &[u64],
    late: impl Fn(usize, usize) -> Duration,
    wrap: impl Fn(usize, usize, memory::MemoryChannel) -> C + Sync,
) -> Vec<Vec<Made>> {
    let name = |place: usize, number: u64| bundle_id(1000 * (1 + place as u64) + number);
    under_names(parties, numbers, name, late, wrap)
}

/// The same with ids that `id` gives, by place and number.
fn under_names<C: Channel>(
    parties: &[Party],
    numbers: &[u64],
    id: impl Fn(usize, u64) -> BundleId,
    late: impl Fn(usize, usize) -> Duration,
    wrap: impl Fn(usize, usize, memory::MemoryChannel) -> C + Sync,
) -> Vec<Vec<Made>> {
    let (servers, wrap) = (parties.len(), &wrap);
    std::thread::scope(|scope| {
        let mut threads = Vec::new();
        for (place, &number) in numbers.iter().enumerate() {
            let lanes = memory::network(servers, LIMIT).into_iter().zip(memory::network(servers, LIMIT));
            for ((i, party), (linear, nonlinear)) in parties.iter().enumerate().zip(lanes) {
                let (late, id) = (late(i, place), id(place, number));
                let seed = seed(1000 * (1 + place as u64) + number, i);
                threads.push(scope.spawn(move || {
                    std::thread::sleep(late);
                    let (mut linear, first) = Tap::new(wrap(i, place, linear));
                    let (mut nonlinear, second) = Tap::new(nonlinear);
                    let spool = Box::new(MemorySpool::default());
                    let made = party.preprocess(id, number, &mut linear, &mut nonlinear, seed, spool);
                    let mut sent = std::mem::take(&mut *first.lock().unwrap());
                    sent.append(&mut second.lock().unwrap());
                    (made, sent)
                }));
            }
        }
        let mut made = threads.into_iter().map(|thread| thread.join().unwrap());
        numbers.iter().map(|_| made.by_ref().take(servers).collect()).collect()
    })
}

/// Each server begins them in another order, a little after one another.
fn shuffled(count: usize) -> impl Fn(usize, usize) -> Duration {
    move |server, place| Duration::from_millis(4 * ((place * (2 * server + 1) + server) % count) as u64)
}

fn at_the_same_moment(_: usize, _: usize) -> Duration {
    Duration::ZERO
}

fn untouched(_: usize, _: usize, channel: memory::MemoryChannel) -> memory::MemoryChannel {
    channel
}

/// Uses a bundle; its answer is the plaintext's.
fn is_exact(parties: &[Party], model: &FixedModel, made: Vec<Made>, counter: u64) {
    let spend = |(bundle, _): Made| {
        let ledger = InsecureMemoryLedger::default();
        bundle.unwrap().spend(&ledger, &usage(9, counter)).unwrap()
    };
    let (x, keys) = (input(model, counter), session(parties.len(), counter));
    let (logits, _) = infer(parties, made.into_iter().map(spend).collect(), &keys, counter, &x);
    assert_eq!(logits, plain(model, &x), "{} servers, #{counter}", parties.len());
}

/// The blocks of 16 bytes of what a server sent for a bundle.
fn blocks(sent: &Messages) -> HashSet<[u8; 16]> {
    let blocks = sent.iter().flat_map(|(_, message)| message.as_chunks::<16>().0).copied();
    blocks.filter(|block| *block != [0; 16]).collect()
}

#[test]
fn bundles_made_at_the_same_time_are_exact_and_have_nothing_in_common() {
    let model = model(1);
    for (servers, count) in [(2, BUNDLES_AT_ONCE), (3, 4), (4, 2)] {
        let placements = paper_placements(model.layers.len(), servers, 1);
        let parties = cluster(&model, servers, &placements, 3);
        let numbers: Vec<u64> = (0..count as u64).collect();
        let made = at_once(&parties, &numbers, shuffled(count), untouched);
        for server in 0..servers {
            let (mut seen, mut secrets) = (HashSet::new(), HashSet::new());
            for made in &made {
                let (bundle, sent) = &made[server];
                let blocks = blocks(sent);
                assert!(blocks.is_disjoint(&seen), "server {server} of {servers} sends something twice");
                seen.extend(blocks);
                // What its keys come from, and its offset.
                let encoded = bundle.as_ref().unwrap().encode();
                assert!(
                    secrets.insert(encoded[66..98].to_vec()) && secrets.insert(encoded[98..114].to_vec())
                );
            }
            assert_eq!(parties[server].next_bundle(), count as u64);
        }
        (0..).zip(made).for_each(|(counter, made)| is_exact(&parties, &model, made, counter));
    }
}

/// A server that is late to begin a bundle has the keys of its number, though the cluster has others by then.
#[test]
fn a_number_has_its_keys_whenever_it_begins() {
    let model = small();
    let parties = cluster(&model, 3, &paper_placements(2, 3, 1), 3);
    let numbers = |all: &[u64]| all.iter().copied().collect::<BTreeSet<u64>>();
    let (zero, span) = (numbers(&[0]), BUNDLES_AT_ONCE as u64);
    assert!(parties.iter().all(|party| party.may_begin(span - 1, &zero) && !party.may_begin(span, &zero)));
    let parties: Vec<Party> = parties.into_iter().map(|party| party.with_key_life(2)).collect();
    for party in &parties {
        assert!(party.may_begin(0, &numbers(&[])) && party.may_begin(1, &zero) && party.may_begin(2, &zero));
        // The keys of number 2 are agreed on beside number 1.
        assert!(!party.may_begin(2, &numbers(&[1])) && !party.may_begin(3, &numbers(&[1, 2])));
        // Those of number 4 are agreed on beside number 3, with which those of number 0 go.
        assert!(!party.may_begin(3, &numbers(&[0, 2])) && party.may_begin(3, &numbers(&[2])));
    }
    const LATE: Duration = Duration::from_millis(400);
    let late = |server: usize, _: usize| if server == 2 { LATE } else { Duration::ZERO };
    // Number 0 is late on a server, and the others begin all that may be begun beside it.
    let beside: Vec<u64> = (1..4).filter(|number| parties[0].may_begin(*number, &zero)).collect();
    let (first, others) = std::thread::scope(|scope| {
        let first = scope.spawn(|| at_once(&parties, &[0], late, untouched));
        std::thread::sleep(LATE / 8);
        let others = beside.iter().map(|number| {
            let mut made = at_once(&parties, &[*number], at_the_same_moment, untouched);
            made.remove(0)
        });
        let others: Vec<_> = others.collect();
        (first.join().unwrap().remove(0), others)
    });
    is_exact(&parties, &model, first, 1);
    others.into_iter().zip(2..).for_each(|(made, counter)| is_exact(&parties, &model, made, counter));
    let last = at_once(&parties, &[3], at_the_same_moment, untouched).remove(0);
    is_exact(&parties, &model, last, 5);
}

/// Whether a server has no keys for a bundle.
fn lacks_keys((bundle, _): &Made) -> bool {
    matches!(bundle, Err(Error::Misuse(text)) if text.contains("keys of this bundle are gone"))
}

/// Nobody waits for a number that was passed over: its keys are gone with those of the set after it.
#[test]
fn keys_of_a_number_that_never_began_do_not_last() {
    let model = small();
    let parties = cluster(&model, 3, &paper_placements(2, 3, 1), 3);
    let parties: Vec<Party> = parties.into_iter().map(|party| party.with_key_life(2)).collect();
    for number in [1, 2, 3] {
        let made = at_once(&parties, &[number], at_the_same_moment, untouched).remove(0);
        is_exact(&parties, &model, made, number);
    }
    let late = at_once(&parties, &[0], at_the_same_moment, untouched).remove(0);
    assert!(late.iter().all(lacks_keys));
}

/// Where a set's last bundle fails, those beside it are finished, and those after it refused: there are no keys for them.
#[test]
fn a_last_bundle_that_fails_leaves_those_beside_it_whole_and_none_after_it() {
    let model = small();
    let parties = cluster(&model, 3, &paper_placements(2, 3, 1), 3);
    let parties: Vec<Party> = parties.into_iter().map(|party| party.with_key_life(3)).collect();
    let breaks = |server: usize, place: usize, channel| {
        Breaking(channel, if (server, place) == (1, 2) { 3 } else { usize::MAX })
    };
    let mut made = at_once(&parties, &[0, 1, 2], shuffled(3), breaks);
    assert!(made.remove(2).iter().all(|(bundle, _)| bundle.is_err()));
    (1..).zip(made).for_each(|(counter, made)| is_exact(&parties, &model, made, counter));
    for after in at_once(&parties, &[3, 4], shuffled(2), untouched) {
        assert!(after.iter().all(lacks_keys));
    }
}

/// Under one name a server encrypts once, whatever numbers a bundle of this name has.
#[test]
fn a_name_serves_one_bundle() {
    let model = small();
    let parties = cluster(&model, 3, &paper_placements(2, 3, 1), 3);
    let made = under_names(&parties, &[0, 1], |_, _| bundle_id(1), at_the_same_moment, untouched);
    let refused = |(bundle, _): &Made| {
        bundle.as_ref().is_err_and(|error| error.to_string().contains("second encryption"))
    };
    let made: Vec<_> = made[0].iter().zip(&made[1]).collect();
    assert!(made.iter().all(|(one, other)| one.0.is_err() || other.0.is_err()));
    assert!(made.iter().any(|(one, other)| refused(one) || refused(other)));
}

/// Breaks after so many messages.
struct Breaking(memory::MemoryChannel, usize);

impl Channel for Breaking {
    fn me(&self) -> usize {
        self.0.me()
    }

    fn parties(&self) -> usize {
        self.0.parties()
    }

    fn send(&mut self, to: usize, message: Vec<u8>) -> Result<(), ChannelError> {
        self.1 = self.1.checked_sub(1).ok_or(ChannelError::Closed { peer: to })?;
        self.0.send(to, message)
    }

    fn recv(&mut self, from: usize, max: usize) -> Result<Vec<u8>, ChannelError> {
        self.0.recv(from, max)
    }
}

#[test]
fn one_that_fails_leaves_the_others_whole() {
    let model = model(1);
    for servers in [2, 3] {
        let placements = paper_placements(model.layers.len(), servers, 1);
        let parties = cluster(&model, servers, &placements, 3);
        let breaks = |server: usize, place: usize, channel| {
            Breaking(channel, if (server, place) == (1, 1) { 3 } else { usize::MAX })
        };
        let mut made = at_once(&parties, &[0, 1, 2], shuffled(3), breaks);
        let failed = made.remove(1);
        assert!(failed.iter().all(|(bundle, _)| bundle.is_err()), "{servers} servers");
        (1..).zip(made).for_each(|(counter, made)| is_exact(&parties, &model, made, counter));
        // Its number is used, and those after it are in step.
        let again = at_once(&parties, &[1], at_the_same_moment, untouched).remove(0);
        let used =
            |(bundle, _): &Made| matches!(bundle, Err(Error::Ot(seco_ot::Error::Index { index: 1, .. })));
        assert!(again.iter().all(used));
        let next = at_once(&parties, &[3, 4], shuffled(2), untouched);
        (3..).zip(next).for_each(|(counter, made)| is_exact(&parties, &model, made, counter));
    }
}

/// Of two bundles under one number a server makes one at most, also where they begin at the same moment, and nothing is
/// sent for the other.
#[test]
fn a_number_serves_one_bundle() {
    let model = small();
    let parties = cluster(&model, 3, &paper_placements(2, 3, 1), 3);
    for number in [0, 3, 2] {
        let made = at_once(&parties, &[number; 2], at_the_same_moment, untouched);
        for (server, (one, other)) in made[0].iter().zip(&made[1]).enumerate() {
            let refused = |(bundle, sent): &&Made| {
                matches!(bundle, Err(Error::Ot(seco_ot::Error::Index { .. }))) && sent.is_empty()
            };
            assert_eq!([one, other].iter().filter(|made| refused(made)).count(), 1, "server {server}");
        }
    }
}
