//! `seco check`: does a network work as a private service, how exact is it, what does it cost, and what comes next.
//!
//! No server is started and no network is split. The network runs in floating point and, with the numbers that
//! `seco split` would choose, in the integers of the protocol; both see the same inputs. Bytes and messages are counted
//! from the plan of the protocol ([`seco_protocol::cost`]), QUIC's and IP's headers apart; times come from what the units of work take on
//! this machine ([`rates`]).
//!
//! # `--json`
//!
//! One object, `Report` (`report.rs`) with what it is made of; names stay. Where something does not apply it is `null`.
//!
//! A network that is refused has a report too, where something of the same shape can stand for every node that is refused:
//! of all the rest, with weights of usual sizes, for what it costs. `refused` has a line for each such node, or one for the
//! network's own numbers where those are refused; `fidelity`, `confusion` and `next` are `null`; the exit status is that of an error.
//!
//! | field | is |
//! |---|---|
//! | `version` | of these fields: 1 |
//! | `model`, `file` | name of the file without its ending, and all of it |
//! | `works` | whether answers are as near to the float network's as was asked for |
//! | `refused` | lines about what is refused; none of a network that is not |
//! | `warnings` | lines about what may make answers wrong |
//! | `input` | `shape`, `bits` of a value, `available` samples, `samples` used here; of more than 8 bits and of real numbers `fewest_bits`, 8 or more, with which the float network's answers stay as near to its own as was asked for; `real_numbers`, what values stand for, in words, where they are not all there is |
//! | `precision` | `weight_bits` (the sign apart), `activation_bits` |
//! | `fidelity` | `same` samples with the float network's label and that as `agreement`; `agreement_at_least`, what so many could show of other inputs with 95% confidence if they had not chosen the numbers too; `largest_error` of a number of an answer, in parts of the float network's largest; `wrapped` sums, or cut off; with labels, `float_accuracy` and `fixed_accuracy` |
//! | `confusion` | of the first output: `classes`, and `counts` by float label, by fixed label |
//! | `macs`, `relus`, `and_gates` | of one inference |
//! | `layers` | in order: `name`, `kind` (`linear`, `relu` or `answer`), `shape`, `macs`, `rounding` of a layer's weights (each to `nearest`, or `compensated`, for what the layer makes of inputs like the calibration's), `scale` (what an integer is worth; of channels whose gain is 1), `width` (bits), `least`, `largest` (integers seen), `used_bits`, `worst_bits`, `headroom_bits`, `clamped` (whether other inputs may make it less than its shift allows, where it is cut off), `relus`, `and_gates`, `ciphertexts_in`, `ciphertexts_out`, `products`, `bytes` ahead and `online_bytes`, with `servers` servers |
//! | `servers`, `gateway_layers` | that the layers' figures and `next` are for |
//! | `totals` | for 2, 3, 4 and `servers` servers: see below |
//! | `rates` | CPU-seconds by unit of work, `measured` or not |
//! | `next` | the command that deploys it |
//!
//! A member of `totals` has `servers`; `setup_bytes`; `preprocessing` and `online`, each with `bytes` of messages on all
//! links, `bytes_by_kind`, `bytes_sent` by server, `rounds` (messages in sequence; online with the device's request and
//! answer), `cpu_s` by server; `stored_bytes` of a bundle by server; `memory_bytes` by server, `making` and `serving`
//! (see `estimate.rs`); and `networks`: `lan`, `wan` and `loopback` (all servers on this machine), each with
//! `latency_ms` one way, `bits_per_s`, `preprocessing_s` and `online_s`.

mod estimate;
mod evidence;
pub mod html;
mod layers;
mod options;
pub mod rates;
mod report;
mod survey;
mod text;

use std::fs;
use std::path::Path;

use seco_model::Architecture;
use seco_protocol::OT_PARAMETER;
use seco_protocol::cost::Cost;

