//! Who has which part of which value of a graph (`protocol.md` section 2). Nothing else works that out.
//!
//! | value | offline, every server | online |
//! |---|---|---|
//! | *atom*: the input, or what a ReLU makes | the mask `r^j` that it drew | `x - r`, at those who need it |
//! | sum of masked values | the sum of its offline shares | `x - r`: the sum and the constant, at those who need it |
//! | layer | its word of `F·r` | `F^h (x - r) + bias`, at the holders |
//! | any other sum | the sum of its offline shares | the sum of its online parts, at those who have one |
//!
//! All parts together add up to the value. In the last row one server alone, the *designated* one, adds the constant and
//! every masked term's `x - r`: the first of those that have a part anyway. Where a masked value is opened for a ReLU, the
//! evaluator of the newest ReLU in it adds its `x - r`, for it has that first; where it is the answer, the gateway does.
//!
//! The *depth* of a value is the largest number of ReLUs on a way from the input to it. ReLUs of one depth do not depend
//! on each other: they have one evaluator and are done together, in three messages in sequence.
//!
//! So all offline shares of masked values follow from masks alone, and those of what a server has no online part of
//! from what it drew: it knows them before the layers are preprocessed.

use seco_model::Architecture;
use seco_model::graph::{Graph, Op, ValueId};

/// Index of the gateway.
pub const GATEWAY: usize = 0;

/// A set of servers. There are eight at most.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Servers(u8);

impl Servers {
    /// One alone.
    pub fn one(server: usize) -> Servers {
        [server].into_iter().collect()
    }

    /// Whether a server is among them.
    pub fn contains(self, server: usize) -> bool {
        self.iter().any(|s| s == server)
    }

    /// In increasing order.
    pub fn iter(self) -> impl Iterator<Item = usize> {
        (0..u8::BITS as usize).filter(move |server| self.0 >> server & 1 == 1)
    }

    /// The first, if any.
    pub fn first(self) -> Option<usize> {
        self.iter().next()
    }

    fn add(&mut self, others: Servers) {
        self.0 |= others.0;
    }
}

impl FromIterator<usize> for Servers {
    fn from_iter<I: IntoIterator<Item = usize>>(servers: I) -> Servers {
        Servers(servers.into_iter().fold(0, |set, server| set | 1u8.checked_shl(server as u32).unwrap_or(0)))
    }
}

/// Where a value comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// The input, number 0, or a ReLU, numbered from 1: a value with a mask of its own.
    Atom(usize),
    /// A layer, by number.
    Layer(usize),
    /// A public sum.
    Sum,
}

/// Length and width of every atom's mask: the input's, then the ReLUs' in order.
pub fn atoms(graph: &Graph) -> impl Iterator<Item = (usize, u32)> {
    let input = (graph.len(0), graph.width(0));
    std::iter::once(input).chain(graph.activations().map(|relu| (relu.len, relu.mask_width)))
}

/// Who has what of a graph's values.
pub struct Flow {
    /// By value.
    sources: Vec<Source>,
    /// By value.
    masked: Vec<bool>,
    /// Of a masked value the servers that need its `x - r`, of a shared one those that have an online part.
    having: Vec<Servers>,
    /// By value.
    depths: Vec<usize>,
    servers: usize,
}

impl Flow {
    /// Works it out for a model that was checked.
    pub fn new(architecture: &Architecture) -> Flow {
        let Architecture { graph, servers, .. } = architecture;
        let masked = graph.masked();
        let mut sources = vec![Source::Atom(0)];
        let mut depths = vec![0];
        // What nobody has yet.
        let mut having = vec![Servers::default(); masked.len()];
        let (mut atoms, mut layers) = (1, 0);
        for (number, node) in graph.nodes.iter().enumerate() {
            let count = |counter: &mut usize| std::mem::replace(counter, *counter + 1);
            sources.push(match &node.op {
                Op::Relu { .. } => Source::Atom(count(&mut atoms)),
                Op::Secret { .. } => {
                    let layer = count(&mut layers);
                    having[number + 1] = architecture.holders(layer).iter().copied().collect();
                    Source::Layer(layer)
                }
                Op::Public { terms, .. } => {
                    // Masked ones have none yet.
                    let all = terms.iter().filter_map(|term| having.get(term.value).copied());
                    let mut servers = Servers::default();
                    all.for_each(|more| servers.add(more));
                    having[number + 1] = servers;
                    Source::Sum
                }
            });
            let before = node.inputs().filter_map(|value| depths.get(value).copied()).max().unwrap_or(0);
            depths.push(before + usize::from(matches!(node.op, Op::Relu { .. })));
        }
        let mut flow = Flow { sources, masked, having, depths, servers: *servers };
        // Whoever reads a masked value comes later, so backwards.
        flow.need(graph.answer(), Servers::one(GATEWAY));
        for (number, node) in graph.nodes.iter().enumerate().rev() {
            let value = number + 1;
            match &node.op {
                Op::Secret { input, .. } => flow.need(*input, flow.having(value)),
                Op::Relu { input, .. } => flow.need(*input, flow.openers(*input)),
                Op::Public { terms, .. } => {
                    let readers = if flow.masked(value) {
                        flow.having(value)
                    } else {
                        Servers::one(flow.designated(value))
                    };
                    terms.iter().for_each(|term| flow.need(term.value, readers));
                }
            }
        }
        flow
    }

