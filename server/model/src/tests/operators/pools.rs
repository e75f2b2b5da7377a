//! Pooling and reductions against their definitions.

use super::{answer, close, counts, file, integers, numbers, refused, run, tensor, with};
use crate::onnx::AttributeProto;
use crate::tests::onnx::{int, ints, text};
use crate::tests::{generator, pick};

/// Values of every window of a channel, by their place, or none in the padding; and whether it is padding at all.
fn windows(size: [usize; 2], case: &Case) -> Vec<Vec<Option<usize>>> {
    let outputs = [0, 1].map(|axis| {
        let room = size[axis] + case.pads[axis] + case.pads[axis + 2]
            - (case.kernel[axis] - 1) * case.dilation[axis]
            - 1;
        let mut count = room / case.stride[axis] + 1;
        if case.ceil
            && !room.is_multiple_of(case.stride[axis])
            && count * case.stride[axis] < size[axis] + case.pads[axis]
        {
            count += 1;
        }
        count
    });
    let mut all = Vec::new();
    for y in 0..outputs[0] {
        for x in 0..outputs[1] {
            let mut window = Vec::new();
            for i in 0..case.kernel[0] {
                for j in 0..case.kernel[1] {
                    let at = [
                        y * case.stride[0] + i * case.dilation[0],
                        x * case.stride[1] + j * case.dilation[1],
                    ];
                    // Beyond the padding there is nothing, which happens with `ceil_mode`.
                    if (0..2).any(|axis| at[axis] >= size[axis] + case.pads[axis] + case.pads[axis + 2]) {
                        continue;
                    }
                    let inside = (0..2)
                        .all(|axis| (case.pads[axis]..case.pads[axis] + size[axis]).contains(&at[axis]));
                    window.push(inside.then(|| (at[0] - case.pads[0]) * size[1] + at[1] - case.pads[1]));
                }
            }
            all.push(window);
        }
    }
    all
}

struct Case {
    kernel: [usize; 2],
    stride: [usize; 2],
    dilation: [usize; 2],
    pads: [usize; 4],
    ceil: bool,
}

#[test]
fn pooling_of_all_shapes() {
    let mut rng = generator(21);
    for round in 0..60 {
        let mut pair = |low, high| [pick(&mut rng, low, high), pick(&mut rng, low, high)];
        let (kernel, stride, dilation) = (pair(1, 4), pair(1, 3), pair(1, 2));
        let (front, back) = (pair(0, 3), pair(0, 3));
        let size = pair(7, 9);
        let limit = |pad: usize, axis: usize| pad.min(kernel[axis] - 1);
        let pads = [limit(front[0], 0), limit(front[1], 1), limit(back[0], 0), limit(back[1], 1)];
        let case = Case { kernel, stride, dilation, pads, ceil: round % 2 == 0 };
        let list =
            |name: &str, values: &[usize]| ints(name, &values.iter().map(|&v| v as i64).collect::<Vec<_>>());
        let attributes = [
            list("kernel_shape", &kernel),
            list("strides", &stride),
            list("dilations", &dilation),
            list("pads", &pads),
            int("ceil_mode", i64::from(case.ceil)),
        ];
        let x = numbers(2 * size[0] * size[1], round);
        let windows = windows(size, &case);
        let pooled = |of: &dyn Fn(&[f64], usize) -> f64| -> Vec<f64> {
            let channel = |values: &[f64]| {
                let inside = |window: &Vec<Option<usize>>| {
                    of(&window.iter().flatten().map(|&p| values[p]).collect::<Vec<_>>(), window.len())
                };
                windows.iter().map(inside).collect::<Vec<f64>>()
            };
            x.chunks(size[0] * size[1]).flat_map(channel).collect()
        };
        let run = |op: &str, more: &[AttributeProto]| {
            answer(
                22,
                &[2, size[0], size[1]],
                vec![with(op, &["x"], &["y"], &[&attributes[..], more].concat())],
                vec![],
                &x,
            )
        };
        if windows.iter().any(|window| window.iter().all(Option::is_none)) {
            continue;
        }
        let largest = |values: &[f64], _: usize| values.iter().copied().fold(f64::MIN, f64::max);
        close(&run("MaxPool", &[]), &pooled(&largest), "MaxPool");
        let mean = |values: &[f64], _: usize| values.iter().sum::<f64>() / values.len() as f64;
        close(&run("AveragePool", &[]), &pooled(&mean), "AveragePool");
        let with_padding = |values: &[f64], count: usize| values.iter().sum::<f64>() / count as f64;
        close(&run("AveragePool", &[int("count_include_pad", 1)]), &pooled(&with_padding), "with padding");
    }
}

