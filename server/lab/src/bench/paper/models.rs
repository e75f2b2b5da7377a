//! The networks that are measured, ready for every system.

use std::fs;
use std::path::{Path, PathBuf};

use seco_model::numbers::compare;
use seco_model::{Executor, Imported};
use seco_protocol::Counts;
use seco_tools::samples::{Network, Samples};
use seco_tools::split::{self, SplitOptions};
use serde::{Deserialize, Serialize};

use super::onnx;
use crate::Error;

/// Inputs of a network with random weights.
const RANDOM_INPUTS: usize = 20;
/// Inputs that every measured prediction is one of, at most.
const QUESTIONS: usize = 100;

/// What makes an ONNX file, and the shape of the network's input.
type Made = (fn() -> Vec<u8>, [usize; 3]);

/// A network as it is asked for, and where it is found.
struct Known {
    name: &'static str,
    title: &'static str,
    /// In the folder of models: the network, inputs, labels.
    files: [&'static str; 3],
    /// Mean and standard deviation of the channels, after division by 255.
    channels: Option<[[f64; 3]; 2]>,
    /// Whether the binary has it.
    bundled: bool,
    /// For where there is no file.
    made: Option<Made>,
    /// Linear layers.
    linear: usize,
    /// AND gates, about: for guesses.
    and_gates: u64,
}

static KNOWN: [Known; 4] = [
    Known {
        name: "minionn",
        title: "MiniONN",
        files: ["minionn-mnist.onnx", "mnist-test-200.npy", "mnist-labels-200.npy"],
        channels: None,
        bundled: true,
        made: None,
        linear: 4,
        and_gates: 54_000,
    },
    Known {
        name: "lenet",
        title: "LeNet",
        files: ["lenet-mnist.onnx", "mnist-test-200.npy", "mnist-labels-200.npy"],
        channels: None,
        bundled: false,
        made: Some((onnx::lenet, [1, 28, 28])),
        linear: 4,
        and_gates: 85_000,
    },
    Known {
        name: "resnet32",
        title: "ResNet-32",
        files: ["resnet32-cifar10.onnx", "cifar10-test-100.npy", "cifar10-labels-100.npy"],
        channels: Some([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]]),
        bundled: false,
        made: Some((onnx::resnet32, [3, 32, 32])),
        linear: 32,
        and_gates: 6_000_000,
    },
    // Of no paper: for a quick look.
    Known {
        name: "mlp",
        title: "MLP",
        files: ["", "", ""],
        channels: None,
        bundled: true,
        made: None,
        linear: 2,
        and_gates: 600,
    },
];

/// Names of networks, for messages.
pub fn names() -> String {
    KNOWN.iter().map(|known| known.name).collect::<Vec<_>>().join(", ")
}

/// Whether there is such a network.
pub fn is_known(name: &str) -> bool {
    KNOWN.iter().any(|known| known.name == name)
}

/// Its name for people.
pub fn title(name: &str) -> &str {
    KNOWN.iter().find(|known| known.name == name).map_or(name, |known| known.title)
}

/// Its linear layers.
pub fn linear_layers(name: &str) -> usize {
    KNOWN.iter().find(|known| known.name == name).map_or(1, |known| known.linear)
}

/// Its AND gates, about.
pub fn and_gates(name: &str) -> u64 {
    KNOWN.iter().find(|known| known.name == name).map_or(1, |known| known.and_gates)
}

/// Where the weights are from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Weights {
    /// Trained, from the folder of models.
    Trained,
    /// Trained, and part of the program.
    Bundled,
    /// Drawn: the answers mean nothing, and there is no accuracy.
    Random,
}

/// What is told of a network in the report.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Facts {
    pub name: String,
    pub title: String,
    pub weights: Weights,
    pub linear_layers: usize,
    pub relus: u64,
    /// With three servers, all circuits.
    pub and_gates: u64,
    /// Test inputs with labels.
    pub tested: Option<usize>,
    /// Part of them that the network in floating point labels right.
    pub accuracy_float: Option<f64>,
    /// The same of the network in fixed point, which is what is computed privately.
    pub accuracy_fixed: Option<f64>,
    /// Part of them with the same label in both.
    pub agreement: Option<f64>,
}

/// A network with everything that measurements need.
pub struct Model {
    pub facts: Facts,
    imported: Imported,
    task: SplitOptions,
    /// What is asked.
    pub inputs: Vec<Vec<u8>>,
    /// What must be answered.
    pub expected: Vec<Vec<i32>>,
}

