//! Whole batches with a dealer for the correlations (the protocol crate runs real OT): the private
//! result equals the clear one; no tweak repeats; hostile messages are refused.

mod collusion;
mod recording;
mod reference;
mod views;

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use chacha20::ChaCha20Rng;
use rand_core::{Rng, SeedableRng};
use seco_ot::{Bits, Block, Delta, FixedKey, Keys, Macs};
use zeroize::Zeroizing;

use crate::circuits::relu_program;
use crate::convert::pads::SeatPads;
use crate::convert::projection;
use crate::convert::relu::{Conversion, Exchange, ReluShape, ReluShares};
use crate::convert::{Mask, Opened, Opening, Part, Share};
use crate::program::Source;
use crate::slices::from_lanes;
use crate::{
    Active, Batch, Evaluator, Garbler, Hash, Labels, LambdaBits, MaskedBits, Material, MaterialSize,
    OnlineEvaluator, OnlineGarbler,
};

/// A dealer's correlated OTs: `M = K ^ choice·Δ`.
fn deal(choices: &Bits, delta: &Delta, rng: &mut ChaCha20Rng) -> (Macs, Keys) {
    let keys: Vec<Block> = (0..choices.len()).map(|_| Block::random(rng)).collect();
    let macs = keys.iter().enumerate().map(|(i, &k)| k ^ delta.block().select(choices.mask(i))).collect();
    (Macs::from_blocks(macs), Keys::from_blocks(keys))
}

/// The same MACs again, as the evaluator's seeds give them.
fn again(macs: &Macs) -> Macs {
    Macs::from_blocks(macs.blocks().to_vec())
}

/// What all garblers get for their choices towards each other: MACs by receiver and sender, keys by sender and receiver.
fn between(
    garblers: &[Garbler],
    deltas: &[Delta],
    rng: &mut ChaCha20Rng,
) -> (Vec<Vec<Macs>>, Vec<Vec<Keys>>) {
    fn none<T: Default>(count: usize) -> Vec<Vec<T>> {
        (0..count).map(|_| (0..count).map(|_| T::default()).collect()).collect()
    }
    let (mut received, mut keys) = (none(garblers.len()), none(garblers.len()));
    for (j, garbler) in garblers.iter().enumerate() {
        for i in (0..garblers.len()).filter(|&i| i != j) {
            (received[j][i], keys[i][j]) = deal(&garbler.choices(), &deltas[i], rng);
        }
    }
    (received, keys)
}

pub(crate) fn low(width: u32) -> u32 {
    u32::MAX >> (32 - width)
}

/// Messages between seats, by (from, to).
type Queues = HashMap<(usize, usize), VecDeque<Vec<u8>>>;

/// One seat's view of the messages.
struct Seat<'a> {
    me: usize,
    queues: &'a mut Queues,
}

impl Exchange for Seat<'_> {
    type Error = ();

    fn send(&mut self, seat: usize, message: Vec<u8>) -> Result<(), ()> {
        assert_ne!(seat, self.me);
        self.queues.entry((self.me, seat)).or_default().push_back(message);
        Ok(())
    }

    fn recv(&mut self, seat: usize, length: usize) -> Result<Vec<u8>, ()> {
        let message = self.queues.get_mut(&(seat, self.me)).and_then(VecDeque::pop_front).ok_or(())?;
        assert_eq!(message.len(), length);
        Ok(message)
    }
}

/// Everything of one run after preprocessing.
pub(crate) struct Run {
    batch: Batch,
    shape: ReluShape,
    deltas: Vec<Delta>,
    garblers: Vec<OnlineGarbler>,
    evaluator: OnlineEvaluator,
    material: Material,
    /// Active labels of the random wires, by garbler.
    active: Vec<Macs>,
    /// By seat.
    shares: Vec<ReluShares>,
    /// `ρ` in the clear: the XOR of everyone's bits, and by seat.
    pub(crate) rho: Vec<Vec<u64>>,
    /// Additive shares of `ρ` by seat.
    pub(crate) rho_shares: Vec<Opening>,
    /// By garbler: pads of the projection.
    projection: Vec<projection::Pads>,
    /// `λ^j` of the outputs by garbler.
    pub(crate) masks: Vec<Vec<u64>>,
    /// Choice bits by garbler, packed.
    choices: Vec<Vec<u64>>,
}

