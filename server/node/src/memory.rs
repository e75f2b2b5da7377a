//! How the process asks the system for memory, and what it asks for its secrets there.

/// Keeps freed memory for the next bundle. Bundles are made of buffers of megabytes, which glibc
/// otherwise gives back to the system each time, to be mapped and cleared anew page by page: that
/// takes as long as garbling. What is kept is bounded by what was needed at once.
///
/// One arena for all threads: with one for each, what one thread frees the others cannot use, and the last
/// block of an arena goes back to the system whatever the settings.
///
/// Call it before there are threads.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[allow(
    unsafe_code,
    reason = "the foreign-function boundary: the C library's settings have no other interface"
)]
pub fn keep() {
    /// The most that glibc allows: blocks beyond are mapped one by one all the same.
    const MAPPED: i32 = 32 << 20;
    const NEVER: i32 = i32::MAX;
    // SAFETY: `mallopt` only sets numbers of the allocator and takes its own lock. Settings that it does not
    // know change nothing.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, MAPPED);
        libc::mallopt(libc::M_TRIM_THRESHOLD, NEVER);
        libc::mallopt(libc::M_ARENA_MAX, 1);
    }
}

/// Other allocators decide by themselves.
#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
pub fn keep() {}

/// Gives freed memory back to the system after all, for a time in which nothing is made. Where memory is locked
/// ([`lock`]) the system takes back only what is at its end.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[allow(unsafe_code, reason = "the foreign-function boundary: the C library has no other interface for it")]
pub fn give_back() {
    // SAFETY: `malloc_trim` takes the allocator's own locks and touches free memory only.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// Other allocators decide by themselves.
#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
pub fn give_back() {}

/// Keeps what is in memory out of core files, and other processes of the same user away from it. Where the
/// system cannot, nothing happens: it protects against mishaps, and the protocol does not rest on it.
pub fn keep_secret() {
    #[cfg(unix)]
    {
        use rustix::process::{Resource, Rlimit, setrlimit};
        let _ = setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) });
    }
    #[cfg(any(target_os = "linux", target_os = "android"))]
    {
        use rustix::process::{DumpableBehavior, set_dumpable_behavior};
        let _ = set_dumpable_behavior(DumpableBehavior::NotDumpable);
    }
}

/// Keeps all memory of the process, now and later, out of swap space, if the system sets no limit to that.
///
/// Keys are in many places (sessions, OT seeds, bundles), so that locking some pages would say more than it
/// does. Under a limit all that is beyond it could not be allocated at all: then nothing is locked, and the log
/// says what to do.
pub fn lock() {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    match linux::lock_all() {
        Ok(()) => tracing::debug!("memory is locked: keys do not reach swap space"),
        Err(linux::Limited { bytes }) => tracing::info!(
            "memory is not locked, so keys may reach swap space: the system locks no more than {} KiB for this \
             server; allow all (LimitMEMLOCK=infinity in its systemd unit, or ulimit -l unlimited), or encrypt \
             swap space",
            bytes / 1024
        ),
    }
}

#[cfg(any(target_os = "linux", target_os = "android"))]
mod linux {
    use rustix::mm::{MlockAllFlags, mlockall};
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

    /// What the system locks at most.
    pub struct Limited {
        pub bytes: u64,
    }

    /// Locks every page once it is used. Only for a process without a limit, by its settings or by privilege:
    /// with one, later allocations would fail.
    pub fn lock_all() -> Result<(), Limited> {
        let Rlimit { current, maximum } = getrlimit(Resource::Memlock);
        if current.is_some() && maximum.is_none() {
            // Nobody but the caller of the shell wanted a limit; whoever may have none can lift it.
            let _ = setrlimit(Resource::Memlock, Rlimit { current: None, maximum });
        }
        let Some(bytes) = getrlimit(Resource::Memlock).current else {
            return all().map_err(|_| Limited { bytes: 0 });
        };
        // The privilege is tried out where nothing else allows it.
        let none = Rlimit { current: Some(0), maximum };
        if setrlimit(Resource::Memlock, none).is_err() {
            return Err(Limited { bytes });
        }
        let locked = all();
        let _ = setrlimit(Resource::Memlock, Rlimit { current: Some(bytes), maximum });
        locked.map_err(|_| Limited { bytes })
    }

    /// A page that was never used takes no memory for being locked.
    fn all() -> rustix::io::Result<()> {
        mlockall(MlockAllFlags::CURRENT | MlockAllFlags::FUTURE | MlockAllFlags::ONFAULT)
    }
}

#[cfg(all(test, target_os = "linux", target_env = "gnu"))]
mod tests {
    /// Megabytes in memory.
    fn resident() -> Option<i64> {
        let status = std::fs::read_to_string("/proc/self/status").ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
        Some(line.trim().trim_end_matches(" kB").parse::<i64>().ok()? / 1024)
    }

    #[test]
    fn freed_memory_goes_back() {
        // Blocks that glibc does not map one by one, with some left between them and at the end.
        let mut blocks: Vec<_> = (0..4000).map(|k| vec![k as u8 | 1; 64 << 10]).collect();
        let mut number = 0;
        blocks.retain(|_| {
            number += 1;
            number % 16 == 0
        });
        let before = resident().unwrap();
        super::give_back();
        let after = resident().unwrap();
        assert!(before - after > 100, "{before} MB before, {after} MB after");
        assert!(blocks.iter().all(|block| block[0] == block[block.len() - 1]));
    }
}
