//! Devices over TLS and TCP, where UDP is blocked: the records of [`seco_core::mux`], which says what either
//! side may send.
//!
//! A device makes the gateway hold at most one record that is being read, [`MAX_OPEN`] requests, and their
//! answers. A record that has begun must be whole within [`TRANSFER`], and the device must take what it is
//! sent as fast; whoever breaks the rules loses the connection.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use seco_core::message::MAX_HEADER;
use seco_core::mux::{ALPN, MAX_OPEN, Record, decode_record, encode_id};
use seco_core::{EXPORTER_LABEL, EXPORTER_LEN};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tracing::debug;

use super::door::{Admission, Door, Over, Place};
use super::request::{Device, End, Responder};
use super::{TRANSFER, idle};
use crate::cluster::Cluster;

/// Records that wait for being sent; then requests wait too, and at last the device.
const OUTGOING: usize = 4;
/// Pause after a connection that the system could not make, for it has no file handles left.
const PAUSE: Duration = Duration::from_millis(100);
/// Ids and lengths are read in pieces of this size.
const PEEK: usize = 64;

/// The frame without a message.
const EMPTY: &[u8] = &[0];

/// Serves devices for ever. Dropped, it ends all connections.
pub(super) async fn serve(
    listener: Arc<TcpListener>,
    acceptor: TlsAcceptor,
    cluster: Arc<Cluster>,
    door: Arc<Door>,
) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                // Dropped at once where there is no place, as QUIC refuses. The system has validated the address.
                Ok((stream, address)) => match door.admit(Over::Tcp, address, true) {
                    Admission::In(place) => {
                        let (cluster, acceptor) = (cluster.clone(), acceptor.clone());
                        connections.spawn(async move {
                            let reason = connection(cluster, place, acceptor, stream).await;
                            debug!(%address, reason, "device left");
                        });
                    }
                    Admission::Out(reason) => debug!(%address, reason, "device turned away"),
                    Admission::Validate => {}
                },
                Err(_) => sleep(PAUSE).await,
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

/// One connection, from the handshake on. Gives the reason of its end.
async fn connection(
    cluster: Arc<Cluster>,
    place: Place,
    acceptor: TlsAcceptor,
    stream: TcpStream,
) -> &'static str {
    // An answer must not wait for an acknowledgement.
    let _ = stream.set_nodelay(true);
    let stream = tokio::select! {
        stream = timeout(TRANSFER, acceptor.accept(stream)) => stream,
        reason = place.ended() => return reason,
    };
    let Ok(Ok(stream)) = stream else { return "no handshake" };
    // A device that names no protocol is none of ours.
    if stream.get_ref().1.alpn_protocol() != Some(ALPN) {
        return "another protocol";
    }
    let mut exporter = [0; EXPORTER_LEN];
    if stream.get_ref().1.export_keying_material(&mut exporter, EXPORTER_LABEL, None).is_err() {
        return "no keying material";
    }
    let device = Device::new(cluster, place, true, exporter);
    let (read, write) = tokio::io::split(stream);
    let (outgoing, queue) = mpsc::channel(OUTGOING);
    tokio::select! {
        reason = receive(&device, read, outgoing) => reason,
        reason = transmit(write, queue) => reason,
        reason = device.place.ended() => reason,
    }
}

/// A record on its way, and who is told when the system has it.
struct Outgoing {
    record: Vec<u8>,
    written: Option<oneshot::Sender<()>>,
}

impl From<Vec<u8>> for Outgoing {
    fn from(record: Vec<u8>) -> Self {
        Self { record, written: None }
    }
}

/// Requests that are open, and the last id seen.
struct Requests {
    open: BTreeMap<u32, watch::Sender<bool>>,
    last: u32,
    places: Arc<Semaphore>,
    /// They end with their connection: nobody would read the answers.
    tasks: JoinSet<u32>,
}

async fn receive(
    device: &Arc<Device>,
    mut read: ReadHalf<TlsStream<TcpStream>>,
    outgoing: mpsc::Sender<Outgoing>,
) -> &'static str {
    let mut requests = Requests {
        open: BTreeMap::new(),
        last: 0,
        places: Arc::new(Semaphore::new(MAX_OPEN)),
        tasks: JoinSet::new(),
    };
    let mut buffer = Vec::with_capacity(PEEK);
    loop {
        // The first byte may take long; the rest of its record may not.
        if buffer.is_empty() {
            let first = async { read.read_buf(&mut buffer).await };
            let first = timeout(idle(device.cluster.patience()), first);
            tokio::pin!(first);
            let first = loop {
                tokio::select! {
                    first = &mut first => break first,
                    Some(ended) = requests.tasks.join_next() => requests.ended(ended),
                }
            };
            match first {
                Ok(Ok(1..)) => {}
                Ok(Ok(0)) => return "closed by the device",
                Ok(Err(_)) => return "lost",
                Err(_) => return "silent",
            }
        }
        let start = Instant::now();
        let record =
            match timeout(TRANSFER, record(&mut read, &mut buffer, device.cluster.request_limit())).await {
                Ok(Ok(record)) => record,
                Ok(Err(reason)) => return reason,
                Err(_) => return "too slow",
            };
        while let Some(ended) = requests.tasks.try_join_next() {
            requests.ended(ended);
        }
        let result = requests.take(device, &outgoing, record, &mut buffer, start).await;
        if let Err(reason) = result {
            return reason;
        }
    }
}

