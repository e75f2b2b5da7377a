//! What the passes make of networks: few layers, few values rounded, and the same answers.

use super::{answer, close, counts, file, integers, numbers, options, run, tensor, with};
use crate::graph::{Gather, Run};
use crate::onnx::{NodeProto, TensorProto, walk};
use crate::passes::merge;
use crate::real::{Real, RealOp, composed};
use crate::tests::onnx::{float, int, ints, quickly};
use crate::tests::{generator, pick};
use crate::{MAX_LAYERS, read};
use chacha20::ChaCha20Rng;

fn conv(from: &str, to: &str, weights: &str, pad: i64) -> NodeProto {
    with("Conv", &[from, weights], &[to], &[ints("pads", &[pad; 4])])
}

fn norm(from: &str, to: &str) -> NodeProto {
    with("BatchNormalization", &[from, "s", "o", "m", "v"], &[to], &[])
}

/// Weights of 3x3 and 1x1 convolutions of four channels, and of batch norms of four channels.
fn constants() -> Vec<TensorProto> {
    vec![
        tensor("w", &[4, 4, 3, 3], &numbers(144, 1)),
        tensor("p", &[4, 4, 1, 1], &numbers(16, 2)),
        tensor("s", &[4], &[1.5, -0.5, 2.0, 0.25]),
        tensor("o", &[4], &[1.0, -1.0, 0.5, 3.0]),
        tensor("m", &[4], &[0.5, 0.25, -1.0, 2.0]),
        tensor("v", &[4], &[1.0, 4.0, 0.5, 2.0]),
        tensor("d", &[4, 1, 3, 3], &numbers(36, 3)),
        tensor("c", &[], &[3.0]),
        tensor("grouped", &[6, 2, 1, 1], &numbers(12, 10)),
    ]
}

/// Layers, ReLUs and rounded values of a network of four channels of 6x6.
fn made(nodes: Vec<NodeProto>, outputs: &[&str]) -> (usize, usize, usize) {
    counts(&run(&file(15, &[4, 6, 6], nodes, constants(), outputs), &numbers(144, 9)).1)
}

const PLANE: usize = 144;

#[test]
fn batch_norms_are_taken_up_wherever_they_stand() {
    let relu = |from: &str, to: &str| with("Relu", &[from], &[to], &[]);
    // Behind a convolution, before a padded one, both, and twice.
    assert_eq!(made(vec![conv("x", "a", "w", 1), norm("a", "b"), relu("b", "y")], &["y"]), (1, PLANE, 0));
    assert_eq!(made(vec![norm("x", "a"), conv("a", "y", "w", 1)], &["y"]), (1, 0, 0));
    assert_eq!(
        made(vec![norm("x", "a"), norm("a", "b"), conv("b", "c1", "w", 1), norm("c1", "y")], &["y"]),
        (1, 0, 0)
    );
    // Before a convolution, behind a ReLU; with a mean or a gather between.
    let pool = |op: &str, from: &str, to: &str| {
        with(op, &[from], &[to], &[ints("kernel_shape", &[2, 2]), ints("strides", &[2, 2])])
    };
    let behind = vec![conv("x", "a", "w", 1), relu("a", "b"), norm("b", "c1"), conv("c1", "y", "w", 1)];
    assert_eq!(made(behind, &["y"]), (2, PLANE, 0));
    let mean = vec![conv("x", "a", "w", 1), pool("AveragePool", "a", "b"), norm("b", "c1"), relu("c1", "y")];
    assert_eq!(made(mean, &["y"]), (1, PLANE / 4, 0));
    let mean = vec![norm("x", "a"), pool("AveragePool", "a", "b"), conv("b", "y", "w", 1)];
    assert_eq!(made(mean, &["y"]), (1, 0, 0));
    let turned = vec![
        conv("x", "a", "w", 1),
        with("Transpose", &["a"], &["t"], &[ints("perm", &[0, 2, 3, 1])]),
        with("Mul", &["t", "s"], &["m1"], &[]),
        with("Add", &["m1", "o"], &["a1"], &[]),
        relu("a1", "y"),
    ];
    assert_eq!(made(turned, &["y"]), (1, PLANE, 0));
    // Behind a sum of two convolutions.
    let sum = vec![
        conv("x", "a", "w", 1),
        conv("x", "b", "p", 0),
        with("Add", &["a", "b"], &["t"], &[]),
        norm("t", "n"),
        relu("n", "y"),
    ];
    assert_eq!(made(sum, &["y"]), (2, PLANE, 0));
    // Where another reads what is scaled too, the layer is there twice.
    let both = vec![conv("x", "a", "w", 1), norm("a", "n"), relu("n", "y"), relu("a", "z")];
    assert_eq!(made(both, &["y", "z"]), (2, 2 * PLANE, 0));
    // By itself it is a layer of its own, and so is a number for all.
    assert_eq!(made(vec![norm("x", "y")], &["y"]), (1, 0, 0));
    assert_eq!(made(vec![with("Mul", &["x", "c"], &["y"], &[])], &["y"]), (1, 0, 0));
}

