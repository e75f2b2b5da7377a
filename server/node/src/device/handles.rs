//! The sessions in use on a device's connection.

use std::collections::VecDeque;
use std::sync::Weak;

use super::MAX_HANDLES;
use crate::access::sessions::Connected;
use crate::cluster::{Coordinator, Links};

/// Short names of a connection's incarnations of sessions.
#[derive(Default)]
pub(super) struct Handles {
    next: u32,
    open: VecDeque<Handle>,
}

struct Handle {
    name: u32,
    /// What the session is for; gone once it was removed.
    model: Weak<Coordinator>,
    connected: Connected,
    /// Links over which all servers were told of it, or asked.
    links: Links,
}

impl Handles {
    pub(super) fn get(&self, name: u32) -> Option<(Weak<Coordinator>, Connected, Links)> {
        let found = self.open.iter().find(|handle| handle.name == name);
        found.map(|handle| (handle.model.clone(), handle.connected, handle.links.clone()))
    }

    /// All servers knew it over these links.
    pub(super) fn confirm(&mut self, name: u32, links: Links) {
        if let Some(handle) = self.open.iter_mut().find(|handle| handle.name == name) {
            handle.links = links;
        }
    }

    /// So many are open.
    pub(super) fn len(&self) -> usize {
        self.open.len()
    }

    /// All of them, which are closed with that.
    pub(super) fn close(&mut self) -> Vec<Incarnated> {
        self.open.drain(..).map(|handle| (handle.model, handle.connected)).collect()
    }

    pub(super) fn remove(&mut self, name: u32) {
        self.open.retain(|handle| handle.name != name);
    }

    /// The handle, and what had to go for it.
    pub(super) fn add(&mut self, incarnation: Incarnated, links: Links) -> (u32, Option<Incarnated>) {
        let (model, connected) = incarnation;
        let same =
            |handle: &&mut Handle| handle.connected == connected && Weak::ptr_eq(&handle.model, &model);
        if let Some(handle) = self.open.iter_mut().find(same) {
            handle.links = links;
            return (handle.name, None);
        }
        let oldest = if self.open.len() == MAX_HANDLES { self.open.pop_front() } else { None };
        let name = self.next;
        self.next = self.next.wrapping_add(1);
        self.open.push_back(Handle { name, model, connected, links });
        (name, oldest.map(|handle| (handle.model, handle.connected)))
    }
}

/// A connection's incarnation of a session, and the model that it is for.
pub(super) type Incarnated = (Weak<Coordinator>, Connected);

/// Incarnations that end, on all servers, when this is dropped.
pub(super) struct Incarnations {
    pub(super) ended: Vec<Incarnated>,
}

impl Drop for Incarnations {
    fn drop(&mut self) {
        for (model, connected) in self.ended.drain(..) {
            // What was removed remembers nobody.
            let _ = model.upgrade().map(|model| model.end(connected));
        }
    }
}
