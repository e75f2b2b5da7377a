//! What a coalition's full view tells (sections 1, 4, 5 and 8 of PROTOCOL.md): messages, seeds, offsets
//! and the state of all servers but one. Each test is an attack, and says what it would get.

use std::collections::HashSet;

use seco_garble::Batch;
use seco_garble::slices::{packed_len, unpack};
use seco_he::{KeyDraft, KeySetName, LayerShape, Parameters};
use seco_model::{FixedModel, Placement, linear, paper_placements};
use seco_ot::{Block, Delta, FixedKey, setup_len};

use super::common::views::{View, World};
use super::common::{bundle_id, input, model, seed, session};
use crate::draws::Draws;
use crate::plan::Plan;
use crate::seeds::Seeds;
use crate::{BundleId, OT_PARAMETER, Party, SpentBundle};

fn seeds(servers: usize, number: u64) -> Vec<[u8; 32]> {
    (0..servers).map(|server| seed(number, server)).collect()
}

/// All servers but one, for every choice of the one.
fn coalitions(servers: usize) -> impl Iterator<Item = (usize, Vec<usize>)> {
    (0..servers).map(move |honest| (honest, (0..servers).filter(|&s| s != honest).collect()))
}

/// Layer `i` in clear at server `(i + first) % servers`: for `first` 1 the one that evaluates the circuit
/// behind the layer, for others a garbler.
fn held(model: &FixedModel, servers: usize, first: usize) -> Vec<Placement> {
    (0..model.layers.len()).map(|layer| Placement::Held((layer + first) % servers)).collect()
}

/// A server's draws, from its seed: what a member of the coalition has.
fn draws(party: &Party, bundle_seed: [u8; 32]) -> Draws {
    Draws::new(party.architecture(), party.index(), &mut Seeds::new(bundle_seed).rng())
}

/// A holder of a layer has `F·r - Σ s^j` mod `2^32`; with the coalition's own `s^j` added it has `F·r -
/// s` for the honest server's `s` alone. Were that only as wide as the layer, the bits above it would be
/// those of `F·r`, or one less.
#[test]
fn high_bits_of_products_stay_hidden() {
    let model = model(1);
    for servers in 2..=3 {
        let mut world = World::new(&model, &held(&model, servers, 0), servers, 21);
        let bundles = world.preprocess(bundle_id(1), &seeds(servers, 22));
        let drawn: Vec<Draws> = world
            .parties
            .iter()
            .zip(&world.views)
            .map(|(party, view)| draws(party, view.bundle_seed))
            .collect();
        for (draws, SpentBundle { bundle, .. }) in drawn.iter().zip(&bundles) {
            let mut masks = draws.masks.iter().zip(&bundle.masks);
            assert!(masks.all(|(a, b)| a.words() == b.words()), "drawn again");
        }
        for (honest, coalition) in coalitions(servers) {
            let (mut hits, mut total) = (0, 0);
            for (i, layer) in model.graph.layers().enumerate() {
                let holder = i % servers;
                if holder == honest {
                    continue;
                }
                let share = |server: usize, output: usize| {
                    let towards = drawn[server].shares[i].iter().find(|(h, _)| *h == holder);
                    towards.map_or(0, |(_, share)| share.words()[output])
                };
                for (output, &word) in bundles[holder].bundle.words[i].words().iter().enumerate() {
                    let guess = coalition.iter().fold(word, |sum, &j| sum.wrapping_add(share(j, output)));
                    let product = guess.wrapping_add(share(honest, output));
                    let [guess, product] = [guess, product].map(|word| word >> layer.width);
                    let modulus = u32::MAX >> layer.width;
                    hits += usize::from(product.wrapping_sub(guess) & modulus <= 1);
                    total += 1;
                }
            }
            assert!(total > 50 && hits <= 2, "n={servers}, server {honest} honest: {hits} of {total} read");
        }
    }
}

