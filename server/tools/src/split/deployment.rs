//! The file that a device needs.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use seco_model::graph::Last;
use seco_model::{Graph, Reals};
use seco_node::keys::{self, KeyFiles};
use seco_node::service::part::{model_info, read_part};
use seco_sdk::{Address, CertificatePin, Deployment, Quantise};

use crate::Error;

/// What a device's deployment file is made of.
#[derive(Clone, Debug, clap::Args)]
pub struct DeploymentOptions {
    /// Where devices reach the gateway. A host name is theirs to look up, and they reach it in IPv6-only networks too.
    #[arg(long, value_name = "HOST:PORT")]
    pub address: String,
    /// The gateway's certificate.
    #[arg(long, value_name = "FILE")]
    pub certificate: PathBuf,
    /// The sealing key (NAME.sealing.pub) of each server, in their order: once for each.
    #[arg(long = "sealing-key", value_name = "FILE", required = true)]
    pub sealing_keys: Vec<PathBuf>,
    /// A server's model file, for the model's id and shapes.
    #[arg(long, value_name = "FILE")]
    pub model: PathBuf,
    /// Names of the classes, one a line, in the order of the first output.
    #[arg(long, value_name = "FILE")]
    pub classes: Option<PathBuf>,
    /// For applications that give real numbers, where the model was split with inputs that were values: what one step of an input value stands for, one number or one for each
    /// channel. A network made for x / 255, say, takes them with 0.00392156862745098, or with that / STD and the offset
    /// -MEAN / STD where it was split with --mean and --std.
    #[arg(long, value_delimiter = ',', value_name = "S")]
    pub real_scale: Vec<f64>,
    /// The real number that an input value of 0 stands for, likewise [default: 0].
    #[arg(long, value_delimiter = ',', value_name = "O", allow_negative_numbers = true)]
    pub real_offset: Vec<f64>,
    /// Where the file goes, and who may replace it.
    #[command(flatten)]
    pub file: FileOptions,
}

/// Where a deployment file goes, and who may replace it.
#[derive(Clone, Debug, clap::Args)]
pub struct FileOptions {
    /// The owner's key (`seco keygen --owner`): signs the file, so that the gateway can pass it on to devices that have
    /// an older one of the same owner.
    #[arg(long, value_name = "FILE")]
    pub owner: Option<PathBuf>,
    /// With --owner: the file's number, larger than that of the one before [default: the seconds since 1970].
    #[arg(long, value_name = "N", requires = "owner")]
    pub serial: Option<u64>,
    /// The file to write.
    #[arg(long, value_name = "FILE")]
    pub out: PathBuf,
    /// Overwrite the file if it exists.
    #[arg(long)]
    pub force: bool,
}

impl DeploymentOptions {
    /// Of servers with these keys, the gateway's first; nothing is overwritten, and applications give input values.
    pub fn new(address: String, servers: &[KeyFiles], model: PathBuf, out: PathBuf) -> DeploymentOptions {
        DeploymentOptions {
            address,
            certificate: servers.first().map(|keys| keys.certificate.clone()).unwrap_or_default(),
            sealing_keys: servers.iter().map(|keys| keys.sealing_key.clone()).collect(),
            model,
            classes: None,
            real_scale: Vec::new(),
            real_offset: Vec::new(),
            file: FileOptions { owner: None, serial: None, out, force: false },
        }
    }
}

/// Names of classes, one a line.
pub(crate) fn class_names(path: &Path) -> Result<Vec<String>, Error> {
    let text = fs::read_to_string(path).map_err(|e| Error::read(path, e))?;
    Ok(text.lines().map(|line| line.trim().to_owned()).filter(|line| !line.is_empty()).collect())
}

/// Writes the deployment file. Nothing in it is secret.
pub fn deployment(options: &DeploymentOptions) -> Result<Deployment, Error> {
    let DeploymentOptions {
        address,
        certificate,
        sealing_keys,
        model,
        classes,
        real_scale,
        real_offset,
        file,
    } = options;
    check_new(&file.out, file.force)?;
    let address = gateway_address(address)?;
    let part = read_part(model)?;
    let (architecture, info) = (part.architecture(), model_info(&part));
    if sealing_keys.len() != architecture.servers {
        return Err(Error::Usage(format!(
            "{} --sealing-key are given, but the model is split among {} servers",
            sealing_keys.len(),
            architecture.servers
        )));
    }
    let classes = classes.as_deref().map(class_names).transpose()?.unwrap_or_default();
    let server = |path: &PathBuf| {
        let name = path.file_name().map(|name| name.to_string_lossy()).unwrap_or_default();
        let name = name.strip_suffix(".sealing.pub").unwrap_or(&name).to_owned();
        Ok(seco_sdk::Server { name, sealing_key: keys::sealing_key(path)? })
    };
    let deployment = Deployment {
        version: Deployment::version_of(architecture.graph.input.bits),
        gateway: seco_sdk::Gateway {
            address,
            server_name: keys::TLS_NAME.to_owned(),
            // The present one and the next, where the file has both.
            pins: keys::certificates(certificate)?.iter().map(|one| CertificatePin::of(one)).collect(),
        },
        others: Vec::new(),
        model: seco_sdk::Model {
            name: None,
            id: info.id,
            input_shape: architecture.graph.input.shape.clone(),
            input_bits: architecture.graph.input.bits,
            calibrated: architecture.graph.input.calibrated,
            output_width: info.width,
            fraction: Some(architecture.graph.fraction()),
            quantise: quantise(real_scale, real_offset, architecture.graph.input.reals.as_ref())?,
            outputs: outputs(&architecture.graph, &classes),
        },
        update: None,
        servers: sealing_keys.iter().map(server).collect::<Result<_, Error>>()?,
    };
    written(deployment, file)
}

