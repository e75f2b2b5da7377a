//! One TOML file per server. Every key is explained in `server/data/sample-gateway.toml` and
//! `sample-remote.toml`; unknown keys are refused, for a mistyped limit must not pass as a default.

mod limits;
#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use seco_model::MAX_SERVERS;
use seco_protocol::BUNDLES_AT_ONCE;
use seco_sdk::Address;
use serde::{Deserialize, Serialize};

use crate::Error;
use crate::mesh::MAX_MODELS;
use crate::operation::otlp::Collector;
use crate::service::leases::MOST;
use crate::store::ledger::Heads;

pub use self::limits::Limits;

/// Everything one server is told. Paths in the file are relative to the file; [`Config::load`]
/// makes them absolute or relative to the working directory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Number of this server: 0 is the gateway.
    pub index: usize,
    /// Name for logs and for the other servers' messages.
    pub name: String,
    /// This server's part of the model (`seco split`).
    pub model: PathBuf,
    /// Directory for the ledger of used bundles; made when missing.
    pub state: PathBuf,
    /// Deployment files that devices are offered when theirs is older, on the gateway.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub deployments: Vec<PathBuf>,
    /// Keys of this server.
    pub identity: Identity,
    /// Where it listens.
    pub listen: Listen,
    /// All other servers.
    pub peers: Vec<Peer>,
    /// How many bundles are kept ready (the gateway's setting counts).
    #[serde(default)]
    pub pool: Pool,
    /// Limits of time and number.
    #[serde(default)]
    pub limits: Limits,
    /// Who may use the gateway; without it, anybody.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub access: Option<Access>,
    /// The port for those who run the server; without it there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub admin: Option<Admin>,
    /// What is told of jobs beside the lines of the log.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log: Option<Log>,
    /// Models beside `model`, which `[pool]` is for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub models: Vec<Model>,
}

/// One of several models.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Model {
    /// This server's part of it (`seco split`).
    pub part: PathBuf,
    /// What people call it; without one it is called by its id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// How many bundles of it are kept ready.
    #[serde(default)]
    pub pool: Pool,
}

/// Longest name of a model.
const MAX_NAME: usize = 64;

impl Model {
    /// The lines of the settings that it needs.
    ///
    /// # Errors
    /// A path that is no text.
    pub fn to_settings(&self) -> Result<String, String> {
        #[derive(Serialize)]
        struct Lines<'a> {
            models: [&'a Model; 1],
        }
        toml::to_string(&Lines { models: [self] }).map_err(|error| one_line(&error.to_string()))
    }

    /// A model's name, if it can be one: it is a label of metrics.
    pub fn check_name(name: &str) -> Result<(), String> {
        let allowed = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
        if (1..=MAX_NAME).contains(&name.len()) && name.chars().all(allowed) {
            return Ok(());
        }
        Err(format!("name = {name:?} is not 1 to {MAX_NAME} letters, digits, dots, dashes and underscores"))
    }
}

/// Tokens of devices, on the gateway.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Access {
    /// The file that `seco token` writes.
    pub tokens: PathBuf,
    /// Whether devices without a token are turned away. If not, tokens only limit those who show one.
    #[serde(default = "yes")]
    pub required: bool,
}

/// The port that tells health and metrics, and takes the orders of `seco admin`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Admin {
    /// TCP address; port 0 lets the system choose.
    pub listen: SocketAddr,
    /// Whether `listen` may be an address that other machines reach. They can read then, and change nothing.
    #[serde(default)]
    pub public: bool,
}

/// Where spans of jobs go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Log {
    /// An OpenTelemetry collector on this machine.
    pub otlp: Collector,
}

