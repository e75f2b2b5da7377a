//! Operators that only move values.

use super::{count, f, float, fold, fold_some, i, int, ints, l, of, refused, text};
use crate::onnx::AttributeProto;
use crate::onnx::tensor::{Element, Tensor};

#[test]
fn what_only_moves_values() {
    let x = count(&[2, 3]);
    for (op, attributes, list, opset, shape) in [
        ("Reshape", vec![], Some(l(&[3, 2])), 5, vec![3, 2]),
        ("Reshape", vec![], Some(l(&[0, -1, 1])), 13, vec![2, 3, 1]),
        ("Reshape", vec![], Some(l(&[-1])), 13, vec![6]),
        ("Flatten", vec![], None, 9, vec![2, 3]),
        ("Flatten", vec![int("axis", 0)], None, 9, vec![1, 6]),
        ("Flatten", vec![int("axis", -2)], None, 11, vec![1, 6]),
        ("Flatten", vec![int("axis", 2)], None, 11, vec![6, 1]),
        ("Unsqueeze", vec![ints("axes", &[0, 3])], None, 11, vec![1, 2, 3, 1]),
        ("Unsqueeze", vec![], Some(l(&[-1, 0])), 13, vec![1, 2, 3, 1]),
        ("Identity", vec![], None, 13, vec![2, 3]),
        ("Dropout", vec![], None, 12, vec![2, 3]),
    ] {
        let inputs = [&[&x][..], &list.as_ref().into_iter().collect::<Vec<_>>()].concat();
        assert_eq!(fold(op, &attributes, &inputs, opset), x.clone().reshaped(shape), "{op}");
    }
    for list in [&[4][..], &[-1, -1], &[-1, 4], &[0, 0, 0], &[-2, 3], &[i64::MAX, i64::MAX], &[0, -1, 7]] {
        refused("Reshape", &[], &[&x, &l(list)], 13);
    }
    let empty = f(&[0, 3], &[]);
    assert_eq!(fold("Reshape", &[int("allowzero", 1)], &[&empty, &l(&[3, 0])], 14), f(&[3, 0], &[]));
    refused("Reshape", &[int("allowzero", 1)], &[&x, &l(&[0, 3])], 14);
    refused("Reshape", &[], &[&empty, &l(&[0, -1])], 14);
    refused("Flatten", &[int("axis", 3)], &[&x], 13);
    refused("Unsqueeze", &[], &[&x, &l(&[0, 0])], 13);
    refused("Unsqueeze", &[], &[&x, &l(&[4])], 13);
    refused("Unsqueeze", &[], &[&x, &i(&[200], &[0; 200])], 13);
    let thin = x.clone().reshaped(vec![1, 2, 1, 3]);
    assert_eq!(fold("Squeeze", &[], &[&thin], 11), x);
    assert_eq!(fold("Squeeze", &[ints("axes", &[-2])], &[&thin], 11), x.clone().reshaped(vec![1, 2, 3]));
    assert_eq!(fold("Squeeze", &[], &[&thin, &l(&[0])], 13), x.clone().reshaped(vec![2, 1, 3]));
    refused("Squeeze", &[], &[&thin, &l(&[1])], 13);

    assert_eq!(fold("Transpose", &[], &[&x], 13), f(&[3, 2], &[0.0, 3.0, 1.0, 4.0, 2.0, 5.0]));
    let turned = fold("Transpose", &[ints("perm", &[2, 0, 1])], &[&count(&[2, 2, 2])], 13);
    assert_eq!(turned, f(&[2, 2, 2], &[0.0, 2.0, 4.0, 6.0, 1.0, 3.0, 5.0, 7.0]));
    refused("Transpose", &[ints("perm", &[0, 0])], &[&x], 13);
    refused("Transpose", &[ints("perm", &[0])], &[&x], 13);

    assert_eq!(
        fold("Expand", &[], &[&f(&[2, 1], &[1.0, 2.0]), &l(&[2])], 8),
        f(&[2, 2], &[1.0, 1.0, 2.0, 2.0])
    );
    assert_eq!(fold("Expand", &[], &[&f(&[1], &[7.0]), &l(&[0])], 8), f(&[0], &[]));
    refused("Expand", &[], &[&x, &l(&[2])], 8);
    refused("Expand", &[], &[&x, &l(&[1 << 30, 1, 1])], 8);
    assert_eq!(
        fold("Tile", &[], &[&f(&[2, 1], &[1.0, 2.0]), &l(&[2, 2])], 13),
        f(&[4, 2], &[1.0, 1.0, 2.0, 2.0, 1.0, 1.0, 2.0, 2.0])
    );
    refused("Tile", &[], &[&x, &l(&[2])], 13);
    refused("Tile", &[], &[&x, &l(&[1 << 40, 1 << 40])], 13);
    let word = l(&[5, 6, 7]);
    assert_eq!(fold("Gather", &[], &[&word, &i(&[], &[-1])], 11), i(&[], &[7]));
    assert_eq!(
        fold("Gather", &[int("axis", 1)], &[&x, &i(&[1, 2], &[2, 0])], 11),
        f(&[2, 1, 2], &[2.0, 0.0, 5.0, 3.0])
    );
    for index in [3, -4, i64::MIN, i64::MAX] {
        refused("Gather", &[], &[&word, &i(&[], &[index])], 11);
    }
    let depth = fold("DepthToSpace", &[int("blocksize", 2)], &[&count(&[1, 8, 1, 1])], 11);
    assert_eq!(depth, f(&[1, 2, 2, 2], &[0.0, 2.0, 4.0, 6.0, 1.0, 3.0, 5.0, 7.0]));
    let crd = [int("blocksize", 2), text("mode", "CRD")];
    assert_eq!(fold("DepthToSpace", &crd, &[&count(&[1, 8, 1, 1])], 11), count(&[1, 2, 2, 2]));
    assert_eq!(fold("SpaceToDepth", &[int("blocksize", 2)], &[&depth], 11), count(&[1, 8, 1, 1]));
    assert_eq!(fold("SpaceToDepth", &crd, &[&count(&[1, 2, 2, 2])], 28), count(&[1, 8, 1, 1]));
    refused("DepthToSpace", &[int("blocksize", 3)], &[&count(&[1, 8, 1, 1])], 11);
    refused("DepthToSpace", &[int("blocksize", i64::MAX)], &[&count(&[1, 8, 1, 1])], 11);
}

