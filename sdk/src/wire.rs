//! One request and its answer, on any transport.

use crate::transport::Connection;
use crate::{Error, Loss, Progress, Result, Violation};
use bytes::Bytes;
use seco_core::Response;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::task::Poll;
use std::time::Duration;
use tokio::runtime::Handle;

/// Longest silence while a request runs: then a ping keeps the way open. Address translators forget UDP after
/// 30 seconds, and a ping is sent after at most two of these intervals.
const PING_INTERVAL: Duration = Duration::from_secs(10);

/// Intervals without a sign of the gateway, though something was sent, after which a connection is lost.
const SILENT_INTERVALS: u32 = 2;

/// How requests are made.
pub(crate) struct Caller {
    /// Longest answer, in bytes.
    pub(crate) limit: usize,
    /// Time between looks at the connection while a request runs.
    interval: Duration,
    /// Timers are made on it, so that any executor may poll requests.
    runtime: Handle,
}

impl Caller {
    pub(crate) fn new(limit: usize, request_timeout: Duration, runtime: Handle) -> Self {
        // A dead connection is to be noticed while there is time for another try.
        let interval = PING_INTERVAL.min(request_timeout / 8).max(Duration::from_millis(1));
        Self { limit, interval, runtime }
    }

    /// Sends the request in `frame` and waits for the answer, through any [`Response::Queued`]. `message`
    /// holds the answer.
    ///
    /// Dropping the future cancels the request.
    pub(crate) async fn call<'m>(
        &self,
        connection: &Connection,
        frame: Bytes,
        mut progress: impl FnMut(Progress),
        message: &'m mut Vec<u8>,
    ) -> Result<Response<'m>> {
        let answer = async {
            let mut exchange = connection.send(frame).await?;
            progress(Progress::Sent);
            loop {
                *message = exchange.next(self.limit).await?;
                match Response::decode(message).map_err(Violation::Message)? {
                    Response::Queued { position: 0, .. } => progress(Progress::Running),
                    Response::Queued { position, wait_ms } => {
                        let wait = Duration::from_millis(wait_ms.into());
                        progress(Progress::Queued { position, wait });
                    }
                    _ => {
                        exchange.finish();
                        return Ok(());
                    }
                }
            }
        };
        self.watched(connection, pin!(answer)).await?;
        match Response::decode(message).map_err(Violation::Message)? {
            Response::Busy { retry_after_ms } => {
                Err(Error::Busy { retry_after: Duration::from_millis(retry_after_ms.into()) })
            }
            Response::Refused { reason } => Err(Error::Refused(reason)),
            response => Ok(response),
        }
    }

    /// Does `work`, keeps the connection from falling silent meanwhile, and gives it up when the gateway does
    /// not react any more. Outside requests nothing is sent and nobody looks.
    async fn watched<T>(
        &self,
        connection: &Connection,
        mut work: Pin<&mut impl Future<Output = Result<T>>>,
    ) -> Result<T> {
        let pause = {
            let _context = self.runtime.enter();
            tokio::time::sleep(self.interval)
        };
        let mut pause = pin!(pause);
        let mut seen = connection.traffic();
        // Whether the gateway owes a sign, and for how many intervals.
        let (mut owed, mut silent) = (connection.acknowledges(), 0);
        poll_fn(|context| {
            if let Poll::Ready(result) = work.as_mut().poll(context) {
                return Poll::Ready(result);
            }
            while pause.as_mut().poll(context).is_ready() {
                pause.as_mut().reset(tokio::time::Instant::now() + self.interval);
                let now = connection.traffic();
                if now.bytes_down != seen.bytes_down {
                    (owed, silent) = (false, 0);
                } else if owed {
                    silent += 1;
                }
                if silent >= SILENT_INTERVALS {
                    connection.give_up(Loss::Silence);
                    return Poll::Ready(Err(Error::Closed(Loss::Silence)));
                }
                // What was sent in the meantime is as good as a ping for everybody between here and there.
                if now.bytes_up == seen.bytes_up {
                    connection.ping();
                    owed = true;
                }
                seen = now;
            }
            Poll::Pending
        })
        .await
    }
}
