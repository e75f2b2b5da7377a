//! Bundles: everything one server holds for one inference (section 7 of PROTOCOL.md).
//!
//! A bundle is data: it names its model and split, and depends on no key, extension, set-up or connection.
//! [`Bundle::encode`] and [`Bundle::decode`] take it to a file and back; what is large is in its [`Spool`], in order.
//! It is consumed by [`Bundle::spend`], which records it durably, and what that gives is consumed by
//! [`SpentBundle::infer`]: using one in memory twice does not compile.
//!
//! Bytes can be decoded twice, so whoever stores them must see to it that nobody does: the ledger has to remember
//! the id for as long as the bytes exist anywhere, also across set-ups and compaction. The servers' ledger knows the
//! bundles of before a compaction by which were ready then.
//!
//! # Format, version 3
//!
//! | what | bytes |
//! |---|---|
//! | `SECO bundle`, zeros, version | 16 |
//! | id | 16 |
//! | model id | 32 |
//! | server | 2 |
//! | what its garbling keys come from | 32 |
//! | `Δ` | 16 |
//! | masks by atom (input, then ReLUs), offline words by layer | 4 a value |
//! | seeds of the evaluator's labels, by other server: OT parameter, seeds | 1, 16 a seed |
//! | input, by batch: planes of `d`, shares by bit | |
//! | circuits, by step and batch: shares, opening, and the role's | |
//!
//! All sizes follow from the model, which the reader has; nothing else is in it, and every byte is used.

use seco_garble::convert::relu::{ReluShares, SHARES};
use seco_garble::convert::{Mask, Share, Words, kind};
use seco_garble::slices::plane_words;
use seco_garble::{Batch, InputBits, OnlineEvaluator, OnlineGarbler, RhoBits};
use seco_ot::{Block, Delta, Replay};
use zeroize::Zeroizing;

use crate::error::Error;
use crate::flow::atoms;
use crate::material::{CircuitPart, InputPart, Parts, Role};
use crate::plan::{GarblingKeys, Plan, Step};
use crate::planned::PlannedModel;
use crate::spool::Spool;
use crate::{BundleId, Ledger, Use};

/// First bytes of an encoded bundle: what it is, and the version of the protocol and of the format.
const HEADER: &[u8; 16] = b"SECO bundle\0\0\0\0\x03";

/// Material for one inference, the same id on every server.
pub struct Bundle {
    pub(crate) id: BundleId,
    /// The model and its split.
    pub(crate) model: [u8; 32],
    /// Index of the server.
    pub(crate) server: usize,
    pub(crate) keys: GarblingKeys,
    /// `r^me` by atom: of the input, then of the ReLUs in order.
    pub(crate) masks: Vec<Mask>,
    /// This server's offline word by layer.
    pub(crate) words: Vec<Share>,
    pub(crate) delta: Delta,
    pub(crate) parts: Parts,
    /// Material of the batches that this server evaluates, in that order.
    pub(crate) spool: Box<dyn Spool>,
}

impl Bundle {
    /// The bundle's name.
    pub fn id(&self) -> BundleId {
        self.id
    }

    /// Marks the bundle spent and binds it to the request it is for, durably, before any message that depends
    /// on an input.
    pub fn spend(self, ledger: &dyn Ledger, usage: &Use) -> Result<SpentBundle, Error> {
        ledger.spend(&self.id, usage)?;
        Ok(SpentBundle { bundle: self, usage: *usage })
    }

    /// The bundle as data, but for what is in its spool.
    pub fn encode(&self) -> Zeroizing<Vec<u8>> {
        // Sized first, so that no copy of a secret stays behind where a vector grew.
        let mut size = Size(0);
        self.write(&mut size);
        let mut bytes = Zeroizing::new(Vec::with_capacity(size.0));
        self.write(&mut Bytes(&mut bytes));
        bytes
    }

