//! `seco bench paper`: the measurements of the paper (Chen and Khisti, arXiv 2404.16232), made with this program on
//! this machine, and the paper's own figures beside them, in one report.
//!
//! # What is measured
//!
//! - *SECO*: a gateway and remotes, processes of their own as `seco demo` starts them. The gateway holds the first
//!   linear layers alone, the remotes share the others.
//! - *DELPHI*: the two parties of `seco bench device`, whose documentation says what is DELPHI's and what is not.
//! - *Without privacy*: a server that has the network in clear and sees the input; the same QUIC at the user's end.
//!
//! Every repetition starts its processes anew. The user is a process too. All answers are compared with the plaintext
//! fixed-point network's. `figures::Cost` has what is told of each party.
//!
//! # How
//!
//! - *CPU*: all threads, kernel included. The user's and DELPHI's parties' from the process clock; that of SECO's
//!   servers from `/proc`, in steps of 10 ms over all requests and bundles of a repetition.
//! - *Bytes*: SECO and the plain request: UDP payload, QUIC's acknowledgements included. DELPHI: frames of messages on
//!   TCP, without TLS, TCP and IP.
//! - *Memory*: the most that was resident in the process (`VmHWM`), code and libraries included.
//! - *Storage*: SECO: files of bundles, by the servers' own count. DELPHI: what follows from the plan, for it keeps
//!   its bundle in memory.
//! - *Waiting*: from request to answer at the user, mean of all requests. DELPHI: until both parties are done.
//! - *Networks*: `lan` is loopback. `wan` puts a relay between the user and the servers, which delays by 20 ms one way
//!   and lets through 200 Mbit/s in each direction. The relay's work is done by this machine's processors too.
//!
//! # JSON
//!
//! `report.json`, and standard output with `--json`: `runs` is a list with an object for each configuration, the mean
//! of its repetitions:
//!
//! | field | |
//! |---|---|
//! | `system`, `model`, `server_count`, `gateway_layers`, `network` | what it is; `seco`, `delphi` or `plain`; `lan` or `wan` |
//! | `user`, `servers` | a cost, and a list of them: `figures::Cost` |
//! | `waiting_s`, `preprocessing_s`, `setup_s` | for one prediction; the set-up once |
//! | `load_at_start` | work of others for each core when the command began that measured it |
//! | `equal`, `count` | answers equal to the plaintext's, and answers, of all repetitions |
//! | `repetitions`, `spread` | how many, and for every figure `mean`, `min`, `max`, `runs`, `within` (`figures::Spread`) |
//!
//! With `--peers` there are objects of other systems too (`spu-cheetah`, `spu-semi2k`, `crypten`, `onnxruntime`), as a
//! script measured them; `peers::Peer::json` says what more they have. `gateway_layers` is `null` there, and `equal`
//! counts what `compared` says: these systems are not exact. What they are not comparable in stands in `notes`.
//!
//! `models`, `comparison` (DELPHI against SECO), `paper` (the paper's figures), `device` (instructions, by
//! `cross/cost`), `machine`, `command`, `left_out` and `method` explain the rest. What was not measured is `null`.

mod delphi;
mod figures;
mod kept;
mod machine;
mod models;
mod onnx;
mod peers;
mod plain;
mod plan;
mod report;
mod runs;
mod seco;
mod user;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use seco_tools::{interrupt, terminal};

use self::figures::{Network, Sample, System};
use self::kept::Kept;
use self::machine::Machine;
use self::models::Model;
use self::peers::Peers;
use self::plan::Part;
use self::report::Report;
use crate::Error;
use crate::relay::Link;

/// Where models are looked for, if nothing is said.
const MODELS: &str = "../shared/models";
/// `--quick` starts nothing that would end later than this.
const QUICK_LIMIT: Duration = Duration::from_secs(560);
/// And gives up what takes longer than was thought.
const QUICK_END: Duration = Duration::from_secs(590);

