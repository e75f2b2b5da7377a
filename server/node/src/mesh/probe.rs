//! Whether the other servers can be reached over UDP, tried without joining the cluster: a handshake that says nothing
//! more, and is seen by nobody as a server that is there.

use std::net::SocketAddr;
use std::time::Duration;

use quinn::{Endpoint, EndpointConfig, VarInt};
use rustls::pki_types::CertificateDer;
use tokio::time::{Instant, timeout, timeout_at};

use super::link::{HANDSHAKE, is_tls};
use super::tls;
use crate::Error;
use crate::config::Config;
use crate::keys::{self, TLS_NAME};

/// How long a server has to refuse this one's certificate after the handshake.
const REFUSAL: Duration = Duration::from_millis(500);

/// Shakes hands with all other servers from the socket of `[listen] mesh`, which must be free: dials those with a
/// higher number and waits for those with a lower one. Gives each server's number and what went wrong with it. Call
/// it inside a runtime.
///
/// # Errors
/// Keys that cannot be used, and a socket that cannot be opened.
pub async fn probe(config: &Config, limit: Duration) -> Result<Vec<(usize, Result<(), String>)>, Error> {
    let own = keys::certificate(&config.identity.certificate)?;
    let key = keys::tls_key(&config.identity.key)?;
    let mut lower = Vec::new();
    let mut dials = Vec::new();
    for peer in &config.peers {
        let pinned = keys::certificates(&peer.certificate)?;
        if peer.index < config.index {
            lower.push((peer.index, pinned));
        } else {
            dials.push((peer, tls::client(&own, &key, pinned)?));
        }
    }
    let listen = config.listen.mesh;
    let bind = |e| Error::bind("UDP", listen, e);
    let socket = std::net::UdpSocket::bind(listen).map_err(bind)?;
    let server = tls::server(&own, &key, lower.iter().flat_map(|(_, pinned)| pinned.clone()).collect())?;
    let runtime = quinn::default_runtime().ok_or(Error::NoRuntime)?;
    let endpoint = Endpoint::new(EndpointConfig::default(), Some(server), socket, runtime).map_err(bind)?;

    let mut tasks = tokio::task::JoinSet::new();
    for (peer, client) in dials {
        let (endpoint, index) = (endpoint.clone(), peer.index);
        let address = peer.address.clone().unwrap_or_default();
        tasks.spawn(async move { vec![(index, dial(&endpoint, &address, client, limit).await)] });
    }
    let accepting = endpoint.clone();
    tasks.spawn(async move { accept(&accepting, lower, limit).await });
    let mut found = Vec::new();
    while let Some(result) = tasks.join_next().await {
        found.extend(result.map_err(|_| Error::NoRuntime)?);
    }
    found.sort_by_key(|(index, _)| *index);
    endpoint.close(VarInt::from_u32(0), b"probe");
    let _ = timeout(Duration::from_millis(500), endpoint.wait_idle()).await;
    Ok(found)
}

async fn dial(
    endpoint: &Endpoint,
    address: &str,
    client: quinn::ClientConfig,
    limit: Duration,
) -> Result<(), String> {
    let resolved = tokio::net::lookup_host(address).await;
    let resolved = resolved.map_err(|error| format!("{address} cannot be resolved ({error})"))?;
    let ipv4 = endpoint.local_addr().is_ok_and(|local| local.is_ipv4());
    let fits = |target: &SocketAddr| !ipv4 || target.is_ipv4();
    let target = resolved.into_iter().find(fits);
    let target =
        target.ok_or(format!("{address} has IPv6 addresses only, [listen] mesh is an IPv4 address"))?;
    let connecting = endpoint.connect_with(client, target, TLS_NAME).map_err(|e| e.to_string())?;
    match timeout(limit, connecting).await {
        Err(_) | Ok(Err(quinn::ConnectionError::TimedOut)) => Err(format!(
            "{address} does not answer over UDP: is that server running, and UDP open on the way (firewalls)?"
        )),
        Ok(Err(quinn::ConnectionError::TransportError(e))) if is_tls(e.code.into()) => {
            Err(format!("{address} shows another certificate than [[peers]] pins: copy its present one"))
        }
        Ok(Err(error)) => Err(format!("{address}: the handshake failed ({error})")),
        Ok(Ok(connection)) => match timeout(REFUSAL, connection.closed()).await {
            Ok(quinn::ConnectionError::ConnectionClosed(close)) if is_tls(close.error_code.into()) => {
                Err(format!(
                    "{address} refuses this server's certificate: copy [identity] certificate to its [[peers]]"
                ))
            }
            Ok(reason) => Err(format!("{address} ended the connection ({reason}): see its log")),
            Err(_) => Ok(()),
        },
    }
}

async fn accept(
    endpoint: &Endpoint,
    mut awaited: Vec<(usize, Vec<CertificateDer<'static>>)>,
    limit: Duration,
) -> Vec<(usize, Result<(), String>)> {
    let deadline = Instant::now() + limit;
    let mut found = Vec::new();
    while !awaited.is_empty() {
        let Ok(Some(attempt)) = timeout_at(deadline, endpoint.accept()).await else { break };
        // A stranger who does not finish his handshake must not take all the time.
        let Ok(Ok(connection)) = timeout(HANDSHAKE, attempt).await else { continue };
        let shown = connection.peer_identity();
        let shown = shown.and_then(|shown| shown.downcast::<Vec<CertificateDer<'static>>>().ok());
        let first = shown.and_then(|shown| shown.into_iter().next());
        if let Some(at) =
            awaited.iter().position(|(_, pinned)| first.as_ref().is_some_and(|first| pinned.contains(first)))
        {
            found.push((awaited.remove(at).0, Ok(())));
        }
        connection.close(VarInt::from_u32(0), b"probe");
    }
    let silent = "did not dial this server over UDP: is it running, with this server's address and certificate in \
                  its [[peers]], and UDP open on the way (firewalls)?";
    found.extend(awaited.into_iter().map(|(index, _)| (index, Err(silent.to_owned()))));
    found
}
