//! The command line.

use std::path::PathBuf;

use lexopt::prelude::*;
use seco_sdk::Transport;

pub const HELP: &str =
    "Private predictions: no server sees the input, what the network makes of it, or the answer.

Usage: seco-infer --deployment FILE [OPTIONS] [INPUT...]

Inputs are files of bytes: .npy (uint8, first axis the samples), .pgm, .ppm (binary, 8 bits), or raw
bytes as the model takes them. Images must have the model's height and width. An .npy of other numbers
(float32, float64, integers, bool) is taken where the deployment file says by `quantise` how they
become the model's values, or where they are whole numbers that the model's inputs hold. Of a model whose
values have more than 8 bits raw files have two bytes for each, the lower one first, and .npy may be uint16.

Options:
      --deployment FILE   Gateway, servers, keys and models
      --model NAME        Which model to ask, where the file names several
      --session FILE      Keeps the session here, so that the next start opens no new one. Secret, so leave it
                          out of backups; several processes may use it
      --watch DIR         Then asks about every file that comes to DIR, until killed
      --transport NAME    auto (QUIC, and TCP where a network blocks UDP), quic or tcp [default: auto]
      --json              One JSON object per line
      --log               Says on standard error what the client does, and nothing of inputs and answers
  -h, --help
  -V, --version

Exit codes: 0 all answered, 1 a file or setting cannot be used or the servers refuse, 2 wrong command line,
3 the servers gave no answer and may give one later";

pub struct Options {
    pub deployment: PathBuf,
    pub model: Option<String>,
    pub session: Option<PathBuf>,
    pub watch: Option<PathBuf>,
    pub transport: Transport,
    pub json: bool,
    pub log: bool,
    pub inputs: Vec<PathBuf>,
}

pub enum Command {
    Run(Options),
    Help,
    Version,
}

pub fn parse(mut parser: lexopt::Parser) -> Result<Command, lexopt::Error> {
    let (mut deployment, mut model, mut session, mut watch) = (None, None, None, None);
    let (mut transport, mut json, mut log, mut inputs) = (Transport::Auto, false, false, Vec::new());
    while let Some(argument) = parser.next()? {
        match argument {
            Long("deployment") => deployment = Some(parser.value()?.into()),
            Long("model") => model = Some(parser.value()?.string()?),
            Long("session") => session = Some(parser.value()?.into()),
            Long("watch") => watch = Some(parser.value()?.into()),
            Long("transport") => {
                transport = match parser.value()?.string()?.as_str() {
                    "auto" => Transport::Auto,
                    "quic" => Transport::Quic,
                    "tcp" => Transport::Tcp,
                    other => return Err(format!("no transport is called {other:?}").into()),
                }
            }
            Long("json") => json = true,
            Long("log") => log = true,
            Short('h') | Long("help") => return Ok(Command::Help),
            Short('V') | Long("version") => return Ok(Command::Version),
            Value(input) => inputs.push(input.into()),
            _ => return Err(argument.unexpected()),
        }
    }
    let deployment = deployment.ok_or("--deployment is missing")?;
    if inputs.is_empty() && watch.is_none() {
        return Err("no input".into());
    }
    Ok(Command::Run(Options { deployment, model, session, watch, transport, json, log, inputs }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(arguments: &[&str]) -> Result<Command, lexopt::Error> {
        parse(lexopt::Parser::from_args(arguments))
    }

    #[test]
    fn options_are_read_and_mistakes_named() {
        let Ok(Command::Run(options)) = parsed(&[
            "--deployment",
            "d.toml",
            "--model=a b",
            "--transport=tcp",
            "--json",
            "--log",
            "a.pgm",
            "b.npy",
        ]) else {
            panic!("refused");
        };
        assert_eq!((options.inputs.len(), options.transport), (2, Transport::Tcp));
        assert!(options.json && options.log && options.model.as_deref() == Some("a b"));
        for wrong in [
            &["a.pgm"][..],
            &["--deployment"],
            &["--deployment", "d"],
            &["--deployment", "d", "--transport", "udp", "a"],
            &["--deployment", "d", "--unknown", "a"],
        ] {
            assert!(parsed(wrong).is_err(), "{wrong:?}");
        }
    }
}
