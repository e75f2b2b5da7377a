//! Rounding for what a layer makes, beside rounding to nearest.

use rand_core::Rng;

use super::super::moments::{Moments, costs, factor};
use super::super::wishes::wishes;
use super::super::{Goal, Precision, Sample, choose};
use super::*;
use crate::graph::{Gather, Last, Window};
use crate::real::{Origin, Real, RealNode, RealOp, RealOutput, RealTerm};
use crate::tests::{generator, pick};
use crate::{Conv, Dense, InputSpec};

const SHAPE: [usize; 3] = [2, 8, 8];

fn conv(input: [usize; 3], channels: usize) -> Geometry {
    let (kernel, stride, dilation) = ([3; 2], [1; 2], [1; 2]);
    Geometry::Conv(Conv { input, channels, kernel, stride, dilation, pads: [1; 4], groups: 1 })
}

fn node(name: &str, op: RealOp) -> RealNode {
    RealNode { origin: Origin { name: name.to_owned(), op: "Op".to_owned() }, op }
}

/// One or two layers, a ReLU between them.
fn network(layers: usize, seed: u64) -> Real {
    let mut rng = generator(seed);
    let (mut nodes, mut input) = (Vec::new(), SHAPE);
    for number in 0..layers {
        let geometry = conv(input, 6);
        let weights =
            (0..geometry.weights()).map(|_| f64::from(rng.next_u32()) / 2f64.powi(31) - 1.0).collect();
        let bias = vec![0.5; geometry.outputs()];
        let layer = Linear { input: nodes.len(), geometry, weights, bias };
        nodes.push(node(&format!("layer {number}"), RealOp::Linear(layer)));
        if number + 1 < layers {
            nodes.push(node("relu", RealOp::Relu { input: nodes.len() }));
        }
        input = [6, 8, 8];
    }
    let output =
        RealOutput { name: "y".to_owned(), value: nodes.len(), shape: input.to_vec(), last: Last::Nothing };
    Real { name: "r".to_owned(), input: SHAPE.to_vec(), nodes, outputs: vec![output] }
}

/// Images in which what is near is alike, up to `most`.
fn images(count: usize, most: f64, seed: u64) -> Vec<Vec<u8>> {
    let mut rng = generator(seed);
    let image = |_| {
        let mut next = || pick(&mut rng, 0, 1000) as f64 / 1000.0;
        let (level, slopes, shift) = (next(), [next() - 0.5, next() - 0.5], next() / 4.0);
        let places = (0..SHAPE.iter().product()).map(|at: usize| {
            let (y, x) = ((at / 8 % 8) as f64 / 8.0, (at % 8) as f64 / 8.0);
            let value = level + slopes[0] * y + slopes[1] * x + shift * (at / 64) as f64 + next() / 20.0;
            (value.clamp(0.0, 1.0) * most) as u8
        });
        places.collect()
    };
    (0..count).map(image).collect()
}

fn spec() -> InputSpec {
    InputSpec::new(SHAPE.to_vec(), 8)
}

fn moments(real: &Real, images: &[Vec<u8>], clear: &[bool]) -> Moments {
    let samples: Vec<Sample> = images.iter().map(|image| Sample::from(image.as_slice())).collect();
    let (held, calibrating) = samples.split_at(samples.len() / 4);
    Moments::new(real, &spec(), calibrating, held, clear).unwrap()
}

fn layer(real: &Real) -> &Linear {
    match &real.nodes[0].op {
        RealOp::Linear(layer) => layer,
        _ => unreachable!(),
    }
}

/// Squares of what other weights and more bias change in a layer, in units of its scale.
fn change(layer: &Linear, target: &[f64], weights: &[f64], bias: &[f64], images: &[Vec<u8>]) -> f64 {
    let errors: Vec<f64> = target.iter().zip(weights).map(|(a, b)| a - b).collect();
    let wrong = Linear { weights: errors, ..layer.clone() };
    let of_image = |image: &Vec<u8>| {
        let input: Vec<f64> = image.iter().map(|&x| f64::from(x)).collect();
        let made = wrong.product(&input).unwrap();
        made.iter().zip(bias).map(|(a, b)| (a - b) * (a - b)).sum::<f64>()
    };
    images.iter().map(of_image).sum()
}

