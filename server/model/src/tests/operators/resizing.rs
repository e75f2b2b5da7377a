//! Linear interpolation: against what ONNX Runtime gives, against its definition, and in integers.

use super::{answer, close, file, integers, numbers, options, refused, run, tensor, with};
use crate::numbers::{Chosen, Goal, all_shared, choose};
use crate::onnx::{AttributeProto, NodeProto, TensorProto};
use crate::real::RealOp;
use crate::tests::onnx::{int, ints, quickly, text};
use crate::tests::{generator, pick};
use crate::{InputSpec, read};

fn linear(mode: &str) -> Vec<AttributeProto> {
    vec![text("mode", "linear"), text("coordinate_transformation_mode", mode)]
}

fn scaled(opset: i64, shape: &[usize], mode: &str, scales: &[f64], x: &[f64]) -> Vec<f64> {
    let scales = [&[1.0], scales].concat();
    let nodes = vec![with("Resize", &["x", "", "s"], &["y"], &linear(mode))];
    answer(opset, shape, nodes, vec![tensor("s", &[scales.len()], &scales)], x)
}

/// Made with ONNX Runtime 1.32.
#[test]
fn interpolation_as_the_runtime_does_it() {
    let x = [1.0, -2.0, 4.0, 8.0];
    let check = |mode: &str, scale: f64, expected: &[f64]| {
        close(&scaled(19, &[1, 1, 4], mode, &[1.0, 1.0, scale], &x), expected, &format!("{mode} {scale}"));
    };
    let twice = [1.0, 0.25, -1.25, -0.5, 2.5, 5.0, 7.0, 8.0];
    let thrice = [1.0, 1.0, 0.0, -1.0, -2.0, 0.0, 2.0, 4.0, 5.333333, 6.666667, 8.0, 8.0];
    for mode in ["half_pixel", "pytorch_half_pixel", "half_pixel_symmetric"] {
        check(mode, 2.0, &twice);
        check(mode, 3.0, &thrice);
        check(mode, 1.5, &[1.0, -0.5, -1.0, 3.0, 6.0, 8.0]);
        check(mode, 0.5, &[-0.5, 6.0]);
    }
    check("half_pixel", 0.7, &[0.357143, 1.857142]);
    check("half_pixel_symmetric", 0.7, &[-1.357143, 4.857142]);
    let expected = [1.0, -0.285714, -1.571429, -0.285714, 2.285714, 4.571428, 6.285714, 8.0];
    check("align_corners", 2.0, &expected);
    check("align_corners", 1.5, &[1.0, -0.8, -0.8, 2.8, 5.6, 8.0]);
    check("align_corners", 0.5, &[1.0, 8.0]);
    check("asymmetric", 2.0, &[1.0, -0.5, -2.0, 1.0, 4.0, 6.0, 8.0, 8.0]);
    check("asymmetric", 1.5, &[1.0, -1.0, 0.0, 4.0, 6.666667, 8.0]);
    check("asymmetric", 0.7, &[1.0, 0.571429]);

    let x = [1.0, -2.0, 4.0, 8.0, 0.0, 16.0];
    let sizes = |mode: &str, expected: &[f64]| {
        let nodes = vec![with("Resize", &["x", "", "", "s"], &["y"], &linear(mode))];
        close(&answer(19, &[1, 2, 3], nodes, vec![integers("s", &[1, 1, 4, 5])], &x), expected, mode);
    };
    sizes(
        "half_pixel",
        &[
            1.0, -0.2, -2.0, 1.6, 4.0, 2.75, 1.05, -1.5, 3.6, 7.0, 6.25, 3.55, -0.5, 7.6, 13.0, 8.0, 4.8,
            0.0, 9.6, 16.0,
        ],
    );
    sizes(
        "align_corners",
        &[
            1.0, -0.5, -2.0, 1.0, 4.0, 3.333333, 1.0, -1.333333, 3.333333, 8.0, 5.666667, 2.5, -0.666667,
            5.666667, 12.0, 8.0, 4.0, 0.0, 8.0, 16.0,
        ],
    );
    sizes(
        "asymmetric",
        &[
            1.0, -0.8, -0.8, 2.8, 4.0, 4.5, 1.2, 1.2, 7.8, 10.0, 8.0, 3.2, 3.2, 12.8, 16.0, 8.0, 3.2, 3.2,
            12.8, 16.0,
        ],
    );
    // Earlier operators.
    let expected = [
        1.0, -0.5, -2.0, 1.0, 4.0, 4.0, 4.5, 1.75, -1.0, 4.5, 10.0, 10.0, 8.0, 4.0, 0.0, 8.0, 16.0, 16.0,
        8.0, 4.0, 0.0, 8.0, 16.0, 16.0,
    ];
    let scales = [1.0, 1.0, 2.0, 2.0];
    for (opset, op, mode) in
        [(9, "Upsample", "linear"), (9, "Upsample", "bilinear"), (10, "Resize", "linear")]
    {
        let nodes = vec![with(op, &["x", "s"], &["y"], &[text("mode", mode)])];
        close(&answer(opset, &[1, 2, 3], nodes, vec![tensor("s", &[4], &scales)], &x), &expected, op);
    }
    let scales =
        AttributeProto { floats: vec![1.0, 1.0, 2.0, 2.0], ..crate::tests::onnx::attribute("scales", 6) };
    let nodes = vec![with("Upsample", &["x"], &["y"], &[text("mode", "linear"), scales])];
    close(&answer(7, &[1, 2, 3], nodes, vec![], &x), &expected, "scales as an attribute");
}