    /// The spool with what [`Bundle::encode`] does not have.
    pub fn into_spool(self) -> Box<dyn Spool> {
        self.spool
    }

    fn write(&self, to: &mut impl Sink) {
        to.put(HEADER);
        to.put(&self.id.0);
        to.put(&self.model);
        to.put(&(self.server as u16).to_le_bytes());
        to.put(&self.keys.0);
        to.put(&self.delta.block().to_bytes());
        self.masks.iter().for_each(|mask| to.words(mask));
        self.words.iter().for_each(|share| to.words(share));
        for link in self.parts.links.iter().flatten() {
            to.put(&[link.parameter() as u8]);
            to.put(bytemuck::cast_slice(link.seeds()));
        }
        for InputPart { mask, shares } in &self.parts.input {
            to.put(bytemuck::cast_slice(mask.planes()));
            shares.iter().for_each(|share| to.words(share));
        }
        for CircuitPart { role, shares, opening } in self.parts.steps.iter().flatten() {
            shares.shares().iter().for_each(|share| to.words(share));
            opening.iter().for_each(|opening| to.words(opening));
            match role {
                Role::Garbler(online, pads) => {
                    to.put(&online.seed().to_bytes());
                    to.words(pads);
                }
                Role::Evaluator(online, positions) => {
                    online.planes().iter().for_each(|planes| to.put(bytemuck::cast_slice(planes)));
                    positions.iter().for_each(|position| to.put(&position.to_le_bytes()));
                }
            }
        }
    }

    /// From [`Bundle::encode`], on a server with the same part of the model, whatever set-up it has since. To be
    /// called once for a bundle (see the module's text).
    ///
    /// # Errors
    /// [`Error::Bundle`] if these are not the bytes of a bundle of this model on this server.
    pub fn decode(bytes: &[u8], planned: &PlannedModel, spool: Box<dyn Spool>) -> Result<Bundle, Error> {
        let architecture = planned.architecture();
        let mut from = Reader(bytes);
        if from.array()? != *HEADER {
            return Err(Error::Bundle("not a bundle, or of another version"));
        }
        let (id, model) = (BundleId(from.array()?), from.array()?);
        let server = usize::from(u16::from_le_bytes(from.array()?));
        if model != *planned.part().id() || server != planned.index() {
            return Err(Error::Bundle("of another model, split or server"));
        }
        let keys = GarblingKeys(from.array()?);
        let delta = Block::from_bytes(from.array()?);
        let delta = Delta::from_block(delta).ok_or(Error::Bundle("damaged"))?;
        let graph = &architecture.graph;
        let masks = atoms(graph).map(|(len, _)| from.words(len)).collect::<Result<_, _>>()?;
        let words =
            graph.layers().map(|layer| from.words(layer.geometry.outputs())).collect::<Result<_, _>>()?;
        let parts = from.parts(planned.plan(), planned.index(), architecture.servers)?;
        if !from.0.is_empty() {
            return Err(Error::Bundle("longer than its model says"));
        }
        Ok(Bundle { id, model, server, keys, masks, words, delta, parts, spool })
    }
}

/// Where bytes go.
trait Sink {
    fn put(&mut self, bytes: &[u8]);

    fn words<K: kind::Bare>(&mut self, words: &Words<K>) {
        self.put(bytemuck::cast_slice(words.words()));
    }
}

struct Size(usize);

impl Sink for Size {
    fn put(&mut self, bytes: &[u8]) {
        self.0 += bytes.len();
    }
}

struct Bytes<'a>(&'a mut Vec<u8>);

impl Sink for Bytes<'_> {
    fn put(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }
}

