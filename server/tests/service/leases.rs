//! Inferences that are begun ahead of a connection's next request: they answer it exactly and no other, each bundle is used
//! or lost, and no order makes a server use one for two requests.

use std::collections::HashSet;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::common::admin::{admin, metrics, start, status, sum, text};
use crate::common::{Device, LIMIT, Opened, Server, Site, digits};
use seco_core::Request;
use seco_node::config::{Limits, Pool};
use seco_node::operation::events::Event;
use seco_node::operation::status::Bundles;

mod ages;
mod orders;

const SIZE: usize = 8;

/// What the ledger of a server says was spent, in order: bundle, and session, incarnation and number.
fn spent(state: &Path) -> Vec<([u8; 16], [u8; 40])> {
    const RECORD: usize = 65;
    let bytes = fs::read(state.join("ledger")).unwrap();
    let records = bytes[16..].chunks_exact(RECORD).filter(|record| record[0] == 3);
    records.map(|record| (record[1..17].try_into().unwrap(), record[17..57].try_into().unwrap())).collect()
}

/// The number in what a bundle was spent for.
fn counter((_, usage): &([u8; 16], [u8; 40])) -> u64 {
    u64::from_le_bytes(usage[32..].try_into().unwrap())
}

struct Cluster {
    site: Site,
    servers: Vec<Server>,
    admin: Vec<SocketAddr>,
    device: SocketAddr,
    states: Vec<PathBuf>,
}

impl Cluster {
    /// With a full pool, and as many leases as each server allows.
    fn start(leases: &[usize], limits: Limits) -> Cluster {
        Cluster::start_with(Site::new(leases.len()), leases, limits)
    }

    fn start_with(site: Site, leases: &[usize], limits: Limits) -> Cluster {
        Cluster::start_sized(site, SIZE, leases, limits)
    }

    fn start_sized(mut site: Site, size: usize, leases: &[usize], limits: Limits) -> Cluster {
        site.pool = Pool { size, low: size - 1, ..Pool::default() };
        (site.limits, site.admin) = (limits, true);
        let (mut servers, mut admin, mut device) = (Vec::new(), Vec::new(), None);
        for (index, &leases) in leases.iter().enumerate().rev() {
            site.pool.leases = leases;
            let (server, port, devices) = start(&mut site, index, &[]);
            servers.insert(0, server);
            admin.insert(0, port);
            device = devices;
        }
        let states = (0..servers.len()).map(|index| site.config(index).state).collect();
        let cluster = Cluster { site, servers, admin, device: device.unwrap(), states };
        cluster.wait_ready(size);
        cluster
    }

