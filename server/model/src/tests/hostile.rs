//! Files that somebody spoilt, by accident or on purpose: an error, never a panic or much memory.

use proptest::prelude::*;
use prost::Message;
use sha2::{Digest, Sha256};

use super::files::npy;
use super::network::{Network, Step, value};
use super::parts::model;
use super::{generator, weight};
use crate::onnx::{MAX_FILE, ModelProto};
use crate::{Error, ImportOptions, PartyModel, import, npy as reader, paper_placements, split};

/// A remote's file.
fn file() -> Vec<u8> {
    let parts = split(&model(), 3, &paper_placements(3, 3, 1), &mut generator(1)).unwrap();
    parts[2].to_bytes().unwrap().to_vec()
}

/// The same with a checksum that is right again.
fn resealed(mut file: Vec<u8>) -> Vec<u8> {
    let end = file.len() - 32;
    let checksum = Sha256::digest(&file[..end]);
    file[end..].copy_from_slice(&checksum);
    file
}

fn network() -> ModelProto {
    let mut rng = generator(4);
    let mut weights = |n: usize| (0..n).map(|_| weight(&mut rng)).collect::<Vec<f32>>();
    let conv = Step::Conv {
        weights: weights(2 * 9),
        bias: weights(2),
        kernel: [3, 3],
        stride: [1, 1],
        pads: [1, 0, 1, 0],
    };
    let pool = Step::Pool { kernel: [2, 2], stride: [2, 2] };
    let gemm = Step::Gemm { weights: weights(24 * 2), bias: weights(2) };
    Network { input: vec![1, 8, 8], steps: vec![conv, pool, Step::Relu, Step::Flatten, gemm] }.model()
}

fn read(bytes: &[u8]) -> Result<(), Error> {
    let model = import(bytes, &ImportOptions::default())?;
    model.execute(&vec![1; model.input.len()]).map(|_| ())
}

#[test]
fn shortened_files_are_refused() {
    let file = file();
    for end in 0..file.len() {
        let error = PartyModel::from_bytes(&file[..end]).unwrap_err();
        match end {
            0..8 => assert!(matches!(error, Error::NotModelFile)),
            _ => assert!(matches!(error, Error::DamagedModelFile)),
        }
    }
    let onnx = network().encode_to_vec();
    read(&onnx).unwrap();
    for end in 0..onnx.len() {
        read(&onnx[..end]).unwrap_err();
    }
}

#[test]
fn changed_bytes_are_noticed() {
    let file = file();
    for i in 0..file.len() {
        let mut changed = file.clone();
        changed[i] ^= 1 << (i % 8);
        let error = PartyModel::from_bytes(&changed).unwrap_err();
        match i {
            0..8 => assert_eq!(
                error.to_string(),
                "this is not a server's model file: give one that `seco split` wrote"
            ),
            8..10 => assert!(matches!(error, Error::NewerModelFile { .. } | Error::DamagedModelFile)),
            _ => assert_eq!(
                error.to_string(),
                "the server's model file is truncated or damaged: copy it again"
            ),
        }
    }
    let mut newer = file.clone();
    newer[8] = 3;
    let error = PartyModel::from_bytes(&resealed(newer)).unwrap_err();
    assert!(error.to_string().contains("written by a newer version"), "{error}");
    let mut older = file.clone();
    older[8] = 1;
    let error = PartyModel::from_bytes(&resealed(older)).unwrap_err();
    assert!(error.to_string().contains("split the model again"), "{error}");
    let mut longer = file;
    longer.push(0);
    assert!(PartyModel::from_bytes(&resealed(longer)).is_err());
}

/// Sealed rightly, whatever is inside must still make sense.
#[test]
fn sealed_nonsense_is_refused() {
    let file = file();
    let mut accepted = 0;
    for i in 10..file.len() - 32 {
        for bit in 0..8 {
            let mut changed = file.clone();
            changed[i] ^= 1 << bit;
            if let Ok(part) = PartyModel::from_bytes(&resealed(changed)) {
                part.architecture().check().unwrap();
                for (j, layer) in part.architecture().layers.iter().enumerate() {
                    let Some(held) = part.layer(j) else { continue };
                    assert_eq!(held.weights.len(), layer.geometry.weights());
                    assert!(held.weights.iter().chain(&held.bias).all(|&v| u64::from(v) >> layer.width == 0));
                }
                accepted += 1;
            }
        }
    }
    // Other shares, nonces and names are as good as these.
    assert!(accepted > 0);
}

