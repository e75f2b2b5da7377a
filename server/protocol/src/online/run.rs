//! What is said in one inference: the input, the circuits of a depth, the answer (section 8 of PROTOCOL.md).

use seco_core::IncarnationKey;
use seco_garble::convert::projection::Chosen;
use seco_garble::convert::relu::ReluShares;
use seco_garble::convert::{input, projection};
use seco_garble::slices::{from_lanes, pack, packed_len, to_lanes, unpack};
use seco_garble::{Batch, OnlineEvaluator};
use seco_ot::{Delta, Macs, Replay, Replaying};
use zeroize::Zeroizing;

use super::{INCOMPLETE, add};
use crate::channel::Channel;
use crate::error::Error;
use crate::flow::{GATEWAY, Servers};
use crate::links::peers;
use crate::material::{CircuitPart, InputPart, Role};
use crate::nonlinear::receive;
use crate::plan::{GarblingKeys, InputStep, Step};
use crate::spool::Spool;

/// Bytes of labels that a garbler queues before it waits for the evaluator to keep up.
const LABELS_AHEAD: usize = 4 << 20;

/// A server's words of a value.
type Words = Zeroizing<Vec<u32>>;

/// Ready to make this server's labels again.
pub(crate) fn start(links: &[Option<Replay>]) -> Vec<Option<Replaying>> {
    links.iter().map(|link| link.as_ref().map(Replay::start)).collect()
}

/// What the steps of one inference share.
pub(crate) struct Run<'a> {
    pub channel: &'a mut dyn Channel,
    pub keys: GarblingKeys,
    pub delta: Delta,
    /// This server's, by atom.
    pub masks: &'a [Zeroizing<Vec<u32>>],
    /// What this server's labels come from where it evaluates, by server.
    pub links: Vec<Option<Replaying>>,
    pub spool: Box<dyn Spool>,
    /// The evaluator's active labels of the random wires, by garbler: memory that one batch after the other uses.
    pub random: Vec<Macs>,
}

