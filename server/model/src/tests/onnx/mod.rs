//! Tests of reading ONNX files.

mod damage;
mod folding;
mod frames;
mod functions;
mod moving;
mod mutated;
mod small;
mod stored;

use std::time::{Duration, Instant};

use prost::Message;

use crate::Error;
use crate::onnx::constants::Folding;
use crate::onnx::file::{Parsed, parse};
use crate::onnx::tensor::{Element, Tensor};
use crate::onnx::{
    AttributeProto, DimensionProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, TensorProto,
    TensorShapeProto, TensorTypeProto, TypeProto, ValueInfoProto, attribute_type,
};

pub fn node(op: &str, inputs: &[&str], outputs: &[&str]) -> NodeProto {
    let names = |names: &[&str]| names.iter().map(|&n| n.to_owned()).collect();
    NodeProto { op_type: op.to_owned(), input: names(inputs), output: names(outputs), ..Default::default() }
}

pub fn tensor(name: &str, dims: &[usize], values: &[f32]) -> TensorProto {
    TensorProto {
        name: name.to_owned(),
        dims: dims.iter().map(|&d| d as i64).collect(),
        data_type: 1,
        raw_data: values.iter().flat_map(|v| v.to_le_bytes()).collect(),
        ..Default::default()
    }
}

pub fn value(name: &str, shape: &[usize]) -> ValueInfoProto {
    let dim = |&d: &usize| DimensionProto { dim_value: Some(d as i64) };
    let shape = TensorShapeProto { dim: shape.iter().map(dim).collect() };
    let tensor_type = Some(TensorTypeProto { elem_type: 1, shape: Some(shape) });
    ValueInfoProto { name: name.to_owned(), r#type: Some(TypeProto { tensor_type }) }
}

/// `y = relu(x + w)`, its nodes in the wrong order.
pub fn sum() -> ModelProto {
    let graph = GraphProto {
        name: "sum".to_owned(),
        node: vec![node("Relu", &["t"], &["y"]), node("Add", &["x", "w"], &["t"])],
        initializer: vec![tensor("w", &[4], &[1.0, 2.0, 3.0, 4.0])],
        input: vec![value("x", &[1, 4])],
        output: vec![value("y", &[1, 4])],
        ..Default::default()
    };
    let opset_import = vec![OperatorSetIdProto { domain: String::new(), version: 17 }];
    ModelProto { graph: Some(graph), opset_import, ..Default::default() }
}

pub fn changed(change: impl FnOnce(&mut GraphProto)) -> Result<Parsed, Error> {
    let mut model = sum();
    change(model.graph.as_mut().unwrap());
    parse(&model.encode_to_vec(), None)
}

/// What is said about a file, in one line.
pub fn said(result: Result<Parsed, Error>) -> String {
    let text = result.err().unwrap().to_string();
    assert_eq!(text.lines().count(), 1, "{text}");
    text
}

/// Runs what must take milliseconds; the bound leaves room for a busy machine.
pub fn quickly<T>(run: impl FnOnce() -> T) -> T {
    let start = Instant::now();
    let result = run();
    assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
    result
}

pub fn attribute(name: &str, kind: i32) -> AttributeProto {
    AttributeProto { name: name.to_owned(), r#type: kind, ..Default::default() }
}

pub fn int(name: &str, i: i64) -> AttributeProto {
    AttributeProto { i, ..attribute(name, attribute_type::INT) }
}

pub fn ints(name: &str, ints: &[i64]) -> AttributeProto {
    AttributeProto { ints: ints.to_vec(), ..attribute(name, attribute_type::INTS) }
}

pub fn float(name: &str, f: f32) -> AttributeProto {
    AttributeProto { f, ..attribute(name, attribute_type::FLOAT) }
}

pub fn text(name: &str, s: &str) -> AttributeProto {
    AttributeProto { s: s.as_bytes().to_vec(), ..attribute(name, attribute_type::STRING) }
}

pub fn f(shape: &[usize], values: &[f64]) -> Tensor {
    Tensor::floats(shape.to_vec(), values.to_vec())
}

pub fn i(shape: &[usize], values: &[i64]) -> Tensor {
    Tensor::ints(shape.to_vec(), values.to_vec())
}

pub fn of(element: Element, shape: &[usize], values: &[i64]) -> Tensor {
    Tensor::from_ints(element, shape.to_vec(), values.to_vec())
}

/// A list of integers.
pub fn l(values: &[i64]) -> Tensor {
    i(&[values.len()], values)
}

/// 0, 1, 2, ... in a shape.
pub fn count(shape: &[usize]) -> Tensor {
    let len: usize = shape.iter().product();
    Tensor::floats(shape.to_vec(), (0..len).map(|v| v as f64).collect())
}

/// A node with inputs `i0`, `i1`, ...; one that is left out has no name.
pub fn call(
    op: &str,
    attributes: &[AttributeProto],
    inputs: &[Option<&Tensor>],
    outputs: usize,
) -> NodeProto {
    let names: Vec<String> =
        inputs.iter().enumerate().map(|(n, i)| i.map_or(String::new(), |_| format!("i{n}"))).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let results = ["o0", "o1", "o2", "o3"];
    NodeProto { attribute: attributes.to_vec(), ..node(op, &names, &results[..outputs]) }
}

pub fn fold_some(
    op: &str,
    attributes: &[AttributeProto],
    inputs: &[Option<&Tensor>],
    opset: i64,
    outputs: usize,
) -> Result<Option<Vec<Tensor>>, Error> {
    Folding::default().fold(&call(op, attributes, inputs, outputs), inputs, opset)
}

pub fn fold(op: &str, attributes: &[AttributeProto], inputs: &[&Tensor], opset: i64) -> Tensor {
    let inputs: Vec<_> = inputs.iter().copied().map(Some).collect();
    let mut result = fold_some(op, attributes, &inputs, opset, 1).unwrap().unwrap();
    assert_eq!(result.len(), 1);
    result.remove(0)
}

pub fn refused(op: &str, attributes: &[AttributeProto], inputs: &[&Tensor], opset: i64) -> String {
    let inputs: Vec<_> = inputs.iter().copied().map(Some).collect();
    let text = fold_some(op, attributes, &inputs, opset, 1).unwrap_err().to_string();
    assert!(text.starts_with(&format!("ONNX node o0 ({op}): ")) && text.lines().count() == 1, "{text}");
    text
}
