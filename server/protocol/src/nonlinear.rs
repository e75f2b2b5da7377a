//! Preprocessing of non-linear layers: one server's part in garbling all circuits of a bundle
//! (`protocol.md` section 5).
//!
//! Per wave of batches: correlated OTs, one exchange of cross bits, one of corrections, tables to
//! the evaluator, whose prefix is evaluated at once. All batches of a wave go through a phase
//! together, so the number of rounds does not depend on the model's depth.

use rand_core::CryptoRng;
use seco_garble::program::Source;
use seco_garble::{
    Batch, Corrected, Correlated, Crossed, Evaluator, Folding, Garbler, OnlineEvaluator, OnlineGarbler,
};
use seco_ot::{Delta, FixedKey};
use zeroize::Zeroizing;

use crate::BundleId;
use crate::channel::Channel;
use crate::draws::Draws;
use crate::error::{Error, from_peer};
use crate::links::Links;
use crate::plan::{Plan, garbling_key};

/// One server's part of a batch, ready for the online phase.
pub enum Role {
    /// It garbled the batch.
    Garbler(OnlineGarbler),
    /// It evaluates the batch.
    Evaluator(OnlineEvaluator),
}

/// Garbles and receives all batches, by step.
pub fn preprocess(
    plan: &Plan,
    bundle: &BundleId,
    draws: &Draws,
    delta: &Delta,
    links: &mut Links,
    channel: &mut dyn Channel,
    rng: &mut impl CryptoRng,
) -> Result<Vec<Vec<Role>>, Error> {
    let mut steps: Vec<Vec<Role>> = plan.steps.iter().map(|_| Vec::new()).collect();
    for wave in &plan.waves {
        let mut jobs = Vec::with_capacity(wave.len());
        for &(step, index) in wave {
            let Some(batch) = plan.steps.get(step).and_then(|s| s.batches.get(index)) else { continue };
            let job = Job { batch, key: garbling_key(bundle, batch), me: channel.me() };
            let state = job.start(draws, links, channel, rng)?;
            jobs.push((step, job, state));
        }
        let jobs = advance(jobs, |job, state| job.correlate(state, links, channel, delta))?;
        let jobs = advance(jobs, |job, state| job.correct(state, channel))?;
        let jobs = advance(jobs, |job, state| job.garble(state, channel, delta, rng))?;
        for (step, job, state) in jobs {
            let role = job.finish(state, channel)?;
            if let Some(roles) = steps.get_mut(step) {
                roles.push(role);
            }
        }
    }
    Ok(steps)
}

/// A batch within a wave.
struct Job<'a> {
    batch: &'a Batch,
    key: FixedKey,
    me: usize,
}

/// Takes all jobs of a wave through one phase.
fn advance<'a, A, B>(
    jobs: Vec<(usize, Job<'a>, A)>,
    mut phase: impl FnMut(&Job<'a>, A) -> Result<B, Error>,
) -> Result<Vec<(usize, Job<'a>, B)>, Error> {
    jobs.into_iter()
        .map(|(step, job, state)| {
            let next = phase(&job, state)?;
            Ok((step, job, next))
        })
        .collect()
}

/// A server's state in a batch: garbler states one after the other, or the evaluator's, which waits
/// for tables from the first phase on.
enum State<G> {
    Garbler(G),
    Evaluator(Folding),
}

/// Choices are sent; `M` towards every other garbler, by position.
struct Chosen {
    garbler: Garbler,
    received: Vec<Zeroizing<Vec<seco_ot::Block>>>,
}

impl Job<'_> {
    /// The other garblers as (position, server).
    fn others(&self) -> impl Iterator<Item = (usize, usize)> + '_ {
        let circuit = &self.batch.circuit;
        (0..circuit.garblers()).map(|i| (i, circuit.server(i))).filter(|&(_, server)| server != self.me)
    }

    fn start(
        &self,
        draws: &Draws,
        links: &mut Links,
        channel: &mut dyn Channel,
        rng: &mut impl CryptoRng,
    ) -> Result<State<Chosen>, Error> {
        let circuit = &self.batch.circuit;
        let Some(position) = circuit.position(self.me) else {
            let program = &circuit.program;
            let share = draws.ahead_words(self.batch);
            // Where the evaluator's word is only known online, its random word is drawn here.
            let drawn: Vec<Zeroizing<Vec<u32>>> = if share.is_empty() {
                let widths = program.words.iter().filter(|w| w.source == Source::Choice).map(|w| w.width);
                widths.map(|width| crate::draws::uniform(self.batch.lanes, width, rng)).collect()
            } else {
                Vec::new()
            };
            let words: Vec<&[u32]> =
                if share.is_empty() { drawn.iter().map(|w| w.as_slice()).collect() } else { share };
            let evaluator = Evaluator::new(self.batch.clone(), &words)?;
            let choices = evaluator.choices();
            let labels: Result<Vec<_>, Error> =
                (0..circuit.garblers()).map(|i| links.choose(channel, circuit.server(i), &choices)).collect();
            return Ok(State::Evaluator(evaluator.receive(labels?)?));
        };
        let garbler = Garbler::new(self.batch.clone(), position, &draws.ahead_words(self.batch), rng)?;
        let choices = garbler.choices();
        let mut received: Vec<_> = (0..circuit.garblers()).map(|_| Zeroizing::new(Vec::new())).collect();
        for (i, server) in self.others() {
            received[i] = links.choose(channel, server, &choices)?;
        }
        Ok(State::Garbler(Chosen { garbler, received }))
    }

    fn correlate(
        &self,
        state: State<Chosen>,
        links: &mut Links,
        channel: &mut dyn Channel,
        delta: &Delta,
    ) -> Result<State<Crossed>, Error> {
        let chosen = match state {
            State::Garbler(state) => state,
            State::Evaluator(folding) => return Ok(State::Evaluator(folding)),
        };
        let batch = self.batch;
        let mut keys: Vec<_> = (0..batch.garblers()).map(|_| Zeroizing::new(Vec::new())).collect();
        for (i, server) in self.others() {
            keys[i] = links.keys(channel, server, batch.garbler_correlations(i))?;
        }
        let labels = links.keys(channel, batch.circuit.evaluator, batch.evaluator_correlations())?;
        let correlated: Correlated = chosen.garbler.correlate(chosen.received, keys, labels)?;
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
        let (online, tables) = corrected.garble(delta, &incoming, &self.key, rng)?;
        channel.send(self.batch.circuit.evaluator, tables)?;
        Ok(State::Garbler(online))
    }

    fn finish(&self, state: State<OnlineGarbler>, channel: &mut dyn Channel) -> Result<Role, Error> {
        match state {
            State::Garbler(state) => Ok(Role::Garbler(state)),
            State::Evaluator(mut folding) => {
                let circuit = &self.batch.circuit;
                for position in 0..circuit.garblers() {
                    let server = circuit.server(position);
                    let tables = channel.recv(server, self.batch.table_bytes(position))?;
                    from_peer(folding.tables(position, &tables), server, "garbled tables")?;
                }
                Ok(Role::Evaluator(folding.prefix(&self.key)?))
            }
        }
    }
}
