//! `seco-infer`: private predictions from the command line of a Raspberry Pi or the like.

mod format;
mod options;
mod watch;

use std::error::Error;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use options::{Command, Options};
use seco_sdk::{Client, Cost, Deployment, FileStore, Prediction};
use serde_json::json;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

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
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("seco-infer: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Whether all inputs were answered.
fn run(options: &Options) -> Result<bool> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build()?;
    runtime.block_on(async {
        let deployment = Deployment::from_file(&options.deployment)?;
        let mut builder = Client::builder(deployment).transport(options.transport);
        if let Some(session) = &options.session {
            builder = builder.session_store(Arc::new(FileStore::new(session)));
        }
        let client = builder.connect().await?;
        let mut all = true;
        for path in &options.inputs {
            all &= file(&client, path, options.json).await;
        }
        if let Some(folder) = &options.watch {
            // Runs until it is killed; a session in a file is whole at any moment.
            watch::watch(folder, async |path: &Path| {
                file(&client, path, options.json).await;
            })
            .await?;
        }
        client.close().await;
        Ok(all)
    })
}

/// Asks about every input in one file. Whether all were answered.
async fn file(client: &Client, path: &Path, as_json: bool) -> bool {
    let inputs = std::fs::read(path).map_err(Into::into);
    let inputs = match inputs.and_then(|bytes| format::inputs(&bytes, client.model().input_len)) {
        Ok(inputs) => inputs,
        Err(error) => {
            eprintln!("seco-infer: {}: {error}", path.display());
            return false;
        }
    };
    let mut all = true;
    for (index, input) in inputs.iter().enumerate() {
        match client.infer(input).await {
            Ok(prediction) => {
                let line = line(path, index, inputs.len(), &prediction, client.last_cost(), as_json);
                println!("{line}");
            }
            Err(error) => {
                eprintln!("seco-infer: {}, input {index}: {error}", path.display());
                all = false;
            }
        }
    }
    all
}

fn line(path: &Path, index: usize, of: usize, answer: &Prediction, cost: Cost, as_json: bool) -> String {
    let microseconds = cost.wall.as_micros();
    if as_json {
        return json!({
            "file": path.to_string_lossy(), "index": index, "label": answer.label,
            "logits": answer.logits, "fraction": answer.fraction,
            "bytes_up": cost.bytes_up, "bytes_down": cost.bytes_down,
            "cpu_us": cost.cpu.map(|cpu| cpu.as_micros() as u64), "wall_us": microseconds as u64,
        })
        .to_string();
    }
    let which = if of == 1 { String::new() } else { format!("[{index}]") };
    let cpu = cost.cpu.map_or(String::new(), |cpu| format!(", {} us CPU", cpu.as_micros()));
    format!(
        "{}{which}: {}   ({} B up, {} B down{cpu}, {} ms)",
        path.display(),
        answer.label,
        cost.bytes_up,
        cost.bytes_down,
        microseconds / 1000
    )
}
