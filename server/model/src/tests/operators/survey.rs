//! What a network costs but for what is refused of it.

use super::{file, integers, numbers, options, tensor, with};
use crate::numbers::{Goal, all_shared, choose};
use crate::onnx::{NodeProto, TensorProto};
use crate::real::RealOp;
use crate::tests::onnx::{int, ints};
use crate::{InputSpec, Survey, read, survey};

fn conv(name: &str, count: usize) -> TensorProto {
    tensor(name, &[4, count, 3, 3], &numbers(36 * count, 7))
}

/// Everything that is refused is named, in the file's order, and something of the same shape stands for it.
#[test]
fn all_that_is_refused_is_named() {
    let nodes = vec![
        with("Conv", &["x", "w"], &["c"], &[]),
        with("LRN", &["c"], &["n"], &[int("size", 3)]),
        with("Relu", &["n"], &["r"], &[]),
        // Squeeze and excite, its gate smaller than what it is for.
        with("GlobalAveragePool", &["r"], &["m"], &[]),
        with("Sigmoid", &["m"], &["g"], &[]),
        with("Mul", &["g", "r"], &["e"], &[]),
        // A curve in front of a layer.
        with("Tanh", &["e"], &["t"], &[]),
        with("Conv", &["t", "v"], &["d"], &[]),
        // SiLU.
        with("Sigmoid", &["d"], &["h"], &[]),
        with("Mul", &["d", "h"], &["l"], &[]),
        with("LayerNormalization", &["l", "one"], &["y"], &[]),
    ];
    let constants = vec![conv("w", 2), conv("v", 4), tensor("one", &[4], &[1.0; 4])];
    let made = file(17, &[2, 8, 8], nodes, constants, &["y"]);
    assert!(read(&made, &options()).unwrap_err().to_string().contains("n (LRN)"));
    let Survey { real, refused } = survey(&made, &options()).unwrap();
    let refused: Vec<String> = refused.iter().map(ToString::to_string).collect();
    let named = ["n (LRN)", "e (Mul)", "d (Conv)", "l (Mul)", "y (LayerNormalization)"];
    assert_eq!(refused.len(), named.len(), "{refused:?}");
    for (line, name) in refused.iter().zip(named) {
        assert!(line.starts_with(&format!("ONNX node {name}: ")), "{line}");
    }
    assert_eq!(real.outputs[0].shape, [4, 4, 4]);

    // Its own weights may be of no use, and others are as good for what it costs.
    let usual = real.clone().with_usual_weights();
    assert_eq!(usual.with_usual_weights().nodes.len(), real.nodes.len());
    let usual = real.with_usual_weights();
    for node in &usual.nodes {
        if let RealOp::Linear(layer) = &node.op {
            let square: f64 = layer.weights.iter().map(|w| w * w).sum::<f64>() / layer.weights.len() as f64;
            let wanted = 2.0 / layer.geometry.fan_in() as f64;
            assert!((0.5 * wanted..2.0 * wanted).contains(&square), "{square} {wanted}");
        }
    }
    let input = InputSpec::new(usual.input.clone(), 8);
    let seen: Vec<u8> = (0..128u8).collect();
    choose(&usual, &input, &seen, &Goal::default(), &all_shared).unwrap();
}

/// What has no shape of its inputs, and what is wrong with a file, is refused as before.
#[test]
fn what_nothing_can_stand_for_is_refused() {
    let refused = |nodes: Vec<NodeProto>, constants: Vec<TensorProto>| {
        let made = file(13, &[2, 8, 8], nodes, constants, &["y"]);
        let text = read(&made, &options()).unwrap_err().to_string();
        assert_eq!(survey(&made, &options()).unwrap_err().to_string(), text);
        text
    };
    assert!(
        refused(vec![with("TopK", &["x", "k"], &["y"], &[])], vec![integers("k", &[2])]).contains("(TopK)")
    );
    let text = refused(vec![with("Conv", &["x", "w"], &["y"], &[])], vec![conv("w", 3)]);
    assert!(text.contains("y (Conv)"), "{text}");
    let softmax = vec![with("Reshape", &["x", "s"], &["r"], &[]), with("MatMul", &["r", "r"], &["y"], &[])];
    assert!(refused(softmax, vec![integers("s", &[1, 16, 8])]).contains("y (MatMul)"));
    // A softmax over channels stands for its input, too.
    let nodes = vec![with("Softmax", &["x"], &["y"], &[int("axis", 1)])];
    let made = file(13, &[2, 8, 8], nodes, vec![], &["y"]);
    assert!(read(&made, &options()).unwrap_err().to_string().contains("y (Softmax)"));
    let nodes = vec![
        with("Softmax", &["x"], &["p"], &[int("axis", 1)]),
        with("ReduceMean", &["p"], &["y"], &[ints("axes", &[2, 3])]),
    ];
    let made = file(13, &[2, 8, 8], nodes, vec![], &["y"]);
    assert_eq!(survey(&made, &options()).unwrap().refused.len(), 1);
}
