//! Device and servers together: masking, unmasking, and what a sealed key is bound to.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "helpers of tests are tests")]

mod common;

use common::{model, opening_keys, rng, sealing_keys};
use rand_core::Rng;
use seco_core::message::{resume_tags, sealed_keys};
use seco_core::seal::seal_session_keys;
use seco_core::{
    Binding, Error, Incarnation, IncarnationId, IncarnationKey, KeyId, MAX_SERVERS, ModelId, ModelInfo,
    Request, Requester, SEALED_LEN, ServerSetId, Session, SessionId, SessionKey, pack,
};
use subtle::ConstantTimeEq;

const EXPORTER: [u8; 32] = [0x22; 32];

/// Opens a session of `n` servers and hands out what each of them unsealed.
fn open(n: u8, model: ModelInfo) -> (Session, Requester, Vec<SessionKey>) {
    let servers = opening_keys(n);
    let public = sealing_keys(&servers);
    let session = Session::new(model, &public, 0, &mut rng(9)).unwrap();
    let requester = session.start(&EXPORTER, &mut rng(11));
    let mut buffer = [0; MAX_SERVERS * SEALED_LEN];
    let message = session.open_message(&requester, &public, &mut rng(10), &mut buffer).unwrap();
    let Request::Open { session: id, model, nonce, sealed } = message else { panic!("not Open") };
    let incarnation = Incarnation { nonce, exporter: EXPORTER };
    assert_eq!(incarnation, requester.incarnation());
    let servers_id = ServerSetId::new(&public).unwrap();
    let binding = Binding { session: id, model, servers: servers_id, incarnation: incarnation.id() };
    let blobs = sealed_keys(sealed).unwrap();
    assert_eq!(blobs.len(), usize::from(n));
    let keys =
        (0..n).map(|j| servers[usize::from(j)].open(&blobs[usize::from(j)], &binding, j).unwrap()).collect();
    for (blob, key) in blobs.iter().zip(&public) {
        assert_eq!(KeyId::of(blob), key.hash().id());
    }
    (session, requester, keys)
}

/// [`open`], with the keys that the servers derive for the connection.
fn connected(n: u8, model: ModelInfo) -> (Requester, Vec<IncarnationKey>) {
    let (_, requester, keys) = open(n, model);
    let keys = keys.iter().map(|key| key.for_connection(&requester.incarnation())).collect();
    (requester, keys)
}

/// What the servers send for `logits` under inference `counter`.
fn answer(keys: &[IncarnationKey], counter: u64, logits: &[i32], width: u32) -> Vec<u8> {
    let mut words: Vec<u32> = logits.iter().map(|logit| logit.cast_unsigned()).collect();
    let mut pad = vec![0; words.len()];
    for key in keys {
        key.output_pad(counter, width, &mut pad).unwrap();
        words.iter_mut().zip(&pad).for_each(|(word, pad)| *word = word.wrapping_add(*pad));
    }
    let mut packed = vec![0; pack::packed_len(words.len(), width)];
    pack::pack(&words, width, &mut packed).unwrap();
    packed
}

#[test]
fn servers_remove_the_mask_and_the_device_reads_the_answer() {
    for n in [2, 3, 4, 8] {
        for width in [2, 7, 20, 31, 32] {
            let model = ModelInfo { width, values: 37, ..model() };
            let (mut session, keys) = connected(n, model);
            for expected_counter in 0..3 {
                let plain: Vec<u8> = (0..784).map(|i| (i * 7) as u8).collect();
                let mut input = plain.clone();
                let pending = session.request(&mut input).unwrap();
                let counter = pending.counter();
                assert_eq!(counter, expected_counter);
                assert_ne!(input, plain);
                // All servers but one see noise, all of them the input.
                keys[1..].iter().for_each(|key| key.apply_input_pad(counter, &mut input).unwrap());
                assert_ne!(input, plain);
                keys[0].apply_input_pad(counter, &mut input).unwrap();
                assert_eq!(input, plain);

                let (min, max) = (i32::MIN >> (32 - width), i32::MAX >> (32 - width));
                let logits: Vec<i32> = (0..37).map(|i| [min, -1, 0, 1, max][i % 5]).collect();
                let mut out = [0; 37];
                session.unmask_logits(pending, &answer(&keys, counter, &logits, width), &mut out).unwrap();
                assert_eq!(out.as_slice(), logits);
            }
        }
    }
}

