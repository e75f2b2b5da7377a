//! What moves values, joins them and adds constants to them.

use super::{answer, close, counts, file, integers, numbers, refused, run, tensor, with};
use crate::onnx::{AttributeProto, TensorProto};
use crate::tests::onnx::{float, int, ints, text};

fn up_to(count: usize) -> Vec<f64> {
    (0..count).map(|i| i as f64).collect()
}

#[test]
fn sums_and_products_with_constants_of_any_shape() {
    let x = numbers(6, 1);
    let check = |op: &str, order: [&str; 2], dims: &[usize], c: &[f64], expected: Vec<f64>| {
        let nodes = vec![with(op, &order, &["y"], &[])];
        close(&answer(13, &[2, 3], nodes, vec![tensor("c", dims, c)], &x), &expected, op);
    };
    let each =
        |of: &dyn Fn(usize, f64) -> f64| x.iter().enumerate().map(|(i, &x)| of(i, x)).collect::<Vec<f64>>();
    let (row, column) = ([1.0, -2.0, 4.0], [0.5, -3.0]);
    check("Add", ["x", "c"], &[3], &row, each(&|i, x| x + row[i % 3]));
    check("Sub", ["c", "x"], &[2, 1], &column, each(&|i, x| column[i / 3] - x));
    check("Sub", ["x", "c"], &[1, 2, 1], &column, each(&|i, x| x - column[i / 3]));
    check("Mul", ["c", "x"], &[], &[-2.5], each(&|_, x| x * -2.5));
    check("Mul", ["x", "c"], &[3], &[0.0, 1.0, -2.0], each(&|i, x| x * [0.0, 1.0, -2.0][i % 3]));
    check("Div", ["x", "c"], &[2, 1], &column, each(&|i, x| x / column[i / 3]));
    // The constant is the larger one.
    let wide = up_to(12);
    let expected = wide.iter().enumerate().map(|(i, w)| w + x[i % 6]).collect();
    check("Add", ["x", "c"], &[2, 2, 3], &wide, expected);
    let expected = wide.iter().enumerate().map(|(i, w)| w * x[i % 6]).collect();
    check("Mul", ["x", "c"], &[2, 2, 3], &wide, expected);
    let nodes = |op: &str, order: [&str; 2]| vec![with(op, &order, &["y"], &[])];
    assert!(refused(13, &[3], nodes("Div", ["c", "x"]), vec![tensor("c", &[3], &row)]).contains("divisors"));
    assert!(refused(13, &[3], nodes("Div", ["x", "c"]), vec![tensor("c", &[1], &[0.0])]).contains("zero"));
    assert!(
        refused(13, &[3], nodes("Add", ["x", "c"]), vec![tensor("c", &[2], &column)]).contains("reshape")
    );
    assert!(
        refused(13, &[3], nodes("Add", ["x", "c"]), vec![tensor("c", &[1], &[f64::NAN])]).contains("finite")
    );
}

/// Before opset 7 they said where to broadcast, and such files are not read.
#[test]
fn attributes_of_older_operators_are_refused() {
    let constants = || vec![tensor("w", &[2, 2], &[1.0; 4]), tensor("s", &[2], &[1.0; 2])];
    for (op, attribute) in
        [("Add", "axis"), ("Sub", "broadcast"), ("Mul", "axis"), ("Div", "broadcast"), ("Gemm", "broadcast")]
    {
        let node = with(op, &["x", "w"], &["y"], &[int(attribute, 1)]);
        assert!(refused(13, &[2], vec![node], constants()).contains(attribute), "{op}");
    }
    let node = with("Upsample", &["x", "s"], &["y"], &[float("height_scale", 1.0)]);
    assert!(refused(9, &[2], vec![node], constants()).contains("height_scale"));
}

#[test]
fn sums_of_several_values() {
    let x = numbers(4, 1);
    let nodes =
        |op: &str| vec![with("Neg", &["x"], &["n"], &[]), with(op, &["x", "n", "x", "c"], &["y"], &[])];
    let c = || vec![tensor("c", &[1], &[3.0])];
    close(&answer(13, &[4], nodes("Sum"), c(), &x), &x.iter().map(|x| x + 3.0).collect::<Vec<_>>(), "Sum");
    close(
        &answer(13, &[4], nodes("Mean"), c(), &x),
        &x.iter().map(|x| (x + 3.0) / 4.0).collect::<Vec<_>>(),
        "Mean",
    );
    // Broadcast either way: a row and a column of the same value.
    let nodes =
        vec![with("Unsqueeze", &["x", "axis"], &["column"], &[]), with("Sub", &["column", "x"], &["y"], &[])];
    let expected: Vec<f64> = x.iter().flat_map(|a| x.iter().map(move |b| a - b)).collect();
    close(&answer(13, &[4], nodes, vec![integers("axis", &[2])], &x), &expected, "column - row");
}

