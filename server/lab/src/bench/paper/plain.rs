//! A request without privacy: one server, a process of its own, that has all weights in clear and sees the input. The
//! transport is the gateway's: QUIC with the SDK's settings at the user's end.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use quinn::crypto::rustls::QuicServerConfig;
use quinn::{Connection, Endpoint, ServerConfig, TransportConfig, VarInt};
use rustls::pki_types::PrivatePkcs8KeyDer;
use seco_core::pack;
use seco_model::{Executor, FixedLayer, FixedModel, Known, PartyModel};
use seco_node::keys;
use seco_tools::split::Split;
use serde::{Deserialize, Serialize};

use super::figures::{Cost, Network, Sample};
use super::models::Model;
use super::plan::Part;
use super::user::{self, Server};
use super::user_link;
use crate::Error;
use crate::bench::child::{self, Process, failed};
use crate::bench::watch::Usage;
use crate::relay::Relay;

/// Longest packed answer.
pub const MAX_ANSWER: usize = 1 << 20;
/// Longest input.
const MAX_INPUT: usize = 16 << 20;
/// The SDK's protocol name, which it insists on.
const ALPN: &[u8] = b"seco/1";

/// What an answer looks like.
#[derive(Clone, Copy, Serialize, Deserialize)]
pub struct Shape {
    /// Numbers in it.
    pub values: usize,
    /// Bits of each.
    pub width: u32,
}

/// What the server is to do.
#[derive(Serialize, Deserialize)]
struct Job {
    /// The part with all weights.
    model: PathBuf,
}

/// What it says.
#[derive(Serialize, Deserialize)]
struct Listening {
    address: SocketAddr,
    certificate: Vec<u8>,
}

/// One server, and a user on each network.
pub async fn measure(model: &Model, part: &Part, folder: &Path) -> Result<Vec<Sample>, Error> {
    let Split { architecture, files, .. } = model.deal_two_party(&folder.join("model"))?;
    let shape = Shape { values: architecture.graph.answer_len(), width: architecture.graph.answer_width() };
    let job = Job { model: files.first().cloned().unwrap_or_default() };
    let mut server: Process<Listening> =
        Process::start("the server".to_owned(), "paper-server", &job).await?;
    let Listening { address, certificate } = server.word().await?;
    let processes: Vec<u32> = server.id().into_iter().collect();
    let mut samples = Vec::new();
    for &network in &part.networks {
        let relay = match user_link(network) {
            Some(link) => {
                Some(Relay::start(address, link).await.map_err(|e| Error::bind("UDP", address, e))?)
            }
            None => None,
        };
        let address = relay.as_ref().map_or(address, Relay::address);
        let server = Server::Plain { address, certificate: certificate.clone(), shape };
        samples.push(one(model, part, network, server, shape, &processes).await?);
    }
    Ok(samples)
}

async fn one(
    model: &Model,
    part: &Part,
    network: Network,
    server: Server,
    shape: Shape,
    processes: &[u32],
) -> Result<Sample, Error> {
    let answer = pack::packed_len(shape.values, shape.width);
    let mut user = user::Asked::start(model, part.requests, 0, server, answer).await?;
    let before = Usage::of(processes);
    let asked = user.answers().await?;
    let after = Usage::of(processes);
    user.leave().await?;
    let requests = part.requests as f64;
    let cpu = |usage: &[Usage]| usage.first().and_then(|usage| usage.cpu);
    let server = Cost {
        online_cpu_s: cpu(&after).zip(cpu(&before)).map(|(after, before)| (after - before) / requests),
        online_bytes_up: asked.user.online_bytes_down,
        online_bytes_down: asked.user.online_bytes_up,
        peak_memory_bytes: after.first().and_then(|usage| usage.memory_peak).map(|bytes| bytes as f64),
        // There is nothing to prepare, and nothing to keep.
        preprocessing_cpu_s: Some(0.0),
        preprocessing_bytes_up: Some(0.0),
        preprocessing_bytes_down: Some(0.0),
        storage_bytes: Some(0.0),
        ..Cost::default()
    };
    Ok(Sample {
        network,
        user: asked.user,
        servers: vec![server],
        waiting_s: asked.waiting_s,
        preprocessing_s: Some(0.0),
        setup_s: Some(asked.setup_s),
        equal: asked.equal,
        count: asked.count,
        load_at_start: None,
    })
}

