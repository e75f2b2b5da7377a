//! Times and memory, from counts and rates.
//!
//! A server's CPU time is its counted work times the rates. **Preprocessing** is streamed, so it takes the longest of
//! every server's CPU time on the cores that this machine has, of what it sends and of what it receives, and the delay
//! of the messages that wait for each other. **Online** times follow the protocol message by message
//! ([`Cost::online_seconds`]), with the delay of the device's request and answer. On a network every server is a machine
//! like this one; on `loopback` all share it.
//!
//! **Memory** is not measured: code and buffers, a server's weights, one bundle but for tables beyond 256 MiB (those are
//! on disk), and while it makes another one weights in NTT form and the waves that are under way.

use std::collections::BTreeMap;
use std::hint::black_box;
use std::time::Duration;

use seco_model::{Architecture, FixedModel};
use seco_protocol::cost::{Cost, Event, Kind};
use serde::Serialize;

use seco_node::config::Pool;

use crate::check::rates::Rates;
use crate::process::{Took, timed};

/// Bytes of a process that serves nothing.
const PROCESS: u64 = 40 << 20;

/// What clusters of one size take.
#[derive(Clone, Debug, Serialize)]
pub struct Totals {
    pub servers: usize,
    pub setup_bytes: u64,
    pub preprocessing: Phase,
    pub online: Phase,
    pub stored_bytes: Vec<u64>,
    pub memory_bytes: Memory,
    pub networks: Vec<Network>,
}

/// A phase.
#[derive(Clone, Debug, Serialize)]
pub struct Phase {
    pub bytes: u64,
    pub bytes_by_kind: BTreeMap<Kind, u64>,
    pub bytes_sent: Vec<u64>,
    pub rounds: usize,
    pub cpu_s: Vec<f64>,
}

/// By server.
#[derive(Clone, Debug, Serialize)]
pub struct Memory {
    pub making: Vec<u64>,
    pub serving: Vec<u64>,
}

/// What it takes on a network.
#[derive(Clone, Debug, Serialize)]
pub struct Network {
    pub name: &'static str,
    pub latency_ms: f64,
    pub bits_per_s: f64,
    pub preprocessing_s: f64,
    pub online_s: f64,
}

/// Name, milliseconds one way, bits per second.
const NETWORKS: [(&str, f64, f64); 3] = [("lan", 0.1, 10e9), ("wan", 20.0, 200e6), ("loopback", 0.03, 20e9)];

/// Seconds that a holder takes online, by layer: tried out.
pub fn multiply(model: &FixedModel) -> Vec<f64> {
    let layers = model.graph.layers().zip(&model.layers);
    let one = |(layer, weights): (seco_model::graph::Layer<'_>, &seco_model::FixedLayer)| {
        let weights: Vec<u32> = weights.weights.iter().map(|&weight| weight as u32).collect();
        let x: Vec<u32> = (0..layer.geometry.inputs() as u32).map(|i| i.wrapping_mul(0x9e37_79b9)).collect();
        let mut out = vec![0; layer.geometry.outputs()];
        let (mut took, mut runs) = (Took::default(), 0);
        // Small ones more than once, for the clock.
        while runs == 0 || (took.wall < Duration::from_millis(2) && runs < 100) {
            timed(&mut took, || seco_model::linear(layer.geometry, black_box(&weights), &x, &mut out));
            black_box(&mut out);
            runs += 1;
        }
        took.wall.as_secs_f64() / f64::from(runs)
    };
    layers.map(one).collect()
}