#[test]
fn values_and_constants_are_joined_along_any_axis() {
    let nodes =
        vec![with("Relu", &["x"], &["r"], &[]), with("Concat", &["x", "c", "r"], &["y"], &[int("axis", -1)])];
    let x = [1.0, -2.0, 3.0, -4.0];
    let found = answer(13, &[2, 2], nodes, vec![tensor("c", &[1, 2, 1], &[7.0, 0.5])], &x);
    close(&found, &[1.0, -2.0, 7.0, 1.0, 0.0, 3.0, -4.0, 0.5, 3.0, 0.0], "Concat");
    let nodes = vec![with("Concat", &["x", "c"], &["y"], &[int("axis", 1)])];
    assert!(refused(13, &[2, 2], nodes, vec![tensor("c", &[1, 1, 3], &[0.0; 3])]).contains("axis 1"));
}

#[test]
fn padding_with_zeros_numbers_and_the_value_itself() {
    let x = [1.0, 2.0, 3.0];
    let check = |opset: i64, attributes: &[AttributeProto], more: &[&str], expected: &[f64]| {
        let nodes = vec![with("Pad", &[&["x"], more].concat(), &["y"], attributes)];
        let constants = vec![integers("p", &[0, 2, 0, 1]), tensor("v", &[], &[5.0])];
        close(&answer(opset, &[3], nodes, constants, &x), expected, "Pad");
    };
    check(13, &[], &["p"], &[0.0, 0.0, 1.0, 2.0, 3.0, 0.0]);
    check(13, &[], &["p", "v"], &[5.0, 5.0, 1.0, 2.0, 3.0, 5.0]);
    check(10, &[ints("pads", &[0, 2, 0, 1]), float("value", -1.0)], &[], &[-1.0, -1.0, 1.0, 2.0, 3.0, -1.0]);
    check(13, &[text("mode", "edge")], &["p"], &[1.0, 1.0, 1.0, 2.0, 3.0, 3.0]);
    check(13, &[text("mode", "reflect")], &["p"], &[3.0, 2.0, 1.0, 2.0, 3.0, 2.0]);
    // An offset behind padding does not reach what is padded again.
    let nodes = vec![
        with("Add", &["x", "c"], &["a"], &[]),
        with("Pad", &["a", "p"], &["b"], &[]),
        with("Conv", &["b", "w"], &["y"], &[ints("pads", &[1, 1])]),
    ];
    let constants = vec![
        tensor("c", &[], &[10.0]),
        integers("p", &[0, 0, 2, 0, 0, 0]),
        tensor("w", &[1, 1, 3], &[1.0, 10.0, 100.0]),
    ];
    let made = file(13, &[1, 3], nodes, constants, &["y"]);
    let (found, real) = run(&made, &x);
    close(&found[0], &[0.0, 1100.0, 1310.0, 1431.0, 142.0], "padded twice");
    assert_eq!(counts(&real), (1, 0, 0));
}

#[test]
fn values_are_moved_as_constants_are() {
    let x = up_to(12);
    let check = |op: &str, attributes: &[AttributeProto], more: &[(&str, &[i64])], expected: &[f64]| {
        let names: Vec<&str> = ["x"].into_iter().chain(more.iter().map(|(name, _)| *name)).collect();
        let constants = more.iter().map(|(name, values)| integers(name, values)).collect();
        close(&answer(13, &[4, 3], vec![with(op, &names, &["y"], attributes)], constants, &x), expected, op);
    };
    check(
        "Transpose",
        &[ints("perm", &[0, 2, 1])],
        &[],
        &[0.0, 3.0, 6.0, 9.0, 1.0, 4.0, 7.0, 10.0, 2.0, 5.0, 8.0, 11.0],
    );
    check(
        "Slice",
        &[],
        &[("a", &[2, 2]), ("b", &[0, -4]), ("c", &[1, 2]), ("d", &[-1, -2])],
        &[8.0, 6.0, 5.0, 3.0],
    );
    check(
        "Gather",
        &[int("axis", 1)],
        &[("i", &[3, 0, -1])],
        &[9.0, 10.0, 11.0, 0.0, 1.0, 2.0, 9.0, 10.0, 11.0],
    );
    check(
        "Tile",
        &[],
        &[("n", &[1, 1, 2])],
        &(0..4).flat_map(|r| [0, 1, 2, 0, 1, 2].map(|c| f64::from(3 * r + c))).collect::<Vec<_>>(),
    );
    check("Flatten", &[int("axis", 2)], &[], &x);
    let nodes = vec![
        with("Split", &["x", "n"], &["a", "b"], &[int("axis", 1)]),
        with("Sub", &["a", "t"], &["y"], &[]),
        with("Slice", &["b", "f", "e", "n"], &["t"], &[]),
    ];
    let constants =
        vec![integers("n", &[1, 3]), integers("f", &[2]), integers("e", &[3]), integers("axes", &[1])];
    let mut nodes = nodes;
    nodes[2].input[3] = "axes".to_owned();
    close(&answer(13, &[4, 3], nodes, constants, &x), &[-9.0, -9.0, -9.0], "Split");
    let chosen = vec![with("Gather", &["c", "x"], &["y"], &[])];
    assert!(refused(13, &[3], chosen, vec![tensor("c", &[3], &[1.0, 2.0, 3.0])]).contains("(Gather)"));
}

