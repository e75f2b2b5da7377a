//! A server's admin port, over HTTP and by `seco admin`.

use std::collections::HashMap;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use seco_node::operation::events::Event;
use seco_node::operation::status::Status;

use super::{LIMIT, Server, Site};

/// Starts a server; gives the addresses of its admin port and of its port for devices.
pub fn start(site: &mut Site, index: usize, arguments: &[&str]) -> (Server, SocketAddr, Option<SocketAddr>) {
    let mut server = Server::start(&site.write(&site.config(index)), arguments);
    let (mesh, device, admin) = server.wait("sockets", |event| match event {
        Event::Listening { mesh, device, admin, .. } => Some((mesh, device, admin)),
        _ => None,
    });
    site.listens(index, mesh);
    (server, admin.unwrap(), device)
}

/// Starts all servers with their admin ports, the last first; gives them in order, with their ports.
pub fn start_all(site: &mut Site, arguments: &[&str]) -> (Vec<Server>, Vec<SocketAddr>, SocketAddr) {
    let (mut servers, mut ports, mut devices) = (Vec::new(), Vec::new(), None);
    for index in (0..site.keys.len()).rev() {
        let (server, port, device) = start(site, index, arguments);
        servers.insert(0, server);
        ports.insert(0, port);
        devices = device;
    }
    (servers, ports, devices.unwrap())
}

/// One request to an admin port; gives the status code and the body.
pub fn http(address: SocketAddr, method: &str, path: &str, headers: &str, body: &str) -> (u16, String) {
    let head = format!("host: {address}\r\ncontent-length: {}\r\n{headers}", body.len());
    exchange(address, &format!("{method} {path} HTTP/1.1\r\n{head}\r\n{body}")).unwrap()
}

/// Sends a text to an admin port; gives the status code and the body, or nothing where it has no place.
pub fn exchange(address: SocketAddr, text: &str) -> Option<(u16, String)> {
    let mut stream = TcpStream::connect(address).ok()?;
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    stream.write_all(text.as_bytes()).ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    Some((head.split(' ').nth(1)?.parse().ok()?, body.to_owned()))
}

pub fn get(address: SocketAddr, path: &str) -> (u16, String) {
    http(address, "GET", path, "", "")
}

pub fn status(address: SocketAddr) -> Status {
    serde_json::from_str(&get(address, "/status").1).unwrap()
}

/// Waits until a page has this status code; gives its text.
pub fn becomes(address: SocketAddr, path: &str, code: u16) -> String {
    let deadline = Instant::now() + LIMIT;
    loop {
        let (found, text) = get(address, path);
        if found == code {
            return text;
        }
        assert!(Instant::now() < deadline, "{path} is {found}: {text}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// All samples of a page of metrics, by name with labels. Every line must be what the format allows.
pub fn metrics(address: SocketAddr) -> HashMap<String, f64> {
    let (code, text) = get(address, "/metrics");
    assert_eq!(code, 200);
    assert!(text.ends_with("# EOF\n"), "{text}");
    let mut types = HashMap::new();
    let mut samples = HashMap::new();
    for line in text.lines() {
        if let Some(comment) = line.strip_prefix("# ") {
            let mut words = comment.split(' ');
            match words.next().unwrap() {
                "TYPE" => {
                    let name = words.next().unwrap().to_owned();
                    assert!(types.insert(name, words.next().unwrap().to_owned()).is_none(), "{line}");
                }
                word => assert!(["HELP", "EOF"].contains(&word), "{line}"),
            }
            continue;
        }
        let (name, value) = line.rsplit_once(' ').unwrap();
        let bare = name.split('{').next().unwrap();
        let known = ["", "_total", "_info", "_bucket", "_sum", "_count"].iter();
        let known = known.filter_map(|end| bare.strip_suffix(end)).any(|base| types.contains_key(base));
        assert!(known && bare.starts_with("seco_"), "{line}");
        assert!(samples.insert(name.to_owned(), value.parse().unwrap()).is_none(), "twice: {line}");
    }
    samples
}

/// The sum of all samples of a name.
pub fn sum(samples: &HashMap<String, f64>, name: &str) -> f64 {
    let mine = samples.iter().filter(|(key, _)| key.split('{').next() == Some(name));
    let values: Vec<f64> = mine.map(|(_, value)| *value).collect();
    assert!(!values.is_empty(), "{name} is missing");
    values.iter().sum()
}

pub fn seco(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_seco")).args(arguments).output().unwrap()
}

/// Runs `seco admin` at an address.
pub fn admin(address: SocketAddr, arguments: &[&str]) -> Output {
    let address = address.to_string();
    seco(&[&["admin", "--address", &address], arguments].concat())
}

pub fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}
