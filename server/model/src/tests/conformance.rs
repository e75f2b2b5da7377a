//! Folders of models with inputs and expected answers: those that the ONNX project's tests give, and others.
//!
//! `SECO_CASES=FOLDER cargo test --release -p seco-model conformance -- --ignored --nocapture` reads
//! `FOLDER/NAME/{model.onnx, input.npy, expected.npy, run.json}` and prints what becomes of each.

use std::path::Path;

use super::passed;
use crate::graph::Last;
use crate::npy::{read_f32, read_u8};
use crate::real::{Real, RealOp};
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
        if real.outputs[0].last == Last::ArgMax {
            let best =
                answer.iter().enumerate().fold(0, |best, (i, x)| if *x > answer[best] { i } else { best });
            worst = worst.max((best as f64 - f64::from(expected[0])).abs());
            continue;
        }
        assert_eq!(answer.len(), expected.len());
        // What was left out at the end may be in what is expected, or not.
        let off = |answers: &[f64]| {
            let pairs = answers.iter().zip(expected);
            pairs.map(|(a, e)| (a - f64::from(*e)).abs() / largest).fold(0.0, f64::max)
        };
        worst = worst.max(off(&answer).min(off(&finished(real, &input))));
    }
    worst
}

/// The answers with what was left out.
fn finished(real: &Real, input: &[f64]) -> Vec<f64> {
    let mut all = Vec::new();
    for (values, output) in real.run(input, |_, _| ()).unwrap().iter().zip(&real.outputs) {
        let classes = output.shape.iter().rev().copied().find(|&size| size > 1).unwrap_or(1);
        for row in values.chunks(classes) {
            let most = row.iter().copied().fold(f64::MIN, f64::max);
            let sum: f64 = row.iter().map(|x| (x - most).exp()).sum();
            all.extend(row.iter().map(|&x| match output.last {
                Last::Softmax => (x - most).exp() / sum,
                Last::LogSoftmax => x - most - sum.ln(),
                Last::Sigmoid => 1.0 / (1.0 + (-x).exp()),
                Last::Tanh => x.tanh(),
                Last::Nothing | Last::ArgMax | Last::Index => x,
            }));
        }
    }
    all
}

/// What kinds of nodes a network has, and how much of each.
fn described(real: &Real) -> String {
    let (mut layers, mut publics, mut relus, mut rounds) = (0, 0, 0, 0);
    for (number, node) in real.nodes.iter().enumerate() {
        match &node.op {
            RealOp::Linear(_) => layers += 1,
            RealOp::Public { .. } => publics += 1,
            RealOp::Scale { .. } => {}
            RealOp::Relu { .. } => relus += real.len(number + 1),
            RealOp::Round { .. } => rounds += real.len(number + 1),
        }
    }
    format!(
        "{layers} layers, {publics} sums, {relus} ReLUs, {rounds} rounded, {:.1} M products",
        real.macs() as f64 / 1e6
    )
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
    let shape = Some(numbers(&json, "shape").iter().map(|&size| size as usize).collect())
        .filter(|s: &Vec<_>| !s.is_empty());
    let options =
        ImportOptions { normalisation, shape, folder: Some(folder.to_owned()), ..Default::default() };
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
        Ok(()) => ("right", format!("off by {second:.1e}: {}", described(&real))),
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
