//! Convolutions and matrices against their definitions.

use super::{answer, close, numbers, refused, tensor, with};
use crate::onnx::{AttributeProto, NodeProto, TensorProto};
use crate::tests::onnx::{float, int, ints, text};

/// Rows of output of a convolution along one axis, and padding in front.
struct Axis {
    size: usize,
    kernel: usize,
    stride: usize,
    dilation: usize,
    begin: usize,
    output: usize,
}

/// A convolution by its definition over rows and columns.
fn convolved(
    rows: &Axis,
    columns: &Axis,
    groups: usize,
    weights: &[f64],
    per_group: usize,
    x: &[f64],
) -> Vec<f64> {
    let channels = weights.len() / (per_group * rows.kernel * columns.kernel);
    let mut out = Vec::new();
    for o in 0..channels {
        for at in 0..rows.output * columns.output {
            let (y, z) = (at / columns.output, at % columns.output);
            let mut sum = 0.0;
            for (tap, weight) in
                weights.chunks(per_group * rows.kernel * columns.kernel).nth(o).unwrap().iter().enumerate()
            {
                let (i, j) = (tap / columns.kernel % rows.kernel, tap % columns.kernel);
                let c = o / (channels / groups) * per_group + tap / columns.kernel / rows.kernel;
                let row =
                    (y * rows.stride + i * rows.dilation).checked_sub(rows.begin).filter(|&r| r < rows.size);
                let column = (z * columns.stride + j * columns.dilation)
                    .checked_sub(columns.begin)
                    .filter(|&r| r < columns.size);
                if let (Some(row), Some(column)) = (row, column) {
                    sum += weight * x[(c * rows.size + row) * columns.size + column];
                }
            }
            out.push(sum);
        }
    }
    out
}

fn conv(
    attributes: &[AttributeProto],
    dims: &[usize],
    weights: &[f64],
    bias: &[f64],
) -> (Vec<NodeProto>, Vec<TensorProto>) {
    let node = with("Conv", &["x", "w", "b"], &["y"], attributes);
    (vec![node], vec![tensor("w", dims, weights), tensor("b", &[bias.len()], bias)])
}

#[test]
fn convolutions_of_all_shapes() {
    for (groups, stride, dilation, pads) in [
        (1, [1, 1], [1, 1], [0, 0, 0, 0]),
        (1, [2, 1], [1, 2], [1, 0, 2, 3]),
        (2, [1, 2], [2, 1], [0, 2, 1, 0]),
        (4, [2, 2], [1, 1], [1, 1, 1, 1]),
    ] {
        let (x, weights) = (numbers(4 * 7 * 6, 1), numbers(8 * (4 / groups) * 6, 2));
        let along = |axis: usize, size: usize, kernel: usize| {
            let output =
                (size + pads[axis] + pads[axis + 2] - (kernel - 1) * dilation[axis] - 1) / stride[axis] + 1;
            Axis { size, kernel, stride: stride[axis], dilation: dilation[axis], begin: pads[axis], output }
        };
        let (rows, columns) = (along(0, 7, 3), along(1, 6, 2));
        let mut expected = convolved(&rows, &columns, groups, &weights, 4 / groups, &x);
        let bias = numbers(8, 3);
        let positions = expected.len() / 8;
        expected.iter_mut().enumerate().for_each(|(i, y)| *y += bias[i / positions]);
        let list =
            |name: &str, values: &[usize]| ints(name, &values.iter().map(|&v| v as i64).collect::<Vec<_>>());
        let attributes = [
            int("group", groups as i64),
            list("strides", &stride),
            list("dilations", &dilation),
            list("pads", &pads),
        ];
        let (nodes, constants) = conv(&attributes, &[8, 4 / groups, 3, 2], &weights, &bias);
        close(&answer(13, &[4, 7, 6], nodes, constants, &x), &expected, "Conv");
    }
}

#[test]
fn padding_by_name_and_one_spatial_axis() {
    let (x, weights) = (numbers(2 * 8, 4), numbers(3 * 2 * 4, 5));
    for (name, begin, output, stride) in
        [("SAME_UPPER", 1, 8, 1), ("SAME_LOWER", 2, 8, 1), ("VALID", 0, 5, 1), ("SAME_UPPER", 1, 3, 3)]
    {
        let row = Axis { size: 1, kernel: 1, stride: 1, dilation: 1, begin: 0, output: 1 };
        let columns = Axis { size: 8, kernel: 4, stride, dilation: 1, begin, output };
        let expected = convolved(&row, &columns, 1, &weights, 2, &x);
        let attributes = [text("auto_pad", name), ints("strides", &[stride as i64])];
        let (nodes, constants) = conv(&attributes, &[3, 2, 4], &weights, &[0.0; 3]);
        close(&answer(13, &[2, 8], nodes, constants, &x), &expected, name);
    }
}

