//! Equalised networks are the same networks, and do with fewer bits.

use super::{Channels, Rule, equalised, gains};
use crate::graph::{Gather, Last, Run, Window};
use crate::numbers::{Goal, all_shared, choose, compare::Truth};
use crate::real::{Linear, Origin, Real, RealNode, RealOp, RealOutput, RealTerm};
use crate::tests::generator;
use crate::{Conv, Dense, Geometry, InputSpec};
use rand_core::Rng;

const INPUT: usize = 2 * 6 * 6;

fn node(op: RealOp) -> RealNode {
    RealNode { origin: Origin { name: "n".to_owned(), op: "Op".to_owned() }, op }
}

fn sum(terms: &[(usize, f64)], offset: f64, len: usize) -> RealNode {
    let term = |&(value, factor): &(usize, f64)| RealTerm { value, factor, gather: Gather::All };
    node(RealOp::Public { terms: terms.iter().map(term).collect(), offset, len })
}

fn relu(input: usize) -> RealNode {
    node(RealOp::Relu { input })
}

fn conv(input: [usize; 3], channels: usize, groups: usize) -> Conv {
    Conv { input, channels, kernel: [3; 2], stride: [1; 2], dilation: [1; 2], pads: [1; 4], groups }
}

/// Two convolutions with a residual connection, one of them in groups, a maximum and a mean over windows, and a matrix; a
/// bounded ReLU with a constant beside. The first layer's channels are of very different size, and those of the third, which
/// reads all of them as if they were not.
fn network(spread: f64) -> (Real, Vec<u8>) {
    let mut rng = generator(21);
    let mut numbers = |count: usize| -> Vec<f64> {
        (0..count).map(|_| f64::from(rng.next_u32()) / f64::from(u32::MAX) - 0.5).collect()
    };
    let mut layer = |input, geometry: Geometry, spread: f64, read: f64| {
        let (mut weights, mut bias) = (numbers(geometry.weights()), numbers(geometry.outputs()));
        let rows = match &geometry {
            Geometry::Conv(conv) => conv.channels,
            Geometry::Dense(dense) => dense.outputs,
        };
        let (row, positions) = (weights.len() / rows, bias.len() / rows);
        for at in 0..rows {
            let size = spread.powi(at as i32 % 4) / 4.0;
            weights[at * row..(at + 1) * row].iter_mut().for_each(|weight| *weight *= size);
            bias[at * positions..(at + 1) * positions].iter_mut().for_each(|bias| *bias *= size);
            let columns = weights[at * row..(at + 1) * row].iter_mut().enumerate();
            columns.for_each(|(column, weight)| *weight /= read.powi(column as i32 % 4));
        }
        node(RealOp::Linear(Linear { input, geometry, weights, bias }))
    };
    let window = Window {
        input: [4, 6, 6],
        kernel: [2; 2],
        stride: [2; 2],
        dilation: [1; 2],
        pads: [0; 2],
        output: [3; 2],
    };
    // Every channel's columns, one to the right.
    let shifted = |to: &mut Vec<Run>| {
        for row in 0..24u32 {
            to.extend([Run::Values { start: row * 6 + 1, step: 1, count: 5 }, Run::Zeros(1)]);
        }
    };
    let mut runs = Vec::new();
    shifted(&mut runs);
    let right = |value| RealTerm { value, factor: 1.0, gather: Gather::Runs(runs.clone()) };
    let mut nodes = vec![
        sum(&[(0, 1.0 / 255.0)], 0.0, INPUT),
        layer(1, Geometry::Conv(conv([2, 6, 6], 4, 1)), spread, 1.0),
        relu(2),
        layer(3, Geometry::Conv(conv([4, 6, 6], 4, 2)), 1.0, 1.0),
        sum(&[(3, 1.0), (4, 1.0)], 0.0, 144),
        node(RealOp::Round { input: 5 }),
        // The larger one of two neighbours.
        node(RealOp::Public {
            terms: vec![right(6), RealTerm { value: 6, factor: -1.0, gather: Gather::All }],
            offset: 0.0,
            len: 144,
        }),
        relu(7),
        sum(&[(6, 1.0), (8, 1.0)], 0.0, 144),
        node(RealOp::Public {
            terms: vec![RealTerm { value: 9, factor: 0.25, gather: Gather::Window(window) }],
            offset: 0.0,
            len: 36,
        }),
        layer(
            10,
            Geometry::Conv(Conv { kernel: [1; 2], pads: [0; 4], ..conv([4, 3, 3], 4, 1) }),
            spread,
            spread,
        ),
        relu(11),
        layer(12, Geometry::Dense(Dense { inputs: 36, outputs: 8 }), 1.0, 1.0),
        relu(13),
        // A bound, with a constant: gains end here.
        sum(&[(14, -1.0)], 0.5, 8),
        relu(15),
        sum(&[(16, -1.0)], 0.5, 8),
        layer(17, Geometry::Dense(Dense { inputs: 8, outputs: 3 }), 1.0, 1.0),
    ];
    if let RealOp::Linear(grouped) = &mut nodes[3].op {
        grouped.bias.iter_mut().enumerate().for_each(|(at, bias)| *bias *= spread.powi(at as i32 / 36));
    }
    let outputs = vec![
        RealOutput { name: "y".to_owned(), value: 18, shape: vec![3], last: Last::Nothing },
        RealOutput { name: "z".to_owned(), value: 12, shape: vec![36], last: Last::Nothing },
    ];
    let real = Real { name: "r".to_owned(), input: vec![2, 6, 6], nodes, outputs };
    let mut pixels = generator(4);
    let samples = (0..INPUT * 24).map(|_| pixels.next_u32() as u8).collect();
    (real, samples)
}

