//! The online phase of one server (`protocol.md` section 7).

use seco_core::IncarnationKey;
use seco_garble::slices::{from_lanes, plane_words, to_lanes};
use seco_model::Architecture;
use seco_ot::Delta;
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use crate::bundle::{Bundle, SpentBundle};
use crate::channel::Channel;
use crate::error::{Error, from_peer};
use crate::links::peers;
use crate::nonlinear::Role;
use crate::party::Party;
use crate::plan::{GarblingKeys, Step};
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
        if bundle.setup != *party.setup_id() {
            return Err(Error::Misuse("the bundle was made before the cluster was last set up"));
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
        let everyone: Vec<usize> = (0..channel.parties()).collect();

        let Bundle { keys, masks, words, delta, roles, spool, .. } = bundle;
        let mut run = Run { architecture, channel, keys, delta, masks, spool };
        let mut roles = roles.into_iter();
        let mut steps = party.plan().steps.iter().enumerate();
        let first = steps.next().zip(roles.next()).ok_or(Error::Misuse("the bundle is empty"))?;
        let ((index, step), roles_of_step) = first;
        let mut activation = run.step(index, step, roles_of_step, Some(&input), &everyone)?;
        for (i, layer) in architecture.layers.iter().enumerate() {
            let holders = layer.placement.holders();
            let offline = words.get(i).ok_or(Error::Misuse("the bundle is incomplete"))?;
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
            match steps.next().zip(roles.next()) {
                Some(((index, step), roles)) => {
                    let word = word.as_ref().map(|w| w.as_slice());
                    activation = run.step(index, step, roles, word, holders)?;
                }
                None => {
                    let word = word.as_ref().unwrap_or(offline);
                    return run.answer(word, layer.width, key, counter);
                }
            }
        }
        Err(Error::Misuse("the bundle has too many circuits"))
    }
}

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

/// What the steps of one inference share.
pub(crate) struct Run<'a> {
    pub architecture: &'a Architecture,
    pub channel: &'a mut dyn Channel,
    pub keys: GarblingKeys,
    pub delta: Delta,
    pub masks: Vec<Zeroizing<Vec<u32>>>,
    pub spool: Box<dyn Spool>,
}

