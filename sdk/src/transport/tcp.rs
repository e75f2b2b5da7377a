//! Requests over one TLS stream, told apart by ids: the records of [`seco_core::mux`].
//!
//! One task per connection reads and writes. What it holds is bounded: [`MAX_OPEN`] requests, each with one
//! answer and a few announcements, and one record that is being read.

use super::counted::{Count, Counted};
use crate::cost::Cost;
use crate::{Error, Loss, Result, Violation, lock};
use bytes::{Buf, Bytes};
use seco_core::message::MAX_HEADER;
use seco_core::mux::{ALPN, MAX_ID, MAX_OPEN, Record, decode_record, empty_record, encode_id};
use seco_core::{EXPORTER_LABEL, EXPORTER_LEN, Response};
use std::future::{Future, poll_fn};
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, OnceLock};
use std::task::Poll;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::net::TcpStream;
use tokio::runtime::Handle;
use tokio::sync::mpsc::{self, error::TrySendError};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::AbortHandle;
use tokio_rustls::client::TlsStream;

/// Bytes read at once. An answer of ten logits has thirty.
const CHUNK: usize = 1024;

/// Events that a request can fall behind with. Two places are kept for those that must not be missed.
const EVENTS: usize = 8;
const RESERVED: usize = 2;

#[derive(Clone)]
pub(crate) struct TcpConnection {
    shared: Arc<Shared>,
    /// Bounded by what it carries: two commands per open request, and pings, of which a request sends the
    /// next after the last was answered or the connection given up. The task ends with its last sender.
    commands: mpsc::UnboundedSender<Command>,
    task: AbortHandle,
    exporter: [u8; EXPORTER_LEN],
    round_trip: Duration,
}

/// What the connection's task is to send.
enum Command {
    Request(u32, Bytes),
    Cancel(u32),
    Ping,
    Goodbye,
}

/// What a request is told.
enum Event {
    Sent,
    Message(Vec<u8>),
}

/// What the connection's task and requests share.
struct Shared {
    open: Mutex<Open>,
    places: Arc<Semaphore>,
    count: Arc<Count>,
    /// Why the connection ended, and how the gateway broke the protocol, if that was why.
    end: OnceLock<(Loss, Option<Violation>)>,
}

/// Requests that the gateway has not ended yet.
#[derive(Default)]
struct Open {
    last: u32,
    /// [`MAX_OPEN`] at most.
    requests: Vec<Slot>,
}

impl Open {
    fn slot(&mut self, id: u32) -> Option<&mut Slot> {
        self.requests.iter_mut().find(|slot| slot.id == id)
    }

    fn remove(&mut self, id: u32) {
        self.requests.retain(|slot| slot.id != id);
    }
}

struct Slot {
    id: u32,
    /// `None` once the request was given up.
    events: Option<mpsc::Sender<Event>>,
    /// Whether sending has begun.
    begun: bool,
    _place: OwnedSemaphorePermit,
}

impl TcpConnection {
    /// A connection on `stream`, after the handshake. Messages that come down have at most `limit` bytes.
    ///
    /// # Errors
    /// [`Loss::Transport`] if the other end did not agree to the protocol.
    pub(crate) fn start(
        stream: TlsStream<Counted>,
        count: Arc<Count>,
        round_trip: Duration,
        limit: usize,
        runtime: &Handle,
    ) -> std::result::Result<Self, Loss> {
        // A server without ALPN accepts the connection all the same.
        let tls = stream.get_ref().1;
        if tls.alpn_protocol() != Some(ALPN) {
            return Err(Loss::Transport);
        }
        let exporter = tls.export_keying_material([0; EXPORTER_LEN], EXPORTER_LABEL, None);
        let exporter = exporter.map_err(|_| Loss::Transport)?;
        let shared = Arc::new(Shared {
            open: Mutex::default(),
            places: Arc::new(Semaphore::new(MAX_OPEN)),
            count,
            end: OnceLock::new(),
        });
        let (commands, queue) = mpsc::unbounded_channel();
        let task = runtime.spawn(drive(stream, shared.clone(), queue, limit)).abort_handle();
        Ok(Self { shared, commands, task, exporter, round_trip })
    }

    pub(crate) fn exporter(&self) -> [u8; EXPORTER_LEN] {
        self.exporter
    }

    pub(crate) fn lost(&self) -> Option<Loss> {
        self.shared.end.get().map(|(loss, _)| *loss)
    }

    pub(crate) async fn ended(&self) {
        self.commands.closed().await;
    }

    /// As measured when it was made.
    pub(crate) fn round_trip(&self) -> Duration {
        self.round_trip
    }

    pub(crate) fn give_up(&self, loss: Loss) {
        self.shared.finish(loss, None);
        self.task.abort();
    }

    /// Ends the connection in an orderly way; ready once that is done.
    pub(crate) async fn close(&self) {
        self.shared.finish(Loss::Local, None);
        let _ = self.commands.send(Command::Goodbye);
        self.commands.closed().await;
    }

