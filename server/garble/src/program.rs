//! A circuit compiled to a flat list of operations with reused slots.
//!
//! The list is executed once per lane (one ReLU is one lane). Slots are freed after a wire's last use, so working
//! memory depends on the circuit's width, not its size.

use crate::error::Error;
use crate::gates::Gates;

/// Where an input wire's value, mask and labels come from (section 5 of PROTOCOL.md, "Wires").
///
/// A bit of `ρ` is the XOR of one random bit of every server, and one wire: each garbler's bit is its share of the
/// mask, the evaluator's bit is the masked value, and the labels are those of the evaluator's correlated OTs. No label
/// is sent for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// The XOR of a random bit of every server, known ahead.
    Random,
    /// A bit that all servers know online: mask 0; labels are sent then.
    Public,
}

/// Consecutive input wires of one source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InputWord {
    /// Where they come from.
    pub source: Source,
    /// Number of bits.
    pub width: usize,
}

/// An input wire and its rank among those of its source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Input {
    /// Where it comes from.
    pub source: Source,
    /// Its rank.
    pub rank: usize,
}

/// An operand: a slot, negated or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Operand {
    /// Index of the slot.
    pub slot: u32,
    /// Whether the wire is the negation of the slot. NOT exchanges labels and costs nothing.
    pub negated: bool,
}

/// One operation. Operands never share a slot with the result or with each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    /// Loads input wire `input`.
    Input {
        /// Result slot.
        dst: u32,
        /// Index of the input wire.
        input: u32,
    },
    /// `dst = a ^ b`; negations are carried to where the wire is used.
    Xor {
        /// Result slot.
        dst: u32,
        /// First operand slot.
        a: u32,
        /// Second operand slot.
        b: u32,
    },
    /// `dst = a & b`; the AND's number is its rank in the list.
    And {
        /// Result slot.
        dst: u32,
        /// First operand.
        a: Operand,
        /// Second operand.
        b: Operand,
        /// Whether both operands have masks, so that the garblers need shares of `λ_a λ_b`.
        crossed: bool,
    },
}

/// A compiled circuit.
#[derive(Clone, Debug)]
pub struct Program {
    /// Input words in order; input wires are numbered through them.
    pub words: Vec<InputWord>,
    /// The operations.
    pub ops: Vec<Op>,
    /// Slots needed.
    pub slots: usize,
    /// AND gates.
    pub ands: usize,
    /// Numbers of the AND gates of which both operands have masks.
    pub crossed: Vec<usize>,
    /// The output wires.
    pub outputs: Vec<Operand>,
}

impl Program {
    /// Every input wire, in order.
    pub fn inputs(&self) -> Vec<Input> {
        let (mut random, mut public) = (0, 0);
        let mut inputs = Vec::new();
        for word in &self.words {
            let next = match word.source {
                Source::Random => &mut random,
                Source::Public => &mut public,
            };
            inputs.extend((*next..*next + word.width).map(|rank| Input { source: word.source, rank }));
            *next += word.width;
        }
        inputs
    }

    /// Refuses a program that was damaged: whose operations share slots, use slots or inputs that there are not, read
    /// what was not written, or are not as many as the program says. Garbling reads slots without looking again.
    pub fn check(&self) -> Result<(), Error> {
        let mut written = vec![false; self.slots];
        let has = |written: &[bool], slot: u32| written.get(slot as usize).copied().unwrap_or(false);
        let inputs = self.words.iter().map(|w| w.width).sum::<usize>();
        let (mut ands, mut crossed_ands, mut sound) = (0, Vec::new(), true);
        for op in &self.ops {
            let dst = match *op {
                Op::Input { dst, input } => {
                    sound &= (input as usize) < inputs;
                    dst
                }
                Op::Xor { dst, a, b }
                | Op::And { dst, a: Operand { slot: a, .. }, b: Operand { slot: b, .. }, .. } => {
                    sound &= a != b && a != dst && b != dst && has(&written, a) && has(&written, b);
                    dst
                }
            };
            if let Op::And { crossed, .. } = *op {
                if crossed {
                    crossed_ands.push(ands);
                }
                ands += 1;
            }
            match written.get_mut(dst as usize) {
                Some(written) => *written = true,
                None => sound = false,
            }
        }
        sound &= ands == self.ands && crossed_ands == self.crossed;
        sound &= self.outputs.iter().all(|o| has(&written, o.slot));
        if sound { Ok(()) } else { Err(Error::Shape("circuit: it is damaged, compile it again")) }
    }

    /// Number of input wires of a source.
    pub fn count(&self, source: Source) -> usize {
        self.words.iter().filter(|w| w.source == source).map(|w| w.width).sum()
    }
}

/// A wire of the [`Compiler`].
#[derive(Clone, Copy)]
pub struct Wire {
    node: u32,
    negated: bool,
}

#[derive(Clone, Copy)]
enum Node {
    Input { input: u32 },
    Xor(u32, u32),
    And(Wire, Wire),
}

/// Backend that records a circuit; [`Compiler::finish`] gives the [`Program`].
#[derive(Default)]
pub struct Compiler {
    nodes: Vec<Node>,
    /// Whether a node's wire has a mask.
    masked: Vec<bool>,
    words: Vec<InputWord>,
    inputs: u32,
}

