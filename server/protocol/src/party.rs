//! One server after set-up with its cluster.

use std::sync::{Arc, Mutex, PoisonError};

use seco_he::{LayerShape, LinearPlan, Parameters, Weights};
use seco_model::graph::ValueId;
use seco_model::{Architecture, PartyModel};
use seco_ot::Delta;
use sha2::{Digest, Sha256};

use crate::bundle::Bundle;
use crate::channel::Channel;
use crate::draws::Draws;
use crate::error::Error;
use crate::keys::Keys;
use crate::links::{LinkSeeds, Nonce, peers};
use crate::material::Parts;
use crate::plan::{GarblingKeys, Plan, WAVE_BYTES};
use crate::planned::PlannedModel;
use crate::seeds::Seeds;
use crate::spool::Spool;
use crate::{BundleId, linear, nonlinear};

/// Bytes of weights in NTT form that a holder keeps from one bundle to the next; those of later layers are transformed
/// for every bundle.
pub(crate) const WEIGHTS_MEMORY: usize = 1 << 30;
/// Bytes of a set-up nonce.
pub(crate) const NONCE: usize = 32;

/// One server: its part of the model, of the cluster's key and of its correlated OTs.
pub struct Party {
    planned: Arc<PlannedModel>,
    setup: [u8; 32],
    keys: Mutex<Keys>,
    layers: Vec<LayerState>,
    wave_bytes: usize,
    links: Mutex<LinkSeeds>,
}

/// A linear layer, ready for products on ciphertexts.
pub(crate) struct LayerState {
    pub plan: LinearPlan,
    /// What it reads.
    pub input: ValueId,
    pub holders: Vec<usize>,
    /// Weights, where this server holds some.
    pub weights: Option<Weights>,
}

/// A layer's weights in the model, which wipes them when the last who uses it is gone.
struct Held {
    model: Arc<PartyModel>,
    layer: usize,
}

impl AsRef<[u32]> for Held {
    fn as_ref(&self) -> &[u32] {
        self.model.layer(self.layer).map_or(&[], |held| &held.weights)
    }
}

impl Party {
    /// Runs the once-per-cluster set-up with all other servers: the first BFV keys and the base OTs
    /// (sections 4 and 5 of PROTOCOL.md). Blocking. `ot_parameters` are SoftSpokenOT's, by the server at the other
    /// end of a link ([`OT_PARAMETER`](crate::OT_PARAMETER)); both ends must have the same. `seed` comes from the
    /// operating system.
    ///
    /// Refuses a model whose noise does not leave room for smudging.
    pub fn setup(
        planned: Arc<PlannedModel>,
        channel: &mut dyn Channel,
        ot_parameters: &[usize],
        seed: [u8; 32],
    ) -> Result<Party, Error> {
        let (model, architecture) = (planned.part(), planned.architecture());
        let (index, servers) = (channel.me(), channel.parties());
        if model.index() != index || architecture.servers != servers {
            return Err(Error::Misuse("the model file belongs to another server or cluster"));
        }
        let mut seeds = Seeds::new(seed);
        let layers: Vec<_> = architecture.graph.layers().collect();
        let shapes: Vec<LayerShape> =
            layers.iter().map(|layer| LayerShape { geometry: layer.geometry, width: layer.width }).collect();
        let (parameters, plans) = Parameters::select(&shapes, servers)?;

        // Common polynomials come from what all servers contributed, the same on each.
        let nonce = seeds.next();
        let nonces = exchange(channel, nonce.to_vec(), NONCE)?;
        let mut digest = Sha256::new().chain_update(b"seco set-up v1").chain_update(model.id());
        for nonce in &nonces {
            digest.update(nonce);
        }
        let setup: [u8; 32] = digest.finalize().into();
        let keys = Keys::agree(&parameters, architecture, setup, channel, &seeds.next())?;
        let links = LinkSeeds::base(channel, ot_parameters, &mut seeds.rng())?;

        let mut memory = WEIGHTS_MEMORY;
        let states = layers.iter().zip(plans).map(|(layer, plan)| {
            let weights = match model.layer(layer.index) {
                Some(_) => {
                    let words = Held { model: model.clone(), layer: layer.index };
                    Some(Weights::new(&plan, Arc::new(words), &mut memory)?)
                }
                None => None,
            };
            let holders = architecture.holders(layer.index).to_vec();
            Ok(LayerState { plan, input: layer.input, holders, weights })
        });
        let layers = states.collect::<Result<_, Error>>()?;
        let (keys, links) = (Mutex::new(keys), Mutex::new(links));
        Ok(Party { setup, keys, layers, wave_bytes: WAVE_BYTES, links, planned })
    }

    /// Other waves than those of a real cluster, whose servers must agree: for tests, whose models are small.
    #[doc(hidden)]
    pub fn with_waves(mut self, bytes: usize) -> Party {
        self.wave_bytes = bytes;
        self
    }

    /// Key sets of fewer bundles than those of a real cluster, whose servers must agree: for tests.
    #[doc(hidden)]
    pub fn with_key_life(self, bundles: u64) -> Party {
        self.keys.lock().unwrap_or_else(PoisonError::into_inner).limit(bundles);
        self
    }

