//! `seco init`: a complete sample cluster. Also the one template of every server's settings, from which the
//! samples in `server/data` are made too.

use std::fmt::Write as _;
use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use seco_model::MAX_SERVERS;
use seco_node::config::{Limits, MAX_RETIRED, Pool};
use seco_node::{keys, private};
use seco_sdk::Address;

use crate::Error;

/// What `seco init` is asked for.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// Number of servers, the gateway included.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(2..=MAX_SERVERS as i64))]
    pub servers: u8,
    /// Folder of the cluster: in it, one for each server.
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
    /// Host names or IP addresses of the servers, the gateway first [default: all on this machine].
    #[arg(long, value_name = "HOST,...", value_delimiter = ',')]
    pub hosts: Vec<String>,
    /// UDP port for the other servers; servers on one host take the following ones.
    #[arg(long, value_name = "PORT", default_value_t = 7400)]
    pub mesh_port: u16,
    /// The gateway's port for devices, UDP and TCP.
    #[arg(long, value_name = "PORT", default_value_t = 7443)]
    pub device_port: u16,
}

/// Of the gateway only.
const OFFERS: &str = r#"
# Deployment files that devices are offered when theirs is older: written by `seco deployment --owner`.
# deployments = ["deployment.toml"]
"#;

/// Of the gateway only.
const ACCESS: &str = r#"
# Who may use the gateway. Without this, anybody who has the deployment file, within [limits].
# [access]
# The file of tokens, which `seco token` writes and the gateway reads again when it changes. It has hashes, no secrets.
# tokens = "tokens.toml"
# Whether devices without a token are turned away. If not, tokens only limit those who show one.
# required = true
"#;

/// The name of a server in a sample cluster and in the demo.
pub fn name(index: usize) -> String {
    if index == 0 { "gateway".to_owned() } else { format!("remote-{index}") }
}

/// Where `seco split --out DIR` puts the servers' parts: in the servers' folders if `seco init` made them in
/// `out`, else in `out` itself.
pub(crate) fn part_files(out: &Path, servers: usize) -> Result<Vec<PathBuf>, Error> {
    let folder = |index| out.join(name(index));
    let made = (0..MAX_SERVERS).take_while(|&index| folder(index).join("server.toml").is_file()).count();
    if made != 0 && made != servers {
        return Err(Error::Usage(format!(
            "--out {}: `seco init` made this for {made} servers: give --servers {made}, or another folder",
            out.display()
        )));
    }
    let place = |index| if made == 0 { out.to_owned() } else { folder(index) };
    Ok((0..servers).map(|index| place(index).join(format!("server-{index}.seco"))).collect())
}

/// Makes keys and settings of all servers. Nothing that exists is overwritten. Gives what to do next.
pub fn init(options: &Options) -> Result<String, Error> {
    let site = Site::new(options)?;
    let out = &options.out;
    for index in 0..site.servers() {
        let folder = out.join(name(index));
        if folder.exists() {
            return Err(Error::Exists { path: folder, remedy: "choose another --out, or remove it" });
        }
    }
    let mut made = Vec::new();
    for index in 0..site.servers() {
        made.push(keys::generate(&out.join(name(index)), &name(index))?);
    }
    for index in 0..site.servers() {
        let folder = out.join(name(index));
        for (other, files) in made.iter().enumerate().filter(|&(other, _)| other != index) {
            let copy = folder.join(format!("{}.cert.pem", name(other)));
            let certificate = fs::read(&files.certificate).map_err(|e| Error::read(&files.certificate, e))?;
            private::create(&copy, &certificate, private::PUBLIC)?;
        }
        private::create(&folder.join("server.toml"), site.settings(index).as_bytes(), private::PUBLIC)?;
    }
    Ok(site.next(out))
}

/// Where all servers are.
struct Site {
    hosts: Vec<String>,
    /// By server.
    mesh_ports: Vec<u16>,
    device_port: u16,
}

