//! Tests of the operators on values that depend on the input, and of the passes behind them: every network is run as it
//! was read and as the passes leave it.

mod activations;
mod classical;
mod einsum;
mod endings;
mod large;
mod layers;
mod moves;
mod names;
mod picking;
mod pools;
mod quantised;
mod resizing;
mod rewriting;
mod saturation;
mod spoilt;
mod survey;
mod work;

use prost::Message;
use rand_core::Rng;

use super::onnx::{node, value};
use super::{generator, passed};
use crate::onnx::{AttributeProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, TensorProto, walk};
use crate::real::{Real, RealOp};
use crate::{Error, ImportOptions, Normalisation, read};

/// A node with attributes, its name being that of its first output.
pub fn with(op: &str, inputs: &[&str], outputs: &[&str], attributes: &[AttributeProto]) -> NodeProto {
    NodeProto { attribute: attributes.to_vec(), name: outputs[0].to_owned(), ..node(op, inputs, outputs) }
}

/// A FLOAT constant.
pub fn tensor(name: &str, dims: &[usize], values: &[f64]) -> TensorProto {
    let values: Vec<f32> = values.iter().map(|&v| v as f32).collect();
    super::onnx::tensor(name, dims, &values)
}

/// An INT64 constant with one axis.
pub fn integers(name: &str, values: &[i64]) -> TensorProto {
    TensorProto {
        name: name.to_owned(),
        dims: vec![values.len() as i64],
        data_type: 7,
        int64_data: values.to_vec(),
        ..Default::default()
    }
}

/// Numbers that single precision holds, from -1 to 1.
pub fn numbers(count: usize, seed: u64) -> Vec<f64> {
    let mut rng = generator(seed);
    (0..count).map(|_| f64::from(rng.next_u32() >> 20) / 2048.0 - 1.0).collect()
}

/// A file with the input `x` of this shape, the batch apart.
pub fn file(
    opset: i64,
    shape: &[usize],
    nodes: Vec<NodeProto>,
    constants: Vec<TensorProto>,
    outputs: &[&str],
) -> Vec<u8> {
    let graph = GraphProto {
        name: "net".to_owned(),
        node: nodes,
        initializer: constants,
        input: vec![value("x", &[&[1], shape].concat())],
        output: outputs.iter().map(|name| value(name, &[1])).collect(),
        ..Default::default()
    };
    let opset_import = vec![OperatorSetIdProto { domain: String::new(), version: opset }];
    ModelProto { graph: Some(graph), opset_import, ..Default::default() }.encode_to_vec()
}

/// The device's numbers are the network's.
pub fn options() -> ImportOptions {
    let normalisation = Normalisation { scale: 1.0, ..Default::default() };
    ImportOptions { normalisation, ..Default::default() }
}

pub fn close(found: &[f64], expected: &[f64], what: &str) {
    assert_eq!(found.len(), expected.len(), "{what}: number of values");
    for (i, (a, b)) in found.iter().zip(expected).enumerate() {
        assert!((a - b).abs() <= 1e-5 * (1.0 + b.abs()), "{what}: value {i} is {a} and not {b}");
    }
}

/// The answers of a file, the same as it was read and behind the passes, and the network behind them.
pub fn run(file: &[u8], x: &[f64]) -> (Vec<Vec<f64>>, Real) {
    let plain = walk(file, &options()).unwrap();
    let real = read(file, &options()).unwrap();
    passed(&real).unwrap();
    let first = plain.run(x, |_, _| ()).unwrap();
    let second = real.run(x, |_, _| ()).unwrap();
    assert_eq!(first.len(), second.len());
    for (output, (first, second)) in real.outputs.iter().zip(first.iter().zip(&second)) {
        assert_eq!(output.shape.iter().product::<usize>(), second.len());
        close(second, first, "behind the passes");
    }
    (second, real)
}

/// The only answer of `y = nodes(x)`.
pub fn answer(
    opset: i64,
    shape: &[usize],
    nodes: Vec<NodeProto>,
    constants: Vec<TensorProto>,
    x: &[f64],
) -> Vec<f64> {
    run(&file(opset, shape, nodes, constants, &["y"]), x).0.concat()
}

/// What is said about a file that is refused, in one line that names the node.
pub fn refused(opset: i64, shape: &[usize], nodes: Vec<NodeProto>, constants: Vec<TensorProto>) -> String {
    let error = read(&file(opset, shape, nodes, constants, &["y"]), &options()).unwrap_err();
    assert!(matches!(error, Error::Node { .. }), "{error}");
    let text = error.to_string();
    assert!(text.lines().count() == 1 && text.contains(": "), "{text}");
    text
}

/// Number of layers, and of values that go through ReLUs and are rounded.
pub fn counts(real: &Real) -> (usize, usize, usize) {
    let mut counts = (0, 0, 0);
    for (number, node) in real.nodes.iter().enumerate() {
        match &node.op {
            RealOp::Linear(_) => counts.0 += 1,
            RealOp::Relu { .. } => counts.1 += real.len(number + 1),
            RealOp::Round { .. } => counts.2 += real.len(number + 1),
            _ => {}
        }
    }
    counts
}
