//! One request and its answer, on any transport.

use crate::transport::Connection;
use crate::watch::{Look, Watch};
use crate::{Error, Loss, Progress, Result, Violation};
use bytes::Bytes;
use seco_core::Response;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::task::Poll;
use std::time::Duration;
use tokio::runtime::Handle;

/// Who is told how a request is getting on. Not a type parameter: every closure would have a copy of the request's
/// code.
pub(crate) type Tell<'a> = &'a mut (dyn FnMut(Progress) + Send);

/// How requests are made.
pub(crate) struct Caller {
    /// Longest answer, in bytes.
    pub(crate) limit: usize,
    /// The requests' time limit.
    pub(crate) time: Duration,
    /// Timers are made on it, so that any executor may poll requests.
    pub(crate) runtime: Handle,
}

impl Caller {
    /// Sends the request in `frame` and waits for the answer, through any [`Response::Queued`]. `message`
    /// holds the answer.
    ///
    /// Dropping the future cancels the request.
    pub(crate) async fn call<'m>(
        &self,
        connection: &Connection,
        frame: Bytes,
        progress: Tell<'_>,
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
        let mut watch = Watch::new(connection.traffic(), &connection.signs(), self.time);
        let pause = {
            let _context = self.runtime.enter();
            tokio::time::sleep(watch.pause())
        };
        let mut pause = pin!(pause);
        poll_fn(|context| {
            if let Poll::Ready(result) = work.as_mut().poll(context) {
                return Poll::Ready(result);
            }
            while pause.as_mut().poll(context).is_ready() {
                match watch.look(connection.traffic(), &connection.signs()) {
                    Look::Alive => {}
                    Look::Ask => connection.ping(),
                    Look::Gone => {
                        connection.give_up(Loss::Silence);
                        return Poll::Ready(Err(Error::Closed(Loss::Silence)));
                    }
                }
                pause.as_mut().reset(tokio::time::Instant::now() + watch.pause());
            }
            Poll::Pending
        })
        .await
    }
}
