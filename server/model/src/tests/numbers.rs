//! Numbers that are chosen: integer networks against the real ones, and indices of the largest.

use super::{generator, pick};
use crate::graph::{Gather, Last, Op};
use crate::numbers::{Chosen, Goal, all_shared, choose, compare};
use crate::real::{Linear, Origin, Real, RealNode, RealOp, RealOutput, RealTerm};
use crate::{Conv, Dense, Error, Executor, FixedModel, Geometry, InputSpec, WidthRule};
use rand_core::Rng;

fn node(op: RealOp) -> RealNode {
    RealNode { origin: Origin { name: "n".to_owned(), op: "Op".to_owned() }, op }
}

fn term(value: usize, factor: f64) -> RealTerm {
    RealTerm { value, factor, gather: Gather::All }
}

/// These places of a value.
fn gathered(value: usize, places: &[usize]) -> RealTerm {
    RealTerm { value, factor: 1.0, gather: Gather::from_places(places.iter().map(|&place| Some(place))) }
}

fn output(value: usize, shape: &[usize], last: Last) -> RealOutput {
    RealOutput { name: format!("y{value}"), value, shape: shape.to_vec(), last }
}

/// The index of the first largest, for every number of values and with ties, rows side by side, for inputs that the
/// calibration has not seen.
#[test]
fn the_index_of_the_largest_is_right_for_every_input() {
    let mut rng = generator(5);
    for count in 2..=20 {
        let rows = 1 + count % 3;
        // Labels at calibration are 0 alone; the widths hold the others all the same.
        let real = Real {
            name: "index".to_owned(),
            input: vec![rows, count],
            nodes: vec![],
            outputs: vec![output(0, &[rows, count], Last::Index)],
        };
        let input = InputSpec::new(real.input.clone(), 8);
        let mut seen = vec![0u8; rows * count];
        seen.iter_mut().step_by(count).for_each(|value| *value = 255);
        let goal = Goal { width: WidthRule::Calibrated, ..Goal::default() };
        let chosen = choose(&real, &input, &seen, &goal, &all_shared).unwrap();
        let graph = &chosen.model.graph;
        let wide = usize::BITS - (count - 1).leading_zeros() + 1;
        assert!(graph.answer_width() <= wide.max(2) && graph.outputs[0].shape == [rows], "{count}");
        let executor = Executor::new(&chosen.model).unwrap();
        for most in [2, 9, 256] {
            let x: Vec<u8> = (0..rows * count).map(|_| (rng.next_u32() % most) as u8).collect();
            let expected: Vec<i32> = x
                .chunks(count)
                .map(|row| {
                    (0..count).reduce(|best, i| if row[i] > row[best] { i } else { best }).unwrap() as i32
                })
                .collect();
            assert_eq!(executor.run(&x).unwrap().logits, expected, "{count} {x:?}");
        }
    }
}

/// Every kind of node, several outputs, and scales that are no powers of two: within a percent.
#[test]
fn integer_networks_are_near_the_real_ones() {
    let mut rng = generator(9);
    let mut reals = |count: usize, size: f64| -> Vec<f64> {
        (0..count).map(|_| (f64::from(rng.next_u32()) / f64::from(u32::MAX) - 0.5) * 2.0 * size).collect()
    };
    for (size, bias) in [(1.0, 0.3), (1e-4, 1e-4), (300.0, 5.0)] {
        let conv = Geometry::Conv(Conv {
            input: [2, 5, 5],
            channels: 4,
            kernel: [3, 3],
            stride: [1; 2],
            dilation: [1; 2],
            pads: [1; 4],
            groups: 2,
        });
        let dense = Geometry::Dense(Dense { inputs: 100, outputs: 6 });
        let layer = |input, geometry: &Geometry, weights: Vec<f64>, bias: Vec<f64>| {
            node(RealOp::Linear(Linear { input, geometry: geometry.clone(), weights, bias }))
        };
        let sum = |terms, offset, len| node(RealOp::Public { terms, offset, len });
        let nodes = vec![
            sum(vec![term(0, 1.0 / 255.0)], 0.0, 50),
            layer(1, &conv, reals(conv.weights(), size), reals(100, bias)),
            node(RealOp::Relu { input: 2 }),
            // A leaky ReLU: of one value, twice.
            sum(vec![term(2, -0.1)], 0.0, 100),
            node(RealOp::Relu { input: 4 }),
            sum(vec![term(3, 1.0), term(5, -1.0)], 0.0, 100),
            // Two layers of it, a residual sum, and one more rounded in between.
            layer(6, &dense, reals(600, 0.3), reals(6, bias)),
            layer(6, &dense, reals(600, 0.3), reals(6, bias)),
            sum(vec![term(7, 1.0 / 3.0), term(8, 1.0)], 0.25, 6),
            node(RealOp::Round { input: 9 }),
            layer(10, &Geometry::Dense(Dense { inputs: 6, outputs: 3 }), reals(18, 1.0), reals(3, bias)),
        ];
        let outputs = vec![output(11, &[3], Last::Softmax), output(9, &[6], Last::Nothing)];
        let real = Real { name: "r".to_owned(), input: vec![2, 5, 5], nodes, outputs };
        let input = InputSpec::new(real.input.clone(), 8);
        let mut pixels = generator(3);
        let samples: Vec<u8> = (0..50 * 40).map(|_| pick(&mut pixels, 0, 255) as u8).collect();
        let chosen = choose(&real, &input, &samples, &Goal::default(), &all_shared).unwrap();
        assert!(chosen.reached && chosen.fidelity.error <= 0.01, "{size}: {:?}", chosen.fidelity);
        assert_eq!(chosen.fidelity.wrapped, 0);
        assert_eq!(chosen.model.graph.outputs.len(), 2);
    }
}

