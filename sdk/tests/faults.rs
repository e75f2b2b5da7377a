//! The ledger: whatever networks, gateways, stores and the process itself do, no pad serves two requests. Every
//! request is recorded where it enters the gateway, which knows the keys: it can tell the pads from the number
//! that came along, and what was masked with them. And without any key it compares all bytes that came: no two
//! requests may differ as two inputs do.
//!
//! `SECO_SLOW=1` kills more processes.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "helpers of tests are tests")]

mod common;

use common::ledger::Fault;
use common::network::Network;
use common::{Action, FakeGateway, image, reference, temporary};
use seco_core::Response;
use seco_sdk::{Client, Deployment, Error, FileStore, Loss, Progress, SessionStore, Transport};
use std::io;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// Inputs that differ in every byte.
fn inputs() -> Vec<Vec<u8>> {
    (0..5u8).map(|i| image().iter().map(|byte| byte ^ (0x11 * (i + 1))).collect()).collect()
}

fn slow() -> bool {
    let slow = std::env::var_os("SECO_SLOW").is_some();
    if !slow {
        println!("skipped: most rounds; set SECO_SLOW=1");
    }
    slow
}

/// Every input, several times, some of them dropped on the way.
async fn requests(client: &Client, rounds: usize) {
    for round in 0..rounds {
        let inputs = inputs();
        for (i, input) in inputs.iter().enumerate() {
            let pause = Duration::from_millis([0, 1, 3, 10, 30][(i + round) % 5]);
            let _ = tokio::time::timeout(pause, client.infer(input)).await;
            // Refused, out of time or answered.
            let _ = client.infer(input).await;
        }
        for (input, result) in inputs.iter().zip(client.infer_many(&inputs).await) {
            if let Ok(prediction) = result {
                assert_eq!(prediction.logits, reference(input));
            }
        }
    }
}

