//! Counts and times for Prometheus. Labels are models, servers, phases and reasons: never a session, device or user.

use std::fmt;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use prometheus_client::encoding::text;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;
use seco_core::Refusal;

use super::otlp::Counts;
use super::status::{Bundles, Pool, Status};

/// Upper ends of the buckets of an inference's seconds.
const ONLINE: [f64; 13] = [0.005, 0.01, 0.02, 0.03, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 15.0, 60.0];
/// The same of a bundle's.
const MAKING: [f64; 11] = [0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0, 60.0, 180.0, 600.0];

/// Labels with their values.
type Labels<const N: usize> = [(&'static str, String); N];

/// A number of a page: name, help, and where it is.
type Shown<T> = (&'static str, &'static str, fn(&T) -> u64);

/// What a job is part of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Keys and base oblivious transfers.
    SetUp,
    /// A bundle.
    Bundle,
    /// A request.
    Inference,
}

impl Phase {
    const ALL: [Phase; 3] = [Phase::SetUp, Phase::Bundle, Phase::Inference];

    /// Its name in logs and labels.
    pub fn name(self) -> &'static str {
        match self {
            Phase::SetUp => "set-up",
            Phase::Bundle => "bundle",
            Phase::Inference => "inference",
        }
    }
}

/// Bytes of the protocol's messages, without what QUIC adds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// To all servers.
    pub sent: u64,
    /// From all servers.
    pub received: u64,
}

#[derive(Default)]
struct Sum {
    sent: AtomicU64,
    received: AtomicU64,
}

/// What is counted while a server runs.
pub struct Metrics {
    /// By model, as the next two.
    bundles: Family<Labels<1>, Histogram, fn() -> Histogram>,
    made: Family<Labels<1>, Counter>,
    inferences: Family<Labels<1>, Histogram, fn() -> Histogram>,
    refusals: Family<Labels<1>, Counter>,
    failed: Family<Labels<2>, Counter>,
    /// For the collector.
    spans: Counts,
    /// By [`Phase`].
    traffic: [Sum; 3],
    /// Over QUIC, over TCP.
    connections: [AtomicUsize; 2],
}

impl Default for Metrics {
    fn default() -> Self {
        Self {
            bundles: Family::new_with_constructor(|| Histogram::new(MAKING)),
            made: Family::default(),
            inferences: Family::new_with_constructor(|| Histogram::new(ONLINE)),
            refusals: Family::default(),
            failed: Family::default(),
            spans: Counts::default(),
            traffic: Default::default(),
            connections: Default::default(),
        }
    }
}

impl Metrics {
    /// A model is served: it is on the page from now on.
    pub fn serves(&self, model: &str) {
        drop(self.bundles.get_or_create(&of_model(model)));
        drop(self.inferences.get_or_create(&of_model(model)));
    }

    /// It is no longer.
    pub fn forget(&self, model: &str) {
        self.bundles.remove(&of_model(model));
        self.made.remove(&of_model(model));
        self.inferences.remove(&of_model(model));
    }

    /// A bundle was made.
    pub fn made(&self, model: &str, time: Duration) {
        self.bundles.get_or_create(&of_model(model)).observe(time.as_secs_f64());
        self.made.get_or_create(&of_model(model)).inc();
    }

    /// Bundles of a model made so far.
    pub fn bundles_made(&self, model: &str) -> u64 {
        self.made.get_or_create(&of_model(model)).get()
    }

    /// A request was answered.
    pub fn inferred(&self, model: &str, time: Duration) {
        self.inferences.get_or_create(&of_model(model)).observe(time.as_secs_f64());
    }

    /// A request was refused; `reason` is from a fixed set.
    pub fn refused(&self, reason: &str) {
        self.refusals.get_or_create(&[("reason", reason.to_owned())]).inc();
    }

    /// Something failed by a server's fault; `what` as the log says it.
    pub fn failed(&self, what: &str, culprit: usize) {
        let what = match what {
            "set-up" | "the set-up" => Phase::SetUp.name(),
            "bundle" | "making a bundle" => Phase::Bundle.name(),
            "inference" | "an inference" | "lease" | "a lease" => Phase::Inference.name(),
            "taking stock" => "stock",
            _ => "session",
        };
        self.failed.get_or_create(&[("job", what.to_owned()), ("server", culprit.to_string())]).inc();
    }

