//! The client: one connection, one session, any number of requests at a time (`protocol.md`, section 7).

use crate::cost::{Cost, UdpBytes};
use crate::link::{Dialer, Link};
use crate::store::SessionStore;
use crate::{Deployment, Error, Loss, Result, Violation, lock, wire};
use quinn::{ConnectionError, VarInt};
use seco_core::message::FRAME_OVERHEAD;
use seco_core::{Refusal, Request, Response};
use std::collections::BTreeMap;
use std::fmt;
use std::future::poll_fn;
use std::sync::{Arc, Mutex};
use std::task::Poll;
use std::time::{Duration, Instant};

/// How long to tell the gateway goodbye.
const CLOSE_LIMIT: Duration = Duration::from_secs(1);

/// Requests of [`Client::infer_many`] at the same time. Half of what a gateway takes on one connection.
const WINDOW: usize = 8;

/// Upper limits for waiting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// For the handshake, and again for opening a session. Default: 10 seconds.
    pub connect: Duration,
    /// For one inference or probe in all, queueing and a new session included. Default: 60 seconds.
    pub request: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self { connect: Duration::from_secs(10), request: Duration::from_secs(60) }
    }
}

/// Settings of a client, to be changed by its methods.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ClientOptions {
    /// Upper limits for waiting.
    pub timeouts: Timeouts,
}

impl ClientOptions {
    /// Sets the upper limits for waiting.
    #[must_use]
    pub const fn timeouts(mut self, timeouts: Timeouts) -> Self {
        self.timeouts = timeouts;
        self
    }
}

/// What the model says about an input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prediction {
    /// One per class, in fixed point: the value is `logit / 2^fraction`. Empty where the servers reveal the
    /// label only.
    pub logits: Vec<i32>,
    /// Fractional bits of a logit.
    pub fraction: u32,
    /// The class with the largest logit, the first of several.
    pub label: usize,
}

/// A connection to a gateway with an open session.
///
/// All methods take `&self`, and requests may run side by side. Dropping a future cancels its request: the
/// gateway is told, the request number is not used again, and the client stays usable. Dropping the client
/// closes the connection.
pub struct Client {
    dialer: Dialer,
    /// Bytes of the first connection when its handshake was done.
    handshake: UdpBytes,
    state: Mutex<State>,
    /// Held while a session is replaced, so that requests that fail together replace it once.
    renewal: tokio::sync::Mutex<()>,
}

struct State {
    link: Arc<Link>,
    /// Traffic of connections that were replaced.
    earlier: Cost,
    last: Cost,
    /// Time of connecting and of all requests.
    wall: Duration,
}

impl Client {
    /// Connects and opens a session, with the default [`ClientOptions`]. Runs inside a tokio runtime with
    /// its I/O and time drivers enabled; requests may then be polled by any executor.
    ///
    /// # Errors
    /// [`Error::Deployment`], [`Error::NoRuntime`], [`Error::NoRandomness`], [`Error::Setup`],
    /// [`Error::Connect`], [`Error::PinMismatch`], and as [`Client::infer`].
    pub async fn connect(deployment: Deployment) -> Result<Self> {
        Self::connect_with(deployment, ClientOptions::default()).await
    }

    /// Connects and opens a session. Its keys are drawn here and live in this client only.
    ///
    /// # Errors
    /// As [`Client::connect`].
    pub async fn connect_with(deployment: Deployment, options: ClientOptions) -> Result<Self> {
        Self::start(deployment, options, None).await
    }

    /// Connects and goes on with the session in `store`, which costs no sealing, or with a new one that is
    /// kept there from now on: if nothing is stored, if it is damaged, for another deployment or in use by
    /// another client of this process, or if the gateway does not know it any more.
    ///
    /// Numbers of requests are reserved in `store` before they are used, 64 at a time. So a crash can repeat
    /// none; see [`SessionStore`] for what the application has to guarantee.
    ///
    /// # Errors
    /// As [`Client::connect`], and [`Error::Storage`].
    pub async fn connect_resuming(
        deployment: Deployment,
        options: ClientOptions,
        store: Arc<dyn SessionStore>,
    ) -> Result<Self> {
        Self::start(deployment, options, Some(store)).await
    }

    async fn start(
        deployment: Deployment,
        options: ClientOptions,
        store: Option<Arc<dyn SessionStore>>,
    ) -> Result<Self> {
        let start = Instant::now();
        let dialer = Dialer::new(deployment, options, store)?;
        let connection = dialer.connect().await?;
        let handshake = Cost::of(&connection).bytes();
        let link = Arc::new(dialer.stored_or_new_session(connection).await?);
        let (earlier, last) = (Cost::default(), Cost::default());
        let state = Mutex::new(State { link, earlier, last, wall: start.elapsed() });
        Ok(Self { dialer, handshake, state, renewal: tokio::sync::Mutex::default() })
    }

