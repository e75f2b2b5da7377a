//! The device's input under masks, without a circuit.
//!
//! Ahead, every server `j` draws random bits `d_i^j`, and the servers get additive shares of `d_i = XOR_j d_i^j`
//! ([`super::sum`]). Online every server publishes `P_j ^ d^j`, the gateway with the device's masked input, so all
//! know `o = x ^ d`; each bit is `o_i + (1 - 2 o_i)·d_i`, and every server has a share of `x`.
//!
//! *Why it is safe.* What server `j` publishes is masked by `d^j`: nobody else knows it, for it is the choice of
//! correlated OTs, and the others' additive shares of `d` are uniform whatever it is.

use seco_ot::{Delta, Keys, Macs};

use super::Share;
use super::bit;
use super::pads::{ReceiverPads, SenderPads, receiver_of, sender_of};
use super::relu::Exchange;
use super::sum::SumOfBits;
use crate::bits::InputBits;
use crate::hash::{Hash, Tweak};
use crate::slices::{packed_len, plane_words};

/// Shape of the input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InputShape {
    /// Bits of a value.
    pub bits: u32,
    /// Width `κ` of its mask.
    pub mask_width: u32,
}

impl InputShape {
    /// Bit `i` is shared mod `2^{κ-i}`.
    fn widths(&self) -> Vec<u32> {
        (0..self.bits).map(|i| self.mask_width.saturating_sub(i)).collect()
    }

    /// Correlated OTs in which a server is the receiver, towards each earlier one.
    pub fn correlations(&self, lanes: usize) -> usize {
        self.bits as usize * plane_words(lanes) * 64
    }

    /// Bytes of the message of an earlier server to one that joins.
    pub fn sum_len(&self, lanes: usize) -> usize {
        self.widths().iter().map(|&width| packed_len(lanes, width)).sum()
    }
}

/// One server's conversion for a batch of values. Server `s` joins as number `s`.
pub struct InputConversion {
    server: usize,
    servers: usize,
    lanes: usize,
    shape: InputShape,
    sum: SumOfBits,
    /// By earlier server.
    from: Vec<ReceiverPads>,
    /// By later server.
    to: Vec<SenderPads>,
}

impl InputConversion {
    /// `bits` are this server's `d^j`; `macs` those towards each earlier server and `keys` those towards each later
    /// one, rows of lanes padded to whole words.
    pub fn new(
        shape: InputShape,
        [server, servers, lanes]: [usize; 3],
        first_lane: u32,
        bits: InputBits,
        (macs, keys): (&[Macs], &[Keys]),
        delta: &Delta,
        hash: &impl Hash,
    ) -> Self {
        let stride = lanes.div_ceil(64) * 64;
        let wires = [shape.bits as usize, 1, lanes];
        let tweak = |from, to| move |wire: usize, lane: u32| Tweak::input(wire, first_lane + lane, from, to);
        let received =
            |(from, macs): (usize, &Macs)| receiver_of(hash, wires, (macs, stride), tweak(from, server));
        let sent = |(later, keys): (usize, &Keys)| {
            sender_of(hash, wires, delta, (keys, stride), tweak(server, server + 1 + later))
        };
        Self {
            server,
            servers,
            lanes,
            shape,
            sum: SumOfBits::new(bits.into_planes(), shape.widths(), lanes, server == 0),
            from: macs.iter().enumerate().map(received).collect(),
            to: keys.iter().enumerate().map(sent).collect(),
        }
    }

    /// A round: server `s` receives in round `s + 1` what all before it sent in round `s`. Seats are servers here.
    pub fn round<X: Exchange>(&mut self, round: usize, peers: &mut X) -> Result<(), X::Error> {
        let length = self.shape.sum_len(self.lanes);
        if round == self.server + 1 && self.server > 0 {
            let messages = (0..self.server).map(|from| peers.recv(from, length));
            let messages = messages.collect::<Result<Vec<_>, _>>()?;
            let mut from: Vec<_> = self.from.iter().zip(messages.iter().map(Vec::as_slice)).collect();
            self.sum.join(&mut from);
        }
        if round > self.server && round < self.servers {
            let mut message = Vec::with_capacity(length);
            if let Some(pads) = self.to.get(round - self.server - 1) {
                self.sum.send(pads, &mut message);
            }
            peers.send(round, message)?;
        }
        Ok(())
    }

    /// This server's shares of the bits of `d`, by bit, after round `servers`.
    pub fn finish(self) -> Vec<Share> {
        self.sum.shares().to_vec()
    }
}

/// This server's share of `x` from the planes of `o` and its shares of `d`; `first` for the one server that adds the
/// public part.
pub fn share(o: &[u64], d: &[Share], lanes: usize, first: bool) -> Share {
    let words = lanes.div_ceil(64);
    let mut sum = Share::zeros(lanes);
    for ((i, d), o) in d.iter().enumerate().zip(o.chunks(words.max(1))) {
        for (lane, (sum, d)) in sum.slice_mut().iter_mut().zip(d.slice()).enumerate() {
            let o = bit(o, lane);
            let term = if o == 0 { *d } else { u32::from(first).wrapping_sub(*d) };
            *sum = sum.wrapping_add(term << i);
        }
    }
    sum
}
