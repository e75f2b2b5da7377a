//! `seco bench relu`: one ReLU layer from the first correlated OT to the answer, between servers that are
//! processes of their own and talk over the mesh's QUIC, on loopback.
//!
//! # Method
//!
//! The layer's values are shared between all servers, one of which learns its share only online, as a holder
//! of weights does. Set-up (keys, base OTs) is not counted. *CPU* is that of all threads of a process, kernel
//! included, between two points where all servers meet. Bytes are the protocol's messages, of all servers;
//! QUIC, UDP and IP come on top, which `udp_bytes_per_relu` tells. Everything that a ReLU needs is counted: tables, OT,
//! corrections, conversions, the part of the opening that is sent ahead. What the evaluator keeps follows from the plan.
//! *Peak memory* is that of a process from start to end, with code and libraries; what exceeds
//! `--memory` of the evaluator's tables lies on disk. *Exact*: afterwards all shares are opened and every
//! value is compared with the clear computation.

mod party;

use std::fmt::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use seco_node::keys;
use seco_protocol::Layer;
use seco_tools::{interrupt, terminal};
use serde_json::json;

use self::party::{Identity, Job, Outcome, Word};
use super::calibration::Calibration;
use super::child::Process;
use super::{Setting, check_parameter};
use crate::Error;
use crate::relay::Relay;

/// What `seco bench relu` is asked for.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// Servers, of which one evaluates and the others garble, and width.
    #[command(flatten)]
    pub setting: Setting,
    /// Number of ReLUs.
    #[arg(long, value_name = "M", default_value_t = 100_000, value_parser = clap::value_parser!(u32).range(1..=16_777_216))]
    pub count: u32,
    /// Parameter of SoftSpokenOT: the larger, the fewer bytes and the more computing.
    #[arg(long, value_name = "1|2|4|8", default_value_t = seco_protocol::OT_PARAMETER)]
    pub ot_parameter: usize,
    /// Mebibytes of tables that the evaluator keeps in memory; all go to an encrypted file, as a bundle's do.
    #[arg(long, value_name = "MIB", default_value_t = 256)]
    pub memory: u32,
    /// Milliseconds by which packets between servers 0 and 1 are late, each way: one slow link. The relay's CPU
    /// time is not counted.
    #[arg(long, value_name = "MS", value_parser = clap::value_parser!(u64).range(1..=2000))]
    pub slow_link: Option<u64>,
    /// Prints the results as one JSON object and nothing else.
    #[arg(long)]
    pub json: bool,
}

/// Bits dropped before the ReLU.
const SHIFT: u32 = 8;