#[test]
fn convolutions_that_do_not_fit_are_refused() {
    let said = |attributes: &[AttributeProto], dims: &[usize], shape: &[usize]| {
        let (nodes, constants) =
            conv(attributes, dims, &numbers(dims.iter().product(), 1), &numbers(dims[0], 2));
        refused(13, shape, nodes, constants)
    };
    assert!(said(&[], &[3, 2, 3, 3], &[4, 8, 8]).contains("channels"));
    assert!(said(&[], &[3, 2, 9, 9], &[2, 8, 8]).contains("window"));
    let text = said(&[ints("kernel_shape", &[5, 5])], &[3, 2, 3, 3], &[2, 8, 8]);
    assert!(text.contains("y (Conv)") && text.contains("kernels of [3, 3]"), "{text}");
    assert!(said(&[], &[3, 2, 3, 3, 3], &[2, 8, 8, 8]).contains("two-dimensional"));
    assert!(said(&[ints("pads", &[0, 0, -1, 0])], &[3, 2, 3, 3], &[2, 8, 8]).contains("at least 0"));
    assert!(said(&[ints("strides", &[0, 1])], &[3, 2, 3, 3], &[2, 8, 8]).contains("at least 1"));
    assert!(said(&[ints("strides", &[1])], &[3, 2, 3, 3], &[2, 8, 8]).contains("2 numbers"));
    assert!(said(&[int("group", 3)], &[3, 2, 3, 3], &[4, 8, 8]).contains("input channels"));
    assert!(said(&[int("group", i64::MAX)], &[3, 2, 3, 3], &[4, 8, 8]).contains("group"));
    assert!(said(&[int("nonsense", 1)], &[3, 2, 3, 3], &[2, 8, 8]).contains("nonsense"));
    assert!(said(&[ints("pads", &[1 << 25; 4])], &[3, 2, 3, 3], &[2, 8, 8]).contains("(Conv)"));
}

/// A transposed convolution by its definition: every input value is spread.
fn spread(x: &[f64], weights: &[f64], case: &Transposed) -> Vec<f64> {
    let [kh, kw] = case.kernel;
    let (inputs, per_group) = (4, weights.len() / (4 * kh * kw));
    let channels = per_group * case.groups;
    let [height, width] = case.output;
    let mut out = vec![0.0; channels * height * width];
    for c in 0..inputs {
        let group = c / (inputs / case.groups);
        for (at, value) in x.chunks(15).nth(c).unwrap().iter().enumerate() {
            for o in 0..per_group {
                for tap in 0..kh * kw {
                    let y =
                        (at / 5 * case.stride[0] + tap / kw * case.dilation[0]).checked_sub(case.begin[0]);
                    let z =
                        (at % 5 * case.stride[1] + tap % kw * case.dilation[1]).checked_sub(case.begin[1]);
                    if let (Some(y), Some(z)) = (y.filter(|&y| y < height), z.filter(|&z| z < width)) {
                        let to = ((group * per_group + o) * height + y) * width + z;
                        out[to] += value * weights[(c * per_group + o) * kh * kw + tap];
                    }
                }
            }
        }
    }
    out
}

struct Transposed {
    kernel: [usize; 2],
    stride: [usize; 2],
    dilation: [usize; 2],
    begin: [usize; 2],
    output: [usize; 2],
    groups: usize,
}

