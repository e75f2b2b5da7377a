//! The garbled AND gate as the formulas say it, one lane at a time and without tricks: the reader's way in, and what
//! the fast kernels are compared with (section 5 of PROTOCOL.md).

use std::collections::VecDeque;

use seco_ot::{Block, Delta, FixedKey, Mask};

use super::Corrected;
use crate::batch::{TILE, Tile};
use crate::hash::Tweak;
use crate::program::{Op, Operand, Program, Source};

/// `H(x, t) = π(π(x) ^ t) ^ π(x)`.
fn hash(key: &FixedKey, x: Block, tweak: Tweak) -> Block {
    let permute = |x: Block| {
        let mut out = [Block::ZERO];
        key.permute(&[x], &mut out);
        out[0]
    };
    permute(permute(x) ^ Block(tweak.vector(0))) ^ permute(x)
}

pub(crate) fn mask(bit: bool) -> Mask {
    Mask::of_bit(u64::from(bit), 0)
}

/// What a garbler knows of a wire.
#[derive(Clone)]
struct Wire {
    /// `L_{w,0}`; `L_{w,1}` is that XOR `Δ`.
    label: Block,
    /// Its shares of `λ_w Δ_i`, for every garbler `i`.
    shares: Vec<Block>,
}

/// A garbler's material for one lane.
pub(crate) struct Lane {
    me: usize,
    lane: u32,
    step: u32,
    /// Random wires, and by AND: shares of `λ_c Δ_i`, then of `ρ Δ_i`.
    random: Vec<Wire>,
    ands: Vec<[Vec<Block>; 2]>,
}

impl Corrected {
    /// What this garbler has in one lane. `corrections` are the other garblers' by position, as planes.
    pub(crate) fn lane(&self, lane: usize, delta: &Delta, corrections: &[Vec<u8>]) -> Lane {
        let Corrected { state, rho } = self;
        let (batch, program, me) = (&state.batch, &state.batch.program, state.position);
        let words = batch.words();
        let start = lane / TILE * TILE;
        let tile = Tile { start, width: TILE.min(batch.lanes - start) };
        let bit = |planes: &[u64], row: usize| planes[row * words + lane / 64] >> (lane % 64) & 1 == 1;
        let key = |other: usize, row: usize| state.keys(other, row, tile).row.as_flattened()[lane - start];
        let mac =
            |other: usize, row: usize| state.received(other, row, tile).row.as_flattened()[lane - start];
        // The share of `bΔ_me` is `bΔ_me` with its own bit, and for every other garbler the key of that one's bit;
        // the share of `bΔ_i` is the MAC of its own bit.
        let shares = |bit: bool, row: usize| -> Vec<Block> {
            let others: Vec<usize> = state.others().collect();
            let own = others.iter().fold(delta.block().select(mask(bit)), |sum, &i| sum ^ key(i, row));
            (0..batch.garblers).map(|i| if i == me { own } else { mac(i, row) }).collect()
        };
        let random = (0..batch.random_wires())
            .map(|row| Wire {
                label: state.choice_labels.blocks()[row * batch.stride() + lane],
                shares: shares(bit(&state.random, row), row),
            })
            .collect();
        let and = |gate: usize| {
            let first = batch.random_wires() + gate;
            let of_mask = shares(bit(&state.lambda, gate), first);
            let rho = bit(rho, gate);
            let Some(rank) = program.crossed.iter().position(|&crossed| crossed == gate) else {
                return [of_mask, shares(rho, first)];
            };
            // The others' second choice bits differ from their `ρ` by the bit they sent: the key moves by `Δ`.
            let mut of_rho = shares(rho, batch.random_wires() + program.ands + rank);
            for i in state.others() {
                let byte = corrections[i][rank * words * 8 + lane / 8];
                of_rho[me] ^= delta.block().select(mask(byte >> (lane % 8) & 1 == 1));
            }
            [of_mask, of_rho]
        };
        let ands = (0..program.ands).map(and).collect();
        Lane { me, lane: batch.first_lane + lane as u32, step: batch.step, random, ands }
    }
}

