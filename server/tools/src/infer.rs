//! `seco infer`: a device on the command line.

use std::path::PathBuf;
use std::time::Duration;

use seco_sdk::{Client, Deployment, Kind, Prediction, shape};
use serde::Serialize;
use tokio::time::{Instant, timeout};

use crate::samples;
use crate::terminal::{self, Ink};
use crate::{Error, interrupt};

/// The gateway's own time limits come first; this one is for a gateway that is silent.
const LIMIT: Duration = Duration::from_secs(120);

/// What `seco infer` is asked for.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// The deployment file of the cluster.
    #[arg(long, value_name = "FILE")]
    pub deployment: PathBuf,
    /// Inputs: uint8, first axis the samples.
    #[arg(long, value_name = "FILE.npy")]
    pub input: PathBuf,
    /// Only this sample, counted from 0.
    #[arg(long, value_name = "I", conflicts_with = "count")]
    pub index: Option<usize>,
    /// The first M samples [default: all].
    #[arg(long, value_name = "M")]
    pub count: Option<usize>,
    /// Prints one JSON object and nothing else.
    #[arg(long)]
    pub json: bool,
}

/// One prediction.
#[derive(Serialize)]
struct Line {
    index: usize,
    /// Of a network with one output, which is no class, nothing.
    label: Option<usize>,
    /// The label's name, if it has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    class: Option<String>,
    /// The one output of such a network.
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<f64>,
    /// The network's numbers by output.
    outputs: Vec<Answer>,
    /// The same as integers, of which the deployment file tells the scale.
    logits: Vec<i32>,
    /// Whether the input has values beyond the calibrated ones.
    outside_calibration: bool,
    online_ms: f64,
}

/// One output of a prediction.
#[derive(Serialize)]
struct Answer {
    name: String,
    /// Before what the network does last.
    values: Vec<f64>,
    /// After a softmax or a sigmoid, if that is what it does last.
    #[serde(skip_serializing_if = "Option::is_none")]
    probabilities: Option<Vec<f64>>,
}

/// Runs the command.
pub fn run(options: &Options) -> Result<(), Error> {
    let (values, shape) = samples::inputs(&options.input)?;
    let available = shape.first().copied().unwrap_or_default();
    let bad = |what: String| Error::Model { path: options.input.clone(), what };
    let chosen = match (options.index, options.count) {
        (Some(index), _) if index < available => index..index + 1,
        (Some(index), _) => return Err(bad(format!("has {available} samples; there is no --index {index}"))),
        (None, None) => 0..available,
        (None, Some(count)) if (1..=available).contains(&count) => 0..count,
        (None, Some(count)) => {
            return Err(bad(format!(
                "has {available} samples; --count {count} is not from 1 to {available}"
            )));
        }
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|_| Error::no_runtime())?;
    let result = runtime.block_on(async {
        let mut interrupted = interrupt::listen()?;
        tokio::select! {
            result = ask(options, chosen, &values, &shape) => result,
            () = interrupted.wait() => Err(Error::Interrupted),
        }
    });
    // A look-up of a name that nobody answers would keep the runtime.
    runtime.shutdown_background();
    result
}

async fn ask(
    options: &Options,
    chosen: std::ops::Range<usize>,
    values: &[u8],
    axes: &[usize],
) -> Result<(), Error> {
    let deployment = Deployment::from_file(&options.deployment)
        .map_err(|e| Error::Failed(format!("{}: {e}", options.deployment.display())))?;
    let shape = deployment.model.input_shape.clone();
    let mismatch = |what: String| Error::Model { path: options.input.clone(), what };
    shape::inputs(&shape, axes).map_err(|e| mismatch(e.to_string()))?;
    let size = shape.iter().product::<usize>();
    let builder = Client::builder(deployment).request_timeout(LIMIT);
    let client = limited(builder.connect()).await?;
    let mut lines = Vec::new();
    for index in chosen {
        let input = values.get(index * size..(index + 1) * size).unwrap_or_default();
        let start = Instant::now();
        let prediction = limited(client.infer(input)).await?;
        let online_ms = start.elapsed().as_secs_f64() * 1000.0;
        if options.json {
            let outside_calibration = prediction.outside_calibration;
            let value = only_value(&prediction);
            let label = (prediction.kind() != Kind::Values || value.is_none()).then_some(prediction.label);
            let class = prediction.class_name().map(str::to_owned);
            let outputs = prediction.answers().map(|answer| Answer {
                name: answer.output.name.clone(),
                values: answer.values(),
                probabilities: answer.probabilities(),
            });
            let outputs = outputs.collect();
            lines.push(Line {
                index,
                label,
                class,
                value,
                outputs,
                logits: prediction.logits,
                outside_calibration,
                online_ms,
            });
        } else {
            let mut text = vec![
                format!("sample {index}"),
                conclusion(&prediction),
                format!("online      {online_ms:.1} ms"),
            ];
            if prediction.outside_calibration {
                text.push("warning     values beyond the calibrated range: this may be wrong".to_owned());
            }
            let picture = terminal::picture(&shape, input, Ink::detect()).unwrap_or_default();
            terminal::print(&terminal::beside(&picture, &text));
        }
    }
    if options.json {
        terminal::print(&serde_json::json!({ "predictions": lines }).to_string());
    }
    Ok(())
}

/// The value of a network that has one output.
fn only_value(prediction: &Prediction) -> Option<f64> {
    match prediction.values().concat()[..] {
        [value] => Some(value),
        _ => None,
    }
}

/// What the network says, for people: a class, or the value of a network that has one output.
pub fn conclusion(prediction: &Prediction) -> String {
    match (prediction.kind(), only_value(prediction)) {
        (Kind::Values, Some(value)) => format!("value       {value:.4}"),
        _ => {
            let class = prediction.class_name().map(|name| format!(" ({name})")).unwrap_or_default();
            let of_label = |all: Vec<f64>| all.get(prediction.label).copied();
            let sure = match prediction.kind() {
                Kind::Classes => prediction.probabilities().and_then(of_label),
                _ => None,
            };
            let sure = sure.map(|part| format!(", {:.1}% sure", part * 100.0)).unwrap_or_default();
            format!("predicted   {}{class}{sure}", prediction.label)
        }
    }
}

async fn limited<T>(work: impl Future<Output = Result<T, seco_sdk::Error>>) -> Result<T, Error> {
    match timeout(LIMIT, work).await {
        Ok(result) => result.map_err(|e| Error::Failed(e.to_string())),
        Err(_) => Err(Error::Failed(format!(
            "the gateway did not answer within {} s: is it running, and reached at the address of --deployment?",
            LIMIT.as_secs()
        ))),
    }
}
