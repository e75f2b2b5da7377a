//! One ReLU layer by itself, without a model and without homomorphic encryption: what measures and
//! tests the non-linear half of the protocol (`protocol.md` sections 5 and 7).

use rand_core::{CryptoRng, Rng as _};
use seco_garble::program::Source;
use seco_model::{Activation, Architecture, Dense, Geometry, InputSpec, Layer as ModelLayer, Placement};
use seco_ot::Delta;
use zeroize::Zeroizing;

use crate::BundleId;
use crate::channel::Channel;
use crate::draws::Draws;
use crate::error::Error;
use crate::links::{LinkSeeds, Nonce, peers};
use crate::nonlinear::{Role, Work};
use crate::online::Run;
use crate::plan::{GarblingKeys, Plan, WAVE_BYTES};
use crate::seeds::Seeds;
use crate::spool::Spool;

fn words_of(bytes: &[u8]) -> Vec<u32> {
    bytes.as_chunks().0.iter().map(|word| u32::from_ne_bytes(*word)).collect()
}

/// The layer's step; step 0 is the input's circuit, of which there is one lane that is not evaluated.
const STEP: usize = 1;

/// Shape of the layer: `count` values of `width` bits, shifted right by `shift` and rectified.
#[derive(Clone, Copy, Debug)]
pub struct Layer {
    /// ReLUs.
    pub count: usize,
    /// Bits of a value before and of a mask after.
    pub width: u32,
    /// Bits dropped, fewer than `width`.
    pub shift: u32,
    /// Servers.
    pub servers: usize,
    /// SoftSpokenOT's parameter on every link.
    pub ot_parameter: usize,
}

impl Layer {
    /// The server whose word is known online: the last one.
    pub fn holder(&self) -> usize {
        self.servers.saturating_sub(1)
    }

    /// The server that evaluates.
    pub fn evaluator(&self) -> usize {
        STEP % self.servers.max(1)
    }

    /// As a model: a layer that makes the values, and one that consumes them.
    fn architecture(&self) -> Architecture {
        let dense = |inputs, outputs| Geometry::Dense(Dense { inputs, outputs });
        let layer = |geometry, activation, holder| ModelLayer {
            name: String::new(),
            geometry,
            width: self.width,
            activation,
            placement: Placement::Held(holder),
        };
        let relu = Activation::Relu { shift: self.shift };
        let output = Activation::Output { fraction: 0 };
        Architecture {
            name: String::new(),
            input: InputSpec::new(vec![1], 8),
            layers: vec![
                layer(dense(1, self.count), relu, self.holder()),
                layer(dense(self.count, 1), output, self.evaluator()),
            ],
            servers: self.servers,
        }
    }

    /// AND gates of the layer, and of those the ones that need the online word.
    pub fn and_gates(&self) -> [u64; 2] {
        let plan = Plan::new(&self.architecture());
        let all = plan.steps.get(STEP).map_or([0, 0], |step| {
            let program = &step.circuit.program;
            [program.ands, program.ands - program.prefix_ands]
        });
        all.map(|ands| (ands * self.count) as u64)
    }

    /// Correlated OTs and labels of input wires, for one ReLU and all servers, in bytes: `[in
    /// preprocessing, online]`. The rest of the traffic is the gates'.
    pub fn input_bytes(&self) -> [f64; 2] {
        let plan = Plan::new(&self.architecture());
        let Some(step) = plan.steps.get(STEP) else { return [0.0; 2] };
        let garblers = step.circuit.garblers();
        let program = &step.circuit.program;
        let per_cot = seco_ot::message_len(128, self.ot_parameter) as f64 / 128.0;
        let evaluator = program.count(|s| s == Source::Choice) * garblers;
        let between: usize = (0..garblers).map(|j| program.count(|s| seco_garble::owns(s, j))).sum();
        let between = between * (garblers - 1);
        let labels = program.count(|s| matches!(s, Source::Online(_))) * 16 * garblers;
        [(evaluator + between) as f64 * per_cot, labels as f64]
    }
}

/// One server of such a layer after set-up.
pub struct ReluLayer {
    layer: Layer,
    architecture: Architecture,
    plan: Plan,
    links: LinkSeeds,
}

/// One server's part of a preprocessed layer, used once.
pub struct ReluBundle {
    keys: GarblingKeys,
    draws: Draws,
    delta: Delta,
    roles: Vec<Vec<Role>>,
    spool: Box<dyn Spool>,
}

/// What a server has after evaluation. Over all servers, the sum of `values` and `masks` is the layer's
/// answer.
pub struct ReluOutcome {
    /// `x - r` at the evaluator, nothing elsewhere.
    pub values: Option<Zeroizing<Vec<u32>>>,
    /// This server's share of the layer's input: what it drew, or at the holder its online word.
    pub share: Zeroizing<Vec<u32>>,
    /// `r^me`.
    pub masks: Zeroizing<Vec<u32>>,
}

