//! `seco admin`: asks a running server's admin port, and gives it orders.

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Bytes;
use hyper::header::HOST;
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use seco_node::Config;
use seco_node::config::{self, Pool};
use seco_node::operation::admin::{HEADER, LONGEST, Removed};
use seco_node::operation::status::{Bundles, Model, Status};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

use crate::{Error, terminal};

/// Time for an answer that needs no waiting.
const SHORT: Duration = Duration::from_secs(10);
/// Time to take stock: what the server takes at most, and its answer.
const LONG: Duration = LONGEST.saturating_add(SHORT);
/// Time for a server to drain. What is still under way then ends with [limits] infer_s or not at all.
const DRAIN: Duration = Duration::from_secs(900);
/// Longest answer.
const MAX_BODY: usize = 1 << 20;
/// Pause between two looks whether a server has ended.
const PAUSE: Duration = Duration::from_millis(200);

/// What `seco admin` is asked for.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// The server's settings, whose [admin] listen says where to ask.
    #[arg(long, value_name = "FILE", required_unless_present = "address")]
    config: Option<PathBuf>,
    /// Where to ask instead: the server's [admin] listen.
    #[arg(long, value_name = "IP:PORT", conflicts_with = "config")]
    address: Option<SocketAddr>,
    /// Prints JSON.
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    order: Order,
}

#[derive(Clone, Debug, clap::Subcommand)]
enum Order {
    /// What the server is doing.
    Status,
    /// Its bundles.
    Pool,
    /// Its devices: how many, and nothing about any of them.
    Sessions,
    /// Its models; or add and remove some while it runs.
    Models {
        #[command(subcommand)]
        change: Option<Change>,
    },
    /// Take no new requests, finish those under way, and end.
    Drain,
    /// Compare the servers' bundles and destroy what not all of them have (ask the gateway).
    Collect,
    /// Show what the log has, or change it until the server ends.
    Log {
        /// Such as warn, or info,seco_node=debug.
        filter: Option<String>,
    },
}

#[derive(Clone, Debug, clap::Subcommand)]
enum Change {
    /// Serve another model, once the other servers have their parts too.
    Add {
        /// This server's part of it, from `seco split`.
        part: PathBuf,
        /// What people call it.
        #[arg(long)]
        name: Option<String>,
        /// Bundles kept ready (the gateway's number counts).
        #[arg(long, value_name = "SIZE")]
        pool: Option<usize>,
        /// Bundles of the model with the highest are made first (the gateway's number counts).
        #[arg(long, value_name = "NUMBER")]
        priority: Option<u8>,
    },
    /// Serve a model no longer: finish the requests under way for it, and destroy its bundles.
    Remove {
        /// Its name, or the start of its id.
        model: String,
    },
}

/// Does it and prints the answer.
pub fn run(options: &Options) -> Result<(), Error> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let text = runtime.map_err(|_| Error::no_runtime())?.block_on(order(options))?;
    terminal::print(&text);
    Ok(())
}

async fn order(options: &Options) -> Result<String, Error> {
    let address = match (&options.config, options.address) {
        (_, Some(address)) => address,
        (Some(config), None) => configured(&Config::load(config)?).ok_or_else(|| {
            let shown = config.display();
            Error::Usage(format!("{shown}: has no admin port: give it an [admin] listen, and start it again"))
        })?,
        (None, None) => return Err(Error::Usage("give --config or --address".to_owned())),
    };
    let json = options.json;
    let told = |key: &str, value: &str| match json {
        true => serde_json::json!({ key: value.trim() }).to_string(),
        false => value.trim().to_owned(),
    };
    match &options.order {
        Order::Status => part(address, json, "", all).await,
        Order::Pool => part(address, json, "/pool /bundles", pool).await,
        Order::Sessions => part(address, json, "/sessions", sessions).await,
        Order::Log { filter: None } => Ok(told("filter", &ask(address, Method::GET, "/log", "").await?)),
        Order::Log { filter: Some(filter) } => {
            Ok(told("filter", &ask(address, Method::PUT, "/log", filter).await?))
        }
        Order::Models { change: None } => {
            let text = ask(address, Method::GET, "/models", "").await?;
            let models: Vec<Model> = serde_json::from_str(&text).map_err(|_| odd(address))?;
            Ok(if json { text } else { list(&models) })
        }
        Order::Models { change: Some(Change::Add { part, name, pool, priority }) } => {
            let part =
                std::path::absolute(part).map_err(|e| Error::Usage(format!("{}: {e}", part.display())))?;
            let usual = Pool::default();
            let (size, priority) = (pool.unwrap_or(usual.size), priority.unwrap_or(usual.priority));
            let pool = Pool { size, low: size.saturating_mul(usual.low) / usual.size, priority, ..usual };
            let model = config::Model { part, name: name.clone(), pool };
            let body = serde_json::to_string(&model).map_err(|e| Error::Failed(e.to_string()))?;
            let text = ask(address, Method::POST, "/models/add", &body).await?;
            let added: Model = serde_json::from_str(&text).map_err(|_| odd(address))?;
            let lines = model.to_settings().map_err(Error::Failed)?;
            Ok(if json { text } else { told_added(&added, &lines) })
        }
        Order::Models { change: Some(Change::Remove { model }) } => {
            let text = ask(address, Method::POST, "/models/remove", model).await?;
            let removed: Removed = serde_json::from_str(&text).map_err(|_| odd(address))?;
            Ok(if json { text } else { told_removed(&removed) })
        }
        Order::Collect => {
            let answer = ask(address, Method::POST, "/collect", "").await?;
            let value: serde_json::Value = serde_json::from_str(&answer).map_err(|_| odd(address))?;
            Ok(if json {
                answer
            } else {
                format!("bundles: {} kept, {} destroyed here", value["kept"], value["destroyed"])
            })
        }
        Order::Drain => {
            let under_way = ask(address, Method::POST, "/drain", "").await?;
            if !json {
                terminal::note(&format!("no new requests are taken; {} are under way", under_way.trim()));
            }
            let seconds = ended(address).await?.as_secs_f64();
            Ok(match json {
                true => serde_json::json!({ "server": "ended", "seconds": seconds }).to_string(),
                false => format!("ended after {seconds:.1} s"),
            })
        }
    }
}

