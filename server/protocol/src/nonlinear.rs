//! Preprocessing of non-linear layers: one server's part in garbling all circuits of a bundle, and in its conversions
//! (sections 5 and 6 of PROTOCOL.md).
//!
//! Phases of a batch, with what is sent in each and received in the next:
//!
//! | phase | garbling | conversions |
//! |---|---|---|
//! | 0 | choices of all correlated OTs | |
//! | 1 | cross bits | round 1 |
//! | 2 | corrections | round 2 |
//! | 3 | tables, to the evaluator | round 3 |
//! | up to `2(n-1) + 1` | | the other rounds; in round `n`, openings by servers without an online part |
//!
//! # Streaming and back-pressure
//!
//! Waves follow each other through the phases as through a pipeline: while one is garbled, the
//! correlated OTs of the third after it are on their way. All servers go through phases, waves and
//! batches in the same order, and what a phase sends is received in the next one, so nobody waits
//! for somebody who waits for him.
//!
//! Nobody can run ahead either: for every batch each server needs a message from every other one, and nobody sends
//! those of a wave before it is done with the wave as many before it as there are phases. So at most that many wait in
//! any queue, whoever is slow, and a server's memory does not depend on the model.

use std::collections::VecDeque;

use rand_core::CryptoRng;
use seco_garble::convert::input::InputConversion;
use seco_garble::convert::pads::SeatPads;
use seco_garble::convert::projection::{self, Pads};
use seco_garble::convert::relu::{Conversion, Exchange};
use seco_garble::convert::{Lanes, Opening, Part, Share};
use seco_garble::slices::random_planes;
use seco_garble::{
    Batch, Corrected, Crossed, Evaluator, Folding, Garbler, InputBits, LambdaBits, OnlineEvaluator,
    OnlineGarbler,
};
use seco_model::graph::Graph;
use seco_ot::{Bits, Delta, FixedKey, Keys, Macs};

use crate::channel::Channel;
use crate::draws::Draws;
use crate::error::{Error, from_peer};
use crate::links::{Chosen, Links};
use crate::material::{CircuitPart, InputPart, Parts, Role};
use crate::plan::{GarblingKeys, Plan, Step, Unit};
use crate::spool::Spool;
use crate::values::Offline;

/// What a server brings to a bundle's circuits.
pub struct Work<'a> {
    /// The model's circuits.
    pub plan: &'a Plan,
    /// The model.
    pub graph: &'a Graph,
    /// The bundle's.
    pub keys: GarblingKeys,
    /// This server's random words.
    pub draws: &'a Draws,
    /// This server's offset.
    pub delta: &'a Delta,
    /// Correlated OTs with that offset.
    pub links: Links,
    /// Size of a wave.
    pub wave_bytes: usize,
}

/// The last phase of a batch: the evaluator's, which gets tables, or the last garbler's, which joins the chain.
fn last_phase(servers: usize) -> usize {
    Conversion::rounds(servers.saturating_sub(1)).max(4)
}

/// Messages in sequence: two for the bundle's extensions, the choices, then one in every phase that has messages in
/// the next. Conversions have the most: tables wait for no more messages than the chain does. Every further wave ends
/// a turn later.
pub fn messages(servers: usize, plan: &Plan, wave_bytes: usize) -> usize {
    // The input's masks are bits of all servers, which join one after the other.
    let phases = if plan.steps.is_empty() { servers } else { Conversion::rounds(servers.saturating_sub(1)) };
    2 + phases + plan.waves(wave_bytes).len().saturating_sub(1)
}

/// The batches of a wave, with the MACs that they chose.
type Wave<'a> = Vec<Job<'a>>;

impl<'a> Work<'a> {
    /// Garbles, receives and converts all batches.
    pub fn preprocess(
        mut self,
        channel: &mut dyn Channel,
        spool: &mut dyn Spool,
        rng: &mut impl CryptoRng,
    ) -> Result<Parts, Error> {
        let mut parts = Parts::default();
        parts.steps.resize_with(self.plan.steps.len(), Vec::new);
        let last = last_phase(channel.parties());
        let mut waves = self.plan.waves(self.wave_bytes).into_iter();
        let mut ahead = self.ahead(channel.me());
        let mut under_way: VecDeque<(usize, Wave)> = VecDeque::new();
        loop {
            // The youngest first: what it sends has the whole turn for its way.
            let next = waves.next().map(|units| self.choose(&units, &mut ahead, channel, rng)).transpose()?;
            for (phase, wave) in &mut under_way {
                *phase += 1;
                if *phase == 1 {
                    self.correlate(wave, channel)?;
                }
                // Of all batches first what waits for less: tables need not wait for another batch's conversions.
                for job in wave.iter_mut() {
                    job.garble(*phase, channel, self.delta, spool, rng)?;
                }
                for job in wave {
                    job.convert(*phase, channel)?;
                }
            }
            if under_way.back().is_some_and(|(phase, _)| *phase == last) {
                for job in under_way.pop_back().into_iter().flat_map(|(_, wave)| wave) {
                    job.finish(&mut parts)?;
                }
            }
            match next {
                Some(wave) => under_way.push_front((0, wave)),
                None if under_way.is_empty() => {
                    parts.links = self.links.into_replays();
                    return Ok(parts);
                }
                None => {}
            }
        }
    }

