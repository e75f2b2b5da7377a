//! A small cluster in one process, of which one server's messages are what the input says.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, Mutex};
use std::time::Duration;

use chacha20::ChaCha20Rng;
use rand_core::{Rng, SeedableRng};
use seco_core::{Incarnation, SessionKey};
use seco_model::{
    Dense, FixedLayer, FixedModel, Geometry, Graph, InputSpec, Known, Node, Op, PartyModel, Placement, split,
};
use seco_protocol::{
    Bundle, BundleId, Channel, ChannelError, InsecureMemoryLedger, Layer, Material, MemorySpool,
    OT_PARAMETER, Party, PlannedModel, ReluLayer, Spool as _, Use, memory,
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

/// What an input begins with: phase or kind, culprit, number of the message.
fn head(bytes: &[u8]) -> Option<([u8; 3], &[u8])> {
    bytes.split_first_chunk::<3>().map(|(head, rest)| (*head, rest))
}

/// After so many inputs what they share is tried without a fault: no input may have spoilt it.
const CONTROL: u64 = 128;

/// Counts the inputs of a target that use what is shared; tells whether this one's fault is left out.
fn is_control(count: &AtomicU64) -> bool {
    count.fetch_add(1, Ordering::Relaxed) % CONTROL == CONTROL - 1
}

const LAYER: Layer = Layer { count: 70, width: 9, mask_width: 11, shift: 3, servers: 3, ot_parameter: 2 };

/// The set-up of three servers, of a ReLU layer or of a whole network: nothing is shared, so it is a target by itself.
pub fn set_up(bytes: &[u8]) -> bool {
    let Some(([kind, culprit, number], fault)) = head(bytes) else { return false };
    let results = all(memory::network(3, SHORT), |i, inner| {
        let number = (i == usize::from(culprit % 3)).then_some(number);
        let mut channel = Faulty { inner, number, fault };
        if kind.is_multiple_of(2) {
            ReluLayer::setup(LAYER, &mut channel, seed(1, i)).map(|_| ())
        } else {
            Party::setup(PLANNED[i].clone(), &mut channel, &[OT_PARAMETER; 3], seed(2, i)).map(|_| ())
        }
    });
    results.iter().all(Result::is_ok)
}

/// A ReLU layer of three servers: preprocessing or online. Accepted is what all servers came to an end with.
pub fn step(bytes: &[u8]) -> bool {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    /// Set up once: every bundle takes seeds of its own before it sends or hears anything.
    static LAYERS: LazyLock<Mutex<Vec<ReluLayer>>> = LazyLock::new(|| {
        let channels = memory::network(3, SHORT);
        Mutex::new(all(channels, |i, mut channel| ReluLayer::setup(LAYER, &mut channel, seed(1, i)).unwrap()))
    });
    let Some(([phase, culprit, number], fault)) = head(bytes) else { return false };
    let phase = phase % 2;
    let control = is_control(&COUNT);
    let chosen =
        |this: u8, i: usize| (!control && phase == this && i == usize::from(culprit % 3)).then_some(number);
    let channels = memory::network(3, SHORT);
    let mut layers = LAYERS.lock().unwrap();
    let results = all(layers.iter_mut().zip(channels).collect(), |i, (relus, inner)| {
        let mut channel = Faulty { inner, number: chosen(0, i), fault };
        let spool = Box::new(MemorySpool::default());
        let bundle = relus.preprocess(bundle_id(1), &mut channel, seed(2, i), spool)?;
        if phase == 0 {
            return Ok(());
        }
        channel.number = chosen(1, i);
        relus.evaluate(bundle, &mut channel, &mut ChaCha20Rng::from_seed(seed(3, i))).map(|_| ())
    });
    let accepted = results.iter().all(Result::is_ok);
    assert!(accepted || !control, "an input has spoilt what others share");
    accepted
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

static PLANNED: LazyLock<Vec<Arc<PlannedModel>>> =
    LazyLock::new(|| parts().into_iter().map(|part| PlannedModel::new(Arc::new(part)).unwrap()).collect());

/// A server's part.
pub fn planned_part(server: usize) -> &'static PlannedModel {
    &PLANNED[server]
}

fn bundle_id(number: u64) -> BundleId {
    BundleId(std::array::from_fn(|i| seed(number, 77)[i]))
}

/// A cluster that is set up.
struct Cluster {
    parties: Vec<Party>,
    /// Bundles that it may make before its keys have to be renewed, which a bundle that fails can keep from happening.
    left: usize,
}

impl Cluster {
    const BUNDLES: usize = 60;

    fn set_up() -> Cluster {
        let channels = memory::network(3, SHORT);
        let parties = all(channels, |i, mut channel| {
            Party::setup(PLANNED[i].clone(), &mut channel, &[OT_PARAMETER; 3], seed(2, i)).unwrap()
        });
        Cluster { parties, left: Cluster::BUNDLES }
    }

    /// Makes bundle `id`. `spoilt` says which message of which lane is another.
    fn preprocess(
        &mut self,
        id: u64,
        spoilt: impl Fn(u8, usize) -> Option<u8> + Sync,
        fault: &[u8],
    ) -> Vec<Result<Bundle, seco_protocol::Error>> {
        if self.left == 0 {
            *self = Cluster::set_up();
        }
        self.left -= 1;
        let index = self.parties[0].next_bundle();
        assert!(self.parties.iter().all(|party| party.next_bundle() == index));
        let lanes = memory::network(3, SHORT).into_iter().zip(memory::network(3, SHORT));
        all(self.parties.iter().zip(lanes).collect(), |i, (party, (a, b))| {
            // Dropped at the end: the others must see that this server fails.
            let mut linear = Faulty { inner: a, number: spoilt(1, i), fault };
            let mut other = Faulty { inner: b, number: spoilt(2, i), fault };
            let spool = Box::new(MemorySpool::default());
            party.preprocess(bundle_id(id), index, &mut linear, &mut other, seed(id, i), spool)
        })
    }
}

/// A bundle on one server, as a file has it.
pub struct Stored {
    pub encoded: Vec<u8>,
    materials: Vec<Material>,
}

impl Stored {
    fn spool(&self) -> Box<MemorySpool> {
        let mut spool = MemorySpool::default();
        for material in &self.materials {
            let mut copy = Material::zeros(material.size());
            copy.bytes_mut().copy_from_slice(material.bytes());
            spool.put(copy).unwrap();
        }
        Box::new(spool)
    }
}

/// One bundle, by server. Whoever uses it uses a copy.
pub fn stored() -> &'static [Stored] {
    static STORED: LazyLock<Vec<Stored>> = LazyLock::new(|| {
        let bundles = Cluster::set_up().preprocess(0, |_, _| None, &[]);
        let store = |bundle: Bundle| {
            let encoded = bundle.encode().to_vec();
            let mut spool = bundle.into_spool();
            Stored { encoded, materials: std::iter::from_fn(|| spool.take().ok()).collect() }
        };
        bundles.into_iter().map(|bundle| store(bundle.unwrap())).collect()
    });
    &STORED
}