impl Compiler {
    /// A new input word.
    pub fn word(&mut self, source: Source, width: usize) -> Vec<Wire> {
        self.words.push(InputWord { source, width });
        (0..width)
            .map(|_| {
                let input = self.inputs;
                self.inputs += 1;
                self.push(Node::Input { input }, source == Source::Random)
            })
            .collect()
    }

    fn push(&mut self, node: Node, masked: bool) -> Wire {
        let index = self.nodes.len() as u32;
        self.nodes.push(node);
        self.masked.push(masked);
        Wire { node: index, negated: false }
    }

    fn is_masked(&self, wire: Wire) -> bool {
        self.masked.get(wire.node as usize).copied().unwrap_or(false)
    }

    /// Orders, assigns slots and gives the program whose outputs are `outputs`.
    pub fn finish(self, outputs: &[Wire]) -> Program {
        let used = self.used(outputs);
        // Inputs are loaded right before their first use, so that few are live at a time.
        let mut schedule: Vec<u32> = Vec::new();
        let mut loaded = vec![false; self.nodes.len()];
        let mut load = |schedule: &mut Vec<u32>, n: u32| {
            if matches!(self.nodes[n as usize], Node::Input { .. }) && !loaded[n as usize] {
                loaded[n as usize] = true;
                schedule.push(n);
            }
        };
        for n in (0..self.nodes.len() as u32).filter(|&n| used[n as usize]) {
            let operands = self.operands(n);
            operands.iter().for_each(|&operand| load(&mut schedule, operand));
            if !operands.is_empty() {
                schedule.push(n);
            }
        }
        outputs.iter().for_each(|output| load(&mut schedule, output.node));
        self.assign(&schedule, outputs)
    }

    fn operands(&self, n: u32) -> Vec<u32> {
        match self.nodes[n as usize] {
            Node::Input { .. } => Vec::new(),
            Node::Xor(a, b) => vec![a, b],
            Node::And(a, b) => vec![a.node, b.node],
        }
    }

    fn used(&self, outputs: &[Wire]) -> Vec<bool> {
        let mut used = vec![false; self.nodes.len()];
        for output in outputs {
            used[output.node as usize] = true;
        }
        // An operand's number is smaller than its user's, so one pass backwards reaches everything.
        for n in (0..self.nodes.len()).rev() {
            if used[n] {
                for operand in self.operands(n as u32) {
                    used[operand as usize] = true;
                }
            }
        }
        used
    }

    fn assign(&self, schedule: &[u32], outputs: &[Wire]) -> Program {
        let mut last_use = vec![0usize; self.nodes.len()];
        for (time, &n) in schedule.iter().enumerate() {
            for operand in self.operands(n) {
                last_use[operand as usize] = time;
            }
        }
        for output in outputs {
            last_use[output.node as usize] = usize::MAX;
        }
        let mut slot_of = vec![u32::MAX; self.nodes.len()];
        let mut free: Vec<u32> = Vec::new();
        let mut slots = 0u32;
        let mut ops = Vec::with_capacity(schedule.len());
        let (mut ands, mut crossed_ands) = (0, Vec::new());
        for (time, &n) in schedule.iter().enumerate() {
            let dst = free.pop().unwrap_or_else(|| {
                slots += 1;
                slots - 1
            });
            slot_of[n as usize] = dst;
            let operand = |w: Wire| Operand { slot: slot_of[w.node as usize], negated: w.negated };
            ops.push(match self.nodes[n as usize] {
                Node::Input { input } => Op::Input { dst, input },
                Node::Xor(a, b) => Op::Xor { dst, a: slot_of[a as usize], b: slot_of[b as usize] },
                Node::And(a, b) => {
                    let crossed = self.is_masked(a) && self.is_masked(b);
                    if crossed {
                        crossed_ands.push(ands);
                    }
                    ands += 1;
                    Op::And { dst, a: operand(a), b: operand(b), crossed }
                }
            });
            // Freed only now: a result never overwrites its own operands.
            for o in self.operands(n) {
                if last_use[o as usize] == time {
                    free.push(slot_of[o as usize]);
                    last_use[o as usize] = 0;
                }
            }
            if last_use[n as usize] == 0 {
                free.push(dst);
            }
        }
        let output = |w: &Wire| Operand { slot: slot_of[w.node as usize], negated: w.negated };
        Program {
            words: self.words.clone(),
            ops,
            slots: slots as usize,
            ands,
            crossed: crossed_ands,
            outputs: outputs.iter().map(output).collect(),
        }
    }
}

impl Gates for Compiler {
    type Wire = Wire;

    fn xor(&mut self, a: Wire, b: Wire) -> Wire {
        debug_assert_ne!(a.node, b.node, "a wire is never XORed with itself in these circuits");
        let masked = self.is_masked(a) || self.is_masked(b);
        let wire = self.push(Node::Xor(a.node, b.node), masked);
        Wire { negated: a.negated ^ b.negated, ..wire }
    }

    fn and(&mut self, a: Wire, b: Wire) -> Wire {
        debug_assert_ne!(a.node, b.node, "a wire is never ANDed with itself in these circuits");
        self.push(Node::And(a, b), true)
    }

    fn not(&mut self, a: Wire) -> Wire {
        Wire { negated: !a.negated, ..a }
    }
}