    /// First phase: masks are drawn and the choices of all correlated OTs sent.
    fn choose(
        &mut self,
        units: &[Unit],
        ahead: &mut Offline,
        channel: &mut dyn Channel,
        rng: &mut impl CryptoRng,
    ) -> Result<Wave<'a>, Error> {
        let me = channel.me();
        let mut jobs = Vec::with_capacity(units.len());
        let mut choices = Vec::with_capacity(2 * units.len());
        for &unit in units {
            let job = match unit {
                Unit::Input(index) => self.input(index, channel, rng).ok_or(NO_BATCH)?,
                Unit::Step(step, index) => self.circuit((step, index), ahead, me, rng)?,
            };
            choices.extend(job.choices());
            jobs.push(job);
        }
        let mut macs = self.links.choose(channel, &choices)?.into_iter();
        for job in &mut jobs {
            let [first, second] = [(); 2].map(|()| macs.next().unwrap_or_default());
            job.chosen(first, second);
        }
        Ok(jobs)
    }

    fn input(&self, index: usize, channel: &dyn Channel, rng: &mut impl CryptoRng) -> Option<Job<'a>> {
        let input = &self.plan.input;
        let lanes = input.batches.get(index)?;
        let mask = random_planes(input.shape.bits as usize, lanes.len(), rng);
        Some(Job::Input(Box::new(InputJob {
            shape: input.shape,
            server: channel.me(),
            servers: channel.parties(),
            first_lane: lanes.start as u32,
            lanes: lanes.len(),
            key: self.keys.of(0, lanes.start as u32),
            mask: InputBits::drawn(mask),
            macs: Vec::new(),
            conversion: None,
        })))
    }

    fn circuit(
        &self,
        (step_index, index): (usize, usize),
        ahead: &mut Offline,
        me: usize,
        rng: &mut impl CryptoRng,
    ) -> Result<Job<'a>, Error> {
        let step = self.plan.steps.get(step_index).ok_or(NO_BATCH)?;
        let batch = step.batches.get(index).ok_or(NO_BATCH)?;
        let seat = step.seat(me);
        let garbling = if seat < step.garblers() {
            Garbling::Started(Garbler::new(batch.clone(), seat, rng)?)
        } else {
            Garbling::Drawn(Evaluator::new(batch.clone(), rng)?)
        };
        let lanes = batch.first_lane as usize..batch.first_lane as usize + batch.lanes;
        let ahead = if step.openers.contains(me) {
            None
        } else {
            let share = ahead.read(step.input, |share| share.lanes(lanes).map(Lanes::to_words))?;
            Some(share.ok_or(NO_BATCH)?)
        };
        Ok(Job::Circuit(Box::new(CircuitJob {
            step,
            step_index,
            batch,
            seat,
            me,
            key: self.keys.of(batch.step, batch.first_lane),
            ahead,
            garbling,
            positions: Vec::new(),
            macs: Vec::new(),
            reverse: Vec::new(),
            conversion: None,
            opening: None,
        })))
    }

    /// What this server sends ahead where it has no online part: its offline shares, read once a batch.
    fn ahead(&self, me: usize) -> Offline<'a> {
        let steps = self.plan.steps.iter().filter(|step| !step.openers.contains(me));
        let reads = steps.flat_map(|step| std::iter::repeat_n(step.input, step.batches.len()));
        Offline::new((self.graph, &self.plan.flow), &self.draws.masks, &self.draws.words, reads)
    }

    /// Second phase: the others' choices give the keys.
    fn correlate(&mut self, wave: &mut Wave, channel: &mut dyn Channel) -> Result<(), Error> {
        let wanted: Vec<Vec<(usize, usize)>> = wave.iter().flat_map(Job::keys_wanted).collect();
        let mut keys = self.links.keys(channel, &wanted)?.into_iter();
        for job in wave {
            let [first, second] = [(); 2].map(|()| keys.next().unwrap_or_default());
            job.correlate(first, second, self.delta)?;
        }
        Ok(())
    }
}

