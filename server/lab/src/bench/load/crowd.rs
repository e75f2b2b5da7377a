//! The devices.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use seco_sdk::{Client, ClientBuilder, Deployment, Progress};
use tokio::sync::Semaphore;
use tokio::task::{JoinError, JoinSet};
use tokio::time::{Instant, sleep, sleep_until};

use super::{Options, Via};
use crate::Error;

/// Handshakes at the same time: devices come one after the other, not all in one moment.
const HANDSHAKES: usize = 16;
/// Requests that a gateway takes at the same time on one connection.
const PER_CONNECTION: u32 = 16;
/// A device whose request failed waits so long before its next one, if it was not told otherwise.
const PAUSE: Duration = Duration::from_millis(50);
/// Time to connect and to open a session. Longer than usual, for the machine is busy with all of them.
const CONNECT: Duration = Duration::from_secs(30);

/// The kind of failure of a device that ended before its request did.
const ENDED: &str = "device_ended";

/// Inputs, and the logits of the plaintext network where it is known.
pub struct Questions {
    pub inputs: Vec<Vec<u8>>,
    pub expected: Vec<Vec<i32>>,
}

/// Devices of one cluster.
pub struct Crowd {
    deployment: Deployment,
    questions: Arc<Questions>,
    via: Via,
    devices: usize,
    greedy: u32,
    /// Requests at most, and for how long at most.
    requests: u64,
    time: Option<Duration>,
    /// Requests a second that come whatever happens.
    rate: Option<u32>,
    request_timeout: Duration,
}

/// A request that had to wait.
#[derive(Clone, Copy, Debug)]
pub struct Wait {
    pub position: u32,
    pub told: Duration,
    pub actual: Duration,
}

/// What became of the requests.
#[derive(Debug, Default)]
pub struct Tally {
    pub requests: u64,
    pub wrong: u64,
    pub asked_again: u64,
    pub latencies: Vec<Duration>,
    pub waits: Vec<Wait>,
    /// Failures by kind.
    pub errors: BTreeMap<String, u64>,
    /// Answers by device.
    pub answers: Vec<u64>,
    /// Answers of the greedy device.
    pub greedy: u64,
    pub time: Duration,
}

/// Sessions that were opened.
pub struct Opened {
    pub count: u64,
    pub errors: BTreeMap<String, u64>,
    pub clients: Vec<Client>,
}

/// Connected devices: the connections of each, the greedy one last.
pub struct Connected(Vec<Vec<Arc<Client>>>);

/// What all requests have in common.
struct Round {
    questions: Arc<Questions>,
    tally: Mutex<Tally>,
    next: AtomicU64,
    requests: u64,
    end: Option<Instant>,
}

impl Crowd {
    pub fn new(options: &Options, deployment: Deployment, questions: Questions) -> Self {
        Self {
            deployment,
            questions: Arc::new(questions),
            via: options.transport,
            devices: options.devices as usize,
            greedy: options.greedy,
            requests: if options.seconds.is_some() { u64::MAX } else { options.requests },
            time: options.seconds.map(Duration::from_secs),
            rate: options.open,
            request_timeout: Duration::from_secs(options.request_timeout),
        }
    }

    fn builder(&self, device: usize) -> ClientBuilder {
        Client::builder(self.deployment.clone())
            .transport(self.via.of(device))
            .connect_timeout(CONNECT)
            .request_timeout(self.request_timeout)
    }

