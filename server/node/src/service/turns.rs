//! Whose turn it is to make something ahead, for the links, processors and memory are there once for all models. A
//! bundle of a model of which so many are made at the same time takes its part of all there is; keys take all.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use seco_protocol::BUNDLES_AT_ONCE;
use tokio::sync::oneshot;

/// All there is, in shares: every number of bundles that may be made at the same time divides it.
pub const ALL: usize = 840;
const _: () = assert!(BUNDLES_AT_ONCE <= 8);

/// The share of one bundle of so many.
pub fn share(at_once: usize) -> usize {
    ALL / at_once.clamp(1, BUNDLES_AT_ONCE)
}

/// How much a model needs its turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Need {
    /// By its settings.
    pub priority: u8,
    /// Part of its pool that is empty, in thousandths.
    pub empty: usize,
}

/// Asked when a turn is given, for pools empty while models wait.
type Needs = Box<dyn Fn() -> Need + Send>;

/// The turns.
#[derive(Clone, Default)]
pub struct Turns {
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    /// Shares that are taken.
    taken: usize,
    waiting: Vec<Waiter>,
}

struct Waiter {
    needs: Needs,
    share: usize,
    turn: oneshot::Sender<Making>,
}

/// A model's turn, until this is dropped.
pub struct Making {
    turns: Option<Turns>,
    share: usize,
}

impl Turns {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for the turn, which takes `share` of [`ALL`]: of those who wait, it is the one's who needs it most, and has
    /// waited for longest. Nobody overtakes who needs it more and has to wait for a larger share to be free.
    pub async fn turn(&self, share: usize, needs: impl Fn() -> Need + Send + 'static) -> Making {
        let turn = {
            let mut state = self.state();
            let (sender, turn) = oneshot::channel();
            state.waiting.push(Waiter { needs: Box::new(needs), share: share.min(ALL), turn: sender });
            self.give(&mut state);
            turn
        };
        match turn.await {
            Ok(making) => making,
            // Nobody drops who waits.
            Err(_) => std::future::pending().await,
        }
    }

    /// Gives turns as long as there is room for the next.
    fn give(&self, state: &mut State) {
        state.waiting.retain(|waiter| !waiter.turn.is_closed());
        loop {
            let needs = state.waiting.iter().map(|waiter| (waiter.needs)()).enumerate();
            // The first of the equal ones.
            let Some((most, _)) = needs.rev().max_by_key(|(_, need)| *need) else { return };
            if state.waiting.get(most).is_none_or(|waiter| state.taken + waiter.share > ALL) {
                return;
            }
            let Waiter { share, turn, .. } = state.waiting.remove(most);
            match turn.send(Making { turns: Some(self.clone()), share }) {
                Ok(()) => state.taken += share,
                // It has just given up; its turn is not given back by itself, for the lock is held.
                Err(mut back) => back.turns = None,
            }
        }
    }
}

impl Drop for Making {
    fn drop(&mut self) {
        let Some(turns) = self.turns.take() else { return };
        let mut state = turns.state();
        state.taken -= self.share;
        turns.give(&mut state);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn need(priority: u8, empty: usize) -> impl Fn() -> Need + Send + 'static {
        move || Need { priority, empty }
    }

    #[test]
    fn every_number_of_bundles_fits() {
        for at_once in 1..=BUNDLES_AT_ONCE {
            assert_eq!(share(at_once) * at_once, ALL, "{at_once}");
        }
        assert_eq!((share(0), share(100)), (ALL, share(BUNDLES_AT_ONCE)));
    }

    #[tokio::test]
    async fn who_needs_it_most_is_next_and_one_at_a_time() {
        let turns = Turns::default();
        let first = turns.turn(ALL, need(0, 0)).await;
        let order = Arc::new(Mutex::new(Vec::new()));
        let mut tasks = Vec::new();
        for (name, priority, empty) in [("a", 0, 500), ("b", 0, 900), ("c", 1, 100), ("d", 0, 500)] {
            let (turns, order) = (turns.clone(), order.clone());
            let task = tokio::spawn(async move {
                let _turn = turns.turn(ALL, need(priority, empty)).await;
                order.lock().unwrap().push(name);
                tokio::task::yield_now().await;
            });
            tasks.push(task);
            tokio::task::yield_now().await;
        }
        let gave_up = tokio::spawn({
            let turns = turns.clone();
            async move { drop(turns.turn(ALL, need(9, 0)).await) }
        });
        tokio::task::yield_now().await;
        assert!(order.lock().unwrap().is_empty());
        gave_up.abort();
        let _ = gave_up.await;
        drop(first);
        for task in tasks {
            task.await.unwrap();
        }
        assert_eq!(*order.lock().unwrap(), ["c", "b", "a", "d"]);
        drop(turns.turn(ALL, need(0, 0)).await);
    }

    /// Shares add up to all there is at most, over all models, and a large one is not overtaken for ever.
    #[tokio::test]
    async fn as_many_at_the_same_time_as_fit() {
        let turns = Turns::default();
        let waits = |share: usize, needs: Need| {
            let turns = turns.clone();
            tokio::spawn(async move { turns.turn(share, need(needs.priority, needs.empty)).await })
        };
        let usual = Need { priority: 0, empty: 500 };
        let one = turns.turn(share(3), need(0, 0)).await;
        let two = turns.turn(share(3), need(0, 0)).await;
        // A half does not fit beside two thirds, and those who need it less wait behind it.
        let half = waits(share(2), usual);
        tokio::task::yield_now().await;
        let third = waits(share(3), Need { empty: 400, ..usual });
        tokio::task::yield_now().await;
        assert!(!half.is_finished() && !third.is_finished());
        drop(one);
        let half = half.await.unwrap();
        tokio::task::yield_now().await;
        assert!(!third.is_finished(), "a third, a half and a third");
        drop(two);
        let third = third.await.unwrap();
        // Keys wait until nothing is made, and nothing is made beside them.
        let keys = waits(ALL, usual);
        tokio::task::yield_now().await;
        drop(half);
        tokio::task::yield_now().await;
        assert!(!keys.is_finished());
        drop(third);
        let keys = keys.await.unwrap();
        let after = waits(share(8), usual);
        tokio::task::yield_now().await;
        assert!(!after.is_finished());
        drop(keys);
        drop(after.await.unwrap());
        assert_eq!(turns.state().taken, 0);
    }
}
