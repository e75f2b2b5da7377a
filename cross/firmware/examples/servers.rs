//! `servers DIR`: runs the device's application on the host against the servers' half of the protocol, checks
//! what arrives there, and records every byte for the board to replay.
//!
//! The servers are real as far as the device can tell: they open the sealed keys with their secret keys,
//! take the masks off the input, and mask the answer. Seed, inputs and logits are drawn anew by every run.
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs,
    reason = "a test: it reports by panicking"
)]

use chacha20::ChaCha20Rng;
use rand_core::{Rng, SeedableRng};
use seco_core::message::{decode_header, resume_tags, sealed_keys};
use seco_core::{
    Binding, EXPORTER_LEN, Incarnation, IncarnationKey, MAX_SESSION_BLOB, Request, Response,
    ServerOpeningKey, ServerSealingKey, ServerSetId, Session, SessionId, SessionKey, pack,
};
use seco_firmware::device::{self, Board, CLASSES, DOWN_LEN, INPUT_LEN, MODEL, Memory, Result};
use seco_firmware::{SEALING_KEYS, SERVERS, opening_seed};
use std::collections::VecDeque;
use std::fs::{self, File};
use std::io::Read;
use std::path::Path;

const HANDLE: u32 = 300;

fn main() {
    let dir = std::env::args_os().nth(1).expect("usage: servers DIR");
    let mut random = ChaCha20Rng::from_seed(entropy());
    let mut memory = Memory::new();

    let seed = entropy();
    let mut servers = Servers::new(&mut random);
    let mut session =
        device::open(&mut servers, &mut ChaCha20Rng::from_seed(seed), &mut memory).expect("opened");
    for _ in 0..2 {
        device::infer(&mut servers, &mut session, &mut memory).expect("inferred");
    }
    servers.record(&Path::new(&dir).join("sealing"), &[("seed", &seed)]);

    let mut servers = Servers::new(&mut random);
    let mut blob = [0; MAX_SESSION_BLOB];
    let blob = servers.provision(&mut blob);
    let stored = blob.to_vec();
    let seed = entropy();
    let mut random = ChaCha20Rng::from_seed(seed);
    let mut session = device::resume(&mut servers, blob, &mut random, &mut memory).expect("resumed");
    for _ in 0..2 {
        device::infer(&mut servers, &mut session, &mut memory).expect("inferred");
    }
    servers.record(&Path::new(&dir).join("provisioned"), &[("session", &stored), ("seed", &seed)]);
}

/// All servers of the deployment, the gateway among them, and what went over the link.
struct Servers {
    random: ChaCha20Rng,
    session: Option<SessionId>,
    session_keys: Vec<SessionKey>,
    /// Stands for what both ends of a TLS connection export.
    exporter: [u8; EXPORTER_LEN],
    keys: Vec<IncarnationKey>,
    counters: Vec<u64>,
    answers: VecDeque<Vec<u8>>,
    sensed: [u8; INPUT_LEN],
    answered: [i32; CLASSES],
    inputs: Vec<u8>,
    up: Vec<u8>,
    down: Vec<u8>,
    logits: Vec<u8>,
}

impl Servers {
    fn new(random: &mut ChaCha20Rng) -> Self {
        let mut random = ChaCha20Rng::from_rng(random);
        let mut exporter = [0; EXPORTER_LEN];
        random.fill_bytes(&mut exporter);
        Self {
            random,
            session: None,
            session_keys: Vec::new(),
            exporter,
            keys: Vec::new(),
            counters: Vec::new(),
            answers: VecDeque::new(),
            sensed: [0; INPUT_LEN],
            answered: [0; CLASSES],
            inputs: Vec::new(),
            up: Vec::new(),
            down: Vec::new(),
            logits: Vec::new(),
        }
    }

    fn record(&self, dir: &Path, start: &[(&str, &[u8])]) {
        fs::create_dir_all(dir).expect("the folder can be made");
        let files: [(&str, &[u8]); 5] = [
            ("input", &self.inputs),
            ("up", &self.up),
            ("down", &self.down),
            ("logits", &self.logits),
            ("exporter", &self.exporter),
        ];
        for (name, bytes) in files.iter().chain(start) {
            fs::write(dir.join(name), bytes).expect("the recording can be written");
        }
        println!(
            "{}: {} bytes up, {} down, {} requests, inputs and logits right at the other end",
            dir.display(),
            self.up.len(),
            self.down.len(),
            self.counters.len()
        );
    }

