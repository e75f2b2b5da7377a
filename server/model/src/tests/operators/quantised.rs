//! Quantised networks as phones have them: the real numbers behind their integers.

use prost::Message;

use super::{close, counts, file, integers, options, refused, run, tensor, with};
use crate::onnx::{ModelProto, NodeProto, TensorProto};
use crate::tests::onnx::{float, int, ints, text};
use crate::{Error, ImportOptions, Normalisation, read};

/// A constant of bytes: UINT8, INT8 or INT32.
pub fn bytes(name: &str, kind: i32, dims: &[usize], values: &[i32]) -> TensorProto {
    TensorProto {
        name: name.to_owned(),
        dims: dims.iter().map(|&d| d as i64).collect(),
        data_type: kind,
        int32_data: values.to_vec(),
        ..Default::default()
    }
}

pub const UINT8: i32 = 2;
pub const INT8: i32 = 3;
const INT32: i32 = 6;

#[test]
fn quantising_and_back_is_nothing_and_weights_are_real() {
    let nodes = vec![
        with("QuantizeLinear", &["x", "s", "z"], &["q"], &[]),
        with("DequantizeLinear", &["q", "s", "z"], &["d"], &[]),
        with("DequantizeLinear", &["w", "ws", "wz"], &["real"], &[crate::tests::onnx::int("axis", 0)]),
        with("Conv", &["d", "real"], &["c"], &[]),
        with("QuantizeLinear", &["c", "t", "z"], &["e"], &[]),
        with("MaxPool", &["e"], &["p"], &[ints("kernel_shape", &[2])]),
        with("DequantizeLinear", &["p", "t", "z"], &["y"], &[]),
    ];
    let constants = vec![
        tensor("s", &[], &[0.5]),
        bytes("z", UINT8, &[], &[100]),
        tensor("t", &[], &[0.25]),
        bytes("w", INT8, &[2, 1, 2], &[3, -2, 10, 5]),
        tensor("ws", &[2], &[0.5, 0.25]),
        bytes("wz", INT8, &[2], &[1, 0]),
    ];
    let x = [1.0, -2.0, 3.0, 0.5];
    let channel = |w: [f64; 2]| (0..3).map(|i| x[i] * w[0] + x[i + 1] * w[1]).collect::<Vec<f64>>();
    let pooled = |v: Vec<f64>| [v[0].max(v[1]), v[1].max(v[2])];
    let expected = [pooled(channel([1.0, -1.5])), pooled(channel([2.5, 1.25]))].concat();
    let (found, real) = run(&file(13, &[1, 4], nodes, constants, &["y"]), &x);
    close(&found[0], &expected, "QDQ");
    assert_eq!(counts(&real).0, 1);
}

/// A type whose least number stands for 0 is a ReLU, and with 6 at its end a ReLU6.
#[test]
fn what_a_type_cannot_hold_is_cut_off() {
    let constants = |scale: f64| {
        vec![
            tensor("s", &[], &[0.5]),
            bytes("z", UINT8, &[], &[128]),
            bytes("w", INT8, &[2, 3], &[4, -4, 8, 8, -8, 2]),
            tensor("ws", &[], &[0.25]),
            bytes("wz", INT8, &[], &[0]),
            tensor("t", &[], &[scale]),
            bytes("least", INT8, &[], &[-128]),
        ]
    };
    let nodes = || {
        vec![
            with("QuantizeLinear", &["x", "s", "z"], &["q"], &[]),
            with("QLinearMatMul", &["q", "s", "z", "w", "ws", "wz", "t", "least"], &["m"], &[]),
            with("DequantizeLinear", &["m", "t", "least"], &["y"], &[]),
        ]
    };
    let x = [1.0, 3.0];
    let sums = [1.0 + 6.0, -1.0 - 6.0, 2.0 + 1.5];
    let relu: Vec<f64> = sums.iter().map(|x| f64::max(*x, 0.0)).collect();
    let (found, _) = run(&file(13, &[2], nodes(), constants(0.05), &["y"]), &x);
    close(&found[0], &relu, "ReLU");
    let six: Vec<f64> = sums.iter().map(|x| x.clamp(0.0, 6.0)).collect();
    let (found, _) = run(&file(13, &[2], nodes(), constants(6.0 / 255.0), &["y"]), &x);
    close(&found[0], &six, "ReLU6");
}

