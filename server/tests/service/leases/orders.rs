//! Leases at a remote that is real, ordered by a gateway that is the test's: what no gateway would do.

use std::time::{Duration, Instant};

use seco_core::message::sealed_keys;
use seco_core::{KeyId, Request};
use seco_node::config::Limits;
use seco_node::mesh::{Clock, QuicChannel, Started};
use seco_node::operation::status::Bundles;
use seco_protocol::Channel as _;
use sha2::{Digest as _, Sha256};

use super::{Cluster, SIZE, counter, spent};
use crate::common::admin::status;
use crate::common::links::in_place_of;
use crate::common::{LIMIT, Site, rng};

/// A gateway in the hands of the test, and the number of its last job.
pub(super) struct Gateway {
    mesh: Started,
    model: [u8; 32],
    job: u8,
    /// For answers to its orders.
    pub patience: Duration,
}

/// An inference that was begun ahead at a remote, and waits; and the answer to its order.
pub(super) struct Waiting {
    channel: QuicChannel,
    pub ordered: tokio::task::JoinHandle<Vec<u8>>,
}

impl Waiting {
    /// The gateway gives it up.
    async fn give_up(self) -> Vec<u8> {
        drop(self.channel.finish());
        self.ordered.await.unwrap()
    }
}

/// Answers of a remote: done, or a failure by its number.
const DONE: [u8; 2] = [0, 0];
const GATEWAY_GONE: [u8; 3] = [1, 0, 0];
pub(super) const GATEWAY_LATE: [u8; 3] = [1, 1, 0];
const GATEWAY_MISBEHAVED: [u8; 3] = [1, 2, 0];
const OTHER_GONE: [u8; 3] = [1, 0, 2];
const OTHER_MISBEHAVED: [u8; 3] = [1, 2, 2];
pub(super) const STOPPING: [u8; 2] = [1, 4];
const UNKNOWN_BUNDLE: [u8; 2] = [1, 5];
const COUNTER_USED: [u8; 2] = [1, 7];
const NO_LEASE: [u8; 2] = [1, 18];
/// Kinds of orders.
const OPEN: u8 = 2;
const INFER: u8 = 6;
const CANCEL: u8 = 8;
const INVENTORY: u8 = 10;
const LEASES: u8 = 13;
pub(super) const LEASE: u8 = 14;

/// The links of a server that ends: the test takes its place. Remote 1 has noticed both: a lease ends with a link that is
/// replaced.
fn in_place(cluster: &mut Cluster, me: usize) -> Started {
    let told = cluster.servers[me].stop();
    assert!(!told.contains("panicked"), "{told}");
    let linked =
        |cluster: &Cluster| status(cluster.admin[1]).peers.iter().any(|it| it.index == me && it.connected);
    let wait = |cluster: &Cluster, is_linked: bool| {
        let deadline = Instant::now() + LIMIT;
        while linked(cluster) != is_linked {
            assert!(Instant::now() < deadline, "linked with {me}: {}", !is_linked);
            std::thread::sleep(Duration::from_millis(10));
        }
    };
    wait(cluster, false);
    let site = &cluster.site;
    let mesh = |index: usize| site.config(index).listen.mesh;
    let started = in_place_of(site, me, mesh(me), |index| Some(mesh(index).to_string()));
    wait(cluster, true);
    started
}

/// A session, and the incarnation of a connection, that a remote knows.
pub(super) struct Known([u8; 32]);

impl Known {
    /// A request's name.
    pub fn usage(&self, counter: u8) -> [u8; 33] {
        [&self.0[..], &[counter]].concat().try_into().unwrap()
    }
}

/// What a server says of a bundle that it spent for a request.
fn confirmation(bundle: &[u8; 16], usage: &[u8; 33]) -> Vec<u8> {
    let (identity, counter) = usage.split_at(32);
    Sha256::new()
        .chain_update(b"seco spent v1")
        .chain_update(bundle)
        .chain_update(identity)
        .chain_update(u64::from(counter[0]).to_le_bytes())
        .finalize()
        .to_vec()
}

/// Receives from the remote; the channel again, and what came.
async fn receive(mut channel: QuicChannel, max: usize) -> (QuicChannel, Vec<u8>) {
    tokio::task::spawn_blocking(move || {
        let received = channel.recv(1, max).unwrap();
        (channel, received)
    })
    .await
    .unwrap()
}

impl Gateway {
    /// Once it is connected, with the bundles that the remote has.
    pub async fn new(cluster: &mut Cluster) -> (Gateway, Vec<[u8; 16]>) {
        let gateway =
            Gateway { mesh: in_place(cluster, 0), model: cluster.site.model_id, job: 0, patience: LIMIT };
        tokio::time::timeout(LIMIT, gateway.mesh.mesh.connected()).await.unwrap();
        let told = gateway.ordered(&[INVENTORY]).await;
        assert_eq!((&told[..2], usize::from(told[2])), (&[0, 1][..], SIZE));
        (gateway, told[3..].chunks(16).map(|id| id.try_into().unwrap()).collect())
    }

