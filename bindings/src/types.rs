//! Settings and results as the foreign languages see them.

use zeroize::Zeroizing;

use crate::SecoError;
use crate::error::{length, milliseconds};

/// Settings of a client.
#[derive(Clone, Debug, uniffi::Record)]
pub struct ClientConfig {
    /// The deployment file's text: gateway, servers, keys and models. From a source that the user trusts.
    pub deployment: String,
    /// Limit for reaching the gateway, and again for opening a session, in milliseconds; at most an hour.
    #[uniffi(default = 10_000)]
    pub connect_timeout_ms: u32,
    /// Limit for one request in all, in milliseconds; at most an hour. A request that servers or network are away for
    /// is made again until then.
    #[uniffi(default = 60_000)]
    pub request_timeout_ms: u32,
    /// How to reach the gateway. Nothing: QUIC, and TCP where a network blocks UDP.
    #[uniffi(default = None)]
    pub transport: Option<Transport>,
    /// Age in days at which a session is given up and a new one opened, at least 1. Whoever gets hold of a
    /// session can read what was asked under it, and nothing before or after.
    #[uniffi(default = 30)]
    pub session_max_age_days: u32,
    /// Keep the masked bytes of the last request for `last_sent`.
    #[uniffi(default = false)]
    pub keep_sent: bool,
    /// Which model is asked, where the deployment file names several; nothing where it has one. A client has one model. Each
    /// model needs a session store of its own: in a common one clients take each other's session for an old one, and
    /// open a new one at every start.
    #[uniffi(default = None)]
    pub model: Option<String>,
}

/// What carries the requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, uniffi::Enum)]
pub enum Transport {
    /// QUIC, over UDP.
    Quic,
    /// TLS over TCP.
    Tcp,
}

/// What the model says about an input. `SecoClient.answers` tells what its integers mean.
#[derive(Clone, Debug, PartialEq, Eq, uniffi::Record)]
pub struct Prediction {
    /// The class that the first output tells: that of the largest value, the first of several; of one value before a
    /// sigmoid 1 if it is positive, otherwise 0. Of any other single value, which is no class, 0.
    pub label: u32,
    /// The integers of all outputs, one output after the other.
    pub logits: Vec<i32>,
    /// Whether the input has values beyond those that calibrated the model, as the deployment file tells them: its
    /// numbers may then have been too large for the servers, and the answer wrong. Found on the device; no server
    /// learns it. `false` where the deployment file does not tell.
    pub outside_calibration: bool,
}

impl From<seco_sdk::Prediction> for Prediction {
    fn from(prediction: seco_sdk::Prediction) -> Self {
        let seco_sdk::Prediction { logits, label, outside_calibration, .. } = prediction;
        Self { label: length(label), logits, outside_calibration }
    }
}

/// One output of a prediction.
#[derive(Clone, Debug, PartialEq, uniffi::Record)]
pub struct Answer {
    /// The output's name in the network's file.
    pub name: String,
    /// Its extents without the batch axis.
    pub shape: Vec<u32>,
    /// What it is to be read as.
    pub kind: AnswerKind,
    /// What the network does last, which the servers leave to the device.
    pub last: LastOperator,
    /// The network's numbers, before what it does last.
    pub values: Vec<f64>,
    /// The network's own answer: its numbers with what it does last. Of an argmax, one index for every row.
    pub finished: Vec<f64>,
    /// Where the network ends with a softmax or its logarithm (they add up to 1) or with a sigmoid (each for itself).
    pub probabilities: Option<Vec<f64>>,
    /// Index of the largest value, or 1 for yes and 0 for no.
    pub label: u32,
    /// The label's name, where the deployment file gives names.
    pub class_name: Option<String>,
}

/// What an output is to be read as.
#[derive(Clone, Copy, Debug, PartialEq, Eq, uniffi::Enum)]
pub enum AnswerKind {
    /// One of several classes.
    Classes,
    /// Yes (1) or no (0).
    Binary,
    /// Numbers.
    Values,
}

/// What a network does last with an output.
#[derive(Clone, Copy, Debug, PartialEq, Eq, uniffi::Enum)]
pub enum LastOperator {
    /// Nothing: the numbers are its answer.
    None,
    /// Softmax over the last axis of more than one value.
    Softmax,
    /// Its logarithm.
    LogSoftmax,
    /// The logistic function of every value.
    Sigmoid,
    /// The hyperbolic tangent of every value.
    Tanh,
    /// The index of the largest value.
    Argmax,
    /// The same, and the servers do it: the index is their answer, and nothing of the values.
    Index,
}

impl From<seco_sdk::Last> for LastOperator {
    fn from(last: seco_sdk::Last) -> Self {
        match last {
            seco_sdk::Last::None => Self::None,
            seco_sdk::Last::Softmax => Self::Softmax,
            seco_sdk::Last::LogSoftmax => Self::LogSoftmax,
            seco_sdk::Last::Sigmoid => Self::Sigmoid,
            seco_sdk::Last::Tanh => Self::Tanh,
            seco_sdk::Last::Argmax => Self::Argmax,
            seco_sdk::Last::Index => Self::Index,
        }
    }
}

