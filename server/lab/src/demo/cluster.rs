//! The demo's servers: real processes with keys, settings and sockets of their own.

use std::collections::VecDeque;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use seco_node::config::{Access, Admin, Config, Identity, Limits, Listen, Peer, Pool};
use seco_node::keys::{self, KeyFiles};
use seco_node::operation::events::Event;
pub use seco_tools::init::name;
use seco_tools::{split, token};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout, timeout_at};

use crate::Error;
use crate::relay::{Link, Relay};

/// A server has this long to open its sockets.
const LISTEN_LIMIT: Duration = Duration::from_secs(60);
/// A server has this long to end after it was asked to.
const GRACE: Duration = Duration::from_secs(5);
/// What a server that ended wrote last has this long to arrive.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// Lines kept of a server's standard error.
const MAX_LINES: usize = 8;

/// What one server has done so far, by its own events.
#[derive(Clone, Debug, Default)]
pub struct Progress {
    /// Its addresses: for other servers, for devices.
    pub listening: Option<(SocketAddr, Option<SocketAddr>)>,
    /// Its admin port, if there is one.
    pub admin: Option<SocketAddr>,
    /// Keys and base OTs are there.
    pub ready: bool,
    /// How long making them took, in seconds.
    pub setup_s: f64,
    /// Bundles made.
    pub bundles: usize,
    /// Inferences done.
    pub inferences: usize,
    /// Bundles in the pool.
    pub pool: usize,
    /// UDP payload sent to other servers.
    pub sent: u64,
    /// Seconds of the last inference.
    pub last_s: Option<f64>,
    /// What failed last.
    pub failure: Option<String>,
    /// Bundles and inferences done when it failed.
    pub done_at_failure: usize,
}

impl Progress {
    /// Bundles and inferences.
    pub fn done(&self) -> usize {
        self.bundles + self.inferences
    }

    fn absorb(&mut self, event: Event) {
        match event {
            Event::Listening { mesh, device, admin, .. } => {
                self.listening = Some((mesh, device));
                self.admin = admin;
            }
            Event::Ready { mesh_bytes_sent, seconds, .. } => {
                self.ready = true;
                self.setup_s = seconds;
                self.sent = mesh_bytes_sent;
            }
            Event::Bundle { pool, mesh_bytes_sent, .. } => {
                self.bundles += 1;
                self.pool = pool;
                self.sent = mesh_bytes_sent;
            }
            Event::Inference { pool, seconds, mesh_bytes_sent, .. } => {
                self.last_s = Some(seconds);
                self.inferences += 1;
                self.pool = pool;
                self.sent = mesh_bytes_sent;
            }
            Event::Failed { what, .. } => {
                self.failure = Some(what);
                self.done_at_failure = self.done();
            }
        }
    }
}

/// A server process.
struct Server {
    index: usize,
    process: Child,
    /// Its end is the order to end.
    input: Option<ChildStdin>,
    last: LastLines,
}

/// What a server said last on its standard error.
struct LastLines {
    lines: Arc<Mutex<VecDeque<String>>>,
    reader: JoinHandle<()>,
}

/// An event of a server; nothing more comes after `None`.
type Notice = (usize, Option<Event>);

/// All servers of the demo.
pub struct Cluster {
    folder: PathBuf,
    keys: Vec<KeyFiles>,
    models: Vec<PathBuf>,
    pool: Pool,
    limits: Limits,
    /// Where the gateway listens for devices.
    device: SocketAddr,
    delay: Option<Duration>,
    access: Option<Access>,
    admin: bool,
    running: Vec<Server>,
    relays: Vec<Relay>,
    progress: Vec<Progress>,
    notices: mpsc::Receiver<Notice>,
    notify: mpsc::Sender<Notice>,
}

impl Cluster {
    /// A cluster in `folder` of which no server runs yet; its gateway will serve devices at
    /// `device`.
    pub fn new(folder: &Path, servers: usize, device: SocketAddr, delay: Option<Duration>) -> Cluster {
        let (notify, notices) = mpsc::channel(256);
        Cluster {
            folder: folder.to_owned(),
            keys: Vec::new(),
            models: Vec::new(),
            pool: Pool::default(),
            limits: Limits::default(),
            device,
            delay,
            access: None,
            admin: false,
            running: Vec::new(),
            relays: Vec::new(),
            progress: vec![Progress::default(); servers],
            notices,
            notify,
        }
    }

