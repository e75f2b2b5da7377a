//! The `seco` command line.

use std::net::ToSocketAddrs as _;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use seco_node::operation::log::{self, Log};
use seco_node::serve::{ServeOptions, serve};
use seco_node::versions::Versions;
use seco_node::{fingerprint, keys, memory};
use seco_tools::split::{Choices, DeploymentOptions, JoinOptions, SplitOptions, deployment, join, split};
use seco_tools::{Error, admin, check, doctor, infer, init, token};

/// Private neural-network inference over several servers that do not trust each other.
#[derive(Parser)]
#[command(name = "seco", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Make keys and settings of a whole sample cluster.
    Init(init::Options),
    /// Run a server: the gateway (index 0) or a remote.
    #[command(after_help = SERVE_HELP)]
    Serve(Serve),
    /// Ask a running server what it is doing, or give it orders.
    Admin(admin::Options),
    /// Find out what keeps a server, or a device, from working.
    Doctor(doctor::Options),
    /// Make the keys of one server.
    Keygen(Keygen),
    /// Print what two operators read to each other, to see that a key that was sent is the one that came.
    Fingerprint(Fingerprint),
    /// Try an ONNX model: does it work, how exact is it, what does it cost.
    Check(check::Options),
    /// Make, list and revoke the tokens by which a gateway tells who may use it.
    Token(token::Options),
    /// Turn an ONNX model into one file for each server.
    Split(Split),
    /// Write the file that devices need to use a cluster.
    Deployment(DeploymentOptions),
    /// Join the deployment files of one cluster's models into one that names them all.
    Join(JoinOptions),
    /// Start a whole cluster on this machine and predict digits with it.
    #[cfg(feature = "lab")]
    Demo(seco_lab::demo::Options),
    /// Ask a cluster for predictions, as a device does.
    Infer(infer::Options),
    /// Measure what parts of the protocol cost.
    #[cfg(feature = "lab")]
    #[command(subcommand)]
    Bench(seco_lab::bench::Bench),
}

/// What a server tells, and how to hear it.
const SERVE_HELP: &str = "\
What happens is told in lines on standard error, among them one that says `ready`, once devices are
served. SECO_LOG says how much: error, warn, info (as usual), debug or trace, for all or by module, such as
SECO_LOG=warn,seco_node=debug. `seco admin log` changes it while the server runs, where it has an [admin] port;
`seco admin --help` says what else can be asked and ordered there.
Told to stop (SIGTERM, Ctrl-C, `seco admin drain`), a server takes no new requests and ends when those under way
have ended, or after [limits] infer_s; told a second time, at once.

With --events, programs are told on standard output, one JSON object a line; `event` says what it is:
  listening   the sockets are open: `mesh`, and `device` on the gateway
  ready       the cluster is set up for a model: `device` (where devices are served, on the gateway), `devices` (how many
              at most), `seconds` it took
  bundle      a bundle was made: `pool` (bundles ready), `seconds`
  inference   a request was answered: `pool`, `seconds`
  failed      something went wrong: `what`; the server goes on unless it ends
All have `server` (its index), most `mesh_bytes_sent` (bytes sent to other servers so far); the second to fourth have
`model` (the start of its id): with several models each has its own.";

#[derive(Args)]
struct Serve {
    /// The server's settings: `seco init` writes them with every key explained.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Print what happens as JSON lines on standard output (see below).
    #[arg(long)]
    events: bool,
    /// How lines of the log look.
    #[arg(long, value_enum, default_value_t = LogFormat::Text)]
    log_format: LogFormat,
    /// Stop when standard input ends.
    #[arg(long)]
    with_parent: bool,
    /// For tests of upgrades: the versions of the protocol between servers that it says to speak, such as 7-8.
    #[cfg(feature = "lab")]
    #[arg(long, hide = true, value_name = "RANGE")]
    versions: Option<Versions>,
}

/// What `--log-format` asks for.
#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum LogFormat {
    /// Lines for people.
    Text,
    /// One JSON object a line.
    Json,
}

#[derive(Args)]
struct Keygen {
    /// Directory of the keys.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Name of the server; the files are called after it.
    #[arg(long)]
    name: String,
    /// Makes the key of the owner of deployment files instead (see `seco deployment --owner`, `seco join --owner`): NAME.owner.key.
    #[arg(long)]
    owner: bool,
}

#[derive(Args)]
struct Fingerprint {
    /// Public files of a server: NAME.cert.pem and NAME.sealing.pub.
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
}

#[derive(Args)]
struct Split {
    /// The model.
    #[arg(long, value_name = "FILE.onnx")]
    model: PathBuf,
    /// Typical inputs, uint8 or uint16, first axis the samples; they choose the width of every layer.
    #[arg(long, value_name = "FILE.npy")]
    calibrate: PathBuf,
    /// Number of servers, the gateway included.
    #[arg(long, value_name = "N")]
    servers: usize,
    #[command(flatten)]
    choices: Choices,
    /// Directory of the results; if `seco init` made it, each part goes to its server's folder.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
}

