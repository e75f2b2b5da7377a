//! Shares of `F·r` sum up to `F·r`, always and exactly.

use std::time::Instant;

use proptest::prelude::*;
use seco_model::{Conv, Geometry};

use super::*;

/// Runs one layer with uniform weights of `width` bits and with extreme ones, and checks every output.
fn check(geometry: &Geometry, width: u32, servers: usize, mask_bits: u32) {
    let cluster = Cluster::new(&[LayerShape { geometry, width }], servers);
    check_in(&cluster, geometry, width, mask_bits);
}

fn check_in(cluster: &Cluster, geometry: &Geometry, width: u32, mask_bits: u32) {
    let plan = cluster.plan(geometry, width);
    let random = uniform(&mut rng(11), geometry.weights(), width);
    // -2^(k-1) and 2^(k-1) - 1 in turn.
    let extreme = (0..geometry.weights() as u32).map(|k| (1 << (width - 1)) - k % 2).collect();
    for weights in [random, extreme] {
        // One byte too little to keep them transformed.
        let mut memory = Weights::transformed_len(&plan) - 1;
        let slow = Weights::new(&plan, &weights, &mut memory).unwrap();
        let slow = cluster.run(&plan, &slow, mask_bits);
        let run = cluster.run(&plan, &prepared(&plan, &weights).unwrap(), mask_bits);
        assert!(slow.c1s == run.c1s && slow.share == run.share, "transformed late: {geometry:?}");
        let expected = reference(geometry, width, &weights, &sum(&run.masks));
        assert_eq!(sum(run.s.iter().chain([&*run.share])), expected, "{geometry:?}, {width} bits");
    }
}

#[test]
fn convolutions() {
    check(&conv([1, 12, 12], 4, 3, 1, [0; 4]), 20, 2, 20);
    check(&conv([3, 9, 7], 5, 3, 2, [1, 1, 1, 1]), 24, 3, 32);
    check(&conv([6, 6, 6], 3, 5, 1, [2, 0, 1, 3]), 26, 3, 26);
    check(&conv([16, 8, 8], 40, 1, 1, [0; 4]), 26, 3, 32);
    check(&conv([8, 8, 8], 9, 1, 2, [0; 4]), 18, 4, 32);
    // One channel of output, kernel as large as the input.
    check(&conv([2, 5, 5], 1, 5, 1, [0; 4]), 32, 2, 32);
    // Two strides, oblong kernel.
    let oblong = Conv { input: [2, 11, 6], channels: 3, kernel: [4, 2], stride: [3, 2], pads: [1, 0, 0, 1] };
    check(&Geometry::Conv(oblong), 22, 3, 22);
}

#[test]
fn convolutions_over_several_ciphertexts() {
    // Channel groups: 64 · 18 · 18 values.
    let grouped = conv([64, 18, 18], 6, 3, 1, [0; 4]);
    let cluster = Cluster::new(&[LayerShape { geometry: &grouped, width: 26 }], 3);
    assert!(cluster.plan(&grouped, 26).input_ciphertexts() > 1);
    check_in(&cluster, &grouped, 26, 32);
    // Channel blocks.
    let blocks = conv([4, 16, 16], 33, 3, 1, [1; 4]);
    let cluster = Cluster::new(&[LayerShape { geometry: &blocks, width: 20 }], 3);
    assert!(cluster.plan(&blocks, 20).output_ciphertexts() > 1);
    check_in(&cluster, &blocks, 20, 20);
    // Bands: a plane larger than a polynomial, with stride and padding across the seams.
    let bands = conv([2, 130, 101], 3, 5, 2, [2, 2, 2, 1]);
    let cluster = Cluster::new(&[LayerShape { geometry: &bands, width: 24 }], 2);
    assert!(cluster.plan(&bands, 24).input_ciphertexts() > 2);
    check_in(&cluster, &bands, 24, 32);
}

#[test]
fn matrices() {
    check(&dense(256, 10), 20, 2, 20);
    check(&dense(1, 1), 1, 2, 32);
    check(&dense(100, 82), 26, 4, 32);
    check(&dense(800, 500), 26, 3, 32);
    check(&dense(9000, 3), 26, 3, 32);
    check(&dense(300, 40), 32, 3, 32);
    check(&dense(2, 9000), 12, 2, 12);
}

#[test]
fn every_parameter_set() {
    for (width, bits) in [(12, 174), (26, 186), (32, 200)] {
        let (layer, widest) = (dense(40, 7), dense(4000, 500));
        let cluster = Cluster::new(&[LayerShape { geometry: &widest, width }], 3);
        assert_eq!(cluster.parameters.modulus_bits(), bits);
        check_in(&cluster, &layer, width, 32);
    }
}

