//! Making, keeping and losing the connections of the mesh.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use quinn::{ClientConfig, Connection, ConnectionError, Endpoint, Incoming as Attempt, VarInt};
use rustls::pki_types::CertificateDer;
use seco_core::{ModelId, SealingKeyHash};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::time::{sleep, timeout};
use tracing::{debug, info, warn};

use super::frame::FrameError;
use super::hello::{Hello, Peer};
use super::models::{self, MAX_OFFER, Offer};
use super::registry::{Key, Pair, Registry, abandon};
use super::{CHANNEL, COMMAND, Incoming, MODELS, Mistake, Records, Server, frame};
use crate::Error;
use crate::keys::{self, TLS_NAME};
use crate::versions::Versions;

/// Time for a handshake and the hellos.
pub(super) const HANDSHAKE: Duration = Duration::from_secs(3);
/// Time for the few bytes that say what a stream is for.
const HEADER: Duration = Duration::from_secs(10);
/// First and longest pause between two attempts to connect.
const PAUSE: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(1));
/// Pause after a mistake, which time alone will not mend.
const MISTAKE_PAUSE: Duration = Duration::from_secs(10);
/// How long what a peer said of its versions counts: one that is there says it again within seconds.
const APART: Duration = Duration::from_secs(10);
/// Handshakes at the same time with those who dial us.
const MAX_HANDSHAKES: usize = 32;

/// A peer that does not fit is told so.
const UNFIT: VarInt = VarInt::from_u32(2);
/// A newer connection took this one's place.
const REPLACED: VarInt = VarInt::from_u32(3);

/// What all tasks of a mesh share.
pub(super) struct Shared {
    pub(super) me: usize,
    pub(super) versions: Versions,
    pub(super) servers: Vec<Server>,
    pub(super) endpoint: Endpoint,
    pub(super) hello: Hello,
    pub(super) sealing_keys: Vec<SealingKeyHash>,
    pub(super) records: Option<Arc<dyn Records>>,
    pub(super) links: Links,
    pub(super) registry: Registry,
    /// This server's models.
    pub(super) offer: watch::Sender<Offer>,
    pub(super) changed: watch::Sender<()>,
    pub(super) commands: mpsc::Sender<Incoming>,
    pub(super) mistakes: mpsc::Sender<Mistake>,
}

/// The present connection with each peer, and the bytes of all that ever were.
#[derive(Default)]
pub(super) struct Links {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    current: HashMap<usize, (u64, Connection)>,
    /// Connections whose bytes are not yet in `retired`, by their generation, with their peers.
    live: HashMap<u64, (usize, Connection)>,
    /// Bytes sent and received of connections that have ended, by peer.
    retired: HashMap<usize, (u64, u64)>,
    next: u64,
    /// Why the address of a peer cannot be resolved.
    unresolved: HashMap<usize, String>,
    /// What each peer that was connected said last that it speaks.
    versions: HashMap<usize, Versions>,
    /// The same of peers with which no version is common, and when they said it: told once, not at every attempt.
    apart: HashMap<usize, (Versions, Instant)>,
    /// What each peer said last in its hello.
    sealing_keys: HashMap<usize, Vec<SealingKeyHash>>,
    /// What each connected peer said of its models last.
    models: HashMap<usize, Offered>,
}

impl State {
    /// What a peer speaks with which no version is common, if it said so lately.
    fn apart(&self, peer: usize) -> Option<Versions> {
        let (versions, said) = self.apart.get(&peer).copied()?;
        (said.elapsed() < APART).then_some(versions)
    }
}

/// A peer's models.
#[derive(Default)]
struct Offered {
    /// Of the list that was heard last.
    number: u64,
    /// Each with a number of its own: one that goes and comes back is not what it was.
    since: HashMap<ModelId, u64>,
}

impl Links {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn current(&self, peer: usize) -> Option<Connection> {
        self.state().current.get(&peer).map(|(_, c)| c.clone())
    }

    pub(super) fn generation(&self, peer: usize) -> Option<u64> {
        self.state().current.get(&peer).map(|&(generation, _)| generation)
    }

