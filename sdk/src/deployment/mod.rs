//! The deployment file: all that a device must know of a cluster. The operator's tool writes it, the
//! application ships it or fetches it from a source it trusts. Nothing in it is secret, but whoever can change
//! it can read inputs.

mod address;
mod read;
mod update;

pub use address::Address;
pub use update::Update;
pub(crate) use update::no_owner;

use crate::shape::{self, InputForm};
use crate::{Error, Output, Quantise, Result, hex};
use rustls::pki_types::ServerName;
use seco_core::{MAX_SERVERS, MIN_SERVERS, ModelId, ModelInfo, ServerSealingKey};
use serde::{Serialize, Serializer};
use sha2::{Digest, Sha256};
use std::fmt;
use std::path::Path;
use subtle::ConstantTimeEq;

/// A cluster and the models it serves, as a TOML file has them. Unknown keys are refused.
#[derive(Clone, Debug, PartialEq)]
pub struct Deployment {
    /// Version of the file: [`Deployment::version_of`] the model's bits, or [`Deployment::VERSION_OF_SEVERAL`].
    pub version: u8,
    /// Where the gateway is and how to recognise it.
    pub gateway: Gateway,
    /// The model that a client asks: the file's only one, or that which [`Deployment::select`] chose. Before that the first.
    pub model: Model,
    /// Where the file names several models and none has been chosen yet, all but the first: with it at most
    /// [`Deployment::MAX_MODELS`].
    pub others: Vec<Model>,
    /// Who may replace this file, if anybody.
    pub update: Option<Update>,
    /// All servers, the gateway first. Two to eight.
    pub servers: Vec<Server>,
}

/// Where the gateway is and how to recognise it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Gateway {
    /// Host and port: UDP for QUIC, TCP where UDP is blocked.
    pub address: Address,
    /// Name sent in the TLS handshake. Trust comes from the pins alone.
    pub server_name: String,
    /// The certificate's pin, and during a rotation the next one's.
    pub pins: Vec<CertificatePin>,
}

/// A model, as far as the device is concerned (`server/PROTOCOL.md`, section 1: it learns shapes only).
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Model {
    /// What applications call it, in a file of version 5; nothing in those of version 3 and 4, which have one model.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// 64 hexadecimal digits.
    #[serde(serialize_with = "write_model_id")]
    pub id: ModelId,
    /// Extents of the input, for example `[1, 28, 28]`; their product is the number of values.
    pub input_shape: Vec<usize>,
    /// Bits per input value, 1 to 16. Each travels as one byte up to 8 bits, as two with more, the lower byte first.
    pub input_bits: u32,
    /// Smallest and largest value of the inputs that calibrated the model, for example `[0, 255]`. What goes beyond
    /// sets [`Prediction::outside_calibration`](crate::Prediction). None where it is not known.
    pub calibrated: Option<[u16; 2]>,
    /// `k`: bits of each integer of an answer, 2 to 32.
    pub output_width: u32,
    /// Fractional bits of every integer, 0 to 31, where all outputs have the scale `2^-fraction`: for tools that read
    /// integers. The outputs' scales say the same.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fraction: Option<u32>,
    /// How real numbers become input values. None where inputs are such values already, like pixels.
    pub quantise: Option<Quantise>,
    /// What the integers mean, output by output. At least one.
    pub outputs: Vec<Output>,
}

impl Model {
    pub(crate) fn input_form(&self) -> InputForm {
        InputForm {
            shape: self.input_shape.clone(),
            calibrated: self.calibrated,
            bits: self.input_bits,
            quantise: self.quantise.clone(),
        }
    }

    /// Bytes of an input value: one, or two above 8 bits, the lower one first.
    #[must_use]
    pub const fn value_bytes(&self) -> usize {
        shape::value_bytes(self.input_bits)
    }

    /// Its sizes. `at` is where it stands in the file.
    ///
    /// # Errors
    /// [`Error::Deployment`] with the field that is out of range.
    pub(crate) fn info(&self, at: &str) -> Result<ModelInfo> {
        let Self { id, ref input_shape, output_width, ref outputs, .. } = *self;
        let values = outputs.iter().try_fold(0usize, |sum, output| sum.checked_add(output.len()?));
        let each = self.value_bytes();
        let info = ModelInfo {
            id,
            input_len: shape::values(input_shape).and_then(|len| len.checked_mul(each)).unwrap_or(usize::MAX),
            values: values.unwrap_or(usize::MAX),
            width: output_width,
        };
        info.validate().map_err(|error| {
            let field = match error {
                seco_core::Error::Model("input_len") => "input_shape",
                seco_core::Error::Model("values") => "outputs",
                // The only other one.
                _ => "output_width",
            };
            problem_of(at, field, "out of range")
        })?;
        Ok(info)
    }