    pub(crate) fn traffic(&self) -> Cost {
        Cost {
            bytes_up: self.shared.count.up.load(Ordering::Relaxed),
            bytes_down: self.shared.count.down.load(Ordering::Relaxed),
            ..Cost::default()
        }
    }

    pub(crate) fn ping(&self) {
        let _ = self.commands.send(Command::Ping);
    }

    pub(crate) async fn send(&self, frame: Bytes) -> Result<Exchange> {
        let place = self.shared.places.clone().acquire_owned().await;
        let place = place.map_err(|_| self.shared.error())?;
        let (events, inbox) = mpsc::channel(EVENTS);
        let id = {
            let mut open = lock(&self.shared.open);
            if open.last >= MAX_ID {
                drop(open);
                self.give_up(Loss::Transport);
                return Err(self.shared.error());
            }
            open.last += 1;
            let id = open.last;
            open.requests.push(Slot { id, events: Some(events), begun: false, _place: place });
            id
        };
        let mut exchange = Exchange { connection: self.clone(), id, inbox, early: None };
        // If the connection ended in the meantime, nobody else empties the table.
        if self.commands.send(Command::Request(id, frame)).is_err() || self.lost().is_some() {
            return Err(self.shared.error());
        }
        // A gateway may refuse what it has read in part; the rest still goes out.
        if let Event::Message(message) = exchange.event().await? {
            exchange.early = Some(message);
        }
        Ok(exchange)
    }
}

impl Shared {
    /// Ends the connection for all requests; the first reason counts.
    fn finish(&self, loss: Loss, violation: Option<Violation>) {
        let _ = self.end.set((loss, violation));
        self.places.close();
        lock(&self.open).requests.clear();
    }

    /// What requests on an ended connection say.
    fn error(&self) -> Error {
        match self.end.get() {
            Some((_, Some(violation))) => Error::Protocol(*violation),
            Some((loss, None)) => Error::Closed(*loss),
            None => Error::Closed(Loss::Transport),
        }
    }

    /// Whether a request is to be sent, that is, was not given up before its turn.
    fn begin(&self, id: u32) -> bool {
        let mut open = lock(&self.open);
        match open.slot(id) {
            Some(slot) if slot.events.is_some() => {
                slot.begun = true;
                true
            }
            _ => {
                open.remove(id);
                false
            }
        }
    }

    fn sent(&self, id: u32) {
        if let Some(Slot { events: Some(events), .. }) = lock(&self.open).slot(id) {
            let _ = events.try_send(Event::Sent);
        }
    }

    /// Takes what came down.
    fn receive(&self, record: Record, message: &[u8]) -> std::result::Result<(), Violation> {
        if record.id == 0 {
            return Ok(());
        }
        let mut open = lock(&self.open);
        let slot = open.slot(record.id).filter(|slot| slot.begun);
        let slot = slot.ok_or(Violation::UnknownRequest)?;
        // What cannot be read is the answer, and its reader says so.
        let more = matches!(Response::decode(message), Ok(Response::Queued { .. }));
        if let Some(events) = &slot.events
            && !record.is_empty()
            && (!more || events.capacity() > RESERVED)
        {
            // Fails only where the request is just being given up: two places were left.
            let _: std::result::Result<(), TrySendError<_>> =
                events.try_send(Event::Message(message.to_vec()));
        }
        if !more {
            open.remove(record.id);
        }
        Ok(())
    }
}

/// A request under way.
pub(crate) struct Exchange {
    connection: TcpConnection,
    id: u32,
    inbox: mpsc::Receiver<Event>,
    /// A message that came before everything was sent.
    early: Option<Vec<u8>>,
}

impl Exchange {
    async fn event(&mut self) -> Result<Event> {
        match self.inbox.recv().await {
            Some(event) => Ok(event),
            None if self.connection.lost().is_some() => Err(self.connection.shared.error()),
            None => Err(Violation::Dropped.into()),
        }
    }

    pub(crate) async fn next(&mut self) -> Result<Vec<u8>> {
        if let Some(message) = self.early.take() {
            return Ok(message);
        }
        loop {
            if let Event::Message(message) = self.event().await? {
                return Ok(message);
            }
        }
    }
}

/// Gives the request up, unless the gateway has ended it: then its id is not open any more.
impl Drop for Exchange {
    fn drop(&mut self) {
        let mut open = lock(&self.connection.shared.open);
        let Some(slot) = open.slot(self.id) else { return };
        slot.events = None;
        if slot.begun {
            let _ = self.connection.commands.send(Command::Cancel(self.id));
        }
        // A gateway that ends nothing leaves no place for others; another connection may do better.
        let stuck = open.requests.iter().filter(|slot| slot.events.is_none()).count() >= MAX_OPEN;
        drop(open);
        if stuck {
            self.connection.give_up(Loss::Silence);
        }
    }
}

