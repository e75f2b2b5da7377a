//! Preprocessing of linear layers: one server's part in `F·r` of every layer (section 4 of PROTOCOL.md).
//!
//! All layers go through each of the three messages together, so the number of rounds does not
//! depend on the model's depth. Those of a large model go in waves that follow each other through
//! the four steps as in a pipeline (module `nonlinear` tells why nobody waits in a circle and nobody
//! runs ahead: here a holder needs every server's answers, and the others the holder's `c1`), so
//! that at most four waves of ciphertexts are in memory.
//!
//! With a key set's last bundle goes the exchange of the next: the commitments before all else, the shares
//! before the second turn's messages. What a server waits for in it was sent before what it waits for
//! anyway, so renewing keys costs no time.

use std::ops::Range;
use std::sync::{Mutex, PoisonError};

use seco_garble::convert::Share;
use seco_he::{KeySet, LinearPlan, Occasion, Product};
use seco_model::graph::Graph;

use crate::BundleId;
use crate::channel::{Channel, ChannelError};
use crate::draws::Draws;
use crate::error::Error;
use crate::flow::Flow;
use crate::keys::{Exchange, Revealed};
use crate::party::LayerState;
use crate::seeds::Seeds;
use crate::values::Offline;

/// Layers of a wave by index, each with what this server has of it as a holder.
type Wave<T> = Vec<(usize, Option<T>)>;

/// Steps of a wave.
const STEPS: usize = 4;

/// Where in the protocol a message is wrong.
const MASK: &str = "encrypted mask";
const PRODUCT: &str = "product to be decrypted";
const ANSWER: &str = "decryption share";

/// What a server brings to a bundle's linear layers.
pub struct Work<'a> {
    /// The cluster's keys as this server has them.
    pub keys: &'a KeySet,
    /// The bundle.
    pub bundle: &'a BundleId,
    /// All layers.
    pub layers: &'a [LayerState],
    /// Held while a layer's weights are brought to NTT form, which bundles made at the same time share.
    pub transforming: &'a Mutex<()>,
    /// The model.
    pub graph: &'a Graph,
    /// Who has what of its values.
    pub flow: &'a Flow,
    /// This server's random words.
    pub draws: &'a Draws,
    /// Size of a wave.
    pub wave_bytes: usize,
}