#[test]
fn transposed_convolutions_spread_every_value() {
    let base = || Transposed {
        kernel: [3, 2],
        stride: [1, 1],
        dilation: [1, 1],
        begin: [0, 0],
        output: [5, 6],
        groups: 1,
    };
    let cases = [
        (base(), vec![]),
        (Transposed { stride: [2, 3], output: [7, 14], ..base() }, vec![ints("strides", &[2, 3])]),
        (
            Transposed { stride: [2, 2], begin: [1, 0], output: [6, 9], groups: 2, ..base() },
            vec![
                ints("strides", &[2, 2]),
                ints("pads", &[1, 0, 1, 1]),
                ints("output_padding", &[1, 0]),
                int("group", 2),
            ],
        ),
        (
            // As Keras writes its output padding.
            Transposed { stride: [2, 2], output: [8, 11], ..base() },
            vec![ints("strides", &[2, 2]), ints("pads", &[0, 0, -1, -1])],
        ),
        (
            Transposed { dilation: [2, 1], begin: [3, 1], output: [3, 5], ..base() },
            vec![ints("dilations", &[2, 1]), ints("pads", &[3, 1, 1, 0])],
        ),
        (
            Transposed { stride: [2, 2], output: [8, 12], groups: 4, ..base() },
            vec![ints("strides", &[2, 2]), ints("output_shape", &[8, 12]), int("group", 4)],
        ),
        (
            Transposed { stride: [2, 2], begin: [1, 0], output: [6, 10], ..base() },
            vec![ints("strides", &[2, 2]), text("auto_pad", "SAME_LOWER")],
        ),
        (
            Transposed { stride: [2, 2], begin: [0, 0], output: [6, 10], ..base() },
            vec![ints("strides", &[2, 2]), text("auto_pad", "SAME_UPPER")],
        ),
    ];
    for (case, attributes) in cases {
        let (x, weights) = (numbers(4 * 15, 6), numbers(4 * 2 * 6, 7));
        let bias = numbers(2 * case.groups, 8);
        let mut expected = spread(&x, &weights, &case);
        let positions = case.output[0] * case.output[1];
        expected.iter_mut().enumerate().for_each(|(i, y)| *y += bias[i / positions]);
        let nodes = vec![with("ConvTranspose", &["x", "w", "b"], &["y"], &attributes)];
        let constants = vec![tensor("w", &[4, 2, 3, 2], &weights), tensor("b", &[bias.len()], &bias)];
        close(&answer(13, &[4, 3, 5], nodes, constants, &x), &expected, "ConvTranspose");
    }
    for attribute in [ints("pads", &[9, 9]), ints("kernel_shape", &[3])] {
        let nodes = vec![with("ConvTranspose", &["x", "w"], &["y"], &[attribute])];
        refused(13, &[4, 5], nodes, vec![tensor("w", &[4, 1, 2], &[1.0; 8])]);
    }
    // Of which runtimes make 5 · 3 values or 4 · 3 + 2.
    let same = [text("auto_pad", "SAME_UPPER"), ints("strides", &[3])];
    let nodes = vec![with("ConvTranspose", &["x", "w"], &["y"], &same)];
    let said = refused(13, &[4, 5], nodes, vec![tensor("w", &[4, 1, 2], &[1.0; 8])]);
    assert!(said.contains("auto_pad") && said.contains("output_shape"), "{said}");
}

fn product(a: &[f64], b: &[f64], inner: usize) -> Vec<f64> {
    let columns = b.len() / inner;
    let entry = |row: &[f64], c: usize| row.iter().enumerate().map(|(i, v)| v * b[i * columns + c]).sum();
    a.chunks(inner).flat_map(|row| (0..columns).map(move |c| entry(row, c)).collect::<Vec<f64>>()).collect()
}

fn turned(values: &[f64], columns: usize) -> Vec<f64> {
    (0..columns).flat_map(|c| values.iter().skip(c).step_by(columns).copied()).collect()
}

#[test]
fn gemm_in_all_its_forms() {
    let (x, b, c) = (numbers(6, 1), numbers(6 * 4, 2), numbers(4, 3));
    let expected: Vec<f64> = product(&x, &b, 6).iter().zip(&c).map(|(y, c)| 0.5 * y - 2.0 * c).collect();
    let factors = [float("alpha", 0.5), float("beta", -2.0)];
    for (dims, b, more) in
        [(vec![6, 4], b.clone(), vec![]), (vec![4, 6], turned(&b, 4), vec![int("transB", 1)])]
    {
        let nodes = vec![with("Gemm", &["x", "b", "c"], &["y"], &[&factors[..], &more].concat())];
        let constants = vec![tensor("b", &dims, &b), tensor("c", &[1, 4], &c)];
        close(&answer(13, &[6], nodes, constants, &x), &expected, "Gemm");
    }
    // A column as the value, a scalar added, the constant on the left.
    let nodes = vec![
        with("Reshape", &["x", "s"], &["r"], &[]),
        with("Gemm", &["b", "r", "c"], &["y"], &[int("transA", 1)]),
    ];
    let constants = vec![super::integers("s", &[6, 1]), tensor("b", &[6, 4], &b), tensor("c", &[], &[0.5])];
    let expected: Vec<f64> = product(&turned(&b, 4), &x, 6).iter().map(|y| y + 0.5).collect();
    close(&answer(13, &[6], nodes, constants, &x), &expected, "left");
    // What is added comes from the input too.
    let nodes = vec![with("Gemm", &["x", "b", "x"], &["y"], &[float("beta", 3.0)])];
    let square = numbers(36, 9);
    let expected: Vec<f64> = product(&x, &square, 6).iter().zip(&x).map(|(y, x)| y + 3.0 * x).collect();
    close(&answer(13, &[6], nodes, vec![tensor("b", &[6, 6], &square)], &x), &expected, "secret bias");
    refused(13, &[2, 3], vec![with("Gemm", &["x", "b"], &["y"], &[])], vec![tensor("b", &[6, 4], &b)]);
    refused(13, &[5], vec![with("Gemm", &["x", "b"], &["y"], &[])], vec![tensor("b", &[6, 4], &b)]);
}