impl ReluLayer {
    /// Base OTs with all other servers. Blocking.
    pub fn setup(layer: Layer, channel: &mut dyn Channel, seed: [u8; 32]) -> Result<ReluLayer, Error> {
        if channel.parties() != layer.servers
            || !(2..=32).contains(&layer.width)
            || layer.shift >= layer.width
        {
            return Err(Error::Misuse("the layer does not fit the cluster"));
        }
        let parameters = vec![layer.ot_parameter; layer.servers];
        let links = LinkSeeds::base(channel, &parameters, &mut Seeds::new(seed).rng())?;
        let architecture = layer.architecture();
        let plan = Plan::new(&architecture).only(STEP);
        Ok(ReluLayer { layer, architecture, plan, links })
    }

    /// Everything that needs no value. Blocking.
    pub fn preprocess(
        &mut self,
        id: BundleId,
        channel: &mut dyn Channel,
        seed: [u8; 32],
        mut spool: Box<dyn Spool>,
    ) -> Result<ReluBundle, Error> {
        let mut rng = Seeds::new(seed).rng();
        let draws = Draws::new(&self.architecture, channel.me(), &mut rng);
        let delta = Delta::random(&mut rng);
        let mut nonce = Nonce::default();
        rng.fill_bytes(&mut nonce);
        let index = self.links.next();
        let (links, nonces) = self.links.take(index)?.bundle(channel, &delta, index, nonce)?;
        // No set-up but the base OTs, so nothing to tell it by.
        let keys = GarblingKeys::new(&[0; 32], &id, &nonces);
        let wave_bytes = WAVE_BYTES;
        let work = Work { plan: &self.plan, keys, draws: &draws, delta: &delta, links, wave_bytes };
        let roles = work.preprocess(channel, &mut *spool, &mut rng)?;
        Ok(ReluBundle { keys, draws, delta, roles, spool })
    }

    /// The online phase. The holder brings its word: random here, drawn from `rng`. Blocking.
    pub fn evaluate(
        &self,
        bundle: ReluBundle,
        channel: &mut dyn Channel,
        rng: &mut impl CryptoRng,
    ) -> Result<ReluOutcome, Error> {
        let me = channel.me();
        let ReluBundle { keys, mut draws, delta, mut roles, spool } = bundle;
        let missing = Error::Misuse("the bundle is incomplete");
        let (Some(step), Some(roles)) = (self.plan.steps.get(STEP), roles.get_mut(STEP)) else {
            return Err(missing);
        };
        let (true, true) = (draws.words.len() > STEP, draws.masks.len() > STEP) else { return Err(missing) };
        let masks = draws.masks[STEP].clone();
        let mut share = std::mem::take(&mut draws.words[STEP - 1]);
        let holder = self.layer.holder();
        if me == holder {
            share = crate::draws::uniform(self.layer.count, self.layer.width as usize, rng);
        }
        let masks_of_run = std::mem::take(&mut draws.masks);
        let mut run =
            Run { architecture: &self.architecture, channel, keys, delta, masks: masks_of_run, spool };
        let word = (me == holder).then_some(share.as_slice());
        let values = run.step(STEP, step, std::mem::take(roles), word, &[holder])?;
        Ok(ReluOutcome { values, share, masks })
    }

    /// Compares with the clear computation: every server sends its shares and masks to the evaluator,
    /// which says whether all values are right; `None` at the others. Ends all secrecy.
    pub fn check(&self, outcome: ReluOutcome, channel: &mut dyn Channel) -> Result<Option<bool>, Error> {
        let evaluator = self.layer.evaluator();
        let bytes = |words: &[u32]| bytemuck::cast_slice::<u32, u8>(words).to_vec();
        let Some(values) = outcome.values else {
            channel.send(evaluator, bytes(&outcome.share))?;
            channel.send(evaluator, bytes(&outcome.masks))?;
            return Ok(None);
        };
        let (mut z, mut answer) = (outcome.share, values);
        let length = self.layer.count * 4;
        let add = |sum: &mut [u32], words: &[u32]| {
            sum.iter_mut().zip(words).for_each(|(sum, word)| *sum = sum.wrapping_add(*word));
        };
        add(&mut answer, &outcome.masks);
        for peer in peers(channel) {
            for sum in [&mut z, &mut answer] {
                let words: Vec<u32> = words_of(&channel.recv(peer, length)?);
                if words.len() != self.layer.count {
                    return Err(Error::Peer { peer, phase: "comparison" });
                }
                add(sum, &words);
            }
        }
        let unused = 32 - self.layer.width;
        let right = |(z, got): (&u32, &u32)| {
            let value = ((z << unused).cast_signed() >> unused >> self.layer.shift).max(0);
            (got << unused) >> unused == value.cast_unsigned()
        };
        Ok(Some(answer.len() == z.len() && z.iter().zip(answer.iter()).all(right)))
    }
}
