//! Small models, written node by node or drawn at random.

use chacha20::ChaCha20Rng;
use rand_core::{Rng, SeedableRng};
use seco_model::graph::{Last, Output, Run, ValueId, Window};
use seco_model::{
    Conv, Dense, FixedLayer, FixedModel, Gather, Geometry, Graph, InputSpec, Node, Op, Placement, Term,
};

/// A model under construction.
pub struct Builder {
    pub graph: Graph,
    layers: Vec<FixedLayer>,
    /// Width of every value, where it means something.
    widths: Vec<u32>,
    pub rng: ChaCha20Rng,
}

impl Builder {
    pub fn new(shape: &[usize], seed: u64) -> Builder {
        Builder::of_bits(shape, seed, 8)
    }

    /// With so many bits of an input value.
    pub fn of_bits(shape: &[usize], seed: u64, bits: u32) -> Builder {
        let input = InputSpec::new(shape.to_vec(), bits);
        let graph = Graph { name: "test".to_owned(), input, nodes: Vec::new(), outputs: Vec::new() };
        Builder { graph, layers: Vec::new(), widths: vec![bits + 1], rng: ChaCha20Rng::seed_from_u64(seed) }
    }

    fn node(&mut self, op: Op, width: u32) -> ValueId {
        let name = format!("node{}", self.graph.nodes.len());
        self.graph.nodes.push(Node { name, width, op });
        self.widths.push(width);
        self.graph.nodes.len()
    }

    /// A layer with weights of four bits and biases of eight.
    pub fn layer(&mut self, input: ValueId, geometry: Geometry, width: u32) -> ValueId {
        let rng = &mut self.rng;
        let weights = (0..geometry.weights()).map(|_| (rng.next_u32() % 15) as i32 - 7).collect();
        let bias = (0..geometry.outputs()).map(|_| i64::from(rng.next_u32() % 255) - 127).collect();
        self.layers.push(FixedLayer { weights, bias });
        self.node(Op::Secret { input, geometry }, width)
    }

    pub fn dense(&mut self, input: ValueId, outputs: usize, width: u32) -> ValueId {
        let inputs = self.graph.len(input);
        self.layer(input, Geometry::Dense(Dense { inputs, outputs }), width)
    }

    pub fn relu(&mut self, input: ValueId, shift: u32) -> ValueId {
        self.node(Op::Relu { input, shift }, 2)
    }

    pub fn public(&mut self, terms: Vec<Term>, constant: i32, len: usize, width: u32) -> ValueId {
        self.node(Op::Public { terms, constant, len }, width)
    }

    /// `Σ factor · value`.
    pub fn sum(&mut self, terms: &[(ValueId, i32)], constant: i32, width: u32) -> ValueId {
        let len = self.graph.len(terms[0].0);
        let terms = terms.iter().map(|&(value, factor)| Term { value, factor, gather: Gather::All });
        self.public(terms.collect(), constant, len, width)
    }

    /// One after the other.
    pub fn concatenated(&mut self, values: &[ValueId], width: u32) -> ValueId {
        let lens: Vec<usize> = values.iter().map(|&value| self.graph.len(value)).collect();
        let len = lens.iter().sum();
        let mut before = 0;
        let mut terms = Vec::new();
        for (&value, count) in values.iter().zip(lens) {
            let zeros = |count: usize| (count > 0).then_some(Run::Zeros(count as u32));
            let run = Run::Values { start: 0, step: 1, count: count as u32 };
            let runs = zeros(before).into_iter().chain([run]).chain(zeros(len - before - count));
            terms.push(Term { value, factor: 1, gather: Gather::Runs(runs.collect()) });
            before += count;
        }
        self.public(terms, 0, len, width)
    }

    pub fn gathered(&mut self, value: ValueId, places: &[Option<usize>], width: u32) -> ValueId {
        let gather = Gather::from_places(places.iter().copied());
        self.public(vec![Term { value, factor: 1, gather }], 0, places.len(), width)
    }