impl Site {
    fn new(options: &Options) -> Result<Site, Error> {
        let servers = usize::from(options.servers);
        let hosts = match options.hosts.len() {
            0 => vec!["127.0.0.1".to_owned(); servers],
            n if n == servers => options.hosts.clone(),
            n => {
                return Err(Error::Usage(format!(
                    "--hosts names {n} hosts, but there are {servers} servers: name one for each, the gateway's first"
                )));
            }
        };
        if let Some(host) = hosts.iter().find(|host| !Address::is_host(host)) {
            return Err(Error::Usage(format!(
                "--hosts: {host:?} is neither a host name nor an IP address (the port is --mesh-port)"
            )));
        }
        let mut mesh_ports = Vec::new();
        for (index, host) in hosts.iter().enumerate() {
            let before = hosts.iter().take(index).filter(|other| *other == host).count();
            let port = u16::try_from(before).ok().and_then(|n| options.mesh_port.checked_add(n));
            let port = port.filter(|&p| p != 0).ok_or_else(|| {
                Error::Usage(format!(
                    "--mesh-port {}: this and the following ports must be from 1 to 65535",
                    options.mesh_port
                ))
            })?;
            mesh_ports.push(port);
        }
        if options.device_port == 0 || (mesh_ports.first() == Some(&options.device_port)) {
            return Err(Error::Usage(format!(
                "--device-port {}: give one from 1 to 65535 that is not a --mesh-port of the same host",
                options.device_port
            )));
        }
        Ok(Site { hosts, mesh_ports, device_port: options.device_port })
    }

    fn servers(&self) -> usize {
        self.hosts.len()
    }

    fn host(&self, index: usize) -> &str {
        self.hosts.get(index).map_or("", String::as_str)
    }

    /// `host:port` of a server's mesh socket.
    fn address(&self, index: usize) -> String {
        join(self.host(index), self.mesh_ports.get(index).copied().unwrap_or_default())
    }

    /// Where a server listens: on this machine alone, or wherever it is reached.
    fn listen(&self, index: usize, port: u16) -> String {
        match self.host(index) {
            "localhost" => join("127.0.0.1", port),
            host => match host.parse::<IpAddr>() {
                Ok(ip) if ip.is_loopback() => join(host, port),
                Ok(IpAddr::V6(_)) => join("::", port),
                _ => join("0.0.0.0", port),
            },
        }
    }