#[test]
fn slices() {
    let x = count(&[2, 5]);
    // Row 1 from place `a` to `b`.
    let row = |start: i64, end: i64, step: i64| {
        let lists = [l(&[1, start]), l(&[2, end]), l(&[0, -1]), l(&[1, step])];
        let result = fold("Slice", &[], &[&x, &lists[0], &lists[1], &lists[2], &lists[3]], 10);
        assert_eq!(result.shape[0], 1);
        result.reals().iter().map(|v| *v as i64 - 5).collect::<Vec<_>>()
    };
    assert_eq!(row(1, 3, 1), [1, 2]);
    assert_eq!(row(-2, i64::MAX, 1), [3, 4]);
    assert_eq!(row(0, -1, 2), [0, 2]);
    assert_eq!(row(-1, i64::MIN, -1), [4, 3, 2, 1, 0]);
    assert_eq!(row(-1, -i64::MAX, -3), [4, 1]);
    assert_eq!(row(9, 0, -2), [4, 2]);
    assert_eq!(row(i64::MIN, i64::MAX, i64::MAX), [0]);
    assert_eq!(row(i64::MAX, i64::MIN, i64::MIN), [4]);
    assert_eq!(row(3, 1, 1), [0i64; 0]);
    assert_eq!(row(1, 3, -1), [0i64; 0]);
    // As attributes, and without axes.
    let attributes = [ints("starts", &[1, 0]), ints("ends", &[9, 2])];
    assert_eq!(fold("Slice", &attributes, &[&x], 9), f(&[1, 2], &[5.0, 6.0]));
    assert_eq!(fold("Slice", &[], &[&x, &l(&[1]), &l(&[2])], 13), f(&[1, 5], &[5.0, 6.0, 7.0, 8.0, 9.0]));
    let empty = f(&[0, 2], &[]);
    assert_eq!(fold("Slice", &[], &[&empty, &l(&[-1]), &l(&[-9]), &l(&[0]), &l(&[-1])], 13), empty);
    refused("Slice", &[], &[&x, &l(&[1]), &l(&[2]), &l(&[0]), &l(&[0])], 13);
    refused("Slice", &[], &[&x, &l(&[1]), &l(&[2, 3])], 13);
    refused("Slice", &[], &[&x, &l(&[1]), &l(&[2]), &l(&[2])], 13);
    refused("Slice", &[], &[&x, &l(&[1, 1]), &l(&[2, 2]), &l(&[0, -2])], 13);
    refused("Slice", &[], &[&x, &f(&[1], &[1.0]), &l(&[2])], 13);
}

