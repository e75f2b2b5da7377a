//! A circuit compiled to a flat list of operations with reused slots.
//!
//! The list is executed once per lane (one ReLU is one lane). Slots are freed after a wire's last
//! use, so working memory depends on the circuit's width, not its size. Operations that need no
//! online value come first: the evaluator runs them in preprocessing (`protocol.md` section 5,
//! "Circuits").

use crate::error::Error;
use crate::gates::Gates;

/// Who masks a wire whose value becomes known online.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mask {
    /// Nobody: the value is public (the evaluator's correction `c = v ^ ρ`).
    None,
    /// One garbler, by position: its own input.
    One(usize),
    /// Every garbler has a share of the mask (circuit `input`).
    All,
}

/// Where an input wire's mask and labels come from (`protocol.md` section 5, "Inputs").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// A random bit of one garbler (by position), known ahead: it is its own mask, so the masked
    /// value is 0 and no label is sent.
    Ahead(usize),
    /// A random bit of the evaluator, known ahead: not masked, labels by correlated OT.
    Choice,
    /// A bit known online: labels are sent then.
    Online(Mask),
}

/// Consecutive input wires of one source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InputWord {
    /// Where they come from.
    pub source: Source,
    /// Number of bits.
    pub width: usize,
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
    },
}

/// A compiled circuit.
#[derive(Clone, Debug)]
pub struct Program {
    /// Input words in order; input wires are numbered through them.
    pub words: Vec<InputWord>,
    /// The operations; the first `prefix` need no online value.
    pub ops: Vec<Op>,
    /// Number of operations that need no online value.
    pub prefix: usize,
    /// Slots needed.
    pub slots: usize,
    /// Slots that hold a value between prefix and the rest.
    pub live: Vec<u32>,
    /// AND gates in all.
    pub ands: usize,
    /// AND gates of the prefix.
    pub prefix_ands: usize,
    /// The output wires.
    pub outputs: Vec<Operand>,
}

impl Program {
    /// Source of every input wire, in order.
    pub fn sources(&self) -> impl Iterator<Item = Source> + '_ {
        self.words.iter().flat_map(|w| std::iter::repeat_n(w.source, w.width))
    }

    /// Refuses a program that was damaged: whose operations share slots, use slots or inputs that there are not, read
    /// what was not written, or are not as many as the program says. Garbling reads slots without looking again.
    pub fn check(&self) -> Result<(), Error> {
        let mut written = vec![false; self.slots];
        let has = |written: &[bool], slot: u32| written.get(slot as usize).copied().unwrap_or(false);
        let (inputs, mut ands) = (self.words.iter().map(|w| w.width).sum::<usize>(), 0);
        let live_and_counted = |written: &[bool], ands: usize| {
            self.live.iter().all(|&slot| has(written, slot)) && ands == self.prefix_ands
        };
        let mut sound = self.prefix <= self.ops.len();
        for (time, op) in self.ops.iter().enumerate() {
            if time == self.prefix {
                sound &= live_and_counted(&written, ands);
            }
            let dst = match *op {
                Op::Input { dst, input } => {
                    sound &= (input as usize) < inputs;
                    dst
                }
                Op::Xor { dst, a, b }
                | Op::And { dst, a: Operand { slot: a, .. }, b: Operand { slot: b, .. } } => {
                    sound &= a != b && a != dst && b != dst && has(&written, a) && has(&written, b);
                    ands += usize::from(matches!(op, Op::And { .. }));
                    dst
                }
            };
            match written.get_mut(dst as usize) {
                Some(written) => *written = true,
                None => sound = false,
            }
        }
        if self.prefix == self.ops.len() {
            sound &= live_and_counted(&written, ands);
        }
        sound &= ands == self.ands && self.outputs.iter().all(|o| has(&written, o.slot));
        if sound { Ok(()) } else { Err(Error::Shape("circuit: it is damaged, compile it again")) }
    }

    /// Number of input wires whose source satisfies `which`.
    pub fn count(&self, which: impl Fn(Source) -> bool) -> usize {
        self.words.iter().filter(|w| which(w.source)).map(|w| w.width).sum()
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
    online: Vec<bool>,
    words: Vec<InputWord>,
    inputs: u32,
}

