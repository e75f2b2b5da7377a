//! The gateway towards devices: sessions and inferences over QUIC, and over TLS and TCP
//! for networks that block UDP (sections 3 and 8 of PROTOCOL.md).
//!
//! Devices are not authenticated, so everything they can make the gateway hold is bounded:
//! connections, requests on each, their size, sessions, and the queue for bundles. What they send
//! is masked; it goes to the protocol and nowhere else.

mod door;
mod files;
mod handles;
mod lease;
pub(crate) mod offers;
mod quic;
mod request;
mod tcp;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use quinn::{Endpoint, ServerConfig};
use seco_core::mux;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tracing::debug;

use self::door::{Admission, Door, Over};
use crate::Error;
use crate::cluster::Cluster;
use crate::config::{Identity, Limits};
use crate::keys;
use crate::reset::ResetKey;

/// Protocol between device and gateway over QUIC.
const ALPN: &[u8] = b"seco/1";
/// Requests at the same time on one connection.
const MAX_REQUESTS: u32 = mux::MAX_OPEN as u32;
/// Sessions one connection may use at a time; more push out the oldest.
const MAX_HANDLES: usize = 64;
/// Time for a handshake, for a request to arrive, and for an answer to be taken.
const TRANSFER: Duration = Duration::from_secs(30);
/// A connection without traffic ends when no request can be under way any more and this long has
/// passed. Nothing keeps it alive on purpose: that would cost devices their battery.
const IDLE: Duration = Duration::from_secs(15);
/// How often a free port is looked for that both transports can have.
const PORT_TRIES: u32 = 16;
/// What was written to TCP connections has this long to leave the machine before they are closed.
const LINGER: Duration = Duration::from_millis(100);

/// How long a connection may be without traffic: a request may wait as long for its turn, and then for its answer.
fn idle(patience: Duration) -> Duration {
    patience * 2 + IDLE
}

/// The sockets for devices.
#[derive(Clone)]
pub(crate) struct Gateway {
    endpoint: Endpoint,
    /// What new connections over QUIC get, and for requests of which length.
    config: (ServerConfig, usize),
    limits: Limits,
    door: Arc<Door>,
    tcp: Option<(Arc<TcpListener>, TlsAcceptor)>,
}

impl Gateway {
    /// Opens the sockets: UDP at `address` and, if `tcp`, TCP at the same port. Call it inside a runtime.
    pub async fn bind(
        address: SocketAddr,
        tcp: bool,
        identity: &Identity,
        request_limit: usize,
        limits: &Limits,
        reset: &ResetKey,
    ) -> Result<Self, Error> {
        let acceptor = match tcp {
            true => Some(TlsAcceptor::from(Arc::new(tls(identity, mux::ALPN)?))),
            false => None,
        };
        let config =
            quic::config(tls(identity, ALPN)?, request_limit, limits).map_err(|_| unusable(identity))?;
        let door = Door::new(*limits, if tcp { files::places(limits.connections) } else { 0 });
        let mut tries = 1;
        loop {
            let bind = |e| Error::bind("UDP", address, e);
            let socket = std::net::UdpSocket::bind(address).map_err(bind)?;
            let runtime = quinn::default_runtime().ok_or(Error::NoRuntime)?;
            let settings = reset.endpoint("devices");
            let endpoint = Endpoint::new(settings, Some(config.clone()), socket, runtime).map_err(bind)?;
            let gateway = |tcp| Self {
                endpoint: endpoint.clone(),
                config: (config.clone(), request_limit),
                limits: *limits,
                door: door.clone(),
                tcp,
            };
            let Some(acceptor) = &acceptor else { return Ok(gateway(None)) };
            let same = endpoint.local_addr().map_err(|_| Error::NoRuntime)?;
            match TcpListener::bind(same).await {
                Ok(listener) => {
                    let tcp = Some((Arc::new(listener), acceptor.clone()));
                    return Ok(gateway(tcp));
                }
                // The system chose a port that is taken over TCP; it will choose another.
                Err(_) if address.port() == 0 && tries < PORT_TRIES => tries += 1,
                Err(error) => return Err(Error::bind("TCP", same, error)),
            }
        }
    }

    /// The sockets' address.
    pub fn address(&self) -> Result<SocketAddr, Error> {
        self.endpoint.local_addr().map_err(|_| Error::NoRuntime)
    }

    /// Serves devices until the UDP socket is closed.
    pub async fn serve(mut self, cluster: Arc<Cluster>) {
        // Ends with this function, and its connections with it.
        let mut tasks = JoinSet::new();
        if let Some((listener, acceptor)) = self.tcp.clone() {
            tasks.spawn(tcp::serve(listener, acceptor, cluster.clone(), self.door.clone()));
        }
        while let Some(incoming) = self.endpoint.accept().await {
            let address = incoming.remote_address();
            self.fit(cluster.request_limit());
            let valid = incoming.remote_address_validated() || !incoming.may_retry();
            match self.door.admit(Over::Quic, address, valid) {
                Admission::In(place) => {
                    tokio::spawn(quic::serve(cluster.clone(), place, incoming));
                }
                // Fails only for what was validated before.
                Admission::Validate => _ = incoming.retry(),
                Admission::Out(reason) => {
                    debug!(%address, reason, "device turned away");
                    incoming.refuse();
                }
            }
        }
    }

    /// Fits what new connections get to the longest request, which changes with the models.
    fn fit(&mut self, request_limit: usize) {
        let (config, fits) = &mut self.config;
        if *fits != request_limit {
            *fits = request_limit;
            config.transport_config(Arc::new(quic::transport(request_limit, &self.limits)));
            self.endpoint.set_server_config(Some(config.clone()));
        }
    }

    /// Closes all connections over QUIC and waits, briefly, until the devices were told. Those over TCP end
    /// with [`Gateway::serve`].
    pub async fn close(&self) {
        if self.tcp.is_some() {
            sleep(LINGER).await;
        }
        self.endpoint.close(quic::CLOSED, b"stopping");
        let _ = timeout(Duration::from_millis(500), self.endpoint.wait_idle()).await;
    }
}

/// TLS 1.3 with the gateway's certificate, for the application protocol `alpn`.
fn tls(identity: &Identity, alpn: &[u8]) -> Result<rustls::ServerConfig, Error> {
    let certificate = keys::certificate(&identity.certificate)?;
    let key = keys::tls_key(&identity.key)?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut tls = rustls::ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|_| unusable(identity))?
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .map_err(|_| unusable(identity))?;
    tls.alpn_protocols = vec![alpn.to_vec()];
    // Devices do not use them.
    tls.send_tls13_tickets = 0;
    Ok(tls)
}

fn unusable(identity: &Identity) -> Error {
    Error::Key {
        path: identity.key.clone(),
        what: "does not belong to the certificate of [identity]: use both files of one `seco keygen`"
            .to_owned(),
    }
}