fn nearest(target: &[f64]) -> Vec<f64> {
    target.iter().map(|weight| weight.round_ties_even()).collect()
}

#[test]
fn what_a_layer_makes_is_nearer_on_inputs_that_were_not_seen() {
    for seed in 0..4 {
        let real = network(1, seed);
        let moments = moments(&real, &images(40, 255.0, seed + 10), &[]);
        let layer = layer(&real);
        for bits in [2, 4, 6] {
            let target: Vec<f64> = layer.weights.iter().map(|weight| weight * f64::from(1 << bits)).collect();
            let read = Read { inputs: moments.of(0).unwrap(), gains: &[], scale: 1.0 };
            let made = rounded(layer, &target, &read).unwrap();
            let others = images(40, 255.0, seed + 100);
            let before = change(layer, &target, &nearest(&target), &vec![0.0; made.bias.len()], &others);
            let after = change(layer, &target, &made.weights, &made.bias, &others);
            assert!(after < before / 4.0, "{bits} bits: {after} of {before}");
            assert!(made.weights.iter().all(|weight| weight.fract() == 0.0));
            let most = nearest(&target).iter().fold(0f64, |most, weight| most.max(weight.abs()));
            assert!(made.weights.iter().all(|weight| weight.abs() <= most), "beyond the bits");
            // The same again.
            let again = rounded(layer, &target, &read).unwrap();
            assert!(again.weights == made.weights && again.bias == made.bias);
        }
    }
}

#[test]
fn columns_that_do_not_vary_together_are_rounded_to_nearest() {
    let aim: Vec<Lanes> =
        (0..9).map(|i| std::array::from_fn(|lane| (i * 7 + lane * 3) as f64 / 5.0 - 4.0)).collect();
    let made = compensated(&aim, &[0.0; 36], &[1.0; 9], 100.0);
    assert_eq!(made, aim.iter().map(|aims| aims.map(f64::round_ties_even)).collect::<Vec<_>>());
    let identity: Vec<f64> = (0..81).map(|at| f64::from(at % 10 == 0)).collect();
    assert_eq!(factor(identity, 9).unwrap(), [0.0; 36]);
}

#[test]
fn no_weight_is_beyond_the_limit() {
    let aim = vec![[2.4; LANES]; 8];
    let made = compensated(&aim, &[1.0; 28], &[1.0; 8], 2.0);
    assert!(made.iter().flatten().all(|weight| weight.abs() <= 2.0), "{made:?}");
    // What could not be rounded up is not forgotten, and does not grow without end either.
    assert!(made.iter().flatten().all(|weight| *weight == 2.0), "{made:?}");
}

#[test]
fn second_moments_without_a_factor_have_none() {
    assert!(factor(vec![f64::NAN], 1).is_none());
    assert!(factor(vec![-1.0], 1).is_none());
    assert!(factor(vec![f64::INFINITY], 1).is_none());
    // A column that never varies, and two that are the same: a singular matrix.
    let made = factor(vec![0.0, 0.0, 0.0, 0.0, 4.0, 4.0, 0.0, 4.0, 4.0], 3).unwrap();
    assert_eq!(made[..2], [0.0, 0.0]);
    assert!((made[2] - 1.0 / 1.01).abs() < 1e-12, "{made:?}");
    // More that pulls together than squares allow.
    assert!(factor(vec![1.0, 2.0, 0.0, 1.0], 2).is_none());
}

