//! CPU time of the units of work that [`seco_protocol::cost`] counts.

use serde::Serialize;

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
    /// Of a cluster of so many servers.
    pub fn of(servers: usize, [garble, fold, label, evaluate]: [f64; 4]) -> Gates {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn larger_clusters_from_smaller_ones() {
        let [four, seven] = [4, 7].map(|servers| Rates::default().gates(servers));
        assert_eq!((four.servers, seven.servers), (4, 7));
        assert!((seven.garble - 2.0 * four.garble).abs() < 1e-12);
    }
}