/// What only looks as if it could not be negative is cut off all the same.
#[test]
fn differences_of_relus_are_cut_off_unless_they_are_bounds() {
    let made = |nodes: Vec<NodeProto>| {
        let quantised = vec![
            with("QuantizeLinear", &["v", "s", "z"], &["q"], &[]),
            with("DequantizeLinear", &["q", "s", "z"], &["y"], &[]),
        ];
        let constants =
            vec![tensor("s", &[], &[0.05]), bytes("z", UINT8, &[], &[0]), tensor("six", &[], &[6.0])];
        file(13, &[4], [nodes, quantised].concat(), constants, &["y"])
    };
    let x = [-4.0, -1.0, 2.0, 8.0];
    let above: Vec<f64> = x.iter().map(|x| f64::max(*x, 0.0)).collect();
    // A difference of ReLUs that are none of the same value, and a slope below zero.
    let difference = vec![
        with("Relu", &["x"], &["a"], &[]),
        with("Neg", &["x"], &["n"], &[]),
        with("Relu", &["n"], &["b"], &[]),
        with("Sub", &["a", "b"], &["v"], &[]),
    ];
    close(&run(&made(difference), &x).0[0], &above, "difference");
    let leaky = vec![with("LeakyRelu", &["x"], &["v"], &[float("alpha", 0.5)])];
    close(&run(&made(leaky), &x).0[0], &above, "LeakyRelu");
    // The other bound is passed.
    let more = vec![
        with("Relu", &["x"], &["a"], &[]),
        with("Add", &["x", "six"], &["m"], &[]),
        with("Relu", &["m"], &["b"], &[]),
        with("Sub", &["a", "b"], &["v"], &[]),
    ];
    close(&run(&made(more), &x).0[0], &[0.0; 4], "difference that is never positive");
    // Nothing is added to what is bounded.
    for (op, more) in [("Clip", &["x", "zero", "six"][..]), ("Relu", &["x"])] {
        let zero = with("Constant", &[], &["zero"], &[float("value_float", 0.0)]);
        let (found, real) = run(&made(vec![zero, with(op, more, &["v"], &[])]), &x);
        let bound = if op == "Clip" { 6.0 } else { 8.0 };
        close(&found[0], &x.map(|x| x.clamp(0.0, bound)), op);
        assert_eq!(counts(&real).1, if op == "Clip" { 8 } else { 4 }, "{op}");
    }
}

#[test]
fn a_quantised_factor_is_refused() {
    let constants =
        || vec![tensor("s", &[], &[0.5]), bytes("z", UINT8, &[], &[128]), tensor("w", &[2, 2], &[1.0; 4])];
    for op in ["Gemm", "MatMul"] {
        let nodes =
            vec![with("QuantizeLinear", &["x", "s", "z"], &["q"], &[]), with(op, &["q", "w"], &["y"], &[])];
        let text = refused(13, &[2], nodes, constants());
        assert!(text.contains(&format!("y ({op})")) && text.contains("DequantizeLinear"), "{text}");
    }
}

/// A file whose input is of another type.
fn of_type(made: &[u8], data_type: i32) -> Vec<u8> {
    let mut model = ModelProto::decode(made).unwrap();
    let input = &mut model.graph.as_mut().unwrap().input[0];
    input.r#type.as_mut().unwrap().tensor_type.as_mut().unwrap().elem_type = data_type;
    model.encode_to_vec()
}

