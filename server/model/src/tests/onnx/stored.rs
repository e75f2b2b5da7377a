//! Constants of all types, in the file and in files next to it.

use std::fs;
use std::path::PathBuf;

use prost::Message;

use super::{changed, node, said, sum, tensor};
use crate::onnx::file::parse;
use crate::onnx::tensor::{Data, Element, Tensor, from_half};
use crate::onnx::{
    AttributeProto, NodeProto, SegmentProto, StringStringEntryProto, TensorProto, attribute_type,
};

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
    for data_type in [0, 8, 14, 15, 24, -5, 99] {
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
        let value = from_half(bits);
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
pub struct Folder(pub PathBuf);

impl Folder {
    pub fn new(name: &str) -> Folder {
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

pub fn external(entries: &[(&str, &str)]) -> TensorProto {
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
