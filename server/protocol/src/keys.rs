//! The cluster's BFV keys: which set serves a bundle, and its renewal (section 4 of PROTOCOL.md).
//!
//! A key set serves [`KEY_BUNDLES`] bundles, or fewer where their answers have more coefficients than it allows. The
//! messages of the next exchange travel beside those of the set's last bundle (module `linear`), so that nobody waits
//! for new keys; with that bundle the old set is dropped, which erases its secrets. All servers make the same bundles
//! in the same order, so they agree on when that is.

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

/// The keys that serve the next bundle.
pub struct Keys {
    parameters: Parameters,
    set: KeySet,
    name: KeySetName,
    /// Bundles begun under the set.
    begun: u64,
    /// Bundles that a set serves.
    bundles: u64,
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
        Ok(Keys { parameters: parameters.clone(), set, name, begun: 0, bundles })
    }

    /// The set for the next bundle, and, if that is the set's last, the begun exchange of the one after it. Nothing
    /// serves another bundle until [`Keys::renew`] was given what came of it.
    pub fn next(
        &mut self,
        channel: &mut dyn Channel,
        seed: &[u8; 32],
    ) -> Result<(&KeySet, Option<Exchange>), Error> {
        if self.begun >= self.bundles {
            return Err(Error::Misuse("the keys could not be renewed: the cluster must be set up again"));
        }
        self.begun += 1;
        let mut exchange = None;
        if self.begun == self.bundles {
            let name = KeySetName { number: self.name.number + 1, ..self.name };
            exchange = Some(Exchange::begin(&self.parameters, name, channel, seed)?);
        }
        Ok((&self.set, exchange))
    }

    /// Takes the next set into use. The old one's secrets are erased.
    pub fn renew(&mut self, set: KeySet) {
        self.set = set;
        self.name.number += 1;
        self.begun = 0;
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
