//! Who is let in: connections and requests of devices, counted by address.
//!
//! Addresses that did not show that they receive what is sent to them may be anybody's: little is counted for them,
//! and nobody makes place for them.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;
use tokio::time::timeout_at;

use crate::access::bucket::{Bucket, HOUR, MINUTE};
use crate::access::source::Source;
use crate::config::Limits;

/// Part of a limit from which on a device must show that it receives at the address it sends from.
const VALIDATE: usize = 4;
/// Addresses that are remembered without a connection; with more, those are forgotten.
const MAX_SOURCES: usize = 1 << 16;
/// With fewer nobody looks which ones can be forgotten.
const MIN_SWEEP: usize = 1 << 10;

/// How a connection came. Each has its own places, so that neither crowds out the other.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Over {
    Quic,
    Tcp,
}

/// What becomes of a new connection.
pub(super) enum Admission {
    /// It has a place.
    In(Place),
    /// It must show first that it receives at its address.
    Validate,
    /// It has none.
    Out(&'static str),
}

/// The connections of all devices, and what their addresses have used.
pub(super) struct Door {
    limits: Limits,
    /// Places over TCP.
    tcp: usize,
    state: Mutex<State>,
}

struct State {
    next: u64,
    connections: HashMap<u64, Connection>,
    quic: usize,
    sources: HashMap<Source, Usage>,
    /// So many sources are looked through for those that can be forgotten.
    sweep: usize,
}

struct Connection {
    over: Over,
    source: Source,
    /// Requests that wait or run.
    open: usize,
    sessions: usize,
    /// Since when there is none.
    idle: Instant,
    /// Told when it has to go.
    evicted: Arc<Notify>,
}

/// What is used from one address.
struct Usage {
    connections: usize,
    sessions: usize,
    requests: usize,
    minute: Bucket,
    hour: Bucket,
    /// Bundles that are leased to its connections.
    leased: usize,
}

/// Whether `used` is below a limit, of which 0 is none.
fn below(used: usize, limit: usize) -> bool {
    limit == 0 || used < limit
}

impl Door {
    /// `tcp` is how many connections may come over TCP.
    pub fn new(limits: Limits, tcp: usize) -> Arc<Self> {
        let state = State {
            next: 0,
            connections: HashMap::new(),
            quic: 0,
            sources: HashMap::new(),
            sweep: MIN_SWEEP,
        };
        Arc::new(Self { limits, tcp, state: Mutex::new(state) })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives a connection a place before anything is computed for it. `valid` says that the device receives at the
    /// address.
    pub fn admit(self: &Arc<Self>, over: Over, address: SocketAddr, valid: bool) -> Admission {
        let (now, source) = (Instant::now(), Source::from(address.ip()));
        let Limits { connections, address_connections, address_handshakes, .. } = self.limits;
        let places = if over == Over::Tcp { self.tcp } else { connections };
        let mut state = self.state();
        let taken = state.taken(over);
        let usage = state.usage(source, &self.limits, now);
        if !valid {
            let much = |used: usize, limit: usize| limit > 0 && used >= limit.div_ceil(VALIDATE);
            let handshakes = usage.minute.settle(address_handshakes, MINUTE, now) as usize;
            if taken >= places.div_ceil(VALIDATE)
                || much(usage.connections, address_connections)
                || much(handshakes, address_handshakes)
            {
                return Admission::Validate;
            }
        }
        if usage.minute.take(address_handshakes, MINUTE, now).is_err() {
            return Admission::Out("too many handshakes from its address");
        }
        if !below(usage.connections, address_connections) && !state.evict(|other| other.source == source) {
            return Admission::Out("too many connections from its address");
        }
        if state.taken(over) >= places && !state.evict(|other| other.over == over) {
            return Admission::Out("all connections are busy");
        }
        state.usage(source, &self.limits, now).connections += 1;
        state.quic += usize::from(over == Over::Quic);
        let id = state.next;
        state.next += 1;
        let evicted = Arc::new(Notify::new());
        let connection =
            Connection { over, source, open: 0, sessions: 0, idle: now, evicted: evicted.clone() };
        state.connections.insert(id, connection);
        Admission::In(Place { door: self.clone(), id, source, evicted })
    }
}

impl State {
    fn taken(&self, over: Over) -> usize {
        if over == Over::Quic { self.quic } else { self.connections.len() - self.quic }
    }

    fn usage(&mut self, source: Source, limits: &Limits, now: Instant) -> &mut Usage {
        if self.sources.len() >= self.sweep {
            let used = |usage: &Usage| usage.connections + usage.sessions + usage.requests + usage.leased > 0;
            self.sources.retain(|_, usage| {
                used(usage)
                    || usage.minute.settle(limits.address_handshakes, MINUTE, now) > 0.0
                    || usage.hour.settle(limits.address_requests_hour, HOUR, now) > 0.0
            });
            if self.sources.len() >= MAX_SOURCES {
                self.sources.retain(|_, usage| used(usage));
            }
            self.sweep = (2 * self.sources.len()).max(MIN_SWEEP);
        }
        let new = || Usage {
            connections: 0,
            sessions: 0,
            requests: 0,
            minute: Bucket::new(now),
            hour: Bucket::new(now),
            leased: 0,
        };
        self.sources.entry(source).or_insert_with(new)
    }