/// A whole network of three servers: the linear lane, the other lane, or online.
pub fn party(bytes: &[u8]) -> bool {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    /// Set up once: a bundle that fails leaves nothing behind but a number that is not used again.
    static CLUSTER: LazyLock<Mutex<Cluster>> = LazyLock::new(|| Mutex::new(Cluster::set_up()));
    let Some(([phase, culprit, number], fault)) = head(bytes) else { return false };
    // Lanes cost ten times what a stored bundle does, homomorphic encryption above all.
    let phase = match phase % 8 {
        lane @ (1 | 2) => lane,
        _ => 3,
    };
    let control = is_control(&COUNT);
    let chosen =
        |this: u8, i: usize| (!control && phase == this && i == usize::from(culprit % 3)).then_some(number);
    let accepted = match phase {
        3 => {
            let channels = memory::network(3, SHORT);
            let results = all(stored().iter().zip(channels).collect(), |i, (stored, inner)| {
                let planned = &PLANNED[i];
                let usage = Use { session: [1; 16], incarnation: [0; 16], counter: 1 };
                let bundle = Bundle::decode(&stored.encoded, planned, stored.spool())?;
                let spent = bundle.spend(&InsecureMemoryLedger::default(), &usage)?;
                let connection = Incarnation { nonce: [1; 16], exporter: [2; 32] };
                let key = SessionKey::from_bytes(seed(5, i)).for_connection(&connection);
                let mut channel = Faulty { inner, number: chosen(3, i), fault };
                let input = [9; 6];
                spent.infer(planned, &mut channel, &key, (i == 0).then_some(&input[..])).map(|_| ())
            });
            results.iter().all(Result::is_ok)
        }
        _ => {
            let id = COUNT.load(Ordering::Relaxed);
            let results = CLUSTER.lock().unwrap().preprocess(id, chosen, fault);
            results.iter().all(Result::is_ok)
        }
    };
    assert!(accepted || !control, "an input has spoilt what others share");
    accepted
}
