//! A server: keys, ledger, disk, ports, and the way to the other servers. Nothing is changed, and a running server is
//! not disturbed.

use std::fs::{self, File, TryLockError};
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::path::Path;
use std::time::{Duration, SystemTime};

use seco_node::config::{self, Config};
use seco_node::mesh::{self, tls};
use seco_node::store::{self, ledger};
use seco_node::{keys, service};
use tokio::net::lookup_host;
use tokio::time::timeout;

use super::{Findings, validity};
use crate::admin::{self, size};

/// Time for a name to be looked up.
const LOOK_UP: Duration = Duration::from_secs(5);
/// Time for the handshakes; the other servers dial every second.
const HANDSHAKES: Duration = Duration::from_secs(6);
/// File handles that a server may need: connections of devices over TCP, files and links.
const HANDLES: u64 = 2048;
/// No clock is before this release: 2025-01-01.
const PAST: Duration = Duration::from_secs(1_735_689_600);
/// Nor after this: 2100-01-01.
const FUTURE: Duration = Duration::from_secs(4_102_444_800);
/// How far ahead a file's date may be.
const AHEAD: Duration = Duration::from_secs(600);

pub(super) async fn examine(file: &Path, findings: &mut Findings) {
    let config = match Config::load(file) {
        Ok(config) => config,
        Err(error) => return findings.add("settings", Some(false), error.to_string()),
    };
    findings.add("settings", Some(true), format!("{} is server {}", config.name, config.index));
    let keys_work = keys(&config, findings);
    findings.found("clock", clock(&config));
    files(&config, findings);
    findings.found("file handles", handles());

    let running = running(&config);
    if running {
        findings.add("ports", Some(true), "the server is running");
    } else {
        for (what, result) in ports(&config) {
            findings.found(what, result);
        }
    }
    let mut all_resolve = true;
    for peer in &config.peers {
        let Some(address) = &peer.address else { continue };
        let result = match timeout(LOOK_UP, lookup_host(address)).await {
            Ok(Ok(mut found)) => {
                found.next().map(|address| address.ip().to_string()).ok_or("it has no address".to_owned())
            }
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err("no answer".to_owned()),
        };
        let remedy = format!("correct address in [[peers]] {}, or give an IP address", peer.index);
        let result = result.map_err(|why| format!("{why}: {remedy}"));
        all_resolve &= findings.found(format!("name of {address}"), result);
    }
    if running {
        linked(&config, findings).await;
    } else if keys_work && all_resolve {
        match mesh::probe::probe(&config, HANDSHAKES).await {
            Ok(found) => found.into_iter().for_each(|(index, result)| {
                findings.found(way_to(&config, index), result.map(|()| "a handshake was done"));
            }),
            Err(error) => findings.add("way to the other servers", Some(false), error.to_string()),
        }
    } else {
        findings.add("way to the other servers", None, "mend the above first");
    }
}

fn way_to(config: &Config, index: usize) -> String {
    let name = config.peer(index).map_or("unknown", |peer| &peer.name);
    format!("way to server {index} ({name}) over UDP")
}