/// What is left to read.
struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn take(&mut self, count: usize) -> Result<&[u8], Error> {
        let (bytes, rest) =
            self.0.split_at_checked(count).ok_or(Error::Bundle("shorter than its model says"))?;
        self.0 = rest;
        Ok(bytes)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Error> {
        let bytes = self.take(N)?;
        Ok(std::array::from_fn(|i| bytes[i]))
    }

    fn words<K: kind::Bare>(&mut self, count: usize) -> Result<Words<K>, Error> {
        let bytes = self.take(count.saturating_mul(4))?;
        let words = bytes.as_chunks().0.iter().map(|word| u32::from_le_bytes(*word));
        Ok(Words::new(Zeroizing::new(words.collect())))
    }

    /// Planes of bits; those past the last lane must be zero.
    fn planes(&mut self, count: usize, lanes: usize) -> Result<Zeroizing<Vec<u64>>, Error> {
        let bytes = self.take((count * plane_words(lanes)).saturating_mul(8))?;
        let planes: Vec<u64> = bytes.as_chunks().0.iter().map(|word| u64::from_le_bytes(*word)).collect();
        let planes = Zeroizing::new(planes);
        let mut cleared = planes.clone();
        seco_garble::slices::clear_tail(&mut cleared, lanes);
        if *cleared == *planes { Ok(planes) } else { Err(Error::Bundle("damaged")) }
    }

    /// Seeds of the links of a bundle's extensions with every other server, each with its parameter.
    fn link(&mut self) -> Result<Replay, Error> {
        let [parameter] = self.array()?.map(usize::from);
        let damaged = |_| Error::Bundle("damaged");
        let seeds = self.take(Replay::count(parameter).map_err(damaged)? * size_of::<Block>())?;
        let seeds = seeds.as_chunks().0.iter().map(|bytes| Block::from_bytes(*bytes)).collect();
        Replay::new(parameter, Zeroizing::new(seeds)).map_err(damaged)
    }

    fn parts(&mut self, plan: &Plan, me: usize, servers: usize) -> Result<Parts, Error> {
        let mut parts = Parts::default();
        for server in 0..servers {
            parts.links.push(if server == me { None } else { Some(self.link()?) });
        }
        let bits = plan.input.shape.bits as usize;
        for lanes in &plan.input.batches {
            let mask = self.planes(bits, lanes.len())?;
            let shares = (0..bits).map(|_| self.words(lanes.len())).collect::<Result<_, _>>()?;
            parts.input.push(InputPart { mask: InputBits::drawn(mask), shares });
        }
        for step in &plan.steps {
            let batches = step.batches.iter().map(|batch| self.circuit(step, batch, me));
            parts.steps.push(batches.collect::<Result<_, _>>()?);
        }
        Ok(parts)
    }

    fn circuit(&mut self, step: &Step, batch: &Batch, me: usize) -> Result<CircuitPart, Error> {
        let lanes = batch.lanes;
        let mut shares: [Share; SHARES] = Default::default();
        for share in &mut shares {
            *share = self.words(lanes)?;
        }
        let opening = step.openers.contains(me).then(|| self.words(lanes)).transpose()?;
        let role = if me == step.evaluator {
            let random = self.planes(batch.random_wires(), lanes)?;
            let permutation = self.planes(batch.program.ands, lanes)?;
            let positions = (0..step.garblers()).map(|_| Ok(u64::from_le_bytes(self.array()?)));
            let positions = positions.collect::<Result<_, Error>>()?;
            Role::Evaluator(
                OnlineEvaluator::new(batch.clone(), RhoBits::stored(random), permutation.to_vec())?,
                positions,
            )
        } else {
            let seed = Block::from_bytes(self.array()?);
            let pads = self.words(step.shape.entries() * lanes)?;
            Role::Garbler(OnlineGarbler::new(batch.clone(), seed), pads)
        };
        Ok(CircuitPart { role, shares: ReluShares::new(step.shape, shares), opening })
    }
}

/// A bundle that may be used for exactly one inference.
pub struct SpentBundle {
    pub(crate) bundle: Bundle,
    /// What it was spent for.
    pub(crate) usage: Use,
}
