//! The mesh between servers: several of them in one process, over real QUIC on loopback.
#![allow(clippy::unwrap_used, clippy::panic)]

mod versions;

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, OnceLock, mpsc};
use std::time::{Duration, Instant};

use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use seco_core::{KeyId, ModelId, SealingKeyHash};
use seco_node::Error;
use seco_node::cluster::jobs::Jobs;
use seco_node::failure::Failure;
use seco_node::mesh::{Clock, Mesh, QuicChannel, Records, Server, Settings, Started};
use seco_node::operation::metrics::Phase;
use seco_node::reset::ResetKey;
use seco_node::store::ledger::Head;
use seco_node::versions::Versions;
use seco_protocol::{Channel, ChannelError};

const LOOPBACK: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);
const LIMIT: Duration = Duration::from_secs(30);

struct Identity {
    certificate: CertificateDer<'static>,
    key: PrivateKeyDer<'static>,
}

/// Its present key and one of before.
fn sealing_keys(server: usize) -> Vec<SealingKeyHash> {
    vec![SealingKeyHash([server as u8; 32]), SealingKeyHash([server as u8 + 100; 32])]
}

fn identities(n: usize) -> Vec<Identity> {
    (0..n)
        .map(|_| {
            let made = rcgen::generate_simple_self_signed(vec!["seco".to_owned()]).unwrap();
            let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
            Identity { certificate: made.cert.der().clone(), key }
        })
        .collect()
}

/// Starts server `me`, which dials the addresses given for higher ones.
fn start(me: usize, ids: &[Identity], addresses: &[Option<SocketAddr>], model: u8) -> Started {
    start_with(me, ids, addresses, model, None)
}

/// The same with records of the others' ledgers.
fn start_with(
    me: usize,
    ids: &[Identity],
    addresses: &[Option<SocketAddr>],
    model: u8,
    records: Option<Arc<dyn Records>>,
) -> Started {
    Mesh::start(Settings { models: vec![ModelId([model; 32])], records, ..settings(me, ids, addresses) })
        .unwrap()
}

fn settings(me: usize, ids: &[Identity], addresses: &[Option<SocketAddr>]) -> Settings {
    let servers = ids
        .iter()
        .zip(addresses)
        .enumerate()
        .map(|(i, (id, address))| Server {
            name: format!("s{i}"),
            address: address.map(|a| a.to_string()),
            certificates: vec![id.certificate.clone()],
            known_as: id.certificate.clone(),
            ot_parameter: 2,
        })
        .collect();
    Settings {
        versions: Versions::OURS,
        me,
        servers,
        key: ids[me].key.clone_key(),
        listen: LOOPBACK,
        models: vec![ModelId([1; 32])],
        sealing_keys: sealing_keys(me),
        reset: ResetKey::random().unwrap(),
        records: None,
    }
}

