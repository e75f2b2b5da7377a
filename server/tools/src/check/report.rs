//! What was found, for all three ways of showing it.

use seco_model::graph::Last;
use seco_model::real::Real;
use seco_model::{Architecture, Imported, Placement};
use seco_protocol::OT_PARAMETER;
use seco_protocol::cost::Cost;
use serde::Serialize;

use super::Options;
use super::estimate::{self, Network, Totals};
use super::evidence::Evidence;
use super::layers::{self, Layer};
use crate::check::rates::Rates;
use crate::split::{self, SplitOptions};
use crate::terminal::percent;
use crate::{Error, placement, samples};

/// Classes of a confusion that is kept: a picture of more says nothing.
const CLASSES: usize = 1000;

/// What is reported on.
pub struct Subject<'a> {
    pub options: &'a Options,
    pub task: &'a SplitOptions,
    pub imported: &'a Imported,
    /// Of the layers, with as many servers as was asked for.
    pub placements: &'a [Placement],
    /// Of a network that is refused, why, a line for each node.
    pub refusal: Option<Vec<String>>,
}

/// The fields are documented in the module above.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    pub version: u32,
    pub model: String,
    pub file: String,
    pub works: bool,
    pub refused: Vec<String>,
    pub warnings: Vec<String>,
    pub input: Input,
    pub precision: Precision,
    pub fidelity: Option<Fidelity>,
    pub confusion: Option<Confusion>,
    pub macs: u64,
    pub relus: u64,
    pub and_gates: u64,
    pub layers: Vec<Layer>,
    pub servers: usize,
    pub gateway_layers: usize,
    pub totals: Vec<Totals>,
    pub rates: Rates,
    pub next: Option<String>,
}

#[derive(Clone, Debug, Serialize)]
pub struct Input {
    pub shape: Vec<usize>,
    pub bits: u32,
    pub available: usize,
    pub samples: usize,
    pub fewest_bits: Option<u32>,
    /// What values stand for, in words, where they are not all there is.
    pub real_numbers: Option<String>,
}

#[derive(Clone, Debug, Serialize)]
pub struct Precision {
    pub weight_bits: u32,
    pub activation_bits: u32,
}

#[derive(Clone, Debug, Serialize)]
pub struct Fidelity {
    pub same: usize,
    pub agreement: f64,
    pub agreement_at_least: f64,
    pub largest_error: Option<f64>,
    pub wrapped: u64,
    pub float_accuracy: Option<f64>,
    pub fixed_accuracy: Option<f64>,
}

/// How often which label became which.
#[derive(Clone, Debug, Serialize)]
pub struct Confusion {
    pub classes: Vec<String>,
    /// By the float network's label, by the integer network's.
    pub counts: Vec<Vec<usize>>,
}

impl Input {
    /// Whether its bits are needed, where that is known.
    pub fn needed(&self) -> Option<String> {
        let (fewest, bits) = (self.fewest_bits?, self.bits);
        Some(match fewest {
            _ if fewest > bits => format!("{fewest}, and they have {bits}: give --input-bits {fewest}"),
            // No fewer than 8 are tried.
            _ if fewest == bits && bits <= 8 => format!("{bits} or fewer"),
            _ if fewest == bits => format!("all {bits}"),
            _ if self.real_numbers.is_some() => format!("{fewest} of {bits}: --input-bits {fewest} would do"),
            ..=8 => format!("8 of {bits}: bytes would do"),
            _ => format!("{fewest} of {bits}"),
        })
    }
}