    /// Checks all of it that its types leave open. `at` is where it stands in the file.
    fn validate(&self, at: &str) -> Result<()> {
        let check =
            |good, field: &str, text: &str| if good { Ok(()) } else { Err(problem_of(at, field, text)) };
        check((1..=16).contains(&self.input_bits), "input_bits", "1 to 16 are possible")?;
        let ordered = self.calibrated.is_none_or(|[least, most]| least <= most);
        check(ordered, "calibrated", "the smallest value comes first, then the largest")?;
        // Of up to 8 bits, any byte: earlier files have it so.
        let widest = self.input_bits.max(u8::BITS);
        let fit = self.calibrated.is_none_or(|[_, largest]| u32::from(largest) >> widest == 0);
        check(fit, "calibrated", "a value is larger than any of the input")?;
        if let Some(fraction) = self.fraction {
            let scale = 2f64.powi(-fraction.min(64).cast_signed());
            let said = fraction <= 31 && self.outputs.iter().all(|output| output.scale == scale);
            check(said, "fraction", "not what the outputs' scales say")?;
        }
        // Each has a value or more.
        check(self.outputs.len() <= ModelInfo::MAX_VALUES, "outputs", "there are too many")?;
        for (i, output) in self.outputs.iter().enumerate() {
            let field = format!("outputs[{i}]");
            let printed = |name: &String| !name.trim().is_empty() && !name.contains(char::is_control);
            check(printed(&output.name), &field, "the name is empty or has control characters")?;
            check(output.len() != Some(0), &field, "the shape has an axis of 0")?;
            let positive = output.scale > 0.0 && output.scale.is_finite();
            check(positive, &field, "the scale is not a positive number")?;
            // How many an index is one of, it does not tell.
            let index = output.last == crate::Last::Index && output.len() == Some(1);
            let fit = output.classes.is_empty() || index || output.nameable() == Some(output.classes.len());
            check(fit, &field, "there are not as many classes as values")?;
            check(output.classes.iter().all(printed), &field, "a class is empty or has control characters")?;
        }
        // Sorted, for there may be very many.
        let mut names = self.outputs.iter().map(|output| &output.name).zip(0usize..).collect::<Vec<_>>();
        names.sort_unstable();
        for two in names.windows(2) {
            if let [(one, _), (other, i)] = two {
                check(one != other, &format!("outputs[{i}]"), "the name is used twice")?;
            }
        }
        self.info(at)?;
        match self.quantise.as_ref().and_then(|quantise| quantise.problem(&self.input_shape)) {
            Some(text) => Err(problem_of(at, "quantise", text)),
            None => Ok(()),
        }
    }
}

/// One server of the cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Server {
    /// Who runs it, for people.
    pub name: String,
    /// X-Wing public key, 2432 hexadecimal digits.
    #[serde(serialize_with = "write_sealing_key")]
    pub sealing_key: ServerSealingKey,
}

/// SHA-256 of a certificate in DER: 64 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(into = "String")]
pub struct CertificatePin([u8; 32]);

impl CertificatePin {
    const FORMAT: &str = "the SHA-256 of a certificate, 64 hexadecimal digits";

    /// Whether a device can check signatures of a certificate's key: it must be an Ed25519 key, which keeps the
    /// code for all others out of the device.
    #[must_use]
    pub fn is_supported(certificate_der: &[u8]) -> bool {
        crate::tls::is_ed25519(certificate_der)
    }

    /// The pin of a certificate.
    #[must_use]
    pub fn of(certificate_der: &[u8]) -> Self {
        Self(Sha256::digest(certificate_der).into())
    }

    /// The hash.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    pub(crate) fn matches(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl TryFrom<String> for CertificatePin {
    type Error = &'static str;

    fn try_from(text: String) -> std::result::Result<Self, Self::Error> {
        hex::decode_array(&text).map(Self).ok_or(Self::FORMAT)
    }
}

impl From<CertificatePin> for String {
    fn from(pin: CertificatePin) -> Self {
        hex::encode(&pin.0)
    }
}

impl fmt::Debug for CertificatePin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(&self.0))
    }
}