pub(crate) fn batch(shape: ReluShape, garblers: usize, lanes: usize) -> Batch {
    let program = Arc::new(relu_program(shape.width as usize, shape.shift as usize));
    Batch { program, garblers, lanes, step: 3, first_lane: 1024 }
}

/// Preprocessing of a batch.
pub(crate) fn prepare(shape: ReluShape, batch: Batch, seed: u64, hash: &impl Hash) -> Run {
    let rng = &mut ChaCha20Rng::seed_from_u64(seed);
    let (garblers, lanes, stride) = (batch.garblers, batch.lanes, batch.stride());
    // The evaluator's is the last.
    let deltas: Vec<Delta> = (0..=garblers).map(|_| Delta::random(rng)).collect();
    let started: Vec<Garbler> = (0..garblers).map(|g| Garbler::new(batch.clone(), g, rng).unwrap()).collect();
    let receiving = Evaluator::new(batch.clone(), rng).unwrap();
    let choices = started.iter().map(|garbler| garbler.choices().words().to_vec()).collect();
    let mut rho: Vec<Vec<u64>> = started.iter().map(|g| g.random().planes().to_vec()).collect();
    rho.push(receiving.random().planes().to_vec());
    let masks: Vec<Vec<u64>> = started.iter().map(|g| g.output_masks().planes().to_vec()).collect();

    let (mut received, mut keys) = between(&started, &deltas, rng);
    let (labels, mut zero_labels): (Vec<_>, Vec<_>) =
        deltas[..garblers].iter().map(|delta| deal(&receiving.choices(), delta, rng)).unzip();
    let (reverse, reverse_keys): (Vec<_>, Vec<_>) = masks
        .iter()
        .map(|masks| {
            let choices = Bits::from_words(masks[..batch.words()].to_vec(), stride);
            deal(&choices, &deltas[garblers], rng)
        })
        .unzip();

    let (mut crossed, mut bits, mut conversions) = (Vec::new(), Vec::new(), Vec::new());
    for (g, garbler) in started.into_iter().enumerate() {
        let (rho, masks) = (garbler.random(), garbler.output_masks());
        let (received, keys) = (std::mem::take(&mut received[g]), std::mem::take(&mut keys[g]));
        let correlated = garbler.correlate(received, keys, std::mem::take(&mut zero_labels[g])).unwrap();
        let (mut state, outputs) = correlated.cross(&deltas[g], hash);
        let pads = SeatPads::garbler(&state, &outputs, &reverse[g], &deltas[g], hash);
        conversions.push(Conversion::new(shape, [garblers, g, lanes], rho, masks, pads).unwrap());
        bits.push((0..garblers).map(|i| state.message(i)).collect::<Vec<_>>());
        crossed.push(state);
    }
    let random = receiving.random();
    let mut folding = receiving.receive(labels.iter().map(again).collect()).unwrap();
    let pads = SeatPads::evaluator(&folding, &reverse_keys, &deltas[garblers], hash);
    conversions.push(
        Conversion::new(shape, [garblers, garblers, lanes], random, LambdaBits::default(), pads).unwrap(),
    );

    let mut queues = Queues::new();
    for round in 1..=Conversion::rounds(garblers) {
        for (me, conversion) in conversions.iter_mut().enumerate() {
            conversion.round(round, &mut Seat { me, queues: &mut queues }).unwrap();
        }
    }
    assert!(queues.values().all(VecDeque::is_empty), "nothing is left");

    let (mut corrected, mut corrections) = (Vec::new(), Vec::new());
    for (g, state) in crossed.into_iter().enumerate() {
        let incoming: Vec<Vec<u8>> = (0..garblers).map(|i| bits[i][g].clone()).collect();
        let (state, message) = state.correct(&incoming).unwrap();
        assert_eq!(message.len(), batch.bit_bytes());
        corrected.push(state);
        corrections.push(message);
    }
    let (mut online, mut projection) = (Vec::new(), Vec::new());
    for (g, state) in corrected.into_iter().enumerate() {
        let (garbler, outputs, tables) = state
            .garble(&deltas[g], &corrections, hash, rng, vec![7; (2 - g % 2) * batch.table_bytes(g)])
            .unwrap();
        assert_eq!(tables.len(), batch.table_bytes(g));
        projection.push(projection::garbler_pads(&batch, g, &outputs, &deltas[g], hash));
        assert!(folding.tables(g, tables[1..].to_vec()).is_err(), "truncated tables");
        folding.tables(g, tables.clone()).unwrap();
        assert!(folding.tables(g, tables).is_err(), "tables sent twice");
        online.push(garbler);
    }
    let mut used = Material::zeros(MaterialSize { tables: 5000 });
    used.bytes_mut().fill(7);
    let (evaluator, stored) = folding.fold(hash, used).unwrap();
    // As if it had been on disk meanwhile.
    let mut material = Material::zeros(batch.material_size());
    material.bytes_mut().copy_from_slice(stored.bytes());
    let rho_shares = conversions.iter().map(Conversion::rho).collect();
    let shares = conversions.into_iter().map(Conversion::finish).collect();
    Run {
        batch,
        shape,
        deltas,
        garblers: online,
        evaluator,
        material,
        active: labels,
        shares,
        rho,
        rho_shares,
        projection,
        masks,
        choices,
    }
}