impl Run<'_> {
    /// A non-linear step. `word` is this server's online word, which the `publishers` have (all of
    /// them in the input circuit, the holders of the layer in a ReLU). Gives the masked activation
    /// `x - r` to the holders of the next layer.
    pub fn step(
        &mut self,
        index: usize,
        step: &Step,
        roles: Vec<Role>,
        word: Option<&[u32]>,
        publishers: &[usize],
    ) -> Result<Option<Zeroizing<Vec<u32>>>, Error> {
        let me = self.channel.me();
        let evaluator = step.circuit.evaluator;
        let published = self.publish(step, &roles, word, publishers)?;
        let mut output = Zeroizing::new(Vec::new());
        let mut starts = 0;
        for (role, batch) in roles.into_iter().zip(&step.batches) {
            let words = batch.words();
            let width = published_width(step) * words;
            let range = starts..starts + width;
            starts += width;
            let planes: Vec<&[u64]> = published.iter().map(|p| p.get(range.clone()).unwrap_or(&[])).collect();
            // In the input circuit everyone masks the same wires; in a ReLU each holder has its own.
            let masked: Vec<u64> = if index == 0 {
                let xor = |i| planes.iter().fold(0, |sum, p: &&[u64]| sum ^ p.get(i).copied().unwrap_or(0));
                (0..width).map(xor).collect()
            } else {
                planes.concat()
            };
            match role {
                Role::Garbler(garbler) => {
                    let labels = garbler.labels(&self.delta, &masked)?;
                    self.channel.send(evaluator, labels)?;
                    // The evaluator does nothing but read labels until it has all of them.
                    self.channel.wait_sent(evaluator, LABELS_AHEAD)?;
                }
                Role::Evaluator(online) => {
                    let mut labels = Vec::with_capacity(batch.garblers());
                    for position in 0..batch.garblers() {
                        let server = step.circuit.server(position);
                        let message = self.channel.recv(server, batch.label_bytes())?;
                        if message.len() != batch.label_bytes() {
                            return Err(Error::Peer { peer: server, phase: "input labels" });
                        }
                        labels.push(message);
                    }
                    let material = self.spool.take()?;
                    let key = self.keys.of(batch);
                    output.extend(online.evaluate(&material, &masked, &labels, &key)?);
                }
            }
        }
        if me == evaluator {
            // The garblers' masks were subtracted in the circuit, the evaluator's own is in clear.
            let own = self.masks.get(index).ok_or(Error::Misuse("the bundle is incomplete"))?;
            for (value, mask) in output.iter_mut().zip(own.iter()) {
                *value = value.wrapping_sub(*mask);
            }
        }
        self.hand_on(index, evaluator, output)
    }

    /// Publishes this server's masked word and gathers the others', in order of publishers. A word
    /// is the planes of all batches, one after the other.
    fn publish(
        &mut self,
        step: &Step,
        roles: &[Role],
        word: Option<&[u32]>,
        publishers: &[usize],
    ) -> Result<Vec<Vec<u64>>, Error> {
        const PHASE: &str = "masked word";
        let me = self.channel.me();
        let width = published_width(step);
        let mut mine = Vec::new();
        if let Some(word) = word {
            for (role, batch) in roles.iter().zip(&step.batches) {
                let lanes = batch.first_lane as usize..batch.first_lane as usize + batch.lanes;
                let values = word.get(lanes).ok_or(Error::Misuse("an online word has the wrong size"))?;
                mine.extend(match role {
                    Role::Garbler(garbler) => garbler.mask(values)?,
                    Role::Evaluator(evaluator) => evaluator.correct(values)?,
                });
            }
            let bytes = bytemuck::cast_slice::<u64, u8>(&mine);
            for peer in peers(self.channel) {
                self.channel.send(peer, bytes.to_vec())?;
            }
        }
        let length: usize = step.batches.iter().map(|b| b.words() * width).sum();
        let mut all = Vec::with_capacity(publishers.len());
        for &server in publishers {
            all.push(if server == me {
                std::mem::take(&mut mine)
            } else {
                let bytes = self.channel.recv(server, length * 8)?;
                from_peer(planes_from_bytes(&bytes, length), server, PHASE)?
            });
        }
        Ok(all)
    }

    /// The evaluator sends `x - r` to the holders of the layer that consumes it.
    fn hand_on(
        &mut self,
        index: usize,
        evaluator: usize,
        output: Zeroizing<Vec<u32>>,
    ) -> Result<Option<Zeroizing<Vec<u32>>>, Error> {
        let architecture = self.architecture;
        let layer = architecture.layers.get(index).ok_or(Error::Misuse("a circuit without a layer"))?;
        let (me, holders) = (self.channel.me(), layer.placement.holders());
        let width = architecture.mask_width(index);
        let count = layer.geometry.inputs();
        if me == evaluator {
            if holders.iter().any(|&h| h != me) {
                let planes = from_lanes(&output, width as usize);
                let bytes = bytemuck::cast_slice::<u64, u8>(&planes);
                for &holder in holders.iter().filter(|&&h| h != me) {
                    self.channel.send(holder, bytes.to_vec())?;
                }
            }
            return Ok(holders.contains(&me).then_some(output));
        }
        if !holders.contains(&me) {
            return Ok(None);
        }
        let length = plane_words(count) * width as usize;
        let bytes = self.channel.recv(evaluator, length * 8)?;
        let planes = from_peer(planes_from_bytes(&bytes, length), evaluator, "masked activation")?;
        Ok(Some(Zeroizing::new(to_lanes(&planes, count))))
    }

    /// The last layer: every server's word with its output pad goes to the gateway, which adds them.
    fn answer(
        &mut self,
        word: &[u32],
        width: u32,
        key: &IncarnationKey,
        counter: u64,
    ) -> Result<Option<Vec<u32>>, Error> {
        let mask = u32::MAX >> (32 - width.clamp(1, 32));
        let mut sum = vec![0u32; word.len()];
        key.output_pad(counter, width, &mut sum)?;
        for (sum, word) in sum.iter_mut().zip(word) {
            *sum = sum.wrapping_add(*word) & mask;
        }
        if self.channel.me() != GATEWAY {
            let planes = from_lanes(&sum, width as usize);
            self.channel.send(GATEWAY, bytemuck::cast_slice::<u64, u8>(&planes).to_vec())?;
            return Ok(None);
        }
        let length = plane_words(word.len()) * width as usize;
        for peer in peers(self.channel) {
            let bytes = self.channel.recv(peer, length * 8)?;
            let planes = from_peer(planes_from_bytes(&bytes, length), peer, "masked output")?;
            for (sum, part) in sum.iter_mut().zip(to_lanes(&planes, word.len())) {
                *sum = sum.wrapping_add(part) & mask;
            }
        }
        Ok(Some(sum))
    }
}

/// Width of the word that each publisher of a step publishes.
fn published_width(step: &Step) -> usize {
    use seco_garble::program::Source;
    let words = &step.circuit.program.words;
    words.iter().find(|w| matches!(w.source, Source::Online(_))).map_or(0, |w| w.width)
}

/// Bytes to planes, of exactly `length` words.
fn planes_from_bytes(bytes: &[u8], length: usize) -> Result<Vec<u64>, ()> {
    if bytes.len() != length * 8 {
        return Err(());
    }
    Ok(bytes.chunks_exact(8).map(|c| u64::from_le_bytes(std::array::from_fn(|i| c[i]))).collect())
}