    /// One server's settings, every key explained.
    fn settings(&self, index: usize) -> String {
        let name_of = name;
        let name = name(index);
        let mut text = format!(
            r#"# Settings of {a_server} for `seco serve --config FILE`.
# Paths are relative to this file. Unknown keys are refused.

# Number of this server. 0 is the gateway, which devices talk to; the remotes are 1, 2, ...
index = {index}

# A name for logs and messages.
name = "{name}"

# This server's part of the model, from `seco split`: server-INDEX.seco. Secret, as the keys are: what
# other users of the machine could read is closed to them when the server starts.
model = "server-{index}.seco"

# Directory for the ledger of used bundles, for bundles, and for what is known of the others. It must survive
# restarts and belong to this server alone. Where the ledger ends is also written to a file beside
# opening_key (NAME.*.ledger.head): a ledger that is lost or set back stops the server.
state = "state"
{offers}
[identity]
# From `seco keygen --name {name}`. The certificate is public, the two keys are secret.
certificate = "{name}.cert.pem"
# The first that it had in this cluster, once it is another: by it the others know this server.
# known_as = "{name}.first.cert.pem"
key = "{name}.key.pem"
opening_key = "{name}.opening.key"
# Earlier opening keys, for devices whose deployment file names one of them still; at most {MAX_RETIRED}.
# retired_opening_keys = ["{name}-2026.opening.key"]

[listen]
# UDP address for the other servers.
mesh = "{mesh}"
"#,
            offers = if index == 0 { OFFERS } else { "" },
            a_server = if index == 0 { "a gateway (server 0)" } else { "a remote server" },
            mesh = self.listen(index, self.mesh_ports.get(index).copied().unwrap_or_default()),
        );
        if index == 0 {
            let device = self.listen(index, self.device_port);
            let _ = write!(
                text,
                r#"# Address for devices, UDP and TCP: on the gateway only.
device = "{device}"
# TCP with TLS at the same port, for devices in networks that block UDP.
device_tcp = true
"#
            );
        } else {
            text.push_str("# A remote has no `device` address: devices talk to the gateway only.\n");
        }
        text.push_str("\n# All other servers.\n");
        for peer in (0..self.servers()).filter(|&peer| peer != index) {
            let name = name_of(peer);
            let _ = write!(text, "[[peers]]\nindex = {peer}\nname = \"{name}\"\n");
            if peer > index {
                let address = self.address(peer);
                let _ = write!(
                    text,
                    "# host:port of its `[listen] mesh`. The server with the lower index dials.\naddress = \"{address}\"\n"
                );
            } else {
                text.push_str("# It dials this server, so its address is not needed.\n");
            }
            let _ = write!(
                text,
                r#"# Its certificate; no other is accepted. While it changes to another, the present one and the next, one after the other.
certificate = "{name}.cert.pem"
# The first that it had in this cluster, once it shows another: a name, which lets nobody in.
# known_as = "{name}.first.cert.pem"
# Oblivious transfer on the link with it: 1, 2, 4 or 8, the same in its file. A transfer takes 16, 8, 4
# or 2 bytes, and more computing the fewer they are: 2 is for a fast network, 4 or 8 for a slow one.
ot_parameter = {}

"#,
                seco_protocol::OT_PARAMETER
            );
        }
        let Pool { size, low, memory_mib, disk_mib, priority, making, leases } = Pool::default();
        let Limits {
            setup_s,
            preprocess_s,
            infer_s,
            connect_s,
            sessions,
            queue,
            parallel,
            connections,
            idle_s,
            address_connections,
            address_handshakes,
            address_sessions,
            address_requests,
            address_requests_hour,
            address_leases,
        } = Limits::default();
        let _ = write!(
            text,
            r#"# Bundles (one is used up by each inference) are made ahead. The gateway's setting counts; a remote
# refuses to hold many more than its own `size`.
[pool]
# Bundles kept ready. Each takes about 50 bytes per AND gate on the servers that evaluate.
size = {size}
# Making more begins when this many or fewer are left.
low = {low}
# Mebibytes of bundles kept in memory too, which answers sooner. All are files in `state`, each encrypted under a key
# that is erased when it is used.
memory_mib = {memory_mib}
# Mebibytes that all bundles may take on disk.
disk_mib = {disk_mib}
# With several models (see the end): bundles of the one with the highest are made first, from 0 to 255.
priority = {priority}
# Bundles that are made at the same time, up to 8; of all servers' settings the least counts. 0: as this machine's cores
# and `memory_mib` allow. All but the first may take about as much memory again as `memory_mib`, whatever is said here.
making = {making}
# Bundles that may be spent ahead for the next requests of connections that ask again and again, at most 32: such a
# request waits for no order, no disk and no confirmation. Each is lost if the request does not come; 0: none are spent ahead.
# There are as many as every server allows. Each has its memory, its open file and a thread while it waits.
leases = {leases}

[limits]
# Seconds for setting up the cluster: keys and base oblivious transfers.
setup_s = {setup_s}
# Seconds for one bundle.
preprocess_s = {preprocess_s}
# Seconds for one inference, and for the time a request may wait for a bundle.
infer_s = {infer_s}
# A server that starts waits for the others as long as it takes, and says after so many seconds, and then every
# minute, who is missing.
connect_s = {connect_s}
# Sessions of devices remembered, for each model; beyond that the one unused for longest is forgotten, and its
# device opens a new one.
sessions = {sessions}
# Requests that may wait for a bundle and their turn (gateway), for each model; devices and addresses take turns. Of
# more, those of who has most are told to come back later.
queue = {queue}
# Inferences that run at the same time, of all models together.
parallel = {parallel}

# The rest is for the gateway. Connections of devices at the same time, over QUIC and again over TCP; for a new one the
# one that is idle for longest makes place. TCP takes a file handle for each.
connections = {connections}
# Seconds after which a connection goes that has no session and asks for nothing.
idle_s = {idle_s}
# From one IPv4 address or IPv6 /64 network, which may be a household's or a whole mobile network's; 0: no limit.
# Connections at the same time.
address_connections = {address_connections}
# Handshakes and sessions opened, in a minute.
address_handshakes = {address_handshakes}
# Sessions in use at the same time.
address_sessions = {address_sessions}
# Requests that wait or run at the same time.
address_requests = {address_requests}
# Requests in an hour: so many at once, and then as they come again.
address_requests_hour = {address_requests_hour}
# Bundles spent ahead ([pool] leases) for its connections at the same time.
address_leases = {address_leases}

# The port for those who run this server: /healthz, /readyz, /metrics for Prometheus, and what `seco admin` asks.
# Whoever has an account on this machine can use it, and drain the server. An address that other machines
# reach needs `public = true`; they can read then, and change nothing.
# [admin]
# listen = "127.0.0.1:7480"
# public = false

# Where each set-up, bundle and request is told as a span, with its times: an OpenTelemetry collector on this machine,
# over HTTP (OTLP). No span has anything of a session, device or user.
# [log]
# otlp = "http://127.0.0.1:4318"

# Models beside `model`, to which [pool] belongs: each served once all servers have it. `seco admin models add` does the
# same while the server runs, and says which lines a restart needs.
# [[models]]
# This server's part of it, secret as that of `model` is.
# part = "other/server-{index}.seco"
# What people call it in logs and commands, apart from its id.
# name = "other"
# As [pool], with the same keys and defaults.
# [models.pool]
# size = 4
# priority = 0
"#
        );
        if index == 0 {
            text.push_str(ACCESS);
        }
        text
    }