/// An input of integers that a byte is not one of, unless half of its range is taken off.
#[test]
fn inputs_of_signed_bytes_need_a_mean() {
    let cast = with("Cast", &["x"], &["y"], &[crate::tests::onnx::int("to", 1)]);
    let plain = file(13, &[3], vec![cast], vec![], &["y"]);
    let taken = |data_type: i32, mean: Vec<f64>| {
        let normalisation = Normalisation { scale: 1.0, mean, ..Default::default() };
        read(&of_type(&plain, data_type), &ImportOptions { normalisation, ..options() })
    };
    let (int8, int16, boolean) = (3, 5, 9);
    let x = [0.0, 128.0, 255.0];
    let real = taken(int8, vec![128.0]).unwrap();
    close(&real.run(&x, |_, _| ()).unwrap()[0], &[-128.0, 0.0, 127.0], "INT8");
    for mean in [vec![], vec![127.0], vec![129.0]] {
        let text = taken(int8, mean).unwrap_err().to_string();
        assert!(text.contains("input x") && text.contains("--scale 1 --mean 128 --std 1"), "{text}");
    }
    taken(int16, vec![]).unwrap();
    let text = taken(UINT8, vec![128.0]).unwrap_err().to_string();
    assert!(text.contains("from -128 to 127") && text.contains("without --mean"), "{text}");
    let text = taken(boolean, vec![]).unwrap_err().to_string();
    assert!(text.contains("input x is of type BOOL"), "{text}");
}

/// An input of integers, of which no fractions are made by the way.
#[test]
fn inputs_of_integers_are_taken_as_they_are() {
    let constants = || vec![tensor("s", &[], &[0.5]), bytes("z", UINT8, &[], &[100])];
    let x = [0.0, 100.0, 255.0];
    let cast = with("Cast", &["x"], &["y"], &[crate::tests::onnx::int("to", 1)]);
    let dequantized = with("DequantizeLinear", &["x", "s", "z"], &["y"], &[]);
    for (node, expected) in [(cast, x), (dequantized, [-50.0, 0.0, 77.5])] {
        let made = of_type(&file(13, &[3], vec![node.clone()], constants(), &["y"]), UINT8);
        close(&run(&made, &x).0[0], &expected, &node.op_type);
        let fractions = Normalisation { scale: 1.0, mean: vec![0.5], ..Default::default() };
        for normalisation in [Normalisation::default(), fractions] {
            let error = read(&made, &ImportOptions { normalisation, ..options() }).unwrap_err();
            let text = error.to_string();
            assert!(matches!(error, Error::Options(_)) && text.contains("UINT8"), "{text}");
            assert!(text.contains("input x") && text.contains("--scale 1"), "{text}");
        }
        // Of an input of reals nothing is said.
        read(&file(13, &[3], vec![node], constants(), &["y"]), &ImportOptions::default()).unwrap();
    }
}

/// As TensorFlow's exporters turn a picture before they make real numbers of it.
#[test]
fn inputs_of_integers_may_be_moved_first() {
    let nodes = |last: &str| {
        vec![
            with("Shape", &["x"], &["shape"], &[]),
            with("Reshape", &["x", "shape"], &["same"], &[]),
            with("Transpose", &["same"], &["t"], &[ints("perm", &[0, 2, 1])]),
            with("Cast", &["t"], &["f"], &[crate::tests::onnx::int("to", 1)]),
            with(last, &["t", "f"], &["z"], &[]),
            with("Identity", &["f"], &["y"], &[]),
        ]
    };
    let x = [0.0, 1.0, 2.0, 253.0, 254.0, 255.0];
    let made = |outputs: &[&str]| of_type(&file(13, &[2, 3], nodes("Add"), vec![], outputs), UINT8);
    close(&run(&made(&["y"]), &x).0[0], &[0.0, 253.0, 1.0, 254.0, 2.0, 255.0], "turned");
    // An operator that computes with integers is another one than with reals.
    let text = read(&made(&["y", "z"]), &options()).unwrap_err().to_string();
    assert!(text.contains("input x is of type UINT8"), "{text}");
    // Nor may they be what others are to be like.
    let like = vec![
        with("Cast", &["x"], &["f"], &[crate::tests::onnx::int("to", 1)]),
        with("CastLike", &["f", "x"], &["y"], &[]),
    ];
    let text =
        read(&of_type(&file(15, &[2], like, vec![], &["y"]), UINT8), &options()).unwrap_err().to_string();
    assert!(text.contains("input x is of type UINT8"), "{text}");
    // Nor may they say what is moved.
    let row = vec![with("Gather", &["w", "x"], &["y"], &[])];
    let table = vec![tensor("w", &[4, 2], &[0.0; 8])];
    let text =
        read(&of_type(&file(13, &[2], row, table, &["y"]), UINT8), &options()).unwrap_err().to_string();
    assert!(text.contains("input x is of type UINT8"), "{text}");
}

