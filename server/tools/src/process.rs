//! What this process has used so far, from the operating system.

use std::time::{Duration, Instant};

use crate::Error;

/// CPU time of all threads of this process, those that ended included, in user and in kernel mode.
/// Nanosecond clock, read without a lock; a reading takes well under a microsecond.
#[cfg(unix)]
pub fn cpu_time() -> Result<Duration, Error> {
    use rustix::time::{ClockId, clock_gettime};
    let time = clock_gettime(ClockId::ProcessCPUTime);
    let parts = u64::try_from(time.tv_sec).ok().zip(u32::try_from(time.tv_nsec).ok());
    parts.map(|(seconds, nanoseconds)| Duration::new(seconds, nanoseconds)).ok_or_else(|| unknown("CPU time"))
}

/// There is no such clock.
#[cfg(not(unix))]
pub fn cpu_time() -> Result<Duration, Error> {
    Err(unknown("CPU time"))
}

/// What work took.
#[derive(Clone, Copy, Default)]
pub struct Took {
    /// CPU time of all threads; zero where there is no such clock.
    pub cpu: Duration,
    /// By the clock on the wall.
    pub wall: Duration,
}

impl Took {
    /// Units per second of CPU time, and by the clock.
    pub fn rates(&self, units: f64) -> [f64; 2] {
        [self.cpu, self.wall].map(|time| units / time.as_secs_f64().max(1e-9))
    }

    /// Milliseconds a unit, of CPU time and by the clock.
    pub fn milliseconds(&self, units: f64) -> [f64; 2] {
        [self.cpu, self.wall].map(|time| 1e3 * time.as_secs_f64() / units)
    }
}

impl std::ops::Add for Took {
    type Output = Took;

    fn add(self, other: Took) -> Took {
        Took { cpu: self.cpu + other.cpu, wall: self.wall + other.wall }
    }
}

/// Adds what `work` takes to `total`.
pub fn timed<T>(total: &mut Took, work: impl FnOnce() -> T) -> T {
    let (cpu, wall) = (cpu_time().unwrap_or_default(), Instant::now());
    let result = work();
    let took = Took { cpu: cpu_time().unwrap_or_default().saturating_sub(cpu), wall: wall.elapsed() };
    *total = *total + took;
    result
}

/// The most memory that was resident since the program was loaded, in bytes: `VmHWM` of Linux, code
/// and libraries included.
pub fn peak_memory() -> Result<u64, Error> {
    let status = std::fs::read_to_string("/proc/self/status").map_err(|_| unknown("peak memory"))?;
    high_water_mark(&status).ok_or_else(|| unknown("peak memory"))
}

/// Reads `VmHWM:     5128 kB`, where the unit is 1,024 bytes.
fn high_water_mark(status: &str) -> Option<u64> {
    let value = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    value.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

fn unknown(what: &str) -> Error {
    Error::Usage(format!("this operating system does not tell the {what} of a process: measure on Linux"))
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;
    use std::thread;

    #[test]
    fn work_of_threads_that_ended_counts() {
        let start = cpu_time().unwrap();
        let work = || {
            let (begin, mine) = (Instant::now(), cpu_time().unwrap());
            while cpu_time().unwrap() - mine < Duration::from_millis(20) {
                assert!(begin.elapsed() < Duration::from_secs(30), "the clock stands still");
            }
        };
        thread::spawn(work).join().unwrap();
        assert!(cpu_time().unwrap() - start >= Duration::from_millis(20));
    }

    #[test]
    fn touched_memory_raises_the_peak_for_good() {
        const BYTES: usize = 64 << 20;
        let memory = vec![1u8; BYTES];
        let held = memory.iter().map(|&b| u64::from(b)).sum::<u64>();
        drop(memory);
        assert!(peak_memory().unwrap() >= held);
    }

    #[test]
    fn the_status_file_is_read_as_the_kernel_writes_it() {
        let status = "Name:\tseco\nVmPeak:\t   20000 kB\nVmHWM:\t    5128 kB\nVmRSS:\t    4000 kB\n";
        assert_eq!(high_water_mark(status), Some(5128 * 1024));
        assert_eq!(high_water_mark("VmRSS:\t 1 kB\n"), None);
        assert_eq!(high_water_mark("VmHWM:\t many kB\n"), None);
    }
}
