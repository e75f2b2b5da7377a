//! What those who run servers see and can do: health, metrics, the log's filter, draining, taking stock.

use std::io::Write as _;
use std::net::{SocketAddr, TcpStream};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::common::admin::{admin, becomes, exchange, get, http, metrics, seco, start, status, sum, text};
use crate::common::{LIMIT, Site, digits};
use seco_core::{Request, Response};
use seco_node::config::Pool;
use seco_node::keys::{self, KeyFiles};

#[tokio::test(flavor = "multi_thread")]
async fn health_and_readiness_follow_what_happens_and_metrics_count_it() {
    let mut site = Site::new(3);
    site.admin = true;
    let (two, two_admin, _) = start(&mut site, 2, &[]);
    let (mut one, one_admin, _) = start(&mut site, 1, &[]);
    // A server waits for the others: it is healthy, and not ready.
    assert_eq!(get(two_admin, "/healthz").0, 200);
    let told = becomes(two_admin, "/readyz", 503);
    assert!(told.contains("server 0 (s0) is not connected"), "{told}");
    let (mut gateway, address, device) = start(&mut site, 0, &[]);
    assert_eq!(becomes(address, "/readyz", 200), "ready\n");
    assert_eq!(becomes(one_admin, "/readyz", 200), "ready\n");
    gateway.wait_bundle();
    gateway.wait_bundle();

    let device = site.connect(device.unwrap()).await;
    let session = site.session(1);
    let mut opened = device.open(&session, &site.sealing_keys()).await.unwrap();
    for digit in digits().iter().take(3) {
        assert_eq!(device.infer(&mut opened, digit).await.unwrap(), site.expected(digit));
    }
    let repeated = Request::Infer { handle: opened.handle, counter: 0, input: &digits()[0] };
    let messages = device.ask(&repeated).await;
    assert!(matches!(Response::decode(&messages[0]).unwrap(), Response::Refused { .. }));

    let model = keys::to_hex(&site.model_id[..4]);
    let found = metrics(address);
    let of_model = |name: &str| found[&format!("{name}{{model=\"{model}\"}}")];
    assert_eq!(of_model("seco_bundles_spent_total"), 3.0);
    assert_eq!(of_model("seco_inference_seconds_count"), 3.0);
    assert!(of_model("seco_inference_seconds_sum") > 0.0);
    assert_eq!(of_model("seco_bundles_discarded_total"), 0.0);
    assert_eq!(of_model("seco_pool_target"), 2.0);
    let made = of_model("seco_bundles_made_total");
    assert!(made >= 3.0 && of_model("seco_bundle_seconds_count") >= made, "{made}");
    assert_eq!(found["seco_refusals_total{reason=\"counter-used\"}"], 1.0);
    assert_eq!(found["seco_ledger_entries_total"], 3.0);
    assert_eq!((found["seco_sessions"], found["seco_connections{transport=\"quic\"}"]), (1.0, 1.0));
    assert_eq!((found["seco_ready"], found["seco_draining"]), (1.0, 0.0));
    assert!(found["seco_bundles_disk_bytes"] > 0.0 || found["seco_bundles_stored"] == 0.0);
    for peer in ["1", "2"] {
        let link = |name: &str| found[&format!("seco_link_{name}_bytes_total{{peer=\"{peer}\"}}")];
        assert!(link("sent") > 1000.0 && link("received") > 1000.0);
    }
    for phase in ["set-up", "bundle", "inference"] {
        let bytes = |name: &str| found[&format!("seco_phase_{name}_bytes_total{{phase=\"{phase}\"}}")];
        assert!(bytes("sent") > 0.0 && bytes("received") > 0.0, "{phase}");
    }
    // What QUIC carries is the messages and more.
    assert!(sum(&found, "seco_link_sent_bytes_total") > sum(&found, "seco_phase_sent_bytes_total") * 0.9);
    let remote = metrics(one_admin);
    assert_eq!(sum(&remote, "seco_bundles_spent_total"), 3.0);
    let told = text(&admin(address, &["status"]).stdout);
    for part in
        ["s0: server 0, gateway", "\nready\n", "server 2    s2: connected", "3 spent", "1 of at most 10000"]
    {
        assert!(told.contains(part), "{told}");
    }
    let told = admin(address, &["pool", "--json"]).stdout;
    let told: serde_json::Value = serde_json::from_slice(&told).unwrap();
    assert_eq!((&told["pool"]["target"], &told["bundles"]["spent"]), (&2.into(), &3.into()));
    // Taking stock of what all have destroys nothing, and requests go on.
    while status(address).pool.unwrap().ready < 2 {
        std::thread::sleep(Duration::from_millis(50));
    }
    let told = text(&admin(address, &["collect"]).stdout);
    assert!(told.contains("2 kept, 0 destroyed"), "{told}");
    assert_eq!(device.infer(&mut opened, &digits()[3]).await.unwrap(), site.expected(&digits()[3]));
    let told = text(&admin(one_admin, &["collect"]).stderr);
    assert!(told.contains("ask it") && told.lines().count() == 1, "{told}");
    // No session's id is anywhere.
    let pages: String = ["/metrics", "/status"].iter().map(|path| get(address, path).1).collect();
    let id = keys::to_hex(&session.id().0);
    assert!(!pages.contains(&id) && !pages.contains(&id[..8]));

    // A server that is gone is named, and counted as the culprit.
    drop(two);
    let told = becomes(address, "/readyz", 503);
    assert_eq!(told.lines().collect::<Vec<_>>(), ["server 2 (s2) is not connected"], "{told}");
    assert_eq!(metrics(address)["seco_peer_connected{peer=\"2\"}"], 0.0);
    let (mut two, _, _) = start(&mut site, 2, &[]);
    two.wait_ready();
    becomes(address, "/readyz", 200);

    // The ledger under a server is removed: the process says so and ends.
    std::fs::remove_file(site.config(1).state.join("ledger")).unwrap();
    assert!(!one.ended(Duration::from_secs(10)).success());
}