/// Means of the input stay means: they are not multiplied out.
#[test]
fn a_mean_before_a_layer_is_public() {
    let nodes = vec![
        with("GlobalAveragePool", &["x"], &["g"], &[]),
        with("Flatten", &["g"], &["f"], &[]),
        with("Gemm", &["f", "fw"], &["y"], &[]),
    ];
    let all = [constants(), vec![tensor("fw", &[4, 3], &numbers(12, 4))]].concat();
    let (_, real) = run(&file(15, &[4, 6, 6], nodes, all, &["y"]), &numbers(144, 9));
    let RealOp::Linear(layer) = &real.nodes[1].op else { panic!() };
    assert_eq!((real.nodes.len(), layer.weights.len()), (2, 12));
}

#[test]
fn layers_in_a_row_are_merged_where_that_is_cheaper_and_rounded_where_not() {
    // A 1x1 convolution goes into one beside it, even before padding.
    assert_eq!(made(vec![conv("x", "a", "w", 1), conv("a", "y", "p", 0)], &["y"]), (1, 0, 0));
    let biased = with("Conv", &["x", "p", "o"], &["a"], &[]);
    assert_eq!(made(vec![biased, conv("a", "y", "w", 1)], &["y"]), (1, 0, 0));
    assert_eq!(made(vec![conv("x", "a", "w", 1), conv("a", "y", "w", 1)], &["y"]), (2, 0, PLANE));
    assert_eq!(made(vec![conv("x", "a", "w", 0), conv("a", "y", "w", 0)], &["y"]), (2, 0, PLANE * 16 / 36));
    // A depthwise convolution goes into the pointwise one behind it, whatever the groups.
    let depthwise = || with("Conv", &["x", "d", "o"], &["a"], &[int("group", 4), ints("pads", &[1; 4])]);
    assert_eq!(made(vec![depthwise(), conv("a", "y", "p", 0)], &["y"]), (1, 0, 0));
    let pairs = with("Conv", &["a", "grouped"], &["y"], &[int("group", 2)]);
    assert_eq!(made(vec![depthwise(), pairs.clone()], &["y"]), (1, 0, 0));
    assert_eq!(made(vec![conv("x", "a", "w", 1), pairs], &["y"]), (1, 0, 0));
    // Channels of one layer that are no channels of the next.
    let scaled = with("Mul", &["x", "gains"], &["a"], &[]);
    let rows = with("MatMul", &["a", "square"], &["y"], &[]);
    let all = vec![
        tensor("gains", &[4, 1, 1], &[0.5, -2.0, 0.0, 1.0]),
        tensor("square", &[6, 5], &numbers(30, 11)),
    ];
    assert_eq!(
        counts(&run(&file(15, &[4, 6, 6], vec![scaled, rows], all, &["y"]), &numbers(144, 9)).1),
        (2, 0, PLANE)
    );
    // One rounding for two readers.
    let two = vec![conv("x", "a", "w", 1), conv("a", "y", "w", 1), conv("a", "z", "p", 0)];
    assert_eq!(made(two, &["y", "z"]), (3, 0, PLANE));
    // Before what repeats values, behind what drops them, and only what is shared of what is joined.
    let slice = |from: &str, to: &str| with("Slice", &[from, "from", "to", "axes"], &[to], &[]);
    let extra = vec![
        integers("from", &[0]),
        integers("to", &[2]),
        integers("axes", &[2]),
        tensor("u", &[4], &[1.0, 1.0, 2.0, 2.0]),
    ];
    let count = |nodes: Vec<NodeProto>| {
        let all = [constants(), extra.clone(), vec![tensor("w8", &[4, 8, 3, 3], &numbers(288, 5))]].concat();
        counts(&run(&file(15, &[4, 6, 6], nodes, all, &["y"]), &numbers(144, 9)).1).2
    };
    assert_eq!(count(vec![conv("x", "a", "w", 1), slice("a", "b"), conv("b", "y", "w", 1)]), PLANE / 3);
    let up = with("Upsample", &["a", "u"], &["b"], &[]);
    let up = vec![
        conv("x", "a", "w", 1),
        NodeProto {
            op_type: "Resize".to_owned(),
            input: vec!["a".to_owned(), String::new(), "u".to_owned()],
            ..up
        },
        conv("b", "y", "w", 1),
    ];
    assert_eq!(count(up), PLANE);
    let joined = vec![
        conv("x", "a", "w", 1),
        with("Concat", &["a", "x"], &["b"], &[int("axis", 1)]),
        with("Conv", &["b", "w8"], &["y"], &[]),
    ];
    assert_eq!(count(joined), PLANE);
    // A matrix behind a small convolution.
    let nodes = vec![
        with("Conv", &["x", "q"], &["a"], &[ints("pads", &[1, 0]), ints("strides", &[2])]),
        with("Flatten", &["a"], &["f"], &[]),
        with("Gemm", &["f", "g"], &["y"], &[]),
    ];
    let all = vec![tensor("q", &[2, 2, 3], &numbers(12, 6)), tensor("g", &[4, 2], &numbers(8, 7))];
    let (_, real) = run(&file(15, &[2, 4], nodes, all, &["y"]), &numbers(8, 8));
    assert_eq!(counts(&real), (1, 0, 0));
}