    /// The larger of each pair of neighbours, as `b + max(0, a - b)`.
    pub fn larger(&mut self, value: ValueId, width: u32) -> ValueId {
        let half = self.graph.len(value) / 2;
        let every = |start: u32| {
            Gather::Runs(vec![Run::Values { start, step: if half > 1 { 2 } else { 1 }, count: half as u32 }])
        };
        let term = |value, factor, gather| Term { value, factor, gather };
        let pairs = vec![term(value, 1, every(0)), term(value, -1, every(1))];
        let difference = self.public(pairs, 0, half, width);
        let positive = self.relu(difference, 0);
        self.public(vec![term(value, 1, every(1)), term(positive, 1, Gather::All)], 0, half, width)
    }

    /// The model; its answer is the last value.
    pub fn finish(mut self) -> FixedModel {
        self.graph.set_widths(&self.widths);
        let shape = vec![self.graph.answer_len()];
        self.graph.outputs = vec![Output { name: "y".to_owned(), shape, scale: 1.0, last: Last::Nothing }];
        let model = FixedModel { graph: self.graph, layers: self.layers, known: Default::default() };
        model.check().unwrap();
        model
    }

    fn pick(&mut self, low: usize, high: usize) -> usize {
        low + self.rng.next_u32() as usize % (high - low + 1)
    }
}

/// A small network of every layer kind: a strided, padded convolution of two channels, a second convolution, two dense
/// layers, of these widths.
pub fn chain(seed: u64, widths: [u32; 4]) -> FixedModel {
    let mut builder = Builder::new(&[2, 8, 8], seed);
    let x = builder.layer(0, first_convolution(), widths[0]);
    let x = builder.relu(x, 4);
    let x = builder.layer(x, second_convolution(), widths[1]);
    let x = builder.relu(x, 6);
    let x = builder.dense(x, 20, widths[2]);
    let x = builder.relu(x, 3);
    builder.dense(x, 10, widths[3]);
    builder.finish()
}

/// The first convolution of [`chain`], its ReLU and a second layer.
pub fn two_layers(seed: u64, second: Geometry, width: u32) -> FixedModel {
    let mut builder = Builder::new(&[2, 8, 8], seed);
    let x = builder.layer(0, first_convolution(), 15);
    let x = builder.relu(x, 4);
    builder.layer(x, second, width);
    builder.finish()
}

fn first_convolution() -> Geometry {
    Geometry::Conv(Conv {
        input: [2, 8, 8],
        channels: 4,
        kernel: [3, 3],
        stride: [2, 2],
        dilation: [1, 1],
        pads: [1, 1, 1, 1],
        groups: 1,
    })
}

pub fn second_convolution() -> Geometry {
    Geometry::Conv(Conv {
        input: [4, 4, 4],
        channels: 8,
        kernel: [2, 2],
        stride: [1, 1],
        dilation: [1, 1],
        pads: [0, 0, 1, 1],
        groups: 1,
    })
}

/// A random legal graph of about `nodes` nodes, with values of a few dozen numbers: every kind of sum, values with several
/// readers or none, ReLUs of anything, and any kind of answer.
pub fn random(seed: u64, nodes: usize) -> FixedModel {
    random_of_bits(seed, nodes, 8)
}