#[test]
fn orders_are_taken_from_this_machine_with_the_header_only_and_nonsense_is_refused() {
    let mut site = Site::new(2);
    site.admin = true;
    let (server, address, _) = start(&mut site, 1, &[]);
    for (method, path, headers, code) in [
        ("POST", "/drain", "", 403),
        ("PUT", "/log", "", 403),
        ("GET", "/drain", "", 405),
        ("POST", "/status", "x-seco-admin: 1\r\n", 405),
        ("GET", "/other", "", 404),
        ("POST", "/collect", "x-seco-admin: 1\r\n", 409),
    ] {
        let (found, told) = http(address, method, path, headers, "");
        assert_eq!(found, code, "{method} {path}: {told}");
    }
    assert!(!status(address).draining);
    // A page of another name that leads here.
    let head = "host: evil.example\r\nx-seco-admin: 1\r\ncontent-length: 0";
    assert_eq!(exchange(address, &format!("POST /drain HTTP/1.1\r\n{head}\r\n\r\n")).unwrap().0, 403);
    // Whatever is sent, it goes on answering.
    for nonsense in
        [&b"\0\0\0\0"[..], b"GET", b"PUT /log HTTP/1.1\r\ncontent-length: 99999999999999999999\r\n\r\n"]
    {
        let _ = TcpStream::connect(address).unwrap().write_all(nonsense);
    }
    let long = "x".repeat(5000);
    assert_eq!(http(address, "PUT", "/log", "x-seco-admin: 1\r\n", &long).0, 400);
    let idle: Vec<_> = (0..64).map(|_| TcpStream::connect(address)).collect();
    drop(idle);
    let (page, deadline) = ("GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n", Instant::now() + LIMIT);
    while exchange(address, page).is_none_or(|(code, _)| code != 200) {
        assert!(Instant::now() < deadline);
        std::thread::sleep(Duration::from_millis(50));
    }
    drop(server);
}

