//! Whatever a peer sends, decoders return errors and never panic.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "helpers of tests are tests")]

mod common;

use common::opening_keys;
use proptest::prelude::*;
use seco_core::message::{FRAME_OVERHEAD, MAX_HEADER, decode_header};
use seco_core::{
    Binding, Error, Incarnation, ModelId, Request, Response, SEALED_LEN, SEALING_KEY_LEN, ServerSealingKey,
    ServerSetId, SessionId, SessionKey, Token, WIRE_VERSION, mux, pack,
};

#[test]
fn every_truncation_and_every_extension_of_a_message_fails() {
    let requests = [
        Request::Open {
            session: SessionId([1; 16]),
            model: ModelId([2; 32]),
            nonce: [4; 16],
            sealed: &[3; 40],
        },
        Request::Infer { handle: 70_000, counter: 1 << 40, input: &[5; 300] },
        Request::Probe { down: 500, noise: &[6; 200] },
        Request::Resume { session: SessionId([1; 16]), nonce: [4; 16], tags: &[7; 48] },
        Request::Admit { token: &[8; 24], request: &[9; 100] },
        Request::Update { serial: 1 << 40, owner: &[5; 32] },
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

/// What a token opens is a session, and nothing else.
#[test]
fn admitted_requests() {
    let token = Token::new([5; 24]);
    let open = Request::Open {
        session: SessionId([1; 16]),
        model: ModelId([2; 32]),
        nonce: [4; 16],
        sealed: &[3; 40],
    };
    let resume = Request::Resume { session: SessionId([1; 16]), nonce: [4; 16], tags: &[7; 48] };
    let infer = Request::Infer { handle: 1, counter: 2, input: &[3; 9] };
    let admit = Request::Admit { token: token.as_bytes(), request: &[] };
    for (request, good) in [(open, true), (resume, true), (infer, false), (admit, false)] {
        let mut buffer = vec![0; request.frame_bound() + FRAME_OVERHEAD];
        let frame = request.encode_frame_with(&token, &mut buffer).unwrap();
        let header = decode_header(frame, 1000).unwrap().unwrap();
        let message = header.message(frame).unwrap();
        let Request::Admit { token: shown, request: within } = Request::decode(message).unwrap() else {
            panic!()
        };
        assert_eq!(Token::from_bytes(shown).unwrap().id(), token.id());
        let read = Request::admitted(within);
        assert_eq!(read, if good { Ok(request) } else { Err(Error::Malformed) });
        for len in 0..within.len() {
            assert_eq!(Request::admitted(&within[..len]), Err(Error::Malformed), "{len} bytes");
        }
        let shortest = frame.len() + FRAME_OVERHEAD - (message.len() - within.len() + header.header_len);
        for short in 0..shortest {
            assert!(request.encode_frame_with(&token, &mut vec![0; short]).is_err(), "{short}");
        }
    }
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
    assert_eq!(pack::pack(&words, 3, &mut [0; 1]), Err(Error::WrongLength { expected: 2, got: 1 }));
    assert_eq!(pack::packed_len(usize::MAX, 32), usize::MAX);
    assert_eq!(pack::packed_len(10, 20), 25);
}

#[test]
fn frames_around_a_payload_are_checked() {
    let hollow = Request::Probe { down: 7, noise: &[] };
    assert_eq!(hollow.encode_frame_around(&mut [0; FRAME_OVERHEAD - 1]), Err(Error::BufferTooSmall));
    let full = Request::Probe { down: 7, noise: &[1] };
    assert_eq!(full.encode_frame_around(&mut [0; 100]), Err(Error::Malformed));
}

#[test]
fn records_are_checked() {
    let bad = |bytes: &[u8], error| assert_eq!(mux::decode_record(bytes, 9), Err(error), "{bytes:?}");
    bad(&[0x80, 0, 0], Error::Malformed);
    bad(&[0x80, 0x80, 0x80, 0x80], Error::Malformed);
    bad(&[1, 0x80, 0], Error::Malformed);
    bad(&[1, 10], Error::TooLong { len: 10, limit: 9 });
    bad(&[0, 1, 7], Error::Malformed);
    for incomplete in [&[][..], &[1], &[0x81], &[0xff, 0xff, 0xff], &[1, 0x80]] {
        assert_eq!(mux::decode_record(incomplete, 9), Ok(None), "{incomplete:?}");
    }
    let record = mux::decode_record(&[0x80, 1, 3, 7, 8, 9], 9).unwrap().unwrap();
    assert_eq!((record.id, record.header_len, record.message_len, record.len()), (128, 3, 3, 6));
    assert_eq!(record.message(&[0x80, 1, 3, 7, 8, 9, 1]), Some(&[7, 8, 9][..]));
    assert_eq!(record.message(&[0x80, 1, 3, 7, 8]), None);
    for id in [0, 1, 127, 128, 16_383, 16_384, mux::MAX_ID] {
        let (bytes, len) = mux::empty_record(id).unwrap();
        let record = mux::decode_record(&bytes[..len], 0).unwrap().unwrap();
        assert_eq!((record.id, record.len(), record.is_empty()), (id, len, true));
    }
    assert!(mux::empty_record(mux::MAX_ID + 1).is_err());
}

proptest! {
    #[test]
    fn frames_around_a_payload_equal_those_made_in_one(
        handle in any::<u32>(), counter in any::<u64>(), small in 0u32..300, len in 0usize..20_000,
    ) {
        let payload: Vec<u8> = (0..len).map(|i| i as u8).collect();
        for (handle, counter) in [(handle, counter), (small, small.into())] {
            for (whole, hollow) in [
                (Request::Infer { handle, counter, input: &payload }, Request::Infer { handle, counter, input: &[] }),
                (Request::Probe { down: 7, noise: &payload }, Request::Probe { down: 7, noise: &[] }),
            ] {
                let mut expected = vec![0; whole.frame_bound()];
                let expected = whole.encode_frame(&mut expected).unwrap();
                let mut buffer = vec![0xee; FRAME_OVERHEAD];
                buffer.extend_from_slice(&payload);
                let start = hollow.encode_frame_around(&mut buffer).unwrap();
                prop_assert_eq!(&buffer[start..], expected);
                prop_assert!(start >= mux::MAX_EMPTY);
            }
        }
    }

    #[test]
    fn random_bytes_never_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
        let _ = decode_header(&bytes, 500);
        if let Ok(Some(record)) = mux::decode_record(&bytes, 500) {
            prop_assert!(record.message_len <= 500 && record.id <= mux::MAX_ID);
            let _ = record.message(&bytes);
        }
        let _ = Request::decode(&bytes);
        let _ = Response::decode(&bytes);
        if let Some(first) = bytes.first_mut() {
            *first = WIRE_VERSION;
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
        let connection = Incarnation { nonce: [1; 16], exporter: [2; 32] };
        SessionKey::from_bytes(seed).for_connection(&connection).apply_input_pad(0, &mut bytes).unwrap();
        let _ = ServerSealingKey::from_bytes(&bytes);
        let servers = opening_keys(1);
        let binding =
            Binding {
                session: SessionId([0; 16]),
                model: ModelId([0; 32]),
                servers: ServerSetId([0; 32]),
                incarnation: connection.id(),
            };
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
