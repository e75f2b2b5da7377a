//! Preprocessing of non-linear layers: one server's part in garbling all circuits of a bundle
//! (`protocol.md` section 5).
//!
//! Per wave of batches: correlated OTs, one exchange of cross bits, one of corrections, tables to
//! the evaluator, whose prefix is evaluated at once. All batches of a wave go through a phase
//! together, so the number of rounds does not depend on the model's depth.
//!
//! # Streaming and back-pressure
//!
//! Waves follow each other through the phases as through a pipeline: while one is garbled, the
//! correlated OTs of the third after it are on their way. All servers go through phases, waves and
//! batches in the same order, and what a phase sends is received in a later one, so nobody waits
//! for somebody who waits for him.
//!
//! Nobody can run ahead either: for every batch each garbler needs a message from every other server
//! (the evaluator's choices, the other garblers' choices and bits), and nobody sends those of a wave
//! before it is done with the fifth before it. So at most [`PHASES`] waves wait in any queue, whoever
//! is slow, and a server's memory does not depend on the model.

use rand_core::CryptoRng;
use seco_garble::program::Source;
use seco_garble::{Batch, Corrected, Crossed, Evaluator, Folding, Garbler, OnlineEvaluator, OnlineGarbler};
use seco_ot::{Bits, Block, Delta, FixedKey};
use zeroize::Zeroizing;

use crate::channel::Channel;
use crate::draws::Draws;
use crate::error::{Error, from_peer};
use crate::links::Links;
use crate::plan::{GarblingKeys, Plan};
use crate::spool::Spool;

/// Phases of a wave: choose, cross, correct, garble, finish. As many waves are under way at a time.
const PHASES: usize = 5;

/// One server's part of a batch, ready for the online phase.
pub enum Role {
    /// It garbled the batch.
    Garbler(OnlineGarbler),
    /// It evaluates the batch, whose material is in the spool.
    Evaluator(OnlineEvaluator),
}

/// What a server brings to a bundle's circuits.
pub struct Work<'a> {
    /// The model's circuits.
    pub plan: &'a Plan,
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

impl<'a> Work<'a> {
    /// Garbles and receives all batches, by step.
    pub fn preprocess(
        mut self,
        channel: &mut dyn Channel,
        spool: &mut dyn Spool,
        rng: &mut impl CryptoRng,
    ) -> Result<Vec<Vec<Role>>, Error> {
        let mut roles: Vec<Vec<Role>> = self.plan.steps.iter().map(|_| Vec::new()).collect();
        let (mut chosen, mut crossed, mut corrected, mut garbled) = (None, None, None, None);
        let all = self.plan.waves(self.wave_bytes);
        let mut waves = all.iter();
        for _ in 1..all.len() + PHASES {
            // The youngest first: what it sends has the whole turn for its way.
            let next = waves.next().map(|wave| self.choose(wave, channel, rng)).transpose()?;
            let wave = std::mem::replace(&mut chosen, next);
            let next = wave.map(|wave| self.cross(wave, channel)).transpose()?;
            let wave = std::mem::replace(&mut crossed, next);
            let next =
                wave.map(|wave| advance(wave, |job, state| job.correct(state, channel))).transpose()?;
            let wave = std::mem::replace(&mut corrected, next);
            let garble = |job: &Job, state| job.garble(state, channel, self.delta, rng);
            let next = wave.map(|wave| advance(wave, garble)).transpose()?;
            for (job, state) in std::mem::replace(&mut garbled, next).into_iter().flatten() {
                let role = job.finish(state, channel, spool)?;
                if let Some(roles) = roles.get_mut(job.step) {
                    roles.push(role);
                }
            }
        }
        Ok(roles)
    }

