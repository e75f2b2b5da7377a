//! A whole step over in-memory channels with real correlated OTs: every width and shift, masks narrower and wider than
//! the layer, 2 to 4 servers.
#![allow(clippy::unwrap_used)]

mod common;

use chacha20::ChaCha20Rng;
use common::{LIMIT, all, bundle_id, seed};
use rand_core::SeedableRng;
use seco_protocol::{Layer, MemorySpool, ReluLayer, memory};

/// Makes and evaluates layers one after the other, over the same base OTs; every server's values are random, the sum with them.
fn check(layers: &[Layer]) {
    let servers = layers[0].servers;
    let exact = all(memory::network(servers, LIMIT), |i, mut channel| {
        let mut links = Some(ReluLayer::setup(layers[0], &mut channel, seed(1, i)).unwrap());
        layers.iter().enumerate().all(|(number, &layer)| {
            let seed = |what: u64| seed(10 * number as u64 + what, i);
            let mut relus = links.take().unwrap().with_layer(layer).unwrap();
            let spool = Box::new(MemorySpool::default());
            let bundle = relus.preprocess(bundle_id(number as u64), &mut channel, seed(2), spool).unwrap();
            let mut rng = ChaCha20Rng::from_seed(seed(3));
            let outcome = relus.evaluate(bundle, &mut channel, &mut rng).unwrap();
            let exact = relus.check(outcome, &mut channel).unwrap().unwrap_or(true);
            links = Some(relus);
            exact
        })
    });
    assert!(exact.iter().all(|&exact| exact), "{layers:?}");
}

#[test]
fn every_width_and_shift() {
    for servers in 2..=4 {
        let mut layers = Vec::new();
        for width in 2..=32u32 {
            for shift in 0..width {
                let masks = [1, width - shift, width, 32, (width + 3).min(32)];
                let mask_width = masks[(width + shift) as usize % masks.len()];
                layers.push(Layer { count: 3, width, mask_width, shift, servers, ot_parameter: 2 });
            }
        }
        check(&layers);
    }
}

/// More lanes than a batch has.
#[test]
fn several_batches() {
    for servers in 2..=4 {
        let layer = Layer { count: 2100, width: 20, mask_width: 22, shift: 8, servers, ot_parameter: 2 };
        check(&[layer]);
    }
}

/// Over base OTs of one layer others are made, of as many servers and with the same parameter; a bundle is of its own layer.
#[test]
fn a_bundle_is_of_one_layer() {
    let layer = Layer { count: 3, width: 9, mask_width: 11, shift: 3, servers: 2, ot_parameter: 2 };
    all(memory::network(2, LIMIT), |i, mut channel| {
        let mut relus = ReluLayer::setup(layer, &mut channel, seed(1, i)).unwrap();
        let spool = Box::new(MemorySpool::default());
        let bundle = relus.preprocess(bundle_id(1), &mut channel, seed(2, i), spool).unwrap();
        let other = relus.with_layer(Layer { shift: 4, ..layer }).unwrap();
        let told = other.evaluate(bundle, &mut channel, &mut ChaCha20Rng::from_seed(seed(3, i)));
        assert!(told.err().unwrap().to_string().contains("another layer's"));
        let told = other.with_layer(Layer { ot_parameter: 3, ..layer });
        assert!(told.err().unwrap().to_string().contains("another OT parameter"));
    });
}