    /// These servers need a value's `x - r`, if it is masked.
    fn need(&mut self, value: ValueId, servers: Servers) {
        if self.masked(value)
            && let Some(having) = self.having.get_mut(value)
        {
            having.add(servers);
        }
    }

    /// Where a value comes from.
    pub fn source(&self, value: ValueId) -> Source {
        self.sources.get(value).copied().unwrap_or(Source::Sum)
    }

    /// Whether a value is masked; else it is shared.
    pub fn masked(&self, value: ValueId) -> bool {
        self.masked.get(value).copied().unwrap_or(false)
    }

    /// Who has something of a value online: its `x - r`, if it is masked, else an online part.
    pub fn having(&self, value: ValueId) -> Servers {
        self.having.get(value).copied().unwrap_or_default()
    }

    /// The largest number of ReLUs on a way to a value.
    pub fn depth(&self, value: ValueId) -> usize {
        self.depths.get(value).copied().unwrap_or(0)
    }

    /// The nodes of every depth that are no ReLUs, from depth 0 to the largest.
    pub fn affine(&self, graph: &Graph) -> Vec<Vec<usize>> {
        let mut levels = vec![Vec::new(); self.depths.iter().max().map_or(1, |depth| depth + 1)];
        for (number, node) in graph.nodes.iter().enumerate() {
            if let (false, Some(level)) =
                (matches!(node.op, Op::Relu { .. }), levels.get_mut(self.depth(number + 1)))
            {
                level.push(number);
            }
        }
        levels
    }

    /// Who evaluates the ReLUs of a depth, from 1. It rotates.
    pub fn evaluator(&self, depth: usize) -> usize {
        depth % self.servers.max(1)
    }

    /// Who publishes a value under a mask, for a ReLU, with more than an offline share.
    pub fn openers(&self, value: ValueId) -> Servers {
        // Of depth 0 there is the input alone, which the gateway opens.
        if self.masked(value) { Servers::one(self.evaluator(self.depth(value))) } else { self.having(value) }
    }

    /// Who has more of the answer than an offline share.
    pub fn answerers(&self, answer: ValueId) -> Servers {
        if self.masked(answer) { Servers::one(GATEWAY) } else { self.having(answer) }
    }

    /// The one that adds, for all, what is known in clear to a shared sum.
    fn designated(&self, sum: ValueId) -> usize {
        self.having(sum).first().unwrap_or(GATEWAY)
    }

    /// Whether server `me` adds the constant to what it has of a sum.
    pub fn adds_constant(&self, sum: ValueId, me: usize) -> bool {
        if self.masked(sum) { self.having(sum).contains(me) } else { self.designated(sum) == me }
    }

    /// Whether server `me` adds what it has of a term's value to what it has of a sum.
    pub fn adds(&self, sum: ValueId, term: ValueId, me: usize) -> bool {
        if self.masked(term) { self.adds_constant(sum, me) } else { self.having(term).contains(me) }
    }

    /// How often server `me` reads what it has of each value online. The answer is read once more than by nodes.
    pub fn reads(&self, graph: &Graph, me: usize) -> Vec<usize> {
        let mut reads = vec![0; self.sources.len()];
        for (number, node) in graph.nodes.iter().enumerate() {
            let sum = number + 1;
            for value in node.inputs() {
                let read = match &node.op {
                    Op::Secret { .. } => self.having(sum).contains(me),
                    Op::Public { .. } => self.adds(sum, value, me),
                    Op::Relu { .. } => self.openers(value).contains(me),
                };
                if let Some(reads) = reads.get_mut(value) {
                    *reads += usize::from(read);
                }
            }
        }
        if let Some(reads) = reads.get_mut(graph.answer()) {
            *reads += usize::from(self.answerers(graph.answer()).contains(me));
        }
        reads
    }
}
