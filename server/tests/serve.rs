//! Whole clusters: real processes, real QUIC, the real protocol, the small bundled network.
#![cfg(unix)]
#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use std::time::{Duration, Instant};

use common::{Device, LIMIT, Server, Site, digits};
use seco_core::{Request, Response, Session};
use seco_server::config::{Limits, Pool};
use seco_server::events::Event;

/// How long a server may take to end after it was told to.
const STOP: Duration = Duration::from_secs(4);

#[tokio::test(flavor = "multi_thread")]
async fn answers_equal_the_plaintext_network_and_mistakes_are_refused() {
    let mut site = Site::new(3);
    let (mut servers, address) = site.start_all();
    let device = site.connect(address).await;
    let keys = site.sealing_keys();
    let mut session = site.session(1);
    servers[0].wait_ready();
    let handle = device.open(&session, &keys).await.unwrap();
    for digit in digits().iter().take(4) {
        let logits = device.infer(&mut session, handle, digit).await.unwrap();
        assert_eq!(logits, site.expected(digit));
    }
    let sent = servers[2].wait("inference", |event| match event {
        Event::Inference { mesh_bytes_sent, .. } => Some(mesh_bytes_sent),
        _ => None,
    });
    assert!(sent > 0);

    // The same number again, from the same session opened on another connection.
    let digit = &digits()[0];
    let other = site.connect(address).await;
    let handle = other.open(&session, &keys).await.unwrap();
    let mut again = site.session(1);
    let refused = other.infer(&mut again, handle, digit).await.unwrap_err();
    assert!(refused.contains("CounterUsed"), "{refused}");
    assert_eq!(other.infer(&mut session, handle, digit).await.unwrap(), site.expected(digit));

    // A session goes on over another connection without being opened anew; a stranger's does not.
    let third = site.connect(address).await;
    let messages = third.ask(&Request::Resume { session: session.id() }).await;
    let Response::Opened { handle: resumed } = Response::decode(&messages[0]).unwrap() else {
        panic!("not resumed");
    };
    assert_eq!(third.infer(&mut session, resumed, digit).await.unwrap(), site.expected(digit));
    let messages = third.ask(&Request::Resume { session: site.session(99).id() }).await;
    let refused = format!("{:?}", Response::decode(&messages[0]).unwrap());
    assert!(refused.contains("UnknownSession"), "{refused}");

    // Mistakes of a device.
    let refused = other.infer(&mut session, handle + 9, digit).await.unwrap_err();
    assert!(refused.contains("UnknownSession"), "{refused}");
    let messages = other.ask(&Request::Infer { handle, counter: 99, input: &digit[1..] }).await;
    let refused = format!("{:?}", Response::decode(&messages[0]).unwrap());
    assert!(refused.contains("WrongInputSize"), "{refused}");
    for frame in [&[0u8][..], &[2, 1, 77], &[2, 9, 0], &[0xff, 0xff, 0xff, 0x7f]] {
        let messages = other.ask_raw(frame).await;
        let refused = format!("{:?}", Response::decode(&messages[0]).unwrap());
        assert!(refused.contains("Malformed") || refused.contains("VersionUnsupported"), "{refused}");
    }
    let mut swapped = keys.clone();
    swapped.swap(1, 2);
    let info = site.info();
    let wrong = Session::new(info, &swapped, &mut common::rng(5)).unwrap();
    let refused = other.open(&wrong, &swapped).await.unwrap_err();
    assert!(refused.contains("SealRejected"), "{refused}");
    let mut elsewhere = info;
    elsewhere.id.0[0] ^= 1;
    let wrong = Session::new(elsewhere, &keys, &mut common::rng(6)).unwrap();
    let refused = other.open(&wrong, &keys).await.unwrap_err();
    assert!(refused.contains("WrongModel"), "{refused}");

    // A probe answers with noise of the size asked for.
    let messages = other.ask(&Request::Probe { down: 100, noise: &[5; 64] }).await;
    assert!(
        matches!(Response::decode(&messages[0]).unwrap(), Response::Probe { noise } if noise == [5; 100])
    );

    // Several requests at once.
    let mut one = site.session(2);
    let mut two = site.session(3);
    let (h1, h2) = (other.open(&one, &keys).await.unwrap(), other.open(&two, &keys).await.unwrap());
    let (d1, d2) = (&digits()[1], &digits()[2]);
    let (a, b) = tokio::join!(other.infer(&mut one, h1, d1), device_infer(&other, &mut two, h2, d2));
    assert_eq!((a.unwrap(), b), (site.expected(d1), site.expected(d2)));

    // SIGTERM and Ctrl-C end servers cleanly.
    for (index, signal) in [(0, "-TERM"), (1, "-INT"), (2, "-TERM")] {
        servers[index].signal(signal);
        assert!(servers[index].ended(STOP).success());
    }
}