impl From<seco_sdk::Answer<'_>> for Answer {
    fn from(answer: seco_sdk::Answer<'_>) -> Self {
        Self {
            name: answer.output.name.clone(),
            shape: answer.output.shape.iter().copied().map(length).collect(),
            kind: match answer.kind() {
                seco_sdk::Kind::Classes => AnswerKind::Classes,
                seco_sdk::Kind::Binary => AnswerKind::Binary,
                seco_sdk::Kind::Values => AnswerKind::Values,
            },
            last: answer.output.last.into(),
            values: answer.values(),
            finished: answer.finished(),
            probabilities: answer.probabilities(),
            label: length(answer.label()),
            class_name: answer.class_name().map(str::to_owned),
        }
    }
}

/// Another form of input values than bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, uniffi::Enum)]
pub enum InputForm {
    /// Real numbers, four bytes each: 32-bit floats, little-endian.
    Floats,
}

/// What the model takes and gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, uniffi::Record)]
pub struct ModelInfo {
    /// Bytes of an input.
    pub input_len: u32,
    /// Bits of an input value, 1 to 16. Up to 8 a value is one byte, above two, the lower one first.
    pub input_bits: u32,
    /// Bytes of a masked answer: `probe(input_len, answer_len)` is the plain request to compare with.
    pub answer_len: u32,
    /// Integers of an answer, all outputs together.
    pub values: u32,
}

impl ModelInfo {
    pub(crate) fn new(model: seco_sdk::ModelInfo, input_bits: u32) -> Self {
        Self {
            input_len: length(model.input_len),
            input_bits,
            answer_len: length(model.logits_len()),
            values: length(model.values),
        }
    }
}

/// What was spent on the network, in computing and in waiting. Requests that run side by side share it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, uniffi::Record)]
pub struct Cost {
    /// Bytes from the device: in UDP packets over QUIC, of the TLS stream over TCP.
    pub bytes_up: u64,
    /// Bytes to the device.
    pub bytes_down: u64,
    /// UDP packets from the device.
    pub datagrams_up: u64,
    /// UDP packets to the device.
    pub datagrams_down: u64,
    /// CPU time of the library's thread in microseconds, where the system has such a clock.
    pub cpu_us: Option<u64>,
    /// Time from call to result in microseconds.
    pub wall_us: u64,
}

impl From<seco_sdk::Cost> for Cost {
    fn from(cost: seco_sdk::Cost) -> Self {
        let microseconds = |time: std::time::Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        Self {
            bytes_up: cost.bytes_up,
            bytes_down: cost.bytes_down,
            datagrams_up: cost.datagrams_up,
            datagrams_down: cost.datagrams_down,
            cpu_us: cost.cpu.map(microseconds),
            wall_us: microseconds(cost.wall),
        }
    }
}

/// How a request is getting on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, uniffi::Enum)]
pub enum RequestProgress {
    /// The masked input left the device; once more each time that the request is made again.
    Sent,
    /// It waits until the servers have made what it needs.
    Queued {
        /// Place in the queue; 1 is the next.
        position: u32,
        /// The servers' estimate of the wait in milliseconds.
        wait_ms: u32,
    },
    /// It had to wait, and runs now.
    Running,
    /// A server is away, and the request is made again.
    Waiting {
        /// Its place in the deployment file; 0 is the gateway, to which there is a new connection then.
        server: u32,
    },
}

impl RequestProgress {
    /// `None` for what later versions of the SDK add.
    pub(crate) fn new(progress: seco_sdk::Progress) -> Option<Self> {
        match progress {
            seco_sdk::Progress::Sent => Some(Self::Sent),
            seco_sdk::Progress::Queued { position, wait } => {
                Some(Self::Queued { position, wait_ms: milliseconds(wait) })
            }
            seco_sdk::Progress::Running => Some(Self::Running),
            seco_sdk::Progress::Waiting { server } => Some(Self::Waiting { server: server.into() }),
            _ => None,
        }
    }
}

/// Is told how a request is getting on, on the library's thread; it should return at once.
#[uniffi::export(with_foreign)]
pub trait ProgressListener: Send + Sync {
    /// Called first when the input left the device. What it throws is ignored.
    fn on_progress(&self, progress: RequestProgress);
}

/// Pixels `R G B R G B …` or, with four channels, `R G B A …`, as models take them: all red values, then all
/// green, then all blue. Alpha is dropped.
///
/// # Errors
/// `InvalidConfiguration` for other numbers of channels, or if the bytes end in mid-pixel.
#[uniffi::export]
pub fn rgb_planes(interleaved: Vec<u8>, channels: u32) -> Result<Vec<u8>, SecoError> {
    let invalid = |reason: String| SecoError::InvalidConfiguration { reason };
    let split = match channels {
        3 => seco_sdk::input::planes_from_rgb,
        4 => seco_sdk::input::planes_from_rgba,
        _ => return Err(invalid(format!("pixels have 3 or 4 channels, not {channels}"))),
    };
    let interleaved = Zeroizing::new(interleaved);
    let pixels = interleaved.len() / channels as usize;
    let mut planes = vec![0; 3 * pixels];
    split(&interleaved, &mut planes)
        .map_err(|_| invalid("the pixels end in the middle of one".to_owned()))?;
    Ok(planes)
}