impl Work<'_> {
    /// This server's share of every layer's product, mod `2^32`: `F^h r - Σ s^j` where it holds
    /// weights, plus its own `s` towards other holders. With it the next key set, if its exchange was begun.
    pub fn preprocess(
        &self,
        mut begun: Option<Exchange>,
        channel: &mut dyn Channel,
        seeds: &mut Seeds,
    ) -> Result<(Vec<Share>, Option<KeySet>), Error> {
        let waves = waves(self.layers.iter().map(|layer| &layer.plan), channel.parties(), self.wave_bytes);
        // Layers read masked values, whose offline shares follow from masks.
        let read = self.layers.iter().map(|layer| layer.input);
        let mut masks = Offline::new((self.graph, self.flow), &self.draws.masks, &[], read);
        let (mut encrypted, mut multiplied, mut answered) = (None, None, None);
        let mut words = Vec::with_capacity(self.layers.len());
        let (mut revealed, mut renewed) = (None::<Revealed>, None);
        let mut next = waves.iter();
        for _ in 1..waves.len() + STEPS {
            // The youngest first: what it sends has the whole turn for its way.
            let made = next.next().map(|wave| self.encrypt(wave, &mut masks, channel, seeds)).transpose()?;
            let wave = std::mem::replace(&mut encrypted, made);
            let made = wave.map(|wave| self.multiply(wave, channel, seeds)).transpose()?;
            let wave = std::mem::replace(&mut multiplied, made);
            let made = wave.map(|wave| self.answer(wave, channel, seeds)).transpose()?;
            if let Some(wave) = std::mem::replace(&mut answered, made) {
                self.finish(wave, channel, &mut words)?;
            }
            // In front of every server's masks of the first wave is its commitment, behind them its share. They are
            // read, in the second turn, before anything else that comes.
            if let Some(exchange) = revealed.take() {
                renewed = Some(exchange.finish(channel)?);
            }
            revealed = begun.take().map(|exchange| exchange.reveal(channel)).transpose()?;
        }
        Ok((words, renewed))
    }

    /// Step 1: every server's encrypted part of the masks, to the holders. Gives those of the layers
    /// that this server holds itself.
    fn encrypt(
        &self,
        wave: &Range<usize>,
        masks: &mut Offline,
        channel: &mut dyn Channel,
        seeds: &mut Seeds,
    ) -> Result<Wave<Vec<u8>>, Error> {
        let me = channel.me();
        let mut own = Vec::with_capacity(wave.len());
        for (index, layer) in self.layers.iter().enumerate().skip(wave.start).take(wave.len()) {
            let occasion = self.occasion(index);
            let seed = seeds.next();
            let encrypted = masks
                .read(layer.input, |mask| self.keys.encrypt(&layer.plan, &occasion, mask.words(), &seed))??;
            for &holder in layer.holders.iter().filter(|&&h| h != me) {
                channel.send(holder, encrypted.clone())?;
            }
            own.push((index, layer.holders.contains(&me).then_some(encrypted)));
        }
        Ok(own)
    }

    /// Step 2: the holders' products; `c1` to every other server.
    fn multiply(
        &self,
        wave: Wave<Vec<u8>>,
        channel: &mut dyn Channel,
        seeds: &mut Seeds,
    ) -> Result<Wave<Product>, Error> {
        let (me, parties) = (channel.me(), channel.parties());
        let mut products = Vec::with_capacity(wave.len());
        for (index, own) in wave {
            let layer = self.layer(index)?;
            let (Some(mut own), Some(weights)) = (own, layer.weights.as_ref()) else {
                products.push((index, None));
                continue;
            };
            let mut encrypted = Vec::with_capacity(parties);
            for server in 0..parties {
                encrypted.push(if server == me {
                    std::mem::take(&mut own)
                } else {
                    received(channel, server, layer.plan.encrypted_len(), MASK)?
                });
            }
            {
                // Once, not by each of several bundles. This thread is none of the pool that does the work, so nobody
                // there can come to wait for it.
                let _one = self.transforming.lock().unwrap_or_else(PoisonError::into_inner);
                weights.transform()?;
            }
            let occasion = self.occasion(index);
            let multiplied = weights.multiply(self.keys, &occasion, &encrypted, &seeds.next());
            let (product, c1) = multiplied.map_err(|error| named(error, |server| server, MASK))?;
            for server in (0..parties).filter(|&s| s != me) {
                channel.send(server, c1.clone())?;
            }
            products.push((index, Some(product)));
        }
        Ok(products)
    }

    /// Step 3: decryption shares, with this server's `s` and its smudging noise, to each holder, once.
    fn answer(
        &self,
        wave: Wave<Product>,
        channel: &mut dyn Channel,
        seeds: &mut Seeds,
    ) -> Result<Wave<Product>, Error> {
        for &(index, _) in &wave {
            let layer = self.layer(index)?;
            for (holder, s) in self.draws.shares.get(index).into_iter().flatten() {
                let c1 = received(channel, *holder, layer.plan.c1_len(), PRODUCT)?;
                let occasion = self.occasion(index);
                let answer =
                    self.keys.answer(&layer.plan, &occasion, (*holder, &c1), s.words(), &seeds.next());
                let answer = answer.map_err(|error| named(error, |_| *holder, PRODUCT))?;
                channel.send(*holder, answer)?;
            }
        }
        Ok(wave)
    }

    /// Step 4: the holders decode.
    fn finish(
        &self,
        wave: Wave<Product>,
        channel: &mut dyn Channel,
        words: &mut Vec<Share>,
    ) -> Result<(), Error> {
        let (me, parties) = (channel.me(), channel.parties());
        for (index, product) in wave {
            let layer = self.layer(index)?;
            let mut word = self.draws.words.get(index).cloned().unwrap_or_default();
            if let Some(product) = product {
                let mut answers = Vec::with_capacity(parties - 1);
                for server in (0..parties).filter(|&s| s != me) {
                    answers.push(received(channel, server, layer.plan.answer_len(), ANSWER)?);
                }
                // This server's own is not among them.
                let server = |position| position + usize::from(position >= me);
                let share = product.finish(self.keys, &answers);
                let share = share.map_err(|error| named(error, server, ANSWER))?;
                word.add(1, &Share::new(share));
            }
            words.push(word);
        }
        Ok(())
    }

    fn layer(&self, index: usize) -> Result<&LayerState, Error> {
        self.layers.get(index).ok_or(Error::Misuse("a layer is missing"))
    }

    fn occasion(&self, layer: usize) -> Occasion {
        // A model has a few hundred layers at most.
        Occasion { bundle: self.bundle.0, layer: layer as u32 }
    }
}

/// Runs of layers whose ciphertexts are in memory together.
pub fn waves<'a>(
    plans: impl Iterator<Item = &'a LinearPlan>,
    parties: usize,
    wave_bytes: usize,
) -> Vec<Range<usize>> {
    let mut waves: Vec<Range<usize>> = Vec::new();
    let mut bytes = 0;
    for (index, plan) in plans.enumerate() {
        let more = parties * (plan.encrypted_len() + plan.c1_len());
        match waves.last_mut() {
            Some(wave) if bytes + more <= wave_bytes => wave.end = index + 1,
            _ => {
                bytes = 0;
                waves.push(index..index + 1);
            }
        }
        bytes += more;
    }
    waves
}

/// Messages in sequence of so many waves: every further one ends a turn later.
pub fn messages(waves: usize) -> usize {
    if waves == 0 { 0 } else { STEPS - 1 + waves - 1 }
}

/// Takes a message of a peer; a longer one is its mistake in this phase.
pub fn received(
    channel: &mut dyn Channel,
    peer: usize,
    max: usize,
    phase: &'static str,
) -> Result<Vec<u8>, Error> {
    channel.recv(peer, max).map_err(|error| match error {
        ChannelError::TooLarge { peer, .. } => Error::Peer { peer, phase },
        error => error.into(),
    })
}

/// Blames the peer whose message was malformed; whatever else is wrong is this server's own matter.
fn named(error: seco_he::Error, peer: impl Fn(usize) -> usize, phase: &'static str) -> Error {
    match error {
        seco_he::Error::Message { position, .. } => Error::Peer { peer: peer(position), phase },
        error => error.into(),
    }
}
