//! Which versions servers speak: what they agree on, and what they are told who agree on none.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use seco_node::mesh::{Mesh, Settings, Started, tls};
use seco_node::versions::Versions;

use super::{Identity, LIMIT, LOOPBACK, identities, settings, start, start_again, start_all};

/// Starts a server of a release that speaks these versions.
fn start_speaking(me: usize, ids: &[Identity], addresses: &[Option<SocketAddr>], versions: &str) -> Started {
    Mesh::start(Settings { versions: versions.parse().unwrap(), ..settings(me, ids, addresses) }).unwrap()
}

/// Waits until a server says this of the one that it waits for. How soon is the machine's business.
async fn says(server: &mut Started, what: &str) {
    let deadline = Instant::now() + LIMIT;
    loop {
        let waiting = server.mesh.start_up(&mut server.mistakes, Duration::from_millis(200));
        let error = waiting.await.unwrap_err().to_string();
        if error.starts_with(what) {
            return;
        }
        assert!(Instant::now() < deadline, "{error}");
    }
}

/// Both name both ranges and say whose release has to change; the upgrade of one mends it without the other's doing.
#[tokio::test(flavor = "multi_thread")]
async fn servers_without_a_common_version_are_told_and_tried_again() {
    let ids = identities(2);
    for (ours, theirs, [told, answered]) in [
        (
            "7",
            "8",
            [
                "server 1 (s1) speaks version 8 of the protocol between servers, this one version 7: install a release \
                 that speaks version 8 on this server",
                "server 0 (s0) speaks version 7 of the protocol between servers, this one version 8: install a release \
                 that speaks version 8 on that server",
            ],
        ),
        (
            "9-11",
            "7-8",
            [
                "server 1 (s1) speaks versions 7 to 8 of the protocol between servers, this one versions 9 to 11: install \
                 a release that speaks version 9 on that server",
                "server 0 (s0) speaks versions 9 to 11 of the protocol between servers, this one versions 7 to 8: install \
                 a release that speaks version 9 on this server",
            ],
        ),
    ] {
        let mut remote = start_speaking(1, &ids, &[None, None], theirs);
        let address = remote.mesh.address().unwrap();
        let mut gateway = start_speaking(0, &ids, &[None, Some(address)], ours);
        // Not a mistake that ends a server: it waits.
        says(&mut gateway, told).await;
        says(&mut remote, answered).await;
        assert_eq!((gateway.mesh.version(), gateway.mesh.apart()), (None, None));
        remote.mesh.close().await;
        drop(remote);
        let upgraded = || Settings {
            versions: "8-9".parse().unwrap(),
            listen: address,
            ..settings(1, &ids, &[None, None])
        };
        let upgraded = start_again(upgraded).await;
        if ours == "7" {
            // Another one that does not fit.
            says(&mut gateway, "server 1 (s1) speaks versions 8 to 9").await;
            continue;
        }
        tokio::time::timeout(LIMIT, gateway.mesh.connected()).await.unwrap();
        tokio::time::timeout(LIMIT, upgraded.mesh.connected()).await.unwrap();
        assert_eq!((gateway.mesh.version(), upgraded.mesh.version()), (Some(9), Some(9)));
    }
}

/// A cluster speaks the highest version that all speak, as the gateway finds it.
#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_agrees_on_one_version() {
    for (speak, version) in [
        (["7", "7", "7"], Some(7)),
        (["7-8", "7", "7-8"], Some(7)),
        (["7-8", "7-8", "7-8"], Some(8)),
        (["7-8", "8-9", "8"], Some(8)),
        // Each link of the gateway's has one, and all together have not.
        (["7-8", "7", "8"], None),
    ] {
        let all = start_all(3, |me, ids, addresses| start_speaking(me, ids, addresses, speak[me]));
        tokio::time::timeout(LIMIT, all[0].mesh.connected()).await.unwrap();
        assert_eq!(all[0].mesh.version(), version, "{speak:?}");
        match (all[0].mesh.apart(), version) {
            (None, Some(_)) => {}
            (Some((1, why)), None) => assert!(why.ends_with("upgrade server 1 (s1) first"), "{why}"),
            other => panic!("{speak:?}: {other:?}"),
        }
    }
}

/// First messages of a server that are none: told with its name, at both ends, and the server goes on.
#[tokio::test(flavor = "multi_thread")]
async fn hostile_greetings_are_refused_and_name_the_server() {
    let frame = |bytes: &[u8]| [&u32::try_from(bytes.len()).unwrap().to_le_bytes(), bytes].concat();
    let now = u8::try_from(Versions::OURS.highest()).unwrap();
    let hostile = [
        ("range of versions", frame(&[])),
        ("range of versions", frame(&[0, 0])),
        // Inverted, wider than any release's, torn.
        ("range of versions", frame(&[8, 7])),
        ("range of versions", frame(&[7, 0xff, 0xff, 3])),
        ("range of versions", frame(&[7])),
        ("range of versions", frame(&[0x87])),
        // A length that nobody has room for.
        ("range of versions", vec![0xff; 8]),
        // What comes after it: nothing, something else, too much.
        ("hello", [frame(&[now, now]), frame(&[])].concat()),
        ("hello", [frame(&[now, now]), frame(&[7; 40])].concat()),
        ("hello", [frame(&[now, now]), vec![0xff; 8]].concat()),
    ];
    let ids = identities(2);
    let mut remote = start(1, &ids, &[None, None], 1);
    let address = remote.mesh.address().unwrap();
    let told = |index: usize, what: &str| {
        format!(
            "server {index} (s{index}) sent something that is no {what}: it does not run seco as it was released"
        )
    };
    for (what, said) in &hostile {
        let tls =
            tls::client_tls(&ids[0].certificate, &ids[0].key, vec![ids[1].certificate.clone()]).unwrap();
        let tls = quinn::crypto::rustls::QuicClientConfig::try_from(tls).unwrap();
        let endpoint = quinn::Endpoint::client(LOOPBACK).unwrap();
        let connecting = endpoint.connect_with(quinn::ClientConfig::new(Arc::new(tls)), address, "seco");
        let connection = connecting.unwrap().await.unwrap();
        let (mut send, _receive) = connection.open_bi().await.unwrap();
        send.write_all(said).await.unwrap();
        says(&mut remote, &told(0, what)).await;
    }
    // The one that dials.
    for (what, said) in hostile {
        let tls =
            tls::server_tls(&ids[1].certificate, &ids[1].key, vec![ids[0].certificate.clone()]).unwrap();
        let tls = quinn::crypto::rustls::QuicServerConfig::try_from(tls).unwrap();
        let config = quinn::ServerConfig::with_crypto(Arc::new(tls));
        let endpoint = quinn::Endpoint::server(config, LOOPBACK).unwrap();
        let mut gateway = start(0, &ids, &[None, Some(endpoint.local_addr().unwrap())], 1);
        let talking = tokio::spawn(async move {
            let connection = endpoint.accept().await.unwrap().await.unwrap();
            let (mut send, _receive) = connection.accept_bi().await.unwrap();
            send.write_all(&said).await.unwrap();
            connection.closed().await
        });
        // It goes on all the same: the mistake is not its own.
        says(&mut gateway, &told(1, what)).await;
        talking.await.unwrap();
    }
    // And takes one that is right, at last.
    let gateway = start(0, &ids, &[None, Some(address)], 1);
    tokio::time::timeout(LIMIT, gateway.mesh.connected()).await.unwrap();
}
