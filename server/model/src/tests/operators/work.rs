//! Small files that name a large value many times, or many nodes that look at one and change nothing: refused soon, in
//! little memory.

use super::{file, integers, options, tensor, with};
use crate::onnx::{NodeProto, TensorProto};
use crate::read;
use crate::tests::onnx::{int, ints, quickly};

/// So many bytes, all zero.
fn zeros(name: &str, dims: &[usize]) -> TensorProto {
    TensorProto {
        name: name.to_owned(),
        dims: dims.iter().map(|&d| d as i64).collect(),
        data_type: 3,
        raw_data: vec![0; dims.iter().product()],
        ..Default::default()
    }
}

/// What is said of a file, soon.
fn said(shape: &[usize], nodes: Vec<NodeProto>, constants: Vec<TensorProto>) -> String {
    let made = file(13, shape, nodes, constants, &["y"]);
    quickly(|| read(&made, &options())).unwrap_err().to_string()
}

const LARGE: usize = 1 << 22;

/// Real numbers of all of them would take 3 GB, and of more of them as much as somebody wants.
#[test]
fn quantised_constants_are_not_made_real_before_they_fit() {
    let joined = |count: usize| {
        let inputs = [vec!["t", "z"], ["q", "t", "z"].repeat(count), vec!["x", "t", "z"]].concat();
        let domain = "com.microsoft".to_owned();
        vec![NodeProto { domain, ..with("QLinearConcat", &inputs, &["y"], &[int("axis", 1)]) }]
    };
    let constants = |len: usize| vec![tensor("t", &[], &[0.5]), zeros("z", &[]), zeros("q", &[1, len])];
    for (count, len, why) in [(100, LARGE, "too large"), (4000, LARGE, "looked at"), (5000, 1, "joins")] {
        let text = said(&[1], joined(count), constants(len));
        assert!(text.contains("y (QLinearConcat)") && text.contains(why), "{text}");
    }
}

#[test]
fn a_large_value_is_not_looked_at_thousands_of_times() {
    for op in ["Sum", "Mean", "Max", "Min"] {
        // The same constant again and again, and a value that is broadcast each time.
        for (name, shape) in [("w", [1, LARGE]), ("x", [1 << 11, 1])] {
            let row = with("Reshape", &["x", "flat"], &["row"], &[]);
            let inputs = [vec!["x", "row"], vec![name; 100_000]].concat();
            let inputs = if name == "w" { [&["x"], &inputs[2..]].concat() } else { inputs };
            let nodes = vec![row, with(op, &inputs, &["y"], &[])];
            let constants = vec![zeros("w", &[1, LARGE]), integers("flat", &[1, 1, -1])];
            let text = said(&shape, nodes, constants);
            assert!(text.contains(&format!("y ({op})")) && text.contains("looked at"), "{text}");
        }
    }
}

/// Nodes that add no step and no value, each of which looks at a large one.
#[test]
fn nodes_that_change_nothing_are_counted() {
    let chain = |op: &str, more: &[&str], count: usize| -> Vec<NodeProto> {
        let name = |i: usize| match i {
            0 => "x".to_owned(),
            i if i == count => "y".to_owned(),
            i => format!("t{i}"),
        };
        (0..count).map(|i| with(op, &[&[&*name(i)], more].concat(), &[&*name(i + 1)], &[])).collect()
    };
    for (op, more) in [
        ("Add", &["zero"][..]),
        ("Mul", &["one"]),
        ("Max", &["least"]),
        ("BatchNormalization", &["one", "zero", "zero", "one"]),
    ] {
        let parameter = |name: &str, value: f64| tensor(name, &[1], &[value]);
        let constants =
            vec![parameter("zero", 0.0), parameter("one", 1.0), parameter("least", f64::NEG_INFINITY)];
        let mut nodes = chain(op, more, 20_000);
        if op == "BatchNormalization" {
            let exact = crate::tests::onnx::float("epsilon", 0.0);
            nodes.iter_mut().for_each(|node| node.attribute.push(exact.clone()));
        }
        let text = said(&[1, LARGE], nodes, constants);
        assert!(text.contains(&format!("({op})")) && text.contains("looked at"), "{text}");
    }
    // There and back with a scale that is written a million times.
    let nodes = (0..40_000).map(|i| {
        let name = |i: usize| if i == 0 { "x".to_owned() } else { format!("t{i}") };
        let op = if i % 2 == 0 { "QuantizeLinear" } else { "DequantizeLinear" };
        let to = if i == 39_999 { "y".to_owned() } else { name(i + 1) };
        with(op, &[&name(i), "s", "z"], &[&to], &[])
    });
    let constants = vec![tensor("s", &[1 << 20], &vec![0.5; 1 << 20]), zeros("z", &[])];
    let text = said(&[4], nodes.collect(), constants);
    assert!(text.contains("Linear)") && text.contains("looked at"), "{text}");
    // Windows that are their values, and larger ones.
    for kernel in [1, 2] {
        let nodes = chain("MaxPool", &[], 5000);
        let window = |node: NodeProto| NodeProto { attribute: vec![ints("kernel_shape", &[kernel])], ..node };
        let text = said(&[1, 1 << 19], nodes.into_iter().map(window).collect(), vec![]);
        assert!(text.contains("(MaxPool)") && text.contains("looked at"), "{text}");
    }
    // As many different numbers of values in a window as it is long.
    let attributes = [ints("kernel_shape", &[1024]), ints("pads", &[1023, 1023])];
    let text = said(&[1, 1 << 20], vec![with("AveragePool", &["x"], &["y"], &attributes)], vec![]);
    assert!(text.contains("y (AveragePool)") && text.contains("looked at"), "{text}");
}

