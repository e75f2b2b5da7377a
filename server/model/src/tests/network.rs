//! Small networks, as ONNX files and evaluated in the plainest way.

use prost::Message;

use crate::onnx::{
    AttributeProto, DimensionProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, TensorProto,
    TensorShapeProto, TensorTypeProto, TypeProto, ValueInfoProto, attribute_type,
};
use crate::{Normalisation, Scales};

/// One operator.
#[derive(Clone, Debug)]
pub enum Step {
    Conv { weights: Vec<f32>, bias: Vec<f32>, kernel: [usize; 2], stride: [usize; 2], pads: [usize; 4] },
    Gemm { weights: Vec<f32>, bias: Vec<f32> },
    Pool { kernel: [usize; 2], stride: [usize; 2] },
    Relu,
    Flatten,
}

/// A chain of them.
#[derive(Clone, Debug)]
pub struct Network {
    /// Without the batch.
    pub input: Vec<usize>,
    pub steps: Vec<Step>,
}

pub fn tensor(name: &str, dims: &[usize], values: &[f32]) -> TensorProto {
    TensorProto {
        name: name.to_owned(),
        dims: dims.iter().map(|&d| d as i64).collect(),
        data_type: crate::onnx::FLOAT,
        raw_data: values.iter().flat_map(|v| v.to_le_bytes()).collect(),
        ..Default::default()
    }
}

