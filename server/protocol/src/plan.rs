//! What follows from the public architecture: steps with their ports, evaluators, batches, message sizes, counts.
//! Nothing else computes a size or a count.

use std::ops::Range;
use std::sync::Arc;

use seco_garble::Batch;
use seco_garble::circuits::relu_program;
use seco_garble::convert::input::InputShape;
use seco_garble::convert::projection;
use seco_garble::convert::relu::{ReluShape, SHARES};
use seco_garble::program::Program;
use seco_garble::slices::{packed_len, plane_words};
use seco_model::Architecture;
use seco_model::graph::{Graph, ValueId};
use seco_ot::FixedKey;
use serde::Serialize;
use sha2::{Digest, Sha256};

use crate::BundleId;
use crate::flow::{Flow, Servers, atoms};
use crate::links::Nonce;

/// Lanes garbled as one message: enough tiles for several threads, and few enough that a wave has several batches
/// and labels stream online. A message of a ReLU of 32 bits is 2.5 MB with three servers.
const BATCH_LANES: usize = 1024;

/// Bytes of a wave: of the tables that one garbler makes, or of the ciphertexts that a holder sees. A wave costs
/// a constant number of rounds, so small models are done in one, and large ones do not grow a server's memory.
pub const WAVE_BYTES: usize = 32 << 20;

/// What one inference costs, from the public architecture.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// AND gates of all circuits.
    pub and_gates: u64,
    /// ReLUs.
    pub relus: u64,
}

impl Counts {
    /// Counts the gates of a model's compiled programs.
    pub fn of(architecture: &Architecture) -> Counts {
        Plan::new(architecture).counts()
    }
}

/// One server's part of the circuits, and its bundle.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Part {
    /// ReLUs whose circuits it evaluates; it garbles the others.
    pub relus_evaluated: u64,
    /// AND gates it evaluates.
    pub and_gates_evaluated: u64,
    /// AND gates it garbles.
    pub and_gates_garbled: u64,
    /// Bytes it keeps of one bundle.
    pub storage_bytes: u64,
}

impl Part {
    /// The part of server `me`.
    pub fn of(architecture: &Architecture, me: usize) -> Part {
        Plan::new(architecture).part(&architecture.graph, me)
    }
}

/// The device's input: no circuit. Every server brings bits of the masks and publishes its pad under them.
pub struct InputStep {
    /// Bits and mask.
    pub shape: InputShape,
    /// Servers that need `x - r`.
    pub recipients: Servers,
    /// Its batches: ranges of values.
    pub batches: Vec<Range<usize>>,
}

impl InputStep {
    /// Values.
    pub fn lanes(&self) -> usize {
        self.batches.iter().map(|lanes| lanes.len()).sum()
    }

    /// Bytes of what every server publishes.
    pub fn opening_len(&self) -> usize {
        packed_len(self.lanes(), self.shape.bits)
    }

    /// Bytes of a server's share of `x - r`.
    pub fn handed_len(&self) -> usize {
        packed_len(self.lanes(), self.shape.mask_width)
    }
}

/// A ReLU of the model with its batches. A lane reads one value and gives one. Its
/// ports: `m`, the opened value, public; `ρ`, of which every server draws its bits. Its outputs leave by projection.
pub struct Step {
    /// Number of the atom that it makes, from 1: of its mask, and in tweaks.
    pub index: usize,
    /// Steps of the same depth are done together.
    pub depth: usize,
    /// What it reads.
    pub input: ValueId,
    /// What it makes.
    pub output: ValueId,
    /// Widths.
    pub shape: ReluShape,
    /// The compiled circuit.
    pub program: Arc<Program>,
    /// The server that evaluates; the others garble.
    pub evaluator: usize,
    /// Servers.
    pub servers: usize,
    /// Those who publish what it reads under a mask.
    pub openers: Servers,
    /// Servers that need `x - r` of what it makes.
    pub recipients: Servers,
    /// Its batches in order.
    pub batches: Vec<Batch>,
}

impl Step {
    /// Number of values.
    pub fn lanes(&self) -> usize {
        self.batches.iter().map(|batch| batch.lanes).sum()
    }

    /// Number of garblers, which is also the evaluator's seat.
    pub fn garblers(&self) -> usize {
        self.servers - 1
    }

