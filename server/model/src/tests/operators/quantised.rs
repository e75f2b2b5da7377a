//! Quantised networks as phones have them: the real numbers behind their integers.

use super::{close, counts, file, refused, run, tensor, with};
use crate::onnx::TensorProto;
use crate::tests::onnx::ints;

/// A constant of bytes: UINT8, INT8 or INT32.
fn bytes(name: &str, kind: i32, dims: &[usize], values: &[i32]) -> TensorProto {
    TensorProto {
        name: name.to_owned(),
        dims: dims.iter().map(|&d| d as i64).collect(),
        data_type: kind,
        int32_data: values.to_vec(),
        ..Default::default()
    }
}

const UINT8: i32 = 2;
const INT8: i32 = 3;
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