    /// Runs the model on `input`, one byte per value in the order of the model's input shape.
    ///
    /// Connects again if the connection ended since the last request, and opens a new session once if the
    /// gateway forgot this one or has seen its request number before.
    ///
    /// # Errors
    /// [`Error::WrongInputSize`]; [`Error::Busy`] or [`Error::Refused`] by the servers; [`Error::Timeout`],
    /// [`Error::Closed`], [`Error::Protocol`], [`Error::Session`] or [`Error::Storage`]. No request number is
    /// used twice, whatever the error, so any request may be tried again.
    pub async fn infer(&self, input: &[u8]) -> Result<Prediction> {
        let expected = self.dialer.model.input_len;
        if input.len() != expected {
            return Err(Error::WrongInputSize { expected, got: input.len() });
        }
        self.request(async {
            let link = self.live_link().await?;
            match self.infer_on(&link, input).await {
                // A number that was used before comes from a store that went back to an earlier state: the
                // session must not go on.
                Err(Error::Refused(Refusal::UnknownSession | Refusal::CounterUsed)) => {
                    self.infer_on(&*self.renew(&link).await?, input).await
                }
                result => result,
            }
        })
        .await
    }

    /// Runs the model on every one of `inputs`, up to eight at a time. Returns one result per input, in their
    /// order; each has the request's time limit to itself and fails alone.
    ///
    /// Dropping the future cancels the requests under way and starts no more.
    pub async fn infer_many<I: AsRef<[u8]>>(&self, inputs: &[I]) -> Vec<Result<Prediction>> {
        let mut waiting = inputs.iter().enumerate();
        let (mut running, mut done) = (Vec::with_capacity(WINDOW), BTreeMap::new());
        poll_fn(|context| {
            loop {
                while running.len() < WINDOW
                    && let Some((index, input)) = waiting.next()
                {
                    running.push((index, Box::pin(self.infer(input.as_ref()))));
                }
                let before = running.len();
                running.retain_mut(|(index, request)| match request.as_mut().poll(context) {
                    Poll::Ready(result) => {
                        done.insert(*index, result);
                        false
                    }
                    Poll::Pending => true,
                });
                // New requests must be polled once, or nobody would wake this task for them.
                match (running.len(), before) {
                    (0, 0) => return Poll::Ready(()),
                    (now, before) if now == before => return Poll::Pending,
                    _ => {}
                }
            }
        })
        .await;
        done.into_values().collect()
    }

    /// Sends `up` random bytes and receives `down`: what a plain request of that size would cost. The bytes
    /// are drawn here, so that a probe can carry nothing else.
    ///
    /// # Errors
    /// [`Error::ProbeTooLong`] beyond the longest request (`up`) or 65,535 bytes (`down`); otherwise as
    /// [`Client::infer`].
    pub async fn probe(&self, up: usize, down: usize) -> Result<()> {
        let limit = self.dialer.model.request_limit() - FRAME_OVERHEAD;
        if up > limit {
            return Err(Error::ProbeTooLong { limit, got: up });
        }
        let asked =
            u16::try_from(down).map_err(|_| Error::ProbeTooLong { limit: u16::MAX.into(), got: down })?;
        let mut noise = vec![0; up];
        getrandom::fill(&mut noise).map_err(|_| Error::NoRandomness)?;
        self.request(async {
            let link = self.live_link().await?;
            let mut buffer = Vec::new();
            match self.call(&link, &Request::Probe { down: asked, noise: &noise }, &mut buffer).await? {
                Response::Probe { noise } if noise.len() == down => Ok(()),
                Response::Probe { noise } => {
                    Err(Violation::ProbeSize { expected: down, got: noise.len() }.into())
                }
                _ => Err(Violation::WrongKind.into()),
            }
        })
        .await
    }

    /// What has travelled so far.
    #[must_use]
    pub fn udp_bytes(&self) -> UdpBytes {
        self.traffic().bytes()
    }

    /// What the last request cost that came to a result or an error: an inference or a probe.
    #[must_use]
    pub fn last_cost(&self) -> Cost {
        lock(&self.state).last
    }

    /// What everything cost so far: connecting, the session, and all requests. Traffic of cancelled requests
    /// is included, their time is not; attempts to connect that failed are not counted.
    #[must_use]
    pub fn total_cost(&self) -> Cost {
        let traffic = self.traffic();
        Cost { wall: lock(&self.state).wall, ..traffic }
    }

    /// The part of [`Client::udp_bytes`] that the first handshake took; what follows it is the session's.
    #[must_use]
    pub const fn handshake_bytes(&self) -> UdpBytes {
        self.handshake
    }