/// Waits until a server that drains has ended; gives how long that took.
async fn ended(address: SocketAddr) -> Result<Duration, Error> {
    let start = Instant::now();
    // The port closes when the server ends.
    while let Ok(Ok(_)) = timeout(SHORT, TcpStream::connect(address)).await {
        // Whoever is there and does not drain was started since.
        let status = status(address).await.ok();
        if status.as_ref().is_some_and(|status| !status.draining) {
            break;
        }
        if start.elapsed() > DRAIN {
            let under_way = status.map_or(0, |status| status.under_way);
            return Err(Error::Failed(format!(
                "{address}: it has not ended in {} s, and {under_way} requests are under way: see its log, or send it \
                 SIGTERM to end it at once",
                DRAIN.as_secs()
            )));
        }
        sleep(PAUSE).await;
    }
    Ok(start.elapsed())
}

/// Where a server's admin port is reached from its own machine.
pub fn configured(config: &Config) -> Option<SocketAddr> {
    let mut address = config.admin?.listen;
    match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => address.set_ip(Ipv4Addr::LOCALHOST.into()),
        IpAddr::V6(ip) if ip.is_unspecified() => address.set_ip(Ipv6Addr::LOCALHOST.into()),
        _ => {}
    }
    Some(address)
}

/// What a server is doing.
pub async fn status(address: SocketAddr) -> Result<Status, Error> {
    let text = ask(address, Method::GET, "/status", "").await?;
    serde_json::from_str(&text).map_err(|_| odd(address))
}

/// Shows the status, or these parts of it.
async fn part(
    address: SocketAddr,
    json: bool,
    parts: &str,
    show: impl Fn(&Status) -> String,
) -> Result<String, Error> {
    if !json {
        return Ok(show(&status(address).await?).trim_end().to_owned());
    }
    let text = ask(address, Method::GET, "/status", "").await?;
    let value: serde_json::Value = serde_json::from_str(&text).map_err(|_| odd(address))?;
    if parts.is_empty() {
        return Ok(value.to_string());
    }
    let chosen = parts.split(' ').map(|part| {
        let name = part.trim_start_matches('/').to_owned();
        (name, value.pointer(part).cloned().unwrap_or_default())
    });
    Ok(serde_json::Value::Object(chosen.collect()).to_string())
}

fn all(status: &Status) -> String {
    let Status { name, index, version, models, seconds, .. } = status;
    let role = if *index == 0 { "gateway" } else { "remote" };
    let titles: Vec<String> = models.iter().map(Model::title).collect();
    let (some, titles) = (if models.len() == 1 { "model" } else { "models" }, titles.join(", "));
    let mut text =
        format!("{name}: server {index}, {role}, seco {version}, {some} {titles}, up {seconds} s\n");
    if status.reasons.is_empty() {
        text.push_str("ready\n");
    }
    for reason in &status.reasons {
        let _ = writeln!(text, "not ready: {reason}");
    }
    if models.len() > 1 {
        text.push_str(&list(models));
        text.push('\n');
    }
    let _ = writeln!(text, "requests    {} under way, {} jobs", status.under_way, status.jobs);
    for peer in &status.peers {
        let there = if peer.connected { "connected" } else { "not connected" };
        let (sent, received) = (size(peer.sent_bytes), size(peer.received_bytes));
        let _ = writeln!(
            text,
            "server {}    {}: {there}, {sent} sent, {received} received",
            peer.index, peer.name
        );
    }
    let _ = write!(text, "{}{}", pool(status), sessions(status));
    let _ = writeln!(text, "ledger      {} entries", status.ledger_entries);
    if let Some(filter) = &status.log_filter {
        let _ = writeln!(text, "log         {filter}");
    }
    text
}

