//! What is measured, and how far its repetitions lie apart.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// What one party paid: for one prediction, but for memory, and for the set-up, which is once. What was not measured
/// is `None`, and `null` in JSON.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cost {
    /// CPU time of all its threads from request to answer, in seconds.
    pub online_cpu_s: Option<f64>,
    /// The same ahead of requests.
    pub preprocessing_cpu_s: Option<f64>,
    /// Bytes it sent from request to answer. How they are counted: `method` in the report.
    pub online_bytes_up: Option<f64>,
    /// Bytes it received.
    pub online_bytes_down: Option<f64>,
    /// Bytes it sent ahead of requests.
    pub preprocessing_bytes_up: Option<f64>,
    /// Bytes it received.
    pub preprocessing_bytes_down: Option<f64>,
    /// The most memory that its process had, in bytes.
    pub peak_memory_bytes: Option<f64>,
    /// Bytes that it keeps for a prediction to come.
    pub storage_bytes: Option<f64>,
    /// CPU time of the set-up: a user's session, servers' keys and base transfers.
    pub setup_cpu_s: Option<f64>,
    /// Bytes it sent in the set-up.
    pub setup_bytes_up: Option<f64>,
    /// Bytes it received.
    pub setup_bytes_down: Option<f64>,
}

impl Cost {
    /// All figures with their names.
    pub fn fields(&self) -> [(&'static str, Option<f64>); 11] {
        [
            ("online_cpu_s", self.online_cpu_s),
            ("preprocessing_cpu_s", self.preprocessing_cpu_s),
            ("online_bytes_up", self.online_bytes_up),
            ("online_bytes_down", self.online_bytes_down),
            ("preprocessing_bytes_up", self.preprocessing_bytes_up),
            ("preprocessing_bytes_down", self.preprocessing_bytes_down),
            ("peak_memory_bytes", self.peak_memory_bytes),
            ("storage_bytes", self.storage_bytes),
            ("setup_cpu_s", self.setup_cpu_s),
            ("setup_bytes_up", self.setup_bytes_up),
            ("setup_bytes_down", self.setup_bytes_down),
        ]
    }
}

/// A system that answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum System {
    /// This project.
    Seco,
    /// The user's machine is one of two parties.
    Delphi,
    /// The server sees the input.
    Plain,
    /// SPU's Cheetah, two parties. This one and those below are systems of others, which scripts measure.
    SpuCheetah,
    /// SPU's SEMI2K, three servers.
    SpuSemi2k,
    /// CrypTen, two parties.
    Crypten,
    /// MP-SPDZ.
    MpSpdz,
    /// onnxruntime on a server that sees the input.
    Onnxruntime,
}

impl System {
    /// Its word in JSON and file names.
    pub fn word(self) -> &'static str {
        match self {
            System::Seco => "seco",
            System::Delphi => "delphi",
            System::Plain => "plain",
            System::SpuCheetah => "spu-cheetah",
            System::SpuSemi2k => "spu-semi2k",
            System::Crypten => "crypten",
            System::MpSpdz => "mp-spdz",
            System::Onnxruntime => "onnxruntime",
        }
    }

    /// Its name for people.
    pub fn name(self) -> &'static str {
        match self {
            System::Seco => "SECO",
            System::Delphi => "DELPHI",
            System::Plain => "without privacy",
            System::SpuCheetah => "SPU, Cheetah",
            System::SpuSemi2k => "SPU, SEMI2K",
            System::Crypten => "CrypTen",
            System::MpSpdz => "MP-SPDZ",
            System::Onnxruntime => "onnxruntime, without privacy",
        }
    }

    /// Whether it is a system of others, which this program does not measure.
    pub fn is_peer(self) -> bool {
        !matches!(self, System::Seco | System::Delphi | System::Plain)
    }
}

/// What lies between the user and the servers, which are always on one LAN.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Network {
    /// The same LAN: loopback.
    Lan,
    /// A wide-area link.
    Wan,
}

impl Network {
    /// Its word in JSON.
    pub fn word(self) -> &'static str {
        match self {
            Network::Lan => "lan",
            Network::Wan => "wan",
        }
    }
}