    /// Another device opens a session, on a connection of its own, and hands it over as a blob.
    fn provision<'b>(&mut self, out: &'b mut [u8]) -> &'b mut [u8] {
        let public = SEALING_KEYS.map(|key| ServerSealingKey::from_bytes(&key).expect("a key"));
        let mut random = ChaCha20Rng::from_rng(&mut self.random);
        let session = Session::new(MODEL, &public, 0, &mut random).expect("a session");
        let requester = session.start(&[1; EXPORTER_LEN], &mut random);
        let mut sealed = [0; device::UP_LEN];
        match session.open_message(&requester, &public, &mut random, &mut sealed).expect("sealed") {
            Request::Open { session, sealed, .. } => self.open(session, &requester.incarnation(), sealed),
            _ => panic!("a session opens with another message"),
        }
        let len = session.save(out).expect("saved").len();
        &mut out[..len]
    }

    fn answer(&mut self, response: Response<'_>) {
        let mut frame = [0; DOWN_LEN];
        self.answers.push_back(response.encode_frame(&mut frame).expect("a short answer").to_vec());
    }

    fn incarnation(&self, nonce: [u8; 16]) -> Incarnation {
        Incarnation { nonce, exporter: self.exporter }
    }

    fn open(&mut self, session: SessionId, incarnation: &Incarnation, sealed: &[u8]) {
        let public = SEALING_KEYS.map(|key| ServerSealingKey::from_bytes(&key).expect("a key"));
        let servers = ServerSetId::new(&public).expect("a set");
        let binding = Binding { session, model: MODEL.id, servers, incarnation: incarnation.id() };
        let blobs = sealed_keys(sealed).expect("one sealed key after the other");
        assert_eq!(blobs.len(), SERVERS);
        self.session_keys = (0u8..)
            .zip(blobs)
            .map(|(j, blob)| {
                let secret = ServerOpeningKey::from_seed(opening_seed(j));
                secret.open(blob, &binding, j).expect("sealed to this server")
            })
            .collect();
        self.session = Some(session);
        self.start(incarnation);
    }

    fn start(&mut self, incarnation: &Incarnation) {
        self.keys = self.session_keys.iter().map(|key| key.for_connection(incarnation)).collect();
    }

    /// `x ^ P_1 ^ … ^ P_n` back to `x`, then logits under `Q_1 + … + Q_n`.
    fn infer(&mut self, counter: u64, masked: &[u8]) -> Vec<u8> {
        assert!(!self.counters.contains(&counter), "a pad was used twice");
        self.counters.push(counter);
        assert_ne!(masked, self.sensed, "the input is masked");
        let mut input = masked.to_vec();
        let mut words = self.answered.map(i32::cast_unsigned);
        for key in &self.keys {
            key.apply_input_pad(counter, &mut input).expect("a pad");
            let mut pad = [0; CLASSES];
            key.output_pad(counter, MODEL.width, &mut pad).expect("a pad");
            for (word, pad) in words.iter_mut().zip(pad) {
                *word = word.wrapping_add(pad);
            }
        }
        assert_eq!(input, self.sensed, "the input arrives");
        let mut packed = vec![0; MODEL.logits_len()];
        pack::pack(&words, MODEL.width, &mut packed).expect("packed");
        packed
    }
}

impl Board for Servers {
    fn sense(&mut self, input: &mut [u8; INPUT_LEN]) -> Result<()> {
        self.random.fill_bytes(&mut self.sensed);
        *input = self.sensed;
        self.inputs.extend_from_slice(input);
        // Any signed words of the model's width.
        let unused = 32 - MODEL.width;
        self.answered = [0; CLASSES].map(|_: i32| self.random.next_u32().cast_signed() >> unused);
        Ok(())
    }

    fn send(&mut self, frame: &[u8]) -> Result<()> {
        self.up.extend_from_slice(frame);
        let header = decode_header(frame, device::UP_LEN)?.expect("a whole header");
        assert_eq!(header.header_len + header.message_len, frame.len());
        match Request::decode(header.message(frame).expect("a whole message"))? {
            Request::Open { session, model, nonce, sealed } => {
                assert_eq!(model, MODEL.id);
                self.open(session, &self.incarnation(nonce), sealed);
                self.answer(Response::Opened { handle: HANDLE });
            }
            Request::Resume { session, nonce, tags } => {
                assert_eq!(self.session, Some(session));
                self.start(&self.incarnation(nonce));
                let tags = resume_tags(tags).expect("one tag after the other");
                assert_eq!(tags.len(), SERVERS);
                assert!(self.keys.iter().zip(tags).all(|(key, tag)| key.accepts(tag)), "it has every key");
                self.answer(Response::Opened { handle: HANDLE });
            }
            Request::Infer { handle: HANDLE, counter, input } => {
                let masked = self.infer(counter, input);
                self.answer(Response::Queued { position: 1, wait_ms: 20 });
                self.answer(Response::Logits { masked: &masked });
            }
            other => panic!("no answer to {other:?}"),
        }
        Ok(())
    }

    fn receive(&mut self, frame: &mut [u8; DOWN_LEN]) -> Result<usize> {
        let answer = self.answers.pop_front().expect("the device waits for an answer that it was given");
        self.down.extend_from_slice(&answer);
        frame[..answer.len()].copy_from_slice(&answer);
        Ok(answer.len())
    }

    fn exporter(&mut self) -> Result<[u8; EXPORTER_LEN]> {
        Ok(self.exporter)
    }

    fn store(&mut self, blob: &[u8]) -> Result<()> {
        self.up.extend_from_slice(blob);
        Ok(())
    }

    fn show(&mut self, logits: &[i32; CLASSES]) -> Result<()> {
        assert_eq!(*logits, self.answered, "the answer arrives");
        self.logits.extend(logits.iter().flat_map(|logit| logit.to_le_bytes()));
        Ok(())
    }
}

fn entropy() -> [u8; 32] {
    let mut seed = [0; 32];
    File::open("/dev/urandom").and_then(|mut file| file.read_exact(&mut seed)).expect("a random generator");
    seed
}
