//! `seco bench net`: CPU time that a gigabyte between two servers takes at both ends together, over the mesh's QUIC
//! and over TLS on TCP, on loopback.

use std::fmt::Write as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use seco_core::{ModelId, SealingKeyHash};
use seco_node::keys;
use seco_node::mesh::Clock;
use seco_node::mesh::{Mesh, Server, Settings, tls};
use seco_node::reset::ResetKey;
use seco_node::versions::Versions;
use seco_protocol::Channel as _;
use seco_tools::process::cpu_time;
use seco_tools::terminal;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use super::{complete, footer};
use crate::Error;

/// What `seco bench net` is asked for.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// Bytes sent, in units of 2^20: one message each.
    #[arg(long, value_name = "M", default_value_t = 1024, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub megabytes: u32,
    /// Transport whose figures stand first in the JSON object; both are measured.
    #[arg(long, value_name = "quic|tcp", default_value = "quic")]
    pub transport: String,
    /// Prints the results as one JSON object and nothing else.
    #[arg(long)]
    pub json: bool,
}

const MESSAGE: usize = 1 << 20;
const LIMIT: Duration = Duration::from_secs(600);
const LOOPBACK: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

/// Figures of one transport.
struct Figures {
    transport: &'static str,
    cpu_s_per_gb: f64,
    wall_s_per_gb: f64,
}

impl Figures {
    fn json(&self) -> Value {
        json!({
            "transport": self.transport,
            "cpu_s_per_gb": self.cpu_s_per_gb,
            "wall_s_per_gb": self.wall_s_per_gb,
        })
    }
}

/// Measures and prints.
pub fn run(options: &Options) -> Result<(), Error> {
    if !["quic", "tcp"].contains(&options.transport.as_str()) {
        return Err(Error::Usage(format!("--transport {}: give quic or tcp", options.transport)));
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.map_err(|_| Error::no_runtime())?;
    let count = options.megabytes as usize;
    let all = [runtime.block_on(quic(count))?, runtime.block_on(tcp(count))?];
    let text = if options.json {
        let first = all.iter().find(|figures| figures.transport == options.transport);
        let mut report = first.map_or(Value::Null, Figures::json);
        report["megabytes"] = options.megabytes.into();
        report["all"] = all.iter().map(Figures::json).collect();
        complete(report)?
    } else {
        let mut text = String::from("transport    CPU-s per GB, both ends    s per GB\n");
        for figures in &all {
            let Figures { transport, cpu_s_per_gb, wall_s_per_gb } = figures;
            let _ = writeln!(text, "{transport:<13}{cpu_s_per_gb:>23.2}{wall_s_per_gb:>12.2}");
        }
        text + "\n" + &footer()?
    };
    terminal::print(&text);
    Ok(())
}

/// CPU-seconds of a gigabyte between two servers, both ends together.
pub(super) fn short(megabytes: usize) -> Result<f64, Error> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    Ok(runtime.map_err(|_| Error::no_runtime())?.block_on(quic(megabytes))?.cpu_s_per_gb)
}

fn failed(why: impl std::fmt::Display) -> Error {
    Error::Failed(format!("sending to this machine failed: {why}"))
}

fn figures(transport: &'static str, count: usize, cpu: Duration, wall: Duration) -> Figures {
    let gigabytes = (count * MESSAGE) as f64 / 1e9;
    Figures {
        transport,
        cpu_s_per_gb: cpu.as_secs_f64() / gigabytes,
        wall_s_per_gb: wall.as_secs_f64() / gigabytes,
    }
}

/// A server's certificate and key.
struct Identity {
    certificate: CertificateDer<'static>,
    key: PrivateKeyDer<'static>,
}

fn identities() -> Result<[Identity; 2], Error> {
    let one = || {
        let (certificate, key) = keys::self_signed().map_err(failed)?;
        let key = PrivatePkcs8KeyDer::from(key.serialize_der()).into();
        Ok::<_, Error>(Identity { certificate: certificate.der().clone(), key })
    };
    Ok([one()?, one()?])
}

