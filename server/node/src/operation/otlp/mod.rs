//! Spans of jobs for an OpenTelemetry collector on this machine, over OTLP/HTTP in protobuf, where `[log] otlp` names one.
//!
//! A collector cannot be in the way of what the server is for: spans that have ended are put into a queue of fixed length
//! without waiting, one task sends them, and what there is no room for is dropped and counted. The spans of a job on all
//! servers are one trace.

mod client;
pub(crate) mod layer;
mod message;
mod queue;
#[cfg(test)]
mod tests;

pub use client::Collector;
pub(crate) use queue::{Counts, Queue, Sending};

use self::message::{KeyValue, Resource};
use self::queue::Times;
use super::log::Log;

/// Sends spans of jobs to a collector from now on; nothing where the process' log has another server's.
pub(crate) fn start(
    collector: Collector,
    log: &Log,
    (server, name): (usize, &str),
    counts: &Counts,
) -> Option<Sending> {
    let attributes = vec![
        KeyValue::text("service.name", "seco"),
        KeyValue::text("service.version", env!("CARGO_PKG_VERSION")),
        KeyValue::text("service.instance.id", name),
        KeyValue::number("seco.server", server as u64),
    ];
    let (queue, sending) = Sending::start(collector, (server, Resource { attributes }), counts, Times::USUAL);
    log.send_spans(queue).then_some(sending)
}