impl Report {
    /// Puts everything together. `available` samples there were, with these labels.
    pub fn new(
        subject: &Subject<'_>,
        evidence: &Evidence,
        (available, labels): (usize, Option<&[u8]>),
        classes: Option<Vec<String>>,
        rates: Rates,
    ) -> Result<Report, Error> {
        let Subject { options, task, imported, placements, ref refusal } = *subject;
        let chosen = &imported.chosen;
        let (graph, model) = (&chosen.model.graph, &chosen.model);
        let count = labels_of(&imported.real);
        if let (Some(path), Some(names)) = (&options.classes, &classes)
            && names.len() != count
        {
            let what = format!("has {} names, and the first output has {count} classes", names.len());
            return Err(Error::Model { path: path.clone(), what });
        }
        let refused = |e: String| Error::Model { path: task.model.clone(), what: e };
        let cost = |architecture: &Architecture| {
            Cost::of(architecture, |_, _| OT_PARAMETER).map_err(|e| refused(e.to_string()))
        };
        let multiply = estimate::multiply(model);
        let names: Vec<&str> = graph.layers().map(|layer| layer.name).collect();
        let mut totals = Vec::new();
        let mut rows = Vec::new();
        let mut and_gates = 0;
        for servers in options.sizes() {
            let own = servers == task.servers;
            let placements = match own {
                true => placements.to_vec(),
                // Servers that are named may be none of a smaller cluster, which then has no column.
                false => match placement::placements(&names, &SplitOptions { servers, ..task.clone() }) {
                    Ok(placements) => placements,
                    Err(_) => continue,
                },
            };
            let architecture =
                model.architecture(servers, &placements).map_err(|e| refused(e.to_string()))?;
            let cost = cost(&architecture)?;
            if own {
                rows = layers::layers(imported, evidence, &cost);
            }
            and_gates = cost.counts.and_gates;
            totals.push(Totals::new(&architecture, &cost, &rates, &multiply));
        }
        let samples = evidence.samples.len();
        let found = evidence.comparison.fidelity;
        let accuracy = |which: usize| {
            let labels = labels.filter(|labels| labels.iter().all(|&label| usize::from(label) < count))?;
            let right = evidence.samples.iter().zip(&evidence.comparison.labels);
            let right = right.filter(|(sample, both)| {
                labels.get(**sample).copied().map(usize::from) == both.get(which).copied()
            });
            Some(right.count() as f64 / samples.max(1) as f64)
        };
        // All inputs count that were tried here, also those that chose no numbers.
        let good = chosen.reached && found.reaches(&task.goal);
        let judged = if chosen.reached { &found } else { &chosen.fidelity };
        let mut warnings = split::warnings(chosen, judged, good, &task.goal);
        if refusal.is_some() {
            warnings.clear();
        } else if found.wrapped > 0 {
            warnings.push(format!(
                "{} sums wrapped around or were cut off on these inputs: give inputs with all values that occur, or --width worst",
                found.wrapped
            ));
        }
        if labels.is_some() && accuracy(0).is_none() {
            warnings
                .push(format!("labels beyond the {count} classes of the first output: accuracy is not told"));
        }
        Ok(Report {
            version: 1,
            model: options.model.file_stem().unwrap_or_default().to_string_lossy().into_owned(),
            file: options.model.display().to_string(),
            works: good && found.wrapped == 0 && refusal.is_none(),
            refused: refusal.clone().unwrap_or_default(),
            warnings,
            input: Input {
                shape: graph.input.shape.clone(),
                bits: graph.input.bits,
                available,
                samples,
                fewest_bits: evidence.fewest_bits,
                real_numbers: samples::told(&graph.input),
            },
            precision: Precision {
                weight_bits: chosen.precision.weight,
                activation_bits: chosen.precision.activation,
            },
            // Those of other weights say nothing.
            fidelity: refusal.is_none().then(|| Fidelity {
                same: found.same,
                agreement: found.agreement(),
                agreement_at_least: at_least(found.same, samples),
                largest_error: (!split::labels_alone(graph)).then_some(found.error),
                wrapped: found.wrapped,
                float_accuracy: accuracy(0),
                fixed_accuracy: accuracy(1),
            }),
            confusion: (count <= CLASSES && refusal.is_none())
                .then(|| confusion(&evidence.comparison.labels, count, classes)),
            macs: rows.iter().filter_map(|row| row.macs).sum(),
            relus: graph.relus() as u64,
            and_gates,
            layers: rows,
            servers: task.servers,
            gateway_layers: task.gateway_layers,
            totals,
            rates,
            next: refusal.is_none().then(|| options.next()),
        })
    }

    /// As one JSON object.
    pub fn json(&self) -> Result<String, Error> {
        serde_json::to_string(self).map_err(|e| Error::Failed(format!("the report cannot be written: {e}")))
    }
}

/// How many labels the first output has. One number says yes or no.
fn labels_of(real: &Real) -> usize {
    let Some(output) = real.outputs.first() else { return 2 };
    let all = output.shape.iter().product::<usize>();
    let row = output.shape.iter().rev().copied().find(|&size| size > 1);
    match output.last {
        // One label for each row, and the first row's is counted.
        Last::Index | Last::ArgMax | Last::Softmax | Last::LogSoftmax => row.unwrap_or(1).max(2),
        _ => all.max(2),
    }
}

fn confusion(labels: &[[usize; 2]], count: usize, classes: Option<Vec<String>>) -> Confusion {
    let mut counts = vec![vec![0; count]; count];
    for [float, fixed] in labels {
        if let Some(place) = counts.get_mut(*float).and_then(|row| row.get_mut(*fixed)) {
            *place += 1;
        }
    }
    let classes = classes.unwrap_or_else(|| (0..count).map(|class| class.to_string()).collect());
    Confusion { classes, counts }
}

/// What part of all inputs agrees at least, with 95% confidence, if these are a sample of them that nothing was fitted
/// to: Wilson's bound.
fn at_least(same: usize, samples: usize) -> f64 {
    const Z: f64 = 1.645;
    let n = samples.max(1) as f64;
    let p = same as f64 / n;
    let spread = Z * (p * (1.0 - p) / n + Z * Z / (4.0 * n * n)).sqrt();
    ((p + Z * Z / (2.0 * n) - spread) / (1.0 + Z * Z / n)).clamp(0.0, 1.0)
}

