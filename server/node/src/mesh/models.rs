//! Which models the servers have. Each says so in its hello, and again on a stream of its own whenever that changes.

use quinn::Connection;
use seco_core::ModelId;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use super::{MODELS, frame};

/// Models of one server at most: their ids are in its hello.
pub const MAX_MODELS: usize = 64;
/// Largest list as a message.
pub(crate) const MAX_OFFER: usize = 16 + 33 * MAX_MODELS;

/// The models of one server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Offer {
    /// Counts the changes since the server's start: streams may overtake each other.
    pub number: u64,
    pub models: Vec<ModelId>,
}

impl Offer {
    /// The models that are in both.
    pub(super) fn common(&self, other: &Offer) -> Vec<ModelId> {
        self.models.iter().filter(|model| other.models.contains(model)).copied().collect()
    }
}

/// Tells the server at the other end of every change after `told`, until the connection ends.
pub(super) async fn tell(connection: Connection, mut offers: watch::Receiver<Offer>, mut told: u64) {
    loop {
        let offer = offers.borrow_and_update().clone();
        if offer.number > told {
            let Ok((mut send, _)) = connection.open_bi().await else { return };
            let _ = send.set_priority(i32::MAX);
            let sent = async {
                send.write_all(&[MODELS]).await.ok()?;
                frame::write_value(&mut send, &offer).await.ok()?;
                send.finish().ok()
            };
            // What keeps it from arriving ends the connection, whose successor has a hello.
            if sent.await.is_none() {
                return;
            }
            told = offer.number;
        }
        if offers.changed().await.is_err() {
            return;
        }
    }
}