#[test]
fn relu_twice_is_once_and_gathers_are_put_together() {
    let nodes = vec![
        with("Relu", &["x"], &["a"], &[]),
        with("Identity", &["a"], &["b"], &[]),
        with("Relu", &["b"], &["y"], &[]),
    ];
    assert_eq!(made(nodes, &["y"]), (0, PLANE, 0));
    let turn = |from: &str, to: &str| with("Transpose", &[from], &[to], &[ints("perm", &[0, 2, 3, 1])]);
    let back = with("Transpose", &["b"], &["y"], &[ints("perm", &[0, 3, 1, 2])]);
    let (_, real) = run(&file(15, &[4, 6, 6], vec![turn("x", "b"), back], vec![], &["y"]), &numbers(144, 9));
    assert!(real.nodes.len() <= 1, "{:?}", real.nodes);
}

/// A node onto the values so far: four channels of some height and width each.
fn grow(rng: &mut ChaCha20Rng, number: usize, values: &mut Vec<(String, usize)>) -> Vec<NodeProto> {
    let (from, side) = values[pick(rng, values.len().saturating_sub(4), values.len() - 1)].clone();
    let to = format!("t{number}");
    let like: Vec<String> = values.iter().filter(|v| v.1 == side).map(|v| v.0.clone()).collect();
    let other = like[pick(rng, 0, like.len() - 1)].clone();
    let (made, to_side) = match pick(rng, 0, 13) {
        0 | 1 => (conv(&from, &to, "w", 1), side),
        2 => (conv(&from, &to, "p", 0), side),
        3 => (with("Conv", &[&from, "d"], &[&to], &[int("group", 4), ints("pads", &[1; 4])]), side),
        4 | 5 => (norm(&from, &to), side),
        6 | 7 => (with("Relu", &[&from], &[&to], &[]), side),
        8 => (with("Add", &[&from, &other], &[&to], &[]), side),
        9 => (with("Mul", &[&from, "gains"], &[&to], &[]), side),
        10 => (with("LeakyRelu", &[&from], &[&to], &[float("alpha", 0.3)]), side),
        11 if side > 3 => {
            let attributes =
                [ints("kernel_shape", &[2, 2]), ints("strides", &[2, 2]), ints("pads", &[1, 1, 0, 0])];
            (
                with(["MaxPool", "AveragePool"][pick(rng, 0, 1)], &[&from], &[&to], &attributes),
                (side - 1) / 2 + 1,
            )
        }
        12 => {
            // The other's first two channels behind this one's last two.
            let (a, b) = (format!("{to}a"), format!("{to}b"));
            let nodes = vec![
                with("Slice", &[&from, "two", "four", "one"], &[&a], &[]),
                with("Slice", &[&other, "zero", "two", "one"], &[&b], &[]),
                with("Concat", &[&a, &b], &[&to], &[int("axis", 1)]),
            ];
            values.push((to, side));
            return nodes;
        }
        _ => (with("Sub", &["c", &from], &[&to], &[]), side),
    };
    values.push((to, to_side));
    vec![made]
}

