//! `seco infer`: a device on the command line.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use seco_sdk::npy::Array;
use seco_sdk::{Answer, Client, Deployment, Kind, Prediction, Quantise, shape};
use serde::Serialize;
use tokio::time::{Instant, timeout};
use zeroize::Zeroizing;

use crate::terminal::{self, Ink};
use crate::{Error, interrupt, token};

/// A request has its own time limit; this long after it something is wrong.
const GRACE: Duration = Duration::from_secs(5);

/// What `seco infer` is asked for.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// The deployment file of the cluster.
    #[arg(long, value_name = "FILE")]
    pub deployment: PathBuf,
    /// Which model is asked, where the file names several.
    #[arg(long, value_name = "NAME")]
    pub model: Option<String>,
    /// Inputs, first axis the samples: uint8, uint16 for a model whose values have more than 8 bits, or other numbers as the
    /// deployment file says. Where that says what real numbers values stand for, uint8 and such uint16 are values all the
    /// same: convert numbers with astype(numpy.float32).
    #[arg(long, value_name = "FILE.npy")]
    pub input: PathBuf,
    /// Says that integers are meant as the model's input values where these stand for real numbers, which is warned of
    /// otherwise.
    #[arg(long)]
    pub values: bool,
    /// Only this sample, counted from 0.
    #[arg(long, value_name = "I", conflicts_with = "count")]
    pub index: Option<usize>,
    /// The first M samples [default: all].
    #[arg(long, value_name = "M")]
    pub count: Option<usize>,
    /// Seconds that a request may take: a wait for a bundle, and outages of servers, which are waited for.
    #[arg(long, value_name = "S", default_value_t = 120, value_parser = clap::value_parser!(u16).range(1..))]
    pub timeout: u16,
    /// A file with the token that the gateway asks for, from its operator.
    #[arg(long, value_name = "FILE")]
    pub token: Option<PathBuf>,
    /// Prints one JSON object and nothing else.
    #[arg(long)]
    pub json: bool,
}

/// One prediction.
#[derive(Serialize)]
struct Line<'p> {
    index: usize,
    /// Of a network with one output, which is no class, nothing.
    label: Option<usize>,
    /// The label's name, if it has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    class: Option<&'p str>,
    /// The one output of such a network.
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<f64>,
    /// All that is to tell of each output.
    outputs: Vec<Answer<'p>>,
    /// The same as integers, of which the deployment file tells the scale.
    logits: &'p [i32],
    /// Whether the input has values beyond the calibrated ones.
    outside_calibration: bool,
    online_ms: f64,
}

impl<'p> Line<'p> {
    fn new((index, prediction, online_ms): &'p (usize, Prediction, f64)) -> Self {
        let value = only_value(prediction);
        let is_class = prediction.kind() != Kind::Values || value.is_none();
        Self {
            index: *index,
            label: is_class.then_some(prediction.label),
            class: prediction.class_name(),
            value,
            outputs: prediction.answers().collect(),
            logits: &prediction.logits,
            outside_calibration: prediction.outside_calibration,
            online_ms: *online_ms,
        }
    }
}

/// Runs the command.
pub fn run(options: &Options) -> Result<(), Error> {
    let bad = |what: String| Error::Model { path: options.input.clone(), what };
    let file = Zeroizing::new(fs::read(&options.input).map_err(|e| Error::read(&options.input, e))?);
    let array = Array::read(&file).map_err(|e| bad(e.to_string()))?;
    let available = array.axes().first().copied().unwrap_or_default();
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
            result = ask(options, chosen, &array) => result,
            () = interrupted.wait() => Err(Error::Interrupted),
        }
    });
    // A look-up of a name that nobody answers would keep the runtime.
    runtime.shutdown_background();
    result
}

