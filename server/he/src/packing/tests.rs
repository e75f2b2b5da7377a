//! Layouts against the definition of a product of polynomials, and what they cost.

use super::*;

fn dense(inputs: usize, outputs: usize) -> Packing {
    Packing::new(&Geometry::Dense(Dense { inputs, outputs })).unwrap()
}

fn square(input: [usize; 3], channels: usize, kernel: usize, pad: usize) -> Conv {
    Conv { input, channels, kernel: [kernel; 2], stride: [1; 2], pads: [pad; 4], dilation: [1; 2], groups: 1 }
}

fn conv(input: [usize; 3], channels: usize, kernel: usize, pad: usize) -> Result<Packing, Error> {
    Packing::new(&Geometry::Conv(square(input, channels, kernel, pad)))
}

fn ciphertexts(packing: &Packing) -> (usize, usize) {
    (packing.input_ciphertexts(), packing.output_ciphertexts())
}

#[test]
fn cuts() {
    assert_eq!(ciphertexts(&dense(800, 500)), (5, 10));
    assert_eq!(ciphertexts(&dense(256, 10)), (1, 1));
    assert_eq!(ciphertexts(&dense(256, 100)), (2, 2));
    assert_eq!(ciphertexts(&dense(1, 8192)), (1, 1));
    // MiniONN's convolutions.
    assert_eq!(ciphertexts(&conv([1, 28, 28], 16, 5, 0).unwrap()), (1, 2));
    assert_eq!(ciphertexts(&conv([16, 12, 12], 16, 5, 0).unwrap()), (2, 3));
    // Shortcuts of stride 2, without the values that they skip.
    for conv in [square([16, 32, 32], 32, 1, 0), square([32, 16, 16], 64, 1, 0)] {
        let packing = Packing::new(&Geometry::Conv(Conv { stride: [2; 2], ..conv })).unwrap();
        assert_eq!(ciphertexts(&packing), (4, 4));
    }
    // Three planes of 66 x 66: two tiles rather than three parts.
    assert_eq!(ciphertexts(&conv([3, 64, 64], 1, 3, 1).unwrap()), (2, 2));
}

#[test]
fn every_output_has_one_coefficient() {
    for packing in [
        dense(800, 500),
        dense(3, 9000),
        dense(20_000, 3),
        conv([3, 200, 200], 5, 3, 1).unwrap(),
        conv([64, 18, 18], 7, 3, 0).unwrap(),
        Packing::new(&Geometry::Conv(Conv { groups: 21, ..square([21, 33, 29], 42, 3, 1) })).unwrap(),
    ] {
        let mut seen = vec![false; packing.conv.output().iter().product()];
        for ciphertext in 0..packing.output_ciphertexts() {
            assert_eq!(packing.outputs(ciphertext).count(), packing.output_count(ciphertext));
            let mut used = vec![false; DEGREE];
            for (output, coefficient) in packing.outputs(ciphertext) {
                assert!(!std::mem::replace(&mut seen[output], true));
                assert!(!std::mem::replace(&mut used[coefficient], true));
            }
        }
        assert!(seen.iter().all(|&s| s));
    }
}

#[test]
fn odd_shapes_are_refused_not_packed() {
    assert!(matches!(Packing::new(&Geometry::Dense(Dense { inputs: 0, outputs: 4 })), Err(Error::Model(_))));
    assert!(matches!(conv([1, 4, 4], 1, 5, 0), Err(Error::Model(_))));
}

/// Numbers without a pattern.
fn words(count: usize, seed: u32) -> Vec<u32> {
    (0..count as u32).map(|i| (i ^ seed).wrapping_mul(0x9e37_79b9).rotate_left(i % 31)).collect()
}

/// A layer computed from its polynomials, modulo `X^N + 1` and `2^32`.
fn multiplied(packing: &Packing, weights: &[u32], values: &[u32]) -> Vec<u32> {
    let mut out = vec![0; packing.conv.output().iter().product()];
    let inputs: Vec<_> = (0..packing.input_ciphertexts()).map(|k| packing.input(k, values)).collect();
    let mut used = vec![false; packing.weight_polynomials()];
    for ciphertext in 0..packing.output_ciphertexts() {
        let mut product = vec![0u32; DEGREE];
        let from = packing.inputs_of(ciphertext);
        let polynomials = packing.weights_of(ciphertext % packing.rows());
        let mut terms = 0;
        for (input, polynomial) in from.zip(polynomials) {
            used[polynomial] = true;
            for (i, &w) in packing.weights(polynomial, weights, |w| w.into()).iter().enumerate() {
                if w == 0 {
                    continue;
                }
                terms += 1;
                for (j, &v) in inputs[input].iter().enumerate() {
                    let term = v.wrapping_mul(w as u32);
                    let at = &mut product[(i + j) % DEGREE];
                    *at = if i + j < DEGREE { at.wrapping_add(term) } else { at.wrapping_sub(term) };
                }
            }
        }
        assert!(terms <= packing.weights_per_output(), "the noise bound counts all weights");
        packing.outputs(ciphertext).for_each(|(output, coefficient)| out[output] = product[coefficient]);
    }
    assert!(used.iter().all(|&used| used), "no weight polynomial is for nothing");
    out
}