    /// A server's seat: garblers in increasing order, then the evaluator.
    pub fn seat(&self, server: usize) -> usize {
        match server.cmp(&self.evaluator) {
            std::cmp::Ordering::Less => server,
            std::cmp::Ordering::Equal => self.garblers(),
            std::cmp::Ordering::Greater => server - 1,
        }
    }

    /// The server at a seat.
    pub fn server(&self, seat: usize) -> usize {
        if seat == self.garblers() {
            self.evaluator
        } else if seat < self.evaluator {
            seat
        } else {
            seat + 1
        }
    }

    /// Bytes of what an opener publishes about `lanes` values, and every other server sends ahead.
    pub fn opening_len(&self, lanes: usize) -> usize {
        packed_len(lanes, self.shape.width)
    }

    /// Bytes of `x - r` of all lanes, which the evaluator sends.
    pub fn handed_len(&self) -> usize {
        packed_len(self.lanes(), self.shape.mask_width)
    }

    /// Bytes of a garbler's online message: labels, then the projection.
    pub fn online_len(&self, batch: &Batch) -> usize {
        batch.label_bytes()
            + projection::message_len(batch.lanes, self.shape.entries(), self.shape.mask_width)
    }

    /// Bytes of a batch that a server keeps in a bundle, the seeds of labels (a few kilobytes for all) apart.
    pub fn stored(&self, batch: &Batch, me: usize) -> usize {
        let opening = if self.openers.contains(me) { 4 * batch.lanes } else { 0 };
        let own = if me == self.evaluator {
            8 * ((batch.random_wires() + batch.program.ands) * batch.words() + self.garblers())
                + batch.material_size().bytes()
        } else {
            16 + 4 * batch.lanes * self.shape.entries()
        };
        4 * SHARES * batch.lanes + opening + own
    }
}

/// The non-linear part of a model.
pub struct Plan {
    /// The input.
    pub input: InputStep,
    /// The circuits in order of depth.
    pub steps: Vec<Step>,
    /// Who has what of the model's values.
    pub flow: Flow,
}

/// A batch of a [`Plan`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Of the input, by number.
    Input(usize),
    /// Of a step, both by number.
    Step(usize, usize),
}

impl Plan {
    /// Compiles the circuits.
    pub fn new(architecture: &Architecture) -> Plan {
        let servers = architecture.servers;
        let ranges = |count: usize| {
            (0..count).step_by(BATCH_LANES).map(move |first| first..count.min(first + BATCH_LANES))
        };
        let graph = &architecture.graph;
        let flow = Flow::new(architecture);
        let shape = InputShape { bits: graph.input.bits, mask_width: graph.width(0) };
        let batches = ranges(graph.input.len()).collect();
        let input = InputStep { shape, recipients: flow.having(0), batches };
        let mut steps = Vec::new();
        for relu in graph.activations() {
            let index = relu.index + 1;
            let shape = ReluShape { width: relu.width, shift: relu.shift, mask_width: relu.mask_width };
            let program = Arc::new(relu_program(shape.width as usize, shape.shift as usize));
            let batch = |lanes: Range<usize>| Batch {
                program: program.clone(),
                garblers: servers - 1,
                lanes: lanes.len(),
                step: index as u32,
                first_lane: lanes.start as u32,
            };
            steps.push(Step {
                index,
                depth: flow.depth(relu.node + 1),
                input: relu.input,
                output: relu.node + 1,
                shape,
                evaluator: flow.evaluator(flow.depth(relu.node + 1)),
                servers,
                openers: flow.openers(relu.input),
                recipients: flow.having(relu.node + 1),
                batches: ranges(relu.len).map(batch).collect(),
                program: program.clone(),
            });
        }
        // What has one depth stays in the order of the graph.
        steps.sort_by_key(|step| step.depth);
        Plan { input, steps, flow }
    }

    /// Gates and ReLUs.
    pub fn counts(&self) -> Counts {
        Counts {
            and_gates: self.steps.iter().map(|step| (step.program.ands * step.lanes()) as u64).sum(),
            relus: self.steps.iter().map(|step| step.lanes() as u64).sum(),
        }
    }

