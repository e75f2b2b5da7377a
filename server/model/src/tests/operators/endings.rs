//! What is left out at the end, several outputs, constants as outputs, and the input's normalisation.

use super::{answer, close, file, integers, options, refused, run, tensor, with};
use crate::graph::Last;
use crate::onnx::{NodeProto, walk};
use crate::tests::onnx::int;
use crate::{ImportOptions, Normalisation, read};

fn ending(op: &str, opset: i64, shape: &[usize], attributes: &[crate::onnx::AttributeProto]) -> Last {
    let made = file(opset, shape, vec![with(op, &["x"], &["y"], attributes)], vec![], &["y"]);
    let x: Vec<f64> = (0..shape.iter().product::<usize>()).map(|i| i as f64).collect();
    let (answers, real) = run(&made, &x);
    // The answer is what goes into the operator.
    close(&answers[0], &x, op);
    assert_eq!(real.outputs[0].shape, shape);
    real.outputs[0].last
}

#[test]
fn last_operators_are_left_out() {
    for (op, last) in [
        ("Softmax", Last::Softmax),
        ("LogSoftmax", Last::LogSoftmax),
        ("Sigmoid", Last::Sigmoid),
        ("Tanh", Last::Tanh),
    ] {
        assert_eq!(ending(op, 13, &[5], &[]), last);
    }
    assert_eq!(ending("ArgMax", 13, &[5], &[int("axis", 1)]), Last::ArgMax);
    assert_eq!(ending("ArgMax", 13, &[5], &[int("axis", -1), int("keepdims", 0)]), Last::ArgMax);
    assert_eq!(ending("Softmax", 13, &[3, 4], &[int("axis", 2)]), Last::Softmax);
    // Before opset 13 everything from the axis on is one.
    assert_eq!(ending("Softmax", 11, &[5, 1, 1], &[]), Last::Softmax);
    assert_eq!(ending("Softmax", 11, &[3, 4], &[int("axis", 2)]), Last::Softmax);
    refused(11, &[3, 4], vec![with("Softmax", &["x"], &["y"], &[])], vec![]);
    refused(13, &[3, 4], vec![with("Softmax", &["x"], &["y"], &[int("axis", 1)])], vec![]);
    refused(13, &[5], vec![with("ArgMax", &["x"], &["y"], &[])], vec![]);
}

#[test]
fn only_relabelling_may_follow_them() {
    let then = |more: Vec<NodeProto>| [vec![with("Softmax", &["x"], &["s"], &[])], more].concat();
    let shape = || vec![integers("shape", &[1, 1, 5])];
    let made = file(13, &[5], then(vec![with("Reshape", &["s", "shape"], &["y"], &[])]), shape(), &["y"]);
    assert_eq!(run(&made, &[0.0; 5]).1.outputs[0].last, Last::Softmax);
    let labels = then(vec![
        with("ArgMax", &["s"], &["l"], &[int("axis", 1)]),
        with("Cast", &["l"], &["y"], &[int("to", 7)]),
    ]);
    assert_eq!(run(&file(13, &[5], labels, vec![], &["y"]), &[0.0; 5]).1.outputs[0].last, Last::ArgMax);
    let text = refused(13, &[5], then(vec![with("Relu", &["s"], &["y"], &[])]), vec![]);
    assert!(text.contains("y (Relu)") && text.contains("Softmax") && text.contains("last"), "{text}");
}