/// Signs a deployment, where its owner's key is given, and writes it. Whatever owner it names gives way.
pub(super) fn written(deployment: Deployment, file: &FileOptions) -> Result<Deployment, Error> {
    let owner = file.owner.as_deref().map(keys::OwnerKey::load).transpose()?;
    let update = owner.as_ref().map(|owner| seco_sdk::Update {
        owner: owner.public(),
        serial: file.serial.unwrap_or_else(seco_node::access::tokens::now),
    });
    let deployment = Deployment { update, ..deployment };
    let mut text = deployment.to_toml().map_err(|e| Error::Usage(e.to_string()))?;
    if let Some(owner) = owner {
        text = Deployment::signed(&text, |message| owner.sign(message));
        if text.len() > seco_sdk::Update::MAX_TEXT {
            return Err(Error::Usage(format!(
                "the file has {} bytes, and a gateway can pass on {}: give shorter --classes, fewer features or models, or \
                 no --owner",
                text.len(),
                seco_sdk::Update::MAX_TEXT
            )));
        }
    }
    fs::write(&file.out, text).map_err(|e| Error::write(&file.out, e))?;
    Ok(deployment)
}

/// How real numbers become input values, if they do: as the options say, else as the model does.
fn quantise(scale: &[f64], offset: &[f64], model: Option<&Reals>) -> Result<Option<Quantise>, Error> {
    if model.is_some() && !(scale.is_empty() && offset.is_empty()) {
        return Err(Error::Usage(
            "--real-scale and --real-offset are for a model that was split with values, and this one says itself what its values stand for: \
             leave them out"
                .to_owned(),
        ));
    }
    match (scale, offset) {
        ([], []) => {
            Ok(model.map(|Reals { scale, offset }| Quantise { scale: scale.clone(), offset: offset.clone() }))
        }
        ([], _) => Err(Error::Usage("--real-offset needs --real-scale".to_owned())),
        (_, []) => Ok(Some(Quantise { scale: scale.to_vec(), offset: vec![0.0] })),
        _ => Ok(Some(Quantise { scale: scale.to_vec(), offset: offset.to_vec() })),
    }
}

/// A deployment file must not be lost unnoticed: devices have it, and its cluster may still run.
pub fn check_new(path: &Path, force: bool) -> Result<(), Error> {
    if path.exists() && !force {
        return Err(Error::Exists {
            path: path.to_owned(),
            remedy: "choose another, or overwrite it with --force",
        });
    }
    Ok(())
}

/// An address for devices, which look its name up where they are.
fn gateway_address(text: &str) -> Result<Address, Error> {
    let address: Address =
        text.parse().map_err(|what| Error::Usage(format!("--address {text:?} is not {what}")))?;
    if text.parse::<SocketAddr>().is_ok_and(|address| address.ip().is_unspecified()) {
        return Err(Error::Usage(format!("--address {text}: give an address that devices can send to")));
    }
    Ok(address)
}

/// What devices know of its outputs. `classes` are the first one's names, or none.
fn outputs(graph: &Graph, classes: &[String]) -> Vec<seco_sdk::Output> {
    let output = |(index, output): (usize, &seco_model::graph::Output)| seco_sdk::Output {
        name: output.name.clone(),
        shape: output.shape.clone(),
        scale: output.scale,
        last: match output.last {
            Last::Nothing => seco_sdk::Last::None,
            Last::Softmax => seco_sdk::Last::Softmax,
            Last::LogSoftmax => seco_sdk::Last::LogSoftmax,
            Last::Sigmoid => seco_sdk::Last::Sigmoid,
            Last::Tanh => seco_sdk::Last::Tanh,
            Last::ArgMax => seco_sdk::Last::Argmax,
            Last::Index => seco_sdk::Last::Index,
        },
        classes: if index == 0 { classes.to_vec() } else { Vec::new() },
    };
    graph.outputs.iter().enumerate().map(output).collect()
}