#[test]
fn resizing_to_the_nearest_value() {
    let x = up_to(4);
    let check = |opset: i64,
                 op: &str,
                 attributes: &[AttributeProto],
                 inputs: &[&str],
                 scales: &[f64],
                 expected: &[f64]| {
        let nodes = vec![with(op, &[&["x"], inputs].concat(), &["y"], attributes)];
        let constants = vec![
            tensor("scales", &[scales.len()], scales),
            integers("sizes", &[1, 1, expected.len() as i64]),
            tensor("none", &[0], &[]),
        ];
        close(&answer(opset, &[1, 4], nodes, constants, &x), expected, op);
    };
    let twice = [0.0, 0.0, 1.0, 1.0, 2.0, 2.0, 3.0, 3.0];
    let scales = [1.0, 1.0, 2.0];
    check(9, "Upsample", &[], &["scales"], &scales, &twice);
    check(10, "Resize", &[], &["scales"], &scales, &twice);
    check(13, "Resize", &[], &["", "scales"], &scales, &twice);
    check(13, "Resize", &[], &["none", "none", "sizes"], &[], &twice);
    let mode = |transformation: &str, nearest: &str| {
        [text("coordinate_transformation_mode", transformation), text("nearest_mode", nearest)]
    };
    check(13, "Resize", &mode("asymmetric", "floor"), &["", "scales"], &scales, &twice);
    check(
        13,
        "Resize",
        &mode("asymmetric", "ceil"),
        &["", "scales"],
        &scales,
        &[0.0, 1.0, 1.0, 2.0, 2.0, 3.0, 3.0, 3.0],
    );
    check(
        13,
        "Resize",
        &mode("align_corners", "round_prefer_ceil"),
        &["", "", "sizes"],
        &[],
        &[0.0, 1.0, 1.0, 2.0, 2.0, 3.0, 3.0],
    );
    check(
        13,
        "Resize",
        &mode("half_pixel", "round_prefer_floor"),
        &["", "scales"],
        &[1.0, 1.0, 0.5],
        &[0.0, 2.0],
    );
    check(13, "Resize", &mode("asymmetric", "floor"), &["", "scales"], &[1.0, 1.0, 0.5], &[0.0, 2.0]);
    check(18, "Resize", &[ints("axes", &[2])], &["", "scales"], &[2.0], &twice);
    let linear = || vec![with("Resize", &["x", "", "scales"], &["y"], &[text("mode", "linear")])];
    // Nothing lies between values that stay where they are.
    close(&answer(13, &[1, 4], linear(), vec![tensor("scales", &[3], &[1.0; 3])], &x), &x, "as before");
}

/// 0.7 and 1.1 are a little less and a little more in single precision, and in double precision one value fewer or another
/// one would come out.
#[test]
fn resizing_is_computed_in_single_precision() {
    let mode = [text("coordinate_transformation_mode", "asymmetric"), text("nearest_mode", "floor")];
    let check = |count: usize, scale: f64, expected: &[f64]| {
        let nodes = vec![with("Resize", &["x", "", "scales"], &["y"], &mode)];
        let constants = vec![tensor("scales", &[3], &[1.0, 1.0, scale])];
        close(&answer(13, &[1, count], nodes, constants, &up_to(count)), expected, "Resize");
    };
    check(10, 0.7, &[0.0, 1.0, 2.0, 4.0, 5.0, 7.0, 8.0]);
    let mut expected: Vec<f64> = (0..22).map(|i| (f64::from(i) / 1.1).floor()).collect();
    expected[11] = 10.0;
    check(20, 1.1, &expected);
}

