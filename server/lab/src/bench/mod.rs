//! `seco bench`: what the parts of the protocol cost, measured on this machine.
//!
//! Each subcommand is a module of its own with its options, its work and its report, which is printed
//! as a table or, with `--json`, as one object with the fields that scripts rely on. [`seco_tools::process`]
//! has what they share.

mod calibration;
mod child;
pub mod device;
pub mod garble;
pub mod he;
pub mod load;
pub mod net;
pub mod ot;
pub mod paper;
pub mod rates;
pub mod relu;
mod watch;

use seco_tools::process;
use serde_json::Value;

use self::calibration::Calibration;
use crate::Error;

/// What most parts are measured for.
#[derive(Clone, Copy, Debug, clap::Args)]
pub struct Setting {
    /// Number of servers.
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u8).range(2..=8))]
    pub servers: u8,
    /// Bits of the words.
    #[arg(long, value_name = "K", default_value_t = 20, value_parser = clap::value_parser!(u8).range(9..=32))]
    pub width: u8,
}

/// What to measure.
#[derive(Clone, Debug, clap::Subcommand)]
pub enum Bench {
    /// The cost to a device that is itself one of two parties, as in DELPHI.
    Device(device::Options),
    /// Garbling and evaluating: AND gates per CPU-second.
    Garble(garble::Options),
    /// Homomorphic encryption: a linear layer's steps, by ciphertext.
    He(he::Options),
    /// Correlated oblivious transfers per CPU-second, and bytes for each.
    Ot(ot::Options),
    /// Many devices at a cluster: latency, waits, refusals, fairness, memory; every answer checked.
    Load(load::Options),
    /// CPU time of a gigabyte between two servers, over QUIC and over TCP.
    Net(net::Options),
    /// The paper's measurements, with its figures beside ours: SECO, DELPHI and a request without privacy.
    Paper(paper::Options),
    /// A whole ReLU layer, preprocessing and evaluation, between servers that are processes.
    Relu(relu::Options),
    /// One server of `seco bench relu`, which starts it.
    #[command(hide = true)]
    ReluParty,
    /// One party of `seco bench device`, which starts it.
    #[command(hide = true)]
    DeviceParty,
    /// A user's process of `seco bench paper`, which starts it.
    #[command(hide = true)]
    PaperUser,
    /// The server without privacy of `seco bench paper`, which starts it.
    #[command(hide = true)]
    PaperServer,
}

/// A report with what all of them have: the memory of this process, and what the machine can do.
fn complete(mut report: Value) -> Result<String, Error> {
    // Before the calibration, which needs more.
    report["peak_memory_bytes"] = process::peak_memory().ok().into();
    report["calibration"] = Calibration::measure()?.json();
    Ok(report.to_string())
}

/// The same for people.
fn footer() -> Result<String, Error> {
    let peak = process::peak_memory().map(|bytes| format!("peak memory: {:.0} MB\n", bytes as f64 / 1e6));
    Ok(peak.unwrap_or_default() + Calibration::measure()?.table().trim_end())
}

/// Refuses what is no parameter of SoftSpokenOT.
fn check_parameter(parameter: usize, option: &str) -> Result<(), Error> {
    if seco_ot::PARAMETERS.contains(&parameter) {
        return Ok(());
    }
    Err(Error::Usage(format!("{option} {parameter}: give 1, 2, 4 or 8")))
}

/// Runs a measurement.
pub fn run(bench: &Bench) -> Result<(), Error> {
    match bench {
        Bench::Device(options) => device::run(options),
        Bench::Garble(options) => garble::run(options),
        Bench::He(options) => he::run(options),
        Bench::Ot(options) => ot::run(options),
        Bench::Load(options) => load::run(options),
        Bench::Net(options) => net::run(options),
        Bench::Paper(options) => paper::run(options),
        Bench::Relu(options) => relu::run(options),
        Bench::ReluParty => relu::run_party(),
        Bench::DeviceParty => device::run_party(),
        Bench::PaperUser => paper::run_user(),
        Bench::PaperServer => paper::run_server(),
    }
}
