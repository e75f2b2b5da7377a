//! Files that somebody spoilt, read to the end: an error soon, never a panic or much memory.

use rand_core::Rng;

use super::{file, integers, numbers, options, tensor, with};
use crate::onnx::NodeProto;
use crate::read;
use crate::tests::onnx::{float, int, ints, quickly, text};
use crate::tests::{generator, pick};

/// A network of many operators.
fn many() -> Vec<u8> {
    let nodes = vec![
        with(
            "Conv",
            &["x", "w", "b"],
            &["a"],
            &[ints("pads", &[1; 4]), ints("strides", &[1, 1]), int("group", 1)],
        ),
        with("BatchNormalization", &["a", "b", "b", "b", "v"], &["n"], &[float("epsilon", 1e-3)]),
        with("Clip", &["n", "zero", "six"], &["r"], &[]),
        with(
            "MaxPool",
            &["r"],
            &["p"],
            &[ints("kernel_shape", &[3, 3]), ints("strides", &[2, 2]), text("auto_pad", "SAME_UPPER")],
        ),
        with(
            "ConvTranspose",
            &["p", "t"],
            &["u"],
            &[ints("strides", &[2, 2]), ints("output_padding", &[1, 1])],
        ),
        with("Slice", &["u", "from", "to", "axes"], &["s"], &[]),
        with("Resize", &["s", "", "scales"], &["z"], &[]),
        with("Concat", &["z", "z"], &["k"], &[int("axis", 1)]),
        with("ReduceMean", &["k"], &["g"], &[ints("axes", &[2, 3]), int("keepdims", 0)]),
        with("Gemm", &["g", "f"], &["l"], &[int("transB", 1), float("alpha", 2.0)]),
        with("Reshape", &["l", "shape"], &["q"], &[]),
        with("Softmax", &["q"], &["y"], &[int("axis", -1)]),
    ];
    let constants = vec![
        tensor("w", &[2, 1, 3, 3], &numbers(18, 1)),
        tensor("b", &[2], &[0.5, 0.25]),
        tensor("v", &[2], &[1.0, 2.0]),
        tensor("zero", &[], &[0.0]),
        tensor("six", &[], &[6.0]),
        tensor("t", &[2, 3, 2, 2], &numbers(24, 2)),
        integers("from", &[1, -3]),
        integers("to", &[4, 1000]),
        integers("axes", &[2, 3]),
        tensor("scales", &[4], &[1.0, 1.0, 2.0, 2.0]),
        tensor("f", &[5, 6], &numbers(30, 3)),
        integers("shape", &[1, -1]),
    ];
    file(13, &[1, 6, 6], nodes, constants, &["y"])
}

#[test]
fn spoilt_files_are_answered_soon() {
    let good = many();
    read(&good, &options()).unwrap();
    let mut rng = generator(77);
    let mut accepted = 0;
    for _ in 0..4000 {
        let mut bytes = good.clone();
        for _ in 0..pick(&mut rng, 1, 3) {
            let at = pick(&mut rng, 0, bytes.len() - 1);
            bytes[at] = match pick(&mut rng, 0, 2) {
                0 => bytes[at] ^ (1 << pick(&mut rng, 0, 7)),
                1 => rng.next_u32() as u8,
                _ => [0, 1, 2, 127, 128, 255][pick(&mut rng, 0, 5)],
            };
        }
        accepted += usize::from(quickly(|| read(&bytes, &options())).is_ok());
    }
    // Weights may change and names of nodes, so not everything is refused.
    assert!(accepted > 100, "{accepted}");
    (0..good.len()).for_each(|end| assert!(quickly(|| read(&good[..end], &options())).is_err()));
}

/// Small files that ask for much.
#[test]
fn large_results_are_refused_at_once() {
    let asks: Vec<(Vec<NodeProto>, Vec<crate::onnx::TensorProto>)> = vec![
        (vec![with("Expand", &["x", "s"], &["y"], &[])], vec![integers("s", &[1 << 20, 1 << 20, 1, 4])]),
        (vec![with("Tile", &["x", "s"], &["y"], &[])], vec![integers("s", &[1, 1 << 40, 1 << 40])]),
        (vec![with("Pad", &["x", "s"], &["y"], &[])], vec![integers("s", &[0, 0, 1 << 40, 0, 0, i64::MAX])]),
        (vec![with("Resize", &["x", "", "s"], &["y"], &[])], vec![tensor("s", &[3], &[1.0, 9e5, 9e5])]),
        (
            vec![with("Conv", &["x", "w"], &["y"], &[ints("pads", &[1 << 25, 0])])],
            vec![tensor("w", &[64, 1, 1], &[1.0; 64])],
        ),
        (
            vec![with("ConvTranspose", &["x", "w"], &["y"], &[ints("strides", &[1 << 25])])],
            vec![tensor("w", &[1, 64, 1], &[1.0; 64])],
        ),
        (
            vec![
                with("Resize", &["x", "", "s"], &["r"], &[]),
                with("MaxPool", &["r"], &["y"], &[ints("kernel_shape", &[1 << 20])]),
            ],
            vec![tensor("s", &[3], &[1.0, 1.0, 524288.0])],
        ),
        (
            vec![with("Resize", &["x", "", "s"], &["r"], &[]), with("GlobalMaxPool", &["r"], &["y"], &[])],
            vec![tensor("s", &[3], &[1.0, 1.0, 524288.0])],
        ),
    ];
    for (nodes, constants) in asks {
        let error = quickly(|| read(&file(13, &[1, 4], nodes, constants, &["y"]), &options())).unwrap_err();
        assert_eq!(error.to_string().lines().count(), 1);
    }
    // Doubled again and again.
    let nodes: Vec<NodeProto> = (0..60)
        .map(|i| {
            let (from, to) = (if i == 0 { "x".to_owned() } else { format!("t{i}") }, format!("t{}", i + 1));
            with("Concat", &[&from, &from], &[if i == 59 { "y" } else { &to }], &[int("axis", 1)])
        })
        .collect();
    assert!(quickly(|| read(&file(13, &[4], nodes, vec![], &["y"]), &options())).is_err());
}
