//! Operators on constants.

use super::{attribute, call, count, f, float, fold, fold_some, i, int, ints, l, of, refused, text};
use crate::onnx::constants::of_shape;
use crate::onnx::places::{OUTSIDE, moved};
use crate::onnx::tensor::{Element, Tensor};
use crate::onnx::{AttributeProto, TensorProto, attribute_type};

#[test]
fn constants_in_all_forms() {
    let make = |attribute: AttributeProto| fold("Constant", &[attribute], &[], 13);
    let tensor = TensorProto { dims: vec![2], data_type: 9, int32_data: vec![1, 0], ..Default::default() };
    let with = |t: TensorProto| AttributeProto { t: Some(t), ..attribute("value", attribute_type::TENSOR) };
    assert_eq!(make(with(tensor.clone())), of(Element::Bool, &[2], &[1, 0]));
    assert_eq!(make(float("value_float", 1.5)), f(&[], &[1.5]));
    let floats =
        AttributeProto { floats: vec![1.5, 2.0], ..attribute("value_floats", attribute_type::FLOATS) };
    assert_eq!(make(floats), f(&[2], &[1.5, 2.0]));
    assert_eq!(make(int("value_int", -3)), i(&[], &[-3]));
    assert_eq!(make(ints("value_ints", &[4, 5])), l(&[4, 5]));
    for unread in [text("value_string", "a"), attribute("sparse_value", 11), int("value", 1)] {
        refused("Constant", &[unread], &[], 13);
    }
    refused("Constant", &[with(TensorProto { dims: vec![3], ..tensor })], &[], 13);

    let two = TensorProto { dims: vec![1], data_type: 7, int64_data: vec![2], ..Default::default() };
    assert_eq!(fold("ConstantOfShape", &[with(two.clone())], &[&l(&[2, 3])], 9), i(&[2, 3], &[2; 6]));
    assert_eq!(fold("ConstantOfShape", &[], &[&l(&[2])], 9), f(&[2], &[0.0; 2]));
    assert_eq!(fold("ConstantOfShape", &[], &[&l(&[])], 9), f(&[], &[0.0]));
    assert_eq!(fold("ConstantOfShape", &[], &[&l(&[0, 2])], 9), f(&[0, 2], &[]));
    refused("ConstantOfShape", &[], &[&l(&[-1])], 9);
    refused("ConstantOfShape", &[], &[&l(&[1 << 40, 1 << 40])], 9);
    let pair = TensorProto { dims: vec![2], int64_data: vec![2, 2], ..two };
    refused("ConstantOfShape", &[with(pair)], &[&l(&[1])], 9);

    let range = |a, b, c| fold("Range", &[], &[&i(&[], &[a]), &i(&[], &[b]), &i(&[], &[c])], 11);
    assert_eq!(
        [range(3, 9, 3), range(10, 4, -2), range(0, 0, 1), range(5, 4, 1)],
        [l(&[3, 6]), l(&[10, 8, 6]), l(&[]), l(&[])]
    );
    let range = |a, b, c| fold("Range", &[], &[&f(&[], &[a]), &f(&[], &[b]), &f(&[], &[c])], 11);
    assert_eq!(range(1.0, 2.1, 0.5), f(&[3], &[1.0, 1.5, 2.0]));
    refused("Range", &[], &[&i(&[], &[0]), &i(&[], &[1]), &i(&[], &[0])], 11);
    refused("Range", &[], &[&i(&[], &[i64::MIN]), &i(&[], &[i64::MAX]), &i(&[], &[1])], 11);
    refused("Range", &[], &[&f(&[], &[0.0]), &f(&[], &[f64::INFINITY]), &f(&[], &[1.0])], 11);
    refused("Range", &[], &[&f(&[], &[0.0]), &f(&[], &[1.0]), &f(&[], &[0.0])], 11);
    assert_eq!(fold("NonZero", &[], &[&i(&[2, 2], &[0, 1, 2, 0])], 9), i(&[2, 2], &[0, 1, 1, 0]));
}

#[test]
fn shapes_of_values_that_need_not_be_constant() {
    let shape =
        |attributes: &[AttributeProto]| of_shape(&call("Shape", attributes, &[], 1), &[1, 3, 8]).unwrap();
    assert_eq!(shape(&[]), l(&[1, 3, 8]));
    assert_eq!(shape(&[int("start", 1)]), l(&[3, 8]));
    assert_eq!(shape(&[int("start", -9), int("end", -1)]), l(&[1, 3]));
    assert_eq!(shape(&[int("start", 2), int("end", 1)]), l(&[]));
    assert_eq!(shape(&[int("start", i64::MIN), int("end", i64::MAX)]), l(&[1, 3, 8]));
    assert_eq!(of_shape(&call("Size", &[], &[], 1), &[1, 3, 8]).unwrap(), i(&[], &[24]));
    assert_eq!(fold("Shape", &[], &[&count(&[2, 0])], 9), l(&[2, 0]));
}

