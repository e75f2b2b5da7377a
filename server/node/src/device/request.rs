//! One device and its requests, whatever transport they came by.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use seco_core::message::{resume_tags, sealed_keys};
use seco_core::{
    EXPORTER_LEN, Incarnation, KeyId, Refusal, Request, Response, SessionId, Token, TokenId, WIRE_VERSION,
    pack,
};
use seco_protocol::Use;
use tokio::time::timeout;
use tracing::debug;

use super::door::Place;
use super::handles::{Handles, Incarnated, Incarnations};
use super::lease::{Ahead, Begun};
use super::{TRANSFER, offers};
use crate::access::sessions::{Connected, Pads};
use crate::access::source::Who;
use crate::access::tokens::Paid;
use crate::cluster::commands::{OpenSession, ResumeSession};
use crate::cluster::{Blame, Cluster, Coordinator, Lease, Links, Ready};
use crate::failure::Failure;
use crate::operation::metrics;
use crate::service::pool::{Take, Turn};

/// One device's connection.
pub(super) struct Device {
    pub(super) cluster: Arc<Cluster>,
    pub(super) place: Place,
    /// Over TCP, not QUIC.
    tcp: bool,
    /// What the connection's TLS session yields at both ends.
    exporter: [u8; EXPORTER_LEN],
    handles: Mutex<Handles>,
    /// The token that was shown last.
    token: Mutex<Option<TokenId>>,
    /// What is leased for its next request.
    ahead: Mutex<Ahead<Lease>>,
}

/// A request that is being answered.
struct Asking {
    /// When its first byte was awaited.
    start: Instant,
    /// Once it was answered: by which model, for whom, and its number.
    answered: Option<(Arc<Coordinator>, Connected, u64)>,
}

/// How a request ends other than by its answer.
pub(super) enum End {
    Refused(Refusal),
    Busy(Duration),
    /// The device is gone.
    Gone,
}

impl From<Refusal> for End {
    fn from(reason: Refusal) -> Self {
        End::Refused(reason)
    }
}

/// Where a request's responses go, whatever the transport.
pub(super) trait Responder: Send {
    /// Sends a response that others follow.
    ///
    /// # Errors
    /// [`End::Gone`] if the device does not take it.
    fn send(&mut self, frame: &[u8]) -> impl Future<Output = Result<(), End>> + Send;

    /// Ready once the device does not wait any more.
    fn given_up(&mut self) -> impl Future<Output = ()> + Send;

    /// Sends the last response; `None` ends the request without one.
    fn finish(self, frame: Option<&[u8]>) -> impl Future<Output = ()> + Send;
}

/// Sends a response in the time that a device may take for it.
async fn send(reply: &mut impl Responder, response: &Response<'_>) -> Result<(), End> {
    timeout(TRANSFER, reply.send(&encode(response))).await.unwrap_or(Err(End::Gone))
}

impl Device {
    pub fn new(cluster: Arc<Cluster>, place: Place, tcp: bool, exporter: [u8; EXPORTER_LEN]) -> Arc<Self> {
        cluster.metrics().connected(tcp);
        let (handles, token, ahead) = (Mutex::default(), Mutex::default(), Mutex::default());
        Arc::new(Self { cluster, place, tcp, exporter, handles, token, ahead })
    }