/// What the online phase shows: `m`, the masked outputs, the garblers' opened entries, the sum.
pub(crate) struct Outcome {
    pub(crate) m: Opened,
    pub(crate) masked: MaskedBits,
    pub(crate) labels: Vec<Labels<Active>>,
    /// The answer minus all masks, mod `2^κ`.
    pub(crate) value: Vec<u32>,
}

/// The garblers' messages of labels.
pub(crate) fn active_labels(
    garblers: Vec<OnlineGarbler>,
    deltas: &[Delta],
    planes: &[u64],
    hash: &impl Hash,
) -> Vec<Vec<u8>> {
    let message = |(garbler, delta): (OnlineGarbler, &Delta)| {
        let mut message = Vec::new();
        garbler.labels(delta, planes, hash, &mut message).unwrap();
        message
    };
    garblers.into_iter().zip(deltas).map(message).collect()
}

/// Runs the online phase for the values `z`; `r` are the servers' parts of the next mask by seat.
pub(crate) fn finish(run: Run, z: &[u32], r: &[Vec<u32>], hash: &impl Hash) -> Outcome {
    let Run {
        batch,
        shape,
        deltas,
        garblers,
        evaluator,
        material,
        active,
        shares,
        rho_shares,
        projection,
        ..
    } = run;
    let ReluShape { width, mask_width, .. } = shape;
    let mut z = Some(share(z));
    let parts = rho_shares.iter().map(|rho| {
        let z = z.take().unwrap_or_else(|| Share::zeros(batch.lanes));
        z.under([(0..batch.lanes, rho)]).unwrap()
    });
    let m = add_up(parts).open(width);
    let planes = m.all().planes(width);
    let labels = active_labels(garblers, &deltas, &planes, hash);
    let messages: Vec<Vec<u8>> = projection
        .iter()
        .enumerate()
        .map(|(g, pads)| {
            let answers = shares[g].answers(m.all(), mask(&r[g]).all());
            let mut message = Vec::new();
            projection::close(&answers, pads, batch.lanes, mask_width, &mut message);
            assert_eq!(message.len(), projection::message_len(batch.lanes, shape.entries(), mask_width));
            message
        })
        .collect();
    let evaluated = evaluator.evaluate(&material, &planes, &labels, &active, hash).unwrap();
    let answers = shares[batch.garblers].answers_at(m.all(), &evaluated.masked);
    let mut value = answers.less(mask(&r[batch.garblers]).all()).unwrap();
    let chosen = projection::Chosen::new(&evaluated.masked, shape.outputs(), batch.lanes, mask_width);
    for (g, message) in messages.iter().enumerate() {
        let pads = projection::evaluator_pads(&batch, g, &evaluated.labels[g], &chosen, hash);
        projection::open(message, &chosen, &pads, &mut value);
    }
    let value = value.open().slice().iter().map(|value| value & low(mask_width)).collect();
    Outcome { m, masked: evaluated.masked, labels: evaluated.labels, value }
}

pub(crate) fn share(words: &[u32]) -> Share {
    Share::new(Zeroizing::new(words.to_vec()))
}

pub(crate) fn mask(words: &[u32]) -> Mask {
    Mask::new(Zeroizing::new(words.to_vec()))
}

