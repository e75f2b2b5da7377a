//! The published networks over the reals: the logits of a float runtime.

use std::path::{Path, PathBuf};
use std::time::Instant;

use super::passed;
use crate::npy::{read_f32, read_u8};
use crate::real::RealOp;
use crate::{ImportOptions, Normalisation, read};

/// Largest difference of logits that was seen with another runtime's order of summation, in parts of the largest.
const TOLERANCE: f64 = 1e-4;

fn file(name: &str) -> Option<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    let places = [folder.join("../../../shared/models"), folder.join("../data")];
    let found: Vec<PathBuf> =
        places.iter().map(|place| place.join(name)).filter(|path| path.exists()).collect();
    found.first().map(|path| std::fs::read(path).unwrap())
}

fn normalisation(data: &str) -> Normalisation {
    match data {
        "digits" => Normalisation { scale: 16.0, ..Default::default() },
        "cifar10" => {
            Normalisation { scale: 255.0, mean: vec![0.485, 0.456, 0.406], std: vec![0.229, 0.224, 0.225] }
        }
        _ => Normalisation::default(),
    }
}

#[test]
fn logits_are_those_of_a_float_runtime() {
    let models = [
        ("minionn", "mnist", "200"),
        ("lenet", "mnist", "200"),
        ("lenet-maxpool", "mnist", "200"),
        ("mlp", "digits", "100"),
        ("cnn7", "cifar10", "100"),
        ("resnet20", "cifar10", "100"),
        ("resnet32", "cifar10", "100"),
        ("resnet32", "cifar10-bn", "100"),
    ];
    for (network, data, count) in models {
        let name = format!("{network}-{data}");
        let set = data.trim_end_matches("-bn");
        let files =
            [format!("{name}.onnx"), format!("{set}-test-{count}.npy"), format!("expected-{name}.npy")];
        let [Some(model), Some(inputs), Some(expected)] = files.each_ref().map(|name| file(name)) else {
            eprintln!("SKIPPED {name}: {files:?} are not all there");
            continue;
        };
        let options = ImportOptions { normalisation: normalisation(set), ..Default::default() };
        let start = Instant::now();
        let real = read(&model, &options).unwrap();
        let reading = start.elapsed();
        passed(&real).unwrap();
        // No layer but those of the file, and no rounding: ResNets have their batch norms taken up.
        let kinds = |wanted: fn(&RealOp) -> bool| real.nodes.iter().filter(|node| wanted(&node.op)).count();
        assert_eq!(kinds(|op| matches!(op, RealOp::Round { .. })), 0, "{name}");
        let layers = kinds(|op| matches!(op, RealOp::Linear(_)));
        let wanted = match network {
            "mlp" => 2,
            "cnn7" => 8,
            "resnet20" => 20,
            "resnet32" => 32,
            _ => 4,
        };
        assert_eq!(layers, wanted, "{name}");
        let (_, inputs) = read_u8(&inputs).unwrap();
        let (_, expected) = read_f32(&expected).unwrap();
        let len: usize = real.input.iter().product();
        let shown = if real.macs() > 10_000_000 { 8 } else { 100 };
        let start = Instant::now();
        let mut worst = 0f64;
        for (image, expected) in inputs.chunks(len).zip(expected.chunks(10)).take(shown) {
            let input: Vec<f64> = image.iter().map(|&byte| f64::from(byte)).collect();
            let logits = real.run(&input, |_, _| ()).unwrap().remove(0);
            for (logit, expected) in logits.iter().zip(expected) {
                worst = worst.max((logit - f64::from(*expected)).abs());
            }
        }
        let rate = shown as f64 / start.elapsed().as_secs_f64();
        println!("{name}: read in {reading:?}, off by {worst:.1e}, {rate:.1} images/s");
        assert!(worst < TOLERANCE, "{name} is off by {worst}");
    }
}