/// What `seco bench paper` is asked for.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// At most ten minutes on two cores: small networks, and of ResNet-32 the one placement that is compared.
    #[arg(long)]
    pub quick: bool,
    /// Networks: minionn, lenet, resnet32, mlp [default: the first three].
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    pub model: Vec<String>,
    /// How many linear layers the gateway holds [default: 1 to all but one; ResNet-32: the paper's series].
    #[arg(long, value_name = "L", value_delimiter = ',')]
    pub gateway_layers: Vec<usize>,
    /// Repetitions of everything [default: 3].
    #[arg(long, value_name = "N", value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(1..=100))]
    pub runs: Option<usize>,
    /// Requests of a repetition, on each network [default: 34, DELPHI 10; ResNet-32: 5, DELPHI and --quick 1].
    #[arg(long, value_name = "R", value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(1..=1000))]
    pub requests: Option<usize>,
    /// Trained networks and test data; without it, or where one is missing, what comes with the program is taken, or
    /// random weights [default: ../shared/models, if there is such a folder].
    #[arg(long, value_name = "DIR")]
    pub models: Option<PathBuf>,
    /// What cross/cost measured, for the device's instructions.
    #[arg(long, value_name = "FILE", default_value = "cross/report/report.json")]
    pub device_report: PathBuf,
    /// What scripts measured of systems of others on this machine, a file or a folder of them: server/lab/peers/run
    /// writes it.
    #[arg(long, value_name = "PATH")]
    pub peers: Option<PathBuf>,
    /// Where the report goes, and parts that are finished.
    #[arg(long, value_name = "DIR", default_value = "report")]
    pub out: PathBuf,
    /// Measures everything again, also what is there from an earlier start of the same command.
    #[arg(long)]
    pub fresh: bool,
    /// Prints the report as one JSON object and nothing else.
    #[arg(long)]
    pub json: bool,
}

/// The link between a user on this network and the servers.
fn user_link(network: Network) -> Option<Link> {
    let wide = Link { delay: Duration::from_millis(20), rate: Some(200_000_000) };
    (network == Network::Wan).then_some(wide)
}

