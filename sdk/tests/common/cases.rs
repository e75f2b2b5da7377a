//! The cases of all languages (`bindings/cases.json`) and what comes of them with any [`Infer`]. What a case has and this
//! file does not know is a mistake in one of both.
#![allow(dead_code, reason = "every test binary uses a part of it")]

use seco_sdk::{
    Cost, Error, Infer, Loss, Prediction, Progress, Refusal, Result, TransportKind, Violation, npy,
};
use serde::Deserialize;
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::sync::Notify;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(rename = "about")]
    _about: String,
    cases: Vec<Case>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Case {
    pub name: String,
    /// Whether it holds of real servers too.
    pub real: bool,
    /// Bits of an input value, if not 8; an input has 784 bytes all the same.
    pub input_bits: Option<u32>,
    #[serde(default)]
    pub keep_sent: bool,
    pub replies: Vec<Entry<Reply>>,
    calls: Vec<Entry<Call>>,
}

/// An object with the parts of a failure among its own.
#[derive(Deserialize)]
#[serde(try_from = "Map<String, Value>", bound = "T: for<'a> Deserialize<'a>")]
pub struct Entry<T> {
    pub own: T,
    pub failure: Option<Failure>,
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Failure {
    /// Its number in the packages (`bindings/src/error.rs`).
    error: u32,
    expected: Option<usize>,
    got: Option<usize>,
    problem: Option<String>,
    retry_after_ms: Option<u64>,
    retry_after_s: Option<u32>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Reply {
    pub label: Option<usize>,
    #[serde(default)]
    pub delay_ms: u64,
    pub progress: Option<Vec<String>>,
    pub cost: Option<BTreeMap<String, u64>>,
}

/// What all numbers of an input are.
#[derive(Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fill {
    #[default]
    Zero,
    Nan,
    Infinity,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, tag = "call", rename_all = "snake_case")]
enum Call {
    Model {
        input_len: usize,
        input_bits: Option<u32>,
        values: usize,
    },
    Transport {
        is: String,
    },
    LastCost {
        is: Option<BTreeMap<String, u64>>,
        at_least: Option<BTreeMap<String, u64>>,
    },
    TotalCost {
        is: Option<BTreeMap<String, u64>>,
        at_least: Option<BTreeMap<String, u64>>,
    },
    LastSent {
        length: Option<usize>,
    },
    Infer {
        digit: Option<usize>,
        length: Option<usize>,
        label: Option<usize>,
        progress: Option<Vec<String>>,
        progress_begins: Option<Vec<String>>,
    },
    InferReals {
        length: usize,
        #[serde(default)]
        fill: Fill,
        label: Option<usize>,
    },
    InferMany {
        digits: Vec<usize>,
        labels: Option<Vec<usize>>,
    },
    Probe {
        up: usize,
        down: usize,
    },
    PlainRequest {},
    NetworkChanged {},
    Cancel {
        digit: usize,
    },
    CloseDuring {
        digit: usize,
    },
    Close {},
}

impl<T: for<'a> Deserialize<'a>> TryFrom<Map<String, Value>> for Entry<T> {
    type Error = serde_json::Error;

    fn try_from(entry: Map<String, Value>) -> std::result::Result<Self, serde_json::Error> {
        let parts = ["error", "expected", "got", "problem", "retry_after_ms", "retry_after_s"];
        let (failure, own): (Map<_, _>, Map<_, _>) =
            entry.into_iter().partition(|(key, _)| parts.contains(&key.as_str()));
        let failure = if failure.is_empty() { None } else { Some(serde_json::from_value(failure.into())?) };
        Ok(Self { own: serde_json::from_value(own.into())?, failure })
    }
}

/// Reads a file of cases.
pub fn read(text: &str) -> serde_json::Result<Vec<Case>> {
    Ok(serde_json::from_str::<File>(text)?.cases)
}

/// This repository's.
pub fn all() -> Vec<Case> {
    read(include_str!("../../../bindings/cases.json")).unwrap()
}

/// The digits that they number.
pub fn digits() -> Vec<Vec<u8>> {
    let file = include_bytes!("../../../server/data/minionn-digits-20.npy");
    let values = &file[npy::MAGIC.len() + 4 + usize::from(u16::from_le_bytes([file[8], file[9]]))..];
    assert_eq!(values.len(), 20 * 784);
    values.chunks(784).map(<[u8]>::to_vec).collect()
}

