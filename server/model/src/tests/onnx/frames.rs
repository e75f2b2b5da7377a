//! The frame of a file: versions, order, inputs, and files of other kinds.

use prost::Message;

use super::{changed, node, said, sum, tensor, value};
use crate::onnx::file::{Parsed, parse};
use crate::onnx::tensor::Tensor;
use crate::onnx::{
    DimensionProto, ModelProto, NameProto, OperatorSetIdProto, SparseTensorProto, TensorProto,
};

fn names(parsed: &Parsed) -> Vec<&str> {
    parsed.nodes.iter().map(|n| n.op_type.as_str()).collect()
}

#[test]
fn nodes_are_sorted_and_what_no_output_needs_is_dropped() {
    let parsed = changed(|g| {
        g.node.insert(0, node("Unheard", &["u", "missing"], &["dead"]));
        g.node.push(node("Mul", &["t", "y"], &["z"]));
        g.input.push(value("u", &[1, 2]));
        g.initializer.push(TensorProto { data_type: 8, ..tensor("unread", &[7], &[]) });
        g.output.push(value("z", &[1, 4]));
    })
    .unwrap();
    assert_eq!(names(&parsed), ["Add", "Relu", "Mul"]);
    assert_eq!((parsed.name.as_str(), parsed.input.name.as_str()), ("sum", "x"));
    assert_eq!(parsed.opsets, [17; 3]);
    let outputs: Vec<_> = parsed.outputs.iter().map(|(n, d)| (n.as_str(), d.clone())).collect();
    assert_eq!(outputs, [("y", vec![Some(1), Some(4)]), ("z", vec![Some(1), Some(4)])]);
    assert_eq!(parsed.constants.keys().collect::<Vec<_>>(), ["w"]);
    assert_eq!(parsed.constants["w"], Tensor::floats(vec![4], vec![1.0, 2.0, 3.0, 4.0]));
}

#[test]
fn the_first_file_format_lists_weights_among_the_inputs() {
    let parsed = changed(|g| g.input.insert(0, value("w", &[4]))).unwrap();
    assert_eq!((parsed.input.name.as_str(), parsed.constants.len()), ("x", 1));
}

#[test]
fn long_chains_are_read() {
    let parsed = changed(|g| {
        let step = |i: usize| node("Relu", &[&format!("s{i}")], &[&format!("s{}", i + 1)]);
        g.node.extend((0..50_000).rev().map(step));
        g.node.push(node("Identity", &["y"], &["s0"]));
        g.output[0].name = "s50000".to_owned();
    })
    .unwrap();
    assert_eq!(parsed.nodes.len(), 50_003);
    assert!(parsed.nodes.windows(2).all(|n| n[1].input.contains(&n[0].output[0])));
}