    /// This server's index in the cluster.
    pub fn index(&self) -> usize {
        self.planned.index()
    }

    /// The model's public part.
    pub fn architecture(&self) -> &Architecture {
        self.planned.architecture()
    }

    /// This server's part of the model.
    pub fn planned(&self) -> &Arc<PlannedModel> {
        &self.planned
    }

    #[cfg(test)]
    pub(crate) fn setup_id(&self) -> &[u8; 32] {
        &self.setup
    }

    pub(crate) fn plan(&self) -> &Plan {
        self.planned.plan()
    }

    /// Makes one bundle together with all other servers. Blocking; linear and non-linear layers run
    /// side by side, each over its own channel. `spool` is empty, for this bundle alone.
    ///
    /// `index` numbers the bundles of a set-up, the same on all servers: it picks the seeds of correlated OT, which
    /// then are gone ([`Party::next_bundle`]). A number that was used, also by a bundle that failed, is refused, and so
    /// is one far from the others.
    ///
    /// One bundle at a time: the homomorphic keys' renewal must stay in step on all servers. After a failure it may
    /// not be, so the cluster has to be set up again.
    pub fn preprocess(
        &self,
        id: BundleId,
        index: u64,
        linear_channel: &mut dyn Channel,
        nonlinear_channel: &mut dyn Channel,
        seed: [u8; 32],
        mut spool: Box<dyn Spool>,
    ) -> Result<Bundle, Error> {
        let mut seeds = Seeds::new(seed);
        let draws = Draws::new(self.architecture(), self.index(), &mut seeds.rng());
        let mut linear_seeds = Seeds::new(seeds.next());
        let mut rng = seeds.rng();
        let delta = Delta::random(&mut rng);
        let (words, parts) = std::thread::scope(|scope| {
            let linear = scope.spawn(|| {
                let mut keys = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
                let (set, exchange) = keys.next(linear_channel, &linear_seeds.next())?;
                let work = linear::Work {
                    keys: set,
                    bundle: &id,
                    layers: &self.layers,
                    graph: &self.architecture().graph,
                    flow: &self.plan().flow,
                    draws: &draws,
                    wave_bytes: self.wave_bytes,
                };
                let (words, next) = work.preprocess(exchange, linear_channel, &mut linear_seeds)?;
                if let Some(next) = next {
                    keys.renew(next);
                }
                Ok(words)
            });
            let parts = self.garble((&id, index), &draws, &delta, nonlinear_channel, &mut *spool, &mut rng);
            (linear.join().unwrap_or(Err(Error::Thread)), parts)
        });
        // The non-linear error first: where one side fails the other often only sees a closed channel.
        let ((parts, keys), words) = (parts?, words?);
        let (model, server, masks) = (*self.planned.part().id(), self.index(), draws.masks);
        Ok(Bundle { id, model, server, keys, masks, words, delta, parts, spool })
    }

    /// Frees what only the next bundle needs and can make anew, the weights in NTT form: for when none will be made for
    /// some time. A bundle that is being made is not disturbed.
    pub fn rest(&self) {
        self.layers.iter().filter_map(|layer| layer.weights.as_ref()).for_each(Weights::forget);
    }

    /// The number of the next bundle: one more than the highest used.
    pub fn next_bundle(&self) -> u64 {
        self.links.lock().unwrap_or_else(PoisonError::into_inner).next()
    }

    fn garble(
        &self,
        (bundle, index): (&BundleId, u64),
        draws: &Draws,
        delta: &Delta,
        channel: &mut dyn Channel,
        spool: &mut dyn Spool,
        rng: &mut impl rand_core::CryptoRng,
    ) -> Result<(Parts, GarblingKeys), Error> {
        let seeds = self.links.lock().unwrap_or_else(PoisonError::into_inner).take(index)?;
        let mut nonce = Nonce::default();
        rng.fill_bytes(&mut nonce);
        let (links, nonces) = seeds.bundle(channel, delta, index, nonce)?;
        let keys = GarblingKeys::new(&self.setup, bundle, &nonces);
        let (plan, wave_bytes) = (self.plan(), self.wave_bytes);
        let graph = &self.architecture().graph;
        let work = nonlinear::Work { plan, graph, keys, draws, delta, links, wave_bytes };
        Ok((work.preprocess(channel, spool, rng)?, keys))
    }
}

/// Sends `mine` to everyone and gives everyone's, in order of servers, each of exactly `length`.
fn exchange(channel: &mut dyn Channel, mine: Vec<u8>, length: usize) -> Result<Vec<Vec<u8>>, Error> {
    for peer in peers(channel) {
        channel.send(peer, mine.clone())?;
    }
    let mut all = vec![Vec::new(); channel.parties()];
    for peer in peers(channel) {
        all[peer] = channel.recv(peer, length)?;
        if all[peer].len() != length {
            return Err(Error::Peer { peer, phase: "set-up" });
        }
    }
    if let Some(own) = all.get_mut(channel.me()) {
        *own = mine;
    }
    Ok(all)
}