/// All servers' parts.
fn add_up<V>(parts: impl Iterator<Item = Part<V>>) -> Part<V> {
    let add = |mut sum: Part<V>, part: Part<V>| {
        sum.add(&part);
        sum
    };
    parts.reduce(add).unwrap()
}

pub(crate) fn random_words(count: usize, rng: &mut ChaCha20Rng) -> Vec<u32> {
    (0..count).map(|_| rng.next_u32()).collect()
}

/// Values at the edges of the ring, then random ones.
fn values(lanes: usize, width: u32, rng: &mut ChaCha20Rng) -> Vec<u32> {
    let half = 1u32 << (width - 1);
    let edges = [0, 1, half - 1, half, half.wrapping_add(1), low(width), low(width) - 1];
    (0..lanes).map(|lane| edges.get(lane).copied().unwrap_or_else(|| rng.next_u32()) & low(width)).collect()
}

fn check(shape: ReluShape, garblers: usize, lanes: usize, hash: &impl Hash) {
    let ReluShape { width, shift, mask_width } = shape;
    let seed = u64::from(width * 100 + shift) + lanes as u64;
    let rng = &mut ChaCha20Rng::seed_from_u64(seed);
    let run = prepare(shape, batch(shape, garblers, lanes), seed, hash);
    let z = values(lanes, width, rng);
    let r: Vec<Vec<u32>> = (0..=garblers).map(|_| random_words(lanes, rng)).collect();
    let outcome = finish(run, &z, &r, hash);
    for lane in 0..lanes {
        let signed = ((z[lane] << (32 - width)) as i32) >> (32 - width);
        let mask = r.iter().fold(0u32, |sum, r| sum.wrapping_add(r[lane]));
        let expected = ((signed >> shift).max(0) as u32).wrapping_sub(mask) & low(mask_width);
        assert_eq!(
            outcome.value[lane], expected,
            "{shape:?}, {garblers} garblers, lane {lane}, z = {}",
            z[lane]
        );
    }
}

/// Every width and shift, masks narrower and wider than the layer.
#[test]
fn relu_equals_clear_at_every_width_and_shift() {
    let hash = FixedKey::new([9; 16]);
    for width in 2..=32 {
        for shift in 0..width {
            for (i, mask_width) in [1, (width - shift).max(1), width, 32].into_iter().enumerate() {
                let garblers = 1 + (shift as usize + i) % 3;
                check(ReluShape { width, shift, mask_width }, garblers, 20, &hash);
            }
        }
    }
}

#[test]
fn relu_equals_clear_for_two_to_five_servers() {
    let hash = FixedKey::new([9; 16]);
    for garblers in 1..=4 {
        for (width, shift, mask_width) in [(20, 8, 20), (14, 5, 11), (9, 0, 13), (6, 5, 6), (2, 1, 2)] {
            check(ReluShape { width, shift, mask_width }, garblers, 200, &hash);
        }
    }
}

#[test]
fn lanes_of_any_number() {
    let hash = FixedKey::new([1; 16]);
    for lanes in [1, 63, 64, 65, 127, 128, 129, 257] {
        for garblers in [1, 2] {
            check(ReluShape { width: 12, shift: 4, mask_width: 15 }, garblers, lanes, &hash);
        }
    }
}

#[test]
fn portable_path_gives_the_same() {
    let (fast, slow) = (FixedKey::new([5; 16]), FixedKey::portable([5; 16]));
    let shape = ReluShape { width: 12, shift: 3, mask_width: 12 };
    check(shape, 2, 100, &slow);
    let z = values(100, 12, &mut ChaCha20Rng::seed_from_u64(1));
    let r = vec![vec![0; 100]; 3];
    let a = prepare(shape, batch(shape, 2, 100), 5, &fast);
    let b = prepare(shape, batch(shape, 2, 100), 5, &slow);
    assert_eq!(a.material.bytes(), b.material.bytes());
    assert_eq!(finish(a, &z, &r, &slow).value, finish(b, &z, &r, &fast).value, "either path fits the other");
}

/// Two ciphertexts per AND with two servers; `16(n-1)(3n-4)` bytes in all with more.
#[test]
fn bytes_per_and() {
    for (garblers, sent, stored) in [(1, 32, 32), (2, 160, 96), (3, 384, 144)] {
        let batch = batch(ReluShape { width: 20, shift: 8, mask_width: 20 }, garblers, 64);
        let ands = batch.program.ands * batch.lanes;
        assert_eq!(garblers * batch.rows_sent() * 16, sent);
        assert_eq!(batch.rows_stored() * 16, stored);
        // What the first message has besides: permutation bits.
        assert_eq!(batch.table_bytes(0) - batch.rows_sent() * ands * 16, ands / 8);
        assert_eq!(batch.program.count(Source::Public), 19, "the sign bit of m needs no label");
    }
}

