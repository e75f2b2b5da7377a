//! SECO client: private neural-network inference from a device, over QUIC.
//!
//! The device masks its input with one-time pads, sends it to the gateway, and removes the pads from the
//! answer; everything else happens on the servers. A private request costs the device about what a plain one
//! would. Section numbers refer to `protocol.md`.
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
#![forbid(unsafe_code)]

mod client;
mod deployment;
mod error;
mod hex;
mod link;
mod tls;
mod wire;

pub use client::{Client, ClientOptions, Prediction, Timeouts, UdpBytes};
pub use deployment::{CertificatePin, Deployment, Gateway, Model, Server};
pub use error::{Error, Loss, Result, Violation};
pub use seco_core::{ModelId, Refusal, ServerSealingKey};
