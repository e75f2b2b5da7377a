//! How long a lease is held for a request that does not come, and that nobody who ends waits for one.

use std::time::{Duration, Instant};

use seco_node::config::Limits;

use super::orders::{GATEWAY_LATE, Gateway, LEASE, STOPPING};
use super::{Cluster, SIZE, leased, named, slowly};
use crate::common::digits;

/// A request that comes within two minutes is answered by what was leased; after them it is lost on all servers, which the
/// device is told once.
#[tokio::test(flavor = "multi_thread")]
async fn a_lease_is_given_up_after_two_minutes() {
    if !slowly() {
        return;
    }
    let (mut cluster, device, mut opened) = leased(&[2; 3]).await;
    // The connection must not be silent for so long: a number that was used before gets an answer.
    for _ in 0..10 {
        tokio::time::sleep(Duration::from_secs(10)).await;
        assert!(named(&device, opened.handle, 0).await.contains("CounterUsed"));
    }
    cluster.ask(&device, &mut opened, 2).await;
    cluster.wait_leases(0, 1, 0);
    // Its last answer is too long ago for another: they have to follow each other again.
    cluster.ask(&device, &mut opened, 3).await;
    cluster.wait_leases(1, 1, 0);
    let made = Instant::now();
    while cluster.bundles(0).leases_lost == 0 && made.elapsed() < Duration::from_secs(140) {
        tokio::time::sleep(Duration::from_secs(5)).await;
        assert!(named(&device, opened.handle, 0).await.contains("CounterUsed"));
    }
    let held = made.elapsed();
    assert!((100..140).contains(&held.as_secs()), "{held:?}");
    cluster.wait_leases(0, 1, 1);
    let refused = device.infer(&mut opened, &digits()[4]).await.unwrap_err();
    assert!(refused.contains("Unavailable"), "{refused}");
    cluster.ask(&device, &mut opened, 4).await;
    cluster.stop();
    assert_eq!(cluster.check_ledgers(), [0, 1, 2, 3, 4, 5]);
}

/// A gateway that neither sends the request nor gives the lease up: the remote does, by its own clock, and goes on.
#[tokio::test(flavor = "multi_thread")]
async fn a_remote_gives_a_lease_up_by_itself() {
    if !slowly() {
        return;
    }
    let mut cluster = Cluster::start(&[2; 2], Limits::default());
    let (mut gateway, bundles) = Gateway::new(&mut cluster).await;
    gateway.patience = Duration::from_secs(700);
    let known = gateway.open(&cluster.site).await;
    let input_len = cluster.site.info().input_len;
    let made = Instant::now();
    let waiting = gateway.lease(&bundles[0], &known.usage(0), input_len).await;
    assert_eq!(waiting.ordered.await.unwrap(), GATEWAY_LATE);
    let held = made.elapsed();
    assert!((590..650).contains(&held.as_secs()), "{held:?}");
    cluster.wait_at(1, |bundles| (bundles.leased, bundles.leases_lost) == (0, 1));
    let again = gateway.lease(&bundles[1], &known.usage(1), input_len).await;
    cluster.wait_at(1, |bundles| bundles.leased == 1);
    drop(again);
}

/// A remote that ends while a lease is made, of which the gateway has confirmed nothing: it does not wait for it.
#[tokio::test(flavor = "multi_thread")]
async fn a_remote_that_ends_does_not_wait_for_a_lease_that_is_made() {
    let mut cluster = Cluster::start(&[2; 2], Limits::default());
    let (mut gateway, bundles) = Gateway::new(&mut cluster).await;
    let known = gateway.open(&cluster.site).await;
    let silent = gateway.job(LEASE, &bundles[0], &known.usage(0), None).await;
    cluster.wait_at(1, |bundles| bundles.leased == 1);
    let start = Instant::now();
    cluster.servers[1].signal("-TERM");
    let told = silent.ordered.await.unwrap();
    // It may be gone before it is heard.
    assert!(told.is_empty() || told == STOPPING, "{told:?}");
    assert!(cluster.servers[1].ended(Duration::from_secs(20)).success());
    assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
}

/// The gateway ends while it leases a bundle and a remote stands still: it waits no longer than for the loss of the link.
#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_ends_does_not_wait_for_a_lease_that_is_made() {
    // A server that stands still is missed after eight seconds.
    if !slowly() {
        return;
    }
    let mut cluster = Cluster::start(&[2; 2], Limits::default());
    let device = cluster.site.connect(cluster.device).await;
    let mut opened = cluster.open(&device, 1).await;
    cluster.ask(&device, &mut opened, 0).await;
    cluster.wait_ready(SIZE);
    let answer = device.infer(&mut opened, &digits()[1]).await;
    cluster.servers[1].signal("-STOP");
    assert_eq!(answer.unwrap(), cluster.site.expected(&digits()[1]));
    cluster.servers[0].signal("-TERM");
    assert!(cluster.servers[0].ended(Duration::from_secs(20)).success());
    cluster.servers[1].signal("-CONT");
    cluster.ledgers();
}
