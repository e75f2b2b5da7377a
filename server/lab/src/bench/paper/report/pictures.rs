//! Drawings of what was measured. Every number in them is of a run, or one of the paper's.

use super::blocks::{figure, user_bytes, words};
use super::document::Figure;
use super::svg::{Bar, Curve, Labels, Value, bars, curves};
use super::{Network, Report, Run, Spread, System, both, published};
use crate::bench::paper::models::Facts;

const NETWORKS: [Network; 2] = [Network::Lan, Network::Wan];

fn value(spread: Spread) -> Value {
    Value { value: spread.mean, within: spread.within }
}

/// How many times less than DELPHI's a user has, ours and the paper's.
pub fn less_than_delphi(report: &Report) -> Option<Figure> {
    let comparisons = report.comparisons();
    let model = report
        .models
        .iter()
        .rev()
        .find(|facts| comparisons.iter().any(|c| c.model == facts.name && c.times.is_some()))?;
    let mut groups: Vec<(String, Vec<Bar>)> = Vec::new();
    for (index, network) in NETWORKS.into_iter().enumerate() {
        for c in comparisons.iter().filter(|c| c.model == model.name && c.network == network) {
            let name = words(c.what).0.to_owned();
            let group = match groups.iter_mut().find(|(group, _)| *group == name) {
                Some(group) => group,
                None => {
                    let paper = c.published.map(|times| Bar {
                        name: "paper, up to".to_owned(),
                        kind: 1,
                        value: Some(Value { value: times, within: None }),
                        words: format!("{times}x"),
                    });
                    groups.push((name, paper.into_iter().collect()));
                    let last = groups.len() - 1;
                    &mut groups[last]
                }
            };
            let none = c.seco.is_some_and(|seco| seco.mean == 0.0) && c.delphi.is_some();
            if c.times.is_some() || (none && index == 0) {
                let network =
                    if none { String::new() } else { format!(", {}", network.word().to_uppercase()) };
                group.1.push(Bar {
                    name: format!("here{network}"),
                    kind: if index == 0 { 0 } else { 2 },
                    value: c.times.map(|times| Value { value: times, within: None }),
                    words: c
                        .times
                        .map_or("SECO's user has none".to_owned(), |times| format!("{}x", figure(times))),
                });
            }
        }
    }
    groups.retain(|(_, bars)| !bars.is_empty());
    let title = format!("{}: times less than DELPHI's user", model.title);
    let description = "For each figure of one prediction, how many times less SECO's user has than DELPHI's: measured \
        here with one layer at the gateway, and the paper's figure. Logarithmic.";
    let labels = Labels { title: &title, description, x: "", y: "times" };
    let svg = bars(&labels, &groups)?;
    Some(Figure {
        name: "less-than-delphi".to_owned(),
        caption: format!("{title}. {}.", report.machine.sentence()),
        svg,
    })
}

/// What one prediction costs the user, by system.
pub fn user(report: &Report) -> Vec<Figure> {
    let mut figures = Vec::new();
    type Of = (&'static str, &'static str, &'static str, fn(&Run) -> Option<Spread>, &'static str);
    let kinds: [Of; 2] = [
        (
            "user-cpu",
            "The user's CPU time for one request, online",
            "s",
            |run| run.user(|c| c.online_cpu_s),
            "s",
        ),
        ("user-bytes", "The user's bytes for one request, online", "bytes", user_bytes, "B"),
    ];
    for (name, title, unit, of, word) in kinds {
        let mut groups = Vec::new();
        for facts in &report.models {
            let bar = |(kind, (system, layers)): (usize, (System, Option<usize>))| {
                let spread = of(report.runs.find(&facts.name, system, Network::Lan, layers)?)?;
                let words = format!("{} {word}", figure(spread.mean));
                Some(Bar { name: system.name().to_owned(), kind, value: Some(value(spread)), words })
            };
            let systems = [(System::Seco, Some(1)), (System::Delphi, None), (System::Plain, None)];
            let bars: Vec<Bar> = systems.into_iter().enumerate().filter_map(bar).collect();
            if !bars.is_empty() {
                groups.push((facts.title.clone(), bars));
            }
        }
        let description =
            format!("{title}, in {unit}: SECO, DELPHI and a request without privacy. Logarithmic.");
        let labels = Labels { title, description: &description, x: "", y: unit };
        if let Some(svg) = bars(&labels, &groups) {
            figures.push(Figure {
                name: name.to_owned(),
                caption: format!("{title}. {}.", report.machine.sentence()),
                svg,
            });
        }
    }
    figures
}