/// The server's process: until it is killed.
pub fn run() -> Result<(), Error> {
    let job: Job = child::job()?;
    let model = Arc::new(whole(&job.model)?);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    runtime.map_err(|_| Error::no_runtime())?.block_on(serve(model))
}

/// The whole network, from the part of a server that holds all of it.
fn whole(path: &Path) -> Result<FixedModel, Error> {
    let part: PartyModel = seco_node::service::part::read_part(path)?;
    let graph = part.architecture().graph.clone();
    let mut layers = Vec::new();
    for layer in graph.layers() {
        let held = part.layer(layer.index).ok_or_else(|| failed("the model", "it lacks a layer"))?;
        // Two's complement of the layer's width.
        let unused = u32::BITS - layer.width.clamp(1, u32::BITS);
        let signed = |&word: &u32| (word << unused).cast_signed() >> unused;
        layers.push(FixedLayer {
            weights: held.weights.iter().map(signed).collect(),
            bias: held.bias.iter().map(|word| signed(word).into()).collect(),
        });
    }
    Ok(FixedModel { graph, layers, known: Known::default() })
}

async fn serve(model: Arc<FixedModel>) -> Result<(), Error> {
    let what = "the server";
    let (certificate, key) = keys::self_signed().map_err(|e| failed(what, e))?;
    let certificate = certificate.der().clone();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let tls = rustls::ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|e| failed(what, e))?
        .with_no_client_auth()
        .with_single_cert(vec![certificate.clone()], PrivatePkcs8KeyDer::from(key.serialize_der()).into());
    let mut tls = tls.map_err(|e| failed(what, e))?;
    tls.alpn_protocols = vec![ALPN.to_vec()];
    let crypto = QuicServerConfig::try_from(tls).map_err(|e| failed(what, e))?;
    let mut config = ServerConfig::with_crypto(Arc::new(crypto));
    let mut transport = TransportConfig::default();
    // As the gateway's.
    transport
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        .datagram_receive_buffer_size(None)
        .mtu_discovery_config(None);
    config.transport_config(Arc::new(transport));
    let local = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let endpoint = Endpoint::server(config, local).map_err(|e| Error::bind("UDP", local, e))?;
    let address = endpoint.local_addr().map_err(|e| failed(what, e))?;
    child::say(&Listening { address, certificate: certificate.to_vec() });
    while let Some(incoming) = endpoint.accept().await {
        let model = model.clone();
        tokio::spawn(async move {
            // Whoever leaves, leaves.
            if let Ok(connection) = incoming.await {
                let _ = requests(&connection, &model).await;
            }
        });
    }
    Ok(())
}

/// Answers on every stream, one after the other.
async fn requests(connection: &Connection, model: &FixedModel) -> Result<(), Error> {
    let what = "a request";
    let executor = Executor::new(model).map_err(|e| failed(what, e))?;
    let width = model.graph.answer_width();
    loop {
        let (mut send, mut receive) = connection.accept_bi().await.map_err(|e| failed(what, e))?;
        let input = receive.read_to_end(MAX_INPUT).await.map_err(|e| failed(what, e))?;
        let logits = executor.run(&input).map_err(|e| failed(what, e))?.logits;
        let mask = u32::MAX >> (u32::BITS - width.clamp(1, u32::BITS));
        let words: Vec<u32> = logits.iter().map(|logit| logit.cast_unsigned() & mask).collect();
        let mut packed = vec![0; pack::packed_len(words.len(), width)];
        pack::pack(&words, width, &mut packed).map_err(|e| failed(what, e))?;
        send.write_all(&packed).await.map_err(|e| failed(what, e))?;
        send.finish().map_err(|e| failed(what, e))?;
    }
}
