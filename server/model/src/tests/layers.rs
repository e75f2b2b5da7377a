//! Single layers: normalisation with padding, pooling on either side, wrapping, and what is refused.

use prost::Message;

use super::network::{Network, Step, affine, int, ints, tensor};
use super::{generator, pick, weight};
use crate::linear::multiply;
use crate::onnx::{AttributeProto, ModelProto, TensorProto, attribute_type};
use crate::{
    Activation, Conv, Dense, Error, FixedLayer, FixedModel, Geometry, ImportOptions, InputSpec,
    Normalisation, Scales, import, linear,
};

fn weights(count: usize, seed: u64) -> Vec<f32> {
    let mut rng = generator(seed);
    (0..count).map(|_| weight(&mut rng)).collect()
}

fn conv(channels: usize, inputs: usize, kernel: [usize; 2], stride: [usize; 2], pads: [usize; 4]) -> Step {
    let weights = weights(channels * inputs * kernel[0] * kernel[1], 7);
    Step::Conv { weights, bias: (0..channels).map(|i| i as f32 / 8.0).collect(), kernel, stride, pads }
}

fn imported(network: &Network, scales: Scales, normalisation: &Normalisation) -> Result<FixedModel, Error> {
    import(&network.onnx(), &ImportOptions { scales, normalisation: normalisation.clone(), input_bits: 8 })
}

/// Imports at fine scales and compares every logit with the float network.
fn assert_close(network: &Network, normalisation: &Normalisation) {
    let model = imported(network, Scales::new(14, 10), normalisation).unwrap();
    let Some(Activation::Output { fraction }) = model.layers.last().map(|l| l.activation) else { panic!() };
    let image: Vec<u8> = (0..model.input.len()).map(|i| (i * 37 % 256) as u8).collect();
    let result = model.execute(&image).unwrap();
    assert_eq!(result.wrapped, 0);
    let float = network.float(&image, normalisation);
    assert_eq!(result.logits.len(), float.len());
    for (logit, float) in result.logits.iter().zip(float) {
        let logit = f64::from(*logit) / 2f64.powi(fraction as i32);
        assert!((logit - float).abs() < 0.02, "{logit} instead of {float}");
    }
}

fn photographic() -> Normalisation {
    Normalisation { scale: 255.0, mean: vec![0.485, 0.456, 0.406], std: vec![0.229, 0.224, 0.225] }
}

#[test]
fn padding_pads_the_normalised_input() {
    let network = |steps| Network { input: vec![3, 7, 6], steps };
    for pads in [[0; 4], [1; 4], [2, 0, 1, 2]] {
        assert_close(&network(vec![conv(4, 3, [3, 3], [1, 1], pads)]), &photographic());
        assert_close(&network(vec![conv(4, 3, [3, 2], [2, 1], pads)]), &photographic());
        let pool = Step::Pool { kernel: [2, 2], stride: [2, 2] };
        assert_close(&network(vec![conv(2, 3, [3, 3], [1, 1], pads), pool]), &photographic());
    }
    let gemm = Step::Gemm { weights: weights(3 * 7 * 6 * 2, 5), bias: vec![0.5, -0.25] };
    assert_close(&network(vec![Step::Flatten, gemm]), &photographic());
}

#[test]
fn the_first_bias_is_exact_at_every_position() {
    let step = conv(4, 3, [3, 3], [2, 1], [1, 1, 0, 2]);
    let network = Network { input: vec![3, 5, 4], steps: vec![step.clone()] };
    let model = imported(&network, Scales::default(), &photographic()).unwrap();
    // What a black image gives in floating point is the bias.
    let float = network.float(&[0; 60], &photographic());
    let distinct: std::collections::BTreeSet<i64> = model.layers[0].bias.iter().copied().collect();
    assert!(distinct.len() > 4, "the bias must differ by position");
    for (bias, float) in model.layers[0].bias.iter().zip(float) {
        assert!((*bias as f64 - float * 65536.0).abs() < 0.5 + 1e-6);
    }
    assert_eq!(model.layers[0].activation, Activation::Output { fraction: 16 });
}

