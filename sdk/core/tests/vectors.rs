//! Exact bytes of wire version 2, which must never change: `vectors/README.md`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "helpers of tests are tests")]

mod common;

use common::vectors::{Entry, each, only, section, sections, strict};
use common::{hex, rng, unhex};
use seco_core::message::{Header, decode_header, resume_tags, sealed_keys};
use seco_core::seal::seal_session_keys;
use seco_core::{
    Binding, Incarnation, IncarnationId, IncarnationKey, KeyId, ModelId, ModelInfo, Refusal, Request,
    Response, SEALED_LEN, ServerOpeningKey, ServerSealingKey, ServerSetId, Session, SessionId, SessionKey,
    pack,
};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

const FRAMES: &str = include_str!("vectors/wire-2/frames.json");
const PADS: &str = include_str!("vectors/wire-2/pads.json");
const SEALING: &str = include_str!("vectors/wire-2/sealing.json");
const SESSION: &str = include_str!("vectors/wire-2/session.json");

/// So that no section is added that nobody reads.
#[test]
fn every_section_is_read() {
    for (file, read) in [
        (FRAMES, "bad_messages, bad_packed, headers, packed, requests, responses"),
        (PADS, "bad_tags, bad_widths, connections, input_pads, output_pads"),
        (SEALING, "bad_sealed, binding, randomness, sealed, sealed_lists, servers, tag_lists, xwing"),
        (SESSION, "bad, connections, good"),
    ] {
        let mut names = sections(file);
        names.sort();
        assert_eq!(names.join(", "), read);
    }
}

#[test]
fn requests() {
    each(FRAMES, "requests", |entry| {
        let (session, model, nonce);
        let bytes;
        let request = match entry.text("kind").as_str() {
            "open" => {
                (session, model) = (SessionId(entry.array("session")), ModelId(entry.array("model")));
                (nonce, bytes) = (entry.array("nonce"), entry.bytes("sealed"));
                Request::Open { session, model, nonce, sealed: &bytes }
            }
            "infer" => {
                bytes = entry.bytes("input");
                Request::Infer {
                    handle: entry.number("handle"),
                    counter: entry.long("counter"),
                    input: &bytes,
                }
            }
            "probe" => {
                bytes = entry.bytes("noise");
                Request::Probe { down: entry.number("down"), noise: &bytes }
            }
            "resume" => {
                (session, nonce) = (SessionId(entry.array("session")), entry.array("nonce"));
                bytes = entry.bytes("tags");
                Request::Resume { session, nonce, tags: &bytes }
            }
            "admit" => {
                let token = entry.bytes("token");
                bytes = [token.as_slice(), &entry.bytes("request")].concat();
                let (token, request) = bytes.split_at(token.len());
                Request::Admit { token, request }
            }
            "update" => {
                bytes = entry.bytes("owner");
                Request::Update { serial: entry.long("serial"), owner: &bytes }
            }
            other => panic!("{other}"),
        };
        let mut buffer = vec![0; request.frame_bound()];
        let frame = entry.bytes("frame");
        assert_eq!(hex(request.encode_frame(&mut buffer).unwrap()), hex(&frame));
        assert_eq!(Request::decode(message(&frame)), Ok(request));
    });
}

#[test]
fn responses() {
    each(FRAMES, "responses", |entry| {
        let bytes;
        let response = match entry.text("kind").as_str() {
            "opened" => Response::Opened { handle: entry.number("handle") },
            "logits" => {
                bytes = entry.bytes("masked");
                Response::Logits { masked: &bytes }
            }
            "retired" => Response::Retired,
            "queued" => {
                Response::Queued { position: entry.number("position"), wait_ms: entry.number("wait_ms") }
            }
            "busy" => Response::Busy { retry_after_ms: entry.number("retry_after_ms") },
            "refused" => Response::Refused { reason: refusal(entry) },
            "probe" => {
                bytes = entry.bytes("noise");
                Response::Probe { noise: &bytes }
            }
            "update" => {
                bytes = entry.bytes("text");
                Response::Update { text: &bytes }
            }
            other => panic!("{other}"),
        };
        let mut buffer = vec![0; response.frame_bound()];
        let frame = entry.bytes("frame");
        assert_eq!(hex(response.encode_frame(&mut buffer).unwrap()), hex(&frame));
        assert_eq!(Response::decode(message(&frame)), Ok(response));
    });
}

