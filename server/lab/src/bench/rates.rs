//! CPU time of the units of work that [`seco_protocol::cost`] counts, measured in some seconds by what `seco bench he`,
//! `relu` and `net` measure at length, or as it was on one machine.

use std::time::Duration;

use seco_model::{Dense, Geometry};
use seco_protocol::{Layer, OT_PARAMETER};
use serde::Serialize;

use super::{Setting, he, net, relu};
use crate::Error;

/// ReLUs of a short measurement.
const RELUS: usize = 16_384;
/// Bundles of them: as in a pool that is filled, memory is new for what is kept, and used again for the rest.
const BUNDLES: u8 = 2;
/// CPU time of one layer's measurement.
const LONG_ENOUGH: Duration = Duration::from_millis(300);
/// Mebibytes sent.
const MEGABYTES: usize = 64;

/// CPU-seconds by unit.
#[derive(Clone, Debug, Serialize)]
pub struct Rates {
    /// Whether they were measured here, just now.
    pub measured: bool,
    /// A ciphertext encrypted.
    pub encrypt: f64,
    /// A ciphertext of another server added up.
    pub add: f64,
    /// A product of a ciphertext and a weight polynomial.
    pub product: f64,
    /// A ciphertext made of products, and decoded.
    pub make: f64,
    /// A weight polynomial transformed.
    pub transform: f64,
    /// A ciphertext answered.
    pub answer: f64,
    /// A byte sent or received.
    pub byte: f64,
    /// Of AND gates, by number of servers.
    pub gates: Vec<Gates>,
}

/// CPU-seconds of an AND gate of a ReLU, its oblivious transfers, conversions and messages with it.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Gates {
    /// Number of servers.
    pub servers: usize,
    /// Ahead, at a garbler.
    pub garble: f64,
    /// Ahead, at the evaluator.
    pub fold: f64,
    /// Online, at a garbler.
    pub label: f64,
    /// Online, at the evaluator.
    pub evaluate: f64,
}

impl Rates {
    /// Measures, for ReLUs of `width` bits and clusters of these sizes: two seconds or so, and one for each size.
    pub fn measure(width: u32, sizes: &[usize]) -> Result<Rates, Error> {
        let mut rates = Rates { measured: true, byte: net::short(MEGABYTES)? / 2e9, ..Rates::default() };
        rates.encryption(width)?;
        rates.gates = sizes.iter().map(|&servers| gates(width, servers)).collect::<Result<_, _>>()?;
        Ok(rates)
    }

    /// Homomorphic encryption: three layers, of 1 to 8 and 8 to 8 and 8 to 1 ciphertexts. One ciphertext alone would have
    /// the machine for itself, which those of a server do not.
    fn encryption(&mut self, width: u32) -> Result<(), Error> {
        let setting = Setting { servers: 3, width: width as u8 };
        let (mut rows, mut encrypt, mut answer, mut transform) = (Vec::new(), 0.0, 0.0, 0.0);
        let layers = [(1, 65_536), (65_536, 8), (65_536, 1)];
        for (inputs, outputs) in layers {
            let geometry = Geometry::Dense(Dense { inputs, outputs });
            let (plan, times, runs) = he::short(&geometry, setting, LONG_ENOUGH)?;
            let of =
                |cpu: Duration, units: usize| cpu.as_secs_f64() / (f64::from(runs) * units.max(1) as f64);
            let [made, added] = [plan.output_ciphertexts(), 3 * plan.input_ciphertexts()];
            encrypt += of(times.encrypt.cpu, added) / layers.len() as f64;
            answer += of(times.answer.cpu, 2 * made) / layers.len() as f64;
            transform += of(times.weights.cpu, plan.weight_polynomials()) / layers.len() as f64;
            let both = of((times.multiply + times.decode).cpu, 1);
            rows.push([added as f64, plan.products() as f64, made as f64, both]);
        }
        (self.encrypt, self.answer, self.transform) = (encrypt, answer, transform);
        if let Some([add, product, make]) = solve(rows) {
            (self.add, self.product, self.make) = (add.max(0.0), product.max(0.0), make.max(0.0));
        }
        Ok(())
    }

