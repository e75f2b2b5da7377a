//! The same work for many inputs, on all cores.

use std::sync::Mutex;

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

/// Runs `work` on each of `items`, with its number, as cores get free.
pub(crate) fn each_in_parallel<T: Send>(items: &mut [T], work: impl Fn(usize, &mut T) + Sync) {
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(items.len().max(1));
    let (work, left) = (&work, &Mutex::new(items.iter_mut().enumerate()));
    let next = || left.lock().ok().and_then(|mut left| left.next());
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(move || {
                while let Some((number, item)) = next() {
                    work(number, item);
                }
            });
        }
    });
}