impl Lane {
    /// The rows that the garbler sends of every AND, in order: its own `G_0`, `G_1`, then all three of every other
    /// target. Also the zero labels of the outputs and the permutation bits. `public` are the zero labels of the public
    /// wires.
    pub(crate) fn garble(
        &self,
        program: &Program,
        garblers: usize,
        delta: &Delta,
        public: &[Block],
        key: &FixedKey,
    ) -> (Vec<[Block; 3]>, Vec<Block>, Vec<bool>) {
        let inputs = program.inputs();
        let mut slots: Vec<Option<Wire>> = vec![None; program.slots];
        let (mut rows, mut permutation) = (Vec::new(), Vec::new());
        let negated =
            |wire: &Wire, operand: Operand| wire.label ^ delta.block().select(mask(operand.negated));
        for op in &program.ops {
            match *op {
                Op::Input { dst, input } => {
                    let input = inputs[input as usize];
                    slots[dst as usize] = Some(match input.source {
                        Source::Random => self.random[input.rank].clone(),
                        Source::Public => {
                            Wire { label: public[input.rank], shares: vec![Block::ZERO; garblers] }
                        }
                    });
                }
                Op::Xor { dst, a, b } => {
                    let [a, b] = [a, b].map(|slot| slots[slot as usize].clone().unwrap());
                    let shares = a.shares.iter().zip(&b.shares).map(|(a, b)| *a ^ *b).collect();
                    slots[dst as usize] = Some(Wire { label: a.label ^ b.label, shares });
                }
                Op::And { dst, a, b, .. } => {
                    let gate = permutation.len();
                    let [wire_a, wire_b] = [a, b].map(|o| slots[o.slot as usize].clone().unwrap());
                    let (a0, b0) = (negated(&wire_a, a), negated(&wire_b, b));
                    let (a1, b1) = (a0 ^ delta.block(), b0 ^ delta.block());
                    let [of_mask, of_rho] = &self.ands[gate];
                    let mut label = Block::ZERO;
                    for target in (0..garblers).map(|i| (i + self.me) % garblers) {
                        let h =
                            |x, side| hash(key, x, Tweak::garble(self.step, gate, self.lane, side, target));
                        let mut g = [
                            h(a0, 0) ^ h(a1, 0) ^ wire_b.shares[target],
                            h(b0, 1) ^ h(b1, 1) ^ wire_a.shares[target],
                            h(a0, 0) ^ h(b0, 1) ^ of_rho[target],
                        ];
                        if target == self.me {
                            g[1] ^= a0;
                            // The output's zero label makes its own G_2 zero.
                            label = g[2];
                            g[2] = Block::ZERO;
                        }
                        rows.push(g);
                    }
                    permutation.push(label.lsb());
                    slots[dst as usize] = Some(Wire { label, shares: of_mask.clone() });
                }
            }
        }
        let outputs = program.outputs.iter().map(|o| negated(slots[o.slot as usize].as_ref().unwrap(), *o));
        (rows, outputs.collect(), permutation)
    }
}

/// The evaluator's lane: gives the masked values of the outputs. `tables` are `G` by AND, by target, added up over the
/// garblers; `random` and `public` the active labels by garbler and wire, with the masked values.
pub(crate) fn evaluate(
    program: &Program,
    (step, lane): (u32, u32),
    mut tables: VecDeque<Vec<[Block; 3]>>,
    permutation: &[bool],
    load: impl Fn(Source, usize) -> (Vec<Block>, bool),
    key: &FixedKey,
) -> Vec<bool> {
    let inputs = program.inputs();
    let mut slots: Vec<Option<(Vec<Block>, bool)>> = vec![None; program.slots];
    let mut gate = 0;
    for op in &program.ops {
        match *op {
            Op::Input { dst, input } => {
                let input = inputs[input as usize];
                slots[dst as usize] = Some(load(input.source, input.rank));
            }
            Op::Xor { dst, a, b } => {
                let [(a, x), (b, y)] = [a, b].map(|slot| slots[slot as usize].clone().unwrap());
                slots[dst as usize] = Some((a.iter().zip(&b).map(|(a, b)| *a ^ *b).collect(), x ^ y));
            }
            Op::And { dst, a, b, .. } => {
                let [(la, za), (lb, zb)] = [a, b].map(|o| {
                    let (labels, masked) = slots[o.slot as usize].clone().unwrap();
                    (labels, masked ^ o.negated)
                });
                let table = tables.pop_front().unwrap();
                let labels: Vec<Block> = (0..la.len())
                    .map(|target| {
                        let h = |x, side| hash(key, x, Tweak::garble(step, gate, lane, side, target));
                        let hashes =
                            la.iter().zip(&lb).fold(Block::ZERO, |sum, (a, b)| sum ^ h(*a, 0) ^ h(*b, 1));
                        let [g0, g1, g2] = table[target];
                        hashes ^ g2 ^ g0.select(mask(za)) ^ (g1 ^ la[target]).select(mask(zb))
                    })
                    .collect();
                let masked = labels[0].lsb() ^ permutation[gate];
                slots[dst as usize] = Some((labels, masked));
                gate += 1;
            }
        }
    }
    program.outputs.iter().map(|o| slots[o.slot as usize].as_ref().unwrap().1 ^ o.negated).collect()
}