/// A batch within a wave.
enum Job<'a> {
    Input(Box<InputJob>),
    Circuit(Box<CircuitJob<'a>>),
}

impl Job<'_> {
    /// Choices of correlated OTs, each with the servers they go to.
    fn choices(&self) -> [(Bits, Vec<usize>); 2] {
        match self {
            Job::Input(job) => {
                [(job.mask.choices(), (0..job.server).collect()), (Bits::default(), Vec::new())]
            }
            Job::Circuit(job) => job.choices(),
        }
    }

    /// The MACs of both.
    fn chosen(&mut self, first: Vec<Chosen>, second: Vec<Chosen>) {
        let macs = |chosen: Vec<Chosen>| chosen.into_iter().map(|(_, macs)| macs).collect();
        match self {
            Job::Input(job) => job.macs = macs(first),
            Job::Circuit(job) => {
                job.positions = first.iter().map(|(position, _)| *position).collect();
                (job.macs, job.reverse) = (macs(first), macs(second));
            }
        }
    }

    /// Servers whose choices this one needs, each with their number.
    fn keys_wanted(&self) -> [Vec<(usize, usize)>; 2] {
        match self {
            Job::Input(job) => {
                let count = job.shape.correlations(job.lanes);
                [(job.server + 1..job.servers).map(|later| (later, count)).collect(), Vec::new()]
            }
            Job::Circuit(job) => job.keys_wanted(),
        }
    }

    fn correlate(&mut self, first: Vec<Keys>, second: Vec<Keys>, delta: &Delta) -> Result<(), Error> {
        match self {
            Job::Input(job) => {
                let at = [job.server, job.servers, job.lanes];
                let ends = (&job.macs[..], &first[..]);
                let mask = job.mask.clone();
                job.conversion =
                    Some(InputConversion::new(job.shape, at, job.first_lane, mask, ends, delta, &job.key));
                job.macs = Vec::new();
                Ok(())
            }
            Job::Circuit(job) => job.correlate(first, second, delta),
        }
    }

    /// Garbling's part of a phase.
    fn garble(
        &mut self,
        phase: usize,
        channel: &mut dyn Channel,
        delta: &Delta,
        spool: &mut dyn Spool,
        rng: &mut impl CryptoRng,
    ) -> Result<(), Error> {
        match self {
            Job::Circuit(job) if phase <= 4 => job.garble(phase, channel, delta, spool, rng),
            _ => Ok(()),
        }
    }

    /// The conversions' part of a phase.
    fn convert(&mut self, phase: usize, channel: &mut dyn Channel) -> Result<(), Error> {
        match self {
            Job::Input(job) => {
                let mut peers = Peers { channel, server: |seat| seat, phase: "input masks" };
                job.conversion.as_mut().ok_or(OUT_OF_ORDER)?.round(phase, &mut peers)
            }
            Job::Circuit(job) => job.convert(phase, channel),
        }
    }

    fn finish(self, parts: &mut Parts) -> Result<(), Error> {
        match self {
            Job::Input(job) => {
                let shares = job.conversion.ok_or(OUT_OF_ORDER)?.finish();
                parts.input.push(InputPart { mask: job.mask, shares });
            }
            Job::Circuit(job) => {
                let step = parts.steps.get_mut(job.step_index).ok_or(OUT_OF_ORDER)?;
                step.push(job.finish()?);
            }
        }
        Ok(())
    }
}

const NO_BATCH: Error = Error::Misuse("a batch that the plan does not have");
const OUT_OF_ORDER: Error = Error::Misuse("phases of preprocessing out of order");

/// The other servers of a batch, by seat.
struct Peers<'a, F> {
    channel: &'a mut dyn Channel,
    server: F,
    phase: &'static str,
}

impl<F: Fn(usize) -> usize> Exchange for Peers<'_, F> {
    type Error = Error;

    fn send(&mut self, seat: usize, message: Vec<u8>) -> Result<(), Error> {
        Ok(self.channel.send((self.server)(seat), message)?)
    }

    fn recv(&mut self, seat: usize, length: usize) -> Result<Vec<u8>, Error> {
        receive(self.channel, (self.server)(seat), length, self.phase)
    }
}

/// A message of exactly `length` bytes.
pub fn receive(
    channel: &mut dyn Channel,
    peer: usize,
    length: usize,
    phase: &'static str,
) -> Result<Vec<u8>, Error> {
    let message = channel.recv(peer, length)?;
    if message.len() == length { Ok(message) } else { Err(Error::Peer { peer, phase }) }
}

