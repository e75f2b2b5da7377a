//! Systems of others, beside ours.

use std::collections::BTreeSet;

use super::blocks::{figure, parties, times};
use super::document::Block;
use super::{Network, Report, Run, System, models};
use crate::bench::paper::peers::Peer;

/// Nothing, where no file of them was given.
pub fn blocks(report: &Report) -> Vec<Block> {
    let peers = &report.peers.all;
    if peers.is_empty() {
        return Vec::new();
    }
    let mut blocks = vec![
        Block::Heading("Peers: systems of others".to_owned()),
        Block::Text(
            "Not measured by this program, but by scripts (server/lab/peers), on loopback, and put beside this program's \
             own figures of the same networks; those are with the user on the servers' LAN, SECO with one layer at the gateway. \
             Their answers are compared otherwise than ours, which are equal bit for bit: what is counted, and what is not \
             comparable, stands below the tables. What was not measured is empty."
                .to_owned(),
        ),
    ];
    let names: BTreeSet<&str> = peers.iter().map(|peer| peer.run.model.as_str()).collect();
    for name in names {
        let ours = [(System::Seco, Some(1)), (System::Delphi, None), (System::Plain, None)];
        let ours = ours.into_iter().filter_map(|(system, l)| report.runs.find(name, system, Network::Lan, l));
        let theirs = peers.iter().map(|peer| &peer.run).filter(|run| run.model == name);
        let runs: Vec<&Run> = ours.chain(theirs).collect();
        blocks.push(Block::Text(format!("{}:", models::title(name))));
        blocks.push(Block::Table(times(runs.iter().copied())));
        blocks.push(Block::Table(parties(runs.iter().copied())));
    }
    blocks.extend(peers.iter().flat_map(told));
    blocks
}

/// By what it was measured, and what it holds.
fn told(peer: &Peer) -> [Block; 2] {
    let run = &peer.run;
    let versions: Vec<String> =
        peer.versions.iter().map(|(name, version)| format!("{name} {version}")).collect();
    let (equal, count) = run.answers();
    let error = peer
        .largest_error
        .map(|error| format!(", logits at most {} apart", figure(error)))
        .unwrap_or_default();
    let load = run.spread(|sample| sample.load_at_start);
    let load = load
        .map(|load| format!(" Load when it began: {:.2} to {:.2} for each core.", load.least, load.most))
        .unwrap_or_default();
    let text = format!(
        "{}, {}: measured with {} on {}.{load} Equal: {equal} of {count} ({}{error}). {}",
        models::title(&run.model),
        run.system.name(),
        versions.join(", "),
        peer.machine,
        peer.compared,
        peer.notes.join(" ")
    );
    [Block::Text(text), Block::Code(peer.command.clone())]
}