#[test]
fn inputs_that_never_vary_leave_the_bias_alone_to_be_mended() {
    let real = network(1, 5);
    let layer = layer(&real);
    let flat = vec![vec![100u8; 128]; 16];
    let moments = moments(&real, &flat, &[]);
    let target: Vec<f64> = layer.weights.iter().map(|weight| weight * 8.0).collect();
    let read = Read { inputs: moments.of(0).unwrap(), gains: &[], scale: 1.0 };
    let made = rounded(layer, &target, &read).unwrap();
    assert_eq!(made.weights, nearest(&target));
    assert!(change(layer, &target, &made.weights, &made.bias, &flat[..1]) < 1e-12);
}

/// What was nearly always dark is not used to make up for what was not: it may be bright at last.
#[test]
fn a_column_that_hardly_varied_makes_up_for_little() {
    // A thousandth of the other's deviation, and always together with it.
    let made = factor(vec![4.0, 0.004, 0.0, 0.000_004], 2).unwrap();
    assert!(made[0].abs() < 1.0, "{made:?}");
}

/// Of however many inputs, as many judge as are counted on.
#[test]
fn many_inputs_are_no_more_judges() {
    let real = network(1, 14);
    let moments = moments(&real, &images(400, 255.0, 15), &[]);
    let group = &moments.of(0).unwrap().groups[0];
    let columns = layer(&real).geometry.fan_in();
    assert_eq!([group.held.len(), group.less_mean.len()], [64 * columns; 2]);
    assert!(Moments::inputs(1) < 10_000);
}

/// The room that is reckoned with is that which judging takes, also of inputs that each show more than one patch.
#[test]
fn all_patches_that_judge_count() {
    let real = network(1, 14);
    let geometry = &layer(&real).geometry;
    let columns = geometry.fan_in();
    for judges in [3, 40, 50, 64] {
        let moments = moments(&real, &images(4 * judges, 255.0, 15), &[]);
        let group = &moments.of(0).unwrap().groups[0];
        let kept = 2 * columns * columns + group.held.len() + group.less_mean.len();
        assert_eq!(costs(geometry, judges)[1], kept, "{judges}");
        assert!(group.held.len() >= 64 * columns);
    }
}

/// A sum of the network's input and of a layer's result tells of that layer.
#[test]
fn a_layer_in_clear_behind_a_sum_is_behind_layers() {
    let mut real = network(1, 16);
    let RealOp::Linear(first) = real.nodes[0].op.clone() else { unreachable!() };
    let geometry = conv(SHAPE, 2);
    let (weights, bias) = (vec![0.5; geometry.weights()], vec![0.0; geometry.outputs()]);
    real.nodes[0].op = RealOp::Linear(Linear { geometry: geometry.clone(), weights, bias, ..first });
    let term = |value| RealTerm { value, factor: 1.0, gather: Gather::All };
    let sum = RealOp::Public { terms: vec![term(0), term(1)], offset: 0.0, len: 128 };
    let RealOp::Linear(first) = real.nodes[0].op.clone() else { unreachable!() };
    real.nodes.extend([node("sum", sum), node("behind", RealOp::Linear(Linear { input: 2, ..first }))]);
    let all = images(40, 255.0, 17);
    let known = |clear: &[bool]| [0, 2].map(|node| moments(&real, &all, clear).of(node).is_some());
    assert_eq!(known(&[true, false, false]), [true, true]);
    assert_eq!(known(&[true, false, true]), [true, false]);
}

/// Gains of two change moments of a network as inputs of twice the size would.
#[test]
fn gains_of_channels_are_as_good_as_other_inputs() {
    let real = network(1, 6);
    let layer = layer(&real);
    let small = images(24, 120.0, 7);
    let large: Vec<Vec<u8>> = small.iter().map(|image| image.iter().map(|x| 2 * x).collect()).collect();
    let [small, large] = [small, large].map(|images| moments(&real, &images, &[]));
    let target: Vec<f64> = layer.weights.iter().map(|weight| weight * 8.0).collect();
    let with = |moments: &Moments, gains: &[f64]| {
        let made =
            rounded(layer, &target, &Read { inputs: moments.of(0).unwrap(), gains, scale: 0.5 }).unwrap();
        (made.weights, made.bias)
    };
    let (found, expected) = (with(&small, &[2.0, 2.0]), with(&large, &[]));
    assert_eq!(found.0, expected.0);
    assert!(found.1.iter().zip(&expected.1).all(|(a, b)| (a - b).abs() < 1e-9));
    assert!(found.1.iter().any(|b| *b != 0.0));
}

