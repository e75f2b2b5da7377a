//! ReLU and what is made of it, value by value.

use super::{answer, close, counts, file, refused, run, tensor, with};
use crate::onnx::AttributeProto;
use crate::tests::onnx::{float, int};

const X: [f64; 9] = [-7.0, -3.0, -1.0, -0.25, 0.0, 0.25, 1.0, 3.0, 7.0];

fn check(op: &str, opset: i64, attributes: &[AttributeProto], inputs: &[f64], expected: impl Fn(f64) -> f64) {
    let names: Vec<String> = (0..inputs.len()).map(|i| format!("c{i}")).collect();
    let constants: Vec<_> = names.iter().zip(inputs).map(|(name, v)| tensor(name, &[], &[*v])).collect();
    let all: Vec<&str> = ["x"].into_iter().chain(names.iter().map(String::as_str)).collect();
    let nodes = vec![with(op, &all, &["y"], attributes)];
    let expected: Vec<f64> = X.iter().map(|&x| expected(x)).collect();
    close(&answer(opset, &[9], nodes, constants, &X), &expected, op);
}

#[test]
fn all_are_what_their_definitions_say() {
    check("Relu", 13, &[], &[], |x| x.max(0.0));
    check("Abs", 13, &[], &[], f64::abs);
    check("Neg", 13, &[], &[], |x| -x);
    check("LeakyRelu", 16, &[float("alpha", 0.25)], &[], |x| if x < 0.0 { x * 0.25 } else { x });
    check("LeakyRelu", 16, &[], &[], |x| if x < 0.0 { x * f64::from(0.01f32) } else { x });
    check("LeakyRelu", 16, &[float("alpha", -0.5)], &[], |x| if x < 0.0 { x * -0.5 } else { x });
    check("LeakyRelu", 16, &[float("alpha", 2.0)], &[], |x| if x < 0.0 { x * 2.0 } else { x });
    check("LeakyRelu", 16, &[float("alpha", 0.0)], &[], |x| x.max(0.0));
    check("LeakyRelu", 16, &[float("alpha", 1.0)], &[], |x| x);
    check("HardSigmoid", 6 + 7, &[float("alpha", 0.25), float("beta", 0.5)], &[], |x| {
        (x * 0.25 + 0.5).clamp(0.0, 1.0)
    });
    check("PRelu", 16, &[], &[0.5], |x| if x < 0.0 { x * 0.5 } else { x });
    check("Max", 13, &[], &[1.5], |x| x.max(1.5));
    check("Max", 13, &[], &[1.5, -2.0], |x| x.max(1.5));
    check("Max", 13, &[], &[f64::NEG_INFINITY], |x| x);
    check("Min", 13, &[], &[1.5], |x| x.min(1.5));
    check("Min", 13, &[], &[f64::INFINITY, 0.5], |x| x.min(0.5));
}

/// What several nodes make of one value is made by as few ReLUs of it as do.
#[test]
fn chains_of_activations_take_few_relus() {
    let x = [-4.0, -1.0, 0.5, 8.0];
    let leaky = |x: f64| if x < 0.0 { x * 0.25 } else { x };
    let slope = float("alpha", 0.25);
    type Case<'a> = (Vec<crate::onnx::NodeProto>, &'a dyn Fn(f64) -> f64, usize);
    let cases: [Case<'_>; 3] = [
        (
            vec![
                with("LeakyRelu", &["x"], &["v"], std::slice::from_ref(&slope)),
                with("Max", &["v", "c"], &["y"], &[]),
            ],
            &|x| leaky(x).max(-0.5),
            2,
        ),
        (
            vec![with("Relu", &["x"], &["v"], &[]), with("Clip", &["v", "z", "d"], &["y"], &[])],
            &|x| x.clamp(0.0, 2.0),
            2,
        ),
        (
            vec![with("Relu", &["x"], &["v"], &[]), with("LeakyRelu", &["v"], &["y"], &[slope])],
            &|x| x.max(0.0),
            1,
        ),
    ];
    for (i, (nodes, expected, relus)) in cases.into_iter().enumerate() {
        let constants = vec![tensor("c", &[], &[-0.5]), tensor("z", &[], &[0.0]), tensor("d", &[], &[2.0])];
        let (found, real) = run(&file(13, &[4], nodes, constants, &["y"]), &x);
        close(&found[0], &x.map(expected), "chain");
        assert_eq!(counts(&real).1, 4 * relus, "{i}");
    }
}

