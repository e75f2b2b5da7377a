//! Sessions that outlive connections and processes, and the promise that no pad is ever used twice.

use crate::common::{Action, FakeGateway, image, impatient, reference};
use seco_core::Response;
use seco_sdk::{Client, Deployment, Error, Loss, MAX_SESSION_BLOB, Refusal, SessionStore, Transport};
use sha2::{Digest, Sha256};
use std::io;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

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

/// Changes the stored session and makes its checksum right again.
fn edit(store: &Memory, edit: impl FnOnce(&mut Vec<u8>)) {
    let mut blob = store.blob.lock().unwrap();
    let blob = blob.as_mut().unwrap();
    edit(blob);
    let body = blob.len() - 32;
    let checksum = Sha256::digest(&blob[..body]);
    blob[body..].copy_from_slice(&checksum);
}

/// Where a stored session says when it was made.
const CREATED: std::ops::Range<usize> = 98..106;

fn created(store: &Memory) -> u64 {
    u64::from_le_bytes(store.blob.lock().unwrap().as_ref().unwrap()[CREATED].try_into().unwrap())
}

async fn check(client: &Client) {
    assert_eq!(client.infer(&image()).await.unwrap().logits, reference(&image()));
}

/// Incarnation and counter of all inferences, which asked about [`image`]; no pad twice.
fn ledger(gateway: &FakeGateway) -> Vec<(u32, u64)> {
    gateway.shared.audit(&[image()]).unwrap();
    gateway.shared.seen.lock().unwrap().clone()
}

fn sessions(gateway: &FakeGateway) -> usize {
    gateway.shared.names.lock().unwrap().len()
}

async fn a_new_process_goes_on_without_sealing(via: Transport) {
    let gateway = FakeGateway::start(via);
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
    assert_eq!(ledger(&gateway), [(0, 0), (0, 1), (1, 0), (1, 1), (2, 0), (2, 1)]);
    assert_eq!((sessions(&gateway), store.saves.load(Ordering::Relaxed)), (1, 1));
}

async fn a_lost_connection_keeps_the_session(via: Transport) {
    let gateway = FakeGateway::start(via);
    let client = gateway.impatient().connect().await.unwrap();
    check(&client).await;
    gateway.answer([Action::Close]);
    check(&client).await;
    assert_eq!(ledger(&gateway), [(0, 0), (0, 1), (1, 0)]);
    assert_eq!(sessions(&gateway), 1);
}

