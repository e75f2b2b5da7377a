//! CPU time, from the operating system.

use std::thread::{self, ThreadId};
use std::time::Duration;

/// Readings of both clocks at the start of something.
pub(crate) struct CpuClock {
    thread: ThreadId,
    on_thread: Option<Duration>,
    in_process: Option<Duration>,
}

impl CpuClock {
    pub(crate) fn start() -> Self {
        Self {
            thread: thread::current().id(),
            on_thread: read(Clock::Thread),
            in_process: read(Clock::Process),
        }
    }

    /// Of this thread, if `of_thread` and if it is the one that started; otherwise of the process.
    pub(crate) fn elapsed(&self, of_thread: bool) -> Option<Duration> {
        let (clock, start) = if of_thread && thread::current().id() == self.thread {
            (Clock::Thread, self.on_thread)
        } else {
            (Clock::Process, self.in_process)
        };
        Some(read(clock)?.saturating_sub(start?))
    }
}

enum Clock {
    Thread,
    Process,
}

#[cfg(unix)]
fn read(clock: Clock) -> Option<Duration> {
    use rustix::time::{ClockId, clock_gettime};
    let time = clock_gettime(match clock {
        Clock::Thread => ClockId::ThreadCPUTime,
        Clock::Process => ClockId::ProcessCPUTime,
    });
    Some(Duration::new(u64::try_from(time.tv_sec).ok()?, u32::try_from(time.tv_nsec).ok()?))
}

#[cfg(not(unix))]
fn read(_: Clock) -> Option<Duration> {
    None
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;
    use std::time::Instant;

    #[test]
    fn work_takes_cpu_time_and_sleep_does_not() {
        let clock = CpuClock::start();
        thread::sleep(Duration::from_millis(200));
        assert!(clock.elapsed(true).unwrap() < Duration::from_millis(100));
        let start = Instant::now();
        while clock.elapsed(true).unwrap() < Duration::from_millis(20) {
            assert!(start.elapsed() < Duration::from_secs(10), "the clock stands still");
        }
        // The process did at least as much as its thread.
        assert!(clock.elapsed(false).unwrap() >= Duration::from_millis(20));
        // On another thread there is only the process's clock to go by.
        let elsewhere = thread::scope(|scope| scope.spawn(|| clock.elapsed(true)).join().unwrap());
        assert!(elsewhere.unwrap() >= Duration::from_millis(20));
    }
}
