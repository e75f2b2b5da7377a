//! Graphs: maps of places, widths, what is refused, and the executor against arithmetic value by value.

use super::samples::{model, node, output, tiny};
use super::{generator, pick};
use crate::graph::{Run, Window};
use crate::{Conv, Dense, Executor, FixedLayer, FixedModel, Gather, Geometry, Graph, InputSpec, Op, Term};

#[test]
fn values_that_do_not_fit_wrap_around_and_are_counted() {
    let run = |model: FixedModel, x: u8| {
        let result = model.execute(&[x]).unwrap();
        (result.logits[0], result.wrapped)
    };
    // 3·100 + 1 = 301, shifted right by 2: 75.
    assert_eq!(run(tiny(3, 1, [10, 10]), 100), (75, 0));
    // In 9 bits 301 is -211, and the ReLU makes 0 of it.
    assert_eq!(run(tiny(3, 1, [9, 10]), 100), (0, 1));
    // 75 in 7 bits is -53.
    assert_eq!(run(tiny(3, 1, [10, 7]), 100), (-53, 1));
    // Negative values shift towards minus infinity before the ReLU.
    assert_eq!(run(tiny(-1, 0, [12, 10]), 1), (0, 0));
    // Beyond 32 bits, mod 2^32 and shifted: (2^31 - 1)·255 = -2^31 - 255 mod 2^32, that is 2^31 - 255.
    assert_eq!(run(tiny(i32::MAX, 0, [32, 32]), 255), ((((1i64 << 31) - 255) >> 2) as i32, 1));
}

/// Any map of places survives being written as runs, and adds what it says.
#[test]
fn maps_of_places_are_kept_as_runs() {
    let mut rng = generator(3);
    for _ in 0..500 {
        let (from, to) = (pick(&mut rng, 1, 30), pick(&mut rng, 1, 60));
        let mut place = pick(&mut rng, 0, from - 1);
        let places: Vec<Option<usize>> = (0..to)
            .map(|_| {
                place = match pick(&mut rng, 0, 5) {
                    0 => pick(&mut rng, 0, from - 1),
                    1 => place,
                    2 => (place + from - 1) % from,
                    _ => (place + 1) % from,
                };
                (pick(&mut rng, 0, 6) > 0).then_some(place)
            })
            .collect();
        let gather = Gather::from_places(places.iter().copied());
        let mut seen = vec![None; to];
        gather.each(to, |at, from| assert_eq!(seen[at].replace(from), None));
        assert_eq!(seen, places);
        let values: Vec<u32> = (0..from as u32).map(|i| 100 + i * i).collect();
        let mut out = vec![7; to];
        gather.add(3, &values, &mut out);
        let expected = places.iter().map(|place| 7 + place.map_or(0, |place| 3 * values[place]));
        assert_eq!(out, expected.collect::<Vec<_>>());
    }
    // A transposition of 40 x 50 takes 50 runs.
    let Gather::Runs(runs) = Gather::from_places((0..2000).map(|i| Some(i % 40 * 50 + i / 40))) else {
        panic!()
    };
    assert_eq!(runs.len(), 50);
}

#[test]
fn windows_sum_what_lies_inside() {
    let window = Window {
        input: [1, 3, 4],
        kernel: [2, 3],
        stride: [1, 2],
        dilation: [2, 1],
        pads: [1, 1],
        output: [3, 2],
    };
    let values: Vec<u32> = (1..=12).collect();
    let mut out = vec![0; 6];
    Gather::Window(window).add(1, &values, &mut out);
    // Rows -1 and 1, 0 and 2, 1 and 3; columns -1..1, then 1..3.
    assert_eq!(out, [5 + 6, 6 + 7 + 8, 1 + 2 + 9 + 10, 2 + 3 + 4 + 10 + 11 + 12, 5 + 6, 6 + 7 + 8]);
}