    /// The commands that follow.
    fn next(&self, out: &Path) -> String {
        let shown = |index: usize, file: &str| out.join(name(index)).join(file).display().to_string();
        let servers = self.servers();
        let out_shown = out.display();
        let mut text = format!(
            "Keys and settings of {servers} servers are in {out_shown}. Next, split a model among them:\n  \
             seco split --model MODEL.onnx --calibrate INPUTS.npy --servers {servers} --out {out_shown}\n"
        );
        let hosts: std::collections::HashSet<_> = self.hosts.iter().collect();
        if hosts.len() > 1 {
            text.push_str(
                "Then move each server's folder, which holds its secrets, to its machine and leave no copy; what the\n\
                 deployment file needs (below) is gateway.cert.pem, the *.sealing.pub and one server's part. Operators\n\
                 who must not know each other's keys make them with `seco keygen` on machines of their own.\n",
            );
        }
        text.push_str("Start the servers, in any order, each in a terminal of its own:\n");
        for index in 0..servers {
            let _ = writeln!(text, "  seco serve --config {}", shown(index, "server.toml"));
        }
        text.push_str("Write the file that devices need, and ask as a device does:\n");
        let _ = write!(
            text,
            "  seco deployment --address {} \\\n    --certificate {} \\\n",
            join(self.host(0), self.device_port),
            shown(0, "gateway.cert.pem")
        );
        for index in 0..servers {
            let file = format!("{}.sealing.pub", name(index));
            let _ = writeln!(text, "    --sealing-key {} \\", shown(index, &file));
        }
        let deployment = out.join("deployment.toml");
        let _ = write!(
            text,
            "    --model {} --out {}\n  seco infer --deployment {} --input INPUTS.npy",
            shown(0, "server-0.seco"),
            deployment.display(),
            deployment.display()
        );
        text
    }
}