    /// Lets the gateway serve only who shows a token; makes one and writes it to `file`, which must be new.
    pub fn ask_for_tokens(&mut self, file: &Path) -> Result<(), Error> {
        let tokens = self.folder.join("tokens.toml");
        token::add(&tokens, file, "demo")?;
        self.access = Some(Access { tokens, required: true });
        Ok(())
    }

    /// Gives every server an admin port, on loopback.
    pub fn with_admin(self) -> Cluster {
        Cluster { admin: true, ..self }
    }

    /// Makes keys and certificates of all servers.
    pub fn make_keys(&mut self) -> Result<(), Error> {
        let servers = 0..self.progress.len();
        self.keys = servers
            .map(|i| keys::generate(&self.folder.join(name(i)), &name(i)))
            .collect::<Result<_, _>>()?;
        Ok(())
    }

    /// Starts the servers with their parts of the model and waits until they have set up the
    /// cluster's keys. The last one comes first, for every server dials those with higher numbers
    /// and their addresses are known only once they listen: the system chooses free ports.
    pub async fn start(&mut self, models: Vec<PathBuf>, pool: Pool, limits: Limits) -> Result<(), Error> {
        self.models = models;
        self.pool = pool;
        self.limits = limits;
        for index in (0..self.progress.len()).rev() {
            let config = self.config(index).await?;
            let path = self.folder.join(name(index)).join("server.toml");
            config.save(&path)?;
            self.spawn(index, &path)?;
            self.wait(&format!("{} to open its sockets", name(index)), LISTEN_LIMIT, |p| {
                p.get(index).is_some_and(|p| p.listening.is_some())
            })
            .await?;
        }
        self.wait("the servers to set up their keys", limits.connect() + limits.setup(), |p| {
            p.iter().all(|p| p.ready)
        })
        .await
    }

    /// Settings of one server.
    async fn config(&mut self, index: usize) -> Result<Config, Error> {
        let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let mut peers = Vec::new();
        for peer in (0..self.progress.len()).filter(|&i| i != index) {
            let listening = self.progress.get(peer).and_then(|p| p.listening);
            let address = match listening {
                Some((mesh, _)) if peer > index => {
                    Some(self.through_relay(mesh, self.delay.map(Link::from)).await?.to_string())
                }
                _ => None,
            };
            let certificate = self.keys_of(peer)?.certificate.clone();
            let ot_parameter = seco_protocol::OT_PARAMETER;
            peers.push(Peer {
                index: peer,
                name: name(peer),
                address,
                certificate,
                known_as: None,
                ot_parameter,
            });
        }
        let keys = self.keys_of(index)?.clone();
        let model = self.models.get(index).cloned();
        Ok(Config {
            index,
            name: name(index),
            model: model
                .ok_or_else(|| Error::Failed(format!("there is no model file for {}", name(index))))?,
            state: self.folder.join(name(index)).join("state"),
            deployments: Vec::new(),
            identity: Identity {
                certificate: keys.certificate,
                known_as: None,
                key: keys.key,
                opening_key: keys.opening_key,
                retired_opening_keys: Vec::new(),
            },
            listen: Listen { mesh: any, device: (index == 0).then_some(self.device), device_tcp: true },
            peers,
            pool: self.pool,
            limits: self.limits,
            access: self.access.clone().filter(|_| index == 0),
            admin: self.admin.then_some(Admin { listen: any, public: false }),
            log: None,
            models: Vec::new(),
        })
    }

    fn keys_of(&self, index: usize) -> Result<&KeyFiles, Error> {
        self.keys.get(index).ok_or_else(|| Error::Failed(format!("there are no keys for {}", name(index))))
    }