/// The files of keys and certificates; whether all can be used.
fn keys(config: &Config, findings: &mut Findings) -> bool {
    let identity = &config.identity;
    let before = findings.all.len();
    let mut secrets = vec![&identity.key, &identity.opening_key, &config.model];
    secrets.extend(config.models.iter().map(|model| &model.part));
    secrets.extend(&identity.retired_opening_keys);
    for path in secrets {
        findings.found(format!("mode of {}", path.display()), mode(path));
    }
    // What others can read is reported above, and not closed here by reading it.
    if findings.all.iter().skip(before).any(|finding| finding.ok == Some(false)) {
        findings.add("keys", None, "mend the above first");
        return false;
    }
    let now = SystemTime::now();
    let certificate = keys::certificate(&identity.certificate).map_err(|error| error.to_string());
    let dates = certificate.as_ref().map_err(Clone::clone).and_then(|own| validity::check(own, now));
    findings.found(format!("certificate {}", identity.certificate.display()), dates);
    if let Ok(own) = &certificate {
        let pair = keys::tls_key(&identity.key).and_then(|key| tls::server_tls(own, &key, Vec::new()));
        let pair = pair.map(|_| "it belongs to the certificate");
        findings.found(format!("key {}", identity.key.display()), pair);
    }
    for path in std::iter::once(&identity.opening_key).chain(&identity.retired_opening_keys) {
        let key = keys::opening_key(path).and_then(|key| keys::public_half(&key, path));
        // The public half that `seco keygen` wrote, where it is still beside it.
        let name =
            path.file_name().unwrap_or_default().to_string_lossy().replace(".opening.key", ".sealing.pub");
        let beside = path.with_file_name(&name);
        let agrees = key.map_err(|error| error.to_string()).and_then(|key| {
            match keys::sealing_key(&beside) {
                Ok(public) if public.hash() != key.hash() => Err(format!(
                    "it is not the one that {name} beside it belongs to: put the file of the same seco keygen back"
                )),
                Ok(_) => Ok(format!("it belongs to {name}")),
                Err(_) => Ok(String::new()),
            }
        });
        findings.found(format!("opening key {}", path.display()), agrees);
    }
    for peer in &config.peers {
        let theirs = keys::certificate(&peer.certificate).map_err(|error| error.to_string());
        let theirs = theirs.and_then(|theirs| match &certificate {
            Ok(own) if *own == theirs => Err(format!(
                "it is this server's own: copy server {}'s to {}",
                peer.index,
                peer.certificate.display()
            )),
            _ => validity::check(&theirs, now),
        });
        findings.found(format!("certificate of server {} ({})", peer.index, peer.name), theirs);
    }
    findings.all.iter().skip(before).all(|finding| finding.ok != Some(false))
}

/// Whether a secret is there, can be read, and by nobody else.
fn mode(path: &Path) -> Result<String, String> {
    File::open(path).map_err(|error| {
        format!("it cannot be read ({error}): put it there, and run this as the server's user")
    })?;
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        let mode = fs::metadata(path).map_err(|error| error.to_string())?.permissions().mode() & 0o777;
        if mode & 0o077 != 0 {
            let shown = path.display();
            return Err(format!("other users can read it (mode {mode:03o}): chmod 600 {shown}"));
        }
        Ok(format!("{mode:03o}"))
    }
    #[cfg(not(unix))]
    Ok(String::new())
}

fn clock(config: &Config) -> Result<String, String> {
    let now = SystemTime::now();
    let since = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    if !(PAST..FUTURE).contains(&since) {
        return Err("it is years off: set it, and let NTP keep it".to_owned());
    }
    // What the server itself wrote last.
    let written = fs::metadata(config.state.join("ledger")).and_then(|metadata| metadata.modified());
    match written {
        Ok(written) if written > now + AHEAD => {
            Err("the ledger was written in its future: set it, and let NTP keep it".to_owned())
        }
        _ => Ok(String::new()),
    }
}

