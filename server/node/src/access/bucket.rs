//! How much was used lately, against a limit in a period.

use std::time::{Duration, Instant};

/// A minute.
pub(crate) const MINUTE: Duration = Duration::from_secs(60);
/// An hour.
pub(crate) const HOUR: Duration = Duration::from_secs(3600);

/// What was used lately. It empties by a limit in a period.
pub(crate) struct Bucket {
    level: f64,
    at: Instant,
}

impl Bucket {
    pub(crate) fn new(now: Instant) -> Self {
        Self { level: 0.0, at: now }
    }

    /// After a restart: as it was that time ago.
    pub(crate) fn restored(level: u32, limit: usize, period: Duration, age: Duration) -> Self {
        Self { level: emptied(f64::from(level), limit, period, age), at: Instant::now() }
    }

    /// What it held when it was used last, rounded up, and how long ago that was.
    pub(crate) fn last(&self) -> (u32, Duration) {
        (self.level.ceil() as u32, self.at.elapsed())
    }

    /// What is left of it now.
    pub(crate) fn settle(&mut self, limit: usize, period: Duration, now: Instant) -> f64 {
        self.level = emptied(self.level, limit, period, now.saturating_duration_since(self.at));
        self.at = now;
        self.level
    }

    /// Whether there is one of `limit` in `period`, of which 0 is none; or says when there is one again.
    pub(crate) fn has(&mut self, limit: usize, period: Duration, now: Instant) -> Result<(), Duration> {
        if limit == 0 {
            return Ok(());
        }
        let above = self.settle(limit, period, now) + 1.0 - limit as f64;
        if above > 0.0 {
            return Err(period.mul_f64(above / limit as f64).max(Duration::from_millis(1)));
        }
        Ok(())
    }

    /// Uses one, as [`Self::has`] says that there is.
    pub(crate) fn take(&mut self, limit: usize, period: Duration, now: Instant) -> Result<(), Duration> {
        self.has(limit, period, now)?;
        if limit > 0 {
            self.level += 1.0;
        }
        Ok(())
    }

    /// One that was taken was not used.
    pub(crate) fn give_back(&mut self) {
        self.level = (self.level - 1.0).max(0.0);
    }
}

/// What is left of a level after a time. Above the limit it counts as the limit, which may have been lowered: nobody
/// waits for longer than a period.
fn emptied(level: f64, limit: usize, period: Duration, age: Duration) -> f64 {
    let level = if limit > 0 { level.min(limit as f64) } else { level };
    let gone = age.as_secs_f64() / period.as_secs_f64();
    (level - gone * limit as f64).max(0.0)
}
