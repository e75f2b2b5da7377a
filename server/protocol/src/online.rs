//! The online phase of one server (`protocol.md` section 7).

use seco_core::IncarnationKey;
use seco_garble::convert::relu::ReluShares;
use seco_garble::convert::{input, projection};
use seco_garble::slices::{from_lanes, pack, packed_len, to_lanes, unpack};
use seco_garble::{Batch, OnlineEvaluator};
use seco_model::Architecture;
use seco_ot::{Block, Delta, Replay, Replaying};
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use crate::bundle::{Bundle, SpentBundle};
use crate::channel::Channel;
use crate::error::Error;
use crate::links::peers;
use crate::material::{CircuitPart, InputPart, Role};
use crate::nonlinear::receive;
use crate::party::Party;
use crate::plan::{GarblingKeys, InputStep, Step};
use crate::spool::Spool;
use crate::{BundleId, Use};

/// Index of the gateway.
const GATEWAY: usize = 0;
/// Bytes of labels that a garbler queues before it waits for the evaluator to keep up.
const LABELS_AHEAD: usize = 4 << 20;

impl SpentBundle {
    /// Runs one inference together with all other servers. Blocking.
    ///
    /// The gateway passes the device's masked input (one byte per value) and gets the masked logits,
    /// words mod `2^width`, still to be packed; the others pass `None` and get `None`. `key` is this
    /// server's key for the device's connection.
    ///
    /// Nothing that depends on the input leaves this server before every server has confirmed that it spent
    /// the same bundle durably for the same request (section 6). So a single server whose ledger is intact is
    /// enough to keep a bundle from being used twice, though all others were set back.
    pub fn infer(
        self,
        party: &Party,
        channel: &mut dyn Channel,
        key: &IncarnationKey,
        masked_input: Option<&[u8]>,
    ) -> Result<Option<Vec<u32>>, Error> {
        let SpentBundle { bundle, usage } = self;
        let architecture = party.architecture();
        if bundle.model != *party.model().id() {
            return Err(Error::Misuse("the bundle was made for another model or another split of it"));
        }
        if bundle.server != channel.me() || party.index() != channel.me() {
            return Err(Error::Misuse("the bundle or the party is another server's"));
        }
        // One circuit between two layers: with fewer, a hidden layer would be taken for the last.
        let hidden = architecture.layers.len().checked_sub(1);
        if hidden != Some(party.plan().steps.len()) || hidden != Some(bundle.parts.steps.len()) {
            return Err(INCOMPLETE);
        }
        let mut input = Zeroizing::new(match masked_input {
            Some(masked) => masked.to_vec(),
            None => vec![0; architecture.input.len()],
        });
        if masked_input.is_some() != (channel.me() == GATEWAY) || input.len() != architecture.input.len() {
            return Err(Error::Misuse("the input has the wrong size or came to the wrong server"));
        }
        confirm(channel, &bundle.id, &usage)?;
        let counter = usage.counter;
        // The gateway: x̂ ^ P_0. The others: their pads.
        key.apply_input_pad(counter, &mut input)?;
        let input = Zeroizing::new(input.iter().map(|&b| u32::from(b)).collect::<Vec<_>>());

        let Bundle { keys, masks, words, delta, parts, spool, .. } = bundle;
        let links = start(&parts.links);
        let mut run = Run { architecture, channel, keys, delta, masks, links, spool };
        let mut steps = party.plan().steps.iter().zip(parts.steps);
        let mut activation = run.input(&party.plan().input, &parts.input, &input)?;
        for (i, layer) in architecture.layers.iter().enumerate() {
            let offline = words.get(i).ok_or(INCOMPLETE)?;
            // A holder's word: F^h (x - r) + its share of F r, of the other holders' and of the bias.
            let word = match (party.model().layer(i), activation.take()) {
                (Some(held), Some(x)) => {
                    let mut word = Zeroizing::new(vec![0u32; layer.geometry.outputs()]);
                    seco_model::linear(&layer.geometry, &held.weights, &x, &mut word);
                    for ((word, share), bias) in word.iter_mut().zip(offline.iter()).zip(&held.bias) {
                        *word = word.wrapping_add(*share).wrapping_add(*bias);
                    }
                    Some(word)
                }
                (None, _) => None,
                (Some(_), None) => return Err(Error::Misuse("a holder has no masked activation")),
            };
            match steps.next() {
                Some((step, parts)) => activation = run.step(step, parts, word)?,
                None => {
                    let word = word.as_ref().unwrap_or(offline);
                    return run.answer(word, layer.width, key, counter);
                }
            }
        }
        Err(Error::Misuse("the bundle has too many circuits"))
    }
}

