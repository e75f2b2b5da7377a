//! Graphs that are no chains: the private result equals the plaintext model's bit for bit, whatever is added to what,
//! read by whom and held where.
#![allow(clippy::unwrap_used)]

mod common;

use common::graphs::{Builder, random, random_placements};
use common::{cluster, input, plain, run};
use seco_model::{FixedModel, Placement};

/// Exact for these placements, with two inputs.
fn check(name: &str, model: &FixedModel, servers: usize, placements: &[Placement]) {
    let parties = cluster(model, servers, placements, 5);
    for number in 0..2 {
        let x = input(model, 10 + number);
        assert_eq!(
            run(&parties, number, &x).0,
            plain(model, &x),
            "{name}, {servers} servers, {placements:?}, #{number}"
        );
    }
}

/// Random graphs with random placements.
fn random_graphs(servers: usize, seeds: std::ops::Range<u64>) {
    for seed in seeds {
        let model = random(seed, 4 + seed as usize % 14);
        check(
            &format!("graph {seed}"),
            &model,
            servers,
            &random_placements(model.layers.len(), servers, seed),
        );
    }
}

#[test]
fn random_graphs_of_two_servers() {
    random_graphs(2, 0..20);
}

#[test]
fn random_graphs_of_three_servers() {
    random_graphs(3, 100..120);
}

#[test]
fn random_graphs_of_four_servers() {
    random_graphs(4, 200..215);
}

/// A residual sum of two layers held by others and of the value before, and sums of such sums.
#[test]
fn residual_sums_of_layers_that_others_hold() {
    let mut b = Builder::new(&[12], 1);
    let x = b.dense(0, 8, 18);
    let x = b.relu(x, 3);
    let one = b.dense(x, 8, 16);
    let two = b.dense(x, 8, 16);
    let sum = b.sum(&[(one, 1), (two, 3), (x, 4)], -9, 17);
    let y = b.relu(sum, 2);
    let last = b.dense(y, 8, 15);
    // Of a sum that was opened already, and of a shared one of shared ones.
    b.sum(&[(last, 1), (sum, 1), (y, -2)], 5, 20);
    let model = b.finish();
    for servers in 2..=4 {
        let held = |a: usize, b: usize, c: usize, d: usize| {
            [a, b, c, d].map(|holder| Placement::Held(holder % servers)).to_vec()
        };
        check("residual", &model, servers, &held(0, 1, 2, 3));
        check("residual", &model, servers, &held(1, 2, 1, 0));
    }
    let shared = |holders: &[usize]| Placement::Shared(holders.to_vec());
    let placements = [shared(&[1, 2]), Placement::Held(3), shared(&[1, 2]), shared(&[2, 3])];
    check("residual", &model, 4, &placements);
    check("residual", &model, 4, &[shared(&[0, 3]), shared(&[1, 2]), shared(&[2, 3]), Placement::Held(0)]);
    check("residual", &model, 3, &[shared(&[0, 1, 2]), shared(&[1, 2]), Placement::Held(0), shared(&[0, 2])]);
}

/// Trees of larger ones over the input, over a ReLU and over a layer; no server holds anything in the first.
#[test]
fn larger_of_pairs() {
    let mut b = Builder::new(&[16], 2);
    let mut x = 0;
    for _ in 0..4 {
        x = b.larger(x, 10);
    }
    let of_input = b.finish();
    let mut b = Builder::new(&[10], 3);
    let x = b.dense(0, 16, 17);
    let largest = b.larger(x, 17);
    let x = b.relu(largest, 1);
    let x = b.larger(x, 17);
    b.dense(x, 5, 20);
    let of_layer = b.finish();
    for servers in 2..=4 {
        check("largest of the input", &of_input, servers, &[]);
        check("largest", &of_layer, servers, &random_placements(2, servers, 9));
    }
}

/// Several ReLUs of one depth, of one value and of others, with older and newer ones in one sum.
#[test]
fn relus_of_one_depth() {
    let mut b = Builder::new(&[9], 10);
    let x = b.dense(0, 12, 16);
    // Cut at 100; and leaky.
    let above = b.sum(&[(x, 1)], -100, 16);
    let (x, above, negative) = (b.relu(x, 0), b.relu(above, 0), {
        let negative = b.sum(&[(x, -1)], 0, 16);
        b.relu(negative, 3)
    });
    let cut = b.sum(&[(x, 1), (above, -1)], 0, 16);
    let leaky = b.sum(&[(x, 8), (negative, -1)], 0, 16);
    let of_input = b.relu(0, 2);
    let branch = b.dense(of_input, 12, 15);
    let (cut, leaky) = (b.dense(cut, 12, 17), b.dense(leaky, 12, 17));
    let early = b.relu(branch, 1);
    let late = b.sum(&[(cut, 1), (leaky, 1), (early, 1)], 0, 17);
    let (late, again) = (b.relu(late, 2), b.relu(late, 5));
    b.concatenated(&[late, again, early, cut], 18);
    let model = b.finish();
    for servers in 2..=4 {
        for seed in 0..3 {
            check("one depth", &model, servers, &random_placements(model.layers.len(), servers, seed));
        }
    }
}

/// Every kind of answer: a ReLU, the input itself, a masked sum, a shared one.
#[test]
fn answers() {
    let mut models = Vec::new();
    let mut b = Builder::new(&[6], 4);
    let x = b.dense(0, 7, 16);
    b.relu(x, 2);
    models.push(("a ReLU", b.finish()));
    let mut b = Builder::new(&[6], 5);
    b.relu(0, 1);
    models.push(("a ReLU of the input", b.finish()));
    let mut b = Builder::new(&[6], 6);
    b.sum(&[(0, 3)], -5, 12);
    models.push(("a sum of the input", b.finish()));
    let mut b = Builder::new(&[6], 7);
    let x = b.dense(0, 7, 16);
    let y = b.relu(x, 0);
    let z = b.relu(y, 1);
    b.concatenated(&[z, 0, y, 0], 16);
    models.push(("masked", b.finish()));
    let mut b = Builder::new(&[6], 8);
    let x = b.dense(0, 7, 16);
    let y = b.relu(x, 0);
    let z = b.dense(0, 3, 16);
    b.concatenated(&[z, x, y, z], 16);
    models.push(("shared", b.finish()));
    for (name, model) in &models {
        for servers in 2..=4 {
            for seed in 0..2 {
                check(name, model, servers, &random_placements(model.layers.len(), servers, seed));
            }
        }
    }
}

/// Values longer than a batch, in waves of any size.
#[test]
fn several_batches_and_waves() {
    let mut b = Builder::new(&[4], 9);
    let x = b.dense(0, 1300, 14);
    let y = b.relu(x, 2);
    let z = b.sum(&[(x, 1), (y, 2)], 3, 14);
    let z = b.relu(z, 1);
    let places: Vec<Option<usize>> = (0..30).map(|i| Some(40 * i)).collect();
    let z = b.gathered(z, &places, 14);
    b.dense(z, 5, 18);
    let model = b.finish();
    let x = input(&model, 1);
    for (servers, bytes) in [(2, 0), (3, 1 << 17), (3, 32 << 20)] {
        let parties = cluster(&model, servers, &random_placements(2, servers, 4), 6);
        let parties: Vec<_> = parties.into_iter().map(|party| party.with_waves(bytes)).collect();
        assert_eq!(run(&parties, 1, &x).0, plain(&model, &x), "n={servers}, {bytes} bytes");
    }
}
