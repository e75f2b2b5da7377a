//! Servers of different releases: what they speak is agreed on link by link and for the cluster; who speaks nothing that
//! another one does is told; and a cluster is upgraded server by server while a device keeps asking. There is one version
//! today, so servers only say that they speak another: `N + 1` is the same in bytes.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::common::admin::{becomes, metrics, start_all, status, sum};
use crate::common::asking::Asking;
use crate::common::links::in_place_of;
use crate::common::{LIMIT, Server, Site, digits};
use seco_node::config::Pool;
use seco_node::versions::Versions;

/// The present version, this and the next, the next.
fn ranges() -> [String; 3] {
    let now = Versions::OURS.highest();
    [format!("{now}"), format!("{now}-{}", now + 1), format!("{}", now + 1)]
}

/// A cluster whose servers are restarted as other releases.
struct Cluster {
    site: Site,
    servers: Vec<Server>,
    admin: Vec<SocketAddr>,
    device: SocketAddr,
    told: Vec<String>,
}

impl Cluster {
    /// Of three servers that all speak these.
    fn start(versions: &str, pool: Pool) -> Cluster {
        let mut site = Site::new(3);
        (site.pool, site.admin) = (pool, true);
        let (servers, admin, device) = start_all(&mut site, &["--versions", versions]);
        Cluster { site, servers, admin, device, told: vec![String::new(); 3] }
    }

    fn stop(&mut self, index: usize) {
        self.told[index] += &self.servers[index].stop();
    }

    /// The same server as another release. Does not wait until it is ready.
    fn upgrade(&mut self, index: usize, versions: &str) {
        self.stop(index);
        let mut config = self.site.config(index);
        config.listen.device = (index == 0).then_some(self.device);
        self.servers[index] = Server::start(&self.site.write(&config), &["--versions", versions]);
        self.admin[index] = self.servers[index].wait("sockets", |event| match event {
            seco_node::operation::events::Event::Listening { admin, .. } => admin,
            _ => None,
        });
    }

