//! Reading ONNX files: frames, constants of all types, files next to the model, order and damage.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use prost::Message;
use rand_core::Rng;

use super::{generator, pick};
use crate::Error;
use crate::onnx::file::{Parsed, parse};
use crate::onnx::tensor::{Data, Element, Tensor};
use crate::onnx::{
    AttributeProto, DimensionProto, FLOAT, GraphProto, ModelProto, NodeProto, OperatorSetIdProto,
    SegmentProto, SparseTensorProto, StringStringEntryProto, TensorProto, TensorShapeProto, TensorTypeProto,
    TypeProto, ValueInfoProto, attribute_type,
};

pub fn node(op: &str, inputs: &[&str], outputs: &[&str]) -> NodeProto {
    let names = |names: &[&str]| names.iter().map(|&n| n.to_owned()).collect();
    NodeProto { op_type: op.to_owned(), input: names(inputs), output: names(outputs), ..Default::default() }
}

fn tensor(name: &str, dims: &[usize], values: &[f32]) -> TensorProto {
    TensorProto {
        name: name.to_owned(),
        dims: dims.iter().map(|&d| d as i64).collect(),
        data_type: FLOAT,
        raw_data: values.iter().flat_map(|v| v.to_le_bytes()).collect(),
        ..Default::default()
    }
}

fn value(name: &str, shape: &[usize]) -> ValueInfoProto {
    let dim = |&d: &usize| DimensionProto { dim_value: Some(d as i64), dim_param: None };
    let shape = TensorShapeProto { dim: shape.iter().map(dim).collect() };
    let tensor_type = Some(TensorTypeProto { elem_type: FLOAT, shape: Some(shape) });
    ValueInfoProto { name: name.to_owned(), r#type: Some(TypeProto { tensor_type }) }
}

/// `y = relu(x + w)`, its nodes in the wrong order.
fn sum() -> ModelProto {
    let graph = GraphProto {
        name: "sum".to_owned(),
        node: vec![node("Relu", &["t"], &["y"]), node("Add", &["x", "w"], &["t"])],
        initializer: vec![tensor("w", &[4], &[1.0, 2.0, 3.0, 4.0])],
        input: vec![value("x", &[1, 4])],
        output: vec![value("y", &[1, 4])],
        ..Default::default()
    };
    let opset_import = vec![OperatorSetIdProto { domain: String::new(), version: 17 }];
    ModelProto { ir_version: 8, graph: Some(graph), opset_import }
}

fn changed(change: impl FnOnce(&mut GraphProto)) -> Result<Parsed, Error> {
    let mut model = sum();
    change(model.graph.as_mut().unwrap());
    parse(&model.encode_to_vec(), None)
}

/// What is said about a file, in one line.
fn said(result: Result<Parsed, Error>) -> String {
    let text = result.err().unwrap().to_string();
    assert_eq!(text.lines().count(), 1, "{text}");
    text
}

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
    assert_eq!((parsed.name.as_str(), parsed.opset, parsed.input.name.as_str()), ("sum", 17, "x"));
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
        let values = Some(g.initializer.remove(0));
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
    let text = changed(|g| g.input[0].r#type.as_mut().unwrap().tensor_type.as_mut().unwrap().elem_type = 8);
    assert!(said(text).contains("input x is of type STRING"));
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
        assert_eq!(of(version, "").unwrap().opset, version);
    }
    assert_eq!(of(20, "ai.onnx").unwrap().opset, 20);
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
    says(&ModelProto { ir_version: 8, ..Default::default() }.encode_to_vec(), "no ONNX file");
    says(&ModelProto { graph: None, ..sum() }.encode_to_vec(), "no network in it");
}

