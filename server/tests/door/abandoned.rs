//! Devices that come, open sessions, and are not heard of again. Whatever they leave must not add up: 100,000 sessions
//! with `SECO_SLOW=1`, or so many as `SECO_ABANDONED` says.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use quinn::{ClientConfig, Endpoint, IdleTimeout, TransportConfig};
use seco_core::{Request, SEALED_LEN, ServerSealingKey};
use seco_node::config::{Limits, Pool};
use seco_sdk::{Client, Deployment, Transport};
use tokio::io::AsyncWriteExt as _;
use tokio::net::UdpSocket;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::{home, session, tcp};
use crate::common::admin::{metrics, start_all, sum};
use crate::common::usage::{Use, has_not_grown};
use crate::common::{Device, Site, digits, rng};

/// Sessions of a crowd, and crowds at the same time.
const CROWD: u32 = 50;
const CROWDS: usize = 16;
/// What ended connections is told to the remotes, and QUIC remembers them for a moment.
const MOMENT: Duration = Duration::from_millis(300);
/// What the allocator may keep, as much for 200 sessions as for 100,000. A gateway that forgets no session grows by 100
/// bytes for each, so by 10 MB. Remotes keep some megabytes from making bundles, in which such a growth could hide: they
/// say how many sessions they remember.
const MEMORY: u64 = 4 << 20;
/// Nothing is spent, so nothing is written.
const DISK: u64 = 4 << 10;

/// Where devices come from.
struct Place {
    site: Site,
    address: SocketAddr,
    keys: Vec<ServerSealingKey>,
    deployment: Deployment,
    /// All of them use one socket, as behind a household's router.
    endpoint: Endpoint,
    usual: ClientConfig,
    /// Ends a connection from which nothing comes for a second, at both ends and without a word.
    brief: ClientConfig,
}

impl Place {
    fn new(site: Site, address: SocketAddr) -> Place {
        let (usual, mut brief) = (site.quic(), site.quic());
        let mut transport = TransportConfig::default();
        transport.max_idle_timeout(Some(IdleTimeout::try_from(Duration::from_secs(1)).unwrap()));
        brief.transport_config(Arc::new(transport));
        let (keys, deployment) = (site.sealing_keys(), site.deployment(address));
        let endpoint = Endpoint::client(SocketAddr::new(home(1), 0)).unwrap();
        Place { site, address, keys, deployment, endpoint, usual, brief }
    }

    async fn connect(&self, config: &ClientConfig) -> Device {
        self.site.connect_with(&self.endpoint, config.clone(), self.address).await.unwrap()
    }

    async fn open(&self, device: &Device, number: u32) {
        device.open(&session(&self.site, number), &self.keys).await.unwrap();
    }

    /// So many sessions, from `first` on, and handshakes that come to nothing. All are left alone.
    async fn crowd(&self, first: u32) {
        let mut numbers = first..first + CROWD;
        // A connection for each, closed when the application ends.
        for number in numbers.by_ref().take(20) {
            let device = self.connect(&self.usual).await;
            self.open(&device, number).await;
        }
        // Many on one connection.
        let device = self.connect(&self.usual).await;
        for number in numbers.by_ref().take(20) {
            self.open(&device, number).await;
        }
        drop(device);
        // A device that is out of reach all of a sudden.
        let mut vanished = Vec::new();
        for number in numbers.by_ref().take(3) {
            let device = self.connect(&self.brief).await;
            self.open(&device, number).await;
            vanished.push(device);
        }
        // One that does not wait for the answer: the servers are in the middle of it.
        for number in numbers.by_ref().take(3) {
            let device = self.connect(&self.usual).await;
            self.asks_and_leaves(&device, number).await;
        }
        // Over TCP.
        for _ in numbers {
            let client = Client::builder(self.deployment.clone()).transport(Transport::Tcp);
            drop(client.connect().await.unwrap());
        }
        for number in 0..2 {
            // Left in the middle of the handshake, with a word and without.
            let connecting = self.endpoint.connect_with(self.usual.clone(), self.address, "seco").unwrap();
            let _ = timeout(Duration::from_millis(number), connecting).await;
            self.sends_one_packet().await;
            drop(tcp(home(1), self.address).await);
            let mut half = tcp(home(1), self.address).await;
            half.write_all(&[0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc]).await.unwrap();
        }
        for device in vanished {
            device.connection.closed().await;
        }
    }

    async fn asks_and_leaves(&self, device: &Device, number: u32) {
        let session = session(&self.site, number);
        let requester = session.start(&device.exporter(), &mut rng(1));
        let mut sealed = vec![0; self.keys.len() * SEALED_LEN];
        let request: Request<'_> =
            session.open_message(&requester, &self.keys, &mut rng(2), &mut sealed).unwrap();
        let mut buffer = vec![0; request.frame_bound()];
        let frame = request.encode_frame(&mut buffer).unwrap();
        let (mut send, _receive) = device.connection.open_bi().await.unwrap();
        send.write_all(frame).await.unwrap();
        send.finish().unwrap();
        // On its way, there, or being told to the other servers.
        sleep(Duration::from_millis(u64::from(number % 4))).await;
    }

