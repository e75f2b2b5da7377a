//! What follows from the public architecture: circuits, evaluators, batches, counts.

use std::sync::Arc;

use seco_garble::Batch;
use seco_garble::circuits::{Circuit, Spec};
use seco_model::{Activation, Architecture};
use seco_ot::FixedKey;
use sha2::{Digest, Sha256};

use crate::BundleId;
use crate::links::Nonce;

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

/// What the fixed AES keys of a bundle's garbling come from (`protocol.md` section 5): public, and random as long as one
/// server's nonce is.
///
/// An attacker of many instances at once gains by instances under the same key, and by work done before the key is known
/// (eprint 2019/1168). So no server, the gateway that names the bundle included, chooses keys: each contributes a nonce,
/// in the message that fixes its offset. Who sends last sees the others' nonces and can try his own, which lets him pick
/// among hashes, not a key of his choice; and no key is known before every server has drawn for this very bundle.
#[derive(Clone, Copy)]
pub struct GarblingKeys([u8; 32]);

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

    /// The key of a batch, as bytes.
    fn bytes(&self, batch: &Batch) -> [u8; 16] {
        let digest = Sha256::new()
            .chain_update(b"seco garbling key v2")
            .chain_update(self.0)
            .chain_update(batch.layer.to_le_bytes())
            .chain_update(batch.first_lane.to_le_bytes())
            .finalize();
        std::array::from_fn(|i| digest[i])
    }

    /// The permutation of a batch.
    pub fn of(&self, batch: &Batch) -> FixedKey {
        FixedKey::new(self.bytes(batch))
    }
}

#[cfg(test)]
mod tests {
    use seco_garble::circuits::{Circuit, Spec};

    use super::*;

    fn batch(layer: u32, first_lane: u32) -> Batch {
        let circuit = Arc::new(Circuit::compile(&Spec::Input { bits: 8, mask_width: 16 }, 3, 0));
        Batch { circuit, lanes: 1, layer, first_lane }
    }

    /// The key depends on every server's nonce, the bundle, the set-up and the batch, each by itself.
    #[test]
    fn everyone_has_a_hand_in_the_key() {
        let (setup, bundle, nonces) = ([1; 32], BundleId([2; 16]), [[3; 32], [4; 32], [5; 32]]);
        let first = batch(0, 0);
        let key = |setup, bundle, nonces: &[Nonce]| GarblingKeys::new(&setup, &bundle, nonces).bytes(&first);
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
        assert!(!seen.insert(keys.bytes(&first)));
        assert!(seen.insert(keys.bytes(&batch(1, 0))) && seen.insert(keys.bytes(&batch(0, 1024))));
    }
}