    /// Names the connection with a peer that has a model, and the time since it has it.
    pub(super) fn model(&self, peer: usize, model: &ModelId) -> Option<u64> {
        self.state().models.get(&peer)?.since.get(model).copied()
    }

    /// A peer says on its connection of this generation which models it has now. Gives those that are new to it and
    /// those that are gone; nothing where that is old news.
    fn offered(&self, peer: usize, generation: u64, offer: Offer) -> Option<(Vec<ModelId>, Vec<ModelId>)> {
        let mut state = self.state();
        let state = &mut *state;
        if state.current.get(&peer).is_none_or(|&(present, _)| present != generation) {
            return None;
        }
        let known = state.models.get_mut(&peer).filter(|known| known.number < offer.number)?;
        known.number = offer.number;
        let (new, gone) = differences(known, &offer.models);
        known.since.retain(|model, _| !gone.contains(model));
        for model in &new {
            state.next += 1;
            known.since.insert(*model, state.next);
        }
        Some((new, gone))
    }

    pub(super) fn sealing_keys(&self, peer: usize) -> Option<Vec<SealingKeyHash>> {
        self.state().sealing_keys.get(&peer).cloned()
    }

    /// What a peer speaks, if it was ever connected.
    pub(super) fn versions(&self, peer: usize) -> Option<Versions> {
        self.state().versions.get(&peer).copied()
    }

    /// What a peer speaks with which no version is common.
    pub(super) fn apart(&self, peer: usize) -> Option<Versions> {
        self.state().apart(peer)
    }

    /// Why a peer's address could not be resolved the last time.
    pub(super) fn unresolved(&self, peer: usize) -> Option<String> {
        self.state().unresolved.get(&peer).cloned()
    }

    pub(super) fn bytes_sent(&self) -> u64 {
        let state = self.state();
        let retired: u64 = state.retired.values().map(|(sent, _)| sent).sum();
        retired + state.live.values().map(|(_, c)| c.stats().udp_tx.bytes).sum::<u64>()
    }

    /// Bytes sent to a peer and received from it.
    pub(super) fn bytes(&self, peer: usize) -> (u64, u64) {
        let state = self.state();
        let retired = state.retired.get(&peer).copied().unwrap_or_default();
        state.live.values().filter(|(p, _)| *p == peer).fold(retired, |sum, (_, c)| plus(sum, c))
    }

    /// Ends the present link with a peer, if there is one: another is about to take its place.
    fn retire(&self, peer: usize) -> Option<Connection> {
        let mut state = self.state();
        state.models.remove(&peer);
        state.current.remove(&peer).map(|(_, connection)| connection)
    }

    /// Makes `connection` the present one; returns its generation and the one it replaces.
    fn install(&self, peer: usize, connection: Connection, offer: Offer) -> (u64, Option<Connection>) {
        let mut state = self.state();
        state.next += 1;
        let generation = state.next;
        state.live.insert(generation, (peer, connection.clone()));
        let since = offer.models.into_iter().map(|model| (model, generation)).collect();
        state.models.insert(peer, Offered { number: offer.number, since });
        let old = state.current.insert(peer, (generation, connection));
        (generation, old.map(|(_, c)| c))
    }

    /// Whether the connection that ended was the present one.
    fn remove(&self, peer: usize, generation: u64) -> bool {
        let mut state = self.state();
        if let Some((_, ended)) = state.live.remove(&generation) {
            let sum = state.retired.entry(peer).or_default();
            *sum = plus(*sum, &ended);
        }
        let present = state.current.get(&peer).is_some_and(|&(g, _)| g == generation);
        if present {
            state.current.remove(&peer);
            state.models.remove(&peer);
        }
        present
    }
}

/// Models that a list has more than what is known, and fewer.
fn differences(known: &Offered, models: &[ModelId]) -> (Vec<ModelId>, Vec<ModelId>) {
    let new = models.iter().filter(|model| !known.since.contains_key(*model)).copied().collect();
    let gone = known.since.keys().filter(|model| !models.contains(model)).copied().collect();
    (new, gone)
}