async fn a_network_and_a_gateway_that_fail(via: Transport) {
    let mut gateway = FakeGateway::start(via);
    let quic = gateway.address();
    let network = Network::before(&mut gateway, quic).await;
    let builder = gateway.client().request_timeout(Duration::from_secs(4));
    let client = builder.connect().await.unwrap();
    network.lose(50);
    network.delay(Duration::from_millis(2));
    let fail = || {
        gateway.answer([
            Action::Close,
            Action::Reset,
            Action::Queue(2),
            Action::Close,
            Action::Send(Response::Busy { retry_after_ms: 1 }),
            Action::Close,
            Action::Close,
            Action::Logits,
            Action::Forget,
            Action::Send(Response::Refused { reason: seco_sdk::Refusal::CounterUsed }),
            Action::Bytes(vec![0xff; 8]),
        ]);
    };
    for round in 0..3 {
        fail();
        requests(&client, 1).await;
        match round {
            0 => network.rebind(),
            1 => network.cut_tcp(),
            _ => client.network_changed().unwrap(),
        }
        requests(&client, 1).await;
    }
    // A path that dies in mid-request, and comes back for another try.
    gateway.answer([Action::Hang]);
    let all = inputs();
    let before = gateway.shared.seen.lock().unwrap().len();
    let dies = async {
        while gateway.shared.seen.lock().unwrap().len() == before {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        network.block(true, true);
        tokio::time::sleep(Duration::from_secs(2)).await;
        network.block(false, false);
    };
    let _ = tokio::join!(client.infer(&all[0]), dies);
    network.lose(0);
    assert_eq!(client.infer(&all[0]).await.unwrap().logits, reference(&all[0]));
    let count = gateway.shared.audit(&inputs()).unwrap();
    println!("{via:?}: {count} requests in {} sessions", gateway.shared.names.lock().unwrap().len());
    assert!(count > 70, "{count}");
}

/// The gateway's process ends while connections to it are made, and another one takes its place.
#[tokio::test]
async fn a_gateway_that_is_just_ending_is_tried_again() {
    for via in [Transport::Tcp, Transport::Auto] {
        let mut gateway = FakeGateway::start(via);
        let quic = gateway.address();
        let network = Network::before(&mut gateway, quic).await;
        network.block(true, false);
        network.turns_away.store(2, Ordering::Relaxed);
        let builder = gateway.client().fallback_delay(Duration::ZERO);
        let client = builder.connect().await.unwrap();
        network.turns_away.store(2, Ordering::Relaxed);
        network.cut_tcp();
        let input = &inputs()[0];
        assert_eq!(client.infer(input).await.unwrap().logits, reference(input));
        assert_eq!(network.turns_away.load(Ordering::Relaxed), 0);
        // For ever: in time, and said.
        network.turns_away.store(1000, Ordering::Relaxed);
        let error = gateway.impatient().connect_timeout(Duration::from_secs(2)).connect().await.unwrap_err();
        assert!(matches!(error, Error::Connect { reason: Loss::ByGateway, .. }), "{error}");
        assert_eq!(gateway.shared.audit(&inputs()), Ok(1));
    }
}

/// Fails every third time, before or after it has saved.
struct Unreliable {
    store: FileStore,
    calls: AtomicUsize,
}

impl SessionStore for Unreliable {
    fn load(&self) -> io::Result<Option<Vec<u8>>> {
        self.store.load()
    }

    fn save(&self, session: &[u8]) -> io::Result<()> {
        let call = self.calls.fetch_add(1, Ordering::Relaxed);
        if call % 3 == 1 {
            return Err(io::Error::other("not now"));
        }
        self.store.save(session)?;
        if call % 3 == 2 { Err(io::Error::other("who knows")) } else { Ok(()) }
    }
}

async fn a_store_that_fails(via: Transport) {
    let gateway = FakeGateway::start(via);
    let folder = temporary();
    let store = FileStore::new(folder.path().join("session"));
    let store = Arc::new(Unreliable { store, calls: AtomicUsize::new(0) });
    let (mut answered, mut failed) = (0, 0);
    for _ in 0..8 {
        let client = loop {
            match gateway.client().session_store(store.clone()).connect().await {
                Ok(client) => break client,
                Err(error) => assert!(matches!(error, Error::Storage(_)), "{error}"),
            }
        };
        for round in 0..40 {
            // A new session has to be stored.
            if round % 4 == 3 {
                gateway.answer([Action::Forget]);
            }
            match client.infer(&inputs()[round % 5]).await {
                Ok(_) => answered += 1,
                Err(error) => {
                    assert!(matches!(error, Error::Storage(_)), "{error}");
                    failed += 1;
                }
            }
        }
    }
    // What was asked under a session that was forgotten arrived as well.
    gateway.shared.audit(&inputs()).unwrap();
    println!("{via:?}: {answered} answered, {failed} failed");
    assert!(failed > 5 && answered > 150, "{failed} {answered}");
}

/// Where a process ends.
#[derive(Clone, Copy, Debug)]
enum Crash {
    /// In this save, before it does anything.
    BeforeSave(usize),
    /// In this save, after it is done and before a number is used.
    AfterSave(usize),
    /// Right after this request has left, its answer not there yet.
    Sent(usize),
    /// After so many requests, as an app that was closed.
    Never(usize),
    /// By someone else, at any time.
    Killed,
}

const CHILD: &str = "SECO_FAULTS_CHILD";

/// The process that crashes: this test program again, with this test alone.
#[test]
fn client_process() {
    let Ok(arguments) = std::env::var(CHILD) else { return };
    let arguments: Vec<&str> = arguments.split(' ').collect();
    let [via, crash, at, folder] = arguments[..] else { panic!("{arguments:?}") };
    let (at, folder) = (at.parse().unwrap(), Path::new(folder));
    let crash = match crash {
        "BeforeSave" => Crash::BeforeSave(at),
        "AfterSave" => Crash::AfterSave(at),
        "Sent" => Crash::Sent(at),
        "Never" => Crash::Never(at),
        _ => Crash::Killed,
    };
    let store = FileStore::new(folder.join("session"));
    let store = Arc::new(Crashing { store, crash, saves: AtomicUsize::new(0) });
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let deployment = Deployment::from_file(folder.join("deployment.toml")).unwrap();
        let via = if via == "Quic" { Transport::Quic } else { Transport::Tcp };
        let client = Client::builder(deployment).transport(via).session_store(store).connect().await.unwrap();
        for (i, input) in inputs().iter().cycle().enumerate() {
            let told = |progress| {
                if let (Progress::Sent, Crash::Sent(at)) = (progress, crash)
                    && at == i
                {
                    std::process::abort();
                }
            };
            client.infer_with(input, told).await.unwrap();
            if let Crash::Never(at) = crash
                && at == i
            {
                return;
            }
        }
    });
}

