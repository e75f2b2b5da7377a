//! How the servers of one job talk to each other: ordered, reliable messages between pairs.
//!
//! Protocol code is written once over [`Channel`]. [`memory`] runs all servers in one process for
//! tests; the `seco` binary runs the same code over QUIC.

/// What can go wrong between two servers. Peers are named by their index in the cluster.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ChannelError {
    /// The peer ended the job or the connection was lost.
    #[error("server {peer} ended the exchange")]
    Closed {
        /// The peer's index.
        peer: usize,
    },
    /// Nothing came in the time allowed.
    #[error("server {peer} did not answer in time")]
    TimedOut {
        /// The peer's index.
        peer: usize,
    },
    /// The peer announced a message longer than the protocol allows here.
    #[error("server {peer} sent a message of {got} bytes where at most {max} are allowed")]
    TooLarge {
        /// The peer's index.
        peer: usize,
        /// Bytes announced.
        got: usize,
        /// Bytes allowed.
        max: usize,
    },
}

/// Messages between the servers of one job. Sending queues and does not wait for the peer;
/// receiving waits, but never for ever. Messages between two servers arrive in order.
pub trait Channel: Send {
    /// This server's index, from 0 (the gateway).
    fn me(&self) -> usize;
    /// Number of servers.
    fn parties(&self) -> usize;
    /// Memory of a message that was sent, to be used again; with any content or none.
    fn blank(&mut self) -> Vec<u8> {
        Vec::new()
    }
    /// Queues a message for another server.
    fn send(&mut self, to: usize, message: Vec<u8>) -> Result<(), ChannelError>;
    /// Waits until at most `bytes` of what was queued for another server are not sent yet. Only for
    /// where that server will read all of it whatever this one does meanwhile.
    fn wait_sent(&mut self, _to: usize, _bytes: usize) -> Result<(), ChannelError> {
        Ok(())
    }
    /// Waits for the next message of another server, of at most `max` bytes. Implementations check
    /// the length before they allocate.
    fn recv(&mut self, from: usize, max: usize) -> Result<Vec<u8>, ChannelError>;
}

/// All servers in one process.
pub mod memory {
    use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
    use std::time::Duration;

    use super::{Channel, ChannelError};

    /// One server's end of an in-memory network.
    pub struct MemoryChannel {
        me: usize,
        to: Vec<Option<Sender<Vec<u8>>>>,
        from: Vec<Option<Receiver<Vec<u8>>>>,
        limit: Duration,
    }

    /// Connects `parties` servers; element `i` is server `i`'s channel. `limit` bounds every wait.
    pub fn network(parties: usize, limit: Duration) -> Vec<MemoryChannel> {
        let mut ends: Vec<MemoryChannel> = (0..parties)
            .map(|me| MemoryChannel {
                me,
                to: (0..parties).map(|_| None).collect(),
                from: (0..parties).map(|_| None).collect(),
                limit,
            })
            .collect();
        for a in 0..parties {
            for b in (0..parties).filter(|&b| b != a) {
                let (tx, rx) = channel();
                ends[a].to[b] = Some(tx);
                ends[b].from[a] = Some(rx);
            }
        }
        ends
    }

    impl Channel for MemoryChannel {
        fn me(&self) -> usize {
            self.me
        }

        fn parties(&self) -> usize {
            self.to.len()
        }

        fn send(&mut self, to: usize, message: Vec<u8>) -> Result<(), ChannelError> {
            let end = self.to.get(to).and_then(Option::as_ref).ok_or(ChannelError::Closed { peer: to })?;
            end.send(message).map_err(|_| ChannelError::Closed { peer: to })
        }

        fn recv(&mut self, from: usize, max: usize) -> Result<Vec<u8>, ChannelError> {
            let end =
                self.from.get(from).and_then(Option::as_ref).ok_or(ChannelError::Closed { peer: from })?;
            let message = end.recv_timeout(self.limit).map_err(|e| match e {
                RecvTimeoutError::Timeout => ChannelError::TimedOut { peer: from },
                RecvTimeoutError::Disconnected => ChannelError::Closed { peer: from },
            })?;
            if message.len() > max {
                return Err(ChannelError::TooLarge { peer: from, got: message.len(), max });
            }
            Ok(message)
        }
    }
}
