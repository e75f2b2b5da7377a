//! Sessions of devices: which session has which key on this server.
//!
//! They live in memory. A server that restarts does not know them, and the device opens a new one;
//! a session whose key were kept on disk could be read by whoever gets the disk.

use std::collections::HashMap;
use std::sync::Arc;

use seco_core::{SessionId, SessionKey};

/// A bounded table; the session unused for longest makes place for a new one.
pub struct Sessions {
    table: HashMap<SessionId, (u64, Arc<SessionKey>)>,
    capacity: usize,
    clock: u64,
}

impl Sessions {
    /// An empty table.
    pub fn new(capacity: usize) -> Self {
        Self { table: HashMap::new(), capacity, clock: 0 }
    }

    /// Adds a session. Opening one again replaces its key.
    pub fn insert(&mut self, id: SessionId, key: SessionKey) {
        if !self.table.contains_key(&id) && self.table.len() >= self.capacity {
            // A scan for each new session in a full table: 10,000 entries take microseconds,
            // opening the sealed key takes longer.
            let oldest = self.table.iter().min_by_key(|(_, (used, _))| *used).map(|(id, _)| *id);
            if let Some(oldest) = oldest {
                self.table.remove(&oldest);
            }
        }
        self.clock += 1;
        self.table.insert(id, (self.clock, Arc::new(key)));
    }

    /// The key of a session.
    pub fn get(&mut self, id: &SessionId) -> Option<Arc<SessionKey>> {
        self.clock += 1;
        let (used, key) = self.table.get_mut(id)?;
        *used = self.clock;
        Some(key.clone())
    }

    /// Forgets a session.
    pub fn remove(&mut self, id: &SessionId) {
        self.table.remove(id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_session_unused_for_longest_goes() {
        let id = |n| SessionId([n; 16]);
        let mut sessions = Sessions::new(2);
        sessions.insert(id(1), SessionKey::from_bytes([1; 32]));
        sessions.insert(id(2), SessionKey::from_bytes([2; 32]));
        assert!(sessions.get(&id(1)).is_some());
        sessions.insert(id(3), SessionKey::from_bytes([3; 32]));
        assert!(sessions.get(&id(2)).is_none());
        // Opening one again needs no place.
        sessions.insert(id(3), SessionKey::from_bytes([4; 32]));
        assert_eq!(sessions.get(&id(3)).unwrap().expose(), &[4; 32]);
        assert!(sessions.get(&id(1)).is_some());
        sessions.remove(&id(1));
        assert!(sessions.get(&id(1)).is_none());
    }
}
