//! What an inference costs, exactly, before any server runs: bytes by kind of message and by link, messages that wait
//! for each other, and the work of every server in countable units. All of it follows from the public architecture, by
//! the same functions of lengths that the protocol itself uses.
//!
//! Bytes are those of messages as a [`Channel`](crate::Channel) takes them. What carries them adds its own: the mesh
//! of the `seco` binary four bytes a message and QUIC's, UDP's and IP's headers.

mod ahead;
mod online;

use seco_he::{KeyDraft, LayerShape, LinearPlan, Parameters, Weights};
use seco_model::Architecture;
use serde::Serialize;

use crate::error::Error;
use crate::keys::bundles;
use crate::links::base_len;
use crate::party::{NONCE, WEIGHTS_MEMORY};
use crate::plan::{Plan, WAVE_BYTES};
use crate::{Counts, Part, linear, nonlinear};
pub use online::Event;

/// What a message is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Ahead: a server's encrypted part of a layer's mask, to the holders.
    Mask,
    /// Ahead: the `c1` of a holder's product.
    Product,
    /// Ahead: decryption shares, to a holder.
    Answer,
    /// Ahead: the extension of correlated OT that the bundle uses.
    Extension,
    /// Ahead: choices of correlated OTs.
    Choices,
    /// Ahead: a bit for every cross term of garbling.
    CrossBits,
    /// Ahead: corrections that follow from them.
    Corrections,
    /// Ahead: garbled tables, to the evaluator.
    Tables,
    /// Ahead: conversions between shares and wires, the input's among them.
    Conversions,
    /// Ahead: masked openings by servers without an online part.
    Ahead,
    /// Online: that the bundle is spent.
    Confirmation,
    /// Online: the masked input, and shares of it.
    Input,
    /// Online: masked openings.
    Opening,
    /// Online: labels and projections, to the evaluator.
    Labels,
    /// Online: masked activations, to those who need them.
    Activation,
    /// Online: parts of the masked answer, to the gateway.
    Output,
}

impl Kind {
    /// All of them, in their order.
    pub const ALL: [Kind; 16] = [
        Kind::Mask,
        Kind::Product,
        Kind::Answer,
        Kind::Extension,
        Kind::Choices,
        Kind::CrossBits,
        Kind::Corrections,
        Kind::Tables,
        Kind::Conversions,
        Kind::Ahead,
        Kind::Confirmation,
        Kind::Input,
        Kind::Opening,
        Kind::Labels,
        Kind::Activation,
        Kind::Output,
    ];

    /// Whether it is sent once the input is there.
    pub fn is_online(self) -> bool {
        self >= Kind::Confirmation
    }

    /// Whether it belongs to the linear layers' part of preprocessing, which has a channel of its own.
    pub fn is_linear(self) -> bool {
        self <= Kind::Answer
    }

    /// Name for people.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Mask => "encrypted masks",
            Kind::Product => "products",
            Kind::Answer => "decryption shares",
            Kind::Extension => "OT extensions",
            Kind::Choices => "correlated OTs",
            Kind::CrossBits => "cross bits",
            Kind::Corrections => "corrections",
            Kind::Tables => "garbled tables",
            Kind::Conversions => "conversions",
            Kind::Ahead => "openings ahead",
            Kind::Confirmation => "confirmations",
            Kind::Input => "masked input",
            Kind::Opening => "masked openings",
            Kind::Labels => "labels, projections",
            Kind::Activation => "masked activations",
            Kind::Output => "masked answer",
        }
    }
}

/// Ordered pairs of different servers.
fn pairs(servers: usize) -> impl Iterator<Item = (usize, usize)> {
    (0..servers).flat_map(move |a| (0..servers).map(move |b| (a, b))).filter(|(a, b)| a != b)
}

/// Bytes by kind and by link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Traffic {
    servers: usize,
    /// By kind, by sender, by receiver.
    bytes: Vec<u64>,
}

impl Traffic {
    fn new(servers: usize) -> Traffic {
        Traffic { servers, bytes: vec![0; Kind::ALL.len() * servers * servers] }
    }

    fn place(&self, kind: Kind, from: usize, to: usize) -> usize {
        (kind as usize * self.servers + from) * self.servers + to
    }

    fn add(&mut self, kind: Kind, from: usize, to: usize, bytes: usize) {
        let place = self.place(kind, from, to);
        if let Some(sum) = self.bytes.get_mut(place) {
            *sum += bytes as u64;
        }
    }

    /// Bytes of a kind on a link.
    pub fn link(&self, kind: Kind, from: usize, to: usize) -> u64 {
        self.bytes.get(self.place(kind, from, to)).copied().unwrap_or(0)
    }