/// Adds what a connection has sent and received.
fn plus((sent, received): (u64, u64), connection: &Connection) -> (u64, u64) {
    let stats = connection.stats();
    (sent + stats.udp_tx.bytes, received + stats.udp_rx.bytes)
}

/// A connection after the hellos, and what the peer said.
type Greeted = (Connection, Peer);

/// Why an attempt to connect failed.
enum Failed {
    /// Nobody there, or not yet: try again.
    NoAnswer,
    /// The address has a host name that is not known, or not yet.
    Unresolved(String),
    /// A mistake in somebody's settings. It is tried again too, for the settings of the other
    /// server may change, but at the start it is reported.
    Mistake(Error),
}

impl Shared {
    fn name(&self, peer: usize) -> String {
        self.servers.get(peer).map(|s| s.name.clone()).unwrap_or_default()
    }

    fn mistake(&self, error: Error, own: bool) {
        warn!("{error}");
        // Full or closed: the start-up has enough of them, or is over.
        let _ = self.mistakes.try_send(Mistake { error, own });
    }

    /// Tells of a server that speaks no version that this one does, once until it speaks others or is away. Its upgrade
    /// mends that, or this one's.
    fn apart(&self, peer: usize, error: &Error, theirs: Versions) {
        // At once, for several of its connections may come at a time.
        let mut state = self.links.state();
        let before = state.apart(peer);
        state.apart.insert(peer, (theirs, Instant::now()));
        drop(state);
        if before != Some(theirs) {
            warn!("{error}");
        }
    }

    /// Serves a connection until it ends.
    async fn serve(self: &Arc<Self>, peer: usize, (connection, said): Greeted) {
        let Peer { versions, version, sealing_keys, ledger, models, common, told } = said;
        // Nothing more is counted as said on the old link once what is said on this one is taken down.
        if let Some(old) = self.links.retire(peer) {
            self.registry.lose(peer);
            old.close(REPLACED, b"replaced");
        }
        // Before the link is used.
        if let (Some(records), Some(head)) = (self.records.clone(), ledger) {
            let _ = tokio::task::spawn_blocking(move || records.meet(peer, head, &common)).await;
        }
        {
            let mut state = self.links.state();
            state.apart.remove(&peer);
            state.versions.insert(peer, versions);
            state.sealing_keys.insert(peer, sealing_keys);
        }
        let (generation, old) = self.links.install(peer, connection.clone(), models);
        // Streams of a replaced connection are dead, and nobody should wait for them.
        self.registry.lose(peer);
        if let Some(old) = old {
            old.close(REPLACED, b"replaced");
        }
        let address = connection.remote_address();
        info!(server = peer, name = self.name(peer), %address, version, speaks = %versions, "connected");
        self.changed.send_replace(());
        let telling = tokio::spawn(models::tell(connection.clone(), self.offer.subscribe(), told));
        let reason = loop {
            match connection.accept_bi().await {
                Ok(pair) => {
                    tokio::spawn(self.clone().route((peer, generation), pair));
                }
                Err(reason) => break reason,
            }
        };
        telling.abort();
        if self.links.remove(peer, generation) {
            self.registry.lose(peer);
            warn!(server = peer, name = self.name(peer), %reason, "connection lost");
            self.changed.send_replace(());
        }
    }

    /// Hands a stream that a peer opened to whom it is for.
    async fn route(self: Arc<Self>, (peer, generation): (usize, u64), (send, mut receive): Pair) {
        let header = async {
            let mut kind = [0u8];
            receive.read_exact(&mut kind).await.ok()?;
            let mut name = [0u8; 9];
            if kind == [CHANNEL] {
                receive.read_exact(&mut name).await.ok()?;
            }
            Some((kind[0], name))
        };
        match timeout(HEADER, header).await {
            Ok(Some((CHANNEL, [job @ .., lane]))) => {
                let key = Key { peer, job: u64::from_le_bytes(job), lane };
                self.registry.arrive(key, (send, receive));
            }
            Ok(Some((COMMAND, _))) => {
                let incoming = Incoming { from: peer, send, receive };
                if let Err(mpsc::error::TrySendError::Full(i) | mpsc::error::TrySendError::Closed(i)) =
                    self.commands.try_send(incoming)
                {
                    abandon((i.send, i.receive));
                }
            }
            Ok(Some((MODELS, _))) => {
                let offer = timeout(HEADER, frame::read_value::<Offer>(&mut receive, MAX_OFFER)).await;
                match offer {
                    Ok(Ok(offer)) if offer.models.len() <= models::MAX_MODELS => {
                        self.offered(peer, generation, offer);
                    }
                    _ => abandon((send, receive)),
                }
            }
            _ => abandon((send, receive)),
        }
    }

