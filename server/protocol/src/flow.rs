//! Who has which part of which value of a graph (section 2 of PROTOCOL.md). Nothing else works that out.
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

#[cfg(test)]
mod tests {
    use seco_model::graph::{Gather, Term};
    use seco_model::{Dense, Geometry, Graph, InputSpec, Node, Placement};

    use super::*;

    fn set(servers: &[usize]) -> Servers {
        servers.iter().copied().collect()
    }

    fn node(op: Op) -> Node {
        Node { name: "node".to_owned(), width: 16, op }
    }

    fn layer(input: ValueId) -> Node {
        node(Op::Secret { input, geometry: Geometry::Dense(Dense { inputs: 4, outputs: 4 }) })
    }

    fn relu(input: ValueId) -> Node {
        node(Op::Relu { input, shift: 0 })
    }

    fn sum(values: &[ValueId]) -> Node {
        let terms = values.iter().map(|&value| Term { value, factor: 1, gather: Gather::All });
        node(Op::Public { terms: terms.collect(), constant: 1, len: 4 })
    }

    /// Masked and shared sums, openings of both kinds, layers of which others hold the weights.
    fn architecture() -> Architecture {
        let nodes = vec![
            layer(0),         // 1, of server 3
            relu(1),          // 2
            layer(2),         // 3, of servers 1 and 2
            layer(2),         // 4, of server 0
            sum(&[2, 0]),     // 5, masked
            sum(&[3, 4, 5]),  // 6
            relu(6),          // 7
            sum(&[7, 5]),     // 8, masked
            relu(8),          // 9
            layer(9),         // 10, of servers 2 and 3
            sum(&[10, 3, 6]), // 11
        ];
        let input = InputSpec::new(vec![4], 8);
        let graph = Graph { name: "test".to_owned(), input, nodes, outputs: Vec::new() };
        let shared = |holders: &[usize]| Placement::Shared(holders.to_vec());
        let placements = vec![Placement::Held(3), shared(&[1, 2]), Placement::Held(0), shared(&[2, 3])];
        Architecture { graph, placements, servers: 4 }
    }

    #[test]
    fn parts_of_a_graph_followed_by_hand() {
        let architecture = architecture();
        let flow = Flow::new(&architecture);
        let depths: Vec<usize> = (0..12).map(|value| flow.depth(value)).collect();
        assert_eq!(depths, [0, 0, 1, 1, 1, 1, 1, 2, 2, 3, 3, 3]);
        assert_eq!(flow.affine(&architecture.graph), [vec![0], vec![2, 3, 4, 5], vec![7], vec![9, 10]]);
        assert_eq!([1, 2, 3, 4].map(|depth| flow.evaluator(depth)), [1, 2, 3, 0]);
        let masked: Vec<ValueId> = (0..12).filter(|&value| flow.masked(value)).collect();
        assert_eq!(masked, [0, 2, 5, 7, 8, 9]);

        // Server 0 is the designated one of sum 6, and server 2, which evaluated ReLU 7, opens sum 8 for ReLU 9.
        assert_eq!(flow.openers(8), set(&[2]));
        let having = [
            (0, &[0, 2, 3][..]),
            (1, &[3]),
            (2, &[0, 1, 2]),
            (3, &[1, 2]),
            (4, &[0]),
            (5, &[0, 2]),
            (6, &[0, 1, 2]),
            (7, &[2]),
            (8, &[2]),
            (9, &[2, 3]),
            (10, &[2, 3]),
            (11, &[0, 1, 2, 3]),
        ];
        for (value, servers) in having {
            assert_eq!(flow.having(value), set(servers), "value {value}");
        }
        assert_eq!(flow.openers(6), set(&[0, 1, 2]));
        assert_eq!(flow.answerers(11), set(&[0, 1, 2, 3]));

        let reads = |me| flow.reads(&architecture.graph, me);
        assert_eq!(reads(0), [1, 0, 2, 0, 1, 1, 2, 0, 0, 0, 0, 1]);
        assert_eq!(reads(1), [0, 0, 1, 2, 0, 0, 2, 0, 0, 0, 0, 1]);
        assert_eq!(reads(2), [1, 0, 2, 2, 0, 1, 2, 1, 1, 1, 1, 1]);
        assert_eq!(reads(3), [1, 1, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1]);
    }

    /// What is known in clear is added once, by all who have a masked sum and by one of those who have a shared one.
    #[test]
    fn one_server_adds_what_is_known_in_clear() {
        let flow = Flow::new(&architecture());
        let adding = |sum, term| (0..4).filter(|&me| flow.adds(sum, term, me)).collect::<Vec<_>>();
        assert_eq!(adding(6, 5), [0]);
        assert_eq!(adding(6, 3), [1, 2]);
        assert_eq!(adding(5, 2), [0, 2]);
        assert_eq!(adding(11, 6), [0, 1, 2]);
        let constants = |sum| (0..4).filter(|&me| flow.adds_constant(sum, me)).collect::<Vec<_>>();
        assert_eq!([constants(5), constants(6), constants(11)], [vec![0, 2], vec![0], vec![0]]);
    }

    /// A masked answer is the gateway's to add up, whoever evaluates.
    #[test]
    fn a_masked_answer_is_the_gateways() {
        let mut architecture = architecture();
        architecture.graph.nodes.truncate(9);
        architecture.placements.truncate(3);
        let flow = Flow::new(&architecture);
        assert_eq!([flow.openers(9), flow.answerers(9), flow.having(9)], [set(&[3]), set(&[0]), set(&[0])]);
        // A value that nobody reads goes to nobody.
        architecture.graph.nodes.push(relu(0));
        assert_eq!(Flow::new(&architecture).having(9), set(&[]));
    }
}