#[test]
fn pads_differ_by_server_connection_counter_and_purpose() {
    let connections = [(1, 1), (1, 2), (2, 1)]
        .map(|(nonce, exporter)| Incarnation { nonce: [nonce; 16], exporter: [exporter; 32] });
    let keys = [1, 2].map(|byte| SessionKey::from_bytes([byte; 32]));
    let derived = keys.iter().flat_map(|key| connections.iter().map(|it| key.for_connection(it)));
    let mut pads = Vec::new();
    for key in derived {
        pads.push(u32::from_le_bytes(*key.tag().first_chunk().unwrap()));
        for counter in [0, 1, 256, u64::MAX] {
            let (mut bytes, mut words) = ([0; 4], [0; 1]);
            key.apply_input_pad(counter, &mut bytes).unwrap();
            key.output_pad(counter, 32, &mut words).unwrap();
            pads.extend([u32::from_le_bytes(bytes), words[0]]);
        }
    }
    let count = pads.len();
    pads.sort_unstable();
    pads.dedup();
    assert_eq!(pads.len(), count);
}

/// What a device shows when it resumes: every server accepts the tag made for it on this connection, and no
/// other, from nobody who lacks its key.
#[test]
fn a_resuming_device_proves_every_key() {
    let (session, first, keys) = open(3, model());
    let mut random = rng(12);
    let requester = session.start(&[7; 32], &mut random);
    let mut buffer = [0; 48];
    let Request::Resume { session: id, nonce, tags } = requester.resume_message(&mut buffer).unwrap() else {
        panic!("not Resume")
    };
    assert_eq!(id, session.id());
    let tags = resume_tags(tags).unwrap();
    let incarnation = Incarnation { nonce, exporter: [7; 32] };
    for (j, key) in keys.iter().enumerate() {
        assert!(key.for_connection(&incarnation).accepts(&tags[j]));
        assert!(!key.for_connection(&incarnation).accepts(&tags[(j + 1) % 3]), "another server's");
        for at in 0..128 {
            let mut flipped = tags[j];
            flipped[at / 8] ^= 1 << (at % 8);
            assert!(!key.for_connection(&incarnation).accepts(&flipped));
        }
        // Replayed on another connection, or by somebody who knows all that is public.
        let elsewhere = Incarnation { exporter: [8; 32], ..incarnation };
        assert!(!key.for_connection(&elsewhere).accepts(&tags[j]));
        assert!(!key.for_connection(&first.incarnation()).accepts(&tags[j]));
        let stranger = SessionKey::from_bytes([0; 32]).for_connection(&incarnation);
        assert!(!key.for_connection(&incarnation).accepts(stranger.tag()));
    }
}

#[test]
fn a_sealed_key_is_bound_to_session_model_server_set_and_connection() {
    let servers = opening_keys(3);
    let public = sealing_keys(&servers);
    let keys = [1, 2, 3].map(|byte| SessionKey::from_bytes([byte; 32]));
    let binding = Binding {
        session: SessionId([1; 16]),
        model: ModelId([2; 32]),
        servers: ServerSetId::new(&public).unwrap(),
        incarnation: IncarnationId([3; 16]),
    };
    let mut buffer = [0; 3 * SEALED_LEN];
    let sealed = seal_session_keys(&keys, &public, &binding, &mut rng(3), &mut buffer).unwrap();
    let blobs = sealed_keys(sealed).unwrap();
    let opened = servers[1].open(&blobs[1], &binding, 1).unwrap();
    assert!(bool::from(opened.ct_eq(&keys[1])));

    let other_set = [public[0].clone(), public[2].clone(), public[1].clone()];
    let fewer = &public[..2];
    for wrong in [
        Binding { session: SessionId([9; 16]), ..binding },
        Binding { model: ModelId([9; 32]), ..binding },
        Binding { incarnation: IncarnationId([9; 16]), ..binding },
        Binding { servers: ServerSetId::new(&other_set).unwrap(), ..binding },
        Binding { servers: ServerSetId::new(fewer).unwrap(), ..binding },
    ] {
        assert_eq!(servers[1].open(&blobs[1], &wrong, 1).unwrap_err(), Error::Unsealable);
    }
    assert_eq!(servers[1].open(&blobs[1], &binding, 0).unwrap_err(), Error::Unsealable, "index");
    assert_eq!(servers[0].open(&blobs[1], &binding, 1).unwrap_err(), Error::Unsealable, "receiver");
    assert_eq!(servers[1].open(&blobs[0], &binding, 1).unwrap_err(), Error::Unsealable, "swapped blob");
    // One bit in the ML-KEM part, the X25519 part, the ciphertext, the tag.
    for at in [8, 1095, 1096, 1127, 1128, 1159, 1160, SEALED_LEN - 1] {
        let mut tampered = blobs[1];
        tampered[at] ^= 1;
        assert_eq!(servers[1].open(&tampered, &binding, 1).unwrap_err(), Error::Unsealable, "byte {at}");
    }
}