impl Model {
    /// Finds the network in `folder` or in the program, or makes it, and chooses its numbers. Files that are needed go
    /// to `place`.
    pub fn load(name: &str, folder: Option<&Path>, place: &Path) -> Result<Model, Error> {
        let known = KNOWN.iter().find(|known| known.name == name);
        let known = known.ok_or_else(|| Error::Usage(format!("--model {name}: give one of {}", names())))?;
        fs::create_dir_all(place).map_err(|e| Error::write(place, e))?;
        let (samples, weights) = known.samples(folder, place)?;
        let task = samples.task(3, place.join("model"));
        let imported = split::import(&task)?;
        let model = &imported.chosen.model;
        let inputs: Vec<Vec<u8>> = (0..samples.count).map(|i| samples.get(i).to_vec()).collect();
        let run = |executor: Executor<'_>| {
            let all = inputs.iter().take(QUESTIONS).map(|input| Ok(executor.run(input)?.logits));
            all.collect::<Result<Vec<_>, seco_model::Error>>()
        };
        let bad = |e: seco_model::Error| Error::Model { path: samples.network.clone(), what: e.to_string() };
        let expected = Executor::new(model).and_then(run).map_err(bad)?;
        let mut facts = Facts {
            name: known.name.to_owned(),
            title: known.title.to_owned(),
            weights,
            linear_layers: model.layers.len(),
            relus: 0,
            and_gates: 0,
            tested: None,
            accuracy_float: None,
            accuracy_fixed: None,
            agreement: None,
        };
        if weights != Weights::Random {
            let all: Vec<&[u8]> = inputs.iter().map(Vec::as_slice).collect();
            let comparison = compare(&imported.real, model, &all, task.goal.error).map_err(bad)?;
            let labels: Option<Vec<usize>> = (0..samples.count).map(|i| samples.label(i)).collect();
            if let Some(labels) = labels {
                let right = |which: usize| {
                    let right =
                        comparison.labels.iter().zip(&labels).filter(|(says, label)| says[which] == **label);
                    Some(right.count() as f64 / labels.len().max(1) as f64)
                };
                facts.tested = Some(labels.len());
                (facts.accuracy_float, facts.accuracy_fixed) = (right(0), right(1));
            }
            facts.agreement = Some(comparison.fidelity.agreement());
        }
        let questions = inputs.into_iter().take(QUESTIONS).collect();
        let mut loaded = Model { facts, imported, task, inputs: questions, expected };
        let counts = Counts::of(&loaded.deal(3, 1, &place.join("counted"))?.architecture);
        (loaded.facts.relus, loaded.facts.and_gates) = (counts.relus, counts.and_gates);
        Ok(loaded)
    }

    /// Splits it for so many servers, of which the gateway holds the first layers.
    pub fn deal(&self, servers: usize, gateway_layers: usize, out: &Path) -> Result<split::Split, Error> {
        let task = SplitOptions { servers, gateway_layers, out: out.to_owned(), ..self.task.clone() };
        split::deal(self.imported.clone(), &task)
    }

    /// Splits it for DELPHI's two parties.
    pub fn deal_two_party(&self, out: &Path) -> Result<split::Split, Error> {
        let task = SplitOptions { out: out.to_owned(), ..self.task.clone() };
        crate::bench::device::deal(self.imported.clone(), task)
    }
}

impl Known {
    fn samples(&self, folder: Option<&Path>, place: &Path) -> Result<(Samples, Weights), Error> {
        let [mean, std] = self.channels.map_or([Vec::new(), Vec::new()], |both| both.map(|c| c.to_vec()));
        let network = |model: PathBuf, input: Option<PathBuf>| Network {
            model,
            input,
            scale: None,
            width: None,
            mean: mean.clone(),
            std: std.clone(),
        };
        let found = folder.map(|folder| self.files.map(|file| folder.join(file)));
        if let Some([model, inputs, labels]) = found.filter(|files| files.iter().all(|file| file.is_file())) {
            let read = |count| {
                Samples::load(&network(model.clone(), Some(inputs.clone())), Some(&labels), count, place)
            };
            // All of them; how many is known after a first look.
            let available = seco_tools::samples::inputs(&inputs)?.1.first().copied();
            return Ok((read(available)?, Weights::Trained));
        }
        if self.bundled {
            let bundled = Samples::load(&network(self.name.into(), None), None, None, place)?;
            return Ok((bundled, Weights::Bundled));
        }
        let (make, shape) =
            self.made.ok_or_else(|| Error::Usage(format!("--model {}: no file", self.name)))?;
        let (model, input) = (place.join(format!("{}.onnx", self.name)), place.join("random.npy"));
        fs::write(&model, make()).map_err(|e| Error::write(&model, e))?;
        fs::write(&input, pictures(shape)).map_err(|e| Error::write(&input, e))?;
        let samples = Samples::load(&network(model, Some(input)), None, Some(RANDOM_INPUTS), place)?;
        Ok((samples, Weights::Random))
    }
}

/// Pictures with all values, in NumPy's format.
fn pictures([channels, height, width]: [usize; 3]) -> Vec<u8> {
    let dictionary = format!(
        "{{'descr': '|u1', 'fortran_order': False, 'shape': ({RANDOM_INPUTS}, {channels}, {height}, {width}), }}"
    );
    let mut header = dictionary.into_bytes();
    header.resize((10 + header.len() + 1).next_multiple_of(64) - 11, b' ');
    header.push(b'\n');
    // Its length takes two bytes, and is below 256.
    let mut file = [b"\x93NUMPY\x01\x00".as_slice(), &[header.len() as u8, 0], &header].concat();
    let count = RANDOM_INPUTS * channels * height * width;
    file.extend((0..count as u64).map(|i| (i.wrapping_mul(i).wrapping_mul(2_654_435_761) >> 16) as u8));
    file
}