/// `host:port`, with brackets around an IPv6 address.
fn join(host: &str, port: u16) -> String {
    match host.parse::<IpAddr>() {
        Ok(IpAddr::V6(_)) => format!("[{host}]:{port}"),
        _ => format!("{host}:{port}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use seco_node::Config;

    fn options(servers: u8, out: &Path, hosts: &[&str]) -> Options {
        Options {
            servers,
            out: out.to_owned(),
            hosts: hosts.iter().map(|&h| h.to_owned()).collect(),
            mesh_port: 7400,
            device_port: 7443,
        }
    }

    #[test]
    fn the_samples_are_made_from_the_template() {
        let hosts = ["gateway.example", "remote-1.example", "remote-2.example"];
        let site = Site::new(&options(3, Path::new("unused"), &hosts)).unwrap();
        for (index, file) in ["sample-gateway.toml", "sample-remote.toml"].into_iter().enumerate() {
            let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../data").join(file);
            if std::env::var_os("SECO_WRITE_SAMPLES").is_some() {
                fs::write(&path, site.settings(index)).unwrap();
            }
            let text = fs::read_to_string(&path).unwrap();
            assert!(text == site.settings(index), "{file} is another: write it with SECO_WRITE_SAMPLES=1");
        }
    }

    #[test]
    fn what_is_made_can_be_loaded_and_fits_together() {
        for (servers, hosts) in [(2, &[][..]), (3, &["gw", "192.0.2.1", "2001:db8::1"][..]), (8, &[][..])] {
            let dir = tempfile::tempdir().unwrap();
            let out = dir.path().join("cluster");
            let next = init(&options(servers, &out, hosts)).unwrap();
            let configs: Vec<Config> = (0..usize::from(servers))
                .map(|i| Config::load(&out.join(name(i)).join("server.toml")).unwrap())
                .collect();
            for config in &configs {
                assert_eq!((config.pool, config.limits), (Pool::default(), Limits::default()));
                keys::tls_key(&config.identity.key).unwrap();
                assert!(config.model.parent() == config.identity.key.parent());
                for peer in &config.peers {
                    let other = &configs[peer.index];
                    assert_eq!(peer.name, other.name);
                    let certificate = |path| keys::certificate(path).unwrap();
                    assert!(certificate(&peer.certificate) == certificate(&other.identity.certificate));
                    if let Some(address) = &peer.address {
                        assert!(address.ends_with(&format!(":{}", other.listen.mesh.port())));
                    }
                    if hosts.is_empty() {
                        assert!(other.listen.mesh.ip().is_loopback());
                        assert!(other.listen.mesh != config.listen.mesh);
                    }
                }
                assert!(next.contains(&format!("serve --config {}", out.join(&config.name).display())));
            }
            let again = init(&options(servers, &out, hosts)).unwrap_err().to_string();
            assert!(again.contains("gateway: exists already"), "{again}");
            let parts = part_files(&out, usize::from(servers)).unwrap();
            assert!(parts.iter().zip(&configs).all(|(part, config)| *part == config.model));
            assert!(part_files(&out, 1 + usize::from(servers)).is_err());
            assert_eq!(part_files(dir.path(), 2).unwrap()[1], dir.path().join("server-1.seco"));
        }
    }

    #[test]
    fn mistakes_are_told() {
        let dir = tempfile::tempdir().unwrap();
        let told = |change: &dyn Fn(&mut Options)| {
            let mut options = options(3, dir.path(), &[]);
            change(&mut options);
            init(&options).unwrap_err().to_string()
        };
        assert!(told(&|o| o.hosts = vec!["a".to_owned()]).contains("names 1 hosts, but there are 3"));
        assert!(told(&|o| o.hosts = vec!["a\"b".to_owned(); 3]).contains("neither a host name"));
        assert!(told(&|o| o.hosts = vec!["192.0.2.300".to_owned(); 3]).contains("neither a host name"));
        assert!(told(&|o| o.mesh_port = 65_534).contains("--mesh-port 65534"));
        assert!(told(&|o| o.device_port = 7400).contains("--device-port 7400"));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
