//! Bundles that are ready, and the requests that wait for one.

use std::collections::VecDeque;

use tokio::sync::oneshot;

use crate::config;

/// Items made ahead, first in, first out; each is handed out once. The pool says when more should
/// be made: from `low` ready ones on until there are `size`, so that refilling runs in stretches
/// instead of once after every request.
pub struct Pool<T> {
    ready: VecDeque<T>,
    waiting: VecDeque<oneshot::Sender<T>>,
    settings: config::Pool,
    queue: usize,
    filling: bool,
}

/// What a request gets.
pub enum Take<T> {
    /// An item.
    Ready(T),
    /// A place in the queue.
    Queued {
        /// Requests before this one.
        position: usize,
        /// Gives the item; fails when waiting is pointless.
        ticket: oneshot::Receiver<T>,
    },
    /// The queue is full.
    Full,
}

impl<T> Pool<T> {
    /// An empty pool; at most `queue` requests wait.
    pub fn new(settings: config::Pool, queue: usize) -> Self {
        Self { ready: VecDeque::new(), waiting: VecDeque::new(), settings, queue, filling: true }
    }

    /// When items are made.
    pub fn settings(&self) -> config::Pool {
        self.settings
    }

    /// Items ready.
    pub fn ready(&self) -> usize {
        self.ready.len()
    }

    /// Requests that wait for an item.
    pub fn waiting(&self) -> usize {
        self.waiting.iter().filter(|waiter| !waiter.is_closed()).count()
    }

    /// Whether another item should be made now.
    pub fn wants(&mut self) -> bool {
        self.waiting.retain(|w| !w.is_closed());
        if self.ready.len() >= self.settings.size {
            self.filling = false;
        } else if self.ready.len() <= self.settings.low {
            self.filling = true;
        }
        self.filling || !self.waiting.is_empty()
    }

    /// Adds an item, for the first who waits, if anybody does.
    pub fn put(&mut self, mut item: T) {
        while let Some(waiter) = self.waiting.pop_front() {
            match waiter.send(item) {
                Ok(()) => return,
                // That request gave up.
                Err(back) => item = back,
            }
        }
        self.ready.push_back(item);
    }

    /// Takes an item, or a place in the queue.
    pub fn take(&mut self) -> Take<T> {
        if let Some(item) = self.ready.pop_front() {
            return Take::Ready(item);
        }
        self.waiting.retain(|w| !w.is_closed());
        let position = self.waiting.len();
        if position >= self.queue {
            return Take::Full;
        }
        let (sender, ticket) = oneshot::channel();
        self.waiting.push_back(sender);
        Take::Queued { position, ticket }
    }

    /// Removes the items that do not pass, in order.
    pub fn remove(&mut self, goes: impl Fn(&T) -> bool) -> Vec<T> {
        let (gone, kept) = self.ready.drain(..).partition(goes);
        self.ready = kept;
        Vec::from(gone)
    }

    /// Turns all waiting requests away.
    pub fn turn_away(&mut self) {
        self.waiting.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool(size: usize, low: usize, queue: usize) -> Pool<u32> {
        Pool::new(config::Pool { size, low, ..Default::default() }, queue)
    }

    #[test]
    fn refills_in_stretches() {
        let mut pool = pool(4, 1, 8);
        for i in 0..4 {
            assert!(pool.wants());
            pool.put(i);
        }
        assert!(!pool.wants());
        for _ in 0..2 {
            assert!(matches!(pool.take(), Take::Ready(_)));
            assert!(!pool.wants(), "still above the low mark");
        }
        assert!(matches!(pool.take(), Take::Ready(2)));
        for i in 4..7 {
            assert!(pool.wants());
            pool.put(i);
        }
        assert!(!pool.wants());
    }

    #[test]
    fn serves_waiting_requests_in_order_and_skips_those_that_gave_up() {
        let mut pool = pool(2, 0, 2);
        let Take::Queued { position: 0, ticket: mut first } = pool.take() else { panic!() };
        let Take::Queued { position: 1, ticket: second } = pool.take() else { panic!() };
        assert!(matches!(pool.take(), Take::Full));
        drop(second);
        let Take::Queued { position: 1, ticket: mut third } = pool.take() else { panic!() };
        pool.put(7);
        pool.put(8);
        assert_eq!((first.try_recv(), third.try_recv()), (Ok(7), Ok(8)));
        assert_eq!(pool.ready(), 0);
    }

    #[test]
    fn turned_away_requests_notice() {
        let mut pool = pool(2, 0, 2);
        let Take::Queued { mut ticket, .. } = pool.take() else { panic!() };
        pool.turn_away();
        assert!(matches!(ticket.try_recv(), Err(oneshot::error::TryRecvError::Closed)));
    }
}