/// Random networks have the same answers before and behind the passes, which keep what they promise.
#[test]
fn random_networks_stay_the_same() {
    for seed in 0..150 {
        let mut rng = generator(1000 + seed);
        let mut values = vec![("x".to_owned(), 6)];
        let mut nodes = Vec::new();
        for number in 0..pick(&mut rng, 2, 14) {
            nodes.extend(grow(&mut rng, number, &mut values));
        }
        let last = values.last().unwrap().0.clone();
        let other = values[pick(&mut rng, 0, values.len() - 1)].0.clone();
        let more = vec![
            tensor("gains", &[4, 1, 1], &[0.5, -2.0, 0.0, 1.0]),
            integers("zero", &[0]),
            integers("one", &[1]),
            integers("two", &[2]),
            integers("four", &[4]),
        ];
        let made = file(15, &[4, 6, 6], nodes, [constants(), more].concat(), &[&last, &other]);
        run(&made, &numbers(144, seed));
    }
}

#[test]
fn offsets_of_a_sum_go_into_one_of_its_layers() {
    let nodes = vec![
        conv("x", "a", "w", 1),
        conv("x", "b", "w", 1),
        with("Add", &["a", "b"], &["t"], &[]),
        with("Add", &["t", "c"], &["y"], &[]),
    ];
    assert_eq!(made(nodes, &["y"]), (2, 0, 0));
    let nodes = vec![with("Add", &["x", "c"], &["t"], &[]), with("Relu", &["t"], &["y"], &[])];
    close(&answer(15, &[2], nodes, vec![tensor("c", &[1], &[-1.0])], &[0.5, 3.0]), &[0.0, 2.0], "offset");
}

/// Sums of all sums before them, many times over: every value is looked at once.
#[test]
fn a_ladder_of_shared_sums_is_rounded_soon() {
    const WIDE: usize = 24;
    let names = |level: usize| (0..WIDE).map(|i| format!("t{level}_{i}")).collect::<Vec<_>>();
    let layers = names(0).into_iter().map(|to| with("MatMul", &["x", "w"], &[&to], &[]));
    let mut nodes: Vec<NodeProto> = layers.collect();
    for level in 1..10 {
        let from = names(level - 1);
        let from: Vec<&str> = from.iter().map(String::as_str).collect();
        nodes.extend(names(level).iter().map(|to| with("Mean", &from, &[to], &[])));
    }
    nodes.push(with("MatMul", &["t9_0", "w"], &["y"], &[]));
    let made = file(13, &[2], nodes, vec![tensor("w", &[2, 2], &[1.0, 0.5, -1.0, 2.0])], &["y"]);
    let (found, real) = quickly(|| run(&made, &[1.0, 3.0]));
    // Twice the matrix, and one rounding between.
    close(&found[0], &[-2.0 - 6.5, -1.0 + 13.0], "ladder");
    assert_eq!(counts(&real).2, 2);
}