impl Totals {
    /// Of a cluster. `multiply` is by layer.
    pub fn new(architecture: &Architecture, cost: &Cost, rates: &Rates, multiply: &[f64]) -> Totals {
        let servers = cost.servers;
        let cores = std::thread::available_parallelism().map_or(1, usize::from) as f64;
        let gates = rates.gates(servers);
        let multiplied = |layer: usize| multiply.get(layer).copied().unwrap_or(0.0);
        let ahead: Vec<f64> = (0..servers).map(|server| ahead(cost, rates, server)).collect();
        let work = |event: &Event| match *event {
            Event::Multiply { layer, .. } => multiplied(layer),
            Event::Label { ands, .. } => ands as f64 * gates.label,
            Event::Evaluate { ands, .. } => ands as f64 * gates.evaluate,
            Event::Exchange { .. } => 0.0,
        };
        let mut online = vec![0.0; servers];
        for event in &cost.online {
            match event {
                Event::Multiply { server, .. }
                | Event::Label { server, .. }
                | Event::Evaluate { server, .. } => {
                    if let Some(sum) = online.get_mut(*server) {
                        *sum += work(event);
                    }
                }
                Event::Exchange { .. } => {}
            }
        }
        let networks = NETWORKS.map(|(name, latency_ms, bits_per_s)| {
            let (latency, bytes_per_s) = (latency_ms / 1e3, bits_per_s / 8.0);
            let shared = name == "loopback";
            let busy = |server: usize| {
                let traffic = &cost.traffic;
                let bytes = traffic.sent(server, false).max(traffic.received(server, false));
                let cpu = if shared { ahead.iter().sum() } else { ahead.get(server).copied().unwrap_or(0.0) };
                (cpu / cores).max(bytes as f64 / bytes_per_s)
            };
            let longest = (0..servers).map(busy).fold(0.0, f64::max);
            // Labels are made by one thread, and read by one; on one machine they are garblers and evaluator at once.
            let threads = |event: &Event| match event {
                Event::Evaluate { .. } if !shared => cores,
                Event::Evaluate { .. } => (cores / 2.0).max(1.0),
                _ => 1.0,
            };
            let own = |event: &Event| work(event) / threads(event);
            Network {
                name,
                latency_ms,
                bits_per_s,
                preprocessing_s: longest + cost.rounds_ahead as f64 * latency,
                online_s: cost.online_seconds(own, latency, bytes_per_s) + 2.0 * latency,
            }
        });
        let phase = |is_online: bool, rounds: usize, cpu_s: Vec<f64>| {
            let kinds = Kind::ALL.into_iter().filter(|kind| kind.is_online() == is_online);
            Phase {
                bytes: cost.traffic.total(is_online),
                bytes_by_kind: kinds.map(|kind| (kind, cost.traffic.of(kind))).collect(),
                bytes_sent: (0..servers).map(|server| cost.traffic.sent(server, is_online)).collect(),
                rounds,
                cpu_s,
            }
        };
        Totals {
            servers,
            setup_bytes: cost.setup_bytes,
            preprocessing: phase(false, cost.rounds_ahead, ahead.clone()),
            online: phase(true, cost.rounds() + 2, online),
            stored_bytes: cost.parts.iter().map(|part| part.storage_bytes).collect(),
            memory_bytes: memory(architecture, cost),
            networks: networks.into(),
        }
    }
}

/// CPU-seconds of a server for a bundle.
fn ahead(cost: &Cost, rates: &Rates, server: usize) -> f64 {
    let Some(work) = cost.work.get(server) else { return 0.0 };
    let gates = rates.gates(cost.servers);
    // Those of garbling are in its own rates.
    let bytes = cost.traffic.at(server, Kind::is_linear);
    [
        (work.encrypted, rates.encrypt),
        (work.added, rates.add),
        (work.products, rates.product),
        (work.made, rates.make),
        (work.transforms, rates.transform),
        (work.answered, rates.answer),
        (bytes, rates.byte),
        (work.garbled, gates.garble),
        (work.evaluated, gates.fold),
    ]
    .into_iter()
    .map(|(units, seconds)| units as f64 * seconds)
    .sum()
}

fn memory(architecture: &Architecture, cost: &Cost) -> Memory {
    let words = |server: usize| -> u64 {
        let held =
            architecture.graph.layers().filter(|layer| architecture.holders(layer.index).contains(&server));
        held.map(|layer| 4 * (layer.geometry.weights() + layer.geometry.outputs()) as u64).sum()
    };
    // What stays in memory of tables, unless a server's settings say otherwise.
    let tables = (Pool::default().memory_mib as u64) << 20;
    let serving: Vec<u64> = (0..cost.servers)
        .map(|server| {
            let stored = cost.parts.get(server).map_or(0, |part| part.storage_bytes);
            // Of a bundle that does not fit nothing is kept there.
            PROCESS + words(server) + if stored <= tables { stored } else { 0 }
        })
        .collect();
    let waves = |server: usize| cost.waves_bytes.get(server).copied().unwrap_or(0);
    let weights = |server: usize| cost.weights_bytes.get(server).copied().unwrap_or(0);
    let making = serving.iter().enumerate();
    let making = making.map(|(server, &bytes)| bytes + weights(server) + waves(server)).collect();
    Memory { making, serving }
}
