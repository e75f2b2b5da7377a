//! What the report says, in order.

use serde_json::Value;

use super::document::{Block, Table};
use super::published;
use super::{Comparison, Network, Report, Run, Spread, System, both, models, peers, pictures};
use crate::bench::paper::models::Weights;

/// How it was measured.
pub const METHOD: &[&str] = &[
    "All parties are processes of one machine and share its processors. Every repetition starts them anew. Every answer is compared with the plaintext fixed-point network's.",
    "After ± stands how far another run of the same, or the mean of several, lies from the mean in 19 of 20 cases, if runs vary as in a normal distribution: t(n-1) s sqrt(1 + 1/n) of n repetitions.",
    "CPU time is that of all threads of a process, kernel included; of SECO's servers in steps of 10 ms over all requests and bundles of a repetition. Peak memory is VmHWM.",
    "Bytes are UDP payload, QUIC's acknowledgements included; of DELPHI frames on TCP, without TLS, TCP and IP. The gateway's bytes include the user's.",
    "LAN is loopback. On the WAN a relay stands between the user and the servers: 20 ms one way, 200 Mbit/s in each direction. The servers are on one LAN in both cases. The relay is a part of this program and takes its processor time from the same machine; no network namespaces or netem are used. Over the relay TCP has no slow start, which favours DELPHI.",
    "Storage is the size of a bundle's file; of DELPHI, which keeps its bundle in memory here, the bytes that follow from its plan. A user of SECO stores nothing.",
    "SECO's figures on LAN and WAN are of the same servers and bundles, one after the other.",
    "Layers at the gateway are linear ones. The paper counts linear layers and ReLUs: where it has 60 on the remotes, the gateway holds 2 of 32 linear ones.",
];

/// What of the paper is not measured, and why.
pub const NOT_EXPRESSED: &[&str] = &[
    "DELPHI-3: not measured. It differs from SECO online only, in that the gateway evaluates all circuits. Here the evaluator of a layer follows from its depth, in turn among all servers, and is no setting.",
    "The paper's own roles (one server garbles, another evaluates, the third one's labels go to the evaluator by oblivious transfer): not measured, for they cannot be expressed. They are unsafe where garbler and evaluator collude: together they have both labels of every wire and the active one, hence the third server's inputs. Here all servers but the evaluator garble.",
    "The user as DELPHI's client for the gateway's layers, as in the paper: not measured. Here the user only masks and unmasks; DELPHI's user is the baseline of its own.",
    "Energy is not measured: that takes a device and a meter.",
];

/// A number with three digits that count.
pub fn figure(value: f64) -> String {
    let digits = if value == 0.0 { 0 } else { value.abs().log10().floor() as i32 };
    match digits {
        _ if value == 0.0 => "0".to_owned(),
        3.. => grouped(value.round()),
        digits => format!("{value:.*}", (2 - digits).clamp(0, 8) as usize),
    }
}

