//! One of the two parties, as a process of its own: so its CPU time and memory are its own.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use seco_core::{Incarnation, IncarnationKey, SessionKey, pack};
use seco_node::keys;
use seco_node::store::ledger::{FileLedger, Heads};
use seco_protocol::{BundleId, Channel as _, MemorySpool, Party, PlannedModel, SpentBundle, Use};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::wire::{self, LANES, Lane, Token};
use super::{DEVICE, SERVER};
use crate::Error;
use crate::bench::child::{self, failed};
use crate::bench::process;

/// What a party is to do, on its standard input.
#[derive(Serialize, Deserialize)]
pub struct Job {
    /// [`SERVER`] or [`DEVICE`].
    pub me: usize,
    /// Its part of the model.
    pub model: PathBuf,
    /// Directory of its ledger.
    pub state: PathBuf,
    /// By which the server knows the device; also the session's name.
    pub token: Token,
    /// Where the device finds the server.
    pub server: Option<SocketAddr>,
    /// One inference for each.
    pub bundles: Vec<BundleId>,
    /// Bytes of its values; the device's alone.
    pub inputs: Vec<Vec<u8>>,
}

/// What it says once it did: the server first where it listens, then both how it went.
#[derive(Serialize, Deserialize)]
pub enum Word {
    /// The server waits for the device here.
    Listening(SocketAddr),
    /// All inferences are done.
    Done(Outcome),
}

/// What the inferences cost a party, and, at the device, what they gave.
#[derive(Serialize, Deserialize)]
pub struct Outcome {
    /// Once: keys and base OTs.
    pub setup: Spent,
    /// All bundles together.
    pub preprocessing: Spent,
    /// All inferences together.
    pub online: Spent,
    /// The most memory the process had, in bytes.
    pub peak_memory: u64,
    /// By inference; empty at the server.
    pub logits: Vec<Vec<i32>>,
}

/// What a phase took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Spent {
    /// CPU time of all threads.
    pub cpu: Duration,
    /// Until both parties were done.
    pub wall: Duration,
    /// Bytes of frames.
    pub sent: u64,
    /// Bytes of frames.
    pub received: u64,
}

impl std::ops::AddAssign for Spent {
    fn add_assign(&mut self, other: Spent) {
        self.cpu += other.cpu;
        self.wall += other.wall;
        self.sent += other.sent;
        self.received += other.received;
    }
}

/// Reads the job, does it, and says so on standard output.
pub fn run() -> Result<(), Error> {
    let job: Job = child::job()?;
    let lanes = match job.server {
        Some(server) => wire::connect(&job.token, server, job.me)?,
        None => wire::accept(&job.token, |address| child::say(&Word::Listening(address)))?,
    };
    child::say(&Word::Done(Work::new(&job, lanes)?.all(&job)?));
    Ok(())
}

/// A party after set-up.
struct Work {
    party: Party,
    lanes: [Lane; LANES],
    ledger: FileLedger,
    session: [u8; 16],
    /// The server's, and at the device its own.
    keys: Vec<IncarnationKey>,
    setup: Spent,
}

impl Work {
    fn new(job: &Job, mut lanes: [Lane; LANES]) -> Result<Work, Error> {
        let part = Arc::new(seco_node::service::part::read_part(&job.model)?);
        let ledger = FileLedger::open(&job.state, &Heads::only(&job.state.with_extension("head")))?;
        let clock = Clock::start(&mut lanes)?;
        let [lane, _] = &mut lanes;
        // The session: a device draws a key for every party. Here one party is the device itself, and
        // the server's key goes over the loopback interface as it is; `seco-sdk` would seal it.
        // Keys live for one connection here, so its incarnation may be any.
        let connection = Incarnation { nonce: job.token.0, exporter: [0; 32] };
        let keys = if job.me == DEVICE {
            let keys = [keys::secret()?, keys::secret()?];
            lane.send(SERVER, keys[SERVER].to_vec()).map_err(|e| failed("the session", e))?;
            keys.map(|key| SessionKey::from_bytes(*key).for_connection(&connection)).into()
        } else {
            let key = Zeroizing::new(lane.recv(DEVICE, 32).map_err(|e| failed("the session", e))?);
            let key = key.as_slice().try_into().map_err(|e| failed("the session", e))?;
            vec![SessionKey::from_bytes(key).for_connection(&connection)]
        };
        let planned = PlannedModel::new(part).map_err(|e| failed("the model", e))?;
        let party = Party::setup(planned, lane, &[seco_protocol::OT_PARAMETER; 2], *keys::secret()?)
            .map_err(|e| failed("the set-up", e))?;
        let setup = clock.stop(&mut lanes)?;
        Ok(Work { party, lanes, ledger, session: job.token.0, keys, setup })
    }

