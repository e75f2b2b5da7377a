//! Whatever a peer sends, decoders return errors and never panic.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "helpers of tests are tests")]

mod common;

use common::opening_keys;
use proptest::prelude::*;
use seco_core::message::{Header, MAX_HEADER, decode_header, sealed_keys};
use seco_core::{
    Binding, Error, ModelId, Request, Response, SEALED_LEN, SEALING_KEY_LEN, ServerSealingKey, ServerSetId,
    SessionId, pack,
};

#[test]
fn every_truncation_and_every_extension_of_a_message_fails() {
    let requests = [
        Request::Open { session: SessionId([1; 16]), model: ModelId([2; 32]), sealed: &[3; 40] },
        Request::Infer { handle: 70_000, counter: 1 << 40, input: &[5; 300] },
        Request::Probe { down: 500, noise: &[6; 200] },
        Request::Resume { session: SessionId([1; 16]) },
    ];
    for request in requests {
        let mut buffer = vec![0; request.frame_bound()];
        let frame = request.encode_frame(&mut buffer).unwrap();
        let header = decode_header(frame, 1000).unwrap().unwrap();
        let message = header.message(frame).unwrap();
        assert_eq!(Request::decode(message), Ok(request));
        for len in 0..message.len() {
            assert_eq!(Request::decode(&message[..len]), Err(Error::Malformed), "{len} bytes");
            assert_eq!(header.message(&frame[..header.header_len + len]), None);
        }
        let longer = [message, &[0]].concat();
        assert_eq!(Request::decode(&longer), Err(Error::Malformed));
        for short in 0..frame.len() + MAX_HEADER - header.header_len {
            assert_eq!(request.encode_frame(&mut vec![0; short]), Err(Error::BufferTooSmall), "{short}");
        }
    }
}

#[test]
fn other_versions_and_unknown_variants() {
    assert_eq!(Request::decode(&[2, 0]), Err(Error::Version { got: 2 }));
    assert_eq!(Response::decode(&[0]), Err(Error::Version { got: 0 }));
    assert_eq!(Response::decode(&[]), Err(Error::Malformed));
    assert_eq!(Request::decode(&[1, 3, 0]), Err(Error::Malformed));
    assert_eq!(Request::decode(&[&[1, 4], [0; 16].as_slice()].concat()), Err(Error::Malformed));
    assert_eq!(Response::decode(&[1, 7, 0]), Err(Error::Malformed));
    assert_eq!(Response::decode(&[1, 5, 12]), Err(Error::Malformed));
}

#[test]
fn headers() {
    let header = |header_len, message_len| Ok(Some(Header { header_len, message_len }));
    assert_eq!(decode_header(&[], 100), Ok(None));
    assert_eq!(decode_header(&[0x96], 1000), Ok(None));
    assert_eq!(decode_header(&[0x96, 0x06, 1], 1000), header(2, 790));
    assert_eq!(decode_header(&[0x96, 0x06], 789), Err(Error::TooLong { len: 790, limit: 789 }));
    assert_eq!(decode_header(&[0xff, 0xff, 0xff, 0x7f], usize::MAX), header(4, (1 << 28) - 1));
    assert_eq!(decode_header(&[0xff, 0xff, 0xff], usize::MAX), Ok(None));
    assert_eq!(decode_header(&[0xff, 0xff, 0xff, 0xff], usize::MAX), Err(Error::Malformed));
    assert_eq!(decode_header(&[0x85, 0x00], 100), Err(Error::Malformed), "one length, one encoding");
    assert_eq!(decode_header(&[0], 100), header(1, 0));
}

/// A byte string that announces more than is there must not be believed.
#[test]
fn announced_lengths_are_checked() {
    for claimed in [[0xff, 0xff, 0xff, 0xff, 0x0f].as_slice(), &[0xff; 9], &[0xff; 10]] {
        let message = [&[1, 1], claimed, &[7; 100]].concat();
        assert_eq!(Response::decode(&message), Err(Error::Malformed));
    }
}

