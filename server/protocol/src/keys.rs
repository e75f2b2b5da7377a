//! The cluster's BFV keys: which set serves a bundle, and its renewal (section 4 of PROTOCOL.md).
//!
//! A key set serves [`KEY_BUNDLES`] bundles, or fewer where their answers have more coefficients than it allows. The
//! messages of the next exchange travel beside those of the set's last bundle (module `linear`), so that nobody waits
//! for new keys. All servers number the bundles alike, and a number belongs to one set: so they agree on the set of
//! each, also where several are made at the same time and begin in another order on each server. A set whose bundles
//! have all begun is held by these alone, and the last of them to end drops it, which erases its secrets.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use seco_he::{KEY_BUNDLES, KEY_COEFFICIENTS, KeyDraft, KeySet, KeySetName, Parameters};
use seco_model::Architecture;

use crate::channel::Channel;
use crate::error::{Error, from_peer};
use crate::linear::received;
use crate::links::peers;

/// Where in the protocol a commitment is wrong.
const OPENING: &str = "key commitment";
/// Where in the protocol a share is wrong.
const SHARE: &str = "public key share, which must match its commitment";

/// The keys that serve bundles which begin now.
pub struct Keys {
    parameters: Parameters,
    /// The newest last, and before it at most one, for bundles that are late to begin.
    sets: VecDeque<Serving>,
    /// Bundles that a set serves.
    bundles: u64,
}

/// A set in use.
struct Serving {
    set: Arc<KeySet>,
    name: KeySetName,
    /// Bundles begun under the set.
    begun: u64,
}

impl Keys {
    /// The first set of a set-up. Two rounds, with all other servers.
    pub fn agree(
        parameters: &Parameters,
        architecture: &Architecture,
        setup: [u8; 32],
        channel: &mut dyn Channel,
        seed: &[u8; 32],
    ) -> Result<Keys, Error> {
        let name = KeySetName { setup, number: 0 };
        let bundles = bundles(architecture)?;
        let set = Exchange::begin(parameters, name, channel, seed)?.reveal(channel)?.finish(channel)?;
        let first = Serving { set: Arc::new(set), name, begun: 0 };
        Ok(Keys { parameters: parameters.clone(), sets: VecDeque::from([first]), bundles })
    }

    /// The set of bundle number `index`, which is asked for once, and, if that is the set's last number, the begun
    /// exchange of the set after it, for [`Keys::renew`].
    pub fn begin(
        &mut self,
        index: u64,
        channel: &mut dyn Channel,
        seed: &[u8; 32],
    ) -> Result<(Arc<KeySet>, Option<Exchange>), Error> {
        let number = index / self.bundles;
        let serving = self.sets.iter_mut().find(|serving| serving.name.number == number);
        let serving = serving.ok_or(Error::Misuse(
            "the keys of this bundle are gone, or could not be renewed: the cluster must be set up again",
        ))?;
        serving.begun += 1;
        let (set, name) = (serving.set.clone(), serving.name);
        self.forget();
        let mut exchange = None;
        if index % self.bundles == self.bundles - 1 {
            let next = KeySetName { number: number + 1, ..name };
            exchange = Some(Exchange::begin(&self.parameters, next, channel, seed)?);
        }
        Ok((set, exchange))
    }

    /// Takes the set into use that came of the exchange beside bundle number `index`.
    pub fn renew(&mut self, index: u64, set: KeySet) {
        let Some(newest) = self.sets.back() else { return };
        let name = KeySetName { number: index / self.bundles + 1, ..newest.name };
        self.sets.push_back(Serving { set: Arc::new(set), name, begun: 0 });
        self.forget();
    }

    /// Drops old sets whose bundles have all begun, and, of bundles that never will, all but one.
    fn forget(&mut self) {
        let (newest, bundles) = (self.sets.len().saturating_sub(1), self.bundles);
        let mut at = 0;
        self.sets.retain(|serving| {
            let old = at < newest;
            let kept = !old || (at + 1 == newest && serving.begun < bundles);
            at += 1;
            kept
        });
    }

