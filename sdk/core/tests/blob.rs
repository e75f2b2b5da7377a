//! Stored sessions: wherever a blob comes back, pads are new; and no damaged blob is taken for a session.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "helpers of tests are tests")]

mod common;

use common::vectors::section;
use common::{hex, model, opening_keys, rng, sealing_keys};
use proptest::prelude::*;
use rand_core::Rng;
use seco_core::{Error, MAX_SESSION_BLOB, Requester, SESSION_BLOB_VERSION, ServerSetId, Session};
use sha2::{Digest, Sha256};
use std::collections::HashMap;

fn session(servers: u8, seed: u8) -> Session {
    Session::new(model(), &sealing_keys(&opening_keys(servers)), 1_700_000_000, &mut rng(seed)).unwrap()
}

fn save(session: &Session) -> Vec<u8> {
    session.save(&mut [0; MAX_SESSION_BLOB]).unwrap().to_vec()
}

/// The pad that a request with an input of zeros gives away.
fn pad(requester: &mut Requester) -> Vec<u8> {
    let mut input = vec![0; 784];
    let _ = requester.request(&mut input).unwrap();
    input
}

fn with_checksum(body: &[u8]) -> Vec<u8> {
    [body, Sha256::digest(body).as_slice()].concat()
}

#[test]
fn a_restored_session_is_the_same_session() {
    for servers in [2, 3, 8] {
        let first = session(servers, 1);
        let blob = save(&first);
        assert_eq!(blob.len(), 138 + 32 * usize::from(servers));
        let mut copy = blob.clone();
        let second = Session::restore(&mut copy).unwrap();
        assert!(copy.iter().all(|byte| *byte == 0), "wiped");
        assert_eq!((second.id(), second.model()), (first.id(), first.model()));
        assert_eq!(second.created(), 1_700_000_000);
        assert_eq!(second.server_set(), ServerSetId::new(&sealing_keys(&opening_keys(servers))).unwrap());
        assert_eq!(save(&second), blob);
        // The same keys: with the same randomness and connection it would send the same.
        let exporter = [9; 32];
        let (mut one, mut two) = (first.start(&exporter, &mut rng(3)), second.start(&exporter, &mut rng(3)));
        assert_eq!(pad(&mut one), pad(&mut two));
    }
}

#[test]
fn a_buffer_that_is_too_small() {
    let session = session(2, 3);
    let len = 138 + 64;
    for short in 0..len {
        assert_eq!(session.save(&mut vec![0; short]).unwrap_err(), Error::BufferTooSmall);
    }
    assert_eq!(session.save(&mut vec![0; len]).unwrap().len(), len);
}

/// Devices that share a file, crash, come back from backups, or are copied in mid-flight with their random
/// generators: no pad ever comes twice, as long as either the generator or the connection is another one.
#[test]
fn no_copy_repeats_a_pad() {
    let blob = save(&session(2, 1));
    let mut seen: HashMap<Vec<u8>, (u32, u32)> = HashMap::new();
    let mut random = rng(77);
    for device in 0..40u32 {
        // Every other device is a copy of the one before, generator and all; then its connections differ, for
        // the gateway contributes to every exporter value.
        let mut own = rng((device / 2) as u8);
        for connection in 0..10u32 {
            let mut exporter = [5; 32];
            if device % 2 == 1 || connection % 3 == 0 {
                random.fill_bytes(&mut exporter);
            }
            let session = Session::restore(&mut blob.clone()).unwrap();
            let mut requester = session.start(&exporter, &mut own);
            for _ in 0..3 {
                let pad = pad(&mut requester)[..16].to_vec();
                let before = seen.insert(pad, (device, connection));
                assert_eq!(before, None, "device {device}, connection {connection}");
            }
        }
    }
    assert_eq!(seen.len(), 1200);
}

#[test]
fn every_truncation_extension_and_flip_is_an_error() {
    let blob = save(&session(3, 1));
    assert!(Session::restore(&mut blob.clone()).is_ok());
    for len in 0..blob.len() {
        assert_eq!(Session::restore(&mut blob[..len].to_vec()).unwrap_err(), Error::SessionBlob, "{len}");
    }
    let mut longer = [blob.as_slice(), &[0]].concat();
    assert_eq!(Session::restore(&mut longer).unwrap_err(), Error::SessionBlob);
    for bit in 0..8 * blob.len() {
        let mut flipped = blob.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        let version = flipped[4];
        let error = Session::restore(&mut flipped).unwrap_err();
        assert!(flipped.iter().all(|byte| *byte == 0), "wiped on failure too");
        if version == SESSION_BLOB_VERSION {
            assert_eq!(error, Error::SessionBlob, "bit {bit}");
        } else {
            assert_eq!(error, Error::SessionBlobVersion { got: version });
        }
    }
}

/// The checksum finds damage only: fields are checked as well.
#[test]
fn fields_are_checked() {
    let blob = save(&session(3, 1));
    let body = &blob[..blob.len() - 32];
    for (at, bytes) in [
        (0, b"sESS".as_slice()),
        (5, &[0]),
        (5, &[1]),
        (5, &[2]),
        (5, &[4]),
        (5, &[9]),
        (5, &[255]),
        (54, &[0; 4]),
        (54, &[255; 4]),
        (58, &[0; 4]),
        (58, &[255; 4]),
        (62, &[1, 0, 0, 0]),
        (62, &[33, 0, 0, 0]),
    ] {
        let mut body = body.to_vec();
        body[at..at + bytes.len()].copy_from_slice(bytes);
        let error = Session::restore(&mut with_checksum(&body)).unwrap_err();
        assert_eq!(error, Error::SessionBlob, "{at} {bytes:?}");
    }
    assert_eq!(with_checksum(body), blob);
}

/// `vectors.rs` reads the kept sessions; this is how one of them was made.
#[test]
fn the_kept_session_comes_of_the_same_randomness() {
    let good = section(include_str!("vectors/wire-2/session.json"), "good");
    assert_eq!(hex(&save(&session(3, 7))), good[0]["blob"].as_str().unwrap());
}

proptest! {
    #[test]
    fn random_blobs_are_errors(mut bytes in proptest::collection::vec(any::<u8>(), 6..500), count in 0u8..12) {
        prop_assert!(Session::restore(&mut bytes.clone()).is_err());
        let len = bytes.len();
        for (to, from) in bytes.iter_mut().zip([b'S', b'E', b'S', b'S', SESSION_BLOB_VERSION, count]) {
            *to = from;
        }
        prop_assert!(Session::restore(&mut bytes.clone()).is_err());
        // Right sum, right or wrong length, random fields.
        let mut summed = with_checksum(&bytes);
        match Session::restore(&mut summed) {
            Ok(_) => prop_assert_eq!(len, 106 + 32 * usize::from(count)),
            Err(error) => prop_assert_eq!(error, Error::SessionBlob),
        }
    }
}