pub fn ints(name: &str, values: &[usize]) -> AttributeProto {
    let ints = values.iter().map(|&v| v as i64).collect();
    AttributeProto { name: name.to_owned(), ints, r#type: attribute_type::INTS, ..Default::default() }
}

pub fn int(name: &str, i: i64) -> AttributeProto {
    AttributeProto { name: name.to_owned(), i, r#type: attribute_type::INT, ..Default::default() }
}

pub fn value(name: &str, shape: &[usize]) -> ValueInfoProto {
    let dim = |&d: &usize| DimensionProto { dim_value: Some(d as i64), dim_param: None };
    let shape = TensorShapeProto { dim: shape.iter().map(dim).collect() };
    let tensor_type = Some(TensorTypeProto { elem_type: crate::onnx::FLOAT, shape: Some(shape) });
    ValueInfoProto { name: name.to_owned(), r#type: Some(TypeProto { tensor_type }) }
}

impl Network {
    /// The network as a protobuf message that a test may spoil before encoding it.
    pub fn model(&self) -> ModelProto {
        let mut graph = GraphProto { name: "test".to_owned(), ..Default::default() };
        let mut shape = self.input.clone();
        graph.input.push(value("x", &[&[1], shape.as_slice()].concat()));
        let mut current = "x".to_owned();
        for (i, step) in self.steps.iter().enumerate() {
            let mut node = NodeProto {
                name: format!("n{i}"),
                input: vec![current],
                output: vec![format!("t{i}")],
                ..Default::default()
            };
            let mut constants = |graph: &mut GraphProto, dims: &[usize], weights: &[f32], bias: &[f32]| {
                let (w, b) = (format!("w{i}"), format!("b{i}"));
                graph.initializer.push(tensor(&w, dims, weights));
                graph.initializer.push(tensor(&b, &[bias.len()], bias));
                node.input.extend([w, b]);
            };
            let (op, attribute) = match step {
                Step::Conv { weights, bias, kernel, stride, pads } => {
                    constants(&mut graph, &[bias.len(), shape[0], kernel[0], kernel[1]], weights, bias);
                    ("Conv", vec![ints("strides", stride), ints("pads", pads), ints("kernel_shape", kernel)])
                }
                Step::Gemm { weights, bias } => {
                    constants(&mut graph, &[bias.len(), shape[0]], weights, bias);
                    ("Gemm", vec![int("transB", 1)])
                }
                Step::Pool { kernel, stride } => {
                    ("AveragePool", vec![ints("strides", stride), ints("kernel_shape", kernel)])
                }
                Step::Relu => ("Relu", vec![]),
                Step::Flatten => ("Flatten", vec![]),
            };
            (node.op_type, node.attribute) = (op.to_owned(), attribute);
            shape = step.output(&shape);
            current = format!("t{i}");
            graph.node.push(node);
        }
        graph.output.push(value(&current, &[&[1], shape.as_slice()].concat()));
        let opset_import = vec![OperatorSetIdProto { domain: String::new(), version: 17 }];
        ModelProto { ir_version: 8, graph: Some(graph), opset_import }
    }

    pub fn onnx(&self) -> Vec<u8> {
        self.model().encode_to_vec()
    }

    /// The network's answer in floating point on `(x/D - mean)/std`.
    pub fn float(&self, x: &[u8], normalisation: &Normalisation) -> Vec<f64> {
        let per = x.len() / self.input[0];
        let of = |v: &[f64], c: usize, default| v.get(c).or(v.first()).copied().unwrap_or(default);
        let input = x.iter().enumerate().map(|(i, &x)| {
            let c = i / per;
            (f64::from(x) / normalisation.scale - of(&normalisation.mean, c, 0.0))
                / of(&normalisation.std, c, 1.0)
        });
        let (mut values, mut shape): (Vec<f64>, _) = (input.collect(), self.input.clone());
        for step in &self.steps {
            let real = |w: &[f32]| w.iter().map(|&w| f64::from(w)).collect::<Vec<_>>();
            values = match step {
                Step::Conv { weights, bias, .. } | Step::Gemm { weights, bias } => {
                    affine(step, &shape, &values, &real(weights), &real(bias))
                }
                Step::Pool { kernel, .. } => {
                    let window = (kernel[0] * kernel[1]) as f64;
                    sums(step, &shape, &values).iter().map(|v| v / window).collect()
                }
                Step::Relu => values.iter().map(|v| v.max(0.0)).collect(),
                Step::Flatten => values,
            };
            shape = step.output(&shape);
        }
        values
    }

    /// The network's answer in integers, every pooling done where it stands: the sum over the window, its division in
    /// the next shift or in the next weights. Without means, and for windows that do not overlap where they stand in
    /// front of a layer. Also counts wrapped values.
    pub fn integer(&self, x: &[u8], scales: Scales, scale: f64, widths: &[u32]) -> (Vec<i32>, u64) {
        let mut values: Vec<i128> = x.iter().map(|&x| x.into()).collect();
        let (mut shape, mut wrapped, mut layer, mut bits) = (self.input.clone(), 0, 0, 0);
        // Divisor of the pooling in front of the next layer; whether a layer waits for its activation.
        let (mut front, mut open) = (1.0, false);
        let wrap = |values: &mut Vec<i128>, width: u32, wrapped: &mut u64| {
            for v in values {
                let (exact, half) = (*v, 1i128 << (width - 1));
                *v = (exact + half).rem_euclid(2 * half) - half;
                *wrapped += u64::from(exact != *v);
            }
        };
        for (i, step) in self.steps.iter().enumerate() {
            match step {
                Step::Conv { weights, bias, .. } | Step::Gemm { weights, bias } => {
                    let behind = self.steps[i + 1..].iter().take_while(|s| matches!(s, Step::Pool { .. }));
                    let divisor: f64 = behind
                        .map(|s| match s {
                            Step::Pool { kernel, .. } => kernel[0] * kernel[1],
                            _ => 1,
                        })
                        .filter(|w| !w.is_power_of_two())
                        .map(|w| w as f64)
                        .product();
                    let first = layer == 0;
                    let gain = if first { 1.0 / (scale * 1.0) } else { 1.0 };
                    let w_bits = if first { scales.first_bits } else { scales.weight_bits };
                    bits = if first { w_bits } else { w_bits + scales.activation_bits };
                    let round = |v: f64| v.round_ties_even() as i128;
                    let factor = 2f64.powi(w_bits as i32) / divisor;
                    let w: Vec<i128> =
                        weights.iter().map(|&w| round(f64::from(w) / front * gain * factor)).collect();
                    let b: Vec<i128> = bias
                        .iter()
                        .map(|&b| round(f64::from(b) * (2f64.powi(bits as i32) / divisor)))
                        .collect();
                    values = affine(step, &shape, &values, &w, &b);
                    (front, open) = (1.0, true);
                }
                Step::Pool { kernel, .. } => {
                    let window = kernel[0] * kernel[1];
                    values = sums(step, &shape, &values);
                    match open {
                        false => front *= window as f64,
                        true if window.is_power_of_two() => bits += window.ilog2(),
                        true => {}
                    }
                }
                Step::Relu => {
                    wrap(&mut values, widths[layer], &mut wrapped);
                    let shift = bits - scales.activation_bits;
                    values.iter_mut().for_each(|v| *v = (*v >> shift).max(0));
                    (layer, open) = (layer + 1, false);
                }
                Step::Flatten => {}
            }
            shape = step.output(&shape);
        }
        wrap(&mut values, widths[layer], &mut wrapped);
        (values.iter().map(|&v| v as i32).collect(), wrapped)
    }
}

impl Step {
    pub fn output(&self, shape: &[usize]) -> Vec<usize> {
        match self {
            Step::Conv { bias, kernel, stride, pads, .. } => vec![
                bias.len(),
                (shape[1] + pads[0] + pads[2] - kernel[0]) / stride[0] + 1,
                (shape[2] + pads[1] + pads[3] - kernel[1]) / stride[1] + 1,
            ],
            Step::Gemm { bias, .. } => vec![bias.len()],
            Step::Pool { kernel, stride } => {
                vec![shape[0], (shape[1] - kernel[0]) / stride[0] + 1, (shape[2] - kernel[1]) / stride[1] + 1]
            }
            Step::Relu => shape.to_vec(),
            Step::Flatten => vec![shape.iter().product()],
        }
    }
}

pub trait Number: Copy + core::ops::Add<Output = Self> + core::ops::Mul<Output = Self> + Default {}
impl<T: Copy + core::ops::Add<Output = T> + core::ops::Mul<Output = T> + Default> Number for T {}

/// A convolution or matrix, index by index.
pub fn affine<T: Number>(step: &Step, shape: &[usize], x: &[T], w: &[T], b: &[T]) -> Vec<T> {
    let Step::Conv { kernel, stride, pads, .. } = step else {
        let dot = |row: &[T]| row.iter().zip(x).fold(T::default(), |s, (&w, &x)| s + w * x);
        return w.chunks(x.len()).zip(b).map(|(row, &b)| dot(row) + b).collect();
    };
    let out = step.output(shape);
    let mut values = Vec::new();
    for o in 0..out[0] {
        for y in 0..out[1] {
            for column in 0..out[2] {
                let mut sum = b[o];
                for c in 0..shape[0] {
                    for dy in 0..kernel[0] {
                        for dx in 0..kernel[1] {
                            let (iy, ix) = (y * stride[0] + dy, column * stride[1] + dx);
                            let inside = (pads[0]..pads[0] + shape[1]).contains(&iy)
                                && (pads[1]..pads[1] + shape[2]).contains(&ix);
                            if inside {
                                let pixel = x[(c * shape[1] + iy - pads[0]) * shape[2] + ix - pads[1]];
                                sum = sum + w[((o * shape[0] + c) * kernel[0] + dy) * kernel[1] + dx] * pixel;
                            }
                        }
                    }
                }
                values.push(sum);
            }
        }
    }
    values
}

/// Sums over the windows of a pooling step.
fn sums<T: Number>(step: &Step, shape: &[usize], x: &[T]) -> Vec<T> {
    let Step::Pool { kernel, stride } = step else { unreachable!() };
    let out = step.output(shape);
    let mut values = Vec::new();
    for c in 0..out[0] {
        for y in 0..out[1] {
            for column in 0..out[2] {
                let mut sum = T::default();
                for dy in 0..kernel[0] {
                    for dx in 0..kernel[1] {
                        let (iy, ix) = (y * stride[0] + dy, column * stride[1] + dx);
                        sum = sum + x[(c * shape[1] + iy) * shape[2] + ix];
                    }
                }
                values.push(sum);
            }
        }
    }
    values
}