#[test]
fn blocks_at_tuples_of_indices() {
    let x = up_to(12);
    let check = |shape: &[usize], batch: i64, dims: &[i64], indices: &[i64], expected: &[f64]| {
        let nodes = vec![with("GatherND", &["x", "i"], &["y"], &[int("batch_dims", batch)])];
        let constants = vec![TensorProto { dims: dims.to_vec(), ..integers("i", indices) }];
        close(&answer(13, shape, nodes, constants, &x), expected, "GatherND");
    };
    check(&[3, 4], 0, &[2, 3], &[0, 2, 1, 0, -1, -4], &[9.0, 8.0]);
    check(&[3, 4], 1, &[1, 2, 1], &[2, 0], &[8.0, 9.0, 10.0, 11.0, 0.0, 1.0, 2.0, 3.0]);
    check(&[3, 4], 2, &[1, 3, 1], &[3, 0, -2], &[3.0, 4.0, 10.0]);
    for (batch, dims, indices) in [
        (0, vec![1, 1], vec![1]),
        (0, vec![1, 4], vec![0; 4]),
        (0, vec![1, 0], vec![]),
        (3, vec![1], vec![0]),
        (-1, vec![1, 1], vec![0]),
        (1, vec![2, 1], vec![0; 2]),
    ] {
        let nodes = vec![with("GatherND", &["x", "i"], &["y"], &[int("batch_dims", batch)])];
        refused(13, &[3, 4], nodes, vec![TensorProto { dims, ..integers("i", &indices) }]);
    }
}

#[test]
fn one_of_two_values_by_a_constant() {
    let x = up_to(4);
    let condition = || TensorProto { data_type: 9, int32_data: vec![1, 0, 0, 1], ..tensor_of_bools() };
    let nodes = |yes: &str, no: &str| {
        vec![with("Neg", &["x"], &["n"], &[]), with("Where", &["c", yes, no], &["y"], &[])]
    };
    let run = |yes: &str, no: &str, fill: f64| {
        answer(13, &[4], nodes(yes, no), vec![condition(), tensor("k", &[1], &[fill])], &x)
    };
    close(&run("x", "n", 0.0), &[0.0, -1.0, -2.0, 3.0], "values");
    close(&run("k", "x", 7.0), &[7.0, 1.0, 2.0, 7.0], "a constant");
    close(&run("x", "x", 0.0), &x, "the same");
    // Nothing is multiplied, so a choice among values takes no layer.
    let made = file(13, &[4], nodes("x", "n"), vec![condition()], &["y"]);
    assert_eq!(counts(&super::run(&made, &x).1).0, 0);
    // All of one, and all constant.
    for (value, expected) in [(1, [0.0, -1.0, -2.0, -3.0]), (0, [7.0; 4])] {
        let all = TensorProto { data_type: 9, int32_data: vec![value; 4], ..tensor_of_bools() };
        let constants = vec![all, tensor("k", &[1], &[7.0])];
        close(&answer(13, &[4], nodes("n", "k"), constants, &x), &expected, "all");
    }
    // Broadcast by both.
    let rows = TensorProto { data_type: 9, int32_data: vec![1, 0], dims: vec![2, 1], ..tensor_of_bools() };
    let found = answer(13, &[4], nodes("x", "n"), vec![rows], &x);
    close(&found, &[0.0, 1.0, 2.0, 3.0, 0.0, -1.0, -2.0, -3.0], "rows");
    let text = refused(13, &[4], nodes("x", "k"), vec![condition(), tensor("k", &[1], &[f64::INFINITY])]);
    assert!(text.contains("finite"), "{text}");
}

fn tensor_of_bools() -> TensorProto {
    TensorProto { name: "c".to_owned(), dims: vec![4], ..Default::default() }
}

