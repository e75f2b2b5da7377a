//! What picks or replaces values at constant places, sums of sizes, and running sums: with the values that ONNX Runtime 1.32
//! gives.

use super::{answer, close, counts, file, integers, numbers, refused, run, tensor, with};
use crate::onnx::{AttributeProto, TensorProto};
use crate::tests::onnx::{float, int, ints, quickly, text};

/// An INT64 constant of any shape.
fn indices(dims: &[i64], values: &[i64]) -> TensorProto {
    TensorProto { dims: dims.to_vec(), ..integers("i", values) }
}

fn bools(values: &[i32]) -> TensorProto {
    TensorProto {
        data_type: 9,
        int64_data: vec![],
        int32_data: values.to_vec(),
        ..indices(&[values.len() as i64], &[])
    }
}

fn up_to(count: usize) -> Vec<f64> {
    (0..count).map(|i| i as f64).collect()
}

#[test]
fn places_by_constant_indices() {
    let x = up_to(12);
    let check =
        |op: &str, shape: &[usize], attributes: &[AttributeProto], i: TensorProto, expected: &[f64]| {
            let inputs: &[&str] = if i.name.is_empty() { &["x"] } else { &["x", "i"] };
            let nodes = vec![with(op, inputs, &["y"], attributes)];
            close(&answer(18, shape, nodes, vec![i], &x), expected, op);
        };
    let m = &[3, 4][..];
    let none = TensorProto::default;
    check("Trilu", m, &[], none(), &[0., 1., 2., 3., 0., 5., 6., 7., 0., 0., 10., 11.]);
    let lower = [0., 1., 0., 0., 4., 5., 6., 0., 8., 9., 10., 11.];
    check("Trilu", m, &[int("upper", 0)], indices(&[], &[1]), &lower);
    check("Trilu", m, &[], indices(&[], &[-1]), &[0., 1., 2., 3., 4., 5., 6., 7., 0., 9., 10., 11.]);
    check("Trilu", m, &[], indices(&[], &[i64::MAX]), &[0.0; 12]);
    check(
        "GatherElements",
        m,
        &[int("axis", 1)],
        indices(&[1, 2, 4], &[0, 2, -1, 1, 1, 1, 0, 0]),
        &[0., 9., 10., 7., 4., 5., 2., 3.],
    );
    check("GatherElements", m, &[int("axis", 2)], indices(&[1, 2, 2], &[3, -4, 0, 1]), &[3., 0., 4., 5.]);
    let sequence = |batch: i64, time: i64| [int("batch_axis", batch), int("time_axis", time)];
    let turned = [0., 9., 2., 7., 4., 5., 6., 3., 8., 1., 10., 11.];
    check("ReverseSequence", m, &sequence(2, 1), integers("i", &[1, 3, 0, 2]), &turned);
    let turned = [8., 9., 10., 11., 4., 5., 6., 7., 0., 1., 2., 3.];
    check("ReverseSequence", m, &sequence(0, 1), integers("i", &[3]), &turned);
    check("Compress", m, &[int("axis", 2)], bools(&[1, 0, 1]), &[0., 2., 4., 6., 8., 10.]);
    check("Compress", m, &[], bools(&[0, 1, 1, 0, 1]), &[1., 2., 4.]);
    check("CenterCropPad", m, &[], integers("i", &[1, 6, 1]), &[0., 1., 5., 9., 0., 0.]);
    let padded = [0., 1., 2., 4., 5., 6., 8., 9., 10., 0., 0., 0.];
    check("CenterCropPad", m, &[ints("axes", &[1, 2])], integers("i", &[4, 3]), &padded);

    for (op, attributes, i) in [
        ("Trilu", vec![], integers("i", &[0, 1])),
        ("GatherElements", vec![], indices(&[1, 3, 4], &[1; 12])),
        ("GatherElements", vec![int("axis", 1)], indices(&[1, 2, 5], &[0; 10])),
        ("GatherElements", vec![int("axis", 1)], indices(&[3, 4], &[0; 12])),
        ("GatherElements", vec![int("axis", 1)], indices(&[1, 1, 1], &[i64::MIN])),
        ("ReverseSequence", sequence(2, 1).to_vec(), integers("i", &[1, 4, 0, 2])),
        ("ReverseSequence", sequence(2, 1).to_vec(), integers("i", &[1, -1, 0, 2])),
        ("ReverseSequence", sequence(2, 1).to_vec(), integers("i", &[1, 2])),
        ("ReverseSequence", sequence(1, 1).to_vec(), integers("i", &[1, 2, 2])),
        ("Compress", vec![int("axis", 2)], bools(&[1; 5])),
        ("Compress", vec![int("axis", 2)], bools(&[0; 4])),
        ("CenterCropPad", vec![], integers("i", &[1, 6])),
        ("CenterCropPad", vec![], integers("i", &[1, 1 << 40, 1 << 40])),
        ("CenterCropPad", vec![], integers("i", &[1, -1, 4])),
    ] {
        let nodes = vec![with(op, &["x", "i"], &["y"], &attributes)];
        quickly(|| refused(18, &[3, 4], nodes, vec![i]));
    }
}

