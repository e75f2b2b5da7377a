//! The admin port: health, readiness, metrics and a few orders over HTTP/1.1, for those who run the server.
//!
//! Without encryption or passwords: it listens on this machine alone unless the settings say otherwise, and even then
//! whatever changes something is taken from this machine only, with a header that a web page cannot send there.
//! Nothing that it tells is about one session, device or user.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HOST, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde::{Deserialize, Serialize};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};
use tracing::info;

use super::log::Log;
use super::status::{Bundles, Model, Peer, Pool, Sessions, Status};
use crate::node::Node;
use crate::service::Service;
use crate::service::models::{Models, Served};
use crate::{Error, config};

/// The header that every request which changes something must have. A web page elsewhere cannot send it to another
/// origin without being allowed to, which is never answered.
pub const HEADER: &str = "x-seco-admin";

/// Connections at the same time.
const MAX_CONNECTIONS: usize = 32;
/// Time for a request's head, and for its body.
const TRANSFER: Duration = Duration::from_secs(10);
/// Time for an answer: taking stock waits for a bundle, and removing a model for its requests.
pub const LONGEST: Duration = Duration::from_secs(900);
/// Longest body: a filter, or a model's path.
const MAX_BODY: usize = 4096;
/// Pause where the system could not make a connection.
const PAUSE: Duration = Duration::from_millis(100);

const TEXT: &str = "text/plain; charset=utf-8";
const JSON: &str = "application/json";
const METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// What the port answers from.
pub(crate) struct Admin {
    node: Arc<Node>,
    models: Arc<Models>,
    name: String,
    log: Option<Log>,
    started: Instant,
}