impl Failure {
    /// An error of this kind.
    pub fn error(&self) -> Error {
        let (expected, got) = (self.expected.unwrap_or_default(), self.got.unwrap_or_default());
        match self.error {
            1 => Error::InputValue { index: 0, problem: "is the script's" },
            2 => Error::WrongInputSize { expected, got, shape: vec![expected] },
            3 => Error::Connect { gateway: "192.0.2.1:7443".parse().unwrap(), reason: Loss::Silence },
            4 => Error::Timeout { step: "answer", limit: Duration::from_secs(1) },
            5 => Error::Busy { retry_after: Duration::from_millis(self.retry_after_ms.unwrap_or_default()) },
            6 => Error::Refused(Refusal::WrongModel),
            7 => Error::PinMismatch { gateway: "192.0.2.1:7443".parse().unwrap() },
            8 => Error::Protocol(Violation::Truncated),
            9 => Error::NoRandomness,
            10 => Error::Closed(Loss::Local),
            11 => Error::Refused(match self.problem.as_deref() {
                Some("missing") => Refusal::TokenMissing,
                Some("invalid") => Refusal::TokenInvalid,
                Some("expired") => Refusal::TokenExpired,
                Some("exhausted") => {
                    Refusal::TokenExhausted { retry_after_s: self.retry_after_s.unwrap_or_default() }
                }
                other => panic!("an unknown problem: {other:?}"),
            }),
            other => panic!("an unknown error: {other}"),
        }
    }

    /// `error` is of this kind, and says what is known of it.
    fn check(&self, error: &Error, case: &str) {
        let mut told = Self {
            error: 0,
            expected: None,
            got: None,
            problem: None,
            retry_after_ms: None,
            retry_after_s: None,
        };
        let mut token = |problem: &str, seconds| {
            (told.problem, told.retry_after_s) = (Some(problem.to_owned()), Some(seconds));
            11
        };
        told.error = match error {
            Error::InputValue { .. } | Error::ProbeTooLong { .. } => 1,
            Error::WrongInputSize { expected, got, .. } => {
                (told.expected, told.got) = (Some(*expected), Some(*got));
                2
            }
            Error::Connect { .. } => 3,
            Error::Timeout { .. } => 4,
            Error::Busy { retry_after } => {
                told.retry_after_ms = Some(u64::try_from(retry_after.as_millis()).unwrap());
                5
            }
            Error::Refused(Refusal::WrongModel) => 6,
            Error::PinMismatch { .. } => 7,
            Error::Protocol(_) => 8,
            Error::NoRandomness => 9,
            Error::Closed(Loss::Local) => 10,
            Error::Refused(Refusal::TokenMissing) => token("missing", 0),
            Error::Refused(Refusal::TokenInvalid) => token("invalid", 0),
            Error::Refused(Refusal::TokenExpired) => token("expired", 0),
            Error::Refused(Refusal::TokenExhausted { retry_after_s }) => token("exhausted", *retry_after_s),
            other => panic!("{case}: {other}"),
        };
        // What the case leaves out may be anything.
        let Self { error: code, expected, got, problem, retry_after_ms, retry_after_s } = self.clone();
        let known = Self {
            error: code,
            expected: expected.or(told.expected),
            got: got.or(told.got),
            problem: problem.or(told.problem.clone()),
            retry_after_ms: retry_after_ms.or(told.retry_after_ms),
            retry_after_s: retry_after_s.or(told.retry_after_s),
        };
        assert_eq!(told, known, "{case}: {error}");
        assert!(!error.to_string().is_empty(), "{case}");
    }
}

/// What `text` says of a request.
pub fn progress(text: &str) -> Progress {
    let mut words = text.split(' ');
    let state = words.next();
    let numbers: Vec<u32> = words.map(|word| word.parse().unwrap()).collect();
    match (state, numbers.as_slice()) {
        (Some("sent"), []) => Progress::Sent,
        (Some("running"), []) => Progress::Running,
        (Some("waiting"), [server]) => Progress::Waiting { server: (*server).try_into().unwrap() },
        (Some("queued"), [position, wait]) => {
            Progress::Queued { position: *position, wait: Duration::from_millis((*wait).into()) }
        }
        _ => panic!("an unknown progress: {text}"),
    }
}

fn all_progress(texts: &[String]) -> Vec<Progress> {
    texts.iter().map(|text| progress(text)).collect()
}

/// A cost as cases have it.
pub fn cost(numbers: &BTreeMap<String, u64>) -> Cost {
    let mut cost = Cost::default();
    for (name, number) in numbers {
        match name.as_str() {
            "bytes_up" => cost.bytes_up = *number,
            "bytes_down" => cost.bytes_down = *number,
            "datagrams_up" => cost.datagrams_up = *number,
            "datagrams_down" => cost.datagrams_down = *number,
            "wall_us" => cost.wall = Duration::from_micros(*number),
            _ => panic!("an unknown part of a cost: {name}"),
        }
    }
    cost
}

fn part(cost: &Cost, name: &str) -> u64 {
    match name {
        "bytes_up" => cost.bytes_up,
        "bytes_down" => cost.bytes_down,
        "datagrams_up" => cost.datagrams_up,
        "datagrams_down" => cost.datagrams_down,
        "wall_us" => cost.wall.as_micros().try_into().unwrap(),
        _ => panic!("an unknown part of a cost: {name}"),
    }
}