/// Key files of a server, made by `seco keygen`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Identity {
    /// TLS certificate, PEM; the others pin it.
    pub certificate: PathBuf,
    /// The certificate by which the others know this server, where that is an earlier one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub known_as: Option<PathBuf>,
    /// TLS private key, PEM.
    pub key: PathBuf,
    /// Private key that opens the session keys of devices, hexadecimal.
    pub opening_key: PathBuf,
    /// Earlier ones, which still open what devices with an older deployment file seal to them. At most
    /// [`MAX_RETIRED`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub retired_opening_keys: Vec<PathBuf>,
}

/// Opening keys that a server may keep beside the present one.
pub const MAX_RETIRED: usize = 3;

/// Sockets of a server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Listen {
    /// UDP address for other servers; port 0 lets the system choose.
    pub mesh: SocketAddr,
    /// Address for devices, UDP and TCP: on the gateway, and only there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<SocketAddr>,
    /// Whether devices are served over TCP too, at the same port.
    #[serde(default = "yes")]
    pub device_tcp: bool,
}

fn yes() -> bool {
    true
}

/// Another server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Peer {
    /// Its number.
    pub index: usize,
    /// Its name, for messages.
    pub name: String,
    /// `host:port` of its mesh socket. Needed for servers with a higher number, which this one
    /// dials; those with a lower number dial us.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// Its certificate, PEM, or the present one and the next, one after the other. No other is accepted.
    pub certificate: PathBuf,
    /// The certificate by which it is known: the first that it had in this cluster, whatever it shows since. The first
    /// of `certificate` unless given. It is a name, and lets nobody in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub known_as: Option<PathBuf>,
    /// SoftSpokenOT's parameter on the link with it: 1, 2, 4 or 8; the same at its end.
    #[serde(default = "ot_parameter")]
    pub ot_parameter: usize,
}

fn ot_parameter() -> usize {
    seco_protocol::OT_PARAMETER
}

/// When bundles are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Pool {
    /// Bundles kept ready.
    pub size: usize,
    /// Refilling starts when this many or fewer are ready, and goes on to `size`.
    pub low: usize,
    /// Mebibytes of bundles kept in memory too, which answers sooner; all are files in `state`.
    pub memory_mib: usize,
    /// Mebibytes that all bundles may take on disk.
    pub disk_mib: u64,
    /// Of several models', bundles of the one with the highest are made first (the gateway's setting counts).
    pub priority: u8,
    /// Bundles that are made at the same time, at most; 0: as cores and `memory_mib` allow. Of all servers' the least
    /// counts.
    pub making: usize,
    /// Bundles that are spent ahead, for the next requests of devices' connections, at most: the gateway leases as many as
    /// every server's setting allows.
    pub leases: usize,
}

impl Default for Pool {
    fn default() -> Self {
        Self { size: 4, low: 3, memory_mib: 64, disk_mib: 64 << 10, priority: 0, making: 0, leases: 0 }
    }
}

impl Pool {
    /// Whether these can be meant; `key` names them in the file.
    pub fn check(&self, key: &str) -> Result<(), String> {
        let Pool { size, low, memory_mib, disk_mib, priority: _, making, leases } = *self;
        if memory_mib > MAX_MEMORY_MIB {
            return Err(format!("[{key}] memory_mib = {memory_mib} is more than {MAX_MEMORY_MIB}"));
        }
        if !(1..=MAX_DISK_MIB).contains(&disk_mib) {
            return Err(format!("[{key}] disk_mib = {disk_mib} is not from 1 to {MAX_DISK_MIB}"));
        }
        if making > BUNDLES_AT_ONCE {
            return Err(format!("[{key}] making = {making} is more than {BUNDLES_AT_ONCE}"));
        }
        if size > MAX_POOL {
            return Err(format!("[{key}] size = {size} is more than {MAX_POOL}"));
        }
        if size == 0 || low >= size {
            return Err(format!("[{key}] low = {low} must be less than size = {size}, and size at least 1"));
        }
        if leases > size.min(MOST) {
            return Err(format!(
                "[{key}] leases = {leases} must not be more than size = {size}, and at most {MOST}"
            ));
        }
        Ok(())
    }
}