    /// Opens sessions, a few at a time; keeps their clients or leaves them at once.
    pub async fn open(&self, sessions: u32, keep: bool) -> Opened {
        let turn = Arc::new(Semaphore::new(HANDSHAKES));
        let mut tasks = JoinSet::new();
        let mut opened = Opened { count: 0, errors: BTreeMap::new(), clients: Vec::new() };
        let note = |opened: &mut Opened, result: Result<Result<Client, seco_sdk::Error>, JoinError>| {
            let error = match result {
                Ok(Ok(client)) => {
                    opened.count += 1;
                    if keep {
                        opened.clients.push(client);
                    }
                    return;
                }
                Ok(Err(error)) => kind(&error),
                Err(_) => ENDED.to_owned(),
            };
            *opened.errors.entry(error).or_default() += 1;
        };
        for session in 0..sessions as usize {
            // Never closed.
            let Ok(turn) = turn.clone().acquire_owned().await else { break };
            let builder = self.builder(session);
            tasks.spawn(async move {
                let result = builder.connect().await;
                drop(turn);
                result
            });
            while let Some(result) = tasks.try_join_next() {
                note(&mut opened, result);
            }
        }
        while let Some(result) = tasks.join_next().await {
            note(&mut opened, result);
        }
        opened
    }

    /// How long a new device takes to its first answer, from nothing.
    pub async fn newcomer(&self) -> Result<Duration, String> {
        let start = Instant::now();
        let client = self.builder(0).connect().await.map_err(|e| e.to_string())?;
        let input = self.questions.inputs.first().map(Vec::as_slice).unwrap_or_default();
        client.infer(input).await.map_err(|e| e.to_string())?;
        Ok(start.elapsed())
    }

    /// Connects all devices.
    pub async fn connect(&self) -> Result<Connected, Error> {
        let greedy = self.greedy.div_ceil(PER_CONNECTION) as usize;
        let turn = Arc::new(Semaphore::new(HANDSHAKES));
        let mut tasks = JoinSet::new();
        for connection in 0..self.devices + greedy {
            let (builder, turn) = (self.builder(connection), turn.clone());
            tasks.spawn(async move {
                let _turn = turn.acquire_owned().await;
                (connection, builder.connect().await)
            });
        }
        let mut connected = vec![Vec::new(); self.devices + usize::from(greedy > 0)];
        while let Some(joined) = tasks.join_next().await {
            let (connection, result) = joined.map_err(|_| Error::Failed("a device ended".to_owned()))?;
            let client = result.map_err(|e| Error::Failed(format!("a device cannot connect: {e}")))?;
            if let Some(device) = connected.get_mut(connection.min(self.devices)) {
                device.push(Arc::new(client));
            }
        }
        Ok(Connected(connected))
    }

    /// Asks.
    pub async fn ask(&self, connected: Connected) -> Tally {
        let start = Instant::now();
        let round = Arc::new(Round {
            questions: self.questions.clone(),
            tally: Mutex::new(Tally { answers: vec![0; self.devices], ..Tally::default() }),
            next: AtomicU64::new(0),
            requests: self.requests,
            end: self.time.map(|time| start + time),
        });
        let mut tasks = JoinSet::new();
        if let Some(rate) = self.rate {
            while let Some(request) = round.next() {
                let due = start + Duration::from_secs_f64(request as f64 / f64::from(rate));
                if round.end.is_some_and(|end| due >= end) {
                    break;
                }
                sleep_until(due).await;
                let device = (request % self.devices.max(1) as u64) as usize;
                if let Some(client) = connected.0.get(device).and_then(|clients| clients.first()) {
                    let (client, round) = (client.clone(), round.clone());
                    tasks.spawn(async move {
                        let _ = round.ask(&client, device, request, due).await;
                    });
                }
                while let Some(joined) = tasks.try_join_next() {
                    round.note(&joined);
                }
            }
        } else {
            for (device, clients) in connected.0.iter().enumerate() {
                let open = if device < self.devices { 1 } else { self.greedy as usize };
                for client in clients.iter().cycle().take(open) {
                    tasks.spawn(one_after_the_other(round.clone(), client.clone(), device));
                }
            }
        }
        while let Some(joined) = tasks.join_next().await {
            round.note(&joined);
        }
        let mut tally = std::mem::take(&mut *round.tally());
        tally.time = start.elapsed();
        tally
    }
}

