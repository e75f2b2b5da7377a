//! Exact bytes of wire version 2: these must never change. Pads, tags and ids were computed by separate
//! implementations: ChaCha12 checked against RFC 8439 at 20 rounds, and Python's SHAKE256 and SHA-256.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "helpers of tests are tests")]

mod common;

use common::{hex, opening_keys, rng, sealing_keys, unhex};
use seco_core::seal::seal_session_keys;
use seco_core::{
    Binding, Error, Incarnation, IncarnationKey, ModelId, Refusal, Request, Response, SEALED_LEN,
    ServerOpeningKey, ServerSetId, SessionId, SessionKey, pack,
};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

const CONNECTION: Incarnation = Incarnation { nonce: [0x11; 16], exporter: [0x22; 32] };

fn key() -> IncarnationKey {
    SessionKey::from_bytes(std::array::from_fn(|i| i as u8)).for_connection(&CONNECTION)
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
    let (session, nonce) = (SessionId([0xab; 16]), [0xef; 16]);
    let open = Request::Open { session, model: ModelId([0xcd; 32]), nonce, sealed: &[1, 2, 3] };
    let fields = format!("{}{}{}", "ab".repeat(16), "cd".repeat(32), "ef".repeat(16));
    request(open, &format!("460200{fields}03010203"));
    request(Request::Infer { handle: 5, counter: 300, input: &[9, 8, 7] }, "09020105ac0203090807");
    request(
        Request::Infer { handle: u32::MAX, counter: u64::MAX, input: &[] },
        "120201ffffffff0fffffffffffffffffff0100",
    );
    request(Request::Probe { down: 1000, noise: &[0xff] }, "060202e80701ff");
    let resume = Request::Resume { session, nonce, tags: &[4, 5] };
    request(resume, &format!("250203{}{}020405", "ab".repeat(16), "ef".repeat(16)));
    let token = [0xee; 24];
    let admit = Request::Admit { token: &token, request: &[2, 3, 0] };
    request(admit, &format!("1f020418{}03020300", "ee".repeat(24)));
    request(Request::Update { serial: 300, owner: &[7, 8] }, "070205ac02020708");
}

#[test]
fn responses() {
    response(Response::Opened { handle: 1 }, "03020001");
    response(Response::Logits { masked: &[0xde, 0xad] }, "05020102dead");
    response(Response::Retired, "020202");
    // What that tag once carried is read as nothing else.
    assert_eq!(Response::decode(&unhex("0202010f")), Err(Error::Malformed));
    response(Response::Queued { position: 2, wait_ms: 1500 }, "05020302dc0b");
    response(Response::Busy { retry_after_ms: 1 }, "03020401");
    response(Response::Probe { noise: &[] }, "03020600");
    response(Response::Update { text: b"ab" }, "050207026162");
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
        (Refusal::TokenMissing, "0c"),
        (Refusal::TokenInvalid, "0d"),
        (Refusal::TokenExpired, "0e"),
        (Refusal::TokenExhausted { retry_after_s: 0 }, "0f00"),
        (Refusal::TokenExhausted { retry_after_s: 300 }, "0fac02"),
    ] {
        response(Response::Refused { reason }, &format!("{:02x}0205{body}", 2 + body.len() / 2));
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
    assert_eq!(hex(&first[..8]), "9606020101009006");
    let open = frame_len_of_open(3);
    assert_eq!((open, SEALED_LEN), (3598, 1176));
}

fn frame_len_of_open(servers: usize) -> usize {
    let sealed = vec![0; servers * SEALED_LEN];
    let (session, model) = (SessionId([0; 16]), ModelId([0; 32]));
    let open = Request::Open { session, model, nonce: [0; 16], sealed: &sealed };
    open.encode_frame(&mut vec![0; open.frame_bound()]).unwrap().len()
}

#[test]
fn incarnations() {
    assert_eq!(hex(&CONNECTION.id().0), "be46a7ed4be59358cdbc4ba23f6ed743");
    assert_eq!(hex(key().tag()), "dd1f42da4f94f3744623f60f2cdd78cf");
}