/// Measures and prints.
pub fn run(options: &Options) -> Result<(), Error> {
    check_parameter(options.ot_parameter, "--ot-parameter")?;
    let calibration = Calibration::measure()?;
    let layer = Layer {
        count: options.count as usize,
        width: options.setting.width.into(),
        mask_width: options.setting.width.into(),
        shift: SHIFT,
        servers: options.setting.servers.into(),
        ot_parameter: options.ot_parameter,
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let outcomes =
        runtime.map_err(|_| Error::no_runtime())?.block_on(until_interrupted(&layer, options, 1))?;
    let figures = Figures::new(&layer, &outcomes);
    let exact = outcomes.iter().find_map(|o| o.exact).unwrap_or(false);
    terminal::print(&if options.json {
        figures.json(&layer, &outcomes, exact, &calibration)
    } else {
        figures.table(&layer, &outcomes) + "\n" + &calibration.table()
    });
    if exact {
        return Ok(());
    }
    Err(Error::Failed("results differ from the plaintext computation: please report this".to_owned()))
}

/// Runs one server, which [`run`] started.
pub fn run_party() -> Result<(), Error> {
    party::run()
}

/// What a layer costs each of its servers, in order, so many bundles of it and one inference; for a result that is wrong,
/// an error.
pub(super) fn short(layer: &Layer, bundles: u8) -> Result<Vec<Outcome>, Error> {
    let setting = Setting { servers: layer.servers as u8, width: layer.width as u8 };
    let options = Options {
        setting,
        count: layer.count as u32,
        ot_parameter: layer.ot_parameter,
        memory: 256,
        slow_link: None,
        json: false,
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let outcomes =
        runtime.map_err(|_| Error::no_runtime())?.block_on(until_interrupted(layer, &options, bundles))?;
    match outcomes.iter().find_map(|outcome| outcome.exact) {
        Some(true) => Ok(outcomes),
        _ => {
            Err(Error::Failed("results differ from the plaintext computation: please report this".to_owned()))
        }
    }
}

/// From the temporary folder to the end of all servers, whatever happens in between.
async fn until_interrupted(layer: &Layer, options: &Options, bundles: u8) -> Result<Vec<Outcome>, Error> {
    let mut interrupted = interrupt::listen()?;
    let folder = tempfile::Builder::new().prefix("seco-bench-").tempdir();
    let folder = folder.map_err(|e| Error::write(&std::env::temp_dir(), e))?;
    tokio::select! {
        result = measure(layer, folder.path().to_owned(), options, bundles) => result,
        () = interrupted.wait() => Err(Error::Interrupted),
    }
}

async fn measure(
    layer: &Layer,
    directory: PathBuf,
    options: &Options,
    bundles: u8,
) -> Result<Vec<Outcome>, Error> {
    let memory = (options.memory as usize).saturating_mul(1 << 20);
    let mut identities = Vec::with_capacity(layer.servers);
    for _ in 0..layer.servers {
        let (certificate, key) =
            keys::self_signed().map_err(|e| Error::Failed(format!("making a certificate failed: {e}")))?;
        identities.push(Identity { certificate: certificate.der().to_vec(), key: key.serialize_der() });
    }
    let mut bundle = [0; 16];
    keys::random(&mut bundle)?;
    // The last first: each dials those with a higher number.
    let mut addresses = vec![None; layer.servers];
    let mut servers = Vec::with_capacity(layer.servers);
    let mut relay = None;
    for me in (0..layer.servers).rev() {
        let job = Job {
            me,
            certificates: identities.iter().map(|identity| identity.certificate.clone()).collect(),
            key: identities.get_mut(me).map(|identity| std::mem::take(&mut identity.key)).unwrap_or_default(),
            addresses: addresses.clone(),
            layer: (layer.count, layer.width, layer.shift),
            ot_parameter: layer.ot_parameter,
            bundle,
            directory: directory.clone(),
            memory,
            bundles,
        };
        let mut server = Process::start(format!("server {me}"), "relu-party", &job).await?;
        let Word::Listening(address) = server.word().await? else { return Err(server.confused()) };
        addresses[me] = Some(address);
        if let (1, Some(delay)) = (me, options.slow_link) {
            let slow = Relay::start(address, Duration::from_millis(delay)).await;
            let slow = slow.map_err(|e| Error::bind("UDP", address, e))?;
            addresses[me] = Some(relay.insert(slow).address());
        }
        servers.push(server);
    }
    servers.reverse();
    let mut outcomes = Vec::with_capacity(layer.servers);
    for server in &mut servers {
        let Word::Done(outcome) = server.word().await? else { return Err(server.confused()) };
        outcomes.push(outcome);
    }
    for server in &mut servers {
        server.end().await?;
    }
    Ok(outcomes)
}

/// What follows from the servers' counts, all of them together but for what is stored.
struct Figures {
    ands: f64,
    and_per_cpu_s: f64,
    and_per_s: f64,
    eval_and_per_cpu_s: f64,
    /// For one ReLU: preprocessing, then the online phase.
    bytes: [f64; 2],
    cpu_us: [f64; 2],
    /// Bytes of UDP payload in preprocessing.
    udp_bytes: f64,
    /// What the evaluator keeps.
    stored_bytes: f64,
}

impl Figures {
    fn new(layer: &Layer, outcomes: &[Outcome]) -> Self {
        let ands = layer.and_gates() as f64;
        let sum = |of: &dyn Fn(&Outcome) -> f64| outcomes.iter().map(of).sum::<f64>();
        let seconds = |of: &dyn Fn(&Outcome) -> Duration| sum(&|o| of(o).as_secs_f64());
        let longest = outcomes.iter().map(|o| o.preprocessing.wall).max().unwrap_or_default();
        let evaluator = outcomes.get(layer.evaluator()).map_or(0.0, |o| o.online.cpu.as_secs_f64());
        let cpu = [seconds(&|o| o.preprocessing.cpu), seconds(&|o| o.online.cpu)];
        let count = layer.count as f64;
        Self {
            ands,
            and_per_cpu_s: ands / cpu[0].max(1e-9),
            and_per_s: ands / longest.as_secs_f64().max(1e-9),
            eval_and_per_cpu_s: ands / evaluator.max(1e-9),
            bytes: [sum(&|o| o.preprocessing.sent as f64), sum(&|o| o.online.sent as f64)].map(|b| b / count),
            cpu_us: cpu.map(|cpu| cpu * 1e6 / count),
            udp_bytes: sum(&|o| o.preprocessing.udp as f64) / count,
            stored_bytes: layer.stored_bytes() as f64 / count,
        }
    }

    fn json(&self, layer: &Layer, outcomes: &[Outcome], exact: bool, calibration: &Calibration) -> String {
        let seconds = |of: &dyn Fn(&Outcome) -> Duration| -> Vec<f64> {
            outcomes.iter().map(|o| of(o).as_secs_f64()).collect()
        };
        let peak: Vec<u64> = outcomes.iter().map(|o| o.peak_memory).collect();
        json!({
            "servers": layer.servers,
            "count": layer.count,
            "width": layer.width,
            "ot_parameter": layer.ot_parameter,
            "and_gates": self.ands,
            "and_gates_per_relu": self.ands / layer.count as f64,
            "bytes_per_relu": self.bytes[0],
            "udp_bytes_per_relu": self.udp_bytes,
            "cpu_us_per_relu": self.cpu_us[0],
            "online_bytes_per_relu": self.bytes[1],
            "online_cpu_us_per_relu": self.cpu_us[1],
            "stored_bytes_per_relu": self.stored_bytes,
            "and_per_cpu_s": self.and_per_cpu_s,
            "and_per_s": self.and_per_s,
            "eval_and_per_cpu_s": self.eval_and_per_cpu_s,
            "peak_memory_bytes": peak,
            "preprocessing_cpu_s": seconds(&|o| o.preprocessing.cpu),
            "preprocessing_s": seconds(&|o| o.preprocessing.wall),
            "online_cpu_s": seconds(&|o| o.online.cpu),
            "online_s": seconds(&|o| o.online.wall),
            "exact": exact,
            "calibration": calibration.json(),
        })
        .to_string()
    }

    fn table(&self, layer: &Layer, outcomes: &[Outcome]) -> String {
        let per_relu = self.ands / layer.count as f64;
        let mut text = format!(
            "{} servers, {} ReLUs of {} bits: {} AND gates, {per_relu} for each\n\n",
            layer.servers, layer.count, layer.width, self.ands
        );
        for (what, value, unit) in [
            ("preprocessing", self.cpu_us[0], "µs of CPU per ReLU, all servers"),
            ("", self.bytes[0], "bytes per ReLU, all links"),
            ("", self.and_per_cpu_s / 1e6, "M AND per CPU-second of all servers"),
            ("", self.and_per_s / 1e6, "M AND per second"),
            ("kept by the evaluator", self.stored_bytes, "bytes per ReLU"),
            ("online", self.cpu_us[1], "µs of CPU per ReLU, all servers"),
            ("", self.bytes[1], "bytes per ReLU, all links"),
            ("", self.eval_and_per_cpu_s / 1e6, "M AND per CPU-second of the evaluator"),
        ] {
            let _ = writeln!(text, "{what:<24}{value:>10.2} {unit}");
        }
        text += "\nserver    preprocessing CPU-s    wall s    online CPU-s    wall s    peak memory MB\n";
        for (i, o) in outcomes.iter().enumerate() {
            let _ = writeln!(
                text,
                "{:<10}{:>19.2}{:>10.2}{:>16.2}{:>10.2}{:>18.0}",
                if i == layer.evaluator() { format!("{i} (eval)") } else { i.to_string() },
                o.preprocessing.cpu.as_secs_f64(),
                o.preprocessing.wall.as_secs_f64(),
                o.online.cpu.as_secs_f64(),
                o.online.wall.as_secs_f64(),
                o.peak_memory as f64 / 1e6
            );
        }
        text
    }
}
