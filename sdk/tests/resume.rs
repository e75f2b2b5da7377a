//! Sessions that outlive connections and processes, and the promise that no number is ever used twice.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "helpers of tests are tests")]

mod common;

use common::{Action, FakeGateway, image, impatient, reference};
use seco_core::Response;
use seco_sdk::{Client, Deployment, Error, Loss, MAX_SESSION_BLOB, Refusal, SessionStore, Transport};
use std::collections::HashSet;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

/// A key store that fails on demand.
#[derive(Default)]
struct Memory {
    blob: Mutex<Option<Vec<u8>>>,
    saves: AtomicUsize,
    locked: AtomicBool,
}

impl Memory {
    fn check(&self) -> io::Result<()> {
        if self.locked.load(Ordering::Relaxed) { Err(io::Error::other("device locked")) } else { Ok(()) }
    }
}

impl SessionStore for Memory {
    fn load(&self) -> io::Result<Option<Vec<u8>>> {
        self.check()?;
        Ok(self.blob.lock().unwrap().clone())
    }

    fn save(&self, session: &[u8]) -> io::Result<()> {
        self.check()?;
        assert!(session.len() <= MAX_SESSION_BLOB);
        *self.blob.lock().unwrap() = Some(session.to_vec());
        self.saves.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }
}

async fn resuming(deployment: &Deployment, store: &Arc<Memory>) -> Result<Client, Error> {
    impatient(deployment).session_store(store.clone()).connect().await
}

async fn check(client: &Client) {
    assert_eq!(client.infer(&image()).await.unwrap().logits, reference(&image()));
}

/// Handle and counter of all inferences; no pair twice.
fn ledger(gateway: &FakeGateway) -> Vec<(u32, u64)> {
    let seen = gateway.shared.seen.lock().unwrap().clone();
    assert_eq!(seen.iter().collect::<HashSet<_>>().len(), seen.len(), "{seen:?}");
    seen
}

fn sessions(gateway: &FakeGateway) -> usize {
    gateway.shared.names.lock().unwrap().len()
}

async fn a_new_process_goes_on_without_sealing(via: Transport) {
    let gateway = FakeGateway::start(via);
    gateway.resume([]);
    let store = Arc::new(Memory::default());
    let session_bytes = async || {
        let client = resuming(&gateway.deployment, &store).await.unwrap();
        let spent = client.udp_bytes().up - client.handshake_bytes().up;
        check(&client).await;
        check(&client).await;
        spent
    };
    let (opened, resumed) = (session_bytes().await, session_bytes().await);
    println!("{opened} bytes up to open, {resumed} to resume");
    assert!(opened > 3 * 1168 && resumed < 400, "{opened} {resumed}");
    session_bytes().await;
    assert_eq!(ledger(&gateway), [(0, 0), (0, 1), (0, 64), (0, 65), (0, 128), (0, 129)]);
    assert_eq!((sessions(&gateway), store.saves.load(Ordering::Relaxed)), (1, 3));
}

async fn a_lost_connection_keeps_the_session(via: Transport) {
    let gateway = FakeGateway::start(via);
    gateway.resume([]);
    let client = gateway.impatient().connect().await.unwrap();
    check(&client).await;
    gateway.answer([Action::Close]);
    check(&client).await;
    assert_eq!(ledger(&gateway), [(0, 0), (0, 1), (0, 2)]);
    assert_eq!(sessions(&gateway), 1);
}

/// Whatever is wrong with the stored session, a new one takes its place and is resumed the next time.
async fn a_session_that_cannot_go_on_is_replaced(via: Transport) {
    let unknown = Action::Send(Response::Refused { reason: Refusal::UnknownSession });
    let malformed = Action::Send(Response::Refused { reason: Refusal::Malformed });
    for case in ["unknown", "earlier gateway", "damaged", "empty", "other model", "other servers"] {
        let mut gateway = FakeGateway::start(via);
        let store = Arc::new(Memory::default());
        check(&resuming(&gateway.deployment, &store).await.unwrap()).await;
        let mut deployment = gateway.deployment.clone();
        match case {
            "unknown" => gateway.resume([unknown.clone()]),
            "earlier gateway" => gateway.resume([malformed.clone()]),
            "damaged" => store.blob.lock().unwrap().as_mut().unwrap()[100] ^= 1,
            "empty" => *store.blob.lock().unwrap() = Some(Vec::new()),
            "other model" => deployment.model.fraction = 15,
            _ => {
                gateway = FakeGateway::start(via);
                deployment = gateway.deployment.clone();
                deployment.servers.swap(1, 2);
                gateway.open([Action::Send(Response::Opened { handle: 0 })]);
                resuming(&deployment, &store).await.unwrap();
                assert_eq!(store.saves.load(Ordering::Relaxed), 2, "replaced");
                continue;
            }
        }
        check(&resuming(&deployment, &store).await.unwrap()).await;
        gateway.resume([]);
        check(&resuming(&deployment, &store).await.unwrap()).await;
        assert_eq!(ledger(&gateway), [(0, 0), (1, 0), (1, 64)], "{case}");
    }
}

