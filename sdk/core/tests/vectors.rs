//! Exact bytes of wire version 1: these must never change. Pads were computed by a separate implementation of
//! ChaCha12, checked against RFC 8439 at 20 rounds.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "helpers of tests are tests")]

mod common;

use common::{hex, opening_keys, rng, sealing_keys, unhex};
use seco_core::seal::seal_session_keys;
use seco_core::{
    Binding, ModelId, Refusal, Request, Response, SEALED_LEN, ServerOpeningKey, ServerSetId, SessionId,
    SessionKey, pack,
};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

fn key() -> SessionKey {
    SessionKey::from_bytes(std::array::from_fn(|i| i as u8))
}

fn request(request: Request<'_>, frame: &str) {
    let mut buffer = vec![0; request.frame_bound()];
    assert_eq!(hex(request.encode_frame(&mut buffer).unwrap()), frame, "{request:?}");
    assert_eq!(Request::decode(&unhex(frame)[1..]).unwrap(), request);
}

fn response(response: Response<'_>, frame: &str) {
    let mut buffer = vec![0; response.frame_bound()];
    assert_eq!(hex(response.encode_frame(&mut buffer).unwrap()), frame, "{response:?}");
    assert_eq!(Response::decode(&unhex(frame)[1..]).unwrap(), response);
}

#[test]
fn requests() {
    let open =
        Request::Open { session: SessionId([0xab; 16]), model: ModelId([0xcd; 32]), sealed: &[1, 2, 3] };
    request(open, &format!("360100{}{}03010203", "ab".repeat(16), "cd".repeat(32)));
    request(Request::Infer { handle: 5, counter: 300, input: &[9, 8, 7] }, "09010105ac0203090807");
    request(
        Request::Infer { handle: u32::MAX, counter: u64::MAX, input: &[] },
        "120101ffffffff0fffffffffffffffffff0100",
    );
    request(Request::Probe { down: 1000, noise: &[0xff] }, "060102e80701ff");
    request(Request::Resume { session: SessionId([0xab; 16]) }, &format!("120103{}", "ab".repeat(16)));
}

#[test]
fn responses() {
    response(Response::Opened { handle: 1 }, "03010001");
    response(Response::Logits { masked: &[0xde, 0xad] }, "05010102dead");
    response(Response::Label { masked: &[0x0f] }, "040102010f");
    response(Response::Queued { position: 2, wait_ms: 1500 }, "05010302dc0b");
    response(Response::Busy { retry_after_ms: 1 }, "03010401");
    response(Response::Probe { noise: &[] }, "03010600");
    for (reason, body) in [
        (Refusal::UnknownSession, "00"),
        (Refusal::WrongModel, "01"),
        (Refusal::WrongInputSize { expected: 784 }, "029006"),
        (Refusal::CounterUsed, "03"),
        (Refusal::Unavailable { server: 2 }, "0402"),
        (Refusal::TimedOut, "05"),
        (Refusal::Malformed, "06"),
        (Refusal::VersionUnsupported { supported: 1 }, "0701"),
        (Refusal::Internal, "08"),
        (Refusal::WrongServers, "09"),
        (Refusal::SealRejected { server: 1 }, "0a01"),
        (Refusal::ShuttingDown, "0b"),
    ] {
        response(Response::Refused { reason }, &format!("{:02x}0105{body}", 2 + body.len() / 2));
    }
}

/// What privacy adds to a request of 784 bytes: one byte at first, five after 2^27 requests.
#[test]
fn sizes() {
    let mut buffer = [0; 1000];
    let mut frame = |request: Request<'_>| request.encode_frame(&mut buffer).unwrap().to_vec();
    let plain = frame(Request::Probe { down: 28, noise: &[0; 784] });
    let first = frame(Request::Infer { handle: 1, counter: 0, input: &[0; 784] });
    let late = frame(Request::Infer { handle: 16_383, counter: (1 << 28) - 1, input: &[0; 784] });
    assert_eq!((plain.len(), first.len(), late.len()), (791, 792, 796));
    assert_eq!(hex(&first[..8]), "9606010101009006");
    let open = frame_len_of_open(3);
    assert_eq!((open, SEALED_LEN), (3558, 1168));
}

fn frame_len_of_open(servers: usize) -> usize {
    let sealed = vec![0; servers * SEALED_LEN];
    let open = Request::Open { session: SessionId([0; 16]), model: ModelId([0; 32]), sealed: &sealed };
    open.encode_frame(&mut vec![0; open.frame_bound()]).unwrap().len()
}