/// What every value of an axis is a sum of.
fn weights(mode: &str, from: usize, scale: f64) -> Vec<Vec<f64>> {
    let to = (from as f32 * scale as f32).floor() as usize;
    let (n, m) = (from as f64, to as f64);
    let place = |at: f64| match mode {
        _ if from == to && scale == 1.0 => at,
        "align_corners" | "pytorch_half_pixel" if to == 1 => 0.0,
        "align_corners" => at * (n - 1.0) / (m - 1.0),
        "asymmetric" => at / scale,
        "half_pixel_symmetric" => n / 2.0 * (1.0 - m / (scale * n)) + (at + 0.5) / scale - 0.5,
        "tf_half_pixel_for_nn" => (at + 0.5) / scale,
        _ => (at + 0.5) / scale - 0.5,
    };
    let row = |at: usize| {
        let place = place(at as f64).clamp(0.0, n - 1.0);
        (0..from).map(|i| (1.0 - (i as f64 - place).abs()).max(0.0)).collect()
    };
    (0..to).map(row).collect()
}

#[test]
fn interpolation_of_all_axes_and_scales() {
    let mut rng = generator(31);
    const MODES: [&str; 6] = [
        "half_pixel",
        "pytorch_half_pixel",
        "align_corners",
        "asymmetric",
        "half_pixel_symmetric",
        "tf_half_pixel_for_nn",
    ];
    const SCALES: [f64; 10] = [1.0, 1.0, 0.5, 0.7, 1.1, 1.5, 2.0, 2.5, 3.0, 4.0];
    for round in 0..200 {
        let shape: Vec<usize> = (0..pick(&mut rng, 1, 3)).map(|_| pick(&mut rng, 2, 7)).collect();
        let scales: Vec<f64> = shape.iter().map(|_| SCALES[pick(&mut rng, 0, 9)]).collect();
        let mode = MODES[round % 6];
        let x = numbers(shape.iter().product(), round as u64);
        let mut expected = (shape.clone(), x.clone());
        for (axis, &scale) in scales.iter().enumerate() {
            let (shape, values) = &expected;
            let along = weights(mode, shape[axis], scale);
            let inner: usize = shape[axis + 1..].iter().product();
            let outer = values.len() / inner / shape[axis];
            let mut made = Vec::new();
            for o in 0..outer {
                for row in &along {
                    for i in 0..inner {
                        let at = |p: usize| values[(o * shape[axis] + p) * inner + i];
                        made.push(row.iter().enumerate().map(|(p, w)| w * at(p)).sum());
                    }
                }
            }
            let mut shape = shape.clone();
            shape[axis] = along.len();
            expected = (shape, made);
        }
        // Sizes that stay are taken for nothing to do.
        let expected = if expected.0 == shape { x.clone() } else { expected.1 };
        close(&scaled(19, &shape, mode, &scales, &x), &expected, &format!("{mode} {shape:?} {scales:?}"));
    }
}