/// A gateway's trouble is not the session's fault.
async fn other_answers_to_resuming_are_errors(via: Transport) {
    let gateway = FakeGateway::start(via);
    let store = Arc::new(Memory::default());
    check(&resuming(&gateway.deployment, &store).await.unwrap()).await;
    let refuse = |reason| Action::Send(Response::Refused { reason });
    gateway.resume([
        refuse(Refusal::ShuttingDown),
        Action::Send(Response::Busy { retry_after_ms: 5 }),
        Action::Send(Response::Logits { masked: &[0; 28] }),
        Action::Bytes(vec![0xff; 8]),
        Action::Close,
    ]);
    let mut errors = Vec::new();
    for _ in 0..5 {
        errors.push(resuming(&gateway.deployment, &store).await.unwrap_err());
    }
    assert!(matches!(errors[0], Error::Refused(Refusal::ShuttingDown)), "{errors:?}");
    assert!(matches!(errors[1], Error::Busy { .. }), "{errors:?}");
    assert!(matches!(errors[2], Error::Protocol(_)), "{errors:?}");
    assert!(matches!(errors[3], Error::Protocol(_)), "{errors:?}");
    assert!(matches!(errors[4], Error::Closed(Loss::ByGateway)), "{errors:?}");
    check(&resuming(&gateway.deployment, &store).await.unwrap()).await;
    assert_eq!(ledger(&gateway), [(0, 0), (0, 64)]);
}

async fn numbers_are_reserved_before_they_are_used(via: Transport) {
    let gateway = FakeGateway::start(via);
    gateway.resume([]);
    let store = Arc::new(Memory::default());
    let mut requests = 0;
    // Every process ends at another place of its block, with requests side by side or not.
    for process in 0..12 {
        let client = resuming(&gateway.deployment, &store).await.unwrap();
        let count = process * 13 % 70;
        let inputs = vec![[process as u8; 784]; count];
        assert!(client.infer_many(&inputs).await.iter().all(Result::is_ok));
        requests += count;
    }
    assert_eq!(ledger(&gateway).len(), requests);
    assert_eq!(sessions(&gateway), 1);
}

/// The second client finds the first one's session in the store, and must leave it alone.
async fn two_clients_on_one_store_do_not_share_a_session(via: Transport) {
    let gateway = FakeGateway::start(via);
    gateway.resume([]);
    let store = Arc::new(Memory::default());
    let first = resuming(&gateway.deployment, &store).await.unwrap();
    let second = resuming(&gateway.deployment, &store).await.unwrap();
    let inputs = vec![image(); 150];
    let (one, other) = tokio::join!(first.infer_many(&inputs), second.infer_many(&inputs));
    assert!(one.iter().chain(&other).all(Result::is_ok));
    assert_eq!((sessions(&gateway), ledger(&gateway).len()), (2, 300));
    drop((first, second));
    check(&resuming(&gateway.deployment, &store).await.unwrap()).await;
    assert_eq!((sessions(&gateway), ledger(&gateway).len()), (2, 301));
}

async fn a_store_that_fails(via: Transport) {
    let gateway = FakeGateway::start(via);
    gateway.resume([]);
    let store = Arc::new(Memory::default());
    let lock = |locked| store.locked.store(locked, Ordering::Relaxed);
    lock(true);
    let error = resuming(&gateway.deployment, &store).await.unwrap_err();
    assert!(matches!(error, Error::Storage(_)), "{error}");
    assert_eq!(sessions(&gateway), 0);

    lock(false);
    let client = resuming(&gateway.deployment, &store).await.unwrap();
    lock(true);
    let results = client.infer_many(&vec![image(); 70]).await;
    assert!(results[..64].iter().all(Result::is_ok), "what is reserved can be used");
    assert!(results[64..].iter().all(|result| matches!(result, Err(Error::Storage(_)))));
    lock(false);
    check(&client).await;
    assert_eq!(ledger(&gateway).last(), Some(&(0, 64)), "failures take no number");
}

/// The application put back an older blob: servers notice, and the session ends at once.
async fn a_number_that_the_servers_have_seen_ends_the_session(via: Transport) {
    let gateway = FakeGateway::start(via);
    let client = gateway.client().connect().await.unwrap();
    gateway.answer([Action::Send(Response::Refused { reason: Refusal::CounterUsed })]);
    check(&client).await;
    check(&client).await;
    assert_eq!(ledger(&gateway), [(0, 0), (1, 0), (1, 1)]);
}

over_both!(
    a_new_process_goes_on_without_sealing,
    a_lost_connection_keeps_the_session,
    a_session_that_cannot_go_on_is_replaced,
    other_answers_to_resuming_are_errors,
    numbers_are_reserved_before_they_are_used,
    two_clients_on_one_store_do_not_share_a_session,
    a_store_that_fails,
    a_number_that_the_servers_have_seen_ends_the_session,
);
