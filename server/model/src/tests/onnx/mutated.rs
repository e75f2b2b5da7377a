//! Networks of one operator each, changed at random places: whatever they say, they are refused or become a network that
//! keeps what the passes promise.

use std::time::{Duration, Instant};

use chacha20::ChaCha20Rng;
use prost::Message;
use rand_core::Rng;

use super::{float, int, ints, node, tensor, text, value};
use crate::onnx::{AttributeProto, GraphProto, ModelProto, OperatorSetIdProto, TensorProto, walk};
use crate::tests::{generator, passed, pick};
use crate::{ImportOptions, read};

/// An operator, its attributes and its constants behind the first input.
type Sample = (&'static str, Vec<AttributeProto>, Vec<TensorProto>);

/// Constants count up from -2 in halves.
fn w(dims: &[usize]) -> TensorProto {
    let len: usize = dims.iter().product();
    tensor("", dims, &(0..len).map(|i| i as f32 * 0.5 - 2.0).collect::<Vec<_>>())
}

fn list(values: &[i64]) -> TensorProto {
    TensorProto {
        dims: vec![values.len() as i64],
        data_type: 7,
        int64_data: values.to_vec(),
        ..Default::default()
    }
}

fn places(dims: &[i64], values: &[i64]) -> TensorProto {
    TensorProto { dims: dims.to_vec(), ..list(values) }
}

fn single(value: i64) -> TensorProto {
    places(&[], &[value])
}

fn byte(value: i32) -> TensorProto {
    TensorProto { data_type: 2, int32_data: vec![value], ..Default::default() }
}

/// Operators on a value of shape `[1, 4, 6, 6]`.
fn samples() -> Vec<Sample> {
    let window =
        || vec![ints("kernel_shape", &[3, 3]), ints("strides", &[2, 2]), ints("pads", &[1, 0, 1, 1])];
    let scalar = || tensor("", &[], &[0.5]);
    let with =
        |attributes: Vec<AttributeProto>, more: &[AttributeProto]| [attributes, more.to_vec()].concat();
    vec![
        (
            "Conv",
            with(window(), &[ints("dilations", &[1, 1]), int("group", 1)]),
            vec![w(&[2, 4, 3, 3]), w(&[2])],
        ),
        ("Conv", vec![int("group", 4), text("auto_pad", "SAME_UPPER")], vec![w(&[4, 1, 3, 3])]),
        (
            "ConvTranspose",
            with(window(), &[ints("output_padding", &[1, 0])]),
            vec![w(&[4, 2, 3, 3]), w(&[2])],
        ),
        ("ConvTranspose", vec![int("group", 2), ints("output_shape", &[8, 8])], vec![w(&[4, 2, 3, 3])]),
        ("MaxPool", with(window(), &[int("ceil_mode", 1), ints("dilations", &[1, 1])]), vec![]),
        ("AveragePool", with(window(), &[int("ceil_mode", 1), int("count_include_pad", 0)]), vec![]),
        ("GlobalAveragePool", vec![], vec![]),
        ("GlobalMaxPool", vec![], vec![]),
        ("ReduceMean", vec![ints("axes", &[2, 3]), int("keepdims", 0)], vec![]),
        ("ReduceMax", vec![ints("axes", &[-1])], vec![]),
        ("ReduceSum", vec![int("keepdims", 1)], vec![list(&[1])]),
        ("ReduceMin", vec![ints("axes", &[1])], vec![]),
        (
            "BatchNormalization",
            vec![float("epsilon", 1e-5)],
            vec![w(&[4]), w(&[4]), w(&[4]), tensor("", &[4], &[1.0; 4])],
        ),
        ("MatMul", vec![], vec![w(&[6, 5])]),
        ("Gemm", vec![int("transB", 1), float("alpha", 0.5)], vec![w(&[3, 144]), w(&[3])]),
        ("Add", vec![], vec![w(&[4, 1, 1])]),
        ("Sub", vec![], vec![w(&[6])]),
        ("Mul", vec![], vec![w(&[1, 4, 1, 1])]),
        ("Div", vec![], vec![tensor("", &[6, 1], &[2.0; 6])]),
        ("Max", vec![], vec![scalar()]),
        ("Min", vec![], vec![scalar(), w(&[6])]),
        ("Sum", vec![], vec![scalar()]),
        ("Clip", vec![], vec![scalar(), tensor("", &[], &[6.0])]),
        ("Relu", vec![], vec![]),
        ("LeakyRelu", vec![float("alpha", 0.1)], vec![]),
        ("PRelu", vec![], vec![w(&[4, 1, 1])]),
        ("HardSigmoid", vec![float("alpha", 0.2)], vec![]),
        ("Abs", vec![], vec![]),
        ("Neg", vec![], vec![]),
        ("Concat", vec![int("axis", 1)], vec![w(&[1, 1, 6, 6])]),
        ("Split", vec![int("axis", 1)], vec![list(&[4])]),
        ("Slice", vec![], vec![list(&[0, -1]), list(&[6, i64::MIN]), list(&[2, 3]), list(&[2, -1])]),
        ("Pad", vec![text("mode", "reflect")], vec![list(&[0, 0, 1, 2, 0, 0, 0, 1])]),
        ("Pad", vec![], vec![list(&[0, 0, 1, -2, 0, 0, 0, 1]), scalar()]),
        ("Transpose", vec![ints("perm", &[0, 2, 3, 1])], vec![]),
        ("Reshape", vec![int("allowzero", 0)], vec![list(&[1, 2, -1, 0])]),
        ("Flatten", vec![int("axis", 1)], vec![]),
        ("Unsqueeze", vec![], vec![list(&[-1])]),
        ("Squeeze", vec![], vec![list(&[0])]),
        ("Expand", vec![], vec![list(&[2, 4, 6, 6])]),
        ("Tile", vec![], vec![list(&[1, 2, 1, 1])]),
        ("Gather", vec![int("axis", 1)], vec![list(&[3, -4])]),
        ("DepthToSpace", vec![int("blocksize", 2), text("mode", "CRD")], vec![]),
        ("SpaceToDepth", vec![int("blocksize", 3)], vec![]),
        (
            "Resize",
            vec![text("mode", "nearest"), text("coordinate_transformation_mode", "asymmetric")],
            vec![tensor("", &[0], &[]), tensor("", &[4], &[1.0, 1.0, 2.0, 1.5])],
        ),
        (
            "Resize",
            vec![text("mode", "linear"), text("coordinate_transformation_mode", "align_corners")],
            vec![tensor("", &[0], &[]), tensor("", &[4], &[1.0, 1.0, 2.0, 0.5])],
        ),
        ("Upsample", vec![text("mode", "nearest")], vec![tensor("", &[4], &[1.0, 1.0, 2.0, 2.0])]),
        ("Identity", vec![], vec![]),
        ("CumSum", vec![int("exclusive", 1), int("reverse", 0)], vec![single(2)]),
        ("ReduceL1", vec![ints("axes", &[1]), int("keepdims", 1)], vec![]),
        ("LpPool", with(window(), &[int("p", 1)]), vec![]),
        ("GlobalLpPool", vec![int("p", 1)], vec![]),
        ("Shrink", vec![float("bias", 0.5), float("lambd", 0.5)], vec![]),
        ("Trilu", vec![int("upper", 0)], vec![single(1)]),
        ("GatherElements", vec![int("axis", 3)], vec![places(&[1, 2, 1, 2], &[0, -1, 5, 2])]),
        ("ReverseSequence", vec![int("batch_axis", 1), int("time_axis", 2)], vec![list(&[0, 1, 3, 6])]),
        ("Compress", vec![int("axis", 2)], vec![list(&[1, 0, 1])]),
        ("CenterCropPad", vec![ints("axes", &[2, 3])], vec![list(&[4, 9])]),
        ("ScatterElements", vec![int("axis", 1)], vec![places(&[1, 2, 1, 1], &[3, 0]), w(&[1, 2, 1, 1])]),
        ("ScatterND", vec![text("reduction", "none")], vec![places(&[2, 2], &[0, 1, 0, -1]), w(&[2, 6, 6])]),
        ("Dropout", vec![], vec![scalar()]),
        ("Cast", vec![int("to", 1)], vec![]),
        ("Softmax", vec![int("axis", -1)], vec![]),
        ("LogSoftmax", vec![int("axis", 1)], vec![]),
        ("Sigmoid", vec![], vec![]),
        ("Tanh", vec![], vec![]),
        ("ArgMax", vec![int("axis", 1), int("keepdims", 0)], vec![]),
        ("QuantizeLinear", vec![], vec![scalar(), byte(128)]),
        (
            "QLinearConv",
            window(),
            vec![scalar(), byte(9), w(&[2, 4, 3, 3]), scalar(), byte(7), scalar(), byte(5)],
        ),
        ("QLinearMatMul", vec![], vec![scalar(), byte(9), w(&[6, 5]), scalar(), byte(7), scalar(), byte(5)]),
        ("InstanceNormalization", vec![], vec![w(&[4]), w(&[4])]),
        ("Shape", vec![], vec![]),
        ("If", vec![], vec![]),
    ]
}

/// The operator, with a layer in front or behind, or the operator that another sample has behind it.
fn network(rng: &mut ChaCha20Rng, samples: &[Sample]) -> ModelProto {
    let mut graph = GraphProto {
        name: "mutated".to_owned(),
        input: vec![value("v0", &[1, 4, 6, 6])],
        ..Default::default()
    };
    let count = pick(rng, 1, 3);
    for i in 0..count {
        let (op, attributes, constants) = &samples[pick(rng, 0, samples.len() - 1)];
        let mut step = node(op, &[&format!("v{i}")], &[&format!("v{}", i + 1)]);
        step.attribute = attributes.clone();
        for (j, constant) in constants.iter().enumerate() {
            let name = format!("c{i}_{j}");
            step.input.push(name.clone());
            graph.initializer.push(TensorProto { name, ..constant.clone() });
        }
        graph.node.push(step);
    }
    graph.output.push(value(&format!("v{count}"), &[1]));
    let opset_import = vec![OperatorSetIdProto { domain: String::new(), version: 17 }];
    ModelProto { graph: Some(graph), opset_import, ..Default::default() }
}

/// A number that a file can have, mostly one that could be meant.
fn number(rng: &mut ChaCha20Rng) -> i64 {
    match rng.next_u32() % 16 {
        v @ 0..11 => i64::from(v) - 2,
        11 => i64::MIN,
        12 => i64::MAX,
        13 => 1 << (rng.next_u32() % 40),
        14 => 100,
        _ => rng.next_u64() as i64,
    }
}

fn spoil(rng: &mut ChaCha20Rng, model: &mut ModelProto, samples: &[Sample]) {
    const FLOATS: [f32; 8] = [0.0, -1.0, f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 1e38, 1e-45, 2.5];
    let real = FLOATS[pick(rng, 0, 7)];
    let graph = model.graph.as_mut().unwrap();
    let (steps, constants) = (graph.node.len(), graph.initializer.len());
    let step = &mut graph.node[pick(rng, 0, steps - 1)];
    match rng.next_u32() % 13 {
        0 => model.opset_import[0].version = pick(rng, 7, 28) as i64,
        1 => step.op_type = samples[pick(rng, 0, samples.len() - 1)].0.to_owned(),
        2 => {
            let at = pick(rng, 0, step.input.len() - 1);
            step.input[at] = ["", "v0", "v1", "c0_0", "c1_0", "none"][pick(rng, 0, 5)].to_owned();
        }
        3 => {
            step.input.truncate(pick(rng, 1, step.input.len()));
        }
        4 => step.output.push("more".to_owned()),
        5..8 if !step.attribute.is_empty() => {
            let at = pick(rng, 0, step.attribute.len() - 1);
            let attribute = &mut step.attribute[at];
            attribute.i = number(rng);
            attribute.f = real;
            if !attribute.ints.is_empty() {
                let at = pick(rng, 0, attribute.ints.len() - 1);
                match rng.next_u32() % 4 {
                    0 => attribute.ints.truncate(at),
                    1 => attribute.ints.push(number(rng)),
                    _ => attribute.ints[at] = number(rng),
                }
            }
            if rng.next_u32().is_multiple_of(4) {
                const MODES: [&str; 7] = ["SAME_LOWER", "VALID", "linear", "edge", "wrap", "half_pixel", ""];
                attribute.s = MODES[pick(rng, 0, 6)].as_bytes().to_vec();
            }
        }
        8 => {
            let dims = &mut graph.input[0]
                .r#type
                .as_mut()
                .unwrap()
                .tensor_type
                .as_mut()
                .unwrap()
                .shape
                .as_mut()
                .unwrap()
                .dim;
            match pick(rng, 0, 5) {
                0 => drop(dims.pop()),
                at => dims.iter_mut().skip(at - 1).take(1).for_each(|d| d.dim_value = Some(number(rng))),
            }
        }
        _ if constants > 0 => {
            let constant = &mut graph.initializer[pick(rng, 0, constants - 1)];
            if !constant.int64_data.is_empty() && !rng.next_u32().is_multiple_of(4) {
                let at = pick(rng, 0, constant.int64_data.len() - 1);
                constant.int64_data[at] = number(rng);
            } else if let [_, _, _, _, ..] = constant.raw_data.as_slice()
                && rng.next_u32().is_multiple_of(2)
            {
                constant.raw_data[..4].copy_from_slice(&real.to_le_bytes());
            } else {
                // Other sizes with as many values as they say.
                let dims: Vec<usize> = (0..pick(rng, 0, 5)).map(|_| pick(rng, 0, 4)).collect();
                *constant = TensorProto { name: constant.name.clone(), ..w(&dims) };
            }
        }
        _ => {}
    }
}

/// Reads a network and runs it if it is small: whether it was right, or what it did that it must not.
fn judge(model: &ModelProto) -> Result<bool, String> {
    let (bytes, options) = (model.encode_to_vec(), ImportOptions::default());
    let real = match read(&bytes, &options) {
        Ok(real) => real,
        Err(error) if error.to_string().lines().count() == 1 => return Ok(false),
        Err(error) => return Err(format!("not one line: {error}")),
    };
    passed(&real)?;
    let values: usize = (0..=real.nodes.len()).map(|value| real.len(value)).sum();
    if values < 100_000 && real.macs() < 1_000_000 {
        let input: Vec<f64> = (0..real.len(0)).map(|i| (i * 37 % 256) as f64).collect();
        let answers = real.run(&input, |_, _| ()).map_err(|e| e.to_string())?;
        let lengths = real.outputs.iter().map(|output| output.shape.iter().product::<usize>());
        if !answers.iter().map(Vec::len).eq(lengths) {
            return Err("answers are not as long as their shapes say".to_owned());
        }
        // As it was read, before the passes.
        let mut largest = 1.0f64;
        let plain = walk(&bytes, &options).map_err(|e| e.to_string())?;
        let expected = plain
            .run(&input, |_, values| {
                largest = values
                    .iter()
                    .fold(largest, |most, x| if x.is_finite() { most.max(x.abs()) } else { f64::INFINITY });
            })
            .map_err(|e| e.to_string())?;
        // Of numbers beyond those of single precision's weights nothing is known.
        let pairs = answers.iter().flatten().zip(expected.iter().flatten());
        if largest < 1e9 && pairs.clone().any(|(a, e)| (a - e).abs() > 1e-6 * largest) {
            return Err("the passes change its answers".to_owned());
        }
    }
    Ok(true)
}

#[test]
fn mutated_networks_do_no_harm() {
    let samples = samples();
    let rounds = if std::env::var_os("SECO_SLOW").is_some() { 500_000 } else { 10_000 };
    let mut rng = generator(21);
    let (mut right, mut refused, mut harm) = (0, 0, Vec::new());
    for _ in 0..rounds {
        let mut model = network(&mut rng, &samples);
        (0..pick(&mut rng, 0, 2)).for_each(|_| spoil(&mut rng, &mut model, &samples));
        let start = Instant::now();
        match std::panic::catch_unwind(|| judge(&model)) {
            // What takes milliseconds; the bound leaves room for a busy machine.
            _ if start.elapsed() > Duration::from_secs(10) => harm.push(format!("it is slow: {model:?}")),
            Ok(Ok(true)) => right += 1,
            Ok(Ok(false)) => refused += 1,
            Ok(Err(what)) => harm.push(format!("{what}: {model:?}")),
            Err(_) => harm.push(format!("it panics: {model:?}")),
        }
    }
    assert!(harm.is_empty(), "{} times harm, first {}", harm.len(), harm[..harm.len().min(3)].join("\n"));
    assert!(right > rounds / 10 && refused > rounds / 10, "{right} {refused}");
}

/// All samples but those that are there to be refused are right, in front of something else at least.
#[test]
fn samples_are_right() {
    for sample in samples() {
        let mut model = network(&mut generator(0), std::slice::from_ref(&sample));
        let graph = model.graph.as_mut().unwrap();
        graph.node.truncate(1);
        graph.output[0].name = "v1".to_owned();
        model.opset_import[0].version = if sample.0 == "Upsample" { 9 } else { 17 };
        let refused = ["Gemm", "LogSoftmax", "InstanceNormalization", "If"].contains(&sample.0);
        assert_eq!(judge(&model).unwrap(), !refused, "{}", sample.0);
    }
}
