//! What is measured, in which order, and how long that takes.

use super::Options;
use super::figures::{Network, System};

/// One piece of work: a cluster, or a pair of processes, from start to end.
#[derive(Clone, Debug, PartialEq)]
pub struct Part {
    pub system: System,
    pub model: String,
    /// Servers, without the user's machine.
    pub servers: usize,
    /// Linear layers that the gateway holds, from the first.
    pub gateway_layers: usize,
    /// Networks that the same servers are asked over.
    pub networks: Vec<Network>,
    /// Requests over each of them.
    pub requests: usize,
    /// Which of several of the same, from 0.
    pub repetition: usize,
}

impl Part {
    /// Its name, which is a file's too.
    pub fn name(&self) -> String {
        let networks: Vec<&str> = self.networks.iter().map(|n| n.word()).collect();
        format!(
            "{}-{}-n{}-l{}-{}-r{}-{}",
            self.model,
            self.system.word(),
            self.servers,
            self.gateway_layers,
            networks.join("+"),
            self.requests,
            self.repetition
        )
    }

    /// For people.
    pub fn title(&self) -> String {
        let networks: Vec<String> = self.networks.iter().map(|n| n.word().to_uppercase()).collect();
        let layers = match self.system {
            System::Seco => format!(", {} servers, gateway holds {}", self.servers, self.gateway_layers),
            _ => String::new(),
        };
        format!(
            "{} {}{layers}, {}, run {}",
            super::models::title(&self.model),
            self.system.name(),
            networks.join(" and "),
            self.repetition + 1
        )
    }

    /// Whether two differ in their repetition alone.
    pub fn is_alike(&self, other: &Part) -> bool {
        *self == Part { repetition: self.repetition, ..other.clone() }
    }

    /// Bundles, or what corresponds to them, that it needs.
    fn bundles(&self) -> usize {
        match self.system {
            System::Plain => 0,
            _ => self.requests * self.networks.len() + 1,
        }
    }

    /// A guess in seconds, for `and_gates` of its network: what two cores of 2024 took, all included.
    pub fn guess(&self, and_gates: u64) -> f64 {
        let (gates, answers) = (and_gates as f64, (self.requests * self.networks.len()) as f64);
        let [bundle, answer] = match self.system {
            System::Seco => [0.05 + 1.15e-6 * gates, 0.02 + 0.17e-6 * gates],
            System::Delphi => [0.05 + 0.6e-6 * gates, 0.05 + 0.3e-6 * gates],
            // The others are not measured here.
            _ => [0.0, 0.02 + 0.001e-6 * gates],
        };
        3.0 + bundle * self.bundles() as f64 + answer * answers
    }
}

/// How many layers the gateway holds, for a network with so many linear ones.
fn series(options: &Options, linear: usize) -> Vec<usize> {
    let all: Vec<usize> = if !options.gateway_layers.is_empty() {
        options.gateway_layers.clone()
    } else if linear < 10 && options.quick {
        vec![1, linear.saturating_sub(1).max(1)]
    } else if linear < 10 {
        // All that leave something to the remotes.
        (1..linear.max(2)).collect()
    } else if options.quick {
        vec![1]
    } else {
        // The paper counts linear layers and ReLUs: 60, 56, ..., 4 of them on the remotes are 30, 28, ..., 2 linear ones.
        std::iter::once(1).chain((2..=linear.saturating_sub(2)).step_by(2)).collect()
    };
    let mut all: Vec<usize> = all.into_iter().filter(|&layers| layers <= linear).collect();
    all.dedup();
    all
}

/// All parts for a network with so many linear layers: what matters most comes first, repetition by repetition.
pub fn parts(options: &Options, model: &str, linear: usize) -> Vec<Part> {
    let large = linear >= 10;
    let requests = options.requests.unwrap_or(match (large, options.quick) {
        (true, true) => 1,
        (true, false) => 5,
        // Three runs are more than a hundred.
        (false, _) => 34,
    });
    let runs = options.runs.unwrap_or(3);
    let both = vec![Network::Lan, Network::Wan];
    let part = |system, servers, gateway_layers, networks: &[Network], requests| Part {
        system,
        model: model.to_owned(),
        servers,
        gateway_layers,
        networks: networks.to_vec(),
        requests,
        repetition: 0,
    };
    let mut once = Vec::new();
    for &network in &both {
        // Every inference has a bundle of its own there too.
        let requests = options.requests.unwrap_or(if large { 1 } else { 10 });
        once.push(part(System::Delphi, 1, linear, &[network], requests));
    }
    // On both networks and in three runs more than a hundred, as of SECO.
    once.push(part(System::Plain, 1, linear, &both, options.requests.unwrap_or(34)));
    for (place, layers) in series(options, linear).into_iter().enumerate() {
        // The hundred requests of the user's CPU time are made where the gateway holds one layer.
        let fewer = options.requests.unwrap_or(if large { 1 } else { 10 });
        let requests = if place > 0 { fewer } else { requests };
        once.push(part(System::Seco, 3, layers, &both, requests));
    }
    if !large && !options.quick && options.gateway_layers.is_empty() {
        for servers in [2, 4] {
            once.push(part(System::Seco, servers, 1, &both, options.requests.unwrap_or(10)));
        }
    }
    let mut all = Vec::new();
    for part in once {
        let more = large && !options.quick && part.system == System::Seco && part.gateway_layers == 1;
        let runs = if more && options.runs.is_none() { 10 } else { runs };
        all.extend((0..runs).map(|repetition| Part { repetition, ..part.clone() }));
    }
    all
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        options: Options,
    }

    fn all(arguments: &[&str], model: &str, linear: usize) -> Vec<Part> {
        let line = Line::try_parse_from([&["paper"], arguments].concat()).unwrap();
        parts(&line.options, model, linear)
    }

    fn layers(parts: &[Part]) -> Vec<usize> {
        let seco = parts.iter().filter(|part| part.system == System::Seco && part.repetition == 0);
        seco.filter(|part| part.servers == 3).map(|part| part.gateway_layers).collect()
    }

    #[test]
    fn the_full_run_has_the_papers_series_and_a_hundred_requests() {
        let parts = all(&[], "resnet32", 32);
        // 60, 56, ..., 4 layers on the remotes, and all but one.
        assert_eq!(layers(&parts), [1, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30]);
        let first = parts.iter().filter(|part| part.system == System::Seco && part.gateway_layers == 1);
        assert_eq!(first.map(|part| part.requests * part.networks.len()).sum::<usize>(), 100);
        for system in [System::Delphi, System::Plain] {
            assert!(parts.iter().filter(|part| part.system == system).count() >= 3);
        }
        assert_eq!(layers(&all(&[], "minionn", 4)), [1, 2, 3]);
    }

    #[test]
    fn a_quick_run_has_what_is_compared_three_times() {
        let parts = all(&["--quick"], "resnet32", 32);
        assert_eq!(layers(&parts), [1]);
        assert_eq!(parts.iter().filter(|part| part.system == System::Seco).count(), 3);
        assert_eq!(layers(&all(&["--quick", "--gateway-layers", "2,9"], "minionn", 4)), [2]);
        let names: std::collections::BTreeSet<String> = parts.iter().map(Part::name).collect();
        assert_eq!(names.len(), parts.len(), "each has a file of its own");
    }
}