type Page = (StatusCode, &'static str, String);

impl Admin {
    pub fn new(node: Arc<Node>, models: Arc<Models>, name: &str, log: Option<Log>) -> Arc<Self> {
        let name = name.to_owned();
        Arc::new(Self { node, models, name, log, started: Instant::now() })
    }

    /// Opens the port.
    pub async fn bind(address: SocketAddr) -> Result<TcpListener, Error> {
        TcpListener::bind(address).await.map_err(|e| Error::bind("TCP", address, e))
    }

    /// Answers for ever.
    pub async fn serve(self: Arc<Self>, listener: TcpListener) {
        let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        loop {
            match listener.accept().await {
                // Dropped where there is no place.
                Ok((stream, from)) => {
                    if let Ok(place) = places.clone().try_acquire_owned() {
                        let admin = self.clone();
                        tokio::spawn(async move {
                            let _ = timeout(LONGEST + 2 * TRANSFER, admin.connection(stream, from)).await;
                            drop(place);
                        });
                    }
                }
                Err(_) => sleep(PAUSE).await,
            }
        }
    }

    async fn connection(self: Arc<Self>, stream: TcpStream, from: SocketAddr) {
        let local = from.ip().to_canonical().is_loopback();
        let service = service_fn(move |request| {
            let admin = self.clone();
            async move {
                let (status, kind, text) = admin.answer(request, local).await;
                let mut response = Response::new(Full::new(Bytes::from(text)));
                *response.status_mut() = status;
                response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
                Ok::<_, Infallible>(response)
            }
        });
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(TRANSFER)
            .keep_alive(false)
            .serve_connection(TokioIo::new(stream), service);
        // Whoever sends nonsense or leaves is nobody's concern.
        let _ = connection.await;
    }

    async fn answer(self: &Arc<Self>, request: Request<Incoming>, local: bool) -> Page {
        let path = request.uri().path().to_owned();
        let allowed: &[Method] = match path.as_str() {
            "/healthz" | "/readyz" | "/metrics" | "/status" | "/models" => &[Method::GET],
            "/log" => &[Method::GET, Method::PUT],
            "/drain" | "/collect" | "/models/add" | "/models/remove" => &[Method::POST],
            _ => return (StatusCode::NOT_FOUND, TEXT, "there is no such page\n".to_owned()),
        };
        let method = request.method().clone();
        if !allowed.contains(&method) {
            let what = format!("{path} takes {allowed:?} only\n");
            return (StatusCode::METHOD_NOT_ALLOWED, TEXT, what);
        }
        if method != Method::GET
            && let Err(why) = may_change(&request, local)
        {
            return (StatusCode::FORBIDDEN, TEXT, format!("{why}\n"));
        }
        match path.as_str() {
            "/healthz" => self.health().await,
            "/readyz" => self.readiness().await,
            "/metrics" => self.metrics().await,
            "/status" => match self.status().await.map(|status| serde_json::to_string(&status)) {
                Some(Ok(text)) => (StatusCode::OK, JSON, text),
                _ => failed(),
            },
            "/models" => match self.status().await.map(|status| serde_json::to_string(&status.models)) {
                Some(Ok(text)) => (StatusCode::OK, JSON, text),
                _ => failed(),
            },
            "/models/add" => self.add(request).await,
            "/models/remove" => self.remove(request).await,
            "/log" if method == Method::GET => match &self.log {
                Some(log) => (StatusCode::OK, TEXT, format!("{}\n", log.filter())),
                None => no_filter(),
            },
            "/log" => self.set_filter(request).await,
            "/drain" => {
                self.node.drain.begin();
                (StatusCode::ACCEPTED, TEXT, format!("{}\n", self.node.drain.under_way()))
            }
            _ => self.collect().await,
        }
    }

    async fn health(&self) -> Page {
        let ledger = self.node.ledgers.own().clone();
        match tokio::task::spawn_blocking(move || ledger.check_place()).await {
            Ok(Ok(())) => (StatusCode::OK, TEXT, "ok\n".to_owned()),
            Ok(Err(error)) => (StatusCode::SERVICE_UNAVAILABLE, TEXT, format!("{error}\n")),
            Err(_) => failed(),
        }
    }

    async fn readiness(&self) -> Page {
        let served = self.models.list();
        let reasons = self.reasons(&served);
        let lines =
            |reasons: Vec<String>| reasons.iter().map(|reason| format!("{reason}\n")).collect::<String>();
        if reasons.is_empty() {
            // One that is not served keeps devices of the others from nothing.
            return (StatusCode::OK, TEXT, format!("ready\n{}", lines(of_models(&served))));
        }
        (StatusCode::SERVICE_UNAVAILABLE, TEXT, lines(reasons))
    }

    async fn metrics(self: &Arc<Self>) -> Page {
        let status = self.status().await;
        match status.map(|status| self.node.metrics.text(&status)) {
            Some(Ok(text)) => (StatusCode::OK, METRICS, text),
            _ => failed(),
        }
    }

    async fn set_filter(&self, request: Request<Incoming>) -> Page {
        let Some(log) = &self.log else { return no_filter() };
        let Some(text) = body(request).await.filter(|text| !text.trim().is_empty()) else {
            return bad(format!("the body must be a filter of at most {MAX_BODY} bytes"));
        };
        match log.set_filter(text.trim()) {
            Ok(()) => {
                info!(filter = log.filter(), "the log's filter was changed");
                (StatusCode::OK, TEXT, format!("{}\n", log.filter()))
            }
            Err(what) => bad(what),
        }
    }

    async fn collect(&self) -> Page {
        if self.node.me() != 0 {
            return conflict("only the gateway takes stock: ask it");
        }
        if self.node.mesh.missing().is_some() {
            return conflict("not all servers are connected");
        }
        // What has begun is ended, also if whoever asked has left.
        let models = self.models.clone();
        let work = tokio::spawn(async move {
            let (mut kept, mut destroyed) = (0, 0);
            // Those that not all servers have are not in stock.
            for model in models.coordinators().iter().filter(|model| model.lacking().is_none()) {
                destroyed += model.collect().await?;
                kept += model.service.store.len();
            }
            Ok::<_, String>((kept, destroyed))
        });
        match timeout(LONGEST, work).await {
            Ok(Ok(Ok((kept, destroyed)))) => (
                StatusCode::OK,
                JSON,
                serde_json::json!({ "kept": kept, "destroyed": destroyed }).to_string(),
            ),
            Ok(Ok(Err(why))) => conflict(&why),
            Ok(Err(_)) => failed(),
            Err(_) => {
                conflict("it still waits for a bundle that is being made, and takes stock then: see the log")
            }
        }
    }

    async fn add(&self, request: Request<Incoming>) -> Page {
        let model = body(request).await.and_then(|text| serde_json::from_str::<config::Model>(&text).ok());
        let Some(model) = model else {
            return bad("the body must say part, and may say name and pool, in JSON".to_owned());
        };
        let checked = match model.part.is_absolute() {
            true => {
                model.name.as_deref().map_or(Ok(()), config::Model::check_name).and(model.pool.check("pool"))
            }
            false => Err("part must be a whole path: the server may run in another folder".to_owned()),
        };
        if let Err(why) = checked {
            return bad(why);
        }
        // What has begun is ended, also if whoever asked has left.
        let models = self.models.clone();
        match tokio::spawn(async move { models.add(model).await }).await {
            Ok(Ok(served)) => told(move || served.status()).await,
            Ok(Err(error)) => conflict(&error.to_string()),
            Err(_) => failed(),
        }
    }

    async fn remove(&self, request: Request<Incoming>) -> Page {
        let Some(name) = body(request).await.filter(|name| !name.trim().is_empty()) else {
            return bad("the body must be the start of a model's id, or its name".to_owned());
        };
        let models = self.models.clone();
        match tokio::spawn(async move { models.remove(name.trim()).await }).await {
            Ok(Ok((destroyed, served))) => {
                let Service { part, .. } = &*served.service;
                let (model, settings) = (served.service.title(), self.models.in_settings(part));
                told(move || Removed { model, destroyed, settings }).await
            }
            Ok(Err(error)) => conflict(&error.to_string()),
            Err(_) => failed(),
        }
    }

    /// Why no requests would be served now.
    fn reasons(&self, served: &[Arc<Served>]) -> Vec<String> {
        let mesh = &self.node.mesh;
        let mut reasons: Vec<String> = (0..mesh.servers())
            .filter(|&peer| peer != mesh.me() && !mesh.is_connected(peer))
            .map(|peer| format!("server {peer} ({}) is not connected", mesh.name(peer)))
            .collect();
        if self.node.drain.has_begun() {
            reasons.push("it drains: no new requests are taken, and it ends soon".to_owned());
        }
        if reasons.is_empty() && served.iter().all(|served| !served.reasons().is_empty()) {
            reasons = match served {
                // The only one needs no name.
                [only] => only.reasons(),
                all => of_models(all),
            };
        }
        reasons
    }

    /// Off the runtime's threads, for a disk may take its time.
    async fn status(self: &Arc<Self>) -> Option<Status> {
        let admin = self.clone();
        tokio::task::spawn_blocking(move || admin.status_now()).await.ok()
    }

    fn status_now(&self) -> Status {
        let Node { mesh, metrics, drain, .. } = &*self.node;
        let peers = (0..mesh.servers()).filter(|&peer| peer != mesh.me()).map(|index| {
            let (sent_bytes, received_bytes) = mesh.bytes(index);
            let connected = mesh.is_connected(index);
            Peer { index, name: mesh.name(index).to_owned(), connected, sent_bytes, received_bytes }
        });
        let served = self.models.list();
        let models: Vec<Model> = served.iter().map(|served| served.status()).collect();
        let sessions = Sessions {
            remembered: served.iter().map(|served| served.service.sessions().len()).sum(),
            limit: self.node.limits.sessions * served.len(),
            quic: metrics.connections(false),
            tcp: metrics.connections(true),
        };
        Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            name: self.name.clone(),
            index: mesh.me(),
            seconds: self.started.elapsed().as_secs(),
            reasons: self.reasons(&served),
            draining: drain.has_begun(),
            under_way: drain.under_way(),
            peers: peers.collect(),
            pool: models.iter().filter_map(|model| model.pool.clone()).reduce(Pool::and),
            bundles: models.iter().fold(Bundles::default(), |sum, model| sum.and(&model.bundles)),
            models,
            sessions,
            jobs: self.node.jobs.running(),
            ledger_entries: self.node.ledgers.own().entries(),
            log_filter: self.log.as_ref().map(Log::filter),
        }
    }
}