/// Whoever reads the answer goes by the last axis, which has to be the one that the network meant.
#[test]
fn what_relabels_behind_them_must_leave_the_rows() {
    let then = |last: &str, more: NodeProto| vec![with(last, &["x"], &["s"], &[int("axis", 2)]), more];
    let reshape = || with("Reshape", &["s", "shape"], &["y"], &[]);
    for last in ["Softmax", "LogSoftmax"] {
        for shape in [&[1, 2, 6], &[1, 4, 3], &[1, 1, 12]] {
            let text = refused(13, &[3, 4], then(last, reshape()), vec![integers("shape", shape)]);
            assert!(text.contains("y (Reshape)") && text.contains(last) && text.contains("rows"), "{text}");
        }
        let text = refused(13, &[3, 4], then(last, with("Flatten", &["s"], &["y"], &[])), vec![]);
        assert!(text.contains("y (Flatten)") && text.contains(last), "{text}");
    }
    let made = file(13, &[3, 4], then("Softmax", reshape()), vec![integers("shape", &[3, 4, 1])], &["y"]);
    assert_eq!(run(&made, &[0.0; 12]).1.outputs[0].last, Last::Softmax);
    // Each for itself, whatever the shape.
    let nodes = vec![with("Sigmoid", &["x"], &["s"], &[]), with("Flatten", &["s"], &["y"], &[])];
    let (_, real) = run(&file(13, &[3, 4], nodes, vec![], &["y"]), &[0.0; 12]);
    assert_eq!((real.outputs[0].last, real.outputs[0].shape.as_slice()), (Last::Sigmoid, &[12][..]));
}

/// As exporters with channels last write it: what is done value by value may be done behind a move, and a softmax over
/// channels where these come last in the end.
#[test]
fn what_moves_values_may_follow_what_is_done_to_each() {
    let x: Vec<f64> = (0..6).map(f64::from).collect();
    let turn = || with("Transpose", &["s"], &["y"], &[crate::tests::onnx::ints("perm", &[0, 2, 1])]);
    for (op, attributes, last) in [
        ("Sigmoid", vec![], Last::Sigmoid),
        ("Tanh", vec![], Last::Tanh),
        ("Softmax", vec![int("axis", 1)], Last::Softmax),
        ("LogSoftmax", vec![int("axis", -2)], Last::LogSoftmax),
    ] {
        let made = file(13, &[2, 3], vec![with(op, &["x"], &["s"], &attributes), turn()], vec![], &["y"]);
        let (answers, real) = run(&made, &x);
        close(&answers[0], &[0.0, 3.0, 1.0, 4.0, 2.0, 5.0], op);
        assert_eq!((real.outputs[0].last, real.outputs[0].shape.as_slice()), (last, &[3, 2][..]));
    }
    // There and back again.
    let turned = with("Transpose", &["x"], &["t"], &[crate::tests::onnx::ints("perm", &[0, 2, 1])]);
    let softmax = |axis| with("Softmax", &["t"], &["s"], &[int("axis", axis)]);
    let made = file(13, &[2, 3], vec![turned.clone(), softmax(1), turn()], vec![], &["y"]);
    assert_eq!(run(&made, &x).1.outputs[0].last, Last::Softmax);
    for (axis, more, named) in [
        (2, turn(), "s (Softmax)"),
        (1, with("Flatten", &["s"], &["y"], &[]), "y (Flatten)"),
        (1, with("Relu", &["s"], &["y"], &[]), "y (Relu)"),
    ] {
        let text = refused(13, &[2, 3], vec![turned.clone(), softmax(axis), more], vec![]);
        assert!(text.contains(named) && text.contains("Softmax") && text.contains("axis"), "{text}");
    }
    // Of two the one is named that is wrong, and not the last of the file.
    let named = vec![
        with("Softmax", &["x"], &["wrong"], &[int("axis", 1)]),
        with("Identity", &["wrong"], &["y"], &[]),
        with("Softmax", &["x"], &["right"], &[int("axis", 2)]),
    ];
    let made = file(13, &[2, 3], named, vec![], &["right", "y"]);
    let text = read(&made, &options()).unwrap_err().to_string();
    assert!(text.contains("node wrong (Softmax)"), "{text}");
    // What it stays as it is in, and what asks for its shape alone.
    for node in [
        with("Dropout", &["s"], &["d"], &[]),
        with("CastLike", &["s", "x"], &["d"], &[]),
        with("Identity", &["s"], &["d"], &[]),
    ] {
        let first = with("Softmax", &["x"], &["s"], &[int("axis", 1)]);
        let last = with("Transpose", &["d"], &["y"], &[crate::tests::onnx::ints("perm", &[0, 2, 1])]);
        let size = with("Size", &["s"], &["n"], &[]);
        let made = file(15, &[2, 3], vec![first, node, last, size], vec![], &["y", "n"]);
        assert_eq!(run(&made, &x).1.outputs[0].last, Last::Softmax);
    }
    let picked = vec![with("Sigmoid", &["x"], &["s"], &[]), with("GatherND", &["s", "place"], &["y"], &[])];
    let place = crate::onnx::TensorProto { dims: vec![1, 2], ..integers("place", &[0, 4]) };
    let (answers, real) = run(&file(13, &[6], picked, vec![place], &["y"]), &x);
    close(&answers[0], &[4.0], "GatherND");
    assert_eq!(real.outputs[0].last, Last::Sigmoid);
    let nodes = vec![
        with("Sigmoid", &["x"], &["s"], &[]),
        with("Slice", &["s", "one", "two", "one"], &["t"], &[]),
        with("Concat", &["t", "s"], &["y"], &[int("axis", 1)]),
    ];
    let constants = || vec![integers("one", &[1]), integers("two", &[2])];
    let (answers, real) = run(&file(13, &[6], nodes.clone(), constants(), &["y"]), &x);
    close(&answers[0], &[1.0, 0.0, 1.0, 2.0, 3.0, 4.0, 5.0], "joined");
    assert_eq!(real.outputs[0].last, Last::Sigmoid);
    let mixed = with("Concat", &["x", "s"], &["y"], &[int("axis", 1)]);
    assert!(refused(13, &[6], vec![nodes[0].clone(), mixed], vec![]).contains("of some not"));
}