/// What operators make of constants is memory like that of others.
#[test]
fn constants_that_operators_make_are_counted() {
    let name = |i: usize| if i == 0 { "w".to_owned() } else { format!("n{i}") };
    let folded = (0..63).map(|i| with("Neg", &[&name(i)], &[&name(i + 1)], &[]));
    let like = |to: &str| with("CastLike", &["w", "x"], &[to], &[]);
    let rest = [like("a"), like("b"), like("c"), with("Sum", &["x", "a", "b", "c", "n63"], &["y"], &[])];
    let text = said(&[1 << 20], folded.chain(rest).collect(), vec![zeros("w", &[1, 1 << 20])]);
    assert!(text.contains("c (CastLike)") && text.contains("constants"), "{text}");
}

/// Sums of constants grow on the way.
#[test]
fn folded_sums_of_many_constants_are_counted() {
    for op in ["Sum", "Mean", "Max", "Min"] {
        let inputs = [vec!["column", "row"], vec!["one"; 20_000]].concat();
        let nodes = vec![with(op, &inputs, &["c"], &[]), with("Add", &["x", "c"], &["y"], &[])];
        let ones = |name: &str, dims: &[usize]| tensor(name, dims, &vec![1.0; dims.iter().product()]);
        let constants = vec![ones("column", &[1 << 11, 1]), ones("row", &[1, 1 << 11]), ones("one", &[])];
        let text = said(&[1], nodes, constants);
        assert!(text.contains(&format!("c ({op})")) && text.contains("constants"), "{text}");
    }
}

/// Sums over windows take time whenever the network runs, and a file of a few bytes may ask for billions of additions.
#[test]
fn sums_over_large_windows_are_counted() {
    let pool = |from: &str, to: &str, size: i64| {
        let attributes = [
            ints("kernel_shape", &[size]),
            ints("pads", &[size / 2, size / 2 - 1]),
            int("count_include_pad", 1),
        ];
        with("AveragePool", &[from], &[to], &attributes)
    };
    let text = said(&[128, 8192], vec![pool("x", "a", 8000), pool("a", "y", 8000)], vec![]);
    assert!(text.contains("(AveragePool)") && text.contains("looked at"), "{text}");
    let text = said(&[1, 1 << 20], vec![pool("x", "y", 1 << 19)], vec![]);
    assert!(text.contains("y (AveragePool)") && text.contains("windows are too large"), "{text}");
    let chain = (0..600).map(|i| {
        let name = |i: usize| if i == 0 { "x".to_owned() } else { format!("t{i}") };
        with("CumSum", &[&name(i), "i"], &[if i == 599 { "y".to_owned() } else { name(i + 1) }.as_str()], &[])
    });
    let text = said(&[1 << 18], chain.collect(), vec![integers("i", &[1])]);
    assert!(text.contains("(CumSum)"), "{text}");
}