/// Whatever only moves integers or says what they stand for may read them.
#[test]
fn inputs_of_integers_are_read_by_all_that_knows_them() {
    use crate::tests::onnx::int;
    let constants = || {
        vec![
            tensor("s", &[], &[0.5]),
            bytes("z", UINT8, &[], &[10]),
            bytes("c", UINT8, &[1, 1, 2, 2], &[7, 8, 9, 10]),
            bytes("row", UINT8, &[4, 1], &[11, 10, 10, 10]),
            bytes("nine", UINT8, &[], &[9]),
            integers("ones", &[1, 1, 1, 2]),
            integers("pads", &[0, 0, 0, 0, 0, 0, 0, 1]),
            integers("flat", &[1, -1]),
            integers("two", &[2]),
            tensor("scales", &[4], &[1.0, 1.0, 1.0, 2.0]),
            TensorProto { dims: vec![1, 4], ..integers("place", &[0, 0, 0, 1]) },
        ]
    };
    let x = [0.0, 1.0, 2.0, 3.0];
    let check = |domain: &str, op: &str, inputs: &[&str], attributes: &[_], reals: bool, expected: &[f64]| {
        let mut nodes = vec![NodeProto {
            domain: domain.to_owned(),
            ..with(op, inputs, &[if reals { "y" } else { "q" }], attributes)
        }];
        match op {
            "QGemm" => nodes.insert(0, with("Reshape", &["x", "flat"], &["f"], &[])),
            "Scaler" => nodes.insert(0, with("Flatten", &["x"], &["f"], &[])),
            _ => {}
        }
        if !reals {
            nodes.push(with("DequantizeLinear", &["q", "s", "z"], &["y"], &[]));
        }
        let made = of_type(&file(13, &[1, 2, 2], nodes, constants(), &["y"]), UINT8);
        close(&run(&made, &x).0[0], expected, op);
    };
    let real = |q: &[f64]| q.iter().map(|q| (q - 10.0) * 0.5).collect::<Vec<f64>>();
    let runtime = "com.microsoft";
    let doubled = real(&x).iter().map(|x| 2.0 * x).collect::<Vec<_>>();
    check(runtime, "QLinearAdd", &["x", "s", "z", "x", "s", "z", "s", "z"], &[], false, &doubled);
    let one = real(&[1.0]);
    check(runtime, "QLinearMul", &["x", "s", "z", "nine", "s", "z", "s", "z"], &[], false, &{
        real(&x).iter().map(|x| x * -0.5).collect::<Vec<_>>()
    });
    check(runtime, "QLinearLeakyRelu", &["x", "s", "z", "s", "z"], &[float("alpha", 1.0)], false, &real(&x));
    let mean = [real(&x).iter().sum::<f64>() / 4.0];
    check(runtime, "QLinearGlobalAveragePool", &["x", "s", "z", "s", "z"], &[], false, &mean);
    let window = [ints("kernel_shape", &[2, 2])];
    check(runtime, "QLinearAveragePool", &["x", "s", "z", "s", "z"], &window, false, &mean);
    let joined = ["s", "z", "x", "s", "z", "x", "s", "z"];
    check(runtime, "QLinearConcat", &joined, &[int("axis", 3)], false, &{
        real(&[0.0, 1.0, 0.0, 1.0, 2.0, 3.0, 2.0, 3.0])
    });
    check(
        runtime,
        "QGemm",
        &["f", "s", "z", "row", "s", "z", "", "s", "z"],
        &[],
        false,
        &[0.5 * real(&x)[0]],
    );
    check("ai.onnx.ml", "Scaler", &["f"], &[], true, &x);
    check("", "Concat", &["x", "c"], &[int("axis", 1)], false, &{
        real(&[0.0, 1.0, 2.0, 3.0, 7.0, 8.0, 9.0, 10.0])
    });
    check("", "Pad", &["x", "pads", "nine"], &[], false, &real(&[0.0, 1.0, 9.0, 2.0, 3.0, 9.0]));
    check("", "Tile", &["x", "ones"], &[], false, &real(&[0.0, 1.0, 0.0, 1.0, 2.0, 3.0, 2.0, 3.0]));
    check("", "Expand", &["x", "two"], &[], false, &real(&x));
    check("", "GatherND", &["x", "place"], &[], false, &one);
    check("", "SpaceToDepth", &["x"], &[int("blocksize", 2)], false, &real(&x));
    check("", "DepthToSpace", &["x"], &[int("blocksize", 1)], false, &real(&x));
    check("", "Resize", &["x", "", "scales"], &[], false, &{
        real(&[0.0, 0.0, 1.0, 1.0, 2.0, 2.0, 3.0, 3.0])
    });
    // An output without a name is not an input without one.
    let nodes = vec![
        with("Split", &["x"], &["a", ""], &[int("axis", 3)]),
        with("Cast", &["a"], &["f"], &[int("to", 1)]),
        with("Resize", &["f", "", "scales"], &["y"], &[]),
    ];
    let made = of_type(&file(13, &[1, 2, 2], nodes, constants(), &["y"]), UINT8);
    close(&run(&made, &x).0[0], &[0.0, 0.0, 2.0, 2.0], "left out");
}