#[test]
fn values_in_place_of_others() {
    let x = up_to(12);
    let u = |dims: &[usize], values: &[f64]| tensor("u", dims, values);
    let elements = || vec![with("ScatterElements", &["x", "i", "u"], &["y"], &[int("axis", 2)])];
    let places = || indices(&[1, 2, 2], &[3, 0, -3, 2]);
    let expected = [-2., 1., 2., -1., 4., -3., -4., 7., 8., 9., 10., 11.];
    let updates = || u(&[1, 2, 2], &[-1.0, -2.0, -3.0, -4.0]);
    close(&answer(18, &[3, 4], elements(), vec![places(), updates()], &x), &expected, "ScatterElements");
    let blocks = |from: &str, to: &str| vec![with("ScatterND", &[from, "i", to], &["y"], &[])];
    let rows = || indices(&[2, 2], &[0, 1, 0, -1]);
    let updates = || u(&[2, 4], &[-1.0, -2.0, -3.0, -4.0, -5.0, -6.0, -7.0, -8.0]);
    let expected = [0., 1., 2., 3., -1., -2., -3., -4., -5., -6., -7., -8.];
    close(&answer(18, &[3, 4], blocks("x", "u"), vec![rows(), updates()], &x), &expected, "ScatterND");
    let one = vec![indices(&[1, 3], &[0, 1, 2]), u(&[1], &[-9.0])];
    let expected = [0., 1., 2., 3., 4., 5., -9., 7., 8., 9., 10., 11.];
    close(&answer(18, &[3, 4], blocks("x", "u"), one, &x), &expected, "a single value");
    // What depends on the input among constants, and among its own.
    let nodes = vec![with("ScatterND", &["k", "i", "x"], &["y"], &[])];
    let constants = vec![indices(&[1, 1], &[1]), tensor("k", &[3, 2], &[9.0; 6])];
    close(
        &answer(18, &[2], nodes, constants, &[1.0, 2.0]),
        &[9.0, 9.0, 1.0, 2.0, 9.0, 9.0],
        "into constants",
    );
    let nodes = vec![
        with("Neg", &["x"], &["n"], &[]),
        with("ScatterElements", &["x", "i", "n"], &["y"], &[int("axis", 1)]),
    ];
    let (answers, real) =
        run(&file(18, &[3], nodes, vec![indices(&[1, 3], &[2, 0, 2])], &["y"]), &[1.0, 2.0, 3.0]);
    close(&answers.concat(), &[-2.0, 2.0, -3.0], "the last one counts");
    assert_eq!(counts(&real), (0, 0, 0));

    let wrong = |nodes, i, u| quickly(|| refused(18, &[3, 4], nodes, vec![i, u]));
    wrong(elements(), indices(&[1, 2, 2], &[4, 0, 1, 2]), u(&[1, 2, 2], &[0.0; 4]));
    wrong(elements(), places(), u(&[1, 2, 1], &[0.0; 2]));
    wrong(elements(), indices(&[2, 2], &[0; 4]), u(&[2, 2], &[0.0; 4]));
    wrong(blocks("x", "u"), indices(&[2, 2], &[0, 3, 0, 0]), updates());
    wrong(blocks("x", "u"), indices(&[2, 4], &[0; 8]), updates());
    wrong(blocks("x", "u"), indices(&[2, 0], &[]), updates());
    wrong(blocks("x", "u"), rows(), u(&[2, 4], &[f64::NAN; 8]));
    let added = vec![with("ScatterND", &["x", "i", "u"], &["y"], &[text("reduction", "add")])];
    assert!(wrong(added, rows(), updates()).contains("reduction"));
    // Of a Sigmoid nobody may replace a part.
    let nodes = [vec![with("Sigmoid", &["x"], &["s"], &[])], blocks("s", "u")].concat();
    assert!(wrong(nodes, rows(), updates()).contains("last step"));
}

