//! Spans on their way to the collector: a queue that never waits, and the task that empties it.

use std::time::{Duration, Instant};

use prometheus_client::metrics::counter::Counter;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use tracing::warn;

use super::client::{Collector, Untaken};
use super::message::{Request, Resource, ResourceSpans, Scope, ScopeSpans, Span};

/// Spans that wait. More are dropped.
pub(super) const QUEUE: usize = 2048;
/// Spans that are sent together.
pub(super) const BATCH: usize = 512;

/// Times of it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Times {
    /// For others to gather that are sent with the first; doubled after each failure.
    pub pause: Duration,
    /// After many failures.
    pub longest: Duration,
    /// For the collector to take a batch.
    pub post: Duration,
    /// For all that is left when the server ends.
    pub flush: Duration,
    /// Between two lines of the log.
    pub lines: Duration,
}

impl Times {
    pub const USUAL: Self = Self {
        pause: Duration::from_secs(1),
        longest: Duration::from_secs(30),
        post: Duration::from_secs(5),
        flush: Duration::from_secs(2),
        lines: Duration::from_secs(60),
    };
}

/// How many spans there were.
#[derive(Clone, Debug, Default)]
pub(crate) struct Counts {
    /// The collector took.
    pub sent: Counter,
    /// Nobody gets.
    pub dropped: Counter,
}

/// Where spans that have ended are put.
#[derive(Debug)]
pub(crate) struct Queue {
    server: usize,
    spans: mpsc::Sender<Span>,
    dropped: Counter,
}

impl Queue {
    /// One for spans of server number `server`, and its other end.
    pub(super) fn new(server: usize, dropped: Counter) -> (Self, mpsc::Receiver<Span>) {
        let (put, spans) = mpsc::channel(QUEUE);
        (Self { server, spans: put, dropped }, spans)
    }

    /// Number of the server whose spans they are.
    pub fn server(&self) -> usize {
        self.server
    }

    /// Puts one there, or drops it where there is no room: whoever ends a span does not wait.
    pub fn put(&self, span: Span) {
        if self.spans.try_send(span).is_err() {
            self.dropped.inc();
        }
    }
}

/// The task that sends them.
#[derive(Debug)]
pub(crate) struct Sending {
    stop: watch::Sender<bool>,
    /// Whether it got rid of all.
    task: JoinHandle<bool>,
    flush: Duration,
}

impl Sending {
    /// Starts it, for server number `server`, which `resource` describes.
    pub(super) fn start(
        collector: Collector,
        (server, resource): (usize, Resource),
        counts: &Counts,
        times: Times,
    ) -> (Queue, Self) {
        let (queue, spans) = Queue::new(server, counts.dropped.clone());
        let (stop, stopped) = watch::channel(false);
        let told = Told { collector, every: times.lines, last: None, dropped: 0 };
        let sender =
            Sender { collector, resource, spans, stop: stopped, counts: counts.clone(), times, told };
        (queue, Self { stop, task: tokio::spawn(sender.run()), flush: times.flush })
    }

    /// Sends what is left, for a moment at most.
    pub async fn flush(mut self) {
        self.stop.send_replace(true);
        let ended = timeout(self.flush, &mut self.task).await;
        if !matches!(ended, Ok(Ok(true))) {
            self.task.abort();
            warn!("the collector of [log] otlp did not take all spans before the end");
        }
    }
}

struct Sender {
    collector: Collector,
    resource: Resource,
    spans: mpsc::Receiver<Span>,
    stop: watch::Receiver<bool>,
    counts: Counts,
    times: Times,
    told: Told,
}

impl Sender {
    /// Until the server ends: whether all that it was given by then was taken or refused.
    async fn run(mut self) -> bool {
        let (mut batch, mut pause) = (Vec::new(), self.times.pause);
        loop {
            if batch.is_empty() {
                tokio::select! {
                    biased;
                    // Of none there will be more.
                    count = self.spans.recv_many(&mut batch, BATCH) => if count == 0 { return true },
                    () = stopped(&mut self.stop) => {
                        self.spans.close();
                        continue;
                    }
                }
            }
            if batch.len() < BATCH || pause > self.times.pause {
                tokio::select! {
                    () = sleep(pause) => {}
                    () = stopped(&mut self.stop) => {}
                }
            }
            while batch.len() < BATCH
                && let Ok(span) = self.spans.try_recv()
            {
                batch.push(span);
            }
            let count = batch.len() as u64;
            match self.collector.post(&self.request(&batch), self.times.post).await {
                Ok(rejected) => {
                    self.counts.sent.inc_by(count.saturating_sub(rejected));
                    self.counts.dropped.inc_by(rejected.min(count));
                    batch.clear();
                    pause = self.times.pause;
                    self.told.tell(None, &self.counts);
                }
                Err(Untaken::Now(why)) => {
                    if *self.stop.borrow() {
                        self.counts.dropped.inc_by(count + self.spans.len() as u64);
                        self.told.tell(Some(&why), &self.counts);
                        return false;
                    }
                    pause = (pause * 2).min(self.times.longest);
                    self.told.tell(Some(&why), &self.counts);
                }
                Err(Untaken::Ever(why)) => {
                    self.counts.dropped.inc_by(count);
                    batch.clear();
                    pause = self.times.pause;
                    self.told.tell(Some(&why), &self.counts);
                }
            }
        }
    }

    fn request(&self, spans: &[Span]) -> Request {
        let scope =
            Scope { name: env!("CARGO_PKG_NAME").to_owned(), version: env!("CARGO_PKG_VERSION").to_owned() };
        let scope_spans = vec![ScopeSpans { scope: Some(scope), spans: spans.to_vec() }];
        Request { resource_spans: vec![ResourceSpans { resource: Some(self.resource.clone()), scope_spans }] }
    }
}

/// Ready once the server ends.
async fn stopped(stop: &mut watch::Receiver<bool>) {
    // An error is that of a server that has ended.
    let _ = stop.wait_for(|stop| *stop).await;
}

/// What the log was told of the collector.
struct Told {
    collector: Collector,
    every: Duration,
    last: Option<Instant>,
    /// How many were dropped by then.
    dropped: u64,
}

impl Told {
    /// Tells of spans that were not taken, or dropped meanwhile, unless it did a moment ago.
    fn tell(&mut self, why: Option<&str>, counts: &Counts) {
        let (collector, dropped) = (self.collector, counts.dropped.get());
        let why = match why {
            Some(why) => why,
            None if dropped > self.dropped => "more ended than it took",
            None => return,
        };
        if self.last.is_some_and(|last| last.elapsed() < self.every) {
            return;
        }
        (self.last, self.dropped) = (Some(Instant::now()), dropped);
        warn!(dropped, "spans for {collector} ([log] otlp): {why}");
    }
}
