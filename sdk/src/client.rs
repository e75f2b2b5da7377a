//! The client: one connection, one session, any number of requests at a time (`server/PROTOCOL.md`, section 8).

use crate::builder::ClientBuilder;
use crate::cost::{Cost, HeapMeter, Meter, UdpBytes};
use crate::infer::many;
use crate::link::{Link, Linker};
use crate::log::{Event, Opening};
use crate::shape::InputForm;
use crate::trouble::{Trouble, away};
use crate::wire::Tell;
use crate::{Deployment, Error, Loss, Output, Prediction, Quantised, Result, TransportKind, Violation, lock};
use bytes::{Buf as _, Bytes};
use seco_core::message::FRAME_OVERHEAD;
use seco_core::{ModelInfo, Refusal, Request, Response};
use std::fmt;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex};
use std::task::Poll;
use std::time::Duration;
use zeroize::Zeroize as _;

/// How a request is getting on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Progress {
    /// The masked input left the device. Once more each time that the request is sent again.
    Sent,
    /// The request waits until the servers have made what it needs.
    Queued {
        /// Place in the queue; 1 is the next.
        position: u32,
        /// The servers' estimate of the wait.
        wait: Duration,
    },
    /// The request had to wait, and runs now.
    Running,
    /// A server is away, and the request is made again. Told after each try.
    Waiting {
        /// Its place in the deployment file; 0 is the gateway, to which there is a new connection then.
        server: u8,
    },
}

/// What is asked.
enum Ask<'a> {
    Inference(&'a [u8]),
    Probe {
        frame: Bytes,
        /// Bytes of the answer.
        down: usize,
    },
}

/// A connection to a gateway with an open session.
///
/// All methods take `&self`, and requests may run side by side. Dropping a future cancels its request: the
/// gateway is told, the request number is not used again, and the client stays usable. Dropping the client
/// closes the connection.
pub struct Client {
    linker: Linker,
    input: InputForm,
    outputs: Arc<[Output]>,
    /// Bytes of the first connection when its handshake was done.
    handshake: UdpBytes,
    keep_sent: bool,
    heap_meter: Option<Arc<dyn HeapMeter>>,
    state: Mutex<State>,
    /// Held while a session is replaced, so that requests that fail together replace it once.
    renewal: tokio::sync::Mutex<()>,
}

struct State {
    link: Arc<Link>,
    /// Traffic of connections that were replaced.
    earlier: Cost,
    last: Cost,
    /// Of connecting and of all requests; no traffic.
    spent: Cost,
    /// What the last request sent as its input.
    sent: Option<Bytes>,
}

impl Client {
    /// Settings for a client of `deployment`, to be changed and then [connected](ClientBuilder::connect).
    pub fn builder(deployment: Deployment) -> ClientBuilder {
        ClientBuilder::new(deployment)
    }

    /// Connects and opens a session, with default settings. Its keys are drawn here and live in this client
    /// only.
    ///
    /// # Errors
    /// As [`ClientBuilder::connect`].
    pub async fn connect(deployment: Deployment) -> Result<Self> {
        Self::builder(deployment).connect().await
    }

    pub(crate) async fn start(builder: ClientBuilder) -> Result<Self> {
        let ClientBuilder { deployment, mut settings } = builder;
        let deployment = deployment.select(None)?;
        let (keep_sent, heap_meter) = (settings.keep_sent, settings.heap_meter.take());
        let meter = Meter::start(heap_meter.as_ref());
        let linker = Linker::new(&deployment, settings)?;
        let input = deployment.model.input_form();
        let outputs = deployment.model.outputs.as_slice().into();
        let log = &linker.dialer.log;
        let mut trouble = Trouble::new(linker.request_timeout, log.clone());
        let start = tokio::time::Instant::now();
        let failed = |error| {
            log.tell(|| Event::Failed { error: &error, wall: start.elapsed() });
            error
        };
        let (link, handshake) = loop {
            let connection = linker.dialer.connect().await.map_err(failed)?;
            let handshake = connection.traffic().bytes();
            match linker.stored_or_new_session(connection).await {
                Ok(link) => break (Arc::new(link), handshake),
                // What a gateway says that is there itself: servers come back.
                Err(
                    error @ (Error::Busy { .. }
                    | Error::Refused(Refusal::Unavailable { .. } | Refusal::ShuttingDown)),
                ) => linker.dialer.sleep(trouble.pause(error).map_err(failed)?).await,
                Err(error) => return Err(failed(error)),
            }
        };
        let spent = meter.stop(Cost::default(), linker.dialer.current_thread());
        let (earlier, last, sent) = (Cost::default(), Cost::default(), None);
        let state = Mutex::new(State { link, earlier, last, spent, sent });
        let renewal = tokio::sync::Mutex::default();
        Ok(Self { linker, input, outputs, handshake, keep_sent, heap_meter, state, renewal })
    }