impl Serialize for Deployment {
    /// As the file has it.
    fn serialize<S: Serializer>(&self, to: S) -> std::result::Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct File<'a> {
            version: u8,
            gateway: &'a Gateway,
            #[serde(skip_serializing_if = "Option::is_none")]
            model: Option<&'a Model>,
            #[serde(skip_serializing_if = "Option::is_none")]
            update: &'a Option<Update>,
            #[serde(skip_serializing_if = "Vec::is_empty")]
            models: Vec<&'a Model>,
            servers: &'a [Server],
        }
        let Self { version, gateway, model, update, servers, .. } = self;
        let (model, models) = match *version {
            Self::VERSION_OF_SEVERAL => (None, self.listed().collect()),
            _ => (Some(model), Vec::new()),
        };
        File { version: *version, gateway, model, update, models, servers }.serialize(to)
    }
}

impl Deployment {
    /// Version of the files that are read and written here. One number for what stands in them and for the wire that
    /// they lead to: it is raised when either changes.
    pub const VERSION: u8 = 3;

    /// Version of the files of models whose input values have more than 8 bits, and two bytes each. All else in them is
    /// as in those of [`Deployment::VERSION`], which older applications read too; these they refuse by their version.
    pub const VERSION_ABOVE_8_BITS: u8 = 4;

    /// Version of the files that name models, several of a cluster as a rule ([`Deployment::model_names`]). Older applications
    /// refuse them by it.
    pub const VERSION_OF_SEVERAL: u8 = 5;

    /// Models of a file, at most.
    pub const MAX_MODELS: usize = 64;

    /// The version of a file of one model, from the bits of the model's input values ([`Model::input_bits`]).
    #[must_use]
    pub const fn version_of(input_bits: u32) -> u8 {
        if shape::value_bytes(input_bits) > 1 { Self::VERSION_ABOVE_8_BITS } else { Self::VERSION }
    }

    /// Reads and checks a deployment.
    ///
    /// # Errors
    /// [`Error::Deployment`] with the line or field.
    #[inline(never)]
    pub fn from_toml(text: &str) -> Result<Self> {
        let deployment = read::deployment(text)?;
        deployment.validate()?;
        Ok(deployment)
    }

    /// The deployment of the model with this name alone, or of the file's only model. A client has one model, and a session
    /// of it: an application has as many clients as models that it uses, each with a
    /// [`SessionStore`](crate::SessionStore) of its own.
    ///
    /// # Errors
    /// [`Error::Deployment`] with the names that there are, if this is none of them, or none is given and there are
    /// several.
    #[inline(never)]
    pub fn select(mut self, name: Option<&str>) -> Result<Self> {
        let at = match name {
            Some(name) => self.listed().position(|model| model.name.as_deref() == Some(name)),
            None => self.others.is_empty().then_some(0),
        };
        if let Some(at) = at {
            // Taken out, for a copy would take code of which a phone's library has none.
            let chosen = at.checked_sub(1).map(|at| self.others.swap_remove(at));
            (self.model, self.others) = (chosen.unwrap_or(self.model), Vec::new());
            return Ok(self);
        }
        let mut names = String::new();
        for name in self.model_names() {
            names.push_str(if names.is_empty() { "" } else { ", " });
            names.push_str(name);
        }
        let what = match name {
            None => format!("there are several, so one is to be chosen: {names}"),
            Some(name) if names.is_empty() => format!("none is called {name:?}, the only one has no name"),
            Some(name) => format!("none is called {name:?}, there are {names}"),
        };
        Err(problem("models", what))
    }

    /// [`Deployment::from_toml`] on a file.
    ///
    /// # Errors
    /// [`Error::File`] or [`Error::Deployment`].
    pub fn from_file(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let text =
            std::fs::read_to_string(path).map_err(|source| Error::File { path: path.into(), source })?;
        Self::from_toml(&text)
    }

    /// The file's text, checked.
    ///
    /// # Errors
    /// [`Error::Deployment`] with the field.
    pub fn to_toml(&self) -> Result<String> {
        self.validate()?;
        toml::to_string(self).map_err(|error| problem("file", error.to_string()))
    }

