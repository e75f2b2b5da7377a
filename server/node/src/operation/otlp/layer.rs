//! Makes spans for the collector of those that the log has of jobs.
//!
//! What leaves is chosen here: the number, phase, bundle and model of a job, the server and the reason where it failed,
//! and times. Any other field, any other span and all lines of the log stay. Nothing of a session, device or user is in
//! a job's span, and would not leave if it were.

use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use sha2::{Digest as _, Sha256};
use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::span::{Attributes, Id, Record};
use tracing::subscriber::Interest;
use tracing::{Metadata, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::{Context, Filter};
use tracing_subscriber::registry::LookupSpan;

use super::message::{KIND_INTERNAL, KIND_SERVER, KeyValue, STATUS_ERROR, Span, Status};
use super::queue::Queue;

/// Where spans go, once that is known: the log starts before the settings are read.
pub(crate) type Slot = Arc<OnceLock<Queue>>;

/// The field that makes a span a job's.
const JOB: &str = "job";

/// The log's layer that makes them.
#[derive(Debug)]
pub(crate) struct Spans(pub Slot);

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Spans {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        if let Some(span) = context.span(id) {
            let mut open = Open::new();
            attributes.record(&mut open);
            span.extensions_mut().replace(open);
        }
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: Context<'_, S>) {
        if let Some(span) = context.span(id)
            && let Some(open) = span.extensions_mut().get_mut::<Open>()
        {
            values.record(open);
        }
    }

    fn on_close(&self, id: Id, context: Context<'_, S>) {
        let Some(queue) = self.0.get() else { return };
        let open = context.span(&id).and_then(|span| span.extensions_mut().remove::<Open>());
        if let Some(span) = open.and_then(|open| open.close(queue.server())) {
            queue.put(span);
        }
    }
}

/// Which spans the layer sees: jobs', whatever the filter of lines says, and none without a collector.
#[derive(Debug)]
pub(crate) struct Jobs(pub Slot);

impl Jobs {
    fn wants(&self, metadata: &Metadata<'_>) -> bool {
        self.0.get().is_some() && metadata.is_span() && metadata.fields().field(JOB).is_some()
    }
}

impl<S> Filter<S> for Jobs {
    fn enabled(&self, metadata: &Metadata<'_>, _: &Context<'_, S>) -> bool {
        self.wants(metadata)
    }

    fn callsite_enabled(&self, metadata: &'static Metadata<'static>) -> Interest {
        if self.wants(metadata) { Interest::always() } else { Interest::never() }
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(if self.0.get().is_some() { LevelFilter::INFO } else { LevelFilter::OFF })
    }
}

/// A span that has not ended.
struct Open {
    began: SystemTime,
    /// Which nobody sets meanwhile.
    clock: Instant,
    job: Option<u64>,
    phase: Option<String>,
    error: Option<String>,
    attributes: Vec<KeyValue>,
}

impl Visit for Open {
    fn record_u64(&mut self, field: &Field, value: u64) {
        match field.name() {
            // As text, for it may be above 2^63; as lines of the log have it.
            JOB => {
                self.job = Some(value);
                self.attributes.push(KeyValue::text("seco.job", value.to_string()));
            }
            "peer" => self.attributes.push(KeyValue::number("seco.peer", value)),
            _ => {}
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            "phase" => self.phase = Some(value.to_owned()),
            "error" => self.error = Some(value.to_owned()),
            name @ ("bundle" | "model") => {
                self.attributes.push(KeyValue::text(&format!("seco.{name}"), value));
            }
            _ => {}
        }
    }

    fn record_debug(&mut self, _: &Field, _: &dyn fmt::Debug) {}
}

impl Open {
    fn new() -> Self {
        Self {
            began: SystemTime::now(),
            clock: Instant::now(),
            job: None,
            phase: None,
            error: None,
            attributes: Vec::new(),
        }
    }

    /// What server number `server` tells of it. Not of one that is no job's.
    fn close(self, server: usize) -> Option<Span> {
        let job = self.job?;
        let start = self.began.duration_since(UNIX_EPOCH).unwrap_or_default();
        let end = start.saturating_add(self.clock.elapsed());
        let nanos = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        Some(Span {
            trace_id: trace_id(job),
            span_id: span_id(job, server),
            // The gateway orders all jobs.
            parent_span_id: if server == 0 { Vec::new() } else { span_id(job, 0) },
            name: self.phase.unwrap_or_else(|| JOB.to_owned()),
            kind: if server == 0 { KIND_INTERNAL } else { KIND_SERVER },
            start_time_unix_nano: nanos(start),
            end_time_unix_nano: nanos(end),
            attributes: self.attributes,
            status: self.error.map(|message| Status { message, code: STATUS_ERROR }),
        })
    }
}

// Made of what all servers know of a job, its number, so that what they tell separately fits together.

fn trace_id(job: u64) -> Vec<u8> {
    let hash = Sha256::new().chain_update(b"seco trace v1").chain_update(job.to_le_bytes()).finalize();
    hash.iter().copied().take(16).collect()
}

fn span_id(job: u64, server: usize) -> Vec<u8> {
    let hash = Sha256::new().chain_update(b"seco span v1").chain_update(job.to_le_bytes());
    let hash = hash.chain_update((server as u64).to_le_bytes()).finalize();
    hash.iter().copied().take(8).collect()
}
