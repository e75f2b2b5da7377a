//! What requests cost the device.

use crate::cpu::CpuClock;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Bytes on the network since [`Client::connect`](crate::Client::connect), counted as in [`Cost`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UdpBytes {
    /// Device to gateway.
    pub up: u64,
    /// Gateway to device.
    pub down: u64,
}

/// What was spent on the network, in computing and in waiting.
///
/// Counted over all that the client did in the meantime: requests that run side by side share their traffic
/// and CPU time, and a late acknowledgement falls to the next one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Cost {
    /// Bytes from device to gateway. Over QUIC: in UDP packets, QUIC's own included, IP and UDP headers not.
    /// Over TCP: of the TLS stream, handshake included, IP and TCP headers not.
    pub bytes_up: u64,
    /// The same from gateway to device.
    pub bytes_down: u64,
    /// UDP packets from device to gateway; none over TCP, where the operating system makes packets.
    pub datagrams_up: u64,
    /// UDP packets from gateway to device; none over TCP.
    pub datagrams_down: u64,
    /// CPU time. On a current-thread tokio runtime: of the thread, which is the runtime's, so that QUIC and
    /// TLS are included and the application's other threads are not. Otherwise, or where a request moved from
    /// thread to thread: of the whole process, whatever else it did. `None` where the operating system has
    /// neither clock.
    pub cpu: Option<Duration>,
    /// Time from call to result, queueing included.
    pub wall: Duration,
    /// The most bytes of heap that the process held during the request beyond what it held before. `None`
    /// without a [`HeapMeter`]. In sums: the largest of all.
    pub heap_peak: Option<u64>,
}

/// The application's allocator, where it counts. One measurement at a time: requests that run side by side
/// disturb each other's.
pub trait HeapMeter: Send + Sync {
    /// Bytes allocated now. Starts a measurement: the peak is this value again.
    fn restart(&self) -> u64;

    /// The most bytes allocated at a time since the last [`HeapMeter::restart`].
    fn peak(&self) -> u64;
}

/// Measures what cannot be read off a connection.
pub(crate) struct Meter {
    start: Instant,
    cpu: CpuClock,
    heap: Option<(Arc<dyn HeapMeter>, u64)>,
}

impl Meter {
    pub(crate) fn start(heap: Option<&Arc<dyn HeapMeter>>) -> Self {
        let heap = heap.map(|meter| (meter.clone(), meter.restart()));
        Self { start: Instant::now(), cpu: CpuClock::start(), heap }
    }

    /// Adds CPU time, wall time and memory to the cost of `traffic`.
    pub(crate) fn stop(&self, traffic: Cost, current_thread: bool) -> Cost {
        Cost {
            cpu: self.cpu.elapsed(current_thread),
            wall: self.start.elapsed(),
            heap_peak: self.heap.as_ref().map(|(meter, before)| meter.peak().saturating_sub(*before)),
            ..traffic
        }
    }
}

impl Cost {
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
            cpu: match (self.cpu, other.cpu) {
                (Some(one), Some(other)) => Some(one.saturating_add(other)),
                (one, other) => one.or(other),
            },
            wall: self.wall.saturating_add(other.wall),
            heap_peak: self.heap_peak.max(other.heap_peak),
        }
    }
}

/// What was added since `earlier`, which was taken of the same client. A peak is no sum and stays as it is.
impl std::ops::Sub for Cost {
    type Output = Self;

    fn sub(self, earlier: Self) -> Self {
        Self {
            bytes_up: self.bytes_up.saturating_sub(earlier.bytes_up),
            bytes_down: self.bytes_down.saturating_sub(earlier.bytes_down),
            datagrams_up: self.datagrams_up.saturating_sub(earlier.datagrams_up),
            datagrams_down: self.datagrams_down.saturating_sub(earlier.datagrams_down),
            cpu: self.cpu.map(|cpu| cpu.saturating_sub(earlier.cpu.unwrap_or_default())),
            wall: self.wall.saturating_sub(earlier.wall),
            heap_peak: self.heap_peak,
        }
    }
}

impl std::ops::Add for UdpBytes {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self { up: self.up.saturating_add(other.up), down: self.down.saturating_add(other.down) }
    }
}
