//! Sessions of devices on this server: keys, the connections that use them, and the numbers used on each
//! (section 3 of PROTOCOL.md).
//!
//! They live in memory. A server that restarts does not know them, and the device opens a new one; a session
//! whose key were kept on disk could be read by whoever gets the disk.
//!
//! A session's id is no secret. So whoever opens it again under another key is told that it is not known, and
//! whoever resumes it proves its key first. Every connection has its own incarnation and with it keys for its
//! pads; requests count from 0 in each, and a number is used once. What is forgotten here, by a restart or to
//! make place, takes its keys along: a device that goes on draws a new nonce, and with it other pads. (One that
//! repeats its nonce on the same connection repeats its own pads, which no server can prevent.)
//!
//! That an incarnation has ended is the gateway's word. So one that used numbers never comes back while its
//! session's key is here: with the incarnation its record of numbers is gone, and a gateway that told of it once
//! more, as the device did before, would have a second input answered under the same pads. Nor does a session
//! whose key went after a bundle was spent for it, for the ledger has its id; and for a number that was taken
//! before its key went nothing is spent any more ([`Pads::session`]).

use std::collections::HashMap;
use std::sync::{Arc, Weak};

use seco_core::{Incarnation, IncarnationId, IncarnationKey, SessionId, SessionKey};
use subtle::ConstantTimeEq as _;

use crate::failure::Failure;

/// Numbers below the highest that may still be used, once: requests on one connection may overtake each other.
const WINDOW: u64 = 128;
/// How far above the highest a number may be. Numbers are left out by requests that were cancelled.
const AHEAD: u64 = 1 << 16;
/// Incarnations kept for each session that may be kept, on average. A device whose incarnation made place for
/// another opens a new session.
const INCARNATIONS: usize = 2;

/// Ended incarnations that are remembered with a session. At one more the session is forgotten, and its device
/// opens a new one.
const ENDED: usize = 64;

/// A connection's incarnation of a session.
pub type Connected = (SessionId, IncarnationId);

/// Bounded tables; what was unused for longest makes place for what is new.
pub struct Sessions {
    sessions: Table<SessionId, Known>,
    incarnations: Table<Connected, Live>,
}

/// A session's key, and the incarnations that used numbers and are here no more.
struct Known {
    /// Behind a pointer, so that it is wiped where it lies: what is moved in a table leaves copies.
    key: Arc<SessionKey>,
    ended: Vec<IncarnationId>,
}

/// An incarnation's key, and the numbers that were used.
struct Live {
    key: Arc<IncarnationKey>,
    used: Used,
}

/// What a request's pads come from, once its number was taken.
pub struct Pads {
    /// The key of its connection.
    pub key: Arc<IncarnationKey>,
    /// Dead once the session was forgotten. Whoever opens it again asks the ledger, which does not know of a number
    /// that was taken and whose bundle is yet to be spent: so it is not spent any more.
    pub session: Weak<SessionKey>,
}

impl Sessions {
    /// Empty tables for so many sessions.
    pub fn new(capacity: usize) -> Self {
        Self {
            sessions: Table::new(capacity),
            incarnations: Table::new(capacity.saturating_mul(INCARNATIONS)),
        }
    }

    /// Adds a session and its first incarnation. `spent_before` says that the ledger has the session's id: if no
    /// key is there, it was lost, and whoever opens it now need not be its owner.
    ///
    /// # Errors
    /// [`Failure::UnknownSession`] then, or if the session is here under another key, or if the incarnation has
    /// ended. Devices draw a new id.
    pub fn open(
        &mut self,
        id: SessionId,
        key: SessionKey,
        incarnation: &Incarnation,
        spent_before: bool,
    ) -> Result<(), Failure> {
        match self.sessions.get(&id) {
            Some(known) if !bool::from(known.key.ct_eq(&key)) => return Err(Failure::UnknownSession),
            None if spent_before => return Err(Failure::UnknownSession),
            Some(_) => {}
            None => {
                let gone = self.sessions.insert(id, Known { key: Arc::new(key), ended: Vec::new() });
                if !gone.is_empty() {
                    let Self { sessions, incarnations } = self;
                    incarnations.retain(|(session, _)| sessions.entries.contains_key(session));
                }
            }
        }
        self.add(id, incarnation)
    }

    /// Adds an incarnation of a session to a device that shows it has the session's key.
    ///
    /// # Errors
    /// [`Failure::UnknownSession`] if it does not, there is no such session, or the incarnation has ended.
    pub fn resume(
        &mut self,
        id: SessionId,
        incarnation: &Incarnation,
        tag: &[u8; 16],
    ) -> Result<(), Failure> {
        let known = self.sessions.get(&id).ok_or(Failure::UnknownSession)?;
        if !known.key.for_connection(incarnation).accepts(tag) {
            return Err(Failure::UnknownSession);
        }
        self.add(id, incarnation)
    }

