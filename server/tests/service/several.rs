//! Several bundles made at the same time: on clusters that do, on one where one server does not or cannot, beside requests
//! and removals, and by a gateway that orders more than a remote makes, or after one that failed.

#[cfg(target_os = "linux")]
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::common::admin::{admin, start, start_all, status, text};
use crate::common::links::in_place_of;
use crate::common::{LIMIT, Server, Site, digits};
use seco_node::config::Pool;
use seco_node::mesh::{Clock, Incoming, Mesh, QuicChannel, Started};
use seco_node::service::part::read_part;
use seco_node::versions::Versions;
use seco_protocol::{BundleId, MemorySpool, Party, PlannedModel};
use tokio::sync::mpsc::Receiver;

const MAKING: usize = 3;

/// A pool that is filled for some time.
fn pool(making: usize) -> Pool {
    Pool { size: 48, low: 47, making, ..Pool::default() }
}

/// Waits until every server has a full pool; gives the most jobs that each was seen to run at the same time.
fn most_jobs(ports: &[SocketAddr]) -> Vec<usize> {
    let (mut most, deadline) = (vec![0; ports.len()], Instant::now() + LIMIT);
    loop {
        let mut full = true;
        for (port, most) in ports.iter().zip(&mut most) {
            let status = status(*port);
            *most = status.jobs.max(*most);
            full &= status.bundles.stored == pool(0).size;
        }
        if full {
            return most;
        }
        assert!(Instant::now() < deadline, "pools are not full");
    }
}