    fn sum(&self, counts: impl Fn(Kind, usize, usize) -> bool) -> u64 {
        let all = Kind::ALL
            .into_iter()
            .flat_map(|kind| pairs(self.servers).map(move |(from, to)| (kind, from, to)));
        all.filter(|&(kind, from, to)| counts(kind, from, to))
            .map(|(kind, from, to)| self.link(kind, from, to))
            .sum()
    }

    /// Bytes of a kind on all links.
    pub fn of(&self, kind: Kind) -> u64 {
        self.sum(|k, _, _| k == kind)
    }

    /// Bytes of a phase on all links.
    pub fn total(&self, online: bool) -> u64 {
        self.sum(|kind, _, _| kind.is_online() == online)
    }

    /// Bytes of these kinds that a server sends and receives.
    pub fn at(&self, server: usize, counts: impl Fn(Kind) -> bool) -> u64 {
        self.sum(|kind, from, to| counts(kind) && (from == server || to == server))
    }

    /// Bytes that a server sends in a phase.
    pub fn sent(&self, server: usize, online: bool) -> u64 {
        self.sum(|kind, from, _| kind.is_online() == online && from == server)
    }

    /// Bytes that a server receives in a phase.
    pub fn received(&self, server: usize, online: bool) -> u64 {
        self.sum(|kind, _, to| kind.is_online() == online && to == server)
    }
}

/// One server's work ahead, in units whose time can be measured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Work {
    /// Ciphertexts that it encrypts.
    pub encrypted: u64,
    /// Ciphertexts of all servers that it adds up as a holder.
    pub added: u64,
    /// Products of a ciphertext and a weight polynomial.
    pub products: u64,
    /// Weight polynomials that do not fit memory in NTT form and are transformed for every bundle.
    pub transforms: u64,
    /// Ciphertexts that it makes of products, and decodes.
    pub made: u64,
    /// Ciphertexts of others that it answers.
    pub answered: u64,
    /// AND gates that it garbles.
    pub garbled: u64,
    /// AND gates whose tables it adds up, garbler by garbler.
    pub evaluated: u64,
}

/// What a secret layer costs ahead; online it costs what its opening does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LayerCost {
    /// Number of its node.
    pub node: usize,
    /// Ciphertexts of one server's mask.
    pub inputs: usize,
    /// Ciphertexts of one holder's product.
    pub outputs: usize,
    /// Products of a ciphertext and a weight polynomial, of one holder.
    pub products: usize,
    /// Bytes on all links.
    pub bytes: u64,
}

/// What a ReLU of the graph costs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StepCost {
    /// Number of its node.
    pub node: usize,
    /// Number of values.
    pub relus: u64,
    /// AND gates.
    pub and_gates: u64,
    /// Bytes on all links, ahead.
    pub bytes: u64,
    /// Bytes on all links, online.
    pub online_bytes: u64,
}

/// What an inference costs.
#[derive(Clone, Debug)]
pub struct Cost {
    /// Number of servers.
    pub servers: usize,
    /// Gates and ReLUs.
    pub counts: Counts,
    /// Bytes of one bundle and its inference.
    pub traffic: Traffic,
    /// By server.
    pub work: Vec<Work>,
    /// By server: its part of the circuits, and what it stores of a bundle.
    pub parts: Vec<Part>,
    /// By server: bytes of weights in NTT form, kept from one bundle to the next.
    pub weights_bytes: Vec<u64>,
    /// By server: bytes of messages in memory while a bundle is made, those of the waves under way.
    pub waves_bytes: Vec<u64>,
    /// By server: bytes of a bundle that stay in memory until all of it is made.
    pub unfinished_bytes: Vec<u64>,
    /// The secret layers.
    pub layers: Vec<LayerCost>,
    /// The ReLUs.
    pub steps: Vec<StepCost>,
    /// Messages in sequence, ahead, at most: waves of layers with different holders may wait for each other less.
    pub rounds_ahead: usize,
    /// What happens online, in order.
    pub online: Vec<Event>,
    /// Bytes of the set-up on all links, once.
    pub setup_bytes: u64,
    /// Bytes on all links when keys are renewed, and after how many bundles that is.
    pub renewal: (u64, u64),
}

impl Cost {
    /// Counts. `ot_parameter` is SoftSpokenOT's between two servers, the same both ways.
    ///
    /// # Errors
    /// [`Error::He`] for a layer that homomorphic encryption cannot serve, and what a set-up would refuse.
    pub fn of(
        architecture: &Architecture,
        ot_parameter: impl Fn(usize, usize) -> usize,
    ) -> Result<Cost, Error> {
        Self::with_waves(architecture, ot_parameter, WAVE_BYTES)
    }