    /// Runs the model on `input`, one byte per value in the order of the model's input shape; or two, the lower one first,
    /// where the model's values have more than 8 bits ([`Model::input_bits`](crate::Model::input_bits)).
    ///
    /// What passes is not the caller's business as long as the request's time limit
    /// ([`ClientBuilder::request_timeout`]) is longer: restarted servers, lost connections and full queues. The request
    /// is then made again, after a pause that grows, or the one that the servers asked for; always under a number of its
    /// own, and masked with pads of its own. A connection that ended is replaced and its session taken up there; a new
    /// session is opened if this one is older than [`ClientBuilder::session_max_age`], if a server forgot it, or if
    /// its request number is refused. What is still in the way when the time is up, or would be, is returned.
    ///
    /// # Errors
    /// [`Error::WrongInputSize`], [`Error::WrongInputBytes`] or [`Error::InputValue`]; [`Error::Busy`] or [`Error::Refused`] by the servers;
    /// [`Error::Timeout`], [`Error::Connect`], [`Error::PinMismatch`], [`Error::Closed`], [`Error::Protocol`],
    /// [`Error::Session`] or [`Error::Storage`]. No pad is used twice, whatever the error, so any request may be
    /// tried again.
    pub async fn infer(&self, input: &[u8]) -> Result<Prediction> {
        self.infer_with(input, |_| {}).await
    }

    /// [`Client::infer`], telling `progress` how the request is getting on: [`Progress::Sent`]; then, if it has to wait,
    /// [`Progress::Queued`] with its place and [`Progress::Running`] when its turn has come; and [`Progress::Waiting`]
    /// whenever something is away that it needs. Called on the thread that polls the future; it should return at once.
    ///
    /// # Errors
    /// As [`Client::infer`].
    pub async fn infer_with(
        &self,
        input: &[u8],
        mut progress: impl FnMut(Progress) + Send,
    ) -> Result<Prediction> {
        self.input.check(input)?;
        let answer = self.request(&Ask::Inference(input), &mut progress).await?;
        answer.ok_or_else(|| Violation::WrongKind.into())
    }

    /// Runs the model on real numbers, in the order of the model's input shape: they become its input values on the
    /// device, as the deployment file says ([`Model::quantise`](crate::Model::quantise)).
    /// [`Prediction::outside_calibration`] is also set if a number was beyond what the values can hold, and cut.
    ///
    /// # Errors
    /// [`Error::InputValue`] for what is not a number, and, where the deployment file does not say how, for what is not
    /// an input value as it is; otherwise as [`Client::infer`].
    pub async fn infer_reals<T: Copy + Into<f64>>(&self, reals: &[T]) -> Result<Prediction> {
        self.infer_quantised(&self.quantised(reals)?, |_| {}).await
    }

    /// The second half of [`Client::infer_reals`], with the progress that [`Client::infer_with`] tells.
    ///
    /// # Errors
    /// As [`Client::infer`].
    pub async fn infer_quantised(
        &self,
        input: &Quantised,
        progress: impl FnMut(Progress) + Send,
    ) -> Result<Prediction> {
        let mut prediction = self.infer_with(&input.bytes, progress).await?;
        prediction.outside_calibration |= input.cut;
        Ok(prediction)
    }

    /// What [`Client::infer_reals`] makes of real numbers before it asks.
    ///
    /// # Errors
    /// [`Error::WrongInputSize`] or [`Error::InputValue`].
    pub fn quantised<T: Copy + Into<f64>>(&self, reals: &[T]) -> Result<Quantised> {
        self.input.quantised(reals)
    }