    fn add(&mut self, id: SessionId, incarnation: &Incarnation) -> Result<(), Failure> {
        let connected = (id, incarnation.id());
        // Told twice, it keeps the numbers that were used.
        if self.incarnations.get(&connected).is_some() {
            return Ok(());
        }
        let known = self.sessions.get(&id).ok_or(Failure::UnknownSession)?;
        if known.ended.contains(&connected.1) {
            return Err(Failure::UnknownSession);
        }
        let key = Arc::new(known.key.for_connection(incarnation));
        let live = Live { key, used: Used::default() };
        for (connected, live) in self.incarnations.insert(connected, live) {
            self.ended(&connected, &live);
        }
        Ok(())
    }

    /// Remembers an incarnation that is no longer here, if it used numbers.
    fn ended(&mut self, (session, incarnation): &Connected, live: &Live) {
        let Some((_, known)) = self.sessions.entries.get_mut(session).filter(|_| live.used.next > 0) else {
            return;
        };
        if known.ended.len() < ENDED {
            known.ended.push(*incarnation);
        } else {
            self.remove(session);
        }
    }

    /// Uses a number of an incarnation; gives the key of its pads.
    ///
    /// # Errors
    /// [`Failure::UnknownSession`]; [`Failure::CounterUsed`] if it was used before, may have been, or is too far
    /// ahead.
    pub fn take(&mut self, connected: &Connected, counter: u64) -> Result<Pads, Failure> {
        let known = self.sessions.get(&connected.0).ok_or(Failure::UnknownSession)?;
        let live = self.incarnations.get(connected).ok_or(Failure::UnknownSession)?;
        if !live.used.take(counter) {
            return Err(Failure::CounterUsed);
        }
        Ok(Pads { key: live.key.clone(), session: Arc::downgrade(&known.key) })
    }

    /// The number above all that an incarnation used.
    pub fn next(&self, connected: &Connected) -> Option<u64> {
        self.incarnations.entries.get(connected).map(|(_, live)| live.used.next)
    }

    /// Whether requests of this incarnation are served.
    pub fn knows(&mut self, connected: &Connected) -> bool {
        self.incarnations.get(connected).is_some()
    }

    /// Sessions that are remembered.
    pub fn len(&self) -> usize {
        self.sessions.entries.len()
    }

    /// The connection has ended.
    pub fn end(&mut self, connected: &Connected) {
        if let Some(live) = self.incarnations.remove(connected) {
            self.ended(connected, &live);
        }
    }

    /// Forgets a session, as another server has.
    pub fn remove(&mut self, id: &SessionId) {
        self.sessions.remove(id);
        self.incarnations.retain(|(session, _)| session != id);
    }
}

/// Which numbers of an incarnation were used.
#[derive(Default)]
struct Used {
    /// One above the highest used; 0 if none was.
    next: u64,
    /// Bit `i`: number `next - 1 - i` was used.
    window: u128,
}

impl Used {
    /// Whether the number can be used; then it is.
    fn take(&mut self, counter: u64) -> bool {
        if counter >= self.next {
            let above = counter - self.next;
            if above > AHEAD || counter == u64::MAX {
                return false;
            }
            self.window = if above < WINDOW - 1 { self.window << (above + 1) } else { 0 } | 1;
            self.next = counter + 1;
            return true;
        }
        let below = self.next - 1 - counter;
        if below >= WINDOW || self.window >> below & 1 == 1 {
            return false;
        }
        self.window |= 1 << below;
        true
    }
}

/// A table of bounded size that forgets what was unused for longest.
struct Table<K, V> {
    entries: HashMap<K, (u64, V)>,
    capacity: usize,
    clock: u64,
}

impl<K: Copy + Eq + std::hash::Hash, V> Table<K, V> {
    fn new(capacity: usize) -> Self {
        Self { entries: HashMap::new(), capacity, clock: 0 }
    }

    /// Adds or replaces; gives what had to go.
    fn insert(&mut self, key: K, value: V) -> Vec<(K, V)> {
        let mut gone = Vec::new();
        if !self.entries.contains_key(&key) && self.entries.len() >= self.capacity {
            // An eighth at once, so that the scan is rare.
            let mut order: Vec<u64> = self.entries.values().map(|(used, _)| *used).collect();
            let go = (self.capacity / 8).max(1).min(order.len());
            if let Some(last) = go.checked_sub(1) {
                let (_, &mut limit, _) = order.select_nth_unstable(last);
                let old = self.entries.extract_if(|_, (used, _)| *used <= limit);
                gone.extend(old.map(|(key, (_, value))| (key, value)));
            }
        }
        self.clock += 1;
        self.entries.insert(key, (self.clock, value));
        gone
    }

