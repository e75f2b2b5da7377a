//! The log: lines for people or JSON for programs, on standard error, and a filter that can be changed.

use std::io::IsTerminal as _;

use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer as _, Registry, fmt, reload};

/// How a line of the log looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line, with the job that it is about in `span`.
    Json,
}

/// Says which lines are written. Clones are one.
#[derive(Clone, Debug)]
pub struct Filter(reload::Handle<EnvFilter, Registry>);

/// Starts the log of this process, once. The variable `SECO_LOG` is the filter, or else `usual`.
pub fn start(format: Format, usual: &str) -> Filter {
    let filter = EnvFilter::try_from_env("SECO_LOG").unwrap_or_else(|_| EnvFilter::new(usual));
    let (filter, handle) = reload::Layer::new(filter);
    let lines = fmt::layer().with_writer(std::io::stderr).with_target(false);
    let lines = match format {
        Format::Text => lines.with_ansi(std::io::stderr().is_terminal()).boxed(),
        Format::Json => {
            lines.with_ansi(false).json().flatten_event(true).with_span_list(false).with_target(true).boxed()
        }
    };
    // Fails where the process has a log already, which then stays.
    let _ = tracing_subscriber::registry().with(filter).with(lines).try_init();
    Filter(handle)
}

impl Filter {
    /// Changes it, from the next line on.
    ///
    /// # Errors
    /// What is wrong with the text; the filter stays what it was.
    pub fn set(&self, text: &str) -> Result<(), String> {
        let filter = EnvFilter::try_new(text).map_err(|error| format!("filter {text:?}: {error}"))?;
        self.0.reload(filter).map_err(|error| error.to_string())
    }

    /// What it is.
    pub fn text(&self) -> String {
        self.0.with_current(EnvFilter::to_string).unwrap_or_default()
    }
}