    /// A peer's models have changed.
    fn offered(&self, peer: usize, generation: u64, offer: Offer) {
        let Some((new, gone)) = self.links.offered(peer, generation, offer) else { return };
        for model in &new {
            info!(server = peer, name = self.name(peer), model = keys::short(model), "has another model");
        }
        for model in &gone {
            info!(server = peer, name = self.name(peer), model = keys::short(model), "has a model no longer");
        }
        self.changed.send_replace(());
    }

    async fn greet(
        &self,
        connection: &Connection,
        dialled: bool,
        peer: usize,
    ) -> Result<Result<Peer, Error>, FrameError> {
        let ledger = self.records.as_ref().map(|records| records.head());
        let models = self.offer.borrow().clone();
        self.hello
            .exchange(connection, dialled, self.versions, (peer, &self.servers[peer]), ledger, models)
            .await
    }

    /// One attempt to connect with a server that this one dials.
    async fn attempt(&self, peer: usize, address: &str, config: ClientConfig) -> Result<Greeted, Failed> {
        let name = self.name(peer);
        let local = self.endpoint.local_addr().ok();
        let targets =
            tokio::net::lookup_host(address).await.map_err(|e| Failed::Unresolved(e.to_string()))?;
        // A socket bound to one address family cannot reach the other.
        let fits = |t: &std::net::SocketAddr| local.is_none_or(|l| l.is_ipv6() || t.is_ipv4());
        let target = targets.into_iter().find(fits);
        let target = target.ok_or_else(|| {
            Failed::Unresolved("it has IPv6 addresses only, and [listen] mesh is an IPv4 address".to_owned())
        })?;
        let connecting =
            self.endpoint.connect_with(config, target, TLS_NAME).map_err(|_| Failed::NoAnswer)?;
        let connection = match timeout(HANDSHAKE, connecting).await {
            Ok(Ok(connection)) => connection,
            Ok(Err(ConnectionError::TransportError(e))) if is_tls(e.code.into()) => {
                let address = address.to_owned();
                return Err(Failed::Mistake(Error::WrongCertificate { index: peer, name, address }));
            }
            Ok(Err(e)) => return Err(refusal(&e, peer, name)),
            Err(_) => return Err(Failed::NoAnswer),
        };
        match timeout(HANDSHAKE, self.greet(&connection, true, peer)).await {
            Ok(Ok(Ok(said))) => Ok((connection, said)),
            Ok(Ok(Err(mistake))) => {
                connection.close(UNFIT, b"unfit");
                Err(Failed::Mistake(mistake))
            }
            // TLS 1.3 tells the dialling side only after its own handshake that it was refused.
            Ok(Err(FrameError::Closed | FrameError::TooLarge(_))) => match connection.close_reason() {
                Some(reason) => Err(refusal(&reason, peer, name)),
                None => Err(Failed::NoAnswer),
            },
            Err(_) => Err(Failed::NoAnswer),
        }
    }