#[test]
fn casts_keep_to_their_type() {
    let cast = |x: &Tensor, to: i64| fold("Cast", &[int("to", to)], &[x], 13);
    assert_eq!(cast(&f(&[3], &[1.9, -1.9, 300.0]), 7), l(&[1, -1, 300]));
    assert_eq!(cast(&f(&[2], &[1.5, 300.0]), 2), of(Element::Uint8, &[2], &[1, 44]));
    assert_eq!(cast(&l(&[0, -7]), 9), of(Element::Bool, &[2], &[0, 1]));
    assert_eq!(cast(&l(&[1 << 40]), 6), of(Element::Int32, &[1], &[0]));
    assert_eq!(cast(&l(&[16_777_217]), 1), f(&[1], &[16_777_216.0]));
    assert_eq!(cast(&f(&[2], &[0.1, 70000.0]), 10).reals().as_ref(), [0.0999755859375, f64::INFINITY]);
    assert_eq!(cast(&f(&[2], &[f64::NAN, f64::INFINITY]), 7), l(&[0, i64::MAX]));
    assert_eq!(fold("CastLike", &[], &[&f(&[1], &[2.5]), &l(&[0])], 15), l(&[2]));
    for to in [0, 8, 24, -1, i64::MAX] {
        assert!(refused("Cast", &[int("to", to)], &[&l(&[1])], 13).contains("is not supported"));
    }
    refused("Cast", &[], &[&l(&[1])], 13);
}

