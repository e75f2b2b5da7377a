//! Peers that send nonsense: every message of every phase, truncated, oversized, random, swapped or
//! left out, ends in an error or a wrong answer, never in a panic, a hang or unbounded memory.
#![allow(clippy::unwrap_used)]

mod common;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use chacha20::ChaCha20Rng;
use common::graphs::Builder;
use common::{LIMIT, Refusing, all, bundle_id, cluster, input, parts, seed, session, usage};
use rand_core::SeedableRng;
use seco_model::{FixedModel, Placement, paper_placements};
use seco_protocol::cost::{Cost, Event};
use seco_protocol::{
    Channel, ChannelError, Error, InsecureMemoryLedger, Layer, Ledger, MemorySpool, OT_PARAMETER, Party,
    PlannedModel, ReluLayer, Use, memory,
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
    /// Comes after the next one to the same server, or not at all where that was the last.
    Late,
}

const FAULTS: [Fault; 7] =
    [Fault::Empty, Fault::Truncated, Fault::Longer, Fault::Random, Fault::Zeros, Fault::Huge, Fault::Late];

impl Fault {
    /// Whether whoever gets such a message must see that it is none.
    fn is_length(self) -> bool {
        matches!(self, Fault::Empty | Fault::Truncated | Fault::Longer | Fault::Huge)
    }
}

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
        Fault::Late => message,
    }
}

/// A channel of which one message is spoiled.
struct Faulty<C> {
    inner: C,
    /// Which, if any.
    number: Option<usize>,
    fault: Fault,
    sent: Arc<AtomicUsize>,
    late: Option<(usize, Vec<u8>)>,
}

impl<C: Channel> Faulty<C> {
    /// Counts in `sent` the messages of a channel with a `number`.
    fn counting(inner: C, number: Option<usize>, fault: Fault, sent: Arc<AtomicUsize>) -> Faulty<C> {
        Faulty { inner, number, fault, sent, late: None }
    }

    fn new(inner: C, number: Option<usize>, fault: Fault) -> Faulty<C> {
        Self::counting(inner, number, fault, Arc::default())
    }
}

impl<C: Channel> Channel for Faulty<C> {
    fn me(&self) -> usize {
        self.inner.me()
    }

    fn parties(&self) -> usize {
        self.inner.parties()
    }

    fn send(&mut self, to: usize, message: Vec<u8>) -> Result<(), ChannelError> {
        let Some(number) = self.number else { return self.inner.send(to, message) };
        let chosen = self.sent.fetch_add(1, Ordering::Relaxed) == number;
        if chosen && matches!(self.fault, Fault::Late) {
            self.late = Some((to, message));
            return Ok(());
        }
        self.inner.send(to, if chosen { spoil(self.fault, message) } else { message })?;
        match self.late.take_if(|(late, _)| *late == to) {
            Some((to, message)) => self.inner.send(to, message),
            None => Ok(()),
        }
    }

    fn recv(&mut self, from: usize, max: usize) -> Result<Vec<u8>, ChannelError> {
        self.inner.recv(from, max)
    }
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
                let mut channel = Faulty::new(channel, (i == 1).then_some(number), fault);
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
                    let pick = |this: bool| (i == 2 && this).then_some(number);
                    let mut a = Faulty::new(a, pick(linear), fault);
                    let mut b = Faulty::new(b, pick(!linear), fault);
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
    every_message_online(&model, &placements);
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
    every_message_online(&b.finish(), &placements);
}

