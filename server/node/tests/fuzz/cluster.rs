//! A small cluster in one process, of which one server's messages are what the input says.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use chacha20::ChaCha20Rng;
use rand_core::{Rng, SeedableRng};
use seco_core::{Incarnation, SessionKey};
use seco_model::{
    Dense, FixedLayer, FixedModel, Geometry, Graph, InputSpec, Known, Node, Op, PartyModel, Placement, split,
};
use seco_protocol::{
    BundleId, Channel, ChannelError, InsecureMemoryLedger, Layer, MemorySpool, OT_PARAMETER, Party,
    PlannedModel, ReluLayer, Use, memory,
};

/// Nobody waits longer: whoever fails drops the channel.
const SHORT: Duration = Duration::from_secs(5);

/// A channel of which message `number` is another.
struct Faulty<'a> {
    inner: memory::MemoryChannel,
    number: Option<u8>,
    fault: &'a [u8],
}

/// With an even first byte the rest is the message; else the message is changed: cut to a length, then XORed.
fn spoil(message: Vec<u8>, fault: &[u8]) -> Vec<u8> {
    match fault {
        [mode, rest @ ..] if mode.is_multiple_of(2) => rest.to_vec(),
        [_, cut, at @ .., value] => {
            let mut message = message;
            message.truncate(message.len().saturating_sub(usize::from(*cut)));
            let place =
                at.iter().fold(0usize, |sum, byte| sum.wrapping_mul(256).wrapping_add((*byte).into()));
            let len = message.len().max(1);
            if let Some(byte) = message.get_mut(place % len) {
                *byte ^= value;
            }
            message
        }
        _ => message,
    }
}

impl Channel for Faulty<'_> {
    fn me(&self) -> usize {
        self.inner.me()
    }

    fn parties(&self) -> usize {
        self.inner.parties()
    }

    fn send(&mut self, to: usize, message: Vec<u8>) -> Result<(), ChannelError> {
        let chosen = self.number == Some(0);
        self.number = self.number.and_then(|number| number.checked_sub(1));
        self.inner.send(to, if chosen { spoil(message, self.fault) } else { message })
    }

    fn recv(&mut self, from: usize, max: usize) -> Result<Vec<u8>, ChannelError> {
        self.inner.recv(from, max)
    }
}

/// One closure per server, each on its own thread; a panic of one is the target's.
fn all<T: Send, A: Send>(arguments: Vec<A>, work: impl Fn(usize, A) -> T + Sync) -> Vec<T> {
    let work = &work;
    std::thread::scope(|scope| {
        let spawn = |(i, a)| scope.spawn(move || work(i, a));
        let handles: Vec<_> = arguments.into_iter().enumerate().map(spawn).collect();
        handles.into_iter().map(|handle| handle.join().unwrap()).collect()
    })
}

fn seed(number: u64, server: usize) -> [u8; 32] {
    let mut seed = [0; 32];
    ChaCha20Rng::seed_from_u64(number * 1000 + server as u64).fill_bytes(&mut seed);
    seed
}

/// What an input begins with: phase, culprit, number of the message.
fn head(bytes: &[u8]) -> Option<([u8; 3], &[u8])> {
    bytes.split_first_chunk::<3>().map(|(head, rest)| (*head, rest))
}

/// A ReLU layer of three servers: set-up, preprocessing or online. Accepted is what all servers came to an end with.
pub fn step(bytes: &[u8]) -> bool {
    let Some(([phase, culprit, number], fault)) = head(bytes) else { return false };
    let layer = Layer { count: 70, width: 9, mask_width: 11, shift: 3, servers: 3, ot_parameter: 2 };
    let results = all(memory::network(3, SHORT), |i, channel| {
        let chosen = |this: u8| (phase % 3 == this && i == usize::from(culprit % 3)).then_some(number);
        let mut channel = Faulty { inner: channel, number: chosen(0), fault };
        let mut relus = ReluLayer::setup(layer, &mut channel, seed(1, i))?;
        channel.number = chosen(1);
        let spool = Box::new(MemorySpool::default());
        let bundle = relus.preprocess(bundle_id(1), &mut channel, seed(2, i), spool)?;
        channel.number = chosen(2);
        relus.evaluate(bundle, &mut channel, &mut ChaCha20Rng::from_seed(seed(3, i))).map(|_| ())
    });
    results.iter().all(Result::is_ok)
}