#[test]
fn the_logs_filter_changes_while_the_server_runs_and_lines_are_json() {
    let mut site = Site::new(2);
    site.admin = true;
    let (mut one, address, _) = start(&mut site, 1, &["--log-format", "json"]);
    assert!(status(address).log_filter.unwrap().contains("seco_node=info"));
    let order = |filter: &str| http(address, "PUT", "/log", "x-seco-admin: 1\r\n", filter);
    assert_eq!(order("error").0, 200);
    let (code, told) = order("seco_node=loud=very");
    assert_eq!(code, 400, "{told}");
    assert_eq!(get(address, "/log").1, "error\n");
    let (mut gateway, _, _) = start(&mut site, 0, &[]);
    gateway.wait_bundle();
    let told = text(&admin(address, &["log", "error,seco_node=debug"]).stdout);
    assert!(told.contains("seco_node=debug"), "{told}");
    assert!(text(&admin(address, &["log", "seco_node=loud=very"]).stderr).contains("loud"));
    drop(gateway);
    becomes(address, "/readyz", 503);
    one.signal("-TERM");
    assert!(one.ended(Duration::from_secs(4)).success());
    let log = one.stderr();
    let lines: Vec<serde_json::Value> =
        log.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("{line}"))).collect();
    let said = |what: &str| {
        lines.iter().any(|line| line["message"].as_str().is_some_and(|message| message.contains(what)))
    };
    // Silent while only errors were wanted, and not before and after.
    assert!(said("listening") && !said("ready:") && said("connection lost"), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn draining_under_load_gives_every_request_that_was_taken_its_answer() {
    let mut site = Site::new(3);
    site.admin = true;
    site.pool = Pool { size: 4, low: 3, ..Pool::default() };
    let (two, _, _) = start(&mut site, 2, &[]);
    let (one, _, _) = start(&mut site, 1, &[]);
    let (mut gateway, address, device) = start(&mut site, 0, &[]);
    (0..4).for_each(|_| gateway.wait_bundle());
    let keys = Arc::new(site.sealing_keys());
    let site = Arc::new(site);
    let mut asking = Vec::new();
    for seed in 0..4 {
        let (site, keys) = (site.clone(), keys.clone());
        asking.push(tokio::spawn(async move {
            let device = site.connect(device.unwrap()).await;
            let mut opened = device.open(&site.session(seed + 1), &keys).await.unwrap();
            let mut answers = 0;
            for digit in digits().iter().cycle() {
                match device.infer(&mut opened, digit).await {
                    Ok(logits) => assert_eq!(logits, site.expected(digit)),
                    // Not taken any more, or too late for that.
                    Err(told) => {
                        assert!(told.contains("ShuttingDown") || told.contains("stopping"), "{told}");
                        return answers;
                    }
                }
                answers += 1;
            }
            answers
        }));
    }
    tokio::time::sleep(Duration::from_millis(1500)).await;
    let told = tokio::task::spawn_blocking(move || admin(address, &["drain"])).await.unwrap();
    let under_way = text(&told.stderr);
    assert!(told.status.success() && text(&told.stdout).starts_with("ended after "), "{under_way}");
    let mut answers = 0;
    for device in asking {
        answers += device.await.unwrap();
    }
    assert!(answers > 4, "{answers}");
    assert!(gateway.ended(Duration::from_secs(30)).success(), "{under_way}");
    // Whatever was computed reached its device, and nothing was cut off on the way.
    assert_eq!(gateway.inferences(), answers);
    for mut remote in [one, two] {
        remote.signal("-TERM");
        assert!(remote.ended(Duration::from_secs(4)).success());
        assert_eq!(remote.inferences(), answers);
    }
}

/// Writes the deployment file of a cluster for an address, with these sealing keys; gives its path.
fn deployment(site: &Site, name: &str, address: SocketAddr, keys: [&KeyFiles; 2]) -> String {
    let out = site.folder.path().join(name).to_str().unwrap().to_owned();
    let address = address.to_string();
    let mut command = Command::new(env!("CARGO_BIN_EXE_seco"));
    command.args(["deployment", "--address", &address, "--out", &out, "--model"]).arg(&site.parts[0]);
    command.arg("--certificate").arg(&site.keys[0].certificate);
    keys.iter().for_each(|key| {
        command.arg("--sealing-key").arg(&key.sealing_key);
    });
    let made = command.output().unwrap();
    assert!(made.status.success(), "{}", text(&made.stderr));
    out
}

/// Runs `seco doctor`; gives what fails, and all lines.
fn doctor(of: &str, file: &str) -> (Vec<String>, String) {
    let (plain, json) = (|| seco(&["doctor", of, file]), || seco(&["doctor", of, file, "--json"]).stdout);
    let (output, json) = match of {
        // Both at a time: where something does not answer, each waits for it.
        "--deployment" => std::thread::scope(|scope| {
            let json = scope.spawn(json);
            (plain(), json.join().unwrap())
        }),
        // A server's ports are tried, by one at a time.
        _ => (plain(), json()),
    };
    let lines = text(&output.stdout);
    let failing: Vec<String> =
        lines.lines().filter(|line| line.contains(": FAILS: ")).map(str::to_owned).collect();
    assert_eq!(output.status.success(), failing.is_empty(), "{lines}{}", text(&output.stderr));
    let json: serde_json::Value = serde_json::from_slice(&json).unwrap();
    assert_eq!(json["ok"], failing.is_empty(), "{lines}{json}");
    (failing, lines)
}

#[test]
fn the_doctor_names_what_fails_on_a_devices_way() {
    let mut site = Site::new(2);
    site.admin = true;
    let (mut one, _, _) = start(&mut site, 1, &[]);
    let (mut gateway, _, device) = start(&mut site, 0, &[]);
    let device = device.unwrap();
    let whole = deployment(&site, "whole.toml", device, [&site.keys[0], &site.keys[1]]);
    gateway.wait_bundle();
    let (failing, lines) = doctor("--deployment", &whole);
    assert!(failing.is_empty() && lines.lines().all(|line| line.contains(": ok")), "{lines}");
    assert_eq!(lines.lines().count(), 7, "{lines}");

    // UDP blocked: nothing comes back from the port, and TCP goes on to the gateway.
    let way = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let between = way.local_addr().unwrap();
    let _silent = std::net::UdpSocket::bind(between).unwrap();
    std::thread::spawn(move || {
        for near in way.incoming().flatten() {
            let far = TcpStream::connect(device).unwrap();
            let (mut a, mut b) = (near.try_clone().unwrap(), far.try_clone().unwrap());
            let (mut near, mut far) = (near, far);
            std::thread::spawn(move || std::io::copy(&mut near, &mut far));
            std::thread::spawn(move || std::io::copy(&mut b, &mut a));
        }
    });
    let blocked = deployment(&site, "blocked.toml", between, [&site.keys[0], &site.keys[1]]);
    let (failing, lines) = doctor("--deployment", &blocked);
    assert_eq!(failing.len(), 1, "{lines}");
    assert!(failing[0].starts_with("QUIC handshake (UDP)") && failing[0].contains("firewalls"), "{lines}");

    // The file has another key of a server.
    let other = keys::generate(&site.folder.path().join("other"), "s1").unwrap();
    let wrong = deployment(&site, "wrong.toml", device, [&site.keys[0], &other]);
    let (failing, lines) = doctor("--deployment", &wrong);
    assert_eq!(failing.len(), 1, "{lines}");
    assert!(failing[0].starts_with("session") && failing[0].contains("server 1"), "{lines}");

    // A remote is down.
    one.signal("-KILL");
    one.ended(LIMIT);
    let (failing, lines) = doctor("--deployment", &whole);
    assert_eq!(failing.len(), 1, "{lines}");
    assert!(failing[0].starts_with("session") && failing[0].contains("server 1"), "{lines}");

    // The gateway is down.
    gateway.signal("-KILL");
    gateway.ended(LIMIT);
    let (failing, lines) = doctor("--deployment", &whole);
    let both = ["QUIC handshake (UDP)", "TLS handshake (TCP)"];
    assert!(
        failing.len() == 2 && failing.iter().zip(both).all(|(line, what)| line.starts_with(what)),
        "{lines}"
    );
}

#[test]
fn the_doctor_names_what_fails_at_a_server() {
    let mut site = Site::new(2);
    site.admin = true;
    let (mut one, _, _) = start(&mut site, 1, &[]);
    let (mut gateway, address, _) = start(&mut site, 0, &[]);
    becomes(address, "/readyz", 200);
    let file = |site: &Site, index: usize| site.write(&site.config(index)).to_str().unwrap().to_owned();
    // With the port that the system chose.
    let running = |site: &Site, admin: SocketAddr| {
        let mut config = site.config(0);
        config.admin.as_mut().unwrap().listen = admin;
        site.write(&config).to_str().unwrap().to_owned()
    };
    let (failing, lines) = doctor("--config", &running(&site, address));
    assert!(failing.is_empty() && lines.contains("way to server 1 (s1) over UDP: ok (connected)"), "{lines}");

    // Stopped, a server is seen by the one that dials it, and nobody takes the doctor for a server.
    one.signal("-TERM");
    assert!(one.ended(Duration::from_secs(5)).success());
    becomes(address, "/readyz", 503);
    let (failing, lines) = doctor("--config", &running(&site, address));
    assert_eq!(failing.len(), 1, "{lines}");
    assert!(failing[0].starts_with("way to server 1 (s1) over UDP: FAILS"), "{lines}");
    let (failing, lines) = doctor("--config", &file(&site, 1));
    assert!(failing.is_empty() && lines.contains("way to server 0 (s0) over UDP: ok"), "{lines}");
    assert_eq!(get(address, "/readyz").0, 503);

    gateway.signal("-TERM");
    assert!(gateway.ended(Duration::from_secs(5)).success());
    for (index, other) in [(0, "way to server 1 (s1)"), (1, "way to server 0 (s0)")] {
        let (failing, lines) = doctor("--config", &file(&site, index));
        assert!(failing.len() == 1 && failing[0].starts_with(other), "{lines}");
    }

    // Another server's key; one that others can read; another server's opening key; a ledger that is gone.
    let mut config = site.config(1);
    config.identity.key = site.keys[0].key.clone();
    let (failing, lines) = doctor("--config", site.write(&config).to_str().unwrap());
    assert!(failing.len() == 1 && failing[0].contains("do not belong together"), "{lines}");
    let path = &site.keys[1].opening_key;
    let mode = |mode: u32| {
        use std::os::unix::fs::PermissionsExt as _;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    };
    mode(0o644);
    let (failing, lines) = doctor("--config", &file(&site, 1));
    assert!(failing.len() == 1 && failing[0].contains("mode 644"), "{lines}");
    mode(0o600);
    std::fs::copy(&site.keys[0].opening_key, path).unwrap();
    let (failing, lines) = doctor("--config", &file(&site, 1));
    assert!(failing.len() == 1 && failing[0].contains("s1.sealing.pub"), "{lines}");
    std::fs::remove_file(site.config(0).state.join("ledger")).unwrap();
    let (failing, lines) = doctor("--config", &file(&site, 0));
    assert!(failing.iter().any(|line| line.starts_with("ledger and its head")), "{lines}");
}
