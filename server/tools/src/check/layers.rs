//! What every layer looks like and costs.

use seco_model::graph::Graph;
use seco_model::{Geometry, Imported, Op, SumWidth, signed_width};
use seco_protocol::cost::Cost;
use serde::Serialize;

use super::evidence::Evidence;

/// A secret layer, a ReLU, or the answer. A ReLU that reads a layer and nothing else is a row of its own.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Layer {
    pub name: String,
    pub kind: &'static str,
    /// Of what it makes.
    pub shape: Vec<usize>,
    pub macs: Option<u64>,
    /// How its weights were rounded: each to `nearest`, or `compensated`, so that what it makes changes least.
    pub rounding: Option<&'static str>,
    /// What an integer is worth of what it makes, or, of a ReLU, reads.
    pub scale: Option<f64>,
    /// Bits of that.
    pub width: u32,
    /// What was seen of it, where its sign matters.
    pub least: Option<i64>,
    pub largest: Option<i64>,
    pub used_bits: Option<u32>,
    pub worst_bits: Option<u32>,
    pub headroom_bits: Option<u32>,
    /// Whether other inputs may make it less than what its shift was lifted by, where it is cut off.
    pub clamped: Option<bool>,
    pub relus: Option<u64>,
    pub and_gates: Option<u64>,
    pub ciphertexts_in: Option<usize>,
    pub ciphertexts_out: Option<usize>,
    pub products: Option<usize>,
    pub bytes: u64,
    pub online_bytes: u64,
}

/// All of them in the order of the graph, with this cost.
pub fn layers(imported: &Imported, evidence: &Evidence, cost: &Cost) -> Vec<Layer> {
    let (graph, chosen) = (&imported.chosen.model.graph, &imported.chosen);
    let scale = |value: usize| chosen.scales.get(value).copied().flatten();
    let sum = |value: usize| chosen.calibration.sums.iter().find(|sum| sum.value == value);
    let mut rows = Vec::new();
    let mut rounding = chosen.compensated.iter().map(|own| if *own { "compensated" } else { "nearest" });
    for (number, node) in graph.nodes.iter().enumerate() {
        match &node.op {
            Op::Secret { geometry, .. } => {
                let costs = cost.layers.iter().find(|layer| layer.node == number);
                rows.push(Layer {
                    name: node.name.clone(),
                    kind: "linear",
                    shape: shape(geometry),
                    macs: Some(geometry.products() as u64),
                    rounding: rounding.next(),
                    scale: scale(number + 1),
                    width: node.width,
                    ciphertexts_in: costs.map(|costs| costs.inputs),
                    ciphertexts_out: costs.map(|costs| costs.outputs),
                    products: costs.map(|costs| costs.products),
                    bytes: costs.map_or(0, |costs| costs.bytes),
                    ..Layer::default()
                });
            }
            Op::Relu { input, .. } => {
                let costs = cost.steps.iter().find(|step| step.node == number);
                let mut row = Layer {
                    name: node.name.clone(),
                    kind: "relu",
                    shape: vec![graph.len(number + 1)],
                    scale: scale(*input),
                    relus: costs.map(|costs| costs.relus),
                    and_gates: costs.map(|costs| costs.and_gates),
                    bytes: costs.map_or(0, |costs| costs.bytes),
                    online_bytes: costs.map_or(0, |costs| costs.online_bytes),
                    ..Layer::default()
                };
                row.sum(graph, *input, sum(*input), evidence);
                rows.push(row);
            }
            Op::Public { .. } => {}
        }
    }
    let answer = graph.answer();
    let mut row = Layer {
        name: "answer".to_owned(),
        kind: "answer",
        shape: vec![graph.answer_len()],
        scale: scale(answer),
        ..Layer::default()
    };
    row.sum(graph, answer, sum(answer), evidence);
    rows.push(row);
    rows
}

impl Layer {
    fn sum(&mut self, graph: &Graph, value: usize, sum: Option<&SumWidth>, evidence: &Evidence) {
        self.width = graph.width(value);
        if let Some(&(least, largest)) = evidence.ranges.get(value) {
            (self.least, self.largest) = (Some(least), Some(largest));
            let used = signed_width(least.into(), largest.into());
            self.used_bits = Some(used);
            self.headroom_bits = Some(self.width.saturating_sub(used));
        }
        self.worst_bits = sum.map(|sum| sum.worst);
        self.clamped = sum.map(|sum| sum.clamped);
    }

    /// The largest magnitude that was seen.
    pub fn magnitude(&self) -> Option<u64> {
        self.least.zip(self.largest).map(|(least, largest)| least.unsigned_abs().max(largest.unsigned_abs()))
    }
}

fn shape(geometry: &Geometry) -> Vec<usize> {
    match geometry {
        Geometry::Conv(conv) => conv.output().to_vec(),
        Geometry::Dense(dense) => vec![dense.outputs],
    }
}

/// The width of ReLUs, on average.
pub fn typical_width(graph: &Graph) -> u32 {
    let (mut bits, mut count) = (0usize, 0usize);
    for relu in graph.activations() {
        bits += relu.len * relu.width as usize;
        count += relu.len;
    }
    ((bits + count / 2).checked_div(count).unwrap_or(20) as u32).clamp(9, 32)
}
