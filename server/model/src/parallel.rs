//! The same work for many inputs, on all cores.

use crate::Error;

/// Runs `work` on parts of `items`, one on each core, and gives what it made of them in order.
pub(crate) fn in_parallel<T: Sync, R: Send>(
    items: &[T],
    work: impl Fn(&[T]) -> Result<R, Error> + Sync,
) -> Result<Vec<R>, Error> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let work = &work;
    std::thread::scope(|scope| {
        let parts = items.chunks(items.len().div_ceil(threads).max(1));
        let started: Vec<_> = parts.map(|part| scope.spawn(move || work(part))).collect();
        let panicked = || Err(Error::Shape("a thread ended early".to_owned()));
        started.into_iter().map(|thread| thread.join().unwrap_or_else(|_| panicked())).collect()
    })
}