/// A batch of the input.
struct InputJob {
    shape: seco_garble::convert::input::InputShape,
    server: usize,
    servers: usize,
    first_lane: u32,
    lanes: usize,
    key: FixedKey,
    mask: InputBits,
    /// MACs towards earlier servers.
    macs: Vec<Macs>,
    conversion: Option<InputConversion>,
}

/// A server's state in garbling a batch: one after the other, a garbler's or the evaluator's.
enum Garbling {
    Started(Garbler),
    Crossed(Crossed),
    Corrected(Corrected),
    Garbled(OnlineGarbler, Pads),
    Drawn(Evaluator),
    Folding(Folding),
    Folded(OnlineEvaluator),
    /// Between two states.
    Moving,
}

/// A batch of a circuit.
struct CircuitJob<'a> {
    step: &'a Step,
    step_index: usize,
    batch: &'a Batch,
    seat: usize,
    me: usize,
    key: FixedKey,
    /// Where this server has no online part of the values: its share of them.
    ahead: Option<Share>,
    garbling: Garbling,
    /// Where the links were before this batch's choices.
    positions: Vec<u64>,
    /// MACs towards the other garblers, or the evaluator's towards all.
    macs: Vec<Macs>,
    /// A garbler's towards the evaluator.
    reverse: Vec<Macs>,
    conversion: Option<Conversion>,
    opening: Option<Opening>,
}

