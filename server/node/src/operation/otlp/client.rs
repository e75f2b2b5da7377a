//! The collector, over HTTP/1.1.

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::header::{CONTENT_TYPE, HOST};
use hyper::{Method, Request as HttpRequest, StatusCode};
use hyper_util::rt::TokioIo;
use prost::Message as _;
use serde::{Deserialize, Serialize};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::message::{Answer, Request};

/// Where a collector takes spans.
const PATH: &str = "/v1/traces";
const PROTOBUF: &str = "application/x-protobuf";
/// Longest answer that is read.
const MAX_BODY: usize = 1 << 16;
/// For the body of an answer that says that spans were taken.
const BODY: Duration = Duration::from_secs(1);

/// An OpenTelemetry collector on this machine: `http://127.0.0.1:PORT`. What it is told is not encrypted on the way, so
/// that no other machine's is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Collector(SocketAddr);

impl TryFrom<String> for Collector {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let address = text.strip_prefix("http://").map(|rest| rest.strip_suffix('/').unwrap_or(rest));
        match address.and_then(|address| address.parse::<SocketAddr>().ok()) {
            Some(address) if address.ip().to_canonical().is_loopback() && address.port() != 0 => {
                Ok(Self(address))
            }
            _ => Err(format!(
                "otlp = {text:?} is not http://127.0.0.1:PORT or http://[::1]:PORT: a collector on this machine takes \
                 spans over HTTP, and sends them on over TLS if that is wanted"
            )),
        }
    }
}

impl From<Collector> for String {
    fn from(collector: Collector) -> Self {
        collector.to_string()
    }
}

impl fmt::Display for Collector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "http://{}", self.0)
    }
}

/// Why spans were not taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Untaken {
    /// Which may be otherwise soon.
    Now(String),
    /// Which would be so again.
    Ever(String),
}

impl Collector {
    /// Sends spans; gives how many of them it took and does not want.
    ///
    /// # Errors
    /// Why it did not take them.
    pub(super) async fn post(self, request: &Request, limit: Duration) -> Result<u64, Untaken> {
        let (status, body) = match timeout(limit, self.exchange(request.encode_to_vec())).await {
            Ok(answer) => answer.map_err(Untaken::Now)?,
            Err(_) => return Err(Untaken::Now(format!("no answer in {limit:?}"))),
        };
        // By OTLP's table of what a client may send again; whatever the answer says besides, for a page of some proxy is
        // no reason to send the same for ever.
        match status {
            status if status.is_success() => {
                let rejected = Answer::decode(body).ok().and_then(|answer| answer.partial_success);
                Ok(rejected.map_or(0, |partial| u64::try_from(partial.rejected_spans).unwrap_or(0)))
            }
            StatusCode::TOO_MANY_REQUESTS
            | StatusCode::BAD_GATEWAY
            | StatusCode::SERVICE_UNAVAILABLE
            | StatusCode::GATEWAY_TIMEOUT => Err(Untaken::Now(format!("status {status}"))),
            _ => Err(Untaken::Ever(format!("status {status}"))),
        }
    }

    /// One request on a connection of its own, and the answer: its body where the collector took spans, if it is one
    /// that can be read.
    async fn exchange(self, body: Vec<u8>) -> Result<(StatusCode, Bytes), String> {
        let text = |error: hyper::Error| error.to_string();
        let stream = TcpStream::connect(self.0).await.map_err(|error| error.to_string())?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(text)?;
        // Ends with this future.
        let mut tasks = JoinSet::new();
        tasks.spawn(connection);
        let request = HttpRequest::builder()
            .method(Method::POST)
            .uri(PATH)
            .header(HOST, self.0.to_string())
            .header(CONTENT_TYPE, PROTOBUF)
            .body(Full::new(Bytes::from(body)))
            .map_err(|error| error.to_string())?;
        let response = sender.send_request(request).await.map_err(text)?;
        let status = response.status();
        if !status.is_success() {
            return Ok((status, Bytes::new()));
        }
        let body = timeout(BODY, Limited::new(response.into_body(), MAX_BODY).collect()).await;
        Ok((status, body.ok().and_then(Result::ok).map(|body| body.to_bytes()).unwrap_or_default()))
    }
}
