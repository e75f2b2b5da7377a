//! Types of fewer than eight bits and floats of eight, and weights that are quantised to them.

use super::{changed, f, fold, int, l, of, refused, said, tensor};
use crate::onnx::TensorProto;
use crate::onnx::tensor::{Data, Element, Tensor};

fn read(t: TensorProto) -> Result<Tensor, String> {
    match changed(|g| g.initializer[0] = TensorProto { name: "w".to_owned(), ..t }) {
        Ok(parsed) => Ok(parsed.constants["w"].clone()),
        error => Err(said(error)),
    }
}

/// In both forms.
fn both(data_type: i32, count: i64, bytes: &[u8]) -> [Result<Tensor, String>; 2] {
    let shape = || TensorProto { data_type, dims: vec![count], ..Default::default() };
    let typed = bytes.iter().map(|&byte| byte.into()).collect();
    [
        read(TensorProto { raw_data: bytes.to_vec(), ..shape() }),
        read(TensorProto { int32_data: typed, ..shape() }),
    ]
}

/// Bytes as the onnx package packs them.
#[test]
fn several_elements_share_a_byte() {
    for (data_type, element, bytes, values) in [
        (22, Element::Int4, &[120, 3][..], &[-8, 7, 3][..]),
        (21, Element::Uint4, &[31, 9], &[15, 1, 9]),
        (26, Element::Int2, &[0b0011_1001, 0b0000_0001], &[1, -2, -1, 0, 1]),
        (25, Element::Uint2, &[81, 0], &[1, 0, 1, 1, 0]),
        (22, Element::Int4, &[0xff], &[-1, -1]),
        (21, Element::Uint4, &[], &[]),
    ] {
        let count = values.len() as i64;
        for found in both(data_type, count, bytes) {
            let expected = Tensor { shape: vec![values.len()], data: Data::Int(values.to_vec()), element };
            assert_eq!(found.unwrap(), expected);
        }
        // Bytes for more or fewer elements than the shape has.
        for count in [count + 8, count.saturating_sub(8) - 8] {
            for found in both(data_type, count, bytes) {
                assert!(found.unwrap_err().contains("constant w"));
            }
        }
    }
    let odd = TensorProto { data_type: 22, dims: vec![2], int32_data: vec![256], ..Default::default() };
    assert!(read(odd).unwrap_err().contains("outside of type INT4"));
    // As a signed byte.
    let signed = TensorProto { data_type: 22, dims: vec![2], int32_data: vec![-1], ..Default::default() };
    assert_eq!(read(signed).unwrap().integers().unwrap(), [-1, -1]);
    let huge =
        TensorProto { data_type: 22, dims: vec![i64::MAX], raw_data: vec![0; 9], ..Default::default() };
    assert!(read(huge).unwrap_err().contains("constant w"));
    assert!(both(22, 3, &[0; 3]).into_iter().chain(both(22, 5, &[0; 2])).all(|found| found.is_err()));
}