/// Reads until `buffer` starts with a whole record, and little more.
async fn record(
    read: &mut ReadHalf<TlsStream<TcpStream>>,
    buffer: &mut Vec<u8>,
    limit: usize,
) -> Result<Record, &'static str> {
    loop {
        let missing = match decode_record(buffer, limit) {
            Ok(Some(record)) if buffer.len() >= record.len() => return Ok(record),
            Ok(Some(record)) => record.len() - buffer.len(),
            Ok(None) => PEEK,
            Err(_) => return Err("not a record"),
        };
        // Nothing is held for a message that is too long.
        buffer.reserve(missing);
        match read.take(missing as u64).read_buf(buffer).await {
            Ok(1..) => {}
            _ => return Err("lost in mid-record"),
        }
    }
}

impl Requests {
    /// Does what the record at the start of `buffer` asks for, and removes it there.
    async fn take(
        &mut self,
        device: &Arc<Device>,
        outgoing: &mpsc::Sender<Outgoing>,
        record: Record,
        buffer: &mut Vec<u8>,
        start: Instant,
    ) -> Result<(), &'static str> {
        let rest = buffer.split_off(record.len());
        let mut message = std::mem::replace(buffer, rest);
        match record {
            Record { id: 0, .. } => {
                return outgoing.send(framed(0, EMPTY).into()).await.map_err(|_| "lost");
            }
            Record { id, .. } if record.is_empty() => match self.open.get(&id) {
                Some(given_up) => {
                    given_up.send_replace(true);
                }
                // It was ended in the meantime.
                None if id <= self.last => {}
                None => return Err("gave up a request that was never made"),
            },
            Record { id, .. } if id <= self.last => return Err("used an id again"),
            Record { id, header_len, .. } => {
                self.last = id;
                let place = self.places.clone().try_acquire_owned();
                let place = place.map_err(|_| "too many requests")?;
                message.drain(..header_len);
                let (sender, given_up) = watch::channel(false);
                self.open.insert(id, sender);
                let reply = Reply { id, outgoing: outgoing.clone(), given_up, _place: place };
                let device = device.clone();
                self.tasks.spawn(async move {
                    device.request(Ok(message), reply, start).await;
                    id
                });
            }
        }
        Ok(())
    }
}

impl Requests {
    fn ended(&mut self, id: Result<u32, tokio::task::JoinError>) {
        if let Ok(id) = id {
            self.open.remove(&id);
        }
    }
}

/// Where the responses to a request go.
struct Reply {
    id: u32,
    outgoing: mpsc::Sender<Outgoing>,
    given_up: watch::Receiver<bool>,
    _place: OwnedSemaphorePermit,
}

impl Responder for Reply {
    async fn send(&mut self, frame: &[u8]) -> Result<(), End> {
        self.outgoing.send(framed(self.id, frame).into()).await.map_err(|_| End::Gone)
    }

    async fn given_up(&mut self) {
        // An error says that the connection has ended.
        let _ = self.given_up.wait_for(|given_up| *given_up).await;
    }

    async fn finish(self, frame: Option<&[u8]>) {
        let Self { id, outgoing, _place: place, .. } = self;
        // The device may ask again as soon as it reads this.
        drop(place);
        let (written, done) = oneshot::channel();
        let last = Outgoing { record: framed(id, frame.unwrap_or(EMPTY)), written: Some(written) };
        if outgoing.send(last).await.is_ok() {
            // Fails when the connection has ended.
            let _ = done.await;
        }
    }
}

/// Sends what is due. Gives the reason of the connection's end.
async fn transmit(
    mut write: WriteHalf<TlsStream<TcpStream>>,
    mut queue: mpsc::Receiver<Outgoing>,
) -> &'static str {
    while let Some(Outgoing { record, written }) = queue.recv().await {
        let sent = async {
            write.write_all(&record).await?;
            write.flush().await
        };
        match timeout(TRANSFER, sent).await {
            // Fails where nobody waits.
            Ok(Ok(())) => drop(written.map(|written| written.send(()))),
            Ok(Err(_)) => return "lost",
            Err(_) => return "takes no answers",
        }
    }
    "done"
}

/// The record of a frame; the empty frame is the byte 0.
fn framed(id: u32, frame: &[u8]) -> Vec<u8> {
    let mut bytes = [0; MAX_HEADER];
    // Ids are those that were read, none of which is too large.
    let len = encode_id(id, &mut bytes).unwrap_or_default();
    [bytes.get(..len).unwrap_or_default(), frame].concat()
}