#[test]
fn of_few_inputs_and_of_layers_in_clear_nothing_is_known() {
    let real = network(2, 8);
    let all = images(40, 255.0, 9);
    let known = |moments: Moments| [0, 2].map(|node| moments.of(node).is_some());
    assert_eq!(known(moments(&real, &all, &[])), [true, true]);
    assert_eq!(known(moments(&real, &all, &[false, false, true])), [true, false]);
    assert_eq!(known(moments(&real, &all, &[true, false, true])), [true, false]);
    assert_eq!(known(moments(&real, &all[..9], &[])), [false, false]);
    assert_eq!(known(moments(&real, &all[..4], &[])), [false, false]);
}

/// Whoever has a layer in clear sees nothing of others: not even by how it is rounded. The first one's inputs are those of
/// the network, so it may be rounded for them.
#[test]
fn a_layer_in_clear_does_not_depend_on_others() {
    let samples = images(40, 255.0, 11).concat();
    let goal = Goal { weight_bits: Some(4), activation_bits: Some(8), ..Goal::default() };
    let one = network(2, 12);
    let chosen = |real: &Real, in_clear: Option<usize>| {
        let clear = |layers: &[&str]| (0..layers.len()).map(|i| Some(i) == in_clear).collect();
        choose(real, &spec(), &samples, &goal, &clear).unwrap()
    };
    for (own, compensated) in [(0, true), (1, false)] {
        // The same but for the other layer.
        let mut other = one.clone();
        other.nodes[2 - 2 * own] = network(2, 13).nodes[2 - 2 * own].clone();
        let found = [&one, &other].map(|real| chosen(real, Some(own)));
        assert!(found.iter().all(|chosen| chosen.compensated[own] == compensated), "{own}");
        assert_eq!(found[0].model.layers[own].weights, found[1].model.layers[own].weights, "{own}");
    }
    let found = chosen(&one, None);
    assert_eq!(found.compensated, [true, true]);
    assert_ne!(found.model.layers[1].weights, chosen(&one, Some(1)).model.layers[1].weights);
}

/// What a pool over a whole plane sums is rounded finer, for so many roundings add up; what a small window sums is not.
#[test]
fn what_many_values_are_summed_of_is_finer() {
    for (size, finer) in [(2, 1.0), (3, 1.0), (4, 4.0), (7, 4.0), (8, 8.0)] {
        let window = Window {
            input: [2, size, size],
            kernel: [size; 2],
            stride: [1; 2],
            dilation: [1; 2],
            pads: [0; 2],
            output: [1; 2],
        };
        let factor = 1.0 / (size * size) as f64;
        let term = RealTerm { value: 1, factor, gather: Gather::Window(window) };
        let dense = Geometry::Dense(Dense { inputs: 2, outputs: 1 });
        let nodes = vec![
            node("relu", RealOp::Relu { input: 0 }),
            node("pool", RealOp::Public { terms: vec![term], offset: 0.0, len: 2 }),
            node(
                "dense",
                RealOp::Linear(Linear { input: 2, geometry: dense, weights: vec![1.0; 2], bias: vec![0.0] }),
            ),
        ];
        let outputs =
            vec![RealOutput { name: "y".to_owned(), value: 3, shape: vec![1], last: Last::Nothing }];
        let real = Real { name: "r".to_owned(), input: vec![2, size, size], nodes, outputs };
        let precision = Precision { weight: 8, activation: 8 };
        let scale = |value: usize| wishes(&real, &[(0.0, 1.0); 4], precision)[value].scale.unwrap();
        assert_eq!(scale(1) * finer, scale(2) / factor, "{size}");
    }
}