/// Measures, and writes the report.
pub fn run(options: &Options) -> Result<(), Error> {
    for model in &options.model {
        if !models::is_known(model) {
            return Err(Error::Usage(format!("--model {model}: give some of {}", models::names())));
        }
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime = runtime.map_err(|_| Error::no_runtime())?;
    let report = runtime.block_on(until_interrupted(options));
    runtime.shutdown_timeout(Duration::from_secs(1));
    let report = report?;
    report.write(&options.out)?;
    let page = options.out.join("index.html");
    if options.json {
        terminal::print(&report.json().to_string());
    } else {
        terminal::print(&report.summary(&page));
    }
    match report.wrong() {
        0 => Ok(()),
        wrong => Err(Error::Failed(format!(
            "{wrong} answers differ from the plaintext computation: please report this"
        ))),
    }
}

/// A user's process, which [`run`] started.
pub fn run_user() -> Result<(), Error> {
    user::run()
}

/// The server without privacy, which [`run`] started.
pub fn run_server() -> Result<(), Error> {
    plain::run()
}

async fn until_interrupted(options: &Options) -> Result<Report, Error> {
    let mut interrupted = interrupt::listen()?;
    tokio::select! {
        result = measure(options) => result,
        () = interrupted.wait() => Err(Error::Interrupted),
    }
}

/// Everything, in order; what is kept from an earlier start is not measured again.
async fn measure(options: &Options) -> Result<Report, Error> {
    let start = Instant::now();
    let peers = options.peers.as_deref().map(Peers::read).transpose()?.unwrap_or_default();
    let machine = Machine::look()?;
    let load_at_start = machine.load_at_start;
    let end = options.quick.then(|| start + QUICK_END);
    let folder = options.models.clone().or_else(|| Some(MODELS.into()).filter(|f: &PathBuf| f.is_dir()));
    let kept = Kept::open(&options.out, &machine, folder.as_deref(), options.fresh)?;
    let names: Vec<String> = match options.model.as_slice() {
        [] => ["minionn", "lenet", "resnet32"].map(str::to_owned).to_vec(),
        some => some.to_vec(),
    };
    let mut all: Vec<Part> =
        names.iter().flat_map(|name| plan::parts(options, name, models::linear_layers(name))).collect();
    // All first repetitions before all second ones: an early end leaves a whole report.
    // Where time is short, the network that is compared with the paper comes before the small ones.
    let small = |part: &Part| options.quick && models::linear_layers(&part.model) < 10;
    all.sort_by_key(|part| (part.repetition, small(part)));
    let mut clock = Estimate::new(&kept, &all);
    let limit = if options.quick { ", nothing begins that may end after ten" } else { "" };
    terminal::note(&format!("{} parts, about {}{limit}", all.len(), minutes(clock.left(&all))));

    let mut report = Report::new(options, machine);
    report.left_out.extend(peers.skipped.clone());
    report.peers = peers;
    let source = |name: &String| Source { name: name.clone(), folder: folder.clone(), loaded: None };
    let mut sources: Vec<Source> = names.iter().map(source).collect();
    for (number, part) in (1..).zip(&all) {
        let Some(source) = sources.iter_mut().find(|source| source.name == part.model) else { continue };
        let samples = match kept.samples(part) {
            Some((samples, _)) => samples,
            None if options.quick
                && start.elapsed().as_secs_f64() + clock.of(part) > QUICK_LIMIT.as_secs_f64() =>
            {
                report.left_out.push(format!("{}: there was no time for it in ten minutes", part.title()));
                continue;
            }
            None => {
                let work = async {
                    let model = source.model(&kept).await?;
                    let since = Instant::now();
                    let samples = one(model, part).await?;
                    Ok::<_, Error>((samples, since.elapsed().as_secs_f64()))
                };
                let Some(done) = until(end, work).await else {
                    report.left_out.push(format!("{}: it was not done in ten minutes", part.title()));
                    continue;
                };
                let (mut samples, seconds) = done?;
                samples.iter_mut().for_each(|sample| sample.load_at_start = load_at_start);
                kept.keep(part, &samples, seconds)?;
                clock.note(part, seconds);
                let left = minutes(clock.left(&all));
                terminal::note(&format!(
                    "[{number}/{}] {}: {seconds:.1} s; about {left} to go",
                    all.len(),
                    part.title()
                ));
                samples
            }
        };
        report.runs.add(part, samples);
    }
    for source in &mut sources {
        let facts = match kept.facts(&source.name) {
            Some(facts) => facts,
            // Nothing was measured of it.
            None if report.runs.0.iter().all(|run| run.model != source.name) => continue,
            None => source.model(&kept).await?.facts.clone(),
        };
        report.models.push(facts);
    }
    report.seconds = start.elapsed().as_secs_f64();
    Ok(report)
}

/// The work's result; `None` if it is not done by `end`, when whatever it started is stopped.
async fn until<T>(end: Option<Instant>, work: impl Future<Output = T>) -> Option<T> {
    match end {
        Some(end) => tokio::time::timeout_at(end.into(), work).await.ok(),
        None => Some(work.await),
    }
}

/// A network that is loaded when it is needed.
struct Source {
    name: String,
    folder: Option<PathBuf>,
    loaded: Option<(Model, tempfile::TempDir)>,
}

impl Source {
    /// Loads it the first time, and keeps what is told of it.
    async fn model(&mut self, kept: &Kept) -> Result<&Model, Error> {
        let loaded = match self.loaded.take() {
            Some(loaded) => loaded,
            None => {
                terminal::note(&format!("{}: choosing its numbers", models::title(&self.name)));
                let (name, folder) = (self.name.clone(), self.folder.clone());
                let place = temporary()?;
                let load =
                    move || Model::load(&name, folder.as_deref(), place.path()).map(|model| (model, place));
                let loaded = tokio::task::spawn_blocking(load).await.map_err(|_| Error::no_runtime())??;
                kept.keep_facts(&loaded.0.facts)?;
                loaded
            }
        };
        Ok(&self.loaded.insert(loaded).0)
    }
}

fn temporary() -> Result<tempfile::TempDir, Error> {
    let folder = tempfile::Builder::new().prefix("seco-paper-").tempdir();
    folder.map_err(|e| Error::write(&std::env::temp_dir(), e))
}

async fn one(model: &Model, part: &Part) -> Result<Vec<Sample>, Error> {
    let folder = temporary()?;
    match part.system {
        System::Seco => seco::measure(model, part, folder.path()).await,
        System::Delphi => delphi::measure(model, part, folder.path()).await,
        System::Plain => plain::measure(model, part, folder.path()).await,
        other => Err(Error::Failed(format!("{} is measured by a script", other.name()))),
    }
}

/// How long parts take: as long as others like them did, or a guess.
struct Estimate(Vec<(Part, f64)>);

impl Estimate {
    fn new(kept: &Kept, all: &[Part]) -> Estimate {
        Estimate(all.iter().filter_map(|part| Some((part.clone(), kept.samples(part)?.1))).collect())
    }

    fn note(&mut self, part: &Part, seconds: f64) {
        self.0.push((part.clone(), seconds));
    }

    fn of(&self, part: &Part) -> f64 {
        let guess = |part: &Part| part.guess(models::and_gates(&part.model));
        let of = |like: &dyn Fn(&Part) -> bool| {
            let some: Vec<&(Part, f64)> = self.0.iter().filter(|(other, _)| like(other)).collect();
            let (took, guessed) = some.iter().fold((0.0, 0.0), |(a, b), (p, s)| (a + s, b + guess(p)));
            (guessed > 0.0).then(|| guess(part) * took / guessed)
        };
        of(&|other| part.is_alike(other))
            .or_else(|| of(&|other| other.system == part.system && other.model == part.model))
            .or_else(|| of(&|_| true))
            .unwrap_or_else(|| guess(part))
    }

    /// Of parts that are not there yet.
    fn left(&self, parts: &[Part]) -> f64 {
        parts
            .iter()
            .filter(|part| !self.0.iter().any(|(done, _)| done == *part))
            .map(|part| self.of(part))
            .sum()
    }
}

fn minutes(seconds: f64) -> String {
    match seconds {
        s if s < 90.0 => format!("{:.0} s", s.max(0.0)),
        s if s < 5400.0 => format!("{:.0} min", s / 60.0),
        s => format!("{:.1} h", s / 3600.0),
    }
}
