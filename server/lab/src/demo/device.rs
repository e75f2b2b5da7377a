//! The demo's device: `seco-sdk` with a clock and the counters of its connection.

use std::time::Duration;

use seco_node::config::Limits;
use seco_sdk::{Client, Deployment, Prediction, Token, Transport, UdpBytes};
use tokio::time::{Instant, sleep, timeout};

use super::report::DeviceBytes;
use crate::Error;

/// Requests and probes whose bytes are measured.
pub const MEASURED: usize = 12;

/// QUIC acknowledges what it received up to 25 ms later; after this long nothing more belongs to
/// what was sent.
const QUIET: Duration = Duration::from_millis(120);

/// A device with an open session.
pub struct Device {
    client: Client,
    quiet: Duration,
    /// Whether nothing was sent since the last quiet time.
    settled: bool,
    session: UdpBytes,
    requests: Vec<UdpBytes>,
}

/// One answer.
pub struct Answer {
    /// What the device learned.
    pub prediction: Prediction,
    /// How long it waited.
    pub waited: Duration,
}

impl Device {
    /// Connects and opens a session. `delay` is the one-way delay of the demo's network.
    pub async fn connect(
        deployment: Deployment,
        delay: Option<Duration>,
        token: Option<Token>,
    ) -> Result<Device, Error> {
        let quiet = QUIET + 4 * delay.unwrap_or_default();
        // QUIC alone: its bytes are what the demo is about.
        let mut builder = Client::builder(deployment).transport(Transport::Quic).request_timeout(limit());
        if let Some(token) = token {
            builder = builder.token(token);
        }
        let client = limited("opening a session", builder.connect()).await?;
        sleep(quiet).await;
        let session = since(client.handshake_bytes(), client.udp_bytes());
        Ok(Device { client, quiet, settled: true, session, requests: Vec::new() })
    }

    /// One inference; `measured` ones stand alone on the wire.
    pub async fn infer(&mut self, input: &[u8], measured: bool) -> Result<Answer, Error> {
        if measured && !self.settled {
            sleep(self.quiet).await;
        }
        let before = self.client.udp_bytes();
        let start = Instant::now();
        let prediction = limited("the inference", self.client.infer(input)).await?;
        let waited = start.elapsed();
        self.settled = measured;
        if measured {
            sleep(self.quiet).await;
            self.requests.push(since(before, self.client.udp_bytes()));
        }
        Ok(Answer { prediction, waited })
    }

    /// What the device's link carried, beside cost probes with payloads of these sizes.
    pub async fn bytes(&mut self, up: usize, down: usize) -> Result<DeviceBytes, Error> {
        let mut probes = Vec::with_capacity(MEASURED);
        for _ in 0..MEASURED {
            let before = self.client.udp_bytes();
            limited("the cost probe", self.client.probe(up, down)).await?;
            sleep(self.quiet).await;
            probes.push(since(before, self.client.udp_bytes()));
        }
        let (request, plain) = (middle(&self.requests), middle(&probes));
        Ok(DeviceBytes {
            session_bytes_up: self.session.up,
            session_bytes_down: self.session.down,
            request_bytes_up: request.up,
            request_bytes_down: request.down,
            plain_bytes_up: plain.up,
            plain_bytes_down: plain.down,
            plain_payload_up: up as u64,
            plain_payload_down: down as u64,
        })
    }
}

/// What was sent and received in between.
fn since(before: UdpBytes, after: UdpBytes) -> UdpBytes {
    UdpBytes { up: after.up.saturating_sub(before.up), down: after.down.saturating_sub(before.down) }
}

/// The mean of each direction's middle half. Depending on the moment QUIC adds an acknowledgement of
/// 30 bytes or two, so single values jump; the outer quarters may have packets that were lost.
fn middle(all: &[UdpBytes]) -> UdpBytes {
    let mean = |direction: fn(&UdpBytes) -> u64| {
        let mut values: Vec<u64> = all.iter().map(direction).collect();
        values.sort_unstable();
        let outer = values.len() / 4;
        let middle = values.get(outer..values.len() - outer).unwrap_or_default();
        let count = middle.len().max(1) as u64;
        (middle.iter().sum::<u64>() + count / 2) / count
    };
    UdpBytes { up: mean(|b| b.up), down: mean(|b| b.down) }
}

/// The servers' own time limits come first; this one is for a gateway that is silent.
fn limit() -> Duration {
    Limits::default().infer() + Duration::from_secs(10)
}

async fn limited<T>(what: &str, work: impl Future<Output = Result<T, seco_sdk::Error>>) -> Result<T, Error> {
    let limit = limit();
    match timeout(limit, work).await {
        Ok(result) => result.map_err(|e| Error::Failed(format!("{what} failed: {e}"))),
        Err(_) => Err(Error::Failed(format!("{what} took longer than {} s", limit.as_secs()))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_outer_quarters_do_not_count() {
        let all = [901, 870, 2000, 870, 901, 901, 904, 0].map(|up| UdpBytes { up, down: 7 });
        // 870, 901, 901, 901 remain.
        assert_eq!(middle(&all), UdpBytes { up: 893, down: 7 });
        assert_eq!(middle(&all[..1]), UdpBytes { up: 901, down: 7 });
        assert_eq!(middle(&[]), UdpBytes::default());
    }
}
