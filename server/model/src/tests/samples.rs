//! Small models in fixed point, written out.

use super::generator;
use crate::graph::{Last, Output, Window};
use crate::{Conv, Dense, FixedLayer, FixedModel, Gather, Geometry, Graph, InputSpec, Node, Op, Term};
use rand_core::Rng;

/// A node.
pub fn node(name: &str, width: u32, op: Op) -> Node {
    Node { name: name.to_owned(), width, op }
}

/// The only output, of `len` values.
pub fn output(len: usize, fraction: i32) -> Vec<Output> {
    vec![Output { name: "y".to_owned(), shape: vec![len], scale: 2f64.powi(-fraction), last: Last::Nothing }]
}

/// One matrix entry and a bias, a ReLU with a shift of 2, and a matrix of 1. `widths` are those of the two layers.
pub fn tiny(weight: i32, bias: i64, widths: [u32; 2]) -> FixedModel {
    let dense = Geometry::Dense(Dense { inputs: 1, outputs: 1 });
    let secret = |input| Op::Secret { input, geometry: dense.clone() };
    let nodes = vec![
        node("first", widths[0], secret(0)),
        node("relu", widths[1], Op::Relu { input: 1, shift: 2 }),
        node("second", widths[1], secret(2)),
    ];
    let graph =
        Graph { name: "tiny".to_owned(), input: InputSpec::new(vec![1], 8), nodes, outputs: output(1, 0) };
    let layer = |weight, bias| FixedLayer { weights: vec![weight], bias: vec![bias] };
    FixedModel { graph, layers: vec![layer(weight, bias), layer(1, 0)], known: Default::default() }
}

/// Three layers, a convolution with pooling behind it and two matrices, with a ReLU between any two.
pub fn model() -> FixedModel {
    let mut rng = generator(11);
    let mut words = |count: usize, bits: u32| -> Vec<i32> {
        (0..count).map(|_| rng.next_u32().cast_signed() >> (32 - bits)).collect()
    };
    let conv = Conv {
        input: [1, 6, 6],
        channels: 4,
        kernel: [3, 3],
        stride: [1; 2],
        dilation: [1; 2],
        pads: [1; 4],
        groups: 1,
    };
    let window = Window {
        input: [4, 6, 6],
        kernel: [2; 2],
        stride: [2; 2],
        dilation: [1; 2],
        pads: [0; 2],
        output: [3; 2],
    };
    let geometries = [
        Geometry::Conv(conv),
        Geometry::Dense(Dense { inputs: 36, outputs: 8 }),
        Geometry::Dense(Dense { inputs: 8, outputs: 3 }),
    ];
    let layers = geometries.each_ref().map(|g| FixedLayer {
        weights: words(g.weights(), 7),
        bias: words(g.outputs(), 12).into_iter().map(i64::from).collect(),
    });
    let [first, second, third] = geometries;
    let pooled = Op::Public {
        terms: vec![Term { value: 1, factor: 1, gather: Gather::Window(window) }],
        constant: 0,
        len: 36,
    };
    let nodes = vec![
        node("conv", 32, Op::Secret { input: 0, geometry: first }),
        node("pool", 32, pooled),
        node("relu1", 32, Op::Relu { input: 2, shift: 8 }),
        node("fc1", 32, Op::Secret { input: 3, geometry: second }),
        node("relu2", 32, Op::Relu { input: 4, shift: 6 }),
        node("fc2", 32, Op::Secret { input: 5, geometry: third }),
    ];
    let graph = Graph {
        name: "test".to_owned(),
        input: InputSpec::new(vec![1, 6, 6], 8),
        nodes,
        outputs: output(3, 6),
    };
    let mut model = FixedModel { graph, layers: layers.into(), known: Default::default() };
    model.calibrate(&[0, 90, 200, 255].repeat(9), crate::WidthRule::Calibrated).unwrap();
    model
}