    /// The address of a relay in front of `target`, or `target` itself when there is no link to imitate.
    async fn through_relay(&mut self, target: SocketAddr, link: Option<Link>) -> Result<SocketAddr, Error> {
        let Some(link) = link else { return Ok(target) };
        let relay = Relay::start(target, link).await.map_err(|e| Error::bind("UDP", target, e))?;
        let address = relay.address();
        self.relays.push(relay);
        Ok(address)
    }

    /// Writes the file that a device needs.
    pub async fn deployment(&mut self, out: &Path) -> Result<seco_sdk::Deployment, Error> {
        self.deployment_over(out, self.delay.map(Link::from)).await
    }

    /// The same for a device that reaches the gateway over a link of its own.
    pub async fn deployment_over(
        &mut self,
        out: &Path,
        link: Option<Link>,
    ) -> Result<seco_sdk::Deployment, Error> {
        let gateway = self.progress.first().and_then(|p| p.listening).and_then(|(_, device)| device);
        let gateway =
            gateway.ok_or_else(|| Error::Failed("the gateway has no socket for devices".to_owned()))?;
        let address = self.through_relay(gateway, link).await?.to_string();
        let model = self.models.first().cloned().unwrap_or_default();
        let mut asked = split::DeploymentOptions::new(address, &self.keys, model, out.to_owned());
        asked.file.force = true;
        split::deployment(&asked)
    }

    fn spawn(&mut self, index: usize, config: &Path) -> Result<(), Error> {
        let failed = |e: std::io::Error| Error::Failed(format!("{} cannot be started: {e}", name(index)));
        let program = std::env::current_exe().map_err(failed)?;
        let mut command = Command::new(program);
        command.args(["serve", "--events", "--with-parent", "--config"]).arg(config);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        if std::env::var_os("SECO_LOG").is_none() {
            // What is fine is told by events; what is kept of standard error should be of use.
            command.env("SECO_LOG", "warn");
        }
        // Ctrl-C in the terminal is for the demo, which then ends its servers in order.
        #[cfg(unix)]
        command.process_group(0);
        let mut process = command.spawn().map_err(failed)?;
        let input = process.stdin.take();
        let (Some(stdout), Some(stderr)) = (process.stdout.take(), process.stderr.take()) else {
            return Err(Error::Failed(format!("{} has no standard output", name(index))));
        };
        tokio::spawn(read_events(index, stdout, self.notify.clone()));
        self.running.push(Server { index, process, input, last: LastLines::listen(stderr) });
        Ok(())
    }

    /// What all servers have done.
    pub fn progress(&self) -> &[Progress] {
        &self.progress
    }

    /// The servers' processes, in the order of the servers.
    pub fn processes(&self) -> Vec<u32> {
        let mut processes: Vec<_> =
            self.running.iter().filter_map(|server| Some((server.index, server.process.id()?))).collect();
        processes.sort_unstable();
        processes.into_iter().map(|(_, id)| id).collect()
    }

    /// UDP payload that all servers together have sent to each other.
    pub fn sent(&self) -> u64 {
        self.progress.iter().map(|p| p.sent).sum()
    }

    /// What failed last at some server.
    pub fn failure(&self) -> Option<String> {
        self.progress
            .iter()
            .enumerate()
            .find_map(|(i, p)| Some(format!("{}: {}", name(i), p.failure.as_ref()?)))
    }

    /// Waits for `done`, looked at after every event; `limit` is for one event to the next.
    pub async fn wait(
        &mut self,
        what: &str,
        limit: Duration,
        mut done: impl FnMut(&[Progress]) -> bool,
    ) -> Result<(), Error> {
        while !done(&self.progress) {
            let notice = timeout(limit, self.notices.recv()).await;
            let Ok(notice) = notice else {
                return Err(Error::Failed(format!(
                    "waited {} s in vain for {what}: is this machine too busy, or short of memory?",
                    limit.as_secs()
                )));
            };
            self.note(notice).await?;
            // Nothing fails in a demo that goes well, and waiting on would only hide it.
            if let Some(failure) = self.failure() {
                return Err(Error::Failed(failure));
            }
        }
        Ok(())
    }

    /// Does the device's work while listening to the servers; one that ends ends it.
    pub async fn during<T>(&mut self, work: impl Future<Output = T>) -> Result<T, Error> {
        self.watched(work, |_| ()).await
    }

