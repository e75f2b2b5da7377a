//! What quantised types cannot hold, and the ends of quantised networks.

use super::quantised::{INT8, UINT8, bytes};
use super::{close, counts, file, integers, refused, run, tensor, with};
use crate::graph::Last;
use crate::tests::onnx::int;

/// A Clip that a converter left out is where a type of a layer's result ends, at a round number.
#[test]
fn a_clip_that_was_left_out_is_done() {
    for (low, high, kind) in [(-1.0, 1.0, INT8), (-0.7, 0.4, UINT8), (-0.5, 2.0382, INT8), (0.0, 3.0, UINT8)]
    {
        let (least, steps) = (if kind == INT8 { -128 } else { 0 }, 255.0);
        let scale: f64 = (high - low) / steps;
        let zero = least + (-low / scale).round() as i32;
        let constants = vec![
            tensor("w", &[2, 3], &[1.0, -1.0, 0.25, 2.0, -2.0, 0.125]),
            tensor("s", &[], &[scale]),
            bytes("z", kind, &[], &[zero]),
        ];
        let nodes = vec![
            with("MatMul", &["x", "w"], &["m"], &[]),
            with("QuantizeLinear", &["m", "s", "z"], &["q"], &[]),
            with("DequantizeLinear", &["q", "s", "z"], &["y"], &[]),
        ];
        let (found, _) = run(&file(13, &[2], nodes, constants, &["y"]), &[1.0, 1.5]);
        // One end is round, the other where a calibration ended.
        let high = if high == 2.0382 { f64::INFINITY } else { high };
        let wanted: Vec<f64> = [4.0, -4.0, 0.4375].iter().map(|y: &f64| y.clamp(low, high)).collect();
        close(&found[0], &wanted, &format!("{low} to {high}"));
    }
    // Behind what was cut already, or at ends that are not round, nothing is.
    for (nodes, scale) in [
        (
            vec![with("Relu", &["m"], &["r"], &[]), with("QuantizeLinear", &["r", "s", "z"], &["q"], &[])],
            0.02,
        ),
        (vec![with("QuantizeLinear", &["m", "s", "z"], &["q"], &[])], 0.0123),
    ] {
        let zero = if nodes.len() == 2 { 0 } else { 100 };
        let first = with("MatMul", &["x", "w"], &["m"], &[]);
        let last = with("DequantizeLinear", &["q", "s", "z"], &["y"], &[]);
        let constants = vec![
            tensor("w", &[2, 1], &[1.0, -1.0]),
            tensor("s", &[], &[scale]),
            bytes("z", UINT8, &[], &[zero]),
        ];
        let relus = nodes.len() - 1;
        let nodes = [vec![first], nodes, vec![last]].concat();
        let (_, real) = run(&file(13, &[2], nodes, constants, &["y"]), &[1.0, 3.0]);
        assert_eq!(counts(&real).1, relus);
    }
}

/// What is quantised behind what the device does last.
#[test]
fn ends_that_are_quantised_are_taken_for_real() {
    for (op, last) in [("Sigmoid", Last::Sigmoid), ("Softmax", Last::Softmax)] {
        let nodes = vec![
            with("MatMul", &["x", "w"], &["m"], &[]),
            with(op, &["m"], &["e"], &[]),
            with("QuantizeLinear", &["e", "s", "z"], &["q"], &[]),
            with("DequantizeLinear", &["q", "s", "z"], &["y"], &[]),
        ];
        let constants = || {
            vec![
                tensor("w", &[2, 2], &[1.0, -1.0, 0.5, 2.0]),
                tensor("s", &[], &[1.0 / 256.0]),
                bytes("z", UINT8, &[], &[0]),
                tensor("t", &[], &[0.5]),
            ]
        };
        let (found, real) = run(&file(13, &[2], nodes.clone(), constants(), &["y"]), &[1.0, 2.0]);
        close(&found[0], &[2.0, 3.0], op);
        assert_eq!(real.outputs[0].last, last);
        // Integers in place of probabilities, and those of another scale, are none.
        let text = refused(
            13,
            &[2],
            [&nodes[..2], &[with("QuantizeLinear", &["e", "s", "z"], &["y"], &[])]].concat(),
            constants(),
        );
        assert!(text.contains("DequantizeLinear"), "{text}");
        let other = with("DequantizeLinear", &["q", "t", "z"], &["y"], &[]);
        let text = refused(13, &[2], [&nodes[..3], &[other]].concat(), constants());
        assert!(text.contains("its scale is not that"), "{text}");
    }
}

/// An index is no number on a scale, and what it is chosen by is not cut for it.
#[test]
fn an_index_is_not_quantised() {
    let nodes = vec![
        with("MatMul", &["x", "w"], &["m"], &[]),
        with("ArgMax", &["m"], &["a"], &[int("axis", 1)]),
        with("Cast", &["a"], &["c"], &[int("to", 1)]),
        with("QuantizeLinear", &["c", "s", "z"], &["q"], &[]),
        with("DequantizeLinear", &["q", "s", "z"], &["y"], &[]),
    ];
    let constants = vec![
        tensor("w", &[2, 3], &[-1.0, -2.0, -0.5, -0.5, -1.0, -2.0]),
        tensor("s", &[], &[1.0]),
        bytes("z", UINT8, &[], &[0]),
    ];
    let text = refused(13, &[2], nodes, constants);
    assert!(text.contains("QuantizeLinear") && text.contains("ArgMax"), "{text}");
}

/// ONNX Runtime pads integers, with what stands for the number.
#[test]
fn integers_are_padded() {
    let nodes = |inputs: &[&str]| {
        vec![
            with("QuantizeLinear", &["x", "s", "z"], &["q"], &[]),
            with("Pad", inputs, &["p"], &[]),
            with("DequantizeLinear", &["p", "s", "z"], &["y"], &[]),
        ]
    };
    let constants = || {
        vec![
            tensor("s", &[], &[0.5]),
            bytes("z", UINT8, &[], &[10]),
            bytes("v", UINT8, &[], &[13]),
            integers("a", &[0, 1, 0, 2]),
        ]
    };
    for (inputs, fill) in [(&["q", "a", "v"][..], 1.5), (&["q", "a", "z"], 0.0), (&["q", "a"], -5.0)] {
        let (found, _) = run(&file(13, &[2], nodes(inputs), constants(), &["y"]), &[1.0, 2.0]);
        close(&found[0], &[fill, 1.0, 2.0, fill, fill], "padded");
    }
}