#[test]
fn padding() {
    let x = count(&[1, 3]);
    let pad = |mode: &str, before: i64, after: i64| {
        let result = fold("Pad", &[text("mode", mode)], &[&x, &l(&[0, before, 0, after])], 13);
        result.reals().iter().map(|v| *v as i64).collect::<Vec<_>>()
    };
    assert_eq!(pad("constant", 1, 2), [0, 0, 1, 2, 0, 0]);
    assert_eq!(pad("constant", -1, 1), [1, 2, 0]);
    assert_eq!(pad("edge", 2, 1), [0, 0, 0, 1, 2, 2]);
    assert_eq!(pad("reflect", 2, 1), [2, 1, 0, 1, 2, 1]);
    assert_eq!(pad("wrap", 1, 2), [2, 0, 1, 2, 0, 1]);
    assert_eq!(pad("constant", -2, -1), [0i64; 0]);
    assert_eq!(fold("Pad", &[], &[&i(&[1], &[3]), &l(&[1, 1]), &i(&[], &[7])], 13), l(&[7, 3, 7]));
    let with_axes = [&x, &l(&[1, 0]), &f(&[], &[0.5]), &l(&[-1])];
    assert_eq!(fold("Pad", &[], &with_axes, 18), f(&[1, 4], &[0.5, 0.0, 1.0, 2.0]));
    let attributes = [ints("pads", &[0, 0, 1, 0]), float("value", 4.0)];
    assert_eq!(fold("Pad", &attributes, &[&x], 9), f(&[2, 3], &[0.0, 1.0, 2.0, 4.0, 4.0, 4.0]));
    let two = fold("Pad", &[], &[&count(&[2, 2]), &l(&[1, 0, 0, 1])], 13);
    assert_eq!(two, f(&[3, 3], &[0.0, 0.0, 0.0, 0.0, 1.0, 0.0, 2.0, 3.0, 0.0]));
    refused("Pad", &[], &[&x, &l(&[0, 1])], 13);
    refused("Pad", &[], &[&x, &l(&[0, -2, 0, -2])], 13);
    refused("Pad", &[], &[&x, &l(&[0, i64::MAX, 0, i64::MAX])], 13);
    refused("Pad", &[], &[&x, &l(&[0, 1 << 40, 0, 0])], 13);
    refused("Pad", &[text("mode", "odd")], &[&x, &l(&[0; 4])], 13);
    refused("Pad", &[text("mode", "edge")], &[&f(&[0], &[]), &l(&[1, 0])], 13);
}

#[test]
fn parts_and_their_joining() {
    let x = count(&[2, 5]);
    let split = |attributes: &[AttributeProto], sizes: Option<&Tensor>, opset, outputs| {
        let inputs = if sizes.is_some() { vec![Some(&x), sizes] } else { vec![Some(&x)] };
        fold_some("Split", attributes, &inputs, opset, outputs).map(|parts| parts.unwrap())
    };
    let columns =
        [f(&[2, 2], &[0.0, 1.0, 5.0, 6.0]), f(&[2, 2], &[2.0, 3.0, 7.0, 8.0]), f(&[2, 1], &[4.0, 9.0])];
    let along = int("axis", -1);
    assert_eq!(split(&[along.clone(), ints("split", &[2, 2, 1])], None, 11, 3).unwrap(), columns);
    assert_eq!(split(std::slice::from_ref(&along), Some(&l(&[2, 2, 1])), 13, 3).unwrap(), columns);
    assert_eq!(split(&[along.clone(), int("num_outputs", 3)], None, 18, 3).unwrap(), columns);
    let rows = split(&[], None, 13, 2).unwrap();
    assert_eq!(rows, [count(&[1, 5]), f(&[1, 5], &[5.0, 6.0, 7.0, 8.0, 9.0])]);
    assert!(split(std::slice::from_ref(&along), None, 13, 3).is_err());
    assert!(split(std::slice::from_ref(&along), Some(&l(&[2, 2])), 13, 3).is_err());
    assert!(split(std::slice::from_ref(&along), Some(&l(&[6, -1])), 13, 2).is_err());
    assert!(split(&[along.clone(), int("num_outputs", -1)], None, 18, 3).is_err());

    let [a, b, c] = &columns;
    assert_eq!(fold("Concat", std::slice::from_ref(&along), &[a, b, c], 13), x);
    assert_eq!(fold("Concat", &[int("axis", 0)], &[&rows[0], &rows[1]], 13), x);
    assert_eq!(fold("Concat", &[int("axis", 0)], &[&l(&[1]), &l(&[]), &l(&[2])], 13), l(&[1, 2]));
    refused("Concat", &[int("axis", 0)], &[a, c], 13);
    refused("Concat", &[int("axis", 0)], &[&l(&[1]), &f(&[1], &[1.0])], 13);
    refused("Concat", &[int("axis", 1)], &[&l(&[1])], 13);
    refused("Concat", &[int("axis", 0)], &[], 13);

    let mask = fold_some("Dropout", &[], &[Some(&x)], 13, 2).unwrap().unwrap();
    assert_eq!(mask[1], of(Element::Bool, &[2, 5], &[1; 10]));
}