    /// The part of server `me`, with this plan's graph.
    pub fn part(&self, graph: &Graph, me: usize) -> Part {
        let mut part = Part::default();
        for step in &self.steps {
            for batch in &step.batches {
                let gates = (step.program.ands * batch.lanes) as u64;
                part.storage_bytes += step.stored(batch, me) as u64;
                if step.evaluator == me {
                    part.and_gates_evaluated += gates;
                    part.relus_evaluated += batch.lanes as u64;
                } else {
                    part.and_gates_garbled += gates;
                }
            }
        }
        let InputStep { shape, batches, .. } = &self.input;
        let of_input =
            |lanes: &Range<usize>| shape.bits as usize * (4 * lanes.len() + 8 * plane_words(lanes.len()));
        part.storage_bytes += batches.iter().map(|lanes| of_input(lanes) as u64).sum::<u64>();
        // Its masks and its shares of the products, as 32-bit words.
        let masks = atoms(graph).map(|(len, _)| len);
        let products = graph.layers().map(|layer| layer.geometry.outputs());
        part.storage_bytes += masks.chain(products).map(|count| 4 * count as u64).sum::<u64>();
        part
    }

    /// Bytes of a bundle that server `me` has in memory when it is complete: all but the tables, which go to its spool.
    pub fn unfinished(&self, graph: &Graph, me: usize) -> u64 {
        let evaluated = self.steps.iter().filter(|step| step.evaluator == me);
        let tables =
            evaluated.flat_map(|step| &step.batches).map(|batch| batch.material_size().bytes() as u64);
        self.part(graph, me).storage_bytes.saturating_sub(tables.sum())
    }

    /// Batches in groups that are preprocessed together: as many as have `bytes` of one garbler's tables, at least
    /// one. The input's are in the first.
    pub fn waves(&self, bytes: usize) -> Vec<Vec<Unit>> {
        let mut waves: Vec<Vec<Unit>> = vec![(0..self.input.batches.len()).map(Unit::Input).collect()];
        let mut sum = 0;
        for (step, Step { batches, .. }) in self.steps.iter().enumerate() {
            for (index, batch) in batches.iter().enumerate() {
                sum += batch.table_bytes(0);
                match waves.last_mut() {
                    Some(wave) if sum <= bytes => wave.push(Unit::Step(step, index)),
                    _ => {
                        sum = batch.table_bytes(0);
                        waves.push(vec![Unit::Step(step, index)]);
                    }
                }
            }
        }
        waves.retain(|wave| !wave.is_empty());
        waves
    }

    /// This plan without its input.
    pub fn without_input(mut self) -> Plan {
        self.input.batches.clear();
        self
    }
}

/// What the fixed AES keys of a bundle's garbling come from (section 5 of PROTOCOL.md): public, and random as long as
/// one server's nonce is.
///
/// An attacker of many instances at once gains by instances under the same key, and by work done before the key is known
/// (eprint 2019/1168). So no server, the gateway that names the bundle included, chooses keys: each contributes a nonce,
/// in the message that fixes its offset. Who sends last sees the others' nonces and can try his own, which lets him pick
/// among hashes, not a key of his choice; and no key is known before every server has drawn for this very bundle.
#[derive(Clone, Copy)]
pub struct GarblingKeys(pub [u8; 32]);

impl GarblingKeys {
    /// Of a bundle, from the cluster's set-up and everyone's nonces, in order of servers.
    pub fn new(setup: &[u8; 32], bundle: &BundleId, nonces: &[Nonce]) -> GarblingKeys {
        let mut digest =
            Sha256::new().chain_update(b"seco garbling keys v2").chain_update(setup).chain_update(bundle.0);
        for nonce in nonces {
            digest.update(nonce);
        }
        GarblingKeys(digest.finalize().into())
    }

    /// The key of a batch, as bytes. Step 0 is the input.
    fn bytes(&self, step: u32, first_lane: u32) -> [u8; 16] {
        let digest = Sha256::new()
            .chain_update(b"seco garbling key v2")
            .chain_update(self.0)
            .chain_update(step.to_le_bytes())
            .chain_update(first_lane.to_le_bytes())
            .finalize();
        std::array::from_fn(|i| digest[i])
    }

    /// The permutation of a batch.
    pub fn of(&self, step: u32, first_lane: u32) -> FixedKey {
        FixedKey::new(self.bytes(step, first_lane))
    }
}

#[cfg(test)]
mod tests {
    use seco_model::{Dense, Geometry, InputSpec, Node, Op, Placement};

    use super::*;

