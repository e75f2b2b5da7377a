//! One function for each decoder, and what it accepts.

use rand_core::SeedableRng as _;
use seco_core::message::{decode_header, resume_tags, sealed_keys};
use seco_core::pad::TAG_LEN;
use seco_core::seal::SEALED_LEN;
use seco_core::{
    MAX_SESSION_BLOB, ModelId, ModelInfo, Refusal, Request, Response, ServerOpeningKey, Session, SessionId,
    Token, WIRE_VERSION, mux,
};
use seco_model::{ImportOptions, PartyModel};
use seco_node::untrusted;
use seco_sdk::Deployment;
use sha2::{Digest as _, Sha256};

use crate::runner::{Decode, Target};
use crate::{cluster, files};

const MIB: u64 = 1 << 20;

const fn target(name: &'static str, decode: Decode, memory: u64, samples: fn() -> Vec<Vec<u8>>) -> Target {
    Target { name, decode, memory, samples }
}

pub const ALL: [Target; 24] = [
    target("device_messages", device_messages, MIB, messages),
    target("session_blob", session_blob, MIB, blobs),
    target("versions", untrusted::versions, MIB, untrusted::ranges),
    target("hello", untrusted::hello, MIB, untrusted::hellos),
    target("offer", untrusted::offer, MIB, untrusted::offers),
    target("order", untrusted::order, MIB, untrusted::orders),
    target("reply", untrusted::reply, MIB, untrusted::replies),
    target("set_up", cluster::set_up, 64 * MIB, runs),
    target("step", cluster::step, 64 * MIB, runs),
    target("party", cluster::party, 256 * MIB, runs),
    target("part_file", part_file, 16 * MIB, parts),
    target("npy", npy, MIB, arrays),
    target("onnx", onnx, 64 * MIB, networks),
    target("deployment", deployment, 8 * MIB, deployments),
    target("update", files::update, 16 * MIB, files::updates),
    target("settings", files::settings, 8 * MIB, files::all_settings),
    target("token_file", files::token_file, 8 * MIB, files::token_files),
    target("tokens_used", files::tokens_used, MIB, files::all_tokens_used),
    target("key_files", files::key_files, MIB, files::all_key_files),
    target("peers", files::peers, MIB, files::all_peers),
    target("ledger", files::ledger, MIB, files::ledgers),
    target("ledger_head", files::ledger_head, MIB, files::ledger_heads),
    target("bundle_file", files::bundle_file, MIB, files::bundle_files),
    target("bundle", files::bundle, MIB, files::bundles),
];

/// What a device and a gateway read of each other: with the right version too, which most changes spoil.
fn device_messages(bytes: &[u8]) -> bool {
    let _ = decode_header(bytes, 500);
    if let Ok(Some(record)) = mux::decode_record(bytes, 500) {
        assert!(record.message_len <= 500 && record.id <= mux::MAX_ID);
        let _ = record.message(bytes);
    }
    let _ = (sealed_keys(bytes), resume_tags(bytes), Token::from_bytes(bytes));
    let _ = str::from_utf8(bytes).map(str::parse::<Token>);
    let mut message = bytes.to_vec();
    if let Some(version) = message.first_mut() {
        *version = WIRE_VERSION;
    }
    let read = [bytes, &message].map(|message| {
        if let Ok(Request::Admit { request, .. }) = Request::decode(message) {
            let _ = Request::admitted(request);
        }
        Request::decode(message).is_ok() || Response::decode(message).is_ok()
    });
    read.contains(&true)
}