#[test]
fn bits_that_are_given_are_kept_and_impossible_ones_refused() {
    let geometry = Geometry::Dense(Dense { inputs: 4, outputs: 2 });
    let weights = vec![0.5, -0.25, 0.125, 0.75, -0.5, 0.3, 0.7, -0.9];
    let nodes = vec![node(RealOp::Linear(Linear { input: 0, geometry, weights, bias: vec![0.1, -0.1] }))];
    let real =
        Real { name: "r".to_owned(), input: vec![4], nodes, outputs: vec![output(1, &[2], Last::Nothing)] };
    let input = InputSpec::new(vec![4], 8);
    let samples: Vec<u8> = (0..200).map(|i| (i * 37) as u8).collect();
    let goal = Goal { weight_bits: Some(2), activation_bits: Some(3), ..Goal::default() };
    let coarse = choose(&real, &input, &samples, &goal, &all_shared).unwrap();
    assert_eq!((coarse.precision.weight, coarse.precision.activation, coarse.reached), (2, 3, false));
    assert!(coarse.model.layers[0].weights.iter().all(|w| w.unsigned_abs() <= 4));
    let goal = Goal { weight_bits: Some(26), ..Goal::default() };
    assert!(matches!(choose(&real, &input, &samples, &goal, &all_shared), Err(Error::Width { .. })));
    for wrong in [&samples[..0], &samples[..3]] {
        assert!(matches!(choose(&real, &input, wrong, &Goal::default(), &all_shared), Err(Error::Input(_))));
    }
}

/// Values far below what the calibration saw are cut off where a sum is shifted to be read by a layer: counted as wrong, and
/// never called safe. With the worst case's widths nothing is cut off.
#[test]
fn what_is_lifted_too_little_is_no_safe_sum() {
    let dense = |input, weights: Vec<f64>, inputs: usize| {
        let geometry = Geometry::Dense(Dense { inputs, outputs: weights.len() / inputs });
        let bias = vec![0.0; weights.len() / inputs];
        node(RealOp::Linear(Linear { input, geometry, weights, bias }))
    };
    let nodes = vec![
        dense(0, vec![1.0, -1.0, 0.25, 0.5], 2),
        node(RealOp::Round { input: 1 }),
        dense(2, vec![0.5, 0.25, -1.0, 0.125], 2),
    ];
    let real =
        Real { name: "r".to_owned(), input: vec![2], nodes, outputs: vec![output(3, &[2], Last::Nothing)] };
    let input = InputSpec::new(vec![2], 8);
    // Never far below zero, and then as far as can be.
    let seen: Vec<u8> = (0..40).flat_map(|i| [200 + i, 210]).collect();
    let chosen =
        |width| choose(&real, &input, &seen, &Goal { width, ..Goal::default() }, &all_shared).unwrap();
    for rule in [WidthRule::Calibrated, WidthRule::Affordable, WidthRule::Worst] {
        let made = chosen(rule);
        let executor = Executor::new(&made.model).unwrap();
        let wrapped = executor.run(&[0, 255]).unwrap().wrapped;
        let safe = made.calibration.sums.iter().all(crate::SumWidth::is_safe);
        assert_eq!((safe, wrapped == 0), (rule == WidthRule::Worst, rule == WidthRule::Worst), "{rule:?}");
        for x in (0..=255u8).step_by(5).flat_map(|a| (0..=255).step_by(5).map(move |b| [a, b])) {
            let execution = executor.run(&x).unwrap();
            let float = real.run(&x.map(f64::from), |_, _| ()).unwrap().concat();
            let scale = made.model.graph.outputs[0].scale;
            let near = float.iter().zip(&execution.logits);
            let near = near.fold(0f64, |most, (a, &b)| most.max((a - f64::from(b) * scale).abs())) < 4.0;
            // What is not counted is right.
            assert!(near || execution.wrapped > 0, "{rule:?} {x:?}: {float:?}");
            assert!(rule != WidthRule::Worst || execution.wrapped == 0);
        }
    }
}