/// One repetition of one configuration on one network.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    /// What the user was connected by.
    pub network: Network,
    /// What the user paid.
    pub user: Cost,
    /// What each server paid, the gateway first.
    pub servers: Vec<Cost>,
    /// From request to answer, seconds: the mean of all requests.
    pub waiting_s: f64,
    /// Until all parties were done ahead of a request, seconds.
    pub preprocessing_s: Option<f64>,
    /// Until all parties were done with what is needed once, seconds.
    pub setup_s: Option<f64>,
    /// Answers that equal the plaintext network's bit for bit; of systems of others, as their files say.
    pub equal: usize,
    /// Answers.
    pub count: usize,
    /// `machine::Machine::load_at_start` of the command that measured it, which may be an earlier one than the
    /// report's.
    pub load_at_start: Option<f64>,
}

/// Repetitions of one figure.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spread {
    pub mean: f64,
    pub least: f64,
    pub most: f64,
    /// How far from `mean` one more repetition, or the mean of several, lies in 19 of 20 cases, if repetitions vary as
    /// in a normal distribution: `t(n-1) s sqrt(1 + 1/n)`, the prediction interval. `None` of a single repetition.
    pub within: Option<f64>,
    pub runs: usize,
}

impl Spread {
    /// Of values; of none, nothing.
    pub fn of(values: impl IntoIterator<Item = f64>) -> Option<Spread> {
        let values: Vec<f64> = values.into_iter().collect();
        let runs = values.len();
        let mean = values.iter().sum::<f64>() / runs as f64;
        let least = values.iter().copied().reduce(f64::min)?;
        let most = values.iter().copied().reduce(f64::max)?;
        let within = (runs > 1).then(|| {
            let variance = values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / (runs - 1) as f64;
            student(runs - 1) * (variance * (1.0 + 1.0 / runs as f64)).sqrt()
        });
        Some(Spread { mean, least, most, within, runs })
    }

    /// As an object.
    pub fn json(&self) -> Value {
        json!({"mean": self.mean, "min": self.least, "max": self.most, "within": self.within, "runs": self.runs})
    }
}

/// The 97.5% quantile of Student's distribution with so many degrees of freedom.
fn student(freedom: usize) -> f64 {
    const QUANTILES: [f64; 20] = [
        12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145,
        2.131, 2.120, 2.110, 2.101, 2.093, 2.086,
    ];
    // Beyond the table it falls from 2.08 to 1.96.
    freedom.checked_sub(1).and_then(|i| QUANTILES.get(i)).copied().unwrap_or(2.08)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_spread_is_the_prediction_interval() {
        let spread = Spread::of([1.0, 2.0, 3.0]).unwrap();
        assert_eq!((spread.mean, spread.least, spread.most, spread.runs), (2.0, 1.0, 3.0, 3));
        // s = 1, t(2) = 4.303, sqrt(4/3).
        assert!((spread.within.unwrap() - 4.303 * (4.0f64 / 3.0).sqrt()).abs() < 1e-12);
        assert_eq!(Spread::of([5.0; 4]).unwrap().within, Some(0.0));
        assert_eq!(Spread::of([7.0]).unwrap().within, None);
        assert_eq!(Spread::of([]), None);
        assert_eq!(student(1), 12.706);
        assert_eq!(student(400), 2.08);
    }

    #[test]
    fn most_further_runs_lie_within_it() {
        // A linear congruential generator, sums of twelve: nearly normal.
        let mut state = 7u64;
        let mut next = || {
            let mut uniform = || {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                (state >> 11) as f64 / (1u64 << 53) as f64
            };
            10.0 + (0..12).map(|_| uniform()).sum::<f64>()
        };
        let within = (0..2000).filter(|_| {
            let spread = Spread::of([next(), next(), next()]).unwrap();
            (next() - spread.mean).abs() <= spread.within.unwrap()
        });
        let within = within.count();
        assert!((1850..1950).contains(&within), "{within} of 2000");
    }
}