/// Two holders of additive weight shares: all shares together are shares of `F·r` modulo `2^k`.
#[test]
fn shared_weights() {
    let (geometry, width) = (dense(64, 30), 26);
    let cluster = Cluster::new(&[LayerShape { geometry: &geometry, width }], 3);
    let plan = cluster.plan(&geometry, width);
    let shares = [12, 13].map(|k| uniform(&mut rng(k), geometry.weights(), width));
    let runs = shares.each_ref().map(|w| cluster.run(&plan, &prepared(&plan, w).unwrap(), 32));
    let total = sum(runs.iter().flat_map(|run| run.s.iter().chain([&*run.share])));
    let whole: Vec<_> = sum(&shares).iter().map(|w| w & ((1 << width) - 1)).collect();
    let expected = reference(&geometry, width, &whole, &sum(&runs[0].masks));
    assert!(total.iter().zip(&expected).all(|(a, b)| (a ^ b) << (32 - width) == 0));
}

#[test]
fn same_seeds_same_bytes() {
    let geometry = dense(30, 20);
    let cluster = Cluster::new(&[LayerShape { geometry: &geometry, width: 16 }], 2);
    let plan = cluster.plan(&geometry, 16);
    let weights = prepared(&plan, &uniform(&mut rng(1), 600, 16)).unwrap();
    let runs = [cluster.run(&plan, &weights, 16), cluster.run(&plan, &weights, 16)];
    assert_eq!(runs[0].encrypted, runs[1].encrypted);
    assert_eq!(runs[0].c1s, runs[1].c1s);
    assert_eq!(runs[0].answers, runs[1].answers);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, ..ProptestConfig::default() })]
    #[test]
    fn any_small_convolution(
        input in (1usize..6, 1usize..14, 1usize..14),
        channels in 1usize..9,
        kernel in (1usize..5, 1usize..5),
        stride in (1usize..4, 1usize..4),
        pads in prop::array::uniform4(0usize..3),
        width in 1u32..=32,
    ) {
        let geometry = Geometry::Conv(Conv {
            input: input.into(),
            channels,
            kernel: kernel.into(),
            stride: stride.into(),
            pads,
        });
        prop_assume!(geometry.check().is_ok());
        check(&geometry, width, 2, 32);
    }
}

/// Milliseconds and bytes of every step; shown with `--nocapture`.
#[test]
fn cost_of_each_step() {
    let layers = [
        ("conv 16x6x6, 16 kernels 3x3, pad 1", conv([16, 6, 6], 16, 3, 1, [1; 4]), 26),
        ("conv 16x12x12, 16 kernels 5x5", conv([16, 12, 12], 16, 5, 1, [0; 4]), 26),
        ("FC 256 -> 100", dense(256, 100), 26),
        ("FC 800 -> 500", dense(800, 500), 26),
        ("FC 800 -> 500", dense(800, 500), 32),
    ];
    for (name, geometry, width) in layers {
        let cluster = Cluster::new(&[LayerShape { geometry: &geometry, width }], 3);
        let plan = cluster.plan(&geometry, width);
        let values = uniform(&mut rng(21), geometry.weights(), width);
        let mut clock = Instant::now();
        let mut lap = || std::mem::replace(&mut clock, Instant::now()).elapsed().as_secs_f64() * 1e3;
        let weights = prepared(&plan, &values).unwrap();
        let prepare = lap();
        let masks: Vec<_> = (0..3).map(|k| uniform(&mut rng(k), plan.inputs(), 32)).collect();
        lap();
        let encrypted = cluster.encrypt(&plan, &masks);
        let encrypt = lap() / 3.0;
        let (product, c1s) = weights.multiply(&cluster.key, &encrypted, &seed(4, 0)).unwrap();
        let multiply = lap();
        let s = uniform(&mut rng(9), plan.outputs(), 32);
        lap();
        let answers = [1, 2].map(|j| cluster.shares[j].answer(&plan, &c1s, &s, &seed(5, j)).unwrap());
        let answer = lap() / 2.0;
        product.finish(&cluster.shares[0], &answers).unwrap();
        let finish = lap();
        let bound = crate::noise_bound(LayerShape { geometry: &geometry, width }, 3).unwrap();
        println!(
            "{name}, {width} bits: q {} bits, B 2^{:.1}, ciphertexts {} in {} out; \
             ms: weights {prepare:.1}, encrypt {encrypt:.1}, multiply {multiply:.1}, answer {answer:.1}, \
             finish {finish:.1}; bytes: encrypted {}, c1 {}, answer {}",
            cluster.parameters.modulus_bits(),
            bound.to_string().parse::<f64>().unwrap().log2(),
            plan.input_ciphertexts(),
            plan.output_ciphertexts(),
            plan.encrypted_len(),
            plan.c1_len(),
            plan.answer_len(),
        );
    }
}