/// Every message of every server, from the confirmations on. Where a length is wrong, or a confirmation, somebody names
/// the culprit; whatever is wrong, nobody panics or waits for long.
fn every_message_online(model: &FixedModel, placements: &[Placement]) {
    let parties = cluster(model, 3, placements, 3);
    let cost = Cost::of(parties[0].architecture(), |_, _| OT_PARAMETER).unwrap();
    let (x, keys) = (input(model, 1), session(3, 1));
    let mut made = 0;
    for culprit in 0..3 {
        let messages = cost.online.iter().map(|event| match event {
            Event::Exchange { messages, .. } => messages.iter().filter(|(from, ..)| *from == culprit).count(),
            _ => 0,
        });
        // One more than there are, which must be none.
        let messages = messages.sum::<usize>();
        for (number, fault) in (0..=messages).flat_map(|number| FAULTS.map(|fault| (number, fault))) {
            made += 1;
            let (bundles, _) = common::preprocess(&parties, made);
            let sent = Arc::<AtomicUsize>::default();
            let started = Instant::now();
            let results = all(
                parties.iter().zip(bundles).zip(memory::network(3, SHORT)).collect(),
                |i, ((party, bundle), channel)| {
                    let number = (i == culprit).then_some(number);
                    let mut channel = Faulty::counting(channel, number, fault, sent.clone());
                    bundle.infer(party.planned(), &mut channel, &keys[i], (i == 0).then_some(x.as_slice()))
                },
            );
            let what = format!("{fault:?}, message {number} of {messages} of server {culprit}");
            assert!(started.elapsed() < Duration::from_secs(5), "{what}");
            let reached = sent.load(Ordering::Relaxed) > number;
            assert_eq!(reached, number < messages, "{what}");
            let errors: Vec<Error> = results.into_iter().filter_map(Result::err).collect();
            assert!(errors.iter().all(is_clear), "{what}: {errors:?}");
            let confirmation = number < 2;
            if reached && (fault.is_length() || confirmation) {
                assert!(errors.iter().any(|error| names(error, culprit)), "{what}: {errors:?}");
            }
            assert!(reached || errors.is_empty(), "{what}: {errors:?}");
        }
    }
}

/// Whether it tells that this server's message is wrong.
fn names(error: &Error, culprit: usize) -> bool {
    match error {
        Error::Peer { peer, phase } => *peer == culprit && !phase.is_empty(),
        Error::Channel(ChannelError::TooLarge { peer, .. }) => *peer == culprit,
        _ => false,
    }
}

/// Every message of a step, in preprocessing and online, without homomorphic encryption: where a length is wrong,
/// somebody names the culprit; whatever is wrong, nobody panics or hangs.
#[test]
fn every_message_of_a_step() {
    let layer = Layer { count: 70, width: 9, mask_width: 11, shift: 3, servers: 3, ot_parameter: 2 };
    // One set-up for all: every bundle has its own extension of the base OTs, whatever became of the one before.
    let relus = all(memory::network(layer.servers, LIMIT), |i, mut channel| {
        Mutex::new(ReluLayer::setup(layer, &mut channel, seed(1, i)).unwrap())
    });
    let mut made = 0;
    for online in [false, true] {
        // Online only the evaluator has nothing to say: its answer is nobody else's.
        for culprit in (0..3).filter(|&server| !online || server != layer.evaluator()) {
            // Until there is no message with that number.
            for number in 0.. {
                let reached = FAULTS.map(|fault| {
                    made += 1;
                    one_message(&relus, made, online, culprit, number, fault)
                });
                if !reached[0] {
                    assert!(number >= if online { 1 } else { 8 }, "only {number} messages");
                    break;
                }
            }
        }
    }
}

/// Spoils one message of one server; tells whether there was one.
fn one_message(
    relus: &[Mutex<ReluLayer>],
    made: u64,
    online: bool,
    culprit: usize,
    number: usize,
    fault: Fault,
) -> bool {
    let sent = Arc::new(AtomicUsize::new(0));
    // What was the last of a server is never there.
    let limit = if matches!(fault, Fault::Late) { 3 * SHORT } else { LIMIT };
    let results = all(memory::network(relus.len(), limit), |i, channel| {
        let mut relus = relus[i].lock().unwrap();
        let pick = |this: bool| (this && i == culprit).then_some(number);
        let mut channel = Faulty::counting(channel, pick(!online), fault, sent.clone());
        let spool = Box::new(MemorySpool::default());
        let bundle = relus.preprocess(bundle_id(made), &mut channel, seed(2 * made, i), spool)?;
        let mut channel = Faulty::counting(channel, pick(online), fault, sent.clone());
        let mut rng = ChaCha20Rng::from_seed(seed(2 * made + 1, i));
        relus.evaluate(bundle, &mut channel, &mut rng).map(|_| ())
    });
    let reached = sent.load(Ordering::Relaxed) > number;
    let errors: Vec<Error> = results.into_iter().filter_map(Result::err).collect();
    assert!(errors.iter().all(is_clear), "{errors:?}");
    assert!(reached || errors.is_empty(), "{fault:?}, message {number} of server {culprit}: {errors:?}");
    if reached && fault.is_length() {
        let named = errors.iter().any(|error| names(error, culprit));
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