/// Which values the type of a result cuts off nobody says without its zero point.
#[test]
fn results_without_a_zero_point_are_refused() {
    let constants = || {
        vec![
            tensor("s", &[], &[0.5]),
            bytes("z", UINT8, &[], &[128]),
            bytes("w", INT8, &[2, 2], &[1, 2, 3, 4]),
            bytes("k", INT8, &[1, 1, 2], &[1, 2]),
        ]
    };
    let quantise = with("QuantizeLinear", &["x", "s", "z"], &["q"], &[]);
    for (domain, op, inputs, shape) in [
        ("", "QLinearMatMul", &["q", "s", "z", "w", "s", "z", "s"][..], &[2][..]),
        ("", "QLinearConv", &["q", "s", "z", "k", "s", "z", "s"], &[1, 2]),
        ("com.microsoft", "QLinearSigmoid", &["q", "s", "z", "s"], &[2]),
    ] {
        let made = NodeProto { domain: domain.to_owned(), ..with(op, inputs, &["a"], &[]) };
        let back = with("DequantizeLinear", &["a", "s", "z"], &["y"], &[]);
        let text = refused(13, shape, vec![quantise.clone(), made, back], constants());
        assert!(text.contains(&format!("a ({op})")) && text.contains("zero point"), "{text}");
    }
}