#[test]
fn sums_of_sizes_and_running_sums() {
    let x = [1.0, -2.0, 4.0, -8.0, 0.5, 16.0];
    let check = |op: &str, attributes: &[AttributeProto], axis: Option<i64>, expected: &[f64]| {
        let inputs: &[&str] = if axis.is_some() { &["x", "i"] } else { &["x"] };
        let nodes = vec![with(op, inputs, &["y"], attributes)];
        let dims: &[i64] = if op == "CumSum" { &[] } else { &[1] };
        let constants = vec![indices(dims, &[axis.unwrap_or(0)])];
        close(&answer(18, &[2, 3], nodes, constants, &x), expected, op);
    };
    check("CumSum", &[], Some(2), &[1.0, -1.0, 3.0, -8.0, -7.5, 8.5]);
    check("CumSum", &[int("exclusive", 1)], Some(2), &[0.0, 1.0, -1.0, 0.0, -8.0, -7.5]);
    check("CumSum", &[int("reverse", 1)], Some(-1), &[3.0, 2.0, 4.0, 8.5, 16.5, 16.0]);
    let both = [int("exclusive", 1), int("reverse", 1)];
    check("CumSum", &both, Some(2), &[2.0, 4.0, 0.0, 16.5, 16.0, 0.0]);
    check("CumSum", &[], Some(1), &[1.0, -2.0, 4.0, -7.0, -1.5, 20.0]);
    check("ReduceL1", &[int("keepdims", 0)], Some(2), &[7.0, 24.5]);
    check("ReduceL1", &[], None, &[31.5]);
    let pads = [ints("kernel_shape", &[2]), int("p", 1), ints("pads", &[1, 0]), ints("strides", &[2])];
    check("LpPool", &pads, None, &[1.0, 6.0, 8.0, 16.5]);
    check("GlobalLpPool", &[int("p", 1)], None, &[7.0, 24.5]);
    check("Shrink", &[float("lambd", 1.5), float("bias", 1.5)], None, &[0.0, -0.5, 2.5, -6.5, 0.0, 14.5]);
    check("Shrink", &[float("lambd", 0.0)], None, &x);

    for (op, attributes, said) in [
        ("Shrink", vec![], "jumps"),
        ("Shrink", vec![float("lambd", -1.0), float("bias", -1.0)], "jumps"),
        ("Shrink", vec![float("lambd", f32::NAN), float("bias", f32::NAN)], "jumps"),
        ("LpPool", vec![ints("kernel_shape", &[2])], "p = 2"),
        ("GlobalLpPool", vec![int("p", 3)], "p = 3"),
        ("CumSum", vec![], "axis"),
        ("ThresholdedRelu", vec![], "curve"),
    ] {
        let text = refused(18, &[2, 3], vec![with(op, &["x"], &["y"], &attributes)], vec![]);
        assert!(text.contains(said), "{text}");
    }
    let axis = |axis: i64| {
        let nodes = vec![with("CumSum", &["x", "i"], &["y"], &[])];
        quickly(|| refused(18, &[1 << 20], nodes, vec![indices(&[], &[axis])]))
    };
    for given in [2, -3, i64::MAX, i64::MIN] {
        axis(given);
    }
}

#[test]
fn running_sums_of_all_lengths() {
    for count in 1..=9usize {
        for axis in [1usize, 2, 3] {
            let shape: Vec<usize> = (1..=3).map(|i| if i == axis { count } else { 2 }).collect();
            let x = numbers(4 * count, count as u64);
            let inner: usize = shape[axis..].iter().product();
            for (exclusive, reverse) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
                let sum = |at: usize| -> f64 {
                    let (row, place) = (at / inner / count * count, at / inner % count);
                    let counts = |other: usize| match reverse {
                        0 => other + exclusive <= place,
                        _ => other >= place + exclusive,
                    };
                    let others = (0..count).filter(|&other| counts(other));
                    others.map(|other| x[(row + other) * inner + at % inner]).sum()
                };
                let expected: Vec<f64> = (0..x.len()).map(sum).collect();
                let attributes = [int("exclusive", exclusive as i64), int("reverse", reverse)];
                let nodes = vec![with("CumSum", &["x", "i"], &["y"], &attributes)];
                let found = answer(18, &shape, nodes, vec![indices(&[], &[axis as i64])], &x);
                close(&found, &expected, &format!("{count} {axis} {exclusive} {reverse}"));
            }
        }
    }
    // As many additions as values, and some twenty times.
    let long = 1 << 20;
    let nodes = vec![with("CumSum", &["x", "i"], &["y"], &[])];
    let found = quickly(|| answer(18, &[long], nodes, vec![indices(&[], &[1])], &vec![1.0; long]));
    assert_eq!(found.last().copied(), Some(long as f64));
}