    /// One request and its answer. `start` is when its first byte was awaited.
    pub async fn request(&self, message: Result<Vec<u8>, End>, mut reply: impl Responder, start: Instant) {
        // Under way until the device has the answer.
        let under_way = self.cluster.drain().enter();
        let _answering = self.place.busy();
        let mut asking = Asking { start, answered: None };
        let result = match message {
            // The device looks for the next gateway at once.
            Ok(_) if under_way.is_none() => Err(Refusal::ShuttingDown.into()),
            // It is counted until its answer is on its way: another may follow then.
            Ok(message) => match self.place.request() {
                Ok(_open) => self.decoded(&mut reply, &message, &mut asking).await,
                Err(pause) => Err(End::Busy(pause.unwrap_or_else(|| self.cluster.busy()))),
            },
            Err(end) => Err(end),
        };
        match &result {
            Err(End::Refused(refusal)) => self.cluster.metrics().refused(metrics::reason(refusal)),
            Err(End::Busy(_)) => self.cluster.metrics().refused("busy"),
            Err(End::Gone) | Ok(_) => {}
        }
        let frame = match result {
            Ok(frame) => Some(frame),
            Err(End::Refused(reason)) => Some(encode(&Response::Refused { reason })),
            Err(End::Busy(pause)) => Some(encode(&Response::Busy { retry_after_ms: millis(pause) })),
            Err(End::Gone) => None,
        };
        let finish = timeout(TRANSFER, reply.finish(frame.as_deref()));
        // Polled after it: what is begun ahead must not delay the answer, but may go on while this travels.
        let ahead = async {
            if let Some((model, connected, number)) = asking.answered {
                self.lease_next(&model, connected, number);
            }
        };
        let _ = tokio::join!(biased; finish, ahead);
    }

    async fn decoded(
        &self,
        reply: &mut impl Responder,
        message: &[u8],
        asking: &mut Asking,
    ) -> Result<Vec<u8>, End> {
        match Request::decode(message) {
            Ok(request) => self.answer(reply, request, asking).await,
            Err(seco_core::Error::Version { .. }) => {
                Err(Refusal::VersionUnsupported { supported: WIRE_VERSION }.into())
            }
            Err(_) => Err(Refusal::Malformed.into()),
        }
    }

    async fn answer(
        &self,
        reply: &mut impl Responder,
        request: Request<'_>,
        asking: &mut Asking,
    ) -> Result<Vec<u8>, End> {
        match request {
            Request::Admit { token, request } => {
                let request = Request::admitted(request).map_err(|_| Refusal::Malformed)?;
                let token = Token::from_bytes(token).map_err(|_| Refusal::Malformed)?;
                self.show(&token)?;
                self.session(request).await
            }
            Request::Open { .. } | Request::Resume { .. } => {
                self.may_ask()?;
                self.session(request).await
            }
            Request::Infer { handle, counter, input } => {
                let (model, connected, links) = self.handles().get(handle).ok_or(Refusal::UnknownSession)?;
                let paid = self.pay()?;
                // Under way for its model too, which may have been removed, or is about to be: then the device finds
                // out what there is instead.
                let entered =
                    model.upgrade().and_then(|model| model.enter().map(|under_way| (model, under_way)));
                let Some((model, _under_way)) = entered else {
                    self.drop_handle(handle);
                    return Err(Refusal::UnknownSession.into());
                };
                self.known(handle, &model, connected, &links).await?;
                self.infer(reply, &model, connected, (counter, input), paid, asking).await
            }
            Request::Probe { down, noise } => {
                let echo: Vec<u8> = noise.iter().copied().cycle().take(down.into()).collect();
                Ok(encode(&Response::Probe { noise: &echo }))
            }
            Request::Update { serial, owner } => {
                // It costs about what a session does.
                let _counted = self.place.session(true).map_err(End::Busy)?;
                let (files, owner) = (self.cluster.deployments(), owner.to_vec());
                let newer = tokio::task::spawn_blocking(move || offers::newer(&files, &owner, serial)).await;
                let text = newer.map_err(|_| Refusal::Internal)?.unwrap_or_default();
                Ok(encode(&Response::Update { text: text.as_bytes() }))
            }
            // A request of a later version that this one does not know does not decode.
            _ => Err(Refusal::Malformed.into()),
        }
    }

    fn token(&self) -> MutexGuard<'_, Option<TokenId>> {
        self.token.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a token for the connection. A gateway without tokens takes any.
    fn show(&self, token: &Token) -> Result<(), Refusal> {
        if let Some(tokens) = self.cluster.tokens() {
            let id = tokens.admit(token)?;
            *self.token() = Some(id);
        }
        Ok(())
    }

    /// Whether devices are served that show no token, or this one has shown one on this connection.
    fn may_ask(&self) -> Result<(), Refusal> {
        match self.cluster.tokens() {
            Some(tokens) if tokens.required() && self.token().is_none() => Err(Refusal::TokenMissing),
            _ => Ok(()),
        }
    }