/// Every value is the same but for a power of two by channel, to the last bit; the answers have none; ranges are those of the
/// values.
#[test]
fn an_equalised_network_is_the_same_to_the_last_bit() {
    let (mut real, samples) = network(0.02);
    // With the second output too, and without.
    for outputs in [2, 1] {
        real.outputs.truncate(outputs);
        let inputs: Vec<&[u8]> = samples.chunks(INPUT).collect();
        let spec = InputSpec::new(real.input.clone(), 8);
        let channels = Channels::new(&real, &[]);
        let (_, groups) = Truth::new(&real, &spec, &inputs, &channels).unwrap();
        for rule in [Rule::Weights, Rule::Values] {
            let bits = gains(&real, &channels, &groups, rule).unwrap();
            let made = equalised(&real, &channels, &bits);
            let ranges = channels.ranges(&groups, Some(&bits));
            assert_ne!(made, real);
            let (_, measured) = Truth::new(&made, &spec, &inputs, &Channels::whole(&made)).unwrap();
            assert_eq!(ranges, measured, "{rule:?}");
            let mut changed = vec![false; real.nodes.len() + 1];
            for input in &inputs {
                let input: Vec<f64> = input.iter().map(|&byte| f64::from(byte)).collect();
                let (mut before, mut after) = (Vec::new(), Vec::new());
                let answers = real.run(&input, |_, numbers| before.push(numbers.to_vec())).unwrap();
                assert_eq!(answers, made.run(&input, |_, numbers| after.push(numbers.to_vec())).unwrap());
                for (value, (before, after)) in before.iter().zip(&after).enumerate() {
                    for (a, b) in before.iter().zip(after).filter(|(a, _)| **a != 0.0) {
                        let gain = b / a;
                        assert!(gain > 0.0 && gain.log2().fract() == 0.0, "{rule:?} {value}: {a} {b}");
                        changed[value] |= gain != 1.0;
                    }
                }
            }
            // The input, what stands beside the constant, and the answers are as they were.
            for value in [0, 1, 14, 15, 16, 17, 18] {
                assert!(!changed[value], "{rule:?} {value}");
            }
            assert_eq!(changed[11], outputs == 1, "{rule:?}");
            assert!((2..=9).all(|value| changed[value]), "{rule:?} {changed:?}");
        }
    }
}