/// Weights that are dwarfed by the biases of their layer do not make the biases too long for any ring.
#[test]
fn weights_may_be_far_smaller_than_biases() {
    for size in [1e-3, 1e-6, 1e-9, 0.0] {
        let geometry = Geometry::Dense(Dense { inputs: 2, outputs: 3 });
        let weights = vec![size, -size, size / 2.0, size, 0.0, size];
        let bias = vec![1000.0, -3.0, 0.25];
        let nodes = vec![
            node(RealOp::Linear(Linear { input: 0, geometry, weights, bias })),
            node(RealOp::Relu { input: 1 }),
        ];
        let outputs = vec![output(2, &[3], Last::Nothing)];
        let real = Real { name: "r".to_owned(), input: vec![2], nodes, outputs };
        let samples: Vec<u8> = (0..60).map(|i| (i * 37) as u8).collect();
        for goal in [Goal::default(), Goal { weight_bits: Some(12), ..Goal::default() }] {
            let chosen = choose(&real, &InputSpec::new(vec![2], 8), &samples, &goal, &all_shared).unwrap();
            assert!(chosen.reached, "{size}: {:?}", chosen.fidelity);
            let most = chosen.model.layers[0].bias.iter().map(|bias| bias.unsigned_abs()).max().unwrap();
            assert!(most <= 1 << 28, "{size}: {most}");
        }
    }
}

/// Bits are added where inputs that the search did not see show that labels differ, also where labels are all that is
/// answered and no number tells how near they are.
#[test]
fn bits_are_added_for_labels_alone() {
    // The second output is larger by what only so many bits of a weight show: one more for each hard input.
    let hard = [0.75 / 8.0, 0.75 / 16.0, 0.75 / 32.0, 0.75 / 64.0];
    let geometry = Geometry::Dense(Dense { inputs: 5, outputs: 2 });
    let weights = [&[0.0; 5][..], &[1.0], &hard].concat();
    let layer = Linear { input: 0, geometry, weights, bias: vec![0.0; 2] };
    let outputs = vec![output(1, &[2], Last::Index)];
    let nodes = vec![node(RealOp::Linear(layer))];
    let real = Real { name: "r".to_owned(), input: vec![5], nodes, outputs };
    // The fourth and the eighth judge while bits are searched for, and are easy.
    let easy = [255, 0, 0, 0, 0];
    let one = |at: usize| std::array::from_fn(|i| if i == at { 255u8 } else { 0 });
    let samples: Vec<u8> = [one(1), one(2), one(3), easy, one(4), easy, easy, easy].concat();
    let goal = Goal { error: 1e-4, ..Goal::default() };
    let chosen = choose(&real, &InputSpec::new(vec![5], 8), &samples, &goal, &all_shared).unwrap();
    assert!(chosen.reached && chosen.fidelity.same == 8, "{:?} {:?}", chosen.fidelity, chosen.precision);
}

/// Two rows of three values, by a layer each.
fn rows(last: Last) -> (Real, Chosen, Vec<u8>) {
    let geometry = Geometry::Dense(Dense { inputs: 4, outputs: 6 });
    let weights: Vec<f64> = (0..24).map(|i| f64::from((i * 7 + 3) % 11 - 5) / 8.0).collect();
    let nodes = vec![node(RealOp::Linear(Linear { input: 0, geometry, weights, bias: vec![0.25; 6] }))];
    let outputs = vec![output(1, &[2, 3], last)];
    let real = Real { name: "r".to_owned(), input: vec![4], nodes, outputs };
    let samples: Vec<u8> = (0..200u32).map(|i| (i * i * 37 % 251) as u8).collect();
    let input = InputSpec::new(real.input.clone(), 8);
    let chosen = choose(&real, &input, &samples, &Goal::default(), &all_shared).unwrap();
    (real, chosen, samples)
}

