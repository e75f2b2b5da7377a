//! What is counted beforehand is what the servers send, to the byte.
#![allow(clippy::unwrap_used)]

mod common;

use common::{
    LIMIT, Tap, all, bundle_id, cluster, cluster_with, graphs, infer, input, parts, plain, preprocess, seed,
    session, usage,
};
use seco_model::{FixedModel, Placement, paper_placements};
use seco_protocol::cost::{Cost, Kind};
use seco_protocol::{Channel, ChannelError, InsecureMemoryLedger, MemorySpool, Party, PlannedModel, memory};

/// Makes a bundle, uses it, and compares what every server sent to every other with the counts.
fn check(model: &FixedModel, servers: usize, placements: &[Placement], number: u64) {
    let parameter = |a: usize, b: usize| if a + b == 1 { 4 } else { 2 };
    let parties = cluster_with(model, servers, placements, number, parameter);
    let cost = Cost::of(parties[0].architecture(), parameter).unwrap();
    let (bundles, ahead) = preprocess(&parties, number);
    let keys = session(servers, number);
    let input = input(model, number);
    let (logits, online) = infer(&parties, bundles, &keys, number, &input);
    assert_eq!(logits, plain(model, &input));
    for (phase, sent) in [(false, &ahead), (true, &online)] {
        for (from, of_sender) in sent.iter().enumerate() {
            for to in 0..servers {
                let counted: u64 = Kind::ALL
                    .into_iter()
                    .filter(|kind| kind.is_online() == phase)
                    .map(|kind| cost.traffic.link(kind, from, to))
                    .sum();
                let bytes: usize =
                    of_sender.iter().filter(|(peer, _)| *peer == to).map(|(_, m)| m.len()).sum();
                assert_eq!(
                    counted, bytes as u64,
                    "online {phase}, {from} to {to}, {servers} servers, {number}"
                );
            }
        }
        let all: usize = sent.iter().flatten().map(|(_, message)| message.len()).sum();
        assert_eq!(cost.traffic.total(phase), all as u64);
    }
    let of_layers: u64 = cost.layers.iter().map(|layer| layer.bytes).sum();
    let linear: u64 = Kind::ALL.into_iter().filter(|k| k.is_linear()).map(|k| cost.traffic.of(k)).sum();
    assert_eq!(of_layers, linear);
    let gates: u64 = cost.steps.iter().map(|step| step.and_gates).sum();
    assert_eq!(gates, cost.counts.and_gates);
}

#[test]
fn a_chain_to_the_byte() {
    let model = common::model(3);
    for servers in 2..=4 {
        for gateway in 0..=4 {
            check(&model, servers, &paper_placements(4, servers, gateway), (10 * servers + gateway) as u64);
        }
    }
}

#[test]
fn random_graphs_to_the_byte() {
    for seed in 0..12 {
        let servers = 2 + seed as usize % 3;
        let model = graphs::random(seed, 14);
        let placements = graphs::random_placements(model.layers.len(), servers, seed);
        check(&model, servers, &placements, seed);
    }
}

/// More lanes than a batch has, and by hand: which messages wait for which.
#[test]
fn rounds() {
    let mut builder = graphs::Builder::new(&[8], 1);
    let hidden = builder.dense(0, 1100, 14);
    let relu = builder.relu(hidden, 3);
    builder.dense(relu, 5, 16);
    let model = builder.finish();
    check(&model, 3, &paper_placements(2, 3, 1), 5);
    let rounds = |servers: usize, gateway: usize| {
        let placements = paper_placements(2, servers, gateway);
        Cost::of(&model.architecture(servers, &placements).unwrap(), |_, _| 2).unwrap().rounds()
    };
    // Confirmation, input, shares of x - r; opening, labels, activations, answer.
    assert_eq!(rounds(3, 1), 7);
    // With two servers the only garbler is the opener, whose labels go with what it opens; the answer's parts leave while
    // the activations are on their way.
    assert_eq!(rounds(2, 1), 5);
}

/// Counts on every message how many came before it, one after the other.
struct Counted<C> {
    inner: C,
    depth: u64,
}

impl<C: Channel> Channel for Counted<C> {
    fn me(&self) -> usize {
        self.inner.me()
    }

    fn parties(&self) -> usize {
        self.inner.parties()
    }

    fn send(&mut self, to: usize, mut message: Vec<u8>) -> Result<(), ChannelError> {
        message.extend((self.depth + 1).to_le_bytes());
        self.inner.send(to, message)
    }