    /// Runs the model on every one of `inputs`, up to eight at a time. Returns one result per input, in their
    /// order; each has the request's time limit to itself and fails alone.
    ///
    /// Dropping the future cancels the requests under way and starts no more.
    pub async fn infer_many<I: AsRef<[u8]>>(&self, inputs: &[I]) -> Vec<Result<Prediction>> {
        many(inputs, |input| Box::pin(self.infer(input.as_ref()))).await
    }

    /// Sends `up` random bytes and receives `down`: what a plain request of that size would cost. The bytes
    /// are drawn here, so that a probe can carry nothing else.
    ///
    /// # Errors
    /// [`Error::ProbeTooLong`] beyond the longest request (`up`) or 65,535 bytes (`down`); otherwise as
    /// [`Client::infer`].
    pub async fn probe(&self, up: usize, down: usize) -> Result<()> {
        let asked = check_probe(&self.linker.model, up, down)?;
        let mut frame = vec![0; FRAME_OVERHEAD + up];
        getrandom::fill(frame.get_mut(FRAME_OVERHEAD..).unwrap_or_default())
            .map_err(|_| Error::NoRandomness)?;
        let frame = framed(&Request::Probe { down: asked, noise: &[] }, frame)?;
        self.request(&Ask::Probe { frame, down }, &mut |_| {}).await.map(drop)
    }

    /// The model's outputs in order, as the deployment file has them: what a [`Prediction`] is put together again with
    /// by those who kept or passed on only its numbers.
    #[must_use]
    pub fn outputs(&self) -> Arc<[Output]> {
        self.outputs.clone()
    }

    /// What the model takes and gives: sizes.
    #[must_use]
    pub fn model(&self) -> ModelInfo {
        self.linker.model
    }

    /// Bits of an input value, 1 to 16: above 8 a value is two bytes of [`Client::infer`]'s input.
    #[must_use]
    pub fn input_bits(&self) -> u32 {
        self.input.bits
    }

    /// The transport of the current connection, or of the last one if it has ended.
    #[must_use]
    pub fn transport(&self) -> TransportKind {
        self.link().connection.kind()
    }

    /// The masked input that the last inference sent, as long as the model's input: what others get to see.
    /// `None` unless [`ClientBuilder::keep_sent`] was set and something was sent.
    #[must_use]
    pub fn last_sent(&self) -> Option<Vec<u8>> {
        lock(&self.state).sent.as_ref().map(|sent| sent.to_vec())
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
        traffic + lock(&self.state).spent
    }

    /// The part of [`Client::udp_bytes`] that the first handshake took; what follows it is the session's.
    #[must_use]
    pub const fn handshake_bytes(&self) -> UdpBytes {
        self.handshake
    }

    /// Moves to the current network. To be called when the device changed it, say from Wi-Fi to mobile, or
    /// woke up. Over QUIC the connection moves to a new socket, and requests under way go on. Over TCP there
    /// is a new connection before the next request, and requests under way are sent once more; with
    /// [`Transport::Auto`](crate::Transport::Auto) QUIC gets another chance then. Harmless if nothing changed.
    ///
    /// # Errors
    /// [`Error::Setup`] if there is no new socket; the old one stays in use.
    pub fn network_changed(&self) -> Result<()> {
        self.linker.dialer.network_changed(&self.link().connection)
    }

    /// Tells the gateway that the client is done. Requests under way, those that wait for a server included, and later
    /// ones fail with [`Loss::Local`].
    pub async fn close(&self) {
        let dialer = &self.linker.dialer;
        let open = !dialer.is_closed();
        dialer.close(&self.link().connection).await;
        if open {
            dialer.log.tell(|| Event::Closed);
        }
    }

