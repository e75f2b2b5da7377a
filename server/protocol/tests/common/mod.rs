//! Whole clusters in one process: real BFV, OT and garbling over in-memory channels.
// Each test file uses a part of it.
#![allow(dead_code)]

pub mod graphs;
pub mod views;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use chacha20::ChaCha20Rng;
use rand_core::{Rng, SeedableRng};
use seco_core::{Incarnation, IncarnationKey, SessionKey};
use seco_model::{Dense, Executor, FixedModel, Geometry, PartyModel, Placement, split};
use seco_protocol::{
    BundleId, Channel, ChannelError, Error, InsecureMemoryLedger, Ledger, MemorySpool, OT_PARAMETER, Party,
    PlannedModel, SpentBundle, Use, memory,
};

pub const LIMIT: Duration = Duration::from_secs(60);

/// A chain of layers of every kind; widths differ, and some accumulators wrap.
pub fn model(seed: u64) -> FixedModel {
    graphs::chain(seed, [15, 17, 14, 19])
}

/// A convolution and a matrix of three rows of ones.
pub fn small() -> FixedModel {
    let mut model = graphs::two_layers(1, Geometry::Dense(Dense { inputs: 64, outputs: 3 }), 19);
    model.layers[1].weights.fill(1);
    model.layers[1].bias.fill(0);
    model
}

pub fn input(model: &FixedModel, seed: u64) -> Vec<u8> {
    let spec = &model.graph.input;
    let mut bytes = vec![0; spec.byte_len()];
    ChaCha20Rng::seed_from_u64(seed).fill_bytes(&mut bytes);
    // Above the bits of a value there is nothing.
    let last = spec.bits - 8 * (spec.value_bytes() as u32 - 1);
    bytes
        .iter_mut()
        .skip(spec.value_bytes() - 1)
        .step_by(spec.value_bytes())
        .for_each(|b| *b &= (0xff >> (8 - last)) as u8);
    bytes
}

/// Every message that one server sent, in order: (to, bytes).
pub type Transcript = Arc<Mutex<Messages>>;

/// Messages in order: (to, bytes).
pub type Messages = Vec<(usize, Vec<u8>)>;

/// Changes a message before it is sent.
type Tamper = Box<dyn FnMut(usize, Vec<u8>) -> Vec<u8> + Send>;

/// A channel that records what is sent and may change it.
pub struct Tap<C> {
    inner: C,
    sent: Transcript,
    tamper: Option<Tamper>,
}

impl<C: Channel> Tap<C> {
    pub fn new(inner: C) -> (Tap<C>, Transcript) {
        let sent = Transcript::default();
        (Tap { inner, sent: sent.clone(), tamper: None }, sent)
    }

    pub fn tampering(inner: C, tamper: impl FnMut(usize, Vec<u8>) -> Vec<u8> + Send + 'static) -> Tap<C> {
        Tap { inner, sent: Transcript::default(), tamper: Some(Box::new(tamper)) }
    }
}

impl<C: Channel> Channel for Tap<C> {
    fn me(&self) -> usize {
        self.inner.me()
    }

    fn parties(&self) -> usize {
        self.inner.parties()
    }

    fn send(&mut self, to: usize, mut message: Vec<u8>) -> Result<(), ChannelError> {
        if let Some(tamper) = &mut self.tamper {
            message = tamper(to, message);
        }
        self.sent.lock().unwrap().push((to, message.clone()));
        self.inner.send(to, message)
    }

    fn recv(&mut self, from: usize, max: usize) -> Result<Vec<u8>, ChannelError> {
        self.inner.recv(from, max)
    }
}

/// Runs one closure per server, each on its own thread.
pub fn all<T: Send, A: Send>(arguments: Vec<A>, work: impl Fn(usize, A) -> T + Sync) -> Vec<T> {
    std::thread::scope(|scope| {
        let handles: Vec<_> = arguments
            .into_iter()
            .enumerate()
            .map(|(i, a)| {
                let work = &work;
                scope.spawn(move || work(i, a))
            })
            .collect();
        handles.into_iter().map(|h| h.join().unwrap()).collect()
    })
}

pub fn seed(number: u64, server: usize) -> [u8; 32] {
    let mut seed = [0; 32];
    ChaCha20Rng::seed_from_u64(number * 1000 + server as u64).fill_bytes(&mut seed);
    seed
}

/// Splits a model and sets a cluster up.
pub fn cluster(model: &FixedModel, servers: usize, placements: &[Placement], number: u64) -> Vec<Party> {
    cluster_with(model, servers, placements, number, |_, _| OT_PARAMETER)
}

/// With the parameter of oblivious transfer for each link.
pub fn cluster_with(
    model: &FixedModel,
    servers: usize,
    placements: &[Placement],
    number: u64,
    parameter: impl Fn(usize, usize) -> usize + Sync,
) -> Vec<Party> {
    let parts = parts(model, servers, placements, number);
    let channels = memory::network(servers, LIMIT);
    all(parts.into_iter().zip(channels).collect(), |i, (part, mut channel)| {
        let parameters: Vec<usize> = (0..servers).map(|peer| parameter(i, peer)).collect();
        Party::setup(PlannedModel::new(part).unwrap(), &mut channel, &parameters, seed(number, i)).unwrap()
    })
}