async fn device_infer(device: &Device, session: &mut Session, handle: u32, input: &[u8]) -> Vec<i32> {
    device.infer(session, handle, input).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_remote_is_told_to_devices_and_the_cluster_recovers() {
    let mut site = Site::new(3);
    let (mut servers, address) = site.start_all();
    let device = site.connect(address).await;
    let keys = site.sealing_keys();
    let mut session = site.session(1);
    servers[0].wait_bundle();
    let handle = device.open(&session, &keys).await.unwrap();
    let digit = &digits()[3];
    assert_eq!(device.infer(&mut session, handle, digit).await.unwrap(), site.expected(digit));

    // Killed: the gateway sees nothing but silence.
    servers[2].signal("-KILL");
    let start = Instant::now();
    let refused = device.infer(&mut session, handle, digit).await.unwrap_err();
    assert!(refused.contains("Unavailable { server: 2 }"), "{refused}");
    assert!(start.elapsed() < Duration::from_secs(12), "{:?}", start.elapsed());
    // Once it is known to be gone, requests are refused at once.
    let start = Instant::now();
    let refused = device.infer(&mut session, handle, digit).await.unwrap_err();
    assert!(refused.contains("Unavailable { server: 2 }"), "{refused}");
    assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());

    servers[2] = site.start(2, &[]).0;
    servers[2].wait_ready();
    // It knows no sessions any more; the same one can be opened again, and goes on counting.
    let answer = tokio::time::timeout(LIMIT, async {
        loop {
            match device.infer(&mut session, handle, digit).await {
                Ok(logits) => break logits,
                Err(refused) if refused.contains("UnknownSession") => {
                    assert_eq!(device.open(&session, &keys).await.unwrap(), handle);
                }
                // The last connection of the three may still be missing.
                Err(refused) => assert!(refused.contains("Unavailable"), "{refused}"),
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    });
    assert_eq!(answer.await.unwrap(), site.expected(digit));
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_wait_for_bundles_and_too_many_are_sent_away() {
    let mut site = Site::new(2);
    site.pool = Pool { size: 1, low: 0, ..Pool::default() };
    site.limits.queue = 2;
    site.limits.parallel = 1;
    let (mut servers, address) = site.start_all();
    servers[0].wait_bundle();
    let keys = site.sealing_keys();
    let mut ready = Vec::new();
    for seed in 0..8 {
        let (device, session) = (site.connect(address).await, site.session(seed));
        let handle = device.open(&session, &keys).await.unwrap();
        ready.push((device, session, handle, digits()[usize::from(seed)].clone()));
    }
    let ask = |(device, mut session, handle, digit): (Device, Session, u32, Vec<u8>)| {
        tokio::spawn(async move {
            let mut masked = digit.clone();
            let pending = session.request(&mut masked).unwrap();
            let request = Request::Infer { handle, counter: pending.counter(), input: &masked };
            let messages = device.ask(&request).await;
            (session, pending, messages, digit)
        })
    };
    let requests: Vec<_> = ready.into_iter().map(ask).collect();
    let (mut answered, mut queued, mut busy) = (0, 0, 0);
    for request in requests {
        let (session, pending, messages, digit) = request.await.unwrap();
        // Its place, and then that its turn has come.
        if let [place, turn, _answer] = &messages[..] {
            assert!(matches!(Response::decode(place).unwrap(), Response::Queued { position: 1 | 2, .. }));
            assert!(matches!(Response::decode(turn).unwrap(), Response::Queued { position: 0, .. }));
            queued += 1;
        } else {
            assert_eq!(messages.len(), 1);
        }
        match Response::decode(messages.last().unwrap()).unwrap() {
            Response::Logits { masked } => {
                let mut logits = vec![0; session.model().classes];
                session.unmask_logits(pending, masked, &mut logits).unwrap();
                assert_eq!(logits, site.expected(&digit));
                answered += 1;
            }
            Response::Busy { retry_after_ms } => {
                assert!(retry_after_ms > 0);
                busy += 1;
            }
            other => panic!("{other:?}"),
        }
    }
    // One found a bundle, two could wait; as bundles are made meanwhile, a few more may have.
    assert!(answered >= 3 && queued >= 2 && busy >= 1, "{answered} {queued} {busy}");
    assert_eq!(answered + busy, 8);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restarted_cluster_refuses_what_was_used_before() {
    let mut site = Site::new(2);
    let keys = site.sealing_keys();
    let mut session = site.session(1);
    let digit = &digits()[4];
    for run in 0..2 {
        let (servers, address) = site.start_all();
        let device = site.connect(address).await;
        let open = async {
            loop {
                match device.open(&session, &keys).await {
                    Ok(handle) => break handle,
                    // Devices may come before the servers have found each other.
                    Err(refused) => assert!(refused.contains("Unavailable"), "{refused}"),
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        let handle = tokio::time::timeout(LIMIT, open).await.unwrap();
        if run == 1 {
            let refused = device.infer(&mut site.session(1), handle, digit).await.unwrap_err();
            assert!(refused.contains("CounterUsed"), "{refused}");
        }
        assert_eq!(device.infer(&mut session, handle, digit).await.unwrap(), site.expected(digit));
        drop(servers);
    }
}

#[test]
fn a_server_ends_with_its_parent() {
    let mut site = Site::new(2);
    let (mut server, _) = site.start(1, &["--with-parent"]);
    assert!(server.process.try_wait().unwrap().is_none());
    drop(server.process.stdin.take());
    assert!(server.ended(STOP).success());
}

#[test]
fn what_prevents_a_start_is_told_in_one_line() {
    let mut site = Site::new(3);
    let (running, _) = site.start(2, &[]);
    let busy = site.config(2).listen.mesh;
    let other = Site::new(3);
    let refuse = |change: &dyn Fn(&mut seco_server::Config), part: &str| {
        let mut config = site.config(1);
        config.limits = Limits { connect_s: 1, ..Limits::default() };
        change(&mut config);
        let mut server = Server::start(&site.write(&config), &[]);
        let status = server.ended(Duration::from_secs(20));
        let text = server.stderr();
        let last = text.lines().last().unwrap_or_default();
        assert!(!status.success() && last.starts_with("seco: ") && last.contains(part), "{part}: {text}");
        assert!(!text.contains("panicked"), "{text}");
    };
    refuse(&|c| c.model = site.parts[0].clone(), "is the part of server 0, but this is server 1");
    refuse(&|c| c.model = other.parts[1].clone(), "server 2 (s2) runs model");
    refuse(&|c| c.peers[1].ot_parameter = 4, "server 2 (s2) has ot_parameter = 2 for the link");
    refuse(&|c| c.model = site.keys[0].certificate.clone(), "this is not a server's model file");
    refuse(&|c| c.model = "absent.seco".into(), "absent.seco: cannot be read");
    refuse(&|c| c.identity.key = site.keys[0].key.clone(), "do not belong together");
    refuse(&|c| c.identity.opening_key = "absent.key".into(), "absent.key: cannot be read");
    refuse(&|c| c.listen.mesh = busy, "cannot be opened");
    refuse(&|_| {}, "server 0 (s0) did not connect: is it running");
    drop(running);
    refuse(&|_| {}, "does not answer: is it running?");
}

#[test]
fn an_unknown_key_is_refused() {
    let site = Site::new(2);
    let path = site.write(&site.config(1));
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, text.replace("[pool]", "[pool]\nlwo = 1")).unwrap();
    let mut server = Server::start(&path, &[]);
    assert!(!server.ended(STOP).success());
    assert!(server.stderr().contains("unknown field `lwo`"));
}