/// Every number of every type, against what the package ml_dtypes makes of it: a few of them, the sum of all sizes, and the
/// sum of all weighted by their bits.
#[test]
fn floats_of_eight_bits() {
    let all: Vec<u8> = (0..=255).collect();
    let cases = [
        (17, Element::Float8E4M3Fn, 448.0, 10815.75, -692208.0, &[127, 255][..]),
        (18, Element::Float8E4M3Fnuz, 240.0, 5887.875, -376824.0, &[128]),
        (
            19,
            Element::Float8E5M2,
            57344.0,
            720895.9995117188,
            -46137343.96875,
            &[125, 126, 127, 253, 254, 255],
        ),
        (20, Element::Float8E5M2Fnuz, 57344.0, 720895.9997558594, -46137343.984375, &[128]),
    ];
    for (data_type, element, most, sizes, weighted, none) in cases {
        for found in both(data_type, 256, &all) {
            let found = found.unwrap();
            assert_eq!(found.element, element);
            let values = found.reals();
            let finite = || values.iter().enumerate().filter(|(_, v)| v.is_finite());
            assert_eq!(finite().map(|(_, v)| v.abs()).fold(0.0, f64::max), most);
            assert_eq!(finite().map(|(_, v)| v.abs()).sum::<f64>(), sizes);
            assert_eq!(finite().map(|(bits, v)| v * bits as f64).sum::<f64>(), weighted);
            let nan: Vec<usize> = (0..256).filter(|&bits| values[bits].is_nan()).collect();
            assert_eq!(nan, none);
            let infinite: Vec<usize> = (0..256).filter(|&bits| values[bits].is_infinite()).collect();
            assert_eq!(infinite, if data_type == 19 { vec![124, 252] } else { vec![] });
            // Whatever is one already stays, and what is beyond becomes the largest.
            finite().for_each(|(bits, &v)| assert_eq!(element.nearest(v), v, "{bits}"));
            assert_eq!([1e9, -1e9, f64::INFINITY].map(|v| element.nearest(v)), [most, -most, most]);
            assert!(element.nearest(f64::NAN).is_nan());
        }
    }
    let bits: Vec<u8> = (0..8).map(|i| (2 * i) | ((2 * i + 1) << 4)).collect();
    let expected = [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0];
    let expected = expected.iter().copied().chain(expected.iter().map(|v| -v)).collect::<Vec<f64>>();
    for found in both(23, 16, &bits) {
        assert_eq!(found.unwrap().reals(), expected);
    }
    assert_eq!([2.5, 5.0, 5.1, 100.0].map(|v| Element::Float4E2M1.nearest(v)), [2.0, 4.0, 6.0, 6.0]);
    let half = Tensor::floats(vec![3], vec![0.3, 1000.0, -17.0]).cast(Element::Float8E4M3Fn);
    assert_eq!(half.reals().as_ref(), [0.3125, 448.0, -16.0]);
    let text = refused("Cast", &[int("to", 17), int("saturate", 0)], &[&f(&[1], &[1.0])], 19);
    assert!(text.contains("saturate"), "{text}");
}