fn check(conv: &Conv) -> Packing {
    let geometry = Geometry::Conv(conv.clone());
    let packing = Packing::new(&geometry).unwrap();
    let (weights, values) = (words(geometry.weights(), 1), words(geometry.inputs(), 2));
    let mut expected = vec![0; geometry.outputs()];
    seco_model::linear(&geometry, &weights, &values, &mut expected);
    assert!(multiplied(&packing, &weights, &values) == expected, "{conv:?}: {:?}", packing.cut);
    packing
}

#[test]
fn products_are_the_layer() {
    // Two members in three slots; nine in batches; two groups alone in two slots; channels in parts.
    let depthwise =
        |channels, side| Conv { groups: channels, ..square([channels, side, side], channels, 3, 1) };
    let sizes = check(&depthwise(4, 48)).cut.sizes;
    assert_eq!((sizes.batch, sizes.shared), (2, true));
    let sizes = check(&depthwise(17, 14)).cut.sizes;
    assert_eq!((sizes.batch, sizes.batches, sizes.shared), (6, 3, true));
    let sizes = check(&depthwise(3, 56)).cut.sizes;
    assert_eq!((sizes.batch, sizes.batches, sizes.shared), (2, 2, false));
    check(&Conv { groups: 3, ..square([12, 16, 16], 9, 3, 1) });
    check(&Conv { groups: 2, ..square([40, 16, 16], 40, 3, 1) });
    check(&Conv { groups: 5, channels: 20, ..depthwise(5, 9) });
    // Tiles in both directions, strides that skip, strides that split, dilation that parts.
    let wide = check(&square([1, 100, 170], 2, 3, 1));
    assert!(wide.tiles() > 2);
    let skipped = check(&Conv { stride: [2, 3], ..square([20, 60, 60], 2, 1, 0) });
    assert_eq!((skipped.plane, ciphertexts(&skipped)), (30 * 20, (2, 2)));
    let split = check(&Conv { stride: [2; 2], ..square([2, 150, 150], 6, 3, 1) });
    assert!(split.cut.y.form().moves > 1, "{:?}", split.cut);
    let apart = check(&Conv { dilation: [1, 5000], kernel: [1, 3], ..square([1, 1, 12_000], 2, 1, 0) });
    assert!(apart.cut.x.form().extent <= 3, "{:?}", apart.cut);
    check(&Conv { dilation: [7, 5], stride: [2, 3], ..square([3, 40, 41], 4, 3, 4) });
    // Kernels larger than a polynomial.
    check(&square([1, 100, 95], 2, 94, 0));
    check(&Conv { kernel: [1, 9000], ..square([1, 1, 9010], 1, 1, 0) });
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig { cases: 150, ..Default::default() })]
    #[test]
    fn products_are_any_layer(
        (groups, inputs, outputs) in (1usize..12, 1usize..4, 1usize..4),
        (height, width) in (1usize..60, 1usize..60),
        kernel in proptest::array::uniform2(1usize..5),
        stride in proptest::array::uniform2(1usize..4),
        dilation in proptest::array::uniform2(1usize..5),
        pads in proptest::array::uniform4(0usize..3),
    ) {
        let input = [groups * inputs, height, width];
        let conv = Conv { input, channels: groups * outputs, kernel, stride, dilation, pads, groups };
        proptest::prop_assume!(Geometry::Conv(conv.clone()).check().is_ok());
        check(&conv);
    }
}

/// Layers with their numbers of repetitions.
type Network = Vec<(String, Conv, usize)>;

