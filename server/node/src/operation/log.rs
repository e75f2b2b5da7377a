//! The log: lines for people or JSON for programs, on standard error, and a filter that can be changed. Spans of jobs go
//! to a collector too, where the settings name one.

use std::io::IsTerminal as _;

use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer, Registry, fmt, reload};

use super::otlp::Queue;
use super::otlp::layer::{Jobs, Slot, Spans};

/// How a line of the log looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line, with the job that it is about in `span`.
    Json,
}

/// The log of this process, and its filter: which lines are written. Clones are one.
#[derive(Clone, Debug)]
pub struct Log {
    filter: reload::Handle<EnvFilter, Registry>,
    spans: Slot,
}

/// Starts the log of this process, once. The variable `SECO_LOG` is the filter, or else `usual`.
pub fn start(format: Format, usual: &str) -> Log {
    let filter = EnvFilter::try_from_env("SECO_LOG").unwrap_or_else(|_| EnvFilter::new(usual));
    let (filter, handle) = reload::Layer::new(filter);
    let lines = fmt::layer().with_writer(std::io::stderr).with_target(false);
    let lines: Box<dyn Layer<Registry> + Send + Sync> = match format {
        Format::Text => lines.with_ansi(std::io::stderr().is_terminal()).boxed(),
        Format::Json => {
            lines.with_ansi(false).json().flatten_event(true).with_span_list(false).with_target(true).boxed()
        }
    };
    // Each has a filter of its own: fewer lines are not fewer spans.
    let slot = Slot::default();
    let spans = Spans(slot.clone()).with_filter(Jobs(slot.clone()));
    // Fails where the process has a log already, which then stays.
    let _ = tracing_subscriber::registry().with(lines.with_filter(filter)).with(spans).try_init();
    Log { filter: handle, spans: slot }
}

impl Log {
    /// Changes the filter, from the next line on.
    ///
    /// # Errors
    /// What is wrong with the text; the filter stays what it was.
    pub fn set_filter(&self, text: &str) -> Result<(), String> {
        let filter = EnvFilter::try_new(text).map_err(|error| format!("filter {text:?}: {error}"))?;
        self.filter.reload(filter).map_err(|error| error.to_string())
    }

    /// What the filter is.
    pub fn filter(&self) -> String {
        self.filter.with_current(EnvFilter::to_string).unwrap_or_default()
    }

    /// Puts spans of jobs into a queue from now on; not if there is one already.
    pub(super) fn send_spans(&self, queue: Queue) -> bool {
        let first = self.spans.set(queue).is_ok();
        // Also where nothing is changed by it, all that was found unwanted is asked about again.
        first && self.filter.modify(|_| ()).is_ok()
    }
}
