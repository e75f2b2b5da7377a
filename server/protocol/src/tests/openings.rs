//! What servers say of a value before a ReLU in graphs that are no chains: ahead, online, and the designated one for all.

use std::sync::Arc;

use seco_garble::convert::{Mask, Online, Share};
use seco_garble::slices::unpack;
use seco_model::graph::Op;
use seco_model::{FixedModel, Placement, linear};
use zeroize::Zeroizing;

use super::common::graphs::Builder;
use super::common::views::World;
use super::common::{bundle_id, input, seed, session};
use crate::flow::{Source, atoms};
use crate::online::affine;
use crate::values::{Offline, Values};
use crate::{Party, SpentBundle};

/// A layer, a part of a residual sum of two others and of a masked value, and the larger of each pair of a masked value.
fn model() -> FixedModel {
    let mut b = Builder::new(&[7], 3);
    let x = b.dense(0, 53, 17);
    let x = b.relu(x, 3);
    let (one, two) = (b.dense(x, 53, 16), b.dense(x, 53, 16));
    let sum = b.sum(&[(one, 1), (two, 3), (x, 4)], -9, 19);
    // All openings differ in length from each other and from what is handed on.
    let places: Vec<Option<usize>> = (0..42).map(|i| Some(52 - i)).collect();
    let part = b.gathered(sum, &places, 19);
    let x = b.relu(part, 2);
    let x = b.larger(x, 13);
    b.dense(x, 5, 20);
    b.finish()
}

/// Every value in clear, mod `2^32`.
fn clear(model: &FixedModel, x: &[u8]) -> Vec<Vec<u32>> {
    let graph = &model.graph;
    let mut values: Vec<Vec<u32>> = vec![x.iter().map(|&v| u32::from(v)).collect()];
    let mut layers = model.layers.iter();
    for (number, node) in graph.nodes.iter().enumerate() {
        let mut out = vec![0; graph.len(number + 1)];
        match &node.op {
            Op::Secret { input, geometry } => {
                let layer = layers.next().unwrap();
                let weights: Vec<u32> = layer.weights.iter().map(|w| w.cast_unsigned()).collect();
                linear(geometry, &weights, &values[*input], &mut out);
                out.iter_mut().zip(&layer.bias).for_each(|(z, &bias)| *z = z.wrapping_add(bias as u32));
            }
            Op::Public { terms, constant, .. } => {
                out.fill(constant.cast_unsigned());
                for term in terms {
                    term.gather.add(term.factor.cast_unsigned(), &values[term.value], &mut out);
                }
            }
            Op::Relu { input, shift } => {
                let unused = 32 - graph.width(*input);
                let relu = |z: &u32| ((z << unused).cast_signed() >> unused >> shift).max(0).cast_unsigned();
                out = values[*input].iter().map(relu).collect();
            }
        }
        values.push(out);
    }
    values
}

/// A server's masks by atom and words by layer.
type Drawn = (Vec<Mask>, Vec<Share>);

/// Every server's part of what each step reads, by step: offline and online.
fn parts(party: &Party, drawn: &[Drawn], values: &[Vec<u32>]) -> Vec<Vec<u32>> {
    let (graph, plan, me) = (&party.architecture().graph, party.plan(), party.index());
    let (masks, words) = &drawn[me];
    let reads = plan.steps.iter().map(|step| step.input);
    let mut offline = Offline::new((graph, &plan.flow), masks, words, reads);
    let mut known = Values::new(plan.flow.reads(graph, me));
    let mut by_step = Vec::new();
    for (value, clear) in values.iter().enumerate() {
        if let Source::Atom(atom) = plan.flow.source(value) {
            let mut x = Zeroizing::new(clear.clone());
            for (masks, _) in drawn {
                x.iter_mut().zip(masks[atom].words()).for_each(|(x, mask)| *x = x.wrapping_sub(*mask));
            }
            known.put(value, Online::new(x));
        } else {
            affine(party.planned(), value - 1, &mut known).unwrap();
        }
        for step in plan.steps.iter().filter(|step| step.input == value) {
            let opener = step.openers.contains(me);
            let online = opener.then(|| known.take(value).unwrap());
            let share = offline.read(value, |offline| match online {
                Some(online) => online.plus(offline).unwrap(),
                None => offline.to_words(),
            });
            by_step.push(share.unwrap().words().to_vec());
        }
    }
    by_step
}

