//! Peers that send nonsense: every message of every phase, truncated, oversized, random, swapped or
//! left out, ends in an error or a wrong answer, never in a panic, a hang or unbounded memory.
#![allow(clippy::unwrap_used)]

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use chacha20::ChaCha20Rng;
use common::graphs::Builder;
use common::{LIMIT, Refusing, Tap, all, bundle_id, cluster, input, parts, seed, session, usage};
use rand_core::SeedableRng;
use seco_model::{FixedModel, Placement, paper_placements};
use seco_protocol::{
    Channel, ChannelError, Error, InsecureMemoryLedger, Layer, Ledger, MemorySpool, Party, PlannedModel,
    ReluLayer, Use, memory,
};

const SHORT: Duration = Duration::from_millis(400);

/// How a message is spoiled.
#[derive(Clone, Copy, Debug)]
enum Fault {
    Empty,
    Truncated,
    Longer,
    Random,
    Zeros,
    Huge,
}

const FAULTS: [Fault; 6] =
    [Fault::Empty, Fault::Truncated, Fault::Longer, Fault::Random, Fault::Zeros, Fault::Huge];

fn spoil(fault: Fault, mut message: Vec<u8>) -> Vec<u8> {
    match fault {
        Fault::Empty => Vec::new(),
        Fault::Truncated => {
            message.pop();
            message
        }
        Fault::Longer => {
            message.push(0);
            message
        }
        Fault::Random => {
            let mut x = 0x1234_5678_9abc_def0u64;
            message.iter_mut().for_each(|b| {
                x ^= x << 13;
                x ^= x >> 7;
                x ^= x << 17;
                *b = x as u8;
            });
            message
        }
        Fault::Zeros => vec![0; message.len()],
        Fault::Huge => vec![7; 8 << 20],
    }
}

/// Spoils the `number`-th message of a server.
fn faulty<C: Channel>(channel: C, number: usize, fault: Fault) -> Tap<C> {
    let mut sent = 0;
    Tap::tampering(channel, move |_, message| {
        sent += 1;
        if sent == number + 1 { spoil(fault, message) } else { message }
    })
}

fn small() -> (FixedModel, Vec<Placement>) {
    (common::small(), paper_placements(2, 3, 1))
}

fn is_clear(error: &Error) -> bool {
    let text = error.to_string();
    !text.is_empty() && !text.contains('\n')
}

#[test]
fn set_up() {
    let (model, placements) = small();
    for number in [0, 1, 2, 3, 4, 5, 6, 8, 10] {
        for fault in FAULTS {
            let parts = parts(&model, 3, &placements, 1);
            let channels = memory::network(3, SHORT);
            let results = all(parts.into_iter().zip(channels).collect(), |i, (part, channel)| {
                let mut channel = faulty(channel, if i == 1 { number } else { usize::MAX - 1 }, fault);
                Party::setup(PlannedModel::new(part).unwrap(), &mut channel, &[2; 3], seed(2, i)).map(|_| ())
            });
            for error in results.into_iter().filter_map(Result::err) {
                assert!(is_clear(&error), "{error}");
            }
        }
    }
}

#[test]
fn preprocessing() {
    let (model, placements) = small();
    for number in [0, 1, 2, 3, 4, 5, 7, 9] {
        for fault in FAULTS {
            for linear in [true, false] {
                // Whatever a failure leaves behind: a fresh cluster each time.
                let parties = cluster(&model, 3, &placements, 3);
                let lanes: Vec<_> =
                    memory::network(3, SHORT).into_iter().zip(memory::network(3, SHORT)).collect();
                let started = Instant::now();
                let results = all(parties.iter().zip(lanes).collect(), |i, (party, (a, b))| {
                    let pick = |this: bool| if i == 2 && this { number } else { usize::MAX - 1 };
                    let (mut a, mut b) = (faulty(a, pick(linear), fault), faulty(b, pick(!linear), fault));
                    party
                        .preprocess(
                            bundle_id(1),
                            0,
                            &mut a,
                            &mut b,
                            seed(1, i),
                            Box::new(MemorySpool::default()),
                        )
                        .map(|_| ())
                });
                assert!(started.elapsed() < Duration::from_secs(20));
                for error in results.into_iter().filter_map(Result::err) {
                    assert!(is_clear(&error), "{error}");
                }
            }
        }
    }
}