#[test]
fn damaged_graphs_are_refused() {
    let cycle = changed(|g| g.node[1].input[1] = "y".to_owned());
    assert!(said(cycle).contains("depends on its own result"));
    let missing = changed(|g| g.node[1].input[1] = "v".to_owned());
    assert!(said(missing).contains("node t (Add): nothing makes v"));
    assert!(said(changed(|g| g.output[0].name = "v".to_owned())).contains("nothing makes v"));
    assert!(said(changed(|g| g.node[1].output.push("y".to_owned()))).contains("y is made twice"));
    assert!(said(changed(|g| g.node[1].output[0] = "w".to_owned())).contains("w is made twice"));
    assert!(said(changed(|g| g.initializer.push(tensor("w", &[1], &[1.0])))).contains("w is made twice"));
    assert!(said(changed(|g| g.output.clear())).contains("no output"));
    let sparse = changed(|g| {
        let values = Some(NameProto { name: g.initializer.remove(0).name });
        g.sparse_initializer.push(SparseTensorProto { values });
    });
    assert!(said(sparse).contains("constant w is sparse"));
    let several = changed(|g| {
        g.initializer.clear();
        g.input.push(value("w", &[4]));
    });
    assert!(said(several).contains("it has 2 inputs that are no constants (x, w)"));
    assert!(
        said(changed(|g| g.node[1].input[0] = "w".to_owned())).contains("no output depends on its input (x)")
    );
    let none = changed(|g| {
        g.node[1].input[0] = "w".to_owned();
        g.input.clear();
    });
    assert!(said(none).contains("no input that is not a constant"));
    let of_type = |elem_type, op: &str| {
        changed(|g| {
            g.input[0].r#type.as_mut().unwrap().tensor_type.as_mut().unwrap().elem_type = elem_type;
            g.node[1].op_type = op.to_owned();
        })
    };
    assert!(said(of_type(8, "Cast")).contains("input x is of type STRING"));
    assert!(said(of_type(2, "Add")).contains("input x is of type UINT8, and FLOAT is needed"));
    for (elem_type, op) in [(1, "Add"), (10, "Add"), (11, "Add"), (2, "Cast"), (7, "Cast")] {
        of_type(elem_type, op).unwrap();
    }
    assert!(said(changed(|g| g.input[0].r#type = None)).contains("not a tensor"));
}

#[test]
fn versions_of_the_operators() {
    let of = |version, domain: &str| {
        let mut model = sum();
        model.opset_import[0] = OperatorSetIdProto { domain: domain.to_owned(), version };
        parse(&model.encode_to_vec(), None)
    };
    for version in [7, 9, 13, 22, 28] {
        assert_eq!(of(version, "").unwrap().opsets, [version; 2]);
    }
    assert_eq!(of(20, "ai.onnx").unwrap().opsets, [20; 2]);
    for version in [1, 6, 29, i64::MAX, -1] {
        assert!(said(of(version, "")).contains("7 to 28 are supported"));
    }
    assert!(said(of(17, "ai.onnx.ml")).contains("no version of ONNX's operators"));
}

#[test]
fn other_files_are_named_as_what_they_are() {
    let says = |bytes: &[u8], what: &str| {
        let text = said(parse(bytes, None));
        assert!(text.contains(what), "{text}");
    };
    says(b"", "the file is empty");
    says(b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n", "Git LFS");
    says(b"PK\x03\x04\x00\x00", "ZIP archive");
    says(b"\x89HDF\r\n\x1a\n", "HDF5");
    says(b"\x1c\x00\x00\x00TFL3\x00\x00", "TensorFlow Lite");
    says(b"\x93NUMPY\x01\x00", "NumPy array");
    says(b"\x80\x04\x95\x00", "pickle");
    says(b"<html><body>404</body></html>", "no ONNX file");
    says(b"{\"model\": 1}", "no ONNX file");
    says(b"\x08\x08", "no ONNX file");
    says(&ModelProto { graph: None, ..sum() }.encode_to_vec(), "no network in it");
}

#[test]
fn shapes_of_the_input() {
    let of = |dims: &[Option<i64>], given: Option<&[usize]>| {
        let parsed = changed(|g| {
            let dim = |&d: &Option<i64>| DimensionProto { dim_value: d };
            let tensor = g.input[0].r#type.as_mut().unwrap().tensor_type.as_mut().unwrap();
            tensor.shape.as_mut().unwrap().dim = dims.iter().map(dim).collect();
        })?;
        parsed.input.shape(given)
    };
    let refused = |dims: &[Option<i64>], given: Option<&[usize]>, what: &str| {
        let text = of(dims, given).unwrap_err().to_string();
        assert!(text.contains(what) && text.lines().count() == 1, "{text}");
    };
    let image = vec![1, 3, 8, 9];
    for batch in [Some(1), None, Some(0), Some(-1)] {
        let fixed = [batch, Some(3), Some(8), Some(9)];
        assert_eq!(of(&fixed, None).unwrap(), image);
        assert_eq!(of(&fixed, Some(&[3, 8, 9])).unwrap(), image);
        assert_eq!(of(&fixed, Some(&[1, 3, 8, 9])).unwrap(), image);
        refused(
            &fixed,
            Some(&[3, 8, 8]),
            "--shape says [3, 8, 8], and input x has shape 3,8,9 without the batch",
        );
        refused(&fixed, Some(&[2, 3, 8, 9]), "--shape says");
        let open = [batch, Some(3), None, Some(-1)];
        refused(
            &open,
            None,
            "has open axes, and only the first, the batch, may be (3,?,? without it): give them with --shape",
        );
        assert_eq!(of(&open, Some(&[3, 8, 9])).unwrap(), image);
        refused(&open, Some(&[3, 0, 9]), "none of them empty");
        refused(&open, Some(&[3, 1 << 20, 1 << 20]), "are possible");
        refused(&open, Some(&[3, usize::MAX, usize::MAX]), "are possible");
    }
    assert_eq!(of(&[None, None], Some(&[1])).unwrap(), [1, 1]);
    assert_eq!(of(&[None, None], Some(&[1, 1])).unwrap(), [1, 1]);
    assert_eq!(of(&[None], None).unwrap(), [1]);
    refused(&[Some(16), Some(3)], None, "batch size 16");
    refused(&[Some(16), Some(3)], Some(&[3]), "batch size 16");
    refused(&[], None, "single number");
    refused(&[Some(1), Some(-2)], None, "impossible");
    refused(&[Some(1), Some(i64::MAX), Some(i64::MAX)], None, "impossible");
    refused(&[Some(1); 9], None, "8 axes");

    let parsed =
        changed(|g| g.input[0].r#type.as_mut().unwrap().tensor_type.as_mut().unwrap().shape = None).unwrap();
    assert!(parsed.input.shape(None).unwrap_err().to_string().contains("give it with --shape"));
    assert_eq!(parsed.input.shape(Some(&[3, 8, 9])).unwrap(), image);
    assert_eq!(parsed.input.shape(Some(&[1, 3, 8, 9])).unwrap(), image);
}

/// Also where the node reads nothing but a constant, and its graphs the network.
#[test]
fn branches_are_refused_by_name() {
    let text = said(changed(|g| {
        g.node[1] = node("If", &["w"], &["t"]);
        g.node[1].name = "branch".to_owned();
    }));
    assert!(text.contains("branch (If)") && text.contains("branches and loops"), "{text}");
}
