//! Runs folders of model.onnx, input.npy, expected.npy through import, choice of numbers and the plaintext executor.
use seco_model::numbers::{Goal, choose};
use seco_model::{Executor, ImportOptions, InputSpec, Normalisation, npy};
use std::path::Path;
fn field(text: &str, name: &str) -> Option<Vec<f64>> {
    let at = text.find(&format!("\"{name}\": "))? + name.len() + 4;
    let rest = &text[at..];
    if rest.starts_with("null") {
        return None;
    }
    let end = if rest.starts_with('[') { rest.find(']')? } else { rest.find([',', '}'])? };
    Some(rest[..end].trim_matches(['[', ']', ' ']).split(',').map(|v| v.trim().parse().unwrap()).collect())
}
fn main() {
    let root = std::env::args().nth(1).unwrap();
    let only = std::env::args().nth(2).unwrap_or_default();
    let mut names: Vec<_> = std::fs::read_dir(&root).unwrap().map(|e| e.unwrap().path()).collect();
    names.sort();
    let mut counts = std::collections::BTreeMap::new();
    for folder in names {
        let name = folder.file_name().unwrap().to_string_lossy().into_owned();
        if !name.contains(&only) {
            continue;
        }
        let begin = std::time::Instant::now();
        let (verdict, text) = match run(&folder) {
            Ok(v) => v,
            Err(e) => ("refused", e),
        };
        println!("{verdict:8} {name:50} {text} [{:.1} s]", begin.elapsed().as_secs_f64());
        *counts.entry(verdict).or_insert(0) += 1;
    }
    println!("{counts:?}");
}
fn run(folder: &Path) -> Result<(&'static str, String), String> {
    let json = std::fs::read_to_string(folder.join("run.json"))
        .or_else(|_| std::fs::read_to_string(folder.join("case.json")))
        .unwrap_or_default();
    let one = |n| field(&json, n).unwrap_or_default();
    let options = ImportOptions {
        normalisation: Normalisation {
            scale: one("scale").first().copied().unwrap_or(255.0),
            mean: one("mean"),
            std: one("std"),
        },
        folder: Some(folder.to_owned()),
        ..Default::default()
    };
    let onnx = std::fs::read(folder.join("model.onnx")).map_err(|e| e.to_string())?;
    let real = seco_model::read(&onnx, &options).map_err(|e| e.to_string())?;
    let samples = std::fs::read(folder.join("calibrate.npy"))
        .or_else(|_| std::fs::read(folder.join("input.npy")))
        .map_err(|e| e.to_string())?;
    let (_, samples) = npy::read_u8(&samples).map_err(|e| e.to_string())?;
    let input = InputSpec::new(real.input.clone(), 8);
    let chosen = choose(&real, &input, &samples, &Goal::default()).map_err(|e| e.to_string())?;
    let gates: u64 = chosen.model.graph.activations().map(|r| r.len as u64 * u64::from(r.width - 1)).sum();
    let mut text = format!(
        "{:?} error {:.3}% same {}/{} reached {} gates {gates} layers {}",
        chosen.precision,
        chosen.fidelity.error * 100.0,
        chosen.fidelity.same,
        chosen.fidelity.inputs,
        chosen.reached,
        chosen.model.layers.len()
    );
    let (_, inputs) = npy::read_u8(&std::fs::read(folder.join("input.npy")).map_err(|e| e.to_string())?)
        .map_err(|e| e.to_string())?;
    let mut verdict = if chosen.reached { "ok" } else { "poor" };
    if let Ok(expected) = std::fs::read(folder.join("expected.npy")) {
        let (_, expected) = npy::read_f32(&expected).map_err(|e| e.to_string())?;
        let executor = Executor::new(&chosen.model).map_err(|e| e.to_string())?;
        let scale = 2f64.powi(-(chosen.model.graph.fraction() as i32));
        let got: Vec<f64> = inputs
            .chunks(input.len())
            .flat_map(|x| executor.run(x).unwrap().logits)
            .map(|v| f64::from(v) * scale)
            .collect();
        let most = expected.iter().fold(0f32, |m, v| m.max(v.abs())) as f64;
        if got.len() != expected.len() {
            return Ok(("wrong", format!("{} values, not {}", got.len(), expected.len())));
        }
        let worst = got.iter().zip(&expected).fold(0f64, |w, (a, b)| w.max((a - f64::from(*b)).abs()))
            / most.max(1e-12);
        text += &format!(" against expected {:.3}%", worst * 100.0);
        if worst > 0.03 {
            verdict = "wrong";
        }
    }
    Ok((verdict, text))
}
