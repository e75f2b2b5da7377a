//! Whole batches with a dealer for the correlations (the protocol crate runs real OT): the private
//! result equals the clear one; no tweak repeats; hostile messages are refused.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use chacha20::ChaCha20Rng;
use rand_core::{Rng, SeedableRng};
use seco_ot::{Bits, Block, Chunk, Delta, Engine, FixedKey, Kernel};
use zeroize::Zeroizing;

use crate::circuits::{Circuit, Spec};
use crate::program::{Mask, Source};
use crate::slices::plane_words;
mod collusion;
mod views;

use crate::{Batch, Evaluator, Garbler, Hash, Material, MaterialSize, OnlineEvaluator, OnlineGarbler};

/// A dealer's correlated OTs: `M = K ^ choice·Δ`.
fn deal(
    choices: &Bits,
    delta: &Delta,
    rng: &mut ChaCha20Rng,
) -> (Zeroizing<Vec<Block>>, Zeroizing<Vec<Block>>) {
    let keys: Vec<Block> = (0..choices.len()).map(|_| Block::random(rng)).collect();
    let macs = keys.iter().enumerate().map(|(i, &k)| k ^ delta.block().select(choices.mask(i))).collect();
    (Zeroizing::new(macs), Zeroizing::new(keys))
}

fn words(count: usize, width: usize, rng: &mut ChaCha20Rng) -> Vec<u32> {
    (0..count).map(|_| rng.next_u32() & (u32::MAX >> (32 - width))).collect()
}

/// Everything of one run.
struct Run {
    batch: Batch,
    deltas: Vec<Delta>,
    /// Ahead words by garbler, in order.
    ahead: Vec<Vec<Vec<u32>>>,
    /// The evaluator's random words.
    choice: Vec<Vec<u32>>,
    garblers: Vec<OnlineGarbler>,
    evaluator: OnlineEvaluator,
    material: Material,
    /// Choice bits by garbler, packed.
    choices: Vec<Vec<u64>>,
    /// What each garbler told all others: its corrections.
    corrections: Vec<Vec<u8>>,
}

fn prepare(spec: &Spec, servers: usize, evaluator: usize, lanes: usize, seed: u64, hash: &impl Hash) -> Run {
    let circuit = Arc::new(Circuit::compile(spec, servers, evaluator));
    let batch = Batch { circuit, lanes, layer: 3, first_lane: 1000 };
    prepare_batch(batch, seed, hash, |_, _, _| ())
}

