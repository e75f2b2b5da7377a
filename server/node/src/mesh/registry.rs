//! Streams that peers opened for a job, until the job's thread asks for them. Either side may be
//! first: the peer can have started the job before this server heard of it.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use quinn::{RecvStream, SendStream, VarInt};
use tokio::sync::oneshot;

/// Both directions of a stream.
pub(super) type Pair = (SendStream, RecvStream);

/// Streams of one peer that no job asked for yet.
const MAX_PENDING: usize = 64;
/// A stream that no job asked for in this time is dropped.
const MAX_AGE: Duration = Duration::from_secs(60);
/// Code of a stream that is given up; the other side only sees that it ended.
pub(super) const ABANDONED: VarInt = VarInt::from_u32(1);

/// A stream's name: peer, job, lane.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Key {
    pub(super) peer: usize,
    pub(super) job: u64,
    pub(super) lane: u8,
}

enum Slot {
    Arrived(Instant, Pair),
    Wanted(oneshot::Sender<Pair>),
}

/// Streams by name.
#[derive(Default)]
pub(super) struct Registry {
    slots: Mutex<HashMap<Key, Slot>>,
}

impl Registry {
    fn slots(&self) -> MutexGuard<'_, HashMap<Key, Slot>> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A peer opened a stream.
    pub(super) fn arrive(&self, key: Key, pair: Pair) {
        let mut slots = self.slots();
        let mut late = Vec::new();
        slots.retain(|k, slot| match slot {
            Slot::Arrived(at, _) if at.elapsed() > MAX_AGE => {
                late.push(*k);
                true
            }
            Slot::Wanted(waiter) => !waiter.is_closed(),
            Slot::Arrived(..) => true,
        });
        for key in late {
            if let Some(Slot::Arrived(_, pair)) = slots.remove(&key) {
                abandon(pair);
            }
        }
        match slots.remove(&key) {
            Some(Slot::Wanted(waiter)) => {
                if let Err(pair) = waiter.send(pair) {
                    abandon(pair);
                }
            }
            // A second stream of the same name: the peer is confused, keep the first.
            Some(first @ Slot::Arrived(..)) => {
                slots.insert(key, first);
                abandon(pair);
            }
            None => {
                let pending = slots
                    .iter()
                    .filter(|(k, s)| k.peer == key.peer && matches!(s, Slot::Arrived(..)))
                    .count();
                if pending < MAX_PENDING {
                    slots.insert(key, Slot::Arrived(Instant::now(), pair));
                } else {
                    abandon(pair);
                }
            }
        }
    }

    /// The stream of this name, now or later; the receiver fails when the peer is lost first.
    pub(super) fn want(&self, key: Key) -> oneshot::Receiver<Pair> {
        let (sender, receiver) = oneshot::channel();
        let mut slots = self.slots();
        match slots.remove(&key) {
            Some(Slot::Arrived(_, pair)) => {
                // The receiver is alive: it is returned below.
                let _ = sender.send(pair);
            }
            _ => {
                slots.insert(key, Slot::Wanted(sender));
            }
        }
        receiver
    }

    /// The connection to a peer is gone, and with it its streams and whoever waits for them.
    pub(super) fn lose(&self, peer: usize) {
        self.slots().retain(|key, _| key.peer != peer);
    }
}

/// Ends both directions so that the peer notices at once. Merely dropping a stream of quinn's
/// would look like a proper end.
pub(super) fn abandon((mut send, mut receive): Pair) {
    let _ = send.reset(ABANDONED);
    let _ = receive.stop(ABANDONED);
}