    /// First phase: masks are drawn and the choices of all correlated OTs sent.
    fn choose(
        &mut self,
        wave: &[(usize, usize)],
        channel: &mut dyn Channel,
        rng: &mut impl CryptoRng,
    ) -> Result<Wave<'a, Chosen>, Error> {
        let me = channel.me();
        let mut jobs = Vec::with_capacity(wave.len());
        let mut choices = Vec::with_capacity(wave.len());
        for &(step, index) in wave {
            let Some(batch) = self.plan.steps.get(step).and_then(|s| s.batches.get(index)) else { continue };
            let job = Job { step, batch, key: self.keys.of(batch), me };
            let (own, bits) = job.start(self.draws, rng)?;
            choices.push((bits, job.others().map(|(_, server)| server).collect()));
            jobs.push((job, own));
        }
        let received = self.links.choose(channel, &choices)?;
        Ok(jobs.into_iter().zip(received).map(|((job, own), received)| (job, (own, received))).collect())
    }

    /// Second phase: the others' choices give the keys; the garblers' cross terms follow.
    fn cross(
        &mut self,
        wave: Wave<'a, Chosen>,
        channel: &mut dyn Channel,
    ) -> Result<Wave<'a, State<Crossed>>, Error> {
        let counts: Vec<Vec<(usize, usize)>> = wave.iter().map(|(job, _)| job.keys_wanted()).collect();
        let mut keys = self.links.keys(channel, &counts)?.into_iter();
        advance(wave, |job, chosen| {
            job.correlate(chosen, keys.next().unwrap_or_default(), channel, self.delta)
        })
    }
}

/// A batch within a wave.
struct Job<'a> {
    step: usize,
    batch: &'a Batch,
    key: FixedKey,
    me: usize,
}

/// The jobs of a wave in one phase.
type Wave<'a, S> = Vec<(Job<'a>, S)>;

/// Takes all jobs of a wave through one phase.
fn advance<'a, A, B>(
    wave: Wave<'a, A>,
    mut phase: impl FnMut(&Job<'a>, A) -> Result<B, Error>,
) -> Result<Wave<'a, B>, Error> {
    wave.into_iter()
        .map(|(job, state)| {
            let next = phase(&job, state)?;
            Ok((job, next))
        })
        .collect()
}

/// A server's state in a batch: garbler states one after the other, or the evaluator's.
enum State<G, E = Folding> {
    Garbler(G),
    Evaluator(E),
}

/// What choices were drawn for, and `M` towards every other server of the batch.
type Chosen = (State<Garbler, Evaluator>, Correlations);

/// Ends of correlated OTs, by other server in the order of [`Job::others`] and, for keys, the
/// evaluator last.
type Correlations = Vec<Zeroizing<Vec<Block>>>;

