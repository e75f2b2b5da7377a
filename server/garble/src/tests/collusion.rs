//! What a coalition of the evaluator and all garblers but one can decode (`protocol.md` section 1,
//! "Two defects", and section 5).
//!
//! The adversary has the evaluator's state and, of its garblers, deltas, labels and mask shares. All
//! that labels and deltas tell about a wire is its masked value `ẑ` (a garbler's active label is its
//! zero label or that XOR its delta, according to `ẑ`); the best guess of the wire is `ẑ` XOR the
//! mask shares it has. The real evaluator computes just that when the honest garbler withholds its
//! shares of the wires' masks.

use std::sync::Arc;

use super::*;
use crate::gates::Gates;
use crate::program::Compiler;

const TRIALS: usize = 10_000;

/// Fraction of right guesses for each output wire of `program`, when `honest` (a garbler position, if
/// any) withholds its masks. `values` computes the wires' clear values from the first garbler's
/// online word and all ahead words.
fn success(circuit: Circuit, honest: Option<usize>, values: impl Fn(u32, &[u32]) -> Vec<bool>) -> Vec<f64> {
    let mut rng = ChaCha20Rng::seed_from_u64(17);
    let hash = FixedKey::new([4; 16]);
    let batch = Batch { circuit: Arc::new(circuit), lanes: TRIALS, layer: 0, first_lane: 0 };
    let prepared = prepare_batch(batch, 23, &hash, |batch, position, tables| {
        if Some(position) == honest {
            clear_output_masks(batch, tables);
        }
    });
    let ahead: Vec<Vec<u32>> = prepared.ahead.iter().flatten().cloned().collect();
    let online = words(TRIALS, 1, &mut rng);
    let outputs = prepared.batch.circuit.program.outputs.len();
    let guesses = finish(prepared, std::slice::from_ref(&online), &hash);
    (0..outputs)
        .map(|wire| {
            let right = (0..TRIALS).filter(|&t| {
                let ahead: Vec<u32> = ahead.iter().map(|w| w[t]).collect();
                (guesses[t] >> wire & 1 == 1) == values(online[t], &ahead)[wire]
            });
            right.count() as f64 / TRIALS as f64
        })
        .collect()
}

/// Takes a garbler's shares of the outputs' masks out of its message.
pub(super) fn clear_output_masks(batch: &Batch, tables: &mut [u8]) {
    let masks = batch.circuit.program.outputs.len() * batch.words() * 8;
    let end = tables.len();
    tables[end - masks..].fill(0);
}

/// Wires `v` (garbler 0's online bit), `v ^ s`, `v & s`, `(v & s) & t` with `s`, `t` ahead bits of
/// garblers 0 and the last one.
pub(super) fn circuit(servers: usize, evaluator: usize, mask: Mask) -> Circuit {
    let mut compiler = Compiler::default();
    let mut v = compiler.word(Source::Online(mask), 1)[0];
    if mask == Mask::None {
        let random = compiler.word(Source::Choice, 1)[0];
        v = compiler.xor(v, random);
    }
    let s = compiler.word(Source::Ahead(0), 1)[0];
    let t = compiler.word(Source::Ahead(servers - 2), 1)[0];
    let x = compiler.xor(v, s);
    let a = compiler.and(v, s);
    let b = compiler.and(a, t);
    Circuit { program: compiler.finish(&[v, x, a, b]), evaluator, servers }
}

fn wires(v: u32, ahead: &[u32]) -> Vec<bool> {
    let (v, s, t) = (v == 1, ahead[0] == 1, ahead[1] == 1);
    vec![v, v ^ s, v & s, v & s & t]
}

/// Evaluator and all garblers but one: every honest wire is a coin toss.
#[test]
fn all_but_one_learn_nothing() {
    for servers in [3, 4] {
        for evaluator in 0..servers {
            let rates = success(circuit(servers, evaluator, Mask::One(0)), Some(0), wires);
            for (wire, rate) in rates.iter().enumerate() {
                assert!((0.48..=0.52).contains(rate), "n={servers} E={evaluator} wire {wire}: {rate}");
            }
        }
    }
}

/// The paper's roles: B garbles alone, C evaluates, A's input label passes through C. B and C
/// corrupt own every label of every wire and the active one, so A's inputs and all that follows are
/// read in every trial: this is the defect that garbling with all servers repairs. A's bit `v` enters
/// as a wire whose mask is C's alone, not A's: [`Mask::None`] and a random bit of the evaluator.
#[test]
fn the_papers_roles_leak_everything() {
    for rate in success(circuit(2, 1, Mask::None), None, wires) {
        assert!(rate == 1.0, "{rate}");
    }
}

/// The harness can fail: with nobody honest, everything decodes.
#[test]
fn all_together_read_everything() {
    for rate in success(circuit(3, 1, Mask::One(0)), None, wires) {
        assert!(rate == 1.0, "{rate}");
    }
}