/// The two probabilities of a classifier that has one logit: `1 - sigmoid(x)` is `sigmoid(-x)`.
#[test]
fn what_is_missing_to_one_is_a_sigmoid_too() {
    let nodes = |one: &str| {
        vec![
            with("Sigmoid", &["x"], &["s"], &[]),
            with("Sub", &[one, "s"], &["n"], &[]),
            with("Concat", &["n", "s"], &["p"], &[int("axis", 1)]),
            with("ArgMax", &["p"], &["y"], &[int("axis", 1)]),
        ]
    };
    let constants = || vec![tensor("one", &[], &[1.0]), tensor("two", &[], &[2.0])];
    let (answers, real) = run(&file(13, &[1], nodes("one"), constants(), &["p", "y"]), &[3.0]);
    close(&answers[0], &[-3.0, 3.0], "probabilities");
    assert_eq!(real.outputs.iter().map(|o| o.last).collect::<Vec<_>>(), [Last::Sigmoid, Last::ArgMax]);
    assert!(refused(13, &[1], nodes("two"), constants()).contains("n (Sub)"));
}

/// Of the index nobody sees which axis it was along: segmentation with channels first.
#[test]
fn the_largest_along_any_axis() {
    let x: Vec<f64> = (0..6).map(f64::from).collect();
    let index = |from: &str, axis: i64, keep: i64| {
        with("ArgMax", &[from], &["y"], &[int("axis", axis), int("keepdims", keep)])
    };
    let turned = [0.0, 3.0, 1.0, 4.0, 2.0, 5.0];
    for (first, axis, keep) in [("Relu", 1, 0), ("Sigmoid", 1, 1), ("Softmax", 1, 0), ("LogSoftmax", -2, 1)] {
        let attributes = if first.ends_with("Softmax") { vec![int("axis", 1)] } else { vec![] };
        let nodes = vec![with(first, &["x"], &["s"], &attributes), index("s", axis, keep)];
        let (answers, real) = run(&file(13, &[2, 3], nodes, vec![], &["y"]), &x);
        close(&answers[0], &turned, first);
        assert_eq!((real.outputs[0].last, real.outputs[0].shape.as_slice()), (Last::ArgMax, &[3, 2][..]));
    }
    let nodes = vec![index("x", 1, 0), with("Shape", &["y"], &["s"], &[])];
    let (answers, _) = run(&file(13, &[2, 3, 4], nodes, vec![], &["y", "s"]), &[0.0; 24]);
    close(&answers[1], &[1.0, 3.0, 4.0], "shape");
    // A softmax along one axis changes what is the largest along another.
    let nodes = vec![with("Softmax", &["x"], &["s"], &[int("axis", 2)]), index("s", 1, 0)];
    assert!(refused(13, &[2, 3], nodes, vec![]).contains("y (ArgMax)"));
    let nodes = vec![with("Softmax", &["x"], &["s"], &[int("axis", 1)]), index("s", 2, 0)];
    assert!(refused(13, &[2, 3], nodes, vec![]).contains("y (ArgMax)"));
    assert!(refused(13, &[1, 3], vec![index("x", 1, 0)], vec![]).contains("more than one value"));
}