#[test]
fn one_and_three_spatial_axes() {
    let x = numbers(2 * 9, 1);
    let triple = |i: usize| [x[i], x[i + 1], x[i + 2]];
    let starts: Vec<usize> = (0..2).flat_map(|c| [0, 2, 4, 6].map(|i| c * 9 + i)).collect();
    let attributes = [ints("kernel_shape", &[3]), ints("strides", &[2])];
    let run = |op: &str| answer(13, &[2, 9], vec![with(op, &["x"], &["y"], &attributes)], vec![], &x);
    close(
        &run("MaxPool"),
        &starts.iter().map(|&i| triple(i).into_iter().fold(f64::MIN, f64::max)).collect::<Vec<_>>(),
        "MaxPool",
    );
    close(
        &run("AveragePool"),
        &starts.iter().map(|&i| triple(i).iter().sum::<f64>() / 3.0).collect::<Vec<_>>(),
        "AveragePool",
    );
    let x = numbers(4 * 4 * 4, 2);
    let attributes = [ints("kernel_shape", &[2, 2, 2]), ints("strides", &[2, 2, 2])];
    let cube = |i: usize| {
        let first = i / 4 * 32 + i / 2 % 2 * 8 + i % 2 * 2;
        [0, 1, 4, 5, 16, 17, 20, 21].map(|more| x[first + more])
    };
    let run = |op: &str| answer(13, &[1, 4, 4, 4], vec![with(op, &["x"], &["y"], &attributes)], vec![], &x);
    close(
        &run("MaxPool"),
        &(0..8).map(|i| cube(i).into_iter().fold(f64::MIN, f64::max)).collect::<Vec<_>>(),
        "MaxPool",
    );
    close(
        &run("AveragePool"),
        &(0..8).map(|i| cube(i).iter().sum::<f64>() / 8.0).collect::<Vec<_>>(),
        "AveragePool",
    );
}

