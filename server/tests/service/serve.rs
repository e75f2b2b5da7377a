//! Whole clusters: real processes, real QUIC, the real protocol, the small bundled network.

use std::time::{Duration, Instant};

use crate::common::{Device, LIMIT, Opened, Server, Site, digits};
use seco_core::{Request, Response, Session};
use seco_node::config::{Limits, Pool};
use seco_node::operation::events::Event;

/// How long a server may take to end after it was told to.
const STOP: Duration = Duration::from_secs(4);

#[tokio::test(flavor = "multi_thread")]
async fn answers_equal_the_plaintext_network_and_mistakes_are_refused() {
    let mut site = Site::new(3);
    let (mut servers, address) = site.start_all();
    let device = site.connect(address).await;
    let keys = site.sealing_keys();
    let session = site.session(1);
    servers[0].wait_ready();
    let mut opened = device.open(&session, &keys).await.unwrap();
    for digit in digits().iter().take(4) {
        let logits = device.infer(&mut opened, digit).await.unwrap();
        assert_eq!(logits, site.expected(digit));
    }
    let sent = servers[2].wait("inference", |event| match event {
        Event::Inference { mesh_bytes_sent, .. } => Some(mesh_bytes_sent),
        _ => None,
    });
    assert!(sent > 0);

    // The same number again.
    let digit = &digits()[0];
    let handle = opened.handle;
    let messages = device.ask(&Request::Infer { handle, counter: 2, input: digit }).await;
    let refused = format!("{:?}", Response::decode(&messages[0]).unwrap());
    assert!(refused.contains("CounterUsed"), "{refused}");
    assert_eq!(device.infer(&mut opened, digit).await.unwrap(), site.expected(digit));

    // A session goes on over another connection without being opened anew, beside the first; a stranger's
    // does not.
    let other = site.connect(address).await;
    let mut resumed = other.resume(&session).await.unwrap();
    assert_eq!(other.infer(&mut resumed, digit).await.unwrap(), site.expected(digit));
    assert_eq!(device.infer(&mut opened, digit).await.unwrap(), site.expected(digit));
    let refused = other.resume(&site.session(99)).await.err().unwrap();
    assert!(refused.contains("UnknownSession"), "{refused}");

    // Mistakes of a device.
    let handle = resumed.handle;
    resumed.handle += 9;
    let refused = other.infer(&mut resumed, digit).await.unwrap_err();
    assert!(refused.contains("UnknownSession"), "{refused}");
    let messages = other.ask(&Request::Infer { handle, counter: 99, input: &digit[1..] }).await;
    let refused = format!("{:?}", Response::decode(&messages[0]).unwrap());
    assert!(refused.contains("WrongInputSize"), "{refused}");
    for frame in [&[0u8][..], &[2, 2, 77], &[2, 9, 0], &[0xff, 0xff, 0xff, 0x7f]] {
        let messages = other.ask_raw(frame).await;
        let refused = format!("{:?}", Response::decode(&messages[0]).unwrap());
        assert!(refused.contains("Malformed") || refused.contains("VersionUnsupported"), "{refused}");
    }
    let mut swapped = keys.clone();
    swapped.swap(1, 2);
    let info = site.info();
    let wrong = Session::new(info, &swapped, 0, &mut crate::common::rng(5)).unwrap();
    let refused = other.open(&wrong, &swapped).await.err().unwrap();
    assert!(refused.contains("SealRejected { server: 1 }"), "{refused}");
    let mut elsewhere = info;
    elsewhere.id.0[0] ^= 1;
    let wrong = Session::new(elsewhere, &keys, 0, &mut crate::common::rng(6)).unwrap();
    let refused = other.open(&wrong, &keys).await.err().unwrap();
    assert!(refused.contains("WrongModel"), "{refused}");

    // A probe answers with noise of the size asked for.
    let messages = other.ask(&Request::Probe { down: 100, noise: &[5; 64] }).await;
    assert!(
        matches!(Response::decode(&messages[0]).unwrap(), Response::Probe { noise } if noise == [5; 100])
    );

    // Several requests at once.
    let mut one = other.open(&site.session(2), &keys).await.unwrap();
    let mut two = other.open(&site.session(3), &keys).await.unwrap();
    let (d1, d2) = (&digits()[1], &digits()[2]);
    let (a, b) = tokio::join!(other.infer(&mut one, d1), other.infer(&mut two, d2));
    assert_eq!((a.unwrap(), b.unwrap()), (site.expected(d1), site.expected(d2)));

    // SIGTERM and Ctrl-C end servers cleanly.
    for (index, signal) in [(0, "-TERM"), (1, "-INT"), (2, "-TERM")] {
        servers[index].signal(signal);
        assert!(servers[index].ended(STOP).success());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_remote_is_told_to_devices_and_the_cluster_recovers() {
    let mut site = Site::new(3);
    let (mut servers, address) = site.start_all();
    let device = site.connect(address).await;
    let keys = site.sealing_keys();
    servers[0].wait_bundle();
    let mut opened = device.open(&site.session(1), &keys).await.unwrap();
    let digit = &digits()[3];
    assert_eq!(device.infer(&mut opened, digit).await.unwrap(), site.expected(digit));

    // Killed: the gateway sees nothing but silence.
    servers[2].signal("-KILL");
    let start = Instant::now();
    let refused = device.infer(&mut opened, digit).await.unwrap_err();
    assert!(refused.contains("Unavailable { server: 2 }"), "{refused}");
    assert!(start.elapsed() < Duration::from_secs(12), "{:?}", start.elapsed());
    // Once it is known to be gone, requests are refused at once.
    let start = Instant::now();
    let refused = device.infer(&mut opened, digit).await.unwrap_err();
    assert!(refused.contains("Unavailable { server: 2 }"), "{refused}");
    assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());

    servers[2] = site.start(2, &[]).0;
    servers[2].wait_ready();
    // It knows no sessions any more. The same one cannot be opened again, a new one can.
    let (mut lost, mut seed) = (false, 2);
    let answer = tokio::time::timeout(LIMIT, async {
        loop {
            match device.infer(&mut opened, digit).await {
                Ok(logits) => break logits,
                Err(refused) if refused.contains("UnknownSession") => {
                    let again = device.open(&site.session(1), &keys).await.err().unwrap();
                    assert!(lost || again.contains("UnknownSession"), "{again}");
                    lost = true;
                    opened = device.open(&site.session(seed), &keys).await.unwrap();
                    seed += 1;
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
        let device = site.connect(address).await;
        let opened = device.open(&site.session(seed), &keys).await.unwrap();
        ready.push((device, opened, digits()[usize::from(seed)].clone()));
    }
    let ask = |(device, mut opened, digit): (Device, Opened, Vec<u8>)| {
        tokio::spawn(async move {
            let mut masked = digit.clone();
            let pending = opened.requester.request(&mut masked).unwrap();
            let (handle, counter) = (opened.handle, pending.counter());
            let messages = device.ask(&Request::Infer { handle, counter, input: &masked }).await;
            (opened, pending, messages, digit)
        })
    };
    let requests: Vec<_> = ready.into_iter().map(ask).collect();
    let (mut answered, mut queued, mut busy) = (0, 0, 0);
    for request in requests {
        let (opened, pending, messages, digit) = request.await.unwrap();
        // Its place, and then that its turn has come.
        if let [place, turn, _answer] = &messages[..] {
            assert!(matches!(Response::decode(place).unwrap(), Response::Queued { position: 1 | 2, .. }));
            assert!(matches!(Response::decode(turn).unwrap(), Response::Queued { position: 0, .. }));
            queued += 1;
        } else {
            assert_eq!(messages.len(), 1);
        }
        match Response::decode(messages.last().unwrap()).unwrap() {
            Response::Busy { retry_after_ms } => {
                assert!(retry_after_ms > 0);
                busy += 1;
            }
            _ => {
                let logits = opened.read(pending, messages.last().unwrap()).unwrap();
                assert_eq!(logits, site.expected(&digit));
                answered += 1;
            }
        }
    }
    // One found a bundle, two could wait; as bundles are made meanwhile, a few more may have.
    assert!(answered >= 3 && queued >= 2 && busy >= 1, "{answered} {queued} {busy}");
    assert_eq!(answered + busy, 8);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restarted_cluster_refuses_sessions_that_were_used_before() {
    let mut site = Site::new(2);
    let keys = site.sealing_keys();
    let digit = &digits()[4];
    for run in 0..2 {
        let (servers, address) = site.start_all();
        let device = site.connect(address).await;
        let open = async {
            loop {
                match device.open(&site.session(1 + run), &keys).await {
                    Ok(opened) => break opened,
                    // Devices may come before the servers have found each other.
                    Err(refused) => assert!(refused.contains("Unavailable"), "{refused}"),
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        let mut opened = tokio::time::timeout(LIMIT, open).await.unwrap();
        if run == 1 {
            // Its keys are gone, its id is in the ledgers: whoever opens it now may be a stranger.
            let refused = device.open(&site.session(1), &keys).await.err().unwrap();
            assert!(refused.contains("UnknownSession"), "{refused}");
            let refused = device.resume(&site.session(1)).await.err().unwrap();
            assert!(refused.contains("UnknownSession"), "{refused}");
        }
        assert_eq!(device.infer(&mut opened, digit).await.unwrap(), site.expected(digit));
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
    let refuse = |change: &dyn Fn(&mut seco_node::Config), part: &str| site.refuses(change, part);
    refuse(&|c| c.model = site.parts[0].clone(), "is the part of server 0, but this is server 1");
    refuse(&|c| c.model = other.parts[1].clone(), "server 2 (s2) runs model");
    refuse(&|c| c.peers[1].ot_parameter = 4, "server 2 (s2) has ot_parameter = 2 for the link");
    refuse(&|c| c.model = site.keys[0].certificate.clone(), "this is not a server's model file");
    refuse(&|c| c.model = "absent.seco".into(), "absent.seco: cannot be read");
    refuse(&|c| c.identity.key = site.keys[0].key.clone(), "do not belong together");
    refuse(&|c| c.identity.opening_key = "absent.key".into(), "absent.key: cannot be read");
    refuse(&|c| c.listen.mesh = busy, "cannot be opened");
    // Who is missing may come: the server waits, and says so.
    let waits = |change: &dyn Fn(&mut seco_node::Config), part: &str| {
        let mut config = site.config(1);
        config.limits = Limits { connect_s: 1, ..Limits::default() };
        change(&mut config);
        let mut server = Server::start(&site.write(&config), &[]);
        std::thread::sleep(Duration::from_secs(config.limits.connect_s + 2));
        assert!(server.process.try_wait().unwrap().is_none(), "{part}: ended");
        let text = server.stderr();
        assert!(text.contains("waiting: ") && text.contains(part), "{part}: {text}");
    };
    waits(&|_| {}, "server 0 (s0) did not connect: is it running");
    let nowhere = |c: &mut seco_node::Config| {
        c.peers[1].address = Some("nowhere.invalid:7400".to_owned());
        // A name service may take its time.
        c.limits.connect_s = 5;
    };
    waits(&nowhere, "server 2 (s2): its address nowhere.invalid:7400 cannot be resolved");
    drop(running);
    waits(&|_| {}, "does not answer: is it running?");
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

/// Ends a server as it is told to, and starts it again expecting that it refuses; gives its last line.
fn refuses_after(site: &mut Site, index: usize, fault: impl FnOnce(&seco_node::Config)) -> String {
    let (mut server, _) = site.start(index, &[]);
    server.signal("-TERM");
    assert!(server.ended(STOP).success());
    let config = site.config(index);
    fault(&config);
    let mut server = Server::start(&site.write(&config), &[]);
    let status = server.ended(STOP);
    let text = server.stderr();
    assert!(!status.success(), "{text}");
    text.lines().last().unwrap_or_default().to_owned()
}

#[test]
fn a_ledger_that_is_lost_is_no_new_start() {
    let mut site = Site::new(2);
    let head = site.config(1).ledger_heads(&site.model_id).own;
    let head = head.file_name().unwrap().to_str().unwrap();
    let told = refuses_after(&mut site, 1, |config| std::fs::remove_dir_all(&config.state).unwrap());
    assert!(head.starts_with("s1.") && head.ends_with(".ledger.head"), "{head}");
    for part in ["seco: ", "state-1/ledger: is missing", head, "seco keygen"] {
        assert!(told.contains(part), "{told}");
    }
    // What the message says: new keys, and neither the ledger nor its head.
    std::fs::remove_dir_all(site.folder.path().join("keys")).unwrap();
    site.keys = (0..2)
        .map(|i| seco_node::keys::generate(&site.folder.path().join("keys"), &format!("s{i}")).unwrap())
        .collect();
    site.start(1, &[]);
}

#[test]
fn the_ledger_goes_on_under_another_opening_key() {
    let mut site = Site::new(2);
    let (mut server, _) = site.start(1, &[]);
    server.signal("-TERM");
    assert!(server.ended(STOP).success());
    let mut config = site.config(1);
    let old = config.ledger_heads(&site.model_id).own;
    let key = seco_node::keys::generate(&site.folder.path().join("keys"), "s1-new").unwrap();
    config.identity.retired_opening_keys = vec![config.identity.opening_key];
    config.identity.opening_key = key.opening_key;
    let mut server = Server::start(&site.write(&config), &[]);
    server.wait("sockets", |event| matches!(event, Event::Listening { .. }).then_some(()));
    assert!(config.ledger_heads(&site.model_id).own.exists() && !old.exists());
}

/// Whatever folder it is given, a model's ledger goes on; another model begins one in a folder of its own.
#[test]
fn a_ledger_belongs_to_its_model_and_not_to_its_folder() {
    let mut site = Site::new(2);
    let elsewhere = |site: &Site| {
        let mut config = site.config(1);
        config.state = site.folder.path().join("elsewhere");
        config
    };
    let (mut server, _) = site.start(1, &[]);
    server.signal("-TERM");
    assert!(server.ended(STOP).success());
    let mut server = Server::start(&site.write(&elsewhere(&site)), &[]);
    assert!(!server.ended(STOP).success());
    let told = server.stderr();
    assert!(told.contains("elsewhere/ledger: is missing, but had 0 entries"), "{told}");
    // The same keys with another split of the same network.
    let other = Site::new(2);
    site.parts.clone_from(&other.parts);
    let mut server = Server::start(&site.write(&elsewhere(&site)), &[]);
    server.wait("sockets", |event| matches!(event, Event::Listening { .. }).then_some(()));
}

#[test]
fn a_state_folder_that_is_deleted_stops_the_server() {
    let mut site = Site::new(2);
    let (mut server, _) = site.start(1, &[]);
    std::fs::remove_dir_all(site.config(1).state).unwrap();
    assert!(!server.ended(STOP).success());
    let told = server.stderr();
    let told = told.lines().last().unwrap_or_default();
    assert!(told.contains("state-1/ledger: was removed or replaced while the server ran"), "{told}");
}

#[test]
fn secrets_are_closed_to_other_users() {
    use std::os::unix::fs::PermissionsExt as _;
    let mode = |path: &std::path::Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    let mut site = Site::new(2);
    let config = site.config(1);
    std::fs::create_dir(&config.state).unwrap();
    let left = config.state.join("left");
    std::fs::write(&left, "").unwrap();
    let secrets = [&config.state, &left, &config.model, &config.identity.key, &config.identity.opening_key];
    for path in secrets {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
    }
    let (mut server, _) = site.start(1, &[]);
    assert_eq!(secrets.map(|path| mode(path)), [0o700, 0o600, 0o600, 0o600, 0o600]);
    for file in std::fs::read_dir(&config.state).unwrap() {
        let path = file.unwrap().path();
        assert_eq!(mode(&path), if path.is_dir() { 0o700 } else { 0o600 }, "{}", path.display());
    }
    assert_eq!(mode(&config.ledger_heads(&site.model_id).own), 0o600);
    let told = server.stderr();
    assert_eq!(told.matches("could read this secret until now").count(), secrets.len(), "{told}");
}

/// A value of `/proc/PID/status` or `limits`.
#[cfg(target_os = "linux")]
fn of_process(server: &Server, file: &str, key: &str) -> String {
    let path = format!("/proc/{}/{file}", server.process.id());
    let text = std::fs::read_to_string(path).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(key));
    line.unwrap_or_else(|| panic!("{key}: {text}")).trim().to_owned()
}

#[cfg(target_os = "linux")]
#[test]
fn keys_reach_neither_a_core_file_nor_swap_space() {
    use std::os::unix::fs::{MetadataExt as _, chown};
    use std::os::unix::process::CommandExt as _;
    let mut site = Site::new(2);
    let (mut server, _) = site.start(1, &[]);
    let core: Vec<String> =
        of_process(&server, "limits", "Max core file size").split_whitespace().map(str::to_owned).collect();
    assert_eq!(core[..2], ["0", "0"]);
    let locked = of_process(&server, "status", "VmLck:");
    let told = server.stderr();
    // All that is used is locked, or it is said that nothing is.
    assert!(locked != "0 kB" || told.contains("memory is not locked"), "{locked} {told}");

    // What is not dumpable belongs to root in /proc, whoever runs it; seen if another user does.
    if std::fs::metadata("/proc/self").unwrap().uid() != 0 {
        let (server, _) = site.start(1, &[]);
        assert_eq!(std::fs::metadata(format!("/proc/{}/mem", server.process.id())).unwrap().uid(), 0);
        return;
    }
    const NOBODY: u32 = 65_534;
    fn give(path: &std::path::Path) {
        chown(path, Some(NOBODY), Some(NOBODY)).unwrap();
        if path.is_dir() {
            std::fs::read_dir(path).unwrap().for_each(|entry| give(&entry.unwrap().path()));
        }
    }
    let config = site.write(&site.config(1));
    let program = site.folder.path().join("seco");
    std::fs::copy(env!("CARGO_BIN_EXE_seco"), &program).unwrap();
    give(site.folder.path());
    let mut command = std::process::Command::new(&program);
    command.args(["serve", "--events", "--config"]).arg(config).uid(NOBODY).gid(NOBODY);
    let mut server = Server::spawn(command);
    server.wait("sockets", |event| matches!(event, Event::Listening { .. }).then_some(()));
    let process = std::path::PathBuf::from(format!("/proc/{}", server.process.id()));
    assert!(of_process(&server, "status", "Uid:").starts_with(&NOBODY.to_string()));
    assert_eq!(std::fs::metadata(process.join("mem")).unwrap().uid(), 0, "not dumpable");
    // Without the privilege, and under a limit, nothing is locked, and it runs all the same.
    let limits = of_process(&server, "limits", "Max locked memory");
    assert_eq!(of_process(&server, "status", "VmLck:") == "0 kB", !limits.starts_with("unlimited"));
}