/// What has the integers of a Sigmoid is no Sigmoid, and what is cast to be like integers is none either.
#[test]
fn integers_in_place_of_values_are_not_taken_for_them() {
    let constants =
        || vec![tensor("s", &[], &[0.5]), bytes("z", UINT8, &[], &[128]), bytes("one", UINT8, &[], &[1])];
    let quantise = with("QuantizeLinear", &["x", "s", "z"], &["q"], &[]);
    let sigmoid = NodeProto {
        domain: "com.microsoft".to_owned(),
        ..with("QLinearSigmoid", &["q", "s", "z", "s", "z"], &["g"], &[])
    };
    let less = with("Sub", &["one", "g"], &["n"], &[]);
    let back = with("DequantizeLinear", &["n", "s", "z"], &["y"], &[]);
    let text = refused(13, &[2], vec![quantise.clone(), sigmoid, less, back], constants());
    assert!(text.contains("n (Sub)") && text.contains("DequantizeLinear"), "{text}");
    let like = with("CastLike", &["x", "q"], &["y"], &[]);
    let text = refused(15, &[2], vec![quantise, like], constants());
    assert!(text.contains("y (CastLike)") && text.contains("integers"), "{text}");
}

/// What ONNX Runtime's own format has beside QLinearConv.
#[test]
fn quantised_operators_of_a_runtime() {
    let own = |op: &str, inputs: &[&str], outputs: &[&str], attributes: &[crate::onnx::AttributeProto]| {
        NodeProto { domain: "com.microsoft".to_owned(), ..with(op, inputs, outputs, attributes) }
    };
    let constants = || {
        vec![
            tensor("s", &[], &[0.5]),
            tensor("t", &[], &[0.25]),
            bytes("z", UINT8, &[], &[128]),
            bytes("c", UINT8, &[], &[132]),
            bytes("w", INT8, &[2, 4], &[2, -4, 6, 0, 1, 1, 1, 1]),
            tensor("ws", &[2], &[0.5, 0.25]),
            bytes("wz", INT8, &[2], &[0, 1]),
            bytes("b", INT32, &[2], &[8, -8]),
            integers("flat", &[1, -1]),
        ]
    };
    let quantise = with("QuantizeLinear", &["x", "s", "z"], &["q"], &[]);
    let back = |from: &str| with("DequantizeLinear", &[from, "t", "z"], &["y"], &[]);
    let x = [1.0, -2.0, 3.0, 0.5];
    let check = |nodes: Vec<NodeProto>, expected: &[f64], what: &str| {
        let nodes = [vec![quantise.clone()], nodes].concat();
        close(&run(&file(13, &[2, 2], nodes, constants(), &["y"]), &x).0[0], expected, what);
    };
    let add = own("QLinearAdd", &["q", "s", "z", "q", "s", "z", "t", "z"], &["a"], &[]);
    check(vec![add, back("a")], &x.map(|x| 2.0 * x), "QLinearAdd");
    // (132 - 128) / 4 = 1.
    let more = own("QLinearAdd", &["c", "t", "z", "q", "s", "z", "t", "z"], &["a"], &[]);
    check(vec![more, back("a")], &x.map(|x| x + 1.0), "QLinearAdd of a constant");
    // Constants too are written in the runtime's domain, and what has nothing else is refused by its name.
    let one = own("DequantizeLinear", &["c", "t", "z"], &["one"], &[]);
    let reals = own("DequantizeLinear", &["q", "s", "z"], &["f"], &[]);
    let nodes = vec![one, reals.clone(), with("Add", &["f", "one"], &["y"], &[])];
    check(nodes, &x.map(|x| x + 1.0), "DequantizeLinear of a constant");
    let none = own("QLinearAdd", &["c", "t", "z", "c", "t", "z", "t", "z"], &["a"], &[]);
    let seen = with("DequantizeLinear", &["a", "t", "z"], &["d"], &[]);
    let nodes = vec![quantise.clone(), reals, none, seen, with("Add", &["f", "d"], &["y"], &[])];
    assert!(refused(13, &[2, 2], nodes, constants()).contains("a (QLinearAdd)"));
    let times = own("QLinearMul", &["q", "s", "z", "c", "s", "z", "t", "z"], &["a"], &[]);
    check(vec![times, back("a")], &x.map(|x| 2.0 * x), "QLinearMul");
    let mean = |last: i64| {
        let attributes = [crate::tests::onnx::int("channels_last", last)];
        own("QLinearGlobalAveragePool", &["r", "s", "z", "t", "z"], &["a"], &attributes)
    };
    let image = with("Unsqueeze", &["q", "three"], &["r"], &[]);
    let three = with("Constant", &[], &["three"], &[ints("value_ints", &[3])]);
    check(vec![three.clone(), image.clone(), mean(0), back("a")], &[-0.5, 1.75], "QLinearGlobalAveragePool");
    let leaky = own("QLinearLeakyRelu", &["q", "s", "z", "t", "z"], &["a"], &[float("alpha", 0.5)]);
    check(vec![leaky, back("a")], &[1.0, -1.0, 3.0, 0.5], "QLinearLeakyRelu");
    let both = own(
        "QLinearConcat",
        &["t", "z", "q", "s", "z", "q", "s", "z"],
        &["a"],
        &[crate::tests::onnx::int("axis", 2)],
    );
    check(vec![both, back("a")], &[1.0, -2.0, 1.0, -2.0, 3.0, 0.5, 3.0, 0.5], "QLinearConcat");
    // Rows 1, -2, 3, 0 of 0.5 and four zeros, with biases 8 and -8 of the products of both scales.
    let rows = |scale: &[&str]| {
        let inputs = [&["f", "s", "z", "w", "ws", "wz", "b"], scale].concat();
        let flat = with("Reshape", &["q", "flat"], &["f"], &[]);
        vec![flat, own("QGemm", &inputs, &["a"], &[crate::tests::onnx::int("transB", 1)])]
    };
    let expected = [1.0 + 4.0 + 9.0 + 2.0, -1.0];
    check([rows(&["t", "z"]), vec![back("a")]].concat(), &expected, "QGemm");
    check(
        [rows(&[]), vec![with("Identity", &["a"], &["y"], &[])]].concat(),
        &expected,
        "QGemm of real numbers",
    );
    let last = |to| own("QLinearSigmoid", &["q", "s", "z", "t", "z"], &[to], &[]);
    check(vec![last("a"), back("a")], &x, "QLinearSigmoid");
    // Its integers are not what the device makes, and of another scale they are others.
    let nodes = |rest: &[NodeProto]| [std::slice::from_ref(&quantise), rest].concat();
    assert!(refused(13, &[2, 2], nodes(&[last("y")]), constants()).contains("DequantizeLinear"));
    let other = with("DequantizeLinear", &["a", "s", "z"], &["y"], &[]);
    assert!(refused(13, &[2, 2], nodes(&[last("a"), other]), constants()).contains("scale"));
    // The type of the result is that of its zero point.
    let no_type = own("QLinearAdd", &["q", "s", "z", "q", "s", "z", "t"], &["a"], &[]);
    assert!(refused(13, &[2, 2], nodes(&[no_type, back("a")]), constants()).contains("zero point"));
    let nodes = vec![quantise.clone(), three, image, mean(1), back("a")];
    assert!(refused(13, &[2, 2], nodes, constants()).contains("channels_last"));
}

