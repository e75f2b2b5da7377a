//! Folders of models with inputs and expected answers: those that the ONNX project's tests give, and others.
//!
//! `SECO_CASES=FOLDER cargo test --release -p seco-model conformance -- --ignored --nocapture` reads
//! `FOLDER/NAME/{model.onnx, input.npy, expected.npy, run.json}` and prints what becomes of each.

use std::path::Path;

use super::passed;
use crate::npy::{read_f32, read_u8};
use crate::real::Real;
use crate::{ImportOptions, Normalisation};

/// A number of a flat JSON object, or all numbers of a list.
fn numbers(json: &str, name: &str) -> Vec<f64> {
    let Some((_, rest)) = json.split_once(&format!("\"{name}\":")) else { return vec![] };
    let rest = rest.trim_start();
    let text = match rest.strip_prefix('[') {
        Some(list) => list.split(']').next().unwrap(),
        None => rest.split([',', '}']).next().unwrap(),
    };
    text.split(',').filter_map(|number| number.trim().parse().ok()).collect()
}

/// Largest difference of the answers to all inputs from what is expected, in parts of the largest.
fn worst(real: &Real, inputs: &[u8], expected: &[f32]) -> f64 {
    let len: usize = real.input.iter().product();
    let rows = inputs.len() / len;
    let largest = expected.iter().fold(1e-6f64, |most, &x| most.max(f64::from(x).abs()));
    let mut worst = 0f64;
    for (row, expected) in inputs.chunks(len).zip(expected.chunks(expected.len() / rows)) {
        let input: Vec<f64> = row.iter().map(|&byte| f64::from(byte)).collect();
        let answer = real.run(&input, |_, _| ()).unwrap().concat();
        if real.outputs[0].last == crate::graph::Last::ArgMax {
            let best = answer.iter().enumerate().fold(0, |best, (i, x)| if *x > answer[best] { i } else { best });
            worst = worst.max((best as f64 - f64::from(expected[0])).abs());
            continue;
        }
        assert_eq!(answer.len(), expected.len());
        for (a, e) in answer.iter().zip(expected) {
            worst = worst.max((a - f64::from(*e)).abs() / largest);
        }
    }
    worst
}

/// `right`, `refused` or `wrong`, and why.
fn judge(folder: &Path) -> (&'static str, String) {
    let file = |name: &str| std::fs::read(folder.join(name)).unwrap();
    let json = String::from_utf8(file("run.json")).unwrap();
    let normalisation = Normalisation {
        scale: numbers(&json, "scale")[0],
        mean: numbers(&json, "mean"),
        std: numbers(&json, "std"),
    };
    let options = ImportOptions { normalisation, folder: Some(folder.to_owned()), ..Default::default() };
    let model = file("model.onnx");
    let (_, inputs) = read_u8(&file("input.npy")).unwrap();
    let (_, expected) = read_f32(&file("expected.npy")).unwrap();
    let plain = match crate::onnx::walk(&model, &options) {
        Ok(real) => real,
        Err(error) => return ("refused", error.to_string()),
    };
    let first = worst(&plain, &inputs, &expected);
    if first > 1e-4 {
        return ("wrong", format!("off by {first:.2e} before the passes"));
    }
    let real = match crate::read(&model, &options) {
        Ok(real) => real,
        Err(error) => return ("refused", format!("by the passes: {error}")),
    };
    let second = worst(&real, &inputs, &expected);
    if second > 1e-4 {
        return ("wrong", format!("off by {second:.2e} behind the passes"));
    }
    match passed(&real) {
        Ok(()) => ("right", format!("off by {second:.1e}")),
        Err(what) => ("wrong", what),
    }
}

#[test]
#[ignore = "reads a folder of models"]
fn conformance() {
    let Some(root) = std::env::var_os("SECO_CASES") else {
        eprintln!("skipped: SECO_CASES names no folder");
        return;
    };
    let mut folders: Vec<_> = std::fs::read_dir(root).unwrap().map(|entry| entry.unwrap().path()).collect();
    folders.sort();
    let mut counts = std::collections::BTreeMap::new();
    for folder in folders {
        let (verdict, why) = judge(&folder);
        *counts.entry(verdict).or_insert(0) += 1;
        println!("{verdict:8} {} {why}", folder.file_name().unwrap().display());
    }
    println!("{counts:?}");
    assert!(!counts.contains_key("wrong"));
}