/// Whoever compares must notice a network that is another one: a weight, a bias, a width, a scale.
#[test]
fn a_spoilt_network_is_noticed() {
    type Spoil = fn(&mut FixedModel);
    for last in [Last::Nothing, Last::Softmax] {
        let (real, chosen, samples) = rows(last);
        let inputs: Vec<&[u8]> = samples.chunks(4).collect();
        let good = compare(&real, &chosen.model, &inputs, 0.01).unwrap();
        assert!(good.fidelity.error < 0.01 && good.fidelity.wrapped == 0, "{:?}", good.fidelity);
        assert_eq!((good.fidelity.inputs, good.fidelity.different), (50, 0));
        assert_eq!(good.labels.len(), 50);
        let spoils: [(&str, Spoil); 4] = [
            ("weight", |model| model.layers[0].weights[9] *= -2),
            ("bias", |model| model.layers[0].bias[4] += (150.0 / model.graph.outputs[0].scale) as i64),
            ("width", |model| model.graph.nodes.iter_mut().for_each(|node| node.width -= 4)),
            ("scale", |model| model.graph.outputs[0].scale *= 2.0),
        ];
        for (what, spoil) in spoils {
            let mut spoilt = chosen.model.clone();
            spoil(&mut spoilt);
            let found = compare(&real, &spoilt, &inputs, 0.01).unwrap().fidelity;
            assert!(found.error > 0.05, "{what}: {found:?}");
            assert_eq!(found.wrapped > 0, what == "width", "{what}: {found:?}");
            assert_eq!(found.different > 0, what != "scale", "{what}: {found:?}");
        }
    }
}

/// Of an answer by row every row has a label, and the first one's is told.
#[test]
fn labels_are_those_of_every_row() {
    for last in [Last::Softmax, Last::LogSoftmax, Last::ArgMax] {
        let (real, chosen, samples) = rows(last);
        let inputs: Vec<&[u8]> = samples.chunks(4).collect();
        let good = compare(&real, &chosen.model, &inputs, 0.01).unwrap();
        assert!(good.labels.iter().all(|[float, fixed]| *float < 3 && *fixed < 3));
        // The largest of all is in the first row, and the second row is another.
        let mut spoilt = chosen.model.clone();
        let unit = (1.0 / spoilt.graph.outputs[0].scale) as i64;
        spoilt.layers[0].bias.iter_mut().take(3).for_each(|bias| *bias += 30 * unit);
        let (before, shifted) = (good.fidelity.same, compare(&real, &spoilt, &inputs, 0.01).unwrap());
        assert_eq!(shifted.fidelity.same, before, "a row that is shifted as a whole has the same label");
        spoilt.layers[0].bias[5] += 90 * unit;
        let found = compare(&real, &spoilt, &inputs, 0.01).unwrap();
        assert!(found.fidelity.same < before && found.fidelity.different > 0, "{last:?}");
        assert_eq!(found.labels, shifted.labels, "the first row is what it was");
    }
}

/// Answers of very different size share one ring; only the layers whose sums have no room are coarser.
#[test]
fn large_answers_take_no_bits_from_other_layers() {
    let mut rng = generator(31);
    let mut layer = |input, inputs: usize, outputs: usize, size: f64| {
        let number = |_| (f64::from(rng.next_u32()) / f64::from(u32::MAX) - 0.5) * size;
        let (weights, bias) = ((0..inputs * outputs).map(number).collect(), vec![size / 10.0; outputs]);
        let geometry = Geometry::Dense(Dense { inputs, outputs });
        node(RealOp::Linear(Linear { input, geometry, weights, bias }))
    };
    let nodes = vec![
        node(RealOp::Public { terms: vec![term(0, 1.0 / 255.0)], offset: 0.0, len: 64 }),
        layer(1, 64, 64, 1.0),
        node(RealOp::Relu { input: 2 }),
        layer(3, 64, 8, 1.0),
        layer(3, 64, 8, 40.0),
    ];
    let outputs = vec![output(4, &[8], Last::Nothing), output(5, &[8], Last::Nothing)];
    let real = Real { name: "r".to_owned(), input: vec![64], nodes, outputs };
    let mut pixels = generator(3);
    let samples: Vec<u8> = (0..64 * 40).map(|_| pick(&mut pixels, 0, 255) as u8).collect();
    for bits in [10, 12, 14] {
        let goal = Goal { activation_bits: Some(bits), error: 0.004, ..Goal::default() };
        let chosen = choose(&real, &InputSpec::new(vec![64], 8), &samples, &goal, &all_shared).unwrap();
        assert!(chosen.reached && chosen.fidelity.error < 0.004, "{bits}: {:?}", chosen.fidelity);
        assert_eq!(chosen.fidelity.wrapped, 0);
    }
    // Bits that are given are no others.
    let goal = Goal { weight_bits: Some(14), activation_bits: Some(14), ..Goal::default() };
    let refused = choose(&real, &InputSpec::new(vec![64], 8), &samples, &goal, &all_shared);
    assert!(matches!(refused, Err(Error::Width { .. })));
}