/// Preprocessing of a batch. `tamper` sees every garbler's tables before the evaluator does.
fn prepare_batch(
    batch: Batch,
    seed: u64,
    hash: &impl Hash,
    tamper: impl Fn(&Batch, usize, &mut Vec<u8>),
) -> Run {
    let mut rng = ChaCha20Rng::seed_from_u64(seed);
    let lanes = batch.lanes;
    let program = &batch.circuit.program;
    let garblers = batch.garblers();
    let deltas: Vec<Delta> = (0..garblers).map(|_| Delta::random(&mut rng)).collect();
    let widths = |source: Source| -> Vec<usize> {
        program.words.iter().filter(|w| w.source == source).map(|w| w.width).collect()
    };
    let ahead: Vec<Vec<Vec<u32>>> = (0..garblers)
        .map(|g| widths(Source::Ahead(g)).iter().map(|&w| words(lanes, w, &mut rng)).collect())
        .collect();
    let choice: Vec<Vec<u32>> = widths(Source::Choice).iter().map(|&w| words(lanes, w, &mut rng)).collect();
    let started: Vec<Garbler> = (0..garblers)
        .map(|g| {
            let refs: Vec<&[u32]> = ahead[g].iter().map(Vec::as_slice).collect();
            Garbler::new(batch.clone(), g, &refs, &mut rng).unwrap()
        })
        .collect();
    let choice_refs: Vec<&[u32]> = choice.iter().map(Vec::as_slice).collect();
    let receiving = Evaluator::new(batch.clone(), &choice_refs).unwrap();
    let choices = started.iter().map(|garbler| garbler.choices().words().to_vec()).collect();

    let empty = || Zeroizing::new(Vec::new());
    let mut received: Vec<Vec<_>> = (0..garblers).map(|_| (0..garblers).map(|_| empty()).collect()).collect();
    let mut keys: Vec<Vec<_>> = (0..garblers).map(|_| (0..garblers).map(|_| empty()).collect()).collect();
    for j in 0..garblers {
        for i in (0..garblers).filter(|&i| i != j) {
            let (macs, ks) = deal(&started[j].choices(), &deltas[i], &mut rng);
            received[j][i] = macs;
            keys[i][j] = ks;
        }
    }
    let mut labels = Vec::new();
    let mut zero_labels = Vec::new();
    for delta in &deltas {
        let (active, zero) = deal(&receiving.choices(), delta, &mut rng);
        labels.push(active);
        zero_labels.push(zero);
    }
    let (mut crossed, mut bits) = (Vec::new(), Vec::new());
    for (((g, r), k), z) in started.into_iter().zip(received).zip(keys).zip(zero_labels) {
        let position = crossed.len();
        let (state, message) = g.correlate(r, k, z).unwrap().cross(&deltas[position], hash);
        crossed.push(state);
        bits.push(message);
    }
    let (mut corrected, mut corrections) = (Vec::new(), Vec::new());
    for (g, state) in crossed.into_iter().enumerate() {
        let incoming: Vec<Vec<u8>> = (0..garblers).map(|i| bits[i][g].clone()).collect();
        let (state, message) = state.correct(&incoming).unwrap();
        corrected.push(state);
        corrections.push(message);
    }
    let mut folding = receiving.receive(labels).unwrap();
    let mut online = Vec::new();
    for (g, state) in corrected.into_iter().enumerate() {
        let (garbler, mut tables) = state
            .garble(&deltas[g], &corrections, hash, &mut rng, vec![7; (2 - g % 2) * batch.table_bytes(g)])
            .unwrap();
        assert_eq!(tables.len(), batch.table_bytes(g));
        tamper(&batch, g, &mut tables);
        assert!(folding.tables(g, tables[1..].to_vec()).is_err(), "truncated tables");
        folding.tables(g, tables.clone()).unwrap();
        assert!(folding.tables(g, tables).is_err(), "tables sent twice");
        online.push(garbler);
    }
    let mut used = Material::zeros(MaterialSize { labels: 3, tables: 5000 });
    used.bytes_mut().fill(7);
    let (evaluator, stored) = folding.prefix(hash, used).unwrap();
    // As if it had been on disk meanwhile.
    let mut material = Material::zeros(batch.material_size());
    material.bytes_mut().copy_from_slice(stored.bytes());
    Run { batch, deltas, ahead, choice, garblers: online, evaluator, material, choices, corrections }
}

/// Runs the online phase. `online` are the clear words of the online inputs: for an `Input` the
/// bits' XOR parts (folded, one per garbler, then the evaluator's), for a `Relu` the holders' words.
fn finish(run: Run, online: &[Vec<u32>], hash: &impl Hash) -> Vec<u32> {
    let Run { batch, deltas, garblers, evaluator, material, .. } = run;
    let mut masked = Vec::new();
    let mut next = online.iter();
    for word in &batch.circuit.program.words {
        match word.source {
            Source::Online(Mask::One(g)) => masked.extend(garblers[g].mask(next.next().unwrap()).unwrap()),
            Source::Online(Mask::None) => masked.extend(evaluator.correct(next.next().unwrap()).unwrap()),
            Source::Online(Mask::All) => {
                let mut sum = vec![0u64; word.width * plane_words(batch.lanes)];
                for garbler in &garblers {
                    let part = garbler.mask(next.next().unwrap()).unwrap();
                    sum.iter_mut().zip(part).for_each(|(s, p)| *s ^= p);
                }
                let part = evaluator.correct(next.next().unwrap()).unwrap();
                sum.iter_mut().zip(part).for_each(|(s, p)| *s ^= p);
                masked.extend(sum);
            }
            _ => {}
        }
    }
    let labels: Vec<Vec<u8>> =
        garblers.into_iter().zip(&deltas).map(|(g, d)| g.labels(d, &masked).unwrap()).collect();
    evaluator.evaluate(&material, &masked, &labels, hash).unwrap()
}