    /// Asks until there is an answer, an error that stays, or no more time. A probe's answer is none.
    async fn request(&self, ask: &Ask<'_>, progress: Tell<'_>) -> Result<Option<Prediction>> {
        let Linker { dialer, request_timeout, .. } = &self.linker;
        let mut trouble = Trouble::new(*request_timeout, dialer.log.clone());
        let (before, meter) = (self.traffic(), Meter::start(self.heap_meter.as_ref()));
        let result = {
            // Pinned here, for it is large and would be moved again at every step.
            let asking = pin!(self.ask(ask, progress, &mut trouble));
            let asking = async {
                let answer = until(dialer.closed(), asking).await;
                answer.unwrap_or(Err(Error::Closed(Loss::Local)))
            };
            dialer.bounded("answer", *request_timeout, asking).await
        };
        let cost = meter.stop(self.traffic() - before, dialer.current_thread());
        let mut state = lock(&self.state);
        let Cost { cpu, wall, heap_peak, bytes_up, bytes_down, .. } = cost;
        state.spent = state.spent + Cost { cpu, wall, heap_peak, ..Cost::default() };
        state.last = cost;
        drop(state);
        let result = result.map_err(|error| trouble.explain(error));
        dialer.log.tell(|| match &result {
            Ok(_) => Event::Answered { wall, bytes_up, bytes_down },
            Err(error) => Event::Failed { error, wall },
        });
        result
    }

    /// Of all connections; nothing else.
    fn traffic(&self) -> Cost {
        let state = lock(&self.state);
        state.earlier + state.link.connection.traffic()
    }

    async fn ask(
        &self,
        ask: &Ask<'_>,
        progress: Tell<'_>,
        trouble: &mut Trouble,
    ) -> Result<Option<Prediction>> {
        let (mut link, mut error) = (self.link(), None);
        loop {
            // Boxed, for it is rare and large, and a request's future is moved with it.
            if error.is_some() || !self.is_good(&link) {
                link = Box::pin(self.mend(link, error, trouble, progress)).await?;
            }
            let mut told = |told| {
                if told != Progress::Sent {
                    trouble.is_over();
                }
                progress(told);
            };
            let answer = match ask {
                Ask::Inference(input) => self.infer_on(&link, input, &mut told).await.map(Some),
                Ask::Probe { frame, down } => self.probe_on(&link, frame, *down).await.map(|()| None),
            };
            match answer {
                Err(failure) => error = Some(failure),
                answer => return answer,
            }
        }
    }

    async fn probe_on(&self, link: &Link, frame: &Bytes, down: usize) -> Result<()> {
        let (mut untold, mut message) = (|_| {}, Vec::new());
        let call = self.linker.caller.call(&link.connection, frame.clone(), &mut untold, &mut message);
        match call.await? {
            Response::Probe { noise } if noise.len() == down => Ok(()),
            Response::Probe { noise } => {
                Err(Violation::ProbeSize { expected: down, got: noise.len() }.into())
            }
            _ => Err(Violation::WrongKind.into()),
        }
    }

    async fn infer_on(&self, link: &Link, input: &[u8], progress: Tell<'_>) -> Result<Prediction> {
        let model = &self.linker.model;
        let outside_calibration = self.input.is_left_by(input);
        // Masked and sent from where it is copied to.
        let mut frame = Vec::with_capacity(FRAME_OVERHEAD + input.len());
        frame.resize(FRAME_OVERHEAD, 0);
        frame.extend_from_slice(input);
        let masked = frame.get_mut(FRAME_OVERHEAD..).unwrap_or_default();
        let pending = match link.request(masked) {
            Ok(pending) => pending,
            Err(error) => {
                masked.zeroize();
                return Err(error);
            }
        };
        let request = Request::Infer { handle: link.handle, counter: pending.counter(), input: &[] };
        let frame = framed(&request, frame)?;
        if self.keep_sent {
            lock(&self.state).sent = Some(frame.slice(frame.len().saturating_sub(input.len())..));
        }
        let mut message = Vec::new();
        match self.linker.caller.call(&link.connection, frame, progress, &mut message).await? {
            Response::Logits { masked } => {
                let mut logits = vec![0; model.values];
                link.unmask_logits(pending, masked, &mut logits)?;
                Ok(Prediction::new(logits, outside_calibration, self.outputs.clone()))
            }
            _ => Err(Violation::WrongKind.into()),
        }
    }

    fn link(&self) -> Arc<Link> {
        lock(&self.state).link.clone()
    }

    /// Whether requests can be made on `link`: its connection lives, and its session is not too old.
    fn is_good(&self, link: &Link) -> bool {
        link.connection.lost().is_none() && !self.linker.is_too_old(link)
    }