/// One constant in every type and both forms.
#[test]
fn constants_of_all_types() {
    let bytes = |v: &[&[u8]]| v.concat();
    let read = |t: TensorProto| changed(|g| g.initializer[0] = TensorProto { name: "w".to_owned(), ..t });
    let check = |data_type: i32, element: Element, raw: Vec<u8>, typed: TensorProto, values: Data| {
        let expected = Tensor { shape: vec![2, 1], data: values, element };
        let raw = TensorProto { data_type, dims: vec![2, 1], raw_data: raw, ..Default::default() };
        let typed = TensorProto { data_type, dims: vec![2, 1], ..typed };
        for tensor in [raw, typed] {
            assert_eq!(read(tensor.clone()).unwrap().constants["w"], expected);
            for dims in [vec![3], vec![1], vec![]] {
                let text = said(read(TensorProto { dims, ..tensor.clone() }));
                assert!(text.contains("constant w does not have as many values"), "{text}");
            }
        }
    };
    let typed = |change: &dyn Fn(&mut TensorProto)| {
        let mut tensor = TensorProto::default();
        change(&mut tensor);
        tensor
    };
    let int32 = |v: [i32; 2]| typed(&|t| t.int32_data = v.to_vec());
    let uint64 = |v: [u64; 2]| typed(&|t| t.uint64_data = v.to_vec());
    let float = |a: f64, b: f64| Data::Float(vec![a, b]);
    let int = |a: i64, b: i64| Data::Int(vec![a, b]);
    let le = |a: f32, b: f32| bytes(&[&a.to_le_bytes(), &b.to_le_bytes()]);
    check(1, Element::Float, le(1.5, -2.0), typed(&|t| t.float_data = vec![1.5, -2.0]), float(1.5, -2.0));
    let double = bytes(&[&0.1f64.to_le_bytes(), &1e300f64.to_le_bytes()]);
    check(11, Element::Double, double, typed(&|t| t.double_data = vec![0.1, 1e300]), float(0.1, 1e300));
    // 1, and the least number above 0.
    check(10, Element::Float16, vec![0, 0x3c, 1, 0x80], int32([0x3c00, 0x8001]), float(1.0, -2f64.powi(-24)));
    check(
        16,
        Element::BFloat16,
        vec![0x80, 0x3f, 0x49, 0xc0],
        int32([0x3f80, 0xc049]),
        float(1.0, -3.140625),
    );
    check(2, Element::Uint8, vec![0, 255], int32([0, 255]), int(0, 255));
    check(3, Element::Int8, vec![0x80, 127], int32([-128, 127]), int(-128, 127));
    check(4, Element::Uint16, vec![255, 255, 1, 0], int32([65535, 1]), int(65535, 1));
    check(5, Element::Int16, vec![255, 255, 0, 128], int32([-1, -32768]), int(-1, -32768));
    check(6, Element::Int32, vec![255, 255, 255, 255, 0, 1, 0, 0], int32([-1, 256]), int(-1, 256));
    check(
        12,
        Element::Uint32,
        vec![255, 255, 255, 255, 0, 1, 0, 0],
        uint64([u32::MAX.into(), 256]),
        int(u32::MAX.into(), 256),
    );
    check(9, Element::Bool, vec![1, 0], int32([1, 0]), int(1, 0));
    let long = bytes(&[&i64::MIN.to_le_bytes(), &7i64.to_le_bytes()]);
    check(7, Element::Int64, long, typed(&|t| t.int64_data = vec![i64::MIN, 7]), int(i64::MIN, 7));
    let long = bytes(&[&(i64::MAX as u64).to_le_bytes(), &7u64.to_le_bytes()]);
    check(13, Element::Uint64, long, uint64([i64::MAX as u64, 7]), int(i64::MAX, 7));

    let out_of_range = [
        (3, int32([128, 0])),
        (2, int32([-1, 0])),
        (9, int32([2, 0])),
        (10, int32([65536, 0])),
        (12, uint64([1 << 32, 0])),
        (13, uint64([1 << 63, 0])),
    ];
    for (data_type, tensor) in out_of_range {
        let text = said(read(TensorProto { data_type, dims: vec![2], ..tensor }));
        assert!(text.contains("values outside of type"), "{text}");
    }
    for data_type in [0, 8, 14, 17, 22, -5, 99] {
        let text =
            said(read(TensorProto { data_type, dims: vec![2], raw_data: vec![0; 16], ..Default::default() }));
        assert!(text.contains("constant w has values of type"), "{text}");
    }
    assert!(
        said(read(TensorProto { raw_data: vec![0; 7], ..tensor("w", &[2], &[]) })).contains("as many values")
    );
    let segment = Some(SegmentProto {});
    assert!(
        said(read(TensorProto { segment, ..tensor("w", &[1], &[1.0]) })).contains("not kept in one piece")
    );
    let empty = read(tensor("w", &[3, 0], &[])).unwrap();
    assert_eq!(empty.constants["w"], Tensor::floats(vec![3, 0], vec![]));
}

