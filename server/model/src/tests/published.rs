//! The published networks: agreement with a float runtime, accuracy, widths, speed.

use std::path::{Path, PathBuf};
use std::time::Instant;

use crate::{
    Activation, Conv, Dense, Executor, FixedModel, Geometry, ImportOptions, Normalisation, WidthRule, import,
    linear, npy,
};

/// The two networks that come with the source.
const BUNDLED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../data");

/// All published networks and their test files, where they lie beside the checkout.
fn published() -> Option<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/models");
    if folder.exists() {
        return Some(folder);
    }
    eprintln!("SKIPPED: no {}, so the networks are not compared with a float runtime", folder.display());
    None
}

fn read(folder: &Path, name: &str) -> Vec<u8> {
    std::fs::read(folder.join(name)).unwrap()
}

fn load(folder: &Path, name: &str, normalisation: Normalisation) -> FixedModel {
    let options = ImportOptions { normalisation, ..ImportOptions::default() };
    import(&read(folder, &format!("{name}.onnx")), &options).unwrap()
}

fn scaled(scale: f64) -> Normalisation {
    Normalisation { scale, ..Normalisation::default() }
}

fn widths(model: &FixedModel) -> Vec<u32> {
    model.layers.iter().map(|l| l.width).collect()
}

/// Calibrates on the test file and compares with the float logits and the labels.
fn compare(name: &str, data: &str, normalisation: Normalisation, agreement: f64, accuracy: f64) {
    let Some(folder) = published() else { return };
    let mut model = load(&folder, name, normalisation);
    let (_, images) = npy::read_u8(&read(&folder, &format!("{data}-test-{}.npy", count(data)))).unwrap();
    let (_, labels) = npy::read_u8(&read(&folder, &format!("{data}-labels-{}.npy", count(data)))).unwrap();
    let (_, expected) = npy::read_f32(&read(&folder, &format!("expected-{name}.npy"))).unwrap();
    let start = Instant::now();
    model.calibrate(&images, WidthRule::Calibrated).unwrap();
    let calibration = start.elapsed();
    let Some(Activation::Output { fraction }) = model.layers.last().map(|l| l.activation) else { panic!() };
    let start = Instant::now();
    let executor = Executor::new(&model).unwrap();
    let (mut agree, mut right, mut wrapped, mut furthest) = (0.0, 0.0, 0, 0f64);
    let inputs = images.chunks(model.input.len());
    for ((image, label), expected) in inputs.zip(&labels).zip(expected.chunks(10)) {
        let result = executor.run(image).unwrap();
        let largest = expected.iter().copied().fold(f32::MIN, f32::max);
        agree += f64::from(u8::from(expected[result.label()] == largest));
        right += f64::from(u8::from(result.label() == usize::from(*label)));
        wrapped += result.wrapped;
        for (logit, expected) in result.logits.iter().zip(expected) {
            let off = f64::from(*logit) / 2f64.powi(fraction as i32) - f64::from(*expected);
            furthest = furthest.max(off.abs());
        }
    }
    let n = labels.len() as f64;
    println!(
        "{name}: agreement {:.1}%, accuracy {:.1}%, furthest logit {furthest:.3}, widths {:?}, worst case {:?}, \
         {n} images in {:?} (calibration {calibration:?})",
        100.0 * agree / n,
        100.0 * right / n,
        widths(&model),
        model.worst_case_widths(),
        start.elapsed(),
    );
    assert_eq!(wrapped, 0);
    assert!(agree / n >= agreement && (right / n - accuracy).abs() <= 0.02, "{agree} {right} of {n}");
    assert!(furthest < 0.5, "a logit is off by {furthest}");
}

fn count(data: &str) -> usize {
    if data == "mnist" { 200 } else { 100 }
}

#[test]
fn mlp_agrees_with_float() {
    compare("mlp-digits", "digits", scaled(16.0), 0.99, 0.96);
}

#[test]
fn minionn_agrees_with_float() {
    compare("minionn-mnist", "mnist", scaled(255.0), 0.99, 0.98);
}

#[test]
fn lenet_agrees_with_float() {
    compare("lenet-mnist", "mnist", scaled(255.0), 0.99, 0.995);
}

