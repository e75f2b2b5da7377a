//! QUIC's endpoints and handshakes.

use crate::trouble::jittered;
use crate::{Error, Loss, Result, lock};
use quinn::{ConnectError, Connecting, Connection, ConnectionError, Endpoint, VarInt};
use std::future::poll_fn;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6, UdpSocket};
use std::pin::{Pin, pin};
use std::sync::Mutex;
use std::task::{Poll, ready};
use std::time::Duration;
use tokio::time::Instant;

/// Longest time before another handshake is started beside the first. QUIC repeats a handshake's first packet after 1
/// second, then 2, then 4.
const AGAIN: Duration = Duration::from_secs(2);

/// Any free port, over IPv4 and over IPv6.
pub(super) const ANY: [SocketAddr; 2] = [
    SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 0)),
    SocketAddr::V6(SocketAddrV6::new(Ipv6Addr::UNSPECIFIED, 0, 0, 0)),
];

/// QUIC's side of a device.
pub(super) struct Quic {
    pub(super) config: quinn::ClientConfig,
    /// One for each of [`ANY`], made when an address needs it: a system may lack either family.
    pub(super) endpoints: Mutex<[Option<Endpoint>; 2]>,
}

impl Quic {
    /// Shakes hands at `address`, and starts anew while nothing comes back: QUIC itself asks at ever longer distances,
    /// and a gateway that restarts would be there for seconds before it is asked. The first handshake goes on, for the
    /// way may be slow.
    ///
    /// # Errors
    /// What keeps a handshake from being started; inside, how it ended.
    pub(super) async fn shake_hands(
        &self,
        address: SocketAddr,
        server_name: &str,
    ) -> Result<std::result::Result<Connection, ConnectionError>> {
        let start = || {
            let connecting = self.endpoint(address)?.connect(address, server_name);
            connecting.map_err(|error| match error {
                ConnectError::EndpointStopping => Error::Closed(Loss::Local),
                other => Error::setup(other),
            })
        };
        let mut first = start()?;
        let mut latest: Option<Connecting> = None;
        let mut pause = pin!(tokio::time::sleep(jittered(AGAIN)));
        poll_fn(|context| {
            if let Poll::Ready(result) = Pin::new(&mut first).poll(context) {
                return Poll::Ready(Ok(result));
            }
            loop {
                if let Some(latest) = &mut latest
                    && let Poll::Ready(result) = Pin::new(latest).poll(context)
                {
                    return Poll::Ready(Ok(result));
                }
                ready!(pause.as_mut().poll(context));
                pause.as_mut().reset(Instant::now() + jittered(AGAIN));
                match start() {
                    Ok(connecting) => latest = Some(connecting),
                    Err(error) => return Poll::Ready(Err(error)),
                }
            }
        })
        .await
    }

    /// Ends all connections, and says on which endpoints.
    pub(super) fn close(&self) -> [Option<Endpoint>; 2] {
        let endpoints = lock(&self.endpoints).clone();
        for endpoint in endpoints.iter().flatten() {
            endpoint.close(VarInt::from_u32(0), b"");
        }
        endpoints
    }

    pub(super) fn endpoint(&self, address: SocketAddr) -> Result<Endpoint> {
        let mut endpoints = lock(&self.endpoints);
        let [v4, v6] = &mut *endpoints;
        let [any_v4, any_v6] = ANY;
        let (endpoint, any) = if address.is_ipv6() { (v6, any_v6) } else { (v4, any_v4) };
        if let Some(endpoint) = endpoint {
            return Ok(endpoint.clone());
        }
        let mut made = Endpoint::client(any).map_err(Error::setup)?;
        made.set_default_client_config(self.config.clone());
        Ok(endpoint.insert(made).clone())
    }

    /// Moves every endpoint to a new socket, and says what failed where it matters: for the family of `own`, whether
    /// that is IPv6; for none, nothing does.
    pub(super) fn rebind<F>(&self, own: Option<bool>, bind: F) -> io::Result<()>
    where
        F: Fn(SocketAddr) -> io::Result<UdpSocket>,
    {
        let mut result = Ok(());
        for (endpoint, any) in lock(&self.endpoints).iter().zip(ANY) {
            let Some(endpoint) = endpoint else { continue };
            let moved = bind(any).and_then(|socket| endpoint.rebind(socket));
            if own == Some(any.is_ipv6()) {
                result = moved;
            }
        }
        result
    }
}
