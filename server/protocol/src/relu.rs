//! One ReLU layer by itself, without a model and without homomorphic encryption: what measures and
//! tests the non-linear half of the protocol (sections 5 and 6 of PROTOCOL.md).

use rand_core::{CryptoRng, Rng as _};
use seco_garble::convert::{Mask, Masked, Share};
use seco_model::{Architecture, Dense, Geometry, Graph, InputSpec, Node, Op, Placement};
use seco_ot::Delta;
use zeroize::Zeroizing;

use crate::BundleId;
use crate::channel::Channel;
use crate::draws::Draws;
use crate::error::Error;
use crate::links::{LinkSeeds, Nonce, peers};
use crate::material::Parts;
use crate::nonlinear::Work;
use crate::online::{Run, start};
use crate::plan::{Counts, GarblingKeys, Plan, WAVE_BYTES};
use crate::seeds::Seeds;
use crate::spool::Spool;

fn words_of(bytes: &[u8]) -> Vec<u32> {
    bytes.as_chunks().0.iter().map(|word| u32::from_ne_bytes(*word)).collect()
}

/// The atom that the layer makes; atom 0 is the input, which is not preprocessed here.
const STEP: usize = 1;

/// Shape of the layer: `count` values of `width` bits, shifted right by `shift` and rectified.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layer {
    /// ReLUs.
    pub count: usize,
    /// Bits of a value before.
    pub width: u32,
    /// Bits of a mask after.
    pub mask_width: u32,
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
        let node = |width, op| Node { name: String::new(), width, op };
        let dense = |input, inputs, outputs| Op::Secret {
            input,
            geometry: Geometry::Dense(Dense { inputs, outputs }),
        };
        let graph = Graph {
            name: String::new(),
            input: InputSpec::new(vec![1], 8),
            nodes: vec![
                node(self.width, dense(0, 1, self.count)),
                node(self.mask_width, Op::Relu { input: 1, shift: self.shift }),
                node(self.mask_width, dense(2, self.count, 1)),
            ],
            outputs: Vec::new(),
        };
        let placements = vec![Placement::Held(self.holder()), Placement::Held(self.evaluator())];
        Architecture { graph, placements, servers: self.servers }
    }

    fn fits(&self, servers: usize) -> Result<(), Error> {
        let fits = servers == self.servers
            && (2..=32).contains(&self.width)
            && (1..=32).contains(&self.mask_width)
            && self.shift < self.width;
        if fits { Ok(()) } else { Err(Error::Misuse("the layer does not fit the cluster")) }
    }

    fn plan(&self) -> Plan {
        Plan::new(&self.architecture()).without_input()
    }

    /// AND gates of the layer, all of them evaluated online.
    pub fn and_gates(&self) -> u64 {
        Counts::of(&self.architecture()).and_gates
    }

    /// Bytes that the evaluator keeps of the layer until it is used.
    pub fn stored_bytes(&self) -> u64 {
        let plan = self.plan();
        let batches = plan.steps.iter().flat_map(|step| step.batches.iter().map(move |batch| (step, batch)));
        batches.map(|(step, batch)| step.stored(batch, self.evaluator()) as u64).sum()
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
    layer: Layer,
    keys: GarblingKeys,
    draws: Draws,
    delta: Delta,
    parts: Parts,
    spool: Box<dyn Spool>,
}

/// What a server has after evaluation. Over all servers, the sum of `values` and `masks` is the layer's
/// answer.
pub struct ReluOutcome {
    /// `x - r` at the evaluator, nothing elsewhere.
    values: Option<Masked>,
    /// This server's share of the layer's input: what it drew, or at the holder its online word.
    share: Share,
    /// `r^me`.
    mask: Mask,
}

impl ReluLayer {
    /// Base OTs with all other servers. Blocking.
    pub fn setup(layer: Layer, channel: &mut dyn Channel, seed: [u8; 32]) -> Result<ReluLayer, Error> {
        layer.fits(channel.parties())?;
        let parameters = vec![layer.ot_parameter; layer.servers];
        let links = LinkSeeds::base(channel, &parameters, &mut Seeds::new(seed).rng())?;
        Ok(ReluLayer { layer, architecture: layer.architecture(), plan: layer.plan(), links })
    }

