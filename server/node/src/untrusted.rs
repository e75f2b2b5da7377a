//! The decoders of what other servers say, as functions of bytes, and what a gateway does with a file that says what was
//! used of tokens: for tests that give them anything (`server/node/tests/fuzz`). Decoders that are public need none of
//! this.

use std::path::Path;

use seco_core::pad::TAG_LEN;
use seco_core::{Incarnation, KeyId, ModelId, Refusal, SessionId, TokenId};
use seco_protocol::{BundleId, Use};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::Error;
use crate::access::sessions::Connected;
use crate::access::tokens::{Paid, Tokens};
use crate::cluster::commands::{Command, Done, MAX_MESSAGE, OpenSession, Order, Reply, ResumeSession};
use crate::failure::Failure;
use crate::mesh::hello;
use crate::mesh::models::{MAX_MODELS, MAX_OFFER, Offer};
use crate::versions::Versions;

/// A server's first message to another: the versions that it speaks.
#[must_use]
pub fn versions(bytes: &[u8]) -> bool {
    Versions::read(bytes).is_some_and(|read| Versions::read(&read.message()) == Some(read))
}

/// A server's hello, its next.
#[must_use]
pub fn hello(bytes: &[u8]) -> bool {
    hello::accepts(bytes)
}

/// The models that a server has now.
#[must_use]
pub fn offer(bytes: &[u8]) -> bool {
    decode::<Offer>(bytes, MAX_OFFER).is_some_and(|offer| offer.models.len() <= MAX_MODELS)
}

/// What the gateway orders.
#[must_use]
pub fn order(bytes: &[u8]) -> bool {
    decode::<Order>(bytes, MAX_MESSAGE).is_some()
}

/// What a remote answers.
#[must_use]
pub fn reply(bytes: &[u8]) -> bool {
    decode::<Reply>(bytes, MAX_MESSAGE).is_some()
}

/// A gateway's start with these tokens and what was used of them, by its state folder; a request with each; and its end.
///
/// # Errors
/// Those of the tokens' file.
pub fn use_tokens(
    tokens: &Path,
    state: &Path,
    requests: &[TokenId],
) -> Result<Vec<Result<(), Refusal>>, Error> {
    let tokens = Tokens::open(tokens, true, state)?;
    let paid = requests.iter().map(|id| tokens.pay(*id).map(Paid::used)).collect();
    tokens.store();
    Ok(paid)
}

fn decode<T: DeserializeOwned>(bytes: &[u8], max: usize) -> Option<T> {
    (bytes.len() <= max).then(|| postcard::from_bytes(bytes).ok()).flatten()
}

/// Messages that `versions` accepts: of this release, of several versions, and of a release that spoke one alone.
#[must_use]
pub fn ranges() -> Vec<Vec<u8>> {
    vec![Versions::OURS.message(), vec![7, 8], vec![6, 1, 2]]
}

/// Messages that `hello` accepts.
#[must_use]
pub fn hellos() -> Vec<Vec<u8>> {
    vec![hello::sample()]
}

/// Messages that `offer` accepts.
#[must_use]
pub fn offers() -> Vec<Vec<u8>> {
    [0, 1, 3].map(|count| bytes(&Offer { number: 5, models: vec![ModelId([7; 32]); count] })).to_vec()
}

/// One of every command.
#[must_use]
pub fn orders() -> Vec<Vec<u8>> {
    let (session, bundle) = (SessionId([1; 16]), BundleId([2; 16]));
    let incarnation = Incarnation { nonce: [3; 16], exporter: [4; 32] };
    let connected = || -> Connected { (session, incarnation.id()) };
    let commands = [
        Command::SetUp { job: 1, epoch: 2, version: 7 },
        Command::Preprocess { job: 300, epoch: 2, bundle, index: 3 },
        Command::Open(OpenSession {
            session,
            model: ModelId([5; 32]),
            incarnation,
            keys: vec![KeyId([6; 8]), KeyId([7; 8])],
            sealed: vec![8; 40],
        }),
        Command::Resume(ResumeSession { session, incarnation, tag: [9; TAG_LEN] }),
        Command::Knows(connected()),
        Command::End(vec![connected(), connected()]),
        Command::Infer {
            job: u64::MAX,
            bundle,
            usage: Use { session: [1; 16], incarnation: [2; 16], counter: 1 << 40 },
        },
        Command::Discard { bundle },
        Command::Cancel { job: 7 },
        Command::Room,
        Command::Inventory,
        Command::Keep(vec![bundle; 3]),
        Command::AtOnce,
        Command::Leases,
        Command::Lease {
            job: 8,
            bundle,
            usage: Use { session: [1; 16], incarnation: [2; 16], counter: u64::MAX },
        },
    ];
    commands.into_iter().map(|command| bytes(&Order { model: ModelId([5; 32]), command })).collect()
}

/// Answers of every kind.
#[must_use]
pub fn replies() -> Vec<Vec<u8>> {
    let replies: [Reply; 6] = [
        Ok(Done::Plain),
        Ok(Done::Bundles(vec![BundleId([2; 16]); 3])),
        Ok(Done::AtOnce(4)),
        Err(Failure::Unavailable(2)),
        Err(Failure::BundleSpent),
        Ok(Done::Leases(4)),
    ];
    replies.iter().map(bytes).collect()
}

fn bytes(value: &impl Serialize) -> Vec<u8> {
    postcard::to_stdvec(value).unwrap_or_default()
}