/// Most deployment files that a gateway offers.
const MAX_OFFERS: usize = 16;

/// Most bundles of a pool: their names are one message between servers.
pub(crate) const MAX_POOL: usize = 50_000;

/// An exbibyte.
const MAX_DISK_MIB: u64 = 1 << 40;

/// An exbibyte, so that bytes can be counted.
const MAX_MEMORY_MIB: usize = usize::MAX >> 24;

impl Config {
    /// Reads and checks a server's file.
    pub fn load(path: &Path) -> Result<Config, Error> {
        let text = std::fs::read_to_string(path).map_err(|e| Error::read(path, e))?;
        let base = path.parent().unwrap_or(Path::new(""));
        Config::parse(&text, base).map_err(|what| Error::Config { path: path.to_owned(), what })
    }

    /// Writes the file, with paths as they are.
    pub fn save(&self, path: &Path) -> Result<(), Error> {
        let text = toml::to_string(self)
            .map_err(|e| Error::Config { path: path.to_owned(), what: one_line(&e.to_string()) })?;
        std::fs::write(path, text).map_err(|e| Error::write(path, e))
    }

    /// The files beside the keys that remember where the ledger in `state` ends, for the model with this id.
    pub fn ledger_heads(&self, model: &[u8; 32]) -> Heads {
        Heads::new(&self.identity.opening_key, &self.identity.retired_opening_keys, model)
    }

    /// All models: `model` with `[pool]`, and those of `[[models]]`.
    pub fn all_models(&self) -> Vec<Model> {
        let first = Model { part: self.model.clone(), name: None, pool: self.pool };
        std::iter::once(first).chain(self.models.iter().cloned()).collect()
    }

    /// Number of servers.
    pub fn servers(&self) -> usize {
        self.peers.len() + 1
    }

    /// Whether this server is the gateway.
    pub fn is_gateway(&self) -> bool {
        self.index == 0
    }

    /// The configured server with this number.
    pub fn peer(&self, index: usize) -> Option<&Peer> {
        self.peers.iter().find(|p| p.index == index)
    }

    /// SoftSpokenOT's parameter on the link with a server; the default at this server itself.
    pub fn ot_parameter(&self, index: usize) -> usize {
        self.peer(index).map_or(seco_protocol::OT_PARAMETER, |peer| peer.ot_parameter)
    }

    fn parse(text: &str, base: &Path) -> Result<Config, String> {
        let mut config: Config = toml::from_str(text).map_err(|e| {
            let line = e.span().map(|s| text.get(..s.start).map_or(0, |t| t.matches('\n').count()) + 1);
            let what = one_line(e.message());
            line.map_or_else(|| what.clone(), |l| format!("line {l}: {what}"))
        })?;
        config.check()?;
        let paths = [
            &mut config.model,
            &mut config.state,
            &mut config.identity.certificate,
            &mut config.identity.key,
            &mut config.identity.opening_key,
        ];
        let more = config.identity.retired_opening_keys.iter_mut();
        let more = more.chain(&mut config.deployments);
        let more = more.chain(config.access.as_mut().map(|access| &mut access.tokens));
        let more = more.chain(&mut config.identity.known_as);
        let certificates = config
            .peers
            .iter_mut()
            .flat_map(|peer| [Some(&mut peer.certificate), peer.known_as.as_mut()])
            .flatten();
        let parts = config.models.iter_mut().map(|model| &mut model.part);
        for path in paths.into_iter().chain(more).chain(certificates).chain(parts) {
            *path = base.join(&*path);
        }
        config.peers.sort_by_key(|p| p.index);
        Ok(config)
    }

