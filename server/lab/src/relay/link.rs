//! What a wire between two machines is like, and when what is sent over it arrives.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// How long a queue in front of a slow wire may get before it drops.
const QUEUE: Duration = Duration::from_millis(100);

/// A wire, the same in both directions.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Link {
    /// One-way delay.
    pub delay: Duration,
    /// Bits a second in each direction; `None`: any number.
    pub rate: Option<u64>,
}

impl From<Duration> for Link {
    fn from(delay: Duration) -> Link {
        Link { delay, rate: None }
    }
}

impl Link {
    /// How long so many bytes keep the wire busy.
    fn busy(&self, bytes: usize) -> Duration {
        self.rate
            .map_or(Duration::ZERO, |rate| Duration::from_secs_f64(bytes as f64 * 8.0 / rate.max(1) as f64))
    }

    /// Bytes under way and in the queue, at most.
    pub fn room(&self) -> usize {
        let Some(rate) = self.rate else { return usize::MAX };
        (rate as f64 / 8.0 * (self.delay + QUEUE).as_secs_f64()) as usize
    }
}

/// One direction of a wire, for all that share it.
#[derive(Clone)]
pub struct Pace {
    link: Link,
    /// When the wire is free again.
    free: Arc<Mutex<Instant>>,
}

impl Pace {
    pub fn new(link: Link) -> Pace {
        Pace { link, free: Arc::new(Mutex::new(Instant::now())) }
    }

    pub fn link(&self) -> Link {
        self.link
    }

    /// When so many bytes, sent `now`, arrive: after what was sent before, and the delay.
    pub fn due(&self, now: Instant, bytes: usize) -> Instant {
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        *free = now.max(*free) + self.link.busy(bytes);
        *free + self.link.delay
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_queue_up_behind_each_other() {
        let link = Link { delay: Duration::from_millis(20), rate: Some(8_000_000) };
        // A megabyte a second: 120 ms of it.
        assert_eq!(link.room(), 120_000);
        let (pace, now) = (Pace::new(link), Instant::now());
        let due = |bytes| pace.due(now + Duration::from_secs(1), bytes) - now - Duration::from_secs(1);
        assert_eq!([due(1000), due(2000)], [Duration::from_millis(21), Duration::from_millis(23)]);
        let fast = Pace::new(Duration::from_millis(5).into());
        let now = Instant::now();
        assert_eq!(fast.due(now, 1 << 30), now + Duration::from_millis(5));
        assert_eq!(fast.link().room(), usize::MAX);
    }
}