    /// Checks everything that the types leave open.
    ///
    /// # Errors
    /// [`Error::Deployment`] with the field.
    pub fn validate(&self) -> Result<()> {
        let check = |good, at: &str, text: &str| if good { Ok(()) } else { Err(problem(at, text)) };
        check_version(self.version)?;
        let name = ServerName::try_from(self.gateway.server_name.as_str());
        check(name.is_ok(), "gateway.server_name", "not a DNS name or IP address")?;
        check(matches!(self.gateway.pins.len(), 1 | 2), "gateway.pins", "one or two are needed")?;
        let count = self.servers.len();
        if !(MIN_SERVERS..=MAX_SERVERS).contains(&count) {
            return Err(problem(
                "servers",
                format!("{count} given, {MIN_SERVERS} to {MAX_SERVERS} are possible"),
            ));
        }
        for (i, server) in self.servers.iter().enumerate() {
            let (at, before) = (format!("servers[{i}]"), self.servers.iter().take(i));
            check(!server.name.trim().is_empty(), &at, "the name is empty")?;
            check(before.clone().all(|other| other.name != server.name), &at, "the name is used twice")?;
            // One party holding two places would be one party fewer to hide from.
            let distinct = before.clone().all(|other| other.sealing_key != server.sealing_key);
            check(distinct, &at, "the sealing key is used twice")?;
        }
        if self.version != Self::VERSION_OF_SEVERAL {
            check(self.others.is_empty(), "version", "a file that names models has version 5")?;
            check(self.model.name.is_none(), "model.name", "only models of a file of version 5 have one")?;
            self.model.validate("model")?;
            // An older application must not take two bytes for two values.
            let told = "more than 8 need a file of version 4, up to 8 one of version 3";
            return check(self.version == Self::version_of(self.model.input_bits), "model.input_bits", told);
        }
        if self.others.len() >= Self::MAX_MODELS {
            return Err(problem("models", format!("there are more than {}", Self::MAX_MODELS)));
        }
        for (i, model) in self.listed().enumerate() {
            let at = format!("models[{i}]");
            let name = model.name.as_deref().unwrap_or_default();
            let printed = !name.trim().is_empty() && !name.contains(char::is_control);
            check(printed, &at, "the name is empty or has control characters")?;
            let mut before = self.listed().take(i);
            check(before.all(|other| other.name != model.name), &at, "the name is used twice")?;
            model.validate(&at)?;
        }
        Ok(())
    }

    /// All models, in the file's order.
    fn listed(&self) -> impl Iterator<Item = &Model> {
        // Shorter code than that of two iterators, one after the other.
        (0..=self.others.len())
            .filter_map(|i| i.checked_sub(1).map_or(Some(&self.model), |i| self.others.get(i)))
    }

    /// Names of the models, in the file's order. None of a file of version 3 or 4, whose only model has no name.
    pub fn model_names(&self) -> impl Iterator<Item = &str> {
        self.listed().filter_map(|model| model.name.as_deref())
    }

    /// The model as `seco-core` describes it.
    ///
    /// # Errors
    /// [`Error::Deployment`] with the field.
    pub fn model_info(&self) -> Result<ModelInfo> {
        self.model.info("model")
    }

    /// All servers' sealing keys in order.
    #[must_use]
    pub fn sealing_keys(&self) -> Vec<ServerSealingKey> {
        self.servers.iter().map(|server| server.sealing_key.clone()).collect()
    }
}

/// Whether files of this version are read.
fn check_version(version: u8) -> Result<()> {
    const OLDEST: u8 = Deployment::VERSION;
    const NEWEST: u8 = Deployment::VERSION_OF_SEVERAL;
    let remedy = match version {
        OLDEST..=NEWEST => return Ok(()),
        ..OLDEST => "fetch the servers' current deployment file",
        _ => "update the application",
    };
    Err(problem(
        "version",
        format!("this application reads files of version {OLDEST} to {NEWEST}, not {version}; {remedy}"),
    ))
}

/// Of a field of what stands at `at`.
#[cold]
#[inline(never)]
fn problem_of(at: &str, field: &str, text: &str) -> Error {
    problem([at, field].join("."), text)
}

pub(crate) fn problem(at: impl Into<String>, problem: impl Into<String>) -> Error {
    Error::Deployment { at: at.into(), problem: problem.into() }
}

fn write_model_id<S: Serializer>(id: &ModelId, to: S) -> std::result::Result<S::Ok, S::Error> {
    to.serialize_str(&hex::encode(&id.0))
}

fn write_sealing_key<S: Serializer>(key: &ServerSealingKey, to: S) -> std::result::Result<S::Ok, S::Error> {
    to.serialize_str(&hex::encode(key.as_bytes()))
}