#[test]
fn pooling_in_front_of_a_layer_is_folded() {
    let pool = |k: usize, s: usize| Step::Pool { kernel: [k, k], stride: [s, s] };
    let network = |side: usize, steps| Network { input: vec![3, side, side], steps };
    let padded = conv(2, 3, [3, 3], [1, 1], [1; 4]);
    // Dividing the input evenly, padding or not; behind another pooling; strided.
    assert_close(&network(8, vec![pool(2, 2), padded.clone()]), &photographic());
    assert_close(&network(9, vec![pool(3, 3), conv(2, 3, [2, 3], [2, 1], [1, 1, 0, 1])]), &photographic());
    assert_close(&network(8, vec![pool(2, 2), pool(2, 2), padded.clone()]), &photographic());
    assert_close(&network(7, vec![pool(1, 2), padded.clone()]), &photographic());
    // Windows that overlap or leave a rest are fine without padding, or where only the rest is behind it.
    assert_close(&network(9, vec![pool(3, 1), conv(2, 3, [2, 2], [2, 2], [0; 4])]), &photographic());
    assert_close(&network(9, vec![pool(2, 2), conv(2, 3, [2, 2], [1, 1], [1, 1, 0, 0])]), &photographic());
    for refused in [vec![pool(2, 2), padded.clone()], vec![pool(3, 2), padded]] {
        let error = imported(&network(9, refused), Scales::default(), &photographic()).unwrap_err();
        assert!(error.to_string().contains("n0 (AveragePool)"), "{error}");
    }
    let gemm = Step::Gemm { weights: weights(3 * 16 * 2, 5), bias: vec![0.5, -0.25] };
    assert_close(&network(9, vec![pool(3, 2), Step::Flatten, gemm]), &photographic());
}

#[test]
fn linear_is_the_affine_map_without_bias() {
    let mut rng = generator(3);
    for _ in 0..60 {
        let input = [pick(&mut rng, 1, 70), pick(&mut rng, 3, 9), pick(&mut rng, 3, 9)];
        let kernel = [pick(&mut rng, 1, 3), pick(&mut rng, 1, 3)];
        let stride = [pick(&mut rng, 1, 3), pick(&mut rng, 1, 3)];
        let pads = core::array::from_fn(|_| pick(&mut rng, 0, 2));
        let channels = pick(&mut rng, 1, 4);
        let geometry =
            Geometry::Conv(Conv { input, channels, kernel, stride, pads, dilation: [1; 2], groups: 1 });
        let words =
            |rng: &mut _, n: usize| -> Vec<u32> { (0..n).map(|_| rand_core::Rng::next_u32(rng)).collect() };
        let (w, x) = (words(&mut rng, geometry.weights()), words(&mut rng, geometry.inputs()));
        let mut out = vec![1; geometry.outputs()];
        linear(&geometry, &w, &x, &mut out);
        let wide = |v: &[u32]| v.iter().map(|&v| std::num::Wrapping(v)).collect::<Vec<_>>();
        let step = Step::Conv { weights: vec![], bias: vec![0.0; channels], kernel, stride, pads };
        let expected = affine(&step, &input, &wide(&x), &wide(&w), &wide(&vec![0; channels]));
        assert_eq!(out, expected.iter().map(|v| v.0).collect::<Vec<_>>());
        // The same with signed words of twice the size.
        let signed = |v: &[u32]| v.iter().map(|&v| i64::from(v as i32)).collect::<Vec<_>>();
        let mut sums = vec![0i64; out.len()];
        multiply(&geometry, &signed(&w), &signed(&x), &mut sums);
        assert_eq!(out, sums.iter().map(|&s| s as u32).collect::<Vec<_>>());
    }
}

/// One matrix entry and a bias, as a model with two layers.
pub fn tiny(weight: i32, bias: i64, widths: [u32; 2]) -> FixedModel {
    let layer = |name: &str, weight, bias, width, activation| FixedLayer {
        name: name.to_owned(),
        geometry: Geometry::Dense(Dense { inputs: 1, outputs: 1 }),
        weights: vec![weight],
        bias: vec![bias],
        width,
        activation,
    };
    FixedModel {
        name: "tiny".to_owned(),
        input: InputSpec::new(vec![1], 8),
        layers: vec![
            layer("first", weight, bias, widths[0], Activation::Relu { shift: 2 }),
            layer("second", 1, 0, widths[1], Activation::Output { fraction: 0 }),
        ],
    }
}