/// All servers but one know all parts but one and everything that is sent. What the last one sends ahead, and what it
/// publishes less what it was sent ahead, tells its part of no lane.
#[test]
fn parts_of_opened_values_are_masked_by_their_sender() {
    let model = model();
    let x = input(&model, 5);
    let values = clear(&model, &x);
    for servers in 2..=4 {
        for holders in [[0, 1, 0, 1], [1, 0, 0, servers - 1], [servers - 1; 4]] {
            let placements = holders.map(Placement::Held);
            let mut world = World::new(&model, &placements, servers, 51);
            let seeds: Vec<_> = (0..servers).map(|server| seed(52, server)).collect();
            let bundles = world.preprocess(bundle_id(1), &seeds);
            // What the test is about to know; nobody else copies masks.
            let copy = |mask: &Mask| mask.all().to_words();
            let copies = |SpentBundle { bundle, .. }: &SpentBundle| {
                (bundle.masks.iter().map(copy).collect(), bundle.words.clone())
            };
            let drawn: Vec<Drawn> = bundles.iter().map(copies).collect();
            assert_eq!(drawn[0].0.len(), atoms(&model.graph).count());
            world.infer(bundles, &session(servers, 6), &x);
            let parts: Vec<_> = world.parties.iter().map(|party| parts(party, &drawn, &values)).collect();
            for (number, step) in world.parties[0].plan().steps.iter().enumerate() {
                let label = format!("n={servers}, holders {holders:?}, step {number}");
                let (width, lanes) = (step.shape.width, step.lanes());
                let cut = |word: u32| word << (32 - width);
                // All parts make the value.
                for (lane, z) in values[step.input].iter().enumerate() {
                    let sum = parts.iter().fold(0u32, |sum, parts| sum.wrapping_add(parts[number][lane]));
                    assert_eq!(cut(sum), cut(*z), "{label}");
                }
                // The one message of that length: to any server online, to the first opener ahead.
                let message = |sent: &[(usize, Arc<[u32]>)], what: &str| {
                    assert!(sent.windows(2).all(|two| two[0].1 == two[1].1), "{label}: {what}");
                    sent.first().unwrap_or_else(|| panic!("{label}: {what}")).1.clone()
                };
                let of_length = |sent: &[(usize, Vec<u8>)]| -> Vec<(usize, Arc<[u32]>)> {
                    let found = sent.iter().filter(|(_, bytes)| bytes.len() == step.opening_len(lanes));
                    found.map(|(to, bytes)| (*to, unpack(&mut &bytes[..], width, lanes).into())).collect()
                };
                let first = step.openers.first().unwrap();
                let mut ahead = vec![0u32; lanes];
                let mut said = Vec::new();
                for server in (0..servers).filter(|&server| !step.openers.contains(server)) {
                    let sent = of_length(&world.views[server].nonlinear.sent);
                    let sent: Vec<_> = sent.into_iter().filter(|(to, _)| *to == first).collect();
                    assert_eq!(sent.len(), 1, "{label}");
                    let words = message(&sent, "ahead");
                    ahead.iter_mut().zip(words.iter()).for_each(|(a, w)| *a = a.wrapping_add(*w));
                    said.push((server, words.to_vec()));
                }
                for server in step.openers.iter() {
                    let sent = of_length(&world.views[server].online.sent);
                    assert_eq!(sent.len(), servers - 1, "{label}");
                    let mut words = message(&sent, "online").to_vec();
                    said.push((server, words.clone()));
                    if server == first {
                        words
                            .iter_mut()
                            .zip(&ahead)
                            .for_each(|(word, ahead)| *word = word.wrapping_sub(*ahead));
                        said.push((server, words));
                    }
                }
                for (server, words) in said {
                    let read = words.iter().zip(&parts[server][number]);
                    let read = read.filter(|(word, part)| cut(**word) == cut(**part)).count();
                    assert!(read <= 2, "{label}: {read} of {lanes} parts of server {server}");
                }
            }
        }
    }
}