    fn recv(&mut self, from: usize, max: usize) -> Result<Vec<u8>, ChannelError> {
        let mut message = self.inner.recv(from, max + 8)?;
        let depth = message.split_off(message.len() - 8);
        self.depth = self.depth.max(u64::from_le_bytes(depth.try_into().unwrap()));
        Ok(message)
    }
}

/// Messages in sequence of a bundle, and of an inference with it up to the gateway's answer.
fn depths(parties: &[Party], number: u64) -> [usize; 2] {
    let network = || {
        let channels = memory::network(parties.len(), LIMIT).into_iter();
        channels.map(|inner| Counted { inner, depth: 0 }).collect::<Vec<_>>()
    };
    let lanes = network().into_iter().zip(network());
    let made = all(parties.iter().zip(lanes).collect(), |i, (party, (mut a, mut b))| {
        let spool = Box::new(MemorySpool::default());
        let bundle = party.preprocess(bundle_id(number), 0, &mut a, &mut b, seed(number, i), spool).unwrap();
        (bundle.spend(&InsecureMemoryLedger::default(), &usage(1, number)).unwrap(), a.depth.max(b.depth))
    });
    let (bundles, ahead): (Vec<_>, Vec<_>) = made.into_iter().unzip();
    let keys = session(parties.len(), number);
    let x = vec![0; parties[0].architecture().graph.input.len()];
    let online =
        all(parties.iter().zip(bundles).zip(network()).collect(), |i, ((party, bundle), mut channel)| {
            bundle.infer(party.planned(), &mut channel, &keys[i], (i == 0).then_some(&x[..])).unwrap();
            channel.depth
        });
    [ahead.into_iter().max().unwrap(), online[0]].map(|depth| depth as usize)
}

/// Messages that wait for each other, as counted and as they are: of one batch and of several, without a ReLU, and in
/// waves.
#[test]
fn messages_in_sequence() {
    let network = |hidden: usize, relus: bool| {
        let mut builder = graphs::Builder::new(&[8], 1);
        let mut value = builder.dense(0, hidden, 14);
        if relus {
            value = builder.relu(value, 3);
            value = builder.dense(value, 9, 15);
            value = builder.relu(value, 2);
            builder.dense(value, 5, 16);
        }
        builder.finish()
    };
    for (number, (hidden, relus, waves)) in
        [(20, true, 32 << 20), (2100, true, 32 << 20), (20, false, 32 << 20), (2100, true, 0)]
            .into_iter()
            .enumerate()
    {
        let model = network(hidden, relus);
        for servers in 2..=4 {
            let placements = paper_placements(model.layers.len(), servers, 1);
            let parties = cluster(&model, servers, &placements, number as u64);
            let parties: Vec<_> = parties.into_iter().map(|party| party.with_waves(waves)).collect();
            let cost = Cost::with_waves(parties[0].architecture(), |_, _| 2, waves).unwrap();
            let counted = [cost.rounds_ahead, cost.rounds()];
            let measured = depths(&parties, number as u64);
            if waves > 0 {
                assert_eq!(measured, counted, "{servers} servers, {hidden}, {relus}");
            } else {
                assert!(measured[0] <= counted[0], "{servers} servers: {measured:?}, {counted:?}");
            }
        }
    }
}

/// What a set-up sends, and how much more a bundle does with which keys are renewed.
#[test]
fn keys_and_set_up_to_the_byte() {
    let model = common::small();
    for servers in 2..=4 {
        let placements = paper_placements(2, servers, 1);
        let parameter = |a: usize, b: usize| if a + b == 1 { 4 } else { 2 };
        let channels = memory::network(servers, LIMIT);
        let parts = parts(&model, servers, &placements, 1);
        let made = all(parts.into_iter().zip(channels).collect(), |i, (part, channel)| {
            let (mut channel, sent) = Tap::new(channel);
            let parameters: Vec<usize> = (0..servers).map(|peer| parameter(i, peer)).collect();
            let party = Party::setup(PlannedModel::new(part).unwrap(), &mut channel, &parameters, seed(1, i))
                .unwrap()
                .with_key_life(2);
            let sent = sent.lock().unwrap().iter().map(|(_, message)| message.len() as u64).sum::<u64>();
            (party, sent)
        });
        let (parties, sent): (Vec<_>, Vec<_>) = made.into_iter().unzip();
        let cost = Cost::of(parties[0].architecture(), parameter).unwrap();
        assert_eq!(sent.iter().sum::<u64>(), cost.setup_bytes, "{servers} servers");
        let [first, second] = [1, 2].map(|number| {
            let (_, sent) = preprocess(&parties, number);
            sent.iter().flatten().map(|(_, message)| message.len() as u64).sum::<u64>()
        });
        assert_eq!(first, cost.traffic.total(false));
        assert_eq!(second - first, cost.renewal.0, "{servers} servers");
        assert_eq!(cost.renewal.1, 64);
    }
}

