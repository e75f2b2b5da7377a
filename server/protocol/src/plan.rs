//! What follows from the public architecture: circuits, evaluators, batches, counts.

use std::sync::Arc;

use seco_garble::Batch;
use seco_garble::circuits::{Circuit, Spec};
use seco_model::{Activation, Architecture};
use seco_ot::FixedKey;
use sha2::{Digest, Sha256};

use crate::BundleId;

/// Lanes garbled as one message: enough tiles for several threads, and few enough that a wave has several batches
/// and labels stream online. A message of a ReLU of 32 bits is 12 MB with three servers.
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
    /// Counts a model's gates for its number of servers.
    pub fn of(architecture: &Architecture) -> Counts {
        let and_gates = steps(architecture)
            .iter()
            .map(|(spec, lanes)| (Circuit::and_gates(spec, architecture.servers) * lanes) as u64)
            .sum();
        Counts { and_gates, relus: architecture.relus() as u64 }
    }
}

/// The circuit that makes activation `i`, and its lanes, for every activation.
fn steps(architecture: &Architecture) -> Vec<(Spec, usize)> {
    let mut steps = Vec::with_capacity(architecture.layers.len());
    let mask_width = |activation| architecture.mask_width(activation) as usize;
    steps.push((
        Spec::Input { bits: architecture.input.bits as usize, mask_width: mask_width(0) },
        architecture.input.len(),
    ));
    for (i, layer) in architecture.layers.iter().enumerate() {
        if let Activation::Relu { shift } = layer.activation {
            let spec = Spec::Relu {
                width: layer.width as usize,
                shift: shift as usize,
                mask_width: mask_width(i + 1),
                holders: layer.placement.holders().to_vec(),
            };
            steps.push((spec, layer.geometry.outputs()));
        }
    }
    steps
}

/// A circuit of the model with its batches.
pub struct Step {
    /// The compiled circuit.
    pub circuit: Arc<Circuit>,
    /// Its batches in order.
    pub batches: Vec<Batch>,
}

/// All circuits of a model. Step `i` makes activation `i`.
pub struct Plan {
    /// The steps.
    pub steps: Vec<Step>,
}

impl Plan {
    /// Compiles the circuits. The evaluator rotates: step `i` is evaluated by server `i mod n`, so
    /// the gateway evaluates the input circuit, whose masked input it already has.
    pub fn new(architecture: &Architecture) -> Plan {
        let servers = architecture.servers;
        let mut steps_out = Vec::new();
        for (index, (spec, lanes)) in steps(architecture).into_iter().enumerate() {
            let circuit = Arc::new(Circuit::compile(&spec, servers, index % servers));
            let mut batches = Vec::new();
            for first in (0..lanes).step_by(BATCH_LANES) {
                let count = BATCH_LANES.min(lanes - first);
                let batch = Batch {
                    circuit: circuit.clone(),
                    lanes: count,
                    layer: index as u32,
                    first_lane: first as u32,
                };
                batches.push(batch);
            }
            steps_out.push(Step { circuit, batches });
        }
        Plan { steps: steps_out }
    }

    /// Batches, as (step, batch), in groups that are preprocessed together: as many as have `bytes` of one
    /// garbler's tables, at least one.
    pub fn waves(&self, bytes: usize) -> Vec<Vec<(usize, usize)>> {
        let mut waves: Vec<Vec<(usize, usize)>> = Vec::new();
        let mut sum = 0;
        for (step, Step { batches, .. }) in self.steps.iter().enumerate() {
            for (index, batch) in batches.iter().enumerate() {
                sum += batch.table_bytes(0);
                match waves.last_mut() {
                    Some(wave) if sum <= bytes => wave.push((step, index)),
                    _ => {
                        sum = batch.table_bytes(0);
                        waves.push(vec![(step, index)]);
                    }
                }
            }
        }
        waves
    }

    /// This plan without any batch of other steps.
    pub fn only(mut self, step: usize) -> Plan {
        for (index, other) in self.steps.iter_mut().enumerate() {
            if index != step {
                other.batches.clear();
            }
        }
        self
    }
}

/// The fixed AES key of one batch: public, and fresh for every bundle and batch (multi-instance
/// attacks, eprint 2019/1168).
pub fn garbling_key(bundle: &BundleId, batch: &Batch) -> FixedKey {
    let digest = Sha256::new()
        .chain_update(b"seco garbling key v1")
        .chain_update(bundle.0)
        .chain_update(batch.layer.to_le_bytes())
        .chain_update(batch.first_lane.to_le_bytes())
        .finalize();
    FixedKey::new(std::array::from_fn(|i| digest[i]))
}