    fn get(&mut self, key: &K) -> Option<&mut V> {
        self.clock += 1;
        let (used, value) = self.entries.get_mut(key)?;
        *used = self.clock;
        Some(value)
    }

    fn remove(&mut self, key: &K) -> Option<V> {
        self.entries.remove(key).map(|(_, value)| value)
    }

    fn retain(&mut self, keep: impl Fn(&K) -> bool) {
        self.entries.retain(|key, _| keep(key));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(n: u8) -> SessionId {
        SessionId([n; 16])
    }

    fn key(n: u8) -> SessionKey {
        SessionKey::from_bytes([n; 32])
    }

    fn connection(n: u8) -> Incarnation {
        Incarnation { nonce: [n; 16], exporter: [n ^ 1; 32] }
    }

    fn proof(session: u8, incarnation: u8) -> [u8; 16] {
        *key(session).for_connection(&connection(incarnation)).tag()
    }

    #[test]
    fn what_was_unused_for_longest_goes() {
        let mut sessions = Sessions::new(2);
        for n in [1, 2] {
            sessions.open(id(n), key(n), &connection(n), false).unwrap();
        }
        sessions.resume(id(1), &connection(3), &proof(1, 3)).unwrap();
        sessions.open(id(4), key(4), &connection(4), false).unwrap();
        // Session 2 went, and its incarnation with it.
        assert_eq!(sessions.resume(id(2), &connection(5), &proof(2, 5)), Err(Failure::UnknownSession));
        let gone = (id(2), connection(2).id());
        assert_eq!(sessions.take(&gone, 0).err(), Some(Failure::UnknownSession));
        assert!(sessions.take(&(id(1), connection(3).id()), 0).is_ok());
        sessions.remove(&id(1));
        assert_eq!(sessions.take(&(id(1), connection(3).id()), 1).err(), Some(Failure::UnknownSession));
        // Incarnations are bounded too.
        for n in 10..30 {
            sessions.resume(id(4), &connection(n), &proof(4, n)).unwrap();
        }
        assert_eq!(sessions.incarnations.entries.len(), 4);
        assert!(sessions.take(&(id(4), connection(29).id()), 0).is_ok());
        sessions.end(&(id(4), connection(29).id()));
        assert_eq!(sessions.take(&(id(4), connection(29).id()), 1).err(), Some(Failure::UnknownSession));
    }

    /// Who knows an id can neither replace its key, nor take the session up, nor end it.
    #[test]
    fn a_stranger_gets_nowhere() {
        let mut sessions = Sessions::new(8);
        sessions.open(id(1), key(1), &connection(1), false).unwrap();
        let refused = Err(Failure::UnknownSession);
        assert_eq!(sessions.open(id(1), key(9), &connection(9), true), refused, "in memory");
        assert_eq!(sessions.open(id(2), key(9), &connection(9), true), refused, "in the ledger alone");
        assert_eq!(sessions.resume(id(1), &connection(9), &proof(9, 9)), refused, "another key");
        assert_eq!(sessions.resume(id(1), &connection(9), &proof(1, 1)), refused, "heard on a connection");
        assert_eq!(sessions.resume(id(3), &connection(9), &proof(3, 9)), refused, "no such session");
        assert_eq!(sessions.take(&(id(1), connection(9).id()), 0).err(), Some(Failure::UnknownSession));
        // The owner goes on under the same key.
        let pads = sessions.take(&(id(1), connection(1).id()), 0).unwrap();
        assert!(pads.key.accepts(&proof(1, 1)));
        assert_eq!(sessions.open(id(1), key(1), &connection(2), true), Ok(()), "the owner again");
    }

    /// Told of an incarnation twice, a server still knows what was used in it.
    #[test]
    fn resuming_twice_frees_no_number() {
        let mut sessions = Sessions::new(8);
        sessions.open(id(1), key(1), &connection(1), false).unwrap();
        let connected = (id(1), connection(1).id());
        assert!(sessions.take(&connected, 5).is_ok());
        sessions.resume(id(1), &connection(1), &proof(1, 1)).unwrap();
        sessions.open(id(1), key(1), &connection(1), true).unwrap();
        assert_eq!(sessions.take(&connected, 5).err(), Some(Failure::CounterUsed));
        assert!(sessions.take(&connected, 3).is_ok());
        assert_eq!(sessions.next(&connected), Some(6), "above all that were used");
        // In another incarnation it is another number.
        sessions.resume(id(1), &connection(2), &proof(1, 2)).unwrap();
        assert_eq!(sessions.next(&(id(1), connection(2).id())), Some(0));
        assert!(sessions.take(&(id(1), connection(2).id()), 5).is_ok());
        assert_eq!(sessions.next(&(id(1), connection(3).id())), None);
    }

    /// A gateway cannot have the record of used numbers forgotten by ending an incarnation and telling of it again.
    #[test]
    fn what_has_ended_stays_ended() {
        let mut sessions = Sessions::new(8);
        let refused = Err(Failure::UnknownSession);
        sessions.open(id(1), key(1), &connection(1), false).unwrap();
        let first = (id(1), connection(1).id());
        // Nothing was used: it may come back.
        sessions.end(&first);
        sessions.resume(id(1), &connection(1), &proof(1, 1)).unwrap();
        assert!(sessions.take(&first, 0).is_ok());
        sessions.end(&first);
        assert_eq!(sessions.resume(id(1), &connection(1), &proof(1, 1)), refused, "resumed");
        assert_eq!(sessions.open(id(1), key(1), &connection(1), true), refused, "opened");
        assert_eq!(sessions.take(&first, 0).err(), Some(Failure::UnknownSession));
        // Nor by having it make place.
        sessions.resume(id(1), &connection(2), &proof(1, 2)).unwrap();
        assert!(sessions.take(&(id(1), connection(2).id()), 0).is_ok());
        (10..40).for_each(|n| sessions.resume(id(1), &connection(n), &proof(1, n)).unwrap());
        assert!(!sessions.knows(&(id(1), connection(2).id())));
        assert_eq!(sessions.resume(id(1), &connection(2), &proof(1, 2)), refused, "made place");
        // The device goes on with other connections, until there were too many; then it opens a new session.
        let connections = (40..).map_while(|n| {
            let incarnation = (id(1), connection(n).id());
            sessions.resume(id(1), &connection(n), &proof(1, n)).ok()?;
            sessions.take(&incarnation, 0).unwrap();
            sessions.end(&incarnation);
            Some(())
        });
        assert_eq!(connections.count(), ENDED - 2 + 1);
        assert_eq!(sessions.len(), 0);
        // The ledger has its id, for bundles were spent.
        assert_eq!(sessions.open(id(1), key(1), &connection(1), true), refused, "forgotten");
        sessions.open(id(2), key(2), &connection(1), false).unwrap();
    }

    /// Whatever way a session goes, what is not yet spent for it is told; and by nothing else.
    #[test]
    fn who_took_a_number_learns_that_the_session_was_forgotten() {
        type Forgets = fn(&mut Sessions);
        let forget: [(&str, Forgets); 4] = [
            ("as another server has", |sessions| sessions.remove(&id(1))),
            ("for too many connections", |sessions| {
                for n in 100..=101 + ENDED as u8 {
                    let incarnation = (id(1), connection(n).id());
                    if sessions.resume(id(1), &connection(n), &proof(1, n)).is_ok() {
                        sessions.take(&incarnation, 0).unwrap();
                        sessions.end(&incarnation);
                    }
                }
            }),
            ("for others", |sessions| {
                (2..12).for_each(|n| sessions.open(id(n), key(n), &connection(n), false).unwrap());
            }),
            ("and opened again", |sessions| {
                sessions.remove(&id(1));
                sessions.open(id(1), key(1), &connection(1), false).unwrap();
            }),
        ];
        for (how, forget) in forget {
            let mut sessions = Sessions::new(8);
            sessions.open(id(1), key(1), &connection(1), false).unwrap();
            let pads = sessions.take(&(id(1), connection(1).id()), 0).unwrap();
            // An ended connection is remembered with its session.
            sessions.resume(id(1), &connection(2), &proof(1, 2)).unwrap();
            sessions.end(&(id(1), connection(1).id()));
            assert_eq!(pads.session.strong_count(), 1, "before: {how}");
            forget(&mut sessions);
            assert_eq!(pads.session.strong_count(), 0, "forgotten {how}");
        }
    }

    #[test]
    fn numbers_are_used_once_and_may_overtake_each_other() {
        let mut used = Used::default();
        for (counter, expected) in [
            (0, true),
            (0, false),
            (500, true),
            (373, true),  // 127 below
            (372, false), // 128 below
            (373, false),
            (501, true),
            (374, true),
            (373, false),
            (500, false),
            (10_000, true),
            (501, false),
            (9_999, true),
            (9_873, true),
            (9_872, false),
            (10_001 + AHEAD + 1, false),
            (10_001 + AHEAD, true),
            (10_001 + AHEAD, false),
            (u64::MAX, false),
        ] {
            assert_eq!(used.take(counter), expected, "{counter}");
        }
        // Every number at most once, in whatever order they come.
        let mut used = Used::default();
        let (mut taken, mut x) = (std::collections::HashSet::new(), 1u64);
        for round in 0..20_000u64 {
            x = x.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let counter = (round / 4).saturating_sub(40) + (x >> 57);
            if used.take(counter) {
                assert!(taken.insert(counter), "{counter}");
            }
        }
        assert!(taken.len() > 4_000);
    }
}