/// The values behind an ArgMax are still those that it is of, and its indices have a shape of their own.
#[test]
fn what_is_behind_an_arg_max_sees_the_shape_of_its_indices() {
    let x: Vec<f64> = (0..12).map(f64::from).collect();
    let index = |keep: i64| with("ArgMax", &["x"], &["i"], &[int("axis", 2), int("keepdims", keep)]);
    for (keep, expected) in [(0, &[1.0, 3.0][..]), (1, &[1.0, 3.0, 1.0])] {
        let nodes = vec![index(keep), with("Shape", &["i"], &["s"], &[]), with("Size", &["i"], &["n"], &[])];
        let (answers, real) = run(&file(13, &[3, 4], nodes, vec![], &["i", "s", "n"]), &x);
        close(&answers[1], expected, "shape");
        close(&answers[2], &[3.0], "size");
        assert_eq!((real.outputs[0].last, real.outputs[0].shape.as_slice()), (Last::ArgMax, &[3, 4][..]));
    }
    let nodes = || vec![index(0), with("Reshape", &["i", "shape"], &["y"], &[])];
    let made = file(13, &[3, 4], nodes(), vec![integers("shape", &[3, 1])], &["y"]);
    let (answers, real) = run(&made, &x);
    close(&answers[0], &x, "values");
    assert_eq!((real.outputs[0].last, real.outputs[0].shape.as_slice()), (Last::ArgMax, &[3, 4][..]));
    // As many indices as there are rows, not as there are values.
    assert!(refused(13, &[3, 4], nodes(), vec![integers("shape", &[12])]).contains("y (Reshape)"));
}

#[test]
fn outputs_are_in_their_order_and_constants_and_dead_branches_are_fine() {
    let nodes = vec![
        with("Relu", &["x"], &["a"], &[]),
        with("Exp", &["x"], &["dead"], &[]),
        with("Add", &["w", "w"], &["c"], &[]),
    ];
    let made = file(13, &[2], nodes, vec![tensor("w", &[1, 2], &[1.5, -2.0])], &["c", "a", "x"]);
    let (answers, real) = run(&made, &[-1.0, 4.0]);
    close(&answers.concat(), &[3.0, -4.0, 0.0, 4.0, -1.0, 4.0], "outputs");
    assert_eq!(real.outputs.iter().map(|o| o.name.as_str()).collect::<Vec<_>>(), ["c", "a", "x"]);
}