    /// Spans that the collector got, and that nobody got. Clones count together.
    pub(crate) fn spans(&self) -> &Counts {
        &self.spans
    }

    /// Messages of a job.
    pub fn exchanged(&self, phase: Phase, traffic: Traffic) {
        let sum = &self.traffic[phase as usize];
        sum.sent.fetch_add(traffic.sent, Ordering::Relaxed);
        sum.received.fetch_add(traffic.received, Ordering::Relaxed);
    }

    /// A device's connection began, over TCP or QUIC.
    pub fn connected(&self, tcp: bool) {
        self.connections[usize::from(tcp)].fetch_add(1, Ordering::Relaxed);
    }

    /// It has ended.
    pub fn left(&self, tcp: bool) {
        self.connections[usize::from(tcp)].fetch_sub(1, Ordering::Relaxed);
    }

    /// Connections of devices, over TCP or QUIC.
    pub fn connections(&self, tcp: bool) -> usize {
        self.connections[usize::from(tcp)].load(Ordering::Relaxed)
    }

    /// All of it and what `status` tells, in the text format of OpenMetrics, which is Prometheus' own with an end.
    ///
    /// # Errors
    /// None that a string could cause.
    pub fn text(&self, status: &Status) -> Result<String, fmt::Error> {
        let mut page = Page { registry: Registry::with_prefix("seco") };
        let registry = &mut page.registry;
        registry.register(
            "build",
            "Release of seco",
            Info::new(vec![("version", status.version.clone()), ("server", status.index.to_string())]),
        );
        registry.register("bundle_seconds", "Time that making a bundle took", self.bundles.clone());
        let help = "Time of a request from its arrival to its answer, the wait for a bundle included";
        registry.register("inference_seconds", help, self.inferences.clone());
        registry.register("refusals", "Requests of devices that were refused", self.refusals.clone());
        let help = "Jobs and exchanges between servers that failed, by the server at fault";
        registry.register("jobs_failed", help, self.failed.clone());
        let Counts { sent, dropped } = &self.spans;
        registry.register("spans_sent", "Spans of jobs that the collector of [log] otlp took", sent.clone());
        let help = "Spans of jobs that it did not take";
        registry.register("spans_dropped", help, dropped.clone());

        let bundles = &status.bundles;
        let models = || status.models.iter().map(|model| (of_model(model.short()), model));
        let counts: [Shown<Bundles>; 5] = [
            ("bundles_made", "Bundles made", |bundles| bundles.made),
            ("bundles_spent", "Bundles spent for requests", |bundles| bundles.spent),
            ("bundles_discarded", "Bundles destroyed unused", |bundles| bundles.discarded),
            ("leases_used", "Bundles leased ahead and used by their request", |bundles| bundles.leases_used),
            ("leases_lost", "Bundles leased ahead for requests that did not come", |bundles| {
                bundles.leases_lost
            }),
        ];
        for (name, help, count) in counts {
            page.counter(name, help, models().map(|(labels, model)| (labels, count(&model.bundles))));
        }
        let leased = models().map(|(labels, model)| (labels, model.bundles.leased as u64));
        page.gauges("bundles_leased", "Bundles spent ahead that wait for their request", leased);
        let served = models().map(|(labels, model)| (labels, u64::from(model.reasons.is_empty())));
        page.gauges("model_served", "1 if requests for the model would be served", served);
        page.gauge("bundles_stored", "Bundles on this server's disk", bundles.stored as u64);
        page.gauge("bundles_disk_bytes", "Bytes of bundles on disk", bundles.disk_bytes);
        if let Some(free) = bundles.free_bytes {
            page.gauge("disk_free_bytes", "Bytes that the disk of bundles has left", free);
        }
        if status.pool.is_some() {
            let gauges: [Shown<Pool>; 4] = [
                ("pool_ready", "Bundles ready on all servers", |pool| pool.ready as u64),
                ("pool_target", "Bundles that are kept ready", |pool| pool.target as u64),
                ("queue_length", "Requests that wait for a bundle", |pool| pool.queue as u64),
                ("pool_making", "1 if bundles can be made now", |pool| u64::from(pool.making)),
            ];
            for (name, help, value) in gauges {
                let pools = models().filter_map(|(labels, model)| Some((labels, model.pool.as_ref()?)));
                page.gauges(name, help, pools.map(|(labels, pool)| (labels, value(pool))));
            }
        }
        let peer = |index: usize| [("peer", index.to_string())];
        let sent = status.peers.iter().map(|p| (peer(p.index), p.sent_bytes));
        page.counter("link_sent_bytes", "UDP payload sent to another server", sent);
        let received = status.peers.iter().map(|p| (peer(p.index), p.received_bytes));
        page.counter("link_received_bytes", "UDP payload received from another server", received);
        let connected = status.peers.iter().map(|p| (peer(p.index), u64::from(p.connected)));
        page.gauges("peer_connected", "1 if there is a connection with another server", connected);
        let by_phase = |pick: fn(&Sum) -> &AtomicU64| {
            Phase::ALL.map(|phase| {
                let sum = pick(&self.traffic[phase as usize]).load(Ordering::Relaxed);
                ([("phase", phase.name().to_owned())], sum)
            })
        };
        page.counter("phase_sent_bytes", "Bytes of messages sent to all servers", by_phase(|sum| &sum.sent));
        let received = by_phase(|sum| &sum.received);
        page.counter("phase_received_bytes", "Bytes of messages received from all servers", received);
        let sessions = &status.sessions;
        page.gauge("sessions", "Sessions of devices that are remembered", sessions.remembered as u64);
        let transport = |name: &str| [("transport", name.to_owned())];
        let connections =
            [(transport("quic"), sessions.quic as u64), (transport("tcp"), sessions.tcp as u64)];
        page.gauges("connections", "Connections of devices", connections);
        page.gauge("requests_under_way", "Requests taken and not ended", status.under_way as u64);
        page.gauge("jobs_running", "Set-ups, bundles and inferences that run", status.jobs as u64);
        page.counter("ledger_entries", "Entries of the ledger", [([], status.ledger_entries)]);
        page.gauge("ready", "1 if requests would be served", u64::from(status.reasons.is_empty()));
        page.gauge("draining", "1 if no new requests are taken", u64::from(status.draining));
        page.gauge("uptime_seconds", "Seconds since the start", status.seconds);
        let mut text = String::new();
        text::encode(&mut text, &page.registry)?;
        Ok(text)
    }
}