fn low(width: usize) -> u32 {
    u32::MAX >> (32 - width)
}

fn check_relu(servers: usize, evaluator: usize, holders: &[usize], lanes: usize, hash: &impl Hash) {
    let (width, shift, mask_width) = (14, 5, 11);
    let spec = Spec::Relu { width, shift, mask_width, holders: holders.to_vec() };
    let run = prepare(&spec, servers, evaluator, lanes, 7 + lanes as u64, hash);
    let mut rng = ChaCha20Rng::seed_from_u64(99);
    let online: Vec<Vec<u32>> = holders.iter().map(|_| words(lanes, width, &mut rng)).collect();
    let mut expected = vec![0u32; lanes];
    let mut masks = vec![0u32; lanes];
    for (g, ahead) in run.ahead.iter().enumerate() {
        let holder = holders.contains(&run.batch.circuit.server(g));
        let mut ahead = ahead.iter();
        if !holder {
            expected.iter_mut().zip(ahead.next().unwrap()).for_each(|(e, s)| *e = e.wrapping_add(*s));
        }
        masks.iter_mut().zip(ahead.next().unwrap()).for_each(|(m, r)| *m = m.wrapping_add(*r));
    }
    if !holders.contains(&evaluator) {
        expected.iter_mut().zip(&run.choice[0]).for_each(|(e, s)| *e = e.wrapping_add(*s));
    }
    for word in &online {
        expected.iter_mut().zip(word).for_each(|(e, s)| *e = e.wrapping_add(*s));
    }
    let got = finish(run, &online, hash);
    for lane in 0..lanes {
        let signed = ((expected[lane] << (32 - width)) as i32) >> (32 - width);
        let activation = (signed >> shift).max(0) as u32;
        let want = activation.wrapping_sub(masks[lane]) & low(mask_width);
        assert_eq!(got[lane], want, "n={servers} E={evaluator} holders={holders:?} lane {lane}");
    }
}

#[test]
fn relu_equals_clear_for_every_role() {
    let hash = FixedKey::new([9; 16]);
    for servers in 2..=4 {
        for evaluator in 0..servers {
            for holders in [vec![0], vec![servers - 1], (0..servers).collect(), vec![0, servers - 1]] {
                check_relu(servers, evaluator, &holders, 70, &hash);
            }
        }
    }
}

#[test]
fn lanes_of_any_number() {
    let hash = FixedKey::new([1; 16]);
    for lanes in [1, 63, 64, 65, 127, 128, 129, 257] {
        check_relu(3, 1, &[0], lanes, &hash);
        check_relu(2, 1, &[0], lanes, &hash);
    }
}

#[test]
fn portable_path_gives_the_same() {
    let (fast, slow) = (FixedKey::new([5; 16]), FixedKey::portable([5; 16]));
    check_relu(3, 2, &[0, 2], 100, &slow);
    let spec = Spec::Relu { width: 12, shift: 3, mask_width: 12, holders: vec![0] };
    let online = vec![words(100, 12, &mut ChaCha20Rng::seed_from_u64(1))];
    let a = prepare(&spec, 3, 0, 100, 5, &fast);
    let b = prepare(&spec, 3, 0, 100, 5, &slow);
    assert_eq!(
        finish(a, &online, &slow),
        finish(b, &online, &fast),
        "tables made on either path fit the other"
    );
}

