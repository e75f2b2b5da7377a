//! What was found, for people and for programs. The fields are documented in the module above.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use serde::Serialize;

use super::crowd::{Tally, Wait};
use crate::bench::watch::Usage;

/// Points of a distribution, in milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Percentiles {
    pub p50: f64,
    pub p90: f64,
    pub p99: f64,
    pub max: f64,
}

impl Percentiles {
    /// The smallest value that so many percent of all do not exceed; of no values it is zero.
    pub fn of(times: impl Iterator<Item = Duration>) -> Self {
        let mut times: Vec<_> = times.collect();
        times.sort_unstable();
        let at = |percent: usize| {
            let rank = (times.len() * percent).div_ceil(100).max(1);
            times.get(rank - 1).map_or(0.0, |time| time.as_secs_f64() * 1e3)
        };
        Self { p50: at(50), p90: at(90), p99: at(99), max: at(100) }
    }
}

/// Requests that had to wait.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Waits {
    pub count: u64,
    pub position_max: u32,
    pub told_ms: Percentiles,
    pub actual_ms: Percentiles,
    pub within_factor_two: Option<f64>,
}

impl Waits {
    fn of(waits: &[Wait]) -> Self {
        let right = waits.iter().filter(|wait| wait.actual * 2 >= wait.told && wait.told * 2 >= wait.actual);
        let right = right.count() as f64 / waits.len() as f64;
        Self {
            count: waits.len() as u64,
            position_max: waits.iter().map(|wait| wait.position).max().unwrap_or_default(),
            told_ms: Percentiles::of(waits.iter().map(|wait| wait.told)),
            actual_ms: Percentiles::of(waits.iter().map(|wait| wait.actual)),
            within_factor_two: (!waits.is_empty()).then_some(right),
        }
    }
}

/// Answers by device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Fairness {
    pub min: u64,
    pub max: u64,
    pub jain: f64,
    pub greedy: u64,
}

impl Fairness {
    fn of(answers: &[u64], greedy: u64) -> Self {
        let sum: f64 = answers.iter().map(|&n| n as f64).sum();
        let squares: f64 = answers.iter().map(|&n| (n as f64).powi(2)).sum();
        Self {
            min: answers.iter().copied().min().unwrap_or_default(),
            max: answers.iter().copied().max().unwrap_or_default(),
            jain: if squares > 0.0 { sum * sum / (answers.len() as f64 * squares) } else { 1.0 },
            greedy,
        }
    }
}

/// One server.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Process {
    pub server: usize,
    pub cpu_ms_per_answer: Option<f64>,
    pub memory_before: Option<u64>,
    pub memory_after: Option<u64>,
    pub memory_peak: Option<u64>,
    pub handles: Option<u64>,
}

/// Sessions that did nothing.
#[derive(Clone, Debug, Serialize)]
pub struct Idle {
    pub sessions: u64,
    pub refusals: BTreeMap<String, u64>,
    pub seconds: f64,
    pub memory_per_session: Vec<Option<u64>>,
    pub newcomer_ms: Option<f64>,
    pub newcomer_error: Option<String>,
}

/// Sessions that were left.
#[derive(Clone, Debug, Serialize)]
pub struct Abandoned {
    pub sessions: u64,
    pub refusals: BTreeMap<String, u64>,
    pub seconds: f64,
    pub memory_before: Vec<Option<u64>>,
    pub memory_after: Vec<Option<u64>>,
}

/// All of it.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Report {
    pub model: String,
    pub servers: usize,
    pub devices: u32,
    pub transport: &'static str,
    pub open: Option<u32>,
    pub greedy: u32,
    pub pool: u32,
    pub leases: u32,
    pub making: u32,
    pub net_ms: Option<f64>,
    pub checked: bool,
    pub requests: u64,
    pub answers: u64,
    pub wrong: u64,
    pub refusals: BTreeMap<String, u64>,
    pub asked_again: u64,
    pub seconds: f64,
    pub answers_per_s: f64,
    pub latency_ms: Percentiles,
    pub waits: Waits,
    pub fairness: Fairness,
    pub ready_ms: Option<f64>,
    pub device_cpu_ms_per_answer: f64,
    pub cpu_ms_per_answer: Option<f64>,
    pub processes: Vec<Process>,
    pub idle: Option<Idle>,
    pub abandoned: Option<Abandoned>,
}

