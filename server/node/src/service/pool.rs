//! Bundles that are ready, and the requests that wait for one and for their turn.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::pace::Pace;
use super::places::{Place, Places, Waiting};
use super::queue::Queue;
use crate::access::source::Who;
use crate::config;

/// Items made ahead, first in, first out; each is handed out once, and as many are used at a time as may be. The pool
/// says when more should be made: from `low` ready ones on until there are `size`, so that refilling runs in
/// stretches instead of once after every request.
pub struct Pool<T> {
    shared: Arc<Shared<T>>,
}

struct Shared<T> {
    state: Mutex<State<T>>,
}

struct State<T> {
    ready: VecDeque<T>,
    waiting: Queue<oneshot::Sender<Outcome<T>>>,
    settings: config::Pool,
    queue: usize,
    places: Arc<Places>,
    filling: bool,
    pace: Pace,
}

/// How the wait in the queue ends: by one's turn, or displaced by a device that has fewer waiting.
pub type Outcome<T> = Result<Turn<T>, Busy>;

/// There is no place in the queue.
#[derive(Debug, PartialEq, Eq)]
pub struct Busy {
    /// When all that the device has waiting will have had their turn.
    pub retry_after: Duration,
}

/// What a request gets.
pub enum Take<T> {
    /// Its turn.
    Ready(Turn<T>),
    /// A place in the queue.
    Queued {
        /// Requests before this one.
        position: usize,
        /// Time until its turn comes, roughly.
        wait: Duration,
        /// Gives the item; fails when waiting is pointless.
        ticket: oneshot::Receiver<Outcome<T>>,
    },
    /// The queue is full, and this device has as many waiting as any.
    Full(Busy),
}

/// An item that is being made, until this is dropped.
pub struct Begun<T> {
    since: Instant,
    pool: Arc<Shared<T>>,
}

impl<T> Begun<T> {
    /// It was made.
    pub fn made(self) {
        self.pool.state().pace.made(self.since.elapsed());
    }
}

impl<T> Drop for Begun<T> {
    fn drop(&mut self) {
        self.pool.state().pace.ended(self.since);
    }
}

/// A request's turn, with the item for it. Dropped, the next one has its turn.
pub struct Turn<T> {
    /// What it waited for.
    pub item: T,
    since: Instant,
    pool: Arc<Shared<T>>,
    place: Place,
}

impl<T> Turn<T> {
    fn new(item: T, pool: &Arc<Shared<T>>, place: Place) -> Self {
        Turn { item, since: Instant::now(), pool: pool.clone(), place }
    }

    /// The request was answered.
    pub fn answered(&self) {
        self.pool.state().pace.answered(self.since.elapsed());
    }
}

impl<T> Shared<T> {
    fn state(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives those whose turn it is what is ready.
    fn hand_out(self: &Arc<Self>) {
        let mut state = self.state();
        // Given back once the lock is not held any more: others are served then.
        let mut spare = None;
        while !state.waiting.is_empty() && !state.ready.is_empty() {
            let Some(place) = spare.take().or_else(|| state.places.take()) else { break };
            let (Some(item), Some(waiter)) = (state.ready.pop_front(), state.waiting.pop()) else { break };
            if let Err(Ok(Turn { item, place, .. })) = waiter.send(Ok(Turn::new(item, self, place))) {
                // That request gave up.
                state.ready.push_front(item);
                spare = Some(place);
            }
        }
        drop(state);
        drop(spare);
    }
}

impl<T: Send + 'static> Waiting for Shared<T> {
    fn serve(self: Arc<Self>) {
        self.hand_out();
    }
}

impl<T> State<T> {
    /// Time until the turn of a request that is added now.
    fn next(&self, who: Who) -> Duration {
        self.waiting.pace(who).unwrap_or_else(|| self.wait(self.waiting.ahead(who)))
    }

    /// Items that are ready or being made.
    fn coming(&self) -> usize {
        self.ready.len() + self.pace.making()
    }

    /// Time until the turn of a request with so many before it.
    fn wait(&self, position: usize) -> Duration {
        let place = position.saturating_add(1);
        let (free, limit) = (self.places.free(), self.places.limit());
        self.pace.wait(place.saturating_sub(self.ready.len()), place.saturating_sub(free), limit)
    }
}

