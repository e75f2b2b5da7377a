//! Files that somebody spoilt, by accident or on purpose: an error, never a panic or much memory.

use proptest::prelude::*;
use sha2::{Digest, Sha256};

use super::files::npy;
use super::generator;
use super::samples::model;
use crate::{Error, PartyModel, npy as reader, paper_placements, split};

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
            8..10 => assert!(matches!(
                error,
                Error::OlderModelFile { .. } | Error::NewerModelFile { .. } | Error::DamagedModelFile
            )),
            _ => assert_eq!(
                error.to_string(),
                "the server's model file is truncated or damaged: copy it again"
            ),
        }
    }
    let mut newer = file.clone();
    newer[8] = 6;
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
                for layer in part.architecture().graph.layers() {
                    let Some(held) = part.layer(layer.index) else { continue };
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

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn random_bytes_are_refused(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        prop_assert!(PartyModel::from_bytes(&bytes).is_err());
        prop_assert!(reader::read_u8(&bytes).is_err());
        let framed = [b"SECOpart\x03\x00", bytes.as_slice(), &[0; 32]].concat();
        prop_assert!(PartyModel::from_bytes(&resealed(framed)).is_err());
        let header = String::from_utf8_lossy(&bytes);
        prop_assert!(reader::read_u8(&npy(&header, &[1, 2])).is_err());
    }
}