impl Report {
    /// What was counted and measured; the rest is the caller's to fill in. `own` is this process's CPU time.
    pub fn new(tally: &Tally, before: &[Usage], after: &[Usage], own: Duration) -> Self {
        let answers = tally.latencies.len() as u64;
        let each = |time: f64| time * 1e3 / answers.max(1) as f64;
        let processes: Vec<_> = before
            .iter()
            .zip(after)
            .enumerate()
            .map(|(server, (before, after))| Process {
                server,
                cpu_ms_per_answer: after.cpu.zip(before.cpu).map(|(after, before)| each(after - before)),
                memory_before: before.memory,
                memory_after: after.memory,
                memory_peak: after.memory_peak,
                handles: after.handles,
            })
            .collect();
        let cpu = processes.iter().map(|process| process.cpu_ms_per_answer).sum::<Option<f64>>();
        let seconds = tally.time.as_secs_f64();
        Self {
            requests: tally.requests,
            answers,
            wrong: tally.wrong,
            refusals: tally.errors.clone(),
            asked_again: tally.asked_again,
            seconds,
            answers_per_s: answers as f64 / seconds.max(1e-9),
            latency_ms: Percentiles::of(tally.latencies.iter().copied()),
            waits: Waits::of(&tally.waits),
            fairness: Fairness::of(&tally.answers, tally.greedy),
            device_cpu_ms_per_answer: each(own.as_secs_f64()),
            cpu_ms_per_answer: cpu.filter(|_| !processes.is_empty()),
            processes,
            ..Self::default()
        }
    }

    /// One JSON object on one line.
    pub fn json(&self) -> String {
        // It holds numbers and strings, which cannot fail.
        serde_json::to_string(self).unwrap_or_default()
    }

    /// The same for people.
    pub fn table(&self) -> String {
        let mut text = String::new();
        let mut row = |name: &str, value: String| {
            let _ = writeln!(text, "{name:<26}{value}");
        };
        row("load", format!("{} devices over {}, {}", self.devices, self.transport, self.model));
        let requests = match self.open {
            Some(rate) => format!("{rate} a second, however long answers take"),
            None => "of each device one after the other".to_owned(),
        };
        row("  requests", requests);
        let equal = match (self.checked, self.wrong) {
            (false, _) => "not compared",
            (true, 0) => "all equal the plaintext computation bit for bit",
            (true, _) => "some DIFFER from the plaintext computation",
        };
        row("answers", format!("{} of {} requests, {equal}", self.answers, self.requests));
        row("answers a second", format!("{:.1} ({:.1} s)", self.answers_per_s, self.seconds));
        row("latency", points(&self.latency_ms));
        if self.waits.count > 0 {
            let Waits { count, position_max, told_ms, actual_ms, within_factor_two } = &self.waits;
            row("waited for a bundle", format!("{count}, place {position_max} at most"));
            row("  as told", points(told_ms));
            let right = within_factor_two.unwrap_or_default() * 100.0;
            row("  in fact", format!("{}; {right:.0}% within a factor of two", points(actual_ms)));
        }
        row("failed", kinds(&self.refusals));
        row("asked again by the SDK", self.asked_again.to_string());
        let Fairness { min, max, jain, greedy } = self.fairness;
        let greedy = if self.greedy > 0 { format!("; the greedy one {greedy}") } else { String::new() };
        row("answers by device", format!("{min} to {max}, Jain's index {jain:.3}{greedy}"));
        if let Some(ready) = self.ready_ms {
            row("filling the pool", format!("{ready:.0} ms a bundle, {} bundles", self.pool));
        }
        let all = self.cpu_ms_per_answer.map_or("unknown".to_owned(), |cpu| format!("{cpu:.1} ms"));
        row("CPU for one answer", format!("servers {all}, devices {:.1} ms", self.device_cpu_ms_per_answer));
        for process in &self.processes {
            let cpu = process.cpu_ms_per_answer.unwrap_or_default();
            row(
                &format!("  server {}", process.server),
                format!(
                    "{cpu:.1} ms; memory {} before, {} after, {} at most; {} handles",
                    megabytes(process.memory_before),
                    megabytes(process.memory_after),
                    megabytes(process.memory_peak),
                    process.handles.map_or("?".to_owned(), |n| n.to_string()),
                ),
            );
        }
        if let Some(idle) = &self.idle {
            let each: Vec<_> = idle.memory_per_session.iter().map(|bytes| kilobytes(*bytes)).collect();
            row(
                "idle sessions",
                format!("{} in {:.1} s; failed: {}", idle.sessions, idle.seconds, kinds(&idle.refusals)),
            );
            row("  memory of one", format!("{} (by server)", each.join(", ")));
            let newcomer = match (&idle.newcomer_ms, &idle.newcomer_error) {
                (Some(ms), _) => format!("answered after {ms:.0} ms"),
                (None, error) => format!("did not get in: {}", error.as_deref().unwrap_or_default()),
            };
            row("  a new device", newcomer);
        }
        if let Some(left) = &self.abandoned {
            row(
                "abandoned sessions",
                format!("{} in {:.1} s; failed: {}", left.sessions, left.seconds, kinds(&left.refusals)),
            );
            for (server, (before, after)) in left.memory_before.iter().zip(&left.memory_after).enumerate() {
                row(
                    &format!("  server {server}"),
                    format!("{} before, {} after", megabytes(*before), megabytes(*after)),
                );
            }
        }
        text.truncate(text.trim_end().len());
        text
    }
}

