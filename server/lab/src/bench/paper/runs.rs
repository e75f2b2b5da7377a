//! Configurations, each with its repetitions.

use serde_json::{Map, Value, json};

use super::figures::{Cost, Network, Sample, Spread, System};
use super::plan::Part;

/// One configuration on one network.
#[derive(Clone, Debug)]
pub struct Run {
    pub system: System,
    pub model: String,
    pub servers: usize,
    pub gateway_layers: usize,
    pub network: Network,
    /// By repetition.
    pub samples: Vec<Sample>,
}

/// All of them, in the order in which they were first measured.
#[derive(Clone, Debug, Default)]
pub struct Runs(pub Vec<Run>);

impl Runs {
    /// Adds a part's samples to their configurations.
    pub fn add(&mut self, part: &Part, samples: Vec<Sample>) {
        for sample in samples {
            let key = |run: &Run| (run.system, run.servers, run.gateway_layers, run.network);
            let mine = (part.system, part.servers, part.gateway_layers, sample.network);
            match self.0.iter_mut().find(|run| run.model == part.model && key(run) == mine) {
                Some(run) => run.samples.push(sample),
                None => self.0.push(Run {
                    system: part.system,
                    model: part.model.clone(),
                    servers: part.servers,
                    gateway_layers: part.gateway_layers,
                    network: sample.network,
                    samples: vec![sample],
                }),
            }
        }
    }

    /// The configuration, if it was measured. DELPHI and plain requests have one placement.
    pub fn find(
        &self,
        model: &str,
        system: System,
        network: Network,
        gateway_layers: Option<usize>,
    ) -> Option<&Run> {
        self.0.iter().find(|run| {
            run.model == model
                && run.system == system
                && run.network == network
                && (system != System::Seco || run.servers == 3)
                && gateway_layers.is_none_or(|layers| run.gateway_layers == layers)
        })
    }

    /// The least and the most load of samples that began with another load than `now`: they are of earlier commands.
    pub fn kept_load(&self, now: Option<f64>) -> Option<[f64; 2]> {
        let samples = self.0.iter().flat_map(|run| &run.samples);
        let earlier = samples.map(|sample| sample.load_at_start).filter(|load| *load != now);
        let spread = Spread::of(earlier.flatten())?;
        Some([spread.least, spread.most])
    }

    /// SECO's three servers, by growing number of layers at the gateway.
    pub fn series(&self, model: &str, network: Network) -> Vec<&Run> {
        let mut runs: Vec<&Run> = self.0.iter().collect();
        runs.retain(|run| {
            run.model == model && run.system == System::Seco && run.network == network && run.servers == 3
        });
        runs.sort_by_key(|run| run.gateway_layers);
        runs
    }
}

impl Run {
    /// A figure of all repetitions that have it.
    pub fn spread(&self, of: impl Fn(&Sample) -> Option<f64>) -> Option<Spread> {
        Spread::of(self.samples.iter().filter_map(of))
    }

    /// A figure of the user.
    pub fn user(&self, of: impl Fn(&Cost) -> Option<f64>) -> Option<Spread> {
        self.spread(|sample| of(&sample.user))
    }

    /// A figure of all servers together.
    pub fn all_servers(&self, of: impl Fn(&Cost) -> Option<f64>) -> Option<Spread> {
        self.spread(|sample| sample.servers.iter().map(&of).sum::<Option<f64>>())
    }

    /// Answers that are equal, and all.
    pub fn answers(&self) -> (usize, usize) {
        self.samples.iter().fold((0, 0), |(equal, count), s| (equal + s.equal, count + s.count))
    }

    /// As an object.
    pub fn json(&self) -> Value {
        let (equal, count) = self.answers();
        let (user, user_spread) = self.cost(|sample| Some(&sample.user));
        let servers = self.samples.iter().map(|sample| sample.servers.len()).max().unwrap_or(0);
        let (servers, servers_spread): (Vec<_>, Vec<_>) =
            (0..servers).map(|index| self.cost(|sample| sample.servers.get(index))).unzip();
        let figures = [
            ("waiting_s", self.spread(|sample| Some(sample.waiting_s))),
            ("preprocessing_s", self.spread(|sample| sample.preprocessing_s)),
            ("setup_s", self.spread(|sample| sample.setup_s)),
            ("load_at_start", self.spread(|sample| sample.load_at_start)),
        ];
        let mut spread = Map::new();
        let mut run = json!({
            "system": self.system.word(),
            "model": self.model,
            "server_count": self.servers,
            "gateway_layers": self.gateway_layers,
            "network": self.network.word(),
            "user": user,
            "servers": servers,
            "equal": equal,
            "count": count,
            "repetitions": self.samples.len(),
        });
        for (name, figure) in figures {
            run[name] = figure.map(|figure| figure.mean).into();
            spread.insert(name.to_owned(), figure.map(|figure| figure.json()).into());
        }
        spread.insert("user".to_owned(), user_spread);
        spread.insert("servers".to_owned(), servers_spread.into());
        run["spread"] = spread.into();
        run
    }

    /// A party's means, and their spreads.
    fn cost(&self, party: impl Fn(&Sample) -> Option<&Cost>) -> (Value, Value) {
        let (mut means, mut spreads) = (Map::new(), Map::new());
        for (index, (name, _)) in Cost::default().fields().into_iter().enumerate() {
            let spread = self.spread(|sample| party(sample)?.fields().get(index)?.1);
            means.insert(name.to_owned(), spread.map(|spread| spread.mean).into());
            spreads.insert(name.to_owned(), spread.map(|spread| spread.json()).into());
        }
        (means.into(), spreads.into())
    }
}
