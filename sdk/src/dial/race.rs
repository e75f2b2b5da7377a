//! Several ways to the gateway, and the first one that leads there.

use super::{Dialer, Over, Quic, RETRY};
use crate::transport::Connection;
use crate::trouble::jittered;
use crate::{Error, Loss, Result};
use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Poll, ready};
use std::time::Duration;
use tokio::time::Instant;

/// How long an address has to answer before the next one is tried as well: of the two families, one may lead nowhere.
const STAGGER: Duration = Duration::from_millis(250);

impl Dialer {
    /// QUIC, and TCP after a delay or once QUIC has failed. A certificate that is not pinned ends the race:
    /// somebody is in between, and may block the other transport only.
    pub(super) async fn race(
        &self,
        quic: &Quic,
        tls: &Arc<rustls::ClientConfig>,
        addresses: &[SocketAddr],
        seen: &mut Option<Error>,
    ) -> Result<Connection> {
        let over_tcp = |pause| self.dial(Over::Tcp(tls), addresses, pause);
        let mut quic = pin!(self.dial(Over::Quic(quic), addresses, Duration::ZERO));
        let mut tcp = pin!(over_tcp(self.fallback_delay));
        let mut quic_failed = false;
        poll_fn(|context| {
            loop {
                if !quic_failed && let Poll::Ready(result) = quic.as_mut().poll(context) {
                    match result {
                        Err(error) if goes_on(&error) => {
                            quic_failed = true;
                            *seen = Some(error);
                            tcp.set(over_tcp(Duration::ZERO));
                        }
                        result => return Poll::Ready(result),
                    }
                }
                match ready!(tcp.as_mut().poll(context)) {
                    Err(error) if goes_on(&error) && quic_failed => {
                        return Poll::Ready(Err(telling(seen.take(), error)));
                    }
                    Err(error) if goes_on(&error) => {
                        *seen = Some(error);
                        tcp.set(over_tcp(jittered(RETRY)));
                    }
                    result => return Poll::Ready(result),
                }
            }
        })
        .await
    }

    /// Waits for `pause`, then shakes hands at each of the addresses, at the next one after [`STAGGER`] or once
    /// all before have failed; whichever is there first. Like [`Dialer::race`], a certificate that is not pinned
    /// ends it.
    pub(super) async fn dial(
        &self,
        over: Over<'_>,
        addresses: &[SocketAddr],
        pause: Duration,
    ) -> Result<Connection> {
        if !pause.is_zero() {
            tokio::time::sleep(pause).await;
        }
        let mut rest = addresses.iter();
        let start = |address: &SocketAddr| Box::pin(self.shake_hands(over, *address));
        let mut under_way = Vec::from_iter(rest.next().map(start));
        let mut stagger = pin!(tokio::time::sleep(STAGGER));
        let mut failure = None;
        poll_fn(|context| {
            loop {
                let mut i = 0;
                while let Some(attempt) = under_way.get_mut(i) {
                    match attempt.as_mut().poll(context) {
                        Poll::Pending => i += 1,
                        Poll::Ready(Err(error)) if goes_on(&error) => {
                            drop(under_way.remove(i));
                            failure = Some(telling(failure.take(), error));
                        }
                        Poll::Ready(result) => return Poll::Ready(result),
                    }
                }
                if !under_way.is_empty() && (rest.len() == 0 || stagger.as_mut().poll(context).is_pending()) {
                    return Poll::Pending;
                }
                let Some(address) = rest.next() else {
                    return Poll::Ready(Err(failure.take().unwrap_or_else(|| self.unresolved())));
                };
                under_way.push(start(address));
                stagger.as_mut().reset(Instant::now() + STAGGER);
            }
        })
        .await
    }
}

/// Whether another address or transport may do better.
fn goes_on(error: &Error) -> bool {
    matches!(error, Error::Connect { .. } | Error::Setup(_))
}

/// Of two failures, the one that says more. Where a family is missing, its sockets or their routes are.
fn telling(first: Option<Error>, second: Error) -> Error {
    let says = |error: &Error| match error {
        Error::Setup(_) => 0,
        Error::Connect { reason: Loss::Transport, .. } => 1,
        _ => 2,
    };
    first.filter(|first| says(first) >= says(&second)).unwrap_or(second)
}
