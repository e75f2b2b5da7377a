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
//! every masked term's `x - r`: the first of those that have a part anyway. Where a masked value is opened for a ReLU, or
//! is the answer, one server adds its `x - r`, the gateway.
//!
//! So all offline shares of masked values follow from masks alone, and those of what a server has no online part of
//! from what it drew: it knows them before the layers are preprocessed.

use seco_model::Placement;
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
}

impl Flow {
    /// Works it out for a graph that was checked, with a placement for each layer.
    pub fn new(graph: &Graph, placements: &[Placement]) -> Flow {
        let masked = graph.masked();
        let mut sources = vec![Source::Atom(0)];
        // What nobody has yet.
        let mut having = vec![Servers::default(); masked.len()];
        let (mut atoms, mut layers) = (1, 0);
        for (number, node) in graph.nodes.iter().enumerate() {
            let count = |counter: &mut usize| std::mem::replace(counter, *counter + 1);
            sources.push(match &node.op {
                Op::Relu { .. } => Source::Atom(count(&mut atoms)),
                Op::Secret { .. } => {
                    let layer = count(&mut layers);
                    let holders = placements.get(layer).map_or(&[][..], Placement::holders);
                    having[number + 1] = holders.iter().copied().collect();
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
        }
        let mut flow = Flow { sources, masked, having };
        // Whoever reads a masked value comes later, so backwards.
        flow.need(graph.answer(), Servers::one(GATEWAY));
        for (number, node) in graph.nodes.iter().enumerate().rev() {
            let value = number + 1;
            match &node.op {
                Op::Secret { input, .. } => flow.need(*input, flow.having(value)),
                Op::Relu { input, .. } => flow.need(*input, Servers::one(GATEWAY)),
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

    /// Who publishes a value under a mask, or adds it to the answer, with more than an offline share.
    pub fn openers(&self, value: ValueId) -> Servers {
        if self.masked(value) { Servers::one(GATEWAY) } else { self.having(value) }
    }

    /// The one that adds, for all, what is known in clear.
    pub fn designated(&self, value: ValueId) -> usize {
        self.openers(value).first().unwrap_or(GATEWAY)
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
            *reads += usize::from(self.openers(graph.answer()).contains(me));
        }
        reads
    }
}
