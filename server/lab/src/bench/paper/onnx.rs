//! Networks of the paper with random weights, as ONNX files, for where no trained ones are at hand: what a prediction
//! costs depends on the shapes, not on the weights. An ONNX file is a protobuf message, a sequence of numbered fields.

use chacha20::ChaCha20Rng;
use rand_core::{Rng as _, SeedableRng as _};

/// Fields of messages: numbers, and everything that has a length.
fn number(field: u64, value: u64) -> Vec<u8> {
    [varint(field << 3), varint(value)].concat()
}

fn bytes(field: u64, value: &[u8]) -> Vec<u8> {
    [&varint(field << 3 | 2)[..], &varint(value.len() as u64), value].concat()
}

fn varint(mut value: u64) -> Vec<u8> {
    let mut out = Vec::new();
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
    out
}

/// A list of integers as an attribute.
fn integers(name: &str, values: &[u64]) -> Vec<u8> {
    let values: Vec<u8> = values.iter().flat_map(|&value| number(8, value)).collect();
    bytes(5, &[&bytes(1, name.as_bytes())[..], &values, &number(20, 7)].concat())
}

/// One integer as an attribute.
fn integer(name: &str, value: u64) -> Vec<u8> {
    bytes(5, &[bytes(1, name.as_bytes()), number(3, value), number(20, 2)].concat())
}

/// A graph under construction, with one open end.
struct Graph {
    nodes: Vec<u8>,
    constants: Vec<u8>,
    /// Name of the last value.
    end: String,
    count: usize,
    random: ChaCha20Rng,
}

impl Graph {
    fn new(seed: u8) -> Graph {
        let random = ChaCha20Rng::from_seed([seed; 32]);
        Graph { nodes: Vec::new(), constants: Vec::new(), end: "input".to_owned(), count: 0, random }
    }

    fn name(&mut self, kind: &str) -> String {
        self.count += 1;
        format!("{kind}{}", self.count)
    }

    /// Appends a step; its output becomes the end.
    fn node(&mut self, op: &str, inputs: &[&str], attributes: &[u8]) -> &mut Graph {
        let output = self.name(&op.to_lowercase());
        let inputs: Vec<u8> = inputs.iter().flat_map(|name| bytes(1, name.as_bytes())).collect();
        let node = [&inputs[..], &bytes(2, output.as_bytes()), &bytes(4, op.as_bytes()), attributes].concat();
        self.nodes.extend(bytes(1, &node));
        self.end = output;
        self
    }

    /// A step that has the end as its only input.
    fn on(&mut self, op: &str, attributes: &[u8]) -> &mut Graph {
        let end = self.end.clone();
        self.node(op, &[&end], attributes)
    }

    /// Weights whose products keep the size of what they are multiplied with, as He et al. choose them, times
    /// `factor`.
    fn weights(&mut self, shape: &[usize], factor: f64) -> String {
        let name = self.name("w");
        let fan_in: usize = shape.iter().skip(1).product();
        let largest = factor * (6.0 / fan_in.max(1) as f64).sqrt();
        let data: Vec<u8> = (0..shape.iter().product())
            .map(|_| (f64::from(self.random.next_u32()) / f64::from(u32::MAX) * 2.0 - 1.0) * largest)
            .flat_map(|value| (value as f32).to_le_bytes())
            .collect();
        let dims: Vec<u8> = shape.iter().flat_map(|&d| number(1, d as u64)).collect();
        let tensor = [dims, number(2, 1), bytes(8, name.as_bytes()), bytes(9, &data)].concat();
        self.constants.extend(bytes(5, &tensor));
        name
    }

    /// Every other row and column, and zeros as channels before and after: a shortcut without weights.
    fn halved(&mut self, channels: u64) -> &mut Graph {
        self.on("AveragePool", &[integers("kernel_shape", &[1; 2]), integers("strides", &[2; 2])].concat());
        let name = self.name("pads");
        let pads = [0, channels / 2, 0, 0, 0, channels / 2, 0, 0];
        let data: Vec<u8> = pads.iter().flat_map(|pad: &u64| pad.to_le_bytes()).collect();
        // 64-bit integers.
        let tensor = [number(1, 8), number(2, 7), bytes(8, name.as_bytes()), bytes(9, &data)].concat();
        self.constants.extend(bytes(5, &tensor));
        let end = self.end.clone();
        self.node("Pad", &[&end, &name], &[])
    }