    /// A matrix of `hidden` rows, a ReLU and a matrix of ten.
    fn architecture(hidden: usize) -> Architecture {
        let node = |width, op| Node { name: "node".to_owned(), width, op };
        let dense = |input, inputs, outputs| Op::Secret {
            input,
            geometry: Geometry::Dense(Dense { inputs, outputs }),
        };
        let graph = Graph {
            name: "test".to_owned(),
            input: InputSpec::new(vec![64], 8),
            nodes: vec![
                node(18, dense(0, 64, hidden)),
                node(16, Op::Relu { input: 1, shift: 8 }),
                node(16, dense(2, hidden, 10)),
            ],
            outputs: Vec::new(),
        };
        Architecture { graph, placements: vec![Placement::Held(0); 2], servers: 2 }
    }

    #[test]
    fn the_parties_share_all_gates_between_them() {
        let architecture = architecture(32);
        let all = Counts::of(&architecture);
        assert_eq!((all.and_gates, all.relus), (32 * 17, 32), "none for the input");
        let [server, device] = [0, 1].map(|me| Part::of(&architecture, me));
        assert_eq!(server.and_gates_evaluated + device.and_gates_evaluated, all.and_gates);
        assert_eq!(server.and_gates_garbled, device.and_gates_evaluated);
        assert_eq!(device.and_gates_garbled, server.and_gates_evaluated);
        assert_eq!((device.relus_evaluated, server.relus_evaluated), (all.relus, 0));
    }

    #[test]
    fn a_bundle_counted_by_hand() {
        // Masks and products; of the input, eight bits and as many shares for each of 64 values.
        let words = 4 * (64 + 32 + 32 + 10);
        let input = 8 * (8 + 4 * 64);
        // Seven shares a ReLU; two blocks an AND; 18 bits of ρ, 17 permutation bits, where the labels begin.
        let evaluator = 32 * (7 * 4 + 17 * 32) + (18 + 17 + 1) * 8;
        assert_eq!(Part::of(&architecture(32), 1).storage_bytes, words + input + evaluator);
        // The holder's opening, a seed and four pads a ReLU.
        let garbler = 32 * (7 * 4 + 4 + 16) + 16;
        assert_eq!(Part::of(&architecture(32), 0).storage_bytes, words + input + garbler);
    }

    #[test]
    fn waves_have_every_batch_once() {
        let plan = Plan::new(&architecture(5000));
        for bytes in [0, 1 << 20, 1 << 30] {
            let waves = plan.waves(bytes);
            assert!(waves.iter().all(|wave| !wave.is_empty()));
            let units: Vec<Unit> = waves.concat();
            assert_eq!(units, [&[Unit::Input(0)][..], &[0, 1, 2, 3, 4].map(|b| Unit::Step(0, b))].concat());
        }
        assert!(plan.without_input().waves(0).concat().iter().all(|unit| matches!(unit, Unit::Step(..))));
    }

    /// The key depends on every server's nonce, the bundle, the set-up and the batch, each by itself.
    #[test]
    fn everyone_has_a_hand_in_the_key() {
        let (setup, bundle, nonces) = ([1; 32], BundleId([2; 16]), [[3; 32], [4; 32], [5; 32]]);
        let key = |setup, bundle, nonces: &[Nonce]| GarblingKeys::new(&setup, &bundle, nonces).bytes(0, 0);
        let mut seen = std::collections::HashSet::from([key(setup, bundle, &nonces)]);
        for server in 0..nonces.len() {
            for byte in 0..32 {
                let mut other = nonces;
                other[server][byte] ^= 1;
                assert!(seen.insert(key(setup, bundle, &other)), "server {server}, byte {byte}");
            }
        }
        let mut exchanged = nonces;
        exchanged.swap(0, 1);
        assert!(seen.insert(key(setup, bundle, &exchanged)));
        assert!(seen.insert(key(setup, bundle, &nonces[..2])));
        assert!(seen.insert(key([0; 32], bundle, &nonces)));
        assert!(seen.insert(key(setup, BundleId([0; 16]), &nonces)));
        let keys = GarblingKeys::new(&setup, &bundle, &nonces);
        assert!(!seen.insert(keys.bytes(0, 0)));
        assert!(seen.insert(keys.bytes(1, 0)) && seen.insert(keys.bytes(0, 1024)));
    }
}