#[test]
fn huge_sizes_are_refused_before_anything_is_made() {
    let spoilt = |change: &dyn Fn(&mut crate::onnx::GraphProto)| {
        let mut model = network();
        change(model.graph.as_mut().unwrap());
        read(&model.encode_to_vec()).unwrap_err()
    };
    for huge in [1 << 25, 1 << 40, i64::MAX, -1, 0] {
        spoilt(&|g| g.initializer[0].dims = vec![2, 1, 3, huge]);
        spoilt(&|g| g.initializer[0].dims = vec![huge, huge, huge, huge]);
        spoilt(&|g| g.initializer[3].dims = vec![huge]);
        for attribute in 0..3 {
            spoilt(&|g| g.node[0].attribute[attribute].ints = vec![huge; if attribute == 1 { 4 } else { 2 }]);
        }
        for attribute in 0..2 {
            spoilt(&|g| g.node[1].attribute[attribute].ints = vec![huge; 2]);
        }
    }
    for shape in [[1, 1, 1 << 13, 1 << 13], [1, 1, 1 << 62, 1 << 62], [1, 1 << 63, 2, 2], [1, 1, 0, 8]] {
        spoilt(&|g| g.input[0] = value("x", &shape));
    }
    // Small in the file, large when composed: a window as large as a large map.
    let conv = |stride| Step::Conv {
        weights: vec![1.0; 64],
        bias: vec![0.0; 64],
        kernel: [1, 1],
        stride: [stride; 2],
        pads: [0; 4],
    };
    let pool = |side| Step::Pool { kernel: [side; 2], stride: [1, 1] };
    for steps in
        [vec![conv(1), pool(2000)], vec![pool(2000), conv(1)], vec![conv(1); 2], vec![conv(2), pool(1023)]]
    {
        read(&Network { input: vec![1, 2048, 2048], steps }.onnx()).unwrap_err();
    }
    assert!(matches!(read(&vec![0; MAX_FILE + 1]), Err(Error::Onnx(_))));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn random_bytes_are_refused(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        prop_assert!(import(&bytes, &ImportOptions::default()).is_err());
        prop_assert!(PartyModel::from_bytes(&bytes).is_err());
        prop_assert!(reader::read_u8(&bytes).is_err());
        let framed = [b"SECOpart\x02\x00", bytes.as_slice(), &[0; 32]].concat();
        prop_assert!(PartyModel::from_bytes(&resealed(framed)).is_err());
        let header = String::from_utf8_lossy(&bytes);
        prop_assert!(reader::read_u8(&npy(&header, &[1, 2])).is_err());
    }

    /// Whatever a changed ONNX file says, it is refused or runs.
    #[test]
    fn changed_onnx_files_do_no_harm(changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4)) {
        let mut onnx = network().encode_to_vec();
        for (at, to) in changes {
            let at = at.index(onnx.len());
            onnx[at] = to;
        }
        let _ = read(&onnx);
    }

    /// Numbers that a protobuf can carry and no model means.
    #[test]
    fn strange_numbers_do_no_harm(
        node in 0usize..5, attribute in 0usize..3, numbers in proptest::collection::vec(
            prop_oneof![any::<i64>(), -2i64..5, Just(i64::MAX), Just(i64::MIN), 0i64..1 << 27], 0..5),
        dims in proptest::collection::vec(prop_oneof![any::<i64>(), 0i64..12], 0..5),
        tensor in 0usize..4, kind in 0i32..9,
    ) {
        let mut model = network();
        let graph = model.graph.as_mut().unwrap();
        if let Some(a) = graph.node[node].attribute.get_mut(attribute) {
            a.i = numbers.first().copied().unwrap_or(1);
            a.ints = numbers;
        }
        let _ = read(&model.encode_to_vec());
        let graph = model.graph.as_mut().unwrap();
        graph.initializer[tensor].dims = dims;
        graph.initializer[tensor].data_type = kind;
        let _ = read(&model.encode_to_vec());
    }
}