fn networks() -> [(&'static str, Network); 2] {
    let strided = |stride: usize, conv: Conv| Conv { stride: [stride; 2], ..conv };
    let named = |conv: Conv, times| {
        let [channels, height, width] = conv.input;
        let kind = if conv.groups > 1 { "depthwise " } else { "" };
        let stride = if conv.stride == [1; 2] { "" } else { ", stride 2" };
        let kernel = conv.kernel[0];
        let name =
            format!("{kind}{channels}x{height}x{width} to {}, {kernel}x{kernel}{stride}", conv.channels);
        (name, conv, times)
    };
    let mut resnet = vec![named(square([3, 32, 32], 16, 3, 1), 1)];
    for (channels, side) in [(16, 32), (32, 16), (64, 8)] {
        if channels > 16 {
            resnet.push(named(strided(2, square([channels / 2, side * 2, side * 2], channels, 3, 1)), 1));
        }
        let times = if channels == 16 { 10 } else { 9 };
        resnet.push(named(square([channels, side, side], channels, 3, 1), times));
    }
    resnet.push(named(square([64, 1, 1], 10, 1, 0), 1));
    let mut mobilenet = vec![named(strided(2, square([3, 224, 224], 32, 3, 1)), 1)];
    for (channels, outputs, side, stride, times) in [
        (32, 64, 112, 1, 1),
        (64, 128, 112, 2, 1),
        (128, 128, 56, 1, 1),
        (128, 256, 56, 2, 1),
        (256, 256, 28, 1, 1),
        (256, 512, 28, 2, 1),
        (512, 512, 14, 1, 5),
        (512, 1024, 14, 2, 1),
        (1024, 1024, 7, 1, 1),
    ] {
        let depthwise = Conv { groups: channels, ..square([channels, side, side], channels, 3, 1) };
        mobilenet.push(named(strided(stride, depthwise), times));
        mobilenet.push(named(square([channels, side / stride, side / stride], outputs, 1, 0), times));
    }
    mobilenet.push(named(square([1024, 1, 1], 1000, 1, 0), 1));
    [("ResNet-32", resnet), ("MobileNetV1", mobilenet)]
}

/// Ciphertexts and products of known networks; a table with `--nocapture`.
#[test]
fn cost_of_networks() {
    let sums = [[199, 246, 1586, 1586], [2309, 2264, 73_997, 40_832]];
    for ((network, layers), expected) in networks().into_iter().zip(sums) {
        println!(
            "| {network} | times | in | out | products | weight polynomials |\n|---|---|---|---|---|---|"
        );
        let mut sums = [0; 4];
        let mut most = 0;
        for (name, conv, times) in layers {
            most = most.max(cheapest(&conv, MAX_STEPS).1);
            let packing = Packing::new(&Geometry::Conv(conv)).unwrap();
            let (inputs, outputs) = ciphertexts(&packing);
            let products = outputs * packing.cut.sizes.parts;
            let all = [inputs, outputs, products, packing.weight_polynomials()];
            sums.iter_mut().zip(all).for_each(|(sum, one)| *sum += one * times);
            let [inputs, outputs, products, weights] = all;
            println!("| {name} | {times} | {inputs} | {outputs} | {products} | {weights} |");
        }
        let [inputs, outputs, products, weights] = sums;
        println!("| all | | {inputs} | {outputs} | {products} | {weights} |");
        println!("{most} steps for the choice at most\n");
        assert_eq!(sums, expected, "{network}: PERFORMANCE.md has these");
        assert!(256 * most < MAX_STEPS, "{network}: {most}");
    }
}

/// A model file's shapes are anybody's.
#[test]
fn the_choice_takes_no_time() {
    let long = square([1, 1, 1 << 26], 1, 1, 0);
    for (conv, servable) in [
        (square([1 << 25, 1, 1], 2, 1, 0), true),
        (square([1 << 13, 1, 1], 1 << 13, 1, 0), true),
        (square([1, 1 << 13, 1 << 13], 1, 3, 0), true),
        (square([512, 224, 224], 512, 3, 1), true),
        (Conv { kernel: [1, 1 << 13], ..long.clone() }, false),
        (Conv { kernel: [1, 1 << 25], stride: [1, 3], ..long.clone() }, false),
        (Conv { kernel: [1, 1000], dilation: [1, 1001], stride: [1, 7], ..long }, true),
        (Conv { groups: 1 << 13, ..square([1 << 13, 64, 64], 1 << 13, 3, 1) }, true),
        (Conv { groups: 1 << 25, ..square([1 << 25, 1, 1], 1 << 25, 1, 0) }, false),
        (Conv { groups: 64, ..square([1 << 12, 100, 100], 1 << 12, 3, 1) }, true),
    ] {
        let clock = std::time::Instant::now();
        let (_, steps) = cheapest(&conv, MAX_STEPS);
        let took = clock.elapsed();
        let packing = Packing::new(&Geometry::Conv(conv.clone()));
        let cut = packing.as_ref().map(ciphertexts);
        println!("{conv:?}: {cut:?} in {steps} steps, {took:?}");
        assert!(16 * steps < MAX_STEPS);
        assert!(if servable { packing.is_ok() } else { matches!(packing, Err(Error::Ciphertexts(_))) });
    }
}

/// Nor does one that no shape of ours takes: a search that is cut short gives what it has, or nothing.
#[test]
fn the_choice_ends() {
    let conv = Conv { groups: 64, ..square([1 << 12, 100, 100], 1 << 12, 3, 1) };
    let (cut, steps) = cheapest(&conv, 20_000);
    assert!(cut.is_some() && steps == 20_000);
    let (cut, steps) = cheapest(&conv, 1);
    assert!(cut.is_none() && steps == 1);
}