    /// Another layer over the same base OTs, which cost more than a small layer does. It has as many servers and the
    /// same OT parameter. Bundles of the layer before are not for it.
    pub fn with_layer(self, layer: Layer) -> Result<ReluLayer, Error> {
        layer.fits(self.layer.servers)?;
        if layer.ot_parameter != self.layer.ot_parameter {
            return Err(Error::Misuse("the layer has another OT parameter than the links"));
        }
        Ok(ReluLayer { layer, architecture: layer.architecture(), plan: layer.plan(), links: self.links })
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
        let (plan, graph) = (&self.plan, &self.architecture.graph);
        let work = Work { plan, graph, keys, draws: &draws, delta: &delta, links, wave_bytes };
        let parts = work.preprocess(channel, &mut *spool, &mut rng)?;
        Ok(ReluBundle { layer: self.layer, keys, draws, delta, parts, spool })
    }

    /// The online phase. The holder brings its word: random here, drawn from `rng`. Blocking.
    pub fn evaluate(
        &self,
        bundle: ReluBundle,
        channel: &mut dyn Channel,
        rng: &mut impl CryptoRng,
    ) -> Result<ReluOutcome, Error> {
        let me = channel.me();
        if bundle.layer != self.layer {
            return Err(Error::Misuse("the bundle is another layer's"));
        }
        let ReluBundle { keys, mut draws, delta, mut parts, spool, .. } = bundle;
        let missing = Error::Misuse("the bundle is incomplete");
        let links = std::mem::take(&mut parts.links);
        let (Some(step), Some(parts)) = (self.plan.steps.first(), parts.steps.pop()) else {
            return Err(missing);
        };
        let (true, true) = (draws.words.len() > STEP, draws.masks.len() > STEP) else { return Err(missing) };
        let mut share = std::mem::take(&mut draws.words[STEP - 1]);
        let holder = self.layer.holder();
        if me == holder {
            share = Share::new(crate::draws::uniform(self.layer.count, self.layer.width as usize, rng));
        }
        let (masks_of_all, links) = (&draws.masks[..], start(&links));
        let mut run = Run { channel, keys, delta, masks: masks_of_all, links, spool, random: Vec::new() };
        let word = (me == holder).then(|| share.clone());
        let values = run.level(std::slice::from_ref(step), vec![(parts, word)])?.pop().flatten();
        Ok(ReluOutcome { values, share, mask: draws.masks.swap_remove(STEP) })
    }

    /// Compares with the clear computation: every server sends its shares and masks to the evaluator,
    /// which says whether all values are right; `None` at the others. Ends all secrecy.
    pub fn check(&self, outcome: ReluOutcome, channel: &mut dyn Channel) -> Result<Option<bool>, Error> {
        let evaluator = self.layer.evaluator();
        let bytes = |words: &[u32]| bytemuck::cast_slice::<u32, u8>(words).to_vec();
        let Some(values) = outcome.values else {
            channel.send(evaluator, bytes(outcome.share.words()))?;
            channel.send(evaluator, bytes(outcome.mask.words()))?;
            return Ok(None);
        };
        let answer = values.online().plus(outcome.mask.offline());
        let (mut z, mut answer) = (outcome.share, answer.ok_or(Error::Misuse("the outcome is incomplete"))?);
        let length = self.layer.count * 4;
        for peer in peers(channel) {
            for sum in [&mut z, &mut answer] {
                let words = Share::new(Zeroizing::new(words_of(&channel.recv(peer, length)?)));
                if words.len() != self.layer.count {
                    return Err(Error::Peer { peer, phase: "comparison" });
                }
                sum.add(1, &words);
            }
        }
        let unused = 32 - self.layer.width;
        let right = |(z, got): (&u32, &u32)| {
            let value = ((z << unused).cast_signed() >> unused >> self.layer.shift).max(0);
            (got ^ value.cast_unsigned()) << (32 - self.layer.mask_width) == 0
        };
        Ok(Some(answer.len() == z.len() && z.words().iter().zip(answer.words()).all(right)))
    }
}
