//! One job's messages to and from all other servers: [`seco_protocol::Channel`] over QUIC streams,
//! for a thread that may block.
//!
//! Sending hands the message to a task of its own for each stream and returns; so a thread that
//! sends while its peer also sends never waits for it, and two servers cannot block each other.
//! What is queued is the protocol's own messages of this job, hence bounded by the protocol, which in
//! preprocessing never runs far ahead of the slowest server, and online waits by
//! [`Channel::wait_sent`].
//! Receiving waits until the job's time limit, or until somebody cancels the job.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use quinn::{RecvStream, SendStream};
use seco_protocol::{Channel, ChannelError};
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;

use super::frame::{self, FrameError};
use super::registry::{ABANDONED, Pair};
use crate::mesh::Clock;
use crate::operation::metrics::Traffic;

struct End {
    /// Bytes handed to the writer so far, and those it has written.
    queued: usize,
    written: watch::Receiver<usize>,
    /// Ends when the peer has everything, or the stream is broken.
    writer: JoinHandle<()>,
    outbox: mpsc::UnboundedSender<Vec<u8>>,
    /// Bytes of messages that were received.
    received: usize,
    /// Sent when everything was said; dropped unsent, the stream is reset at once.
    done: oneshot::Sender<()>,
    receive: RecvStream,
}

/// Memory of messages that have arrived, kept for those to come.
type Blanks = Arc<Mutex<Vec<Vec<u8>>>>;

/// Messages whose memory is kept, and their least size: small ones are not worth it.
const MAX_BLANKS: usize = 8;
const BLANK: usize = 1 << 20;

/// A message on its way. When the peer has it, its memory goes back.
struct Outgoing {
    message: Vec<u8>,
    blanks: Blanks,
}

impl AsRef<[u8]> for Outgoing {
    fn as_ref(&self) -> &[u8] {
        &self.message
    }
}

impl Drop for Outgoing {
    fn drop(&mut self) {
        let mut blanks = self.blanks.lock().unwrap_or_else(PoisonError::into_inner);
        if self.message.len() >= BLANK && blanks.len() < MAX_BLANKS {
            blanks.push(std::mem::take(&mut self.message));
        }
    }
}

/// Streams to all other servers for one lane of one job. Must be used on a thread that may block.
/// Dropped without [`QuicChannel::finish`], its streams are reset and the peers' next receive
/// fails at once.
pub struct QuicChannel {
    me: usize,
    ends: Vec<Option<End>>,
    blanks: Blanks,
    clock: Clock,
    runtime: Handle,
}

impl QuicChannel {
    /// `pairs[i]` is the stream to server `i`. Call it inside the runtime.
    pub(super) fn new(me: usize, pairs: Vec<Option<Pair>>, clock: Clock) -> Self {
        let blanks = Blanks::default();
        let ends = pairs
            .into_iter()
            .map(|pair| {
                pair.map(|(send, receive)| {
                    let (outbox, messages) = mpsc::unbounded_channel();
                    let (done, fate) = oneshot::channel();
                    let (progress, written) = watch::channel(0);
                    let writer = tokio::spawn(write(send, messages, blanks.clone(), progress, fate));
                    End { queued: 0, written, writer, outbox, received: 0, done, receive }
                })
            })
            .collect();
        Self { me, ends, blanks, clock, runtime: Handle::current() }
    }

    /// Bytes of messages sent to all servers and received from them so far.
    pub(crate) fn traffic(&self) -> Traffic {
        self.ends.iter().flatten().fold(Traffic::default(), |sum, end| Traffic {
            sent: sum.sent + end.queued as u64,
            received: sum.received + end.received as u64,
        })
    }

    /// Ends the lane properly: what was sent still arrives. Gives what to wait for, by peer, should it
    /// matter when.
    pub fn finish(self) -> Vec<(usize, JoinHandle<()>)> {
        let mut writers = Vec::with_capacity(self.ends.len());
        for (peer, end) in self.ends.into_iter().enumerate() {
            if let Some(End { writer, done, .. }) = end {
                // Fails when the stream is broken; the peer knows already.
                let _ = done.send(());
                writers.push((peer, writer));
            }
        }
        writers
    }
}

/// Writes one stream's messages until the channel is finished or dropped.
async fn write(
    mut stream: SendStream,
    mut messages: mpsc::UnboundedReceiver<Vec<u8>>,
    blanks: Blanks,
    written: watch::Sender<usize>,
    fate: oneshot::Receiver<()>,
) {
    let say = async {
        while let Some(message) = messages.recv().await {
            let length = message.len();
            let message = Bytes::from_owner(Outgoing { message, blanks: blanks.clone() });
            if frame::write(&mut stream, message).await.is_err() {
                return;
            }
            written.send_modify(|sum| *sum += length);
        }
    };
    let abandoned = async {
        if fate.await.is_ok() {
            std::future::pending::<()>().await;
        }
    };
    let said = tokio::select! {
        // A dropped channel closes its outbox too; the reset must win.
        biased;
        () = abandoned => false,
        () = say => true,
    };
    if !said {
        let _ = stream.reset(ABANDONED);
    } else if stream.finish().is_ok() {
        let _ = stream.stopped().await;
    }
}

impl Channel for QuicChannel {
    fn me(&self) -> usize {
        self.me
    }

    fn parties(&self) -> usize {
        self.ends.len()
    }

    fn blank(&mut self) -> Vec<u8> {
        self.blanks.lock().unwrap_or_else(PoisonError::into_inner).pop().unwrap_or_default()
    }

    fn send(&mut self, to: usize, message: Vec<u8>) -> Result<(), ChannelError> {
        let closed = || ChannelError::Closed { peer: to };
        let end = self.ends.get_mut(to).and_then(Option::as_mut).ok_or_else(closed)?;
        end.queued += message.len();
        end.outbox.send(message).map_err(|_| closed())
    }

    fn wait_sent(&mut self, to: usize, bytes: usize) -> Result<(), ChannelError> {
        let closed = || ChannelError::Closed { peer: to };
        let end = self.ends.get_mut(to).and_then(Option::as_mut).ok_or_else(closed)?;
        let queued = end.queued;
        let wait = end.written.wait_for(|written| queued - written <= bytes);
        // Fails when the writer has given up.
        self.runtime.block_on(self.clock.limit(to, wait))?.map(|_| ()).map_err(|_| closed())
    }

    fn recv(&mut self, from: usize, max: usize) -> Result<Vec<u8>, ChannelError> {
        let end = self.ends.get_mut(from).and_then(Option::as_mut);
        let end = end.ok_or(ChannelError::Closed { peer: from })?;
        let read = self.clock.limit(from, frame::read(&mut end.receive, max));
        let message = self.runtime.block_on(read)?.map_err(|e| match e {
            FrameError::Closed => ChannelError::Closed { peer: from },
            FrameError::TooLarge(got) => ChannelError::TooLarge { peer: from, got, max },
        })?;
        end.received += message.len();
        Ok(message)
    }
}