#[test]
fn input_equals_clear() {
    let hash = FixedKey::new([2; 16]);
    for servers in 2..=4 {
        for evaluator in 0..servers {
            let (bits, mask_width, lanes) = (8, 19, 200);
            let run = prepare(&Spec::Input { bits, mask_width }, servers, evaluator, lanes, 3, &hash);
            let mut rng = ChaCha20Rng::seed_from_u64(4);
            let parts: Vec<Vec<u32>> = (0..servers).map(|_| words(lanes, bits, &mut rng)).collect();
            let mut masks = vec![0u32; lanes];
            for ahead in &run.ahead {
                masks.iter_mut().zip(&ahead[0]).for_each(|(m, r)| *m = m.wrapping_add(*r));
            }
            let got = finish(run, &parts, &hash);
            for lane in 0..lanes {
                let x = parts.iter().fold(0, |x, p| x ^ p[lane]);
                assert_eq!(got[lane], x.wrapping_sub(masks[lane]) & low(mask_width));
            }
        }
    }
}

/// Two ciphertexts per AND with two servers; `16(n-1)(3n-4)` bytes in all with more.
#[test]
fn bytes_per_and() {
    for (servers, sent, stored) in [(2, 32, 32), (3, 160, 96), (4, 384, 144)] {
        let spec = Spec::Relu { width: 20, shift: 8, mask_width: 20, holders: vec![0] };
        let circuit = Arc::new(Circuit::compile(&spec, servers, 1));
        let batch = Batch { circuit, lanes: 64, layer: 0, first_lane: 0 };
        let ands = batch.circuit.program.ands * batch.lanes;
        let rows: usize = (0..batch.garblers()).map(|_| batch.rows_sent() * 16).sum();
        assert_eq!(rows, sent, "n = {servers}");
        assert_eq!(batch.rows_stored() * 16, stored);
        // What a message has besides: seed, permutation bits, output masks.
        let extra = batch.table_bytes(0) - batch.rows_sent() * ands * 16;
        assert!(extra <= 16 + ands / 8 + 8 * 20);
    }
}

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

/// Every tweak belongs to one gate, side, target (or ordered pair) and lane: under a garbling tweak
/// each garbler hashes the two labels of one wire, under a cross tweak the sender hashes `K` and
/// `K ^ Δ` (the receiver's `M` is one of them). Were a tweak used for a second gate there would be
/// more inputs. The garblers draw different labels, hence `2 (n-1)` under a garbling tweak.
#[test]
fn no_tweak_repeats() {
    let recorder = Recorder { inner: FixedKey::new([3; 16]), seen: Mutex::new(HashMap::new()) };
    let spec = Spec::Relu { width: 9, shift: 3, mask_width: 9, holders: vec![0, 2] };
    // Whole vectors: what lanes beyond the last one are hashed with is not looked at and never leaves.
    let (servers, lanes, evaluator) = (4, 72, 1);
    let circuit = Arc::new(Circuit::compile(&spec, servers, evaluator));
    let ands = circuit.program.ands;
    // Two batches of one layer and one of the next, as in a bundle. (There each also has its own key.)
    let batches = [(3, 0), (3, 72), (4, 0)];
    for (layer, first_lane) in batches {
        let batch = Batch { circuit: circuit.clone(), lanes, layer, first_lane };
        let run = prepare_batch(batch, 8 + u64::from(layer + first_lane), &recorder, |_, _, _| ());
        let mut rng = ChaCha20Rng::seed_from_u64(1);
        let online: Vec<Vec<u32>> = (0..2).map(|_| words(lanes, 9, &mut rng)).collect();
        finish(run, &online, &recorder);
    }
    let seen = recorder.seen.lock().unwrap();
    let garblers = servers - 1;
    let (mut garbling, mut cross) = (0, 0);
    for (tweak, inputs) in seen.iter() {
        match tweak >> 120 {
            1 => {
                garbling += 1;
                assert_eq!(inputs.len(), 2 * garblers);
            }
            _ => {
                cross += 1;
                assert_eq!(inputs.len(), 2);
            }
        }
    }
    assert_eq!(garbling, batches.len() * ands * lanes * 2 * garblers);
    assert_eq!(cross, batches.len() * ands * lanes * garblers * (garblers - 1));
}