impl Run<'_> {
    fn send_to_all(&mut self, message: &[u8]) -> Result<(), Error> {
        for peer in peers(self.channel) {
            self.channel.send(peer, message.to_vec())?;
        }
        Ok(())
    }

    /// The device's input: `values` are this server's pad, the gateway's with the masked input. Gives `x - r` to those
    /// who need it.
    pub fn input(
        &mut self,
        input: &InputStep,
        parts: &[InputPart],
        values: &[u32],
    ) -> Result<Option<Words>, Error> {
        const PHASE: &str = "masked input";
        let InputStep { shape, recipients, batches } = input;
        if parts.len() != batches.len() || values.len() != input.lanes() {
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
        let length = input.opening_len();
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
        self.send_words(*recipients, &share, shape.mask_width)?;
        if !recipients.contains(me) {
            return Ok(None);
        }
        for peer in peers(self.channel) {
            let theirs = self.recv_words(peer, share.len(), shape.mask_width, "share of the input")?;
            add(&mut share, &theirs);
        }
        Ok(Some(share))
    }

    /// The circuits of one depth, which do not depend on each other, with what this server has for each: its part of
    /// the bundle and, as an opener, its part of what is read, offline and online. Gives the masked activations
    /// `x - r`, in the same order, to those who need them.
    ///
    /// Three messages in sequence, however many circuits: all are opened before labels of any are sent, and garblers
    /// look at what the evaluator made when they have sent all labels.
    pub fn level(
        &mut self,
        steps: &[Step],
        parts: Vec<(Vec<CircuitPart>, Option<Words>)>,
    ) -> Result<Vec<Option<Words>>, Error> {
        let sizes = steps.iter().zip(&parts).all(|(step, (parts, _))| parts.len() == step.batches.len());
        if steps.len() != parts.len() || !sizes {
            return Err(INCOMPLETE);
        }
        let mut opened = Vec::with_capacity(steps.len());
        for (step, (parts, word)) in steps.iter().zip(parts) {
            let word = self.publish(step, &parts, word)?;
            opened.push((parts, word));
        }
        let mut ready = Vec::with_capacity(steps.len());
        for (step, (parts, word)) in steps.iter().zip(opened) {
            ready.push((parts, self.open(step, word)?));
        }
        let mut outputs = Vec::with_capacity(steps.len());
        for (step, (parts, m)) in steps.iter().zip(ready) {
            outputs.push(self.step(step, parts, &m)?);
        }
        steps.iter().zip(outputs).map(|(step, output)| self.hand_on(step, output)).collect()
    }

    /// A circuit whose `m` is known: labels and projections from garblers to the evaluator, which sends `x - r` to those
    /// who need it and gives it.
    fn step(&mut self, step: &Step, parts: Vec<CircuitPart>, m: &[u32]) -> Result<Option<Words>, Error> {
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
                    let key = self.keys.of(batch.step, batch.first_lane);
                    let mut message = Vec::with_capacity(step.online_len(batch));
                    garbler.labels(&self.delta, &planes, &key, &mut message)?;
                    let width = step.shape.mask_width;
                    projection::close(&answers, &pads, batch.lanes, width, &mut message);
                    self.channel.send(step.evaluator, message)?;
                    // The evaluator does nothing but read labels until it has all of them.
                    self.channel.wait_sent(step.evaluator, LABELS_AHEAD)?;
                }
                Role::Evaluator(evaluator, positions) => {
                    self.random_labels(step, batch, &positions)?;
                    let values = self.evaluate(step, batch, evaluator, &part.shares, m, &planes)?;
                    output.extend_from_slice(&values);
                }
            }
        }
        if self.channel.me() != step.evaluator {
            return Ok(None);
        }
        self.subtract_mask(step.index, &mut output)?;
        self.send_words(step.recipients, &output, step.shape.mask_width)?;
        Ok(Some(output))
    }

    /// Makes the evaluator's active labels of a batch's random wires, by garbler.
    fn random_labels(&mut self, step: &Step, batch: &Batch, positions: &[u64]) -> Result<(), Error> {
        self.random.resize_with(positions.len(), Macs::default);
        for ((garbler, &position), labels) in positions.iter().enumerate().zip(&mut self.random) {
            let link = self.links.get_mut(step.server(garbler)).and_then(Option::as_mut).ok_or(INCOMPLETE)?;
            let count = batch.evaluator_correlations();
            if labels.len() != count {
                // Anew: growing would leave copies.
                *labels = Macs::zeros(count);
            }
            link.macs(position, labels);
        }
        Ok(())
    }

    /// The evaluator's part of a batch: gives the answers less the garblers' masks.
    fn evaluate(
        &mut self,
        step: &Step,
        batch: &Batch,
        evaluator: OnlineEvaluator,
        shares: &ReluShares,
        m: &[u32],
        planes: &[u64],
    ) -> Result<Words, Error> {
        let mut messages = Vec::with_capacity(step.garblers());
        for position in 0..step.garblers() {
            let server = step.server(position);
            messages.push(receive(self.channel, server, step.online_len(batch), "labels")?);
        }
        let parts = messages.iter().map(|message| message.split_at(batch.label_bytes()));
        let (labels, projections): (Vec<&[u8]>, Vec<&[u8]>) = parts.unzip();
        let material = self.spool.take()?;
        let key = self.keys.of(batch.step, batch.first_lane);
        let evaluated = evaluator.evaluate(&material, planes, &labels, &self.random, &key)?;
        self.spool.give_back(material);
        let masked = &evaluated.masked;
        let mut values = shares.answers_at(m, masked);
        let chosen = Chosen::new(masked, step.shape.outputs(), batch.lanes, step.shape.mask_width);
        for (position, (projection, labels)) in projections.iter().zip(&evaluated.labels).enumerate() {
            let pads = projection::evaluator_pads(batch, position, labels, &chosen, &key);
            projection::open(projection, &chosen, &pads, &mut values);
        }
        Ok(values)
    }

    /// Masked opening: each opener publishes its word plus its share of `ρ` and what it was sent ahead. Gives that.
    fn publish(
        &mut self,
        step: &Step,
        parts: &[CircuitPart],
        word: Option<Words>,
    ) -> Result<Option<Words>, Error> {
        if !step.openers.contains(self.channel.me()) {
            return Ok(None);
        }
        let word = word.filter(|word| word.len() == step.lanes());
        let mut word = word.ok_or(Error::Misuse("an online word is missing or has the wrong size"))?;
        for (part, batch) in parts.iter().zip(&step.batches) {
            let opening = part.opening.as_ref().ok_or(INCOMPLETE)?;
            let lanes = batch.first_lane as usize..batch.first_lane as usize + batch.lanes;
            opening.add_to(word.get_mut(lanes).ok_or(INCOMPLETE)?);
        }
        self.send_words((0..step.servers).collect(), &word, step.shape.width)?;
        Ok(Some(word))
    }

    /// The sum of what all openers published, `m = z + ρ`; this server's part if it is one.
    fn open(&mut self, step: &Step, word: Option<Words>) -> Result<Vec<u32>, Error> {
        let (me, width) = (self.channel.me(), step.shape.width);
        let mut m = vec![0; step.lanes()];
        if let Some(word) = word {
            m.copy_from_slice(&word);
        }
        for opener in step.openers.iter().filter(|&opener| opener != me) {
            let theirs = self.recv_words(opener, m.len(), width, "masked opening")?;
            add(&mut m, &theirs);
        }
        let mask = u32::MAX >> (32 - width.clamp(1, 32));
        m.iter_mut().for_each(|m| *m &= mask);
        Ok(m)
    }

    /// Subtracts this server's part of an atom's mask.
    fn subtract_mask(&self, atom: usize, values: &mut [u32]) -> Result<(), Error> {
        let own = self.masks.get(atom).filter(|own| own.len() == values.len()).ok_or(INCOMPLETE)?;
        values.iter_mut().zip(own.iter()).for_each(|(value, mask)| *value = value.wrapping_sub(*mask));
        Ok(())
    }

    /// What a server has of a circuit's `x - r` if it needs it: its own `output` as the evaluator, else what that sent.
    fn hand_on(&mut self, step: &Step, output: Option<Words>) -> Result<Option<Words>, Error> {
        if !step.recipients.contains(self.channel.me()) {
            return Ok(None);
        }
        match output {
            Some(output) => Ok(Some(output)),
            None => {
                let (from, width) = (step.evaluator, step.shape.mask_width);
                let words = self.recv_words(from, step.lanes(), width, "masked activation")?;
                Ok(Some(Zeroizing::new(words)))
            }
        }
    }

    /// Sends words of `width` bits to these servers, this one excepted.
    fn send_words(&mut self, to: Servers, words: &[u32], width: u32) -> Result<(), Error> {
        let me = self.channel.me();
        let mut message = Vec::with_capacity(packed_len(words.len(), width));
        pack(words.iter().copied(), width, &mut message);
        for server in to.iter().filter(|&server| server != me) {
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

    /// Every server's part of the answer with its output pad goes to the gateway, which adds them.
    pub fn answer(
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
            self.send_words(Servers::one(GATEWAY), &sum, width)?;
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