    fn convolution(&mut self, [outputs, inputs, size]: [usize; 3], stride: u64, factor: f64) -> &mut Graph {
        let weights = self.weights(&[outputs, inputs, size, size], factor);
        // 3x3 keeps the size, 5x5 does not: so it is in these networks.
        let pad = u64::from(size == 3);
        let attributes = [integers("pads", &[pad; 4]), integers("strides", &[stride; 2])].concat();
        let end = self.end.clone();
        self.node("Conv", &[&end, &weights], &attributes)
    }

    fn mean(&mut self, size: u64) -> &mut Graph {
        self.on(
            "AveragePool",
            &[integers("kernel_shape", &[size; 2]), integers("strides", &[size; 2])].concat(),
        )
    }

    fn relu(&mut self) -> &mut Graph {
        self.on("Relu", &[])
    }

    fn dense(&mut self, outputs: usize, inputs: usize) -> &mut Graph {
        let weights = self.weights(&[outputs, inputs], 1.0);
        let end = self.end.clone();
        self.node("Gemm", &[&end, &weights], &integer("transB", 1))
    }

    fn finish(&self, input: [usize; 3]) -> Vec<u8> {
        let value = |name: &str, shape: &[usize]| {
            let dims: Vec<u8> = shape.iter().flat_map(|&d| bytes(1, &number(1, d as u64))).collect();
            [bytes(1, name.as_bytes()), bytes(2, &bytes(1, &[number(1, 1), bytes(2, &dims)].concat()))]
                .concat()
        };
        let [channels, height, width] = input;
        let graph = [
            self.nodes.clone(),
            bytes(2, b"random"),
            self.constants.clone(),
            bytes(11, &value("input", &[1, channels, height, width])),
            bytes(12, &value(&self.end, &[1, 10])),
        ]
        .concat();
        [number(1, 7), bytes(7, &graph), bytes(8, &number(2, 13))].concat()
    }
}

/// LeNet of the paper, for 1x28x28.
pub fn lenet() -> Vec<u8> {
    let mut graph = Graph::new(1);
    graph.convolution([20, 1, 5], 1, 1.0).mean(2).relu();
    graph.convolution([50, 20, 5], 1, 1.0).mean(2).relu();
    graph.on("Flatten", &[]).dense(500, 800).relu().dense(10, 500);
    graph.finish([1, 28, 28])
}

/// ResNet-32 for 3x32x32, with shortcuts without weights.
pub fn resnet32() -> Vec<u8> {
    let mut graph = Graph::new(2);
    graph.convolution([16, 3, 3], 1, 1.0).relu();
    let mut channels = 16;
    for stage in 0..3 {
        for block in 0..5 {
            let start = graph.end.clone();
            let (outputs, stride) = (16 << stage, if stage > 0 && block == 0 { 2 } else { 1 });
            graph.convolution([outputs, channels, 3], stride, 1.0).relu();
            // Small, or sums over fifteen blocks would double each time.
            graph.convolution([outputs, outputs, 3], 1, 0.25);
            let long = graph.end.clone();
            let short = if outputs == channels {
                start
            } else {
                graph.end = start;
                graph.halved(channels as u64).end.clone()
            };
            graph.node("Add", &[&long, &short], &[]).relu();
            channels = outputs;
        }
    }
    graph.mean(8).on("Flatten", &[]).dense(10, 64);
    graph.finish([3, 32, 32])
}

#[cfg(test)]
mod tests {
    use super::*;
    use seco_model::{ImportOptions, read};

    #[test]
    fn the_networks_are_read_and_have_the_papers_layers() {
        use seco_model::real::RealOp;
        let linear = |file: &[u8]| {
            let real = read(file, &ImportOptions::default()).unwrap();
            real.nodes.iter().filter(|node| matches!(node.op, RealOp::Linear(_))).count()
        };
        assert_eq!(linear(&lenet()), 4);
        assert_eq!(linear(&resnet32()), 32);
    }
}