/// Starts a server where another one was, whose socket may take a while to close.
async fn start_again(settings: impl Fn() -> Settings) -> Started {
    let deadline = Instant::now() + LIMIT;
    loop {
        match Mesh::start(settings()) {
            Ok(started) => return started,
            Err(error) => {
                assert!(matches!(error, Error::Bind { .. }) && Instant::now() < deadline, "{error}");
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    }
}

fn copies<const N: usize>(ids: [&Identity; N]) -> Vec<Identity> {
    ids.map(|id| Identity { certificate: id.certificate.clone(), key: id.key.clone_key() }).into()
}

/// Starts `n` servers, the last first; gives them in order.
fn start_all(n: usize, start: impl Fn(usize, &[Identity], &[Option<SocketAddr>]) -> Started) -> Vec<Started> {
    let (ids, mut addresses, mut all) = (identities(n), vec![None; n], Vec::new());
    for me in (0..n).rev() {
        let started = start(me, &ids, &addresses);
        addresses[me] = Some(started.mesh.address().unwrap());
        all.insert(0, started);
    }
    all
}

/// A connected cluster of `n`.
async fn cluster(n: usize) -> Vec<Mesh> {
    let mut all = start_all(n, |me, ids, addresses| start(me, ids, addresses, 1));
    for started in &mut all {
        started.mesh.start_up(&mut started.mistakes, LIMIT).await.unwrap();
        for server in 0..n {
            for key in sealing_keys(server) {
                assert_eq!(started.mesh.sealing_key(server, key.id()), Ok(key));
            }
            let other = started.mesh.sealing_key(server, KeyId([9; 8]));
            assert_eq!(other, Err(Failure::OtherKey(server)));
        }
    }
    all.into_iter().map(|s| s.mesh).collect()
}

async fn channels(meshes: &[Mesh], job: u64, limit: Duration) -> Vec<QuicChannel> {
    let opening: Vec<_> = meshes
        .iter()
        .map(|mesh| {
            let mesh = mesh.clone();
            tokio::spawn(async move { mesh.channel(job, 0, 0, &Clock::new(limit)).await })
        })
        .collect();
    let mut channels = Vec::new();
    for task in opening {
        channels.push(task.await.unwrap().unwrap());
    }
    channels
}

fn blocking<T: Send + 'static>(f: impl FnOnce() -> T + Send + 'static) -> tokio::task::JoinHandle<T> {
    tokio::task::spawn_blocking(f)
}

#[tokio::test(flavor = "multi_thread")]
async fn big_messages_both_ways_at_once() {
    const SIZE: usize = 48 << 20;
    let meshes = cluster(3).await;
    let threads: Vec<_> = channels(&meshes, 5, LIMIT)
        .await
        .into_iter()
        .map(|mut channel| {
            blocking(move || {
                let me = channel.me();
                // Everybody sends far more than any window holds before anybody receives.
                for to in (0..3).filter(|&to| to != me) {
                    channel.send(to, vec![(10 * me + to) as u8; SIZE]).unwrap();
                    channel.send(to, Vec::new()).unwrap();
                    channel.send(to, vec![9]).unwrap();
                }
                for from in (0..3).filter(|&from| from != me) {
                    let message = channel.recv(from, SIZE).unwrap();
                    assert!(message.len() == SIZE && message.iter().all(|&b| b == (10 * from + me) as u8));
                    assert!(channel.recv(from, 0).unwrap().is_empty());
                    assert_eq!(channel.recv(from, 1).unwrap(), [9]);
                }
                let _ = channel.finish();
            })
        })
        .collect();
    let start = Instant::now();
    for thread in threads {
        thread.await.unwrap();
    }
    eprintln!("{} MB in {:?}", 6 * (SIZE >> 20), start.elapsed());
    for mesh in &meshes {
        let sent = mesh.bytes_sent();
        assert!((2 * SIZE as u64..2 * SIZE as u64 * 13 / 10).contains(&sent), "{sent}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn lanes_and_jobs_do_not_mix() {
    let meshes = cluster(2).await;
    let mut open = Vec::new();
    for (job, lane) in [(1, 0), (1, 1), (2, 0)] {
        for mesh in &meshes {
            let mesh = mesh.clone();
            open.push(tokio::spawn(async move {
                let mut channel = mesh.channel(job, lane, 0, &Clock::new(LIMIT)).await.unwrap();
                blocking(move || {
                    let other = 1 - channel.me();
                    channel.send(other, vec![job as u8, lane]).unwrap();
                    assert_eq!(channel.recv(other, 2).unwrap(), [job as u8, lane]);
                    let _ = channel.finish();
                })
                .await
                .unwrap();
            }));
        }
    }
    for task in open {
        task.await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn too_large_a_message_is_refused() {
    let meshes = cluster(2).await;
    let mut ends = channels(&meshes, 1, LIMIT).await;
    let mut second = ends.remove(1);
    ends[0].send(1, vec![0; 1001]).unwrap();
    let error = blocking(move || second.recv(0, 1000).unwrap_err()).await.unwrap();
    assert!(matches!(error, ChannelError::TooLarge { peer: 0, got: 1001, max: 1000 }), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_abandoned_job_is_noticed_at_once() {
    let meshes = cluster(3).await;
    let mut ends = channels(&meshes, 1, LIMIT).await;
    // Much is still queued, and is not sent any more.
    ends[2].send(0, vec![0; 64 << 20]).unwrap();
    drop(ends.remove(2));
    let start = Instant::now();
    let threads = ends.into_iter().map(|mut end| blocking(move || end.recv(2, 64 << 20).unwrap_err()));
    for thread in threads.collect::<Vec<_>>() {
        let error = thread.await.unwrap();
        assert!(matches!(error, ChannelError::Closed { peer: 2 }), "{error}");
    }
    assert!(start.elapsed() < Duration::from_secs(3), "{:?}", start.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_server_is_noticed_and_comes_back() {
    let ids = identities(2);
    let started = start(1, &ids, &[None, None], 1);
    let address = started.mesh.address().unwrap();
    let mut gateway = start(0, &ids, &[None, Some(address)], 1);
    gateway.mesh.start_up(&mut gateway.mistakes, LIMIT).await.unwrap();
    let before = (gateway.mesh.generations(), gateway.mesh.bytes_sent());

    let mut ends = channels(&[gateway.mesh.clone(), started.mesh.clone()], 1, LIMIT).await;
    let mut end = ends.remove(0);
    let waiting = blocking(move || end.recv(1, 10).unwrap_err());
    started.mesh.close().await;
    let error = tokio::time::timeout(Duration::from_secs(2), waiting).await.unwrap().unwrap();
    assert!(matches!(error, ChannelError::Closed { peer: 1 }), "{error}");
    let error = gateway.mesh.channel(2, 0, 0, &Clock::new(LIMIT)).await.err().unwrap();
    assert!(matches!(error, ChannelError::Closed { peer: 1 }), "{error}");
    assert_eq!(gateway.mesh.missing(), Some(1));
    drop((started, ends));

    // The same server again, at the same address.
    let _again = start_again(|| Settings { listen: address, ..settings(1, &ids, &[None, None]) }).await;
    tokio::time::timeout(LIMIT, gateway.mesh.connected()).await.unwrap();
    assert_ne!(gateway.mesh.generations(), before.0);
    assert!(gateway.mesh.bytes_sent() > before.1, "bytes of the lost connection still count");
}

/// Notes whether there is a link with a server when it says where its ledger ends.
struct Noting {
    mesh: OnceLock<Mesh>,
    met: mpsc::Sender<bool>,
}

impl Records for Noting {
    fn head(&self) -> Head {
        Head { count: 0, chain: [0; 32] }
    }

    fn meet(&self, peer: usize, _: Head, _: &[ModelId]) {
        let linked = self.mesh.get().is_some_and(|mesh| mesh.is_connected(peer));
        let _ = self.met.send(linked);
    }
}

/// What is said on a new link is taken down when the old one is gone: nothing comes after it that was said before.
#[tokio::test(flavor = "multi_thread")]
async fn a_link_is_given_up_before_another_is_heard() {
    let ids = identities(2);
    let noting = || {
        let (met, meets) = mpsc::channel();
        (Arc::new(Noting { mesh: OnceLock::new(), met }), meets)
    };
    let (records, meets) = noting();
    let remote = start_with(1, &ids, &[None, None], 1, Some(records.clone()));
    assert!(records.mesh.set(remote.mesh.clone()).is_ok());
    let addresses = [None, Some(remote.mesh.address().unwrap())];
    let meet = async || {
        let gateway = start_with(0, &ids, &addresses, 1, Some(noting().0));
        tokio::time::timeout(LIMIT, gateway.mesh.connected()).await.unwrap();
        tokio::time::timeout(LIMIT, remote.mesh.connected()).await.unwrap();
        (gateway, meets.recv_timeout(LIMIT).unwrap())
    };
    let (first, linked) = meet().await;
    assert!(!linked && remote.mesh.is_connected(0));
    // Another process with the same keys, as after a restart that the remote has not noticed.
    let (second, linked) = meet().await;
    assert!(!linked, "the first link stands still");
    drop((first, second));
}

#[tokio::test(flavor = "multi_thread")]
async fn waiting_ends() {
    let meshes = cluster(2).await;
    // Nobody at the other end opens the channel.
    let start = Instant::now();
    let error = meshes[1].channel(1, 0, 0, &Clock::new(Duration::from_millis(200))).await.err().unwrap();
    assert!(matches!(error, ChannelError::TimedOut { peer: 0 }), "{error}");
    // Nobody at the other end sends.
    let mut ends = channels(&meshes, 2, Duration::from_millis(300)).await;
    let mut end = ends.remove(0);
    let error = blocking(move || end.recv(1, 1).unwrap_err()).await.unwrap();
    assert!(matches!(error, ChannelError::TimedOut { peer: 1 }), "{error}");
    assert!(start.elapsed() < Duration::from_secs(3));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_job_stops_waiting() {
    let meshes = cluster(2).await;
    let jobs = Arc::new(Jobs::default());
    let job = jobs.start(3, &ModelId([1; 32]), LIMIT, Phase::Bundle).unwrap();
    let mesh = meshes[1].clone();
    let running = tokio::spawn(async move {
        job.run(&mesh, &Arc::default(), true, |_lanes: &mut [QuicChannel; 1]| Ok(())).await
    });
    tokio::time::sleep(Duration::from_millis(50)).await;
    jobs.cancel(3);
    let result = tokio::time::timeout(Duration::from_secs(2), running).await.unwrap().unwrap();
    assert!(result.is_err());
    // The order to cancel may come first.
    jobs.cancel(4);
    let job = jobs.start(4, &ModelId([1; 32]), LIMIT, Phase::Bundle).unwrap();
    let metrics = Arc::default();
    let run = job.run(&meshes[1], &metrics, true, |_lanes: &mut [QuicChannel; 1]| Ok(()));
    assert!(tokio::time::timeout(Duration::from_secs(2), run).await.unwrap().is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn another_model_is_told_on_both_sides() {
    let ids = identities(2);
    let mut remote = start(1, &ids, &[None, None], 2);
    let address = remote.mesh.address().unwrap();
    let mut gateway = start(0, &ids, &[None, Some(address)], 1);
    let error = gateway.mesh.start_up(&mut gateway.mistakes, LIMIT).await.unwrap_err();
    assert!(matches!(error, Error::DifferentModel { index: 1, .. }), "{error}");
    // The one that was dialled waits for a better one, and says in the end why none came.
    let limit = Duration::from_millis(500);
    let error = remote.mesh.start_up(&mut remote.mistakes, limit).await.unwrap_err();
    assert!(matches!(error, Error::DifferentModel { index: 0, .. }), "{error}");
    assert_eq!(error.to_string().lines().count(), 1);
}

/// What a server says of its models later counts as what it said in its hello.
#[tokio::test(flavor = "multi_thread")]
async fn models_that_change_are_told() {
    let meshes = cluster(2).await;
    let [a, b] = [1, 9].map(|n| ModelId([n; 32]));
    let becomes = |what: &'static str, is: &dyn Fn(&Mesh) -> bool| {
        let (mesh, deadline) = (&meshes[0], Instant::now() + LIMIT);
        while !is(mesh) {
            assert!(Instant::now() < deadline, "{what}");
            std::thread::sleep(Duration::from_millis(5));
        }
    };
    assert_eq!((meshes[0].lacking(&a), meshes[0].lacking(&b)), (None, Some(1)));
    let links = meshes[0].links(&a);
    meshes[1].offer(vec![a, b]);
    becomes("another", &|mesh| mesh.lacking(&b).is_none());
    assert!(meshes[0].common(1) == [a], "this one does not have it");
    assert_eq!(meshes[0].links(&a), links, "nothing has changed for the first");
    meshes[1].offer(vec![b]);
    becomes("one less", &|mesh| mesh.lacking(&a) == Some(1));
    assert!(meshes[0].is_connected(1));
    // Many at once: the last one counts.
    (0..50).for_each(|n| meshes[1].offer(if n % 2 == 0 { vec![b] } else { vec![a, b] }));
    becomes("back", &|mesh| mesh.lacking(&a).is_none());
    assert_ne!(meshes[0].links(&a), links, "what depended on it has gone meanwhile");
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(meshes[0].has(1, &a) && meshes[0].has(1, &b));
}

#[tokio::test(flavor = "multi_thread")]
async fn servers_of_another_cluster_are_refused() {
    let (ids, others) = (identities(3), identities(1));
    let mixed = copies([&ids[0], &ids[1], &others[0]]);
    let remote = start(1, &ids, &[None, None, Some("127.0.0.1:9".parse().unwrap())], 1);
    let address = Some(remote.mesh.address().unwrap());
    let mut gateway = start(0, &mixed, &[None, address, Some("127.0.0.1:9".parse().unwrap())], 1);
    let error = gateway.mesh.start_up(&mut gateway.mistakes, LIMIT).await.unwrap_err();
    assert!(matches!(error, Error::DifferentCluster { index: 1, .. }), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_certificates_are_refused() {
    let (ids, others) = (identities(2), identities(2));
    let remote = start(1, &ids, &[None, None], 1);
    let address = Some(remote.mesh.address().unwrap());

    // The remote is not the one that this gateway pins.
    let wrong = copies([&ids[0], &others[1]]);
    let mut gateway = start(0, &wrong, &[None, address], 1);
    let error = gateway.mesh.start_up(&mut gateway.mistakes, LIMIT).await.unwrap_err();
    assert!(matches!(error, Error::WrongCertificate { index: 1, .. }), "{error}");

    // This gateway is not the one that the remote pins.
    let wrong = copies([&others[0], &ids[1]]);
    let mut gateway = start(0, &wrong, &[None, address], 1);
    let error = gateway.mesh.start_up(&mut gateway.mistakes, LIMIT).await.unwrap_err();
    assert!(matches!(error, Error::OwnCertificate { index: 1, .. }), "{error}");
    assert!(remote.mesh.missing() == Some(0));
}

/// Shows a certificate with a key that is not its own, as only a changed program does.
#[derive(Debug)]
struct Stolen(Arc<rustls::sign::CertifiedKey>);

impl rustls::client::ResolvesClientCert for Stolen {
    fn resolve(&self, _: &[&[u8]], _: &[rustls::SignatureScheme]) -> Option<Arc<rustls::sign::CertifiedKey>> {
        Some(self.0.clone())
    }

    fn has_certs(&self) -> bool {
        true
    }
}

/// Certificates are no secret: who shows a pinned one has to sign with its key.
#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_without_its_key_is_refused() {
    let (ids, others) = (identities(2), identities(1));
    let remote = start(1, &ids, &[None, None], 1);
    let address = remote.mesh.address().unwrap();
    for (key, admitted) in [(&ids[0].key, true), (&others[0].key, false)] {
        let key = rustls::crypto::ring::sign::any_supported_type(key).unwrap();
        let stolen = rustls::sign::CertifiedKey::new(vec![ids[0].certificate.clone()], key);
        let mut roots = rustls::RootCertStore::empty();
        roots.add(ids[1].certificate.clone()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut tls = rustls::ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_root_certificates(roots)
            .with_client_cert_resolver(Arc::new(Stolen(Arc::new(stolen))));
        tls.alpn_protocols = vec![b"seco-mesh/1".to_vec()];
        let config = quinn::crypto::rustls::QuicClientConfig::try_from(tls).unwrap();
        let endpoint = quinn::Endpoint::client(LOOPBACK).unwrap();
        let connecting = endpoint.connect_with(quinn::ClientConfig::new(Arc::new(config)), address, "seco");
        // The server answers the first message with its own, if it gets that far.
        let greeting = async {
            let connection = connecting.unwrap().await.ok()?;
            let (mut send, mut receive) = connection.open_bi().await.ok()?;
            send.write_all(&[2, 0, 0, 0, 7, 7]).await.ok()?;
            receive.read_chunk(1, true).await.ok()?
        };
        let greeting = tokio::time::timeout(LIMIT, greeting).await.unwrap();
        assert_eq!(greeting.is_some(), admitted);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn absent_servers_are_named() {
    let ids = identities(2);
    let mut gateway = start(0, &ids, &[None, Some("127.0.0.1:9".parse().unwrap())], 1);
    let error = gateway.mesh.start_up(&mut gateway.mistakes, Duration::from_millis(200)).await.unwrap_err();
    assert_eq!(error.to_string(), "server 1 (s1) at 127.0.0.1:9 does not answer: is it running?");
    let mut remote = start(1, &ids, &[None, None], 1);
    let error = remote.mesh.start_up(&mut remote.mistakes, Duration::from_millis(200)).await.unwrap_err();
    assert!(matches!(error, Error::NotDialled { index: 0, .. }), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_in_use_is_named() {
    let ids = identities(2);
    let first = start(1, &ids, &[None, None], 1);
    let settings = Settings { listen: first.mesh.address().unwrap(), ..settings(1, &ids, &[None, None]) };
    assert!(matches!(Mesh::start(settings), Err(Error::Bind { .. })));
}
