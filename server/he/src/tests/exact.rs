//! Shares of `F·r` sum up to `F·r`, always and exactly.

use std::time::Instant;

use proptest::prelude::*;
use seco_model::{Conv, Geometry};

use super::*;

/// Runs one layer with uniform weights of `width` bits and with extreme ones, and checks every output.
fn check(geometry: &Geometry, width: u32, servers: usize, mask_bits: u32) {
    let mut cluster = Cluster::new(&[LayerShape { geometry, width }], servers);
    check_in(&mut cluster, geometry, width, mask_bits);
}

fn check_in(cluster: &mut Cluster, geometry: &Geometry, width: u32, mask_bits: u32) {
    let plan = cluster.plan(geometry, width);
    let random = uniform(&mut rng(11), geometry.weights(), width);
    // -2^(k-1) and 2^(k-1) - 1 in turn.
    let extreme = (0..geometry.weights() as u32).map(|k| (1 << (width - 1)) - k % 2).collect();
    for weights in [random, extreme] {
        // One byte too little to keep them transformed.
        let mut memory = Weights::transformed_len(&plan) - 1;
        let slow = Weights::new(&plan, Arc::new(weights.clone()), &mut memory).unwrap();
        cluster.renew();
        let slow = cluster.run(&plan, &slow, mask_bits);
        cluster.renew();
        let run = cluster.run(&plan, &prepared(&plan, &weights).unwrap(), mask_bits);
        assert!(slow.c1s == run.c1s && slow.share == run.share, "transformed late: {geometry:?}");
        let expected = reference(geometry, width, &weights, &sum(&run.masks));
        assert_eq!(sum(run.s.iter().chain([&*run.share])), expected, "{geometry:?}, {width} bits");
    }
}

#[test]
fn every_shape() {
    for (number, (geometry, width, servers)) in shapes().iter().enumerate() {
        let mask_bits = if number % 2 == 0 { *width } else { 32 };
        check(geometry, *width, *servers, mask_bits);
    }
}

#[test]
fn shapes_need_several_ciphertexts() {
    let cut = |geometry: &Geometry, width, servers| {
        let plan = Cluster::new(&[LayerShape { geometry, width }], servers).plan(geometry, width);
        (plan.input_ciphertexts(), plan.output_ciphertexts())
    };
    let cuts: Vec<_> = shapes().iter().map(|(geometry, width, n)| cut(geometry, *width, *n)).collect();
    assert!(cuts[7].0 > 1 && cuts[8].1 > 1 && cuts[9].0 > 2 && cuts[15].0 > 1, "{cuts:?}");
}

#[test]
fn every_parameter_set() {
    let layer = dense(40, 7);
    for (number, set) in crate::parameters::SETS.iter().enumerate() {
        // As many servers as its q' is meant for.
        let servers = [3, 5, 8][number % 3];
        let width = if number < 3 { 20 } else { 32 };
        let mut cluster = Cluster::with(Parameters::of(number, servers).unwrap());
        assert_eq!(cluster.parameters.set().primes, set.primes);
        check_in(&mut cluster, &layer, width, 32);
    }
}

/// Weights come back, and are gone in between.
#[test]
fn forgotten_weights() {
    let (geometry, width) = (dense(300, 200), 20);
    let mut cluster = Cluster::new(&[LayerShape { geometry: &geometry, width }], 2);
    let plan = cluster.plan(&geometry, width);
    let weights = prepared(&plan, &uniform(&mut rng(1), geometry.weights(), width)).unwrap();
    assert_eq!(weights.kept_polynomials(), plan.packing().weight_polynomials());
    let first = cluster.run(&plan, &weights, 32);
    weights.forget();
    assert_eq!(weights.kept_polynomials(), 0);
    cluster.renew();
    let second = cluster.run(&plan, &weights, 32);
    assert!(first.c1s == second.c1s && first.share == second.share);
    assert_eq!(weights.kept_polynomials(), plan.packing().weight_polynomials());
    // Without room for them, they are not kept.
    let weights =
        Weights::new(&plan, Arc::new(uniform(&mut rng(1), geometry.weights(), width)), &mut 0).unwrap();
    weights.transform().unwrap();
    cluster.renew();
    assert!(cluster.run(&plan, &weights, 32).share == first.share);
    assert_eq!(weights.kept_polynomials(), 0);
}