fn messages() -> Vec<Vec<u8>> {
    let (session, nonce) = (SessionId([1; 16]), [3; 16]);
    let requests = [
        Request::Open { session, model: ModelId([2; 32]), nonce, sealed: &[4; 2 * SEALED_LEN] },
        Request::Resume { session, nonce, tags: &[5; 2 * TAG_LEN] },
        Request::Infer { handle: 70_000, counter: 1 << 40, input: &[5; 300] },
        Request::Probe { down: 500, noise: &[6; 200] },
        Request::Admit { token: &[8; 24], request: &[9; 100] },
        Request::Update { serial: 1 << 40, owner: &[5; 32] },
    ];
    let responses = [
        Response::Opened { handle: 70_000 },
        Response::Logits { masked: &[7; 28] },
        Response::Queued { position: 3, wait_ms: 1 << 20 },
        Response::Busy { retry_after_ms: 500 },
        Response::Refused { reason: Refusal::Unavailable { server: 2 } },
        Response::Probe { noise: &[6; 200] },
        Response::Update { text: b"version = 3" },
    ];
    let mut buffer = [0; 4096];
    let mut message = |encode: &dyn Fn(&mut [u8]) -> Vec<u8>| {
        let frame = encode(&mut buffer);
        decode_header(&frame, 4096).unwrap().unwrap().message(&frame).unwrap().to_vec()
    };
    let requests = requests.map(|request| message(&|out| request.encode_frame(out).unwrap().to_vec()));
    let responses = responses.map(|response| message(&|out| response.encode_frame(out).unwrap().to_vec()));
    [requests.as_slice(), &responses].concat()
}

/// As it is, and with the checksum that belongs to it: damage is found by that, what is behind it must hold by itself.
fn resealed(bytes: &[u8], decode: impl Fn(&[u8]) -> bool) -> bool {
    let mut sealed = bytes.to_vec();
    if let Some((body, checksum)) = sealed.split_last_chunk_mut::<32>() {
        checksum.copy_from_slice(&Sha256::digest(body));
    }
    let plain = decode(bytes);
    decode(&sealed) || plain
}

fn session_blob(bytes: &[u8]) -> bool {
    resealed(bytes, |blob| Session::restore(&mut blob.to_vec()).is_ok())
}

fn blobs() -> Vec<Vec<u8>> {
    let mut rng = chacha20::ChaCha20Rng::from_seed([1; 32]);
    let model = ModelInfo { id: ModelId([0xcd; 32]), input_len: 784, values: 10, width: 20 };
    let blob = |servers: u8| {
        let keys: Vec<_> = (1..=servers)
            .map(|seed| ServerOpeningKey::from_seed([seed; 32]).sealing_key().unwrap())
            .collect();
        let session = Session::new(model, &keys, 1_700_000_000, &mut rng).unwrap();
        session.save(&mut [0; MAX_SESSION_BLOB]).unwrap().to_vec()
    };
    [2, 8].map(blob).to_vec()
}

fn part_file(bytes: &[u8]) -> bool {
    resealed(bytes, |file| PartyModel::from_bytes(file).is_ok())
}

fn parts() -> Vec<Vec<u8>> {
    cluster::parts().iter().map(|part| part.to_bytes().unwrap().to_vec()).collect()
}

fn npy(bytes: &[u8]) -> bool {
    use seco_model::npy::{read_f32, read_integers, read_u8};
    let numbers = [read_u8(bytes).is_ok(), read_integers(bytes).is_ok(), read_f32(bytes).is_ok()];
    seco_sdk::npy::Array::read(bytes).is_ok() || numbers.contains(&true)
}

fn arrays() -> Vec<Vec<u8>> {
    vec![include_bytes!("../../../data/mlp-labels-20.npy").to_vec()]
}

fn onnx(bytes: &[u8]) -> bool {
    seco_model::read(bytes, &ImportOptions::default()).is_ok()
}

fn networks() -> Vec<Vec<u8>> {
    vec![include_bytes!("../../../data/mlp-digits.onnx").to_vec()]
}

fn deployment(bytes: &[u8]) -> bool {
    str::from_utf8(bytes).is_ok_and(|text| Deployment::from_toml(text).is_ok())
}

fn deployments() -> Vec<Vec<u8>> {
    let files: [&[u8]; 2] =
        [include_bytes!("corpus/deployment/good-0"), include_bytes!("corpus/deployment/several-0")];
    files.map(<[u8]>::to_vec).to_vec()
}

/// Every server's first messages of every phase, unchanged: one with a number that is never reached.
fn runs() -> Vec<Vec<u8>> {
    vec![vec![0, 0, 255]]
}