/// What was removed.
#[derive(Debug, Serialize, Deserialize)]
pub struct Removed {
    /// Start of the model's id, and its name.
    pub model: String,
    /// Bundles that were destroyed here.
    pub destroyed: usize,
    /// Whether the settings still name it, so that the next start would serve it again.
    pub settings: bool,
}

/// Why models are not served, while others are.
fn of_models(served: &[Arc<Served>]) -> Vec<String> {
    let lines = |served: &Arc<Served>| {
        let title = served.service.title();
        served.reasons().into_iter().map(move |reason| format!("model {title}: {reason}"))
    };
    served.iter().flat_map(lines).collect()
}

/// A request's body.
async fn body(request: Request<Incoming>) -> Option<String> {
    let body = timeout(TRANSFER, Limited::new(request.into_body(), MAX_BODY).collect()).await.ok()?.ok()?;
    String::from_utf8(body.to_bytes().to_vec()).ok()
}

/// A page of JSON, made off the runtime's threads.
async fn told<T: Serialize + Send + 'static>(value: impl FnOnce() -> T + Send + 'static) -> Page {
    let text = tokio::task::spawn_blocking(move || serde_json::to_string(&value())).await;
    match text {
        Ok(Ok(text)) => (StatusCode::OK, JSON, text),
        _ => failed(),
    }
}

fn bad(what: String) -> Page {
    (StatusCode::BAD_REQUEST, TEXT, format!("{what}\n"))
}

fn conflict(what: &str) -> Page {
    (StatusCode::CONFLICT, TEXT, format!("{what}\n"))
}

/// Whether a request that changes something comes from who may.
fn may_change(request: &Request<Incoming>, local: bool) -> Result<(), &'static str> {
    if !local {
        return Err("changes are taken from this machine only: run seco admin there");
    }
    if !request.headers().contains_key(HEADER) {
        return Err("changes need the header x-seco-admin: use seco admin");
    }
    // A page whose own name was made to lead here is of another host.
    let host = request.headers().get(HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    let numeric = host.parse::<SocketAddr>().is_ok() || host.parse::<std::net::IpAddr>().is_ok();
    if !numeric && host.split(':').next() != Some("localhost") {
        return Err("changes must be sent to the port's address, not to a host name");
    }
    Ok(())
}

fn failed() -> Page {
    (StatusCode::INTERNAL_SERVER_ERROR, TEXT, "the server cannot tell\n".to_owned())
}

fn no_filter() -> Page {
    (StatusCode::NOT_FOUND, TEXT, "this process has no filter that can be changed\n".to_owned())
}