#[test]
fn online() {
    let (model, placements) = small();
    every_message_online(&model, &placements, 9);
}

/// The same where openings are of sums, some are sent ahead, and several ReLUs are done together.
#[test]
fn online_in_a_graph() {
    let mut b = Builder::new(&[6], 1);
    let (one, two) = (b.dense(0, 8, 12), b.dense(0, 8, 13));
    let (one, two) = (b.relu(one, 1), b.relu(two, 2));
    let sum = b.sum(&[(one, 1), (two, -2)], 7, 14);
    let larger = b.larger(sum, 14);
    let last = b.dense(larger, 4, 15);
    b.sum(&[(last, 1), (larger, 3)], 1, 16);
    let placements = [Placement::Held(0), Placement::Shared(vec![1, 2]), Placement::Held(1)];
    every_message_online(&b.finish(), &placements, 17);
}

fn every_message_online(model: &FixedModel, placements: &[Placement], messages: usize) {
    let parties = cluster(model, 3, placements, 3);
    let x = input(model, 1);
    let mut made = 0;
    // From the confirmations on.
    for number in 0..messages {
        for fault in FAULTS {
            for culprit in 0..3 {
                made += 1;
                let (bundles, _) = common::preprocess(&parties, made);
                let keys = session(3, 1);
                let channels = memory::network(3, SHORT);
                let results = all(
                    parties.iter().zip(bundles).zip(channels).collect(),
                    |i, ((party, bundle), channel)| {
                        let number = if i == culprit { number } else { usize::MAX - 1 };
                        let mut channel = faulty(channel, number, fault);
                        bundle.infer(
                            party.planned(),
                            &mut channel,
                            &keys[i],
                            (i == 0).then_some(x.as_slice()),
                        )
                    },
                );
                for error in results.into_iter().filter_map(Result::err) {
                    assert!(is_clear(&error), "{error}");
                }
            }
        }
    }
}

/// Every message of a step, in preprocessing and online, without homomorphic encryption: where a length is wrong,
/// somebody names the culprit; whatever is wrong, nobody panics or hangs.
#[test]
fn every_message_of_a_step() {
    let layer = Layer { count: 70, width: 9, mask_width: 11, shift: 3, servers: 3, ot_parameter: 2 };
    for online in [false, true] {
        // Online only the evaluator has nothing to say: its answer is nobody else's.
        for culprit in (0..3).filter(|&server| !online || server != layer.evaluator()) {
            // Until there is no message with that number.
            for number in 0.. {
                let reached = FAULTS.map(|fault| one_message(layer, online, culprit, number, fault));
                if !reached[0] {
                    assert!(number >= if online { 1 } else { 8 }, "only {number} messages");
                    break;
                }
            }
        }
    }
}

/// Spoils one message of one server; tells whether there was one.
fn one_message(layer: Layer, online: bool, culprit: usize, number: usize, fault: Fault) -> bool {
    let sent = Arc::new(AtomicUsize::new(0));
    let results = all(memory::network(layer.servers, LIMIT), |i, mut channel| {
        let mut relus = ReluLayer::setup(layer, &mut channel, seed(1, i)).unwrap();
        let tamper = |this: bool| {
            let sent = sent.clone();
            move |_: usize, message: Vec<u8>| {
                let mine = this && i == culprit && sent.fetch_add(1, Ordering::Relaxed) == number;
                if mine { spoil(fault, message) } else { message }
            }
        };
        let mut channel = Tap::tampering(channel, tamper(!online));
        let spool = Box::new(MemorySpool::default());
        let bundle = relus.preprocess(bundle_id(1), &mut channel, seed(2, i), spool)?;
        let mut channel = Tap::tampering(channel, tamper(online));
        let mut rng = ChaCha20Rng::from_seed(seed(3, i));
        relus.evaluate(bundle, &mut channel, &mut rng).map(|_| ())
    });
    let reached = sent.load(Ordering::Relaxed) > number;
    let wrong_length = !matches!(fault, Fault::Random | Fault::Zeros);
    let errors: Vec<Error> = results.into_iter().filter_map(Result::err).collect();
    assert!(errors.iter().all(is_clear), "{errors:?}");
    if reached && wrong_length {
        let named = errors.iter().any(|error| match error {
            Error::Peer { peer, phase } => *peer == culprit && !phase.is_empty(),
            Error::Channel(ChannelError::TooLarge { peer, .. }) => *peer == culprit,
            _ => false,
        });
        assert!(named, "{fault:?} in message {number} of server {culprit}, online {online}: {errors:?}");
    }
    reached
}