/// [`random`] with so many bits of an input value.
pub fn random_of_bits(seed: u64, nodes: usize, bits: u32) -> FixedModel {
    let mut b = Builder::of_bits(&[2, 4, 4], seed, bits);
    // Shapes by value.
    let mut shapes = vec![[2usize, 4, 4]];
    // Few layers: they take the time.
    let mut layers = 0;
    while b.graph.nodes.len() < nodes {
        // The newest are read most.
        let last = shapes.len() - 1;
        let pick = |b: &mut Builder| last - b.pick(0, last.min(5)) * b.pick(0, 1);
        let value = pick(&mut b);
        let width = [b.pick(8, 20), b.pick(2, 32)][b.pick(0, 1)] as u32;
        let [c, h, w] = shapes[value];
        let len = c * h * w;
        let factor = [1, 1, -1, 2, 4, 1 << 20, 3, -5, 0, i32::MIN][b.pick(0, 9)];
        let constant = [0, 1, -77, i32::MAX][b.pick(0, 3)];
        let shape = match b.pick(0, 9) {
            0 | 1 if b.graph.masked()[value] && layers < 4 => {
                layers += 1;
                let outputs = b.pick(1, 24);
                b.dense(value, outputs, width);
                [outputs, 1, 1]
            }
            2 if b.graph.masked()[value] && layers < 4 => {
                layers += 1;
                let kernel = [b.pick(1, h.min(3)), b.pick(1, w.min(3))];
                let pads = [b.pick(0, 1), b.pick(0, 1), b.pick(0, 1), b.pick(0, 1)];
                let groups = [1, 1, if c % 2 == 0 { 2 } else { 1 }, c][b.pick(0, 3)];
                let (channels, stride) = (groups * b.pick(1, 3), [b.pick(1, 2), b.pick(1, 2)]);
                let mut conv =
                    Conv { input: [c, h, w], channels, kernel, stride, dilation: [2, 1], pads, groups };
                if conv.extent()[0] > conv.padded()[0] || channels > 24 {
                    (conv.dilation, conv.groups, conv.channels) = ([1, 1], 1, 2);
                }
                let shape = conv.output();
                b.layer(value, Geometry::Conv(conv), width);
                shape
            }
            3 | 4 => {
                let same: Vec<ValueId> =
                    (0..shapes.len()).filter(|&v| shapes[v].iter().product::<usize>() == len).collect();
                let other = same[b.pick(0, same.len() - 1)];
                b.sum(&[(value, factor), (other, 1), (same[same.len() - 1], -1)], constant, width);
                [c, h, w]
            }
            5 => {
                let other = pick(&mut b);
                let count = len + shapes[other].iter().product::<usize>();
                if count > 64 {
                    continue;
                }
                b.concatenated(&[value, other], width);
                [count, 1, 1]
            }
            6 => {
                let kernel = [b.pick(1, 3), b.pick(1, 3)];
                let (stride, dilation) = ([b.pick(1, 2), b.pick(1, 2)], [b.pick(1, 2), b.pick(1, 2)]);
                let (pads, output) = ([b.pick(0, 1), b.pick(0, 1)], [b.pick(1, 4), b.pick(1, 4)]);
                let window = Window { input: [c, h, w], kernel, stride, dilation, pads, output };
                let count = window.outputs();
                let gather = Gather::Window(window);
                b.public(vec![Term { value, factor, gather }], constant, count, width);
                [c, output[0], output[1]]
            }
            7 => {
                let count = b.pick(1, 32);
                let places: Vec<Option<usize>> =
                    (0..count).map(|_| (b.pick(0, 5) > 0).then(|| b.pick(0, len - 1))).collect();
                b.gathered(value, &places, width);
                [count, 1, 1]
            }
            8 if len >= 2 => {
                let both = (last + 1, last + 3);
                b.larger(value, width);
                shapes.extend([[len / 2, 1, 1]; 2]);
                assert_eq!(both.1, shapes.len());
                [len / 2, 1, 1]
            }
            _ => {
                b.relu(value, 0);
                [c, h, w]
            }
        };
        shapes.push(shape);
    }
    // Widths first: they bound the shifts.
    let mut model = b.finish();
    let mut rng = ChaCha20Rng::seed_from_u64(seed ^ 0x5eed);
    for number in 0..model.graph.nodes.len() {
        if let Op::Relu { input, .. } = model.graph.nodes[number].op {
            let most = (model.graph.width(input) - 2).min(if rng.next_u32() & 1 == 0 { 6 } else { 30 });
            if let Op::Relu { shift, .. } = &mut model.graph.nodes[number].op {
                *shift = rng.next_u32() % (most + 1);
            }
        }
    }
    model.check().unwrap();
    model
}

/// Random placements: held and shared, by any servers.
pub fn random_placements(layers: usize, servers: usize, seed: u64) -> Vec<Placement> {
    let mut rng = ChaCha20Rng::seed_from_u64(seed);
    let mut placement = || {
        let set = rng.next_u32() as usize % (1 << servers);
        let holders: Vec<usize> = (0..servers).filter(|server| set >> server & 1 == 1).collect();
        match holders[..] {
            [] => Placement::Held(rng.next_u32() as usize % servers),
            [one] => Placement::Held(one),
            _ => Placement::Shared(holders),
        }
    };
    (0..layers).map(|_| placement()).collect()
}
