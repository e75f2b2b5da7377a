//! What is said in one inference: the input, the circuits of a depth, the answer (section 8 of PROTOCOL.md).

use seco_core::IncarnationKey;
use seco_garble::convert::projection::Chosen;
use seco_garble::convert::relu::ReluShares;
use seco_garble::convert::{
    InputPad, Lanes, Mask, Masked, Opened, OutputPad, Part, Share, Words, input, kind, projection,
};
use seco_garble::{Batch, OnlineEvaluator};
use seco_ot::{Delta, Macs, Replay, Replaying};
use zeroize::Zeroizing;

use super::INCOMPLETE;
use super::threads::on_own_threads;
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
    pub masks: &'a [Mask],
    /// What this server's labels come from where it evaluates, by server.
    pub links: Vec<Option<Replaying>>,
    pub spool: Box<dyn Spool>,
    /// The evaluator's active labels of the random wires, by garbler: memory that one batch after the other uses.
    pub random: Vec<Macs>,
}

impl Run<'_> {
    /// The device's input: `pad` is this server's, the gateway's with the masked input. Gives `x - r` to those who need
    /// it. `told` is told when all have published, and before anything leaves that depends on what others did.
    pub fn input(
        &mut self,
        input: &InputStep,
        parts: &[InputPart],
        pad: InputPad,
        told: Option<&mut dyn FnMut() -> Result<(), Error>>,
    ) -> Result<Option<Masked>, Error> {
        const PHASE: &str = "masked input";
        let InputStep { shape, recipients, batches } = input;
        if parts.len() != batches.len() || pad.len() != input.lanes() {
            return Err(INCOMPLETE);
        }
        let (me, everyone, lanes) = (self.channel.me(), (0..self.channel.parties()).collect(), pad.len());
        // P_j ^ d^j, then o = x ^ d.
        let masks = batches.iter().cloned().zip(parts.iter().map(|part| &part.mask));
        let mut o = pad.publish(shape.bits, masks).ok_or(INCOMPLETE)?;
        self.send_words(everyone, &o, shape.bits)?;
        for peer in peers(self.channel) {
            o.xor(&self.recv_words::<kind::Published>(peer, lanes, shape.bits, PHASE)?);
        }
        if let Some(told) = told {
            told()?;
        }
        let mut share = Share::with_capacity(lanes);
        for (part, lanes) in parts.iter().zip(batches) {
            let planes = o.lanes(lanes.clone()).ok_or(INCOMPLETE)?.planes(shape.bits);
            share.append(&input::share(&planes, &part.shares, lanes.len(), me == GATEWAY));
        }
        // This server's part of x - r.
        let mut part = share.less(self.masks.first().ok_or(INCOMPLETE)?.all()).ok_or(INCOMPLETE)?;
        self.send_words(*recipients, &part, shape.mask_width)?;
        if !recipients.contains(me) {
            return Ok(None);
        }
        for peer in peers(self.channel) {
            part.add(&self.recv_words(peer, lanes, shape.mask_width, "share of the input")?);
        }
        Ok(Some(part.open()))
    }

    /// The circuits of one depth, which do not depend on each other, with what this server has for each: its part of
    /// the bundle and, as an opener, its share of what is read. Gives the masked activations `x - r`, in the same
    /// order, to those who need them.
    ///
    /// Three messages in sequence, however many circuits: all are opened before labels of any are sent, and garblers
    /// look at what the evaluator made when they have sent all labels.
    pub fn level(
        &mut self,
        steps: &[Step],
        parts: Vec<(Vec<CircuitPart>, Option<Share>)>,
    ) -> Result<Vec<Option<Masked>>, Error> {
        let sizes = steps.iter().zip(&parts).all(|(step, (parts, _))| parts.len() == step.batches.len());
        if steps.len() != parts.len() || !sizes {
            return Err(INCOMPLETE);
        }
        let mut opened = Vec::with_capacity(steps.len());
        for (step, (parts, share)) in steps.iter().zip(parts) {
            let part = self.publish(step, &parts, share)?;
            opened.push((parts, part));
        }
        let mut ready = Vec::with_capacity(steps.len());
        for (step, (parts, part)) in steps.iter().zip(opened) {
            ready.push((parts, self.open(step, part)?));
        }
        let mut outputs = Vec::with_capacity(steps.len());
        for (step, (parts, m)) in steps.iter().zip(ready) {
            outputs.push(self.step(step, parts, &m)?);
        }
        steps.iter().zip(outputs).map(|(step, output)| self.hand_on(step, output)).collect()
    }

    /// A circuit whose `m` is known: labels and projections from garblers to the evaluator, which sends `x - r` to those
    /// who need it and gives it.
    fn step(&mut self, step: &Step, parts: Vec<CircuitPart>, m: &Opened) -> Result<Option<Masked>, Error> {
        let mut output = Part::with_capacity(m.len());
        for (part, batch) in parts.into_iter().zip(&step.batches) {
            let lanes = batch.first_lane as usize..batch.first_lane as usize + batch.lanes;
            let m = m.lanes(lanes.clone()).ok_or(INCOMPLETE)?;
            let planes = m.planes(step.shape.width);
            let mask = self.masks.get(step.index).and_then(|mask| mask.lanes(lanes)).ok_or(INCOMPLETE)?;
            match part.role {
                Role::Garbler(garbler, pads) => {
                    let answers = part.shares.answers(m, mask);
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
                    output.append(&self.evaluate(
                        step,
                        batch,
                        evaluator,
                        &part.shares,
                        (m, &planes),
                        mask,
                    )?);
                }
            }
        }
        if self.channel.me() != step.evaluator {
            return Ok(None);
        }
        let output = output.open();
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

    /// The evaluator's part of a batch: its share and all garblers', each less its part of the next mask. With `m` come
    /// its planes.
    fn evaluate(
        &mut self,
        step: &Step,
        batch: &Batch,
        evaluator: OnlineEvaluator,
        shares: &ReluShares,
        (m, planes): (Lanes<'_, kind::Opened>, &[u64]),
        mask: Lanes<'_, kind::Mask>,
    ) -> Result<Part<kind::Masked>, Error> {
        let mut messages = Vec::with_capacity(step.garblers());
        for position in 0..step.garblers() {
            let server = step.server(position);
            messages.push(receive(self.channel, server, step.online_len(batch), "labels")?);
        }
        let parts = messages.iter().map(|message| message.split_at(batch.label_bytes()));
        let (labels, projections): (Vec<&[u8]>, Vec<&[u8]>) = parts.unzip();
        let material = self.spool.take()?;
        let key = self.keys.of(batch.step, batch.first_lane);
        let random = &self.random;
        let evaluate = || evaluator.evaluate(&material, planes, &labels, random, &key);
        let evaluated = on_own_threads(evaluate)?;
        self.spool.give_back(material);
        let masked = &evaluated.masked;
        let mut sum = shares.answers_at(m, masked).less(mask).ok_or(INCOMPLETE)?;
        let chosen = Chosen::new(masked, step.shape.outputs(), batch.lanes, step.shape.mask_width);
        for (position, (projection, labels)) in projections.iter().zip(&evaluated.labels).enumerate() {
            let pads = projection::evaluator_pads(batch, position, labels, &chosen, &key);
            projection::open(projection, &chosen, &pads, &mut sum);
        }
        Ok(sum)
    }

    /// Masked opening: each opener publishes its share plus that of `ρ` and what it was sent ahead. Gives that.
    fn publish(
        &mut self,
        step: &Step,
        parts: &[CircuitPart],
        share: Option<Share>,
    ) -> Result<Option<Part<kind::Opened>>, Error> {
        if !step.openers.contains(self.channel.me()) {
            return Ok(None);
        }
        let share = share.filter(|share| share.len() == step.lanes());
        let share = share.ok_or(Error::Misuse("an online word is missing or has the wrong size"))?;
        let mut openings = Vec::with_capacity(parts.len());
        for (part, batch) in parts.iter().zip(&step.batches) {
            let lanes = batch.first_lane as usize..batch.first_lane as usize + batch.lanes;
            openings.push((lanes, part.opening.as_ref().ok_or(INCOMPLETE)?));
        }
        let part = share.under(openings).ok_or(INCOMPLETE)?;
        self.send_words((0..step.servers).collect(), &part, step.shape.width)?;
        Ok(Some(part))
    }

    /// The sum of what all openers published, `m = z + ρ`; `part` is this server's if it is one.
    fn open(&mut self, step: &Step, part: Option<Part<kind::Opened>>) -> Result<Opened, Error> {
        let (me, width) = (self.channel.me(), step.shape.width);
        let mut m = part.unwrap_or_else(|| Part::none(step.lanes()));
        for opener in step.openers.iter().filter(|&opener| opener != me) {
            m.add(&self.recv_words(opener, step.lanes(), width, "masked opening")?);
        }
        Ok(m.open(width))
    }

    /// What a server has of a circuit's `x - r` if it needs it: its own `output` as the evaluator, else what that sent.
    fn hand_on(&mut self, step: &Step, output: Option<Masked>) -> Result<Option<Masked>, Error> {
        if !step.recipients.contains(self.channel.me()) {
            return Ok(None);
        }
        match output {
            Some(output) => Ok(Some(output)),
            None => {
                let (from, width) = (step.evaluator, step.shape.mask_width);
                Ok(Some(self.recv_words(from, step.lanes(), width, "masked activation")?))
            }
        }
    }

    /// Sends words of `width` bits to these servers, this one excepted.
    fn send_words<K: kind::Sent>(&mut self, to: Servers, words: &Words<K>, width: u32) -> Result<(), Error> {
        let me = self.channel.me();
        let mut message = Vec::with_capacity(Words::<K>::encoded_len(words.len(), width));
        words.encode(width, &mut message);
        for server in to.iter().filter(|&server| server != me) {
            self.channel.send(server, message.clone())?;
        }
        Ok(())
    }

    fn recv_words<K: kind::Sent>(
        &mut self,
        from: usize,
        count: usize,
        width: u32,
        phase: &'static str,
    ) -> Result<Words<K>, Error> {
        let message = receive(self.channel, from, Words::<K>::encoded_len(count, width), phase)?;
        Ok(Words::decode(&message, width, count))
    }

    /// Every server's part of the answer with its output pad goes to the gateway, which adds them.
    pub fn answer(
        &mut self,
        share: Share,
        width: u32,
        key: &IncarnationKey,
        counter: u64,
    ) -> Result<Option<Vec<u32>>, Error> {
        let lanes = share.len();
        let mut pad = Zeroizing::new(vec![0u32; lanes]);
        key.output_pad(counter, width, &mut pad)?;
        let mut part = share.padded(OutputPad::new(pad)).ok_or(INCOMPLETE)?;
        if self.channel.me() != GATEWAY {
            self.send_words(Servers::one(GATEWAY), &part, width)?;
            return Ok(None);
        }
        for peer in peers(self.channel) {
            part.add(&self.recv_words(peer, lanes, width, "masked output")?);
        }
        Ok(Some(part.open(width).into_words()))
    }
}