#[test]
fn arithmetic_of_values() {
    let pair = |op: &str, a: &Tensor, b: &Tensor| fold(op, &[], &[a, b], 13);
    let (a, b) = (l(&[7, -7, 7, -7]), l(&[2, 2, -2, -2]));
    for (op, values) in [
        ("Add", [9, -5, 5, -9]),
        ("Sub", [5, -9, 9, -5]),
        ("Mul", [14, -14, -14, 14]),
        ("Div", [3, -3, -3, 3]),
        ("Mod", [1, 1, -1, -1]),
        ("Min", [2, -7, -2, -7]),
        ("Max", [7, 2, 7, -2]),
    ] {
        assert_eq!(pair(op, &a, &b), l(&values), "{op}");
    }
    assert_eq!(fold("Mod", &[int("fmod", 1)], &[&a, &b], 13), l(&[1, -1, 1, -1]));
    assert_eq!(pair("Div", &f(&[1], &[7.0]), &f(&[], &[2.0])), f(&[1], &[3.5]));
    assert_eq!(pair("Div", &f(&[1], &[1.0]), &f(&[], &[0.0])), f(&[1], &[f64::INFINITY]));
    refused("Div", &[], &[&a, &l(&[0])], 13);
    refused("Mod", &[], &[&a, &l(&[0])], 13);
    assert_eq!(pair("Div", &l(&[i64::MIN]), &l(&[-1])), l(&[i64::MIN]));
    assert_eq!(pair("Add", &l(&[i64::MAX]), &l(&[1])), l(&[i64::MIN]));
    assert_eq!(pair("Pow", &l(&[3, 2]), &l(&[2, 10])), l(&[9, 1024]));
    assert_eq!(pair("Pow", &f(&[1], &[2.0]), &l(&[-1])), f(&[1], &[0.5]));
    // Rounded to the type of the operands.
    assert_eq!(pair("Add", &f(&[1], &[16_777_216.0]), &f(&[1], &[1.0])), f(&[1], &[16_777_216.0]));
    let byte = |v| of(Element::Uint8, &[1], &[v]);
    assert_eq!(pair("Add", &byte(200), &byte(100)), byte(44));
    let sums = pair("Add", &f(&[2, 1], &[0.0, 10.0]), &f(&[3], &[1.0, 2.0, 3.0]));
    assert_eq!(sums, f(&[2, 3], &[1.0, 2.0, 3.0, 11.0, 12.0, 13.0]));
    refused("Add", &[], &[&l(&[1, 2]), &l(&[1, 2, 3])], 13);
    refused("Add", &[], &[&l(&[1])], 13);
    let three = [&l(&[1, 5]), &l(&[4]), &l(&[2, 2])];
    assert_eq!(
        [fold("Max", &[], &three, 13), fold("Min", &[], &three, 13), fold("Sum", &[], &three, 13)],
        [l(&[4, 5]), l(&[1, 2]), l(&[7, 11])]
    );
    assert_eq!(fold("Mean", &[], &[&f(&[1], &[1.0]), &f(&[1], &[2.0])], 13), f(&[1], &[1.5]));

    let truth = |values: &[i64]| of(Element::Bool, &[values.len()], values);
    let (x, y) = (l(&[1, 2, 3]), l(&[2]));
    for (op, values) in [
        ("Equal", [0, 1, 0]),
        ("Less", [1, 0, 0]),
        ("LessOrEqual", [1, 1, 0]),
        ("Greater", [0, 0, 1]),
        ("GreaterOrEqual", [0, 1, 1]),
    ] {
        assert_eq!(pair(op, &x, &y), truth(&values), "{op}");
        assert_eq!(pair(op, &x.cast(Element::Float), &y.cast(Element::Float)), truth(&values), "{op}");
    }
    let (p, q) = (truth(&[0, 0, 1, 1]), truth(&[0, 1, 0, 1]));
    assert_eq!(
        [pair("And", &p, &q), pair("Or", &p, &q), pair("Xor", &p, &q)],
        [truth(&[0, 0, 0, 1]), truth(&[0, 1, 1, 1]), truth(&[0, 1, 1, 0])]
    );
    assert_eq!(fold("Not", &[], &[&q], 13), truth(&[1, 0, 1, 0]));
    assert_eq!(
        fold("Where", &[], &[&truth(&[0, 1]), &l(&[5]), &i(&[2, 1], &[1, 2])], 13),
        i(&[2, 2], &[1, 5, 2, 5])
    );
    refused("Where", &[], &[&truth(&[0, 1]), &l(&[5]), &f(&[1], &[1.0])], 13);

    for (op, values) in [
        ("Neg", [2.5, -0.5, -4.0]),
        ("Abs", [2.5, 0.5, 4.0]),
        ("Sign", [-1.0, 1.0, 1.0]),
        ("Relu", [0.0, 0.5, 4.0]),
        ("Floor", [-3.0, 0.0, 4.0]),
        ("Ceil", [-2.0, 1.0, 4.0]),
        ("Round", [-2.0, 0.0, 4.0]),
        ("Reciprocal", [f64::from(-0.4f32), 2.0, 0.25]),
    ] {
        assert_eq!(fold(op, &[], &[&f(&[3], &[-2.5, 0.5, 4.0])], 13), f(&[3], &values), "{op}");
    }
    assert_eq!(fold("Sqrt", &[], &[&f(&[2], &[4.0, 2.0])], 13), f(&[2], &[2.0, f64::from(2f32.sqrt())]));
    assert_eq!(fold("Neg", &[], &[&l(&[i64::MIN, 3])], 13), l(&[i64::MIN, -3]));

    let x = f(&[3], &[-2.0, 0.5, 9.0]);
    assert_eq!(fold("Clip", &[float("min", -1.0), float("max", 6.0)], &[&x], 9), f(&[3], &[-1.0, 0.5, 6.0]));
    assert_eq!(fold("Clip", &[], &[&x, &f(&[], &[0.0])], 11), f(&[3], &[0.0, 0.5, 9.0]));
    let only_max = fold_some("Clip", &[], &[Some(&x), None, Some(&f(&[], &[6.0]))], 13, 1).unwrap().unwrap();
    assert_eq!(only_max, [f(&[3], &[-2.0, 0.5, 6.0])]);
    assert_eq!(fold("Clip", &[], &[&l(&[-5, 5]), &i(&[], &[0])], 12), l(&[0, 5]));
    refused("Clip", &[], &[&x, &f(&[2, 1], &[0.0, 1.0])], 11);
}