    /// The same, telling `seen` what the servers have done after each event.
    pub async fn watched<T>(
        &mut self,
        work: impl Future<Output = T>,
        mut seen: impl FnMut(&[Progress]),
    ) -> Result<T, Error> {
        tokio::pin!(work);
        loop {
            tokio::select! {
                biased;
                result = &mut work => return Ok(result),
                notice = self.notices.recv() => {
                    self.note(notice).await?;
                    seen(&self.progress);
                }
            }
        }
    }

    /// Explains what went wrong for the device: the cause is often a server's, and its event or
    /// end may come a moment later.
    pub async fn blame(&mut self, error: Error) -> Error {
        let deadline = Instant::now() + LAST_WORDS;
        while self.failure().is_none() {
            let Ok(notice) = timeout_at(deadline, self.notices.recv()).await else { break };
            if let Err(ended) = self.note(notice).await {
                return ended;
            }
        }
        match self.failure() {
            Some(failure) => Error::Failed(format!("{error} ({failure})")),
            None => error,
        }
    }

    async fn note(&mut self, notice: Option<Notice>) -> Result<(), Error> {
        match notice {
            Some((index, Some(event))) => {
                if let Some(progress) = self.progress.get_mut(index) {
                    progress.absorb(event);
                }
                Ok(())
            }
            Some((index, None)) => Err(self.ended(index).await),
            // The cluster holds a sender itself.
            None => Err(Error::Failed("no more events".to_owned())),
        }
    }

    /// Why a server ended by itself.
    async fn ended(&mut self, index: usize) -> Error {
        let name = name(index);
        let Some(server) = self.running.iter_mut().find(|s| s.index == index) else {
            return Error::Failed(format!("{name} ended"));
        };
        let status = match timeout(LAST_WORDS, server.process.wait()).await {
            Ok(Ok(status)) => status.to_string(),
            _ => "it still runs but is silent".to_owned(),
        };
        Error::Failed(match server.last.last().await {
            Some(words) => format!("{name} ended ({status}): {words}"),
            None => format!("{name} ended ({status}) without saying why: start the demo again"),
        })
    }

    /// Ends all servers: first by closing their standard input, after a while by force.
    pub async fn stop(&mut self) {
        for server in &mut self.running {
            server.input.take();
        }
        let deadline = Instant::now() + GRACE;
        for server in &mut self.running {
            if timeout_at(deadline, server.process.wait()).await.is_err() {
                let _ = server.process.start_kill();
                let _ = timeout(GRACE, server.process.wait()).await;
            }
        }
        self.running.clear();
        self.relays.clear();
    }
}

/// Passes a server's events on until its standard output ends.
async fn read_events(index: usize, stdout: ChildStdout, notify: mpsc::Sender<Notice>) {
    let mut lines = BufReader::new(stdout).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        let event = serde_json::from_str(&line).unwrap_or_else(|_| Event::Failed {
            server: index,
            what: "its standard output has something that is no event".to_owned(),
        });
        if notify.send((index, Some(event))).await.is_err() {
            return;
        }
    }
    let _ = notify.send((index, None)).await;
}

impl LastLines {
    /// Keeps the last lines. Reading goes on to the end, or a full pipe would stop the server.
    fn listen(stderr: ChildStderr) -> LastLines {
        let lines = Arc::new(Mutex::new(VecDeque::new()));
        let kept = lines.clone();
        let reader = tokio::spawn(async move {
            let mut source = BufReader::new(stderr).lines();
            while let Ok(Some(line)) = source.next_line().await {
                let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
                if kept.len() == MAX_LINES {
                    kept.pop_front();
                }
                kept.push_back(line);
            }
        });
        LastLines { lines, reader }
    }

    /// The last line that says something.
    async fn last(&mut self) -> Option<String> {
        let _ = timeout(LAST_WORDS, &mut self.reader).await;
        let lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        let line = lines.iter().rev().map(|l| l.trim()).find(|l| !l.is_empty())?;
        Some(line.strip_prefix("seco: ").unwrap_or(line).to_owned())
    }
}

#[cfg(test)]
mod tests;
