//! Products of weights with inputs: every geometry against the definition.

use std::time::Instant;

use proptest::prelude::*;

use super::generator;
use crate::linear::multiply;
use crate::{Conv, Geometry, linear};

fn words(count: usize, seed: u64) -> Vec<u32> {
    let mut rng = generator(seed);
    (0..count).map(|_| rand_core::Rng::next_u32(&mut rng)).collect()
}

/// A convolution by its definition, one output after the other.
fn definition(conv: &Conv, weights: &[u32], x: &[u32]) -> Vec<u32> {
    let ([channels, rows, columns], [_, height, width]) = (conv.output(), conv.input);
    let ([kernel_height, kernel_width], fan_in) = (conv.kernel, conv.group_inputs());
    let place = |axis: usize, at: usize, tap: usize, size: usize| {
        let padded = at * conv.stride[axis] + tap * conv.dilation[axis];
        padded.checked_sub(conv.pads[axis]).filter(|&place| place < size)
    };
    let mut out = Vec::new();
    for o in 0..channels {
        let first = o / conv.group_outputs() * fan_in;
        for y in 0..rows {
            for x_out in 0..columns {
                let mut sum = 0u32;
                for c in 0..fan_in {
                    for i in 0..kernel_height {
                        for j in 0..kernel_width {
                            let at = (place(0, y, i, height), place(1, x_out, j, width));
                            let (Some(row), Some(column)) = at else { continue };
                            let weight = weights[((o * fan_in + c) * kernel_height + i) * kernel_width + j];
                            let value = x[((first + c) * height + row) * width + column];
                            sum = sum.wrapping_add(weight.wrapping_mul(value));
                        }
                    }
                }
                out.push(sum);
            }
        }
    }
    out
}

/// All kinds of words, 32 bits also by the vectors that the processor has.
fn check(conv: &Conv) {
    let geometry = Geometry::Conv(conv.clone());
    geometry.check().unwrap();
    let (weights, x) = (words(geometry.weights(), 1), words(geometry.inputs(), 2));
    let expected = definition(conv, &weights, &x);
    let mut out = vec![1; geometry.outputs()];
    linear(&geometry, &weights, &x, &mut out);
    assert_eq!(out, expected, "{conv:?}");
    let signed = |v: &[u32]| v.iter().map(|&v| i64::from(v as i32)).collect::<Vec<_>>();
    let mut sums = vec![0i64; out.len()];
    multiply(&geometry, &signed(&weights), &signed(&x), &mut sums);
    assert!(sums.iter().zip(&expected).all(|(&sum, &word)| sum as u32 == word), "signed: {conv:?}");
    // Numbers of 20 bits, so that nothing is rounded.
    let [small_weights, small_x] = [&weights, &x].map(|v| v.iter().map(|v| v >> 12).collect::<Vec<_>>());
    let real = |v: &[u32]| v.iter().map(|&v| f64::from(v)).collect::<Vec<_>>();
    let mut sums = vec![0.0f64; out.len()];
    multiply(&geometry, &real(&small_weights), &real(&small_x), &mut sums);
    let expected = definition(conv, &small_weights, &small_x);
    assert!(sums.iter().zip(expected).all(|(&sum, word)| sum as u64 as u32 == word), "real: {conv:?}");
}

