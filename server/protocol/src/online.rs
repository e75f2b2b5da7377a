//! The online phase of one server (section 8 of PROTOCOL.md).

mod run;
mod threads;

use seco_core::IncarnationKey;
use seco_garble::convert::{InputPad, Online, kind};
use seco_model::Op;
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use crate::bundle::{Bundle, SpentBundle};
use crate::channel::Channel;
use crate::error::Error;
use crate::flow::{GATEWAY, Source};
use crate::links::peers;
use crate::planned::PlannedModel;
use crate::values::{Offline, Values, sum};
use crate::{BundleId, Use};

pub(crate) use run::{Run, start};

/// A spent bundle of which every server knows that all have spent it, for the same request. It waits for that.
pub struct ConfirmedBundle {
    bundle: Bundle,
    usage: Use,
}

/// The request of an inference at one server. It may come long after the servers have begun.
pub enum Request<'a> {
    /// At the gateway: gives the device's masked input, as bytes ([`seco_model::InputSpec`]), and may wait for it. With
    /// an error the inference ends, and nothing has left the gateway but its confirmation.
    Input(&'a mut dyn FnMut() -> Result<Vec<u8>, Error>),
    /// At the others: told once the request is there, which they know by the gateway's publication. With an error the
    /// inference ends, and nothing has left this server but its confirmation and its own publication.
    Told(&'a mut dyn FnMut() -> Result<(), Error>),
}

impl SpentBundle {
    /// Runs one inference together with all other servers. Blocking.
    ///
    /// The gateway passes the device's masked input (as bytes: [`seco_model::InputSpec`]) and gets the masked logits,
    /// words mod `2^width`, still to be packed; the others pass `None` and get `None`. `key` is this
    /// server's key for the device's connection.
    ///
    /// Nothing that depends on the input leaves this server before every server has confirmed that it spent the same
    /// bundle durably for the same request (section 7 of PROTOCOL.md). So a single server whose ledger is intact is
    /// enough to keep a bundle from being used twice, though all others were set back.
    pub fn infer(
        self,
        model: &PlannedModel,
        channel: &mut dyn Channel,
        key: &IncarnationKey,
        masked_input: Option<&[u8]>,
    ) -> Result<Option<Vec<u32>>, Error> {
        let len = model.architecture().graph.input.byte_len();
        if masked_input.is_some() != (channel.me() == GATEWAY) || masked_input.is_some_and(|x| x.len() != len)
        {
            return Err(WRONG_INPUT);
        }
        let confirmed = self.confirm(model, channel)?;
        match masked_input {
            Some(input) => confirmed.infer(model, channel, key, Request::Input(&mut || Ok(input.to_vec()))),
            None => confirmed.infer(model, channel, key, Request::Told(&mut || Ok(()))),
        }
    }

    /// What [`SpentBundle::infer`] begins with: tells every server that this one spent the bundle, and waits until all
    /// others said the same. Blocking.
    ///
    /// # Errors
    /// [`Error::Peer`] names a server that spent another bundle, or this one for another request.
    pub fn confirm(self, model: &PlannedModel, channel: &mut dyn Channel) -> Result<ConfirmedBundle, Error> {
        let SpentBundle { bundle, usage } = self;
        let architecture = model.architecture();
        if bundle.model != *model.part().id() {
            return Err(Error::Misuse("the bundle was made for another model or another split of it"));
        }
        if bundle.server != channel.me() || model.index() != channel.me() {
            return Err(Error::Misuse("the bundle or the model is another server's"));
        }
        let plan = model.plan();
        let parts = [bundle.parts.steps.len(), bundle.masks.len(), bundle.words.len()];
        if parts != [plan.steps.len(), plan.steps.len() + 1, architecture.placements.len()] {
            return Err(INCOMPLETE);
        }
        confirm(channel, &bundle.id, &usage)?;
        Ok(ConfirmedBundle { bundle, usage })
    }
}

impl ConfirmedBundle {
    /// The rest of [`SpentBundle::infer`], on the same channel: what this server's part needs no input for is done at
    /// once, the rest when the request comes. Blocking.
    ///
    /// The messages and their order are the same however late it comes. Until then a server other than the gateway has
    /// published its pad under the bundle's masks, and the gateway nothing.
    pub fn infer(
        self,
        model: &PlannedModel,
        channel: &mut dyn Channel,
        key: &IncarnationKey,
        request: Request<'_>,
    ) -> Result<Option<Vec<u32>>, Error> {
        let ConfirmedBundle { bundle, usage: Use { counter, .. } } = self;
        let (graph, plan) = (&model.architecture().graph, model.plan());
        let Bundle { keys, masks, words, delta, parts, spool, .. } = bundle;
        let links = start(&parts.links);
        let masks = &masks[..];
        let mut run = Run { channel, keys, delta, masks, links, spool, random: Vec::new() };
        let (me, answer, flow) = (model.index(), graph.answer(), &plan.flow);
        // What this server opens, and the answer.
        let opened = plan.steps.iter().filter(|step| step.openers.contains(me)).map(|step| step.input);
        let mut offline = Offline::new((graph, flow), masks, &words, opened.chain([answer]));
        let mut known = Values::new(flow.reads(graph, me));

        let len = graph.input.byte_len();
        let (input, told) = match request {
            Request::Input(input) if me == GATEWAY => (input()?, None),
            Request::Told(told) if me != GATEWAY => (vec![0; len], Some(told)),
            _ => return Err(WRONG_INPUT),
        };
        let mut input = Zeroizing::new(input);
        if input.len() != len {
            return Err(WRONG_INPUT);
        }
        // The gateway: x̂ ^ P_0. The others: their pads.
        key.apply_input_pad(counter, &mut input)?;
        let input =
            InputPad::new(Zeroizing::new(graph.input.values(&input).map(u32::from).collect::<Vec<_>>()));
        if let Some(x) = run.input(&plan.input, &parts.input, input, told)? {
            known.put(0, x.online());
        }
        let mut parts = parts.steps.into_iter();
        let mut levels = plan.steps.chunk_by(|a, b| a.depth == b.depth);
        for nodes in flow.affine(graph) {
            for number in nodes {
                affine(model, number, &mut known)?;
            }
            let Some(steps) = levels.next() else { break };
            let mut opened = Vec::with_capacity(steps.len());
            for step in steps {
                let mut share = None;
                if step.openers.contains(me) {
                    let online = known.take(step.input)?;
                    share = offline.read(step.input, |offline| online.plus(offline))?;
                }
                opened.push((parts.next().ok_or(INCOMPLETE)?, share));
            }
            for (step, x) in steps.iter().zip(run.level(steps, opened)?) {
                if let Some(x) = x {
                    known.put(step.output, x.online());
                }
            }
        }
        let online = if flow.answerers(answer).contains(me) { Some(known.take(answer)?) } else { None };
        let share = offline.read(answer, |offline| match online {
            Some(online) => online.plus(offline),
            None => Some(offline.to_words()),
        })?;
        run.answer(share.ok_or(INCOMPLETE)?, graph.answer_width(), key, counter)
    }
}

/// What a party has online of a layer or a sum, node `number`, from what it has of the values that this reads.
pub(crate) fn affine(
    model: &PlannedModel,
    number: usize,
    known: &mut Values<kind::Online>,
) -> Result<(), Error> {
    let (graph, flow, me) = (&model.architecture().graph, &model.plan().flow, model.index());
    let value = number + 1;
    if !known.wanted(value) || !flow.having(value).contains(me) {
        return Ok(());
    }
    let part = match (&graph.nodes.get(number).ok_or(INCOMPLETE)?.op, flow.source(value)) {
        (Op::Secret { input, geometry }, Source::Layer(layer)) => {
            let held = model.part().layer(layer).ok_or(INCOMPLETE)?;
            let mut part = Zeroizing::new(vec![0u32; geometry.outputs()]);
            known.read(*input, |x| seco_model::linear(geometry, &held.weights, x.words(), &mut part))?;
            add(&mut part, &held.bias);
            Online::new(part)
        }
        (Op::Public { terms, constant, len }, _) => {
            let constant = if flow.adds_constant(value, me) { constant.cast_unsigned() } else { 0 };
            let terms = terms.iter().filter(|term| flow.adds(value, term.value, me));
            sum(*len, constant, terms, |value, add| known.read(value, add))?
        }
        _ => return Err(INCOMPLETE),
    };
    known.put(value, part);
    Ok(())
}

const INCOMPLETE: Error = Error::Misuse("the bundle is incomplete");
const WRONG_INPUT: Error = Error::Misuse("the input has the wrong size or came to the wrong server");

/// Bytes of a confirmation.
pub(crate) const CONFIRMATION: usize = 32;

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
        if channel.recv(peer, CONFIRMATION)? != message {
            return Err(Error::Peer { peer, phase: "confirmation that the bundle is spent" });
        }
    }
    Ok(())
}

fn add(sum: &mut [u32], words: &[u32]) {
    sum.iter_mut().zip(words).for_each(|(sum, word)| *sum = sum.wrapping_add(*word));
}
