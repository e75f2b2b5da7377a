//! What two servers tell each other first: enough to see that they were set up for each other.

use quinn::Connection;
use seco_core::{ModelId, SealingKeyHash};
use seco_model::MAX_SERVERS;
use serde::{Deserialize, Serialize};

use super::frame::{self, FrameError};
use super::models::{MAX_MODELS, Offer};
use super::{Server, Settings, VERSION};
use crate::Error;
use crate::config::MAX_RETIRED;
use crate::store::ledger::Head;

/// Largest hello; a newer one may have grown.
const MAX_HELLO: usize = 8192;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Hello {
    version: u16,
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
            version: VERSION,
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
    fn check(&self, theirs: Hello, index: usize, name: &str) -> Result<Peer, Error> {
        let name = name.to_owned();
        if theirs.version != self.version {
            return Err(Error::DifferentRelease { index, name });
        }
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
            return Err(Error::DifferentRelease { index, name });
        }
        let Hello { sealing_keys, ledger, models, .. } = theirs;
        Ok(Peer { sealing_keys, ledger, models, common, told: self.models.number })
    }

    /// Exchanges hellos with a server on the first stream. `Ok(Err(_))` is a peer that does not fit.
    pub(super) async fn exchange(
        &self,
        connection: &Connection,
        dialled: bool,
        (index, server): (usize, &Server),
        ledger: Option<Head>,
        models: Offer,
    ) -> Result<Result<Peer, Error>, FrameError> {
        let stream = if dialled { connection.open_bi().await } else { connection.accept_bi().await };
        let (mut send, mut receive) = stream.map_err(|_| FrameError::Closed)?;
        let ours = Hello { ot_parameter: server.ot_parameter, ledger, models, ..self.clone() };
        frame::write_value(&mut send, &ours).await?;
        let theirs = frame::read(&mut receive, MAX_HELLO).await?;
        let read = ours.read(&theirs, index, &server.name)?;
        let _ = send.finish();
        Ok(read)
    }

    /// Reads another server's hello. `Ok(Err(_))` is one that does not fit.
    fn read(&self, theirs: &[u8], index: usize, name: &str) -> Result<Result<Peer, Error>, FrameError> {
        // The version before all: what follows may be another release's.
        match postcard::take_from_bytes::<u16>(theirs) {
            Ok((version, _)) if version != self.version => {
                return Ok(Err(Error::DifferentRelease { index, name: name.to_owned() }));
            }
            Ok(_) => {}
            Err(_) => return Err(FrameError::Closed),
        }
        let theirs: Hello = postcard::from_bytes(theirs).map_err(|_| FrameError::Closed)?;
        Ok(self.check(theirs, index, name))
    }

    /// Of server `index` of two with one model. For hostile tests.
    fn sample(index: usize) -> Hello {
        let models = Offer { number: 3, models: vec![ModelId([1; 32])] };
        Hello {
            version: VERSION,
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

/// What server 1 says to be accepted by [`accepts`].
pub(crate) fn sample() -> Vec<u8> {
    postcard::to_stdvec(&Hello::sample(1)).unwrap_or_default()
}

/// Whether server 0 of two accepts this as server 1's hello.
pub(crate) fn accepts(bytes: &[u8]) -> bool {
    bytes.len() <= MAX_HELLO && matches!(Hello::sample(0).read(bytes, 1, "peer"), Ok(Ok(_)))
}

/// Enough of the models' ids for people to compare.
fn shorts(offer: &Offer) -> String {
    let all: Vec<String> = offer.models.iter().map(|id| crate::keys::to_hex(&id.0[..6])).collect();
    if all.is_empty() { "none".to_owned() } else { all.join(", ") }
}