/// A garbler's offset serves one bundle: with one for ever, who sees two labels of one wire in any bundle
/// reads all bundles. No server has another's either.
#[test]
fn every_bundle_has_its_own_offsets() {
    let model = model(1);
    for servers in 2..=3 {
        let mut world = World::new(&model, &paper_placements(4, servers, 1), servers, 23);
        let mut offsets = HashSet::new();
        for number in 0..2 {
            for spent in world.preprocess(bundle_id(number), &seeds(servers, 30 + number)) {
                assert!(offsets.insert(spent.bundle.delta.block().to_bytes()), "n={servers}");
            }
        }
    }
}

/// The gateway publishes `x̂ ^ P ^ d`: all others know every pad but its own, which the device's message contains and
/// `x̂ ^ P` does not.
#[test]
fn the_published_input_is_masked_by_its_publisher() {
    let model = model(1);
    let x = input(&model, 5);
    for servers in 2..=3 {
        let mut world = World::new(&model, &paper_placements(4, servers, 1), servers, 24);
        let keys = session(servers, 6);
        let bundles = world.preprocess(bundle_id(1), &seeds(servers, 25));
        world.infer(bundles, &keys, &x);
        // The only message of that length.
        let published = world.views[0].online.sent.iter().find(|(_, m)| m.len() == x.len()).unwrap();
        let mut guess: Vec<u8> = published.1.clone();
        keys[1..].iter().for_each(|key| key.apply_input_pad(0, &mut guess).unwrap());
        let right: u32 = guess.iter().zip(&x).map(|(a, b)| (a ^ b).count_zeros()).sum();
        let rate = f64::from(right) / (8 * x.len()) as f64;
        // 1,024 bits: six standard deviations.
        assert!((0.4..=0.6).contains(&rate), "n={servers}: {rate} of the input's bits read");
    }
}

/// A holder publishes its word of the layer under a mask of its own, whether it garbles or evaluates the
/// circuit behind the layer: all others know the rest of the accumulator, which is in what it publishes or theirs to add.
#[test]
fn published_accumulators_are_masked_by_their_publisher() {
    let model = model(1);
    let x = input(&model, 5);
    let accumulators = accumulators(&model, &x);
    for servers in 2..=3 {
        for first in 0..servers {
            let mut world = World::new(&model, &held(&model, servers, first), servers, 26);
            let bundles = world.preprocess(bundle_id(1), &seeds(servers, 27));
            let words: Vec<Vec<Vec<u32>>> =
                bundles.iter().map(|b| b.bundle.words.iter().map(|w| w.words().to_vec()).collect()).collect();
            world.infer(bundles, &session(servers, 6), &x);
            for (i, z) in accumulators.iter().enumerate().take(model.layers.len() - 1) {
                let (honest, width) = ((i + first) % servers, model.graph.layers().nth(i).unwrap().width);
                let length = packed_len(z.len(), width);
                let mut found = world.views[honest].online.sent.iter().filter(|(_, m)| m.len() == length);
                let (_, published) = found.next().unwrap();
                assert_eq!(found.count(), servers - 2, "one message of that length to each server");
                let mut guess = unpack(&mut &published[..], width, z.len());
                let as_published = guess.clone();
                for (_, words) in words.iter().enumerate().filter(|&(server, _)| server != honest) {
                    guess.iter_mut().zip(&words[i]).for_each(|(sum, word)| *sum = sum.wrapping_add(*word));
                }
                let same = |(a, b): &(&u32, &u32)| (*a ^ *b) << (32 - width) == 0;
                for guess in [guess, as_published] {
                    let right = guess.iter().zip(z).filter(same).count();
                    assert!(
                        right <= 2,
                        "n={servers}, layer {i} at {honest}: {right} of {} values read",
                        z.len()
                    );
                }
            }
        }
    }
}

/// What layers compute before their activation, mod `2^32`.
fn accumulators(model: &FixedModel, x: &[u8]) -> Vec<Vec<u32>> {
    let mut activation: Vec<u32> = x.iter().map(|&v| u32::from(v)).collect();
    let mut all = Vec::new();
    let shifts = model.graph.activations().map(|relu| relu.shift).chain([0]);
    for ((shape, layer), shift) in model.graph.layers().zip(&model.layers).zip(shifts) {
        let weights: Vec<u32> = layer.weights.iter().map(|w| w.cast_unsigned()).collect();
        let mut z = vec![0u32; shape.geometry.outputs()];
        linear(shape.geometry, &weights, &activation, &mut z);
        z.iter_mut().zip(&layer.bias).for_each(|(z, &bias)| *z = z.wrapping_add(bias as u32));
        let unused = 32 - shape.width;
        let relu = |z: &u32| ((z << unused).cast_signed() >> unused >> shift).max(0).cast_unsigned();
        activation = z.iter().map(relu).collect();
        all.push(z);
    }
    all
}

