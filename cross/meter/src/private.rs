//! The client that applications use, `seco-sdk`, on a real cluster.

use crate::phase::{self, HeapWatch, Phases, Traffic, print_peak_memory};
use crate::{Error, Result, arguments, input, number};
use seco_sdk::{Client, Deployment, FileStore, Transport};
use std::sync::Arc;
use std::time::Duration;

/// What to do.
pub struct Options {
    /// The cluster's deployment file.
    pub deployment: String,
    /// Where the session is kept, and taken up from if it is there; `-` for nowhere.
    pub store: String,
    /// How many requests.
    pub requests: usize,
    /// How many cost probes afterwards: a plain request as the SDK itself sends it.
    pub probes: usize,
    /// How long each phase lasts beyond its work.
    pub quiet: Duration,
}

impl Options {
    /// From the program's arguments after the first `skip`.
    ///
    /// # Errors
    /// With the usage.
    pub fn from_arguments(skip: usize) -> Result<Self> {
        let [deployment, store, requests, probes, quiet_ms] =
            arguments(skip, ["DEPLOYMENT", "STORE|-", "REQUESTS", "PROBES", "QUIET_MS"])?;
        let quiet = Duration::from_millis(number(&quiet_ms)? as u64);
        Ok(Self { deployment, store, requests: number(&requests)?, probes: number(&probes)?, quiet })
    }
}

/// Connects, opens or takes up a session, and sends requests: the phases `read` (of the deployment file), `connect`,
/// `request` and `probe`.
///
/// # Errors
/// Whatever goes wrong.
pub fn run(options: &Options, heap: HeapWatch) -> Result<()> {
    let phases = Phases::new(options.quiet, heap)?;
    let failed = |e: seco_sdk::Error| Error::new("a private request", e);
    let deployment = phase::run("read", heap, || Deployment::from_file(&options.deployment).map_err(failed))?;
    let model = deployment.model_info().map_err(failed)?;
    let payload = input(model.input_len);
    let mut builder = Client::builder(deployment).transport(Transport::Quic);
    if options.store != "-" {
        builder = builder.session_store(Arc::new(FileStore::new(&options.store)));
    }
    let connect = async { builder.connect().await.map_err(failed) };
    let client = phases.run("connect", connect, traffic)?;
    for _ in 0..options.requests {
        let request = async { client.infer(&payload).await.map_err(failed) };
        phases.run("request", request, |_| traffic(&client))?;
    }
    for _ in 0..options.probes {
        let probe = async { client.probe(model.input_len, model.logits_len()).await.map_err(failed) };
        phases.run("probe", probe, |()| traffic(&client))?;
    }
    print_peak_memory()
}

fn traffic(client: &Client) -> Traffic {
    let cost = client.total_cost();
    Traffic {
        up: cost.bytes_up,
        down: cost.bytes_down,
        packets_up: cost.datagrams_up,
        packets_down: cost.datagrams_down,
    }
}