/// Over a channel of the mesh, as the protocol sends.
async fn quic(count: usize) -> Result<Figures, Error> {
    let identities = identities()?;
    let start = |me: usize, address: Option<SocketAddr>| {
        let server = |(i, identity): (usize, &Identity)| Server {
            name: format!("server {i}"),
            address: address.filter(|_| i == 1).map(|address| address.to_string()),
            certificates: vec![identity.certificate.clone()],
            known_as: identity.certificate.clone(),
            ot_parameter: seco_protocol::OT_PARAMETER,
        };
        Mesh::start(Settings {
            versions: Versions::OURS,
            me,
            servers: identities.iter().enumerate().map(server).collect(),
            key: identities[me].key.clone_key(),
            listen: LOOPBACK,
            models: vec![ModelId([0; 32])],
            sealing_keys: vec![SealingKeyHash([me as u8; 32])],
            reset: ResetKey::random()?,
            records: None,
        })
    };
    let mut second = start(1, None)?;
    let mut first = start(0, Some(second.mesh.address()?))?;
    first.mesh.start_up(&mut first.mistakes, LIMIT).await?;
    second.mesh.start_up(&mut second.mistakes, LIMIT).await?;
    let clock = Clock::new(LIMIT);
    let (sender, receiver) =
        tokio::join!(first.mesh.channel(1, 0, 0, &clock), second.mesh.channel(1, 0, 0, &clock));
    let (mut sender, mut receiver) = (sender.map_err(failed)?, receiver.map_err(failed)?);

    let (cpu, wall) = (cpu_time()?, Instant::now());
    let sending = tokio::task::spawn_blocking(move || {
        // A few at a time, as a protocol that waits for its peer: answers bound what is queued.
        for sent in 0..count {
            sender.send(1, vec![sent as u8; MESSAGE])?;
            if sent % WINDOW == WINDOW - 1 {
                sender.recv(1, 0)?;
            }
        }
        sender.recv(1, 0).map(|_| sender)
    });
    let receiving = tokio::task::spawn_blocking(move || {
        for received in 0..count {
            receiver.recv(0, MESSAGE)?;
            if received % WINDOW == WINDOW / 2 {
                receiver.send(0, Vec::new())?;
            }
        }
        receiver.send(0, Vec::new()).map(|()| receiver)
    });
    let (sender, receiver) = tokio::join!(sending, receiving);
    let (cpu, wall) = (cpu_time()?.saturating_sub(cpu), wall.elapsed());
    for channel in [sender, receiver] {
        let _ = channel.map_err(failed)?.map_err(failed)?.finish();
    }
    first.mesh.close().await;
    second.mesh.close().await;
    Ok(figures("quic", count, cpu, wall))
}

/// Messages between two answers.
const WINDOW: usize = 16;

/// The same bytes in the same messages over TLS on TCP.
async fn tcp(count: usize) -> Result<Figures, Error> {
    let [first, second] = identities()?;
    let server = tls::server_tls(&second.certificate, &second.key, vec![first.certificate.clone()])?;
    let client = tls::client_tls(&first.certificate, &first.key, vec![second.certificate.clone()])?;
    let listener = TcpListener::bind(LOOPBACK).await.map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    let accepting = async {
        let (stream, _) = listener.accept().await?;
        tokio_rustls::TlsAcceptor::from(Arc::new(server)).accept(stream).await
    };
    let dialling = async {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let name = rustls::pki_types::ServerName::IpAddress(Ipv4Addr::LOCALHOST.into());
        tokio_rustls::TlsConnector::from(Arc::new(client)).connect(name, stream).await
    };
    let (receiver, sender) = tokio::try_join!(accepting, dialling).map_err(failed)?;
    let (mut receiver, mut sender) = (receiver, sender);

    let (cpu, wall) = (cpu_time()?, Instant::now());
    let sending = tokio::spawn(async move {
        for sent in 0..count {
            sender.write_all(&vec![sent as u8; MESSAGE]).await?;
        }
        sender.flush().await?;
        sender.read_u8().await
    });
    let receiving = tokio::spawn(async move {
        for _ in 0..count {
            let mut message = vec![0; MESSAGE];
            receiver.read_exact(&mut message).await?;
        }
        receiver.write_u8(1).await?;
        receiver.flush().await
    });
    let (sent, received) = tokio::try_join!(sending, receiving).map_err(failed)?;
    sent.map_err(failed)?;
    received.map_err(failed)?;
    Ok(figures("tcp", count, cpu_time()?.saturating_sub(cpu), wall.elapsed()))
}