pub fn parts(
    model: &FixedModel,
    servers: usize,
    placements: &[Placement],
    number: u64,
) -> Vec<Arc<PartyModel>> {
    let mut rng = ChaCha20Rng::seed_from_u64(number);
    split(model, servers, placements, &mut rng).unwrap().into_iter().map(Arc::new).collect()
}

/// A device and the keys it shares with the servers.
pub fn session(servers: usize, number: u64) -> Vec<IncarnationKey> {
    let connection = Incarnation { nonce: [1; 16], exporter: [2; 32] };
    let key = |i| SessionKey::from_bytes(seed(number ^ 0xdead, i)).for_connection(&connection);
    (0..servers).map(key).collect()
}

/// What two phases of one inference sent: per server, preprocessing (both lanes) and online.
pub struct Sent {
    pub preprocessing: Vec<Messages>,
    pub online: Vec<Messages>,
}

pub fn bundle_id(number: u64) -> BundleId {
    BundleId(std::array::from_fn(|i| seed(number, 77)[i]))
}

/// Makes a bundle.
pub fn preprocess(parties: &[Party], number: u64) -> (Vec<SpentBundle>, Vec<Messages>) {
    let (servers, index) = (parties.len(), parties[0].next_bundle());
    let lanes: Vec<_> =
        memory::network(servers, LIMIT).into_iter().zip(memory::network(servers, LIMIT)).collect();
    let made = all(parties.iter().zip(lanes).collect(), |i, (party, (linear, nonlinear))| {
        let ((mut linear, a), (mut nonlinear, b)) = (Tap::new(linear), Tap::new(nonlinear));
        let bundle = party
            .preprocess(
                bundle_id(number),
                index,
                &mut linear,
                &mut nonlinear,
                seed(number, i),
                Box::new(MemorySpool::default()),
            )
            .unwrap();
        let ledger = InsecureMemoryLedger::default();
        let spent = bundle.spend(&ledger, &usage(9, number)).unwrap();
        let mut sent = std::mem::take(&mut *a.lock().unwrap());
        sent.append(&mut b.lock().unwrap());
        (spent, sent)
    });
    made.into_iter().unzip()
}

/// What a bundle is spent for.
pub fn usage(session: u8, counter: u64) -> Use {
    Use { session: [session; 16], incarnation: [0; 16], counter }
}

/// The online phase: logits after the device's unmasking, and what was sent.
pub fn infer(
    parties: &[Party],
    bundles: Vec<SpentBundle>,
    keys: &[IncarnationKey],
    counter: u64,
    input: &[u8],
) -> (Vec<i32>, Vec<Messages>) {
    let mut masked = input.to_vec();
    for key in keys {
        key.apply_input_pad(counter, &mut masked).unwrap();
    }
    let channels = memory::network(parties.len(), LIMIT);
    let results = all(
        parties.iter().zip(bundles).zip(channels).collect(),
        |i, ((party, bundle), channel)| -> (Result<Option<Vec<u32>>, Error>, _) {
            let (mut channel, sent) = Tap::new(channel);
            let input = (i == 0).then_some(masked.as_slice());
            let answer = bundle.infer(party.planned(), &mut channel, &keys[i], input);
            let sent = std::mem::take(&mut *sent.lock().unwrap());
            (answer, sent)
        },
    );
    let (mut answers, sent): (Vec<_>, Vec<_>) = results.into_iter().unzip();
    let mut sum = answers.remove(0).unwrap().unwrap();
    for answer in answers {
        assert!(answer.unwrap().is_none());
    }
    let width = parties[0].architecture().graph.answer_width();
    let logits = unmask(&mut sum, keys, counter, width);
    (logits, sent)
}

/// The logits, from the masked ones.
pub fn unmask(sum: &mut [u32], keys: &[IncarnationKey], counter: u64, width: u32) -> Vec<i32> {
    for key in keys {
        let mut pad = vec![0u32; sum.len()];
        key.output_pad(counter, width, &mut pad).unwrap();
        sum.iter_mut().zip(pad).for_each(|(s, p)| *s = s.wrapping_sub(p));
    }
    sum.iter().map(|&s| ((s << (32 - width)) as i32) >> (32 - width)).collect()
}

/// Preprocessing and online phase of one inference.
pub fn run(parties: &[Party], number: u64, input: &[u8]) -> (Vec<i32>, Sent) {
    let (bundles, preprocessing) = preprocess(parties, number);
    let keys = session(parties.len(), number);
    let (logits, online) = infer(parties, bundles, &keys, number, input);
    (logits, Sent { preprocessing, online })
}

pub fn plain(model: &FixedModel, input: &[u8]) -> Vec<i32> {
    Executor::new(model).unwrap().run(input).unwrap().logits
}

/// A ledger that counts.
pub struct Refusing;

impl Ledger for Refusing {
    fn spend(&self, _: &BundleId, _: &Use) -> Result<(), seco_protocol::LedgerError> {
        Err(seco_protocol::LedgerError::BundleSpent)
    }
}