#[test]
fn hostile_messages_are_refused() {
    let hash = FixedKey::new([7; 16]);
    let shape = ReluShape { width: 9, shift: 3, mask_width: 9 };
    let make = |garblers, seed| prepare(shape, batch(shape, garblers, 64), seed, &hash);
    let run = make(2, 8);
    let public = vec![0u64; 8];
    let good = run.batch.label_bytes();
    for (i, length) in [0, 1, good - 1, good + 1].into_iter().enumerate() {
        let run = make(2, i as u64);
        let labels = [vec![0; good], vec![0; length]];
        assert!(run.evaluator.evaluate(&run.material, &public, &labels, &run.active, &hash).is_err());
    }
    let other = make(1, 9);
    let labels = [vec![1; good], vec![2; good]];
    assert!(
        other.evaluator.evaluate(&run.material, &public, &labels, &other.active, &hash).is_err(),
        "another batch's"
    );
    let mut garblers = run.garblers.into_iter();
    assert!(garblers.next().unwrap().labels(&run.deltas[0], &public[1..], &hash, &mut Vec::new()).is_err());
    // Wrong labels give a wrong answer, not a panic.
    assert_eq!(
        run.evaluator
            .evaluate(&run.material, &public, &labels, &run.active, &hash)
            .unwrap()
            .masked
            .planes()
            .len(),
        2
    );
}

/// A circuit whose slots overlap, or that reads what it did not write, is refused by whoever would garble or evaluate
/// it: with one XOR or AND left out or read from the wrong place, labels would say nothing and masks nothing hide.
#[test]
fn damaged_circuits_are_refused() {
    use crate::program::{Op, Operand, Program};
    let shape = ReluShape { width: 9, shift: 3, mask_width: 9 };
    let program = batch(shape, 2, 64).program;
    let refused = |damage: &dyn Fn(&mut Program)| {
        let mut damaged = (*program).clone();
        damage(&mut damaged);
        let batch = Batch { program: Arc::new(damaged), ..batch(shape, 2, 64) };
        let rng = &mut ChaCha20Rng::seed_from_u64(1);
        let results =
            [Garbler::new(batch.clone(), 0, rng).is_err(), Evaluator::new(batch.clone(), rng).is_err()];
        assert_eq!(results[0], results[1]);
        results[0]
    };
    assert!(!refused(&|_| ()));
    let xor = program.ops.iter().position(|op| matches!(op, Op::Xor { .. })).unwrap();
    let and = program.ops.iter().position(|op| matches!(op, Op::And { .. })).unwrap();
    let Op::Xor { dst, a, b } = program.ops[xor] else { unreachable!() };
    for (dst, a, b) in [(dst, a, a), (a, a, b), (b, a, b), (u32::MAX, a, b), (dst, u32::MAX, b)] {
        assert!(refused(&|program| program.ops[xor] = Op::Xor { dst, a, b }), "{dst} {a} {b}");
    }
    let Op::And { dst, a, b, crossed } = program.ops[and] else { unreachable!() };
    let operand = |slot| Operand { slot, negated: false };
    for (dst, a, b) in [(dst, a, a), (a.slot, a, b), (dst, a, operand(u32::MAX))] {
        assert!(refused(&|program| program.ops[and] = Op::And { dst, a, b, crossed }));
    }
    assert!(refused(&|program| program.ops[0] = Op::Xor { dst: 0, a: 1, b: 2 }), "nothing written yet");
    assert!(refused(&|program| program.ops[0] = Op::Input { dst: 0, input: u32::MAX }));
    assert!(refused(&|program| program.slots = 1));
    assert!(refused(&|program| program.ands += 1));
    assert!(refused(&|program| program.ops[and] = Op::And { dst, a, b, crossed: !crossed }));
    assert!(refused(&|program| program.crossed.clear()));
    assert!(refused(&|program| program.outputs[0].slot = u32::MAX));
    assert!(refused(&|program| {
        program.ops.remove(and);
    }));
}