#[test]
fn matmul_of_rows_columns_and_batches() {
    let x = numbers(2 * 3 * 4, 1);
    let check = |a: (&str, &[usize]), b: (&str, &[usize]), w: &[f64], dims: &[usize], expected: &[f64]| {
        let nodes = vec![with("Reshape", &["x", "s"], &["r"], &[]), with("MatMul", &[a.0, b.0], &["y"], &[])];
        let shape = if a.0 == "r" { a.1 } else { b.1 };
        let shape: Vec<i64> = shape.iter().map(|&d| d as i64).collect();
        let constants = vec![super::integers("s", &shape), tensor("w", dims, w)];
        close(&answer(13, &[24], nodes, constants, &x), expected, "MatMul");
    };
    let w = numbers(20, 2);
    // One matrix for all rows; one for each batch; a vector; the same on the left.
    check(("r", &[1, 6, 4]), ("w", &[]), &w, &[4, 5], &product(&x, &w, 4));
    check(("r", &[2, 3, 4]), ("w", &[]), &w, &[1, 4, 5], &product(&x, &w, 4));
    let two = numbers(2 * 4 * 5, 3);
    let each = [product(&x[..12], &two[..20], 4), product(&x[12..], &two[20..], 4)].concat();
    check(("r", &[1, 2, 3, 4]), ("w", &[]), &two, &[2, 4, 5], &each);
    check(("r", &[6, 4]), ("w", &[]), &w[..4], &[4], &product(&x, &w[..4], 4));
    let l = numbers(5 * 3, 4);
    let each = [product(&l, &x[..12], 3), product(&l, &x[12..], 3)].concat();
    check(("w", &[]), ("r", &[2, 3, 4]), &l, &[5, 3], &each);
    let many = numbers(2 * 5 * 3, 5);
    let each = [product(&many[..15], &x[..12], 3), product(&many[15..], &x[12..], 3)].concat();
    check(("w", &[]), ("r", &[2, 3, 4]), &many, &[2, 5, 3], &each);
    check(("w", &[]), ("r", &[24]), &numbers(48, 6), &[2, 24], &product(&numbers(48, 6), &x, 24));
    // One value for several matrices.
    let several = numbers(2 * 4 * 5, 7);
    let each = [product(&x, &several[..20], 4), product(&x, &several[20..], 4)].concat();
    check(("r", &[1, 6, 4]), ("w", &[]), &several, &[2, 4, 5], &each);
    // The same for a vector, whose own axis is in no result.
    let several = numbers(2 * 24 * 5, 8);
    let shape = |factors: [&str; 2], dims: &[usize], expected: &[f64]| {
        let nodes = vec![
            with("Reshape", &["x", "s"], &["r"], &[]),
            with("MatMul", &factors, &["p"], &[]),
            with("Unsqueeze", &["p", "front"], &["y"], &[]),
        ];
        let constants =
            vec![super::integers("s", &[24]), super::integers("front", &[0]), tensor("w", dims, &several)];
        let (found, real) = super::run(&super::file(13, &[24], nodes, constants, &["y"]), &x);
        close(&found[0], expected, "MatMul of a vector");
        assert_eq!(real.outputs[0].shape, [2, 5]);
    };
    let each = [product(&x, &several[..120], 24), product(&x, &several[120..], 24)].concat();
    shape(["r", "w"], &[2, 24, 5], &each);
    shape(["w", "r"], &[2, 5, 24], &product(&several, &x, 24));
    let nodes = vec![with("MatMul", &["x", "w"], &["y"], &[])];
    assert!(refused(13, &[3, 4], nodes, vec![tensor("w", &[5, 4], &w)]).contains("cannot be multiplied"));
}
