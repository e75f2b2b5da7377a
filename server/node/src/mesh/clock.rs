//! How long a job may wait for another server.

use std::time::Duration;

use seco_protocol::ChannelError;
use tokio::sync::watch;
use tokio::time::Instant;

/// Until when a job may wait, and whether it was cancelled.
#[derive(Clone)]
pub struct Clock {
    deadline: Instant,
    cancelled: watch::Receiver<bool>,
}

impl Clock {
    /// A time limit from now, for what nobody cancels.
    pub fn new(limit: Duration) -> Self {
        // A sender that is gone would mean "cancelled"; this one is never asked.
        static NEVER: std::sync::LazyLock<watch::Sender<bool>> =
            std::sync::LazyLock::new(|| watch::Sender::new(false));
        Self { deadline: Instant::now() + limit, cancelled: NEVER.subscribe() }
    }

    /// A time limit from now, for a job that `sender` cancels.
    pub(crate) fn of_job(limit: Duration, sender: &watch::Sender<bool>) -> Self {
        Self { deadline: Instant::now() + limit, cancelled: sender.subscribe() }
    }

    /// Waits for `peer`, but not longer than the job may.
    pub(crate) async fn limit<T>(
        &self,
        peer: usize,
        wait: impl Future<Output = T>,
    ) -> Result<T, ChannelError> {
        let mut cancelled = self.cancelled.clone();
        tokio::select! {
            // What is there already counts even when time is up.
            biased;
            value = wait => Ok(value),
            _ = cancelled.wait_for(|&c| c) => Err(ChannelError::Closed { peer }),
            () = tokio::time::sleep_until(self.deadline) => Err(ChannelError::TimedOut { peer }),
        }
    }
}