    /// Opens a session on a device's connection.
    pub async fn open(&self, site: &Site) -> Known {
        let (session, sealing) = (site.session(1), site.sealing_keys());
        let requester = session.start(&[7; 32], &mut rng(200));
        let mut buffer = vec![0; sealing.len() * seco_core::SEALED_LEN];
        let request = session.open_message(&requester, &sealing, &mut rng(201), &mut buffer).unwrap();
        let Request::Open { sealed, nonce, .. } = request else { panic!() };
        let blobs = sealed_keys(sealed).unwrap();
        let ids: Vec<u8> = blobs.iter().flat_map(|blob| KeyId::of(blob).0).collect();
        let (servers, length) =
            ([sealing.len() as u8], [blobs[1].len() as u8 | 0x80, (blobs[1].len() >> 7) as u8]);
        let (id, model) = (session.id().0, &self.model[..]);
        let open =
            [&[OPEN], &id[..], model, &nonce, &[7; 32], &servers, &ids, &length, &blobs[1][..]].concat();
        assert_eq!(self.ordered(&open).await, DONE);
        Known([id, requester.incarnation().id().0].concat().try_into().unwrap())
    }

    /// One order; gives the answer, or nothing where there is none.
    fn order(&self, order: &[u8]) -> tokio::task::JoinHandle<Vec<u8>> {
        let (mesh, patience) = (self.mesh.mesh.clone(), self.patience);
        let order = [&self.model[..], order].concat();
        tokio::spawn(async move {
            let (mut send, mut receive) = mesh.command(1).await.unwrap();
            let framed = [&u32::try_from(order.len()).unwrap().to_le_bytes()[..], &order].concat();
            send.write_all(&framed).await.unwrap();
            let _ = send.finish();
            let answer = tokio::time::timeout(patience, receive.read_to_end(1 << 20)).await.unwrap();
            answer.unwrap_or_default().get(4..).unwrap_or_default().to_vec()
        })
    }

    async fn ordered(&self, order: &[u8]) -> Vec<u8> {
        self.order(order).await.unwrap()
    }

    /// A job about a bundle in which `said` is said to have been spent.
    pub async fn job(
        &mut self,
        kind: u8,
        bundle: &[u8; 16],
        usage: &[u8; 33],
        said: Option<Vec<u8>>,
    ) -> Waiting {
        self.job += 1;
        let clock = Clock::new(LIMIT);
        let mut channel = self.mesh.mesh.channel(u64::from(self.job), 0, 0, &clock).await.unwrap();
        said.into_iter().for_each(|said| channel.send(1, said).unwrap());
        let ordered = self.order(&[&[kind, self.job][..], bundle, usage].concat());
        Waiting { channel, ordered }
    }

    /// A job that the remote does not take up; its answer.
    async fn refused(&mut self, kind: u8, bundle: &[u8; 16], usage: &[u8; 33]) -> Vec<u8> {
        let said = confirmation(bundle, usage);
        self.job(kind, bundle, usage, Some(said)).await.ordered.await.unwrap()
    }

    /// A lease that is made: the remote has confirmed and published its pad, `input_len` bytes.
    pub async fn lease(&mut self, bundle: &[u8; 16], usage: &[u8; 33], input_len: usize) -> Waiting {
        let said = confirmation(bundle, usage);
        let Waiting { channel, ordered } = self.job(LEASE, bundle, usage, Some(said.clone())).await;
        let (channel, confirmed) = receive(channel, 32).await;
        assert_eq!(confirmed, said);
        let (channel, published) = receive(channel, 1 << 20).await;
        assert_eq!(published.len(), input_len);
        Waiting { channel, ordered }
    }
}

