//! No tweak repeats, in any domain.

use std::collections::HashMap;
use std::sync::Mutex;

use seco_ot::{Block, Chunk, Engine, FixedKey, Kernel};

use super::{Run, batch, finish, prepare};
use crate::Hash;
use crate::convert::relu::ReluShape;

/// A hash that records under which tweaks it is used, and for which inputs.
struct Recorder {
    inner: FixedKey,
    seen: Mutex<HashMap<u128, Vec<u128>>>,
}

impl Recorder {
    fn record(&self, p: &Chunk, tweaks: &Chunk) {
        let mut seen = self.seen.lock().unwrap();
        for (p, tweak) in p.iter().zip(tweaks) {
            let inputs = seen.entry(tweak.0).or_default();
            if !inputs.contains(&p.0) {
                inputs.push(p.0);
            }
        }
    }
}

impl Hash for Recorder {
    fn run<K: Kernel>(&self, kernel: K) -> K::Output {
        self.inner.run(Recorded { kernel, recorder: self })
    }
}

/// A kernel that runs on an engine which records.
struct Recorded<'a, K> {
    kernel: K,
    recorder: &'a Recorder,
}

impl<K: Kernel> Kernel for Recorded<'_, K> {
    type Output = K::Output;

    fn run<E: Engine>(self, engine: &E) -> K::Output {
        self.kernel.run(&Recording { engine, recorder: self.recorder })
    }
}

struct Recording<'a, E> {
    engine: &'a E,
    recorder: &'a Recorder,
}

impl<E: Engine> Engine for Recording<'_, E> {
    type Lanes = E::Lanes;

    fn splat(&self, block: Block) -> E::Lanes {
        self.engine.splat(block)
    }

    fn xor(&self, a: E::Lanes, b: E::Lanes) -> E::Lanes {
        self.engine.xor(a, b)
    }

    fn select(&self, bits: u8, x: E::Lanes) -> E::Lanes {
        self.engine.select(bits, x)
    }

    fn low_bits(&self, x: E::Lanes) -> u8 {
        self.engine.low_bits(x)
    }

    fn permute<const N: usize>(&self, x: [E::Lanes; N]) -> [E::Lanes; N] {
        self.engine.permute(x)
    }

    fn hash<const N: usize>(&self, p: [E::Lanes; N], tweaks: [E::Lanes; N]) -> [E::Lanes; N] {
        for (p, tweaks) in p.iter().zip(&tweaks) {
            self.recorder.record(&bytemuck::cast(*p), &bytemuck::cast(*tweaks));
        }
        self.engine.hash(p, tweaks)
    }
}

/// Every tweak belongs to one use. Under a garbling tweak (one gate, side, target and lane) each garbler hashes the two
/// labels of one wire, and draws labels of its own; under one of a cross term or a conversion (one wire and ordered
/// pair) the sender hashes `K` and `K ^ Δ`, and the receiver's `M` is one of them; under one of a projection one
/// garbler hashes two labels. Were a tweak used a second time there would be more inputs.
#[test]
fn no_tweak_repeats() {
    let recorder = Recorder { inner: FixedKey::new([3; 16]), seen: Mutex::new(HashMap::new()) };
    let shape = ReluShape { width: 9, shift: 3, mask_width: 9 };
    // Whole vectors: what lanes beyond the last one are hashed with is not looked at and never leaves.
    let (garblers, lanes) = (3, 72);
    // Two batches of one step and one of the next, as in a bundle. (There each also has its own key.)
    let batches = [(3, 0), (3, 72), (4, 0)];
    let program = batch(shape, garblers, lanes).program;
    for (step, first_lane) in batches {
        let batch = crate::Batch { step, first_lane, ..batch(shape, garblers, lanes) };
        let run: Run = prepare(shape, batch, 8 + u64::from(step + first_lane), &recorder);
        finish(run, &vec![5; lanes], &vec![vec![0; lanes]; garblers + 1], &recorder);
    }
    let seen = recorder.seen.lock().unwrap();
    let mut counts = [0; 6];
    for (tweak, inputs) in seen.iter() {
        let domain = (tweak >> 120) as usize;
        counts[domain] += 1;
        assert_eq!(inputs.len(), if domain == 1 { 2 * garblers } else { 2 }, "domain {domain}");
    }
    let pairs = garblers * (garblers - 1);
    let each = [
        0,
        program.ands * 2 * garblers,
        program.crossed.len() * pairs,
        // Bits of ρ from each earlier seat to each later one; masks of outputs between garblers; signs from the
        // evaluator.
        9 * garblers * (garblers + 1) / 2 + 2 * pairs + garblers,
        2 * garblers,
        0,
    ];
    assert_eq!(counts, each.map(|count| count * batches.len() * lanes));
}
