//! The online phase of one server (`protocol.md` section 7).

use seco_core::IncarnationKey;
use seco_garble::convert::relu::ReluShares;
use seco_garble::convert::{input, projection};
use seco_garble::slices::{from_lanes, pack, packed_len, to_lanes, unpack};
use seco_garble::{Batch, OnlineEvaluator};
use seco_model::Op;
use seco_ot::{Block, Delta, Replay, Replaying};
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use crate::bundle::{Bundle, SpentBundle};
use crate::channel::Channel;
use crate::error::Error;
use crate::flow::{GATEWAY, Servers, Source};
use crate::links::peers;
use crate::material::{CircuitPart, InputPart, Role};
use crate::nonlinear::receive;
use crate::party::Party;
use crate::plan::{GarblingKeys, InputStep, Step};
use crate::spool::Spool;
use crate::values::{Offline, Values, sum};
use crate::{BundleId, Use};

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
        let (graph, plan) = (&architecture.graph, party.plan());
        let parts = [bundle.parts.steps.len(), bundle.masks.len(), bundle.words.len()];
        if parts != [plan.steps.len(), plan.steps.len() + 1, architecture.placements.len()] {
            return Err(INCOMPLETE);
        }
        let mut input = Zeroizing::new(match masked_input {
            Some(masked) => masked.to_vec(),
            None => vec![0; graph.input.len()],
        });
        if masked_input.is_some() != (channel.me() == GATEWAY) || input.len() != graph.input.len() {
            return Err(Error::Misuse("the input has the wrong size or came to the wrong server"));
        }
        confirm(channel, &bundle.id, &usage)?;
        let counter = usage.counter;
        // The gateway: x̂ ^ P_0. The others: their pads.
        key.apply_input_pad(counter, &mut input)?;
        let input = Zeroizing::new(input.iter().map(|&b| u32::from(b)).collect::<Vec<_>>());

        let Bundle { keys, masks, words, delta, parts, spool, .. } = bundle;
        let links = start(&parts.links);
        let masks = &masks[..];
        let mut run = Run { channel, keys, delta, masks, links, spool };
        let (me, answer) = (party.index(), graph.answer());
        let flow = &plan.flow;
        // What this server opens, and the answer.
        let opened = plan.steps.iter().filter(|step| step.openers.contains(me)).map(|step| step.input);
        let mut offline = Offline::new((graph, flow), masks, &words, opened.chain([answer]));
        let mut known = Values::new(flow.reads(graph, me));
        if let Some(x) = run.input(&plan.input, &parts.input, &input)? {
            known.put(0, x);
        }
        let mut steps = plan.steps.iter().zip(parts.steps);
        for (number, node) in graph.nodes.iter().enumerate() {
            let value = number + 1;
            let here = known.wanted(value) && flow.having(value).contains(me);
            match &node.op {
                Op::Secret { input, geometry } if here => {
                    let held = match flow.source(value) {
                        Source::Layer(layer) => party.model().layer(layer).ok_or(INCOMPLETE)?,
                        _ => return Err(INCOMPLETE),
                    };
                    let mut part = Zeroizing::new(vec![0u32; geometry.outputs()]);
                    known.read(*input, |x| seco_model::linear(geometry, &held.weights, x, &mut part))?;
                    add(&mut part, &held.bias);
                    known.put(value, part);
                }
                Op::Public { terms, constant, len } if here => {
                    let constant = if flow.adds_constant(value, me) { constant.cast_unsigned() } else { 0 };
                    let terms = terms.iter().filter(|term| flow.adds(value, term.value, me));
                    let part = sum(*len, constant, terms, |value, add| known.read(value, add))?;
                    known.put(value, part);
                }
                Op::Secret { .. } | Op::Public { .. } => {}
                Op::Relu { input, .. } => {
                    let (step, parts) = steps.next().ok_or(INCOMPLETE)?;
                    let mut word = None;
                    if step.openers.contains(me) {
                        let word = word.insert(known.take(*input)?);
                        offline.read(*input, |share| add(word, share))?;
                    }
                    if let Some(x) = run.step(step, parts, word)? {
                        known.put(value, x);
                    }
                }
            }
        }
        let mut word = Zeroizing::new(vec![0u32; graph.answer_len()]);
        if flow.openers(answer).contains(me) {
            known.read(answer, |part| add(&mut word, part))?;
        }
        offline.read(answer, |share| add(&mut word, share))?;
        run.answer(&word, graph.answer_width(), key, counter)
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
    pub channel: &'a mut dyn Channel,
    pub keys: GarblingKeys,
    pub delta: Delta,
    /// This server's, by atom.
    pub masks: &'a [Zeroizing<Vec<u32>>],
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

    /// The device's input: `values` are this server's pad, the gateway's with the masked input. Gives `x - r` to those
    /// who need it.
    fn input(
        &mut self,
        input: &InputStep,
        parts: &[InputPart],
        values: &[u32],
    ) -> Result<Option<Zeroizing<Vec<u32>>>, Error> {
        const PHASE: &str = "masked input";
        let InputStep { shape, recipients, batches } = input;
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

    /// A circuit. `word` is an opener's part of what it reads, offline and online. Gives the masked activation `x - r`
    /// to those who need it.
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

    /// Masked opening: each opener publishes its word plus its share of `ρ` and what it was sent ahead; the sum over
    /// the openers is `m = z + ρ`.
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
        if step.openers.contains(me) {
            let word = word.filter(|word| word.len() == count);
            let mut word = word.ok_or(Error::Misuse("an online word is missing or has the wrong size"))?;
            for (part, batch) in parts.iter().zip(&step.batches) {
                let opening = part.opening.as_ref().ok_or(INCOMPLETE)?;
                let lanes = batch.first_lane as usize..batch.first_lane as usize + batch.lanes;
                opening.add_to(word.get_mut(lanes).ok_or(INCOMPLETE)?);
            }
            self.send_words((0..step.servers).collect(), &word, width)?;
            m.copy_from_slice(&word);
        }
        for opener in step.openers.iter().filter(|&opener| opener != me) {
            let theirs = self.recv_words(opener, count, width, PHASE)?;
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

    /// The evaluator sends `x - r` to those who need it.
    fn hand_on(
        &mut self,
        step: &Step,
        output: Zeroizing<Vec<u32>>,
    ) -> Result<Option<Zeroizing<Vec<u32>>>, Error> {
        let (me, recipients) = (self.channel.me(), step.recipients);
        let width = step.shape.mask_width;
        if me == step.evaluator {
            self.send_words(recipients, &output, width)?;
            return Ok(recipients.contains(me).then_some(output));
        }
        if !recipients.contains(me) {
            return Ok(None);
        }
        let count = step.batches.iter().map(|batch| batch.lanes).sum();
        Ok(Some(Zeroizing::new(self.recv_words(step.evaluator, count, width, "masked activation")?)))
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

fn add(sum: &mut [u32], words: &[u32]) {
    sum.iter_mut().zip(words).for_each(|(sum, word)| *sum = sum.wrapping_add(*word));
}