fn refusal(entry: &mut Entry) -> Refusal {
    match entry.text("reason").as_str() {
        "unknown_session" => Refusal::UnknownSession,
        "wrong_model" => Refusal::WrongModel,
        "wrong_input_size" => Refusal::WrongInputSize { expected: entry.number("expected") },
        "counter_used" => Refusal::CounterUsed,
        "unavailable" => Refusal::Unavailable { server: entry.number("server") },
        "timed_out" => Refusal::TimedOut,
        "malformed" => Refusal::Malformed,
        "version_unsupported" => Refusal::VersionUnsupported { supported: entry.number("supported") },
        "internal" => Refusal::Internal,
        "wrong_servers" => Refusal::WrongServers,
        "seal_rejected" => Refusal::SealRejected { server: entry.number("server") },
        "shutting_down" => Refusal::ShuttingDown,
        "token_missing" => Refusal::TokenMissing,
        "token_invalid" => Refusal::TokenInvalid,
        "token_expired" => Refusal::TokenExpired,
        "token_exhausted" => Refusal::TokenExhausted { retry_after_s: entry.number("retry_after_s") },
        other => panic!("{other}"),
    }
}

/// Of a frame that is whole and nothing more.
fn message(frame: &[u8]) -> &[u8] {
    let header = decode_header(frame, 10_000).unwrap().unwrap();
    assert_eq!(header.header_len + header.message_len, frame.len());
    header.message(frame).unwrap()
}

#[test]
fn bad_messages() {
    each(FRAMES, "bad_messages", |entry| {
        let message = entry.bytes("message");
        match entry.text("of").as_str() {
            "request" => entry.fails(Request::decode(&message)),
            "response" => entry.fails(Response::decode(&message)),
            other => panic!("{other}"),
        }
    });
}

#[test]
fn headers() {
    each(FRAMES, "headers", |entry| {
        let (bytes, limit) = (entry.bytes("bytes"), entry.number("limit"));
        let header = decode_header(&bytes, limit);
        if entry.has("error") {
            entry.fails(header);
        } else if entry.has("incomplete") {
            assert_eq!((header, entry.value("incomplete")), (Ok(None), true.into()));
        } else {
            let [header_len, message_len] = ["header_len", "message_len"].map(|key| entry.number(key));
            assert_eq!(header, Ok(Some(Header { header_len, message_len })));
        }
    });
}