const INCOMPLETE: Error = Error::Misuse("the bundle is incomplete");

/// Tells every server that this one spent the bundle, and waits until all others said the same.
fn confirm(channel: &mut dyn Channel, bundle: &BundleId, usage: &Use) -> Result<(), Error> {
    let message = Sha256::new()
        .chain_update(b"seco spent v1")
        .chain_update(bundle.0)
        .chain_update(usage.session)
        .chain_update(usage.incarnation)
        .chain_update(usage.counter.to_le_bytes())
        .finalize()
        .to_vec();
    for peer in peers(channel) {
        channel.send(peer, message.clone())?;
    }
    for peer in peers(channel) {
        if channel.recv(peer, message.len())? != message {
            return Err(Error::Peer { peer, phase: "confirmation that the bundle is spent" });
        }
    }
    Ok(())
}

/// Labels of one garbler.
type Labels = Zeroizing<Vec<Block>>;

/// Ready to make this server's labels again.
pub(crate) fn start(links: &[Option<Replay>]) -> Vec<Option<Replaying>> {
    links.iter().map(|link| link.as_ref().map(Replay::start)).collect()
}

/// What the steps of one inference share.
pub(crate) struct Run<'a> {
    pub architecture: &'a Architecture,
    pub channel: &'a mut dyn Channel,
    pub keys: GarblingKeys,
    pub delta: Delta,
    pub masks: Vec<Zeroizing<Vec<u32>>>,
    /// What this server's labels come from where it evaluates, by server.
    pub links: Vec<Option<Replaying>>,
    pub spool: Box<dyn Spool>,
}