impl CircuitJob<'_> {
    /// The other garblers as (position, server).
    fn others(&self) -> impl Iterator<Item = (usize, usize)> + '_ {
        (0..self.step.garblers()).map(|i| (i, self.step.server(i))).filter(|&(_, server)| server != self.me)
    }

    /// What there is of the other garblers, by position, and nothing at this one's.
    fn by_position<T: Default>(&self, ends: Vec<T>) -> Vec<T> {
        let mut all: Vec<T> = (0..self.step.garblers()).map(|_| T::default()).collect();
        for ((i, _), end) in self.others().zip(ends) {
            all[i] = end;
        }
        all
    }

    fn choices(&self) -> [(Bits, Vec<usize>); 2] {
        let others = self.others().map(|(_, server)| server).collect();
        match &self.garbling {
            Garbling::Started(garbler) => {
                let masks = garbler.output_masks();
                let sign = masks.planes().get(..self.batch.words()).unwrap_or_default();
                let reverse = Bits::from_words(sign.to_vec(), self.batch.stride());
                [(garbler.choices(), others), (reverse, vec![self.step.evaluator])]
            }
            Garbling::Drawn(evaluator) => [(evaluator.choices(), others), (Bits::default(), Vec::new())],
            _ => Default::default(),
        }
    }

    fn keys_wanted(&self) -> [Vec<(usize, usize)>; 2] {
        let batch = self.batch;
        if self.seat == self.step.garblers() {
            return [Vec::new(), self.others().map(|(_, server)| (server, batch.stride())).collect()];
        }
        let between = self.others().map(|(_, server)| (server, batch.garbler_correlations())).collect();
        [between, vec![(self.step.evaluator, batch.evaluator_correlations())]]
    }

    /// The correlations are there: conversions can begin, and the cross bits are computed.
    fn correlate(&mut self, first: Vec<Keys>, mut second: Vec<Keys>, delta: &Delta) -> Result<(), Error> {
        let at = [self.step.garblers(), self.seat, self.batch.lanes];
        let macs = std::mem::take(&mut self.macs);
        match std::mem::replace(&mut self.garbling, Garbling::Moving) {
            Garbling::Started(garbler) => {
                let (rho, masks) = (garbler.random(), garbler.output_masks());
                let received = self.by_position(macs);
                let keys = self.by_position(first);
                let correlated = garbler.correlate(received, keys, second.pop().unwrap_or_default())?;
                let (crossed, outputs) = correlated.cross(delta, &self.key);
                let reverse = self.reverse.pop().ok_or(OUT_OF_ORDER)?;
                let pads = SeatPads::garbler(&crossed, &outputs, &reverse, delta, &self.key);
                self.conversion = Some(Conversion::new(self.step.shape, at, rho, masks, pads)?);
                self.garbling = Garbling::Crossed(crossed);
            }
            Garbling::Drawn(evaluator) => {
                let rho = evaluator.random();
                let mut folding = evaluator.receive(macs)?;
                let pads = SeatPads::evaluator(&folding, &second, delta, &self.key);
                folding.forget_labels();
                self.conversion =
                    Some(Conversion::new(self.step.shape, at, rho, LambdaBits::default(), pads)?);
                self.garbling = Garbling::Folding(folding);
            }
            _ => return Err(OUT_OF_ORDER),
        }
        Ok(())
    }

    fn convert(&mut self, phase: usize, channel: &mut dyn Channel) -> Result<(), Error> {
        let step = self.step;
        if phase <= Conversion::rounds(step.garblers()) {
            let mut peers = Peers { channel, server: |seat| step.server(seat), phase: "conversion" };
            self.conversion.as_mut().ok_or(OUT_OF_ORDER)?.round(phase, &mut peers)?;
        }
        self.open(phase, channel)
    }

    fn garble(
        &mut self,
        phase: usize,
        channel: &mut dyn Channel,
        delta: &Delta,
        spool: &mut dyn Spool,
        rng: &mut impl CryptoRng,
    ) -> Result<(), Error> {
        self.garbling = match (phase, std::mem::replace(&mut self.garbling, Garbling::Moving)) {
            (1, Garbling::Crossed(mut crossed)) => {
                for (i, server) in self.others() {
                    channel.send(server, crossed.message(i))?;
                }
                Garbling::Crossed(crossed)
            }
            (2, Garbling::Crossed(crossed)) => {
                let incoming = self.gather(channel)?;
                let (corrected, message) = crossed.correct(&incoming)?;
                for (_, server) in self.others() {
                    channel.send(server, message.clone())?;
                }
                Garbling::Corrected(corrected)
            }
            (3, Garbling::Corrected(corrected)) => {
                let incoming = self.gather(channel)?;
                let blank = channel.blank();
                let (online, outputs, tables) = corrected.garble(delta, &incoming, &self.key, rng, blank)?;
                channel.send(self.step.evaluator, tables)?;
                let pads = projection::garbler_pads(self.batch, self.seat, &outputs, delta, &self.key);
                Garbling::Garbled(online, pads)
            }
            (4, Garbling::Folding(mut folding)) => {
                for (position, server) in self.others() {
                    let tables = channel.recv(server, self.batch.table_bytes(position))?;
                    from_peer(folding.tables(position, tables), server, "garbled tables")?;
                }
                let (evaluator, material) = folding.fold(&self.key, spool.blank())?;
                spool.put(material)?;
                Garbling::Folded(evaluator)
            }
            (_, state) => state,
        };
        Ok(())
    }

    /// One message of bits from every other garbler, by position.
    fn gather(&self, channel: &mut dyn Channel) -> Result<Vec<Vec<u8>>, Error> {
        let mut messages = vec![Vec::new(); self.step.garblers()];
        for (i, server) in self.others() {
            messages[i] = receive(channel, server, self.batch.bit_bytes(), "garbling bits")?;
        }
        Ok(messages)
    }

    /// Masked opening, the part that is known ahead: once every server has its share of `ρ`, those without an online
    /// part of `z` send theirs of `z + ρ` to the first that has one.
    fn open(&mut self, phase: usize, channel: &mut dyn Channel) -> Result<(), Error> {
        let (step, lanes) = (self.step, self.batch.lanes);
        let first = step.openers.first().ok_or(OUT_OF_ORDER)?;
        let ready = step.garblers() + 1;
        if phase == ready {
            let rho = self.conversion.as_ref().ok_or(OUT_OF_ORDER)?.rho();
            match self.ahead.take() {
                Some(share) => {
                    let part = share.under([(0..lanes, &rho)]).ok_or(OUT_OF_ORDER)?;
                    let mut message = Vec::with_capacity(step.opening_len(lanes));
                    part.encode(step.shape.width, &mut message);
                    channel.send(first, message)?;
                }
                None => self.opening = Some(rho),
            }
        }
        if phase == ready + 1 && self.me == first {
            for server in (0..step.servers).filter(|&server| !step.openers.contains(server)) {
                let message = receive(channel, server, step.opening_len(lanes), "masked opening")?;
                let opening = self.opening.as_mut().ok_or(OUT_OF_ORDER)?;
                opening.add_ahead(&Part::decode(&message, step.shape.width, lanes));
            }
        }
        Ok(())
    }

    fn finish(self) -> Result<CircuitPart, Error> {
        let role = match self.garbling {
            Garbling::Garbled(online, pads) => Role::Garbler(online, pads),
            Garbling::Folded(online) => Role::Evaluator(online, self.positions),
            _ => return Err(OUT_OF_ORDER),
        };
        let shares = self.conversion.ok_or(OUT_OF_ORDER)?.finish();
        Ok(CircuitPart { role, shares, opening: self.opening })
    }
}
