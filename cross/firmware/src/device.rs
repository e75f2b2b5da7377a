//! The application: sessions and requests between a sensor and a gateway, for any [`Board`].

use crate::{SEALING_KEYS, SERVERS};
use core::fmt;
use rand_core::CryptoRng;
use seco_core::message::{FRAME_OVERHEAD, decode_header};
use seco_core::pad::TAG_LEN;
use seco_core::{
    EXPORTER_LEN, MAX_SESSION_BLOB, ModelId, ModelInfo, Pending, Refusal, Request, Requester, Response,
    SEALED_LEN, ServerSealingKey, Session,
};
use zeroize::Zeroizing;

/// The deployment's model: 28x28 grey pixels, ten classes.
pub const MODEL: ModelInfo =
    ModelInfo { id: ModelId([0xcd; 32]), input_len: INPUT_LEN, values: CLASSES, width: 20 };

/// Bytes of an input.
pub const INPUT_LEN: usize = 784;

/// Logits of an answer.
pub const CLASSES: usize = 10;

/// Bytes of the buffer for frames to the gateway; the longest opens a session.
pub const UP_LEN: usize = FRAME_OVERHEAD + SERVERS * SEALED_LEN;

/// Bytes of the buffer for frames from the gateway; the longest carries the logits.
pub const DOWN_LEN: usize = FRAME_OVERHEAD + MODEL.logits_len();

/// What went wrong.
#[derive(Debug)]
pub enum Error {
    /// A buffer is too small, a message is not one, a blob is damaged.
    Core(seco_core::Error),
    /// The gateway refused.
    Refused(Refusal),
    /// The gateway's answer is no answer to this request.
    Unexpected,
    /// The board's link, sensor or storage failed.
    Board(&'static str),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Core(error) => error.fmt(f),
            Self::Refused(reason) => reason.fmt(f),
            Self::Unexpected => f.write_str("the answer fits no request"),
            Self::Board(what) => f.write_str(what),
        }
    }
}

impl From<seco_core::Error> for Error {
    fn from(error: seco_core::Error) -> Self {
        Self::Core(error)
    }
}

/// Result of the application.
pub type Result<T> = core::result::Result<T, Error>;

/// What a board brings.
pub trait Board {
    /// Reads the sensor.
    ///
    /// # Errors
    /// [`Error::Board`].
    fn sense(&mut self, input: &mut [u8; INPUT_LEN]) -> Result<()>;

    /// Sends a frame to the gateway. The link authenticates the gateway and is encrypted: TLS or QUIC.
    ///
    /// # Errors
    /// [`Error::Board`].
    fn send(&mut self, frame: &[u8]) -> Result<()>;

    /// Waits for the next frame from the gateway and returns its length in bytes. Ends in time, whatever the
    /// gateway does.
    ///
    /// # Errors
    /// [`Error::Board`].
    fn receive(&mut self, frame: &mut [u8; DOWN_LEN]) -> Result<usize>;

    /// What the TLS session of the link yields for this connection (RFC 5705; `exporter` in most libraries),
    /// under the label [`seco_core::EXPORTER_LABEL`] and without a context. The gateway computes the same: pads
    /// depend on it, so a board whose link ends elsewhere must get it from there.
    ///
    /// # Errors
    /// [`Error::Board`].
    fn exporter(&mut self) -> Result<[u8; EXPORTER_LEN]>;

    /// Puts a session where only the device reads it, and replaces the one before. Once per session.
    ///
    /// # Errors
    /// [`Error::Board`].
    fn store(&mut self, blob: &[u8]) -> Result<()>;

    /// Acts on an answer.
    ///
    /// # Errors
    /// [`Error::Board`].
    fn show(&mut self, logits: &[i32; CLASSES]) -> Result<()>;

    /// Runs one step of the application. A board that measures does it here.
    fn step<T>(&mut self, name: &'static str, work: impl FnOnce() -> T) -> T {
        let _ = name;
        work()
    }
}

/// Buffers for a frame each way, so that the stack does not hold them.
pub struct Memory {
    up: [u8; UP_LEN],
    down: [u8; DOWN_LEN],
}

impl Memory {
    /// Empty buffers.
    #[must_use]
    pub const fn new() -> Self {
        Self { up: [0; UP_LEN], down: [0; DOWN_LEN] }
    }
}

impl Default for Memory {
    fn default() -> Self {
        Self::new()
    }
}

/// A session that the gateway knows on this connection, and its name there. Ends with the connection.
pub struct Opened {
    requester: Requester,
    handle: u32,
}

/// Opens a session: draws its keys, seals them to the servers, tells the gateway, stores it. All of the device's
/// public-key cryptography, once.
///
/// # Errors
/// [`Error`].
pub fn open(board: &mut impl Board, rng: &mut impl CryptoRng, memory: &mut Memory) -> Result<Opened> {
    let exporter = board.exporter()?;
    let (session, requester, start) =
        board.step("session set-up", || seal(&exporter, rng, &mut memory.up))?;
    board.send(memory.up.get(start..).unwrap_or_default())?;
    let handle = opened(receive(board, &mut memory.down)?)?;
    let mut buffer = Zeroizing::new([0; MAX_SESSION_BLOB]);
    board.store(session.save(buffer.as_mut_slice())?)?;
    Ok(Opened { requester, handle })
}