#[test]
fn values_that_do_not_fit_wrap_around_and_are_counted() {
    let run = |model: FixedModel, x: u8| {
        let result = model.execute(&[x]).unwrap();
        (result.logits[0], result.wrapped)
    };
    // 3·100 + 1 = 301, shifted right by 2: 75.
    assert_eq!(run(tiny(3, 1, [10, 10]), 100), (75, 0));
    // In 9 bits 301 is -211, and the ReLU makes 0 of it.
    assert_eq!(run(tiny(3, 1, [9, 10]), 100), (0, 1));
    // 75 in 7 bits is -53.
    assert_eq!(run(tiny(3, 1, [10, 7]), 100), (-53, 1));
    // Negative values shift towards minus infinity before the ReLU.
    assert_eq!(run(tiny(-1, 0, [12, 10]), 1), (0, 0));
    // Beyond 32 bits, mod 2^32 and shifted: (2^31 - 1)·255 = -2^31 - 255 mod 2^32, that is 2^31 - 255.
    assert_eq!(run(tiny(i32::MAX, 0, [32, 32]), 255), ((((1i64 << 31) - 255) >> 2) as i32, 1));
}

#[test]
fn ties_go_to_even_and_the_first_maximum_wins() {
    let gemm = Step::Gemm { weights: vec![0.5, 1.5, 2.5, -0.5], bias: vec![0.0; 4] };
    let network = Network { input: vec![1], steps: vec![gemm] };
    let scales = Scales { weight_bits: 0, activation_bits: 0, first_bits: 0 };
    let normalisation = Normalisation { scale: 1.0, ..Default::default() };
    let model = imported(&network, scales, &normalisation).unwrap();
    assert_eq!(model.layers[0].weights, [0, 2, 2, 0]);
    assert_eq!(model.execute(&[3]).unwrap().label(), 1);
}

/// A small network that is fine, for spoiling.
fn sound() -> ModelProto {
    let steps = vec![
        conv(2, 1, [3, 3], [1, 1], [0; 4]),
        Step::Pool { kernel: [2, 2], stride: [2, 2] },
        Step::Relu,
        Step::Flatten,
        Step::Gemm { weights: weights(18 * 3, 5), bias: vec![0.0; 3] },
    ];
    Network { input: vec![1, 8, 8], steps }.model()
}

/// The message for a network that is spoilt by `change`, given a node's number.
fn refusal(change: impl FnOnce(&mut ModelProto)) -> String {
    let mut model = sound();
    change(&mut model);
    import(&model.encode_to_vec(), &ImportOptions::default()).unwrap_err().to_string()
}

fn node(model: &mut ModelProto, i: usize) -> &mut crate::onnx::NodeProto {
    &mut model.graph.as_mut().unwrap().node[i]
}

fn set(model: &mut ModelProto, i: usize, attribute: AttributeProto) {
    let attributes = &mut node(model, i).attribute;
    attributes.retain(|a| a.name != attribute.name);
    attributes.push(attribute);
}

