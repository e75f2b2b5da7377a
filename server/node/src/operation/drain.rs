//! Ending without taking anybody's answer away: what is under way ends, new requests are refused.

use tokio::sync::watch;

#[derive(Clone, Copy, Default)]
struct State {
    draining: bool,
    under_way: usize,
}

/// Counts requests under way, and says whether new ones are taken.
#[derive(Default)]
pub(crate) struct Drain {
    state: watch::Sender<State>,
}

/// A request under way, until this is dropped.
pub(crate) struct UnderWay(watch::Sender<State>);

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.send_modify(|state| state.under_way -= 1);
    }
}

impl Drain {
    /// Takes a request; nothing once the server drains.
    pub fn enter(&self) -> Option<UnderWay> {
        // In one step: whoever is taken is counted before anybody looks whether all have ended.
        let entered = self.state.send_if_modified(|state| {
            state.under_way += usize::from(!state.draining);
            !state.draining
        });
        entered.then(|| UnderWay(self.state.clone()))
    }

    /// Counts a part of a request that was taken, which may outlive it: its device may leave.
    pub fn again(&self) -> UnderWay {
        self.state.send_modify(|state| state.under_way += 1);
        UnderWay(self.state.clone())
    }

    /// Takes no more requests from now on.
    pub fn begin(&self) {
        self.state.send_modify(|state| state.draining = true);
    }

    /// Whether [`Self::begin`] was called.
    pub fn has_begun(&self) -> bool {
        self.state.borrow().draining
    }

    /// Requests under way.
    pub fn under_way(&self) -> usize {
        self.state.borrow().under_way
    }

    /// Waits for [`Self::begin`].
    pub async fn begun(&self) {
        // Fails never: the sender is here.
        let _ = self.state.subscribe().wait_for(|state| state.draining).await;
    }

    /// Waits until nothing is under way any more, and nothing will be.
    pub async fn ended(&self) {
        let _ = self.state.subscribe().wait_for(|state| state.draining && state.under_way == 0).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_was_taken_ends_and_nothing_more_is_taken() {
        let drain = Drain::default();
        let (one, two) = (drain.enter().unwrap(), drain.enter().unwrap());
        drain.begin();
        assert!(drain.enter().is_none());
        assert_eq!(drain.under_way(), 2);
        drop(one);
        // What belongs to the other is counted though nothing new is taken.
        drop((drain.again(), two));
        let two = drain.again();
        let early = tokio::time::timeout(std::time::Duration::from_millis(20), drain.ended()).await;
        assert!(early.is_err(), "one is still under way");
        drop(two);
        drain.ended().await;
    }
}
