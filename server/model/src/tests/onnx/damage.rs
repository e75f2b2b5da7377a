//! Files that somebody spoilt, by accident or on purpose: an error soon, never a panic or much memory.

use prost::Message;
use rand_core::Rng;

use super::stored::{Folder, external};
use super::{call, changed, count, fold_some, int, ints, l, node, quickly, said, sum, tensor, text};
use crate::MAX_VALUES;
use crate::onnx::constants::Folding;
use crate::onnx::file::{MAX_FILE, parse};
use crate::onnx::tensor::{Data, Element, Tensor, elements};
use crate::onnx::{AttributeProto, TensorProto, attribute_type};
use crate::tests::{generator, pick};

#[test]
fn claims_of_terabytes_are_refused_at_once() {
    for huge in [1 << 26, 1 << 40, i64::MAX, i64::MIN, -1] {
        for dims in [vec![huge], vec![huge; 4], vec![0, huge, huge], vec![0, huge], vec![huge, 1 << 40, 0]] {
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
    // Nodes, initialisers, inputs, attributes of a node, sizes and names of a tensor, sizes of a sparse one.
    for graph in [
        empties(0x0a),
        empties(0x2a),
        empties(0x5a),
        message(0x0a, &empties(0x2a)),
        message(0x0a, &empties(0x0a)),
        message(0x2a, &[0x08, 1].repeat(3 << 20)),
        message(0x7a, &message(0x0a, &[0x08, 1].repeat(3 << 20))),
        message(0x2a, &message(0x3a, &vec![0; 4 * MAX_VALUES])),
    ] {
        let text = quickly(|| said(parse(&message(0x3a, &graph), None)));
        assert!(text.contains("too many parts"), "{text}");
    }
    let text = quickly(|| said(parse(&vec![0; MAX_FILE + 1], None)));
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
                if rng.next_u32().is_multiple_of(2) {
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

/// Many foldings, each affordable, must not add up to more than is.
#[test]
fn a_file_has_a_budget() {
    let one = count(&[1]);
    let shape = l(&[MAX_VALUES as i64 / 4]);
    let node = call("Expand", &[], &[Some(&one), Some(&shape)], 1);
    let mut folding = Folding::default();
    let rounds =
        (0..1000).take_while(|_| folding.fold(&node, &[Some(&one), Some(&shape)], 13).is_ok()).count();
    assert_eq!(rounds, 15);
}

/// Whatever a node says, there is an answer soon, of a size that was checked.
#[test]
fn strange_nodes_do_no_harm() {
    const OPS: [&str; 70] = [
        "Constant",
        "ConstantOfShape",
        "Range",
        "Shape",
        "Size",
        "NonZero",
        "Concat",
        "Cast",
        "CastLike",
        "MatMul",
        "Gemm",
        "QuantizeLinear",
        "DequantizeLinear",
        "Clip",
        "Where",
        "Add",
        "Sub",
        "Mul",
        "Div",
        "Mod",
        "Pow",
        "And",
        "Or",
        "Xor",
        "Equal",
        "Less",
        "LessOrEqual",
        "Greater",
        "GreaterOrEqual",
        "Min",
        "Max",
        "Sum",
        "Mean",
        "Neg",
        "Abs",
        "Sign",
        "Relu",
        "Floor",
        "Ceil",
        "Round",
        "Sqrt",
        "Reciprocal",
        "Exp",
        "Log",
        "Tanh",
        "Sigmoid",
        "Not",
        "ReduceSum",
        "ReduceMean",
        "ReduceProd",
        "ReduceMax",
        "ReduceMin",
        "ReduceL1",
        "ReduceL2",
        "ReduceSumSquare",
        "Identity",
        "Dropout",
        "Reshape",
        "Flatten",
        "Squeeze",
        "Unsqueeze",
        "Transpose",
        "Slice",
        "Expand",
        "Tile",
        "Pad",
        "Gather",
        "DepthToSpace",
        "SpaceToDepth",
        "Split",
    ];
    const NAMES: [&str; 22] = [
        "axis",
        "axes",
        "perm",
        "starts",
        "ends",
        "pads",
        "split",
        "num_outputs",
        "keepdims",
        "noop_with_empty_axes",
        "to",
        "blocksize",
        "mode",
        "allowzero",
        "start",
        "end",
        "transA",
        "transB",
        "block_size",
        "output_dtype",
        "value_ints",
        "value_int",
    ];
    let mut rng = generator(8);
    let mut number = |small: bool| match rng.next_u32() % if small { 8 } else { 12 } {
        v @ 0..8 => i64::from(v) - 2,
        8 => i64::MIN,
        9 => i64::MAX,
        10 => 1 << (rng.next_u32() % 63),
        _ => rng.next_u64() as i64,
    };
    let mut numbers = |count: usize, small: bool| (0..count).map(|_| number(small)).collect::<Vec<_>>();
    let mut rng = generator(9);
    let (mut right, mut wrong) = (0, 0);
    for _ in 0..200_000 {
        let op = OPS[pick(&mut rng, 0, OPS.len() - 1)];
        let mut tensors = Vec::new();
        for _ in 0..pick(&mut rng, 0, 5) {
            let shape: Vec<usize> =
                (0..pick(&mut rng, 0, 4)).map(|_| pick(&mut rng, 0, 9).saturating_sub(5)).collect();
            let len = elements(&shape).unwrap();
            let small = !rng.next_u32().is_multiple_of(4);
            let values = numbers(len, small);
            let element = Element::from_onnx(pick(&mut rng, 1, 16) as i32).unwrap_or(Element::Int64);
            tensors.push(
                (!rng.next_u32().is_multiple_of(16)).then(|| Tensor::from_ints(element, shape, values)),
            );
        }
        let mut attributes = Vec::new();
        for _ in 0..pick(&mut rng, 0, 2) {
            let name = NAMES[pick(&mut rng, 0, NAMES.len() - 1)];
            let list = ["axes", "perm", "starts", "ends", "pads", "split", "value_ints"].contains(&name);
            let small = !rng.next_u32().is_multiple_of(4);
            let values = numbers(pick(&mut rng, 1, 4), small);
            attributes.push(match name {
                "mode" => text(name, ["edge", "reflect", "wrap", "CRD"][pick(&mut rng, 0, 3)]),
                _ if list => ints(name, &values),
                _ => int(name, values[0]),
            });
        }
        let inputs: Vec<Option<&Tensor>> = tensors.iter().map(Option::as_ref).collect();
        let (opset, outputs) = (pick(&mut rng, 7, 28) as i64, pick(&mut rng, 1, 3));
        match quickly(|| fold_some(op, &attributes, &inputs, opset, outputs)) {
            Ok(Some(results)) => {
                for result in results {
                    assert_eq!(elements(&result.shape), Some(result.len()), "{op}");
                    assert_eq!(result.element.is_float(), matches!(result.data, Data::Float(_)), "{op}");
                }
                right += 1;
            }
            Ok(None) => {}
            Err(error) => {
                assert_eq!(error.to_string().lines().count(), 1);
                wrong += 1;
            }
        }
    }
    assert!(right > 20_000 && wrong > 20_000, "{right} {wrong}");
}
