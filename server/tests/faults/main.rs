//! Bad networks and servers that die, between a device that uses the SDK and a cluster of real processes: every
//! request is answered as the plaintext network would, or ends in time with an error that says what was wrong,
//! and no pad is used twice.
//!
//! `SECO_SLOW=1` adds minutes of faults in random order.
#![cfg(unix)]
#![allow(clippy::unwrap_used, clippy::panic)]

mod cluster;
#[path = "../common/mod.rs"]
mod common;
#[path = "../../../sdk/tests/common/network.rs"]
mod network;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use cluster::{CONNECT, Cluster, Device, EVERY, REQUEST, SHORT, in_time, passes, sources};
use seco_sdk::{Error, FileStore, Loss, Refusal, Transport, TransportKind};

/// Alone, side by side, and given up in between.
async fn requests(cluster: &Cluster, device: &Device) {
    for digit in 0..4 {
        cluster.works(device, digit).await;
    }
    // Dropped on the way there, at the gateway, or on the way back.
    for pause in [0, 5, 20, 60, 150, 350] {
        let given_up = device.infer(&cluster.digits[5]);
        let _ = tokio::time::timeout(Duration::from_millis(pause), given_up).await;
        cluster.works(device, 6).await;
    }
    // Side by side.
    let many: Vec<_> = (0..60).map(|i| &cluster.digits[i % cluster.digits.len()]).collect();
    let results = device.client.infer_many(&many).await;
    for (i, result) in results.into_iter().enumerate() {
        cluster.check(i % cluster.digits.len(), result);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn packets_are_lost_and_late() {
    let cluster = Cluster::start().await;
    for (loss, delay) in [(50, 0), (0, 200), (50, 50)] {
        cluster.network.lose(loss);
        cluster.network.delay(Duration::from_millis(delay));
        let before = cluster.network.lost.load(Ordering::Relaxed);
        // A handshake under these conditions, too. More time than elsewhere: this is about being right.
        let builder = cluster.builder(Transport::Quic);
        let limit = Duration::from_secs(60);
        let client = builder.connect_timeout(limit).request_timeout(limit).connect().await.unwrap();
        let device = Device::new(client, limit);
        requests(&cluster, &device).await;
        let lost = cluster.network.lost.load(Ordering::Relaxed) - before;
        println!("{loss} of 1000 lost, {delay} ms: {lost} packets lost");
        assert_eq!(lost > 0, loss > 0, "{lost}");
        device.client.close().await;
    }
    // The same delay over TCP.
    cluster.network.delay(Duration::from_millis(200));
    let device = cluster.device(Transport::Tcp).await;
    requests(&cluster, &device).await;
}

/// The device's address changes, as the gateway sees it, while it waits for an answer.
#[tokio::test(flavor = "multi_thread")]
async fn an_address_translator_forgets() {
    let mut cluster = Cluster::start().await;
    let device = cluster.device(Transport::Auto).await;
    cluster.works(&device, 0).await;
    for (digit, times) in [(1, 1), (2, 3)] {
        let before = sources(&cluster.network);
        let fault = async |cluster: &mut Cluster| {
            for _ in 0..times {
                cluster.network.rebind();
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        let [(result, sent)] =
            cluster.during(std::slice::from_ref(&device), digit, fault).await.try_into().unwrap();
        cluster.check(digit, result);
        assert_eq!(sent, 1, "the connection goes on");
        assert_eq!(sources(&cluster.network), before + 1);
    }
    // Between requests.
    cluster.network.rebind();
    cluster.works(&device, 3).await;
    device.is_over(TransportKind::Quic);
    assert_eq!((sources(&cluster.network), device.pads.count()), (4, 4));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_device_changes_networks() {
    let mut cluster = Cluster::start().await;
    let mut devices = Vec::new();
    for via in EVERY {
        devices.push(cluster.device(via).await);
    }
    let before = sources(&cluster.network);
    let fault = async |_: &mut Cluster| {
        devices.iter().for_each(|device| device.client.network_changed().unwrap());
    };
    let results = cluster.during(&devices, 1, fault).await;
    assert_eq!(sources(&cluster.network), before + 2, "both that use QUIC have moved");
    for (device, (result, sent)) in devices.iter().zip(results) {
        cluster.check(1, result);
        // QUIC takes its requests along.
        assert_eq!(sent, if device.client.transport() == TransportKind::Quic { 1 } else { 2 });
        device.client.network_changed().unwrap();
        cluster.works(device, 2).await;
        device.client.network_changed().unwrap();
        device.client.network_changed().unwrap();
        cluster.works(device, 3).await;
        assert_eq!(device.pads.count(), sent + 2);
    }
    for (device, kind) in devices.iter().zip([TransportKind::Quic, TransportKind::Tcp, TransportKind::Quic]) {
        device.is_over(kind);
    }
}

/// It forgets its sessions when it restarts: the devices open new ones. Those are kept in their stores.
#[tokio::test(flavor = "multi_thread")]
async fn the_gateway_restarts() {
    let mut cluster = Cluster::start().await;
    cluster.direct();
    let folder = tempfile::tempdir().unwrap();
    let builder = |cluster: &Cluster, via| {
        let store = FileStore::new(folder.path().join(format!("{via:?}")));
        cluster.builder(via).session_store(Arc::new(store))
    };
    let mut devices = Vec::new();
    for via in EVERY {
        devices.push(Device::new(builder(&cluster, via).connect().await.unwrap(), REQUEST));
    }
    let sessions = |devices: &[Arc<Device>]| devices.iter().map(|d| d.session()).collect::<Vec<_>>();
    let all_new = |one: &[String], other: &[String]| one.iter().zip(other).all(|(one, other)| one != other);
    let first = sessions(&devices);

    // Between requests.
    cluster.kill(0);
    cluster.restart(0);
    cluster.servers[0].wait_ready();
    for result in cluster.at_once(&devices, 1).await {
        cluster.check(1, result);
    }
    let second = sessions(&devices);
    assert!(all_new(&first, &second), "sessions of which the gateway knows nothing");

    // In mid-request. The remotes may need longer than the requests have to find the gateway again.
    let fault = async |cluster: &mut Cluster| {
        cluster.kill(0);
        cluster.restart(0);
    };
    for (result, sent) in cluster.during(&devices, 2, fault).await {
        println!("restarted in mid-request: sent {sent} times, {:?}", result.as_ref().map(|p| p.label));
        match result {
            Ok(prediction) => assert_eq!(prediction.logits, cluster.expected(2)),
            Err(error) => assert!(passes(&error), "{error}"),
        }
    }
    for device in &devices {
        cluster.recovers(device, 3).await;
    }
    let third = sessions(&devices);
    assert!(all_new(&second, &third));

    // New processes: their sessions are known.
    for ((device, via), third) in devices.into_iter().zip(EVERY).zip(third) {
        let pads = device.pads.clone();
        device.client.close().await;
        drop(device);
        let client = builder(&cluster, via).connect().await.unwrap();
        let device = Device::sharing(client, REQUEST, &pads);
        cluster.works(&device, 4).await;
        assert_eq!(device.session(), third);
    }
}

/// It stands still: sockets are open, nobody reads them. Then it goes on, with what was sent in the meantime.
#[tokio::test(flavor = "multi_thread")]
async fn the_gateway_falls_silent() {
    let cluster = Cluster::start().await;
    let devices = cluster.devices().await;
    cluster.freeze(0);
    for digit in 0..2 {
        for result in cluster.at_once(&devices, digit).await {
            told_of_silence(&result.unwrap_err());
        }
    }
    cluster.refuses_connections().await.iter().for_each(told_of_silence);
    cluster.thaw(0);
    for device in &devices {
        cluster.recovers(device, 3).await;
        assert!(device.pads.count() >= 2, "the first one left the device");
    }
}

/// Nothing came, wherever that was noticed.
fn told_of_silence(error: &Error) {
    println!("{error}");
    let silence = matches!(
        error,
        Error::Timeout { .. } | Error::Connect { reason: Loss::Silence, .. } | Error::Closed(Loss::Silence)
    );
    assert!(silence, "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_gateway_is_gone() {
    let mut cluster = Cluster::start().await;
    cluster.direct();
    let devices = cluster.devices().await;
    for (result, _) in cluster.during(&devices, 0, async |cluster: &mut Cluster| cluster.kill(0)).await {
        let error = result.unwrap_err();
        println!("{error}");
        assert!(matches!(error, Error::Connect { .. } | Error::Timeout { .. } | Error::Closed(_)), "{error}");
    }
    // Over TCP, the system there says so.
    let reasons = [Loss::Silence, Loss::NobodyThere, Loss::NobodyThere];
    let later = cluster.at_once(&devices, 1).await.into_iter().map(Result::unwrap_err);
    let connecting = cluster.refuses_connections().await;
    for (error, expected) in later.zip(reasons).chain(connecting.into_iter().zip(reasons)) {
        assert!(matches!(error, Error::Connect { reason, .. } if reason == expected), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_remote_restarts() {
    let mut cluster = Cluster::start().await;
    let devices = [cluster.device(Transport::Auto).await];
    let device = &devices[0];
    let told = |error: &Error| matches!(error, Error::Refused(Refusal::Unavailable { server: 1 }));

    // In mid-request, and gone for a while.
    for (result, sent) in cluster.during(&devices, 1, async |cluster: &mut Cluster| cluster.kill(1)).await {
        let error = result.unwrap_err();
        assert!(told(&error), "{error}");
        assert!(sent > 1, "it is asked again until there is no time left");
    }
    let error = device.infer(&cluster.digits[1]).await.unwrap_err();
    assert!(told(&error), "{error}");
    // Back again: it does not know the session, and the gateway does.
    cluster.restart(1);
    cluster.recovers(device, 2).await;

    // Gone and back before anybody asks.
    cluster.kill(2);
    cluster.restart(2);
    cluster.servers[2].wait_ready();
    cluster.recovers(device, 3).await;

    // Gone and back in mid-request.
    let fault = async |cluster: &mut Cluster| {
        cluster.kill(1);
        cluster.restart(1);
    };
    for (result, _) in cluster.during(&devices, 4, fault).await {
        match result {
            Ok(prediction) => assert_eq!(prediction.logits, cluster.expected(4)),
            Err(error) => assert!(passes(&error), "{error}"),
        }
    }
    cluster.recovers(device, 5).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_network_blocks_udp() {
    let cluster = Cluster::start().await;
    cluster.network.block(true, false);
    let device = cluster.device(Transport::Auto).await;
    device.is_over(TransportKind::Tcp);
    cluster.works(&device, 0).await;
    // Remembered: the next connection is not tried over QUIC.
    tokio::time::sleep(Duration::from_millis(300)).await;
    let packets = cluster.network.packets.load(Ordering::Relaxed);
    assert!(packets > 0, "QUIC was tried first");
    cluster.network.cut_tcp();
    cluster.works(&device, 1).await;
    assert_eq!(cluster.network.packets.load(Ordering::Relaxed), packets);
    // Whoever insists is told in time.
    let error = in_time(CONNECT, cluster.builder(Transport::Quic).connect()).await.unwrap_err();
    assert!(matches!(error, Error::Connect { reason: Loss::Silence, .. }), "{error}");
    // Another network.
    cluster.network.block(false, false);
    device.client.network_changed().unwrap();
    cluster.works(&device, 2).await;
    device.is_over(TransportKind::Quic);
}

/// The connection was made, and then the way is blocked in mid-request.
#[tokio::test(flavor = "multi_thread")]
async fn the_network_closes() {
    let mut cluster = Cluster::start().await;
    // UDP alone: the request and its session go on over TCP, if that is allowed.
    let devices = [cluster.device(Transport::Auto).await];
    let session = devices[0].session();
    devices[0].is_over(TransportKind::Quic);
    let fault = async |cluster: &mut Cluster| cluster.network.block(true, false);
    for (result, sent) in cluster.during(&devices, 0, fault).await {
        cluster.check(0, result);
        assert_eq!((sent, devices[0].pads.count()), (2, 2));
    }
    devices[0].is_over(TransportKind::Tcp);
    assert_eq!(devices[0].session(), session);
    cluster.network.block(false, false);

    // All of it.
    let devices = cluster.devices().await;
    let fault = async |cluster: &mut Cluster| cluster.network.block(true, true);
    for (result, _) in cluster.during(&devices, 1, fault).await {
        told_of_silence(&result.unwrap_err());
    }
    for error in cluster.refuses_connections().await {
        assert!(matches!(error, Error::Connect { reason: Loss::Silence, .. }), "{error}");
    }
    cluster.network.block(false, false);
    for device in &devices {
        cluster.recovers(device, 3).await;
    }
}

/// Faults in random order, side by side with requests, for minutes. Every request ends in time; in the end
/// everybody is served.
#[tokio::test(flavor = "multi_thread")]
async fn anything_may_happen() {
    if std::env::var_os("SECO_SLOW").is_none() {
        println!("skipped: takes five minutes; set SECO_SLOW=1");
        return;
    }
    let mut cluster = Cluster::start().await;
    let devices = cluster.devices().await;
    let stop = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let mut tasks = Vec::new();
    for device in &devices {
        let (device, stop, inputs) = (device.clone(), stop.clone(), cluster.digits.clone());
        let expected: Vec<_> = (0..inputs.len()).map(|digit| cluster.expected(digit)).collect();
        tasks.push(tokio::spawn(async move {
            let (mut right, mut failed) = (0, 0);
            for digit in (0..inputs.len()).cycle() {
                if stop.load(Ordering::Relaxed) {
                    break;
                }
                match in_time(SHORT, device.infer(&inputs[digit])).await {
                    Ok(prediction) => {
                        assert_eq!(prediction.logits, expected[digit]);
                        right += 1;
                    }
                    Err(error) => {
                        assert!(passes(&error), "{error}");
                        failed += 1;
                    }
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            (right, failed)
        }));
    }
    let end = std::time::Instant::now() + Duration::from_secs(300);
    let mut dice = 7u64;
    let mut faults = 0;
    while std::time::Instant::now() < end {
        dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let server = (dice >> 40) as usize % 3;
        match (dice >> 33) % 8 {
            0 => cluster.network.lose(50),
            1 => cluster.network.delay(Duration::from_millis(200)),
            2 => cluster.network.rebind(),
            3 => devices.iter().for_each(|device| device.client.network_changed().unwrap()),
            4 => {
                cluster.kill(server);
                cluster.restart(server);
            }
            5 => cluster.network.block(true, false),
            6 => cluster.network.block(true, true),
            _ => {
                cluster.freeze(server);
                tokio::time::sleep(Duration::from_secs(3)).await;
                cluster.thaw(server);
            }
        }
        faults += 1;
        tokio::time::sleep(Duration::from_millis((dice >> 20) % 4000)).await;
        if dice >> 63 == 1 {
            cluster.network.lose(0);
            cluster.network.delay(Duration::ZERO);
            cluster.network.block(false, false);
        }
    }
    cluster.network.lose(0);
    cluster.network.delay(Duration::ZERO);
    cluster.network.block(false, false);
    stop.store(true, Ordering::Relaxed);
    for (task, device) in tasks.into_iter().zip(&devices) {
        let (right, failed) = task.await.unwrap();
        println!("{faults} faults: {right} right, {failed} failed, {} pads", device.pads.count());
        assert!(right > 0);
        cluster.recovers(device, 0).await;
    }
}