#[test]
fn cnn7_agrees_with_float() {
    let normalisation =
        Normalisation { scale: 255.0, mean: vec![0.485, 0.456, 0.406], std: vec![0.229, 0.224, 0.225] };
    compare("cnn7-cifar10", "cifar10", normalisation, 0.97, 0.67);
}

#[test]
fn bundled_networks_read_their_twenty_digits() {
    let folder = Path::new(BUNDLED);
    for (network, name, scale, widest) in
        [("mlp-digits", "mlp", 16.0, [22, 23]), ("minionn-mnist", "minionn", 255.0, [24, 26])]
    {
        let mut model = load(folder, network, scaled(scale));
        let (shape, images) = npy::read_u8(&read(folder, &format!("{name}-digits-20.npy"))).unwrap();
        let (_, labels) = npy::read_u8(&read(folder, &format!("{name}-labels-20.npy"))).unwrap();
        assert_eq!((shape[0], &shape[1..]), (20, model.input.shape.as_slice()));
        model.calibrate(&images, WidthRule::Calibrated).unwrap();
        let executor = Executor::new(&model).unwrap();
        let results: Vec<_> =
            images.chunks(model.input.len()).map(|image| executor.run(image).unwrap()).collect();
        let right = results.iter().zip(&labels).filter(|(r, l)| r.label() == usize::from(**l)).count();
        println!("{network}: {right} of 20 right, widths {:?}", widths(&model));
        assert!(right >= 19);
        assert!(results.iter().all(|r| r.wrapped == 0));
        assert!((widest[0]..=widest[1]).contains(&widths(&model).into_iter().max().unwrap()));
        let worst = model.worst_case_widths().unwrap();
        assert!(worst.iter().zip(widths(&model)).all(|(&worst, width)| worst >= width));
    }
}

#[test]
fn pooling_is_composed_into_the_kernels() {
    let model = load(Path::new(BUNDLED), "minionn-mnist", scaled(255.0));
    let conv = |input, channels| {
        Geometry::Conv(Conv {
            input,
            channels,
            kernel: [6, 6],
            stride: [2, 2],
            pads: [0; 4],
            dilation: [1; 2],
            groups: 1,
        })
    };
    let geometries: Vec<_> = model.layers.iter().map(|l| l.geometry.clone()).collect();
    let dense = |inputs, outputs| Geometry::Dense(Dense { inputs, outputs });
    assert_eq!(geometries, [conv([1, 28, 28], 16), conv([16, 12, 12], 16), dense(256, 100), dense(100, 10)]);
    let activations: Vec<_> = model.layers.iter().map(|l| l.activation).collect();
    let relu = |shift| Activation::Relu { shift };
    assert_eq!(activations, [relu(10), relu(10), relu(8), Activation::Output { fraction: 16 }]);
}

/// What a holder's product costs online, one layer after the other. Measure with
/// `SECO_SLOW=1 cargo test --release -p seco-model -- --nocapture speed`.
#[test]
fn speed_of_linear() {
    if std::env::var_os("SECO_SLOW").is_none() {
        eprintln!("SKIPPED: measures time; set SECO_SLOW=1");
        return;
    }
    let mut models = vec![load(Path::new(BUNDLED), "minionn-mnist", scaled(255.0))];
    models.extend(published().map(|f| load(&f, "lenet-mnist", scaled(255.0))));
    models.extend(published().map(|f| load(&f, "cnn7-cifar10", scaled(255.0))));
    for layer in models.iter().flat_map(|m| &m.layers) {
        let weights: Vec<u32> = layer.weights.iter().map(|&w| w as u32).collect();
        let x: Vec<u32> = (0..layer.geometry.inputs() as u32).map(|i| i.wrapping_mul(0x9e37_79b9)).collect();
        let mut out = vec![0; layer.geometry.outputs()];
        let mut best = f64::MAX;
        for _ in 0..20 {
            let start = Instant::now();
            linear(&layer.geometry, &weights, &x, &mut out);
            best = best.min(start.elapsed().as_secs_f64());
        }
        println!("{:>9.1} us {} {:?}", 1e6 * best, layer.name, layer.geometry);
    }
}