async fn one_after_the_other(round: Arc<Round>, client: Arc<Client>, device: usize) {
    while let Some(request) = round.next() {
        if let Err(pause) = round.ask(&client, device, request, Instant::now()).await {
            sleep(pause).await;
        }
    }
}

impl Round {
    fn tally(&self) -> MutexGuard<'_, Tally> {
        self.tally.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a device that ended in the middle of a request.
    fn note(&self, joined: &Result<(), JoinError>) {
        if joined.is_err() {
            *self.tally().errors.entry(ENDED.to_owned()).or_default() += 1;
        }
    }

    /// The number of the next request, if there is to be one.
    fn next(&self) -> Option<u64> {
        if self.end.is_some_and(|end| Instant::now() >= end) {
            return None;
        }
        let next = self.next.fetch_add(1, Ordering::Relaxed);
        (next < self.requests).then_some(next)
    }

    /// One request; where it fails, how long its device should wait.
    async fn ask(&self, client: &Client, device: usize, request: u64, from: Instant) -> Result<(), Duration> {
        let index = (request % self.questions.inputs.len().max(1) as u64) as usize;
        let input = self.questions.inputs.get(index).map(Vec::as_slice).unwrap_or_default();
        let (mut sent, mut queued, mut waited) = (0u64, None, None);
        let result = client
            .infer_with(input, |progress| match progress {
                Progress::Sent => sent += 1,
                Progress::Queued { position, wait } if queued.is_none() => {
                    queued = Some((position, wait, Instant::now()));
                }
                Progress::Running if waited.is_none() => {
                    waited = queued.map(|(position, told, since)| Wait {
                        position,
                        told,
                        actual: since.elapsed(),
                    });
                }
                _ => {}
            })
            .await;
        let latency = from.elapsed();
        let mut tally = self.tally();
        tally.requests += 1;
        tally.asked_again += sent.saturating_sub(1);
        tally.waits.extend(waited);
        match result {
            Ok(prediction) => {
                let expected = self.questions.expected.get(index);
                tally.wrong += u64::from(expected.is_some_and(|expected| *expected != prediction.logits));
                tally.latencies.push(latency);
                match tally.answers.get_mut(device) {
                    Some(answers) => *answers += 1,
                    None => tally.greedy += 1,
                }
                Ok(())
            }
            Err(error) => {
                *tally.errors.entry(kind(&error)).or_default() += 1;
                match error {
                    seco_sdk::Error::Busy { retry_after } => Err(retry_after),
                    _ => Err(PAUSE),
                }
            }
        }
    }
}

/// What kind of failure it is: a word.
fn kind(error: &seco_sdk::Error) -> String {
    use seco_sdk::Error as E;
    match error {
        E::Busy { .. } => "busy".to_owned(),
        E::Refused(refusal) => snake(&format!("{refusal:?}")),
        E::Timeout { .. } => "timed_out_at_device".to_owned(),
        E::Connect { .. } => "cannot_connect".to_owned(),
        E::Closed(_) => "connection_lost".to_owned(),
        E::Protocol(_) => "broken_protocol".to_owned(),
        _ => "other".to_owned(),
    }
}

/// `unknown_session` of `UnknownSession` or of `UnknownSession { .. }`.
fn snake(name: &str) -> String {
    let mut word = String::new();
    for letter in name.chars().take_while(|c| c.is_ascii_alphanumeric()) {
        if letter.is_ascii_uppercase() && !word.is_empty() {
            word.push('_');
        }
        word.push(letter.to_ascii_lowercase());
    }
    word
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_of_failures() {
        let refused = |refusal| kind(&seco_sdk::Error::Refused(refusal));
        assert_eq!(refused(seco_sdk::Refusal::Unavailable { server: 2 }), "unavailable");
        assert_eq!(refused(seco_sdk::Refusal::UnknownSession), "unknown_session");
        assert_eq!(kind(&seco_sdk::Error::Busy { retry_after: PAUSE }), "busy");
    }
}