    /// Of AND gates in a cluster of this size; work grows with the garblers where it was not measured.
    pub fn gates(&self, servers: usize) -> Gates {
        let nearest = self.gates.iter().min_by_key(|gates| gates.servers.abs_diff(servers));
        let Some(&gates) = nearest else { return Gates::of(servers, [0.0; 4]) };
        let times = servers.saturating_sub(1) as f64 / gates.servers.saturating_sub(1).max(1) as f64;
        let Gates { garble, fold, label, evaluate, .. } = gates;
        Gates::of(servers, [garble * times, fold * times, label, evaluate * times])
    }
}

impl Gates {
    fn of(servers: usize, [garble, fold, label, evaluate]: [f64; 4]) -> Gates {
        Gates { servers, garble, fold, label, evaluate }
    }
}

impl Default for Rates {
    /// Those of two busy cores of an AMD EPYC, as measured in 2026.
    fn default() -> Rates {
        Rates {
            measured: false,
            encrypt: 0.90e-3,
            add: 0.17e-3,
            product: 0.05e-3,
            make: 2.2e-3,
            transform: 0.42e-3,
            answer: 0.48e-3,
            byte: 0.7e-9,
            gates: vec![
                Gates::of(2, [110e-9, 110e-9, 20e-9, 40e-9]),
                Gates::of(3, [330e-9, 260e-9, 18e-9, 65e-9]),
                Gates::of(4, [590e-9, 540e-9, 18e-9, 85e-9]),
            ],
        }
    }
}

/// A short layer of ReLUs between processes.
fn gates(width: u32, servers: usize) -> Result<Gates, Error> {
    let layer = Layer {
        count: RELUS,
        width,
        mask_width: width,
        shift: 8.min(width.saturating_sub(2)),
        servers,
        ot_parameter: OT_PARAMETER,
    };
    let outcomes = relu::short(&layer, BUNDLES)?;
    let ands = layer.and_gates().max(1) as f64;
    let mean = |evaluators: bool, online: bool| {
        let (mut sum, mut count) = (0.0, 0);
        for (server, outcome) in outcomes.iter().enumerate() {
            if (server == layer.evaluator()) == evaluators {
                let ahead = outcome.preprocessing.cpu / u32::from(BUNDLES);
                sum += (if online { outcome.online.cpu } else { ahead }).as_secs_f64();
                count += 1;
            }
        }
        sum / (ands * f64::from(count.max(1)))
    };
    Ok(Gates::of(servers, [mean(false, false), mean(true, false), mean(false, true), mean(true, true)]))
}

/// Three unknowns from three equations, each of three coefficients and a sum, by Cramer's rule; none if they are not
/// independent.
fn solve(rows: Vec<[f64; 4]>) -> Option<[f64; 3]> {
    let rows: [[f64; 4]; 3] = rows.try_into().ok()?;
    let determinant = |columns: [usize; 3]| {
        let [a, b, c] = rows.map(|row| columns.map(|column| row[column]));
        a[0] * (b[1] * c[2] - b[2] * c[1]) - a[1] * (b[0] * c[2] - b[2] * c[0])
            + a[2] * (b[0] * c[1] - b[1] * c[0])
    };
    let all = determinant([0, 1, 2]);
    let unknowns = [[3, 1, 2], [0, 3, 2], [0, 1, 3]].map(|columns| determinant(columns) / all);
    (all.abs() > 1e-9).then_some(unknowns)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_equations() {
        let rows = vec![[1.0, 2.0, 3.0, 14.0], [0.0, 1.0, 1.0, 5.0], [2.0, 0.0, 1.0, 5.0]];
        let close = |a: [f64; 3], b: [f64; 3]| a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-9);
        assert!(close(solve(rows).unwrap(), [1.0, 2.0, 3.0]));
        assert_eq!(solve(vec![[1.0, 1.0, 1.0, 1.0]; 3]), None);
    }

    #[test]
    fn larger_clusters_from_smaller_ones() {
        let [four, seven] = [4, 7].map(|servers| Rates::default().gates(servers));
        assert_eq!((four.servers, seven.servers), (4, 7));
        assert!((seven.garble - 2.0 * four.garble).abs() < 1e-12);
    }
}