#[test]
fn quantised_convolutions_with_biases_and_answers_in_integers() {
    let nodes = vec![
        with("QuantizeLinear", &["x", "s", "z"], &["q"], &[]),
        with(
            "QLinearConv",
            &["q", "s", "z", "w", "ws", "wz", "t", "z", "b"],
            &["y"],
            &[ints("pads", &[1, 0])],
        ),
    ];
    let constants = vec![
        tensor("s", &[], &[0.5]),
        bytes("z", UINT8, &[], &[128]),
        bytes("w", UINT8, &[2, 1, 2], &[130, 127, 128, 132]),
        tensor("ws", &[2], &[1.0, 0.25]),
        bytes("wz", UINT8, &[], &[128]),
        tensor("t", &[], &[0.125]),
        bytes("b", INT32, &[2], &[4, -8]),
    ];
    let x = [1.0, -2.0];
    // The padding is the real zero.
    let expected = [-x[0] + 2.0, 2.0 * x[0] - x[1] + 2.0, x[0] - 1.0, x[1] - 1.0].map(|y| y / 0.125 + 128.0);
    let (found, _) = run(&file(13, &[1, 2], nodes, constants, &["y"]), &x);
    close(&found[0], &expected, "QLinearConv");
}

#[test]
fn other_operators_on_integers_are_refused() {
    let nodes =
        vec![with("QuantizeLinear", &["x", "s", "z"], &["q"], &[]), with("Relu", &["q"], &["y"], &[])];
    let constants = vec![tensor("s", &[], &[0.5]), bytes("z", UINT8, &[], &[128])];
    assert!(refused(13, &[2], nodes, constants).contains("DequantizeLinear"));
    for op in ["ConvInteger", "MatMulInteger", "DynamicQuantizeLinear"] {
        assert!(refused(13, &[2], vec![with(op, &["x"], &["y"], &[])], vec![]).contains("quantised"));
    }
}