/// The paper's figures: against the layers at the gateway, and on the remotes.
pub fn by_layers(report: &Report, facts: &Facts) -> Vec<Figure> {
    type Of = (&'static str, &'static str, &'static str, bool, fn(&Run) -> Option<Spread>);
    let kinds: [Of; 4] = [
        ("online", "The user's participation online", "CPU, s", false, |run| run.user(|c| c.online_cpu_s)),
        ("waiting", "The user's waiting time", "s", true, |run| run.spread(|s| Some(s.waiting_s))),
        ("preprocessing", "Preprocessing of one prediction", "s", true, |run| {
            run.spread(|s| s.preprocessing_s)
        }),
        ("bytes", "The user's bytes, online and ahead", "bytes", false, |run| {
            run.user(|c| Some(both(c, false)? + both(c, true)?))
        }),
    ];
    let mut figures = Vec::new();
    for (name, kind, unit, by_network, of) in kinds {
        let mut all = Vec::new();
        let networks: &[Network] = if by_network { &NETWORKS } else { &NETWORKS[..1] };
        for (place, &network) in networks.iter().enumerate() {
            let suffix =
                if by_network { format!(", {}", network.word().to_uppercase()) } else { String::new() };
            let series = report.runs.series(&facts.name, network);
            let points =
                series.iter().filter_map(|run| Some((run.gateway_layers as f64, value(of(run)?)))).collect();
            all.push(Curve { name: format!("SECO{suffix}"), kind: 3 * place, points, across: false });
            let first = series.first().map_or(1.0, |run| run.gateway_layers as f64);
            for (kind, system) in [(1, System::Delphi), (2, System::Plain)] {
                let run = report.runs.find(&facts.name, system, network, None);
                let points: Vec<_> =
                    run.and_then(of).map(|spread| (first, value(spread))).into_iter().collect();
                all.push(Curve {
                    name: format!("{}{suffix}", system.name()),
                    kind: kind + 3 * place,
                    points,
                    across: true,
                });
            }
        }
        if name == "waiting" && facts.name == "resnet32" {
            let points = vec![(1.0, Value { value: published::DELPHI_ONLINE_S, within: None })];
            all.push(Curve { name: "DELPHI, paper (figure 4)".to_owned(), kind: 4, points, across: true });
        }
        all.retain(|curve| curve.points.iter().any(|(_, v)| v.value > 0.0));
        push(report, facts, name, kind, unit, "linear layers at the gateway", &all, &mut figures);
    }
    if facts.name == "resnet32" {
        setup(report, facts, &mut figures);
    }
    figures
}

/// Tables IV and V as curves, with our runs beside.
fn setup(report: &Report, facts: &Facts, figures: &mut Vec<Figure>) {
    let series = report.runs.series(&facts.name, Network::Lan);
    let ours = |of: &dyn Fn(&Run) -> Option<Spread>| {
        let place = |run: &Run| published::remote_layers(facts.linear_layers, run.gateway_layers) as f64;
        series.iter().filter_map(|run| Some((place(run), value(of(run)?)))).collect::<Vec<_>>()
    };
    let exact = |value| Value { value, within: None };
    let seconds = published::SETUP.map(|(layers, seconds, _)| (layers as f64, exact(seconds))).to_vec();
    let bytes =
        published::SETUP.map(|(layers, _, gigabytes)| (layers as f64, exact(gigabytes * 1e9))).to_vec();
    let curves = |paper, ours| {
        [("paper", 1, paper), ("here", 0, ours)].map(|(name, kind, points)| Curve {
            name: name.to_owned(),
            kind,
            points,
            across: false,
        })
    };
    let axis = "layers on the remotes, linear ones and ReLUs";
    let time = curves(seconds, ours(&|run| run.spread(|s| s.preprocessing_s)));
    push(report, facts, "setup-time", "Servers' preparation for one prediction", "s", axis, &time, figures);
    let sent = curves(bytes, ours(&|run| run.all_servers(|c| c.preprocessing_bytes_up)));
    push(
        report,
        facts,
        "setup-bytes",
        "Servers' bytes to prepare one prediction",
        "bytes",
        axis,
        &sent,
        figures,
    );
}

#[expect(clippy::too_many_arguments, reason = "a drawing's words")]
fn push(
    report: &Report,
    facts: &Facts,
    name: &str,
    kind: &str,
    unit: &str,
    axis: &str,
    all: &[Curve],
    figures: &mut Vec<Figure>,
) {
    let title = format!("{}: {}", facts.title, kind.to_lowercase());
    let names: Vec<&str> = all.iter().map(|curve| curve.name.as_str()).collect();
    let description = format!("{kind}, {unit}, against {axis}: {}. Logarithmic height.", names.join("; "));
    let labels = Labels { title: &title, description: &description, x: axis, y: unit };
    if let Some(svg) = curves(&labels, all) {
        let caption = format!("{title}. Bars: the spread of the runs. {}.", report.machine.sentence());
        figures.push(Figure { name: format!("{}-{name}", facts.name), caption, svg });
    }
}
