//! The private result equals the plaintext fixed-point model's bit for bit: every layer kind, party
//! count, placement and role.
#![allow(clippy::unwrap_used)]

mod common;

use common::graphs::chain;
use common::{cluster, cluster_with, input, model, plain, run};
use seco_model::{Placement, paper_placements};

#[test]
fn papers_split_for_every_number_of_servers() {
    let model = model(1);
    for servers in 2..=4 {
        for gateway_layers in [1, 2] {
            let placements = paper_placements(model.layers.len(), servers, gateway_layers);
            let parties = cluster(&model, servers, &placements, 5);
            for number in 0..2 {
                let x = input(&model, 10 + number);
                let (logits, _) = run(&parties, number, &x);
                assert_eq!(logits, plain(&model, &x), "n={servers} l={gateway_layers} #{number}");
            }
        }
    }
}

/// Every server takes every role: holder of a layer in clear, of a share, of nothing; evaluator and
/// garbler of layers that it holds and that it does not (the evaluator rotates over layers).
#[test]
fn every_placement() {
    let model = model(2);
    let x = input(&model, 3);
    for servers in 2..=4 {
        for first in 0..servers {
            let all: Vec<usize> = (0..servers).collect();
            let placements = vec![
                Placement::Held(first),
                Placement::Held((first + 1) % servers),
                Placement::Shared(all.clone()),
                Placement::Held((first + 2) % servers),
            ];
            let parties = cluster(&model, servers, &placements, 7);
            assert_eq!(run(&parties, 1, &x).0, plain(&model, &x), "n={servers} first={first}");
        }
    }
}

/// As with models that do not fit in memory: every layer and every batch is a wave of its own, or two
/// share one.
#[test]
fn waves_of_any_size() {
    let model = model(2);
    let x = input(&model, 8);
    for servers in 2..=4 {
        for bytes in [0, 1 << 20] {
            let placements = paper_placements(model.layers.len(), servers, 1);
            let parties = cluster(&model, servers, &placements, 6);
            let parties: Vec<_> = parties.into_iter().map(|party| party.with_waves(bytes)).collect();
            assert_eq!(run(&parties, 1, &x).0, plain(&model, &x), "n={servers}, {bytes} bytes");
        }
    }
}

/// Every parameter of oblivious transfer, the same on all links and another on each.
#[test]
fn every_parameter_of_oblivious_transfer() {
    let model = model(2);
    let x = input(&model, 9);
    for mix in [[1; 3], [4; 3], [8; 3], [1, 8, 4]] {
        // The links of three servers: 0-1, 0-2, 1-2.
        let parameter = |a: usize, b: usize| mix[(a + b).saturating_sub(1).min(2)];
        let parties = cluster_with(&model, 3, &paper_placements(model.layers.len(), 3, 1), 6, parameter);
        assert_eq!(run(&parties, 1, &x).0, plain(&model, &x), "{mix:?}");
    }
}

/// Values that do not fit their ring wrap around in private as they do in clear.
#[test]
fn wraps_alike() {
    let model = chain(3, [10; 4]);
    let x = vec![255; model.graph.input.len()];
    let execution = seco_model::Executor::new(&model).unwrap().run(&x).unwrap();
    assert!(execution.wrapped > 0);
    let parties = cluster(&model, 3, &paper_placements(4, 3, 1), 1);
    assert_eq!(run(&parties, 1, &x).0, execution.logits);
}

/// The widest ring, 32 bits.
#[test]
fn widest_ring() {
    let model = chain(4, [32; 4]);
    let x = input(&model, 4);
    let parties = cluster(&model, 2, &[0, 1, 0, 1].map(Placement::Held), 1);
    assert_eq!(run(&parties, 1, &x).0, plain(&model, &x));
}