/// Models, a line each.
fn list(models: &[Model]) -> String {
    let line = |model: &Model| {
        let Bundles { stored, made, spent, discarded, .. } = model.bundles;
        let ready = match &model.pool {
            Some(pool) => format!("{} of {} ready", pool.ready, pool.target),
            None => format!("{stored} stored"),
        };
        let state = if model.reasons.is_empty() { "served".to_owned() } else { model.reasons.join("; ") };
        let bundles = format!("{ready}, {made} made, {spent} spent, {discarded} destroyed unused");
        format!("model       {}: {bundles}; {state}", model.title())
    };
    models.iter().map(line).collect::<Vec<_>>().join("\n")
}

fn told_added(model: &Model, settings: &str) -> String {
    let mut text = format!("model {} was added (id {})\n", model.title(), model.id);
    for reason in &model.reasons {
        let _ = writeln!(text, "not served yet: {reason}");
    }
    let _ = write!(text, "a restart keeps it if these lines are in the settings:\n\n{}", settings.trim_end());
    text
}

fn told_removed(removed: &Removed) -> String {
    let Removed { model, destroyed, settings } = removed;
    let after = match settings {
        true => "; take it out of the settings, or the next start serves it again",
        false => "",
    };
    format!("model {model} was removed, {destroyed} bundles of it destroyed here{after}")
}

fn pool(status: &Status) -> String {
    let mut text = String::new();
    if let Some(pool) = &status.pool {
        let making = if pool.making { "" } else { ", no more can be made now" };
        let _ = writeln!(
            text,
            "pool        {} of {} ready (more from {} on){making}; {} of at most {} requests wait",
            pool.ready, pool.target, pool.low, pool.queue, pool.queue_limit
        );
    }
    let bundles = &status.bundles;
    let _ = writeln!(
        text,
        "bundles     {} stored, {}; {} made, {} spent, {} destroyed unused since the start",
        bundles.stored,
        size(bundles.disk_bytes),
        bundles.made,
        bundles.spent,
        bundles.discarded
    );
    if let Some(free) = bundles.free_bytes {
        let _ = writeln!(text, "disk        {} free", size(free));
    }
    text
}

fn sessions(status: &Status) -> String {
    let sessions = &status.sessions;
    let mut text = format!("sessions    {} of at most {}\n", sessions.remembered, sessions.limit);
    if status.index == 0 {
        let _ = writeln!(text, "connections {} QUIC, {} TCP", sessions.quic, sessions.tcp);
    }
    text
}

/// Bytes for people.
pub fn size(bytes: u64) -> String {
    let mut value = bytes as f64;
    for unit in ["B", "kB", "MB", "GB"] {
        if value < 1000.0 {
            return if unit == "B" { format!("{bytes} B") } else { format!("{value:.1} {unit}") };
        }
        value /= 1000.0;
    }
    format!("{value:.1} TB")
}

fn odd(address: SocketAddr) -> Error {
    Error::Failed(format!(
        "{address}: what answers there is not this release's admin port: correct the address"
    ))
}

/// A server's metrics, as Prometheus would read them.
pub async fn metrics(address: SocketAddr) -> Result<String, Error> {
    ask(address, Method::GET, "/metrics", "").await
}

/// One request and its answer.
async fn ask(address: SocketAddr, method: Method, path: &str, body: &str) -> Result<String, Error> {
    let limit = if path == "/collect" || path.starts_with("/models/") { LONG } else { SHORT };
    let unreached = |why: String| {
        Error::Failed(format!(
            "{address}: {why}: is the server running, with [admin] listen at this address?"
        ))
    };
    let exchange = async {
        let stream = TcpStream::connect(address).await.map_err(|e| unreached(e.to_string()))?;
        let broken = |e: hyper::Error| unreached(e.to_string());
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
        let connection = tokio::spawn(connection);
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(HOST, address.to_string())
            .header(HEADER, "1")
            .body(Full::new(Bytes::from(body.to_owned())))
            .map_err(|e| Error::Failed(e.to_string()))?;
        let response = sender.send_request(request).await.map_err(broken)?;
        let code = response.status();
        let body = Limited::new(response.into_body(), MAX_BODY).collect().await;
        let body = body.map_err(|_| odd(address))?.to_bytes();
        connection.abort();
        Ok::<_, Error>((code, String::from_utf8_lossy(&body).into_owned()))
    };
    let answer = timeout(limit, exchange).await;
    let (code, text) = answer.map_err(|_| unreached(format!("no answer in {} s", limit.as_secs())))??;
    match code {
        StatusCode::OK | StatusCode::ACCEPTED => Ok(text),
        StatusCode::NOT_FOUND if path != "/log" => Err(odd(address)),
        _ => Err(Error::Failed(format!("{address}: {}", text.trim()))),
    }
}