/// Sums, maps and ReLUs of what layers, the input and ReLUs make.
#[test]
fn a_graph_computes_what_it_says() {
    let dense = |inputs, outputs| Geometry::Dense(Dense { inputs, outputs });
    let term = |value, factor, gather| Term { value, factor, gather };
    let back = Gather::Runs(vec![Run::Values { start: 2, step: -1, count: 3 }, Run::Zeros(1)]);
    let nodes = vec![
        // 1: the input backwards and a zero, twice, less 5: masked.
        node("map", 32, Op::Public { terms: vec![term(0, 2, back)], constant: -5, len: 4 }),
        // 2: a layer of it.
        node("fc", 32, Op::Secret { input: 1, geometry: dense(4, 3) }),
        // 3: with three times the input.
        node(
            "sum",
            32,
            Op::Public { terms: vec![term(2, 1, Gather::All), term(0, 3, Gather::All)], constant: 1, len: 3 },
        ),
        node("relu", 32, Op::Relu { input: 3, shift: 1 }),
        // 5: once more of the layer, and of the ReLU.
        node(
            "answer",
            32,
            Op::Public {
                terms: vec![term(4, -4, Gather::All), term(2, 1, Gather::All)],
                constant: 0,
                len: 3,
            },
        ),
    ];
    let graph =
        Graph { name: "g".to_owned(), input: InputSpec::new(vec![3], 8), nodes, outputs: output(3, 0) };
    let weights = vec![1, -2, 3, -4, 5, 6, -7, 8, -9, 10, 11, -12];
    let mut model = FixedModel {
        graph,
        layers: vec![FixedLayer { weights: weights.clone(), bias: vec![7, -8, 9] }],
        known: Default::default(),
    };
    model.use_worst_case_widths().unwrap();
    let executor = Executor::new(&model).unwrap();
    let mut rng = generator(8);
    for _ in 0..50 {
        let x: Vec<u8> = (0..3).map(|_| pick(&mut rng, 0, 255) as u8).collect();
        let wide: Vec<i64> = x.iter().map(|&x| x.into()).collect();
        let map = [2 * wide[2] - 5, 2 * wide[1] - 5, 2 * wide[0] - 5, -5];
        let expected: Vec<i32> = (0..3)
            .map(|i| {
                let row =
                    weights[4 * i..4 * i + 4].iter().zip(map).map(|(&w, x)| i64::from(w) * x).sum::<i64>();
                let fc = row + [7, -8, 9][i];
                (fc - 4 * ((fc + 3 * wide[i] + 1) >> 1).max(0)) as i32
            })
            .collect();
        let result = executor.run(&x).unwrap();
        assert_eq!((result.logits, result.wrapped), (expected, 0));
    }
    // What reads a value decides its width: the sum's terms need what the sum has, the factor 4 two bits less.
    let graph = &model.graph;
    assert_eq!(graph.masked(), [true, true, false, false, true, false]);
    assert_eq!((graph.width(2), graph.width(4)), (graph.width(5).max(graph.width(3)), graph.width(5) - 2));
    assert!(graph.width(0) >= graph.width(3).max(graph.width(1) - 1));
}

