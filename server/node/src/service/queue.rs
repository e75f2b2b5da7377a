//! Requests that wait, and whose turn it is.
//!
//! Addresses take turns, and so do the devices at one address: whoever asks for much waits for its own requests, not
//! for others'. In a round an address has as many turns as it has devices waiting, but at most [`SHARE`].

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::pace::average;
use crate::access::source::{Source, Who};

/// Turns of an address in a round. One would let a single greedy device have as much as a household behind one
/// address; with many, a device that opens many sessions would have as much as that many others.
pub const SHARE: usize = 2;

/// A queue in which devices take turns.
pub struct Queue<W> {
    /// In the order of their turns; none is empty.
    sources: VecDeque<At<W>>,
    /// Turns that the first one has left in this round; `None` before its first.
    left: Option<usize>,
    len: usize,
}

/// Who waits at one address.
struct At<W> {
    source: Source,
    /// In the order of their turns; none is empty.
    devices: VecDeque<Device<W>>,
}

/// What one device waits for, the oldest first.
struct Device<W> {
    who: Who,
    waiting: VecDeque<W>,
    turns: Turns,
}

/// The turns that a device has had since it began to wait.
#[derive(Clone, Copy, Default)]
struct Turns {
    last: Option<Instant>,
    /// Time from one to the next.
    pace: Option<Duration>,
}

impl<W> At<W> {
    fn len(&self) -> usize {
        self.devices.iter().map(|device| device.waiting.len()).sum()
    }

    fn turns(&self) -> usize {
        self.devices.len().clamp(1, SHARE)
    }
}

impl<W> Default for Queue<W> {
    fn default() -> Self {
        Self { sources: VecDeque::new(), left: None, len: 0 }
    }
}

impl<W> Queue<W> {
    /// How many wait.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether nobody waits.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Adds a request behind the device's others.
    pub fn push(&mut self, who: Who, waiter: W) {
        let at = match self.sources.iter().position(|at| at.source == who.source) {
            Some(index) => self.sources.get_mut(index),
            None => {
                self.sources.push_back(At { source: who.source, devices: VecDeque::new() });
                self.sources.back_mut()
            }
        };
        let Some(at) = at else { return };
        self.len += 1;
        match at.devices.iter_mut().find(|device| device.who == who) {
            Some(device) => device.waiting.push_back(waiter),
            None => {
                let (waiting, turns) = (VecDeque::from([waiter]), Turns::default());
                at.devices.push_back(Device { who, waiting, turns });
            }
        }
    }

    /// The request whose turn it is.
    pub fn pop(&mut self) -> Option<W> {
        let at = self.sources.front_mut()?;
        let left = self.left.unwrap_or_else(|| at.turns()) - 1;
        let mut device = at.devices.pop_front()?;
        let waiter = device.waiting.pop_front()?;
        if !device.waiting.is_empty() {
            let now = Instant::now();
            if let Some(last) = device.turns.last.replace(now) {
                device.turns.pace = average(device.turns.pace, now.saturating_duration_since(last));
            }
            at.devices.push_back(device);
        }
        self.len -= 1;
        self.left = Some(left);
        if left == 0 || at.devices.is_empty() {
            self.left = None;
            if let Some(at) = self.sources.pop_front().filter(|at| !at.devices.is_empty()) {
                self.sources.push_back(at);
            }
        }
        Some(waiter)
    }

    /// How many turns come before a request that is added now, if nobody else comes.
    pub fn ahead(&self, who: Who) -> usize {
        // The same queue with what matters of each request: whether it is that one.
        let sources = self
            .sources
            .iter()
            .map(|at| At { source: at.source, devices: at.devices.iter().map(Device::others).collect() });
        let mut queue = Queue { sources: sources.collect(), left: self.left, len: self.len };
        queue.push(who, true);
        let mut ahead = 0;
        while queue.pop() == Some(false) {
            ahead += 1;
        }
        ahead
    }

    /// Time until the turn of a request that this device adds now, by the turns that it has had: others who ask again
    /// and again come between, which [`Queue::ahead`] cannot know.
    pub fn pace(&self, who: Who) -> Option<Duration> {
        let at = self.sources.iter().find(|at| at.source == who.source)?;
        let device = at.devices.iter().find(|device| device.who == who)?;
        let Turns { last, pace } = device.turns;
        let since = last?.elapsed();
        let before = u32::try_from(device.waiting.len()).unwrap_or(u32::MAX);
        // The next turn is due when one pace has passed, or at any moment.
        Some(pace?.saturating_mul(before).saturating_add(pace?.saturating_sub(since)))
    }

    /// Removes the newest request of the device that has the most waiting, at the address that has the most for its
    /// turns, if that is more than `who` would have with another.
    pub fn displace(&mut self, who: Who) -> Option<(Who, W)> {
        // As a fraction, so that it is exact.
        let own = match self.sources.iter().find(|at| at.source == who.source) {
            Some(at) => {
                let new = at.devices.iter().all(|device| device.who != who);
                (at.len() + 1, (at.devices.len() + usize::from(new)).clamp(1, SHARE))
            }
            None => (1, 1),
        };
        let more = |a: (usize, usize), b: (usize, usize)| a.0 * b.1 > b.0 * a.1;
        let mut worst: Option<(usize, (usize, usize))> = None;
        for (index, at) in self.sources.iter().enumerate().filter(|(_, at)| at.source != who.source) {
            let load = (at.len(), at.turns());
            if more(load, own) && worst.is_none_or(|(_, most)| more(load, most)) {
                worst = Some((index, load));
            }
        }
        let least = |at: &At<W>| {
            let own = at.devices.iter().find(|device| device.who == who);
            own.map_or(0, |device| device.waiting.len()) + 1
        };
        let (index, least) = match worst {
            Some((index, _)) => (index, 0),
            None => {
                let index = self.sources.iter().position(|at| at.source == who.source)?;
                (index, self.sources.get(index).map_or(0, least))
            }
        };
        let at = self.sources.get_mut(index)?;
        let (place, device) =
            at.devices.iter_mut().enumerate().max_by_key(|(_, device)| device.waiting.len())?;
        if device.waiting.len() <= least {
            return None;
        }
        let displaced = device.waiting.pop_back().map(|waiter| (device.who, waiter));
        if device.waiting.is_empty() {
            at.devices.remove(place);
        }
        self.len -= 1;
        self.remove_empty();
        displaced
    }