    /// With other waves than those of a real cluster: for tests, as [`Party::with_waves`](crate::Party::with_waves).
    ///
    /// # Errors
    /// Those of [`Cost::of`].
    #[doc(hidden)]
    pub fn with_waves(
        architecture: &Architecture,
        ot_parameter: impl Fn(usize, usize) -> usize,
        wave_bytes: usize,
    ) -> Result<Cost, Error> {
        architecture.check()?;
        let servers = architecture.servers;
        let layers: Vec<_> = architecture.graph.layers().collect();
        let shapes: Vec<LayerShape> =
            layers.iter().map(|layer| LayerShape { geometry: layer.geometry, width: layer.width }).collect();
        let (parameters, plans) = Parameters::select(&shapes, servers)?;
        let plan = Plan::new(architecture);
        let mut cost = Cost {
            servers,
            counts: plan.counts(),
            traffic: Traffic::new(servers),
            work: vec![Work::default(); servers],
            parts: (0..servers).map(|me| plan.part(&architecture.graph, me)).collect(),
            weights_bytes: vec![0; servers],
            waves_bytes: Vec::new(),
            unfinished_bytes: (0..servers).map(|me| plan.unfinished(&architecture.graph, me)).collect(),
            layers: Vec::new(),
            steps: Vec::new(),
            rounds_ahead: 0,
            online: Vec::new(),
            setup_bytes: 0,
            renewal: (0, bundles(architecture)?),
        };
        cost.set_up(&parameters, &ot_parameter);
        cost.linear(architecture, &plans);
        cost.extensions(&ot_parameter);
        cost.input(&plan, &ot_parameter);
        for step in &plan.steps {
            cost.step(step, &ot_parameter);
        }
        cost.waves_bytes = (0..servers).map(|server| cost.waves(server, wave_bytes)).collect();
        cost.online(architecture, &plan);
        let circuits = nonlinear::messages(servers, &plan, wave_bytes);
        let layers = linear::messages(linear::waves(plans.iter(), servers, wave_bytes).len());
        cost.rounds_ahead = circuits.max(layers);
        Ok(cost)
    }

    /// Keys, base OTs.
    fn set_up(&mut self, parameters: &Parameters, ot_parameter: &impl Fn(usize, usize) -> usize) {
        let links = pairs(self.servers).count() as u64;
        self.renewal.0 = links * (KeyDraft::OPENING_LEN + parameters.polynomial_len()) as u64;
        let base = pairs(self.servers).flat_map(|(a, b)| base_len(ot_parameter(a, b))).sum::<usize>();
        self.setup_bytes = links * NONCE as u64 + self.renewal.0 + base as u64;
    }

    /// Bytes of a server's messages that are in memory together: of four waves of layers, and of four waves of circuits
    /// with each other server, or of all where there are fewer.
    fn waves(&self, server: usize, wave_bytes: usize) -> u64 {
        let (wave, others) = (wave_bytes as u64, self.servers as u64 - 1);
        let of = |kinds: &[Kind]| self.traffic.at(server, |kind| kinds.contains(&kind));
        of(&[Kind::Mask, Kind::Product, Kind::Answer]).min(4 * wave)
            + of(&[Kind::Choices, Kind::Tables, Kind::Conversions]).min(4 * wave * others)
    }

    /// Bytes that a server needs for a bundle as long as it is made, roughly: what another one takes that is made at the
    /// same time. What stays until all of it is made is there twice when it is written. Weights that are not kept from
    /// one bundle to the next (those beyond the memory for them) and threads' own memory are not counted.
    pub fn making_bytes(&self, server: usize) -> u64 {
        let of = |bytes: &[u64]| bytes.get(server).copied().unwrap_or(0);
        of(&self.waves_bytes) + 2 * of(&self.unfinished_bytes)
    }

    /// One-way messages between servers that wait for each other, online: the longest chain.
    pub fn rounds(&self) -> usize {
        let rounds = online::times(&self.online, self.servers, |_| 0.0, |_| 0.0, 1.0);
        rounds.round() as usize
    }

    /// Seconds from the request at the gateway to the answer there: `work` is the time of a server's own event, and a
    /// message takes `latency` and its bytes at `bytes_per_s` of its sender's and its receiver's network.
    pub fn online_seconds(&self, work: impl Fn(&Event) -> f64, latency: f64, bytes_per_s: f64) -> f64 {
        online::times(&self.online, self.servers, |bytes| bytes as f64 / bytes_per_s, work, latency)
    }

    /// Bytes of weights in NTT form that fit the memory for them, layer by layer: whether each does.
    fn transformed(plans: &[LinearPlan], holds: impl Fn(usize) -> bool) -> Vec<bool> {
        let mut memory = WEIGHTS_MEMORY;
        let fits = |(layer, plan): (usize, &LinearPlan)| holds(layer) && Weights::reserve(plan, &mut memory);
        plans.iter().enumerate().map(fits).collect()
    }
}
