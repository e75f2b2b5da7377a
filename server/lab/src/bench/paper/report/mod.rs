//! The report: one object, and from it a page, Markdown, and drawings.

mod blocks;
mod document;
mod peers;
mod pictures;
mod published;
mod svg;

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use self::document::{Block, html, markdown};
use super::figures::{Cost, Network, Sample, Spread, System};
use super::machine::Machine;
use super::models::Facts;
use super::peers::Peers;
use super::runs::{Run, Runs};
use super::{Options, models};
use crate::Error;

/// What is known at the end.
pub struct Report {
    pub machine: Machine,
    pub models: Vec<Facts>,
    pub runs: Runs,
    /// What scripts measured of systems of others.
    pub peers: Peers,
    /// What was to be measured and was not, and why.
    pub left_out: Vec<String>,
    pub seconds: f64,
    command: String,
    /// What `cross/cost` measured, as it wrote it.
    device: Option<Value>,
}

/// A user's advantage over DELPHI's, and its figures.
pub struct Comparison {
    pub model: String,
    pub network: Network,
    pub what: &'static str,
    pub delphi: Option<Spread>,
    pub seco: Option<Spread>,
    /// How many times less; `None` if one of the two is missing, or SECO's is nothing.
    pub times: Option<f64>,
    /// What the paper says of ResNet-32: up to so many times.
    pub published: Option<f64>,
}

impl Report {
    pub fn new(options: &Options, machine: Machine) -> Report {
        let device =
            fs::read(&options.device_report).ok().and_then(|text| serde_json::from_slice(&text).ok());
        Report {
            machine,
            models: Vec::new(),
            runs: Runs::default(),
            peers: Peers::default(),
            left_out: Vec::new(),
            seconds: 0.0,
            command: command(options),
            device,
        }
    }

    /// Answers that differ from the plaintext network's.
    pub fn wrong(&self) -> usize {
        self.runs
            .0
            .iter()
            .map(|run| {
                let (equal, count) = run.answers();
                count - equal
            })
            .sum()
    }

    /// The user of DELPHI beside SECO's, where the gateway holds one layer.
    pub fn comparisons(&self) -> Vec<Comparison> {
        type Figure = (&'static str, fn(&Sample) -> Option<f64>, f64);
        let figures: [Figure; 6] = [
            ("user_online_cpu_s", |s| s.user.online_cpu_s, published::LESS_ONLINE_TIME),
            ("user_online_bytes", |s| both(&s.user, false), published::LESS_ONLINE_BYTES),
            ("waiting_s", |s| Some(s.waiting_s), published::LESS_WAITING),
            ("user_preprocessing_cpu_s", |s| s.user.preprocessing_cpu_s, published::LESS_PREPROCESSING_TIME),
            ("user_preprocessing_bytes", |s| both(&s.user, true), published::LESS_PREPROCESSING_BYTES),
            ("user_storage_bytes", |s| s.user.storage_bytes, f64::NAN),
        ];
        let mut all = Vec::new();
        for facts in &self.models {
            for network in [Network::Lan, Network::Wan] {
                let of = |system, layers, figure: fn(&Sample) -> Option<f64>| {
                    self.runs.find(&facts.name, system, network, layers)?.spread(figure)
                };
                for (what, figure, published) in figures {
                    let delphi = of(System::Delphi, None, figure);
                    let seco = of(System::Seco, Some(1), figure);
                    let times = delphi.zip(seco).map(|(d, s)| d.mean / s.mean).filter(|t| t.is_finite());
                    let published = (facts.name == "resnet32" && !published.is_nan()).then_some(published);
                    all.push(Comparison {
                        model: facts.name.clone(),
                        network,
                        what,
                        delphi,
                        seco,
                        times,
                        published,
                    });
                }
            }
        }
        all
    }

    /// The object that scripts read.
    pub fn json(&self) -> Value {
        let comparison = |c: &Comparison| {
            json!({
                "model": c.model,
                "network": c.network.word(),
                "what": c.what,
                "delphi": c.delphi.map(|spread| spread.json()),
                "seco": c.seco.map(|spread| spread.json()),
                "times_less": c.times,
                "paper_up_to": c.published,
            })
        };
        json!({
            "command": self.command,
            "machine": self.machine,
            "seconds": self.seconds,
            "models": self.models,
            "runs": self.runs.0.iter().map(Run::json).chain(self.peers.json()).collect::<Value>(),
            "comparison": self.comparisons().iter().map(comparison).collect::<Value>(),
            "paper": published::json(),
            "device": self.device,
            "left_out": self.left_out,
            "not_expressed": blocks::NOT_EXPRESSED,
            "method": blocks::METHOD,
        })
    }

    /// Writes `index.html`, `report.md`, `report.json` and `figures`.
    pub fn write(&self, out: &Path) -> Result<(), Error> {
        let write = |path: &Path, text: &str| fs::write(path, text).map_err(|e| Error::write(path, e));
        let (blocks, title) = (blocks::blocks(self), "SECO beside its paper and DELPHI");
        let figures = out.join("figures");
        fs::create_dir_all(&figures).map_err(|e| Error::write(&figures, e))?;
        for block in &blocks {
            if let Block::Figure(figure) = block {
                write(&figures.join(format!("{}.svg", figure.name)), &figure.svg)?;
            }
        }
        write(&out.join("index.html"), &html(title, &blocks))?;
        write(&out.join("report.md"), &markdown(title, &blocks))?;
        let text = serde_json::to_string_pretty(&self.json()).unwrap_or_default();
        write(&out.join("report.json"), &text)
    }

    /// A few lines for a terminal.
    pub fn summary(&self, page: &Path) -> String {
        let mut text = String::new();
        for c in self.comparisons() {
            if let Some(times) = c.times {
                let (title, network) = (models::title(&c.model), c.network.word());
                text += &format!(
                    "{title}, {network}: {} is {} times less than DELPHI's\n",
                    c.what,
                    blocks::figure(times)
                );
            }
        }
        for line in &self.left_out {
            text += &format!("left out: {line}\n");
        }
        text + &format!("the report is {}", page.display())
    }
}

/// Bytes up and down, ahead or online.
fn both(cost: &Cost, ahead: bool) -> Option<f64> {
    match ahead {
        true => Some(cost.preprocessing_bytes_up? + cost.preprocessing_bytes_down?),
        false => Some(cost.online_bytes_up? + cost.online_bytes_down?),
    }
}

/// The command that measures the same again.
fn command(options: &Options) -> String {
    let mut text = "seco bench paper".to_owned();
    let numbers = |numbers: &[usize]| numbers.iter().map(usize::to_string).collect::<Vec<_>>().join(",");
    if options.quick {
        text += " --quick";
    }
    if !options.model.is_empty() {
        text += &format!(" --model {}", options.model.join(","));
    }
    if !options.gateway_layers.is_empty() {
        text += &format!(" --gateway-layers {}", numbers(&options.gateway_layers));
    }
    if let Some(models) = &options.models {
        text += &format!(" --models {}", models.display());
    }
    for (name, value) in [("runs", options.runs), ("requests", options.requests)] {
        text += &value.map(|value| format!(" --{name} {value}")).unwrap_or_default();
    }
    text += &options.peers.as_ref().map(|peers| format!(" --peers {}", peers.display())).unwrap_or_default();
    text
}