#[test]
fn input_pads() {
    for (counter, head, across) in [
        (0, "8fe0237c3d6602b3be60a7673959961d", "a185d995fcab023b5f0b3e7c8a63594cecff5aaf"),
        (1, "7d010ef168c6e3c37d900d997ecde5d3", "8220064d2104c2c625efab77af031f0f9da7680f"),
        (
            0x0102_0304_0506_0708,
            "80c0889689316135ae620197d95fee4f",
            "8f19282f7ef7a908517a1360e57ece8b0674630d",
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
        (0, [0x0aaf8, 0xb1d07, 0x81643, 0xbded4], 0x495fa),
        (1, [0x25181, 0xccf2d, 0x7bcb5, 0xa9bd8], 0x13d7e),
        (0x0102_0304_0506_0708, [0xf18ef, 0x9bf8c, 0x40860, 0xc0cc2], 0xc48a1),
    ] {
        let mut pad = [0; 18];
        key().output_pad(counter, 20, &mut pad).unwrap();
        assert_eq!((&pad[..4], pad[17]), (head.as_slice(), word17));
        key().output_pad(counter, 4, &mut pad).unwrap();
        assert_eq!((pad[0], pad[17]), (head[0] & 15, word17 & 15));
    }
    let mut pad = [0; 1];
    key().output_pad(0, 32, &mut pad).unwrap();
    assert_eq!(pad, [0x5a80_aaf8]);
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

#[cfg(feature = "ring")]
#[test]
fn nothing_is_sealed_to_a_point_of_small_order() {
    let mut public = sealing_keys(&opening_keys(2));
    let mut bytes = *public[1].as_bytes();
    bytes[1184..].fill(0);
    public[1] = seco_core::ServerSealingKey::from_bytes(&bytes).unwrap();
    let servers = ServerSetId::new(&public).unwrap();
    let (session, model) = (SessionId([1; 16]), ModelId([2; 32]));
    let binding = Binding { session, model, servers, incarnation: CONNECTION.id() };
    let keys = [1, 2].map(|byte| SessionKey::from_bytes([byte; 32]));
    let refused = seal_session_keys(&keys, &public, &binding, &mut rng(1), &mut [0; 4096]).err();
    assert!(matches!(refused, Some(Error::SealingKey)));
}

/// Where the part of the first blob ends that is made before X25519's.
const LATTICE_END: usize = 8 + 1088;

/// The stored blob still opens, what is sealed now opens too, and the portable sealing with the same randomness gives
/// the same bytes.
#[test]
fn sealing() {
    let servers = opening_keys(3);
    let public = sealing_keys(&servers);
    assert_eq!(
        hex(&Sha256::digest(public[0].as_bytes())),
        "f37b99b2db732a7df55f61fa442606133b1aeea462df9f8225fb5c82674523db"
    );
    let set = ServerSetId::new(&public).unwrap();
    assert_eq!(hex(&set.0), "f4d9e79d7df5fc0b03bf3584b620025061c9c3755d892db45a20160913abe7a3");
    let (session, model) = (SessionId([0xab; 16]), ModelId([0xcd; 32]));
    let binding = Binding { session, model, servers: set, incarnation: CONNECTION.id() };

    let keys = [1, 2, 3].map(|byte| SessionKey::from_bytes([byte; 32]));
    let mut buffer = [0; 4096];
    let sealed = seal_session_keys(&keys, &public, &binding, &mut rng(42), &mut buffer).unwrap();
    let stored = unhex(include_str!("vectors/v2/sealed.hex"));
    // ring draws its part of the randomness itself, so there the bytes are others every time.
    assert_eq!(cfg!(feature = "ring"), sealed != stored);
    assert_eq!(
        sealed[..LATTICE_END],
        stored[..LATTICE_END],
        "key id, and what ML-KEM makes of the same randomness"
    );
    let sealed = sealed.to_vec();

    for sealed in [stored, sealed] {
        let blobs = seco_core::message::sealed_keys(&sealed).unwrap();
        for (index, (server, key)) in servers.iter().zip(&keys).enumerate() {
            let opened = server.open(&blobs[index], &binding, index as u8).unwrap();
            assert!(bool::from(opened.ct_eq(key)));
        }
    }
}