/// Layers are copied for several readers of what they make, but not without end.
#[test]
fn copies_of_layers_are_bounded() {
    let made = |count: usize| {
        let mut nodes = vec![conv("x", "a", "p", 0)];
        let mut sum = "x".to_owned();
        for i in 0..count {
            let [scaled, relu, next] = ["m", "r", "s"].map(|name| format!("{name}{i}"));
            nodes.push(with("Mul", &["a", "gains"], &[&scaled], &[]));
            nodes.push(with("Relu", &[&scaled], &[&relu], &[]));
            nodes.push(with("Add", &[&sum, &relu], &[&next], &[]));
            sum = next;
        }
        nodes.push(with("Identity", &[&sum], &["y"], &[]));
        let gains = tensor("gains", &[4, 1, 1], &[0.5, -2.0, 0.0, 1.0]);
        file(15, &[4, 2, 2], nodes, [constants(), vec![gains]].concat(), &["y"])
    };
    assert_eq!(counts(&run(&made(20), &numbers(16, 12)).1).0, 20);
    let text = quickly(|| read(&made(MAX_LAYERS + 20), &options())).unwrap_err().to_string();
    assert!(text.contains("a scaled (Mul)") && text.contains("1024 layers"), "{text}");
}

/// Layers that read what another layer made.
fn in_a_row(real: &Real) -> usize {
    let is_layer = |value: usize| {
        value.checked_sub(1).is_some_and(|number| matches!(real.nodes[number].op, RealOp::Linear(_)))
    };
    let reads_one = |op: &RealOp| matches!(op, RealOp::Linear(layer) if is_layer(layer.input));
    real.nodes.iter().filter(|node| reads_one(&node.op)).count()
}

/// What two layers take is no longer there for the next.
#[test]
fn merging_layers_has_a_bound_for_all_together() {
    let nodes = vec![
        conv("x", "a", "w", 1),
        conv("a", "b", "p", 0),
        with("Relu", &["b"], &["c1"], &[]),
        conv("c1", "d1", "w", 1),
        conv("d1", "y", "p", 0),
    ];
    let plain = walk(&file(15, &[4, 6, 6], nodes, constants(), &["y"]), &options()).unwrap();
    let merged = |left: usize| in_a_row(&merge::run(plain.clone(), left));
    let mut found: Vec<usize> = (0..10_000).step_by(100).map(merged).collect();
    found.dedup();
    assert_eq!(found, [2, 1, 0]);
    assert_eq!(merged(merge::MAX_ALL), 0);
}

/// A gather of random values or none.
fn random_gather(rng: &mut ChaCha20Rng, from: usize) -> Vec<Option<usize>> {
    let mut places = Vec::new();
    for _ in 0..pick(rng, 1, 6) {
        let (start, step) = (pick(rng, 0, from - 1) as i64, pick(rng, 0, 6) as i64 - 3);
        for i in 0..pick(rng, 1, 8) as i64 {
            let place = usize::try_from(start + step * i).ok().filter(|&place| place < from);
            places.push(place.filter(|_| step != 3));
        }
    }
    places
}

/// Two gathers put together run by run are those put together place by place.
#[test]
fn gathers_of_gathers_are_what_they_are_place_by_place() {
    let runs = |places: &[Option<usize>]| match Gather::from_places(places.iter().copied()) {
        Gather::Runs(runs) => runs,
        _ => unreachable!(),
    };
    let places = |runs: &[Run], len: usize| {
        let mut places = vec![None; len];
        Gather::Runs(runs.to_vec()).each(len, |at, from| places[at] = Some(from));
        places
    };
    let mut rng = generator(31);
    for _ in 0..2000 {
        let from = pick(&mut rng, 1, 30);
        let inner = random_gather(&mut rng, from);
        let outer = random_gather(&mut rng, inner.len());
        let expected: Vec<Option<usize>> = outer.iter().map(|place| place.and_then(|at| inner[at])).collect();
        let made = composed(&runs(&outer), &runs(&inner), 1000, &mut 1_000_000).unwrap();
        assert!(Gather::Runs(made.clone()).check(from, outer.len()), "{made:?}");
        assert_eq!(places(&made, outer.len()), expected);
        // Neither more runs than allowed, nor more steps.
        assert!(composed(&runs(&outer), &runs(&inner), made.len() - 1, &mut 1_000_000).is_none());
        assert!(composed(&runs(&outer), &runs(&inner), 1000, &mut 1).is_none());
    }
    // Far longer than what is written of them.
    let long = [Run::Values { start: 0, step: 1, count: u32::MAX >> 8 }];
    let mut steps = 10;
    assert_eq!(composed(&long, &long, 10, &mut steps).unwrap(), long);
    assert!(steps > 5, "{steps}");
}
