//! What servers use, from outside: by the files of `/proc`, where there are such.

use std::fs;

/// What a server's process has used.
#[derive(Clone, Copy, Debug, Default)]
pub struct Usage {
    /// CPU time of all threads, in seconds.
    pub cpu: Option<f64>,
    /// Memory in use, and the most that ever was, in bytes.
    pub memory: Option<u64>,
    pub memory_peak: Option<u64>,
    /// Open files and sockets.
    pub handles: Option<u64>,
}

impl Usage {
    /// Of each process.
    pub fn of(processes: &[u32]) -> Vec<Usage> {
        processes.iter().map(|&id| Usage::of_one(id)).collect()
    }

    fn of_one(id: u32) -> Usage {
        let status = fs::read_to_string(format!("/proc/{id}/status")).unwrap_or_default();
        let stat = fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
        let handles = fs::read_dir(format!("/proc/{id}/fd")).ok().map(|files| files.count() as u64);
        Usage {
            cpu: ticks(&stat).map(|ticks| ticks as f64 / ticks_per_second()),
            memory: kilobytes(&status, "VmRSS:"),
            memory_peak: kilobytes(&status, "VmHWM:"),
            handles,
        }
    }
}

/// Memory in use of each process, in bytes.
pub fn memory(processes: &[u32]) -> Vec<Option<u64>> {
    Usage::of(processes).into_iter().map(|usage| usage.memory).collect()
}

/// Lets this process have as many sockets as the system allows it: every device has some.
pub fn allow_handles() {
    #[cfg(unix)]
    {
        use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
        let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
        let _ = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
    }
}

#[cfg(unix)]
fn ticks_per_second() -> f64 {
    rustix::param::clock_ticks_per_second() as f64
}

#[cfg(not(unix))]
fn ticks_per_second() -> f64 {
    1.0
}

/// User and system time in a line of `/proc/ID/stat`: the 14th and 15th of its fields, of which the second is a name in
/// brackets that may hold anything.
fn ticks(stat: &str) -> Option<u64> {
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    user.checked_add(fields.next()?.parse().ok()?)
}

/// Reads `VmRSS:     5128 kB`, where the unit is 1,024 bytes.
fn kilobytes(status: &str, name: &str) -> Option<u64> {
    let value = status.lines().find_map(|line| line.strip_prefix(name))?;
    value.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_read_as_the_kernel_writes_them() {
        let stat = "42 (a) b) S 1 42 42 0 -1 4194560 100 0 0 0 250 31 0 0 20 0 8 0 5 1000 20";
        assert_eq!(ticks(stat), Some(281));
        assert_eq!(ticks("42 (seco) S 1 2"), None);
        assert_eq!(ticks(""), None);
        let status = "Name:\tseco\nVmHWM:\t    5128 kB\nVmRSS:\t    4000 kB\n";
        assert_eq!(kilobytes(status, "VmRSS:"), Some(4000 * 1024));
        assert_eq!(kilobytes(status, "VmSwap:"), None);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn this_process_uses_something() {
        let usage = Usage::of_one(std::process::id());
        assert!(usage.memory.unwrap() > 1 << 20 && usage.memory_peak >= usage.memory && usage.cpu.is_some());
        assert!(usage.handles.unwrap() > 2);
    }
}