    /// Identifies, greets and serves one who dialled us.
    async fn welcome(self: Arc<Self>, attempt: Attempt) -> Option<(usize, Greeted)> {
        let address = attempt.remote_address();
        let connection = match timeout(HANDSHAKE, attempt).await {
            Ok(Ok(connection)) => connection,
            // Whoever dialled has given up: what a server finds that stood still, one for every attempt meanwhile.
            Ok(Err(ConnectionError::ConnectionClosed(close))) if !is_tls(close.error_code.into()) => {
                debug!(%address, reason = %close, "a connection was given up before its handshake");
                return None;
            }
            Ok(Err(reason)) => {
                warn!(%address, %reason, "refused a connection: not a server of this cluster?");
                return None;
            }
            Err(_) => return None,
        };
        let shown =
            connection.peer_identity().and_then(|i| i.downcast::<Vec<CertificateDer<'static>>>().ok());
        let shown = shown.and_then(|chain| chain.first().cloned())?;
        // The TLS layer has accepted only certificates of servers with a lower number.
        let peer = self.servers.iter().take(self.me).position(|s| s.certificates.contains(&shown))?;
        match timeout(HANDSHAKE, self.greet(&connection, false, peer)).await {
            Ok(Ok(Ok(said))) => Some((peer, (connection, said))),
            Ok(Ok(Err(mistake))) => {
                match mistake {
                    Error::NoCommonVersion { theirs, .. } => self.apart(peer, &mistake, theirs),
                    _ => self.mistake(mistake, false),
                }
                // Leave the peer the time to read our hello and say the same.
                let _ = timeout(HANDSHAKE, connection.closed()).await;
                connection.close(UNFIT, b"unfit");
                None
            }
            Ok(Err(_)) | Err(_) => {
                debug!(%address, "a connection ended before its hello");
                None
            }
        }
    }
}

/// QUIC carries a TLS alert as 0x100 plus its number (RFC 9001 section 4.8).
pub(super) fn is_tls(code: u64) -> bool {
    code & !0xff == 0x100
}

fn refusal(reason: &ConnectionError, index: usize, name: String) -> Failed {
    match reason {
        ConnectionError::ConnectionClosed(close) if is_tls(close.error_code.into()) => {
            Failed::Mistake(Error::OwnCertificate { index, name })
        }
        _ => Failed::NoAnswer,
    }
}

/// Keeps the connection with a server that this one dials.
pub(super) async fn dial(shared: Arc<Shared>, peer: usize, address: String, config: ClientConfig) {
    let mut pause = PAUSE.0;
    loop {
        let attempt = shared.attempt(peer, &address, config.clone()).await;
        if !matches!(attempt, Err(Failed::Unresolved(_))) {
            shared.links.state().unresolved.remove(&peer);
        }
        match attempt {
            Ok(greeted) => {
                shared.serve(peer, greeted).await;
                pause = PAUSE.0;
            }
            Err(Failed::Unresolved(why)) => {
                // Once: a name service may need its time after a machine's start.
                if shared.links.state().unresolved.insert(peer, why.clone()).is_none() {
                    let (name, address) = (shared.name(peer), address.clone());
                    warn!("{}", Error::Unresolved { index: peer, name, address, why });
                }
                pause = (pause * 2).min(PAUSE.1);
            }
            Err(Failed::NoAnswer) => pause = (pause * 2).min(PAUSE.1),
            Err(Failed::Mistake(error)) => match error {
                // Not this server's mistake, or not alone.
                Error::NoCommonVersion { theirs, .. } => {
                    shared.apart(peer, &error, theirs);
                    pause = (pause * 2).min(PAUSE.1);
                }
                _ => {
                    let own = !matches!(error, Error::Unintelligible { .. });
                    shared.mistake(error, own);
                    pause = MISTAKE_PAUSE;
                }
            },
        }
        sleep(pause).await;
    }
}

/// Takes the connections of servers that dial this one.
pub(super) async fn accept(shared: Arc<Shared>) {
    let handshakes = Arc::new(Semaphore::new(MAX_HANDSHAKES));
    while let Some(attempt) = shared.endpoint.accept().await {
        let Ok(permit) = handshakes.clone().try_acquire_owned() else {
            attempt.refuse();
            continue;
        };
        let shared = shared.clone();
        tokio::spawn(async move {
            let welcomed = shared.clone().welcome(attempt).await;
            drop(permit);
            if let Some((peer, greeted)) = welcomed {
                shared.serve(peer, greeted).await;
            }
        });
    }
}