impl<T: Send + 'static> Pool<T> {
    /// An empty pool; at most `queue` requests wait, and those that have a place have their turn.
    pub fn new(settings: config::Pool, queue: usize, places: &Arc<Places>) -> Self {
        let state = State {
            ready: VecDeque::new(),
            waiting: Queue::default(),
            settings,
            queue,
            places: places.clone(),
            filling: true,
            pace: Pace::default(),
        };
        let shared = Arc::new(Shared { state: Mutex::new(state) });
        let waiting: Arc<dyn Waiting> = shared.clone();
        places.add(Arc::downgrade(&waiting));
        Self { shared }
    }

    fn state(&self) -> MutexGuard<'_, State<T>> {
        self.shared.state()
    }

    /// When items are made.
    pub fn settings(&self) -> config::Pool {
        self.state().settings
    }

    /// Items ready.
    pub fn ready(&self) -> usize {
        self.state().ready.len()
    }

    /// Requests that wait for an item.
    pub fn waiting(&self) -> usize {
        let mut state = self.state();
        state.waiting.retain(|w| !w.is_closed());
        state.waiting.len()
    }

    /// Part of the pool that is empty, in thousandths. Those who wait count as items that are missing, up to all of it:
    /// a long queue for one model must not take every turn.
    pub fn empty(&self) -> usize {
        let waiting = self.waiting();
        let state = self.state();
        let size = state.settings.size.max(1);
        1000 * (size.saturating_sub(state.coming()) + waiting).min(size) / size
    }

    /// Whether another item should be made now.
    pub fn wants(&self) -> bool {
        let mut state = self.state();
        state.waiting.retain(|w| !w.is_closed());
        let ready = state.ready.len();
        if ready >= state.settings.size {
            state.filling = false;
        } else if ready <= state.settings.low {
            state.filling = true;
        }
        let (coming, waiting) = (state.coming(), state.waiting.len());
        // Those who wait take what comes first.
        state.filling && coming < state.settings.size + waiting || waiting > coming
    }

    /// Whether requests wait for items that are not there, or will soon: less than half of them are ready.
    pub fn lacks(&self) -> bool {
        let waiting = self.waiting();
        let state = self.state();
        waiting > state.ready.len() || 2 * state.ready.len() < state.settings.size
    }

    /// What an item takes to be made, on average, if one was.
    pub fn usual(&self) -> Option<Duration> {
        self.state().pace.bundle()
    }

    /// An item is begun.
    pub fn begin(&self) -> Begun<T> {
        Begun { since: self.state().pace.begun(), pool: self.shared.clone() }
    }

    /// Adds an item, for the one whose turn is next, if anybody waits.
    pub fn put(&self, item: T) {
        self.state().ready.push_back(item);
        self.shared.hand_out();
    }

    /// Takes an item, or a place in the queue.
    pub fn take(&self, who: Who) -> Take<T> {
        let mut state = self.state();
        state.waiting.retain(|w| !w.is_closed());
        if state.waiting.is_empty()
            && !state.ready.is_empty()
            && let Some(place) = state.places.take()
            && let Some(item) = state.ready.pop_front()
        {
            return Take::Ready(Turn::new(item, &self.shared, place));
        }
        if state.waiting.len() >= state.queue {
            match state.waiting.displace(who) {
                Some((displaced, waiter)) => {
                    let retry_after = state.next(displaced);
                    // Whether it is still there does not matter.
                    let _ = waiter.send(Err(Busy { retry_after }));
                }
                None => return Take::Full(Busy { retry_after: state.next(who) }),
            }
        }
        let position = state.waiting.ahead(who);
        let wait = state.waiting.pace(who).unwrap_or_else(|| state.wait(position));
        let (sender, ticket) = oneshot::channel();
        state.waiting.push(who, sender);
        Take::Queued { position, wait, ticket }
    }

    /// Takes an item that nobody may need soon: nobody waits, and more than half of the pool is there.
    pub fn spare(&self) -> Option<T> {
        let mut state = self.state();
        state.waiting.retain(|w| !w.is_closed());
        let plenty = 2 * state.ready.len() > state.settings.size;
        if plenty && state.waiting.is_empty() { state.ready.pop_front() } else { None }
    }

    /// When all that wait now will have had their turn.
    pub fn busy(&self) -> Busy {
        let state = self.state();
        Busy { retry_after: state.wait(state.waiting.len()) }
    }

    /// Removes the items that do not pass, in order.
    pub fn remove(&self, goes: impl Fn(&T) -> bool) -> Vec<T> {
        let mut state = self.state();
        let (gone, kept) = state.ready.drain(..).partition(goes);
        state.ready = kept;
        Vec::from(gone)
    }

    /// Turns all waiting requests away.
    pub fn turn_away(&self) {
        self.state().waiting = Queue::default();
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use seco_core::SessionId;

    use super::*;

    fn pool(size: usize, low: usize, queue: usize) -> Pool<u32> {
        Pool::new(config::Pool { size, low, ..Default::default() }, queue, &Places::new(8))
    }

    fn who(device: u8) -> Who {
        Who { source: IpAddr::from([192, 0, 2, 1]).into(), device: SessionId([device; 16]) }
    }

    fn queued<T>(take: Take<T>) -> (usize, oneshot::Receiver<Outcome<T>>) {
        let Take::Queued { position, ticket, .. } = take else { panic!() };
        (position, ticket)
    }

    #[test]
    fn a_long_queue_is_no_emptier_than_an_empty_pool() {
        let pool = pool(4, 3, 64);
        assert_eq!(pool.empty(), 1000);
        pool.put(1);
        assert_eq!(pool.empty(), 750);
        drop(pool.take(who(1)));
        let waiting: Vec<_> = (0..40).map(|device| queued(pool.take(who(device)))).collect();
        assert_eq!(pool.empty(), 1000);
        // Who gave up does not count.
        drop(waiting);
        (0..4).for_each(|item| pool.put(item));
        assert_eq!(pool.empty(), 0);
    }

    #[test]
    fn refills_in_stretches() {
        let pool = pool(4, 1, 8);
        for i in 0..4 {
            assert!(pool.wants());
            pool.put(i);
        }
        assert!(!pool.wants());
        for _ in 0..2 {
            assert!(matches!(pool.take(who(1)), Take::Ready(_)));
            assert!(!pool.wants(), "still above the low mark");
        }
        assert!(matches!(pool.take(who(1)), Take::Ready(Turn { item: 2, .. })));
        for i in 4..7 {
            assert!(pool.wants());
            pool.put(i);
        }
        assert!(!pool.wants());
    }

    /// What is being made counts for whether another one is begun, and not for whether there is enough.
    #[test]
    fn items_that_are_being_made_are_not_made_twice() {
        let pool = pool(4, 1, 8);
        let mut begun: Vec<_> = (0..4)
            .map(|_| {
                assert!(pool.wants());
                pool.begin()
            })
            .collect();
        assert!(!pool.wants());
        assert_eq!(pool.empty(), 0);
        // One fails, another is made and taken.
        drop(begun.pop());
        assert!(pool.wants());
        begun.push(pool.begin());
        begun.pop().unwrap().made();
        pool.put(1);
        assert!(!pool.wants());
        assert!(matches!(pool.take(who(1)), Take::Ready(_)));
        assert!(pool.wants(), "the pool was never full");
        begun.push(pool.begin());
        assert!(!pool.wants());
        // Who waits takes one of them.
        let waiting = queued(pool.take(who(1)));
        assert!(pool.wants() && pool.lacks());
        begun.push(pool.begin());
        assert!(!pool.wants());
        drop((waiting, begun));
    }

    /// Fewer than half are too few, and so are fewer than those who wait.
    #[test]
    fn a_pool_that_runs_short_is_known() {
        let pool = pool(4, 1, 8);
        for (item, lacks) in [(1, true), (2, false), (3, false)] {
            pool.put(item);
            assert_eq!(pool.lacks(), lacks, "{item}");
        }
        let taken = (0..3).map(|_| pool.take(who(1)));
        let taken: Vec<_> = taken.collect();
        assert!(pool.lacks());
        drop(taken);
    }

    #[test]
    fn serves_waiting_requests_in_order_and_skips_those_that_gave_up() {
        let pool = pool(2, 0, 2);
        let (at, mut first) = queued(pool.take(who(1)));
        let (then, second) = queued(pool.take(who(1)));
        assert_eq!((at, then), (0, 1));
        assert!(matches!(pool.take(who(1)), Take::Full(_)));
        drop(second);
        let (at, mut third) = queued(pool.take(who(1)));
        assert_eq!(at, 1);
        pool.put(7);
        pool.put(8);
        let item = |outcome: Outcome<u32>| outcome.map(|turn| turn.item).unwrap();
        assert_eq!((item(first.try_recv().unwrap()), item(third.try_recv().unwrap())), (7, 8));
        assert_eq!(pool.ready(), 0);
    }

    #[test]
    fn a_device_with_few_waiting_displaces_one_with_many() {
        let pool = pool(2, 0, 2);
        let (_, mut kept) = queued(pool.take(who(1)));
        let (_, mut goes) = queued(pool.take(who(1)));
        let (at, mut other) = queued(pool.take(who(2)));
        assert_eq!(at, 1);
        assert!(goes.try_recv().unwrap().is_err());
        pool.put(1);
        assert!(kept.try_recv().is_ok() && other.try_recv().is_err());
    }

    #[test]
    fn no_more_run_than_may_and_a_place_is_free_at_once() {
        let pool = Pool::new(config::Pool { size: 8, low: 0, ..Default::default() }, 8, &Places::new(2));
        (0..6).for_each(|n| pool.put(n));
        let Take::Ready(one) = pool.take(who(1)) else { panic!() };
        let Take::Ready(_two) = pool.take(who(1)) else { panic!() };
        let (_, mut third) = queued(pool.take(who(1)));
        let (at, mut fourth) = queued(pool.take(who(2)));
        assert_eq!(at, 1);
        drop(one);
        assert_eq!(third.try_recv().unwrap().map(|turn| turn.item).unwrap(), 2);
        // Dropped there, so the next one runs.
        assert_eq!(fourth.try_recv().unwrap().map(|turn| turn.item).unwrap(), 3);
        assert!(matches!(pool.take(who(3)), Take::Ready(_)));
    }

    /// More than half of the pool must be there, and nobody wait.
    #[test]
    fn an_item_is_to_spare_where_there_are_plenty() {
        let pool = pool(4, 3, 8);
        (0..2).for_each(|item| pool.put(item));
        assert_eq!(pool.spare(), None, "half of it");
        pool.put(2);
        assert_eq!((pool.spare(), pool.ready()), (Some(0), 2));
        assert_eq!(pool.spare(), None);
        (3..6).for_each(|item| pool.put(item));
        assert_eq!(pool.spare(), Some(1));
        let pool = Pool::new(config::Pool { size: 4, low: 3, ..Default::default() }, 8, &Places::new(1));
        (0..6).for_each(|item| pool.put(item));
        let Take::Ready(_running) = pool.take(who(1)) else { panic!() };
        let (_, waits) = queued(pool.take(who(1)));
        assert_eq!(pool.spare(), None, "somebody waits");
        drop(waits);
        assert_eq!(pool.spare(), Some(1));
    }

    /// Pools share the places: those who wait at another have theirs as soon as one is free, and in turn.
    #[test]
    fn a_place_goes_to_the_next_pool() {
        let places = Places::new(1);
        let new = || Pool::new(config::Pool { size: 8, low: 0, ..Default::default() }, 8, &places);
        let (a, b) = (new(), new());
        (0..4).for_each(|n| {
            a.put(n);
            b.put(10 + n);
        });
        let Take::Ready(first) = a.take(who(1)) else { panic!() };
        let mut tickets: Vec<_> = [&a, &b, &a, &b].iter().map(|pool| queued(pool.take(who(1))).1).collect();
        drop(first);
        // Each turn is dropped before the next is looked for, so all have been given out.
        let mut order = Vec::new();
        while order.len() < 4 {
            let at = tickets.iter_mut().position(|ticket| {
                ticket.try_recv().is_ok_and(|outcome| outcome.map(|turn| order.push(turn.item)).is_ok())
            });
            tickets.remove(at.unwrap());
        }
        assert_eq!(order.iter().filter(|item| **item < 10).count(), 2, "{order:?}");
        assert!(order.windows(2).all(|pair| (pair[0] < 10) != (pair[1] < 10)), "{order:?}");
        assert_eq!(places.free(), 1);
    }

    #[test]
    fn turned_away_requests_notice() {
        let pool = pool(2, 0, 2);
        let (_, mut ticket) = queued(pool.take(who(1)));
        pool.turn_away();
        assert!(matches!(ticket.try_recv(), Err(oneshot::error::TryRecvError::Closed)));
    }
}