/// The formulas of section 9 of PROTOCOL.md, for one ReLU; those of the input's masks are in section 6.
#[test]
fn formulas_of_the_document() {
    const LANES: u64 = 1024;
    const INPUT: u64 = 128;
    for (n, k, f, κ, p, shared) in [
        (2, 20, 8, 20, 2, false),
        (3, 20, 8, 20, 2, false),
        (4, 20, 8, 20, 2, true),
        (3, 17, 0, 12, 4, true),
        (4, 14, 5, 9, 1, false),
        (2, 25, 3, 30, 8, true),
        (3, 11, 6, 3, 2, false),
    ] {
        let mut builder = graphs::Builder::new(&[INPUT as usize], 1);
        let hidden = builder.dense(0, LANES as usize, k as u32);
        let relu = builder.relu(hidden, f as u32);
        builder.dense(relu, 5, κ as u32);
        let first = if shared { Placement::Shared(vec![0, 1]) } else { Placement::Held(0) };
        // The evaluator is server 1; what it makes goes to server 0.
        let architecture = builder.finish().architecture(n as usize, &[first, Placement::Held(0)]).unwrap();
        assert_eq!(architecture.graph.width(relu), κ as u32);
        let cost = Cost::of(&architecture, |_, _| p as usize).unwrap();
        let bits = |kinds: &[Kind]| kinds.iter().map(|&kind| 8 * cost.traffic.of(kind)).sum::<u64>();
        let what = format!("{:?}", (n, k, f, κ, p, shared));
        let (τ, β) = (u64::from(κ > k - f), u64::from(f > 0));
        let openers = if shared { 2 } else { 1 };
        let pairs = n * (n - 1) / 2;
        assert_eq!(cost.counts.and_gates, LANES * (k - 1), "{what}");
        let cots = (n - 1) * (n - 2) * (3 * k - 3) + (n - 1) * (k + 1);
        let choices = (LANES * cots + INPUT * 8 * pairs) * 16 / p;
        assert_eq!(cost.traffic.of(Kind::Choices), choices, "{what}");
        let tables = 128 * (n - 1) * (3 * n - 4) * (k - 1) + k - 1;
        assert_eq!(bits(&[Kind::Tables]), LANES * tables, "{what}");
        let crossed = 2 * (n - 1) * (n - 2) * (k - 2);
        assert_eq!(bits(&[Kind::CrossBits, Kind::Corrections]), LANES * crossed, "{what}");
        let ω: u64 = (0..k)
            .map(|i| {
                let shifted = if i >= f { κ.saturating_sub(i - f) } else { 0 };
                (k - i).max(shifted).max(if i == k - 1 { κ * τ } else { 0 })
            })
            .sum();
        let sums = ω * pairs + (1 + β) * κ * (n - 1) * (n - 2) / 2;
        let chain = κ * (n - 1) * ((1 + τ) + (n - 2) * (1 + τ + β));
        let input = INPUT * pairs * (0..8).map(|i| k - i).sum::<u64>();
        assert_eq!(bits(&[Kind::Conversions]), LANES * (sums + chain) + input, "{what}");
        assert_eq!(bits(&[Kind::Ahead]), LANES * k * (n - openers), "{what}");
        let labels = (n - 1) * (128 * (k - 1) + (2 << β) * κ);
        assert_eq!(bits(&[Kind::Labels]), LANES * labels, "{what}");
        assert_eq!(bits(&[Kind::Opening]), LANES * k * openers * (n - 1), "{what}");
        assert_eq!(bits(&[Kind::Activation]), LANES * κ, "{what}");
        // A ReLU's, and where each garbler's correlations begin; words of masks and products; the input's.
        let rows = if n == 2 { 2 } else { 3 * (n - 1) };
        let opening = if shared { 4 } else { 0 };
        let stored = LANES * (28 + opening + 16 * (k - 1) * rows) + LANES * (2 * k - 1) / 8 + 8 * (n - 1);
        let words = 4 * (INPUT + LANES + LANES + 5) + 8 * (INPUT / 8 + 4 * INPUT);
        assert_eq!(cost.parts[1].storage_bytes, stored + words, "{what}");
    }
}