    /// Moves to the current network. To be called when the device changed it, say from Wi-Fi to mobile, or
    /// woke up; requests under way go on. Cheap, and harmless if nothing changed.
    ///
    /// # Errors
    /// [`Error::Setup`] if there is no new socket; the old one stays in use.
    pub fn network_changed(&self) -> Result<()> {
        self.dialer.rebind()
    }

    /// Tells the gateway that the client is done. Requests under way and later ones fail with
    /// [`Loss::Local`].
    pub async fn close(&self) {
        let endpoint = &self.dialer.endpoint;
        endpoint.close(VarInt::from_u32(0), b"");
        // Late or lost, the goodbye is a courtesy: the gateway also notices silence.
        let goodbye = async {
            endpoint.wait_idle().await;
            Ok(())
        };
        let _ = self.dialer.bounded("close", CLOSE_LIMIT, goodbye).await;
    }

    async fn request<T>(&self, request: impl Future<Output = Result<T>>) -> Result<T> {
        let (before, start) = (self.traffic(), Instant::now());
        let result = self.dialer.bounded("answer", self.dialer.timeouts.request, request).await;
        let cost = Cost { wall: start.elapsed(), ..self.traffic() - before };
        let mut state = lock(&self.state);
        state.wall = state.wall.saturating_add(cost.wall);
        state.last = cost;
        result
    }

    /// Of all connections; no time.
    fn traffic(&self) -> Cost {
        let state = lock(&self.state);
        state.earlier + Cost::of(&state.link.connection)
    }

    async fn infer_on(&self, link: &Link, input: &[u8]) -> Result<Prediction> {
        let model = &self.dialer.model;
        let mut masked = input.to_vec();
        let pending = link.session.request(&mut masked)?;
        let request = Request::Infer { handle: link.handle, counter: pending.counter(), input: &masked };
        let mut buffer = Vec::new();
        let (logits, label) = match self.call(link, &request, &mut buffer).await? {
            Response::Logits { masked } => {
                let mut logits = vec![0; model.classes];
                let unmasked = link.session.lock().unmask_logits(pending, masked, &mut logits);
                unmasked.map_err(Violation::Message)?;
                let label = argmax(&logits);
                (logits, label)
            }
            Response::Label { masked } => {
                let unmasked = link.session.lock().unmask_label(pending, masked);
                (Vec::new(), unmasked.map_err(Violation::Message)?)
            }
            _ => return Err(Violation::WrongKind.into()),
        };
        Ok(Prediction { logits, fraction: model.fraction, label })
    }

    async fn call<'b>(
        &self,
        link: &Link,
        request: &Request<'_>,
        buffer: &'b mut Vec<u8>,
    ) -> Result<Response<'b>> {
        wire::call(&link.connection, request, self.dialer.model.response_limit(), buffer).await
    }

    fn link(&self) -> Arc<Link> {
        lock(&self.state).link.clone()
    }

    /// The current link, or a new one if its connection has ended.
    async fn live_link(&self) -> Result<Arc<Link>> {
        let link = self.link();
        if link.connection.close_reason().is_none() { Ok(link) } else { self.renew(&link).await }
    }

    /// Replaces `stale`: by the same session on a new connection if the old one has ended, otherwise by a new
    /// session.
    async fn renew(&self, stale: &Arc<Link>) -> Result<Arc<Link>> {
        let _one_at_a_time = self.renewal.lock().await;
        let current = self.link();
        if !Arc::ptr_eq(&current, stale) {
            return Ok(current);
        }
        let (link, ended) = match stale.connection.close_reason() {
            None => (self.dialer.open_session(stale.connection.clone()).await?, Cost::default()),
            Some(ConnectionError::LocallyClosed) => return Err(Error::Closed(Loss::Local)),
            Some(_) => {
                let connection = self.dialer.connect().await?;
                let link = self.dialer.resume(connection, stale.session.clone()).await?;
                (link, Cost::of(&stale.connection))
            }
        };
        let link = Arc::new(link);
        let mut state = lock(&self.state);
        state.earlier = state.earlier + ended;
        state.link = link.clone();
        Ok(link)
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("session", &self.link().session.lock().id()).finish_non_exhaustive()
    }
}

/// Index of the first maximum.
fn argmax(logits: &[i32]) -> usize {
    // `max_by_key` prefers the last of several.
    logits.iter().enumerate().rev().max_by_key(|(_, logit)| **logit).map_or(0, |(index, _)| index)
}

#[cfg(test)]
mod tests {
    use super::argmax;

    #[test]
    fn the_label_is_the_first_maximum() {
        assert_eq!(argmax(&[-5, 3, 3, -7]), 1);
        assert_eq!(argmax(&[i32::MIN; 3]), 0);
        assert_eq!(argmax(&[i32::MIN, i32::MAX]), 1);
    }
}
