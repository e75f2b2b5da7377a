//! `seco bench device`: what a device pays that is itself one of two parties, as DELPHI's is (Mishra,
//! Lehmkuhl, Srinivasan, Zheng, Popa: DELPHI, USENIX Security 2020).
//!
//! # Method
//!
//! The project's protocol with two parties is such a protocol: the server, party 0, holds all weights
//! and the device, party 1, holds the input and no weights. Two processes of this program run the real
//! preprocessing and the real online phase over loopback TCP, once for every inference, and the
//! device's logits are compared with the plaintext fixed-point executor's. Nothing is estimated but
//! `storage_bytes`, which follows from the plan, without the padding of memory.
//!
//! - *CPU*: all threads of the process, kernel included (so TCP too), between two points where the
//!   parties meet. *Wall*: the same interval; the parties share this machine.
//! - *Bytes*: frames of messages, each with its length of four bytes; without TLS, TCP and IP. Both
//!   processes count, and must agree. Meetings are not counted.
//! - *Peak memory*: of the device's process, from start to end, with code and libraries. It never sees
//!   the network's file: a third process, the one that was started, imports, splits and compares.
//! - Set-up (keys, base OTs) is once per pair of parties and told apart. CPU and bytes of the phases are
//!   means over `--count` inferences, whose bundles are made one at a time.
//!
//! # The same as DELPHI
//!
//! In preprocessing the device encrypts a random mask under BFV for every linear layer, the server
//! multiplies its weights with it, and the device ends with a share of the product. ReLUs are garbled
//! with half gates, two ciphertexts per AND; their evaluator gets the labels of its own words by
//! oblivious transfer ahead of time. Online the server does plain arithmetic and circuits are evaluated.
//! The output is revealed to the device only: the server adds both parties' masked shares without being
//! able to open the sum, and the device takes both output pads off.
//!
//! # Not the same
//!
//! - **Roles rotate over layers here** (activation `i` is evaluated by party `i mod 2`); in DELPHI the client
//!   evaluates every ReLU. As party 1 the device evaluates the first ReLU layer, the third and so on, and
//!   garbles the others; `relus_evaluated` and `and_gates_garbled` say how much. As a garbler it sends tables
//!   instead of receiving them and stores a seed, pads and shares instead of tables, so bytes up are larger,
//!   bytes down and storage smaller than DELPHI's would be.
//! - The input is put under new masks by opening its bits under random ones. DELPHI's client knows its mask
//!   and sends `x - r`.
//! - The BFV key is shared by both parties, so the device answers with a decryption share, smudged with
//!   70 bits, where DELPHI's client decrypts by itself. Parameters are those of `seco-he` (`N = 8192`,
//!   `t = 2^32`, coefficient packing; DELPHI: SEAL, a prime plaintext modulus, packing by slots and
//!   rotations for which the client sends keys).
//! - Numbers are mod `2^k` with `k` by layer, and shifts are exact; DELPHI works in a
//!   prime field and truncates shares. Correlated OT is SoftSpokenOT, DELPHI's OT is IKNP.
//! - DELPHI's planner may replace ReLUs by quadratic polynomials. This is its protocol without that,
//!   which keeps the network as it is.

mod party;
pub(super) mod report;
mod wire;

use std::path::{Path, PathBuf};
use std::time::Duration;

use seco_model::{Architecture, Executor, Imported};
use seco_node::keys;
use seco_protocol::{BundleId, Counts};
use seco_tools::samples::{Network, Samples};
use seco_tools::split::{self, Split, SplitOptions};
use seco_tools::{interrupt, terminal};

use self::party::{Job, Outcome, Word};
use self::report::Report;
use self::wire::Token;
use super::child::{Process, failed};
use crate::Error;
use crate::relay::{Link, StreamRelay};

const PARTIES: usize = 2;
/// Holds the weights; the protocol's gateway.
const SERVER: usize = 0;
/// Holds the input.
const DEVICE: usize = 1;

/// What `seco bench device` is asked for.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// The network and its inputs.
    #[command(flatten)]
    pub network: Network,
    /// Number of inferences, of which the figures are the mean.
    #[arg(long, value_name = "M", default_value_t = 5)]
    pub count: usize,
    /// Prints the results as one JSON object and nothing else.
    #[arg(long)]
    pub json: bool,
}

/// Measures and prints. Fails, after printing, if a result differs from the plaintext computation.
pub fn run(options: &Options) -> Result<(), Error> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|_| Error::no_runtime())?;
    let report = runtime.block_on(until_interrupted(options));
    // A calculation that Ctrl-C interrupted need not end first.
    runtime.shutdown_timeout(Duration::from_secs(1));
    let report = report?;
    terminal::print(&if options.json { report.json() } else { report.table() });
    if report.equal {
        return Ok(());
    }
    Err(Error::Failed("results differ from the plaintext computation: please report this".to_owned()))
}

