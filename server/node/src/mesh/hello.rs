//! What two servers tell each other first: which versions they speak ([`Versions`]), then, in the one on which they agree,
//! enough to see that they were set up for each other.

use quinn::{Connection, RecvStream, SendStream};
use seco_core::{ModelId, SealingKeyHash};
use seco_model::MAX_SERVERS;
use serde::{Deserialize, Serialize};

use super::frame::{self, FrameError};
use super::models::{MAX_MODELS, Offer};
use super::{Server, Settings};
use crate::Error;
use crate::config::MAX_RETIRED;
use crate::store::ledger::Head;
use crate::versions::Versions;

/// The messages of the exchange, as errors name them.
const VERSIONS: &str = "range of versions";
const HELLO: &str = "hello";
/// Largest range of versions, in which a later release may say more, and largest hello.
const MAX_HELLO: usize = 8192;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Hello {
    index: usize,
    servers: usize,
    models: Offer,
    cluster: [u8; 32],
    /// Of all keys that open what devices seal to this server, the present one first.
    sealing_keys: Vec<SealingKeyHash>,
    /// Of this link.
    ot_parameter: usize,
    /// Where the server's ledger ends, if it keeps one.
    ledger: Option<Head>,
}

/// What another server said of itself.
pub(super) struct Peer {
    /// What it speaks.
    pub versions: Versions,
    /// What is spoken on this link.
    pub version: u16,
    pub sealing_keys: Vec<SealingKeyHash>,
    pub ledger: Option<Head>,
    /// Its models.
    pub models: Offer,
    /// Those that both have.
    pub common: Vec<ModelId>,
    /// Which of this server's lists it was told.
    pub told: u64,
}

impl Hello {
    pub(super) fn new(settings: &Settings) -> Self {
        Hello {
            index: settings.me,
            servers: settings.servers.len(),
            models: Offer { number: 0, models: settings.models.clone() },
            cluster: settings.cluster(),
            sealing_keys: settings.sealing_keys.clone(),
            ot_parameter: 0,
            ledger: None,
        }
    }

    /// Whether the server at the other end, known by its certificate to be `index`, fits.
    fn check(
        &self,
        theirs: Hello,
        index: usize,
        name: &str,
        (versions, version): (Versions, u16),
    ) -> Result<Peer, Error> {
        let name = name.to_owned();
        if theirs.index != index || theirs.servers != self.servers || theirs.servers > MAX_SERVERS {
            return Err(Error::DifferentCluster { index, name });
        }
        let common = self.models.common(&theirs.models);
        if common.is_empty() || theirs.models.models.len() > MAX_MODELS {
            let (theirs, ours) = (shorts(&theirs.models), shorts(&self.models));
            return Err(Error::DifferentModel { index, name, theirs, ours });
        }
        if theirs.cluster != self.cluster {
            return Err(Error::DifferentCluster { index, name });
        }
        if theirs.ot_parameter != self.ot_parameter {
            let (theirs, ours) = (theirs.ot_parameter, self.ot_parameter);
            return Err(Error::DifferentOtParameter { index, name, theirs, ours });
        }
        if !(1..=1 + MAX_RETIRED).contains(&theirs.sealing_keys.len()) {
            return Err(Error::Unintelligible { index, name, what: HELLO });
        }
        let Hello { sealing_keys, ledger, models, .. } = theirs;
        Ok(Peer { versions, version, sealing_keys, ledger, models, common, told: self.models.number })
    }

