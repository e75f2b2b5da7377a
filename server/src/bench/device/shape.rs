//! What follows from a model's public shape: the device's part of the circuits, and the size of what
//! it keeps between preprocessing and the request.

use seco_garble::circuits::{Circuit, Spec};
use seco_garble::program::Source;
use seco_garble::slices::plane_words;
use seco_model::{Activation, Architecture};
use serde::Serialize;

/// A label: 128 bits.
const BLOCK: u64 = 16;

/// A party's part of the circuits, and its bundle.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Part {
    /// ReLUs whose circuits it evaluates; it garbles the others.
    pub relus_evaluated: u64,
    /// AND gates it evaluates, those of the input's circuit included.
    pub and_gates_evaluated: u64,
    /// AND gates it garbles.
    pub and_gates_garbled: u64,
    /// Bytes it keeps of one bundle.
    pub storage_bytes: u64,
}

/// The part of party `me`.
pub fn part(architecture: &Architecture, me: usize) -> Part {
    let mut part = Part::default();
    for (step, (spec, lanes)) in steps(architecture).iter().enumerate() {
        // The protocol's rotation of roles.
        let evaluator = step % architecture.servers;
        let circuit = Circuit::compile(spec, architecture.servers, evaluator);
        let gates = (circuit.program.ands * lanes) as u64;
        if evaluator == me {
            part.and_gates_evaluated += gates;
            part.relus_evaluated += if step > 0 { *lanes as u64 } else { 0 };
            part.storage_bytes += kept_by_evaluator(&circuit, *lanes);
        } else {
            part.and_gates_garbled += gates;
            part.storage_bytes += kept_by_garbler(&circuit, *lanes);
        }
    }
    // Its masks and its shares of the products, as 32-bit words.
    let words = |layer: &seco_model::Layer| 4 * (layer.geometry.inputs() + layer.geometry.outputs()) as u64;
    part.storage_bytes += architecture.layers.iter().map(words).sum::<u64>();
    part
}

/// The circuit before each linear layer and its lanes: the input's, then one for every ReLU layer.
fn steps(architecture: &Architecture) -> Vec<(Spec, usize)> {
    let mask_width = |activation| architecture.mask_width(activation) as usize;
    let input = Spec::Input { bits: architecture.input.bits as usize, mask_width: mask_width(0) };
    let relus = architecture.layers.iter().enumerate().filter_map(|(i, layer)| match layer.activation {
        Activation::Relu { shift } => {
            let spec = Spec::Relu {
                width: layer.width as usize,
                shift: shift as usize,
                mask_width: mask_width(i + 1),
                holders: layer.placement.holders().to_vec(),
            };
            Some((spec, layer.geometry.outputs()))
        }
        Activation::Output { .. } => None,
    });
    [(input, architecture.input.len())].into_iter().chain(relus).collect()
}

/// With one garbler: the tables that need an online value, the labels and masked values on which
/// those gates hang, permutation and output bits, and the evaluator's own random bits.
fn kept_by_evaluator(circuit: &Circuit, lanes: usize) -> u64 {
    let program = &circuit.program;
    let (lanes, words) = (lanes as u64, 8 * plane_words(lanes) as u64);
    let tables = 2 * BLOCK * (program.ands - program.prefix_ands) as u64 * lanes;
    let live = program.live.len() as u64 * (BLOCK * lanes + words);
    let bits = program.ands + program.outputs.len() + program.count(|s| s == Source::Choice);
    tables + live + bits as u64 * words
}

/// The zero labels of inputs that are known online, and a bit for every input.
fn kept_by_garbler(circuit: &Circuit, lanes: usize) -> u64 {
    let program = &circuit.program;
    let online = program.count(|s| matches!(s, Source::Online(_))) as u64;
    let all = program.sources().count() as u64;
    online * BLOCK * lanes as u64 + all * 8 * plane_words(lanes) as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use seco_model::{Dense, Geometry, InputSpec, Layer, Placement};
    use seco_protocol::Counts;

    fn layer(inputs: usize, outputs: usize, width: u32, activation: Activation) -> Layer {
        let geometry = Geometry::Dense(Dense { inputs, outputs });
        Layer { name: "fc".to_owned(), geometry, width, activation, placement: Placement::Held(0) }
    }

    fn architecture() -> Architecture {
        Architecture {
            name: "test".to_owned(),
            input: InputSpec::new(vec![64], 8),
            layers: vec![
                layer(64, 32, 18, Activation::Relu { shift: 8 }),
                layer(32, 10, 16, Activation::Output { fraction: 8 }),
            ],
            servers: 2,
        }
    }

    #[test]
    fn the_parties_share_all_gates_between_them() {
        let architecture = architecture();
        architecture.check().unwrap();
        let all = Counts::of(&architecture);
        let [server, device] = [0, 1].map(|me| part(&architecture, me));
        assert_eq!(server.and_gates_evaluated + device.and_gates_evaluated, all.and_gates);
        assert_eq!(server.and_gates_garbled, device.and_gates_evaluated);
        assert_eq!(device.and_gates_garbled, server.and_gates_evaluated);
        assert_eq!((device.relus_evaluated, server.relus_evaluated), (all.relus, 0));
        // One subtraction mod 2^18 for every input value.
        assert_eq!(device.and_gates_garbled, 64 * 17);
    }

    #[test]
    fn a_bundle_counted_by_hand() {
        // The device garbles the input's circuit: 8 online bits with a label each, for 64 lanes, and a
        // bit for each of 8 + 8 + 18 inputs. It evaluates 32 ReLUs.
        let garbler = 8 * 16 * 64 + (8 + 8 + 18) * 8;
        let words = 4 * (64 + 32 + 32 + 10);
        let circuit = Circuit::compile(&steps(&architecture())[1].0, 2, 1);
        let program = &circuit.program;
        // Nothing can be added ahead: the device's share is the only word known then, and the server's
        // mask needs no gate.
        assert_eq!(program.prefix_ands, 0);
        let evaluator =
            32 * program.ands * 32 + program.live.len() * (16 * 32 + 8) + (program.ands + 16 + 18) * 8;
        assert_eq!(part(&architecture(), 1).storage_bytes, (garbler + words + evaluator) as u64);
    }
}
