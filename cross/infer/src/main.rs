//! `seco-infer`: private predictions from the command line of a Raspberry Pi or the like.

mod format;
mod options;
mod watch;

use std::error::Error;
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use options::{Command, Options};
use seco_sdk::{Client, Cost, Deployment, FileStore, Prediction};
use serde_json::json;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// Bytes of the largest file that is read.
const LONGEST: u64 = 1 << 28;

/// Exit code where asking again may help.
const UNANSWERED: u8 = 3;

/// What became of a file, in the order of what the exit code tells of several.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Outcome {
    Answered,
    /// It holds no input for this model.
    Unusable,
    /// The servers gave no answer, for a reason that somebody has to remove.
    Refused,
    /// The servers gave no answer; they may later.
    Unanswered,
}

fn main() -> ExitCode {
    let options = match options::parse(lexopt::Parser::from_env()) {
        Ok(Command::Run(options)) => options,
        Ok(Command::Help) => {
            println!("{}", options::HELP);
            return ExitCode::SUCCESS;
        }
        Ok(Command::Version) => {
            println!("seco-infer {}", env!("CARGO_PKG_VERSION"));
            return ExitCode::SUCCESS;
        }
        Err(error) => {
            eprintln!("seco-infer: {error}; see seco-infer --help");
            return ExitCode::from(2);
        }
    };
    match run(&options) {
        Ok(Outcome::Answered) => ExitCode::SUCCESS,
        Ok(Outcome::Unusable | Outcome::Refused) => ExitCode::FAILURE,
        Ok(Outcome::Unanswered) => ExitCode::from(UNANSWERED),
        Err(error) => {
            eprintln!("seco-infer: {error}");
            match error.downcast_ref::<seco_sdk::Error>() {
                Some(error) if error.is_temporary() => ExitCode::from(UNANSWERED),
                _ => ExitCode::FAILURE,
            }
        }
    }
}

fn run(options: &Options) -> Result<Outcome> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build()?;
    runtime.block_on(async {
        let deployment = Deployment::from_file(&options.deployment)?;
        let shape = deployment.model.input_shape.clone();
        let mut builder = Client::builder(deployment).transport(options.transport);
        if let Some(session) = &options.session {
            builder = builder.session_store(Arc::new(FileStore::new(session)));
        }
        let client = builder.connect().await?;
        let mut all = Outcome::Answered;
        for path in &options.inputs {
            all = all.max(file(&client, path, &shape, options.json).await?);
        }
        if let Some(folder) = &options.watch {
            // Runs until it is killed; a session in a file is whole at any moment.
            watch::watch(folder, async |path: &Path| {
                // No picture is lost to a certificate that is replaced, say.
                Ok(file(&client, path, &shape, options.json).await? <= Outcome::Unusable)
            })
            .await?;
        }
        client.close().await;
        Ok(all)
    })
}

/// Asks about every input in one file. Fails where nobody reads the answers any more.
async fn file(client: &Client, path: &Path, shape: &[usize], as_json: bool) -> Result<Outcome> {
    let inputs = match read(path).and_then(|bytes| format::inputs(&bytes, shape)) {
        Ok(inputs) => inputs,
        Err(error) => {
            eprintln!("seco-infer: {}: {error}", path.display());
            return Ok(Outcome::Unusable);
        }
    };
    let mut outcome = Outcome::Answered;
    for (index, input) in inputs.iter().enumerate() {
        match client.infer(input).await {
            Ok(prediction) => {
                let line = line(path, index, inputs.len(), &prediction, client.last_cost(), as_json);
                writeln!(std::io::stdout(), "{line}")?;
            }
            Err(error) => {
                eprintln!("seco-infer: {}, input {index}: {error}", path.display());
                let temporary = error.is_temporary();
                outcome = outcome.max(if temporary { Outcome::Unanswered } else { Outcome::Refused });
            }
        }
    }
    Ok(outcome)
}

fn read(path: &Path) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(LONGEST + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > LONGEST {
        return Err(format!("it has more than {LONGEST} bytes").into());
    }
    Ok(bytes)
}

fn line(path: &Path, index: usize, of: usize, answer: &Prediction, cost: Cost, as_json: bool) -> String {
    let microseconds = cost.wall.as_micros();
    if as_json {
        return json!({
            "file": path.to_string_lossy(), "index": index,
            // One output is a value and no class.
            "label": answer.value().is_none().then_some(answer.label), "value": answer.value(),
            "logits": answer.logits, "fraction": answer.fraction,
            "outside_calibration": answer.outside_calibration,
            "bytes_up": cost.bytes_up, "bytes_down": cost.bytes_down,
            "cpu_us": cost.cpu.map(|cpu| cpu.as_micros() as u64), "wall_us": microseconds as u64,
        })
        .to_string();
    }
    let which = if of == 1 { String::new() } else { format!("[{index}]") };
    let cpu = cost.cpu.map_or(String::new(), |cpu| format!(", {} us CPU", cpu.as_micros()));
    let said = answer.value().map_or_else(|| answer.label.to_string(), |value| format!("{value:.4}"));
    let doubt = if answer.outside_calibration { ", beyond the calibrated range: may be wrong" } else { "" };
    format!(
        "{}{which}: {said}   ({} B up, {} B down{cpu}, {} ms{doubt})",
        path.display(),
        cost.bytes_up,
        cost.bytes_down,
        microseconds / 1000
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_tells_a_class_or_a_value_and_a_doubt() {
        let told = |logits: Vec<i32>, outside_calibration, as_json| {
            let answer = Prediction { logits, fraction: 1, label: 0, outside_calibration };
            line(Path::new("a.npy"), 0, 1, &answer, Cost::default(), as_json)
        };
        assert!(told(vec![5, 3], false, false).starts_with("a.npy: 0   ("));
        assert!(told(vec![5], false, false).starts_with("a.npy: 2.5000   ("));
        assert!(told(vec![5, 3], true, false).contains("beyond the calibrated range"));
        let json = |logits, outside| {
            serde_json::from_str::<serde_json::Value>(&told(logits, outside, true)).unwrap()
        };
        let class = json(vec![5, 3], true);
        assert_eq!((&class["label"], &class["value"]), (&json!(0), &json!(null)));
        assert_eq!(class["outside_calibration"], true);
        let value = json(vec![5], false);
        assert_eq!((&value["label"], &value["value"]), (&json!(null), &json!(2.5)));
    }
}