    fn all(mut self, job: &Job) -> Result<Outcome, Error> {
        let (mut preprocessing, mut online) = (Spent::default(), Spent::default());
        let mut logits = Vec::new();
        let mut inputs = job.inputs.iter();
        for (counter, &id) in (0..).zip(&job.bundles) {
            let clock = Clock::start(&mut self.lanes)?;
            let [linear, nonlinear] = &mut self.lanes;
            let bundle = self.party.preprocess(
                id,
                self.party.next_bundle(),
                linear,
                nonlinear,
                *keys::secret()?,
                Box::new(MemorySpool::default()),
            );
            let bundle = bundle.map_err(|e| failed("preprocessing", e))?;
            preprocessing += clock.stop(&mut self.lanes)?;

            let clock = Clock::start(&mut self.lanes)?;
            let usage = Use { session: self.session, incarnation: [0; 16], counter };
            let bundle = bundle.spend(&self.ledger, &usage);
            let bundle = bundle.map_err(|e| failed("the inference", e))?;
            let answer = if job.me == DEVICE {
                let input = inputs.next().ok_or_else(|| failed("the inference", "no input"))?;
                Some(self.ask(bundle, counter, input)?)
            } else {
                self.serve(bundle)?;
                None
            };
            online += clock.stop(&mut self.lanes)?;
            logits.extend(answer);
        }
        self.lanes.into_iter().for_each(Lane::close);
        let peak_memory = process::peak_memory()?;
        Ok(Outcome { setup: self.setup, preprocessing, online, peak_memory, logits })
    }

    /// The device: masks its input for both parties, does its part, and takes the masks off the answer.
    fn ask(&mut self, bundle: SpentBundle, counter: u64, input: &[u8]) -> Result<Vec<i32>, Error> {
        let what = "the device's inference";
        let architecture = self.party.architecture();
        let (classes, width) = (architecture.graph.answer_len(), architecture.graph.answer_width());
        let [lane, _] = &mut self.lanes;
        let mut masked = input.to_vec();
        for key in &self.keys {
            key.apply_input_pad(counter, &mut masked).map_err(|e| failed(what, e))?;
        }
        lane.send(SERVER, masked).map_err(|e| failed(what, e))?;
        let own = self.keys.get(DEVICE).ok_or_else(|| failed(what, "no session key"))?;
        bundle.infer(self.party.planned(), lane, own, None).map_err(|e| failed(what, e))?;

        let packed = lane.recv(SERVER, pack::packed_len(classes, width)).map_err(|e| failed(what, e))?;
        let mut words = vec![0; classes];
        pack::unpack(&packed, width, &mut words).map_err(|e| failed(what, e))?;
        let mut pad = Zeroizing::new(vec![0; classes]);
        for key in &self.keys {
            key.output_pad(counter, width, &mut pad).map_err(|e| failed(what, e))?;
            words.iter_mut().zip(pad.iter()).for_each(|(word, pad)| *word = word.wrapping_sub(*pad));
        }
        // Two's complement of `width` bits.
        let unused = u32::BITS - width.clamp(1, u32::BITS);
        Ok(words.iter().map(|&word| (word << unused).cast_signed() >> unused).collect())
    }

    /// The server: receives the masked input and sends the masked answer.
    fn serve(&mut self, bundle: SpentBundle) -> Result<(), Error> {
        let what = "the server's inference";
        let architecture = self.party.architecture();
        let [lane, _] = &mut self.lanes;
        let masked = lane.recv(DEVICE, architecture.graph.input.byte_len()).map_err(|e| failed(what, e))?;
        let own = self.keys.get(SERVER).ok_or_else(|| failed(what, "no session key"))?;
        let words =
            bundle.infer(self.party.planned(), lane, own, Some(&masked)).map_err(|e| failed(what, e))?;
        let words = words.ok_or_else(|| failed(what, "no answer"))?;
        let width = architecture.graph.answer_width();
        let mut packed = vec![0; pack::packed_len(words.len(), width)];
        pack::pack(&words, width, &mut packed).map_err(|e| failed(what, e))?;
        lane.send(DEVICE, packed).map_err(|e| failed(what, e))
    }
}

/// Readings at the start of a phase, which both parties begin and end together.
struct Clock {
    cpu: Duration,
    wall: Instant,
    sent: u64,
    received: u64,
}

impl Clock {
    fn start(lanes: &mut [Lane; LANES]) -> Result<Clock, Error> {
        meet(lanes)?;
        let (sent, received) = counts(lanes);
        Ok(Clock { cpu: process::cpu_time()?, wall: Instant::now(), sent, received })
    }

    fn stop(self, lanes: &mut [Lane; LANES]) -> Result<Spent, Error> {
        let (sent, received) = counts(lanes);
        meet(lanes)?;
        Ok(Spent {
            cpu: process::cpu_time()?.saturating_sub(self.cpu),
            wall: self.wall.elapsed(),
            sent: sent - self.sent,
            received: received - self.received,
        })
    }
}

fn meet(lanes: &mut [Lane; LANES]) -> Result<(), Error> {
    lanes.iter_mut().try_for_each(Lane::meet).map_err(|e| failed("meeting the other party", e))
}

fn counts(lanes: &[Lane; LANES]) -> (u64, u64) {
    (lanes.iter().map(|l| l.sent).sum(), lanes.iter().map(|l| l.received).sum())
}