#[test]
fn reductions() {
    let x = f(&[2, 3], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
    for (op, values) in [
        ("ReduceSum", [6.0, 15.0]),
        ("ReduceMean", [2.0, 5.0]),
        ("ReduceProd", [6.0, 120.0]),
        ("ReduceMax", [3.0, 6.0]),
        ("ReduceMin", [1.0, 4.0]),
        ("ReduceL1", [6.0, 15.0]),
        ("ReduceSumSquare", [14.0, 77.0]),
    ] {
        // The axes as an attribute, and as an input.
        assert_eq!(fold(op, &[ints("axes", &[-1])], &[&x], 11), f(&[2, 1], &values), "{op}");
        assert_eq!(fold(op, &[int("keepdims", 0)], &[&x, &l(&[1])], 18), f(&[2], &values), "{op}");
        assert_eq!(
            fold(op, &[int("keepdims", 0)], &[&x.cast(Element::Int64), &l(&[1])], 18),
            l(&values.map(|v| v as i64))
        );
    }
    assert_eq!(fold("ReduceSum", &[], &[&x, &l(&[0])], 13), f(&[1, 3], &[5.0, 7.0, 9.0]));
    assert_eq!(fold("ReduceSum", &[], &[&x], 13), f(&[1, 1], &[21.0]));
    assert_eq!(fold("ReduceSum", &[int("noop_with_empty_axes", 1)], &[&x, &l(&[])], 13), x);
    assert_eq!(fold("ReduceL2", &[], &[&f(&[2], &[3.0, 4.0])], 18), f(&[1], &[5.0]));
    // Of no axes each value is for itself.
    let each = [int("noop_with_empty_axes", 1), int("keepdims", 0)];
    let signed = f(&[2], &[-3.0, 4.0]);
    for (op, first, second) in [
        ("ReduceMean", -3.0, 4.0),
        ("ReduceL1", 3.0, 4.0),
        ("ReduceL2", 3.0, 4.0),
        ("ReduceSumSquare", 9.0, 16.0),
    ] {
        assert_eq!(fold(op, &each, &[&signed], 18), f(&[2], &[first, second]), "{op}");
    }
    assert_eq!(fold("ReduceMax", &[], &[&l(&[])], 18), l(&[i64::MIN]).reshaped(vec![1]));
    refused("ReduceSum", &[], &[&x, &l(&[2])], 13);
    refused("ReduceSum", &[], &[&x, &l(&[0, 0])], 13);
}

#[test]
fn quantised_constants() {
    let x = of(Element::Int8, &[2, 2], &[-128, 0, 5, 127]);
    let zero = |values: &[i64]| of(Element::Int8, &[values.len()], values);
    let whole = fold("DequantizeLinear", &[], &[&x, &f(&[], &[0.5]), &of(Element::Int8, &[], &[1])], 10);
    assert_eq!(whole, f(&[2, 2], &[-64.5, -0.5, 2.0, 63.0]));
    let rows = fold("DequantizeLinear", &[int("axis", 0)], &[&x, &f(&[2], &[0.5, 2.0]), &zero(&[0, 5])], 13);
    assert_eq!(rows, f(&[2, 2], &[-64.0, 0.0, 0.0, 244.0]));
    let columns = fold("DequantizeLinear", &[], &[&x, &f(&[2], &[0.5, 2.0])], 13);
    assert_eq!(columns, f(&[2, 2], &[-64.0, 0.0, 2.5, 254.0]));
    let blocks = [int("axis", 1), int("block_size", 2)];
    let four = of(Element::Int8, &[1, 4], &[1, 2, 3, 4]);
    assert_eq!(
        fold("DequantizeLinear", &blocks, &[&four, &f(&[1, 2], &[1.0, 10.0])], 21),
        f(&[1, 4], &[1.0, 2.0, 30.0, 40.0])
    );
    let bias = of(Element::Int32, &[2], &[3, 4]);
    assert_eq!(
        fold("DequantizeLinear", &[int("axis", 0)], &[&bias, &f(&[2], &[0.5, 0.25])], 13),
        f(&[2], &[1.5, 1.0])
    );
    refused("DequantizeLinear", &[], &[&x, &f(&[3], &[1.0; 3])], 13);
    refused("DequantizeLinear", &[int("axis", 2)], &[&x, &f(&[2], &[1.0; 2])], 13);
    refused("DequantizeLinear", &[], &[&x, &f(&[2], &[1.0; 2]), &zero(&[1])], 13);
    refused("DequantizeLinear", &[], &[&x, &f(&[], &[f64::NAN])], 13);

    let reals = f(&[4], &[0.25, 0.75, -1000.0, 1000.0]);
    // Halves to even; beyond the type its bounds.
    assert_eq!(
        fold("QuantizeLinear", &[], &[&reals, &f(&[], &[0.5])], 10),
        of(Element::Uint8, &[4], &[0, 2, 0, 255])
    );
    let signed = fold("QuantizeLinear", &[], &[&reals, &f(&[], &[0.5]), &of(Element::Int8, &[], &[3])], 10);
    assert_eq!(signed, of(Element::Int8, &[4], &[3, 5, -128, 127]));
    let wide = fold("QuantizeLinear", &[int("output_dtype", 5)], &[&reals, &f(&[], &[0.5])], 21);
    assert_eq!(wide, of(Element::Int16, &[4], &[0, 2, -2000, 2000]));
    refused("QuantizeLinear", &[int("output_dtype", 1)], &[&reals, &f(&[], &[0.5])], 21);
    // 17.5 in single precision, and less in double.
    let half = fold("QuantizeLinear", &[], &[&f(&[1], &[5.25]), &f(&[], &[f64::from(0.3f32)])], 13);
    assert_eq!(half, of(Element::Uint8, &[1], &[18]));
    // 0 is as if it were not there.
    let narrow = fold("QuantizeLinear", &[int("output_dtype", 0)], &[&reals, &f(&[], &[0.5])], 21);
    assert_eq!(narrow, of(Element::Uint8, &[4], &[0, 2, 0, 255]));
    let back = fold("DequantizeLinear", &[int("output_dtype", 0)], &[&narrow, &f(&[], &[0.5])], 21);
    assert_eq!(back, f(&[4], &[0.0, 1.0, 0.0, 127.5]));
}

#[test]
fn products_of_matrices() {
    let (a, b) = (count(&[2, 3]), count(&[3, 2]));
    let product = f(&[2, 2], &[10.0, 13.0, 28.0, 40.0]);
    assert_eq!(fold("MatMul", &[], &[&a, &b], 13), product);
    assert_eq!(fold("MatMul", &[], &[&count(&[3]), &b], 13), f(&[2], &[10.0, 13.0]));
    assert_eq!(fold("MatMul", &[], &[&a, &count(&[3])], 13), f(&[2], &[5.0, 14.0]));
    assert_eq!(fold("MatMul", &[], &[&count(&[3]), &count(&[3])], 13), f(&[], &[5.0]));
    let batch = fold("MatMul", &[], &[&count(&[2, 1, 2]), &count(&[2, 1])], 13);
    assert_eq!(batch, f(&[2, 1, 1], &[1.0, 3.0]));
    refused("MatMul", &[], &[&a, &a], 13);
    refused("MatMul", &[], &[&f(&[], &[1.0]), &a], 13);

    assert_eq!(fold("Gemm", &[], &[&a, &b], 13), product);
    let turned = fold("Transpose", &[], &[&a], 13);
    let attributes = [int("transA", 1), int("transB", 1), float("alpha", 2.0), float("beta", 0.5)];
    let bias = f(&[2], &[2.0, 4.0]);
    let turned_b = fold("Transpose", &[], &[&b], 13);
    assert_eq!(
        fold("Gemm", &attributes, &[&turned, &turned_b, &bias], 13),
        f(&[2, 2], &[21.0, 28.0, 57.0, 82.0])
    );
    refused("Gemm", &[], &[&a, &a], 13);
    refused("Gemm", &[], &[&a, &b, &count(&[3])], 13);
    refused("Gemm", &[], &[&a, &count(&[3])], 13);
    let (tall, wide) = (count(&[4096, 1]), count(&[1, 4096]));
    assert_eq!(fold("MatMul", &[], &[&tall, &wide], 13).len(), 1 << 24);
    let square = count(&[2048, 2048]);
    assert!(refused("MatMul", &[], &[&square, &square], 13).contains("this large"));
}

#[test]
fn other_operators_and_inputs_that_are_missing() {
    let x = count(&[2]);
    for op in ["Conv", "Softmax", "If", "", "constant"] {
        assert!(fold_some(op, &[], &[Some(&x)], 13, 1).unwrap().is_none(), "{op}");
        assert!(fold_some(op, &[], &[], 13, 1).unwrap().is_none(), "{op}");
    }
    // Of a value that is no constant the places can be told, but not if they depend on another.
    let reshape = call("Reshape", &[], &[Some(&x), Some(&x)], 1);
    let text = moved(&reshape, &[2], &[None, None], 13).unwrap_err().to_string();
    assert!(text.contains("input i1 depends on the network's input"), "{text}");
    let pad = call("Pad", &[], &[Some(&x), Some(&x)], 1);
    let padded = moved(&pad, &[2], &[None, Some(&l(&[1, 0]))], 13).unwrap().unwrap();
    assert_eq!(padded[0].places.as_deref(), Some(&[OUTSIDE, 0, 1][..]));
}