#[test]
fn half_floats_are_exact() {
    for bits in 0..=u16::MAX {
        let value = crate::onnx::tensor::from_half(bits);
        // Whatever is one already stays.
        let again = Element::Float16.nearest(value);
        assert!(again == value || value.is_nan() && again.is_nan(), "{bits:x}");
        let brain = f64::from(f32::from_bits(u32::from(bits) << 16));
        let again = Element::BFloat16.nearest(brain);
        assert!(again == brain || brain.is_nan() && again.is_nan(), "{bits:x}");
    }
    // Ties go to even, and what is too large to infinity.
    let half = |v| Element::Float16.nearest(v);
    assert_eq!([half(2049.0), half(2051.0), half(-2049.5)], [2048.0, 2052.0, -2050.0]);
    assert_eq!([half(65519.0), half(65520.0), half(1e-9)], [65504.0, f64::INFINITY, 0.0]);
    assert_eq!(Element::Float.nearest(0.1), f64::from(0.1f32));
}

/// A folder that is removed at the end.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Folder {
        let path = std::env::temp_dir().join(format!("seco-model-{name}-{}", std::process::id()));
        fs::create_dir_all(path.join("model")).unwrap();
        Folder(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn external(entries: &[(&str, &str)]) -> TensorProto {
    let entry = |&(key, value): &(&str, &str)| StringStringEntryProto {
        key: key.to_owned(),
        value: value.to_owned(),
    };
    TensorProto {
        data_location: 1,
        external_data: entries.iter().map(entry).collect(),
        ..tensor("w", &[4], &[])
    }
}

#[test]
fn values_next_to_the_model_are_read() {
    let folder = Folder::new("external");
    let model = folder.0.join("model");
    fs::create_dir_all(model.join("sub")).unwrap();
    let values: Vec<u8> = [9.0f32, 1.0, 2.0, 3.0, 4.0].iter().flat_map(|v| v.to_le_bytes()).collect();
    fs::write(model.join("w.bin"), &values).unwrap();
    fs::write(model.join("sub/w.bin"), &values[4..]).unwrap();
    fs::write(folder.0.join("outside.bin"), &values).unwrap();
    let read = |entries: &[(&str, &str)], folder| {
        let mut file = sum();
        file.graph.as_mut().unwrap().initializer[0] = external(entries);
        parse(&file.encode_to_vec(), folder)
    };
    let here = Some(model.as_path());
    let expected = Tensor::floats(vec![4], vec![1.0, 2.0, 3.0, 4.0]);
    for entries in [
        &[("location", "w.bin"), ("offset", "4"), ("length", "16")][..],
        &[("location", "w.bin"), ("offset", "4")],
        &[("location", "./sub/w.bin"), ("checksum", "0")],
    ] {
        assert_eq!(read(entries, here).unwrap().constants["w"], expected);
        let text = said(read(entries, None));
        assert!(
            text.contains("kept in another file") && text.contains("save_as_external_data=False"),
            "{text}"
        );
    }
    let refused = |entries: &[(&str, &str)], what: &str| {
        let text = said(read(entries, here));
        assert!(text.contains(what), "{entries:?}: {text}");
        assert!(!text.contains(folder.0.to_str().unwrap()) || entries[0].1.starts_with('/'), "{text}");
    };
    let outside = "not in the model's folder";
    let absolute = folder.0.join("model/w.bin");
    refused(&[("location", "../outside.bin")], outside);
    refused(&[("location", "sub/../../outside.bin")], outside);
    refused(&[("location", "sub/../w.bin")], outside);
    refused(&[("location", absolute.to_str().unwrap())], outside);
    refused(&[("location", "w\0.bin")], outside);
    refused(&[("location", "")], outside);
    refused(&[("offset", "0")], outside);
    refused(&[("location", "missing.bin")], "cannot be read");
    refused(&[("location", "sub")], "which is no file");
    refused(&[("location", "w.bin"), ("offset", "8")], "ends before the values");
    refused(&[("location", "w.bin"), ("offset", "18446744073709551615")], "ends before the values");
    refused(&[("location", "w.bin"), ("offset", "-1")], "has offset");
    refused(&[("location", "w.bin"), ("length", "x")], "has length");
    refused(&[("location", "w.bin"), ("length", "20")], "as many values");
    refused(&[("location", "w.bin"), ("length", "1000000000000")], "as many values");
    #[cfg(unix)]
    {
        std::os::unix::fs::symlink(folder.0.join("outside.bin"), model.join("link.bin")).unwrap();
        std::os::unix::fs::symlink("w.bin", model.join("inside.bin")).unwrap();
        std::os::unix::fs::symlink("/dev/zero", model.join("endless.bin")).unwrap();
        refused(&[("location", "link.bin")], outside);
        refused(&[("location", "endless.bin")], outside);
        assert_eq!(
            read(&[("location", "inside.bin"), ("offset", "4")], here).unwrap().constants["w"],
            expected
        );
    }

    // The value of a Constant may be kept so too.
    let mut file = sum();
    let graph = file.graph.as_mut().unwrap();
    graph.initializer.clear();
    let t = Some(external(&[("location", "sub/w.bin")]));
    let value =
        AttributeProto { name: "value".to_owned(), t, r#type: attribute_type::TENSOR, ..Default::default() };
    graph.node.push(NodeProto { attribute: vec![value], ..node("Constant", &[], &["w"]) });
    let parsed = parse(&file.encode_to_vec(), here).unwrap();
    assert_eq!(parsed.nodes[0].attribute[0].t.as_ref().unwrap().tensor().unwrap(), expected);
    assert!(said(parse(&file.encode_to_vec(), None)).contains("node w (Constant)"));
}

#[test]
fn shapes_of_the_input() {
    let of = |dims: &[Option<i64>], given: Option<&[usize]>| {
        let parsed = changed(|g| {
            let dim = |&d: &Option<i64>| DimensionProto {
                dim_value: d,
                dim_param: d.is_none().then(|| "n".to_owned()),
            };
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

/// Runs what must take milliseconds; the bound leaves room for a busy machine.
pub fn quickly<T>(run: impl FnOnce() -> T) -> T {
    let start = Instant::now();
    let result = run();
    assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
    result
}

#[test]
fn claims_of_terabytes_are_refused_at_once() {
    for huge in [1 << 26, 1 << 40, i64::MAX, i64::MIN, -1] {
        for dims in [vec![huge], vec![huge; 4], vec![0, huge, huge], vec![huge, 1 << 40, 0]] {
            quickly(|| said(changed(|g| g.initializer[0].dims = dims)));
        }
    }
    quickly(|| said(changed(|g| g.initializer[0].dims = vec![1; 1 << 16])));
    let folder = Folder::new("terabytes");
    for length in ["4398046511104", "16"] {
        let mut file = sum();
        let dims = vec![1 << 20, 1 << 20];
        file.graph.as_mut().unwrap().initializer[0] =
            TensorProto { dims, ..external(&[("location", "w"), ("length", length)]) };
        quickly(|| said(parse(&file.encode_to_vec(), Some(&folder.0))));
    }
    // A field that claims more than the file has.
    let mut bytes = sum().encode_to_vec();
    bytes.extend([0x3a, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f]);
    quickly(|| said(parse(&bytes, None)));
}

/// Two bytes of a file that would become hundreds in memory.
#[test]
fn files_that_would_swell_are_refused() {
    let message = |tag: u8, inner: &[u8]| {
        let mut out = vec![tag];
        prost::encoding::encode_varint(inner.len() as u64, &mut out);
        [out, inner.to_vec()].concat()
    };
    let empties = |tag: u8| [tag, 0].repeat(3 << 20);
    // Nodes, initialisers, inputs, attributes of a node, sizes and names of a tensor.
    for graph in [
        empties(0x0a),
        empties(0x2a),
        empties(0x5a),
        message(0x0a, &empties(0x2a)),
        message(0x0a, &empties(0x0a)),
        message(0x2a, &[0x08, 1].repeat(3 << 20)),
        message(0x2a, &message(0x3a, &vec![0; 4 * crate::MAX_VALUES])),
    ] {
        let text = quickly(|| said(parse(&message(0x3a, &graph), None)));
        assert!(text.contains("too many parts"), "{text}");
    }
    let text = quickly(|| said(parse(&vec![0x3a; crate::onnx::file::MAX_FILE + 1], None)));
    assert!(text.contains("use a smaller network"), "{text}");
    // Groups within groups.
    quickly(|| said(parse(&vec![0x0b; 1 << 20], None)));
}

/// Whatever happens to a file, it is refused or read.
#[test]
fn damaged_files_do_no_harm() {
    let mut model = sum();
    let graph = model.graph.as_mut().unwrap();
    let alpha = AttributeProto {
        name: "alpha".to_owned(),
        f: 2.0,
        r#type: attribute_type::FLOAT,
        ..Default::default()
    };
    let pads = AttributeProto {
        name: "pads".to_owned(),
        ints: vec![1, 2, 3],
        r#type: attribute_type::INTS,
        ..Default::default()
    };
    graph.node[0].attribute = vec![alpha, pads];
    graph.node.push(node("Concat", &["y", "i", "h"], &["z"]));
    graph.initializer.push(TensorProto {
        data_type: 7,
        int64_data: vec![-1, 2],
        raw_data: vec![],
        ..tensor("i", &[2], &[])
    });
    graph.initializer.push(TensorProto {
        data_type: 10,
        int32_data: vec![1, 2],
        raw_data: vec![],
        ..tensor("h", &[2], &[])
    });
    graph.output[0].name = "z".to_owned();
    let file = model.encode_to_vec();
    parse(&file, None).unwrap().input.shape(None).unwrap();
    let mut rng = generator(13);
    for end in 0..file.len() {
        quickly(|| said(parse(&file[..end], None)));
    }
    let (mut read, mut refused) = (0, 0);
    for round in 0..20_000 {
        let mut bytes = file.clone();
        match round % 4 {
            // Bytes, a piece out, a piece doubled, noise.
            0 | 1 => (0..pick(&mut rng, 1, 4)).for_each(|_| {
                let at = pick(&mut rng, 0, bytes.len() - 1);
                bytes[at] = rng.next_u32() as u8;
            }),
            2 => {
                let (from, len) = (pick(&mut rng, 0, bytes.len() - 1), pick(&mut rng, 1, 20));
                let piece: Vec<u8> = bytes.drain(from..(from + len).min(file.len())).collect();
                if rng.next_u32() % 2 == 0 {
                    bytes.splice(from..from, [piece.clone(), piece].concat());
                }
            }
            _ => {
                bytes = vec![0; pick(&mut rng, 1, 300)];
                rng.fill_bytes(&mut bytes);
            }
        }
        match quickly(|| parse(&bytes, None).and_then(|p| p.input.shape(None))) {
            Ok(_) => read += 1,
            Err(error) => {
                assert_eq!(error.to_string().lines().count(), 1);
                refused += 1;
            }
        }
    }
    assert!(read > 500 && refused > 10_000, "{read} {refused}");
}