/// The AES key of garbling is another one in every bundle: the same seeds under another bundle's id give
/// other tables.
#[test]
fn tables_of_another_bundle_are_hashed_with_another_key() {
    let model = model(1);
    for servers in 2..=3 {
        let tables = |id: BundleId| {
            let mut world = World::new(&model, &paper_placements(4, servers, 1), servers, 28);
            world.preprocess(id, &seeds(servers, 29));
            let plan = Plan::new(world.parties[0].architecture());
            let batches = plan.steps.iter().flat_map(|step| &step.batches);
            let lengths: HashSet<usize> =
                batches.flat_map(|b| (0..b.garblers).map(|position| b.table_bytes(position))).collect();
            let sent = world.views.iter().flat_map(|view| &view.nonlinear.sent);
            sent.filter(|(_, m)| lengths.contains(&m.len())).map(|(_, m)| m.clone()).collect::<Vec<_>>()
        };
        let (one, other) = (tables(bundle_id(1)), tables(bundle_id(2)));
        assert_eq!([one.len(), other.len()], [3 * (servers - 1); 2], "one of each garbler in each step");
        for (one, other) in one.iter().zip(&other) {
            let pairs = one.as_chunks::<16>().0.iter().zip(other.as_chunks::<16>().0);
            let same = pairs.filter(|(a, b)| a == b).count();
            // What is not hashed is the same here.
            assert!(same * 100 < one.len() / 16, "n={servers}: {same} of {} blocks", one.len() / 16);
        }
    }
}

/// Keys of any two batches and of any two bundles differ.
#[test]
fn every_batch_has_its_own_key() {
    let model = model(1);
    let mut world = World::new(&model, &paper_placements(4, 2, 1), 2, 28);
    let plan = Plan::new(world.parties[0].architecture());
    let mut batches: Vec<Batch> = plan.steps.iter().flat_map(|step| step.batches.clone()).collect();
    let mut later = batches[0].clone();
    later.first_lane += 1024;
    batches.push(later);
    let mut keys = HashSet::new();
    for number in [1, 2] {
        let bundles = world.preprocess(bundle_id(number), &seeds(2, 40 + number));
        for batch in &batches {
            assert!(
                keys.insert(probe(&bundles[0].bundle.keys.of(batch.step, batch.first_lane))),
                "a key that another batch has"
            );
        }
    }
}

/// What a key makes of a block: the same for no two keys that differ.
fn probe(key: &FixedKey) -> [u8; 16] {
    let mut block = [Block::ZERO];
    key.permute(&[Block::from_bytes([7; 16])], &mut block);
    block[0].to_bytes()
}

/// All aligned blocks of what a server sent for a bundle. Left out are blocks of mostly zeros (planes past
/// the last lane), seed trees of oblivious transfer, which follow from the long-lived extension alone, and masked
/// logits: their holder's word is the logits less what the others drew, under the device's pad, which are the same.
fn blocks(view: &View) -> HashSet<[u8; 16]> {
    let lengths = [setup_len(OT_PARAMETER), packed_len(10, 19)];
    let sent = view.sent_in_bundle().filter(|(_, message)| !lengths.contains(&message.len()));
    let blocks = sent.flat_map(|(_, message)| message.as_chunks::<16>().0);
    blocks.filter(|block| block.iter().filter(|&&byte| byte != 0).count() >= 8).copied().collect()
}

