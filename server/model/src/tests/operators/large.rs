//! Large constants: those of networks that people have, and those that a file of a few bytes only speaks of.

use super::{file, integers, options, tensor, with};
use crate::onnx::{NodeProto, TensorProto, attribute_type};
use crate::real::{Real, RealOp};
use crate::tests::onnx::{attribute, int, quickly};
use crate::{Error, MAX_VALUES, read};

/// A matrix of more values than are computed of constants.
const INPUTS: usize = 1 << 16;
const OUTPUTS: usize = MAX_VALUES / INPUTS + 8;

/// `name`, of the shape that constant `shape` says and of nothing but halves.
fn halves(name: &str, shape: &str) -> NodeProto {
    let value = crate::onnx::AttributeProto {
        t: Some(tensor("", &[1], &[0.5])),
        ..attribute("value", attribute_type::TENSOR)
    };
    with("ConstantOfShape", &[shape], &[name], &[value])
}

fn sums_halves(real: &Real) {
    let x: Vec<f64> = (0..INPUTS).map(|i| f64::from(i as u32 % 7)).collect();
    let half = x.iter().sum::<f64>() / 2.0;
    let answer = real.run(&x, |_, _| ()).unwrap().concat();
    assert_eq!(answer.len(), OUTPUTS);
    assert!(answer.iter().all(|&y| (y - half).abs() < 1e-6 * half), "{} {half}", answer[0]);
    assert_eq!(real.nodes.iter().filter(|node| matches!(node.op, RealOp::Linear(_))).count(), 1);
}

/// As in ONNX's own light copies of large networks.
#[test]
fn a_layer_may_have_many_weights_that_are_one_number() {
    let shape = integers("s", &[OUTPUTS as i64, INPUTS as i64]);
    let gemm = with("Gemm", &["x", "w"], &["y"], &[int("transB", 1)]);
    let made = file(13, &[INPUTS], vec![halves("w", "s"), gemm], vec![shape], &["y"]);
    sums_halves(&quickly(|| read(&made, &options())).unwrap());
}

/// Weights that a file really has, of a byte each.
#[test]
fn a_file_may_have_many_weights() {
    if std::env::var_os("SECO_SLOW").is_none() {
        eprintln!("skipped: set SECO_SLOW=1");
        return;
    }
    let dims = [INPUTS as i64, OUTPUTS as i64].to_vec();
    let stored = TensorProto {
        name: "q".to_owned(),
        dims,
        data_type: 3,
        raw_data: vec![2; INPUTS * OUTPUTS],
        ..Default::default()
    };
    let nodes =
        vec![with("DequantizeLinear", &["q", "t"], &["w"], &[]), with("MatMul", &["x", "w"], &["y"], &[])];
    let made = file(13, &[INPUTS], nodes, vec![stored, tensor("t", &[], &[0.25])], &["y"]);
    sums_halves(&quickly(|| read(&made, &options())).unwrap());
}

/// What is said of a file, soon.
fn said(nodes: Vec<NodeProto>, constants: Vec<TensorProto>) -> String {
    let made = file(21, &[4], nodes, constants, &["y"]);
    let error = quickly(|| read(&made, &options())).unwrap_err();
    assert!(!matches!(error, Error::Shape(_)) && error.to_string().lines().count() == 1, "{error}");
    error.to_string()
}

#[test]
fn files_of_a_few_bytes_do_not_become_large() {
    let square = integers("s", &[1 << 13, 1 << 13]);
    // Nothing but a layer has use for so many.
    for op in ["Neg", "Transpose", "Cast"] {
        let attributes = if op == "Cast" { vec![int("to", 1)] } else { vec![] };
        let nodes = vec![
            halves("w", "s"),
            with(op, &["w"], &["v"], &attributes),
            with("MatMul", &["x", "v"], &["y"], &[]),
        ];
        let text = said(nodes, vec![square.clone()]);
        assert!(text.contains(&format!("v ({op})")) && text.contains("only a layer's weights"), "{text}");
    }
    // More than any.
    let nodes = vec![halves("w", "s"), with("MatMul", &["x", "w"], &["y"], &[])];
    let text = said(nodes, vec![integers("s", &[1 << 14, 1 << 14])]);
    assert!(text.contains("w (ConstantOfShape)") && text.contains("are possible"), "{text}");
    // Elements of a quarter of a byte: 32 million of them together are 8 MB of a file and 268 MB in memory.
    let quarters = |name: &str| TensorProto {
        name: name.to_owned(),
        dims: vec![1 << 25],
        data_type: 26,
        raw_data: vec![0; 1 << 23],
        ..Default::default()
    };
    let names = ["a", "b", "c"];
    let nodes = vec![with("Sum", &["x", "a", "b", "c"], &["y"], &[])];
    let text = said(nodes, names.map(quarters).to_vec());
    assert!(text.contains("92274688 values together"), "{text}");
}
