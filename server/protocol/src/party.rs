//! One server after set-up with its cluster.

use std::collections::BTreeSet;
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
use crate::links::{LinkSeeds, Links, Nonce, peers};
use crate::material::Parts;
use crate::plan::{GarblingKeys, Plan, WAVE_BYTES};
use crate::planned::PlannedModel;
use crate::seeds::Seeds;
use crate::spool::Spool;
use crate::{BundleId, linear, nonlinear};

/// Bytes of weights in NTT form that a holder keeps from one bundle to the next; those of later layers are transformed
/// for every bundle.
pub(crate) const WEIGHTS_MEMORY: usize = 1 << 30;
/// How far apart the numbers of bundles may be that are made at the same time, and so how many are: seeds of oblivious
/// transfer are kept for a number that is late on one server while the others have begun twice as many after it.
pub const BUNDLES_AT_ONCE: usize = seco_ot::WINDOW as usize / 2;
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
    /// Held while weights are brought to NTT form: bundles that are made at the same time share it.
    transforming: Mutex<()>,
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
        Ok(Party {
            setup,
            keys,
            layers,
            wave_bytes: WAVE_BYTES,
            links,
            transforming: Mutex::default(),
            planned,
        })
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
    /// then are gone ([`Party::next_bundle`]), and the homomorphic keys. A number that was used, also by a bundle that
    /// failed, is refused before anything is sent, and so is one far from the others (16 and more), or whose keys are not
    /// there.
    ///
    /// Several may be made at the same time, on threads and channels of their own, and begin in another order on each
    /// server ([`Party::may_begin`]). They share nothing that one of them uses up: what each takes is its number's alone,
    /// or follows from its own `seed`. One that fails leaves the others as they are; where it was the last of a key set,
    /// those after it are refused, and the cluster has to be set up again.
    pub fn preprocess(
        &self,
        id: BundleId,
        index: u64,
        linear_channel: &mut dyn Channel,
        nonlinear_channel: &mut dyn Channel,
        seed: [u8; 32],
        mut spool: Box<dyn Spool>,
    ) -> Result<Bundle, Error> {
        let taken = self.links.lock().unwrap_or_else(PoisonError::into_inner).take(index)?;
        let mut seeds = Seeds::new(seed);
        let draws = Draws::new(self.architecture(), self.index(), &mut seeds.rng());
        let mut linear_seeds = Seeds::new(seeds.next());
        let keys = || self.keys.lock().unwrap_or_else(PoisonError::into_inner);
        let (set, exchange) = keys().begin(index, linear_channel, &linear_seeds.next())?;
        let mut rng = seeds.rng();
        let delta = Delta::random(&mut rng);
        let (words, parts) = std::thread::scope(|scope| {
            let linear = scope.spawn(|| {
                let work = linear::Work {
                    keys: &set,
                    bundle: &id,
                    layers: &self.layers,
                    transforming: &self.transforming,
                    graph: &self.architecture().graph,
                    flow: &self.plan().flow,
                    draws: &draws,
                    wave_bytes: self.wave_bytes,
                };
                let (words, next) = work.preprocess(exchange, linear_channel, &mut linear_seeds)?;
                if let Some(next) = next {
                    keys().renew(index, next);
                }
                Ok(words)
            });
            let parts =
                self.garble((&id, index, taken), &draws, &delta, nonlinear_channel, &mut *spool, &mut rng);
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

    /// Whether number `index` may begin while those of `under_way` are being made, somewhere in the cluster: it is not
    /// too far from any ([`BUNDLES_AT_ONCE`]), its keys were agreed on, beside the last bundle of the set before, and it
    /// takes away the keys of none. For whoever orders bundles; a server that is ordered others refuses what it cannot make.
    pub fn may_begin(&self, index: u64, under_way: &BTreeSet<u64>) -> bool {
        let oldest = under_way.first().copied().unwrap_or(index);
        index.saturating_sub(oldest) < BUNDLES_AT_ONCE as u64
            && self.keys.lock().unwrap_or_else(PoisonError::into_inner).allow(index, under_way)
    }

    fn garble(
        &self,
        (bundle, index, seeds): (&BundleId, u64, Links),
        draws: &Draws,
        delta: &Delta,
        channel: &mut dyn Channel,
        spool: &mut dyn Spool,
        rng: &mut impl rand_core::CryptoRng,
    ) -> Result<(Parts, GarblingKeys), Error> {
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
