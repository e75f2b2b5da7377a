//! Stored sessions: no crash repeats a counter, and no damaged blob is taken for a session.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "helpers of tests are tests")]

mod common;

use common::{hex, model, opening_keys, rng, sealing_keys, unhex};
use proptest::prelude::*;
use rand_core::Rng;
use seco_core::{
    Error, MAX_SESSION_BLOB, Reservation, SESSION_BLOB_VERSION, ServerSetId, Session, SessionId,
};
use sha2::{Digest, Sha256};
use std::collections::{HashSet, VecDeque};

fn session(servers: u8, seed: u8) -> Session {
    Session::new(model(), &sealing_keys(&opening_keys(servers)), &mut rng(seed)).unwrap()
}

fn save(session: &mut Session, block: u64) -> (Vec<u8>, Reservation) {
    let mut buffer = [0; MAX_SESSION_BLOB];
    let (blob, reservation) = session.save(block, &mut buffer).unwrap();
    (blob.to_vec(), reservation)
}

/// The counter of a request with an input of zeros, and the pad that it gives away.
fn request(session: &mut Session) -> Result<(u64, Vec<u8>), Error> {
    let mut input = vec![0; 784];
    let pending = session.request(&mut input)?;
    Ok((pending.counter(), input))
}

fn with_checksum(body: &[u8]) -> Vec<u8> {
    [body, Sha256::digest(body).as_slice()].concat()
}

#[test]
fn a_restored_session_goes_on_behind_the_reserved_block() {
    for servers in [2, 3, 8] {
        let mut first = session(servers, 1);
        assert_eq!(first.reserved(), None);
        assert_eq!(request(&mut first).unwrap().0, 0, "without storage as ever");
        let (blob, reservation) = save(&mut first, 2);
        assert_eq!(blob.len(), 142 + 32 * usize::from(servers));
        assert_eq!(request(&mut first), Err(Error::ReservationUsedUp), "not confirmed yet");
        first.confirm(reservation).unwrap();
        assert_eq!(first.reserved(), Some(2));
        let pads = [request(&mut first).unwrap(), request(&mut first).unwrap()];
        assert_eq!(request(&mut first), Err(Error::ReservationUsedUp));

        let mut copy = blob.clone();
        let mut second = Session::restore(&mut copy).unwrap();
        assert!(copy.iter().all(|byte| *byte == 0), "wiped");
        assert_eq!((second.id(), second.model()), (first.id(), first.model()));
        assert_eq!(second.server_set(), ServerSetId::new(&sealing_keys(&opening_keys(servers))).unwrap());
        assert_eq!(request(&mut second), Err(Error::ReservationUsedUp));
        let (_, reservation) = save(&mut second, 1);
        second.confirm(reservation).unwrap();
        let (counter, pad) = request(&mut second).unwrap();
        assert_eq!(counter, 3);
        assert!(pads.iter().all(|(_, earlier)| *earlier != pad));

        // The same keys: what the first session would have sent under that number.
        let (_, reservation) = save(&mut first, 10);
        first.confirm(reservation).unwrap();
        assert_eq!(request(&mut first).unwrap(), (3, pad));
    }
}

/// An answer can be read by the session that was saved in between.
#[test]
fn saving_leaves_requests_under_way_alone() {
    let mut session = session(3, 1);
    let pending = session.request(&mut [0; 784]).unwrap();
    let _ = save(&mut session, 5);
    session.unmask_logits(pending, &[0; 25], &mut [0; 10]).unwrap();
}

#[test]
fn bounds_never_fall() {
    let mut session = session(2, 1);
    let (_, large) = save(&mut session, 100);
    let (blob, _) = save(&mut session, 1);
    // Only the second blob got stored, then the first reservation was confirmed by mistake.
    session.confirm(large).unwrap();
    assert_eq!(session.reserved(), Some(100));
    let mut restored = Session::restore(&mut blob.clone()).unwrap();
    let (_, next) = save(&mut restored, 1);
    restored.confirm(next).unwrap();
    assert_eq!(request(&mut restored).unwrap().0, 100);
}

#[test]
fn misuse_is_an_error() {
    let (mut one, mut other) = (session(2, 1), session(2, 2));
    let (_, reservation) = save(&mut one, 8);
    let _ = save(&mut other, 8);
    assert_eq!(other.confirm(reservation), Err(Error::OtherSession));
    assert_eq!(other.reserved(), Some(0));

    let mut fresh = session(2, 3);
    let len = 142 + 64;
    for short in 0..len {
        assert_eq!(fresh.save(8, &mut vec![0; short]).unwrap_err(), Error::BufferTooSmall);
    }
    assert_eq!(fresh.reserved(), None, "a failed call changes nothing");
    assert_eq!(fresh.save(8, &mut vec![0; len]).unwrap().0.len(), len);
}