fn grouped(value: f64) -> String {
    let digits = format!("{value:.0}");
    let mut out = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) && digit.is_ascii_digit() {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// A figure with its spread, divided by `unit`; empty if it was not measured.
pub fn spread(spread: Option<Spread>, unit: f64) -> String {
    let Some(Spread { mean, within, .. }) = spread else { return String::new() };
    match within {
        Some(within) if within > 0.0 => format!("{} ± {}", figure(mean / unit), figure(within / unit)),
        _ => figure(mean / unit),
    }
}

fn heads<const N: usize>(names: [&str; N]) -> Vec<String> {
    names.map(str::to_owned).to_vec()
}

/// Everything.
pub fn blocks(report: &Report) -> Vec<Block> {
    let mut blocks = opening(report);
    blocks.push(Block::Heading("The user beside DELPHI's".to_owned()));
    blocks.extend(pictures::less_than_delphi(report).map(Block::Figure));
    blocks.extend(pictures::user(report).into_iter().map(Block::Figure));
    blocks.push(Block::Table(compared(&report.comparisons())));
    for facts in &report.models {
        blocks.push(Block::Heading(facts.title.clone()));
        blocks.extend(pictures::by_layers(report, facts).into_iter().map(Block::Figure));
        blocks.push(Block::Table(times(runs_of(report, &facts.name))));
        blocks.push(Block::Table(parties(runs_of(report, &facts.name))));
    }
    blocks.extend(peers::blocks(report));
    blocks.push(Block::Heading("Beside the paper's tables".to_owned()));
    blocks.push(Block::Text(
        "Tables IV and V: what the servers prepare for one prediction of ResNet-32, by layers on the remotes.".to_owned(),
    ));
    blocks.push(Block::Table(setup(report)));
    for (number, model) in [("VI", "minionn"), ("VII", "lenet")] {
        let title = models::title(model);
        blocks.push(Block::Text(format!(
            "Table {number}: {title}, the whole online inference, bytes of all parties."
        )));
        blocks.push(Block::Table(online(report, model)));
    }
    blocks.push(Block::Heading("The device's share".to_owned()));
    blocks.push(Block::Text(
        "Instructions and bytes of a further request beside a plain one, by cross/cost (cross/COST.md says how). Empty \
         where it was not run."
            .to_owned(),
    ));
    blocks.push(Block::Table(device(report.device.as_ref())));
    blocks.push(Block::Heading("How it was measured".to_owned()));
    blocks.extend(METHOD.iter().map(|text| Block::Text((*text).to_owned())));
    blocks.push(Block::Heading("What was not measured".to_owned()));
    blocks.extend(NOT_EXPRESSED.iter().map(|text| Block::Text((*text).to_owned())));
    blocks.extend(report.left_out.iter().map(|text| Block::Text(text.clone())));
    blocks
}

fn opening(report: &Report) -> Vec<Block> {
    let machine = &report.machine;
    let load = machine.load_at_start.map(|load| {
        let company = if load > 0.2 { ": others worked beside it, and times vary with them" } else { "" };
        format!(" Load at the start: {load:.2} for each core{company}.")
    });
    let kept = report.runs.kept_load(machine.load_at_start).map(|[least, most]| {
        format!(" Of repetitions kept from earlier commands it was {least:.2} to {most:.2} when those began.")
    });
    let commit = machine.folder_commit.as_ref();
    let commit = commit.map(|c| format!(" (started in a folder of commit {c})")).unwrap_or_default();
    let mut blocks = vec![
        Block::Text(format!(
            "The measurements of the SECO paper (arXiv 2404.16232) on one machine: {}, {}. seco {}, program {}{commit}.{}{}",
            machine.sentence(),
            machine.system.as_deref().unwrap_or("unknown system"),
            machine.version,
            machine.program,
            load.unwrap_or_default(),
            kept.unwrap_or_default()
        )),
        Block::Code(report.command.clone()),
    ];
    let percent = |part: Option<f64>| part.map(|part| format!("{:.1}%", 100.0 * part)).unwrap_or_default();
    let rows = report.models.iter().map(|facts| {
        let weights = match facts.weights {
            Weights::Trained => "trained",
            Weights::Bundled => "trained, bundled",
            Weights::Random => "random: costs alone are told",
        };
        vec![
            facts.title.clone(),
            weights.to_owned(),
            facts.linear_layers.to_string(),
            grouped(facts.relus as f64),
            facts.tested.map(|count| count.to_string()).unwrap_or_default(),
            percent(facts.accuracy_float),
            percent(facts.accuracy_fixed),
            percent(facts.agreement),
        ]
    });
    blocks.push(Block::Table(Table {
        head: heads([
            "network",
            "weights",
            "linear layers",
            "ReLUs",
            "test inputs",
            "right: float",
            "fixed point",
            "same label",
        ]),
        rows: rows.collect(),
    }));
    blocks
}

/// What is compared, for people, and its unit.
pub fn words(what: &str) -> (&'static str, f64, &'static str) {
    match what {
        "user_online_cpu_s" => ("user's CPU online", 1e-3, "ms"),
        "user_online_bytes" => ("user's bytes online", 1e3, "kB"),
        "waiting_s" => ("waiting", 1e-3, "ms"),
        "user_preprocessing_cpu_s" => ("user's CPU ahead", 1e-3, "ms"),
        "user_preprocessing_bytes" => ("user's bytes ahead", 1e3, "kB"),
        _ => ("user's storage", 1e3, "kB"),
    }
}

fn compared(comparisons: &[Comparison]) -> Table {
    let row = |c: &Comparison| {
        let (name, unit, word) = words(c.what);
        let none = c.seco.is_some_and(|seco| seco.mean == 0.0);
        vec![
            format!("{}, {}: {name}, {word}", models::title(&c.model), c.network.word().to_uppercase()),
            spread(c.delphi, unit),
            if none { "none".to_owned() } else { spread(c.seco, unit) },
            c.times.map(|times| format!("{}x", figure(times))).unwrap_or_default(),
            c.published.map(|times| format!("up to {times}x")).unwrap_or_default(),
        ]
    };
    let shown = comparisons.iter().filter(|c| c.delphi.is_some() || c.seco.is_some());
    Table {
        head: heads(["one prediction", "DELPHI", "SECO, one layer at the gateway", "less", "paper"]),
        rows: shown.map(row).collect(),
    }
}

fn name(run: &Run) -> String {
    let network = run.network.word().to_uppercase();
    match run.system {
        System::Seco => {
            format!("SECO, {} servers, {} at the gateway, {network}", run.servers, run.gateway_layers)
        }
        other => format!("{}, {network}", other.name()),
    }
}

fn runs_of<'a>(report: &'a Report, model: &'a str) -> impl Iterator<Item = &'a Run> {
    report.runs.0.iter().filter(move |run| run.model == model)
}

/// How long runs took.
pub fn times<'a>(runs: impl Iterator<Item = &'a Run>) -> Table {
    let row = |run: &Run| {
        let (equal, count) = run.answers();
        vec![
            name(run),
            spread(run.spread(|s| Some(s.waiting_s)), 1e-3),
            spread(run.spread(|s| s.preprocessing_s), 1.0),
            spread(run.spread(|s| s.setup_s), 1.0),
            format!("{equal} of {count}"),
            run.samples.len().to_string(),
        ]
    };
    Table {
        head: heads(["times", "waiting, ms", "preprocessing, s", "set-up, once, s", "answers equal", "runs"]),
        rows: runs.map(row).collect(),
    }
}