/// Model, ledger, disk.
fn files(config: &Config, findings: &mut Findings) {
    let models = config.all_models();
    for config::Model { part, .. } in &models {
        let only = models.len() == 1;
        let about =
            |what: &str| if only { what.to_owned() } else { format!("{what}, for {}", part.display()) };
        // A part that others can read is reported with the keys, and not closed here.
        if mode(part).is_err() {
            continue;
        }
        match service::part::read_part(part) {
            Ok(part) if part.index() != config.index || part.architecture().servers != config.servers() => {
                let (index, servers) = (part.index(), part.architecture().servers);
                let what = format!("it is the part of server {index} of {servers}: put this server's there");
                findings.add(about("model"), Some(false), what);
            }
            Ok(part) => {
                let id = keys::to_hex(part.id().get(..4).unwrap_or_default());
                findings.add(about("model"), Some(true), format!("{id}, the same on all servers"));
                let entries = ledger::inspect::inspect(&config.state, &config.ledger_heads(part.id()));
                findings.found(
                    about("ledger and its head"),
                    entries.map(|entries| match entries {
                        Some(entries) => format!("{entries} entries"),
                        None => "not begun yet".to_owned(),
                    }),
                );
            }
            Err(error) => findings.add(about("model"), Some(false), error.to_string()),
        }
    }
    // The folder is made when the server starts.
    let place = config.state.ancestors().find(|folder| folder.exists()).unwrap_or(Path::new("."));
    let what = format!("disk of {}", config.state.display());
    let least = 2 * store::RESERVE;
    match store::free(place) {
        None => findings.add(what, None, "this system does not say how much is free: see to it yourself"),
        Some(free) if free < least => {
            let (free, least) = (size(free), size(least));
            let told = format!("{free} free, and bundles need {least} or more: make room, or move `state`");
            findings.add(what, Some(false), told);
        }
        Some(free) => findings.add(what, Some(true), format!("{} free", size(free))),
    }
}

fn handles() -> Result<String, String> {
    #[cfg(unix)]
    {
        let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
        // The server does not raise it by itself.
        match limit.current {
            Some(most) if most < HANDLES => Err(format!(
                "at most {most}, and a server with many devices needs {HANDLES}: ulimit -n, or LimitNOFILE= of its unit"
            )),
            Some(most) => Ok(format!("at most {most} in this shell")),
            None => Ok("without limit".to_owned()),
        }
    }
    #[cfg(not(unix))]
    Ok(String::new())
}

/// Whether the state directory belongs to a running server.
fn running(config: &Config) -> bool {
    let lock = File::open(config.state.join("lock"));
    lock.is_ok_and(|lock| matches!(lock.try_lock_shared(), Err(TryLockError::WouldBlock)))
}

/// Whether the sockets can be opened.
fn ports(config: &Config) -> Vec<(String, Result<String, String>)> {
    let taken = |error: std::io::Error| {
        format!("{error}: stop what uses it, or choose an address of this machine and a free port")
    };
    let udp = |address: SocketAddr| UdpSocket::bind(address).map(|_| String::new()).map_err(taken);
    let tcp = |address: SocketAddr| TcpListener::bind(address).map(|_| String::new()).map_err(taken);
    let mut found = vec![(format!("UDP port {}", config.listen.mesh), udp(config.listen.mesh))];
    if let Some(address) = config.listen.device {
        found.push((format!("UDP port {address}"), udp(address)));
        if config.listen.device_tcp {
            found.push((format!("TCP port {address}"), tcp(address)));
        }
    }
    if let Some(admin) = config.admin {
        found.push((format!("TCP port {}", admin.listen), tcp(admin.listen)));
    }
    found
}

/// What the running server says of its links.
async fn linked(config: &Config, findings: &mut Findings) {
    let Some(address) = admin::configured(config) else {
        let why = "the server is running: give it an [admin] port to ask, or stop it";
        return findings.add("way to the other servers", None, why);
    };
    let status = match admin::status(address).await {
        Ok(status) => status,
        Err(error) => return findings.add("admin port", Some(false), error.to_string()),
    };
    findings.add("admin port", Some(true), address.to_string());
    for peer in &status.peers {
        let remedy = "it is not connected: is it running, and UDP open between the two (firewalls)? Ask seco doctor there";
        let result = if peer.connected { Ok("connected") } else { Err(remedy) };
        findings.found(way_to(config, peer.index), result);
    }
    let others: Vec<&String> =
        status.reasons.iter().filter(|reason| !reason.ends_with("is not connected")).collect();
    for reason in others {
        findings.add("requests", Some(false), reason.clone());
    }
}
