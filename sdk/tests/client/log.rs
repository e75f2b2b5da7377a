//! What a client tells of its work: all of it, in order, and nothing that is secret.

use crate::common::{Action, FakeGateway, image, reference};
use seco_core::Response;
use seco_sdk::{Client, ClientBuilder, Event, FileStore, Level, Refusal, SessionStore, Token, Transport};
use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// Level, name and text of an event.
type Told = (Level, &'static str, String);

#[derive(Clone, Default)]
struct Kept(Arc<Mutex<Vec<Told>>>);

impl Kept {
    fn of(&self, builder: ClientBuilder) -> ClientBuilder {
        let kept = self.0.clone();
        builder.log(Arc::new(move |event: &Event<'_>| {
            kept.lock().unwrap().push((event.level(), event.name(), event.to_string()));
            assert_eq!(format!("{event:?}"), format!("{}: {event}", event.name()));
            panic!("what a log does ends there");
        }))
    }

    /// What came since the last call.
    fn names(&self) -> Vec<&'static str> {
        self.taken().into_iter().map(|(_, name, _)| name).collect()
    }

    fn taken(&self) -> Vec<Told> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

async fn everything_is_told_in_order(via: Transport) {
    let gateway = FakeGateway::start(via);
    let folder = crate::common::temporary();
    let store = Arc::new(FileStore::new(folder.path().join("session")));
    let kept = Kept::default();
    let builder = || kept.of(gateway.impatient()).session_store(store.clone());

    let client = builder().connect().await.unwrap();
    assert_eq!(kept.names(), ["connected", "session_opened"]);
    assert_eq!(client.infer(&image()).await.unwrap().logits, reference(&image()));
    let [(Level::Debug, "answered", text)] = &kept.taken()[..] else { panic!() };
    let cost = client.last_cost();
    let told = format!("{} bytes up, {} down", cost.bytes_up, cost.bytes_down);
    assert!(text.starts_with("answered in ") && text.ends_with(&told), "{text}");

    // What passes, and what stays.
    gateway.answer([Action::Send(Response::Busy { retry_after_ms: 10 })]);
    client.infer(&image()).await.unwrap();
    assert_eq!(kept.names(), ["again", "answered"]);
    gateway.answer([Action::Send(Response::Refused { reason: Refusal::Malformed })]);
    client.infer(&image()).await.unwrap_err();
    let [(Level::Warning, "failed", text)] = &kept.taken()[..] else { panic!() };
    assert!(text.contains("refused"), "{text}");

    // A lost connection: the request that meets it, and the one after it.
    gateway.answer([Action::Close]);
    client.infer(&image()).await.unwrap();
    assert_eq!(kept.names(), ["again", "connected", "session_resumed", "answered"]);
    gateway.answer([Action::Forget]);
    client.infer(&image()).await.unwrap();
    let all = kept.taken();
    assert_eq!(
        all.iter().map(|(_, name, _)| *name).collect::<Vec<_>>(),
        ["again", "session_opened", "answered"]
    );
    assert!(all[1].2.contains("do not know"), "{}", all[1].2);

    client.network_changed().unwrap();
    client.infer(&image()).await.unwrap();
    let names = kept.names();
    match via {
        Transport::Tcp => {
            let all = ["network_changed", "connection_lost", "connected", "session_resumed", "answered"];
            assert_eq!(names, all);
        }
        _ => assert_eq!(names, ["network_changed", "answered"]),
    }
    client.close().await;
    client.close().await;
    assert_eq!(kept.names(), ["closed"]);
    client.infer(&image()).await.unwrap_err();
    assert_eq!(kept.names().last(), Some(&"failed"));

    let _client = builder().connect().await.unwrap();
    assert_eq!(kept.names(), ["connected", "session_resumed"]);
    gateway.resume([Action::Send(Response::Refused { reason: Refusal::TokenExpired })]);
    builder().connect().await.unwrap_err();
    assert_eq!(kept.names(), ["connected", "failed"]);
    let old = builder().session_max_age(Duration::from_nanos(1)).connect().await.unwrap();
    let all = kept.taken();
    // Within the second in which it was made, a session is not older than that.
    assert!(matches!(all[1].1, "session_opened" | "session_resumed"), "{}", all[1].1);
    drop(old);
}