/// Two holders of additive weight shares: all shares together are shares of `F·r` modulo `2^k`.
#[test]
fn shared_weights() {
    let (geometry, width) = (dense(64, 30), 26);
    let mut cluster = Cluster::new(&[LayerShape { geometry: &geometry, width }], 3);
    let plan = cluster.plan(&geometry, width);
    let shares = [12, 13].map(|k| uniform(&mut rng(k), geometry.weights(), width));
    let runs = shares.each_ref().map(|w| {
        cluster.renew();
        cluster.run(&plan, &prepared(&plan, w).unwrap(), 32)
    });
    let total = sum(runs.iter().flat_map(|run| run.s.iter().chain([&*run.share])));
    let whole: Vec<_> = sum(&shares).iter().map(|w| w & ((1 << width) - 1)).collect();
    let expected = reference(&geometry, width, &whole, &sum(&runs[0].masks));
    assert!(total.iter().zip(&expected).all(|(a, b)| (a ^ b) << (32 - width) == 0));
}

#[test]
fn same_seeds_same_bytes() {
    let geometry = dense(30, 20);
    let mut cluster = Cluster::new(&[LayerShape { geometry: &geometry, width: 16 }], 2);
    let plan = cluster.plan(&geometry, 16);
    let weights = prepared(&plan, &uniform(&mut rng(1), 600, 16)).unwrap();
    let first = cluster.run(&plan, &weights, 16);
    cluster.renew();
    let runs = [first, cluster.run(&plan, &weights, 16)];
    assert_eq!(runs[0].encrypted, runs[1].encrypted);
    assert_eq!(runs[0].c1s, runs[1].c1s);
    assert_eq!(runs[0].answers, runs[1].answers);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, ..ProptestConfig::default() })]
    #[test]
    fn any_small_convolution(
        (groups, inputs, outputs) in (1usize..6, 1usize..4, 1usize..4),
        (height, width) in (1usize..20, 1usize..20),
        kernel in prop::array::uniform2(1usize..5),
        stride in prop::array::uniform2(1usize..4),
        dilation in prop::array::uniform2(1usize..4),
        pads in prop::array::uniform4(0usize..3),
        bits in 1u32..=32,
    ) {
        let input = [groups * inputs, height, width];
        let geometry =
            Geometry::Conv(Conv { input, channels: groups * outputs, kernel, stride, dilation, pads, groups });
        prop_assume!(geometry.check().is_ok());
        check(&geometry, bits, 2, 32);
    }
}

/// Milliseconds and bytes of every step; shown with `--nocapture`.
#[test]
fn cost_of_each_step() {
    let depthwise = Geometry::Conv(Conv {
        input: [64, 28, 28],
        channels: 64,
        kernel: [3; 2],
        stride: [1; 2],
        pads: [1; 4],
        dilation: [1; 2],
        groups: 64,
    });
    let layers = [
        ("conv 16x6x6, 16 kernels 3x3, pad 1", conv([16, 6, 6], 16, 3, 1, [1; 4]), 26),
        ("conv 16x12x12, 16 kernels 5x5", conv([16, 12, 12], 16, 5, 1, [0; 4]), 26),
        ("FC 256 -> 100", dense(256, 100), 26),
        ("FC 800 -> 500", dense(800, 500), 26),
        ("FC 800 -> 500", dense(800, 500), 32),
        ("conv 64x8x8, 64 kernels 3x3, pad 1", conv([64, 8, 8], 64, 3, 1, [1; 4]), 20),
        ("depthwise conv 64x28x28, 3x3, pad 1", depthwise, 20),
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
        let (product, c1s) = cluster.multiply(&weights, &encrypted, seed(4, 0));
        let multiply = lap();
        let s = uniform(&mut rng(9), plan.outputs(), 32);
        lap();
        let answers = [1, 2].map(|j| cluster.answer(j, &plan, &c1s, &s).unwrap());
        let answer = lap() / 2.0;
        product.finish(&cluster.keys[0], &answers).unwrap();
        let finish = lap();
        let bound = plan.noise_bound();
        println!(
            "{name}, {width} bits: Q {} bits, q' {}, B 2^{:.1}, ciphertexts {} in {} out; \
             ms: weights {prepare:.1}, encrypt {encrypt:.1}, multiply {multiply:.1}, answer {answer:.1}, \
             finish {finish:.1}; bytes: encrypted {}, c1 {}, answer {}",
            cluster.parameters.modulus_bits(),
            cluster.parameters.answered_modulus_bits(),
            bound.to_string().parse::<f64>().unwrap().log2(),
            plan.input_ciphertexts(),
            plan.output_ciphertexts(),
            plan.encrypted_len(),
            plan.c1_len(),
            plan.answer_len(),
        );
    }
}