#[test]
fn packing() {
    each(FRAMES, "packed", |entry| {
        let (words, width, bytes) = (entry.words("words"), entry.number("width"), entry.bytes("bytes"));
        let mut packed = vec![0; pack::packed_len(words.len(), width)];
        pack::pack(&words, width, &mut packed).unwrap();
        assert_eq!(hex(&packed), hex(&bytes));
        let mut read = vec![0; words.len()];
        pack::unpack(&bytes, width, &mut read).unwrap();
        let kept: Vec<u32> = words.iter().map(|word| word & ((1 << width) - 1)).collect();
        assert_eq!(read, kept);
    });
    each(FRAMES, "bad_packed", |entry| {
        let (bytes, width) = (entry.bytes("bytes"), entry.number("width"));
        let mut words = vec![0; entry.number("count")];
        entry.fails(pack::unpack(&bytes, width, &mut words));
    });
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

/// The keys of all connections in the file.
fn connections() -> Vec<IncarnationKey> {
    let mut keys = Vec::new();
    each(PADS, "connections", |entry| {
        let incarnation = Incarnation { nonce: entry.array("nonce"), exporter: entry.array("exporter") };
        assert_eq!(hex(&incarnation.id().0), entry.text("incarnation"));
        let key = SessionKey::from_bytes(entry.array("session_key")).for_connection(&incarnation);
        let tag = entry.array("tag");
        assert_eq!(hex(key.tag()), hex(&tag));
        assert!(key.accepts(&tag));
        keys.push(key);
    });
    keys
}

#[test]
fn pads_and_tags() {
    let keys = connections();
    let key = |entry: &mut Entry| &keys[entry.number::<usize>("connection")];
    each(PADS, "input_pads", |entry| {
        let mut pad = vec![0; entry.number("length")];
        key(entry).apply_input_pad(entry.long("counter"), &mut pad).unwrap();
        assert_eq!(hex(&pad), entry.text("bytes"));
    });
    each(PADS, "output_pads", |entry| {
        let words = entry.words("words");
        let mut pad = vec![0; words.len()];
        key(entry).output_pad(entry.long("counter"), entry.number("width"), &mut pad).unwrap();
        assert_eq!(pad, words);
    });
    each(PADS, "bad_tags", |entry| assert!(!key(entry).accepts(&entry.array("tag"))));
    each(PADS, "bad_widths", |entry| {
        let width = entry.number("width");
        entry.fails(keys[0].output_pad(0, width, &mut [0; 1]));
    });
}

fn servers() -> (Vec<ServerOpeningKey>, Vec<ServerSealingKey>) {
    let mut pairs = (Vec::new(), Vec::new());
    each(SEALING, "servers", |entry| {
        let opening = ServerOpeningKey::from_seed(entry.array("seed"));
        let sealing = ServerSealingKey::from_bytes(&entry.bytes("sealing_key")).unwrap();
        assert_eq!(opening.sealing_key().unwrap(), sealing);
        let hash = hex(&Sha256::digest(sealing.as_bytes()));
        assert_eq!((hash.clone(), hash), (entry.text("key_hash"), hex(&sealing.hash().0)));
        pairs.0.push(opening);
        pairs.1.push(sealing);
    });
    pairs
}

fn binding() -> Binding {
    let mut binding = None;
    only(SEALING, "binding", |entry| {
        binding = Some(Binding {
            session: SessionId(entry.array("session")),
            model: ModelId(entry.array("model")),
            servers: ServerSetId(entry.array("server_set")),
            incarnation: IncarnationId(entry.array("incarnation")),
        });
    });
    binding.unwrap()
}

/// Seeds expand as everywhere else.
#[test]
fn xwing_key_generation() {
    only(SEALING, "xwing", |entry| {
        let key = ServerOpeningKey::from_seed(entry.array("seed")).sealing_key().unwrap();
        let begins = entry.bytes("sealing_key_begins");
        assert_eq!(hex(&key.as_bytes()[..begins.len()]), hex(&begins));
    });
}

#[cfg(feature = "ring")]
#[test]
fn nothing_is_sealed_to_a_point_of_small_order() {
    let mut public = servers().1;
    public.truncate(2);
    let mut bytes = *public[1].as_bytes();
    bytes[1184..].fill(0);
    public[1] = ServerSealingKey::from_bytes(&bytes).unwrap();
    let binding = Binding { servers: ServerSetId::new(&public).unwrap(), ..binding() };
    let keys = [1, 2].map(|byte| SessionKey::from_bytes([byte; 32]));
    let refused = seal_session_keys(&keys, &public, &binding, &mut rng(1), &mut [0; 4096]).err();
    assert!(matches!(refused, Some(seco_core::Error::SealingKey)));
}

/// Where the part of the first blob ends that is made before X25519's.
const LATTICE_END: usize = 8 + 1088;

/// The stored blobs still open, what is sealed now opens too, and the portable sealing with the same randomness gives
/// the same bytes.
#[test]
fn sealing() {
    let ((servers, public), binding) = (servers(), binding());
    assert_eq!(hex(&ServerSetId::new(&public).unwrap().0), hex(&binding.servers.0));
    let (mut keys, mut stored) = (Vec::new(), Vec::new());
    each(SEALING, "sealed", |entry| {
        assert_eq!(entry.number::<usize>("server"), keys.len());
        keys.push(SessionKey::from_bytes(entry.array("session_key")));
        stored.extend(entry.array::<SEALED_LEN>("sealed"));
    });
    let randomness = strict(section(SEALING, "randomness").as_str().unwrap());
    assert_eq!(randomness, [42; 32]);
    let mut buffer = [0; 4096];
    let sealed = seal_session_keys(&keys, &public, &binding, &mut rng(42), &mut buffer).unwrap();
    // ring draws its part of the randomness itself, so there the bytes are others every time.
    assert_eq!(cfg!(feature = "ring"), sealed != stored);
    assert_eq!(
        sealed[..LATTICE_END],
        stored[..LATTICE_END],
        "key id, and what ML-KEM makes of the same randomness"
    );
    for sealed in [&stored, sealed] {
        let blobs = sealed_keys(sealed).unwrap();
        for (index, (server, key)) in servers.iter().zip(&keys).enumerate() {
            assert_eq!(KeyId::of(&blobs[index]), public[index].hash().id());
            let opened = server.open(&blobs[index], &binding, index as u8).unwrap();
            assert!(bool::from(opened.ct_eq(key)));
        }
    }
    each(SEALING, "bad_sealed", |entry| {
        let mut blob = sealed_keys(&stored).unwrap()[entry.number::<usize>("sealed")];
        if entry.has("at") {
            blob[entry.number::<usize>("at")] ^= entry.number::<u8>("xor");
        }
        let mut bound = binding;
        if entry.has("session") {
            bound.session = SessionId(entry.array("session"));
        }
        if entry.has("model") {
            bound.model = ModelId(entry.array("model"));
        }
        if entry.has("server_set") {
            bound.servers = ServerSetId(entry.array("server_set"));
        }
        if entry.has("incarnation") {
            bound.incarnation = IncarnationId(entry.array("incarnation"));
        }
        let server = &servers[entry.number::<usize>("server")];
        let index = entry.number("index");
        entry.fails(server.open(&blob, &bound, index));
    });
}

#[test]
fn lists_of_sealed_keys_and_tags() {
    fn check(entry: &mut Entry, count: seco_core::Result<usize>) {
        if entry.has("error") {
            entry.fails(count);
        } else {
            assert_eq!(count, Ok(entry.number("count")));
        }
    }
    each(SEALING, "sealed_lists", |entry| {
        let bytes = vec![0; entry.number("length")];
        check(entry, sealed_keys(&bytes).map(<[_]>::len));
    });
    each(SEALING, "tag_lists", |entry| {
        let bytes = vec![0; entry.number("length")];
        check(entry, resume_tags(&bytes).map(<[_]>::len));
    });
}

/// The blob of a good session.
fn blob(name: &str) -> Vec<u8> {
    let good = section(SESSION, "good");
    let found = good.as_array().unwrap().iter().find(|entry| entry["name"] == *name);
    strict(found.unwrap()["blob"].as_str().unwrap())
}

#[test]
fn stored_sessions() {
    each(SESSION, "good", |entry| {
        let blob = entry.bytes("blob");
        let session = Session::restore(&mut blob.clone()).unwrap();
        assert_eq!(hex(session.save(&mut [0; 1000]).unwrap()), hex(&blob));
        assert_eq!(hex(&session.id().0), entry.text("session"));
        let model = ModelInfo {
            id: ModelId(entry.array("model")),
            input_len: entry.number("input_len"),
            values: entry.number("values"),
            width: entry.number("width"),
        };
        assert_eq!((session.model(), session.created()), (&model, entry.number("created")));
        assert_eq!(hex(&session.server_set().0), entry.text("server_set"));
        let keys = entry.list("keys", |key| key.as_str().unwrap().to_owned()).concat();
        assert_eq!(hex(&blob[106..blob.len() - 32]), keys);
    });
    each(SESSION, "bad", |entry| {
        let mut blob = match entry.has("file") {
            true => match entry.text("file").as_str() {
                "v1/session_blob.hex" => unhex(include_str!("vectors/v1/session_blob.hex")),
                "v2/session_blob.hex" => unhex(include_str!("vectors/v2/session_blob.hex")),
                other => panic!("{other}"),
            },
            false => entry.bytes("blob"),
        };
        entry.fails(Session::restore(&mut blob).map(|session| session.id()));
    });
}

/// What a device makes of a stored session on a connection, by its own code and by that of the servers.
#[test]
fn connections_of_a_stored_session() {
    each(SESSION, "connections", |entry| {
        let (blob, exporter) = (blob(&entry.text("blob")), entry.array("exporter"));
        let mut requester = Session::restore(&mut blob.clone()).unwrap().start(&exporter, &mut rng(8));
        let incarnation = Incarnation { nonce: entry.array("nonce"), exporter };
        assert_eq!(requester.incarnation(), incarnation);
        let mut buffer = [0; 1000];
        let Request::Resume { tags, .. } = requester.resume_message(&mut buffer).unwrap() else { panic!() };
        assert_eq!(hex(tags), entry.text("tags"));
        let (plain, masked) = (entry.bytes("input"), entry.bytes("masked"));
        let mut input = plain.clone();
        let pending = requester.request(&mut input).unwrap();
        assert_eq!(pending.counter(), entry.long("counter"));
        assert_eq!(hex(&input), hex(&masked));
        for (key, tag) in blob[106..blob.len() - 32].as_chunks().0.iter().zip(resume_tags(tags).unwrap()) {
            let key = SessionKey::from_bytes(*key).for_connection(&incarnation);
            assert!(key.accepts(tag));
            key.apply_input_pad(pending.counter(), &mut input).unwrap();
        }
        assert_eq!(hex(&input), hex(&plain));
    });
}