/// Before a MaxPool, where it never is the largest; behind a ReLU alone, where 0 is not either.
#[test]
fn padding_with_what_is_below_all_values() {
    let nodes = |first: &str, last: &str| {
        vec![
            with(first, &["x"], &["r"], &[]),
            with("Pad", &["r", "p", "v"], &["q"], &[]),
            with(last, &["q"], &["y"], &[ints("kernel_shape", &[2])]),
        ]
    };
    // As single precision and half have it.
    for fill in [f64::NEG_INFINITY, f64::from(f32::MIN), -65504.0] {
        let constants = || vec![integers("p", &[0, 0, 1, 0, 0, 1]), tensor("v", &[], &[fill])];
        let wider = || vec![integers("p", &[0, 0, 2, 0, 0, 0]), tensor("v", &[], &[fill])];
        let found = answer(13, &[1, 3], nodes("Relu", "MaxPool"), constants(), &[2.0, -1.0, -3.0]);
        close(&found, &[2.0, 2.0, 0.0, 0.0], "MaxPool");
        if fill == -65504.0 {
            // It is a number like others, where others see it.
            let (found, real) =
                run(&file(13, &[1, 3], nodes("Relu", "MaxPool"), constants(), &["y"]), &[2.0, -1.0, -3.0]);
            close(&found[0], &[2.0, 2.0, 0.0, 0.0], "half precision");
            assert_eq!(counts(&real).0, 0);
            let found = answer(13, &[1, 3], nodes("Relu", "MaxPool"), wider(), &[2.0, -1.0, -3.0]);
            close(&found, &[fill, 2.0, 2.0, 0.0], "padding alone");
            continue;
        }
        for (first, last) in [("Neg", "MaxPool"), ("Relu", "AveragePool")] {
            assert!(refused(13, &[1, 3], nodes(first, last), constants()).contains("q (Pad)"));
        }
        // A window of padding alone has no value that is the largest.
        assert!(refused(13, &[1, 3], nodes("Relu", "MaxPool"), wider()).contains("q (Pad)"));
        let channel = vec![integers("p", &[0, 1, 0, 0, 0, 0]), tensor("v", &[], &[fill])];
        assert!(refused(13, &[1, 3], nodes("Relu", "MaxPool"), channel).contains("q (Pad)"));
        // Nor if the pooling itself begins farther in front.
        let mut more = nodes("Relu", "MaxPool");
        more[2].attribute.push(ints("pads", &[1, 0]));
        assert!(refused(13, &[1, 3], more, constants()).contains("q (Pad)"));
    }
}

#[test]
fn batch_norm_before_and_behind_everything() {
    let parameters = || {
        vec![
            tensor("s", &[2], &[2.0, -1.0]),
            tensor("o", &[2], &[0.5, 1.0]),
            tensor("m", &[2], &[1.0, -2.0]),
            tensor("v", &[2], &[4.0, 0.25]),
        ]
    };
    let inputs = ["x", "s", "o", "m", "v"];
    let expected = |c: usize, x: f64| {
        let (s, o, m, v) = [(2.0, 0.5, 1.0, 4.0), (-1.0, 1.0, -2.0, 0.25)][c];
        s * (x - m) / f64::sqrt(v) + o
    };
    let nodes = || vec![with("BatchNormalization", &inputs, &["y"], &[float("epsilon", 0.0)])];
    for (shape, run) in [(vec![2], 1), (vec![2, 3], 3), (vec![2, 2, 2], 4)] {
        let x = numbers(2 * run, 1);
        let expected: Vec<f64> = x.iter().enumerate().map(|(i, &x)| expected(i / run, x)).collect();
        close(&answer(14, &shape, nodes(), parameters(), &x), &expected, "BatchNormalization");
    }
    let training = vec![with("BatchNormalization", &inputs, &["y"], &[int("training_mode", 1)])];
    assert!(refused(14, &[2, 3], training, parameters()).contains("inference"));
    // Which the number of results said before.
    let five = vec![with("BatchNormalization", &inputs, &["y", "", "new mean"], &[])];
    assert!(refused(9, &[2, 3], five, parameters()).contains("inference"));
    let one = vec![with("BatchNormalization", &inputs, &["y", "", ""], &[])];
    answer(9, &[2, 3], one, parameters(), &[0.0; 6]);
    assert!(refused(14, &[3, 3], nodes(), parameters()).contains("[3]"));
}

#[test]
fn attributes_that_nobody_knows_are_refused() {
    let shape = || vec![integers("s", &[1, 4])];
    let cases: [(&str, &[&str], Vec<crate::onnx::TensorProto>); 6] = [
        ("Reshape", &["x", "s"], shape()),
        ("Expand", &["x", "s"], shape()),
        ("Tile", &["x", "s"], shape()),
        ("Transpose", &["x"], vec![]),
        ("Flatten", &["x"], vec![]),
        ("Identity", &["x"], vec![]),
    ];
    for (op, inputs, constants) in cases {
        let nodes = vec![with(op, inputs, &["y"], &[int("order", 1)])];
        let text = refused(13, &[4], nodes, constants.clone());
        assert!(text.contains(&format!("y ({op})")) && text.contains("attribute order"), "{text}");
    }
    // Of another version of the operators.
    let nodes = || vec![with("Squeeze", &["x"], &["y"], &[ints("axes", &[1])])];
    answer(11, &[1, 4], nodes(), vec![], &[0.0; 4]);
    assert!(refused(13, &[1, 4], nodes(), vec![]).contains("since version 13"));
}