/// What every party of runs paid.
pub fn parties<'a>(runs: impl Iterator<Item = &'a Run>) -> Table {
    let mut rows = Vec::new();
    for run in runs {
        let servers = run.samples.iter().map(|s| s.servers.len()).max().unwrap_or(0);
        for party in 0..=servers {
            let of = |figure: &dyn Fn(&super::Cost) -> Option<f64>, unit: f64| {
                let one =
                    run.spread(|s| figure(if party == 0 { &s.user } else { s.servers.get(party - 1)? }));
                spread(one, unit)
            };
            let who = match (party, run.system) {
                (0, _) => "user".to_owned(),
                (1, System::Seco) => "gateway".to_owned(),
                (_, System::Seco) => format!("remote {}", party - 1),
                _ if servers > 1 => format!("server {party}"),
                _ => "server".to_owned(),
            };
            rows.push(vec![
                format!("{}: {who}", name(run)),
                of(&|c| c.online_cpu_s, 1e-3),
                of(&|c| c.online_bytes_up, 1e3),
                of(&|c| c.online_bytes_down, 1e3),
                of(&|c| c.preprocessing_cpu_s, 1e-3),
                of(&|c| c.preprocessing_bytes_up, 1e6),
                of(&|c| c.preprocessing_bytes_down, 1e6),
                of(&|c| c.peak_memory_bytes, 1e6),
                of(&|c| c.storage_bytes, 1e6),
                of(&|c| c.setup_cpu_s, 1e-3),
                of(&|c| c.setup_bytes_up, 1e3),
                of(&|c| c.setup_bytes_down, 1e3),
            ]);
        }
    }
    let head = [
        "parties",
        "online: CPU, ms",
        "up, kB",
        "down, kB",
        "ahead: CPU, ms",
        "up, MB",
        "down, MB",
        "peak memory, MB",
        "storage, MB",
        "set-up, once: CPU, ms",
        "up, kB",
        "down, kB",
    ];
    Table { head: heads(head), rows }
}