/// Terms of the sums that a resizing becomes.
fn terms(shape: &[usize], mode: &str, scales: &[f64]) -> Vec<usize> {
    let scales = [&[1.0], scales].concat();
    let nodes = vec![with("Resize", &["x", "", "s"], &["y"], &linear(mode))];
    let made = file(19, shape, nodes, vec![tensor("s", &[scales.len()], &scales)], &["y"]);
    let real = read(&made, &options()).unwrap();
    let of = |op: &RealOp| match op {
        RealOp::Public { terms, .. } => Some(terms.len()),
        _ => None,
    };
    real.nodes.iter().filter_map(|node| of(&node.op)).collect()
}

/// Few terms, whatever the size: one for each weight, exact fractions.
#[test]
fn a_sum_has_a_term_for_each_weight() {
    assert_eq!(terms(&[3, 40, 50], "half_pixel", &[1.0, 2.0, 2.0]), [2, 2]);
    assert_eq!(terms(&[3, 40, 50], "half_pixel", &[1.0, 3.0, 1.0]), [3]);
    assert_eq!(terms(&[3, 40, 50], "asymmetric", &[1.0, 2.0, 2.0]), [3, 3]);
    assert_eq!(terms(&[3, 40, 50], "half_pixel", &[1.0, 0.5, 0.5]), [2, 2]);
    assert_eq!(terms(&[3, 40, 50], "asymmetric", &[1.0, 0.5, 0.5]).len(), 1);
    assert_eq!(terms(&[1, 8], "align_corners", &[1.0, 2.0]), [15]);
    assert_eq!(terms(&[1, 10], "half_pixel", &[1.0, 1.1]).len(), 1);
}

fn chosen(nodes: Vec<NodeProto>, constants: Vec<TensorProto>, goal: &Goal) -> Chosen {
    let made = file(19, &[2, 6, 6], nodes, constants, &["y"]);
    let real = read(&made, &crate::ImportOptions::default()).unwrap();
    let input = InputSpec::new(real.input.clone(), 8);
    let mut pixels = generator(3);
    let samples: Vec<u8> = (0..72 * 60).map(|_| pick(&mut pixels, 0, 255) as u8).collect();
    choose(&real, &input, &samples, goal, &all_shared).unwrap()
}

/// In front of a layer, at the end, and beside another branch: as near as asked for, with hardly wider sums than with the
/// nearest value.
#[test]
fn integer_networks_interpolate() {
    let pads = || ints("pads", &[1; 4]);
    let constants = |scale: f64| {
        vec![
            tensor("v", &[4, 2, 3, 3], &numbers(72, 1)),
            tensor("w", &[3, 4, 3, 3], &numbers(108, 2)),
            tensor("s", &[4], &[1.0, 1.0, scale, scale]),
        ]
    };
    let nodes = |resize: &[AttributeProto], end: usize| {
        let all = vec![
            with("Conv", &["x", "v"], &["a"], &[pads()]),
            with("Relu", &["a"], &["b"], &[]),
            with("Resize", &["b", "", "s"], &[if end == 0 { "y" } else { "c" }], resize),
            with("Conv", &["c", "w"], &[if end == 1 { "y" } else { "d" }], &[pads()]),
            with("Concat", &["c", "d"], &["e"], &[int("axis", 1)]),
            with("Relu", &["e"], &["y"], &[]),
        ];
        all.into_iter().take([3, 4, 6][end]).collect::<Vec<_>>()
    };
    for (mode, scale) in
        [("half_pixel", 2.0), ("half_pixel", 1.5), ("align_corners", 2.0), ("asymmetric", 0.7)]
    {
        for end in 0..3 {
            let found = chosen(nodes(&linear(mode), end), constants(scale), &Goal::default());
            let near = chosen(nodes(&[text("mode", "nearest")], end), constants(scale), &Goal::default());
            let width = |chosen: &Chosen| chosen.model.graph.answer_width();
            // Nothing is paid for, nor lost, but the unit of the weights: 16, 36, 121 or 49 parts for both axes.
            assert!(width(&found) <= width(&near) + 8, "{mode} {scale} {end}");
            assert!(
                found.reached && found.fidelity.error <= 0.01,
                "{mode} {scale} {end}: {:?}",
                found.fidelity
            );
            assert_eq!(found.fidelity.wrapped, 0);
        }
    }
}

