//! Several models on one cluster: served at the same time, added and removed while devices ask, kept apart.

use std::collections::HashSet;
use std::fs;
use std::io::Write as _;
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::common::admin::{admin, becomes, get, metrics, start, start_all, status, text};
use crate::common::{Device, LIMIT, More, Opened, Site, data, digits, rng};
use seco_core::{ModelId, Request, SEALED_LEN, Session};
use seco_node::config::Pool;
use seco_node::keys;
use seco_sdk::{Client, Deployment};
use seco_tools::split;

/// Divisors of the second and third model's inputs.
const SCALES: [f32; 2] = [24.0, 40.0];

/// Opens a session as soon as the model is served.
async fn open(device: &Device, site: &Site, session: &Session) -> Opened {
    let deadline = Instant::now() + LIMIT;
    loop {
        match device.open(session, &site.sealing_keys()).await {
            Ok(opened) => return opened,
            Err(told) => assert!(told.contains("Unavailable") && Instant::now() < deadline, "{told}"),
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Runs `seco admin models` at a port; gives what it prints, or that it fails with.
async fn models(port: SocketAddr, arguments: &[&str]) -> Result<String, String> {
    let arguments: Vec<String> = arguments.iter().map(|&argument| argument.to_owned()).collect();
    let run = move || {
        let arguments: Vec<&str> =
            ["models"].into_iter().chain(arguments.iter().map(String::as_str)).collect();
        admin(port, &arguments)
    };
    let output = tokio::task::spawn_blocking(run).await.unwrap();
    if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
}

fn folder(site: &Site, index: usize, id: &[u8; 32]) -> PathBuf {
    site.config(index).state.join("bundles").join(keys::to_hex(&id[..8]))
}

/// A model's bundles at a server, by name.
fn bundles(folder: &Path) -> HashSet<String> {
    let files = fs::read_dir(folder).into_iter().flatten().map(|entry| entry.unwrap().file_name());
    files.filter_map(|name| name.to_str()?.strip_suffix(".bundle").map(str::to_owned)).collect()
}

/// What a server's ledger says was spent.
fn spent(site: &Site, index: usize) -> HashSet<String> {
    const RECORD: usize = 65;
    let bytes = fs::read(site.config(index).state.join("ledger")).unwrap();
    let records = bytes[16..].chunks_exact(RECORD).filter(|record| record[0] == 3);
    records.map(|record| keys::to_hex(&record[1..17])).collect()
}

/// Asks for the first model until it is told to stop; gives the number of answers. Every one is right.
async fn keep_asking(site: Arc<Site>, address: SocketAddr, stop: Arc<AtomicBool>) -> usize {
    let device = site.connect(address).await;
    let mut opened = open(&device, &site, &site.session(90)).await;
    let mut answers = 0;
    for digit in digits().iter().cycle() {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        assert_eq!(device.infer(&mut opened, digit).await.unwrap(), site.expected(digit));
        answers += 1;
    }
    answers
}

#[tokio::test(flavor = "multi_thread")]
async fn models_come_and_go_while_devices_ask() {
    let mut site = Site::new(3);
    site.admin = true;
    site.models = vec![site.split_more("b", SCALES[0])];
    let (_servers, ports, address) = start_all(&mut site, &[]);
    let site = Arc::new(site);
    let second = &site.models[0];
    let digit = &digits()[0];
    assert_ne!(site.expected(digit), second.expected(digit));

    // Both at the same time, on one connection.
    let device = site.connect(address).await;
    let (mut of_first, mut of_second) =
        (open(&device, &site, &site.session(1)).await, open(&device, &site, &second.session(&site, 2)).await);
    for digit in &digits()[..2] {
        let both = tokio::join!(device.infer(&mut of_first, digit), device.infer(&mut of_second, digit));
        assert_eq!(both, (Ok(site.expected(digit)), Ok(second.expected(digit))));
    }
    // On another connection the session is found where it is.
    let other = site.connect(address).await;
    let mut resumed = other.resume(&second.session(&site, 2)).await.unwrap();
    assert_eq!(other.infer(&mut resumed, digit).await.unwrap(), second.expected(digit));
    // A session of one model is none of the other's.
    a_session_of_another_model_is_refused(&site, second, &other).await;
    let unknown =
        Request::Open { session: site.session(5).id(), model: ModelId([7; 32]), nonce: [0; 16], sealed: &[] };
    assert!(other.opened(&unknown).await.unwrap_err().contains("WrongModel"));
    let found = metrics(ports[0]);
    for (id, count) in [(&site.model_id, 2.0), (&second.id, 3.0)] {
        let name = format!("seco_bundles_spent_total{{model=\"{}\"}}", keys::to_hex(&id[..4]));
        assert_eq!(found[&name], count, "{name}");
    }

    // From here on somebody asks for the first all the time.
    let stop = Arc::new(AtomicBool::new(false));
    let asking = tokio::spawn(keep_asking(site.clone(), address, stop.clone()));
    let third = site.split_more("c", SCALES[1]);
    let part = |index: usize| third.parts[index].to_str().unwrap();
    let wrong = models(ports[0], &["add", part(1)]).await.unwrap_err();
    assert!(wrong.contains("c/server-1.seco: is the part of server 1, but this is server 0"), "{wrong}");
    let told = models(ports[0], &["add", part(0), "--name", "third", "--pool", "2"]).await.unwrap();
    for line in
        ["(third) was added", "not served yet: server 1 (s1) does not have it", "[[models]]", "size = 2"]
    {
        assert!(told.contains(line), "{told}");
    }
    let again = models(ports[0], &["add", part(0)]).await.unwrap_err();
    assert!(again.contains("which this server has already"), "{again}");
    // The only one that is not served, and it is said why.
    let lacks = "(third): server 2 (s2) does not have it";
    models(ports[1], &["add", part(1), "--name", "third", "--pool", "2"]).await.unwrap();
    let session = third.session(&site, 3);
    let deadline = Instant::now() + LIMIT;
    loop {
        let refused = device.open(&session, &site.sealing_keys()).await.err().unwrap();
        if refused.contains("Unavailable { server: 2 }") {
            break;
        }
        assert!(refused.contains("Unavailable { server: 1 }") && Instant::now() < deadline, "{refused}");
    }
    let page = becomes(ports[0], "/readyz", 200);
    assert!(page.starts_with("ready\n") && page.contains(lacks), "{page}");
    assert!(text(&admin(ports[0], &["status"]).stdout).contains("server 2 (s2) does not have it"));
    assert!(status(ports[1]).models[2].reasons[0].contains("server 2 (s2)"), "the others see it too");
    models(ports[2], &["add", part(2)]).await.unwrap();
    let mut of_third = open(&device, &site, &session).await;
    assert_eq!(device.infer(&mut of_third, digit).await.unwrap(), third.expected(digit));
    let list = models(ports[0], &[]).await.unwrap();
    assert!(list.lines().count() == 3 && list.lines().all(|line| line.ends_with("; served")), "{list}");

    // Removed at the gateway, its devices are told; the others notice nothing.
    let told = models(ports[0], &["remove", "b"]).await.unwrap();
    assert!(told.contains("(b) was removed") && told.contains("take it out of the settings"), "{told}");
    let refused = device.infer(&mut of_second, digit).await.unwrap_err();
    assert!(refused.contains("UnknownSession"), "the device looks what there is instead: {refused}");
    let refused = device.open(&second.session(&site, 4), &site.sealing_keys()).await.err().unwrap();
    assert!(refused.contains("WrongModel"), "{refused}");
    assert!(!folder(&site, 0, &second.id).exists());
    assert_eq!(device.infer(&mut of_third, digit).await.unwrap(), third.expected(digit));
    // Where it is removed at a remote, it is named.
    models(ports[2], &["remove", "b"]).await.unwrap();
    models(ports[2], &["remove", &keys::to_hex(&third.id[..6])]).await.unwrap();
    let last = models(ports[2], &["remove", &keys::to_hex(&site.model_id[..6])]).await.unwrap_err();
    assert!(last.contains("is the only one"), "{last}");
    let refused = device.infer(&mut of_third, digit).await.unwrap_err();
    assert!(refused.contains("Unavailable { server: 2 }"), "{refused}");
    // Bundles of what is not served at the gateway are nowhere.
    let deadline = Instant::now() + LIMIT;
    while (1..3).any(|index| !bundles(&folder(&site, index, &second.id)).is_empty()) {
        assert!(Instant::now() < deadline);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    stop.store(true, Ordering::Relaxed);
    assert!(asking.await.unwrap() > 5);
    assert!(!get(ports[0], "/metrics").1.contains(&keys::to_hex(&second.id[..4])));
}

/// What was sealed for one model, sent with the name of the other.
async fn a_session_of_another_model_is_refused(site: &Site, second: &More, device: &Device) {
    let session = site.session(6);
    let requester = session.start(&device.exporter(), &mut rng(1));
    let mut buffer = [0; 3 * SEALED_LEN];
    let request = session.open_message(&requester, &site.sealing_keys(), &mut rng(2), &mut buffer).unwrap();
    let Request::Open { session, nonce, sealed, .. } = request else { panic!() };
    let other = Request::Open { session, model: ModelId(second.id), nonce, sealed };
    let told = device.opened(&other).await.unwrap_err();
    assert!(told.contains("SealRejected"), "{told}");
}

/// A file that names both models: an application, and the command, ask each by its name.
#[tokio::test(flavor = "multi_thread")]
async fn one_deployment_file_names_several_models() {
    let mut site = Site::new(2);
    site.models = vec![site.split_more("b", SCALES[0])];
    let (mut servers, address) = site.start_all();
    servers[0].wait_bundle();
    let second = &site.models[0];
    let place = |name: &str| site.folder.path().join(name);
    split::deployment(&site.deployment_options(address, "first.toml")).unwrap();
    let mut other = site.deployment_options(address, "second.toml");
    other.model.clone_from(&second.parts[0]);
    split::deployment(&other).unwrap();
    // Of another gateway, so of another cluster.
    other.address = "192.0.2.7:7443".to_owned();
    other.file.out = place("elsewhere.toml");
    split::deployment(&other).unwrap();

    let seco = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_seco"));
        let output = command.current_dir(site.folder.path()).args(arguments).output().unwrap();
        if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
    };
    let joined = seco(&["join", "small=first.toml", "large=second.toml", "--out", "both.toml"]).unwrap();
    assert!(joined.contains("both.toml: for devices, with the models small, large"), "{joined}");
    for (arguments, what) in [
        (
            &["small=first.toml", "large=elsewhere.toml"][..],
            "elsewhere.toml: the gateway's address is not what first.toml has",
        ),
        (&["small=first.toml", "small=second.toml"], "models[1]: the name is used twice"),
        (&["small=both.toml"], "both.toml: names its models already"),
        (&["small=first.toml", "large=none.toml"], "none.toml"),
        (&["first.toml"], "not NAME=FILE"),
        (&[], "NAME=FILE"),
    ] {
        let told = seco(&[&["join", "--out", "other.toml"], arguments].concat()).unwrap_err();
        assert!(told.contains(what), "{what}: {told}");
        assert!(!place("other.toml").exists());
    }
    assert!(seco(&["join", "small=first.toml", "--out", "both.toml"]).unwrap_err().contains("--force"));

    let both = Deployment::from_file(place("both.toml")).unwrap();
    let digit = &digits()[0];
    let expected = [site.expected(digit), second.expected(digit)];
    let ask =
        |deployment: Deployment| async { Client::connect(deployment).await.unwrap().infer(digit).await };
    assert!(Client::connect(both.clone()).await.err().unwrap().to_string().contains("one is to be chosen"));
    for (name, expected) in ["small", "large"].iter().zip(&expected) {
        assert_eq!(ask(both.clone().select(Some(name)).unwrap()).await.unwrap().logits, *expected);
        let input = data("mlp-digits-20.npy");
        let asked = ["infer", "--deployment", "both.toml", "--model", name, "--count=1", "--json", "--input"];
        let told = seco(&[&asked[..], &[input.to_str().unwrap()]].concat()).unwrap();
        let told: serde_json::Value = serde_json::from_str(&told).unwrap();
        assert_eq!(told["predictions"][0]["logits"], serde_json::json!(expected));
    }
    let input = data("mlp-digits-20.npy");
    for (file, name, what) in [
        ("both.toml", &["--model", "none"][..], "there are small, large"),
        ("both.toml", &[], "one is to be chosen: small, large"),
        ("first.toml", &["--model", "none"], "the only one has no name"),
    ] {
        let asked = ["infer", "--input", input.to_str().unwrap(), "--deployment", file];
        let told = seco(&[&asked[..], name].concat()).unwrap_err();
        assert!(told.contains(what), "{told}");
    }
    let told = seco(&["doctor", "--deployment", "both.toml", "--model", "large"]).unwrap();
    assert!(
        told.contains("2 servers; of the models small, large: large") && told.contains("session: ok"),
        "{told}"
    );
}

/// Bundles of both outlive a crash of all servers and are used for their own model, whatever folder they are in.
#[tokio::test(flavor = "multi_thread")]
async fn bundles_are_kept_for_their_model() {
    const POOL: usize = 2;
    let mut site = Site::new(2);
    site.pool = Pool { size: POOL, low: 0, ..Pool::default() };
    site.models = vec![site.split_more("b", SCALES[0])];
    let ids = [site.model_id, site.models[0].id];
    let (servers, _) = site.start_all();
    let made = |site: &Site, index: usize| ids.map(|id| bundles(&folder(site, index, &id)));
    let deadline = Instant::now() + LIMIT;
    while (0..2).any(|index| made(&site, index).iter().any(|names| names.len() < POOL)) {
        assert!(Instant::now() < deadline);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    // Until the gateway has all that it made in its pool.
    tokio::time::sleep(Duration::from_millis(500)).await;
    drop(servers);
    let before = made(&site, 0);
    assert_eq!(before, made(&site, 1));

    // At every server: a bundle of each model among the other's too, and the first model's where they were before
    // there were several.
    let strayed = before.clone().map(|names| names.into_iter().min().unwrap());
    for index in 0..2 {
        let [first, second] = ids.map(|id| folder(&site, index, &id));
        let name = |of: usize| format!("{}.bundle", strayed[of]);
        fs::copy(first.join(name(0)), second.join(name(0))).unwrap();
        for bundle in &before[0] {
            let file = format!("{bundle}.bundle");
            fs::rename(first.join(&file), site.config(index).state.join("bundles").join(file)).unwrap();
        }
        fs::copy(second.join(name(1)), first.join(name(1))).unwrap();
    }
    let (servers, address) = site.start_all();
    for index in 0..2 {
        assert_eq!(made(&site, index), before, "server {index}");
        let above = site.config(index).state.join("bundles");
        assert!(bundles(&above).is_empty());
    }
    let device = site.connect(address).await;
    let (first, second) = (site.session(1), site.models[0].session(&site, 2));
    let mut opened = [open(&device, &site, &first).await, open(&device, &site, &second).await];
    tokio::time::sleep(Duration::from_millis(500)).await;
    let digit = &digits()[1];
    assert_eq!(device.infer(&mut opened[0], digit).await.unwrap(), site.expected(digit));
    assert_eq!(device.infer(&mut opened[1], digit).await.unwrap(), site.models[0].expected(digit));
    drop(servers);
    for index in 0..2 {
        let spent = spent(&site, index);
        assert_eq!(spent.len(), 2);
        assert!(before.iter().all(|names| names.intersection(&spent).count() == 1), "one of each");
    }
}

/// A model that one server's settings lack keeps nothing from the others, at a restart that brings it neither.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_lacks_a_model_is_named() {
    let mut site = Site::new(2);
    site.admin = true;
    site.models = vec![site.split_more("b", SCALES[0])];
    // The remote begins without it.
    let second = site.models.pop().unwrap();
    let (mut remote, _, _) = start(&mut site, 1, &[]);
    site.models.push(second);
    let (mut gateway, port, address) = start(&mut site, 0, &[]);
    let device = site.connect(address.unwrap()).await;
    let second = &site.models[0];
    let mut opened = open(&device, &site, &site.session(1)).await;
    let digit = &digits()[2];
    assert_eq!(device.infer(&mut opened, digit).await.unwrap(), site.expected(digit));
    let refused = device.open(&second.session(&site, 2), &site.sealing_keys()).await.err().unwrap();
    assert!(refused.contains("Unavailable { server: 1 }"), "{refused}");
    let lacks = "server 1 (s1) does not have it";
    let page = becomes(port, "/readyz", 200);
    assert!(page.contains(&format!("model {} (b): {lacks}", keys::to_hex(&second.id[..4]))), "{page}");

    remote.signal("-TERM");
    assert!(remote.ended(LIMIT).success());
    let (_remote, _, _) = start(&mut site, 1, &[]);
    let device = site.connect(address.unwrap()).await;
    let second = &site.models[0];
    let mut opened = open(&device, &site, &second.session(&site, 3)).await;
    assert_eq!(device.infer(&mut opened, digit).await.unwrap(), second.expected(digit));
    let log = gateway.stderr();
    assert!(log.contains(&format!("(b) is not served: {lacks}")), "{log}");
}

/// Whoever asks for a removal and leaves has asked for it all the same, and the model can come back.
#[tokio::test(flavor = "multi_thread")]
async fn a_removal_goes_on_when_whoever_asked_for_it_has_left() {
    let mut site = Site::new(2);
    site.admin = true;
    site.models = vec![site.split_more("b", SCALES[0])];
    // Something is being made all the time, which a removal waits for.
    site.models[0].pool = Pool { size: 400, low: 399, ..Pool::default() };
    let (_servers, ports, address) = start_all(&mut site, &[]);
    let device = site.connect(address).await;
    let second = &site.models[0];
    drop(open(&device, &site, &second.session(&site, 1)).await);
    for round in 0..3 {
        for &port in &ports {
            let mut stream = TcpStream::connect(port).unwrap();
            let head = format!("host: {port}\r\nx-seco-admin: 1\r\ncontent-length: 1");
            stream.write_all(format!("POST /models/remove HTTP/1.1\r\n{head}\r\n\r\nb").as_bytes()).unwrap();
            // Read, and the connection ended before it is answered.
            tokio::time::sleep(Duration::from_millis(5)).await;
            drop(stream);
        }
        for (index, &port) in ports.iter().enumerate() {
            let deadline = Instant::now() + LIMIT;
            while status(port).models.len() > 1 {
                assert!(Instant::now() < deadline, "server {index} still has it");
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            let part = second.parts[index].to_str().unwrap();
            models(port, &["add", part, "--name", "b", "--pool", "400"]).await.unwrap();
        }
        let device = site.connect(address).await;
        let mut opened = open(&device, &site, &second.session(&site, 2 + round)).await;
        let digit = &digits()[0];
        assert_eq!(device.infer(&mut opened, digit).await.unwrap(), second.expected(digit));
    }
}

#[test]
fn models_that_cannot_be_served_together_are_told() {
    let site = Site::new(2);
    let refuse = |change: &dyn Fn(&mut seco_node::Config), part: &str| site.refuses(change, part);
    let more = |index: usize| {
        let (part, name) = (site.parts[index].clone(), None);
        seco_node::config::Model { part, name, pool: Pool::default() }
    };
    refuse(&|config| config.models = vec![more(1)], "server-1.seco: is model");
    refuse(
        &|config| config.models = vec![more(0)],
        "server-0.seco: is the part of server 0, but this is server 1",
    );
}