/// A dense layer, ReLUs, another.
pub fn model() -> FixedModel {
    let node = |width, op| Node { name: String::new(), width, op };
    let dense =
        |input, inputs, outputs| Op::Secret { input, geometry: Geometry::Dense(Dense { inputs, outputs }) };
    let nodes =
        vec![node(15, dense(0, 6, 4)), node(17, Op::Relu { input: 1, shift: 4 }), node(17, dense(2, 4, 3))];
    let last = seco_model::graph::Last::Nothing;
    let outputs = vec![seco_model::graph::Output { name: "y".to_owned(), shape: vec![3], scale: 1.0, last }];
    let graph = Graph { name: "small".to_owned(), input: InputSpec::new(vec![6], 8), nodes, outputs };
    let layer = |weights: usize, outputs: usize| FixedLayer {
        weights: (0..weights).map(|i| (i % 15) as i32 - 7).collect(),
        bias: vec![3; outputs],
    };
    FixedModel { graph, layers: vec![layer(24, 4), layer(12, 3)], known: Known::default() }
}

/// The parts of three servers.
pub fn parts() -> Vec<PartyModel> {
    let placements = [Placement::Held(0), Placement::Shared(vec![1, 2])];
    split(&model(), 3, &placements, &mut ChaCha20Rng::seed_from_u64(1)).unwrap()
}

fn planned(part: PartyModel) -> Arc<PlannedModel> {
    PlannedModel::new(Arc::new(part)).unwrap()
}

fn set_up() -> Vec<Party> {
    all(parts().into_iter().zip(memory::network(3, SHORT)).collect(), |i, (part, mut channel)| {
        Party::setup(planned(part), &mut channel, &[OT_PARAMETER; 3], seed(2, i)).unwrap()
    })
}

/// Set up once: a bundle that fails leaves nothing behind but a number that is not used again.
static PARTIES: LazyLock<Vec<Party>> = LazyLock::new(set_up);

fn bundle_id(number: u64) -> BundleId {
    BundleId(std::array::from_fn(|i| seed(number, 77)[i]))
}

/// A whole network of three servers: set-up, the linear lane, the other lane, or online.
pub fn party(bytes: &[u8]) -> bool {
    static MADE: AtomicU64 = AtomicU64::new(1);
    let Some(([phase, culprit, number], fault)) = head(bytes) else { return false };
    let chosen = |this: u8, i: usize| (phase % 4 == this && i == usize::from(culprit % 3)).then_some(number);
    let made = MADE.fetch_add(1, Ordering::Relaxed);
    if phase.is_multiple_of(4) {
        let results =
            all(parts().into_iter().zip(memory::network(3, SHORT)).collect(), |i, (part, inner)| {
                let mut channel = Faulty { inner, number: chosen(0, i), fault };
                Party::setup(planned(part), &mut channel, &[OT_PARAMETER; 3], seed(2, i)).map(|_| ())
            });
        return results.iter().all(Result::is_ok);
    }
    // Servers that disagree about the next number are set up anew, as the gateway would.
    let fresh;
    let same = PARTIES.iter().all(|party| party.next_bundle() == PARTIES[0].next_bundle());
    let parties: &[Party] = if same {
        &PARTIES
    } else {
        fresh = set_up();
        &fresh
    };
    let index = parties[0].next_bundle();
    let lanes = memory::network(3, SHORT).into_iter().zip(memory::network(3, SHORT));
    let online = memory::network(3, SHORT);
    let results = all(parties.iter().zip(lanes).zip(online).collect(), |i, ((party, (a, b)), inner)| {
        let mut linear = Faulty { inner: a, number: chosen(1, i), fault };
        let mut other = Faulty { inner: b, number: chosen(2, i), fault };
        let spool = Box::new(MemorySpool::default());
        let bundle =
            party.preprocess(bundle_id(made), index, &mut linear, &mut other, seed(made, i), spool)?;
        // The others must see that this server fails.
        drop((linear, other));
        let usage = Use { session: [1; 16], incarnation: [0; 16], counter: made };
        let spent = bundle.spend(&InsecureMemoryLedger::default(), &usage)?;
        let connection = Incarnation { nonce: [1; 16], exporter: [2; 32] };
        let key = SessionKey::from_bytes(seed(5, i)).for_connection(&connection);
        let mut channel = Faulty { inner, number: chosen(3, i), fault };
        let input = [9; 6];
        spent.infer(party.planned(), &mut channel, &key, (i == 0).then_some(&input[..])).map(|_| ())
    });
    results.iter().all(Result::is_ok)
}
