//! How many requests run at a time, over all models.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use tokio::sync::Notify;
use tokio::sync::futures::Notified;

/// Who may have requests that wait for a place.
pub trait Waiting: Send + Sync {
    /// There may be one.
    fn serve(self: Arc<Self>);
}

/// The places.
pub struct Places {
    limit: usize,
    state: Mutex<State>,
    /// Told whenever one is given back.
    freed: Notify,
}

#[derive(Default)]
struct State {
    taken: usize,
    waiting: Vec<Weak<dyn Waiting>>,
    /// Who is asked first the next time: all in turn.
    next: usize,
}

/// One place, until this is dropped.
pub struct Place(Arc<Places>);

impl Places {
    /// So many, all free.
    pub fn new(limit: usize) -> Arc<Self> {
        Arc::new(Places { limit, state: Mutex::default(), freed: Notify::new() })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whoever takes places is told when there may be one again.
    pub fn add(&self, waiting: Weak<dyn Waiting>) {
        let mut state = self.state();
        state.waiting.retain(|waiting| waiting.strong_count() > 0);
        state.waiting.push(waiting);
    }

    /// A place, if one is free.
    pub fn take(self: &Arc<Self>) -> Option<Place> {
        let mut state = self.state();
        if state.taken >= self.limit {
            return None;
        }
        state.taken += 1;
        Some(Place(self.clone()))
    }

    /// Places that are free.
    pub fn free(&self) -> usize {
        self.limit.saturating_sub(self.state().taken)
    }

    /// Waits until a place is given back, from now on.
    pub fn freed(&self) -> Notified<'_> {
        self.freed.notified()
    }

    /// All places.
    pub fn limit(&self) -> usize {
        self.limit
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let waiting: Vec<_> = {
            let mut state = self.0.state();
            state.taken -= 1;
            state.next = state.next.wrapping_add(1);
            let (first, count) = (state.next, state.waiting.len());
            (0..count)
                .filter_map(|i| state.waiting.get((first + i) % count).and_then(Weak::upgrade))
                .collect()
        };
        waiting.into_iter().for_each(Waiting::serve);
        self.0.freed.notify_waiters();
    }
}
