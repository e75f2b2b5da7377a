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
#![forbid(unsafe_code)]

mod builder;
mod client;
mod cost;
mod cpu;
mod deployment;
mod dial;
mod error;
mod hex;
mod link;
pub mod npy;
mod prediction;
mod quantise;
pub mod shape;
mod store;
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