    /// Ends the connection that is idle for longest among those that may go; says whether there is one.
    fn evict(&mut self, may: impl Fn(&Connection) -> bool) -> bool {
        let idle = self.connections.iter().filter(|(_, connection)| connection.open == 0 && may(connection));
        let Some((&id, _)) = idle.min_by_key(|(_, connection)| connection.idle) else { return false };
        if let Some(connection) = self.remove(id) {
            connection.evicted.notify_one();
        }
        true
    }

    fn remove(&mut self, id: u64) -> Option<Connection> {
        let connection = self.connections.remove(&id)?;
        self.quic -= usize::from(connection.over == Over::Quic);
        if let Some(usage) = self.sources.get_mut(&connection.source) {
            usage.connections -= 1;
            usage.sessions -= connection.sessions;
        }
        Some(connection)
    }
}

/// A connection's place, and what is counted for it. Dropped, it is free.
pub(super) struct Place {
    door: Arc<Door>,
    id: u64,
    source: Source,
    evicted: Arc<Notify>,
}

impl Place {
    /// Where the device is.
    pub fn source(&self) -> Source {
        self.source
    }

    /// Counts a request that has arrived. It ends with what this gives; `Err` says when to ask again, if that is
    /// known.
    pub fn request(&self) -> Result<Open<'_>, Option<Duration>> {
        let Limits { address_requests, address_requests_hour, .. } = self.door.limits;
        let now = Instant::now();
        let mut state = self.door.state();
        let usage = state.usage(self.source, &self.door.limits, now);
        if !below(usage.requests, address_requests) {
            return Err(None);
        }
        usage.hour.take(address_requests_hour, HOUR, now).map_err(Some)?;
        usage.requests += 1;
        Ok(Open { place: self })
    }

    /// Keeps the connection from being ended for another, until an answer is taken.
    pub fn busy(&self) -> Answering<'_> {
        if let Some(connection) = self.door.state().connections.get_mut(&self.id) {
            connection.open += 1;
        }
        Answering { place: self }
    }

    /// Counts a session that is being opened or taken up, until this is dropped; `Err` says when to try again.
    /// `handshake`: it costs the servers one.
    pub fn session(&self, handshake: bool) -> Result<Opening<'_>, Duration> {
        let Limits { address_sessions, address_handshakes, .. } = self.door.limits;
        let now = Instant::now();
        let mut state = self.door.state();
        let usage = state.usage(self.source, &self.door.limits, now);
        if !below(usage.sessions, address_sessions) {
            // Nobody knows when one ends. That of a device that has vanished ends with its silent connection.
            return Err(super::idle(self.door.limits.infer()));
        }
        if handshake {
            usage.minute.take(address_handshakes, MINUTE, now)?;
        }
        // Several at once must not all find place for one.
        usage.sessions += 1;
        Ok(Opening { place: self })
    }

    /// Counts a bundle that is leased for the connection's next request, until this is dropped; `None` where its address
    /// has as many as it may.
    pub fn lease(&self) -> Option<Leased> {
        let mut state = self.door.state();
        let usage = state.usage(self.source, &self.door.limits, Instant::now());
        if !below(usage.leased, self.door.limits.address_leases) {
            return None;
        }
        usage.leased += 1;
        Some(Leased { door: self.door.clone(), source: self.source })
    }

    /// The connection has so many sessions now.
    pub fn sessions(&self, count: usize) {
        let mut state = self.door.state();
        let Some(connection) = state.connections.get_mut(&self.id) else { return };
        let before = std::mem::replace(&mut connection.sessions, count);
        if let Some(usage) = state.sources.get_mut(&self.source) {
            usage.sessions = usage.sessions - before + count;
        }
    }

    /// Ready, with the reason, once the connection has to go.
    pub async fn ended(&self) -> &'static str {
        let limit = self.door.limits.idle();
        loop {
            let (used, idle) = match self.door.state().connections.get(&self.id) {
                Some(connection) => (connection.open + connection.sessions > 0, connection.idle),
                None => return "made place for another",
            };
            let now = Instant::now();
            let due = if used { now + limit } else { idle + limit };
            if due <= now {
                return "has no session";
            }
            // What happens meanwhile is seen then.
            let _ = timeout_at(due.into(), self.evicted.notified()).await;
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.door.state().remove(self.id);
    }
}

/// A session that is being opened.
pub(super) struct Opening<'a> {
    place: &'a Place,
}

impl Drop for Opening<'_> {
    fn drop(&mut self) {
        if let Some(usage) = self.place.door.state().sources.get_mut(&self.place.source) {
            usage.sessions -= 1;
        }
    }
}

/// A bundle that is leased to a connection from an address.
pub(super) struct Leased {
    door: Arc<Door>,
    source: Source,
}

impl Drop for Leased {
    fn drop(&mut self) {
        if let Some(usage) = self.door.state().sources.get_mut(&self.source) {
            usage.leased -= 1;
        }
    }
}

/// A connection that has an answer to come.
pub(super) struct Answering<'a> {
    place: &'a Place,
}

impl Drop for Answering<'_> {
    fn drop(&mut self) {
        if let Some(connection) = self.place.door.state().connections.get_mut(&self.place.id) {
            connection.open -= 1;
            connection.idle = Instant::now();
        }
    }
}

/// A request that waits or runs.
pub(super) struct Open<'a> {
    place: &'a Place,
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        let mut state = self.place.door.state();
        if let Some(usage) = state.sources.get_mut(&self.place.source) {
            usage.requests -= 1;
        }
    }
}

#[cfg(test)]
mod tests;