/// A line of what an inference costs, with a value for each number of servers.
pub struct Row {
    pub what: &'static str,
    /// Whether it tells more of the line before.
    pub more: bool,
    pub values: Vec<String>,
}

impl Report {
    /// What an inference costs, by number of servers.
    pub fn costs(&self) -> Vec<Row> {
        let mut rows = Vec::new();
        let mut row = |what, more, value: &dyn Fn(&Totals) -> String| {
            rows.push(Row { what, more, values: self.totals.iter().map(value).collect() });
        };
        let time = |totals: &Totals, name: &str, of: fn(&Network) -> f64| {
            let network = totals.networks.iter().find(|network| network.name == name);
            network.map_or_else(String::new, |network| seconds(of(network)))
        };
        let most = |values: &[u64]| bytes(values.iter().copied().max().unwrap_or(0));
        row("ahead: bytes between servers", false, &|t| bytes(t.preprocessing.bytes));
        row("messages in sequence", true, &|t| t.preprocessing.rounds.to_string());
        row("CPU time, all servers", true, &|t| seconds(t.preprocessing.cpu_s.iter().sum()));
        row("time, LAN", true, &|t| time(t, "lan", |n| n.preprocessing_s));
        row("time, WAN", true, &|t| time(t, "wan", |n| n.preprocessing_s));
        row("time, all on this machine", true, &|t| time(t, "loopback", |n| n.preprocessing_s));
        row("kept until used, of one server", false, &|t| most(&t.stored_bytes));
        row("online: bytes between servers", false, &|t| bytes(t.online.bytes));
        row("messages in sequence", true, &|t| t.online.rounds.to_string());
        row("CPU time, all servers", true, &|t| seconds(t.online.cpu_s.iter().sum()));
        row("time, LAN", true, &|t| time(t, "lan", |n| n.online_s));
        row("time, WAN", true, &|t| time(t, "wan", |n| n.online_s));
        row("time, all on this machine", true, &|t| time(t, "loopback", |n| n.online_s));
        row("memory of a server, making bundles", false, &|t| most(&t.memory_bytes.making));
        row("serving only", true, &|t| most(&t.memory_bytes.serving));
        row("set-up, once: bytes between servers", false, &|t| bytes(t.setup_bytes));
        rows
    }

    /// What the costs of a network that is refused are of.
    pub const OF_THE_REST: &str = "costs are of all the rest, its first input standing for each node that is refused, with \
                                   weights of usual sizes";
}

impl Fidelity {
    /// The largest difference of an answer, where it is one of numbers.
    pub fn difference(&self) -> Option<String> {
        self.largest_error.map(|error| format!("{:.2}%", error * 100.0))
    }

    /// What so many inputs could show at most, in words.
    pub fn confidence(&self) -> String {
        format!(
            "so many could show {} of all inputs at most (95% confidence), and these chose the numbers too",
            percent((self.agreement_at_least * 1000.0).floor() / 1000.0)
        )
    }
}

/// Three digits and a unit.
pub fn short(number: f64) -> String {
    let units = ["", " k", " M", " G", " T", " P"];
    let mut number = number;
    let mut unit = 0;
    while number >= 999.5 && unit + 1 < units.len() {
        number /= 1000.0;
        unit += 1;
    }
    let decimals = if unit == 0 || number >= 99.95 {
        0
    } else if number >= 9.995 {
        1
    } else {
        2
    };
    format!("{number:.decimals$}{}", units[unit])
}

/// Bytes.
pub fn bytes(number: u64) -> String {
    let text = short(number as f64);
    if text.contains(' ') { format!("{text}B") } else { format!("{text} B") }
}

/// Seconds.
pub fn seconds(number: f64) -> String {
    match number {
        n if n >= 120.0 => format!("{:.0} min", n / 60.0),
        n if n >= 9.95 => format!("{n:.0} s"),
        n if n >= 0.995 => format!("{n:.1} s"),
        n => format!("{:.0} ms", (n * 1e3).max(1.0)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_for_people() {
        assert_eq!(
            [0, 999, 1000, 1_234_567].map(crate::terminal::grouped),
            ["0", "999", "1,000", "1,234,567"]
        );
        assert_eq!(
            [0.0, 999.0, 1000.0, 12_345.0, 999_999.0].map(short),
            ["0", "999", "1.00 k", "12.3 k", "1.00 M"]
        );
        assert_eq!([17, 1_500_000].map(bytes), ["17 B", "1.50 MB"]);
        assert_eq!(
            [0.0001, 0.25, 2.04, 61.0, 300.0].map(seconds),
            ["1 ms", "250 ms", "2.0 s", "61 s", "5 min"]
        );
        assert_eq!([1.0, 0.985].map(crate::terminal::percent), ["100%", "98.5%"]);
    }

    #[test]
    fn few_samples_show_little() {
        assert!((at_least(20, 20) - 0.8808).abs() < 1e-3);
        assert!(at_least(500, 500) > 0.994 && at_least(1, 1) < 0.5 && at_least(0, 0) >= 0.0);
    }
}