/// Asks for some digits; every answer is right.
async fn ask(site: &Site, address: SocketAddr) {
    let device = site.connect(address).await;
    let mut opened = device.open(&site.session(1), &site.sealing_keys()).await.unwrap();
    for digit in digits().iter().take(6) {
        assert_eq!(device.infer(&mut opened, digit).await.unwrap(), site.expected(digit));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_and_three_servers_make_several_and_all_are_exact() {
    for servers in [2, 3] {
        let mut site = Site::new(servers);
        (site.pool, site.admin) = (pool(MAKING), true);
        let (_servers, ports, address) = start_all(&mut site, &[]);
        let most = tokio::task::block_in_place(|| most_jobs(&ports));
        assert!(most[0] > 1, "{most:?}");
        assert!(most.iter().all(|most| *most <= MAKING), "{most:?}");
        ask(&site, address).await;
    }
}

/// Names and priorities of a process' threads: field 19 of their lines, the 17th after the name.
#[cfg(target_os = "linux")]
fn threads(process: u32) -> Vec<(String, i32)> {
    let all = std::fs::read_dir(format!("/proc/{process}/task")).unwrap();
    let line = |thread: std::io::Result<std::fs::DirEntry>| {
        // It may have ended.
        let line = std::fs::read_to_string(thread.ok()?.path().join("stat")).ok()?;
        let (before, after) = line.rsplit_once(") ")?;
        let name = before.split_once('(')?.1.to_owned();
        Some((name, after.split(' ').nth(16)?.parse().ok()?))
    };
    all.filter_map(line).collect()
}

/// What is made ahead gives way, what somebody waits for does not.
#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread")]
async fn making_has_a_lower_priority_than_requests() {
    let mut site = Site::new(2);
    (site.pool, site.admin) = (pool(1), true);
    let (mut servers, _, address) = start_all(&mut site, &[]);
    servers[0].wait_bundle();
    let (mut seen, deadline) = (BTreeMap::new(), Instant::now() + LIMIT);
    let device = site.connect(address).await;
    let mut opened = device.open(&site.session(1), &site.sealing_keys()).await.unwrap();
    // A thread begins as the one that starts it, so one that makes has to be seen later than that.
    let done = |seen: &BTreeMap<String, BTreeSet<i32>>| {
        let [making, behind] = ["making", "behind"].map(|kind| seen.get(kind).and_then(BTreeSet::last));
        seen.contains_key("online") && behind.is_some() && making >= behind
    };
    while !done(&seen) {
        assert!(Instant::now() < deadline, "{seen:?}");
        assert_eq!(device.infer(&mut opened, &digits()[0]).await.unwrap(), site.expected(&digits()[0]));
        for server in &servers {
            for (name, priority) in threads(server.process.id()) {
                // Numbered, most of them.
                let kind = name.split('-').next().unwrap_or_default().to_owned();
                seen.entry(kind).or_insert_with(BTreeSet::new).insert(priority);
            }
        }
    }
    let of = |kind: &str| (seen[kind].first().copied(), seen[kind].last().copied());
    let (usual, lower) = (of("online"), of("behind"));
    assert!(usual.0 == usual.1 && lower.0 == lower.1 && usual < lower, "{seen:?}");
    assert_eq!((of("making").1, of("tokio")), (lower.1, usual), "{seen:?}");
}

/// Where one server makes them one after the other, all do, and the gateway need not be told.
#[tokio::test(flavor = "multi_thread")]
async fn the_server_that_makes_fewest_sets_the_number() {
    let mut site = Site::new(3);
    site.admin = true;
    let (mut servers, mut ports, mut device) = (Vec::new(), Vec::new(), None);
    for index in [2, 1, 0] {
        site.pool = pool(if index == 1 { 1 } else { MAKING });
        let (server, port, address) = start(&mut site, index, &[]);
        servers.push(server);
        ports.push(port);
        device = address;
    }
    let most = tokio::task::block_in_place(|| most_jobs(&ports));
    // One that has ended on one server may not have yet on another.
    assert!(most.iter().all(|most| *most <= 1), "{most:?}");
    ask(&site, device.unwrap()).await;
}

/// Devices are answered while bundles are made.
#[tokio::test(flavor = "multi_thread")]
async fn requests_are_answered_while_bundles_are_made() {
    let mut site = Site::new(3);
    site.pool = Pool { size: 2000, low: 1999, making: 8, ..Pool::default() };
    site.admin = true;
    let (mut servers, ports, address) = start_all(&mut site, &[]);
    servers[0].wait_bundle();
    let device = site.connect(address).await;
    let mut opened = device.open(&site.session(1), &site.sealing_keys()).await.unwrap();
    let stored = || tokio::task::block_in_place(|| status(ports[0]).bundles);
    let before = stored();
    let mut longest = Duration::ZERO;
    for digit in digits().iter().take(12) {
        let start = Instant::now();
        assert_eq!(device.infer(&mut opened, digit).await.unwrap(), site.expected(digit));
        longest = longest.max(start.elapsed());
    }
    // How soon is the machine's business, but nobody waits for all that are being made.
    assert!(longest < Duration::from_secs(3), "{longest:?}");
    let after = stored();
    assert!(after.made > before.made && after.stored < 2000, "{after:?}");
}

/// Killed in the middle of several, a remote costs what was not finished, and nothing else.
#[tokio::test(flavor = "multi_thread")]
async fn a_remote_that_is_killed_in_the_middle_of_several_costs_those() {
    let mut site = Site::new(3);
    (site.pool, site.admin) = (pool(MAKING), true);
    let (mut servers, mut ports, address) = start_all(&mut site, &[]);
    (0..6).for_each(|_| servers[0].wait_bundle());
    servers[2].signal("-KILL");
    let _ = servers[2].process.wait();
    let (server, port, _) = start(&mut site, 2, &[]);
    (servers[2], ports[2]) = (server, port);
    tokio::task::block_in_place(|| most_jobs(&ports));
    ask(&site, address).await;
    // Those that were ready before are there, and were not made anew.
    servers[2].wait_told("bundles of before ready=");
    let told = servers[2].stderr();
    let ready =
        told.split("bundles of before ready=").nth(1).and_then(|rest| rest.split(' ').next()).unwrap();
    assert!(ready.parse::<usize>().unwrap() >= 3, "{told}");
}

/// A model may be removed in the middle of several of its bundles: whoever removes it does not wait for those that are not
/// begun, and nothing of it is left on any server.
#[tokio::test(flavor = "multi_thread")]
async fn a_model_is_removed_in_the_middle_of_several() {
    let mut site = Site::new(3);
    site.admin = true;
    let mut more = site.split_more("b", 24.0);
    more.pool = Pool { size: 2000, low: 1999, making: MAKING, ..Pool::default() };
    site.models = vec![more];
    let (_servers, ports, address) = start_all(&mut site, &[]);
    tokio::task::block_in_place(|| {
        let deadline = Instant::now() + LIMIT;
        // Both are made; of the first there are enough soon.
        while status(ports[0]).bundles.stored < site.pool.size + 6 {
            assert!(Instant::now() < deadline, "no bundles");
            std::thread::sleep(Duration::from_millis(20));
        }
        let jobs = || ports.iter().map(|port| status(*port).jobs).collect::<Vec<_>>();
        for port in [ports[0], ports[2], ports[1]] {
            let start = Instant::now();
            let removed = admin(port, &["models", "remove", "b"]);
            assert!(removed.status.success(), "{}", text(&removed.stderr));
            // Shorter than what a bundle's own limit is, by far.
            // Nor is anything left on the others, which have the model still.
            while jobs().iter().any(|jobs| *jobs > 0) {
                assert!(start.elapsed() < Duration::from_secs(20), "{:?}", jobs());
                std::thread::sleep(Duration::from_millis(20));
            }
        }
    });
    ask(&site, address).await;
}

/// The mesh of a server that does what a test says, in a cluster of two.
fn mesh_of(site: &Site, me: usize) -> Started {
    let remote = site.config(0).peers[0].address.clone();
    in_place_of(site, me, "127.0.0.1:0".parse().unwrap(), |index| {
        remote.clone().filter(|_| index == 1 && me == 0)
    })
}

/// A server's part of a set-up, which is a job.
async fn set_up(mesh: &Mesh, part: &Path, job: u64) -> Arc<Party> {
    let mut channel: QuicChannel = mesh.channel(job, 0, 0, &Clock::new(LIMIT)).await.unwrap();
    let (part, me) = (part.to_owned(), u8::try_from(mesh.me()).unwrap());
    let set_up = move || {
        let planned = PlannedModel::new(read_part(&part).unwrap().into()).unwrap();
        let party = Party::setup(planned, &mut channel, &[2; 2], [3 + me; 32]).unwrap();
        channel.finish();
        party
    };
    tokio::task::spawn_blocking(set_up).await.unwrap().into()
}

/// A server's part of a bundle, which it throws away.
async fn make(mesh: &Mesh, party: &Arc<Party>, job: u64, bundle: [u8; 16], index: u64) {
    let mut lanes = Vec::new();
    for lane in 0..2 {
        lanes.push(mesh.channel(job, lane, 0, &Clock::new(LIMIT)).await.unwrap());
    }
    let (party, seed) = (party.clone(), [u8::try_from(10 + 2 * index).unwrap() + mesh.me() as u8; 32]);
    let work = move || {
        let [mut linear, mut nonlinear] = <[QuicChannel; 2]>::try_from(lanes).ok().unwrap();
        let spool = Box::new(MemorySpool::default());
        party.preprocess(BundleId(bundle), index, &mut linear, &mut nonlinear, seed, spool).unwrap();
        [linear, nonlinear].map(QuicChannel::finish)
    };
    tokio::task::spawn_blocking(work).await.unwrap();
}

/// A gateway that orders what a test says, and the remote that obeys it.
struct ByHand {
    site: Site,
    mesh: Started,
    _remote: Server,
    port: SocketAddr,
}

impl ByHand {
    async fn start() -> ByHand {
        let mut site = Site::new(2);
        (site.pool, site.admin) = (pool(MAKING), true);
        let (remote, port, _) = start(&mut site, 1, &[]);
        let mesh = mesh_of(&site, 0);
        tokio::time::timeout(LIMIT, mesh.mesh.connected()).await.unwrap();
        ByHand { site, mesh, _remote: remote, port }
    }

    /// Sends an order: the model, the kind, and what it says. Gives where the answer comes.
    async fn order(&self, command: &[&[u8]]) -> quinn::RecvStream {
        let (mut send, receive) = self.mesh.mesh.command(1).await.unwrap();
        send.write_all(&framed(&[&self.site.model_id[..], &command.concat()].concat())).await.unwrap();
        receive
    }

    /// Orders a bundle of set-up 2; job, name and number are one.
    async fn bundle(&self, job: u8, index: u8) -> quinn::RecvStream {
        self.order(&[&[1, job, 2], &[job; 16], &[index]]).await
    }

    /// Sets the cluster up: job 1, set-up 2.
    async fn set_up(&self) -> Arc<Party> {
        let version = u8::try_from(Versions::OURS.highest()).unwrap();
        let done = self.order(&[&[0, 1, 2, version]]).await;
        let party = set_up(&self.mesh.mesh, &self.site.parts[0], 1).await;
        assert_eq!(answer(done).await, [0, 0]);
        party
    }

    /// Waits until the remote has so many jobs.
    async fn has_jobs(&self, expected: usize) {
        let jobs = || tokio::task::block_in_place(|| status(self.port).jobs);
        let deadline = Instant::now() + LIMIT;
        while jobs() != expected {
            assert!(Instant::now() < deadline, "{} jobs", jobs());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

fn framed(message: &[u8]) -> Vec<u8> {
    [&u32::try_from(message.len()).unwrap().to_le_bytes()[..], message].concat()
}

/// An answer to an order.
async fn answer(mut stream: quinn::RecvStream) -> Vec<u8> {
    let answer = tokio::time::timeout(LIMIT, read(&mut stream)).await.unwrap();
    answer.unwrap()
}

/// A message, if one comes.
async fn read(stream: &mut quinn::RecvStream) -> Option<Vec<u8>> {
    let mut length = [0; 4];
    stream.read_exact(&mut length).await.ok()?;
    let mut message = vec![0; u32::from_le_bytes(length) as usize];
    stream.read_exact(&mut message).await.ok()?;
    Some(message)
}

/// A remote holds a gateway to what it said it makes: of more orders the others wait, and take nothing.
#[tokio::test(flavor = "multi_thread")]
async fn a_remote_makes_no_more_than_it_said() {
    let gateway = ByHand::start().await;
    assert_eq!(answer(gateway.order(&[&[12]]).await).await, [0, 2, MAKING as u8]);
    gateway.set_up().await;
    // In bundles this gateway takes no part.
    let mut orders = Vec::new();
    for number in 0..2 * MAKING as u8 {
        orders.push(gateway.bundle(10 + number, number).await);
    }
    gateway.has_jobs(MAKING).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(tokio::task::block_in_place(|| status(gateway.port).jobs), MAKING);
}

/// After one that failed, a remote finishes those beside it, and begins none of this set-up, whatever it is told.
#[tokio::test(flavor = "multi_thread")]
async fn a_remote_begins_nothing_more_after_one_that_failed() {
    let gateway = ByHand::start().await;
    let party = gateway.set_up().await;
    let (fails, beside) = (gateway.bundle(10, 0).await, gateway.bundle(11, 1).await);
    gateway.has_jobs(2).await;
    assert_eq!(answer(gateway.order(&[&[8, 10]]).await).await, [0, 0]);
    assert_eq!(answer(fails).await[0], 1);
    const OTHER_EPOCH: [u8; 2] = [1, 3];
    assert_eq!(answer(gateway.bundle(12, 2).await).await, OTHER_EPOCH);
    make(&gateway.mesh.mesh, &party, 11, [11; 16], 1).await;
    assert_eq!(answer(beside).await, [0, 0]);
    assert_eq!(answer(gateway.bundle(13, 3).await).await, OTHER_EPOCH);
    let status = tokio::task::block_in_place(|| status(gateway.port));
    assert_eq!((status.bundles.stored, status.jobs), (1, 0));
}

/// The number at the beginning, and what comes after it.
fn number(mut bytes: &[u8]) -> (u64, &[u8]) {
    let mut number = 0;
    for place in 0.. {
        let (&byte, rest) = bytes.split_first().unwrap();
        bytes = rest;
        number |= u64::from(byte & 0x7f) << (7 * place);
        if byte < 0x80 {
            break;
        }
    }
    (number, bytes)
}

/// Obeys as a release did that does not know how to say how many bundles it makes; ends when somebody asks for what it
/// should not be asked.
async fn obey_as_before(mesh: Mesh, mut commands: Receiver<Incoming>, part: PathBuf) {
    let party = Arc::new(Mutex::new(None));
    while let Some(mut stream) = commands.recv().await {
        let (mesh, part, party) = (mesh.clone(), part.clone(), party.clone());
        tokio::spawn(async move {
            let Some(order) = read(&mut stream.receive).await else { return };
            let reply: &[u8] = match (order[32], &order[33..]) {
                (0, order) => {
                    let made = set_up(&mesh, &part, number(order).0).await;
                    *party.lock().unwrap() = Some(made);
                    &[0, 0]
                }
                (1, order) => {
                    let (job, order) = number(order);
                    let (bundle, index) = number(order).1.split_at(16);
                    let party: Arc<Party> = party.lock().unwrap().clone().unwrap();
                    make(&mesh, &party, job, bundle.try_into().unwrap(), number(index).0).await;
                    &[0, 0]
                }
                // It has none of before.
                (10, _) => &[0, 1, 0],
                (2..12, _) => &[0, 0],
                // It cannot read this, and gives the stream up.
                _ => return,
            };
            stream.send.write_all(&framed(reply)).await.unwrap();
            stream.send.finish().unwrap();
        });
    }
}

/// With a server of an older release bundles are made one after the other, as it does, and none is leased.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_does_not_know_the_question_makes_one_at_a_time() {
    let mut site = Site::new(2);
    site.pool = Pool { size: 12, low: 11, making: MAKING, leases: 2, ..Pool::default() };
    site.admin = true;
    let Started { mesh, commands, mistakes: _mistakes } = mesh_of(&site, 1);
    site.listens(1, mesh.address().unwrap());
    let obeying = tokio::spawn(obey_as_before(mesh.clone(), commands, site.parts[1].clone()));
    let (gateway, port, _) = tokio::task::block_in_place(|| start(&mut site, 0, &[]));
    let (mut most, mut stored) = (0, 0);
    let deadline = Instant::now() + LIMIT;
    while stored < site.pool.size {
        let status = tokio::task::block_in_place(|| status(port));
        (most, stored) = (status.jobs.max(most), status.bundles.stored);
        assert!(Instant::now() < deadline && !obeying.is_finished(), "{stored} bundles");
    }
    assert_eq!(most, 1);
    gateway.wait_told("a server does not say how many it makes");
    gateway.wait_told("no bundles are leased: server 1 (s1) does not say that it allows any");
    mesh.close().await;
}