/// Whatever ends the task, aborting and the end of the runtime included, ends the requests.
struct EndOfTask(Arc<Shared>);

impl Drop for EndOfTask {
    fn drop(&mut self) {
        self.0.finish(Loss::Transport, None);
    }
}

async fn drive(
    stream: TlsStream<Counted>,
    shared: Arc<Shared>,
    commands: mpsc::UnboundedReceiver<Command>,
    limit: usize,
) {
    let end = EndOfTask(shared);
    let (read, write) = tokio::io::split(stream);
    let mut receiving = pin!(receive(read, &end.0, limit));
    let mut sending = pin!(transmit(write, &end.0, commands));
    let (loss, violation) = poll_fn(|context| match receiving.as_mut().poll(context) {
        Poll::Ready(end) => Poll::Ready(end),
        Poll::Pending => sending.as_mut().poll(context).map(|loss| (loss, None)),
    })
    .await;
    end.0.finish(loss, violation);
}

async fn receive(
    mut read: ReadHalf<TlsStream<Counted>>,
    shared: &Shared,
    limit: usize,
) -> (Loss, Option<Violation>) {
    let mut buffer = Vec::with_capacity(CHUNK);
    loop {
        let mut rest = buffer.as_slice();
        loop {
            let record = match decode_record(rest, limit) {
                Ok(Some(record)) => record,
                Ok(None) => break,
                Err(error) => return (Loss::Transport, Some(Violation::Message(error))),
            };
            let Some(message) = record.message(rest) else { break };
            if let Err(violation) = shared.receive(record, message) {
                return (Loss::Transport, Some(violation));
            }
            rest = rest.get(record.len()..).unwrap_or_default();
        }
        let done = buffer.len() - rest.len();
        buffer.drain(..done);
        buffer.reserve(CHUNK);
        match read.read_buf(&mut buffer).await {
            Ok(1..) => {}
            Ok(0) => return (Loss::ByGateway, None),
            Err(error) => return (loss(&error), None),
        }
    }
}

async fn transmit(
    mut write: WriteHalf<TlsStream<Counted>>,
    shared: &Shared,
    mut commands: mpsc::UnboundedReceiver<Command>,
) -> Loss {
    while let Some(command) = commands.recv().await {
        let sent = match command {
            Command::Request(id, frame) if shared.begin(id) => {
                let sent = send_request(&mut write, id, frame).await;
                shared.sent(id);
                sent
            }
            Command::Request(..) => Ok(()),
            Command::Cancel(id) => send_empty(&mut write, id).await,
            Command::Ping => send_empty(&mut write, 0).await,
            Command::Goodbye => break,
        };
        if let Err(error) = sent {
            return loss(&error);
        }
    }
    // Nobody is left who could be told of a failure.
    let _ = write.shutdown().await;
    Loss::Local
}

async fn send_request(write: &mut WriteHalf<TlsStream<Counted>>, id: u32, frame: Bytes) -> io::Result<()> {
    let mut bytes = [0; MAX_HEADER];
    let len = encode_id(id, &mut bytes).map_err(io::Error::other)?;
    // Id and frame in one TLS record, and the frame not copied for it.
    write.write_all_buf(&mut Buf::take(bytes.as_slice(), len).chain(frame)).await?;
    write.flush().await
}

async fn send_empty(write: &mut WriteHalf<TlsStream<Counted>>, id: u32) -> io::Result<()> {
    let (record, len) = empty_record(id).map_err(io::Error::other)?;
    write.write_all(record.get(..len).unwrap_or_default()).await?;
    write.flush().await
}

/// How a connection ended that a system call says has.
pub(super) fn loss(error: &io::Error) -> Loss {
    use io::ErrorKind as E;
    match error.kind() {
        E::ConnectionRefused => Loss::NobodyThere,
        E::TimedOut => Loss::Silence,
        // Without a goodbye, as when it is killed.
        E::ConnectionReset | E::ConnectionAborted | E::BrokenPipe | E::UnexpectedEof => Loss::ByGateway,
        _ => Loss::Transport,
    }
}

/// Connects and shakes hands.
pub(crate) async fn dial(
    address: SocketAddr,
    name: rustls::pki_types::ServerName<'static>,
    tls: Arc<rustls::ClientConfig>,
    limit: usize,
    runtime: &Handle,
) -> std::result::Result<TcpConnection, Loss> {
    let count = Arc::new(Count::default());
    let connected = async {
        let start = Instant::now();
        let stream = TcpStream::connect(address).await?;
        let round_trip = start.elapsed();
        // A request is written in one go and must not wait for an acknowledgement.
        stream.set_nodelay(true)?;
        let stream = Counted::new(stream, count.clone());
        Ok((tokio_rustls::TlsConnector::from(tls).connect(name, stream).await?, round_trip))
    };
    let (stream, round_trip) = connected.await.map_err(|error| loss(&error))?;
    TcpConnection::start(stream, count, round_trip, limit, runtime)
}
