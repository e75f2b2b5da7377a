//! The page over HTTP/1.1.

use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper::header::{self, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::json;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};

use super::Agent;

/// What a request that does something must have.
const HEADER: &str = "x-seco-demo";
/// Connections at the same time.
const MAX_CONNECTIONS: usize = 32;
/// Time for a request's head, and for its body.
const TRANSFER: Duration = Duration::from_secs(10);
/// Time for a whole exchange: more than for any answer, so that who asks and never reads does not keep a place.
const EXCHANGE: Duration = Duration::from_secs(90);
/// Pause where the system could not make a connection.
const PAUSE: Duration = Duration::from_millis(100);

/// Everything is this page's own, and no other page may show it.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; \
                      frame-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'self'";
/// A report has its style in itself, has no script, and loads nothing.
const REPORT_POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; \
                             form-action 'none'; frame-ancestors 'self'";

const HTML: &str = "text/html; charset=utf-8";
const JSON: &str = "application/json";

/// A page: status, type, content.
type Page = (StatusCode, &'static str, Vec<u8>);

/// Answers for ever.
pub(super) async fn serve(listener: TcpListener, agent: Arc<Agent>) {
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        match listener.accept().await {
            // Dropped where there is no place.
            Ok((stream, _)) => {
                if let Ok(place) = places.clone().try_acquire_owned() {
                    let agent = agent.clone();
                    tokio::spawn(async move {
                        connection(agent, stream).await;
                        drop(place);
                    });
                }
            }
            Err(_) => sleep(PAUSE).await,
        }
    }
}

async fn connection(agent: Arc<Agent>, stream: TcpStream) {
    let service = service_fn(move |request| {
        let agent = agent.clone();
        async move {
            let report = request.uri().path() == "/report";
            let (status, kind, body) = answer(&agent, request).await;
            let mut response = Response::new(Full::new(Bytes::from(body)));
            *response.status_mut() = status;
            let headers = response.headers_mut();
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
            headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
            headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
            let policy = if report { REPORT_POLICY } else { POLICY };
            headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(policy));
            Ok::<_, Infallible>(response)
        }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(TRANSFER)
        // One exchange on each, so that the limit is an exchange's.
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service);
    // Whoever sends nonsense or leaves is nobody's concern.
    let _ = timeout(EXCHANGE, connection).await;
}

async fn answer(agent: &Agent, request: Request<Incoming>) -> Page {
    let host = request.headers().get(header::HOST).and_then(|host| host.to_str().ok());
    if !host.is_some_and(is_this_machine) {
        return text(StatusCode::FORBIDDEN, "this page is for this machine, under its own address");
    }
    let path = request.uri().path().to_owned();
    match (request.method(), path.as_str()) {
        (&Method::GET, "/") => (StatusCode::OK, HTML, include_bytes!("page.html").to_vec()),
        (&Method::GET, "/page.css") => {
            (StatusCode::OK, "text/css; charset=utf-8", include_bytes!("page.css").to_vec())
        }
        (&Method::GET, "/page.js") => {
            (StatusCode::OK, "text/javascript; charset=utf-8", include_bytes!("page.js").to_vec())
        }
        (&Method::GET, "/model") => model(agent),
        (&Method::GET, "/live") => json_page(&agent.live()),
        (&Method::GET, "/report") => report(agent.report.as_deref()).await,
        (&Method::POST, "/predict") if !request.headers().contains_key(HEADER) => {
            text(StatusCode::FORBIDDEN, "the header x-seco-demo is missing")
        }
        (&Method::POST, "/predict") => predict(agent, request).await,
        (_, "/" | "/page.css" | "/page.js" | "/model" | "/live" | "/report" | "/predict") => {
            text(StatusCode::METHOD_NOT_ALLOWED, "not that way")
        }
        _ => text(StatusCode::NOT_FOUND, "there is no such page"),
    }
}

/// Whether a host's name is that of this machine and not one that was made to lead here.
fn is_this_machine(host: &str) -> bool {
    let of = |address: Result<IpAddr, _>| address.is_ok_and(|address: IpAddr| address.is_loopback());
    let numeric = host.parse::<SocketAddr>().map(|address| address.ip());
    numeric.is_ok_and(|ip| ip.is_loopback())
        || of(host.trim_matches(['[', ']']).parse())
        || host.split(':').next() == Some("localhost")
}

/// What the page has to know before anything is drawn.
fn model(agent: &Agent) -> Page {
    let picture = &agent.picture;
    let samples: Vec<_> =
        picture.samples.iter().map(|(label, values)| json!({ "label": label, "values": values })).collect();
    json_page(&json!({
        "title": picture.title, "shape": picture.sides, "ink": picture.ink, "samples": samples, "plain": agent.plain,
        "report": agent.report.is_some(),
    }))
}

async fn predict(agent: &Agent, request: Request<Incoming>) -> Page {
    let expected = agent.client.model().input_len;
    let body = timeout(TRANSFER, Limited::new(request.into_body(), expected).collect()).await;
    let input = match body.map(|body| body.map(|body| body.to_bytes())) {
        Ok(Ok(input)) if input.len() == expected => input,
        _ => return text(StatusCode::BAD_REQUEST, &format!("the body must be {expected} bytes")),
    };
    match agent.predict(&input).await {
        Ok(told) => json_page(&told),
        Err(why) => text(StatusCode::BAD_GATEWAY, &why),
    }
}

async fn report(folder: Option<&Path>) -> Page {
    let Some(folder) = folder else {
        return text(StatusCode::NOT_FOUND, "there is no report: make one with seco bench paper");
    };
    match tokio::fs::read(folder.join("index.html")).await {
        Ok(page) => (StatusCode::OK, HTML, page),
        Err(error) => text(StatusCode::NOT_FOUND, &format!("{}: {error}", folder.display())),
    }
}

fn json_page(value: &impl serde::Serialize) -> Page {
    match serde_json::to_vec(value) {
        Ok(body) => (StatusCode::OK, JSON, body),
        Err(_) => text(StatusCode::INTERNAL_SERVER_ERROR, "cannot be told"),
    }
}

fn text(status: StatusCode, what: &str) -> Page {
    (status, "text/plain; charset=utf-8", format!("{what}\n").into_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_this_machines_own_names_are_taken() {
        for host in ["127.0.0.1", "127.0.0.1:8080", "[::1]:80", "[::1]", "localhost", "localhost:9"] {
            assert!(is_this_machine(host), "{host}");
        }
        for host in
            ["example.org", "127.0.0.1.example.org", "192.0.2.1:80", "localhost.example.org:80", "", ":80"]
        {
            assert!(!is_this_machine(host), "{host}");
        }
    }
}