    fn check(&self) -> Result<(), String> {
        let servers = self.servers();
        if !(2..=MAX_SERVERS).contains(&servers) {
            return Err(format!(
                "{} [[peers]] make a cluster of {servers}; from 2 to {MAX_SERVERS} servers are possible",
                self.peers.len()
            ));
        }
        if self.index >= servers {
            return Err(format!("index = {} but the servers are 0 to {}", self.index, servers - 1));
        }
        for index in (0..servers).filter(|&i| i != self.index) {
            match self.peers.iter().filter(|p| p.index == index).count() {
                1 => {}
                0 => return Err(format!("[[peers]] lacks server {index}: list all servers but this one")),
                _ => return Err(format!("[[peers]] has server {index} twice")),
            }
        }
        if let Some(peer) = self.peers.iter().find(|p| p.index > self.index && p.address.is_none()) {
            return Err(format!("[[peers]] {}: address is missing (this server dials it)", peer.index));
        }
        for peer in &self.peers {
            let Some(address) = &peer.address else { continue };
            if address.parse::<Address>().is_err() {
                return Err(format!("[[peers]] {}: address = {address:?} is not HOST:PORT", peer.index));
            }
        }
        if let Some(peer) = self.peers.iter().find(|p| !seco_ot::PARAMETERS.contains(&p.ot_parameter)) {
            return Err(format!(
                "[[peers]] {}: ot_parameter = {} is not 1, 2, 4 or 8",
                peer.index, peer.ot_parameter
            ));
        }
        let retired = self.identity.retired_opening_keys.len();
        if retired > MAX_RETIRED {
            return Err(format!(
                "[identity] retired_opening_keys has {retired} files, at most {MAX_RETIRED} are kept"
            ));
        }
        match (self.is_gateway(), self.listen.device.is_some()) {
            (true, false) => return Err("[listen] device is missing: the gateway serves devices".to_owned()),
            (false, true) => return Err("[listen] device is for server 0, the gateway, only".to_owned()),
            _ => {}
        }
        if self.deployments.len() > MAX_OFFERS {
            return Err(format!(
                "deployments has {} files, at most {MAX_OFFERS} are offered",
                self.deployments.len()
            ));
        }
        if !self.deployments.is_empty() && !self.is_gateway() {
            return Err("deployments is for server 0, the gateway, only".to_owned());
        }
        if self.access.is_some() && !self.is_gateway() {
            return Err(
                "[access] is for server 0, the gateway, only: devices show it their tokens".to_owned()
            );
        }
        if let Some(Admin { listen, public: false }) = self.admin
            && !listen.ip().to_canonical().is_loopback()
        {
            return Err(format!(
                "[admin] listen = {listen} can be reached from other machines: use 127.0.0.1, or say public = true"
            ));
        }
        self.pool.check("pool")?;
        if self.models.len() >= MAX_MODELS {
            return Err(format!("[[models]] are more than {}", MAX_MODELS - 1));
        }
        for model in &self.models {
            model.pool.check("models.pool")?;
            model.name.as_deref().map_or(Ok(()), Model::check_name).map_err(|e| format!("[[models]] {e}"))?;
        }
        let Limits { setup_s, preprocess_s, infer_s, connect_s, idle_s, .. } = self.limits;
        for (key, value) in [
            ("setup_s", setup_s),
            ("preprocess_s", preprocess_s),
            ("infer_s", infer_s),
            ("connect_s", connect_s),
            ("idle_s", idle_s),
        ] {
            // A day is longer than any of these waits can be meant to last.
            if !(1..=86_400).contains(&value) {
                return Err(format!("[limits] {key} = {value} is not from 1 to 86400 seconds"));
            }
        }
        let Limits { sessions, queue, parallel, connections, .. } = self.limits;
        let numbers = [
            ("sessions", sessions, 1_000_000),
            ("queue", queue, 100_000),
            ("parallel", parallel, 64),
            ("connections", connections, 1_000_000),
        ];
        for (key, value, most) in numbers {
            if !(1..=most).contains(&value) {
                return Err(format!("[limits] {key} = {value} is not from 1 to {most}"));
            }
        }
        Ok(())
    }
}

/// Messages of libraries come with line breaks; ours are one line.
fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