#[test]
fn groups_and_dilation_are_the_definition() {
    let conv = |input, channels, kernel, stride, dilation, pads, groups| {
        check(&Conv { input, channels, kernel, stride, dilation, pads, groups });
    };
    // Depthwise, of more than one block of positions; strides; channel multiplier.
    conv([5, 12, 11], 5, [3, 3], [1, 1], [1, 1], [1; 4], 5);
    conv([4, 13, 9], 4, [3, 3], [2, 2], [1, 1], [1; 4], 4);
    conv([3, 9, 9], 6, [3, 3], [2, 1], [1, 1], [0, 1, 1, 0], 3);
    conv([2, 9, 9], 14, [3, 2], [1, 3], [1, 1], [1; 4], 2);
    // Groups of several channels, some of whose outputs are computed four at a time.
    conv([12, 7, 7], 15, [3, 3], [1, 1], [1, 1], [1; 4], 3);
    conv([6, 7, 7], 8, [1, 1], [1, 1], [1, 1], [0; 4], 2);
    // Dilation with stride and pads, both coprime and not.
    conv([3, 15, 14], 5, [3, 3], [1, 1], [2, 3], [2, 3, 2, 3], 1);
    conv([3, 15, 14], 2, [3, 2], [2, 3], [2, 2], [1, 0, 3, 2], 1);
    conv([4, 21, 20], 8, [3, 3], [3, 2], [4, 5], [4, 0, 1, 5], 2);
    conv([4, 17, 17], 4, [3, 3], [2, 2], [2, 2], [2; 4], 4);
    // One axis.
    conv([4, 1, 50], 6, [1, 5], [1, 2], [1, 3], [0, 4, 0, 4], 2);
    conv([4, 50, 1], 6, [5, 1], [2, 1], [3, 1], [4, 0, 4, 0], 1);
    // A stride beyond the input; a kernel of the input's size; deeper than a panel.
    conv([2, 3, 3], 2, [1, 1], [1 << 25, 2], [1, 1], [0; 4], 2);
    conv([2, 6, 6], 9, [6, 6], [1, 1], [1, 1], [0; 4], 1);
    conv([130, 6, 5], 10, [3, 3], [2, 2], [2, 1], [1; 4], 2);
    conv([130, 6, 5], 2, [3, 3], [1, 1], [1, 1], [1; 4], 1);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]
    #[test]
    fn any_convolution_is_the_definition(
        (groups, group_inputs, group_outputs) in (1usize..5, 1usize..5, 1usize..7),
        (height, width) in (1usize..15, 1usize..15),
        kernel in prop::array::uniform2(1usize..5),
        stride in prop::array::uniform2(1usize..5),
        dilation in prop::array::uniform2(1usize..4),
        pads in prop::array::uniform4(0usize..4),
    ) {
        let input = [groups * group_inputs, height, width];
        let conv = Conv { input, channels: groups * group_outputs, kernel, stride, dilation, pads, groups };
        prop_assume!(Geometry::Conv(conv.clone()).check().is_ok());
        check(&conv);
    }
}

/// Picoseconds for each product and sum:
/// `cargo test --release -p seco-model cost_of_each_kind -- --ignored --nocapture`.
#[test]
#[ignore = "measures only"]
fn cost_of_each_kind() {
    let conv = |input: [usize; 3], channels, kernel: usize, stride: usize, groups| Conv {
        input,
        channels,
        kernel: [kernel; 2],
        stride: [stride; 2],
        dilation: [1; 2],
        pads: [kernel / 2; 4],
        groups,
    };
    for (name, conv) in [
        ("32 channels of 32 x 32, 3 x 3", conv([32, 32, 32], 32, 3, 1, 1)),
        ("64 channels of 8 x 8, 3 x 3", conv([64, 8, 8], 64, 3, 1, 1)),
        ("16 to 32 channels of 32 x 32, stride 2", conv([16, 32, 32], 32, 3, 2, 1)),
        ("256 to 256 channels of 14 x 14, 1 x 1", conv([256, 14, 14], 256, 1, 1, 1)),
        ("1 to 16 channels of 28 x 28, 5 x 5", conv([1, 28, 28], 16, 5, 1, 1)),
        ("32 to 1 channels of 32 x 32, 3 x 3", conv([32, 32, 32], 1, 3, 1, 1)),
        ("depthwise 64 of 56 x 56", conv([64, 56, 56], 64, 3, 1, 64)),
        ("depthwise 512 of 14 x 14", conv([512, 14, 14], 512, 3, 1, 512)),
        ("depthwise 512 of 7 x 7", conv([512, 7, 7], 512, 3, 1, 512)),
        ("depthwise 64 of 112 x 112, stride 2", conv([64, 112, 112], 64, 3, 2, 64)),
        ("8 groups of 32 channels, 14 x 14", conv([256, 14, 14], 256, 3, 1, 8)),
    ] {
        let geometry = Geometry::Conv(conv);
        let (weights, x) = (words(geometry.weights(), 1), words(geometry.inputs(), 2));
        let mut out = vec![0; geometry.outputs()];
        let mut best = f64::INFINITY;
        for _ in 0..6 {
            let clock = Instant::now();
            linear(&geometry, &weights, &x, &mut out);
            best = best.min(clock.elapsed().as_secs_f64());
        }
        let products = geometry.products() as f64;
        println!("{name}: {:.0} ps, {:.2} ms", best / products * 1e12, best * 1e3);
    }
}