/// With the values that ONNX Runtime 1.32 gives.
#[test]
fn weights_of_four_and_eight_bits_become_real_numbers() {
    let check = |inputs: &[&Tensor], attributes: &[(&str, i64)], expected: &[f64]| {
        let attributes: Vec<_> = attributes.iter().map(|&(name, value)| int(name, value)).collect();
        let found = fold("DequantizeLinear", &attributes, inputs, 23);
        assert_eq!((found.element, found.reals().as_ref()), (Element::Float, expected));
    };
    let int4 = |shape: &[usize], values: &[i64]| of(Element::Int4, shape, values);
    let uint4 = |shape: &[usize], values: &[i64]| of(Element::Uint4, shape, values);
    check(
        &[&int4(&[2, 3], &[-8, 7, 3, -1, 0, 5]), &f(&[], &[0.5]), &int4(&[], &[2])],
        &[],
        &[-5.0, 2.5, 0.5, -1.5, -1.0, 1.5],
    );
    check(
        &[&uint4(&[2, 3], &[15, 0, 3, 9, 1, 5]), &f(&[3], &[0.5, 2.0, 0.25]), &uint4(&[3], &[1, 0, 15])],
        &[("axis", 1)],
        &[7.0, 0.0, -3.0, 4.0, 2.0, -2.5],
    );
    check(
        &[
            &int4(&[2, 4], &[-8, 7, 3, -1, 0, 5, -4, 2]),
            &f(&[2, 2], &[0.5, 2.0, 1.0, 0.25]),
            &int4(&[2, 2], &[1, -1, 0, 7]),
        ],
        &[("axis", 1), ("block_size", 2)],
        &[-4.5, 3.0, 8.0, 0.0, 0.0, 5.0, -2.75, -1.25],
    );
    check(
        &[&int4(&[3, 2], &[-8, 7, 3, -1, 0, 5]), &f(&[2, 2], &[0.5, 2.0, 1.0, 0.25])],
        &[("axis", 0), ("block_size", 2)],
        &[-4.0, 14.0, 1.5, -2.0, 0.0, 1.25],
    );
    let small = |element: Element, values: &[f64]| f(&[values.len()], values).cast(element);
    for (element, values, scale, expected) in [
        (Element::Float8E4M3Fn, [1.5, -448.0, 0.001953125], 0.5, [0.75, -224.0, 0.0009765625]),
        (Element::Float8E5M2, [1.5, -57344.0, 2f64.powi(-16)], 2.0, [3.0, -114688.0, 2f64.powi(-15)]),
        (Element::Float8E4M3Fnuz, [1.5, -240.0, 2f64.powi(-10)], 2.0, [3.0, -480.0, 2f64.powi(-9)]),
    ] {
        let zero = small(element, &[0.0]).reshaped(vec![]);
        check(&[&small(element, &values), &f(&[], &[scale]), &zero], &[], &expected);
        check(&[&small(element, &values), &f(&[], &[scale])], &[], &expected);
    }
    // Blocks that do not fit, and a zero point that is no number or of another kind.
    let weights = int4(&[2, 4], &[1; 8]);
    let scales = f(&[2, 2], &[1.0; 4]);
    for block in [1, 4, -2, i64::MAX, i64::MIN] {
        refused("DequantizeLinear", &[int("axis", 1), int("block_size", block)], &[&weights, &scales], 23);
    }
    let zero = f(&[], &[1.0]);
    assert!(refused("DequantizeLinear", &[], &[&weights, &f(&[], &[1.0]), &zero], 23).contains("zero point"));
    let none = small(Element::Float8E4M3Fn, &[f64::NAN]).reshaped(vec![]);
    assert!(refused("DequantizeLinear", &[], &[&weights, &f(&[], &[1.0]), &none], 23).contains("zero point"));
    assert!(refused("DequantizeLinear", &[], &[&weights, &l(&[1, 2, 3])], 23).contains("scales"));
}

/// A device's numbers are not rounded to such types.
#[test]
fn the_input_has_none_of_these_types() {
    for (data_type, name) in [(17, "FLOAT8E4M3FN"), (22, "INT4"), (23, "FLOAT4E2M1")] {
        let text = said(changed(|g| {
            let input = g.input[0].r#type.as_mut().unwrap().tensor_type.as_mut().unwrap();
            input.elem_type = data_type;
            g.initializer[0] = tensor("w", &[4], &[1.0; 4]);
        }));
        assert!(text.contains(name), "{text}");
    }
}

/// Runtimes round them, and the standard says that they are cut off.
#[test]
fn fractions_are_not_cast_to_few_bits() {
    let whole = f(&[3], &[1.0, -2.0, 0.0]);
    for (number, element) in
        [(21, Element::Uint4), (22, Element::Int4), (25, Element::Uint2), (26, Element::Int2)]
    {
        for values in [[1.5, 0.0, 1.0], [0.0, -0.25, 1.0], [0.0, 1.0, f64::NAN]] {
            let like = of(element, &[1], &[0]);
            let text = refused("Cast", &[int("to", number)], &[&f(&[3], &values)], 25);
            assert!(text.contains("fractions") && text.contains("Round"), "{text}");
            assert!(refused("CastLike", &[], &[&f(&[3], &values), &like], 25).contains("fractions"));
        }
        assert_eq!(fold("Cast", &[int("to", number)], &[&whole], 25), whole.cast(element));
    }
    assert_eq!(
        fold("Cast", &[int("to", 3)], &[&f(&[2], &[1.5, -1.5])], 25),
        of(Element::Int8, &[2], &[1, -1])
    );
    assert_eq!(fold("Cast", &[int("to", 17)], &[&f(&[1], &[1.5])], 25).reals().as_ref(), [1.5]);
}