    /// What the connection's token pays for a request.
    fn pay(&self) -> Result<Option<Paid>, Refusal> {
        self.may_ask()?;
        let token = *self.token();
        self.cluster.tokens().zip(token).map(|(tokens, id)| tokens.pay(id)).transpose()
    }

    /// Whether the token would pay for one now.
    pub(super) fn may_pay(&self) -> bool {
        let token = *self.token();
        self.may_ask().is_ok()
            && self.cluster.tokens().zip(token).is_none_or(|(tokens, id)| tokens.may_pay(id))
    }

    /// Opens a session or takes one up.
    async fn session(&self, request: Request<'_>) -> Result<Vec<u8>, End> {
        match request {
            Request::Open { session, model, nonce, sealed } => {
                let served = self.cluster.model(&model).ok_or(Refusal::WrongModel)?;
                let sealed = sealed_keys(sealed).map_err(|_| Refusal::WrongServers)?;
                if sealed.len() != self.cluster.servers() {
                    return Err(Refusal::WrongServers.into());
                }
                let _counted = self.place.session(true).map_err(End::Busy)?;
                let incarnation = Incarnation { nonce, exporter: self.exporter };
                let keys = sealed.iter().map(KeyId::of).collect();
                let opening = OpenSession { session, model, incarnation, keys, sealed: Vec::new() };
                let sealed = sealed.iter().map(|blob| blob.to_vec()).collect();
                let incarnated = (Arc::downgrade(&served), (session, incarnation.id()));
                let open = async move { served.open(&opening, sealed).await };
                self.opened("opening a session", incarnated, open).await
            }
            Request::Resume { session, nonce, tags } => {
                let tags = resume_tags(tags).map_err(|_| Refusal::WrongServers)?;
                if tags.len() != self.cluster.servers() {
                    return Err(Refusal::WrongServers.into());
                }
                let _counted = self.place.session(false).map_err(End::Busy)?;
                let incarnation = Incarnation { nonce, exporter: self.exporter };
                let resuming = ResumeSession { session, incarnation, tag: Default::default() };
                let (what, tags) = ("taking up a session", tags.to_vec());
                let served = self.cluster.resumed(&resuming, &tags);
                let served = served.ok_or_else(|| {
                    debug!("{what} was refused: none is known under that key");
                    Refusal::UnknownSession
                })?;
                let incarnated = (Arc::downgrade(&served), (session, incarnation.id()));
                let resume = async move { served.resume(&resuming, &tags).await };
                self.opened(what, incarnated, resume).await
            }
            _ => Err(Refusal::Malformed.into()),
        }
    }

    /// Forgets a handle, which leads nowhere any more.
    fn drop_handle(&self, handle: u32) {
        self.place.sessions({
            let mut handles = self.handles();
            handles.remove(handle);
            handles.len()
        });
    }

    /// Makes sure that all servers know the session before a bundle is taken: one of them may have been restarted.
    async fn known(
        &self,
        handle: u32,
        model: &Coordinator,
        connected: Connected,
        links: &Links,
    ) -> Result<(), End> {
        match model.still_knows(connected, links).await {
            Ok(now) if now != *links => self.handles().confirm(handle, now),
            Ok(_) => {}
            Err(blame) => {
                if blame.failure == Failure::UnknownSession {
                    model.forget(&connected.0);
                    self.drop_handle(handle);
                }
                return Err(refusal(model, "a request", &blame).into());
            }
        }
        Ok(())
    }

