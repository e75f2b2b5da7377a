//! Networks of the paper with random weights, as ONNX files, for where no trained ones are at hand: what a prediction
//! costs depends on the shapes, not on the weights.

use chacha20::ChaCha20Rng;
use rand_core::{Rng as _, SeedableRng as _};

use crate::onnx::{file, floats, integer, integers, longs, node};

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
        self.nodes.extend(node(op, inputs, &output, attributes));
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
        let random = &mut self.random;
        let values = (0..shape.iter().product())
            .map(|_| ((f64::from(random.next_u32()) / f64::from(u32::MAX) * 2.0 - 1.0) * largest) as f32);
        self.constants.extend(floats(&name, shape, values));
        name
    }

    /// Every other row and column, and zeros as channels before and after: a shortcut without weights.
    fn halved(&mut self, channels: u64) -> &mut Graph {
        self.on("AveragePool", &[integers("kernel_shape", &[1; 2]), integers("strides", &[2; 2])].concat());
        let name = self.name("pads");
        let pads = [0, channels / 2, 0, 0, 0, channels / 2, 0, 0];
        self.constants.extend(longs(&name, &pads));
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

    fn finish(&self, [channels, height, width]: [usize; 3]) -> Vec<u8> {
        let input = [1, channels, height, width];
        file("random", &self.nodes, &self.constants, ("input", &input), (&self.end, &[1, 10]))
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
