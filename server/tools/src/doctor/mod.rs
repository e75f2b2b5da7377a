//! `seco doctor`: which part of the way between device, gateway and remotes does not work, and what to do.

mod device;
mod server;
mod validity;

use std::path::PathBuf;

use serde::Serialize;

use crate::{Error, terminal};

/// What `seco doctor` is asked for.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// As a server's operator: its keys, files, ports, and the way to the other servers.
    #[arg(long, value_name = "FILE", required_unless_present = "deployment")]
    config: Option<PathBuf>,
    /// As a device: the way to the gateway, and to an open session.
    #[arg(long, value_name = "FILE", conflicts_with = "config")]
    deployment: Option<PathBuf>,
    /// With --deployment: which model, where the file names several [default: the first].
    #[arg(long, value_name = "NAME", conflicts_with = "config")]
    model: Option<String>,
    /// Prints one JSON object and nothing else.
    #[arg(long)]
    json: bool,
}

/// One step of an examination.
#[derive(Clone, Debug, Serialize)]
struct Finding {
    /// What was tried.
    what: String,
    /// Whether it works; nothing where it could not be tried.
    ok: Option<bool>,
    /// What was found, and what to do where it fails.
    #[serde(skip_serializing_if = "String::is_empty")]
    told: String,
}

/// All steps so far. They are printed as they are found.
struct Findings {
    all: Vec<Finding>,
    json: bool,
}

impl Findings {
    fn add(&mut self, what: impl Into<String>, ok: Option<bool>, told: impl Into<String>) {
        let (what, told) = (what.into(), told.into());
        if !self.json {
            terminal::print(&match ok {
                Some(true) if told.is_empty() => format!("{what}: ok"),
                Some(true) => format!("{what}: ok ({told})"),
                Some(false) => format!("{what}: FAILS: {told}"),
                None => format!("{what}: not tried: {told}"),
            });
        }
        self.all.push(Finding { what, ok, told });
    }

    /// What works, with what is to tell of it, or what fails.
    fn found(&mut self, what: impl Into<String>, result: Result<impl Into<String>, impl ToString>) -> bool {
        match result {
            Ok(told) => self.add(what, Some(true), told),
            Err(error) => self.add(what, Some(false), error.to_string()),
        }
        self.all.last().is_some_and(|finding| finding.ok == Some(true))
    }
}

/// Examines, prints what was found, and fails if anything does.
pub fn run(options: &Options) -> Result<(), Error> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.map_err(|_| Error::no_runtime())?;
    let mut findings = Findings { all: Vec::new(), json: options.json };
    match (&options.config, &options.deployment) {
        (Some(config), _) => runtime.block_on(server::examine(config, &mut findings)),
        (None, Some(deployment)) => {
            runtime.block_on(device::examine(deployment, options.model.as_deref(), &mut findings));
        }
        (None, None) => return Err(Error::Usage("give --config or --deployment".to_owned())),
    }
    let failing = findings.all.iter().filter(|finding| finding.ok == Some(false)).count();
    if options.json {
        let report = serde_json::json!({ "ok": failing == 0, "findings": findings.all });
        terminal::print(&report.to_string());
    }
    match failing {
        0 => Ok(()),
        1 => Err(Error::Failed("one thing fails: see above for what to do".to_owned())),
        _ => Err(Error::Failed(format!("{failing} things fail: mend the first, and ask again"))),
    }
}
