//! Splitting: shares add up to the model, and a part has nothing that its server may not know.

use super::generator;
use super::samples::model;
use crate::{Error, Op, PartyModel, Placement, paper_placements, split};

/// Sums of all servers' values in a layer, mod `2^width`.
fn sums(parts: &[PartyModel], i: usize) -> (Vec<u32>, Vec<u32>) {
    let layer = parts[0].architecture().graph.layers().nth(i).unwrap();
    let mask = u32::MAX >> (32 - layer.width);
    let (mut weights, mut bias) =
        (vec![0u32; layer.geometry.weights()], vec![0u32; layer.geometry.outputs()]);
    for held in parts.iter().filter_map(|p| p.layer(i)) {
        weights.iter_mut().zip(&held.weights).for_each(|(s, &v)| *s = s.wrapping_add(v) & mask);
        bias.iter_mut().zip(&held.bias).for_each(|(s, &v)| *s = s.wrapping_add(v) & mask);
    }
    (weights, bias)
}

#[test]
fn the_papers_placements() {
    let (held, shared) = (Placement::Held(0), |s: &[usize]| Placement::Shared(s.to_vec()));
    assert_eq!(paper_placements(3, 3, 1), [held.clone(), shared(&[1, 2]), shared(&[1, 2])]);
    assert_eq!(paper_placements(2, 2, 1), [held.clone(), shared(&[0, 1])]);
    assert_eq!(paper_placements(2, 4, 0), vec![shared(&[1, 2, 3]); 2]);
    assert_eq!(paper_placements(1, 3, 5), [held]);
}

#[test]
fn shares_sum_to_the_model_and_stay_below_the_width() {
    let model = model();
    for servers in 2..=4 {
        let placements = paper_placements(3, servers, 1);
        let parts = split(&model, servers, &placements, &mut generator(servers as u64)).unwrap();
        assert_eq!(parts.len(), servers);
        for (i, layer) in model.layers.iter().enumerate() {
            let width = model.graph.layers().nth(i).unwrap().width;
            let mask = u32::MAX >> (32 - width);
            let (weights, bias) = sums(&parts, i);
            assert!(weights.iter().zip(&layer.weights).all(|(&s, &w)| s == w as u32 & mask));
            assert!(bias.iter().zip(&layer.bias).all(|(&s, &b)| s == b as u32 & mask));
            for (j, part) in parts.iter().enumerate() {
                assert_eq!(part.index(), j);
                assert_eq!(part.layer(i).is_some(), placements[i].holders().contains(&j));
                if let (Some(held), Placement::Shared(_)) = (part.layer(i), &placements[i]) {
                    // No share is the model's values, and shares use the whole ring.
                    assert!(held.weights.iter().zip(&weights).filter(|(a, b)| a == b).count() < 3);
                    assert!(held.weights.iter().any(|&w| w >> (width - 1) == 1));
                }
            }
        }
        assert!(parts[0].layer(3).is_none());
    }
}

#[test]
fn ids_are_those_of_a_split() {
    let (model, placements) = (model(), paper_placements(3, 3, 1));
    let first = split(&model, 3, &placements, &mut generator(1)).unwrap();
    let second = split(&model, 3, &placements, &mut generator(2)).unwrap();
    assert!(first.iter().all(|p| p.id() == first[0].id()));
    assert_ne!(first[0].id(), second[0].id());
    // The gateway's layer is the same; the remotes' shares are others.
    assert!(first[0].layer(0).unwrap().weights == second[0].layer(0).unwrap().weights);
    assert!(first[1].layer(1).unwrap().weights != second[1].layer(1).unwrap().weights);
    assert!(first[1].layer(1).unwrap().bias != second[1].layer(1).unwrap().bias);
}

#[test]
fn files_hold_a_part_and_nothing_more() {
    let (model, placements) = (model(), paper_placements(3, 3, 1));
    let parts = split(&model, 3, &placements, &mut generator(1)).unwrap();
    let files: Vec<_> = parts.iter().map(|p| p.to_bytes().unwrap()).collect();
    for (part, file) in parts.iter().zip(&files) {
        let read = PartyModel::from_bytes(file).unwrap();
        assert_eq!((read.id(), read.index()), (part.id(), part.index()));
        assert_eq!(read.architecture(), part.architecture());
        for i in 0..3 {
            match (read.layer(i), part.layer(i)) {
                (Some(a), Some(b)) => assert!(a.weights == b.weights && a.bias == b.bias),
                (a, b) => assert!(a.is_none() && b.is_none()),
            }
        }
        assert_eq!(*read.to_bytes().unwrap(), **file);
    }
    // The layer that only the gateway holds occurs in no other file, as words or as bytes.
    let bytes = |words: &[u32]| words.iter().flat_map(|w| w.to_le_bytes()).collect::<Vec<u8>>();
    let held = bytes(&parts[0].layer(0).unwrap().weights[..4]);
    let contains = |file: &[u8], what: &[u8]| file.windows(what.len()).any(|w| w == what);
    assert!(contains(&files[0], &held));
    assert!(!contains(&files[1], &held) && !contains(&files[2], &held));
    // A remote's file has room for its two layers and the public part only.
    let values = |i: usize| model.layers[i].weights.len() + model.layers[i].bias.len();
    assert!(files[1].len() < 4 * (values(1) + values(2)) + 500);
    assert!(files[0].len() < 4 * values(0) + 500);
    let shown = format!("{:?} {:?}", parts[1], parts[1].layer(1).unwrap());
    assert_eq!(shown, "PartyModel { model: \"test\", index: 1, .. } LayerWeights(288 weights, 8 biases)");
}

#[test]
fn impossible_splits_are_refused() {
    let model = model();
    let good = paper_placements(3, 3, 1);
    let of = |servers, placements: &[Placement]| split(&model, servers, placements, &mut generator(1));
    for bad in [
        Placement::Held(3),
        Placement::Shared(vec![1]),
        Placement::Shared(vec![2, 1]),
        Placement::Shared(vec![]),
    ] {
        assert!(matches!(of(3, &[good[0].clone(), bad, good[2].clone()]), Err(Error::Shape(_))));
    }
    assert!(of(1, &good).is_err() && of(9, &good).is_err() && of(3, &good[..2]).is_err());
    let mut broken = model.clone();
    broken.layers[1].weights.pop();
    assert!(split(&broken, 3, &good, &mut generator(1)).is_err());
    broken = model.clone();
    broken.graph.nodes[2].op = Op::Relu { input: 2, shift: u32::MAX };
    assert!(split(&broken, 3, &good, &mut generator(1)).is_err());
}