#[test]
fn values_are_cut_at_bounds_of_every_form() {
    check("Clip", 10, &[float("min", 0.0), float("max", 6.0)], &[], |x| x.clamp(0.0, 6.0));
    check("Clip", 10, &[float("max", 2.0)], &[], |x| x.min(2.0));
    check("Clip", 10, &[], &[], |x| x);
    check("Clip", 13, &[], &[-1.0, 2.0], |x| x.clamp(-1.0, 2.0));
    check("Clip", 13, &[], &[-1.0], |x| x.max(-1.0));
    check("Clip", 13, &[], &[f64::from(f32::MIN), 2.0], |x| x.min(2.0));
    check("Clip", 13, &[], &[0.0, f64::INFINITY], |x| x.max(0.0));
    // With its bounds the wrong way round it is the upper one.
    check("Clip", 13, &[], &[2.0, 1.0], |_| 1.0);
    let only_max = vec![with("Clip", &["x", "", "c"], &["y"], &[])];
    close(
        &answer(13, &[2], only_max, vec![tensor("c", &[], &[1.0])], &[3.0, -3.0]),
        &[1.0, -3.0],
        "only max",
    );
    let constants = vec![tensor("c", &[2], &[1.0, 2.0])];
    refused(13, &[2], vec![with("Clip", &["x", "c"], &["y"], &[])], constants);
}

#[test]
fn slopes_are_by_channel_and_of_any_sign() {
    let x: Vec<f64> = (0..12).map(|i| f64::from(i) - 6.0).collect();
    for dims in [vec![3, 1, 1], vec![1, 3, 1, 1]] {
        let slopes = [0.5, -0.25, 0.0];
        let nodes = vec![with("PRelu", &["x", "s"], &["y"], &[])];
        let expected: Vec<f64> =
            x.iter().enumerate().map(|(i, &x)| if x < 0.0 { x * slopes[i / 4] } else { x }).collect();
        close(&answer(16, &[3, 2, 2], nodes, vec![tensor("s", &dims, &slopes)], &x), &expected, "PRelu");
    }
}

#[test]
fn extremes_of_several_values_are_taken_by_pairs() {
    let nodes = |op: &str| {
        vec![
            with("Neg", &["x"], &["a"], &[]),
            with("Slice", &["x", "from", "to"], &["b"], &[]),
            with(op, &["x", "a", "b", "c"], &["y"], &[]),
        ]
    };
    let constants = || {
        let index = super::integers;
        // The bound differs from value to value.
        vec![index("from", &[0, 0]), index("to", &[1, 1]), tensor("c", &[1, 3], &[0.5, 3.0, -3.0])]
    };
    let x = [2.0, -1.0, 0.25];
    close(&answer(13, &[3], nodes("Max"), constants(), &x), &[2.0, 3.0, 2.0], "Max");
    close(&answer(13, &[3], nodes("Min"), constants(), &x), &[-2.0, -1.0, -3.0], "Min");
}

#[test]
fn curves_and_products_are_refused_with_what_could_replace_them() {
    for op in ["Elu", "Exp", "Erf", "Softplus", "Sqrt", "Gelu"] {
        assert!(refused(20, &[4], vec![with(op, &["x"], &["y"], &[])], vec![]).contains("Relu"), "{op}");
    }
    for op in ["LRN", "InstanceNormalization", "LayerNormalization"] {
        let text = refused(17, &[4, 2, 2], vec![with(op, &["x"], &["y"], &[int("size", 3)])], vec![]);
        assert!(text.contains("BatchNormalization"), "{text}");
    }
    for op in ["LSTM", "GRU", "If", "Loop", "TopK", "Where", "Einsum", "Nonsense"] {
        let text = refused(17, &[4], vec![with(op, &["x"], &["y"], &[])], vec![]);
        assert!(text.contains(&format!("ONNX node y ({op})")), "{text}");
    }
    let gate = vec![with("Sigmoid", &["x"], &["s"], &[]), with("Mul", &["x", "s"], &["y"], &[])];
    assert!(refused(17, &[4], gate, vec![]).contains("both its factors"));
    for op in ["Mul", "MatMul"] {
        let text = refused(17, &[1], vec![with(op, &["x", "x"], &["y"], &[])], vec![]);
        assert!(text.contains("both its factors"), "{text}");
    }
    let other = vec![crate::onnx::NodeProto {
        domain: "com.microsoft".to_owned(),
        ..with("FusedConv", &["x"], &["y"], &[])
    }];
    assert!(refused(17, &[1], other, vec![]).contains("runtime"));
}