    /// Exchanges hellos with a server on the first stream. `Ok(Err(_))` is a peer that does not fit.
    pub(super) async fn exchange(
        &self,
        connection: &Connection,
        dialled: bool,
        ours: Versions,
        (index, server): (usize, &Server),
        ledger: Option<Head>,
        models: Offer,
    ) -> Result<Result<Peer, Error>, FrameError> {
        let stream = if dialled { connection.open_bi().await } else { connection.accept_bi().await };
        let (mut send, mut receive) = stream.map_err(|_| FrameError::Closed)?;
        let name = &server.name;
        let unintelligible = |what| unintelligible(index, name, what);
        let theirs = swap(&mut send, &mut receive, dialled, ours.message()).await?;
        let theirs = theirs.ok_or_else(|| unintelligible(VERSIONS));
        let spoken = match theirs.and_then(|theirs| agree(ours, &theirs, index, name)) {
            Ok(spoken) => spoken,
            Err(error) => return Ok(Err(error)),
        };
        let hello = Hello { ot_parameter: server.ot_parameter, ledger, models, ..self.clone() };
        let message = postcard::to_stdvec(&hello).map_err(|_| FrameError::Closed)?;
        let theirs = swap(&mut send, &mut receive, dialled, message).await?;
        let _ = send.finish();
        let theirs = theirs.ok_or_else(|| unintelligible(HELLO));
        Ok(theirs.and_then(|theirs| hello.read(&theirs, index, name, spoken)))
    }

    /// Reads another server's hello, said in the version on which both agreed.
    fn read(&self, theirs: &[u8], index: usize, name: &str, spoken: (Versions, u16)) -> Result<Peer, Error> {
        let theirs: Hello = postcard::from_bytes(theirs).map_err(|_| unintelligible(index, name, HELLO))?;
        self.check(theirs, index, name, spoken)
    }

    /// Of server `index` of two with one model. For hostile tests.
    fn sample(index: usize) -> Hello {
        let models = Offer { number: 3, models: vec![ModelId([1; 32])] };
        Hello {
            index,
            servers: 2,
            models,
            cluster: [2; 32],
            sealing_keys: vec![SealingKeyHash([3; 32])],
            ot_parameter: 2,
            ledger: Some(Head { count: 9, chain: [4; 32] }),
        }
    }
}

/// What another server speaks, and the version on which it and this one agree.
fn agree(ours: Versions, theirs: &[u8], index: usize, name: &str) -> Result<(Versions, u16), Error> {
    let theirs = Versions::read(theirs).ok_or_else(|| unintelligible(index, name, VERSIONS))?;
    match ours.common(theirs) {
        Some(common) => Ok((theirs, common.highest())),
        None => Err(Error::NoCommonVersion { index, name: name.to_owned(), theirs, ours }),
    }
}

/// Sends a message and gives the other end's; nothing for one that is too long. Whoever dialled is the first to speak, and
/// ends the connection if both do not fit: so the other end has heard everything by then.
async fn swap(
    send: &mut SendStream,
    receive: &mut RecvStream,
    dialled: bool,
    ours: Vec<u8>,
) -> Result<Option<Vec<u8>>, FrameError> {
    if dialled {
        frame::write(send, ours).await?;
        return short(frame::read(receive, MAX_HELLO).await);
    }
    let theirs = short(frame::read(receive, MAX_HELLO).await)?;
    frame::write(send, ours).await?;
    Ok(theirs)
}

fn short(message: Result<Vec<u8>, FrameError>) -> Result<Option<Vec<u8>>, FrameError> {
    match message {
        Err(FrameError::TooLarge(_)) => Ok(None),
        other => other.map(Some),
    }
}

fn unintelligible(index: usize, name: &str, what: &'static str) -> Error {
    Error::Unintelligible { index, name: name.to_owned(), what }
}

/// What server 1 says to be accepted by [`accepts`].
pub(crate) fn sample() -> Vec<u8> {
    postcard::to_stdvec(&Hello::sample(1)).unwrap_or_default()
}

/// Whether server 0 of two accepts this as server 1's hello.
pub(crate) fn accepts(bytes: &[u8]) -> bool {
    let spoken = (Versions::OURS, Versions::OURS.highest());
    bytes.len() <= MAX_HELLO && Hello::sample(0).read(bytes, 1, "peer", spoken).is_ok()
}

/// Enough of the models' ids for people to compare.
fn shorts(offer: &Offer) -> String {
    let all: Vec<String> = offer.models.iter().map(|id| crate::keys::to_hex(&id.0[..6])).collect();
    if all.is_empty() { "none".to_owned() } else { all.join(", ") }
}