    async fn infer(
        &self,
        reply: &mut impl Responder,
        model: &Arc<Coordinator>,
        connected: Connected,
        (counter, input): (u64, &[u8]),
        paid: Option<Paid>,
        asking: &mut Asking,
    ) -> Result<Vec<u8>, End> {
        let info = model.info();
        if input.len() != info.input_len {
            let expected = u32::try_from(info.input_len).unwrap_or(u32::MAX);
            return Err(Refusal::WrongInputSize { expected }.into());
        }
        let logits = match self.begin(model, connected, counter)? {
            Begun::Ahead(lease) => {
                if let Some(paid) = paid {
                    paid.used();
                }
                self.answer_ahead(model, &connected, lease, input).await?
            }
            // The number was used before a bundle is taken: repeating one request must not use up the pool.
            Begun::Now(pads) => {
                let (session, incarnation) = connected;
                let usage = Use { session: session.0, incarnation: incarnation.0, counter };
                let turn = self.turn(reply, model, session).await?;
                // From here on a bundle is used, whether or not the device waits for the answer.
                if let Some(paid) = paid {
                    paid.used();
                }
                self.answer_now(model, (turn, usage, pads), input).await?
            }
        };
        let mut masked = vec![0; info.logits_len()];
        pack::pack(&logits, info.width, &mut masked).map_err(|_| Refusal::Internal)?;
        model.answered(asking.start);
        asking.answered = Some((model.clone(), connected, counter));
        Ok(encode(&Response::Logits { masked: &masked }))
    }

    /// The masked logits, by a bundle from the pool.
    async fn answer_now(
        &self,
        model: &Arc<Coordinator>,
        (turn, usage, pads): (Turn<Ready>, Use, Pads),
        input: &[u8],
    ) -> Result<Vec<u32>, Refusal> {
        // On its own task: a device that leaves now must not stop the other servers in mid-job.
        let (asked, input) = (model.clone(), input.to_vec());
        let under_way = (self.cluster.drain().again(), model.service.drain.again());
        let job = tokio::spawn(async move {
            let result = asked.infer(turn, usage, pads, input).await;
            drop(under_way);
            result
        });
        job.await.map_err(|_| Refusal::Internal)?.map_err(|blame| {
            if blame.failure == Failure::UnknownSession {
                // A remote restarted: the device has to open the session there too.
                model.forget(&SessionId(usage.session));
            }
            refusal(model, "an inference", &blame)
        })
    }

    /// A bundle and the request's turn, at once or after a wait that the device is told of.
    async fn turn(
        &self,
        reply: &mut impl Responder,
        model: &Coordinator,
        device: SessionId,
    ) -> Result<Turn<Ready>, End> {
        let who = Who { source: self.place.source(), device };
        match model.take(who).map_err(unavailable)? {
            Take::Ready(turn) => Ok(turn),
            Take::Full(busy) => Err(End::Busy(busy.retry_after)),
            Take::Queued { position, wait, ticket } => {
                // As devices count: 1 is the next, 0 runs.
                let position = u32::try_from(position).unwrap_or(u32::MAX).saturating_add(1);
                send(reply, &Response::Queued { position, wait_ms: millis(wait) }).await?;
                let turn = tokio::select! {
                    outcome = timeout(self.cluster.patience(), ticket) => match outcome {
                        Ok(Ok(Ok(turn))) => turn,
                        Ok(Ok(Err(busy))) => return Err(End::Busy(busy.retry_after)),
                        Ok(Err(_)) => {
                            return Err(match model.lacking() {
                                Some(server) => unavailable(server).into(),
                                None => End::Busy(model.busy().retry_after),
                            });
                        }
                        Err(_) => return Err(Refusal::TimedOut.into()),
                    },
                    () = reply.given_up() => return Err(End::Gone),
                };
                send(reply, &Response::Queued { position: 0, wait_ms: 0 }).await?;
                Ok(turn)
            }
        }
    }

    /// Makes all servers know a session on this connection by `exchange`; the answer to the device.
    ///
    /// On a task of its own: where a server refuses, or the device leaves meanwhile, those that agreed are told
    /// that the incarnation has ended, and not before they were told of it.
    async fn opened(
        &self,
        what: &str,
        incarnated: Incarnated,
        exchange: impl Future<Output = Result<(), Blame>> + Send + 'static,
    ) -> Result<Vec<u8>, End> {
        let model = incarnated.0.upgrade().ok_or(Refusal::WrongModel)?;
        let links = model.links();
        let unclaimed = Incarnations { ended: vec![incarnated.clone()] };
        let exchange = tokio::spawn(async move { (exchange.await, unclaimed) });
        let (result, mut unclaimed) = exchange.await.map_err(|_| Refusal::Internal)?;
        result.map_err(|blame| refusal(&model, what, &blame))?;
        let (handle, oldest, open) = {
            let mut handles = self.handles();
            let (handle, oldest) = handles.add(incarnated, links);
            (handle, oldest, handles.len())
        };
        self.place.sessions(open);
        unclaimed.ended = oldest.into_iter().collect();
        drop(unclaimed);
        Ok(encode(&Response::Opened { handle }))
    }