impl Job<'_> {
    /// The other garblers as (position, server).
    fn others(&self) -> impl Iterator<Item = (usize, usize)> + '_ {
        let circuit = &self.batch.circuit;
        (0..circuit.garblers()).map(|i| (i, circuit.server(i))).filter(|&(_, server)| server != self.me)
    }

    fn start(
        &self,
        draws: &Draws,
        rng: &mut impl CryptoRng,
    ) -> Result<(State<Garbler, Evaluator>, Bits), Error> {
        let circuit = &self.batch.circuit;
        let share = draws.ahead_words(self.batch);
        if let Some(position) = circuit.position(self.me) {
            let garbler = Garbler::new(self.batch.clone(), position, &share, rng)?;
            let choices = garbler.choices();
            return Ok((State::Garbler(garbler), choices));
        }
        // Where the evaluator's word is only known online, its random word is drawn here.
        let drawn: Vec<Zeroizing<Vec<u32>>> = if share.is_empty() {
            let words = circuit.program.words.iter().filter(|w| w.source == Source::Choice);
            words.map(|word| crate::draws::uniform(self.batch.lanes, word.width, rng)).collect()
        } else {
            Vec::new()
        };
        let words: Vec<&[u32]> =
            if share.is_empty() { drawn.iter().map(|w| w.as_slice()).collect() } else { share };
        let evaluator = Evaluator::new(self.batch.clone(), &words)?;
        let choices = evaluator.choices();
        Ok((State::Evaluator(evaluator), choices))
    }

    /// Servers whose choices this one needs, each with their number.
    fn keys_wanted(&self) -> Vec<(usize, usize)> {
        if self.batch.circuit.position(self.me).is_none() {
            return Vec::new();
        }
        let garblers = self.others().map(|(i, server)| (server, self.batch.garbler_correlations(i)));
        let evaluator = (self.batch.circuit.evaluator, self.batch.evaluator_correlations());
        garblers.chain([evaluator]).collect()
    }

    fn correlate(
        &self,
        (state, received): Chosen,
        mut keys: Correlations,
        channel: &mut dyn Channel,
        delta: &Delta,
    ) -> Result<State<Crossed>, Error> {
        let garbler = match state {
            State::Garbler(garbler) => garbler,
            State::Evaluator(evaluator) => return Ok(State::Evaluator(evaluator.receive(received)?)),
        };
        let labels = keys.pop().unwrap_or_default();
        let by_position = |ends: Correlations| {
            let mut all = vec![Zeroizing::new(Vec::new()); self.batch.garblers()];
            for ((i, _), end) in self.others().zip(ends) {
                all[i] = end;
            }
            all
        };
        let correlated = garbler.correlate(by_position(received), by_position(keys), labels)?;
        let (crossed, mut messages) = correlated.cross(delta, &self.key);
        for (i, server) in self.others() {
            channel.send(server, std::mem::take(&mut messages[i]))?;
        }
        Ok(State::Garbler(crossed))
    }

    /// One message of `bytes` from every other garbler, by position.
    fn gather(&self, channel: &mut dyn Channel, bytes: usize) -> Result<Vec<Vec<u8>>, Error> {
        let mut messages = vec![Vec::new(); self.batch.garblers()];
        for (i, server) in self.others() {
            messages[i] = channel.recv(server, bytes)?;
            if messages[i].len() != bytes {
                return Err(Error::Peer { peer: server, phase: "garbling bits" });
            }
        }
        Ok(messages)
    }

    /// Third phase: the cross bits give the corrections.
    fn correct(&self, state: State<Crossed>, channel: &mut dyn Channel) -> Result<State<Corrected>, Error> {
        let crossed = match state {
            State::Garbler(state) => state,
            State::Evaluator(folding) => return Ok(State::Evaluator(folding)),
        };
        let incoming = self.gather(channel, self.batch.bit_bytes())?;
        let (corrected, message) = crossed.correct(&incoming)?;
        for (_, server) in self.others() {
            channel.send(server, message.clone())?;
        }
        Ok(State::Garbler(corrected))
    }

    /// Fourth phase: tables.
    fn garble(
        &self,
        state: State<Corrected>,
        channel: &mut dyn Channel,
        delta: &Delta,
        rng: &mut impl CryptoRng,
    ) -> Result<State<OnlineGarbler>, Error> {
        let corrected = match state {
            State::Garbler(state) => state,
            State::Evaluator(folding) => return Ok(State::Evaluator(folding)),
        };
        let incoming = self.gather(channel, self.batch.bit_bytes())?;
        let (online, tables) = corrected.garble(delta, &incoming, &self.key, rng, channel.blank())?;
        channel.send(self.batch.circuit.evaluator, tables)?;
        Ok(State::Garbler(online))
    }

    /// Last phase: the evaluator has all tables.
    fn finish(
        &self,
        state: State<OnlineGarbler>,
        channel: &mut dyn Channel,
        spool: &mut dyn Spool,
    ) -> Result<Role, Error> {
        let mut folding = match state {
            State::Garbler(state) => return Ok(Role::Garbler(state)),
            State::Evaluator(folding) => folding,
        };
        for (position, server) in self.others() {
            let tables = channel.recv(server, self.batch.table_bytes(position))?;
            from_peer(folding.tables(position, tables), server, "garbled tables")?;
        }
        let (evaluator, material) = folding.prefix(&self.key, spool.blank())?;
        spool.put(material)?;
        Ok(Role::Evaluator(evaluator))
    }
}