/// Goes on with a stored session, on a new connection or after a restart. `blob` is a copy and is wiped; what is
/// stored stays as it is. No public-key cryptography.
///
/// # Errors
/// [`Error`].
pub fn resume(
    board: &mut impl Board,
    blob: &mut [u8],
    rng: &mut impl CryptoRng,
    memory: &mut Memory,
) -> Result<Opened> {
    let exporter = board.exporter()?;
    let requester = board.step("session restored", || restore(blob, &exporter, rng))?;
    let mut tags = [0; SERVERS * TAG_LEN];
    let frame = requester.resume_message(&mut tags)?.encode_frame(&mut memory.up)?;
    board.send(frame)?;
    let handle = opened(receive(board, &mut memory.down)?)?;
    Ok(Opened { requester, handle })
}

/// Classifies what the sensor sees.
///
/// # Errors
/// [`Error`].
pub fn infer(board: &mut impl Board, opened: &mut Opened, memory: &mut Memory) -> Result<()> {
    // Masked where it is sent from, behind the room for the frame's head.
    let up = memory.up.first_chunk_mut::<{ FRAME_OVERHEAD + INPUT_LEN }>().ok_or(Error::Unexpected)?;
    board.sense(up.last_chunk_mut().ok_or(Error::Unexpected)?)?;
    let (pending, start) = board.step("request", || mask(opened, up))?;
    board.send(up.get(start..).unwrap_or_default())?;
    let answer = receive(board, &mut memory.down)?;
    let mut logits = Zeroizing::new([0; CLASSES]);
    board.step("answer", || unmask(opened, pending, answer, &mut logits))?;
    board.show(&logits)
}

// The steps are not inlined, so that their stack is theirs and free between them.

#[inline(never)]
fn seal(
    exporter: &[u8; EXPORTER_LEN],
    rng: &mut impl CryptoRng,
    up: &mut [u8; UP_LEN],
) -> Result<(Session, Requester, usize)> {
    let [first, second, third] = SEALING_KEYS;
    let servers = [
        ServerSealingKey::from_bytes(first)?,
        ServerSealingKey::from_bytes(second)?,
        ServerSealingKey::from_bytes(third)?,
    ];
    // Without a clock, nobody knows when it was made.
    let session = Session::new(MODEL, &servers, 0, rng)?;
    let requester = session.start(exporter, rng);
    let sealed = up.get_mut(FRAME_OVERHEAD..).unwrap_or_default();
    session.open_message(&requester, &servers, rng, sealed)?;
    let nonce = requester.incarnation().nonce;
    let request = Request::Open { session: session.id(), model: MODEL.id, nonce, sealed: &[] };
    let start = request.encode_frame_around(up)?;
    Ok((session, requester, start))
}

#[inline(never)]
fn restore(blob: &mut [u8], exporter: &[u8; EXPORTER_LEN], rng: &mut impl CryptoRng) -> Result<Requester> {
    Ok(Session::restore(blob)?.start(exporter, rng))
}

#[inline(never)]
fn mask(opened: &mut Opened, up: &mut [u8]) -> Result<(Pending, usize)> {
    let input = up.get_mut(FRAME_OVERHEAD..).unwrap_or_default();
    let pending = opened.requester.request(input)?;
    let request = Request::Infer { handle: opened.handle, counter: pending.counter(), input: &[] };
    let start = request.encode_frame_around(up)?;
    Ok((pending, start))
}

#[inline(never)]
fn unmask(opened: &Opened, pending: Pending, answer: &[u8], logits: &mut [i32; CLASSES]) -> Result<()> {
    match decode(answer)? {
        Response::Logits { masked } => Ok(opened.requester.unmask_logits(pending, masked, logits)?),
        other => Err(unexpected(&other)),
    }
}

fn opened(answer: &[u8]) -> Result<u32> {
    match decode(answer)? {
        Response::Opened { handle } => Ok(handle),
        other => Err(unexpected(&other)),
    }
}

/// The one answer that is not a place in the queue. That the gateway does not send those for ever is the
/// board's time limit to say.
fn receive<'a>(board: &mut impl Board, down: &'a mut [u8; DOWN_LEN]) -> Result<&'a [u8]> {
    loop {
        let len = board.receive(down)?;
        let frame = down.get(..len).ok_or(Error::Unexpected)?;
        if !matches!(decode(frame)?, Response::Queued { .. }) {
            return down.get(..len).ok_or(Error::Unexpected);
        }
    }
}

fn decode(frame: &[u8]) -> Result<Response<'_>> {
    let header = decode_header(frame, DOWN_LEN)?;
    let message = header.and_then(|header| header.message(frame)).ok_or(Error::Unexpected)?;
    Ok(Response::decode(message)?)
}

fn unexpected(answer: &Response<'_>) -> Error {
    match answer {
        Response::Refused { reason } => Error::Refused(*reason),
        _ => Error::Unexpected,
    }
}