#[test]
fn misuse_is_an_error() {
    let servers = opening_keys(3);
    let public = sealing_keys(&servers);
    let owner = Session::new(model(), &public, 0, &mut rng(1)).unwrap();
    let mut session = owner.start(&EXPORTER, &mut rng(5));

    let mut short = [7; 783];
    let error = session.request(&mut short).unwrap_err();
    assert_eq!(error, Error::WrongLength { expected: 784, got: 783 });
    assert_eq!(short, [7; 783], "left as it was");

    let pending = session.request(&mut [0; 784]).unwrap();
    assert_eq!(pending.counter(), 0, "a refused input takes no counter");
    let error = session.unmask_logits(pending, &[0; 24], &mut [0; 10]).unwrap_err();
    assert_eq!(error, Error::WrongLength { expected: 25, got: 24 });
    let pending = session.request(&mut [0; 784]).unwrap();
    let error = session.unmask_logits(pending, &[0; 25], &mut [0; 9]).unwrap_err();
    assert_eq!(error, Error::WrongLength { expected: 10, got: 9 });

    let other = Session::new(model(), &public, 0, &mut rng(2)).unwrap();
    // Of another session, and of the same one on another connection.
    for stranger in [other.start(&EXPORTER, &mut rng(5)), owner.start(&EXPORTER, &mut rng(6))] {
        let pending = session.request(&mut [0; 784]).unwrap();
        assert_eq!(stranger.unmask_logits(pending, &[0; 25], &mut [0; 10]), Err(Error::OtherSession));
    }

    let mut buffer = [0; 3 * SEALED_LEN];
    let swapped = [public[1].clone(), public[0].clone(), public[2].clone()];
    let error = owner.open_message(&session, &swapped, &mut rng(3), &mut buffer).unwrap_err();
    assert_eq!(error, Error::OtherServers);
    let error = owner.open_message(&session, &public, &mut rng(3), &mut buffer[1..]).unwrap_err();
    assert_eq!(error, Error::BufferTooSmall);

    let error = other.open_message(&session, &public, &mut rng(3), &mut buffer).unwrap_err();
    assert_eq!(error, Error::OtherSession);
    assert_eq!(session.resume_message(&mut [0; 47]).unwrap_err(), Error::BufferTooSmall);

    for count in [0, 1, 9] {
        let servers = vec![public[0].clone(); count];
        assert_eq!(
            Session::new(model(), &servers, 0, &mut rng(1)).unwrap_err(),
            Error::Servers { got: count }
        );
    }
    for wrong in [
        ModelInfo { input_len: 0, ..model() },
        ModelInfo { input_len: ModelInfo::MAX_INPUT + 1, ..model() },
        ModelInfo { values: 0, ..model() },
        ModelInfo { values: ModelInfo::MAX_VALUES + 1, ..model() },
        ModelInfo { width: 1, ..model() },
        ModelInfo { width: 33, ..model() },
    ] {
        assert!(matches!(Session::new(wrong, &public, 0, &mut rng(1)), Err(Error::Model(_))), "{wrong:?}");
    }
}

#[test]
fn sessions_and_sealings_are_fresh_and_show_no_keys() {
    let public = sealing_keys(&opening_keys(2));
    let mut random = rng(1);
    let first = Session::new(model(), &public, 0, &mut random).unwrap();
    let second = Session::new(model(), &public, 0, &mut random).unwrap();
    assert_ne!(first.id(), second.id());
    let (mut a, mut b) = ([0; 2 * SEALED_LEN], [0; 2 * SEALED_LEN]);
    let requester = first.start(&EXPORTER, &mut random);
    first.open_message(&requester, &public, &mut random, &mut a).unwrap();
    first.open_message(&requester, &public, &mut random, &mut b).unwrap();
    assert_ne!(a, b);
    let secret = [0x5a; 32];
    let shown = format!(
        "{:?} {:?} {:?} {first:?}",
        SessionKey::from_bytes(secret),
        SessionKey::from_bytes(secret).for_connection(&requester.incarnation()),
        seco_core::ServerOpeningKey::from_seed(secret)
    );
    assert!(!shown.contains("5a") && !shown.contains("90"), "{shown}");
    assert_ne!(random.next_u32(), 0);
}

/// Phones give secondary threads 512 KiB; sealing, the deepest call, must leave room.
#[test]
fn a_small_stack_is_enough() {
    let thread = std::thread::Builder::new().stack_size(256 * 1024);
    let opened = thread.spawn(|| open(8, model()).2.len()).unwrap().join().unwrap();
    assert_eq!(opened, 8);
}
