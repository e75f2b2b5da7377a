//! Threads that compute for requests. What is made ahead is computed by others, and no request stands in line behind it.

use std::sync::OnceLock;

use rayon::{ThreadPool, ThreadPoolBuilder};

/// Runs `work`, and whatever that computes in parallel, on these threads. It must not wait for anybody.
pub(super) fn on_own_threads<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    static THREADS: OnceLock<Option<ThreadPool>> = OnceLock::new();
    let threads = THREADS.get_or_init(|| {
        ThreadPoolBuilder::new().thread_name(|number| format!("online-{number}")).build().ok()
    });
    match threads {
        Some(threads) => threads.install(work),
        // A system that gives no more threads.
        None => work(),
    }
}