fn points(times: &Percentiles) -> String {
    let Percentiles { p50, p90, p99, max } = times;
    format!("p50 {p50:.0} ms, p90 {p90:.0} ms, p99 {p99:.0} ms, max {max:.0} ms")
}

fn kinds(errors: &BTreeMap<String, u64>) -> String {
    let list: Vec<_> = errors.iter().map(|(kind, count)| format!("{count} {kind}")).collect();
    if list.is_empty() { "none".to_owned() } else { list.join(", ") }
}

fn megabytes(bytes: Option<u64>) -> String {
    bytes.map_or("?".to_owned(), |bytes| format!("{:.0} MB", bytes as f64 / 1e6))
}

fn kilobytes(bytes: Option<u64>) -> String {
    bytes.map_or("?".to_owned(), |bytes| format!("{:.1} KB", bytes as f64 / 1e3))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn percentiles_are_values_that_occurred() {
        let of = |times: &[u64]| Percentiles::of(times.iter().map(|&t| ms(t)));
        assert_eq!(of(&[]), Percentiles::default());
        assert_eq!(of(&[7]), Percentiles { p50: 7.0, p90: 7.0, p99: 7.0, max: 7.0 });
        let hundred: Vec<_> = (1..=100).rev().collect();
        assert_eq!(of(&hundred), Percentiles { p50: 50.0, p90: 90.0, p99: 99.0, max: 100.0 });
    }

    #[test]
    fn fairness_is_one_for_all_alike_and_small_for_one_who_has_all() {
        assert_eq!(Fairness::of(&[5, 5, 5, 5], 9).jain, 1.0);
        let alone = Fairness::of(&[20, 0, 0, 0], 0);
        assert_eq!((alone.min, alone.max, alone.jain), (0, 20, 0.25));
        assert_eq!(Fairness::of(&[0, 0], 0).jain, 1.0);
    }

    #[test]
    fn waits_are_right_within_a_factor_of_two() {
        let wait = |told, actual| Wait { position: 3, told: ms(told), actual: ms(actual) };
        let waits = Waits::of(&[wait(100, 50), wait(100, 200), wait(100, 49), wait(100, 201)]);
        assert_eq!((waits.within_factor_two, waits.count, waits.position_max), (Some(0.5), 4, 3));
        assert_eq!(Waits::of(&[]).within_factor_two, None);
    }
}