#[test]
fn input_pads() {
    for (counter, head, across) in [
        (0, "30dfcd26726ac6b1eafcd3301617824b", "041e6be4e8450e72f9508cacdcb8005959015faf"),
        (1, "b79a9757f0b688c08c38758fbff0a887", "4a0e1fa9a4988721fa0f86754e798fea3666f8bc"),
        (
            0x0102_0304_0506_0708,
            "87a95c6cff4f31621563b3b1b38d85ad",
            "12874c1206ec57ef58624d0a0b258117e346a96b",
        ),
    ] {
        let mut pad = [0; 80];
        key().apply_input_pad(counter, &mut pad).unwrap();
        assert_eq!((hex(&pad[..16]).as_str(), hex(&pad[60..]).as_str()), (head, across));
    }
}

#[test]
fn output_pads() {
    for (counter, head, word17) in [
        (0, [0xb37a7, 0xdd936, 0x592ab, 0x456f5], 0x492c8),
        (1, [0xf2d8f, 0x33f50, 0x7c880, 0x30241], 0x51b1e),
        (0x0102_0304_0506_0708, [0x4ae01, 0x971bd, 0x2db03, 0x75c84], 0x5dffe),
    ] {
        let mut pad = [0; 18];
        key().output_pad(counter, 20, &mut pad).unwrap();
        assert_eq!((&pad[..4], pad[17]), (head.as_slice(), word17));
        key().output_pad(counter, 4, &mut pad).unwrap();
        assert_eq!((pad[0], pad[17]), (head[0] & 15, word17 & 15));
    }
    let mut pad = [0; 1];
    key().output_pad(0, 32, &mut pad).unwrap();
    assert_eq!(pad, [0x7dbb_37a7]);
    assert_eq!(key().label_pad(0, 32).unwrap(), 0xa700_ee80);
    assert_eq!(key().label_pad(1, 4).unwrap(), 0);
}

#[test]
fn packing() {
    let mut packed = [0; 8];
    pack::pack(&[0x12345, 0x6789a, 0xffff_fffe], 20, &mut packed).unwrap();
    assert_eq!(hex(&packed), "4523a18967feff0f");
    let mut packed = [0; 2];
    pack::pack(&[1, 2, 3], 3, &mut packed).unwrap();
    assert_eq!(hex(&packed), "d100");
}

/// The first test vector of draft-connolly-cfrg-xwing-kem: seeds expand as everywhere else.
#[test]
fn xwing_key_generation() {
    let seed = unhex("7f9c2ba4e88f827d616045507605853ed73b8093f6efbc88eb1a6eacfa66ef26");
    let key = ServerOpeningKey::from_seed(seed.try_into().unwrap()).sealing_key().unwrap();
    assert_eq!(
        hex(&key.as_bytes()[..32]),
        "e2236b35a8c24b39b10aa1323a96a919a2ced88400633a7b07131713fc14b2b5"
    );
}

/// The stored blob still opens, and sealing with the same randomness gives the same bytes.
#[test]
fn sealing() {
    let servers = opening_keys(3);
    let public = sealing_keys(&servers);
    assert_eq!(
        hex(&Sha256::digest(public[0].as_bytes())),
        "f37b99b2db732a7df55f61fa442606133b1aeea462df9f8225fb5c82674523db"
    );
    let set = ServerSetId::new(&public).unwrap();
    assert_eq!(hex(&set.0), "850540b88ebd19fa959013a3d71ac6e7673afc40a22a711b00ebcc5d2a634780");
    let binding = Binding { session: SessionId([0xab; 16]), model: ModelId([0xcd; 32]), servers: set };

    let keys = [1, 2, 3].map(|byte| SessionKey::from_bytes([byte; 32]));
    let mut buffer = [0; 4096];
    let sealed = seal_session_keys(&keys, &public, &binding, &mut rng(42), &mut buffer).unwrap();
    let stored = unhex(include_str!("vectors/v1/sealed.hex"));
    assert_eq!(hex(sealed), hex(&stored));

    let blobs = seco_core::message::sealed_keys(&stored).unwrap();
    for (index, (server, key)) in servers.iter().zip(&keys).enumerate() {
        let opened = server.open(&blobs[index], &binding, index as u8).unwrap();
        assert!(bool::from(opened.ct_eq(key)));
    }
}