    /// What is leased for the connection's next request.
    pub(super) fn ahead(&self) -> MutexGuard<'_, Ahead<Lease>> {
        self.ahead.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn handles(&self) -> MutexGuard<'_, Handles> {
        self.handles.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The connection's incarnations end with it.
impl Drop for Device {
    fn drop(&mut self) {
        self.cluster.metrics().left(self.tcp);
        drop(Incarnations { ended: self.handles().close() });
    }
}

/// What the device is told where a server is missing.
pub(super) fn unavailable(server: usize) -> Refusal {
    Refusal::Unavailable { server: u8::try_from(server).unwrap_or(u8::MAX) }
}

/// What the device is told of a failure; the details stay in the log.
fn refusal(model: &Coordinator, what: &str, blame: &Blame) -> Refusal {
    use Failure::{CounterUsed, OtherKey, SealedKey, UnknownSession, WrongModel};
    match blame.failure {
        // Caused by a device, not by a server: nothing for an operator to act on.
        UnknownSession | SealedKey | OtherKey(_) | WrongModel | CounterUsed => {
            debug!(server = blame.server, reason = %blame.failure, "{what} was refused");
        }
        _ => model.report(what, blame),
    }
    told(blame)
}

/// What a device is told of a failure.
pub(super) fn told(blame: &Blame) -> Refusal {
    let server = |index: usize| u8::try_from(index).unwrap_or(u8::MAX);
    match blame.failure {
        Failure::Unavailable(index) => Refusal::Unavailable { server: server(index) },
        // A server that has just restarted, or dropped what it had after a failure: the cluster is about to be
        // set up anew.
        Failure::OtherEpoch
        | Failure::UnknownBundle
        | Failure::Disk
        | Failure::Stopping
        | Failure::LacksModel => Refusal::Unavailable { server: server(blame.server) },
        Failure::TimedOut(_) => Refusal::TimedOut,
        Failure::CounterUsed => Refusal::CounterUsed,
        Failure::UnknownSession => Refusal::UnknownSession,
        Failure::WrongModel => Refusal::WrongModel,
        Failure::SealedKey => Refusal::SealRejected { server: server(blame.server) },
        Failure::OtherKey(index) => Refusal::SealRejected { server: server(index) },
        _ => Refusal::Internal,
    }
}

/// A response as it goes on the wire.
fn encode(response: &Response<'_>) -> Vec<u8> {
    let mut buffer = vec![0; response.frame_bound()];
    // The buffer has the size asked for, and answers are far below 256 MiB.
    response.encode_frame(&mut buffer).map(<[u8]>::to_vec).unwrap_or_default()
}

fn millis(time: Duration) -> u32 {
    u32::try_from(time.as_millis()).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_time_mends_is_told_as_such() {
        let told = |failure| told(&Blame { server: 2, failure, cause: None });
        let passing = [
            Failure::OtherEpoch,
            Failure::UnknownBundle,
            Failure::Disk,
            Failure::Stopping,
            Failure::LacksModel,
        ];
        for failure in passing.into_iter().chain([Failure::Unavailable(2)]) {
            assert_eq!(told(failure), Refusal::Unavailable { server: 2 }, "{failure}");
        }
        assert_eq!(told(Failure::TimedOut(1)), Refusal::TimedOut);
        for failure in [Failure::Misbehaved(1), Failure::BundleSpent, Failure::Ledger, Failure::Full] {
            assert_eq!(told(failure), Refusal::Internal, "{failure}");
        }
    }
}