    fn wait(&self, what: &str, holds: impl Fn(&Self) -> bool) {
        let deadline = Instant::now() + LIMIT;
        while !holds(self) {
            let bundles: Vec<Bundles> = (0..self.admin.len()).map(|index| self.bundles(index)).collect();
            assert!(Instant::now() < deadline, "{what}: {bundles:?}");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn wait_ready(&self, bundles: usize) {
        self.wait("a full pool", |it| status(it.admin[0]).pool.is_some_and(|pool| pool.ready >= bundles));
    }

    /// Waits for one server, where another does not answer.
    fn wait_at(&self, index: usize, holds: impl Fn(&Bundles) -> bool) {
        let deadline = Instant::now() + LIMIT;
        while !holds(&self.bundles(index)) {
            assert!(Instant::now() < deadline, "{:?}", self.bundles(index));
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn bundles(&self, index: usize) -> Bundles {
        status(self.admin[index]).bundles
    }

    /// Waits until every server has so many leased, used and lost.
    fn wait_leases(&self, leased: usize, used: u64, lost: u64) {
        self.wait(&format!("{leased} leased, {used} used, {lost} lost"), |it| {
            (0..it.admin.len()).all(|index| {
                let Bundles { leased: held, leases_used, leases_lost, .. } = it.bundles(index);
                (held, leases_used, leases_lost) == (leased, used, lost)
            })
        });
    }

    async fn ask(&self, device: &Device, opened: &mut Opened, digit: usize) {
        // There is one to spare where a pool is full.
        self.wait_ready(SIZE);
        let digit = &digits()[digit];
        assert_eq!(device.infer(opened, digit).await.unwrap(), self.site.expected(digit));
    }

    async fn open(&self, device: &Device, seed: u8) -> Opened {
        device.open(&self.site.session(seed), &self.site.sealing_keys()).await.unwrap()
    }

    /// No bundle and no request is twice in a ledger; gives what each tells.
    fn ledgers(&self) -> Vec<HashSet<([u8; 16], [u8; 40])>> {
        let unique = |state: &PathBuf| {
            let spent = spent(state);
            assert_eq!(spent.iter().map(|(bundle, _)| bundle).collect::<HashSet<_>>().len(), spent.len());
            assert_eq!(spent.iter().map(|(_, usage)| usage).collect::<HashSet<_>>().len(), spent.len());
            spent.into_iter().collect()
        };
        self.states.iter().map(unique).collect()
    }

    /// The same, where all ledgers tell the same; gives the numbers of the requests.
    fn check_ledgers(&self) -> Vec<u64> {
        let ledgers = self.ledgers();
        assert!(ledgers.windows(2).all(|two| two[0] == two[1]));
        let mut counters: Vec<u64> = ledgers[0].iter().map(counter).collect();
        counters.sort_unstable();
        counters
    }

    fn stop(&mut self) {
        for server in &mut self.servers {
            let told = server.stop();
            assert!(!told.contains("panicked") && !told.contains("ERROR"), "{told}");
        }
    }
}

fn slowly() -> bool {
    std::env::var_os("SECO_SLOW").is_some()
}

/// A cluster, and a device in rhythm: a bundle is leased to it.
async fn leased(leases: &[usize]) -> (Cluster, Device, Opened) {
    let cluster = Cluster::start(leases, Limits::default());
    let device = cluster.site.connect(cluster.device).await;
    let mut opened = cluster.open(&device, 1).await;
    cluster.ask(&device, &mut opened, 0).await;
    cluster.ask(&device, &mut opened, 1).await;
    cluster.wait_leases(1, 0, 0);
    (cluster, device, opened)
}

/// From the third request on a connection each finds its bundle spent; the last one is lost with the connection.
async fn answers_are_exact(servers: usize) {
    let mut cluster = Cluster::start(&vec![2; servers], Limits::default());
    let device = cluster.site.connect(cluster.device).await;
    let mut opened = cluster.open(&device, 1).await;
    for request in 0..5 {
        cluster.ask(&device, &mut opened, request).await;
        cluster.wait_leases(request.min(1), request.saturating_sub(1) as u64, 0);
    }
    // One for each connection, and as many as may be; the third device gets none, and its answers.
    let (other, third) =
        (cluster.site.connect(cluster.device).await, cluster.site.connect(cluster.device).await);
    let (mut two, mut three) = (cluster.open(&other, 2).await, cluster.open(&third, 3).await);
    cluster.ask(&other, &mut two, 5).await;
    cluster.ask(&other, &mut two, 6).await;
    cluster.wait_leases(2, 3, 0);
    for digit in 7..10 {
        cluster.ask(&third, &mut three, digit).await;
    }
    cluster.wait_leases(2, 3, 0);
    device.connection.close(0_u32.into(), b"");
    other.connection.close(0_u32.into(), b"");
    cluster.wait_leases(0, 3, 2);
    let counted = metrics(cluster.admin[0]);
    let counted = ["bundles_leased", "leases_used_total", "leases_lost_total", "bundles_spent_total"]
        .map(|name| sum(&counted, &format!("seco_{name}")));
    assert_eq!(counted, [0.0, 3.0, 2.0, 12.0]);
    cluster.stop();
    assert_eq!(cluster.check_ledgers(), [0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 4, 5]);
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_with_leased_bundles_are_exact_and_the_last_one_is_lost() {
    answers_are_exact(3).await;
    // The protocol's own tests have all of them.
    if slowly() {
        answers_are_exact(2).await;
        answers_are_exact(4).await;
    }
}

/// A request that is named outright; what it is answered with.
async fn named(device: &Device, handle: u32, counter: u64) -> String {
    let messages = device.ask(&Request::Infer { handle, counter, input: &digits()[0] }).await;
    format!("{:?}", seco_core::Response::decode(messages.last().unwrap()).unwrap())
}

/// A device that leaves a number out loses what was leased for it, which it is told once, and is leased nothing before
/// another two requests were answered.
#[tokio::test(flavor = "multi_thread")]
async fn a_lease_is_for_one_number_and_is_lost_without_it() {
    let (mut cluster, device, mut opened) = leased(&[4; 2]).await;
    // A number that is given up before it is sent: its lease is lost when a few later ones were answered.
    let given_up = opened.requester.request(&mut digits()[0].clone()).unwrap().counter();
    for digit in 0..3 {
        cluster.ask(&device, &mut opened, digit).await;
        tokio::time::sleep(Duration::from_millis(100)).await;
        // By fewer where they took long.
        if cluster.bundles(0).leases_lost == 1 {
            break;
        }
    }
    cluster.wait_leases(0, 0, 1);
    cluster.ask(&device, &mut opened, 3).await;
    cluster.wait_leases(1, 0, 1);
    cluster.ask(&device, &mut opened, 4).await;
    cluster.wait_leases(1, 1, 1);
    let told = named(&device, opened.handle, given_up).await;
    assert!(told.contains("Unavailable"), "{told}");
    let told = named(&device, opened.handle, given_up).await;
    assert!(told.contains("CounterUsed"), "{told}");
    cluster.stop();
    cluster.check_ledgers();
}

/// There are no more than each server allows for itself, and a gateway that wants more says so.
#[tokio::test(flavor = "multi_thread")]
async fn no_more_are_leased_than_every_server_allows() {
    let mut cluster = Cluster::start(&[4, 1], Limits::default());
    let (one, two) = (cluster.site.connect(cluster.device).await, cluster.site.connect(cluster.device).await);
    let (mut first, mut second) = (cluster.open(&one, 1).await, cluster.open(&two, 2).await);
    cluster.ask(&one, &mut first, 0).await;
    cluster.ask(&one, &mut first, 1).await;
    cluster.wait_leases(1, 0, 0);
    for digit in 0..3 {
        cluster.ask(&two, &mut second, digit).await;
    }
    cluster.wait_leases(1, 0, 0);
    one.connection.close(0_u32.into(), b"");
    cluster.wait_leases(0, 0, 1);
    cluster.ask(&two, &mut second, 3).await;
    cluster.wait_leases(1, 0, 1);
    let told = cluster.servers[0].stop();
    assert!(told.contains("at most 1 bundles are leased at a time, not 4"), "{told}");

    let mut cluster = Cluster::start(&[4, 0], Limits::default());
    let device = cluster.site.connect(cluster.device).await;
    let mut opened = cluster.open(&device, 1).await;
    for digit in 0..3 {
        cluster.ask(&device, &mut opened, digit).await;
    }
    cluster.wait_leases(0, 0, 0);
    cluster.stop();
    assert_eq!(cluster.check_ledgers(), [0, 1, 2]);
}

/// A remote frees the place of a lease a little after it answered: where the limit is reached the gateway orders no other
/// before it has, so nobody is refused, neither who asks without a pause nor who is leased what another left.
#[tokio::test(flavor = "multi_thread")]
async fn where_the_limit_is_reached_nobody_is_refused() {
    const PLENTY: usize = 32;
    let rounds = if slowly() { 20 } else { 2 };
    let mut cluster = Cluster::start_sized(Site::new(2), PLENTY, &[1, 1], Limits::default());
    let device = cluster.site.connect(cluster.device).await;
    let mut opened = cluster.open(&device, 1).await;
    let digits = digits();
    for round in 0..rounds {
        cluster.wait_ready(PLENTY);
        let stays = async {
            for digit in &digits[..10] {
                let answer = device.infer(&mut opened, digit).await;
                assert_eq!(answer.unwrap(), cluster.site.expected(digit), "round {round}");
            }
        };
        let leaves = async {
            // Alone for a while, then against another.
            if round % 2 == 0 {
                return;
            }
            for seed in 10..13 {
                let other = cluster.site.connect(cluster.device).await;
                let mut opened = cluster.open(&other, seed + 3 * round).await;
                for digit in &digits[..2] {
                    let answer = other.infer(&mut opened, digit).await;
                    assert_eq!(answer.unwrap(), cluster.site.expected(digit), "round {round}");
                }
                other.connection.close(0_u32.into(), b"");
            }
        };
        tokio::join!(stays, leaves);
    }
    let Bundles { leases_used, .. } = cluster.bundles(0);
    assert!(leases_used > 0, "there were none");
    cluster.stop();
    // Of a connection that ends while its lease is made not all servers need have spent the bundle: it is destroyed then.
    cluster.ledgers();
}

/// Requests that do not wait for each other, on one connection: none is refused for the lease of another.
#[tokio::test(flavor = "multi_thread")]
async fn requests_that_overtake_each_other_are_answered() {
    let mut cluster = Cluster::start(&[4; 2], Limits::default());
    let device = cluster.site.connect(cluster.device).await;
    let mut opened = cluster.open(&device, 1).await;
    let digits = digits();
    // At once: the lease is still being made.
    for digit in &digits[..3] {
        assert_eq!(device.infer(&mut opened, digit).await.unwrap(), cluster.site.expected(digit));
    }
    let mut asked = 0;
    for round in 0..6_u64 {
        cluster.wait_ready(SIZE);
        let mut requests = Vec::new();
        for digit in digits.iter().cycle().skip(asked).take(3) {
            let mut input = digit.clone();
            requests.push((opened.requester.request(&mut input).unwrap(), input, digit));
        }
        asked += requests.len();
        // The one with a lease comes first, or late.
        if round % 2 == 1 {
            requests.rotate_left(1);
        }
        let ask = async |place: usize| {
            tokio::time::sleep(Duration::from_millis(place as u64 * round * 2)).await;
            let (pending, input, _) = &requests[place];
            device.ask(&Request::Infer { handle: opened.handle, counter: pending.counter(), input }).await
        };
        let (a, b, c) = tokio::join!(ask(0), ask(1), ask(2));
        for ((pending, _, digit), messages) in requests.into_iter().zip([a, b, c]) {
            let answer = opened.read(pending, messages.last().unwrap());
            assert_eq!(answer.unwrap(), cluster.site.expected(digit), "round {round}");
        }
    }
    assert!(cluster.bundles(0).leases_used > 0, "{:?}", cluster.bundles(0));
    cluster.stop();
    cluster.check_ledgers();
}

/// A model that is removed, at a remote or at the gateway: nobody waits for its leases.
#[tokio::test(flavor = "multi_thread")]
async fn a_lease_goes_with_its_model() {
    let mut site = Site::new(2);
    site.models = vec![site.split_more("b", 24.0), site.split_more("c", 40.0)];
    site.models
        .iter_mut()
        .for_each(|more| more.pool = Pool { size: 4, low: 3, leases: 2, ..Pool::default() });
    let mut cluster = Cluster::start_with(site, &[2; 2], Limits::default());
    let device = cluster.site.connect(cluster.device).await;
    for (model, removed_at) in [(0, 1), (1, 0)] {
        let more = &cluster.site.models[model];
        let (session, name) = (more.session(&cluster.site, 1 + model as u8), more.name.clone());
        let mut opened = device.open(&session, &cluster.site.sealing_keys()).await.unwrap();
        let digit = &digits()[model];
        let full =
            |it: &Cluster| status(it.admin[0]).models[1].pool.as_ref().is_some_and(|pool| pool.ready == 4);
        for _ in 0..2 {
            cluster.wait("a full pool", full);
            assert_eq!(device.infer(&mut opened, digit).await.unwrap(), more.expected(digit));
        }
        cluster.wait("a lease", |it| (0..2).all(|index| it.bundles(index).leased == 1));
        let start = Instant::now();
        let port = cluster.admin[removed_at];
        let told = tokio::task::spawn_blocking(move || admin(port, &["models", "remove", &name]));
        let told = text(&told.await.unwrap().stdout);
        assert!(told.contains("was removed"), "{told}");
        assert!(start.elapsed() < Duration::from_secs(30), "waited for the lease");
        cluster.wait("no lease", |it| (0..2).all(|index| it.bundles(index).leased == 0));
        let refused = device.infer(&mut opened, digit).await.unwrap_err();
        let gone = if removed_at == 0 { "UnknownSession" } else { "Unavailable" };
        assert!(refused.contains(gone), "{refused}");
        // The other server lets go of it too.
        let port = cluster.admin[1 - removed_at];
        let name = more.name.clone();
        tokio::task::spawn_blocking(move || admin(port, &["models", "remove", &name])).await.unwrap();
    }
    let mut opened = cluster.open(&device, 9).await;
    cluster.ask(&device, &mut opened, 0).await;
    cluster.stop();
    cluster.check_ledgers();
}

/// A link that is lost for a while and comes back, with both servers as they were: its lease is lost, which the device is
/// told, and the next request is answered.
#[tokio::test(flavor = "multi_thread")]
async fn a_lease_ends_with_its_link() {
    // A server that stands still is missed after eight seconds.
    if !slowly() {
        return;
    }
    let (mut cluster, device, mut opened) = leased(&[2; 2]).await;
    cluster.servers[1].signal("-STOP");
    cluster.wait_at(0, |bundles| bundles.leases_lost == 1);
    cluster.servers[1].signal("-CONT");
    cluster.wait_leases(0, 0, 1);
    cluster.wait("all servers", |it| (0..2).all(|index| status(it.admin[index]).reasons.is_empty()));
    let refused = device.infer(&mut opened, &digits()[1]).await.unwrap_err();
    assert!(refused.contains("Unavailable"), "{refused}");
    for digit in 0..3 {
        cluster.ask(&device, &mut opened, digit).await;
    }
    cluster.wait("a lease", |it| it.bundles(0).leases_used > 0);
    cluster.stop();
    assert_eq!(cluster.check_ledgers()[..6], [0, 1, 2, 3, 4, 5]);
}

/// Servers that are killed between a lease and its request: it stays spent and is not used, whichever they are.
#[tokio::test(flavor = "multi_thread")]
async fn a_lease_does_not_outlive_a_server() {
    let mut cluster = Cluster::start(&[2; 3], Limits::default());
    for (seed, killed) in (10..).zip([&[1][..], &[0], &[0, 1, 2]]) {
        let device = cluster.site.connect(cluster.device).await;
        let mut opened = cluster.open(&device, seed).await;
        cluster.ask(&device, &mut opened, 0).await;
        cluster.ask(&device, &mut opened, 1).await;
        cluster.wait("a lease", |it| (0..3).all(|index| it.bundles(index).leased == 1));
        for &index in killed {
            cluster.servers[index].signal("-KILL");
            let _ = cluster.servers[index].process.wait();
        }
        for &index in killed.iter().rev() {
            let mut config = cluster.site.config(index);
            config.listen.device = (index == 0).then_some(cluster.device);
            cluster.servers[index] = Server::start(&cluster.site.write(&config), &[]);
            cluster.admin[index] = cluster.servers[index].wait("sockets", |event| match event {
                Event::Listening { admin, .. } => admin,
                _ => None,
            });
        }
        cluster.wait("all servers", |it| (0..3).all(|index| status(it.admin[index]).reasons.is_empty()));
        // A connection that stands asks with the number of its lease: another server does not have it any more.
        if killed == [1] {
            let refused = device.infer(&mut opened, &digits()[1]).await.unwrap_err();
            assert!(refused.contains("UnknownSession"), "{refused}");
            device.connection.close(0_u32.into(), b"");
        }
        cluster.wait("no lease", |it| (0..3).all(|index| it.bundles(index).leased == 0));
    }
    let device = cluster.site.connect(cluster.device).await;
    let mut opened = cluster.open(&device, 20).await;
    cluster.ask(&device, &mut opened, 1).await;
    cluster.ask(&device, &mut opened, 2).await;
    cluster.wait("a lease", |it| (0..3).all(|index| it.bundles(index).leased == 1));
    cluster.ask(&device, &mut opened, 3).await;
    let another = |held: Bundles| (held.leased, held.leases_used) == (1, 1);
    cluster.wait("another", |it| (0..3).all(|index| another(it.bundles(index))));
    cluster.stop();
    assert_eq!(cluster.check_ledgers(), [0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3]);
}