#[test]
fn what_is_not_supported_is_refused_by_name() {
    assert!(import(&sound().encode_to_vec(), &ImportOptions::default()).is_ok());
    let attribute = |name: &str, f, s: &str, kind| AttributeProto {
        name: name.to_owned(),
        f,
        s: s.as_bytes().to_vec(),
        r#type: kind,
        ..Default::default()
    };
    type Change = Box<dyn FnOnce(&mut ModelProto)>;
    let cases: Vec<(&str, Change)> = vec![
        ("n2 (MaxPool): this operator is not supported", Box::new(|m| node(m, 2).op_type = "MaxPool".into())),
        ("n0 (Conv): group = 2", Box::new(|m| set(m, 0, int("group", 2)))),
        ("n0 (Conv): dilations", Box::new(|m| set(m, 0, ints("dilations", &[2, 2])))),
        ("n0 (Conv): strides", Box::new(|m| set(m, 0, ints("strides", &[0, 1])))),
        (
            "n0 (Conv): strides = [1] is not for two spatial axes",
            Box::new(|m| set(m, 0, ints("strides", &[1]))),
        ),
        ("n0 (Conv): attribute group is of the wrong type", Box::new(|m| set(m, 0, ints("group", &[1])))),
        ("n0 (Conv): attribute new is not supported", Box::new(|m| set(m, 0, int("new", 1)))),
        (
            "n0 (Conv): auto_pad = SAME_UPPER",
            Box::new(move |m| set(m, 0, attribute("auto_pad", 0.0, "SAME_UPPER", attribute_type::STRING))),
        ),
        (
            "n4 (Gemm): alpha = 0.5",
            Box::new(move |m| set(m, 4, attribute("alpha", 0.5, "", attribute_type::FLOAT))),
        ),
        ("n4 (Gemm): transA = 1", Box::new(|m| set(m, 4, int("transA", 1)))),
        ("n4 (Gemm): its weights are for 3 inputs", Box::new(|m| set(m, 4, int("transB", 0)))),
        ("n1 (AveragePool): ceil_mode = 1", Box::new(|m| set(m, 1, int("ceil_mode", 1)))),
        ("n1 (AveragePool): padding", Box::new(|m| set(m, 1, ints("pads", &[1, 1, 1, 1])))),
        ("n1 (AveragePool): its kernel_shape [7, 7]", Box::new(|m| set(m, 1, ints("kernel_shape", &[7, 7])))),
        ("n3 (Flatten): axis = 2", Box::new(|m| set(m, 3, int("axis", 2)))),
        ("n0 (Conv): operator domain custom", Box::new(|m| node(m, 0).domain = "custom".into())),
        ("n2 (Relu): it goes on from n0 (Conv)", Box::new(|m| node(m, 2).input[0] = "t0".into())),
        ("n4 (Gemm): input t2 is not a constant", Box::new(|m| node(m, 4).input[1] = "t2".into())),
        ("have version 6 (opset)", Box::new(|m| m.opset_import[0].version = 6)),
        ("names no version of ONNX's operators", Box::new(|m| m.opset_import[0].domain = "custom".into())),
        (
            "there must be one, the last node's (t4)",
            Box::new(|m| m.graph.as_mut().unwrap().output[0].name = "t3".into()),
        ),
        ("there must be exactly one", Box::new(|m| m.graph.as_mut().unwrap().input.clear())),
        (
            "batch size must be 1",
            Box::new(|m| m.graph.as_mut().unwrap().input[0] = super::network::value("x", &[2, 1, 8, 8])),
        ),
        (
            "has values of type INT64, and FLOAT is needed",
            Box::new(|m| m.graph.as_mut().unwrap().initializer[0].data_type = crate::onnx::INT64),
        ),
        (
            "not finite",
            Box::new(|m| m.graph.as_mut().unwrap().initializer[1] = tensor("b0", &[2], &[0.0, f32::NAN])),
        ),
        ("kept in another file", Box::new(|m| m.graph.as_mut().unwrap().initializer[0].data_location = 1)),
        (
            "a bias is too large",
            Box::new(|m| m.graph.as_mut().unwrap().initializer[1] = tensor("b0", &[2], &[0.0, 1e9])),
        ),
        (
            "a ReLU must follow a linear layer",
            Box::new(|m| {
                let first = crate::onnx::NodeProto {
                    op_type: "Relu".into(),
                    input: vec!["x".into()],
                    output: vec!["r".into()],
                    ..Default::default()
                };
                node(m, 0).input[0] = "r".into();
                m.graph.as_mut().unwrap().node.insert(0, first);
            }),
        ),
        (
            "two linear layers in a row",
            Box::new(|m| {
                let graph = m.graph.as_mut().unwrap();
                graph.node.remove(2);
                graph.node[2].input[0] = "t1".into();
            }),
        ),
        (
            "the last layer must be linear",
            Box::new(|m| {
                let graph = m.graph.as_mut().unwrap();
                graph.node.pop();
                graph.output[0].name = "t3".into();
            }),
        ),
    ];
    for (expected, change) in cases {
        let message = refusal(change);
        assert!(message.contains(expected), "{message} instead of {expected}");
    }
}

/// What people meet first, told as what it is: the cause and not its consequences.
#[test]
fn the_cause_is_named_and_what_to_do() {
    let insert = |m: &mut ModelProto, at: usize, op: &str, input: &[&str], output: &str| {
        let node = crate::onnx::NodeProto {
            name: format!("new {op}"),
            op_type: op.into(),
            input: input.iter().map(ToString::to_string).collect(),
            output: vec![output.into()],
            ..Default::default()
        };
        m.graph.as_mut().unwrap().node.insert(at, node);
    };
    // Exporters share constants by copying them about; what is not supported is the normalisation.
    let message = refusal(|m| {
        node(m, 3).input[0] = "normal".into();
        insert(m, 3, "BatchNormalization", &["t2", "copy", "b0", "b0", "b0"], "normal");
        insert(m, 0, "Identity", &["b0"], "copy");
    });
    assert!(
        message.contains("new BatchNormalization (BatchNormalization): this operator is not"),
        "{message}"
    );
    assert!(message.contains("neither are Identity") && message.contains("fold it into"), "{message}");
    // A convolution along one axis is no mistake in its dilations.
    let message = refusal(|m| {
        m.graph.as_mut().unwrap().input[0] = super::network::value("x", &[1, 1, 64]);
        set(m, 0, ints("dilations", &[1]));
    });
    assert!(message.contains("its input has shape [1, 64]") && message.contains("height of 1"), "{message}");
    assert!(!message.contains("dilations"), "{message}");
    let message = refusal(|m| {
        let graph = m.graph.as_mut().unwrap();
        graph.initializer[0] = tensor("w0", &[2, 1, 9], &[0.0; 18]);
    });
    assert!(
        message.contains("weights have shape [2, 1, 9]") && message.contains("two-dimensional"),
        "{message}"
    );
    // A second path, a constant in the wrong place, and something that nobody makes.
    let message = refusal(|m| node(m, 4).input[0] = "x".into());
    assert!(
        message.contains("goes on from x (the network's input)") && message.contains("branches"),
        "{message}"
    );
    let message = refusal(|m| node(m, 2).input[0] = "b0".into());
    assert!(message.contains("b0 is a constant") && message.contains("onnxsim"), "{message}");
    let message = refusal(|m| node(m, 2).input[0] = "nothing".into());
    assert!(message.contains("no node makes its input nothing"), "{message}");
    // Git's stand-in for a large file.
    let pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n";
    let message = import(pointer, &ImportOptions::default()).unwrap_err().to_string();
    assert!(message.contains("git lfs pull"), "{message}");
}