#[test]
fn what_makes_no_sense_is_refused() {
    model().check().unwrap();
    let refused = |change: &dyn Fn(&mut FixedModel), part: &str| {
        let mut changed = model();
        change(&mut changed);
        let error = changed.check().unwrap_err().to_string();
        assert!(error.contains(part), "{error}");
    };
    refused(&|m| m.graph.nodes[0].op = Op::Relu { input: 1, shift: 0 }, "comes later");
    refused(&|m| m.graph.nodes[2].op = Op::Relu { input: 9, shift: 0 }, "comes later");
    refused(&|m| m.graph.nodes[2].width = 33, "width 33");
    refused(&|m| m.graph.nodes[2].width = 2, "too narrow");
    refused(&|m| m.graph.nodes[2].op = Op::Relu { input: 2, shift: 31 }, "shift");
    refused(&|m| m.graph.nodes.clear(), "0 nodes");
    refused(&|m| m.graph.outputs.clear(), "outputs");
    refused(&|m| m.graph.outputs[0].scale = 0.3, "outputs");
    refused(&|m| m.graph.input.shape = vec![usize::MAX, 2], "input");
    refused(&|m| m.layers[0].weights.clear(), "wrong size");
    refused(&|m| drop(m.layers.pop()), "2 layers");
    let public =
        |gather, len| Op::Public { terms: vec![Term { value: 1, factor: 1, gather }], constant: 0, len };
    for gather in [
        Gather::All,
        Gather::Runs(vec![
            Run::Values { start: 0, step: 1, count: 36 },
            Run::Values { start: 0, step: 1, count: 0 },
        ]),
        Gather::Runs(vec![Run::Values { start: 130, step: 1, count: 36 }]),
        Gather::Runs(vec![Run::Values { start: 3, step: -1, count: 36 }]),
        Gather::Runs(vec![Run::Values { start: 0, step: i32::MAX, count: 36 }]),
        Gather::Runs(vec![Run::Zeros(u32::MAX), Run::Zeros(u32::MAX)]),
    ] {
        refused(&|m| m.graph.nodes[1].op = public(gather.clone(), 36), "do not fit");
    }
    refused(
        &|m| m.graph.nodes[1].op = Op::Public { terms: vec![], constant: 0, len: 36 },
        "a sum of nothing",
    );
    // A layer needs a masked value.
    let geometry = Geometry::Dense(Dense { inputs: 36, outputs: 36 });
    refused(
        &|m| m.graph.nodes[2].op = Op::Secret { input: 2, geometry: geometry.clone() },
        "reads a shared value",
    );
}

/// One value, and sums of it without end; and many sums that are long together.
#[test]
fn a_graph_that_adds_up_for_ever_is_refused() {
    let graph = |side: usize, kernel: usize, count: usize| {
        let window = Window {
            input: [1, 1, 1],
            kernel: [1, kernel],
            stride: [1; 2],
            dilation: [1; 2],
            pads: [0; 2],
            output: [1, side],
        };
        let term = Term { value: 0, factor: 1, gather: Gather::Window(window) };
        let sum = Op::Public { terms: vec![term], constant: 0, len: side };
        let nodes = (0..count).map(|_| node("sum", 2, sum.clone())).collect();
        Graph { name: "g".to_owned(), input: InputSpec::new(vec![1], 1), nodes, outputs: output(side, 0) }
    };
    graph(1 << 10, 1 << 10, 20).check().unwrap();
    let refused = |graph: Graph| graph.check().unwrap_err().to_string();
    let text = refused(graph(1 << 26, 1 << 26, 1));
    assert!(text.contains("do not fit"), "{text}");
    let text = refused(graph(1 << 16, 1 << 16, 3));
    assert!(text.contains("adds up too many values"), "{text}");
}

/// VGG-16 and VGG-19 as a matrix and, as some export it, as a convolution; and not much more than that.
#[test]
fn a_layer_has_room_for_the_largest_matrix_that_people_have() {
    let dense = |inputs, outputs| Geometry::Dense(Dense { inputs, outputs }).check().is_ok();
    assert!(dense(25_088, 4096) && dense(1 << 14, 1 << 13));
    assert!(!dense(1 << 14, (1 << 13) + 1) && !dense(1 << 27, 1) && !dense(1 << 40, 1 << 40));
    let conv = |channels| {
        let (input, kernel) = ([512, 7, 7], [7, 7]);
        Conv { input, channels, kernel, stride: [1; 2], dilation: [1; 2], pads: [0; 4], groups: 1 }
    };
    assert!(Geometry::Conv(conv(4096)).check().is_ok() && Geometry::Conv(conv(1 << 14)).check().is_err());
}