async fn a_gateway_that_is_not_there_is_told(via: Transport) {
    let mut gateway = FakeGateway::start(via);
    gateway.deployment.gateway.address = "127.0.0.1:9".parse().unwrap();
    let kept = Kept::default();
    let builder = kept.of(gateway.impatient()).connect_timeout(Duration::from_millis(400));
    let error = builder.fallback_delay(Duration::from_millis(100)).connect().await.unwrap_err();
    let told = kept.taken();
    let [(Level::Warning, "not_connected", text), (Level::Warning, "failed", failed)] = &told[..] else {
        panic!()
    };
    assert_eq!(*text, format!("not connected: {error}"));
    assert!(failed.ends_with(&error.to_string()), "{failed}");
}

/// A store that works once, and whose errors say what they should not.
#[derive(Default)]
struct Chatty {
    saved: Mutex<Vec<String>>,
}

impl SessionStore for Chatty {
    fn load(&self) -> io::Result<Option<Vec<u8>>> {
        Ok(None)
    }

    fn save(&self, session: &[u8]) -> io::Result<()> {
        let mut saved = self.saved.lock().unwrap();
        saved.push(hex(session));
        if saved.len() == 1 { Ok(()) } else { Err(io::Error::other(hex(session))) }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Runs of an input or an answer that would be found in a text, in the forms that programs write bytes and numbers in.
fn forms(bytes: &[u8]) -> Vec<String> {
    let listed = |bytes: &[u8]| bytes.iter().map(u8::to_string).collect::<Vec<_>>().join(", ");
    bytes.windows(6).flat_map(|run| [hex(run), hex(run).to_uppercase(), listed(run)]).collect()
}

#[tokio::test]
async fn nothing_secret_is_told() {
    let gateway = FakeGateway::start(Transport::Quic);
    let kept = Kept::default();
    let (token, input) = (Token::new([0x5c; 24]), image());
    let connected = |builder: ClientBuilder| kept.of(builder).token(token.clone());

    let folder = crate::common::temporary();
    let path = folder.path().join("session");
    let store = Arc::new(FileStore::new(&path));
    let client = connected(gateway.impatient()).session_store(store).keep_sent(true).connect().await.unwrap();
    let prediction = client.infer(&input).await.unwrap();
    gateway.answer([Action::Bytes(b"a peer's own words".to_vec())]);
    client.infer(&input).await.unwrap_err();
    for action in
        [Action::Forget, Action::Close, Action::Send(Response::Refused { reason: Refusal::Internal })]
    {
        gateway.answer([action]);
        let _ = client.infer(&input).await;
    }
    let mut wrong = input.clone();
    wrong.pop();
    client.infer(&wrong).await.unwrap_err();
    let chatty = Arc::new(Chatty::default());
    let other = connected(gateway.impatient()).session_store(chatty.clone()).connect().await.unwrap();
    gateway.answer([Action::Forget]);
    let said = other.infer(&input).await.unwrap_err().to_string();
    let saved = chatty.saved.lock().unwrap().clone();
    assert!(saved.len() == 2 && said.contains(&saved[1]), "{said}");

    let text: Vec<String> = kept.taken().into_iter().map(|(_, _, text)| text).collect();
    assert!(text.len() >= 10, "{text:?}");
    let text = text.join("\n");
    let mut secrets =
        vec!["5c5c5c5c".to_owned(), "a peer's own words".to_owned(), folder.path().display().to_string()];
    secrets.extend(saved);
    secrets.extend(prediction.logits.iter().map(i32::to_string));
    for bytes in [&input, &client.last_sent().unwrap(), &std::fs::read(&path).unwrap()] {
        secrets.extend(forms(bytes));
    }
    for session in gateway.shared.names.lock().unwrap().iter() {
        secrets.extend(forms(&session.0));
    }
    secrets.extend(forms(&[7; 32]));
    for secret in secrets {
        assert!(!text.contains(&secret), "{secret} in\n{text}");
    }
}

/// A client without a log: the same work, and nobody is told.
#[tokio::test]
async fn a_log_is_not_needed() {
    let gateway = FakeGateway::start(Transport::Quic);
    let client: Client = gateway.client().connect().await.unwrap();
    client.infer(&image()).await.unwrap();
}

over_both!(everything_is_told_in_order, a_gateway_that_is_not_there_is_told);