/// Whatever a file has in it, a message stays a line that one can read.
#[test]
fn messages_stay_short() {
    let long: Vec<usize> = vec![1; 100_000];
    let message = refusal(|m| set(m, 0, ints("strides", &long)));
    assert!(message.len() < 400, "{}", message.len());
    let message = refusal(|m| {
        for i in 0..100 {
            let node = crate::onnx::NodeProto { op_type: format!("{i}\n").repeat(100), ..Default::default() };
            m.graph.as_mut().unwrap().node.push(node);
        }
    });
    assert!(message.len() < 1500 && message.lines().count() == 1, "{message}");
}

#[test]
fn reshapes_that_flatten_and_constants_in_nodes_are_understood() {
    let expected = import(&sound().encode_to_vec(), &ImportOptions::default()).unwrap();
    let with = |target: &[i64]| {
        let mut model = sound();
        let shape = TensorProto {
            dims: vec![target.len() as i64],
            data_type: crate::onnx::INT64,
            int64_data: target.to_vec(),
            ..Default::default()
        };
        let value = AttributeProto {
            name: "value".into(),
            t: Some(shape),
            r#type: attribute_type::TENSOR,
            ..Default::default()
        };
        let constant = crate::onnx::NodeProto {
            op_type: "Constant".into(),
            output: vec!["shape".into()],
            attribute: vec![value],
            ..Default::default()
        };
        let reshape = node(&mut model, 3);
        (reshape.op_type, reshape.input) = ("Reshape".into(), vec!["t2".into(), "shape".into()]);
        model.graph.as_mut().unwrap().node.insert(0, constant);
        import(&model.encode_to_vec(), &ImportOptions::default())
    };
    for target in [[1, -1], [-1, 18], [0, -1], [1, 18]] {
        let model = with(&target).unwrap();
        assert_eq!(model.layers[1].weights, expected.layers[1].weights);
    }
    for target in
        [&[2, 9][..], &[-1], &[-1, -1], &[1, 19], &[18, 1], &[i64::MAX, i64::MIN], &[], &[0, 0, 0, 0, 0]]
    {
        assert!(with(target).unwrap_err().to_string().contains("n3 (Reshape)"));
    }
}

#[test]
fn options_are_checked() {
    let of = |normalisation: Normalisation, scales: Scales, input_bits: u32| {
        import(&sound().encode_to_vec(), &ImportOptions { scales, normalisation, input_bits })
    };
    let good = Normalisation::default;
    assert!(of(Normalisation { mean: vec![0.5], std: vec![0.5], ..good() }, Scales::default(), 8).is_ok());
    for bad in [
        Normalisation { scale: 0.0, ..good() },
        Normalisation { scale: f64::NAN, ..good() },
        Normalisation { std: vec![-1.0], ..good() },
        Normalisation { mean: vec![f64::INFINITY], ..good() },
        Normalisation { mean: vec![0.1, 0.2], ..good() },
    ] {
        assert!(matches!(of(bad, Scales::default(), 8), Err(Error::Options(_))));
    }
    assert!(matches!(of(good(), Scales::new(8, 17), 8), Err(Error::Options(_))));
    assert!(matches!(of(good(), Scales::new(u32::MAX, 8), 8), Err(Error::Options(_))));
    assert!(matches!(of(good(), Scales::default(), 9), Err(Error::Options(_))));
}