type Numbers = Option<BTreeMap<String, u64>>;

fn check_cost(cost: &Cost, is: &Numbers, at_least: &Numbers, case: &str) {
    assert!(is.is_some() != at_least.is_some(), "{case}: one of both");
    for (name, number) in is.iter().flatten() {
        assert_eq!(part(cost, name), *number, "{case}: {name} of {cost:?}");
    }
    for (name, number) in at_least.iter().flatten() {
        assert!(part(cost, name) >= *number, "{case}: {name} of {cost:?}");
    }
}

fn check_label(prediction: &Prediction, label: Option<usize>, case: &str) {
    assert_eq!(Some(prediction.label), label, "{case}");
    assert_eq!(prediction.logits.len(), 10, "{case}");
    assert_eq!(prediction.answers().next().unwrap().label(), prediction.label, "{case}");
}

/// Makes the calls of `case`, and checks what comes of each.
pub async fn run(client: &dyn Infer, case: &Case, digits: &[Vec<u8>]) {
    for entry in &case.calls {
        let result = one(client, &entry.own, digits, &case.name).await;
        match (&result, &entry.failure) {
            (Ok(()), None) => {}
            (Err(error), Some(failure)) => failure.check(error, &case.name),
            _ => panic!("{}: {result:?} instead of {:?}", case.name, entry.failure),
        }
    }
}

async fn one(client: &dyn Infer, call: &Call, digits: &[Vec<u8>], case: &str) -> Result<()> {
    match call {
        Call::Model { input_len, input_bits, values } => {
            let model = client.model();
            assert_eq!(client.input_bits(), input_bits.unwrap_or(8), "{case}");
            assert_eq!((model.input_len, model.values), (*input_len, *values), "{case}");
        }
        Call::Transport { is } => {
            let known = match client.transport() {
                TransportKind::Quic => "quic",
                TransportKind::Tcp => "tcp",
                other => panic!("{other:?}"),
            };
            assert_eq!(known, is, "{case}");
        }
        Call::LastCost { is, at_least } => check_cost(&client.last_cost(), is, at_least, case),
        Call::TotalCost { is, at_least } => check_cost(&client.total_cost(), is, at_least, case),
        Call::LastSent { length } => {
            let sent = client.last_sent();
            assert_eq!(sent.as_ref().map(Vec::len), *length, "{case}");
            assert!(sent.is_none_or(|sent| digits.iter().all(|digit| *digit != sent)), "{case}");
        }
        Call::Infer { digit, length, label, progress, progress_begins } => {
            let input = match (digit, length) {
                (Some(digit), None) => digits[*digit].clone(),
                (None, Some(length)) => vec![0; *length],
                _ => panic!("{case}: digit or length"),
            };
            let mut seen = Vec::new();
            let result = client.infer_with(&input, &mut |now| seen.push(now)).await;
            if let Some(texts) = progress {
                assert_eq!(seen, all_progress(texts), "{case}");
            }
            if let Some(texts) = progress_begins {
                assert!(seen.starts_with(&all_progress(texts)), "{case}: {seen:?}");
            }
            check_label(&result?, *label, case);
        }
        Call::InferReals { length, fill, label } => {
            let real = match fill {
                Fill::Zero => 0.0,
                Fill::Nan => f32::NAN,
                Fill::Infinity => f32::INFINITY,
            };
            check_label(&client.infer_reals(&vec![real; *length]).await?, *label, case);
        }
        Call::InferMany { digits: wanted, labels } => {
            let inputs: Vec<&[u8]> = wanted.iter().map(|digit| digits[*digit].as_slice()).collect();
            let results = client.infer_many(&inputs).await;
            assert_eq!(results.len(), inputs.len(), "{case}");
            let predictions = results.into_iter().collect::<Result<Vec<_>>>()?;
            let found: Vec<_> = predictions.iter().map(|prediction| prediction.label).collect();
            assert_eq!(Some(found), *labels, "{case}");
        }
        Call::Probe { up, down } => client.probe(*up, *down).await?,
        Call::PlainRequest {} => {
            let model = client.model();
            client.probe(model.input_len, model.logits_len()).await?;
        }
        Call::NetworkChanged {} => client.network_changed()?,
        Call::Cancel { digit } => {
            let sent = Notify::new();
            let mut tell = |_| sent.notify_one();
            tokio::select! {
                result = client.infer_with(&digits[*digit], &mut tell) => panic!("{case}: {result:?}"),
                () = sent.notified() => {}
            }
        }
        Call::CloseDuring { digit } => {
            let sent = Notify::new();
            let mut tell = |_| sent.notify_one();
            let close = async {
                sent.notified().await;
                client.close().await;
            };
            let (result, ()) = tokio::join!(client.infer_with(&digits[*digit], &mut tell), close);
            result?;
        }
        Call::Close {} => client.close().await,
    }
    Ok(())
}