fn main() -> ExitCode {
    memory::keep();
    let Cli { command } = Cli::parse();
    if has_secrets(&command) {
        memory::keep_secret();
    }
    // The servers of a measurement start and stop all the time.
    let usual = if measures(&command) { "error" } else { "error,seco=info,seco_node=info,seco_tools=info" };
    let format = match &command {
        Command::Serve(Serve { log_format: LogFormat::Json, .. }) => log::Format::Json,
        _ => log::Format::Text,
    };
    let log = log::start(format, usual);
    match run(command, log) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("seco: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Whether it has keys, a network's weights or somebody's inputs in its memory.
fn has_secrets(command: &Command) -> bool {
    match command {
        Command::Admin(_) => false,
        // A profiler must see what is measured, and all of it is made for the measurement.
        #[cfg(feature = "lab")]
        Command::Bench(_) => false,
        _ => true,
    }
}

/// Whether it measures or examines: its servers and handshakes are no news.
fn measures(command: &Command) -> bool {
    match command {
        Command::Check(_) | Command::Doctor(_) => true,
        #[cfg(feature = "lab")]
        Command::Bench(_) => true,
        _ => false,
    }
}

/// How `seco check` measures this machine.
#[cfg(feature = "lab")]
fn measure() -> Option<check::Measure<'static>> {
    Some(&|width, sizes| seco_lab::bench::rates::measure(width, sizes).map_err(|error| error.to_string()))
}

/// Without the laboratory it does not.
#[cfg(not(feature = "lab"))]
fn measure() -> Option<check::Measure<'static>> {
    None
}

fn run(command: Command, log: Log) -> Result<(), Error> {
    match command {
        Command::Init(options) => {
            println!("{}", init::init(&options)?);
            Ok(())
        }
        Command::Serve(Serve {
            config,
            events,
            with_parent,
            #[cfg(feature = "lab")]
            versions,
            ..
        }) => {
            #[cfg(not(feature = "lab"))]
            let versions = None;
            let versions = versions.unwrap_or(Versions::OURS);
            Ok(serve(&ServeOptions { config, events, log: Some(log), versions, with_parent })?)
        }
        Command::Keygen(Keygen { out, name, owner: true }) => {
            println!("secret, for the owner only: {}", keys::generate_owner(&out, &name)?.display());
            Ok(())
        }
        Command::Keygen(Keygen { out, name, owner: false }) => {
            let files = keys::generate(&out, &name)?;
            println!("secret, for this server only: {} {}", files.key.display(), files.opening_key.display());
            println!("for the other servers:        {}", files.certificate.display());
            println!("for the deployment file:      {}", files.sealing_key.display());
            Ok(())
        }
        Command::Fingerprint(Fingerprint { files }) => {
            // All are read first: what is compared is all that was asked for.
            let found: Result<Vec<_>, _> = files.iter().map(|path| fingerprint::of_file(path)).collect();
            for (path, keys) in files.iter().zip(found?) {
                match keys.len() {
                    1 => println!("{}", path.display()),
                    // Somebody may have added his own.
                    several => println!("{}: {several} certificates", path.display()),
                }
                keys.iter().for_each(|key| println!("  {key}"));
            }
            Ok(())
        }
        Command::Split(Split { model, calibrate, servers, choices, out }) => {
            let made = split(&SplitOptions::new(model, calibrate, servers, out).with(choices))?;
            print!("{made}");
            made.warnings().iter().for_each(|warning| eprintln!("seco: warning: {warning}"));
            Ok(())
        }
        Command::Deployment(options) => {
            let made = deployment(&options)?;
            let shown = options.file.out.display();
            let address = made.gateway.address;
            println!("{shown}: for devices, which reach the gateway at {address}");
            if let Err(error) = address.as_str().to_socket_addrs() {
                eprintln!(
                    "seco: warning: --address {address}: cannot be resolved here ({error}): check the name"
                );
            }
            Ok(())
        }
        Command::Join(options) => {
            let made = join(&options)?;
            let names: Vec<&str> = made.model_names().collect();
            println!("{}: for devices, with the models {}", options.file.out.display(), names.join(", "));
            Ok(())
        }
        Command::Admin(options) => admin::run(&options),
        Command::Doctor(options) => doctor::run(&options),
        Command::Token(options) => token::run(&options),
        Command::Check(options) => check::run(&options, measure()),
        Command::Infer(options) => infer::run(&options),
        #[cfg(feature = "lab")]
        Command::Demo(options) => seco_lab::demo::run(&options),
        #[cfg(feature = "lab")]
        Command::Bench(what) => seco_lab::bench::run(&what),
    }
}