/// Whatever is wrong with the stored session, a new one takes its place and is resumed the next time.
async fn a_session_that_cannot_go_on_is_replaced(via: Transport) {
    let unknown = Action::Send(Response::Refused { reason: Refusal::UnknownSession });
    for case in
        ["unknown", "other keys", "damaged", "empty", "earlier version", "other model", "other servers"]
    {
        let mut gateway = FakeGateway::start(via);
        let store = Arc::new(Memory::default());
        check(&resuming(&gateway.deployment, &store).await.unwrap()).await;
        let mut deployment = gateway.deployment.clone();
        match case {
            "unknown" => gateway.resume([unknown.clone()]),
            "other keys" => edit(&store, |blob| blob[110] ^= 1),
            "damaged" => store.blob.lock().unwrap().as_mut().unwrap()[100] ^= 1,
            "empty" => *store.blob.lock().unwrap() = Some(Vec::new()),
            // Version 2 had the model's fraction behind its width.
            "earlier version" => edit(&store, |blob| {
                blob[4] = 2;
                drop(blob.splice(66..66, 16u32.to_le_bytes()));
            }),
            "other model" => edit(&store, |blob| blob[62..66].copy_from_slice(&21u32.to_le_bytes())),
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
        check(&resuming(&deployment, &store).await.unwrap()).await;
        assert_eq!((ledger(&gateway), sessions(&gateway)), (vec![(0, 0), (1, 0), (2, 0)], 2), "{case}");
    }
}

/// A gateway's trouble is not the session's fault.
/// Another connection may do better.
async fn a_session_that_is_not_opened_in_time_gives_its_connection_up(via: Transport) {
    let gateway = FakeGateway::start(via);
    let client = gateway.client().connect_timeout(Duration::from_secs(1)).connect().await.unwrap();
    gateway.answer([Action::Forget]);
    gateway.open([Action::Hang]);
    check(&client).await;
    assert_eq!(gateway.shared.connections(), 2);
}

async fn other_answers_to_resuming_are_errors(via: Transport) {
    let gateway = FakeGateway::start(via);
    let store = Arc::new(Memory::default());
    check(&resuming(&gateway.deployment, &store).await.unwrap()).await;
    let refuse = |reason| Action::Send(Response::Refused { reason });
    gateway.resume([
        Action::Send(Response::Logits { masked: &[0; 28] }),
        Action::Bytes(vec![0xff; 8]),
        Action::Close,
    ]);
    let mut errors = Vec::new();
    for _ in 0..3 {
        errors.push(resuming(&gateway.deployment, &store).await.unwrap_err());
    }
    assert!(matches!(errors[0], Error::Protocol(_)), "{errors:?}");
    assert!(matches!(errors[1], Error::Protocol(_)), "{errors:?}");
    assert!(matches!(errors[2], Error::Closed(Loss::ByGateway)), "{errors:?}");
    // Servers that are away come back.
    gateway.resume([refuse(Refusal::ShuttingDown), Action::Send(Response::Busy { retry_after_ms: 5 })]);
    // The pauses alone are as long as the impatient wait.
    let patient = Client::builder(gateway.deployment.clone()).session_store(store.clone());
    check(&patient.connect().await.unwrap()).await;
    assert_eq!(ledger(&gateway), [(0, 0), (1, 0)]);
}

async fn many_processes_go_on_with_one_session(via: Transport) {
    let gateway = FakeGateway::start(via);
    let store = Arc::new(Memory::default());
    let mut requests = 0;
    // With requests side by side or not.
    for process in 0..12 {
        let client = resuming(&gateway.deployment, &store).await.unwrap();
        let count = process * 13 % 70;
        assert!(client.infer_many(&vec![image(); count]).await.iter().all(Result::is_ok));
        requests += count;
    }
    assert_eq!(ledger(&gateway).len(), requests);
    assert_eq!((sessions(&gateway), gateway.shared.incarnations()), (1, 12));
}

/// The second client finds the first one's session in the store, and both go on with it at the same time.
async fn two_clients_on_one_store_share_a_session(via: Transport) {
    let gateway = FakeGateway::start(via);
    let store = Arc::new(Memory::default());
    let first = resuming(&gateway.deployment, &store).await.unwrap();
    let second = resuming(&gateway.deployment, &store).await.unwrap();
    let inputs = vec![image(); 150];
    let (one, other) = tokio::join!(first.infer_many(&inputs), second.infer_many(&inputs));
    assert!(one.iter().chain(&other).all(Result::is_ok));
    assert_eq!((sessions(&gateway), ledger(&gateway).len()), (1, 300));
    assert_eq!(store.saves.load(Ordering::Relaxed), 1);
}

async fn a_store_that_fails(via: Transport) {
    let gateway = FakeGateway::start(via);
    let store = Arc::new(Memory::default());
    let lock = |locked| store.locked.store(locked, Ordering::Relaxed);
    lock(true);
    let error = resuming(&gateway.deployment, &store).await.unwrap_err();
    assert!(matches!(error, Error::Storage(_)), "{error}");
    assert_eq!(sessions(&gateway), 0);

    lock(false);
    let client = resuming(&gateway.deployment, &store).await.unwrap();
    lock(true);
    // Only a new session needs the store.
    assert!(client.infer_many(&vec![image(); 70]).await.iter().all(Result::is_ok));
    gateway.answer([Action::Close]);
    check(&client).await;
    gateway.answer([Action::Forget]);
    let error = client.infer(&image()).await.unwrap_err();
    assert!(matches!(error, Error::Storage(_)), "{error}");
    lock(false);
    check(&client).await;
}

async fn a_refused_number_ends_the_session(via: Transport) {
    let gateway = FakeGateway::start(via);
    let client = gateway.client().connect().await.unwrap();
    gateway.answer([Action::Send(Response::Refused { reason: Refusal::CounterUsed })]);
    check(&client).await;
    check(&client).await;
    assert_eq!(ledger(&gateway), [(0, 0), (1, 0), (1, 1)]);
    assert_eq!(sessions(&gateway), 2);
}

async fn an_old_session_is_not_taken_up(via: Transport) {
    const DAY: u64 = 24 * 3600;
    let now = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let gateway = FakeGateway::start(via);
    let store = Arc::new(Memory::default());
    let start = now();
    resuming(&gateway.deployment, &store).await.unwrap();
    assert!((start..=now()).contains(&created(&store)));
    let mut opened = 1;
    for (age, old) in [
        (now() - 29 * DAY, false),
        (now() - 30 * DAY - 5, true),
        (now() + DAY - 60, false),
        (now() + DAY + 60, true),
        (0, true),
        (1, true),
        (u64::MAX, true),
    ] {
        edit(&store, |blob| blob[CREATED].copy_from_slice(&age.to_le_bytes()));
        check(&resuming(&gateway.deployment, &store).await.unwrap()).await;
        opened += usize::from(old);
        assert_eq!(sessions(&gateway), opened, "{age}");
        assert_eq!(old, created(&store) != age, "the new one is stored");
    }
    // Where the application allows it.
    edit(&store, |blob| blob[CREATED].copy_from_slice(&(now() - 31 * DAY).to_le_bytes()));
    let builder = || gateway.client().session_store(store.clone());
    check(&builder().session_max_age(Duration::from_secs(32 * DAY)).connect().await.unwrap()).await;
    assert_eq!(sessions(&gateway), opened);
    check(&builder().session_max_age(Duration::from_secs(DAY)).connect().await.unwrap()).await;
    assert_eq!(sessions(&gateway), opened + 1);
}

/// On a connection that lives, and on the next one.
async fn a_session_that_grows_too_old_is_replaced_in_use(via: Transport) {
    let gateway = FakeGateway::start(via);
    let store = Arc::new(Memory::default());
    let builder = gateway.impatient().session_store(store.clone());
    let client = builder.session_max_age(Duration::from_secs(2)).connect().await.unwrap();
    check(&client).await;
    assert_eq!(sessions(&gateway), 1);
    tokio::time::sleep(Duration::from_millis(3100)).await;
    // Together they replace it once.
    assert!(client.infer_many(&vec![image(); 4]).await.iter().all(Result::is_ok));
    assert_eq!((sessions(&gateway), store.saves.load(Ordering::Relaxed)), (2, 2));
    tokio::time::sleep(Duration::from_millis(3100)).await;
    client.network_changed().unwrap();
    check(&client).await;
    assert_eq!((sessions(&gateway), store.saves.load(Ordering::Relaxed)), (3, 3));
    assert_eq!(ledger(&gateway).len(), 6);
}

over_both!(
    a_session_that_is_not_opened_in_time_gives_its_connection_up,
    a_new_process_goes_on_without_sealing,
    a_lost_connection_keeps_the_session,
    a_session_that_cannot_go_on_is_replaced,
    other_answers_to_resuming_are_errors,
    many_processes_go_on_with_one_session,
    two_clients_on_one_store_share_a_session,
    a_store_that_fails,
    a_refused_number_ends_the_session,
    an_old_session_is_not_taken_up,
    a_session_that_grows_too_old_is_replaced_in_use,
);