    /// Keeps those that pass.
    pub fn retain(&mut self, keep: impl Fn(&W) -> bool) {
        for at in &mut self.sources {
            for device in &mut at.devices {
                device.waiting.retain(&keep);
            }
            at.devices.retain(|device| !device.waiting.is_empty());
        }
        self.remove_empty();
        self.len = self.sources.iter().map(At::len).sum();
    }

    fn remove_empty(&mut self) {
        if self.sources.front().is_some_and(|at| at.devices.is_empty()) {
            self.left = None;
        }
        self.sources.retain(|at| !at.devices.is_empty());
    }
}

impl<W> Device<W> {
    fn others(&self) -> Device<bool> {
        Device { who: self.who, waiting: self.waiting.iter().map(|_| false).collect(), turns: self.turns }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use seco_core::SessionId;

    use super::*;

    fn who(address: u8, device: u8) -> Who {
        Who {
            source: std::net::IpAddr::from(Ipv4Addr::new(192, 0, 2, address)).into(),
            device: SessionId([device; 16]),
        }
    }

    /// One device with 400 requests, and four that ask again whenever they were answered; gives the answers of each of
    /// five, of 1,000.
    fn served(greedy: &[Who], honest: [Who; 4]) -> [usize; 5] {
        let mut queue = Queue::default();
        for k in 0..400 {
            queue.push(greedy[k % greedy.len()], 4);
        }
        honest.iter().enumerate().for_each(|(device, who)| queue.push(*who, device));
        let mut served = [0; 5];
        for k in 0..1000 {
            let device = queue.pop().unwrap();
            served[device] += 1;
            queue.push(honest.get(device).copied().unwrap_or(greedy[k % greedy.len()]), device);
        }
        served
    }

    #[test]
    fn a_greedy_device_leaves_the_others_their_share() {
        let apart = [who(1, 1), who(2, 2), who(3, 3), who(4, 4)];
        let together = [who(1, 1), who(1, 2), who(1, 3), who(1, 4)];
        let many: Vec<Who> = (100..200).map(|device| who(9, device)).collect();
        for (greedy, honest, least) in [
            (&[who(9, 9)][..], apart, 195),
            (&[who(1, 9)], together, 195),
            // An address has two turns at most, and one where it has one device.
            (&[who(9, 9)], together, 160),
            (&many, apart, 160),
        ] {
            let served = served(greedy, honest);
            assert!(served[..4].iter().all(|&answers| answers >= least), "{served:?}");
        }
    }

    #[test]
    fn places_are_told_as_they_come() {
        let mut queue = Queue::default();
        let mut x = 7_u32;
        for n in 0..200_u32 {
            x = x.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let who = who((x >> 28) as u8 % 5, (x >> 20) as u8 % 3);
            let ahead = queue.ahead(who);
            queue.push(who, n);
            // By trying it out on a copy, as only it knows which is which.
            let mut copy = Queue { sources: VecDeque::new(), left: queue.left, len: queue.len };
            for at in &queue.sources {
                let devices = at.devices.iter();
                let devices = devices
                    .map(|d| Device { who: d.who, waiting: d.waiting.clone(), turns: d.turns })
                    .collect();
                copy.sources.push_back(At { source: at.source, devices });
            }
            let mut order = std::iter::from_fn(|| copy.pop());
            assert_eq!(order.position(|m| m == n), Some(ahead), "{n}");
            if n % 3 == 0 {
                queue.pop();
            }
        }
    }

    #[test]
    fn who_has_most_makes_place() {
        let mut queue = Queue::default();
        for n in 0..8 {
            queue.push(who(1, 1), n);
        }
        assert!(queue.displace(who(1, 1)).is_none(), "its own");
        assert!(queue.displace(who(1, 2)) == Some((who(1, 1), 7)), "another at the same address");
        assert!(queue.displace(who(2, 1)) == Some((who(1, 1), 6)), "somewhere else");
        queue.push(who(2, 1), 20);
        queue.push(who(2, 2), 21);
        assert!(queue.displace(who(2, 1)) == Some((who(1, 1), 5)));
        queue.retain(|&n| !(2..=9).contains(&n));
        assert_eq!(queue.len(), 4);
        assert!(queue.displace(who(3, 1)) == Some((who(1, 1), 1)));
        // All have one for each of their turns.
        assert!(queue.displace(who(3, 1)).is_none());
        assert_eq!(std::iter::from_fn(|| queue.pop()).collect::<Vec<_>>(), [0, 20, 21]);
        assert!(queue.is_empty());
    }

    #[test]
    fn a_device_that_gives_up_leaves_no_trace() {
        let mut queue = Queue::default();
        queue.push(who(1, 1), 1);
        queue.push(who(1, 2), 2);
        queue.push(who(2, 1), 3);
        assert_eq!(queue.pop(), Some(1));
        queue.retain(|&n| n != 2);
        assert_eq!((queue.len(), queue.pop(), queue.pop()), (1, Some(3), None));
    }
}
