//! How fast bundles are made and requests answered, for what devices are told of their wait.

use std::time::{Duration, Instant};

/// What a bundle takes as long as none was made.
const UNKNOWN: Duration = Duration::from_secs(1);
/// Share of the newest in the average: the pace changes with what else the servers do.
const NEWEST: f64 = 0.3;

/// Averages of the last ones.
#[derive(Default)]
pub struct Pace {
    bundle: Option<Duration>,
    answer: Option<Duration>,
    /// When those were begun that are being made, the oldest first.
    making: Vec<Instant>,
}

/// The average with a new one.
pub fn average(old: Option<Duration>, new: Duration) -> Option<Duration> {
    Some(old.map_or(new, |old| old.mul_f64(1.0 - NEWEST) + new.mul_f64(NEWEST)))
}

impl Pace {
    /// A bundle is begun, now.
    pub fn begun(&mut self) -> Instant {
        let now = Instant::now();
        self.making.push(now);
        now
    }

    /// The bundle that was begun then is no longer being made.
    pub fn ended(&mut self, begun: Instant) {
        if let Some(place) = self.making.iter().position(|since| *since == begun) {
            self.making.remove(place);
        }
    }

    /// Bundles that are being made.
    pub fn making(&self) -> usize {
        self.making.len()
    }

    /// What a bundle takes, if one was made.
    pub fn bundle(&self) -> Option<Duration> {
        self.bundle
    }

    /// A bundle was made, in so much time.
    pub fn made(&mut self, time: Duration) {
        self.bundle = average(self.bundle, time);
    }

    /// A request was answered, in so much time from its turn on.
    pub fn answered(&mut self, time: Duration) {
        self.answer = average(self.answer, time);
    }

    /// Time until `bundles` more are made, as many at a time as are now, and until `answers` of those that run, `parallel`
    /// at a time, are done.
    pub fn wait(&self, bundles: usize, answers: usize, parallel: usize) -> Duration {
        let begun = self.making.first().map_or(Duration::ZERO, Instant::elapsed);
        let bundle = self.bundle.unwrap_or(UNKNOWN.max(begun));
        let made = match bundles {
            0 => Duration::ZERO,
            // One that takes longer than the last ones may be done at any moment.
            _ => {
                let rounds = bundles.div_ceil(self.making.len().max(1));
                times(bundle, rounds).saturating_sub(begun.min(bundle))
            }
        };
        let answer = self.answer.unwrap_or_default();
        let parallel = u32::try_from(parallel.max(1)).unwrap_or(u32::MAX);
        made.max(times(answer, answers) / parallel).max(Duration::from_millis(1))
    }
}

fn times(time: Duration, count: usize) -> Duration {
    time.saturating_mul(u32::try_from(count).unwrap_or(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_follow_from_both_paces() {
        let ms = Duration::from_millis;
        let mut pace = Pace::default();
        assert_eq!(pace.wait(2, 0, 4), UNKNOWN * 2);
        pace.made(ms(100));
        assert_eq!((pace.wait(0, 0, 4), pace.wait(3, 9, 4)), (ms(1), ms(300)));
        pace.answered(ms(200));
        assert_eq!(pace.wait(3, 9, 4), ms(450));
        for _ in 0..20 {
            pace.made(ms(300));
        }
        assert!(pace.wait(1, 0, 4) > ms(290));
        let one = pace.begun();
        assert!(pace.wait(2, 0, 4) > ms(290) && pace.wait(2, 0, 4) < ms(600));
        // Two at a time.
        let two = pace.begun();
        assert!(pace.wait(2, 0, 4) <= ms(300) && pace.wait(3, 0, 4) > ms(290));
        pace.ended(one);
        pace.ended(two);
        assert_eq!(pace.making(), 0);
        assert!(pace.wait(2, 0, 4) > ms(590));
    }
}
