//! What the servers send looks random, and never the same twice.
#![allow(clippy::unwrap_used)]

mod common;

use std::collections::HashMap;

use common::graphs::{second_convolution, two_layers};
use common::{Sent, cluster, input, model, plain, run};
use seco_model::{FixedModel, Placement, paper_placements};

/// Where a 16-byte block stands: phase, sender, receiver, number of the message, offset.
type Place = (&'static str, usize, usize, usize, usize);

/// All aligned 16-byte blocks of a transcript.
///
/// Public fields, which may repeat: none. Every message of a bundle is a ciphertext polynomial, an
/// OT message, garbled tables, labels, or bits under masks; lengths are not part of a message. Two
/// kinds of bytes are left out because they are padding, not content: a block of planes that is all
/// zero past the last lane, and blocks in which fewer than eight bytes differ from zero (the ten
/// logits fill ten bits of a 64-bit word; such blocks repeat by chance).
fn blocks(sent: &Sent) -> HashMap<[u8; 16], Place> {
    let mut seen = HashMap::new();
    for (phase, servers) in [("preprocessing", &sent.preprocessing), ("online", &sent.online)] {
        for (from, messages) in servers.iter().enumerate() {
            for (number, (to, message)) in messages.iter().enumerate() {
                for (i, block) in message.chunks_exact(16).enumerate() {
                    if block.iter().filter(|&&b| b != 0).count() >= 8 {
                        let block: [u8; 16] = block.try_into().unwrap();
                        seen.insert(block, (phase, from, *to, number, i * 16));
                    }
                }
            }
        }
    }
    seen
}

fn repeats(a: &Sent, b: &Sent) -> Vec<(Place, Place)> {
    let (a, b) = (blocks(a), blocks(b));
    a.iter().filter_map(|(block, &place)| b.get(block).map(|&other| (place, other))).collect()
}

/// Two runs with the same input, the same cluster and different randomness share no block.
#[test]
fn no_block_repeats_between_runs() {
    let model = model(1);
    let x = input(&model, 1);
    for servers in 2..=4 {
        let parties = cluster(&model, servers, &paper_placements(4, servers, 1), 3);
        let (first, a) = run(&parties, 1, &x);
        let (second, b) = run(&parties, 2, &x);
        assert_eq!(first, second);
        assert_eq!(first, plain(&model, &x));
        let repeats = repeats(&a, &b);
        assert!(repeats.is_empty(), "n={servers}: {repeats:?}");
        assert!(blocks(&a).len() > 100_000, "the test looked at something");
    }
}

/// The check above can fail: the same seeds again give the same blocks. (Of another cluster with the same
/// seeds: one cluster refuses to make the same bundle twice. In production all seeds are drawn anew.)
#[test]
fn repeated_randomness_is_noticed() {
    let model = model(1);
    let x = input(&model, 1);
    let parties = || cluster(&model, 2, &paper_placements(4, 2, 1), 3);
    let (_, a) = run(&parties(), 1, &x);
    let (_, b) = run(&parties(), 1, &x);
    assert!(!repeats(&a, &b).is_empty());
}

/// A model whose lanes fill whole planes, so that published planes have no padding.
fn full_planes() -> (FixedModel, Vec<Placement>) {
    (two_layers(6, second_convolution(), 17), vec![Placement::Held(0), Placement::Shared(vec![0, 1])])
}

/// The words that servers publish online (masked inputs, masked accumulators, `x - r`, masked
/// outputs) have uniform bytes: chi-squared with 255 degrees of freedom, each run of messages of one
/// sender to one receiver. Inputs are all zero, and most of the network's values with them.
#[test]
fn published_words_are_uniform() {
    let (model, placements) = full_planes();
    let x = vec![0; model.graph.input.len()];
    let parties = cluster(&model, 3, &placements, 4);
    let mut counts: HashMap<(usize, usize), [u64; 256]> = HashMap::new();
    for number in 0..50 {
        let (_, sent) = run(&parties, number, &x);
        for (from, messages) in sent.online.iter().enumerate() {
            for (to, message) in messages {
                let histogram = counts.entry((from, *to)).or_insert([0; 256]);
                message.iter().for_each(|&b| histogram[usize::from(b)] += 1);
            }
        }
    }
    assert_eq!(counts.len(), 6, "every server sends to every other");
    for ((from, to), histogram) in counts {
        let total: u64 = histogram.iter().sum();
        let expected = total as f64 / 256.0;
        assert!(expected > 20.0, "{from} to {to}: too few bytes, {total}");
        let chi: f64 = histogram.iter().map(|&c| (c as f64 - expected).powi(2) / expected).sum();
        // 255 degrees of freedom: mean 255, standard deviation 22.6; 400 is beyond one in 10^7.
        assert!(chi < 400.0, "{from} to {to}: chi-squared {chi} over {total} bytes");
    }
}