#[test]
fn sealed_key_lists() {
    assert_eq!(sealed_keys(&[0; SEALED_LEN]), Err(Error::Servers { got: 1 }));
    assert_eq!(sealed_keys(&[]), Err(Error::Servers { got: 0 }));
    assert_eq!(sealed_keys(&[0; 9 * SEALED_LEN]), Err(Error::Servers { got: 9 }));
    assert_eq!(sealed_keys(&[0; 2 * SEALED_LEN + 1]), Err(Error::Malformed));
    assert_eq!(sealed_keys(&[0; 3 * SEALED_LEN]).unwrap().len(), 3);
}

#[test]
fn public_keys_are_checked() {
    let key = opening_keys(1)[0].sealing_key().unwrap();
    let bytes = key.as_bytes();
    assert_eq!(ServerSealingKey::from_bytes(bytes).unwrap(), key);
    for wrong in [&bytes[1..], &[bytes.as_slice(), &[0]].concat(), &[], &[0xff; SEALING_KEY_LEN]] {
        assert_eq!(ServerSealingKey::from_bytes(wrong), Err(Error::SealingKey));
    }
}

#[test]
fn packed_words_are_checked() {
    let mut words = [0; 3];
    for width in [0, 33, u32::MAX] {
        assert_eq!(pack::unpack(&[0; 2], width, &mut words), Err(Error::Width { got: width }));
        assert_eq!(pack::pack(&words, width, &mut [0; 2]), Err(Error::Width { got: width }));
    }
    assert_eq!(pack::unpack(&[0; 3], 3, &mut words), Err(Error::WrongLength { expected: 2, got: 3 }));
    assert_eq!(pack::pack(&words, 3, &mut [0; 1]), Err(Error::WrongLength { expected: 2, got: 1 }));
    assert_eq!(pack::unpack(&[0, 2], 3, &mut words), Err(Error::Malformed), "bit 9 belongs to no word");
    assert_eq!(pack::packed_len(usize::MAX, 32), usize::MAX);
    assert_eq!(pack::packed_len(10, 20), 25);
}

proptest! {
    #[test]
    fn random_bytes_never_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
        let _ = decode_header(&bytes, 500);
        let _ = Request::decode(&bytes);
        let _ = Response::decode(&bytes);
        if let Some(first) = bytes.first_mut() {
            *first = 1;
        }
        if let Some(tag) = bytes.get_mut(1) {
            *tag %= 8;
        }
        let _ = Request::decode(&bytes);
        let _ = Response::decode(&bytes);
    }

    #[test]
    fn random_blobs_and_keys_never_panic(seed in any::<[u8; 32]>()) {
        let mut bytes = [0; SEALING_KEY_LEN];
        seco_core::SessionKey::from_bytes(seed).apply_input_pad(0, &mut bytes).unwrap();
        let _ = ServerSealingKey::from_bytes(&bytes);
        let servers = opening_keys(1);
        let binding =
            Binding { session: SessionId([0; 16]), model: ModelId([0; 32]), servers: ServerSetId([0; 32]) };
        let blob: [u8; SEALED_LEN] = bytes[..SEALED_LEN].try_into().unwrap();
        prop_assert_eq!(servers[0].open(&blob, &binding, 0).unwrap_err(), Error::Unsealable);
    }

    #[test]
    fn packing_round_trips(words in proptest::collection::vec(any::<u32>(), 0..70), width in 1u32..=32) {
        let mut packed = vec![0xff; pack::packed_len(words.len(), width)];
        pack::pack(&words, width, &mut packed).unwrap();
        let mut out = vec![0; words.len()];
        pack::unpack(&packed, width, &mut out).unwrap();
        let expected: Vec<u32> = words.iter().map(|word| word & (u32::MAX >> (32 - width))).collect();
        prop_assert_eq!(out, expected);
    }
}
