//! SECO client: private neural-network inference from a device, over QUIC.
//!
//! The device masks its input with one-time pads, sends it to the gateway, and removes the pads from the
//! answer; everything else happens on the servers. A private request costs the device about what a plain one
//! would. Section numbers refer to `server/PROTOCOL.md`.
//!
//! ```no_run
//! # async fn example() -> Result<(), seco_sdk::Error> {
//! let deployment = seco_sdk::Deployment::from_file("deployment.toml")?;
//! let client = seco_sdk::Client::connect(deployment).await?;
//! let prediction = client.infer(&[0; 784]).await?;
//! println!("{}", prediction.label);
//! client.close().await;
//! # Ok(())
//! # }
//! ```
//!
//! A session lives as long as its [`Client`], over any number of connections. To go on with it after a
//! restart, give [`ClientBuilder::session_store`] a [`SessionStore`].
//!
//! # Testing an application without servers
//!
//! Code that asks takes an [`Infer`], which [`Client`] is. The feature `testing`, among the dev-dependencies
//! (`seco-sdk = { ..., features = ["testing"] }`) and not in what is shipped, brings another one:
//! `testing::FakeClient` answers by script, with errors, delays, progress and costs. Both pass the same cases
//! (`bindings/cases.json`).
#![cfg_attr(
    feature = "testing",
    doc = r#"
```
use seco_sdk::testing::{FakeClient, Reply};
use seco_sdk::{Error, Infer, Progress};
use std::sync::Arc;
use std::time::Duration;

/// What a screen shows.
struct ViewModel {
    client: Arc<dyn Infer>,
    shown: Vec<String>,
}

impl ViewModel {
    async fn ask(&mut self, pixels: &[u8]) {
        let shown = &mut self.shown;
        let mut tell = |progress| {
            if let Progress::Queued { position, .. } = progress {
                shown.push(format!("{position} in the queue"));
            }
        };
        let text = match self.client.infer_with(pixels, &mut tell).await {
            Ok(prediction) => format!("It is {}", prediction.label),
            Err(Error::Busy { .. }) => "Try again later".to_owned(),
            Err(error) => error.to_string(),
        };
        self.shown.push(text);
    }
}

# fn main() { tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
let queued = Progress::Queued { position: 2, wait: Duration::from_secs(3) };
let client = FakeClient::new([
    Reply::label(7).progress([Progress::Sent, queued]).delay(Duration::from_millis(20)),
    Reply::error(Error::Busy { retry_after: Duration::from_secs(9) }),
]);
let mut model = ViewModel { client: Arc::new(client), shown: Vec::new() };
model.ask(&[0; 784]).await;
model.ask(&[0; 784]).await;
assert_eq!(model.shown, ["2 in the queue", "It is 7", "Try again later"]);
# }) }
```
"#
)]
#![forbid(unsafe_code)]

mod builder;
mod client;
mod cost;
mod cpu;
mod deployment;
mod dial;
mod error;
mod hex;
mod infer;
mod link;
mod log;
pub mod npy;
mod prediction;
mod quantise;
pub mod shape;
mod store;
#[cfg(feature = "testing")]
pub mod testing;
mod tls;
mod transport;
mod trouble;
mod watch;
mod wire;

pub use builder::{ClientBuilder, Transport, TransportKind};
pub use client::{Client, Progress};
pub use cost::{Cost, HeapMeter, UdpBytes};
pub use deployment::{Address, CertificatePin, Deployment, Gateway, Model, Server, Update};
pub use error::{Error, Loss, Result, Violation};
pub use infer::{BoxFuture, Infer};
pub use log::{Event, Level, Log, Opening};
pub use prediction::{Answer, Kind, Last, Output, Prediction};
pub use quantise::{Quantise, Quantised};
pub use seco_core::{MAX_SESSION_BLOB, ModelId, ModelInfo, Refusal, ServerSealingKey, Token, input};
pub use store::{FileStore, SessionStore};
#[doc(hidden)]
pub use tls::plain_config;

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Its example is compiled.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

/// No data behind the locks of this crate is left half-changed by a panic, so a poisoned lock is as good as
/// another.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