impl Run<'_> {
    fn send_to_all(&mut self, message: &[u8]) -> Result<(), Error> {
        for peer in peers(self.channel) {
            self.channel.send(peer, message.to_vec())?;
        }
        Ok(())
    }

    /// The device's input: `values` are this server's pad, the gateway's with the masked input. Gives `x - r` to the
    /// holders of the first layer.
    fn input(
        &mut self,
        input: &InputStep,
        parts: &[InputPart],
        values: &[u32],
    ) -> Result<Option<Zeroizing<Vec<u32>>>, Error> {
        const PHASE: &str = "masked input";
        let InputStep { shape, batches } = input;
        if parts.len() != batches.len() {
            return Err(INCOMPLETE);
        }
        let me = self.channel.me();
        // P_j ^ d^j, then o = x ^ d.
        let mut o = values.to_vec();
        for (part, lanes) in parts.iter().zip(batches) {
            let mask = Zeroizing::new(to_lanes(&part.mask, lanes.len()));
            let values = o.get_mut(lanes.clone()).ok_or(INCOMPLETE)?;
            values.iter_mut().zip(mask.iter()).for_each(|(value, mask)| *value ^= mask);
        }
        let length = packed_len(o.len(), shape.bits);
        let mut message = Vec::with_capacity(length);
        pack(o.iter().copied(), shape.bits, &mut message);
        self.send_to_all(&message)?;
        for peer in peers(self.channel) {
            let theirs = receive(self.channel, peer, length, PHASE)?;
            let theirs = unpack(&mut &theirs[..], shape.bits, o.len());
            o.iter_mut().zip(theirs).for_each(|(o, value)| *o ^= value);
        }
        // This server's share of x - r.
        let mut share = Zeroizing::new(Vec::with_capacity(o.len()));
        for (part, lanes) in parts.iter().zip(batches) {
            let planes = from_lanes(o.get(lanes.clone()).ok_or(INCOMPLETE)?, shape.bits as usize);
            share.extend_from_slice(input::share(&planes, &part.shares, lanes.len(), me == GATEWAY).words());
        }
        self.subtract_mask(0, &mut share)?;
        let holders = self.architecture.layers.first().map_or(&[][..], |layer| layer.placement.holders());
        self.send_words(holders, &share, shape.mask_width)?;
        if !holders.contains(&me) {
            return Ok(None);
        }
        for peer in peers(self.channel) {
            let theirs = self.recv_words(peer, share.len(), shape.mask_width, "share of the input")?;
            add(&mut share, &theirs);
        }
        Ok(Some(share))
    }

    /// A circuit. `word` is a holder's value of the layer before, its share. Gives the masked activation `x - r` to
    /// the holders of the next layer.
    pub fn step(
        &mut self,
        step: &Step,
        parts: Vec<CircuitPart>,
        word: Option<Zeroizing<Vec<u32>>>,
    ) -> Result<Option<Zeroizing<Vec<u32>>>, Error> {
        if parts.len() != step.batches.len() {
            return Err(INCOMPLETE);
        }
        let m = self.open(step, &parts, word)?;
        // At once: growing would leave copies.
        let mut output = Zeroizing::new(Vec::with_capacity(m.len()));
        for (part, batch) in parts.into_iter().zip(&step.batches) {
            let lanes = batch.first_lane as usize..batch.first_lane as usize + batch.lanes;
            let m = m.get(lanes.clone()).ok_or(INCOMPLETE)?;
            let planes = from_lanes(m, step.shape.width as usize);
            match part.role {
                Role::Garbler(garbler, pads) => {
                    let masks =
                        self.masks.get(step.index).and_then(|masks| masks.get(lanes)).ok_or(INCOMPLETE)?;
                    let answers = part.shares.answers(m, masks);
                    let mut message = garbler.labels(&self.delta, &planes)?;
                    message.extend(projection::close(&answers, &pads, batch.lanes, step.shape.mask_width));
                    self.channel.send(step.evaluator, message)?;
                    // The evaluator does nothing but read labels until it has all of them.
                    self.channel.wait_sent(step.evaluator, LABELS_AHEAD)?;
                }
                Role::Evaluator(evaluator, positions) => {
                    let random = self.random_labels(step, batch, &positions)?;
                    let values = self.evaluate(step, batch, evaluator, &random, &part.shares, m, &planes)?;
                    output.extend_from_slice(&values);
                }
            }
        }
        if self.channel.me() == step.evaluator {
            self.subtract_mask(step.index, &mut output)?;
        }
        self.hand_on(step, output)
    }

    /// The evaluator's active labels of a batch's random wires, by garbler.
    fn random_labels(&mut self, step: &Step, batch: &Batch, positions: &[u64]) -> Result<Vec<Labels>, Error> {
        let garblers = positions.iter().enumerate().map(|(garbler, &position)| {
            let link = self.links.get_mut(step.server(garbler)).and_then(Option::as_mut).ok_or(INCOMPLETE)?;
            let mut labels = Zeroizing::new(vec![Block::ZERO; batch.evaluator_correlations()]);
            link.macs(position, &mut labels);
            Ok(labels)
        });
        garblers.collect()
    }

    /// The evaluator's part of a batch: gives the answers less the garblers' masks.
    #[allow(clippy::too_many_arguments)]
    fn evaluate(
        &mut self,
        step: &Step,
        batch: &Batch,
        evaluator: OnlineEvaluator,
        random: &[Labels],
        shares: &ReluShares,
        m: &[u32],
        planes: &[u64],
    ) -> Result<Zeroizing<Vec<u32>>, Error> {
        let (mut labels, mut projections) = (Vec::new(), Vec::new());
        for position in 0..step.garblers() {
            let server = step.server(position);
            let mut message = receive(self.channel, server, step.online_len(batch), "labels")?;
            projections.push(message.split_off(batch.label_bytes()));
            labels.push(message);
        }
        let material = self.spool.take()?;
        let key = self.keys.of(batch.step, batch.first_lane);
        let evaluated = evaluator.evaluate(&material, planes, &labels, random, &key)?;
        let masked = &evaluated.masked;
        let mut values = shares.answers_at(m, masked);
        for (position, (projection, labels)) in projections.iter().zip(&evaluated.labels).enumerate() {
            let pads = projection::evaluator_pads(batch, position, labels, masked, &key);
            let outputs = step.shape.outputs();
            projection::open(projection, masked, outputs, &pads, step.shape.mask_width, &mut values);
        }
        Ok(values)
    }

    /// Masked opening: each holder publishes its word plus its share of `ρ` and what it was sent ahead; the sum over
    /// the holders is `m = z + ρ`.
    fn open(
        &mut self,
        step: &Step,
        parts: &[CircuitPart],
        word: Option<Zeroizing<Vec<u32>>>,
    ) -> Result<Vec<u32>, Error> {
        const PHASE: &str = "masked opening";
        let width = step.shape.width;
        let me = self.channel.me();
        let count = step.batches.iter().map(|batch| batch.lanes).sum();
        let mut m = vec![0; count];
        if step.holders.contains(&me) {
            let word = word.filter(|word| word.len() == count);
            let mut word = word.ok_or(Error::Misuse("an online word is missing or has the wrong size"))?;
            for (part, batch) in parts.iter().zip(&step.batches) {
                let opening = part.opening.as_ref().ok_or(INCOMPLETE)?;
                let lanes = batch.first_lane as usize..batch.first_lane as usize + batch.lanes;
                opening.add_to(word.get_mut(lanes).ok_or(INCOMPLETE)?);
            }
            let everyone: Vec<usize> = (0..step.servers).collect();
            self.send_words(&everyone, &word, width)?;
            m.copy_from_slice(&word);
        }
        for &holder in step.holders.iter().filter(|&&holder| holder != me) {
            let theirs = self.recv_words(holder, count, width, PHASE)?;
            add(&mut m, &theirs);
        }
        let mask = u32::MAX >> (32 - width.clamp(1, 32));
        m.iter_mut().for_each(|m| *m &= mask);
        Ok(m)
    }

    /// Subtracts this server's part of an activation's mask.
    fn subtract_mask(&self, activation: usize, values: &mut [u32]) -> Result<(), Error> {
        let own = self.masks.get(activation).filter(|own| own.len() == values.len()).ok_or(INCOMPLETE)?;
        values.iter_mut().zip(own.iter()).for_each(|(value, mask)| *value = value.wrapping_sub(*mask));
        Ok(())
    }

    /// The evaluator sends `x - r` to the holders of the layer that consumes it.
    fn hand_on(
        &mut self,
        step: &Step,
        output: Zeroizing<Vec<u32>>,
    ) -> Result<Option<Zeroizing<Vec<u32>>>, Error> {
        let architecture = self.architecture;
        let layer = architecture.layers.get(step.index).ok_or(Error::Misuse("a circuit without a layer"))?;
        let (me, holders) = (self.channel.me(), layer.placement.holders());
        let width = step.shape.mask_width;
        if me == step.evaluator {
            self.send_words(holders, &output, width)?;
            return Ok(holders.contains(&me).then_some(output));
        }
        if !holders.contains(&me) {
            return Ok(None);
        }
        let count = layer.geometry.inputs();
        Ok(Some(Zeroizing::new(self.recv_words(step.evaluator, count, width, "masked activation")?)))
    }

    /// Sends words of `width` bits to these servers, this one excepted.
    fn send_words(&mut self, to: &[usize], words: &[u32], width: u32) -> Result<(), Error> {
        let me = self.channel.me();
        let mut message = Vec::with_capacity(packed_len(words.len(), width));
        pack(words.iter().copied(), width, &mut message);
        for &server in to.iter().filter(|&&server| server != me) {
            self.channel.send(server, message.clone())?;
        }
        Ok(())
    }

    fn recv_words(
        &mut self,
        from: usize,
        count: usize,
        width: u32,
        phase: &'static str,
    ) -> Result<Vec<u32>, Error> {
        let message = receive(self.channel, from, packed_len(count, width), phase)?;
        Ok(unpack(&mut &message[..], width, count))
    }

    /// The last layer: every server's word with its output pad goes to the gateway, which adds them.
    fn answer(
        &mut self,
        word: &[u32],
        width: u32,
        key: &IncarnationKey,
        counter: u64,
    ) -> Result<Option<Vec<u32>>, Error> {
        let mut sum = vec![0u32; word.len()];
        key.output_pad(counter, width, &mut sum)?;
        add(&mut sum, word);
        if self.channel.me() != GATEWAY {
            self.send_words(&[GATEWAY], &sum, width)?;
            return Ok(None);
        }
        for peer in peers(self.channel) {
            let part = self.recv_words(peer, word.len(), width, "masked output")?;
            add(&mut sum, &part);
        }
        let mask = u32::MAX >> (32 - width.clamp(1, 32));
        sum.iter_mut().for_each(|sum| *sum &= mask);
        Ok(Some(sum))
    }
}

fn add(sum: &mut [u32], words: &[u32]) {
    sum.iter_mut().zip(words).for_each(|(sum, word)| *sum = sum.wrapping_add(*word));
}