/// A device that crashes wherever it can: between saving, storing, confirming and using.
#[test]
fn no_crash_repeats_a_counter() {
    for seed in 0..64 {
        let mut random = rng(seed);
        let mut below = |limit: u32| random.next_u32() % limit;
        let mut used = HashSet::<(SessionId, u64)>::new();
        let mut stored: Option<Vec<u8>> = None;
        let (mut current, mut sessions) = (session(2, 0), 0u8);
        // Blobs on their way to storage, in order.
        let mut writing = VecDeque::new();
        let (mut answered, mut resumed) = (0, 0);
        for _ in 0..3000 {
            match below(20) {
                0 => writing.push_back(save(&mut current, below(6).into())),
                1 => drop(save(&mut current, below(6).into())),
                2 => stored = writing.pop_front().map(|(blob, _)| blob).or(stored),
                3..6 => {
                    if let Some((blob, reservation)) = writing.pop_front() {
                        stored = Some(blob);
                        current.confirm(reservation).unwrap();
                    }
                }
                6 => {
                    // Crash. Writing may have been cut short.
                    writing.clear();
                    if below(8) == 0
                        && let Some(blob) = &mut stored
                    {
                        blob.truncate(below(200) as usize);
                    }
                    let restored = stored.as_ref().map(|blob| Session::restore(&mut blob.clone()));
                    current = match restored {
                        Some(Ok(session)) => {
                            resumed += 1;
                            session
                        }
                        _ => {
                            sessions += 1;
                            stored = None;
                            session(2, sessions)
                        }
                    };
                }
                7 => {
                    // As an application does it that wants to go on.
                    writing.clear();
                    let (blob, reservation) = save(&mut current, 3);
                    stored = Some(blob);
                    current.confirm(reservation).unwrap();
                    assert!(current.reserved() >= Some(3));
                }
                _ => match request(&mut current) {
                    Ok((counter, _)) => {
                        answered += 1;
                        assert!(used.insert((current.id(), counter)), "{counter} repeats");
                    }
                    Err(error) => assert_eq!(error, Error::ReservationUsedUp),
                },
            }
        }
        assert!(answered > 100 && resumed > 20, "{answered} {resumed}");
    }
}

#[test]
fn every_truncation_extension_and_flip_is_an_error() {
    let (blob, _) = save(&mut session(3, 1), 1000);
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
    let (blob, _) = save(&mut session(3, 1), 1000);
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
        (66, &[32, 0, 0, 0]),
        (66, &[0, 0, 0, 1]),
    ] {
        let mut body = body.to_vec();
        body[at..at + bytes.len()].copy_from_slice(bytes);
        let error = Session::restore(&mut with_checksum(&body)).unwrap_err();
        assert_eq!(error, Error::SessionBlob, "{at} {bytes:?}");
    }
    assert_eq!(with_checksum(body), blob);
}

#[test]
fn a_session_at_the_end_of_its_counters() {
    let (blob, _) = save(&mut session(2, 1), u64::MAX);
    let mut restored = Session::restore(&mut blob.clone()).unwrap();
    assert_eq!(restored.save(1, &mut [0; MAX_SESSION_BLOB]).unwrap_err(), Error::Exhausted);
    assert_eq!(request(&mut restored), Err(Error::Exhausted));
}

/// The stored blob of version 1 is still read, and the same session still gives it.
#[test]
fn vector() {
    let stored = unhex(include_str!("vectors/v1/session_blob.hex"));
    let mut session = session(3, 7);
    for _ in 0..5 {
        request(&mut session).unwrap();
    }
    let (blob, _) = save(&mut session, 64);
    assert_eq!(hex(&blob), hex(&stored));
    let mut restored = Session::restore(&mut stored.clone()).unwrap();
    assert_eq!((restored.id(), restored.model()), (session.id(), &model()));
    let (_, reservation) = save(&mut restored, 1);
    restored.confirm(reservation).unwrap();
    let (counter, pad) = request(&mut restored).unwrap();
    assert_eq!((counter, hex(&pad[..8]).as_str()), (69, "cf9fa11df31690a8"));
}

proptest! {
    #[test]
    fn random_blobs_are_errors(mut bytes in proptest::collection::vec(any::<u8>(), 6..500), count in 0u8..12) {
        prop_assert!(Session::restore(&mut bytes.clone()).is_err());
        let len = bytes.len();
        for (to, from) in bytes.iter_mut().zip([b'S', b'E', b'S', b'S', 1, count]) {
            *to = from;
        }
        prop_assert!(Session::restore(&mut bytes.clone()).is_err());
        // Right sum, right or wrong length, random fields.
        let mut summed = with_checksum(&bytes);
        match Session::restore(&mut summed) {
            Ok(_) => prop_assert_eq!(len, 110 + 32 * usize::from(count)),
            Err(error) => prop_assert_eq!(error, Error::SessionBlob),
        }
    }
}