struct Crashing {
    store: FileStore,
    crash: Crash,
    saves: AtomicUsize,
}

impl SessionStore for Crashing {
    fn load(&self) -> io::Result<Option<Vec<u8>>> {
        self.store.load()
    }

    fn save(&self, session: &[u8]) -> io::Result<()> {
        let call = self.saves.fetch_add(1, Ordering::Relaxed);
        if matches!(self.crash, Crash::BeforeSave(at) if at == call) {
            std::process::abort();
        }
        self.store.save(session)?;
        if matches!(self.crash, Crash::AfterSave(at) if at == call) {
            std::process::abort();
        }
        Ok(())
    }
}

/// Ends with the test, however that ends.
struct Process(Child);

impl Process {
    async fn ended(&mut self) -> ExitStatus {
        let ended = async {
            loop {
                if let Some(status) = self.0.try_wait().unwrap() {
                    return status;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(30), ended).await.expect("the process ends where it should")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn process(via: Transport, crash: Crash, folder: &Path) -> Process {
    let text = match crash {
        Crash::BeforeSave(at) => format!("BeforeSave {at}"),
        Crash::AfterSave(at) => format!("AfterSave {at}"),
        Crash::Sent(at) => format!("Sent {at}"),
        Crash::Never(at) => format!("Never {at}"),
        Crash::Killed => "Killed 0".to_owned(),
    };
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "client_process", "--nocapture"])
        .env(CHILD, format!("{via:?} {text} {}", folder.display()))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    Process(child.unwrap())
}

/// A folder with the deployment file, and no session.
fn folder(gateway: &FakeGateway) -> tempfile::TempDir {
    let folder = temporary();
    let deployment = gateway.deployment.to_toml().unwrap();
    std::fs::write(folder.path().join("deployment.toml"), deployment).unwrap();
    folder
}

/// Lets a process run to its end.
async fn run(via: Transport, crash: Crash, folder: &Path) {
    let mut process = process(via, crash, folder);
    let status = process.ended().await;
    assert_eq!(status.success(), matches!(crash, Crash::Never(_)), "{crash:?}: {status}");
    assert_eq!(status.code(), status.success().then_some(0), "{crash:?}: by a signal");
}

/// Processes that go on with one stored session, one after the other, each ending where it hurts.
async fn processes_that_crash(via: Transport) {
    let gateway = FakeGateway::start(via);
    let folder = folder(&gateway);
    // The first two find no session.
    let crashes = [
        Crash::BeforeSave(0),
        Crash::AfterSave(0),
        Crash::Sent(3),
        Crash::Sent(0),
        Crash::Sent(63),
        Crash::Sent(64),
        Crash::Never(70),
        Crash::Never(0),
        Crash::Sent(1),
        Crash::Never(9),
    ];
    for crash in crashes {
        run(via, crash, folder.path()).await;
    }
    let seen = gateway.shared.audit(&inputs()).unwrap();
    assert_eq!(gateway.shared.names.lock().unwrap().len(), 2, "the stored session went on all the time");

    for round in 0..if slow() { 40 } else { 6 } {
        let process = process(via, Crash::Killed, folder.path());
        tokio::time::sleep(Duration::from_millis(100 + round * 37 % 150)).await;
        drop(process);
    }
    let killed = gateway.shared.audit(&inputs()).unwrap() - seen;
    println!("{via:?}: {seen} requests of processes that crashed, {killed} of those that were killed");
    assert_eq!(gateway.shared.names.lock().unwrap().len(), 2);
    assert!(seen > 200 && killed > 0, "{seen} {killed}");
}

/// Whatever happened to a process, the file comes back as it was before, from a backup or a snapshot.
async fn files_that_come_back(via: Transport) {
    let gateway = FakeGateway::start(via);
    let folder = folder(&gateway);
    let file = folder.path().join("session");
    run(via, Crash::Never(2), folder.path()).await;
    let backup = std::fs::read(&file).unwrap();
    for (crash, stored) in [
        (Crash::Sent(0), true),
        (Crash::Sent(2), true),
        (Crash::Never(4), true),
        (Crash::BeforeSave(0), false),
        (Crash::AfterSave(0), false),
        (Crash::Never(1), false),
        (Crash::Sent(1), true),
    ] {
        if stored {
            std::fs::write(&file, &backup).unwrap();
        } else {
            std::fs::remove_file(&file).unwrap();
        }
        run(via, crash, folder.path()).await;
        std::fs::write(&file, &backup).unwrap();
        run(via, Crash::Never(4), folder.path()).await;
    }
    let seen = gateway.shared.audit(&inputs()).unwrap();
    let (sessions, incarnations) =
        (gateway.shared.names.lock().unwrap().len(), gateway.shared.incarnations());
    println!("{via:?}: {seen} requests, {sessions} sessions in {incarnations} incarnations");
    assert_eq!((sessions, incarnations), (4, 15));
    assert!(seen > 45, "{seen}");
}

/// An application, its extension and a timer that overlaps with both, on one file; and a card that was copied
/// into another device.
async fn a_session_that_several_use(via: Transport) {
    const REQUESTS: usize = 30;
    let gateway = FakeGateway::start(via);
    let (first, copy) = (folder(&gateway), folder(&gateway));
    let file = |folder: &tempfile::TempDir| folder.path().join("session");
    let client = async |folder: &tempfile::TempDir| {
        let store = Arc::new(FileStore::new(file(folder)));
        let client = gateway.client().session_store(store).connect().await.unwrap();
        for input in inputs().iter().cycle().take(REQUESTS) {
            assert_eq!(client.infer(input).await.unwrap().logits, reference(input));
        }
    };
    let run = |folder| run(via, Crash::Never(REQUESTS - 1), folder);
    // Nobody finds a session, and all of them store one.
    tokio::join!(client(&first), client(&first), run(first.path()), run(first.path()));
    std::fs::copy(file(&first), file(&copy)).unwrap();
    let opened = gateway.shared.names.lock().unwrap().len();
    tokio::join!(client(&first), client(&copy), run(first.path()), run(copy.path()));
    assert_eq!(gateway.shared.audit(&inputs()), Ok(8 * REQUESTS));
    assert_eq!(gateway.shared.names.lock().unwrap().len(), opened, "all went on with one session");
    assert_eq!(gateway.shared.incarnations(), 8);
}

/// The ledger is no better than what it can see.
#[tokio::test]
async fn the_ledger_sees_faults() {
    let gateway = FakeGateway::start(Transport::Quic);
    let client = gateway.client().connect().await.unwrap();
    let inputs = inputs();
    client.infer(&inputs[0]).await.unwrap();
    client.infer(&inputs[0]).await.unwrap();
    let shared = &gateway.shared;
    assert_eq!(shared.audit(&inputs), Ok(2));
    assert!(matches!(shared.audit(&[image()]), Err(Fault::OtherPad(_, 0))));
    let of_first = shared.inputs.lock().unwrap()[0].clone();
    let other = of_first.iter().zip(inputs[0].iter().zip(&inputs[1]));
    let other: Vec<u8> = other.map(|(masked, (x, y))| masked ^ x ^ y).collect();
    // The same pad for another input, or for the same one, whatever number came along.
    for masked in [other, of_first] {
        shared.inputs.lock().unwrap()[1] = masked;
        assert_eq!(shared.audit(&inputs), Err(Fault::Difference(0, 1)));
    }
    let noise = vec![7; inputs[0].len()];
    shared.inputs.lock().unwrap()[1] = noise;
    assert!(matches!(shared.audit(&inputs), Err(Fault::OtherPad(_, 1))));
}

over_both!(
    a_network_and_a_gateway_that_fail,
    a_store_that_fails,
    processes_that_crash,
    files_that_come_back,
    a_session_that_several_use,
);