#[test]
fn pools_over_everything_and_reductions_over_any_axes() {
    let x = numbers(2 * 3 * 4, 3);
    let reduced = |keep: &dyn Fn(usize) -> usize, count: usize, fold: &dyn Fn(&[f64]) -> f64| -> Vec<f64> {
        let mut groups = vec![Vec::new(); count];
        x.iter().enumerate().for_each(|(i, &v)| groups[keep(i)].push(v));
        groups.iter().map(|group| fold(group)).collect()
    };
    let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
    let sum = |values: &[f64]| values.iter().sum::<f64>();
    let max = |values: &[f64]| values.iter().copied().fold(f64::MIN, f64::max);
    let min = |values: &[f64]| values.iter().copied().fold(f64::MAX, f64::min);
    let global = |op: &str| answer(13, &[2, 3, 4], vec![with(op, &["x"], &["y"], &[])], vec![], &x);
    close(&global("GlobalAveragePool"), &reduced(&|i| i / 12, 2, &mean), "GlobalAveragePool");
    close(&global("GlobalMaxPool"), &reduced(&|i| i / 12, 2, &max), "GlobalMaxPool");
    type Fold<'a> = &'a dyn Fn(&[f64]) -> f64;
    type Kept<'a> = (&'a [i64], &'a dyn Fn(usize) -> usize, usize);
    let folds: [(&str, Fold<'_>); 4] =
        [("ReduceMean", &mean), ("ReduceSum", &sum), ("ReduceMax", &max), ("ReduceMin", &min)];
    for (op, fold) in folds {
        let cases: [Kept<'_>; 5] = [
            (&[2, 3], &|i| i / 12, 2),
            (&[-1], &|i| i / 4, 6),
            (&[1], &|i| i % 12, 12),
            (&[1, 3], &|i| i / 4 % 3, 3),
            (&[], &|_| 0, 1),
        ];
        for (axes, keep, count) in cases {
            let expected = reduced(keep, count, fold);
            for kept in [0, 1] {
                let attributes = [ints("axes", axes), int("keepdims", kept)];
                let attributes = if axes.is_empty() { &attributes[1..] } else { &attributes[..] };
                let nodes = vec![with(op, &["x"], &["y"], attributes)];
                close(&answer(11, &[2, 3, 4], nodes, vec![], &x), &expected, op);
            }
            let nodes = vec![with(op, &["x", "a"], &["y"], &[])];
            close(&answer(18, &[2, 3, 4], nodes, vec![integers("a", axes)], &x), &expected, op);
        }
        let nothing = vec![with(op, &["x"], &["y"], &[int("noop_with_empty_axes", 1)])];
        close(&answer(18, &[2, 3, 4], nothing, vec![], &x), &x, op);
    }
}

/// Windows of 3 that overlap take four comparisons in place of eight, and the ReLU in front comes behind.
#[test]
fn maxima_take_few_comparisons() {
    let pool = |stride: i64| {
        [ints("kernel_shape", &[3, 3]), ints("strides", &[stride, stride]), ints("pads", &[1; 4])]
    };
    let nodes = |attributes: &[AttributeProto]| {
        vec![with("Relu", &["x"], &["r"], &[]), with("MaxPool", &["r"], &["y"], attributes)]
    };
    let x = numbers(64, 4);
    let (_, real) = run(&file(13, &[1, 8, 8], nodes(&pool(1)), vec![], &["y"]), &x);
    assert!(counts(&real).1 <= 5 * 64, "{:?}", counts(&real));
    let (_, real) = run(&file(13, &[1, 8, 8], nodes(&pool(2)), vec![], &["y"]), &x);
    assert!(counts(&real).1 <= 7 * 16, "{:?}", counts(&real));
    assert!(real.masked()[real.outputs[0].value]);
    for (op, axes) in [("ReduceMax", [2, 3]), ("ReduceMin", [2, 3]), ("ReduceMax", [0, 3])] {
        let nodes = vec![with("Relu", &["x"], &["r"], &[]), with(op, &["r"], &["y"], &[ints("axes", &axes)])];
        let (_, real) = run(&file(13, &[1, 8, 8], nodes, vec![], &["y"]), &x);
        assert_eq!(counts(&real).1, 64, "{op} {axes:?}");
        assert!(real.masked()[real.outputs[0].value], "{op} {axes:?}");
    }
    // Others who read the ReLU still find it.
    let (answers, _) = run(&file(13, &[1, 8, 8], nodes(&pool(2)), vec![], &["r", "y"]), &x);
    close(&answers[0], &x.iter().map(|x| x.max(0.0)).collect::<Vec<_>>(), "ReLU");
}

/// Channels last, as Keras has them: what PyTorch makes of it turns the axes between a ReLU and its pool.
#[test]
fn a_relu_in_front_of_a_turned_maximum_comes_behind_it() {
    let size = [ints("kernel_shape", &[2, 2]), ints("strides", &[2, 2])];
    let first = |from: &str, to: &str| with("Transpose", &[from], &[to], &[ints("perm", &[0, 3, 1, 2])]);
    let last = |from: &str, to: &str| with("Transpose", &[from], &[to], &[ints("perm", &[0, 2, 3, 1])]);
    let (x, weights) = (numbers(64, 5), || vec![tensor("w", &[8, 1, 3, 3], &numbers(72, 6))]);
    let conv = || with("Conv", &["x", "w"], &["c"], &[ints("pads", &[1; 4])]);
    let plain = vec![
        conv(),
        with("Relu", &["c"], &["r"], &[]),
        with("MaxPool", &["r"], &["p"], &size),
        last("p", "y"),
    ];
    let turned = || {
        vec![
            conv(),
            last("c", "l"),
            with("Relu", &["l"], &["r"], &[]),
            first("r", "t"),
            with("MaxPool", &["t"], &["p"], &size),
            last("p", "y"),
        ]
    };
    let (expected, real) = run(&file(13, &[1, 8, 8], plain, weights(), &["y"]), &x);
    assert_eq!(counts(&real).1, 4 * 8 * 16);
    let (found, real) = run(&file(13, &[1, 8, 8], turned(), weights(), &["y"]), &x);
    close(&found[0], &expected[0], "turned");
    assert_eq!(counts(&real).1, 4 * 8 * 16);
    // Where another reads the ReLU too, that stays, and so it is in front.
    for other in ["r", "t"] {
        let (found, real) = run(&file(13, &[1, 8, 8], turned(), weights(), &["y", other]), &x);
        close(&found[0], &expected[0], "turned");
        assert_eq!(counts(&real).1, 7 * 8 * 16);
    }
    let more = [turned(), vec![with("Neg", &["r"], &["z"], &[])]].concat();
    let (_, real) = run(&file(13, &[1, 8, 8], more, weights(), &["y", "z"]), &x);
    assert_eq!(counts(&real).1, 7 * 8 * 16);
}

#[test]
fn windows_that_do_not_fit_are_refused() {
    let said = |op: &str, attributes: &[AttributeProto]| {
        refused(13, &[1, 4, 4], vec![with(op, &["x"], &["y"], attributes)], vec![])
    };
    for op in ["MaxPool", "AveragePool"] {
        assert!(said(op, &[]).contains("kernel_shape"));
        assert!(said(op, &[ints("kernel_shape", &[5, 5])]).contains("window"));
        assert!(said(op, &[ints("kernel_shape", &[2, 2]), ints("pads", &[2, 0, 0, 0])]).contains("padding"));
        assert!(said(op, &[ints("kernel_shape", &[2, i64::MAX])]).contains("kernel_shape"));
        // Runtimes do not agree on what is padded then.
        let same = |kernel: &[i64], other: AttributeProto| {
            vec![text("auto_pad", "SAME_UPPER"), ints("kernel_shape", kernel), other]
        };
        assert!(said(op, &same(&[2, 2], ints("dilations", &[1, 2]))).contains("auto_pad"));
        assert!(said(op, &same(&[1, 1], ints("strides", &[1, 4]))).contains("auto_pad"));
        let few = vec![with(op, &["x"], &["y"], &same(&[1, 1], ints("strides", &[2, 2])))];
        let few = file(13, &[1, 4, 4], few, vec![], &["y"]);
        let x: Vec<f64> = (0..16).map(f64::from).collect();
        close(&run(&few, &x).0[0], &[0.0, 2.0, 8.0, 10.0], op);
    }
    let indices = vec![
        with("MaxPool", &["x"], &["a", "i"], &[ints("kernel_shape", &[2, 2])]),
        with("Neg", &["i"], &["y"], &[]),
    ];
    assert!(refused(13, &[1, 4, 4], indices, vec![]).contains("only the first"));
}