#[test]
fn hostile_messages_are_refused() {
    let hash = FixedKey::new([7; 16]);
    let spec = Spec::Relu { width: 9, shift: 3, mask_width: 9, holders: vec![0] };
    let run = prepare(&spec, 3, 1, 64, 8, &hash);
    let masked = vec![0u64; run.batch.online_inputs()];
    assert!(run.garblers[0].mask(&[1, 2]).is_err());
    let good = run.batch.label_bytes();
    for (i, length) in [0, 1, good - 1, good + 1].into_iter().enumerate() {
        let run = prepare(&spec, 3, 1, 64, i as u64, &hash);
        let labels = [vec![0; good], vec![0; length]];
        assert!(run.evaluator.evaluate(&run.material, &masked, &labels, &hash).is_err());
    }
    let other = prepare(&spec, 2, 1, 64, 9, &hash);
    let labels = [vec![1; good], vec![2; good]];
    assert!(other.evaluator.evaluate(&run.material, &masked, &labels, &hash).is_err(), "another batch's");
    let mut garblers = run.garblers.into_iter();
    assert!(garblers.next().unwrap().labels(&run.deltas[0], &masked[1..]).is_err());
    // Wrong labels give a wrong answer, not a panic.
    assert_eq!(run.evaluator.evaluate(&run.material, &masked, &labels, &hash).unwrap().len(), 64);
}

/// A circuit whose slots overlap, or that reads what it did not write, is refused by whoever would garble or evaluate
/// it: with one XOR or AND left out or read from the wrong place, labels would say nothing and masks nothing hide.
#[test]
fn damaged_circuits_are_refused() {
    use crate::program::{Op, Operand, Program};
    let spec = Spec::Relu { width: 9, shift: 3, mask_width: 9, holders: vec![0] };
    let circuit = Circuit::compile(&spec, 3, 1);
    let refused = |damage: &dyn Fn(&mut Program)| {
        let mut circuit = Circuit { program: circuit.program.clone(), ..circuit };
        damage(&mut circuit.program);
        let batch = Batch { circuit: Arc::new(circuit), lanes: 64, layer: 0, first_lane: 0 };
        let rng = &mut ChaCha20Rng::seed_from_u64(1);
        let word = [0; 64];
        let words = |source| {
            vec![&word[..]; batch.circuit.program.words.iter().filter(|w| w.source == source).count()]
        };
        let results = [
            Garbler::new(batch.clone(), 0, &words(Source::Ahead(0)), rng).is_err(),
            Evaluator::new(batch.clone(), &words(Source::Choice)).is_err(),
        ];
        assert_eq!(results[0], results[1]);
        results[0]
    };
    assert!(!refused(&|_| ()));
    let xor = circuit.program.ops.iter().position(|op| matches!(op, Op::Xor { .. })).unwrap();
    let and = circuit.program.ops.iter().position(|op| matches!(op, Op::And { .. })).unwrap();
    let Op::Xor { dst, a, b } = circuit.program.ops[xor] else { unreachable!() };
    for (dst, a, b) in [(dst, a, a), (a, a, b), (b, a, b), (u32::MAX, a, b), (dst, u32::MAX, b)] {
        assert!(refused(&|program| program.ops[xor] = Op::Xor { dst, a, b }), "{dst} {a} {b}");
    }
    let Op::And { dst, a, b } = circuit.program.ops[and] else { unreachable!() };
    let operand = |slot| Operand { slot, negated: false };
    for (dst, a, b) in [(dst, a, a), (a.slot, a, b), (dst, a, operand(u32::MAX))] {
        assert!(refused(&|program| program.ops[and] = Op::And { dst, a, b }));
    }
    assert!(refused(&|program| program.ops[0] = Op::Xor { dst: 0, a: 1, b: 2 }), "nothing written yet");
    assert!(refused(&|program| program.ops[0] = Op::Input { dst: 0, input: u32::MAX }));
    assert!(refused(&|program| program.slots = 1));
    assert!(refused(&|program| program.ands += 1));
    assert!(refused(&|program| program.prefix_ands += 1));
    assert!(refused(&|program| program.prefix = usize::MAX));
    assert!(refused(&|program| program.live.push(u32::MAX)));
    assert!(refused(&|program| program.outputs[0].slot = u32::MAX));
    assert!(refused(&|program| {
        program.ops.remove(and);
    }));
}