/// Slopes of a leaky ReLU need no unit of their own where all that meets comes from one: they are exact, and no wider.
#[test]
fn the_unit_of_a_sum_is_kept_through_a_maximum() {
    let geometry = Geometry::Dense(Dense { inputs: 4, outputs: 4 });
    let weights = (0..16).map(|i| f64::from((i * 7 + 3) % 11 - 5) / 8.0).collect();
    let (left, right) = (|factor| RealTerm { factor, ..gathered(5, &[0, 2]) }, gathered(5, &[1, 3]));
    let nodes = vec![
        node(RealOp::Linear(Linear { input: 0, geometry, weights, bias: vec![0.25; 4] })),
        node(RealOp::Relu { input: 1 }),
        node(RealOp::Public { terms: vec![term(1, -1.0)], offset: 0.0, len: 4 }),
        node(RealOp::Relu { input: 3 }),
        node(RealOp::Public { terms: vec![term(2, 1.0), term(4, -0.3)], offset: 0.0, len: 4 }),
        node(RealOp::Public { terms: vec![right, left(-1.0)], offset: 0.0, len: 2 }),
        node(RealOp::Relu { input: 6 }),
        node(RealOp::Public { terms: vec![term(7, 1.0), left(1.0)], offset: 0.0, len: 2 }),
        node(RealOp::Linear(Linear {
            input: 8,
            geometry: Geometry::Dense(Dense { inputs: 2, outputs: 2 }),
            weights: vec![1.0, -0.5, 0.25, 0.75],
            bias: vec![0.0; 2],
        })),
    ];
    let real =
        Real { name: "r".to_owned(), input: vec![4], nodes, outputs: vec![output(9, &[2], Last::Nothing)] };
    let samples: Vec<u8> = (0..200u32).map(|i| (i * i * 37 % 251) as u8).collect();
    let chosen = choose(&real, &InputSpec::new(vec![4], 8), &samples, &Goal::default(), &all_shared).unwrap();
    assert!(chosen.reached, "{:?}", chosen.fidelity);
    let factors: Vec<i32> = chosen
        .model
        .graph
        .nodes
        .iter()
        .flat_map(|node| match &node.op {
            Op::Public { terms, .. } => terms.iter().map(|term| term.factor).collect(),
            _ => Vec::new(),
        })
        .collect();
    // 0.3 to 1 is 3 to 10.
    assert!(factors.iter().all(|factor| factor.abs() <= 10), "{factors:?}");
}

/// Bits that are given stay, whatever they are, and the others are searched for all the same.
#[test]
fn with_bits_of_one_given_the_others_are_searched_for() {
    let geometry = Geometry::Dense(Dense { inputs: 4, outputs: 4 });
    let weights = vec![1.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 1.0];
    let layer = |input| {
        node(RealOp::Linear(Linear {
            input,
            geometry: geometry.clone(),
            weights: weights.clone(),
            bias: vec![0.0; 4],
        }))
    };
    let relu = |input| node(RealOp::Relu { input });
    let nodes = vec![layer(0), relu(1), layer(2), relu(3), layer(4)];
    let real =
        Real { name: "r".to_owned(), input: vec![4], nodes, outputs: vec![output(5, &[4], Last::Nothing)] };
    // One of four stands out, so that no labels are near ties.
    let samples: Vec<u8> =
        (0..200u32).map(|i| if i % 5 == 0 { 200 + i % 50 } else { i * 37 % 90 } as u8).collect();
    for weight in [2, 22] {
        let goal = Goal { weight_bits: Some(weight), error: 0.05, ..Goal::default() };
        let chosen = choose(&real, &InputSpec::new(vec![4], 8), &samples, &goal, &all_shared).unwrap();
        assert!(chosen.reached && chosen.precision.weight == weight, "{:?}", chosen.precision);
        // So few bits are enough for so large an error.
        assert!(chosen.precision.activation < 6, "{:?}", chosen.precision);
    }
}