async fn ask(options: &Options, chosen: std::ops::Range<usize>, array: &Array<'_>) -> Result<(), Error> {
    let read = Deployment::from_file(&options.deployment);
    let deployment = read
        .and_then(|whole| whole.select(options.model.as_deref()))
        .map_err(|e| Error::Failed(format!("{}: {e}", options.deployment.display())))?;
    let (shape, bits) = (deployment.model.input_shape.clone(), deployment.model.input_bits);
    let mismatch = |what: String| Error::Model { path: options.input.clone(), what };
    shape::inputs(&shape, array.axes()).map_err(|e| mismatch(e.to_string()))?;
    let inputs = array.inputs(&deployment.model).map_err(|e| mismatch(e.to_string()))?;
    if let Some(by) = deployment.model.quantise.as_ref().filter(|_| !options.values)
        && array.are_values(&deployment.model)
        && let Some(warning) = taken_for_values(by, bits)
    {
        terminal::note(&format!("warning: {}: {warning}", options.input.display()));
    }
    let limit = Duration::from_secs(options.timeout.into());
    let token = options.token.as_deref().map(token::read).transpose()?;
    let builder = Client::builder(deployment).request_timeout(limit);
    let builder = token.into_iter().fold(builder, seco_sdk::ClientBuilder::token);
    let client = limited(limit, builder.connect()).await?;
    let mut told = Vec::new();
    for (index, input) in inputs.iter().enumerate().filter(|(index, _)| chosen.contains(index)) {
        let start = Instant::now();
        let prediction = limited(limit, client.infer_quantised(input, |_| {})).await?;
        let online_ms = start.elapsed().as_secs_f64() * 1000.0;
        if options.json {
            told.push((index, prediction, online_ms));
        } else {
            let mut text = vec![
                format!("sample {index}"),
                conclusion(&prediction),
                format!("online      {online_ms:.1} ms"),
            ];
            if prediction.outside_calibration {
                text.push("warning     values beyond the calibrated range: this may be wrong".to_owned());
            }
            let picture =
                terminal::picture(&shape, &shown(&input.bytes, bits), Ink::detect()).unwrap_or_default();
            terminal::print(&terminal::beside(&picture, &text));
        }
    }
    if options.json {
        let lines: Vec<_> = told.iter().map(Line::new).collect();
        terminal::print(&serde_json::json!({ "predictions": lines }).to_string());
    }
    Ok(())
}

/// What integers are taken for by a model whose values of so many bits stand for real numbers, if these are others.
fn taken_for_values(by: &Quantise, bits: u32) -> Option<String> {
    let most = 2f64.powi(bits as i32) - 1.0;
    let stand_for = match (by.scale.as_slice(), by.offset.as_slice()) {
        ([1.0], [0.0]) => return None,
        // As many digits as anybody wants to read.
        ([scale], [least]) => format!("{} to {}", *least as f32, (least + scale * most) as f32),
        _ => "a range for each place of the first axis".to_owned(),
    };
    Some(format!(
        "its integers are taken for the model's values, 0 to {most}, which stand for real numbers ({stand_for}): convert \
         numbers with astype(numpy.float32), or say --values if values are meant"
    ))
}

/// A byte for each value of so many bits: of those with more than eight the upper ones.
fn shown(input: &[u8], bits: u32) -> Zeroizing<Vec<u8>> {
    Zeroizing::new(match bits.checked_sub(u8::BITS) {
        None | Some(0) => input.to_vec(),
        Some(more) => {
            let words = input.as_chunks().0.iter();
            words.map(|word| (u16::from_le_bytes(*word) >> more.min(15)) as u8).collect()
        }
    })
}

/// The value of a network that has one output.
fn only_value(prediction: &Prediction) -> Option<f64> {
    match prediction.values().concat()[..] {
        [value] => Some(value),
        _ => None,
    }
}

/// What the network says, for people: its classes, or its numbers.
pub fn conclusion(prediction: &Prediction) -> String {
    let what = if prediction.kind() == Kind::Values { "value       " } else { "predicted   " };
    format!("{what}{prediction}")
}

async fn limited<T>(
    limit: Duration,
    work: impl Future<Output = Result<T, seco_sdk::Error>>,
) -> Result<T, Error> {
    match timeout(limit + GRACE, work).await {
        Ok(result) => result.map_err(|e| Error::Failed(e.to_string())),
        Err(_) => Err(Error::Failed(format!(
            "the gateway did not answer within {} s: is it running, and reached at the address of --deployment?",
            limit.as_secs()
        ))),
    }
}
