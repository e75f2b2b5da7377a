//! What requests cost the device, as far as it can count without help of the operating system.

use quinn::Connection;
use std::time::Duration;

/// Bytes in UDP packets since [`Client::connect`](crate::Client::connect): QUIC's own included, IP and UDP
/// headers not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UdpBytes {
    /// Device to gateway.
    pub up: u64,
    /// Gateway to device.
    pub down: u64,
}

/// What was spent on the network and in waiting.
///
/// Counted over all that the client's connection carried in the meantime: requests that run side by side
/// share their traffic, and a late acknowledgement falls to the next one. CPU time is not here, because the
/// standard library does not tell it; the platform's profiler does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Cost {
    /// Bytes in UDP packets from device to gateway, QUIC's own included, IP and UDP headers not.
    pub bytes_up: u64,
    /// The same from gateway to device.
    pub bytes_down: u64,
    /// UDP packets from device to gateway.
    pub datagrams_up: u64,
    /// UDP packets from gateway to device.
    pub datagrams_down: u64,
    /// Time from call to result, queueing included.
    pub wall: Duration,
}

impl Cost {
    /// The traffic of `connection` so far; no time.
    pub(crate) fn of(connection: &Connection) -> Self {
        let stats = connection.stats();
        Self {
            bytes_up: stats.udp_tx.bytes,
            bytes_down: stats.udp_rx.bytes,
            datagrams_up: stats.udp_tx.datagrams,
            datagrams_down: stats.udp_rx.datagrams,
            wall: Duration::ZERO,
        }
    }

    pub(crate) fn bytes(&self) -> UdpBytes {
        UdpBytes { up: self.bytes_up, down: self.bytes_down }
    }
}

impl std::ops::Add for Cost {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            bytes_up: self.bytes_up.saturating_add(other.bytes_up),
            bytes_down: self.bytes_down.saturating_add(other.bytes_down),
            datagrams_up: self.datagrams_up.saturating_add(other.datagrams_up),
            datagrams_down: self.datagrams_down.saturating_add(other.datagrams_down),
            wall: self.wall.saturating_add(other.wall),
        }
    }
}

/// What was added since `earlier`, which was taken of the same client.
impl std::ops::Sub for Cost {
    type Output = Self;

    fn sub(self, earlier: Self) -> Self {
        Self {
            bytes_up: self.bytes_up.saturating_sub(earlier.bytes_up),
            bytes_down: self.bytes_down.saturating_sub(earlier.bytes_down),
            datagrams_up: self.datagrams_up.saturating_sub(earlier.datagrams_up),
            datagrams_down: self.datagrams_down.saturating_sub(earlier.datagrams_down),
            wall: self.wall.saturating_sub(earlier.wall),
        }
    }
}

impl std::ops::Add for UdpBytes {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self { up: self.up.saturating_add(other.up), down: self.down.saturating_add(other.down) }
    }
}