/// Channels of very different size that matter alike need more bits, unless they are equalised.
#[test]
fn equalised_channels_need_fewer_bits() {
    const LEN: usize = 16;
    let mut rng = generator(8);
    let mut layer = |input, outputs: usize, row: i32, column: i32| {
        let size = |at: usize| 2f64.powi(row * (at / LEN % 8) as i32 + column * (at % LEN % 8) as i32);
        let number = |at| (f64::from(rng.next_u32()) / f64::from(u32::MAX) - 0.4) * size(at);
        let weights = (0..LEN * outputs).map(number).collect();
        let geometry = Geometry::Dense(Dense { inputs: LEN, outputs });
        node(RealOp::Linear(Linear { input, geometry, weights, bias: vec![0.0; outputs] }))
    };
    let nodes = vec![layer(0, LEN, -1, 0), relu(1), sum(&[(2, 1.0)], 0.0, LEN), layer(3, 10, 0, 1)];
    let outputs = vec![RealOutput { name: "y".to_owned(), value: 4, shape: vec![10], last: Last::Nothing }];
    let real = Real { name: "r".to_owned(), input: vec![LEN], nodes, outputs };
    let input = InputSpec::new(real.input.clone(), 8);
    let mut pixels = generator(4);
    let samples: Vec<u8> = (0..LEN * 60).map(|_| pixels.next_u32() as u8).collect();
    let gates = |real: &Real| -> u64 {
        let chosen = choose(real, &input, &samples, &Goal::default(), &all_shared).unwrap();
        assert!(chosen.reached, "{:?}", chosen.fidelity);
        chosen.model.graph.activations().map(|relu| relu.and_gates()).sum()
    };
    // A constant, however small, leaves nothing to equalise.
    let mut fixed = real.clone();
    fixed.nodes[2] = sum(&[(2, 1.0)], 1e-12, LEN);
    let (with, without) = (gates(&real), gates(&fixed));
    assert!(with + 2 * LEN as u64 <= without, "{with} {without}");
}

/// What one server has in clear tells nothing of other layers' weights: the layer is left as it is, and so are the columns of
/// those that read it.
#[test]
fn layers_in_clear_are_left() {
    let (mut real, samples) = network(0.02);
    real.outputs.truncate(1);
    let inputs: Vec<&[u8]> = samples.chunks(INPUT).collect();
    let spec = InputSpec::new(real.input.clone(), 8);
    let layers: Vec<usize> =
        (0..real.nodes.len()).filter(|&at| matches!(real.nodes[at].op, RealOp::Linear(_))).collect();
    let weights = |real: &Real, at: usize| match &real.nodes[at].op {
        RealOp::Linear(layer) => layer.weights.clone(),
        _ => Vec::new(),
    };
    let mut changed = 0;
    for &clear in &layers {
        let in_clear: Vec<bool> = (0..real.nodes.len()).map(|at| at == clear).collect();
        let channels = Channels::new(&real, &in_clear);
        let (_, groups) = Truth::new(&real, &spec, &inputs, &channels).unwrap();
        for rule in [Rule::Weights, Rule::Values] {
            let Some(bits) = gains(&real, &channels, &groups, rule) else { continue };
            let made = equalised(&real, &channels, &bits);
            assert_eq!(weights(&made, clear), weights(&real, clear));
            changed += layers.iter().filter(|&&at| weights(&made, at) != weights(&real, at)).count();
        }
    }
    assert!(changed > 0);

    // By the names that a placement has, in whatever order.
    let input = InputSpec::new(real.input.clone(), 8);
    for (number, &at) in layers.iter().enumerate() {
        real.nodes[at].origin.name = format!("layer {number}");
    }
    let clear = |names: &[&str]| names.iter().map(|name| *name == "layer 1").collect();
    assert_eq!(
        crate::numbers::in_clear(&real, &input, &clear),
        (0..real.nodes.len()).map(|at| at == layers[1]).collect::<Vec<_>>()
    );
}

/// Too large a network is left as it is.
#[test]
fn large_networks_are_left() {
    for (size, large) in [(1 << 10, false), (1 << 18, true)] {
        let input = [size, 1, 1];
        let depthwise = Conv { kernel: [1; 2], pads: [0; 4], ..conv(input, size, size) };
        let layer = Linear {
            input: 0,
            geometry: Geometry::Conv(depthwise),
            weights: vec![0.5; size],
            bias: vec![0.0; size],
        };
        let nodes = [vec![node(RealOp::Linear(layer))], (1..40).map(relu).collect()].concat();
        let outputs =
            vec![RealOutput { name: "y".to_owned(), value: 0, shape: vec![size], last: Last::Nothing }];
        let real = Real { name: "r".to_owned(), input: input.to_vec(), nodes, outputs };
        let channels = Channels::new(&real, &[]);
        assert_eq!((channels.count == 1, channels.none().len() == 41), (large, large));
    }
}