#[test]
fn the_shape_of_a_value_is_a_constant() {
    let nodes = vec![
        with("Shape", &["x"], &["s"], &[]),
        with("Gather", &["s", "one"], &["rows"], &[]),
        with("Concat", &["first", "rows", "rest"], &["to"], &[int("axis", 0)]),
        with("Reshape", &["x", "to"], &["r"], &[]),
        with("Transpose", &["r"], &["y"], &[]),
    ];
    let constants = vec![integers("one", &[1]), integers("first", &[1]), integers("rest", &[-1])];
    let x: Vec<f64> = (0..6).map(f64::from).collect();
    close(&answer(13, &[2, 3], nodes, constants, &x), &[0.0, 3.0, 1.0, 4.0, 2.0, 5.0], "turned");
}

#[test]
fn the_input_is_normalised_by_channel_first_or_last() {
    let normalisation = Normalisation { scale: 2.0, mean: vec![1.0, 2.0], std: vec![0.5, 0.25] };
    let options = ImportOptions { normalisation, ..options() };
    let x: Vec<f64> = (0..6).map(f64::from).collect();
    let seen = |made: &[u8], options: &ImportOptions| {
        let plain = walk(made, options).unwrap().run(&x, |_, _| ()).unwrap().concat();
        let real = read(made, options).unwrap();
        crate::tests::passed(&real).unwrap();
        close(&real.run(&x, |_, _| ()).unwrap().concat(), &plain, "behind the passes");
        plain
    };
    let first = file(13, &[2, 3], vec![with("Identity", &["x"], &["y"], &[])], vec![], &["y"]);
    close(&seen(&first, &options), &[-2.0, -1.0, 0.0, -2.0, 0.0, 2.0], "first");
    let turned = vec![with("Transpose", &["x"], &["y"], &[crate::tests::onnx::ints("perm", &[0, 2, 1])])];
    let last = file(13, &[3, 2], turned, vec![], &["y"]);
    close(&seen(&last, &options), &[-2.0, 0.0, 2.0, -6.0, -2.0, 2.0], "last");
    // A factor for all belongs to the network's shape and takes no layer.
    let plain = ImportOptions::default();
    assert!((seen(&first, &plain)[5] - 5.0 / 255.0).abs() < 1e-12);
    assert_eq!(super::counts(&read(&first, &plain).unwrap()).0, 0);
    let wrong = Normalisation { mean: vec![1.0; 5], ..Default::default() };
    assert!(read(&first, &ImportOptions { normalisation: wrong, ..options }).is_err());
}

/// An index that its type does not hold would become another one.
#[test]
fn indices_are_cast_to_types_that_hold_them() {
    let nodes = |to: i64| {
        let cast = with("Cast", &["l"], &["y"], &[int("to", to)]);
        vec![with("ArgMax", &["x"], &["l"], &[int("axis", 1)]), cast]
    };
    // The most classes whose indices a type holds.
    for (to, most) in [
        (9, 2),
        (3, 128),
        (2, 256),
        (5, 32768),
        (4, 65536),
        (21, 16),
        (22, 8),
        (25, 4),
        (26, 2),
        (10, 2049),
        (16, 257),
        (17, 17),
        (19, 9),
        (23, 5),
    ] {
        let held = file(25, &[most], nodes(to), vec![], &["y"]);
        assert_eq!(run(&held, &vec![0.0; most]).1.outputs[0].last, Last::ArgMax, "{to}");
        for more in [1, 2] {
            let text = refused(25, &[most + more], nodes(to), vec![]);
            assert!(text.contains("y (Cast)") && text.contains("indices"), "{to}: {text}");
        }
    }
    for to in [1, 6, 7, 11, 12, 13] {
        run(&file(25, &[70_000], nodes(to), vec![], &["y"]), &[0.0; 70_000]);
    }
    // Along another axis than the last, and to texts.
    let along = |to: i64| vec![with("ArgMax", &["x"], &["l"], &[int("axis", 1)]), nodes(to).remove(1)];
    run(&file(25, &[2, 300], along(9), vec![], &["y"]), &[0.0; 600]);
    refused(25, &[3, 2], along(9), vec![]);
    refused(25, &[2], nodes(8), vec![]);
}