/// With the set-up, all other servers' seeds, the device's keys and its input as they were, and only the
/// honest server's own seed for the bundle another one, nothing that it sends comes again. So nothing it
/// sends is computed from what others know: neither an offset, a mask, a share nor a seed.
#[test]
fn all_that_a_server_sends_depends_on_its_own_seed() {
    let model = model(1);
    let x = input(&model, 5);
    for servers in 2..=3 {
        for (honest, coalition) in coalitions(servers) {
            let run = |number: u64| {
                let mut world = World::new(&model, &held(&model, servers, 1), servers, 31);
                let mut seeds = seeds(servers, 32);
                seeds[honest] = seed(number, honest);
                let bundles = world.preprocess(bundle_id(1), &seeds);
                world.infer(bundles, &session(servers, 6), &x);
                // What others send too is public: that a bundle is spent.
                let public: HashSet<_> = coalition.iter().flat_map(|&j| blocks(&world.views[j])).collect();
                &blocks(&world.views[honest]) - &public
            };
            let (one, other) = (run(33), run(34));
            assert!(one.len() > 10_000, "the test looked at something");
            let same = one.intersection(&other).count();
            assert_eq!(same, 0, "n={servers}, server {honest}: blocks that come again, of {}", one.len());
        }
    }
}

/// The coalition draws again, with every seed that it has or could make, what the honest server draws: its
/// key share, its offset and its masks. It also compares them with its own.
#[test]
fn no_secret_follows_from_a_seed_of_others() {
    let model = model(1);
    for servers in 2..=3 {
        let mut world = World::new(&model, &paper_placements(4, servers, 1), servers, 35);
        let bundles = world.preprocess(bundle_id(1), &seeds(servers, 36));
        let common = *world.parties[0].setup_id();
        let shapes = model.graph.layers().map(|l| LayerShape { geometry: l.geometry, width: l.width });
        let (parameters, _) = Parameters::select(&shapes.collect::<Vec<_>>(), servers).unwrap();
        // A server's first key share, from a seed; its public half is what all others received.
        let name = KeySetName { setup: common, number: 0 };
        let public = |server: usize, seed: &[u8; 32]| {
            KeyDraft::new(&parameters, name, server, seed).unwrap().share().to_vec()
        };
        let length = public(0, &common).len();
        let received = |from: usize, by: usize| -> &[u8] {
            let mut messages = world.views[by].setup.received.iter();
            &messages.find(|(peer, m)| *peer == from && m.len() == length).unwrap().1
        };
        for (honest, coalition) in coalitions(servers) {
            let mut known = vec![[0; 32], common];
            known.extend(
                coalition.iter().flat_map(|&j| [world.views[j].setup_seed, world.views[j].bundle_seed]),
            );
            let nonces = world.views[coalition[0]].setup.received.iter().filter(|(_, m)| m.len() == 32);
            known.extend(nonces.filter_map(|(_, m)| <[u8; 32]>::try_from(m.as_slice()).ok()));
            for root in known.clone() {
                let mut seeds = Seeds::new(root);
                known.extend((0..8).map(|_| seeds.next()));
            }
            let (party, bundle) = (&world.parties[honest], &bundles[honest].bundle);
            let label = format!("n={servers}, server {honest}");
            for candidate in known {
                let share = received(honest, coalition[0]);
                assert!(public(honest, &candidate) != share, "{label}: its key share");
                let mut rng = Seeds::new(candidate).rng();
                for _ in 0..2 {
                    let offset = Delta::random(&mut rng).block().to_bytes();
                    assert!(offset != bundle.delta.block().to_bytes(), "{label}: its offset");
                }
                let drawn = draws(party, candidate);
                let equal = drawn.masks.iter().zip(&bundle.masks).any(|(a, b)| a.words() == b.words());
                assert!(!equal, "{label}: a mask");
            }
            for &j in &coalition {
                let masks = bundle.masks.iter().zip(&bundles[j].bundle.masks);
                assert!(
                    masks.into_iter().all(|(a, b)| a.words() != b.words()),
                    "{label}: {j} has the same masks"
                );
            }
        }
    }
}

/// A seed is handed out once, and never the one that it comes from.
#[test]
fn no_seed_comes_twice() {
    let root = seed(1, 1);
    let mut seen = HashSet::from([root]);
    let mut seeds = Seeds::new(root);
    for _ in 0..1000 {
        let child = seeds.next();
        assert!(seen.insert(child));
        let mut children = Seeds::new(child);
        assert!(seen.insert(children.next()) && seen.insert(children.next()));
    }
}