/// Orders that a gateway never gives, of a remote that is real: no bundle is spent for two requests, no request has two
/// bundles, and a lease that is held is used by nothing but its own job. A remote holds as many as its own setting says.
#[tokio::test(flavor = "multi_thread")]
async fn no_order_makes_a_server_use_a_lease_for_anything_else() {
    let mut cluster = Cluster::start(&[2; 2], Limits::default());
    let (mut gateway, bundles) = Gateway::new(&mut cluster).await;
    let known = gateway.open(&cluster.site).await;
    let usage = |counter| known.usage(counter);
    let input_len = cluster.site.info().input_len;
    let counts = || {
        let Bundles { leased, leases_used, leases_lost, .. } = cluster.bundles(1);
        (leased, leases_used, leases_lost)
    };

    assert_eq!(gateway.ordered(&[LEASES]).await, [0, 3, 2], "as its own setting says");
    let first = gateway.lease(&bundles[0], &usage(5), input_len).await;
    // The same again, another bundle for it, and it for another request.
    assert_eq!(gateway.refused(LEASE, &bundles[0], &usage(5)).await, COUNTER_USED);
    assert_eq!(gateway.refused(LEASE, &bundles[1], &usage(5)).await, COUNTER_USED);
    assert_eq!(gateway.refused(INFER, &bundles[1], &usage(5)).await, COUNTER_USED);
    assert_eq!(gateway.refused(LEASE, &bundles[0], &usage(6)).await, UNKNOWN_BUNDLE);
    assert_eq!(gateway.refused(INFER, &bundles[0], &usage(7)).await, UNKNOWN_BUNDLE);
    // No more than it allows. Where it has no room nothing is spent, and no number used.
    let second = gateway.lease(&bundles[1], &usage(8), input_len).await;
    assert_eq!(gateway.refused(LEASE, &bundles[2], &usage(9)).await, NO_LEASE);
    assert_eq!(counts(), (2, 0, 0));
    assert_eq!(second.give_up().await, GATEWAY_GONE);
    let third = gateway.lease(&bundles[2], &usage(9), input_len).await;
    // Its request comes: the remote goes on, with what it has of the input. The gateway leaves it there.
    let Waiting { mut channel, ordered } = third;
    channel.send(1, vec![0; input_len]).unwrap();
    let (channel, share) = receive(channel, 1 << 20).await;
    assert!(!share.is_empty());
    drop(channel.finish());
    assert_eq!(ordered.await.unwrap(), GATEWAY_GONE);
    assert_eq!(counts(), (1, 0, 2));
    // A gateway that confirms something else, or nothing and gives the job up.
    let said = Some(confirmation(&bundles[3], &usage(11)));
    let other = gateway.job(LEASE, &bundles[3], &usage(10), said).await;
    assert_eq!(other.ordered.await.unwrap(), GATEWAY_MISBEHAVED);
    let silent = gateway.job(LEASE, &bundles[4], &usage(12), None).await;
    cluster.wait_at(1, |bundles| bundles.leased == 2);
    assert_eq!(gateway.ordered(&[CANCEL, gateway.job]).await, DONE);
    assert_eq!(silent.ordered.await.unwrap(), GATEWAY_GONE);
    assert_eq!(counts(), (1, 0, 4));
    // A kind of order that no release knows yet ends unanswered, and its stream alone.
    assert_eq!(gateway.ordered(&[LEASE + 1]).await, [0; 0]);
    // A server that ends waits for no request that may not come.
    let start = Instant::now();
    cluster.servers[1].signal("-TERM");
    let told = first.ordered.await.unwrap();
    // It may be gone before it is heard.
    assert!(told.is_empty() || told == STOPPING, "{told:?}");
    assert!(cluster.servers[1].ended(LIMIT).success() && start.elapsed() < Duration::from_secs(20));
    let mut numbers: Vec<u64> = spent(&cluster.states[1]).iter().map(counter).collect();
    numbers.sort_unstable();
    assert_eq!(numbers, [5, 8, 9, 10, 12]);
}

/// The test has the places of the gateway and of another remote: where that one fails before the request comes, or while it
/// does, the remote says so at once, and of whom.
#[tokio::test(flavor = "multi_thread")]
async fn a_lease_fails_with_another_remote() {
    let mut cluster = Cluster::start(&[2; 3], Limits::default());
    let other = in_place(&mut cluster, 2);
    let (mut gateway, bundles) = Gateway::new(&mut cluster).await;
    tokio::time::timeout(LIMIT, other.mesh.connected()).await.unwrap();
    let known = gateway.open(&cluster.site).await;
    let input_len = cluster.site.info().input_len;
    let mut made = Vec::new();
    for counter in 0..2 {
        let (bundle, usage) = (&bundles[usize::from(counter)], known.usage(counter));
        let said = confirmation(bundle, &usage);
        let Waiting { channel, ordered } = gateway.job(LEASE, bundle, &usage, Some(said.clone())).await;
        let job = u64::from(gateway.job);
        let mut others = other.mesh.channel(job, 0, 0, &Clock::new(LIMIT)).await.unwrap();
        others.send(1, said).unwrap();
        let (channel, _) = receive(channel, 32).await;
        let (channel, published) = receive(channel, 1 << 20).await;
        assert_eq!(published.len(), input_len);
        made.push((channel, others, ordered));
    }
    // It publishes too little, which is not the gateway's fault.
    let (mut channel, mut others, ordered) = made.pop().unwrap();
    others.send(1, vec![0; input_len - 1]).unwrap();
    channel.send(1, vec![0; input_len]).unwrap();
    assert_eq!(ordered.await.unwrap(), OTHER_MISBEHAVED);
    // Its link is lost, and nobody asked yet: the request would fail.
    other.mesh.close().await;
    let (_channel, _others, ordered) = made.pop().unwrap();
    let told = tokio::time::timeout(Duration::from_secs(20), ordered).await;
    assert_eq!(told.expect("the lease outlives the link").unwrap(), OTHER_GONE);
    cluster.wait_at(1, |bundles| (bundles.leased, bundles.leases_lost) == (0, 2));
}
