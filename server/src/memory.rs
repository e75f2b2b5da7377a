//! How the process asks the system for memory.

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