/// Runs one party, which [`run`] started.
pub fn run_party() -> Result<(), Error> {
    party::run()
}

/// From the temporary folder to the end of both parties, whatever happens in between.
async fn until_interrupted(options: &Options) -> Result<Report, Error> {
    let mut interrupted = interrupt::listen()?;
    let folder = tempfile::Builder::new()
        .prefix("seco-bench-")
        .tempdir()
        .map_err(|e| Error::write(&std::env::temp_dir(), e))?;
    let (task, place) = (options.clone(), folder.path().to_owned());
    let work = async {
        let prepared = tokio::task::spawn_blocking(move || prepare(&task, &place)).await;
        measure(prepared.map_err(|_| Error::no_runtime())??, folder.path(), None).await
    };
    tokio::select! {
        result = work => result,
        () = interrupted.wait() => Err(Error::Interrupted),
    }
}

/// What is known before a party runs.
pub(super) struct Prepared {
    pub name: String,
    pub architecture: Architecture,
    /// By party.
    pub files: Vec<PathBuf>,
    pub inputs: Vec<Vec<u8>>,
    /// Logits of the plaintext fixed-point executor.
    pub expected: Vec<Vec<i32>>,
}

fn prepare(options: &Options, folder: &Path) -> Result<Prepared, Error> {
    let samples = Samples::load(&options.network, None, Some(options.count), folder)?;
    let mut task = samples.task(PARTIES, folder.join("model"));
    task.gateway_layers = 0;
    let split = deal(split::import(&task)?, task)?;
    let model = &split.imported.chosen.model;
    let inputs: Vec<Vec<u8>> = (0..samples.count).map(|i| samples.get(i).to_vec()).collect();
    let expected = Executor::new(model)
        .and_then(|executor| inputs.iter().map(|input| Ok(executor.run(input)?.logits)).collect())
        .map_err(|e| Error::Model { path: samples.input.clone(), what: e.to_string() })?;
    let Samples { name, .. } = samples;
    Ok(Prepared { name, architecture: split.architecture, files: split.files, inputs, expected })
}

/// Splits a network between the two: all weights are the server's.
pub(super) fn deal(imported: Imported, task: SplitOptions) -> Result<Split, Error> {
    let gateway_layers = imported.chosen.model.layers.len();
    split::deal(imported, &SplitOptions { servers: PARTIES, gateway_layers, ..task })
}

/// Measures one inference for each input. With a link, the device reaches the server over it.
pub(super) async fn measure(prepared: Prepared, folder: &Path, link: Option<Link>) -> Result<Report, Error> {
    let Prepared { name, architecture, files, inputs, expected } = prepared;
    let mut token = Token([0; 16]);
    keys::random(&mut token.0)?;
    let mut bundles = vec![BundleId([0; 16]); inputs.len()];
    bundles.iter_mut().try_for_each(|id| keys::random(&mut id.0))?;
    let job = |me: usize, server, inputs| Job {
        me,
        model: files.get(me).cloned().unwrap_or_default(),
        state: folder.join(format!("state-{me}")),
        token: token.clone(),
        server,
        bundles: bundles.clone(),
        inputs,
    };

    let start = async |name: &str, job| Process::start(name.to_owned(), "device-party", &job).await;
    let mut server = start("the server", job(SERVER, None, Vec::new())).await?;
    let Word::Listening(mut address) = server.word().await? else {
        return Err(server.confused());
    };
    let relay = match link {
        Some(link) => {
            Some(StreamRelay::start(address, link).await.map_err(|e| Error::bind("TCP", address, e))?)
        }
        None => None,
    };
    if let Some(relay) = &relay {
        address = relay.address();
    }
    let mut device = start("the device", job(DEVICE, Some(address), inputs)).await?;
    // One that fails takes the other with it: the first to fail has said why.
    let (device, server) = tokio::try_join!(outcome(&mut device), outcome(&mut server))?;
    for (a, b) in [
        (&device.setup, &server.setup),
        (&device.preprocessing, &server.preprocessing),
        (&device.online, &server.online),
    ] {
        if (a.sent, a.received) != (b.received, b.sent) {
            return Err(failed("counting bytes", "the parties do not agree"));
        }
    }
    Report::new(name, &architecture, Counts::of(&architecture), &expected, &device, &server)
}

/// What a party says when all is done.
async fn outcome(party: &mut Process<Word>) -> Result<Outcome, Error> {
    let Word::Done(outcome) = party.word().await? else {
        return Err(party.confused());
    };
    party.end().await.map(|()| outcome)
}
