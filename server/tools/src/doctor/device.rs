//! The way of a device: name, transports, certificate, session.

use std::path::Path;
use std::time::{Duration, Instant};

use seco_sdk::{Client, Deployment, Error, Transport};
use tokio::net::lookup_host;
use tokio::time::timeout;

use super::Findings;

/// Time for each step.
const LIMIT: Duration = Duration::from_secs(5);
/// Bytes of a probe, in each direction.
const PROBE: usize = 1000;

/// How far an attempt to connect came.
enum Reached {
    /// A client with a session.
    Session(Box<Client>),
    /// The handshake was done, the session was not opened.
    Gateway(Error),
    /// Somebody who is not the gateway.
    Stranger(Error),
    /// Nobody.
    Nothing(String),
    /// Not beyond this machine.
    Local(Error),
}

pub(super) async fn examine(file: &Path, model: Option<&str>, findings: &mut Findings) {
    let read = Deployment::from_file(file).and_then(|whole| {
        let names = whole.model_names().collect::<Vec<_>>().join(", ");
        let first = whole.model.name.clone();
        let deployment = whole.select(model.or(first.as_deref()))?;
        let asked = deployment.model.name.as_ref().map(|asked| format!("; of the models {names}: {asked}"));
        Ok((deployment, asked.unwrap_or_default()))
    });
    let (deployment, asked) = match read {
        Ok(read) => read,
        Err(error) => return findings.add("deployment file", Some(false), error.to_string()),
    };
    let servers = deployment.servers.len();
    findings.add("deployment file", Some(true), format!("{servers} servers{asked}"));
    let address = deployment.gateway.address.clone();
    let resolved = match timeout(LIMIT, lookup_host(address.as_str())).await {
        Ok(Ok(found)) => {
            let found: Vec<String> = found.map(|address| address.ip().to_string()).collect();
            Ok(found.join(", "))
        }
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err(format!("no answer in {} s", LIMIT.as_secs())),
    };
    let resolved = resolved
        .map_err(|why| format!("{why}: check this network's name server, and gateway.address in the file"));
    if !findings.found(format!("name of {address}"), resolved) {
        return;
    }

    let port = address.as_str().rsplit(':').next().unwrap_or_default().to_owned();
    let mut reached = Vec::new();
    for (transport, name, open) in
        [(Transport::Quic, "QUIC handshake (UDP)", "UDP"), (Transport::Tcp, "TLS handshake (TCP)", "TCP")]
    {
        let way = connect(deployment.clone(), transport).await;
        let what = format!("{name} with {address}");
        match &way {
            Reached::Nothing(why) => findings.add(
                what,
                Some(false),
                format!(
                    "{why}: is the gateway running, and {open} port {port} open in firewalls on the way{}?",
                    if open == "TCP" { ", with [listen] device_tcp = true" } else { "" }
                ),
            ),
            Reached::Local(error) => {
                let told = format!("{error}: this is on this machine, and nothing was sent");
                findings.add(what, Some(false), told);
            }
            _ => findings.add(what, Some(true), ""),
        }
        reached.push(way);
    }

    // Any of the two tells the rest.
    let rank = |way: &Reached| match way {
        Reached::Session(_) => 3,
        Reached::Gateway(_) => 2,
        Reached::Stranger(_) => 1,
        Reached::Nothing(_) | Reached::Local(_) => 0,
    };
    let untried = "no handshake was done";
    match reached.into_iter().max_by_key(rank) {
        Some(Reached::Session(client)) => {
            findings.add("certificate", Some(true), "it is pinned by the file");
            let start = Instant::now();
            let probe = timeout(LIMIT, client.probe(PROBE, PROBE)).await;
            let probe = match probe {
                Ok(Ok(())) => Ok(format!("{} ms", start.elapsed().as_millis())),
                Ok(Err(error)) => Err(error.to_string()),
                Err(_) => Err("no answer: ask the gateway's operator".to_owned()),
            };
            findings.found("probe", probe);
            findings.add("session", Some(true), "all servers opened it");
            client.close().await;
        }
        Some(Reached::Gateway(error)) => {
            findings.add("certificate", Some(true), "it is pinned by the file");
            findings.add("probe", None, "it needs a session");
            findings.add("session", Some(false), session(&error, &deployment));
        }
        Some(Reached::Stranger(error)) => {
            findings.add("certificate", Some(false), error.to_string());
            findings.add("probe", None, untried);
            findings.add("session", None, untried);
        }
        _ => {
            ["certificate", "probe", "session"].into_iter().for_each(|what| findings.add(what, None, untried))
        }
    }
}

async fn connect(deployment: Deployment, transport: Transport) -> Reached {
    let client = Client::builder(deployment).transport(transport).connect_timeout(LIMIT);
    match client.request_timeout(2 * LIMIT).connect().await {
        Ok(client) => Reached::Session(Box::new(client)),
        Err(Error::Connect { reason, .. }) => Reached::Nothing(reason.to_string()),
        Err(error @ Error::PinMismatch { .. }) => Reached::Stranger(error),
        Err(
            error @ (Error::Setup(_)
            | Error::NoRuntime
            | Error::NoRandomness
            | Error::Setting { .. }
            | Error::Storage(_)
            | Error::Deployment { .. }),
        ) => Reached::Local(error),
        Err(error) => Reached::Gateway(error),
    }
}

/// What is wrong with a session that was not opened.
fn session(error: &Error, deployment: &Deployment) -> String {
    let name = |index: u8| {
        let server = deployment.servers.get(usize::from(index));
        server.map_or_else(|| format!("server {index}"), |server| format!("server {index} ({})", server.name))
    };
    match error {
        Error::Refused(seco_core::Refusal::Unavailable { server }) => format!(
            "the gateway does not reach {}: its operator should start it, or ask seco doctor --config there",
            name(*server)
        ),
        Error::Refused(seco_core::Refusal::SealRejected { server }) => format!(
            "{} has another opening key than the file says: fetch the current deployment file, or its operator has \
             put a wrong key file in place",
            name(*server)
        ),
        Error::Busy { .. } => format!("{error}: the gateway takes no sessions now"),
        other => other.to_string(),
    }
}
