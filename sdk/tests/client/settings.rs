//! The builder's checks, the file store, and the application's own measurements.

use crate::common::{FakeGateway, image};
use seco_sdk::{Client, ClientBuilder, Error, FileStore, HeapMeter, SessionStore, Transport};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

#[tokio::test]
async fn impossible_settings_are_named() {
    let gateway = FakeGateway::start(Transport::Auto);
    let (zero, day) = (Duration::ZERO, Duration::from_secs(86_400));
    type Edit = fn(ClientBuilder, Duration) -> ClientBuilder;
    let cases: [(&str, Edit, Duration); 6] = [
        ("connect_timeout", ClientBuilder::connect_timeout, zero),
        ("connect_timeout", ClientBuilder::connect_timeout, day),
        ("request_timeout", ClientBuilder::request_timeout, zero),
        ("request_timeout", ClientBuilder::request_timeout, day),
        ("fallback_delay", ClientBuilder::fallback_delay, day),
        ("session_max_age", ClientBuilder::session_max_age, zero),
    ];
    for (name, edit, value) in cases {
        let error = edit(gateway.client(), value).connect().await.unwrap_err();
        assert!(matches!(error, Error::Setting { setting, .. } if setting == name), "{name}: {error}");
        assert!(error.to_string().contains(name), "{error}");
    }
    // Where there is nothing to fall back to, the delay does not matter.
    gateway.client().transport(Transport::Quic).fallback_delay(day).connect().await.unwrap();
    let shown = format!("{:?}", Client::builder(gateway.deployment.clone()));
    assert!(shown.contains("request_timeout: 60s"), "{shown}");
}

#[tokio::test]
async fn a_session_in_a_file() {
    let gateway = FakeGateway::start(Transport::Auto);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("session");
    let store = || Arc::new(FileStore::new(&path));
    assert!(store().load().unwrap().is_none());
    for _ in 0..2 {
        let client = gateway.client().session_store(store()).connect().await.unwrap();
        client.infer(&image()).await.unwrap();
    }
    assert_eq!(*gateway.shared.seen.lock().unwrap(), [(0, 0), (1, 0)]);
    let names: Vec<_> = std::fs::read_dir(folder.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(names, ["session"], "nothing is left over");
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }
    // Whatever else lies there is no session, and is replaced.
    for other in [vec![], vec![7; 1 << 20]] {
        std::fs::write(&path, other).unwrap();
        let client = gateway.client().session_store(store()).connect().await.unwrap();
        client.infer(&image()).await.unwrap();
    }
    assert_eq!(gateway.shared.names.lock().unwrap().len(), 3);
    // No directory to write to.
    let nowhere = Arc::new(FileStore::new(folder.path().join("missing").join("session")));
    let error = gateway.client().session_store(nowhere).connect().await.unwrap_err();
    assert!(matches!(error, Error::Storage(_)), "{error}");
}

/// Every look adds ten bytes to a peak that started at a hundred.
struct Meter(AtomicU64);

impl HeapMeter for Meter {
    fn restart(&self) -> u64 {
        100
    }

    fn peak(&self) -> u64 {
        100 + self.0.fetch_add(10, Ordering::Relaxed)
    }
}

#[tokio::test]
async fn the_allocator_is_asked() {
    let gateway = FakeGateway::start(Transport::Auto);
    let client = gateway.client().heap_meter(Arc::new(Meter(AtomicU64::new(10)))).connect().await.unwrap();
    assert_eq!(client.total_cost().heap_peak, Some(10));
    client.infer(&image()).await.unwrap();
    assert_eq!((client.last_cost().heap_peak, client.total_cost().heap_peak), (Some(20), Some(20)));
    let client = gateway.client().connect().await.unwrap();
    client.infer(&image()).await.unwrap();
    assert_eq!((client.last_cost().heap_peak, client.total_cost().heap_peak), (None, None));
}