impl Compiler {
    /// A new input word.
    pub fn word(&mut self, source: Source, width: usize) -> Vec<Wire> {
        self.words.push(InputWord { source, width });
        let online = matches!(source, Source::Online(_));
        (0..width)
            .map(|_| {
                let input = self.inputs;
                self.inputs += 1;
                self.push(Node::Input { input }, online)
            })
            .collect()
    }

    fn push(&mut self, node: Node, online: bool) -> Wire {
        let index = self.nodes.len() as u32;
        self.nodes.push(node);
        self.online.push(online);
        Wire { node: index, negated: false }
    }

    fn is_online(&self, wire: Wire) -> bool {
        self.online.get(wire.node as usize).copied().unwrap_or(false)
    }

    /// Orders, assigns slots and gives the program whose outputs are `outputs`.
    pub fn finish(self, outputs: &[Wire]) -> Program {
        let used = self.used(outputs);
        let mut order: Vec<u32> = Vec::new();
        for online in [false, true] {
            order.extend((0..self.nodes.len() as u32).filter(|&n| {
                let n = n as usize;
                used[n] && self.online[n] == online && !matches!(self.nodes[n], Node::Input { .. })
            }));
        }
        // Inputs are loaded right before their first use, so that few are live at a time. An ahead
        // input first used online is loaded in the prefix all the same: its labels are at hand then.
        let mut schedule: Vec<u32> = Vec::new();
        let mut loaded = vec![false; self.nodes.len()];
        let mut prefix = 0;
        let load = |schedule: &mut Vec<u32>, loaded: &mut Vec<bool>, n: u32| {
            if matches!(self.nodes[n as usize], Node::Input { .. }) && !loaded[n as usize] {
                loaded[n as usize] = true;
                schedule.push(n);
            }
        };
        for (rank, online) in [false, true].into_iter().enumerate() {
            for &n in order.iter().filter(|&&n| self.online[n as usize] == online) {
                for operand in self.operands(n) {
                    load(&mut schedule, &mut loaded, operand);
                }
                schedule.push(n);
            }
            if rank == 0 {
                for n in
                    (0..self.nodes.len() as u32).filter(|&n| used[n as usize] && !self.online[n as usize])
                {
                    load(&mut schedule, &mut loaded, n);
                }
                prefix = schedule.len();
            }
        }
        for output in outputs {
            load(&mut schedule, &mut loaded, output.node);
        }
        self.assign(schedule, prefix, outputs)
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

    fn assign(self, schedule: Vec<u32>, prefix: usize, outputs: &[Wire]) -> Program {
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
        let mut live = Vec::new();
        let (mut ands, mut prefix_ands) = (0, 0);
        for (time, &n) in schedule.iter().enumerate() {
            if time == prefix {
                live = Self::live_slots(&schedule[..prefix], &last_use, &slot_of, prefix);
                prefix_ands = ands;
            }
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
                    ands += 1;
                    Op::And { dst, a: operand(a), b: operand(b) }
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
        if prefix == schedule.len() {
            live = Self::live_slots(&schedule, &last_use, &slot_of, prefix);
            prefix_ands = ands;
        }
        let outputs =
            outputs.iter().map(|w| Operand { slot: slot_of[w.node as usize], negated: w.negated }).collect();
        Program { words: self.words, ops, prefix, slots: slots as usize, live, ands, prefix_ands, outputs }
    }

    fn live_slots(done: &[u32], last_use: &[usize], slot_of: &[u32], prefix: usize) -> Vec<u32> {
        let mut live: Vec<u32> = done
            .iter()
            .filter(|&&n| last_use[n as usize] >= prefix && last_use[n as usize] != 0)
            .map(|&n| slot_of[n as usize])
            .collect();
        live.sort_unstable();
        live
    }
}

impl Gates for Compiler {
    type Wire = Wire;

    fn xor(&mut self, a: Wire, b: Wire) -> Wire {
        debug_assert_ne!(a.node, b.node, "a wire is never XORed with itself in these circuits");
        let online = self.is_online(a) || self.is_online(b);
        let wire = self.push(Node::Xor(a.node, b.node), online);
        Wire { negated: a.negated ^ b.negated, ..wire }
    }

    fn and(&mut self, a: Wire, b: Wire) -> Wire {
        debug_assert_ne!(a.node, b.node, "a wire is never ANDed with itself in these circuits");
        let online = self.is_online(a) || self.is_online(b);
        self.push(Node::And(a, b), online)
    }

    fn not(&mut self, a: Wire) -> Wire {
        Wire { negated: !a.negated, ..a }
    }
}
