//! Random networks: what is imported computes what the network says, integer by integer.

use chacha20::ChaCha20Rng;
use proptest::prelude::*;
use rand_core::Rng;

use super::network::{Network, Step};
use super::{generator, pick, weight};
use crate::{Error, ImportOptions, Normalisation, Scales, WidthRule, import};

fn weights(rng: &mut ChaCha20Rng, count: usize) -> Vec<f32> {
    (0..count).map(|_| weight(rng)).collect()
}

/// A convolution that fits `shape`.
fn conv(rng: &mut ChaCha20Rng, shape: &[usize], padded: bool) -> Step {
    let pads = if padded { core::array::from_fn(|_| pick(rng, 0, 1)) } else { [0; 4] };
    let kernel = [pick(rng, 1, shape[1].min(3)), pick(rng, 1, shape[2].min(3))];
    let channels = pick(rng, 1, 3);
    let count = channels * shape[0] * kernel[0] * kernel[1];
    let stride = [pick(rng, 1, 2), pick(rng, 1, 2)];
    Step::Conv { weights: weights(rng, count), bias: weights(rng, channels), kernel, stride, pads }
}

/// A pooling that fits `shape`, with windows that overlap only where that is asked for.
fn pool(rng: &mut ChaCha20Rng, shape: &[usize], overlapping: bool) -> Step {
    let kernel = [pick(rng, 1, shape[1].min(3)), pick(rng, 1, shape[2].min(3))];
    let stride = core::array::from_fn(|i| pick(rng, if overlapping { 1 } else { kernel[i] }, 3));
    Step::Pool { kernel, stride }
}

/// One to three layers with pooling in many places.
fn network(rng: &mut ChaCha20Rng) -> Network {
    let input = vec![pick(rng, 1, 3), pick(rng, 4, 10), pick(rng, 4, 10)];
    let (mut steps, mut shape) = (Vec::new(), input.clone());
    let mut push = |shape: &mut Vec<usize>, step: Step| {
        *shape = step.output(shape);
        steps.push(step);
    };
    for _ in 0..pick(rng, 0, 2) {
        let in_front = pick(rng, 0, 2) == 0;
        if in_front {
            let step = pool(rng, &shape, false);
            push(&mut shape, step);
        }
        let step = conv(rng, &shape, !in_front);
        push(&mut shape, step);
        for _ in 0..pick(rng, 0, 2) {
            let step = pool(rng, &shape, true);
            push(&mut shape, step);
        }
        push(&mut shape, Step::Relu);
    }
    if pick(rng, 0, 1) == 0 {
        let step = conv(rng, &shape, true);
        push(&mut shape, step);
    } else {
        if pick(rng, 0, 1) == 0 {
            let step = pool(rng, &shape, false);
            push(&mut shape, step);
        }
        push(&mut shape, Step::Flatten);
        let classes = pick(rng, 1, 4);
        let weights = weights(rng, classes * shape[0]);
        push(&mut shape, Step::Gemm { weights, bias: (0..classes).map(|_| weight(rng)).collect() });
    }
    Network { input, steps }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn imported_networks_compute_what_the_steps_do(seed in any::<u64>()) {
        let mut rng = generator(seed);
        let network = network(&mut rng);
        let scales = Scales::new(pick(&mut rng, 4, 9) as u32, pick(&mut rng, 4, 9) as u32);
        let scale = [1.0, 16.0, 255.0][pick(&mut rng, 0, 2)];
        let normalisation = Normalisation { scale, ..Default::default() };
        let options = ImportOptions { scales, normalisation: normalisation.clone(), input_bits: 8 };
        let mut model = import(&network.onnx(), &options).unwrap();
        let len: usize = network.input.iter().product();
        let images: Vec<u8> = (0..3 * len).map(|_| rng.next_u32() as u8).collect();
        let check = |model: &crate::FixedModel, image: &[u8]| {
            let widths: Vec<u32> = model.layers.iter().map(|l| l.width).collect();
            let result = model.execute(image).unwrap();
            let wrapped = result.wrapped;
            assert_eq!((result.logits, wrapped), network.integer(image, scales, scale, &widths));
            wrapped
        };
        let rule = [WidthRule::Affordable, WidthRule::Calibrated, WidthRule::Worst][pick(&mut rng, 0, 2)];
        let wide = images.chunks(len).map(|image| check(&model, image)).sum::<u64>();
        match model.calibrate(&images, rule) {
            Ok(_) => prop_assert_eq!(wide, 0),
            Err(Error::Width { needed, .. }) if needed > 32 => return Ok(()),
            Err(e) => return Err(TestCaseError::fail(e.to_string())),
        }
        let calibrated = images.chunks(len).map(|image| check(&model, image)).sum::<u64>();
        prop_assert_eq!(calibrated, 0);
        if let Ok(worst) = model.worst_case_widths() {
            prop_assert!(model.layers.iter().zip(&worst).all(|(l, &w)| l.width <= w));
        }
        // Narrower than that, values wrap the same way.
        for layer in &mut model.layers {
            let least = match layer.activation { crate::Activation::Relu { shift } => shift + 2, _ => 2 };
            layer.width = layer.width.saturating_sub(3).max(least).max(9);
        }
        images.chunks(len).for_each(|image| { check(&model, image); });
        // And with fine scales the result is what the network says.
        let fine = ImportOptions { scales: Scales::new(13, 13), ..options };
        if let Ok(model) = import(&network.onnx(), &fine) {
            let result = model.execute(&images[..len]).unwrap();
            let Some(crate::Activation::Output { fraction }) = model.layers.last().map(|l| l.activation) else {
                return Err(TestCaseError::fail("no output"));
            };
            if result.wrapped == 0 && scale > 1.0 {
                for (logit, float) in result.logits.iter().zip(network.float(&images[..len], &normalisation)) {
                    let logit = f64::from(*logit) / 2f64.powi(fraction as i32);
                    prop_assert!((logit - float).abs() < 0.05 * (1.0 + float.abs()), "{} {}", logit, float);
                }
            }
        }
    }
}