#[test]
fn used_twice_or_wrongly() {
    let (model, placements) = small();
    let parties = cluster(&model, 3, &placements, 3);
    // A counter that was used, a bundle that was used, a ledger that cannot write.
    let ledger = InsecureMemoryLedger::default();
    let make_in = |parties: &[Party], number: u64| {
        let lanes: Vec<_> = memory::network(3, SHORT).into_iter().zip(memory::network(3, SHORT)).collect();
        let index = parties[0].next_bundle();
        all(parties.iter().zip(lanes).collect(), |i, (party, (mut a, mut b))| {
            party
                .preprocess(
                    bundle_id(number),
                    index,
                    &mut a,
                    &mut b,
                    seed(number, i),
                    Box::new(MemorySpool::default()),
                )
                .unwrap()
        })
        .remove(0)
    };
    let make = |number| make_in(&parties, number);
    let other = cluster(&model, 3, &placements, 4);
    assert!(make(1).spend(&ledger, &usage(1, 7)).is_ok());
    assert!(matches!(make(2).spend(&ledger, &usage(1, 7)), Err(Error::Ledger(_))), "counter used");
    let again = make_in(&other, 1);
    assert!(matches!(again.spend(&ledger, &usage(1, 8)), Err(Error::Ledger(_))), "bundle used");
    assert!(matches!(make(3).spend(&Refusing, &usage(1, 9)), Err(Error::Ledger(_))));
    assert!(ledger.spend(&bundle_id(9), &usage(2, 7)).is_ok(), "another session's counter");
    let elsewhere = Use { incarnation: [3; 16], ..usage(1, 7) };
    assert!(ledger.spend(&bundle_id(10), &elsewhere).is_ok(), "another incarnation's counter");

    // Inputs of the wrong size, at the wrong server, with another cluster's bundle.
    let keys = session(3, 1);
    let mut channel = memory::network(3, SHORT).remove(0);
    for wrong in [None, Some(&[0u8; 3][..]), Some(&[0u8; 4096][..])] {
        let bundle = make(10 + wrong.map_or(0, <[u8]>::len) as u64);
        let spent = bundle.spend(&InsecureMemoryLedger::default(), &usage(1, 1)).unwrap();
        assert!(matches!(
            spent.infer(parties[0].planned(), &mut channel, &keys[0], wrong),
            Err(Error::Misuse(_))
        ));
    }
    let spent = make(20).spend(&InsecureMemoryLedger::default(), &usage(1, 1)).unwrap();
    let x = input(&model, 1);
    assert!(matches!(
        spent.infer(other[0].planned(), &mut channel, &keys[0], Some(&x)),
        Err(Error::Misuse(_))
    ));
}

#[test]
fn wrong_model_file() {
    let (model, placements) = small();
    let parts = parts(&model, 3, &placements, 1);
    let channels = memory::network(3, SHORT);
    // Server 0 with server 1's file.
    let mut channels = channels.into_iter();
    let mut channel = channels.next().unwrap();
    assert!(matches!(
        Party::setup(PlannedModel::new(parts[1].clone()).unwrap(), &mut channel, &[2; 3], seed(1, 0)),
        Err(Error::Misuse(_))
    ));
}
