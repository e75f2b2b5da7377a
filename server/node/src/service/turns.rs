//! Whose turn it is to make something ahead: one model at a time, for the links and processors are there once.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

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
    taken: bool,
    waiting: Vec<(Needs, oneshot::Sender<Making>)>,
}

/// A model's turn, until this is dropped.
pub struct Making {
    turns: Option<Turns>,
}

impl Turns {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for the turn: of those who wait, it is the one's who needs it most, and has waited for longest.
    pub async fn turn(&self, need: impl Fn() -> Need + Send + 'static) -> Making {
        let turn = {
            let mut state = self.state();
            if !state.taken {
                state.taken = true;
                return Making { turns: Some(self.clone()) };
            }
            let (sender, turn) = oneshot::channel();
            state.waiting.push((Box::new(need), sender));
            turn
        };
        match turn.await {
            Ok(making) => making,
            // Nobody drops who waits.
            Err(_) => std::future::pending().await,
        }
    }
}

impl Drop for Making {
    fn drop(&mut self) {
        let Some(turns) = self.turns.take() else { return };
        let mut state = turns.state();
        loop {
            state.waiting.retain(|(_, waiter)| !waiter.is_closed());
            let needs = state.waiting.iter().map(|(need, _)| need()).enumerate();
            // The first of the equal ones.
            let Some((most, _)) = needs.rev().max_by_key(|(_, need)| *need) else {
                state.taken = false;
                return;
            };
            let (_, waiter) = state.waiting.remove(most);
            match waiter.send(Making { turns: Some(turns.clone()) }) {
                Ok(()) => return,
                // It has just given up; its turn is not given back by itself, for the lock is held.
                Err(mut back) => back.turns = None,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn need(priority: u8, empty: usize) -> impl Fn() -> Need + Send + 'static {
        move || Need { priority, empty }
    }

    #[tokio::test]
    async fn who_needs_it_most_is_next_and_one_at_a_time() {
        let turns = Turns::default();
        let first = turns.turn(need(0, 0)).await;
        let order = Arc::new(Mutex::new(Vec::new()));
        let mut tasks = Vec::new();
        for (name, priority, empty) in [("a", 0, 500), ("b", 0, 900), ("c", 1, 100), ("d", 0, 500)] {
            let (turns, order) = (turns.clone(), order.clone());
            let task = tokio::spawn(async move {
                let _turn = turns.turn(need(priority, empty)).await;
                order.lock().unwrap().push(name);
                tokio::task::yield_now().await;
            });
            tasks.push(task);
            tokio::task::yield_now().await;
        }
        let gave_up = tokio::spawn({
            let turns = turns.clone();
            async move { drop(turns.turn(need(9, 0)).await) }
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
        drop(turns.turn(need(0, 0)).await);
    }
}
