//! Tests of the whole crate.

mod calibration;
mod conformance;
mod files;
mod graphs;
mod hostile;
mod inputs;
mod logits;
mod numbers;
mod onnx;
pub mod operators;
mod parts;
mod products;
mod samples;

use chacha20::ChaCha20Rng;
use rand_core::{Rng, SeedableRng};

/// A repeatable generator.
pub fn generator(seed: u64) -> ChaCha20Rng {
    ChaCha20Rng::seed_from_u64(seed)
}

/// A number from `low` to `high`, both included.
pub fn pick(rng: &mut ChaCha20Rng, low: usize, high: usize) -> usize {
    low + rng.next_u32() as usize % (high - low + 1)
}

/// What the passes promise of a network, or which of it does not hold.
pub fn passed(real: &crate::real::Real) -> Result<(), String> {
    use crate::real::RealOp;
    let masked = real.masked();
    let mut read = vec![false; real.nodes.len() + 1];
    real.outputs.iter().for_each(|output| read[output.value] = true);
    for (number, node) in real.nodes.iter().enumerate().rev() {
        let name = &node.origin.name;
        if !read[number + 1] {
            return Err(format!("nothing reads {name}"));
        }
        for value in node.op.inputs() {
            if value > number {
                return Err(format!("{name} reads what comes later"));
            }
            read[value] = true;
        }
        match &node.op {
            RealOp::Scale { .. } => return Err(format!("a scale is left: {name}")),
            RealOp::Linear(layer) if !masked[layer.input] => {
                return Err(format!("{name} reads a shared value"));
            }
            _ => {}
        }
    }
    Ok(())
}
