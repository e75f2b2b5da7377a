//! Several bundles made at the same time: on clusters that do, on one where one server does not, beside requests, and by a
//! gateway that orders more than a remote makes.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::common::admin::{start, start_all, status};
use crate::common::{LIMIT, Site, digits};
use seco_core::{ModelId, SealingKeyHash};
use seco_node::config::Pool;
use seco_node::keys;
use seco_node::mesh::{self, Clock, Mesh, QuicChannel};
use seco_node::reset::ResetKey;
use seco_node::service::part::read_part;
use seco_node::versions::Versions;
use seco_protocol::{Party, PlannedModel};

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

/// Devices are answered while bundles are made, as soon as if fewer were.
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
    // How soon is the machine's business, but a bundle of this network takes tens of milliseconds.
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
    // Those that were ready before were used, not made anew.
    let made = tokio::task::block_in_place(|| status(ports[0]).bundles.made);
    assert!(made < 2 * pool(0).size as u64, "{made}");
}

/// A gateway's order, as it is sent: the model, the kind, and what it says.
async fn order(gateway: &Mesh, model: &[u8; 32], command: &[&[u8]]) -> quinn::RecvStream {
    let (mut send, receive) = gateway.command(1).await.unwrap();
    let order = [&model[..], &command.concat()].concat();
    let framed = [&u32::try_from(order.len()).unwrap().to_le_bytes()[..], &order].concat();
    send.write_all(&framed).await.unwrap();
    receive
}

/// A remote holds a gateway to what it said it makes: of more orders the others wait, and take nothing.
#[tokio::test(flavor = "multi_thread")]
async fn a_remote_makes_no_more_than_it_said() {
    let mut site = Site::new(2);
    (site.pool, site.admin) = (pool(MAKING), true);
    let (_remote, port, _) = start(&mut site, 1, &[]);
    let address = site.config(0).peers[0].address.clone();
    let server = |index: usize, address: Option<String>| {
        let certificate = keys::certificate(&site.keys[index].certificate).unwrap();
        let (certificates, name) = (vec![certificate.clone()], format!("s{index}"));
        mesh::Server { name, address, certificates, known_as: certificate, ot_parameter: 2 }
    };
    let gateway = Mesh::start(mesh::Settings {
        versions: Versions::OURS,
        me: 0,
        servers: vec![server(0, None), server(1, address)],
        key: keys::tls_key(&site.keys[0].key).unwrap(),
        listen: "127.0.0.1:0".parse().unwrap(),
        models: vec![ModelId(site.model_id)],
        sealing_keys: vec![SealingKeyHash([1; 32])],
        reset: ResetKey::random().unwrap(),
        records: None,
    });
    let gateway = gateway.unwrap().mesh;
    tokio::time::timeout(LIMIT, gateway.connected()).await.unwrap();
    let mut reply = [0; 7];
    let mut asked = order(&gateway, &site.model_id, &[&[12]]).await;
    tokio::time::timeout(LIMIT, asked.read_exact(&mut reply)).await.unwrap().unwrap();
    assert_eq!(reply, [3, 0, 0, 0, 0, 2, MAKING as u8]);

    // Job 1 is the set-up, in which this gateway takes part.
    let version = u8::try_from(Versions::OURS.highest()).unwrap();
    let mut done = order(&gateway, &site.model_id, &[&[0, 1, 2, version]]).await;
    let mut channel: QuicChannel = gateway.channel(1, 0, 0, &Clock::new(LIMIT)).await.unwrap();
    let part = site.parts[0].clone();
    let set_up = move || {
        let planned = PlannedModel::new(read_part(&part).unwrap().into()).unwrap();
        Party::setup(planned, &mut channel, &[2; 2], [3; 32]).map(|_| channel.finish())
    };
    tokio::task::spawn_blocking(set_up).await.unwrap().unwrap();
    let mut reply = [0; 6];
    tokio::time::timeout(LIMIT, done.read_exact(&mut reply)).await.unwrap().unwrap();
    assert_eq!(reply, [2, 0, 0, 0, 0, 0]);

    // In bundles it takes none.
    let mut orders = Vec::new();
    for job in 0..2 * MAKING as u8 {
        let bundle = [job; 16];
        orders.push(order(&gateway, &site.model_id, &[&[1, 10 + job, 2], &bundle, &[job]]).await);
    }
    let jobs = || tokio::task::block_in_place(|| status(port).jobs);
    let deadline = Instant::now() + LIMIT;
    while jobs() < MAKING {
        assert!(Instant::now() < deadline, "{}", jobs());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(jobs(), MAKING);
}