    /// Does something about what went wrong on `link`, if anything did: a link on which the request can be made, as soon
    /// as the gateway and its servers are there. What cannot be mended is given back.
    async fn mend(
        &self,
        link: Arc<Link>,
        mut error: Option<Error>,
        trouble: &mut Trouble,
        progress: Tell<'_>,
    ) -> Result<Arc<Link>> {
        let forgotten = matches!(error, Some(Error::Refused(Refusal::UnknownSession | Refusal::CounterUsed)));
        if let (None, Some(loss)) = (&error, link.connection.lost()) {
            trouble.found(loss);
            self.linker.dialer.log.tell(|| Event::ConnectionLost { loss });
            progress(Progress::Waiting { server: 0 });
        }
        loop {
            if let Some(error) = error {
                let (server, ends) = (away(&error), matches!(error, Error::Refused(Refusal::ShuttingDown)));
                let pause = pin!(self.linker.dialer.sleep(trouble.pause(error)?));
                if let Some(server) = server {
                    progress(Progress::Waiting { server });
                }
                if ends {
                    // Where the gateway ends, the next one is asked.
                    let _ = until(link.connection.ended(), pause).await;
                } else {
                    pause.await;
                }
            }
            if !forgotten && self.is_good(&link) {
                return Ok(link);
            }
            match self.renew(&link).await {
                Ok(link) => {
                    trouble.is_over();
                    return Ok(link);
                }
                Err(failure) => error = Some(failure),
            }
        }
    }

    /// Replaces `stale`: by the same session on a new connection if the old one has ended, otherwise by a new
    /// session.
    async fn renew(&self, stale: &Arc<Link>) -> Result<Arc<Link>> {
        let _one_at_a_time = self.renewal.lock().await;
        let current = self.link();
        if !Arc::ptr_eq(&current, stale) {
            return Ok(current);
        }
        let (link, ended) = match stale.connection.lost() {
            None => {
                let because =
                    if self.linker.is_too_old(stale) { Opening::TooOld } else { Opening::Forgotten };
                let link = self.linker.open_session(stale.connection.clone(), because).await?;
                (link, Cost::default())
            }
            Some(Loss::Local) => return Err(Error::Closed(Loss::Local)),
            Some(_) => {
                let connection = self.linker.dialer.connect().await?;
                let link = self.linker.resume(connection, stale).await?;
                (link, stale.connection.traffic())
            }
        };
        let link = Arc::new(link);
        let mut state = lock(&self.state);
        state.earlier = state.earlier + ended;
        state.link = link.clone();
        drop(state);
        // Whoever closes meanwhile may have seen the connection before.
        if self.linker.dialer.is_closed() {
            link.connection.give_up(Loss::Local);
        }
        Ok(link)
    }
}

/// How many bytes down a probe asks for, if it may.
pub(crate) fn check_probe(model: &ModelInfo, up: usize, down: usize) -> Result<u16> {
    let limit = model.request_limit() - FRAME_OVERHEAD;
    if up > limit {
        return Err(Error::ProbeTooLong { limit, got: up });
    }
    u16::try_from(down).map_err(|_| Error::ProbeTooLong { limit: u16::MAX.into(), got: down })
}

/// Does `work` until `end`, and says nothing of it if that comes first.
async fn until<T>(end: impl Future<Output = ()>, mut work: Pin<&mut impl Future<Output = T>>) -> Option<T> {
    let mut end = pin!(end);
    poll_fn(|context| match end.as_mut().poll(context) {
        Poll::Ready(()) => Poll::Ready(None),
        Poll::Pending => work.as_mut().poll(context).map(Some),
    })
    .await
}

/// The frame of `request` around the byte string that follows the first [`FRAME_OVERHEAD`] bytes.
pub(crate) fn framed(request: &Request<'_>, mut buffer: Vec<u8>) -> Result<Bytes> {
    let start = request.encode_frame_around(&mut buffer).map_err(Error::Session)?;
    let mut frame = Bytes::from(buffer);
    // Unlike a slice, it stays the only owner, and nothing is allocated.
    frame.advance(start);
    Ok(frame)
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("session", &self.link().session()).finish_non_exhaustive()
    }
}