fn of_model(model: &str) -> Labels<1> {
    [("model", model.to_owned())]
}

/// What one scrape shows.
struct Page {
    registry: Registry,
}

impl Page {
    fn counter<const N: usize>(
        &mut self,
        name: &str,
        help: &str,
        values: impl IntoIterator<Item = (Labels<N>, u64)>,
    ) {
        let family: Family<Labels<N>, Counter> = Family::default();
        values.into_iter().for_each(|(labels, value)| {
            family.get_or_create(&labels).inc_by(value);
        });
        self.registry.register(name, help, family);
    }

    fn gauges<const N: usize>(
        &mut self,
        name: &str,
        help: &str,
        values: impl IntoIterator<Item = (Labels<N>, u64)>,
    ) {
        let family: Family<Labels<N>, Gauge> = Family::default();
        values.into_iter().for_each(|(labels, value)| {
            family.get_or_create(&labels).set(i64::try_from(value).unwrap_or(i64::MAX));
        });
        self.registry.register(name, help, family);
    }

    fn gauge(&mut self, name: &str, help: &str, value: u64) {
        self.gauges(name, help, [([], value)]);
    }
}

/// A refusal's name as a label.
pub(crate) fn reason(refusal: &Refusal) -> &'static str {
    match refusal {
        Refusal::Malformed => "malformed",
        Refusal::VersionUnsupported { .. } => "version-unsupported",
        Refusal::UnknownSession => "unknown-session",
        Refusal::CounterUsed => "counter-used",
        Refusal::WrongInputSize { .. } => "wrong-input-size",
        Refusal::WrongModel => "wrong-model",
        Refusal::WrongServers => "wrong-servers",
        Refusal::SealRejected { .. } => "seal-rejected",
        Refusal::Unavailable { .. } => "unavailable",
        Refusal::TimedOut => "timed-out",
        Refusal::Internal => "internal",
        Refusal::ShuttingDown => "shutting-down",
        Refusal::TokenMissing => "token-missing",
        Refusal::TokenInvalid => "token-invalid",
        Refusal::TokenExpired => "token-expired",
        Refusal::TokenExhausted { .. } => "token-exhausted",
        _ => "other",
    }
}