    /// The first packet of a handshake arrives, and nobody is there for what the gateway answers.
    async fn sends_one_packet(&self) {
        let between = UdpSocket::bind(SocketAddr::new(home(1), 0)).await.unwrap();
        let there = between.local_addr().unwrap();
        let connecting = self.endpoint.connect_with(self.usual.clone(), there, "seco").unwrap();
        let mut packet = [0; 2048];
        let (length, _) = between.recv_from(&mut packet).await.unwrap();
        between.send_to(&packet[..length], self.address).await.unwrap();
        drop(connecting);
    }

    /// Crowds come and go until there were so many sessions.
    async fn crowds(self: &Arc<Self>, sessions: std::ops::Range<u32>, mut says: impl FnMut(u32)) {
        let (first, mut crowds) = (sessions.start, JoinSet::new());
        for start in sessions.step_by(CROWD as usize) {
            if crowds.len() == CROWDS {
                crowds.join_next().await.unwrap().unwrap();
            }
            let place = self.clone();
            crowds.spawn(async move { place.crowd(start).await });
            says(start - first);
        }
        while let Some(done) = crowds.join_next().await {
            done.unwrap();
        }
    }
}

/// Waits until the gateway has no connection with a device any more, and servers have given back what they needed for
/// bundles, which would hide what they keep for sessions. Gives how many sessions each remembers.
async fn settles(admin: &[SocketAddr], slow: bool) -> Vec<f64> {
    let start = Instant::now();
    let mut pages = Vec::new();
    while pages.is_empty() || sum(&pages[0], "seco_connections") > 0.0 {
        assert!(start.elapsed() < Duration::from_secs(60), "connections are left: {pages:?}");
        sleep(MOMENT).await;
        let admin = admin.to_vec();
        let read = move || admin.into_iter().map(metrics).collect();
        pages = tokio::task::spawn_blocking(read).await.unwrap();
    }
    sleep(if slow { Duration::from_secs(15) } else { MOMENT }).await;
    pages.iter().map(|page| sum(page, "seco_sessions")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_that_are_left_leave_nothing() {
    let slow = std::env::var_os("SECO_SLOW").is_some();
    let given = std::env::var("SECO_ABANDONED").ok().map(|number| number.parse().unwrap());
    let count: u32 = given.unwrap_or(if slow { 100_000 } else { 200 });
    // As many as are remembered usually.
    let remembered = if slow { Limits::default().sessions } else { 120 };
    let mut site = Site::new(3);
    site.admin = true;
    site.pool = Pool { size: 1, low: 0, ..Pool::default() };
    site.limits = Limits {
        connections: 4000,
        sessions: remembered,
        idle_s: 1,
        address_connections: 0,
        address_handshakes: 0,
        address_sessions: 0,
        ..site.limits
    };
    let (mut servers, ports, address) = start_all(&mut site, &[]);
    servers[0].wait_bundle();
    let states: Vec<_> = (0..3).map(|index| site.config(index).state).collect();
    let place = Arc::new(Place::new(site, address));
    // Until tables are as large as they get.
    let warm = u32::try_from(remembered).unwrap() * 5 / 4;
    place.crowds(0..warm, |_| ()).await;
    settles(&ports, slow).await;
    let before = Use::of_all(&servers, &states);
    let start = Instant::now();
    let says = |done| {
        if done % 10_000 == 0 {
            let seconds = start.elapsed().as_secs_f64();
            println!("{seconds:>6.1} s, {done} sessions: {:?}", Use::of_all(&servers, &states));
        }
    };
    let first = warm.next_multiple_of(CROWD);
    place.crowds(first..first + count, says).await;
    let seconds = start.elapsed().as_secs_f64();
    let known = settles(&ports, slow).await;
    let after = Use::of_all(&servers, &states);
    println!(
        "{count} sessions opened and left in {seconds:.1} s, {:.0} a second; {known:?} are remembered, before \
         {before:?}, after {after:?}",
        f64::from(count) / seconds
    );
    assert!(known.iter().all(|&known| known <= remembered as f64), "{known:?} sessions");
    has_not_grown(&before, &after, Use { memory: MEMORY, handles: 4, threads: 8, disk: DISK });
    // Nobody stands in the way of a device that stays.
    let device = place.site.connect(address).await;
    let mut opened = device.open(&place.site.session(1), &place.keys).await.unwrap();
    let digit = &digits()[0];
    assert_eq!(device.infer(&mut opened, digit).await.unwrap(), place.site.expected(digit));
}