    /// Waits until a server has so many bundles.
    fn wait_stored(&self, index: usize, bundles: usize) {
        let deadline = Instant::now() + LIMIT;
        while status(self.admin[index]).bundles.stored != bundles {
            assert!(Instant::now() < deadline, "{:?}", status(self.admin[index]));
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Bundles destroyed unused since each server's start.
    fn discarded(&self) -> Vec<u64> {
        self.admin.iter().map(|admin| status(*admin).bundles.discarded).collect()
    }

    fn end(&mut self) {
        (0..3).for_each(|index| self.stop(index));
    }
}

/// From a release that speaks `N` to one that speaks both, then to one that speaks `N + 1` alone, one server after the
/// other. The device gets no error, and nothing but right answers.
#[tokio::test(flavor = "multi_thread")]
async fn servers_are_upgraded_one_after_the_other_while_a_device_keeps_asking() {
    let [old, both, new] = ranges();
    let mut cluster = Cluster::start(&old, Pool { size: 4, low: 3, ..Pool::default() });
    (0..3).for_each(|_| cluster.servers[0].wait_bundle());
    let asking = Asking::start(&cluster.site, cluster.site.deployment(cluster.device));
    asking.more();
    let (mut cluster, asking) = tokio::task::spawn_blocking(move || {
        for versions in [&both, &new] {
            for index in [2, 0, 1] {
                cluster.upgrade(index, versions);
                cluster.servers[index].wait_ready();
                asking.more();
            }
        }
        (cluster, asking)
    })
    .await
    .unwrap();
    asking.stop().await;
    cluster.end();
    for told in &cluster.told {
        assert!(
            !told.contains("of the protocol between servers")
                && !told.contains("ERROR")
                && !told.contains("panicked"),
            "{told}"
        );
        // Of its starts one finds all servers speaking the version of its bundles of before, which are kept.
        let kept = |line: &&str| line.contains("bundles of before") && !line.contains("ready=0");
        assert!(told.lines().any(|line| kept(&line)), "{told}");
    }
    let now = Versions::OURS.highest();
    let told = cluster.told.concat();
    assert!(
        told.contains(&format!("version={now}")) && told.contains(&format!("version={}", now + 1)),
        "{told}"
    );
}

/// A gateway that orders a set-up in a version that a remote does not speak is told so.
#[tokio::test(flavor = "multi_thread")]
async fn a_set_up_of_an_unspoken_version_is_refused() {
    let mut site = Site::new(2);
    let (_remote, _) = site.start(1, &[]);
    let address = site.config(0).peers[0].address.clone();
    let gateway =
        in_place_of(&site, 0, "127.0.0.1:0".parse().unwrap(), |index| address.clone().filter(|_| index == 1));
    tokio::time::timeout(LIMIT, gateway.mesh.connected()).await.unwrap();
    let (mut send, mut receive) = gateway.mesh.command(1).await.unwrap();
    // The model, then the first kind of order: job, epoch, version.
    let unspoken = u8::try_from(Versions::OURS.highest() + 1).unwrap();
    let order = [&site.model_id[..], &[0, 1, 2, unspoken]].concat();
    let framed = [&u32::try_from(order.len()).unwrap().to_le_bytes()[..], &order].concat();
    send.write_all(&framed).await.unwrap();
    // An error, and which.
    let mut reply = [0; 6];
    tokio::time::timeout(LIMIT, receive.read_exact(&mut reply)).await.unwrap().unwrap();
    assert_eq!(reply, [2, 0, 0, 0, 1, 17]);
}

/// What is made is of the highest version that all speak; what was made before is used as long as all speak that.
#[tokio::test(flavor = "multi_thread")]
async fn bundles_of_before_are_used_or_destroyed_everywhere_and_counted() {
    const POOL: usize = 6;
    let [old, both, new] = ranges();
    // None is made as long as one is left.
    let mut cluster = Cluster::start(&old, Pool { size: POOL, low: 0, ..Pool::default() });
    let mut cluster = tokio::task::spawn_blocking(move || {
        (0..3).for_each(|index| cluster.wait_stored(index, POOL));
        for index in 0..3 {
            cluster.upgrade(index, &both);
            cluster.servers[index].wait_ready();
        }
        becomes(cluster.admin[0], "/readyz", 200);
        cluster
    })
    .await
    .unwrap();
    assert_eq!(cluster.discarded(), [0; 3]);
    // They are used.
    let device = cluster.site.connect(cluster.device).await;
    let mut opened = device.open(&cluster.site.session(1), &cluster.site.sealing_keys()).await.unwrap();
    for digit in &digits()[..2] {
        assert_eq!(device.infer(&mut opened, digit).await.unwrap(), cluster.site.expected(digit));
    }
    tokio::task::spawn_blocking(move || {
        (0..3).for_each(|index| cluster.wait_stored(index, POOL - 2));
        // One server no longer speaks their version: all destroy them, and make others.
        cluster.upgrade(1, &new);
        cluster.servers[1].wait_ready();
        assert_eq!(cluster.discarded()[1], POOL as u64 - 2);
        (0..3).for_each(|index| cluster.wait_stored(index, POOL));
        assert_eq!(cluster.discarded(), [POOL as u64 - 2; 3]);
        let counted = metrics(cluster.admin[0]);
        assert_eq!(sum(&counted, "seco_bundles_discarded_total"), POOL as f64 - 2.0);
        // These are of the new version, which the others speak alone from now on.
        for index in [0, 2] {
            cluster.upgrade(index, &new);
            cluster.servers[index].wait_ready();
        }
        (0..3).for_each(|index| cluster.wait_stored(index, POOL));
        assert_eq!(cluster.discarded()[1], POOL as u64 - 2);
        cluster.end();
        let unspoken = format!("unspoken={}", POOL - 2);
        assert!(cluster.told[1].contains(&unspoken), "{}", cluster.told[1]);
        assert!(!cluster.told[0].contains("unspoken") && !cluster.told[2].contains("unspoken"));
    })
    .await
    .unwrap();
}

/// Who skips the step between has a server that speaks with one of the others and not with the other: all say what is to
/// be done, devices are told that one is away, and an upgrade mends it.
#[tokio::test(flavor = "multi_thread")]
async fn servers_without_a_common_version_say_so_and_wait() {
    let [old, both, new] = ranges();
    let (now, next) = (Versions::OURS.highest(), Versions::OURS.highest() + 1);
    let mut cluster = Cluster::start(&old, Pool { size: 2, low: 1, ..Pool::default() });
    tokio::task::spawn_blocking(move || {
        (0..3).for_each(|index| cluster.servers[index].wait_ready());
        cluster.upgrade(0, &both);
        becomes(cluster.admin[0], "/readyz", 200);
        cluster.upgrade(2, &new);
        // The gateway speaks with both, and they with each other not.
        let all = format!("server 0 (s0) versions {now} to {next}, server 1 (s1) version {now}, server 2 (s2) version {next}");
        let lines = [
            format!("is not served: no version of the protocol between servers is spoken by all ({all})"),
            format!(
                "server 2 (s2) speaks version {next} of the protocol between servers, this one version {now}: install a \
                 release that speaks version {next} on this server"
            ),
            format!(
                "server 1 (s1) speaks version {now} of the protocol between servers, this one version {next}: install a \
                 release that speaks version {next} on that server"
            ),
        ];
        cluster.servers.iter().zip(&lines).for_each(|(server, line)| server.wait_told(line));
        // Some attempts more, each of which would say it again.
        std::thread::sleep(Duration::from_secs(3));
        let reasons = becomes(cluster.admin[0], "/readyz", 503);
        assert!(reasons.contains(&all) && reasons.contains("upgrade server 1 (s1) first"), "{reasons}");
        assert!(becomes(cluster.admin[2], "/readyz", 503).contains("server 1 (s1)"));
        cluster.upgrade(1, &both);
        cluster.servers[1].wait_ready();
        cluster.servers[2].wait_ready();
        becomes(cluster.admin[0], "/readyz", 200);
        cluster.end();
        for (told, line) in cluster.told.iter().zip(&lines) {
            assert_eq!(told.matches(line.as_str()).count(), 1, "{line}: {told}");
        }
    })
    .await
    .unwrap();
}