use self::evidence::Evidence;
pub use self::options::Options;
use self::rates::Rates;
use self::report::Report;
use crate::samples;
use crate::{Error, placement, split, terminal};

/// Samples that are enough.
const SAMPLES: usize = 500;

/// Measures the rates of this machine, for ReLUs of so many bits and clusters of these sizes; says why it cannot.
pub type Measure<'a> = &'a dyn Fn(u32, &[usize]) -> Result<Rates, String>;

/// Runs the command. Without a way to `measure`, rates are those of another machine.
pub fn run(options: &Options, measure: Option<Measure<'_>>) -> Result<(), Error> {
    let task = options.task();
    // Before minutes of work.
    options.report.as_deref().map_or(Ok(()), seco_node::private::writable)?;
    let classes = options.classes.as_deref().map(split::class_names).transpose()?;
    let mut inputs = samples::values(&options.input, task.input_bits)?;
    let available = inputs.axes.first().copied().unwrap_or_default();
    let labels = options.labels.as_deref().map(|path| samples::read_labels(path, available)).transpose()?;
    let (imported, refused) = match split::import_of(&task, &mut inputs) {
        Ok(imported) => (imported, None),
        Err(error) if is_about(&error, &task.model) => match survey::survey_of(&task, &mut inputs) {
            Ok((imported, all)) => (imported, Some((error, all))),
            Err(_) => return Err(error),
        },
        Err(error) => return Err(error),
    };
    let names: Vec<&str> = imported.chosen.model.graph.layers().map(|layer| layer.name).collect();
    let placements = placement::placements(&names, &task)?;
    let indices: Vec<usize> = (0..available).collect();
    let judges = seco_model::numbers::judges(&imported.real).min(SAMPLES);
    let count = if refused.is_some() { 1 } else { judges };
    let used = seco_model::numbers::spread(&indices, count);
    let wrong = |e: seco_model::Error| Error::Model { path: options.input.clone(), what: e.to_string() };
    let evidence = Evidence::gather(&imported, inputs.given(), &used, &task.goal).map_err(wrong)?;
    let rates = match measure.filter(|_| !options.no_bench) {
        None => Rates::default(),
        Some(measure) => {
            terminal::note("seco: measuring this machine, a few seconds");
            let width = layers::typical_width(&imported.chosen.model.graph);
            measure(width, &options.sizes()).map_err(Error::Failed)?
        }
    };
    let refusal = refused.as_ref().map(|(error, all)| match all.as_slice() {
        [] => vec![error.to_string()],
        all => all.to_vec(),
    });
    let subject =
        report::Subject { options, task: &task, imported: &imported, placements: &placements, refusal };
    let report = Report::new(&subject, &evidence, (available, labels.as_deref()), classes, rates)?;
    if let Some(path) = &options.report {
        fs::write(path, html::page(&report)).map_err(|e| Error::write(path, e))?;
    }
    terminal::print(&if options.json {
        report.json()?
    } else {
        text::page(&report, options.report.as_deref())
    });
    refused.map_or(Ok(()), |(error, _)| Err(error))
}

/// Whether an error is about a network in this file, and not about its form.
fn is_about(error: &Error, model: &Path) -> bool {
    matches!(error, Error::Model { path, what } if path == model && !what.starts_with("ONNX model"))
}

/// What an inference costs, in a line; nothing for what no cluster can serve, which is told elsewhere.
pub fn short(architecture: &Architecture) -> Option<String> {
    let cost = Cost::of(architecture, |_, _| OT_PARAMETER).ok()?;
    let most = cost.parts.iter().map(|part| part.storage_bytes).max().unwrap_or(0);
    Some(format!(
        "an inference: {} between servers ahead, {} online, {} messages in sequence; {} kept by a server",
        report::bytes(cost.traffic.total(false)),
        report::bytes(cost.traffic.total(true)),
        cost.rounds() + 2,
        report::bytes(most)
    ))
}
