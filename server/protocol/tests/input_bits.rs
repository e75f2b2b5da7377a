//! Inputs of any number of bits: one byte for a value of up to 8 bits, two for one of up to 16.
#![allow(clippy::unwrap_used)]

mod common;

use common::graphs::{Builder, random_of_bits, random_placements};
use common::{LIMIT, cluster, input, plain, preprocess, run, session};
use seco_model::{FixedModel, Placement};
use seco_protocol::cost::Cost;
use seco_protocol::{Error, OT_PARAMETER, memory};

/// Every value of an input is this one.
fn filled(model: &FixedModel, value: u16) -> Vec<u8> {
    let bytes = &value.to_le_bytes()[..model.graph.input.value_bytes()];
    bytes.repeat(model.graph.input.len())
}

/// Exact for random inputs, and for the least and the largest one.
fn check(model: &FixedModel, servers: usize, seed: u64) {
    let bits = model.graph.input.bits;
    let placements = random_placements(model.layers.len(), servers, seed);
    let parties = cluster(model, servers, &placements, seed);
    let largest = filled(model, (u32::MAX >> (32 - bits)) as u16);
    for (number, x) in (0u64..).zip([input(model, seed), largest, filled(model, 0)]) {
        let told = run(&parties, number, &x).0;
        assert_eq!(told, plain(model, &x), "{bits} bits, {servers} servers, seed {seed}, #{number}");
    }
}

fn random_graphs(servers: usize) {
    for bits in 1..=16 {
        let seed = 100 * servers as u64 + u64::from(bits);
        check(&random_of_bits(seed, 4 + bits as usize % 5, bits), servers, seed);
    }
}

#[test]
fn random_graphs_of_two_servers() {
    random_graphs(2);
}

#[test]
fn random_graphs_of_three_servers() {
    random_graphs(3);
}

#[test]
fn random_graphs_of_four_servers() {
    random_graphs(4);
}

/// The input itself, and a layer and a ReLU of it: what was sent comes back, every bit in its place.
#[test]
fn all_bits_arrive_in_their_place() {
    for bits in [1, 7, 8, 9, 12, 15, 16] {
        let mut b = Builder::of_bits(&[33], u64::from(bits), bits);
        let layer = b.dense(0, 3, 24);
        let kept = b.relu(0, 0);
        b.concatenated(&[0, kept, layer], 24);
        let model = b.finish();
        let x = input(&model, 3);
        let parties = cluster(&model, 3, &[Placement::Held(1)], 3);
        let answer = run(&parties, 1, &x).0;
        let sent: Vec<i32> = model.graph.input.values(&x).map(i32::from).collect();
        assert_eq!((&answer[..33], &answer[33..66]), (&sent[..], &sent[..]), "{bits} bits");
        assert_eq!(answer, plain(&model, &x));
        // Two bytes, the lower one first.
        let bytes: Vec<u8> = match bits {
            ..=8 => sent.iter().map(|&v| v as u8).collect(),
            _ => sent.iter().flat_map(|&v| (v as u16).to_le_bytes()).collect(),
        };
        assert_eq!(x, bytes);
    }
}

/// What stands above a value's bits is nothing: the pads are there, and the servers drop it.
#[test]
fn bits_above_those_of_a_value_change_nothing() {
    let mut b = Builder::of_bits(&[20], 5, 11);
    b.dense(0, 4, 20);
    let model = b.finish();
    let x = input(&model, 4);
    let mut dirty = x.clone();
    dirty.iter_mut().skip(1).step_by(2).for_each(|byte| *byte |= 0xf8);
    assert!(seco_model::Executor::new(&model).unwrap().run(&dirty).is_err(), "in clear it is a mistake");
    let parties = cluster(&model, 2, &[Placement::Held(0)], 5);
    assert_eq!(run(&parties, 1, &dirty).0, plain(&model, &x));
}

/// Every server publishes the bits of the values and no more, and what is counted is what is sent.
#[test]
fn what_is_sent_is_what_is_counted() {
    let mut before = 0;
    for bits in [8, 9, 16] {
        let mut b = Builder::of_bits(&[64], 6, bits);
        b.dense(0, 2, 20);
        let model = b.finish();
        let parties = cluster(&model, 2, &[Placement::Held(1)], 6);
        let cost = Cost::of(parties[0].architecture(), |_, _| OT_PARAMETER).unwrap();
        let sent = run(&parties, 1, &input(&model, 6)).1;
        let total = |messages: &[Vec<(usize, Vec<u8>)>]| -> u64 {
            messages.iter().flatten().map(|(_, message)| message.len() as u64).sum()
        };
        assert_eq!(cost.traffic.total(true), total(&sent.online), "{bits} bits");
        assert!(total(&sent.online) > before, "{bits} bits");
        before = total(&sent.online);
    }
}

/// Half values, one byte a value, and all else that is no input ends at the gateway, before anything is sent.
#[test]
fn other_lengths_are_refused() {
    let mut b = Builder::of_bits(&[10], 7, 12);
    b.dense(0, 4, 20);
    let model = b.finish();
    let parties = cluster(&model, 2, &[Placement::Held(0)], 7);
    let keys = session(2, 7);
    let wrong: Vec<usize> = vec![0, 1, 10, 19, 21, 22, 40, 1 << 20];
    for (number, len) in (0u64..).zip(wrong) {
        let mut bundles = preprocess(&parties, number).0;
        let mut channels = memory::network(2, LIMIT);
        let told =
            bundles.remove(0).infer(parties[0].planned(), &mut channels[0], &keys[0], Some(&vec![0; len]));
        assert!(matches!(told, Err(Error::Misuse(_))), "{len} bytes");
    }
    let executor = seco_model::Executor::new(&model).unwrap();
    for len in [0, 1, 10, 19, 21, 40] {
        let told = executor.run(&vec![0; len]).unwrap_err().to_string();
        assert!(told.contains("the model takes 20, 2 for each value"), "{told}");
    }
}

/// Masks of a value reach all its bits: what is published stays random for who has taken the pads off that others know.
#[test]
fn what_a_server_publishes_is_masked_in_all_bits() {
    let mut b = Builder::of_bits(&[256], 8, 16);
    b.dense(0, 1, 20);
    let model = b.finish();
    let parties = cluster(&model, 2, &[Placement::Held(0)], 8);
    let mut seen = Vec::new();
    for number in 0..2 {
        let sent = run(&parties, number, &filled(&model, 0)).1;
        let keys = session(2, number);
        // The first message that depends on the input: 16 bits a value.
        for (messages, key) in sent.online.iter().zip([&keys[1], &keys[1]]) {
            let (_, message) = messages.iter().find(|(_, message)| message.len() == 512).unwrap();
            let mut message = message.clone();
            // The gateway's has the device's x and the pad of server 1, and server 1 takes off its own.
            key.apply_input_pad(number, &mut message).unwrap();
            seen.push(message);
        }
    }
    for message in &seen {
        for bit in 0..16 {
            let ones = message.chunks(2).filter(|v| u16::from_le_bytes([v[0], v[1]]) >> bit & 1 == 1).count();
            // 256 fair coins: beyond these once in 10^12 or so.
            assert!((70..=186).contains(&ones), "bit {bit}: {ones}");
        }
    }
    assert_ne!(seen[0], seen[2]);
}
