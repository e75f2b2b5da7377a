//! The bundled networks, private against plain, with what they cost. `--nocapture` shows the times.
#![allow(clippy::unwrap_used)]

mod common;

use std::time::Instant;

use common::{cluster, infer, plain, preprocess, session};
use seco_model::numbers::Goal;
use seco_model::{FixedModel, ImportOptions, Normalisation, import, npy, paper_placements};
use seco_protocol::Counts;

fn load(name: &str, digits: &str, scale: f64) -> (FixedModel, Vec<Vec<u8>>) {
    let data = concat!(env!("CARGO_MANIFEST_DIR"), "/../data/");
    let (shape, samples) = npy::read_u8(&std::fs::read(format!("{data}{digits}")).unwrap()).unwrap();
    let options = ImportOptions {
        normalisation: Normalisation { scale, ..Normalisation::default() },
        ..Default::default()
    };
    let onnx = std::fs::read(format!("{data}{name}")).unwrap();
    let model = import(&onnx, &options, &samples, &Goal::default()).unwrap().chosen.model;
    let size = samples.len() / shape[0];
    (model, samples.chunks(size).map(<[u8]>::to_vec).collect())
}

fn check(name: &str, (model, digits): &(FixedModel, Vec<Vec<u8>>), servers: usize, count: usize) {
    let placements = paper_placements(model.layers.len(), servers, 1);
    let started = Instant::now();
    let parties = cluster(model, servers, &placements, 1);
    let widths: Vec<u32> = model.graph.layers().map(|layer| layer.width).collect();
    println!("{name}, {servers} servers: widths {widths:?}, {:?}", Counts::of(parties[0].architecture()));
    println!("  set-up {:?}", started.elapsed());
    for (number, digit) in digits.iter().take(count).enumerate() {
        let started = Instant::now();
        let (bundles, sent) = preprocess(&parties, number as u64);
        let bytes: usize = sent.iter().flatten().map(|(_, m)| m.len()).sum();
        let offline = started.elapsed();
        let keys = session(servers, 1);
        let started = Instant::now();
        let (logits, sent) = infer(&parties, bundles, &keys, number as u64, digit);
        let online: usize = sent.iter().flatten().map(|(_, m)| m.len()).sum();
        println!("  bundle {offline:?} {bytes} bytes, online {:?} {online} bytes", started.elapsed());
        assert_eq!(logits, plain(model, digit), "{name}, {servers} servers, digit {number}");
    }
}

#[test]
fn mlp() {
    let model = load("mlp-digits.onnx", "mlp-digits-20.npy", 16.0);
    for servers in 2..=4 {
        check("MLP", &model, servers, 3);
    }
}

#[test]
fn minionn() {
    let model = load("minionn-mnist.onnx", "minionn-digits-20.npy", 255.0);
    for servers in 2..=4 {
        check("MiniONN", &model, servers, 3);
    }
}
