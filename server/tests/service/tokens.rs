//! Who may use a gateway: devices with and without tokens at real servers, and `seco token` beside them.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use crate::common::{Device, Site, data, digits};
use seco_core::{Refusal, Request, Response, Token};
use seco_node::config::{Access, Pool};
use seco_sdk::{Client, Error, Transport};
use serde_json::Value;

/// `seco token`, which must succeed.
fn token(config: &Path, arguments: &[&str]) -> Value {
    let output = run(config, arguments);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

fn run(config: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_seco"));
    command.args(["token", "--json", "--config"]).arg(config).args(arguments).output().unwrap()
}

/// A token that `seco token add` makes.
pub fn add(config: &Path, arguments: &[&str]) -> Token {
    let made = token(config, &[&["add"], arguments].concat());
    made["token"].as_str().unwrap().parse().unwrap()
}

/// Settings of a server, as `seco token` reads them before any other is known.
pub fn settings(site: &Site, index: usize) -> PathBuf {
    let mut config = site.config(index);
    config.peers.iter_mut().for_each(|peer| peer.address = Some("127.0.0.1:9".to_owned()));
    let path = site.folder.path().join(format!("operator-{index}.toml"));
    config.save(&path).unwrap();
    path
}

/// A cluster of two whose gateway wants tokens.
fn site(required: bool) -> Site {
    let mut site = Site::new(2);
    site.pool = Pool { size: 8, low: 7, ..Pool::default() };
    site.access = Some(Access { tokens: site.folder.path().join("tokens.toml"), required });
    site
}

async fn with(site: &Site, address: std::net::SocketAddr, token: &Token) -> Device {
    let mut device = site.connect(address).await;
    device.token = Some(token.clone());
    device
}

#[tokio::test(flavor = "multi_thread")]
async fn only_who_shows_a_token_is_served_and_only_as_often_as_it_is_good_for() {
    let mut site = site(true);
    let config = settings(&site, 0);
    let (good, few) = (add(&config, &["--label", "app"]), add(&config, &["--requests", "2"]));
    let late = add(&config, &["--expires", "1s"]);
    let (mut servers, address) = site.start_all();
    servers[0].wait_bundle();
    let (keys, digit) = (site.sealing_keys(), &digits()[0]);

    // Without a token there is no session, not even one that exists.
    let session = site.session(1);
    let device = with(&site, address, &good).await;
    let mut opened = device.open(&session, &keys).await.unwrap();
    assert_eq!(device.infer(&mut opened, digit).await.unwrap(), site.expected(digit));
    let stranger = site.connect(address).await;
    for told in [stranger.open(&site.session(2), &keys).await, stranger.resume(&session).await] {
        assert!(told.err().unwrap().contains("TokenMissing"));
    }
    let infer = Request::Infer { handle: opened.handle, counter: 9, input: digit };
    let answer = stranger.ask(&infer).await;
    assert!(format!("{:?}", Response::decode(&answer[0]).unwrap()).contains("UnknownSession"));
    // One that nobody made, and one whose secret is another.
    let mut forged = *good.as_bytes();
    forged[23] ^= 1;
    for token in [Token::new([7; 24]), Token::new(forged)] {
        let told = with(&site, address, &token).await.open(&site.session(3), &keys).await.err().unwrap();
        assert!(told.contains("TokenInvalid"), "{told}");
    }
    // A token opens sessions, and nothing else; nonsense in its place is refused.
    for (token, request) in [(&[7_u8; 24][..], &[2_u8, 2, 0, 0][..]), (&[7; 23], &[]), (&[], &[2, 4, 0, 0])] {
        let answer = stranger.ask(&Request::Admit { token, request }).await;
        assert!(format!("{:?}", Response::decode(&answer[0]).unwrap()).contains("Malformed"));
    }
    // It is shown on every connection, and takes up what was opened before.
    let again = with(&site, address, &good).await;
    let mut resumed = again.resume(&session).await.unwrap();
    assert_eq!(again.infer(&mut resumed, digit).await.unwrap(), site.expected(digit));

    // Two requests, then no more: on no connection.
    let device = with(&site, address, &few).await;
    let mut opened = device.open(&site.session(4), &keys).await.unwrap();
    for _ in 0..2 {
        assert_eq!(device.infer(&mut opened, digit).await.unwrap(), site.expected(digit));
    }
    let over = "TokenExhausted { retry_after_s: 0 }";
    assert!(device.infer(&mut opened, digit).await.unwrap_err().contains(over));
    let told = with(&site, address, &few).await.open(&site.session(5), &keys).await.err().unwrap();
    assert!(told.contains(over), "{told}");
    // Whole seconds, and the one that it began in.
    tokio::time::sleep(Duration::from_secs(2)).await;
    let told = with(&site, address, &late).await.open(&site.session(6), &keys).await.err().unwrap();
    assert!(told.contains("TokenExpired"), "{told}");

    // Added while it runs, and revoked.
    let new = add(&config, &[]);
    let device = with(&site, address, &new).await;
    let deadline = Instant::now() + Duration::from_secs(20);
    let mut opened = loop {
        match device.open(&site.session(7), &keys).await {
            Ok(opened) => break opened,
            Err(told) => assert!(told.contains("TokenInvalid") && Instant::now() < deadline, "{told}"),
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    assert_eq!(device.infer(&mut opened, digit).await.unwrap(), site.expected(digit));
    token(&config, &["revoke", &new.id().to_string()]);
    loop {
        match device.infer(&mut opened, digit).await {
            Err(told) if told.contains("TokenInvalid") => break,
            other => assert!(other.is_ok() && Instant::now() < deadline, "{other:?}"),
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }

    // What was used is known after a restart.
    for server in &mut servers {
        server.signal("-TERM");
        assert!(server.ended(Duration::from_secs(30)).success());
    }
    let listed = token(&config, &["list"]);
    let of = |token: &Token| {
        let all = listed["tokens"].as_array().unwrap();
        all.iter().find(|entry| entry["id"] == token.id().to_string().as_str()).unwrap().clone()
    };
    assert_eq!((of(&good)["used"].as_u64(), of(&good)["state"].as_str()), (Some(2), Some("valid")));
    assert_eq!((of(&few)["used"].as_u64(), of(&few)["state"].as_str()), (Some(2), Some("used up")));
    assert_eq!((of(&late)["state"].as_str(), of(&new)["state"].as_str()), (Some("expired"), Some("revoked")));
    drop(servers);
    let (mut servers, address) = site.start_all();
    servers[0].wait_ready();
    let told = with(&site, address, &few).await.open(&site.session(8), &keys).await.err().unwrap();
    assert!(told.contains(over), "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_that_are_not_required_limit_who_shows_one() {
    let mut site = site(false);
    let config = settings(&site, 0);
    let one = add(&config, &["--requests", "1"]);
    let (mut servers, address) = site.start_all();
    servers[0].wait_bundle();
    let (keys, digit) = (site.sealing_keys(), &digits()[0]);
    let anybody = site.connect(address).await;
    let mut opened = anybody.open(&site.session(1), &keys).await.unwrap();
    let device = with(&site, address, &one).await;
    let mut limited = device.open(&site.session(2), &keys).await.unwrap();
    assert_eq!(device.infer(&mut limited, digit).await.unwrap(), site.expected(digit));
    assert!(device.infer(&mut limited, digit).await.unwrap_err().contains("TokenExhausted"));
    for _ in 0..2 {
        assert_eq!(anybody.infer(&mut opened, digit).await.unwrap(), site.expected(digit));
    }
}

/// The SDK shows its token on every connection, and tells what is wrong with it; `seco infer` takes it from a file.
#[tokio::test(flavor = "multi_thread")]
async fn the_sdk_and_the_command_line_show_tokens() {
    let mut site = site(true);
    let config = settings(&site, 0);
    let file = site.folder.path().join("token");
    token(&config, &["add", "--out", file.to_str().unwrap()]);
    let good: Token = std::fs::read_to_string(&file).unwrap().parse().unwrap();
    let few = add(&config, &["--requests", "2"]);
    let (mut servers, address) = site.start_all();
    servers[0].wait_bundle();
    let deployment = site.deployment(address);
    let digit = &digits()[0];
    for transport in [Transport::Quic, Transport::Tcp] {
        let client = || Client::builder(deployment.clone()).transport(transport);
        let refusal = |result: Result<Client, Error>| match result.err().unwrap() {
            Error::Refused(refusal) => refusal,
            other => panic!("{other}"),
        };
        assert_eq!(refusal(client().connect().await), Refusal::TokenMissing);
        assert_eq!(refusal(client().token(Token::new([9; 24])).connect().await), Refusal::TokenInvalid);
        let served = client().token(good.clone()).connect().await.unwrap();
        assert_eq!(served.infer(digit).await.unwrap().logits, site.expected(digit));
        let limited = client().token(few.clone()).connect().await;
        let limited = match transport {
            Transport::Quic => limited.unwrap(),
            _ => {
                assert_eq!(refusal(limited), Refusal::TokenExhausted { retry_after_s: 0 });
                continue;
            }
        };
        for _ in 0..2 {
            assert_eq!(limited.infer(digit).await.unwrap().logits, site.expected(digit));
        }
        match limited.infer(digit).await.unwrap_err() {
            Error::Refused(Refusal::TokenExhausted { retry_after_s: 0 }) => {}
            other => panic!("{other}"),
        }
    }
    let infer = |token: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_seco"));
        command
            .args(["infer", "--count", "1", "--deployment"])
            .arg(site.folder.path().join("deployment.toml"));
        command.arg("--input").arg(data("mlp-digits-20.npy")).args(token).output().unwrap()
    };
    let told = infer(&["--token", file.to_str().unwrap()]);
    assert!(told.status.success(), "{}", String::from_utf8_lossy(&told.stderr));
    let told = infer(&[]);
    assert!(String::from_utf8_lossy(&told.stderr).contains("asks for a token"), "{told:?}");
}

#[test]
fn the_command_says_what_is_wrong() {
    let site = site(true);
    let config = settings(&site, 0);
    let text = |output: &Output| String::from_utf8_lossy(&output.stderr).into_owned();
    for (arguments, told) in [
        (&["revoke", "0011223344556677"][..], "there is no such token"),
        (&["revoke", "seco_00"], "16 hexadecimal digits"),
        (&["add", "--label", "a\nb"], "one line"),
        (&["add", "--expires", "never"], "such as 90s"),
        (&["add", "--requests", "0"], "0"),
    ] {
        let output = run(&config, arguments);
        assert!(!output.status.success() && text(&output).contains(told), "{arguments:?}: {}", text(&output));
    }
    // A file that only its owner can read, and that is not overwritten.
    let file = site.folder.path().join("token");
    let out = file.to_str().unwrap();
    token(&config, &["add", "--out", out]);
    let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&file).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);
    assert!(std::fs::read_to_string(&file).unwrap().parse::<Token>().is_ok());
    assert!(!run(&config, &["add", "--out", out]).status.success());
    assert_eq!(token(&config, &["list"])["tokens"].as_array().unwrap().len(), 1);
    // Made by root for a gateway that runs as somebody else, it stays that one's.
    let tokens = site.folder.path().join("tokens.toml");
    if std::os::unix::fs::chown(&tokens, Some(65_530), Some(65_530)).is_ok() {
        token(&config, &["add"]);
        let owner = std::fs::metadata(&tokens).unwrap();
        assert_eq!(std::os::unix::fs::MetadataExt::uid(&owner), 65_530);
        token(&config, &["revoke", token(&config, &["list"])["tokens"][1]["id"].as_str().unwrap()]);
        assert_eq!(std::os::unix::fs::MetadataExt::uid(&std::fs::metadata(&tokens).unwrap()), 65_530);
    } else {
        println!("SKIPPED whose the file is: only root can give it away");
        token(&config, &["add"]);
    }
    // A remote has none.
    let remote = settings(&site, 1);
    assert!(text(&run(&remote, &["list"])).contains("[access]"));
    // Many at the same time lose none.
    let threads: Vec<_> = (0..8)
        .map(|_| {
            let config = config.clone();
            std::thread::spawn(move || drop(add(&config, &[])))
        })
        .collect();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    assert_eq!(token(&config, &["list"])["tokens"].as_array().unwrap().len(), 10);
}
