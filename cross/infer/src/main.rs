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
use seco_sdk::{Client, Cost, Deployment, Event, FileStore, Kind, Model, Prediction};
use serde_json::json;
use zeroize::Zeroizing;

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
    let outcome = runtime.block_on(async {
        let deployment = Deployment::from_file(&options.deployment)?.select(options.model.as_deref())?;
        let model = deployment.model.clone();
        let mut builder = Client::builder(deployment).transport(options.transport);
        if let Some(session) = &options.session {
            builder = builder.session_store(Arc::new(FileStore::new(session)));
        }
        if options.log {
            // Where nobody reads it, the work goes on.
            let tell = |event: &Event<'_>| drop(writeln!(std::io::stderr(), "seco-infer: {event}"));
            builder = builder.log(Arc::new(tell));
        }
        let client = builder.connect().await?;
        let mut all = Outcome::Answered;
        for path in &options.inputs {
            all = all.max(file(&client, path, &model, options.json).await?);
        }
        if let Some(folder) = &options.watch {
            // Runs until it is killed; a session in a file is whole at any moment.
            watch::watch(folder, async |path: &Path| {
                // No picture is lost to a certificate that is replaced, say.
                Ok(file(&client, path, &model, options.json).await? <= Outcome::Unusable)
            })
            .await?;
        }
        client.close().await;
        Ok(all)
    });
    // A look-up of a name that nobody answers would keep the runtime.
    runtime.shutdown_background();
    outcome
}

/// Asks about every input in one file. Fails where nobody reads the answers any more.
async fn file(client: &Client, path: &Path, model: &Model, as_json: bool) -> Result<Outcome> {
    let inputs = match read(path).and_then(|bytes| format::inputs(&bytes, model)) {
        Ok(inputs) => inputs,
        Err(error) => {
            eprintln!("seco-infer: {}: {error}", path.display());
            return Ok(Outcome::Unusable);
        }
    };
    let mut outcome = Outcome::Answered;
    for (index, input) in inputs.iter().enumerate() {
        match client.infer_quantised(input, |_| {}).await {
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

fn read(path: &Path) -> Result<Zeroizing<Vec<u8>>> {
    let file = File::open(path)?;
    // At its size at once: a buffer that grows leaves pieces behind.
    let size = file.metadata()?.len().min(LONGEST);
    let mut bytes = Zeroizing::new(Vec::with_capacity(usize::try_from(size)? + 1));
    file.take(LONGEST + 1).read_to_end(&mut bytes)?;
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
            // Values are no class.
            "label": (answer.kind() != Kind::Values).then_some(answer.label), "class": answer.class_name(),
            "outputs": answer.answers().collect::<Vec<_>>(),
            "logits": answer.logits, "outside_calibration": answer.outside_calibration,
            "bytes_up": cost.bytes_up, "bytes_down": cost.bytes_down,
            "cpu_us": cost.cpu.map(|cpu| cpu.as_micros() as u64), "wall_us": microseconds as u64,
        })
        .to_string();
    }
    let which = if of == 1 { String::new() } else { format!("[{index}]") };
    let cpu = cost.cpu.map_or(String::new(), |cpu| format!(", {} us CPU", cpu.as_micros()));
    let doubt = if answer.outside_calibration { ", beyond the calibrated range: may be wrong" } else { "" };
    format!(
        "{}{which}: {answer}   ({} B up, {} B down{cpu}, {} ms{doubt})",
        path.display(),
        cost.bytes_up,
        cost.bytes_down,
        microseconds / 1000
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use seco_sdk::{Last, Output};

    fn outputs(shapes: &[&[usize]], last: Last, classes: &[&str]) -> Arc<[Output]> {
        let output = |(i, shape): (usize, &&[usize])| Output {
            name: format!("out{i}"),
            shape: shape.to_vec(),
            scale: 0.5,
            last,
            classes: if i == 0 { classes.iter().map(ToString::to_string).collect() } else { Vec::new() },
        };
        shapes.iter().enumerate().map(output).collect()
    }

    fn told(logits: &[i32], label: usize, outputs: Arc<[Output]>, as_json: bool) -> String {
        let answer = Prediction { logits: logits.into(), label, outside_calibration: as_json, outputs };
        line(Path::new("a.npy"), 0, 1, &answer, Cost::default(), as_json)
    }

    #[test]
    fn a_line_tells_a_class_or_numbers() {
        for (logits, label, shape, last, classes, said) in [
            (&[5, 3][..], 0, &[2][..], Last::None, &[][..], "0"),
            (&[5, 3], 0, &[2], Last::None, &["cat", "dog"], "cat"),
            (&[5, 3], 0, &[2], Last::Softmax, &["cat", "dog"], "cat (73.1%)"),
            (&[5], 1, &[1], Last::Sigmoid, &[], "1 (92.4%)"),
            (&[-5], 0, &[1], Last::Sigmoid, &["no", "yes"], "no (92.4%)"),
            (&[5], 0, &[1], Last::None, &[], "2.5000"),
            (&[2], 0, &[1], Last::Tanh, &[], "0.7616"),
            (&[1, 2, 3, 4], 3, &[2, 2], Last::None, &[], "0.5000 1.0000 1.5000 2.0000"),
            (
                &[2; 12],
                0,
                &[2, 6],
                Last::None,
                &[],
                "1.0000 1.0000 1.0000 1.0000 1.0000 1.0000 1.0000 1.0000 and 4 more",
            ),
        ] {
            let line = told(logits, label, outputs(&[shape], last, classes), false);
            assert!(line.starts_with(&format!("a.npy: {said}   (")), "{line}");
        }
        let two = told(&[5, 3, 8], 0, outputs(&[&[2], &[1]], Last::None, &[]), false);
        assert!(two.starts_with("a.npy: out0 0; out1 4.0000   ("), "{two}");
    }

    #[test]
    fn json_tells_everything_and_a_doubt() {
        let json = |logits: &[i32], label, outputs| {
            serde_json::from_str::<serde_json::Value>(&told(logits, label, outputs, true)).unwrap()
        };
        let class = json(&[5, 3, 8], 0, outputs(&[&[2], &[1]], Last::Softmax, &["cat", "dog"]));
        assert_eq!((&class["label"], &class["class"]), (&json!(0), &json!("cat")));
        assert_eq!((&class["logits"], &class["outside_calibration"]), (&json!([5, 3, 8]), &json!(true)));
        let [first, second] = class["outputs"].as_array().unwrap().as_slice() else { panic!("{class}") };
        assert_eq!((&first["name"], &first["kind"]), (&json!("out0"), &json!("classes")));
        assert_eq!((&first["values"], &first["shape"]), (&json!([2.5, 1.5]), &json!([2])));
        assert!((first["probabilities"][0].as_f64().unwrap() - 0.731_058_578_630_004_9).abs() < 1e-12);
        assert_eq!((&second["kind"], &second["values"]), (&json!("values"), &json!([4.0])));
        assert_eq!((&second["last"], &second["finished"]), (&json!("softmax"), &json!([1.0])));
        let value = json(&[5], 0, outputs(&[&[1]], Last::None, &[]));
        assert_eq!((&value["label"], &value["outputs"][0]["probabilities"]), (&json!(null), &json!(null)));
    }
}
