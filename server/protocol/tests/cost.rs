//! What is counted beforehand is what the servers send, to the byte.
#![allow(clippy::unwrap_used)]

mod common;

use common::{cluster_with, graphs, infer, input, plain, preprocess, session};
use seco_model::{FixedModel, Placement, paper_placements};
use seco_protocol::cost::Cost;

/// Makes a bundle, uses it, and compares what every server sent to every other with the counts.
fn check(model: &FixedModel, servers: usize, placements: &[Placement], number: u64) {
    let parameter = |a: usize, b: usize| if a + b == 1 { 4 } else { 2 };
    let parties = cluster_with(model, servers, placements, number, parameter);
    let cost = Cost::of(parties[0].architecture(), parameter).unwrap();
    let (bundles, ahead) = preprocess(&parties, number);
    let keys = session(servers, number);
    let input = input(model, number);
    let (logits, online) = infer(&parties, bundles, &keys, number, &input);
    assert_eq!(logits, plain(model, &input));
    for (phase, sent) in [(false, &ahead), (true, &online)] {
        for (from, of_sender) in sent.iter().enumerate() {
            for to in 0..servers {
                let counted: u64 = seco_protocol::cost::Kind::ALL
                    .into_iter()
                    .filter(|kind| kind.is_online() == phase)
                    .map(|kind| cost.traffic.link(kind, from, to))
                    .sum();
                let bytes: usize =
                    of_sender.iter().filter(|(peer, _)| *peer == to).map(|(_, m)| m.len()).sum();
                assert_eq!(
                    counted, bytes as u64,
                    "online {phase}, {from} to {to}, {servers} servers, {number}"
                );
            }
        }
        let all: usize = sent.iter().flatten().map(|(_, message)| message.len()).sum();
        assert_eq!(cost.traffic.total(phase), all as u64);
    }
    let of_layers: u64 = cost.layers.iter().map(|layer| layer.bytes).sum();
    let linear: u64 = seco_protocol::cost::Kind::ALL
        .into_iter()
        .filter(|k| k.is_linear())
        .map(|k| cost.traffic.of(k))
        .sum();
    assert_eq!(of_layers, linear);
    let gates: u64 = cost.steps.iter().map(|step| step.and_gates).sum();
    assert_eq!(gates, cost.counts.and_gates);
}

#[test]
fn a_chain_to_the_byte() {
    let model = common::model(3);
    for servers in 2..=4 {
        for gateway in 0..=4 {
            check(&model, servers, &paper_placements(4, servers, gateway), (10 * servers + gateway) as u64);
        }
    }
}

#[test]
fn random_graphs_to_the_byte() {
    for seed in 0..12 {
        let servers = 2 + seed as usize % 3;
        let model = graphs::random(seed, 14);
        let placements = graphs::random_placements(model.layers.len(), servers, seed);
        check(&model, servers, &placements, seed);
    }
}

/// More lanes than a batch has, and by hand: which messages wait for which.
#[test]
fn rounds() {
    let mut builder = graphs::Builder::new(&[8], 1);
    let hidden = builder.dense(0, 1100, 14);
    let relu = builder.relu(hidden, 3);
    builder.dense(relu, 5, 16);
    let model = builder.finish();
    check(&model, 3, &paper_placements(2, 3, 1), 5);
    let rounds = |servers: usize, gateway: usize| {
        let placements = paper_placements(2, servers, gateway);
        Cost::of(&model.architecture(servers, &placements).unwrap(), |_, _| 2).unwrap().rounds()
    };
    // Confirmation, input, shares of x - r; opening, labels, activations, answer.
    assert_eq!(rounds(3, 1), 7);
    // With two servers the only garbler is the opener, whose labels go with what it opens; the answer's parts leave while
    // the activations are on their way.
    assert_eq!(rounds(2, 1), 5);
}