    /// Whether every server has the keys of number `index`, and keeps those of the numbers `under_way`, somewhere in
    /// the cluster, if that begins now: they are agreed on beside the last bundle of the set before, and the sets before
    /// that one go with it, whoever is late.
    pub fn allow(&self, index: u64, under_way: &BTreeSet<u64>) -> bool {
        let first = index / self.bundles * self.bundles;
        let agreed = first.checked_sub(1).is_none_or(|beside| !under_way.contains(&beside));
        let renews = index - first == self.bundles - 1;
        agreed && !(renews && under_way.first().is_some_and(|oldest| *oldest < first))
    }

    /// Fewer bundles to a set, for tests.
    pub fn limit(&mut self, bundles: u64) {
        self.bundles = bundles.min(self.bundles);
    }
}

/// Bundles that a key set serves: what the server with the most to answer may answer under it.
pub fn bundles(architecture: &Architecture) -> Result<u64, Error> {
    let answered = |server: usize| {
        let layers = architecture.graph.layers().map(|layer| {
            let others = architecture.holders(layer.index).iter().filter(|&&holder| holder != server).count();
            others as u64 * layer.geometry.outputs() as u64
        });
        layers.sum::<u64>()
    };
    let most = (0..architecture.servers).map(answered).max().unwrap_or(0).max(1);
    match (KEY_COEFFICIENTS / most).min(KEY_BUNDLES) {
        0 => Err(Error::Misuse(
            "the model has more layer outputs than one key set may decrypt: use a model with fewer",
        )),
        bundles => Ok(bundles),
    }
}

/// An exchange of which the first message, nonce and commitment, was sent.
pub struct Exchange(KeyDraft);

impl Exchange {
    fn begin(
        parameters: &Parameters,
        name: KeySetName,
        channel: &mut dyn Channel,
        seed: &[u8; 32],
    ) -> Result<Exchange, Error> {
        let draft = KeyDraft::new(parameters, name, channel.me(), seed)?;
        for peer in peers(channel) {
            channel.send(peer, draft.opening().to_vec())?;
        }
        Ok(Exchange(draft))
    }

    /// Takes all other servers' commitments, then sends the share: nobody's share is known before all are bound.
    pub fn reveal(self, channel: &mut dyn Channel) -> Result<Revealed, Error> {
        let draft = self.0;
        let mut openings = vec![Vec::new(); channel.parties()];
        for peer in peers(channel) {
            let opening = received(channel, peer, KeyDraft::OPENING_LEN, OPENING)?;
            if opening.len() != KeyDraft::OPENING_LEN {
                return Err(Error::Peer { peer, phase: OPENING });
            }
            openings[peer] = opening;
        }
        openings[channel.me()] = draft.opening().to_vec();
        for peer in peers(channel) {
            channel.send(peer, draft.share().to_vec())?;
        }
        Ok(Revealed { draft, openings })
    }
}

/// An exchange of which both messages were sent.
pub struct Revealed {
    draft: KeyDraft,
    openings: Vec<Vec<u8>>,
}

impl Revealed {
    /// Takes all other servers' shares. Who sends another one than it committed to is named.
    pub fn finish(self, channel: &mut dyn Channel) -> Result<KeySet, Error> {
        let Revealed { draft, openings } = self;
        let length = draft.share().len();
        let mut shares = vec![Vec::new(); channel.parties()];
        for peer in peers(channel) {
            let share = received(channel, peer, length, SHARE)?;
            from_peer(draft.check(peer, &openings[peer], &share), peer, SHARE)?;
            shares[peer] = share;
        }
        shares[channel.me()] = draft.share().to_vec();
        Ok(draft.finish(&openings, &shares)?)
    }
}