/// Tables IV and V, and our runs of the same placements; then those of ours that the paper does not have.
fn setup(report: &Report) -> Table {
    let linear = models::linear_layers("resnet32");
    let ours = report.runs.series("resnet32", Network::Lan);
    let of = |layers: usize| {
        ours.iter().find(|run| published::remote_layers(linear, run.gateway_layers) == layers)
    };
    let mut layers: Vec<usize> = published::SETUP.iter().map(|row| row.0).collect();
    layers.extend(ours.iter().map(|run| published::remote_layers(linear, run.gateway_layers)));
    layers.sort_unstable_by(|a, b| b.cmp(a));
    layers.dedup();
    let row = |&layers: &usize| {
        let paper = published::SETUP.iter().find(|row| row.0 == layers);
        let run = of(layers);
        vec![
            layers.to_string(),
            paper.map(|row| row.1.to_string()).unwrap_or_default(),
            spread(run.and_then(|run| run.spread(|s| s.preprocessing_s)), 1.0),
            paper.map(|row| row.2.to_string()).unwrap_or_default(),
            spread(run.and_then(|run| run.all_servers(|c| c.preprocessing_bytes_up)), 1e9),
        ]
    };
    Table {
        head: heads(["layers on the remotes", "paper, s", "here, s", "paper, GB", "here, GB"]),
        rows: layers.iter().map(row).collect(),
    }
}

fn online(report: &Report, model: &str) -> Table {
    let mut rows: Vec<Vec<String>> = published::online(model)
        .iter()
        .map(|row| vec![row.system.to_owned(), row.seconds.to_string(), row.megabytes.to_string()])
        .collect();
    for network in [Network::Lan, Network::Wan] {
        for (system, layers) in [(System::Seco, Some(1)), (System::Delphi, None)] {
            let run = report.runs.find(model, system, network, layers);
            let sent = run.and_then(|run| {
                run.spread(|s| {
                    let servers = s.servers.iter().map(|cost| cost.online_bytes_up).sum::<Option<f64>>();
                    Some(servers? + s.user.online_bytes_up?)
                })
            });
            rows.push(vec![
                format!("{}, here, {}", system.name(), network.word().to_uppercase()),
                spread(run.and_then(|run| run.spread(|s| Some(s.waiting_s))), 1.0),
                spread(sent, 1e6),
            ]);
        }
    }
    Table { head: heads(["system", "online, s", "MB"]), rows }
}

fn device(measured: Option<&Value>) -> Table {
    let mut rows = Vec::new();
    for (key, target) in [("x86_64", "x86-64"), ("aarch64", "aarch64"), ("armv7", "armv7")] {
        for (payload, of) in [("784", "MNIST"), ("3072", "CIFAR-10")] {
            let number =
                |name: &str| measured.and_then(|all| all.get(key)?.get(payload)?.get(name)?.as_f64());
            let cell = |name: &str| number(name).map(grouped).unwrap_or_default();
            rows.push(vec![
                format!("{target}, {payload} B ({of})"),
                cell("request_instructions"),
                cell("plain_instructions"),
                cell("request_bytes_up"),
                cell("plain_bytes_up"),
                cell("request_bytes_down"),
                cell("plain_bytes_down"),
            ]);
        }
    }
    let head = [
        "device",
        "instructions: private",
        "plain",
        "bytes up: private",
        "plain",
        "bytes down: private",
        "plain",
    ];
    Table { head: heads(head), rows }
}

/// Bytes online of a run's user.
pub fn user_bytes(run: &Run) -> Option<Spread> {
    run.user(|cost| both(cost, false))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_have_three_digits() {
        for (value, text) in
            [(0.0, "0"), (0.00061234, "0.000612"), (1.5, "1.50"), (12.345, "12.3"), (999.6, "1000")]
        {
            assert_eq!(figure(value), text);
        }
        assert_eq!((figure(12_345.6), figure(1_234_567.0)), ("12,346".to_owned(), "1,234,567".to_owned()));
        assert_eq!(spread(None, 1.0), "");
        assert_eq!(spread(Spread::of([2.0]), 1.0), "2.00");
        assert_eq!(spread(Spread::of([2.0, 2.0]), 1.0), "2.00");
    }
}