/// Between layers, with 31 and 55 parts to an axis: the weights of the layer behind are coarser by as much as is lacking.
#[test]
fn many_weights_between_layers() {
    for size in [16usize, 28] {
        let nodes = vec![
            with("Conv", &["x", "v"], &["a"], &[ints("pads", &[1; 4])]),
            with("Relu", &["a"], &["b"], &[]),
            with("Resize", &["b", "", "s"], &["c"], &linear("align_corners")),
            with("Conv", &["c", "w"], &["y"], &[ints("pads", &[1; 4])]),
        ];
        let constants = vec![
            tensor("v", &[8, 1, 3, 3], &numbers(72, 1)),
            tensor("w", &[2, 8, 3, 3], &numbers(144, 2)),
            tensor("s", &[4], &[1.0, 1.0, 2.0, 2.0]),
        ];
        let made = file(19, &[1, size, size], nodes, constants, &["y"]);
        let real = read(&made, &crate::ImportOptions::default()).unwrap();
        let input = InputSpec::new(real.input.clone(), 8);
        let mut pixels = generator(3);
        let samples: Vec<u8> = (0..size * size * 4).map(|_| pick(&mut pixels, 0, 255) as u8).collect();
        let found = choose(&real, &input, &samples, &Goal::default(), &all_shared).unwrap();
        assert!(found.reached && found.fidelity.wrapped == 0, "{size}: {:?}", found.fidelity);
    }
}

#[test]
fn what_is_not_interpolated_is_refused() {
    let resize = |attributes: &[AttributeProto], count: usize, scale: f64| {
        let nodes = vec![with("Resize", &["x", "", "s"], &["y"], attributes)];
        quickly(|| refused(19, &[1, count], nodes, vec![tensor("s", &[3], &[1.0, 1.0, scale])]))
    };
    assert!(resize(&[text("mode", "cubic")], 4, 2.0).contains("linear"));
    let antialias = [linear("half_pixel"), vec![int("antialias", 1)]].concat();
    assert!(resize(&antialias, 4, 0.5).contains("antialias"));
    assert!(resize(&linear("tf_crop_and_resize"), 4, 2.0).contains("coordinate_transformation_mode"));
    // Which cuts something out, where the size is the same as well.
    let sizes = || {
        let nodes = vec![with("Resize", &["x", "", "", "s"], &["y"], &linear("tf_crop_and_resize"))];
        refused(19, &[1, 4], nodes, vec![integers("s", &[1, 1, 4])])
    };
    assert!(sizes().contains("coordinate_transformation_mode"));
    // A weight for every place.
    for (count, scale) in [(300, 2.0), (1 << 20, 3.0), (10_000, 1.000_1)] {
        let text = resize(&linear("align_corners"), count, scale);
        assert!(text.contains("weights") && text.contains("nearest"), "{text}");
    }
    // Where only more values would be made there is nothing to be smoothed.
    let nodes = vec![with("Resize", &["x", "", "s"], &["y"], &antialias)];
    run(&file(19, &[1, 4], nodes, vec![tensor("s", &[3], &[1.0, 1.0, 2.0])], &["y"]), &[0.0; 4]);
}

/// Where sizes stay, runtimes leave the values as they are, whatever the scales.
#[test]
fn sizes_that_stay_are_nothing_to_do() {
    let x = numbers(10, 8);
    let scales = || vec![tensor("s", &[3], &[1.0, 1.0, 1.09])];
    for nearest in ["ceil", "floor", "round_prefer_ceil", "round_prefer_floor"] {
        for mode in ["asymmetric", "half_pixel", "align_corners"] {
            let attributes = [text("nearest_mode", nearest), text("coordinate_transformation_mode", mode)];
            let nodes = || vec![with("Resize", &["x", "", "s"], &["y"], &attributes)];
            close(&answer(19, &[1, 10], nodes(), scales(), &x), &x, &format!("{nearest} {mode}"));
        }
    }
    for (opset, op) in [(9, "Upsample"), (10, "Resize")] {
        for mode in ["nearest", "linear"] {
            let nodes = vec![with(op, &["x", "s"], &["y"], &[text("mode", mode)])];
            close(&answer(opset, &[1, 10], nodes, scales(), &x), &x, op);
        }
    }
    // What is cut out is something else.
    let cut = [text("mode", "nearest"), text("coordinate_transformation_mode", "tf_crop_and_resize")];
    let nodes = vec![with("Resize", &["x", "", "s"], &["y"], &cut)];
    assert!(refused(19, &[1, 10], nodes, scales()).contains("coordinate_transformation_mode"));
}
