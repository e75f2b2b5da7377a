//! Names of layers: two have the same only if one is a copy of the other.

use super::{file, numbers, options, tensor, with};
use crate::onnx::NodeProto;
use crate::read;
use crate::real::RealOp;
use crate::tests::onnx::ints;

fn layers(nodes: Vec<NodeProto>, outputs: &[&str]) -> Vec<String> {
    let constants = vec![
        tensor("w", &[4, 4, 1, 1], &numbers(16, 1)),
        tensor("v", &[4, 4, 1, 1], &numbers(16, 2)),
        tensor("s", &[4], &[1.5, -0.5, 2.0, 0.25]),
        tensor("t", &[4], &[0.5, -3.0, 1.0, 7.0]),
        tensor("o", &[4], &[1.0, -1.0, 0.5, 3.0]),
        tensor("m", &[4], &[0.5, 0.25, -1.0, 2.0]),
        tensor("p", &[4], &[1.0, 4.0, 0.5, 2.0]),
    ];
    let real = read(&file(15, &[4, 2, 2], nodes, constants, outputs), &options()).unwrap();
    let linear = real.nodes.iter().filter(|node| matches!(node.op, RealOp::Linear(_)));
    linear.map(|node| node.origin.name.clone()).collect()
}

fn conv(from: &str, to: &str, weights: &str) -> NodeProto {
    with("Conv", &[from, weights], &[to], &[ints("pads", &[0; 4])])
}

fn relu(from: &str, to: &str) -> NodeProto {
    with("Relu", &[from], &[to], &[])
}

fn norm(from: &str, to: &str, gain: &str) -> NodeProto {
    with("BatchNormalization", &[from, gain, "o", "m", "p"], &[to], &[])
}

#[test]
fn layers_of_one_name_are_copies() {
    // Names in a file need not be different.
    let named = |node: NodeProto| NodeProto { name: "conv".to_owned(), ..node };
    let twice = vec![named(conv("x", "a", "w")), relu("a", "b"), named(conv("b", "y", "v"))];
    assert_eq!(layers(twice, &["y"]), ["conv", "conv 2"]);
    // One that has the number already keeps it.
    let third = NodeProto { name: "conv 2".to_owned(), ..conv("d", "y", "w") };
    let thrice =
        vec![named(conv("x", "a", "w")), relu("a", "b"), named(conv("b", "c", "v")), relu("c", "d"), third];
    assert_eq!(layers(thrice, &["y"]), ["conv", "conv 3", "conv 2"]);
    // Where another reads what is scaled too, the layer is there twice.
    let both = vec![conv("x", "a", "w"), norm("a", "n", "s"), relu("n", "y"), relu("a", "z")];
    assert_eq!(layers(both, &["y", "z"]), ["a", "a"]);
    // Two scales of one value are two layers.
    let scales = vec![
        conv("x", "a", "w"),
        relu("a", "r"),
        norm("r", "n", "s"),
        norm("r", "k", "t"),
        relu("n", "y"),
        relu("k", "z"),
    ];
    assert_eq!(layers(scales, &["y", "z"]), ["a", "r scaled", "r scaled 2"]);
}