/// Sums of what ReLUs made with positive factors are not made positive once more.
#[test]
fn sums_of_relus_are_not_cut_off_again() {
    let constants = || {
        vec![
            tensor("s", &[], &[0.05]),
            bytes("z", UINT8, &[], &[0]),
            tensor("by", &[4], &[1.0, 1.0, 2.0, 2.0]),
            tensor("more", &[], &[0.5]),
            tensor("less", &[], &[-0.5]),
        ]
    };
    let relus = || {
        vec![
            with("Relu", &["x"], &["a"], &[]),
            with("Neg", &["x"], &["n"], &[]),
            with("Relu", &["n"], &["b"], &[]),
        ]
    };
    let linear = [text("mode", "linear")];
    let pool = [ints("kernel_shape", &[3, 3]), ints("pads", &[1; 4])];
    // ReLUs behind a node of what 1 or 2 of 64 values each made.
    for (node, expected) in [
        (with("Resize", &["a", "", "by"], &["v"], &linear), 64),
        (with("Concat", &["a", "b"], &["v"], &[int("axis", 1)]), 128),
        (with("Add", &["a", "b"], &["v"], &[]), 128),
        (with("Sum", &["a", "b", "a"], &["v"], &[]), 128),
        (with("AveragePool", &["a"], &["v"], &pool), 64),
        (with("ReduceL1", &["x"], &["v"], &[ints("axes", &[1])]), 128),
        // These may be negative, or have constants, which are not looked at.
        (with("Add", &["a", "more"], &["v"], &[]), 128),
        (with("Add", &["a", "less"], &["v"], &[]), 128),
        // What the sum of a ReLU and its input comes to, and is a ReLU again.
        (with("Sub", &["a", "b"], &["v"], &[]), 64),
        (with("Sub", &["b", "x"], &["v"], &[]), 64),
        (with("Concat", &["a", "x"], &["v"], &[int("axis", 1)]), 192),
    ] {
        let quantised = vec![
            node.clone(),
            with("QuantizeLinear", &["v", "s", "z"], &["q"], &[]),
            with("DequantizeLinear", &["q", "s", "z"], &["y"], &[]),
        ];
        let nodes = [relus(), quantised].concat();
        let x: Vec<f64> = super::numbers(64, 4);
        let (found, real) = run(&file(13, &[1, 8, 8], nodes, constants(), &["y"]), &x);
        let cut = vec![node.clone(), with("Relu", &["v"], &["y"], &[])];
        let (same, _) = run(&file(13, &[1, 8, 8], [relus(), cut].concat(), constants(), &["y"]), &x);
        close(&found[0], &same[0], &node.op_type);
        assert_eq!(counts(&real).1, expected, "{}", node.op_type);
    }
}
